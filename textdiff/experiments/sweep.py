"""All runs of a table. In: a grid (`textdiff.experiments.grids`). Out: a record a run, each made by papermill in a process of its own.

    planned = plan(grid("comparison", "monuseg"))     # which runs, and which of them have a record already
    outcomes = sweep(planned, jobs=2)                 # the others are run; one that fails does not stop the rest

The executed notebooks are kept as <results>/notebooks/<run id>.ipynb. A sweep that was stopped goes on where it was when it
is started again: finished runs have their record, and the training of an interrupted one has its checkpoint.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from textdiff.base.paths import results_dir
from textdiff.cli import find_notebook, notebook_parameters
from textdiff.experiments.config import TextDiffConfig
from textdiff.experiments.grids import Grid, Row
from textdiff.experiments.records import Run, is_record, papermill_command, published_dir

TO_RUN, RECORDED, PUBLISHED = "to run", "recorded", "published"
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0  # between asking a process to end and ending it
ERROR_LINES = 6


@dataclass(frozen=True)
class Planned:
    """One run: its configuration, the row of the table that it belongs to, and "to run", "recorded" or "published"."""

    config: TextDiffConfig
    row: str
    state: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done", "skipped" (it had a record) or "failed" with the last lines it said."""

    planned: Planned
    state: str
    seconds: float = 0.0
    error: tuple[str, ...] = ()


def state_of(config: TextDiffConfig) -> str:
    """Where the record of a configuration is: among your own runs, the published ones, or nowhere yet ("to run")."""
    if Run.open(config, config.out_dir).finished:
        return RECORDED
    return PUBLISHED if is_record(published_dir() / config.experiment / config.run_id) else TO_RUN


def plan(grid: Grid, rows: Sequence[str] | None = None) -> list[Planned]:
    """The runs of a grid, each once, the first seed of every row first; ``rows``: only those with these labels.

    Raises:
        ValueError: an unknown label (the nearest one is named), or a configuration that is not possible.
    """
    chosen = replace(grid, rows=grid.rows if rows is None else _rows_labelled(grid, rows))
    labels: dict[str, str] = {}
    for row in chosen.rows:
        for config in chosen.configs(row):
            labels.setdefault(config.run_id, row.label)
    return [Planned(config, labels[config.run_id], state_of(config)) for config in chosen.all()]


def _rows_labelled(grid: Grid, labels: Sequence[str]) -> tuple[Row, ...]:
    known = list(dict.fromkeys(row.label for row in grid.rows))
    for label in labels:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"grid {grid.name} has no row {label!r}.{hint} It has: {'; '.join(known)}")
    return tuple(row for row in grid.rows if row.label in labels)


def split_labels(text: str, grid: Grid) -> list[str]:
    """Labels of rows out of a comma-separated list: "U-Net,TextDiff, random weights" are two where a label has that comma."""
    known = {row.label for row in grid.rows}
    parts, labels = [part.strip() for part in text.split(",")], []
    while parts:
        lengths = (n for n in range(len(parts), 1, -1) if ", ".join(parts[:n]) in known)
        length = next(lengths, 1)
        labels.append(", ".join(parts[:length]))
        parts = parts[length:]
    return labels


def changed(grid: Grid, values: Mapping[str, Any]) -> Grid:
    """The grid with other parameters in all its runs.

    Raises:
        ValueError: a parameter that names the grid's runs (dataset, mode, seed), or in which its rows differ.
    """
    for name in values:
        if name in ("dataset", "mode", "seed"):
            raise ValueError(
                f"{name} is not set for single runs: -p dataset=..., -p mode=... and --seeds 0,1 choose it"
            )
        if any(name in row.fields for row in grid.rows):
            raise ValueError(f"the rows of grid {grid.name} differ in {name}: the same {name} for all makes no table")
    return replace(grid, common={**grid.common, **values})


def notebook_command(config: TextDiffConfig, notebook: Path, out: Path) -> list[str]:
    """The words of the papermill command that makes a run, writing the executed notebook to ``out``."""
    options = shlex.split(papermill_command(config.notebook, config.to_dict()))[3:]
    return ["papermill", str(notebook), str(out), *options, "--kernel", "python3", "--no-progress-bar"]


def executed_path(config: TextDiffConfig) -> Path:
    """Where the executed notebook of a run is kept."""
    return results_dir() / "notebooks" / f"{config.run_id}.ipynb"


def described(planned: Sequence[Planned]) -> str:
    """A table of the runs, one line each, and under every run that is still to be made its papermill command."""
    width = max([len("row"), *(len(one.row) for one in planned)])
    lines = [f"{'state':9}  {'seed':>4}  {'row':{width}}  run id"]
    for one in planned:
        lines.append(f"{one.state:9}  {one.config.seed:>4}  {one.row:{width}}  {one.config.run_id}")
        if one.state == TO_RUN:
            notebook = find_notebook(one.config.notebook)
            lines.append("    " + shlex.join(notebook_command(one.config, notebook, executed_path(one.config))))
    return "\n".join([*lines, _counted(planned)])


def _counted(planned: Sequence[Planned]) -> str:
    states = [one.state for one in planned]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (RECORDED, PUBLISHED, TO_RUN))
    return f"{len(planned)} {'run' if len(planned) == 1 else 'runs'}: {counts}"


def sweep(planned: Sequence[Planned], jobs: int = 1, report: Callable[[str], None] = print) -> list[Outcome]:
    """Makes the runs that have no record yet, ``jobs`` at a time; ``report`` is given one line a run, more when it failed.

    Every process may use its share of the cores (OMP_NUM_THREADS, unless that is set). An exception here, Ctrl-C among
    them, stops all of them; what they had half written is removed.

    Raises:
        ValueError: ``jobs`` below one, or a notebook that lacks a parameter of the runs.
        FileNotFoundError: the notebook is not here.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: at least one run at a time")
    check_notebooks([one for one in planned if one.state == TO_RUN])
    report(_counted(planned))
    waiting = [one for one in planned if one.state == TO_RUN]
    outcomes = [Outcome(one, "skipped") for one in planned if one.state != TO_RUN]
    running: list[_Child] = []
    total, told = len(waiting), 0
    try:
        while waiting or running:
            ended = [child.outcome() for child in running if child.process.poll() is not None]
            running = [child for child in running if child.process.returncode is None]
            while waiting and len(running) < jobs:
                one = waiting.pop(0)
                # Another sweep may have made it in the meantime
                if state_of(one.config) == TO_RUN:
                    running.append(_Child(one, _environment(jobs)))
                else:
                    ended.append(Outcome(one, "skipped"))
            for outcome in ended:
                told += 1
                report(f"[{told}/{total}] {_line(outcome)}")
            outcomes += ended
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        _stop(running)
    return outcomes


def check_notebooks(planned: Sequence[Planned]) -> None:
    """Refuses runs whose notebook lacks one of their parameters: papermill would only warn, and make another run.

    Raises:
        ValueError: naming notebook and parameters.
        FileNotFoundError: the notebook is not here.
    """
    for name in {one.config.notebook for one in planned}:
        notebook = find_notebook(name)
        known = notebook_parameters(notebook)
        fields = next(one.config for one in planned if one.config.notebook == name).to_dict()
        missing = [field for field in fields if field not in known]
        if missing:
            raise ValueError(
                f"{notebook.name} has no parameter {', '.join(missing)}: its runs would not be the planned ones"
            )


def _line(outcome: Outcome) -> str:
    config = outcome.planned.config
    line = f"{outcome.state:7}  {outcome.seconds:6.0f} s  {outcome.planned.row}, seed {config.seed}  {config.run_id}"
    return "\n".join([line, *(f"    {said}" for said in outcome.error)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """What a sweep came to: how many runs were made, skipped and failed, and the failed ones by name."""
    states = [outcome.state for outcome in outcomes]
    failed = [outcome.planned.config for outcome in outcomes if outcome.state == "failed"]
    lines = [", ".join(f"{states.count(state)} {state}" for state in ("done", "skipped", "failed"))]
    lines += [f"failed: {config.run_id}  (see {_failed_path(config)})" for config in failed]
    return "\n".join(lines)


def _environment(jobs: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // jobs)), **os.environ}


def _failed_path(config: TextDiffConfig) -> Path:
    return executed_path(config).with_suffix(".failed.ipynb")


class _Child:
    """A run in a process of its own. Its notebook has a hidden name until the process has ended."""

    def __init__(self, planned: Planned, environment: Mapping[str, str]) -> None:
        self.planned, self.started = planned, time.monotonic()
        final = executed_path(planned.config)
        final.parent.mkdir(parents=True, exist_ok=True)
        self.notebook = final.with_name(f".{final.stem}.part.ipynb")
        self.said: IO[bytes] = tempfile.TemporaryFile()
        words = notebook_command(planned.config, find_notebook(planned.config.notebook), self.notebook)
        # Away from the terminal's Ctrl-C: the sweep itself tells its processes to end, once
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def outcome(self) -> Outcome:
        """What became of the ended process; its notebook gets its own name, or `<run id>.failed.ipynb`."""
        config, seconds = self.planned.config, time.monotonic() - self.started
        error = self._error()
        target = _failed_path(config) if error else executed_path(config)
        _failed_path(config).unlink(missing_ok=True)
        if self.notebook.is_file():
            self.notebook.replace(target)
        self.said.close()
        return Outcome(self.planned, "failed" if error else "done", seconds, error)

    def _error(self) -> tuple[str, ...]:
        if self.process.returncode == 0:
            run = Run.open(self.planned.config, self.planned.config.out_dir)
            return () if run.finished else (f"the notebook ended, but there is no record {run.folder}",)
        self.said.seek(0)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.said.read().decode(errors="replace"))
        lines = [line for line in plain.splitlines() if line.strip(" -")]
        return tuple(lines[-ERROR_LINES:]) or (f"it ended with exit code {self.process.returncode} and no word",)

    def discard(self) -> None:
        """Removes what a stopped process left."""
        self.said.close()
        self.notebook.unlink(missing_ok=True)


def _stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        for child in children:
            child.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
            child.discard()

"""All runs of a table. In: a grid (:mod:`textdiff.experiments.grids`). Out: a record per run, each made in a process of its own.

    planned = plan(grid("comparison", "monuseg"))     # which runs, and which of them have a record already
    outcomes = sweep(planned, jobs=2)                 # the others are made; one that fails does not stop the rest

What a process said is kept as <results>/logs/<run id>.log. A sweep that was stopped goes on where it was when it is started
again: finished runs have their record, and the training of an interrupted one has its checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textdiff.base.files import write_text
from textdiff.base.paths import results_dir
from textdiff.experiments.config import Config
from textdiff.experiments.grids import Grid
from textdiff.experiments.records import Run, published_dir

TO_RUN, RECORDED, PUBLISHED = "to run", "recorded", "published"
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0  # between asking a process to end and ending it
ERROR_LINES = 6


@dataclass(frozen=True)
class Planned:
    """One run: its configuration, the row of the table that it belongs to, and "to run", "recorded" or "published"."""

    config: Config
    row: str
    state: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done", "skipped" (it had a record) or "failed" with the last lines it said."""

    planned: Planned
    state: str
    seconds: float = 0.0
    error: tuple[str, ...] = ()


def state_of(config: Config) -> str:
    """Where the record of a configuration is: among your own runs, the published ones, or nowhere yet ("to run")."""
    if Run.open(config).finished:
        return RECORDED
    return PUBLISHED if Run.open(config, published_dir()).finished else TO_RUN


def plan(grid: Grid) -> list[Planned]:
    """The runs of a grid, each once, the first seed of every row first. Raises ValueError for one that is not possible."""
    labels: dict[str, str] = {}
    for row in grid.rows:
        for config in grid.configs(row):
            labels.setdefault(config.run_id, row.label)
    planned = [Planned(config, labels[config.run_id], state_of(config)) for config in grid.all()]
    for one in planned:
        if one.state == TO_RUN:
            type(one.config).from_params(**one.config.to_dict())  # raises where this machine lacks what it names
    return planned


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


def log_path(config: Config) -> Path:
    """Where the words of a run's process are kept."""
    return results_dir() / "logs" / f"{config.run_id}.log"


def config_text(config: Config) -> str:
    """The configuration as `textdiff train` reads it."""
    return json.dumps({"experiment": config.experiment, **config.to_dict()}, indent=2) + "\n"


def write_config(config: Config) -> Path:
    """Writes :func:`config_text` beside the run's log; returns the file."""
    path = log_path(config).with_suffix(".json")
    write_text(path, config_text(config))
    return path


def train_command(path: Path) -> list[str]:
    """The words that make the run of a configuration file."""
    return [sys.executable, "-m", "textdiff", "train", "--config", str(path)]


def described(planned: Sequence[Planned]) -> str:
    """A table of the runs, one line each: state, seed, row, run id; and how many there are of each state."""
    width = max([len("row"), *(len(one.row) for one in planned)])
    lines = [f"{'state':9}  {'seed':>4}  {'row':{width}}  run id"]
    lines += [f"{one.state:9}  {one.config.seed:>4}  {one.row:{width}}  {one.config.run_id}" for one in planned]
    return "\n".join([*lines, _counted(planned)])


def _counted(planned: Sequence[Planned]) -> str:
    states = [one.state for one in planned]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (RECORDED, PUBLISHED, TO_RUN))
    return f"{len(planned)} {'run' if len(planned) == 1 else 'runs'}: {counts}"


def sweep(planned: Sequence[Planned], jobs: int = 1, report: Callable[[str], None] = print) -> list[Outcome]:
    """Makes the runs that have no record yet, ``jobs`` at a time; ``report`` is given one line per run, more when it failed.

    Every process may use its share of the cores (OMP_NUM_THREADS, unless that is set). An exception here, Ctrl-C among
    them, stops all of them.

    Raises:
        ValueError: ``jobs`` below one.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: at least one run at a time")
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


def _line(outcome: Outcome) -> str:
    config = outcome.planned.config
    line = f"{outcome.state:7}  {outcome.seconds:6.0f} s  {outcome.planned.row}, seed {config.seed}  {config.run_id}"
    return "\n".join([line, *(f"    {said}" for said in outcome.error)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """What a sweep came to: how many runs were made, skipped and failed, and the failed ones by name."""
    states = [outcome.state for outcome in outcomes]
    failed = [outcome.planned.config for outcome in outcomes if outcome.state == "failed"]
    lines = [", ".join(f"{states.count(state)} {state}" for state in ("done", "skipped", "failed"))]
    lines += [f"failed: {config.run_id}  (see {log_path(config)})" for config in failed]
    if failed:
        lines.append(f"again:  {shlex.join(train_command(log_path(failed[0]).with_suffix('.json'))[2:])}")
    return "\n".join(lines)


def _environment(jobs: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // jobs)), **os.environ}


class _Child:
    """A run in a process of its own."""

    def __init__(self, planned: Planned, environment: Mapping[str, str]) -> None:
        self.planned, self.started = planned, time.monotonic()
        self.log = log_path(planned.config)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as said:
            # Away from the terminal's Ctrl-C: the sweep itself tells its processes to end, once
            self.process = subprocess.Popen(
                train_command(write_config(planned.config)),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def outcome(self) -> Outcome:
        """What became of the ended process."""
        error, seconds = self._error(), time.monotonic() - self.started
        return Outcome(self.planned, "failed" if error else "done", seconds, error)

    def _error(self) -> tuple[str, ...]:
        if self.process.returncode == 0:
            run = Run.open(self.planned.config)
            return () if run.finished else (f"the run ended, but there is no record {run.folder}",)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(encoding="utf-8", errors="replace")).replace(
            "\r", "\n"
        )
        lines = [line for line in plain.splitlines() if line.strip(" -")]
        return tuple(lines[-ERROR_LINES:]) or (f"it ended with exit code {self.process.returncode} and no word",)


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

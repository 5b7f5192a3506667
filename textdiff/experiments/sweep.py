"""All runs of a table. In: a grid (:mod:`textdiff.experiments.grids`). Out: a record per run, each made in a process of its own.

    planned = plan(grid("comparison", "monuseg"))     # which runs, and which of them have a record already
    planned = check(planned, print)                   # those whose data or weights are not here are listed and set aside
    outcomes = sweep(planned, jobs=2)                 # the others are made; one that fails does not stop the rest

What a process said is kept as <results>/logs/<run id>.log. A sweep that was stopped goes on where it was when it is started
again: finished runs have their record, and the training of an interrupted one has its checkpoint. ``workflow/Snakefile`` makes
the same plan's runs on many machines; plan, check, table and summary are these.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from textdiff.base.cores import cores
from textdiff.base.files import write_atomically, write_text
from textdiff.base.paths import results_dir
from textdiff.data.faults import Fault, few, settle
from textdiff.experiments import grids
from textdiff.experiments.config import Config
from textdiff.experiments.grids import Grid
from textdiff.experiments.records import Run, published_dir

TO_RUN, RECORDED, PUBLISHED, LACKING = "to run", "recorded", "published", "lacking"
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0  # between asking a process to end and ending it
ERROR_LINES = 6
LOG_END = 64_000  # bytes of a log that are looked at for its last words
KILLED = 9  # as a system short of memory ends a process
OF_A_CHILD = {137: KILLED, 139: 11}  # exit codes of a launcher or shell whose own process a signal ended


@dataclass(frozen=True)
class Planned:
    """One run: its configuration, the row of the table that it belongs to, and "to run", "recorded", "published" or "lacking"."""

    config: Config
    row: str
    state: str

    @property
    def record(self) -> Path:
        """Where its record is among your own runs, or will be."""
        return Run.open(self.config).place


@dataclass(frozen=True)
class Outcome:
    """What became of a run: "done", "skipped" (it had a record), "lacking" or "failed" with the last lines it said."""

    planned: Planned
    state: str
    seconds: float = 0.0
    error: tuple[str, ...] = ()


def state_of(config: Config) -> str:
    """Where the record of a configuration is: among your own runs, the published ones, or nowhere yet ("to run")."""
    if Run.open(config).finished:
        return RECORDED
    return PUBLISHED if Run.open(config, published_dir()).finished else TO_RUN


def plan(grid: Grid, published: bool = False) -> list[Planned]:
    """The runs of a grid, each once, the first seed of every row first.

    published: those with a published record are to run, too; their weights are not published, and those of a run made here are kept.

    Raises ValueError that lists all rows which are not possible, here or anywhere.
    """
    _all_pass([(row.label, partial(grid.configs, row)) for row in grid.rows], f"grid {grid.name}")
    labels: dict[str, str] = {}
    for row in grid.rows:
        for config in grid.configs(row):
            labels.setdefault(config.run_id, row.label)
    planned = [Planned(config, labels[config.run_id], state_of(config)) for config in grid.all()]
    if published:
        planned = [replace(one, state=TO_RUN) if one.state == PUBLISHED else one for one in planned]
    # Raises where this machine lacks what it names
    waiting = [one for one in planned if one.state == TO_RUN]
    here = [(one.row, partial(type(one.config).from_params, **one.config.to_dict())) for one in waiting]
    _all_pass(here, f"grid {grid.name}")
    return planned


def check(planned: Sequence[Planned], report: Callable[[str], None] | None = None) -> list[Planned]:
    """The plan, in which the runs to be made whose data or weights are not here are "lacking"; ``report`` is told what they lack.

    Raises one error that lists everything missing where no run can be made and none has a record, and, without ``report``, where anything
    is missing.
    """
    waiting = [one for one in planned if one.state == TO_RUN]
    faults = [_fault(one.config.check_inputs) for one in waiting]
    found = _listed([(one.row, fault) for one, fault in zip(waiting, faults, strict=True)])
    if report is None or (all(faults) and len(waiting) == len(planned)):
        settle(found, "what the runs read")
    elif found:
        report("\n".join(f"left out: {fault.sentence}" for fault in found))
    lacking = {one.config.run_id for one, fault in zip(waiting, faults, strict=True) if fault}
    return [replace(one, state=LACKING) if one.config.run_id in lacking else one for one in planned]


def _all_pass(steps: Iterable[tuple[str, Callable[[], Any]]], what: str) -> None:
    settle(_listed([(row, _fault(step)) for row, step in steps]), what)


def _fault(step: Callable[[], Any]) -> Fault | None:
    try:
        step()
    except (ValueError, TypeError, OSError) as error:
        return Fault(str(error), missing=isinstance(error, FileNotFoundError))
    return None


def _listed(found: Iterable[tuple[str, Fault | None]]) -> list[Fault]:
    """The faults of rows, each once, with the rows that have it."""
    rows: dict[Fault, list[str]] = {}
    for row, fault in found:
        if fault:
            rows.setdefault(fault, []).append(row)
    return [replace(fault, case=few(dict.fromkeys(labels))) for fault, labels in rows.items()]


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


def config_text(config: Config, indent: int | None = 2) -> str:
    """The configuration as `textdiff train` reads it; one line where ``indent`` is None."""
    return json.dumps({"experiment": config.experiment, **config.to_dict()}, indent=indent) + "\n"


def write_config(config: Config) -> Path:
    """Writes :func:`config_text` beside the run's log; returns the file."""
    path = log_path(config).with_suffix(".json")
    write_text(path, config_text(config))
    return path


def train_command(path: Path) -> list[str]:
    """The words that make the run of a configuration file."""
    return [sys.executable, "-m", "textdiff", "train", "--config", str(path)]


def table_path(grid: Grid) -> Path:
    """Where :func:`write_table` puts the table of a grid; some of its rows, other seeds or settings have a table of their own."""
    dataset, ids = grid.common["dataset"], [config.run_id for config in grid.all()]
    whole = set(ids) == {config.run_id for config in grids.grid(grid.name, dataset).all()}
    part = "" if whole else "-" + hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:8]
    return results_dir() / "tables" / f"{grid.name}-{dataset}{part}.csv"


def write_table(planned: Sequence[Planned], path: Path) -> None:
    """Writes what the records say by now: a line per run, with row, seed, run id, state of its record, and all metrics."""
    lines: list[dict[str, Any]] = []
    for one in planned:
        state, config = state_of(one.config), one.config
        line = {"row": one.row, "seed": config.seed, "run_id": config.run_id, "state": state}
        if state != TO_RUN:
            line |= Run.open(config, "" if state == RECORDED else published_dir()).metrics()
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(lines)

    write_atomically(path, write)


def described(planned: Sequence[Planned]) -> str:
    """A table of the runs, one line each: state, seed, row, run id; and how many there are of each state."""
    width = max([len("row"), *(len(one.row) for one in planned)])
    lines = [f"{'state':9}  {'seed':>4}  {'row':{width}}  run id"]
    lines += [f"{one.state:9}  {one.config.seed:>4}  {one.row:{width}}  {one.config.run_id}" for one in planned]
    return "\n".join([*lines, _counted(planned)])


def _counted(planned: Sequence[Planned]) -> str:
    states = [one.state for one in planned]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (RECORDED, PUBLISHED, TO_RUN))
    lacking = f", {states.count(LACKING)} {LACKING}" if LACKING in states else ""
    return f"{len(planned)} {'run' if len(planned) == 1 else 'runs'}: {counts}{lacking}"


def sweep(
    planned: Sequence[Planned],
    jobs: int = 1,
    report: Callable[[str], None] = print,
    retries: int = 0,
    table: Path | None = None,
) -> list[Outcome]:
    """Makes the runs that have no record yet, ``jobs`` at a time; ``report`` is given one line per run, more when it failed.

    A run that failed is tried ``retries`` times more, after those that wait; it goes on from its checkpoint. First and after
    every run :func:`write_table` writes ``table``. Every process may use its share of the cores (OMP_NUM_THREADS, unless that is set).
    An exception here, Ctrl-C among them, stops all of them.

    Raises:
        ValueError: ``jobs`` below one, or ``retries`` below none.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: at least one run at a time")
    if retries < 0:
        raise ValueError(f"retries={retries}: a run can be tried 0 times more, or 1, 2 ...")
    report(_counted(planned))
    if table is not None:
        write_table(planned, table)
    waiting = [one for one in planned if one.state == TO_RUN]
    outcomes = [outcome_of(one) for one in planned if one.state != TO_RUN]
    running: list[_Child] = []
    total, told, failures = len(waiting), 0, Counter[str]()
    try:
        while waiting or running:
            ended = [child.outcome() for child in running if child.process.poll() is not None]
            running = [child for child in running if child.process.returncode is None]
            while waiting and len(running) < jobs:
                one = waiting.pop(0)
                # Another sweep may have made it in the meantime
                if state_of(one.config) != RECORDED:
                    running.append(_Child(one, _environment(jobs)))
                else:
                    ended.append(Outcome(one, "skipped"))
            for outcome in ended:
                run_id = outcome.planned.config.run_id
                failures[run_id] += outcome.state == "failed"
                if outcome.state == "failed" and failures[run_id] <= retries:
                    waiting.append(outcome.planned)
                    report(f"to be tried again: {_line(outcome)}")
                    continue
                told += 1
                report(f"[{told}/{total}] {_line(outcome)}")
                outcomes.append(outcome)
            if ended and table is not None:
                write_table(planned, table)
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
    """What a sweep came to: how many runs were made, skipped and failed, and the failed ones by name, with their last word."""
    states = [outcome.state for outcome in outcomes]
    told = ("done", "skipped", "failed", *([LACKING] if LACKING in states else []))
    lines = [", ".join(f"{states.count(state)} {state}" for state in told)]
    for outcome in outcomes:
        if outcome.state == "failed":
            config, said = outcome.planned.config, outcome.error[-1] if outcome.error else "no word"
            lines.append(f"failed: {config.run_id}: {said}  (see {log_path(config)})")
    return "\n".join(lines)


def again(outcomes: Sequence[Outcome]) -> str:
    """The command that makes the first failed run of a sweep again; "" where none failed."""
    failed = [outcome.planned.config for outcome in outcomes if outcome.state == "failed"]
    return shlex.join(train_command(log_path(failed[0]).with_suffix(".json"))[2:]) if failed else ""


def outcome_of(one: Planned) -> Outcome:
    """What became of a run that others have started: its record says, or its log."""
    if one.state != TO_RUN:
        return Outcome(one, LACKING if one.state == LACKING else "skipped")
    made = state_of(one.config) == RECORDED
    return Outcome(one, "done") if made else Outcome(one, "failed", error=last_words(one.config))


def last_words(config: Config, begin: int = 0) -> tuple[str, ...]:
    """The last lines of a run's log from byte ``begin`` on, without colours and rules; none where there is no log."""
    try:
        with log_path(config).open("rb") as log:
            log.seek(max(begin, log.seek(0, os.SEEK_END) - LOG_END))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "\n")
    return tuple(line for line in plain.splitlines() if line.strip(" -"))[-ERROR_LINES:]


def _environment(jobs: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **os.environ}


class _Child:
    """A run in a process of its own."""

    def __init__(self, planned: Planned, environment: Mapping[str, str]) -> None:
        self.planned, self.started = planned, time.monotonic()
        self.log = log_path(planned.config)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # At its end: another sweep may be making the same run
        with self.log.open("ab") as said:
            self.begin = said.tell()
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
        code, said = self.process.returncode, last_words(self.planned.config, self.begin)
        if signal := -code if code < 0 else OF_A_CHILD.get(code):
            return (*said, f"ended by signal {signal}{' (out of memory?)' if signal == KILLED else ''}")
        return said or (f"it ended with exit code {code} and no word",)


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

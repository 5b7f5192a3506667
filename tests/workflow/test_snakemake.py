"""Snakemake makes the runs of a grid: all of them, once each, whatever fails or is killed on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
from workflow_grids import Cluster, listed

from textdiff.experiments.records import FILES

pytest.importorskip("snakemake", reason="Snakemake is not installed (pip install -e '.[cluster]')")

KILLS = int(os.environ.get("TEXTDIFF_CHAOS", "1"))  # how often Snakemake is killed
SECONDS = 240  # bound against hanging


def test_failed_runs_are_tried_again_and_listed_and_a_second_start_makes_the_rest(tmp_path):
    grid = Cluster(tmp_path, seeds="0,1,2")
    real, broken, shaky, *others = grid.ids
    code, said = grid.run({real: "real", broken: "fail", shaky: "fail once"}, "--cores", "3")
    assert code == 1, said
    assert sorted(grid.recorded()) == sorted([real, shaky, *others]), said
    assert grid.counts("tried") == {broken: 2, shaky: 2} | dict.fromkeys(others, 1)
    (line,) = listed(said)
    assert (
        f"{broken}: the training of {broken} diverged  (see {tmp_path}" in line
        and "5 done, 0 skipped, 1 failed" in said
    )
    assert [line.split(",")[3] for line in sorted(grid.table())].count("recorded") == 5 and len(grid.table()) == 6

    code, said = grid.run({}, "--cores", "3")
    assert code == 0 and "1 done, 5 skipped, 0 failed" in said, said
    assert grid.counts("tried") == {broken: 3, shaky: 2} | dict.fromkeys(others, 1)


def test_after_a_kill_the_next_start_loses_only_what_was_in_flight(tmp_path):
    """The whole group is killed, as when a machine goes down, at a moment drawn anew; then two Snakemakes start at once."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw, lost = random.Random(seed), 0
    for kill in range(KILLS):
        grid = Cluster(tmp_path / str(kill), seeds="0,1,2")
        process = grid.start(dict.fromkeys(grid.ids, "slow"), "--cores", "2")
        wait_until(process, lambda grid=grid: len(grid.counts("tried")) >= 2)
        time.sleep(draw.random() * 0.8)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        tried, made, recorded = grid.counts("tried"), grid.counts("made"), grid.recorded()
        assert set(made) <= set(recorded) and len(tried) - len(recorded) <= 2
        lost += len(tried) - len(recorded)

        both = [grid.start(dict.fromkeys(grid.ids, "slow"), "--cores", "2") for _ in range(2)]
        said = [one.communicate(timeout=SECONDS)[0] for one in both]
        assert [one.returncode for one in both] == [0, 0], "\n".join(said)
        assert sorted(grid.recorded()) == sorted(grid.ids)
        again = grid.counts("tried") - tried
        assert again == {run: 1 for run in grid.ids if run not in recorded}, "made twice, or a record was taken away"
        assert [line.split(",")[3] for line in grid.table()] == ["recorded"] * 6
    print(f"{KILLS} kills, {lost} runs in flight were lost")


def test_a_record_that_comes_while_snakemake_is_at_work_stays(tmp_path):
    """Another sweep has made a run that Snakemake has planned: its job finds the record, and takes nothing away before."""
    grid = Cluster(tmp_path, seeds="0")
    process = grid.start(dict.fromkeys(grid.ids, "slow"), "--cores", "1")
    wait_until(process, lambda: len(grid.counts("tried")) == 1)
    (other,) = (config for config in grid.configs if config.run_id not in grid.counts("tried"))
    record = tmp_path / "records" / other.experiment / other.run_id
    (record / "figures").mkdir(parents=True)
    for name in FILES:
        (record / name).write_text('{"test/dice": 1}')
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and "2 done" in said, said
    assert other.run_id not in grid.counts("tried")
    assert all((record / name).read_text() == '{"test/dice": 1}' for name in FILES)


def wait_until(process: subprocess.Popen[str], ready) -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)

"""Kills, full and read-only disks, data that vanish, clocks that jump: whatever writes is begun again and ends to the bit as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
TIMES = int(os.environ.get("TEXTDIFF_CHAOS", "0"))  # of every disturbance; 0: a dozen kills, and the others once
SEED = int(os.environ.get("TEXTDIFF_CHAOS_SEED", "0"))
OTHERS = ("together", "full", "read_only", "vanishing", "jumping")


def told(folder: Path, times: int, *pairs: str) -> list[dict]:
    """What `tests/chaos.py` tells, one row for each pair of work and disturbance."""
    command = [sys.executable, TESTS / "chaos.py", folder, *pairs, "--seed", str(SEED), "--times", str(times)]
    places = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=1200 + 60 * TIMES)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="forks, and mounts disks as Linux does")
def test_whatever_is_killed_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    rows = told(tmp_path, TIMES or 4, "publish:killed", "pretraining:killed", "volumes:killed")
    assert sum(row["kills"] for row in rows) == 3 * (TIMES or 4)
    assert all(all(row["right"]) for row in rows), rows


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="forks, and mounts disks as Linux does")
def test_no_disk_no_clock_and_no_second_process_makes_another_run(tmp_path):
    works = ("publish", "pretraining", "volumes") if TIMES else ("publish",)
    rows = told(tmp_path, TIMES or 1, *(f"{work}:{how}" for work in works for how in OTHERS))
    assert len(rows) == len(works) * len(OTHERS) and all(all(row["right"]) for row in rows), rows
    if without := [row["skipped"] for row in rows if "skipped" in row]:
        pytest.skip(f"all but the disks held: {without[0]}")

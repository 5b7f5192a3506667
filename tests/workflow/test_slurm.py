"""The SLURM profile on a real SLURM of one node: two real runs, one that fails, and one whose job is cancelled."""

from __future__ import annotations

import subprocess
import time

import pytest
from slurm_node import missing_daemons, slurm_node
from workflow_grids import Cluster, listed

pytest.importorskip(
    "snakemake_executor_plugin_slurm", reason="its SLURM plugin is not installed (pip install -e '.[cluster]')"
)
SECONDS = 480  # bound against hanging
WORDS = (
    *("--default-resources", "slurm_partition=here", "--slurm-no-account", "--latency-wait", "10"),
    # No accounting here: squeue says what became of a job, and is asked soon
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
)


@pytest.mark.skipif(bool(missing_daemons()), reason=f"not installed: {', '.join(missing_daemons())} (SLURM and munge)")
def test_runs_on_slurm_fail_are_cancelled_and_made(tmp_path):
    with slurm_node(tmp_path / "slurm", cores=4) as environment:
        grid = Cluster(tmp_path / "grid", seeds="0,1", more=environment)
        first, second, broken, stopped = grid.ids
        process = grid.start({first: "real", second: "real", broken: "fail", stopped: "hang"}, *WORDS, profile="slurm")
        deadline = time.monotonic() + SECONDS
        while stopped not in grid.counts("tried"):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.2)
        cancel(stopped, environment)
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 1, said
        assert sorted(grid.recorded()) == sorted([first, second, stopped]), said
        assert grid.counts("tried") == {broken: 2, stopped: 2} and len(listed(said)) == 1 and broken in listed(said)[0]

        code, said = grid.run({}, *WORDS, profile="slurm")
        assert code == 0 and "1 done, 3 skipped, 0 failed" in said, said
        states = asked(["squeue", "--states=all", "--noheader", "--format=%T"], environment).split()
        assert sorted(states) == sorted(["COMPLETED"] * 4 + ["FAILED"] * 2 + ["CANCELLED"])


def cancel(run_id: str, environment: dict[str, str]) -> None:
    jobs = asked(["squeue", "--noheader", "--states=RUNNING", "--format=%i %k"], environment).splitlines()
    (number,) = (line.split()[0] for line in jobs if run_id in line)
    asked(["scancel", number], environment)


def asked(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

"""``accelerate launch -m textdiff train``: two processes make one record; where there is one, they end at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from many_processes import TIME, environment, free_port

pytest.importorskip("accelerate", reason="the extra 'parallel' is not installed")
QUICK: dict[str, Any] = {
    **{"experiment": "textdiff2d", "mode": "demo", "dataset": "chest_phantoms", "model": "textdiff", "device": "cpu"},
    **{"n_labels": 4, "image_size": 32, "iterations": 4, "validate_every": 2, "max_val": 2, "max_test": 2},
}


def launch(folder: Path, **changes: Any) -> subprocess.CompletedProcess:
    config = folder / "run.json"
    config.write_text(json.dumps(QUICK | changes))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settled = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    own = {"TEXTDIFF_CACHE": str(folder / "cache"), "TEXTDIFF_RESULTS": str(folder / "results")}
    given = {
        k: v for k, v in environment(0, 1, 0).items() if "RANK" not in k and "WORLD" not in k and "MASTER" not in k
    }
    return subprocess.run(
        [*launcher, *settled, "--main_process_port", str(free_port()), "-m", "textdiff", "train", "--config", config],
        env=given | own,
        capture_output=True,
        text=True,
        timeout=TIME,
    )


def test_a_launched_training_makes_one_record_once_and_a_failure_is_said(tmp_path):
    first = launch(tmp_path)
    assert first.returncode == 0, first.stderr
    (record,) = (tmp_path / "results" / "textdiff2d").iterdir()
    assert first.stdout.split() == [str(record)]
    assert json.loads((record / "env.json").read_text())["processes"] == 2
    assert not list((tmp_path / "cache" / "training").rglob("*.safetensors"))
    before = (record / "env.json").stat().st_mtime_ns
    for _ in range(int(os.environ.get("TEXTDIFF_CHAOS", "1"))):
        again = launch(tmp_path)
        assert again.returncode == 0 and again.stdout == first.stdout and "training:" not in again.stderr, again.stderr
    assert (record / "env.json").stat().st_mtime_ns == before
    small = launch(tmp_path, batch_size=1)
    assert small.returncode != 0 and "textdiff: batch_size=1 cannot be divided among 2 processes" in small.stderr

"""Whatever stands in a file, it is read, or refused with its name: never a crash, never without bound.

TEXTDIFF_DAMAGED=12800 tries so many files, each kind in a process of its own, TEXTDIFF_DAMAGED_SEED another seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import GIGABYTES, damaged, kinds

SCRIPT = Path(__file__).parents[1] / "hostile_files.py"
KINDS = sorted(kinds())
MANY = int(os.environ.get("TEXTDIFF_DAMAGED", "0"))
SEED = os.environ.get("TEXTDIFF_DAMAGED_SEED", "0")
FEW = 8  # of each kind


@pytest.mark.parametrize("some", [[kind] for kind in KINDS] if MANY else [KINDS], ids=" ".join if MANY else None)
def test_damaged_files_are_read_or_refused_with_their_name(some):
    for library in ("SimpleITK", "pydicom", "highdicom", "jpeg_ls"):
        pytest.importorskip(library)
    count = str(-(-MANY // len(KINDS)) or FEW)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), SEED, count, *some]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, f"seed {SEED}: the process ended with {done.returncode}: {done.stderr[-500:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert not found["faults"], "\n".join(found["faults"])
    assert found["read"] + found["refused"] == found["files"] == int(count) * len(some)
    assert found["peak_gb"] < GIGABYTES


def test_damage_depends_on_its_seed_alone():
    import random

    content = bytes(range(256)) * 4
    changed = [damaged(content, random.Random(seed)) for seed in range(50)]
    assert changed == [damaged(content, random.Random(seed)) for seed in range(50)]
    assert len(set(changed)) > 40

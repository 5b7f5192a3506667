"""From the command to the mask: `textdiff predict` on volumes of several sizes, in processes of its own, ours and an older version's.

    python -m benchmarks predict                                    # ours alone
    git worktree add FOLDER 047658b && python -m benchmarks predict --before FOLDER      # and the version before it was made fast

Seconds hold everything: the start of Python, imports, reading, windows, writing. Peak memory is that of the whole process. The
volumes are phantoms, enlarged and with noise, int16 and packed; what is marked in them does not matter.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import Row
from textdiff.data.volumes.phantoms import abdomen_phantoms
from textdiff.data.volumes.volume import Volume, write_image

ROOT = Path(__file__).parents[1]
PEAK = 1024 if sys.platform != "darwin" else 1  # bytes of ru_maxrss's unit


@dataclass(frozen=True)
class Work:
    """One command: a model, the sides of a volume in voxels and mm, and more options."""

    name: str
    model: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    options: tuple[str, ...] = ()


CT = ("abdomen_small", (512, 512, 100), (0.8, 0.8, 5.0))
QUICK = (Work("predict", *CT), Work("predict, 20 slices", CT[0], (512, 512, 20), CT[2]))
FULL = (
    *QUICK,
    Work("predict, --as-written", *CT, ("--as-written",)),
    Work("predict, --uncertainty", *CT, ("--uncertainty", "u.nii.gz")),
    Work("predict, 400 slices", CT[0], (512, 512, 400), (0.8, 0.8, 1.25)),
    Work("predict, MR 192 x 192 x 100", "hippocampus_small", (192, 192, 100), (1.0, 1.0, 1.0)),
)
TINY = (Work("predict", CT[0], (48, 48, 40), (6.0, 6.0, 6.0)),)


def write_phantom(path: Path, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """An abdomen of whole numbers, enlarged, with noise, as a NIfTI file with the patient's left and back first."""
    from scipy.ndimage import zoom

    small, _ = abdomen_phantoms(1, 0)[0].pair()
    array = zoom(small.array, np.array(shape) / small.shape, order=1)
    array += np.random.default_rng(0).normal(0, 12, array.shape).astype(np.float32)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    write_image(path, Volume(np.clip(np.rint(array), -1024, 3000).astype(np.int16), affine))


def run(folder: Path, version: Path, work: Work) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory (10^6 bytes) of one command. RuntimeError, with what it said, if it fails."""
    text = "both" if work.model.startswith("hippocampus") else "the liver"
    words = ["--model", str(ROOT / "weights" / work.model), "--volume", "v.nii.gz", "--text", text, "--out", "m.nii.gz"]
    command = [sys.executable, "-m", "textdiff", "predict", *words, *work.options, "--force"]
    started = time.perf_counter()
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": str(version)}, stdout=said, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{work.name} with {version} failed: {(folder / 'said.txt').read_text()}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * PEAK / 1e6


def measure(
    quick: bool = True,
    device: str = "cpu",
    sizes: Sequence[Work] = (),
    before: Path | None = None,
) -> list[Row]:
    """Rows of every command; beside ``before``, a checkout of an older version, which is called the reference. Only on a CPU."""
    sides: Mapping[str, Path] = ({"reference": before} if before else {}) | {"ours": ROOT}
    works = sizes or (QUICK if quick else FULL) if device == "cpu" else ()
    repeats = 1 if sizes else 3
    rows = []
    for work in works:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            # In a process of its own: a command's peak begins with what its parent holds
            maker = multiprocessing.get_context("spawn").Process(
                target=write_phantom, args=(folder / "v.nii.gz", work.shape, work.spacing)
            )
            maker.start()
            maker.join()
            found = {side: np.zeros((0, 3)) for side in sides}
            with multiprocessing.get_context("spawn").Pool(1) as small:  # likewise
                for _ in range(repeats):
                    for side, version in sides.items():
                        found[side] = np.vstack([found[side], small.apply(run, (folder, version, work))])
        for side, numbers in found.items():
            for quantity, unit, column in zip(
                ("wall s", "processor s", "peak MB"), "s s MB".split(), numbers.T, strict=True
            ):
                spread = (float(column.min()), float(column.max()))
                rows.append(Row(work.name, side, quantity, spread[0], unit, repeats, spread, "cpu"))
    return rows

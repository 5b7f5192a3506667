"""Training from a set fifty times larger than what memory may hold. In: nothing. Out: results/published/streaming/.

    python tools/measure_streaming.py

A simulated set of volumes is written to disk, a share of memory set that is a fiftieth of it, and a network for volumes trained
on it by the training loop of the package. Written down all the while: what the process holds that cannot be given back (RssAnon),
and what it has mapped of the file (RssFile), which the system takes back when others need it. In a control group with a limit of memory
(`echo 700000000 > memory.limit_in_bytes`, or `memory.max`) it shows that this is so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

TIMES = 50
SIDES = (96, 96, 96)


def held() -> dict[str, float]:
    """MB that this process holds, by kind."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {kind: int(lines[kind].split()[0]) / 1e3 for kind in ("RssAnon", "RssFile", "RssShmem")}


class Watch(threading.Thread):
    """Notes twice a second what is held, and in which part of the work."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rows: list[dict[str, object]] = []
        self.part, self.begun = "start", time.monotonic()

    def run(self) -> None:
        while self.part != "end":
            self.rows.append({"seconds": round(time.monotonic() - self.begun, 1), "part": self.part, **held()})
            time.sleep(0.5)


def write_set(folder: Path, count: int) -> None:
    """``count`` volumes of noise with a bright box, as NIfTI."""
    import nibabel as nib

    draw = np.random.default_rng(0)
    noise = draw.normal(0, 1, SIDES).astype(np.float32)
    for number in range(count):
        labels = np.zeros(SIDES, np.uint8)
        x, y, z = draw.integers(8, 40, 3)
        labels[x : x + 40, y : y + 40, z : z + 40] = 1
        image = np.roll(noise, number, 0) + 3 * labels
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"{number}.nii")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / f"{number}_labels.nii")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--share-mb", type=float, default=40, help="megabytes that the set may keep in memory")
    asked.add_argument("--steps", type=int, default=300)
    asked.add_argument(
        "--limited-mb",
        type=int,
        default=0,
        help="what the system allows this process, if anything: noted, not set here",
    )
    asked.add_argument("--out", type=Path, default=Path("results/published/streaming"))
    given = asked.parse_args()
    os.environ["TEXTDIFF_MEMORY_GB"] = str(given.share_mb / 1e3)
    import pandas as pd
    import torch
    from monai.networks.nets import UNet

    from textdiff.base.files import write_text
    from textdiff.data.volumes.cases import VolumeCase
    from textdiff.data.volumes.patches import Preprocessing, TrainingVolumes
    from textdiff.experiments.records import environment
    from textdiff.training.fit import Optimisation, fit

    class Segmenter(torch.nn.Module):
        """A small network that is trained by cross-entropy."""

        def __init__(self) -> None:
            super().__init__()
            self.net = UNet(3, 4, 2, (8, 16, 32), (2, 2))

        def loss(self, batch, generator):  # noqa: ANN001, ANN202
            return {"loss": torch.nn.functional.cross_entropy(self.net(batch.images), batch.labels)}

    count = round(TIMES * given.share_mb * 1e6 / (4 * np.prod(SIDES)))
    folder = Path(mkdtemp(dir=os.environ.get("TEXTDIFF_CACHE")))
    watch = Watch()
    try:
        write_set(folder, count)
        cases = [VolumeCase(f"{n}", folder / f"{n}.nii", folder / f"{n}_labels.nii") for n in range(count)]
        begun = time.monotonic()
        watch.start()
        watch.part = "reading"
        volumes = TrainingVolumes(
            cases, ("background", "box"), Preprocessing(None, (-4, 8), (32, 32, 32)), patch=(32, 32, 32)
        )
        watch.part = "training"
        fit(Segmenter(), volumes, Optimisation(given.steps, 4, 1e-3), progress=True)
        watch.part = "end"
        watch.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    words = f"python tools/measure_streaming.py --share-mb {given.share_mb:g} --steps {given.steps}"
    words += f" --limited-mb {given.limited_mb}" if given.limited_mb else ""
    about = {
        "volumes": count,
        "limited_mb": given.limited_mb,
        "set_mb": round(count * 4 * float(np.prod(SIDES)) / 1e6),
        "share_mb": given.share_mb,
    }
    about |= {"times": TIMES, "steps": given.steps}
    given.out.mkdir(parents=True, exist_ok=True)
    write_text(given.out / "held.csv", pd.DataFrame(watch.rows).to_csv(index=False))
    for name, told in {"about": about, "env": environment(time.monotonic() - begun, words)}.items():
        write_text(given.out / f"{name}.json", json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()

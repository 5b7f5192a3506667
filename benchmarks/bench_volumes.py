"""Seconds a volume in 3D: TextDiffSeg beside MONAI's networks with sliding windows, on the same crops, windows and overlap.

    python -m benchmarks.bench_volumes
    python -m benchmarks.bench_volumes --full

Both begin with the volume in memory and end with its labels. TextDiffSeg is `hippocampus_small` at several numbers of sampling
steps; the networks have random weights, which do not change the time: those of this package's comparison, and SwinUNETR in the
widths that MONAI's own pages use. The crops are drawn, of the size of those of the hippocampus in MSD.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from benchmarks.measuring import Row
from textdiff import TextDiffSeg
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.precision import Precision
from textdiff.data.volumes.volume import Volume
from textdiff.models.baselines import BASELINES_3D, Baseline, build_baseline_3d
from textdiff.models.diffusion import Sampling
from textdiff.models.inference import segment_volume

WORK = "a hippocampus volume"
SHAPE = (36, 50, 35)  # voxels of 1 mm: the middle of the 195 volumes
SWIN = (24, 48)  # feature_size
Side = Callable[[Volume], np.ndarray]


def ours(device: str, steps: int) -> Side:
    model = TextDiffSeg.from_pretrained("hippocampus_small", device)
    return lambda volume: segment_volume(model, volume, "both", Sampling(steps), progress=False).labels.array


def theirs(model: TextDiffSeg, net: torch.nn.Module) -> Side:
    """MONAI's sliding windows, of the side and overlap that ours have."""
    from monai.inferers import sliding_window_inference

    net = net.eval().to(model.device)

    @torch.no_grad()
    def labels(volume: Volume) -> np.ndarray:
        grid = model.preprocessing.image(volume)
        images = torch.from_numpy(grid.array).expand(1, 4, *grid.shape).to(model.device)
        window = model.preprocessing.frame(grid.shape)
        return sliding_window_inference(images, window, 4, net, 0.5, "gaussian").argmax(dim=1).cpu().numpy()

    return labels


def sides(device: str, quick: bool) -> Mapping[str, Side]:
    """All that is compared, by name."""
    from monai.networks.nets import SwinUNETR

    found = {f"TextDiffSeg, {steps} step{'s' * (steps > 1)}": ours(device, steps) for steps in (1, 2, 5)}
    model = TextDiffSeg.from_pretrained("hippocampus_small", device)
    precisions: tuple[Precision, ...] = ("bfloat16",) if quick else ("float32", "bfloat16")
    for precision in precisions:
        for name in ("swin_unetr",) if quick else BASELINES_3D:
            found[f"{name}, {precision}"] = theirs(model, build_baseline_3d(name, 3, precision=precision))
        for width in SWIN[:1] if quick else SWIN:
            net = SwinUNETR(in_channels=4, out_channels=3, feature_size=width)
            found[f"SwinUNETR {width}, {precision}"] = theirs(model, Baseline(net, 32, precision, spatial_dims=3))
    return found


def measure(quick: bool = True, device: str = "cpu", repeats: int = 3) -> list[Row]:
    """Rows of seconds a volume, all sides in turns."""
    keep_freed_memory()
    volume = Volume(np.random.default_rng(0).random(SHAPE, dtype=np.float32) * 1000, np.eye(4))
    compared = sides(device, quick)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in compared}
    for number in range(repeats + 1):
        for name, side in compared.items():
            wall, processor = time.perf_counter(), time.process_time()
            side(volume)
            if number:  # the first time warms up
                found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    rows = []
    for name, times in found.items():
        for quantity, column in zip(("wall s", "processor s"), zip(*times, strict=True), strict=True):
            spread = (min(column), max(column))
            rows.append(Row(WORK, name, quantity, spread[0], "s", repeats, spread, device))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all networks, both precisions")
    for row in measure(not parser.parse_args().full):
        print(f"{row.side:32} {row.quantity:12} {row.value:8.3f}")


if __name__ == "__main__":
    main()

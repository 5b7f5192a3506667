"""Seconds a volume in 3D: TextDiffSeg beside MONAI's networks with sliding windows, on the same crops, windows and overlap.

    python -m benchmarks volumes

Both begin with the volume in memory and end with its labels. TextDiffSeg is `hippocampus_small` with the two sampling steps of
`textdiff predict`, and with others; the networks have random weights, which do not change the time: SwinUNETR as MONAI makes it
(of its two precisions the faster one here is the one that counts), and those of this package's comparison. The crops are
drawn, of the size of those of the hippocampus in MSD; then larger ones, for the cost against voxels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.measuring import Row, slope
from textdiff import TextDiffSeg
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.precision import Precision
from textdiff.data.volumes.volume import Volume
from textdiff.models.baselines import BASELINES_3D, Baseline, build_baseline_3d
from textdiff.models.diffusion import Sampling
from textdiff.models.inference import segment_volume

SWIN = {"SwinUNETR": 24, "SwinUNETR 48": 48}  # feature_size; 24 is the default
Side = Callable[[Volume], np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """``shape``: voxels of 1 mm, by default those of the middle one of MSD's volumes; ``larger``: cubes of these sides."""

    shape: tuple[int, int, int] = (36, 50, 35)
    larger: tuple[int, ...] = (64, 96, 128)
    networks: bool = False
    repeats: int = 3


QUICK, FULL = Sizes(), Sizes(larger=(64, 96, 128, 192), networks=True, repeats=5)
TINY = Sizes((32, 32, 32), (40, 48), repeats=1)


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


def sides(device: str, networks: bool) -> Mapping[str, Side]:
    """All that is compared, by name."""
    from monai.networks.nets import SwinUNETR

    names = {"TextDiffSeg": 2, "TextDiffSeg, 1 step": 1, "TextDiffSeg, 5 steps": 5}
    found = {name: ours(device, steps) for name, steps in names.items()}
    model = TextDiffSeg.from_pretrained("hippocampus_small", device)
    precisions: dict[str, Precision] = {"": "bfloat16", **({", float32": "float32"} if networks else {})}
    for said, precision in precisions.items():
        for name in BASELINES_3D if networks else ("swin_unetr",):
            found[f"{name}{said}"] = theirs(model, build_baseline_3d(name, 3, precision=precision))
        for name, width in SWIN.items() if networks else list(SWIN.items())[:1]:
            net = SwinUNETR(in_channels=4, out_channels=3, feature_size=width)
            found[f"{name}{said}"] = theirs(model, Baseline(net, 32, precision, spatial_dims=3))
    return found


def drawn(shape: tuple[int, ...]) -> Volume:
    return Volume(np.random.default_rng(0).random(shape, dtype=np.float32) * 1000, np.eye(4))


def in_turns(compared: Mapping[str, Callable[[], object]], work: str, device: str, repeats: int) -> list[Row]:
    """Rows of wall and processor seconds, the best of ``repeats`` after a first one."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in compared}
    for number in range(repeats + 1):
        for name, side in compared.items():
            wall, processor = time.perf_counter(), time.process_time()
            side()
            if number:
                found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    rows = []
    for name, times in found.items():
        for quantity, column in zip(("wall s", "processor s"), zip(*times, strict=True), strict=True):
            spread = (min(column), max(column))
            rows.append(Row(work, name, quantity, spread[0], "s", repeats, spread, device))
    return rows


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "volumes" and of "size: voxels"."""
    sizes = sizes or (QUICK if quick else FULL)
    keep_freed_memory()
    volume = drawn(sizes.shape)
    compared = {name: partial(side, volume) for name, side in sides(device, sizes.networks).items()}
    rows = in_turns(compared, "volumes", device, sizes.repeats)
    segment = ours(device, 2)
    cubes = {str(side**3): partial(segment, drawn((side, side, side))) for side in sizes.larger}
    voxels = in_turns(cubes, "size: voxels", device, 1)
    for quantity in ("wall s", "processor s"):
        of = [row for row in voxels if row.quantity == quantity]
        value = slope([float(row.side) for row in of], [row.value for row in of])
        voxels.append(Row("size: voxels", "slope", quantity, value, "", device=device, note="of the logarithms"))
    return rows + voxels

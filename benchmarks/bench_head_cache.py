"""What the feature cache saves: nothing in; seconds an epoch of head training with and without it, side by side, out.

    python benchmarks/bench_head_cache.py                # small H&E backbone, compact head, 5 images x 8 views
    python benchmarks/bench_head_cache.py --official     # the paper's 553M network and head, 1 image x 1 view

An epoch shows every view of every image once, through the model, the loss and the optimiser. Weights and pictures are
random: they do not change the time. Both kinds of seconds are given, by the wall clock and of the processor; on a busy
machine only the second kind is to be trusted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from textdiff import DiffusionFeatures, TextDiff, TextEncoder, UNet
from textdiff.base.cache import FeatureCache
from textdiff.data.images.transforms import dihedral
from textdiff.models.losses import DiceCE
from textdiff.models.store import OPENAI_256
from textdiff.models.textdiff import HEADS

HE_32 = dict(
    image_size=64,
    in_channels=3,
    out_channels=3,
    model_channels=32,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=2,
    attention_resolutions=(8,),
    num_head_channels=32,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
CAPTION = "The nuclei in the upper right are densely packed."


@dataclass(frozen=True)
class Seconds:
    wall: float
    processor: float


def timed(work: Callable[[], None]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def build(official: bool, cache: FeatureCache) -> TextDiff:
    """The model, weights random; on CPU."""
    torch.manual_seed(0)
    unet = UNet(**(OPENAI_256 if official else HE_32))
    blocks = (6, 8, 12, 16) if official else (1, 4, 7, 10)
    features = DiffusionFeatures(unet, blocks, (50, 150, 250), precision="bfloat16", cache=cache)
    head = replace(HEADS["official" if official else "compact"], positions=not official)
    return TextDiff(features, TextEncoder.from_pretrained("tiny"), head=head)


def batches(images: Tensor, views: int, size: int) -> Iterator[Tensor]:
    seen = torch.cat([dihedral(images, k) for k in range(views)])
    return iter(seen.split(size))


def epoch(model: TextDiff, optimizer: torch.optim.Optimizer, images: Tensor, views: int, size: int) -> None:
    """One pass of head training over ``views`` symmetries of every image."""
    model.train()
    for inputs in batches(images, views, size):
        target = (inputs[:, 0] > 0).long()
        optimizer.zero_grad()
        DiceCE(dice_over="batch")(model(inputs, [CAPTION] * len(inputs)), target).backward()
        optimizer.step()


def compare(official: bool, n_images: int, views: int, repeats: int) -> dict[str, Seconds]:
    """Seconds of the epoch that recomputes, of the one that fills the cache, and of the fastest that reads it."""
    images = torch.rand(n_images, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with tempfile.TemporaryDirectory() as folder:
        model = build(official, FeatureCache(Path(folder)))
        optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
        size = 1 if official else 4

        def once() -> None:
            epoch(model, optimizer, images, views, size)

        with torch.no_grad(), model.features.caching(None):  # the first pass pays for building kernels
            model.features(images[:1, :, :64, :64])
        filling = timed(once)
        cached = min((timed(once) for _ in range(repeats)), key=lambda t: t.processor)
        with model.features.caching(None):
            recomputed = timed(once)
    return {"recomputed": recomputed, "first (computes, stores)": filling, "cached": cached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", action="store_true", help="the paper's UNet and head instead of the small ones")
    parser.add_argument("--images", type=int, default=0, help="default 5, or 1 with --official")
    parser.add_argument(
        "--views", type=int, default=0, help="symmetries of each image, default 8, or 1 with --official"
    )
    parser.add_argument("--repeats", type=int, default=3, help="cached epochs, of which the fastest counts")
    given = parser.parse_args()
    n_images, views = given.images or (1 if given.official else 5), given.views or (1 if given.official else 8)
    name = "paper's UNet and head" if given.official else "he_32 with the compact head"
    print(f"{name}: {n_images} images x {views} views of 256x256, bfloat16, {torch.get_num_threads()} thread(s)")
    result = compare(given.official, n_images, views, given.repeats)
    print(f"{'epoch':<26}{'wall s':>10}{'processor s':>13}")
    for kind, seconds in result.items():
        print(f"{kind:<26}{seconds.wall:>10.2f}{seconds.processor:>13.2f}")
    slow, fast = result["recomputed"], result["cached"]
    print(f"{'recomputed / cached':<26}{slow.wall / fast.wall:>10.1f}{slow.processor / fast.processor:>13.1f}")


if __name__ == "__main__":
    main()

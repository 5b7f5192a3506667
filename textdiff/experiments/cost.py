"""What a prediction costs, measured here and now. In: configurations of TextDiff. Out: the work, and rows as a cost record has them.

`benchmarks/` measures the same pieces of work in processes of their own, alternately and with their memory; this is for a
notebook: small networks, seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from textdiff.base.allocator import keep_freed_memory
from textdiff.base.precision import mixed_precision, resolve_device
from textdiff.data import registry
from textdiff.experiments.images import TextDiffConfig, build_model

COLUMNS = ("work", "side", "quantity", "value", "unit", "low", "high", "repeats", "device", "note")
SENTENCE = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
SIDES = 1024  # of the matrices whose product is the ceiling: smaller ones show what it takes to begin


def answering(config: TextDiffConfig) -> Callable[[], Tensor]:
    """One picture and its sentence to logits ``[1, K, S, S]``, anew each time; the head is as initialised, which takes as long."""
    drawn: Any = registry.dataset(config.dataset)  # of a data set the model only asks for the names of its classes
    model: Any = build_model(config, drawn).eval()
    model.features.cache = None
    image = torch.randn(1, 3, config.image_size, config.image_size).clamp(-1, 1).to(resolve_device(config.device))
    return torch.inference_mode()(partial(model, image, [SENTENCE]))


def live_choices(dataset: str, device: str = "auto", seed: int = 0) -> dict[str, TextDiffConfig]:
    """The small configurations of a synthetic data set that the notebook measures: one choice changed at a time."""
    changes: dict[str, dict[str, Any]] = {
        "start": {},
        "one noise step": {"noise_steps": "50"},
        "one block": {"blocks": "2"},
        "float32": {"precision": "float32"},
        "authors' head": {"head": "official"},
    }
    return {
        label: TextDiffConfig.from_params(dataset=dataset, device=device, seed=seed, **change)
        for label, change in changes.items()
    }


def measured_live(choices: Mapping[str, TextDiffConfig], repeats: int = 3) -> pd.DataFrame:
    """Seconds and operations of one prediction under each choice, in turns, the best of ``repeats``; and this machine's ceiling.

    Rows of work "live choices" and "ceiling".
    """
    keep_freed_memory()  # as prediction does
    device = resolve_device(next(iter(choices.values())).device)
    works = {label: answering(config) for label, config in choices.items()}
    counts: dict[str, float] = {}
    times: dict[str, list[tuple[float, float]]] = {}
    for label, work in works.items():
        with FlopCounterMode(display=False) as flops:
            work()
        counts[label], times[label] = flops.get_total_flops() / 1e9, []
    for _ in range(repeats):
        for label, work in works.items():
            times[label].append(_seconds(work, device))
    rows: list[dict[str, Any]] = []
    for label, seconds in times.items():
        best = {name: min(one[k] for one in seconds) for k, name in enumerate(("wall s", "processor s"))}
        for name, value in (best | {"GFLOP": counts[label]}).items():
            rows.append(_row("live choices", label, name, value, name.split(" ")[-1], repeats, device.type))
    rows += [_row("ceiling", kind, "GFLOP/s", _ceiling(kind, device), "GFLOP/s", 5, device.type) for kind in PRECISIONS]
    return pd.DataFrame(rows, columns=list(COLUMNS))


PRECISIONS = ("float32", "bfloat16")


def _row(work: str, side: str, quantity: str, value: float, unit: str, repeats: int, device: str) -> dict[str, Any]:
    told = {"work": work, "side": side, "quantity": quantity, "value": value, "unit": unit}
    return told | {"repeats": repeats, "device": device, "note": "live, small"}


def _seconds(work: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds until the device has done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - wall, time.process_time() - processor


def _ceiling(kind: str, device: torch.device) -> float:
    """GFLOP/s of a matrix product as the work multiplies in a precision, the best of five."""
    one, other = (torch.randn(SIDES, SIDES, device=device).to(getattr(torch, kind)) for _ in range(2))

    def work() -> Tensor:
        with mixed_precision(device, kind):
            return torch.mm(one, other)

    work()
    return 2 * SIDES**3 / 1e9 / min(_seconds(work, device)[0] for _ in range(5))

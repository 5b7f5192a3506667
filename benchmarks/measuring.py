"""Measuring: pieces of work in; seconds, memory, operations and the processor's own ceiling out, as rows of one table.

What is compared ("sides": the reference, ours, ...) is measured alternately in one run. Each side lives in a process of its
own, so that its peak memory is its own and no side runs with another's allocator settings or warm pages; only one works
at a time.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from textdiff.base.precision import mixed_precision

COLUMNS = ("work", "side", "quantity", "value", "unit", "low", "high", "repeats", "device", "note")
CEILING = "ceiling"
# Of a processor, which torch's counter leaves out
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}

Once = Callable[[], Any]  # does the work one time
Build = Callable[[], Once]  # prepares it; must be importable by name, so that another process can be told


@dataclass(frozen=True)
class Row:
    """One measured number. ``spread``: the lowest and the highest of the ``repeats``, of which ``value`` is the best."""

    work: str
    side: str
    quantity: str
    value: float
    unit: str
    repeats: int = 1
    spread: tuple[float, float] | None = None
    device: str = "cpu"
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """Its columns of the table, in the order of :data:`COLUMNS`."""
        low, high = self.spread or (None, None)
        values = {**{name: getattr(self, name, None) for name in COLUMNS}, "low": low, "high": high}
        return values


@dataclass(frozen=True)
class Seconds:
    """``processor``: of all threads. ``device``: between two events on the GPU; None without one."""

    wall: float
    processor: float
    device: float | None = None


@dataclass(frozen=True)
class Counts:
    """Floating-point operations of one time, and bytes that its operators read and wrote; in units of 10^9."""

    gflop: float
    gigabytes: float


@dataclass(frozen=True)
class Memory:
    """In units of 10^6 bytes. ``imports``: resident before anything was built; ``peak``: the largest above that; ``device``: largest
    allocation by torch on the GPU.
    """

    imports: float
    peak: float
    device: float | None = None


@dataclass(frozen=True)
class Measured:
    """All of one side. ``results``: what the work gave each time, tensors as arrays, from the very first. ``counts``: None
    where nothing was counted. ``memory``: None where the side had no process of its own.
    """

    seconds: Sequence[Seconds]
    counts: Counts | None
    memory: Memory | None
    results: Sequence[Any]

    @property
    def best(self) -> float:
        """Wall seconds of the fastest time."""
        return min(one.wall for one in self.seconds)

    def a_second(self, name: str) -> float:
        """How much of "gflop" or "gigabytes" at its best."""
        return float(getattr(self.counts, name)) / self.best

    def rows(self, work: str, side: str, device: str, note: str = "") -> list[Row]:
        """Seconds, operations and memory as rows."""
        kinds = {"wall s": "wall", "processor s": "processor", "device s": "device"}
        found = []
        for quantity, kind in kinds.items():
            values = [getattr(one, kind) for one in self.seconds]
            if None not in values:
                spread = (min(values), max(values)) if len(values) > 1 else None
                found.append(Row(work, side, quantity, min(values), "s", len(values), spread, device, note))
        told = {} if self.counts is None else {"GFLOP": self.counts.gflop, "GB moved": self.counts.gigabytes}
        if self.memory is not None:
            told |= {"imports MB": self.memory.imports, "peak MB": self.memory.peak}
            told |= {} if self.memory.device is None else {"device peak MB": self.memory.device}
        units = {"GFLOP": "GFLOP", "GB moved": "GB"}
        return found + [
            Row(work, side, name, value, units.get(name, "MB"), 1, None, device, note) for name, value in told.items()
        ]


def alternately(
    sides: Mapping[str, Build],
    device: str = "cpu",
    repeats: int = 3,
    apart: bool = True,
    warm_up: bool = True,
    count: bool = True,
) -> dict[str, Measured]:
    """Measures all sides in turns, ``repeats`` times each.

    ``apart``: every side in a process of its own, which is what makes its memory known; else all in this one.
    ``warm_up``: one time before pays for what is built only once, and one after is for counting the operations; work so long
    that neither matters is counted in the last of its ``repeats``, or not at all where there is only one. Memory is read
    before: counting changes it. ``count``: False for work that cannot bear it, as what is compiled cannot.

    Raises RuntimeError: a side failed; with what its process said.
    """
    counting = count and (warm_up or repeats > 1)
    plain = repeats + 1 if warm_up else repeats - counting
    with ExitStack() as stack:
        opened = {name: stack.enter_context(_opened(build, device, apart)) for name, build in sides.items()}
        times = [{name: ask("time") for name, ask in opened.items()} for _ in range(plain)]
        memory = {name: ask("memory") if apart else None for name, ask in opened.items()}
        last = {name: ask("count") for name, ask in opened.items()} if counting else {}
    found = {}
    for name in sides:
        seconds = [one[name][0] for one in times][warm_up:] + ([] if warm_up or not last else [last[name][0]])
        counts = last[name][1] if last else None
        found[name] = Measured(seconds, counts, memory[name], [one[name][1] for one in times])
    return found


class _Side:
    """One side, in the process where it is measured."""

    def __init__(self, build: Build, device: str) -> None:
        self.device, self.imports = torch.device(device), resident_peak_mb()
        self.once = build()

    def count(self) -> tuple[Seconds, Counts]:
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as flops, BytesMoved() as moved:
            seconds, _ = timed(self.once, self.device)
        return seconds, Counts(flops.get_total_flops() / 1e9, moved.total / 1e9)

    def time(self) -> tuple[Seconds, Any]:
        seconds, result = timed(self.once, self.device)
        return seconds, as_arrays(result)

    def memory(self) -> Memory:
        on_gpu = self.device.type == "cuda"
        used = torch.cuda.max_memory_allocated(self.device) / 1e6 if on_gpu else None
        return Memory(self.imports, resident_peak_mb() - self.imports, used)


@contextmanager
def _opened(build: Build, device: str, apart: bool) -> Iterator[Callable[[str], Any]]:
    """A side that can be asked for its "time", its "memory" and its "count" of operations."""
    if not apart:
        side = _Side(build, device)
        yield lambda what: getattr(side, what)()
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, build, device, torch.get_num_threads()), daemon=True)
    process.start()
    there.close()  # so that a process that dies ends the conversation

    def ask(what: str) -> Any:
        try:
            here.send(what)
            answer, error = here.recv()
        except (EOFError, OSError) as gone:
            raise RuntimeError(f"the process of {build} ended without an answer (out of memory?)") from gone
        if error:
            raise RuntimeError(error)
        return answer

    try:
        ask("ready")
        yield ask
    finally:
        here.close()
        process.join(10)
        process.kill()


def _serve(connection: Connection, build: Build, device: str, threads: int) -> None:
    try:
        torch.set_num_threads(threads)
        side = _Side(build, device)
        while True:
            what = connection.recv()
            connection.send((None if what == "ready" else getattr(side, what)(), None))
    except (EOFError, BrokenPipeError):  # who asked is gone
        return
    except Exception:
        connection.send((None, traceback.format_exc()))


def timed(once: Once, device: torch.device) -> tuple[Seconds, Any]:
    """Seconds of one time, until the device has done all of it, and its result."""
    on_gpu = device.type == "cuda"
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if on_gpu else []
    if on_gpu:
        torch.cuda.synchronize(device)
        events[0].record()
    wall, processor = time.perf_counter(), time.process_time()
    result = once()
    if on_gpu:
        events[1].record()
        torch.cuda.synchronize(device)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Seconds(wall, processor, events[0].elapsed_time(events[1]) / 1e3 if on_gpu else None), result


def resident_peak_mb() -> float:
    """The most memory that this process has had, in units of 10^6 bytes; nan where the system does not say (Windows)."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss of a started process begins with what the starting one had
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), flags=re.MULTILINE)
        if found:
            return int(found[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return math.nan
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class BytesMoved(TorchDispatchMode):
    """Counts what every operator reads and writes, as if nothing stayed in a processor's own memory. Views are free."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if not views:
            tensors = {id(one): one for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)}
            self.total += sum(one.numel() * one.element_size() for one in tensors.values())
        return out


def as_arrays(result: Any) -> Any:
    """Tensors, alone or in a list, as float arrays; anything else as it is."""
    if isinstance(result, Tensor):
        return result.detach().float().cpu().numpy()
    return [as_arrays(one) for one in result] if isinstance(result, (list, tuple)) else result


def largest_difference(one: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two elements at the same place, in standard deviations of the reference."""
    return float(np.abs(one - reference).max() / reference.std())


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the line through the logarithms: 1 is proportional, 0 does not grow."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


# --- what this processor can do ----------------------------------------------------------------------------


def ceiling(device: str = "cpu", side: int = 2048, repeats: int = 5, apart: bool = True) -> list[Row]:
    """The roof over all measurements: GFLOP/s of the best of a matrix product and a convolution, and GB/s of a copy.

    ``side``: of the square matrices; the convolution and the copy are as large.
    """
    names = {
        f"{kind} {dtype}": (kind, dtype) for kind in ("product", "convolution") for dtype in ("float32", "bfloat16")
    }
    sides: dict[str, Build] = {name: partial(_roof, kind, dtype, side, device) for name, (kind, dtype) in names.items()}
    found = alternately(sides | {"copy": partial(_roof, "copy", "float32", side, device)}, device, repeats, apart)
    rows = []
    for dtype in ("float32", "bfloat16"):
        rates = {name: found[name].a_second("gflop") for name, told in names.items() if told[1] == dtype}
        best = max(rates, key=lambda name: rates[name])
        rows.append(Row(CEILING, dtype, "GFLOP/s", rates[best], "GFLOP/s", repeats, None, device, best.split(" ")[0]))
    rate = found["copy"].a_second("gigabytes")
    return [*rows, Row(CEILING, "memory", "GB/s", rate, "GB/s", repeats, None, device, "read and written by a copy")]


@torch.no_grad()
def _roof(kind: str, dtype: str, side: int, device: str) -> Once:
    number = getattr(torch, dtype)
    if kind == "copy":
        source, target = (torch.zeros(4, side, side, device=device) for _ in range(2))
        return partial(target.copy_, source)
    if kind == "product":
        one, other = (torch.randn(side, side).to(device, number) for _ in range(2))
        work: Once = partial(torch.mm, one, other)
    else:
        conv = nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=number)
        maps = torch.randn(1, 256, side // 16, side // 16).to(device, number, memory_format=torch.channels_last)
        work = partial(conv, maps)
    return partial(_as_models_multiply, work, device, dtype)


@torch.inference_mode()
def _as_models_multiply(work: Once, device: str, dtype: str) -> Tensor:
    """A processor without units for bfloat16 has the roof of what it does in its place."""
    with mixed_precision(device, dtype):
        return work()

"""Device and mixed precision by name: "auto" or "cuda:1" in, a device out; "bfloat16" in, a context for the forward pass out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from textdiff.base.convolution import conv2d, conv3d

Precision = Literal["float32", "bfloat16"]
# On a CPU, the bfloat16 weight gradient of a 3 x 3 x 3 convolution reads memory that nobody has written where its map has
# two cells along the first axis: now and then it is nan, and wrong without a sign otherwise (torch 2.13.0; found by
# filling all memory with nan before use). Three cells and more, and inference, are right.
FEWEST_CELLS = 3
# Whether this processor multiplies bfloat16 itself (x86: AVX-512). Others have only oneDNN's reference routine for its
# convolutions, 60 times slower than float32 on an AMD EPYC with AVX2
BFLOAT16_UNITS = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
PRODUCTS = {
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(F.linear, F.scaled_dot_product_attention, torch.einsum),
    *(torch.mm, torch.bmm, torch.baddbmm, torch.matmul, torch.Tensor.mm, torch.Tensor.bmm, torch.Tensor.baddbmm),
    *(torch.Tensor.matmul, torch.Tensor.__matmul__),
}
SOONER: dict[Callable[..., Any], Callable[..., Any]] = {torch.conv2d: conv2d, torch.conv3d: conv3d}


def mixed_precision(device: torch.device | str, precision: str, cells: int = FEWEST_CELLS) -> AbstractContextManager:
    """Autocast to bfloat16 on ``device``, or no change for "float32"; ValueError for another name.

    ``cells``: of 3D maps, those of the coarsest one along the first axis. With fewer than `FEWEST_CELLS`, training on a CPU
    stays in float32. A processor without units for bfloat16 rounds as it would with them, and multiplies in float32.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r}: known are {', '.join(map(repr, get_args(Precision)))}")
    device_type = torch.device(device).type
    wrong = cells < FEWEST_CELLS and device_type == "cpu" and torch.is_grad_enabled()
    if precision == "float32" or wrong:
        return nullcontext()
    if device_type == "cpu" and not BFLOAT16_UNITS:
        return _rounding()
    return torch.autocast(device_type, torch.bfloat16)


@contextmanager
def _rounding() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), _RoundedProducts():
        yield


def again(device: torch.device | str) -> dict[str, Any]:
    """Arguments with which torch's ``checkpoint`` computes again as it did: by itself it repeats autocast alone."""
    rounding = torch.device(device).type == "cpu" and not BFLOAT16_UNITS and torch.is_autocast_enabled("cpu")
    return {"context_fn": lambda: (nullcontext(), _RoundedProducts())} if rounding else {}


class _RoundedProducts(TorchFunctionMode):
    """Products as units for bfloat16 make them: of rounded factors, summed in float32, rounded; so are their gradients."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            multiply = SOONER.get(func, func)
            product = multiply(*_rounded(args), **{name: _rounded(value) for name, value in kwargs.items()})
        return product.bfloat16() if product.dtype == torch.float32 else product


def _rounded(value: Any) -> Any:
    """A factor, or several, as autocast takes them: float64 and whole numbers stay."""
    if isinstance(value, (tuple, list)):
        return [_rounded(one) for one in value]
    lower = (torch.float32, torch.bfloat16, torch.float16)
    return value.bfloat16().float() if isinstance(value, torch.Tensor) and value.dtype in lower else value


def resolve_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", "mps"; "auto" is CUDA where there is one, else the CPU.

    Raises ValueError for another name, or a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"device={name!r}: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps', ...")
    device, instead = torch.device(name), "use device='cpu' or 'auto'"
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch sees no CUDA device here; {instead}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name!r}, but there are only {torch.cuda.device_count()} CUDA devices; {instead}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}, but torch sees no Apple GPU here; {instead}")
    return device

"""A graphics card that is not there: tensors with a device, a shape and a dtype, but no numbers.

torch's ``FakeTensorMode`` refuses what a real card refuses (tensors of two devices in one operation). Added here: what a
build of torch without CUDA lacks, and that a tensor of 64-bit floats never leaves the CPU (``mps`` has none).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

GPU = "cuda:0"


class Card(FakeTensorMode):
    """Where a program must know a number, it is 1 (or True)."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1
        if func is torch.ops.aten.bincount.default:
            return torch.zeros(args[2], dtype=torch.int64)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.device.type != "cpu":
                assert value.dtype != torch.float64, f"{func} makes 64-bit floats on {value.device}"
        return out


@contextmanager
def fake_gpu(*modules: nn.Module) -> Iterator[tuple[nn.Module, ...]]:
    """Within this context there is a card, and nothing is trained; copies of ``modules`` are on it."""
    copies = copy.deepcopy(modules)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), Card(allow_non_fake_inputs=True) as card:
        for name, method in METHODS.items():
            patch.setattr(FakeTensor, name, method, raising=False)
        for part in [part for module in copies for part in module.modules()]:
            for name, value in part._parameters.items():
                if value is not None:
                    there = card.from_tensor(value.detach()).to(GPU)
                    part._parameters[name] = nn.Parameter(there, value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None:
                    part._buffers[name] = card.from_tensor(value).to(GPU)
        yield copies


def pictures_on_gpu(count: int, size: int = 16) -> Tensor:
    return torch.zeros(count, 3, size, size).to(GPU)


# --- what a build without CUDA refuses of a tensor on the card ------------------------------------------


def _numpy(tensor: Tensor) -> np.ndarray:
    assert tensor.device.type == "cpu", f"numpy is asked for a tensor on {tensor.device}"
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def _item(tensor: Tensor, key: object) -> Tensor:
    if tensor.device.type == "cpu":
        return Tensor.__getitem__(tensor, key)
    key, dim = key if isinstance(key, tuple) else (key,), 0
    if any(k is Ellipsis for k in key):
        at = next(i for i, k in enumerate(key) if k is Ellipsis)
        named = sum(k is not None and k is not Ellipsis for k in key)
        key = (*key[:at], *[slice(None)] * (tensor.ndim - named), *key[at + 1 :])
    for k in key:
        if k is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(k, slice):
            tensor = torch.ops.aten.slice(tensor, dim, *k.indices(tensor.shape[dim]))
        elif isinstance(k, int):
            tensor, dim = tensor.select(dim, k), dim - 1
        else:
            tensor = tensor.index_select(dim, torch.as_tensor(k, device=tensor.device))
        dim += 1
    return tensor


def _contiguous(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    return tensor.clone(memory_format=memory_format)


METHODS = {
    "numpy": _numpy,
    "__getitem__": _item,
    "__setitem__": lambda tensor, key, value: None,
    "__invert__": lambda tensor: tensor == 0,
    "contiguous": _contiguous,
    "copy_": lambda tensor, *_, **__: tensor,
}

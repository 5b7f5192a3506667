"""Weights on disk: tensors by name in, safetensors files out, and back; every write whole or not at all.

Also reads PyTorch files (``.pt``, ``.pth``), never running the code that a pickle may carry.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from textdiff.base.files import read_json as read_json
from textdiff.base.files import write_atomically as write_atomically
from textdiff.base.files import write_text as write_text

MOST_TENSORS = 5000  # of a model; OpenAI's network has 566
MOST_HEADER = (
    2_000_000  # bytes of JSON at the beginning of a safetensors file: of 5000 tensors it has a quarter of that
)
GROWTH = 4  # bytes of memory for one of a file of weights, which may be of 8 bits
ALIGNED = 64  # bytes; products with numbers that lie otherwise round otherwise, and a file's do


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = {}) -> None:
    """Writes named tensors as a safetensors file, atomically. Raises OSError where the disk is full, read-only, ..."""
    from safetensors.torch import save

    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, dict(metadata))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file or of a PyTorch file (read with ``weights_only=True``).

    Raises FileNotFoundError, or ValueError for a file that is truncated, damaged, holds something other than tensors, or
    a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            _check_header(path)
            state = load_file(path)
        else:
            _check_stored(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except TooManyError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a plain file of weights: it is damaged, or a pickle with code in it, which is never run. "
            "Ask its author for a state dict or a safetensors file"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a checkpoint; it may be truncated ({error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no flat state dict (tensor by name), but a {type(state).__name__}")
    _check_tensors(state, path)
    return dict(state)


class TooManyError(ValueError):
    """A file of weights, or the description of a model, that says more than it can mean."""


def _check_header(path: Path) -> None:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MOST_HEADER < length <= path.stat().st_size:  # a longer one is damage, and said so by its reader
        raise TooManyError(f"{path}: its list of tensors has {length} bytes, and at most {MOST_HEADER} are read")


def _check_stored(path: Path) -> None:
    """Raises TooManyError for a PyTorch file that unpacks to more than it is; PyTorch itself never packs one."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        held = sum(part.file_size for part in archive.infolist())
    if held > path.stat().st_size:
        raise TooManyError(
            f"{path} has {path.stat().st_size} bytes, and would unpack to {held}: save it with torch.save"
        )


def _check_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    if len(state) > MOST_TENSORS:
        raise TooManyError(f"{path} holds {len(state)} tensors, and at most {MOST_TENSORS} are read")
    for name, value in state.items():
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TooManyError(f"{path}: {name!r} of shape {tuple(value.shape)} is not stored number by number")


@contextmanager
def building(described: Path, weights: int) -> Iterator[None]:
    """While it lasts, no model is built that has more tensors than a model has, or than ``weights`` bytes of them can fill.

    Raises TooManyError, naming the file ``described`` that asks for it, before it is built.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count = size = 0

    def look(_module: nn.Module, _name: str, value: object) -> None:
        nonlocal count, size
        if isinstance(value, Tensor):
            count, size = count + 1, size + value.numel() * value.element_size()
        if count > MOST_TENSORS:
            raise TooManyError(f"{described} describes a model of more than {MOST_TENSORS} tensors")
        if size > GROWTH * weights + 2**20:
            raise TooManyError(
                f"{described} describes a model of more than {size / 1e6:.4g} MB, and its weights have {weights / 1e6:.4g} MB"
            )

    hook = register_module_parameter_registration_hook(look)
    try:
        yield
    finally:
        hook.remove()


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str, ignored: tuple[str, ...] = ()) -> None:
    """Copies ``state`` into ``module``, which may be on the meta device; every key must be there, none too many, every shape
    equal, every number finite.

    ``ignored``: beginnings of keys of ``module`` that ``state`` leaves as they are. Raises ValueError that lists the missing,
    unexpected and mis-shaped keys, and those with numbers that are none (the first ten of each).
    """
    check_fit(module, state, source, ignored)
    own = module.state_dict()
    fitting = {key: value.to(own[key].dtype) for key, value in state.items()}
    empty = any(own[key].is_meta for key in state)  # then the tensors themselves are taken, without a second copy
    if empty:
        fitting = {key: value if value.data_ptr() % ALIGNED == 0 else value.clone() for key, value in fitting.items()}
    module.load_state_dict(fitting, strict=False, assign=empty)


def check_fit(module: nn.Module, state: Mapping[str, Tensor], source: str, ignored: tuple[str, ...] = ()) -> None:
    """Raises ValueError as :func:`load_strict` does, but copies nothing; ``module`` may be on the meta device."""
    numbers = {key: value for key, value in state.items() if value.is_floating_point() and not value.is_meta}
    broken = [key for key, value in numbers.items() if not value.isfinite().all()]
    own = {key: value for key, value in module.state_dict().items() if not key.startswith(ignored)}
    shapes = {key: (tuple(state[key].shape), tuple(own[key].shape)) for key in own if key in state}
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "with nan or infinity": broken,
        "of another shape": [f"{key} {a} instead of {b}" for key, (a, b) in shapes.items() if a != b],
    }
    lines = [f"the weights from {source} do not fit this {type(module).__name__}:"]
    for kind, keys in problems.items():
        if keys:
            more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
            lines.append(f"  {kind} ({len(keys)}): {', '.join(keys[:10])}{more}")
    if len(lines) > 1:
        raise ValueError("\n".join(lines))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that stand for the names, dtypes, shapes and bytes of the tensors."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{state[key].dtype}{tuple(state[key].shape)}".encode())
        digest.update(bytes_of(state[key]))
    return digest.hexdigest()[:16]


def bytes_of(value: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in memory, row by row."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

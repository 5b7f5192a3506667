"""timm, on a machine without torchvision too: nothing goes in, the module comes out.

timm imports torchvision for pictures and for one kind of batch normalisation; the networks themselves do without. No build of
torchvision on the package index fits a processor's torch, so that the environment of this book has none. While timm is being
imported, empty classes stand in its place, and nothing of them is left for others to find.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

NAMES = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".datasets")


def import_timm() -> Any:
    """The module. Raises ImportError that names the extra where timm is not installed."""
    try:
        if "timm" not in sys.modules and find_spec("torchvision") is None:
            with _empty_torchvision():
                import timm
        import timm
    except ImportError as error:
        raise ImportError(f"networks of timm need timm: pip install 'textdiff[timm]' ({error})") from error
    return timm


class _Named(type):
    """A class whose attributes are their own names, as an enumeration's are asked for."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Empty(types.ModuleType):
    """A module that has every name: a class of its own."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _Named(name, (), {}))
        return getattr(self, name)


@contextmanager
def _empty_torchvision() -> Iterator[None]:
    modules = {f"torchvision{name}": _Empty(f"torchvision{name}") for name in NAMES}
    for name, module in modules.items():
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)

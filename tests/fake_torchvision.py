"""A torchvision of empty classes, where the real one is not installed: no build of it on the package index fits a processor's torch.

timm imports it for pictures and for one kind of layer; its networks, which the tests are about, do without.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types

NAMES = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".models", ".models.feature_extraction")
NAMES += (".datasets", ".utils")


class Named(type):
    """A class whose attributes are their own names, as an enumeration's are asked for."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Empty(types.ModuleType):
    """A module that has every name: a class of its own."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, Named(name, (), {}))
        return getattr(self, name)


def install() -> None:
    """Puts the empty modules where the real ones would be."""
    for name in NAMES:
        module = Empty(f"torchvision{name}")
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None, is_package=True)
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)

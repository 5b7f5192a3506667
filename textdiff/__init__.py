"""Text-guided diffusion models for medical image segmentation: images or volumes and sentences in, label maps out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "UNet": "models.unet",
    "DiffusionFeatures": "models.features",
    "FeatureCache": "base.cache",
    "TextEncoder": "models.text",
    "TextDiff": "models.textdiff",
    "TextDiffHead": "models.textdiff",
    "TextDiffSeg": "models.textdiffseg",
    "Diffusion": "models.diffusion",
    "load_dataset": "data",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used: importing the package stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'textdiff' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(f"textdiff.{_HOMES[name]}"), name)

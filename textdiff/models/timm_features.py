"""Another frozen network in the UNet's place: any of timm's, read at several scales through timm's own ``features_only``.

Optional: ``pip install 'textdiff[timm]'``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.base.cache import FeatureCache
from textdiff.base.checkpoints import check_fit, read_checkpoint
from textdiff.models.features import FeatureExtractor
from textdiff.models.import_timm import import_timm


@contextmanager
def _without_warnings(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


class TimmFeatures(FeatureExtractor):
    """Maps of a frozen timm network.

    Args:
        name: timm's name of the network, such as "tf_efficientnet_lite2".
        out_indices: which of its maps, counted from the finest (stride 2).
        weights: a file of the network's weights with timm's names (``.pth``, ``.safetensors``; never any code in it);
            None draws them.
        precision: "bfloat16" rounds the maps alone; the network itself always computes in float32.
        cache: see :class:`FeatureExtractor`.
        enlarge: how many times as large the network sees an image, bilinearly: its maps have as many times more cells.

    Images come in [-1, 1] and are brought to the mean and deviation that the network was trained with.

    Raises ImportError: timm is not installed; ValueError: a name, an index or weights that timm does not take, or an `enlarge`
    that does not divide every map's stride.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        weights: str | Path | None = None,
        precision: str = "float32",
        cache: FeatureCache | None = None,
        enlarge: int = 1,
    ) -> None:
        timm = import_timm()
        options = {"features_only": True, "out_indices": tuple(out_indices)}
        try:
            if weights is not None:
                state = read_checkpoint(weights)
                with torch.device("meta"):  # timm itself leaves out what does not fit
                    check_fit(timm.create_model(name), state, source=str(weights))
                options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
            # Of the classifier, which maps do without; whether the weights fit is checked above
            with _without_warnings("timm.models._builder"):
                network = timm.create_model(name, **options)
        except (RuntimeError, IndexError, AssertionError) as error:
            raise ValueError(f"timm builds no {name!r} with out_indices={tuple(out_indices)}: {error}") from error
        info = network.feature_info
        if enlarge < 1 or any(stride % enlarge for stride in info.reduction()):
            raise ValueError(f"enlarge={enlarge}: must divide the strides of the maps, which are {info.reduction()}")
        super().__init__(network, info.channels(), [s // enlarge for s in info.reduction()], precision, cache)
        about = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(about.mean).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(about.std).reshape(1, 3, 1, 1))
        self.enlarge = enlarge
        self.settings = {
            "name": name,
            "out_indices": tuple(out_indices),
            "precision": precision,
            "enlarge": enlarge,
        }

    def compute(self, images: Tensor) -> list[Tensor]:
        images = ((images.float() + 1) / 2 - self.mean) / self.deviation
        if self.enlarge > 1:
            images = F.interpolate(images, scale_factor=self.enlarge, mode="bilinear", align_corners=False)
        # In bfloat16 EfficientNet-Lite2's maps, normalised, were off by 10 to 16 percent; our UNet's are by one
        with torch.autocast(images.device.type, enabled=False):
            return list(self.network(images))

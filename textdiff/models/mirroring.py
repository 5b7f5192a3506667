"""A picture and its mirror image are asked, the sentence following. In: whatever predicts from images and captions. Out: logits.

Lungs and tissue have no left that a network could not mistake for a right, so the two answers are wrong in different pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from textdiff.data.images.transforms import dihedral_caption

LEFT_RIGHT = 4  # of the eight symmetries of a square


def followed(caption: str) -> str | None:
    """The sentence that is true of the mirror image of its picture; None where its words cannot follow."""
    return dihedral_caption(caption, LEFT_RIGHT)


def both_answers(
    predict: Callable[[Tensor, Sequence[str]], Tensor], images: Tensor, captions: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Probabilities ``[B, K, H, W]`` of images, and of mirrored images brought back; in one pass.

    ``predict``: images ``[B, C, H, W]`` and B captions to logits ``[B, K, H, W]``. An image whose sentence cannot follow is
    asked once, and both answers are that. Not for classes that are told apart by their side.
    """
    turned = {i: said for i, said in enumerate(map(followed, captions)) if said is not None}
    where = list(turned)
    both = torch.cat([images, images[where].flip(-1)])
    upright, mirrored = (
        predict(both, [*captions, *turned.values()]).float().softmax(dim=1).split([len(images), len(where)])
    )
    return upright, upright.index_copy(
        0, torch.tensor(where, device=upright.device, dtype=torch.int64), mirrored.flip(-1)
    )


def mirrored_logits(
    predict: Callable[[Tensor, Sequence[str]], Tensor], images: Tensor, captions: Sequence[str]
) -> Tensor:
    """Logarithms of the mean of :func:`both_answers`, float32 ``[B, K, H, W]``."""
    mean = torch.stack(both_answers(predict, images, captions)).mean(dim=0)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


class Mirrored(nn.Module):
    """A network that is asked twice once it is trained; training is as without. ``net``: called ``net(images, captions)``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Logits ``[B, K, H, W]``: of the network in training, of :func:`mirrored_logits` afterwards."""
        return self.once(images, captions) if self.training else mirrored_logits(self.once, images, captions)

    def once(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """The network's answer to the images as they are."""
        return self.net(images, captions)

    def loss(self, batch: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The network's own."""
        return self.net.loss(batch, generator)

    @property
    def text(self) -> Any:
        """The network's text encoder, where it reads."""
        return self.net.text

    @property
    def criterion(self) -> Any:
        """The network's training loss."""
        return self.net.criterion

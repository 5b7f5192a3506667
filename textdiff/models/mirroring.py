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


def mirrored_logits(
    predict: Callable[[Tensor, Sequence[str]], Tensor], images: Tensor, captions: Sequence[str]
) -> Tensor:
    """Logarithms of the mean probabilities of images and mirrored images, float32 ``[B, K, H, W]``.

    ``predict``: images ``[B, C, H, W]`` and B captions to logits ``[B, K, H, W]``. An image whose sentence cannot follow is
    asked once. Not for classes that are told apart by their side.
    """
    followed = [(i, dihedral_caption(caption, LEFT_RIGHT)) for i, caption in enumerate(captions)]
    where, turned = [i for i, said in followed if said is not None], [said for _, said in followed if said is not None]
    both = torch.cat([images, images[where].flip(-1)])
    answers = predict(both, [*captions, *turned]).float().softmax(dim=1)
    upright, mirrored = answers.split([len(images), len(where)])
    mean = upright.index_add(
        0, torch.tensor(where, device=images.device, dtype=torch.int64), mirrored.flip(-1) - upright[where], alpha=0.5
    )
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


class Mirrored(nn.Module):
    """A network that is asked twice once it is trained; training is as without. ``net``: called ``net(images, captions)``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Logits ``[B, K, H, W]``: of the network in training, of :func:`mirrored_logits` afterwards."""
        return self.net(images, captions) if self.training else mirrored_logits(self.net, images, captions)

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

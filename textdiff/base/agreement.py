"""Do two ways to compute the same thing agree? In: two tensors. Out: a printed sentence, or an error.

The pages of the book that build a method in a few lines hold each part against the package's own with this.
"""

from __future__ import annotations

from torch import Tensor


def agrees(built: Tensor, own: Tensor, name: str, within: float = 1e-6) -> None:
    """Print the largest difference between ``built`` and ``own``, what the package's part ``name`` gives.

    Both have the same shape, any; they are compared in float64.

    Raises AssertionError: another shape, or a number that differs by more than ``within`` or is not finite.
    """
    assert built.shape == own.shape, f"{name} gives {tuple(own.shape)}, built is {tuple(built.shape)}"
    gap = (built.detach().double() - own.detach().double()).abs().max().item()
    assert gap <= within, f"{name} differs by {gap:.0e}, more than {within:.0e}"
    print(f"{name}: the largest difference is {gap:.0e}")

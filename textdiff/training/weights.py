"""Which weights a run trains, averages and keeps. In: a model. Out: its trained tensors, their moving average, the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's own trained parameters, and the buffers beside them (a batch norm's statistics); nothing of what is frozen.

    A part is frozen, with its buffers, if it has parameters and none of them asks for gradients.
    """

    def frozen(part: nn.Module) -> bool:
        asking = [parameter.requires_grad for parameter in part.parameters()]
        return bool(asking) and not any(asking)

    left_out = tuple(f"{name}." for name, part in model.named_modules() if name and frozen(part))
    state = model.state_dict(keep_vars=True)
    fixed = {name for name, value in state.items() if isinstance(value, nn.Parameter) and not value.requires_grad}
    return {name: value for name, value in state.items() if name not in fixed and not name.startswith(left_out)}


class Weights:
    """The weights of a run: the latest, which are the model's own; their moving average; the best by validation."""

    def __init__(self, latest: Mapping[str, Tensor], ema_decay: float) -> None:
        self.latest, self.ema_decay = latest, ema_decay
        self.average = _copy(latest) if ema_decay else {}
        asking = [name for name in self.average if latest[name].requires_grad]
        others = [name for name in self.average if name not in set(asking)]
        # As lists, so that a card is asked once for all of them; the tensors stay the same throughout a run
        self._means, self._values = ([side[name].detach() for name in asking] for side in (self.average, latest))
        self._copies, self._originals = ([side[name].detach() for name in others] for side in (self.average, latest))
        self.best: dict[str, Tensor] = {}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Moves the average of parameters towards the latest; other tensors (statistics, counters) are copied."""
        memory = min(self.ema_decay, step / (step + 10))  # a long one only once there is something to remember
        if self._means:
            torch._foreach_lerp_(self._means, self._values, 1 - memory)
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within this context the model has the weights that are validated and kept."""
        latest = _copy(self.latest) if self.average else {}
        put(self.average, self.latest)
        try:
            yield
        finally:
            put(latest, self.latest)

    def keep(self) -> None:
        """The weights of now are the best."""
        self.best = _copy(self.average or self.latest)

    def leave(self) -> None:
        """Gives the model the best weights, else their average, else what it has."""
        put(self.best or self.average, self.latest)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def put(state: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copies tensors by name into those that are there."""
    for name, value in state.items():
        into[name].copy_(value)

"""``torch.compile`` where it pays. In: a module that is trained. Out: the same module, its steps compiled or as they were.

A choice of the place, not of the result: it changes the last digits of a step as another processor would, and nothing else
that is recorded. TEXTDIFF_COMPILE is "on", "off" or "auto" (the default).

On a processor it hardly pays: convolutions are library calls either way. Measured on one core, seconds of the processor: a
step of the compact head on four images of 256 pixels took 0.89 of its time after half a minute of compiling. After minutes, a
step of the small TextDiffSeg took 0.96 of its time, the features of a UNet of 32 channels 1.11, a pre-training step of one of
64 channels 1.16. There "auto" compiles nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn

logger = logging.getLogger(__name__)
Compile = Literal["auto", "on", "off"]
PAYS_FROM = 3000  # steps; compiling a UNet of 24 million parameters took 100 s on a GPU and saved some 40 ms a step


def compile_choice() -> Compile:
    """What TEXTDIFF_COMPILE says; "auto" without it. Raises ValueError for another word."""
    word = os.environ.get("TEXTDIFF_COMPILE", "").strip() or "auto"
    for known in get_args(Compile):
        if word == known:
            return known
    raise ValueError(f"TEXTDIFF_COMPILE={word!r}: choose one of {', '.join(get_args(Compile))}")


@contextmanager
def compiled(module: nn.Module, device: torch.device | str, steps: int, how: Compile | None = None) -> Iterator[None]:
    """Within this context training steps of ``module`` on ``device`` run compiled where ``how`` says so.

    "auto": on CUDA, for `PAYS_FROM` steps or more. Evaluation (without gradients) stays as it is: its sizes change, and each
    would be compiled. Where compiling fails, for whatever reason, one line is logged and the module goes on uncompiled, with
    the random numbers that it would have drawn. ``how=None``: :func:`compile_choice`.
    """
    how = how or compile_choice()
    if how == "off" or (how == "auto" and (torch.device(device).type != "cuda" or steps < PAYS_FROM)):
        yield
        return
    module.forward = _Compiled(module)
    try:
        yield
    finally:
        del module.forward  # the instance's own; the class's is seen again


class _Compiled:
    """A module's forward pass, compiled while gradients are asked for and for as long as that works."""

    def __init__(self, module: nn.Module) -> None:
        self.name, self.eager = type(module).__name__, module.forward
        # dropout draws what it draws uncompiled; sizes do not change within a training
        self.fast: Callable[..., Any] | None = torch.compile(
            self.eager, dynamic=False, options={"fallback_random": True}
        )
        self.proven = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fast is None or not torch.is_grad_enabled():
            return self.eager(*args, **kwargs)
        if self.proven:
            return self.fast(*args, **kwargs)
        states = _random_states()
        try:
            # the backward pass too is compiled here, where its failure can still be answered
            from torch._functorch import config  # slow to import

            with config.patch(force_non_lazy_backward_lowering=True):
                result = self.fast(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logger.warning("%s is not compiled (%s); it goes on as it is", self.name, reason)
            self.fast = None
            _put_back(states)
            return self.eager(*args, **kwargs)
        self.proven = True
        return result


def _random_states() -> tuple[torch.Tensor, list[torch.Tensor]]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda


def _put_back(states: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])

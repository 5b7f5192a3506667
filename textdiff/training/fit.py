"""The one training loop. In: a model that offers ``loss(batch, generator)``, and samples. Out: the model, trained; a history.

It serves TextDiff's head, networks trained from scratch, networks for volumes and pre-training. Every random number
follows from the seed and the step: an interrupted run goes on from its checkpoint as if nothing had happened, to the bit
on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.base.checkpoints import read_checkpoint, write_checkpoint
from textdiff.training.batches import Samples, batches
from textdiff.training.weights import Weights, put, trained_state

LrSchedule = Literal["cosine", "constant"]
FORMAT = 2  # of checkpoints


@dataclass(frozen=True)
class Optimisation:
    """How a model is trained: AdamW for a number of steps.

    Args:
        iterations: optimiser steps.
        batch_size, accumulate: samples at once, and how many such batches make one step.
        lr_schedule: "cosine" is a linear warm-up, then a cosine down to zero, with gradients clipped to norm 1;
            "constant" is neither (the authors' milestone lies beyond their last epoch, so that their rate never changes).
        warmup: steps of the warm-up; None for a twentieth of all.
        ema_decay: memory of the moving average of the weights, which is validated and kept in place of the latest
            weights; shorter at the beginning. 0 keeps no average.
        validate_every: steps from one row of the history to the next.
        checkpoint_every: steps from one checkpoint to the next; None for as often as validation.
        seed: of what the model draws in its loss. The samples have a seed of their own.

    Raises ValueError: a number out of its range, an unknown schedule.
    """

    iterations: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    lr_schedule: LrSchedule = "cosine"
    warmup: int | None = None
    accumulate: int = 1
    ema_decay: float = 0.0
    validate_every: int = 50
    checkpoint_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lr_schedule not in get_args(LrSchedule):
            raise ValueError(f"lr_schedule={self.lr_schedule!r}: choose one of {', '.join(get_args(LrSchedule))}")
        for name in ("iterations", "batch_size", "accumulate", "validate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}: a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay}: 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: from 0 (no average) to just below 1")

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0."""
        if self.lr_schedule == "constant":
            return self.learning_rate
        warmup = self.iterations // 20 if self.warmup is None else self.warmup
        decay = 0.5 * (1 + math.cos(math.pi * step / self.iterations))
        return self.learning_rate * min(1.0, (step + 1) / max(1, warmup)) * decay

    def due(self, step: int, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is done after ``step`` of them."""
        return step % every == 0 or step == self.iterations


def fit(
    model: nn.Module,
    samples: Samples,
    how: Optimisation,
    *,
    validate: Callable[[nn.Module], float] | None = None,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains the parameters of ``model`` that ask for gradients, in place, and leaves the best weights in it.

    Args:
        model: its ``loss(batch, generator)`` gives scalars by name, of which "loss" is minimised.
        validate: scores the model, in eval mode (higher is better). The weights of :func:`best_row` stay in the model; without
            validation the last. With ``ema_decay`` both are averages.
        checkpoint: a file to continue from, to the step, and to write; removed by the caller when done.
        workers: processes that load samples ahead (:func:`textdiff.training.batches.workers_for`).

    Returns one row every ``validate_every`` steps and at the end: "step", the mean of every loss since the last row, "score"
    (nan without validation), "seconds".

    Raises FloatingPointError: a loss or the norm of the gradients is nan or infinite; says at which step; ValueError: nothing
    to train; a checkpoint that is damaged or belongs to another run.
    """
    run = _Run(model.to(device), how)
    settings = {"format": FORMAT, **asdict(how), "validated": validate is not None, "samples": samples.settings}
    if checkpoint is not None and Path(checkpoint).is_file():
        run.load(Path(checkpoint), settings)
    started = time.monotonic() - run.seconds
    numbers = range(run.step * how.accumulate, how.iterations * how.accumulate)
    loaded = zip(numbers, batches(samples, how.batch_size, numbers, device, workers), strict=True)
    steps = range(run.step, how.iterations)
    bar = tqdm(steps, initial=run.step, total=how.iterations, desc="training", disable=not progress)
    model.train()
    with torch.random.fork_rng(devices=[]):
        for _ in bar:
            run.update(loaded)
            run.seconds = time.monotonic() - started
            if how.due(run.step, how.validate_every):
                row = run.finish_row(validate)
                bar.set_postfix(loss=f"{row['loss']:.4f}", score=f"{row['score']:.4f}")
            if checkpoint is not None and how.due(run.step, how.checkpoint_every or how.validate_every):
                run.save(Path(checkpoint), settings)
    run.weights.leave()
    model.eval()
    return run.history


def best_row(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row whose weights are kept: the first of those with the highest score; the last where none has a score (nan)."""
    scored = [row for row in history if not math.isnan(row["score"])]
    return max(scored, key=lambda row: row["score"]) if scored else history[-1]


class _Run:
    """All that a checkpoint must hold to continue to the step: weights, optimiser, history, losses since its last row."""

    COUNTED = ("step", "seconds", "history", "totals", "count")

    def __init__(self, model: nn.Module, how: Optimisation) -> None:
        self.model: Any = model
        self.how = how
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"no parameter of this {type(model).__name__} asks for gradients: nothing to train")
        parameters = list(self.parameters.values())
        self.optimizer = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay)
        self.weights = Weights(trained_state(model), how.ema_decay)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.totals: dict[str, float] = {}  # of the losses since the last row
        self.count = 0

    def update(self, batches: Iterator[tuple[int, Any]]) -> None:
        """One optimiser step on the mean loss of the next ``accumulate`` numbered batches, one graph in memory at a time."""
        self.optimizer.zero_grad(set_to_none=True)
        found: list[dict[str, Tensor]] = []
        for _ in range(self.how.accumulate):
            number, batch = next(batches)
            losses = self.model.loss(batch, self._generator(number))
            (losses["loss"] / self.how.accumulate).backward()
            found.append({name: value.detach() for name, value in losses.items()})
        limit = 1.0 if self.how.lr_schedule == "cosine" else math.inf  # the latter only measures
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), limit)
        named = [pair for losses in found for pair in losses.items()]
        *values, length = _numbers([*(value for _, value in named), norm])
        for (name, _), value in zip(named, values, strict=True):
            self.totals[name] = self.totals.get(name, 0.0) + value
        for name, value in (("loss", self.totals["loss"]), ("norm of the gradient", length)):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {name} became {value} at step {self.step}; a smaller learning rate than "
                    f"{self.how.learning_rate} or precision='float32' may help"
                )
        self.count += self.how.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.rate(self.step)
        self.optimizer.step()
        self.step += 1
        self.weights.follow(self.step)

    def finish_row(self, validate: Callable[[nn.Module], float] | None) -> dict[str, float]:
        """Adds a row to the history, and keeps the weights if it is the best."""
        score = math.nan
        if validate is not None:
            with self.weights.shown():
                score = float(validate(self.model.eval()))
            self.model.train()
        losses = {name: total / self.count for name, total in self.totals.items()}
        self.history.append({"step": self.step, **losses, "score": score, "seconds": self.seconds})
        self.totals, self.count = {}, 0
        if validate is not None and best_row(self.history) is self.history[-1]:
            self.weights.keep()
        return self.history[-1]

    def save(self, path: Path, settings: Mapping[str, object]) -> None:
        """Writes everything to ``path``, atomically."""
        parts = {"model": self.weights.latest, "average": self.weights.average, "best": self.weights.best}
        tensors = {f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()}
        for name, parameter in self.parameters.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam/{name}/{moment}"] = value
        about = {name: getattr(self, name) for name in self.COUNTED}
        write_checkpoint(path, tensors, {"run": json.dumps({"settings": settings, **about})})

    @torch.no_grad()
    def load(self, path: Path, settings: Mapping[str, object]) -> None:
        """Continues from ``path``; raises ValueError where it is damaged, or belongs to a run of another kind."""
        tensors = read_checkpoint(path)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("run", "{}"))
        theirs, ours = about.get("settings", {}), json.loads(json.dumps(settings))
        other = [f"{k} {theirs.get(k)!r} instead of {ours[k]!r}" for k in ours if theirs.get(k) != ours[k]]
        if other:
            raise ValueError(
                f"{path} belongs to a run with other settings ({'; '.join(other)}); remove it, or give another file"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        latest = part("model/")
        if {k: v.shape for k, v in latest.items()} != {k: v.shape for k, v in self.weights.latest.items()}:
            raise ValueError(f"{path} holds the weights of another network than this {type(self.model).__name__}")
        put(latest, self.weights.latest)
        put(part("average/"), self.weights.average)
        self.weights.best = {k: torch.empty_like(self.weights.latest[k]).copy_(v) for k, v in part("best/").items()}
        for key, value in part("adam/").items():
            name, moment = key.rsplit("/", 1)
            parameter = self.parameters[name]
            # laid out as the parameter is, so that the next step rounds as it would have
            placed = value if moment == "step" else torch.empty_like(parameter).copy_(value)
            self.optimizer.state[parameter][moment] = placed
        for name in self.COUNTED:
            setattr(self, name, about[name])

    def _generator(self, number: int) -> torch.Generator:
        """For what the loss of batch ``number`` draws; torch's own generators, which dropout draws from, start there too."""
        seed = (self.how.seed + 1) * 1_000_003 + number
        torch.default_generator.manual_seed(seed)
        if next(iter(self.parameters.values())).device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return torch.Generator().manual_seed(seed)


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Their values; the one place in a step where the processor waits for the device."""
    return torch.stack([scalar.float() for scalar in scalars]).tolist()

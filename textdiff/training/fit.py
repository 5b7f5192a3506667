"""The one training loop. In: a model that offers ``loss(batch, generator)``, and samples. Out: the model, trained; a history.

It serves TextDiff's head, networks trained from scratch, networks for volumes and pre-training. Every random number
follows from the seed and the step: an interrupted run goes on from its checkpoint as if nothing had happened, to the bit
on a CPU.

Several processes of a launcher (:mod:`textdiff.base.processes`) divide every batch, and add up their gradients once a step:
each takes the same step, the one that a single process would take with the whole batch, up to the rounding of sums.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.base.checkpoints import fingerprint, read_checkpoint, write_checkpoint
from textdiff.base.compiling import compiled
from textdiff.base.draws import PartGenerator, seed_of_part
from textdiff.base.memory import Fitting
from textdiff.base.processes import processes
from textdiff.training.batches import Batched, Samples, batches
from textdiff.training.weights import Weights, put, trained_state

LrSchedule = Literal["cosine", "constant"]
FORMAT = 2  # of checkpoints
FUSED = ("cpu", "cuda")  # devices with an optimiser of one piece
LATE = ("cuda",)  # devices that work while the processor goes on; to ask one for a number is to wait for it
READ_TOGETHER = 16  # steps whose figures are read at once from such a device


@dataclass(frozen=True)
class Optimisation:
    """How a model is trained: AdamW for a number of steps.

    Args:
        iterations: optimiser steps.
        batch_size, accumulate: samples at once, in all processes together, and how many such batches make one step.
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
    samples: Samples | Batched,
    how: Optimisation,
    *,
    compiling: nn.Module | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains the parameters of ``model`` that ask for gradients, in place, and leaves the best weights in it.

    Args:
        model: its ``loss(batch, generator)`` gives scalars by name, of which "loss" is minimised.
        compiling: the part of the model that may be compiled (:func:`textdiff.base.compiling.compiled`).
        validate: scores the model, in eval mode (higher is better). The weights of :func:`best_row` stay in the model; without
            validation the last. With ``ema_decay`` both are averages.
        checkpoint: a file to continue from, to the step, and to write; removed by the caller when done.
        workers: processes that load samples ahead (:func:`textdiff.training.batches.workers_for`), where samples are
            made one by one.

    Where a card's memory does not take a batch, it goes through in parts with the same mean loss, from then on. Several
    processes (:func:`textdiff.base.processes.processes`) call this alike; the main one validates and writes, all end with
    the same weights. They may be another number when a run is continued.

    Returns one row every ``validate_every`` steps and at the end: "step", the mean of every loss since the last row, "score"
    (nan without validation), "seconds".

    Raises FloatingPointError: a loss, the norm of the gradients, a weight or a score is nan or infinite; says which and at which
    step, and leaves the checkpoint of before; ValueError: nothing to train; a checkpoint that is damaged or belongs to another
    run; processes that cannot divide a batch, or begin with different weights; MemoryError: a single sample is too much for the
    device, or a batch whose loss cannot be split (:func:`why_whole`); RuntimeError: another process has ended.
    """
    processes().check_device(device)
    run = _Run(model.to(device).train(), how)
    settings = {"format": FORMAT, **asdict(how), "validated": validate is not None, "samples": samples.settings}
    if checkpoint is not None and Path(checkpoint).is_file():
        run.load(Path(checkpoint), settings)
    run.check_alike()
    started = time.monotonic() - run.seconds
    numbers = range(run.step * how.accumulate, how.iterations * how.accumulate)
    loaded = zip(numbers, batches(samples, how.batch_size, numbers, device, workers, run.own), strict=True)
    steps = range(run.step, how.iterations)
    bar = tqdm(steps, initial=run.step, total=how.iterations, desc="training", disable=not (progress and run.all.main))
    steps_of_part = how.iterations * how.accumulate
    faster = nullcontext() if compiling is None else compiled(compiling, device, steps_of_part)
    with torch.random.fork_rng(devices=[]), faster:
        for _ in bar:
            run.update(loaded)
            row_due = how.due(run.step, how.validate_every)
            save_due = checkpoint is not None and how.due(run.step, how.checkpoint_every or how.validate_every)
            if row_due or save_due:
                run.read()
                run.check_weights()
            run.seconds = time.monotonic() - started
            if row_due:
                row = run.finish_row(validate)
                bar.set_postfix(loss=f"{row['loss']:.4f}", score=f"{row['score']:.4f}")
            if checkpoint is not None and save_due and run.all.main:
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
        kind = parameters[0].device.type
        self.optimizer: Any = torch.optim.AdamW(
            parameters, lr=how.learning_rate, weight_decay=how.weight_decay, fused=kind in FUSED
        )
        # Whether figures are read some steps late; until then a broken step is left out by the fused optimiser, as after a
        # gradient scaler's overflow, and so is every step after it
        self.late = kind in LATE
        self.broken = torch.zeros((), device=parameters[0].device)
        self.unread: list[_Figures] = []
        self.all, whole = processes(), why_whole(model)
        self.own = self.all.share(how.batch_size)  # this process's samples of every batch
        if whole and self.all.count > 1:
            raise ValueError(f"{self.all.count} processes cannot divide a batch: {whole}, or train in one process")
        self.fitting = Fitting("samples", whole)
        self.weights = Weights(trained_state(model), how.ema_decay)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.totals: dict[str, float] = {}  # of the losses since the last row
        self.count = 0

    def update(self, batches: Iterator[tuple[int, Any]]) -> None:
        """One optimiser step on the mean loss of the next ``accumulate`` numbered batches, one graph in memory at a time."""
        taken = [next(batches) for _ in range(self.how.accumulate)]
        count = self.own.stop - self.own.start
        found = self._added_up(self.fitting.run(lambda parts: self._gradients(taken, parts), count))
        limit = 1.0 if self.how.lr_schedule == "cosine" else math.inf  # the latter only measures
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), limit)
        named = [pair for losses in found for pair in losses.items()]
        self.unread.append(_Figures(self.step, [name for name, _ in named], [*(value for _, value in named), norm]))
        if self.late:
            self.optimizer.found_inf = self.broken = torch.maximum(self.broken, self.unread[-1].broken())
        if not self.late or len(self.unread) >= READ_TOGETHER:
            self.read()
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.rate(self.step)
        self.optimizer.step()
        self.step += 1
        self.weights.follow(self.step)

    def _gradients(self, taken: Sequence[tuple[int, Any]], parts: Sequence[slice]) -> list[dict[str, Tensor]]:
        """Leaves this process's share of the gradients of the mean loss of these batches, and returns that of their losses.

        ``parts``: of this process's samples of each batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        found: list[dict[str, Tensor]] = []
        for number, batch in taken:
            seed = self._seeded(number)
            means: dict[str, Tensor] = {}
            for part in parts:
                losses = self.model.loss(batch if len(parts) == 1 else batch[part], self._generator(seed, part))
                share = (part.stop - part.start) / self.how.batch_size
                (losses["loss"] / (self.how.accumulate / share)).backward()
                for name, value in losses.items():
                    means[name] = means.get(name, 0.0) + share * value.detach()
            found.append(means)
        return found

    def _added_up(self, found: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Leaves in every process the sums of all processes' gradients, and returns the sums of their losses."""
        if self.all.count == 1:
            return found
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        sums = self.all.sums([*gradients, *(value for losses in found for value in losses.values())])
        for gradient, total in zip(gradients, sums, strict=False):
            gradient.copy_(total)  # in its own layout, which the optimiser takes for that of the parameter
        values = iter(sums[len(gradients) :])
        return [{name: next(values) for name in losses} for losses in found]

    def check_alike(self) -> None:
        """Raises ValueError where this process does not begin as the main one does."""
        if self.all.count == 1:
            return
        step, weights = self.step, int(fingerprint(self.weights.latest)[:12], 16)
        theirs = self.all.told(lambda: step), self.all.told(lambda: weights)
        if theirs != (step, weights):
            raise ValueError(
                f"process {self.all.index} begins at step {step} and the main one at step {theirs[0]:.0f}, or with other weights: "
                "all need the same checkpoint (a cache folder that they share), the same files and versions"
            )

    def read(self) -> None:
        """Adds the losses of the steps since the last reading to the totals; here the processor waits for the device.

        Raises FloatingPointError at the first step whose loss or norm is no finite number.
        """
        for figures in self.unread:
            *values, length = figures.numbers()
            for name, value in zip(figures.names, values, strict=True):
                self.totals[name] = self.totals.get(name, 0.0) + value
            for name, value in (("loss", self.totals["loss"]), ("norm of the gradient", length)):
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the {name} became {value} at step {figures.step}; a smaller learning rate than "
                        f"{self.how.learning_rate} or precision='float32' may help"
                    )
            self.count += self.how.accumulate
        self.unread.clear()

    def check_weights(self) -> None:
        """Raises FloatingPointError where a weight or a statistic is no finite number: nothing of these is kept or written."""
        state = {name: value for name, value in self.weights.latest.items() if value.is_floating_point()}
        figures = _Figures(self.step, list(state), [value.detach().isfinite().all() for value in state.values()])
        broken = [name for name, whole in zip(figures.names, figures.numbers(), strict=True) if not whole]
        if broken:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            raise FloatingPointError(
                f"the weights {broken[0]}{more} hold nan or infinity after step {self.step - 1}; a smaller learning rate "
                f"than {self.how.learning_rate} may help"
            )

    def finish_row(self, validate: Callable[[nn.Module], float] | None) -> dict[str, float]:
        """Adds a row to the history, and keeps the weights if it is the best. Raises FloatingPointError for a score that is none."""
        score = math.nan
        if validate is not None:
            with self.weights.shown():
                score = self.all.told(lambda: validate(self.model.eval()))
            self.model.train()
            if not math.isfinite(score):
                raise FloatingPointError(f"the validation score became {score} after step {self.step - 1}")
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
            placed = torch.empty_like(parameter).copy_(value) if moment != "step" else value.to(self.broken.device)
            self.optimizer.state[parameter][moment] = placed
        for name in self.COUNTED:
            setattr(self, name, about[name])

    def _seeded(self, number: int) -> int:
        """The seed of what the loss of batch ``number`` draws; torch's own generators, which dropout draws from, start there too.

        These cannot be divided: under several processes each has its own, and dropout is another than in one.
        """
        seed = (self.how.seed + 1) * 1_000_003 + number
        own = seed_of_part(seed, self.own.start)
        torch.default_generator.manual_seed(own)
        if self.broken.device.type == "cuda":
            torch.cuda.manual_seed(own)
        return seed

    def _generator(self, seed: int, part: slice) -> torch.Generator:
        """For what the loss of one part of this process's samples draws."""
        generator, first = torch.Generator().manual_seed(seed), self.own.start
        if part.stop - part.start == self.how.batch_size:
            return generator
        return PartGenerator(generator, slice(first + part.start, first + part.stop), self.how.batch_size)


class _Figures:
    """Numbers by name (the losses of one step and the norm of its gradient), on the device until they are asked for."""

    def __init__(self, step: int, names: list[str], scalars: Sequence[Tensor]) -> None:
        self.step, self.names = step, names
        self.values = torch.stack([scalar.float() for scalar in scalars])

    def broken(self) -> Tensor:
        """1 on the device where the loss or the norm is no finite number, else 0."""
        told = [place for place, name in enumerate([*self.names, "loss"]) if name == "loss"]
        return (~torch.stack([self.values[place] for place in told]).isfinite()).any().float()

    def numbers(self) -> list[float]:
        return self.values.tolist()


def why_whole(model: Any) -> str:
    """Why the batches of this model's training must not be split to save memory, and what to do instead; "" where they may."""
    if getattr(getattr(model, "criterion", None), "dice_over", "") == "batch":
        return (
            "the Dice loss runs over the whole batch; choose a smaller batch_size or image_size, or dice_over='image'"
        )
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if any(isinstance(part, norms) and part.training for part in model.modules()):  # a frozen one keeps its statistics
        return "batch normalisation sees the whole batch; choose a smaller batch_size or image_size"
    return ""

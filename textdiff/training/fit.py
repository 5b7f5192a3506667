"""Training on a few labelled images: a model and cases in; trained weights (best by validation) and a history out.

One loop serves TextDiff's head and the baselines, so that they get the same images, augmentation and selection. Every
random number follows from the seed and the step: an interrupted run continues exactly where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.base.checkpoints import load_strict, read_checkpoint, write_checkpoint
from textdiff.data.cases import Case
from textdiff.data.images.transforms import dihedral, dihedral_caption, mask_at, to_input

AUGMENTATIONS = ("follow", "affine", "stain", "official", "contradict", "none")
JITTERED = ("affine", "stain")  # also moved, scaled and changed in intensity
FOLLOWED = ("follow", *JITTERED)  # the sentence's words go with the turns and flips
SCHEDULES = ("cosine", "constant")


class TrainingImages:
    """Labelled cases as network inputs, augmented; the same step always draws the same batch.

    Args:
        cases: labelled cases.
        image_size, channel_order, resize, mask_rule, num_classes: as in :mod:`textdiff.data.images.transforms`.
        augmentation: "follow" draws one of the eight symmetries under which the caption's words can follow, and lets
            them; "affine" adds small random scalings, rotations, shifts and changes of intensity, which no feature cache can
            hold but a network trained from scratch needs; "stain" changes the intensity of each colour channel for itself, as
            another laboratory's stain would; "contradict" draws any of the eight and leaves the caption; "official" is the authors' mixture (half
            the time a turn and a flip, a quarter of the time a rotation by up to 20 degrees), caption left; "none".
        seed: of order and augmentation.
        bound: how many different random views of one image there are; 0 draws a new one each time. A bound lets a feature
            cache hold them all: frozen features of a view are then computed once, however often it comes.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        image_size: int,
        channel_order: str = "RGB",
        resize: str = "area",
        mask_rule: str = "area",
        num_classes: int = 2,
        augmentation: str = "follow",
        seed: int = 0,
        bound: int = 0,
    ) -> None:
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation={augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}")
        if bound < 0:
            raise ValueError(f"bound={bound}: a number of views an image, or 0 for no bound")
        if not cases:
            raise ValueError("no labelled images to train on")
        pairs = [case.pair() for case in cases]
        self.images = torch.stack([to_input(image, image_size, channel_order, resize) for image, _ in pairs])
        self.masks = torch.stack([mask_at(mask, image_size, mask_rule, num_classes) for _, mask in pairs])
        self.captions = [case.caption for case in cases]
        self.augmentation, self.seed, self.bound = augmentation, seed, bound
        self.turns = [self._turns(caption) for caption in self.captions]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor, list[str]]:
        """Images ``[size, 3, S, S]`` in [-1, 1], masks ``[size, S, S]`` int64 and captions of optimiser step ``step``.

        Every image comes once before any comes twice.
        """
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + step)
        places = [self._at(step * size + i) for i in range(size)]
        images, masks, captions = zip(*(self._augment(i, self._draws(i, generator)) for i in places), strict=True)
        return torch.stack(images), torch.stack(masks), list(captions)

    @cached_property
    def views(self) -> int:
        """Different inputs that the frozen UNet will ever see (0: no bound)."""
        if self.augmentation in ("official", *JITTERED):
            return self.bound * len(self)
        turned = [len(turns) for turns in self.turns]
        return sum(min(self.bound, n) if self.bound else n for n in turned)

    def _turns(self, caption: str) -> list[int]:
        if self.augmentation in FOLLOWED:
            return [k for k in range(8) if dihedral_caption(caption, k) is not None]
        return list(range(8)) if self.augmentation in ("contradict", "official") else [0]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self))
        generator = torch.Generator().manual_seed(self.seed * 15_485_863 + epoch)
        return int(torch.randperm(len(self), generator=generator)[place])

    def _draws(self, i: int, generator: torch.Generator) -> torch.Generator:
        """Where the random numbers of this view come from: ``generator``, or one of ``bound`` fixed draws of image ``i``."""
        if not self.bound:
            return generator
        view = int(torch.randint(self.bound, (), generator=generator))
        return torch.Generator().manual_seed((self.seed * 32_452_843 + i) * 1_009 + view)

    def _augment(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
        image, mask, caption = self.images[i], self.masks[i], self.captions[i]
        turns = self.turns[i]
        k = turns[int(torch.randint(len(turns), (), generator=generator))]
        if self.augmentation == "official":
            chance, again, angle = torch.rand(3, generator=generator).tolist()
            if chance >= 0.5:
                return (*_rotate(image, mask, 40 * angle - 20), caption) if again >= 0.5 else (image, mask, caption)
        elif self.augmentation in FOLLOWED:
            caption = dihedral_caption(caption, k)
        if self.augmentation in JITTERED:
            image, mask = _jitter(image, mask, generator, len(image) if self.augmentation == "stain" else 1)
        return dihedral(image, k).contiguous(), dihedral(mask, k).contiguous(), caption


def _jitter(image: Tensor, mask: Tensor, generator: torch.Generator, colours: int) -> tuple[Tensor, Tensor]:
    """Scale by 0.8 to 1.25, rotate by up to 15 degrees, shift by up to a tenth, contrast and brightness by a fifth.

    Small enough that a caption's places stay true. Beyond the border the picture is mirrored. Contrast and brightness are
    drawn for all channels together (``colours`` 1) or for each (their number).
    """
    drawn = 2 * torch.rand(4 + 2 * colours, generator=generator) - 1
    scale, angle, right, down = drawn[:4].tolist()
    contrast, brightness = drawn[4:].view(2, colours, 1, 1)
    factor, angle = 1.25**scale, math.radians(15 * angle)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    matrix = torch.tensor([[[cos, -sin, 0.2 * right], [sin, cos, 0.2 * down]]])
    grid = nn.functional.affine_grid(matrix, [1, 1, *mask.shape], align_corners=False)

    def move(pixels: Tensor, mode: str) -> Tensor:
        return nn.functional.grid_sample(pixels[None], grid, mode, "reflection", align_corners=False)[0]

    image = (move(image, "bilinear") * (1 + 0.2 * contrast) + 0.2 * brightness).clamp(-1, 1)
    return image, move(mask[None].float(), "nearest")[0].long()


def _rotate(image: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotation about the centre, nearest neighbour, outside black (order 0 without resizing, as in the authors' code)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
    grid = nn.functional.affine_grid(matrix, [1, 1, *mask.shape], align_corners=False)

    def turn(pixels: Tensor) -> Tensor:
        return nn.functional.grid_sample(pixels[None], grid, mode="nearest", align_corners=False)[0]

    return turn(image + 1) - 1, turn(mask[None].float())[0].long()


class Trainee:
    """A module, its optimiser and a step counter: all that a checkpoint must hold to continue to the step.

    Args:
        modules: named modules to save; the one called "model" is trained.
        steps: length of the run.
        schedule: "cosine" is a linear warm-up, then a cosine down to zero, with gradients clipped to norm 1; "constant" is
            neither (the authors' milestone lies beyond their last epoch, so that their rate never changes).
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        steps: int,
        learning_rate: float,
        warmup: int = 0,
        weight_decay: float = 0.0,
        schedule: str = "cosine",
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r}: choose one of {', '.join(SCHEDULES)}")
        self.schedule = schedule
        self.modules = dict(modules)
        self.names = [name for name, p in modules["model"].named_parameters() if p.requires_grad]
        self.parameters = [p for p in modules["model"].parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=weight_decay)
        self.steps, self.learning_rate, self.warmup = steps, learning_rate, warmup
        self.step = 0
        self.about: dict = {"history": []}

    @property
    def history(self) -> list[dict[str, float]]:
        return self.about["history"]

    def update(self, loss: Tensor) -> float:
        """One optimiser step; returns the loss.

        Raises:
            FloatingPointError: the loss is nan or infinite.
        """
        return self.update_from([loss])

    def update_from(self, losses: Iterable[Tensor], parts: int = 1) -> float:
        """One optimiser step on the mean of ``parts`` losses; returns it.

        Each loss goes back before the next is asked for, so that only one graph is in memory (gradient accumulation).

        Raises:
            FloatingPointError: a loss or, where gradients are clipped, a gradient is nan or infinite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            self._check_finite("loss", loss.detach())
            (loss / parts).backward()
            total += float(loss.detach()) / parts
        if self.schedule == "cosine":
            self._check_finite("norm of the gradient", nn.utils.clip_grad_norm_(self.parameters, 1.0))
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * self._rate()
        self.optimizer.step()
        self.step += 1
        return total

    def _check_finite(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the {name} became {float(value)} at step {self.step}; a smaller learning rate than "
                f"{self.learning_rate} or precision='float32' may help"
            )

    def _rate(self) -> float:
        """Share of the learning rate at this step."""
        decay = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        return min(1.0, (self.step + 1) / max(1, self.warmup)) * decay

    def save(self, path: Path, settings: Mapping[str, object]) -> None:
        """Writes everything to ``path``, atomically."""
        tensors = {f"{part}/{k}": v for part, module in self.modules.items() for k, v in module.state_dict().items()}
        for name, state in zip(self.names, self.optimizer.state_dict()["state"].values(), strict=True):
            tensors |= {f"adam.{moment}/{name}": value for moment, value in state.items()}
        about = {"settings": dict(settings), "step": self.step, **self.about}
        write_checkpoint(path, tensors, {"run": json.dumps(about)})

    def load(self, path: Path, settings: Mapping[str, object]) -> None:
        """Continues from ``path``.

        Raises:
            ValueError: a damaged file, or one that belongs to a run with other settings.
        """
        from safetensors import safe_open

        tensors = read_checkpoint(path)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("run", "{}"))
        if about.pop("settings", None) != dict(settings):
            raise ValueError(f"{path} belongs to a run with other settings; remove it, or give another checkpoint file")

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for name, module in self.modules.items():
            load_strict(module, part(f"{name}/"), str(path))
        adam = self.optimizer.state_dict()
        moments = ("step", "exp_avg", "exp_avg_sq")
        adam["state"] = {i: {m: tensors[f"adam.{m}/{name}"] for m in moments} for i, name in enumerate(self.names)}
        self.optimizer.load_state_dict(adam)
        self.step = about.pop("step")
        self.about = about


def fit(
    model: nn.Module,
    images: TrainingImages,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    validate: Callable[[nn.Module], float] | None = None,
    validate_every: int = 50,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains the parts of ``model`` that ask for gradients, in place, and leaves the best of them by ``validate`` in it.

    Args:
        model: called ``model(images, captions) -> logits``; what is frozen in it stays so.
        loss_fn: logits and masks to a scalar.
        validate: scores the model (higher is better) every ``validate_every`` iterations and at the end; None keeps the
            last weights.
        checkpoint: a file to continue from and to write at every validation; removed by the caller when done.

    Returns:
        one row a validation: step, mean training loss since the last, score, seconds.
    """
    trained = _trained_part(model.to(device))
    best = {k: v.clone() for k, v in trained.state_dict().items()}
    keeper = _Snapshot(best)
    run = Trainee(
        {"model": trained, "best": keeper}, iterations, learning_rate, iterations // 20, weight_decay, schedule
    )
    settings = {
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "augmentation": images.augmentation,
        "bound": images.bound,
        "seed": images.seed,
    }
    if checkpoint is not None and Path(checkpoint).is_file():
        run.load(Path(checkpoint), settings)
    started = time.monotonic() - (run.history[-1]["seconds"] if run.history else 0.0)
    losses: list[float] = []
    bar = tqdm(range(run.step, iterations), initial=run.step, total=iterations, desc="training", disable=not progress)
    model.train()
    for step in bar:
        inputs, masks, captions = images.batch(step, batch_size)
        logits = model(inputs.to(device), captions)
        losses.append(run.update(loss_fn(logits, masks.to(device))))
        if run.step % validate_every and run.step != iterations:
            continue
        score = float("nan") if validate is None else validate(model)
        model.train()
        row = {"step": run.step, "loss": sum(losses) / len(losses), "score": score}
        run.history.append(row | {"seconds": time.monotonic() - started})
        bar.set_postfix(loss=f"{row['loss']:.4f}", score=f"{score:.4f}")
        losses = []
        if last_is_best(run.history):
            keeper.take(trained)
        if checkpoint is not None:
            run.save(Path(checkpoint), settings)
    trained.load_state_dict(keeper.tensors())
    model.eval()
    return run.history


def last_is_best(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether no earlier score is higher than the last; nan, which an unscored row has, is lower than any number."""
    scores = [-math.inf if math.isnan(row["score"]) else row["score"] for row in history]
    return scores[-1] == max(scores)


class _Snapshot(nn.Module):
    """Holds the best weights so far as buffers, so that a checkpoint can hold them beside the latest."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.keys = list(state)
        for i, key in enumerate(self.keys):
            self.register_buffer(f"value{i}", state[key].clone())

    def take(self, module: nn.Module) -> None:
        state = module.state_dict()
        for i, key in enumerate(self.keys):
            getattr(self, f"value{i}").copy_(state[key])

    def tensors(self) -> dict[str, Tensor]:
        return {key: getattr(self, f"value{i}") for i, key in enumerate(self.keys)}


def _trained_part(model: nn.Module) -> nn.Module:
    """TextDiff trains its head only; a baseline trains whole."""
    return getattr(model, "head", model)

"""Trainings that several processes make together, and how to start these. Run as a file, this is one of them.

`python tests/many_processes.py FOLDER` under the environment that a launcher gives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tiny_models import cases, tiny_textdiff, tiny_unet
from tiny_volumes import KEEP, NAMES, training_volumes, volume_case
from torch import nn

from textdiff import TextDiffSeg
from textdiff.base.checkpoints import write_checkpoint
from textdiff.base.processes import Processes, processes
from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import TrainingImages
from textdiff.models.text import TextEncoder
from textdiff.training import fit as fit_module
from textdiff.training.fit import Optimisation, fit
from textdiff.training.pretraining import CropPool, Denoising

HERE = Path(__file__).resolve()
STEPS = 20
TIME = 300  # seconds; only a hanging test meets it


class Stop(Exception):
    pass


def textdiff() -> nn.Module:
    text = TextEncoder.from_pretrained("tiny", max_length=32)
    return tiny_textdiff(text, merge="decoder", attend=2, normalise=True, init="default")


def textdiffseg() -> nn.Module:
    text = TextEncoder.from_pretrained("tiny", max_length=32)
    torch.manual_seed(0)
    return TextDiffSeg(text, NAMES, KEEP, widths=(4, 8, 16), denoiser_widths=(16, 32), latent_channels=4)


def pretraining() -> nn.Module:
    unet = tiny_unet().to(memory_format=torch.channels_last)
    return Denoising(unet, "float32")


def _volumes() -> Any:
    return training_volumes([volume_case("a"), volume_case("b", 1)], prompts="class", distances=True)


# Model, samples, batch size: one that two processes halve, and two that they cannot
USES: dict[str, Any] = {
    "textdiff": (textdiff, lambda: TrainingImages(cases(3), ImageSpec(16)), 4),
    "textdiffseg": (textdiffseg, _volumes, 3),
    "pre-training": (pretraining, lambda: CropPool(cases(3), 16, 8), 5),
}


def train(
    use: str, folder: Path, checkpoint: str = "", stop: int = STEPS, wrap: Any = None, **changes: Any
) -> tuple[nn.Module, list[dict[str, float]]]:
    """One of `USES`, to the end or until an exception after ``stop`` steps; ``wrap`` changes the model's loss."""
    build, samples, size = USES[use]
    settings = {"learning_rate": 1e-3, "validate_every": 1, "checkpoint_every": 2, "ema_decay": 0.9} | changes
    model, taken = build(), []
    loss = wrap(model.loss) if wrap else model.loss

    def counted(batch: Any, generator: torch.Generator) -> Any:
        taken.append(1)
        if len(taken) > stop:
            raise Stop
        return loss(batch, generator)

    model.loss = counted
    path = folder / checkpoint if checkpoint else None
    how = Optimisation(**{"iterations": STEPS, "batch_size": size} | settings)
    return model, fit(model, samples(), how, validate=_score, checkpoint=path, progress=False)


def _score(model: nn.Module) -> float:
    """Any number that follows from the weights, 0.5 or less; other processes than the main one are not asked."""
    assert processes().main
    return 0.5 - abs(
        float(next(p for p in model.parameters() if p.requires_grad).detach().double().sum() * 50 % 1) - 0.5
    )


def curve(history: list[dict[str, float]]) -> torch.Tensor:
    """All losses of every step, float64 ``[steps, losses]``."""
    names = [name for name in history[0] if name not in ("step", "score", "seconds")]
    return torch.tensor([[row[name] for name in names] for row in history], dtype=torch.float64)


def keep(folder: Path, name: str, model: nn.Module, history: list[dict[str, float]]) -> None:
    """Writes what this process has trained."""
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    write_checkpoint(folder / f"{name}.{processes().index}.safetensors", state | {"curve": curve(history)})


def all_kinds(folder: Path) -> None:
    """Straight trainings; others that stop and go on, by two processes or first by one; what is refused; at the end a failure."""
    for use in USES:
        keep(folder, f"{use}-straight", *train(use, folder, f"{use}.safetensors"))
        stopped(use, folder, f"{use}-2.safetensors", after=6)
        if processes().main:
            shutil.copy(folder / f"{use}-2.safetensors", folder / f"{use}-1.safetensors")
            with mock.patch.object(fit_module, "processes", Processes):  # as without a launcher
                stopped(use, folder, f"{use}-1.safetensors", after=6)
        processes().wait()
        keep(folder, f"{use}-2-2", *train(use, folder, f"{use}-2.safetensors"))
        keep(folder, f"{use}-2-1-2", *train(use, folder, f"{use}-1.safetensors"))
    (folder / f"refused.{processes().index}").write_text(refused())
    train("textdiff", folder, stop=3 if processes().index == 1 else STEPS)


def stopped(use: str, folder: Path, checkpoint: str, after: int) -> None:
    with contextlib.suppress(Stop):
        train(use, folder, checkpoint, stop=after)


def refused() -> str:
    """What is said of a model with batch normalisation."""
    model = tiny_textdiff(TextEncoder.from_pretrained("tiny"))
    try:
        fit(model, TrainingImages(cases(3), ImageSpec(16)), Optimisation(2, 2, 1e-3), progress=False)
    except ValueError as error:
        return str(error)
    return ""


def environment(index: int, count: int, port: int) -> dict[str, str]:
    """What a launcher gives process ``index`` of ``count``."""
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    fixed = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": paths}
    return os.environ | fixed | {name: str(value) for name, value in ranks.items()}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(folder: Path, count: int = 2) -> list[tuple[int, str]]:
    """Exit codes and standard errors of ``count`` processes that do `all_kinds`. None of them outlives `TIME`."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE), str(folder)],
            env=environment(index, count, port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    try:
        errors = [one.communicate(timeout=TIME)[1] for one in started]
    finally:
        for one in started:
            one.kill()
    return [(one.returncode, error) for one, error in zip(started, errors, strict=True)]


if __name__ == "__main__":
    all_kinds(Path(sys.argv[1]))

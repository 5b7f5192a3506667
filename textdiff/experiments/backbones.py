"""Backbones that notebook 11 makes. In: a configuration of pre-training. Out: the trained network, kept on this machine; samples."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from textdiff.base.checkpoints import write_text
from textdiff.base.precision import resolve_device
from textdiff.experiments.config import kept_model
from textdiff.experiments.pretraining import PretrainConfig, pretrained
from textdiff.experiments.run import locked, scratch_dir

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from textdiff.models.unet import UNet


def kept_backbone(config: PretrainConfig) -> tuple[UNet, pd.DataFrame]:
    """The pre-trained network of a configuration and its loss curve (``step``, ``loss``, ``seconds``).

    Read where this machine has it (:func:`~textdiff.experiments.config.kept_model`), else trained and kept there: a folder that
    other notebooks take as ``backbone``.
    """
    import pandas as pd

    from textdiff.models.unet import UNet

    folder = kept_model(config.run_id)
    with locked(config):
        if not (folder / "history.json").is_file():
            checkpoint = scratch_dir() / config.run_id / "checkpoint.safetensors"
            unet, history = pretrained(config, checkpoint)
            unet.save_pretrained(folder)
            write_text(folder / "history.json", json.dumps(history))
            shutil.rmtree(checkpoint.parent, ignore_errors=True)
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return UNet.from_pretrained(folder).to(resolve_device(config.device)), pd.DataFrame(history)


def samples(config: PretrainConfig, unet: UNet) -> Tensor:
    """``n_samples`` pictures that a network draws from noise: float32 ``[N, 3, crop, crop]`` on the processor."""
    from textdiff.models.diffusion import Diffusion

    shape = (config.n_samples, 3, config.crop, config.crop)
    device = resolve_device(config.device)
    diffusion = Diffusion("linear", respacing=config.sampling_steps)
    return diffusion.sample(unet.to(device), shape, "ddpm", seed=config.seed, device=device, progress=False).cpu()

"""Pre-training of a small backbone: its configuration, and from a configuration the network, its images and its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from textdiff.base.files import remove_unfinished, write_text
from textdiff.base.parsing import numbers
from textdiff.base.precision import Precision, resolve_device
from textdiff.base.processes import processes
from textdiff.data import load_dataset
from textdiff.experiments.config import AUTO, Config, Count, Listed, Rate, SamplingSteps, Within, optimisation
from textdiff.experiments.places import drop_checkpoints, kept_model, locked, scratch_dir

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from textdiff.data.cases import Case
    from textdiff.models.unet import UNet
    from textdiff.training.pretraining import CropPool

PHANTOMS = {"demo": 40, "full": 200}  # synthetic images to learn from


@dataclass(frozen=True)
class PretrainConfig(Config):
    """Notebook 11: pre-train a small unconditional DDPM on unlabelled training images.

    ``scales``: whole images are resized to ``image_size`` times each of these before crops are cut.
    ``symmetries``: turns and flips that a crop may take (chest films: only 0 and 4, left-right).
    ``start_from``: a backbone of the same architecture to go on from, "" for random weights.
    """

    experiment: ClassVar[str] = "pretraining"
    notebook: ClassVar[str] = "11_pretrain_backbone"
    renamed: ClassVar[Mapping[str, str]] = {"steps": "iterations", "sampler_steps": "sampling_steps"}
    derived: ClassVar[Mapping[str, str]] = {"start_from_weights": "start_from"}
    reads_data: ClassVar[bool] = True

    image_size: Annotated[int, Within(least=8)] = AUTO
    crop: Annotated[int, Within(least=8)] = AUTO
    scales: Annotated[str, Listed(Within(above=0), kind=float)] = AUTO
    symmetries: Annotated[str, Listed(Within(least=0, most=7))] = AUTO
    model_channels: Annotated[int, Within(least=32)] = 32
    channel_mult: Annotated[str, Listed(Within(least=1))] = AUTO
    num_res_blocks: Count = AUTO
    attention_resolutions: Annotated[str, Listed(Within(least=1))] = AUTO
    iterations: Count = AUTO
    batch_size: Count = 8
    learning_rate: Rate = 4e-4
    precision: Precision = "bfloat16"
    start_from: str = ""
    n_samples: Count = AUTO
    sampling_steps: SamplingSteps = AUTO
    start_from_weights: str = AUTO

    def _resolve(self) -> PretrainConfig:
        real = not self.entry.synthetic
        large = {"channel_mult": "1,2,3,4", "num_res_blocks": 2, "attention_resolutions": "8", "crop": 64}
        small = {"channel_mult": "1,2,3", "num_res_blocks": 1, "attention_resolutions": "4", "crop": 48}
        length = {"iterations": 2400, "n_samples": 8, "sampling_steps": 50}
        short = {"iterations": 40, "n_samples": 4, "sampling_steps": 25}
        return self._fill(
            {
                **(large if real else small),
                **(length if self.mode == "full" else short),
                "image_size": 128,
                "scales": "0.5,0.75,1",
                "symmetries": "0,4",
                **self.entry.pretraining,
            }
        )._with_weights()

    def _find(self, source: str, name: str) -> Path | None:
        from textdiff.models.store import find_backbone

        return find_backbone(name)

    def _check(self) -> None:
        import torch

        with torch.device("meta"):  # shapes only, and no more blocks than tell them
            divisor = _network(replace(self, num_res_blocks=1)).divisor
        if self.crop % divisor:
            near = max(divisor, round(self.crop / divisor) * divisor)
            raise ValueError(f"crop={self.crop}: this network takes multiples of {divisor}; the nearest is {near}")
        smallest = round(self.image_size * min(numbers(self.scales, float)))
        if smallest < self.crop:
            raise ValueError(
                f"crop={self.crop}: images of image_size={self.image_size} times {min(numbers(self.scales, float))} are only "
                f"{smallest} pixels; take a smaller crop, or larger scales"
            )


def _network(config: PretrainConfig) -> UNet:
    from textdiff.models.unet import UNet

    return UNet(
        image_size=config.crop,
        in_channels=3,
        model_channels=config.model_channels,
        out_channels=3,
        num_res_blocks=config.num_res_blocks,
        attention_resolutions=numbers(config.attention_resolutions),
        channel_mult=numbers(config.channel_mult),
        num_head_channels=32,
        use_scale_shift_norm=True,
        resblock_updown=True,
    )


def new_backbone(config: PretrainConfig) -> UNet:
    """The UNet that a pre-training begins with (three channels in, three out: the noise).

    Raises:
        ValueError: ``start_from`` has another architecture.
    """
    import torch

    from textdiff.base.checkpoints import load_strict
    from textdiff.models.store import load_backbone

    torch.manual_seed(config.seed)
    unet = _network(config)
    if config.start_from:
        load_strict(unet, load_backbone(config.start_from).state_dict(), source=config.start_from)
    return unet


def unlabelled_images(config: PretrainConfig) -> list[Case]:
    """Training images of the configuration's data set without their masks."""
    if not config.entry.synthetic:
        return load_dataset(config.dataset).unlabelled
    sizes = (PHANTOMS[config.mode], 1, 1)
    return load_dataset(config.dataset, sizes=sizes, image_size=config.image_size).unlabelled


def crops(config: PretrainConfig) -> CropPool:
    """The crops of unlabelled images that a pre-training learns from."""
    from textdiff.training.pretraining import CropPool

    return CropPool(
        unlabelled_images(config),
        config.image_size,
        config.crop,
        numbers(config.scales, float),
        numbers(config.symmetries),
        seed=config.seed,
    )


def pretrained(config: PretrainConfig, checkpoint: Path | None = None) -> tuple[UNet, list]:
    """The averaged network of a configuration, trained on crops of its images, and the loss curve.

    An interrupted training continues from ``checkpoint``.
    """
    from textdiff.training.pretraining import pretrain

    how = optimisation(config, warmup=100, ema_decay=0.999, validate_every=10, checkpoint_every=200)
    device = resolve_device(config.device)
    return pretrain(
        new_backbone(config), crops(config), how, device=device, checkpoint=checkpoint, precision=config.precision
    )


def kept_backbone(config: PretrainConfig) -> tuple[UNet, pd.DataFrame]:
    """The pre-trained network of a configuration and its loss curve (``step``, ``loss``, ``seconds``).

    Read where this machine has it (:func:`~textdiff.experiments.places.kept_model`), else trained and kept there: a folder that
    other notebooks take as ``backbone``.
    """
    import pandas as pd

    from textdiff.models.unet import UNet

    folder = kept_model(config.run_id)
    with locked(config):
        if not processes().told(lambda: (folder / "history.json").is_file()):
            checkpoint = scratch_dir() / config.run_id / "checkpoint.safetensors"
            unet, history = pretrained(config, checkpoint)
            if processes().main:
                remove_unfinished(folder)
                unet.save_pretrained(folder)
                write_text(folder / "history.json", json.dumps(history))
            processes().wait()
        drop_checkpoints(config)
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return UNet.from_pretrained(folder).to(resolve_device(config.device)), pd.DataFrame(history)


def samples(config: PretrainConfig, unet: UNet) -> Tensor:
    """``n_samples`` pictures that a network draws from noise: float32 ``[N, 3, crop, crop]`` on the processor."""
    from textdiff.models.diffusion import Diffusion

    shape = (config.n_samples, 3, config.crop, config.crop)
    device = resolve_device(config.device)
    diffusion = Diffusion("linear", respacing=config.sampling_steps)
    return diffusion.sample(unet.to(device), shape, "ddpm", seed=config.seed, device=device, progress=False).cpu()

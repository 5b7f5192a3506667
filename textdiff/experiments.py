"""From a configuration to a result: what the run notebooks call, one function a step of the story.

Data, model, training, evaluation; each takes the configuration and what the step before gave.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from textdiff import paths
from textdiff.checkpoints import load_strict, read_checkpoint, read_json
from textdiff.config import BACKBONES, RANDOM, PretrainConfig, TextDiffConfig, numbers
from textdiff.data import SYNTHETIC, load_dataset
from textdiff.data.cases import Case, Dataset
from textdiff.unet import UNet

if TYPE_CHECKING:
    import pandas as pd

    from textdiff.features import DiffusionFeatures, FeatureCache
    from textdiff.text import TextEncoder

# The architecture of OpenAI's unconditional ImageNet 256 checkpoint, which the paper freezes.
OPENAI_256 = dict(
    image_size=256,
    in_channels=3,
    model_channels=256,
    out_channels=6,
    num_res_blocks=2,
    attention_resolutions=(8, 16, 32),
    channel_mult=(1, 1, 2, 2, 4, 4),
    num_heads=4,
    num_head_channels=64,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
OPENAI_256_FILE = "256x256_diffusion_uncond.pt"
COMPACT_HEAD = {
    "dim": 64,
    "hidden": (32, 16),
    "num_heads": 4,
    "head_dim": 16,
    "merge": "sum",
    "attend": 2,
    "normalise": True,
    "init": "default",
}
FUSION = {"textdiff": "attention", "textdiff_concat": "pooled", "textdiff_no_text": "none"}
DEMO_IMAGES = {"n_train": 60, "image_size": 96}


def resolve_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch sees no CUDA device here; use device='cpu' or 'auto'")
    return torch.device(name)


def load_data(config: TextDiffConfig, n_train: int = DEMO_IMAGES["n_train"]) -> Dataset:
    """The data set of a configuration; phantoms are made at the size the backbone works at."""
    if config.dataset not in SYNTHETIC:
        return load_dataset(config.dataset)
    sizes = (n_train, getattr(config, "max_val", 10), min(getattr(config, "max_test", 20), 200))
    return load_dataset(config.dataset, sizes=sizes, image_size=DEMO_IMAGES["image_size"])


def load_backbone(name: str, seed: int = 0) -> UNet:
    """A backbone by name (:data:`textdiff.config.BACKBONES`) or folder; "random:" before it leaves the weights random.

    Random means as guided-diffusion initialises: the last layer of every residual and attention branch is zero.

    Raises:
        FileNotFoundError: no such weights, saying where they were looked for and how to get them.
    """
    if name.startswith(RANDOM):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return UNet(**_architecture(name.removeprefix(RANDOM))).eval()
    if name == "openai_256":
        return _openai_256()
    return UNet.from_pretrained(_backbone_folder(name))


def _architecture(name: str) -> dict:
    if name == "openai_256":
        return OPENAI_256
    return read_json(_backbone_folder(name) / "config.json")


def _openai_256() -> UNet:
    path = paths.weights_dir() / OPENAI_256_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"OpenAI's 256x256 unconditional checkpoint (2.2 GB) is not at {path}; bring it with "
            "`textdiff fetch openai_256`, set TEXTDIFF_WEIGHTS to its folder, or choose a small backbone: "
            f"{', '.join(b for b in BACKBONES if b != 'openai_256')}"
        )
    unet = UNet(**OPENAI_256)
    load_strict(unet, read_checkpoint(path), source=str(path))
    return unet.eval()


def _backbone_folder(name: str) -> Path:
    places = [Path(name)] if name not in BACKBONES else [paths.assets_dir() / name, paths.weights_dir() / name]
    for folder in places:
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no backbone {name!r}: looked in {' and '.join(map(str, places))}. Known names: {', '.join(BACKBONES)}; "
        "or give a folder with config.json and model.safetensors, or set TEXTDIFF_WEIGHTS"
    )


def build_features(config: TextDiffConfig) -> DiffusionFeatures:
    """Frozen features with the disk cache of this machine."""
    from textdiff.features import DiffusionFeatures, FeatureCache

    return DiffusionFeatures(
        load_backbone(config.backbone, config.seed),
        blocks=numbers(config.blocks),
        steps=numbers(config.steps),
        noise_seed=config.noise_seed,
        precision=config.precision,
        cache=FeatureCache(paths.cache_dir() / "features"),
    )


def build_text(config: TextDiffConfig) -> TextEncoder:
    """The frozen text encoder; ten padded tokens in the official protocol, whole captions otherwise."""
    from textdiff.text import TextEncoder

    return TextEncoder.from_pretrained(
        config.text_encoder,
        max_length=config.caption_tokens,
        padding="longest" if config.text_mask == "on" else "max_length",
    )


def build_model(config: TextDiffConfig, class_names: Sequence[str]) -> nn.Module:
    """The model of a configuration, freshly initialised from its seed, on its device."""
    from textdiff.baselines import BASELINES, build_baseline
    from textdiff.textdiff2d import TextDiff

    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    if config.model in BASELINES:
        return build_baseline(config.model, len(class_names), precision=config.precision).to(device)
    features = build_features(config)
    text = None if config.model == "textdiff_no_text" else build_text(config)
    torch.manual_seed(config.seed)
    return TextDiff(
        features,
        text,
        num_classes=len(class_names),
        image_size=config.image_size,
        channel_order=config.channel_order,
        resize=config.resize,
        text_mask=config.text_mask == "on",
        class_names=class_names,
        fusion=FUSION[config.model],
        positions=config.positions == "on",
        **(COMPACT_HEAD if config.head == "compact" else {}),
    ).to(device)


def train_model(
    model: nn.Module, config: TextDiffConfig, train: Sequence[Case], val: Sequence[Case], class_names: Sequence[str]
) -> list[dict[str, float]]:
    """Trains ``model`` on ``train``; the best weights by mean Dice on ``val`` stay. An interrupted run continues.

    Returns one row a validation: step, loss, score (validation Dice), seconds.
    """
    from textdiff.losses import dice_ce_loss
    from textdiff.training import TrainingImages, fit

    images = TrainingImages(
        train,
        config.image_size,
        config.channel_order,
        config.resize,
        config.mask_rule,
        len(class_names),
        config.augmentation,
        config.seed,
    )
    val = list(val)[: config.max_val]

    # Views that never come twice would only fill the cache; validation images come again and again
    features = getattr(model, "features", None)
    cache = features.cache if features is not None else None
    training_cache = cache if images.views else None

    def validate(trained: nn.Module) -> float:
        with _caching(features, cache):
            return float(_evaluate(trained, config, val, progress=False)["dice"].mean())

    # Scratch, not a record: removed once the training is whole
    scratch = paths.cache_dir() / "training" / config.run_id
    with _caching(features, training_cache):
        history = fit(
            model,
            images,
            partial(dice_ce_loss, dice_weight=config.dice_weight, dice_on=config.dice_on),
            iterations=config.iterations,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            schedule=config.schedule,
            validate=validate if val else None,
            validate_every=config.validate_every,
            device=resolve_device(config.device),
            checkpoint=scratch / "checkpoint.safetensors",
        )
    shutil.rmtree(scratch, ignore_errors=True)
    return history


def _caching(features: DiffusionFeatures | None, cache: FeatureCache | None) -> AbstractContextManager[None]:
    """Within this context ``features`` uses ``cache``; nothing happens where there are no features."""
    return nullcontext() if features is None else features.caching(cache)


def test_model(
    model: nn.Module, config: TextDiffConfig, cases: Sequence[Case], captions: Sequence[str] | None = None
) -> pd.DataFrame:
    """The per-case table of ``model`` on (at most ``max_test``) cases; ``captions`` replaces their sentences."""
    return _evaluate(model, config, list(cases)[: config.max_test], captions)


test_model.__test__ = False  # the name says what it does; it is no test


def _evaluate(
    model: nn.Module,
    config: TextDiffConfig,
    cases: Sequence[Case],
    captions: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    from textdiff.evaluation import evaluate

    return evaluate(
        model,
        cases,
        image_size=config.image_size,
        eval_size=config.image_size if config.dataset in SYNTHETIC else 256,
        mask_rule=config.mask_rule,
        channel_order=config.channel_order,
        resize=config.resize,
        batch_size=8,
        device=resolve_device(config.device),
        captions=captions,
        progress=progress,
    )


def new_backbone(config: PretrainConfig) -> UNet:
    """The untrained UNet of a pre-training configuration (three channels in, three out: the noise)."""
    torch.manual_seed(config.seed)
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


def unlabelled_images(config: PretrainConfig) -> list[Case]:
    """Training images of the configuration's data set without their masks; 200 phantoms in full mode, 40 in demo."""
    if config.dataset not in SYNTHETIC:
        return load_dataset(config.dataset).unlabelled
    count = 200 if config.mode == "full" else 40
    return load_dataset(config.dataset, sizes=(count, 1, 1), image_size=config.image_size).unlabelled

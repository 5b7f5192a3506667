"""From a configuration to a result: what the run notebooks call, one function a step of the story.

Data, model, training, evaluation; each takes the configuration and what the step before gave.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import nn
from tqdm.auto import tqdm

from textdiff.base import paths
from textdiff.base.checkpoints import load_strict, read_checkpoint, read_json, write_checkpoint
from textdiff.base.precision import resolve_device
from textdiff.data import SYNTHETIC, load_dataset
from textdiff.data.cases import Case, Dataset
from textdiff.data.images.captions import same_count, shuffled, swap_left_right
from textdiff.data.splits import draw_labelled
from textdiff.experiments.config import (
    BACKBONES,
    RANDOM,
    REDRAWN,
    SCRATCH,
    Config,
    PretrainConfig,
    TextDiffConfig,
    TextDiffSegConfig,
    architecture_of,
    numbers,
)
from textdiff.models.unet import UNet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from textdiff.experiments.grids import Grid
    from textdiff.experiments.records import Run
    from textdiff.base.cache import FeatureCache
    from textdiff.models.features import DiffusionFeatures
    from textdiff.models.text import TextEncoder

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
DECODER_HEAD = COMPACT_HEAD | {"merge": "decoder"}
HEADS = {"official": {}, "compact": COMPACT_HEAD, "decoder": DECODER_HEAD}
FUSION = {"textdiff": "attention", "textdiff_concat": "pooled", "textdiff_no_text": "none"}
DEMO_IMAGES = {"n_train": 60, "image_size": 96}


def load_data(config: TextDiffConfig, n_train: int = DEMO_IMAGES["n_train"]) -> Dataset:
    """The data set of a configuration; phantoms are made at the size the backbone works at."""
    if config.dataset not in SYNTHETIC:
        return load_dataset(config.dataset)
    sizes = (n_train, getattr(config, "max_val", 10), min(getattr(config, "max_test", 20), 200))
    return load_dataset(config.dataset, sizes=sizes, image_size=DEMO_IMAGES["image_size"])


def load_backbone(name: str, seed: int = 0) -> UNet:
    """A backbone by name (:data:`textdiff.experiments.config.BACKBONES`) or folder.

    "random:" before it leaves the weights as guided-diffusion initialises them: the last layer of every residual and
    attention branch is zero, so that the network does little more than convolve and resample its input. "redrawn:" draws
    these layers too, as PyTorch initialises any other.

    Raises:
        FileNotFoundError: no such weights, saying where they were looked for and how to get them.
    """
    if name.startswith((RANDOM, REDRAWN)):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet = UNet(**_architecture(architecture_of(name)))
            if name.startswith(REDRAWN):
                unet.apply(_redraw_if_zero)
            return unet.eval()
    if name == "openai_256":
        return _openai_256()
    return UNet.from_pretrained(_backbone_folder(name))


def _redraw_if_zero(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and not module.weight.any():
        module.reset_parameters()


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
    from textdiff.base.cache import FeatureCache
    from textdiff.models.features import DiffusionFeatures

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
    from textdiff.models.text import TextEncoder

    return TextEncoder.from_pretrained(
        config.text_encoder,
        max_length=config.caption_tokens,
        padding="longest" if config.text_mask == "on" else "max_length",
    )


def build_model(config: TextDiffConfig, class_names: Sequence[str]) -> nn.Module:
    """The model of a configuration, freshly initialised from its seed, on its device."""
    from textdiff.models.baselines import build_baseline
    from textdiff.models.textdiff import TextDiff

    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    if config.model in SCRATCH:
        text = build_text(config) if config.reads else None
        torch.manual_seed(config.seed)
        return build_baseline(config.model, len(class_names), precision=config.precision, text=text).to(device)
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
        **HEADS[config.head],
    ).to(device)


def train_model(
    model: nn.Module, config: TextDiffConfig, train: Sequence[Case], val: Sequence[Case], class_names: Sequence[str]
) -> list[dict[str, float]]:
    """Trains ``model`` on ``train``; the best weights by mean Dice on ``val`` stay (see :func:`choosing_cases`).

    An interrupted run continues.

    Returns one row a validation: step, loss, score (validation Dice), seconds.
    """
    from textdiff.models.losses import dice_ce_loss
    from textdiff.training.fit import TrainingImages, fit

    images = TrainingImages(
        train,
        config.image_size,
        config.channel_order,
        config.resize,
        config.mask_rule,
        len(class_names),
        config.augmentation,
        config.seed,
        config.views,
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
            partial(dice_ce_loss, dice_weight=config.dice_weight, dice_on=config.dice_on, dice_over=config.dice_over),
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
    from textdiff.evaluation.images import evaluate

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


def choosing_cases(config: TextDiffConfig, data: Dataset) -> list[Case]:
    """The images whose Dice chooses the best step: validation images, or (audit only) the test images themselves."""
    return data.val[: config.max_val] if config.select_on == "val" else data.test[: config.max_test]


def measure(
    model: nn.Module, config: TextDiffConfig, data: Dataset, history: Sequence[Mapping[str, float]]
) -> tuple[dict[str, float], pd.DataFrame]:
    """A trained model's metrics (test and validation) and its per-case table on the test images.

    Validation scores are there for comparison with reports that give them; the best step was chosen by them.
    """
    from textdiff.evaluation.metrics import summarise

    per_case = test_model(model, config, data.test)
    validated = test_model(model, config, data.val[: config.max_val])
    best = max(history, key=lambda row: row["score"])
    return {
        **{f"test/{name}": value for name, value in summarise(per_case).items()},
        **{f"val/{name}": value for name, value in summarise(validated).items()},
        "model/trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train/best_step": best["step"],
        "train/seconds": history[-1]["seconds"],
    }, per_case


def other_sentences(cases: Sequence[Case], seed: int) -> dict[str, list[str]]:
    """What the reading test puts in the place of the cases' sentences, by name.

    "shuffled": another image's; "same_count": another image's that names as many areas (or is of the same kind); "empty";
    "swapped": the image's own with left and right swapped.
    """
    own = [case.caption for case in cases]
    return {
        "shuffled": shuffled(own, seed),
        "same_count": same_count(own, seed),
        "empty": [""] * len(own),
        "swapped": [swap_left_right(caption) for caption in own],
    }


def read_others(
    model: nn.Module, config: TextDiffConfig, cases: Sequence[Case], per_case: pd.DataFrame
) -> dict[str, float]:
    """The reading test: mean Dice under :func:`other_sentences`; one column each is added to ``per_case``."""
    metrics = {}
    model.text.allow_empty = True
    for name, captions in other_sentences(cases, config.seed).items():
        per_case[f"dice_{name}"] = test_model(model, config, cases, captions)["dice"]
        metrics[f"test/dice_{name}"] = float(per_case[f"dice_{name}"].mean())
    return metrics


def model_folder(config: TextDiffConfig) -> Path:
    """Where the trained weights of a run are kept on this machine."""
    return paths.cache_dir() / "models" / config.run_id


def keep_model(model: nn.Module, config: TextDiffConfig) -> Path:
    """Writes trained weights to :func:`model_folder`: a whole TextDiff, or a scratch network's ``model.safetensors``."""
    from textdiff.models.textdiff import TextDiff

    folder = model_folder(config)
    if isinstance(model, TextDiff):
        model.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder / "model.safetensors", model.state_dict())
    return folder


def load_trained(config: TextDiffConfig, class_names: Sequence[str]) -> nn.Module:
    """The model that :func:`keep_model` wrote for this configuration, in eval mode.

    Raises:
        FileNotFoundError: the run was not made on this machine, or its cache is gone.
    """
    from textdiff.models.textdiff import TextDiff

    folder = model_folder(config)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no trained weights of {config.run_id}: they stay on the machine that made them (TEXTDIFF_CACHE); run it again"
        )
    if config.model not in SCRATCH:
        return TextDiff.from_pretrained(folder, resolve_device(config.device))
    model = build_model(config, class_names)
    load_strict(model, read_checkpoint(folder / "model.safetensors"), source=str(folder))
    return model.eval()


def training_figure(config: TextDiffConfig | TextDiffSegConfig, history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and validation Dice against steps, or against passes through the labelled images where their number is set."""
    import pandas as pd

    from textdiff.figures import images as plots

    best = max(history, key=lambda row: row["score"])
    table = pd.DataFrame(history).rename(columns={"score": "validation dice"})
    along = "step"
    if isinstance(config, TextDiffConfig):
        along = "epoch"
        table[along] = table["step"] * config.batch_size / config.n_labels
    curve = plots.loss_curve(table[[along, "loss", "validation dice"]], along)
    alt = f"Training loss and validation Dice over {config.iterations} steps; best Dice {best['score']:.3f} after step {best['step']}."
    return plots.described(curve, alt, "Training loss and validation Dice.")


def run_textdiff(config: TextDiffConfig, out_dir: str | Path = "") -> Run:
    """One run of notebook 13 without its pictures: train, test, reading test, record. A recorded run is not made again."""
    return recorded(config, out_dir, _make)


def recorded(config: Config, out_dir: str | Path, make: Callable[[Run, Any], None]) -> Run:
    """The run of a configuration; where it has no record yet, ``make(run, config)`` makes it.

    Where another process makes the same run at the same time, this one waits for it.
    """
    from textdiff.experiments.records import Run

    scratch = paths.cache_dir() / "training"
    scratch.mkdir(parents=True, exist_ok=True)
    with FileLock(scratch / f"{config.run_id}.lock"):
        run = Run.open(config, out_dir or config.out_dir, notebook=config.notebook)
        if not run.finished:
            make(run, config)
    return run


def _make(run: Run, config: TextDiffConfig) -> None:
    data = load_data(config, n_train=max(DEMO_IMAGES["n_train"], config.n_labels))
    labelled = draw_labelled(data.train, config.n_labels, config.seed)
    model = build_model(config, data.class_names)
    history = train_model(model, config, labelled, choosing_cases(config, data), data.class_names)
    keep_model(model, config)
    metrics, per_case = measure(model, config, data, history)
    if config.reads:
        metrics |= read_others(model, config, data.test[: config.max_test], per_case)
    run.save(metrics, per_case, {"training": training_figure(config, history)})


def run_grid(grid: Grid, out_dir: str | Path = "") -> list[Run]:
    """Every run of a grid, of images or volumes, that has no record yet, one after the other in this process."""
    from textdiff.experiments.volumes import run_textdiffseg

    make = {TextDiffConfig: run_textdiff, TextDiffSegConfig: run_textdiffseg}[grid.kind]
    bar = tqdm(grid.all(), desc=grid.name, unit="run")
    return [make(config, out_dir) for config in bar]


def table_of(name: str, config: Config, n_seeds: int = 0, labels: Sequence[str] = ()) -> tuple[Grid, pd.DataFrame]:
    """The grid of a table notebook, on its device, and the records to draw it from.

    In demo mode the runs that have no record are made first; in full mode nothing is trained.

    Args:
        name: of :data:`textdiff.experiments.grids.GRIDS` or :data:`textdiff.experiments.grids.GRIDS_3D`.
        n_seeds: draws of the labelled images, counted from the configuration's seed; 0 for the grid's own number.
        labels: the rows that are wanted; all if empty.
    """
    from textdiff.experiments.grids import SEEDS, grid
    from textdiff.experiments.records import load_records, published_dir

    seeds = range(config.seed, config.seed + (n_seeds or len(SEEDS[config.mode])))
    table = grid(name, config.dataset, config.mode, seeds)
    rows = tuple(row for row in table.rows if not labels or row.label in labels)
    table = replace(table, rows=rows, common=table.common | {"device": config.device})
    if config.mode == "demo":
        run_grid(table, config.out_dir)
    return table, load_records([config.out_dir, published_dir()] if config.out_dir else None)


def new_backbone(config: PretrainConfig) -> UNet:
    """The UNet that a pre-training configuration begins with (three channels in, three out: the noise).

    Raises:
        ValueError: ``start_from`` has another architecture.
    """
    torch.manual_seed(config.seed)
    unet = UNet(
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
    if config.start_from:
        load_strict(unet, load_backbone(config.start_from).state_dict(), source=config.start_from)
    return unet


def unlabelled_images(config: PretrainConfig) -> list[Case]:
    """Training images of the configuration's data set without their masks; 200 phantoms in full mode, 40 in demo."""
    if config.dataset not in SYNTHETIC:
        return load_dataset(config.dataset).unlabelled
    count = 200 if config.mode == "full" else 40
    return load_dataset(config.dataset, sizes=(count, 1, 1), image_size=config.image_size).unlabelled

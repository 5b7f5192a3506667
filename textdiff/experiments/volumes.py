"""From a configuration to a result in 3D: what the run notebook calls, one function a step of the story.

Volumes, model, training, evaluation; each takes the configuration and what the step before gave. The 2D counterpart is
:mod:`textdiff.experiments.images`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from textdiff.base import paths
from textdiff.base.checkpoints import load_strict, read_checkpoint, write_checkpoint
from textdiff.base.parsing import numbers
from textdiff.base.precision import resolve_device
from textdiff.data.splits import draw_labelled
from textdiff.data.volumes.layouts import VolumeCase, VolumeDataset, load_volumes
from textdiff.data.volumes.patches import IMAGE_CHANNELS, Preprocessing, TrainingVolumes, VolumeBatch
from textdiff.data.volumes.prompts import KINDS, prompt
from textdiff.experiments.config import SCRATCH_3D, Config, TextDiffSegConfig
from textdiff.experiments.grids import COMMON_3D
from textdiff.experiments.images import model_folder, recorded, training_figure
from textdiff.models.losses import dice_ce_loss

if TYPE_CHECKING:
    import pandas as pd

    from textdiff.data.volumes.volume import Volume
    from textdiff.experiments.records import Run
    from textdiff.models.textdiffseg import TextDiffSeg

# Channels of the two sizes: two processor cores or a 16 GB GPU, and a GPU of 40 GB or more (never run by us)
SIZES = {
    "small": {"widths": (16, 32, 64), "denoiser_widths": (64, 96)},
    "large": {"widths": (32, 64, 128), "denoiser_widths": (128, 256)},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "textdiffseg": {},
    "textdiffseg_no_text": {},
    "textdiffseg_no_image_features": {"image_features": False},
    "textdiffseg_no_label_encoder": {"label_encoder": False},
    "textdiffseg_no_joint_loss": {"denoise_weight": 0.0},
}
VALIDATION_STEPS = 2
PHANTOM_SIZES = (24, 4, 8)


class Network(nn.Module):
    """One of MONAI's networks in TextDiffSeg's place: trained by the same loop, run over volumes by the same windows.

    It does not read: prompts are taken and ignored, and every structure is always looked for.
    """

    def __init__(self, net: nn.Module, class_names: Sequence[str], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net, self.class_names, self.preprocessing = net, tuple(class_names), preprocessing

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def loss(self, batch: VolumeBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Cross-entropy plus Dice, as TextDiffSeg's L_seg."""
        return {"loss": dice_ce_loss(self.net(batch.images), batch.labels, dice_over="image")}

    @torch.no_grad()
    def segment(self, images: Tensor, prompts: Sequence[str], **_sampling: Any) -> Tensor:
        """Probabilities ``[B, num_classes, X, Y, Z]``; there is nothing to sample."""
        return self.net(images).softmax(dim=1)


def load_data(config: TextDiffSegConfig) -> VolumeDataset:
    """The data set of a configuration, with the structures that it asks for."""
    names = tuple(name.strip() for name in config.structures.split(",") if name.strip())
    return load_volumes(config.dataset, structures=names or None, **phantom_sizes(config))


def phantom_sizes(config: TextDiffSegConfig) -> dict[str, tuple[int, int, int]]:
    """Of a data set that is drawn: ``sizes`` of its training, validation and test part, so that all that is asked for is there."""
    if not config.dataset.endswith("phantoms"):
        return {}
    train, val, test = PHANTOM_SIZES
    return {"sizes": (max(train, config.n_labels), min(config.max_val, 100) or val, min(config.max_test, 100) or test)}


def labelled_cases(config: TextDiffSegConfig, data: VolumeDataset) -> list[VolumeCase]:
    """The labelled training cases: a draw of ``n_labels`` by the seed, or all."""
    return draw_labelled(data.train, config.n_labels, config.seed) if config.n_labels else list(data.train)


def preprocessing_of(config: TextDiffSegConfig, data: VolumeDataset) -> Preprocessing:
    """The task's grid and window of intensities; segmented in windows of a training patch's size."""
    return Preprocessing(data.task.spacing, data.task.window, patch_of(config, data))


def patch_of(config: TextDiffSegConfig, data: VolumeDataset) -> tuple[int, ...]:
    """Voxels of a training patch."""
    return numbers(config.patch) or tuple(data.task.patch)


def build_model(config: TextDiffSegConfig, data: VolumeDataset) -> nn.Module:
    """The model of a configuration, freshly initialised from its seed, on its device."""
    from textdiff.models.baselines import build_baseline_3d
    from textdiff.models.text import TextEncoder
    from textdiff.models.textdiffseg import TextDiffSeg

    preprocessing = preprocessing_of(config, data)
    device = resolve_device(config.device)
    if config.model in SCRATCH_3D:
        torch.manual_seed(config.seed)
        patch = preprocessing.patch
        net = build_baseline_3d(config.model, len(data.class_names), IMAGE_CHANNELS, patch, config.precision)
        return _started(Network(net, data.class_names, preprocessing), config).to(device)
    text = TextEncoder.from_pretrained(config.text_encoder, max_length=64) if config.reads else None
    torch.manual_seed(config.seed)
    settings = {
        "latent_channels": config.latent_channels,
        "prediction": config.prediction,
        "schedule": config.noise_schedule,
        "denoise_weight": config.denoise_weight,
        "autoencode": config.autoencode,
        "from_noise": config.from_noise,
        "precision": config.precision,
    }
    model = TextDiffSeg(
        text, data.class_names, preprocessing, **settings | SIZES[config.size] | ABLATIONS[config.model]
    )
    return _started(model, config).to(device)


def _started(model: nn.Module, config: TextDiffSegConfig) -> nn.Module:
    """The model with the weights that it is to go on from, if any."""
    from textdiff.base.checkpoints import find_model

    if not config.start_from:
        return model
    folder = paths.cache_dir() / "models" / config.start_from
    if not (folder / "model.safetensors").is_file():
        folder = find_model(config.start_from, "TextDiffSeg")
    state = read_checkpoint(folder / "model.safetensors")
    if isinstance(model, Network):
        load_strict(model, state, str(folder))
    else:
        model.load_own(state, str(folder))
    return model


def training_volumes(config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]) -> TrainingVolumes:
    """Patches of the labelled cases; networks that do not read are always asked for every structure."""
    return TrainingVolumes(
        cases,
        data.class_names,
        preprocessing_of(config, data),
        patch=patch_of(config, data),
        prompts=config.prompts if config.reads else "",
        single=config.named_alone,
        augment=config.augmentation == "affine",
        mirror=config.augmentation == "affine" and not data.task.sided and config.prompts == "class",
        seed=config.seed,
        cache=None if data.synthetic else paths.cache_dir() / "volumes",
    )


def train_model(
    model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]
) -> list[dict[str, float]]:
    """Trains ``model`` on ``cases``; the averaged weights that are best on the validation cases stay.

    An interrupted run continues. Returns one row a validation (:func:`textdiff.training.fit3d.fit_volumes`).
    """
    from textdiff.training.fit3d import fit_volumes

    val = data.val[: config.max_val]
    validate = partial(_mean_dice, config=config, data=data, cases=val) if val else None
    scratch = paths.cache_dir() / "training" / config.run_id
    history = fit_volumes(
        model,
        training_volumes(config, data, cases),
        iterations=config.iterations,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        ema_decay=config.ema_decay,
        validate=validate,
        validate_every=config.validate_every,
        seed=config.seed,
        device=resolve_device(config.device),
        checkpoint=scratch / "checkpoint.safetensors",
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return history


def _mean_dice(model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]) -> float:
    table = test_model(model, config, data, cases, steps=VALIDATION_STEPS, surfaces=False, progress=False)
    return float(table["dice"].mean())


def segmenter(model: nn.Module, config: TextDiffSegConfig, steps: int = 0) -> Callable[[Volume, str], Volume]:
    """``(volume, sentence) -> labels`` on the volume's grid, sampled as the configuration says, or in ``steps``."""
    from textdiff.models.inference import predict_volume

    sampling = {
        "steps": steps or config.steps,
        "sampler": config.sampler,
        "samples": config.samples if config.model not in SCRATCH_3D else 1,
        "seed": config.seed,
    }
    return lambda volume, text: predict_volume(model, volume, text, progress=False, **sampling).labels


def test_model(
    model: nn.Module,
    config: TextDiffSegConfig,
    data: VolumeDataset,
    cases: Sequence[VolumeCase],
    prompts: Sequence[str] | None = None,
    steps: int = 0,
    surfaces: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """The per-case table of ``model``: every structure at once, or what ``prompts`` (one a case) ask for."""
    from textdiff.evaluation.volumes import evaluate_volumes

    prompts = prompts or prompts_for(cases, data.class_names, "class" if config.prompts == "mixed" else config.prompts)
    return evaluate_volumes(
        segmenter(model, config, steps),
        cases,
        prompts=prompts,
        class_names=data.class_names,
        surfaces=surfaces,
        progress=progress,
    )


test_model.__test__ = False  # the name says what it does; it is no test


def prompts_for(
    cases: Sequence[VolumeCase], class_names: Sequence[str], kind: str = "class", names: Sequence[str] = ()
) -> list[str]:
    """The sentence of every case that asks for ``names`` (all structures if empty); "report" is made from its label."""
    wanted = list(names or class_names[1:])
    if kind != "report":
        return [prompt(kind, wanted)] * len(cases)
    return [prompt(kind, wanted, case.pair()[1], class_names) for case in cases]


def measure(
    model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, history: Sequence[Mapping[str, float]]
) -> tuple[dict[str, float], pd.DataFrame]:
    """A trained model's metrics on the test and validation cases, and its per-case table of the test.

    Validation scores chose the best weights: the test scores count.
    """
    from textdiff.evaluation.volumes import summarise_volumes

    per_case = test_model(model, config, data, data.test[: config.max_test])
    validated = test_model(model, config, data, data.val[: config.max_val], surfaces=False)
    best = max(history, key=lambda row: row["score"])
    return {
        **{f"test/{name}": value for name, value in summarise_volumes(per_case).items()},
        **{f"val/{name}": value for name, value in summarise_volumes(validated).items()},
        "model/trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train/best_step": best["step"],
        "train/seconds": history[-1]["seconds"],
    }, per_case


def read_prompts(
    model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]
) -> tuple[dict[str, float], pd.DataFrame]:
    """The reading test: Dice of every structure under the prompt that names only it, and under those that name another.

    Metrics: ``test/dice_<b>_asked_for_<a>`` for every pair, ``test/dice_one_by_one`` (mean of a = b),
    ``test/dice_swapped`` (mean of a != b: what stays where it should not), and for models trained on all kinds of prompts
    ``test/dice_prompt_<kind>``. Of a structure, the cases that have it count. The table has one row a case.
    """
    import pandas as pd

    from textdiff.evaluation.volumes import column

    names, columns = data.class_names[1:], {}
    kind = "class" if config.prompts == "mixed" else config.prompts
    for asked in names:
        table = test_model(
            model, config, data, cases, prompts_for(cases, data.class_names, kind, [asked]), surfaces=False
        )
        for name in names:
            # A structure that the patient does not have, and that is not marked, says nothing about reading
            there = table[f"actual_{column(name)}"] > 0
            dice = table[f"dice_{column(name)}"].where(there)
            columns[f"dice_{column(name)}_asked_for_{column(asked)}"] = dice.to_numpy()
    others = KINDS if config.prompts == "mixed" else ()
    for one in others:
        table = test_model(model, config, data, cases, prompts_for(cases, data.class_names, one), surfaces=False)
        columns[f"dice_prompt_{one}"] = table["dice"].to_numpy()
    frame = pd.DataFrame(columns)
    metrics = {f"test/{name}": float(values.mean()) for name, values in frame.items()}
    alike = [f"dice_{column(name)}_asked_for_{column(name)}" for name in names]
    crossed = [name for name in frame.columns if "_asked_for_" in name and name not in alike]
    metrics["test/dice_one_by_one"] = float(frame[alike].mean(axis=1).mean())
    if crossed:
        metrics["test/dice_swapped"] = float(frame[crossed].mean(axis=1).mean())
    return metrics, frame


def keep_model(model: nn.Module, config: TextDiffSegConfig) -> Path:
    """Writes trained weights to :func:`textdiff.experiments.images.model_folder`."""
    from textdiff.models.textdiffseg import TextDiffSeg

    folder = model_folder(config)
    if isinstance(model, TextDiffSeg):
        model.save_pretrained(folder)
    else:
        write_checkpoint(folder / "model.safetensors", model.state_dict())
    return folder


def load_trained(config: TextDiffSegConfig, data: VolumeDataset) -> nn.Module:
    """The model that :func:`keep_model` wrote for this configuration, in eval mode.

    Raises:
        FileNotFoundError: the run was not made on this machine, or its cache is gone.
    """
    from textdiff.models.textdiffseg import TextDiffSeg

    folder = model_folder(config)
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no trained weights of {config.run_id}: they stay on the machine that made them (TEXTDIFF_CACHE); run it again"
        )
    if config.model not in SCRATCH_3D:
        return TextDiffSeg.from_pretrained(folder, resolve_device(config.device))
    model = build_model(config, data)
    load_strict(model, read_checkpoint(folder / "model.safetensors"), source=str(folder))
    return model.eval()


def run_textdiffseg(config: TextDiffSegConfig, out_dir: str | Path = "") -> Run:
    """One run of notebook 22 without its pictures: train, test, reading test, record. A recorded run is not made again."""
    return recorded(config, out_dir, _make)


def _make(run: Run, config: TextDiffSegConfig) -> None:
    data = load_data(config)
    model = build_model(config, data)
    history = train_model(model, config, data, labelled_cases(config, data))
    keep_model(model, config)
    metrics, per_case = measure(model, config, data, history)
    if config.reads:
        metrics |= (read := read_prompts(model, config, data, data.test[: config.max_test]))[0]
        per_case = per_case.join(read[1])
    run.save(metrics, per_case, {"training": training_figure(config, history)})


def saved_model(config: Config, folder: str) -> tuple[TextDiffSeg, TextDiffSegConfig, VolumeDataset]:
    """A trained TextDiffSeg for a notebook that asks something of one, the settings of its data set, and the data.

    Args:
        folder: where it was saved, or a name in ``weights/``. The data have the structures that the model knows.

    Raises:
        ValueError: no folder.
        FileNotFoundError: no such model.
    """
    from textdiff.models.textdiffseg import TextDiffSeg

    if not folder:
        raise ValueError(
            f"no model ships for {config.dataset!r}: train one (textdiff run 22 -p mode full -p dataset {config.dataset}) "
            "and give its folder as model_folder"
        )
    model = TextDiffSeg.from_pretrained(folder, resolve_device(config.device))
    settings = TextDiffSegConfig.from_params(
        mode=config.mode,
        dataset=config.dataset,
        seed=config.seed,
        device=config.device,
        **COMMON_3D.get(config.dataset, {}) | {"structures": ",".join(model.class_names[1:])},
    )
    return model, settings, load_data(settings)

"""TextDiffSeg on volumes: its configuration, and from a configuration data, model, training, scores and figures.

:mod:`textdiff.experiments.run` makes a run of these steps; :mod:`textdiff.experiments.images` is the 2D counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from textdiff.base import paths
from textdiff.base.parsing import numbers
from textdiff.base.precision import Precision, resolve_device
from textdiff.data.splits import check_unseen
from textdiff.data.volumes.prompts import KINDS, prompts_for
from textdiff.experiments.config import (
    AUTO,
    Config,
    Count,
    Limit,
    Listed,
    Name,
    Rate,
    SamplingSteps,
    Share,
    VolumeSet,
    Weight,
    Within,
    model_name,
    optimisation,
    test_cases,
    validation_cases,
)
from textdiff.experiments.config import (
    labelled_cases as labelled_cases,  # a step of a run, as those below
)
from textdiff.experiments.images import training_figure
from textdiff.experiments.places import kept_run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from textdiff.data.domain import Domain
    from textdiff.data.volumes.layouts import VolumeCase, VolumeDataset
    from textdiff.data.volumes.patches import Preprocessing, TrainingVolumes
    from textdiff.data.volumes.volume import Volume
    from textdiff.models.textdiffseg import TextDiffSeg

# The system, the paper's ablations (without text fusion, image features, label encoder, joint loss), and MONAI's networks
Model3D = Literal[
    "textdiffseg",
    "textdiffseg_no_text",
    "textdiffseg_no_image_features",
    "textdiffseg_no_label_encoder",
    "textdiffseg_no_joint_loss",
    "segresnet",
    "swin_unetr",
    "unetr",
    "dynunet",
    "mednext",
]
# Channels of the two sizes: two processor cores or a 16 GB GPU, and a GPU of 40 GB or more (never run by us)
SIZES: dict[str, dict[str, Any]] = {
    "small": {"widths": (16, 32, 64), "denoiser_widths": (64, 96)},
    "large": {"widths": (32, 64, 128), "denoiser_widths": (128, 256)},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "textdiffseg_no_image_features": {"image_features": False},
    "textdiffseg_no_label_encoder": {"label_encoder": False},
    "textdiffseg_no_joint_loss": {"denoise_weight": 0.0},
}
VALIDATION_STEPS = 2
PHANTOM_SPLITS = (24, 4, 12)  # training, validation and test volumes of a synthetic set


@dataclass(frozen=True)
class TextDiffSegConfig(Config):
    """Notebook 22: train and evaluate TextDiffSeg, one of its ablations or one of MONAI's networks on labelled volumes.

    ``structures``: comma-separated, of those the data set has; "auto" for all.
    ``n_labels``: labelled training volumes, drawn by the seed, or "all".
    ``prompts``: the kind of sentence to train and test with; "mixed" (the first three in turn) and "request" (names as people
    ask for them) are tested with class prompts.
    ``named_alone``: share of the training patches whose sentence names only a part of the structures.
    ``size``: "small" (two cores, or a GPU of 16 GB) or "large" (a GPU of 40 GB or more).
    ``patch``: voxels of a training patch, such as "96,96,96"; "auto" for the data set's own.
    ``prediction``: what the denoiser predicts; ``denoise_weight``: lambda of the joint loss; ``autoencode`` and
    ``from_noise``: see :class:`textdiff.models.textdiffseg.TextDiffSeg`.
    ``start_from``: weights to go on from: a folder, a shipped model or the id of a run made on this machine; "" for
    random weights.
    ``sampling_steps``, ``sampler``, ``samples``: of the test; validation takes two steps.
    """

    experiment: ClassVar[str] = "textdiffseg3d"
    notebook: ClassVar[str] = "22_textdiffseg"
    renamed: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps", "schedule": "noise_schedule"}
    derived: ClassVar[Mapping[str, str]] = {
        "text_encoder_weights": "text_encoder",
        "start_from_weights": "start_from",
    }
    of_runs: ClassVar[tuple[str, ...]] = ("start_from",)
    reads_data: ClassVar[bool] = True

    dataset: VolumeSet = "abdomen_phantoms"
    model: Model3D = "textdiffseg"
    n_labels: Limit = AUTO
    structures: str = AUTO
    text_encoder: Name = AUTO
    prompts: Literal["class", "anatomy", "report", "mixed", "request"] = "class"
    named_alone: Share = AUTO
    size: Literal["small", "large"] = "small"
    latent_channels: Annotated[int, Within(least=0, most=512)] = AUTO
    prediction: Literal["sample", "epsilon", "v_prediction"] = "sample"
    noise_schedule: Literal["linear", "cosine"] = "linear"
    denoise_weight: Weight = AUTO
    autoencode: Share = AUTO
    from_noise: Share = AUTO
    patch: Annotated[str, Listed(Within(least=8), count=3, multiple=8)] = AUTO
    augmentation: Literal["affine", "none"] = "affine"
    iterations: Count = AUTO
    batch_size: Count = AUTO
    accumulate: Count = 1
    learning_rate: Rate = AUTO
    weight_decay: Weight = 1e-5
    ema_decay: Annotated[float, Within(least=0, most=0.99999)] = 0.99
    start_from: str = ""
    validate_every: Count = AUTO
    max_val: Limit = AUTO
    max_test: Limit = AUTO
    sampling_steps: SamplingSteps = AUTO
    sampler: Literal["ddim", "ddpm"] = "ddim"
    samples: Count = 1
    precision: Precision = "bfloat16"
    text_encoder_weights: str = AUTO
    start_from_weights: str = AUTO

    @property
    def from_scratch(self) -> bool:
        """Whether the model is one of MONAI's networks, which neither read nor denoise."""
        return not self.model.startswith("textdiffseg")

    @property
    def reads(self) -> bool:
        """Whether the model takes the sentence in."""
        return not self.from_scratch and self.model != "textdiffseg_no_text"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Background, then the structures that are asked for."""
        return ("background", *(name.strip() for name in self.structures.split(",")))

    @property
    def test_prompts(self) -> str:
        """The kind of sentence that the test is made with."""
        return "class" if self.prompts in ("mixed", "request") else self.prompts

    def _slug(self) -> str:
        labels = "all" if self.n_labels == "all" else f"n{self.n_labels}"
        return f"{self.dataset}-{self.model}-{labels}-s{self.seed}"

    def _resolve(self) -> TextDiffSegConfig:
        entry, demo, large = self.entry, self.mode == "demo", self.size == "large"
        short = {"iterations": 120, "validate_every": 60, "max_val": 3, "max_test": 6, "n_labels": 12}
        small = {"iterations": 5000, "validate_every": 250, "max_val": 16, "max_test": "all", "n_labels": "all"}
        long = {"iterations": 25_000, "validate_every": 1000, "max_val": 30, "max_test": "all", "n_labels": "all"}
        own = {"latent_channels": 16, "named_alone": 0.4, "denoise_weight": 0.25, "autoencode": 0.15, "from_noise": 0.6}
        if self.from_scratch:  # what a network that neither reads nor denoises does not use
            unused: dict[str, Any] = {
                **dict.fromkeys(own, 0),
                "text_encoder": "none",
                "sampling_steps": 1,
                "samples": 1,
            }
            config = replace(self, **{name: type(own.get(name, value))(value) for name, value in unused.items()})
        else:
            config = self if self.reads else replace(self, text_encoder="none")
        return config._fill(
            {
                **own,
                "sampling_steps": 5,
                "structures": ",".join(entry.class_names[1:]),
                "text_encoder": "tiny" if demo or entry.synthetic else "emilyalsentzer/Bio_ClinicalBERT",
                "patch": ",".join(map(str, entry.patch)),
                **(short if demo else long if large else small),
                # Of as many patches, one a step taught more than two a step (trials on validation volumes)
                "batch_size": 2 if large else 1,
                "learning_rate": 5e-4 if large else 2e-3,
                **self._of_entry(),
            }
        )._with_weights()

    def _check(self) -> None:
        known = self.entry.class_names[1:]
        wrong = [name for name in self.class_names[1:] if name not in known]
        if wrong or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(
                f"structures={self.structures!r}: some of {', '.join(known)}, each once, with commas between them"
            )
        if not self.from_scratch and not self.latent_channels:
            raise ValueError("latent_channels=0: at least 1")


# --- data and model --------------------------------------------------------------------------------------


def load_data(config: TextDiffSegConfig) -> VolumeDataset:
    """The data set of a configuration, with the structures that it asks for; phantoms are drawn, as many as are asked for."""
    from textdiff.data import load_volumes

    if not config.entry.synthetic:
        return load_volumes(config.dataset, structures=config.class_names[1:])
    asked = (config.n_labels, config.max_val, config.max_test)
    sizes = [max(size, n) if isinstance(n, int) else size for size, n in zip(PHANTOM_SPLITS, asked, strict=True)]
    return load_volumes(config.dataset, structures=config.class_names[1:], sizes=tuple(sizes))


def preprocessing_of(config: TextDiffSegConfig, data: VolumeDataset) -> Preprocessing:
    """The data set's grid and window of intensities; segmented in windows of a training patch's size."""
    from textdiff.data.volumes.patches import Preprocessing

    return Preprocessing(data.task.spacing, data.task.window, numbers(config.patch))


def build_model(config: TextDiffSegConfig, data: VolumeDataset) -> nn.Module:
    """The model of a configuration, freshly initialised from its seed (or from ``start_from``), on its device."""
    import torch

    from textdiff.models.baselines import VolumeNetwork, build_baseline_3d
    from textdiff.models.text import TextEncoder
    from textdiff.models.textdiffseg import TextDiffSeg

    preprocessing, device = preprocessing_of(config, data), resolve_device(config.device)
    text = TextEncoder.from_pretrained(config.text_encoder, max_length=64) if config.reads else None
    torch.manual_seed(config.seed)
    if config.from_scratch:
        net = build_baseline_3d(
            config.model, len(data.class_names), patch=preprocessing.patch, precision=config.precision
        )
        model: nn.Module = VolumeNetwork(net, data.class_names, preprocessing)
    else:
        settings: dict[str, Any] = {
            "latent_channels": config.latent_channels,
            "prediction": config.prediction,
            "noise_schedule": config.noise_schedule,
            "denoise_weight": config.denoise_weight,
            "autoencode": config.autoencode,
            "from_noise": config.from_noise,
            "precision": config.precision,
        }
        settings |= SIZES[config.size] | ABLATIONS.get(config.model, {})
        model = TextDiffSeg(text, data.class_names, preprocessing, **settings)
    if config.start_from:
        _load_weights(model, _weights_folder(config.start_from))
    return model.to(device)


def _weights_folder(name: str) -> Path:
    """Where ``start_from`` lies: a run of this machine, a folder, or a known model."""
    from textdiff.models.store import find_model

    return kept_run(name) or find_model(name, "TextDiffSeg")


def _load_weights(model: Any, folder: Path) -> None:
    """Copies the weights in ``folder`` into the model, and what they were trained on where they say it."""
    from textdiff.base.checkpoints import load_strict, read_checkpoint, read_json
    from textdiff.evaluation.metrics import check_class_order
    from textdiff.models.textdiffseg import TextDiffSeg

    state = read_checkpoint(folder / "model.safetensors")
    about = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if isinstance(model, TextDiffSeg):
        if about:
            check_class_order(about.get("class_names", ()), model.class_names)
        model.load_own(state, str(folder))
    else:
        load_strict(model, state, str(folder))
    if "trained_on" in about:
        model.trained_on = about["trained_on"]


def domain(config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]) -> Domain:
    """What the labelled volumes are like: kept with the model, and compared with what it is asked about later."""
    from textdiff.data.domain import domain_of_volumes

    return domain_of_volumes(cases, preprocessing_of(config, data), data.class_names)


# --- training --------------------------------------------------------------------------------------------


def training_volumes(config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]) -> TrainingVolumes:
    """Random patches of the labelled cases; networks that do not read are always asked for every structure."""
    from textdiff.data.volumes.patches import TrainingVolumes

    affine = config.augmentation == "affine"
    return TrainingVolumes(
        cases,
        data.class_names,
        preprocessing_of(config, data),
        patch=numbers(config.patch),
        prompts=config.prompts if config.reads else "",
        single=config.named_alone,
        augment=affine,
        mirror=affine and not data.task.sided and config.prompts in ("class", "request"),
        seed=config.seed,
        distances=not config.from_scratch and config.model != "textdiffseg_no_label_encoder",
        cache=None if data.synthetic else paths.cache_dir() / "volumes",
    )


def train(
    model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase], checkpoint: Path
) -> list:
    """Trains ``model`` on ``cases``; the averaged weights that are best on the validation volumes stay.

    An interrupted training continues from ``checkpoint``. Returns one row per validation (:func:`textdiff.training.fit.fit`).
    """
    from textdiff.training.batches import workers_for
    from textdiff.training.fit import fit

    chosen, device = validation_cases(config, data), resolve_device(config.device)

    def validate(trained: nn.Module) -> float:
        table = score(trained, config, data, chosen, sampling_steps=VALIDATION_STEPS, surfaces=False, progress=False)
        return float(table["dice"].mean())

    how = optimisation(config)
    return fit(
        model,
        training_volumes(config, data, cases),
        how,
        validate=validate if chosen else None,
        device=device,
        checkpoint=checkpoint,
        workers=workers_for(device) if config.workers == AUTO else config.workers,
    )


# --- scores ----------------------------------------------------------------------------------------------


def segmenter(model: Any, config: TextDiffSegConfig, sampling_steps: int = 0) -> Callable[[Volume, str], Volume]:
    """``(volume, sentence) -> labels`` on the volume's grid, sampled as the configuration says, or in ``sampling_steps``."""
    from textdiff.models.diffusion import Sampling
    from textdiff.models.inference import segment_volume

    sampling = Sampling(sampling_steps or config.sampling_steps, config.sampler, config.samples, config.seed)
    return lambda volume, text: segment_volume(model, volume, text, sampling, progress=False).labels


def score(
    model: nn.Module,
    config: TextDiffSegConfig,
    data: VolumeDataset,
    cases: Sequence[VolumeCase],
    prompts: Sequence[str] | None = None,
    sampling_steps: int = 0,
    surfaces: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """The per-case table of ``model``: every structure at once, or what ``prompts`` (one per case) ask for."""
    from textdiff.evaluation.volumes import score_volumes

    return score_volumes(
        segmenter(model, config, sampling_steps),
        cases,
        prompts=prompts or prompts_for(cases, data.class_names, config.test_prompts),
        class_names=data.class_names,
        surfaces=surfaces,
        progress=progress,
    )


def measure(model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset) -> tuple[dict[str, float], pd.DataFrame]:
    """A trained model's scores on test and validation volumes, its reading test, and the per-case table of the test.

    Validation scores chose the best weights: the test scores count.

    Raises:
        ValueError: the model was trained on one of the test volumes.
    """
    from textdiff.evaluation.volumes import summarise_volumes

    cases = test_cases(config, data)
    check_unseen(getattr(model, "trained_on", {}), cases)
    per_case = score(model, config, data, cases)
    metrics = {f"test/{name}": value for name, value in summarise_volumes(per_case).items()}
    validated = validation_cases(config, data)
    if validated:
        table = score(model, config, data, validated, surfaces=False)
        metrics |= {f"val/{name}": value for name, value in summarise_volumes(table).items()}
    if config.reads:
        read, columns = reading_test(model, config, data, cases)
        metrics, per_case = metrics | read, per_case.join(columns)
    return metrics, per_case


def reading_test(
    model: nn.Module, config: TextDiffSegConfig, data: VolumeDataset, cases: Sequence[VolumeCase]
) -> tuple[dict[str, float], pd.DataFrame]:
    """Dice of every structure under the prompt that names only it, and under those that name another.

    Metrics: ``test/dice_<b>_asked_for_<a>`` for every pair, ``test/dice_one_by_one`` (mean of a = b),
    ``test/dice_swapped`` (mean of a != b: what stays where it should not), and for models trained on all kinds of prompts
    ``test/dice_prompt_<kind>``. Of a structure, the cases that have it count. The table has one row per case.
    """
    import pandas as pd

    from textdiff.evaluation.volumes import column

    names, columns = data.class_names[1:], {}

    def asked(kind: str, wanted: Sequence[str] = ()) -> pd.DataFrame:
        prompts = prompts_for(cases, data.class_names, kind, wanted)
        return score(model, config, data, cases, prompts, surfaces=False)

    for named in names:
        table = asked(config.test_prompts, [named])
        for name in names:
            # A structure that the patient does not have, and that is not marked, says nothing about reading
            dice = table[f"dice_{column(name)}"].where(table[f"actual_{column(name)}"] > 0)
            columns[f"dice_{column(name)}_asked_for_{column(named)}"] = dice.to_numpy()
    for kind in KINDS if config.prompts == "mixed" else ():
        columns[f"dice_prompt_{kind}"] = asked(kind)["dice"].to_numpy()
    frame = pd.DataFrame(columns)
    metrics = {f"test/{name}": float(values.mean()) for name, values in frame.items()}
    alike = [f"dice_{column(name)}_asked_for_{column(name)}" for name in names]
    crossed = [name for name in frame.columns if "_asked_for_" in name and name not in alike]
    metrics["test/dice_one_by_one"] = float(frame[alike].mean(axis=1).mean())
    if crossed:
        metrics["test/dice_swapped"] = float(frame[crossed].mean(axis=1).mean())
    return metrics, frame


def figures(
    model: nn.Module,
    config: TextDiffSegConfig,
    data: VolumeDataset,
    per_case: pd.DataFrame,
    history: Sequence[dict[str, float]],
) -> dict[str, Figure]:
    """The training curve, and the best and the worst test volume."""
    import numpy as np

    from textdiff.figures.volumes import slices

    cases, order = test_cases(config, data), np.argsort(per_case["dice"].to_numpy())
    drawn, segment = {"training": training_figure(history, config)}, segmenter(model, config)
    about: dict[str, Any] = {"class_names": data.class_names, "window": data.task.window}
    for name, place in (("best", order[-1]), ("worst", order[0])):
        image, truth = cases[place].pair()
        found = segment(image, prompts_for([cases[place]], data.class_names, config.test_prompts)[0])
        drawn[name] = slices(image, found, truth, **about, title=cases[place].name)
    return drawn


# --- trained weights -------------------------------------------------------------------------------------


def load_trained(config: TextDiffSegConfig, data: VolumeDataset, folder: Path) -> nn.Module:
    """The model whose weights a run kept in ``folder``, in eval mode."""
    from textdiff.models.textdiffseg import TextDiffSeg

    if not config.from_scratch:
        return TextDiffSeg.from_pretrained(folder, resolve_device(config.device))
    model = build_model(replace(config, start_from=""), data)
    _load_weights(model, folder)
    return model.eval()


def saved_model(config: Config, folder: str) -> tuple[TextDiffSeg, TextDiffSegConfig, VolumeDataset]:
    """A trained TextDiffSeg for a notebook that asks something of one, the settings of its data set, and the data.

    Args:
        folder: where it was saved, or the name of a shipped model. The data have the structures that the model knows.

    Raises:
        ValueError: no folder, or a model that was trained on one of the test volumes.
        FileNotFoundError: no such model.
    """
    from textdiff.models.textdiffseg import TextDiffSeg

    model = TextDiffSeg.from_pretrained(model_name(config, folder), resolve_device(config.device))
    settings = TextDiffSegConfig.from_params(
        mode=config.mode,
        dataset=config.dataset,
        seed=config.seed,
        device=config.device,
        text_encoder="tiny" if model.text is None else model.text.name,
        structures=",".join(model.class_names[1:]),
    )
    data = load_data(settings)
    check_unseen(model.trained_on, data.test)
    return model, settings, data

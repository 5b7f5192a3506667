"""TextDiff on images: its configuration, and from a configuration data, model, training, scores and figures.

:mod:`textdiff.experiments.run` makes a run of these steps; :mod:`textdiff.experiments.volumes` is the 3D counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from textdiff.base import paths
from textdiff.base.parsing import did_you_mean, numbers
from textdiff.base.precision import Precision, resolve_device
from textdiff.base.processes import processes
from textdiff.data import load_dataset, registry
from textdiff.data.images.captions import other_sentences
from textdiff.data.splits import check_unseen
from textdiff.experiments.config import (
    AUTO,
    NOISE_STEP,
    Config,
    Count,
    ImageSet,
    Limit,
    Listed,
    Name,
    Rate,
    Seed,
    Switch,
    Weight,
    Within,
    check_backbone_fits,
    check_backbone_known,
    limited,
    optimisation,
    test_cases,
    validation_cases,
)
from textdiff.experiments.config import (
    labelled_cases as labelled_cases,  # a step of a run, as those below
)
from textdiff.experiments.config import model_name as model_name
from textdiff.experiments.places import kept_model

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from textdiff.data.cases import Case, Dataset
    from textdiff.data.domain import Domain
    from textdiff.data.images.transforms import ImageSpec
    from textdiff.data.images.views import TrainingImages
    from textdiff.models.features import FeatureExtractor
    from textdiff.models.text import TextEncoder
    from textdiff.models.textdiff import TextDiff

Model = Literal[
    "textdiff",
    "textdiff_no_text",
    "textdiff_concat",
    "unet",
    "unetpp",
    "attention_unet",
    "swin_unetr",
    "dynunet",
    "mednext",
    "text_unet",
    "tuned_unet",
    "tuned_text_unet",
]
Protocol = Literal["official", "corrected"]
Augmentation = Literal["follow", "affine", "stain", "official", "contradict", "none"]

FUSION: dict[str, Any] = {"textdiff": "attention", "textdiff_concat": "pooled", "textdiff_no_text": "none"}
TUNED = ("tuned_unet", "tuned_text_unet")  # a network of timm's is their encoder, and trained on
READING = ("textdiff", "textdiff_concat", "text_unet", "tuned_text_unet")
TEXT_FREE = tuple(name for name in get_args(Model) if name not in (*FUSION, *READING))  # whole networks, without words

PROTOCOLS: dict[str, dict[str, Any]] = {
    "official": {
        "caption_tokens": 10,
        "text_mask": "off",
        "channel_order": "BGR",
        "resize": "bilinear",
        "dice_on": "logits",
        "dice_over": "batch",
        "dice_weight": 1.5,
        "mask_rule": "dilated",
        "augmentation": "official",
        "lr_schedule": "constant",
        "positions": "off",
    },
    "corrected": {
        "caption_tokens": 64,
        "text_mask": "on",
        "channel_order": "RGB",
        "resize": "area",
        "dice_on": "softmax",
        "dice_over": "image",
        "dice_weight": 1.0,
        "mask_rule": "area",
        "augmentation": "affine",
        "lr_schedule": "cosine",
        "positions": "on",
    },
}
EVAL_SIZE = 256  # pixels at which real images are scored, beside their own size
# How many times as large networks of timm's see the images: these maps of theirs then have the cells of our UNets' blocks
ENLARGE, TIMM_BLOCKS = 2, "1,2,3"
IMAGENET = "timm:tf_efficientnet_lite2"  # what a tuned network's encoder is unless another is named
TUNED_MAPS = (0, 1, 2, 3, 4)  # all that timm's networks have
PHANTOM_SPLITS = (60, 20, 40)  # training, validation and test images of a synthetic set
PHANTOM_SIDE = 96


@dataclass(frozen=True)
class TextDiffConfig(Config):
    """Notebook 13: train and evaluate TextDiff, its text-free twin or a baseline on a few labelled images.

    ``model``: "textdiff"; "textdiff_no_text" (paper's ablation, first row); "textdiff_concat" (text without
    cross-attention); a network trained from scratch (:mod:`textdiff.models.baselines`), of which "text_unet" reads; or a U-Net on
    a network of timm's, all of it trained (:mod:`textdiff.models.tuned`): "tuned_unet", and "tuned_text_unet", which reads.
    ``n_labels``: labelled training images, drawn by the seed, or "all".
    ``backbone``: a name in the registry, "random:" or "redrawn:" before a name for the same network without
    pre-training, "blind:" for no picture at all, a folder, or "timm:" before the name of a network of timm's, whose
    weights are read from ``<weights_dir()>/<name>.safetensors``: ``blocks`` are its maps from the finest, and there are no noise steps.
    ``text_encoder``: "tiny" (shipped), a folder, or a hub id.
    ``head``: "official" (the authors' sizes), "compact" (ours: 64 channels, scales summed, features normalised),
    "decoder" (ours: compact, and a convolution at every scale on the way up) or "wide" (the same of 96 channels).
    ``channel_dropout``: share of the feature channels that a training step leaves out.
    ``unlabelled``: images with sentences and without masks that are learned from as well; what was trained on the labelled
    ones marks them. Needs ``mirrored``.
    ``mirrored``: "on" asks a trained model about the mirrored image too, the sentence following (any model).
    ``ema_decay``: memory of the average of the weights that is kept; 0 keeps the latest weights.
    ``views``: different random views of a labelled image; 0 draws a new one each time (frozen features of a bounded number
    are cached).
    ``select_on``: the split whose Dice chooses the best step; "test" is the authors' way (they report the split that
    chose), for the audit only.
    """

    experiment: ClassVar[str] = "textdiff2d"
    notebook: ClassVar[str] = "13_textdiff"
    renamed: ClassVar[Mapping[str, str]] = {"steps": "noise_steps", "schedule": "lr_schedule"}
    derived: ClassVar[Mapping[str, str]] = {"backbone_weights": "backbone", "text_encoder_weights": "text_encoder"}
    added: ClassVar[Mapping[str, Any]] = {"channel_dropout": 0.0, "mirrored": "off", "unlabelled": 0}
    reads_data: ClassVar[bool] = True

    dataset: ImageSet = "chest_phantoms"
    model: Model = "textdiff"
    protocol: Protocol = "corrected"
    n_labels: Limit = AUTO
    backbone: Name = AUTO
    text_encoder: Name = AUTO
    blocks: Annotated[str, Listed(words=("none",), once=True)] = AUTO
    noise_steps: Annotated[str, Listed(NOISE_STEP, words=("none",), once=True)] = AUTO
    noise_seed: Seed = 40
    image_size: Annotated[int, Within(least=8)] = AUTO
    precision: Precision = "bfloat16"
    head: Literal["official", "compact", "decoder", "wide", "none"] = AUTO
    iterations: Count = AUTO
    batch_size: Count = AUTO
    learning_rate: Rate = AUTO
    weight_decay: Weight = 0.0
    ema_decay: Annotated[float, Within(least=0, most=0.99999)] = 0.0
    validate_every: Count = AUTO
    max_val: Limit = AUTO
    max_test: Limit = AUTO
    caption_tokens: Annotated[int, Within(least=3)] = AUTO
    text_mask: Switch = AUTO
    positions: Switch = AUTO
    channel_order: Literal["RGB", "BGR"] = AUTO
    resize: Literal["area", "bilinear"] = AUTO
    dice_on: Literal["softmax", "logits"] = AUTO
    dice_over: Literal["image", "batch"] = AUTO
    dice_weight: Weight = AUTO
    mask_rule: Literal["area", "dilated"] = AUTO
    augmentation: Augmentation = AUTO
    views: Annotated[int, Within(least=0)] = AUTO
    lr_schedule: Literal["cosine", "constant"] = AUTO
    select_on: Literal["val", "test"] = "val"
    channel_dropout: Annotated[float, Within(least=0, most=0.9)] = 0.0
    mirrored: Switch = "off"
    unlabelled: Annotated[int | Literal["all"], Within(least=0)] = 0
    backbone_weights: str = AUTO
    text_encoder_weights: str = AUTO

    @property
    def reads(self) -> bool:
        """Whether the model takes the sentence in."""
        return self.model in READING

    @property
    def from_scratch(self) -> bool:
        """Whether the model is a network of its own, without frozen features."""
        return self.model not in FUSION

    @property
    def tuned(self) -> bool:
        """Whether the model's encoder comes trained, and is trained on."""
        return self.model in TUNED

    @property
    def _of_timm(self) -> bool:
        from textdiff.models.store import timm_network

        return bool(timm_network(self.backbone))

    @property
    def blind(self) -> bool:
        """Whether the head sees no picture."""
        from textdiff.models.store import BLIND

        return self.backbone.startswith(BLIND)

    def _slug(self) -> str:
        return f"{self.dataset}-{self.model}-n{self.n_labels}-s{self.seed}-{self.protocol}"

    def _resolve(self) -> TextDiffConfig:
        entry, demo, of_entry = self.entry, self.mode == "demo", self._of_entry()
        small = demo or entry.synthetic
        unused: dict[str, Any] = dict.fromkeys(("blocks", "noise_steps", "head") if self.from_scratch else (), "none")
        unused |= {"backbone": "none"} if self.from_scratch and not self.tuned else {}
        unused |= {} if self.reads else {"text_encoder": "none"}
        config = replace(self, **unused)._fill({"backbone": IMAGENET} if self.tuned else {})

        def chosen(*names: str) -> dict[str, Any]:
            return {name: of_entry[name] for name in names if name in of_entry}

        config = config._fill(chosen("backbone", "text_encoder", "n_labels", "head", "views"))
        if config.backbone == of_entry.get("backbone", entry.backbone):  # they go with it
            config = config._fill(chosen("blocks", "noise_steps"))
        config = config._fill(
            {
                "backbone": entry.backbone if small else "openai_256",
                "text_encoder": "tiny" if small else "emilyalsentzer/Bio_ClinicalBERT",
                "noise_steps": "none" if config._of_timm else "50,150,250",
                "n_labels": entry.n_labels,
            }
        )
        config = config if self.from_scratch else config._fill(_of_backbone(config))
        heavy = config.head == "official"
        if heavy and config.iterations == AUTO and config.n_labels == "all":
            raise ValueError("n_labels='all' with the authors' head: say how many iterations (they train 50 epochs)")
        size = {"max_val": 10, "max_test": 20} if demo else {"max_val": 100, "max_test": "all"}
        presets = (
            {} if heavy else of_entry,
            PROTOCOLS[self.protocol],
            _steps(config, heavy),
            size,
        )
        as_usual = self.from_scratch or config._of_timm
        side = registry.backbone(entry.backbone).image_size if as_usual else _side(config.backbone)
        for preset in (_views(config), *presets, {"image_size": side}):
            config = config._fill(preset)
        return config._with_weights()

    def _check(self) -> None:
        if self.mirrored == "on" and self.entry.sided:
            raise ValueError(
                f"mirrored='on': a mirror image exchanges the classes that a side tells, among {list(self.entry.structures)}"
            )
        if self.mask_rule == "dilated" and len(self.entry.class_names) > 2:
            raise ValueError(
                f"mask_rule='dilated' (protocol={self.protocol!r}): the authors' rule is of one class, and {self.dataset} has "
                f"{len(self.entry.structures)}; give mask_rule='area'"
            )
        if self.unlabelled and self.mirrored == "off":
            raise ValueError(
                f"unlabelled={self.unlabelled!r} needs mirrored='on': a teacher is trusted where both its answers agree"
            )
        if self.from_scratch and self.channel_dropout:
            raise ValueError(
                f"channel_dropout={self.channel_dropout}: {self.model} has no frozen features to leave out"
            )
        if self.tuned and not self._of_timm:
            raise ValueError(
                f"backbone={self.backbone!r}: {self.model} trains a network of timm's on, such as {IMAGENET!r}"
            )
        if self.from_scratch:
            from textdiff.models.baselines import SMALLEST

            if self.image_size < SMALLEST:
                raise ValueError(f"image_size={self.image_size}: {self.model} takes {SMALLEST} pixels or more")
            return
        if self._of_timm and self.noise_steps != "none":
            raise ValueError(
                f"noise_steps={self.noise_steps!r}: {self.backbone} sees no noise, give noise_steps='none'"
            )
        wanted = ("backbone", "blocks", "head") if self._of_timm else ("backbone", "blocks", "noise_steps", "head")
        unset = [name for name in wanted if getattr(self, name) == "none"]
        if unset:
            raise ValueError(f"{unset[0]}='none' is for networks trained from scratch, and {self.model} is none")
        check_backbone_fits(self.backbone, self.image_size, self.blocks)

    def _check_here(self) -> None:
        super()._check_here()
        if not self.from_scratch and not self._of_timm:
            check_backbone_known(self.backbone)


def _of_backbone(config: TextDiffConfig) -> dict[str, Any]:
    """Blocks and head that go with a backbone."""
    from textdiff.models.store import architecture_of, timm_network

    name, ours = architecture_of(config.backbone), "decoder" if config.protocol == "corrected" else "compact"
    if timm_network(config.backbone):
        return {"blocks": TIMM_BLOCKS, "head": ours}
    if name not in registry.backbones():
        if config.blocks == AUTO:
            raise ValueError(
                f"backbone={config.backbone!r} is not a known name{did_you_mean(name, registry.backbones())}: "
                "say which blocks to tap, such as blocks='1,4,7'"
            )
        return {"head": ours}
    return {
        "blocks": registry.backbone(name).blocks_for(config.dataset),
        "head": "official" if name == "openai_256" else ours,
    }


def _side(backbone: str) -> int:
    """Side in pixels at which a backbone is tapped."""
    from textdiff.models.store import architecture_of

    about = registry.backbones().get(architecture_of(backbone))
    return about.image_size if about else 256


def _views(config: TextDiffConfig) -> dict[str, Any]:
    """Frozen features, corrected protocol: eight views of a real image, so that a cache can hold them; phantoms need none."""
    if config.protocol != "corrected" or config.from_scratch:
        return {"views": 0}
    return {"augmentation": "follow", "views": 0} if config.entry.synthetic else {"views": 8}


def _steps(config: TextDiffConfig, heavy: bool) -> dict[str, Any]:
    """How long and how fast a model learns by default."""
    if config.mode == "demo":
        return {"iterations": 60, "validate_every": 20, "learning_rate": 1e-4 if heavy else 2e-3, "batch_size": 4}
    if heavy:  # 50 epochs of the authors' code
        return {"iterations": 50 * config.n_labels, "validate_every": 50, "learning_rate": 1e-4, "batch_size": 1}
    return {"iterations": 400, "validate_every": 50, "learning_rate": 1e-3, "batch_size": 4}


# --- data and model --------------------------------------------------------------------------------------


def load_data(config: Config) -> Dataset:
    """The data set of a configuration. Phantoms are drawn: `PHANTOM_SPLITS`, more for training where ``n_labels`` is more.

    ``max_val``, ``max_test`` and ``unlabelled`` take from these and draw no others.
    """
    if not config.entry.synthetic:
        return load_dataset(config.dataset)
    train, val, test = PHANTOM_SPLITS
    wanted = getattr(config, "n_labels", 0)
    sizes = (max(train, wanted if isinstance(wanted, int) else 0), val, test)
    return load_dataset(config.dataset, sizes=sizes, image_size=PHANTOM_SIDE)


def image_spec(config: TextDiffConfig, data: Dataset) -> ImageSpec:
    """How the pictures and masks of a configuration become tensors."""
    from textdiff.data.images.transforms import ImageSpec

    return ImageSpec(config.image_size, config.channel_order, config.resize, config.mask_rule, len(data.class_names))


def build_features(config: TextDiffConfig) -> FeatureExtractor:
    """Frozen features with the disk cache of this machine."""
    from textdiff.base.cache import FeatureCache
    from textdiff.models.blind import BlindFeatures
    from textdiff.models.features import DiffusionFeatures
    from textdiff.models.store import load_backbone, timm_network, timm_weights
    from textdiff.models.timm_features import TimmFeatures

    cache = FeatureCache(paths.cache_dir() / "features", paths.cache_bytes())
    if network := timm_network(config.backbone):
        taps, weights = numbers(config.blocks), timm_weights(network)
        return TimmFeatures(network, taps, weights, config.precision, cache, enlarge=ENLARGE)
    return (BlindFeatures if config.blind else DiffusionFeatures)(
        load_backbone(config.backbone, config.seed, rounded=config.precision == "bfloat16"),
        blocks=numbers(config.blocks),
        steps=numbers(config.noise_steps),
        noise_seed=config.noise_seed,
        precision=config.precision,
        cache=None if config.blind else cache,
    )


def build_text(config: TextDiffConfig) -> TextEncoder:
    """The frozen text encoder; ten padded tokens in the official protocol, whole captions otherwise."""
    from textdiff.models.text import TextEncoder

    padding = "longest" if config.text_mask == "on" else "max_length"
    return TextEncoder.from_pretrained(config.text_encoder, max_length=config.caption_tokens, padding=padding)


def build_model(config: TextDiffConfig, data: Dataset, trained: bool = False) -> nn.Module:
    """The model of a configuration, freshly initialised from its seed, on its device.

    ``trained``: all its weights are read afterwards, so that those which an encoder would begin with need not be here.
    """
    import torch

    from textdiff.models.baselines import build_baseline
    from textdiff.models.losses import DiceCE
    from textdiff.models.mirroring import Mirrored
    from textdiff.models.textdiff import HEADS, TextDiff

    criterion = DiceCE(config.dice_weight, config.dice_on, config.dice_over)
    device = resolve_device(config.device)
    text = build_text(config) if config.reads else None
    features = None if config.from_scratch else build_features(config)
    torch.manual_seed(config.seed)
    mirrored = config.mirrored == "on"
    if features is None:
        build: Any = partial(_tuned, config, trained) if config.tuned else partial(build_baseline, config.model)
        net = build(len(data.class_names), precision=config.precision, text=text, criterion=criterion)
        return (Mirrored(net) if mirrored else net).to(device)
    spec = replace(HEADS[config.head], dropout=config.channel_dropout)
    attend = spec.attend and min(spec.attend, len(features.channels))  # of few blocks all read the text
    head = replace(spec, fusion=FUSION[config.model], positions=config.positions == "on", attend=attend)
    return TextDiff(
        features,
        text,
        num_classes=len(data.class_names),
        head=head,
        image=image_spec(config, data),
        text_mask=config.text_mask == "on",
        class_names=data.class_names,
        criterion=criterion,
        mirrored=mirrored,
    ).to(device)


def _tuned(config: TextDiffConfig, trained: bool, classes: int, **options: Any) -> nn.Module:
    from textdiff.models.store import timm_network, timm_weights
    from textdiff.models.timm_features import TimmFeatures
    from textdiff.models.tuned import TunedUNet

    name = timm_network(config.backbone)
    weights = None if trained else timm_weights(name)
    return TunedUNet(TimmFeatures(name, TUNED_MAPS, weights, enlarge=ENLARGE), classes, **options)


def domain(config: TextDiffConfig, data: Dataset, cases: Sequence[Case]) -> Domain:
    """What the labelled pictures are like: kept with the model, and compared with what it is asked about later."""
    from textdiff.data.domain import domain_of_pictures

    return domain_of_pictures(cases)


# --- training --------------------------------------------------------------------------------------------


def training_images(config: TextDiffConfig, data: Dataset, cases: Sequence[Case]) -> TrainingImages:
    """Random views of the labelled cases."""
    from textdiff.data.images.views import TrainingImages

    spec, sided = image_spec(config, data), config.entry.sided
    return TrainingImages(cases, spec, config.augmentation, config.seed, config.views, sided)


def unlabelled_cases(config: TextDiffConfig, data: Dataset) -> list[Case]:
    """The training images that a run learns from by their sentences alone: those that are not labelled, at most ``unlabelled``.

    Raises ValueError where the run asks for some and none is left.
    """
    if not config.unlabelled:
        return []
    known = {case.name for case in labelled_cases(config, data)}
    others = [case for case in data.unlabelled if case.name not in known]
    if not others:
        raise ValueError(
            f"unlabelled={config.unlabelled!r}: all {len(known)} training images of {config.dataset} are labelled "
            f"(n_labels={config.n_labels!r}), and none is left to learn from without its mask"
        )
    return limited(others, config.unlabelled)


def train(model: nn.Module, config: TextDiffConfig, data: Dataset, cases: Sequence[Case], checkpoint: Path) -> list:
    """Trains ``model`` on ``cases``; the best weights by mean Dice on the choosing images stay (``select_on``).

    With ``unlabelled`` images what is trained so far teaches: it marks them, and the model begins again with both
    (:mod:`textdiff.training.teaching`). An interrupted training continues from ``checkpoint``. Returns one row per validation
    (:func:`textdiff.training.fit.fit`) of the last training, with the seconds of that one; "teacher" is the best
    score of the one before.
    """
    labelled, others = training_images(config, data, cases), unlabelled_cases(config, data)
    if not others:
        return _fitted(model, config, data, labelled, checkpoint)
    from textdiff.base.checkpoints import read_checkpoint, write_checkpoint
    from textdiff.data.images.views import MixedImages
    from textdiff.training.weights import put, trained_state

    own = trained_state(model)
    first = {name: value.detach().clone() for name, value in own.items()}
    taught = checkpoint.with_name("teacher.safetensors")
    alone = kept_model(replace(config, unlabelled=0).run_id) / "model.safetensors"  # trained as a run of its own
    if found := next((file for file in (taught, alone) if file.is_file()), None):
        put(read_checkpoint(found), own)
    else:
        _fitted(model, config, data, labelled, checkpoint)
        if processes().main:
            write_checkpoint(taught, own)
    marked = _marked(model, config, data, others)
    teacher = processes().told(lambda: _dice(model, config, data))
    put(first, own)
    both, checkpoint = MixedImages(labelled, marked), checkpoint.with_name("student.safetensors")
    history = _fitted(model, config, data, both, checkpoint, 2 * config.batch_size)
    return [row | {"teacher": teacher} for row in history]


def _marked(model: nn.Module, config: TextDiffConfig, data: Dataset, others: Sequence[Case]) -> TrainingImages:
    """Unlabelled images as a trained model marks them; of frozen features views of which it has the features already."""
    from textdiff.data.images.views import TrainingImages
    from textdiff.training.teaching import marked_cases

    marked = marked_cases(model.eval(), others, image_spec(config, data), device=resolve_device(config.device))
    changed = config.augmentation if config.from_scratch else "follow"
    return TrainingImages(marked, image_spec(config, data), changed, config.seed, views=0, sided=config.entry.sided)


def _fitted(
    model: nn.Module, config: TextDiffConfig, data: Dataset, images: Any, checkpoint: Path, batch_size: int = 0
) -> list:
    """One training with validation, on labelled images or on these and others in turn (then with twice the batch)."""
    from textdiff.training.batches import workers_for
    from textdiff.training.fit import fit

    features = getattr(model, "features", None)
    cache = None if features is None else features.cache
    device, chosen = resolve_device(config.device), _choosing(config, data)

    def validate(trained: nn.Module) -> float:
        with _caching(features, cache):
            return _dice(trained, config, data)

    # Views that never come twice would only fill the cache; validation images come again and again
    with _caching(features, cache if images.come_again else None):
        return fit(
            model,
            images,
            optimisation(config, batch_size=batch_size or config.batch_size),
            compiling=getattr(model, "head", None),
            validate=validate if chosen else None,
            device=device,
            checkpoint=checkpoint,
            workers=workers_for(device) if config.workers == AUTO else config.workers,
        )


def _choosing(config: TextDiffConfig, data: Dataset) -> list[Case]:
    return validation_cases(config, data) if config.select_on == "val" else test_cases(config, data)


def _dice(model: nn.Module, config: TextDiffConfig, data: Dataset) -> float:
    """Mean Dice on the choosing images, nan where there are none."""
    chosen = _choosing(config, data)
    return float(score(model, config, data, chosen, progress=False)["dice"].mean()) if chosen else float("nan")


def _caching(features: Any, cache: Any) -> AbstractContextManager[None]:
    """Within this context ``features`` uses ``cache``; nothing happens where there are no features."""
    return nullcontext() if features is None else features.caching(cache)


# --- scores ----------------------------------------------------------------------------------------------


def score(
    model: nn.Module,
    config: TextDiffConfig,
    data: Dataset,
    cases: Sequence[Case],
    captions: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The per-case table of ``model``; ``captions`` replaces the cases' sentences."""
    from textdiff.evaluation.images import score_cases

    return score_cases(
        model,
        cases,
        image_spec(config, data),
        eval_size=config.image_size if data.synthetic else EVAL_SIZE,
        device=resolve_device(config.device),
        captions=captions,
        class_names=data.class_names,
        progress=progress,
    )


def measure(model: nn.Module, config: TextDiffConfig, data: Dataset) -> tuple[dict[str, float], pd.DataFrame]:
    """A trained model's scores on test and validation images, its reading test, and the per-case table of the test.

    Validation scores are there for comparison with reports that give them; they are chosen on. The reading test:
    mean Dice under each of :func:`~textdiff.data.images.captions.other_sentences`, a column each in the table.

    Raises:
        ValueError: the model was trained on one of the test images.
    """
    from textdiff.evaluation.metrics import summarise

    cases = test_cases(config, data)
    check_unseen(getattr(model, "trained_on", {}), cases)
    per_case = score(model, config, data, cases)
    metrics = {f"test/{name}": value for name, value in summarise(per_case).items()}
    validated = validation_cases(config, data)
    if validated:
        metrics |= {f"val/{k}": v for k, v in summarise(score(model, config, data, validated)).items()}
    if config.reads:
        reader: Any = model
        reader.text.allow_empty = True
        for name, captions in other_sentences(cases, config.seed).items():
            per_case[f"dice_{name}"] = score(model, config, data, cases, captions)["dice"]
            metrics[f"test/dice_{name}"] = float(per_case[f"dice_{name}"].mean())
    return metrics, per_case


def figures(
    model: nn.Module, config: TextDiffConfig, data: Dataset, per_case: pd.DataFrame, history: Sequence[dict[str, float]]
) -> dict[str, Figure]:
    """The training curve, and the best and the worst test image with its own and with another image's sentence."""
    import numpy as np

    from textdiff.figures.images import compare_masks

    cases = test_cases(config, data)
    others, order = other_sentences(cases, config.seed)["shuffled"], np.argsort(per_case["dice"].to_numpy())
    drawn = {"training": training_figure(history, config)}
    for name, place in (("best", order[-1]), ("worst", order[0])):
        case = cases[place]
        captions = dict.fromkeys([case.caption, others[place]] if config.reads else [case.caption])
        masks = {caption: mask_of(model, config, data, case, caption) for caption in captions}
        drawn[name] = compare_masks(case.image(), case.mask(), masks)
    return drawn


def mask_of(model: nn.Module, config: TextDiffConfig, data: Dataset, case: Case, caption: str) -> np.ndarray:
    """The label map uint8 ``[H, W]`` that any of the models gives for one picture, at the picture's own size."""
    import torch
    import torch.nn.functional as F

    pixels = image_spec(config, data).input(case.image())[None].to(resolve_device(config.device))
    with torch.no_grad():
        logits = model(pixels, [caption])
    size = case.image().shape[:2]
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def training_figure(history: Sequence[dict[str, float]], config: Any) -> Figure:
    """Loss and validation Dice against passes through the labelled images where their number is set, else against steps."""
    import pandas as pd

    from textdiff.figures.curves import loss_curve
    from textdiff.figures.style import described
    from textdiff.training.fit import best_row

    best = best_row(history)
    table = pd.DataFrame(history).rename(columns={"score": "validation dice"})
    along = "step"
    if isinstance(config, TextDiffConfig) and config.n_labels != "all":
        along = "epoch"
        table[along] = table["step"] * config.batch_size / config.n_labels
    columns = [along, "loss", *(["validation dice"] if table["validation dice"].notna().any() else [])]
    said, alt = "Training loss", f"Training loss over {config.iterations} steps."
    if "validation dice" in columns:
        said += " and validation Dice"
        alt = f"{said} over {config.iterations} steps; best Dice {best['score']:.3f} after step {best['step']}."
    return described(loss_curve(table[columns], along), alt, f"{said}.")


# --- trained weights -------------------------------------------------------------------------------------


def load_trained(config: TextDiffConfig, data: Dataset, folder: Path) -> nn.Module:
    """The model whose weights a run kept in ``folder``, in eval mode."""
    from textdiff.base.checkpoints import load_strict, read_checkpoint
    from textdiff.models.textdiff import TextDiff

    if not config.from_scratch:
        return TextDiff.from_pretrained(folder, resolve_device(config.device))
    model = build_model(config, data, trained=True)
    load_strict(model, read_checkpoint(folder / "model.safetensors"), source=str(folder))
    return model.eval()


def saved_model(config: Config, folder: str) -> tuple[TextDiff, TextDiffConfig, Dataset]:
    """A trained TextDiff for a notebook that asks something of one, the settings of its data set, and the data.

    Args:
        folder: as :func:`model_name` takes it.

    Raises:
        ValueError: no folder and no shipped model, or a model that was trained on one of the test images.
        FileNotFoundError: no such model.
    """
    from textdiff.models.textdiff import TextDiff

    model = TextDiff.from_pretrained(model_name(config, folder), resolve_device(config.device))
    spec = model.image
    settings = TextDiffConfig.from_params(
        mode=config.mode,
        dataset=config.dataset,
        seed=config.seed,
        device=config.device,
        backbone=config.entry.backbone,
        text_encoder="tiny",
        image_size=spec.image_size,
        channel_order=spec.channel_order,
        resize=spec.resize,
        mask_rule=spec.mask_rule,
    )
    data = load_data(settings)
    check_unseen(model.trained_on, data.test)
    return model, settings, data

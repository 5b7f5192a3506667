"""One frozen configuration an experiment: notebook parameters in, every value in effect out, checked once.

A notebook parameter, a field of its class here and a keyword argument have the same name. Parameters are scalars; "auto"
(or 0, or "") means "from the preset of mode, data set and protocol". :meth:`Config.from_params` resolves all of them, so
that a recorded configuration says everything and means the same in later versions. Lists travel as "6,8,12,16".
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from textdiff.base.parsing import numbers
from textdiff.experiments.records import portable

PHANTOMS = ("nuclei_phantoms", "chest_phantoms")
DATASETS = ("monuseg", "qata", *PHANTOMS)
MODES = ("demo", "full")

# What each backbone was trained on, the image side it is tapped at, and the decoder blocks that are tapped by default.
# openai_256 with these blocks, per data set, is the authors' choice (chunmeifeng/TextDiff @ cd7e79f, experiments/*/ddpm.json); the others are small and ours.
BACKBONES: dict[str, dict[str, Any]] = {
    "openai_256": {"image_size": 256, "blocks": {"monuseg": "6,8,12,16", "qata": "4,6,8,12", "": "6,8,12,16"}},
    "he_32": {"image_size": 256, "blocks": {"": "1,4,7,10"}},
    "chest_32": {"image_size": 128, "blocks": {"": "1,4,7"}},
    "phantoms_32": {"image_size": 96, "blocks": {"": "0,2,4"}},
}
SHIPPED = {"monuseg": "he_32", "qata": "chest_32", "nuclei_phantoms": "phantoms_32", "chest_phantoms": "phantoms_32"}
# Prefixes of a backbone's name: the same architecture, never trained. guided-diffusion initialises the last layer of every
# residual and attention branch with zeros ("random:"); "redrawn:" draws these layers at random too.
RANDOM = "random:"
REDRAWN = "redrawn:"

# Trained from scratch instead of read from frozen features (:mod:`textdiff.models.baselines`)
SCRATCH = ("unet", "unetpp", "attention_unet", "swin_unetr", "dynunet", "mednext", "text_unet")

# Volumes: synthetic, or real in a layout that textdiff.data.volumes.layouts reads
VOLUME_PHANTOMS = ("abdomen_phantoms",)
VOLUMES = (
    "hippocampus",
    "liver_tumour",
    "pancreas_tumour",
    "colon_tumour",
    "kits19",
    "kits21",
    "kits23",
    "amos",
    "btcv",
    "totalsegmentator",
    "totalsegmentator_mr",
    *VOLUME_PHANTOMS,
)
# TextDiffSeg models that ship with the repository (weights/), by data set
SHIPPED_3D = {"hippocampus": "hippocampus_small", "abdomen_phantoms": "abdomen_small"}
# The system, the paper's ablations (without text fusion, image features, label encoder, joint loss), and MONAI's networks
TEXTDIFFSEG = (
    "textdiffseg",
    "textdiffseg_no_text",
    "textdiffseg_no_image_features",
    "textdiffseg_no_label_encoder",
    "textdiffseg_no_joint_loss",
)
SCRATCH_3D = ("segresnet", "swin_unetr", "unetr", "dynunet", "mednext")

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
        "schedule": "constant",
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
        "schedule": "cosine",
        "positions": "on",
    },
}


def architecture_of(backbone: str) -> str:
    """The backbone's name without the prefix that leaves its weights random."""
    return backbone.removeprefix(RANDOM).removeprefix(REDRAWN)


@dataclass(frozen=True)
class Config:
    """What all configurations share."""

    experiment: ClassVar[str] = ""
    notebook: ClassVar[str] = ""
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    mode: str = "demo"
    dataset: str = "nuclei_phantoms"
    seed: int = 0
    device: str = "auto"
    out_dir: str = ""

    @classmethod
    def from_params(cls, **params: Any) -> Config:
        """The configuration that notebook parameters stand for, with every preset filled in.

        Raises:
            ValueError: an unknown name (the nearest known one is named) or a value that is not among the choices.
            TypeError: a value of another type than the field's.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in params.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown parameter {name!r}{hint} {cls.__name__} has: {', '.join(known)}")
            params[name] = _typed(name, value, known[name].type)
        config = cls(**params)
        config._check()
        return config._resolve()

    def to_dict(self) -> dict[str, Any]:
        """Every parameter by name."""
        return asdict(self)

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of what determines the result: every parameter but where it runs and is written."""
        values = {k: v for k, v in portable(self.to_dict()).items() if k != "device"}
        text = json.dumps({"experiment": self.experiment, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """Folder name of the record: a readable part and the hash."""
        return f"{self._slug()}-{self.hash}"

    def _slug(self) -> str:
        return f"{self.dataset}-s{self.seed}-{self.mode}"

    def _check(self) -> None:
        for name, allowed in {"mode": MODES, "dataset": DATASETS, **self.choices}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        if self.device != "auto" and not self.device.startswith(("cpu", "cuda", "mps")):
            raise ValueError(f"device={self.device!r}: 'auto', 'cpu', 'cuda', 'cuda:1', ...")

    def _resolve(self) -> Config:
        return self

    def _fill(self, preset: Mapping[str, Any]) -> Config:
        """Replaces the fields left at "auto", "" or 0 by the preset's values."""
        unset = {k: v for k, v in preset.items() if getattr(self, k) in ("auto", "", 0, 0.0)}
        return replace(self, **unset)


@dataclass(frozen=True)
class DataConfig(Config):
    """Notebook 10: the data and its sentences."""

    experiment: ClassVar[str] = "data"
    notebook: ClassVar[str] = "10_data_and_sentences"

    n_shown: int = 4
    n_labels: int = 0

    def _resolve(self) -> Config:
        return self._fill({"n_labels": 150 if self.dataset == "qata" else 5})


@dataclass(frozen=True)
class PretrainConfig(Config):
    """Notebook 11: pre-train a small unconditional DDPM on unlabelled training images.

    ``symmetries``: turns and flips that a crop may take, "" for all eight (chest films: only 0 and 4, left-right).
    ``start_from``: a backbone of the same architecture to go on from, "" for random weights.
    """

    experiment: ClassVar[str] = "pretraining"
    notebook: ClassVar[str] = "11_pretrain_backbone"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"precision": ("float32", "bfloat16")}

    image_size: int = 0
    crop: int = 0
    scales: str = ""
    symmetries: str = ""
    model_channels: int = 32
    channel_mult: str = ""
    num_res_blocks: int = 0
    attention_resolutions: str = ""
    steps: int = 0
    batch_size: int = 8
    learning_rate: float = 4e-4
    precision: str = "bfloat16"
    start_from: str = ""
    n_samples: int = 0
    sampler_steps: int = 0

    def _resolve(self) -> Config:
        chest = self.dataset in ("qata", "chest_phantoms")
        real = self.dataset not in PHANTOMS
        large = {"channel_mult": "1,2,3,4", "num_res_blocks": 2, "attention_resolutions": "8", "crop": 64}
        small = {"channel_mult": "1,2,3", "num_res_blocks": 1, "attention_resolutions": "4", "crop": 48}
        side = {"monuseg": 256, "qata": 128}.get(self.dataset, 96)
        length = {"steps": 2400, "n_samples": 8, "sampler_steps": 50}
        short = {"steps": 40, "n_samples": 4, "sampler_steps": 25}
        return self._fill(
            {
                **(large if real else small),
                **(length if self.mode == "full" else short),
                "image_size": side,
                "scales": {"monuseg": "1,1.25,1.5,2", "qata": "0.5,0.75,1"}.get(self.dataset, "0.67,1"),
                "symmetries": "0,4" if chest else "0,1,2,3,4,5,6,7",
            }
        )


@dataclass(frozen=True)
class FeaturesConfig(Config):
    """Notebook 12: what the frozen features see, block by step."""

    experiment: ClassVar[str] = "features"
    notebook: ClassVar[str] = "12_what_features_see"

    backbone: str = "auto"
    blocks: str = ""
    steps: str = "0,50,150,250,500,900"
    image_size: int = 0
    n_images: int = 0
    pixels: int = 4000

    def _resolve(self) -> Config:
        backbone = SHIPPED[self.dataset] if self.backbone == "auto" else self.backbone
        about = BACKBONES.get(architecture_of(backbone), {})
        demo = self.mode == "demo"
        config = replace(self, backbone=backbone)
        return config._fill(
            {"image_size": about.get("image_size", 256), "blocks": "all", "n_images": 6 if demo else 12}
        )


@dataclass(frozen=True)
class TextDiffConfig(Config):
    """Notebook 13: train and evaluate TextDiff, its text-free twin or a baseline on a few labelled images.

    ``model``: "textdiff"; "textdiff_no_text" (paper's ablation, first row); "textdiff_concat" (text without
    cross-attention); or a network trained from scratch (:mod:`textdiff.models.baselines`), of which "text_unet" reads.
    ``backbone``: a name in :data:`BACKBONES`, "random:" or "redrawn:" before a name for the same network without
    pre-training, or a folder.
    ``text_encoder``: "tiny" (shipped), a folder, or a hub id.
    ``head``: "official" (the authors' sizes), "compact" (ours: 64 channels, scales summed, features normalised) or
    "decoder" (ours: compact, and a convolution at every scale on the way up).
    ``views``: different random views of a labelled image, 0 for no bound (frozen features of a bounded number are cached).
    ``select_on``: the split whose Dice chooses the best step; "test" is the authors' way (they report the split that
    chose), for the audit only.
    """

    experiment: ClassVar[str] = "textdiff2d"
    notebook: ClassVar[str] = "13_textdiff"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": ("textdiff", "textdiff_no_text", "textdiff_concat", *SCRATCH),
        "protocol": tuple(PROTOCOLS),
        "head": ("auto", "official", "compact", "decoder"),
        "select_on": ("val", "test"),
        "text_mask": ("auto", "on", "off"),
        "positions": ("auto", "on", "off"),
        "channel_order": ("auto", "RGB", "BGR"),
        "resize": ("auto", "area", "bilinear"),
        "dice_on": ("auto", "softmax", "logits"),
        "dice_over": ("auto", "image", "batch"),
        "mask_rule": ("auto", "area", "dilated"),
        "augmentation": ("auto", "follow", "affine", "stain", "official", "contradict", "none"),
        "schedule": ("auto", "cosine", "constant"),
        "precision": ("float32", "bfloat16"),
    }

    model: str = "textdiff"
    protocol: str = "corrected"
    n_labels: int = 0
    backbone: str = "auto"
    text_encoder: str = "auto"
    blocks: str = ""
    steps: str = "50,150,250"
    noise_seed: int = 40
    image_size: int = 0
    precision: str = "bfloat16"
    head: str = "auto"
    iterations: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    weight_decay: float = 0.0
    validate_every: int = 0
    max_val: int = 0
    max_test: int = 0
    caption_tokens: int = 0
    text_mask: str = "auto"
    positions: str = "auto"
    channel_order: str = "auto"
    resize: str = "auto"
    dice_on: str = "auto"
    dice_over: str = "auto"
    dice_weight: float = 0.0
    mask_rule: str = "auto"
    augmentation: str = "auto"
    views: int = 0
    schedule: str = "auto"
    select_on: str = "val"

    @property
    def reads(self) -> bool:
        """Whether the model takes the sentence in."""
        return self.model in ("textdiff", "textdiff_concat", "text_unet")

    def _slug(self) -> str:
        return f"{self.dataset}-{self.model}-n{self.n_labels}-s{self.seed}-{self.protocol}"

    def _augmentation(self, scratch: bool) -> dict[str, Any]:
        """Frozen features, corrected protocol: eight views of a real image, so that a cache can hold them; phantoms need none."""
        if self.protocol != "corrected" or scratch:
            return {}
        return {"augmentation": "follow"} if self.dataset in PHANTOMS else {"views": 8}

    def _resolve(self) -> Config:
        demo, qata = self.mode == "demo", self.dataset == "qata"
        # Films whose opacities are told apart by the sentence alone: reading takes more labels and steps than seeing
        chest = self.dataset == "chest_phantoms"
        config = self._fill(
            {
                "backbone": SHIPPED[self.dataset] if demo or self.dataset in PHANTOMS else "openai_256",
                "text_encoder": "tiny" if demo or self.dataset in PHANTOMS else "emilyalsentzer/Bio_ClinicalBERT",
            }
        )
        about = BACKBONES.get(architecture_of(config.backbone), {"image_size": 256, "blocks": {}})
        blocks = about["blocks"]
        scratch = self.model in SCRATCH
        official = architecture_of(config.backbone) == "openai_256" and not scratch
        config = config._fill(
            {
                "head": "official" if official else "decoder" if self.protocol == "corrected" else "compact",
                "image_size": 64 if demo and chest else about["image_size"],
                "blocks": blocks.get(self.dataset, blocks.get("", "")),
                "n_labels": {"qata": 150, "chest_phantoms": 60}.get(self.dataset, 5),
                "max_val": 10 if demo else 100,
                "max_test": (40 if chest else 20) if demo else 100_000,
                **self._augmentation(scratch),
            }
        )._fill(PROTOCOLS[self.protocol])
        if not config.blocks:
            raise ValueError(
                f"backbone={config.backbone!r} is not a known name: say which blocks to tap, such as blocks='1,4,7'"
            )
        heavy = config.head == "official"
        long = {
            "iterations": 50 * config.n_labels if heavy else 1500 if qata else 400,
            "learning_rate": 1e-4 if heavy else 1e-3,
            "validate_every": 150 if qata else 50,
        }
        short = {
            "iterations": 300 if chest else 60,
            "learning_rate": 1e-4 if heavy else 2e-3,
            "validate_every": 60 if chest else 20,
        }
        return config._fill({"batch_size": 1 if heavy else 8 if qata else 4, **(short if demo else long)})


@dataclass(frozen=True)
class TextDiffSegConfig(Config):
    """Notebook 22: train and evaluate TextDiffSeg, one of its ablations or one of MONAI's networks on labelled volumes.

    ``structures``: comma-separated, of those the data set has; "" for all.
    ``prompts``: the kind of sentence to train and test with ("mixed": all three in turn, tested with class prompts).
    ``named_alone``: share of the training patches whose sentence names only a part of the structures.
    ``size``: "small" (two cores, or a GPU of 16 GB) or "large" (a GPU of 40 GB or more).
    ``patch``: voxels of a training patch, such as "96,96,96"; "" for the task's own.
    ``prediction``: what the denoiser predicts; ``denoise_weight``: lambda of the joint loss; ``autoencode`` and
    ``from_noise``: see :class:`textdiff.models.textdiffseg.TextDiffSeg`.
    ``start_from``: weights to go on from: a folder, a name in ``weights/`` or the id of a run made on this machine; "" for
    random weights.
    ``steps``, ``sampler``, ``samples``: of the test; validation takes two steps.
    """

    experiment: ClassVar[str] = "textdiffseg3d"
    notebook: ClassVar[str] = "22_textdiffseg"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "dataset": VOLUMES,
        "model": (*TEXTDIFFSEG, *SCRATCH_3D),
        "prompts": ("class", "anatomy", "report", "mixed"),
        "size": ("small", "large"),
        "prediction": ("sample", "epsilon", "v_prediction"),
        "noise_schedule": ("linear", "cosine"),
        "sampler": ("ddim", "ddpm"),
        "augmentation": ("affine", "none"),
        "precision": ("float32", "bfloat16"),
    }

    dataset: str = "abdomen_phantoms"
    model: str = "textdiffseg"
    n_labels: int = 0
    structures: str = ""
    text_encoder: str = "auto"
    prompts: str = "class"
    named_alone: float = 0.4
    size: str = "small"
    latent_channels: int = 16
    prediction: str = "sample"
    noise_schedule: str = "linear"
    denoise_weight: float = 0.25
    autoencode: float = 0.15
    from_noise: float = 0.6
    patch: str = ""
    augmentation: str = "affine"
    iterations: int = 0
    batch_size: int = 0
    accumulate: int = 0
    learning_rate: float = 0.0
    weight_decay: float = 1e-5
    ema_decay: float = 0.99
    start_from: str = ""
    validate_every: int = 0
    max_val: int = 0
    max_test: int = 0
    steps: int = 5
    sampler: str = "ddim"
    samples: int = 1
    precision: str = "bfloat16"

    @property
    def reads(self) -> bool:
        """Whether the model takes the sentence in."""
        return self.model in TEXTDIFFSEG and self.model != "textdiffseg_no_text"

    def _check(self) -> None:
        super()._check()
        sides = numbers(self.patch)
        if self.patch and (len(sides) != 3 or any(side < 8 or side % 8 for side in sides)):
            raise ValueError(f"patch={self.patch!r}: three multiples of 8, such as '96,96,96'")
        for name in ("named_alone", "autoencode", "from_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a share between 0 and 1")

    def _slug(self) -> str:
        labels = f"n{self.n_labels}" if self.n_labels else "all"
        return f"{self.dataset}-{self.model}-{labels}-s{self.seed}"

    def _resolve(self) -> Config:
        demo, large = self.mode == "demo", self.size == "large"
        short = {"iterations": 120, "validate_every": 60, "max_val": 3, "max_test": 6, "n_labels": 12}
        small = {"iterations": 5000, "validate_every": 250, "max_val": 16, "max_test": 100_000}
        long = {"iterations": 25_000, "validate_every": 1000, "max_val": 30, "max_test": 100_000}
        # What a network that neither reads nor denoises does not use
        unused = dict.fromkeys(("named_alone", "denoise_weight", "autoencode", "from_noise"), 0.0)
        asked = replace(self, **unused, latent_channels=0, steps=1) if self.model in SCRATCH_3D else self
        return asked._fill(
            {
                "text_encoder": "tiny" if demo else "emilyalsentzer/Bio_ClinicalBERT",
                **(short if demo else long if large else small),
                # Of as many patches, one a step taught more than two a step (trials on validation volumes)
                "batch_size": 2 if large else 1,
                "accumulate": 1,
                "learning_rate": 2e-3 if not large else 5e-4,
            }
        )


@dataclass(frozen=True)
class PredictConfig(Config):
    """Notebook 14: your own image and sentence. Without a model folder, a small one is trained first."""

    experiment: ClassVar[str] = "predict"
    notebook: ClassVar[str] = "14_your_own_image"

    dataset: str = "chest_phantoms"
    model_folder: str = ""
    image: str = ""
    text: str = ""


@dataclass(frozen=True)
class TableConfig(Config):
    """Notebooks 15, 16, 18 and 19: a table of the runs of a grid (:mod:`textdiff.experiments.grids`), drawn from their records.

    ``n_seeds``: draws of the labelled images, 0 for the grid's own number.
    """

    experiment: ClassVar[str] = "table"
    notebook: ClassVar[str] = "15_comparison"

    dataset: str = "chest_phantoms"
    n_seeds: int = 0


@dataclass(frozen=True)
class BlocksConfig(Config):
    """Notebook 17: every decoder block at every noise step, and sets of them, by a linear probe.

    ``sets``: blocks and steps together, such as "1,4,7@50,150,250;1,4,7@50"; "" for the backbone's own blocks at the
    paper's three steps and at each of them alone.
    """

    experiment: ClassVar[str] = "blocks_steps"
    notebook: ClassVar[str] = "17_blocks_and_steps"

    backbone: str = "auto"
    blocks: str = ""
    steps: str = ""
    sets: str = ""
    image_size: int = 0
    n_labels: int = 0
    n_draws: int = 0
    max_test: int = 0
    pixels: int = 20_000

    def _slug(self) -> str:
        backbone = Path(self.backbone.replace(":", "-")).name  # a folder may be given
        return f"{self.dataset}-{backbone}-n{self.n_labels}-s{self.seed}"

    def _resolve(self) -> Config:
        demo = self.mode == "demo"
        config = replace(self, backbone=SHIPPED[self.dataset] if self.backbone == "auto" else self.backbone)
        about = BACKBONES.get(architecture_of(config.backbone), {"image_size": 256, "blocks": {}})
        taps = about["blocks"].get(self.dataset, about["blocks"].get("", ""))
        paper = ("50,150,250", "50", "150", "250")
        return config._fill(
            {
                "image_size": about["image_size"],
                "blocks": "all",
                "steps": "50,150,250,500" if demo else "0,25,50,100,150,200,250,350,500,700,900",
                "sets": ";".join(f"{taps}@{steps}" for steps in paper) if taps else "",
                "n_labels": 5,
                "n_draws": 1 if demo else 3,
                "max_test": 6 if demo else 100,
            }
        )


@dataclass(frozen=True)
class ReadingConfig(Config):
    """Notebook 1a: does the model read? ``model_folder``: a saved TextDiff to look into; "" for one of the grid's."""

    experiment: ClassVar[str] = "reading"
    notebook: ClassVar[str] = "1a_reading_test"

    dataset: str = "chest_phantoms"
    model_folder: str = ""


@dataclass(frozen=True)
class QualitativeConfig(Config):
    """Notebook 1b: test images from the worst to the best, side by side for several models."""

    experiment: ClassVar[str] = "qualitative"
    notebook: ClassVar[str] = "1b_qualitative"

    dataset: str = "chest_phantoms"
    n_shown: int = 6


def _shipped(dataset: str) -> dict[str, str]:
    return {"model_folder": SHIPPED_3D.get(dataset, "")}


@dataclass(frozen=True)
class VolumeTableConfig(Config):
    """Notebooks 23 and 24: tables of the runs of 3D grids (:mod:`textdiff.experiments.grids`), drawn from their records.

    ``n_seeds``: draws of the labelled volumes, 0 for the grid's own number.
    ``base``: label of the row that the others are compared with; "" for the notebook's own choice.
    """

    experiment: ClassVar[str] = "table3d"
    notebook: ClassVar[str] = "23_comparison3d"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    n_seeds: int = 0
    base: str = ""


@dataclass(frozen=True)
class SamplingConfig(Config):
    """Notebook 25: one trained TextDiffSeg under several numbers of denoising steps, both samplers, and several samples.

    ``model_folder``: a saved TextDiffSeg; "" for the one in ``weights/`` that was trained on the data set.
    ``steps``: numbers of denoising steps; more than 100 are measured on ``max_long`` test volumes, others on ``max_test``.
    ``samples``, ``sample_steps``: how often a volume is drawn for its uncertainty, and in how many steps.
    """

    experiment: ClassVar[str] = "sampling3d"
    notebook: ClassVar[str] = "25_steps_and_uncertainty"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    model_folder: str = ""
    steps: str = ""
    samples: int = 0
    sample_steps: int = 5
    max_test: int = 0
    max_long: int = 0

    def _check(self) -> None:
        super()._check()
        if any(steps < 1 for steps in numbers(self.steps)) or self.sample_steps < 1:
            raise ValueError(f"steps={self.steps!r}, sample_steps={self.sample_steps}: at least one denoising step")

    def _resolve(self) -> Config:
        demo = {"steps": "1,2,5,10,50", "samples": 4, "max_test": 3, "max_long": 1}
        full = {"steps": "1,2,5,10,50,1000", "samples": 8, "max_test": 100_000, "max_long": 4}
        return self._fill((demo if self.mode == "demo" else full) | _shipped(self.dataset))


@dataclass(frozen=True)
class PromptsConfig(Config):
    """Notebook 26: one trained TextDiffSeg under many sentences. ``model_folder`` as in notebook 25.

    ``texts``: sentences of your own to try on one volume, with ";" between them.
    """

    experiment: ClassVar[str] = "prompts3d"
    notebook: ClassVar[str] = "26_prompts"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    model_folder: str = ""
    max_test: int = 0
    texts: str = ""

    def _resolve(self) -> Config:
        return self._fill({"max_test": 3 if self.mode == "demo" else 100_000, **_shipped(self.dataset)})


@dataclass(frozen=True)
class QualitativeVolumesConfig(Config):
    """Notebook 27: the best, the middle and the worst test volume, side by side for several models.

    ``models``: labels of rows of the comparison, with ";" between them; "" for all that were trained on this machine.
    ``margin``: mm shown around the structures.
    """

    experiment: ClassVar[str] = "qualitative3d"
    notebook: ClassVar[str] = "27_qualitative3d"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    models: str = ""
    margin: float = 15.0


@dataclass(frozen=True)
class VolumeDataConfig(Config):
    """Notebook 20: volumes, their place in the patient, and the kinds of sentences. ``n_cases``: training cases that are read."""

    experiment: ClassVar[str] = "volume_data"
    notebook: ClassVar[str] = "20_volumes_and_sentences"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    n_cases: int = 0

    def _resolve(self) -> Config:
        return self._fill({"n_cases": 12 if self.mode == "demo" else 40})


@dataclass(frozen=True)
class LabelLatentConfig(Config):
    """Notebook 21: what the label latent holds, and what noise leaves of it.

    ``model_folder`` as in notebook 25. ``timesteps``: how far the latent is noised, 0 to 999.
    """

    experiment: ClassVar[str] = "label_latent"
    notebook: ClassVar[str] = "21_label_latent"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    model_folder: str = ""
    n_volumes: int = 0
    timesteps: str = "100,200,300,400,500,600,750,900,999"

    def _resolve(self) -> Config:
        return self._fill({"n_volumes": 4 if self.mode == "demo" else 16, **_shipped(self.dataset)})


@dataclass(frozen=True)
class VolumePredictConfig(Config):
    """Notebook 28: your own volume and sentence. Without a volume, one is drawn (full mode: the first test case).

    ``model_folder`` as in notebook 25. ``volume``: a NIfTI file, or a folder with the slices of one DICOM series.
    """

    experiment: ClassVar[str] = "predict_volume"
    notebook: ClassVar[str] = "28_your_own_volume"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"dataset": VOLUMES}

    dataset: str = "abdomen_phantoms"
    model_folder: str = ""
    volume: str = ""
    text: str = ""
    steps: int = 5
    samples: int = 5

    def _resolve(self) -> Config:
        return self._fill(_shipped(self.dataset))


CONFIGS: dict[str, type[Config]] = {
    cls.__name__: cls
    for cls in (
        DataConfig,
        PretrainConfig,
        FeaturesConfig,
        TextDiffConfig,
        TextDiffSegConfig,
        PredictConfig,
        TableConfig,
        BlocksConfig,
        ReadingConfig,
        QualitativeConfig,
        VolumeTableConfig,
        SamplingConfig,
        PromptsConfig,
        QualitativeVolumesConfig,
        VolumeDataConfig,
        LabelLatentConfig,
        VolumePredictConfig,
    )
}


def config_from_record(record: Mapping[str, Any]) -> Config:
    """The configuration that a record's config.json describes.

    Raises:
        ValueError: its fields are no longer those of any configuration class (the record is stale).
    """
    names = set(record) | {"out_dir"}
    for cls in CONFIGS.values():
        if names == {field.name for field in fields(cls)}:
            try:
                return cls.from_params(**record)
            except TypeError as error:
                raise ValueError(str(error)) from error
    raise ValueError("the record's parameters are those of no configuration class here: another version made it")


def _typed(name: str, value: Any, annotation: str) -> Any:
    """``value`` as the field's type: papermill hands a whole number to a float field, and "6" as 6 to a text field."""
    if annotation == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation == "str" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if type(value).__name__ != annotation:
        raise TypeError(f"{name}={value!r} is {type(value).__name__}, but must be {annotation}")
    return value

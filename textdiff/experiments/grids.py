"""Which runs make which table. In: a table's name and a data set. Out: its rows, and for each the configurations to run.

One definition serves the command that makes the runs (``textdiff sweep``), the check whether they are there already, and the
notebook that draws the table. A run is known by its configuration, so that tables may share runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from textdiff.experiments.config import (
    PHANTOMS,
    RANDOM,
    REDRAWN,
    SHIPPED,
    VOLUME_PHANTOMS,
    Config,
    TextDiffConfig,
    TextDiffSegConfig,
)

# What the runs of all tables share, per data set. Full mode uses the small backbones and the text encoder that ship with the
# package: what two processor cores can do. `textdiff run 13 -p mode full` without more runs the paper's sizes.
COMMON: dict[str, dict[str, Any]] = {
    "monuseg": {
        "text_encoder": "tiny",
        "iterations": 300,
        "batch_size": 2,
        "validate_every": 50,
        "learning_rate": 2e-3,
        "views": 8,
    },
    # One noise step instead of the paper's three: a third of the cost, and next to nothing lost on validation images
    "qata": {
        "text_encoder": "tiny",
        "image_size": 96,
        "steps": "50",
        "iterations": 1500,
        "batch_size": 8,
        "validate_every": 250,
        "learning_rate": 2e-3,
        "views": 24,
    },
    "nuclei_phantoms": {"iterations": 40, "validate_every": 20, "max_test": 10},
    "chest_phantoms": {"iterations": 80, "validate_every": 40, "max_test": 20},
}
# The same for volumes. The published Hippocampus runs: small preset, shipped text encoder, two cores
COMMON_3D: dict[str, dict[str, Any]] = {
    "hippocampus": {"text_encoder": "tiny", "prompts": "class"},
    # Three organs and one patch a step: what a demo can learn in a minute
    "abdomen_phantoms": {
        "structures": "liver,left kidney,right kidney",
        "iterations": 90,
        "validate_every": 45,
        "batch_size": 1,
        "max_val": 2,
        "max_test": 4,
    },
}
# Networks trained from scratch draw new views all the time
FROM_SCRATCH = {"learning_rate": 1e-3, "views": 0}
# Labelled images of the label-efficiency figure
LABELS = {
    "monuseg": (1, 2, 5, 10, 24),
    "qata": (10, 50, 150, 500, 1500),
    "nuclei_phantoms": (1, 5),
    "chest_phantoms": (10, 60),
    "hippocampus": (5, 10, 20, 0),  # 0: all
    "abdomen_phantoms": (4, 12),
}
SEEDS = {"full": (0, 1, 2), "demo": (0,)}


@dataclass(frozen=True)
class Row:
    """One line of a table: its label and the parameters in which it differs from the others."""

    label: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The runs behind one table. ``common``: parameters of all rows; ``seeds``: draws of the labelled images;
    ``kind``: the configuration class of its runs."""

    name: str
    question: str
    rows: tuple[Row, ...]
    common: dict[str, Any]
    seeds: tuple[int, ...]
    kind: type[Config] = TextDiffConfig

    def configs(self, row: Row) -> list[Config]:
        """The row's configurations, one a seed."""
        return [self.kind.from_params(**{**self.common, **row.fields, "seed": seed}) for seed in self.seeds]

    def all(self) -> list[Config]:
        """The configurations of all rows, each once, the first seed of every row first."""
        by_row = [self.configs(row) for row in self.rows]
        ordered = [config for draw in zip(*by_row, strict=True) for config in draw]
        return list({config.run_id: config for config in ordered}.values())


def grid(name: str, dataset: str, mode: str = "full", seeds: Sequence[int] | None = None) -> Grid:
    """The grid called ``name`` (one of :data:`GRIDS`) for a data set.

    ``mode`` "demo" is for phantoms: few rows, short runs. ``seeds``: draws of the labelled images, default three (demo: one).

    Raises:
        ValueError: an unknown name or data set, or a real data set in demo mode.
    """
    known = GRIDS | GRIDS_3D
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise ValueError(
            f"no grid {name!r}{f', did you mean {near[0]!r}?' if near else ''} There are: {', '.join(known)}"
        )
    settings = COMMON if name in GRIDS else COMMON_3D
    if dataset not in settings:
        raise ValueError(f"no grid {name} for dataset={dataset!r}: there are grids for {', '.join(settings)}")
    if mode == "demo" and dataset not in (*PHANTOMS, *VOLUME_PHANTOMS):
        phantoms = ", ".join(d for d in settings if d in (*PHANTOMS, *VOLUME_PHANTOMS))
        raise ValueError(f"demo mode runs on phantoms ({phantoms}), not on {dataset!r}")
    question, rows = known[name]
    common = {"mode": mode, "dataset": dataset, **settings[dataset]}
    seeds = tuple(SEEDS[mode] if seeds is None else seeds)
    if name in GRIDS:
        return Grid(name, question, tuple(rows(dataset, mode)), {"backbone": SHIPPED[dataset], **common}, seeds)
    return Grid(name, question, tuple(rows(dataset, mode)), common, seeds, TextDiffSegConfig)


def _comparison(dataset: str, mode: str) -> list[Row]:
    backbone = SHIPPED[dataset]
    frozen = [
        Row("TextDiff", {}),
        Row("TextDiff without text", {"model": "textdiff_no_text"}),
        Row("TextDiff, redrawn weights", {"backbone": REDRAWN + backbone}),
    ]
    scratch = {"unet": "U-Net", "text_unet": "U-Net that reads"}
    if mode == "full":
        frozen.append(Row("TextDiff, random weights", {"backbone": RANDOM + backbone}))
        if dataset == "monuseg":
            fine = {"image_size": 512, "blocks": "1,4,7", "steps": "50"}
            frozen.append(Row("TextDiff at 512 px, one noise step", fine))
            frozen.append(Row("the same with changes of stain", {**fine, "augmentation": "stain"}))
        scratch |= {
            "unetpp": "U-Net++",
            "attention_unet": "Attention U-Net",
            "swin_unetr": "SwinUNETR",
            "dynunet": "DynUNet (nnU-Net)",
            "mednext": "MedNeXt",
        }
    return frozen + [Row(label, {"model": model, **FROM_SCRATCH}) for model, label in scratch.items()]


def _ablation(dataset: str, mode: str) -> list[Row]:
    return [
        Row("without text (ζ1)", {"model": "textdiff_no_text"}),
        Row("text without cross-attention (ζ2)", {"model": "textdiff_concat"}),
        Row("TextDiff", {}),
    ]


def _label_efficiency(dataset: str, mode: str) -> list[Row]:
    models = {
        "TextDiff": {"model": "textdiff"},
        "TextDiff without text": {"model": "textdiff_no_text"},
        "U-Net": {"model": "unet", **FROM_SCRATCH},
    }
    return [Row(label, {**fields, "n_labels": n}) for label, fields in models.items() for n in LABELS[dataset]]


def _audit(dataset: str, mode: str) -> list[Row]:
    base = Row("corrected protocol", {})
    quirks = [
        Row("ten tokens", {"caption_tokens": 10}),
        Row("padding read as words", {"text_mask": "off"}),
        Row("augmentation against the sentence", {"augmentation": "contradict"}),
    ]
    if mode == "full":
        quirks += [
            Row("turns and flips only, with the sentence", {"augmentation": "follow"}),
            Row("blue and red exchanged", {"channel_order": "BGR"}),
            Row("Dice on logits", {"dice_on": "logits", "dice_over": "batch", "dice_weight": 1.5}),
            Row("dilated masks", {"mask_rule": "dilated", "resize": "bilinear"}),
            Row("chosen on the test images", {"select_on": "test"}),
        ]
    # The same head as in the other rows, so that nothing but the protocol differs
    return [base, *quirks, Row("official protocol", {"protocol": "official", "head": "decoder"})]


def _reading(dataset: str, mode: str) -> list[Row]:
    # On phantoms reading takes longer to learn than seeing
    long = {"iterations": 160, "validate_every": 80} if mode == "demo" else {}
    switches = {
        "whole sentence, places, mask": {},
        "without places in the queries": {"positions": "off"},
        "ten tokens": {"caption_tokens": 10},
        "padding read as words": {"text_mask": "off"},
        "none of them": {"positions": "off", "caption_tokens": 10, "text_mask": "off"},
    }
    if mode == "demo":
        del switches["padding read as words"]
    return [Row(label, {**long, **fields}) for label, fields in switches.items()]


def _encoders(dataset: str, mode: str) -> list[Row]:
    rows = [Row("shipped encoder", {"text_encoder": "tiny"})]
    if mode == "full":
        rows.append(Row("Bio_ClinicalBERT (paper)", {"text_encoder": "emilyalsentzer/Bio_ClinicalBERT"}))
    return rows


GRIDS: dict[str, tuple[str, Callable[[str, str], list[Row]]]] = {
    "comparison": ("Is TextDiff better than what a reader would use instead?", _comparison),
    "ablation": ("Is it the text, and is it the cross-attention?", _ablation),
    "label_efficiency": ("How many labelled images does it take?", _label_efficiency),
    "audit": ("What is each quirk of the authors' code worth?", _audit),
    "reading": ("What makes the model read?", _reading),
    "encoders": ("Does the text encoder matter?", _encoders),
}


# --- volumes -------------------------------------------------------------------------------------------

LABELS_3D = {
    "segresnet": "SegResNet",
    "dynunet": "DynUNet (nnU-Net)",
    "mednext": "MedNeXt",
    "swin_unetr": "SwinUNETR",
    "unetr": "UNETR",
}


# Steps of the runs that are many: a quarter of the preset's 5000
SHORT = {"full": {"iterations": 1200, "validate_every": 200}, "demo": {}}


def _comparison_3d(dataset: str, mode: str) -> list[Row]:
    if mode == "demo":
        return [Row("TextDiffSeg", {}), Row("SegResNet", {"model": "segresnet"})]
    models = {"TextDiffSeg": "textdiffseg"} | {label: model for model, label in LABELS_3D.items()}
    long = [Row(f"{label}, 5000 steps", {"model": model}) for label, model in models.items()]
    return long + [Row(f"{label}, 1200 steps", {"model": model, **SHORT[mode]}) for label, model in models.items()]


def _ablation_3d(dataset: str, mode: str) -> list[Row]:
    rows = [
        Row("TextDiffSeg", {}),
        Row("without text fusion", {"model": "textdiffseg_no_text"}),
        Row("without image features", {"model": "textdiffseg_no_image_features"}),
        Row("without label encoder", {"model": "textdiffseg_no_label_encoder"}),
        Row("without joint loss", {"model": "textdiffseg_no_joint_loss"}),
    ]
    return [Row(row.label, {**row.fields, **SHORT[mode]}) for row in (rows if mode == "full" else rows[:2])]


def _label_efficiency_3d(dataset: str, mode: str) -> list[Row]:
    models = {"TextDiffSeg": "textdiffseg"} | ({"SegResNet": "segresnet"} if mode == "full" else {})
    return [
        Row(label, {"model": model, "n_labels": n, **SHORT[mode]})
        for label, model in models.items()
        for n in LABELS[dataset]
    ]


def _prompts_3d(dataset: str, mode: str) -> list[Row]:
    kinds = {"class": "the structure's name", "anatomy": "a description true of anybody"}
    if mode == "full":
        kinds |= {"report": "findings of this patient (made from the label)", "mixed": "all three in turn"}
    return [Row(label, {"prompts": kind, **SHORT[mode]}) for kind, label in kinds.items()]


GRIDS_3D: dict[str, tuple[str, Callable[[str, str], list[Row]]]] = {
    "comparison3d": ("Is TextDiffSeg better than what a reader would use instead?", _comparison_3d),
    "ablation3d": ("Which of the paper's modules matter?", _ablation_3d),
    "label_efficiency3d": ("How many labelled volumes does it take?", _label_efficiency_3d),
    "prompts3d": ("Which kind of sentence should one write?", _prompts_3d),
}

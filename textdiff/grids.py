"""Which runs make which table. In: a table's name and a data set. Out: its rows, and for each the configurations to run.

One definition serves the command that makes the runs (``textdiff sweep``), the check whether they are there already, and the
notebook that draws the table. A run is known by its configuration, so that tables may share runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from textdiff.config import PHANTOMS, RANDOM, REDRAWN, SHIPPED, TextDiffConfig

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
# Networks trained from scratch draw new views all the time
FROM_SCRATCH = {"learning_rate": 1e-3, "views": 0}
# Labelled images of the label-efficiency figure
LABELS = {
    "monuseg": (1, 2, 5, 10, 24),
    "qata": (10, 50, 150, 500, 1500),
    "nuclei_phantoms": (1, 5),
    "chest_phantoms": (10, 60),
}
SEEDS = {"full": (0, 1, 2), "demo": (0,)}


@dataclass(frozen=True)
class Row:
    """One line of a table: its label and the parameters in which it differs from the others."""

    label: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The runs behind one table. ``common``: parameters of all rows; ``seeds``: draws of the labelled images."""

    name: str
    question: str
    rows: tuple[Row, ...]
    common: dict[str, Any]
    seeds: tuple[int, ...]

    def configs(self, row: Row) -> list[TextDiffConfig]:
        """The row's configurations, one a seed."""
        return [TextDiffConfig.from_params(**{**self.common, **row.fields, "seed": seed}) for seed in self.seeds]

    def all(self) -> list[TextDiffConfig]:
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
    if name not in GRIDS:
        near = difflib.get_close_matches(name, GRIDS, 1)
        raise ValueError(
            f"no grid {name!r}{f', did you mean {near[0]!r}?' if near else ''} There are: {', '.join(GRIDS)}"
        )
    if dataset not in COMMON:
        raise ValueError(f"no grid for dataset={dataset!r}: there are grids for {', '.join(COMMON)}")
    if mode == "demo" and dataset not in PHANTOMS:
        raise ValueError(f"demo mode runs on phantoms ({', '.join(PHANTOMS)}), not on {dataset!r}")
    question, rows = GRIDS[name]
    common = {"mode": mode, "dataset": dataset, "backbone": SHIPPED[dataset], **COMMON[dataset]}
    return Grid(name, question, tuple(rows(dataset, mode)), common, tuple(SEEDS[mode] if seeds is None else seeds))


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

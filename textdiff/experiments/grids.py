"""Which runs make which table. In: a table's name and a data set. Out: its rows, and for each the configurations to run.

One definition serves the command that makes the runs (``textdiff sweep``), the check whether they are there already, and the
notebook that draws the table. A run is known by its configuration, so that tables may share runs. What the runs of all tables
share stands in the data set's entry of the registry: the small backbones and the text encoder that ship with the package,
what two processor cores can do. Tables of synthetic data are small: they show how a table is read, with few rows and one draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textdiff.base.parsing import did_you_mean
from textdiff.base.paths import results_dir
from textdiff.data import registry
from textdiff.experiments.config import Config
from textdiff.experiments.images import IMAGENET, TextDiffConfig
from textdiff.experiments.records import load_records, published_dir
from textdiff.experiments.volumes import TextDiffSegConfig
from textdiff.models.store import BLIND, RANDOM, REDRAWN

if TYPE_CHECKING:
    import pandas as pd

# Networks that are trained whole draw new views all the time
FROM_SCRATCH: dict[str, Any] = {"learning_rate": 1e-3, "views": 0, "channel_dropout": 0.0}
# Without what we added to the training, and steps and head as the authors have them (papers and code: book/differences.md)
AS_PUBLISHED: dict[str, Any] = {
    **{"protocol": "official", "head": "official", "noise_steps": "50,150,250", "views": 0, "mirrored": "off"},
    **{"batch_size": 1, "learning_rate": 1e-4, "weight_decay": 0.0, "channel_dropout": 0.0, "ema_decay": 0.0},
}
LARGE = "chest_64"  # the larger of the two backbones for chest X-rays


@dataclass(frozen=True)
class Row:
    """One line of a table: its label and the parameters in which it differs from the others."""

    label: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The runs behind one table. ``common``: parameters of all rows; ``seeds``: draws of the labelled cases;
    ``kind``: the configuration class of its runs."""

    name: str
    question: str
    rows: tuple[Row, ...]
    common: dict[str, Any]
    seeds: tuple[int, ...]
    kind: type[Config] = TextDiffConfig

    def configs(self, row: Row) -> list[Config]:
        """The row's configurations, one per seed; whether this machine has what they name is asked when they are to be run."""
        return [self.kind.resolved(**{**self.common, **row.fields, "seed": seed}) for seed in self.seeds]

    def all(self) -> list[Config]:
        """The configurations of all rows, each once, the first seed of every row first."""
        by_row = [self.configs(row) for row in self.rows]
        ordered = [config for draw in zip(*by_row, strict=True) for config in draw]
        return list({config.run_id: config for config in ordered}.values())

    def only(self, labels: Sequence[str]) -> Grid:
        """The grid with the rows of these labels alone. Raises ValueError for an unknown label (the nearest is named)."""
        known = list(dict.fromkeys(row.label for row in self.rows))
        for label in labels:
            if label not in known:
                hint = did_you_mean(label, known)
                raise ValueError(f"grid {self.name} has no row {label!r}{hint}. It has: {'; '.join(known)}")
        return replace(self, rows=tuple(row for row in self.rows if row.label in labels))

    def changed(self, fields: dict[str, Any]) -> Grid:
        """The grid with other parameters in all rows. Raises ValueError for one in which its rows differ."""
        own = sorted(name for name in fields if any(name in row.fields for row in self.rows))
        if own:
            raise ValueError(
                f"the rows of grid {self.name} differ in {', '.join(own)}: that cannot be set for all of them"
            )
        return replace(self, common=self.common | fields)


def grid(name: str, dataset: str, seeds: Sequence[int] | None = None) -> Grid:
    """The grid called ``name`` (one of :data:`GRIDS`) for a data set.

    ``seeds``: draws of the labelled cases; default 0, 1, 2 ..., as many as the data set's entry says.

    Raises:
        ValueError: an unknown name or data set, a data set of the other kind, or one of which there is nothing to ask.
    """
    if name not in GRIDS:
        raise ValueError(f"no grid {name!r}{did_you_mean(name, GRIDS)}. There are: {', '.join(GRIDS)}")
    entry = registry.dataset(dataset)
    question, kind, rows = GRIDS[name]
    volumes = kind is TextDiffSegConfig
    if (entry.kind == "volumes") != volumes:
        raise ValueError(f"grid {name} is about {'volumes' if volumes else 'images'}, and {dataset} holds {entry.kind}")
    common: dict[str, Any] = {"mode": "full", "dataset": dataset, "text_encoder": "tiny"}
    if not volumes:
        common["backbone"] = entry.backbone
    common |= entry.runs.get("cost" if name == "cost" else "grid", {})
    draws = tuple(range(entry.draws) if seeds is None else seeds)
    wanted = tuple(rows(entry))
    if not wanted:
        lacking = {"cost": "runs for 'cost'", "recipe": "such choices"}.get(name, "label_counts")
        raise ValueError(f"grid {name} has no rows for {dataset}: the entry of the registry names no {lacking}")
    return Grid(name, question, wanted, common, draws, kind)


Rows = Callable[[registry.DatasetEntry], list[Row]]
# Rows of the comparison that make sense for one data set alone: few labels beside many, views, pixels, films without masks
UNET: dict[str, Any] = {"model": "unet", **FROM_SCRATCH}
FINE: dict[str, Any] = {"image_size": 512, "blocks": "1,4,7", "noise_steps": "50"}
ASKED_OF_ONE: dict[str, list[Row]] = {
    "monuseg": [
        Row("TextDiff on all 24 labelled images", {"n_labels": 24}),
        Row("U-Net on all 24 labelled images", {**UNET, "n_labels": 24}),
        Row("U-Net, eight fixed views of an image", {**UNET, "views": 8}),
        Row("U-Net on all 24, eight fixed views of each", {**UNET, "n_labels": 24, "views": 8}),
        Row("TextDiff at 512 px, one noise step", FINE),
        Row("the same with changes of stain", {**FINE, "augmentation": "stain"}),
        Row("U-Net at 512 px", {**UNET, "image_size": 512}),
    ],
    "qata": [
        Row("TextDiff, and films with a sentence alone", {"unlabelled": "all"}),
        Row("U-Net that reads, and the same films", {"model": "text_unet", **FROM_SCRATCH, "unlabelled": "all"}),
    ],
}


def _comparison(entry: registry.DatasetEntry) -> list[Row]:
    frozen = [
        Row("TextDiff", {}),
        Row("TextDiff without text", {"model": "textdiff_no_text"}),
        Row("TextDiff, redrawn weights", {"backbone": REDRAWN + entry.backbone}),
    ]
    scratch = {"unet": "U-Net", "text_unet": "U-Net that reads"}
    if not entry.synthetic:
        frozen.append(Row("TextDiff, random weights", {"backbone": RANDOM + entry.backbone}))
        maps = "0,1,2,3" if entry.name == "monuseg" else "1,2,3"
        other = {"backbone": IMAGENET, "blocks": maps, "noise_steps": "none"}
        frozen.append(Row("TextDiff, ImageNet network (EfficientNet-Lite2)", other))
        scratch |= {
            "unetpp": "U-Net++",
            "attention_unet": "Attention U-Net",
            "swin_unetr": "SwinUNETR",
            "dynunet": "DynUNet (nnU-Net)",
            "mednext": "MedNeXt",
        }
    rows = [Row(label, {"model": model, **FROM_SCRATCH}) for model, label in scratch.items()]
    if not entry.synthetic:
        trained_on = {**FROM_SCRATCH, "backbone": IMAGENET}
        rows.append(Row("U-Net, ImageNet encoder", {"model": "tuned_unet", **trained_on}))
        rows.append(Row("U-Net that reads, ImageNet encoder", {"model": "tuned_text_unet", **trained_on}))
    return frozen + rows + ASKED_OF_ONE.get(entry.name, [])


def _ablation(entry: registry.DatasetEntry) -> list[Row]:
    # Ours beside the paper's two: what the sentence gives away. Drawn films are made so that it does
    blind = [] if entry.synthetic else [Row("without the picture (ours)", {"backbone": BLIND + entry.backbone})]
    return [
        Row("without text (ζ1)", {"model": "textdiff_no_text"}),
        Row("text without cross-attention (ζ2)", {"model": "textdiff_concat"}),
        *blind,
        Row("TextDiff", {}),
    ]


def _recipe(entry: registry.DatasetEntry) -> list[Row]:
    """One choice of ours taken back at a time, where the runs of the tables have made them."""
    chosen = entry.runs.get("grid", {})
    if not {"ema_decay", "mirrored", "channel_dropout"} <= set(chosen):
        return []
    return [
        Row("TextDiff", {}),
        Row("latest weights, not their average", {"ema_decay": 0.0}),
        Row("without the mirrored image", {"mirrored": "off"}),
        Row("no channel left out in training", {"channel_dropout": 0.0}),
        Row("head of 64 channels", {"head": "decoder"}),
        Row("smaller backbone", {"backbone": "chest_32"}),
        Row("three noise steps", {"noise_steps": "50,150,250"}),
        Row("and films with a sentence alone", {"unlabelled": "all"}),
    ]


def _label_efficiency(entry: registry.DatasetEntry) -> list[Row]:
    models = {
        "TextDiff": {"model": "textdiff"},
        "TextDiff without text": {"model": "textdiff_no_text"},
        "U-Net": {"model": "unet", **FROM_SCRATCH},
        "U-Net that reads": {"model": "text_unet", **FROM_SCRATCH},
    }
    return [Row(label, {**fields, "n_labels": n}) for label, fields in models.items() for n in entry.label_counts]


def _audit(entry: registry.DatasetEntry) -> list[Row]:
    of_one_class = len(entry.structures) == 1
    dilated = Row("dilated masks", {"mask_rule": "dilated", "resize": "bilinear"})
    quirks = [
        Row("ten tokens", {"caption_tokens": 10}),
        Row("padding read as words", {"text_mask": "off"}),
        Row("augmentation against the sentence", {"augmentation": "contradict"}),
    ]
    if not entry.synthetic:
        quirks += [
            Row("turns and flips only, with the sentence", {"augmentation": "follow"}),
            Row("blue and red exchanged", {"channel_order": "BGR"}),
            Row("Dice on logits", {"dice_on": "logits", "dice_over": "batch", "dice_weight": 1.5}),
            *([dilated] if of_one_class else []),
            Row("chosen on the test images", {"select_on": "test"}),
        ]
    if not of_one_class:  # the authors' rule for masks, a part of their protocol, knows one class
        return [Row("corrected protocol", {}), *quirks]
    # The same head as in the other rows, so that nothing but the protocol differs
    head = entry.runs.get("grid", {}).get("head", "decoder")
    official = Row("official protocol", {"protocol": "official", "head": head})
    rows = [Row("corrected protocol", {}), *quirks, official]
    if not entry.synthetic and entry.n_labels != "all":
        epochs = {"iterations": 50 * int(entry.n_labels), "validate_every": 10 * int(entry.n_labels)}
        rows.append(Row("the authors' head and training", AS_PUBLISHED | epochs))
    return rows


def _reading(entry: registry.DatasetEntry) -> list[Row]:
    return [
        Row("whole sentence, places, mask", {}),
        Row("without places in the queries", {"positions": "off"}),
        Row("ten tokens", {"caption_tokens": 10}),
        Row("padding read as words", {"text_mask": "off"}),
        Row("none of them", {"positions": "off", "caption_tokens": 10, "text_mask": "off"}),
    ]


def _encoders(entry: registry.DatasetEntry) -> list[Row]:
    rows = [Row("shipped encoder", {"text_encoder": "tiny"})]
    if not entry.synthetic:
        rows.append(Row("MiniLM, trained on sentences of all kinds", {"text_encoder": "all-MiniLM-L6-v2"}))
        rows.append(Row("Bio_ClinicalBERT (paper)", {"text_encoder": "emilyalsentzer/Bio_ClinicalBERT"}))
    return rows


def _cost(entry: registry.DatasetEntry) -> list[Row]:
    """One choice changed at a time, for data sets whose small runs are set."""
    if "cost" not in entry.runs:
        return []
    backbone = str(entry.runs["cost"]["backbone"])
    return [
        Row(backbone, {}),
        Row(LARGE, {"backbone": LARGE}),
        Row(f"{backbone} with random weights", {"backbone": RANDOM + backbone}),
        Row(f"{backbone} with redrawn weights", {"backbone": REDRAWN + backbone}),
        Row("three noise steps", {"noise_steps": "50,150,250"}),
        Row("one block", {"blocks": "4"}),
        Row("two blocks", {"blocks": "4,7"}),
        Row("four blocks", {"blocks": "1,4,7,10"}),
        Row("float32", {"precision": "float32"}),
    ]


# --- volumes -------------------------------------------------------------------------------------------

NETWORKS = {
    "SegResNet": "segresnet",
    "DynUNet (nnU-Net)": "dynunet",
    "MedNeXt": "mednext",
    "SwinUNETR": "swin_unetr",
    "UNETR": "unetr",
}


def _short(entry: registry.DatasetEntry) -> dict[str, Any]:
    """Steps of the runs that are many: a quarter of the preset's 5000."""
    return {} if entry.synthetic else {"iterations": 1200, "validate_every": 200}


def _comparison_3d(entry: registry.DatasetEntry) -> list[Row]:
    if entry.synthetic:
        return [Row("TextDiffSeg", {}), Row("SegResNet", {"model": "segresnet"})]
    models = {"TextDiffSeg": "textdiffseg", **NETWORKS}
    long = [Row(f"{label}, 5000 steps", {"model": model}) for label, model in models.items()]
    return long + [Row(f"{label}, 1200 steps", {"model": model, **_short(entry)}) for label, model in models.items()]


def _ablation_3d(entry: registry.DatasetEntry) -> list[Row]:
    rows = {
        "TextDiffSeg": "textdiffseg",
        "without text fusion": "textdiffseg_no_text",
        "without image features": "textdiffseg_no_image_features",
        "without label encoder": "textdiffseg_no_label_encoder",
        "without joint loss": "textdiffseg_no_joint_loss",
    }
    wanted = list(rows)[:2] if entry.synthetic else list(rows)
    return [Row(label, {"model": rows[label], **_short(entry)}) for label in wanted]


def _label_efficiency_3d(entry: registry.DatasetEntry) -> list[Row]:
    models = {"TextDiffSeg": "textdiffseg"} | ({} if entry.synthetic else {"SegResNet": "segresnet"})
    return [
        Row(label, {"model": model, "n_labels": n, **_short(entry)})
        for label, model in models.items()
        for n in entry.label_counts
    ]


def _prompts_3d(entry: registry.DatasetEntry) -> list[Row]:
    kinds = {"class": "the structure's name", "anatomy": "a description true of anybody"}
    if not entry.synthetic:
        kinds |= {"report": "findings of this patient (made from the label)", "mixed": "all three in turn"}
    return [Row(label, {"prompts": kind, **_short(entry)}) for kind, label in kinds.items()]


IMAGES, VOLUMES = TextDiffConfig, TextDiffSegConfig
GRIDS: dict[str, tuple[str, type[Config], Rows]] = {
    "comparison": ("Is TextDiff better than what a reader would use instead?", IMAGES, _comparison),
    "ablation": ("Is it the text, and is it the cross-attention?", IMAGES, _ablation),
    "recipe": ("What does each choice of ours add?", IMAGES, _recipe),
    "label_efficiency": ("How many labelled images does it take?", IMAGES, _label_efficiency),
    "audit": ("What is each quirk of the authors' code worth?", IMAGES, _audit),
    "reading": ("What makes the model read?", IMAGES, _reading),
    "encoders": ("Does the text encoder matter?", IMAGES, _encoders),
    "cost": ("What does a cheaper or dearer choice change in the Dice?", IMAGES, _cost),
    "comparison3d": ("Is TextDiffSeg better than what a reader would use instead?", VOLUMES, _comparison_3d),
    "ablation3d": ("Which of the paper's modules matter?", VOLUMES, _ablation_3d),
    "label_efficiency3d": ("How many labelled volumes does it take?", VOLUMES, _label_efficiency_3d),
    "prompts3d": ("Which kind of sentence should one write?", VOLUMES, _prompts_3d),
}


def table_of(name: str, config: Any, labels: Sequence[str] = ()) -> tuple[Grid, pd.DataFrame]:
    """The grid of a table notebook, and the records to draw it from: your own, then the published ones. Nothing is trained.

    Args:
        name: one of :data:`GRIDS`.
        config: with ``dataset``, ``seed`` (of the first draw), ``n_seeds`` and ``out_dir``.
        labels: the rows that are wanted; all if empty.
    """
    table = grid(name, config.dataset, range(config.seed, config.seed + config.n_seeds))
    return table.only(labels) if labels else table, load_records([config.out_dir or results_dir(), published_dir()])

"""What is known about a data set, a backbone or a trained model: the classes of their entries, and such entries out of JSON.

In: facts, by keyword or as an object of a JSON file. Out: a checked entry, or an error that says which fact is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from textdiff.base.parsing import did_you_mean, numbers
from textdiff.base.paths import data_dir
from textdiff.data.placing import bring_back

Kind = Literal["images", "volumes"]
Split = Literal["official", "manifest", "hash", "drawn"]
LAYOUTS: dict[str, tuple[str, ...]] = {
    "images": ("lvit", "phantoms"),
    "volumes": ("msd", "kits", "amos", "btcv", "totalsegmentator", "phantoms"),
}
Parameters = Mapping[str, str | int | float]


@dataclass(frozen=True)
class GitHub:
    """A data set in a public repository. `as_archive`: one zip of the repository, else file by file.

    manifest: file of data/manifests with the git blob id of each file. size: bytes.
    """

    repository: str
    commit: str
    folder: str
    layout: Literal["lvit", "sgseg"]
    manifest: str
    as_archive: bool
    size: int


@dataclass(frozen=True)
class Decathlon:
    """A task of the Medical Segmentation Decathlon: one tar that holds `folder`; MONAI keeps address and MD5."""

    folder: str
    size: int  # bytes, about
    layout: str = "msd"


@dataclass(frozen=True)
class DatasetEntry:
    """All facts about a data set.

    layout: how its files lie, or "phantoms". class_names: "background" first; for volumes these are the labels 0..K in our
    numbering. folders: names under which it is met in `data_dir()`, in order of preference. split: "official" (the folder
    says), "manifest" (in data/manifests), "hash" (of the case name), "drawn" (phantoms). backbone: the small one that demo
    mode reads. n_labels: how many labelled cases a run draws unless told otherwise; label_counts: those of the
    label-efficiency figure. draws: of the labelled cases, in its tables. model: the shipped one that was trained on it. runs: parameters of a run notebook that this
    data set changes where they are "auto", under "demo" and "full"; under "grid" those that all runs of its tables share, under "cost" what the small
    runs of cost against Dice change of them. pretraining: likewise.

    Volumes only: labels: value in the file -> our label, by default 1..K in order; a value mapped to 0 is known and not
    asked for, one not listed is an error. window: HU, None for MR. spacing: mm of the grid to work on, None for the file's
    own. patch: voxels. last_case: cases named as their publisher names them, of a higher number, have no published labels, or
    are of another modality.
    """

    name: str
    kind: Kind
    layout: str
    class_names: tuple[str, ...]
    licence: str
    title: str = ""
    citation: str = ""
    home: str = ""
    modality: str = ""
    folders: tuple[str, ...] = ()
    split: Split = "hash"
    manifest: str = ""
    source: GitHub | Decathlon | None = None
    backbone: str = "phantoms_32"
    n_labels: int | Literal["all"] = 5
    label_counts: tuple[int | Literal["all"], ...] = ()
    draws: int = 3
    model: str = ""
    runs: Mapping[str, Parameters] = field(default_factory=dict)
    pretraining: Parameters = field(default_factory=dict)
    labels: Mapping[int, int] = field(default_factory=dict)
    window: tuple[float, float] | None = None
    spacing: tuple[float, float, float] | None = None
    patch: tuple[int, int, int] = (96, 96, 96)
    last_case: int | None = None

    def __post_init__(self) -> None:
        where = f"data set {self.name!r}"
        _check_choice(where, "kind", self.kind, get_args(Kind))
        _check_choice(where, "layout", self.layout, LAYOUTS[self.kind])
        _check_choice(where, "split", self.split, get_args(Split))
        named = all(name.strip() for name in self.class_names)
        if len(set(self.class_names)) != len(self.class_names) or self.class_names[:1] != ("background",) or not named:
            raise ValueError(
                f"{where}: class_names must differ and begin with 'background', none empty, got {self.class_names}"
            )
        counts = (("n_labels", self.n_labels), ("draws", self.draws), *(("label_counts", n) for n in self.label_counts))
        sizes = [("patch", side) for side in self.patch] + [("spacing", side) for side in self.spacing or ()]
        for name, value in (*counts, *sizes):
            if value != "all" and not value > 0:
                raise ValueError(f"{where}: {name} holds {value}, and must be above zero")
        if self.window and not self.window[0] < self.window[1]:
            raise ValueError(f"{where}: window is (lowest, highest) HU, got {self.window}")
        if (self.split == "manifest") != bool(self.manifest):
            raise ValueError(f"{where}: split 'manifest' needs a manifest, and no other split does")
        labels = self.labels or {number: number for number in range(1, len(self.class_names))}
        wrong = sorted({label for label in labels.values() if not 0 <= label < len(self.class_names)})
        if wrong:
            raise ValueError(f"{where}: labels {wrong} have no name among {len(self.structures)} structures")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "folders", self.folders or (self.name,))

    @property
    def synthetic(self) -> bool:
        """Whether its cases are drawn by this package."""
        return self.layout == "phantoms"

    @property
    def structures(self) -> tuple[str, ...]:
        """The class names without the background."""
        return self.class_names[1:]

    @property
    def sided(self) -> bool:
        """Whether some structures differ only in the patient's side, so that mirroring would make labels wrong."""
        return any({"left", "right"} & set(name.lower().split()) for name in self.structures)

    def only(self, structures: Sequence[str]) -> DatasetEntry:
        """The entry with these structures alone, numbered 1, 2, ... in this order; the others become background.

        Raises ValueError for an unknown structure, one named twice, or none.
        """
        unknown = [name for name in structures if name not in self.structures]
        if unknown or not structures or len(set(structures)) != len(structures):
            raise ValueError(
                f"structures of {self.name!r} must be some of {', '.join(self.structures)}, each once; got {structures!r}"
            )
        new = {self.structures.index(name) + 1: number for number, name in enumerate(structures, start=1)}
        labels = {value: new.get(label, 0) for value, label in self.labels.items()}
        return replace(self, class_names=("background", *structures), labels=labels)

    def folder(self) -> Path:
        """Where the data set lies under `data_dir()`, whatever the letter case of its folder's name.

        Raises FileNotFoundError that names the place looked at and how to bring the data there.
        """
        root = data_dir()
        for name in self.folders:
            bring_back(root / name)
        present = {path.name.lower(): path for path in root.iterdir() if path.is_dir()} if root.is_dir() else {}
        found = next((present[name.lower()] for name in self.folders if name.lower() in present), None)
        if found is None:
            bring = f"Bring it there with `textdiff fetch {self.name}`" if self.source else "Put it there"
            raise FileNotFoundError(
                f"data set {self.name!r} not found: looked for {' or '.join(self.folders)} in {root}. "
                f"{bring}, or set TEXTDIFF_DATA to the folder that holds it."
            )
        return found


@dataclass(frozen=True)
class Backbone:
    """A frozen denoising network, known by name.

    image_size: side in pixels at which it is tapped. blocks: data set -> decoder blocks to tap, "" for any other.
    folder: where config.json and model.safetensors are, absolute or in `weights_dir()`; by default its name.
    sha256, config_sha256: of these two files; "" for one of your own, or where the publisher gives none.
    packaged: it comes inside the package. address: of a single checkpoint that its publisher gives out instead, without a
    hash; address_sha256: the one that others have measured and state.
    """

    name: str
    image_size: int
    blocks: Mapping[str, str]
    trained_on: str = ""
    folder: str = ""
    sha256: str = ""
    config_sha256: str = ""
    size: int = 0
    packaged: bool = False
    address: str = ""
    address_sha256: str = ""
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if not self.blocks or self.image_size < 1:
            raise ValueError(f"backbone {self.name!r} needs blocks and a positive image_size")
        object.__setattr__(self, "folder", self.folder or self.name)

    def blocks_for(self, dataset: str) -> str:
        """Decoder blocks to tap for a data set, such as "6,8,12,16"; "" where the entry names none."""
        return self.blocks.get(dataset, self.blocks.get("", ""))


@dataclass(frozen=True)
class ShippedModel:
    """A trained model, known by name: config.json and model.safetensors, of these SHA-256."""

    name: str
    kind: Literal["TextDiff", "TextDiffSeg"]
    dataset: str
    sha256: str
    config_sha256: str
    size: int
    packaged: bool = False


def _check_choice(where: str, name: str, value: object, allowed: Iterable[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


# --- out of JSON ---------------------------------------------------------------------------------------

Entry = TypeVar("Entry", DatasetEntry, Backbone, ShippedModel)
RUNS = ("demo", "full", "grid", "cost")
REQUIRED = {DatasetEntry: ("kind", "layout", "class_names", "licence"), Backbone: ("image_size", "blocks")}
# Facts that only the package itself can state
CLOSED = {"name", "split", "manifest", "source", "model", "packaged", "address", "tensors", "parameters"}


WORDS = {str: "text", int: "whole number", float: "number", type(None): "null"}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is of the kind that an annotation asks for."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if outer is Literal:
        return value in inner
    if outer is tuple:
        kinds = inner[:1] * len(value) if ... in inner and isinstance(value, list) else inner
        return isinstance(value, list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if outer is Mapping:
        return isinstance(value, dict) and all(
            (inner[0] is str or key.isdecimal()) and _fits(item, inner[1]) for key, item in value.items()
        )
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _in_words(kind: Any) -> str:
    """The kind that an annotation asks for, as one would write it in JSON: "[number, number] or null"."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer is Literal:
        return " or ".join(f'"{one}"' for one in inner)
    parts = ["..." if one is ... else _in_words(one) for one in inner]
    if outer is tuple:
        return f"[{', '.join(parts)}]"
    if outer is Mapping:
        return f'{{"{parts[0]}": {parts[1]}, ...}}'
    return " or ".join(dict.fromkeys(parts)) if parts else WORDS[kind]


def entry_from_json(cls: type[Entry], name: str, facts: Mapping[str, Any]) -> Entry:
    """The entry `name` out of an object of a JSON file; lists become tuples.

    Raises ValueError that names the fact which is unknown, missing or of another type.
    """
    known = {fact: kind for fact, kind in get_type_hints(cls).items() if fact not in CLOSED}
    for fact in facts.keys() - known.keys():
        raise ValueError(f"unknown key {fact!r}{did_you_mean(fact, known)}")
    if missing := [fact for fact in REQUIRED[cls] if fact not in facts]:
        raise ValueError(f"missing key {', '.join(map(repr, missing))}")
    for fact, value in facts.items():
        if fact not in ("kind", "layout") and not _fits(value, known[fact]):
            raise ValueError(f"{fact}: expected {_in_words(known[fact])}, got {value!r}")
    values: dict[str, Any] = {fact: tuple(value) if isinstance(value, list) else value for fact, value in facts.items()}
    if "labels" in values:
        values["labels"] = {int(value): label for value, label in values["labels"].items()}
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise ValueError("a name is letters, digits, _ and -: it becomes part of file names")
    if values.get("layout") == "phantoms":
        raise ValueError("layout 'phantoms' is of the sets that this package draws")
    if cls is DatasetEntry and len(values["class_names"]) < 2:
        raise ValueError(f"class_names={facts['class_names']}: background and at least one class")
    for when in values.get("runs", {}):
        if when not in RUNS:
            raise ValueError(f"runs: unknown {when!r}; parameters are given for {', '.join(RUNS)}")
    for blocks in values["blocks"].values() if cls is Backbone else ():
        if not numbers(blocks):
            raise ValueError('blocks: give numbers such as {"": "1,4,7"}')
    if values.get("layout") == "lvit":
        values["split"] = "official"
    return cls(name=name, **values)

"""What is known about a data set, a backbone or a trained model: the classes of their entries, and such entries out of JSON.

In: facts, by keyword or as an object of a JSON file. Out: a checked entry, or an error that says which fact is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from textdiff.base.paths import data_dir

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
    says), "manifest" (shipped here, in data/manifests), "hash" (of the case name), "drawn" (phantoms).
    backbone: the small one that demo mode reads. n_labels: how many labelled cases a run draws unless told otherwise, or "all";
    label_counts: those of the label-efficiency figure. model: the shipped model that was trained on it.
    runs: parameters of a run notebook that this data set changes, under "demo" and "full"; under "grid" those that all
    runs of its tables share. pretraining: the same for pre-training.

    Volumes only: labels: value in the file -> our label, by default 1..K in order; a value mapped to 0 is known and not
    asked for, one not listed is an error. window: HU, None for MR. spacing: mm of the grid to work on, None for the file's
    own. patch: voxels. last_case: cases of a higher number have no published labels, or are of another modality.
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
        if len(set(self.class_names)) != len(self.class_names) or self.class_names[:1] != ("background",):
            raise ValueError(f"{where}: class_names must differ and begin with 'background', got {self.class_names}")
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
        return any(name.startswith(("left ", "right ")) for name in self.structures)

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
        present = {path.name.lower(): path for path in root.iterdir() if path.is_dir()} if root.is_dir() else {}
        found = next((present[name.lower()] for name in self.folders if name.lower() in present), None)
        if found is None:
            raise FileNotFoundError(
                f"data set {self.name!r} not found: looked for {' or '.join(self.folders)} in {root}. "
                f"Bring it there with `textdiff fetch {self.name}`, or set TEXTDIFF_DATA to the folder that holds it."
            )
        return found


@dataclass(frozen=True)
class Backbone:
    """A frozen denoising network, known by name.

    image_size: side in pixels at which it is tapped. blocks: data set -> decoder blocks to tap, "" for any other.
    folder: where config.json and model.safetensors are, absolute or in `weights_dir()`; by default its name.
    sha256, config_sha256: of these two files; "" for one of your own, or where the publisher gives none.
    packaged: it comes inside the package. address: of a single checkpoint that its publisher gives out instead;
    tensors, parameters: what must be in it.
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
    tensors: int = 0
    parameters: int = 0
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

Entry = TypeVar("Entry", DatasetEntry, Backbone)
REQUIRED = {DatasetEntry: ("kind", "layout", "class_names", "licence"), Backbone: ("image_size", "blocks")}
# Facts that only the package itself can state
CLOSED = {"name", "split", "manifest", "source", "model", "packaged", "address", "tensors", "parameters"}


def _is(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _list(*kinds: type, length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(_is(item, *kinds) for item in value)
    )


def _object(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(check(item) for item in value.values())


def _parameters(value: Any) -> bool:
    return _object(lambda item: _is(item, str, int, float))(value)


# Annotation of a field -> what JSON must hold, in words and as a check
TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a text", lambda value: _is(value, str)),
    "Kind": ("a text", lambda value: _is(value, str)),
    "int": ("a whole number", lambda value: _is(value, int)),
    "int | Literal['all']": ('a whole number or "all"', lambda value: _is(value, int) or value == "all"),
    "tuple[int | Literal['all'], ...]": (
        'a list of whole numbers or "all"',
        lambda value: isinstance(value, list) and all(_is(item, int) or item == "all" for item in value),
    ),
    "int | None": ("a whole number or null", lambda value: value is None or _is(value, int)),
    "tuple[str, ...]": ("a list of texts", _list(str)),
    "tuple[int, int, int]": ("a list of three whole numbers", _list(int, length=3)),
    "tuple[float, float] | None": (
        "a list of two numbers or null",
        lambda value: value is None or _list(int, float, length=2)(value),
    ),
    "tuple[float, float, float] | None": (
        "a list of three numbers or null",
        lambda value: value is None or _list(int, float, length=3)(value),
    ),
    "Mapping[str, str]": ("an object of texts", _object(lambda value: _is(value, str))),
    "Mapping[int, int]": (
        'an object such as {"2": 1}',
        lambda value: _object(lambda item: _is(item, int))(value) and all(key.isdecimal() for key in value),
    ),
    "Parameters": ("an object of texts and numbers", _parameters),
    "Mapping[str, Parameters]": ('an object such as {"demo": {"iterations": 100}}', _object(_parameters)),
}


def entry_from_json(cls: type[Entry], name: str, facts: Mapping[str, Any]) -> Entry:
    """The entry `name` out of an object of a JSON file; lists become tuples.

    Raises ValueError that names the fact which is unknown, missing or of another type.
    """
    known = {one.name: str(one.type) for one in fields(cls) if one.name not in CLOSED}
    for key in facts.keys() - known.keys():
        near = difflib.get_close_matches(key, known, 1)
        raise ValueError(f"unknown key {key!r}{f', did you mean {near[0]!r}?' if near else ''}")
    missing = [key for key in REQUIRED[cls] if key not in facts]
    if missing:
        raise ValueError(f"missing key {', '.join(map(repr, missing))}")
    values: dict[str, Any] = {}
    for key, value in facts.items():
        words, check = TYPES[known[key]]
        if not check(value):
            raise ValueError(f"{key} must be {words}, got {value!r}")
        values[key] = tuple(value) if isinstance(value, list) else value
    if "labels" in values:
        values["labels"] = {int(value): label for value, label in values["labels"].items()}
    if values.get("layout") == "lvit":
        values["split"] = "official"
    return cls(name=name, **values)

"""Whether cases can be used: cases of pictures or volumes in, a `Report` of everything that is wrong with them out.

Every file is read to its end, once: what was read without a fault is remembered by its size and date in
`cache_dir()/checks`, so that a second check of the same files starts at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from textdiff.base.files import read_json, write_text
from textdiff.base.paths import cache_dir
from textdiff.base.progress import Progress
from textdiff.data.cases import Case
from textdiff.data.faults import Fault, Report, counted, few, repeated
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.listings import bytes_of

FORMAT = 1  # of what is remembered, and of the check itself
ALONE = 64  # pictures that are read faster than processes start; a volume weighs as many as
PICTURES_PER_VOLUME = 8
EXTRA = "_extra"  # end of the name of a split that belongs to another: "train_extra" are images of training
BROKEN = "mend or replace the file, or leave the case out"
OneCase = Case | VolumeCase
Read = TypeVar("Read")


@dataclass(frozen=True)
class Examined:
    """What reading one case has told. values: lowest and highest of the image. labels: label -> how often it occurs."""

    faults: tuple[Fault, ...] = ()
    fingerprint: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    labels: Mapping[int, int] | None = None


def check_cases(
    cases: Mapping[str, Sequence[OneCase]],
    class_names: Sequence[str] = (),
    *,
    root: Path | None = None,
    progress: bool = True,
) -> Report:
    """Read all files of the cases and report everything that is wrong, not the first fault only.

    Faults: a file that cannot be read to its end, a picture of one value only, image and labels that do not lie on each
    other, labels that the classes do not have, a missing sentence, the same image in two splits, a name twice in a split.
    Warnings: what the readers warn of, no labels but background, a class that no training case has, the same image twice in
    a split.

    Args:
        cases: split -> its cases; "train_extra" counts as part of "train".
        class_names: background first; none where they are not known, then labels are only counted.
        root: folder of the data set, from which the report names files.
        progress: show how far it is.
    """
    every = [(split, case) for split, some in cases.items() for case in some]
    examined = _examined([case for _, case in every], len(class_names) or None, root, progress)
    found = [
        replace(fault, split=split)
        for (split, case), one in zip(every, examined, strict=True)
        for fault in _of_case(case, one)
    ]
    told = {split: [one for (of, _), one in zip(every, examined, strict=True) if of == split] for split in cases}
    found += _names_twice(cases) + _images_twice(every, examined) + _never_marked(told.get("train", []), class_names)
    return Report(tuple(found), {split: _facts(some, class_names) for split, some in told.items()}, root)


# --- one case ------------------------------------------------------------------------------------------


def examine(case: OneCase, num_classes: int | None = None) -> Examined:
    """Read one case whole. Nothing is raised: what goes wrong is among the faults, what is warned of too."""
    faults: list[Fault] = []

    def attempt(read: Callable[[], Read], file: Path | None, remedy: str) -> Read | None:
        try:
            return read()
        except Exception as error:  # a reader's library may raise anything on a damaged file
            text = " ".join(str(error).split())
            text = text if isinstance(error, (ValueError, OSError, ImportError)) else f"{type(error).__name__}: {text}"
            faults.append(Fault(text, case.name, str(file or ""), remedy, missing=isinstance(error, FileNotFoundError)))
            return None

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if isinstance(case, Case):
            one = _picture(case, attempt)
        else:
            one = _volume(case, attempt)
    told = dict.fromkeys(" ".join(str(warning.message).split()) for warning in said)
    faults += [Fault(text, case.name, str(_files(case)[0] if _files(case) else ""), warning=True) for text in told]
    faults += _of_labels(case, one.labels or {}, num_classes)
    return replace(one, faults=tuple(faults))


def _picture(case: Case, attempt: Callable[..., Any]) -> Examined:
    image = attempt(case.image, case.image_path, BROKEN)
    mask = attempt(case.mask, case.mask_path, "save it as PNG with one label per pixel") if case.labelled else None
    if image is None:
        return Examined(labels=_counts(mask))
    known = replace(case, image_array=image, mask_array=mask)
    if mask is not None:
        attempt(known.pair, case.mask_path, "bring both to one size (the mask without blending), or pair the right two")
    attempt(lambda: _check_not_empty(image, case), case.image_path, BROKEN)
    values = (float(image.min()), float(image.max()))
    return Examined((), known.fingerprint(), image.shape[:2], (), values, _counts(mask))


def _check_not_empty(image: np.ndarray, case: Case) -> None:
    if image.min() == image.max():
        where = case.image_path or case.name
        raise ValueError(f"{where}: every pixel has the same value {image.min()}: the picture is empty")


def _volume(case: VolumeCase, attempt: Callable[..., Any]) -> Examined:
    file = case.label_path or next(iter(case.masks.values()), None)
    image = attempt(case.image, case.image_path, BROKEN)
    remedy = "correct the label map, or the labels in the data set's entry"
    labels = attempt(case.labels, file, remedy) if case.labelled else None
    counts = None if labels is None else _counts(labels.array)
    if image is None:
        return Examined(labels=counts)
    if labels is not None:
        in_memory = VolumeCase(case.name, image_volume=image, label_volume=labels)
        attempt(in_memory.pair, file, "resample the labels to the image's grid, or pair the right two")
    fingerprint = VolumeCase(case.name, image_volume=image).fingerprint()
    values = (float(image.array.min()), float(image.array.max()))
    return Examined((), fingerprint, image.shape, image.spacing, values, counts)


def _counts(labels: np.ndarray | None) -> dict[int, int] | None:
    if labels is None:
        return None
    counts = np.bincount(labels.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def _of_labels(case: OneCase, labels: Mapping[int, int], num_classes: int | None) -> list[Fault]:
    file = (case.mask_path if isinstance(case, Case) else case.label_path) or ""
    if unknown := {label: n for label, n in labels.items() if num_classes is not None and label >= num_classes}:
        said = few(f"{label} ({n} times)" for label, n in unknown.items())
        text = f"labels that the data set does not have: {said}; it has 0 to {(num_classes or 0) - 1}"
        return [Fault(text, case.name, str(file), "correct the values, or the classes in the data set's entry")]
    if len(labels) == 1:
        only = next(iter(labels))
        text = f"everything has label {only}" if only else "nothing is marked: every label is 0"
        return [Fault(text, case.name, str(file), "see whether that is so", warning=True)]
    return []


# --- many cases ----------------------------------------------------------------------------------------


def _of_case(case: OneCase, examined: Examined) -> list[Fault]:
    """Its faults, and that of its sentence, which no file of its own holds."""
    if not isinstance(case, Case) or case.caption.strip():
        return list(examined.faults)
    silent = Fault("no sentence", case.name, str(case.image_path or ""), "write one in the table of sentences")
    return [*examined.faults, silent]


def _names_twice(cases: Mapping[str, Sequence[OneCase]]) -> list[Fault]:
    return [
        Fault("several cases of this name", name, remedy="rename all but one", split=split)
        for split, some in cases.items()
        for name in repeated(case.name for case in some)
    ]


def _images_twice(every: Sequence[tuple[str, OneCase]], examined: Sequence[Examined]) -> list[Fault]:
    """The same image again: between splits a leak, within one a warning."""
    first: dict[str, tuple[str, OneCase]] = {}
    found = []
    for (split, case), one in zip(every, examined, strict=True):
        before, other = first.setdefault(one.fingerprint, (split, case))
        if other is case or not one.fingerprint:
            continue
        leak = before.removesuffix(EXTRA) != split.removesuffix(EXTRA)
        text = f"the same image as case {other.name!r} of {before}"
        text += ": what one split holds must be new to the others" if leak else ""
        file = str((_files(case) or ("",))[0])
        found.append(Fault(text, case.name, file, "leave one of the two out", split, warning=not leak))
    return found


def _never_marked(train: Sequence[Examined], class_names: Sequence[str]) -> list[Fault]:
    """A warning where no training case has a class."""
    marked = {label for one in train for label in one.labels or {}}
    never = [name for label, name in enumerate(class_names) if label not in marked]
    if not marked or not never:
        return []
    remedy = "a model cannot learn it from these"
    return [Fault(f"no training case has {', '.join(never)}", remedy=remedy, split="train", warning=True)]


def _facts(examined: Sequence[Examined], class_names: Sequence[str]) -> dict[str, Any]:
    """Numbers about the cases of a split, over all that could be read."""
    read = [one for one in examined if one.shape]
    facts: dict[str, Any] = {"cases": len(examined)}
    if read:
        facts["sizes"] = _range([one.shape for one in read], "{:.0f}")
        if read[0].spacing:
            facts["spacing in mm"] = _range([one.spacing for one in read], "{:.3g}")
        facts["values"] = f"{min(one.values[0] for one in read):g} to {max(one.values[1] for one in read):g}"
    labels = Counter(label for one in examined for label in one.labels or {} if label)
    if labels:
        names = dict(enumerate(class_names))
        facts["cases with"] = {names.get(label, f"label {label}"): labels[label] for label in sorted(labels)}
    return facts


def _range(rows: Sequence[tuple[float, ...]], form: str) -> str:
    """Smallest and largest of each axis: "31 to 43 x 40 to 59 x 24 to 47"."""
    columns = [(form.format(min(column)), form.format(max(column))) for column in zip(*rows, strict=True)]
    return " x ".join(low if low == high else f"{low} to {high}" for low, high in columns)


def _examined(cases: Sequence[OneCase], num_classes: int | None, root: Path | None, progress: bool) -> list[Examined]:
    """What each case has told, read now or remembered."""
    memory = Memory(root, cases)
    keys = [_key(case, num_classes) for case in cases]
    stamps = [_stamp(case) for case in cases]
    known = {k: one for k, key in enumerate(keys) if (one := memory.recall(key, stamps[k])) is not None}
    todo = [k for k in range(len(cases)) if k not in known]
    read = _read([cases[k] for k in todo], num_classes)
    first = list(itertools.islice(read, 1))  # the processes have started: from here on the time left can be told
    try:
        with Progress(len(todo), "cases", f"checking {counted(len(todo), 'case')}", progress and bool(todo)) as told:
            for k, one in zip(todo, itertools.chain(first, read), strict=True):
                known[k] = one
                memory.keep(keys[k], stamps[k], one)
                told.step()
    finally:
        memory.save()
    return [known[k] for k in range(len(cases))]


def _read(cases: Sequence[OneCase], num_classes: int | None) -> Iterator[Examined]:
    """`examine` of each case in order; many are read by two processes, where the system makes processes cheaply."""
    weight = sum(PICTURES_PER_VOLUME if isinstance(case, VolumeCase) else 1 for case in cases)
    workers = min(2, len(os.sched_getaffinity(0))) if sys.platform == "linux" and weight > ALONE else 0
    own = torch.Generator()  # a run draws from torch's global one
    return iter(DataLoader(_Examining(cases, num_classes), batch_size=None, num_workers=workers, generator=own))


class _Examining(Dataset[Examined]):
    """The cases as what a DataLoader reads."""

    def __init__(self, cases: Sequence[OneCase], num_classes: int | None) -> None:
        self.cases, self.num_classes = cases, num_classes

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, k: int) -> Examined:
        return examine(self.cases[k], self.num_classes)


# --- memory --------------------------------------------------------------------------------------------


class Memory:
    """What cases without a fault have told, on disk: one file per data set. It can be deleted at any time."""

    def __init__(self, root: Path | None, cases: Sequence[OneCase]) -> None:
        files = [str(path.absolute()) for case in cases for path in _files(case)]
        place = str(root.absolute()) if root else os.path.commonpath(files) if files else ""
        self.path = cache_dir() / "checks" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
        self.changed = False
        try:
            self.entries = read_json(self.path) if self.path.is_file() else {}
        except (OSError, ValueError):
            self.entries = {}

    def recall(self, key: str, stamp: str) -> Examined | None:
        """What the case told when it was read last, if its files are still the same."""
        entry = self.entries.get(key)
        if not stamp or not entry or entry["stamp"] != stamp:
            return None
        told = entry["told"]
        rows = {name: tuple(told[name]) for name in ("shape", "spacing", "values")}
        labels = None if told["labels"] is None else {int(label): n for label, n in told["labels"].items()}
        faults = tuple(Fault(**fault) for fault in told["faults"])
        return Examined(faults, told["fingerprint"], labels=labels, **rows)

    def keep(self, key: str, stamp: str, examined: Examined) -> None:
        """Remember a case of files; one with a fault is read again, since the fault may lie elsewhere."""
        if stamp and all(fault.warning for fault in examined.faults):
            self.entries[key] = {"stamp": stamp, "told": asdict(examined)}
            self.changed = True

    def save(self) -> None:
        """Write what is new; a cache that cannot be written costs the time only."""
        if self.changed:
            try:
                write_text(self.path, json.dumps(self.entries))
            except OSError as error:
                warnings.warn(f"{self.path}: what was checked is not remembered ({error})", stacklevel=2)


def _files(case: OneCase) -> tuple[Path, ...]:
    if isinstance(case, VolumeCase):
        return case.files
    return tuple(path for path in (case.image_path, case.mask_path) if path is not None)


def _key(case: OneCase, num_classes: int | None) -> str:
    """Stands for the files of a case and for how they are read."""
    reading: tuple[Any, ...] = (FORMAT, case.name, num_classes, [str(path.absolute()) for path in _files(case)])
    if isinstance(case, VolumeCase):
        reading += (
            sorted(case.values.items()) if case.values is not None else None,
            sorted(case.masks),
            case.structures,
        )
    return hashlib.sha256(repr(reading).encode()).hexdigest()[:32]


def _stamp(case: OneCase) -> str:
    """Size and date of every file of a case (`listings.bytes_of`); "" in memory or where one is not there."""
    try:
        files = [inner for path in _files(case) for inner in bytes_of(path)]
        states = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, files)]
    except OSError:
        return ""
    return hashlib.sha256(repr(states).encode()).hexdigest()[:32] if states else ""

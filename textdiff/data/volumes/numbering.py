"""Structures under their publishers' names: what dataset.json calls the values of its label maps in, our labels out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.data.entries import DatasetEntry
from textdiff.data.faults import Fault, counted, repeated
from textdiff.data.volumes.listings import label_names, read_description
from textdiff.data.volumes.wordings import LESIONS, SHORT_NAMES, SIDES, plain, wording_of

# As BTCV, AMOS and FLARE write them; "arota" is how AMOS22 spells it
PUBLISHED = {
    "rkid": "right kidney",
    "lkid": "left kidney",
    "gall": "gallbladder",
    "eso": "oesophagus",
    "sto": "stomach",
    "aor": "aorta",
    "arota": "aorta",
    "postcava": "inferior vena cava",
    "veins": "portal and splenic vein",
    "rad": "right adrenal gland",
    "rag": "right adrenal gland",
    "lad": "left adrenal gland",
    "lag": "left adrenal gland",
}


def _words(name: str) -> str:
    """A name in one spelling, its side first: "Kidney_Right" -> "right kidney", "Liver-Tumor" -> "liver tumour"."""
    words = plain(re.sub(r"[/.,;:()_-]+", " ", unicodedata.normalize("NFKC", name)))
    words = re.sub(r"\bprimar(?:y|ies)\b", "", re.sub(r"\besoph", "oesoph", words.replace("tumor", "tumour")))
    words = PUBLISHED.get(plain(words), plain(words))
    return " ".join(sorted(words.split(), key=lambda word: word not in SIDES))


def structure_of(name: str, structures: Sequence[str]) -> str:
    """The one of `structures` that a publisher's name means; "" where it means none or might mean several.

    Spelling of either side of the Atlantic, letter case, order of the words, the other names of `wordings` and a bare
    "tumour" or "cyst", where there is one, are understood; "anterior" where the hippocampus is all.
    """
    words = _words(name)
    if exact := [one for one in structures if _words(one) == words]:
        return exact[0]
    found = [one for one in structures if words in _other_names(one, structures)]
    for lesion, pattern in LESIONS.items():
        of = [one for one in structures if one.endswith(f" {lesion}")]
        found += [one for one in of if re.fullmatch(rf"(?:{_organ(one, lesion)}) (?:{pattern})", words)]
        if not found and re.fullmatch(pattern, words) and len(of) == 1:
            found = of
    return found[0] if len(set(found)) == 1 else ""


def _other_names(structure: str, structures: Sequence[str]) -> set[str]:
    wording = wording_of(structure)
    texts = (*wording.names, *wording.also) if wording else ()
    short = SHORT_NAMES.get(structure, ()) if set(structures) <= SHORT_NAMES.keys() else ()
    return {_words(text) for text in (*texts, *short)}


def _organ(tumour: str, lesion: str) -> str:
    """Pattern of the words for the organ of a lesion: "liver tumour" -> "liver|hepatic"."""
    organ = tumour.removesuffix(f" {lesion}")
    wording = wording_of(organ)
    adjective = wording.adjective if wording else ""
    return "|".join(re.escape(one) for one in (organ, adjective) if one)


def numbered_by_name(folder: Path, task: DatasetEntry, wanted: Sequence[str], faults: list[Fault]) -> DatasetEntry:
    """The entry with the labels numbered as the folder's dataset.json says; as it is, where that names no labels.

    wanted: structures that must be named. What is named and not known becomes background, with a warning. An entry of one's
    own that numbers the labels itself stands where the names say nothing of it.
    """
    names = label_names(folder)
    if names is None:
        return task
    path, kind = folder / "dataset.json", "nnU-Net" if "channel_names" in read_description(folder) else "Decathlon"
    meant = {value: structure_of(name, task.structures) for value, name in names.items()}
    own = dict(task.labels) != {number: number for number in range(1, len(task.class_names))}
    missing = [name for name in wanted if name not in meant.values()]
    if own and missing:
        return task
    about = f"its labels are {_listed(names)}, the structures of {task.name!r} {', '.join(task.structures)}"
    remedy = "name the labels in dataset.json after them, or choose the data set (or structures) that it holds"
    if missing:
        faults.append(Fault(f"{path} ({kind}) names no {', '.join(missing)}: {about}", file=str(path), remedy=remedy))
        return task
    if twice := repeated(filter(None, {name: meant[value] for value, name in names.items()}.values())):
        faults.append(Fault(f"{path}: several labels are called {twice[0]!r}: {about}", file=str(path), remedy=remedy))
        return task
    if meant.get(0):
        faults.append(Fault(f"{path}: value 0 is the background, here it is {names[0]!r}", file=str(path)))
        return task
    unknown = {value: name for value, name in names.items() if value and not meant[value]}
    if unknown:
        said = f"{path}: {counted(len(unknown), 'label')} unknown to {task.name!r}, taken for background: {_listed(unknown)}"
        faults.append(Fault(said, file=str(path), warning=True))
    labels = {value: task.class_names.index(name) if name else 0 for value, name in meant.items() if value}
    return replace(task, labels=labels)


def _listed(names: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name!r}" for value, name in sorted(names.items()))

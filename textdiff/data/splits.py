"""Which cases are for what: names in, splits out; seeded draws of labelled cases; a guard against testing on training cases."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from textdiff.base.files import read_json

MANIFESTS = Path(__file__).resolve().parent / "manifests"
SPLITS = ("train", "val", "test")
# Index ranges that can never overlap, so that no phantom of one split is met in another.
FIRST_INDEX = {"train": 0, "val": 10_000_000, "test": 20_000_000}
TRAIN_UP_TO, VAL_UP_TO = 0.7, 0.85  # of the hash of a name, as a fraction


class AnyCase(Protocol):
    """A case of pictures or volumes."""

    @property
    def name(self) -> str: ...

    @property
    def labelled(self) -> bool: ...

    def fingerprint(self) -> str: ...


OneCase = TypeVar("OneCase", bound=AnyCase)


def hashed_split(name: str) -> str:
    """ "train" (70 %), "val" or "test" (15 % each), by a hash of the name alone: a case that comes or goes moves no other.

    The name is taken in composed Unicode form, since a Mac's disk splits its letters.
    """
    share = int.from_bytes(hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()[:8], "big") / 2**64
    return "train" if share < TRAIN_UP_TO else "val" if share < VAL_UP_TO else "test"


def manifest_split(manifest: str) -> dict[str, str]:
    """Case name -> split, from a file of `data/manifests`: {"train": [names], "val": [...], "test": [...]}."""
    content = read_json(MANIFESTS / manifest)
    return {name: split for split in SPLITS for name in content[split]}


def drawn_splits(
    make: Callable[..., list[OneCase]], seed: int, sizes: tuple[int, int, int], **options: Any
) -> dict[str, list[OneCase]]:
    """Split -> phantoms that `make(n, seed, start=..., **options)` draws; ValueError unless sizes are three, none negative."""
    if len(sizes) != 3 or min(sizes) < 0:
        raise ValueError(f"sizes must be three numbers (train, val, test), none negative; got {sizes!r}")
    return {split: make(n, seed, start=FIRST_INDEX[split], **options) for split, n in zip(SPLITS, sizes, strict=True)}


def check_unseen(trained_on: Mapping[str, Any], cases: Sequence[AnyCase]) -> None:
    """Raise ValueError, naming the first few, where a model has been trained on some of `cases`.

    trained_on: as models and records carry it, {"dataset": name, "cases": [fingerprints]}; {} where it is unknown.
    """
    seen = set(trained_on.get("cases", ()))
    met = [case.name for case in cases if case.fingerprint() in seen] if seen else []
    if met:
        more = f" and {len(met) - 3} more" if len(met) > 3 else ""
        raise ValueError(
            f"the model was trained on {len(met)} of the {len(cases)} test cases ({', '.join(met[:3])}{more}; data set "
            f"{trained_on.get('dataset', 'unknown')}): a score on them says nothing. Test on cases that it has not seen"
        )


def draw_labelled(cases: Sequence[OneCase], n: int, seed: int) -> list[OneCase]:
    """Draw `n` labelled cases by a hash of seed and name: neither the order of the list nor a case that is not drawn matters,
    and a smaller draw is the beginning of a larger one.

    Raises ValueError when n is not 1..len(cases), a name occurs twice, or a drawn case has no mask.
    """
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"case names must be unique; twice: {sorted({x for x in names if names.count(x) > 1})[:3]}")
    if not 1 <= n <= len(cases):
        raise ValueError(f"cannot draw {n} labelled cases from {len(cases)}")
    drawn = sorted(cases, key=lambda case: hashlib.sha256(f"{seed}/{case.name}".encode()).digest())[:n]
    bare = [case.name for case in drawn if not case.labelled]
    if bare:
        raise ValueError(f"drawn cases without a mask: {bare[:3]}")
    return drawn

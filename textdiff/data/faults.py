"""What is wrong with a data set: a `Fault` per thing, with case, file and what to do; a `Report` of all, as table or JSON."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

COLUMNS = (48, 32, 120, 80)  # characters that file, case, fault and remedy are padded to, at most
MOST = 50  # faults that one error names


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, and what to do about it.

    missing: it is a file that is not there. warning: the data can be used, but somebody should have a look.
    """

    text: str
    case: str = ""
    file: str = ""
    remedy: str = ""
    split: str = ""
    missing: bool = False
    warning: bool = False

    @property
    def sentence(self) -> str:
        """Place, fault and remedy as one line; a place that the text names is not said again."""
        place = self.file or self.case
        text = self.text if place in self.text else f"{place}: {self.text}"
        return f"{text}; {self.remedy}" if self.remedy else text


def settle(faults: Sequence[Fault], what: str) -> None:
    """Warn of what is only worth a look; raise one error that names all real faults of `what`, such as a folder.

    Raises FileNotFoundError where the first is a file that is not there, ValueError otherwise.
    """
    for fault in faults:
        if fault.warning:
            warnings.warn(fault.sentence, stacklevel=4)
    real = [fault for fault in faults if not fault.warning]
    if not real:
        return
    said = [fault.sentence for fault in real]
    if len(real) > 1:
        rows = [f"{number}. {sentence}" for number, sentence in enumerate(said[:MOST], start=1)]
        rows += [f"and {len(real) - MOST} more (`textdiff check` lists all)"] if len(real) > MOST else []
        said = [f"{len(real)} faults in {what}:", *rows]
    raise (FileNotFoundError if real[0].missing else ValueError)("\n".join(said))


def counted(number: int, what: str) -> str:
    """ "1 case", "3 cases"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names of many: "a, b, c and 4 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class Report:
    """What a check has found. facts: of each split, its number of cases, their sizes, spacings, values and structures."""

    found: tuple[Fault, ...] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    root: Path | None = None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What must be mended before the data are used."""
        return tuple(fault for fault in self.found if not fault.warning)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What somebody should have a look at."""
        return tuple(fault for fault in self.found if fault.warning)

    def table(self) -> str:
        """Facts, faults and warnings as text, one line each: file (within the data set), case, what is wrong, what to do.

        Warnings that say the same of several cases share a line.
        """
        lines = [f"{split}: {_said(facts)}" for split, facts in self.facts.items()]
        for what, some in (("faults", self.faults), ("warnings", self.warnings)):
            lines += ["", f"{what}: {len(some) or 'none'}"]
            rows = [self._row(fault) for fault in some]
            rows = rows if what == "faults" else _once(rows)
            lines += _aligned([("file", "case", "fault", "what to do"), *rows]) if some else []
        return "\n".join(lines).strip()

    def to_json(self) -> str:
        """The same as a JSON object: {"facts": {split: {...}}, "faults": [{...}], "warnings": [{...}]}."""
        content = {
            "facts": self.facts,
            "faults": [asdict(self._shortened(fault)) for fault in self.faults],
            "warnings": [asdict(self._shortened(fault)) for fault in self.warnings],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def _shortened(self, fault: Fault) -> Fault:
        """Files named from the data set's folder on, and not said twice."""
        text = " ".join(fault.text.removeprefix(f"{fault.file}: ").removeprefix(f"case {fault.case!r}: ").split())
        text = text.removeprefix(f"{fault.file}: ").removeprefix(f"{fault.file} ")
        if self.root is None:
            return replace(fault, text=text)
        start = f"{self.root}{os.sep}"
        file = "." if fault.file == str(self.root) else fault.file.removeprefix(start)
        return replace(fault, text=text.replace(start, ""), file=file)

    def _row(self, fault: Fault) -> tuple[str, str, str, str]:
        short = self._shortened(fault)
        return short.file or "-", short.case or "-", short.text, short.remedy or "-"


def _once(rows: Iterable[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Rows that say the same of several cases as one: the first, and how many more."""
    alike: dict[tuple[str, str], list[tuple[str, str, str, str]]] = {}
    for row in rows:
        alike.setdefault(row[2:], []).append(row)
    more = {key: f" and {len(some) - 1} more" if len(some) > 1 else "" for key, some in alike.items()}
    return [(some[0][0], some[0][1] + more[key], *key) for key, some in alike.items()]


def _said(facts: Mapping[str, Any]) -> str:
    """ "12 cases; sizes 64 x 64; values 0 to 255; cases with liver 12"."""
    counts = ", ".join(f"{name} {number}" for name, number in facts.get("cases with", {}).items())
    lines = [f"{name} {value}" for name, value in facts.items() if name not in ("cases", "cases with")]
    return "; ".join([counted(facts["cases"], "case"), *lines, *([f"cases with {counts}"] if counts else [])])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest entry, but no wider than COLUMNS: a longer one pushes its row on."""
    widths = [min(most, max(len(row[k]) for row in rows)) for k, most in enumerate(COLUMNS)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def repeated(names: Iterable[str]) -> list[str]:
    """What occurs more than once, sorted."""
    return sorted(name for name, times in Counter(names).items() if times > 1)

"""`textdiff predict` over a folder. In: a folder of pictures or volumes, and sentences. Out: a folder of labels, and a table.

A case that fails is a line and a row, and the others go on. `predictions.csv` gains a row when a case is done: a second start,
after a kill too, goes on from there. What holds for all cases stands in `settings.json`, so that one folder never holds the
labels of two models or two ways of asking, and one start at a time writes there.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import typer
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from textdiff.base.cores import cores
from textdiff.base.files import read_json, write_text
from textdiff.base.outputs import check_new_folder
from textdiff.data.download import digest
from textdiff.messages import line_of, say
from textdiff.predicting import (
    DICOM,
    NIFTI,
    PICTURE_AS,
    PICTURES,
    VOLUMES,
    Pictures,
    Solids,
    check_kind,
    check_text,
)

TABLE, SETTINGS, LOCK = "predictions.csv", "settings.json", ".lock"
COLUMNS = ("name", "state", "seconds", "text", "said", "found")
DONE, FAILED = "done", "failed"
SHOWN = 10  # names that a line lists
IN_FLIGHT = 4  # cases per process that wait for it


@dataclass(frozen=True)
class Sentences:
    """One sentence for all cases, or a table with a row (name, text) for each."""

    text: str | None
    table: Path | None

    @property
    def of_all(self) -> str:
        """Raises ValueError where no sentence is given."""
        if self.text is None:
            raise ValueError('no sentence is given: --text "the left kidney"; for a folder also --texts FILE')
        return self.text

    def by_name(self, names: Sequence[str]) -> dict[str, str]:
        """A sentence for each case. Raises ValueError that lists the cases without one, or with two or an empty one."""
        if self.table is None:
            check_text(self.of_all)
            return dict.fromkeys(names, self.of_all)
        if self.text is not None:
            raise ValueError("--text and --texts are both given: one sentence for all, or a table with one for each")
        from textdiff.data.images.tables import plain, read_table

        cases = {plain(name) for name in names}
        told: dict[str, list[str]] = defaultdict(list)
        for _, (cell, text) in read_table(self.table, ("name", "text")):
            name = plain(cell)
            told[name if name in cases else bare_name(name)].append(text.strip())
        texts = {name: told.get(plain(name), [""]) for name in names}
        for wrong, why in (
            ([name for name, found in texts.items() if len(found) > 1], "more than one row"),
            ([name for name, (text, *_) in texts.items() if not any(c.isalnum() for c in text)], "no sentence"),
        ):
            if wrong:
                there = f"; its names are {_listed(list(told))}" if cases.isdisjoint(told) else ""
                raise ValueError(f"{self.table} has {why} for {_listed(wrong)}{there}")
        return {name: text for name, (text,) in texts.items()}


@dataclass(frozen=True)
class Case:
    """One case: its name, what is read and asked, and the files to write."""

    name: str
    source: Path
    text: str
    out: Path
    uncertainty: Path | None = None


@dataclass
class Row:
    """What became of a case. ``found``: pixels, or ml in each sample, by class; ``said``: warnings, or why it failed."""

    name: str
    state: str
    seconds: float
    text: str
    said: str = ""
    found: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def line(self) -> str:
        """One line of the table, its end included."""
        written = io.StringIO()
        found = json.dumps(self.found) if self.found else ""
        row = (
            self.name,
            self.state,
            f"{self.seconds:.2f}",
            *(" ".join(t.split()) for t in (self.text, self.said)),
            found,
        )
        csv.writer(written, lineterminator="\n").writerow(row)
        return written.getvalue()


def is_folder_of(task: Pictures | Solids, source: Path, out: Path) -> bool:
    """Whether ``source`` is a folder of cases: it is a folder, and ``out`` is not the name of one case's file."""
    one = (task.suffix,) if isinstance(task, Pictures) else NIFTI + DICOM
    return source.is_dir() and not out.name.lower().endswith(one)


def bare_name(name: str) -> str:
    """A file's name without the suffix of a picture or volume."""
    low = name.lower()
    suffix = max((s for s in (*PICTURES, *VOLUMES) if low.endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)] if suffix else name


def find_sources(task: Pictures | Solids, folder: Path) -> dict[str, Path]:
    """The cases in a folder by name: files of a known suffix; for volumes also folders, each with the slices of one series.

    Raises ValueError: nothing there, two files of one name, or a name that no line of a table can hold.
    """
    suffixes = PICTURES if isinstance(task, Pictures) else tuple(s for s in VOLUMES if s not in (*DICOM, ".img"))
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    files = [entry for entry in entries if entry.is_file() and entry.name.lower().endswith(suffixes)]
    series = [entry for entry in entries if entry.is_dir()] if isinstance(task, Solids) else []
    found: dict[str, Path] = {}
    for entry in (*files, *series):
        name = bare_name(entry.name) if entry.is_file() else entry.name
        if name.splitlines() != [name] or any("\ud800" <= c <= "\udfff" for c in name):
            raise ValueError(f"{folder}: the name {ascii(entry.name)} has a line end in it, or is not UTF-8: rename it")
        if name in found:
            raise ValueError(
                f"{folder}: {found[name].name} and {entry.name} would have the same labels' file: rename one"
            )
        found[name] = entry
    what = "picture" if isinstance(task, Pictures) else "volume"
    if not found:
        hint = ""
        if what == "volume":
            hint = "; for the slices of one series, let --out be a file such as mask.nii.gz"
        elif any(entry.name.lower().endswith(DICOM) for entry in entries):
            hint = f"; {PICTURE_AS}"
        raise ValueError(f"{folder}: no {what} in it ({', '.join(suffixes)}){hint}")
    known = VOLUMES if what == "volume" else suffixes  # .img beside its .hdr
    left = [entry.name for entry in entries if entry.is_file() and not entry.name.lower().endswith(known)]
    if left:
        say(f"left out, by its suffix no {what}: {_listed(left)}")
    return found


def predict_folder(
    task: Pictures | Solids,
    folder: Path,
    sentences: Sentences,
    out: Path,
    uncertainty: Path | None = None,
    *,
    jobs: int = 1,
    force: bool = False,
) -> None:
    """Segment every case of a folder that has no labels yet.

    Args:
        out, uncertainty: folders for the maps; ``out`` for the table and the settings as well.
        jobs: cases at the same time, each in a process of its own that holds the model.
        force: make all anew, in a folder of other files or settings too.

    Raises ValueError, OSError before anything is loaded. Cases that fail are said and end in typer.Exit(1).
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: at least 1")
    sources = find_sources(task, folder)
    texts = sentences.by_name(list(sources))
    check_kind(task.model, task.kind)
    settings = _settings(task, uncertainty)
    if uncertainty is not None and uncertainty.resolve() == out.resolve():
        raise ValueError(f"--out and --uncertainty are the same folder {out}")
    for place, option in ((out, "--out"), (uncertainty, "--uncertainty")):
        if place is not None:
            if place.resolve() == folder.resolve() or folder.resolve() in place.resolve().parents:
                raise ValueError(f"{option} {place} lies in {folder}, among what is read: choose another folder")
            check_new_folder(place, option, force=force or (out / SETTINGS).is_file())
    for place in filter(None, (out, uncertainty)):
        place.mkdir(exist_ok=True)
    cases = [
        Case(name, source, texts[name], out / f"{name}{task.suffix}", uncertainty and uncertainty / f"{name}.nii.gz")
        for name, source in sources.items()
    ]
    if isinstance(task, Solids):
        task = replace(task, options=task.options | {"progress": False})
    with _alone(out):
        before = {} if force else _made_before(out, settings, texts)
        suffixes = {out: task.suffix} | ({uncertainty: ".nii.gz"} if uncertainty else {})
        done = [row for row in before.values() if row.state == DONE and _is_made(row.name, suffixes)]
        if force:  # of cases that are no longer in the folder
            _remove((name for name in _read_table(out) if name not in sources), suffixes)
        _write_table(out, done)
        write_text(out / SETTINGS, json.dumps(settings, indent=2) + "\n")
        here = {row.name for row in done}
        made = _make(task, [case for case in cases if case.name not in here], out, jobs)
        _remove((row.name for row in made if row.state == FAILED), suffixes)  # of another model or sentence
        _write_table(out, sorted([*done, *made], key=lambda row: row.name))
    _close(len(cases), [row for row in done if row.name in sources], made, out)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else writes to this folder meanwhile, and a kill frees it. Raises ValueError where somebody does."""
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another textdiff predict is writing to {out}: wait for its end, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _is_made(name: str, suffixes: Mapping[Path, str]) -> bool:
    return all((folder / f"{name}{suffix}").is_file() for folder, suffix in suffixes.items())


def _remove(names: Iterable[str], suffixes: Mapping[Path, str]) -> None:
    for name in names:
        for folder, suffix in suffixes.items():
            (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _settings(task: Pictures | Solids, uncertainty: Path | None) -> dict[str, object]:
    """What must be the same for all labels of one folder, in JSON's types; the model is compared by the sum of its weights."""
    from textdiff.models.store import find_model

    task_settings = {name: value for name, value in asdict(task).items() if name != "device"}
    weights = find_model(task.model, task.kind) / "model.safetensors"
    sha256 = digest(weights, "sha256") if weights.is_file() else ""
    return {"kind": task.kind, **task_settings, "sha256": sha256, "uncertainty": uncertainty is not None}


def _made_before(out: Path, settings: Mapping[str, object], texts: Mapping[str, str]) -> dict[str, Row]:
    """Rows of an earlier start in this folder. Raises ValueError where labels were made with another model, setting or sentence."""
    if not (out / SETTINGS).is_file():
        return {}
    earlier = read_json(out / SETTINGS)
    other = [
        f"{name} {earlier.get(name)!r}, now {value!r}"
        for name, value in settings.items()
        if name != "model" and earlier.get(name) != value
    ]
    rows = _read_table(out)
    done = [row for row in rows.values() if row.state == DONE]
    if not done:
        return {}
    asked = [row.name for row in done if row.name in texts and row.text != " ".join(texts[row.name].split())]
    if asked:
        other.append(f"another sentence for {_listed(asked)}")
    if other:
        raise ValueError(
            f"{out} was made with other settings ({'; '.join(other)}): choose another folder, or --force to make all anew"
        )
    return rows


def _read_table(out: Path) -> dict[str, Row]:
    """The last row of each case; a line that a kill cut short does not count."""
    path = out / TABLE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    rows = {}
    for cells in csv.reader(whole):
        if len(cells) == len(COLUMNS):
            name, state, seconds, text, said, found = cells
            rows[name] = Row(name, state, float(seconds), text, said, json.loads(found) if found else {})
    return rows


def _write_table(out: Path, rows: Iterable[Row]) -> None:
    write_text(out / TABLE, ",".join(COLUMNS) + "\n" + "".join(row.line() for row in rows))


def _make(task: Pictures | Solids, cases: Sequence[Case], out: Path, jobs: int) -> list[Row]:
    """Segments the cases; each row is in the table before the next case is looked at."""
    rows = []
    bar = tqdm(total=len(cases), desc="cases", disable=len(cases) < 2)
    made = _in_turn(task, cases) if jobs == 1 or len(cases) < 2 else _at_once(task, cases, jobs)
    # Closed by hand: what a stop raises here, between two rows, keeps the frames alive, and the processes with them
    with open(out / TABLE, "a", encoding="utf-8") as table, bar, closing(made):
        for row in made:
            table.write(row.line())
            table.flush()
            bar.update()
            rows.append(row)
            if row.state == FAILED:
                bar.clear()
                say(f"{row.name}: {row.said}")
    return rows


def _in_turn(task: Pictures | Solids, cases: Sequence[Case]) -> Generator[Row, None, None]:
    _ = task.trained if cases else None  # a model that cannot be read is one error, not one of every case
    yield from (segment(task, case) for case in cases)


def _at_once(task: Pictures | Solids, cases: Sequence[Case], jobs: int) -> Generator[Row, None, None]:
    """As :func:`_in_turn` in processes. Where one dies, those that were at work are tried alone; who dies again has failed."""
    _ = replace(task).trained  # as there; a copy, since what is read is not for the processes
    waiting = list(reversed(cases))
    while waiting:
        suspects: list[Case] = []
        yield from _until_one_dies(task, waiting, suspects, jobs)
        for case in suspects:
            again: list[Case] = []
            yield from _until_one_dies(task, [case], again, 1)
            if again:
                yield Row(case.name, FAILED, 0.0, case.text, "the process that segmented it died (out of memory?)")


def _until_one_dies(task: Pictures | Solids, waiting: list[Case], suspects: list[Case], jobs: int) -> Iterator[Row]:
    """Takes cases from the end of ``waiting`` till none is left, or a process dies: then ``suspects`` are those not done."""
    threads, others = max(1, cores() // jobs), set(multiprocessing.active_children())
    flying: dict[Future[Row], Case] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (task, threads)) as pool:
        try:
            while waiting or flying:
                while waiting and len(flying) < jobs * IN_FLIGHT:
                    flying[pool.submit(_segment_here, waiting[-1])] = waiting[-1]  # raises where a process has died
                    waiting.pop()
                future = next(as_completed(flying))
                yield future.result()
                del flying[future]
        except BrokenProcessPool:
            suspects.extend(flying.values())
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # one case may take minutes, and whoever stops the program waits for none
            raise


_task: Pictures | Solids  # of a process of `_at_once`


def _begin(task: Pictures | Solids, threads: int) -> None:
    import torch

    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _task = task


def _end_with_parent() -> None:
    """A killed parent ends nobody: without this its processes would wait for cases, the model in memory, for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _segment_here(case: Case) -> Row:
    return segment(_task, case)


def segment(task: Pictures | Solids, case: Case) -> Row:
    """Segments one case and says what became of it; raises nothing but what ends the program."""
    begun = time.monotonic()
    row = partial(Row, case.name, text=case.text)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        try:
            task.check(case.source, case.text, case.out, case.uncertainty, force=True)
            found = task.segment(case.source, case.text, case.out, case.uncertainty)
        except Exception as error:
            return row(FAILED, time.monotonic() - begun, said=line_of(error))
    said = "; ".join(
        dict.fromkeys(" ".join(str(w.message).split()) for w in warned if issubclass(w.category, UserWarning))
    )
    return row(DONE, time.monotonic() - begun, said=said, found=found)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _close(count: int, before: Sequence[Row], made: Sequence[Row], out: Path) -> None:
    """The last line; exit code 1 where cases failed."""
    failed = [row.name for row in made if row.state == FAILED]
    warned = sum(bool(row.said) for row in (*before, *made) if row.state == DONE)
    done = sum(row.state == DONE for row in (*before, *made))
    parts = [f"{done} of {count} done ({len(before)} before)"]
    parts += [f"{warned} with a warning"] if warned else []
    parts += [f"{len(failed)} failed: {_listed(failed)}; the same command tries them again"] if failed else []
    say(f"{', '.join(parts)}. {out / TABLE}")
    if failed:
        raise typer.Exit(1)

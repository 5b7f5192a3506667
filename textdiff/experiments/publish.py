"""From your own records to the published ones. In: run ids. Out: copies in `results/published`, without what is others' own.

A published number must be one that others may see and can make again. Pictures but for the training curve stay at home, and of
real data the captions too: the data sets' licences do not let them travel. Demo runs, runs tested on a part of the test cases,
stale records and records of files that no commit holds are refused, each with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from textdiff.base.files import read_json
from textdiff.base.parsing import did_you_mean
from textdiff.base.paths import results_dir
from textdiff.data import registry
from textdiff.experiments.catalogue import config_from_record
from textdiff.experiments.places import locked
from textdiff.experiments.records import FILES, Run, is_record, load_records, published_dir

CURVE = ("training.png", "training.json")
WHOLE_TESTS = ("textdiff2d", "textdiffseg3d")  # experiments whose records make the tables


@dataclass(frozen=True)
class Verdict:
    """What became of one record: "published", "unchanged" (it was there already) or "refused", and why."""

    run_id: str
    state: str
    reason: str = ""


def publish(run_ids: Sequence[str] = (), everything: bool = False, allow_dirty: bool = False) -> list[Verdict]:
    """Copies records from `results_dir()` to `published_dir()`: those of ``run_ids``, or all with ``everything``.

    Each copy is whole or not there; a published record is replaced only by a whole one. ``allow_dirty``: also records made
    with files that no commit holds.

    Raises:
        ValueError: neither run ids nor ``everything``, or an id without a finished record (the nearest one is named).
        FileNotFoundError: the package does not run from a checkout.
        OSError: from the disk; records published before stay whole.
    """
    if bool(run_ids) == everything:
        raise ValueError("say which records to publish: run ids, or --all for all of them")
    checkout = published_dir().parents[1]
    if not (checkout / "pyproject.toml").is_file():
        raise FileNotFoundError(f"records are published into a copy of the repository, and {checkout} is none")
    folders = {row.run_id: Path(row.folder) for row in load_records(results_dir()).itertuples()}
    for run_id in run_ids:
        if run_id not in folders:
            raise ValueError(f"no finished record {run_id!r}{did_you_mean(run_id, folders)} in {results_dir()}")
    chosen = dict.fromkeys(run_ids or folders)
    return [_publish_one(run_id, folders[run_id], allow_dirty) for run_id in chosen]


def _publish_one(run_id: str, folder: Path, allow_dirty: bool) -> Verdict:
    reason = refusal(run_id, folder, allow_dirty)
    if reason:
        return Verdict(run_id, "refused", reason)
    run = Run.open(config_from_record(read_json(folder / "config.json")), published_dir())
    content = publishable(folder)
    with locked(run.config):
        if is_record(run.folder) and content == _content(run.folder):
            return Verdict(run_id, "unchanged")
        run.write(content)
    return Verdict(run_id, "published")


def refusal(run_id: str, folder: Path, allow_dirty: bool = False) -> str:
    """Why a record may not be published; "" where it may."""
    config, env = read_json(folder / "config.json"), read_json(folder / "env.json")
    try:
        stale = config_from_record(config).run_id != run_id
    except ValueError:
        stale = True
    if stale:
        return "it is stale: its parameters mean something else in this version, run it again"
    if config["mode"] == "demo":
        return "it is of a demo run, which shows the machinery and measures nothing"
    if config["experiment"] in WHOLE_TESTS and config["max_test"] not in _whole(config["dataset"]):
        return f"it was tested on {config['max_test']} cases only: a published run is tested on all of them (max_test='all')"
    if allow_dirty:
        return ""
    if not env.get("commit") or env.get("dirty") is None:
        return "its commit is not known, so that nobody could make the number again (--allow-dirty publishes it all the same)"
    if env["dirty"]:
        return (
            f"it was made with files that differ from commit {env['commit'][:8]}, so that nobody could make the number again: "
            "commit and run it again (--allow-dirty publishes it all the same)"
        )
    return ""


def _whole(dataset: str) -> tuple[Any, ...]:
    """Numbers of test cases that make a whole test: all; of synthetic cases as many as the tables ask for; and as many as the
    small runs of cost against Dice have, which no other table takes."""
    presets = registry.dataset(dataset).runs
    return ("all", *(presets[kind]["max_test"] for kind in ("grid", "cost") if "max_test" in presets.get(kind, {})))


def publishable(folder: Path) -> dict[str, bytes]:
    """The files of a record that may be published, by name: no picture but the training curve; captions of synthetic data only."""
    kept = {name: data for name, data in _content(folder).items() if name in FILES or Path(name).name in CURVE}
    if registry.dataset(read_json(folder / "config.json")["dataset"]).synthetic:
        return kept
    return kept | {"per_case.csv": _without_captions(folder / "per_case.csv")}


def _content(folder: Path) -> dict[str, bytes]:
    figures = sorted(path.name for path in (folder / "figures").glob("*.*") if path.suffix in (".png", ".json"))
    names = [*FILES, *(f"figures/{name}" for name in figures)]
    return {name: (folder / name).read_bytes() for name in names}


def _without_captions(table: Path) -> bytes:
    # As text, so that every digit stays as it was recorded
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    return rows[[name for name in rows.columns if not name.startswith("caption")]].to_csv(index=False).encode()

"""Fetches that meet each other and that are killed: afterwards a folder is whole or absent, and the next fetch finishes.

TEXTDIFF_CHAOS=100 does it a hundred times each; the seed of the moments is printed.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import names
from msd_files import msd

from textdiff.data import fetch as fetching
from textdiff.data.download import FetchError, digest
from textdiff.data.entries import Decathlon
from textdiff.data.fetch import address, check, fetch, fetch_release
from textdiff.data.placing import locked
from textdiff.data.registry import DATASETS, MODELS, dataset

ROUNDS = int(os.environ.get("TEXTDIFF_CHAOS", "3"))
FORKED = multiprocessing.get_context("fork")  # the libraries are loaded once
PATIENCE = 60.0  # seconds after which something hangs


def quiet(*_):
    pass


@pytest.fixture
def monuseg(home, server, monkeypatch):
    """A data set of twelve little files that a local server gives out one by one; returns how it is fetched."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    source, files = DATASETS["monuseg"].source, {}
    for split in ("Train", "Val", "Test"):
        folder = home / "origin" / f"{split}_Folder"
        for kind in ("img", "labelcol"):
            (folder / kind).mkdir(parents=True)
            for k in range(3):
                Image.fromarray(np.full((6, 6), 255 * (k % 2), np.uint8)).save(folder / kind / f"{k}.png")
        table = pd.DataFrame({"Image": [f"{k}.png" for k in range(3)], "Description": ["text"] * 3})
        table.to_excel(folder / f"{split}_text.xlsx", index=False)
    for path in sorted(path for path in (home / "origin").rglob("*") if path.is_file()):
        inside = path.relative_to(home / "origin").as_posix()
        files[inside] = {"size": path.stat().st_size, "git_blob": digest(path, "git_blob")}
        server.files[address(source, inside, server.url).removeprefix(server.url)] = path.read_bytes()
    (home / "manifest.json").write_text(json.dumps({"files": files}))
    changed = replace(source, manifest=str(home / "manifest.json"), size=1000)
    monkeypatch.setitem(DATASETS, "monuseg", replace(DATASETS["monuseg"], source=changed))
    return lambda force=False: fetch("monuseg", base_url=server.url, force=force, say=quiet)


@pytest.fixture
def hippocampus(home, monkeypatch):
    """A task of the Decathlon that is brought from a folder."""
    folder = msd(home / "origin_3d" / "Task04_Hippocampus", 4)
    rows = [{"image": f"./imagesTr/case_{k}.nii.gz", "label": f"./labelsTr/case_{k}.nii.gz"} for k in range(4)]
    (folder / "dataset.json").write_text(json.dumps({"training": rows}))
    small = replace(DATASETS["hippocampus"], source=Decathlon("Task04_Hippocampus", 1000))
    monkeypatch.setitem(DATASETS, "hippocampus", small)
    return lambda force=False: fetch("hippocampus", source=folder, force=force, say=quiet)


@pytest.fixture
def model(server, monkeypatch):
    """Weights of a release on the local server."""
    files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 500}
    hashes = [hashlib.sha256(body).hexdigest() for body in files.values()]
    known = replace(MODELS["abdomen_small"], config_sha256=hashes[0], sha256=hashes[1], size=130_000)
    monkeypatch.setitem(MODELS, "abdomen_small", known)
    server.files |= {f"/abdomen_small.{name}": body for name, body in files.items()}
    return lambda force=False: fetch_release("abdomen_small", server.url, force, say=quiet)


def started(work, *args):
    """A process that does it and ends with 0, with 1 for a FetchError, with 2 for anything else."""

    def run():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            work(*args)
            os._exit(0)
        except FetchError:
            os._exit(1)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(2)

    process = FORKED.Process(target=run)
    process.start()
    return process


def ended(process) -> int:
    process.join(PATIENCE)
    assert process.exitcode is not None, "a fetch hangs"
    return process.exitcode


def counts(name: str) -> int:
    found = check(name, dataset(name).folder())
    return found["train"] + found["val"] + found["test"]


def assert_nothing_is_left(folder: Path, name: str) -> None:
    assert names(folder) == [name]


@pytest.mark.parametrize("forced", [False, True])
def test_three_fetches_at_once_and_a_check_all_end_well(monuseg, home, forced):
    """Whoever ends with "done" has a whole data set there: it is checked in the very process that says so."""

    def bring_and_count(force):
        target = monuseg(force)
        if not forced:  # a replacement by another process may fall into this count
            assert counts("monuseg") == 9 and target.is_dir()

    for _ in range(ROUNDS):
        for old in (home / "data" / "MoNuSeg", home / "cache" / "downloads"):
            fetching.remove(old)
        if forced:
            monuseg()
        codes = [ended(one) for one in [started(bring_and_count, forced and k < 2) for k in range(3)]]
        assert codes == [0, 0, 0] and counts("monuseg") == 9
        assert_nothing_is_left(home / "data", "MoNuSeg")


def test_a_source_that_another_process_has_just_brought_is_what_was_asked_for(hippocampus, home):
    target = home / "data" / DATASETS["hippocampus"].folders[0]
    with locked(target):  # till both wait
        waiting = [started(hippocampus) for _ in range(2)]
        time.sleep(1)
    assert [ended(one) for one in waiting] == [0, 0] and counts("hippocampus") == 4
    assert ended(started(hippocampus)) == 1, "it was there before: a source would be ignored in silence"


def test_two_releases_at_once(model, home):
    for _ in range(ROUNDS):
        fetching.remove(home / "weights" / "abdomen_small")
        assert [ended(one) for one in [started(model, False), started(model, True), started(model, False)]] == [0, 0, 0]
        assert_nothing_is_left(home / "weights", "abdomen_small")
        assert names(home / "weights" / "abdomen_small") == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("kind", ["monuseg", "hippocampus"])
def test_killed_at_any_moment(request, home, kind, forced):
    bring = request.getfixturevalue(kind)
    expected = {"monuseg": 9, "hippocampus": 4}[kind]
    target = bring()
    begun = time.monotonic()
    bring(True)
    took = time.monotonic() - begun
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(ROUNDS):
        if not forced:
            fetching.remove(dataset(kind).folder())
        process = started(bring, forced)
        time.sleep(draw.uniform(0, 1.1 * took))
        process.kill()
        ended(process)
        try:
            assert counts(kind) == expected
        except FileNotFoundError:
            assert not forced  # what was there before is not lost
        if kind == "monuseg" or not target.exists():
            bring()
        assert counts(kind) == expected
    bring(True)
    assert_nothing_is_left(home / "data", DATASETS[kind].folders[0])


def test_killed_between_the_two_renames_a_data_set_is_found_and_loaded(monuseg, home):
    target = monuseg()
    for leave_stage in (True, False):
        target.rename(target.with_name(".MoNuSeg.old"))
        if leave_stage:
            target.with_name(".MoNuSeg.partial").mkdir()
        assert counts("monuseg") == 9
    assert not target.with_name(".MoNuSeg.old").exists()


def test_what_a_killed_fetch_left_is_cleared_by_the_fetch_of_anything_but_not_under_a_lock(monuseg, hippocampus, home):
    hippocampus()
    left = home / "data" / ".Task04_Hippocampus.partial"
    left.mkdir()

    def hold(ready, over):
        with fetching.locked(home / "data" / "Task04_Hippocampus"):
            ready.set()
            over.wait(PATIENCE)

    ready, over = FORKED.Event(), FORKED.Event()
    holder = started(hold, ready, over)
    assert ready.wait(PATIENCE)
    monuseg()
    assert left.exists()
    over.set()
    assert ended(holder) == 0
    monuseg(True)
    assert not left.exists() and names(home / "data") == ["MoNuSeg", "Task04_Hippocampus"]


def test_where_nothing_can_be_written_what_is_there_is_still_checked(monuseg, home, monkeypatch):
    monuseg()
    before = sorted(path.name for path in (home / "data").iterdir())
    monkeypatch.setattr("textdiff.data.placing.os.access", lambda *_: False)
    assert monuseg() == home / "data" / "MoNuSeg"
    assert sorted(path.name for path in (home / "data").iterdir()) == before

"""Publishing: what may not travel stays, what could not be made again is refused, and a failure leaves the old record whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textdiff.data import registry
from textdiff.experiments import publish as publishing
from textdiff.experiments import records
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pages import BlocksConfig
from textdiff.experiments.publish import publish
from textdiff.experiments.records import FILES
from textdiff.experiments.volumes import TextDiffSegConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLE = (
    "case,caption,caption_shuffled,dice,dice_shuffled\n"
    '001,"Nuclei, dense.","Few nuclei.",0.7382151794907655,0.50\n002,,,1.0,0.25\n'
)
BARE = "case,dice,dice_shuffled\n001,0.7382151794907655,0.50\n002,1.0,0.25\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Fresh folders: of own results, and of a checkout's published records."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    published = tmp_path / "checkout" / "results" / "published"
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "runs"))
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(publishing, "published_dir", lambda: published)
    return tmp_path / "runs", published


def record(root: Path, commit: str | None = COMMIT, dirty: bool | None = False, kind=TextDiffConfig, **params) -> str:
    """Writes a finished record; returns its run id."""
    usual = {} if kind is TextDiffSegConfig else {"dataset": "monuseg", "backbone": "he_32"}
    config = kind.from_params(**({"mode": "full"} | usual | params))
    folder = root / config.experiment / config.run_id
    (folder / "figures").mkdir(parents=True)
    for name, content in {
        "config.json": json.dumps(config.to_record()),
        "metrics.json": '{"test/dice": 0.75}',
        "env.json": json.dumps({"commit": commit, "dirty": dirty}),
        "per_case.csv": TABLE,
        "notes.txt": "mine",
    }.items():
        (folder / name).write_text(content)
    for name in ("training", "best", "worst"):
        (folder / "figures" / f"{name}.png").write_bytes(b"picture")
        (folder / "figures" / f"{name}.json").write_text('{"alt": "Nuclei, dense."}')
    return config.run_id


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state(verdicts) -> list[str]:
    return [verdict.state for verdict in verdicts]


def test_captions_and_pictures_of_real_data_stay_at_home(places):
    runs, published = places
    run_id = record(runs)
    before = content(runs)
    assert state(publish([run_id])) == ["published"]
    copy = content(published / "textdiff2d" / run_id)
    assert sorted(copy) == sorted([*FILES, "figures/training.json", "figures/training.png"])
    assert copy["per_case.csv"].decode() == BARE
    assert copy["env.json"] == before[f"textdiff2d/{run_id}/env.json"]
    assert content(runs) == before
    assert [path.name for path in (published / "textdiff2d").iterdir()] == [run_id]


@pytest.mark.parametrize(
    ("kind", "dataset", "whole"),
    [
        (TextDiffConfig, "chest_phantoms", True),
        (TextDiffSegConfig, "abdomen_phantoms", True),
        (TextDiffSegConfig, "hippocampus", False),
    ],
)
def test_captions_of_synthetic_data_are_published(places, kind, dataset, whole):
    runs, published = places
    run_id = record(runs, kind=kind, dataset=dataset, **({"backbone": "auto"} if kind is TextDiffConfig else {}))
    assert state(publish([run_id])) == ["published"]
    copy = content(published / kind.experiment / run_id)
    assert "figures/best.png" not in copy and "notes.txt" not in copy
    assert copy["per_case.csv"].decode() == (TABLE if whole else BARE)


def rewrite(folder: Path, change: dict) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("params", "about", "reason"),
    [
        ({}, {"dirty": True}, "differ from commit 01234567, so that nobody could make the number again"),
        ({}, {"commit": None, "dirty": None}, "commit is not known"),
        ({}, {"dirty": None}, "commit is not known"),
        ({"mode": "demo", "max_test": "all"}, {}, "demo run"),
        ({"max_test": 4}, {}, "tested on 4 cases only"),
        ({"max_test": 14}, {}, "tested on 14 cases only"),
        ({"dataset": "chest_phantoms", "backbone": "auto", "max_test": 3}, {}, "tested on 3 cases only"),
        ({"kind": TextDiffSegConfig, "dataset": "hippocampus", "max_test": 6}, {}, "tested on 6 cases only"),
    ],
)
def test_what_others_could_not_make_again_or_would_mislead_is_refused(places, params, about, reason):
    """A run of 30 steps tested on 4 of 14 images was once published."""
    runs, published = places
    run_id = record(runs, **params, **about)
    (verdict,) = publish([run_id])
    assert verdict.state == "refused" and reason in verdict.reason and not published.exists()
    assert state(publish([run_id], allow_dirty=True)) == ["published" if about else "refused"]
    assert state(publish([record(runs, kind=BlocksConfig, max_test=4)])) == ["published"]  # makes no table
    small = registry.dataset("qata").runs["cost"]["max_test"]  # of a table that says that it is of so many
    qata = {"dataset": "qata", "backbone": "chest_32", "text_encoder": "tiny"}
    assert state(publish([record(runs, **qata, max_test=small)])) == ["published"]
    assert "cases only" in publish([record(runs, **qata, max_test=small + 1)])[0].reason


@pytest.mark.parametrize("change", [{"seed": 2}, {"forgotten_field": 1}, {"experiment": "features"}])
def test_stale_records_are_refused_whatever_is_allowed(places, change):
    runs, published = places
    run_id = record(runs)
    rewrite(runs / "textdiff2d" / run_id, change)
    (verdict,) = publish(everything=True, allow_dirty=True)
    assert (verdict.run_id, verdict.state) == (run_id, "refused") and "it is stale" in verdict.reason
    assert not published.exists()


def test_all_publishes_what_it_can_and_once(places):
    runs, published = places
    good, bad = record(runs), record(runs, seed=1, dirty=True)
    first = {verdict.run_id: verdict.state for verdict in publish(everything=True)}
    assert first == {good: "published", bad: "refused"}
    assert state(publish([good, good])) == ["unchanged"]
    assert [path.name for path in (published / "textdiff2d").iterdir()] == [good]


@pytest.mark.parametrize("cut_short", [True, False])
@pytest.mark.parametrize("changed", [True, False])
def test_a_new_record_replaces_the_published_one(places, changed, cut_short):
    runs, published = places
    run_id = record(runs)
    publish([run_id])
    place = published / "textdiff2d" / run_id
    if changed:
        (place / "figures" / "old.png").touch()
        (runs / "textdiff2d" / run_id / "metrics.json").write_text('{"test/dice": 0.8}')
    if cut_short:  # a kill between the two renames
        place.rename(place.with_name(f".{run_id}.previous"))
    assert state(publish([run_id])) == ["published" if changed or cut_short else "unchanged"]
    copy = content(place)
    assert (b"0.8" in copy["metrics.json"]) == changed and "figures/old.png" not in copy
    assert [path.name for path in place.parent.iterdir()] == [run_id]


@pytest.mark.parametrize("fails_at", ["first write", "third write", "rename"])
@pytest.mark.parametrize("before", [True, False])
def test_a_failure_leaves_the_published_folder_as_it_was(places, monkeypatch, fails_at, before):
    runs, published = places
    run_id = record(runs)
    if before:
        publish([run_id])
        (runs / "textdiff2d" / run_id / "metrics.json").write_text('{"test/dice": 0.8}')
    old, write, rename, calls = content(published), records._write, Path.rename, []

    def full(path, data):
        calls.append(path)
        if fails_at == f"{['first', 'second', 'third'][min(len(calls), 3) - 1]} write":
            write(path, data[:5])
            raise OSError("No space left on device")
        return write(path, data)

    def no_new_one(self, target):
        if fails_at == "rename" and self.name.endswith(".partial"):
            raise OSError("No space left on device")
        return rename(self, target)

    monkeypatch.setattr(records, "_write", full)
    monkeypatch.setattr(Path, "rename", no_new_one)
    with pytest.raises(OSError, match="No space"):
        publish([run_id])
    assert content(published) == old
    assert [path.name for path in (published / "textdiff2d").iterdir()] == [run_id] * before


def test_wrong_requests_are_named(places, monkeypatch):
    runs, published = places
    run_id = record(runs)
    for asked in ({}, {"run_ids": [run_id], "everything": True}):
        with pytest.raises(ValueError, match="run ids, or --all"):
            publish(**asked)
    with pytest.raises(ValueError, match=f"no finished record.*did you mean '{run_id}'"):
        publish([run_id[:-1]])
    (runs / "textdiff2d" / run_id / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no finished record"):
        publish([run_id])
    (published.parents[1] / "pyproject.toml").unlink()
    with pytest.raises(FileNotFoundError, match="copy of the repository"):
        publish(everything=True)

"""Publishing: what may not travel stays, what could not be made again is refused, and a failure leaves the old record whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textdiff.experiments import publish as publishing
from textdiff.experiments.config import TextDiffConfig, TextDiffSegConfig
from textdiff.experiments.publish import publish
from textdiff.experiments.records import FILES, portable

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLE = 'case,caption,dice,dice_shuffled\n001,"Nuclei, dense.",0.7382151794907655,0.50\n002,,1.0,0.25\n'
BARE = "case,dice,dice_shuffled\n001,0.7382151794907655,0.50\n002,1.0,0.25\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Fresh folders: of own results, and of a checkout's published records."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    published = tmp_path / "checkout" / "results" / "published"
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "runs"))
    monkeypatch.setattr(publishing, "published_dir", lambda: published)
    return tmp_path / "runs", published


def record(root: Path, commit: str | None = COMMIT, dirty: bool | None = False, kind=TextDiffConfig, **params) -> str:
    """Writes a finished record; returns its run id."""
    usual = {"dataset": "monuseg", "backbone": "he_32"} if kind is TextDiffConfig else {}
    config = kind.from_params(**({"mode": "full"} | usual | params))
    folder = root / config.experiment / config.run_id
    (folder / "figures").mkdir(parents=True)
    for name, content in {
        "config.json": json.dumps(portable(config.to_dict())),
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


def test_synthetic_data_is_published_whole(places):
    runs, published = places
    run_id = record(runs, dataset="chest_phantoms", backbone="auto")
    publish([run_id])
    copy = content(published / "textdiff2d" / run_id)
    assert "figures/best.png" in copy and copy["per_case.csv"].decode() == TABLE and "notes.txt" not in copy


def test_volumes_are_published_like_images(places):
    runs, published = places
    real, drawn = (record(runs, kind=TextDiffSegConfig, dataset=name) for name in ("hippocampus", "abdomen_phantoms"))
    assert state(publish([real, drawn])) == ["published"] * 2
    assert sorted(path.name for path in (published / "textdiffseg3d" / real / "figures").iterdir()) == [
        "training.json",
        "training.png",
    ]
    assert (published / "textdiffseg3d" / drawn / "figures" / "best.png").is_file()


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"dirty": True}, "differ from commit 01234567, so that nobody could make the number again"),
        ({"commit": None, "dirty": None}, "commit is not known"),
        ({"dirty": None}, "commit is not known"),
    ],
)
def test_a_number_that_could_not_be_made_again_is_refused(places, about, reason):
    runs, published = places
    run_id = record(runs, **about)
    (verdict,) = publish([run_id])
    assert verdict.state == "refused" and reason in verdict.reason
    assert not published.exists()
    assert state(publish([run_id], allow_dirty=True)) == ["published"]


def test_demo_and_stale_records_are_refused_whatever_is_allowed(places):
    runs, published = places
    demo = record(runs, mode="demo", dataset="nuclei_phantoms", backbone="auto")
    changed = record(runs, seed=1)
    config = runs / "textdiff2d" / changed / "config.json"
    config.write_text(config.read_text().replace('"seed": 1', '"seed": 2'))
    older = record(runs, seed=3)
    config = runs / "textdiff2d" / older / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"forgotten_field": 1}))
    verdicts = {verdict.run_id: verdict for verdict in publish(everything=True, allow_dirty=True)}
    assert "demo" in verdicts[demo].reason
    assert "stale" in verdicts[changed].reason and "stale" in verdicts[older].reason
    assert not published.exists()


def test_all_publishes_what_it_can_and_once(places):
    runs, published = places
    good, bad = record(runs), record(runs, seed=1, dirty=True)
    first = {verdict.run_id: verdict.state for verdict in publish(everything=True)}
    assert first == {good: "published", bad: "refused"}
    assert state(publish([good, good])) == ["unchanged"]
    assert [path.name for path in (published / "textdiff2d").iterdir()] == [good]


def test_a_new_record_replaces_the_published_one(places):
    runs, published = places
    run_id = record(runs)
    publish([run_id])
    (published / "textdiff2d" / run_id / "figures" / "old.png").touch()
    (runs / "textdiff2d" / run_id / "metrics.json").write_text('{"test/dice": 0.8}')
    assert state(publish([run_id])) == ["published"]
    copy = content(published / "textdiff2d" / run_id)
    assert b"0.8" in copy["metrics.json"] and "figures/old.png" not in copy


@pytest.mark.parametrize("fails_at", [1, 3])
@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_leaves_the_published_folder_as_it_was(places, monkeypatch, fails_at, before):
    runs, published = places
    run_id = record(runs)
    if before:
        publish([run_id])
        (runs / "textdiff2d" / run_id / "metrics.json").write_text('{"test/dice": 0.8}')
    old, write, calls = content(published), Path.write_bytes, []

    def full(path, data):
        calls.append(path)
        if len(calls) == fails_at:
            write(path, data[:5])
            raise OSError("No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        publish([run_id])
    assert content(published) == old
    assert [path.name for path in (published / "textdiff2d").iterdir()] == [run_id] * before


def test_a_failing_rename_puts_the_published_record_back(places, monkeypatch):
    runs, published = places
    run_id = record(runs)
    publish([run_id])
    old, rename = content(published), Path.rename
    (runs / "textdiff2d" / run_id / "metrics.json").write_text('{"test/dice": 0.8}')

    def no_new_one(self, target):
        if self.name.endswith(".partial"):
            raise OSError("cannot rename")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_new_one)
    with pytest.raises(OSError, match="cannot rename"):
        publish([run_id])
    assert content(published) == old


def test_wrong_requests_are_named(places, monkeypatch):
    runs, published = places
    run_id = record(runs)
    for asked in ({}, {"run_ids": [run_id], "everything": True}):
        with pytest.raises(ValueError, match="run ids, or --all"):
            publish(**asked)
    with pytest.raises(ValueError, match=f"no finished record.*Did you mean {run_id}"):
        publish([run_id[:-1]])
    (runs / "textdiff2d" / run_id / "metrics.json").unlink()
    with pytest.raises(ValueError, match="no finished record"):
        publish([run_id])
    (published.parents[1] / "pyproject.toml").unlink()
    with pytest.raises(FileNotFoundError, match="copy of the repository"):
        publish(everything=True)

"""Records: whole or not there, the same everywhere, read back as they were written; asking for one changes nothing."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from tiny_models import tiny_unet

from textdiff.base.paths import PACKAGE
from textdiff.experiments import records
from textdiff.experiments.config import portable
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pages import BlocksConfig, DataConfig, PredictConfig, VolumePredictConfig
from textdiff.experiments.records import FILES, Run, load_records, papermill_command
from textdiff.experiments.sweep import state_of
from textdiff.experiments.volumes import TextDiffSegConfig
from textdiff.figures.style import described

PER_CASE = pd.DataFrame({"case": ["001", "002"], "caption": ["", "Nuclei."], "dice": [0.5, 1.0]})


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path))
    return Run.open(DataConfig.from_params())


def picture() -> Figure:
    return described(Figure(), "A black square.", "Black.")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cut_short(run: Run) -> Path:
    """As a kill between the two renames leaves a record."""
    return run.folder.rename(run.folder.with_name(f".{run.folder.name}.previous"))


# --- saved and read ----------------------------------------------------------------------------------------


def test_a_record_holds_what_was_saved(run, tmp_path):
    assert run.folder == tmp_path / "data" / DataConfig.from_params().run_id
    assert not run.finished and not run.folder.exists()
    metrics = {"test/dice": np.float32(0.75), "test/n": np.int64(2), "test/low": math.nan}
    folder = run.save(metrics, PER_CASE, {"cases": picture()}, about={"training_cases": ["ab"]})
    assert run.finished and folder == run.folder and [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert sorted(content(folder)) == sorted([*FILES, "figures/cases.json", "figures/cases.png"])
    assert run.metrics() == {"test/dice": 0.75, "test/n": 2, "test/low": None}
    assert json.loads((folder / "figures/cases.json").read_text(encoding="utf-8")) == {
        "alt": "A black square.",
        "caption": "Black.",
    }
    assert json.loads((folder / "env.json").read_text(encoding="utf-8"))["training_cases"] == ["ab"]
    assert run.figure("cases") == folder / "figures/cases.png" and run.figure("best") is None
    before = content(folder)
    run.save({"test/dice": 0.9}, PER_CASE, {"new": picture()})
    assert run.metrics() == {"test/dice": 0.9}
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["new.json", "new.png"]
    assert content(folder)["figures/new.png"] == before["figures/cases.png"]  # same figure, same bytes
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_table_is_read_as_it_was_written(run):
    """Numbers stay numbers where some are missing: they once came back as text."""
    table = pd.DataFrame(
        {
            "case": ["001", "nan"],
            "caption": ["", "NA"],
            "caption_shuffled": ["1", "2"],
            "prompt": ["", "3"],
            "kind": ["class", ""],
            "blocks": ["1,4,7", "4"],
            "dice": [0.25, math.nan],
            "hd95_mm": [math.nan, math.nan],
            "ratio": [math.inf, 1.0],
            "n": [3, 4],
        }
    )
    run.save({}, table)
    pd.testing.assert_frame_equal(run.per_case(), table)
    assert run.per_case()["dice"].mean() == 0.25


def test_a_record_names_no_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("TEXTDIFF_COMPILE", raising=False)
    image = tmp_path / "mine.png"
    image.touch()
    run = Run.open(PredictConfig.from_params(image=str(image), text="x", out_dir=str(tmp_path)))
    env = json.loads((run.save({}, PER_CASE) / "env.json").read_text(encoding="utf-8"))
    wanted = {"commit", "dirty", "versions", "processor", "cores", "gpu", "seconds", "command", "date"}
    assert wanted | {"peak_memory_mb", "peak_gpu_memory_mb"} <= set(env) and env["compile"] == "auto"
    assert {"python", "torch", "monai", "transformers", "numpy", "textdiff"} == set(env["versions"])
    assert env["seconds"] >= 0 and env["cores"] >= 1 and env["peak_memory_mb"] > 10
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", env["date"])
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert "out_dir" not in config and (config["experiment"], config["image"]) == ("predict", "mine.png")
    written = b"".join(content(run.folder).values()).decode(errors="ignore")
    assert not any(place in written for place in (str(tmp_path), os.getcwd(), os.path.expanduser("~")))


def test_records_below_the_home_folder_are_found_where_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run.open(TextDiffConfig.from_params(out_dir="~/mine"))
    run.save({}, PER_CASE)
    assert load_records("~/mine")["run_id"].tolist() == [run.folder.name]


def test_paths_of_any_system_are_made_portable():
    values = ("/home/x/w.pt", "C:\\models\\w.pt", "~/w.pt", "org/name")
    assert [portable(one) for one in values] == ["w.pt", "w.pt", "w.pt", "org/name"]
    for cls, name in ((PredictConfig, "image"), (VolumePredictConfig, "volume"), (TextDiffSegConfig, "text_encoder")):
        record = cls.resolved(**{name: "/home/x/w.pt", "out_dir": "/home/x"}).to_record()
        assert record[name] == "w.pt" and "/home" not in str(record)


def test_a_sentence_is_no_path():
    """Of "~5 mm nodule, left/right kidney" the record once held "right kidney", and so did that of "~9 mm tumour, ..."."""
    said = ("~5 mm nodule, left/right kidney", "~9 mm tumour, left/right kidney")
    one, other = (VolumePredictConfig.from_params(text=text) for text in said)
    assert one.to_record()["text"] == said[0] and one.run_id != other.run_id


@pytest.mark.parametrize("prefix", ["random:", "redrawn:", "blind:", ""])
def test_a_folder_behind_a_prefix_is_made_portable(prefix, tmp_path, monkeypatch):
    folders = [tmp_path / place / "mine" for place in "ab"]
    for folder in folders:
        tiny_unet(0).save_pretrained(folder, torch.float32)
    one, two = (TextDiffConfig.from_params(backbone=f"{prefix}{folder}", blocks="0,2") for folder in folders)
    monkeypatch.chdir(tmp_path)
    three = TextDiffConfig.from_params(backbone=f"{prefix}a/mine", blocks="0,2")
    assert one.run_id == two.run_id == three.run_id
    for config in (one, three):
        assert config.to_record()["backbone"] == f"{prefix}mine" and f"backbone {prefix}mine " in papermill_command(
            config
        )
    if not prefix:
        ids = {BlocksConfig.from_params(backbone=str(one), sets="0@50").run_id for one in (*folders, "a/mine")}
        assert len(ids) == 1


def test_the_command_repeats_the_run():
    from papermill.cli import _resolve_type

    config = TextDiffConfig.from_params(seed=3, n_labels="all", noise_steps="50", learning_rate=1e-3)
    start, words = (words := shlex.split(papermill_command(config)))[:3], words[3:]
    assert start == ["papermill", "notebooks/13_textdiff.ipynb", "out.ipynb"]
    triples = [words[place : place + 3] for place in range(0, len(words), 3)]
    values = {name: text if option == "-r" else _resolve_type(text) for option, name, text in triples}
    assert TextDiffConfig.from_params(**values) == config and not values.keys() & config.derived.keys()


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["metrics", "per_case"])
def test_results_that_are_not_there(run, place):
    with pytest.raises(FileNotFoundError, match="no finished record"):
        getattr(run, place)()


def test_wrong_metrics_and_figure_names_are_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match="'test/dice'"):
        run.save({"test/dice": "high"}, PER_CASE)
    with pytest.raises(ValueError, match="figure name"):
        run.save({}, PER_CASE, {"../cases": picture()})
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="no alt text"):
        run.save({}, PER_CASE, {"bare": Figure()})


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("fails_at", [1, 4, 6])
def test_a_full_disk_leaves_things_as_they_were(run, monkeypatch, fails_at, before):
    if before:
        run.save({"test/dice": 0.5}, PER_CASE, {"cases": picture()})
    old, write, calls = content(run.folder), records._write, []

    def full(path, data):
        calls.append(path)
        if len(calls) == fails_at:
            path.write_bytes(data[: len(data) // 2]) if path.parent.is_dir() else None
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(records, "_write", full)
    with pytest.raises(OSError, match="No space"):
        run.save({"test/dice": 0.9}, PER_CASE, {"cases": picture()})
    assert content(run.folder) == old and run.finished == before
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name] * before


def test_a_failing_rename_puts_the_old_record_back(run, monkeypatch):
    before, rename = content(run.save({"test/dice": 0.5}, PER_CASE)), Path.rename

    def no_new_one(self, target):
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_new_one)
    with pytest.raises(KeyboardInterrupt):
        run.save({"test/dice": 0.9}, PER_CASE)
    assert content(run.folder) == before


# --- asking changes nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "whole", "cut short", "both"])
def test_asking_for_a_record_changes_nothing_on_the_disk(run, tmp_path, left):
    """Opening a run once renamed what a cut-short replacement had left, with no lock held."""
    if left != "nothing":
        run.save({"test/dice": 0.5}, PER_CASE, {"cases": picture()})
    if left in ("cut short", "both"):
        cut_short(run)
    if left == "both":  # killed after the second rename: the new record counts
        run.folder.mkdir()
        for name, data in content(run.folder.with_name(f".{run.folder.name}.previous")).items():
            (run.folder / name).parent.mkdir(exist_ok=True)
            (run.folder / name).write_bytes(data.replace(b"0.5", b"0.7"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    again = Run.open(DataConfig.from_params())
    assert state_of(again.config) == ("to run" if left == "nothing" else "recorded")
    found = load_records(tmp_path)
    if left == "nothing":
        assert found.empty
    else:
        dice = 0.7 if left == "both" else 0.5
        assert again.metrics() == {"test/dice": dice} and again.figure("cases").is_file() and len(again.per_case()) == 2
        assert found[["run_id", "test/dice", "stale"]].values.tolist() == [[run.folder.name, dice, False]]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))} == before
    again.save({"test/dice": 0.9}, PER_CASE)
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]
    assert again.metrics() == {"test/dice": 0.9}


def test_a_save_that_fails_keeps_the_record_that_was_cut_short(run, monkeypatch):
    before = content(run.save({"test/dice": 0.5}, PER_CASE))
    cut_short(run)
    monkeypatch.setattr(records, "_write", lambda *a: (_ for _ in ()).throw(OSError("No space")))
    with pytest.raises(OSError, match="No space"):
        run.save({"test/dice": 0.9}, PER_CASE)
    assert run.finished and content(run.place) == before


def writers(source: str) -> set[str]:
    """Methods that write a record, called in a module or notebook that works with runs."""
    tree = ast.parse(re.sub(r"^( *)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    return called & {"save", "write"} if "Run" in imported else set()


def test_there_is_one_route_to_a_record():
    """`experiments.run` writes under a lock, `publish` copies; no notebook and no other module does."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    for path in (PACKAGE.parent / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path.name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = {name: called for name, source in sources.items() if (called := writers(source))}
    assert found == {"experiments/run.py": {"save"}, "experiments/publish.py": {"write"}}


# --- many records ------------------------------------------------------------------------------------------


def test_records_are_rows_and_the_first_roots_counts(tmp_path):
    for root, seed, dice in (("runs", 0, 0.6), ("published", 0, 0.5), ("published", 1, 0.4)):
        run = Run.open(TextDiffConfig.from_params(model="unet", seed=seed), tmp_path / root)
        run.save({"test/dice": dice, "test/hd95_mm": math.nan}, PER_CASE)
    rows = load_records([tmp_path / "runs", tmp_path / "published"]).sort_values("seed")
    columns = ["source", "experiment", "model", "test/dice", "stale"]
    assert rows[columns].values.tolist() == [
        ["runs", "textdiff2d", "unet", 0.6, False],
        ["published", "textdiff2d", "unet", 0.4, False],
    ]
    assert (rows["env/seconds"] >= 0).all() and rows["test/hd95_mm"].isna().all()


@pytest.mark.parametrize("change", [{"n_shown": 9}, {"forgotten_field": 1}, {"experiment": "unknown"}, {}])
def test_records_of_another_form_of_the_config_are_stale(run, tmp_path, change):
    path = run.save({}, PER_CASE) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
    assert load_records(tmp_path)["stale"].tolist() == [bool(change)]


def test_unfinished_folders_are_no_records_and_broken_ones_are_named(run, tmp_path):
    assert load_records(tmp_path / "nowhere").empty and "stale" in load_records(tmp_path).columns
    broken = run.save({"test/dice": 0.5}, PER_CASE) / "metrics.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        load_records(tmp_path)
    broken.unlink()
    assert load_records(tmp_path).empty and not run.finished

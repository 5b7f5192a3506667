"""Records: whole or not there, the same everywhere, and read back as they were written."""

import errno
import hashlib
import json
import math
import os
import re
import sys
import types
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import pytest

from textdiff.experiments import records as runs
from textdiff.experiments.records import Run, load_records, papermill_command, portable
from textdiff.figures import images as plots


@dataclass(frozen=True)
class SmallConfig:
    """The least that a run asks of a config."""

    model: str = "textdiff"
    dataset: str = "nuclei_phantoms"
    n_labels: int = 5
    seed: int = 0
    backbone: str = ""
    out_dir: str = ""
    blocks: tuple[int, ...] = (6, 8)
    experiment = "textdiff2d"

    def to_dict(self):
        return asdict(self)

    @property
    def run_id(self):
        values = {name: value for name, value in portable(self.to_dict()).items()}
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        return f"{self.model}-{digest[:8]}"


@pytest.fixture
def config_module(monkeypatch):
    """`textdiff.experiments.config` as far as reading records needs it."""
    module = types.ModuleType("textdiff.experiments.config")

    def config_from_record(values):
        known = {name: value for name, value in values.items() if name in SmallConfig.__dataclass_fields__}
        if len(known) != len(values):
            raise ValueError(f"unknown fields {set(values) - set(known)}")
        return SmallConfig(**known | {"blocks": tuple(values["blocks"])})

    module.config_from_record = config_from_record
    monkeypatch.setitem(sys.modules, "textdiff.experiments.config", module)
    return module


PER_CASE = pd.DataFrame({"case": ["001", "002"], "caption": ["", "Nuclei."], "dice": [0.5, 1.0]})


def picture():
    return plots.samples_grid([np.zeros((4, 4, 3), np.uint8)], caption="A black square.")


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_record_holds_what_was_saved(tmp_path):
    run = Run.open(SmallConfig(), tmp_path, notebook="13_train_textdiff")
    assert run.folder == tmp_path / "textdiff2d" / SmallConfig().run_id
    assert not run.finished
    assert not run.folder.exists()
    folder = run.save({"test/dice": np.float32(0.75), "test/n": np.int64(2)}, PER_CASE, {"cases": picture()})
    assert run.finished and folder == run.folder
    assert sorted(content(folder)) == [
        "config.json",
        "env.json",
        "figures/cases.json",
        "figures/cases.png",
        "metrics.json",
        "per_case.csv",
    ]
    assert run.metrics() == {"test/dice": 0.75, "test/n": 2}
    pd.testing.assert_frame_equal(run.per_case(), PER_CASE, check_dtype=False)
    words = json.loads((folder / "figures" / "cases.json").read_text())
    assert words == {"alt": "Grid of 1 images.", "caption": "A black square."}
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_default_place_is_the_results_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    assert Run.open(SmallConfig()).folder.parent == tmp_path / "results" / "textdiff2d"


def test_environment_is_told_without_names_and_places(tmp_path):
    run = Run.open(SmallConfig(out_dir=str(tmp_path), backbone=str(tmp_path / "small.safetensors")), tmp_path)
    folder = run.save({}, PER_CASE)
    env = json.loads((folder / "env.json").read_text())
    wanted = {"commit", "dirty", "versions", "processor", "cores", "gpu", "seconds", "command", "date"}
    assert wanted | {"peak_memory_mb", "peak_gpu_memory_mb"} <= set(env)
    assert {"python", "torch", "monai", "transformers", "numpy", "textdiff"} == set(env["versions"])
    assert env["seconds"] >= 0 and env["cores"] >= 1 and env["peak_memory_mb"] > 10
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", env["date"])
    config = json.loads((folder / "config.json").read_text())
    assert "out_dir" not in config and config["backbone"] == "small.safetensors"
    written = b"".join(content(folder).values()).decode(errors="ignore")
    assert str(tmp_path) not in written and os.getcwd() not in written and os.path.expanduser("~") not in written


def test_paths_of_any_system_are_made_portable():
    values = {"a": "/home/x/w.pt", "b": "C:\\models\\w.pt", "c": "~/w.pt", "d": "org/name", "e": ("/a/b", 1)}
    expected = {"a": "w.pt", "b": "w.pt", "c": "w.pt", "d": "org/name", "e": ["b", 1]}
    assert portable(values | {"out_dir": "/x"}) == expected


def test_the_command_keeps_types():
    command = papermill_command("13_train", {"seed": 3, "blocks": [6, 8], "note": "a b", "fast": True})
    assert command == (
        "papermill notebooks/13_train.ipynb out.ipynb -p seed 3 -r blocks 6,8 -r note 'a b' -p fast True"
    )


def test_not_finite_becomes_null_and_reads_back(tmp_path, config_module):
    run = Run.open(SmallConfig(), tmp_path)
    run.save({"test/dice": 0.5, "test/dice_ci_low": math.nan}, PER_CASE)
    assert run.metrics()["test/dice_ci_low"] is None
    assert load_records(tmp_path)["test/dice_ci_low"].isna().all()


def test_wrong_metrics_and_figure_names_are_refused_before_anything_is_written(tmp_path):
    run = Run.open(SmallConfig(), tmp_path)
    with pytest.raises(ValueError, match="'test/dice'"):
        run.save({"test/dice": "high"}, PER_CASE)
    with pytest.raises(ValueError, match="figure name"):
        run.save({}, PER_CASE, {"../cases": picture()})
    assert list(tmp_path.iterdir()) == []


def test_a_figure_without_alt_text_is_saved_with_a_warning(tmp_path):
    from matplotlib.figure import Figure

    run = Run.open(SmallConfig(), tmp_path)
    with pytest.warns(UserWarning, match="no alt text"):
        run.save({}, PER_CASE, {"bare": Figure()})
    assert run.finished


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_full_disk_leaves_the_old_record_whole(tmp_path, monkeypatch, fails_at):
    run = Run.open(SmallConfig(), tmp_path)
    before = content(run.save({"test/dice": 0.5}, PER_CASE, {"cases": picture()}))
    write, calls = runs._write, []

    def full(path, data):
        calls.append(path)
        if len(calls) == fails_at:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(runs, "_write", full)
    with pytest.raises(OSError, match="No space"):
        run.save({"test/dice": 0.9}, PER_CASE, {"cases": picture()})
    assert content(run.folder) == before
    assert [p.name for p in run.folder.parent.iterdir()] == [run.folder.name]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "_write", full)
    run = Run.open(SmallConfig(), tmp_path)
    with pytest.raises(OSError, match="No space"):
        run.save({}, PER_CASE)
    assert not run.finished and list(run.folder.parent.iterdir()) == []


class Kill(BaseException):
    """What a kill looks like from inside: nothing after it runs but `finally`."""


def test_a_failing_rename_puts_the_old_record_back(tmp_path, monkeypatch):
    run = Run.open(SmallConfig(), tmp_path)
    before = content(run.save({"test/dice": 0.5}, PER_CASE))
    rename = type(run.folder).rename

    def no_new_one(self, target):
        if self.name.endswith(".partial"):
            raise Kill
        return rename(self, target)

    monkeypatch.setattr(type(run.folder), "rename", no_new_one)
    with pytest.raises(Kill):
        run.save({"test/dice": 0.9}, PER_CASE)
    assert content(run.folder) == before


def test_a_kill_between_the_renames_is_mended(tmp_path, config_module):
    run = Run.open(SmallConfig(), tmp_path)
    before = content(run.save({"test/dice": 0.5}, PER_CASE))
    run.folder.rename(run.folder.with_name(f".{run.folder.name}.previous"))
    records = load_records(tmp_path)
    assert records["test/dice"].tolist() == [0.5] and records["run_id"].tolist() == [run.folder.name]
    assert not records["stale"].any()
    again = Run.open(SmallConfig(), tmp_path)
    assert again.finished and content(again.folder) == before


def test_a_new_record_replaces_the_old_one_wholly(tmp_path):
    run = Run.open(SmallConfig(), tmp_path)
    run.save({"test/dice": 0.5}, PER_CASE, {"old": picture()})
    run.save({"test/dice": 0.9}, PER_CASE, {"new": picture()})
    assert run.metrics() == {"test/dice": 0.9}
    assert sorted(p.name for p in (run.folder / "figures").iterdir()) == ["new.json", "new.png"]
    assert [p.name for p in run.folder.parent.iterdir()] == [run.folder.name]


def test_asking_for_results_that_are_not_there(tmp_path):
    run = Run.open(SmallConfig(), tmp_path)
    for ask in (run.metrics, run.per_case):
        with pytest.raises(FileNotFoundError, match="no finished record"):
            ask()


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    saved = []
    for _ in range(2):
        folder = Run.open(SmallConfig(), tmp_path).save({}, PER_CASE, {"cases": picture()})
        saved.append((folder / "figures" / "cases.png").read_bytes())
    assert saved[0] == saved[1]


def test_records_are_rows(tmp_path, config_module):
    for seed in (1, 0):
        Run.open(SmallConfig(seed=seed), tmp_path).save({"test/dice": 0.5 + seed / 10}, PER_CASE)
    records = load_records(tmp_path).set_index("seed").sort_index()
    assert records["test/dice"].tolist() == [0.5, 0.6]
    assert records["model"].tolist() == ["textdiff"] * 2
    assert records["source"].tolist() == [tmp_path.name] * 2
    assert (records["env/seconds"] >= 0).all() and not records["stale"].any()
    assert records["blocks"].tolist() == [[6, 8], [6, 8]]


def test_of_two_records_of_one_config_the_first_roots_counts(tmp_path, config_module):
    for root, dice in (("runs", 0.6), ("published", 0.5)):
        Run.open(SmallConfig(), tmp_path / root).save({"test/dice": dice}, PER_CASE)
    Run.open(SmallConfig(seed=1), tmp_path / "published").save({"test/dice": 0.4}, PER_CASE)
    records = load_records([tmp_path / "runs", tmp_path / "published"])
    assert sorted(zip(records["source"], records["test/dice"], strict=True)) == [
        ("published", 0.4),
        ("runs", 0.6),
    ]


def test_records_of_another_form_of_the_config_are_stale(tmp_path, config_module, monkeypatch):
    folder = Run.open(SmallConfig(), tmp_path).save({"test/dice": 0.5}, PER_CASE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_labels": 10}))
    assert load_records(tmp_path)["stale"].tolist() == [True]
    (folder / "config.json").write_text(json.dumps(config | {"forgotten_field": 1}))
    assert load_records(tmp_path)["stale"].tolist() == [True]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_records(tmp_path)["stale"].tolist() == [False]


def test_unfinished_folders_are_no_records_and_broken_ones_are_named(tmp_path, config_module):
    assert load_records(tmp_path / "nowhere").empty
    assert "stale" in load_records(tmp_path).columns
    folder = Run.open(SmallConfig(), tmp_path).save({"test/dice": 0.5}, PER_CASE)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape(str(folder / "metrics.json"))):
        load_records(tmp_path)
    (folder / "metrics.json").unlink()
    assert load_records(tmp_path).empty

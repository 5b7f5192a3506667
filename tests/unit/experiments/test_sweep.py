"""A sweep: what it plans, and that a failing, silent or interrupted run leaves the others and the folder as they should be."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from textdiff.cli import read_config
from textdiff.experiments import sweep as sweeping
from textdiff.experiments.catalogue import CONFIGS
from textdiff.experiments.grids import Grid, Row, grid
from textdiff.experiments.records import FILES
from textdiff.experiments.sweep import (
    again,
    check,
    described,
    log_path,
    outcome_of,
    plan,
    split_labels,
    summary,
    sweep,
    table_path,
    write_config,
    write_table,
)

# Stands in for `textdiff train --config FILE`: does for each seed what DOES says.
STAND_IN = """
import json, os, pathlib, signal, sys, time
file = pathlib.Path(sys.argv[1])
config = json.loads(file.read_text())
seed, root = config["seed"], file.parents[1]
does = json.loads(os.environ["DOES"]).get(str(seed), "record")
(root / f"{seed}.threads").write_text(os.environ["OMP_NUM_THREADS"])
print("half a line", end="\\r")
if does == "fail" or (does == "fail once" and not (root / f"{seed}.tried").exists()):
    (root / f"{seed}.tried").touch()
    sys.exit("\\x1b[31mTraceback of the run\\x1b[0m\\n-----\\nKeyError: 'dice'")
if does == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if does.isdigit():
    sys.exit(int(does))
if does == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (root / f"{seed}.pid").write_text(str(os.getpid()))
    time.sleep(60)
if does == "meet":  # ends when the other one runs too
    (root / f"{seed}.here").touch()
    while not (root / f"{1 - seed}.here").exists():
        time.sleep(0.01)
if does != "nothing":
    folder = root / config["experiment"] / file.stem
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")
"""


KILLED = "ended by signal 9 (out of memory?)"


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """Fresh folders of results and of published records."""
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(sweeping, "published_dir", lambda: tmp_path / "published")
    return tmp_path / "results"


@pytest.fixture
def runs_do(results, tmp_path, monkeypatch):
    """Puts the stand-in in the place of `textdiff train`; call it with what each seed does."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.replace("FILES", repr(FILES)))
    monkeypatch.setattr(sweeping, "train_command", lambda path: [sys.executable, str(script), str(path)])
    monkeypatch.setattr(sweeping, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(sweeping, "GRACE_SECONDS", 0.1)
    monkeypatch.setenv("DOES", "{}")
    return lambda *does: monkeypatch.setenv("DOES", json.dumps(dict(enumerate(does))))


ROWS = (Row("TextDiff", {}), Row("TextDiff, no text", {"model": "textdiff_no_text"}))


def small_grid(seeds=(0,), rows=ROWS) -> Grid:
    return Grid("small", "?", rows, {"mode": "demo", "dataset": "nuclei_phantoms"}, tuple(seeds))


def planned(*seeds: int) -> list:
    return plan(small_grid(seeds, ROWS[:1]))


def record(root: Path, config) -> None:
    folder = root / config.experiment / config.run_id
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")


def test_a_plan_holds_every_run_once_and_knows_where_its_record_is(results, tmp_path):
    twice = small_grid((0, 1), (*ROWS, Row("the same again", {"model": "textdiff"})))
    found = plan(twice)
    order = [(row.label, seed) for seed in (0, 1) for row in ROWS]
    assert [(one.row, one.config.seed) for one in found] == order and not results.exists()
    record(results, found[0].config)
    record(tmp_path / "published", found[1].config)
    found = plan(twice)
    assert [one.state for one in found] == ["recorded", "published", "to run", "to run"]
    again_too = plan(twice, published=True)
    assert [one.state for one in again_too] == ["recorded", "to run", "to run", "to run"], (
        "its weights are not published"
    )
    lines = described(found[:2] + [replace(found[2], row="U-Net")]).splitlines()
    assert [line.split()[0] for line in lines] == ["state", "recorded", "published", "to", "3"]
    assert lines[1].endswith(f"TextDiff           {found[0].config.run_id}")
    assert lines[-1] == "3 runs: 1 recorded, 1 published, 1 to run"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("TextDiff", ["TextDiff"]),
        ("TextDiff, no text", ["TextDiff, no text"]),
        ("U-Net, TextDiff,no text,TextDiff", ["U-Net", "TextDiff, no text", "TextDiff"]),
    ],
)
def test_a_label_may_hold_a_comma(text, labels):
    assert split_labels(text, small_grid()) == labels


def test_the_file_of_a_run_means_that_run(results):
    for config in (*grid("audit", "monuseg", seeds=[0]).all(), *(cls.from_params() for cls in CONFIGS.values())):
        path = write_config(config)
        assert read_config(path) == config and path == results / "logs" / f"{config.run_id}.json"
    assert sweeping.train_command(path) == [sys.executable, "-m", "textdiff", "train", "--config", str(path)]


def test_weights_that_are_not_those_of_the_file_are_refused(results):
    """The same name may stand for other weights on another machine: its run would be another one."""
    path = write_config(planned(0)[0].config)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backbone_weights": "0123456789abcdef"}))
    with pytest.raises(ValueError, match=r"backbone='phantoms_32' has other weights here \(.*than in the file \(0123"):
        read_config(path)


def test_finished_runs_are_skipped_and_the_others_made(runs_do, results, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    record(results, planned(0)[0].config)
    told, both = [], planned(0, 1)
    outcomes = sweep(both, jobs=2, report=told.append)
    assert [(outcome.planned.config.seed, outcome.state) for outcome in outcomes] == [(0, "skipped"), (1, "done")]
    assert (results / "1.threads").read_text() == "4"  # its share of the cores
    assert len(told) == 2 and told[1].startswith("[1/1] done") and log_path(both[1].config).is_file()
    # The plan is older than the record: it is not made again
    assert [outcome.state for outcome in sweep(both, report=str)] == ["skipped", "skipped"]


def test_two_runs_go_at_the_same_time(runs_do, results, monkeypatch):
    runs_do("meet", "meet")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [outcome.state for outcome in sweep(planned(0, 1), jobs=2, report=str)] == ["done", "done"]
    assert (results / "0.threads").read_text() == "3"  # a number that is set stays


def test_a_failing_run_does_not_stop_the_others(runs_do):
    runs_do("fail", "nothing", "die", "record")
    told = []
    outcomes = sweep(planned(0, 1, 2, 3), report=told.append)
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "failed", "done"]
    errors = [outcome.error for outcome in outcomes]
    assert errors[0] == ("half a line", "Traceback of the run", "KeyError: 'dice'") and "KeyError: 'dice'" in told[1]
    assert "there is no record" in errors[1][0] and errors[2] == ("half a line", KILLED)
    lines = summary(outcomes).splitlines()
    logs = [log_path(outcome.planned.config) for outcome in outcomes[:3]]
    assert lines[0] == "1 done, 0 skipped, 3 failed"
    assert all(str(log) in line for log, line in zip(logs, lines[1:4], strict=True)) and "KeyError: 'dice'" in lines[1]
    assert lines[3].endswith(f": {KILLED}  (see {logs[2]})")
    runs_do("record")
    assert [outcome.state for outcome in sweep(planned(0), report=str)] == ["done"]


@pytest.mark.parametrize(("does", "said"), [("137", KILLED), ("139", "ended by signal 11"), ("3", "half a line")])
def test_an_exit_code_that_stands_for_a_signal_is_said(runs_do, does, said):
    runs_do(does)
    (outcome,) = sweep(planned(0), report=str)
    assert outcome.error[-1] == said


def test_there_is_a_way_to_make_a_failed_run_again(results):
    (one,) = planned(0)
    command = ["textdiff", "train", "--config", str(log_path(one.config).with_suffix(".json"))]
    assert shlex.split(again([sweeping.Outcome(one, "failed")])) == command and not again(
        [sweeping.Outcome(one, "done")]
    )


def test_a_failed_run_is_tried_again_as_often_as_is_said(runs_do, results):
    runs_do("fail once", "fail", "record")
    told = []
    outcomes = sweep(planned(0, 1, 2), report=told.append, retries=1)
    assert {outcome.planned.config.seed: outcome.state for outcome in outcomes} == {0: "done", 1: "failed", 2: "done"}
    assert sum(line.startswith("to be tried again") for line in told) == 2
    with pytest.raises(ValueError, match="retries=-1"):
        sweep(planned(1), retries=-1)


def test_the_table_grows_with_the_records(runs_do, results):
    runs_do("record", "fail", "record")
    table, rows = results / "tables" / "small.csv", []

    def report(line):
        if table.is_file():
            rows.append([line.split(",")[3] for line in table.read_text().splitlines()[1:]])

    three = planned(0, 1, 2)
    sweep(three, report=report, table=table)
    assert rows == [
        ["to run", "to run", "to run"],
        ["recorded", "to run", "to run"],
        ["recorded", "to run", "to run"],
    ]  # before the first run, and at the second and third line
    (results / three[2].config.experiment / three[2].config.run_id / "metrics.json").write_text('{"test/dice": 0.5}')
    write_table(three, table)
    label, seed, run_id, state, dice = table.read_text().splitlines()[3].split(",")
    assert (label, seed, run_id, state, dice) == ("TextDiff", "2", three[2].config.run_id, "recorded", "0.5")


def test_some_rows_seeds_or_settings_have_a_table_of_their_own(results):
    whole = grid("comparison", "nuclei_phantoms")
    others = whole.only([whole.rows[0].label]), whole.changed({"iterations": 7}), replace(whole, seeds=(9,))
    paths = [table_path(one) for one in (whole, *others)]
    assert paths[0] == results / "tables" / "comparison-nuclei_phantoms.csv" and len(set(paths)) == 4
    assert table_path(others[0]) == paths[1]


def test_a_log_goes_on_where_another_sweep_wrote(runs_do):
    (one,) = planned(0)
    log_path(one.config).parent.mkdir(parents=True)
    log_path(one.config).write_text("epoch 1 of another's\n")
    runs_do("7")
    (outcome,) = sweep([one], report=str)
    assert "epoch 1" in log_path(one.config).read_text() and "epoch" not in " ".join(outcome.error)


def test_the_record_or_the_log_says_what_became_of_a_run(runs_do, results):
    runs_do("record", "fail")
    both = planned(0, 1)
    sweep(both, report=str)
    log = log_path(both[1].config)
    log.write_bytes(b"early words\n" + b"x" * 10**6 + b"\nthe last\n")
    assert [outcome_of(one).state for one in both] == ["done", "failed"]
    assert outcome_of(both[1]).error[-1] == "the last" and "early words" not in outcome_of(both[1]).error
    log.unlink()
    assert "no word" in summary([outcome_of(both[1])])


def test_all_that_is_wrong_is_said_before_anything_starts(results, monkeypatch, tmp_path):
    wrong = (Row("A", {"iterations": 0}), ROWS[0], Row("B", {"n_labels": -3}), Row("C", {"iterations": 0}))
    with pytest.raises(ValueError, match=r"2 faults in grid small:\n1. A, C: iterations=0.*\n2. B: n_labels=-3"):
        plan(small_grid(rows=wrong))
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path / "nowhere"))
    lacking = plan(small_grid(rows=(ROWS[0], Row("other encoder", {"text_encoder": str(tmp_path / "no encoder")}))))
    with pytest.raises((ValueError, OSError), match="other encoder: .*no encoder"):
        check(lacking)
    with pytest.raises((ValueError, OSError), match="other encoder: .*no encoder"):
        check(lacking[1:], pytest.fail)
    missing = plan(replace(grid("ablation", "monuseg", [0])))
    if all(one.state != "to run" for one in missing):  # they are published
        missing = [replace(one, state="to run") for one in missing]
    with pytest.raises(FileNotFoundError, match="TextDiff.*and .* more: .*MoNuSeg|nowhere"):
        check(missing)


def test_a_row_without_its_weights_does_not_stop_the_others(runs_do, results, tmp_path):
    runs_do("record")
    rows = (ROWS[0], Row("other encoder", {"text_encoder": str(tmp_path / "no encoder")}))
    said: list[str] = []
    checked = check(plan(small_grid((0, 1), rows)), said.append)
    assert [one.state for one in checked] == ["to run", "lacking", "to run", "lacking"]
    assert len(said) == 1 and said[0].startswith("left out: other encoder: ") and "no encoder" in said[0]
    outcomes = sweep(checked, report=said.append)
    assert said[1] == "4 runs: 0 recorded, 0 published, 2 to run, 2 lacking"
    assert sorted(one.state for one in outcomes) == ["done", "done", "lacking", "lacking"]
    assert summary(outcomes) == "2 done, 0 skipped, 0 failed, 2 lacking" and again(outcomes) == ""
    assert outcome_of(checked[1]).state == "lacking"
    later = check(plan(small_grid((0, 1), rows)), said.append)
    assert [one.state for one in later] == ["recorded", "lacking", "recorded", "lacking"], "said again, and no error"


def test_a_run_with_a_published_record_is_made_where_that_is_asked_for(runs_do, results, tmp_path):
    runs_do("record")
    record(tmp_path / "published", planned(0)[0].config)
    assert [one.state for one in sweep(planned(0), report=str)] == ["skipped"]
    (asked,) = plan(small_grid((0,), ROWS[:1]), published=True)
    assert [one.state for one in sweep([asked], report=str)] == ["done"]
    assert [one.state for one in sweep(plan(small_grid((0,), ROWS[:1]), published=True), report=str)] == ["skipped"]


def test_an_interrupted_sweep_ends_its_processes(runs_do, results):
    runs_do("record", "hang")

    def interrupt(line):
        if line.startswith("["):
            end = time.monotonic() + 20
            while not (pid := results / "1.pid").is_file() or not pid.read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(planned(0, 1), jobs=2, report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((results / "1.pid").read_text()), 0)
    assert [one.state for one in planned(0, 1)] == ["recorded", "to run"]


def test_less_than_one_at_a_time_is_refused(runs_do, results):
    with pytest.raises(ValueError, match="jobs=0: at least one"):
        sweep(planned(0), jobs=0)
    assert not results.exists()

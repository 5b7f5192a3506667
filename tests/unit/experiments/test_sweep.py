"""A sweep: what it plans, and that a failing, silent or interrupted run leaves the others and the folder as they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import nbformat
import pytest

from textdiff.experiments import sweep as sweeping
from textdiff.experiments.config import TextDiffConfig
from textdiff.experiments.grids import GRIDS, Grid, Row, grid
from textdiff.experiments.records import FILES
from textdiff.experiments.sweep import changed, described, notebook_command, plan, split_labels, summary, sweep

# Stands in for papermill: does for each seed what FAKE says.
FAKE_PAPERMILL = """
import json, os, pathlib, signal, sys, time
notebook, out, run_id, seed = sys.argv[1:]
does = json.loads(os.environ["FAKE"]).get(seed, "record")
root = pathlib.Path(os.environ["TEXTDIFF_RESULTS"])
pathlib.Path(out).write_text("half a notebook")
(root / f"{seed}.threads").write_text(os.environ["OMP_NUM_THREADS"])
if does == "fail":
    sys.exit("\\x1b[31mTraceback of cell 3\\x1b[0m\\n-----\\nKeyError: 'dice'")
if does == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (root / f"{seed}.pid").write_text(str(os.getpid()))
    time.sleep(60)
if does == "record":
    folder = root / "textdiff2d" / run_id
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")
    pathlib.Path(out).write_text("whole notebook")
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Fresh results and published folders, and a notebook 13 that has every parameter."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(folder))
    monkeypatch.setattr(sweeping, "published_dir", lambda: tmp_path / "published")
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path, "pass")
    return folder


def write_notebook(folder, code, without=()):
    names = [field for field in fields(TextDiffConfig) if field.name not in without]
    cells = [
        nbformat.v4.new_code_cell(
            "\n".join(f"{field.name} = {field.default!r}" for field in names), metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / "13_textdiff.ipynb")


@pytest.fixture
def fake(results, tmp_path, monkeypatch):
    """Puts the stand-in in papermill's place; call it with what each seed does."""
    (tmp_path / "fake_papermill.py").write_text(FAKE_PAPERMILL.replace("FILES", repr(FILES)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        sweeping,
        "notebook_command",
        lambda config, notebook, out: ["fake_papermill", str(notebook), str(out), config.run_id, str(config.seed)],
    )
    monkeypatch.setattr(sweeping, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(sweeping, "GRACE_SECONDS", 0.1)
    return lambda **does: monkeypatch.setenv("FAKE", json.dumps({k.removeprefix("seed"): v for k, v in does.items()}))


def small_grid(seeds=(0,), rows=None) -> Grid:
    rows = rows or (Row("TextDiff", {}), Row("TextDiff, no text", {"model": "textdiff_no_text"}))
    return Grid("small", "?", rows, {"mode": "demo", "dataset": "nuclei_phantoms"}, tuple(seeds))


def one_row(seeds) -> list:
    return plan(small_grid(seeds), ["TextDiff"])


def record(root, config):
    folder = root / "textdiff2d" / config.run_id
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "notebooks").iterdir())


def test_a_plan_holds_every_run_once_and_knows_where_its_record_is(results, tmp_path):
    again = (*small_grid().rows, Row("the same again", {"model": "textdiff"}))
    twice = small_grid((0, 1), again)
    planned = plan(twice)
    assert [(one.row, one.config.seed) for one in planned] == [
        ("TextDiff", 0),
        ("TextDiff, no text", 0),
        ("TextDiff", 1),
        ("TextDiff, no text", 1),
    ]
    record(results, planned[0].config)
    record(tmp_path / "published", planned[1].config)
    assert [one.state for one in plan(twice)] == ["recorded", "published", "to run", "to run"]


def test_rows_are_chosen_by_label_and_unknown_ones_are_named(results):
    assert {one.row for one in plan(small_grid(), ["TextDiff, no text"])} == {"TextDiff, no text"}
    with pytest.raises(
        ValueError, match=r"no row 'textdif'\. Did you mean 'TextDiff'\? It has: TextDiff; TextDiff, no"
    ):
        plan(small_grid(), ["textdif"])


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


def test_parameters_of_all_runs_can_be_changed_but_not_those_that_make_the_table(results):
    shorter = changed(small_grid(), {"iterations": 3})
    assert {one.config.iterations for one in plan(shorter)} == {3}
    with pytest.raises(ValueError, match="rows of grid small differ in model"):
        changed(small_grid(), {"model": "unet"})
    with pytest.raises(ValueError, match="--seeds"):
        changed(small_grid(), {"seed": 1})


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("dataset", "mode"), [("monuseg", "full"), ("qata", "full"), ("chest_phantoms", "demo")])
def test_the_command_of_a_run_means_that_run(name, dataset, mode, tmp_path):
    from papermill.cli import _resolve_type

    for config in grid(name, dataset, mode).all():
        words = notebook_command(config, tmp_path, tmp_path)[3:-3]
        triples = [words[start : start + 3] for start in range(0, len(words), 3)]
        values = {key: text if option == "-r" else _resolve_type(text) for option, key, text in triples}
        assert TextDiffConfig.from_params(**values) == config


def test_the_table_of_a_plan_shows_states_and_the_commands_to_come(results):
    planned = plan(small_grid())
    planned[0] = replace(planned[0], state="recorded")
    lines = described(planned).splitlines()
    assert [line.split()[0] for line in lines] == ["state", "recorded", "to", "papermill", "2"]
    assert f"{planned[1].config.run_id}.ipynb -r mode demo" in lines[3]
    assert lines[-1] == "2 runs: 1 recorded, 0 published, 1 to run"


def test_finished_runs_are_skipped_and_the_others_made(fake, results, monkeypatch):
    fake()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    planned, told = one_row((0, 1)), []
    record(results, planned[0].config)
    outcomes = sweep(one_row((0, 1)), jobs=2, report=told.append)
    assert [(outcome.planned.config.seed, outcome.state) for outcome in outcomes] == [(0, "skipped"), (1, "done")]
    assert names(results) == [f"{planned[1].config.run_id}.ipynb"]
    assert (results / "1.threads").read_text() == "4"
    assert len(told) == 2 and told[1].startswith("[1/1] done")
    assert sweep(one_row((0, 1)), report=told.append)[1].state == "skipped"


def test_a_record_that_came_in_the_meantime_is_not_made_again(fake, results):
    fake()
    planned = one_row((0,))
    record(results, planned[0].config)
    assert [outcome.state for outcome in sweep(planned, report=str)] == ["skipped"]


def test_a_set_number_of_threads_stays(fake, results, monkeypatch):
    fake()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    sweep(one_row((0,)), jobs=2, report=str)
    assert (results / "0.threads").read_text() == "3"


def test_a_failing_run_does_not_stop_the_others(fake, results):
    fake(seed0="fail", seed1="no record")
    planned, told = one_row((0, 1, 2)), []
    outcomes = sweep(planned, report=told.append)
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "done"]
    assert outcomes[0].error == ("Traceback of cell 3", "KeyError: 'dice'")
    assert "no record" in outcomes[1].error[0]
    assert "KeyError: 'dice'" in told[1]
    ids = [one.config.run_id for one in planned]
    assert names(results) == sorted([f"{ids[0]}.failed.ipynb", f"{ids[1]}.failed.ipynb", f"{ids[2]}.ipynb"])
    lines = summary(outcomes).splitlines()
    assert lines[0] == "1 done, 0 skipped, 2 failed"
    assert [run_id in line for run_id, line in zip(ids, lines[1:], strict=False)] == [True, True]


def test_a_run_that_works_at_last_clears_its_failed_notebook(fake, results):
    fake(seed0="fail")
    sweep(one_row((0,)), report=str)
    fake()
    sweep(one_row((0,)), report=str)
    assert names(results) == [f"{one_row((0,))[0].config.run_id}.ipynb"]


def test_an_interrupted_sweep_ends_its_processes_and_leaves_nothing_half_written(fake, results):
    fake(seed1="hang")

    def interrupt(line):
        if line.startswith("["):
            wait_for(results / "1.pid")
            raise KeyboardInterrupt

    planned = one_row((0, 1, 2))
    with pytest.raises(KeyboardInterrupt):
        sweep(planned, jobs=2, report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((results / "1.pid").read_text()), 0)
    assert names(results) == [f"{planned[0].config.run_id}.ipynb"]


def test_wrong_requests_are_refused_before_anything_starts(fake, results, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        sweep(one_row((0,)), jobs=0)
    write_notebook(tmp_path, "pass", without=("n_labels", "model"))
    with pytest.raises(ValueError, match="13_textdiff.ipynb has no parameter model, n_labels"):
        sweep(one_row((0,)))
    assert not (results / "notebooks").exists()


REAL = """
import dataclasses, os, pathlib
from textdiff.experiments.config import TextDiffConfig
config = TextDiffConfig.from_params(**{field.name: globals()[field.name] for field in dataclasses.fields(TextDiffConfig)})
assert seed == 0, "no more seeds"
folder = pathlib.Path(os.environ["TEXTDIFF_RESULTS"], config.experiment, config.run_id)
folder.mkdir(parents=True)
for name in FILES:
    (folder / name).write_text("{}")
"""


def test_papermill_makes_the_planned_run_and_shows_what_stopped_another(results, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(sweeping.__file__).parents[2]))
    write_notebook(tmp_path, REAL.replace("FILES", repr(FILES)))
    outcomes = sweep(one_row((0, 1)), jobs=2, report=str)
    by_seed = {outcome.planned.config.seed: outcome for outcome in outcomes}
    assert by_seed[0].state == "done", by_seed[0].error
    assert by_seed[1].state == "failed" and by_seed[1].error[-1] == "AssertionError: no more seeds"
    failed = nbformat.read(results / "notebooks" / f"{by_seed[1].planned.config.run_id}.failed.ipynb", as_version=4)
    assert "no more seeds" in str(failed.cells)


@pytest.mark.parametrize(
    ("name", "dataset", "experiment"),
    [("ablation", "nuclei_phantoms", "textdiff2d"), ("ablation3d", "abdomen_phantoms", "textdiffseg3d")],
)
def test_snakemake_makes_a_job_of_every_run_without_a_published_record(tmp_path, name, dataset, experiment):
    pytest.importorskip("snakemake", reason="Snakemake is not installed (pip install '.[cluster]')")
    repository = Path(sweeping.__file__).parents[2]
    words = ["--snakefile", repository / "workflow" / "Snakefile", "--directory", tmp_path, "--cores", "1", "--dry-run"]
    words += ["--config", f"grid={name}", f"dataset={dataset}", "mode=demo", "seeds=0,1"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for config in grid(name, dataset, "demo", (0, 1)).all():
        assert f"results/runs/{experiment}/{config.run_id}/metrics.json" in said

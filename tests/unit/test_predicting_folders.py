"""`textdiff predict` over a folder: every case once, whatever fails, dies or is stopped; one folder, one way of asking."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from textdiff import cli, predicting_folders
from textdiff.data.images.masks import read_mask
from textdiff.predicting import Pictures, Solids
from textdiff.predicting_folders import LOCK, Sentences, bare_name, find_sources, predict_folder

MODEL = "chest_phantoms_small"  # named, never read: the tasks below stand in for it


class Bright:
    """Marks what is brighter than half; what the name of the picture says may go wrong."""

    class_names = ("background", "bright")

    def predict(self, image, text, strict=False):
        if "dies" in image.name:
            os._exit(9)
        if "sleeps" in image.name:
            time.sleep(1000)
        if "stops" in image.name:
            raise KeyboardInterrupt
        with Image.open(image) as picture:
            return (np.asarray(picture) > 127).astype(np.uint8)


@dataclass(frozen=True)
class Stub(Pictures):
    @cached_property
    def trained(self):
        return Bright()


@dataclass(frozen=True)
class Unreadable(Pictures):
    @cached_property
    def trained(self):
        raise ValueError("no card here")


@pytest.fixture
def folder(tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for number in range(5):
        Image.fromarray(np.full((4, 4), 50 * number, np.uint8)).save(films / f"film {number}.png")
    return films


def state(out):
    return {
        line.split(",")[0]: line.split(",")[1]
        for line in (out / "predictions.csv").read_text().splitlines()[1:]
        if line
    }


ALL = Sentences("the left lung", None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_case_that_fails_is_a_line_and_the_others_are_made(folder, tmp_path, capsys, jobs):
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(cli.typer.Exit) as ended:
        predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks", jobs=jobs)
    assert ended.value.exit_code == 1
    assert state(tmp_path / "masks") == {"broken": "failed"} | {f"film {n}": "done" for n in range(5)}
    assert read_mask(tmp_path / "masks" / "film 3.png").all() and not read_mask(tmp_path / "masks" / "film 2.png").any()
    said = capsys.readouterr().err
    assert "5 of 6 done (0 before), 1 failed: broken" in said and sum("broken.png" in s for s in said.splitlines()) == 1


def test_a_process_that_dies_costs_its_case_alone(folder, tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "dies.png")
    with pytest.raises(cli.typer.Exit):
        predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks", jobs=2)
    assert state(tmp_path / "masks") == {"dies": "failed"} | {f"film {n}": "done" for n in range(5)}
    assert "died" in (tmp_path / "masks" / "predictions.csv").read_text()


def test_a_process_that_dies_before_a_case_is_handed_over_costs_none(folder, tmp_path, capsys, monkeypatch):
    """The pool refuses what it is given then, and the case that was about to be given is not lost."""
    given = []

    class Broken(ThreadPoolExecutor):
        def __init__(self, jobs, _context, begin, arguments):
            super().__init__(1, initializer=begin, initargs=arguments)

        def submit(self, function, case):
            given.append(case.name)
            if len(given) == 3:
                raise BrokenProcessPool
            return super().submit(function, case)

    monkeypatch.setattr(predicting_folders, "ProcessPoolExecutor", Broken)
    monkeypatch.setattr(predicting_folders, "_task", None, raising=False)
    monkeypatch.setattr(predicting_folders, "_begin", lambda task, threads: setattr(predicting_folders, "_task", task))
    predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks", jobs=2)
    assert state(tmp_path / "masks") == {f"film {n}": "done" for n in range(5)}
    assert "5 of 5 done" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_model_that_cannot_be_read_is_one_error(folder, tmp_path, jobs):
    with pytest.raises(ValueError, match="no card"):
        predict_folder(Unreadable(MODEL), folder, ALL, tmp_path / "masks", jobs=jobs)
    assert state(tmp_path / "masks") == {}


def test_a_stopped_start_goes_on_and_makes_nothing_twice(folder, tmp_path, capsys):
    out = tmp_path / "masks"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "film 2 stops.png")
    with pytest.raises(KeyboardInterrupt):
        predict_folder(Stub(MODEL), folder, ALL, out)
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert sorted(state(out)) == ["film 0", "film 1"]
    with open(out / "predictions.csv", "a") as table:
        table.write("film 3,done,0.1,the left lung,")  # cut short by a kill
    (folder / "film 2 stops.png").rename(folder / "film 5.png")
    predict_folder(Stub(MODEL), folder, ALL, out)
    assert "6 of 6 done (2 before)" in capsys.readouterr().err
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made
    assert sorted(state(out)) == [f"film {n}" for n in range(6)]


def test_labels_that_were_removed_are_made_again(folder, tmp_path):
    out = tmp_path / "masks"
    predict_folder(Stub(MODEL), folder, ALL, out)
    (out / "film 1.png").unlink()
    predict_folder(Stub(MODEL), folder, ALL, out)
    assert (out / "film 1.png").is_file() and len((out / "predictions.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("task", "sentences", "said"),
    [
        (Stub(MODEL, strict=True), ALL, "strict False, now True"),
        (Stub("qata_small"), ALL, "sha256"),
        (Stub(MODEL), Sentences("the right lung", None), "another sentence for film 0, film 1"),
    ],
)
def test_one_folder_holds_one_way_of_asking(folder, tmp_path, task, sentences, said):
    out = tmp_path / "masks"
    predict_folder(Stub(MODEL), folder, ALL, out)
    before = (out / "predictions.csv").read_bytes()
    with pytest.raises(ValueError, match=f"made with other settings .*{said}.*--force"):
        predict_folder(task, folder, sentences, out)
    assert (out / "predictions.csv").read_bytes() == before
    predict_folder(task, folder, sentences, out, force=True)
    assert json.loads((out / "settings.json").read_text())["strict"] == task.strict


def test_the_sentence_of_a_case_that_failed_can_be_mended(folder, tmp_path, capsys):
    table, out = tmp_path / "texts.csv", tmp_path / "masks"
    rows = [f"film {n},the left lung" for n in range(5)]
    table.write_text("\n".join(["name,text", *rows, "film 9,a word too many"]))
    (folder / "film 9.png").write_bytes(b"no picture")
    with pytest.raises(cli.typer.Exit):
        predict_folder(Stub(MODEL), folder, Sentences(None, table), out)
    table.write_text("\n".join(["name,text", *rows, "film 9,the left lung"]))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "film 9.png")
    predict_folder(Stub(MODEL), folder, Sentences(None, table), out)
    assert "6 of 6 done (5 before)" in capsys.readouterr().err


def test_made_anew_no_labels_of_before_are_left(folder, tmp_path):
    """Of a case that fails now, and of one that is no longer there."""
    out = tmp_path / "masks"
    predict_folder(Stub(MODEL), folder, ALL, out)
    (folder / "film 1.png").write_bytes(b"no picture")
    (folder / "film 2.png").unlink()
    with pytest.raises(cli.typer.Exit):
        predict_folder(Stub("qata_small"), folder, ALL, out, force=True)
    assert sorted(path.name for path in out.glob("*.png")) == ["film 0.png", "film 3.png", "film 4.png"]
    assert state(out) == {"film 0": "done", "film 1": "failed", "film 3": "done", "film 4": "done"}


def test_all_pictures_that_can_be_read_are_cases_and_other_files_are_named(folder, tmp_path, capsys):
    for name in ("a.pgm", "b.jfif", "c.dcm", "reports.csv"):
        (folder / name).touch()
    assert {"a", "b"} < set(find_sources(Pictures("m"), folder)) and "c" not in find_sources(Pictures("m"), folder)
    assert "left out, by its suffix no picture: c.dcm, reports.csv" in capsys.readouterr().err
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices" / "c.dcm").touch()
    with pytest.raises(ValueError, match=r"no picture in it .*of DICOM save the picture as PNG"):
        find_sources(Pictures("m"), tmp_path / "slices")


def test_a_folder_of_somebody_elses_files_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        predict_folder(Stub(MODEL), folder, ALL, tmp_path / "mine")
    with pytest.raises(ValueError, match="among what is read"):
        predict_folder(Stub(MODEL), folder, ALL, folder / "masks")
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("film 0", "left")], "no sentence for film 1, film 2"),
        (
            [("film 0", "left"), ("film 0", "right"), *((f"film {n}", "left") for n in range(1, 5))],
            "more than one row for film 0",
        ),
        (
            [("film 0.png", "right"), *((f"film {n}", "left") for n in range(5))],
            "more than one row for film 0",
        ),
        ([(f"film {n}", "?") for n in range(5)], "no sentence for film 0"),
        ([(f"films/{n}.jpg", "left") for n in range(5)], "no sentence for film 0.* its names are films/0, films/1"),
    ],
)
def test_a_table_of_sentences_has_one_for_every_case(folder, tmp_path, rows, said):
    table = tmp_path / "texts.csv"
    table.write_text("name,text\n" + "".join(f"{name},{text}\n" for name, text in rows))
    with pytest.raises(ValueError, match=said):
        predict_folder(Stub(MODEL), folder, Sentences(None, table), tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_a_table_may_name_cases_with_or_without_their_suffix(tmp_path):
    (tmp_path / "t.csv").write_text("name,text\na.png,left\nb,right\nof.no.case,x\n")
    assert Sentences(None, tmp_path / "t.csv").by_name(["a", "b"]) == {"a": "left", "b": "right"}
    (tmp_path / "t.csv").write_text("name,text\n M\u00fcller ,left\nother,1\nother,2\n", encoding="utf-8")
    assert Sentences(None, tmp_path / "t.csv").by_name(["Mu\u0308ller"]) == {"Mu\u0308ller": "left"}
    assert [bare_name(n) for n in ("a.nii.gz", "a.b.PNG", "a.dcm", "a")] == ["a", "a.b", "a", "a"]


def test_volumes_are_files_and_folders_of_slices(tmp_path):
    for name in ("a.nii.gz", "b.nii", "notes.txt", ".hidden.nii", "c.hdr", "c.img"):
        (tmp_path / name).touch()
    (tmp_path / "series").mkdir()
    assert list(find_sources(Solids("m"), tmp_path)) == ["a", "b", "c", "series"]
    (tmp_path / "a.nii").touch()
    with pytest.raises(ValueError, match=r"a.nii and a.nii.gz would have the same"):
        find_sources(Solids("m"), tmp_path)
    with pytest.raises(ValueError, match="no picture in it"):
        find_sources(Pictures("m"), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "2", "--text", "left"], "--jobs goes with a folder"),
        (["--texts", "t.csv"], "--texts goes with a folder"),
        ([], "no sentence is given"),
    ],
)
def test_what_is_of_folders_is_refused_of_one_case(folder, tmp_path, words, said):
    given = ["predict", "--model", MODEL, "--image", str(folder / "film 0.png"), "--out", str(tmp_path / "m.png")]
    result = CliRunner().invoke(cli.app, [*given, *words])
    assert result.exit_code == 2 and said in result.stderr


def test_the_command_takes_a_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Pictures, "trained", SimpleNamespace(class_names=Bright.class_names, predict=Bright().predict))
    words = ["predict", "--model", MODEL, "--image", folder, "--text", "lung", "--out", tmp_path / "masks"]
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "masks").glob("*.png"))) == 5


@pytest.mark.parametrize(
    "name", [b"two\nlines.png", b"two\rlines.png", "two\u2028lines.png".encode(), b"M\xfcller.png"]
)
def test_a_name_that_the_table_cannot_hold_is_refused_before_anything_is_made(folder, tmp_path, name):
    try:
        (folder / os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("no such names on this disk")
    with pytest.raises(ValueError, match="rename it"):
        predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_a_model_of_the_other_kind_is_refused_before_anything_is_made(folder, tmp_path):
    with pytest.raises(ValueError, match="use --volume"):
        predict_folder(Pictures("hippocampus_small"), folder, ALL, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_one_start_at_a_time_writes_to_a_folder(folder, tmp_path):
    out = tmp_path / "masks"
    predict_folder(Stub(MODEL), folder, ALL, out)
    before = (out / "predictions.csv").read_bytes()
    with FileLock(out / LOCK), pytest.raises(ValueError, match="another textdiff predict is writing"):
        predict_folder(Stub(MODEL), folder, ALL, out, force=True)
    assert (out / "predictions.csv").read_bytes() == before
    predict_folder(Stub(MODEL), folder, ALL, out, force=True)


def test_rows_of_another_folder_are_kept_and_not_counted(folder, tmp_path, capsys):
    predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks")
    (folder / "film 0.png").rename(folder / "film 9.png")
    predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks")
    assert "5 of 5 done (4 before)" in capsys.readouterr().err
    assert list(state(tmp_path / "masks")) == [f"film {n}" for n in (0, 1, 2, 3, 4, 9)]


def test_a_stop_between_two_rows_ends_all_processes(folder, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "sleeps.png")
    monkeypatch.setattr(predicting_folders.tqdm, "update", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        predict_folder(Stub(MODEL), folder, ALL, tmp_path / "masks", jobs=2)
    assert not multiprocessing.active_children(), f"while the frames of the stop are alive: {stopped}"


STARTED = """
import signal, sys
from pathlib import Path
from tests.unit.test_predicting_folders import ALL, MODEL, Stub, predict_folder
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    predict_folder(Stub(MODEL), Path(sys.argv[1]), ALL, Path(sys.argv[2]), jobs=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(folder, tmp_path, by):
    """All of them hold standard error, and one would sleep for long: a stop waits for no case that is at work."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "sleeps.png")
    (tmp_path / "start.py").write_text(STARTED)
    words = [sys.executable, tmp_path / "start.py", folder, tmp_path / "masks"]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=found, start_new_session=True) as first:
        try:
            while first.poll() is None and len(list((tmp_path / "masks").glob("*.png"))) < 5:
                time.sleep(0.1)
            first.send_signal(by)
            first.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)

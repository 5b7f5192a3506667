"""`textdiff example` as people run it: what lies beside the models is what the rule says, and does what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import make_examples
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from textdiff import cli, examples
from textdiff.base import paths
from textdiff.data import registry
from textdiff.data.cases import read_picture
from textdiff.data.images.masks import read_mask
from textdiff.data.volumes.volume import read_image, read_labels
from textdiff.report import explore

# A thumbnail, a cut volume and fewer steps are not what the record was made of: one case moves by this much
NEAR = 0.04
every_model = pytest.mark.parametrize("model", registry.MODELS)
BOOK = Path(__file__).resolve().parents[2] / "book"


def invoke(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def array_of(file: Path) -> np.ndarray:
    if file.name.startswith("image"):
        return read_picture(file, "RGB") if file.suffix == ".png" else read_image(file).array
    return read_mask(file) if file.suffix == ".png" else read_labels(file).array


def commands(output: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in output.splitlines() if line.startswith("  textdiff ")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """model -> (folder, what was printed), each made once."""
    made: dict[str, tuple[Path, str]] = {}

    def show(model: str) -> tuple[Path, str]:
        if model not in made:
            out = tmp_path_factory.mktemp("an example") / model
            result = invoke("example", model, "--out", out)
            assert result.exit_code == 0, result.stderr
            made[model] = out, result.stdout
        return made[model]

    return show


@every_model
def test_the_case_is_the_one_of_the_rule(model):
    example, table = examples.read_example(model), explore.record_table(model).set_index("case")
    dice = table["dice"].sort_values(kind="stable")
    assert example.case == dice.index[round((len(dice) - 1) / 2)]
    assert (example.model, example.record) == (model, explore.RECORDS[model])
    assert example.dice == pytest.approx(dice[example.case], abs=1e-4)
    assert f"of {len(table)} test cases" in example.rule
    assert example.licence == registry.dataset(registry.model(model).dataset).licence
    assert example.sentence != example.other_sentence


@every_model
def test_it_writes_all_and_says_a_dice_near_that_of_the_record(shown, model):
    folder, said = shown(model)
    example = examples.read_example(model)
    assert {file.name for file in folder.iterdir()} == {
        *example.names("image", "truth", "labels"),
        examples.OVERLAY,
        examples.ABOUT,
    }
    assert abs(float(re.search(r"Dice: +(\S+)[ ;]", said)[1].strip(";")) - example.dice) < NEAR
    for part in (example.sentence, example.source, example.licence, example.differs):
        assert part in said
    with Image.open(folder / examples.OVERLAY) as overlay:
        assert min(overlay.size) > 400 and len(overlay.text["Description"]) > 40


@every_model
def test_the_printed_commands_do_the_same_and_another_thing(shown, model):
    folder, said = shown(model)
    by_hand, other = commands(said)
    for words in (by_hand, other):
        result = invoke(*words, "--force")
        assert result.exit_code == 0, result.stderr
    same, another, labels = (array_of(Path(file)) for file in (by_hand[-1], other[-1], *folder.glob("labels.*")))
    assert (same == labels).all() and labels.any() and another.any() and (another != labels).any()
    for file in (by_hand[-1], other[-1]):
        Path(file).unlink()


@pytest.mark.parametrize("model", ["chest_phantoms_small", "abdomen_small"])
def test_drawn_examples_are_what_the_tool_makes(model, tmp_path):
    assert make_examples.example(model, tmp_path) == examples.read_example(model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["qata_small", "hippocampus_small"])
def test_stored_examples_are_what_the_tool_makes_of_the_data(model, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_DATA", str(data_root))
    entry = registry.dataset(registry.model(model).dataset)
    if not any((data_root / name).is_dir() for name in entry.folders):
        pytest.skip(f"no {entry.name} in {data_root}")
    made = make_examples.example(model, tmp_path)
    assert made == examples.read_example(model)
    for file in (examples.example_folder(model) / name for name in made.names("image", "truth")):
        assert (array_of(file) == array_of(tmp_path / file.name)).all(), file.name


@pytest.mark.parametrize("model", make_examples.IN_THE_BOOK)
def test_the_pictures_in_the_book_are_what_the_command_draws(shown, model):
    said = []
    for file in (BOOK / f"_static/example_{model}.png", shown(model)[0] / examples.OVERLAY):
        with Image.open(file) as picture:
            said.append(picture.text["Description"])
    assert re.sub(r"[\d.]+", "", said[0]) == re.sub(r"[\d.]+", "", said[1])
    numbers = [np.array([float(one) for one in re.findall(r"\d+\.\d+", words)]) for words in said]
    assert np.abs(numbers[0] - numbers[1]).max() <= 0.5


def test_examples_are_small():
    files = [file for model in registry.MODELS for file in examples.example_folder(model).iterdir()]
    assert sum(file.stat().st_size for file in files) < 300_000


def refused(*words: object) -> str:
    result = invoke("example", *words)
    assert result.exit_code == 2 and not result.stdout
    assert result.stderr.startswith("textdiff: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_an_unknown_model_is_answered_with_the_nearest(tmp_path):
    said = refused("qata_smal", "--out", tmp_path / "a")
    assert "did you mean 'qata_small'?" in said and "hippocampus_small" in said


def test_a_model_without_an_example_is_answered_with_those_that_have_one(tmp_path, monkeypatch):
    (tmp_path / "qata_small/example").mkdir(parents=True)
    (tmp_path / "qata_small/example" / examples.ABOUT).write_text('{"model": "qata_small"}')
    monkeypatch.setattr(paths, "shipped", lambda kind: tmp_path)
    assert "comes with abdomen_small; one comes with qata_small" in refused("abdomen_small", "--out", tmp_path / "a")
    assert "is not the example of this version" in refused("qata_small", "--out", tmp_path / "a")


def test_what_is_there_stays_unless_forced_and_other_files_stay_always(tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "labels.png").write_text("old")
    assert "is there already" in refused("chest_phantoms_small", "--out", out)
    assert (out / "labels.png").read_text() == "old"
    result = invoke("example", "chest_phantoms_small", "--out", out, "--force")
    assert result.exit_code == 0, result.stderr
    assert (out / "mine.txt").read_text() == "mine" and read_mask(out / "labels.png").any()
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_a_place_that_takes_no_folder_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is no folder" in refused("qata_small", "--out", tmp_path / "file", "--force")
    assert "no folder" in refused("qata_small", "--out", tmp_path / "none" / "a")


@pytest.mark.parametrize("there", [False, True])
def test_what_fails_on_the_way_leaves_nothing(there, tmp_path, monkeypatch):
    def broken(*words: object) -> None:
        raise ValueError("no such thing")

    out = tmp_path / "a"
    if there:
        out.mkdir()
    monkeypatch.setattr(examples, "_compared", broken)
    assert "no such thing" in refused("chest_phantoms_small", "--out", out, "--force")
    assert list(tmp_path.rglob("*")) == ([out] if there else [])

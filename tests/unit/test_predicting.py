"""`textdiff predict` as people run it, with the small models that ship: from file to file, flags included."""

import json
import shutil
from collections import namedtuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from textdiff import cli
from textdiff.data.images.phantoms import chest_phantoms
from textdiff.data.volumes.phantoms import abdomen_phantoms
from textdiff.data.volumes.volume import Volume, read_labels, write_image
from textdiff.predicting import _rounded

LIVER, LEFT, RIGHT = 1, 2, 3
START = 20_000_000  # phantoms that no training, validation or test uses


def predict(*words):
    return CliRunner().invoke(cli.app, ["predict", *map(str, words)])


@pytest.fixture(scope="module")
def case():
    return abdomen_phantoms(1, 0, start=START)[0]


@pytest.fixture
def volume(case, tmp_path):
    write_image(tmp_path / "ct.nii.gz", case.image())
    return tmp_path / "ct.nii.gz"


def asked(volume, text, *more, out="mask.nii.gz"):
    path = volume.with_name(out)
    result = predict("--model", "abdomen_small", "--volume", volume, "--text", text, "--out", path, *more)
    labels = read_labels(path).array if path.exists() else None
    return result, labels


@pytest.mark.takes("Sentences", "one of two kidneys, the other ruled out", "taken")
def test_the_mask_holds_what_was_asked_for(volume, case):
    result, labels = asked(volume, "the left kidney, not the right")
    assert result.exit_code == 0 and set(np.unique(labels)) == {0, LEFT}
    truth = case.labels().array == 3  # in the numbering of the synthetic data
    assert 2 * (truth & (labels == LEFT)).sum() / (truth.sum() + (labels == LEFT).sum()) > 0.8


@pytest.mark.takes("Values", "HU shifted by 1024", "taken, and said")
def test_a_shifted_volume_is_named_and_refused_with_strict(case, tmp_path):
    image = case.image()
    nib.save(nib.Nifti1Image(image.array + 1024, image.affine), tmp_path / "ct.nii.gz")
    result, _ = asked(tmp_path / "ct.nii.gz", "liver")
    assert result.exit_code == 0 and "subtract 1024" in result.stderr
    result, labels = asked(tmp_path / "ct.nii.gz", "liver", "--strict", out="other.nii.gz")
    assert result.exit_code == 2 and labels is None and "subtract 1024" in result.stderr


@pytest.mark.takes("Values", "voxels twice as coarse as the training's", "taken, and said")
def test_other_voxels_are_brought_to_the_grid_of_the_training(case, tmp_path):
    from textdiff.data.volumes.volume import to_grid

    coarse = to_grid(case.image(), (12.0, 12.0, 12.0))
    write_image(tmp_path / "ct.nii.gz", coarse)
    result, labels = asked(tmp_path / "ct.nii.gz", "liver, left kidney and right kidney")
    truth = to_grid(case.labels(), (12.0, 12.0, 12.0), "labels").array
    assert "12 x 12 x 12 mm are coarser" in result.stderr and labels.shape == coarse.shape
    for ours, theirs in ((LIVER, 1), (LEFT, 3), (RIGHT, 4)):
        found, there = labels == ours, truth == theirs
        assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.6


@pytest.mark.takes("NIfTI", "sform and qform that disagree, with --trust", "taken")
def test_trust_chooses_between_two_grids(case, tmp_path):
    image = case.image()
    two = nib.Nifti1Image(image.array, image.affine)
    two.set_qform(image.affine @ np.diag([1, 1, 1.5, 1]), code=1)
    two.set_sform(image.affine, code=1)
    nib.save(two, tmp_path / "ct.nii.gz")
    result, labels = asked(tmp_path / "ct.nii.gz", "liver")
    assert result.exit_code == 2 and labels is None and "--trust" in result.stderr
    path = tmp_path / "mask.nii.gz"
    words = ("--model", "abdomen_small", "--volume", tmp_path / "ct.nii.gz", "--text", "liver", "--out", path)
    assert predict(*words, "--trust", "sform").exit_code == 0
    written = nib.load(path)
    assert np.allclose(written.get_sform(), two.get_sform(), atol=1e-4)
    assert np.allclose(written.get_qform(), two.get_qform(), atol=1e-4)


@pytest.mark.takes("Pictures", "an inverted film, drawn (of real ones hardly any)", "taken, and said")
def test_an_inverted_picture_is_named_and_refused_with_strict(tmp_path):
    film = chest_phantoms(1, 0, size=96, start=START)[0]
    Image.fromarray(255 - film.image()).save(tmp_path / "film.png")
    words = ("--model", "chest_phantoms_small", "--image", tmp_path / "film.png", "--text", film.caption)
    result = predict(*words, "--out", tmp_path / "mask.png")
    assert result.exit_code == 0 and "looks inverted" in result.stderr
    result = predict(*words, "--out", tmp_path / "other.png", "--strict")
    assert result.exit_code == 2 and "looks inverted" in result.stderr and not (tmp_path / "other.png").exists()


@pytest.mark.takes("Output files", "a disk without room for the mask", "refused")
def test_a_full_disk_is_met_before_the_model_is_read(volume, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 1000, 0))
    result = predict(
        "--model", "no_such_model", "--volume", volume, "--text", "liver", "--out", volume.with_name("m.nii")
    )
    assert result.exit_code == 2 and "no_such_model" not in result.stderr and "free" in result.stderr


@pytest.mark.takes("Model files", "a config.json without one of its settings", "refused")
def test_a_model_that_lacks_a_setting_is_one_line(volume, tmp_path):
    from textdiff.models.store import find_model

    source, folder = find_model("abdomen_small", "TextDiffSeg"), tmp_path / "model"
    folder.mkdir()
    about = json.loads((source / "config.json").read_text())
    del about["class_names"]
    (folder / "config.json").write_text(json.dumps(about))
    shutil.copy(source / "model.safetensors", folder / "model.safetensors")
    result = predict("--model", folder, "--volume", volume, "--text", "liver", "--out", tmp_path / "m.nii.gz")
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.exit_code == 2 and len(lines) == 1 and "class_names" in lines[0]


def test_a_written_uncertainty_is_rounded_to_what_it_says():
    sure = Volume(np.random.default_rng(0).random((5, 6, 7), dtype=np.float32), np.eye(4))
    kept, rounded = sure.array.copy(), _rounded(sure).array
    assert rounded.dtype == np.float32 and np.array_equal(sure.array, kept)
    assert np.abs(rounded - kept).max() <= 1 / 8192 and np.array_equal(rounded * 4096, np.rint(rounded * 4096))

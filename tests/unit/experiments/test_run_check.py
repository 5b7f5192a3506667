"""Before its first step a run reads all its files: faults are listed at once, and a second run reads nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from volume_layouts import write_layout

from textdiff.data import check, load_dataset
from textdiff.data.images.lvit import write_split
from textdiff.experiments import images, run, volumes
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.volumes import TextDiffSegConfig

ENTRY = {"kind": "images", "layout": "lvit", "class_names": ["background", "nucleus"], "licence": "mine"}
QUICK = {"iterations": 1, "device": "cpu", "max_val": 2, "max_test": 2}


class Reached(Exception):
    """The work after the check."""


def reached(*args: object) -> None:
    raise Reached


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path) -> Path:
    """A data set of pictures and one of volumes, of one's own; a run gets no further than the check."""
    for name in ("DATA", "CACHE", "RESULTS"):
        monkeypatch.setenv(f"TEXTDIFF_{name}", str(tmp_path / name.lower()))
    drawn = load_dataset("nuclei_phantoms", sizes=(4, 2, 3), image_size=32)
    for split in ("train", "val", "test"):
        write_split(tmp_path / "data" / "mine" / f"{split.capitalize()}_Folder", getattr(drawn, split))
    (tmp_path / "data" / "registry.json").write_text(json.dumps({"datasets": {"mine": ENTRY}}))
    write_layout(tmp_path / "data" / "Task03_Liver", "liver_tumour", 5, shape=(32, 32, 24), spacing=(2.0, 2.0, 2.0))
    for work in (images, volumes):
        monkeypatch.setattr(work, "build_model", reached)
    return tmp_path / "data"


def of_pictures(**changes) -> TextDiffConfig:
    return TextDiffConfig.from_params(dataset="mine", model="unet", n_labels=4, image_size=32, **QUICK | changes)


def of_volumes() -> TextDiffSegConfig:
    return TextDiffSegConfig.from_params(
        dataset="liver_tumour", mode="full", model="segresnet", patch="32,32,24", **QUICK
    )


@pytest.mark.takes("Data sets (check)", "a training on empty images: it stops before its first step", "refused")
def test_every_fault_of_a_run_is_named_before_its_first_step(data):
    images = sorted((data / "mine" / "Train_Folder" / "img").iterdir())
    for k in (0, 2):
        Image.new("RGB", (32, 32)).save(images[k])
    with pytest.raises(ValueError) as raised:
        run.make_run(of_pictures())
    said = str(raised.value).splitlines()
    assert said[0] == "2 faults in the data of this run:" and len(said) == 3
    assert all(str(images[k]) in str(raised.value) for k in (0, 2)) and "every pixel has the same value" in said[1]


def test_every_wrong_mask_is_named_before_the_first_step(data):
    masks = sorted((data / "mine" / "Train_Folder" / "labelcol").iterdir())
    for k, value in ((0, 2), (2, 3)):
        Image.fromarray(np.full((32, 32), value, np.uint8)).save(masks[k])
    with pytest.raises(ValueError) as raised:
        run.make_run(of_pictures())
    assert all(str(masks[k]) in str(raised.value) for k in (0, 2)) and "3 (1024 pixels)" in str(raised.value)


def test_cases_that_a_run_does_not_use_do_not_stop_it(data):
    last = sorted((data / "mine" / "Test_Folder" / "img").iterdir())[2]
    last.write_bytes(last.read_bytes()[:-60])
    with pytest.raises(Reached):
        run.make_run(of_pictures())
    with pytest.raises(ValueError, match=str(last)):
        run.make_run(of_pictures(max_test="all"))


def test_volumes_are_checked_once(data, monkeypatch):
    with pytest.raises(Reached):
        run.make_run(of_volumes())
    monkeypatch.setattr(check, "examine", lambda *args: pytest.fail("it was read again"))
    with pytest.raises(Reached):
        run.make_run(of_volumes())
    monkeypatch.undo()


def split_into(data: Path, **names: list[str]) -> None:
    (data / "Task03_Liver" / "split.json").write_text(json.dumps({"train": [], "val": [], "test": []} | names))


@pytest.mark.takes("Data sets (check)", "a training on data whose split leaves nothing for the test", "refused")
@pytest.mark.filterwarnings("ignore:.*left out")
def test_data_with_nothing_to_test_on_is_refused_before_the_work(data):
    split_into(data, train=["case_00000", "case_00001", "case_00002"], val=["case_00003"])
    said = "Task03_Liver are split into train 3, val 1, test 0: .*split.json.*or bring more cases"
    with pytest.raises(ValueError, match=said):
        run.make_run(of_volumes())


@pytest.mark.takes(
    "Data sets (check)", "a training on data whose split leaves nothing for validation", "taken, and said"
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_data_without_validation_cases_is_warned_of_and_taken(data):
    split_into(data, train=["case_00000", "case_00001", "case_00002"], test=["case_00004"])
    with (
        pytest.warns(UserWarning, match="train 3, val 0, test 1: .*the weights of the last step are kept"),
        pytest.raises(Reached),
    ):
        run.make_run(of_volumes())


@pytest.mark.takes("Data sets (check)", "a training on a label map with a wrong value", "refused")
def test_a_wrong_value_in_a_label_map_is_named_before_the_first_step(data):
    file = data / "Task03_Liver" / "labelsTr" / "case_00001.nii.gz"
    found = nibabel.load(file)
    array = np.asarray(found.dataobj)
    array[0, 0, :2] = 9
    nibabel.save(nibabel.Nifti1Image(array, found.affine), file)
    with pytest.raises(ValueError, match=r"case_00001.nii.gz .*9 \(2 voxels\)"):
        run.make_run(of_volumes())


@pytest.mark.takes("Data sets (check)", "a training on masks in which nothing is marked", "taken, and said")
def test_warnings_are_counted_and_stop_nothing(data):
    for mask in (data / "mine" / "Train_Folder" / "labelcol").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(mask)
    with (
        pytest.warns(UserWarning, match="5 warnings about the data of this run: .*nothing is marked.*`textdiff check"),
        pytest.raises(Reached),
    ):
        run.make_run(of_pictures())


def test_phantoms_are_not_checked(monkeypatch):
    monkeypatch.setattr(run, "check_cases", lambda *args, **more: pytest.fail("phantoms were read"))
    config = TextDiffConfig.from_params(dataset="nuclei_phantoms", model="unet", n_labels=2, image_size=32, **QUICK)
    with pytest.raises(Reached):
        run.make_run(config)

"""A data set checked whole: every seeded fault is found at once, nothing false, and the second check reads nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from msd_files import AFFINE, labels
from PIL import Image

from textdiff.data import check, load_dataset
from textdiff.data.cases import Case
from textdiff.data.check import check_cases
from textdiff.data.faults import Fault, Report
from textdiff.data.folders import check_folder
from textdiff.data.images.lvit import write_split
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.volume import Volume, write_image

SPLITS = {"train": 9, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def own_cache(home):
    """Nothing is remembered from another test."""


def pictures(root: Path) -> Path:
    """A sound data set of nuclei phantoms in LViT's layout; returns its folder."""
    drawn = load_dataset("nuclei_phantoms", sizes=tuple(SPLITS.values()), image_size=32)
    for split in SPLITS:
        write_split(root / f"{split.capitalize()}_Folder", getattr(drawn, split))
    return root


def volume(path: Path, seed: int) -> Path:
    array = np.random.default_rng(seed).integers(0, 900, (4, 5, 3)).astype(np.int16)
    write_image(path, Volume(array, AFFINE))
    return path


def volumes(root: Path, n: int = 12) -> Path:
    """A sound data set in the Decathlon's layout with a split of its own."""
    for k in range(n):
        volume(root / "imagesTr" / f"pat_{k:02d}.nii.gz", k)
        labels(root / "labelsTr" / f"pat_{k:02d}.nii.gz", 1, 2)
    names = [f"pat_{k:02d}" for k in range(n)]
    (root / "split.json").write_text(json.dumps({"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}))
    return root


def found(report: Report) -> dict[str, str]:
    """Last part of the file -> its fault."""
    return {Path(fault.file).name: fault.text for fault in report.faults}


def change(path: Path, how: Callable[[np.ndarray], object]) -> None:
    array = np.array(Image.open(path))
    how(array)
    Image.fromarray(array).save(path)


# --- seeded faults -------------------------------------------------------------------------------------


@pytest.mark.takes("Data sets (check)", "a sound data set", "taken")
def test_a_sound_data_set_of_pictures_has_no_fault(tmp_path):
    report = check_folder(pictures(tmp_path / "MoNuSeg"), progress=False)
    assert report.found == () and {split: facts["cases"] for split, facts in report.facts.items()} == SPLITS
    assert report.facts["train"]["sizes"] == "32 x 32" and report.facts["train"]["cases with"] == {"nucleus": 9}
    assert report.table().startswith("train: 9 cases; sizes 32 x 32; values ") and "faults: none" in report.table()


@pytest.mark.takes("Data sets (check)", "pictures with eleven faults: all are listed at once", "refused")
def test_all_faults_of_a_data_set_of_pictures_are_found_at_once(tmp_path):
    root = pictures(tmp_path / "MoNuSeg")
    train, test = root / "Train_Folder", root / "Test_Folder"
    image, mask = (sorted((train / part).iterdir()) for part in ("img", "labelcol"))
    image[0].write_bytes(image[0].read_bytes()[:-60])
    Image.new("RGB", (32, 32), (9, 9, 9)).save(image[1])
    Image.new("L", (20, 32)).save(mask[2])
    change(mask[3], lambda array: np.put(array, [0, 1], 7))
    Image.fromarray(np.full((32, 32), 3, np.uint8)).save(mask[4])
    Image.new("L", (32, 32)).save(mask[5])
    mask[6].unlink()
    (test / "img").joinpath(sorted(os.listdir(test / "img"))[0]).write_bytes(image[7].read_bytes())
    (train / "img" / "new.jp2").write_bytes(b"")
    Image.new("L", (32, 32)).save(train / "labelcol" / "alone.png")
    table = pd.read_excel(train / "Train_text.xlsx", dtype=str)
    table.loc[8, "Description"] = " "
    table.loc[len(table)] = ["nobody.png", "a sentence"]
    table.loc[len(table)] = [image[7].name, "another sentence"]
    table.to_excel(train / "Train_text.xlsx", index=False)
    (root / "Val_Folder" / "Val_text.xlsx").unlink()

    report = check_folder(root, progress=False)
    told = "\n".join(fault.sentence for fault in report.faults)
    for text in (
        f"{image[0]}: ",
        "image1",
        f"{mask[3]}: mask has values between 0 and 255",
        "labels that the data set does not have: 3 (1024 times); it has 0 to 1",
        f"{image[6]}: no mask of that name",
        "the same image as case",
        "empty caption",
        "a row for 'nobody'",
        f"second caption for {image[7].name!r}",
        "Val_Folder: expected one *_text.xlsx",
    ):
        text = text.replace("image1", f"{image[1]}: every pixel has the same value 9")
        assert text in told, f"{text}\nnot among\n{told}"
    assert "is 32x32 but mask" in told and len(report.faults) == 11
    noted = "\n".join(fault.sentence for fault in report.warnings)
    assert ".jp2: 1" in noted and "1 masks have no image" in noted and "nothing is marked" in noted
    assert {fault.split for fault in report.faults} == {"train", "val", "test"}


@pytest.mark.takes("Data sets (check)", "volumes with ten faults: all are listed at once", "refused")
def test_all_faults_of_a_data_set_of_volumes_are_found_at_once(tmp_path):
    root = volumes(tmp_path / "Task03_Liver")
    image, mask = (sorted((root / part).iterdir()) for part in ("imagesTr", "labelsTr"))
    image[0].write_bytes(image[0].read_bytes()[:-30])
    write_image(image[1], Volume(np.zeros((4, 5, 3), np.int16), AFFINE))
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 3), np.nan, np.float32), AFFINE), image[2])
    labels(mask[3], 1, 7, 7)
    labels(mask[4], 1, affine=np.diag([-1.5, -1.5, 4.0, 1.0]))
    labels(mask[5], 1, shape=(4, 5, 4))
    mask[6].unlink()
    mask[7].write_bytes(b"no volume")
    image[11].write_bytes(image[8].read_bytes())
    labels(mask[9])
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(4, 5, 3)), np.diag([1.0, 1, 1, 1])), image[8]
    )
    (root / "imagesTr" / "._pat_00.nii.gz").write_bytes(b"")
    image[10].write_bytes(image[11].read_bytes())

    report = check_folder(root, progress=False)
    told = "\n".join(f"{fault.case} {fault.text}" for fault in report.faults)
    for case, text in {
        "pat_00": "cannot read",
        "pat_01": "every voxel has the same value",
        "pat_02": "NaN or infinite",
        "pat_03": "7 (2 voxels)",
        "pat_04": "mm apart",
        "pat_05": "shape",
        "pat_06": "has no label map",
        "pat_07": "cannot read",
        "pat_08": "mm apart",
        "pat_11": "the same image as case 'pat_10' of val: what one split holds must be new to the others",
    }.items():
        assert any(fault.case == case and text in fault.text for fault in report.faults), f"{case} {text}\n{told}"
    assert len(report.faults) == 10
    noted = "\n".join(fault.text for fault in report.warnings)
    assert "nothing is marked" in noted and "._pat_00.nii.gz" in noted


def test_the_table_has_a_line_per_fault_and_the_json_all_of_it(tmp_path):
    root = volumes(tmp_path / "Task03_Liver")
    labels(root / "labelsTr" / "pat_03.nii.gz", 1, 7)
    report = check_folder(root, progress=False)
    (line,) = [line for line in report.table().splitlines() if "pat_03" in line]
    assert line.startswith("labelsTr/pat_03.nii.gz  pat_03  ") and str(tmp_path) not in line and "7 (1 voxels)" in line
    content = json.loads(report.to_json())
    assert content["faults"][0]["case"] == "pat_03" and content["facts"]["val"]["cases"] == 1


def test_warnings_that_say_the_same_share_a_line_of_the_table():
    same = [Fault("nothing is marked", name, f"/data/{name}.png", warning=True) for name in "abc"]
    report = Report((*same, Fault("odd", "d", "/data/d.png", warning=True)), root=Path("/data"))
    assert report.table().splitlines()[-2:] == [
        "a.png  a and 2 more  nothing is marked  -",
        "d.png  d             odd                -",
    ]
    assert len(json.loads(report.to_json())["warnings"]) == 4


# --- what it is ----------------------------------------------------------------------------------------


@pytest.mark.takes("Data sets (check)", "a folder of any name: recognised by its layout", "taken, and said")
def test_a_folder_of_any_name_is_recognised_by_its_layout(tmp_path):
    root = volumes(tmp_path / "mine")
    report = check_folder(root, progress=False)
    (note,) = report.warnings
    assert not report.faults and "its labels are only counted" in note.text and "--dataset NAME" in note.remedy
    assert report.facts["train"]["cases with"] == {"label 1": 10, "label 2": 10}
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lung": 2, "heart": 1}}))
    report = check_folder(root, progress=False)
    assert not report.found and report.facts["train"]["cases with"] == {"heart": 10, "lung": 10}
    assert check_folder(root, "hippocampus", progress=False).faults[0].text.count("names no anterior hippocampus")


def test_one_split_of_pictures_can_be_checked_alone(tmp_path):
    report = check_folder(pictures(tmp_path / "mine") / "Val_Folder", progress=False)
    assert not report.faults and report.facts["Val_Folder"]["cases"] == 2


@pytest.mark.takes("Data sets (check)", "a folder that is no data set", "refused")
def test_what_cannot_be_a_data_set_says_what_would_be_one(tmp_path):
    with pytest.raises(ValueError, match="not recognised as a data set. Layouts: .*--dataset NAME: monuseg, qata"):
        check_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such data set folder"):
        check_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match="'abdomen_phantoms' is synthetic and has no folder"):
        check_folder(tmp_path, "abdomen_phantoms")


# --- cases in memory, memory of cases ------------------------------------------------------------------


def test_a_sentence_a_name_and_a_class_may_be_missing():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.eye(4, dtype=np.uint8)
    case = Case("a", " ", image_array=picture, mask_array=mask)
    report = check_cases(
        {"train": [case, Case("a", "b", image_array=picture[::-1], mask_array=mask)]}, ("background", "x", "y")
    )
    assert [fault.text for fault in report.faults] == ["no sentence", "several cases of this name"]
    assert [fault.text for fault in report.warnings] == ["no training case has y"]


@pytest.mark.takes("Data sets (check)", "one image in training and in test", "refused")
def test_the_same_image_in_one_split_is_a_warning_and_an_extra_split_is_training():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    a, b = (Case(name, "x", image_array=picture) for name in "ab")
    assert not check_cases({"train": [a, b]}).faults and len(check_cases({"train": [a, b]}).warnings) == 1
    assert not check_cases({"train": [a], "train_extra": [b]}).faults
    assert check_cases({"train_extra": [a], "test": [b]}).faults[0].split == "test"


def test_a_second_check_reads_only_what_has_changed(tmp_path, monkeypatch):
    root = volumes(tmp_path / "Task03_Liver")
    labels(root / "labelsTr" / "pat_03.nii.gz", 1, 7)
    monkeypatch.setattr(check, "ALONE", 1000)
    before, read = check_folder(root, progress=False), []
    monkeypatch.setattr(
        check, "examine", lambda case, n, examine=check.examine: read.append(case.name) or examine(case, n)
    )
    assert check_folder(root, progress=False) == before and read == ["pat_03"]  # a fault may lie elsewhere
    labels(root / "labelsTr" / "pat_03.nii.gz", 1, 2)
    labels(root / "labelsTr" / "pat_05.nii.gz", 1, 1, 1, 2)
    os.utime(root / "imagesTr" / "pat_07.nii.gz", ns=(0, 0))
    read.clear()
    assert not check_folder(root, progress=False).faults and read == ["pat_03", "pat_05", "pat_07"]
    read.clear()
    assert not check_folder(root, progress=False).faults and not read
    next((tmp_path / "cache" / "checks").iterdir()).write_text("{")
    assert not check_folder(root, progress=False).faults and len(read) == 12


def test_many_cases_are_read_by_processes_with_the_same_report(tmp_path, monkeypatch):
    root = volumes(tmp_path / "Task03_Liver")
    labels(root / "labelsTr" / "pat_03.nii.gz", 1, 7)
    alone = check_folder(root, progress=False)
    monkeypatch.setattr(check, "ALONE", 0)
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "other"))
    assert check_folder(root, progress=False) == alone


def test_a_reader_that_breaks_is_a_fault_of_its_case(monkeypatch):
    monkeypatch.setattr(Case, "image", lambda case: {}["defect"])
    report = check_cases({"train": [Case("a", "x", image_path=Path("a.png"))]})
    assert report.faults == (Fault("KeyError: 'defect'", "a", "a.png", check.BROKEN, "train"),)


def test_what_a_reader_warns_of_is_a_warning_of_its_case(tmp_path):
    path = volume(tmp_path / "a.nii.gz", 0)
    image = nibabel.load(path)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "b.nii.gz")
    report = check_cases({"train": [VolumeCase("b", tmp_path / "b.nii.gz")]})
    assert not report.faults and "left and right may be exchanged" in report.warnings[0].text


# --- real data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cases"), [("MoNuSeg", 44), ("Task04_Hippocampus", 221)])
def test_real_data_have_no_fault(data_root, name, cases):
    if not (data_root / name).is_dir():
        pytest.skip(f"no real data: {data_root / name} is absent (set TEXTDIFF_DATA)")
    report = check_folder(data_root / name, progress=False)
    assert not report.faults and sum(facts["cases"] for facts in report.facts.values()) == cases

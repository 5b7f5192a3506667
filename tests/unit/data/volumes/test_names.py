"""Names as people give them: of cases, of the files of a case, of structures; nothing is dropped or exchanged without a word."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
from msd_files import image, labels, msd

from textdiff.data import load_volumes
from textdiff.data.registry import dataset
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.listings import bytes_of
from textdiff.data.volumes.numbering import structure_of

AMOS22 = (  # as its dataset.json names them, spelling included
    *("background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "arota"),
    *("postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus"),
)


def names(data) -> list[str]:
    return sorted(case.name for case in (*data.train, *data.val, *data.test))


def first(data, n: int) -> list[str]:
    """What the first voxels of the first case are."""
    case = min((*data.train, *data.val, *data.test), key=lambda case: case.name)
    return [data.class_names[label] for label in case.labels().array.reshape(-1)[:n]]


def described(folder: Path, content: object, **more: object) -> Path:
    (folder / "dataset.json").write_text(json.dumps({"labels": content} | more))
    return folder


# --- names of cases ------------------------------------------------------------------------------------


def put(folder: Path, *stems: str, part: str = "Tr") -> Path:
    for stem in stems:
        image(folder / f"images{part}" / f"{stem}.nii.gz")
        labels(folder / f"labels{part}" / f"{stem}.nii.gz", 1, 2)
    return folder


def test_only_names_of_amos_are_judged_by_their_number(tmp_path):
    put(tmp_path, "amos_0001", "amos_0507", "AMOS22_0009", "pat3_20231105", "600")
    with pytest.warns(UserWarning, match=r"1 case numbered above 500, left out .*: amos_0507"):
        data = load_volumes("amos", tmp_path)
    assert names(data) == ["600", "AMOS22_0009", "amos_0001", "pat3_20231105"]


def test_folders_of_kits_may_have_any_name_and_others_are_counted(tmp_path):
    for name, file in (("case_00210", "imaging"), ("Frau M. 2024", "imaging"), ("x.1", "imaging"), ("other", "ct")):
        image(tmp_path / "data" / name / f"{file}.nii.gz")
        if name != "case_00210":
            labels(tmp_path / "data" / name / "segmentation.nii.gz" if file == "imaging" else tmp_path / "a.nii.gz", 1)
    with pytest.warns(UserWarning) as said:
        data = load_volumes("kits19", tmp_path)
    assert names(data) == ["Frau M. 2024", "x.1"]
    told = " ".join(str(one.message) for one in said)
    assert "1 case numbered above 209, left out" in told and "neither imaging.nii.gz" in told and "data/other" in told


@pytest.mark.takes("Names and layouts of data sets", "names with dots, spaces and umlauts", "taken")
@pytest.mark.parametrize("stem", ["case.1", "Frau Müller 2", "x_2024", "Pat-7 (2)", "a_0000b"])
def test_a_name_may_hold_dots_spaces_and_umlauts(tmp_path, stem):
    data = load_volumes("liver_tumour", put(tmp_path, stem))
    assert names(data) == [stem]


@pytest.mark.takes("Names and layouts of data sets", "image and labels in another Unicode form or letter case", "taken")
def test_image_and_labels_meet_in_another_unicode_form_and_letter_case(tmp_path):
    image(tmp_path / "imagesTr" / (unicodedata.normalize("NFD", "Müller_1") + ".nii.gz"))
    labels(tmp_path / "labelsTr" / "MÜLLER_1.NII.GZ", 1)
    split = {"train": [unicodedata.normalize("NFD", "müller_1") + ".nii.gz"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert names(load_volumes("liver_tumour", tmp_path)) == ["Müller_1"]


@pytest.mark.takes("Names and layouts of data sets", "two cases that only letter case tells apart", "refused")
@pytest.mark.parametrize(("one", "other"), [("Pat_1", "pat_1"), ("é", unicodedata.normalize("NFD", "é"))])
def test_two_cases_that_only_letter_case_or_unicode_form_tells_apart_are_refused(tmp_path, one, other):
    put(tmp_path, one)
    if (tmp_path / "imagesTr" / f"{other}.nii.gz").exists():
        pytest.skip("this disk does not tell the two names apart")
    with pytest.raises(ValueError, match="are two files for one case .*rename or remove one"):
        load_volumes("liver_tumour", put(tmp_path, other))


@pytest.mark.takes(
    "Names and layouts of data sets",
    "two folders whose names only letter case tells apart, or two channels of a case",
    "refused",
)
def test_two_folders_or_channels_of_one_name_are_refused(tmp_path):
    for name in ("Pat_1", "pat_1"):
        image(tmp_path / "kits" / name / "imaging.nii.gz")
        labels(tmp_path / "kits" / name / "segmentation.nii.gz", 1)
        image(tmp_path / "msd" / "imagesTr" / f"{name}_000{int(name == 'pat_1')}.nii.gz")
    labels(tmp_path / "msd" / "labelsTr" / "pat_1.nii.gz", 1)
    if len(list((tmp_path / "kits").iterdir())) == 1:
        pytest.skip("this disk does not tell the two names apart")
    with pytest.raises(ValueError, match="two files for one case"):
        load_volumes("kits23", tmp_path / "kits")
    with pytest.raises(ValueError, match=r"'Pat_1': 2 images \(Pat_1_0000.nii.gz, pat_1_0001.nii.gz\)"):
        load_volumes("liver_tumour", tmp_path / "msd")


@pytest.mark.takes("Names and layouts of data sets", "BTCV's img0001 and 0001 side by side", "refused")
def test_an_image_of_btcv_with_and_without_its_prefix_is_refused(tmp_path):
    for stem in ("img0001", "0001"):
        image(tmp_path / "img" / f"{stem}.nii.gz")
    labels(tmp_path / "label" / "label0001.nii.gz", 1)
    with pytest.raises(ValueError, match="two files for one case"):
        load_volumes("btcv", tmp_path)


def test_a_folder_may_have_braces_in_its_name(tmp_path):
    with pytest.warns(UserWarning, match="2 cases numbered above 500"):
        assert names(load_volumes("amos", put(tmp_path / "{a} {}", "amos_0001", "amos_0600", "amos_0601"))) == [
            "amos_0001"
        ]


@pytest.mark.takes("Names and layouts of data sets", "one case as .nii and as .nii.gz", "refused")
def test_one_case_in_two_suffixes_is_refused(tmp_path):
    nibabel.save(
        nibabel.load(image(msd(tmp_path) / "imagesTr" / "case_1.nii.gz")), tmp_path / "imagesTr" / "case_1.nii"
    )
    with pytest.raises(ValueError, match="case_1.nii and case_1.nii.gz are two files for one case"):
        load_volumes("liver_tumour", tmp_path)


@pytest.mark.takes("Names and layouts of data sets", "files that are no volumes: they are counted", "taken, and said")
def test_what_is_passed_over_is_counted(tmp_path):
    for name in ("._case_0.nii.gz", "notes.txt", ".DS_Store"):
        (msd(tmp_path) / "imagesTr" / name).write_bytes(b"")
    labels(tmp_path / "labelsTs" / "case_9.nii.gz", 1)
    with pytest.warns(UserWarning) as said:
        load_volumes("liver_tumour", tmp_path)
    told = [str(one.message) for one in said]
    assert any("imagesTr: 2 files passed over, no volumes: ._case_0.nii.gz, notes.txt" in one for one in told)
    assert any("1 case with labels in labelsTs, not read: case_9" in one for one in told)


def test_a_list_may_name_files_and_channels_and_what_it_leaves_out_is_counted(tmp_path):
    put(tmp_path, "case_0", "case_1", "case_2", "spare")
    split = {"train": ["case_0_0000.nii.gz"], "val": ["imagesTr/case_1.nii.gz"], "test": ["CASE_2"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.warns(UserWarning, match="1 case with files that no list .* names, left out: spare"):
        data = load_volumes("liver_tumour", tmp_path)
    assert [part[0].name for part in (data.train, data.val, data.test)] == ["case_0", "case_1", "case_2"]
    (tmp_path / "split.json").write_text(json.dumps(split | {"test": ["case_0"]}))
    with pytest.raises(ValueError, match=r"'case_0' stands in several splits \(test, train\)"):
        load_volumes("liver_tumour", tmp_path)


def test_all_faults_are_counted_in_the_error_of_the_first(tmp_path):
    msd(tmp_path, 4)
    for k in (1, 2):
        (tmp_path / "labelsTr" / f"case_{k}.nii.gz").unlink()
    labels(tmp_path / "labelsTr" / "case_3.nii.gz", 1, shape=(4, 5, 4))
    said = r"(?s)3 faults in .*:\n1. case 'case_1': image .* no label map.*\n2. case 'case_2'.*\n3. .*'case_3': the image has"
    with pytest.raises(FileNotFoundError, match=said):
        load_volumes("liver_tumour", tmp_path)


# --- nnU-Net -------------------------------------------------------------------------------------------


def nnunet(folder: Path, channels: int = 1, numbering: dict | None = None) -> Path:
    for k in range(2):
        for channel in range(channels):
            image(folder / "imagesTr" / f"pat_{k}_{channel:04d}.nii.gz")
        labels(folder / "labelsTr" / f"pat_{k}.nii.gz", 1, 2)
    numbering = numbering or {"background": 0, "liver": 1, "tumor": 2}
    return described(folder, numbering, channel_names={"0": "CT"}, numTraining=2, file_ending=".nii.gz")


@pytest.mark.takes("Names and layouts of data sets", "nnU-Net's layout, with _0000 in the names of images", "taken")
def test_the_channel_of_an_image_is_not_part_of_its_name(tmp_path):
    data = load_volumes("liver_tumour", nnunet(tmp_path))
    assert names(data) == ["pat_0", "pat_1"] and first(data, 2) == ["liver", "liver tumour"]
    (tmp_path / "dataset.json").unlink()
    assert names(load_volumes("liver_tumour", tmp_path)) == ["pat_0", "pat_1"]


def test_several_channels_are_refused_with_their_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"'pat_0': 2 images \(pat_0_0000.nii.gz, pat_0_0001.nii.gz\) where one is read"
    ):
        load_volumes("liver_tumour", nnunet(tmp_path, channels=2))


def test_regions_give_each_value_the_innermost_name(tmp_path):
    folder = nnunet(tmp_path, numbering={"background": 0, "liver": [1, 2], "liver tumor": [2]})
    assert first(load_volumes("liver_tumour", folder), 2) == ["liver", "liver tumour"]


# --- names of structures -------------------------------------------------------------------------------


@pytest.mark.takes("Names and layouts of data sets", "a dataset.json with another numbering of the structures", "taken")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, ["liver", "liver tumour"]),
        ({"0": "background", "1": "Tumor", "2": "Liver"}, ["liver tumour", "liver"]),
        ({"background": 0, "hepatic lesions": "1", "LIVER": "2"}, ["liver tumour", "liver"]),
    ],
)
def test_the_names_decide_which_label_is_which(tmp_path, content, expected):
    assert first(load_volumes("liver_tumour", described(msd(tmp_path), content)), 2) == expected


def test_the_decathlons_hippocampus_is_understood(tmp_path):
    folder = described(msd(tmp_path), {"0": "background", "1": "Posterior", "2": "Anterior"})
    assert first(load_volumes("hippocampus", folder), 2) == ["posterior hippocampus", "anterior hippocampus"]
    only = load_volumes("hippocampus", folder, structures=("anterior hippocampus",))
    assert first(only, 2) == ["background", "anterior hippocampus"]


def test_the_labels_of_amos22_are_understood(tmp_path):
    image(tmp_path / "imagesTr" / "amos_0001.nii.gz")
    labels(tmp_path / "labelsTr" / "amos_0001.nii.gz", *range(1, 16))
    described(tmp_path, {str(k): name for k, name in enumerate(AMOS22)})
    assert first(load_volumes("amos", tmp_path), 15) == list(dataset("amos").structures)
    described(tmp_path, {str(k): name for k, name in enumerate(("background", *AMOS22[:0:-1]))})
    assert first(load_volumes("amos", tmp_path), 15) == list(dataset("amos").structures)[::-1]


@pytest.mark.takes(
    "Names and layouts of data sets", "a dataset.json with a structure that the task does not know", "taken, and said"
)
def test_a_label_that_the_task_does_not_know_becomes_background_with_a_warning(tmp_path):
    folder = described(msd(tmp_path, values=(3, 2)), {"background": 0, "liver": 3, "portal vein": 2, "tumour": 1})
    with pytest.warns(UserWarning, match="1 label unknown to 'liver_tumour', taken for background: 2 'portal vein'"):
        data = load_volumes("liver_tumour", folder)
    assert first(data, 2) == ["liver", "background"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"0": "background", "1": "spleen"},
            "names no liver, liver tumour: its labels are 0 'background', 1 'spleen', the struc",
        ),
        ({"background": 0}, "names no liver, liver tumour"),
        ({"0": "background", "1": "cancer", "2": "tumour", "3": "liver"}, "several labels are called 'liver tumour'"),
        ({"0": "liver", "1": "tumour"}, "value 0 is the background, here it is 'liver'"),
        ({"0": "background", "x": "liver"}, 'expected "labels": '),
        (["liver", "tumour"], 'expected "labels": '),
    ],
)
def test_names_that_cannot_be_matched_are_refused_with_both_lists(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"dataset.json.*{message}"):
        load_volumes("liver_tumour", described(msd(tmp_path), content))


def test_structures_that_are_not_asked_for_need_no_name(tmp_path):
    folder = described(msd(tmp_path, values=(5,)), {"background": 0, "liver": 5})
    assert first(load_volumes("liver_tumour", folder, structures=("liver",)), 1) == ["liver"]


def test_a_value_that_dataset_json_does_not_name_is_an_error(tmp_path):
    data = load_volumes(
        "liver_tumour", described(msd(tmp_path, values=(4,)), {"0": "background", "1": "liver", "3": "tumour"})
    )
    with pytest.raises(ValueError, match=r"4 \(1 voxels\); known: 0, 1, 3"):
        first(data, 1)


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("Kidney_Right", "amos", "right kidney"),
        ("rkid", "btcv", "right kidney"),
        ("IVC", "btcv", "inferior vena cava"),
        ("veins", "btcv", "portal and splenic vein"),
        ("urinary_bladder", "totalsegmentator", "bladder"),
        ("Esophagus", "amos", "oesophagus"),
        ("prostate", "amos", "prostate or uterus"),
        ("colon cancer primaries", "colon_tumour", "colon tumour"),
        ("Tumor", "kits19", "kidney tumour"),
        ("Cyst", "kits23", "kidney cyst"),
        ("kidney", "amos", ""),  # which one?
        ("adrenal gland", "btcv", ""),
        ("anterior", "amos", ""),
        ("liver", "kits19", ""),
    ],
)
def test_what_publishers_call_a_structure(name, task, expected):
    assert structure_of(name, dataset(task).structures) == expected


# --- masks ---------------------------------------------------------------------------------------------


def masked(folder: Path, liver: tuple[int, ...], kidney: tuple[int, ...]) -> VolumeCase:
    paths = {1: folder / "liver.nii.gz", 2: folder / "kidney.nii.gz"}
    labels(paths[1], *liver)
    labels(paths[2], *kidney)
    return VolumeCase("a", image(folder / "ct.nii.gz"), masks=paths)


def test_masks_that_overlap_are_counted(tmp_path):
    with pytest.warns(UserWarning, match="'a': 1 voxel belonging to several masks"):
        masked(tmp_path, (1, 1, 0), (0, 1, 1)).labels()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked(tmp_path, (255, 0), (0, 7)).labels()


def test_a_mask_of_several_values_is_none(tmp_path):
    with pytest.raises(ValueError, match="liver.nii.gz holds 0, 1, 2, where 0 and one other value make a mask"):
        masked(tmp_path, (1, 2), (0, 0, 1)).labels()


def test_labels_beyond_255_do_not_wrap_around(tmp_path):
    path = labels(tmp_path / "a.nii.gz", 1)
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 3), 257, np.int16), np.eye(4)), path)
    with pytest.raises(ValueError, match="a.nii.gz holds 257; labels go up to 255"):
        VolumeCase("a", image(tmp_path / "ct.nii.gz"), path).labels()


# --- other formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".hdr", ".mgz"])
def test_images_in_other_formats_are_cases_too(tmp_path, suffix):
    whole = nibabel.load(image(msd(tmp_path, 2) / "imagesTr" / "case_1.nii.gz"))
    array = whole.get_fdata().astype(np.float32)
    (tmp_path / "imagesTr" / "case_1.nii.gz").unlink()
    path = tmp_path / "imagesTr" / f"case_1{suffix}"
    if suffix in (".hdr", ".mgz"):
        kind = nibabel.Nifti1Pair if suffix == ".hdr" else nibabel.MGHImage
        nibabel.save(kind(array, whole.affine), path)
    else:
        sitk = pytest.importorskip("SimpleITK")
        picture = sitk.GetImageFromArray(array.transpose())
        picture.SetSpacing((1.5, 1.5, 2.0))  # ITK's axes point to the left and back, as those of the labels do
        sitk.WriteImage(picture, str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_volumes("liver_tumour", tmp_path)
    case = next(case for case in (*data.train, *data.val, *data.test) if case.name == "case_1")
    assert case.pair()[0].array.shape == (4, 5, 3)


def test_the_voxels_beside_a_header_and_the_slices_of_a_folder_decide_what_is_read(tmp_path):
    for name in ("a.mhd", "a.raw", "a.txt", "b.raw", "c.nii.gz", "c.raw", "d/1.dcm", "e.hdr", "e.img", "e.mat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "f.mhd").write_text("ObjectType = Image\nElementDataFile = b.raw\n")
    (tmp_path / "g.nhdr").write_text("NRRD0004\ndata file: c.raw\n")
    names = ("a.mhd", "c.nii.gz", "d", "e.hdr", "f.mhd", "g.nhdr")
    read = {name: [one.name for one in bytes_of(tmp_path / name)] for name in names}
    assert read == {
        "a.mhd": ["a.mhd", "a.raw"],
        "c.nii.gz": ["c.nii.gz"],
        "d": ["1.dcm"],
        "e.hdr": ["e.hdr", "e.img", "e.mat"],
        "f.mhd": ["f.mhd", "b.raw"],
        "g.nhdr": ["g.nhdr", "c.raw"],
    }

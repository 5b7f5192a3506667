"""3D data sets: every layout as published, numberings, splits, and what is wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from msd_files import AFFINE, SHAPE, image, labels, msd

from textdiff.data import load_volumes
from textdiff.data.registry import DATASETS, names
from textdiff.data.splits import SPLITS, check_unseen, draw_labelled, hashed_split, manifest_split
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.layouts import TOTALSEGMENTATOR, _totalsegmentator_values
from textdiff.data.volumes.volume import Volume, turned, write_image, write_labels

REAL = [name for name in names("volumes") if not DATASETS[name].synthetic]


WEIGHTS = Path(__file__).resolve().parents[4] / "weights"


def first(case: VolumeCase, n: int) -> list[int]:
    """Our labels of the first voxels."""
    array = case.labels().array
    assert array.dtype == np.uint8 and not array.reshape(-1)[n:].any()
    return array.reshape(-1)[:n].tolist()


def everyone(dataset) -> list[VolumeCase]:
    return sorted(dataset.train + dataset.val + dataset.test, key=lambda case: case.name)


# --- layouts -------------------------------------------------------------------------------------------


def test_decathlon_layout(tmp_path):
    (msd(tmp_path) / "imagesTr" / "._case_0.nii.gz").write_bytes(b"macOS leaves such files")
    dataset = load_volumes("liver_tumour", tmp_path)
    assert [case.name for case in everyone(dataset)] == ["case_0", "case_1", "case_2"]
    assert dataset.class_names == ("background", "liver", "liver tumour") and not dataset.synthetic
    assert dataset.licence == "CC BY-SA 4.0" and first(everyone(dataset)[0], 2) == [1, 2]
    volume, found = everyone(dataset)[0].pair()
    assert volume.array.dtype == np.float32 and volume.axes == found.axes == "LPS"
    assert [path.name for path in everyone(dataset)[0].files] == ["case_0.nii.gz"] * 2


@pytest.mark.parametrize(("name", "inside"), [("kits19", "data"), ("kits21", "data"), ("kits23", ".")])
def test_kits_layouts(tmp_path, name, inside):
    label_file = "aggregated_MAJ_seg.nii.gz" if name == "kits21" else "segmentation.nii.gz"
    for k in (0, 1, 210):  # KiTS19's test cases, from 210 on, have no labels
        image(tmp_path / inside / f"case_{k:05d}" / "imaging.nii.gz")
        if k < 210 or name != "kits19":
            labels(tmp_path / inside / f"case_{k:05d}" / label_file, 1, 2)
    dataset = load_volumes(name, tmp_path)
    assert [case.name[-3:] for case in everyone(dataset)] == ["000", "001"] + ["210"] * (name != "kits19")
    assert first(everyone(dataset)[0], 2) == [1, 2]


def test_amos_layout_with_its_validation_part_and_without_its_mr(tmp_path):
    for part, number in (("Tr", 1), ("Tr", 5), ("Va", 8), ("Tr", 507)):
        image(tmp_path / f"images{part}" / f"amos_{number:04d}.nii.gz")
        labels(tmp_path / f"labels{part}" / f"amos_{number:04d}.nii.gz", 6, 3, 1)
    dataset = load_volumes("amos", tmp_path)
    assert [case.name for case in everyone(dataset)] == ["amos_0001", "amos_0005", "amos_0008"]
    assert first(everyone(dataset)[0], 3) == [6, 3, 1]
    few = load_volumes("amos", tmp_path, structures=("left kidney", "liver"))
    assert few.class_names == ("background", "left kidney", "liver") and first(everyone(few)[0], 3) == [2, 1, 0]


@pytest.mark.parametrize("inside", [".", "Training", "RawData/Training"])
def test_btcv_layout(tmp_path, inside):
    for k in (1, 2):
        image(tmp_path / inside / "img" / f"img{k:04d}.nii.gz")
        labels(tmp_path / inside / "label" / f"label{k:04d}.nii.gz", 11)
    dataset = load_volumes("btcv", tmp_path)
    assert [case.name for case in everyone(dataset)] == ["0001", "0002"]
    assert dataset.class_names[first(everyone(dataset)[0], 1)[0]] == "pancreas"


@pytest.mark.parametrize(("numbering", "pancreas", "colon"), [("v1", 10, 57), ("v2", 7, 20), ("mr", 7, 15)])
def test_totalsegmentator_numberings(tmp_path, numbering, pancreas, colon):
    task, file = ("totalsegmentator_mr", "mr") if numbering == "mr" else ("totalsegmentator", "ct")
    for name in ("s0001", "s0002", "s0003"):
        image(tmp_path / name / f"{file}.nii.gz")
        labels(tmp_path / name / f"seg_multilabel_{numbering}.nii.gz", pancreas, colon, 17)
    dataset = load_volumes(task, tmp_path)
    names = [dataset.class_names[label] for label in first(everyone(dataset)[0], 3)]
    assert names[:2] == ["pancreas", "colon"] and names[2] == "background"  # 17: known, not asked for
    few = load_volumes(task, tmp_path, structures=("colon", "pancreas"))
    assert first(everyone(few)[0], 3) == [2, 1, 0]


def test_totalsegmentator_needs_to_know_the_numbering(tmp_path):
    image(tmp_path / "s1" / "ct.nii.gz")
    labels(tmp_path / "s1" / "segmentations.nii.gz", 1)
    with pytest.raises(ValueError, match="segmentations.nii.gz: .*say which with _v1, _v2 or _mr"):
        load_volumes("totalsegmentator", tmp_path)
    labels(tmp_path / "s1" / "seg_v2.nii.gz", 1)
    with pytest.raises(ValueError, match="'s1': several multi-label files"):
        load_volumes("totalsegmentator", tmp_path)


def test_totalsegmentator_with_a_mask_a_structure(tmp_path):
    wanted = ("liver", "left kidney")
    for name in ("s1", "s2", "s3"):
        image(tmp_path / name / "ct.nii.gz")
        labels(tmp_path / name / "segmentations" / "liver.nii.gz", 1, 1, 0)
        labels(tmp_path / name / "segmentations" / "kidney_left.nii.gz", 0, 0, 1)
    (tmp_path / "s1" / "segmentations" / "readme.txt").write_text("not a mask")
    image(tmp_path / "m1" / "mr.nii.gz")  # of the other task
    dataset = load_volumes("totalsegmentator", tmp_path, structures=wanted)
    assert len(everyone(dataset)) == 3 and first(everyone(dataset)[0], 3) == [1, 1, 2]
    assert len(everyone(dataset)[0].files) == 3
    with pytest.raises(FileNotFoundError, match=r"'s1': no mask of spleen, .* leave them out with structures="):
        load_volumes("totalsegmentator", tmp_path)


def test_totalsegmentators_own_split(tmp_path):
    for name in ("s1", "s2", "s3"):
        image(tmp_path / name / "ct.nii.gz")
        labels(tmp_path / name / "seg_v2.nii.gz", 1)
    (tmp_path / "meta.csv").write_text("image_id;age;split\ns1;50;test\ns2;60;train\ns3;70;val\n")
    dataset = load_volumes("totalsegmentator", tmp_path)
    assert [part[0].name for part in (dataset.train, dataset.val, dataset.test)] == ["s2", "s3", "s1"]
    for separator in ",\t|":
        (tmp_path / "meta.csv").write_text(
            f"image_id{separator}split\n" + "".join(f"s{k}{separator}Train\n" for k in (1, 2, 3))
        )
        assert len(load_volumes("totalsegmentator", tmp_path).train) == 3
    (tmp_path / "meta.csv").write_text("image_id,part\ns1,test\n")
    with pytest.raises(ValueError, match="meta.csv: expected columns image_id and split"):
        load_volumes("totalsegmentator", tmp_path)


def test_totalsegmentators_structures_have_names_and_numbers_of_their_own():
    for task in ("totalsegmentator", "totalsegmentator_mr"):
        assert set(DATASETS[task].structures) == set(TOTALSEGMENTATOR)
    for column in zip(*TOTALSEGMENTATOR.values(), strict=True):
        assert len(set(column)) == len(column)


@pytest.mark.parametrize("name", REAL)
def test_a_wrong_folder_says_what_is_missing(tmp_path, name):
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
        load_volumes(name, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such data set folder"):
        load_volumes(name, tmp_path / "absent")


# --- bad cases -----------------------------------------------------------------------------------------


def flat(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5)), np.eye(4)), path)


BAD = {  # what is done to the file of a case: error
    ("labelsTr", Path.unlink): "'case_1': image .* has no label map",
    ("imagesTr", Path.unlink): "'case_1': label map .* has no image",
    ("labelsTr", lambda path: labels(path, 1, shape=(4, 5, 4))): r"'case_1': .*\(4, 5, 3\) but its labels \(4, 5, 4\)",
    ("labelsTr", lambda path: labels(path, 1, affine=np.diag([-1.5, -1.5, 3.0, 1.0]))): "'case_1': .*2 mm apart",
    ("labelsTr", lambda path: path.write_bytes(b"")): "cannot read .*labelsTr/case_1.nii.gz",
    ("imagesTr", flat): "imagesTr/case_1.nii.gz: .*flat picture",
}


@pytest.mark.parametrize(("kind", "spoil"), BAD)
def test_a_bad_case_is_named(tmp_path, kind, spoil):
    spoil(msd(tmp_path) / kind / "case_1.nii.gz")
    with pytest.raises((FileNotFoundError, ValueError), match=BAD[kind, spoil]):
        load_volumes("liver_tumour", tmp_path)


def test_values_the_task_does_not_know_are_listed(tmp_path):
    labels(msd(tmp_path) / "labelsTr" / "case_1.nii.gz", 1, 2, 7, 7, 9)
    dataset = load_volumes("liver_tumour", tmp_path)  # headers do not show it
    case = next(case for case in everyone(dataset) if case.name == "case_1")
    with pytest.raises(ValueError, match=r"'case_1': .*case_1.nii.gz .*7 \(2 voxels\), 9 \(1 voxels\); known: 0, 1, 2"):
        case.pair()


def test_a_file_broken_further_in_is_named_when_used(tmp_path):
    path = msd(tmp_path) / "imagesTr" / "case_1.nii.gz"
    write_image(path, Volume(np.random.default_rng(0).integers(-900, 900, (20, 20, 20)), AFFINE))
    labels(tmp_path / "labelsTr" / "case_1.nii.gz", 1, shape=(20, 20, 20))
    path.write_bytes(path.read_bytes()[:-2000])
    case = next(case for case in everyone(load_volumes("liver_tumour", tmp_path)) if case.name == "case_1")
    with pytest.raises(ValueError, match="cannot read .*imagesTr/case_1.nii.gz"):
        case.pair()


@pytest.mark.takes("Names and layouts of data sets", "labels in another order of axes than their image", "taken")
def test_labels_in_another_axis_order_are_turned(tmp_path):
    msd(tmp_path)
    array = np.zeros(SHAPE, np.uint8)
    array[3, 0, 0] = 2
    write_labels(tmp_path / "labelsTr" / "case_0.nii.gz", turned(Volume(array, AFFINE), "IRA"))
    case = everyone(load_volumes("liver_tumour", tmp_path))[0]
    assert case.labels().axes == "IRA"
    volume, found = case.pair()
    assert found.axes == volume.axes == "LPS" and np.array_equal(found.array, array)


# --- splits --------------------------------------------------------------------------------------------


def test_the_folders_own_split_also_says_what_belongs(tmp_path):
    msd(tmp_path, 5)
    (tmp_path / "labelsTr" / "case_1.nii.gz").unlink()  # case_1 is in no split, so it does not matter
    split = {"train": ["case_4.nii.gz", "case_0.nii.gz"], "val": ["case_2.nii.gz"], "test": ["case_3.nii.gz"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    dataset = load_volumes("liver_tumour", tmp_path)
    assert [case.name for case in dataset.train] == ["case_0", "case_4"]
    assert [dataset.val[0].name, dataset.test[0].name] == ["case_2", "case_3"]


@pytest.mark.takes("Names and layouts of data sets", "a split.json with a case in two parts", "refused")
@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["case_0"], "test": ["case_0"]}, "listed more than once: case_0; a case belongs to one split"),
        ({"training": ["case_0"]}, 'split.json: expected {"train"'),
        ({"train": "case_0"}, 'split.json: expected {"train"'),
        ({"train": ["case_0", "case_9"]}, "'case_9' is listed in .* but has neither file"),
    ],
)
def test_a_split_that_cannot_be_right(tmp_path, split, message):
    (msd(tmp_path) / "split.json").write_text(json.dumps(split))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_volumes("liver_tumour", tmp_path)


def test_dataset_json_says_what_belongs(tmp_path):
    (msd(tmp_path) / "imagesTr" / "case_1.nii.gz").unlink()
    rows = [{"image": f"./imagesTr/case_{k}.nii.gz", "label": f"./labelsTr/case_{k}.nii.gz"} for k in (0, 2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": rows}))
    assert len(everyone(load_volumes("liver_tumour", tmp_path))) == 2
    (tmp_path / "dataset.json").write_text(json.dumps({"training": ["case_0"]}))
    with pytest.raises(ValueError, match='dataset.json: expected "training"'):
        load_volumes("liver_tumour", tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="dataset.json is damaged"):
        load_volumes("liver_tumour", tmp_path)


def test_the_shipped_split_stands_above_the_folders_own_and_counts_what_is_absent(tmp_path):
    shipped = manifest_split("hippocampus.json")
    chosen = {split: next(name for name in shipped if shipped[name] == split) for split in SPLITS}
    for name in (*chosen.values(), "hippocampus_999"):
        image(tmp_path / "imagesTr" / f"{name}.nii.gz")
        labels(tmp_path / "labelsTr" / f"{name}.nii.gz", 1, 2)
    data = load_volumes("hippocampus", tmp_path)
    for split, name in chosen.items():
        assert name in [case.name for case in getattr(data, split)]
    assert "hippocampus_999" in [case.name for case in getattr(data, hashed_split("hippocampus_999"))]
    assert len(data.absent) == 221 - 3 and not set(data.absent) & set(chosen.values())
    for folder in ("imagesTr", "labelsTr"):  # in whatever letter case a copy has its names
        for path in list((tmp_path / folder).iterdir()):
            path.rename(path.with_name(path.name.capitalize()))
    copied = load_volumes("hippocampus", tmp_path)
    for split, name in chosen.items():
        assert name.capitalize() in [case.name for case in getattr(copied, split)]
    assert copied.absent == data.absent
    for folder in ("imagesTr", "labelsTr"):
        for path in list((tmp_path / folder).iterdir()):
            path.rename(path.with_name(path.name.lower()))
    own = {"train": [*chosen.values(), "hippocampus_999"]}
    (tmp_path / "split.json").write_text(json.dumps(own))
    data = load_volumes("hippocampus", tmp_path)
    assert [case.name for case in data.test] == [chosen["test"]]
    assert [case.name for case in data.train] == [chosen["train"], "hippocampus_999"]


# --- structures, arguments, phantoms -------------------------------------------------------------------


@pytest.mark.parametrize("structures", [("livver",), ("liver", "liver"), ()])
def test_structures_must_be_the_tasks_own(structures):
    with pytest.raises(ValueError, match="structures of 'amos' must be some of spleen, .* each once"):
        load_volumes("amos", structures=structures)


def test_names_and_arguments():
    with pytest.raises(ValueError, match="unknown data set of volumes 'brats'; known: hippocampus, "):
        load_volumes("brats")
    with pytest.raises(ValueError, match="sizes is for synthetic data sets; 'hippocampus' is real"):
        load_volumes("hippocampus", sizes=(1, 1, 1))
    with pytest.raises(ValueError, match="'abdomen_phantoms' is synthetic and has no folder"):
        load_volumes("abdomen_phantoms", root="somewhere")
    with pytest.raises(ValueError, match="sizes must be three numbers"):
        load_volumes("abdomen_phantoms", sizes=(1, 2))


def test_phantoms_of_different_splits_differ_and_can_be_narrowed():
    dataset = load_volumes("abdomen_phantoms", sizes=(2, 1, 1), structures=("left kidney", "liver"))
    assert dataset.synthetic and [len(dataset.train), len(dataset.val), len(dataset.test)] == [2, 1, 1]
    pairs = [case.pair() for case in everyone(dataset)]
    assert len({volume.array.tobytes() for volume, _ in pairs}) == len({case.name for case in everyone(dataset)}) == 4
    for _, found in pairs:
        kidney, liver = (np.argwhere(found.array == k).mean(0) for k in (1, 2))
        assert found.axes == "RAS" and kidney[0] < liver[0]  # the left kidney lies on the left


def test_a_fingerprint_stands_for_the_voxels_whatever_holds_them(tmp_path):
    case = everyone(load_volumes("liver_tumour", msd(tmp_path, 1)))[0]
    volume = case.image()
    assert len(case.fingerprint()) == 16 and case.fingerprint() == VolumeCase("a", image_volume=volume).fingerprint()
    write_image(tmp_path / "raw.nii", turned(volume, "IRA"))
    assert VolumeCase("b", image_path=tmp_path / "raw.nii").fingerprint() == case.fingerprint()
    for other in (volume.array + (volume.array == 0), volume.array.reshape(5, 4, 3)):
        assert VolumeCase("c", image_volume=Volume(other, AFFINE)).fingerprint() != case.fingerprint()


def test_cases_in_memory():
    whole = Volume(np.arange(60, dtype=np.float32).reshape(SHAPE), AFFINE)
    bare = VolumeCase("a", image_volume=whole)
    assert not bare.labelled and bare.files == ()
    with pytest.raises(ValueError, match="case 'a' has no labels"):
        bare.labels()
    with pytest.raises(ValueError, match="neither image_path nor image_volume"):
        VolumeCase("a")
    with pytest.raises(ValueError, match="needs a name"):
        VolumeCase("", image_volume=whole)


# --- real data -----------------------------------------------------------------------------------------


def real(data_root: Path, name: str) -> Path:
    if not (data_root / name).is_dir():
        pytest.skip(f"no real volumes: {data_root / name} is absent (set TEXTDIFF_DATA)")
    return data_root / name


def test_real_hippocampus(data_root):
    dataset = load_volumes("hippocampus", real(data_root, "Task04_Hippocampus"))
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [155, 33, 33]
    assert {case.name for case in everyone(dataset)} == set(manifest_split("hippocampus.json")) and not dataset.absent
    names = {case.name for case in everyone(dataset)}
    assert not names & {"hippocampus_118", "hippocampus_010", "hippocampus_281"}  # incomplete pairs, in no split
    for case in dataset.test[:5]:
        volume, found = case.pair()
        assert volume.axes == "RAS" and volume.spacing == pytest.approx((1, 1, 1))
        front, back = (np.argwhere(found.array == k).mean(0)[1] for k in (1, 2))
        assert front > back  # anterior lies in front of posterior


def test_hippocampus_small_carries_the_fingerprints_of_its_training_cases(data_root):
    dataset = load_volumes("hippocampus", real(data_root, "Task04_Hippocampus"))
    trained_on = json.loads((WEIGHTS / "hippocampus_small" / "config.json").read_text())["trained_on"]
    assert trained_on["dataset"] == "hippocampus" and len(set(trained_on["cases"])) == 155
    assert {case.fingerprint() for case in draw_labelled(dataset.train, 20, seed=1)} <= set(trained_on["cases"])
    check_unseen(trained_on, dataset.val + dataset.test)
    with pytest.raises(ValueError, match=f"trained on 1 of the 34 test cases .{dataset.train[5].name};"):
        check_unseen(trained_on, [*dataset.test, dataset.train[5]])


def test_abdomen_small_carries_the_fingerprints_of_its_training_cases():
    trained_on = json.loads((WEIGHTS / "abdomen_small" / "config.json").read_text())["trained_on"]
    assert trained_on["dataset"] == "abdomen_phantoms" and len(set(trained_on["cases"])) == 40
    dataset = load_volumes("abdomen_phantoms", sizes=(3, 1, 2))
    assert {case.fingerprint() for case in dataset.train} <= set(trained_on["cases"])
    check_unseen(trained_on, dataset.val + dataset.test)


def test_real_totalsegmentator_cases_agree_across_numberings(data_root, tmp_path):
    samples = real(data_root, "TotalSegmentator_samples")
    with pytest.raises(FileNotFoundError, match="ct_aorta_crop_1p5mm.*has no labels"):
        load_volumes("totalsegmentator", samples)
    for name in ("ct_dicom_20slices", "ct_full_3mm", "ct_small_3mm", "mr_small_3mm"):
        (tmp_path / name).symlink_to(samples / name)
    cases = {case.name: case for case in everyone(load_volumes("totalsegmentator", tmp_path))}
    assert set(cases) == {"ct_dicom_20slices", "ct_full_3mm", "ct_small_3mm"}
    old, new = cases["ct_full_3mm"].labels().array, cases["ct_small_3mm"].labels().array  # v1; v2 of its upper slices
    for label in (1, 2, 3, 5, 7):  # spleen, kidneys, liver, pancreas
        a, b = old[:, :, 82:] == label, new == label
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.7, label
    mr = load_volumes("totalsegmentator_mr", samples)
    assert [case.name for case in everyone(mr)] == ["mr_small_3mm"]


def test_real_masks_give_the_same_labels_as_the_multi_label_file(data_root, tmp_path):
    folder = real(data_root, "TotalSegmentator_samples") / "ct_full_3mm"
    wanted = ("liver", "left kidney", "right kidney", "pancreas", "colon")
    for case, inside, target in (("a", "segmentations", "organs"), ("b", "seg_v1.nii.gz", "seg_multilabel_v1.nii.gz")):
        (tmp_path / case).mkdir()
        (tmp_path / case / "ct.nii.gz").symlink_to(folder / "ct.nii.gz")
        (tmp_path / case / inside).symlink_to(folder / target)
    masks, whole = everyone(load_volumes("totalsegmentator", tmp_path, structures=wanted))
    assert masks.masks and np.array_equal(masks.labels().array, whole.labels().array)


# totalsegmentator/map_to_binary.py: class_map of version 1 ("total_v1"), 2 ("total") and MR ("total_mr")
PUBLISHED = {
    **{"spleen": (1, 1, 1), "right kidney": (2, 2, 2), "left kidney": (3, 3, 3), "gallbladder": (4, 4, 4)},
    **{"liver": (5, 5, 5), "stomach": (6, 6, 6), "pancreas": (10, 7, 7), "right adrenal gland": (11, 8, 8)},
    **{"left adrenal gland": (12, 9, 9), "oesophagus": (42, 15, 12), "duodenum": (56, 19, 14)},
    **{"small bowel": (55, 18, 13), "colon": (57, 20, 15), "bladder": (104, 21, 16), "aorta": (7, 52, 23)},
    **{"inferior vena cava": (8, 63, 24), "portal and splenic vein": (9, 64, 25)},
}


@pytest.mark.parametrize(("column", "numbering"), enumerate(("v1", "v2", "mr")))
def test_values_are_those_of_totalsegmentators_own_lists(column, numbering):
    found = _totalsegmentator_values(numbering, tuple(PUBLISHED))
    assert set(PUBLISHED) == set(TOTALSEGMENTATOR)
    assert {value: label for value, label in found.items() if label} == {
        values[column]: label for label, values in enumerate(PUBLISHED.values(), start=1)
    }

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textdiff.data import load_dataset
from textdiff.data.cases import Case
from textdiff.data.images.lvit import read_split, read_text, write_split


def write_picture(path: Path, size: tuple[int, int] = (6, 8), value: int = 7, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if mode == "L" else (value, 0, 0)).save(path)


def write_mask(path: Path, size: tuple[int, int] = (6, 8), value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[:2] = value
    Image.fromarray(mask).save(path)


def write_text(
    folder: Path, rows: list[tuple[str, str]], columns=("Image", "Description"), name="Train_text.xlsx"
) -> None:
    pd.DataFrame(rows, columns=list(columns)).to_excel(folder / name, index=False)


@pytest.fixture
def split(tmp_path) -> Path:
    """Three good cases in the manner of MoNuSeg (tif), QaTa (mask_) and of names in another letter case."""
    folder = tmp_path / "Train_Folder"
    for image, mask in (("a.tif", "a.png"), ("b.png", "mask_b.png"), ("Sub-C.png", "mask_sub-c.PNG")):
        write_picture(folder / "img" / image)
        write_mask(folder / "labelcol" / mask)
    write_text(folder, [("a.png", "one"), ("mask_b.png", " two "), ("MASK_SUB-c.png", "three")])
    return folder


@pytest.mark.takes(
    "Names and layouts of data sets", "image and mask with other suffixes and letter case, or mask_ in front", "taken"
)
def test_names_meet_across_suffix_prefix_and_letter_case(split):
    cases = read_split(split)
    assert [(case.name, case.caption) for case in cases] == [("a", "one"), ("b", "two"), ("Sub-C", "three")]
    image, mask = cases[0].pair()
    assert image.shape == (6, 8, 3) and mask.sum() == 16 and mask.max() == 1


@pytest.mark.parametrize(
    "columns", [("Image", "Description"), ("Description", "Image"), ("Unnamed: 0", "image ", "DESCRIPTION")]
)
def test_columns_in_any_order(split, columns):
    values = {"image": "a.png", "description": "hello", "unnamed: 0": "3"}
    row = tuple(values[column.strip().lower()] for column in columns)
    write_text(split, [row], columns)
    assert read_text(split) == {"a": "hello"}


@pytest.mark.takes("Text tables", 'sentences such as "None" and "NA"', "taken")
def test_words_such_as_none_stay_words(split):
    write_text(split, [("a.png", "None"), ("b.png", "NA")])
    assert read_text(split) == {"a": "None", "b": "NA"}


def redo_text(*rows):
    return lambda split: write_text(split, list(rows))


@pytest.mark.takes("Names and layouts of data sets", "an image without mask or sentence", "refused")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda split: (split / "labelcol" / "mask_b.png").unlink(), "b.png: no mask"),
        (redo_text(("a.png", "one"), ("sub-c.png", "three")), "b.png: no caption"),
        (lambda split: (split / "img" / "b.png").unlink(), "row for 'b' but there is no such image"),
        (redo_text(("a.png", "one"), ("b.png", "  "), ("sub-c.png", "three")), "row 3: empty caption for 'b.png'"),
        (redo_text(("a.png", "one"), ("b.png", "two"), ("mask_B.png", "other")), "row 4: second caption for 'mask_B"),
        (lambda split: write_mask(split / "labelcol" / "mask_b.png", size=(6, 9)), r"b.png is 6x8 but .*b.png is 6x9"),
        (lambda split: (split / "img" / "b.png").write_bytes(b"no picture at all"), "cannot read .*b.png"),
    ],
)
def test_a_defect_is_named(split, spoil, message):
    spoil(split)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_split(split)


def test_picture_broken_further_in_is_named_on_use(split):
    path = split / "img" / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    case = next(case for case in read_split(split) if case.name == "b")
    with pytest.raises(ValueError, match=r"cannot read .*b\.png"):
        case.image()


def test_missing_column_lists_what_is_there(split):
    write_text(split, [("a.png", "one")], ("Image", "Text"))
    with pytest.raises(ValueError, match=r"missing column \['Description'\]; found \['Image', 'Text'\]"):
        read_split(split)


def test_missing_parts_of_the_layout(split, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such split folder"):
        read_split(tmp_path / "Nothing")
    (split / "Train_text.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(ValueError, match=r"cannot read .*Train_text\.xlsx"):
        read_split(split)
    (split / "Train_text.xlsx").unlink()
    with pytest.raises(FileNotFoundError, match=r"\*_text\.xlsx"):
        read_split(split)
    (split / "labelcol").rename(split / "masks")
    with pytest.raises(FileNotFoundError, match="labelcol"):
        read_split(split)


def test_two_files_for_one_case(split):
    copy = split / "img" / "B.png"
    copy.write_bytes((split / "img" / "b.png").read_bytes())
    assert len(read_split(split)) == 3  # SGSeg's copy of QaTa holds such twins with equal bytes
    write_picture(copy, value=9)
    with pytest.raises(ValueError, match="different files for one case"):
        read_split(split)


def test_masks_with_values_in_between_are_refused(split):
    path = split / "labelcol" / "a.png"
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"a\.png: mask has values between"):
        Case("a", "one", image_path=split / "img" / "a.tif", mask_path=path).mask()


def test_unlabelled_case_has_no_mask(split):
    case = read_split(split)[0].without_mask()
    assert not case.labelled
    with pytest.raises(ValueError, match="no mask"):
        case.mask()
    with pytest.raises(ValueError, match="neither"):
        Case("x", "text")


def test_masks_are_read_at_load_with_the_classes_of_the_data_set(split):
    write_mask(split / "labelcol" / "mask_b.png", value=2)
    with pytest.raises(
        ValueError, match=r"mask_b\.png: mask has the values 0 \(32 pixels\), 2 \(16\); expected labels 0..1"
    ):
        read_split(split)
    assert len(read_split(split, num_classes=3)) == len(read_split(split, num_classes=None)) == 3
    (split / "labelcol" / "mask_b.png").write_bytes((split / "labelcol" / "mask_b.png").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cannot read .*mask_b\.png"):
        read_split(split)


@pytest.mark.takes("Masks of pictures", "another EXIF orientation than the image", "taken, and said")
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_image_and_mask_are_compared_upright(split, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    shape = (8, 6) if orientation in (6, 8) else (6, 8)
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(split / "img" / "b.png", exif=exif)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(read_split(split)) == 3
    assert ["1 images and their masks have different EXIF orientations" in str(one.message) for one in said] == [
        True
    ] * (orientation != 1)
    if orientation == 6:
        write_mask(split / "labelcol" / "mask_b.png", size=(8, 6))
        with pytest.raises(
            ValueError, match=r"b.png is 6x8 but .*b.png is 8x6 .* once upright \(EXIF orientations 6 and 1\)"
        ):
            read_split(split)


def test_dataset_with_extra_images_only_for_pretraining(split, tmp_path):
    import shutil

    for name in ("val_folder", "Test_Folder"):
        shutil.copytree(split, tmp_path / name)
    extra = tmp_path / "Train_Extra_Folder"
    write_picture(extra / "img" / "x.png")
    write_mask(extra / "labelcol" / "mask_x.png")
    write_text(extra, [("mask_x.png", "extra")], name="Train_Extra_text.xlsx")
    data = load_dataset("qata", root=tmp_path)
    assert [len(part) for part in (data.train, data.val, data.test, data.unlabelled)] == [3, 3, 3, 4]
    assert not any(case.labelled for case in data.unlabelled)
    assert {case.image_path.parts[-3] for case in data.unlabelled} == {"Train_Folder", "Train_Extra_Folder"}


def test_what_is_written_can_be_read(tmp_path):
    image, mask = np.zeros((6, 8, 3), np.uint8), np.eye(6, 8, dtype=np.uint8)
    cases = [
        Case(name, caption, image_array=image, mask_array=mask)
        for name, caption in (("a", "=1+1 spots"), ("b", "two spots"))
    ]
    write_split(tmp_path / "Train_Folder", cases)
    assert [one.caption for one in read_split(tmp_path / "Train_Folder")] == ["=1+1 spots", "two spots"]
    alike = [Case(name, "one spot", image_array=image, mask_array=mask) for name in ("x", "mask_X")]
    with pytest.raises(ValueError, match="2 cases have one name, 'x'"):
        write_split(tmp_path / "other", alike)
    assert not (tmp_path / "other").exists()


def test_real_monuseg(monuseg_root):
    data = load_dataset("monuseg", root=monuseg_root)
    assert [len(part) for part in (data.train, data.val, data.test, data.unlabelled)] == [24, 6, 14, 24]
    assert {case.image_path.suffix for case in data.test} == {".tif"}
    image, mask = data.test[0].pair()
    assert image.shape == (1000, 1000, 3) and set(np.unique(mask)) == {0, 1}
    assert data.train[0].caption.startswith("The nuclei")


def test_real_qata_validation_split(qata_root):
    cases = read_split(qata_root / "Val_Folder")
    assert len(cases) == 300
    image, mask = cases[0].pair()
    assert image.shape == (224, 224, 3) and mask.max() == 1
    assert cases[0].caption.endswith("lung.")

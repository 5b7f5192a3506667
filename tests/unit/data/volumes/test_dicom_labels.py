"""Labels in DICOM: outlines become voxels, label maps become SEGs and come back."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dataset, rising, save_frames, save_outlines, save_series

from textdiff.data import load_volumes
from textdiff.data.registry import DATASETS
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.dicom import read_dicom
from textdiff.data.volumes.dicom_labels import read_dicom_labels
from textdiff.data.volumes.dicom_seg import write_dicom_seg
from textdiff.data.volumes.volume import read_labels

pydicom = pytest.importorskip("pydicom")
SHAPE = (30, 24, 5)
NAMES = ("background", "liver", "left kidney", "right kidney tumour", "spleen", "portal and splenic vein")


@pytest.fixture
def series(tmp_path) -> Path:
    return save_series(tmp_path / "series", np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16), rising(5))


def label_map(like, values=(1, 2, 3)):
    """Boxes of these labels on the grid of a volume."""
    array = np.zeros(like.shape, np.uint8)
    for k, value in enumerate(values):
        array[3 + 6 * k : 8 + 6 * k, 2 + k : 20, k : k + 2] = value
    return replace(like, array=array)


# --- SEG -----------------------------------------------------------------------------------------------


@pytest.mark.takes("DICOM SEG (output)", "a label map of several structures: highdicom reads the same voxels", "taken")
def test_a_seg_gives_back_the_same_voxels(series, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    image = read_dicom(series)
    labels = label_map(image)
    write_dicom_seg(tmp_path / "out.dcm", labels, NAMES, series)
    back, names = read_dicom_labels(tmp_path / "out.dcm", series)
    assert np.array_equal(back.array, labels.array) and np.abs(back.affine - image.affine).max() < 1e-6
    assert names == NAMES[:4]
    seg = highdicom.seg.segread(tmp_path / "out.dcm")
    volume = seg.get_volume(combine_segments=True)
    to_index = np.linalg.inv(np.diag([-1, -1, 1, 1.0]) @ image.affine) @ volume.affine
    index = np.rint(to_index[:3, :3] @ np.indices(volume.spatial_shape).reshape(3, -1) + to_index[:3, 3:]).astype(int)
    assert np.array_equal(volume.array.ravel(), labels.array[tuple(index)]) and volume.array.any()


@pytest.mark.takes("DICOM labels", "a SEG beside the series of a data set's case: structures by their names", "taken")
def test_a_seg_beside_the_series_is_the_label_map_of_a_data_set(tmp_path):
    volume = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    slices = save_series(tmp_path / "patient/dicom", volume, rising(5))
    labels = label_map(read_dicom(slices))
    write_dicom_seg(tmp_path / "patient/seg.dcm", labels, ("background", "Right_Kidney", "oddity", "Liver"), slices)
    asked = ("liver", "right kidney")
    data = load_volumes("totalsegmentator", tmp_path, structures=asked)
    (case,) = data.train + data.val + data.test
    image, found = case.pair()
    assert (
        np.array_equal(found.array, np.select([labels.array == 3, labels.array == 1], [1, 2])) and image.shape == SHAPE
    )
    with pytest.raises(ValueError, match=r"seg\.dcm: no structure spleen; there are Right_Kidney, oddity, Liver"):
        replace(case, structures=("spleen",)).labels()


def test_a_seg_belongs_to_its_series(series, tmp_path):
    labels = label_map(read_dicom(series))
    write_dicom_seg(tmp_path / "out.dcm", labels, NAMES, series / "000_5.dcm")
    seg, slices = pydicom.dcmread(tmp_path / "out.dcm"), [pydicom.dcmread(path) for path in series.iterdir()]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert seg[keyword].value == slices[0][keyword].value
    assert seg.Modality == "SEG" and seg.SeriesInstanceUID != slices[0].SeriesInstanceUID
    places = {one.SOPInstanceUID: list(one.ImagePositionPatient) for one in slices}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == places[source]


def test_segments_carry_names_and_codes(series, tmp_path):
    write_dicom_seg(tmp_path / "out.dcm", label_map(read_dicom(series), (5, 2, 3)), NAMES, series)
    kidney, tumour, vein = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence
    assert [one.SegmentLabel for one in (kidney, tumour, vein)] == [NAMES[2], NAMES[3], NAMES[5]]
    assert {one.SegmentAlgorithmType for one in (kidney, tumour, vein)} == {"AUTOMATIC"}
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("SCT", "64033007")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    region = tumour.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("64033007", "Right")
    assert vein.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99TEXTDIFF"


@pytest.mark.takes("DICOM SEG (output)", "every structure that a known data set has", "taken")
def test_every_structure_of_the_registry_can_be_a_segment(tmp_path):
    names = {name for entry in DATASETS.values() if entry.kind == "volumes" for name in entry.class_names} - {
        "background"
    }
    shape = (len(names) + 1, 3, 3)
    folder = save_series(tmp_path / "series", np.zeros(shape, np.int16), rising(3))
    image = read_dicom(folder)
    labels = replace(image, array=np.broadcast_to(np.arange(len(names) + 1)[:, None, None], shape).astype(np.int16))
    write_dicom_seg(tmp_path / "out.dcm", labels, ("background", *sorted(names)), folder)
    back, read = read_dicom_labels(tmp_path / "out.dcm", folder)
    assert read == ("background", *sorted(names)) and np.array_equal(back.array, labels.array)
    segments = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence
    schemes = {one.SegmentLabel: one.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator for one in segments}
    own = {"portal and splenic vein", "prostate or uterus"}
    assert {name for name, scheme in schemes.items() if scheme != "SCT"} <= own


def test_a_seg_of_a_file_with_many_frames(tmp_path):
    array = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    path = save_frames(tmp_path / "frames.dcm", array, rising(5)[::-1])
    labels = label_map(read_dicom(path))
    (tmp_path / "out").mkdir()
    write_dicom_seg(tmp_path / "out" / "out.dcm", labels, NAMES, path)
    assert np.array_equal(read_dicom_labels(tmp_path / "out" / "out.dcm", path)[0].array, labels.array)


@pytest.mark.takes("DICOM SEG (output)", "an empty mask", "taken")
def test_an_empty_mask_is_a_seg_of_empty_segments(series, tmp_path):
    image = read_dicom(series)
    write_dicom_seg(tmp_path / "out.dcm", label_map(image, ()), NAMES[:3], series)
    back, names = read_dicom_labels(tmp_path / "out.dcm", series)
    assert names == NAMES[:3] and not back.array.any()


@pytest.mark.takes("DICOM SEG (output)", "labels that do not lie on the series, or have no name", "refused")
def test_what_cannot_be_a_seg_is_refused_and_nothing_is_written(series, tmp_path, monkeypatch):
    image = read_dicom(series)
    out = tmp_path / "out.dcm"
    moved = image.affine.copy()
    moved[0, 3] += 0.4
    for labels, names, message in (
        (label_map(replace(image, affine=moved)), NAMES, "out.dcm: image and labels.*apart"),
        (label_map(image), NAMES[:3], r"out.dcm: labels must be whole numbers 0\.\.2.*0\.\.3"),
        (replace(image, array=image.array * 0), NAMES, "whole numbers.*float32"),
        (label_map(image), NAMES[:1], "1 to 255 structures, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write_dicom_seg(out, labels, names, series)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r'out.dcm: .*pip install "textdiff\[dicom\]"'):
        write_dicom_seg(out, label_map(image), NAMES, series)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


@pytest.mark.takes("DICOM SEG (output)", "a series without identifiers: the SEG gets new ones", "taken, and said")
def test_a_series_without_identifiers_gets_some_with_a_word(tmp_path):
    folder = save_series(
        tmp_path / "a", np.zeros(SHAPE, np.int16), rising(5), StudyInstanceUID="", SeriesInstanceUID=""
    )
    labels = label_map(read_dicom(folder))
    with pytest.warns(UserWarning, match="no StudyInstanceUID, SeriesInstanceUID; the DICOM SEG got new ones"):
        write_dicom_seg(tmp_path / "out.dcm", labels, NAMES, folder)
    assert np.array_equal(read_dicom_labels(tmp_path / "out.dcm", folder)[0].array, labels.array)


@pytest.mark.takes("DICOM labels", "a SEG of another grid or frame of reference", "refused")
def test_a_seg_of_another_grid_is_refused(series, tmp_path):
    write_dicom_seg(tmp_path / "out.dcm", label_map(read_dicom(series)), NAMES, series)
    other = save_series(tmp_path / "other", np.zeros(SHAPE, np.int16), rising(5, 4.0))
    with pytest.raises(ValueError, match="out.dcm: segment 1 does not lie on the grid of the series"):
        read_dicom_labels(tmp_path / "out.dcm", other)
    shorter = save_series(tmp_path / "shorter", np.zeros(SHAPE, np.int16), rising(5)[1:])
    with pytest.raises(ValueError, match="out.dcm: segment 1 reaches beyond the slices"):
        read_dicom_labels(tmp_path / "out.dcm", shorter)
    strange = save_series(tmp_path / "strange", np.zeros(SHAPE, np.int16), rising(5), FrameOfReferenceUID="7.7")
    with pytest.raises(ValueError, match="out.dcm: drawn in another frame of reference"):
        read_dicom_labels(tmp_path / "out.dcm", strange)
    with pytest.raises(ValueError, match="DICOM Segmentation.*read_dicom_labels"):
        read_labels(tmp_path / "out.dcm")


# --- outlines ------------------------------------------------------------------------------------------


def ring(x: float, y: float, radius: float, k: int, points: int = 300) -> np.ndarray:
    """A circle around voxel (x, y) of slice k, radius in voxels; in DICOM's mm."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    left, back, up = rising(5)[k]
    return np.stack(
        [left + 0.5 * (x + radius * np.cos(turn)), back + 0.7 * (y + radius * np.sin(turn)), 0 * turn + up], 1
    )


def inside(x: float, y: float, radius: float) -> np.ndarray:
    column, row = np.indices(SHAPE[:2])
    return np.hypot(column - x, row - y) < radius


@pytest.mark.takes("DICOM labels", "an RT structure set with holes", "taken")
def test_outlines_become_voxels_with_holes(series, tmp_path):
    outlines = {
        "Liver": [ring(14.3, 11.1, 9.2, 1), ring(14.3, 11.1, 4.1, 1), ring(10.1, 9.2, 5.3, 2), ring(21.4, 12, 3.6, 2)],
        "Nothing": [],
    }
    labels, names = read_dicom_labels(save_outlines(tmp_path / "rs.dcm", outlines), series)
    expected = np.zeros(SHAPE, np.int16)
    expected[..., 1] = inside(14.3, 11.1, 9.2) & ~inside(14.3, 11.1, 4.1)
    expected[..., 2] = inside(10.1, 9.2, 5.3) | inside(21.4, 12, 3.6)
    assert names == ("background", "Liver", "Nothing") and np.array_equal(labels.array, expected)
    assert np.allclose(labels.affine, read_dicom(series).affine)


def test_a_hole_cut_by_a_keyhole(series, tmp_path):
    outer, inner = ring(14.3, 11.1, 9.2, 1), ring(14.3, 11.1, 4.1, 1)
    keyhole = np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])
    labels, _ = read_dicom_labels(save_outlines(tmp_path / "rs.dcm", {"Liver": [keyhole]}), series)
    assert np.array_equal(labels.array[..., 1] == 1, inside(14.3, 11.1, 9.2) & ~inside(14.3, 11.1, 4.1))


def test_an_outline_that_reaches_out_of_the_picture_is_cut(series, tmp_path):
    labels, _ = read_dicom_labels(save_outlines(tmp_path / "rs.dcm", {"Body": [ring(2.2, 1.3, 8.6, 0)]}), series)
    assert np.array_equal(labels.array[..., 0] == 1, inside(2.2, 1.3, 8.6))


@pytest.mark.takes("DICOM labels", "structures that overlap: the smaller stays", "taken, and said")
def test_where_structures_overlap_the_smaller_stays_with_a_word(series, tmp_path):
    path = save_outlines(tmp_path / "rs.dcm", {"Spot": [ring(14, 11, 2.5, 1)], "Liver": [ring(14, 11, 8.5, 1)]})
    with pytest.warns(UserWarning, match=r"rs.dcm: Spot and Liver share 21 voxels; they count as Spot"):
        labels, _ = read_dicom_labels(path, series)
    assert np.bincount(labels.array.ravel())[1] == 21
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only, names = read_dicom_labels(path, series, names=("Liver",))
    assert names == ("background", "Liver") and np.array_equal(only.array > 0, labels.array > 0)
    with pytest.raises(ValueError, match="rs.dcm: no structure Spleen; there are Spot, Liver"):
        read_dicom_labels(path, series, names=("Spleen",))


def test_a_structure_that_nobody_asked_for_takes_nothing_from_one_that_is(series, tmp_path):
    path = save_outlines(tmp_path / "rs.dcm", {"GTV": [ring(14, 11, 2.5, 1)], "Liver": [ring(14, 11, 8.5, 1)]})
    case = VolumeCase("a", image_path=series, label_path=path, structures=("liver",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = case.labels().array
    assert np.array_equal(found[..., 1] == 1, inside(14, 11, 8.5))


@pytest.mark.takes("DICOM labels", "slices without an outline between others", "taken, and said")
def test_slices_without_an_outline_are_said(series, tmp_path):
    path = save_outlines(tmp_path / "rs.dcm", {"Liver": [ring(14, 11, 8.5, k) for k in (0, 3)]})
    with pytest.warns(UserWarning, match="rs.dcm: Liver has no outline on 2 slices between its first and its last"):
        labels, _ = read_dicom_labels(path, series)
    assert np.array_equal(labels.array.any(axis=(0, 1)), [True, False, False, True, False])


def test_names_that_mean_two_structures_are_refused(series, tmp_path):
    path = save_outlines(tmp_path / "rs.dcm", {"Liver": [ring(6, 11, 3, 1)], "Spleen": [ring(20, 11, 3, 1)]})
    found = pydicom.dcmread(path)
    found.StructureSetROISequence[1].ROIName = "Liver"
    found.save_as(path)
    with pytest.raises(ValueError, match="rs.dcm: more than one structure is called Liver"):
        read_dicom_labels(path, series, names=("Liver",))
    assert read_dicom_labels(path, series)[1] == ("background", "Liver", "Liver")


def test_points_are_left_out_with_a_word(series, tmp_path):
    path = save_outlines(tmp_path / "rs.dcm", {"Isocentre": [ring(1, 1, 1, 1)[:1]]}, kind="POINT")
    with pytest.warns(UserWarning, match="rs.dcm: Isocentre is left out: POINT encloses nothing"):
        labels, names = read_dicom_labels(path, series)
    assert names == ("background",) and not labels.array.any()


@pytest.mark.takes("DICOM labels", "an outline between or beyond the slices", "refused")
@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (ring(9, 9, 4, 1) + [0, 0, 1.5], "Liver: an outline does not lie on a slice of the image"),
        (ring(9, 9, 4, 1) * [1, 1, 0] + [0, 0, 29], "Liver: an outline lies beyond the first or last slice"),
        (ring(9, 9, 4, 1) + ring(0, 0, 1, 0)[:, [2, 2, 0]] * [0, 0, 1], "Liver: an outline does not lie on a slice"),
        (ring(9, 9, 4, 1)[:2], "rs.dcm.*an outline of 2 points"),
    ],
)
def test_outlines_that_fit_no_slice_are_refused(series, tmp_path, outline, message):
    with pytest.raises(ValueError, match=message):
        read_dicom_labels(save_outlines(tmp_path / "rs.dcm", {"Liver": [outline]}), series)


@pytest.mark.takes("DICOM labels", "a SEG of fractions", "refused")
def test_what_holds_no_structures_is_named(series, tmp_path):
    with pytest.raises(ValueError, match="expected an RT structure set or a DICOM SEG, got CT"):
        read_dicom_labels(series / "000_5.dcm", series)
    with pytest.raises(FileNotFoundError, match="no such labels: .*absent.dcm"):
        read_dicom_labels(tmp_path / "absent.dcm", series)
    path = save_outlines(tmp_path / "rs.dcm", {"Liver": [ring(9, 9, 4, 1)]})
    strange = save_series(tmp_path / "strange", np.zeros(SHAPE, np.int16), rising(5), FrameOfReferenceUID="7.7")
    with pytest.raises(ValueError, match="rs.dcm: drawn in another frame of reference"):
        read_dicom_labels(path, strange)
    fractions = dataset("SegmentationStorage", "1.2.8")
    fractions.Modality, fractions.SegmentationType = "SEG", "FRACTIONAL"
    fractions.save_as(tmp_path / "fractions.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match="fractions.dcm: a SEG of fractions"):
        read_dicom_labels(tmp_path / "fractions.dcm", series)


# --- damage --------------------------------------------------------------------------------------------


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """The content with flipped bits, cut short, or with a few bytes of noise."""
    other = bytearray(content)
    kind, place = draw.integers(3), int(draw.integers(len(content) - 20))
    if kind == 0:
        other[place] ^= 1 << int(draw.integers(8))
    elif kind == 1:
        del other[place:]
    else:
        other[place : place + 8] = draw.bytes(8)
    return bytes(other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["slice", "frames", "outlines", "seg"])
def test_whatever_damage_is_read_or_said_of_the_file(series, tmp_path, kind):
    image = read_dicom(series)
    write_dicom_seg(tmp_path / "seg.dcm", label_map(image), NAMES, series)
    outlines = save_outlines(tmp_path / "outlines.dcm", {"Liver": [ring(14.3, 11.1, 9.2, 1)]})
    frames = save_frames(tmp_path / "frames.dcm", image.array.astype(np.int16), rising(5))
    path, read = {
        "slice": (series / "002_5.dcm", lambda: read_dicom(series)),
        "frames": (frames, lambda: read_dicom(frames)),
        "outlines": (outlines, lambda: read_dicom_labels(outlines, series)[0]),
        "seg": (tmp_path / "seg.dcm", lambda: read_dicom_labels(tmp_path / "seg.dcm", series)[0]),
    }[kind]
    content, draw, said = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(40):
        path.write_bytes(damaged(content, draw))
        try:
            assert read().shape == SHAPE
        except ValueError as error:
            assert str(tmp_path) in str(error)
            said += 1
    assert said > 10

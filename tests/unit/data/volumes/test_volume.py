"""Volumes: every axis convention, every kind of broken file, grids and the way back, real label volumes."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from textdiff.data.volumes.volume import (
    Volume,
    askew,
    check_pair,
    from_grid,
    normalised,
    read_image,
    read_labels,
    to_grid,
    turned,
    widest_planes,
    write_image,
    write_labels,
)

AXES = ("RAS", "LPS", "LAS", "IPL", "SLA")


def oblique(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:2, :2] = [[c, -s], [s, c]]
    return turn


def stored(axes: str, shape=(7, 9, 6), spacing=(1.0, 0.8, 2.5), degrees: float = 0.0) -> Volume:
    """A volume whose voxels hold x + 2y - 3z of their place in the world, kept in the order `axes`."""
    affine = oblique(degrees) @ np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30.0, 12.0, 400.0)
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    array = (world[0] + 2 * world[1] - 3 * world[2]).reshape(shape).astype(np.float32)
    return turned(Volume(array, affine, "ramp"), axes)


def worlds(volume: Volume) -> np.ndarray:
    """World coordinates of all voxels, [3, N]."""
    return volume.affine[:3, :3] @ np.indices(volume.shape).reshape(3, -1) + volume.affine[:3, 3:]


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def grey(shape=(4, 5, 6), dtype=np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


# --- what a volume knows -------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
def test_axes_and_spacing_are_the_arrays_own(axes):
    volume = stored(axes)
    assert volume.axes == axes and volume.voxel_ml == pytest.approx(0.002)
    letters = {"R": 1.0, "L": 1.0, "A": 0.8, "P": 0.8, "S": 2.5, "I": 2.5}
    assert volume.spacing == pytest.approx([letters[axis] for axis in axes])


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((2, 2)), np.eye(4), r"three dimensions.*\(2, 2\)"),
        (np.zeros((2, 2, 2)), np.zeros((4, 4)), "invertible"),
        (np.zeros((2, 2, 2)), np.diag([1e-4, 1, 1e-12, 1]) @ np.ones((4, 4)), "invertible"),
        (np.zeros((2, 2, 2)), np.eye(3), "4x4"),
    ],
)
def test_no_volume_without_three_dimensions_and_a_place(array, affine, message):
    with pytest.raises(ValueError, match=f"scan: .*{message}"):
        Volume(array, affine, "scan")


# --- reading NIfTI -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_images_come_as_float32_whatever_the_file_holds(tmp_path, suffix, dtype):
    volume = read_image(save(tmp_path / f"a{suffix}", grey(dtype=dtype)))
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, grey())


def test_intensity_scaling_of_the_header_is_applied(tmp_path):
    image = nibabel.Nifti1Image(grey(dtype=np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").array.min() == -1024


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_labels_come_as_int16_whatever_the_file_holds(tmp_path, dtype):
    labels = grey(dtype=dtype) + (1e-4 if np.dtype(dtype).kind == "f" else 0)
    volume = read_labels(save(tmp_path / "a.nii.gz", labels.astype(dtype)))
    assert volume.array.dtype == np.int16 and np.array_equal(volume.array, grey(dtype=np.int16))


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    path = save(tmp_path / "a.nii", grey((4, 5, 6, 1)))
    assert read_image(path).shape == read_labels(path).shape == (4, 5, 6)


@pytest.mark.takes("NIfTI", "an image that holds one value throughout", "refused")
def test_labels_may_be_empty_but_images_not(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    assert not read_labels(path).array.any()
    with pytest.raises(ValueError, match="a.nii: every voxel has the same value"):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(
            grey((4, 5)),
            r"shape \(4, 5\): a flat picture",
            marks=pytest.mark.takes("NIfTI", "a flat picture saved as NIfTI", "refused"),
        ),
        pytest.param(
            grey((4, 5, 6, 2)),
            r"shape \(4, 5, 6, 2\): several volumes",
            marks=pytest.mark.takes("NIfTI", "several volumes in one file", "refused"),
        ),
        (grey((4, 5, 1)), r"\(4, 5, 1\) is a single slice; at least 2"),
        pytest.param(
            np.where(grey() == 3, np.nan, grey()),
            "1 of 120 voxels are NaN",
            marks=pytest.mark.takes("NIfTI", "voxels that are NaN", "refused"),
        ),
        (np.where(grey() < 2, np.inf, grey()), "2 of 120 voxels are NaN or infinite"),
        (grey().astype(np.complex64), "complex64"),
    ],
)
def test_bad_voxels_are_named_for_images_and_labels(tmp_path, array, message):
    path = save(tmp_path / "bad.nii.gz", array)
    for read in (read_image, read_labels):
        with pytest.raises(ValueError, match=rf"bad\.nii\.gz.*{message}"):
            read(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(
            grey() + 0.4,
            "whole numbers, but 120 voxels.*0.4",
            marks=pytest.mark.takes("NIfTI", "labels with fractions", "refused"),
        ),
        (grey() - 1, r"0\.\.32767, got -1"),
        (grey() * 1000, r"0\.\.32767, got 0\.\.119000"),
    ],
)
def test_labels_that_are_none(tmp_path, array, message):
    with pytest.raises(ValueError, match=rf"bad\.nii.*{message}"):
        read_labels(save(tmp_path / "bad.nii", array))


def truncate(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.takes("NIfTI", "a file that was copied only in part", "refused")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_truncated_files(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 255, (12, 12, 12)).astype(np.uint8)
    path = truncate(save(tmp_path / f"cut{suffix}", noise), share)
    for read in (read_image, read_labels):
        with pytest.raises(ValueError, match=f"cannot read .*cut{suffix}"):
            read(path)


def test_files_that_are_no_volume(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"<html>not here</html>")
    (tmp_path / "slice.dcm").write_bytes(b"DICM")
    with pytest.raises(ValueError, match="cannot read .*a.nii.gz"):
        read_image(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="slice.dcm: it is no DICOM object"):
        read_image(tmp_path / "slice.dcm")
    with pytest.raises(FileNotFoundError, match="no such volume: .*absent.nii"):
        read_labels(tmp_path / "absent.nii")


def test_a_header_without_orientation_is_said(tmp_path):
    image = nibabel.Nifti1Image(grey(), np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="a.nii: .*left and right may be exchanged"):
        read_image(tmp_path / "a.nii")


def test_a_header_with_a_flat_affine_is_refused(tmp_path):
    image = nibabel.Nifti1Image(grey(), np.eye(4))
    image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nibabel.save(image, tmp_path / "flat.nii")
    with pytest.raises(ValueError, match="flat.nii.*invertible"):
        read_image(tmp_path / "flat.nii")


# --- pairs ---------------------------------------------------------------------------------------------


def moved(volume: Volume, mm: float) -> Volume:
    affine = volume.affine.copy()
    affine[0, 3] += mm
    return Volume(volume.array, affine, volume.name)


def test_pairs_must_lie_on_each_other():
    image = stored("LPS")
    check_pair(image, moved(image, 0.05), "case 1")
    with pytest.raises(ValueError, match=r"case 1: .*shape \(7, 9, 6\) but its labels \(7, 9, 5\)"):
        check_pair(image, Volume(image.array[:, :, :5], image.affine), "case 1")
    with pytest.raises(ValueError, match="case 1: .*up to 0.5 mm apart"):
        check_pair(image, moved(image, 0.5), "case 1")


def test_a_small_error_of_spacing_counts_where_it_adds_up():
    image = Volume(np.zeros((500, 4, 4), np.uint8), np.eye(4))
    wide = Volume(image.array, np.diag([1.001, 1, 1, 1]))
    with pytest.raises(ValueError, match="0.499 mm apart"):
        check_pair(image, wide, "case 1")


# --- grids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("spacing", [None, (1.5, 1.5, 1.5), (0.5, 0.6, 0.7), (2.0, 0.8, 5.0)])
@pytest.mark.parametrize("degrees", [0, 20])
def test_images_keep_their_place_on_any_grid(axes, spacing, degrees):
    """The ramp x + 2y - 3z is read off at the same world places, whatever the order and grid."""
    volume = stored(axes, degrees=degrees)
    grid = to_grid(volume, spacing)
    assert grid.axes == "RAS" and grid.array.dtype == np.float32
    assert grid.spacing == pytest.approx(spacing or (1.0, 0.8, 2.5))
    x, y, z = worlds(grid)
    expected = (x + 2 * y - 3 * z).reshape(grid.shape)
    index = (np.linalg.inv(volume.affine) @ [x, y, z, np.ones_like(x)])[:3].T
    inside = ((index >= 0) & (index <= np.array(volume.shape) - 1)).all(1).reshape(grid.shape)
    assert inside.any()  # beyond the outermost voxel centres values are repeated
    assert np.allclose(grid.array[inside], expected[inside], atol=1e-3)


def ball(axes: str, spacing=(0.8, 0.8, 2.5), radius: float = 14.0) -> Volume:
    volume = stored(axes, (40, 44, 16), spacing)
    centre = worlds(volume).mean(1, keepdims=True)
    away = np.linalg.norm(worlds(volume) - centre, axis=0).reshape(volume.shape)
    return Volume((away < radius).astype(np.int16) * 3, volume.affine, "ball")


@pytest.mark.parametrize("axes", AXES)
def test_labels_keep_volume_and_values_and_come_back(axes):
    labels = ball(axes)
    grid = to_grid(labels, (1.0, 1.0, 1.0), "labels")
    assert grid.array.dtype == np.int16 and set(np.unique(grid.array)) == {0, 3}
    ml = [(v.array > 0).sum() * v.voxel_ml for v in (labels, grid)]
    assert ml[1] == pytest.approx(ml[0], rel=0.03)
    back = from_grid(grid, labels)
    assert back.shape == labels.shape and back.axes == axes and back.array.dtype == np.int16
    assert np.array_equal(back.affine, labels.affine)
    overlap = 2 * ((back.array > 0) & (labels.array > 0)).sum() / ((back.array > 0).sum() + (labels.array > 0).sum())
    assert overlap > 0.96


def test_a_coarser_grid_than_the_volume_still_has_a_voxel():
    assert to_grid(stored("RAS"), (50.0, 50.0, 50.0)).shape == (1, 1, 1)


def test_a_volume_in_other_units_is_refused_before_it_fills_the_memory():
    with pytest.raises(ValueError, match="ct: its voxels of 1000 x 1000 x 1000 mm make it .*units other than mm"):
        to_grid(Volume(np.zeros((9, 9, 9), np.int16), np.diag([1e3, 1e3, 1e3, 1]), "ct"), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, np.inf)])
def test_spacing_must_be_positive(spacing):
    with pytest.raises(ValueError, match=r"three positive numbers \(mm\)"):
        to_grid(stored("RAS"), spacing)
    with pytest.raises(ValueError, match='"image" or "labels", got \'mask\''):
        to_grid(stored("RAS"), None, "mask")


def test_a_grid_made_from_another_volume_is_refused():
    volume = stored("LPS")
    with pytest.raises(ValueError, match="ramp: it reaches beyond the grid"):
        from_grid(to_grid(volume, None), moved(volume, 4.0))


# --- grey values ---------------------------------------------------------------------------------------


def test_a_window_is_clipped_and_scaled():
    values = normalised(np.array([-1000.0, -50.0, 100.0, 250.0, 3000.0]), (-50.0, 250.0))
    assert values.dtype == np.float32 and values == pytest.approx([-1, -1, 0, 1, 1])


def test_mr_has_mean_0_and_deviation_1_without_outliers():
    array = np.random.default_rng(0).normal(900, 200, (20, 20, 20))
    array[0, 0, 0] = 1e6
    values = normalised(array, None)
    assert values.dtype == np.float32 and values.max() < 5
    assert values.mean() == pytest.approx(0, abs=1e-4) and values.std() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(normalised(np.full((2, 2, 2), 7.0), None), np.zeros((2, 2, 2)))


def test_a_window_must_rise():
    with pytest.raises(ValueError, match="lowest < highest"):
        normalised(np.zeros(3), (100.0, -100.0))


def test_planes_are_cut_where_structures_are_widest():
    array = np.zeros((12, 10, 8), np.uint8)
    array[9, 3:5, 2] = 1
    array[9, 3, 1:4] = 2
    array[2, 8, 6] = 2
    assert widest_planes(array) == (9, 3, 2)
    assert widest_planes(np.zeros((12, 10, 8), np.uint8)) == (6, 5, 4)


# --- writing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_written_are_read_back_in_place(tmp_path, axes, suffix):
    labels = ball(axes)
    write_labels(tmp_path / f"a{suffix}", labels)
    back = read_labels(tmp_path / f"a{suffix}")
    assert np.array_equal(back.array, labels.array) and back.axes == axes
    assert np.allclose(back.affine, labels.affine, atol=1e-4)
    header = nibabel.load(tmp_path / f"a{suffix}").header
    assert header.get_data_dtype() == np.uint8 and header.get_xyzt_units()[0] == "mm"
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-4)


def test_simpleitk_sees_the_labels_in_the_same_place(tmp_path):
    """Another reader, with axes of its own, as viewers use it."""
    sitk = pytest.importorskip("SimpleITK")
    labels = ball("IPL")
    write_labels(tmp_path / "a.nii.gz", labels)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    left, back, up = image.TransformIndexToPhysicalPoint((3, 4, 5))
    assert (-left, -back, up) == pytest.approx(tuple((labels.affine @ [3, 4, 5, 1])[:3]), abs=1e-3)


def test_many_labels_take_16_bits_and_the_same_labels_the_same_bytes(tmp_path):
    labels = Volume(grey(dtype=np.int32) * 500, np.eye(4))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, labels)
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint16
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (grey() + 0.5, "whole numbers"),
        (np.full((2, 2, 2), np.nan), "whole numbers"),
        (-grey(dtype=np.int16), "0..65535"),
        (grey(dtype=np.int32) * 1000, "0..65535"),
    ],
)
def test_what_is_no_label_map_is_not_written(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        write_labels(tmp_path / "a.nii.gz", Volume(array, np.eye(4)))
    assert not any(tmp_path.iterdir())


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a.png: volumes are written as .nii.gz or .nii"):
        write_labels(tmp_path / "a.png", ball("RAS"))


@pytest.mark.takes("Output files", "a disk that fills up while a mask is written: the old file stays", "refused")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    write_labels(path, ball("RAS"))
    old = path.read_bytes()

    def full(self, file, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_stream", full)
    with pytest.raises(OSError, match="No space left"):
        write_labels(path, ball("LPS"))
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(grey(dtype=np.int32) - 60, np.int16), (grey() / 7, np.float32), (grey(dtype=np.int32) * 1000, np.float32)],
)
def test_images_written_are_read_back(tmp_path, array, dtype):
    write_image(tmp_path / "a.nii.gz", Volume(array, stored("LPS").affine))
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == dtype
    back = read_image(tmp_path / "a.nii.gz")
    assert np.allclose(back.array, array) and back.axes == "LPS"


# --- real volumes --------------------------------------------------------------------------------------

REAL = {  # file: axes, values
    "KiTS19_labels/case_00061/segmentation.nii.gz": ("IPL", {0, 1, 2}),
    "KiTS19_labels/case_00015/segmentation.nii.gz": ("IPL", {0, 1, 2}),  # uint16
    "AMOS22_labels/amos_0013.nii.gz": ("LAS", set(range(16))),
    "TotalSegmentator_samples/ct_full_3mm/organs/kidney_left.nii.gz": ("RAS", {0, 1}),  # float64
    "TotalSegmentator_samples/mr_small_3mm/seg_multilabel_mr.nii.gz": ("LPS", None),
}


def real(data_root: Path, name: str) -> Path:
    path = data_root / name
    if not path.exists():
        pytest.skip(f"no real volumes: {path} is absent (set TEXTDIFF_DATA)")
    return path


def places(labels: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Volume of every label in ml, and its centre in the world in mm, [K + 1, 3]; background is left out."""
    index = np.nonzero(labels.array)
    values = labels.array[index]
    counts = np.bincount(values)
    with np.errstate(invalid="ignore"):
        centres = np.stack([np.bincount(values, weights=along) / counts for along in index], axis=1)
    return counts * labels.voxel_ml, centres @ labels.affine[:3, :3].T + labels.affine[:3, 3]


@pytest.mark.parametrize("name", REAL)
def test_real_labels_keep_their_volume_and_place(data_root, name):
    labels = read_labels(real(data_root, name))
    axes, values = REAL[name]
    assert labels.axes == axes and labels.array.dtype == np.int16
    grid = to_grid(labels, (2.0, 2.0, 2.0), "labels")
    (ml, centres), (grid_ml, grid_centres) = places(labels), places(grid)
    assert values is None or {0, *np.flatnonzero(ml)} == values
    large = ml > 20  # smaller ones are a few voxels thick
    assert grid.axes == "RAS" and large.any() and grid_ml[large] == pytest.approx(ml[large], rel=0.05)
    assert np.abs(grid_centres[large] - centres[large]).max() < 1.0
    assert from_grid(grid, labels).axes == axes


@pytest.mark.parametrize("name", ["AMOS22_labels/amos_0013", "TotalSegmentator_samples/mr_small_3mm/seg_multilabel_mr"])
def test_liver_and_right_kidney_lie_on_the_right(data_root, name):
    """x grows to the patient's right, before and after the grid; the array index does on the grid only."""
    labels = read_labels(real(data_root, f"{name}.nii.gz"))
    right, left = [2, 6 if "AMOS" in name else 5], [3, 1]  # kidney and liver; kidney and spleen
    grid = to_grid(labels, (3.0, 3.0, 3.0), "labels")
    for volume in (labels, grid, Volume(grid.array, np.diag([3.0, 3.0, 3.0, 1.0]))):  # the last: by index alone
        x = places(volume)[1][:, 0]
        assert x[right].min() > x[left].max() + 50


def test_a_volume_laid_askew_keeps_its_voxels_and_says_where_they_are():
    volume = stored("RAS")
    turned_away = askew(volume, degrees=10, axes="LPS")
    assert turned_away.axes == "LPS" and turned_away.spacing == pytest.approx(volume.spacing)
    assert np.array_equal(turned_away.array, volume.array[::-1, ::-1])
    assert turned_away.affine[0, 1] == pytest.approx(np.sin(np.radians(10)) * volume.spacing[1])

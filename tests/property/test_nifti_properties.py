"""What nibabel and SimpleITK read, the package reads; what it writes lies for both where the image lies."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nifti_files import UNITS, grid_entries, itk_affine, write_header
from scipy.spatial.transform import Rotation

from textdiff.data.volumes.grids import distance
from textdiff.data.volumes.volume import Volume, from_grid, read_image, read_labels, read_place, to_grid, write_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*(are its voxel sizes|left and right)")
IMAGES = st.sampled_from((nibabel.Nifti1Image, nibabel.Nifti2Image))
CODES = st.integers(0, 4)
ANGLES = st.one_of(st.just(0.0), st.sampled_from((90.0, 180.0)), st.floats(-180, 180))


@st.composite
def affines(draw) -> np.ndarray:
    """Any order of axes, flips, an oblique turn, voxels of 0.3 to 12 mm, an origin up to a metre away."""
    order, flips = draw(st.permutations(range(3))), draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
    turn = Rotation.from_euler("xyz", draw(st.tuples(ANGLES, ANGLES, ANGLES)), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.diag(flips))[:, order] * draw(st.tuples(*[st.floats(0.3, 12)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-1000, 1000)] * 3))
    return affine


def grey(shape: tuple[int, int, int], dtype: str = "<i2") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.takes(
    "Output files", "any sform, qform and unit: the mask lies on its image for nibabel and SimpleITK", "taken"
)
@settings(max_examples=500, deadline=None)
@given(
    affine=affines(),
    codes=st.tuples(CODES, CODES),
    unit=st.sampled_from(sorted(UNITS)),
    shape=st.permutations((2, 5, 30)),
    regridded=st.booleans(),
)
def test_a_mask_lies_on_its_image_for_every_reader(affine, codes, unit, shape, regridded):
    sitk = pytest.importorskip("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codes of 0 are said
        path, mask = Path(folder) / "image.nii", Path(folder) / "mask.nii"
        write_header(path, grey(shape), **grid_entries(affine, *codes, unit))
        image = read_image(path)
        if codes[0]:
            assert distance(image.affine, affine, shape) < 1e-3  # the file holds float32
        labels = from_grid(to_grid(image, (3.0, 3.0, 3.0)), image) if regridded else image
        write_labels(mask, Volume(np.ones(shape, np.uint8), image.affine, header=labels.header))
        first, second = nibabel.load(path), nibabel.load(mask)
        assert distance(first.affine, second.affine, shape) * UNITS[unit] < 1e-4
        assert distance(itk_affine(path), itk_affine(mask), shape) < 1e-4
        for name in ("qform_code", "sform_code"):
            assert int(first.header[name]) == int(second.header[name])
        assert second.header.get_xyzt_units()[0] == unit
        assert distance(read_labels(mask).affine, image.affine, shape) < 1e-4


@settings(max_examples=100, deadline=None)
@given(affine=affines(), shape=st.permutations((2, 5, 30)))
def test_a_mask_of_a_volume_without_header_lies_there_too(affine, shape):
    pytest.importorskip("SimpleITK")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii"
        write_labels(path, Volume(np.ones(shape, np.uint8), affine))
        for found in (nibabel.load(path).affine, itk_affine(path), read_labels(path).affine):
            assert distance(found, affine, shape) < 2e-4


@pytest.mark.takes("NIfTI", "numbers of any size and byte order, any scaling, unit and orientation", "taken")
@settings(max_examples=200, deadline=None)
@given(
    image=IMAGES,
    order=st.sampled_from("<>"),
    dtype=st.sampled_from(("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")),
    slope=st.sampled_from((np.nan, 0.0, 1.0, 0.5, -3.0, 1 / 255)),
    inter=st.sampled_from((0.0, 7.0, -1024.0)),
    unit=st.sampled_from(sorted(UNITS)),
    codes=st.tuples(CODES, CODES).filter(any),
    affine=affines(),
    last=st.sampled_from(((), (1,), (1, 1))),
)
def test_the_reader_agrees_with_nibabel(image, order, dtype, slope, inter, unit, codes, affine, last):
    array = grey((3, 4, 5)).astype(dtype).reshape(3, 4, 5, *last)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        entries = grid_entries(affine, *codes, unit, image=image)
        write_header(path, array, image, order, scl_slope=slope, scl_inter=inter, **entries)
        expected, found = nibabel.load(path), read_image(path)
        assert found.array.dtype == np.float32
        assert np.array_equal(found.array, expected.get_fdata(dtype=np.float32).reshape(3, 4, 5))
        scale = np.diag([UNITS[unit]] * 3 + [1])
        assert np.allclose(found.affine, scale @ expected.affine, rtol=1e-9, atol=1e-9)
        place = to_grid(found, None)
        shape, where = read_place(path)
        assert shape == place.shape and np.allclose(where, place.affine)
        values = np.asanyarray(expected.dataobj).reshape(3, 4, 5)
        if values.min() >= 0 and (np.abs(values - np.rint(values)) < 1e-3).all():
            assert np.array_equal(read_labels(path).array, np.rint(values))


@settings(max_examples=150, deadline=None)
@given(first=affines(), second=affines(), codes=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_two_grids_that_differ_are_never_taken_for_one(first, second, codes):
    shape = (4, 5, 6)
    nearest = min(np.linalg.norm(affine[:3, :3], axis=0).min() for affine in (first, second))
    assume(distance(first, second, shape) > 0.11 * nearest)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        entries = grid_entries(second, 0, codes[1]) | {
            name: value for name, value in grid_entries(first, codes[0], 0).items() if name.startswith("s")
        }
        write_header(path, grey(shape), **entries)
        with pytest.raises(ValueError, match=r'a\.nii.*contradicts itself.*trust="sform" or trust="qform"'):
            read_image(path)
        for trust, affine in (("sform", first), ("qform", second)):
            found = read_image(path, trust=trust)
            assert distance(found.affine, affine, shape) < 0.2  # a rounded quaternion
            mask = Path(folder) / "mask.nii"
            write_labels(mask, Volume(np.ones(shape, np.uint8), found.affine, header=found.header))
            for form in ("get_sform", "get_qform"):
                pair = [getattr(nibabel.load(file).header, form)() for file in (path, mask)]
                assert distance(*pair, shape) < 1e-4


@pytest.mark.takes("NRRD, MetaImage", "any orientation and kind of number, compressed or not", "taken")
@settings(max_examples=60, deadline=None)
@given(
    affine=affines(),
    dtype=st.sampled_from(("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")),
    suffix=st.sampled_from((".nrrd", ".nhdr", ".mha", ".mhd")),
    packed=st.booleans(),
)
def test_nrrd_and_metaimage_lie_where_simpleitk_lays_them(affine, dtype, suffix, packed):
    sitk = pytest.importorskip("SimpleITK")
    array = grey((3, 4, 5)).astype(dtype)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        sitk.WriteImage(image, str(path), useCompression=packed)
        found = read_image(path)
        assert np.array_equal(found.array, array) and found.array.dtype == np.float32
        assert distance(found.affine, affine, (3, 4, 5)) < 1e-4
        assert np.allclose(found.affine, itk_affine(path), rtol=1e-9, atol=1e-9)
        assert np.array_equal(read_labels(path).array, array)

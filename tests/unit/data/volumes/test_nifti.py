"""NIfTI files as people have them: damaged ones, headers that contradict themselves, all kinds of voxels, other programs' files."""

from __future__ import annotations

import gzip
import warnings
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import grid_entries, itk_affine, write_header

from textdiff.data.volumes.grids import distance
from textdiff.data.volumes.volume import Volume, read_image, read_labels, read_place, write_labels

SHAPE = (12, 14, 16)
OBLIQUE = np.array([[-1.2, 0.2, 0.3, 80], [0.2, 1.3, -0.4, -90], [-0.3, 0.3, 4.6, 700], [0, 0, 0, 1]])


def turned_affine(spacing: tuple[float, float, float] = (1.3, 0.8, 4.0)) -> np.ndarray:
    """An oblique affine without shear."""
    turn, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = turn * spacing
    return affine


def grey(shape=SHAPE, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 100, shape).astype(dtype)


def labels() -> np.ndarray:
    """Two boxes, which compress well."""
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 3:9, 4:12], array[7:11, 2:5, 3:9] = 1, 2
    return array


def save(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, turned_affine()), path)
    return path


# --- damage --------------------------------------------------------------------------------------------


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A flipped bit, a missing end, a lost piece, two blocks exchanged, or something behind the end."""
    data = bytearray(content)
    first, second = sorted(int(place) for place in rng.integers(0, len(data) - 64, 2))
    kind = rng.integers(8)
    if kind < 4:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == 4:
        del data[int(rng.integers(1, len(data))) :]
    elif kind == 5:
        del data[first : second + 1]
    elif kind == 6:
        data[first : first + 64], data[second : second + 64] = data[second : second + 64], data[first : first + 64]
    else:
        data += rng.integers(1, 255, int(rng.integers(1, 40))).astype(np.uint8).tobytes()
    return bytes(data)


@pytest.mark.parametrize(
    "suffix",
    [
        pytest.param(
            ".nii.gz",
            marks=pytest.mark.takes(
                "NIfTI", "a .nii.gz in which flipped bits or lost pieces would change voxels", "refused"
            ),
        ),
        pytest.param(
            ".mgz",
            marks=pytest.mark.takes(
                "Analyze, MGZ", "an .mgz in which flipped bits or lost pieces would change voxels", "refused"
            ),
        ),
        pytest.param(
            ".nrrd",
            marks=pytest.mark.takes(
                "NRRD, MetaImage",
                "a compressed .nrrd in which flipped bits or lost pieces would change voxels",
                "refused",
            ),
        ),
        ".mha",
    ],
)
@pytest.mark.parametrize("kind", ["image", "labels"])
def test_no_damaged_file_gives_other_voxels(tmp_path, capfd, suffix, kind):
    array, read = (grey(), read_image) if kind == "image" else (labels(), read_labels)
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(len(suffix))
    if suffix == ".mgz":
        nibabel.save(nibabel.MGHImage(array, turned_affine()), path)
    elif suffix == ".nii.gz":
        save(path, array)
    else:
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(array.T), str(path), useCompression=True)
    content, whole, refused = path.read_bytes(), read(path), 0
    warnings.simplefilter("ignore")  # a damaged header of text may leave out where the volume lies
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        try:
            found = read(path)
        except (ValueError, FileNotFoundError) as error:
            assert str(path) in str(error)
            refused += 1
            continue
        assert np.array_equal(found.array, whole.array)
    assert refused > 40 and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda packed: packed[:-8] + bytes(8), "gzip data is truncated or damaged"),
        (lambda packed: packed[:-4] + b"\0\1\0\0", "gzip data is truncated or damaged"),  # the length
        (lambda packed: packed[:-6], "gzip data is truncated or damaged"),
        (lambda packed: packed + b"more", "gzip data is truncated or damaged"),
        (lambda packed: packed + packed, "damaged, or its header is that of another file: it holds"),
        (lambda packed: gzip.compress(gzip.decompress(packed)[:-1]), "truncated: it holds"),
        (lambda packed: gzip.compress(packed), "not a NIfTI file, or its header is damaged"),
    ],
)
def test_the_end_of_a_compressed_file_counts(tmp_path, content, message):
    path = save(tmp_path / "a.nii.gz", grey())
    path.write_bytes(content(path.read_bytes()))
    for read in (read_image, read_labels):
        with pytest.raises(ValueError, match=rf"cannot read .*a\.nii\.gz: .*{message}"):
            read(path)


def test_parts_compressed_one_by_one_are_one_file(tmp_path):
    path = save(tmp_path / "a.nii", grey())
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    assert np.array_equal(read_image(path).array, grey())


@pytest.mark.takes("NIfTI", "a .nii that is a byte too short or too long", "refused")
def test_a_file_of_another_length_than_its_header_says(tmp_path):
    path = save(tmp_path / "a.nii", grey())
    content = path.read_bytes()
    for wrong, message in (
        (content[:-1], "truncated: it holds 5727 bytes .* asks for 5728"),
        (content + b"\0", "5729"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=message):
            read_image(path)


@pytest.mark.takes(
    "NIfTI", "a flipped bit in the header of a .nii that would change its voxels (all but its scaling)", "refused"
)
def test_flipped_bits_of_a_header_are_seen_or_change_nothing(tmp_path):
    """Of the header of a file without checksum every bit; its scaling apart, which may be any number."""
    affine = turned_affine()
    path = write_header(tmp_path / "a.nii", grey(), **grid_entries(affine, 1, 1), scl_slope=np.nan, scl_inter=np.nan)
    content, whole, refused = path.read_bytes(), read_image(path), 0
    places = (*range(4), *range(40, 148), *range(252, 348))  # the others hold remarks
    for byte, bit in product(places, range(8)):
        data = bytearray(content)
        data[byte] ^= 1 << bit
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = read_image(path)
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
                continue
        assert np.array_equal(found.array, whole.array)
        assert said or distance(found.affine, affine, SHAPE) < 0.1 * 0.8
    assert refused > 400


# --- which grid is true --------------------------------------------------------------------------------


def two_grids(path: Path, sform: np.ndarray, qform: np.ndarray, **more) -> Path:
    entries = {name: value for name, value in grid_entries(sform, 2, 0).items() if name.startswith("s")}
    return write_header(path, grey(), **(grid_entries(qform, 0, 1) | entries | more))


def shifted(affine: np.ndarray, voxels: float) -> np.ndarray:
    return affine @ np.array([[1, 0, 0, voxels], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


ACDC = np.diag([1.3, 1.3, 10.0, 1.0])


@pytest.mark.takes("NIfTI", "sform and qform that disagree, and which to trust is said", "taken")
@pytest.mark.parametrize(
    ("sform", "qform", "message"),
    [
        pytest.param(
            np.eye(4),
            ACDC,
            r"voxels of 1 x 1 x 1 mm, axes RAS.*voxels of 1\.3 x 1\.3 x 10 mm, axes RAS",
            marks=pytest.mark.takes("NIfTI", "sform and qform with different voxel sizes", "refused"),
        ),
        pytest.param(
            np.diag([-1.0, 1, 1, 1]),
            np.eye(4),
            "axes LAS.*axes RAS",
            marks=pytest.mark.takes("NIfTI", "sform and qform with left and right exchanged", "refused"),
        ),
        pytest.param(
            shifted(np.diag([-1.0, -1, 1, 1]), 0.5),
            np.diag([-1.0, -1, 1, 1]),
            r"first at \(-0\.5, 0, 0\).*first at \(0, 0, 0\)",
            marks=pytest.mark.takes("NIfTI", "sform and qform half a voxel apart", "refused"),
        ),
        (turned_affine(), np.eye(4), "1.3 x 0.8 x 4 mm.*1 x 1 x 1 mm"),
        (np.full((4, 4), np.nan), np.eye(4), "sform .code 2.: makes no grid; qform"),
        (np.zeros((4, 4)), np.eye(4), "sform .code 2.: makes no grid; qform"),
    ],
)
def test_a_header_with_two_grids_is_refused_until_one_is_chosen(tmp_path, sform, qform, message):
    path = two_grids(tmp_path / "a.nii", sform, qform)
    for read in (read_image, read_labels, read_place):
        with pytest.raises(ValueError, match=rf'a\.nii: .*contradicts itself.*{message}.*trust="sform".*--trust qform'):
            read(path)
    assert np.allclose(read_image(path, trust="qform").affine, qform)
    if np.isfinite(sform).all() and sform.any():
        assert np.allclose(read_labels(path, trust="sform").affine, sform, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="contradicts itself"):
            read_image(path, trust="sform")


@pytest.mark.takes("NIfTI", "voxel sizes (pixdim) unlike those of the sform, and no qform", "refused")
@pytest.mark.parametrize("pixdim", [(1, 1, 1), (0, 0, 0), (-1.3, 0.8, 4), (1.3, 0.8, np.nan)])
def test_voxel_sizes_must_be_those_of_the_sform(tmp_path, pixdim):
    """There is no qform; but programs take the voxel sizes, not the matrix, for the size of a voxel."""
    affine = turned_affine()
    path = write_header(
        tmp_path / "a.nii", grey(), **(grid_entries(affine, 1, 0) | {"pixdim": [1, *pixdim, 0, 0, 0, 0]})
    )
    with pytest.raises(ValueError, match="contradicts itself.*1.3 x 0.8 x 4 mm.*voxel sizes .pixdim .*qform code 0"):
        read_image(path)
    assert np.allclose(read_image(path, trust="sform").affine, affine, atol=1e-4)
    if pixdim == (1, 1, 1):
        assert read_image(path, trust="qform").spacing == pytest.approx((1, 1, 1))


@pytest.mark.takes("NIfTI", "a qform that makes no grid, such as one with voxels of size 0", "refused")
@pytest.mark.parametrize(
    "entries",
    [
        {"pixdim": [1, 0, 1, 1, 0, 0, 0, 0]},
        {"pixdim": [1, -1, 1, 1, 0, 0, 0, 0]},
        {"pixdim": [7, 1, 1, 1, 0, 0, 0, 0]},
        {"quatern_b": 0.9, "quatern_c": 0.9},
        {"qoffset_x": np.nan},
    ],
)
def test_a_qform_that_makes_no_grid(tmp_path, entries):
    path = write_header(tmp_path / "a.nii", grey(), **(grid_entries(np.eye(4), 0, 1) | entries))
    with pytest.raises(ValueError, match=r"a\.nii: qform .code 1, pixdim .*makes no grid"):
        read_image(path)


def test_a_left_handed_qform_and_one_without_hand(tmp_path):
    left = np.diag([1.0, 1.0, -2.0, 1.0])
    path = write_header(tmp_path / "a.nii", grey(), **grid_entries(left, 0, 1))
    assert np.allclose(read_image(path).affine, left)
    entries = grid_entries(np.eye(4), 0, 1) | {"pixdim": [0, 1, 1, 1, 0, 0, 0, 0]}  # 0 is taken for 1
    assert np.allclose(read_image(write_header(tmp_path / "b.nii", grey(), **entries)).affine, np.eye(4))


@pytest.mark.takes("NIfTI", "sform and qform that differ by rounding", "taken")
def test_rounding_is_no_contradiction(tmp_path):
    for degrees in (0.0, 0.02, 1e-4, 90.0):  # close to 180 degrees a quaternion of float32 says least
        turn = np.diag([-1.0, -1.0, 1.0, 1.0]) * 1.0
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        affine = turn @ np.array([[c, -s, 0, 900], [s, c, 0, -999], [0, 0, 1, 1000], [0, 0, 0, 1]])
        array = np.arange(512 * 4).reshape(512, 2, 2).astype(np.int16)
        path = write_header(tmp_path / "a.nii", array, **grid_entries(affine, 1, 1))
        assert np.allclose(read_image(path).affine, affine, atol=1e-4)
    path = two_grids(tmp_path / "b.nii", shifted(np.eye(4), 0.09), np.eye(4))
    assert read_image(path).affine[0, 3] == pytest.approx(0.09)


@pytest.mark.takes("Output files", "the mask of an image whose sform and qform disagree: it carries both", "taken")
def test_a_mask_contradicts_itself_as_its_image_does(tmp_path):
    """So that each program lays it where it lays the image."""
    pytest.importorskip("SimpleITK")
    path, mask = two_grids(tmp_path / "a.nii", turned_affine(), ACDC), tmp_path / "mask.nii"
    for trust in ("sform", "qform"):
        image = read_image(path, trust=trust)
        write_labels(mask, Volume(labels(), image.affine, header=image.header))
        assert distance(nibabel.load(path).affine, nibabel.load(mask).affine, SHAPE) < 1e-4
        assert distance(itk_affine(path), itk_affine(mask), SHAPE) < 1e-4


@pytest.mark.takes("NIfTI", "voxel sizes, but neither sform nor qform", "taken, and said")
def test_a_header_without_place_gives_a_mask_without_place(tmp_path):
    """nibabel and SimpleITK lay such files differently; the mask lies on the image for both."""
    pytest.importorskip("SimpleITK")
    path, mask = tmp_path / "a.nii", tmp_path / "mask.nii"
    write_header(path, grey(), **(grid_entries(ACDC, 0, 0)))
    with pytest.warns(UserWarning, match="left and right may be exchanged"):
        image = read_image(path)
    write_labels(mask, Volume(labels(), image.affine, header=image.header))
    assert nibabel.load(mask).header["sform_code"] == nibabel.load(mask).header["qform_code"] == 0
    assert np.allclose(nibabel.load(path).affine, nibabel.load(mask).affine)
    assert np.allclose(itk_affine(path), itk_affine(mask)) and not np.allclose(itk_affine(mask), image.affine)
    write_header(path, grey(), pixdim=np.zeros(8))
    with pytest.raises(ValueError, match="neither how the volume lies nor how large its voxels are"):
        read_image(path)


def test_another_grid_does_not_take_the_header_along(tmp_path):
    image = read_image(write_header(tmp_path / "a.nii", grey(), **grid_entries(ACDC, 4, 3)))
    write_labels(tmp_path / "m.nii", Volume(labels(), turned_affine(), header=image.header))
    back = nibabel.load(tmp_path / "m.nii")
    assert np.allclose(back.affine, turned_affine(), atol=1e-4) and int(back.header["sform_code"]) == 1


@pytest.mark.takes("NIfTI", "a unit that makes voxels metres long", "refused")
def test_lengths_in_metres_and_micrometres(tmp_path):
    for unit in ("meter", "micron", "unknown"):
        path = write_header(tmp_path / "a.nii", grey(), **grid_entries(ACDC, 1, 1, unit))
        assert read_image(path).spacing == pytest.approx((1.3, 1.3, 10))
    entries = grid_entries(ACDC, 1, 1) | {"xyzt_units": 1}
    with pytest.raises(
        ValueError, match=r"long, with voxels of 1300 x 1300 x 1e\+04 mm; its voxel sizes or their unit"
    ):
        read_image(write_header(tmp_path / "a.nii", grey(), **entries))
    with pytest.warns(UserWarning, match="0.16 mm long.*are its voxel sizes and their unit right"):
        read_image(write_header(tmp_path / "a.nii", grey(), **(entries | {"xyzt_units": 3})))
    with pytest.raises(ValueError, match="header is damaged .unit 5"):
        read_image(write_header(tmp_path / "a.nii", grey(), **(entries | {"xyzt_units": 5})))


@pytest.mark.takes("NIfTI", "axes that meet askew (a sheared sform)", "taken, and said")
def test_axes_that_meet_askew_are_said(tmp_path):
    sheared = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    path = write_header(tmp_path / "a.nii", grey(), **grid_entries(sheared, 1, 0))
    with pytest.warns(UserWarning, match="axes meet at 78.7 degrees"):
        image = read_image(path)
    assert image.voxel_ml == pytest.approx(0.002) and np.allclose(image.affine, sheared)
    write_labels(tmp_path / "m.nii", Volume(labels(), sheared))
    back = nibabel.load(tmp_path / "m.nii")
    assert np.allclose(back.affine, sheared) and int(back.header["qform_code"]) == 0
    assert np.allclose(back.header["pixdim"][1:4], image.spacing)


def test_trust_is_one_of_two_words(tmp_path):
    with pytest.raises(ValueError, match='"sform" or "qform", or empty, got \'both\''):
        read_image(save(tmp_path / "a.nii", grey()), trust="both")
    with pytest.raises(ValueError, match="no DICOM folder: it has no series '2'"):
        read_image(tmp_path / "a.nii", series="2")


# --- kinds of files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.NII", "a.NII.GZ", "packed.nii", "plain.nii.gz"])
def test_the_content_says_whether_it_is_compressed(tmp_path, name):
    content = save(tmp_path / "x.nii", grey()).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name in ("a.NII.GZ", "packed.nii") else content)
    assert np.array_equal(read_image(tmp_path / name).array, grey())


@pytest.mark.takes("NIfTI", "header and voxels in two files (.hdr and .img)", "taken")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz")])
def test_header_and_voxels_in_two_files(tmp_path, kind, suffixes):
    image = kind(grey(), turned_affine())
    image.to_file_map(
        {
            "header": nibabel.FileHolder(tmp_path / f"a{suffixes[0]}"),
            "image": nibabel.FileHolder(tmp_path / f"a{suffixes[1]}"),
        }
    )
    for suffix in suffixes:
        found = read_image(tmp_path / f"a{suffix}")
        assert np.array_equal(found.array, grey()) and np.allclose(found.affine, turned_affine(), atol=1e-4)
    write_labels(tmp_path / "mask.nii", Volume(labels(), found.affine, header=found.header))
    assert np.allclose(nibabel.load(tmp_path / "mask.nii").affine, turned_affine(), atol=1e-4)
    (tmp_path / f"a{suffixes[0]}").write_bytes((tmp_path / "mask.nii").read_bytes()[:200])
    with pytest.raises(ValueError, match="its header is damaged"):
        read_image(tmp_path / f"a{suffixes[1]}")
    (tmp_path / f"a{suffixes[1]}").unlink()
    with pytest.raises(FileNotFoundError, match=r"its voxels should lie beside it in a\.img"):
        read_image(tmp_path / f"a{suffixes[0]}")


@pytest.mark.takes("Analyze, MGZ", "an Analyze file, which does not tell left from right", "taken, and said")
def test_analyze_does_not_know_left_from_right(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(grey(), np.diag([-2.0, 2, 3, 1])), tmp_path / "a.img")
    with pytest.warns(UserWarning, match="a.hdr: an Analyze file does not say .* left and right may be exchanged"):
        found = read_image(tmp_path / "a.hdr")
    expected = nibabel.load(tmp_path / "a.img")
    assert np.array_equal(found.array, expected.get_fdata()) and np.allclose(found.affine, expected.affine)
    write_labels(tmp_path / "mask.nii", Volume(labels(), found.affine, header=found.header))
    assert np.allclose(nibabel.load(tmp_path / "mask.nii").affine, expected.affine)
    pytest.importorskip("SimpleITK")
    assert np.allclose(itk_affine(tmp_path / "mask.nii"), itk_affine(tmp_path / "a.hdr"))


@pytest.mark.takes("Analyze, MGZ", "an Analyze file with SPM's .mat beside it", "taken")
def test_a_matrix_of_spm_beside_analyze_says_it(tmp_path):
    image = nibabel.Spm99AnalyzeImage(grey(), turned_affine())
    nibabel.save(image, tmp_path / "a.img")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(read_image(tmp_path / "a.img").affine, turned_affine(), atol=1e-4)
    (tmp_path / "a.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match="the .mat file beside it, is damaged"):
        read_image(tmp_path / "a.img")


@pytest.mark.takes("NIfTI", "voxels that are colours or complex numbers", "refused")
@pytest.mark.parametrize(
    ("dtype", "name"),
    [([("R", "u1"), ("G", "u1"), ("B", "u1")], "RGB"), ("c8", "complex64"), ("c16", "complex128")],
)
def test_voxels_that_are_no_numbers(tmp_path, dtype, name):
    path = write_header(tmp_path / "a.nii", np.zeros(SHAPE, dtype), **grid_entries(ACDC, 1, 1))
    for read in (read_image, read_labels):
        with pytest.raises(ValueError, match=f"a.nii: voxels are {name}, expected plain numbers"):
            read(path)


def test_numbers_beyond_float32_are_infinite(tmp_path):
    array = grey(dtype=np.float64)
    array[0, 0, 0] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="1 of 2688 voxels are NaN or infinite"):
            read_image(save(tmp_path / "a.nii", array))


def test_scaling_that_cannot_be(tmp_path):
    for entries in ({"scl_slope": np.inf}, {"scl_slope": 2.0, "scl_inter": np.nan}):
        path = write_header(tmp_path / "a.nii", grey(), **grid_entries(ACDC, 1, 1), **entries)
        with pytest.raises(ValueError, match="its header is damaged"):
            read_image(path)


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "<u8", ">f4"])
def test_labels_of_any_whole_type(tmp_path, dtype):
    array = labels().astype(dtype)
    path = write_header(tmp_path / "a.nii", array, order=dtype[0], **grid_entries(ACDC, 1, 1))
    assert np.array_equal(read_labels(path).array, labels())
    array[0, 0, 0] = 2**40
    path = write_header(tmp_path / "a.nii", array, order=dtype[0], **grid_entries(ACDC, 1, 1))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.32767"):
        read_labels(path)


@pytest.mark.takes("Analyze, MGZ", "FreeSurfer's .mgz, as image and as labels", "taken")
@pytest.mark.takes("Analyze, MGZ", "an .mgh that says that its place is not to be believed", "refused")
def test_freesurfers_volumes(tmp_path):
    nibabel.save(nibabel.MGHImage(grey(dtype=np.uint8), turned_affine()), tmp_path / "a.mgz")
    found = read_image(tmp_path / "a.mgz")
    assert np.array_equal(found.array, grey()) and np.allclose(found.affine, turned_affine(), atol=1e-3)
    assert np.array_equal(read_labels(tmp_path / "a.mgz").array, grey())
    content = bytearray(gzip.decompress((tmp_path / "a.mgz").read_bytes()))
    content[28:30] = b"\0\0"  # says that sizes and place are not to be believed
    (tmp_path / "b.mgh").write_bytes(content)
    with pytest.raises(ValueError, match="neither how the volume lies nor how large its voxels are"):
        read_image(tmp_path / "b.mgh")


@pytest.mark.takes("NIfTI", "a file of another kind (.PAR, .BRIK, .mnc, .npy, .zip)", "refused")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "that is a picture.*--image"),
        ("a.nii.bz2", "unpack it first"),
        ("a.zip", "unpack it first"),
        ("a.PAR", "dcm2niix"),
        ("a+orig.BRIK.gz", "3dAFNItoNIFTI"),
        ("a.mnc", "mnc2nii"),
        ("a.npy", "voxel sizes"),
        ("a.tif", "voxel sizes"),
        ("a.txt", r"expected a NIfTI file.*\.nrrd.*\.mgz.*or a folder with one DICOM series"),
    ],
)
def test_what_to_do_with_other_files(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / name)


SAMPLES = Path(nibabel.__file__).parent / "tests" / "data"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="this nibabel came without its sample files")
def test_every_sample_of_nibabel_is_read_as_nibabel_reads_it_or_refused_in_one_line(capfd):
    files = [path for path in sorted(SAMPLES.iterdir()) if path.is_file() and path.suffix != ".dcm"]
    read = 0
    for path in files:
        try:
            found = read_image(path)
        except (ValueError, FileNotFoundError) as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 400
            continue
        expected = nibabel.load(path)
        assert np.array_equal(found.array, expected.get_fdata(dtype=np.float32)) and np.allclose(
            found.affine, expected.affine
        )
        read += 1
    assert read >= 3 and capfd.readouterr() == ("", "")


def test_no_real_header_contradicts_itself(data_root):
    files = sorted(
        path
        for task in ("Task04_Hippocampus", "TotalSegmentator_samples")
        for path in (data_root / task).rglob("[!.]*.nii.gz")
    )
    if not files:
        pytest.skip(f"no real volumes below {data_root} (set TEXTDIFF_DATA)")
    for path in files:
        shape, affine = read_place(path)
        assert min(shape) > 1 and nibabel.aff2axcodes(affine) == ("R", "A", "S")

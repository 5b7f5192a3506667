"""NRRD and MetaImage: headers that leave something out, several files, data that is not what the header says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from textdiff.data.volumes.volume import read_image, read_labels

sitk = pytest.importorskip("SimpleITK")
ARRAY = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)


def save(path: Path, packed: bool = False, array: np.ndarray = ARRAY) -> Path:
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing((2.0, 3.0, 4.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def edited(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.takes("NRRD, MetaImage", "header and voxels in one file or two (.nrrd, .nhdr, .mha, .mhd)", "taken")
@pytest.mark.parametrize("suffix", [".nrrd", ".NHDR", ".mha", ".mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_and_place(tmp_path, capfd, suffix, packed):
    path = save(tmp_path / f"a{suffix.lower()}", packed).rename(tmp_path / f"a{suffix}")
    found = read_image(path)
    assert np.array_equal(found.array, ARRAY) and found.array.dtype == np.float32
    assert found.axes == "LPS" and found.spacing == pytest.approx((2, 3, 4))
    assert found.affine[:3, 3] == pytest.approx((-10, -20, 30))
    assert read_labels(path).array.dtype == np.int16 and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_big_end_first(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")
    content = path.read_bytes()
    voxels = ARRAY.astype(">i2").tobytes(order="F")
    content = content[: -len(voxels)].replace(b"endian: little", b"endian: big")
    path.write_bytes(content.replace(b"OrderMSB = False", b"OrderMSB = True") + voxels)
    assert np.array_equal(read_image(path).array, ARRAY)


@pytest.mark.parametrize(
    ("space", "axes"),
    [(b"right-anterior-superior", "RAS"), (b"RAS", "RAS"), (b"left-anterior-superior", "LAS"), (b"LPS", "LPS")],
)
def test_the_spaces_of_nrrd(tmp_path, space, axes):
    found = read_image(edited(save(tmp_path / "a.nrrd"), b"left-posterior-superior", space))
    assert found.axes == axes


def test_notes_of_the_writer_are_no_fields_of_nrrd(tmp_path):
    noted = b"space: left-posterior-superior\nunits:=HU\ndata file:=orig.raw\n"
    found = read_image(edited(save(tmp_path / "a.nrrd"), b"space: left-posterior-superior\n", noted))
    assert np.array_equal(found.array, ARRAY)


@pytest.mark.takes("NRRD, MetaImage", "a header that does not say where left and right are", "taken, and said")
@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".nrrd", b"space: left-posterior-superior\n", b"space dimension: 3\n"),
        (".mha", b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b""),
    ],
)
def test_a_header_without_orientation_is_said(tmp_path, suffix, old, new):
    with pytest.warns(UserWarning, match="left and right may be exchanged"):
        read_image(edited(save(tmp_path / f"a{suffix}"), old, new))


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        pytest.param(
            ".nrrd",
            b"space directions: (2,0,0) (0,3,0) (0,0,4)\n",
            b"",
            "how large the voxels are",
            marks=pytest.mark.takes("NRRD, MetaImage", "a .nrrd without voxel sizes", "refused"),
        ),
        (".nrrd", b"NRRD0004", b"NRXD0004", "not a NRRD file"),
        pytest.param(
            ".nrrd",
            b"encoding: raw",
            b"encoding: ascii",
            "its encoding is ascii; save it as raw or gzip",
            marks=pytest.mark.takes("NRRD, MetaImage", "a .nrrd with voxels written as text", "refused"),
        ),
        (".nrrd", b"encoding: raw", b"encoding: gzip", "gzip data is truncated or damaged"),
        (".nrrd", b"encoding: raw", b"encoding: raw\nbyte skip: 4", "asks to skip part of the data"),
        pytest.param(
            ".nrrd",
            b"encoding: raw",
            b'encoding: raw\nspace units: "um" "um" "um"',
            "lengths are in um; save it with .* mm",
            marks=pytest.mark.takes("NRRD, MetaImage", "a .nrrd with lengths in micrometres", "refused"),
        ),
        pytest.param(
            ".nrrd",
            b"sizes: 4 5 6",
            b"sizes: 4 5 7",
            "holds 240 bytes of voxels where its header asks for 280",
            marks=pytest.mark.takes("NRRD, MetaImage", "a .nrrd with fewer voxels than its header asks for", "refused"),
        ),
        (".nrrd", b"sizes: 4 5 6", b"sizes: 4 5 5", "holds 240 bytes of voxels where its header asks for 200"),
        (".nrrd", b"type: short", b"type: nothing", "does not understand its header"),
        (".mha", b"ElementSpacing = 2 3 4\n", b"", "how large the voxels are"),
        (".mha", b"ElementDataFile", b"ElementFile", "not a MetaImage"),
        # These ended the process, inside ITK
        (".mha", b"NDims = 3", b"NDims = = 416", "NDims = '= 416', expected 2, 3 or 4"),
        (".mha", b"NDims = 3", b"NDims = 99999999", "NDims = '99999999'"),
        (".mha", b"TransformMatrix = 1 0 0", b"TransformMatrix = 1 0 X", "transformmatrix .* should be 9 numbers"),
        (".mha", b"Offset =", b"Offset = 1", "offset in its header should be 3 numbers"),
        (
            ".mha",
            b"DimSize = 4 5 6",
            b"DimSize = 4 5 6\nDimSize = 4 5 6",
            "dimsize in its header should be 3 numbers, once",
        ),
        (".mha", b"BinaryData = True", b"BinaryData = False", "written as text"),
        (".mha", b"CompressedData = False", b"CompressedData = True", "compressed data is damaged"),
        (".mha", b"DimSize = 4 5 6", b"DimSize = 4 5 7", "holds 240 bytes of voxels where its header asks for 280"),
        (".mha", b"ElementDataFile = LOCAL", b"HeaderSize = 8\nElementDataFile = LOCAL", "asks to skip"),
        (".mha", b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "spread over several files"),
    ],
)
def test_headers_that_cannot_be_followed(tmp_path, capfd, suffix, old, new, message):
    path = edited(save(tmp_path / f"a{suffix}"), old, new)
    with pytest.raises(ValueError, match=rf"a{suffix}: .*{message}") as error:
        read_image(path)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


@pytest.mark.takes("NRRD, MetaImage", "a .nhdr or .mhd without its file of voxels", "refused")
def test_a_missing_file_of_voxels_is_named(tmp_path):
    for suffix in (".nhdr", ".mhd"):
        path = save(tmp_path / f"a{suffix}")
        (tmp_path / "a.raw").unlink()
        with pytest.raises(FileNotFoundError, match=rf"a{suffix}: its voxels should lie in .*a\.raw"):
            read_image(path)


@pytest.mark.takes("NRRD, MetaImage", "colours, or several volumes in one file", "refused")
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_colours_and_several_volumes(tmp_path, suffix):
    colour = sitk.GetImageFromArray(np.zeros((6, 5, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / f"c{suffix}"))
    with pytest.raises(ValueError, match="expected plain numbers .* one a voxel"):
        read_image(tmp_path / f"c{suffix}")
    for count in (1, 2):
        sitk.WriteImage(
            sitk.GetImageFromArray(np.stack([ARRAY.T] * count), isVector=False), str(tmp_path / f"t{suffix}")
        )
        if count == 1:
            assert np.array_equal(read_image(tmp_path / f"t{suffix}").array, ARRAY)
            continue
        with pytest.raises(ValueError, match=r"\(4, 5, 6, 2\): several volumes"):
            read_image(tmp_path / f"t{suffix}")


def test_without_simpleitk_the_extra_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nrrd")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r'a\.nrrd: reading \.nrrd needs SimpleITK; pip install "textdiff\[dicom\]"'):
        read_image(path)

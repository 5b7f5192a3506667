"""Volumes from strangers: a header is believed only as far as memory and the folder reach."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest

from textdiff.base.limits import TooLargeError
from textdiff.data.volumes.volume import read_image, read_labels

ARRAY = np.random.default_rng(0).integers(0, 99, (6, 5, 4)).astype(np.int16)
META = "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n{}ElementDataFile = {}\n"
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {}\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: {}\n{}\n"
)


@contextmanager
def little() -> Iterator[None]:
    """What is allocated within stays below 100 MB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10**8


def nifti(shape: tuple[int, ...] = ARRAY.shape, behind: bytes = b"") -> bytes:
    """A NIfTI file with another shape in its header, and with more behind it."""
    image = nibabel.Nifti1Image(ARRAY, np.eye(4))
    content = bytearray(image.to_bytes())
    content[42:48] = np.array(shape, "<i2").tobytes()
    return bytes(content) + behind


@pytest.mark.takes("NIfTI", "a header that announces more than memory holds", "refused")
@pytest.mark.parametrize("read", [read_image, read_labels])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_of_eight_gigabytes(tmp_path, read, name):
    content = nifti((2000, 2000, 1000))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with (
        little(),
        pytest.raises(TooLargeError, match=rf"{name}: 2000 x 2000 x 1000 voxels would take \d+ GB of memory"),
    ):
        read(tmp_path / name)


@pytest.mark.takes("NIfTI", "compressed voxels that go on behind those of the header", "refused")
def test_a_packed_file_that_goes_on_behind_its_header(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(behind=bytes(3 * 10**8)), 1))
    with (
        little(),
        pytest.raises(ValueError, match=r"a.nii.gz: .* holds more than 592 bytes where its header asks for 592"),
    ):
        read_image(tmp_path / "a.nii.gz")


def test_a_million_little_parts_are_unpacked_in_time(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti()) + gzip.compress(b"") * 20_000)
    assert read_image(tmp_path / "a.nii.gz").shape == ARRAY.shape


@pytest.mark.parametrize("kind", ["mgz", "nrrd", "mha"])
def test_other_formats_that_unpack_without_end(tmp_path, monkeypatch, kind):
    if kind != "mgz":
        pytest.importorskip("SimpleITK")
    path, much = tmp_path / f"a.{kind}", bytes(3 * 10**7)
    contents = {
        "mgz": gzip.compress(nibabel.MGHImage(ARRAY, np.eye(4)).to_bytes() + much),
        "nrrd": NRRD.format("6 5 4", "gzip", "").encode() + gzip.compress(much),
        "mha": META.format("6 5 4", "BinaryData = True\nCompressedData = True\n", "LOCAL").encode()
        + zlib.compress(much),
    }
    path.write_bytes(contents[kind])
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.02")
    with little(), pytest.raises(TooLargeError, match=rf"a.{kind}: (its content|what it is unpacked to) would take"):
        read_image(path)


@pytest.mark.takes("NRRD, MetaImage", "one that takes its voxels from another folder", "refused")
@pytest.mark.parametrize("where", ["../other.raw", "{}/other.raw", "sub/../../other.raw"])
def test_a_header_does_not_choose_any_file_of_the_machine(tmp_path, where):
    pytest.importorskip("SimpleITK")
    (tmp_path / "other.raw").write_bytes(ARRAY.tobytes())
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    where = where.format(tmp_path)
    (folder / "a.mhd").write_text(META.format("6 5 4", "", where))
    (folder / "a.nhdr").write_text(NRRD.format("6 5 4", "raw", f"data file: {where}\n"))
    for name in ("a.mhd", "a.nhdr"):
        with (
            little(),
            pytest.raises(
                ValueError, match=rf"{name}: its header takes its voxels from .*other.raw; they must lie beside"
            ),
        ):
            read_image(folder / name)

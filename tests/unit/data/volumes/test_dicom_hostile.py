"""DICOM from strangers: what a header announces is held against what lies in the file, before anything is allocated."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import decimal, rising, save_frames, save_series

from textdiff.base.limits import TooLargeError
from textdiff.data.volumes.dicom import read_dicom

pydicom = pytest.importorskip("pydicom")
ARRAY = np.random.default_rng(0).integers(0, 3000, (7, 5, 6)).astype(np.int16)
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
SHAPES = [(200, 7), (5, 200), (6, 7), (4, 7), (1, 7), (5, 1), (5, 8), (7, 5), (35, 1)]


def shaped(made, rows: int, columns: int) -> None:
    made.Rows, made.Columns = rows, columns


@pytest.mark.takes("DICOM", "fewer or more voxels in a file than its header announces", "refused")
@pytest.mark.parametrize("shape", SHAPES[:7])
@pytest.mark.parametrize("which", [0, 3, None])
def test_another_size_than_the_header_says(tmp_path, shape, which):
    def change(k, made):
        if which in (None, k):
            shaped(made, *shape)

    with pytest.raises(
        ValueError, match=r"header announces \d+ bytes of pixel data, and 70 are there|Rows is|Columns is"
    ):
        read_dicom(save_series(tmp_path / "s", ARRAY, rising(6), change=change))


@pytest.mark.parametrize("shape", SHAPES[:7])
def test_another_size_of_frames(tmp_path, shape):
    with pytest.raises(ValueError, match=r"f.dcm: its header announces \d+ bytes of pixel data, and 420 are there"):
        read_dicom(save_frames(tmp_path / "f.dcm", ARRAY, rising(6), change=lambda made: shaped(made, *shape)))


def recompressed(folder: Path, sample: str, rows: int, columns: int, exchanged: tuple[int, ...] = (0, 1)) -> Path:
    """Two slices with the compressed voxels of one of pydicom's samples, and another size in the header."""
    folder.mkdir()
    for k in (0, 1):
        made = pydicom.dcmread(SAMPLES / sample)
        made.SOPInstanceUID, made.SeriesInstanceUID, made.InstanceNumber = f"1.2.{k}", "1.2.9", k + 1
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.SOPClassUID, made.Modality, made.PixelSpacing = pydicom.uid.MRImageStorage, "MR", ["1", "1"]
        made.ImagePositionPatient = decimal([0, 0, 3 * k])
        made.ImageOrientationPatient = decimal([1, 0, 0, 0, 1, 0])
        if k in exchanged:
            shaped(made, rows, columns)
        made.save_as(folder / f"{k}.dcm")
    return folder


@pytest.mark.parametrize(
    ("sample", "size"),
    [
        ("JPEG-lossy.dcm", (1024, 256)),
        ("JPEGLSNearLossless_16.dcm", (50, 10)),
        ("MR_small_jp2klossless.dcm", (64, 64)),
        ("MR_small_RLE.dcm", (64, 64)),
    ],
)
def test_another_size_than_that_of_the_compressed_picture(tmp_path, sample, size):
    rows, columns = size
    assert read_dicom(recompressed(tmp_path / "right", sample, rows, columns)).shape == (columns, rows, 2)
    wrong = [(2 * rows, columns), (rows, 2 * columns), (rows // 2, columns), (1, columns)]
    if "RLE" not in sample:  # which says how many voxels, and not in how many rows
        wrong += [(2 * rows, columns // 2)] + [(columns, rows)] * (rows != columns)
    for number, (height, width) in enumerate(wrong):
        folder = recompressed(tmp_path / f"{number}", sample, height, width)
        with pytest.raises(ValueError, match=r"0.dcm: .*(header announces|its header|unable to decode|Unable)"):
            read_dicom(folder)


def test_fewer_compressed_pictures_than_frames(tmp_path):
    from pydicom.encaps import encapsulate, generate_frames

    def change(made):
        made.compress(pydicom.uid.RLELossless)
        made.PixelData = encapsulate(list(generate_frames(made.PixelData, number_of_frames=6))[:4])

    with pytest.raises(ValueError, match="f.dcm: its header announces 6 pictures, and 4 are in its pixel data"):
        read_dicom(save_frames(tmp_path / "f.dcm", ARRAY, rising(6), change=change))


@pytest.mark.parametrize("which", range(6))
def test_one_slice_with_exchanged_axes_is_refused(tmp_path, which):
    def change(k, made):
        if k == which:
            made.ImageOrientationPatient = decimal([0, 1, 0, 1, 0, 0])

    with pytest.raises(ValueError, match="ImageOrientationPatient is .* of the same series"):
        read_dicom(save_series(tmp_path / "s", ARRAY[:5], rising(6), change=change))


def test_a_header_of_eight_gigabytes(tmp_path):
    folder = save_series(tmp_path / "s", ARRAY, rising(6), change=lambda k, made: shaped(made, 65535, 60000))
    with pytest.raises(TooLargeError, match=r"s: a series of 6 x 65535 x 60000 voxels would take 94.4 GB"):
        read_dicom(folder)


def test_a_length_of_four_gigabytes_allocates_nothing(tmp_path):
    folder = save_series(tmp_path / "s", ARRAY, rising(6))
    file = next(folder.iterdir())
    content = file.read_bytes()
    place = content.index(b"\xe0\x7f\x10\x00OW") + 8
    file.write_bytes(content[:place] + b"\xf0\xff\xff\xff" + content[place + 4 :])
    tracemalloc.start()
    try:
        read_dicom(folder)
    except ValueError as error:
        assert str(file) in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**8


def test_a_deflated_file_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.001")
    made = pydicom.dcmread(next(save_series(tmp_path / "s", ARRAY, rising(6)).iterdir()))
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, made.file_meta)
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path = tmp_path / "d.dcm"
    path.write_bytes(bytes(128) + b"DICM" + buffer.getvalue() + packing.compress(bytes(10**7)) + packing.flush())
    with pytest.raises(TooLargeError, match="d.dcm: its deflated content would take .*TEXTDIFF_MAX_FILE_GB"):
        read_dicom(path)

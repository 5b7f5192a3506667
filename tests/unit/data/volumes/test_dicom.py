"""DICOM: many series and files, frames, compression, and every way in which slices do not fit together."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, dataset, decimal, picture, rising, save_frames, save_outlines, save_series

from textdiff.data.volumes.dicom import is_dicom, read_dicom
from textdiff.data.volumes.volume import check_pair, read_image, read_labels, turned

pydicom = pytest.importorskip("pydicom")
SAMPLES = Path(pydicom.__file__).parent / "data"


def grey(shape=(7, 5, 6), low: int = 0, high: int = 3000, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


@pytest.fixture
def series(tmp_path):
    """Saves six slices of a CT with changes in "series"; returns the folder."""

    def save(positions=None, **options) -> Path:
        positions = positions or rising(6)
        return save_series(tmp_path / "series", grey((7, 5, len(positions))), positions, **options)

    return save


def put(keyword: str, value, at: int | None = None):
    """A change that sets a tag (None: takes it away) in slice `at`, by default in all."""

    def change(k: int, made) -> None:
        if at in (None, k):
            if value is None:
                delattr(made, keyword)
            else:
                setattr(made, keyword, value)

    return change


# --- where the slices lie ------------------------------------------------------------------------------


@pytest.mark.takes("DICOM", "a folder with one series", "taken")
def test_a_series_lies_where_its_slices_say(series):
    volume = read_image(series())
    assert volume.axes == "LPS" and volume.spacing == pytest.approx((0.5, 0.7, 3.0))
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, grey() - 1024)
    # DICOM's (-10, 20, 5) is 10 mm to the patient's right and 20 mm to the back
    assert volume.affine[:3, 3] == pytest.approx((10.0, -20.0, 5.0))


@pytest.mark.takes("DICOM", "slices metres apart", "refused")
def test_a_series_longer_than_any_patient_is_refused(series):
    """As of the other formats: lengths in another unit than mm."""
    with pytest.raises(ValueError, match="long, with voxels of .*its voxel sizes or their unit are wrong"):
        read_dicom(series([(-10.0, 20.0, 3000.0 * k) for k in range(6)]))


@pytest.mark.takes("DICOM", "slices that lie closer than they are thick", "taken")
def test_positions_count_not_the_thickness_of_slices(series):
    folder = series(
        change=lambda k, made: [put("SliceThickness", "9")(k, made), put("SpacingBetweenSlices", "8")(k, made)]
    )
    assert read_dicom(folder).spacing == pytest.approx((0.5, 0.7, 3.0))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        pytest.param(
            [p for k, p in enumerate(rising(6)) if k != 3],
            "not evenly spaced.*3.00 to 6.00 mm",
            marks=pytest.mark.takes("DICOM", "a missing slice", "refused"),
        ),
        pytest.param(
            [(-10.0, 20.0 + k, 5.0 + 3 * k) for k in range(5)],
            "tilted",
            marks=pytest.mark.takes("DICOM", "a tilted gantry", "refused"),
        ),
        (rising(1), r"one slice \(CT Image\); at least 2"),
        ([*rising(3), rising(3)[1]], "several pictures of one place.*InstanceNumber 2 and 4"),
    ],
)
def test_slices_that_make_no_grid(series, positions, message):
    with pytest.raises(ValueError, match=f"series.*{message}"):
        read_image(series(positions))


TURNED = decimal([[1, 0, 0], [0, 0, -1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            put("PixelSpacing", None),
            "PixelSpacing is missing",
            marks=pytest.mark.takes("DICOM", "no pixel spacing", "refused"),
        ),
        (
            lambda k, made: [put("PixelSpacing", None)(k, made), put("ImagerPixelSpacing", ["1", "1"])(k, made)],
            "detector",
        ),
        (put("PixelSpacing", ""), "PixelSpacing is missing"),
        (put("PixelSpacing", ["0.7", "0"]), "must be positive"),
        pytest.param(
            put("PixelSpacing", ["0.6", "0.5"], 3),
            "PixelSpacing is 0.6, 0.5, but 0.7, 0.5 in",
            marks=pytest.mark.takes("DICOM", "one slice with another pixel spacing", "refused"),
        ),
        pytest.param(
            put("ImagePositionPatient", None, 2),
            "ImagePositionPatient is missing",
            marks=pytest.mark.takes("DICOM", "one slice without a position", "refused"),
        ),
        (put("ImageOrientationPatient", None), "ImageOrientationPatient is missing"),
        (put("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]), "no pair of directions at a right angle"),
        (put("ImageOrientationPatient", TURNED, 4), "ImageOrientationPatient is 1, 0, 0, 0, 0, -1, but"),
        (put("FrameOfReferenceUID", "9.9", 1), "FrameOfReferenceUID is 9.9"),
        (put("PatientID", "p2", 5), "PatientID is p2, but p1"),
        (put("RescaleSlope", None, 2), "RescaleSlope None and RescaleIntercept -1024 give no"),
        (put("RescaleSlope", "0"), "RescaleSlope 0 and"),
        (put("SOPInstanceUID", "1.2"), "are the same slice twice"),
        (put("PhotometricInterpretation", "PALETTE COLOR"), r"colour picture \(PALETTE COLOR\)"),
        (lambda k, made: picture(made, np.zeros((5 + k // 5, 7), np.int16)), "Rows is"),
        (
            lambda k, made: [delattr(made, name) for name in ("RescaleSlope", "RescaleIntercept") if k == 1],
            "only one of",
        ),
    ],
)
def test_what_is_missing_or_unequal_is_said(series, change, message):
    positions = rising(6)
    if message == "are the same slice twice":
        positions[4] = positions[3]
    with pytest.raises(ValueError, match=f"series.*{message}") as error:
        read_dicom(series(positions, change=change))
    assert "\n" not in str(error.value)


@pytest.mark.takes("DICOM", "two echoes in one series", "refused")
def test_pictures_of_two_echoes_are_named(series):
    def echoes(k: int, made) -> None:
        made.Modality, made.EchoTime = "MR", "2.3" if k < 3 else "4.6"

    with pytest.raises(ValueError, match="several pictures of one place.*EchoTime 2.3 and 4.6"):
        read_dicom(series([*rising(3), *rising(3)], change=echoes))


# --- grey values ---------------------------------------------------------------------------------------


@pytest.mark.takes("DICOM", "a PET whose slices are each rescaled their own way", "taken")
def test_each_slice_is_rescaled_its_own_way(series):
    def rescale(k: int, made) -> None:
        made.Modality, made.RescaleSlope, made.RescaleIntercept = "PT", f"{0.5 * k + 0.25}", f"{k}"

    steps = np.arange(6)
    assert np.allclose(read_dicom(series(change=rescale)).array, grey() * (0.5 * steps + 0.25) + steps)


def test_grey_values_by_a_table(series):
    table = np.arange(3000, dtype=np.uint16) ** 2 // 200

    def change(k: int, made) -> None:
        item = pydicom.Dataset()
        item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [len(table), 0, 16], table.tobytes(), "US"
        item["LUTData"].VR = "OW"
        made.ModalityLUTSequence = [item]
        del made.RescaleSlope, made.RescaleIntercept

    assert np.array_equal(read_dicom(series(change=change)).array, table[grey()])


def test_stored_signs_and_unused_bits_are_heeded(tmp_path):
    array = grey(low=0, high=4096, dtype=np.uint16)
    save_series(tmp_path / "a", array | 0xA000, rising(6), BitsStored=12, HighBit=11)  # an overlay in the upper bits
    assert np.array_equal(read_dicom(tmp_path / "a").array, array - 1024.0)
    save_series(tmp_path / "b", grey(low=-2048, high=2048), rising(6), BitsStored=12, HighBit=11)
    assert np.array_equal(read_dicom(tmp_path / "b").array, grey(low=-2048, high=2048) - 1024.0)


@pytest.mark.takes("DICOM", "padding far from the other values", "taken, and said")
def test_padding_far_off_is_replaced_with_a_word(tmp_path):
    array = grey(high=2000, dtype=np.uint16)
    array[:2] = 63536
    save_series(tmp_path / "a", array, rising(6), PixelPaddingValue=63536)
    with pytest.warns(UserWarning, match=r"60 voxels are padding.*such as 62512.*-995..969.; taken as -995"):
        volume = read_dicom(tmp_path / "a")
    assert volume.array[:2].max() == volume.array[2:].min() and np.array_equal(volume.array[2:], array[2:] - 1024.0)
    signed = grey()
    signed[:2] = -2000
    save_series(tmp_path / "b", signed, rising(6), PixelPaddingValue=-2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_dicom(tmp_path / "b").array, signed - 1024.0)  # like very thin air: harmless


@pytest.mark.takes("DICOM", "an MR that is stored inverted", "refused")
def test_inverted_grey_values(series):
    folder = series(PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_dicom(folder).array, grey() - 1024.0)  # Hounsfield units, whatever is shown black
    folder = series(PhotometricInterpretation="MONOCHROME1", Modality="MR")
    with pytest.raises(ValueError, match="stored inverted"):
        read_dicom(folder)


@pytest.mark.takes("DICOM", "a CT that does not say how to rescale to HU", "taken, and said")
def test_a_ct_without_hounsfield_units_is_said(series):
    folder = series(RescaleSlope=None, RescaleIntercept=None)
    with pytest.warns(UserWarning, match="series: a CT whose slices do not say how to rescale"):
        assert np.array_equal(read_dicom(folder).array, grey())


def test_a_ct_that_is_rescaled_in_several_ways_is_said(series):
    folder = series(change=put("RescaleIntercept", "-1000", 2))
    with pytest.warns(UserWarning, match=r"series: a CT whose slices are rescaled in 2 ways.*\(1.0, -1024.0\)"):
        array = read_dicom(folder).array
    assert np.array_equal(array, grey() - np.array([1024.0, 1024, 1000, 1024, 1024, 1024]))


def compress(syntax: str):
    return lambda k, made: made.compress(getattr(pydicom.uid, syntax))


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_compressed_slices_of_several_kinds(series, syntax):
    folder = series(change=lambda k, made: compress(syntax)(k, made) if k % 2 else None)
    assert np.array_equal(read_dicom(folder).array, grey() - 1024.0)


@pytest.mark.takes("DICOM", "slices compressed without loss (JPEG, JPEG 2000)", "taken")
@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_slices_compressed_without_loss(tmp_path, compressor):
    sitk = pytest.importorskip("SimpleITK")
    array = grey((70, 50, 3))
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(tmp_path / "packed.dcm"))

    def change(k: int, made) -> None:
        writer.Execute(sitk.GetImageFromArray(made.pixel_array))
        packed = pydicom.dcmread(tmp_path / "packed.dcm")
        made.file_meta.TransferSyntaxUID, made["PixelData"] = packed.file_meta.TransferSyntaxUID, packed["PixelData"]
        assert made.file_meta.TransferSyntaxUID.is_compressed

    folder = save_series(tmp_path / "series", array, rising(3), change=change)
    assert np.array_equal(read_dicom(folder).array, array - 1024.0)


def with_voxels_of(name: str, folder: Path) -> Path:
    """A series of two slices that hold the compressed voxels of one of pydicom's samples."""
    sample = pydicom.dcmread(SAMPLES / "test_files" / name)
    folder.mkdir()
    for k, position in enumerate(rising(2)):
        made = dataset("MRImageStorage", f"1.2.9.{k}")
        made.SeriesInstanceUID, made.Modality, made.PixelSpacing = "1.2.9", "MR", ["1", "1"]
        made.ImagePositionPatient, made.ImageOrientationPatient = decimal(position), decimal(AXIAL)
        for keyword in (
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "PhotometricInterpretation",
            "BitsAllocated",
            "BitsStored",
        ):
            made[keyword] = sample[keyword]
        made.HighBit, made.PixelRepresentation = sample.HighBit, sample.PixelRepresentation
        made["PixelData"] = sample["PixelData"]
        made.file_meta.TransferSyntaxUID = sample.file_meta.TransferSyntaxUID
        made.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def test_what_pydicom_cannot_undo_itk_does_in_silence(tmp_path, capfd):
    sitk = pytest.importorskip("SimpleITK")
    volume = read_dicom(with_voxels_of("JPGExtended.dcm", tmp_path / "series"))
    assert capfd.readouterr() == ("", "")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(SAMPLES / "test_files" / "JPGExtended.dcm")))[0]
    assert np.array_equal(volume.array[:, :, 1].T, expected)


@pytest.mark.takes("DICOM", "compressed voxels that no decoder understands", "refused")
def test_voxels_that_nothing_can_undo(tmp_path, capfd):
    folder = with_voxels_of("JPEG2000-embedded-sequence-delimiter.dcm", tmp_path / "series")
    with pytest.raises(
        ValueError, match=r"series.0.dcm: its voxels are damaged, or .*\(JPEG 2000 Image Compression\)"
    ) as error:
        read_dicom(folder)
    assert capfd.readouterr() == ("", "") and "\n" not in str(error.value)


# --- many series ---------------------------------------------------------------------------------------


@pytest.fixture
def clinic(tmp_path):
    """A folder tree of a patient: two CT series, a localizer, a dose, a report, a structure set, notes."""
    root = tmp_path / "clinic"
    save_series(root / "CT1", grey(), rising(6), uid="1.2.3.5", SeriesDescription="venous", SeriesNumber="2")
    save_series(
        root / "CT2" / "x", grey() + 50, rising(6), uid="1.2.3.6", SeriesDescription="native", SeriesNumber="10"
    )
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": "1"}
    save_series(root / "CT1", grey((3, 4, 2)), rising(2), uid="1.2.3.7", order=[90, 91], **localizer)
    for name in ("rtdose.dcm", "test-SR.dcm", "rtstruct.dcm", "liver_1frame.dcm"):
        shutil.copy(SAMPLES / "test_files" / name, root / name)
    (root / "CT1" / "notes.txt").write_text("nothing")
    (root / "CT1" / "._000_5.dcm").write_bytes(b"of another system")
    return root


@pytest.mark.takes("DICOM", "several series, and one chosen by its number or UID", "taken")
@pytest.mark.takes("DICOM", "several series and no choice: they are listed", "refused")
def test_series_are_listed_and_chosen(clinic):
    with pytest.raises(ValueError, match=r"clinic: 3 DICOM series; say which one with series \(--series\)") as error:
        read_dicom(clinic)
    lines = str(error.value).splitlines()[1:]
    assert lines[1] == '  2: CT "venous", 6 slices of 0.50 x 0.70 x 3.00 mm (1.2.3.5);'
    assert [line.split(":")[0].strip() for line in lines] == ["1", "2", "3"] and "1.2.3.7" in lines[0]
    assert np.array_equal(read_dicom(clinic, "3").array, grey() + 50 - 1024.0)
    assert np.array_equal(read_dicom(clinic, "1.2.3.5").array, grey() - 1024.0)
    with pytest.raises(ValueError, match=r"no DICOM series 7; there are:\n  1: CT"):
        read_dicom(clinic, "7")


@pytest.mark.takes("DICOM", "only a dose, a structure set and a SEG, without grey values", "refused")
def test_the_only_series_of_slices_is_taken_alone(clinic):
    shutil.rmtree(clinic / "CT2")
    assert np.array_equal(read_dicom(clinic).array, grey() - 1024.0)
    structures = pydicom.dcmread(clinic / "rtstruct.dcm", force=True).SeriesInstanceUID
    with pytest.raises(ValueError, match="RT Structure Set, which holds no grey values"):
        read_dicom(clinic, structures)
    shutil.rmtree(clinic / "CT1")
    with pytest.raises(
        ValueError, match=r"only objects without grey values \(.*RT Dose, RT Structure Set, Segmentation\)"
    ):
        read_dicom(clinic)


def test_patients_are_told_apart(clinic):
    save_series(clinic / "other", grey(), rising(6), uid="1.2.3.9", PatientID="p0", SeriesDescription="mine")
    with pytest.raises(ValueError, match=r'1: patient p0, 20240102, CT "mine".*\n  2: patient p1, 20240102, CT'):
        read_dicom(clinic)


@pytest.mark.takes("DICOM", "one slice instead of its folder", "taken")
def test_one_slice_stands_for_its_series(clinic):
    path = clinic / "CT1" / "000_5.dcm"
    assert np.array_equal(read_image(path).array, grey() - 1024.0)
    with pytest.raises(ValueError, match="belongs to series 1.2.3.5, not 1.2.3.6"):
        read_dicom(path, "1.2.3.6")
    with pytest.raises(ValueError, match="rtdose.dcm: it is a DICOM RT Dose, which holds no grey values"):
        read_image(clinic / "rtdose.dcm")


def test_series_whose_identifiers_were_emptied(tmp_path):
    for name in ("a", "b"):
        save_series(tmp_path / name, grey(), rising(6), uid=f"1.2.{ord(name)}", SeriesInstanceUID="")
    assert np.array_equal(read_dicom(tmp_path / "a").array, grey() - 1024.0)
    with pytest.raises(ValueError, match=r"2 DICOM series.*\n  1: .*no UID"):
        read_dicom(tmp_path)
    assert read_dicom(tmp_path, "2").shape == (7, 5, 6)


@pytest.mark.takes("DICOM", "a DICOMDIR that lists a file that is not there", "taken, and said")
def test_a_dicomdir_stands_for_its_folder(tmp_path):
    shutil.copytree(SAMPLES / "test_files" / "dicomdirtests", tmp_path / "cd")
    with pytest.raises(ValueError, match=r"13 DICOM series.*\n(.*\n)*.*SmartScore - Gated 0.5 sec"):
        read_image(tmp_path / "cd" / "DICOMDIR")
    gated = pydicom.dcmread(tmp_path / "cd" / "98892001" / "CT5N" / "2062").SeriesInstanceUID
    assert read_dicom(tmp_path / "cd" / "DICOMDIR", gated).spacing == pytest.approx((0.488281, 0.488281, 2.5))
    (tmp_path / "cd" / "98892001" / "CT5N" / "3353").unlink()
    with pytest.warns(UserWarning, match="DICOMDIR: 1 of the 31 objects that it lists are not there"):
        assert read_dicom(tmp_path / "cd", gated).shape == (16, 16, 4)


def test_folders_without_slices(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no DICOM slices; expected a folder with the slices of one series"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such volume: .*absent.dcm"):
        read_image(tmp_path / "absent.dcm")
    assert is_dicom(tmp_path) and not is_dicom(tmp_path / "notes.txt") and not is_dicom(tmp_path / "absent.nii")


@pytest.mark.takes("DICOM", "a slice that was cut short", "refused")
def test_damaged_slices_are_said(series):
    folder = series()
    path = folder / "003_5.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="003_5.dcm: .*damaged"):
        read_image(folder)
    path.write_bytes(whole[:200])
    with pytest.raises(ValueError, match="series: 1 of the DICOM files there cannot be read, for example 003_5.dcm"):
        read_image(folder)


def test_what_is_not_installed_is_named(series, monkeypatch):
    folder = series()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'series: .*pydicom; pip install "textdiff\[dicom\]"'):
        read_image(folder)


# --- files with many frames ----------------------------------------------------------------------------


@pytest.mark.takes("DICOM", "one file with many frames, in any order", "taken")
def test_frames_lie_where_each_says(tmp_path):
    rescale = [(k + 1, -k) for k in range(6)]
    path = save_frames(tmp_path / "frames.dcm", grey()[:, :, ::-1], rising(6)[::-1], rescale=rescale)
    volume = read_image(path)
    steps = np.arange(6)[::-1]
    assert np.array_equal(volume.array, grey() * (steps + 1.0) - steps)
    assert volume.spacing == pytest.approx((0.5, 0.7, 3.0)) and volume.affine[:3, 3] == pytest.approx(
        (10.0, -20.0, 5.0)
    )
    assert np.array_equal(read_dicom(tmp_path).array, volume.array)


@pytest.mark.takes("DICOM", "frames that do not say where they lie", "refused")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: delattr(made, "PerFrameFunctionalGroupsSequence"), "6 frames that does not say of each where"),
        (lambda made: made.PerFrameFunctionalGroupsSequence.pop(), "6 frames that does not say of each where"),
        (
            lambda made: delattr(made.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"),
            "PixelSpacing is missing",
        ),
        (
            lambda made: made.PerFrameFunctionalGroupsSequence.__setitem__(2, made.PerFrameFunctionalGroupsSequence[1]),
            "several pictures of one place.*frame 2 and .*frame 3",
        ),
    ],
)
def test_frames_without_a_place_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"frames.dcm.*{message}"):
        read_dicom(save_frames(tmp_path / "frames.dcm", grey(), rising(6), change=change))


# --- samples -------------------------------------------------------------------------------------------


def samples(tmp_path: Path) -> list[Path]:
    """What is in pydicom's own package: every folder, and every file alone in a folder of its own."""
    paths = []
    for number, path in enumerate(sorted(SAMPLES.rglob("*"))):
        if path.is_dir():
            paths.append(path)
        elif path.suffix not in (".py", ".pyc"):
            paths.append(tmp_path / str(number) / path.name)
            paths[-1].parent.mkdir()
            paths[-1].symlink_to(path)
    return paths


@pytest.mark.filterwarnings("ignore:.*DICOMDIR. .* objects that it lists are not there")
def test_every_sample_of_pydicom_is_read_right_or_refused_in_a_line(tmp_path, capfd):
    """Right: as SimpleITK reads the same slices."""
    sitk = pytest.importorskip("SimpleITK")
    taken = []
    for path in samples(tmp_path):
        try:
            taken.append((path, read_dicom(path)))
        except ValueError as error:
            first, *listed = str(error).splitlines()
            assert str(path) in first and len(first) < 500 and "itk" not in first.lower() and "0x" not in first, first
            assert not listed or "DICOM series; say which one" in first
    assert capfd.readouterr() == ("", "") and {path.name for path, _ in taken} == {"98892001", "CT5N"}
    for path, volume in taken:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path / "CT5N" if path.name == "98892001" else path))
        expected = sitk.ReadImage(names)
        assert np.array_equal(volume.array, sitk.GetArrayFromImage(expected).T)
        assert volume.affine[:3, 3] * (-1, -1, 1) == pytest.approx(expected.GetOrigin(), abs=1e-4)
        assert volume.spacing == pytest.approx(expected.GetSpacing(), abs=1e-4)


@pytest.mark.parametrize(
    "name",
    ["MR_small_implicit", "MR_small_bigendian", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"],
)
def test_encodings_of_one_slice_give_the_same_voxels(tmp_path, name):
    volumes = []
    for sample in ("MR_small", name):
        folder = tmp_path / sample
        folder.mkdir()
        for k in range(2):
            made = pydicom.dcmread(SAMPLES / "test_files" / f"{sample}.dcm")
            made.SOPInstanceUID, made.ImagePositionPatient = f"1.2.{k}", decimal(rising(2)[k])
            made.ImageOrientationPatient = decimal(AXIAL)
            made.save_as(folder / f"{k}.dcm")
        volumes.append(read_dicom(folder))
    assert np.array_equal(volumes[0].array, volumes[1].array) and volumes[0].array.std() > 0


@pytest.mark.takes("DICOM labels", "outlines without their image", "refused")
def test_labels_are_not_read_from_outlines_without_their_image(tmp_path):
    with pytest.raises(ValueError, match=r"rs.dcm: it is a DICOM RT Structure Set.*read_dicom_labels\(path, image\)"):
        read_labels(save_outlines(tmp_path / "rs.dcm", {}))


def test_a_real_dicom_series_lies_on_its_labels(data_root):
    folder = data_root / "TotalSegmentator_samples/ct_dicom_20slices"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} in TEXTDIFF_DATA")
    image, labels = read_image(folder / "dicom"), read_labels(folder / "seg_multilabel_v2.nii.gz")
    assert image.axes == "LPS" and labels.axes == "LAS" and image.shape == (512, 512, 20)
    assert image.spacing == pytest.approx((0.9765625, 0.9765625, 2.0))  # not the slice thickness, 3 mm
    labels = turned(labels, image.axes)
    check_pair(image, labels, "dicom")
    liver = image.array[labels.array == 5]
    assert 40 < np.median(liver) < 200 and liver.std() < 40


@pytest.mark.takes("DICOM", "every second slice left out: numbered in steps of two", "taken, and said")
def test_slices_left_out_evenly_are_said(tmp_path):
    array = np.random.default_rng(0).integers(0, 99, (8, 9, 5)).astype(np.int16)

    def numbered(step):
        def change(k, made):
            made.InstanceNumber, made.SliceThickness = str(1 + step * k), "3"

        return change

    with pytest.warns(UserWarning, match="slices of 3 mm lie 6 mm apart and are numbered in steps of 2"):
        read_dicom(save_series(tmp_path / "halved", array, rising(5, 6.0), change=numbered(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_dicom(save_series(tmp_path / "gaps", array, rising(5, 6.0), change=numbered(1)))
        read_dicom(save_series(tmp_path / "whole", array, rising(5, 3.0), change=numbered(2)))

"""A label map goes back to where its image came from: labels on the grid of a DICOM series in, a DICOM SEG file out.

Each structure is a segment with its name and, where there is one, its SNOMED code, so that a viewer lays it on the series.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdiff.base.checkpoints import write_atomically
from textdiff.data.volumes.dicom_series import series_slices
from textdiff.data.volumes.dicom_slices import Slice, grid
from textdiff.data.volumes.grids import LPS_TO_RAS, Volume, check_places

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

# Our name -> keyword in pydicom's list of SNOMED codes.
ORGANS = {
    "aorta": "Aorta",
    "adrenal gland": "AdrenalGland",
    "bladder": "Bladder",
    "colon": "Colon",
    "duodenum": "Duodenum",
    "gallbladder": "Gallbladder",
    "hippocampus": "Hippocampus",
    "inferior vena cava": "InferiorVenaCava",
    "kidney": "Kidney",
    "liver": "Liver",
    "oesophagus": "Esophagus",
    "pancreas": "Pancreas",
    "small bowel": "SmallIntestine",
    "spleen": "Spleen",
    "stomach": "Stomach",
}
SIDES = {"left": "Left", "right": "Right", "anterior": "Anterior", "posterior": "Posterior"}
FINDINGS = {"tumour": "Neoplasm", "cyst": "Cyst", "lesion": "Lesion"}
COPIED = (  # what every object carries on from its source, empty where the source says nothing
    *(
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    ),
    "ReferringPhysicianName",
)
REFERENCES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
SERIES_NUMBER = 1000


def need_highdicom(path: str | Path) -> None:
    """ImportError, naming `path` and what to install, when a DICOM SEG cannot be written or read here."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{path}: a DICOM SEG needs highdicom; pip install "textdiff[dicom]"') from error


def write_dicom_seg(
    path: str | Path, labels: Volume, class_names: Sequence[str], source: str | Path, series: str = ""
) -> None:
    """Write a label map as DICOM SEG that refers to the series it was made from; whole or not at all.

    The structures that occur become segments 1, 2, ... in the order of their labels; if none occurs, all of them do, empty.

    Args:
        labels: whole numbers on the grid that `read_image(source, series=series)` gave.
        class_names: names of the labels; the first is the background.
        source, series: as for `read_image`.

    Raises ValueError for labels on another grid or without a name, and as `read_image` does for the source; ImportError
    without highdicom.
    """
    need_highdicom(path)
    source = Path(source).expanduser()
    slices, affine = grid(series_slices(source, series), source)
    _check_labels(labels, class_names, slices, affine, str(path))
    present = [int(label) for label in np.unique(labels.array) if label] or list(range(1, len(class_names)))
    numbers = np.zeros(len(class_names), np.uint8)  # label -> number of its segment
    numbers[present] = np.arange(1, len(present) + 1)
    frames = numbers[labels.array.T.astype(np.uint8)]
    step = float(np.linalg.norm(affine[:3, 2]))
    segments = _segmentation(frames, [class_names[label] for label in present], slices, step, source)
    write_atomically(path, segments.save_as)


def _check_labels(
    labels: Volume, class_names: Sequence[str], slices: Sequence[Slice], affine: np.ndarray, path: str
) -> None:
    if not 2 <= len(class_names) <= 256:
        raise ValueError(f"{path}: a DICOM SEG is written of 1 to 255 structures, got {len(class_names) - 1}")
    shape = (int(slices[0].dataset.Columns), int(slices[0].dataset.Rows), len(slices))
    check_places((shape, LPS_TO_RAS @ affine), (labels.shape, labels.affine), path)
    if labels.array.dtype.kind not in "biu" or labels.array.min() < 0 or labels.array.max() >= len(class_names):
        raise ValueError(
            f"{path}: labels must be whole numbers 0..{len(class_names) - 1}, one for each of the class names, got "
            f"{labels.array.dtype} {labels.array.min()}..{labels.array.max()}"
        )


def _segmentation(
    frames: np.ndarray, names: Sequence[str], slices: Sequence[Slice], step: float, source: Path
) -> Dataset:
    """The object. frames: segment numbers [slice, row, column] in the order of `slices`, which lie `step` mm apart."""
    import highdicom

    import textdiff

    sources = {one.path: one.dataset for one in slices}
    if len(sources) not in (1, len(slices)):
        raise ValueError(
            f"{source}: slices lie in {len(sources)} files of several frames each; a SEG refers to one such file"
        )
    if len(sources) == 1:  # in the order of its frames
        frames = frames[np.argsort([one.frame for one in slices])]
    _complete(list(sources.values()), step, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are unusual, and the like
        made = highdicom.seg.Segmentation(
            source_images=list(sources.values()),
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(number, name) for number, name in enumerate(names, start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="textdiff",
            manufacturer_model_name="textdiff",
            software_versions=textdiff.__version__,
            device_serial_number="0",
            content_description="Segmentation by textdiff",
            pixel_measures=highdicom.PixelMeasuresSequence(
                slices[0].spacing[::-1], slice_thickness=step, spacing_between_slices=step
            ),
            omit_empty_frames=bool(frames.any()),
        )
    made.SeriesDescription = "Segmentation by textdiff"
    return made


def _complete(sources: Sequence[Dataset], step: float, where: Path) -> None:
    """Give the headers what highdicom asks of them: empty texts, and new identifiers with a warning."""
    from pydicom.uid import generate_uid

    for dataset in sources:
        dataset.SliceThickness = f"{step:.6g}"
        for keyword in COPIED:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
    missing = [keyword for keyword in REFERENCES if not sources[0].get(keyword)]
    for keyword in missing:
        uid = generate_uid()
        for dataset in sources:
            setattr(dataset, keyword, uid)
    if missing:
        warnings.warn(
            f"{where}: the slices have no {', '.join(missing)}; the DICOM SEG got new ones, and a viewer may not find the "
            "series that it belongs to",
            stacklevel=2,
        )


# --- names ---------------------------------------------------------------------------------------------


def _described(number: int, name: str) -> SegmentDescription:
    """A segment of an organ, or of something abnormal in one; a name without SNOMED code becomes its own code."""
    import highdicom
    from pydicom.sr.codedict import codes

    import textdiff

    finding, organ, side = _parts(name)
    coded = highdicom.sr.CodedConcept(name[:64], "99TEXTDIFF", name[:64])
    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure
        if finding
        else codes.SCT.AnatomicalStructure,
        segmented_property_type=finding or organ or coded,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            "textdiff", codes.DCM.ArtificialIntelligence, textdiff.__version__
        ),
        anatomic_regions=[organ] if finding and organ else None,
    )
    if side:
        modifier = [highdicom.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)]
        if finding:
            described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = modifier
        else:
            described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    return described


def _parts(name: str) -> tuple[Code | None, Code | None, Code | None]:
    """What was found, the organ and its side, for a name such as "left kidney tumour"; None for what has no code."""
    from pydicom.sr.codedict import codes

    words = name.lower().split()
    finding = getattr(codes.SCT, FINDINGS[words.pop()]) if words and words[-1] in FINDINGS else None
    side = getattr(codes.SCT, SIDES[words.pop(0)]) if words and words[0] in SIDES else None
    organ = getattr(codes.SCT, ORGANS[" ".join(words)]) if " ".join(words) in ORGANS else None
    if organ is None and (words or side):
        return None, None, None
    return finding, organ, side

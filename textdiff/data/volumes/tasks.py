"""What the 3D data sets are about: a name in, a `Task` (structures, numbering, window, grid, licence) out.

Each publisher numbers the structures in its own way; here a task's structures are always 1, 2, ... in the
order of its tuple. Sides are the patient's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from textdiff.base.paths import DATASET_FOLDERS
from textdiff.data.volumes.phantoms import ABDOMEN

LAYOUTS = ("msd", "kits", "amos", "btcv", "totalsegmentator", "phantoms")
ABDOMEN_WINDOW = (-175.0, 250.0)


@dataclass(frozen=True)
class Task:
    """What a data set is about and how its files are to be read.

    structures: names of the labels 1..K, in our numbering. labels: value in the file -> our label; a value
    mapped to 0 is known and not asked for, one not listed is an error. window: HU, None for MR. spacing: mm
    of the grid to work on, None for the file's own. patch: voxels.
    """

    name: str
    title: str
    layout: str
    modality: str
    structures: tuple[str, ...]
    labels: Mapping[int, int] = field(compare=False)
    window: tuple[float, float] | None
    spacing: tuple[float, float, float] | None
    patch: tuple[int, int, int]
    licence: str
    citation: str
    home: str
    last_case: int | None = None  # cases of a higher number have no published labels, or are of another modality

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"task {self.name!r}: layout must be one of {LAYOUTS}, got {self.layout!r}")
        wrong = sorted({label for label in self.labels.values() if not 0 <= label <= len(self.structures)})
        if wrong:
            raise ValueError(f"task {self.name!r}: labels {wrong} have no name among {len(self.structures)} structures")

    @property
    def folders(self) -> tuple[str, ...]:
        """Folder names under which the set is met, in order of preference."""
        return DATASET_FOLDERS.get(self.name, ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """("background", *structures)."""
        return ("background", *self.structures)

    @property
    def sided(self) -> bool:
        """Whether some structures differ only in the patient's side, so that mirroring would make labels wrong."""
        return any(name.startswith(("left ", "right ")) for name in self.structures)

    def only(self, structures: Sequence[str]) -> Task:
        """The task with these structures alone, numbered 1, 2, ... in this order; the others become background.

        Raises ValueError for an unknown structure, one named twice, or none.
        """
        unknown = [name for name in structures if name not in self.structures]
        if unknown or not structures or len(set(structures)) != len(structures):
            raise ValueError(
                f"structures of {self.name!r} must be some of {', '.join(self.structures)}, each once; got {structures!r}"
            )
        new = {self.structures.index(name) + 1: number for number, name in enumerate(structures, start=1)}
        labels = {value: new.get(label, 0) for value, label in self.labels.items()}
        return replace(self, structures=tuple(structures), labels=labels)


MSD_LICENCE = "CC BY-SA 4.0"
MSD_CITATION = "Antonelli et al., Nature Communications 2022, doi:10.1038/s41467-022-30695-9"
MSD_HOME = "http://medicaldecathlon.com"
KITS_CITATION = "Heller et al., Medical Image Analysis 2021, doi:10.1016/j.media.2020.101821; arXiv:1904.00445"
CT_GRID = {"modality": "CT", "spacing": (1.5, 1.5, 1.5), "patch": (96, 96, 96)}

AMOS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate or uterus",
)
BTCV = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
# TotalSegmentator: our name -> name of its mask file, and value in its multi-label files of version 1, version 2 and
# for MR. Its other classes are background here.
TOTALSEGMENTATOR: dict[str, tuple[str, int, int, int]] = {
    "spleen": ("spleen", 1, 1, 1),
    "right kidney": ("kidney_right", 2, 2, 2),
    "left kidney": ("kidney_left", 3, 3, 3),
    "gallbladder": ("gallbladder", 4, 4, 4),
    "liver": ("liver", 5, 5, 5),
    "stomach": ("stomach", 6, 6, 6),
    "pancreas": ("pancreas", 10, 7, 7),
    "right adrenal gland": ("adrenal_gland_right", 11, 8, 8),
    "left adrenal gland": ("adrenal_gland_left", 12, 9, 9),
    "oesophagus": ("esophagus", 42, 15, 12),
    "duodenum": ("duodenum", 56, 19, 14),
    "small bowel": ("small_bowel", 55, 18, 13),
    "colon": ("colon", 57, 20, 15),
    "bladder": ("urinary_bladder", 104, 21, 16),
    "aorta": ("aorta", 7, 52, 23),
    "inferior vena cava": ("inferior_vena_cava", 8, 63, 24),
    "portal and splenic vein": ("portal_vein_and_splenic_vein", 9, 64, 25),
}
TOTALSEGMENTATOR_CLASSES = {"v1": 104, "v2": 117, "mr": 50}


def _ordered(structures: Sequence[str]) -> dict[int, int]:
    return {number: number for number in range(1, len(structures) + 1)}


def totalsegmentator_labels(numbering: str, structures: Sequence[str] = tuple(TOTALSEGMENTATOR)) -> dict[int, int]:
    """Value in a multi-label file of "v1", "v2" or "mr" -> place in `structures`, 0 for the other classes."""
    column = 1 + list(TOTALSEGMENTATOR_CLASSES).index(numbering)
    labels = dict.fromkeys(range(1, TOTALSEGMENTATOR_CLASSES[numbering] + 1), 0)
    return labels | {TOTALSEGMENTATOR[name][column]: number for number, name in enumerate(structures, start=1)}


def _msd(name: str, title: str, structures: tuple[str, ...], window: tuple[float, float]) -> Task:
    return Task(
        name=name,
        title=title,
        layout="msd",
        structures=structures,
        labels=_ordered(structures),
        window=window,
        licence=MSD_LICENCE,
        citation=MSD_CITATION,
        home=MSD_HOME,
        **CT_GRID,
    )


def _kits(year: int, structures: tuple[str, ...], home: str, last_case: int | None = None) -> Task:
    return Task(
        name=f"kits{year}",
        title=f"KiTS{year}: kidneys and their tumours in contrast-enhanced CT",
        layout="kits",
        structures=structures,
        labels=_ordered(structures),
        window=(-52.0, 247.0),
        licence="CC BY-NC-SA 4.0",
        citation=KITS_CITATION,
        home=home,
        last_case=last_case,
        **CT_GRID,
    )


def _totalsegmentator(name: str, modality: str, window: tuple[float, float] | None, home: str) -> Task:
    return Task(
        name=name,
        title=f"TotalSegmentator: abdominal organs in {modality}",
        layout="totalsegmentator",
        structures=tuple(TOTALSEGMENTATOR),
        labels=totalsegmentator_labels("mr" if modality == "MR" else "v2"),
        window=window,
        licence="CC BY 4.0 (data set on Zenodo)",
        citation="Wasserthal et al., Radiology: Artificial Intelligence 2023, doi:10.1148/ryai.230024",
        home=home,
        **CT_GRID | {"modality": modality},
    )


# HU windows of the tumour tasks: those of 3DSAM-adapter (arXiv:2306.13465); spacing and patch are ours.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="hippocampus",
            title="MSD Task04: front and back part of the hippocampus in MR",
            layout="msd",
            modality="MR",
            structures=("anterior hippocampus", "posterior hippocampus"),
            labels={1: 1, 2: 2},
            window=None,
            spacing=None,
            patch=(40, 56, 40),
            licence=MSD_LICENCE,
            citation=MSD_CITATION,
            home=MSD_HOME,
        ),
        _msd("liver_tumour", "MSD Task03: liver and its tumours in CT", ("liver", "liver tumour"), (-17.0, 201.0)),
        _msd(
            "pancreas_tumour",
            "MSD Task07: pancreas and its tumours in CT",
            ("pancreas", "pancreas tumour"),
            (-39.0, 204.0),
        ),
        _msd("colon_tumour", "MSD Task10: primary colon cancer in CT", ("colon tumour",), (-57.0, 175.0)),
        _kits(19, ("kidney", "kidney tumour"), "https://github.com/neheller/kits19", last_case=209),
        _kits(21, ("kidney", "kidney tumour", "kidney cyst"), "https://github.com/neheller/kits21"),
        _kits(23, ("kidney", "kidney tumour", "kidney cyst"), "https://github.com/neheller/kits23"),
        Task(
            name="amos",
            title="AMOS22: fifteen abdominal organs in CT",
            layout="amos",
            structures=AMOS,
            labels=_ordered(AMOS),
            window=ABDOMEN_WINDOW,
            licence="CC BY 4.0",
            citation="Ji et al., NeurIPS 2022, arXiv:2206.08023",
            home="https://amos22.grand-challenge.org",
            last_case=500,  # the others are MR
            **CT_GRID,
        ),
        Task(
            name="btcv",
            title="BTCV (Beyond the Cranial Vault): thirteen abdominal organs in CT",
            layout="btcv",
            structures=BTCV,
            labels=_ordered(BTCV),
            window=ABDOMEN_WINDOW,
            licence="on registration with Synapse (syn3193805)",
            citation="Landman et al., MICCAI 2015 workshop and challenge, doi:10.7303/syn3193805",
            home="https://www.synapse.org/Synapse:syn3193805",
            **CT_GRID,
        ),
        _totalsegmentator("totalsegmentator", "CT", ABDOMEN_WINDOW, "https://doi.org/10.5281/zenodo.10047292"),
        _totalsegmentator("totalsegmentator_mr", "MR", None, "https://doi.org/10.5281/zenodo.14710732"),
        Task(
            name="abdomen_phantoms",
            title="Synthetic abdominal CT with tumours",
            layout="phantoms",
            modality="CT",
            structures=ABDOMEN,
            labels=_ordered(ABDOMEN),
            window=ABDOMEN_WINDOW,
            spacing=None,
            patch=(48, 48, 40),
            licence="generated by this package, same licence as the code",
            citation="none: drawn by this package",
            home="",
        ),
    )
}

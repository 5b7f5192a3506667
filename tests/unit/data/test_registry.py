"""The registry: what is built in agrees with itself and with the files; entries of one's own; errors that help."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from msd_files import msd

from textdiff.base.paths import PACKAGE
from textdiff.data import load_dataset, load_volumes
from textdiff.data.cases import Case
from textdiff.data.entries import DatasetEntry, Kind, Split
from textdiff.data.images.lvit import write_split
from textdiff.data.registry import BACKBONES, DATASETS, MODELS, backbone, backbones, dataset, names

VOLUMES = [name for name, entry in DATASETS.items() if entry.kind == "volumes"]
# What of the known sets a changed number would silently change
PINNED = {
    "monuseg": {"backbone": "he_32", "n_labels": 5},
    "qata": {"backbone": "chest_64", "n_labels": 150},
    "kits21": {"window": (-52, 247)},
    "pancreas_tumour": {"window": (-39, 204)},
    "liver_tumour": {"window": (-17, 201)},
    "colon_tumour": {"window": (-57, 175)},
    "hippocampus": {"model": "hippocampus_small", "split": "manifest"},
}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Writes a registry of one's own and points TEXTDIFF_REGISTRY to it."""

    def write(content: object) -> Path:
        path = tmp_path / "own.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("TEXTDIFF_REGISTRY", str(path))
        return path

    return write


# --- what is built in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_entries_of_data_sets_are_consistent(name):
    entry = dataset(name)
    assert entry.name == name and entry.licence and entry.title != name
    assert entry.backbone in BACKBONES and (entry.model == "" or MODELS[entry.model].dataset == name)
    assert entry.synthetic == (entry.split == "drawn") and (entry.source is None or entry.citation)
    assert set(entry.runs) <= {"demo", "full", "grid", "cost"}
    for fact, value in PINNED.get(name, {}).items():
        assert getattr(entry, fact) == value


@pytest.mark.parametrize("name", VOLUMES)
def test_entries_of_volumes_are_consistent(name):
    entry = dataset(name, "volumes")
    assert entry.modality in ("CT", "MR") and (entry.window is None) == (entry.modality == "MR")
    assert set(entry.labels.values()) - {0} == set(range(1, len(entry.structures) + 1))
    assert all(side % 8 == 0 for side in entry.patch)
    assert entry.synthetic or (entry.citation and entry.home.startswith("http"))


def test_amos_numbering_is_the_published_one():
    ours = {value: DATASETS["amos"].class_names[label] for value, label in DATASETS["amos"].labels.items()}
    published = {1: "spleen", 2: "right kidney", 3: "left kidney", 6: "liver", 10: "pancreas", 15: "prostate or uterus"}
    assert published.items() <= ours.items()


def test_sides_are_known():
    amos = DATASETS["amos"]
    assert amos.sided and DATASETS["abdomen_phantoms"].sided and amos.only(("left kidney",)).sided
    assert not DATASETS["liver_tumour"].sided and not amos.only(("liver",)).sided


@pytest.mark.parametrize("name", [*BACKBONES, *MODELS])
def test_hashes_are_those_of_the_files(name):
    entry = BACKBONES.get(name) or MODELS[name]
    if not entry.sha256:
        assert entry.address.startswith("https://") and len(entry.address_sha256) == 64
        return
    places = (PACKAGE / "assets", PACKAGE.parent / "weights")
    folder = next(place / name for place in places if (place / name).is_dir())
    for file, sha256 in (("config.json", entry.config_sha256), ("model.safetensors", entry.sha256)):
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256, f"{name}/{file} has changed"
    assert (folder / "model.safetensors").stat().st_size == entry.size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sounds"}, f"kind must be one of {', '.join(get_args(Kind))}, got 'sounds'"),
        ({"layout": "msd"}, "layout must be one of lvit, phantoms, got 'msd'"),
        ({"split": "own"}, f"split must be one of {', '.join(get_args(Split))}"),
        ({"class_names": ("lesion",)}, "begin with 'background'"),
        ({"class_names": ("background", "a", "a")}, "must differ"),
        ({"labels": {1: 1, 2: 3}}, r"labels \[3\] have no name among 1 structures"),
        ({"split": "manifest"}, "needs a manifest"),
    ],
)
def test_an_entry_that_cannot_be_right_is_refused(changes, message):
    right = {"kind": "images", "layout": "lvit", "class_names": ("background", "a"), "licence": "mine"}
    DatasetEntry("mine", **right)
    with pytest.raises(ValueError, match=f"data set 'mine': .*{message}"):
        DatasetEntry("mine", **right | changes)


# --- by name -------------------------------------------------------------------------------------------


def test_names_are_found_and_the_nearest_is_named():
    assert names("images") == ("monuseg", "qata", "nuclei_phantoms", "chest_phantoms") and len(names()) == len(DATASETS)
    with pytest.raises(
        ValueError, match=r"unknown data set 'monuseq' \(did you mean 'monuseg'\?\); known: monuseg, qata"
    ):
        dataset("monuseq")
    with pytest.raises(ValueError, match="unknown data set of volumes 'qata'; known: hippocampus"):
        dataset("qata", "volumes")
    with pytest.raises(ValueError, match=r"unknown backbone 'chest_23' \(did you mean 'chest_32'"):
        backbone("chest_23")
    assert backbone("openai_256").blocks_for("qata") == "4,6,8,12" and backbone("he_32").blocks_for("x") == "1,4,7,10"


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_folder_names_variable_place_and_command(exists, monkeypatch, tmp_path):
    root = tmp_path if exists else tmp_path / "absent"
    monkeypatch.setenv("TEXTDIFF_DATA", str(root))
    with pytest.raises(FileNotFoundError) as error:
        dataset("qata").folder()
    for part in ("TEXTDIFF_DATA", str(root), "textdiff fetch qata"):
        assert part in str(error.value)


def test_a_folder_is_found_in_any_letter_case_and_under_its_other_names(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path))
    (tmp_path / "monuseg").mkdir()
    (tmp_path / "QaTa-COV19-v2").mkdir()
    assert dataset("monuseg").folder() == tmp_path / "monuseg"
    assert dataset("qata").folder() == tmp_path / "QaTa-COV19-v2"


# --- entries of one's own ------------------------------------------------------------------------------

IMAGES = {"kind": "images", "layout": "lvit", "class_names": ["background", "polyp"], "licence": "mine"}
VOLUME = {"kind": "volumes", "layout": "msd", "class_names": ["background", "heart"], "licence": "mine"}
BACKBONE = {"image_size": 64, "blocks": {"": "0,2"}, "folder": "/somewhere"}


def test_one_entry_adds_a_data_set_of_images_and_one_a_backbone(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path / "data"))
    polyp = Case("polyp", "a polyp", image_array=np.zeros((8, 8, 3), np.uint8), mask_array=np.ones((8, 8), np.uint8))
    for split in ("Train", "Val", "Test"):
        write_split(tmp_path / "data" / "Polyps" / f"{split}_Folder", [polyp])
    mine = IMAGES | {"folders": ["Polyps"], "backbone": "mine_64", "n_labels": 1}
    path = registry({"datasets": {"polyps": mine}, "backbones": {"mine_64": BACKBONE}})
    data = load_dataset("polyps")
    assert [case.caption for case in data.test] == ["a polyp"] and data.class_names == ("background", "polyp")
    assert "polyps" in names("images") and dataset("polyps").split == "official"
    assert backbone("mine_64").folder == "/somewhere" and list(backbones())[-1] == "mine_64"
    monkeypatch.delenv("TEXTDIFF_REGISTRY")
    assert "polyps" not in names()
    shutil.copyfile(path, tmp_path / "data" / "registry.json")
    assert "polyps" in names()


def test_one_entry_adds_a_data_set_of_volumes(registry, tmp_path):
    facts = {"modality": "MR", "labels": {"1": 0, "2": 1}, "spacing": [1.5, 1.5, 2], "patch": [32, 32, 16]}
    registry({"datasets": {"hearts": VOLUME | facts}})
    data = load_volumes("hearts", msd(tmp_path / "Hearts", 4))
    case = (data.train + data.val + data.test)[0]
    assert case.labels().array.reshape(-1)[:2].tolist() == [0, 1]
    assert data.task.spacing == (1.5, 1.5, 2) and data.task.patch == (32, 32, 16) and data.task.window is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ({"dataset": {}}, "unknown key 'dataset'; a registry has 'datasets' and 'backbones'"),
        ({"datasets": [IMAGES]}, "expected an object of entries by name"),
        ({"datasets": {"qata": IMAGES}}, "'qata' is built in; choose another name"),
        ({"backbones": {"he_32": BACKBONE}}, "'he_32' is built in"),
        ({"datasets": {"../a": IMAGES}}, "a name is letters, digits, _ and -"),
        (
            {"datasets": {"a": IMAGES | {"layout": "phantoms"}}},
            "layout 'phantoms' is of the sets that this package draws",
        ),
        ({"datasets": {"a": IMAGES | {"class_names": ["background"]}}}, "background and at least one class"),
        ({"datasets": {"a": IMAGES | {"runs": {"grids": {}}}}}, "runs: unknown 'grids'"),
        ({"backbones": {"a": {"image_size": 64, "blocks": {"": "a"}}}}, "is not a comma-separated list"),
        (
            {"datasets": {"a": IMAGES | {"licens": "x"}}},
            r"entry 'a': unknown key 'licens' \(did you mean 'licence'\?\)",
        ),
        ({"datasets": {"a": {"kind": "images", "layout": "lvit"}}}, "entry 'a': missing key 'class_names', 'licence'"),
        ({"datasets": {"a": IMAGES | {"n_labels": True}}}, 'n_labels: expected whole number or "all", got True'),
        ({"datasets": {"a": IMAGES | {"folders": "A"}}}, "folders: expected .text, ...., got 'A'"),
        ({"datasets": {"a": VOLUME | {"window": [1]}}}, r"window: expected .number, number. or null, got \[1\]"),
        (
            {"datasets": {"a": VOLUME | {"labels": {"one": 1}}}},
            'labels: expected {"whole number": whole number, ...}, got',
        ),
        ({"datasets": {"a": IMAGES | {"n_labels": 0}}}, "n_labels holds 0, and must be above zero"),
        ({"datasets": {"a": IMAGES | {"draws": 0}}}, "draws holds 0"),
        ({"datasets": {"a": IMAGES | {"label_counts": [5, -1, "all"]}}}, "label_counts holds -1"),
        ({"datasets": {"a": IMAGES | {"class_names": ["background", " "]}}}, "begin with 'background', none empty"),
        ({"datasets": {"a": VOLUME | {"spacing": [0, 1, 1]}}}, "spacing holds 0"),
        ({"datasets": {"a": VOLUME | {"patch": [0, 8, 8]}}}, "patch holds 0"),
        ({"datasets": {"a": VOLUME | {"window": [250, -175]}}}, "window is .lowest, highest. HU, got .250, -175."),
        ({"datasets": {"a": IMAGES | {"layout": "msd"}}}, "entry 'a': data set 'a': layout must be one of lvit"),
        ({"datasets": {"a": IMAGES | {"backbone": "none"}}}, "entry 'a': no backbone 'none'"),
        ({"backbones": {"a": BACKBONE | {"image_size": 0}}}, "needs blocks and a positive image_size"),
    ],
)
def test_a_registry_that_cannot_be_right_names_file_and_entry(registry, content, message):
    path = registry(content)
    with pytest.raises(ValueError, match=message) as error:
        names()
    assert str(path) in str(error.value)


def test_a_registry_that_is_pointed_to_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_REGISTRY", str(tmp_path / "absent.json"))
    with pytest.raises(FileNotFoundError, match=r"no registry at .*absent\.json, where TEXTDIFF_REGISTRY points to"):
        dataset("qata")

"""Names of cases and structures: whatever disks, spreadsheets and publishers do to them, no two are exchanged in silence."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.faults import Fault
from textdiff.data.registry import DATASETS, dataset
from textdiff.data.volumes.layouts import find_volumes
from textdiff.data.volumes.listings import case_name, fold, resolved
from textdiff.data.volumes.numbering import numbered_by_name, structure_of
from textdiff.data.volumes.wordings import wording_of

letters = st.characters(categories=("L", "N"), include_characters=" ._-()", max_codepoint=0x2FFF)
case_names = st.text(letters, min_size=1, max_size=20).map(str.strip).filter(lambda name: name.strip(".") == name != "")
suffixes = st.sampled_from((".nii", ".nii.gz", ".NII.GZ", ".mha", ".nrrd", ""))
forms = st.sampled_from(("NFC", "NFD"))
plain_names = case_names.filter(lambda name: case_name(name) == unicodedata.normalize("NFC", name))
REAL = [name for name, entry in DATASETS.items() if entry.kind == "volumes"]


@given(name=plain_names, suffix=suffixes, form=forms, channel=st.sampled_from(("", "_0000")), upper=st.booleans())
def test_a_listed_name_means_its_case_whatever_became_of_it(name, suffix, form, channel, upper):
    key = fold(name)
    written = unicodedata.normalize(form, name.swapcase() if upper and fold(name.swapcase()) == key else name)
    assert fold(fold(name)) == key
    assert resolved(f"./imagesTr/{written}{channel}{suffix}", {key, "another"}) == key
    assert resolved(f"{written}_{channel}{suffix}", {"another"}) == ""


@settings(max_examples=60, deadline=None)
@given(
    cases=st.lists(
        st.tuples(
            st.one_of(case_names, st.sampled_from(("a", "a_0000", "a_0001", "A", "case_1", "case_1_0000"))),
            *(suffixes.filter(bool), suffixes.filter(bool), forms, forms, st.sampled_from(("", "_0000"))),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda case: case[0],
    ),
    nnunet=st.booleans(),
)
def test_every_image_meets_its_own_labels_or_it_is_said(cases, nnunet):
    with tempfile.TemporaryDirectory() as place:
        folder, owner = Path(place), {}
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        for name, a, b, one, other, channel in cases:
            image = folder / "imagesTr" / (unicodedata.normalize(one, name + channel) + a)
            labels = folder / "labelsTr" / (unicodedata.normalize(other, name) + b)
            owner |= {image: name, labels: name}
            image.touch()
            labels.touch()
        if nnunet:
            (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}}))
        faults: list[Fault] = []
        data = find_volumes(folder, dataset("liver_tumour"), faults)
        found = [*data.train, *data.val, *data.test]
        whole = len(found) == len(cases) and all(owner[case.image_path] == owner[case.label_path] for case in found)
        assert whole or any(not fault.warning for fault in faults)
        distinct = {fold(name) for name, *_ in cases}
        if len(distinct) == len(cases) and not any(name.endswith(("_0000", "_0001")) for name, *_ in cases):
            assert whole, [fault.text for fault in faults]


@pytest.mark.parametrize("task", REAL)
def test_every_structure_is_understood_under_each_of_its_names_and_no_other(task):
    structures = dataset(task).structures
    for one in structures:
        wording = wording_of(one)
        for text in (one, *(wording.names if wording else ())):
            american = text.replace("tumour", "tumor").replace("oesoph", "esoph")
            side, _, organ = text.partition(" ")
            turned = f"{organ}_{side}" if side in ("left", "right") else text
            for spelt in (text, text.upper(), text.replace(" ", "_"), american.title(), turned, f" {text} "):
                assert structure_of(spelt, structures) == one, spelt


@settings(max_examples=40, deadline=None)
@given(task=st.sampled_from(REAL), data=st.data())
def test_any_numbering_is_followed_in_either_form_of_dataset_json(task, data):
    entry = dataset(task)
    values = data.draw(st.permutations(range(1, len(entry.structures) + 4)))[: len(entry.structures)]
    named = dict(zip(entry.structures, values, strict=True))
    wanted = {value: entry.class_names.index(name) for name, value in named.items()}
    contents = (
        {"0": "background"} | {str(value): name for name, value in named.items()},
        {"background": 0} | named,
        {"background": 0} | {name: [value] for name, value in named.items()},
    )
    for content in contents:
        faults: list[Fault] = []
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "dataset.json").write_text(json.dumps({"labels": content}))
            assert dict(numbered_by_name(Path(place), entry, entry.structures, faults).labels) == wanted
        assert not faults

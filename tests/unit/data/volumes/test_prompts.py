from __future__ import annotations

import numpy as np
import pytest

from textdiff.data.registry import DATASETS
from textdiff.data.volumes.phantoms import abdomen_phantoms
from textdiff.data.volumes.prompts import VARIANTS, named_structures, prompt, prompts_for, swap_structures
from textdiff.data.volumes.volume import Volume
from textdiff.data.volumes.wordings import WORDINGS

HIPPOCAMPUS = ("anterior hippocampus", "posterior hippocampus")
KITS = ("kidney", "kidney tumour")
ABDOMEN = (
    *("liver", "pancreas", "left kidney", "right kidney"),
    *("liver tumour", "pancreas tumour", "left kidney tumour", "right kidney tumour", "colon tumour"),
)


def test_prompts_of_the_three_kinds():
    assert prompt("class", HIPPOCAMPUS) == "anterior hippocampus and posterior hippocampus"
    assert prompt("class", ABDOMEN[:3], variant=3) == "segment the liver, pancreas and left kidney."
    assert prompt("class", ["anterior hippocampus"], variant=1) == "hippocampal head"
    assert prompt("anatomy", HIPPOCAMPUS).startswith(
        "the front part of the hippocampus, its large round head; the rear"
    )
    assert prompt("class", ["left_clavicle"], variant=2) == "left clavicle"


def test_every_structure_has_its_wordings_and_no_two_share_one():
    for names in (*WORDINGS, *ABDOMEN):
        for kind, count in (("class", 3), ("anatomy", 2)):
            assert len({prompt(kind, [names], variant=v) for v in range(count)}) == count
    texts = [text for wording in WORDINGS.values() for text in (*wording.names, *wording.anatomy, *wording.also)]
    assert len(texts) == len(set(texts))
    assert all(len({prompt("class", ["liver"], variant=v) for v in range(n)}) == n for n in [VARIANTS["class"]])


def test_a_prompt_for_two_structures_has_fewer_than_60_word_pieces():
    from transformers import AutoTokenizer

    from textdiff.models.text import assets_dir

    tokenizer = AutoTokenizer.from_pretrained(assets_dir() / "tiny_bert")
    length = {
        (name, kind, variant): len(tokenizer.tokenize(prompt(kind, [name], variant=variant)))
        for name in WORDINGS
        for kind in ("class", "anatomy")
        for variant in range(VARIANTS[kind])
    }
    assert 2 * max(length.values()) < 60


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("Segment the HEAD of the hippocampus", HIPPOCAMPUS, HIPPOCAMPUS[:1]),
        ("hippocampi", HIPPOCAMPUS, HIPPOCAMPUS),
        ("body, tail", HIPPOCAMPUS, HIPPOCAMPUS[1:]),
        ("head of the pancreas", ABDOMEN, ("pancreas",)),
        ("pancreas tumour in the tail", (*HIPPOCAMPUS, "pancreas tumour"), ("pancreas tumour",)),
        ("left kidney tumor", KITS, ("kidney tumour",)),
        ("left kidney tumor", ABDOMEN, ("left kidney tumour",)),
        ("left-sided kidney tumours", ABDOMEN, ("left kidney tumour",)),
        ("kidney tumours", ABDOMEN, ("left kidney tumour", "right kidney tumour")),
        ("both kidneys", ABDOMEN, ("left kidney", "right kidney")),
        ("both kidneys", KITS, ("kidney",)),
        ("left and right kidney tumours", ABDOMEN, ("left kidney tumour", "right kidney tumour")),
        ("tumours in both kidneys", ABDOMEN, ("left kidney tumour", "right kidney tumour")),
        ("renal cell carcinoma", KITS, ("kidney tumour",)),
        ("liver tumour", ("liver",), ()),
        ("A hypodense lesion of 3.2 cm in segment 4 of the liver.", ABDOMEN, ("liver tumour",)),
        ("liver with a tumour", ABDOMEN, ("liver", "liver tumour")),
        ("liver; tumour", KITS, ("kidney tumour",)),
        ("the left kidney holds a mass", ABDOMEN, ("left kidney", "left kidney tumour")),
        ("hepatic metastases", ABDOMEN, ("liver tumour",)),
        ("hepatic artery", ABDOMEN, ()),
        ("tumour", KITS, ("kidney tumour",)),
        ("no tumour in the liver", ABDOMEN, ()),
        ("the liver without its tumour", ABDOMEN, ("liver",)),
        ("the left kidney, below the liver", ABDOMEN, ("left kidney",)),
        ("what lies between the liver and the pancreas", ABDOMEN, ()),
        ("kidney cyst", KITS, ()),
        ("renal cysts", (*KITS, "kidney cyst"), ("kidney cyst",)),
        ("pancreatic cyst", ABDOMEN, ("pancreas tumour",)),
        ("kidney_left", ("left kidney",), ("left kidney",)),
        ("esophagus", ("oesophagus",), ("oesophagus",)),
        ("Oesophagus", ("esophagus",), ("esophagus",)),
        ("adrenals", ("left adrenal gland", "right adrenal gland"), ("left adrenal gland", "right adrenal gland")),
        ("bladder", ("urinary bladder", "prostate or uterus"), ("urinary bladder",)),
        ("the womb", ("urinary bladder", "prostate or uterus"), ("prostate or uterus",)),
        ("gall bladder", ("bladder", "gallbladder"), ("gallbladder",)),
        ("portal vein", ("portal and splenic vein",), ("portal and splenic vein",)),
        ("clavicles", ("left clavicle", "right clavicle"), ("left clavicle", "right clavicle")),
        ("tumour of the lung", ("lung", "lung tumour"), ("lung tumour",)),
        ("", ABDOMEN, ()),
        ("a photograph of a car", ABDOMEN, ()),
    ],
)
def test_what_a_sentence_names(text, known, expected):
    assert named_structures(text, known) == expected


@pytest.mark.parametrize(
    ("text", "a", "b", "expected"),
    [
        (prompt("class", HIPPOCAMPUS), *HIPPOCAMPUS, prompt("class", HIPPOCAMPUS[::-1])),
        ("Left kidney of 150 ml.", "left kidney", "right kidney", "Right kidney of 150 ml."),
        ("left kidney and liver", "left kidney", "pancreas", "pancreas and liver"),
        (
            "tumour in the upper pole of the left kidney, 23 mm across",
            *("left kidney tumour", "right kidney tumour"),
            "tumour in the upper pole of the right kidney, 23 mm across",
        ),
        ("liver tumour of 3 mm; liver of 900 ml", "liver", "liver tumour", "liver of 3 mm; liver tumour of 900 ml"),
        ("both kidneys", "left kidney", "right kidney", "both kidneys"),
        ("spleen", "left kidney", "right kidney", "spleen"),
    ],
)
def test_swapped_sentences(text, a, b, expected):
    assert swap_structures(text, a, b) == expected


@pytest.fixture
def kidneys() -> Volume:
    """Two kidneys of 20 x 20 x 60 mm, the right one with a tumour of 10 x 4 x 6 mm at its top; the array is LPS."""
    labels = np.zeros((50, 20, 40), np.uint8)  # voxels of 2 mm
    labels[5:15, 5:15, 5:35] = labels[35:45, 5:15, 5:35] = 1
    labels[8:13, 8:10, 30:33] = 2
    return Volume(labels, np.diag([-2.0, -2.0, 2.0, 1.0]))


def test_a_report_says_side_size_and_place(kidneys):
    report = [prompt("report", KITS, kidneys, ("background", *KITS), variant) for variant in (0, 1)]
    assert report == [
        "kidney of 48 ml; kidney tumour, 10 mm, on the right side, in the upper pole",
        "kidney, volume 48 ml; tumour in the upper pole of the right kidney, 10 mm across, 0.2 ml",
    ]


def test_a_report_follows_the_label(kidneys):
    names, classes = ["kidney tumour"], ("background", *KITS)
    mirrored = Volume(kidneys.array[::-1, :, ::-1], kidneys.affine)
    assert "left side, in the lower pole" in prompt("report", names, mirrored, classes)
    two = kidneys.array.copy()
    two[38:40, 8:10, 15:17] = 2
    second = prompt("report", names, Volume(two, kidneys.affine), classes, variant=1)
    assert second.startswith("2 tumours in the upper pole of the right kidney, the largest 10 mm across")
    none = Volume(np.minimum(kidneys.array, 1), kidneys.affine)
    assert prompt("report", names, none, classes) == "kidney tumour: none seen"


def test_places_in_liver_and_pancreas():
    classes = ("background", "liver", "liver tumour", "pancreas", "pancreas tumour")
    labels = np.zeros((40, 10, 10), np.uint8)  # RAS: the first index runs to the patient's right
    labels[:, :5], labels[:, 5:] = 1, 3
    labels[3:6, 2, 3], labels[30:34, 7, 3] = 2, 4
    texts = prompt("report", classes[2::2], Volume(labels, np.eye(4)), classes).split("; ")
    assert texts[0].endswith("in the left lobe") and texts[1].endswith("in the head")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "poem"}, "poem"),
        ({"names": []}, "one or more"),
        ({"names": "liver"}, "sequence"),
        ({"variant": -1}, "-1"),
        ({"kind": "anatomy", "names": ["left clavicle"]}, "left clavicle"),
        ({"kind": "report"}, "label map"),
        ({"kind": "report", "labels": Volume(np.ones((2, 2, 2)), np.eye(4)), "class_names": ("liver",)}, "background"),
        ({"kind": "report", "labels": Volume(np.ones((2, 2, 2)), np.eye(4)), "class_names": ("background",)}, "liver"),
    ],
)
def test_impossible_prompts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prompt(**{"kind": "class", "names": ["liver"], **arguments})


def test_every_structure_of_every_task_can_be_asked_for_in_words():
    for task in (entry for entry in DATASETS.values() if entry.kind == "volumes"):
        for kind in ("class", "anatomy"):
            for variant in range(VARIANTS[kind]):
                for name in task.structures:
                    text = prompt(kind, [name], variant=variant)
                    assert named_structures(text, task.structures) == (name,), (task.name, text)


def test_every_case_gets_its_sentence():
    cases = abdomen_phantoms(2, seed=0, shape=(28, 28, 24), spacing=(10.0, 10.0, 10.0))
    classes = ("background", *ABDOMEN)
    assert prompts_for(cases, classes, names=["liver"]) == ["liver"] * 2
    assert prompts_for(cases, classes)[0].startswith("liver, pancreas, left kidney")
    reports = prompts_for(cases, classes, "report", ["liver"])
    assert reports[0] != reports[1] and all(report.startswith("liver of ") for report in reports)

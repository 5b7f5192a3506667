"""What sentences ask for: sides, wholes, negation, spelling; and sentences that are written to ask."""

import numpy as np
import pytest

from textdiff.data.volumes.prompts import request
from textdiff.data.volumes.requests import read_request
from textdiff.evaluation.requests import requests_for

ORGANS = ("liver", "left kidney", "right kidney")
HIPPOCAMPUS = ("anterior hippocampus", "posterior hippocampus")
TUMOURS = (*ORGANS, "liver tumour", "left kidney tumour", "right kidney tumour", "pancreas tumour")
LEFT, RIGHT, BOTH = {"left kidney"}, {"right kidney"}, {"left kidney", "right kidney"}


@pytest.mark.parametrize(
    ("text", "known", "asked"),
    [
        pytest.param("R. kidney", ORGANS, RIGHT, marks=pytest.mark.takes("Sentences", '"R. kidney"', "taken")),
        ("liver and both kidneys", ORGANS, BOTH | {"liver"}),
        ("kidneys, left and right", ORGANS, BOTH),
        ("left & right kidney", ORGANS, BOTH),
        ("liver + kidneys", ORGANS, BOTH | {"liver"}),
        ("the kidney on the right side and the liver", ORGANS, RIGHT | {"liver"}),
        ("any kidney", ORGANS, BOTH),
        ("the organs that make urine", ORGANS, set()),
        ("the bean shaped organ on the left side of the spine", ORGANS, set()),
        ("none", ORGANS, set()),
        ("", ORGANS, set()),
        pytest.param(
            "left kidney, no tumour",
            TUMOURS,
            LEFT,
            marks=pytest.mark.takes("Sentences", '"left kidney, no tumour": the kidney alone', "taken"),
        ),
        ("a tumour in the left kidney and the right", TUMOURS, {"left kidney tumour", "right kidney tumour"}),
        ("left kidney tumour, not the right one", TUMOURS, {"left kidney tumour"}),
        ("tumours of the liver or kidneys", TUMOURS, {"left kidney tumour", "liver tumour", "right kidney tumour"}),
        ("kidney tumours, not the cysts", TUMOURS, {"left kidney tumour", "right kidney tumour"}),
        ("no mass in the liver or kidneys", TUMOURS, set()),
        ("no tumour in the liver, but one in the left kidney", TUMOURS, {"left kidney tumour"}),
        ("negative for hepatic metastases", TUMOURS, set()),
        ("liver without lesions", TUMOURS, {"liver"}),
        ("lesion-free kidneys", TUMOURS, BOTH),
        ("tumour of the kidney, left", TUMOURS, {"left kidney tumour"}),
        ("neither liver tumour nor kidney tumour", TUMOURS, set()),
        ("no tumour seen in the liver", TUMOURS, set()),
        ("liver, tumour not seen", TUMOURS, {"liver"}),
        ("a liver with no tumour", TUMOURS, {"liver"}),
        ("tumour of L kidney", TUMOURS, {"left kidney tumour"}),
        ("the kidneys except the right one", ORGANS, LEFT),
        ("kidneys but only the left one", ORGANS, LEFT),
        ("one kidney, the right", ORGANS, RIGHT),
        ("the left of the two kidneys", ORGANS, LEFT),
        ("the kidney to the left of the aorta", ORGANS, LEFT),
        ("the kidney that is not on the left", ORGANS, RIGHT),
        ("first the right kidney, then the left", ORGANS, BOTH),
        ("left rather than right kidney", ORGANS, LEFT),
        ("left kidney removed; mark the right", ORGANS, RIGHT),
        ("after resection of the left kidney: right kidney", ORGANS, RIGHT),
        ("liver and left but not right kidney", ORGANS, LEFT | {"liver"}),
        ("don't forget the liver", ORGANS, {"liver"}),
        ("do not leave out the right kidney", ORGANS, RIGHT),
        ("ignore everything but the liver", ORGANS, {"liver"}),
        ("do not mark anything except the left kidney", ORGANS, LEFT),
        ("nothing other than the liver", ORGANS, {"liver"}),
        ("everything else than the liver", ORGANS, BOTH),
        ("kidneys, forget the liver", ORGANS, BOTH),
        ("disregard the liver and outline the left kidney", ORGANS, LEFT),
        ("mark the kidneys and leave the liver out", ORGANS, BOTH),
        ("the liver isn't what I want; the kidneys are", ORGANS, BOTH),
        ("kidneys only on the right", ORGANS, RIGHT),
        ("Kidneys. Only the right.", ORGANS, RIGHT),
        ("right-hand kidney", ORGANS, RIGHT),
        ("liver yes, kidneys no", ORGANS, {"liver"}),
        ("kidneys: no, liver: yes", ORGANS, {"liver"}),
        ("Kidneys aren't wanted. Liver is.", ORGANS, {"liver"}),
        ("hippocampus, head only", HIPPOCAMPUS, {"anterior hippocampus"}),
        ("hippocampus: tail", HIPPOCAMPUS, {"posterior hippocampus"}),
        ("head of the hippocampi", HIPPOCAMPUS, {"anterior hippocampus"}),
        ("anterior hippocampus; the posterior one is not needed", HIPPOCAMPUS, {"anterior hippocampus"}),
        ("liver mets", TUMOURS, {"liver tumour"}),
        ("lump in the liver", TUMOURS, {"liver tumour"}),
        ("lesion (liver)", TUMOURS, {"liver tumour"}),
        ("not the liver, only its tumour", TUMOURS, {"liver tumour"}),
        ("tumour-bearing liver", TUMOURS, {"liver", "liver tumour"}),
        ("renal tumour on the left", TUMOURS, {"left kidney tumour"}),
        ("right kidney with a tumour in the left", TUMOURS, {"right kidney", "left kidney tumour"}),
        ("tumours in the liver and the pancreas", TUMOURS, {"liver tumour", "pancreas tumour"}),
        ("tumour of the liver and the right kidney", TUMOURS, RIGHT | {"liver tumour"}),
        ("all tumours except those of the liver", TUMOURS, set(TUMOURS[4:])),
        ("liver; the kidneys should not be segmented", ORGANS, {"liver"}),
        ("liver. The right kidney must not be marked.", ORGANS, {"liver"}),
        ("the liver, none of the kidneys", ORGANS, {"liver"}),
        ("liver; kidneys needn't be outlined", ORGANS, {"liver"}),
        ("liver; the kidneys don't have to be marked", ORGANS, {"liver"}),
        ("liver; kidneys won't be needed", ORGANS, {"liver"}),
        ("liver; the kidneys do not matter", ORGANS, {"liver"}),
        ("liver; the kidneys are not to be delineated", ORGANS, {"liver"}),
        ("liver; kidneys to be excluded", ORGANS, {"liver"}),
        ("liver; the kidneys may be left out", ORGANS, {"liver"}),
        ("liver; the kidneys are to be ignored", ORGANS, {"liver"}),
        ("liver; kidneys should stay unmarked", ORGANS, {"liver"}),
        ("liver; the kidneys are of no interest", ORGANS, {"liver"}),
        ("liver; kidneys were taken out", ORGANS, {"liver"}),
        ("liver; the left kidney has been surgically removed", ORGANS, {"liver"}),
        ("liver; kidneys: skip", ORGANS, {"liver"}),
        ("left kidney; the right one should not be segmented", ORGANS, LEFT),
        ("the left kidney, which is to be resected", ORGANS, LEFT),
        ("the hippocampus, but the head need not be marked", HIPPOCAMPUS, {"posterior hippocampus"}),
        ("CT without contrast, liver and left kidney", ORGANS, LEFT | {"liver"}),
        ("no i.v. contrast: liver", ORGANS, {"liver"}),
        ("no ascites, no free air, liver and kidneys", ORGANS, set(ORGANS)),
        ("without the liver, the spleen or the left kidney", ORGANS, set()),
        ("left kidney", ("kidney", "kidney tumour"), {"kidney"}),
        ("left kidney, not the right kidney", ("kidney", "kidney tumour"), {"kidney"}),
        ("not the right kidney", ("kidney", "kidney tumour"), set()),
        ("aorta and vena cava", ("aorta", "inferior vena cava"), {"aorta", "inferior vena cava"}),
        ("duodenum around the head of the pancreas", ("pancreas", "duodenum"), {"duodenum"}),
    ],
)
def test_what_a_request_asks_for(text, known, asked):
    assert set(read_request(text, known).asked) == asked


@pytest.mark.takes("Sentences", "sixty requests written by hand: what is meant is asked for", "taken")
@pytest.mark.parametrize("known", [ORGANS, HIPPOCAMPUS])
def test_sixty_requests_by_hand_are_read_as_meant(known):
    by_hand = requests_for(known)
    assert len(dict(by_hand)) == 60
    assert {text: read_request(text, known).asked for text, _ in by_hand} == dict(by_hand)


@pytest.mark.parametrize(
    ("text", "known", "field", "expected"),
    [
        ("liver and spleen", ORGANS, "unknown", ("spleen",)),
        ("the lungs", ORGANS, "unknown", ("lungs",)),
        ("a kidney beside the spleen", ORGANS, "unknown", ()),
        ("the right lobe of the liver", ORGANS, "parts", ("right lobe of the liver",)),
        ("hippocampal tail", HIPPOCAMPUS, "parts", ("hippocampal tail",)),
        ("body and tail", HIPPOCAMPUS, "parts", ()),
        ("body, tail", HIPPOCAMPUS, "parts", ()),
        ("a tumour in the lower pole of the left kidney", TUMOURS, "parts", ()),
        ("livr", ORGANS, "spelled", (("livr", "liver"),)),
        ("liver withuot the left kidney", ORGANS, "spelled", (("withuot", "without"),)),
        ("Where on this large image is the liver, please?", ORGANS, "spelled", ()),
        ("kidneys, no liver", ORGANS, "excluded", ("liver",)),
        ("Nothing.", ORGANS, "denied", ("everything",)),
        ("no evidence of liver tumour", ORGANS, "denied", ("liver tumour",)),
        ("left kidney", ("kidney",), "parts", ("left kidney",)),
        ("left and right kidney", ("kidney",), "parts", ()),
        ("left kidney and right kidney", ("kidney",), "parts", ()),
        ("kidneys, not the right kidney", ("kidney",), "parts", ("right kidney",)),
        ("left kidney", ORGANS, "parts", ()),
        ("liver; the kidneys should not be delineated", ORGANS, "unread", ()),
        ("kidneys that are not enlarged", ORGANS, "unread", ("not",)),
        ("don't forget the liver", ORGANS, "unread", ()),
        ("left liver lobe", ORGANS, "parts", ("liver lobe",)),
        ("kidney cortex", ORGANS, "parts", ("kidney cortex",)),
        ("head of the pancreas", ("pancreas",), "parts", ("head of the pancreas",)),
        ("kidney stones", ORGANS, "unread", ("stones",)),
        ("the contralateral kidney", ORGANS, "unread", ("contralateral",)),
        ("liver and left renal", ORGANS, "unread", ("left", "renal")),
        ("the kidney on the left of the image", ORGANS, "unread", ("left of the image",)),
        ("CT of the abdomen: pleae don't mark the kidneys, but the liver", ORGANS, "unread", ()),
        ("the kidneys, below the liver", ORGANS, "excluded", ()),
    ],
)
def test_what_else_is_read_in_a_request(text, known, field, expected):
    assert getattr(read_request(text, known), field) == expected


def test_requests_are_written_in_many_ways_and_some_ask_for_nothing():
    draw = np.random.default_rng(0)
    texts = {request(("left kidney",), ORGANS, draw) for _ in range(300)}
    assert len(texts) > 150
    assert any(" L" in text for text in texts) and any(text.isupper() for text in texts)
    assert any(set(read_request(text, ORGANS).excluded) == {"right kidney"} for text in texts)
    assert all(read_request(request((), ORGANS, draw), ORGANS).asked == () for _ in range(50))
    with pytest.raises(ValueError, match="cannot ask for spleen: the model knows liver"):
        request(("spleen",), ORGANS, draw)


@pytest.mark.parametrize("known", [ORGANS, TUMOURS])
def test_no_word_of_a_written_request_is_unread(known):
    draws = (np.random.default_rng(seed) for seed in range(100))
    texts = [request((known[seed % len(known)],), known, draw) for seed, draw in enumerate(draws)]
    assert sum(bool(read_request(text, known).unread) for text in texts) <= 5  # misspelt words of other organs

"""What sentences ask for: sides, wholes, negation, spelling; and sentences that are written to ask."""

import numpy as np
import pytest

from textdiff.data.volumes.prompts import request
from textdiff.data.volumes.requests import read_request

ORGANS = ("liver", "left kidney", "right kidney")
HIPPOCAMPUS = ("anterior hippocampus", "posterior hippocampus")
TUMOURS = (*ORGANS, "liver tumour", "left kidney tumour", "right kidney tumour", "pancreas tumour")
LEFT, RIGHT, BOTH = {"left kidney"}, {"right kidney"}, {"left kidney", "right kidney"}
FRONT, REAR = {"anterior hippocampus"}, {"posterior hippocampus"}


@pytest.mark.parametrize(
    ("text", "known", "asked"),
    [
        ("liver", ORGANS, {"liver"}),
        ("LIVER", ORGANS, {"liver"}),
        ("Segment the Liver, please.", ORGANS, {"liver"}),
        ("kidneys", ORGANS, BOTH),
        ("both kidneys", ORGANS, BOTH),
        ("the kidney on the left", ORGANS, LEFT),
        ("left and right kidney", ORGANS, BOTH),
        ("L kidney", ORGANS, LEFT),
        ("R. kidney", ORGANS, RIGHT),
        ("rt kidney", ORGANS, RIGHT),
        ("the left kidney, not the right", ORGANS, LEFT),
        ("the right kidney but not the left one", ORGANS, RIGHT),
        ("kidneys without the liver", ORGANS, BOTH),
        ("everything", ORGANS, BOTH | {"liver"}),
        ("everything except the liver", ORGANS, BOTH),
        ("all organs but the left kidney", ORGANS, RIGHT | {"liver"}),
        ("no kidneys, only the liver", ORGANS, {"liver"}),
        ("only the liver", ORGANS, {"liver"}),
        ("liver and both kidneys", ORGANS, BOTH | {"liver"}),
        ("hepatic parenchyma", ORGANS, {"liver"}),
        ("renal parenchyma on both sides", ORGANS, BOTH),
        ("the whole liver", ORGANS, {"liver"}),
        ("livr", ORGANS, {"liver"}),
        ("left kidny", ORGANS, LEFT),
        ("rigth kidney", ORGANS, RIGHT),
        ("the spleen", ORGANS, set()),
        ("liver and spleen", ORGANS, {"liver"}),
        ("no evidence of liver tumour", ORGANS, set()),
        ("the liver is free of tumour", ORGANS, {"liver"}),
        ("tumour-free liver", ORGANS, {"liver"}),
        ("kidney (left)", ORGANS, LEFT),
        ("kidney, right", ORGANS, RIGHT),
        ("left kidney; right kidney", ORGANS, BOTH),
        ("ignore the liver and mark the right kidney", ORGANS, RIGHT),
        ("Do not mark the liver. Mark the kidneys.", ORGANS, BOTH),
        ("don't segment the left kidney; segment the liver", ORGANS, {"liver"}),
        ("neither kidney, just the liver", ORGANS, {"liver"}),
        ("the left kidney instead of the right", ORGANS, LEFT),
        ("rather than the liver, the left kidney", ORGANS, LEFT),
        ("upper pole of the left kidney", ORGANS, LEFT),
        ("the right lobe of the liver", ORGANS, {"liver"}),
        ("bilateral kidneys", ORGANS, BOTH),
        ("kidneys, left and right", ORGANS, BOTH),
        ("left-sided kidney", ORGANS, LEFT),
        ("the organ left of the liver", ORGANS, set()),
        ("what lies beside the liver", ORGANS, set()),
        ("left/right kidney", ORGANS, BOTH),
        ("left & right kidney", ORGANS, BOTH),
        ("L + R kidney", ORGANS, BOTH),
        ("the left kidney is not needed, the right one is", ORGANS, RIGHT),
        ("the liver is absent", ORGANS, set()),
        ("Kidneys: left", ORGANS, LEFT),
        ("the left kidney and not the liver", ORGANS, LEFT),
        ("without liver, left kidney or spleen: right kidney", ORGANS, RIGHT),
        ("no left kidney; status post nephrectomy, right kidney", ORGANS, RIGHT),
        ("Where is the left kidney?", ORGANS, LEFT),
        ("liver + kidneys", ORGANS, BOTH | {"liver"}),
        ("KIDNEY_LEFT", ORGANS, LEFT),
        ("kidney left and liver", ORGANS, LEFT | {"liver"}),
        ("right kidney, left kidney", ORGANS, BOTH),
        ("right kidney, left adrenal gland", ORGANS, RIGHT),
        ("the kidney on the right side and the liver", ORGANS, RIGHT | {"liver"}),
        ("left, not right, kidney", ORGANS, LEFT),
        ("not the liver, the left kidney", ORGANS, LEFT),
        ("the lungs", ORGANS, set()),
        ("the liver next to the right kidney", ORGANS, {"liver"}),
        ("any kidney", ORGANS, BOTH),
        ("the organs that make urine", ORGANS, set()),
        ("the bean shaped organ on the left side of the spine", ORGANS, set()),
        ("none", ORGANS, set()),
        ("", ORGANS, set()),
        ("hippocampus", HIPPOCAMPUS, FRONT | REAR),
        ("the whole hippocampus", HIPPOCAMPUS, FRONT | REAR),
        ("hippocampi", HIPPOCAMPUS, FRONT | REAR),
        ("HIPPOCAMPUS", HIPPOCAMPUS, FRONT | REAR),
        ("hipocampus", HIPPOCAMPUS, FRONT | REAR),
        ("hippocampal head", HIPPOCAMPUS, FRONT),
        ("tail", HIPPOCAMPUS, REAR),
        ("hippocampal tail", HIPPOCAMPUS, REAR),
        ("head, not the tail", HIPPOCAMPUS, FRONT),
        ("the hippocampus except its head", HIPPOCAMPUS, REAR),
        ("everything but the anterior part", HIPPOCAMPUS, REAR),
        ("anterior", HIPPOCAMPUS, FRONT),
        ("post. hippocampus", HIPPOCAMPUS, REAR),
        ("the front of the hippocampus", HIPPOCAMPUS, FRONT),
        ("body and tail", HIPPOCAMPUS, REAR),
        ("posterior hippocampus without the anterior", HIPPOCAMPUS, REAR),
        ("the amygdala", HIPPOCAMPUS, set()),
        ("hippocampus and amygdala", HIPPOCAMPUS, FRONT | REAR),
        ("both parts of the hippocampus", HIPPOCAMPUS, FRONT | REAR),
        ("anterior and posterior hippocampus", HIPPOCAMPUS, FRONT | REAR),
        ("only the posterior part", HIPPOCAMPUS, REAR),
        ("the head of the hippocampus, the rest is not wanted", HIPPOCAMPUS, FRONT),
        ("no tumour in the hippocampus", HIPPOCAMPUS, set()),
        ("not the posterior but the anterior hippocampus", HIPPOCAMPUS, FRONT),
        ("left hippocampus", HIPPOCAMPUS, FRONT | REAR),
        ("anterior (head) of hippocampus", HIPPOCAMPUS, FRONT),
        ("ant. hippocampus", HIPPOCAMPUS, FRONT),
        ("the anterior hippocampus, not the posterior", HIPPOCAMPUS, FRONT),
        ("the posterior portion of the hippocampus", HIPPOCAMPUS, REAR),
        ("hippocampal body", HIPPOCAMPUS, REAR),
        ("anteroir hippocampus", HIPPOCAMPUS, FRONT),
        ("left kidney, no tumour", TUMOURS, LEFT),
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
    ],
)
def test_what_a_request_asks_for(text, known, asked):
    assert set(read_request(text, known).asked) == asked


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

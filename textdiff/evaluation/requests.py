"""Sixty requests by hand: a trained TextDiffSeg and volumes in, what it marked and what was said of it out.

The requests are written as people write them, not drawn from the grammar that training draws from. A request counts as obeyed
when every structure asked for is marked with a Dice of at least `GOOD`, and of the others no more than `LITTLE` of what is there.
A person's answer leaves out what was not asked for, and follows the plain names where they give another outline; what is still
not right must be told. What is neither right nor told is "silent", and the number that should be 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.prompts import request
from textdiff.data.volumes.requests import read_request
from textdiff.evaluation.metrics import case_counts
from textdiff.models.diffusion import Sampling
from textdiff.models.inference import predict_volume, segment_volume
from textdiff.models.textdiffseg import TextDiffSeg

GOOD, LITTLE = 0.7, 0.05
# Sentence, and the first letters of what it asks for: liVer, Left and Right kidney
ORGANS = (
    ("liver", "V"),
    ("LIVER", "V"),
    ("Segment the Liver, please.", "V"),
    ("kidneys", "LR"),
    ("both kidneys", "LR"),
    ("the kidney on the left", "L"),
    ("left and right kidney", "LR"),
    ("L kidney", "L"),
    ("rt kidney", "R"),
    ("the left kidney, not the right", "L"),
    ("the right kidney but not the left one", "R"),
    ("kidneys without the liver", "LR"),
    ("everything", "VLR"),
    ("everything except the liver", "LR"),
    ("all organs but the left kidney", "VR"),
    ("no kidneys, only the liver", "V"),
    ("only the liver", "V"),
    ("hepatic parenchyma", "V"),
    ("renal parenchyma on both sides", "LR"),
    ("the whole liver", "V"),
    ("livr", "V"),
    ("left kidny", "L"),
    ("rigth kidney", "R"),
    ("the spleen", ""),
    ("liver and spleen", "V"),
    ("no evidence of liver tumour", ""),
    ("the liver is free of tumour", "V"),
    ("tumour-free liver", "V"),
    ("kidney (left)", "L"),
    ("kidney, right", "R"),
    ("left kidney; right kidney", "LR"),
    ("ignore the liver and mark the right kidney", "R"),
    ("Do not mark the liver. Mark the kidneys.", "LR"),
    ("don't segment the left kidney; segment the liver", "V"),
    ("neither kidney, just the liver", "V"),
    ("the left kidney instead of the right", "L"),
    ("rather than the liver, the left kidney", "L"),
    ("upper pole of the left kidney", "L"),
    ("the right lobe of the liver", "V"),
    ("bilateral kidneys", "LR"),
    ("left-sided kidney", "L"),
    ("the organ left of the liver", ""),
    ("what lies beside the liver", ""),
    ("left/right kidney", "LR"),
    ("L + R kidney", "LR"),
    ("the left kidney is not needed, the right one is", "R"),
    ("the liver is absent", ""),
    ("Kidneys: left", "L"),
    ("the left kidney and not the liver", "L"),
    ("without liver, left kidney or spleen: right kidney", "R"),
    ("no left kidney; status post nephrectomy, right kidney", "R"),
    ("Where is the left kidney?", "L"),
    ("KIDNEY_LEFT", "L"),
    ("kidney left and liver", "VL"),
    ("right kidney, left kidney", "LR"),
    ("right kidney, left adrenal gland", "R"),
    ("left, not right, kidney", "L"),
    ("not the liver, the left kidney", "L"),
    ("the lungs", ""),
    ("the liver next to the right kidney", "V"),
)
# Anterior and Posterior hippocampus
HIPPOCAMPUS = (
    ("hippocampus", "AP"),
    ("the whole hippocampus", "AP"),
    ("hippocampi", "AP"),
    ("HIPPOCAMPUS", "AP"),
    ("hipocampus", "AP"),
    ("hippocampal head", "A"),
    ("tail", "P"),
    ("hippocampal tail", "P"),
    ("head, not the tail", "A"),
    ("the hippocampus except its head", "P"),
    ("everything but the anterior part", "P"),
    ("anterior", "A"),
    ("post. hippocampus", "P"),
    ("the front of the hippocampus", "A"),
    ("body and tail", "P"),
    ("posterior hippocampus without the anterior", "P"),
    ("the amygdala", ""),
    ("hippocampus and amygdala", "AP"),
    ("both parts of the hippocampus", "AP"),
    ("anterior and posterior hippocampus", "AP"),
    ("only the posterior part", "P"),
    ("the head of the hippocampus, the rest is not wanted", "A"),
    ("no tumour in the hippocampus", ""),
    ("not the posterior but the anterior hippocampus", "A"),
    ("left hippocampus", "AP"),
    ("anterior (head) of hippocampus", "A"),
    ("ant. hippocampus", "A"),
    ("the anterior hippocampus, not the posterior", "A"),
    ("the posterior portion of the hippocampus", "P"),
    ("hippocampal body", "P"),
    ("anteroir hippocampus", "A"),
    ("Segment the hippocampus, please.", "AP"),
    ("the entire hippocampal formation", "AP"),
    ("Where is the hippocampus?", "AP"),
    ("hippocampus, all of it", "AP"),
    ("ANTERIOR HIPPOCAMPUS", "A"),
    ("Posterior Hippocampus.", "P"),
    ("the thick end of the hippocampus, in front of its body", "A"),
    ("the rear part of the hippocampus, its body and tail", "P"),
    ("hippocampal head only", "A"),
    ("just the tail and body", "P"),
    ("the body of the hippocampus", "P"),
    ("head", "A"),
    ("head and body and tail", "AP"),
    ("anterior hippocampus but not the posterior part", "A"),
    ("no anterior hippocampus, only the posterior", "P"),
    ("exclude the head; mark the posterior hippocampus", "P"),
    ("do not mark the posterior part. Mark the anterior part.", "A"),
    ("hippocampus without the tail and body", "A"),
    ("anterior part instead of the posterior", "A"),
    ("the front part of the hippocampus", "A"),
    ("hippocampus posterior", "P"),
    ("show me the back of the hippocampus", "P"),
    ("posterier hippocampus", "P"),
    ("hippocampous", "AP"),
    ("the liver", ""),
    ("nothing", ""),
    ("not the hippocampus", ""),
    ("hippocampus, anterior and posterior", "AP"),
    ("Both hippocampal parts", "AP"),
)
LETTERS: dict[tuple[str, ...], tuple[Sequence[tuple[str, str]], Mapping[str, str]]] = {
    ("liver", "left kidney", "right kidney"): (ORGANS, {"V": "liver", "L": "left kidney", "R": "right kidney"}),
    ("anterior hippocampus", "posterior hippocampus"): (
        HIPPOCAMPUS,
        {"A": "anterior hippocampus", "P": "posterior hippocampus"},
    ),
}


def requests_for(names: Sequence[str], seed: int = 0) -> list[tuple[str, tuple[str, ...]]]:
    """Sixty sentences and what each asks for: by hand for the shipped models' structures, drawn from the grammar for others."""
    if tuple(names) in LETTERS:
        sentences, letters = LETTERS[tuple(names)]
        return [(text, tuple(name for letter, name in letters.items() if letter in asked)) for text, asked in sentences]
    draw = np.random.default_rng(seed)
    wanted = [tuple(name for name in names if draw.random() < 0.5) for _ in range(60)]
    return [(request(some, names, draw), some) for some in wanted]


def requests_study(
    model: TextDiffSeg, cases: Sequence[VolumeCase], sampling: Sampling = Sampling(), seed: int = 0
) -> pd.DataFrame:
    """One row per sentence and volume.

    `sentence`, `asked` (meant by hand) and `read` (by the rules), `case`; `obeyed`: by the network alone; `again`: the mask follows
    the plain names; `right`: what a person gets; `told`: something was said; `silent`: not right, and not told;
    `network_dice`, `dice`: the worst of what was asked for, by the network alone and in the answer (nan for nothing); `said`.
    """
    names, rows = model.class_names[1:], []
    loaded = [(case, *case.pair()) for case in cases]
    for text, asked in requests_for(names, seed):
        read = read_request(text, names)
        for case, image, truth in loaded:
            network = segment_volume(model, image, text, sampling, progress=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = predict_volume(model, image, text, sampling, progress=False)
            obeyed, worst = _agreement(network.labels.array, truth.array, asked, names)
            right, reached = _agreement(answer.labels.array, truth.array, asked, names)
            row: dict[str, object] = {"sentence": text, "asked": _listed(asked), "read": _listed(read.asked)}
            row |= {"case": case.name, "obeyed": obeyed, "again": answer.prompt != text, "right": right}
            row |= {"told": bool(answer.remarks), "silent": not right and not answer.remarks}
            rows.append(row | {"network_dice": worst, "dice": reached, "said": " | ".join(answer.remarks)})
    return pd.DataFrame(rows)


def _agreement(labels: np.ndarray, truth: np.ndarray, asked: Sequence[str], names: Sequence[str]) -> tuple[bool, float]:
    """Whether a label map is what was asked for, and the worst Dice of what was (nan for nothing)."""
    scores, clean = [], True
    for name, (common, marked, there) in zip(names, case_counts(labels, truth, len(names) + 1), strict=True):
        if name in asked:
            scores.append(float(2 * common / (marked + there)) if marked + there else 1.0)  # rightly nothing
        else:
            clean &= bool(marked <= LITTLE * there)
    return clean and min(scores, default=1.0) >= GOOD, min(scores, default=float("nan"))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def requests_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`requests_study` by sentence, over the volumes: shares (0..1) of `obeyed`, `again`, `right`, `told`, `silent`, and mean of `dice`; the worst first."""
    by = rows.groupby(["sentence", "asked", "read"], sort=False)
    table = by[["obeyed", "again", "right", "told", "silent", "dice"]].mean().reset_index()
    return table.sort_values(["silent", "right", "obeyed"], ascending=[False, True, True], kind="stable").reset_index(
        drop=True
    )


def requests_metrics(rows: pd.DataFrame) -> dict[str, float]:
    """Flat metrics of a record: numbers of sentences, of volumes, and of sentences that hold for every volume."""
    by = rows.groupby("sentence")
    every = by[["obeyed", "right"]].all()
    answered = (rows["right"] | rows["told"]).groupby(rows["sentence"]).all()
    return {
        "test/n": float(rows["case"].nunique()),
        "requests/n": float(len(every)),
        "requests/read_as_meant": float((rows["asked"] == rows["read"]).groupby(rows["sentence"]).all().sum()),
        "requests/obeyed_by_the_network": float(every["obeyed"].sum()),
        "requests/right": float(every["right"].sum()),
        "requests/right_or_told": float(answered.sum()),
        "requests/silent_share": float(rows["silent"].mean()),
        "requests/asked_again_share": float(rows["again"].mean()),
        "requests/obeyed_share": float(rows["obeyed"].mean()),
        "requests/right_share": float(rows["right"].mean()),
    }

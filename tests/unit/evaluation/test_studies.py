"""What is asked of one trained model: one row per volume and question, and slices hung as radiologists hang them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.tiny_volumes import NAMES as BOXES
from tests.tiny_volumes import volume_case
from textdiff.data.registry import DATASETS
from textdiff.data.volumes.patches import Preprocessing
from textdiff.data.volumes.phantoms import abdomen_phantoms
from textdiff.data.volumes.volume import Volume
from textdiff.evaluation.studies import (
    ALL,
    LONG,
    SAMPLED,
    answers_to,
    asked_only,
    by_question,
    each_asked,
    looks,
    prompt_metrics,
    prompt_study,
    sampling_study,
    share_asked,
    two_sentences,
    worst_middle_best,
)
from textdiff.models.text import TextEncoder
from textdiff.models.textdiffseg import TextDiffSeg

NAMES = ("liver", "left kidney")
TINY = {"widths": (4, 4, 8), "denoiser_widths": (16, 32), "latent_channels": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    text = TextEncoder.from_pretrained("tiny", max_length=64)
    return TextDiffSeg(text, ("background", *NAMES), Preprocessing(None, (-160.0, 240.0), (24, 24, 24)), **TINY).eval()


@pytest.fixture(scope="module")
def cases():
    values = DATASETS["abdomen_phantoms"].only(NAMES).labels
    made = abdomen_phantoms(2, seed=0, shape=(24, 24, 24), spacing=(12.0, 12.0, 10.0))
    return [replace(case, values=values) for case in made]


def test_every_way_to_sample_is_measured_once_and_long_ones_on_few_volumes(model, cases):
    ways = [("ddim", 1, 1), ("ddim", 1, 1), ("ddim", 1, 2), ("ddpm", LONG + 1, 1)]
    model.diffusion, kept = Quick(model.diffusion), model.diffusion
    try:
        table, reliability = sampling_study(model, cases, ways, max_long=1)
    finally:
        model.diffusion = kept
    assert table.groupby(["sampler", "sampling_steps", "samples"], sort=False).size().tolist() == [2, 2, 1]
    assert set(SAMPLED) <= set(table.columns) and table["dice"].between(0, 1).all()
    assert list(reliability) == list(dict.fromkeys(ways)) and all(one["n"].sum() > 0 for one in reliability.values())


class Quick:
    """A diffusion that takes one step, however many are asked for."""

    def __init__(self, diffusion):
        self.diffusion = diffusion

    def sample(self, denoise, shape, batch, sampling, *rest):
        return self.diffusion.sample(denoise, shape, batch, replace(sampling, sampling_steps=1), *rest)


def test_every_question_is_asked_in_every_kind(model, cases):
    answers = prompt_study(model, cases[:1], sampling_steps=1)
    assert len(answers) == 3 * 3 * len(NAMES)
    assert set(answers["asked"]) == {ALL, *NAMES} and set(answers["kind"]) == {"class", "anatomy", "report"}
    asked = answers.set_index(["kind", "asked"])["prompt"]
    assert asked["class", "liver"].iloc[0] == "liver" and "ml" in asked["report", "left kidney"].iloc[0]


def test_volumes_without_a_structure_say_nothing_about_reading():
    row = {"case": "a", "kind": "class", "asked": "liver", "structure": "liver", "dice": 1.0, "actual_ml": 0.0}
    held = row | {"dice": 0.5, "actual_ml": 9.0}
    answers = pd.DataFrame([row, held, held | {"asked": ALL, "dice": 0.7}])
    table = by_question(answers)["class"]
    assert table.loc["liver", "liver"] == 0.5 and table.loc[ALL, "liver"] == 0.7
    assert by_question(answers, "std")["class"].isna().all(axis=None)
    metrics = {"test/n": 1, "class/dice_liver_asked_for_liver": 0.5, "class/dice_liver_asked_for_all": 0.7}
    assert prompt_metrics(answers) == metrics


def test_the_slice_and_its_words_are_hung_as_radiologists_do(model):
    """A mark at the patient's front right must be at the upper left."""
    labels = np.zeros((32, 32, 24), np.uint8)
    labels[24:, 24:, 10:14] = 1
    image = Volume(np.where(labels > 0, 200.0, -100.0).astype(np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    ((picture, truth, text, words, maps),) = looks(model, image, Volume(labels, image.affine), ["the left kidney"])
    assert text == "the left kidney"
    assert picture.shape == (24, 24, 3) and truth.shape == (24, 24) and maps.shape == (len(words), 6, 6)
    assert truth[:8, :8].all() and not truth[12:].any() and picture[0, 0, 0] == 255
    assert words[1:3] == ["the", "left"] or words[:2] == ["the", "left"]
    assert maps.min() >= 0 and maps.sum(axis=0).max() <= 1 + 1e-5


# --- one segmenter, many sentences -----------------------------------------------------------------------


def boxes(image, text):
    """A reader of `tiny_volumes`: finds by brightness what the text names, and warns as a prediction does."""
    found = np.rint(image.array / 50).clip(0, 2).astype(np.uint8)
    named = [k for k, name in enumerate(BOXES) if k and name in text]
    if not named:
        warnings.warn(f"{text!r} names nothing that this model knows", stacklevel=2)
    return Volume(np.where(np.isin(found, named), found, 0), image.affine)


def test_what_is_marked_under_any_sentence():
    image, truth = volume_case().pair()
    table = answers_to(boxes, image, truth, ["liver", "a lovely day"], BOXES)
    assert table["sentence"].tolist() == ["liver", "a lovely day", "(the truth)"]
    assert table["warned"].tolist() == ["", "yes", ""]
    assert table["understood by rules"].tolist()[:2] == ["liver", "nothing"]
    assert table["liver (ml)"].tolist() == [2.3, 0.0, 2.3] and table["left kidney (ml)"].tolist()[:2] == [0.0, 0.0]


def test_each_structure_is_asked_for_alone_and_all_together():
    case = volume_case()
    masks = each_asked(boxes, case, BOXES)
    found = {asked: np.unique(one.array).tolist() for asked, one in masks.items()}
    assert found == {ALL: [0, 1, 2], "liver": [0, 1], "left kidney": [0, 2]}
    assert share_asked(masks[ALL], BOXES, ["liver"]) == pytest.approx(288 / (288 + 180), abs=0.01)
    assert np.isnan(share_asked(asked_only(masks["liver"], BOXES, []), BOXES, ["liver"]))


def test_a_second_sentence_asks_for_something_else():
    truth = volume_case().labels()
    assert two_sentences("", truth, BOXES) == {"liver": ("liver",), "left kidney": ("left kidney",)}
    mine = two_sentences("segment the left kidney.", None, BOXES)
    assert list(mine.values()) == [("left kidney",), ("liver",)]
    assert list(two_sentences("", None, BOXES).values())[0] == BOXES[1:]


def test_cases_in_order_of_their_dice():
    def worse(image, text):
        found = boxes(image, text)
        return Volume(found.array * (np.arange(20) < 4 + 3 * int(image.name))[:, None, None], image.affine)

    cases = [volume_case(name) for name in ("1", "5", "2")]
    chosen = worst_middle_best(worse, cases, BOXES)
    assert [case.name for case, _ in chosen.values()] == ["1", "2", "5"] and chosen["best"][1] > 0.95


def test_a_volume_that_is_too_thin_for_the_model_is_refused(model):
    thin = Volume(np.zeros((24, 24, 5), np.float32), np.diag([12.0, 12.0, 10.0, 1.0]))
    with pytest.raises(ValueError, match="each side must have at least 8"):
        looks(model, thin, replace(thin, array=np.ones(thin.shape, np.uint8)), ["liver"])

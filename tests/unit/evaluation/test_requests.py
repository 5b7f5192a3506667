"""What counts as obeyed, right, told and silent, with a stand-in for a model whose answers are known."""

import numpy as np
import pytest
import torch

from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.patches import Preprocessing
from textdiff.data.volumes.requests import read_request
from textdiff.data.volumes.volume import Volume
from textdiff.evaluation.requests import _agreement, requests_for, requests_metrics, requests_study, requests_table

NAMES = ("liver", "left kidney", "right kidney")


class Marks:
    """Marks the structures that a rule picks for a sentence, each a third of the volume along its first axis."""

    class_names = ("background", *NAMES)
    device, preprocessing = torch.device("cpu"), Preprocessing(None, (0.0, 1.0), (24, 8, 8))

    def __init__(self, rule):
        self.rule = rule

    def segment(self, images, prompts, sampling):
        found = torch.zeros(1, 4, *images.shape[2:])
        found[:, 0] = 0.5
        for number, name in enumerate(NAMES, start=1):
            if name in self.rule(prompts[0]):
                found[:, number, 8 * number - 8 : 8 * number] = 1
        return found / found.sum(dim=1, keepdim=True)


@pytest.fixture
def case():
    thirds = np.repeat(np.arange(1, 4, dtype=np.uint8), 8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    image = np.random.default_rng(0).random((24, 8, 8)).astype(np.float32)
    return VolumeCase("x", image_volume=Volume(image, np.eye(4)), label_volume=Volume(thirds, np.eye(4)))


def obeying(text):
    return dict(requests_for(NAMES)).get(text) or read_request(text, NAMES).asked


def studied(rule, case):
    rows = requests_study(Marks(rule), [case])
    return rows, requests_metrics(rows)


def test_a_model_that_obeys(case):
    rows, metrics = studied(obeying, case)
    assert metrics["requests/n"] == metrics["requests/obeyed_by_the_network"] == metrics["requests/right_or_told"] == 60
    assert metrics["requests/silent_share"] == 0 and metrics["requests/read_as_meant"] == 60
    assert len(requests_table(rows)) == 60 and (rows.loc[rows["asked"] != "nothing", "dice"] == 1).all()


def test_a_model_that_marks_everything_is_set_right_where_something_is_asked_for(case):
    rows, metrics = studied(lambda text: NAMES, case)
    asked = rows["asked"] != "nothing"
    assert rows.loc[asked, "right"].all() and not rows["silent"].any()
    assert not rows.loc[rows["asked"] == "liver", "obeyed"].any()
    assert metrics["requests/right_or_told"] == 60 > metrics["requests/right"]


def test_a_model_that_marks_nothing_is_told_of_and_never_silent(case):
    rows, metrics = studied(lambda text: (), case)
    asked = rows["asked"] != "nothing"
    assert not rows.loc[asked, "right"].any() and rows.loc[asked, "told"].all() and not rows["silent"].any()


def test_an_answer_that_is_poor_and_not_noticed_is_silent(case):
    class Half(Marks):
        def segment(self, images, prompts, sampling):
            found = super().segment(images, prompts, sampling)
            found[..., 3:] = torch.tensor([1.0, 0, 0, 0]).reshape(1, 4, 1, 1, 1)
            return found

    rows = requests_study(Half(obeying), [case])
    assert rows.loc[rows["sentence"] == "liver", "silent"].all()


def test_sentences_for_other_structures_are_drawn():
    drawn = requests_for(("spleen", "pancreas"))
    assert len(drawn) == 60 and {names for _, names in drawn} >= {("spleen",), ("pancreas",)}
    assert drawn == requests_for(("spleen", "pancreas"))


def test_what_is_asked_for_and_rightly_not_found_is_right():
    nothing = np.zeros((4, 4, 4), np.uint8)
    assert _agreement(nothing, nothing, ["liver"], NAMES) == (True, 1.0)
    assert _agreement(nothing + np.uint8(1), nothing, ["liver"], NAMES) == (False, 0.0)

"""Images from the worst to the best: nobody chooses them."""

from __future__ import annotations

import pytest
from tiny_models import cases, tiny_features, tiny_textdiff

from textdiff.experiments import images
from textdiff.experiments.qualitative import SENTENCES, under_sentences, worst_to_best
from textdiff.models.text import TextEncoder


@pytest.mark.parametrize(
    ("n_shown", "names"),
    [(2, ["case2", "case0"]), (3, ["case2", "case3", "case0"]), (9, ["case2", "case1", "case3", "case0"])],
)
def test_cases_are_taken_at_even_distances(n_shown, names):
    dice = {"case0": 0.9, "case1": 0.3, "case2": 0.1, "case3": 0.5}
    chosen = worst_to_best(cases(4), dice, n_shown)
    assert [case.name for case in chosen.values()] == names
    assert list(chosen)[0] == "0 %" and list(chosen)[-1] == "100 %"


def test_one_model_under_three_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PHANTOM_SIDE", 32)
    monkeypatch.setattr(images, "PHANTOM_SPLITS", (4, 2, 4))
    tiny_textdiff(TextEncoder.from_pretrained("tiny"), features=tiny_features()).save_pretrained(tmp_path)
    asked = images.TextDiffConfig.from_params(dataset="chest_phantoms")
    model, config, data = images.saved_model(asked, str(tmp_path))
    assert config.image_size == 16, "as the model saw its images"
    rows = under_sentences(model, config, data, 2)
    assert [row[0] for row in rows] == ["0 %", "100 %"]
    for _, image, truth, masks in rows:
        assert list(masks) == list(SENTENCES)
        assert all(mask.shape == truth.shape == image.shape[:2] for mask in masks.values())


def test_without_a_model_it_is_said_how_to_make_one():
    config = images.TextDiffConfig.from_params(dataset="nuclei_phantoms")
    with pytest.raises(ValueError, match="textdiff run 13"):
        images.saved_model(config, "")

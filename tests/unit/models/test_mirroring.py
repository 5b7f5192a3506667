"""A picture and its mirror image: means of both answers, sentences that follow, networks that train as without."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_textdiff

from textdiff.models.baselines import build_baseline
from textdiff.models.mirroring import Mirrored, mirrored_logits
from textdiff.models.text import TextEncoder
from textdiff.models.textdiff import TextDiff

LEFT, RIGHT = (f"unilateral pulmonary infection, one infected area, upper {side} lung." for side in ("left", "right"))


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_mean_of_both_answers_lies_where_the_picture_is():
    def bright(pixels: torch.Tensor, captions: list[str]) -> torch.Tensor:
        found = pixels.mean(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(found), found], dim=1)

    # What looks at every pixel alone answers the same twice
    found = mirrored_logits(bright, images(), [LEFT, "The nuclei are evenly distributed."]).softmax(dim=1)
    assert torch.allclose(found, bright(images(), []).softmax(dim=1), atol=1e-6)


def test_the_sentence_follows_and_one_that_cannot_is_asked_once():
    asked: list[str] = []

    def left_half(pixels: torch.Tensor, captions: list[str]) -> torch.Tensor:
        asked.extend(captions)
        found = torch.zeros(len(pixels), 2, 32, 32)
        for one, caption in zip(found, captions, strict=True):
            half = slice(None, 16) if "left" in caption else slice(16, None)
            one[1, :, half] = 4.0
        return found

    stuck = "The nuclei lie at the top."
    found = mirrored_logits(left_half, images(3), [LEFT, RIGHT, stuck]).softmax(dim=1)
    assert asked == [LEFT, RIGHT, stuck, RIGHT, LEFT]
    assert torch.allclose(found, left_half(images(3), [LEFT, RIGHT, stuck]).softmax(dim=1), atol=1e-6)


def test_textdiff_asks_twice_once_trained_and_remembers_it(tmp_path):
    once = tiny_textdiff(TextEncoder.from_pretrained("tiny"), positions=True).eval()
    once.mirrored, once.settings["model"]["mirrored"] = True, True
    once.save_pretrained(tmp_path)
    twice = TextDiff.from_pretrained(tmp_path)
    captions = [LEFT, RIGHT]
    with torch.no_grad():
        both = twice(images(), captions)
        turned = twice(images().flip(-1), [RIGHT, LEFT]).flip(-1)
        assert twice.mirrored and torch.allclose(both.softmax(1), turned.softmax(1), atol=1e-5)
        twice.train()
        assert not torch.allclose(twice(images(), captions).softmax(1), both.softmax(1), atol=1e-4)


@pytest.mark.parametrize("name", ["unet", "text_unet"])
def test_any_network_can_be_asked_twice(name):
    text = TextEncoder.from_pretrained("tiny")
    net = build_baseline(name, 2, text=text)
    model = Mirrored(net).eval()
    with torch.no_grad():
        turned = model(images().flip(-1), [RIGHT, LEFT]).flip(-1)
        assert torch.allclose(model(images(), [LEFT, RIGHT]).softmax(1), turned.softmax(1), atol=1e-4)
        model.train()
        assert torch.equal(model(images(), [LEFT, RIGHT]), net(images(), [LEFT, RIGHT]))
    assert model.criterion == net.criterion


def test_both_answers_are_averaged_as_probabilities():
    def sided(pixels, captions):
        found = torch.zeros(len(pixels), 2, 4, 4)
        found[:, 1, :, :2], found[:, 1, :, 2:] = 6.0, -2.0
        return found

    found = mirrored_logits(sided, torch.zeros(1, 3, 4, 4), ["The nuclei are evenly distributed."]).softmax(dim=1)
    assert torch.allclose(found[0, 1], torch.tensor([6.0, -2.0]).sigmoid().mean(), atol=1e-6)

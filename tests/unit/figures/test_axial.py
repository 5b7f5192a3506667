"""Axial slices: hung as radiologists do, the right ones chosen, titles that tell what is shown."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_volumes import NAMES, training_volumes, volume_case
from textdiff.figures import axial
from textdiff.figures.style import description


def titles(fig):
    return [one.get_title().replace("\n", " ") for one in fig.axes]


def pixels(fig, place: int) -> np.ndarray:
    return fig.axes[place].images[0].get_array()


@pytest.fixture(scope="module")
def batch():
    volumes = training_volumes(single=0.0, foreground=0.0, distances=True)
    return volumes.collate([volumes.sample(0), volumes.sample(1)])


def test_a_mark_at_the_front_right_is_at_the_upper_left():
    grey, colours = np.full((6, 4), -1.0), np.zeros((3, 6, 4))
    grey[5, 3], colours[:, 5, 3] = 1, 1
    fig = axial.axial_grid({"grey": grey, "colours": colours}, 2, "Marks.")
    for place in (0, 1):
        shown = pixels(fig, place)
        assert shown.shape[:2] == (4, 6) and shown[0, 0].min() == 1 and shown[1:].max() == 0
    assert description(fig)["caption"] == "Marks."


def test_windows_name_their_ends():
    image, labels = volume_case().pair()
    fig = axial.through_windows(image, labels, {"soft": (-50.0, 100.0), "percentiles": None})
    assert titles(fig) == ["soft: -50 to 100", "percentiles"]
    assert pixels(fig, 0).max() == 1  # the brighter box is as bright as the window ends


def test_patches_stand_above_their_places(batch):
    fig = axial.patches_and_places(batch, (-100.0, 100.0))
    assert titles(fig) == ["patch 0", "patch 1", "patch 0: how far right", "patch 1: how far right"]
    ramp = pixels(fig, 2)[..., 0]
    assert (np.diff(ramp, axis=1) < 0).all(), "the patient's right is on the left, and bright"


def test_the_encoder_is_given_maps_and_distances(batch):
    fig = axial.encoder_inputs(batch, NAMES[1:], (-100.0, 100.0), shown=2)
    assert titles(fig)[1:3] == ["liver", "left kidney"] and titles(fig)[4] == "liver: distance"
    assert set(np.unique(pixels(fig, 1))) <= {0.0, 1.0}


def test_latents_become_colours():
    rng = np.random.default_rng(0)
    fig = axial.latent_colours({"clean": rng.normal(size=(4, 3, 3, 2)), "t = 9": rng.normal(size=(4, 3, 3, 2))})
    assert titles(fig) == ["clean", "t = 9"] and pixels(fig, 0).shape == (3, 3, 3)

"""The label latent under study: shapes, what is taken out, exchanged and noised, and that an ablation is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny_volumes import KEEP, NAMES, volume_case
from textdiff.evaluation.latent import WAYS, LatentStudy
from textdiff.models.text import TextEncoder
from textdiff.models.textdiffseg import TextDiffSeg

TINY = {"widths": (4, 4, 8), "denoiser_widths": (16, 32), "latent_channels": 4}


def built(**changes) -> TextDiffSeg:
    torch.manual_seed(0)
    text = TextEncoder.from_pretrained("tiny", max_length=64)
    return TextDiffSeg(text, NAMES, KEEP, **TINY, **changes).eval()


@pytest.fixture(scope="module")
def study() -> LatentStudy:
    return LatentStudy(built(), [volume_case("a"), volume_case("b", seed=1)])


def test_everything_is_asked_for_and_encoded(study):
    assert study.batch.prompts[0].count("liver") == study.batch.prompts[0].count("kidney") == 1
    assert study.latent.shape == (2, 4, 4, 4, 4) and study.decoded.shape == (2, 3, 16, 16, 16)
    assert torch.allclose(study.decode(study.latent), study.decoded, atol=1e-5)
    truth = torch.nn.functional.one_hot(study.batch.labels, 3).movedim(-1, 1).float()
    table = study.dice(truth)
    assert table.columns.tolist() == list(NAMES[1:])
    assert all(value == 1 or np.isnan(value) for value in table.to_numpy().ravel())


def test_tables_of_what_is_taken_out_and_exchanged(study):
    alone = study.one_alone()
    assert alone.index.tolist() == alone.columns.tolist() == list(NAMES[1:])
    table = study.exchanged((0.0, 1.0))
    assert table.loc["own labels", 0.0] == pytest.approx(study.dice(study.decoded).mean(axis=1).mean(), abs=0.02)
    assert set(study.channels().index) <= set(NAMES[1:])


def test_noise_grows_and_is_the_same_each_time(study):
    noised = study.noised([10, 500, 999])
    assert torch.equal(study.noised([500])[500], noised[500])
    dice, errors = study.restored(noised)
    assert dice.index.tolist() == list(WAYS) and dice.columns.tolist() == [10, 500, 999]
    assert errors["squared error of the noised latent"].is_monotonic_increasing
    assert study.amplitude(10) > 0.99 > 0.01 > study.amplitude(999)


def test_an_ablation_is_refused():
    with pytest.raises(ValueError, match="label encoder"):
        LatentStudy(built(label_encoder=False), [volume_case()])

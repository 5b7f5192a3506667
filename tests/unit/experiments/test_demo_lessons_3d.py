"""What the 3D pages say of synthetic volumes is what their records and the model that ships show.

A page must teach no wrong lesson: a model that reads leaves what was not asked for, and one without text cannot follow.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from textdiff.data import load_volumes
from textdiff.data.registry import DATASETS
from textdiff.data.volumes.patches import Preprocessing
from textdiff.evaluation.latent import LatentStudy
from textdiff.evaluation.metrics import case_scores
from textdiff.evaluation.studies import ALL, each_asked
from textdiff.experiments.grids import grid
from textdiff.experiments.records import load_records, published_dir
from textdiff.models.diffusion import Sampling
from textdiff.models.textdiffseg import TextDiffSeg
from textdiff.report.rows import by_row
from textdiff.report.volumes import prompt_matrix, prompt_table

PHANTOMS = "abdomen_phantoms"
FOUND, NEAR_ZERO = 0.7, 0.1  # Dice of what was asked for at least, of what was not at most
TWO_STEPS = Sampling(2)


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return load_records(published_dir())


def draws_of(name: str, label: str, records: pd.DataFrame) -> pd.DataFrame:
    draws = next(runs.draws for runs in by_row(grid(name, PHANTOMS), records) if runs.row.label == label)
    if draws.empty:
        pytest.skip(f"no record yet: textdiff sweep {name} -p dataset={PHANTOMS}")
    return draws


def assert_it_reads(matrix: pd.DataFrame) -> None:
    asked_for = np.eye(len(matrix), dtype=bool)
    dice = matrix.loc[list(matrix.columns)].to_numpy()
    assert dice[asked_for].min() >= FOUND and dice[~asked_for].max() <= NEAR_ZERO, matrix


# --- notebooks 22, 23, 24, 26: records ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [("ablation3d", "TextDiffSeg"), ("comparison3d", "TextDiffSeg"), ("prompts3d", "the structure's name")],
)
def test_the_model_that_reads_leaves_what_was_not_asked_for(name, label, records):
    assert_it_reads(prompt_matrix(draws_of(name, label, records)))


def test_the_text_free_twin_cannot_follow(records):
    reader = draws_of("ablation3d", "TextDiffSeg", records)
    twin = draws_of("ablation3d", "without text fusion", records)
    assert prompt_matrix(twin).empty, "it has nothing to be asked with"
    assert "without text fusion" not in prompt_table(grid("ablation3d", PHANTOMS), records).frame["Model"].tolist()
    # Whatever is asked, its mask is the same: of what was not asked for it marks as much as of anything
    assert twin["test/dice"].min() >= FOUND > NEAR_ZERO >= reader["test/dice_swapped"].max()


def test_every_network_finds_drawn_organs(records):
    for label in ("TextDiffSeg", "SegResNet"):
        assert draws_of("comparison3d", label, records)["test/dice"].min() >= FOUND


def test_the_record_of_the_model_that_ships_says_that_it_reads(records):
    own = records[(records["dataset"] == PHANTOMS) & (records["experiment"] == "textdiffseg3d")]
    longest = own[(own["model"] == "textdiffseg") & ~own["stale"].astype(bool)].nlargest(1, "iterations")
    assert len(longest) == 1
    assert_it_reads(prompt_matrix(longest))


# --- notebooks 21, 22, 26, 27, 28: the model that ships, live ----------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> TextDiffSeg:
    return TextDiffSeg.from_pretrained(DATASETS[PHANTOMS].model)


@pytest.fixture(scope="module")
def cases(shipped):
    return load_volumes(PHANTOMS, structures=shipped.class_names[1:], sizes=(0, 0, 2)).test


def test_the_mask_moves_with_the_words(shipped, cases):
    masks = each_asked(
        lambda image, text: shipped.predict(image, text, TWO_STEPS, progress=False).labels,
        cases[0],
        shipped.class_names,
    )
    truth, names = cases[0].labels().array, shipped.class_names[1:]
    for asked, found in masks.items():
        for label, name in enumerate(names, start=1):
            dice = case_scores(found.array == label, truth == label)["dice"]
            assert dice >= FOUND if asked in (ALL, name) else dice <= NEAR_ZERO, (asked, name)


def test_the_latent_decides_what_is_marked_and_the_image_where_its_borders_run(shipped, cases):
    study = LatentStudy(shipped, cases)
    assert study.dice(study.decoded).mean().min() >= FOUND
    assert_it_reads(study.one_alone())
    own = study.exchanged((0.0, 1.0)).loc["own labels"]
    assert abs(own[1.0] - own[0.0]) <= 0.05


# --- a model without text ------------------------------------------------------------------------------------


def test_without_text_every_sentence_has_the_same_answer():
    sizes = {"widths": (4, 4, 8), "denoiser_widths": (16, 32), "latent_channels": 4}
    torch.manual_seed(0)
    twin = TextDiffSeg(None, ("background", "liver", "left kidney"), Preprocessing(None, None, (16, 16, 16)), **sizes)
    images = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (twin.eval().segment(images, [text], TWO_STEPS) for text in ("liver", "left kidney"))
    assert torch.equal(one, other)

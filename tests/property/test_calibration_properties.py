"""What must hold for calibration and error detection whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiff.evaluation.calibration import Reliability, error_detection

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 60)


def drawn(seed, n, classes=3):
    """Probabilities [classes, n] of any sharpness, and truth [n]."""
    random = np.random.default_rng(seed)
    scores = np.exp(random.normal(size=(classes, n)) * random.uniform(0, 8))
    return scores / scores.sum(axis=0), random.integers(classes, size=n)


def gathered(*cases, bins=15):
    kept = Reliability(bins)
    for probabilities, target in cases:
        kept.add(probabilities, target)
    return kept


@given(SEEDS, SIZES, st.integers(1, 20))
def test_the_table_holds_every_voxel_and_the_error_is_a_share(seed, n, bins):
    probabilities, target = drawn(seed, n)
    kept = gathered((probabilities, target), bins=bins)
    gap = abs(probabilities.max(axis=0).mean() - (probabilities.argmax(axis=0) == target).mean())
    assert gathered((probabilities, target), bins=1).ece() == pytest.approx(gap) and kept.ece() >= gap - 1e-9
    table = kept.table()
    assert table["n"].sum() == kept.n == n
    assert 0 <= kept.ece() <= 1
    known = table[table["n"] > 0]
    assert (known["confidence"] >= known["low"] - 1e-9).all() and (known["confidence"] <= known["high"] + 1e-9).all()
    assert known["accuracy"].between(0, 1).all()


@given(SEEDS, SEEDS, SIZES)
def test_it_does_not_matter_in_what_order_or_in_how_many_parts_voxels_come(seed, other, n):
    one, two = drawn(seed, n), drawn(other, n + 3)
    whole = tuple(np.concatenate(parts, axis=-1) for parts in zip(two, one, strict=True))
    assert gathered(one, two).ece() == pytest.approx(gathered(whole).ece())


@given(SEEDS, st.integers(2, 40), st.integers(2, 6))
def test_error_detection_is_the_share_of_pairs_in_the_right_order(seed, n, levels):
    random = np.random.default_rng(seed)
    score, wrong = random.integers(levels, size=n) / levels, random.random(n) < 0.5
    wrong[:2] = True, False
    found = error_detection(score, wrong)
    apart = score[wrong][:, None] - score[~wrong][None]
    assert found["error_auroc"] == pytest.approx(((apart > 0) + 0.5 * (apart == 0)).mean())
    assert error_detection(-score, wrong)["error_auroc"] == pytest.approx(1 - found["error_auroc"])
    assert error_detection(np.exp(score), wrong) == pytest.approx(found)
    assert 0 < found["error_auprc"] <= 1

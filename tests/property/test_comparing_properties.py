"""Comparisons: exchanged systems change signs, order changes nothing, and other draws never make an interval surer than cases do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textdiff.evaluation.comparing import compare, holm, random_effects

SHAPES = st.tuples(st.integers(2, 12), st.integers(1, 5))
SCORES = SHAPES.flatmap(lambda shape: arrays(np.float64, (2, *shape), elements=st.floats(0, 1, width=16)))
ZERO = 1e-9  # what rounding may leave of nothing


@settings(max_examples=60, deadline=None)
@given(scores=SCORES)
def test_exchanged_systems_change_signs(scores):
    ours, base = map(pd.DataFrame, scores)
    one, other = compare(ours, base), compare(base, ours)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=ZERO)
    assert one.p == pytest.approx(other.p, nan_ok=True) and one.dz == pytest.approx(-other.dz, nan_ok=True)
    assert one.draws == pytest.approx(tuple(-draw for draw in other.draws))
    assert 0 <= one.above + other.above <= 1, "a tie is above for neither"


@settings(max_examples=60, deadline=None)
@given(scores=SCORES, seed=st.integers(0, 99))
def test_the_order_of_cases_and_draws_is_nothing(scores, seed):
    rng = np.random.default_rng(seed)
    ours, base = map(pd.DataFrame, scores)
    cases, draws = rng.permutation(len(ours)), rng.permutation(ours.shape[1])
    one, other = compare(ours, base), compare(ours.iloc[cases, draws], base.iloc[cases[::-1], draws[::-1]])
    for name in ("difference", "low", "high", "cases_low", "cases_high", "above"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=ZERO, nan_ok=True), name
    assert sorted(one.draws) == pytest.approx(sorted(other.draws), abs=ZERO)


@settings(max_examples=100, deadline=None)
@given(scores=SCORES)
def test_other_draws_never_make_it_surer(scores):
    differences = scores[0] - scores[1]
    low, high, p = random_effects(differences)
    of_case = differences.mean(axis=1)
    assert 0 <= p <= 1 and low - ZERO <= differences.mean() <= high + ZERO
    # At infinitely many degrees of freedom the interval of cases alone would have this width
    assert high - low >= 2 * 1.9599 * of_case.std(ddof=1) / np.sqrt(len(of_case)) - ZERO
    assert (p < 0.05) == (low > 0 or high < 0) or abs(p - 0.05) < ZERO or min(abs(low), abs(high)) < ZERO


@given(p=st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=8))
def test_holm_only_adds_and_keeps_the_order(p):
    before, after = np.array(p, dtype=float), holm(p)
    known = ~np.isnan(before)
    assert (np.isnan(after) == ~known).all() and (after[known] >= before[known]).all() and (after[known] <= 1).all()
    assert (np.diff(after[known][np.argsort(before[known])]) >= 0).all()
    assert after[known] == pytest.approx(holm(before[known])), "nan is no member of the family"

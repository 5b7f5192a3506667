"""Comparisons against other tests where these say the same, against simulated studies, and Holm against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from textdiff.evaluation.comparing import Comparison, compare, holm, random_effects
from textdiff.evaluation.metrics import bootstrap_interval

RNG = np.random.default_rng(3)
CASES = ["a", "b", "c", "d", "e", "f"]
OURS, BASE = (pd.DataFrame(RNG.random((6, 3)), index=CASES) for _ in range(2))


def test_one_draw_is_the_paired_t_test_over_cases():
    found = compare(OURS[[0]], BASE[[0]])
    expected = stats.ttest_rel(OURS[0], BASE[0])
    bounds = expected.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((bounds.low, bounds.high, expected.pvalue))
    assert found.over == "cases" and compare(OURS, BASE).over == "draws and cases"


@pytest.mark.parametrize("axis", [0, 1])
def test_where_draws_or_cases_alone_vary_it_is_the_t_test_over_them(axis):
    effects = np.array([0.3, 0.1, 0.4, -0.1])
    shape = (4, 1) if axis == 0 else (1, 4)
    differences = np.broadcast_to(effects.reshape(shape), (4, 9) if axis == 0 else (9, 4))
    expected = stats.ttest_1samp(effects, 0)
    bounds = expected.confidence_interval()
    assert random_effects(differences) == pytest.approx((bounds.low, bounds.high, expected.pvalue))


def test_mean_squares_are_those_worked_out_by_hand():
    # Means of cases 0.35 and 0.15, of draws 0.2 and 0.3, nothing left: MS 0.04, 0.01 and 0, so that Var = 0.05 / 4
    low, high, p = random_effects(np.array([[0.3, 0.4], [0.1, 0.2]]))
    student = stats.t(0.05**2 / (0.04**2 / 1 + 0.01**2 / 1))
    reach = student.ppf(0.975) * np.sqrt(0.0125)
    assert (low, high) == pytest.approx((0.25 - reach, 0.25 + reach))
    assert p == pytest.approx(2 * student.sf(0.25 / np.sqrt(0.0125)))


@pytest.mark.parametrize("draws", [3, 5])
@pytest.mark.parametrize(("of_case", "of_draw", "rest"), [(1, 0.3, 0.3), (1, 0.2, 1), (1, 0.5, 0.5)])
def test_of_simulated_studies_about_ninety_five_in_a_hundred_intervals_hold_the_truth(draws, of_case, of_draw, rest):
    rng, held, held_by_cases, studies = np.random.default_rng(draws), 0, 0, 2000
    for _ in range(studies):
        study = of_case * rng.standard_normal((25, 1)) + of_draw * rng.standard_normal((1, draws))
        study = 0.7 + study + rest * rng.standard_normal((25, draws))
        low, high, _ = random_effects(study)
        held += low <= 0.7 <= high
        low, high, _ = random_effects(study.mean(axis=1, keepdims=True))
        held_by_cases += low <= 0.7 <= high
    assert 0.92 <= held / studies <= 0.975
    assert held_by_cases < held, "cases alone promise too much where draws differ"


def test_the_interval_of_these_draws_is_the_bootstrap_over_cases():
    found = compare(OURS, BASE)
    of_case = (OURS - BASE).mean(axis=1)
    assert (found.cases_low, found.cases_high) == bootstrap_interval(of_case)
    assert found.difference == pytest.approx(of_case.mean())
    assert found.draws == pytest.approx(tuple((OURS - BASE).mean()))
    assert (found.dz, found.above) == pytest.approx((of_case.mean() / of_case.std(), (of_case > 0).mean()))


def of_patients(values, images):
    """`values` [patients, draws], of the first patient `images[0]` times, and so on, named as BIDS does."""
    names = [f"sub-{patient}_run-{image}" for patient, times in enumerate(images) for image in range(times)]
    return pd.DataFrame(np.repeat(values, images, axis=0), index=names)


def test_a_patient_is_no_surer_for_being_seen_more_often():
    values = np.random.default_rng(0).normal(0.02, 0.1, (12, 3))
    once, thrice = (
        compare(of_patients(values, [times] * 12), of_patients(0 * values, [times] * 12)) for times in (1, 3)
    )
    alone = compare(pd.DataFrame(values), pd.DataFrame(0 * values))
    assert (once.cases, once.subjects, thrice.cases, thrice.subjects) == (12, 12, 36, 12)
    for name in ("difference", "low", "high", "p", "cases_low", "cases_high", "draws"):
        expected = pytest.approx(getattr(alone, name))
        assert getattr(once, name) == expected and getattr(thrice, name) == expected, name


def test_the_mean_stays_that_over_images_and_one_patient_says_nothing_of_others():
    values = np.random.default_rng(1).normal(0.02, 0.1, (5, 2))
    images = [1, 2, 3, 4, 10]
    found = compare(of_patients(values, images), of_patients(0 * values, images))
    assert found.difference == pytest.approx(np.average(values.mean(axis=1), weights=images))
    assert found.draws == pytest.approx(tuple(np.average(values, axis=0, weights=images)))
    one = compare(of_patients(values[:1], [7]), of_patients(0 * values[:1], [7]))
    assert (one.cases, one.subjects, one.over) == (7, 1, "") and np.isnan([one.low, one.p, one.cases_low]).all()


@pytest.mark.parametrize("draws", [1, 3])
def test_intervals_hold_the_truth_where_images_of_a_patient_are_alike(draws):
    rng, held, held_by_images, studies = np.random.default_rng(draws), 0, 0, 300
    images = rng.integers(1, 9, 80)
    whose = np.repeat(np.arange(80), images)
    for _ in range(studies):
        study = (
            rng.normal(size=(80, 1))[whose] + rng.normal(size=(80, draws))[whose] + rng.normal(size=(len(whose), draws))
        )
        table = pd.DataFrame(study, index=[f"sub-{patient}_{image}" for image, patient in enumerate(whose)])
        found, (low, high, _) = compare(table, 0 * table), random_effects(study)
        held += found.low <= 0 <= found.high
        held_by_images += low <= 0 <= high
    assert 0.91 <= held / studies <= 0.985
    assert held_by_images / studies < 0.9, "images of a patient taken as so many patients promise too much"


def test_only_what_both_have_is_compared():
    ours = OURS.rename(columns={2: 7})
    ours.loc["b", 1] = np.nan
    found = compare(ours, BASE.iloc[:-1])
    assert (found.cases, len(found.draws)) == (4, 2)
    assert compare(ours[[7]], BASE) == compare(ours.iloc[:0], BASE) == compare(pd.DataFrame(), BASE)
    empty = compare(pd.DataFrame(), BASE)
    assert (empty.cases, empty.draws, empty.over) == (0, (), "") and np.isnan([empty.difference, empty.p]).all()


def test_what_does_not_vary_is_certain_and_one_case_says_nothing_of_others():
    same = compare(BASE, BASE)
    assert (same.difference, same.low, same.high, same.p, same.above) == (0, 0, 0, 1, 0) and np.isnan(same.dz)
    assert random_effects(np.full((4, 2), 0.5)) == (0.5, 0.5, 0)
    one = compare(OURS.iloc[:1], BASE.iloc[:1])
    assert one.cases == 1 and np.isnan([one.low, one.high, one.p, one.dz]).all() and one.over == ""
    with pytest.raises(ValueError, match="infinity"):
        compare(OURS.replace(OURS.loc["a", 0], np.inf), BASE)


def test_holm_by_hand():
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 is not below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([np.nan, 0.02, 0.04]) == pytest.approx([np.nan, 0.04, 0.04], nan_ok=True)
    assert holm([0.9, 0.6]) == pytest.approx([1, 1])
    assert holm([]).size == 0 and np.isnan(holm([np.nan])).all()
    with pytest.raises(ValueError, match="0..1"):
        holm([0.5, 1.5])


def test_an_empty_comparison_is_what_nothing_was_compared_in():
    assert Comparison().cases == 0 and np.isnan(Comparison().low)

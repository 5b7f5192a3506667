"""Is one system better than another? In: scores of both, test cases by draws of the labelled cases. Out: the difference, how sure it is, how large.

Two intervals answer two questions. *These draws*: the trained models stay as they are and the test cases are resampled. *Other
draws*: cases and draws are both a sample of those that there might have been, as cases and readers are in studies of diagnostic
imaging (Dorfman, Berbaum and Metz 1992; Hillis 2007). Of the paired differences d[case, draw] of a crossed model with random
effects of case, draw and the rest,

    Var(mean) = (MS_draw + MS_case - MS_rest) / (cases * draws),

where a component of variance that is estimated below zero counts as zero, so that it is never below that of cases alone. The
degrees of freedom are Satterthwaite's (1946). Images of one subject are not so many cases: they are resampled together, and in the
model a subject stands for a case, with the sum of its images' differences from the mean (the cluster-robust variance of a mean over
images; Liang and Zeger 1986). Of studies simulated from the model with 3 and 5 draws, 92 to 97 intervals in a
hundred hold the truth, more where neither cases nor draws differ; with two draws fewer may, and they are very wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import (
    stdtr,
    stdtrit,
)  # Student's t: distribution and quantiles, without half a second for scipy.stats

from textdiff.evaluation.metrics import bootstrap_interval, subjects_of

NAN = float("nan")


@dataclass(frozen=True)
class Comparison:
    """One system's score minus another's on the same test cases, in the score's unit; nan where it cannot be told.

    `difference`: the mean over draws, then over cases. `low`, `high`, `p`: 95 % interval and two-sided p for other draws *and* other cases; where
    there is one draw, for other cases alone (see `over`). `cases_low`, `cases_high`: 95 % bootstrap over cases, these draws as
    they are. All of them take the cases of one subject together. `draws`: the mean of each. `cases`, `subjects`: their
    numbers. `dz`: mean over cases divided by its standard deviation between them, each case averaged over draws. `above`:
    share of cases (0..1) whose difference is above zero; a tie is not.
    """

    difference: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    cases_low: float = NAN
    cases_high: float = NAN
    draws: tuple[float, ...] = ()
    cases: int = 0
    subjects: int = 0
    dz: float = NAN
    above: float = NAN

    @property
    def over(self) -> str:
        """What `low`, `high` and `p` hold: "draws and cases", "cases" for a single draw, "" for less than two subjects."""
        return "" if self.subjects < 2 else "draws and cases" if len(self.draws) > 1 else "cases"


def compare(ours: pd.DataFrame, base: pd.DataFrame) -> Comparison:
    """`ours` minus `base`: scores with one row per case and one column per draw, matched by their labels.

    Whom a case is of is read off its label (`evaluation.metrics.subjects_of`).
    Only draws that both tables have count, and cases that are scored (not nan) in all of these; without any, an empty `Comparison`.
    Raises ValueError for scores that are infinite.
    """
    if any(np.isinf(table.to_numpy(dtype=np.float64)).any() for table in (ours, base)):
        raise ValueError("the scores hold infinity: a difference to it says nothing")
    both = (ours - base)[[draw for draw in ours if draw in base]].dropna()
    if both.empty:
        return Comparison()
    values = both.to_numpy(dtype=np.float64)
    of_case, subjects = values.mean(axis=1), subjects_of(both.index)
    of_subject = _by_subject(values, subjects)
    cases_low, cases_high = bootstrap_interval(of_case, subjects)
    low, high, p = random_effects(of_subject)
    spread = of_case.std(ddof=1) if len(of_case) > 1 else NAN
    return Comparison(
        difference=float(of_case.mean()),
        low=low,
        high=high,
        p=p,
        cases_low=cases_low,
        cases_high=cases_high,
        draws=tuple(values.mean(axis=0).tolist()),
        cases=len(values),
        subjects=len(of_subject),
        dz=float(of_case.mean() / spread) if spread > 0 else NAN,
        above=float((of_case > 0).mean()),
    )


def _by_subject(values: np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """[cases, draws] -> [subjects, draws] of the same means: m + (sum of a subject's differences from m) x subjects / cases."""
    _, whose = np.unique(subjects, return_inverse=True)
    mean, sums = values.mean(), np.zeros((whose.max() + 1, values.shape[1]))
    np.add.at(sums, whose, values - mean)
    return mean + sums * len(sums) / len(values)


def random_effects(differences: np.ndarray) -> tuple[float, float, float]:
    """95 % interval and two-sided p of the mean of `differences` [cases, draws], both random; of cases alone for a single draw.

    nan for a single case. Where nothing varies, the interval is the mean, and p is 1 for a mean of zero and otherwise 0.
    """
    cases, draws = differences.shape
    if cases < 2:
        return NAN, NAN, NAN
    variance, freedom = _of_mean(differences)
    mean, error = float(differences.mean()), float(np.sqrt(variance))
    if error == 0:
        return mean, mean, float(mean == 0)
    reach = float(stdtrit(freedom, 0.975)) * error
    return mean - reach, mean + reach, float(2 * stdtr(freedom, -abs(mean) / error))


def _of_mean(differences: np.ndarray) -> tuple[float, float]:
    """Variance of the mean, and its degrees of freedom (0 where nothing varies)."""
    cases, draws = differences.shape
    of_case, of_draw = differences.mean(axis=1), differences.mean(axis=0)
    by_case = draws * of_case.var(ddof=1)
    squares, freedoms = [by_case], [cases - 1]
    total = by_case
    if draws > 1:
        by_draw = cases * of_draw.var(ddof=1)
        left = differences - of_case[:, None] - of_draw + differences.mean()
        rest = (left**2).sum() / ((cases - 1) * (draws - 1))
        squares, freedoms = [by_case, by_draw, rest], [cases - 1, draws - 1, (cases - 1) * (draws - 1)]
        total = rest + max(by_case - rest, 0) + max(by_draw - rest, 0)
    loose = sum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
    return total / (cases * draws), total**2 / loose if loose > 0 else 0.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down (1979): p values of one family, made larger so that the chance of any false alarm among them stays as each p says.

    The smallest is multiplied by their number, the next by one less, and so on; none falls below one before it, none is above 1.
    nan stays nan and is no member of the family. Raises ValueError for values outside 0..1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError(f"p values lie in 0..1, and these do not: {values.tolist()}")
    order = known[np.argsort(values[known], kind="stable")]
    adjusted = np.full(values.shape, NAN)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted

"""Figures of what it costs: the numbers that they draw and tell, and what they say where nothing was measured."""

import pandas as pd
import pytest

from textdiff.figures import cost
from textdiff.figures.style import description

PIECES = pd.DataFrame(
    {"work": ["inference", "inference"], "side": ["reference", "ours"], "intensity": [2.0, 50.0], "rate": [30.0, 90.0]}
)
ROOFS = {"float32": 100.0, "bfloat16": 400.0, "memory": 20.0}
GOALS = pd.DataFrame(
    {"goal": ["training", "inference"], "value": [12.0, 2.0], "wanted": [10.0, 3.0], "met": [1.0, 0.0]}
)
SIZES = pd.DataFrame(
    [("images", 1, "wall s", 1.0, 1.0), ("images", 4, "wall s", 4.0, 1.0), ("images", 1, "peak MB", 100.0, 0.0),
     ("images", 4, "peak MB", 101.0, 0.0), ("tokens", 8, "wall s", 1.0, 0.5), ("tokens", 16, "wall s", 1.4, 0.5)],
    columns=["axis", "size", "quantity", "value", "slope"],
)  # fmt: skip
CHOICES = pd.DataFrame(
    {
        "choice": ["small", "large", "never run"],
        "kind": ["where it starts", "backbone", "backbone"],
        "cost": [0.1, 0.4, 0.2],
        "dice": [0.6, 0.7, float("nan")],
        "draws": [[0.5, 0.7], [0.7], []],
    }
)


def alt(fig):
    return description(fig)["alt"]


def test_a_roofline_has_its_ceilings_and_points():
    fig = cost.roofline(PIECES, ROOFS)
    (axis,) = fig.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    first, second, *points = axis.lines
    assert max(first.get_ydata()) == 100 and max(second.get_ydata()) == pytest.approx(400)
    assert min(first.get_ydata()) == pytest.approx(20 * PIECES["intensity"].min() / 2), (
        "left of the corner memory limits"
    )
    assert [(*line.get_xdata(), *line.get_ydata()) for line in points] == [(2, 30), (50, 90)]
    assert points[0].get_color() != points[1].get_color() and points[0].get_marker() == points[1].get_marker()
    assert "memory 20 GB/s; ceiling float32 100 GFLOP/s" in alt(fig) and "inference, ours: 90 GFLOP/s" in alt(fig)


def test_bars_begin_at_the_goal_and_say_what_is_missed():
    fig = cost.goal_bars(GOALS)
    bars = fig.axes[0].patches
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert ends == [pytest.approx((1, 1.2)), pytest.approx((1, 2 / 3))]
    assert bars[0].get_facecolor() != bars[1].get_facecolor() and [bar.get_hatch() for bar in bars] == ["", "///"]
    assert "training: 12 of 10, met; inference: 2 of 3, missed" in alt(fig)


def test_curves_of_size_have_a_slope_and_no_growth_out_of_noise():
    fig = cost.size_curves(SIZES)
    assert len(fig.axes) == 4 and [axis.get_title() for axis in fig.axes[:2]] == ["slope 1.00", "slope 0.50"]
    low, high = fig.axes[2].get_ylim()
    assert high / low >= 10, "one per cent more is no slope"
    assert [text.get_text() for text in fig.axes[3].texts] == ["not run yet"]
    assert [tick.get_text() for tick in fig.axes[0].get_xticklabels()] == ["1", "4"]
    assert "peak MB against images: slope 0.00" in alt(fig)


def test_every_choice_with_a_cost_and_a_dice_is_a_mark_with_its_draws():
    fig = cost.dice_against_cost(CHOICES)
    (axis,) = fig.axes
    assert axis.get_xscale() == "log"
    assert [len(marks.get_offsets()) for marks in axis.collections] == [2, 1]
    assert [text.get_text() for text in axis.texts] == ["small", "large"]
    assert alt(fig).endswith("small: 60.0 % at 0.1; large: 70.0 % at 0.4.")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: cost.roofline(PIECES.iloc[:0], {}),
        lambda: cost.goal_bars(GOALS.iloc[:0]),
        lambda: cost.size_curves(SIZES.iloc[:0]),
        lambda: cost.dice_against_cost(CHOICES.iloc[2:]),
    ],
)
def test_what_was_not_measured_says_so(draw):
    fig = draw()
    assert all([text.get_text() for text in axis.texts] == ["not run yet"] for axis in fig.axes)
    assert alt(fig).endswith("Nothing has been run yet.")

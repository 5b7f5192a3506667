"""Curves, bars and heat maps: the numbers that they draw and tell."""

import numpy as np
import pandas as pd
import pytest

from tests.unit.figures.little import DIFFERENCES, HEAT, LOSSES, PRETRAINED, RUNS, SAMPLED
from textdiff.evaluation.calibration import Reliability
from textdiff.figures import curves
from textdiff.figures.style import colour_of, description

HISTORY = pd.DataFrame({"epoch": [0, 1, 2], "loss": [1.0, 0.5, 0.25], "val/dice": [np.nan, 0.4, 0.6]})
SPREAD = pd.DataFrame([[0.01, np.nan], [0.02, 0.03]], index=HEAT.index, columns=HEAT.columns)


def alt(fig):
    return description(fig)["alt"]


def written(fig):
    return [text.get_text().strip() for text in fig.axes[0].texts]


def ticks(axis, which="x"):
    return [tick.get_text() for tick in getattr(axis, f"get_{which}ticklabels")()]


def test_loss_curve_panels_follow_the_history():
    fig = curves.loss_curve(HISTORY)
    assert [axis.get_ylabel() for axis in fig.axes] == ["loss", "score (0 to 1)"]
    assert fig.axes[1].lines[0].get_xdata().tolist() == [1, 2]
    assert "loss from 1.000 to 0.250; val/dice from 0.400 to 0.600" in alt(fig)
    assert len(curves.loss_curve(HISTORY[["epoch", "loss"]].to_dict("records")).axes) == 1
    for history in ([], [{"loss": 1.0}], [{"epoch": 0, "dice": 1.0}]):
        with pytest.raises(ValueError, match="epoch|loss"):
            curves.loss_curve(history)


def test_heatmaps_write_the_spread_and_what_was_not_run():
    fig = curves.dice_heatmap(HEAT)
    assert written(fig).count("not run yet") == 1 and "70.0" in written(fig)
    assert "From 50.0 at 6 and 50 to 70.0 at 8 and 150; cells not run yet: 1" in alt(fig)
    fig = curves.dice_heatmap(HEAT.fillna(0.4), spread=SPREAD, limits=(0, 1))
    assert written(fig) == ["50.0\n± 1.0", "40.0", "60.0\n± 2.0", "70.0\n± 3.0"]
    assert fig.axes[0].collections[0].get_clim() == (0, 100)
    assert (
        "From 40.0 at 6 and 150 to 70.0 at 8 and 150. Row by row: 6: 50.0 ± 1.0, 40.0; 8: 60.0 ± 2.0, 70.0 ± 3.0."
        in alt(fig)
    )
    fig = curves.dice_heatmap(HEAT - 0.45, spread=SPREAD, signed=True)
    assert fig.axes[0].collections[0].get_clim() == pytest.approx((-25, 25)), "zero is in the middle"
    assert written(fig)[0].startswith("+5.0")


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (HEAT * 100, {}, "outside 0..1"),
        (HEAT - 1, {}, "outside 0..1"),
        (HEAT - 2, {"signed": True}, "outside -1..1"),
        (HEAT, {"spread": SPREAD.iloc[:1]}, "same rows and columns"),
    ],
)
def test_heatmap_refuses(table, options, message):
    with pytest.raises(ValueError, match=message):
        curves.dice_heatmap(table, **options)


def test_a_row_is_a_line_over_the_number_of_labels():
    fig = curves.label_efficiency_curve(RUNS)
    (axis,) = fig.axes
    assert axis.get_xscale() == "log" and ticks(axis) == ["1", "5", "10"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours", "U-Net"]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([50, 70])
    bar = axis.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 1] == pytest.approx([50 - 200**0.5, 50 + 200**0.5])
    assert alt(fig).endswith("ours: 50.0 % with 1, 70.0 % with 10; U-Net: 30.0 % with 5.")
    methods = ["TextDiff", "TextDiff without text", "U-Net that reads", "U-Net"]
    axis = curves.label_efficiency_curve(RUNS.assign(row=methods)).axes[0]
    assert [one.lines[0].get_color() for one in axis.containers] == [colour_of(name) for name in methods]
    fig = curves.label_efficiency_curve(RUNS.assign(n_labels=[1, 1, "all", 5]), "volumes")
    assert ticks(fig.axes[0]) == ["1", "5", "all"] and fig.axes[0].get_xlabel() == "labelled volumes (logarithmic)"
    assert "50.0 % with 1, 70.0 % with all" in alt(fig)


def test_pretraining_curve_joins_means_and_draws_controls_level():
    fig = curves.pretraining_curve(PRETRAINED, {"untrained": 0.25})
    line, *_, level = fig.axes[0].get_lines()
    assert line.get_xdata().tolist() == [10, 20] and line.get_ydata().tolist() == pytest.approx([40, 60])
    assert set(level.get_ydata()) == {25}
    assert "40.0 % after 10 iterations; 60.0 % after 20 iterations; untrained 25.0 %" in alt(fig)


def test_steps_and_reliability_tell_their_numbers():
    told = "ddim dice: 55.0 at 1, 85.0 at 5; ddim seconds: 1.0 at 1, 5.5 at 5"
    others = [SAMPLED.iloc[[3]].assign(sampling_steps=1000), SAMPLED.assign(samples=8, dice=0)]
    assert told in alt(curves.steps_curve(SAMPLED))
    assert told in alt(curves.steps_curve(pd.concat([SAMPLED, *others]))), "ways that fewer volumes were tried in"
    tables = {}
    for name, confidence, right in (("a", 0.9, 5), ("b", 0.6, 6)):
        kept = Reliability()
        kept.add(np.tile([[1 - confidence], [confidence]], 10), (np.arange(10) < right).astype(int))
        tables[name] = kept.table()
    assert "a: ECE 0.400; b: ECE 0.000" in alt(curves.reliability_curve(tables))


def intervals(axis):
    lines = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    return [np.round(one, 6).tolist() for one in lines[1:]]  # the first is the line at zero


def test_differences_are_dots_with_intervals():
    fig = curves.worth_of_switches({"256 px": DIFFERENCES, "native": DIFFERENCES}, "base")
    (axis,) = fig.axes
    assert ticks(axis, "y") == ["BGR", "ten tokens"] and intervals(axis) == [[4, 7], [4, 7]]
    assert written(fig) == ["not run yet"] and "BGR, native: +5.0" in alt(fig)
    draws = pd.Series([(0.04,), (0.04, 0.06), ()], DIFFERENCES.index)
    (axis,) = curves.worth_of_switches({"256 px": DIFFERENCES.assign(draws=draws, cases=3)}, "ten tokens").axes
    filled = [line.get_fillstyle() for line in axis.lines if line.get_markersize() == 7 and line.get_marker() == "o"]
    assert filled == ["none", "full"], "one draw is told apart"
    fig = curves.reading_dots(pd.concat([LOSSES, LOSSES.assign(reading="swapped", cases=0)]))
    assert ticks(fig.axes[0], "y") == ["base", "BGR"] and intervals(fig.axes[0]) == [[-1, 2], [4, 7]]
    assert alt(fig).endswith("base, none: +0.0; BGR, none: +5.0."), "what was not run is left out"

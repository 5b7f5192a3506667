"""Figures: what they say, what they draw, and that they leave nothing behind in pyplot."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from textdiff.data.cases import Case
from textdiff.figures import images as plots

IMAGE = np.full((16, 16, 3), 128, np.uint8)
TRUTH = np.zeros((16, 16), np.uint8)
TRUTH[4:8, 4:8] = 1
SHIFTED = np.roll(TRUTH, 2, axis=0)


def case(name):
    return Case(name=name, caption="The nuclei are evenly distributed.", image_array=IMAGE, mask_array=TRUTH)


def features():
    generator = torch.Generator().manual_seed(0)
    return {b: {t: torch.randn(5, s, s, generator=generator) for t in (50, 150)} for b, s in ((6, 4), (8, 8), (12, 8))}


HISTORY = pd.DataFrame({"epoch": [0, 1, 2], "loss": [1.0, 0.5, 0.25], "val/dice": [np.nan, 0.4, 0.6]})
HEAT = pd.DataFrame([[0.5, np.nan], [0.6, 0.7]], index=pd.Index([6, 8], name="block"), columns=[50, 150])
FIGURES = {
    "cases": lambda: plots.show_cases([case("a"), case("b")]),
    "overlay": lambda: plots.overlay(IMAGE, TRUTH, SHIFTED),
    "outline": lambda: plots.overlay(IMAGE, TRUTH),
    "compare": lambda: plots.compare_masks(IMAGE, TRUTH, {"ours": SHIFTED, "nothing": TRUTH * 0}),
    "loss": lambda: plots.loss_curve(HISTORY),
    "grid": lambda: plots.block_step_grid(features(), IMAGE),
    "heat": lambda: plots.dice_heatmap(HEAT),
    "attention": lambda: plots.attention_by_word(IMAGE, ["the", "nuclei"], np.random.rand(2, 4, 4)),
    "samples": lambda: plots.samples_grid([torch.zeros(3, 8, 8)] * 3, ["a", "b", "c"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_described_and_let_go_of(name, tmp_path):
    plt.close("all")
    fig = FIGURES[name]()
    words = plots.description(fig)
    assert len(words["alt"]) > 20 and words["caption"]
    assert plt.get_fignums() == []
    fig.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_import_and_drawing_leave_the_style_alone_until_asked():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        plots.overlay(IMAGE, TRUTH)
        assert dict(matplotlib.rcParams) == before
        plots.style()
        assert dict(matplotlib.rcParams) != before


def test_comparison_colours_say_what_happened():
    axis = plots.overlay(IMAGE, TRUTH, SHIFTED).axes[0]
    shown = np.asarray(axis.images[0].get_array())

    def nearest(row, column):
        colours = (plots.HIT, plots.FALSE_ALARM, plots.MISS)
        return min(colours, key=lambda c: np.abs(shown[row, column] - to_rgb(c)).sum())

    assert nearest(6, 5) == plots.HIT
    assert nearest(9, 5) == plots.FALSE_ALARM
    assert nearest(4, 5) == plots.MISS
    assert np.ptp(shown[0, 0]) == 0


def test_comparison_tells_scores():
    fig = plots.compare_masks(IMAGE, TRUTH, {"ours": SHIFTED, "nothing": TRUTH * 0})
    assert fig.axes[1].get_title() == "ours\nDice 0.500"
    alt = plots.description(fig)["alt"]
    assert "ours: 50% of the true area is found, 50% of the marked area is wrong" in alt
    assert "nothing: 0% of the true area is found, nothing is marked" in alt
    assert len(fig.legends[0].get_texts()) == 3


def test_masks_of_another_size_are_fitted():
    small = TRUTH[::2, ::2]
    shown = [np.asarray(plots.overlay(IMAGE, m, m).axes[0].images[0].get_array()) for m in (TRUTH, small)]
    assert np.array_equal(*shown)


def test_loss_curve_panels_follow_the_history():
    fig = plots.loss_curve(HISTORY)
    assert [axis.get_ylabel() for axis in fig.axes] == ["loss", "score (0 to 1)"]
    assert fig.axes[1].lines[0].get_xdata().tolist() == [1, 2]
    assert "loss from 1.000 to 0.250" in plots.description(fig)["alt"]
    rows = HISTORY[["epoch", "loss"]].to_dict("records")
    assert len(plots.loss_curve(rows).axes) == 1


@pytest.mark.parametrize("history", [[], [{"loss": 1.0}], [{"epoch": 0, "dice": 1.0}]])
def test_loss_curve_refuses_a_history_without_losses(history):
    with pytest.raises(ValueError, match="epoch|loss"):
        plots.loss_curve(history)


def test_pca_pictures_show_the_structure_and_are_repeatable():
    maps = torch.zeros(6, 8, 8)
    maps[:3, :, :4] = 5.0
    maps += 0.01 * torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(0))
    (first,) = plots.pca_rgb([maps])
    assert first.shape == (8, 8, 3) and first.min() >= 0 and first.max() <= 1
    left, right = first[:, :4, 0], first[:, 4:, 0]
    assert abs(left.mean() - right.mean()) > 0.8 and left.std() < 0.1
    assert np.array_equal(plots.pca_rgb([maps])[0], first)


def test_pca_colours_mean_the_same_in_maps_fitted_together():
    maps = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(1))
    one, same = plots.pca_rgb([maps, maps + 3])
    np.testing.assert_allclose(one, same, atol=1e-5)


def test_pca_of_one_channel_keeps_three_colours():
    (one,) = plots.pca_rgb([torch.rand(1, 4, 4)])
    assert one.shape == (4, 4, 3) and one[..., 1:].max() == 0


def test_step_grid_wants_the_same_steps_everywhere():
    with pytest.raises(ValueError, match="same steps"):
        plots.block_step_grid({6: {50: torch.rand(3, 4, 4)}, 8: {150: torch.rand(3, 4, 4)}})


def test_heatmap_marks_what_was_not_run_and_refuses_percent():
    fig = plots.dice_heatmap(HEAT)
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts.count("not run yet") == 1 and "70.0" in texts
    assert "from 50.0 % at 6 and 50 to 70.0 % at 8 and 150; cells not run yet: 1" in plots.description(fig)["alt"]
    assert "nothing has been run" in plots.description(plots.dice_heatmap(HEAT * np.nan))["alt"]
    with pytest.raises(ValueError, match="outside 0..1"):
        plots.dice_heatmap(HEAT * 100)


def test_attention_panels_share_a_scale():
    maps = np.zeros((2, 4, 4))
    maps[1] = 0.8
    fig = plots.attention_by_word(IMAGE, ["a", "b"], maps)
    limits = [axis.images[0].get_clim() for axis in fig.axes[1:3]]
    assert limits == [(0, 0.8), (0, 0.8)]
    assert "“b” gets most" in plots.description(fig)["alt"]
    with pytest.raises(ValueError, match="one map a word"):
        plots.attention_by_word(IMAGE, ["a"], maps)


def test_pictures_of_every_kind_become_floats():
    grey = np.array([[0, 255]], np.uint8)
    assert plots.as_picture(grey).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert plots.as_picture(torch.full((3, 2, 2), -1.0)).max() == 0
    assert plots.as_picture(IMAGE).max() == pytest.approx(128 / 255)
    with pytest.raises(ValueError, match="expected uint8"):
        plots.as_picture(np.zeros((4, 4, 3)))


def test_empty_lists_and_alt_texts_are_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.samples_grid([])
    with pytest.raises(ValueError, match="titles"):
        plots.samples_grid([IMAGE], ["a", "b"])
    with pytest.raises(ValueError, match="alt text is empty"):
        plots.described(plt.Figure(), " ")


def test_a_figure_without_description_has_empty_words():
    assert plots.description(plt.Figure()) == {"alt": "", "caption": ""}


# --- blocks and steps, reading, qualitative ------------------------------------------------------------------

SPREAD = pd.DataFrame([[0.01, np.nan], [0.02, 0.03]], index=HEAT.index, columns=HEAT.columns)
MEANS = HEAT.fillna(0.4).rename_axis(index="decoder block", columns="noise step")
ATTENTION = np.linspace(0, 0.4, 4 * 16).reshape(4, 4, 4)
WORDS = ["[CLS]", "upper", "left", "."]
LOSSES = pd.DataFrame(
    [("ours", "another image's", 0.2, 0.1, 0.3), ("ours", "none", 0.3, np.nan, np.nan), ("not run", "none", *[np.nan] * 3)],
    columns=["row", "reading", "difference", "low", "high"],
)  # fmt: skip
SHOWN = [("worst", IMAGE, TRUTH, {"ours": SHIFTED, "U-Net": TRUTH * 0}), ("best", IMAGE, TRUTH, {"ours": TRUTH, "U-Net": TRUTH})]  # fmt: skip
MORE_FIGURES = {
    "spread": lambda: plots.spread_heatmap(MEANS, SPREAD),
    "signed": lambda: plots.spread_heatmap(MEANS - 0.45, SPREAD, signed=True),
    "words": lambda: plots.words_over_images([(IMAGE, TRUTH, "Upper left.", WORDS, ATTENTION)] * 2, shown=3),
    "reading": lambda: plots.reading_bars(LOSSES),
    "qualitative": lambda: plots.qualitative_grid(SHOWN),
}


@pytest.mark.parametrize("name", MORE_FIGURES)
def test_every_later_figure_is_described_and_let_go_of(name, tmp_path, monkeypatch):
    monkeypatch.setitem(FIGURES, name, MORE_FIGURES[name])
    test_every_figure_is_described_and_let_go_of(name, tmp_path)


def test_heatmap_writes_the_spread_under_the_mean():
    fig = plots.spread_heatmap(MEANS, SPREAD, limits=(0, 1))
    assert [text.get_text() for text in fig.axes[0].texts] == ["50.0\n± 1.0", "40.0", "60.0\n± 2.0", "70.0\n± 3.0"]
    assert fig.axes[0].collections[0].get_clim() == (0, 100)
    assert "from 40.0 at 6 and 150 to 70.0 at 8 and 150" in plots.description(fig)["alt"]
    with pytest.raises(ValueError, match="same rows and columns"):
        plots.spread_heatmap(MEANS, SPREAD.iloc[:1])


def test_signed_heatmap_has_zero_in_the_middle():
    fig = plots.spread_heatmap(MEANS - 0.45, SPREAD, signed=True)
    assert fig.axes[0].collections[0].get_clim() == pytest.approx((-25, 25))
    assert fig.axes[0].texts[0].get_text().startswith("+5.0")


def test_words_that_vary_most_are_chosen_in_the_order_of_the_sentence():
    maps = np.zeros((5, 2, 2))
    maps[0, 0, 0], maps[1, 0, 0], maps[3, 0, 0], maps[4, 0, 0] = 0.9, 0.2, 0.1, 0.3
    assert plots.most_varied(["[CLS]", "upper", ",", "left", "##s"], maps, 2) == [1, 4]


def test_words_are_drawn_on_one_scale_and_panels_without_a_word_are_removed():
    fig = plots.words_over_images([(IMAGE, TRUTH, "Upper left.", WORDS, ATTENTION)], shown=3)
    panels = [axis for axis in fig.axes if axis.get_title() in WORDS]
    assert [axis.get_title() for axis in panels] == ["upper", "left"]
    assert {axis.images[1].get_clim() for axis in panels} == {(0, ATTENTION[2].max())}
    assert "“Upper left.”: upper, left" in plots.description(fig)["alt"]
    with pytest.raises(ValueError, match="one attention map a word"):
        plots.words_over_images([(IMAGE, TRUTH, "", WORDS[:1], ATTENTION)])
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.words_over_images([])


def test_reading_bars_leave_out_what_was_not_run():
    fig = plots.reading_bars(LOSSES)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["ours"]
    assert sorted(bar.get_width() for bar in fig.axes[0].patches) == pytest.approx([20, 30])
    assert plots.description(fig)["alt"].endswith("ours, another image's: +20.0; ours, none: +30.0.")
    with pytest.raises(ValueError, match="no record yet"):
        plots.reading_bars(LOSSES.iloc[2:])


def test_qualitative_grid_tells_the_dice_of_the_whole_image():
    fig = plots.qualitative_grid(SHOWN, window=0.5)
    titles = [axis.get_title() for axis in fig.axes]
    assert titles == ["image", "truth", "ours\nDice 50.0", "U-Net\nDice 0.0", "", "", "Dice 100.0", "Dice 100.0"]
    assert "worst: ours Dice 50.0, U-Net Dice 0.0; best: ours Dice 100.0" in plots.description(fig)["alt"]


def test_tiles_are_small_and_show_the_middle():
    image = np.zeros((400, 400, 3), np.uint8)
    image[100:300, 100:300] = 255
    tile = plots.qualitative_grid([("a", image, image[..., 0], {})], pixels=50, window=0.5).axes[0].images[0]
    assert np.asarray(tile.get_array()).shape == (50, 50, 3) and np.asarray(tile.get_array()).min() == 1


@pytest.mark.parametrize(
    ("rows", "window", "message"),
    [
        ([], 1, "nothing to draw"),
        (SHOWN, 0, "window=0"),
        ([SHOWN[0], ("b", IMAGE, TRUTH, {"ours": TRUTH})], 1, "the same models"),
    ],
)
def test_qualitative_grid_refuses(rows, window, message):
    with pytest.raises(ValueError, match=message):
        plots.qualitative_grid(rows, window=window)


RUNS = pd.DataFrame(
    {"model": ["ours", "ours", "ours", "U-Net"], "n_labels": [1, 1, 10, 5], "dice": [0.4, 0.6, 0.7, 0.3]}
)


def worth(difference, **changes):
    one = {
        "difference": difference,
        "low": difference - 0.01,
        "high": difference + 0.02,
        "images": 3,
        "draws": (0.0, 0.04),
    }
    return one | changes


NOT_MADE = {"difference": np.nan, "low": np.nan, "high": np.nan, "images": 0, "draws": ()}
WORTH = pd.DataFrame([worth(0), worth(0.05), NOT_MADE], index=["base", "BGR", "ten tokens"])


def test_a_model_is_a_line_over_the_number_of_labels():
    fig = plots.label_efficiency_curve(RUNS)
    (axis,) = fig.axes
    assert axis.get_xscale() == "log" and [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "5", "10"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours", "U-Net"]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([50, 70])
    bar = axis.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 1] == pytest.approx([50 - 200**0.5, 50 + 200**0.5])
    assert plots.description(fig)["alt"].endswith("ours: 50.0 % with 1, 70.0 % with 10; U-Net: 30.0 % with 5.")


def test_all_labels_stand_behind_the_numbers():
    fig = plots.label_efficiency_curve(RUNS.assign(n_labels=RUNS["n_labels"].replace(10, 0)), "volumes")
    (axis,) = fig.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "5", "all"]
    assert axis.get_xlabel() == "labelled volumes (logarithmic)"
    assert "50.0 % with 1, 70.0 % with all" in plots.description(fig)["alt"]


def test_switches_are_dots_with_intervals_and_the_base_is_not_drawn():
    fig = plots.worth_of_switches({"256 px": WORTH, "native": WORTH}, "base")
    (axis,) = fig.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["BGR", "ten tokens"]
    intervals = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert [np.round(one, 6).tolist() for one in intervals[1:]] == [[4, 7], [4, 7]]
    assert [text.get_text().strip() for text in axis.texts] == ["not run yet"]
    assert "BGR, native: +5.0" in plots.description(fig)["alt"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.label_efficiency_curve(RUNS.iloc[:0]),
        lambda: plots.worth_of_switches({"256 px": WORTH.iloc[2:]}, "base"),
    ],
)
def test_figures_of_nothing_say_so_and_are_let_go_of(draw):
    plt.close("all")
    fig = draw()
    assert plt.get_fignums() == [] and "Nothing has been run yet" in plots.description(fig)["alt"]
    assert [text.get_text().strip() for text in fig.axes[0].texts] == ["not run yet"]


def test_pretraining_curve_joins_means_and_draws_controls_level():
    runs = pd.DataFrame({"steps": [10, 10, 20, 20], "dice": [0.3, 0.5, 0.5, 0.7]})
    fig = plots.pretraining_curve(runs, {"untrained": 0.25})
    line, level = fig.axes[0].get_lines()
    assert line.get_xdata().tolist() == [10, 20] and line.get_ydata().tolist() == pytest.approx([40, 60])
    assert set(level.get_ydata()) == {25}
    assert "40.0 % after 10 steps; 60.0 % after 20 steps; untrained 25.0 %" in plots.description(fig)["alt"]
    assert "Nothing has been run yet" in plots.description(plots.pretraining_curve(runs.iloc[:0], {}))["alt"]

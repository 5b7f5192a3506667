"""Figures of images: what they draw and what they refuse."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from tests.unit.figures.little import ATTENTION, IMAGE, SHIFTED, SHOWN, TRUTH, WORDS
from textdiff.figures import images as plots
from textdiff.figures.style import FALSE_ALARM, HIT, MISS, description


def test_comparison_colours_and_words_say_what_happened():
    fig = plots.compare_masks(IMAGE, TRUTH, {"ours": SHIFTED, "nothing": TRUTH * 0})
    shown = np.asarray(fig.axes[1].images[0].get_array())

    def nearest(row, column):
        return min((HIT, FALSE_ALARM, MISS), key=lambda c: np.abs(shown[row, column] - to_rgb(c)).sum())

    assert [nearest(row, 5) for row in (6, 9, 4)] == [HIT, FALSE_ALARM, MISS]
    assert np.ptp(shown[0, 0]) == 0
    assert fig.axes[1].get_title() == "ours\nDice 0.500" and len(fig.legends[0].get_texts()) == 3
    alt = description(fig)["alt"]
    assert "ours: 50% of the true area is found, 50% of the marked area is wrong" in alt
    assert "nothing: 0% of the true area is found, nothing is marked" in alt
    small = plots.compare_masks(IMAGE, TRUTH[::2, ::2], {"ours": SHIFTED[::2, ::2]})
    assert np.array_equal(small.axes[1].images[0].get_array(), shown), "masks of another size are fitted"


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
    (one,) = plots.pca_rgb([torch.rand(1, 4, 4)])
    assert one.shape == (4, 4, 3) and one[..., 1:].max() == 0


def test_pictures_of_every_kind_become_floats():
    assert plots.as_picture(np.array([[0, 255]], np.uint8)).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert plots.as_picture(np.array([[-1.0, 1.0]])).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert plots.as_picture(torch.full((3, 2, 2), -1.0)).max() == 0
    assert plots.as_picture(IMAGE).max() == pytest.approx(128 / 255)
    with pytest.raises(ValueError, match="expected uint8"):
        plots.as_picture(np.zeros((4, 4, 3)))


def test_words_that_vary_most_are_chosen_in_the_order_of_the_sentence():
    maps = np.zeros((5, 2, 2))
    maps[0, 0, 0], maps[1, 0, 0], maps[3, 0, 0], maps[4, 0, 0] = 0.9, 0.2, 0.1, 0.3
    assert plots.most_varied(["[CLS]", "upper", ",", "left", "##s"], maps, 2) == [1, 4]


def test_words_are_drawn_on_one_scale_and_panels_without_a_word_are_removed():
    fig = plots.words_over_images([(IMAGE, TRUTH, "Upper left.", WORDS, ATTENTION)], shown=3)
    panels = [axis for axis in fig.axes if axis.get_title() in WORDS]
    assert [axis.get_title() for axis in panels] == ["upper", "left"]
    assert {axis.images[1].get_clim() for axis in panels} == {(0, ATTENTION[2].max())}
    assert "“Upper left.”: upper, left" in description(fig)["alt"]


def test_qualitative_grid_tells_the_dice_of_the_whole_image():
    fig = plots.qualitative_grid(SHOWN, window=0.5)
    titles = [axis.get_title() for axis in fig.axes]
    assert titles == ["image", "truth", "ours\nDice 50.0", "U-Net\nDice 0.0", "", "", "Dice 100.0", "Dice 100.0"]
    assert "worst: ours Dice 50.0, U-Net Dice 0.0; best: ours Dice 100.0" in description(fig)["alt"]


def test_tiles_are_small_and_show_the_middle():
    image = np.zeros((400, 400, 3), np.uint8)
    image[100:300, 100:300] = 255
    tile = plots.qualitative_grid([("a", image, image[..., 0], {})], window=0.5).axes[0].images[0]
    assert np.asarray(tile.get_array()).shape == (160, 160, 3) and np.asarray(tile.get_array()).min() == 1
    assert tile.get_extent() == [-0.5, 199.5, 199.5, -0.5]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.show_cases([]), "nothing to draw"),
        (lambda: plots.samples_grid([]), "nothing to draw"),
        (lambda: plots.samples_grid([IMAGE], ["a", "b"]), "2 titles for 1 images"),
        (lambda: plots.words_over_images([]), "nothing to draw"),
        (lambda: plots.words_over_images([(IMAGE, TRUTH, "", WORDS[:1], ATTENTION)]), "one attention map per word"),
        (lambda: plots.block_step_grid({6: {50: ATTENTION}, 8: {150: ATTENTION}}), "same steps"),
        (lambda: plots.qualitative_grid([]), "nothing to draw"),
        (lambda: plots.qualitative_grid(SHOWN, window=0), "window=0"),
        (lambda: plots.qualitative_grid([SHOWN[0], ("b", IMAGE, TRUTH, {"ours": TRUTH})]), "the same models"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()

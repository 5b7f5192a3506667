"""What a model says of its masks beside the truth: a panel per source, and words for what is drawn."""

import pandas as pd

from textdiff.figures.style import description
from textdiff.figures.transfer import doubt_scatter

NAMES = {"expected_dice": "expected Dice", "agreement": "agreement"}
TABLE = pd.DataFrame(
    {
        "target": ["own", "own", "inverted", "inverted"],
        "dice": [0.9, 0.7, 0.1, 0.3],
        "expected_dice": [0.9, 0.8, 0.8, 0.9],
        "agreement": [0.8, float("nan"), 0.3, 0.1],
    }
)


def test_a_panel_per_target_with_a_mark_per_case_and_doubt():
    fig = doubt_scatter(TABLE, NAMES)
    assert [axis.get_title() for axis in fig.axes] == ["own", "inverted"]
    expected, agreeing = (one.get_offsets() for one in fig.axes[1].collections)
    assert expected.tolist() == [[80, 10], [90, 30]] and agreeing.tolist() == [[30, 10], [10, 30]]
    assert fig.axes[0].lines[0].get_xydata().tolist() == [[0, 0], [100, 100]]
    alt = description(fig)["alt"]
    assert "own: Dice 80.0 %, expected Dice 85.0 %, agreement 80.0 %; inverted: Dice 20.0 %" in alt
    assert [text.get_text() for text in fig.legends[0].get_texts()] == list(NAMES.values())


def test_five_targets_take_two_rows_without_empty_panels():
    five = pd.concat([TABLE[:1].assign(target=str(k)) for k in range(5)])
    assert len(doubt_scatter(five, NAMES).axes) == 5


def test_without_answers_it_says_so():
    fig = doubt_scatter(TABLE[:0], NAMES)
    assert [text.get_text() for text in fig.axes[0].texts] == ["not run yet"] and len(fig.axes) == 1
    assert description(fig)["alt"].endswith("Nothing has been run yet.")

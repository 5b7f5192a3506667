"""Sentences that records write: losses first, what rests on one draw marked, and nothing said where there is nothing."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from tests.unit.report.little import IMAGES, image_record
from textdiff.figures.style import description
from textdiff.report.missing import counted_runs
from textdiff.report.verdicts import (
    comparison_verdict,
    dots,
    readers_verdict,
    reading_verdict,
    small_table,
    standing,
    verdict_by_labels,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "place"),
    [(0.1, 0.2, "above"), (-0.2, -0.1, "below"), (-0.1, 0.2, "level"), (0.0, 0.2, "level"), (NAN, NAN, "open")],
)
def test_rows_are_told_apart_where_the_interval_is_clear_of_zero(low, high, place):
    assert standing(pd.Series({"low": low, "high": high})) == place


def records_of(tmp_path, worth: float, seeds=(0, 1), cases: int = 12) -> pd.DataFrame:
    """Both rows, many alike images: the text is worth ``worth`` on each, give or take a thousandth."""
    rows = []
    for seed in seeds:
        for row, above in zip(IMAGES.rows[:2], (worth, 0.0), strict=True):
            config = IMAGES.kind.resolved(**{**IMAGES.common, **row.fields, "seed": seed})
            dice = {f"{n:03d}": 0.5 + above + 0.001 * ((n + seed) % 3) * (above != 0) for n in range(cases)}
            rows.append(image_record(tmp_path, config, dice))
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("worth", "word", "points"), [(0.2, "Ahead of", "+20.10"), (-0.2, "Behind", "-19.90")])
def test_the_verdict_follows_the_records(tmp_path, worth, word, points):
    said = comparison_verdict(IMAGES, records_of(tmp_path, worth), "with text").text
    assert (
        f"**{word}** without, {points} (" in said
        and "(2 draws). Each comparison by itself" in said
        and "On 12 test cases" in said
    )
    assert "never run" not in said


def test_losses_come_first_and_one_draw_is_marked(tmp_path):
    records = records_of(tmp_path, 0.2)
    better = IMAGES.kind.resolved(**{**IMAGES.common, **IMAGES.rows[2].fields, "seed": 0})
    records = pd.concat([records, pd.DataFrame([image_record(tmp_path, better, {f"{n:03d}": 0.9 for n in range(12)})])])
    said = comparison_verdict(IMAGES, records, "with text").text
    assert said.index("**Behind** never run") < said.index("**Ahead of** without")
    behind, ahead = said.splitlines()[2:]
    assert "one draw" in behind and "one draw" not in ahead
    only = comparison_verdict(IMAGES, records, "with text", ["without"]).text
    assert "never run" not in only and "Ahead of" in only


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_one_test_case_gives_no_interval_and_no_verdict(tmp_path, seeds):
    records = records_of(tmp_path, 0.2, seeds, cases=1)
    mark = " (one draw)" if len(seeds) == 1 else ""
    opening, _, line = comparison_verdict(IMAGES, records, "with text").text.splitlines()
    assert opening.startswith("On 1 test case “with text”") and "interval" not in opening
    gap = small_table(IMAGES, records, "without").frame["above the base"].iloc[0]
    assert line == f"- **No interval on one test case:** without, {gap}."
    assert gap.startswith("+20.") and gap.endswith(mark) and "(" not in gap.removesuffix(mark)


def test_the_small_table_says_which_row_rests_on_one_draw_and_what_its_interval_is_for(tmp_path):
    one, two = (small_table(IMAGES, records_of(tmp_path, 0.2, seeds), "without") for seeds in ((0,), (0, 1)))
    assert (
        one.frame["above the base"].iloc[0].endswith("; one draw)")
        and one.frame["above the base"].iloc[1] == "the base"
    )
    assert "one draw" not in two.frame["above the base"].iloc[0]
    assert "(where one draw is shared, for other cases alone)" in one.caption


def test_without_records_nothing_is_said(none, images):
    assert "No record tells yet" in comparison_verdict(IMAGES, none, "with text").text
    assert "No record tells yet" in reading_verdict(IMAGES, none, "with text").text
    assert "No record tells yet" in reading_verdict(IMAGES, images, "without").text, "it does not read"
    with pytest.raises(ValueError, match="has not one row 'other'"):
        comparison_verdict(IMAGES, images, "other")


def test_reading_is_told_by_what_another_sentence_costs(images, tmp_path):
    said = reading_verdict(IMAGES, images, "with text").text
    assert said.startswith("It **reads**") and "another image's: +10.00" in said
    free = [dataclasses.replace(config) for config in IMAGES.configs(IMAGES.rows[0])]
    deaf = []
    for config in free:
        record = image_record(tmp_path, config, {"001": 0.5, "002": 0.6})
        table = pd.read_csv(record["folder"] / "per_case.csv").assign(dice_shuffled=[0.6, 0.5])
        table.to_csv(record["folder"] / "per_case.csv", index=False)
        deaf.append(record)
    assert reading_verdict(IMAGES, pd.DataFrame(deaf), "with text").text.startswith("No sign that it **reads**")


def test_readers_are_told_apart_by_what_they_lose(tmp_path, images, none):
    assert "**Reading, but no sign of *what* a sentence of its kind says**: with text (+10.0)." in readers(images)
    config = IMAGES.configs(IMAGES.rows[0])[0]
    for same_kind, words in ((0.01, "Reading, also"), (-0.01, "Reading, but")):
        record = image_record(tmp_path, config, {"001": 0.5, "002": 0.6})
        table = pd.read_csv(record["folder"] / "per_case.csv")
        table.assign(dice_same_count=table["dice"] - same_kind).to_csv(record["folder"] / "per_case.csv", index=False)
        said = readers(pd.DataFrame([record]))
        assert f"- **{words}" in said and f"with text (+10.0 and {100 * same_kind:+.1f}; one draw)" in said
    assert "without" not in readers(images), "it does not read"
    assert "No record tells yet" in readers(none)


def readers(records: pd.DataFrame) -> str:
    return readers_verdict(IMAGES, records).text


def test_each_number_of_labels_is_a_comparison_of_its_own(images, none):
    text, without, _ = IMAGES.rows
    fewer = [dataclasses.replace(row, fields=row.fields | {"n_labels": 3}) for row in (text, without)]
    both = dataclasses.replace(IMAGES, rows=(*fewer, text, without))
    said = verdict_by_labels(both, images, "with text").text
    few, many = said.split(f"**{IMAGES.configs(text)[0].n_labels} labelled.** ")
    assert few.startswith("**3 labelled.** No record tells yet")
    assert many == comparison_verdict(IMAGES, images, "with text", ["without"]).text
    assert verdict_by_labels(both, none, "with text").text.count("No record tells yet") == 2
    alone = dataclasses.replace(both, rows=(*fewer, without))
    said = verdict_by_labels(alone, images, "with text").text
    assert said.count("labelled.**") == 1, "nothing is said of a number that the base does not have"


def test_the_plot_and_the_small_table_hold_what_is_recorded(images):
    alt = description(dots(IMAGES, images, "without"))["alt"]
    assert "with text: 65.0 %, +25.0 points" in alt and "without: 40.0 %" in alt and "never run" not in alt
    frame = small_table(IMAGES, images, "without").frame
    assert frame["Model"].tolist() == ["with text", "without"] and frame["above the base"].tolist()[1] == "the base"


def test_runs_are_counted_once(images):
    told = counted_runs([IMAGES, IMAGES], images)
    assert told == "4 of 6 runs have a record; 4 of 6 rows have all their draws."

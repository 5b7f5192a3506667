"""Tables: the right mean, the right words for what is missing, and no mixture of experiments."""

import pandas as pd
import pytest

from textdiff.experiments.grids import Grid, Row
from textdiff.experiments.records import portable
from textdiff.report import images as report
from textdiff.report.images import NOT_GIVEN, NOT_RUN, paper_facts, results_table

WHERE = {"dataset": "monuseg", "protocol": "corrected"}


def record(seed=0, dice=0.7, **changes):
    metrics = {
        "test/dice": dice,
        "test/iou": 0.5,
        "test/dice_pooled": 0.72,
        "test/dice_native": 0.68,
        "test/dice_ci_low": dice - 0.1,
        "test/dice_ci_high": dice + 0.1,
        "test/n": 14,
    }
    fields = {"model": "textdiff", "n_labels": 5, "seed": seed, "device": "cpu", "blocks": [6, 8]}
    return WHERE | fields | metrics | {"run_id": str(seed), "experiment": "e", "stale": False} | changes


def table(*records, rows=("textdiff",), **options):
    return results_table(pd.DataFrame(records), rows, **({"where": WHERE} | options))


def test_mean_and_sample_deviation_over_draws():
    frame = table(record(0, 0.6), record(1, 0.7), record(2, 0.8)).frame
    row = frame.iloc[0]
    assert row["Dice"] == "70.00 ± 10.00"
    assert row["95 % interval"] == "60.00 to 80.00"
    assert (row["n labelled"], row["draws"], row["test n"]) == (5, 3, "14")
    assert (row["IoU"], row["pooled Dice"], row["native Dice"]) == (
        "50.00 ± 0.00",
        "72.00 ± 0.00",
        "68.00 ± 0.00",
    )


def test_one_draw_has_no_deviation():
    assert table(record(0, 0.6)).frame["Dice"].tolist() == ["60.00"]


def test_numbers_of_labels_are_rows_of_their_own():
    frame = table(record(n_labels=10, dice=0.8), record(n_labels=5)).frame
    assert frame[["n labelled", "Dice"]].values.tolist() == [[5, "70.00"], [10, "80.00"]]


def test_what_was_not_run_says_so():
    result = table(record(), rows=("textdiff", "unet"))
    assert result.frame["Dice"].tolist() == ["70.00", NOT_RUN]
    assert result.frame["draws"].tolist() == [1, 0]
    assert NOT_RUN in result.caption
    assert NOT_RUN not in table(record()).caption


def test_no_records_at_all():
    empty = pd.DataFrame(columns=["stale", "run_id"])
    assert results_table(empty, ["unet"], where=WHERE).frame["Dice"].tolist() == [NOT_RUN]


def test_a_run_of_another_split_is_not_run():
    assert table(record(), split="val").frame["Dice"].tolist() == [NOT_RUN]


def test_stale_records_do_not_count():
    result = table(record(0, 0.6), record(1, 0.9, stale=True))
    assert result.frame["Dice"].tolist() == ["60.00"]
    assert "1 record(s)" in result.caption


def test_different_experiments_are_never_averaged():
    with pytest.raises(ValueError, match="blocks"):
        table(record(0), record(1, blocks=[4]))
    assert len(table(record(0), record(1, device="cuda")).frame) == 1
    rows = {
        "few": {"model": "textdiff", "blocks_name": "a"},
        "many": {"model": "textdiff", "blocks_name": "b"},
    }
    frame = table(record(0, 0.5, blocks_name="a"), record(1, 0.6, blocks_name="b"), rows=rows).frame
    assert frame[["Model", "Dice"]].values.tolist() == [["few", "50.00"], ["many", "60.00"]]


def test_the_dataset_must_be_said_and_fields_must_exist():
    with pytest.raises(ValueError, match="name the dataset"):
        table(record(), where={"protocol": "corrected"})
    with pytest.raises(ValueError, match="dataest"):
        table(record(), where=WHERE | {"dataest": "monuseg"})


def test_paper_stands_beside_ours_with_its_grade():
    facts = paper_facts()
    mine = facts[(facts["table"] == "1") & facts["paper"].str.startswith("TextDiff")]
    result = table(record(), paper=mine)
    paper = result.frame.iloc[1:].set_index("Model")
    row = paper.loc["TextDiff (paper: TextDiff (arXiv 2407.05323), source grade C)"]
    assert (row["Dice"], row["IoU"], row["n labelled"]) == ("78.67", "64.98", "5")
    assert paper.loc["UNet (paper: TextDiff (arXiv 2407.05323))", "Dice"] == NOT_GIVEN
    assert len(paper) == 6
    assert "Source grades" in result.caption


def test_a_papers_dice_stands_under_its_own_scale():
    facts = paper_facts()
    where = {"dataset": "qata"}
    result = results_table(pd.DataFrame(columns=["stale"]), [], where=where, paper=facts)
    frame = result.frame.set_index("Model")
    pooled = frame.filter(like="TGC-Net", axis=0).iloc[0]
    assert (pooled["Dice"], pooled["pooled Dice"]) == (NOT_GIVEN, "90.54")
    native = frame.filter(like="RecLMIS", axis=0).iloc[0]
    assert (native["Dice"], native["native Dice"]) == (NOT_GIVEN, "83.69")


def test_paper_facts_have_a_source_and_a_grade_for_every_number():
    facts = paper_facts()
    assert not facts.duplicated(["id", "dataset"]).any()
    assert facts["source"].notna().all()
    known = facts[["dice", "iou"]].notna().any(axis=1)
    assert facts.loc[known, "grade"].isin(["A", "B", "C"]).all()
    assert facts.loc[~known, "grade"].isna().all()
    assert facts["params_grade"].notna().equals(facts["params_m"].notna())
    assert facts[["dice", "iou"]].stack().dropna().between(40, 100).all()


def test_paper_facts_missing_file_says_where_it_belongs(tmp_path):
    with pytest.raises(FileNotFoundError, match="part of the repository"):
        paper_facts(tmp_path / "none.csv")


def test_html_and_markdown_carry_caption_and_cells():
    result = report.Table(pd.DataFrame({"a|b": ["1 < 2"]}), "5 % & more")
    assert "<caption>5 % &amp; more</caption>" in result._repr_html_()
    assert "1 &lt; 2" in result.to_html()
    assert result.to_markdown().splitlines()[0] == "| a\\|b |"
    assert result.to_markdown().splitlines()[2] == "| 1 < 2 |"


LITTLE = Grid(
    "little",
    "Is it the text?",
    (Row("with text", {}), Row("without", {"model": "textdiff_no_text"}), Row("never run", {"model": "unet"})),
    {"dataset": "chest_phantoms"},
    (0, 1),
)


def saved(root, config, dice, stale=False, **metrics):
    """A record's row as `load_records` gives it, with its per-case table on disk. `dice`: {case: score}."""
    folder = root / config.run_id
    folder.mkdir(exist_ok=True)
    per_case = pd.DataFrame({"case": list(dice), "dice": list(dice.values())})
    per_case["dice_native"] = per_case["dice"] / 2
    if config.model == "textdiff":
        per_case["dice_shuffled"] = per_case["dice"] - 0.1
    per_case.to_csv(folder / "per_case.csv", index=False)
    mean = per_case["dice"].mean()
    metrics = {
        "val/dice": mean,
        "test/dice": mean,
        "test/iou": mean,
        "test/n": len(dice),
        "train/seconds": 1200.0,
    } | metrics
    place = {"run_id": config.run_id, "experiment": "textdiff2d", "folder": folder, "stale": stale}
    return portable(config.to_dict()) | metrics | {"model/trained_parameters": 134130} | place


@pytest.fixture
def little(tmp_path):
    """Both draws of the first two rows: the text is worth 0.3, 0.1 in the first draw and 0.4, 0.2 in the second."""
    text, none, _ = (LITTLE.configs(row) for row in LITTLE.rows)
    return pd.DataFrame(
        [
            saved(tmp_path, text[0], {"001": 0.6, "002": 0.5}),
            saved(tmp_path, none[0], {"002": 0.4, "001": 0.3}),
            saved(tmp_path, text[1], {"001": 0.8, "002": 0.7}),
            saved(tmp_path, none[1], {"001": 0.4, "002": 0.5}),
        ]
    )


def test_a_grids_rows_come_in_order_with_their_draws(little):
    frame = report.grid_table(LITTLE, little.iloc[[3, 2, 0]]).frame.set_index("Model")
    assert frame["draws"].to_dict() == {"with text": "2 of 2", "without": "1 of 2", "never run": "0 of 2"}
    assert frame["Dice"].tolist() == ["65.00 ± 14.14", "45.00", NOT_RUN]
    assert frame["n labelled"].tolist() == [60, 60, 60]
    assert frame.loc["with text", ["trained parameters", "seconds"]].tolist() == ["0.13 M", "1,200"]


def test_a_grid_without_any_record():
    empty = pd.DataFrame(columns=["stale", "run_id"])
    for result in (report.grid_table(LITTLE, empty), report.paired_differences(LITTLE, empty, "without")):
        assert result.frame["Dice"].tolist() == [NOT_RUN] * 3
    assert report.reading_table(LITTLE, empty).frame["own sentence"].tolist() == [NOT_RUN]
    assert report.grid_records(LITTLE, empty)["row"].tolist() == []


def test_a_record_with_another_value_anywhere_is_not_the_grids(little):
    for field, value in (("iterations", 7), ("augmentation", "none"), ("dataset", "nuclei_phantoms")):
        assert report.grid_records(LITTLE, little.assign(**{field: value})).empty
    assert len(report.grid_records(LITTLE, little.assign(device="cuda"))) == 4


def test_stale_records_of_a_grid_are_left_out_and_counted(little):
    little.loc[0, "stale"] = True
    result = report.grid_table(LITTLE, little)
    assert result.frame["draws"].tolist() == ["1 of 2", "2 of 2", "0 of 2"]
    assert "1 record(s) made with an older form" in result.caption


def test_the_learning_rate_is_chosen_on_validation_images(little):
    other = little.iloc[[0]].assign(learning_rate=0.5, **{"val/dice": 0.1, "test/dice": 0.99})
    both = pd.concat([little, other], ignore_index=True)
    first = report.grid_records(LITTLE, both).iloc[0]
    assert (first["learning_rate"], first["searched"]) == (little.loc[0, "learning_rate"], True)
    assert "For 1 run(s) a learning rate was searched" in report.grid_table(LITTLE, both).caption
    assert "searched" not in report.grid_table(LITTLE, little).caption
    both.loc[4, "val/dice"] = 0.9
    assert report.grid_records(LITTLE, both).loc[0, "learning_rate"] == 0.5


def test_best_by_validation_keeps_what_differs_in_more_than_the_rate(little):
    twice = pd.concat([little, little.assign(learning_rate=0.5, **{"val/dice": None})], ignore_index=True)
    assert report.best_by_validation(twice).index.tolist() == [0, 1, 2, 3]
    assert report.best_by_validation(twice.iloc[:0]).empty


def test_differences_are_paired_by_image_and_draw(little):
    one = report.differences(LITTLE, little, "without").loc["with text"]
    assert one["draws"] == pytest.approx((0.2, 0.3))
    assert (one["difference"], one["images"]) == (pytest.approx(0.25), 2)
    # by image, over draws: 0.35 and 0.15
    assert (one["low"], one["high"]) == pytest.approx((0.15, 0.35))
    assert report.differences(LITTLE, little, "without", "dice_native").loc["with text", "difference"] == pytest.approx(
        0.125
    )


def test_only_draws_of_both_rows_are_compared(little):
    one = report.differences(LITTLE, little.iloc[:3], "without").loc["with text"]
    assert one["draws"] == pytest.approx((0.2,))
    assert report.differences(LITTLE, little.iloc[[0, 3]], "without").loc["with text", "images"] == 0


def test_table_of_differences(little):
    result = report.paired_differences(LITTLE, little, "without")
    assert result.frame.values.tolist() == [
        ["with text", 2, "+25.00 (+15.00 to +35.00)", "+20.00, +30.00", "+12.50 (+7.50 to +17.50)"],
        ["without", 2, "the base", "", ""],
        ["never run", "", NOT_RUN, "", ""],
    ]
    assert "paired" not in result.caption and "without" in result.caption
    with pytest.raises(ValueError, match="not one row 'no text'; its rows are with text, without"):
        report.paired_differences(LITTLE, little, "no text")


def test_reading_is_a_loss_and_only_of_models_that_read(little):
    frame = report.reading_table(LITTLE, little).frame
    assert frame["Model"].tolist() == ["with text"]
    assert frame.loc[0, "another image's"] == "+10.00 (+10.00 to +10.00)"
    assert frame.loc[0, "none"] == NOT_GIVEN
    losses = report.reading_losses(LITTLE, little).set_index(["row", "reading"])
    assert losses.loc[("with text", "another image's"), "difference"] == pytest.approx(0.1)
    assert losses.loc["without", "difference"].isna().all()


def test_missing_runs_come_with_their_command(little):
    words = report.missing_runs(LITTLE, little.iloc[:3])
    assert words.splitlines() == [
        "3 of 6 runs of the grid little have no record yet:",
        "  without, 60 labelled: seed 1",
        "  never run, 60 labelled: seed 0, 1",
        "This makes them (and nothing twice):",
        "  textdiff sweep little -p dataset=chest_phantoms --seeds 0,1 -p mode=demo",
    ]
    two = Grid("two", "", LITTLE.rows[:2], LITTLE.common, LITTLE.seeds)
    assert report.missing_runs(two, little) == "All 4 runs of the grid two have a record."


def test_papers_rows_stand_beneath_a_grids_with_their_parameters():
    facts = paper_facts()
    facts = facts[facts["table"] == "1"]
    empty = pd.DataFrame(columns=["stale"])
    real = Grid("real", "", (Row("TextDiff", {}),), {"dataset": "monuseg", "mode": "full", "backbone": "he_32"}, (0,))
    frame = report.grid_table(real, empty, facts).frame.set_index("Model")
    paper = frame.loc["TextDiff (paper: TextDiff (arXiv 2407.05323), source grade C)"]
    assert (paper["Dice"], paper["trained parameters"]) == ("78.67", "9.68 M")
    assert len(report.grid_table(LITTLE, empty, facts).frame) == len(LITTLE.rows)


def test_rows_of_one_label_are_kept_apart(little):
    rows = (Row("ours", {}), Row("ours", {"model": "textdiff_no_text"}))
    frame = report.grid_table(Grid("two", "", rows, LITTLE.common, LITTLE.seeds), little).frame
    assert frame["Dice"].tolist() == ["65.00 ± 14.14", "40.00 ± 7.07"]


def test_every_record_that_reads_has_a_row_with_its_switches(little):
    little["test/dice_shuffled"] = [0.45, None, 0.65, None]
    little.loc[2, "positions"] = "off"
    result = report.readings_by_record(pd.concat([little, little.iloc[[0]].assign(stale=True)], ignore_index=True))
    assert result.frame[["draw", "switches", "own sentence"]].values.tolist() == [
        [0, "", "55.00"],
        [1, "positions off", "75.00"],
    ]
    assert result.frame["another image's"].tolist() == ["+10.00 (+10.00 to +10.00)"] * 2
    assert result.frame["none"].tolist() == [NOT_GIVEN] * 2
    assert result.caption.startswith("2 records") and "1 record(s) made with an older form" in result.caption
    assert report.readings_by_record(little.drop(columns="test/dice_shuffled")).frame.empty

"""Tables: the right mean, the right words for what is missing, and no mixture of experiments."""

import pandas as pd
import pytest

from textdiff import report
from textdiff.report import NOT_GIVEN, NOT_RUN, paper_facts, results_table

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

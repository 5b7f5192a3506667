"""The committed records that the demo pages are drawn from bear out what these pages say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from textdiff.experiments.grids import table_of
from textdiff.experiments.records import published_dir
from textdiff.report.images import reading_losses
from textdiff.report.rows import by_row
from textdiff.report.tables import differences

CLEARLY = 0.05  # of Dice, whole interval


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """``draw(table)``: the table of the drawn films as a fresh checkout shows it."""
    out_dir = str(tmp_path_factory.mktemp("none"))
    config = SimpleNamespace(dataset="chest_phantoms", seed=0, n_seeds=1, out_dir=out_dir)
    return lambda name: table_of(name, config)


@pytest.mark.parametrize("name", ["comparison", "ablation", "label_efficiency", "audit", "reading"])
def test_every_row_of_a_demo_table_has_its_record(draw, name):
    missing = [runs.row.label for runs in by_row(*draw(name)) if runs.missing]
    assert not missing, f"textdiff sweep {name} -p dataset=chest_phantoms, then publish ({published_dir()})"


@pytest.mark.parametrize("base", ["TextDiff without text", "U-Net"])
def test_the_model_that_reads_is_clearly_above_those_that_do_not(draw, base):
    table, records = draw("comparison")
    above = differences(table, records, base)
    assert above.loc["TextDiff", "low"] > CLEARLY
    assert above.loc["U-Net that reads", "low"] > CLEARLY


@pytest.mark.parametrize("row", ["TextDiff", "U-Net that reads"])
def test_a_reader_loses_clearly_with_another_images_sentence(draw, row):
    losses = reading_losses(*draw("comparison")).set_index(["row", "reading"])
    assert losses.loc[(row, "another image's"), "low"] > CLEARLY
    assert losses.loc[(row, "another's of the same kind"), "low"] > 0


def test_the_attention_is_worth_something(draw):
    table, records = draw("ablation")
    below = differences(table, records, "TextDiff")
    assert below.loc["without text (ζ1)", "high"] < -CLEARLY
    assert below.loc["text without cross-attention (ζ2)", "high"] < 0


def test_without_the_additions_less_is_read(draw):
    losses = reading_losses(*draw("reading")).set_index(["row", "reading"])["difference"]
    same_kind = losses.xs("another's of the same kind", level="reading")
    assert same_kind["whole sentence, places, mask"] > same_kind["without places in the queries"]
    assert same_kind["whole sentence, places, mask"] > same_kind["none of them"]


def test_more_labels_help_the_reader_most(draw):
    table, records = draw("label_efficiency")
    for n in {row.fields["n_labels"] for row in table.rows}:
        dice = {
            runs.row.label: runs.draws["test/dice"].mean()
            for runs in by_row(table, records)
            if runs.row.fields["n_labels"] == n
        }
        if n == max(row.fields["n_labels"] for row in table.rows):
            assert dice["TextDiff"] > dice["TextDiff without text"] + CLEARLY
            assert dice["TextDiff"] > dice["U-Net"] + CLEARLY

"""Tables of what a model says of itself on other pictures: their numbers, and what they say where there is nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.unit.report.little import TWO_PATIENTS
from textdiff.experiments.catalogue import BY_EXPERIMENT
from textdiff.experiments.pages import TransferConfig
from textdiff.report import transfer

OWN = pd.DataFrame(
    {
        "target": "own",
        "case": ["a", "b", "c", "d"],
        "dice": [0.9, 0.8, 0.6, 0.3],
        "expected_dice": [0.9, 0.9, 0.7, 0.5],
        "agreement": [0.7, 0.9, 0.8, 0.2],
        "remarked": [0, 0, 0, 1],
    }
)
OTHER = OWN.assign(target="inverted", dice=[0.1, 0.2, 0.1, 0.0], agreement=0.4, remarked=1)
BOTH = pd.concat([OWN, OTHER], ignore_index=True)


def row(table, number: int) -> list:
    return table.frame.iloc[number].tolist()


def test_one_line_per_target_and_one_of_all_together():
    table = transfer.transfer_table(BOTH)
    assert table.frame["Pictures of"].tolist() == ["own", "inverted", "all together"]
    name, n, dice, expected, failed, spearman, auroc, half, remarked = row(table, 0)
    assert (name, n, expected, failed, auroc, half, remarked) == ("own", 4, "75.0", "25%", "1.00", "85.0", "25%")
    assert dice.startswith("65.0 (") and float(spearman) == pytest.approx(0.95, abs=0.005)
    assert row(table, 1)[4:7] == ["100%", "0.83", "–"], "all failed: nothing to tell apart"
    assert row(table, 2)[:3] == ["all together", 8, "37.5"], "pictures that come again have no interval"
    assert "none of all together" in table.caption and "expected Dice" in table.frame.columns
    assert row(transfer.transfer_table(BOTH, "agreement"), 1)[3] == "40.0"


def test_a_single_target_is_not_told_twice():
    assert transfer.transfer_table(OWN).frame["Pictures of"].tolist() == ["own"]


def test_the_surest_answers_by_share():
    frame = transfer.coverage_table(OWN).frame
    assert list(frame.columns) == ["Pictures of", "surest 50%", "surest 75%", "surest 90%", "surest 100%"]
    assert [cell.split()[0] for cell in frame.iloc[0][1:]] == ["85.0", "76.7", "65.0", "65.0"]
    unknown = transfer.coverage_table(OWN.assign(agreement=float("nan")), "agreement").frame
    assert unknown.iloc[0].tolist() == ["own", *["–"] * 4]


def test_the_words_are_those_of_the_table():
    said = transfer.said_of_transfer(BOTH)
    assert "Lowest mean Dice: 10.0% on inverted, against 65.0% on its own pictures" in said
    assert "By expected Dice it is farthest above the truth on inverted: 75.0%, +65.0 points." in said
    assert "A Dice below 0.5 have 5 of 8 answers." in said and "expected Dice 0.70, agreement 1.00" in said
    assert "Remarked on before the answer: 5 of these, 0 of the 3 others." in said and "without any" not in said
    assert "between 30.0% (own) and 50.0% (inverted)" in transfer.said_of_transfer(
        BOTH.assign(unread=[0.3] * 4 + [0.5] * 4)
    )
    assert "AUROC" not in transfer.said_of_transfer(OWN[:3])


def test_a_record_of_real_pictures_is_shown_and_a_missing_one_says_so(tmp_path, none):
    frame = transfer.recorded_transfers(none).frame
    assert frame["Trained on"].tolist() == ["monuseg", "qata"] and (frame["n"] == "not run yet").all()
    config = TransferConfig.resolved(mode="full", dataset="qata")
    BOTH.to_csv(tmp_path / "per_case.csv", index=False)
    record = config.to_record() | {"folder": tmp_path, "stale": False}
    frame = transfer.recorded_transfers(pd.DataFrame([record])).frame
    assert frame["Trained on"].tolist() == ["monuseg", "qata", "qata", "qata"]
    assert frame.iloc[1:, 1:].to_numpy().tolist() == transfer.transfer_table(BOTH).frame.to_numpy().tolist()
    assert BY_EXPERIMENT["transfer"] is TransferConfig


def test_the_interval_of_a_target_takes_the_images_of_a_patient_together():
    rows = {"target": "own", "case": list(TWO_PATIENTS), "dice": list(TWO_PATIENTS.values())}
    frame = transfer.transfer_table(pd.DataFrame(rows | {"expected_dice": 0.5, "agreement": 0.5})).frame
    assert "20.0" in frame.iloc[0].iloc[2] and "80.0" in frame.iloc[0].iloc[2]

"""A model asked about other sources: which sources a configuration means, its table and metrics, and what is refused."""

from __future__ import annotations

import pandas as pd
import pytest
from tiny_models import tiny_textdiff

from textdiff.data import load_dataset
from textdiff.data.domain import domain_of_pictures
from textdiff.data.images.shifts import SHIFTS
from textdiff.evaluation import doubt
from textdiff.experiments import transfer
from textdiff.experiments.images import load_data
from textdiff.experiments.pages import TransferConfig
from textdiff.experiments.transfer import TOGETHER, measure_transfer, targets_of, transfer_metrics
from textdiff.models.text import TextEncoder


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """An untrained model that has met drawn films, and how to ask it of few pictures."""
    monkeypatch.setattr("textdiff.experiments.images.PHANTOM_SIDE", 32)
    model = tiny_textdiff(TextEncoder.from_pretrained("tiny"), positions=True)
    model.domain = domain_of_pictures(load_dataset("chest_phantoms", sizes=(8, 0, 0), image_size=32).train)
    model.save_pretrained(tmp_path / "mine")
    return model, {"model_folder": str(tmp_path / "mine"), "max_test": 3}


def test_every_target_has_its_rows_and_its_metrics(saved):
    config = TransferConfig.from_params(**saved[1])
    table = measure_transfer(config)
    changes = [name for name in SHIFTS if name != "stain"]
    assert list(table["target"].unique()) == ["own", "nuclei_phantoms", *changes]
    assert list(table.columns) == ["target", "case", "dice", "expected_dice", "agreement", "unread", "remarked"]
    assert (table.groupby("target").size() == 3).all() and table.drop(columns=["target", "case"]).notna().all(axis=None)
    assert table.groupby("target")["case"].first()["darker"] == table.groupby("target")["case"].first()["own"]
    assert table.query("target == 'nuclei_phantoms'")["remarked"].all(), "colour where films were grey"
    metrics = transfer_metrics(table)
    assert metrics["own/n"] == 3 and metrics[f"{TOGETHER}/n"] == len(table)
    assert metrics["own/dice_at_100_agreement"] == pytest.approx(metrics["own/dice"])
    assert {"noise/spearman_expected_dice", "noise/auroc_agreement", "noise/dice_at_50_expected_dice"} <= set(metrics)


def test_a_model_that_was_trained_on_the_target_is_refused(saved, tmp_path):
    model, asked = saved
    config = TransferConfig.from_params(**asked)
    shown = targets_of(config, load_data(config))["nuclei_phantoms"][0]
    model.trained_on = {"dataset": "nuclei_phantoms", "cases": [shown[0].fingerprint()]}
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="the model was trained on 1 of the 3 test cases"):
        measure_transfer(TransferConfig.from_params(**asked | {"model_folder": str(tmp_path / "other")}))


def test_the_sources_by_default_are_those_of_the_kind():
    assert TransferConfig.from_params().sources == "own,nuclei_phantoms,shifts"
    assert TransferConfig.from_params(dataset="qata", mode="full").listed == ["own", "phantoms", "shifts"]
    phantoms = {name: TransferConfig.from_params(dataset=name).phantoms for name in ("qata", "monuseg")}
    assert phantoms == {"qata": "chest_phantoms", "monuseg": "nuclei_phantoms"}


def test_the_shipped_model_is_known_by_its_name_and_weights():
    config = TransferConfig.from_params()
    assert len(config.model_weights) == 16
    assert config.model_weights == TransferConfig.from_params(model_folder="chest_phantoms_small").model_weights


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("own,elsewhere", "'elsewhere' is none of own, phantoms, shifts"),
        ("", "'' is none of"),
        ("own, own", "each once"),
        ("own,phantoms", "each once; own is chest_phantoms, phantoms chest_phantoms"),
        ("own,hippocampus", "'hippocampus' is none of"),
    ],
)
def test_sources_that_are_not_possible_are_refused(sources, said):
    with pytest.raises(ValueError, match=said):
        TransferConfig.from_params(sources=sources)


def test_without_a_model_the_way_to_one_is_told():
    config = TransferConfig.from_params(dataset="nuclei_phantoms")
    with pytest.raises(ValueError, match="no model ships for 'nuclei_phantoms': train one"):
        config.check_inputs()


def test_the_files_of_a_named_data_set_are_looked_for_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="textdiff fetch qata"):
        TransferConfig.from_params(sources="own,qata").check_inputs()


def test_drawn_pictures_are_scored_at_the_models_size_and_real_ones_at_that_of_the_tables(saved, monkeypatch):
    asked, cases = [], load_dataset("chest_phantoms", sizes=(0, 0, 1), image_size=32).test
    monkeypatch.setattr(transfer, "targets_of", lambda *_: {"drawn": (cases, True), "real": (cases, False)})
    monkeypatch.setattr(
        doubt, "measure_doubt", lambda *_, eval_size, **how: asked.append(eval_size) or pd.DataFrame({"case": ["a"]})
    )
    measure_transfer(TransferConfig.from_params(**saved[1]))
    assert asked == [saved[0].image.image_size, 256]

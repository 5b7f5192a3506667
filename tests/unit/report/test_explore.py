"""What book/_static/explore holds is of the shipped models, says what the records say, and is all that the pages need."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textdiff.base import paths
from textdiff.data import registry
from textdiff.report import explore

BOOK = Path(__file__).resolve().parents[3] / "book"
FOLDER = BOOK / "_static/explore"
KINDS = {"attention", "sentences", "features", "volume"}
NEAR = 0.002  # a Dice of bfloat16 features is not the same to the last digit on every processor


def part(name: str) -> dict[str, Any]:
    text = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
    head = f"textdiffExplore.{name} = "
    assert text.startswith(head) and text.endswith(";\n")
    return json.loads(text[len(head) : -2])


FILMS, FEATURES, VOLUME = map(part, ("films", "features", "volume"))


@pytest.mark.parametrize("shown", [FILMS, FEATURES, VOLUME], ids=lambda shown: shown["model"])
def test_the_models_are_the_shipped_ones(shown):
    known = registry.BACKBONES | registry.MODELS
    weights = paths.shipped("weights") / shown["model"] / "model.safetensors"
    assert shown["sha256"] == known[shown["model"]].sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert shown["record"] == explore.RECORDS[shown["model"]]


def test_films_stand_where_the_rule_puts_them():
    table = explore.record_table("qata_small").set_index("case")
    assert {film["key"]: film["case"] for film in FILMS["films"]} == explore.at_shares(table["dice"], explore.SHARES)
    assert table["dice"].idxmin() == FILMS["films"][0]["case"]
    assert FEATURES["case"] == next(film["case"] for film in FILMS["films"] if film["key"] == "median")
    dice = explore.record_table("hippocampus_small").set_index("case")["dice"]
    assert VOLUME["case"] == explore.at_shares(dice, {"median": 0.5})["median"]
    assert (dice < dice[VOLUME["case"]]).sum() == len(dice) // 2


def test_dice_of_films_is_that_of_the_record():
    table = explore.record_table("qata_small").set_index("case")
    for film in FILMS["films"]:
        assert [sentence["kind"] for sentence in film["sentences"]] == list(explore.SENTENCES)
        for sentence in film["sentences"]:
            recorded = table.loc[film["case"], explore.SENTENCES[sentence["kind"]]]
            assert sentence["dice"] == pytest.approx(recorded, abs=NEAR), (film["key"], sentence["kind"])


def test_dice_of_features_is_that_of_the_record():
    table = explore.record_table("chest_64")
    rows = table[table["backbone"] == "chest_64"].astype({"blocks": str, "noise_steps": str})
    means = rows.groupby(["blocks", "noise_steps"])["dice"].mean()
    for block, row in enumerate(FEATURES["dice"]):
        for step, dice in zip(FEATURES["steps"], row, strict=True):
            recorded = means.get((str(block), str(step)))
            assert (dice is None) if recorded is None else dice == pytest.approx(recorded, abs=1e-4)
    assert any(dice is None for dice in FEATURES["dice"][0])  # the page explains its sign for "not measured"


def test_dice_of_the_volume_is_that_of_the_record():
    row = explore.record_table("hippocampus_small").set_index("case").loc[VOLUME["case"]]
    for answer in VOLUME["answers"]:
        for name, dice in answer["dice"].items():
            own = f"dice_{name.replace(' ', '_')}"
            alone = f"{own}_asked_for_{name.replace(' ', '_')}"
            assert dice == pytest.approx(row[own if len(answer["dice"]) > 1 else alone], abs=NEAR), answer["text"]


def test_labels_of_the_volume_have_the_dice_that_is_shown():
    truth, image = (explore.unpacked(VOLUME[name], VOLUME["shape"]) for name in ("truth", "image"))
    assert image.min() == 0 and image.max() == 255
    for answer in VOLUME["answers"]:
        labels = explore.unpacked(answer["labels"], VOLUME["shape"])
        assert explore.unpacked(answer["uncertainty"], VOLUME["shape"]).any()
        for name, dice in answer["dice"].items():
            found, true = (one == 1 + VOLUME["structures"].index(name) for one in (labels, truth))
            assert 2 * (found & true).sum() / (found.sum() + true.sum()) == pytest.approx(dice, abs=1e-3)


def test_words_have_their_cells_and_place_is_read_more_than_what_every_sentence_says():
    cells = [word["cell"] for film in FILMS["films"] for word in film["words"] if "cell" in word]
    assert cells == list(range(len(cells)))
    with Image.open(FOLDER / FILMS["sprite"]) as sprite:
        fitting = (sprite.width // FILMS["cell"]) * (sprite.height // FILMS["cell"])
    assert len(cells) <= fitting < len(cells) + FILMS["columns"]
    for film in FILMS["films"]:
        spoken = "".join(word["word"] for word in film["words"])
        assert spoken == film["sentences"][0]["text"].lower().replace(" ", "")
        mean = {word["word"]: word["mean"] for word in film["words"] if "cell" in word}
        common = max(mean["pulmonary"], mean["infection"])
        assert min(mean[word] for word in ("upper", "middle", "lower", "left", "right") if word in mean) > common


def test_all_that_is_named_is_there_and_nothing_else_and_it_is_light():
    named = {FILMS["sprite"], FEATURES["sprite"], FEATURES["noised"], *(film["picture"] for film in FILMS["films"])}
    pages = [(BOOK / f"{name}.md").read_text(encoding="utf-8") for name in ("intro", "explore")]
    named |= {name for page in pages for name in re.findall(r'data-still="([^"]+)"', page)}
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert files.keys() == named | {"README.md", "films.js", "features.js", "volume.js"}
    scripts = sum((BOOK / f"_static/explore.{kind}").stat().st_size for kind in ("js", "css"))
    assert sum(files.values()) + scripts < 450_000


def test_every_part_of_a_page_has_a_still_picture_with_words():
    found = {}
    for name in ("intro", "explore"):
        page = (BOOK / f"{name}.md").read_text(encoding="utf-8")
        parts = re.findall(
            r'<div class="explore" id="explore-(\w+)" data-explore="(\w+)" data-still="([^"]+)" data-alt="([^"]+)">\n'
            r'<noscript><img src="../_static/explore/([^"]+)" alt="([^"]+)"></noscript>\n</div>\n\n\*',
            page,
        )
        assert len(parts) == page.count('class="explore"') > 0
        assert all(one[0] == one[1] and one[2] == one[4] and one[3] == one[5] for one in parts)
        found[name] = {kind for kind, *_ in parts}
    assert found == {"intro": {"attention"}, "explore": KINDS}


def test_the_thumbnails_are_the_named_cases(qata_root):
    from textdiff.data import load_dataset

    cases = {case.name: case for case in load_dataset("qata", root=qata_root).test}
    for film in FILMS["films"]:
        with Image.open(FOLDER / film["picture"]) as picture:
            shown = np.asarray(picture.convert("L"), dtype=float)
        original = Image.fromarray(cases[film["case"]].image()).convert("L").resize(shown.shape)
        assert np.abs(shown - np.asarray(original, dtype=float)).mean() < 3, film["case"]


def corners(path: str) -> list[np.ndarray]:
    """The closed lines of a path, each [N, 2]."""
    lines = []
    for part in filter(None, path.split("z")):
        start, moves = part.removeprefix("M").split("l")
        lines.append(np.cumsum(np.array(f"{start} {moves}".split(), dtype=int).reshape(-1, 2), axis=0))
    return lines


def test_an_outline_is_where_the_field_is_zero():
    field = np.full((64, 64), -1.0)
    field[10:30, 20:50] = 1
    (line,) = corners(explore.outline(field, 128))
    low, high = line.min(axis=0), line.max(axis=0)
    assert np.abs(low - [400, 200]).max() <= 5 and np.abs(high - [1000, 600]).max() <= 5  # x, y in tenths of 1/128


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_no_outline_where_nothing_is(value):
    assert explore.outline(np.full((8, 8), value)) == ""


def test_an_outline_at_the_picture_s_edge_is_closed_within_it():
    (line,) = corners(explore.outline(np.ones((16, 16))))
    assert line.min() >= 0 and line.max() <= explore.SIDE * explore.UNIT
    assert np.ptp(line, axis=0).min() > 0.9 * explore.SIDE * explore.UNIT


def test_places_in_the_order_are_from_the_worst_to_the_best():
    dice = pd.Series({"b": 0.5, "a": 0.9, "c": 0.1})
    assert explore.at_shares(dice, {"worst": 0, "middle": 0.5, "best": 1}) == {"worst": "c", "middle": "b", "best": "a"}

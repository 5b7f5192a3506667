"""Grids: which runs make which table; every row is a valid configuration, and a run is never asked for twice."""

from __future__ import annotations

import json

import pytest

from textdiff.data import registry
from textdiff.experiments.grids import GRIDS, grid
from textdiff.experiments.volumes import TextDiffSegConfig


def datasets(name: str) -> list[str]:
    found = registry.names("volumes" if GRIDS[name][1] is TextDiffSegConfig else "images")
    if name == "cost":
        return [one for one in found if "cost" in registry.dataset(one).runs]
    if name == "recipe":
        return [one for one in found if "channel_dropout" in registry.dataset(one).runs.get("grid", {})]
    return [one for one in found if registry.dataset(one).label_counts or "efficiency" not in name]


@pytest.mark.parametrize(("name", "dataset"), [(name, dataset) for name in GRIDS for dataset in datasets(name)])
def test_every_row_is_a_valid_and_distinct_experiment(name, dataset):
    table = grid(name, dataset)
    assert table.question.endswith("?") and table.seeds == tuple(range(registry.dataset(dataset).draws))
    assert len({(row.label, row.fields.get("n_labels")) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        configs = table.configs(row)
        assert [config.seed for config in configs] == list(table.seeds)
        assert all(type(config) is table.kind and config.mode == "full" for config in configs)
        # Else none of them could be published: of drawn cases any number is whole
        whole = ("all", registry.dataset(dataset).runs["cost"]["max_test"] if name == "cost" else "all")
        assert all(config.max_test in whole or config.entry.synthetic for config in configs)
    everything = table.all()
    assert len({config.run_id for config in everything}) == len(everything) == len(table.rows) * len(table.seeds)
    assert [config.seed for config in everything] == sorted(config.seed for config in everything)


def test_tables_share_the_runs_they_have_in_common():
    for dataset, names in {
        "monuseg": ("comparison", "ablation"),
        "abdomen_phantoms": ("comparison3d", "ablation3d"),
    }.items():
        one, other = (grid(name, dataset).all() for name in names)
        assert {config.run_id for config in one} & {config.run_id for config in other}


@pytest.mark.parametrize("dataset", ["qata", "chest_phantoms"])
def test_the_audit_changes_one_thing_per_row(dataset):
    base, *quirks = [row for row in grid("audit", dataset).rows if "protocol" not in row.fields]
    assert base.fields == {} and all(row.fields for row in quirks)
    official, *authors = [row for row in grid("audit", dataset).rows if "protocol" in row.fields]
    heads = {config.head for row in (base, official) for config in grid("audit", dataset).configs(row)}
    assert len(heads) == 1 and len(authors) == ("phantoms" not in dataset)


def test_the_authors_head_and_training_have_nothing_of_ours():
    (config,) = grid("audit", "qata", (0,)).only(["the authors' head and training"]).all()
    ours = {
        "mirrored": "off",
        "ema_decay": 0.0,
        "channel_dropout": 0.0,
        "weight_decay": 0.0,
        "views": 0,
        "unlabelled": 0,
    }
    theirs = {
        "iterations": 7500,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "noise_steps": "50,150,250",
        "caption_tokens": 10,
    }
    assert config.to_dict().items() >= (ours | theirs | {"positions": "off", "text_mask": "off"}).items()


def test_rows_seeds_and_parameters_may_be_chosen():
    table = grid("comparison", "qata", seeds=(4,))
    assert {config.seed for config in table.all()} == {4}
    assert [row.label for row in table.only(["U-Net", "TextDiff"]).rows] == ["TextDiff", "U-Net"]
    with pytest.raises(
        ValueError, match=r"no row 'textdif' \(did you mean 'TextDiff'\?\)\. It has: TextDiff; TextDiff w"
    ):
        table.only(["textdif"])
    assert {config.iterations for config in table.changed({"iterations": 3}).all()} == {3}
    with pytest.raises(ValueError, match="rows of grid comparison differ in model"):
        table.changed({"model": "unet"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("comparisons", "qata"), r"no grid 'comparisons' \(did you mean 'comparison'"),
        (("audit", "mosmed"), "mosmed"),
        (("audit", "hippocampus"), "grid audit is about images, and hippocampus holds volumes"),
        (("ablation3d", "qata"), "grid ablation3d is about volumes, and qata holds images"),
        (("label_efficiency3d", "btcv"), "no rows for btcv: the entry of the registry names no label_counts"),
        (("cost", "monuseg"), "no rows for monuseg: the entry of the registry names no runs for 'cost'"),
        (("audit", "qata", (-1,)), "seed=-1"),
    ],
)
def test_unknown_names_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        grid(*words).all()


def test_a_data_set_of_ones_own_has_the_same_tables(tmp_path, monkeypatch):
    entry = {"kind": "images", "layout": "lvit", "class_names": ["background", "lesion"], "licence": "mine"}
    runs = {"grid": {"iterations": 7, "image_size": 64}}
    (tmp_path / "registry.json").write_text(
        json.dumps({"datasets": {"mine": {**entry, "runs": runs, "label_counts": [2]}}})
    )
    monkeypatch.setenv("TEXTDIFF_REGISTRY", str(tmp_path / "registry.json"))
    for name in ("comparison", "label_efficiency"):
        assert {(config.iterations, config.image_size) for config in grid(name, "mine").all()} == {(7, 64)}

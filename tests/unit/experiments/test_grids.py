"""Grids: which runs make which table; every row is a valid configuration, and a run is never asked for twice."""

from __future__ import annotations

import pytest

from textdiff.experiments.config import TextDiffConfig, TextDiffSegConfig
from textdiff.experiments.grids import COMMON, COMMON_3D, GRIDS, GRIDS_3D, grid

SETS = ((GRIDS, COMMON), (GRIDS_3D, COMMON_3D))
CASES = [
    (name, dataset, mode) for names, sets in SETS for name in names for dataset in sets for mode in ("demo", "full")
]
RUNNABLE = [case for case in CASES if case[2] == "full" or case[1].endswith("phantoms")]


@pytest.mark.parametrize(("name", "dataset", "mode"), RUNNABLE)
def test_every_row_is_a_valid_and_distinct_experiment(name, dataset, mode):
    table = grid(name, dataset, mode)
    named = {(row.label, row.fields.get("n_labels")) for row in table.rows}
    assert table.question.endswith("?") and len(named) == len(table.rows)
    for row in table.rows:
        configs = table.configs(row)
        assert [config.seed for config in configs] == list(table.seeds)
        assert table.kind is (TextDiffConfig if name in GRIDS else TextDiffSegConfig)
        assert all(type(config) is table.kind and config.mode == mode for config in configs)
    everything = table.all()
    assert len({config.run_id for config in everything}) == len(everything) <= len(table.rows) * len(table.seeds)
    assert everything[0].seed == table.seeds[0]


def test_tables_share_the_runs_they_have_in_common():
    comparison, ablation = (grid(name, "monuseg") for name in ("comparison", "ablation"))
    assert comparison.configs(comparison.rows[0]) == ablation.configs(ablation.rows[2])


def test_the_audit_changes_one_thing_a_row():
    base, *quirks, official = grid("audit", "qata").rows
    assert base.fields == {} and official.fields["protocol"] == "official"
    assert all(row.fields and "protocol" not in row.fields for row in quirks)


def test_all_demo_tables_of_volumes_share_one_trained_model():
    tables = [grid(name, "abdomen_phantoms", "demo") for name in GRIDS_3D]
    first = tables[0].configs(tables[0].rows[0])[0]
    assert all(first in table.all() for table in tables)


def test_seeds_may_be_chosen():
    assert [config.seed for config in grid("encoders", "qata", seeds=(4,)).all()] == [4, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("comparisons", "qata"), "no grid 'comparisons', did you mean 'comparison'"),
        (("audit", "mosmed"), "no grid audit for dataset='mosmed': there are grids for monuseg, qata"),
        (("audit", "qata", "demo"), "demo mode runs on phantoms"),
    ],
)
def test_unknown_names_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        grid(*words)

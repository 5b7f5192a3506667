"""What Snakemake would do: the plan of `textdiff sweep`, in every profile, and nothing where a row or data are wrong."""

from __future__ import annotations

import pytest
from workflow_grids import Cluster

pytest.importorskip("snakemake", reason="Snakemake is not installed (pip install -e '.[cluster]')")
KUBERNETES = ("--default-storage-prefix", "{folder}/volume", "--container-image", "registry.example/textdiff-cluster")


@pytest.mark.parametrize(
    ("profile", "plugin", "words"),
    [
        ("local", "snakemake", ()),
        ("slurm", "snakemake_executor_plugin_slurm", ()),
        ("k8s", "snakemake_executor_plugin_kubernetes", KUBERNETES),
    ],
)
def test_every_run_without_a_record_is_a_job(tmp_path, profile, plugin, words):
    pytest.importorskip(plugin, reason=f"{plugin} is not installed (pip install -e '.[cluster]')")
    grid = Cluster(tmp_path, seeds="0,1")
    words = [word.format(folder=tmp_path) for word in words]
    first, *others = grid.configs
    root = tmp_path / ("volume/results/runs" if profile == "k8s" else "records")
    record = root / first.experiment / first.run_id
    record.mkdir(parents=True)
    for name in ("config.json", "metrics.json", "per_case.csv", "env.json"):
        (record / name).write_text("{}")
    code, said = grid.run({}, "--dry-run", "--printshellcmds", *words, profile=profile)
    assert code == 0 and said.count("-m textdiff train --config /dev/stdin") == len(others), said
    for config in others:
        assert f"{config.experiment}/{config.run_id}/metrics.json" in said
    assert first.run_id not in said
    assert not grid.counts("tried") and not (root / "tables").exists()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"iterations": "0"}, "iterations=0"),
        ({"backbone_file": "x"}, "backbone_file"),
        ({"text_encoder": "nowhere"}, "nowhere"),
    ],
)
def test_nothing_starts_where_something_is_wrong(tmp_path, changes, fault):
    grid = Cluster(tmp_path, seeds="0,1")
    grid.changes |= changes
    code, said = grid.run({}, "--cores", "2")
    assert code != 0 and fault in said, said
    assert not grid.counts("tried") and not grid.recorded()

"""Snakemake on small grids, in folders of their own. Settings come in; a running process, its ledger and its records out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textdiff.cli import read_grid

REPO = Path(__file__).resolve().parents[1]
ROWS = "TextDiff,without text (ζ1)"
CHANGES = {"iterations": "2", "validate_every": "1", "n_labels": "2", "max_test": "2"}
SECONDS = 300  # bound of one Snakemake, against hanging


@dataclass
class Cluster:
    """A folder where Snakemake makes ``rows`` of the ablation on phantoms with ``seeds``, a stand-in for the training (stand_in/)."""

    folder: Path
    seeds: str = "0,1"
    rows: str = ROWS
    more: Mapping[str, str] = field(default_factory=dict)  # environment
    changes: dict[str, str] = field(default_factory=CHANGES.copy)

    def __post_init__(self) -> None:
        self.configs = read_grid("ablation", {"dataset": "nuclei_phantoms"}, self.seeds, self.rows, self.changes).all()
        self.ids = [config.run_id for config in self.configs]
        (self.folder / "ledger").mkdir(parents=True, exist_ok=True)

    def start(self, does: Mapping[str, str], *words: str, profile: str = "local") -> subprocess.Popen[str]:
        """Snakemake, in a session of its own; what it says is one text. ``does``: see stand_in/sitecustomize.py."""
        runs = {f"{config.model} {config.seed}": config.run_id for config in self.configs}
        environment = {
            **{**os.environ, **self.more},
            "PYTHONPATH": os.pathsep.join([str(REPO / "tests" / "workflow" / "stand_in"), str(REPO)]),
            "TEXTDIFF_RESULTS": str(self.folder / "records"),
            "TEXTDIFF_CACHE": str(self.folder / "cache"),
            "XDG_CACHE_HOME": str(self.folder / "home"),
            "LEDGER": str(self.folder / "ledger"),
            "RUNS": json.dumps(runs),
            "DOES": json.dumps(dict(does)),
        }
        changes = ", ".join(f"{name}: {value}" for name, value in self.changes.items())
        config = ["grid=ablation", "dataset=nuclei_phantoms", f"seeds={self.seeds}", f"rows={self.rows}"]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "workflow" / "Snakefile")]
        command += [
            "--workflow-profile",
            str(REPO / "workflow" / "profiles" / profile),
            "--directory",
            str(self.folder),
        ]
        command += [*words, "--set-resources", "run:gpu=0", "run:mem_mb=100"]
        command += ["--config", *config, f"set={{{changes}}}", "threads=1"]
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, does: Mapping[str, str], *words: str, profile: str = "local") -> tuple[int, str]:
        """The same until it ends: exit code and what it said."""
        process = self.start(does, *words, profile=profile)
        said, _ = process.communicate(timeout=SECONDS)
        return process.returncode, said

    def counts(self, kind: str) -> Counter[str]:
        """How often each run was "tried", or "made"."""
        file = self.folder / "ledger" / kind
        return Counter(file.read_text().split() if file.is_file() else [])

    def recorded(self) -> list[str]:
        root = self.folder / "records"
        return [
            config.run_id
            for config in self.configs
            if (root / config.experiment / config.run_id / "metrics.json").is_file()
        ]

    def table(self) -> list[str]:
        """The lines of the table without its head."""
        (file,) = (self.folder / "records" / "tables").glob("ablation-nuclei_phantoms*.csv")
        return file.read_text().splitlines()[1:]


def listed(said: str) -> Sequence[str]:
    """The lines in which Snakemake's end lists failed runs."""
    return [line for line in said.splitlines() if line.startswith("failed: ")]

"""What notebooks 25, 26 and 29 recorded of one trained model. In: a data set and records. Out: metrics and tables, empty ones where
nothing was run, and figures of them that say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from textdiff.data import registry
from textdiff.evaluation.studies import ALL, SAMPLED, by_question
from textdiff.experiments.config import Config
from textdiff.experiments.pages import PromptsConfig, RequestsConfig, SamplingConfig
from textdiff.figures.curves import dice_heatmap
from textdiff.report.missing import NOT_RUN
from textdiff.report.rows import case_table, record_of

WAY = ("sampler", "sampling_steps", "samples")


def sampling_of(dataset: str, records: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Notebook 25 in full mode, of the model that ships: its record and its per-case table."""
    return _found(SamplingConfig.resolved(mode="full", dataset=dataset), records, [*SAMPLED, *WAY])


def prompts_of(dataset: str, records: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Notebook 26 in full mode, of the model that ships: its record and its per-case table."""
    columns = ["case", "prompt", "kind", "asked", "structure", "dice", "actual_ml", "predicted_ml"]
    return _found(PromptsConfig.resolved(mode="full", dataset=dataset), records, columns)


REQUESTS = {
    "read_as_meant": "read as meant",
    "obeyed_by_the_network": "obeyed by the network",
    "right": "right answer",
    "right_or_told": "right, or told",
}


def requests_records(records: pd.DataFrame) -> pd.DataFrame:
    """Notebook 29 in full mode, one row per model that ships: requests (of how many) that hold in every test volume."""
    rows = []
    for name in registry.names("volumes"):
        if not registry.dataset(name).model:
            continue
        found, _ = _found(RequestsConfig.resolved(mode="full", dataset=name), records, ["sentence"])
        number = found.get("requests/n")
        shares = {
            said: f"{found[f'requests/{key}']:.0f} of {number:.0f}" if found else NOT_RUN
            for key, said in REQUESTS.items()
        }
        volumes = f"{found['test/n']:.0f}" if found else ""
        silent = f"{found['requests/silent_share']:.1%}" if found else ""
        rows.append(
            {"model": registry.dataset(name).model, "test volumes": volumes, **shares, "silent answers": silent}
        )
    return pd.DataFrame(rows).set_index("model")


def _found(config: Config, records: pd.DataFrame, columns: Sequence[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    record = record_of(config, records)
    if record is None:
        return {}, pd.DataFrame(columns=list(columns))
    return record.to_dict(), case_table(record)


def missing_studies(dataset: str, records: pd.DataFrame) -> str:
    """Which of the two have no record, with the commands that make them; or that none is missing."""
    found = {"25": sampling_of(dataset, records)[0], "26": prompts_of(dataset, records)[0]}
    lines = [f"  textdiff run {number} -p mode full -p dataset {dataset}" for number, one in found.items() if not one]
    return "\n".join(["No record yet of:", *lines]) if lines else f"Notebooks {' and '.join(found)} have a record each."


def asked_in(answers: pd.DataFrame, kind: str, names: Sequence[str]) -> Figure:
    """Dice by what is asked for in one kind of sentence and by structure, with the standard deviation over volumes.

    `answers`: the table of `prompts_of`. `names`: the structures.
    """
    nothing = pd.DataFrame(
        np.nan, index=pd.Index([ALL, *names], name="asked for"), columns=pd.Index(names, name="structure")
    )
    mean, spread = (by_question(answers, statistic).get(kind, nothing) for statistic in ("mean", "std"))
    caption = f"Dice in percent (and standard deviation over volumes) under {kind} prompts, {answers['case'].nunique()} volumes."
    return dice_heatmap(mean, caption, spread=spread, limits=(0, 1))

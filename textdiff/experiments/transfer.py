"""A trained TextDiff asked about pictures of other sources (notebook 31). In: a configuration. Out: a per-case table, metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textdiff.base.precision import resolve_device
from textdiff.data.splits import check_unseen
from textdiff.experiments.config import limited
from textdiff.experiments.images import EVAL_SIZE, load_data, saved_model
from textdiff.experiments.pages import OWN, PHANTOMS, SHIFTS, TransferConfig

TOGETHER = "all together"

if TYPE_CHECKING:
    import pandas as pd

    from textdiff.data.cases import Case, Dataset


def targets_of(config: TransferConfig, own: Dataset) -> dict[str, tuple[list[Case], bool]]:
    """Name of each target -> its test cases, at most ``max_test``, and whether they are drawn by this package.

    Images of ``own`` (the data set of the configuration), the same changed (:mod:`textdiff.data.images.shifts`), and those of
    other data sets with sentences of their own. They are the first of each split; nothing is chosen by a score.
    """
    from textdiff.data.images.shifts import shifted, shifts_for

    test, found = limited(own.test, config.max_test), {}
    for source in config.listed:
        if source == OWN:
            found[OWN] = test, own.synthetic
        elif source == SHIFTS:
            found |= {name: (shifted(test, name), own.synthetic) for name in shifts_for(test[0].image())}
        else:
            name = config.phantoms if source == PHANTOMS else source
            data = load_data(replace(config, dataset=name))
            found[name] = limited(data.test, config.max_test), data.synthetic
    return found


def measure_transfer(config: TransferConfig) -> pd.DataFrame:
    """The table of :func:`textdiff.evaluation.doubt.measure_doubt` of every target, one below the other, with the column ``target``.

    ``remarked``, where the model knows the pictures of its training: 1 where it finds a picture unlike them before it answers
    (:mod:`textdiff.data.domain`), else 0.

    Raises ValueError where no model ships for the data set and none is named, or it was trained on a test case of a target.
    """
    import pandas as pd

    from textdiff.evaluation.doubt import measure_doubt

    model, _, own = saved_model(config, config.model_folder)
    reads = model.text is not None
    if model.text is not None:
        model.text.allow_empty = True
    tables = []
    for name, (cases, synthetic) in targets_of(config, own).items():
        check_unseen(model.trained_on, cases)
        table = measure_doubt(
            model,
            cases,
            model.image,
            eval_size=model.image.image_size if synthetic else EVAL_SIZE,
            device=resolve_device(config.device),
            reading=reads,
        )
        table.insert(0, "target", name)
        if model.domain is not None:
            table["remarked"] = [int(bool(model.domain.remarks_on_picture(case.image()))) for case in cases]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def transfer_metrics(table: pd.DataFrame) -> dict[str, float]:
    """What a record keeps of each target, and of all together: n, mean Dice and its interval over images (tables take those of
    one patient together), means of the doubts, and how well these tell it. All together have no interval: the same pictures
    stand in several targets."""
    from textdiff.evaluation.doubt import SURE, by_coverage, told_by
    from textdiff.evaluation.metrics import bootstrap_interval

    metrics: dict[str, float] = {}
    for name, rows in [*table.groupby("target", sort=False), (TOGETHER, table)]:
        found = {"n": len(rows), "dice": rows["dice"].mean()}
        if name != TOGETHER:
            found["dice_ci_low"], found["dice_ci_high"] = bootstrap_interval(rows["dice"])
        found |= {column: rows[column].mean() for column in (*SURE, "unread", "remarked") if column in rows}
        for sure in SURE:
            found |= {
                f"{score}_{sure}": value for score, value in told_by(rows, sure).items() if score != "failed_share"
            }
            found |= {f"dice_at_{100 * one.share:.0f}_{sure}": one.dice for one in by_coverage(rows, sure).itertuples()}
        metrics |= {f"{name}/{score}": float(value) for score, value in found.items()}
    return metrics

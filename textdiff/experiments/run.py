"""The one way to make a run. In: a configuration. Out: its record; trained weights are kept beside it on this machine.

Notebooks 13 and 22, ``textdiff train``, ``textdiff sweep`` and Snakemake all come through here: a record is the same
whoever asked for it, nothing is run twice, and nobody makes the same run at once. Processes that a launcher started for one
training (:mod:`textdiff.base.processes`) call it alike: the main one tests and records, and all come back when it has.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdiff.base.files import read_json, remove_unfinished
from textdiff.base.processes import processes
from textdiff.data.check import check_cases
from textdiff.data.faults import counted, settle
from textdiff.data.splits import SPLITS, check_unseen
from textdiff.experiments import images, volumes
from textdiff.experiments.config import Config, test_cases, validation_cases
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.places import drop_checkpoints, kept_model, locked, scratch_dir
from textdiff.experiments.records import Run, is_record, papermill_command, published_dir
from textdiff.experiments.volumes import TextDiffSegConfig
from textdiff.training.fit import best_row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

# The steps of a run, by the class of its configuration
WORK: dict[type[Config], Any] = {TextDiffConfig: images, TextDiffSegConfig: volumes}


def make_run(config: Config, out_dir: str | Path = "") -> Run:
    """The run of a configuration: read where it has a record, else made: train, keep the weights, test, draw, record.

    Raises:
        ValueError: a configuration that is not one of a run, data without cases to train or to test on, files of it
            that are broken or do not fit (all are listed before the training begins), or test cases that the model was trained on.
        FileNotFoundError: data, weights or an encoder that are not there; OSError: a record could not be written.
        FloatingPointError: the training diverged.
    """
    if type(config) not in WORK:
        raise ValueError(
            f"{type(config).__name__} describes no run (those are {', '.join(c.__name__ for c in WORK)}), but a page, which "
            f"trains no model of its own: `{papermill_command(config)}` makes it"
        )
    with locked(config):
        run = Run.open(config, out_dir)
        if not processes().told(lambda: run.finished):
            run.check_writable()
            config.check_inputs()
            _make(run, config, WORK[type(config)])
            processes().wait()
        drop_checkpoints(config)
    return run


def _make(run: Run, config: Any, work: Any) -> None:
    data = work.load_data(config)
    _check_splits(config, data)
    labelled = work.labelled_cases(config, data)
    if processes().main:
        _check_data(config, data, labelled)
    others = images.unlabelled_cases(config, data) if getattr(config, "unlabelled", 0) else []
    # All pictures that are learned from, which are also read once before the first step
    seen = [case.fingerprint() for case in (*labelled, *others)]
    model = work.build_model(config, data)
    # Of the weights that the training goes on from
    before = getattr(model, "trained_on", {}) or _recorded(config, getattr(config, "start_from", ""))
    check_unseen(before, test_cases(config, data))
    seen = list(dict.fromkeys([*before.get("cases", ()), *seen]))
    model.trained_on = {"dataset": config.dataset, "cases": seen}
    model.domain = work.domain(config, data, labelled)
    checkpoint = scratch_dir() / config.run_id / "checkpoint.safetensors"
    history = work.train(model, config, data, labelled, checkpoint)
    if not processes().main:
        return
    keep_model(model, config)
    metrics, per_case = work.measure(model, config, data)
    best = best_row(history)
    metrics |= {
        "model/trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train/n": len(labelled),
        "train/best_step": best["step"],
        "train/seconds": history[-1]["seconds"],
    }
    if others:
        metrics |= {"train/unlabelled": len(others), "train/teacher_dice": best["teacher"]}
    drawn = work.figures(model, config, data, per_case, history)
    run.save(metrics, per_case, drawn, about={"training_cases": seen})


def _recorded(config: Any, name: str) -> dict[str, Any]:
    """What the run called ``name`` was trained on, by its record: a network's weights do not say it. {} without one here."""
    if not name:
        return {}
    folders = (Run.open(config, root).folder.with_name(Path(name).name) for root in ("", published_dir()))
    record = next((one for one in folders if is_record(one)), None)
    if record is None:
        return {}
    cases = read_json(record / "env.json").get("training_cases", [])
    return {"dataset": read_json(record / "config.json")["dataset"], "cases": cases}


def _check_splits(config: Any, data: Any) -> None:
    """Refuses data with nothing to train or to test on; warns where there is nothing to choose the best step on."""
    if data.train and data.val and data.test:
        return
    counts = ", ".join(f"{split} {len(getattr(data, split))}" for split in SPLITS)
    said = f"the cases of {config.dataset!r} in {config.entry.folder()} are split into {counts}"
    remedy = (
        'say in its split.json which is for what ({"train": [names], "val": [...], "test": [...]}), or bring more cases'
    )
    if not (data.train and data.test):
        raise ValueError(f"{said}: a run needs cases to train and to test on; {remedy}")
    if processes().main and getattr(config, "select_on", "val") == "val":
        warnings.warn(f"{said}: without validation the weights of the last step are kept; {remedy}", stacklevel=2)


def _check_data(config: Any, data: Any, labelled: Sequence[Any]) -> None:
    """Reads all files of a run before its first step. Raises one error that lists every fault; warnings are counted."""
    if data.synthetic:
        return
    cases = {"train": labelled, "val": validation_cases(config, data), "test": test_cases(config, data)}
    report = check_cases(cases, data.class_names, root=config.entry.folder())
    settle(report.faults, "the data of this run")
    if report.warnings:
        said = f"{counted(len(report.warnings), 'warning')} about the data of this run: {report.warnings[0].sentence}"
        warnings.warn(f"{said} (`textdiff check {config.entry.folder()}` lists all)", stacklevel=2)


def record(
    config: Config,
    metrics: Mapping[str, float],
    table: pd.DataFrame,
    figures: Mapping[str, Figure] | None = None,
) -> Run:
    """Keeps what a notebook has found out as the record of its configuration; a whole record stays as it is."""
    with locked(config):
        run = Run.open(config)
        if not run.finished:
            run.save(metrics, table, figures)
    return run


def keep_model(model: Any, config: Config) -> Path:
    """Writes trained weights to :func:`~textdiff.experiments.places.kept_model`: a whole model, or a network's weights."""
    from textdiff.base.checkpoints import write_checkpoint

    folder = kept_model(config.run_id)
    remove_unfinished(folder)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        write_checkpoint(folder / "model.safetensors", model.state_dict())
    return folder


def trained_model(config: Config, data: Any = None) -> nn.Module:
    """The model that :func:`make_run` trained, in eval mode.

    Raises:
        FileNotFoundError: the run was not made on this machine, or its cache is gone.
    """
    folder, work = kept_model(config.run_id), WORK[type(config)]
    if not folder.is_dir():
        run = Run.open(config)
        first = f"; remove its record {run.place} first, or give another out_dir" if run.finished else ""
        raise FileNotFoundError(
            f"no trained weights of {config.run_id}: they stay on the machine that made them (TEXTDIFF_CACHE); "
            f"make the run again{first}"
        )
    model = work.load_trained(config, data if data is not None else work.load_data(config), folder)
    if not getattr(model, "trained_on", {}):
        model.trained_on = _recorded(config, config.run_id)
    return model

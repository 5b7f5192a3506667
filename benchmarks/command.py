"""All questions, or those that are named: `python -m benchmarks` measures, prints, judges, and writes the record."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.bench_backbones import BACKBONES
from benchmarks.goals import Verdict, judge
from benchmarks.measuring import COLUMNS, Row, ceiling
from textdiff.base.precision import resolve_device
from textdiff.experiments.pages import CostConfig
from textdiff.experiments.places import locked
from textdiff.experiments.records import Run, environment

FAILED = "failed"


def questions() -> list[str]:
    """Names of all files ``bench_<name>.py``."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=f"some of {', '.join(questions())}; none: all")
    parser.add_argument("--full", action="store_true", help="everything, instead of what takes minutes")
    parser.add_argument("--demo", action="store_true", help="tiny sizes: shows the machinery, measures nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--backbones", default=BACKBONES, help="small backbones, by name or folder")
    parser.add_argument("--before", type=Path, help="checkout of an older version, for `textdiff predict`")
    given = parser.parse_args(words)
    unknown = sorted(set(given.questions) - set(questions()))
    if unknown:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(questions())}")
    device = resolve_device(given.device).type
    config = CostConfig.from_params(
        mode="demo" if given.demo else "full",
        extent="whole" if given.full else "quick",
        machine=machine(device),
        threads=torch.get_num_threads(),
        backbones=",".join(Path(name).name for name in given.backbones.split(",")),
        device=device,
    )
    run = Run.open(config)
    rows = measured(config, given.questions or questions(), given.backbones, given.before)
    verdicts = judge(rows)
    print("\n".join(told(verdicts)))
    failed = any(row.quantity == FAILED for row in rows)
    if not given.questions and not (failed and run.finished):  # a whole record is worth more
        table = pd.DataFrame([row.as_record() for row in rows], columns=COLUMNS)
        about = {"command": shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if words is None else words)])}
        with locked(config):
            print(f"record: {run.save(metrics(verdicts), table, about=about)}")
    return int(failed)


def machine(device: str) -> str:
    """The name of the processor or of the graphics card that is measured."""
    about = environment(0, "")
    return str(about["gpu"] if device == "cuda" else about["processor"])


def measured(
    config: CostConfig, names: Sequence[str], backbones: str = BACKBONES, before: Path | None = None
) -> list[Row]:
    """The rows of all these questions, printed as they come. A question that fails leaves a row that says so."""
    demo = config.mode == "demo"
    rows = shown(ceiling(config.device, side=256 if demo else 2048, apart=not demo))
    for name in names:
        module: Any = importlib.import_module(f"benchmarks.bench_{name}")
        known: dict[str, dict[str, Any]] = {"backbones": {"backbones": backbones}, "predict": {"before": before}}
        options = dict(known.get(name, {}))
        if demo:
            if not hasattr(module, "TINY"):
                continue
            options["sizes"] = module.TINY
        wall, processor = time.monotonic(), _processor_seconds()
        try:
            rows += shown(module.measure(config.extent == "quick", config.device, **options))
        except Exception as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}".strip().splitlines()
            rows += shown([Row(name, "", FAILED, float("nan"), "", device=config.device, note=said[-1])])
        spent = time.monotonic() - wall, _processor_seconds() - processor
        print(f"{name} took {spent[0]:.0f} s, {spent[1]:.0f} s of the processor", flush=True)
    return rows


def _processor_seconds() -> float:
    """Of this process and of those that have ended."""
    return sum(os.times()[:4])


def shown(rows: Sequence[Row]) -> list[Row]:
    for row in rows:
        spread = f"{row.spread[0]:.4g} to {row.spread[1]:.4g} of {row.repeats}" if row.spread else ""
        print(
            f"{row.work:<24}{row.side:<18}{row.quantity:<28}{row.value:>12.4g} {row.unit:<9}{spread:<28}{row.note}",
            flush=True,
        )
    return list(rows)


def told(verdicts: Sequence[Verdict]) -> list[str]:
    """The goals, one line each."""
    return ["", "goals", *(f"{verdict.goal.name:<36}{verdict}" for verdict in verdicts), ""]


def metrics(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The goals as the record's flat numbers; nan where nothing was measured."""
    flat: dict[str, float] = {}
    for one in verdicts:
        value, met = (float("nan") if found is None else float(found) for found in (one.value, one.met))
        name = f"goal/{one.goal.name}"
        flat |= {f"{name}/value": value, f"{name}/goal": one.goal.goal, f"{name}/met": met}
    return flat

"""Stands in for `python -m textdiff train` in every Python that has this folder on its path. Words of it and the environment in;
a record out, or what DOES says: "fail", "fail once", "slow" (half a second), "hang" (a minute, the first time), "real" (the
training itself).

    RUNS    {"<model> <seed>": run id}                       DOES    {run id: what}
    LEDGER  a folder, with a line of <run id> per attempt ("tried") and per record ("made")

As a real run, it takes a lock of its own and makes nothing that is there.
"""

import json
import os
import sys
import time
from pathlib import Path


def note(kind: str, run_id: str) -> None:
    with open(Path(os.environ["LEDGER"]) / kind, "a") as file:
        file.write(run_id + "\n")


def train() -> int | None:
    from filelock import FileLock

    text = sys.stdin.read()
    config = json.loads(text)
    run_id = json.loads(os.environ["RUNS"])[f"{config['model']} {config['seed']}"]
    does = json.loads(os.environ["DOES"]).get(run_id, "")
    if does == "real":
        reader, writer = os.pipe()  # what was read is given back
        os.write(writer, text.encode())
        os.close(writer)
        os.dup2(reader, 0)
        return None
    ledger = Path(os.environ["LEDGER"])
    with FileLock(ledger / f"{run_id}.lock"):
        record = Path(os.environ["TEXTDIFF_RESULTS"]) / config["experiment"] / run_id
        first = not (ledger / "tried").is_file() or run_id not in (ledger / "tried").read_text().split()
        if (record / "metrics.json").is_file():
            return 0
        note("tried", run_id)
        print(f"working, process {os.getpid()}", flush=True)
        if does == "fail" or (does == "fail once" and first):
            print(f"the training of {run_id} diverged")
            return 2
        time.sleep({"slow": 0.5, "hang": 60 if first else 0}.get(does, 0))
        building = record.with_name(f".{run_id}.{os.getpid()}")
        (building / "figures").mkdir(parents=True)
        for name in ("config.json", "per_case.csv", "env.json"):
            (building / name).write_text("{}")
        (building / "metrics.json").write_text(json.dumps({"test/dice": config["seed"] / 10}))
        if record.is_dir():  # Snakemake makes the folders of its outputs
            (record / "figures").rmdir() if (record / "figures").is_dir() else None
            record.rmdir()
        os.rename(building, record)
        note("made", run_id)
    return 0


if sys.orig_argv[1:5] == ["-m", "textdiff", "train", "--config"]:
    code = train()
    if code is not None:
        sys.stdout.flush()
        os._exit(code)

"""Work that is killed over and over: what to do, a folder, a seed and a number of kills in; what happened, as JSON, out.

A process of its own, which forks: every attempt begins at once, with all that it imports in memory. A moment to die is before
one of the changes of files that an undisturbed run makes, or after some of its processor time; both follow from the seed.

    python tests/chaos.py run FOLDER --seed 1 --kills 6
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from textdiff.data import load_dataset
from textdiff.data.images.lvit import write_split
from textdiff.data.volumes.patches import Preprocessing, TrainingVolumes
from textdiff.experiments import publish as publishing
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pretraining import PretrainConfig, kept_backbone
from textdiff.experiments.run import make_run

ENTRY = {"kind": "images", "layout": "lvit", "class_names": ["background", "nucleus"], "licence": "mine"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime")
CHANGING = ("seconds", "peak_memory_mb", "date")  # what no two runs have in common


def settle(folder: Path) -> None:
    """Data, caches and results of what follows are in ``folder``."""
    for name in ("DATA", "CACHE", "RESULTS"):
        os.environ[f"TEXTDIFF_{name}"] = str(folder / name.lower())
    publishing.published_dir = lambda: folder / "checkout" / "results" / "published"


def prepare(folder: Path) -> None:
    """A data set of pictures and one of volumes, and a checkout to publish into."""
    settle(folder)
    drawn = load_dataset("nuclei_phantoms", sizes=(3, 2, 2), image_size=32)
    for split in ("train", "val", "test"):
        write_split(folder / "data" / "mine" / f"{split.capitalize()}_Folder", getattr(drawn, split))
    (folder / "data" / "registry.json").write_text(json.dumps({"datasets": {"mine": ENTRY}}))
    (folder / "checkout").mkdir()
    (folder / "checkout" / "pyproject.toml").touch()


# --- the work -------------------------------------------------------------------------------------------


def run() -> None:
    """Checks the data, trains with a cache of features, keeps the model, writes a record."""
    make_run(
        TextDiffConfig.from_params(
            dataset="mine",
            n_labels=3,
            image_size=32,
            batch_size=2,
            backbone="phantoms_32",
            blocks="0,1",
            noise_steps="50",
            iterations=6,
            validate_every=2,
            device="cpu",
            precision="float32",
        )
    )


def publish() -> None:
    run()
    publishing.publish(everything=True, allow_dirty=True)


def pretraining() -> None:
    small = {"channel_mult": "1,2", "attention_resolutions": "2", "num_res_blocks": 1, "crop": 16, "image_size": 32}
    kept_backbone(
        PretrainConfig.from_params(**small, iterations=6, batch_size=2, precision="float32", device="cpu")
    )


def volumes() -> None:
    """Prepares volumes for training, with their cache, and leaves what it found there beside it."""
    from volume_layouts import write_layout

    from textdiff.base.files import write_text
    from textdiff.data import load_volumes

    place = Path(os.environ["TEXTDIFF_DATA"]) / "Task03_Liver"
    if not place.exists():
        write_layout(place, "liver_tumour", 3, shape=(32, 32, 24), spacing=(2.0, 2.0, 2.0))
    data = load_volumes("liver_tumour")
    cache = Path(os.environ["TEXTDIFF_CACHE"]) / "volumes"
    prepared = TrainingVolumes(
        data.train, data.class_names, Preprocessing(None, (-100.0, 100.0), (16, 16, 16)), patch=(16, 16, 16), cache=cache
    )
    found = [prepared.sample(number)[0].numpy().tobytes() for number in range(3)]
    write_text(cache.parent / "models" / "found.txt", hashlib.sha256(b"".join(found)).hexdigest())


WORK: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (run, publish, pretraining, volumes)
}


def outcome(folder: Path) -> dict[str, str]:
    """Kept weights, records and published records, by name: hashes, without what differs from run to run."""
    found = {}
    for root in (folder / "cache" / "models", folder / "results", folder / "checkout"):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if path.suffix == ".json" and path.parent.name != "figures":
                content = json.dumps(_lasting(json.loads(content))).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()[:16]
    left = [path for path in (folder / "cache" / "training").rglob("*") if path.suffix == ".safetensors"]
    return found | {"checkpoints": str(len(left))}


def _lasting(told: object) -> object:
    if isinstance(told, dict):
        return {key: _lasting(value) for key, value in told.items() if key.split("/")[-1] not in CHANGING}
    return [_lasting(one) for one in told] if isinstance(told, list) else told


# --- attempts -------------------------------------------------------------------------------------------


def attempt(work: Callable[[], None], arm: Callable[[], object] = lambda: None) -> int:
    """Exit code of a child that does the work: 0, 1 after an error, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            arm()
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_change(folder: Path, happen: Callable[[], object]) -> None:
    """Calls ``happen`` before every change of a file in ``folder`` that this process makes from now on."""

    def watch(event: str, told: tuple) -> None:
        if event in CHANGES or (event == "open" and isinstance(told[2], int) and told[2] & WRITES):
            if str(told[0]).startswith(str(folder)):
                happen()

    sys.addaudithook(watch)


def die_before_change(folder: Path, number: int) -> None:
    seen = []

    def happen() -> None:
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    on_change(folder, happen)


def die_after_seconds(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends a process as SIGKILL does


def undisturbed(work: Callable[[], None], folder: Path) -> tuple[dict[str, str], int, float]:
    """The outcome, and how many changes of files and seconds of processor time it takes; also, everything is imported then."""
    counter = folder / "changes"
    prepare(folder)
    work()
    shutil.rmtree(folder / "cache")
    shutil.rmtree(folder / "results", ignore_errors=True)
    shutil.rmtree(folder / "checkout" / "results", ignore_errors=True)

    def counting() -> None:
        seen: list[int] = []
        on_change(folder, lambda: seen.append(1))
        started = time.process_time()
        work()
        taken = time.process_time() - started
        Path(f"{counter}").write_text(json.dumps([len(seen), taken]))

    assert attempt(counting) == 0
    changes, seconds = json.loads(counter.read_text())
    return outcome(folder), changes, seconds


def kill(name: str, root: Path, seed: int, kills: int) -> dict[str, object]:
    work, draw = WORK[name], random.Random(seed)
    expected, changes, seconds = undisturbed(work, root / "undisturbed")
    told: dict[str, object] = {"seed": seed, "changes": changes, "seconds": round(seconds, 2)}
    killed = finished = 0
    folder, wrong = root / "0", []
    prepare(folder)
    while True:
        over = killed >= kills
        if draw.random() < 0.5:
            number = draw.randint(1, changes)
            arm = lambda folder=folder, number=number: die_before_change(folder, number)  # noqa: E731
        else:
            arm = lambda after=draw.uniform(0, seconds): die_after_seconds(after)  # noqa: E731
        code = attempt(work, (lambda: None) if over else arm)
        if code in (-signal.SIGKILL, -signal.SIGPROF):
            killed += 1
        elif code == 0:
            finished += 1
            wrong += [] if outcome(folder) == expected else [folder.name]
            if over:
                return told | {"killed": killed, "finished": finished, "wrong": wrong}
            folder = root / str(finished)
            prepare(folder)
        else:
            return told | {"killed": killed, "finished": finished, "wrong": wrong, "failed": code}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(kill(given.work, given.folder, given.seed, given.kills)))

"""Work that is disturbed over and over: pairs of work and disturbance, a folder and a seed in; what happened, as JSON, out.

A process of its own, which forks: every attempt begins at once, with all that it imports in memory. A moment to die is before
one of the changes of files that an undisturbed run makes, or after some of its processor time; both follow from the seed.
After every disturbance the work is begun again, and must end as if there had been none.

    python tests/chaos.py FOLDER publish:killed pretraining:killed publish:full --seed 1 --times 6
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm
from volume_layouts import write_layout

from textdiff.data import load_dataset, load_volumes
from textdiff.data.images.lvit import write_split
from textdiff.data.volumes.patches import Preprocessing, TrainingVolumes
from textdiff.experiments import publish as publishing
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pretraining import PretrainConfig, kept_backbone
from textdiff.experiments.run import make_run

ENTRY = {"kind": "images", "layout": "lvit", "class_names": ["background", "nucleus"], "licence": "mine"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime")
CHANGING = ("seconds", "peak_memory_mb", "date", "commit", "dirty")  # what no two runs have in common


def settle(folder: Path) -> None:
    """Data, caches and results of what follows are in ``folder``."""
    for name in ("DATA", "CACHE", "RESULTS"):
        os.environ[f"TEXTDIFF_{name}"] = str(folder / name.lower())
    publishing.published_dir = lambda: folder / "checkout" / "results" / "published"


def prepare(folder: Path) -> None:
    """A data set of pictures and one of volumes, and a checkout to publish into."""
    folder.mkdir(exist_ok=True)
    settle(folder)
    drawn = load_dataset("nuclei_phantoms", sizes=(3, 2, 2), image_size=32)
    for split in ("train", "val", "test"):
        write_split(folder / "data" / "mine" / f"{split.capitalize()}_Folder", getattr(drawn, split))
    (folder / "data" / "registry.json").write_text(json.dumps({"datasets": {"mine": ENTRY}}))
    write_layout(folder / "data" / "Task03_Liver", "liver_tumour", 3, shape=(32, 32, 24), spacing=(2.0, 2.0, 2.0))
    (folder / "checkout").mkdir()
    (folder / "checkout" / "pyproject.toml").touch()


# --- the work -------------------------------------------------------------------------------------------


def run() -> None:
    """Checks the data, trains with a cache of features, keeps the model, writes a record."""
    make_run(
        TextDiffConfig.from_params(
            dataset="mine",
            mode="full",
            text_encoder="tiny",
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
    states = [verdict.state for verdict in publishing.publish(everything=True, allow_dirty=True)]
    assert states in (["published"], ["unchanged"])


def pretraining() -> None:
    small = {"channel_mult": "1,2", "attention_resolutions": "2", "num_res_blocks": 1, "crop": 16, "image_size": 32}
    kept_backbone(PretrainConfig.from_params(**small, iterations=6, batch_size=2, precision="float32", device="cpu"))


def volumes() -> None:
    """Prepares volumes for training, with their cache, and leaves what it found there beside it."""
    data = load_volumes("liver_tumour")
    cache = Path(os.environ["TEXTDIFF_CACHE"]) / "volumes"
    prepared = TrainingVolumes(
        data.train,
        data.class_names,
        Preprocessing(None, (-100.0, 100.0), (16, 16, 16)),
        patch=(16, 16, 16),
        cache=cache,
    )
    found = [prepared.sample(number)[0].numpy().tobytes() for number in range(3)]
    (cache.parent / "models").mkdir(exist_ok=True)
    (cache.parent / "models" / "found.txt").write_text(hashlib.sha256(b"".join(found)).hexdigest())


WORK: dict[str, Callable[[], None]] = {one.__name__: one for one in (run, publish, pretraining, volumes)}


def outcome(folder: Path) -> dict[str, str]:
    """Kept weights, records and published records, by name: hashes, without what differs from run to run."""
    found = {}
    for root in (folder / "cache" / "models", folder / "results", folder / "checkout"):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            if any(part.endswith(".partial") for part in path.parts):
                continue  # a hidden folder of a record, which is none
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
    return ended(start(work, arm))


def start(work: Callable[[], None], arm: Callable[[], object] = lambda: None) -> int:
    """A child that does the work."""
    child = os.fork()
    if not child:
        try:
            arm()
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
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


def jump_about(draw: random.Random) -> None:
    now = time.time
    time.time = lambda: now() + draw.choice((-7200, 0, 7200))


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


@dataclass
class Trial:
    """One work in folders of its own, and what an undisturbed one told about it."""

    work: Callable[[], None]
    root: Path
    draw: random.Random
    expected: dict[str, str]
    changes: int
    seconds: float

    def fresh(self, name: str) -> Path:
        prepare(self.root / name)
        return self.root / name

    def ends_as_ever(self, folder: Path) -> bool:
        """Whether the work, begun once more, ends as it does undisturbed."""
        settle(folder)
        return attempt(self.work) == 0 and outcome(folder) == self.expected

    def moment(self, folder: Path) -> Callable[[], object]:
        if self.draw.random() < 0.5:
            return partial(die_before_change, folder, self.draw.randint(1, self.changes))
        return partial(die_after_seconds, self.draw.uniform(0, self.seconds))


def killed(trial: Trial, times: int) -> dict[str, object]:
    """Killed and begun again, with what it has left, until it ends; then in a new folder; so many kills in all."""
    kills, right, folders = 0, [], 1
    folder = trial.fresh("killed0")
    while kills < times:
        code = attempt(trial.work, trial.moment(folder))
        if code in (-signal.SIGKILL, -signal.SIGPROF):
            kills += 1
            continue
        right.append(code == 0 and outcome(folder) == trial.expected)
        folder, folders = trial.fresh(f"killed{folders}"), folders + 1
    right.append(trial.ends_as_ever(folder))
    return {"kills": kills, "right": right}


def together(trial: Trial, times: int) -> dict[str, object]:
    """Two processes at once on the same work, of which one is killed; the other must end well."""
    codes, right = [], []
    for k in range(times):
        folder = trial.fresh(f"together{k}")
        first, second = start(trial.work, trial.moment(folder)), start(trial.work)
        codes.append([ended(first), ended(second)])
        right.append(codes[-1][1] == 0 and outcome(folder) == trial.expected)
    return {"codes": codes, "right": right}


def full(trial: Trial, times: int) -> dict[str, object]:
    """A small disk with little room left: it stops, or goes on without caches; with room again it ends."""
    codes, right = [], []
    for k in range(times):
        with disk(trial.root / f"full{k}") as folder:
            trial.fresh(folder.name)
            room = trial.draw.randint(1, 1_500_000)
            (folder / "filler").write_bytes(bytes(max(0, shutil.disk_usage(folder).free - room)))
            codes.append(attempt(trial.work))
            (folder / "filler").unlink()
            right.append(trial.ends_as_ever(folder))
    return {"codes": codes, "right": right}


def read_only(trial: Trial, times: int) -> dict[str, object]:
    """A disk that takes nothing any more after a kill: it stops; where it may be written again, it ends."""
    codes, right = [], []
    for k in range(times):
        with disk(trial.root / f"read_only{k}") as folder:
            trial.fresh(folder.name)
            attempt(trial.work, trial.moment(folder))
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            codes.append(attempt(trial.work))
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
            right.append(trial.ends_as_ever(folder))
    return {"codes": codes, "right": right}


def vanishing(trial: Trial, times: int) -> dict[str, object]:
    """The data go while the work goes on; it may end, or stop; with the data back it ends."""
    codes, right = [], []
    for k in range(times):
        folder, number, seen = trial.fresh(f"vanishing{k}"), trial.draw.randint(1, trial.changes), []

        def happen(folder: Path = folder, number: int = number, seen: list = seen) -> None:
            seen.append(1)
            if len(seen) == number:
                os.rename(folder / "data", folder / "gone")

        codes.append(attempt(trial.work, partial(on_change, folder, happen)))
        if (folder / "gone").exists():
            shutil.rmtree(folder / "data", ignore_errors=True)
            (folder / "gone").rename(folder / "data")
        right.append(trial.ends_as_ever(folder))
    return {"codes": codes, "right": right}


def jumping(trial: Trial, times: int) -> dict[str, object]:
    """A clock that jumps by hours, to and fro, whenever it is looked at."""
    right = []
    for k in range(times):
        folder = trial.fresh(f"jumping{k}")
        code = attempt(trial.work, partial(jump_about, random.Random(trial.draw.random())))
        right.append(code == 0 and outcome(folder) == trial.expected)
    return {"right": right}


DISTURBANCES: dict[str, Callable[[Trial, int], dict[str, object]]] = {
    one.__name__: one for one in (killed, together, full, read_only, vanishing, jumping)
}


class NoDiskError(Exception):
    """No disk of one's own may be mounted here."""


@contextmanager
def disk(folder: Path, size: str = "16m") -> Iterator[Path]:
    """A small disk at ``folder``. Raises NoDiskError."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        raise NoDiskError("no disk may be mounted here: it takes the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own one is shared by forks, and a killed one never gives it back
    tqdm.monitor_interval = 0
    known: dict[str, tuple[dict[str, str], int, float]] = {}
    for pair in given.pairs:
        work, disturbance = pair.split(":")
        if work not in known:
            known[work] = undisturbed(WORK[work], given.folder / work)
        root = given.folder / pair.replace(":", "-")
        root.mkdir()
        trial = Trial(WORK[work], root, random.Random(f"{pair}{given.seed}"), *known[work])
        try:
            told = DISTURBANCES[disturbance](trial, given.times)
        except NoDiskError as error:
            told = {"skipped": str(error), "right": [True]}
        about = {"pair": pair, "seed": given.seed, "changes": trial.changes, "seconds": round(trial.seconds, 2)}
        print(json.dumps(about | told), flush=True)


if __name__ == "__main__":
    main()

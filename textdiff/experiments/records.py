"""The record of a run. In: a config, metrics, a per-case table, figures. Out: a folder that is either whole
or not there.

    <results>/<experiment>/<run id>/
        config.json  metrics.json  per_case.csv  env.json  figures/<name>.png  figures/<name>.json

The run id ends in eight digits of the config's hash: the same config always lands in the same folder, so
nothing is run twice. A record never holds a machine's paths, nor the name of a user or a host.
"""

from __future__ import annotations

import io
import json
import math
import numbers
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdiff.base import paths
from textdiff.base.cores import cores
from textdiff.base.files import read_json
from textdiff.experiments.config import Config

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FILES = ("config.json", "metrics.json", "per_case.csv", "env.json")
NOT_CONFIG = ("run_id", "experiment", "folder", "source", "stale")


class Run:
    """One run and its folder. Make it with `Run.open` before the work starts: the seconds are counted from there.

    Asking it anything changes nothing on the disk; `textdiff.experiments.run` writes it, under a lock.
    """

    def __init__(self, config: Config, folder: Path):
        self.config = config
        self.folder = folder
        self._started = time.monotonic()

    @classmethod
    def open(cls, config: Config, out_dir: str | Path = "") -> Run:
        """The run of a configuration: its folder is `<out_dir or results_dir()>/<experiment>/<run_id>`."""
        where = out_dir or config.out_dir
        root = Path(where).expanduser() if str(where) else paths.results_dir()
        return cls(config, root / config.experiment / config.run_id)

    @property
    def place(self) -> Path:
        """Where its record lies now: the folder, or its hidden name where a replacement was cut short."""
        return self._previous if not self.folder.exists() and is_record(self._previous) else self.folder

    @property
    def finished(self) -> bool:
        """Whether there is a whole record of this config."""
        return is_record(self.place)

    def metrics(self) -> dict[str, float | int | None]:
        """The recorded metrics. Raises FileNotFoundError while the run is not finished."""
        self._require_finished()
        return read_json(self.place / "metrics.json")

    def per_case(self) -> pd.DataFrame:
        """The recorded per-case table, numbers as numbers. Raises FileNotFoundError while the run is not finished."""
        self._require_finished()
        return read_table(self.place / "per_case.csv")

    def figure(self, name: str) -> Path | None:
        """The file of a recorded figure; None where there is none (published records of real images have the curve only)."""
        path = self.place / "figures" / f"{name}.png"
        return path if path.is_file() else None

    def save(
        self,
        metrics: Mapping[str, float | int],
        per_case: pd.DataFrame,
        figures: Mapping[str, Figure] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the record and return its folder.

        `metrics` is flat ("test/dice": 0.71); nan and infinity become null. `figures` are saved as PNG beside
        a JSON of their alt text and caption (`figures.style.described`). `about` joins env.json. The record is built in a hidden folder
        beside its place, brought to disk, then renamed: when anything fails, a record that was there before
        stays whole. Raises ValueError for metrics that are no numbers or a figure's name that is no plain
        word; OSError from the disk.
        """
        config = self.config.to_record()
        documents = {
            "config.json": _json(config),
            "metrics.json": _json(_flat_numbers(metrics)),
            "per_case.csv": per_case.to_csv(index=False).encode(),
            "env.json": _json(
                environment(time.monotonic() - self._started, papermill_command(self.config)) | dict(about or {})
            ),
        }
        for name, figure in (figures or {}).items():
            documents |= _figure_files(name, figure)
        self.write(documents)
        return self.folder

    def write(self, documents: Mapping[str, bytes]) -> None:
        """Make the folder of files with these names and contents, in place of a record that is there, or change nothing."""
        self._put_back()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        building = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            for name, content in documents.items():
                _write(building / name, content)
            for folder in (building / "figures", building):
                _fsync_folder(folder)
            self._replace_by(building)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def check_writable(self) -> None:
        """Raises OSError, before the work, where the record could not be written after it."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder.parent):
                pass
        except OSError as error:
            where = "out_dir" if self.config.out_dir else "TEXTDIFF_RESULTS"
            raise OSError(
                f"no record can be written to {self.folder.parent} ({error.strerror}): choose another folder ({where})"
            ) from error

    def _require_finished(self) -> None:
        if not self.finished:
            raise FileNotFoundError(f"no finished record in {self.folder}: run the notebook, or `Run.save` its results")

    @property
    def _previous(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.previous")

    def _replace_by(self, building: Path) -> None:
        """Rename `building` to the record's folder. The old record steps aside until the new one is there."""
        if self.folder.exists():
            shutil.rmtree(self._previous, ignore_errors=True)
            self.folder.rename(self._previous)
        try:
            building.rename(self.folder)
        except BaseException:
            self._put_back()
            raise
        _fsync_folder(self.folder.parent)
        shutil.rmtree(self._previous, ignore_errors=True)

    def _put_back(self) -> None:
        """A kill between the two renames leaves the old record under its hidden name: give it its own."""
        if self._previous.is_dir() and not self.folder.exists():
            self._previous.rename(self.folder)


def is_record(folder: Path) -> bool:
    """Whether `folder` holds all files of a record."""
    return all((folder / name).is_file() for name in FILES)


def read_table(path: Path) -> pd.DataFrame:
    """A per-case table as it was written: a case may be called 001, an empty caption is a caption, a missing score is nan."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table.columns:
        if name in ("case", "prompt") or name.startswith("caption"):
            continue
        values = pd.to_numeric(table[name].where(table[name] != "", "nan"), errors="coerce")
        unread = values.isna() & ~table[name].str.lower().isin(("", "nan"))
        if not unread.any():
            table[name] = values
    return table


def papermill_command(config: Config) -> str:
    """The shell command that repeats the run; text travels with -r, so that papermill does not guess its type."""
    words = ["papermill", f"notebooks/{config.notebook}.ipynb", "out.ipynb"]
    for name, value in config.to_record().items():
        if name != "experiment" and name not in config.derived:
            words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    return shlex.join(words)


def environment(seconds: float, command: str) -> dict[str, Any]:
    """Where a run took place, without naming a user, a host or a folder.

    `peak_memory_mb`: largest resident memory of this process, `peak_gpu_memory_mb`: largest allocation by
    torch (both in units of 10^6 bytes, null where unknown); `cores`: those this process may use; `compile`:
    what TEXTDIFF_COMPILE said (:func:`textdiff.base.compiling.compile_choice`); `processes`: how many made the training.
    """
    import torch

    from textdiff.base.compiling import compile_choice
    from textdiff.base.processes import processes

    commit, dirty = _commit()
    gpu = torch.cuda.is_available()
    packages = ("torch", "monai", "transformers", "numpy", "textdiff")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "processes": processes().count,
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "compile": compile_choice(),
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory_mb(),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6) if gpu else None,
        "command": command,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def published_dir() -> Path:
    """Folder of the reference records that come with a checkout or with the package (it need not exist)."""
    return paths.shipped("published")


def load_records(roots: str | Path | Sequence[str | Path] | None = None) -> pd.DataFrame:
    """Read all records under `roots`: one row per record, sorted by folder name.

    Default roots: your own runs (`results_dir()`), then the published ones; of two records of one config the
    first root's counts. Columns: the config's fields, the metrics ("test/dice"), "env/seconds" and the like,
    `run_id`, `experiment`, `folder`, `source` (name of the root), `stale`. `stale` is True where today's
    config class gives the recorded values another id than the folder's, or refuses them. No record: an empty
    table with those last columns. Raises ValueError for a file that is not JSON, naming it.
    """
    import pandas as pd

    if roots is None:
        roots = [paths.results_dir(), published_dir()]
    elif isinstance(roots, (str, Path)):
        roots = [roots]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for root in (Path(one).expanduser() for one in roots):
        for experiment, run_id, folder in _record_folders(root):
            rows.setdefault((experiment, run_id), _row(root, experiment, run_id, folder))
    return pd.DataFrame([rows[key] for key in sorted(rows)], columns=None if rows else list(NOT_CONFIG))


def _record_folders(root: Path) -> list[tuple[str, str, Path]]:
    found = []
    for folder in sorted(root.glob("*/*")):
        if folder.name.startswith("."):
            # The old record of a replacement that was cut short counts until its run is opened again.
            match = re.fullmatch(r"\.(.+)\.previous", folder.name)
            if match is None or (folder.parent / match[1]).exists():
                continue
        if is_record(folder):
            run_id = folder.name.removeprefix(".").removesuffix(".previous")
            found.append((folder.parent.name, run_id, folder))
    return found


def _row(root: Path, experiment: str, run_id: str, folder: Path) -> dict[str, Any]:
    from textdiff.experiments.catalogue import BY_EXPERIMENT

    config, about = read_json(folder / "config.json"), read_json(folder / "env.json")
    if config.get("experiment") in BY_EXPERIMENT:
        config = {**BY_EXPERIMENT[config["experiment"]].added, **config}
    place = {"run_id": run_id, "experiment": experiment, "folder": folder, "source": root.name}
    env = {f"env/{name}": value for name, value in about.items() if name != "versions"}
    return config | read_json(folder / "metrics.json") | env | place | {"stale": _is_stale(config, run_id)}


def _is_stale(config: dict[str, Any], run_id: str) -> bool:
    from textdiff.experiments.catalogue import config_from_record

    try:
        return config_from_record(config).run_id != run_id
    except ValueError:
        return True


def _flat_numbers(metrics: Mapping[str, float | int]) -> dict[str, float | int | None]:
    numbers_only: dict[str, float | int | None] = {}
    for name, value in metrics.items():
        if not isinstance(value, numbers.Real):
            raise ValueError(f"metric {name!r} is {value!r}: metrics are plain numbers, one per name")
        whole = isinstance(value, numbers.Integral)
        numbers_only[name] = int(value) if whole else (float(value) if math.isfinite(value) else None)
    return numbers_only


def _figure_files(name: str, figure: Figure) -> dict[str, bytes]:
    from textdiff.figures.style import description

    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise ValueError(f"figure name {name!r}: use letters, digits, _ and - (it becomes a file name)")
    words = description(figure)
    if not words["alt"]:
        warnings.warn(
            f"figure {name!r} has no alt text: give it one with figures.style.described(figure, alt, caption)",
            stacklevel=3,
        )
    picture = io.BytesIO()
    # Without the writing library's name in it, the same figure gives the same bytes.
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return {f"figures/{name}.png": picture.getvalue(), f"figures/{name}.json": _json(words)}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt" or not folder.is_dir():  # Windows cannot open a folder to sync it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that the package runs from and whether files differ from it; of an installed package the
    commit that it was built from; (None, None) where neither is known.
    """
    built = paths.PACKAGE / "shipped" / "COMMIT"
    if built.is_file():
        return built.read_text(encoding="ascii").strip(), False
    prefix = _git("rev-parse", "--show-prefix")
    if prefix is None or prefix.strip("/") != paths.PACKAGE.name:
        return None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    status = _git("status", "--porcelain")
    return commit, None if commit is None or status is None else bool(status)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=paths.PACKAGE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str | None:
    """The processor's name as its system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine() or None


def _peak_memory_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)

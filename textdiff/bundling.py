"""What `textdiff bundle` does. In: rows of a table. Out: a folder that runs them on a machine without network.

run_here.sh     checks, unpacks, installs, runs, packs the records (assets/run_here.sh)
SHA256SUMS      of the parts
bundle.tar.000  and so on, each at most of a given size:
    code/       the package as a wheel, which knows its commit
    wheels/     all that it needs, with requirements.txt, unless the node has it
    weights/    what the rows name, and data/, their data sets; registry.json, your own, where there is one
    records/    of runs of the table that are made already
    sweep.txt   the words of `textdiff sweep`, a line each
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from textdiff.base import paths
from textdiff.base.outputs import check_new_folder
from textdiff.data import registry
from textdiff.experiments.sweep import RECORDED, TO_RUN, Planned
from textdiff.messages import during

MB = 1_000_000
NO_WHEELS = "none"


class Parts(io.RawIOBase):
    """A file for writing that lies in several: ``<stem>.000``, ``.001``, ... of at most ``size`` bytes, with their sums."""

    def __init__(self, stem: Path, size: int) -> None:
        self.stem, self.size = stem, size
        self.sums: dict[str, str] = {}
        self._open()

    def _open(self) -> None:
        self.path = self.stem.with_name(f"{self.stem.name}.{len(self.sums):03d}")
        self.file, self.sum = open(self.path, "wb"), hashlib.sha256()  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            room = self.size - self.file.tell()
            if not room:
                self._close_part()
                self._open()
                continue
            self.file.write(rest[:room])
            self.sum.update(rest[:room])
            rest = rest[room:]
        return len(data)

    def _close_part(self) -> None:
        self.file.close()
        self.sums[self.path.name] = self.sum.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self._close_part()
        super().close()


def bundle(
    planned: Sequence[Planned],
    words: Sequence[str],
    out: Path,
    part_mb: int = 1000,
    wheels: str = NO_WHEELS,
    say: Callable[[str], None] = print,
) -> Path:
    """Packs the runs that have no record yet; the folder ``out`` appears when it is whole.

    Args:
        words: of `textdiff sweep`, that make these runs.
        part_mb: megabytes of a part at most.
        wheels: a folder of wheels; a file of requirements, whose wheels are downloaded for this machine's kind; or "none", where
            the node's python has what the package needs.

    Raises ValueError: nothing to run, no checkout, files that differ from the commit, a place that is taken; RuntimeError where
    pip fails; FileNotFoundError for data or weights that are not here.
    """
    root = paths.PACKAGE.parent
    if not (root / "pyproject.toml").is_file():
        raise ValueError("a bundle is made in a checkout of the repository, whose commit its records name")
    if part_mb < 1:
        raise ValueError(f"--part-mb {part_mb}: at least 1")
    runs = [one for one in planned if one.state == TO_RUN]
    if not runs:
        raise ValueError(f"all {len(planned)} runs have a record: there is nothing to pack")
    _check_commit(root)
    check_new_folder(out, "--out")
    members = dict(_inputs(runs)) | _recorded(planned)
    stage = out.with_name(f".{out.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        with TemporaryDirectory() as made:
            members |= _code(root, Path(made)) | _wheels(wheels, Path(made))
            (Path(made) / "sweep.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
            members["sweep.txt"] = Path(made) / "sweep.txt"
            with during(f"packing into {out.parent}"):
                sums = _pack(members, stage / "bundle.tar", part_mb * MB, say)
        (stage / "SHA256SUMS").write_text("".join(f"{found}  {name}\n" for name, found in sums.items()))
        shutil.copyfile(paths.assets_dir() / "run_here.sh", stage / "run_here.sh")
        stage.rename(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    total = sum(path.stat().st_size for path in out.iterdir())
    say(f"{len(runs)} runs, {len(sums)} parts, {total / MB:.0f} MB in {out}. There: JOBS=1 bash run_here.sh")
    return out


def _check_commit(root: Path) -> None:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git does not know the commit of {root}: {done.stderr.strip()}")
    if done.stdout:
        name = done.stdout.splitlines()[-1][3:].strip('"')
        raise ValueError(f"files in {root} differ from its commit ({name}, ...): commit them first")


def _inputs(runs: Sequence[Planned]) -> Iterator[tuple[str, Path]]:
    """Place in the bundle and on this machine of the data and weights that runs read; what the package holds is left out."""
    for one in runs:
        for source, place in one.config.inputs().items():
            name = getattr(one.config, source, place.name)
            if source == "dataset":
                yield f"data/{place.name}", place
            elif paths.PACKAGE not in place.resolve().parents:
                if Path(name).is_absolute() or ".." in Path(name).parts or name.startswith("~"):
                    raise ValueError(
                        f"{source}={name!r}: in a bundle weights have a name; put the folder into {paths.weights_dir()}"
                    )
                yield f"weights/{place.name if place.is_file() else name}", place


def _recorded(planned: Sequence[Planned]) -> dict[str, Path]:
    """Records that are not among the published ones, which the package holds, and the registry: the node would make them again, or know no such data set."""
    made = [one for one in planned if one.state == RECORDED]
    members = {f"records/{one.config.experiment}/{one.config.run_id}": one.record for one in made}
    own = registry.own_file()
    return members | ({"registry.json": own} if own else {})


def _code(root: Path, folder: Path) -> dict[str, Path]:
    """The wheel of a fresh clone: an earlier build in ``root`` may have left files there that no commit holds any more."""
    clean = folder / "clone"
    done = subprocess.run(["git", "clone", "--quiet", root.as_uri(), clean], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"git clone of {root} failed: {' '.join(done.stderr.split())[-400:]}")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "code"), str(clean))
    shutil.rmtree(clean)
    return {"code": folder / "code"}


def _wheels(wheels: str, folder: Path) -> dict[str, Path]:
    """The wheels and, beside them, what is to be installed of them."""
    if wheels == NO_WHEELS:
        return {}
    source, listed = Path(wheels).expanduser(), folder / "requirements.txt"
    if source.is_file():
        _pip("download", "--only-binary=:all:", "--dest", str(folder / "wheels"), "--requirement", str(source))
        shutil.copyfile(source, listed)
        return {"wheels": folder / "wheels", "requirements.txt": listed}
    names = sorted({path.name.split("-")[0] for path in source.glob("*.whl")})
    if not names:
        raise ValueError(f'--wheels {wheels}: a folder of wheels, a file of requirements, or "{NO_WHEELS}"')
    listed.write_text("".join(f"{name}\n" for name in names))
    return {"wheels": source, "requirements.txt": listed}


def _pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip {words[0]} failed: {' '.join((done.stderr or done.stdout).split())[-400:]}")


def _pack(members: dict[str, Path], stem: Path, size: int, say: Callable[[str], None]) -> dict[str, str]:
    """Writes folders and files under their names in the bundle; returns the sums of the parts."""
    parts = Parts(stem, size)
    with parts, tarfile.open(fileobj=parts, mode="w|", dereference=True) as tar:
        for name, place in members.items():
            say(f"packing {name}")
            tar.add(place, name, filter=_visible)
    return parts.sums


def _visible(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without hidden files, and without who owned a file here."""
    if any(part.startswith(".") for part in Path(member.name).parts):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member

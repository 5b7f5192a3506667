"""Make the environment: a lock file comes in, a virtual environment with its exact versions goes out.

    python tools/make_env.py env/requirements-cpu.txt .venv     # what `make` does
    python tools/make_env.py env/requirements-cpu.txt           # into the environment of this Python (conda)

A plain torch wheel brings some 5 GB of CUDA libraries on Linux. A lock with the line `# torch-backend: cpu`
is therefore installed by uv, which knows where torch's builds for the processor are; where uv cannot reach
them it takes the wheels in PIP_FIND_LINKS, and where uv fails altogether pip does the work.
"""

from __future__ import annotations  # a Python that is too old must get as far as the words about it

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROBE_SECONDS = 60
# The locked versions need the first or newer (soupsieve asks for it), and an older one than the second, for which
# immutables and pyjpegls have no wheels.
OLDEST, TOO_NEW = (3, 11, 5), (3, 14)


@dataclass(frozen=True)
class Way:
    """One way to install: how it is called in messages, its command, and whether to ask first if it can work."""

    name: str
    command: tuple[str, ...]
    probe: bool = True


def fault_of(python: tuple[int, ...]) -> str:
    """Why the locked versions cannot be had with a Python of this version, and what to do; "" where they can."""
    if OLDEST <= python < TOO_NEW:
        return ""
    oldest, newest = ".".join(map(str, OLDEST)), f"{TOO_NEW[0]}.{TOO_NEW[1] - 1}"
    return (
        f"the locked versions need Python {oldest} to {newest}, {sys.executable} is {'.'.join(map(str, python))}: "
        "name another, such as make PYTHON=python3.12; where there is none, `uv python install 3.12` brings it"
    )


def pinned(lock: str, name: str) -> str:
    """The line of a lock's text that pins `name`, such as "uv==0.13.9". Raises ValueError where there is none."""
    found = re.search(rf"^{name}==\S+", lock, re.MULTILINE)
    if not found:
        raise ValueError(f"the lock pins no {name}: write it anew with `make lock`")
    return found.group()


def ways(lock: str, python: str, find_links: str) -> list[Way]:
    """How to install a lock (its text) into the environment of `python`, best first."""
    uv = (python, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python)
    local = tuple(f"--find-links={place}" for place in find_links.split())
    backend = re.search(r"^# torch-backend: (\w+)", lock, re.MULTILINE)
    found = []
    if backend:
        found.append(Way("uv, torch for the processor", (*uv, "--torch-backend", backend.group(1))))
    if local:
        found.append(Way("uv, wheels in PIP_FIND_LINKS", (*uv, *local)))
    elif not backend:
        found.append(Way("uv", uv))
    return [*found, Way("pip", (python, "-m", "pip", "install", "--quiet"), probe=False)]


def install(lock: Path, python: str, find_links: str, succeeds: Callable[..., bool]) -> str:
    """Install a lock and return the name of the way that worked.

    `succeeds(command, seconds)` runs a command, for at most `seconds` where given, and says whether it ended
    well. Raises RuntimeError when every way failed.
    """
    text = lock.read_text(encoding="utf-8")
    with_uv = succeeds([python, "-m", "pip", "install", "--quiet", pinned(text, "uv")], None)
    for way in ways(text, python, find_links):
        if way.probe and not with_uv:
            continue
        asked = [*way.command, "--dry-run", "--no-deps", pinned(text, "torch")]
        reachable = not way.probe or succeeds(asked, PROBE_SECONDS)
        alone = re.findall(r"^# no-deps: (\S+)", text, re.MULTILINE)
        steps = [("-r", str(lock)), *(("--no-deps", name) for name in alone)]
        if reachable and all(succeeds([*way.command, *step], None) for step in steps):
            return way.name
        print(f"{way.name}: not possible here", flush=True)
    raise RuntimeError(f"{lock} could not be installed; the reasons stand above")


def _succeeds(command: list[str], seconds: int | None) -> bool:
    try:
        hidden = subprocess.DEVNULL if seconds else None
        return subprocess.run(command, timeout=seconds, stderr=hidden).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _gigabytes(folder: Path) -> float:
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files) / 1e9


def main(lock: Path, folder: Path | None) -> None:
    """Install the lock and, editable, the package into `folder` (made anew), or into this Python's own environment.

    Ends with a message on failure.
    """
    if fault := fault_of(sys.version_info[:3]):
        sys.exit(fault)
    start, python = time.monotonic(), sys.executable
    if folder:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        python = str(folder.absolute() / "bin" / "python")
    try:
        way = install(lock, python, os.environ.get("PIP_FIND_LINKS", ""), _succeeds)
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
    editable = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    if subprocess.run(editable).returncode:
        sys.exit("the package itself could not be installed; pip's reason stands above")
    size = f"{folder}: {_gigabytes(folder):.1f} GB" if folder else "installed"
    print(f"{size} in {time.monotonic() - start:.0f} s ({way})")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)

"""Write the lock files: pyproject.toml and the pinned torch and timm come in, env/requirements-{cpu,cuda}.txt go out.

    python tools/lock.py             # torch and timm as `TORCH` and `TIMM` have them, today's versions of the rest
    python tools/lock.py --latest    # today's versions of these two as well

Installs the package's dependencies, those of its dicom, parallel, book and test extras among them, into a throw-away
environment and freezes what came. Run it with the oldest Python that the lock is for (`make lock`, Python
3.11).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
TORCH, TIMM = "torch==2.13.0", "timm==1.0.31"
# Not asked for by the package: what installs the environment, and what builds the package in it.
TOOLS = ("uv", "setuptools>=77")
ALONE = """\
# timm asks for torchvision, of which the package index has no build for a processor's torch; it is installed without.
# no-deps: {timm}
"""

CPU_HEADER = """\
# Exact versions of all that the book and its tests need. Written by `make lock` with Python {python}.
# torch is the plain release: any build of it satisfies this file. tools/make_env.py reads the next line.
# torch-backend: cpu
"""
CUDA_HEADER = """\
# Exact versions for a machine with an NVIDIA card. Written by `make lock` with Python {python}.
# The same list as requirements-cpu.txt: on Linux the plain torch wheel names its CUDA libraries itself, and
# pip brings those that fit it. Use it with `make LOCK=env/requirements-cuda.txt`.
"""


def locked(freeze: str) -> str:
    """`pip freeze` without local version tags (+cpu), pip itself, and the libraries that a CUDA build brings; timm apart."""
    timm, lines = "", []
    for line in freeze.splitlines():
        if line.startswith("timm=="):
            timm = line
        elif not line.startswith(("nvidia-", "cuda-", "triton", "pip==", "wheel==")):
            lines.append(re.sub(r"\+\w+$", "", line))
    return ALONE.format(timm=timm) + "\n".join(lines) + "\n"


def dependencies() -> list[str]:
    """What the package and its extras dicom, parallel, book and test ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = ("dicom", "parallel", "book", "test")
    wanted = [*project["dependencies"], *(one for name in names for one in extras[name])]
    return [name for name in wanted if not name.startswith("textdiff")]


def freeze_fresh_environment(torch: str, timm: str) -> str:
    """Versions that pip chooses today for `dependencies()` beside `torch`, and `timm` alone; each a name, or a name==version."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", torch, *TOOLS, *dependencies()], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-deps", timm], check=True)
        return subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout


def write(path: Path, text: str) -> None:
    """Replace `path` in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    print(f"wrote {path.relative_to(ROOT)}")


def main(words: list[str]) -> None:
    """Write both locks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latest", action="store_true")
    latest = parser.parse_args(words).latest
    found = locked(freeze_fresh_environment(*(("torch", "timm") if latest else (TORCH, TIMM))))
    python = sys.version.split()[0]
    write(ROOT / "env/requirements-cpu.txt", CPU_HEADER.format(python=python) + found)
    write(ROOT / "env/requirements-cuda.txt", CUDA_HEADER.format(python=python) + found)


if __name__ == "__main__":
    main(sys.argv[1:])

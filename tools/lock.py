"""Write the lock files: pyproject.toml and the pinned torch come in, env/requirements-{cpu,cuda}.txt go out.

Installs the package's dependencies, those of its dicom, parallel, book and test extras among them, into a throw-away
environment and freezes what came. Run it with the oldest Python that the lock is for (`make lock`, Python
3.11).
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
# Not asked for by the package: what installs the environment, and what builds the package in it.
TOOLS = ("uv", "setuptools>=77")
TIMM = """\
# timm asks for torchvision, of which the package index has no build for a processor's torch; it is installed without.
# no-deps: timm==1.0.31
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


def cleaned(freeze: str) -> str:
    """`pip freeze` without local version tags (+cpu), pip itself, and the libraries that a CUDA build brings."""
    lines = []
    for line in freeze.splitlines():
        if line.startswith(("nvidia-", "cuda-", "triton", "pip==", "wheel==")):
            continue
        lines.append(re.sub(r"\+\w+$", "", line))
    return "\n".join(lines) + "\n"


def dependencies() -> list[str]:
    """What the package and its extras dicom, parallel, book and test ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = ("dicom", "parallel", "book", "test")
    wanted = [*project["dependencies"], *(one for name in names for one in extras[name])]
    return [name for name in wanted if not name.startswith("textdiff")]


def freeze_fresh_environment() -> str:
    """Versions that pip chooses today for `dependencies()` beside the pinned torch."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", TORCH, *TOOLS, *dependencies()], check=True)
        return subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout


def write(path: Path, text: str) -> None:
    """Replace `path` in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    locked = cleaned(freeze_fresh_environment())
    python = sys.version.split()[0]
    write(ROOT / "env/requirements-cpu.txt", CPU_HEADER.format(python=python) + TIMM + locked)
    write(ROOT / "env/requirements-cuda.txt", CUDA_HEADER.format(python=python) + TIMM + locked)

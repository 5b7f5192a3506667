"""Does every notebook run from its setup cell alone, as in Colab? The last commit comes in, a table goes out.

    python tools/prove_colab.py               # every notebook
    python tools/prove_colab.py 10 13 22      # some of them

A fresh environment gets what Colab has loaded or installed before a first cell runs (torch, numpy and `COLAB_HAS`, in the
lock's versions), and nothing of this repository. For each notebook a copy of that environment and an empty folder are made;
the address in its setup cell is changed to a clone of this checkout, and all its cells run as they stand, in demo mode.
The exit code is 0 when all ran and torch and numpy stayed as they were. It takes a minute or two a notebook and is no part
of `make test`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from notebook_cells import notebooks, setting

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "env/requirements-cpu.txt"
# What the notebooks require and Colab's own image holds; the setup cell must bring the rest (MONAI, nibabel).
COLAB_HAS = (
    *("ipykernel", "transformers", "safetensors", "einops", "scipy", "pillow", "pandas", "openpyxl"),
    *("matplotlib", "seaborn", "typer", "tqdm", "filelock", "scikit-image"),
)
CELL_SECONDS = 900


@dataclass(frozen=True)
class Proof:
    """One notebook: seconds of its setup cell and of all cells, and "ran" or what stopped it."""

    name: str
    setup_seconds: float
    seconds: float
    outcome: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.setup_seconds:.0f} | {self.seconds:.0f} | {self.outcome} |"


def kept_packages(root: Path = ROOT) -> list[str]:
    """What an installation in Colab must leave alone (env/colab-constraints.txt)."""
    lines = (root / "env/colab-constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def make_colab(folder: Path) -> None:
    """A virtual environment in `folder` with what Colab has. Raises CalledProcessError where a package is not to be had."""
    lock = LOCK.read_text(encoding="utf-8")
    names = [*kept_packages(), *COLAB_HAS]
    pins = [found.group() for name in names if (found := re.search(rf"^{name}==\S+", lock, re.MULTILINE))]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *pins], check=True)


def versions(environment: Path) -> dict[str, str]:
    """Installed version of each package that must stay."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(environment / "bin/python"), "-c", code, *kept_packages()]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(kept_packages(), found, strict=True))


def from_clone(path: Path, clone: Path, commit: str) -> nbformat.NotebookNode:
    """The notebook with a setup cell that installs `commit` of a clone. Raises ValueError where that cell names no address."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", []))
    address = "git+{}@{}".format(*setting(clone))
    if address not in cell.source:
        raise ValueError(f"{path.name}: its setup cell does not install from {address}")
    # Some releases of pip take no address without a host
    cell.source = cell.source.replace(address, f"git+file://localhost{clone.as_posix()}@{commit}")
    return notebook


def run(path: Path, colab: Path, clone: Path, commit: str, folder: Path) -> Proof:
    """Run one notebook in `folder`, with a copy of the environment `colab`; links cost no space, pip replaces files."""
    environment = folder / "env"
    shutil.copytree(colab, environment, symlinks=True, copy_function=os.link)
    kernel = folder / "kernels/colab/kernel.json"
    kernel.parent.mkdir(parents=True)
    words = [str(environment / "bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": words, "display_name": "Colab", "language": "python"}), encoding="utf-8")
    work, asked, done = folder / "content", folder / path.name, folder / "done.ipynb"
    work.mkdir()
    nbformat.write(from_clone(path, clone, commit), asked)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTDIFF_", "PYTHONPATH"))}
    variables |= {"JUPYTER_PATH": str(folder), "PIP_CACHE_DIR": str(clone.parent / "pip"), "HOME": str(work)}
    command = [sys.executable, "-m", "papermill", str(asked), str(done), "--kernel", "colab", "--cwd", str(work)]
    command += ["--no-progress-bar", "--execution-timeout", str(CELL_SECONDS)]
    start = time.monotonic()
    ended = subprocess.run(command, env=variables, cwd=work, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if ended.returncode:
        return Proof(path.stem, 0, seconds, (ended.stderr.strip().splitlines() or ["failed"])[-1])
    cells = nbformat.read(done, as_version=4).cells
    setup = next(cell for cell in cells if "setup" in cell.metadata.get("tags", []))
    before, after = versions(colab), versions(environment)
    outcome = "ran" if before == after else f"exchanged {before} for {after}"
    return Proof(path.stem, setup.metadata.papermill.duration, seconds, outcome)


def main(wanted: list[str]) -> int:
    """Prints a row for each notebook as it ends; 0 when all of them ran."""
    with tempfile.TemporaryDirectory(prefix="colab-") as name:
        folder = Path(name).resolve()
        clone = folder / "textdiff"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "-C", str(clone), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        make_colab(folder / "colab")
        print(
            "",
            versions(folder / "colab"),
            "",
            "| notebook | setup, s | all, s | outcome |",
            "|---|---:|---:|---|",
            sep="\n",
        )
        failed = False
        for path in notebooks(clone):
            if wanted and path.stem.split("_")[0] not in wanted:
                continue
            with tempfile.TemporaryDirectory(dir=folder) as place:
                proof = run(path, folder / "colab", clone, commit, Path(place))
            print(proof, flush=True)
            failed |= proof.outcome != "ran"
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="such as 10 1a 22; all without any")
    sys.exit(main(parser.parse_args().numbers))

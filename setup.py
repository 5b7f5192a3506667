"""What a wheel holds beside the package's own folder: small models, each with its example and the backbone that it names;
published records, notebooks, paper tables; and the commit that it was built from, where no file differs from it.

In a checkout they lie where people look for them, in the package under the names below; `textdiff.base.paths.shipped`
finds them in both places. All the rest is in pyproject.toml.
"""

import json
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WEIGHTS = Path(__file__).with_name("weights")
SMALL = sorted(folder.name for folder in WEIGHTS.glob("*_small"))


def needed(model):
    """The backbone that a model has by name only, without which it is of no use; "" where it has none."""
    about = json.loads((WEIGHTS / model / "config.json").read_text(encoding="utf-8"))
    return about.get("features", {}).get("unet", "")


NEEDED = sorted({needed(model) for model in SMALL} - {""})
OF_A_BACKBONE = [f"{name}/{file}" for name in NEEDED for file in ("README.md", "config.json", "model.safetensors")]
# Of the other backbones what tables need to know; their weights come from the release
ALONE = ["chest_32/config.json"]
SHIPPED = {
    **{f"weights/{path}": f"shipped/weights/{path}" for path in (*SMALL, *OF_A_BACKBONE, *ALONE)},
    "results/published": "shipped/published",
    "notebooks": "shipped/notebooks",
    "book/paper_tables.csv": "shipped/book/paper_tables.csv",
}


def commit():
    """The commit of this checkout; "" where files differ from it, or where it is none."""
    root = Path(__file__).resolve().parent
    words = (["rev-parse", "--show-toplevel", "HEAD"], ["status", "--porcelain"])
    try:
        done = [subprocess.run(["git", *one], cwd=root, capture_output=True, text=True) for one in words]
    except OSError:
        return ""
    top, found = (*done[0].stdout.split("\n"), "", "")[:2]
    clean = all(one.returncode == 0 for one in done) and not done[1].stdout
    return found if clean and Path(top).resolve() == root else ""


class BuildWithShipped(build_py):
    """Copies what is shipped into the package that is being built; an editable package reads the checkout."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for source, target in SHIPPED.items():
            to = Path(self.build_lib, "textdiff", target)
            if Path(source).is_dir():
                shutil.rmtree(to, ignore_errors=True)
                shutil.copytree(source, to, ignore=shutil.ignore_patterns(".*", "*.tmp", "*.toml"))
            else:
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, to)
        if found := commit():
            Path(self.build_lib, "textdiff", "shipped", "COMMIT").write_text(f"{found}\n", encoding="ascii")


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithShipped})

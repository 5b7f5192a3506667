"""What a wheel holds beside the package's own folder: small models, published records, notebooks, paper tables.

In a checkout they lie where people look for them, in the package under the names below; `textdiff.base.paths.shipped`
finds them in both places. All the rest is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SMALL = sorted(folder.name for folder in Path(__file__).with_name("weights").glob("*_small"))
SHIPPED = {
    **{f"weights/{name}": f"shipped/weights/{name}" for name in SMALL},
    "weights/chest_32/config.json": "shipped/weights/chest_32/config.json",
    "weights/chest_64/config.json": "shipped/weights/chest_64/config.json",
    "weights/he_32/config.json": "shipped/weights/he_32/config.json",
    "results/published": "shipped/published",
    "notebooks": "shipped/notebooks",
    "book/paper_tables.csv": "shipped/book/paper_tables.csv",
}


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


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithShipped})

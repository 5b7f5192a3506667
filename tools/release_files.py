"""The weights of a release, as `textdiff fetch` asks for them, and their licences: a folder comes in, they come to lie in it.

python tools/release_files.py dist
"""

import shutil
import sys
from pathlib import Path

from textdiff.data.fetch import RELEASED_FILES, released

ROOT = Path(__file__).resolve().parents[1]


def weights_of_a_release() -> dict[str, Path]:
    """Name in the release and file in this checkout of all weights that are fetched by name."""
    return {f"{name}.{file}": ROOT / "weights" / name / file for name in released() for file in RELEASED_FILES}


def main(out: Path) -> None:
    """Copy them to `out`. Raises FileNotFoundError where the checkout lacks one."""
    out.mkdir(parents=True, exist_ok=True)
    for name, path in {**weights_of_a_release(), "LICENSES.md": ROOT / "weights/LICENSES.md"}.items():
        shutil.copyfile(path, out / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

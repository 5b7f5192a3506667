"""The end of a notebook's setup cell: `%load_ext textdiff.colab` comes in, the package's version or an error goes out.

pip may exchange packages that a session has loaded already, as Colab's have been before the first cell runs. Such a
session holds the old code beside the new files and fails later, far from the cause.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from importlib import metadata


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def changed_versions(modules: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Direct requirements of textdiff that are loaded in another version than is installed: name to (loaded, installed).

    `modules`: the loaded ones by name, as in sys.modules.
    """
    required = {_plain(re.split(r"[^\w.-]", line)[0]) for line in metadata.requires("textdiff") or []}
    changed = {}
    for module, names in metadata.packages_distributions().items():
        loaded = str(getattr(modules.get(module), "__version__", "")).removeprefix("v")
        for name in names:
            if loaded and _plain(name) in required and metadata.version(name) != loaded:
                changed[name] = (loaded, metadata.version(name))
    return changed


def check_loaded_versions() -> None:
    """Raise RuntimeError where the session must be restarted, because a loaded package has been exchanged."""
    changed = changed_versions(sys.modules)
    if changed:
        what = ", ".join(f"{name} {old} is loaded, {new} installed" for name, (old, new) in sorted(changed.items()))
        raise RuntimeError(f"{what}: restart the session (Runtime > Restart session) and run all cells again")


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext textdiff.colab` calls."""
    import textdiff

    check_loaded_versions()
    # A bar of text does as well as one of widgets
    warnings.filterwarnings("ignore", message="IProgress not found")
    print(f"textdiff {textdiff.__version__}")

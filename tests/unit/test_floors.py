"""The house: imports go down its floors only, in no circle, and never take a private name of another module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "textdiff"
# From top to bottom; the first is what stands beside the folders.
FLOORS = ("", "report", "experiments", "figures", "evaluation", "training", "models", "data", "base")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str) -> Iterator[tuple[str, str]]:
    """(module of the package, name taken from it) of every import of a module, those within functions too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "textdiff":
            base = node.module.removeprefix("textdiff").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield (inner, "") if inner in MODULES else (base, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("textdiff."):
                    yield alias.name.removeprefix("textdiff."), ""


def floor_of(name: str) -> int:
    first = name.split(".")[0]
    return FLOORS.index(first) if first in FLOORS else 0


ARROWS = {name: {target for target, _ in imports(name) if target != name} for name in MODULES if name}


def test_every_folder_is_a_floor():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders == set(FLOORS) - {""}


def test_imports_go_down():
    wrong = [
        f"{name} -> {target or 'textdiff'}"
        for name, targets in ARROWS.items()
        for target in targets
        if floor_of(target) < floor_of(name)
    ]
    assert not wrong, "imports that go up:\n" + "\n".join(wrong)


def test_imports_run_in_no_circle():
    def circle(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done:
            return None
        for target in sorted(ARROWS.get(name, ())):
            found = circle(target, (*path, name))
            if found:
                return found
        done.add(name)
        return None

    done: set[str] = set()
    found = next((one for name in ARROWS if (one := circle(name, ()))), None)
    assert found is None, "imports in a circle: " + " -> ".join(found)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_no_private_name_is_taken(name):
    private = [
        f"{target}.{taken}" for target, taken in imports(name) if taken.startswith("_") and taken != "__version__"
    ]
    assert not private, f"{name} takes private names of other modules: {', '.join(private)}"


@pytest.mark.parametrize(
    ("files", "limit"),
    [(("fusion", "textdiff", "features"), 600), (("fusion", "textdiffseg"), 500)],
    ids=["2D", "3D"],
)
def test_the_core_stays_short_and_does_no_file_work(files, limit):
    paths = [PACKAGE / "models" / f"{name}.py" for name in files]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert sum(len(text.splitlines()) for text in texts) <= limit
    for path, text in zip(paths, texts, strict=True):
        for word in ("open(", "read_json", "write_text", "matplotlib", "PIL"):
            assert word not in text, f"{path.name} has {word}: files belong to models/store.py"

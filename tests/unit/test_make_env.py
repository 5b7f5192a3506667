"""The environment: which way a lock is installed, with commands that are played."""

from __future__ import annotations

import re
import sys
from importlib import metadata

import build_book
import make_env
import pytest
from packaging.specifiers import SpecifierSet

CPU = "# torch-backend: cpu\ntorch==2.13.0\nuv==0.13.9\n"
CUDA = "torch==2.13.0\nuv==0.13.9\n"
BACKEND, LOCAL, PIP = "uv, torch for the processor", "uv, wheels in PIP_FIND_LINKS", "pip"


@pytest.fixture
def install(tmp_path):
    """Installs a lock on a machine where commands with the given words fail; returns the way and all commands."""

    def run(lock: str, fails: list[str], find_links: str = "") -> tuple[str, list[str]]:
        file, asked = tmp_path / "lock.txt", []
        file.write_text(lock)

        def succeeds(command: list[str], seconds: int | None) -> bool:
            asked.append(" ".join(command).replace(str(file), "LOCK"))
            assert (seconds is None) == ("--dry-run" not in command), "only the question has a time limit"
            return not any(words in asked[-1] for words in fails)

        return make_env.install(file, "python", find_links, succeeds), asked

    return run


@pytest.mark.parametrize(
    ("lock", "fails", "find_links", "way"),
    [
        (CPU, [], "", BACKEND),
        (CPU, [], "wheels", BACKEND),
        (CPU, ["--torch-backend"], "wheels", LOCAL),
        (CPU, ["--torch-backend"], "", PIP),
        (CPU, ["--torch-backend cpu -r"], "", PIP),
        (CPU, ["-m uv pip"], "wheels", PIP),
        (CPU, ["install --quiet uv"], "wheels", PIP),
        (CUDA, [], "", "uv"),
        (CUDA, ["-m uv pip"], "", PIP),
    ],
)
def test_the_best_way_that_works_is_taken(install, lock, fails, find_links, way):
    taken, asked = install(lock, fails, find_links)
    assert taken == way
    assert asked[0] == "python -m pip install --quiet uv==0.13.9"
    assert asked[-1].endswith("-r LOCK")
    assert ("--torch-backend cpu" in asked[-1]) == (way == BACKEND)
    assert ("--find-links=wheels" in asked[-1]) == (way == LOCAL)
    with pytest.raises(RuntimeError, match="could not be installed"):
        install(lock, ["install"])


def test_what_is_to_come_without_its_dependencies_comes_last(install):
    taken, asked = install(CPU.replace("torch==", "# no-deps: timm==1\ntorch=="), ["--torch-backend"])
    assert (
        taken == PIP and asked[-2].endswith("-r LOCK") and asked[-1].endswith("pip install --quiet --no-deps timm==1")
    )


@pytest.mark.parametrize(("name", "first"), [("cpu", BACKEND), ("cuda", "uv")])
def test_the_locks_say_how_they_are_installed(name, first):
    lock = (build_book.ROOT / f"env/requirements-{name}.txt").read_text()
    assert make_env.ways(lock, "python", "")[0].name == first
    assert make_env.pinned(lock, "uv") and make_env.pinned(lock, "torch")
    with pytest.raises(ValueError, match="pins no nothing"):
        make_env.pinned(lock, "nothing")


@pytest.mark.parametrize(
    ("python", "fits"),
    [((3, 10, 14), 0), ((3, 11, 2), 0), ((3, 11, 5), 1), ((3, 12, 0), 1), ((3, 13, 9), 1), ((3, 14, 0), 0)],
)
def test_a_python_that_the_lock_is_not_for_is_refused_before_anything_is_made(python, fits, tmp_path, monkeypatch):
    said = make_env.fault_of(python)
    assert bool(said) != fits
    if said:
        assert "need Python 3.11.5 to 3.13, " in said and "make PYTHON=python3.12" in said
        monkeypatch.setattr(sys, "version_info", python)
        with pytest.raises(SystemExit, match="need Python"):
            make_env.main(tmp_path / "lock.txt", tmp_path / "environment")
    assert not list(tmp_path.iterdir())


def test_what_is_locked_asks_for_no_newer_python_than_is_said():
    root = build_book.ROOT
    for page in ("README.md", "book/quickstart.md"):
        assert "Python 3.11.5 to 3.13" in (root / page).read_text(encoding="utf-8"), page
    names = re.findall(r"^([\w.-]+)==", (root / "env/requirements-cpu.txt").read_text(), re.MULTILINE)
    here = {one.metadata["Name"]: one.metadata["Requires-Python"] for one in metadata.distributions()}
    asked = {name: SpecifierSet(here[name]) for name in names if here.get(name)}
    oldest = ".".join(map(str, make_env.OLDEST))
    assert len(asked) > 100 and [name for name, wanted in asked.items() if oldest not in wanted] == []

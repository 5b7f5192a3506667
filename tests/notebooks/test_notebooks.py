"""Every notebook: its layout, its declared parameters, and a run in demo mode (shared with the book's tests)."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import build_book
import nbformat
import notebook_cells
import pytest

from textdiff import cli
from textdiff.experiments.config import Config

NOTEBOOKS = notebook_cells.notebooks(build_book.ROOT)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def test_badges_setup_cells_and_outputs_are_as_the_tool_writes_them():
    stale = notebook_cells.main(build_book.ROOT, check=True)
    assert not stale, f"run `python tools/notebook_cells.py`: {stale}"


@pytest.mark.parametrize("path", build_book.sources(), ids=lambda path: path.stem)
def test_no_output_is_committed(path):
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in read(path).cells)


@every_notebook
def test_layout(path):
    title, setup, *rest = read(path).cells
    assert re.match(r"\d[0-9a-f]_[a-z0-9_]+$", path.stem)
    assert title.cell_type == "markdown" and "?" in title.source, "the title cell asks the notebook's question"
    assert re.search(r"\b(minutes?|seconds?)\b", title.source), "the title cell says how long demo mode takes"
    assert re.search(r"\b[GM]B\b", title.source), "the title cell says how much memory demo mode takes"
    assert "setup" in tags(setup)
    first_code = next(cell for cell in rest if cell.cell_type == "code")
    assert "parameters" in tags(first_code), "the parameters come right after the setup"


@every_notebook
def test_parameters_are_declared_and_known_to_the_config(path):
    parameters = cli.notebook_parameters(path)
    config = cli.notebook_config(path)
    assert config is not None, 'the metadata lacks {"textdiff": {"config": "..."}}'
    known = {field.name: field.type for field in fields(config)}
    assert {name: type(one.default).__name__ for name, one in parameters.items()} == {
        name: known.get(name) for name in parameters
    }
    assert {field.name for field in fields(Config)} <= set(parameters), "the parameters common to all notebooks"
    preset = {field.name: field.default for field in fields(config) if field.name != "dataset"}
    assert [name for name, one in parameters.items() if one.default != preset.get(name, one.default)] == []
    assert parameters["mode"].default == "demo"
    assert config.from_params(**{name: one.default for name, one in parameters.items()})
    source = next(cell.source for cell in read(path).cells if "parameters" in tags(cell))
    for line in source.splitlines():
        assert not re.match(r"\w+ *=", line) or "# @param" in line, f"no @param: {line}"


@every_notebook
def test_nothing_depends_on_where_it_runs(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code" and "setup" not in tags(cell))
    assert not re.search(r"""["'](\.\.?/|/(home|root|work|tmp|Users|content|mnt)/|~/)""", code)


@pytest.fixture(scope="session")
def outcomes(request):
    """Executed copies of the notebooks whose run was asked for, two at a time."""
    items = [item for item in request.session.items if "outcomes" in getattr(item, "fixturenames", ())]
    wanted = {item.callspec.params["path"] for item in items if hasattr(item, "callspec")}
    return build_book.execute_all(sorted(wanted))


@every_notebook
def test_runs_in_demo_mode(path, outcomes):
    outcome = outcomes[path]
    assert isinstance(outcome, build_book.Executed), str(outcome)


@every_notebook
def test_every_figure_has_alt_text(path, outcomes):
    if not isinstance(outcomes[path], build_book.Executed):
        pytest.skip("it did not run")
    notebook = build_book.readable(read(path), read(outcomes[path].path))
    for cell in notebook.cells:
        pictures = [one for one in cell.get("outputs", []) if "image/png" in one.get("data", {})]
        if pictures:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 10, f"a figure without alt text:\n{cell.source}"

"""Every notebook: its layout, its declared parameters, how short it is, and a run in demo mode with the installed
package (shared with the book's tests).
"""

from __future__ import annotations

import ast
import filecmp
import os
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import build_book
import nbformat
import notebook_cells
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from textdiff.experiments.config import Config, parameters_of
from textdiff.notebooks import notebook_config, notebook_parameters

NOTEBOOKS = notebook_cells.notebooks(build_book.ROOT)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_source = pytest.mark.parametrize("path", build_book.sources(), ids=lambda path: path.stem)
LINES, COLUMNS = 60, 88


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def test_badges_setup_cells_and_outputs_are_as_the_tool_writes_them():
    stale = notebook_cells.main(build_book.ROOT, check=True)
    assert not stale, f"run `python tools/notebook_cells.py`: {stale}"


@every_source
def test_no_output_is_committed(path):
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in read(path).cells)


@every_notebook
def test_layout(path):
    title, setup, *rest = read(path).cells
    assert re.match(r"\d[0-9a-f]_[a-z0-9_]+$", path.stem)
    assert title.cell_type == "markdown" and title.source.startswith("# ")
    assert notebook_cells.badge(build_book.ROOT, path) in title.source.splitlines()
    assert "?" in title.source, "the title cell asks the notebook's question"
    assert re.search(r"\b(minutes?|seconds?)\b", title.source), "the title cell says how long demo mode takes"
    assert re.search(r"\b[GM]B\b", title.source), "the title cell says how much memory demo mode takes"
    assert "setup" in tags(setup)
    first_code = next(cell for cell in rest if cell.cell_type == "code")
    assert "parameters" in tags(first_code), "the parameters come right after the setup"


@every_notebook
def test_parameters_are_declared_and_known_to_the_config(path):
    config = notebook_config(path)
    assert config is not None, 'the metadata lacks {"textdiff": {"config": "..."}}'
    declared = notebook_parameters(path)
    source = next(cell.source for cell in read(path).cells if "parameters" in tags(cell))
    values: dict[str, object] = {}
    exec(source, {}, values)
    presets = {name: one.default for name, one in parameters_of(config).items() if name not in config.derived}
    assert set(values) == set(declared) <= set(presets)
    assert {field.name for field in fields(Config)} <= set(values), "the parameters common to all notebooks"
    assert {name: value for name, value in values.items() if name != "dataset" and value != presets[name]} == {}
    assert values["mode"] == "demo"
    assert config.from_params(**values)
    for line in source.splitlines():
        assert not re.match(r"\w+ *=", line) or "# @param" in line, f"no @param: {line}"


def own_code(path: Path, besides: tuple[str, ...] = ()) -> list[str]:
    """The code cells that a person wrote: all but the setup, the parameters, and those with a tag of ``besides``."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if not {"setup", "parameters", *besides} & set(tags(cell))]


@every_source
def test_nothing_depends_on_where_it_runs(path):
    code = "\n".join(own_code(path))
    assert not re.search(r"""["'](\.\.?/|/(home|root|work|tmp|Users|content|mnt)/|~/)""", code)


@every_source
def test_no_function_is_defined(path):
    code = TransformerManager().transform_cell("\n".join(own_code(path)))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [node.name for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    assert not defined, f"these belong in the package, with a test: {', '.join(defined)}"


@every_source
def test_code_is_short(path):
    """Answers to exercises do not count: they are folded, and read one at a time by those who have tried."""
    code = own_code(path, besides=("answer",))
    lines = [line for cell in code for line in cell.splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len(lines) <= LINES


@every_source
def test_answers_are_folded_labelled_and_checked(path):
    for cell in read(path).cells:
        if "answer" in tags(cell):
            assert "hide-cell" in tags(cell)
            assert cell.metadata.mystnb.code_prompt_show.startswith("Answer ")
            assert any(isinstance(node, ast.Assert) for node in ast.parse(cell.source).body)


@every_source
def test_no_code_scrolls_sideways(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    # Colab reads the list of a parameter's choices only from its own line; the book wraps that cell.
    lines = [line.split("  # @param")[0] for cell in cells for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_installed_package_holds_what_is_shipped():
    shipped = runpy.run_path(str(build_book.ROOT / "setup.py"))["SHIPPED"]
    for source, target in shipped.items():
        here, there = build_book.ROOT / source, build_book.install() / "textdiff" / target
        files = [file for file in (here.rglob("*") if here.is_dir() else [here]) if file.is_file()]
        files = [file for file in files if file.name[0] != "." and file.suffix != ".toml"]
        assert files, source
        assert [file for file in files if not filecmp.cmp(file, there / file.relative_to(here), shallow=False)] == []


def test_the_installed_package_shows_the_example_of_a_model_by_its_name(tmp_path):
    """No checkout, no network: `from_pretrained` finds the model, the backbone that it only names, and the film."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TEXTDIFF_")}
    plain |= {"PYTHONPATH": str(build_book.install()), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "textdiff", "example", "qata_small", "--out", "shown"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert "Dice" in done.stdout and (tmp_path / "shown/overlay.png").is_file()


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


# What a page concludes of its own run, and what that run must have printed
PRINTED = {
    ("17_blocks_and_steps", "in every block the Dice is lower at the largest step"): r"in (\d+) of \1 blocks",
    ("17_blocks_and_steps", "is above redrawn weights in every cell"): r"Above redrawn:\S+ in (\d+) of \1 cells",
    ("17_blocks_and_steps", "level with weights as initialised"): r"Above random:.* by [+-][0-2]\.\d points",
    ("27_qualitative3d", "all three are good ones, the worst included"): r"worst .*: Dice 0\.9",
    ("29_requests", "obeys fewer than half of the sixty requests"): r"obeyed by the network +[12]\d\n",
    ("29_requests", "a right answer to nearly all"): r"right +(5[5-9]|60)\n",
}


@pytest.mark.parametrize(
    ("path", "words", "printed"),
    [(build_book.ROOT / "notebooks" / f"{page}.ipynb", words, printed) for (page, words), printed in PRINTED.items()],
    ids=[f"{page}: {words}" for page, words in PRINTED],
)
def test_a_page_concludes_what_its_run_printed(path, words, printed, outcomes):
    prose = " ".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert words in re.sub(r"\s+", " ", prose.replace("*", "")), "change what is looked for with the sentence"
    if not isinstance(outcomes[path], build_book.Executed):
        pytest.skip("it did not run")
    outputs = [one for cell in read(outcomes[path].path).cells for one in cell.get("outputs", [])]
    assert re.search(printed, "".join(one.get("text", "") for one in outputs if one.output_type == "stream"))


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

"""Badge and setup cell: they follow _config.yml, and the setup cell leaves what Colab has loaded alone."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import nbformat
import notebook_cells
import pytest

CONFIG = "repository:\n  url: https://github.com/{owner}/textdiff\n  branch: main\n"


@pytest.fixture
def root(tmp_path) -> Path:
    """A small checkout with one untouched notebook."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env/colab-constraints.txt").write_text("# kept\nnumpy\ntorch\n")
    (tmp_path / "_config.yml").write_text(CONFIG.format(owner="one"))
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nWhat is asked?"),
        nbformat.v4.new_code_cell("1 + 1", execution_count=3, outputs=[nbformat.v4.new_output("stream", text="x")]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks/13_x.ipynb")
    return tmp_path


def read(root: Path) -> nbformat.NotebookNode:
    return nbformat.read(root / "notebooks/13_x.ipynb", as_version=4)


def test_cells_are_written_once_and_follow_the_setting(root):
    assert notebook_cells.main(root, check=True) == ["notebooks/13_x.ipynb"]
    assert len(read(root).cells) == 2, "--check must not write"
    assert notebook_cells.main(root, check=False) == ["notebooks/13_x.ipynb"]
    assert notebook_cells.main(root, check=True) == []

    (root / "_config.yml").write_text(CONFIG.format(owner="two"))
    assert notebook_cells.main(root, check=True) == ["notebooks/13_x.ipynb"]
    notebook_cells.main(root, check=False)
    title, setup, code = read(root).cells
    target = "(https://colab.research.google.com/github/two/textdiff/blob/main/notebooks/13_x.ipynb)"
    assert title.source.startswith("# Title\n") and title.source.count(target) == 1
    assert "one/textdiff" not in title.source + setup.source
    assert setup.metadata.tags == ["setup", "hide-input"]
    assert "git+https://github.com/two/textdiff@main" in setup.source


def test_outputs_are_removed(root):
    notebook_cells.main(root, check=False)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in read(root).cells[1:])


def test_a_notebook_without_a_title_is_named(root):
    notebook = read(root)
    notebook.cells.pop(0)
    nbformat.write(notebook, root / "notebooks/13_x.ipynb")
    with pytest.raises(ValueError, match="notebooks/13_x.ipynb.*title"):
        notebook_cells.main(root, check=True)


def test_setup_does_nothing_where_the_package_is_there(root, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("something was installed"))
    exec(notebook_cells.setup_code(root), {})
    assert capsys.readouterr().out.startswith("textdiff ")


@pytest.fixture
def colab(monkeypatch):
    """A session without the package. `pip install` is played: it keeps its constraints, and may change numpy."""
    installed = {"numpy": "2.0.1", "torch": "2.6.0+cu124", "pandas": "2.2.0"}
    seen = {"returncode": 0, "upgrades": {}}

    def distributions():
        return [types.SimpleNamespace(metadata={"Name": name}, version=one) for name, one in installed.items()]

    def run(command, **options):
        seen["command"] = command
        seen["constraints"] = Path(command[command.index("--constraint") + 1]).read_text()
        installed.update(seen["upgrades"])
        package = types.ModuleType("textdiff")
        package.__version__ = "new"
        monkeypatch.setitem(sys.modules, "textdiff", package)
        return types.SimpleNamespace(returncode=seen["returncode"])

    monkeypatch.setitem(sys.modules, "textdiff", None)
    monkeypatch.setattr(metadata, "distributions", distributions)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"numpy": ["numpy"], "no_such": ["pandas"]})
    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_setup_keeps_the_versions_that_are_loaded(root, colab, capsys):
    exec(notebook_cells.setup_code(root), {})
    assert colab["constraints"].split() == ["numpy==2.0.1", "torch==2.6.0+cu124"]
    assert colab["command"][-1] == "textdiff @ git+https://github.com/one/textdiff@main"
    assert capsys.readouterr().out == "textdiff new\n"


def test_setup_asks_for_a_restart_when_something_loaded_has_changed(root, colab):
    colab["upgrades"] = {"numpy": "2.1.0", "pandas": "3.0.0"}
    with pytest.raises(SystemExit, match="have changed: numpy. Restart the session"):
        exec(notebook_cells.setup_code(root), {})


def test_setup_says_when_pip_fails(root, colab):
    colab["returncode"] = 1
    with pytest.raises(SystemExit, match="pip could not install textdiff @ git"):
        exec(notebook_cells.setup_code(root), {})

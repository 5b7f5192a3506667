"""What is generated in notebooks: it follows _config.yml and the config classes, and leaves alone what Colab has loaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from importlib import import_module, metadata
from pathlib import Path

import nbformat
import notebook_cells
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from textdiff import colab

CONFIG = "repository:\n  url: https://github.com/{owner}/textdiff\n  branch: main\n"
CHOICES = {"Small": {"model": ("textdiff", "unet")}}
PARAMETERS = 'model = "unet"  # @param ["unet", "gone"]\nseed = 0  # @param {type:"integer"}'


@pytest.fixture
def root(tmp_path) -> Path:
    """A small checkout with one untouched notebook."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env/colab-constraints.txt").write_text("# kept\nnumpy\ntorch\n")
    (tmp_path / "_config.yml").write_text(CONFIG.format(owner="one"))
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/one/textdiff"  # kept\n')
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nWhat is asked?"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("1 + 1", execution_count=3, outputs=[nbformat.v4.new_output("stream", text="x")]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"textdiff": {"config": "Small"}})
    nbformat.write(notebook, tmp_path / "notebooks/13_x.ipynb")
    return tmp_path


def read(root: Path) -> nbformat.NotebookNode:
    return nbformat.read(root / "notebooks/13_x.ipynb", as_version=4)


def main(root: Path, check: bool, choices: dict = CHOICES) -> list[str]:
    return notebook_cells.main(root, check, choices.__getitem__)


def test_cells_are_written_once_and_follow_the_setting(root):
    assert main(root, check=True) == ["notebooks/13_x.ipynb"]
    assert len(read(root).cells) == 3, "--check must not write"
    assert main(root, check=False) == ["notebooks/13_x.ipynb"]
    assert main(root, check=True) == []

    (root / "_config.yml").write_text(CONFIG.format(owner="two"))
    assert main(root, check=True) == ["notebooks/13_x.ipynb", "pyproject.toml"]
    main(root, check=False)
    title, setup, *_ = read(root).cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in read(root).cells[1:])
    target = "(https://colab.research.google.com/github/two/textdiff/blob/main/notebooks/13_x.ipynb)"
    assert title.source.startswith("# Title\n") and title.source.count(target) == 1
    assert "one/textdiff" not in title.source + setup.source
    assert setup.metadata.tags == ["setup", "hide-input"]
    assert "git+https://github.com/two/textdiff@main" in setup.source
    assert 'Repository = "https://github.com/two/textdiff"  # kept' in (root / "pyproject.toml").read_text()


def test_no_file_of_a_copied_repository_keeps_the_old_owner(tmp_path):
    """One setting is changed in a copy of this checkout, twice; then nothing names who had it before."""
    kinds, own = (".md", ".ipynb", ".cff", ".toml", ".yml", ".py", ".txt"), {"tests", "notebook_cells.py"}
    apart = {".git", ".venv", "_build", "results", "data", "__pycache__", *own}

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {
            name for name in names if name in apart or (Path(folder, name).is_file() and Path(name).suffix not in kinds)
        }

    copy = tmp_path / "copy"
    shutil.copytree(notebook_cells.ROOT, copy, ignore=left_out)
    former = re.search(r"github\.com/([\w.-]+)/", notebook_cells.setting(copy)[0]).group(1)
    for owner, name in (("jane", "our-textdiff"), ("joe", "textdiff")):
        text = (copy / "_config.yml").read_text(encoding="utf-8")
        address = f"https://github.com/{owner}/{name}"
        (copy / "_config.yml").write_text(re.sub(r"url: https://github\S+", f"url: {address}", text), encoding="utf-8")
        changed = notebook_cells.main(copy, check=False)
        assert {"pyproject.toml", "CITATION.cff", "notebooks/13_textdiff.ipynb"} <= set(changed)
        texts = {path: path.read_text(encoding="utf-8") for path in copy.rglob("*") if path.is_file()}
        assert [path for path, text in texts.items() if f"/{former}/" in text or "OWNER" in text] == []
        assert f"repository-code: {address}\n" in texts[copy / "CITATION.cff"]
        assert notebook_cells.main(copy, check=True) == []
        former = owner


def test_an_address_that_only_begins_so_stays(root):
    near = "https://github.com/one/textdiff-data and https://github.com/one/textdiff."
    (root / "README.md").write_text(near)
    (root / "_config.yml").write_text(CONFIG.format(owner="two"))
    main(root, check=False)
    assert (root / "README.md").read_text() == near.replace("one/textdiff.", "two/textdiff.")


def test_lists_of_choices_follow_the_config_class(root):
    main(root, check=False)
    assert read(root).cells[2].source == PARAMETERS.replace('"unet", "gone"', '"textdiff", "unet"')
    more = {"Small": {"model": ("textdiff", "unet", "unetpp")}}
    assert main(root, True, more) == ["notebooks/13_x.ipynb"], "a stale list must be told"


def test_a_notebook_without_a_title_is_named(root):
    notebook = read(root)
    notebook.cells.pop(0)
    nbformat.write(notebook, root / "notebooks/13_x.ipynb")
    with pytest.raises(ValueError, match="notebooks/13_x.ipynb.*title"):
        main(root, check=True)


@pytest.fixture
def setup_cell(root, monkeypatch):
    """Runs the setup cell in a session with or without the package; returns the magics that it called."""

    def run(found: object) -> list[tuple[str, str]]:
        called: list[tuple[str, str]] = []
        shell = types.SimpleNamespace(run_line_magic=lambda *magic: called.append(magic))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
        source = TransformerManager().transform_cell(notebook_cells.setup_code(root))
        exec(source, {"get_ipython": lambda: shell})
        return called

    return run


def test_setup_installs_only_where_the_package_is_missing(setup_cell, root):
    assert setup_cell(found=types.SimpleNamespace(origin="textdiff/__init__.py")) == [("load_ext", "textdiff.colab")]
    # The folder of a clone beside the notebook is no package
    assert len(setup_cell(found=types.SimpleNamespace(origin=None))) == 3
    (_, kept), (pip, install), last = setup_cell(found=None)
    assert pip == "pip" and last == ("load_ext", "textdiff.colab")
    assert install == 'install -q -c kept.txt "textdiff @ git+https://github.com/one/textdiff@main"'
    lines = [line for line in notebook_cells.setup_code(root).splitlines() if line]
    assert len(lines) <= 5 and max(map(len, lines)) <= 88
    # The versions that Colab has are kept
    (root / "pip").write_text(
        "#!/bin/sh\nprintf 'numpy==2.0.1\\nnumpydoc==1\\ntorch==2.6.0+cu124\\ntorchvision==0.21\\n'\n"
    )
    (root / "pip").chmod(0o755)
    environment = os.environ | {"PATH": f"{root}:{os.environ['PATH']}"}
    subprocess.run(f"pip {kept}", shell=True, cwd=root, env=environment, check=True)
    assert (root / "kept.txt").read_text().split() == ["numpy==2.0.1", "torch==2.6.0+cu124"]


def test_a_session_is_not_stopped_where_all_is_as_installed(capsys):
    for name in ("numpy", "pandas", "matplotlib", "PIL", "scipy", "tqdm", "torch"):
        import_module(name)
    colab.load_ipython_extension(None)
    assert capsys.readouterr().out.startswith("textdiff ")


def test_a_restart_is_asked_for_when_something_loaded_has_changed(monkeypatch):
    installed = {"numpy": "2.1.0", "Pillow": "12.0", "unrelated": "2"}
    modules = {"numpy": "2.0.1", "PIL": "12.0", "unrelated": "1"}
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=1.26", "pillow>=10.1"])
    providers = {"numpy": ["numpy"], "PIL": ["Pillow"], "unrelated": ["unrelated"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: providers)
    monkeypatch.setattr(metadata, "version", installed.__getitem__)
    loaded = {name: types.SimpleNamespace(__version__=version) for name, version in modules.items()}
    monkeypatch.setattr(sys, "modules", sys.modules | loaded)
    with pytest.raises(RuntimeError, match="^numpy 2.0.1 is loaded, 2.1.0 installed: restart the session"):
        colab.check_loaded_versions()

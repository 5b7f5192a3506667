"""papermill itself, in a folder outside the checkout: a misspelt name stops the notebook before it does anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

TINY = 'mode = "demo"\nseed = 0\nn_shown = 4'
CONFIGURE = (
    "from textdiff.experiments.pages import DataConfig\n"
    "from textdiff.notebooks import configure\n\n"
    "config = configure(DataConfig)"
)
AFTER = "print(config.seed, config.n_shown)"


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """An empty folder to run in, with the checkout's package."""
    monkeypatch.setenv("PYTHONPATH", str(build_book.ROOT))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(outside) -> Path:
    """A notebook of three cells: parameters, configuration, and a cell that must not be reached after an error."""
    parameters = nbformat.v4.new_code_cell(TINY, metadata={"tags": ["parameters"]})
    cells = [parameters, *map(nbformat.v4.new_code_cell, (CONFIGURE, AFTER))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), outside / "tiny.ipynb")
    return outside / "tiny.ipynb"


def run(path: Path, **parameters: object) -> nbformat.NotebookNode:
    return papermill.execute_notebook(path, path.with_name("done.ipynb"), parameters, progress_bar=False)


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    return "".join(one["text"] for one in outputs if one["output_type"] == "stream")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_shwon": 2}, "unknown parameter 'n_shwon' (did you mean 'n_shown'?)"),
        ({"seed": 1, "data_set": "monuseg"}, "unknown parameter 'data_set' (did you mean 'dataset'?)"),
        ({"config": 1}, "unknown parameter 'config'; DataConfig has: mode, dataset"),
    ],
    ids=["misspelt", "beside a right one", "a variable of the notebook"],
)
def test_a_wrong_parameter_stops_the_notebook(tiny, given, said):
    with pytest.raises(PapermillExecutionError) as error:
        run(tiny, **given)
    assert error.value.ename == "ValueError" and said in error.value.evalue
    assert printed(nbformat.read(tiny.with_name("done.ipynb"), as_version=4)) == "", "the cells below have run"


def test_right_names_are_taken_and_a_second_run_starts_anew(tiny):
    """papermill reads an executed copy too, and puts its cell in the place of the old one."""
    first = run(tiny, seed=3, n_shown=2)
    assert printed(first) == "3 2\n"
    again = papermill.execute_notebook(tiny.with_name("done.ipynb"), None, {"seed": 5}, progress_bar=False)
    assert printed(again) == "5 4\n"


def test_a_notebook_of_the_book_refuses_from_the_command_line(outside):
    """The first answer of a person who types a name wrong, in a folder that holds the notebook and nothing else."""
    shutil.copyfile(build_book.ROOT / "notebooks/10_data_and_sentences.ipynb", outside / "10.ipynb")
    command = [sys.executable, "-m", "papermill", "10.ipynb", "done.ipynb", "-p", "n_label", "2", "--no-progress-bar"]
    done = subprocess.run([*command, "--kernel", "python3"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ValueError: unknown parameter 'n_label' (did you mean 'n_labels'?)" in done.stderr
    assert not [path for path in outside.iterdir() if path.name not in ("10.ipynb", "done.ipynb")]

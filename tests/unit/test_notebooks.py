"""Notebooks from outside (found, parameters checked) and from within (`configure`)."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from textdiff import notebooks
from textdiff.base import paths
from textdiff.experiments.catalogue import CONFIGS
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pages import DataConfig
from textdiff.experiments.pretraining import PretrainConfig

PARAMETERS = (
    'mode = "demo"  # @param ["demo", "full"]\nn_labels = "auto"\nlearning_rate = "auto"\nnoise_steps = "auto"\n'
)


def write_notebook(path: Path, parameters: str = PARAMETERS, config: str | None = "TextDiffConfig") -> Path:
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    metadata = {"textdiff": {"config": config}} if config else {}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    """13_textdiff.ipynb in the folder where the book's own notebooks are."""
    shipped = paths.shipped
    monkeypatch.setattr(paths, "shipped", lambda kind: tmp_path if kind == "notebooks" else shipped(kind))
    return write_notebook(tmp_path / "13_textdiff.ipynb")


# --- from outside ------------------------------------------------------------------------------------------


def test_notebooks_are_found_by_number_name_and_path(notebook, monkeypatch):
    monkeypatch.chdir("/")  # wherever one stands
    assert [notebooks.find_notebook(name) for name in ("13", "13_textdiff", str(notebook))] == [notebook] * 3
    with pytest.raises(FileNotFoundError, match="no notebook 1; there are 13_textdiff"):
        notebooks.find_notebook("1")
    with pytest.raises(FileNotFoundError, match="no notebook x.ipynb"):
        notebooks.find_notebook("x.ipynb")
    (notebook.parent / "13_other.ipynb").touch()
    with pytest.raises(ValueError, match="13 stands for several notebooks: 13_other, 13_textdiff"):
        notebooks.find_notebook("13")


def test_parameters_get_the_types_of_the_configuration_class(notebook):
    given = {"n_labels": "3", "learning_rate": "1e-4", "noise_steps": "50", "mode": "full"}
    assert notebooks.checked_parameters(notebook, given) == given | {"n_labels": 3, "learning_rate": 1e-4}
    assert notebooks.checked_parameters(notebook, {"n_labels": "all"}) == {"n_labels": "all"}
    # Without a class, the defaults say the types
    free = write_notebook(notebook.parent / "free.ipynb", "show = False\nn = 1\nshare = 0.5\nword = ''", config=None)
    given = {"show": "True", "n": "7", "share": "2", "word": "7"}
    assert repr(notebooks.checked_parameters(free, given)) == "{'show': True, 'n': 7, 'share': 2.0, 'word': '7'}"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("steps", "50", "parameter 'steps' is called 'noise_steps' now"),
        ("n_label", "1", "unknown parameter 'n_label' (did you mean 'n_labels'?)"),
        ("seed", "1", "has no parameter 'seed'; it has: mode, n_labels, learning_rate, noise_steps"),
        ("n_labels", "many", "n_labels must be a whole number or 'auto' or 'all', not 'many'"),
        ("n_labels", "-3", "n_labels=-3: at least 1"),
        ("learning_rate", "nan", "learning_rate=nan: a finite number, above 0"),
        ("noise_steps", "5000", "noise_steps=5000: at least 0, at most 999"),
        ("mode", "ful", "mode='ful': choose one of demo, full"),
    ],
)
def test_wrong_parameters_are_named_before_a_kernel_starts(notebook, name, text, said):
    with pytest.raises(ValueError) as error:
        notebooks.checked_parameters(notebook, {name: text})
    assert said in str(error.value)


def test_the_defaults_of_the_notebook_count(notebook):
    path = write_notebook(notebook, 'dataset = "monuseg"\nblocks = "12"\nbackbone = "auto"')
    with pytest.raises(ValueError, match="blocks='12'"):
        notebooks.checked_parameters(path, {"backbone": "he_32"})


@pytest.mark.parametrize("line", ["sizes = (1, 2)", "a = b = 1", "import os", "n = len('x')", "x = None"])
def test_parameters_are_scalars(tmp_path, line):
    with pytest.raises(ValueError, match="n.ipynb: in the parameters cell, .* is not `name = scalar`"):
        notebooks.notebook_parameters(write_notebook(tmp_path / "n.ipynb", line))


def test_a_magic_among_the_parameters_is_named(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "%matplotlib inline")
    with pytest.raises(ValueError, match="n.ipynb: the cell tagged 'parameters' holds more than Python: %matplotlib"):
        notebooks.notebook_parameters(path)


def test_files_that_are_no_notebook_of_ours_are_named(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", config="NoSuchConfig")
    with pytest.raises(ValueError, match="n.ipynb names the config NoSuchConfig; there are DataConfig"):
        notebooks.notebook_config(path)
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match="has 0 cells tagged 'parameters'"):
        notebooks.notebook_parameters(path)
    path.write_text("not json")
    with pytest.raises(ValueError, match="is not a notebook"):
        notebooks.notebook_parameters(path)


@pytest.mark.parametrize("cls", CONFIGS.values(), ids=list(CONFIGS))
def test_each_choice_that_is_listed_can_be_taken(cls):
    choices = notebooks.choices_of(cls)
    assert choices["mode"] == ("demo", "full") and len(choices["dataset"]) > 2
    for name, values in choices.items():
        assert len(set(values)) == len(values) > 1
        assert notebooks.parameters_of(cls)[name].default in values
    assert not {"seed", "n_labels", "backbone", "device"} & choices.keys()
    if cls is TextDiffConfig:  # "auto" where a preset chooses
        assert choices["channel_order"] == ("auto", "RGB", "BGR") and choices["select_on"] == ("val", "test")


# --- from within -------------------------------------------------------------------------------------------


def configured(cls: type, *cells: str, **values: object):
    """What a notebook gets whose kernel has run these cells and holds these values."""
    space = {"configure": notebooks.configure, "cls": cls, "In": ["", *cells], **values}
    exec("config = configure(cls)", space)
    return space["config"]


def test_configure_takes_the_notebooks_parameters(monkeypatch):
    config = configured(DataConfig, "# Parameters\nseed = 3\n", seed=3, n_shown=2, device="cpu", other=1)
    assert config == DataConfig.from_params(seed=3, n_shown=2, device="cpu")
    # What stands for weights is found out, whatever the notebook calls so
    assert configured(PretrainConfig, start_from_weights="mine") == PretrainConfig.from_params()


@pytest.mark.parametrize(
    ("cell", "values", "said"),
    [
        ("# Parameters\nn_shwon = 3\nseed = 1\n", {"seed": 1}, "unknown parameter 'n_shwon' (did you mean 'n_shown'?)"),
        ("# Parameters\nbackbone_weights = 'xx'\n", {}, "unknown parameter 'backbone_weights'"),
        ("n_shwon = 3", {"seed": -1}, "seed=-1: at least 0"),
        ("", {"seed": "one"}, "seed='one' is str, but must be int"),
    ],
)
def test_configure_refuses_what_cannot_be(cell, values, said):
    """A misspelt name only made papermill warn, and the notebook ran with the default."""
    with pytest.raises((ValueError, TypeError)) as error:
        configured(DataConfig, cell, **values)
    assert said in str(error.value)


def test_names_that_papermill_put_in():
    from papermill.translators import PythonTranslator

    words = 'a = 1\n# Parameters\n"quoted"'
    injected = PythonTranslator.codify({"seed": 1, "text": words, "share": 0.5})
    assert notebooks.injected_names(["x = 1", injected, "y == 2"]) == ["seed", "text", "share"]
    # The executed copy was opened, its cell corrected and run again in the same kernel
    assert notebooks.injected_names(["# Parameters\nsede = 1", "raise", "# Parameters\nseed = 1"]) == ["seed"]


def test_every_parameter_in_effect_is_shown_folded(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda html: shown.append(html.data))
    config = configured(TextDiffConfig, backbone="phantoms_32", blocks="0", out_dir="<b>")
    (table,) = shown
    assert table.startswith("<details><summary>") and config.run_id in table
    assert "<td>blocks</td><td>0</td>" in table and table.count("<tr><td>") == len(config.to_dict()) - 1
    assert "<b>" not in table

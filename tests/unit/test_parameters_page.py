"""The page of parameters: that of today's notebooks, what a parameter may be in words, and where costs come from."""

from __future__ import annotations

import json

import nbformat
import notebook_cells
import parameters_page
import pytest

from textdiff.experiments.config import parameters_of
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pretraining import PretrainConfig
from textdiff.notebooks import notebook_parameters

PATHS = notebook_cells.notebooks(notebook_cells.ROOT)


def test_the_page_in_the_book_is_that_of_the_notebooks():
    assert parameters_page.PAGE.read_text(encoding="utf-8") == parameters_page.page()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_each_notebook_has_its_part_with_every_parameter(path):
    text = parameters_page.section(path)
    assert f"../notebooks/{path.name}" in text and f"<!-- cost of {path.stem} -->" in text and "?" in text
    own = notebook_parameters(path).keys() - set(parameters_page.SHARED)
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("- `")} == own


@pytest.mark.parametrize(
    ("cls", "name", "said"),
    [
        (TextDiffConfig, "n_labels", "a whole number, at least 1, or `all`"),
        (TextDiffConfig, "channel_order", "`RGB`, `BGR`"),
        (TextDiffConfig, "noise_steps", "numbers with commas between them, each at least 0, at most 999, or `none`"),
        (TextDiffConfig, "backbone", "text, not empty"),
        (TextDiffConfig, "learning_rate", "a number, above 0"),
        (PretrainConfig, "start_from", "text"),
    ],
)
def test_what_a_parameter_may_be_is_said_in_words(cls, name, said):
    assert parameters_page.values_of(parameters_of(cls)[name]) == said


def test_comments_in_several_lines_are_told_apart_where_a_sentence_begins():
    said = parameters_page.comments(
        "# fmt: off\n# One of two,\n# and on\na = 1\n# Blocks and steps\n# Sets together\nb = 2"
    )
    assert said == {"a": "One of two, and on", "b": "Blocks and steps. Sets together"}


def test_what_a_notebook_writes_is_read_from_its_calls():
    def written(code: str) -> str:
        return parameters_page.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), "x")

    assert written("print(config)") == "nothing but the executed copy"
    assert written("record(config, metrics)") == "a [record](reruns.md) in `x/RUN_ID`"
    assert written("run = make_run(config)").endswith(" and a trained model in the cache")
    assert written('write_labels(out / "mask.nii.gz", labels)') == "`mask.nii.gz`"


def test_costs_come_from_the_build_and_from_published_records(tmp_path):
    about = {"gpu": None, "processor": "A", "cores": 2, "peak_memory_mb": 1200}
    command = "papermill notebooks/13_x.ipynb out.ipynb -r mode {}"
    for i, (mode, seconds) in enumerate([("full", 90.0), ("full", 6000.0), ("demo", 1.0)]):
        folder = tmp_path / f"results/published/x/{i}"
        folder.mkdir(parents=True)
        (folder / "env.json").write_text(json.dumps(about | {"command": command.format(mode), "seconds": seconds}))
    text = "<!-- cost of 13_x -->\n\n<!-- cost of 14_y -->"
    first, second = parameters_page.with_costs(text, {"13_x": (41.2, 950)}, tmp_path).split("\n\n")
    assert first.splitlines()[2:] == [
        "| demo | 41 s | 0.9 GB | this build |",
        "| full | 1.5 to 100 min | 1.2 GB | 2 published records; A, 2 cores |",
    ]
    assert second.splitlines()[2:] == ["| demo | – | – | this build |", "| full | – | – | none published |"]

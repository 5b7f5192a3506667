"""The tool that builds the book: when a notebook is run again, what is shown of it, and how failures are told."""

from __future__ import annotations

from pathlib import Path

import build_book
import nbformat
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A small checkout with one notebook. Running it is played: the copy gets an output."""
    for folder in ("notebooks", "textdiff", "env", "book"):
        (tmp_path / folder).mkdir()
    (tmp_path / "textdiff/a.py").write_text("one = 1\n")
    (tmp_path / "env/requirements-cpu.txt").write_text("torch==1\n")
    (tmp_path / "_toc.yml").write_text("root: book/intro\nchapters:\n- file: notebooks/00_x\n")
    (tmp_path / "book/intro.md").write_text("# Intro\n")
    cells = [nbformat.v4.new_markdown_cell("# X"), nbformat.v4.new_code_cell("1 + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks/00_x.ipynb")

    def run(path, output, root, threads):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text=f"{root}/results")]
        nbformat.write(notebook, output)

    monkeypatch.setattr(build_book, "_papermill", run)
    return tmp_path


def edit(root: Path, index: int, source: str) -> None:
    notebook = nbformat.read(root / "notebooks/00_x.ipynb", as_version=4)
    notebook.cells[index].source = source
    nbformat.write(notebook, root / "notebooks/00_x.ipynb")


CHANGES = {
    "code": lambda root: edit(root, 1, "2 + 2"),
    "package": lambda root: (root / "textdiff/a.py").write_text("one = 2\n"),
    "new module": lambda root: (root / "textdiff/b.py").write_text(""),
    "lock": lambda root: (root / "env/requirements-cpu.txt").write_text("torch==2\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_notebook_runs_again_when_its_inputs_change(root, change):
    path = root / "notebooks/00_x.ipynb"
    assert build_book.execute(path, root).fresh
    assert not build_book.execute(path, root).fresh
    assert build_book.execute(path, root, force=True).fresh
    change(root)
    assert build_book.execute(path, root).fresh


def test_changed_prose_is_shown_without_a_run(root):
    path = root / "notebooks/00_x.ipynb"
    build_book.execute(path, root)
    edit(root, 0, "# Another title")
    executed = build_book.execute(path, root)
    assert not executed.fresh
    shown = build_book.readable(nbformat.read(path, 4), nbformat.read(executed.path, 4), root)
    assert shown.cells[0].source == "# Another title"
    assert shown.cells[1].outputs[0].text == "results", "this machine's folder is cut"


def test_a_failed_run_is_not_kept(root, monkeypatch):
    path = root / "notebooks/00_x.ipynb"
    build_book.execute(path, root)
    edit(root, 1, "1 / 0")

    def fail(path, output, root, threads):
        raise build_book.NotebookFailed("00_x.ipynb: ZeroDivisionError")

    monkeypatch.setattr(build_book, "_papermill", fail)
    for _ in range(2):
        outcome = build_book.execute_all([path], root)[path]
        assert isinstance(outcome, build_book.NotebookFailed)
    with pytest.raises(build_book.NotebookFailed, match="ZeroDivisionError"):
        build_book.build(root)


def test_injected_cell_is_left_out_and_figures_are_described():
    source = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("mode = 'demo'"), nbformat.v4.new_code_cell("figure")]
    )
    picture = nbformat.v4.new_output(
        "display_data", data={"image/png": "aGk="}, metadata={"image/png": {"alt": "A line.", "caption": "Loss."}}
    )
    executed = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("mode = 'demo'"),
            nbformat.v4.new_code_cell("mode = 'demo'", metadata={"tags": ["injected-parameters"]}),
            nbformat.v4.new_code_cell("figure", outputs=[picture]),
        ]
    )
    first, second = build_book.readable(source, executed).cells
    assert first.outputs == []
    assert second.metadata.mystnb == {"image": {"alt": "A line."}, "figure": {"caption": "Loss."}}


def test_staged_files_that_stay_the_same_keep_their_time(root):
    (root / "_config.yml").write_text("title: x\n")
    outcomes = build_book.execute_all(build_book.sources(root), root)
    target = build_book.stage(outcomes, root)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    (target / "left_over.md").write_text("old")
    (root / "book/intro.md").write_text("# Changed\n")
    build_book.stage(outcomes, root)
    after = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    assert [path.name for path in after if after[path] != before.get(path)] == ["intro.md"]
    assert before.keys() == after.keys()


def test_contents_and_files_must_agree(root):
    (root / "_toc.yml").write_text("root: book/intro\nchapters:\n- file: book/none\n- file: notebooks/00_x\n")
    with pytest.raises(build_book.BookFailed, match="not there: book/none"):
        build_book.build(root)
    (root / "_toc.yml").write_text("root: book/intro\n")
    with pytest.raises(build_book.BookFailed, match="not in _toc.yml: notebooks/00_x.ipynb"):
        build_book.build(root)


def test_the_last_error_of_a_log_is_told(tmp_path):
    log = tmp_path / "log"
    log.write_text("start\n\x1b[31mKeyError\x1b[0m: 'n'\nTraceback\nValueError: n_labels=99: there are 24\nend\n")
    assert build_book._last_error(log) == "ValueError: n_labels=99: there are 24"
    log.write_text("")
    assert build_book._last_error(log) == "no output"

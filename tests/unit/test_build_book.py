"""The tool that builds the book: when a notebook is run again, what is shown of it, and how failures are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import nbformat
import pytest
from build_book import Reads


def write(root: Path, name: str, code: str) -> None:
    cells = [nbformat.v4.new_markdown_cell("# X"), nbformat.v4.new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / f"notebooks/{name}.ipynb")


@pytest.fixture
def small(tmp_path) -> Path:
    """A small checkout: a package that ships records, and one notebook."""
    files = {
        "pyproject.toml": '[project]\nname = "textdiff"\nversion = "1"\n[tool.setuptools]\npackages = ["textdiff"]\n'
        '[tool.setuptools.package-data]\ntextdiff = ["records/**"]\n',
        "textdiff/__init__.py": "",
        "textdiff/a.py": "one = 1\n",
        "textdiff/b.py": "one = 1\n",
        "textdiff/records/first/config.json": "{}",
        "env/requirements-cpu.txt": "torch==1\n",
        "_toc.yml": "root: book/intro\nchapters:\n- file: notebooks/00_x\n",
        "book/intro.md": "# Intro\n",
        "notebooks/.keep": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tools").mkdir()
    shutil.copy(Path(build_book.__file__).with_name("site_recorder.py"), tmp_path / "tools")
    write(tmp_path, "00_x", "1 + 1")
    return tmp_path


@pytest.fixture
def root(small, monkeypatch) -> Path:
    """The small checkout. Running the notebook is played: it imports a.py and reads and lists the records."""

    def run(path, output, root, work, threads):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="results")]
        nbformat.write(notebook, output)
        return Reads(("__init__.py", "a.py"), ("records/first",), ("records",)), 100

    monkeypatch.setattr(build_book, "_papermill", run)
    monkeypatch.setattr(build_book, "install", lambda root: None)
    monkeypatch.setattr(build_book, "site", lambda root: root)
    return small


def add(root: Path, name: str, text: str = "2") -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)


CHANGES = {
    "code": (lambda root: write(root, "00_x", "2 + 2"), True),
    "lock": (lambda root: add(root, "env/requirements-cpu.txt"), True),
    "module that it imports": (lambda root: add(root, "textdiff/a.py"), True),
    "module that is gone": (lambda root: (root / "textdiff/a.py").unlink(), True),
    "file that it read": (lambda root: add(root, "textdiff/records/first/config.json"), True),
    "weights beside a file that it read": (lambda root: add(root, "textdiff/records/first/model.safetensors"), True),
    "new record in a listed folder": (lambda root: add(root, "textdiff/records/second/config.json"), True),
    "title": (lambda root: edit(root, 0, "# Y"), False),
    "other module": (lambda root: add(root, "textdiff/b.py"), False),
    "new module": (lambda root: add(root, "textdiff/c.py"), False),
    "time of a file": (lambda root: os.utime(root / "textdiff/a.py", (1, 1)), False),
}


@pytest.mark.parametrize(("change", "again"), CHANGES.values(), ids=CHANGES)
def test_a_notebook_runs_again_when_a_change_can_affect_it(root, change, again):
    path = root / "notebooks/00_x.ipynb"
    assert build_book.execute(path, root).fresh
    assert not build_book.execute(path, root).fresh
    assert build_book.execute(path, root, force=True).fresh
    change(root)
    assert build_book.execute(path, root).fresh is again


READING = {
    "import": ("import textdiff.a", Reads(("__init__.py", "a.py"))),
    "file": ("import textdiff as t; open(t.__path__[0] + '/records/first/config.json')", Reads(("__init__.py",), ("records/first",))),
    "folder": ("import os, textdiff as t; os.listdir(t.__path__[0] + '/records')", Reads(("__init__.py",), (), ("records",))),
    "pattern": ("import pathlib, textdiff as t; list(pathlib.Path(t.__path__[0]).glob('*/*.x'))", Reads(("__init__.py",), (), (".", "records"))),
    "fork": ("import os; os.fork() and os.wait() or __import__('textdiff.b')", Reads(("__init__.py", "b.py"))),
    "child": ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import textdiff.b'])", Reads(("__init__.py", "b.py"))),
    "written": ("import textdiff as t; open(t.__path__[0] + '/records/new', 'w')", Reads(("__init__.py",))),
}  # fmt: skip


@pytest.mark.parametrize(("code", "reads"), READING.values(), ids=READING)
def test_what_a_process_reads_of_the_package_is_recorded(small, code, reads):
    shutil.copy(small / "tools/site_recorder.py", small / "sitecustomize.py")
    log = small / "reads.txt"
    environment = os.environ | {"PYTHONPATH": str(small), "TEXTDIFF_READS": str(log)}
    for _ in ("from source", "from compiled copies"):
        log.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=small.parent, check=True)
        assert Reads.from_log(log) == reads


def test_a_notebook_runs_with_the_installed_package_and_again_when_a_change_can_affect_it(small):
    write(
        small, "00_x", "import os, textdiff.a\nprint(textdiff.__file__, os.getcwd() + '/x')\nbig = b'1' * 400_000_000"
    )
    (path,) = build_book.sources(small)

    def fresh() -> bool:
        return build_book.execute_all([path], small)[path].fresh

    assert fresh() and not fresh()
    shown = nbformat.read(small / f"_build/executed/{path.name}", 4).cells[-1].outputs[0].text
    assert shown.split() == ["textdiff/__init__.py", "x"], "this machine's folders are cut, or another package ran"
    add(small, "textdiff/records/second/config.json")
    again = build_book.execute(path, small)
    assert not again.fresh and 400 < again.memory_mb < 1000, "of the kernel, not of this process"
    (small / "textdiff/a.py").write_text("one = 2\n")
    assert fresh()


def test_a_package_that_is_not_used_or_cannot_be_installed_is_told(root, monkeypatch):
    monkeypatch.setattr(build_book, "_papermill", lambda *arguments: (Reads(), 0))
    with pytest.raises(build_book.NotebookFailed, match="00_x.ipynb: it did not import the textdiff"):
        build_book.execute(root / "notebooks/00_x.ipynb", root)
    monkeypatch.undo()
    (root / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(build_book.PackageFailed, match="could not be installed:\n.*packages"):
        build_book.install(root)


def edit(root: Path, index: int, source: str) -> None:
    notebook = nbformat.read(root / "notebooks/00_x.ipynb", as_version=4)
    notebook.cells[index].source = source
    nbformat.write(notebook, root / "notebooks/00_x.ipynb")


def test_changed_prose_is_shown_without_a_run_and_a_failed_run_is_not_kept(root, monkeypatch):
    path = root / "notebooks/00_x.ipynb"
    build_book.execute(path, root)
    edit(root, 0, "# Another title")
    executed = build_book.execute(path, root)
    shown = build_book.readable(nbformat.read(path, 4), nbformat.read(executed.path, 4))
    assert not executed.fresh and shown.cells[0].source == "# Another title"
    assert shown.cells[1].outputs[0].text == "results"
    edit(root, 1, "1 / 0")

    def fail(*arguments):
        raise build_book.NotebookFailed("00_x.ipynb: ZeroDivisionError")

    monkeypatch.setattr(build_book, "_papermill", fail)
    for _ in range(2):
        assert isinstance(build_book.execute_all([path], root)[path], build_book.NotebookFailed)
    with pytest.raises(build_book.NotebookFailed, match="ZeroDivisionError"):
        build_book.build(root)


def test_injected_cell_is_left_out_and_figures_are_described():
    code, notebook = nbformat.v4.new_code_cell, nbformat.v4.new_notebook
    words = {"image/png": {"alt": "A line.", "caption": "Loss."}}
    picture = nbformat.v4.new_output("display_data", data={"image/png": "aGk="}, metadata=words)
    injected = code("mode = 'demo'", metadata={"tags": ["injected-parameters"]})
    executed = notebook(cells=[code("mode = 'demo'"), injected, code("figure", outputs=[picture])])
    parameters = code("mode = 'demo'", metadata={"tags": ["parameters"]})
    first, second = build_book.readable(notebook(cells=[parameters, code("figure")]), executed).cells
    assert first.outputs == [] and first.metadata.tags == ["parameters", "hide-input"]
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


def test_staged_pages_of_the_two_hour_path_are_signed_and_listed(root):
    (root / "book/two_hours.csv").write_text("page,minutes,question\nbook/intro,10,Why?\n")
    (root / "book/intro.md").write_text("# Intro\n\n<!-- two-hour-path -->\n")
    source = build_book.stage(build_book.execute_all(build_book.sources(root), root), root)
    page = (source / "book/intro.md").read_text()
    assert "1 of 1" in page and "{doc}`/book/intro` | Why? | 10 |" in page and "<!--" not in page
    assert "two-hours" not in (source / "notebooks/00_x.ipynb").read_text()


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

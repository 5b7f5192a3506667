"""The book on paper: a configuration without what only a screen has, one page whose links stay within it, errors in words."""

from __future__ import annotations

import sys

import build_book
import print_book
import pytest
import yaml


def test_the_configuration_for_paper_has_nothing_to_launch():
    config = yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
    changed = print_book.printable(config)
    assert "launch_buttons" in config and "launch_buttons" not in changed
    assert not any(value for name, value in changed["html"].items() if name.endswith("_button"))
    assert changed["sphinx"]["config"]["html_css_files"] == ["book.css", "print.css"]
    assert changed["sphinx"]["config"]["extensions"] == [*config["sphinx"]["config"]["extensions"], "epub_contents"]
    assert all((build_book.ROOT / "book/_static" / name).is_file() for name in ("book.css", "print.css"))


def test_links_of_the_one_page_stay_within_it(tmp_path, monkeypatch):
    monkeypatch.setattr(print_book, "FOLDER", tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/intro.html").write_text('<a href="book/intro.html#x">1</a> <a href="https://one.org/#x">2</a>')
    page = print_book.one_page(tmp_path)
    assert page.parent == tmp_path
    assert page.read_text() == '<a href="#x">1</a> <a href="https://one.org/#x">2</a>'


def test_what_is_missing_or_fails_is_said(monkeypatch):
    monkeypatch.setattr(print_book.shutil, "which", lambda name: None)
    with pytest.raises(print_book.PrintFailed, match="install one of chromium, "):
        print_book.browser()
    with pytest.raises(print_book.PrintFailed, match="a step failed:\nno such page"):
        print_book._run([sys.executable, "-c", "import sys; sys.exit('no such page')"], "a step")

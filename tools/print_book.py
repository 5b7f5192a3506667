"""The book on paper or in a reader: the built book's sources come in, _build/print/textdiff.pdf or .epub goes out.

    python tools/print_book.py pdf      # one long page, printed by Chromium or Chrome without a window
    python tools/print_book.py epub    # its formulas set by the same browser

Both are built by Jupyter Book from a copy of the sources with a configuration of its own (`printable`), after the book
itself, so that their notebooks are those of its pages. Both need a browser: the PDF is printed by it, and for EPUB, whose
readers run no MathJax, it sets the formulas (finish_epub.py).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import build_book
import yaml
from finish_epub import EpubFailed, by_mathjax, finish

FOLDER = build_book.ROOT / "_build/print"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BUILDERS = {"pdf": ["--builder", "singlehtml"], "epub": ["--builder", "custom", "--custom-builder", "epub"]}
PRINT_SECONDS = 600
# Milliseconds that the page may take to set its formulas, of a clock that waits for it
SETTLE = 120_000


class PrintFailed(RuntimeError):
    """There is no browser, or a step failed; the message says which and ends with its last lines."""


def printable(config: dict[str, Any]) -> dict[str, Any]:
    """The book's configuration for paper: no launch buttons, which EPUB cannot have, and no repository to open."""
    changed = {name: value for name, value in config.items() if name != "launch_buttons"}
    html = changed.get("html", {}) | {"use_repository_button": False, "use_issues_button": False}
    sphinx = changed.get("sphinx", {})
    about = {
        "html_css_files": [*sphinx.get("config", {}).get("html_css_files", []), "print.css"],
        "epub_show_urls": "no",
        "epub_title": config["title"],
        "epub_uid": "textdiff",
        "epub_identifier": config["repository"]["url"],
        "epub_scheme": "URL",
        "epub_use_index": False,  # it is a page of the contents
        "epub_tocscope": "includehidden",  # the pages are listed in _toc.yml, and on no page
        # Names of files for search engines and other programs, which no reader of a book opens
        "suppress_warnings": ["epub.unknown_project_files"],
    }
    own = {"epub_contents": str(Path(__file__).parent)}
    about["extensions"] = [*sphinx.get("config", {}).get("extensions", []), *own]
    sphinx = sphinx | {"local_extensions": own, "config": sphinx.get("config", {}) | about}
    return changed | {"html": html, "sphinx": sphinx}


def browser() -> str:
    """The first of `BROWSERS` that is installed. Raises PrintFailed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise PrintFailed(f"pages are printed and formulas are set by a browser: install one of {', '.join(BROWSERS)}")
    return found


def pages(source: Path, kind: str) -> Path:
    """Build `source` for "pdf" or "epub"; returns Jupyter Book's folder of the result. Raises PrintFailed."""
    copy = FOLDER / "source"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    config = printable(yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8")))
    (copy / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(copy)]
    _run([*command, "--path-output", str(FOLDER / kind), *BUILDERS[kind]], "Jupyter Book")
    return FOLDER / kind / "_build" / {"pdf": "singlehtml", "epub": "epub"}[kind]


def one_page(built: Path) -> Path:
    """The single page, laid where its pictures and styles are looked for; its links stay within it."""
    root = yaml.safe_load((FOLDER / "source/_toc.yml").read_text(encoding="utf-8"))["root"]
    text = (built / f"{root}.html").read_text(encoding="utf-8")
    page = built / "print.html"
    page.write_text(re.sub(rf'href="(?:{root}\.html)?#', 'href="#', text), encoding="utf-8")
    return page


def main(kind: str) -> Path:
    """The finished file. Raises PrintFailed, EpubFailed, and what a build of the book raises."""
    program = browser()
    build_book.build()
    built, target = pages(build_book.ROOT / "_build/source", kind), FOLDER / f"textdiff.{kind}"
    fresh = target.with_name(f"new.{kind}")
    if kind == "pdf":
        page = one_page(built)
        # A container has no sandbox to offer, and the page is our own
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--timeout={SETTLE}"]
        options += [f"--virtual-time-budget={SETTLE}", f"--print-to-pdf={fresh}"]
        _run([program, *options, page.as_uri()], "the browser")
    else:
        mathjax = build_book.ROOT / "book/_static/mathjax/tex-mml-chtml.js"
        finish(next(built.glob("*.epub")), fresh, by_mathjax(program, mathjax, FOLDER))
    return fresh.replace(target)


def _run(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PRINT_SECONDS)
    except subprocess.TimeoutExpired:
        raise PrintFailed(f"{name} did not end in {PRINT_SECONDS} seconds") from None
    if done.returncode:
        raise PrintFailed("\n".join([f"{name} failed:", *(done.stdout + done.stderr).splitlines()[-20:]]))


if __name__ == "__main__":
    if sys.argv[1:] not in (["pdf"], ["epub"]):
        sys.exit("say pdf or epub")
    try:
        print(main(sys.argv[1]))
    except (
        PrintFailed,
        EpubFailed,
        build_book.PackageFailed,
        build_book.NotebookFailed,
        build_book.BookFailed,
    ) as error:
        sys.exit(str(error))

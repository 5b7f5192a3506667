"""Each check sees its fault in a little page, and none in a sound one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from browser import checks

DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj6CAAAAABJRU5ErkJggg==")
LONG = "x" * 300
COPY_BUTTON = '<button class="copybtn" onclick="%s">copy</button>'
COPIES = "const t = document.body.appendChild(document.createElement('textarea')); t.value = 'a = 1'; t.select(); document.execCommand('copy')"
SOUND = f"""
<h1 id="top">Sound</h1> <a href="#top">up</a> <img src="dot.png" alt="a dot">
<div class="highlight"><pre>a = 1</pre>{COPY_BUTTON % COPIES}</div>
<details class="hide"><summary>Show code</summary><p>code</p></details>
<a href="https://colab.research.google.com/github/o/r/blob/main/notebooks/00_x.ipynb">Colab</a>
"""


@pytest.fixture
def show(page, tmp_path):
    """Opens a little page with this content; gives the page and the Watch on it."""
    (tmp_path / "dot.png").write_bytes(DOT)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00_x.ipynb").write_text("{}")
    watch = checks.Watch(page, f"{tmp_path.as_uri()}/")

    def opened(content: str, name: str = "page.html"):
        text = f'<!doctype html><html lang="en"><title>A page</title><main>{content}</main></html>'
        (tmp_path / name).write_text(text, encoding="utf-8")
        page.set_viewport_size(checks.WIDE)
        page.goto((tmp_path / name).as_uri())
        return page, watch

    return opened


MEASURED = {
    "code that is cut off": ("cut", f"<pre style='overflow: auto'>{LONG}</pre>"),
    "output that is cut off": ("cut", f"<div class='output' style='overflow: auto'><table><td>{LONG}</table></div>"),
    "caption that is cut off": (
        "cut",
        f"<div class='output' style='width: 90px; overflow: visible'><table><caption style='width: 900px'>{LONG}</caption></table></div>",
    ),
    "page that scrolls sideways": ("sideways", f"<p>{LONG}</p>"),
    "no alt text": ("images", "<img src='dot.png' alt=''>"),
    "a file name as alt text": ("images", "<img src='dot.png' alt='dot.png'>"),
    "picture that is not there": ("images", "<img src='gone.png' alt='a dot'>"),
    "mathematics as source": ("mathematics", "<span class='math'>\\(x\\)</span>"),
    "MathJax for nothing": ("mathematics", "<script src='mathjax/tex.js'></script>"),
    "anchor that leads nowhere": ("anchors", "<a href='#nowhere'>there</a>"),
    "code without a button": ("copying", "<div class='highlight'><pre>a = 1</pre></div>"),
}


@pytest.mark.parametrize("fault", MEASURED)
def test_measure_sees(show, fault):
    check, content = MEASURED[fault]
    page, _ = show(content)
    if check == "sideways":
        page.set_viewport_size(checks.NARROW)
    found = checks.measured(page)
    assert found[check] and all(not others for name, others in found.items() if name not in (check, "sideways"))


def test_a_sound_page_has_no_fault(show, tmp_path):
    page, watch = show(SOUND)
    assert not any(checks.measured(page).values())
    assert not any(watch.of_page(tmp_path).values())
    assert checks.colab(page, tmp_path) == checks.accessibility(page) == []
    assert checks.copying(page) == checks.folding(page) == []


WATCHED = {
    "error": ("console", "<script>undefined_name()</script>"),
    "message": ("console", "<script>console.error('no')</script>"),
    "file that is not there": ("console", "<script src='gone.js'></script>"),
    "another server": ("network", "<script src='http://127.0.0.1:9/a.js'></script>"),
}


@pytest.mark.parametrize("fault", WATCHED)
def test_watch_sees(show, tmp_path, fault):
    check, content = WATCHED[fault]
    _, watch = show(content)
    assert watch.of_page(tmp_path)[check]


def test_watch_weighs_what_a_page_loads(show, tmp_path):
    (tmp_path / "heavy.js").write_text("1;" + " " * checks.HEAVY)
    _, watch = show("<script src='heavy.js'></script>")
    assert watch.of_page(tmp_path)["weight"] == ["loads 4.0 MB"]


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("empty-table-header", "<table><tr><th></th><th>a</th></tr><tr><th>b</th><td>1</td></tr></table>"),
        ("label-content-name-mismatch", "<button aria-label='Toggle'>Show the code</button>"),
        ("color-contrast", "<p style='color: #ccc; background: #fff'>pale</p>"),
    ],
)
def test_accessibility_sees(show, rule, content):
    page, _ = show(f"<h1>A page</h1>{content}")
    assert any(one.startswith(rule) for one in checks.accessibility(page))
    assert checks.accessibility(page, within="h1") == []


def test_colab_link_to_a_notebook_that_is_not_there(show, tmp_path):
    page, _ = show("<a href='https://colab.research.google.com/github/o/r/blob/main/notebooks/99.ipynb'>Colab</a>")
    assert checks.colab(page, tmp_path)


def test_buttons_that_do_nothing(show):
    page, _ = show(f"<div class='highlight'><pre>a = 1</pre>{COPY_BUTTON % ''}</div>")
    assert len(checks.copying(page)) == 2
    page, _ = show("<details class='hide'><summary onclick='event.preventDefault()'>Show code</summary>code</details>")
    assert len(checks.folding(page)) == 2


def test_search_without_snippets(show, tmp_path):
    page, _ = show("<ul id='search-results'><li><a href='a.html'>hippocampus</a></li></ul>", "search.html")
    assert checks.searching(page, (Path(tmp_path) / "search.html").as_uri(), "hippocampus", seconds=0.2)

"""The last step of the book's build: pages as the theme writes them come in, lighter and more accessible ones go out.

In the folder of pages, in place: columns of numbers are marked (book.css sets them to the right), mends for screen readers
are made, MathJax stays only where there is mathematics and the search's scripts only on the search page, the icon fonts
keep the icons that are used, the search finds its snippets without a server, and files that no page loads are removed.
"""

import html
import json
import re
from collections.abc import Iterable
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from fontTools import subset
from fontTools.ttLib import TTFont

# 88.12, +1.26 (-0.26 to +2.77), 77.06 ± 0.02, 84.63 to 86.65, 1 of 3, 6.37 M, 28 GiB, 95 %
NUMBER = re.compile(r"[-+−]?\d[\d.,]*( ?(%|[A-Za-zµ]{1,3}[³/]?))?( ± [\d.,]+| (to|of) [-+−]?[\d.,]+)?( \(.*\d\))?")
NOTHING = {"", "–", "-", "—", "nan", "not run yet"}
SEARCH_SCRIPTS = ("searchtools.js", "language_data.js", "searchindex.js")
STYLES = "_static/styles/pydata-sphinx-theme.css"
FONTS = "_static/vendor/fontawesome/webfonts"
UNUSED = ("_static/**/*.map", "_static/scripts/fontawesome.js*", "_static/locales/**/*", f"{FONTS}/*.woff2")
# One rule of the theme's style sheet that shows one icon: .fa-list:before,.fa-list-squares:before{content:"\f03a"}
ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:+before,?)+)\{content:"\\([0-9a-f]+)"\}')
FONT_SOURCE = re.compile(r'url\([^)]*\.woff2\) format\("woff2"\),')
SNIPPETS = """\
// What the search shows of each page: the theme fetches the page itself, which a browser refuses to do from disk.
const PAGE_TEXTS = %s;
window.fetch = (address) => {
  const name = new URL(address, document.baseURI).href.slice(new URL(".", document.baseURI).href.length);
  return Promise.resolve(new Response(PAGE_TEXTS[name] || ""));
};
"""


def finish(folder: Path) -> None:
    """Finish all pages below `folder`, in place. Raises ValueError when the theme's icons are not where they were."""
    for file in {file for pattern in UNUSED for file in folder.glob(pattern) if file.is_file()}:
        file.unlink()
    texts, written = {}, []
    for path in sorted(path for path in folder.rglob("*.html") if "_static" not in path.parts):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        article = page.select_one("article.bd-article")
        if article:
            texts[path.relative_to(folder).as_posix()] = f'<div role="main">{outline(article)}</div>'
        mend(page)
        lighten(page, search=path.name == "search.html")
        path.write_text(str(page), encoding="utf-8")
        written.append(str(page))
    (folder / "_static" / "page_texts.js").write_text(SNIPPETS % json.dumps(texts), encoding="utf-8")
    scripts = [path.read_text(encoding="utf-8") for path in folder.glob("_static/scripts/*.js")]
    cut_icons(folder, set(re.findall(r"fa-[\w-]+", " ".join([*written, *scripts]))))


def mend(page: BeautifulSoup) -> None:
    """What the theme and pandas leave out: names that say what is seen, heads that head something, columns of numbers."""
    for cell in page.select("th"):
        if not cell.get_text(strip=True) and not cell.find("img"):
            cell.name = "td"
    # The label of these hides the words that are seen.
    for labelled in page.select("button[aria-label], summary[aria-label]"):
        if labelled.get_text(strip=True):
            del labelled["aria-label"]
    for chapter in page.select("li.has-children"):
        for link, toggle in zip(chapter.select("a")[:1], chapter.select("summary")[:1], strict=True):
            toggle["aria-label"] = f"Pages of {link.get_text(strip=True)}"
    # A signature in several lines is a list of definitions that defines nothing.
    for lines in page.select("dt.sig dl"):
        lines.name, lines["class"] = "ul", "signature-lines"
        for line in lines.find_all("dd", recursive=False):
            line.name = "li"
    for entry in page.select("[role=doc-biblioentry]"):
        entry["role"] = "listitem"
    for logo in page.select(".bd-sidebar-primary .sidebar-primary-item:has(> .navbar-brand)"):
        logo["role"] = "banner"
    for table in page.select("main table"):
        mark_numbers(table)


def mark_numbers(table: Tag) -> None:
    """Give class "number" to the cells, and the head, of each column that holds numbers and gaps alone."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tr")]
    if not rows or any(cell.has_attr("rowspan") or cell.has_attr("colspan") for row in rows for cell in row):
        return
    body = [row for row in rows if row and row[0].find_parent("thead") is None]
    for number, column in enumerate(zip(*body, strict=False)):
        words = [cell.get_text(strip=True) for cell in column]
        if all(word in NOTHING or NUMBER.fullmatch(word) for word in words) and not NOTHING.issuperset(words):
            for row in rows:
                if number < len(row):
                    row[number]["class"] = " ".join([*row[number].get_attribute_list("class"), "number"])


def lighten(page: BeautifulSoup, search: bool) -> None:
    """Take out the scripts that this page has no use for."""
    unused = ["fontawesome.js", *(() if search else SEARCH_SCRIPTS)]
    if not page.select_one("main .math"):
        unused.append("mathjax/")
    for script in page.select("script[src]"):
        if any(name in str(script["src"]) for name in unused):
            script.decompose()
    for head in page.select("head") if search else ():
        head.append(page.new_tag("script", src="_static/page_texts.js"))


def outline(node: Tag) -> str:
    """The text of an article as HTML of sections with their ids: what the search cuts its snippets from."""
    parts = []
    for child in node.children:
        if not isinstance(child, Tag):
            parts.append(html.escape(str(child), quote=False) if type(child).__name__ == "NavigableString" else "")
        elif child.name not in ("script", "style") and "headerlink" not in child.get_attribute_list("class"):
            inner = outline(child)
            parts.append(f'<section id="{child["id"]}">{inner}</section>' if child.name == "section" else inner)
    return re.sub(r"\s+", " ", "".join(parts))


def cut_icons(folder: Path, names: Iterable[str]) -> None:
    """Leave in the theme's fonts and style sheet the icons with these class names, and those that its own rules show."""
    styles, names = folder / STYLES, set(names)
    text = styles.read_text(encoding="utf-8")

    def used(rule: re.Match[str]) -> str:
        return rule[0] if names & set(re.findall(r"fa-[\w-]+", rule[1])) else ""

    text, rules = ICON_RULE.subn(used, text)
    text, sources = FONT_SOURCE.subn("", text)
    if not rules or not sources:
        raise ValueError(
            f"{STYLES} has no icons of the kind that this step cuts: the theme has changed, and so must it"
        )
    styles.write_text(text, encoding="utf-8")
    shown = {int(code, 16) for code in re.findall(r'"\\(f[0-9a-f]{3})"', text)}
    shown |= {ord(letter) for letter in re.findall("[\ue000-\uf8ff]", text)}
    for path in (folder / FONTS).glob("*.ttf"):
        font, cutter = TTFont(path), subset.Subsetter()
        cutter.populate(unicodes=shown)
        cutter.subset(font)
        font.save(path)

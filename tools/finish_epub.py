"""What Sphinx leaves to do in an EPUB: its file comes in, one whose pages every reader can open goes out.

Pages must be XML, run nothing, and hold MathML in place of TeX. The TeX is read by the book's own MathJax, in the browser
that prints the PDF, so that a formula is the same on a page, on paper and in a reader.
"""

import html
import json
import re
import subprocess
import unicodedata
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bs4 import BeautifulSoup

# A formula as Sphinx writes it for MathJax, in one line or, after its number, in a block
FORMULA = re.compile(
    r'(<(?P<kind>span|div) class="math[^>]*>(?:\s*<span class="eqno">.*?</span>)?)\s*\\[(\[](?P<tex>.*?)\\[)\]]\s*(?=</)',
    re.DOTALL,
)
ASIDE = re.compile(r' (?:data-[\w-]+|class)="[^"]*"')  # what MathJax notes for itself, and EPUB does not know
LETTER = re.compile(r'<mi mathvariant="(script|double-struck)">([A-Z])</mi>')  # a variant that not every reader knows
SECONDS = 120
PAGE = """\
<!DOCTYPE html><meta charset="utf-8"><pre id="asked">{asked}</pre><pre id="answer"></pre>
<script>
const one = ([tex, display]) => {{ try {{ return MathJax.tex2mml(tex, {{display}}) }} catch (error) {{ return `<merror>${{error}}` }} }};
const answer = () => document.getElementById("answer").textContent =
  JSON.stringify(JSON.parse(document.getElementById("asked").textContent).map(one));
MathJax = {{tex: {{packages: {{"[-]": ["noundefined"]}}}}, startup: {{typeset: false, ready() {{ MathJax.startup.defaultReady(); MathJax.startup.promise.then(answer) }}}}}};
</script>
<script src="{mathjax}"></script>
"""
Formula = tuple[str, bool]  # TeX, and whether it stands in a line of its own
Converter = Callable[[list[Formula]], list[str]]


class EpubFailed(RuntimeError):
    """A formula that MathJax does not understand, no answer from the browser, or a page that is no XML."""


def finish(epub: Path, target: Path, convert: Converter) -> int:
    """Write `epub` to `target`, finished; returns the number of formulas. Raises EpubFailed."""
    with zipfile.ZipFile(epub) as book:
        files = {entry: book.read(entry) for entry in book.infolist()}  # mimetype comes first, and is not packed
    pages = {entry: as_xml(content.decode()) for entry, content in files.items() if entry.filename.endswith(".xhtml")}
    found = [formula for text in pages.values() for formula in formulas(text)]
    unlike = list(dict.fromkeys(found))
    known = dict(zip(unlike, convert(unlike), strict=True))
    for entry, text in pages.items():
        files[entry] = FORMULA.sub(lambda match: match[1] + known[formula_of(match)], text).encode()
        check(entry.filename, files[entry])
    holding = [entry.filename for entry, text in pages.items() if FORMULA.search(text)]
    with zipfile.ZipFile(target, "w") as book:
        for entry, content in files.items():
            declared = entry.filename.endswith(".opf")
            book.writestr(entry, declare(content.decode(), holding) if declared else content)
    return len(found)


def as_xml(page: str) -> str:
    """A page as XML, without scripts, which no reader runs, with its styles in its head and one label for each folded cell."""
    soup = BeautifulSoup(page, "html.parser")
    for script in soup(["script", "template"]):
        script.decompose()
    for instead in soup("noscript"):
        instead.unwrap()
    for style in soup.select("body style"):
        del style["scoped"]
        soup.select("head")[0].append(style.extract())
    for fold in soup("summary"):
        fold.string = fold.p.get_text() if fold.p else fold.get_text()
    return str(soup)


def check(name: str, page: bytes) -> None:
    """Raises EpubFailed where a page is no XML: a reader would show nothing of it."""
    try:
        ET.fromstring(page)
    except ET.ParseError as error:
        line = page.decode().splitlines()[error.position[0] - 1]
        raise EpubFailed(f"{name} is no XML: {error}: {line.strip()[:200]}") from error


def formula_of(match: re.Match[str]) -> Formula:
    """TeX of a found formula, without the escapes of XHTML."""
    return html.unescape(match["tex"]).strip(), match["kind"] == "div"


def formulas(page: str) -> Iterable[Formula]:
    """All formulas of a page."""
    return map(formula_of, FORMULA.finditer(page))


def declare(package: str, pages: Iterable[str]) -> str:
    """The EPUB's list of files, with those marked that hold MathML, as the format asks."""
    for page in pages:
        package = package.replace(f'href="{page}"', f'href="{page}" properties="mathml"')
    return package


def by_mathjax(browser: str, mathjax: Path, folder: Path) -> Converter:
    """Conversion by MathJax in a browser without a window; its page is written to `folder`.

    The function raises EpubFailed where a formula is not understood, or the browser gives no answer.
    """

    def convert(asked: list[Formula]) -> list[str]:
        page = folder / "formulas.html"
        page.write_text(PAGE.format(asked=html.escape(json.dumps(asked)), mathjax=mathjax.as_uri()), encoding="utf-8")
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--virtual-time-budget={1000 * SECONDS}",
            "--dump-dom",
        ]
        try:
            command = [browser, *options, page.as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise EpubFailed(f"the browser gave no formulas in {SECONDS} seconds") from None
        answer = re.search(r'<pre id="answer">(.+?)</pre>', done.stdout, re.DOTALL)
        if not answer:
            raise EpubFailed(f"the browser gave no formulas: {done.stderr[-500:]}")
        given = json.loads(html.unescape(answer[1]))
        for (tex, _), mathml in zip(asked, given, strict=True):
            if "<merror" in mathml:
                raise EpubFailed(f"MathJax does not understand {tex!r}: {re.sub('<[^>]*>', ' ', mathml).strip()}")
        return [LETTER.sub(lettered, ASIDE.sub("", re.sub(r">\s+<", "><", mathml))) for mathml in given]

    return convert


def lettered(match: re.Match[str]) -> str:
    """A capital of another alphabet as a character of its own; some of them are older than the block of the others."""
    name = f"{match[1].upper()} CAPITAL {match[2]}"
    try:
        return f"<mi>{unicodedata.lookup(name)}</mi>"
    except KeyError:
        return f"<mi>{unicodedata.lookup(f'MATHEMATICAL {name}')}</mi>"

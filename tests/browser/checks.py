"""What can be wrong with a page in a browser: a Playwright page comes in, faults go out, each a sentence; none is good.

test_checks.py puts each fault into a little page and sees it found; test_book.py looks at every page of the book.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
MEASURE = (HERE / "measure.js").read_text(encoding="utf-8")
AXE = (HERE / "axe" / "axe.min.js").read_text(encoding="utf-8")
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
HEAVY = 4_000_000  # bytes that a page may load
COLAB = re.compile(r"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/[^/]+/(.+)")
STILL = "* { transition: none !important; animation: none !important }"  # a colour on its way has no contrast
# axe's own loading of style sheets is refused from disk; what it needs it reads from the page.
RUN_AXE = """([rules, within]) => axe.run(within, {preload: false, resultTypes: ["violations"], ...(rules && {runOnly: rules})}).then(result =>
  result.violations.map(rule => `${rule.id}: ${rule.nodes.length} times, first ${rule.nodes[0].html.slice(0, 120)}`))"""


class Watch:
    """What a page says and loads from now on; `of_page()` gives the faults since the last question, and forgets them."""

    def __init__(self, page, own: str):
        """`own`: beginning of the addresses that are the book's."""
        self.own, self.said, self.asked = own, [], set()
        page.on("console", lambda message: message.type in ("error", "warning") and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("requestfailed", self._failed)
        page.on("response", lambda answer: answer.status >= 400 and self.said.append(f"{answer.status}: {answer.url}"))
        page.on("request", lambda request: self.asked.add(request.url))

    def _failed(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the next page was asked for meanwhile
            self.said.append(f"not loaded: {request.url}")

    def of_page(self, root: Path) -> dict[str, list[str]]:
        """Faults of the page that was loaded; `root` is the folder that `own` stands for."""
        said, asked = self.said[:], self.asked.copy()
        self.said.clear()
        self.asked.clear()
        addresses = [one for one in asked if not one.startswith(("data:", "blob:", "about:"))]
        foreign = [f"asks another server: {one}" for one in addresses if not one.startswith(self.own)]
        files = {root / unquote(urlsplit(one[len(self.own) :]).path) for one in addresses if one.startswith(self.own)}
        weight = sum(file.stat().st_size for file in files if file.is_file())
        heavy = [f"loads {weight / 1e6:.1f} MB"] if weight > HEAVY else []
        return {"console": said, "network": foreign, "weight": heavy}


def settled(page) -> None:
    """Wait until mathematics is set, where there is any."""
    page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")


def measured(page) -> dict[str, list[str]]:
    """The faults that measure.js finds in the page at its present width."""
    return page.evaluate(MEASURE)


def accessibility(page, rules: list[str] | None = None, within: str = "html") -> list[str]:
    """The rules of axe (all, unless some are named) that the page breaks, or its elements with the selector `within`."""
    if not page.evaluate("!!window.axe"):
        page.evaluate(AXE)
    return page.evaluate(RUN_AXE, [rules, within])


def colab(page, root: Path) -> list[str]:
    """Links to Colab whose notebook is not in the repository at `root`."""
    links = page.eval_on_selector_all("a[href*='colab.research']", "all => all.map(a => a.href)")
    names = [(link, COLAB.fullmatch(link)) for link in links]
    return [f"no such notebook: {link}" for link, name in names if not name or not (root / name[1]).is_file()]


def copying(page) -> list[str]:
    """Whether the first code block's button copies its code, by mouse and by keyboard."""
    page.evaluate("document.addEventListener('copy', event => { window.copied = event.target.value; })")
    code = page.locator("div.highlight:visible").filter(has=page.locator("button.copybtn")).first
    button, wanted, faults = code.locator("button.copybtn"), code.locator("pre").inner_text().strip(), []
    code.hover()
    for way, press in (("click", button.click), ("Enter key", lambda: button.press("Enter"))):
        page.evaluate("window.copied = null")
        press()
        if (page.evaluate("window.copied") or "").strip() != wanted:
            faults.append(f"the {way} on a copy button does not copy the code")
    return faults


def folding(page) -> list[str]:
    """Whether the first folded cell opens and closes, by mouse and by keyboard."""
    cell = page.locator("main details.hide").first
    summary, faults = cell.locator("summary"), []
    for way, press in (("click", summary.click), ("Enter key", lambda: summary.press("Enter"))):
        before = cell.evaluate("cell => cell.open")
        press()
        if cell.evaluate("cell => cell.open") == before:
            faults.append(f"the {way} on a folded cell does nothing")
    return faults


def searching(page, search: str, word: str, seconds: float = 10) -> list[str]:
    """Whether the search page at the address `search` finds a word and shows where."""
    page.goto(f"{search}?q={word}")
    try:
        page.locator("#search-results li .context", has_text=re.compile(word, re.IGNORECASE)).first.wait_for(
            timeout=1000 * seconds
        )
    except Exception as error:  # Playwright's own, which need not be installed where this file is read
        return [f"no snippet with {word!r}: {type(error).__name__}"]
    return []

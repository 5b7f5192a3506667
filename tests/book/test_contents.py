"""The book's order, read from its sources: nothing left out, every chapter opened, words explained, records that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import build_book
import pytest
import yaml
from reading_path import LIST_MARK, Stop, listed, read_path, signposted

ROOT = build_book.ROOT
PAGES = sorted(path for folder in ("book", "notebooks") for path in (ROOT / folder).glob("*.*") if path.suffix in (".md", ".ipynb"))  # fmt: skip
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [chapter for chapter in CONTENTS["chapters"] if chapter.get("sections")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def markdown(page: str) -> str:
    """All that is not code of a page of the contents, whichever of the two kinds it is."""
    path = ROOT / f"{page}.md"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def linked(page: str) -> set[str]:
    """Names of the pages that a page links to."""
    text, folder = markdown(page), (ROOT / page).parent
    targets = re.findall(r"\]\(([^)#:\s]+)[^)]*\)", text)
    names = {name_of((folder / target).resolve().with_suffix(".md")) for target in targets}
    return names | set(re.findall(r"\{doc\}`[^`]*?<?/([\w/]+)>?`", text))


def explained() -> list[list[str]]:
    """The glossary's entries, each with all its names."""
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", markdown("book/glossary"), re.DOTALL)
    entries = [entry for block in blocks for entry in block.strip().split("\n\n")]
    return [[line for line in entry.splitlines() if not line.startswith(" ")] for entry in entries]


def test_the_contents_hold_every_page_once():
    listed_pages = re.findall(r"(?:file|root):\s*(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert len(listed_pages) == len(set(listed_pages))
    assert set(listed_pages) - {"genindex"} == {name_of(path) for path in PAGES}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter["file"])
def test_a_chapter_opens_with_its_question_and_links_to_its_pages(chapter):
    assert {section["file"] for section in chapter["sections"]} <= linked(chapter["file"])
    assert re.match(r"# [^\n]+\n\n\*\*[^\n]+\?\*\*\n", markdown(chapter["file"]))


def answers(page: str) -> int:
    """How many answers to exercises a page holds."""
    path = ROOT / f"{page}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.is_file() else []
    return sum("answer" in cell["metadata"].get("tags", []) for cell in cells)


@pytest.mark.parametrize("chapter", CONTENTS["chapters"], ids=lambda chapter: chapter["file"])
def test_a_chapter_has_three_exercises_on_a_page_that_its_opening_names(chapter):
    pages = [chapter["file"], *(section["file"] for section in chapter.get("sections", []))]
    with_them = {page for page in pages if answers(page)}
    assert with_them and all(answers(page) == 3 for page in with_them)
    closing = markdown(chapter["file"]).strip().split("\n\n")[-1]
    assert chapter["file"] in with_them or "xercises" in closing
    assert with_them <= linked(chapter["file"]) | {chapter["file"]}


def test_the_first_page_links_to_every_chapter():
    assert {chapter["file"] for chapter in CONTENTS["chapters"]} <= linked(CONTENTS["root"])


def test_the_path_takes_two_hours_at_most_and_follows_the_contents():
    stops = read_path(ROOT)
    assert 60 <= sum(stop.minutes for stop in stops) <= 120
    order = re.findall(r"file:\s*(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    places = [order.index(stop.page) for stop in stops]
    assert places == sorted(places)
    assert LIST_MARK in markdown(CONTENTS["root"])


def test_a_page_of_the_path_says_where_it_is_and_what_comes_next():
    stops = [Stop("book/a", 10, "Why?"), Stop("book/b", 20, "How?")]
    first, last = (signposted(stop.page, "# Title\n\nText.\n# no title\n", stops) for stop in stops)
    assert first.startswith(
        "# Title\n\n:::{div} two-hours\nTwo-hour path, 1 of 2 · about 10 minutes · next: {doc}`/book/b`\n"
    )
    assert "2 of 2 · about 20 minutes · the last" in last and last.count("two-hours") == 1
    assert signposted("book/c", "# Title\n", stops) == "# Title\n"
    assert "| | | together | 30 |" in listed(stops)


def test_every_page_of_the_path_has_a_title_for_its_sign():
    stops = read_path(ROOT)
    for stop in stops:
        path = ROOT / f"{stop.page}.md"
        text = markdown(stop.page) if path.is_file() else "".join(json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"][0]["source"])  # fmt: skip
        assert "two-hours" in signposted(stop.page, f"{text}\n", stops), stop.page


@pytest.mark.parametrize("names", explained(), ids=lambda names: names[0])
def test_every_word_of_the_glossary_is_used(names):
    others = [name_of(path) for path in PAGES if path.name != "glossary.md"]
    words = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    assert any(re.search(rf"(?<!\w)(?:{words})s?(?!\w)", markdown(page), re.IGNORECASE) for page in others)


def test_every_work_is_known_and_every_known_work_is_cited():
    known = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(known) == len(set(known))
    cited = {key.strip() for path in PAGES for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", markdown(name_of(path))) for key in keys.split(",")}  # fmt: skip
    assert cited <= set(known)
    assert set(known) <= cited | mentioned_in_notebooks(known)


def mentioned_in_notebooks(known: list[str]) -> set[str]:
    """Works that a notebook names by author and year: it is read outside the book too, where a citation is no link."""
    texts = " ".join(markdown(name_of(path)) for path in PAGES if path.suffix == ".ipynb").lower()
    by_key = {key: re.match(r"([a-z]+?)(\d{4})", key) for key in known}
    return {key for key, found in by_key.items() if found and re.search(rf"{found[1]}[^()]*{found[2]}", texts)}

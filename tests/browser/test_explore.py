"""The interactive parts of the book, used by mouse, by touch and by keyboard alone, and what is left of them without scripts.

In:  the built pages, and the numbers beside them (_static/explore), which every sentence, outline and picture is compared with.
Out: nothing; a part that does not answer, answers wrongly, or cannot be reached or seen fails.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from browser import checks
from PIL import Image

PAGE, INTRO = "book/explore.html", "book/intro.html"
WAYS = {
    "mouse": {"viewport": checks.WIDE},
    "touch": {"viewport": checks.NARROW, "has_touch": True, "is_mobile": True},
    "keyboard": {"viewport": checks.WIDE},
}
PARTS = ("attention", "sentences", "features", "volume")
# Where the tab key stops in each part, in order; a set of radio buttons and the words of a sentence are one stop each.
STOPS = {
    "attention": ["film", "word", "answer", "truth"],
    "sentences": ["film", "sentence"],
    "features": ["step", "block"],
    "volume": ["sagittal", "coronal", "axial", "sentence", "overlay", "strength", "truth"],
}
PLANES = STOPS["volume"][:3]
NAME_OF_FOCUS = """box => {
  const focused = document.activeElement, { choice, slider, toggle, word, load } = focused.dataset;
  return box.contains(focused) ? choice ?? slider ?? toggle ?? (word && "word") ?? (load !== undefined && "load") : null;
}"""
# The next press of the tab key leads to what comes after the head of the section.
TO_HEAD = "box => { location.hash = ''; location.hash = box.closest('section').id; }"
# Contrast of one colour of an element with what lies behind the element, as WCAG 2 counts it.
CONTRAST = """(element, [property, inside]) => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (...colours) => {
    for (pen.fillStyle of colours) pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const behind = [];
  for (let at = inside ? element : element.parentElement; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const colour = getComputedStyle(element)[property].match(/(rgba?|color)\\([^)]*\\)/)[0];
  const [dark, bright] = [paint(...behind), paint(...behind, colour)].map(light).sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}"""


class Reader:
    """Somebody who uses a page in one way alone; opening it and all that follows must leave no message in the console."""

    def __init__(self, context, way: str, html: Path, address: str):
        """`address`: the page's; `way`: one of WAYS."""
        self.page, self.way, self.html = context.new_page(), way, html
        self.watch = checks.Watch(self.page, address[: address.index("book/")])
        self.page.set_default_timeout(10_000)
        self.page.goto(address)
        self.page.add_style_tag(content=checks.STILL)
        self.page.wait_for_function("[...document.querySelectorAll('[data-explore]')].every(box => box.dataset.ready)")

    def part(self, name: str):
        return self.page.locator(f"#explore-{name}")

    def press(self, control) -> None:
        control.tap() if self.way == "touch" else control.click()

    def tab_to(self, box, stop: str) -> None:
        """By the tab key; from the head of the box's section where the focus is not in the box."""
        at = box.evaluate(NAME_OF_FOCUS)
        if at is None:
            box.evaluate(TO_HEAD)
        for _ in range(12):
            if at == stop:
                return
            self.page.keyboard.press("Tab")
            before, at = at, box.evaluate(NAME_OF_FOCUS)
            if before and at is None:
                box.evaluate(TO_HEAD)
        raise AssertionError(f"the tab key does not lead to {stop!r}")

    def choose(self, box, group: str, value: str) -> None:
        """One of a set of radio buttons, or a word (`value`: its cell)."""
        control = f"[data-word='{value}']" if group == "word" else f"[data-choice={group}][value='{value}']"
        if self.way != "keyboard":
            return self.press(box.locator(control if group == "word" else f"label:has({control})"))
        self.tab_to(box, group)
        for _ in range(20):
            if box.locator(control).evaluate("control => control === document.activeElement"):
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"the arrow keys do not lead to {value!r} of {group!r}")

    def switch(self, box, name: str) -> None:
        """A check box."""
        if self.way != "keyboard":
            return self.press(box.locator(f"label.explore-{name}"))
        self.tab_to(box, name)
        self.page.keyboard.press("Space")

    def slide(self, box, name: str, end: str) -> None:
        """To the "Home" or "End" of a slider."""
        if self.way == "keyboard":
            self.tab_to(box, name)
            return self.page.keyboard.press(end)
        slider = box.locator(f"[data-slider={name}]")
        size = slider.bounding_box()
        place = {"x": 2 if end == "Home" else size["width"] - 2, "y": size["height"] / 2}
        slider.tap(position=place) if self.way == "touch" else slider.click(position=place)

    def load(self, box) -> None:
        if self.way == "keyboard":
            self.tab_to(box, "load")
            self.page.keyboard.press("Enter")
        else:
            self.press(box.locator("[data-load]"))
        self.page.wait_for_selector("#explore-volume[data-loaded=yes]")

    def faults(self) -> list[str]:
        return [sentence for sentences in self.watch.of_page(self.html).values() for sentence in sentences]


@pytest.fixture(scope="module")
def numbers(html: Path) -> dict:
    """What films.js, features.js and volume.js of the built book hold."""
    texts = {name: (html / f"_static/explore/{name}.js").read_text("utf-8") for name in ("films", "features", "volume")}
    return {name: json.loads(text.partition(" = ")[2].rstrip(";\n")) for name, text in texts.items()}


@pytest.fixture(scope="module")
def films(numbers) -> dict[str, dict]:
    return {film["key"]: film for film in numbers["films"]["films"]}


@pytest.fixture(scope="module")
def opened(browser, html: Path, server: str) -> Iterator:
    """Gives the one Reader of a page and a way. The parts of a page share nothing, and each test uses one part."""
    readers: dict[tuple, Reader] = {}
    with ExitStack() as stack:

        def reader(way: str, name: str = PAGE, served: bool = False) -> Reader:
            key = (way, name, served)
            if key not in readers:
                context = stack.enter_context(browser.new_context(**WAYS[way]))
                readers[key] = Reader(context, way, html, f"{server if served else f'{html.as_uri()}/'}{name}")
            return readers[key]

        yield reader


def said(box) -> str:
    return box.locator("[data-said]").inner_text()


def outline(box, kind: str) -> str:
    """The outline that is drawn, "" where none is; its dark rim goes with it."""
    line, halo = (box.locator(f"[data-{name}={kind}]").get_attribute("d") or "" for name in ("line", "halo"))
    assert line == halo
    return line


def pressed(box) -> list[str]:
    return box.locator("[data-word][aria-pressed=true]").all_inner_texts()


def told(film: dict, word: dict | None) -> str:
    """What the first part says of a word."""
    mean, most = (int(100 * word[name] + 0.5) for name in ("mean", "most")) if word else (0, 0)
    read = (
        f"“{word['word']}” takes {mean} % of the attention over the film, and {most} % where it is read most."
        if word
        else "No word is chosen."
    )
    return f"{read} Dice of the marked area: {film['sentences'][0]['dice']:.2f}."


def words_of(film: dict) -> list[dict]:
    return [word for word in film["words"] if "cell" in word]


def seen(box, view: str) -> str:
    """What a canvas shows that holds no file, as a PNG in an address."""
    return box.locator(f"[data-view={view}]").evaluate("canvas => canvas.toDataURL()")


def pixels(canvas) -> np.ndarray:
    """What a canvas shows, [height, width, 4], 0 to 255."""
    png = canvas.evaluate("canvas => canvas.toDataURL()").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")).astype(int)


# --- by mouse, by touch, by keyboard ------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_word_is_shown_over_the_film(opened, films, way):
    reader, film = opened(way, INTRO), films["median"]
    box, words = reader.part("attention"), words_of(films["median"])
    most = max(words, key=lambda word: word["most"])
    other = next(word for word in words if word["word"] != most["word"])
    view = box.locator(".explore-film")
    assert (pressed(box), said(box)) == ([most["word"]], told(film, most))

    before = view.screenshot()
    reader.choose(box, "word", other["cell"])
    assert (pressed(box), said(box)) == ([other["word"]], told(film, other))
    assert view.locator("img").get_attribute("alt").endswith(f"“{film['sentences'][0]['text']}”. {said(box)}")
    assert view.screenshot() != before

    reader.page.keyboard.press("Escape") if way == "keyboard" else reader.choose(box, "word", other["cell"])
    reader.page.mouse.move(0, 0)
    assert (pressed(box), said(box)) == ([], told(film, None))
    assert reader.faults() == []


@pytest.mark.parametrize("way", WAYS)
def test_outlines_are_hidden_and_shown_and_films_changed(opened, films, way):
    reader = opened(way)
    box = reader.part("attention")
    for key, film in films.items():
        reader.choose(box, "film", key)
        assert box.locator(".explore-film img").get_attribute("src").endswith(film["picture"])
        assert box.locator(".explore-words").inner_text().split() == [word["word"] for word in film["words"]]
        assert said(box) == told(film, max(words_of(film), key=lambda word: word["most"]))
    lines = {"answer": film["sentences"][0]["outline"], "truth": film["truth"]}
    for name, line in lines.items():
        for shown in (line, "", line):
            assert outline(box, name) == shown
            assert box.locator(f"[data-toggle={name}]").is_checked() == bool(shown)
            reader.switch(box, name)
        reader.switch(box, name)
    assert reader.faults() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_sentence_brings_its_outline_and_dice(opened, films, way):
    reader = opened(way)
    box = reader.part("sentences")
    for key, film in films.items():
        reader.choose(box, "film", key)
        assert outline(box, "truth") == film["truth"]
        for sentence in film["sentences"]:
            kind, dice = sentence["kind"], f"{sentence['dice']:.2f}"
            reader.choose(box, "sentence", kind)
            assert outline(box, "answer") == sentence["outline"]
            assert f"Dice {dice}" in said(box) and ("nothing is marked" in said(box)) == (not sentence["outline"])
            assert box.locator(f"[data-dice={kind}]").inner_text() == dice
            assert (sentence["text"] or "—") in box.locator("[data-group=sentence] label:has(:checked)").inner_text()
            assert said(box) in box.locator("img").get_attribute("alt")
    assert reader.faults() == []


@pytest.mark.parametrize("way", WAYS)
def test_sliders_lead_through_the_features(opened, numbers, way):
    reader, data = opened(way), numbers["features"]
    box, last = reader.part("features"), {"step": len(data["steps"]) - 1, "block": len(data["dice"]) - 1}
    at, pictures = {"step": 1, "block": 4}, set()
    for name, end in (("block", "Home"), ("block", "End"), ("step", "Home"), ("step", "End")):
        reader.slide(box, name, end)
        at[name] = 0 if end == "Home" else last[name]
        check_features(box, data, **at)
        if at["block"]:
            pictures.add(box.locator("[data-view=seen]").screenshot())
    assert len(pictures) == 3
    if way != "keyboard":  # what the cells do the sliders do, too
        reader.press(box.locator("[data-cell='5,3']"))
        check_features(box, data, block=5, step=3)
    else:
        reader.tab_to(box, "step")
        reader.page.keyboard.press("ArrowLeft")
        check_features(box, data, block=last["block"], step=last["step"] - 1)
    assert reader.faults() == []


def check_features(box, data: dict, block: int, step: int) -> None:
    """All that the part on features says of a block and a step."""
    dice, noise = data["dice"][block][step], data["steps"][step]
    probe = (
        "not measured" if dice is None else f"Dice {dice:.2f}, without training {data['untrained'][block][step]:.2f}"
    )
    assert said(box).startswith(f"Block {block} ({data['shapes'][block][0]} channels,")
    assert said(box).endswith(f"at step {noise}: {probe}.")
    assert box.locator(".explore-here").get_attribute("data-cell") == f"{block},{step}"
    assert box.locator(".explore-here").inner_text() == ("–" if dice is None else f"{dice:.2f}")
    sliders = {name: box.locator(f"[data-slider={name}]") for name in ("block", "step")}
    assert [slider.input_value() for slider in sliders.values()] == [str(block), str(step)]
    assert [slider.get_attribute("aria-valuetext") for slider in sliders.values()] == [str(block), str(noise)]
    assert box.locator("[data-view=noised]").get_attribute("aria-label").endswith(f"at noise step {noise}")


@pytest.mark.parametrize("way", WAYS)
def test_a_volume_is_loaded_and_looked_through(opened, numbers, way):
    reader, data = opened(way), numbers["volume"]
    box = reader.part("volume")
    assert "volume.js" not in str(reader.watch.asked) and box.locator("img").get_attribute("alt")
    reader.load(box)
    assert box.evaluate(NAME_OF_FOCUS) == PLANES[0]

    shown = {name: seen(box, name) for name in PLANES}
    for name, depth in zip(PLANES, data["shape"], strict=True):
        slider = box.locator(f"[data-slider={name}]")
        start = slider.input_value()
        for end, slice_ in (("Home", 1), ("End", depth)):
            reader.slide(box, name, end)
            words = f"slice {slice_} of {depth}"
            assert slider.get_attribute("aria-valuetext") == words
            assert box.locator(f"[data-view={name}]").get_attribute("aria-label").startswith(f"{name} {words}.")
        assert {other for other in PLANES if seen(box, other) != shown[other]} == {name}
        slider.fill(start)

    for number in (1, 2, 0):
        answer, before = data["answers"][number], seen(box, "coronal")
        reader.choose(box, "sentence", str(number))
        assert said(box).startswith(f"Asked for: {answer['text']}. Dice: ")
        assert all(f"{name} {dice:.2f}" in said(box) for name, dice in answer["dice"].items())
        assert said(box) in box.locator("[data-view=axial]").get_attribute("aria-label")
        assert seen(box, "coronal") != before
    for change in (("choose", "overlay", "uncertainty"), ("slide", "strength", "Home"), ("switch", "truth")):
        before = seen(box, "coronal")
        getattr(reader, change[0])(box, *change[1:])
        assert seen(box, "coronal") != before, change
    assert box.locator("[data-slider=strength]").get_attribute("aria-valuetext") == "0 %"
    assert reader.faults() == []


def test_pointing_at_a_word_shows_it_for_as_long(opened, films):
    reader, film = opened("mouse", INTRO), films["median"]
    box, word = reader.part("attention"), words_of(films["median"])[0]
    chosen = said(box)
    box.locator(f"[data-word='{word['cell']}']").hover()
    assert said(box) == told(film, word) != chosen
    reader.page.mouse.move(0, 0)
    assert said(box) == chosen


# --- keyboard and eye ---------------------------------------------------------------------------------


def test_keys_lead_through_the_words(opened, films):
    reader = opened("keyboard", INTRO)
    box, words = reader.part("attention"), [word["word"] for word in words_of(films["median"])]
    reader.tab_to(box, "word")
    ways = {"Home": 0, "ArrowRight": 1, "ArrowDown": 2, "ArrowLeft": 1, "ArrowUp": 0, "End": -1}
    for key, place in [*ways.items(), ("ArrowRight", 0), ("ArrowLeft", -1)]:  # the last two go round the ends
        reader.page.keyboard.press(key)
        assert pressed(box) == [words[place]] == [reader.page.evaluate("document.activeElement.innerText")], key
    reader.page.keyboard.press("Escape")
    assert pressed(box) == []
    for key in ("Shift+Tab", "Tab"):  # leaves the words, and comes back to where they were left
        reader.page.keyboard.press(key)
    assert reader.page.evaluate("document.activeElement.innerText") == words[-1]
    reader.page.keyboard.press("Enter")
    assert pressed(box) == [words[-1]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_control_is_reached_named_and_seen(opened, theme):
    reader = opened("keyboard", served=True)
    reader.page.emulate_media(color_scheme=theme)
    reader.page.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")
    if reader.part("volume").get_attribute("data-loaded") != "yes":
        reader.load(reader.part("volume"))
    for name in PARTS:
        box, stops = reader.part(name), STOPS[name]
        reader.tab_to(box, stops[0])
        for stop in stops:
            assert box.evaluate(NAME_OF_FOCUS) == stop
            focused = reader.page.locator(":focus-visible")
            style = focused.evaluate(
                "e => [getComputedStyle(e).outlineStyle, parseFloat(getComputedStyle(e).outlineWidth)]"
            )
            assert style[0] == "solid" and style[1] >= 2
            assert focused.evaluate(CONTRAST, ["outlineColor", False]) >= 3
            reader.page.keyboard.press("Tab")
        assert box.evaluate(NAME_OF_FOCUS) is None
    state = {"[aria-pressed=true]": ("borderColor", False), ".explore-here": ("boxShadow", True)}
    for selector, (colour, inside) in state.items():
        assert reader.page.locator(selector).first.evaluate(CONTRAST, [colour, inside]) >= 3, selector
    assert checks.accessibility(reader.page, within=".explore") == []
    assert reader.faults() == []


def test_fingers_find_the_controls(opened):
    targets = opened("touch").page.locator(".explore :is(button, label:has(input), input[type=range])")
    sizes = targets.evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(({ width, height }) => [width, height])"
    )
    assert len(sizes) > 20 and np.min(sizes) >= 24  # WCAG 2.2, 2.5.8


# --- the pictures, pixel by pixel: from a server a canvas may be read ---------------------------------


def test_the_overlay_is_that_of_the_word(opened, numbers, films, html):
    reader, data = opened("keyboard", served=True), numbers["films"]
    box = reader.part("attention")
    sprite = np.asarray(Image.open(html / "_static/explore" / data["sprite"]).convert("RGBA"))[..., 3].astype(float)
    side = data["cell"]

    def cell(number: int) -> np.ndarray:
        row, column = divmod(number, data["columns"])
        return sprite[row * side : (row + 1) * side, column * side : (column + 1) * side]

    for key in ("worst", "median"):
        reader.choose(box, "film", key)
        words = words_of(films[key])
        for word in (words[0], words[-1]):
            if word["word"] not in pressed(box):
                reader.choose(box, "word", word["cell"])
            drawn = pixels(box.locator("canvas"))[..., 3].reshape(side, 10, side, 10)[:, 4:6, :, 4:6].mean((1, 3))
            away = {other["cell"]: np.abs(drawn - cell(other["cell"])).mean() for other in words}
            assert min(away, key=away.get) == word["cell"] and away[word["cell"]] < 3
    assert reader.faults() == []


def test_the_features_are_those_of_the_block_and_the_step(opened, numbers, html):
    reader, data = opened("keyboard", served=True), numbers["features"]
    box, side = reader.part("features"), numbers["features"]["tile"]
    sheets = {
        name: np.asarray(Image.open(html / "_static/explore" / data[file]).convert("RGB")).astype(int)
        for name, file in (("noised", "noised"), ("seen", "sprite"))
    }
    for block, step in ((0, 2), (11, 5)):
        for name, value in (("block", block), ("step", step)):
            box.locator(f"[data-slider={name}]").fill(str(value))
        for name, row in (("noised", 0), ("seen", block)):
            tile = sheets[name][row * side : (row + 1) * side, step * side : (step + 1) * side]
            drawn = pixels(box.locator(f"[data-view={name}]"))[2::5, 2::5, :3]
            assert np.abs(drawn - tile).max() <= 3  # the browser's WebP and Pillow's
    assert reader.faults() == []


def lying(values: str, shape: list[int], axis: int, place: int) -> np.ndarray:
    """A slice as a plane shows it: rows from the head (or the front) down, columns from the patient's right (or front)."""
    volume = np.frombuffer(gzip.decompress(base64.b64decode(values)), np.uint8).reshape(shape)
    return volume.take(place, axis)[::-1, ::-1].T.astype(int)


def test_planes_show_the_labels_and_the_uncertainty_of_their_slices(opened, numbers):
    reader, data = opened("mouse"), numbers["volume"]
    box, shape = reader.part("volume"), numbers["volume"]["shape"]
    if box.get_attribute("data-loaded") != "yes":
        reader.load(box)
    box.locator("[data-toggle=truth]").uncheck()
    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in data["colours"]])

    def drawn(name: str, overlay: str, strength: int) -> np.ndarray:
        box.locator(f"[data-choice=overlay][value={overlay}]").check()
        box.locator("[data-slider=strength]").fill(str(strength))
        return pixels(box.locator(f"[data-view={name}]"))[4::8, 4::8, :3]

    for axis, number in ((0, 0), (0, 1), (1, 2), (2, 2)):
        name, answer = PLANES[axis], data["answers"][number]
        box.locator(f"[data-choice=sentence][value='{number}']").check()
        place = int(box.locator(f"[data-slider={name}]").input_value())
        labels, unsure = (lying(answer[what], shape, axis, place) for what in ("labels", "uncertainty"))
        shown = drawn(name, "labels", 100)
        assert (shown[labels > 0] == colours[labels[labels > 0] - 1]).all()
        assert not (shown[labels == 0][:, None] == colours).all(-1).any()
        change = np.abs(drawn(name, "uncertainty", 100) - drawn(name, "uncertainty", 0)).sum(-1)
        assert labels.any() and np.corrcoef(change.ravel(), unsure.ravel())[0, 1] > 0.8


# --- without scripts, without numbers -----------------------------------------------------------------


@pytest.mark.parametrize("name", [PAGE, INTRO])
def test_without_scripts_the_still_pictures_are_there(browser, html, name):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((html / name).as_uri())
        boxes = page.locator("[data-explore]").all()
        assert len(boxes) == (len(PARTS) if name == PAGE else 1)
        for box in boxes:
            still = box.locator("img")
            assert still.is_visible() and still.get_attribute("alt") == box.get_attribute("data-alt")
            assert still.evaluate("image => image.naturalWidth") > 0
            assert box.locator("button, input, [tabindex]").count() == 0


def still_only(box) -> bool:
    """Whether a part shows its still picture and no control."""
    if box.locator("button, input").count():
        return False
    return box.locator("img[alt]").evaluate("image => image.decode().then(() => image.alt.length > 20)")


def without(browser, html: Path, *missing: str) -> Reader:
    """A Reader of the page to whom these files do not come."""
    context = browser.new_context()
    for name in missing:
        context.route(f"**/{name}", lambda route: route.abort())
    return Reader(context, "mouse", html, (html / PAGE).as_uri())


def test_parts_without_numbers_keep_their_still_pictures(browser, html):
    reader = without(browser, html, "films.js", "volume.js")
    ready = {name: reader.part(name).get_attribute("data-ready") for name in PARTS}
    assert ready == {"attention": "no", "sentences": "no", "features": "yes", "volume": "yes"}
    volume = reader.part("volume")
    reader.press(volume.locator("[data-load]"))
    reader.page.wait_for_selector("#explore-volume[data-loaded=no]")
    assert "volume.js cannot be read" in said(volume)
    assert [name for name in PARTS if still_only(reader.part(name))] == ["attention", "sentences", "volume"]
    assert any("films.js" in fault for fault in reader.faults())  # whoever looks into the console is told
    reader.page.context.close()


def test_parts_without_one_of_their_pictures_keep_their_still_pictures(browser, html):
    reader = without(browser, html, "film_tenth.webp", "noised.webp")
    for name in ("attention", "sentences", "features"):
        assert reader.part(name).get_attribute("data-ready") == "no" and still_only(reader.part(name))
    reader.page.context.close()

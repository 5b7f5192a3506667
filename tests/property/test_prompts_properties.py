"""What must hold for prompts whatever the structures, the wording and the label map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.volumes.prompts import VARIANTS, named_structures, prompt, request, swap_structures
from textdiff.data.volumes.requests import read_request
from textdiff.data.volumes.volume import Volume
from textdiff.data.volumes.wordings import WORDINGS

UNSIDED = [name for name in WORDINGS if name.split()[0] not in ("left", "right")]
SIDED = [name for name in WORDINGS if f"left {name}" not in WORDINGS]
VARIANT = st.integers(0, 11)


@st.composite
def vocabularies(draw):
    """What a model may know: some structures in any order, sides either told apart or not."""
    return tuple(draw(st.lists(st.sampled_from(draw(st.sampled_from([UNSIDED, SIDED]))), min_size=1, unique=True)))


@st.composite
def known_and_asked(draw):
    known = draw(vocabularies())
    return known, tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=5, unique=True)))


@st.composite
def label_maps(draw, structures):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    array = rng.integers(0, structures + 1, (7, 6, 5)).astype(np.uint8) * (rng.random((7, 6, 5)) < 0.5)
    return Volume(array, np.diag([*signs, 1.0]) @ np.diag([2.0, 1.5, 3.0, 1.0]))


@pytest.mark.parametrize("kind", ["class", "anatomy"])
@given(known_and_asked(), VARIANT)
@settings(max_examples=40, deadline=None)
def test_a_prompt_names_what_was_asked_for(kind, structures, variant):
    known, names = structures
    text = prompt(kind, names, variant=variant)
    for spelled in (text, text.upper(), text.replace("tumour", "tumor").replace("oesoph", "esoph")):
        assert named_structures(spelled, known) == tuple(name for name in known if name in names)


@given(st.data(), known_and_asked(), VARIANT)
@settings(max_examples=40, deadline=None)
def test_a_report_names_what_was_asked_for(data, structures, variant):
    known, names = structures
    labels = data.draw(label_maps(len(known)))
    text = prompt("report", names, labels, ("background", *known), variant)
    assert named_structures(text, known) == tuple(name for name in known if name in names)


@given(st.sampled_from(["class", "anatomy"]), st.lists(st.sampled_from(SIDED), min_size=2, unique=True), VARIANT)
@settings(max_examples=40, deadline=None)
def test_swapping_gives_the_prompt_of_the_exchanged_names(kind, names, variant):
    a, b, *_ = names
    other = {a: b, b: a}
    text = prompt(kind, names, variant=variant)
    swapped = swap_structures(text, a, b)
    assert swapped == prompt(kind, [other.get(name, name) for name in names], variant=variant)
    assert swap_structures(swapped, a, b) == text


@given(st.text(max_size=80), vocabularies())
@settings(max_examples=40, deadline=None)
def test_any_text_can_be_read(text, known):
    named = named_structures(text, known)
    assert set(named) <= set(known)
    assert swap_structures(text, known[0], "liver tumour") is not None


@given(st.lists(st.sampled_from(SIDED), min_size=1, max_size=4, unique=True), VARIANT)
@settings(max_examples=40, deadline=None)
def test_a_prompt_of_other_structures_names_nothing(names, variant):
    for kind in VARIANTS:
        if kind != "report":
            known = tuple(name for name in SIDED if name not in names and "kidney" not in name)
            assert named_structures(prompt(kind, names, variant=variant), known) == ()


@given(vocabularies(), st.data(), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_what_a_written_request_asks_for_is_read_back(known, data, seed):
    names = tuple(data.draw(st.lists(st.sampled_from(known), max_size=4, unique=True)))
    text = request(names, known, np.random.default_rng(seed))
    read = read_request(text, known)
    assert set(read.asked) == set(names) and not set(read.asked) & set(read.excluded)


@given(st.text(max_size=60), vocabularies())
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_reading(text, known):
    read = read_request(text, known)
    assert set(read.asked) <= set(known) and not set(read.asked) & set(read.excluded)

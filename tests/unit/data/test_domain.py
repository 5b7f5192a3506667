"""Inputs unlike those of a training are noticed, with their cause where it is a usual one; others are not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.cases import Case
from textdiff.data.domain import SHARES, Domain, domain_of_pictures, domain_of_volumes
from textdiff.data.images.captions import swap_left_right
from textdiff.data.images.phantoms import chest_phantoms
from textdiff.data.registry import MODELS
from textdiff.data.volumes.patches import Preprocessing
from textdiff.data.volumes.phantoms import abdomen_phantoms
from textdiff.data.volumes.volume import to_grid

NAMES = ("background", "liver", "pancreas", "left kidney", "right kidney")
CT = Preprocessing((6.0, 6.0, 6.0), (-175.0, 250.0), (48, 48, 40))


@pytest.fixture(scope="module")
def seen():
    return domain_of_volumes(abdomen_phantoms(6, 0), CT, (*NAMES, *map(str, range(8))))


@pytest.fixture(scope="module")
def other():
    return abdomen_phantoms(1, 5)[0].image()


def said(domain, volume):
    return " | ".join(domain.remarks_on_volume(volume, CT.image(volume).array, CT))


@pytest.mark.takes("Values", "volumes like those of the training", "taken")
def test_volumes_like_those_of_the_training_are_passed(seen):
    assert [said(seen, case.image()) for case in abdomen_phantoms(6, 1)] == [""] * 6


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param(
            lambda hu: hu + 1024,
            "unsigned HU, shifted by 1024",
            marks=pytest.mark.takes("Values", "a CT in unsigned HU, shifted by 1024", "taken, and said"),
        ),
        pytest.param(
            lambda hu: (hu - hu.min()) / np.ptp(hu),
            "HU scaled to 0..1",
            marks=pytest.mark.takes("Values", "a CT scaled to 0..1", "taken, and said"),
        ),
        (lambda hu: np.round((hu - hu.min()) / np.ptp(hu) * 255), "HU scaled to 0..255"),
        pytest.param(
            lambda hu: np.clip((hu + 175) / 425, 0, 1),
            "already windowed to -175..250",
            marks=pytest.mark.takes("Values", "a CT that was windowed before", "taken, and said"),
        ),
        (lambda hu: hu - 1024, "once too often"),
        (lambda hu: -hu, "sign turned"),
        (lambda hu: np.random.default_rng(0).normal(0, 100, hu.shape), "may be worthless"),
    ],
)
def test_usual_mistakes_are_named(seen, other, change, cause):
    remark = said(seen, replace(other, array=change(other.array).astype(np.float32)))
    assert "unlike those of the training" in remark and cause in remark


@pytest.mark.takes("Values", "voxels much coarser, or a body part much smaller than in the training", "taken, and said")
def test_coarse_voxels_and_another_field_of_view_are_named(seen, other):
    assert "12 x 12 x 12 mm are coarser" in said(seen, to_grid(other, (12.0, 12.0, 12.0)))
    piece = replace(other, array=other.array[:16, :20, :20])
    assert "it shows 96 x 120 x 120 mm" in said(seen, piece)


@pytest.mark.takes("Values", "far less of a structure than any case of the training had", "taken, and said")
@pytest.mark.takes("Values", "a volume upside down or front to back", "taken, and said")
@pytest.mark.parametrize(
    ("axes", "said_of_it"),
    [
        ((2,), "head and foot were exchanged"),
        ((1,), "front and back were exchanged"),
        ((1, 2), "head and foot, and front and back"),
    ],
)
def test_a_volume_that_lies_otherwise_is_named(seen, other, axes, said_of_it):
    assert said_of_it in said(seen, replace(other, array=np.ascontiguousarray(np.flip(other.array, axes))))


def test_odd_amounts_are_named(seen):
    low, high = seen.volumes_ml["liver"]
    assert seen.remark_on_amount("liver", (low + high) / 2) == "" == seen.remark_on_amount("unheard of", 3)
    assert f"{low / 9:.3g} ml of liver were found" in seen.remark_on_amount("liver", low / 9)
    assert seen.remark_on_amount("liver", 0) == ""  # that none was found is said apart


@pytest.mark.takes("Values", "a picture that is inverted, or coloured where the training was grey", "taken, and said")
def test_pictures():
    cases = chest_phantoms(8, 0)
    seen = domain_of_pictures(cases[:6])
    picture = cases[7].image()
    assert seen.remarks_on_picture(picture) == []
    assert "inverted" in seen.remarks_on_picture(255 - picture)[0]
    assert (
        "a colour picture, and the training showed a grey one"
        in seen.remarks_on_picture(picture * np.uint8([1, 0, 0]))[-1]
    )


SENTENCES = [
    ("", "has 0 words"),
    ("left lung", "has 2 words"),
    ("Bilaterale pulmonale Infektion, zwei infizierte Areale, linke untere Lunge", "9 of 9: bilaterale, "),
    ("双侧肺部感染", "1 of 1: 双侧肺部感染"),
    ("There is consolidation in the left lower lobe", "6 of 8: there, is, consolidation, in, the, lobe;"),
    ("a lovely day at the sea, a lovely day at the sea", "12 of 12: a, lovely, day, at, the, sea;"),
    (" ".join(map(str, range(100, 120))), "106, 107, ...;"),
]


@pytest.mark.takes("Sentences", "a sentence for a picture in words like those of the training", "taken")
@pytest.mark.takes("Sentences", "a false sentence for a picture, in words of the training", "taken")
def test_sentences_in_known_words_are_passed_whatever_they_say():
    cases = chest_phantoms(80, 0)
    seen = domain_of_pictures(cases[:40])
    for case in cases[40:]:
        for sentence in (case.caption, case.caption.upper(), swap_left_right(case.caption)):
            assert seen.remarks_on_sentence(sentence) == []
    one_new = cases[0].caption.replace("pulmonary", "lung's")
    assert seen.remarks_on_sentence(one_new) == []


@pytest.mark.takes(
    "Sentences",
    "a sentence for a picture in another language, or in words that the training had not",
    "taken, and said",
)
@pytest.mark.takes(
    "Sentences", "a sentence for a picture much shorter or longer than the training's", "taken, and said"
)
@pytest.mark.parametrize(("sentence", "remark"), SENTENCES)
def test_sentences_in_other_words_are_named(sentence, remark):
    seen = domain_of_pictures(chest_phantoms(40, 0, size=32))
    assert remark in " | ".join(seen.remarks_on_sentence(sentence))


def test_without_sentences_nothing_is_said_of_any():
    cases = [replace(case, caption="") for case in chest_phantoms(3, 0, size=32)]
    assert domain_of_pictures(cases).remarks_on_sentence("a lovely day at the sea") == []


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.kind == "TextDiff"])
def test_shipped_models_know_the_words_of_their_training(name):
    folder = Path(__file__).parents[3] / "weights" / name
    domain = Domain.from_json(json.loads((folder / "config.json").read_text())["domain"])
    example = json.loads((folder / "example/example.json").read_text())
    for key in ("sentence", "other_sentence"):
        assert domain.remarks_on_sentence(example[key]) == []
    assert "5 of 5: un, bel, giorno, al, mare;" in domain.remarks_on_sentence("un bel giorno al mare")[0]
    before = {key: value for key, value in domain.as_json().items() if key not in ("words", "length")}
    assert Domain.from_json(before).remarks_on_sentence("un bel giorno al mare") == []


@pytest.mark.takes("Values", "an MR with any shift and scale", "taken")
@given(st.floats(-500, 500), st.floats(0.1, 5))
@settings(max_examples=20, deadline=None)
def test_numbers_of_mr_have_no_unit(shift, scale):
    mr = Preprocessing((6.0, 6.0, 6.0), None, (48, 48, 40))
    cases = abdomen_phantoms(2, 0, shape=(20, 20, 20), spacing=(14.4, 14.4, 12.0))
    domain = domain_of_volumes(cases, mr, (*NAMES, *map(str, range(8))))
    volume = cases[0].image()
    changed = replace(volume, array=(volume.array * scale + shift).astype(np.float32))
    assert domain.remarks_on_volume(changed, mr.image(changed).array, mr) == []


def test_a_domain_survives_json(seen):
    again = Domain.from_json(json.loads(json.dumps(seen.as_json())))
    assert again.as_json() == seen.as_json() and np.allclose(again.quantiles, seen.quantiles, atol=1e-4)
    pictures = domain_of_pictures([Case("x", "t", image_array=np.zeros((4, 4, 3), np.uint8))])
    assert Domain.from_json(pictures.as_json()) == pictures
    with pytest.raises(ValueError, match="one range for each"):
        Domain(quantiles=((0.0, 1.0),) * (len(SHARES) - 1), stored=(0.0, 1.0))

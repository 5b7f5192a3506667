"""What holds of every configuration: resolving is idempotent, and where it runs does not matter."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.base.parsing import numbers
from textdiff.experiments.config import (
    BACKBONES,
    CONFIGS,
    DATASETS,
    MODES,
    SCRATCH_3D,
    Config,
    TextDiffSegConfig,
    config_from_record,
)
from textdiff.experiments.records import portable

LISTS = ("blocks", "steps", "scales", "symmetries", "channel_mult", "attention_resolutions")
NAMES = {
    "mode": st.sampled_from(MODES),
    "dataset": st.sampled_from(DATASETS),
    "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
    "backbone": st.sampled_from(["auto", *BACKBONES, *(f"random:{name}" for name in BACKBONES)]),
    "text_encoder": st.sampled_from(["auto", "tiny", "someone/encoder"]),
    "patch": st.sampled_from(["", "16,16,8", "96,96,96"]),
    "sample_steps": st.integers(1, 1000),
    **dict.fromkeys(("named_alone", "autoencode", "from_noise"), st.floats(0, 1)),
}
UNUSED = ("latent_channels", "named_alone", "denoise_weight", "autoencode", "from_noise", "steps")
TYPES = {
    "int": st.integers(0, 10_000),
    "float": st.floats(0, 10, allow_nan=False),
    "str": st.text(st.characters(codec="ascii", exclude_characters="/\\~"), max_size=12),
}


@st.composite
def parameters(draw) -> tuple[type[Config], dict]:
    cls = draw(st.sampled_from(list(CONFIGS.values())))
    chosen = {}
    for field in fields(cls):
        if draw(st.booleans()):
            continue
        if field.name in cls.choices:
            chosen[field.name] = draw(st.sampled_from(cls.choices[field.name]))
        elif field.name in LISTS and field.type == "str":
            chosen[field.name] = ",".join(map(str, draw(st.lists(st.integers(1, 999), max_size=4))))
        else:
            chosen[field.name] = draw(NAMES.get(field.name, TYPES[field.type]))
    return cls, chosen


@settings(max_examples=150, deadline=None)
@given(parameters())
def test_resolving_again_changes_nothing(drawn):
    cls, chosen = drawn
    config = cls.from_params(**chosen)
    again = cls.from_params(**config.to_dict())
    assert again == config and again.hash == config.hash and again.run_id == config.run_id
    # What a network of volumes does not use is 0 in its configuration, whatever was asked for
    unused = UNUSED if cls is TextDiffSegConfig and chosen.get("model") in SCRATCH_3D else ()
    for name, value in chosen.items():
        if value not in ("auto", "", 0) and name not in unused:
            assert getattr(config, name) == value


@settings(max_examples=80, deadline=None)
@given(parameters(), st.sampled_from(["auto", "cpu", "cuda"]), st.text(max_size=8))
def test_where_it_runs_and_is_written_does_not_matter(drawn, device, out_dir):
    cls, chosen = drawn
    config = cls.from_params(**chosen)
    moved = cls.from_params(**{**chosen, "device": device, "out_dir": out_dir})
    assert moved.hash == config.hash and moved.run_id == config.run_id


@settings(max_examples=80, deadline=None)
@given(parameters())
def test_records_give_the_same_run(drawn):
    cls, chosen = drawn
    config = cls.from_params(**chosen)
    again = config_from_record(json.loads(json.dumps(portable(config.to_dict()))))
    assert type(again) is cls and again.run_id == config.run_id


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-999, 999)))
def test_lists_of_numbers_survive_as_text(values):
    assert list(numbers(",".join(map(str, values)))) == values

"""What holds of every configuration: resolving is idempotent, and where it runs does not matter."""

from __future__ import annotations

import json

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from textdiff.base.parsing import numbers
from textdiff.data import registry
from textdiff.experiments.catalogue import CONFIGS, config_from_record
from textdiff.experiments.config import Config, Listed, Parameter, Within, parameters_of
from textdiff.experiments.pages import BlocksConfig
from textdiff.models.store import DRAWN

NAMES = {
    "device": st.sampled_from(["auto", "cpu"]),
    "backbone": st.sampled_from(["auto", "phantoms_32", "random:phantoms_32", "redrawn:phantoms_32"]),
    "text_encoder": st.sampled_from(["auto", "tiny", "someone/encoder"]),
    "blocks": st.sampled_from(["auto", "0,2", "1"]),
    "sources": st.sampled_from(["auto", "own", "own,shifts"]),
    "sets": st.sampled_from(["auto", "0,2@50"]),
    "head": st.sampled_from(["auto", "compact", "decoder"]),
    "structures": st.just("auto"),
    "unlabelled": st.just(0),  # others go with mirrors alone
    "channel_dropout": st.just(0.0),  # and with frozen features
    "latent_channels": st.integers(1, 64),
    # Of a network that halves its pictures: what fits together
    "image_size": st.sampled_from(["auto", 128, 256]),
    "crop": st.sampled_from([16, 32]),
    "scales": st.sampled_from(["1", "0.5,1"]),
    "model_channels": st.sampled_from([32, 64]),
    "num_res_blocks": st.integers(1, 3),
    "channel_mult": st.sampled_from(["1,2,2", "1,1,2"]),
    "attention_resolutions": st.sampled_from(["2", "2,4"]),
    **dict.fromkeys(("start_from", "model_folder", "image", "volume"), st.just("")),
}


def values(parameter: Parameter) -> st.SearchStrategy:
    """Values that the annotation of a field allows."""
    if parameter.name in NAMES:
        return NAMES[parameter.name]
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    bounds = next((one for one in parameter.checks if isinstance(one, Within)), Within())
    listed = next((one for one in parameter.checks if isinstance(one, Listed)), None)
    named = next((one.names for one in parameter.checks if hasattr(one, "names")), None)
    if named:
        return st.sampled_from([name for name in named if registry.dataset(name).synthetic])
    if listed:
        low, high = max(listed.bounds.least, 1), min(listed.bounds.most, 96)
        one = st.integers(int(low), int(high)).map(lambda n: -(-n // listed.multiple) * listed.multiple)
        count = listed.count or 3
        return st.lists(one, min_size=listed.count or 1, max_size=count, unique=listed.once).map(
            lambda n: ",".join(map(str, n))
        )
    if parameter.kind is int:
        return st.integers(int(max(bounds.least, 0)), int(min(bounds.most, 10_000)))
    if parameter.kind is float:
        low = max(bounds.least, bounds.above + 1e-6, 0)
        return st.floats(low, min(bounds.most, 10), allow_nan=False)
    return st.text(st.characters(codec="ascii", exclude_characters="/\\~"), max_size=12).filter(lambda t: t != "auto")


@st.composite
def parameters(draw) -> tuple[type[Config], dict]:
    cls = draw(st.sampled_from(list(CONFIGS.values())))
    own = [one for name, one in parameters_of(cls).items() if name not in cls.derived and name != "out_dir"]
    chosen = {one.name: draw(values(one)) for one in own if draw(st.booleans())}
    if chosen.get("model", "").startswith("tuned_"):  # trains a network of timm's on
        chosen.pop("backbone", None)
    if cls is BlocksConfig:  # measures controls without training by itself, and takes none
        assume(not chosen.get("backbone", "").startswith(DRAWN))
    return cls, chosen


@settings(max_examples=100, deadline=None)
@given(parameters())
def test_resolving_again_changes_nothing(drawn):
    cls, chosen = drawn
    config = cls.from_params(**chosen)
    again = cls.from_params(**config.to_dict())
    assert again == config and again.run_id == config.run_id
    from_scratch = getattr(config, "from_scratch", False) or not getattr(config, "reads", True)
    for name, value in chosen.items():
        if value != "auto" and not from_scratch:  # what a network does not use is not kept, whatever was asked for
            assert getattr(config, name) == value


@settings(max_examples=60, deadline=None)
@given(parameters(), st.sampled_from(["auto", "cpu"]), st.text(max_size=8))
def test_where_it_runs_and_is_written_does_not_matter(drawn, device, out_dir):
    cls, chosen = drawn
    moved = cls.from_params(**{**chosen, "device": device, "out_dir": out_dir, "workers": 3})
    assert moved.run_id == cls.from_params(**chosen).run_id


@settings(max_examples=60, deadline=None)
@given(parameters())
def test_records_give_the_same_run(drawn):
    cls, chosen = drawn
    config = cls.from_params(**chosen)
    again = config_from_record(json.loads(json.dumps(config.to_record())))
    assert type(again) is cls and again.run_id == config.run_id


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-999, 999)))
def test_lists_of_numbers_survive_as_text(values):
    assert list(numbers(",".join(map(str, values)))) == values

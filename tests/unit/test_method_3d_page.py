"""The numbers on the pages book/method_3d.ipynb and book/data.md (volumes) are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import torch

from textdiff.data import registry
from textdiff.data.registry import DATASETS
from textdiff.data.volumes.prompts import prompt
from textdiff.experiments.volumes import SIZES, TextDiffSegConfig
from textdiff.models.diffusion import Sampling
from textdiff.models.textdiffseg import TextDiffSeg

BOOK = Path(__file__).parents[2] / "book"
CELLS = nbformat.read(BOOK / "method_3d.ipynb", as_version=4).cells
PAGE = "\n\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")


def rows(first_cell: str, page: str = PAGE) -> list[list[str]]:
    """The cells of the table whose header begins with ``first_cell``."""
    lines = page[page.index(f"\n| {first_cell} |") + 1 :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def model() -> TextDiffSeg:
    from textdiff.data.volumes.layouts import VolumeDataset
    from textdiff.experiments.volumes import build_model

    data = VolumeDataset(DATASETS["hippocampus"], [], [], [])
    return build_model(TextDiffSegConfig.from_params(dataset="hippocampus", device="cpu"), data)


def test_defaults_are_those_of_the_configuration():
    config = TextDiffSegConfig.resolved(dataset="hippocampus", mode="full")
    for name, value, _ in rows("parameter"):
        assert value == str(getattr(config, name.strip("`"))), name


def test_parameters_are_those_of_the_model(model):
    modules = {
        "image encoder": model.image_encoder,
        "cross-modal attention": model.fuse,
        "label encoder": model.label_encoder,
        "denoiser": model.denoiser,
        "decoder": model.decoder,
        "together": model,
    }
    found = {name: sum(p.numel() for p in one.parameters() if p.requires_grad) for name, one in modules.items()}
    assert {name: int(number.replace(",", "")) for name, number in rows("module")} == found


def test_shapes_are_those_of_the_model(model):
    shapes = [[tuple(map(int, re.findall(r"\d+", cell))) for cell in line[1:]] for line in rows("what")]
    patches = DATASETS["hippocampus"].patch, DATASETS["liver_tumour"].patch
    widths = SIZES["small"]["widths"]
    for column, patch in enumerate(patches):
        assert shapes[0][column] == (4, *patch)
        for level, width in enumerate(widths):
            assert shapes[1 + level][column] == (width, *(side // 2**level for side in patch))
        assert shapes[6][column] == (model.latent_channels, *(side // 4 for side in patch))
        assert shapes[7][column] == (SIZES["small"]["denoiser_widths"][1], *(side // 8 for side in patch))
    with torch.no_grad():
        x = torch.zeros(1, *shapes[0][0])
        assert [tuple(one.shape[1:]) for one in model.image_encoder(x)] == [shapes[k][0] for k in (1, 2, 3)]
        found = model.segment(x, ["anterior hippocampus"], Sampling(1))
    assert tuple(found.shape[1:]) == shapes[8][0]
    assert shapes[4][0] == (model.text.dim,)
    label_input = (2 * (len(model.class_names) - 1), *patches[0])
    assert shapes[5][0] == label_input


def test_what_is_said_of_noise_and_steps_is_true(model):
    share = float(model.diffusion.alphas_cumprod[-1].sqrt())
    assert f"{share:.1%}".replace("%", " %") in PAGE
    steps = ", ".join(str(step) for step in model.diffusion.visited(5))
    assert f"$t = {steps}$" in PAGE


def test_example_sentences_are_those_that_are_made(model):
    examples = {kind.strip("`"): sentence for kind, _, sentence, _ in rows("kind")}
    assert examples["class"] == prompt("class", model.class_names[1:])
    assert examples["anatomy"] == prompt("anatomy", model.class_names[1:2])


def test_table_of_volumes_is_that_of_the_tasks():
    page = (BOOK / "data.md").read_text(encoding="utf-8")
    said = {}
    for names, *cells in rows("name", page[page.index("(volumes)=") :]):
        said |= dict.fromkeys(re.findall(r"`(\w+)`", names), cells)
    assert set(said) == set(registry.names("volumes"))
    for name, (_, structures, window, grid) in said.items():
        task = DATASETS[name]
        assert window == (
            "none" if task.window is None else f"{task.window[0]:.0f} to {task.window[1]:.0f}".replace("-", "−")
        )
        count = re.match(r"(\d+) abdominal organs", structures)
        if count:
            assert int(count[1]) == len(task.structures), name
        elif name != "abdomen_phantoms":
            assert structures == ", ".join(task.structures), name
        assert grid.startswith("own voxels" if task.spacing is None else f"{task.spacing[0]:g} mm"), name
        patch = "96³" if task.patch == (96, 96, 96) else " × ".join(map(str, task.patch))
        assert grid.endswith(f", {patch}"), name

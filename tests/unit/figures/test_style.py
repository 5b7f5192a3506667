"""What holds for every figure: it carries words, leaves nothing behind in pyplot, and says so where nothing was run."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.unit.figures.little import (
    ATTENTION,
    DIFFERENCES,
    EMPTY,
    FULL,
    HEAT,
    IMAGE,
    LOSSES,
    MARKED,
    PRETRAINED,
    RUNS,
    SAMPLED,
    SHIFTED,
    SHOWN,
    TRUTH,
    UNSURE,
    VOLUME,
    WORDS,
)
from textdiff.data.cases import Case
from textdiff.evaluation.calibration import Reliability
from textdiff.experiments.pages import DataConfig
from textdiff.experiments.records import Run
from textdiff.figures import curves, images, volumes
from textdiff.figures import style as look

CASES = [Case(name, "Evenly distributed nuclei.", image_array=IMAGE, mask_array=TRUTH) for name in "ab"]
MAPS = {block: {step: torch.rand(5, side, side) for step in (50, 150)} for block, side in ((6, 4), (8, 8))}
READ = [(IMAGE, truth, "Upper left.", WORDS, ATTENTION) for truth in (TRUTH, None)]
RELIABLE = Reliability()
RELIABLE.add(np.tile([[0.1], [0.9]], 10), np.arange(10) % 2)
FIGURES = {
    "cases": lambda: images.show_cases(CASES),
    "samples": lambda: images.samples_grid([torch.zeros(3, 8, 8)] * 3, ["a", "b", "c"]),
    "compare": lambda: images.compare_masks(IMAGE, TRUTH, {"ours": SHIFTED, "nothing": TRUTH * 0}),
    "qualitative": lambda: images.qualitative_grid(SHOWN),
    "features": lambda: images.block_step_grid(MAPS, IMAGE),
    "words": lambda: images.words_over_images(READ, shown=3),
    "loss": lambda: curves.loss_curve([{"epoch": 0, "loss": 1.0, "dice": 0.5}, {"epoch": 1, "loss": 0.5, "dice": 0.6}]),
    "heat": lambda: curves.dice_heatmap(HEAT),
    "signed heat": lambda: curves.dice_heatmap(HEAT - 0.6, spread=HEAT / 10, signed=True),
    "reading": lambda: curves.reading_dots(LOSSES),
    "labels": lambda: curves.label_efficiency_curve(RUNS),
    "pretraining": lambda: curves.pretraining_curve(PRETRAINED, {"untrained": 0.25}),
    "steps": lambda: curves.steps_curve(SAMPLED),
    "reliability": lambda: curves.reliability_curve({"a": RELIABLE.table(), "no voxels": Reliability().table()}),
    "switches": lambda: curves.worth_of_switches({"256 px": DIFFERENCES, "native": DIFFERENCES}, "base"),
    "slices": lambda: volumes.slices(VOLUME, MARKED, MARKED, class_names=("background", "liver", "tumour"), title="a case"),
    "models": lambda: volumes.slices(VOLUME, {"ours": MARKED, "theirs": EMPTY}, MARKED),
    "nothing marked": lambda: volumes.slices(VOLUME, EMPTY),
    "everything marked": lambda: volumes.slices(VOLUME, FULL, margin=3),
    "uncertainty": lambda: volumes.uncertainty_slices(VOLUME, MARKED, FULL, UNSURE, margin=2),
    "uncertainty alone": lambda: volumes.uncertainty_slices(VOLUME, MARKED, None, UNSURE),
    "surfaces": lambda: volumes.surfaces(MARKED, MARKED),
    "no surface": lambda: volumes.surfaces(EMPTY),
}  # fmt: skip
NOT_RUN = {
    "heat": lambda: curves.dice_heatmap(HEAT * np.nan),
    "reading": lambda: curves.reading_dots(LOSSES.assign(cases=0)),
    "labels": lambda: curves.label_efficiency_curve(RUNS.iloc[:0]),
    "pretraining": lambda: curves.pretraining_curve(PRETRAINED.iloc[:0], {}),
    "steps": lambda: curves.steps_curve(SAMPLED.iloc[:0]),
    "reliability": lambda: curves.reliability_curve({}),
    "switches": lambda: curves.worth_of_switches({"256 px": DIFFERENCES.assign(cases=0)}, "base"),
}


def drawn(draw, folder):
    """A figure that has words and is drawn without pyplot's keeping."""
    plt.close("all")
    fig = draw()
    words = look.description(fig)
    assert len(words["alt"]) > 20 and words["caption"] and plt.get_fignums() == []
    fig.savefig(folder / "figure.png", dpi=80)
    assert (folder / "figure.png").stat().st_size > 1000
    return fig


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_figure_is_described_and_let_go_of(draw, tmp_path):
    drawn(draw, tmp_path)


@pytest.mark.parametrize("draw", NOT_RUN.values(), ids=NOT_RUN)
def test_figures_of_nothing_say_so(draw, tmp_path):
    fig = drawn(draw, tmp_path)
    assert "Nothing has been run yet" in look.description(fig)["alt"]
    assert "not run yet" in [text.get_text().strip() for text in fig.axes[0].texts]


def test_a_notebook_shows_the_picture_with_its_words():
    fig = look.described(plt.Figure(), " A dot. ", "One dot.")
    picture, words = fig._repr_mimebundle_()
    assert picture["image/png"].startswith(b"\x89PNG") and words["image/png"] == look.description(fig)
    assert look.description(fig) == {"alt": "A dot.", "caption": "One dot."}
    assert look.description(plt.Figure()) == {"alt": "", "caption": ""}
    with pytest.raises(ValueError, match="alt text is empty"):
        look.described(plt.Figure(), " ")


def test_import_and_drawing_leave_the_style_alone_until_asked():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        FIGURES["compare"]()
        assert dict(matplotlib.rcParams) == before
        look.style()
        assert dict(matplotlib.rcParams) != before


def test_found_wrong_and_missed_differ_in_lightness_and_series_in_more_than_colour():
    grey = (
        Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
        for colour in (look.HIT, look.FALSE_ALARM, look.MISS)
    )
    hit, alarm, miss = grey
    assert hit + 20 < alarm < miss - 80
    first = [one for one, _ in zip(look.looks(), look.SERIES, strict=False)]
    assert len({one["color"] for one in first}) == len(look.SERIES)
    assert len({(one["marker"], one["ls"]) for one in first[:4]}) == 4


@pytest.mark.parametrize(
    ("label", "colour"),
    [
        ("TextDiff", look.OURS),
        ("TextDiffSeg, 5000 steps", look.OURS),
        ("TextDiff, redrawn weights", look.TAKEN_AWAY),
        ("TextDiff, ImageNet network (EfficientNet-Lite2)", look.TAKEN_AWAY),
        ("without text fusion", look.TAKEN_AWAY),
        ("U-Net that reads, and the same films", look.READER),
        ("DynUNet (nnU-Net), 1200 steps", look.TEXT_FREE),
        ("UNETR", look.TEXT_FREE),
    ],
)
def test_a_method_has_its_colour_by_the_name_of_its_row(label, colour):
    assert look.colour_of(label) == colour


SAID = "$5_^ or 9$"  # matplotlib takes what is between two dollar signs for a formula, and this is none
GIVEN = {
    "cases": lambda: images.show_cases([Case(SAID, SAID, image_array=IMAGE, mask_array=TRUTH)]),
    "samples": lambda: images.samples_grid([torch.zeros(3, 8, 8)], [SAID]),
    "compare": lambda: images.compare_masks(IMAGE, TRUTH, {SAID: SHIFTED}),
    "qualitative": lambda: images.qualitative_grid([(SAID, IMAGE, TRUTH, {SAID: SHIFTED})]),
    "words": lambda: images.words_over_images([(IMAGE, TRUTH, SAID, [SAID, *WORDS[1:]], ATTENTION)]),
    "slices": lambda: volumes.slices(VOLUME, {SAID: MARKED}, class_names=("", SAID, "tumour"), title=SAID),
    "uncertainty": lambda: volumes.uncertainty_slices(
        VOLUME, MARKED, FULL, UNSURE, class_names=("", SAID, "b"), title=SAID
    ),
    "surfaces": lambda: volumes.surfaces(MARKED, class_names=("", SAID, "tumour"), title=SAID),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_record_keeps_figures_of_sentences_with_dollar_signs(name, tmp_path):
    run = Run.open(DataConfig.from_params(), tmp_path)
    run.save({}, pd.DataFrame(), {"given": GIVEN[name]()})
    assert run.figure("given").stat().st_size > 1000


def test_powers_of_ten_stay_formulas():
    fig = curves.label_efficiency_curve(RUNS)
    fig.axes[0].set_xscale("log")
    fig.canvas.draw()
    labels = [label for label in fig.axes[0].get_xticklabels() if "$" in label.get_text()]
    assert labels and all(label.get_parse_math() for label in labels)

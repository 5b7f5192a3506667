"""Figures of volumes: what they say, which way round they are, and that they leave nothing behind in pyplot."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from textdiff.data.volumes.volume import Volume, turned
from textdiff.evaluation.calibration import Reliability
from textdiff.figures import images as plots
from textdiff.figures import volumes as plots3d

NAMES = ("background", "liver", "tumour")
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def labels(shift=0):
    array = np.zeros((12, 10, 8), np.uint8)
    array[8:11, 2:6, 1:5] = 1  # on the patient's right
    array[9, 3 + shift, 2:4] = 2
    return Volume(array, AFFINE, "case")


def image():
    return Volume(np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32), AFFINE, "case")


def table(confidence, right):
    kept = Reliability()
    kept.add(np.tile([[1 - confidence], [confidence]], 10), (np.arange(10) < right).astype(int))
    return kept.table()


RUNS = pd.DataFrame({"steps": [1, 5, 1, 5], "dice": [0.5, 0.8, 0.6, 0.9], "seconds": [1, 5, 1, 6]})
UNSURE = replace(image(), array=np.full((12, 10, 8), 0.25, np.float32))
FIGURES = {
    "slices": lambda: plots3d.slices(image(), labels(1), labels(), class_names=NAMES, title="a case"),
    "bare": lambda: plots3d.slices(image(), labels()),
    "models": lambda: plots3d.slices(image(), {"ours": labels(1), "theirs": labels()}, labels(), class_names=NAMES),
    "nothing": lambda: plots3d.slices(image(), replace(labels(), array=labels().array * 0)),
    "everything": lambda: plots3d.slices(image(), replace(labels(), array=labels().array * 0 + 1), margin=3),
    "uncertainty": lambda: plots3d.uncertainty_slices(image(), labels(1), labels(), UNSURE, margin=2),
    "uncertainty alone": lambda: plots3d.uncertainty_slices(image(), labels(), None, UNSURE),
    "surfaces": lambda: plots3d.surfaces(labels(1), labels(), class_names=NAMES),
    "no surface": lambda: plots3d.surfaces(replace(labels(), array=labels().array * 0)),
    "reliability": lambda: plots3d.reliability_curve({"a": table(0.9, 5), "b": table(0.6, 6)}),
    "no voxels": lambda: plots3d.reliability_curve(Reliability().table()),
    "steps": lambda: plots3d.steps_curve(RUNS),
    "no steps": lambda: plots3d.steps_curve(RUNS[:0]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_described_and_let_go_of(name, tmp_path):
    plt.close("all")
    fig = FIGURES[name]()
    words = plots.description(fig)
    assert len(words["alt"]) > 20 and words["caption"]
    assert plt.get_fignums() == []
    fig.savefig(tmp_path / "figure.png", dpi=50)
    assert (tmp_path / "figure.png").stat().st_size > 1000


def said(name):
    return plots.description(FIGURES[name]())["alt"]


def test_the_alt_texts_tell_the_findings():
    assert "liver 0.276 ml (truth 0.276 ml, Dice 0.96), tumour 0.012 ml (truth 0.012 ml, Dice 0.00)" in said("slices")
    assert "label 1 0.276 ml, label 2 0.012 ml" in said("bare")
    assert "ours: liver" in said("models") and "theirs: liver" in said("models")
    assert "nothing is marked" in said("nothing") and "nothing is marked" in said("no surface")
    assert "mean uncertainty 0.25 where it is wrong, 0.25 elsewhere" in said("uncertainty")
    assert "a: ECE 0.400; b: ECE 0.000" in said("reliability")
    assert "dice: 55.0 at 1, 85.0 at 5; seconds: 1.0 at 1, 5.5 at 5" in said("steps")
    assert "Nothing has been run yet" in said("no steps")


def test_the_patients_right_front_and_head_are_where_the_letters_say():
    array = np.zeros((6, 6, 6), np.float32)
    array[5, 0, 0], array[0, 5, 0], array[0, 0, 5] = 1, 2, 3  # far right, far front, far up
    picture = Volume(array, np.eye(4))
    everywhere = Volume(np.ones((6, 6, 6), np.uint8), np.eye(4))
    scene = replace(plots3d._Scene.of(picture, {"": everywhere}, None, None), at=(0, 0, 0))
    sagittal, coronal, axial = (scene._picture(plane, array) for plane in plots3d.PLANES)
    assert (sagittal[0, 0], sagittal[5, 5]) == (2, 3)  # front on the left, head up (rows grow upwards)
    assert (coronal[0, 0], coronal[5, 5]) == (1, 3)  # the patient's right on the left
    assert (axial[0, 0], axial[5, 5]) == (1, 2)  # front up
    assert [plane.letters for plane in plots3d.PLANES] == ["APIS", "RLIS", "RLPA"]


@pytest.mark.parametrize("axes", ["LPS", "SAR"])
def test_the_order_of_the_axes_in_the_file_does_not_matter(axes):
    pictures = []
    for order in ("RAS", axes):
        fig = plots3d.slices(turned(image(), order), turned(labels(), order), turned(labels(1), order))
        pictures.append([axis.images[0].get_array() for axis in fig.axes])
    for one, other in zip(*pictures, strict=True):
        assert np.array_equal(one, other)


def test_planes_are_drawn_in_millimetres_and_cut_where_structures_are_widest():
    fig = plots3d.slices(image(), labels())
    assert [axis.images[0].get_extent() for axis in fig.axes] == [[0, 20, 0, 24], [0, 12, 0, 24], [0, 12, 0, 20]]
    assert plots3d._widest(labels().array) == (9, 3, 2)
    closer = plots3d.slices(image(), labels(), margin=2)
    assert closer.axes[2].images[0].get_extent() == [0, 6, 0, 12]  # 3 x 4 voxels and 2 mm around, cut at the edge


def test_surfaces_lie_where_the_voxels_are_in_millimetres():
    place = AFFINE.copy()
    place[:3, 3] = 100, -50, 7
    (mesh,) = plots3d._meshes(Volume((labels().array > 0).astype(np.uint8), place)).values()
    low, high = mesh.min(axis=(0, 1)), mesh.max(axis=(0, 1))
    # Voxel centres from (8, 2, 1) to (10, 5, 4); the surface lies half a voxel or less outside
    assert (low > [107.4, -47.1, 8.4]).all() and (low <= [108, -46, 10]).all()
    assert (high >= [110, -40, 19]).all() and (high < [110.6, -38.9, 20.6]).all()


def test_single_voxels_have_a_surface():
    array = np.zeros((6, 6, 6), np.uint8)
    array[3, 3, 3] = 1
    assert plots3d._meshes(Volume(array, np.eye(4)))[1].size


def test_maps_that_do_not_lie_on_the_image_are_refused():
    with pytest.raises(ValueError, match="ours.*mm apart"):
        plots3d.slices(image(), {"ours": replace(labels(), affine=np.diag([1.0, 2.0, 4.0, 1.0]))})
    with pytest.raises(ValueError, match="truth.*shape"):
        plots3d.slices(image(), labels(), replace(labels(), array=labels().array[1:]))
    with pytest.raises(ValueError, match="nothing to draw"):
        plots3d.slices(image(), {})

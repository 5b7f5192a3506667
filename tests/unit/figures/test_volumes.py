"""Figures of volumes: what they say, which way round they are, and where things lie in millimetres."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.figures.little import AFFINE, EMPTY, LABELS, MARKED, UNSURE, VOLUME
from textdiff.data.volumes.volume import Volume, turned, widest_planes
from textdiff.figures import volumes as plots
from textdiff.figures.style import description

NAMES = ("background", "liver", "tumour")
MOVED = LABELS * (LABELS < 2) + (LABELS == 2)
MOVED[9, 4, 2:4] = 2
OTHER = Volume(MOVED, AFFINE, "case")


def alt(fig):
    return description(fig)["alt"]


def test_the_alt_texts_tell_the_findings():
    said = alt(plots.slices(VOLUME, OTHER, MARKED, class_names=NAMES))
    assert "liver 0.276 ml (truth 0.276 ml, Dice 0.96), tumour 0.012 ml (truth 0.012 ml, Dice 0.00)" in said
    assert "label 1 0.276 ml, label 2 0.012 ml" in alt(plots.slices(VOLUME, MARKED))
    said = alt(plots.slices(VOLUME, {"ours": OTHER, "theirs": MARKED}, class_names=NAMES))
    assert "ours: liver" in said and "theirs: liver" in said
    assert "nothing is marked" in alt(plots.slices(VOLUME, EMPTY))
    assert "nothing is marked" in alt(plots.surfaces(EMPTY))
    said = alt(plots.uncertainty_slices(VOLUME, OTHER, MARKED, UNSURE))
    assert "mean uncertainty 0.25 where it is wrong, 0.25 elsewhere" in said


def test_the_patients_right_front_and_head_are_where_the_letters_say():
    array = np.zeros((6, 6, 6), np.float32)
    array[5, 0, 0], array[0, 5, 0], array[0, 0, 5] = 1, 2, 3  # far right, far front, far up
    everywhere = Volume(np.ones((6, 6, 6), np.uint8), np.eye(4))  # equally wide everywhere: the first planes are shown
    fig = plots.slices(Volume(array, np.eye(4)), everywhere)
    sagittal, coronal, axial = (axis.images[0].get_array() for axis in fig.axes)
    assert (sagittal[0, 0], sagittal[5, 5]) == (2, 3)  # front on the left, head up (rows grow upwards)
    assert (coronal[0, 0], coronal[5, 5]) == (1, 3)  # the patient's right on the left
    assert (axial[0, 0], axial[5, 5]) == (1, 2)  # front up
    letters = ["".join(text.get_text() for text in axis.texts) for axis in fig.axes]
    assert letters == ["APIS", "RLIS", "RLPA"]


@pytest.mark.parametrize("axes", ["LPS", "SAR"])
def test_the_order_of_the_axes_in_the_file_does_not_matter(axes):
    volumes = VOLUME, MARKED, OTHER
    one, other = (plots.slices(*(turned(volume, order) for volume in volumes)) for order in ("RAS", axes))
    for axis, same in zip(one.axes, other.axes, strict=True):
        assert np.array_equal(axis.images[0].get_array(), same.images[0].get_array())


def test_planes_are_drawn_in_millimetres_and_cut_where_structures_are_widest():
    fig = plots.slices(VOLUME, MARKED)
    assert [axis.images[0].get_extent() for axis in fig.axes] == [[0, 20, 0, 24], [0, 12, 0, 24], [0, 12, 0, 20]]
    assert widest_planes(LABELS) == (9, 3, 2)
    closer = plots.slices(VOLUME, MARKED, margin=2)
    assert closer.axes[2].images[0].get_extent() == [0, 6, 0, 12]  # 3 x 4 voxels and 2 mm around, cut at the edge


def test_outlines_go_around_the_voxels():
    array = np.zeros((12, 10, 8), np.uint8)
    array[8:12, 2:6, 1:5] = 1  # touches the edge: closed there
    axial = plots.slices(VOLUME, replace(MARKED, array=array)).axes[2]
    corners = np.concatenate([path.vertices for path in axial.collections[0].get_paths()])
    # From the patient's right: voxels 8 to 11 of 12 are the first four columns; rows 2 to 5 of 2 mm
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert low == pytest.approx([0, 4], abs=0.5) and high == pytest.approx([4, 12], abs=1)


def test_surfaces_lie_where_the_voxels_are_in_millimetres():
    place = AFFINE.copy()
    place[:3, 3] = 100, -50, 7
    (mesh,) = plots.meshes(Volume((LABELS > 0).astype(np.uint8), place)).values()
    low, high = mesh.min(axis=(0, 1)), mesh.max(axis=(0, 1))
    single = np.zeros((6, 6, 6), np.uint8)
    single[3, 3, 3] = 1
    assert plots.meshes(Volume(single, np.eye(4)))[1].size, "a single voxel has a surface"
    # Voxel centres from (8, 2, 1) to (10, 5, 4); the surface lies half a voxel or less outside
    assert (low > [107.4, -47.1, 8.4]).all() and (low <= [108, -46, 10]).all()
    assert (high >= [110, -40, 19]).all() and (high < [110.6, -38.9, 20.6]).all()


@pytest.mark.parametrize(
    ("maps", "truth", "message"),
    [
        ({"ours": replace(MARKED, affine=np.diag([1.0, 2.0, 4.0, 1.0]))}, None, "ours.*mm apart"),
        (MARKED, replace(MARKED, array=LABELS[1:]), "truth.*shape"),
        ({}, None, "nothing to draw"),
    ],
)
def test_maps_that_do_not_lie_on_the_image_are_refused(maps, truth, message):
    with pytest.raises(ValueError, match=message):
        plots.slices(VOLUME, maps, truth)

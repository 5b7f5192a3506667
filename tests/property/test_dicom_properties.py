"""A DICOM series of any orientation, spacing and rescaling, its files in any order, is read where and as it was written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import save_frames, save_series
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from textdiff.data.volumes.dicom import read_dicom

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
spacings = st.tuples(*[st.floats(0.3, 12.0)] * 3)


def geometry(seed: int, oblique: bool, spacing, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orientation [2, 3], positions [count, 3] and affine [4, 4] in DICOM's axes, drawn from a seed."""
    draw = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix() if oblique else np.eye(3)[draw.permutation(3)]
    row, column = turn[:2] * draw.choice([-1, 1], (2, 1))
    normal = np.cross(row, column)
    origin = draw.uniform(-1000, 1000, 3)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, normal], axis=1) * spacing
    affine[:3, 3] = origin
    return np.stack([row, column]), origin + np.arange(count)[:, None] * spacing[2] * normal, affine


def apart(first: np.ndarray, second: np.ndarray, shape) -> float:
    """How far the corners of a grid move between two affines, mm."""
    corners = np.array([[*np.unravel_index(k, (2, 2, 2)), 1] for k in range(8)]).T * [
        [shape[0]],
        [shape[1]],
        [shape[2]],
        [1],
    ]
    return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())


@pytest.mark.takes("DICOM", "any orientation and spacing, files in any order", "taken")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    oblique=st.booleans(),
    spacing=spacings,
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    slope=st.sampled_from(("1", "0.5", "2.25", "-1", "0.0123")),
    intercept=st.sampled_from(("0", "-1024", "3.5")),
)
def test_slices_of_any_geometry(seed, oblique, spacing, shape, slope, intercept):
    sitk = pytest.importorskip("SimpleITK")
    orientation, positions, affine = geometry(seed, oblique, spacing, shape[2])
    stored = np.random.default_rng(seed).integers(-2000, 3000, shape).astype(np.int16)
    order = np.random.default_rng(seed).permutation(shape[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        save_series(folder, stored, positions, orientation, spacing[:2], order=order, **rescale)
        volume = read_dicom(folder)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(name))
        reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
    assert np.allclose(volume.array, stored * float(slope) + float(intercept), rtol=1e-6, atol=1e-3)
    assert apart(volume.affine, LPS_TO_RAS @ affine, shape) < 1e-4
    assert np.allclose(volume.array, sitk.GetArrayFromImage(image).T, rtol=1e-6, atol=1e-3)
    theirs = np.eye(4)
    theirs[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    assert apart(volume.affine, LPS_TO_RAS @ theirs, shape) < 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), oblique=st.booleans(), spacing=spacings, shape=st.tuples(*[st.integers(2, 7)] * 3))
def test_frames_of_any_geometry(seed, oblique, spacing, shape):
    orientation, positions, affine = geometry(seed, oblique, spacing, shape[2])
    stored = np.random.default_rng(seed).integers(-2000, 3000, shape).astype(np.int16)
    order = np.random.default_rng(seed).permutation(shape[2])
    rescale = [(k + 0.5, -k) for k in order]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "frames.dcm")
        save_frames(path, stored[:, :, order], positions[order], orientation, spacing[:2], rescale)
        volume = read_dicom(path)
    steps = np.arange(shape[2])
    assert np.allclose(volume.array, stored * (steps + 0.5) - steps, rtol=1e-6)
    assert apart(volume.affine, LPS_TO_RAS @ affine, shape) < 1e-4

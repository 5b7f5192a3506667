"""Volumes in, aligned label maps out: with stand-ins for a model whose answers are known."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.domain import domain_of_volumes
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.patches import Preprocessing, place_channels
from textdiff.data.volumes.requests import read_request
from textdiff.data.volumes.volume import Volume, read_labels, write_image, write_labels
from textdiff.models import inference
from textdiff.models.diffusion import Sampling
from textdiff.models.inference import _layers, _starts, predict_volume, segment_volume, window_seed
from textdiff.models.text import TextEncoder

NAMES = ("background", "left kidney", "right kidney")


class Sides:
    """Bright voxels are kidney, left or right by the place channel: a wrong side would show."""

    class_names = NAMES
    device = torch.device("cpu")

    def __init__(self, patch=(16, 16, 16), spacing=None, window=(0.0, 100.0)):
        self.preprocessing = Preprocessing(spacing, window, patch)
        self.calls = []

    def segment(self, images, prompts, sampling=None):
        self.calls.append({"shape": tuple(images.shape), "prompts": prompts, "sampling": sampling})
        bright, right = images[:, 0] > 0, images[:, 1] > 0
        return torch.stack([~bright, bright & ~right, bright & right], dim=1) * 0.7 + 0.1


class Placed(Sides):
    """Its probabilities are the place channels."""

    class_names = ("background", "left kidney", "right kidney", "liver")

    def segment(self, images, prompts, sampling):
        return torch.cat([torch.zeros_like(images[:, :1]), images[:, 1:]], dim=1)


class Noise(Sides):
    """Every window and sample another answer."""

    def draws(self, images, prompts, sampling):
        self.calls.append({"prompts": prompts, "sampling": sampling})
        for sample in range(sampling.samples):
            noise = torch.Generator().manual_seed(sampling.seed * 100 + sample)
            yield torch.randn(1, 3, *images.shape[2:], generator=noise).softmax(dim=1)


def blobs(shape=(20, 18, 24), affine=None, seed=0) -> Volume:
    """Bright blocks of unlike size and place in the dark."""
    draw = np.random.default_rng(seed)
    array = np.zeros(shape, np.float32)
    for _ in range(4):
        low = [draw.integers(0, size - 4) for size in shape]
        array[tuple(slice(a, a + draw.integers(2, 5)) for a in low)] = 100
    return Volume(array, np.eye(4) if affine is None else affine, "blobs")


def expected(volume: Volume) -> np.ndarray:
    """What `Sides` must find, by nibabel's own turning to RAS and back."""
    ornt = nib.io_orientation(volume.affine)
    turned = nib.apply_orientation(volume.array, ornt)
    right = place_channels(turned.shape)[0].numpy() > 0
    labels = np.where(turned > 50, 1 + right, 0).astype(np.uint8)
    back = np.empty_like(ornt)  # the orientation whose application undoes `ornt`
    for source, (target, flip) in enumerate(ornt):
        back[int(target)] = source, flip
    return nib.apply_orientation(labels, back)


def turned_affine(order, flips, angle, spacing, shift) -> np.ndarray:
    """Axes exchanged and flipped, voxels of unlike sides, the whole rotated by some degrees about two axes."""
    axes = np.eye(3)[:, list(order)] * np.array(flips) * np.array(spacing)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ axes, shift
    return affine


affines = st.builds(
    turned_affine,
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    angle=st.sampled_from((0, 0, 7, -20)),
    spacing=st.tuples(*[st.sampled_from((0.7, 1.0, 2.5))] * 3),
    shift=st.tuples(*[st.floats(-200, 200)] * 3),
)


def quiet(model, volume, text="the left kidney and the right kidney", **options):
    """``options`` are those of :func:`predict_volume` and settings of the sampling."""
    sampling = {one.name: options.pop(one.name) for one in fields(Sampling) if one.name in options}
    options = {"only_named": False, "ask_again": False} | options
    return predict_volume(model, volume, text, Sampling(**sampling), progress=False, **options)


def test_what_is_asked_for_and_that_nothing_can_be_compared_is_said(caplog):
    with caplog.at_level("INFO"):
        quiet(Sides(), blobs(affine=np.eye(4), seed=0), "the left kidney, not the right one")
    assert "asked for: left kidney; ruled out: right kidney" in caplog.text
    assert "the model does not say what its training was like" in caplog.text


# --- where the labels lie -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(affine=affines, seed=st.integers(0, 99))
def test_labels_lie_on_the_voxels_of_the_image_in_every_orientation(affine, seed):
    volume = blobs(affine=affine, seed=seed)
    found = quiet(Sides(), volume, overlap=0.25)
    assert np.array_equal(found.labels.array, expected(volume))
    assert np.array_equal(found.labels.affine, volume.affine)


@settings(max_examples=15, deadline=None)
@given(affine=affines)
def test_resampled_labels_lie_where_the_image_lies(affine):
    shape = (30, 26, 34)
    array = np.zeros(shape, np.float32)
    array[4:12, 5:20, 6:28] = array[18:27, 5:20, 6:28] = 100
    volume = Volume(array, affine)
    found = quiet(Sides(spacing=(1.3, 1.3, 1.3)), volume, overlap=0.25)
    truth = expected(volume)
    assert found.labels.shape == shape and np.array_equal(found.labels.affine, affine)
    overlap = ((found.labels.array == truth) & (truth > 0)).sum() / (truth > 0).sum()
    assert overlap > 0.6  # on each side up to 0.65 mm are lost, of blocks 5.6 mm thick and more
    inner = np.zeros(shape, bool)
    inner[8, 9:16, 12:22] = inner[22, 9:16, 12:22] = True
    assert np.array_equal(found.labels.array[inner], truth[inner])


def test_labels_keep_what_the_header_of_the_image_said_of_its_grid(tmp_path):
    write_image(tmp_path / "a.nii", blobs())
    image = nib.load(tmp_path / "a.nii")
    image.set_sform(image.affine, code=4)
    image.set_qform(image.affine, code=3)
    image.header.set_xyzt_units("unknown")
    nib.save(image, tmp_path / "b.nii")
    write_labels(tmp_path / "labels.nii", quiet(Sides(), tmp_path / "b.nii").labels)
    header = nib.load(tmp_path / "labels.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 3)
    assert header.get_xyzt_units()[0] == "unknown" and header.get_data_dtype() == np.uint8


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR"])
def test_file_to_file_keeps_place_and_orientation(tmp_path, axes):
    right, front, up = np.diag((0.8, 0.9, 3.0))
    steps = {"R": right, "A": front, "S": up, "L": -right, "P": -front, "I": -up}
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([steps[axis] for axis in axes])
    volume = blobs(affine=affine)
    assert volume.axes == axes
    write_image(tmp_path / "image.nii.gz", volume)
    found = quiet(Sides(), tmp_path / "image.nii.gz")
    write_labels(tmp_path / "labels.nii.gz", found.labels)
    image, labels = nib.load(tmp_path / "image.nii.gz"), nib.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(image.affine, labels.affine) and image.shape == labels.shape
    assert np.array_equal(read_labels(tmp_path / "labels.nii.gz").array, expected(volume))


@pytest.mark.parametrize("shape", [(20, 18, 24), (9, 20, 11), (5, 6, 7), (16, 16, 40)])
def test_windows_see_the_places_of_the_whole_volume(shape):
    found = quiet(Placed(), blobs(shape), "liver", probabilities=True)
    assert np.allclose(found.probabilities[1:], place_channels(shape), atol=1e-5)


def test_a_small_volume_stands_in_the_middle_of_its_own_minimum(caplog):
    volume = blobs((9, 20, 11))
    volume.array[...] += 30
    model, seen = Sides(), []
    model.segment = lambda images, prompts, sampling: seen.append(images) or Sides.segment(model, images, prompts)
    with caplog.at_level("INFO", "textdiff"):
        found = quiet(model, volume)
    assert "blobs is 9 x 20 x 11 voxels, smaller than the model's window of 16 x 16 x 16" in caplog.text
    assert found.labels.shape == (9, 20, 11)
    expected = torch.full((16, 16, 16), -0.4)
    expected[3:12, :, 2:13] = torch.from_numpy(np.clip(volume.array[:, :16], 0, 100) / 50 - 1)
    assert torch.allclose(seen[0][0, 0], expected, atol=1e-6)


def test_probabilities_of_a_coarser_grid_are_read_off_at_the_voxels_own_places():
    spacing, shape = (0.5, 1.0, 3.0), (40, 30, 20)
    volume = blobs(shape, np.diag([*spacing, 1]))
    found = quiet(Placed((8, 8, 8), spacing=(2, 2, 2)), volume, "liver", probabilities=True)
    for axis, (size, step, grid) in enumerate(zip(shape, spacing, (10, 15, 30), strict=True)):
        away = (np.arange(size) - (size - 1) / 2) * step  # mm from the middle
        place = np.clip(away / (grid * 2 / 2), -1 + 1 / grid, 1 - 1 / grid)
        line = np.moveaxis(found.probabilities[axis + 1], axis, 0)[:, 3, 3]
        assert np.allclose(line, place, atol=1e-5)


# --- windows --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(size=st.integers(8, 90), window=st.integers(1, 8), overlap=st.floats(0, 0.95))
def test_windows_cover_everything_and_none_reaches_beyond(size, window, overlap):
    starts = _starts(size, window, overlap)
    assert starts[0] == 0 and starts[-1] == size - window and starts == sorted(set(starts))
    assert max(np.diff(starts), default=0) <= window


def test_layers_blend_as_over_the_whole_volume():
    from monai.inferers import sliding_window_inference

    image = torch.randn(24, 20, 40, generator=torch.Generator().manual_seed(0))

    def drawn(patch):  # another answer in every window
        return torch.cat([patch * 0 + patch.mean() * 10, patch], dim=1)

    def ask(windows, corners):
        assert all(
            torch.equal(w, image[x : x + 16, y : y + 16, z : z + 16])
            for w, (x, y, z) in zip(windows, corners, strict=True)
        )
        return torch.cat([drawn(window[None, None]) for window in windows])[None, None]

    line = torch.exp(-((torch.arange(16) - 7.5) ** 2) / 8).clamp_min(1e-3)
    weights = line[:, None, None] * line[:, None] * line
    whole = sliding_window_inference(image[None, None], (16, 16, 16), 1, drawn, 0.5, roi_weight_map=weights)[0]
    layers = torch.zeros_like(whole)
    starts = [_starts(size, 16, 0.5) for size in image.shape]
    for first, planes in _layers(image, starts, (16, 16, 16), ask):
        layers[..., first : first + planes.shape[-1]] = planes[0, 0]
    assert whole[0].std() > 0.1 and torch.allclose(layers[1], image, atol=1e-5)
    assert torch.allclose(layers, whole, atol=1e-5)


def test_windows_that_do_not_fit_go_in_smaller_parts(caplog):
    """A card takes two windows at a time: the answer is the same, and one line says so for all that follow."""
    image = torch.randn(32, 32, 40, generator=torch.Generator().manual_seed(0))
    starts, counts = [_starts(size, 16, 0.5) for size in image.shape], []

    def blended(most):
        def ask(windows, corners):
            counts.append(len(windows))
            if len(windows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return windows[None, None, :, None]

        return list(_layers(image, starts, (16, 16, 16), ask))

    for (first, planes), (again, same) in zip(blended(100), blended(2), strict=True):
        assert first == again and torch.equal(planes, same)
    assert max(counts) == 9 and counts[-1] <= 2
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 9 windows at once, going on with 4",
        "out of memory with 4 windows at once, going on with 2",
    ]


def test_the_noise_of_a_window_follows_from_its_place_alone():
    short, long = Noise(), Noise()
    quiet(short, blobs((20, 18, 24)), seed=3)
    quiet(long, blobs((20, 18, 32)), seed=3)
    seeds = [{call["sampling"].seed for call in model.calls} for model in (short, long)]
    assert seeds[0] < seeds[1] and len(seeds[1]) == len(long.calls)
    assert window_seed(3, (0, 0, 8)) in seeds[0] and window_seed(4, (0, 0, 8)) not in seeds[1]
    other = Noise()
    quiet(other, blobs(), "right kidney", sampling_steps=9, sampler="ddpm")
    assert other.calls[0]["prompts"] == ["right kidney"]
    assert (other.calls[0]["sampling"].sampling_steps, other.calls[0]["sampling"].sampler) == (9, "ddpm")


def test_same_seed_same_map_and_another_seed_another():
    runs = [quiet(Noise(), blobs(), seed=seed, samples=2, uncertainty=True) for seed in (0, 0, 1)]
    for name in ("labels", "uncertainty"):
        first, same, other = (getattr(run, name).array for run in runs)
        assert np.array_equal(first, same) and not np.array_equal(first, other)


# --- samples and doubt ----------------------------------------------------------------------------------


class Says(Sides):
    """The same probabilities everywhere, one triple per sample."""

    def __init__(self, *samples):
        super().__init__()
        self.samples = samples

    def draws(self, images, prompts, sampling):
        assert sampling.samples == len(self.samples)
        for sample in self.samples:
            yield torch.tensor(sample).reshape(1, 3, 1, 1, 1).expand(1, 3, *images.shape[2:])


def only(volume: Volume) -> float:
    assert np.allclose(volume.array, volume.array.flat[0], atol=1e-6)
    return float(volume.array.flat[0])


def test_mean_and_entropy_of_several_samples():
    found = quiet(Says((0.0, 1.0, 0.0), (0.2, 0.3, 0.5), (0.2, 0.3, 0.5)), blobs(), samples=3, uncertainty=True)
    assert only(found.labels) == 1  # mean (0.13, 0.53, 0.33)
    mean = np.array([0.4, 1.6, 1.0]) / 3
    assert only(found.uncertainty) == pytest.approx(-(mean * np.log(mean)).sum() / np.log(3), abs=1e-5)
    whole = 20 * 18 * 24 / 1000
    assert found.volumes_ml["left kidney"] == pytest.approx((whole, 0, 0))
    assert found.volumes_ml["right kidney"] == pytest.approx((0, whole, whole))


@pytest.mark.parametrize(
    ("said", "doubt"), [((1.0, 0.0, 0.0), 0), ((1 / 3, 1 / 3, 1 / 3), 1), ((0.5, 0.5, 0.0), 0.6309)]
)
def test_uncertainty_is_nought_when_sure_and_one_when_all_are_alike(said, doubt):
    found = quiet(Says(said), blobs(), uncertainty=True)
    assert only(found.uncertainty) == pytest.approx(doubt, abs=1e-4)
    assert found.uncertainty.array.dtype == np.float32
    assert quiet(Says(said), blobs()).uncertainty is None and found.probabilities is None  # which were not asked for


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(sum), st.permutations(range(3)))
def test_uncertainty_is_a_share_and_does_not_depend_on_the_order_of_classes(scores, order):
    said = [score / sum(scores) for score in scores]
    doubt = only(quiet(Says(said), blobs(), uncertainty=True).uncertainty)
    assert 0 <= doubt <= 1
    assert only(quiet(Says([said[k] for k in order]), blobs(), uncertainty=True).uncertainty) == pytest.approx(
        doubt, abs=1e-5
    )


def test_probabilities_are_aligned_with_the_labels():
    volume = blobs(affine=turned_affine((2, 0, 1), (-1, 1, -1), 5, (1, 2, 0.7), (3, 4, 5)))
    found = quiet(Sides(), volume, probabilities=True, uncertainty=True)
    assert found.probabilities.shape == (3, *volume.shape)
    assert np.array_equal(found.probabilities.argmax(0), found.labels.array)
    assert np.allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(found.uncertainty.affine, volume.affine)


# --- what can be wrong ----------------------------------------------------------------------------------


def test_a_text_about_nothing_known_is_warned_of_and_what_is_not_there_or_no_number_is_named():
    with pytest.warns(UserWarning, match="'the moon' names nothing.*it knows left kidney, right kidney"):
        quiet(Sides(), blobs(), "the moon")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet(Sides(), blobs(), "Where are the kidneys?")
    with pytest.raises(FileNotFoundError, match="no/such/file.nii.gz"):
        quiet(Sides(), "no/such/file.nii.gz")
    with pytest.raises(FloatingPointError, match="nan or infinity"):
        quiet(Says((0.5, math.nan, 0.5)), blobs())


# --- the answer and the request -------------------------------------------------------------------------


def remarks(model, text, **options):
    """The prediction and what was said, which stands in the prediction too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = predict_volume(model, blobs(), text, progress=False, **options)
    assert [str(one.message) for one in said] == [f"blobs: {remark}" for remark in found.remarks]
    return found, " | ".join(found.remarks)


def test_the_same_is_said_of_every_volume():
    """Python's own filter drops equal warnings from one line: those of the second patient of a loop."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for name in ("first", "second"):
            predict_volume(Sides(), replace(blobs(), name=name), "kidneys and the spleen", progress=False)
    assert [str(one.message).split(":")[0] for one in said] == ["first", "second"]


def test_what_single_samples_mark_unasked_is_no_amount():
    """Of a structure that the mean of the samples leaves out, a sample may hold some."""
    array = np.zeros((4, 4, 4), np.uint8)
    array[0] = 1
    labels = Volume(array, np.eye(4), "v")
    drawn = {"left kidney": (0.016, 0.016), "right kidney": (0.0, 0.003)}
    found = inference._answered(
        inference.Prediction(labels, NAMES, drawn), read_request("left kidney", NAMES[1:]), None, True
    )
    assert found.volumes_ml == {"left kidney": (0.016, 0.016), "right kidney": (0.0, 0.0)} and found.remarks == ()
    assert found.dropped == {"right kidney": (0.0, 0.003)}


@pytest.mark.takes("Sentences", "a structure that was found and not asked for: it is left out", "taken, and said")
def test_what_was_not_asked_for_is_left_out_and_said():
    everything, said = remarks(Sides(), "left and right kidney")
    assert said == "" and everything.asked == NAMES[1:] and set(np.unique(everything.labels.array)) == {0, 1, 2}
    found, said = remarks(Sides(), "the left kidney, not the right")
    assert np.array_equal(found.labels.array, np.where(everything.labels.array == 1, 1, 0))
    assert found.labels.array.dtype == everything.labels.array.dtype
    assert found.asked == ("left kidney",) and found.volumes_ml["right kidney"] == (0.0,)
    assert found.dropped == {"right kidney": everything.volumes_ml["right kidney"]}
    assert re.fullmatch(r"found but not asked for, and left out: right kidney \([\d.]+ ml\)", said)


@pytest.mark.takes(
    "Sentences",
    "a structure that was found and not asked for, when all that is found is wanted: it stays",
    "taken, and said",
)
def test_on_wish_all_that_was_found_stays_and_is_still_said():
    found, said = remarks(Sides(), "left kidney", only_named=False)
    assert (found.labels.array == 2).any() and not found.dropped
    assert said.startswith("marked although not asked for: right kidney")


@pytest.mark.takes("Sentences", "a sentence that names nothing known, or only rules out", "taken, and said")
def test_where_nothing_known_is_named_all_stays_and_where_all_is_ruled_out_nothing():
    found, said = remarks(Sides(), "the moon")
    assert (found.labels.array > 0).any() and "names nothing that this model knows" in said
    found, said = remarks(Sides(), "the spleen")
    assert not found.labels.array.any() and "does not know 'spleen', and is asked for nothing that it knows" in said
    found, said = remarks(Sides(), "no evidence of liver tumour")
    assert not found.labels.array.any() and "asks for nothing; it only rules out liver tumour" in said
    found, said = remarks(Sides(), "no kidneys")
    assert not found.labels.array.any() and "asks for nothing; it only rules out left kidney, right kidney" in said


@pytest.mark.takes("Sentences", "an unknown structure, a slip of the pen or a part, when strict", "refused")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "kidneys and spleen",
            "does not know 'spleen'; it knows left kidney, right kidney",
            marks=pytest.mark.takes("Sentences", "a structure that the model does not know", "taken, and said"),
        ),
        pytest.param(
            "left and right kidny",
            "'kidny' was read as 'kidney'",
            marks=pytest.mark.takes("Sentences", "a slip of the pen", "taken, and said"),
        ),
        pytest.param(
            "both kidneys; upper pole of the left kidney",
            "'upper pole of the left kidney' is a part of a structure",
            marks=pytest.mark.takes("Sentences", "a part of a structure that is only known whole", "taken, and said"),
        ),
    ],
)
def test_how_a_sentence_was_read_is_said_before_the_work_and_refused_if_strict(text, expected):
    assert expected in remarks(Sides(), text)[1]
    model = Sides()
    with pytest.raises(ValueError, match=re.escape(expected)):
        predict_volume(model, blobs(), text, progress=False, strict=True)
    assert not model.calls


def test_a_sentence_that_is_not_read_to_its_end_is_said_and_refused_if_strict():
    model = Sides()
    model.text = TextEncoder.from_pretrained("tiny", max_length=8)
    text = "please mark both of the kidneys of this patient in the scan"
    assert "and the model reads the first 8 of them: shorten it" in remarks(model, text)[1]
    with pytest.raises(ValueError, match="reads the first 8"):
        predict_volume(model, blobs(), text, progress=False, strict=True)


@pytest.mark.takes("Sentences", "a structure that was asked for and not found", "taken, and said")
def test_what_was_asked_for_and_not_found_is_said():
    found, said = remarks(Says((0.9, 0.05, 0.05)), "left kidney")
    assert not found.labels.array.any() and said == "left kidney was asked for, and none was found"


class Plain(Sides):
    """Understands plain names alone."""

    def segment(self, images, prompts, sampling=None):
        found = super().segment(images, prompts, sampling)
        if prompts[0] != "left kidney and right kidney":
            found[:, 2] = 0
        return found


@pytest.mark.takes(
    "Sentences", "words of which the network makes another outline than of plain names", "taken, and said"
)
def test_where_plain_names_give_another_outline_the_mask_follows_them():
    model = Plain()
    found, said = remarks(model, "both kidneys, please")
    assert found.prompt == "left kidney and right kidney" and (found.labels.array == 2).any()
    assert said == (
        "the sentence as it stands and 'left kidney and right kidney' give other outlines of right kidney (Dice 0.00); "
        "the mask follows the latter"
    )
    found, said = remarks(model, "both kidneys, please", ask_again=False)
    assert found.prompt == "both kidneys, please" and said == "right kidney was asked for, and none was found"
    found, said = remarks(Sides(), "both kidneys, please")
    assert found.prompt == "both kidneys, please" and said == ""


@pytest.mark.takes("Values", "a volume shifted by 1024, with --strict", "refused")
def test_a_volume_unlike_those_of_the_training_is_named_and_refused_if_strict():
    model, volume = Sides(), blobs()
    empty = replace(volume, array=np.zeros(volume.shape, np.uint8))
    case = VolumeCase("x", image_volume=volume, label_volume=empty)
    model.domain = domain_of_volumes([case], model.preprocessing, NAMES)
    assert remarks(model, "kidneys")[1] == ""
    shifted = replace(volume, array=volume.array + 1024, name="shifted.nii.gz")
    with pytest.warns(UserWarning, match="shifted.nii.gz: .*unlike those of the training.*subtract 1024"):
        predict_volume(model, shifted, "kidneys", progress=False)
    with pytest.raises(ValueError, match=r"shifted\.nii\.gz.*subtract 1024"):
        predict_volume(model, shifted, "kidneys", progress=False, strict=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampling_steps": 0}, "sampling_steps=0: at least 1"),
        ({"samples": 0}, "samples=0"),
        ({"seed": -1}, "seed=-1: at least 0"),
        ({"sampler": "euler"}, "sampler='euler': choose one of ddim, ddpm"),
        ({"overlap": 1.0}, "overlap=1.0"),
        ({"samples": 2}, "Sides always says the same"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_read(options, said):
    with pytest.raises(ValueError, match=said):
        quiet(Sides(), "no/such/file.nii.gz", **options)


# --- as it was done before --------------------------------------------------------------------------------


class Smooth(Sides):
    """Smooth probabilities of its own for every sentence, with the classes side by side."""

    def segment(self, images, prompts, sampling):
        waves = [
            torch.sin(images[:, 1] * k + images[:, 2] * 2 * k + images[:, 3] + k + len(prompts[0])) for k in range(3)
        ]
        return (torch.stack(waves, dim=1) * 2 + images[:, :1].clamp(0, 1)).softmax(dim=1)


class Lonely(Smooth):
    """Background in most of the volume, and two structures that touch."""

    def segment(self, images, prompts, sampling):
        found = super().segment(images, prompts, sampling)
        inside = ((images[:, 1:] - 0.3).abs() < 0.25).all(dim=1)
        return torch.where(inside[:, None], found, torch.tensor([0.9, 0.06, 0.04]).reshape(1, 3, 1, 1, 1))


@pytest.mark.parametrize("kind", [Smooth, Lonely])
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (0.9, 1.3, 3.0)])
def test_labels_are_the_most_probable_class_at_every_voxel(kind, spacing):
    """Read off in part or everywhere, they differ from those of all probabilities only where two nearly tie."""
    volume = blobs((31, 26, 22), turned_affine((1, 0, 2), (-1, 1, -1), 0, (0.9, 1.3, 1.7), (3, 5, -7)))
    labels = quiet(kind(spacing=spacing), volume).labels.array
    everything = quiet(kind(spacing=spacing), volume, probabilities=True)
    highest, second = np.sort(everything.probabilities, axis=0)[[-1, -2]]
    differ = labels != everything.probabilities.argmax(axis=0)
    assert len(np.unique(labels)) == 3 and (highest - second)[differ].max(initial=0) < 1e-4
    assert np.array_equal(labels, everything.labels.array)
    assert quiet(kind(spacing=spacing), volume).volumes_ml == everything.volumes_ml


def test_predicting_from_a_shipped_model_imports_neither_monai_nor_transformers(tmp_path):
    write_image(tmp_path / "v.nii.gz", blobs((40, 40, 36)))
    code = (
        "import sys, textdiff; from textdiff.models.inference import segment_volume; from textdiff.data.volumes.volume import "
        "read_image; m = textdiff.TextDiffSeg.from_pretrained('hippocampus_small'); "
        f"m.predict(read_image({str(tmp_path / 'v.nii.gz')!r}), 'both', progress=False); "
        "print([name for name in ('monai', 'transformers', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# --- memory ---------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
import numpy as np, torch
from textdiff.data.volumes.patches import Preprocessing
from textdiff.data.volumes.volume import Volume
from textdiff.models.inference import predict_volume

class Sixteen:
    class_names = ("background", *(f"organ {k}" for k in range(15)))
    device, preprocessing = torch.device("cpu"), Preprocessing(None, (0.0, 1.0), (32, 32, 32))
    def segment(self, images, prompts, sampling):
        return images[:, :1].expand(-1, 16, -1, -1, -1) * 1.0

def peak(depth):
    volume = Volume(np.random.default_rng(0).random((64, 64, depth), dtype=np.float32), np.diag([-1.0, -1, 1, 1]))
    predict_volume(Sixteen(), volume, "organ 3", overlap=0, uncertainty=True, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

low = peak(64)
print((peak(768) - low) / (64 * 64 * (768 - 64)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_memory_of_a_slice_more_is_that_of_its_voxels_not_of_its_probabilities():
    command = [sys.executable, "-W", "ignore", "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=900)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 32  # bytes a voxel; 16 classes in float32 would be 64 alone


def test_amounts_are_those_of_the_files_own_voxels():
    volume = blobs(affine=np.diag((0.5, 2, 3, 1)))
    found = quiet(Sides(spacing=(1, 1, 1)), volume)
    counts = np.bincount(found.labels.array.ravel(), minlength=3)[1:]
    assert counts.any()
    for name, count in zip(NAMES[1:], counts, strict=True):
        assert found.volumes_ml[name] == pytest.approx((count * 0.003,))


def test_what_is_said_of_an_amount_is_in_the_files_own_voxels():
    volume = blobs(affine=np.diag((0.5, 2, 3, 1)))
    with pytest.warns(UserWarning, match="not asked for"):
        found = quiet(Sides(), volume, "the left kidney")
    amount = np.count_nonzero(found.labels.array == 2) * 0.003
    assert amount and found.remarks[-1].endswith(f": right kidney ({amount:.3g} ml)")


def test_windows_at_exchanged_places_have_noise_of_their_own():
    corners = [(0, 0, 8), (0, 8, 0), (8, 0, 0), (0, 8, 8), (8, 0, 8), (8, 8, 0)]
    assert len({window_seed(seed, corner) for seed in (0, 8) for corner in corners}) == 12


@pytest.mark.parametrize(("overlap", "windows"), [(0.0, 2), (0.5, 3), (0.75, 5)])
def test_windows_overlap_as_much_as_is_asked_for(overlap, windows):
    for answer in (predict_volume, segment_volume):
        model = Sides()
        answer(model, blobs((32, 16, 16)), "both kidneys", overlap=overlap, progress=False)
        assert [call["prompts"] for call in model.calls].count(["both kidneys"]) == windows

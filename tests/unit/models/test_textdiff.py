"""TextDiff and its head: any shapes, exact storage, readable refusals, predictions on any picture."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_models import entries, pictures, tiny_features, tiny_head, tiny_textdiff

from textdiff.base.cache import FeatureCache
from textdiff.data.cases import Case
from textdiff.data.domain import domain_of_pictures
from textdiff.data.images.views import ImageBatch
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder
from textdiff.models.textdiff import HEADS, TextDiff

COMPACT, DECODER = (asdict(HEADS[name]) for name in ("compact", "decoder"))

CAPTIONS = ["The nuclei are evenly distributed.", "The nuclei density in the upper left is high."]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return TextEncoder.from_pretrained("tiny")


@pytest.fixture(scope="module")
def model(text) -> TextDiff:
    return tiny_textdiff(text, positions=True).eval()


def maps(channels: tuple[int, ...], batch: int = 2, sides: tuple[int, ...] = (3, 6, 12, 12)) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(batch, c, s, s + 1, generator=draw) for c, s in zip(channels, sides, strict=False)]


def tokens(batch: int = 2, length: int = 5, dim: int = 10) -> torch.Tensor:
    return torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(1))


# --- the head -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(16,), (48, 24), (24, 16, 24), (32, 24, 16, 8)])
@pytest.mark.parametrize("fusion", ["attention", "pooled", "none"])
@pytest.mark.parametrize("merge", ["concat", "sum", "decoder"])
def test_any_maps_classes_batches_and_sizes(channels, fusion, merge):
    for classes, batch, size in ((2, 1, (13, 7)), (5, 3, (20, 24))):
        head = tiny_head(channels, 10, classes, fusion=fusion, merge=merge).eval()
        logits = head(maps(channels, batch), None if fusion == "none" else tokens(batch), size=size)
        assert logits.shape == (batch, classes, *size) and logits.isfinite().all()


def test_channels_are_left_out_in_training_alone():
    head = tiny_head((48, 24), 10, dropout=0.5, normalise=True).train()
    one, other = (head(maps((48, 24)), tokens(), size=(12, 12)) for _ in range(2))
    assert not torch.allclose(one, other)
    head.eval()
    one, other = (head(maps((48, 24)), tokens(), size=(12, 12)) for _ in range(2))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        tiny_head((48, 24), 10, dropout=1.0)


@pytest.mark.parametrize("options", [{}, COMPACT, DECODER])
def test_every_parameter_learns_and_a_batch_equals_single_images(options):
    channels = (48, 24, 16)
    head = tiny_head(channels, **options | {"positions": True})
    head(maps(channels), tokens(), size=(12, 12)).square().sum().backward()
    silent = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    head.eval()
    together = head(maps(channels), tokens(), size=(12, 12))
    alone = [
        head([h[i : i + 1] for h in maps(channels)], tokens()[i : i + 1], size=(12, 12)) for i in range(len(together))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_mask_hides_padding_and_no_mask_reads_it():
    for fusion in ("attention", "pooled"):
        head = tiny_head((16,), fusion=fusion, dim=12, init="default").eval()
        disturbed, mask = tokens(), torch.tensor([[True, True, False, False, False]] * 2)
        disturbed[:, 2:] += 3
        hidden = [head(maps((16,)), t, mask, size=(8, 8)) for t in (tokens(), disturbed)]
        read = [head(maps((16,)), t, size=(8, 8)) for t in (tokens(), disturbed)]
        assert torch.equal(*hidden) and not torch.allclose(*read, atol=1e-6)


def test_only_the_coarsest_maps_read_where_attend_says_so():
    channels, read = (24, 16, 8), []
    head = tiny_head(channels, attend=1).eval()
    head.cross.register_forward_hook(lambda _, args, out: read.append(args[0].shape[-1]))
    head(maps(channels, sides=(12, 3, 6)), tokens())
    assert read == [4]


def test_normalised_maps_may_come_in_any_unit():
    head = tiny_head((16,), normalise=True).eval()
    (h,) = maps((16,))
    shifted = h * torch.linspace(1, 9, 16)[:, None, None] + 5
    torch.testing.assert_close(head([h], tokens()), head([shifted], tokens()), rtol=1e-3, atol=1e-4)


def test_summed_scales_are_raised_one_by_one(monkeypatch):
    """Equal maps at every scale: the sum is that many times one of them, whatever the order they are given in."""
    head = tiny_head((8, 8, 8), fusion="none", merge="sum", dim=8).eval()
    flat = [torch.full((1, 8, s, s), 2.0) for s in (4, 8, 16)]
    seen, classified = [], head._classified
    monkeypatch.setattr(head, "_classified", lambda fused, size: (seen.extend(fused), classified(fused, size))[1])
    head(flat, size=(16, 16))
    head([flat[2], flat[0], flat[1]], size=(16, 16))
    assert all(torch.equal(x, torch.full((1, 8, 16, 16), 6.0)) for x in seen) and len(seen) == 2


def test_the_decoder_sees_around_a_pixel_and_classifies_at_the_finest_map():
    """What changes at one place of the coarsest map reaches the logits around it; the classifier sees 16 x 16 pixels."""
    head = tiny_head((8, 8), fusion="none", merge="decoder", dim=8).eval()
    seen = []
    head.classifier.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    flat = [torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 16, 16)]
    poked = [flat[0].clone(), flat[1]]
    poked[0][..., 3, 3] = 9.0
    changed = (head(poked, size=(32, 32)) - head(flat, size=(32, 32))).abs().sum(1)[0] > 1e-6
    assert seen == [(16, 16)] * 2
    assert changed[12:16, 12:16].any() and changed.sum() > 100  # one map pixel alone is 4 x 4 of the 32 x 32


@pytest.mark.parametrize("options", [{}, COMPACT, DECODER])
def test_mixed_precision_is_close_to_float32(options):
    channels = (48, 24)
    head = tiny_head(channels, **options | {"positions": True}).eval()
    exact = head(maps(channels), tokens(), size=(12, 12))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head([h.bfloat16() for h in maps(channels)], tokens(), size=(12, 12)).float()
    assert (exact - rounded).square().mean().sqrt() < 0.1 * exact.std()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "fusion='sum': known are attention, pooled, none"),
        ({"merge": "mean"}, "merge='mean': known are concat, sum, decoder"),
        ({"init": "zero"}, "init='zero': known are official, default"),
        ({"channels": ()}, "at least one map"),
        ({"num_classes": 1}, "num_classes=1: at least one map and two classes"),
        ({"hidden": (8,)}, "two hidden widths"),
        ({"attend": 3}, "attend=3: from 1 to 2, the number of maps, or None for all"),
        ({"attend": 0}, "attend=0: from 1"),
    ],
)
def test_wrong_heads_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_head(**{"channels": (16, 8), **options})


def test_maps_and_text_that_do_not_fit_are_refused():
    head = tiny_head((16, 8))
    with pytest.raises(ValueError, match=r"takes maps with \[16, 8\] channels, got \[16\]"):
        head(maps((16,)), tokens())
    with pytest.raises(ValueError, match=r"takes maps with \[16, 8\] channels, got \[8, 16\]"):
        head(maps((8, 16)), tokens())
    with pytest.raises(ValueError, match="fusion='attention' needs tokens"):
        head(maps((16, 8)))
    for options in ({"fusion": "none"}, {"merge": "sum"}, {"normalise": True}):
        with pytest.raises(ValueError, match="authors' weights fit the default head"):
            tiny_head((16, 8), **options).load_official({})
    for fusion in ("none", "pooled"):
        with pytest.raises(ValueError, match=f"fusion='{fusion}' has no attention to show"):
            tiny_head((16,), fusion=fusion).attention(maps((16,)), tokens(), None, (4, 4))


# --- the model ------------------------------------------------------------------------------------------


def test_logits_at_the_images_size_and_a_batch_equals_single_images(model):
    for size in (16, 24):
        x = pictures(2, size)
        with torch.no_grad():
            together = model(x, CAPTIONS)
            alone = torch.cat([model(x[i : i + 1], CAPTIONS[i : i + 1]) for i in range(2)])
        assert together.shape == (2, 2, size, size) and together.dtype == torch.float32
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_the_caption_changes_the_answer_and_the_frozen_parts_stay_frozen(text):
    model = tiny_textdiff(text, init="default").train()
    x = pictures(1)
    with torch.no_grad():
        first, second = (model.eval()(x, [caption]) for caption in CAPTIONS)
    assert not torch.allclose(first, second, atol=1e-5)
    model.train()
    assert not model.features.unet.training and not model.text.training and model.head.training
    model(x, CAPTIONS[:1]).sum().backward()
    frozen = [*model.features.parameters(), *model.text.parameters()]
    assert all(p.grad is None for p in frozen) and all(p.grad is not None for p in model.head.parameters())


def test_the_loss_is_the_criterion_of_the_logits(text):
    model = tiny_textdiff(text, criterion=DiceCE(1.5, "logits", "batch")).eval()
    batch = ImageBatch(pictures(2), (pictures(2)[:, 0] > 0).long(), CAPTIONS)
    expected = DiceCE(1.5, "logits", "batch")(model(batch.images, CAPTIONS), batch.masks)
    assert torch.equal(model.loss(batch)["loss"], expected)


def test_without_text(text):
    model = tiny_textdiff(None, fusion="none").eval()
    with torch.no_grad():
        assert torch.equal(model(pictures(1), ["anything"]), model(pictures(1), [""]))
    assert not any("cross" in name for name, _ in model.head.named_parameters())
    with pytest.raises(ValueError, match="without a text encoder, fusion must be 'none'"):
        tiny_textdiff(None)


# --- prediction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (31, 50), (5, 7)])
def test_predictions_at_the_pictures_own_size(model, tmp_path, size):
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = model.predict(array, CAPTIONS[0])
    assert labels.shape == size and labels.dtype == np.uint8 and set(np.unique(labels)) <= {0, 1}
    shares = model.predict(array, CAPTIONS[0], probabilities=True)
    assert shares.shape == (2, *size) and shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    assert np.array_equal(shares.argmax(axis=0), labels)
    Image.fromarray(array).save(tmp_path / "x.png")
    assert np.array_equal(model.predict(tmp_path / "x.png", CAPTIONS[0]), labels)
    grey = array[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = model.predict(np.stack([grey] * 3, axis=-1), CAPTIONS[0])
    for picture in (grey, tmp_path / "grey.png", str(tmp_path / "grey.png")):
        assert np.array_equal(model.predict(picture, CAPTIONS[0]), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), dtype=np.uint16),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros(8, dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(model, array):
    for method in (model.predict, model.look):
        with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] or \[H, W\], values 0..255; got"):
            method(array, CAPTIONS[0])
    with pytest.raises(FileNotFoundError, match="no such picture: .*x.png"):
        model.predict("no/such/x.png", CAPTIONS[0])
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        model(pictures(2), CAPTIONS[:1])


def test_predictions_that_are_no_numbers_or_have_no_words_are_refused(text):
    model, picture = tiny_textdiff(text), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="the text is empty: give a sentence"):
        model.predict(picture, " \n")
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    for probabilities in (False, True):
        with pytest.raises(FloatingPointError, match="the model gives nan or infinity"):
            model.predict(picture, CAPTIONS[0], probabilities=probabilities)


def test_a_sentence_unlike_those_of_the_training_is_warned_of_or_refused(text):
    model, without, picture = tiny_textdiff(text), tiny_textdiff(None, fusion="none"), np.zeros((8, 8, 3), np.uint8)
    model.domain = without.domain = domain_of_pictures([Case("x", CAPTIONS[0], image_array=picture)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(picture, CAPTIONS[0], strict=True)
        without.predict(picture, "un bel giorno al mare", strict=True)
    with pytest.warns(UserWarning, match="no sentence of the training has, 5 of 5: un, bel, giorno, al, mare;"):
        model.predict(picture, "un bel giorno al mare")
    with pytest.raises(ValueError, match="no sentence of the training has"):
        model.predict(picture, "un bel giorno al mare", strict=True)


@pytest.mark.takes("Sentences", "more words than the model reads", "taken, and said")
def test_a_sentence_that_is_not_read_to_its_end_is_warned_of_or_refused(text, caplog):
    model, picture = tiny_textdiff(text), np.zeros((8, 8, 3), np.uint8)
    said = f"has 402 tokens, and the model reads the first {text.max_length} of them"
    with pytest.warns(UserWarning, match=said):
        model.predict(picture, 400 * "lung ")
    assert not caplog.records, "said once"
    with pytest.raises(ValueError, match=said):
        model.predict(picture, 400 * "lung ", strict=True)


def test_predicting_changes_neither_mode_nor_cache(text, tmp_path):
    features = tiny_features(cache=FeatureCache(tmp_path))
    model = tiny_textdiff(text, features=features).train()
    grey = np.zeros((16, 16), dtype=np.uint8)
    model.predict(grey, CAPTIONS[0])
    model.look(grey, CAPTIONS[0])
    assert model.training and model.head.training and model.features.cache is not None and not entries(tmp_path)


def test_looking_gives_every_word_its_place(model):
    words, weights = model.look(np.zeros((20, 30, 3), dtype=np.uint8), CAPTIONS[1])
    assert weights.shape == (len(words), 20, 30) and "upper" in words
    assert weights.min() >= 0 and weights.max() <= 1
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-4)


def test_looking_at_a_model_in_training_shows_what_it_has_learnt_not_dropout(text):
    model = tiny_textdiff(text, dropout=0.5).train()
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    (_, once), (_, again) = model.look(picture, CAPTIONS[1]), model.look(picture, CAPTIONS[1])
    assert (once == again).all() and model.training


# --- storage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": None, "fusion": "none"},
        {"fusion": "pooled", "num_classes": 3, "class_names": ("background", "a", "b")},
        {**COMPACT, "positions": True, "channel_order": "BGR", "resize": "bilinear", "text_mask": False},
    ],
)
def test_saved_and_loaded_models_agree_to_the_bit(text, tmp_path, changes):
    tiny_textdiff(text, seed=1).save_pretrained(tmp_path)  # which the next one replaces
    changes = dict(changes)
    model = tiny_textdiff(changes.pop("text", text), **changes).eval()
    model.trained_on = {"dataset": "monuseg", "cases": ["0123456789abcdef"]}
    model.save_pretrained(tmp_path)
    loaded = TextDiff.from_pretrained(tmp_path)
    assert not loaded.training and loaded.class_names == model.class_names
    assert loaded.image == model.image and loaded.head.spec == model.head.spec and loaded.trained_on == model.trained_on
    with torch.no_grad():
        assert torch.equal(loaded(pictures(2), CAPTIONS), model(pictures(2), CAPTIONS))
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    a, b = (m.predict(picture, CAPTIONS[0], probabilities=True) for m in (model, loaded))
    assert np.array_equal(a, b)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_text() == (tmp_path / "config.json").read_text()
    names = sorted(str(p.relative_to(tmp_path / "again")) for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert names == ["config.json", "model.safetensors", "unet/config.json", "unet/model.safetensors"]


def test_the_backbone_is_stored_in_half_only_where_that_loses_nothing(text, tmp_path):
    model = tiny_textdiff(text)
    model.save_pretrained(tmp_path / "full")
    for value in model.features.unet.state_dict().values():
        value.copy_(value.half())
    model.save_pretrained(tmp_path / "half")
    full, half = ((tmp_path / name / "unet/model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    for key, value in TextDiff.from_pretrained(tmp_path / "half").features.unet.state_dict().items():
        assert torch.equal(value, model.features.unet.state_dict()[key])


@pytest.mark.takes("Model files", "weights or config.json cut in half", "refused")
@pytest.mark.parametrize("name", ["model.safetensors", "unet/model.safetensors", "config.json", "unet/config.json"])
def test_truncated_files_are_named(text, tmp_path, name):
    tiny_textdiff(text).save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        TextDiff.from_pretrained(tmp_path)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json is missing .write one with save_pretrained"):
        TextDiff.from_pretrained(tmp_path)


def test_a_hub_model_that_cannot_be_reached(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"'qata_smal' \(did you mean 'qata_small'\?\) is not a known TextDiff"):
        TextDiff.from_pretrained("qata_smal")
    with pytest.raises(FileNotFoundError, match="'someone/no-model' is not a known TextDiff .* nor a hub model"):
        TextDiff.from_pretrained("someone/no-model")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(text):
    with torch.no_grad():
        here = tiny_textdiff(text).eval()(pictures(2), CAPTIONS)
        there = tiny_textdiff(text).eval().cuda()(pictures(2).cuda(), CAPTIONS)
    torch.testing.assert_close(there.cpu(), here, rtol=2e-2, atol=2e-2)


def test_logits_are_enlarged_to_the_picture_and_not_probabilities(text, monkeypatch):
    model, logits = tiny_textdiff(text).eval(), torch.zeros(1, 2, 16, 16)
    logits[:, 1], logits[:, 1, ::2, ::2] = -1.0, 9.0
    monkeypatch.setattr(model, "forward", lambda images, captions: logits)
    expected, picture = F.interpolate(logits, (31, 50), mode="bilinear")[0], np.zeros((31, 50, 3), np.uint8)
    assert np.array_equal(model.predict(picture, CAPTIONS[0]), expected.argmax(dim=0))
    shares = model.predict(picture, CAPTIONS[0], probabilities=True)
    np.testing.assert_allclose(shares, expected.softmax(dim=0), atol=1e-6)

"""The baselines: called like TextDiff, blind to captions except the one that reads, able to learn."""

from typing import get_args

import pytest
import torch
from torch import nn

from textdiff.base.checkpoints import load_strict, read_checkpoint, write_checkpoint
from textdiff.data.images.views import ImageBatch
from textdiff.models.baselines import BASELINES, NETWORKS, READING, Baseline, build_baseline
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder

LEFT, RIGHT = "one infected area, upper left lung.", "one infected area, upper right lung."


@pytest.fixture(scope="module")
def text():
    return TextEncoder.from_pretrained("tiny")


@pytest.fixture(params=BASELINES)
def model(request, text):
    return _fresh(request.param, text)


@pytest.fixture
def reader(text):
    return _fresh("text_unet", text)


def _fresh(name, text, **options):
    torch.manual_seed(0)
    return build_baseline(name, num_classes=3, text=text, **options)


def test_they_are_those_that_a_configuration_can_name():
    from textdiff.experiments.images import FUSION, TUNED, Model

    assert set(BASELINES) == set(get_args(Model)) - set(FUSION) - set(TUNED)
    assert set(READING) == set(BASELINES) - set(NETWORKS)


def test_the_loss_is_the_criterion_of_the_logits(model, text):
    batch = ImageBatch(torch.randn(2, 3, 64, 64), torch.randint(3, (2, 64, 64)), [LEFT, RIGHT])
    model.eval().criterion = DiceCE(1.5, "logits", "batch")
    expected = DiceCE(1.5, "logits", "batch")(model(batch.images, batch.captions), batch.masks)
    assert torch.equal(model.loss(batch)["loss"], expected)


@pytest.mark.parametrize("size", [(64, 64), (50, 38), (32, 33)])
def test_logits_have_the_images_size(model, size):
    logits = model(torch.randn(1, 3, *size), [LEFT])
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", BASELINES)
def test_logits_are_float32_in_mixed_precision(name, text):
    seen = []
    model = _fresh(name, text, precision="bfloat16")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert model(torch.randn(1, 3, 32, 32), [LEFT]).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_images_logits_do_not_depend_on_its_batch(model, mode):
    model.train(mode == "train")
    images, captions = torch.randn(2, 3, 48, 64), [LEFT, "Two areas."]
    with torch.no_grad():
        alone = model(images[:1], captions[:1])
        torch.testing.assert_close(model(images, captions)[:1], alone, atol=1e-3, rtol=1e-3)
        assert torch.equal(model(images[:1], captions[:1]), alone)
        if isinstance(model, Baseline):  # it does not read
            assert torch.equal(model(images[:1], [""]), alone) and torch.equal(model(images[:1]), alone)


@pytest.mark.parametrize("name", BASELINES)
def test_it_learns_one_image_with_all_its_weights(name, text):
    model = _fresh(name, text, in_channels=1)
    assert 1.5e6 < sum(p.numel() for p in model.parameters()) < 10e6
    target = torch.zeros(1, 32, 32, dtype=torch.int64)
    target[:, 8:20, 4:28] = 1
    images = target[:, None].float() * 2 - 1
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses, silent = [], {name for name, p in model.named_parameters() if p.ndim > 1}
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(DiceCE(dice_over="batch")(model(images, [LEFT]), target))
        losses[-1].backward()
        optimiser.step()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        silent -= {name for name, p in model.named_parameters() if p.grad.any()}
    assert not silent and losses[-1] < 0.5 * losses[0]


def test_padding_mirrors_and_is_cut_off_where_it_was_added():
    model = _fresh("swin_unetr", None)
    model.net = nn.Identity()
    images = torch.randn(1, 3, 40, 70)
    assert torch.equal(model(images), images)
    seen = []
    model.net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images)
    assert seen[0].shape == (1, 3, 64, 96)
    assert torch.equal(seen[0][:, :, 12:52, 12], images[:, :, :, 1])


def test_the_reader_reads_by_attention_and_by_the_mean_token(reader):
    images = torch.randn(1, 3, 64, 64)

    def difference():
        with torch.no_grad():
            return (reader(images, [LEFT]) - reader(images, [RIGHT])).abs().max()

    assert difference() > 1e-4
    for block in reader.reading.read:
        for attention in (block.attn1, block.attn2):
            nn.init.zeros_(attention.to_v.weight)
    assert difference() == 0  # the modulation starts as the identity
    nn.init.normal_(reader.reading.film.weight)
    assert difference() > 1e-3


def test_the_reader_never_reads_padding(text):
    fixed = TextEncoder(text.backbone, text.tokenizer, name="tiny", max_length=32, padding="max_length")
    tokens, mask = fixed([LEFT])
    assert not mask.all() and tokens[~mask].any()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        padded, whole = (_fresh("text_unet", encoder)(images, [LEFT]) for encoder in (fixed, text))
    torch.testing.assert_close(padded, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("level", [0, 1])
def test_the_readers_pixels_know_their_place(reader, level):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = reader(images, [LEFT])
        nn.init.zeros_(reader.reading.read[level].place.project.weight)
        assert (reader(images, [LEFT]) - before).abs().max() > 1e-4


def test_the_encoder_is_no_part_of_the_readers_weights(reader, text, tmp_path):
    assert reader.text is text
    encoder = {id(p) for p in text.parameters()}
    assert not encoder & {id(p) for p in reader.parameters()}
    assert not any(key.startswith("text") for key in reader.state_dict())
    assert text not in list(reader.modules())
    write_checkpoint(tmp_path / "reader.safetensors", reader.state_dict())
    torch.manual_seed(1)
    other = build_baseline("text_unet", num_classes=3, text=text)
    load_strict(other, read_checkpoint(tmp_path / "reader.safetensors"), "reader")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(other(images, [LEFT]), reader(images, [LEFT]))


def test_the_reader_learns_to_obey(text):
    """One image, two sentences, two answers."""
    model = _fresh("text_unet", text)
    images = torch.randn(1, 3, 32, 32).repeat(2, 1, 1, 1)
    target = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[0, 4:20, 2:14] = 1
    target[1, 4:20, 18:30] = 1
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        DiceCE(dice_over="batch")(model(images, [LEFT, RIGHT]), target).backward()
        optimiser.step()
    with torch.no_grad():
        found = model(images, [LEFT, RIGHT]).argmax(dim=1)
    assert (found == target).float().mean() > 0.9


def test_wrong_arguments_are_refused(text):
    with pytest.raises(ValueError, match="there are: unet, unetpp"):
        build_baseline("resnet", num_classes=2)
    with pytest.raises(ValueError, match="needs a text encoder"):
        build_baseline("text_unet", num_classes=2)
    with pytest.raises(ValueError, match="num_classes=1"):
        build_baseline("unet", num_classes=1)
    for name in ("unet", "text_unet"):
        with pytest.raises(ValueError, match="32 px"):
            build_baseline(name, num_classes=2, text=text)(torch.zeros(1, 3, 16, 64), [LEFT])
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        build_baseline("text_unet", num_classes=2, text=text)(torch.zeros(2, 3, 32, 32), [LEFT])

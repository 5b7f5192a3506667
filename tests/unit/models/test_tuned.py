"""The U-Net whose encoder comes trained: called like the baselines, all of it learns, its batch statistics stay."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from textdiff.base.checkpoints import load_strict, read_checkpoint, write_checkpoint
from textdiff.data.images.views import ImageBatch
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder
from textdiff.models.timm_features import TimmFeatures
from textdiff.models.tuned import TunedUNet
from textdiff.training.fit import why_whole
from textdiff.training.weights import trained_state

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: pip install 'textdiff[timm]'")
LEFT, RIGHT = "one infected area, upper left lung.", "one infected area, upper right lung."
MAPS = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def text():
    return TextEncoder.from_pretrained("tiny")


def build(text=None, maps=MAPS, enlarge=2, **options):
    torch.manual_seed(0)
    encoder = TimmFeatures("mobilenetv3_small_050", maps, enlarge=enlarge)
    return TunedUNet(encoder, num_classes=3, text=text, **options)


@pytest.fixture(params=["blind to words", "reads"])
def model(request, text):
    return build(text if request.param == "reads" else None)


@pytest.mark.parametrize(("enlarge", "size"), [(2, (64, 64)), (2, (50, 38)), (1, (64, 96)), (2, (32, 33))])
def test_logits_have_the_images_size(text, enlarge, size):
    for reads in (None, text):
        logits = build(reads, enlarge=enlarge)(torch.randn(2, 3, *size), [LEFT, RIGHT])
        assert logits.shape == (2, 3, *size) and logits.isfinite().all()


def test_the_loss_is_the_criterion_of_the_logits(model):
    batch = ImageBatch(torch.randn(2, 3, 64, 64), torch.randint(3, (2, 64, 64)), [LEFT, RIGHT])
    model.criterion = DiceCE(1.5, "logits", "batch")
    assert torch.equal(model.loss(batch)["loss"], model.criterion(model(batch.images, batch.captions), batch.masks))


def test_logits_are_float32_and_the_encoder_alone_computes_in_it(text):
    model, seen = build(text, precision="bfloat16"), {"encoder": set(), "decoder": set()}
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            place = seen["encoder" if name.startswith("encoder") else "decoder"]
            part.register_forward_hook(lambda part, inputs, output, place=place: place.add(output.dtype))
    assert model(torch.randn(1, 3, 64, 64), [LEFT]).dtype == torch.float32
    assert seen == {"encoder": {torch.float32}, "decoder": {torch.bfloat16}}


def test_it_learns_with_all_its_weights_and_keeps_the_statistics_it_came_with(model):
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    masks = torch.zeros(2, 64, 64, dtype=torch.int64)
    masks[:, 16:40, 8:56] = 1
    batch = ImageBatch(masks[:, None].float().repeat(1, 3, 1, 1) * 2 - 1, masks, [LEFT, RIGHT])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append(model.loss(batch)["loss"])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    same = {name for name, value in model.state_dict().items() if torch.equal(value, state[name])}
    assert same == {name for name, _ in model.named_buffers()}
    assert {"mean", "deviation", "running_mean", "running_var"} <= {name.rpartition(".")[2] for name in same}


def test_an_images_logits_do_not_depend_on_its_batch_in_training_either(model):
    model.train()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        together, alone = model(images, [LEFT, RIGHT]), model(images[:1], [LEFT])
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
    assert why_whole(model) == ""  # a batch may be split to save memory


def test_one_reads_and_the_other_does_not(text):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        reads, blind = build(text), build()
        assert not torch.equal(reads(images, [LEFT]), reads(images, [RIGHT]))
        assert torch.equal(blind(images, [LEFT]), blind(images))
    assert not any(name.startswith("text") for name in reads.state_dict())
    for captions in (None, [LEFT, RIGHT]):
        with pytest.raises(ValueError, match=r"1 images but [02] captions"):
            reads(images, captions)


def test_whole_weights_are_kept_and_read_again(text, tmp_path):
    model, images = build(text), torch.randn(1, 3, 64, 64)
    write_checkpoint(tmp_path / "model.safetensors", trained_state(model))
    torch.manual_seed(7)
    other = TunedUNet(TimmFeatures("mobilenetv3_small_050", MAPS, enlarge=2), 3, text)
    load_strict(other, read_checkpoint(tmp_path / "model.safetensors"), source="test")
    assert torch.equal(other(images, [LEFT]), model(images, [LEFT]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="an encoder of 2 maps: from 3 to 5"):
        build(maps=(3, 4))
    with pytest.raises(ValueError, match="each side must be 32 px or more"):
        build()(torch.zeros(1, 3, 16, 64))

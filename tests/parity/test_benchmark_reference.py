"""What the benchmarks measure against computes what it stands for: same features, logits and losses as the authors' and ours."""

from __future__ import annotations

import golden
import pytest
import torch
from fake_gpu import GPU, fake_gpu, pictures_on_gpu
from tiny_models import ARCHITECTURE, pictures, tiny_unet

from benchmarks.reference import (
    ReferenceHead,
    ReferenceTextDiff,
    ReferenceUNet,
    reference_features,
    reference_loss,
    reference_pretraining,
    reference_tokens,
)
from textdiff import DiffusionFeatures, TextDiff, TextDiffHead, TextEncoder
from textdiff.models.losses import DiceCE
from textdiff.models.textdiff import HeadSpec
from textdiff.models.unet import UNet
from textdiff.training.pretraining import Denoising

QATA = (3072, 1536, 1536, 768)
SMALL = {"dim": 16, "hidden": (8, 8)}


def test_the_head_gives_the_authors_logits() -> None:
    description = golden.description("head_qata.json")
    head = ReferenceHead(QATA).eval()
    head.load_state_dict(golden.state(description["state_dict"]))
    maps = [golden.data(f"head_qata/feat{k}", tuple(shape)) for k, shape in enumerate(description["feature_shapes"])]
    with torch.inference_mode():
        logits = head(maps, golden.data("head_qata/text", tuple(description["text_shape"])))
    golden.assert_close(logits[..., ::4, ::4], golden.arrays("head_qata.npz")["logits"])


@pytest.mark.parametrize("channels", [(1536, 1536, 768, 768), QATA])
def test_the_official_head_of_ours_takes_its_weights_and_gives_its_logits(channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    reference, ours = ReferenceHead(channels).eval(), TextDiffHead(channels).eval()
    ours.load_official(reference.state_dict())
    maps = [torch.randn(1, width, 4 * 2**k, 4 * 2**k) for k, width in enumerate(channels)]
    tokens = torch.randn(1, 10, 768)
    with torch.inference_mode():
        torch.testing.assert_close(reference(maps, tokens, 64), ours(maps, tokens, size=(64, 64)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"num_res_blocks": 2, "channel_mult": (1, 1, 2), "attention_resolutions": (2, 4)}]
)
def test_the_unet_gives_the_same_noise_and_blocks(changes: dict) -> None:
    unet = tiny_unet(**changes)
    config, blocks = {**ARCHITECTURE, **changes}, range(len(unet.output_blocks))
    x, timesteps = pictures(2), torch.tensor([7, 640])
    with torch.inference_mode():
        noise, taps = ReferenceUNet(config, unet.state_dict())(x, timesteps, blocks)
        torch.testing.assert_close(noise, unet(x, timesteps), atol=1e-4, rtol=1e-4)
        for mine, theirs in zip(unet.decode(x, timesteps, blocks), taps, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_unet_gives_guided_diffusions_blocks() -> None:
    numbers, about = golden.arrays("unet_small_updown.npz"), golden.description("unet_small_updown.json")
    config, labels = about["config"], about["labels"]
    if labels is not None:
        pytest.skip("class-conditional")
    unet = ReferenceUNet(config, golden.state(about["state_dict"]))
    x = golden.data("small_updown/x", (2, config["in_channels"], config["image_size"], config["image_size"]))
    noise, taps = unet(x, torch.tensor(about["timesteps"]), range(len(unet.outputs)))
    golden.assert_close(noise, numbers["output"])
    for k, h in enumerate(taps):
        golden.assert_close(h[:, :8], numbers[f"output_block_{k}"])


def test_half_precision_is_of_the_blocks_only() -> None:
    state = tiny_unet().state_dict()
    half = ReferenceUNet(ARCHITECTURE, state, torch.bfloat16).state
    cast = {key.split(".")[-2] for key, value in half.items() if value.dtype == torch.bfloat16}
    assert {"qkv", "proj_out", "skip_connection"} <= cast
    assert half["time_embed.0.weight"].dtype == half["out.2.weight"].dtype == torch.float32
    assert {key for key, value in half.items() if value.dtype == torch.float32 and value.ndim > 2} == {"out.2.weight"}


def test_features_are_those_of_ours() -> None:
    unet, blocks, steps = tiny_unet(), (0, 2), (50, 250)
    image = pictures(1)
    theirs = reference_features(ReferenceUNet(ARCHITECTURE, unet.state_dict()), image, blocks, steps)
    for mine, one in zip(DiffusionFeatures(unet, blocks, steps)(image), theirs, strict=True):
        torch.testing.assert_close(mine, one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_official_protocols(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 2, 8, 8, generator=generator)
    target = torch.randint(2, (1, 8, 8), generator=generator)
    torch.testing.assert_close(reference_loss(logits, target), DiceCE(1.5, "logits", "batch")(logits, target))


def test_tokens_are_those_of_ours() -> None:
    text = TextEncoder.from_pretrained("tiny", 10, padding="max_length")
    caption = "The nuclei in the upper right are densely packed."
    torch.testing.assert_close(reference_tokens(text, caption, torch.device("cpu")), text([caption])[0])


def test_the_loss_curve_is_that_of_ours() -> None:
    text = TextEncoder.from_pretrained("tiny", 10, padding="max_length")
    unet, blocks, steps = tiny_unet(), (0, 2), (50, 250)
    features = DiffusionFeatures(unet, blocks, steps)
    spec = HeadSpec(**SMALL, num_heads=2, head_dim=8)
    torch.manual_seed(0)
    model = TextDiff(features, text, head=spec, text_mask=False, criterion=DiceCE(1.5, "logits", "batch"))
    head = ReferenceHead(features.channels, text.dim, **SMALL, heads=2, head_dim=8)
    model.head.load_official(head.state_dict())
    reference = ReferenceTextDiff(ReferenceUNet(ARCHITECTURE, unet.state_dict()), text, head, blocks, steps)
    samples = [(image, (image[0] > 0).long(), "The nuclei are densely packed.") for image in pictures(3)]
    theirs, ours = reference.train(samples, range(3)), []
    optimiser = torch.optim.Adam(model.head.parameters(), lr=1e-4)
    model.train()
    for image, mask, caption in samples:
        loss = model.criterion(model(image[None], [caption]), mask[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        ours.append(loss.item())
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_pretraining_takes_the_same_steps() -> None:
    torch.manual_seed(0)
    unet = UNet(**ARCHITECTURE)
    reference = ReferenceUNet(
        ARCHITECTURE, {k: v.detach().clone().requires_grad_() for k, v in unet.state_dict().items()}
    )
    batches = [pictures(2, seed=seed) for seed in range(3)]
    theirs = reference_pretraining(reference, batches)
    model, ours = Denoising(unet), []
    optimiser = torch.optim.AdamW(unet.parameters(), lr=4e-4, weight_decay=0.0)
    for step, crops in enumerate(batches):
        optimiser.zero_grad()
        loss = model.loss(crops, torch.Generator().manual_seed(1_000_003 + step))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        ours.append(loss.item())
    assert theirs == pytest.approx(ours, rel=1e-3)


def test_all_of_it_runs_on_a_card() -> None:
    text = TextEncoder.from_pretrained("tiny", 10, padding="max_length")
    with fake_gpu(tiny_unet(), ReferenceHead((128, 64), text.dim, **SMALL, heads=2, head_dim=8)) as (unet, head):
        reference = ReferenceTextDiff(ReferenceUNet(ARCHITECTURE, unet.state_dict()), text, head, (0, 2), (50, 250))
        image = pictures_on_gpu(1)
        tokens = torch.zeros(1, 10, text.dim).to(GPU)
        maps = reference_features(reference.unet, image, reference.blocks, reference.steps)
        logits = reference.head(maps, tokens, 16)
        loss = reference_loss(logits, torch.zeros(1, 16, 16, dtype=torch.int64).to(GPU))
    assert {one.device.type for one in (*maps, logits, loss)} == {"cuda"}

"""UNet: what it refuses, what it skips, and that size of batch, dtype and storage do not change what it says."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ARCHITECTURE, pictures, tiny_unet

from textdiff.models.unet import UNet, timestep_embedding


@pytest.fixture(scope="module")
def unet() -> UNet:
    return tiny_unet()


def steps(count: int, value: int = 100) -> torch.Tensor:
    return torch.full((count,), value)


def test_blocks_come_in_the_order_asked_for(unet):
    with torch.inference_mode():
        maps = unet.decode(pictures(1), steps(1), range(4))
        backwards = unet.decode(pictures(1), steps(1), (3, 0))
    assert torch.equal(maps[0], backwards[1]) and torch.equal(maps[3], backwards[0])
    assert [h.shape[1] for h in maps] == unet.block_channels == [64, 64, 32, 32]
    assert [16 // h.shape[-1] for h in maps] == unet.block_strides == [2, 1, 1, 1]


def test_nothing_after_the_last_block_is_computed(unet):
    called = []
    hooks = [
        block.register_forward_hook(lambda *_, k=k: called.append(k))
        for k, block in enumerate([*unet.output_blocks, unet.out])
    ]
    try:
        with torch.inference_mode():
            unet.decode(pictures(1), steps(1), (1, 0))
        assert called == [0, 1]
        called.clear()
        with torch.inference_mode():
            unet(pictures(1), steps(1))
        assert called == [0, 1, 2, 3, 4]
    finally:
        for hook in hooks:
            hook.remove()


def test_a_batch_equals_single_images(unet):
    x, t = pictures(3), torch.tensor([0, 400, 999])
    with torch.inference_mode():
        together = unet(x, t)
        alone = torch.cat([unet(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_to_float32():
    x, exact, rounded = pictures(2), tiny_unet(), tiny_unet().bfloat16()
    with torch.inference_mode():
        a, b = exact(x, steps(2)), rounded(x, steps(2))
    assert b.dtype == torch.float32  # that of the images
    assert (a - b).square().mean().sqrt() < 0.03 * a.std()
    assert rounded.decode(x, steps(2), (0,))[0].dtype == torch.bfloat16


def test_class_conditional_network_needs_labels_and_obeys_them(unet):
    conditional = tiny_unet(num_classes=4)
    with torch.inference_mode():
        a, b = (conditional(pictures(1), steps(1), torch.tensor([k])) for k in (0, 3))
        assert not torch.allclose(a, b, atol=1e-3)
        with pytest.raises(ValueError, match="class-conditional: give labels y"):
            conditional(pictures(1), steps(1))
        with pytest.raises(ValueError, match="unconditional: give no labels y"):
            unet(pictures(1), steps(1), torch.tensor([0]))


@pytest.mark.parametrize("new_order", [False, True])
@pytest.mark.parametrize("conv_resample", [False, True])
def test_the_other_architectures_run(new_order, conv_resample):
    changes = dict(resblock_updown=False, conv_resample=conv_resample, use_scale_shift_norm=False)
    unet = tiny_unet(**changes, use_new_attention_order=new_order, num_head_channels=-1, num_heads=4)
    with torch.inference_mode():
        assert unet(pictures(1, 8), steps(1)).isfinite().all()
    assert any(key.endswith("op.weight") for key in unet.state_dict()) == conv_resample


def test_the_two_attention_orders_read_the_same_weights_differently():
    outputs = []
    for new_order in (False, True):
        unet = tiny_unet(use_new_attention_order=new_order)
        with torch.inference_mode():
            outputs.append(unet(pictures(1, 8), steps(1)))
    assert not torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 20}, r"\[20, 40\]: each must be a multiple of 32"),
        ({"attention_resolutions": (16,)}, r"attention_resolutions \[16\] .* they can be \[1, 2\]"),
        ({"num_head_channels": 48}, r"num_head_channels=48 does not divide the attention widths \[64, 64\]"),
        ({"num_head_channels": -1, "num_heads": 5}, "num_heads=5 does not divide"),
    ],
)
def test_contradicting_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{**ARCHITECTURE, **changes})


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (torch.zeros(1, 1, 16, 16), steps(1), r"must be \[B, 3, H, W\], got \(1, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16), steps(1), r"must be \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 15, 16), steps(1), r"image size 15x16: .* multiples of 2 .* would do is 16x16"),
        (torch.zeros(1, 3, 16, 13), steps(1), r"image size 16x13: .* is 16x12"),
        (torch.zeros(1, 3, 0, 16), steps(1), r"would do is 2x16"),
        (torch.zeros(2, 3, 16, 16), steps(1), r"timesteps must be \[2\], one for each image, got \(1,\)"),
        (torch.zeros(1, 3, 16, 16), torch.tensor(5), r"timesteps must be \[1\]"),
    ],
)
def test_unfitting_input_is_refused(unet, x, t, message):
    with pytest.raises(ValueError, match=message):
        unet(x, t)


@pytest.mark.parametrize("blocks", [(), (4,), (-1,), (0, 0)])
def test_blocks_that_do_not_exist_are_refused_with_the_range(unet, blocks):
    with pytest.raises(ValueError, match="this UNet has blocks 0 to 3 "):
        unet.decode(pictures(1), steps(1), blocks)


def test_timestep_embedding():
    embedding = timestep_embedding(torch.tensor([0, 3]), 7)
    assert embedding.shape == (2, 7) and embedding[0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert embedding[1, 0] == pytest.approx(-0.9899925) and embedding[1, 3] == pytest.approx(0.14112)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_saved_and_loaded(tmp_path, unet, dtype):
    unet.save_pretrained(tmp_path / "a" / "b", dtype)
    loaded = UNet.from_pretrained(tmp_path / "a" / "b")
    assert not loaded.training and loaded.config == unet.config
    for key, value in unet.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[key], value.to(dtype).float()), key
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]


def test_loading_from_nowhere_or_from_a_damaged_folder(tmp_path, unet):
    with pytest.raises(FileNotFoundError, match=r"no UNet in .*nowhere: config.json is missing"):
        UNet.from_pretrained(tmp_path / "nowhere")
    unet.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        UNet.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        UNet.from_pretrained(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(unet):
    with torch.inference_mode():
        there = tiny_unet().cuda()(pictures(2).cuda(), steps(2).cuda())
        torch.testing.assert_close(there.cpu(), unet(pictures(2), steps(2)), rtol=1e-2, atol=1e-2)

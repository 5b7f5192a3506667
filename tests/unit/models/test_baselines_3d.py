"""The baselines of volumes: called like TextDiffSeg's network, of any size, blind to prompts, able to learn."""

import pytest
import torch
from torch import nn

from textdiff.data.volumes.patches import Preprocessing, VolumeBatch
from textdiff.models.baselines import BASELINES_3D, PATCH, VolumeNetwork, build_baseline_3d
from textdiff.models.diffusion import Sampling

SMALL = (16, 24, 16)


def _fresh(name, **options):
    torch.manual_seed(0)
    return build_baseline_3d(name, **({"num_classes": 3, "patch": SMALL} | options))


@pytest.fixture(params=BASELINES_3D)
def model(request):
    return _fresh(request.param)


@pytest.mark.parametrize("size", [SMALL, (9, 21, 7)])
def test_logits_have_the_volumes_size(model, size):
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 4, *size), ["liver"])
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


def test_two_cells_along_the_first_axis_are_trained_in_float32():
    """There oneDNN's bfloat16 gradients are wrong, and now and then nan."""
    gradients = {}
    for precision in ("float32", "bfloat16"):
        model = _fresh("dynunet", precision=precision)
        torch.manual_seed(0)
        model(torch.randn(1, 4, *SMALL)).square().mean().backward()
        gradients[precision] = [p.grad for p in model.parameters()]
    assert all(map(torch.equal, *gradients.values()))


def test_a_volumes_logits_do_not_depend_on_its_batch(model):
    images = torch.randn(2, 4, *SMALL)
    with torch.no_grad():
        found = model(images, ["liver", "spleen"])[:1]
        torch.testing.assert_close(found, model(images[:1]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["dynunet", "unetr"])
def test_logits_are_float32_in_mixed_precision(name):
    model = _fresh(name, precision="bfloat16")
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        assert model(torch.randn(1, 4, *SMALL)).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}


def test_padding_repeats_the_edge_and_is_cut_off_where_it_was_added():
    model = _fresh("swin_unetr")
    model.net = nn.Identity()
    seen = []
    model.net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = torch.randn(1, 4, *PATCH)
    assert torch.equal(model(images), images)
    assert seen[0].shape == (1, 4, 64, 64, 64)
    assert torch.equal(seen[0][:, :, 0, 4:60, 12:52], images[:, :, 0])


def test_unetr_answers_larger_volumes_window_by_window():
    model = _fresh("unetr").eval()
    seen = []
    model.net.net.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        model(torch.randn(1, 4, 16, 60, 16))
    assert set(seen) == {(16, 32, 16)}
    assert len(seen) > 1


@pytest.mark.parametrize("name", BASELINES_3D)
def test_it_learns_one_volume_in_textdiffsegs_place_with_all_its_weights(name):
    model = VolumeNetwork(_fresh(name), ("background", "liver", "spleen"), Preprocessing(None, None, SMALL))
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 12e6
    target = torch.zeros(1, *SMALL, dtype=torch.int64)
    target[:, 4:12, 6:18, 4:12] = 1
    images = target[:, None] * 2 - 1 + 0.1 * torch.randn(1, 4, *SMALL)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(2):
        optimiser.zero_grad()
        losses.append(model.loss(VolumeBatch(images, target, None, [""]))["loss"])
        losses[-1].backward()
        optimiser.step()
        assert [name for name, p in model.named_parameters() if p.grad is None or p.ndim > 1 and not p.grad.any()] == []
    found = model.segment(images, ["x"], Sampling())
    assert not found.requires_grad and torch.allclose(found.sum(1), torch.ones(1, *SMALL), atol=1e-5)
    assert losses[1] < losses[0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="there are: segresnet, swin_unetr"):
        build_baseline_3d("unet", num_classes=2)
    with pytest.raises(ValueError, match="num_classes=1"):
        build_baseline_3d("dynunet", num_classes=1)
    with pytest.raises(ValueError, match=r"patch=\(40, 56\)"):
        build_baseline_3d("dynunet", num_classes=2, patch=(40, 56))
    with pytest.raises(ValueError, match="takes \\[B, C, D, H, W\\]"):
        _fresh("dynunet")(torch.zeros(1, 4, 32, 32))

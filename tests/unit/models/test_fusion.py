"""Cross-modal attention: shapes, what is refused, and that places matter only where they were asked for."""

from __future__ import annotations

import pytest
import torch

from textdiff.models.fusion import CrossAttention, CrossModalAttention
from textdiff.models.maps import PositionEncoding


def block(spatial_dims: int = 2, positions: bool = False, seed: int = 0) -> CrossModalAttention:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CrossModalAttention(spatial_dims, 12, 10, num_heads=2, head_dim=6, positions=positions).eval()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("space", [(4, 6), (1, 1), (3, 4, 2)])
@pytest.mark.parametrize("positions", [False, True])
def test_shape_is_kept_in_two_and_three_dimensions(space, positions):
    x, tokens = drawn(2, 12, *space), drawn(2, 5, 10)
    cross = block(len(space), positions)
    assert cross(x, tokens).shape == x.shape
    assert cross.attention(x, tokens).shape == (2, 5, *space)


def test_a_volume_is_treated_as_its_flattened_plane():
    """Without positions only the set of pixels matters: a volume and its unfolded plane give the same numbers."""
    x, tokens = drawn(1, 12, 2, 3, 4), drawn(1, 5, 10)
    torch.testing.assert_close(block(3)(x, tokens).flatten(2), block(2)(x.flatten(2, 3), tokens).flatten(2))


def test_attention_is_what_the_forward_pass_uses():
    """With one token of weight one, the block must be as if the others did not exist."""
    x, tokens = drawn(1, 12, 3, 3), drawn(1, 4, 10)
    only = torch.tensor([[False, True, False, False]])
    torch.testing.assert_close(block()(x, tokens, only), block()(x, tokens[:, 1:2]))
    assert block().attention(x, tokens, only)[:, 1].eq(1).all()


def test_attention_is_the_mean_of_both_attentions():
    """Keys of zero make an attention uniform: what then differs from 1/4 must come from the other one."""
    x, tokens = drawn(1, 12, 3, 3), drawn(1, 4, 10)
    for silent, speaking in (("attn1", "attn2"), ("attn2", "attn1")):
        cross = block()
        torch.nn.init.zeros_(getattr(cross, silent).to_k.weight)
        assert (cross.attention(x, tokens) - 1 / 4).abs().max() > 1e-2
        torch.nn.init.zeros_(getattr(cross, speaking).to_k.weight)
        torch.testing.assert_close(cross.attention(x, tokens), torch.full((1, 4, 3, 3), 1 / 4))


def test_the_text_matters_and_every_parameter_learns():
    cross, x = block(positions=True).train(), drawn(1, 12, 3, 3)
    assert not torch.allclose(cross(x, drawn(1, 4, 10, seed=1)), cross(x, drawn(1, 4, 10, seed=2)), atol=1e-3)
    (cross(x, drawn(1, 4, 10)) ** 3).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cross.parameters())


def test_positions_make_the_output_depend_on_the_place():
    x, tokens = torch.ones(1, 12, 4, 4), drawn(1, 5, 10)
    same, placed = block()(x, tokens), block(positions=True)(x, tokens)
    torch.testing.assert_close(same, same[:, :, :1, :1].expand_as(same))
    pixels = placed.flatten(2)[0].T
    assert torch.cdist(pixels, pixels).add(torch.eye(16) * 9).min() > 1e-3  # no two places alike


def test_a_place_is_encoded_alike_at_every_size():
    encode = PositionEncoding(2, 12)
    small, large = (encode(torch.Size(s), torch.device("cpu")) for s in ((4, 4), (12, 12)))
    torch.testing.assert_close(small, large[:, :, 1::3, 1::3])  # pixel centres that coincide


@pytest.mark.parametrize(
    ("x", "tokens", "mask", "message"),
    [
        ((2, 12, 4), (2, 5, 10), None, r"maps must have 2 spatial dimensions, got \(2, 12, 4\)"),
        ((2, 12, 4, 4, 4), (2, 5, 10), None, "maps must have 2 spatial dimensions"),
        ((2, 12, 4, 4), (5, 10), None, r"tokens must be \[2, L, D\], one row per image, got \(5, 10\)"),
        ((2, 12, 4, 4), (1, 5, 10), None, r"tokens must be \[2, L, D\]"),
        ((2, 12, 4, 4), (2, 5, 10), (2, 4), r"mask must be \(2, 5\) like the tokens, got \(2, 4\)"),
    ],
)
def test_unfitting_shapes_are_refused(x, tokens, mask, message):
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    for method in (block(), block().attention):
        with pytest.raises(ValueError, match=message):
            method(torch.zeros(x), torch.zeros(tokens), mask)
    with pytest.raises(ValueError, match="no token left to read"):
        block()(drawn(2, 12, 2, 2), drawn(2, 2, 10), torch.tensor([[True, True], [False, False]]))
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        CrossModalAttention(4, 12, 10)


def test_the_words_that_are_shown_are_those_that_are_read(monkeypatch):
    fusion, x, tokens, mask = block(), drawn(2, 12, 3, 4), drawn(2, 5, 10), torch.ones(2, 5, dtype=torch.bool)
    torch.nn.init.normal_(fusion.norm2.weight)  # all normalisations begin alike
    read, weights = [], CrossAttention.weights
    monkeypatch.setattr(CrossAttention, "weights", lambda *args: read.append(weights(*args)) or read[-1])
    with torch.no_grad():
        fusion(x, tokens, mask)
        expected = sum(one.mean(dim=2) for one in read) / 2
        assert len(read) == 2 and not torch.allclose(read[0], read[1])
        shown = fusion.attention(x, tokens, mask)
    torch.testing.assert_close(shown, expected.transpose(1, 2).unflatten(2, (3, 4)))

"""What holds of cross-modal attention for any sizes and any mask."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.models.fusion import CrossModalAttention

torch.manual_seed(0)
BLOCKS = {dims: CrossModalAttention(dims, 8, 6, num_heads=2, head_dim=4).eval() for dims in (2, 3)}


@st.composite
def inputs(draw):
    dims, batch, length = draw(st.sampled_from([2, 3])), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    space = draw(st.lists(st.integers(1, 4), min_size=dims, max_size=dims))
    rows = st.lists(st.booleans(), min_size=length, max_size=length).filter(any)
    mask = torch.tensor(draw(st.lists(rows, min_size=batch, max_size=batch)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    x = torch.randn(batch, 8, *space, generator=generator)
    return BLOCKS[dims], x, torch.randn(batch, length, 6, generator=generator), mask, generator


@settings(max_examples=25, deadline=None)
@given(inputs())
@torch.no_grad()
def test_masked_tokens_have_no_influence_at_all(drawn):
    block, x, tokens, mask, _ = drawn
    disturbed = torch.where(mask[..., None], tokens, torch.full_like(tokens, 1e4))
    assert torch.equal(block(x, tokens, mask), block(x, disturbed, mask))


@settings(max_examples=25, deadline=None)
@given(inputs())
@torch.no_grad()
def test_the_order_of_the_tokens_does_not_matter(drawn):
    block, x, tokens, mask, generator = drawn
    order = torch.randperm(tokens.shape[1], generator=generator)
    torch.testing.assert_close(block(x, tokens, mask), block(x, tokens[:, order], mask[:, order]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        block.attention(x, tokens, mask)[:, order],
        block.attention(x, tokens[:, order], mask[:, order]),
        rtol=1e-4,
        atol=1e-5,
    )


@settings(max_examples=25, deadline=None)
@given(inputs())
@torch.no_grad()
def test_attention_is_a_distribution_over_the_tokens_that_may_be_read(drawn):
    block, x, tokens, mask, _ = drawn
    weights = block.attention(x, tokens, mask)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]))
    assert weights.flatten(2)[~mask].eq(0).all()

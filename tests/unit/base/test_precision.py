"""bfloat16 on a processor without units for it: the numbers of autocast, by products in float32."""

import pytest
import torch
import torch.nn.functional as F
from multiplied import Multiplied
from torch import nn
from torch.utils.checkpoint import checkpoint

from textdiff.base import precision
from textdiff.base.precision import again, mixed_precision


@pytest.fixture(autouse=True)
def no_units(monkeypatch):
    monkeypatch.setattr(precision, "BFLOAT16_UNITS", False)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def conv(dims: int, transposed: bool = False):
    torch.manual_seed(0)
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    return kind(4, 8, 3), (2, 4, *[7] * dims)


PRODUCTS = {
    **{f"conv{dims}d": conv(dims) for dims in (1, 2, 3)},
    **{f"transposed conv{dims}d": conv(dims, True) for dims in (1, 2, 3)},
    "linear": (nn.Linear(9, 5), (2, 3, 9)),
    "@": (lambda x: x @ x.transpose(1, 2), (2, 3, 9)),
    "matmul": (lambda x: torch.matmul(x, x.transpose(1, 2)), (2, 3, 9)),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), (2, 3, 9)),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), (2, 3, 9)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), (2, 4, 3, 8)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_gradients_are_those_of_autocast(name):
    work, shape = PRODUCTS[name]

    def both(context):
        x = drawn(*shape).requires_grad_()
        with context:
            y = work(x)
        (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
        return y, gradient

    (ours, slope), (theirs, expected) = (
        both(mixed_precision("cpu", "bfloat16")),
        both(torch.autocast("cpu", torch.bfloat16)),
    )
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-6)  # bfloat16 has steps of 2 ** -8 of a number
    assert (slope - expected).norm() < 0.01 * expected.norm()


def test_no_product_is_made_in_bfloat16():
    layer, x = nn.Conv2d(4, 8, 3), drawn(1, 4, 6, 6)
    with Multiplied() as seen:
        with mixed_precision("cpu", "bfloat16"):
            y = layer(x)
        y.float().sum().backward()
    assert len(seen.dtypes) >= 5 and set(seen.dtypes) == {torch.float32}


def test_weights_in_bfloat16_are_read_too():
    layer, x = nn.Conv2d(4, 8, 3).bfloat16(), drawn(1, 4, 6, 6)
    with mixed_precision("cpu", "bfloat16"):
        assert layer(x).dtype == torch.bfloat16


def test_where_autocast_is_off_nothing_is_rounded():
    layer, x = nn.Linear(9, 5), drawn(3, 9)
    with mixed_precision("cpu", "bfloat16"), torch.autocast("cpu", enabled=False):
        inside = layer(x)
    assert torch.equal(inside, layer(x))


def test_float64_stays():
    x = drawn(3, 9).double()
    with mixed_precision("cpu", "bfloat16"):
        assert torch.equal(x @ x.T, x.matmul(x.T)) and (x @ x.T).dtype == torch.float64


def test_what_is_computed_again_is_computed_alike():
    kinds = []

    def read(x):
        kinds.append(len(torch.overrides._get_current_function_mode_stack()))
        return F.linear(x, weight)

    x, weight = drawn(3, 9).requires_grad_(), drawn(5, 9)
    with mixed_precision("cpu", "bfloat16"):
        y = checkpoint(read, x, use_reentrant=False, preserve_rng_state=False, **again("cpu"))
    y.float().sum().backward()
    assert kinds == [1, 1]


def test_nothing_is_added_to_what_is_computed_again_elsewhere(monkeypatch):
    assert again("cpu") == {}
    with mixed_precision("cpu", "bfloat16"):
        assert again("cuda") == {} and again("cpu") != {}
        monkeypatch.setattr(precision, "BFLOAT16_UNITS", True)
        assert again("cpu") == {}


def test_two_cells_are_rounded_where_nothing_is_trained():
    layer, x = nn.Linear(9, 5), drawn(3, 9)
    for training, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        with torch.set_grad_enabled(training), mixed_precision("cpu", "bfloat16", cells=2):
            assert layer(x).dtype == dtype


def test_factors_given_by_name_are_rounded_too():
    x, weight = drawn(3, 9), drawn(5, 9) * 1.7
    with mixed_precision("cpu", "bfloat16"):
        assert torch.equal(F.linear(input=x, weight=weight), F.linear(x, weight))

"""`agrees` says how far two tensors lie apart, and stops where that is too far."""

from __future__ import annotations

import pytest
import torch

from textdiff.base.agreement import agrees


def test_the_largest_difference_is_printed(capsys):
    agrees(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25]), "Part", within=0.5)
    assert capsys.readouterr().out == "Part: the largest difference is 2e-01\n"


@pytest.mark.parametrize("wrong", [2e-6, float("nan"), float("inf")])
def test_a_number_that_is_off_stops_the_page(wrong):
    with pytest.raises(AssertionError, match="Part differs by"):
        agrees(torch.zeros(3), torch.tensor([0.0, wrong, 0.0]), "Part")


def test_shapes_are_not_broadcast():
    with pytest.raises(AssertionError, match=r"\(2, 1\), built is \(1, 2\)"):
        agrees(torch.zeros(1, 2), torch.zeros(2, 1), "Part")

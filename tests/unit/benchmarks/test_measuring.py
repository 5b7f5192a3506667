"""Measuring trivial work: turns, counts, memory, and what becomes of a side that fails."""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.measuring import (
    COLUMNS,
    Measured,
    Memory,
    Row,
    Seconds,
    alternately,
    ceiling,
    largest_difference,
    slope,
)


def noted(turns: list[str], name: str):
    return lambda: turns.append(name)


def product(n: int):
    one, other = torch.ones(n, n), torch.ones(n, n)
    return lambda: one @ other


def attention(train: bool):
    q, k, v = (torch.randn(1, 2, 64, 32, requires_grad=train) for _ in range(3))

    def once():
        read = torch.nn.functional.scaled_dot_product_attention(q, k, v).sum()
        return torch.autograd.grad(read, (q, k, v))[0] if train else read

    return once


def holding(megabytes: int):
    return lambda: torch.ones(megabytes, 250_000).sum()


def failing():
    raise ValueError("there is no such side")


def dying():
    return partial(os._exit, 3)


def sleeping(seconds: float):
    return partial(time.sleep, seconds)


@pytest.mark.parametrize(("warm_up", "times"), [(True, 4), (False, 2)])
@pytest.mark.parametrize("count", [True, False])
def test_sides_take_turns(warm_up, times, count):
    turns: list[str] = []
    sides = {name: partial(noted, turns, name) for name in ("a", "b")}
    found = alternately(sides, repeats=2, apart=False, warm_up=warm_up, count=count)
    assert turns == ["a", "b"] * (times - (warm_up and not count))
    assert {len(one.seconds) for one in found.values()} == {2}


def test_one_long_time_is_not_counted():
    found = alternately({"product": partial(product, 8)}, repeats=1, apart=False, warm_up=False)["product"]
    assert found.counts is None and len(found.seconds) == len(found.results) == 1
    assert not [row for row in found.rows("work", "side", "cpu") if row.unit in ("GFLOP", "GB")]


def test_operations_and_bytes_are_counted():
    found = alternately({"product": partial(product, 100)}, repeats=1, apart=False)["product"]
    assert found.counts.gflop == pytest.approx(2e6 / 1e9)
    assert found.counts.gigabytes == pytest.approx(3 * 40_000 / 1e9)
    assert found.memory is None and (found.results[0] == 100).all()


@pytest.mark.parametrize("train", [False, True])
def test_fused_attention_is_counted(train):
    found = alternately({"attention": partial(attention, train)}, repeats=1, apart=False)["attention"]
    products = 2 + 5 * train  # the gradient computes the scores again
    assert found.counts.gflop == pytest.approx(products * 2 * 2 * 64 * 64 * 32 / 1e9)


def test_seconds_are_of_the_work():
    found = alternately({"sleep": partial(sleeping, 0.05)}, repeats=1, apart=False)["sleep"]
    assert found.best >= 0.05 > found.seconds[0].processor


def test_each_side_has_memory_of_its_own():
    found = alternately({"large": partial(holding, 300), "small": partial(holding, 1)}, repeats=1)
    large, small = (found[name].memory for name in ("large", "small"))
    assert large.peak - small.peak > 250
    assert large.imports > 50 and large.device is None


@pytest.mark.parametrize(("build", "said"), [(failing, "there is no such side"), (dying, "ended without an answer")])
def test_a_side_that_fails_is_an_error(build, said):
    with pytest.raises(RuntimeError, match=said):
        alternately({"wrong": build}, repeats=1)


def test_rows_say_the_best_and_the_spread():
    seconds = [Seconds(3.0, 6.0), Seconds(1.0, 2.0), Seconds(2.0, 4.0)]
    counts = alternately({"product": partial(product, 8)}, repeats=1, apart=False)["product"].counts
    rows = Measured(seconds, counts, Memory(100.0, 50.0), []).rows("work", "side", "cpu", "a note")
    assert [row.quantity for row in rows] == ["wall s", "processor s", "GFLOP", "GB moved", "imports MB", "peak MB"]
    assert rows[0] == Row("work", "side", "wall s", 1.0, "s", 3, (1.0, 3.0), "cpu", "a note")
    assert [row.value for row in rows[-2:]] == [100.0, 50.0]
    gpu = Measured([Seconds(3.0, 6.0, 0.5)], counts, Memory(1.0, 2.0, 3.0), []).rows("work", "side", "cuda")
    assert {"device s": 0.5, "device peak MB": 3.0}.items() <= {row.quantity: row.value for row in gpu}.items()


def test_a_row_is_one_line_of_the_table():
    record = Row("work", "side", "wall s", 1.0, "s", 3, (1.0, 3.0), "cpu", "a note").as_record()
    assert tuple(record) == COLUMNS
    assert list(record.values()) == ["work", "side", "wall s", 1.0, "s", 1.0, 3.0, 3, "cpu", "a note"]
    assert Row("work", "side", "wall s", 1.0, "s").as_record()["low"] is None


def test_the_ceiling_is_of_both_precisions_and_of_memory():
    rows = ceiling(side=64, repeats=1, apart=False)
    assert [(row.work, row.side, row.unit) for row in rows] == [
        ("ceiling", "float32", "GFLOP/s"),
        ("ceiling", "bfloat16", "GFLOP/s"),
        ("ceiling", "memory", "GB/s"),
    ]
    assert all(row.value > 0 for row in rows)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_slope_is_the_power(power):
    sizes = [1.0, 4.0, 16.0]
    assert slope(sizes, [3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-9)


def test_differences_are_in_standard_deviations():
    reference = np.array([[-2.0, 2.0]])
    assert largest_difference(reference + 0.1, reference) == pytest.approx(0.05)

"""Work in parts that fit, and what a card may keep."""

from __future__ import annotations

import pytest
import torch

from textdiff.base.memory import Fitting, Pool, sent


class Card:
    """Squares numbers; takes so many at once."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def work(self, numbers):
        def in_parts(parts):
            found = []
            for part in parts:
                self.asked.append(len(numbers[part]))
                if len(numbers[part]) > self.most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                found.append(numbers[part] ** 2)
            return torch.cat(found)

        return in_parts


@pytest.mark.parametrize("count", [1, 2, 7, 8, 13])
@pytest.mark.parametrize("most", [1, 3, 8, 99])
def test_every_sample_goes_through_once_in_parts_that_fit(count, most, caplog):
    numbers, card, fitting = torch.arange(count), Card(most), Fitting("images")
    assert torch.equal(fitting.run(card.work(numbers), count), numbers**2)
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.startswith("out of memory with ") for line in lines) and bool(lines) == (count > most)
    card.asked.clear()
    assert torch.equal(fitting.run(card.work(numbers), count), numbers**2)
    assert max(card.asked) <= most and sum(card.asked) == count  # what fitted is remembered


def test_one_line_says_what_is_done(caplog):
    Fitting("images").run(Card(4).work(torch.arange(8)), 8)
    assert [r.getMessage() for r in caplog.records] == ["out of memory with 8 images at once, going on with 4"]


def test_what_cannot_be_helped_is_said_to_people():
    with pytest.raises(MemoryError, match="out of memory with a single one of the images: choose a smaller size"):
        Fitting("images").run(Card(0).work(torch.arange(4)), 4)
    with pytest.raises(MemoryError, match="4 images at once, which cannot be split: it is one"):
        Fitting("images", "it is one").run(Card(2).work(torch.arange(4)), 4)
    with pytest.raises(RuntimeError, match="something else"):
        Fitting().run(lambda parts: (_ for _ in ()).throw(RuntimeError("something else")), 4)


def test_what_failed_is_let_go_before_it_is_tried_again():
    """Else its tensors would be in the way: they hang on the frames of the exception."""
    alive = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def work(parts):
        assert not alive
        held = Held()
        if len(parts) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return held is not None

    assert Fitting().run(work, 4)


@pytest.mark.parametrize(("free", "stays"), [(4 * 4000, True), (4 * 4000 - 4, False)])
def test_a_card_keeps_a_quarter_of_what_is_free(monkeypatch, free, stays):
    asked, pixels = [], torch.zeros(1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (free, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: (tensor, str(device)))
    pool, card = Pool(pixels), torch.device("cuda:0")
    for _ in range(3):
        (near,) = pool.near(card)
        assert near is pixels if not stays else near == (pixels, "cuda:0")
    assert asked == [card]  # once: what is free then changes


def test_the_processor_has_its_tensors_already():
    pixels = torch.arange(3)
    assert Pool(pixels).near(torch.device("cpu"))[0] is pixels and sent(pixels, torch.device("cpu")) is pixels
    assert Pool(pixels).near(torch.device("meta"))[0].device.type == "meta"

"""One training over two processes on this machine (gloo): the same steps as one process, the same end whoever goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from many_processes import USES, curve, together, train
from safetensors.torch import load_file
from torch import Tensor

from textdiff.base.draws import PartGenerator, drawn
from textdiff.base.processes import Processes, processes
from textdiff.training import fit as fit_module

pytest.importorskip("accelerate", reason="the extra 'parallel' is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[tuple[int, str]]]:
    """The files that two processes have left, and how they ended."""
    folder = tmp_path_factory.mktemp("processes")
    return folder, together(folder)


def state(folder: Path, name: str, index: int) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.{index}.safetensors")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Up to the rounding of sums. All together: a bias before a normalisation has no gradient but rounding, and wanders."""
    apart, length = (
        torch.stack([part.double().square().sum() for part in parts]).sum().sqrt()
        for parts in ([one[name] - other[name] for name in other], other.values())
    )
    assert apart < 1e-3 * length


@pytest.mark.parametrize("use", USES)
def test_two_processes_take_the_steps_of_one(trained, use, tmp_path):
    folder, _ = trained
    model, history = train(use, tmp_path)
    main, other = (state(folder, f"{use}-straight", index) for index in (0, 1))
    assert_same(main, other)  # weights, that is the best of the averages, and losses
    ours = curve(history)
    assert main["curve"].shape == ours.shape
    torch.testing.assert_close(main["curve"][0], ours[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(main["curve"], ours, rtol=2e-4, atol=1e-5)
    assert_close(model.state_dict() | {"curve": ours}, main)


@pytest.mark.parametrize("use", USES)
def test_a_run_goes_on_with_as_many_processes_to_the_bit_and_with_others_up_to_rounding(trained, use):
    folder, _ = trained
    straight = state(folder, f"{use}-straight", 0)
    for index in (0, 1):
        assert_same(state(folder, f"{use}-2-2", index), straight)
    changed = state(folder, f"{use}-2-1-2", 0)
    assert_same(changed, state(folder, f"{use}-2-1-2", 1))
    torch.testing.assert_close(changed["curve"], straight["curve"], rtol=2e-4, atol=1e-5)
    assert_close(changed, straight)


def test_one_process_that_fails_ends_all(trained):
    _, ((main, said), (failed, why)) = trained
    assert main == failed == 1
    assert "another process of this training has ended, so this one ends too" in said
    assert why.strip().endswith("Stop")


def test_batch_normalisation_is_refused(trained):
    for index in (0, 1):
        said = (trained[0] / f"refused.{index}").read_text()
        assert said.startswith("2 processes cannot divide a batch: batch normalisation sees the whole batch")


def test_a_process_that_begins_elsewhere_is_refused(tmp_path, monkeypatch):
    """Here the one that does not see the checkpoint; what the main process tells is given."""
    main = Processes()
    main.count, main.index, steps = 2, 1, iter([40.0, 0.0])
    monkeypatch.setattr(main, "told", lambda work: next(steps))
    monkeypatch.setattr(fit_module, "processes", lambda: main)
    with pytest.raises(
        ValueError, match="process 1 begins at step 0 and the main one at step 40, or with other weights"
    ):
        train("textdiff", tmp_path)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cpu:1"])
def test_another_device_than_the_launchers_is_refused(device):
    one = Processes()
    one.device = torch.device("cpu")
    one.check_device("cpu")
    with pytest.raises(ValueError, match=f"device='{device}', but the launcher gave this process 'cpu'"):
        one.check_device(device)


# --- parts of a batch in one process ----------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
def test_parts_for_want_of_memory_draw_what_the_whole_batch_draws(use, tmp_path):
    def narrow(loss):
        def part(batch, generator):
            if len(batch if isinstance(batch, Tensor) else batch.images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return loss(batch, generator)

        return part

    few = {"stop": 9**9, "iterations": 4}
    (whole, expected), (parts, found) = (train(use, tmp_path, wrap=wrap, **few) for wrap in (None, narrow))
    torch.testing.assert_close(curve(found)[0], curve(expected)[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(curve(found), curve(expected), rtol=2e-4, atol=1e-5)
    assert_close(*({k: v for k, v in m.state_dict().items() if v.is_floating_point()} for m in (parts, whole)))


@pytest.mark.parametrize(
    ("draw", "options"), [(torch.randn, {}), (torch.rand, {}), (torch.randn, {"dtype": torch.float64})]
)
def test_parts_have_the_rows_of_the_whole(draw, options):
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    whole = seeded()
    expected = [drawn(draw, [7, 3], whole, **options) for _ in range(2)]
    plain = seeded()
    assert all(torch.equal(one, draw((7, 3), generator=plain, **options)) for one in expected)  # the stream as it is
    alone = []
    for start, stop in ((0, 2), (2, 3), (3, 7)):
        generator = PartGenerator(seeded(), slice(start, stop), 7)
        for one in expected:
            assert torch.equal(drawn(draw, [stop - start, 3], generator, **options), one[start:stop])
        alone.append(float(torch.rand((), generator=generator)))  # drawn directly: each part its own
    assert len(set(alone)) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_all_samples_once_and_as_even_as_can_be(count):
    for size in range(count, 20):
        team = [Processes() for _ in range(count)]
        for index, one in enumerate(team):
            one.count, one.index = count, index
        shares = [list(range(size))[one.share(size)] for one in team]
        assert sum(shares, []) == list(range(size))
        assert {len(share) for share in shares} <= {size // count, -(-size // count)}
    with pytest.raises(ValueError, match=f"batch_size={count - 1} cannot be divided among {count} processes"):
        team[0].share(count - 1)


def test_without_a_launcher_accelerate_is_not_asked_for_and_with_one_its_absence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    processes.cache_clear()
    assert processes().count == 1 and processes().main
    processes.cache_clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(RuntimeError, match=r"one of 2 processes .* accelerate: install it \(pip install"):
        processes()
    monkeypatch.undo()
    processes.cache_clear()

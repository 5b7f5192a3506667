"""Compiled or not: the same numbers to a stated tolerance, and no training that stops because something cannot be compiled."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from textdiff.base.compiling import PAYS_FROM, compile_choice, compiled

TOLERANCE = 1e-6  # of gradients of about 1, in float32


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def step(module: nn.Module) -> list[torch.Tensor]:
    """Gradients of a step whose dropout follows from the seed, and what is drawn after it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module.zero_grad()
        module(torch.ones(3, 4)).square().sum().backward()
        return [*(parameter.grad.clone() for parameter in module.parameters()), torch.rand(2)]


@pytest.fixture
def recorded(monkeypatch):
    """In place of torch.compile: what was to be compiled, and how often it was called."""
    calls: list = []

    def compile(forward, **options):
        calls.append("compile")

        def fast(*args, **kwargs):
            calls.append("call")
            return forward(*args, **kwargs)

        return fast

    monkeypatch.setattr(torch, "compile", compile)
    return calls


@pytest.mark.parametrize("word", ["auto", "on", "off"])
def test_the_choice_of_the_place(monkeypatch, word):
    monkeypatch.setenv("TEXTDIFF_COMPILE", f" {word} ")
    assert compile_choice() == word
    monkeypatch.setenv("TEXTDIFF_COMPILE", "")
    assert compile_choice() == "auto"
    monkeypatch.setenv("TEXTDIFF_COMPILE", "yes")
    with pytest.raises(ValueError, match="TEXTDIFF_COMPILE='yes': choose one of auto, on, off"):
        compile_choice()


@pytest.mark.parametrize(
    ("how", "device", "steps", "expected"),
    [
        ("off", "cuda", 10**6, False),
        ("on", "cpu", 1, True),
        ("auto", "cpu", 10**6, False),
        ("auto", "cuda:1", PAYS_FROM, True),
        ("auto", "cuda", PAYS_FROM - 1, False),
    ],
)
def test_where_it_pays(recorded, monkeypatch, how, device, steps, expected):
    module = network()
    monkeypatch.setenv("TEXTDIFF_COMPILE", how)
    with compiled(module, device, steps):
        step(module)
        assert ("call" in recorded) == expected
    recorded.clear()
    step(module)
    assert not recorded and "forward" not in vars(module)  # as it was


def test_evaluation_is_not_compiled_and_the_state_keeps_its_names(recorded):
    module = network()
    names = list(module.state_dict())
    with compiled(module, "cpu", 1, "on"):
        with torch.no_grad():
            module.eval()(torch.ones(5, 4))
        assert recorded == ["compile"] and list(module.state_dict()) == names
        step(module.train())
    assert recorded == ["compile", "call"]


def test_a_failure_costs_one_line_and_no_random_number(monkeypatch, caplog):
    def cannot(forward, **options):
        def fast(*args):
            torch.rand(7)
            raise RuntimeError("no working C++ compiler\nSet SOMETHING=1 for more")

        return fast

    module, expected = network(), step(network())
    monkeypatch.setattr(torch, "compile", cannot)
    with compiled(module, "cpu", 1, "on"):
        for _ in range(2):
            assert all(map(torch.equal, step(module), expected))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "Sequential is not compiled (no working C++ compiler); it goes on as it is"


def test_memory_that_is_missing_is_no_failure_to_compile(monkeypatch, caplog):
    def short(forward, **options):
        def fast(*args):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return fast

    monkeypatch.setattr(torch, "compile", short)
    module = network()
    with compiled(module, "cpu", 1, "on"), pytest.raises(torch.OutOfMemoryError):
        step(module)
    assert not caplog.records


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a processor")
def test_compiled_and_not_agree():
    module, expected = network(), step(network())
    with compiled(module, "cpu", 1, "on"):
        found = step(module)
        assert module.forward.proven
    assert all(torch.allclose(a, b, atol=TOLERANCE) for a, b in zip(found, expected, strict=True))


def test_a_compiler_that_is_not_there_stops_nothing(tmp_path, monkeypatch, caplog):
    """A real failure, of torch's own making."""
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-such-compiler"),))
    torch._dynamo.reset()
    module, expected = network(), step(network())
    with compiled(module, "cpu", 1, "on"):
        assert all(map(torch.equal, step(module), expected))
    (line,) = (r.getMessage() for r in caplog.records if r.name == "textdiff.base.compiling")
    assert line.startswith("Sequential is not compiled (") and line.endswith("); it goes on as it is")
    torch._dynamo.reset()

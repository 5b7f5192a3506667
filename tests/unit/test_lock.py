"""The lock: which versions are asked for and what is written, without a package index."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import lock
import pytest

FREEZE = "numpy==2.4.0\nnvidia-cublas==13\npip==25.0\ntimm==1.9.9\ntorch==2.99.0+cpu\nuv==0.13.9\n"


@pytest.mark.parametrize(
    ("words", "torch", "timm"), [([], lock.TORCH, lock.TIMM), (["--latest"], "torch", "timm")], ids=["pinned", "latest"]
)
def test_torch_and_timm_are_pinned_unless_the_latest_are_asked_for(words, torch, timm, monkeypatch):
    asked, written = [], {}

    def run(command, **_):
        asked.append(command[3:])
        return SimpleNamespace(stdout=FREEZE)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(lock, "write", lambda path, text: written.update({path.name: text}))
    lock.main(words)
    _, everything, alone, _ = asked
    assert (
        everything[2] == torch and "typer>=0.15.4" in everything and alone == ["install", "--quiet", "--no-deps", timm]
    )
    assert sorted(written) == ["requirements-cpu.txt", "requirements-cuda.txt"]
    for text in written.values():
        assert text.endswith("\n# no-deps: timm==1.9.9\nnumpy==2.4.0\ntorch==2.99.0\nuv==0.13.9\n")

"""Weights on disk: whole or not at all, no code ever run, and errors that say what does not fit."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch
from torch import nn

from textdiff.base.checkpoints import (
    check_fit,
    fingerprint,
    load_strict,
    read_checkpoint,
    read_json,
    write_atomically,
    write_checkpoint,
    write_text,
)

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_what_is_written_is_read(tmp_path, name):
    path = tmp_path / "new" / name
    if name.endswith(".pt"):
        path.parent.mkdir()
        torch.save(STATE, path)
    else:
        write_checkpoint(path, STATE, {"about": "a test"})
    read = read_checkpoint(path)
    assert read.keys() == STATE.keys() and all(torch.equal(read[key], STATE[key]) for key in STATE)


def test_views_and_strides_are_written_as_they_look(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    write_checkpoint(tmp_path / "w.safetensors", {"t": base.T, "row": base[1]})
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert torch.equal(read["t"], base.T) and torch.equal(read["row"], base[1])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "w.txt"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise OSError(errno.ENOSPC, "no room")

    with pytest.raises(OSError, match=r"no room: '.*w\.txt'$"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["w.txt"]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_truncated_files_are_named(tmp_path, name, share):
    path = tmp_path / name
    torch.save(STATE, path) if name == "w.pt" else write_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{name}.*(truncated|damaged)"):
        read_checkpoint(path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.takes("Model files", "a pickle that holds code: it is not run", "refused")
@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, plain):
    evidence, path = tmp_path / "was_run", tmp_path / "w.pth"
    if plain:
        path.write_bytes(pickle.dumps({"a": Malicious(evidence)}))
    else:
        torch.save({"a": torch.zeros(1), "b": Malicious(evidence)}, path)
    evidence.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"w.pth .*never run|w.pth cannot be read"):
        read_checkpoint(path)
    assert not evidence.exists()


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.zeros(1)}}, [torch.zeros(1)], {"epoch": 3}])
def test_files_without_a_flat_state_dict_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"no flat state dict .* but a {type(content).__name__}"):
        read_checkpoint(tmp_path / "w.pt")
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*x.pt"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.takes("Model files", "weights of another network", "refused")
def test_load_strict_lists_what_does_not_fit_and_changes_nothing():
    module = nn.Linear(3, 2)
    load_strict(module, {"weight": torch.ones(2, 3).half(), "bias": torch.ones(2).half()}, "here")
    assert module.weight.dtype == torch.float32 and module.weight.eq(1).all()
    state = {"weight": torch.zeros(3, 3), "extra": torch.zeros(1)}
    for function in (load_strict, check_fit):
        with pytest.raises(ValueError) as error:
            function(module, state, "the test")
        lines = str(error.value).splitlines()
        assert lines[0] == "the weights from the test do not fit this Linear:"
        assert [line.strip() for line in lines[1:]] == [
            "missing (1): bias",
            "unexpected (1): extra",
            "of another shape (1): weight (3, 3) instead of (2, 3)",
        ]
    assert module.weight.eq(1).all()
    check_fit(nn.Linear(3, 2, device="meta"), {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(value):
    state = {"weight": torch.ones(2, 3), "bias": torch.tensor([0.0, value])}
    for function in (load_strict, check_fit):
        with pytest.raises(ValueError, match=r"from here do not fit this Linear:\n  with nan or infinity \(1\): bias$"):
            function(nn.Linear(3, 2), state, "here")


def test_long_lists_of_keys_are_cut():
    with pytest.raises(ValueError, match=r"unexpected \(14\): .* and 4 more$"):
        load_strict(nn.Identity(), {f"key{i}": torch.zeros(1) for i in range(14)}, "here")


def test_fingerprint_sees_every_difference_but_not_the_order():
    base = fingerprint(STATE)
    assert base == fingerprint(dict(reversed(STATE.items()))) and len(base) == 16
    changed = [
        {**STATE, "a": STATE["a"] + torch.eye(2, 3) * 1e-6},
        {**STATE, "a": STATE["a"].reshape(3, 2)},
        {**STATE, "a": STATE["a"].double()},
        {"c": STATE["a"], "b": STATE["b"]},
    ]
    assert len({base, *map(fingerprint, changed)}) == 5
    assert fingerprint({"a": torch.zeros(2, dtype=torch.bfloat16), "b": torch.tensor(1.0)})


@pytest.mark.parametrize(("content", "message"), [("{", "is damaged"), ("[1]", "holds a list"), ("", "is damaged")])
def test_json_that_is_damaged_or_no_object(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"config.json {message}"):
        read_json(tmp_path / "config.json")

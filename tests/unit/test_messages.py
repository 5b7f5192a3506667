"""Whatever goes wrong in a command is one line for a person; what is warned of is a line without places in the code."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import typer

from textdiff.base.memory import Fitting
from textdiff.base.parsing import numbers
from textdiff.messages import during, messages_as_lines, one_line


def said_of(error: BaseException | type[BaseException], capsys, doing: str = "") -> str:
    """The line that a person reads of an error that a library raised; it must be one."""
    with pytest.raises(typer.Exit) as ended, one_line():
        if doing:
            with during(doing):
                raise error
        raise error
    told = capsys.readouterr().err
    assert ended.value.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert told.startswith("textdiff: ") and told.count("\n") == 1
    return told


TORCH = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (KeyError("head"), ["while reading m: unexpected KeyError: 'head'", "--debug"]),
        (AssertionError(), ["unexpected AssertionError", "--debug"]),
        (IndexError("list index\nout of range"), ["unexpected IndexError: list index out of range"]),
        (zipfile.BadZipFile("File is not a zip file"), ["unexpected BadZipFile"]),
        (pickle.UnpicklingError("invalid load key"), ["unexpected UnpicklingError"]),
        (json.JSONDecodeError("Expecting value", "{", 1), ["unexpected JSONDecodeError"]),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ["unexpected UnicodeDecodeError"]),
        (ValueError("operands could not be broadcast"), ["while reading m: unexpected ValueError: operands"]),
        (RecursionError("maximum depth"), ["unexpected RecursionError"]),
        (MemoryError("Unable to allocate 9.3 GiB for an array"), ["not enough memory (another 9.3 GiB was asked for)"]),
        (MemoryError(), ["while reading m: not enough memory;", "fewer samples"]),
        (RuntimeError(TORCH), ["not enough memory (another 8.0 GB was asked for)"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), ["another 2.00 GiB was asked for"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["while reading m: No space left", "free some space"]),
        (OSError(errno.EROFS, "Read-only file system", "/x/o.png"), ["/x/o.png: Read-only", "choose another place"]),
        (ModuleNotFoundError("No module named 'highdicom'", name="highdicom"), ["package highdicom is missing"]),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ["standard output was closed"]),
        (KeyboardInterrupt(), ["stopped; no file is left half-written"]),
    ],
)
def test_every_error_is_one_line_with_a_way_out(capsys, error, parts):
    told = said_of(error, capsys, "reading m")
    assert all(part in told for part in parts), told


def test_what_the_package_says_itself_is_said_as_it_is(capsys):
    with pytest.raises(typer.Exit), one_line(), during("reading m"):
        numbers("6,x")
    assert capsys.readouterr().err == "textdiff: '6,x' is not a comma-separated list of int numbers\n"


def test_a_batch_that_does_not_fit_is_said_with_what_to_do(capsys):
    def full(parts):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(typer.Exit), one_line(), during("training"):
        Fitting("images").run(full, 1)
    told = capsys.readouterr().err
    assert told.startswith("textdiff: while training: out of memory with a single one of the images: choose a smaller")


def test_memory_that_is_missing_is_no_damaged_file(capsys):
    with pytest.raises(typer.Exit), one_line():
        try:
            raise RuntimeError("unable to mmap 12780752 bytes: Cannot allocate memory (12)")
        except RuntimeError as error:
            raise ValueError("w.safetensors cannot be read; it may be truncated") from error
    assert "not enough memory" in capsys.readouterr().err


def test_the_traceback_comes_before_the_line_for_those_who_ask(capsys):
    with pytest.raises(typer.Exit), one_line(debug=True):
        raise KeyError("head")
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and told.splitlines()[-1].startswith("textdiff: unexpected KeyError")


def test_warnings_are_lines_without_places_and_not_those_for_programmers(capsys):
    with messages_as_lines():
        warnings.warn("left and right\nmay be exchanged", stacklevel=1)
        for category in (DeprecationWarning, FutureWarning):
            warnings.warn("call it otherwise", category, stacklevel=1)
    assert capsys.readouterr().err == "textdiff: left and right may be exchanged\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("full", [True, False])
def test_an_output_that_takes_nothing_more_is_one_line(full):
    """At its end, too, Python must not complain of what it could not print."""
    code = "import typer; from textdiff.messages import one_line\nwith one_line(): typer.echo('x')"
    reads, writes = os.pipe()
    os.close(reads)
    with open("/dev/full", "w") if full else os.fdopen(writes, "w") as output:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True, timeout=100
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("textdiff: ")]
    assert len(lines) == 1 and "standard output" in lines[0] and "Exception ignored" not in done.stderr

"""What goes wrong in a command and what is warned of come in; one line for a person and an exit code go out.

`Commands` is the one place for it: a command registered there never shows a traceback, unless --debug asks for it.
"""

from __future__ import annotations

import dis
import errno
import functools
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from textdiff.base.paths import PACKAGE

STOPPED = 130  # exit code after Ctrl-C, as shells have it
FOR_PEOPLE = (ValueError, TypeError, RuntimeError, ImportError, OSError, FloatingPointError)
NOT_FOR_USERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
NO_MEMORY = re.compile(
    r"can(no|')t allocate memory|not enough memory|out of memory|failed to map segment|ALLOC_FAILED", re.I
)
WAYS_OUT = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "choose another place, or ask for the right to it",
    errno.EPERM: "choose another place, or ask for the right to it",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a folder was expected there",
    errno.EEXIST: "a folder was expected there",
    errno.EISDIR: "a file was expected there",
}
Debug = Annotated[
    bool,
    typer.Option("--debug", envvar="TEXTDIFF_DEBUG", help="Show the traceback of an error, too.", show_envvar=False),
]


class Commands(typer.Typer):
    """Commands that end in one line and an exit code whatever happens in them; each has the option --debug."""

    def command(self, *args: Any, **settings: Any) -> Callable[[Any], Any]:
        register = super().command(*args, **settings)
        return lambda function: register(_ending_in_one_line(function))


def _ending_in_one_line(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> None:
        with one_line(debug), messages_as_lines():
            command(*args, **kwargs)

    asked = inspect.signature(command, eval_str=True)
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    wrapped.__signature__ = asked.replace(parameters=[*asked.parameters.values(), debug])  # type: ignore[attr-defined]
    return wrapped


@contextmanager
def one_line(debug: bool = False) -> Iterator[None]:
    """Any exception within becomes a line on standard error and typer.Exit(2); Ctrl-C a line and typer.Exit(130)."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except (KeyboardInterrupt, Exception) as error:
        _let_go_of_closed_output()
        if debug:
            traceback.print_exception(error)
        say("stopped; no file is left half-written" if isinstance(error, KeyboardInterrupt) else line_of(error))
        raise typer.Exit(STOPPED if isinstance(error, KeyboardInterrupt) else 2) from None


def say(text: str) -> None:
    """One line on standard error, if that is still open."""
    try:
        typer.echo(f"textdiff: {' '.join(text.split())}", err=True)
    except OSError:
        pass


def _let_go_of_closed_output() -> None:
    """Where standard output is a closed pipe, Python would complain of it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def during(what: str) -> Iterator[None]:
    """Whatever is unexpected in here is said with ``what`` before it, such as "reading the model hippocampus_small"."""
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault("during", what)
        raise


def line_of(error: Exception) -> str:
    """What to tell a person of an exception: what was wrong, with what file, and what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    doing = f"while {error.during}: " if hasattr(error, "during") else ""
    if isinstance(error, MemoryError) and _said_here(error):
        return f"{doing}{text}"
    if _out_of_memory(error):  # also where that is taken for a damaged file
        return f"{doing}not enough memory{_asked_for(text)}; free some, or ask for less: fewer samples, a smaller batch"
    if isinstance(error, FOR_PEOPLE) and _said_here(error):
        return text
    if isinstance(error, BrokenPipeError):
        return "standard output was closed: nobody reads what is printed"
    if isinstance(error, OSError) and error.errno is not None:
        printing = any(frame.f_code.co_name == "echo" for frame, _ in traceback.walk_tb(error.__traceback__))
        named = isinstance(error.filename, (str, bytes))
        where = f"{os.fsdecode(error.filename)}: " if named else "standard output: " if printing else doing
        way_out = WAYS_OUT.get(error.errno)
        return f"{where}{error.strerror}{f'; {way_out}' if way_out else ''}"
    if isinstance(error, ModuleNotFoundError):
        return f"{doing}the Python package {error.name} is missing here; install it, for example with pip"
    name = type(error).__name__
    return f"{doing}unexpected {name}{'' if text == name else f': {text}'} (a fault of the program, or a file that it did not expect; --debug shows where)"


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that it was made of, is of memory that the machine does not have."""
    while error is not None:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _said_here(error: Exception) -> bool:
    """Whether a `raise` of this package made the exception, not a library that it called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    code, last = frames[-1][0].f_code, error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    raised = last is not None and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return raised and code.co_filename.startswith(str(PACKAGE))


def _asked_for(text: str) -> str:
    """The amount that an allocator names, in words."""
    if found := re.search(r"allocate (\d+) bytes", text):
        return f" (another {int(found[1]) / 1e9:.1f} GB was asked for)"
    found = re.search(r"allocate ([\d.]+ [KMGT]iB)", text)
    return f" (another {found[1]} was asked for)" if found else ""


@contextmanager
def messages_as_lines() -> Iterator[None]:
    """What the package warns of or logs, and libraries warn users of, comes as lines without places in the code."""
    logger = logging.getLogger("textdiff")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("textdiff: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            for category in NOT_FOR_USERS:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = lambda message, *where, **more: say(str(message))
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

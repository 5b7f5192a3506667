"""One file from the web: an address and what is known of its content in, the verified file out.

A transfer that breaks off goes on where it stopped, in this call or in a later one; a file appears only when it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path

CHUNK = 1 << 16
MIB = 1 << 20


class FetchError(RuntimeError):
    """Data could not be brought; the message names address, file, and what was expected."""


class WrongContentError(FetchError):
    """A file is there but is not the expected one."""


class DiskFullError(FetchError):
    """No room left; what has arrived is kept."""


def digest(path: Path, kind: str) -> str:
    """Hash of a file of any size, hex: `kind` is one of hashlib's, or "git_blob" for the id that git gives it."""
    found = hashlib.new("sha1" if kind == "git_blob" else kind, usedforsecurity=False)
    if kind == "git_blob":
        found.update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while chunk := file.read(MIB):
            found.update(chunk)
    return found.hexdigest()


def verify(path: Path, expected: Mapping[str, str | int], origin: str) -> None:
    """Raise WrongContentError unless `path` is as `expected`: "size" in bytes and any of the kinds of :func:`digest`."""
    for kind, value in expected.items():
        found = path.stat().st_size if kind == "size" else digest(path, kind)
        if found != value:
            raise WrongContentError(f"{origin} -> {path}: {kind} is {found}, expected {value}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it a full disk is reported as DiskFullError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"disk full while writing {path}; make room and run the same command again ({error.strerror})"
        ) from error


def need_room(folder: Path, size: float) -> None:
    """Raise FetchError unless `folder`, which is made, has room for `size` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < size:
        raise FetchError(f"{folder}: {free / MIB:.0f} MiB free, about {size / MIB:.0f} MiB needed")


def _append(response: HTTPResponse, part: Path, start: int) -> None:
    """Write a body into `part` from byte `start` on; ConnectionError when fewer bytes came than announced."""
    announced = response.headers.get("Content-Length")
    received = 0
    with writing(part), open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk := response.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if announced is not None and received < int(announced):
        raise ConnectionError(f"transfer broke off after {received} of {announced} bytes")


def _request(url: str, part: Path, timeout: float) -> None:
    """Ask once for what `part` does not hold yet."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "textdiff", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            _append(response, part, start if goes_on else 0)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send: whether `part` is whole is for the check to say
            return
        if error.code in (429, 500, 502, 503, 504):
            raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
        raise FetchError(f"{url}: HTTP {error.code} {error.reason}") from error


def download(
    url: str,
    path: Path,
    expected: Mapping[str, str | int] | None = None,
    check: Callable[[Path], object] | None = None,
    attempts: int = 4,
    timeout: float = 60.0,
) -> Path:
    """Download `url` to `path`, going on from `<path>.part` when a transfer had broken off (HTTP Range).

    Args:
        path: final place; it appears only when whole and verified, and an older file stays until then.
        expected: what :func:`verify` takes; a file already at `path` that agrees is kept.
        check: called with the whole file before it is put in place; raises WrongContentError to refuse it.
        timeout: seconds without an answer.

    Raises FetchError that names address, path and expected content.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: only http and https addresses are supported")
    expected = expected or {}
    if path.exists() and expected:
        with suppress(WrongContentError):
            verify(path, expected, url)
            return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    trouble: Exception | None = None
    for attempt in range(attempts):
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _request(url, part, timeout)
            verify(part, expected, url)
            if check is not None:
                check(part)
            os.replace(part, path)
            return path
        except (HTTPException, OSError) as error:
            trouble = error
            if attempt + 1 < attempts:
                time.sleep(min(2**attempt, 8) * 0.25)
        except WrongContentError as error:
            part.unlink()
            if not resumed:  # only a resumed file, which may mix two answers, deserves a fresh start
                raise
            trouble = error
    raise FetchError(
        f"cannot download {url} to {path}: {trouble}. Expected {dict(expected) or 'content unknown beforehand'}. "
        "Run the same command again to go on, or give an archive or folder already on disk as source."
    )

"""One file from the web: an address and what is known of its content in, the verified file out.

A transfer that breaks off goes on where it stopped, in this call or in a later one; a file appears only when it is whole.
No answer is trusted: it ends at a number of bytes, keeps a least pace, and its redirections lead to the web only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, responses
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from textdiff.base.files import read_json
from textdiff.base.limits import most_bytes

CHUNK = 1 << 16
MIB = 1 << 20
LEAST_PACE = 4096  # bytes a second
MOST_REDIRECTIONS = 5


class FetchError(RuntimeError):
    """Data could not be brought; the message names address, file, and what was expected."""


class WrongContentError(FetchError):
    """A file is there but is not the expected one."""


class TooMuchError(Exception):
    """An answer has more bytes than the file can have."""


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


# --- one question, one answer --------------------------------------------------------------------------


class _Counted:
    """The stream of an answer, of which no more than ``most`` bytes are read: headers, lines between chunks and trailers
    included, which http.client reads and throws away without end.
    """

    def __init__(self, stream: Any, most: int) -> None:
        self.stream, self.left, self.most = stream, most, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _passed(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise TooMuchError(f"the answer goes on, expected {self.most} bytes at most, all its headers included")
        return data

    def read(self, *size: int) -> bytes:
        return self._passed(self.stream.read(*size))

    def read1(self, *size: int) -> bytes:
        return self._passed(self.stream.read1(*size))

    def readline(self, *size: int) -> bytes:
        return self._passed(self.stream.readline(*size))


class _Response(HTTPResponse):
    def __init__(self, *args: Any, most: int, **named: Any) -> None:
        super().__init__(*args, **named)
        self.fp: Any = _Counted(self.fp, most)


class _Watch:
    """Hangs up a connection whose answer does not begin in time, or does not keep the least pace.

    A time limit of the socket begins anew with every byte that comes, so it alone never ends a trickle. ``most``: bytes of an
    answer, headers included.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds, self.most, self.received, self.hung_up = seconds, most, 0, False
        self.connection: HTTPConnection | None = None
        self.response: HTTPResponse | None = None
        self._over = threading.Event()

    def __enter__(self) -> _Watch:
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        before, began = 0, False
        while not self._over.wait(self.seconds):
            enough = self.received - before >= LEAST_PACE * self.seconds or (self.response is not None and not began)
            if not enough or self.hung_up:  # again and again: a line that is only being made cannot be hung up yet
                self.hung_up = True
                self._hang_up()
            before, began = self.received, self.response is not None

    def _hang_up(self) -> None:
        holder: Any = self.response or (self.connection and self.connection.sock)
        with suppress(OSError, ValueError, AttributeError):  # it is over, or was never connected
            with socket.fromfd(holder.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
                line.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises ConnectionError where the watch has hung up."""
        if self.hung_up:
            raise ConnectionError(f"hung up: fewer than {LEAST_PACE} bytes a second in {self.seconds:g} seconds")


def _opener(watch: _Watch) -> urllib.request.OpenerDirector:
    """Asks over http and https, says to `watch` over which connection, and follows no redirection by itself."""

    def watched(handler: type[Any]) -> type[Any]:
        def do_open(self: Any, connect: Callable[..., HTTPConnection], request: Any, **others: Any) -> HTTPResponse:
            def connected(*args: Any, **named: Any) -> HTTPConnection:
                watch.connection = connect(*args, **named)
                watch.connection.response_class = partial(_Response, most=watch.most)  # type: ignore[assignment]
                return watch.connection

            return handler.do_open(self, connected, request, **others)

        return type("Watched", (handler,), {"do_open": do_open})

    opener = urllib.request.OpenerDirector()
    for one in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(watched(one)())
    for other in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(other())
    return opener


def _answer(url: str, headers: Mapping[str, str], watch: _Watch) -> HTTPResponse:
    """The answer of `url` or of where it redirects to: http or https, and never from https to http."""
    opener = _opener(watch)
    for _ in range(MOST_REDIRECTIONS + 1):
        try:
            return opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=watch.seconds)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (301, 302, 303, 307, 308):
                raise
            url = _led(url, error.headers.get("Location", ""))
        except ValueError as error:
            raise FetchError(f"{url}: no address of the web ({error})") from error
    raise FetchError(f"{url}: redirected more than {MOST_REDIRECTIONS} times")


def _led(url: str, location: str) -> str:
    """Where a redirection leads. Raises FetchError where that is out of the web, or from https to http."""
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    try:
        following = urljoin(url, location)
        known = urlsplit(following).scheme in allowed
    except ValueError:
        known = False
    if not known:
        raise FetchError(f"{url}: redirected to {ascii(location)[:200]}, which is not {' or '.join(allowed)}")
    return following


def _request(url: str, part: Path, timeout: float, most: int) -> None:
    """Ask once for what `part` does not hold yet."""
    start = part.stat().st_size if part.exists() else 0
    before = _noted(part) if start else {}
    headers = {"User-Agent": "textdiff"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known := before.get("version"):
            headers["If-Range"] = known
    with _Watch(timeout, 2 * most + MIB) as watch:  # twice: small chunks have long frames
        try:
            with _answer(url, headers, watch) as response:
                watch.response = response
                _take(response, part, start, before, watch, most)
        except urllib.error.HTTPError as error:
            _refused(url, error, part, start)
        finally:
            watch.check()


def _refused(url: str, error: urllib.error.HTTPError, part: Path, start: int) -> None:
    """What an error means: nothing left to send, worth another try (ConnectionError), or the end (FetchError)."""
    said = f"HTTP {error.code} {responses.get(error.code, '')}"
    if error.code == 416 and start:
        total = error.headers.get("Content-Range", "").removeprefix("bytes */")
        if total and total != str(start):  # the file is another one than that which `part` began
            _drop(part)
            raise ConnectionError(said) from error
        return  # nothing left to send: whether `part` is whole is for the check to say
    if error.code in (416, 429, 500, 502, 503, 504):
        raise ConnectionError(said) from error
    raise FetchError(f"{url}: {said}") from error


def _take(response: HTTPResponse, part: Path, start: int, before: Mapping[str, str], watch: _Watch, most: int) -> None:
    """Write an answer's body into `part`: whole, or from `start` on where it is the rest of the same file."""
    version, size = _version(response), "" if response.length is None else str(response.length)
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        other = [("version", version), ("size", total)]
        changed = any(now and before.get(key) and before[key] != now for key, now in other)
        if not start or not span.startswith(f"{start}-") or changed:
            _drop(part)
            raise ConnectionError("the answer is not the rest of what was begun")
    elif response.status != 200:
        raise ConnectionError(f"HTTP {response.status} {responses.get(response.status, '')}, without the file")
    else:
        start = 0
        with writing(part):
            part.unlink(missing_ok=True)
            _note(part).write_text(json.dumps({"version": version, "size": size}))
    if start + (response.length or 0) > most:
        raise TooMuchError(f"the answer announces {start + (response.length or 0)} bytes, expected {most} at most")
    _append(response, part, start, watch, most)


def _append(response: HTTPResponse, part: Path, start: int, watch: _Watch, most: int) -> None:
    """Write a body into `part` from byte `start` on; ConnectionError when fewer bytes came than announced."""
    announced = response.length
    with writing(part), open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while announced is None or watch.received < announced:
            chunk = response.read1(CHUNK if announced is None else min(CHUNK, announced - watch.received))
            if not chunk:
                break
            watch.received += len(chunk)
            if start + watch.received > most:
                raise TooMuchError(f"the answer goes on, expected {most} bytes at most")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    watch.check()
    if announced is not None and watch.received < announced:
        raise ConnectionError(f"transfer broke off after {watch.received} of {announced} bytes")


# --- what is known of a file that has begun to come ----------------------------------------------------


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _noted(part: Path) -> dict[str, str]:
    """Version and size that the server gave when `part` was begun; "" for what it did not say."""
    try:
        return {key: str(value) for key, value in read_json(_note(part)).items()}
    except (OSError, ValueError):
        return {}


def _version(response: HTTPResponse) -> str:
    """What stands for the bytes of a file as a server has it: its ETag, unless it is a weak one, else its date; or ""."""
    tag = response.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    return version if version.isascii() and version.isprintable() else ""


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def download(
    url: str,
    path: Path,
    expected: Mapping[str, str | int] | None = None,
    check: Callable[[Path], object] | None = None,
    attempts: int = 4,
    timeout: float = 60.0,
    most: int | None = None,
) -> Path:
    """Download `url` to `path`, going on from `<path>.part` when a transfer had broken off (HTTP Range) and the server's file
    is still the same by its ETag, date and size.

    Args:
        path: final place; it appears only when whole and verified, and an older file stays until then.
        expected: what :func:`verify` takes; a file already at `path` that agrees is kept.
        check: called with the whole file before it is put in place; raises WrongContentError to refuse it.
        timeout: seconds without an answer, or with less than 4 KiB a second.
        most: bytes that the file may have; by default the expected size, else what one file may take (TEXTDIFF_MAX_FILE_GB).

    Raises FetchError that names address, path and expected content.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: only http and https addresses are supported")
    expected = expected or {}
    most = int(expected.get("size", most or most_bytes()))
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
            _request(url, part, timeout, most)
            verify(part, expected, url)
            if check is not None:
                check(part)
            os.replace(part, path)
            _drop(part)
            return path
        except (HTTPException, OSError, ValueError) as error:  # the last for numbers in an answer that are none
            trouble = error
            if attempt + 1 < attempts:
                time.sleep(min(2**attempt, 8) * 0.25)
        except TooMuchError as error:
            _drop(part)
            raise WrongContentError(f"{url} -> {path}: {error}") from error
        except WrongContentError as error:
            _drop(part)
            if not resumed:  # only a resumed file, which may mix two answers, deserves a fresh start
                raise
            trouble = error
    raise FetchError(
        f"cannot download {url} to {path}: {trouble}. Expected {dict(expected) or 'content unknown beforehand'}. "
        "Run the same command again to go on, or give an archive or folder already on disk as source."
    )

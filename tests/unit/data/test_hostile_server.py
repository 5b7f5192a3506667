"""Downloads from servers that lie, flood, trickle and lead elsewhere: each ends soon, with the right file or an error for people."""

from __future__ import annotations

import faulthandler
import gzip
import hashlib
import http.client
import itertools
import urllib.request
from pathlib import Path

import pytest
from local_server import HostileServer

from textdiff.data.download import FetchError, download

BODY = bytes(range(256)) * 100
SHA = {"sha256": hashlib.sha256(BODY).hexdigest()}
MOST = 50_000  # bytes
FLOOD = 64 << 20  # what a flood would bring if nobody hung up
OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"Connection: close\r\n\r\n"
WHOLE = OK + b"Content-Length: %d\r\n" % len(BODY) + CLOSE + BODY
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n" + CLOSE


def flood():
    return itertools.repeat(b"x" * 4096, FLOOD // 4096)


def trickle(piece: bytes = b"x"):
    for _ in range(400):
        yield piece
        yield 0.05


def fixed(*pieces: bytes):
    return lambda _: pieces


def redirect(where: bytes, code: int = 302):
    return fixed(b"HTTP/1.1 %d Found\r\nLocation: %s\r\nContent-Length: 0\r\n" % (code, where) + CLOSE)


def then(start: bytes, rest, *more):
    """A start, and something that begins anew with each request."""
    return lambda _: itertools.chain((start,), rest(*more))


def chain_of_redirections(head: str):
    number = int(head.split()[1].strip("/") or 0)
    return (b"HTTP/1.1 302 Found\r\nLocation: /%d\r\n" % (number + 1) + CLOSE,)


FLIPPED = WHOLE[:-1] + bytes([WHOLE[-1] ^ 1])
GZIPPED = gzip.compress(BODY)
ANSWERS = {
    # floods
    "endless body": then(OK + CLOSE, flood),
    "endless body in chunks": then(
        CHUNKED, lambda: itertools.repeat(b"1000\r\n" + b"x" * 4096 + b"\r\n", FLOOD // 4096)
    ),
    "one chunk of many gigabytes": then(CHUNKED + b"FFFFFFFFFF\r\n", flood),
    "announced much, sends much": then(OK + b"Content-Length: 999999999999\r\n" + CLOSE, flood),
    "announced much, hangs up": fixed(OK + b"Content-Length: 999999999999\r\n" + CLOSE),
    "endless body beside 404": then(b"HTTP/1.1 404 No\r\n" + CLOSE, flood),
    "endless body beside a redirection": then(b"HTTP/1.1 302 Found\r\nLocation: /\r\n" + CLOSE, flood),
    "endless body beside 503": then(b"HTTP/1.1 503 Busy\r\n" + CLOSE, flood),
    "endless headers": then(OK, lambda: itertools.repeat(b"X: " + b"y" * 1000 + b"\r\n", FLOOD // 1000)),
    "endless line": then(OK + b"X: ", flood),
    "endless status line": then(b"HTTP/1.1 200 ", flood),
    "endless 100 Continue": then(b"", lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, FLOOD // 2500)),
    "endless line of a chunk": then(CHUNKED + b"10;", flood),
    "endless trailers": then(CHUNKED + b"0\r\n", lambda: itertools.repeat(b"X: y\r\n" * 100, FLOOD // 600)),
    # trickles and silence
    "trickle of a body": then(OK + CLOSE, trickle),
    "trickle of an announced body": then(OK + b"Content-Length: 25600\r\n" + CLOSE, trickle),
    "trickle of headers": then(OK + b"X: ", trickle),
    "trickle of header lines": then(OK, trickle, b"X: y\r\n"),
    "trickle of a status line": then(b"HTTP/1.1 200 ", trickle),
    "trickle of 100 Continue": then(b"", trickle, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "trickle in a chunk's line": then(CHUNKED + b"10;", trickle),
    "trickle of chunks": then(CHUNKED, trickle, b"1\r\nx\r\n"),
    "silence": lambda _: (20.0,),
    "silence after the headers": lambda _: (OK + b"Content-Length: 25600\r\n" + CLOSE, 20.0),
    "hangs up at once": fixed(),
    # redirections
    "to ftp": redirect(b"ftp://127.0.0.1/x"),
    "to a file": redirect(b"file:///etc/hostname"),
    "to data": redirect(b"data:text/plain,x"),
    "to itself": redirect(b"/"),
    "to ever new places": chain_of_redirections,
    "to nowhere": redirect(b""),
    "to no address": redirect(b"http://[::1"),
    "to another line": redirect(b"/x\x0b\x1f y"),
    "to a port that is none": redirect(b"http://127.0.0.1:99999999/"),
    "for ever, 308": redirect(b"/", 308),
    "without a place": fixed(b"HTTP/1.1 302 Found\r\n" + CLOSE),
    # lies about what it is
    "a part that nobody asked for": fixed(
        WHOLE.replace(b"200 OK", b"206 Partial\r\nContent-Range: bytes 5-9/25600", 1)
    ),
    "no content": fixed(b"HTTP/1.1 204 No Content\r\n" + CLOSE),
    "another 2xx": fixed(WHOLE.replace(b"200 OK", b"203 Other", 1)),
    "not modified": fixed(b"HTTP/1.1 304 Not Modified\r\n" + CLOSE),
    "range refused that nobody asked for": fixed(b"HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\n" + CLOSE),
    "try again in years": fixed(b"HTTP/1.1 429 Slow\r\nRetry-After: 99999999\r\n" + CLOSE),
    "a code that is none": fixed(b"HTTP/1.1 999 What\r\n" + CLOSE),
    "a code of letters": fixed(b"HTTP/1.1 abc OK\r\n" + CLOSE + BODY),
    "no HTTP": fixed(BODY),
    "a terminal's codes": fixed(b"HTTP/1.1 404 \x1b[2J\x1b]0;mine\x07\r\n" + CLOSE),
    "a page in its place": fixed(OK + CLOSE + b"<html>not here</html>"),
    "nothing": fixed(OK + b"Content-Length: 0\r\n" + CLOSE),
    "one bit flipped": fixed(FLIPPED),
    "cut": fixed(WHOLE[:-100]),
    "cut, and announced so": fixed(OK + b"Content-Length: 100\r\n" + CLOSE + BODY),
    "cut chunks": fixed(CHUNKED + b"6400\r\n" + BODY[:1000]),
    "chunks of no size": fixed(CHUNKED + b"hello\r\n" + BODY),
    "chunks of less than nothing": fixed(CHUNKED + b"-5\r\n" + BODY),
    "packed": fixed(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(GZIPPED) + CLOSE + GZIPPED),
}
HARMLESS = {
    "whole": fixed(WHOLE),
    "whole in chunks": fixed(CHUNKED + b"6400\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "more than announced": fixed(WHOLE + b"and more"),
    "length of letters": fixed(OK + b"Content-Length: abc\r\n" + CLOSE + BODY),
    "length below nothing": fixed(OK + b"Content-Length: -1\r\n" + CLOSE + BODY),
    "length of many digits": fixed(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n" + CLOSE + BODY),
}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """A download from a server that answers so, with little patience; a hang ends the whole process with a traceback."""
    monkeypatch.setattr("textdiff.data.download.time.sleep", lambda _: None)
    servers = []

    def asked(answer, expected=SHA, **options) -> tuple[HostileServer, Path]:
        servers.append(HostileServer(answer))
        options = {"attempts": 2, "timeout": 0.4, "most": MOST} | options
        return servers[-1], download(f"{servers[-1].url}/", tmp_path / "a", expected, **options)

    asked.servers = servers
    faulthandler.dump_traceback_later(60, exit=True)
    yield asked
    faulthandler.cancel_dump_traceback_later()
    for server in servers:
        server.close()


def test_there_are_many_answers():
    assert len(ANSWERS) >= 35


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_an_error_and_leaves_little(ask, tmp_path, name):
    with pytest.raises(FetchError) as error:
        ask(ANSWERS[name])
    said = str(error.value)
    assert ask.servers[0].url in said and "\x1b" not in said and len(said) < 2000
    assert not (tmp_path / "a").exists() and sum(path.stat().st_size for path in tmp_path.iterdir()) <= MOST
    assert len(ask.servers[0].asked) <= 12 and ask.servers[0].sent < FLOOD / 2  # hung up, not read to its end


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_merely_odd_arrives(ask, name):
    _, path = ask(HARMLESS[name])
    assert path.read_bytes() == BODY


def test_what_is_not_known_has_a_limit_too(ask, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.0001")
    with pytest.raises(FetchError, match="expected 100000 bytes at most"):
        ask(ANSWERS["endless body"], expected=None, most=None)


def test_an_expected_size_is_the_limit(ask):
    with pytest.raises(FetchError, match="announces 25600 bytes, expected 25599 at most"):
        ask(HARMLESS["whole"], expected={"size": len(BODY) - 1})


def test_never_from_https_to_http(ask, monkeypatch):
    class WithoutCertificates(urllib.request.HTTPHandler):
        def https_open(self, request):
            return self.do_open(http.client.HTTPConnection, request)

    monkeypatch.setattr(urllib.request, "HTTPSHandler", WithoutCertificates)
    _, path = ask(HARMLESS["whole"])
    place = {"whole": ask.servers[-1].url.encode()}
    for target, allowed in ((place["whole"], False), (place["whole"].replace(b"http:", b"https:"), True)):
        server = HostileServer(redirect(target + b"/"))
        ask.servers.append(server)
        path.unlink(missing_ok=True)
        if allowed:
            assert download(server.url.replace("http:", "https:"), path, SHA).read_bytes() == BODY
        else:
            with pytest.raises(FetchError, match="redirected to .*, which is not https"):
                download(server.url.replace("http:", "https:"), path, SHA)
    server.close()


# --- a file that changes between two parts of it --------------------------------------------------------

OTHER = bytes(reversed(BODY))


def versioned(marks: bytes, cut: bool, obeys: bool = True, other: bytes = OTHER):
    """Cuts BODY off in the middle the first time, then has `other`; `marks` are headers with the number of the version.

    obeys: whether it looks at If-Range before it sends the rest.
    """
    asked = []

    def answer(head: str):
        asked.append(head)
        version = min(len(asked), 2)
        body, mark = (BODY, other)[version - 1], marks % version if b"%" in marks else marks
        wanted = next((line[13:-1] for line in head.splitlines() if line.startswith("Range: bytes=")), "")
        if wanted and not (obeys and "If-Range" in head and marks):
            start = int(wanted)
            about = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(body) - 1, len(body))
            rest = body[start:]
            return (b"HTTP/1.1 206 Part\r\n" + about + mark + b"Content-Length: %d\r\n" % len(rest) + CLOSE + rest,)
        sent = body[:10_000] if version == 1 and cut else body
        return (OK + mark + b"Content-Length: %d\r\n" % len(body) + CLOSE + sent,)

    return answer, asked


ETAG = b'ETag: "v%d"\r\n'
DATE = b"Last-Modified: Tue, 0%d Jan 2030 00:00:00 GMT\r\n"


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.parametrize("marks", [ETAG, DATE])
def test_a_file_that_changed_is_fetched_anew_and_never_mixed(ask, marks, obeys):
    answer, asked = versioned(marks, cut=True, obeys=obeys)
    _, path = ask(answer, expected=None, attempts=3)
    assert path.read_bytes() == OTHER
    assert ('If-Range: "v1"' in asked[1]) == (marks is ETAG)


def test_another_length_alone_tells_another_file(ask):
    answer, _ = versioned(b"", cut=True, obeys=False, other=OTHER + b"longer")
    _, path = ask(answer, expected=None, attempts=3)
    assert path.read_bytes() == OTHER + b"longer"


def test_the_same_file_goes_on(ask, tmp_path):
    answer, asked = versioned(b'ETag: "one"\r\n', cut=True, obeys=False, other=BODY)
    _, path = ask(answer, expected=None)
    assert path.read_bytes() == BODY and len(asked) == 2 and "Range: bytes=10000-" in asked[1]
    assert [one.name for one in tmp_path.iterdir()] == ["a"]

"""Web servers on this machine that break off, refuse, remember and lie: what downloads are tested against."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path


def names(folder: Path) -> list[str]:
    """What a fetch left in a folder, without the files of locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


class Server:
    """A local web server over {path: bytes} that can cut transfers short, and knows Range; it remembers
    requests.
    """

    def __init__(self, ranges: bool = True):
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []  # one entry a request: send only so many bytes of the body, then hang up
        self.status: list[int] = []  # one entry a request: answer with this error instead
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.asked.append((self.path, wanted))
                if outer.status:
                    return self.send_error(outer.status.pop(0))
                body = outer.files.get(self.path)
                if body is None:
                    return self.send_error(404)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranges else 0
                if start and start >= len(body):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                rest = body[start:]
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: outer.cut.pop(0)] if outer.cut else rest)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class HostileServer:
    """A server that reads a request and then writes to the line whatever `answer` gives, piece by piece, until it is hung up.

    answer: the request's head -> pieces of bytes; a number in the place of a piece is a pause in seconds.
    """

    def __init__(self, answer: Callable[[str], object]):
        self.asked: list[str] = []
        self.sent = 0
        over = self.over = threading.Event()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                head = b""
                while line := self.rfile.readline():
                    head += line
                    if line == b"\r\n":
                        break
                outer.asked.append(head.decode("latin-1"))
                for piece in answer(outer.asked[-1]):
                    if isinstance(piece, bytes):
                        outer.sent += len(piece)
                        try:
                            self.wfile.write(piece)
                        except OSError:
                            return
                    elif over.wait(piece):
                        return

        socketserver.ThreadingTCPServer.daemon_threads = True
        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.tcp.server_address[1]}"
        threading.Thread(target=self.tcp.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.over.set()
        self.tcp.shutdown()
        self.tcp.server_close()

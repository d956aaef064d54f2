"""A server on loopback whose every path answers as a test says, and which counts what it is asked."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

# What a path does, given the handler and how often the path was asked before.
Answer = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            times = server.counts[self.path]
            server.counts[self.path] += 1
            server.log.append((time.monotonic(), self.path, self.headers.get("User-Agent", "")))
            server.active += 1
            server.most_active = max(server.most_active, server.active)
        try:
            answer = server.routes.get(self.path) or server.default
            with contextlib.suppress(ConnectionError):  # the client was killed, or has had enough
                answer(self, times)
        finally:
            with server.lock:
                server.active -= 1

    def reply(self, body: bytes = b"", status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, answer: bytes) -> None:
        """Answer with these bytes, headers and all, and no others."""
        self.wfile.write(answer)
        self.close_connection = True

    def cut(self) -> None:
        """Close the connection as a crash does, with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = io.BytesIO()

    def log_message(self, *words: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Answer] = {}
        self.default: Answer = lambda handler, times: handler.reply(b"nothing here", 404)
        self.counts: Counter[str] = Counter()
        self.log: list[tuple[float, str, str]] = []  # moment, path, user agent
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def serves(self, path: str, answer: Answer | bytes) -> str:
        """Let `path` answer so, or with these bytes. Its address."""
        self.routes[path] = answer if callable(answer) else lambda handler, times: handler.reply(answer)
        return self.url + path

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client killed in the middle is what some tests are about


@contextlib.contextmanager
def serving(number: int = 1) -> Iterator[list[Server]]:
    """So many servers, each another host to the client."""
    servers = [Server() for _ in range(number)]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def picture(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (48, 36), mode: str = "RGB") -> bytes:
    """A small picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


# --- answers that several files use ---------------------------------------------------------------------------------
PAGE = b"<!DOCTYPE html><html><body>We could not find that picture.</body></html>" + b" " * 3000


def first_limited(times_limited: int, retry_after: Callable[[], str]) -> Answer:
    """So many times 429 with this Retry-After; then a picture."""

    def answer(handler, times):
        if times < times_limited:
            return handler.reply(b"slow down", 429, Retry_After=retry_after())
        handler.reply(picture())

    return answer


def redirect(target: str, status: int = 302) -> Answer:
    return lambda handler, times: handler.reply(b"", status, Location=target)

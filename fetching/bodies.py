"""The body of a response: read in chunks within limits, decoded from its Content-Encoding, and written to a file."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from fetching.failures import Failure, Stopped, network_failure

CHUNK = 2**16
GZIP = b"\x1f\x8b"


def read(response: requests.Response, max_bytes: int, seconds: float, stopped: Callable[[], bool]) -> bytes:
    """The whole body as it was sent, by which its length is checked. Raises Failure, and Stopped where `stopped()`."""
    limit = Failure("too_large", f"more than {max_bytes} bytes")
    if (response.raw.length_remaining or 0) > max_bytes:
        raise limit
    whole, size = [], 0
    for piece in pieces(response, seconds):
        if stopped():
            raise Stopped
        size += len(piece)
        if size > max_bytes:
            raise limit
        whole.append(piece)
    return b"".join(whole)


def pieces(response: requests.Response, seconds: float) -> Iterator[bytes]:
    """The body in chunks as they arrive, so that neither an endless nor a very slow body takes for ever."""
    end = time.monotonic() + seconds
    while True:
        try:
            piece = response.raw.read1(CHUNK)  # what is there: `iter_content` would wait until a piece is full
        except Exception as error:
            raise network_failure(error) from error
        if not piece:
            return
        if time.monotonic() > end:
            raise Failure("transient", f"not whole after {seconds:g} seconds")
        yield piece
        if response.raw.length_remaining == 0:
            return


def head(response: requests.Response, max_bytes: int, seconds: float) -> bytes:
    """The beginning of a body, as far as available."""
    found = b""
    try:
        for piece in pieces(response, seconds):
            found += piece
            if len(found) >= max_bytes:
                break
    except Failure:
        pass
    return found[:max_bytes]


def uncompressed(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body without its Content-Encoding, which some hosts apply though none is asked for.

    gzip and deflate are undone; a body that is not in the encoding that it claims, and any other encoding, is left as
    it is. Raises Failure if the encoded body breaks off, is damaged, or holds more than `max_bytes`."""
    for word in reversed(encoding.lower().replace(" ", "").split(",")[:4]):
        if word in ("gzip", "x-gzip") and data.startswith(GZIP):
            data = _inflated(data, 16 + zlib.MAX_WBITS, max_bytes)
        elif word == "deflate" and len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0:
            data = _inflated(data, zlib.MAX_WBITS, max_bytes)
        elif word == "deflate":  # some send it without zlib's header
            try:
                data = _inflated(data, -zlib.MAX_WBITS, max_bytes)
            except Failure as failure:
                if failure.status == "too_large":
                    raise
    return data


def _inflated(data: bytes, window: int, max_bytes: int) -> bytes:
    """zlib's data, of one or more streams one after another."""
    whole, size = [], 0
    while data:
        stream = zlib.decompressobj(window)
        try:
            whole.append(stream.decompress(data, max_bytes - size + 1))
        except zlib.error as error:
            raise Failure("transient", "body not in its encoding") from error
        size += len(whole[-1])
        if size > max_bytes:
            raise Failure("too_large", f"more than {max_bytes} bytes")
        if not stream.eof:
            raise Failure("transient", "body not in its encoding")
        data = stream.unused_data if stream.unused_data.startswith(GZIP) else b""
    return b"".join(whole)


def save(data: bytes, path: Path) -> None:
    """Write a file. A full disk is an OSError that names it."""
    try:
        with open(path, "wb", buffering=0) as file:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error

"""One request: asked through `requests`, with the answer's body in pieces, or why there is none."""

from __future__ import annotations

import email.utils
import errno
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from fetching.hosts import Limits, parts_of
from fetching.ledger import Stopped
from utils import UserError

CHUNK = 2**16
POOLS = 64  # hosts whose connections are kept open
NO_HOST = "no such host"


class Failure(Exception):
    """Why an address gave nothing: a status, a phrase that is the same in every run, and what the host asks for."""

    def __init__(self, status: str, error: str, http_status: int | str = "", wait: float | None = None):
        super().__init__(error)
        self.status, self.error, self.http_status = status, error, http_status
        self.wait = wait  # seconds for which the host asks to be left alone


class NoAnswer(Failure):
    """The host did not answer at all."""


class Redirect(Exception):
    """The address answered with another one."""


class Client:
    """Asks over connections that it keeps open. Proxies and certificates are the environment's, as `requests` reads it:
    HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE and their like; SSL_CERT_FILE too."""

    def __init__(self, contact: str | None, limits: Limits):
        self.session = requests.Session()
        self.session.verify = os.environ.get("SSL_CERT_FILE") or True
        self.adapter = requests.adapters.HTTPAdapter(pool_connections=POOLS, pool_maxsize=limits.per_host)
        contact = f"; contact: {contact}" if contact else ""
        # 'identity': bodies come as they are, so that their length can be checked and a .gz stays one.
        self.headers = {"User-Agent": f"image-virality/1.0 (research{contact})", "Accept-Encoding": "identity"}
        self.timeout = (limits.connect_timeout, limits.read_timeout)
        self.settings: dict[tuple[str, str], Mapping[str, Any]] = {}  # scheme and host → proxies, certificates

    def get(self, url: str) -> requests.Response:
        """The answer to a request, its body unread; Redirect or Failure where it is not the thing itself."""
        if parts_of(url).scheme not in ("http", "https"):
            raise Failure("gone", "refused: not an http address")
        try:
            request = requests.PreparedRequest()  # its parts that matter here: cookies and log-ins are not sent
            request.prepare_method("GET")
            request.prepare_url(url, None)
            request.prepare_headers(self.headers)
        except ValueError as error:
            raise Failure("gone", "not an address") from error
        settings = self._settings(request)
        try:
            # The adapter itself: a session would follow redirects, or read their bodies to the end, whatever they are.
            response = self.adapter.send(request, timeout=self.timeout, **settings)
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.InvalidHeader):
                raise Failure("gone", "not an address") from error
            raise network_failure(error) from error
        if response.status_code in (200, 203):
            return response
        response.close()
        status, headers = response.status_code, response.headers
        if status in (301, 302, 303, 307, 308) and "Location" in headers:
            target = headers["Location"]
            raise Redirect(urljoin(url, target) if parts_of(target) != parts_of("") else "")
        wait = requested_wait(headers) if status in (429, 503) else None
        again = "rate_limited" if status == 429 else "transient" if status >= 500 or status in (408, 425) else "gone"
        raise Failure(again, f"HTTP {status}", status, wait)

    def _settings(self, request: requests.PreparedRequest) -> Mapping[str, Any]:
        key = parts_of(request.url)[:2]
        if key not in self.settings:  # the environment is not read again for every picture of a host
            settings = self.session.merge_environment_settings(request.url, {}, True, None, None)
            bundle = settings["verify"]
            if isinstance(bundle, str) and not os.path.exists(bundle):
                raise UserError(f"the environment's certificates, {bundle} (REQUESTS_CA_BUNDLE), do not exist")
            if requests.utils.select_proxy(request.url, settings["proxies"]):
                try:
                    self.adapter.get_connection_with_tls_context(request, bundle, settings["proxies"])
                except ValueError as error:
                    if type(error) is requests.exceptions.InvalidURL:
                        raise Failure("gone", "not an address") from error
                    raise UserError(f"the environment's {key[0]}_proxy is no proxy that can be asked") from error
            self.settings[key] = settings
        return self.settings[key]


def requested_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds for which a host asks to be left alone: Retry-After (seconds or a date), or Reddit's own header."""
    asked = headers.get("Retry-After", headers.get("X-Ratelimit-Reset", ""))
    try:
        seconds = float(asked)
        return seconds if seconds >= 0 else None
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(asked)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def network_failure(error: Exception) -> Failure:
    """A Failure without the numbers and object addresses that differ from run to run."""
    chain = causes(error)
    for one in chain:
        if isinstance(one, socket.gaierror):
            unknown = one.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
            return NoAnswer("gone", NO_HOST) if unknown else NoAnswer("transient", "name resolution failed")
    phrases = {
        requests.exceptions.ConnectTimeout: "no connection in time",
        requests.exceptions.ReadTimeout: "silence",
        ssl.SSLError: "TLS failed",
        requests.exceptions.ProxyError: "proxy failed",
        TimeoutError: "silence",
        http.client.IncompleteRead: "body shorter than its length",
        ConnectionRefusedError: "no connection",
        ConnectionError: "connection broken",
        http.client.HTTPException: "connection broken",
    }
    names = [phrase for kind, phrase in phrases.items() if any(isinstance(one, kind) for one in chain)]
    return NoAnswer("transient", names[0] if names else type(error).__name__)


def causes(error: BaseException) -> list[BaseException]:
    """An exception and those that it wraps, in whichever way."""
    found = [error]
    for one in found:
        wrapped = (*one.args, getattr(one, "reason", None), one.__cause__)
        found += [inner for inner in wrapped if isinstance(inner, BaseException) and inner not in found]
    return found


def body(response: requests.Response, max_bytes: int, seconds: float, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """The body in pieces as they arrive, so that neither an endless body nor a trickle lasts for ever."""
    limit = Failure("too_large", f"more than {max_bytes} bytes", response.status_code)
    if (response.raw.length_remaining or 0) > max_bytes:
        raise limit
    end, size = time.monotonic() + seconds, 0
    while True:
        try:
            piece = response.raw.read1(CHUNK)  # what is there: `iter_content` would wait until a piece is full
        except Exception as error:
            failure = network_failure(error)
            failure.http_status = response.status_code
            raise failure from error
        if stopped():
            raise Stopped
        if not piece:
            return
        size += len(piece)
        if size > max_bytes:
            raise limit
        if time.monotonic() > end:
            raise Failure("transient", f"not whole after {seconds:g} seconds", response.status_code)
        yield piece
        if response.raw.length_remaining == 0:
            return


def save(pieces: Iterable[bytes], path: Path) -> bytes:
    """Write a body to a file as it arrives. The whole of it."""
    whole = []
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            if file.write(piece) < len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            whole.append(piece)
    return b"".join(whole)

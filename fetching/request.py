"""One request, made with `requests`, and the meaning of its response: a body, another address, or a refusal."""

from __future__ import annotations

import email.utils
import html
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any
from urllib.parse import urljoin

import requests

from fetching.addresses import IMGUR_SIZE, REDDIT_SIZE, png_size
from fetching.bodies import head, uncompressed
from fetching.failures import Failure, Redirect, network_failure
from fetching.hosts import Limits, parts_of
from utils import UserError

# Addresses that `requests` would leave as they are: a tenth of a small picture's time goes into finding that out.
PLAIN = re.compile(r"(?!.*/\.)https?://[a-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9/._~-]*(\?[A-Za-z0-9/._~=&+-]*)?")
POOLS = 64  # hosts whose connections are kept open
HEAD, HEAD_SECONDS = 2**16, 5.0  # what is read of a refusal

# What a host says that refuses for now: in a page, and by a status.
PASSING = re.compile(
    r"over.?capacity|overload|high.?(load|demand|traffic)|try (this |it |that |your request )?again|try .{0,15}later|"
    r"(again|back) (later|soon|in a )|temporar|maintenance|throttl|(service|server|currently) (is )?unavailable|quota|"
    r"bandwidth|captcha|are you (a )?(human|robot)|you are (a )?human|just a moment|checking your browser|"
    r"attention required|unusual traffic|been blocked|too busy"
)
RATE = re.compile(r"rate.?limit|too.?many.?requests|slow.?down|quota|throttl")
# Besides all from 500 on, and what is said before an answer. Neither a range nor a change was asked for: 206, 304, 416.
TRANSIENT = {202, 206, 304, 407, 408, 409, 416, 421, 423, 424, 425, 499}
RATE_LIMITED = {420, 429}
FINAL = {404, 410, 451}  # whatever the page beside them says
MOST_WORDS = 3000  # letters: a refusal is short; a page about something else may well hold its words


class Adapter(requests.adapters.HTTPAdapter):
    """Finds the connections to a host again by its name; to tell by all that may make them differ, which for one run
    are the same, takes a twentieth of a small picture's time."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.pools: dict[tuple[str, str], Any] = {}

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *others: Any, **more: Any) -> Any:
        key = parts_of(request.url)[:2]
        pool = self.pools.get(key)
        if pool is None or pool.pool is None:  # not asked before, or closed to make room for others
            pool = self.pools[key] = super().get_connection_with_tls_context(request, *others, **more)
        return pool


class Client:
    """Asks over connections that it keeps open. Proxies and certificates are the environment's, as `requests` reads it:
    HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE and their like; SSL_CERT_FILE too."""

    def __init__(self, contact: str | None, limits: Limits):
        self.session = requests.Session()
        self.session.verify = os.environ.get("SSL_CERT_FILE") or True
        self.adapter = Adapter(pool_connections=POOLS, pool_maxsize=limits.per_host)
        contact = f"; contact: {contact}" if contact else ""
        # 'identity': bodies come as they are, so that a .gz stays one.
        headers = {"User-Agent": f"image-virality/1.0 (research{contact})", "Accept-Encoding": "identity"}
        self.headers = requests.structures.CaseInsensitiveDict(headers)
        self.timeout = (limits.connect_timeout, limits.read_timeout)
        self.settings: dict[tuple[str, str], Mapping[str, Any]] = {}  # scheme and host → proxies, certificates

    def get(self, url: str) -> requests.Response:
        """The answer to a request, its body unread; Redirect or Failure if it is not the thing itself."""
        if parts_of(url).scheme not in ("http", "https"):
            raise Failure("gone", "refused: not an http address")
        request = requests.PreparedRequest()  # only what matters here: neither cookies nor log-ins are sent
        request.method, request.url, request.headers = "GET", url, self.headers
        try:
            if not PLAIN.fullmatch(url):
                request.prepare_url(url, None)
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
        try:
            if 300 <= response.status_code < 400 and (target := location(response)):
                raise Redirect(urljoin(url, target) if parts_of(target) != parts_of("") else "")
            raise refusal(response.status_code, response.headers, head(response, HEAD, HEAD_SECONDS))
        finally:
            response.close()

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
                    raise UserError(f"the environment's {key[0]}_proxy is not a usable proxy") from error
            self.settings[key] = settings
        return self.settings[key]


def location(response: requests.Response) -> str:
    """The target of a redirect. Headers are decoded as Latin-1, though most hosts that send non-ASCII send UTF-8."""
    target = next(iter(response.raw.headers.getlist("Location")), "")  # of several the first
    try:
        return target.encode("latin-1").decode()
    except UnicodeError:
        return target


def refusal(status: int, headers: Mapping[str, str], page: bytes) -> Failure:
    """What a status other than success means: permanent or temporary failure."""
    spent = headers.get("X-Ratelimit-Remaining", "").strip() in ("0", "0.0")
    limited = status in RATE_LIMITED or (spent and status not in FINAL)
    wait = requested_wait(headers) if limited or status == 503 or "Retry-After" in headers else None
    if limited:
        return Failure("rate_limited", f"HTTP {status}", status, wait)
    if status < 200 or status >= 500 or status in TRANSIENT:
        return Failure("transient", f"HTTP {status}", status, wait)
    if 400 <= status < 500 and status not in FINAL:
        encoding = headers.get("Content-Encoding", "")
        passing = refuses_for_now(page, encoding)
        if passing or wait is not None or "cf-mitigated" in headers:
            return Failure(passing or "transient", f"HTTP {status}, refused for now", status, wait)
    if png_size(page) in (IMGUR_SIZE, REDDIT_SIZE):
        return Failure("placeholder", "a picture in place of a removed one", status)
    return Failure("gone", f"HTTP {status}", status)


def refuses_for_now(page: bytes, encoding: str = "") -> str:
    """'rate_limited' or 'transient' where a short text says that its host is only busy; '' if it does not."""
    try:
        page = uncompressed(page, encoding, HEAD)
    except Failure:
        return ""
    text = page.decode("utf-8", errors="replace").lower()
    text = re.sub(r"(?s)<(script|style)\b.*?(</\1>|$)|<!--.*?-->|<[^>]*>", " ", text)
    text = " ".join(html.unescape(text).split())
    if len(text) > MOST_WORDS:
        return ""
    return "rate_limited" if RATE.search(text) else "transient" if PASSING.search(text) else ""


def requested_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait that a host asks for: Retry-After (seconds or a date), or Reddit's own header."""
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

"""Why an address failed: a status, and a phrase that is the same in every run."""

from __future__ import annotations

import http.client
import socket
import ssl

import requests

NO_HOST = "no such host"


class Failure(Exception):
    """The failure of an address: a status, a phrase that is the same in every run, and the wait asked for."""

    def __init__(self, status: str, error: str, http_status: int | str = "", wait: float | None = None):
        super().__init__(error)
        self.status, self.error, self.http_status = status, error, http_status
        self.wait = wait  # seconds for which the host asks to be left alone


class NoAnswer(Failure):
    """The host did not answer, or broke off."""


class Redirect(Exception):
    """The address answered with another one."""


class Stopped(Exception):
    """The run ends before this picture or file is complete."""


def network_failure(error: Exception) -> NoAnswer:
    """What `requests` and the libraries below it raise, without the numbers and names that differ from run to run."""
    chain = causes(error)
    for one in chain:
        if isinstance(one, socket.gaierror):
            unknown = one.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
            return NoAnswer("gone", NO_HOST) if unknown else NoAnswer("transient", "name resolution failed")
    phrases = {
        requests.exceptions.ConnectTimeout: "no connection in time",
        requests.exceptions.ReadTimeout: "silence",
        ssl.SSLError: "TLS failed",
        requests.exceptions.ProxyError: "proxy failed",
        requests.exceptions.InvalidHeader: "header that contradicts itself",
        TimeoutError: "silence",
        http.client.LineTooLong: "header line without an end",
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

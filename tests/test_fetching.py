"""One request: proxies, certificates and waits, as `requests` and the environment have them."""

from __future__ import annotations

import email.utils
import shutil
import ssl
import subprocess
import time

import pytest
import requests
from loopback_server import picture, serving

import utils
from fetching.failures import Failure
from fetching.hosts import Limits
from fetching.request import PLAIN, Client, requested_wait

PROXIES = [f"{name}_proxy" for name in ("http", "https", "no", "all")]


@pytest.fixture
def environment(monkeypatch):
    """An environment without proxies and certificates, in which to set some."""
    for name in [*PROXIES, *map(str.upper, PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def get(url: str) -> bytes:
    return Client("me@example.org", Limits(read_timeout=5)).get(url).content


def test_a_proxy_of_the_environment_is_asked_and_no_proxy_obeyed(environment):
    with serving(2) as [proxy, direct]:
        environment.setenv("http_proxy", proxy.url)
        proxy.serves("http://pictures.example/a.jpg", picture(1))
        direct.serves("/b.jpg", picture(2))
        assert get("http://pictures.example/a.jpg") == picture(1)
        environment.setenv("NO_PROXY", "127.0.0.1")
        assert get(f"{direct.url}/b.jpg") == picture(2)
        assert dict(proxy.counts) == {"http://pictures.example/a.jpg": 1}
        assert direct.log[0][2] == "image-virality/1.0 (research; contact: me@example.org)"


@pytest.mark.parametrize("proxy", ["http://", "gopher://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_one_is_named(environment, proxy):
    environment.setenv("http_proxy", proxy)
    with pytest.raises(utils.UserError, match="http_proxy is not a usable proxy"):
        get("http://pictures.example/a.jpg")


def test_a_proxy_that_is_away_is_a_failure_of_the_moment(environment):
    environment.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(Failure) as failure:
        get("http://pictures.example/a.jpg")
    assert (failure.value.status, failure.value.error) == ("transient", "proxy failed")


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1 by itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes the certificate")
    path = tmp_path / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=loopback -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-keyout", path, "-out", tmp_path / "only.pem"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "only.pem").read_bytes())
    return path


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_of_the_environment_are_believed_and_no_others(environment, certificate, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving() as [server]:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.serves("/a.jpg", picture()).replace("http://", "https://")
        with pytest.raises(Failure) as failure:
            get(url)
        assert (failure.value.status, failure.value.error) == ("transient", "TLS failed")
        environment.setenv(name, str(certificate))
        assert get(url) == picture()
        environment.setenv(name, str(certificate.parent / "none.pem"))
        with pytest.raises(utils.UserError, match=r"none\.pem .* do not exist"):
            get(url)


@pytest.mark.parametrize("path", ["/../a.jpg", "/x/../a.jpg", "/./a.jpg", "/x/y/../../a.jpg", "/a%2Ejpg", "/%61.jpg"])
def test_forms_of_one_address_ask_for_the_same(environment, path):
    with serving() as [server]:
        server.serves("/a.jpg", picture(1))
        assert get(server.url + path) == picture(1)


@pytest.mark.parametrize("path", ["/a.jpg", "/a/b-c_d~e.f?g=h&i=j+k=", "/?a", "/a//b..c"])
def test_a_plain_address_is_what_requests_would_make_of_it(path):
    url = f"http://pictures.example:80{path}"
    assert PLAIN.fullmatch(url) and requests.Request("GET", url).prepare().url == url


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0),
        ({"X-Ratelimit-Reset": "59"}, 59),
        ({"Retry-After": "3", "X-Ratelimit-Reset": "59"}, 3),
        ({"Retry-After": "9" * 400}, float("inf")),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1, 2"}, None),
        ({"Retry-After": "Fri, 31 Dec 99999999999 23:59:59 GMT"}, None),
        ({"Retry-After": "Thu, 01 Jan 0001 00:00:00 +9999"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_a_host_asks_for(headers, seconds):
    assert requested_wait(headers) == seconds


def test_a_host_may_ask_to_be_left_alone_until_a_moment():
    moment = email.utils.formatdate(time.time() + 1000, usegmt=True)
    assert requested_wait({"Retry-After": moment}) == pytest.approx(1000, abs=30)

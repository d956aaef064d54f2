"""A single address, fetched once and kept until the process ends: pictures, lists and archives by http(s).

With the client, limits and failures of the downloader: redirects are followed, temporary failures are retried,
concurrent requests per host are limited, and a host that does not answer is not asked again.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from fetching.addresses import Services, stands_in
from fetching.bodies import read, save, uncompressed
from fetching.failures import Failure, Redirect, Stopped
from fetching.hosts import Host, Limits, Task
from fetching.ledger import AGAIN, Ledger
from fetching.request import Client
from fetching.workers import METADATA_BYTES, METADATA_SECONDS, Run, ask, back_off, followed

LIMITS = Limits(max_wait=60.0, retries=2)  # somebody waits


class Fetched:
    """What has been fetched so far, in a folder of its own, and how each address failed that could not be had."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="image-virality-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.limits, self.services = limits, Services()
        ledger = Ledger(self.folder / "images")
        self.run = Run(self.folder, ledger, Client(None, limits), limits, self.services)
        self.lock, self.locks = threading.Lock(), defaultdict(threading.Lock)
        self.turns: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limits.per_host))
        self.stopped = threading.Event()
        self.found: dict[str, Path | Failure] = {}

    def get(self, url: str, large: bool = False) -> Path:
        """The file that holds what is at an address; `large`: a list or an archive, for which more bytes and time are
        allowed than for a picture. Raises Failure."""
        with self.lock:
            own = self.locks[url]
        with own:
            if url not in self.found:
                try:
                    path = self.folder / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
                    save(self._waited_for(url, large), path)
                    self.found[url] = path
                except Failure as failure:
                    self.found[url] = failure
        if isinstance(found := self.found[url], Failure):
            raise found
        return found

    def stop(self) -> None:
        """Let all who wait for an address now leave, by Stopped: a silent host would keep them for a minute."""
        stopped, self.stopped = self.stopped, threading.Event()
        stopped.set()

    def _waited_for(self, url: str, large: bool) -> bytes:
        came: list[bytes | BaseException] = []
        stopped = self.stopped

        def fetch() -> None:
            try:
                came.append(self._body(url, large))
            except BaseException as error:
                came.append(error)

        thread = threading.Thread(target=fetch, daemon=True)  # is left behind where the process ends
        thread.start()
        while thread.is_alive():
            if stopped.is_set():
                raise Stopped
            thread.join(0.2)
        if isinstance(found := came[0], BaseException):
            raise found
        return found

    def _body(self, url: str, large: bool) -> bytes:
        task = Task(url, [("link", url)])
        task.next_address()
        while True:
            with self.lock:
                host = self.run.queue.host(task.url)
                turn = self.turns[host.name]
            try:
                with turn:
                    return self._ask(task, host, large)
            except Redirect as redirect:
                if failure := followed(task, redirect):
                    raise failure from redirect
            except Failure as failure:
                too_long = (failure.wait or 0) > self.limits.max_wait
                if failure.status not in AGAIN or host.closed or too_long or task.tries >= self.limits.retries:
                    raise
                time.sleep(back_off(task, host, failure, self.limits.backoff))

    def _ask(self, task: Task, host: Host, large: bool) -> bytes:
        limits = self.limits
        most, seconds = (METADATA_BYTES, METADATA_SECONDS) if large else (limits.max_bytes, limits.max_seconds)
        time.sleep(max(0.0, min(host.paused_until - time.monotonic(), limits.max_wait)))
        with closing(ask(self.run, task.url, host)) as response:
            body = read(response, most, seconds, lambda: False)
            body = uncompressed(body, response.headers.get("Content-Encoding", ""), most)
        if name := stands_in(body, task.url, self.services):
            raise Failure("placeholder", f"{name}'s picture of a removed one")
        return body


@functools.cache
def fetched() -> Fetched:
    """That of this process."""
    return Fetched()

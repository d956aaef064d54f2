"""Hosts and the tasks that wait for them: which host may be asked now, given its limit, pauses and outages."""

from __future__ import annotations

import heapq
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import SplitResult, urlsplit

from tqdm import tqdm

MOST_ADDRESSES = 20  # that are asked for one picture


@dataclass(frozen=True)
class Limits:
    """The limits of a run, per host and per picture. Times are in seconds."""

    per_host: int = 4  # requests to a host at a time
    retries: int = 3  # of a request that fails for now
    backoff: float = 1.0  # before the first retry, then doubled; ± half
    max_wait: float = 900.0  # for which a host may ask to be left alone
    connect_timeout: float = 10.0
    read_timeout: float = 30.0  # of silence
    max_seconds: float = 120.0  # for a whole picture
    max_bytes: int = 30_000_000
    max_pixels: int = 50_000_000


@dataclass(slots=True)  # there may be a million of them
class Task:
    """A picture or a metadata file, and the addresses still to be tried for it."""

    name: str  # img_id, or a metadata file's path in the data folder
    addresses: list[tuple[str, str]]  # (source, address)
    expected: str = ""  # SHA-256, or its first digits
    source: str = ""
    url: str = ""
    hops: int = 0
    tries: int = 0
    rows: list[dict[str, str]] = field(default_factory=list)  # how the addresses so far failed
    seen: list[str] = field(default_factory=list)

    def lead_to(self, addresses: list[tuple[str, str]]) -> None:
        """Try these before the others."""
        self.addresses[:0] = addresses

    def first_address(self) -> str:
        return self.addresses[0][1] if self.addresses else ""

    def next_address(self) -> bool:
        while self.addresses and len(self.seen) < MOST_ADDRESSES:  # a post may lead to another, and so on
            self.source, self.url = self.addresses.pop(0)
            self.hops = self.tries = 0
            if self.url not in self.seen:
                self.seen.append(self.url)
                return True
        return False


@dataclass
class Host:
    """A host (its name and port), the tasks that wait for it, and how it has answered."""

    name: str
    waiting: list[tuple[float, int, Task]] = field(default_factory=list)  # a heap, by earliest start
    active: int = 0
    paused_until: float = 0.0
    silent: int = 0  # requests in a row without an answer
    troubled: int = 0  # answers in a row that it is busy or broken
    refused: list[float] = field(default_factory=list)  # moments at which it answered that a picture is forbidden
    # Rows of pictures to which it said no more than that, and the moment.
    forbidden: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: tuple[str, str] | None = None  # status and why: it is not asked again in this run

    def start(self) -> float:
        return 0.0 if self.closed else max(self.waiting[0][0], self.paused_until)


class Queue:
    """Tasks waiting for their hosts. A worker takes any task whose host may be asked now; so neither a host's limit nor
    its pause nor a back-off keeps a worker from another host's tasks."""

    def __init__(self, per_host: int):
        self.per_host, self.hosts, self.change = per_host, {}, threading.Condition()
        self.ready: list[tuple[float, int, Host]] = []  # a heap of hints: this host may have a task to start then
        self.number, self.left, self.stopped, self.error = count(), 0, False, None

    def host(self, url: str) -> Host:
        name = re.sub(r"(:|:80|:443)$", "", parts_of(url).netloc.rpartition("@")[2].lower())
        return self.hosts.setdefault(name, Host(name))

    def put(self, task: Task, wait: float = 0.0) -> None:
        with self.change:
            host = self.host(task.url)
            heapq.heappush(host.waiting, (time.monotonic() + wait if wait else 0.0, next(self.number), task))
            self._hint(host)

    def take(self) -> tuple[Task, Host] | None:
        """The next task that may start, once there is one; None when all are done or the run is stopped."""
        with self.change:
            while self.left and not self.stopped:
                now = time.monotonic()
                while self.ready and self.ready[0][0] <= now:
                    host = heapq.heappop(self.ready)[2]
                    if host.waiting and host.active < self.per_host and host.start() <= now:
                        task = heapq.heappop(host.waiting)[2]
                        host.active += 1
                        self._hint(host)
                        return task, host
                    self._hint(host)
                self.change.wait(self.ready[0][0] - now if self.ready else None)
            return None

    def release(self, host: Host) -> None:
        with self.change:
            host.active -= 1
            self._hint(host)

    def close(self, host: Host, status: str, why: str) -> None:
        """Stop asking a host: its tasks are taken at once, and fail."""
        with self.change:
            if host.closed is None:
                tqdm.write(f"{host.name}: {why}; not asked again in this run", file=sys.stderr)
            host.closed = (status, why)
            self._hint(host)

    def stop(self, error: BaseException | None = None) -> None:
        with self.change:
            self.stopped, self.error = True, self.error or error
            self.change.notify_all()

    def _hint(self, host: Host) -> None:
        if host.waiting and host.active < self.per_host:
            heapq.heappush(self.ready, (host.start(), next(self.number), host))
            self.change.notify()


def parts_of(url: str) -> SplitResult:
    """`urlsplit`, with no scheme and no host for what is no address."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")

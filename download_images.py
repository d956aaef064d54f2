"""Download the Reddit data: the published metadata, then the pictures, each with a line in a ledger.

    python download_images.py --data_path data/reddit [--num_images N] [--subreddits funny aww …] [--archive]
                              [--contact you@example.org]

Metadata: SNAP's submissions → redditSubmissions.csv.gz, Deza & Parikh's files → deza2015/. Pictures: those of
datasets/manifest.csv (img_id,img_link[,reddit_id][,sha256]) → images/<img_id>.jpg. The manifest is written from Deza &
Parikh's table where there is none; a folder with a manifest and no deza2015/ is a data set of your own, for which no
metadata is fetched. For each picture a chain of addresses is tried: its img_link (`link`; of a page of Imgur's the
picture behind it, `imgur`); what its Reddit posts (`post`) link to (`reddit`); with --archive the Internet Archive's
copies (`archive`). JPEGs are kept byte for byte, CMYK ones excepted; all else becomes an RGB JPEG: of an animation the
first frame, transparency over white. --subreddits asks for the pictures that were mostly submitted to the communities
it names: more than half of an image's submissions went to these together. --num_images takes a sample of them.

Statuses in images/ledger.csv: ok; changed (a whole picture, but its SHA-256, as served or as kept, is not the
manifest's); placeholder (a page or picture in place of a removed one); gone (404, 410, 403, no picture at the address);
undecodable; too_large (bytes or pixels); rate_limited and transient, which a rerun tries again. Of a failed chain the
most hopeful failure is recorded. Two runs differ in the column `time` (UTC) alone, if the hosts answer alike.

Killed at any moment, even with -9, it goes on where it was when started again. Exit status: 0 all that can be had is
here; 1 something is rate_limited, transient or lacking in the metadata (run it again), or --verify_only found a fault;
2 wrong arguments or unusable input; 130 Ctrl-C. survivors.json counts the statuses and tells which pictures are here:
the SHA-256 of the list of their img_ids, one a line, numbers in their order (`sort -n`).

Cost: 10,078 pictures, some GB. An hour where img_link answers. Reddit answers those without an account about ten
questions a minute: where it has to be asked for most, days.
"""

from __future__ import annotations

import argparse
import csv
import errno
import gzip
import hashlib
import heapq
import io
import json
import os
import random
import re
import socket
import sys
import threading
import time
import urllib.request
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import certifi
import pandas as pd
import urllib3
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm
from urllib3 import exceptions as failures

try:
    import fcntl
except ImportError:  # Windows: nobody keeps a second run out
    fcntl = None

from utils import (
    UserError,
    at_least,
    print_configuration,
    read_csv,
    run_main,
    sha256,
    write_csv,
    write_json,
    written_whole,
)

# Best first: of the failures along a chain of addresses, the first of these is the one recorded.
STATUSES = "ok changed rate_limited transient too_large undecodable placeholder gone".split()
KEPT, AGAIN = STATUSES[:2], STATUSES[2:4]
COLUMNS = "img_id status source url http_status sha256 bytes width height error time".split()
PLACEHOLDERS = {"d835884373f4d6c8f24742ceabe74946"}  # MD5 of Imgur's picture 'no longer available'
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")  # Pillow's other readers are not for strangers' files
CHUNK = 2**16
MAX_HOPS = 5  # redirects
DOWN_AFTER = 10  # requests in a row without an answer: then a host is left alone until the next run
METADATA_BYTES, METADATA_SECONDS = 2**28, 3600.0
NO_HOST = "no such host"

SNAP_FILE = "redditSubmissions.csv.gz"
_RA = "Results_Computations/Relative_Attributes"
_SVM = "deep__split_01__rbf__weighted_F__bow_F__normalize_T__.mat"
# Deza & Parikh's files: name under deza2015/ → where it is in their repository, first digits of its SHA-256.
DEZA_FILES = {
    "viral_datasetV2.mat": ("Create_Dataset_Code/viral_datasetV2.mat", "1939b3688ea625a9"),
    "final_names.csv": ("Create_Dataset_Code/final_names.csv", "0116595bdff91233"),
    "authenticated_shift_score.csv": ("Create_Dataset_Code/authenticated_shift_score.csv", "7b7d568bb1f823b7"),
    "img_id.csv": ("Create_Dataset_Code/img_id.csv", "b6919c5e52be9d91"),
    "img_hash.csv": ("Create_Dataset_Code/img_hash.csv", "04391eed87489ef1"),
    "subreddit.csv": ("Create_Dataset_Code/subreddit.csv", "a14d1b4a7d0dfeca"),
    "img_score.csv": ("Create_Dataset_Code/img_score.csv", "40ec35a32bfb1c48"),
    "img_comments.csv": ("Create_Dataset_Code/img_comments.csv", "bba21b4dee9d13b0"),
    "pair_matrix.mat": ("pair_matrix.mat", "aad4fa20d7fa9d2c"),
    "Attribute_matrix.mat": ("Attribute_matrix.mat", "14182fa1786e1435"),
    "Top_489_pair.mat": ("Top_489_pair.mat", "4647f0c02632bf07"),
    "virality_label.mat": (f"{_RA}/virality_label.mat", "bcb1c0ea4f2ba295"),
    "attributes/SVM_Result_animal.mat": (f"{_RA}/animal_N/SVM_Result_0830_{_SVM}", "53275012163fda5c"),
    "attributes/SVM_Result_beautiful.mat": (f"{_RA}/beautiful_N/SVM_Result_0553_{_SVM}", "c62a372544881e82"),
    "attributes/SVM_Result_explicit.mat": (f"{_RA}/explicit_N/SVM_Result_0269_{_SVM}", "253e41dfe8e2954e"),
    "attributes/SVM_Result_sexual.mat": (f"{_RA}/sexual_N/SVM_Result_0262_{_SVM}", "dfb98137f0bd2027"),
    "attributes/SVM_Result_synthgen.mat": (f"{_RA}/synthgen_N/SVM_Result_1027_{_SVM}", "e1f623d79998ca7e"),
    "attributes/split_A1_Top.mat": (f"{_RA}/split_A1_Top.mat", "c197f212d68b1cb0"),
    "attributes/split_A2_Top.mat": (f"{_RA}/split_A2_Top.mat", "c8435e19e3f8ea64"),
    "attributes/split_A3_Top.mat": (f"{_RA}/split_A3_Top.mat", "276d7d1a7de67738"),
    "attributes/split_A4_Top.mat": (f"{_RA}/split_A4_Top.mat", "cbadc58f430d0478"),
    "attributes/split_A5_Top.mat": (f"{_RA}/split_A5_Top.mat", "cd77feede0fbd18a"),
    "attributes/unique_250.mat": (f"{_RA}/unique_250.mat", "57fc3cfe09798853"),
}


class Failure(Exception):
    """Why an address gave nothing: a status, a phrase that is the same in every run, and what the host asks for."""

    def __init__(self, status: str, error: str, http_status: int | str = "", wait: float | None = None):
        super().__init__(error)
        self.status, self.error, self.http_status = status, error, http_status
        self.wait = wait  # seconds for which the host asks to be left alone


class Stopped(Exception):
    """The run ends before this file is whole."""


class Redirect(Exception):
    """The address answered with another one."""


# --- the ledger -----------------------------------------------------------------------------------------------------
class Ledger:
    """images/ledger.csv: a line appended, in one write, as each picture's fate is known; sorted, a line a picture, once
    a run starts and ends. The line goes before the rename of the .part file to <img_id>.jpg, never after it: whatever
    the moment of a kill, a picture is either not in the ledger, or its bytes are whole under one of the two names."""

    def __init__(self, images: Path):
        self.images, self.path = images, images / "ledger.csv"
        self.rows: dict[str, dict[str, str]] = {}
        self.lock, self.file = threading.Lock(), -1
        if not self.path.exists():
            return
        # What follows the last newline was torn by a kill and is not a line.
        text = self.path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        for number, values in enumerate(csv.reader(io.StringIO(text)), start=1):
            if number == 1 and values != COLUMNS:
                raise UserError(f"{self.path} does not start with {','.join(COLUMNS)}")
            if number > 1 and (len(values) != len(COLUMNS) or values[1] not in STATUSES):
                raise UserError(f"{self.path}, line {number} is not a line of a ledger: {','.join(values)[:80]}")
            if number > 1:
                self.rows[values[0]] = dict(zip(COLUMNS, values, strict=True))

    def kept(self, img_id: str) -> bool:
        """Whether the picture is in the ledger as had, and on disk."""
        return img_id in self.rows and self.rows[img_id]["status"] in KEPT and self.picture(img_id).exists()

    def picture(self, img_id: str) -> Path:
        return self.images / f"{img_id}.jpg"

    def recover(self) -> None:
        """Finish the renames that a kill prevented, and remove what else it left half done."""
        for part in self.images.glob("*.part"):
            row = self.rows.get(part.stem, {"status": "", "sha256": ""})
            picture = self.picture(part.stem)
            if row["status"] in KEPT and not picture.exists() and sha256(part) == row["sha256"]:
                os.replace(part, picture)
            else:
                part.unlink()

    def write(self) -> None:
        with written_whole(self.path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows[img_id] for img_id in sorted(self.rows, key=natural))

    def open(self) -> None:
        self.recover()
        self.write()
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def record(self, row: dict[str, str], part: Path | None = None) -> None:
        """Append a row; then, for a picture that was had, give its .part file its name."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row[column] for column in COLUMNS])
        line = text.getvalue().encode()
        with self.lock:
            if self.file < 0:  # the run is being interrupted
                raise Stopped
            if os.write(self.file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if part is not None:
                os.replace(part, self.picture(row["img_id"]))
            self.rows[row["img_id"]] = row

    def close(self) -> None:
        """Take no more rows; leave the ledger sorted, and no file that is not whole."""
        with self.lock:
            os.close(self.file)
            self.file = -1
        self.recover()
        self.write()


def natural(img_id: str) -> tuple[bool, int, str]:
    """Sort key: numbers in their order, then names."""
    return not img_id.isdecimal(), len(img_id) if img_id.isdecimal() else 0, img_id


# --- tasks and the hosts they wait for ------------------------------------------------------------------------------
@dataclass
class Task:
    """A picture or a metadata file, and the addresses still to be tried for it."""

    name: str  # img_id, or a metadata file's path in the data folder
    addresses: deque[tuple[str, str]]  # (source, address)
    expected: str = ""  # SHA-256, or its first digits
    source: str = ""
    url: str = ""
    hops: int = 0
    tries: int = 0
    rows: list[dict[str, str]] = field(default_factory=list)  # how the addresses so far failed
    seen: set[str] = field(default_factory=set)

    def first_address(self) -> str:
        return self.addresses[0][1] if self.addresses else ""

    def next_address(self) -> bool:
        while self.addresses:
            self.source, self.url = self.addresses.popleft()
            self.hops = self.tries = 0
            if self.url not in self.seen:
                self.seen.add(self.url)
                return True
        return False


@dataclass
class Host:
    name: str
    waiting: list[tuple[float, int, Task]] = field(default_factory=list)  # a heap, by earliest start
    active: int = 0
    paused_until: float = 0.0
    silent: int = 0  # requests in a row without an answer
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
        name = parts_of(url).netloc.rpartition("@")[2].lower()
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
        """Ask a host no more: its tasks are taken at once, and fail."""
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


class Run:
    """What the workers share: the flags, the ledger, the queue, connections, and counts."""

    def __init__(self, args: argparse.Namespace, ledger: Ledger):
        self.args, self.ledger, self.queue = args, ledger, Queue(args.per_host)
        self.finished, self.kept, self.answered = 0, 0, False
        self.lacking: list[dict[str, str]] = []  # metadata files that could not be had
        contact = f"; contact: {args.contact}" if args.contact else ""
        self.timeout = urllib3.Timeout(connect=args.connect_timeout, read=args.read_timeout)
        options = {
            "maxsize": args.per_host,
            # 'identity': bodies come as they are, so that their length can be checked and a .gz stays one.
            "headers": {"User-Agent": f"image-virality/1.0 (research{contact})", "Accept-Encoding": "identity"},
            "ca_certs": os.environ.get("SSL_CERT_FILE") or certifi.where(),
        }
        self.direct = urllib3.PoolManager(64, **options)
        self.proxies = {}
        for scheme, proxy in urllib.request.getproxies().items():
            if scheme in ("http", "https"):
                try:
                    proxy = proxy if "://" in proxy else f"http://{proxy}"
                    self.proxies[scheme] = urllib3.ProxyManager(proxy, **options)
                except failures.HTTPError as error:
                    raise UserError(f"the environment's {scheme}_proxy is not an http proxy") from error

    def pool(self, url: str) -> urllib3.PoolManager:
        parts = parts_of(url)
        bypass = not self.proxies or urllib.request.proxy_bypass(parts.netloc)
        return self.direct if bypass else self.proxies.get(parts.scheme, self.direct)


def work(run: Run) -> None:
    """What each thread does: take a task, do its next step, until there is none."""
    try:
        while (taken := run.queue.take()) is not None:
            task, host = taken
            try:
                step(run, task, host)
            finally:
                run.queue.release(host)
    except Stopped:
        pass
    except BaseException as error:  # a full disk, or a fault of ours: the main thread says so
        run.queue.stop(error)


def step(run: Run, task: Task, host: Host) -> None:
    """One request. Then the task is finished, or put where it goes on: another address, another host, or later."""
    failure = None
    try:
        if host.closed:
            raise Failure(*host.closed)
        with closing(ask(run, task.url, host)) as response:
            receive = {"post": receive_post, "file": receive_file}.get(task.source, receive_picture)
            if receive(run, task, response):
                return finish(run, kept=True)
    except Redirect as redirect:
        task.hops, task.url = task.hops + 1, str(redirect)
        if task.url.endswith("/removed.png"):
            failure = Failure("placeholder", "redirected to removed.png")
        elif task.hops > MAX_HOPS:
            failure = Failure("gone", f"more than {MAX_HOPS} redirects")
        else:
            return run.queue.put(task)
    except Failure as error:
        failure = error
    if failure is not None and failure.status in AGAIN and not host.closed and task.tries < run.args.retries:
        # Jitter: else all that failed together would come back together.
        wait = run.args.backoff * 2**task.tries * random.uniform(0.5, 1.5)
        if failure.status == "rate_limited" or failure.wait is not None:  # the host, and it alone, is to wait
            wait = 4 * wait if failure.wait is None else failure.wait
            host.paused_until = max(host.paused_until, time.monotonic() + wait)
        task.tries += 1
        return run.queue.put(task, wait)
    if failure is not None:
        task.rows.append(new_row(task, failure.status, http_status=failure.http_status, error=failure.error))
    if task.next_address():
        return run.queue.put(task)
    give_up(run, task)


def give_up(run: Run, task: Task) -> None:
    """Record a task none of whose addresses served: by the most hopeful of their failures, the first such."""
    rows = task.rows or [new_row(task, "gone", error="no address")]
    for row in rows:
        if row["error"] == NO_HOST and not run.answered:  # nobody answers: it is our network that is away
            row["status"] = "transient"
    row = min(rows, key=lambda row: STATUSES.index(row["status"]))
    if task.source == "file":
        run.lacking.append(row)
    else:
        run.ledger.record(row)
    finish(run, kept=False)


def finish(run: Run, kept: bool) -> None:
    with run.queue.change:
        run.finished, run.kept, run.queue.left = run.finished + 1, run.kept + kept, run.queue.left - 1
        if not run.queue.left:
            run.queue.change.notify_all()


def new_row(task: Task, status: str, **values: object) -> dict[str, str]:
    """A row of the ledger. `url` is the address that answered, after redirects."""
    row = dict.fromkeys(COLUMNS, "") | {key: str(value) for key, value in values.items()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return row | {"img_id": task.name, "status": status, "source": task.source, "url": task.url, "time": now}


def parts_of(url: str) -> SplitResult:
    """`urlsplit`, with no scheme and no host for what is no address."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


# --- one request ----------------------------------------------------------------------------------------------------
def ask(run: Run, url: str, host: Host) -> urllib3.BaseHTTPResponse:
    """The answer to a request, its body unread; Redirect or Failure where it is not the thing itself."""
    if parts_of(url).scheme not in ("http", "https"):
        raise Failure("gone", "refused: not an http address")
    try:
        response = run.pool(url).request(
            "GET", url, redirect=False, retries=False, preload_content=False, timeout=run.timeout
        )
    except failures.HTTPError as error:
        if isinstance(error, failures.LocationValueError):
            raise Failure("gone", "not an address") from error
        failure = network_failure(error)
        host.silent += 1
        if host.silent >= DOWN_AFTER or failure.error == NO_HOST:
            run.queue.close(host, failure.status, NO_HOST if failure.error == NO_HOST else "host does not answer")
        raise failure from error
    host.silent, run.answered = 0, True
    if response.status in (200, 203):
        return response
    status, headers = response.status, response.headers
    response.close()
    if status in (301, 302, 303, 307, 308) and "Location" in headers:
        target = headers["Location"]
        raise Redirect(urljoin(url, target) if parts_of(target) != parts_of("") else "")
    wait = requested_wait(headers) if status in (429, 503) else None
    if wait is not None and wait > run.args.max_wait:
        run.queue.close(host, "rate_limited", "host asks for a longer wait than --max_wait")
    again = "rate_limited" if status == 429 else "transient" if status >= 500 or status in (408, 425) else "gone"
    raise Failure(again, f"HTTP {status}", status, wait)


def requested_wait(headers: Any) -> float | None:
    """Seconds for which a host asks to be left alone: Retry-After (seconds or a date), or Reddit's own header."""
    try:
        if "Retry-After" in headers:
            return float(urllib3.Retry().parse_retry_after(headers["Retry-After"]))
        return max(0.0, float(headers["X-Ratelimit-Reset"])) if "X-Ratelimit-Reset" in headers else None
    except (failures.InvalidHeader, ValueError):
        return None


def network_failure(error: failures.HTTPError) -> Failure:
    """A Failure without the numbers and object addresses that differ from run to run."""
    if isinstance(error, failures.NameResolutionError):
        cause = error.__cause__ or error.__context__
        unknown = isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return Failure("gone", NO_HOST) if unknown else Failure("transient", "name resolution failed")
    phrases = {
        failures.ConnectTimeoutError: "no connection in time",
        failures.NewConnectionError: "no connection",
        failures.ReadTimeoutError: "silence",
        failures.SSLError: "TLS failed",
        failures.IncompleteRead: "body shorter than its length",
        failures.DecodeError: "body not in its encoding",
        failures.ProtocolError: "connection broken",
    }
    # urllib3 wraps the short body in a ProtocolError.
    chain = (error, *(arg for arg in error.args if isinstance(arg, Exception)))
    names = [phrase for kind, phrase in phrases.items() if any(isinstance(one, kind) for one in chain)]
    return Failure("transient", names[0] if names else type(error).__name__)


def body(run: Run, response: urllib3.BaseHTTPResponse, max_bytes: int, seconds: float) -> Iterator[bytes]:
    """The body in pieces as they arrive, so that neither an endless body nor a trickle lasts for ever."""
    limit = Failure("too_large", f"more than {max_bytes} bytes", response.status)
    if (response.length_remaining or 0) > max_bytes:
        raise limit
    end, size = time.monotonic() + seconds, 0
    while True:
        try:
            piece = response.read1(CHUNK)
        except failures.HTTPError as error:
            failure = network_failure(error)
            failure.http_status = response.status
            raise failure from error
        if run.queue.stopped:
            raise Stopped
        if not piece:
            return
        size += len(piece)
        if size > max_bytes:
            raise limit
        if time.monotonic() > end:
            raise Failure("transient", f"not whole after {seconds:g} seconds", response.status)
        yield piece
        if response.length_remaining == 0:
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


# --- what the answer holds ------------------------------------------------------------------------------------------
def receive_picture(run: Run, task: Task, response: urllib3.BaseHTTPResponse) -> bool:
    """Keep a picture, if it is one and whole: first in a .part file, then in the ledger, then under its name."""
    args, part = run.args, run.ledger.images / f"{task.name}.part"
    try:
        data = save(body(run, response, args.max_bytes, args.max_seconds), part)
        try:
            width, height, jpeg = decode(data, args.max_pixels)
        except Failure as failure:
            failure.http_status = response.status
            raise
        kept = served = hashlib.sha256(data).hexdigest()
        if jpeg is not None:
            save([jpeg], part)
            data, kept = jpeg, hashlib.sha256(jpeg).hexdigest()
        status = "ok" if task.expected in ("", served, kept) else "changed"
        facts = {"http_status": response.status, "sha256": kept, "bytes": len(data), "width": width, "height": height}
        run.ledger.record(new_row(task, status, **facts), part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return True


def decode(data: bytes, max_pixels: int) -> tuple[int, int, bytes | None]:
    """Decode a picture to its last row: `verify()` or a look at the header would pass a truncated one.

    Returns its width and height in pixels, and the RGB JPEG to keep in its place; None for one that is a JPEG already.
    Raises Failure."""
    if not data:
        raise Failure("undecodable", "empty")
    if len(data) < 2**12 and hashlib.md5(data, usedforsecurity=False).hexdigest() in PLACEHOLDERS:
        raise Failure("placeholder", "Imgur's picture of a removed one")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Failure("too_large", f"more than {max_pixels} pixels")
            if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                # Every byte is read and every coefficient decoded, which is where damage shows. Spared is what cannot
                # fail: to turn them into all the pixels and colours, two fifths of the time.
                width, height = image.size
                image.draft("L", (width // 8, height // 8))
                image.load()
                return width, height, None
            image.load()
            jpeg = io.BytesIO()
            to_rgb(image).save(jpeg, "JPEG", quality=95)
            return image.width, image.height, jpeg.getvalue()
    except Failure:
        raise
    except Image.DecompressionBombError as error:
        raise Failure("too_large", f"more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        head = data[:1024].lower()
        if b"<html" in head or b"<!doctype" in head:
            raise Failure("placeholder", "a page, not a picture") from error
        raise Failure("undecodable", "not a picture") from error
    except Exception as error:  # a decoder fed with garbage raises nearly any type
        raise Failure("undecodable", " ".join(str(error).split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB: what is transparent over white, 16-bit grey scaled down (Pillow would clip it to white)."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def receive_post(run: Run, task: Task, response: urllib3.BaseHTTPResponse) -> bool:
    """Read a Reddit post's JSON and put the picture it links to first among the addresses to try."""
    text = b"".join(body(run, response, run.args.max_bytes, run.args.max_seconds))
    try:
        post = json.loads(text)[0]["data"]["children"][0]["data"]
        url, is_self = str(post["url"]), bool(post.get("is_self"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Failure("transient", "not a post's JSON", response.status) from error
    if is_self or not url:
        raise Failure("gone", "the post links to no picture", response.status)
    url = direct_address(url, run.args.imgur_url) or url
    task.addresses.appendleft(("reddit", url))
    if run.args.archive:
        task.addresses.append(("archive", archived(url, run.args.archive_url)))
    return False


def direct_address(url: str, imgur_url: str) -> str | None:
    """The picture behind one of Imgur's pages (imgur.com/<id>, also in a gallery, .gifv, …); None for what is none."""
    host, path = parts_of(url)[1:3]
    match = re.fullmatch(r"/(?:gallery/|r/\w+/)?(\w{5,8})(?:\.gifv|\.html?)?/?", path)
    is_page = match and re.fullmatch(r"((www|m)\.)?imgur\.com", host.lower())
    is_film = path.endswith(".gifv") and host.lower() == "i.imgur.com"
    # Whatever the type of the picture, Imgur serves it under .jpg.
    return f"{imgur_url}/{match[1]}.jpg" if match and (is_page or is_film) else None


def archived(url: str, archive_url: str) -> str:
    """The Internet Archive's copy nearest to 2015, when Deza & Parikh had the pictures, as it was served (`id_`)."""
    return f"{archive_url}/web/2015id_/{url}"


def receive_file(run: Run, task: Task, response: urllib3.BaseHTTPResponse) -> bool:
    """Keep a metadata file, if it is what its name says."""
    path = Path(run.args.data_path) / task.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        digest = hashlib.sha256(save(body(run, response, METADATA_BYTES, METADATA_SECONDS), part)).hexdigest()
        try:
            with (gzip.open if path.suffix == ".gz" else open)(part, "rb") as file:
                head = file.read(100)
                while file.read(2**20):  # to the end: gzip checks its sum there
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise Failure("undecodable", "not a whole gzip file", response.status) from error
        start = {".gz": rb"#image_id", ".mat": rb"MATLAB"}.get(path.suffix, rb"[^<]")  # not a page
        if not re.match(start, head):
            raise Failure("undecodable", f"not what a {path.suffix} file starts with", response.status)
        if not digest.startswith(task.expected):
            tqdm.write(f"{path} is not the file known from its publication: SHA-256 {digest}", file=sys.stderr)
        os.replace(part, path)
        return True
    finally:
        part.unlink(missing_ok=True)


# --- what there is to do --------------------------------------------------------------------------------------------
def metadata_tasks(args: argparse.Namespace) -> list[Task]:
    """The metadata files that are not here yet; none for somebody's own data set."""
    data_path = Path(args.data_path)
    if (data_path / "datasets" / "manifest.csv").exists() and not (data_path / "deza2015").exists():
        return []
    addresses = {SNAP_FILE: (f"{args.snap_url}/{SNAP_FILE}", "")}
    addresses |= {f"deza2015/{name}": (f"{args.deza_url}/{path}", head) for name, (path, head) in DEZA_FILES.items()}
    return [
        Task(name, deque([("file", url)]), expected)
        for name, (url, expected) in addresses.items()
        if not (data_path / name).exists()
    ]


def picture_task(args: argparse.Namespace, picture: Any) -> Task:
    """A picture's chain of addresses, as far as it is known before Reddit is asked."""
    link = picture.img_link.strip()
    direct = direct_address(link, args.imgur_url)
    addresses = deque([("imgur", direct) if direct else ("link", link)] if link else [])
    for post in picture.reddit_id.split()[: args.posts]:
        addresses.append(("post", f"{args.reddit_url}/comments/{post}.json?limit=1&raw_json=1"))
    if args.archive and link:
        addresses.append(("archive", archived(direct or link, args.archive_url)))
    return Task(picture.img_id, addresses, picture.sha256.strip().lower())


def write_manifest(data_path: Path) -> None:
    """datasets/manifest.csv: Deza & Parikh's table, lowest V first, with the Reddit posts of each image in time."""
    import deza2015  # needs scipy, which would double the time of every other start

    folder = data_path / "deza2015"
    posts = deza2015.read_submissions(folder).groupby("image_id")["reddit_id"].agg(" ".join)
    table = deza2015.read_table(folder)
    table["reddit_id"] = table["SNAP_id"].map(posts).fillna("")
    write_csv(data_path / "datasets" / "manifest.csv", table[["img_id", "img_link", "reddit_id"]])


def read_manifest(path: Path) -> pd.DataFrame:
    """The pictures to have: img_id, img_link, reddit_id (posts, between spaces), sha256; all text, '' where unknown."""
    table = read_csv(path, ["img_id", "img_link"], dtype=str, keep_default_na=False)
    for column in ("reddit_id", "sha256"):
        if column not in table:
            table[column] = ""
    bad = ~table["img_id"].str.fullmatch(r"\w[\w.-]{0,99}") | table["img_id"].duplicated()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        why = "is there twice" if table["img_id"].duplicated()[row] else "cannot be a file's name"
        raise UserError(f"{path}, line {row + 2}: the img_id {table['img_id'][row]!r} {why}")
    return table


def of_subreddits(manifest: pd.DataFrame, data_path: Path, subreddits: list[str]) -> pd.DataFrame:
    """The pictures that more than half of their submissions took to these communities, whatever case they are in."""
    import deza2015

    folder = data_path / "deza2015"
    if not folder.is_dir():
        raise UserError(f"--subreddits: {folder}, which says where pictures were submitted, is not here")
    submissions, table = deza2015.read_submissions(folder), deza2015.read_table(folder)
    community, wanted = submissions["subreddit"].str.lower(), {name.lower() for name in subreddits}
    if unknown := wanted - set(community):
        raise UserError(f"--subreddits {' '.join(sorted(unknown))}: no picture was submitted there")
    share = community.isin(wanted).groupby(submissions["image_id"]).mean()
    chosen = table.loc[table["SNAP_id"].map(share) > 0.5, "img_id"].astype(int).astype(str)
    if not manifest["img_id"].isin(chosen).any():
        raise UserError(f"--subreddits {' '.join(subreddits)}: no picture went mostly there")
    return manifest[manifest["img_id"].isin(chosen)]


def choose(manifest: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The pictures that are asked for: all, those of --subreddits, or of these --num_images."""
    if args.subreddits:
        manifest = of_subreddits(manifest, Path(args.data_path), args.subreddits)
    return sample(manifest, args.num_images)


def sample(manifest: pd.DataFrame, num_images: int | None) -> pd.DataFrame:
    """The first `num_images` in the order of a hash of img_id: a fair sample, though the manifest is sorted by V, and
    one that a larger number contains."""
    if num_images is None or num_images >= len(manifest):
        return manifest
    order = manifest["img_id"].map(lambda img_id: hashlib.sha256(img_id.encode()).hexdigest())
    return manifest.loc[sorted(order.sort_values().index[:num_images])]


def to_do(pictures: pd.DataFrame, ledger: Ledger, retry: list[str]) -> list[Any]:
    """The pictures never tried, to be tried again, or lost since."""
    settled = set(STATUSES) - set(KEPT) - set(AGAIN) - set(retry)
    status = lambda img_id: ledger.rows.get(img_id, {}).get("status")  # noqa: E731
    return [p for p in pictures.itertuples() if status(p.img_id) not in settled and not ledger.kept(p.img_id)]


# --- the command ----------------------------------------------------------------------------------------------------
def download(run: Run, tasks: list[Task], label: str) -> None:
    """Finish `tasks`, showing how far they are. Raises what stopped a worker."""
    run.finished = run.kept = 0
    run.queue.left = len(tasks)
    for task in tasks:
        if task.next_address():
            run.queue.put(task)
        else:
            give_up(run, task)
    workers = min(run.args.workers, len(tasks))
    threads = [threading.Thread(target=work, args=(run,), daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        with tqdm(total=len(tasks), desc=label, unit="file", disable=None) as bar:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    bar.set_postfix(ok=run.kept, failed=run.finished - run.kept, refresh=False)
                    bar.update(run.finished - bar.n)
    finally:
        if run.queue.left:  # Ctrl-C
            run.queue.stop()
        end = time.monotonic() + 2  # those that read notice at once; who waits for an answer is left behind
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    if run.queue.error is not None:
        raise run.queue.error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder: two would tear each other's ledger. The lock ends with the process."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"another run is downloading into {folder}") from error
    finally:
        os.close(handle)


def fetch_all(args: argparse.Namespace) -> int:
    """Metadata, then pictures. The exit status."""
    data_path, manifest = Path(args.data_path), None
    ledger = Ledger(data_path / "images")
    run = Run(args, ledger)
    ledger.open()
    try:
        tasks = metadata_tasks(args)
        download(run, tasks, "metadata")
        for row in run.lacking:
            print(f"error: {row['img_id']}: {row['status']}, {row['error']} ({row['url']})", file=sys.stderr)
        path = data_path / "datasets" / "manifest.csv"
        if not path.exists():
            if any(row["img_id"].startswith("deza2015/") for row in run.lacking):
                print(f"error: without these files {path} cannot be written", file=sys.stderr)
                return 1
            write_manifest(data_path)
        if args.metadata_only:
            return int(bool(run.lacking))
        manifest = read_manifest(path)
        pictures = choose(manifest, args)
        todo = to_do(pictures, ledger, args.retry)
        print(f"{len(manifest)} pictures in {path}; {len(pictures)} asked for, {len(todo)} to do", flush=True)
        download(run, [picture_task(args, picture) for picture in todo], "pictures")
    finally:
        ledger.close()
        if manifest is not None:
            survivors = write_survivors(data_path, manifest, ledger)
    print(status_table(ledger, pictures["img_id"]))
    print(f"{survivors['survivors']} of {survivors['expected']} pictures are here: {data_path / 'survivors.json'}")
    return int(any(ledger.rows[img_id]["status"] in AGAIN for img_id in pictures["img_id"]) or bool(run.lacking))


def write_survivors(data_path: Path, manifest: pd.DataFrame, ledger: Ledger) -> dict[str, Any]:
    """survivors.json: how many of the manifest's pictures are here, which, and what became of the others."""
    here = sorted((img_id for img_id in manifest["img_id"] if ledger.kept(img_id)), key=natural)
    counts = Counter(ledger.rows.get(img_id, {}).get("status", "not_tried") for img_id in manifest["img_id"])
    survivors = {
        "expected": len(manifest),
        "survivors": len(here),
        "sha256": hashlib.sha256("".join(f"{img_id}\n" for img_id in here).encode()).hexdigest(),
        "statuses": {status: counts[status] for status in (*STATUSES, "not_tried")},
    }
    write_json(data_path / "survivors.json", survivors)
    return survivors


def status_table(ledger: Ledger, img_ids: pd.Series) -> str:
    """The pictures asked for: statuses by the source that served, or failed most hopefully."""
    table = pd.DataFrame([ledger.rows[img_id] for img_id in img_ids], columns=COLUMNS)
    table["status"] = pd.Categorical(table["status"], STATUSES)
    return pd.crosstab(table["status"], table["source"], margins=True, margins_name="all").to_string()


def verify(args: argparse.Namespace) -> int:
    """Read every file again and compare it with the ledger's SHA-256. 1 if one is missing or changed."""
    ledger = Ledger(Path(args.data_path) / "images")
    ledger.recover()
    kept = [row for _, row in sorted(ledger.rows.items(), key=lambda item: natural(item[0])) if row["status"] in KEPT]
    if not ledger.path.exists():
        raise UserError(f"{ledger.path} does not exist: nothing has been downloaded into {args.data_path}")
    faults = []
    for row in tqdm(kept, desc="verifying", unit="file", disable=None):
        path = ledger.picture(row["img_id"])
        if not path.is_file():
            faults.append(f"missing {path}")
        elif sha256(path) != row["sha256"]:
            faults.append(f"changed {path}")
    print("\n".join([*faults, f"{len(kept)} files in the ledger, {len(faults)} missing or changed"]))
    return int(bool(faults))


def dry_run(args: argparse.Namespace) -> int:
    """Say what a run would do. Asks no host and writes nothing."""
    data_path = Path(args.data_path)
    for task in metadata_tasks(args):
        print(f"would fetch {data_path / task.name} from {task.first_address()}")
    path = data_path / "datasets" / "manifest.csv"
    if not path.exists():
        print(f"would write {path} from Deza & Parikh's table, and fetch its pictures (10,078 in all)")
        return 0
    pictures, ledger = choose(read_manifest(path), args), Ledger(data_path / "images")
    todo = to_do(pictures, ledger, args.retry)
    hosts = Counter(parts_of(picture_task(args, picture).first_address()).netloc for picture in todo)
    print(f"would fetch {len(todo)} of the {len(pictures)} pictures asked for; the first addresses to ask:")
    print("\n".join(f"  {number:>6} {host}" for host, number in hosts.most_common(20)))
    return 0


def positive(word: str) -> float:
    if not 0 < (value := float(word)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not above 0")
    return value


def failed_statuses(words: str) -> list[str]:
    unknown = [word for word in words.split(",") if word not in STATUSES[2:]]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(STATUSES[2:])}")
    return words.split(",")


def printable(words: str) -> str:
    if not (words.isascii() and words.isprintable()):
        raise argparse.ArgumentTypeError("only printable ASCII can go into a request")
    return words


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", default="data/reddit", help="the data set's folder (default %(default)s)")
    flag("--num_images", type=at_least(1), help="a sample of the manifest, by a hash of img_id (default: all)")
    flag(
        "--subreddits", nargs="+", metavar="NAME", help="pictures mostly submitted to these communities (default: all)"
    )
    flag("--metadata_only", action="store_true", help="no pictures")
    flag("--archive", action="store_true", help="at last, ask the Internet Archive")
    flag("--retry", type=failed_statuses, default=[], metavar="gone,…", help="statuses to try again, besides those")
    flag("--verify_only", action="store_true", help="compare the files with the ledger's SHA-256; ask nobody")
    flag("--dry_run", action="store_true", help="say what would be done; ask nobody, write nothing")
    flag("--contact", type=printable, help="address or page by which a host can reach you, put into the user agent")
    flag("--workers", type=at_least(1), default=16, help="threads (default %(default)s)")
    flag("--per_host", type=at_least(1), default=4, help="requests to a host at a time (default %(default)s)")
    flag("--posts", type=at_least(0), default=3, help="Reddit posts asked for a picture (default %(default)s)")
    flag("--retries", type=at_least(0), default=3, help="of a request that fails for now (default %(default)s)")
    flag("--backoff", type=positive, default=1.0, help="seconds before the first retry, then doubled; ± half")
    flag("--max_wait", type=positive, default=900.0, help="seconds for which a host may ask to be left alone")
    flag("--connect_timeout", type=positive, default=10.0, help="seconds (default %(default)s)")
    flag("--read_timeout", type=positive, default=30.0, help="seconds of silence (default %(default)s)")
    flag("--max_seconds", type=positive, default=120.0, help="for a whole picture (default %(default)s)")
    flag("--max_bytes", type=at_least(1), default=30_000_000, help="of a picture (default %(default)s)")
    flag("--max_pixels", type=at_least(1), default=50_000_000, help="of a picture (default %(default)s)")
    addresses = parser.add_argument_group("where things are (for mirrors and tests)").add_argument
    addresses("--snap_url", default="http://snap.stanford.edu/data")
    addresses("--deza_url", default="https://raw.githubusercontent.com/ArturoDeza/virality/master")
    addresses("--reddit_url", default="https://www.reddit.com")
    addresses("--imgur_url", default="https://i.imgur.com")
    addresses("--archive_url", default="https://web.archive.org")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    print_configuration(args, "download")
    if args.dry_run:
        return dry_run(args)
    images = Path(args.data_path) / "images"
    if args.verify_only and not images.is_dir():
        raise UserError(f"{images} is not a folder: nothing has been downloaded into {args.data_path}")
    Image.MAX_IMAGE_PIXELS = args.max_pixels
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` refuses them
    # Threads that mostly wait give the interpreter up by themselves; taking it from them more often costs a tenth.
    sys.setswitchinterval(0.05)
    try:
        images.mkdir(parents=True, exist_ok=True)
        with locked(images):
            return verify(args) if args.verify_only else fetch_all(args)
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that may not be written, a full disk
        raise UserError(f"--data_path: {error.filename or args.data_path}: {error.strerror or error}") from error


if __name__ == "__main__":
    run_main(main)

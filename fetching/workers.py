"""Worker threads: each takes a task whose host may be asked, makes its next request, and puts it back."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import requests
from tqdm import tqdm

from fetching.addresses import Services, addresses_of, archived
from fetching.answers import keep_file, keep_picture, link_of_post, picture_of_album
from fetching.bodies import read, uncompressed
from fetching.failures import NO_HOST, Failure, NoAnswer, Redirect, Stopped
from fetching.hosts import Host, Limits, Queue, Task, parts_of
from fetching.ledger import AGAIN, FORBIDDEN, STATUSES, Ledger, new_row
from fetching.request import Client
from utils import UserError

MAX_HOPS = 5  # redirects
# Requests in a row without an answer, or answered that the host is busy or broken, or that they are forbidden: then it
# is left alone until the next run.
DOWN_AFTER, TROUBLED_AFTER = 10, 30
FORBIDDEN_AFTER = 10  # in a row: then the host may have shut us out, and says nothing of its pictures
METADATA_BYTES, METADATA_SECONDS = 2**28, 3600.0


class Abandoned(Stopped):
    """The run has gone on without the thread that asked this."""


@dataclass
class Run:
    """The state shared by the workers: paths, limits, connections, the queue, and counts."""

    data_path: Path
    ledger: Ledger
    client: Client
    limits: Limits
    services: Services
    archive: bool = False  # whether what a post links to is asked of the Internet Archive, at last
    queue: Queue = field(init=False)
    asking: dict[int, tuple[threading.Thread, Task, Host, float]] = field(default_factory=dict)  # until when, by thread
    finished: int = 0
    kept: int = 0
    answered: bool = False  # whether any host has
    lacking: list[dict[str, str]] = field(default_factory=list)  # metadata files that could not be had

    def __post_init__(self) -> None:
        self.queue = Queue(self.limits.per_host)


# --- all of them ----------------------------------------------------------------------------------------------------
def download(run: Run, tasks: list[Task], workers: int, label: str) -> None:
    """Finish `tasks` with this many threads, with a progress bar. Raises the exception that stopped a worker."""
    run.finished = run.kept = 0
    run.queue.left = len(tasks)
    for task in tasks:
        if task.next_address():
            run.queue.put(task)
        else:
            give_up(run, task)
    threads = [started(run) for _ in range(min(workers, len(tasks)))]
    try:
        with tqdm(total=len(tasks), desc=label, unit="file", disable=None) as bar:
            while run.queue.left and not run.queue.stopped:
                threads[0].join(0.2)
                threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
                threads = replace_those_that_hang(run, threads)
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
    for host in run.queue.hosts.values():
        settle_forbidden(run, host)


def started(run: Run) -> threading.Thread:
    thread = threading.Thread(target=work, args=(run,), daemon=True)
    thread.start()
    return thread


def replace_those_that_hang(run: Run, threads: list[threading.Thread]) -> list[threading.Thread]:
    """Go on without the threads whose host sends its headers, or answers for its name, in a trickle without an end:
    no timeout of a connection ends that. Their request has failed."""
    for ident, (thread, task, host, end) in list(run.asking.items()):
        if time.monotonic() > end and run.asking.pop(ident, None) is not None:
            threads = [other for other in threads if other is not thread] + [started(run)]
            count_silence(run, host, NoAnswer("transient", "no whole answer in time"))
            failed(run, task, host, NoAnswer("transient", "no whole answer in time"))
            run.queue.release(host)
    return threads


def settle_forbidden(run: Run, host: Host, until: float = float("inf")) -> None:
    """Record the pictures that a host forbade, until a moment at which it gave something again, or the end. A few are
    gone: many hosts say it so. Where many were forbidden in a row, it may be that we are shut out, for now."""
    with host.lock:
        before = [moment for moment in host.refused if moment < until]
        host.refused = [moment for moment in host.refused if moment >= until]
        rows = [row for moment, row in host.forbidden if moment < until]
        host.forbidden = [(moment, row) for moment, row in host.forbidden if moment >= until]
    for row in rows:
        if len(before) >= FORBIDDEN_AFTER:
            row |= {"status": "transient", "error": f"{row['error']}, as all that this host was asked for"}
        run.ledger.record(row)


# --- one thread -----------------------------------------------------------------------------------------------------
def work(run: Run) -> None:
    """The loop of each thread: take a task, make its next request, until there is none."""
    try:
        while (taken := run.queue.take()) is not None:
            task, host = taken
            try:
                step(run, task, host)
            except Abandoned:
                return
            except BaseException:
                run.queue.release(host)
                raise
            run.queue.release(host)
    except Stopped:
        pass
    except BaseException as error:  # a full disk: the main thread says so
        run.queue.stop(error)


def step(run: Run, task: Task, host: Host) -> None:
    """One request. Then the task is finished, or put where it goes on: another address, another host, or later."""
    try:
        data, response = fetch(run, task, host)
        if receive(run, task, data, response):
            return finish(run, kept=True)
    except Redirect as redirect:
        if failure := followed(task, redirect):
            return failed(run, task, host, failure)
        return run.queue.put(task)
    except Failure as failure:
        return failed(run, task, host, failure)
    except (OSError, UserError, Stopped):  # the disk, the environment, the end: not this task's
        raise
    except Exception as error:  # whatever a host sends ends no run
        return failed(run, task, host, Failure("transient", f"unforeseen: {type(error).__name__}: {error}"))
    go_on(run, task)


def fetch(run: Run, task: Task, host: Host) -> tuple[bytes, requests.Response]:
    """The whole body of an answer, and the answer. Raises Failure or Redirect, and Abandoned where it took too long."""
    max_bytes, seconds = run.limits.max_bytes, run.limits.max_seconds
    if task.source == "file":
        max_bytes, seconds = METADATA_BYTES, METADATA_SECONDS
    ident = threading.get_ident()
    end = time.monotonic() + run.limits.connect_timeout + run.limits.read_timeout + seconds
    run.asking[ident] = (threading.current_thread(), task, host, end)
    try:
        with closing(ask(run, task.url, host)) as response:
            try:
                return read(response, max_bytes, seconds, lambda: run.queue.stopped), response
            except Failure as failure:
                failure.http_status = response.status_code
                raise
    finally:
        if run.asking.pop(ident, None) is None:
            raise Abandoned


def ask(run: Run, url: str, host: Host) -> requests.Response:
    """The answer of a host that may be asked; one that fails to answer again and again may not be asked any more."""
    if host.closed:
        raise Failure(*host.closed)
    start = time.monotonic()
    try:
        response = run.client.get(url)
    except NoAnswer as failure:
        count_silence(run, host, failure)
        raise
    except Failure as failure:
        if not failure.http_status:
            raise
        host.silent, run.answered = 0, True
        count_trouble(run, host, failure, start)
        raise
    except Redirect:
        pass_well(run, host, start)
        raise
    pass_well(run, host, start)
    return response


def pass_well(run: Run, host: Host, start: float) -> None:
    """Count an answer as one may wish for, to a request of the moment `start`."""
    host.silent, host.troubled, run.answered = 0, 0, True
    if host.refused or host.forbidden:
        settle_forbidden(run, host, start)


def count_trouble(run: Run, host: Host, failure: Failure, start: float) -> None:
    """A host that is busy, broken, or forbids all is not asked for ever; one that asks for too long a wait, not now."""
    if failure.status == "gone" and str(failure.http_status) in FORBIDDEN:
        with host.lock:
            host.refused.append(time.monotonic())
        if len(host.refused) >= TROUBLED_AFTER:
            run.queue.close(host, "transient", "host forbids all that it is asked for")
    elif failure.status == "transient":
        host.troubled += 1
        if host.troubled >= TROUBLED_AFTER:
            run.queue.close(host, "transient", f"host is busy or broken ({failure.error})")
    elif failure.status != "rate_limited":  # that is waited for
        pass_well(run, host, start)
    if (failure.wait or 0) > run.limits.max_wait:
        run.queue.close(host, "rate_limited", "host asks for a longer wait than --max_wait")


def count_silence(run: Run, host: Host, failure: Failure) -> None:
    host.silent += 1
    if host.silent >= DOWN_AFTER or failure.error == NO_HOST:
        run.queue.close(host, failure.status, NO_HOST if failure.error == NO_HOST else "host does not answer")


def receive(run: Run, task: Task, data: bytes, response: requests.Response) -> bool:
    """Take what the answer holds. Whether the task is finished by it: what a post or an album links to goes first among
    the addresses."""
    limits, services, status = run.limits, run.services, response.status_code
    max_bytes = METADATA_BYTES if task.source == "file" else limits.max_bytes
    try:
        plain = uncompressed(data, response.headers.get("Content-Encoding", ""), max_bytes)
        if task.source == "file":
            keep_file(task, plain, data, run.data_path / task.name)
        elif task.source == "album":
            task.lead_to([("imgur", picture_of_album(plain, services.imgur_url))])
            return False
        elif task.source == "post":
            found = addresses_of(link_of_post(plain), services)
            task.lead_to([(source if source in ("post", "album") else "reddit", url) for source, url in found])
            if run.archive and (copy := archived(found, services.archive_url)):
                task.addresses.append(copy)
            return False
        else:
            keep_picture(task, plain, status, run.ledger, limits.max_pixels, services)
    except Failure as failure:
        failure.http_status = status
        if failure.status == "undecodable" and "truncated" in failure.error and not tells_its_length(response):
            failure.status = "transient"  # the connection may have broken off, and nobody could tell
        raise
    return True


def tells_its_length(response: requests.Response) -> bool:
    return "Content-Length" in response.headers or "Transfer-Encoding" in response.headers


# --- what becomes of a task -----------------------------------------------------------------------------------------
def failed(run: Run, task: Task, host: Host, failure: Failure) -> None:
    """Try the address again later, where that may help, or go on to the next."""
    if failure.status in AGAIN and not host.closed and task.tries < run.limits.retries:
        return run.queue.put(task, back_off(task, host, failure, run.limits.backoff))
    facts = {"http_status": failure.http_status, "error": failure.error}
    task.rows.append(new_row(task.name, failure.status, task.source, task.url, **facts))
    go_on(run, task)


def go_on(run: Run, task: Task) -> None:
    if task.next_address():
        run.queue.put(task)
    else:
        give_up(run, task)


def followed(task: Task, redirect: Redirect) -> Failure | None:
    """Send a task on to where it is redirected; or the reason not to."""
    task.hops, task.url = task.hops + 1, str(redirect)
    if parts_of(task.url).path.endswith("/removed.png"):
        return Failure("placeholder", "redirected to removed.png")
    return Failure("gone", f"more than {MAX_HOPS} redirects") if task.hops > MAX_HOPS else None


def back_off(task: Task, host: Host, failure: Failure, seconds: float) -> float:
    """Seconds until a task is tried again; the host as a whole waits where it asks for it."""
    # Jitter: else all that failed together would come back together.
    wait = seconds * 2**task.tries * random.uniform(0.5, 1.5)
    if failure.status == "rate_limited" or failure.wait is not None:  # the host, and it alone, is to wait
        wait = 4 * wait if failure.wait is None else failure.wait
        host.paused_until = max(host.paused_until, time.monotonic() + wait)
    task.tries += 1
    return wait


def give_up(run: Run, task: Task) -> None:
    """Record a task with no address that worked, by the (first) most hopeful failure."""
    rows = task.rows or [new_row(task.name, "gone", task.source, task.url, error="no address")]
    for row in rows:
        if row["error"] == NO_HOST and not run.answered:  # nobody answers: it is our network that is away
            row["status"] = "transient"
    row = min(rows, key=lambda row: STATUSES.index(row["status"]))
    if task.source == "file":
        run.lacking.append(row)
    elif row["status"] == "gone" and row["http_status"] in FORBIDDEN:  # recorded when it is known what that means
        host = run.queue.host(row["url"])
        with host.lock:
            host.forbidden.append((time.monotonic(), row))
    else:
        run.ledger.record(row)
    finish(run, kept=False)


def finish(run: Run, kept: bool) -> None:
    with run.queue.change:
        run.finished, run.kept, run.queue.left = run.finished + 1, run.kept + kept, run.queue.left - 1
        if not run.queue.left:
            run.queue.change.notify_all()

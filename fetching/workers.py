"""The threads that finish tasks: each takes one whose host may be asked, makes its next request, and puts it back."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import requests
from tqdm import tqdm

from fetching.addresses import Services, archived, direct_address
from fetching.answers import keep_file, keep_picture, link_of_post
from fetching.hosts import Host, Limits, Queue, Task
from fetching.ledger import AGAIN, STATUSES, Ledger, Stopped, new_row
from fetching.request import NO_HOST, Client, Failure, NoAnswer, Redirect, body

MAX_HOPS = 5  # redirects
DOWN_AFTER = 10  # requests in a row without an answer: then a host is left alone until the next run
METADATA_BYTES, METADATA_SECONDS = 2**28, 3600.0


@dataclass
class Run:
    """What the workers share: where things go, limits, connections, the queue, and counts."""

    data_path: Path
    ledger: Ledger
    client: Client
    limits: Limits
    services: Services
    archive: bool = False  # whether what a post links to is asked of the Internet Archive, at last
    queue: Queue = field(init=False)
    finished: int = 0
    kept: int = 0
    answered: bool = False  # whether any host has
    lacking: list[dict[str, str]] = field(default_factory=list)  # metadata files that could not be had

    def __post_init__(self) -> None:
        self.queue = Queue(self.limits.per_host)


def download(run: Run, tasks: list[Task], workers: int, label: str) -> None:
    """Finish `tasks` with so many threads, showing how far they are. Raises what stopped a worker."""
    run.finished = run.kept = 0
    run.queue.left = len(tasks)
    for task in tasks:
        if task.next_address():
            run.queue.put(task)
        else:
            give_up(run, task)
    threads = [threading.Thread(target=work, args=(run,), daemon=True) for _ in range(min(workers, len(tasks)))]
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


def work(run: Run) -> None:
    """What each thread does: take a task, make its next request, until there is none."""
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
        with closing(ask(run, task.url, host)) as response:
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
    if failure is not None and failure.status in AGAIN and not host.closed and task.tries < run.limits.retries:
        return run.queue.put(task, back_off(task, host, failure, run.limits.backoff))
    if failure is not None:
        facts = {"http_status": failure.http_status, "error": failure.error}
        task.rows.append(new_row(task.name, failure.status, task.source, task.url, **facts))
    if task.next_address():
        return run.queue.put(task)
    give_up(run, task)


def ask(run: Run, url: str, host: Host) -> requests.Response:
    """The answer of a host that may be asked; one that fails to answer again and again may not be asked any more."""
    if host.closed:
        raise Failure(*host.closed)
    try:
        response = run.client.get(url)
    except NoAnswer as failure:
        host.silent += 1
        if host.silent >= DOWN_AFTER or failure.error == NO_HOST:
            run.queue.close(host, failure.status, NO_HOST if failure.error == NO_HOST else "host does not answer")
        raise
    except (Failure, Redirect) as answer:
        if not isinstance(answer, Failure) or answer.http_status:
            host.silent, run.answered = 0, True
        if isinstance(answer, Failure) and (answer.wait or 0) > run.limits.max_wait:
            run.queue.close(host, "rate_limited", "host asks for a longer wait than --max_wait")
        raise
    host.silent, run.answered = 0, True
    return response


def receive(run: Run, task: Task, response: requests.Response) -> bool:
    """Take what the answer holds. Whether the task is finished by it: a post's link goes first among the addresses."""
    limits, status = run.limits, response.status_code
    max_bytes, seconds = limits.max_bytes, limits.max_seconds
    if task.source == "file":
        max_bytes, seconds = METADATA_BYTES, METADATA_SECONDS
    pieces = body(response, max_bytes, seconds, lambda: run.queue.stopped)
    if task.source == "file":
        keep_file(task, pieces, status, run.data_path / task.name)
    elif task.source == "post":
        url = link_of_post(pieces, status)
        url = direct_address(url, run.services.imgur_url) or url
        task.addresses.appendleft(("reddit", url))
        if run.archive:
            task.addresses.append(("archive", archived(url, run.services.archive_url)))
        return False
    else:
        keep_picture(task, pieces, status, run.ledger, limits.max_pixels)
    return True


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
    """Record a task none of whose addresses served: by the most hopeful of their failures, the first such."""
    rows = task.rows or [new_row(task.name, "gone", task.source, task.url, error="no address")]
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

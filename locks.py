"""One process at a time: a process waits for its turn, or is refused. The lock of one that dies is free."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from utils import UserError


@contextlib.contextmanager
def in_turn(path: str | Path) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`, which stays."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextlib.contextmanager
def alone(output: str | Path, *more: str | Path | None) -> Iterator[None]:
    """Keep other processes from writing `output` meanwhile. Raises UserError where one does.

    What a killed process has left half written of it, or of what goes with it, is removed.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{output}: another run is writing it") from None
    try:
        for each in (output, *(Path(one) for one in more if one)):
            half = re.compile(rf"\.{re.escape(each.name)}\.\d{{1,10}}\.part")  # utils.written_whole's
            for left in each.parent.glob(".*.part"):
                if half.fullmatch(left.name):
                    left.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no file that is open
            path.unlink()
        lock.release()

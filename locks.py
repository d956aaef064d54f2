"""File locks: one process at a time; others wait or are refused. The lock of a process that dies is released."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from utils import UserError


@contextlib.contextmanager
def in_turn(path: str | Path) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`, which is not deleted."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextlib.contextmanager
def alone(output: str | Path, *more: str | Path | None) -> Iterator[None]:
    """Keep other processes from writing `output` in the meantime. Raises UserError if one does.

    Partial files that a killed process has left of it, or of its companions, are removed.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _held(output.with_name(f".{output.name}.lock"), output):
        for each in (output, *(Path(one) for one in more if one)):
            _remove_halves(each.parent, re.escape(each.name))
        yield


@contextlib.contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """The same for a whole folder, which is created if necessary: no two runs write into one.

    A new folder that is still empty at the end, as after a run that was refused, is removed.
    """
    folder = Path(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder / ".lock", folder):
            _remove_halves(folder, ".+")
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


@contextlib.contextmanager
def _held(path: Path, output: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{output}: another run is writing it") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no file that is open
            path.unlink()
        lock.release()


def _remove_halves(folder: Path, name: str) -> None:
    """Remove what `utils.written_whole` had begun of files of this name (a regular expression) when it was killed."""
    half = re.compile(rf"\.{name}\.\d{{1,10}}\.part", re.DOTALL)
    for left in folder.glob(".*.part"):
        if half.fullmatch(left.name):
            left.unlink(missing_ok=True)

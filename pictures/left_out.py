"""Files that a command leaves out: counted by reason, summarised at the end, and listed in a file on request."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from utils import UserError, rank, rows_written

UNREADABLE = "cannot be read"  # what the summary calls pictures, whatever ails them
MOST_REASONS = 8  # that the summary names


class LeftOut:
    """Takes (path, reason) of each file that is not used; `str()` sums up.

    As a context it writes the file `path` (path,reason) at its end, and sums up where nothing could be used.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._path, self._write, self._file = path, None, contextlib.ExitStack()

    def __enter__(self) -> LeftOut:
        if self._path and rank() == 0:  # of several processes, which all see the same files, the first
            self._write = self._file.enter_context(rows_written(self._path, ["path", "reason"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write = None
        if kind is not None and issubclass(kind, UserError) and self.counts:
            print(self)
        if kind is not None and not issubclass(kind, UserError):
            self._file.__exit__(kind, error, traceback)  # broken off: no list is better than half of one
        self._file.close()

    def __call__(self, path: str, reason: str, counted_as: str = "") -> None:
        """`counted_as` is what the summary calls it, where reasons are as many as files."""
        self.counts[counted_as or reason] += 1
        if self._write:
            self._write([path, reason])

    def __str__(self) -> str:
        return summary(self.counts) + f" → {self._path}" * bool(self._path)


def summary(counts: Mapping[str, int]) -> str:
    """The number of files left out and the reasons, in one line."""
    counts = Counter(counts)
    total, most = counts.total(), counts.most_common(MOST_REASONS)
    reasons = [f"{reason}: {count:,}" for reason, count in most]
    others = total - sum(count for _, count in most)
    reasons += [f"other reasons: {others:,}"] * (others > 0)
    return f"left out: {total:,} {'file' if total == 1 else 'files'}" + f" ({', '.join(reasons)})" * (total > 0)

"""The journal of a ranking, from which a killed run resumes: one JSON line per picture, since any name fits in it."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

import distributed
from pictures.left_out import LeftOut
from pictures.sources import Source
from utils import duration, written_whole

EVERY = 60.0  # seconds between two lines of a log that say how far a ranking is


def key(path: str, stamp: str) -> int:
    """64 bits for a path and its file: the chance that any two of a million have the same is 3 in 100
    million."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(f"{path}\0{stamp}"), digest_size=8).digest(), "little")


def journal_rows(journal: Path) -> Iterator[tuple[int, int, list]]:
    """(offset in bytes, key, row) of each complete line; a line cut off by a kill is skipped."""
    offset = 0
    with open(journal, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                row = json.loads(line)
                yield offset, key(row[0], str(row[-1])), row
            offset += len(line)


def other_journals(journal: Path) -> list[Path]:
    """Those of the other processes, also of a killed run that had more of them."""
    return sorted(journal.parent.glob(f"{glob.escape(journal.stem)}.*.part"))


def join_journals(journal: Path, with_faults: bool) -> None:
    """Merge the complete lines of all processes into one journal; after a kill in between, a row may occur twice and
    counts once.

    Faults are dropped if they are to be tried again: the picture, or its reader, may have been fixed.
    """
    others = other_journals(journal)
    with written_whole(journal) as beside, open(beside, "wb") as file:
        for each in [journal, *others]:
            with open(each, "rb") if each.exists() else contextlib.nullcontext([]) as lines:
                whole = (line for line in lines if line.endswith(b"\n"))
                file.writelines(line for line in whole if with_faults or json.loads(line)[1] is not None)
    for each in others:
        each.unlink()


def fill_journal(
    journal: Path, sources: Iterable[Source], rows: Callable, total: int | None, left_out: LeftOut
) -> set[int]:
    """Append the rows that `rows(sources)` computes for pictures missing from the journal. Returns the keys of all.

    With several processes, each has its own journal and computes the rows of its share of the keys.
    """
    number = distributed.rank()
    if number == 0:
        join_journals(journal, with_faults=False)
    distributed.barrier()
    done, listed = {name for _, name, _ in journal_rows(journal)}, set()
    distributed.barrier()  # all have read the journal before it grows
    if done:
        print(f"resuming: {len(done)} pictures are scored")

    def left() -> Iterator[Source]:
        """Each picture once, and none that is done."""
        for source in sources:
            if (name := key(source.path, source.stamp)) in listed:
                left_out(source.path, "named twice")
                bar.update(1 if total else 0)
                continue
            listed.add(name)
            if name in done:
                done.discard(name)
                bar.update()
            elif name % distributed.world() == number:
                yield source

    journal = journal.with_name(f"{journal.stem}.{number}.part") if number else journal
    began, said, before, scored = time.monotonic(), time.monotonic(), len(done), 0
    with open(journal, "a", encoding="ascii") as file, tqdm(None, "ranking", total, disable=None) as bar:
        for batch in rows(left()):
            file.writelines(json.dumps(row) + "\n" for row in batch)
            file.flush()
            bar.update(len(batch) * distributed.world())
            scored += len(batch) * distributed.world()
            if bar.disable and (now := time.monotonic()) - said >= EVERY:  # no terminal, which shows a bar
                print(progress(before + scored, scored, now - began, total), flush=True)
                said = now
    return listed


def progress(number: int, scored: int, seconds: float, total: int | None) -> str:
    """A line for a log: how many are ranked, and the time left at the rate of the `scored` so far."""
    if total is None:
        return f"{number:,} pictures ranked so far"
    left = duration(max(0, total - number) / scored * seconds, about=True)
    return f"{number:,} of {total:,} pictures ranked, about {left} left"


@contextlib.contextmanager
def open_lines(journal: Path) -> Iterator[Callable[[int], list]]:
    """A function that gives the journal's row at an offset."""
    with open(journal, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
        yield lambda offset: json.loads(lines[offset : lines.find(b"\n", offset)])

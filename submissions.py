"""Any Reddit submissions → one table, one row per picture: dumps, listings, SNAP's file, tables of any kind.

    python submissions.py RS_2020-05.zst top.json mine.csv --output data/own [--subreddits pics funny]
                          [--after 2020-01 --before 2020-07] [--over_18] [--no-authors]

Input files, compressed (gzip, zstd with windows of up to 2 GiB, bzip2, xz) or not, are read as one stream: lines of
JSON, as in Pushshift's and Arctic Shift's dumps; a listing (reddit.com/r/NAME/top.json) or an archive's response;
SNAP's file; CSV with columns in any order, whose names are mapped and the unknown ones reported.

Posts that link to pictures are kept: files, Reddit's own, Imgur's in all forms, galleries (one row per picture). The
others are counted by kind (posts.KINDS). If a post occurs more than once, the latest retrieval counts (the last in the
stream if the times do not tell); if it had been removed by then, it is left out.

Writes, atomically, into the folder --output: submissions.csv.gz (image_id, unixtime, title, score, comments,
subreddit, author, reddit_id, url), submissions.json (what was kept and left out), submissions.malformed.csv, if any
line is malformed, and .author_salt. Authors are stored as hashes salted with that file, which only its owner may read
and which must not be published: Reddit's user names are public, so without a secret salt each could be tried; with the
same salt, an author has the same hash in tables made at different times. --no-authors stores none.

Cost: on two cores about 330,000 posts of 600 bytes a second, or 110,000 of 2.5 kB: 0.64 and 0.72 of the rate at which
orjson and zstandard merely read the same file (0.5 for posts of 350 bytes). 450 MB of memory, whatever the size; a
window of 2 GiB takes as much again. While the table is made, a post takes 28 bytes on disk next to it, so that repeated
posts are found without holding any in memory: 24 for its key, time and number, 3 for its kind and its pictures, 1 for
whether another retrieval counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import itertools
import os
import re
import secrets
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
from isal import igzip
from tqdm import tqdm

from reading.dumps import read_document, read_json_lines
from reading.posts import COLUMNS, EARLY, KEPT, KINDS, Asked, Batch, judge, moment, of_table
from reading.tables import Layout, Malformed, Records, csv_records, line_chunks, split_line
from utils import UserError, print_configuration, run_main, write_csv, write_json, written_whole

CHUNK = 16 << 20  # bytes of text at a time
WORKERS = max(2, min(4, os.cpu_count() or 1))  # threads; most of the work is done outside Python's lock
LARGEST_DOCUMENT = 256 << 20  # bytes of a JSON document that takes several lines, which is read at once
MOST_MALFORMED = 10_000  # lines that are listed; all are counted
# Where the fields of posts.FIELDS stand in other people's tables: the first of these names that a header has.
NAMES = {
    "image_id": "image_id img_id picture_id",
    "created_utc": "unixtime created_utc created timestamp created_at time date datetime",
    "title": "title post_title caption",
    "score": "score ups upvotes votes points number_of_upvotes",
    "num_comments": "comments num_comments number_of_comments comms_num comment_count",
    "subreddit": "subreddit community listing subreddit_name subreddit_name_prefixed",
    "author": "author username user author_name",
    "id": "reddit_id id post_id submission_id name fullname",
    "url": "url url_overridden_by_dest link img_link image_url img_url media_url",
    "retrieved_on": "retrieved_on retrieved_utc",
    "updated_on": "updated_on updated_utc",
    "over_18": "over_18 over18 nsfw is_nsfw",
    "is_self": "is_self",
    "is_video": "is_video",
    "removed_by_category": "removed_by_category",
    "selftext": "selftext body",
}
NEEDED = ("created_utc", "score", "subreddit")
_KEY = np.dtype([("key", "u8"), ("time", "i8"), ("number", "u8")])
_POST = np.dtype([("kind", "u1"), ("pictures", "u2")])
_PARTS = 256  # of the keys, by their last byte: one part at a time is in memory
_FLUSH = 2**20  # posts whose keys are held before they are sorted into parts


# --- files → batches ------------------------------------------------------------------------------------------------
class Read(NamedTuple):
    """What some lines hold."""

    batch: Batch
    lines: int
    blank: int = 0
    malformed: Sequence[Malformed] = ()


def batches(path: Path, asked: Asked, pool: ThreadPoolExecutor) -> Iterator[Read]:
    """The posts of a file, some at a time and in order. Raises UserError for one that cannot be read, or if it is
    damaged, after all posts up to there were given."""
    chunks = line_chunks(path, CHUNK)
    first = next(chunks, None)
    if first is None:
        raise UserError(f"{path} is empty")
    lines = _begins_with_lines(first[2])
    if not lines and not re.match(rb"\s*[{\[]", first[2]):
        chunks.close()
        yield from _in_order(pool, _of_table, csv_records(path, lambda header: _layout(path, header)), asked)
        return
    parts = [first]
    if not lines:
        while sum(len(part[2]) for part in parts) < LARGEST_DOCUMENT and (part := next(chunks, None)):
            parts.append(part)
        text = b"".join(part[2] for part in parts)
        with contextlib.suppress(ValueError, RecursionError):  # or else lines after all, the first of them damaged
            yield Read(judge(read_document(text), asked), sum(part[1] for part in parts))
            return
    yield from _in_order(pool, _of_lines, itertools.chain(parts, chunks), asked)


def _begins_with_lines(chunk: bytes) -> bool:
    """Is one of the first lines JSON in itself? In a document over several lines none is."""
    for line in chunk.split(b"\n", 3)[:3]:
        try:
            if type(orjson.loads(line)) in (dict, list):
                return True
        except ValueError:
            continue
    return False


def _of_lines(part: tuple[int, int, bytes], asked: Asked) -> Read:
    posts, malformed, blank = read_json_lines(*part)
    return Read(judge(posts, asked), part[1], blank, malformed)


def _of_table(records: Records, asked: Asked) -> Read:
    batch = judge(of_table(records.rows.drop("line")), asked)
    lines = len(records.rows) + len(records.malformed) + records.blank + records.continued
    return Read(batch, lines, records.blank, records.malformed)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any, Asked], Read], parts: Iterable[Any], asked: Asked
) -> Iterator[Read]:
    """What `work` makes of each part, in their order, some of them at the same time."""
    coming, damage = deque(), None
    try:
        for part in parts:
            coming.append(pool.submit(work, part, asked))
            if len(coming) > WORKERS:
                yield coming.popleft().result()
    except UserError as error:
        damage = error
    while coming:
        yield coming.popleft().result()
    if damage:
        raise damage


def _layout(path: Path, header: str) -> Layout:
    """Where the fields stand in somebody's table. Says which columns are not used; UserError for those missing."""
    known = {name: field for field, names in NAMES.items() for name in names.split()}
    as_ours = lambda name: name.strip().lstrip("#").lower().replace(" ", "_")  # noqa: E731
    separator = max(",;\t|", key=lambda mark: sum(as_ours(name) in known for name in split_line(header, mark)))
    names = [as_ours(name) for name in split_line(header, separator)]
    places = {
        field: names.index(name)
        for field, others in NAMES.items()
        if (name := next((other for other in others.split() if other in names), None))
    }
    missing = [f"{field} ({NAMES[field].replace(' ', ', ')})" for field in NEEDED if field not in places]
    missing += [] if {"url", "image_id"} & places.keys() else [f"url ({NAMES['url'].replace(' ', ', ')})"]
    if missing:
        raise UserError(f"{path} line 1: no column for {', '.join(missing)} in the header {header[:200]!r}")
    used = set(places.values())
    unused = [name for place, name in enumerate(names) if place not in used]
    mapped = ", ".join(f"{names[place]} → {field}" for field, place in places.items() if names[place] != field)
    tqdm.write(f"{path}: columns {mapped or 'as named'}" + (f"; not used: {', '.join(unused)}" if unused else ""))
    return Layout(len(names), places, separator=separator)


# --- batches → one table --------------------------------------------------------------------------------------------
class Gathered:
    """What was read, on the disk, until it is known which retrieval of each post counts.

    The files have no name: nothing is left of them, however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self.rows, self.posts, self.keys, self.lost = (tempfile.TemporaryFile(dir=folder) for _ in range(4))  # noqa: SIM115
        self.blocks: list[tuple[int, int]] = []  # of each batch: posts, bytes of rows
        self.parts: list[np.ndarray] = []  # where in `keys` each part of each flush begins
        self.waiting: list[np.ndarray] = []
        self.total = self.written = 0  # posts; keys in the file

    def add(self, batch: Batch) -> None:
        n = len(batch.kinds)
        posts, keys = np.empty(n, _POST), np.empty(n, _KEY)
        posts["kind"], posts["pictures"] = batch.kinds, batch.pictures
        keys["key"], keys["time"], keys["number"] = batch.keys, batch.times, np.arange(self.total, self.total + n)
        self.rows.write(batch.rows)
        self.posts.write(posts.tobytes())
        self.blocks.append((n, len(batch.rows)))
        self.waiting.append(keys)
        self.total += n
        if sum(map(len, self.waiting)) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        keys = np.concatenate(self.waiting) if self.waiting else np.empty(0, _KEY)
        part = keys["key"].astype(np.uint8)
        self.keys.write(keys[np.argsort(part, kind="stable")].tobytes())
        self.parts.append(self.written + np.concatenate([[0], np.cumsum(np.bincount(part, minlength=_PARTS))]))
        self.waiting, self.written = [], self.written + len(keys)

    def superseded(self) -> np.ndarray:
        """Whether another retrieval of each post counts: a memory map of a file with one byte per post."""
        self._flush()
        lost = np.memmap(self.lost, np.bool_, "w+", shape=max(1, self.total))
        for part in range(_PARTS):
            keys = np.concatenate([self._read_keys(begins[part], begins[part + 1]) for begins in self.parts])
            keys = keys[np.lexsort((keys["number"], keys["time"], keys["key"]))]
            again = (keys["key"][:-1] == keys["key"][1:]) & (keys["key"][:-1] != 0)
            lost[keys["number"][:-1][again]] = True
        return lost

    def _read_keys(self, begin: int, end: int) -> np.ndarray:
        self.keys.seek(int(begin) * _KEY.itemsize)
        return np.frombuffer(self.keys.read(int(end - begin) * _KEY.itemsize), _KEY)

    def write(self, path: Path) -> Counter[str]:
        """Write the table. Returns how many posts are of each of KINDS, had again (`again`), and how many `rows`."""
        lost, start, counts = self.superseded(), 0, Counter()
        self.rows.seek(0)
        self.posts.seek(0)
        with written_whole(path) as beside, open(beside, "wb") as file:
            file.write(gzip.compress((",".join(COLUMNS) + "\n").encode(), mtime=0))
            for n, size in self.blocks:
                posts = np.frombuffer(self.posts.read(n * _POST.itemsize), _POST)
                gone, rows = lost[start : start + n], self.rows.read(size)
                start += n
                if posts["pictures"][gone].any():
                    rows = _without(rows, np.repeat(gone, posts["pictures"]))
                file.write(rows)
                counts.update(dict(enumerate(np.bincount(posts["kind"][~gone], minlength=len(KINDS)).tolist())))
                counts["rows"] += int(posts["pictures"][~gone].sum())
                counts["again"] += int(gone.sum())
            counts = Counter({KINDS[key] if type(key) is int else key: count for key, count in counts.items()})
            if not counts["rows"]:
                found = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
                raise UserError(f"none of the selected posts links to a picture (of {self.total}: {found or 'none'})")
        return counts


def _without(rows: bytes, gone: np.ndarray) -> bytes:
    """Gzipped rows, a line each, less those that are gone."""
    lines = io.BytesIO(gzip.decompress(rows))
    left = b"".join(line for line, is_gone in zip(lines, gone, strict=True) if not is_gone)
    return igzip.compress(left, compresslevel=1, mtime=0) if left else b""


def read_salt(folder: Path) -> bytes:
    """The secret salt of the authors' hashes, created on first use: 32 bytes that only the file's owner may read."""
    path = folder / ".author_salt"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    except FileExistsError:
        pass
    try:
        salt = bytes.fromhex(path.read_text())
    except ValueError:
        salt = b""
    if len(salt) != 32:
        raise UserError(f"{path} does not hold 64 hexadecimal digits: authors' hashes need it, or --no-authors")
    return salt


# --- the command ----------------------------------------------------------------------------------------------------
def gather(files: Sequence[Path], asked: Asked, folder: Path) -> dict[str, Any]:
    """Read the files and write the table into `folder`. Returns the outcome for every line and post."""
    gathered, malformed, damaged, lines = Gathered(folder), [], [], Counter()
    with ThreadPoolExecutor(WORKERS) as pool, tqdm(unit=" lines", unit_scale=True, disable=None) as progress:
        for path in files:
            read = 0
            try:
                for part in batches(path, asked, pool):
                    gathered.add(part.batch)
                    room = MOST_MALFORMED - len(malformed)
                    malformed += [(str(path), *each) for each in part.malformed[:room]]
                    lines.update(read=part.lines, blank=part.blank, malformed=len(part.malformed))
                    progress.update(part.lines)
                    read += part.lines
            except UserError as error:
                if not read:
                    raise
                damaged.append(str(error))
                tqdm.write(f"warning: {error}; what stands before is read", file=sys.stderr)
    counts = gathered.write(folder / "submissions.csv.gz")
    about = {
        "files": [str(path) for path in files],
        "lines": dict(lines),
        "posts": gathered.total,
        "kept": counts[KEPT] + counts[EARLY],
        "kept_retrieved_within_a_day": counts[EARLY],
        "rows": counts["rows"],
        "left_out": {"the same post again": counts["again"]} | {kind: counts[kind] for kind in KINDS[2:]},
        "damaged": damaged,
    }
    listed = folder / "submissions.malformed.csv"
    listed.unlink(missing_ok=True)
    if malformed:
        write_csv(listed, pd.DataFrame(malformed, columns=["file", "line", "reason", "text"]))
    write_json(folder / "submissions.json", about)
    return about


def summary(about: dict[str, Any]) -> str:
    """The outcome for every line and post, one kind per line."""
    lines, left_out = about["lines"], about["left_out"]
    text = [
        f"{lines['read']} lines: {lines['malformed']} malformed, {lines['blank']} blank; {about['posts']} posts:",
        f"  {about['kept']:>10} kept, with {about['rows']} pictures",
        *(f"  {count:>10} left out: {kind}" for kind, count in left_out.items() if count),
    ]
    if early := about["kept_retrieved_within_a_day"]:
        text.append(
            f"{early} of those kept were retrieved within a day of being posted: their votes were still to come"
        )
    return "\n".join(text)


def date(word: str) -> int:
    """An argparse type: seconds since 1970."""
    try:
        return moment(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is not a date such as 2020, 2020-05 or 2020-05-31T12:00") from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("files", nargs="+", metavar="FILE", help="dumps, listings, tables; compressed or not")
    flag("--output", required=True, metavar="FOLDER", help="the data set's folder, data/<name>")
    flag("--subreddits", nargs="+", metavar="NAME", help="communities to keep, in upper or lower case (default: all)")
    flag("--after", type=date, metavar="DATE", help="keep posts from this time on (UTC)")
    flag("--before", type=date, metavar="DATE", help="keep posts before this time (UTC)")
    flag("--over_18", action=argparse.BooleanOptionalAction, default=False, help="keep posts marked as over 18")
    flag("--authors", action=argparse.BooleanOptionalAction, default=True, help="store salted hashes of authors' names")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "submissions")
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    asked = Asked(
        subreddits=args.subreddits and frozenset(re.sub("^/?r/", "", name).lower() for name in args.subreddits),
        after=Asked.after if args.after is None else args.after,
        before=Asked.before if args.before is None else args.before,
        over_18=args.over_18,
        salt=read_salt(folder) if args.authors else None,
    )
    about = gather([Path(file) for file in args.files], asked, folder)
    print(summary(about))
    if about["lines"]["malformed"]:
        print(f"malformed lines are listed in {folder / 'submissions.malformed.csv'}")
    print(f"→ {folder / 'submissions.csv.gz'}")


if __name__ == "__main__":
    run_main(main)

"""Text files from any source, line by line, with any compression; CSV with a fast path for well-formed lines.

A line that is a record by itself is never swallowed by a quote opened before it: one stray quote costs one line. Every
line is accounted for: it is part of a record, blank, or malformed, with its number (from 1) and the reason.

Cost: CSV takes 2 to 3 times as long as pandas' own parser, validation included; memory for one chunk (`CHUNK` bytes).
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import polars as pl

from utils import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 16 << 20  # bytes of text at a time
LONGEST_LINE = 64 << 20  # what goes beyond is cut, and the line therefore malformed
_BLOCK = 1 << 20  # bytes a read, which is what a damaged file loses at most
_MOST_LINES = 1000  # of one record: a quoted field may hold newlines
_WINDOW_LOG = 31  # dumps are compressed with windows of up to 2 GiB
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or a skippable one before it
_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*")  # fits 64 bits; pandas writes 12 as 12.0 beside gaps
_SEPARATOR_LINE = re.compile(rb"sep=.\r?", re.IGNORECASE)  # which spreadsheets write above the header, for themselves
csv.field_size_limit(LONGEST_LINE)  # a title may have more letters than the 131,072 that are Python's limit
_REFUSED = {
    b"PK\x03\x04": "it is a zip archive or a spreadsheet: unpack it, or save it as CSV",
    b"PAR1": "it is a Parquet file: save it as CSV",
    b"SQLite": "it is a database: save the table as CSV",
}


# --- lines ----------------------------------------------------------------------------------------------------------
def line_chunks(path: str | Path, size: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file, about `size` bytes (CHUNK) at a time: the number of the first, how many, and their text.

    gzip, zstd, bzip2, xz and UTF-16 are detected by their first bytes; a byte order mark is dropped. Decompression runs
    ahead in a thread of its own. Raises UserError for an unreadable file; for one that is damaged or cut off, only
    after all lines up to that point have been returned.
    """
    path, size, number, damage = Path(path), size or CHUNK, 1, None
    parts, length, skipping = [], 0, False
    try:
        for part in _ahead(_blocks(path, min(size, _BLOCK))):
            if skipping and b"\n" not in part:
                continue
            parts.append(part[part.find(b"\n") :] if skipping else part)
            length, skipping = length + len(part), False
            if length < size:
                continue
            chunk, parts = _cut(parts)
            if chunk:
                count = _newlines(chunk)
                yield number, count, chunk
                number += count
            elif length > LONGEST_LINE:  # no text format allows what it ends with: it cannot pass for whole
                parts, skipping = [b"".join(parts)[:LONGEST_LINE] + b"\x00"], True
            length = sum(map(len, parts))
    except UserError as error:
        damage = error
    if rest := b"".join(parts):
        count = rest.count(b"\n") + (not rest.endswith(b"\n"))
        yield number, count, rest
        number += count - 1
    if damage:
        raise UserError(f"{path} cannot be read beyond line {number}: {damage}" if rest or number > 1 else str(damage))


def _newlines(text: bytes) -> int:
    """How many there are: ten times as fast as bytes.count."""
    letters, step = np.frombuffer(text, np.uint8), 2**18  # as much as lies near the processor
    return sum(np.count_nonzero(letters[i : i + step] == ord("\n")) for i in range(0, len(letters), step))


def _cut(parts: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The whole lines of these parts, and what follows the last of them."""
    for place in reversed(range(len(parts))):
        if cut := parts[place].rfind(b"\n") + 1:
            whole = b"".join([*parts[:place], memoryview(parts[place])[:cut]])
            return whole, [parts[place][cut:], *parts[place + 1 :]]
    return b"", parts


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """The file's bytes, decompressed and in UTF-8, `size` at a time; its newlines are those of Unix or Windows."""
    old_mac = None
    try:
        with _opened(path) as file:
            while part := file.read(size):
                if old_mac is None:
                    part = part.removeprefix(codecs.BOM_UTF8)
                    old_mac = b"\r" in part[:-1] and b"\n" not in part
                yield part.replace(b"\r", b"\n") if old_mac else part
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, EOFError, zlib.error, zstd.ZstdError, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _opened(path: Path) -> IO[bytes]:
    file = open(path, "rb")  # noqa: SIM115  # closed by the stream that is returned, or at the end of the generator
    head = file.peek(8)[:8]
    if reason := next((why for magic, why in _REFUSED.items() if head.startswith(magic)), None):
        raise UserError(f"{path} cannot be read: {reason}")
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if _ZSTD.match(head):
        return zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    if head and path.suffix in (".gz", ".zst", ".bz2", ".xz"):
        raise UserError(f"{path} cannot be read: its name ends with {path.suffix}, but it is not such an archive")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return codecs.EncodedFile(file, "utf-8", "utf-16", errors="replace")
    return file


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, with the next one being made meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block


def in_utf8(text: bytes) -> bytes:
    """The same, with a mark in place of what is not UTF-8."""
    if text.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode()
    return text


# --- CSV ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """What a CSV file's header says: fields a line, where (from 0) the columns to read stand, what these must hold."""

    width: int
    places: dict[str, int]
    whole: tuple[str, ...] = ()  # whole numbers, of up to 18 digits
    optional: tuple[str, ...] = ()  # of `whole`, those that may be empty
    filled: tuple[str, ...] = ()  # not empty
    separator: str = ","

    @property
    def pattern(self) -> str:
        """A regular expression of the lines that every CSV parser reads alike: so many fields, each plain or quoted."""
        text = rf'(?:[^"{re.escape(self.separator)}]*|"(?:[^"]|"")*")'
        return f"^{text}(?:{re.escape(self.separator)}{text}){{{self.width - 1}}}$"

    def fault(self, fields: list[str]) -> str:
        """Why a line cannot be used; empty for a good one."""
        if len(fields) != self.width:
            return f"{len(fields)} fields instead of {self.width}"
        for name in self.filled:
            if not fields[self.places[name]]:
                return f"no {name}"
        for name in self.whole:
            text = fields[self.places[name]]
            if not _WHOLE_NUMBER.fullmatch(text) and not (name in self.optional and not text.strip()):
                return f"{name} {text[:100]!r} is not a whole number"
        return ""

    def row(self, line: int, fields: list[str]) -> dict[str, object]:
        """The columns to read of a line that has no fault."""
        row = {"line": line} | {name: fields[place] for name, place in self.places.items()}
        for name in self.whole:
            number = _WHOLE_NUMBER.fullmatch(row[name])
            row[name] = int(number[1]) if number else None
        return row


class Malformed(NamedTuple):
    line: int
    reason: str
    text: str  # its first 200 letters


@dataclass
class Records:
    """Some records of a CSV file: `rows` has `line` (the first of the record) and the layout's columns, in the file's
    order."""

    rows: pl.DataFrame
    malformed: list[Malformed] = field(default_factory=list)
    blank: int = 0
    continued: int = 0  # lines beyond the first, of the records that take several


def csv_records(path: str | Path, layout_of: Callable[[str], Layout]) -> Iterator[Records]:
    """The records of a CSV file, a chunk at a time. `layout_of` is given the header line; columns not `whole` are text.

    Raises UserError as `line_chunks` does, and for a file without a line.
    """
    layout, rest, start = None, b"", 1
    for _, _, chunk in line_chunks(path):
        chunk = chunk if chunk.endswith(b"\n") else chunk + b"\n"
        while layout is None and chunk:
            header, _, chunk = chunk.partition(b"\n")
            told = not header.strip() or _SEPARATOR_LINE.fullmatch(header)
            layout = None if told else layout_of(header.decode("utf-8", "replace").rstrip("\r"))
            start += 1
        chunk = rest + chunk
        if chunk:
            records, rest = _records(chunk, start, layout, last=False)
            start += chunk.count(b"\n") - rest.count(b"\n")
            yield records
    if layout is None:
        raise UserError(f"{path} is empty")
    if rest:
        yield _records(rest, start, layout, last=True)[0]


def split_line(line: str, separator: str = ",") -> list[str]:
    """The fields of one line; a quote that is not closed holds to its end."""
    return next(csv.reader([line], delimiter=separator), [])


def _records(chunk: bytes, start: int, layout: Layout, last: bool) -> tuple[Records, bytes]:
    """The records of these lines; and, if more lines are to come, those at the end whose record may go on."""
    chunk = in_utf8(chunk)
    lines = pl.read_lines(chunk)["line"]
    good = lines.str.contains(layout.pattern) & (lines != "")
    rows, fine = _fast_rows(chunk if good.all() else "\n".join(lines.filter(good)).encode(), layout)
    places = good.arg_true()
    rows = rows.with_columns(line=places.cast(pl.Int64) + start).filter(fine)
    suspects = np.ones(len(lines), bool)
    suspects[places.filter(fine).to_numpy()] = False
    if not suspects.any():
        return Records(rows), b""
    records, end = _careful_records(lines, np.flatnonzero(suspects), start, layout, last)
    records.rows = pl.concat([rows, records.rows.select(rows.columns)]).sort("line") if len(records.rows) else rows
    return records, "".join(line + "\n" for line in lines[end:]).encode()


def _fast_rows(source: bytes, layout: Layout) -> tuple[pl.DataFrame, pl.Series]:
    """The columns to read of lines that match the layout's pattern, and which of these lines hold what they must."""
    if not source:
        return pl.DataFrame(schema=_schema(layout)).drop("line"), pl.Series([], dtype=pl.Boolean)
    rows = pl.read_csv(
        source,
        has_header=False,
        columns=sorted(layout.places.values()),
        separator=layout.separator,
        infer_schema=False,
        empty_string_is_null=False,
    ).select(pl.col(f"column_{place}").alias(name) for name, place in layout.places.items())
    fine = pl.repeat(True, len(rows), eager=True)
    for name in layout.filled:
        fine &= rows[name] != ""
    for name in layout.whole:
        numbers = whole_numbers(rows[name])
        if numbers.null_count():
            fine &= numbers.is_not_null() | (rows[name].str.strip_chars() == "") & (name in layout.optional)
        rows = rows.with_columns(numbers.alias(name))
    return rows, fine


def whole_numbers(texts: pl.Series) -> pl.Series:
    """Texts as whole numbers; null for one that is not."""
    numbers = texts.cast(pl.Int64, strict=False)
    if numbers.null_count():
        numbers = texts.str.extract(f"^{_WHOLE_NUMBER.pattern}$").cast(pl.Int64, strict=False)
    return numbers


def in_seconds(clock: pl.Expr | pl.Series) -> pl.Expr:
    """Seconds since 1970. Numbers that as seconds would lie beyond the year 5000 are milli-, micro- or nanoseconds."""
    clock = pl.lit(clock) if isinstance(clock, pl.Series) else clock
    return (
        pl.when(clock.abs() < 10**11).then(clock)
        .when(clock.abs() < 10**14).then(clock // 10**3)
        .when(clock.abs() < 10**17).then(clock // 10**6)
        .otherwise(clock // 10**9)
    )  # fmt: skip


def _schema(layout: Layout) -> dict[str, type[pl.DataType]]:
    return {"line": pl.Int64} | {name: pl.Int64 if name in layout.whole else pl.String for name in layout.places}


def _careful_records(
    lines: pl.Series, suspects: np.ndarray, start: int, layout: Layout, last: bool
) -> tuple[Records, int]:
    """The records of the suspect lines, read one by one; and from which line on they are part of one that may go on."""
    records, rows, end = Records(pl.DataFrame()), [], len(lines)
    for run in np.split(suspects, np.flatnonzero(np.diff(suspects) > 1) + 1):
        first, place = int(run[0]), 0
        texts = lines[first : int(run[-1]) + 1].str.replace_all("\r", " ", literal=True).to_list()
        while place < len(texts):
            fields, taken = _one_record(texts[place : place + _MOST_LINES], layout)
            if taken == len(texts) - place and fields is None and not last and first + len(texts) == len(lines):
                end = first + place
                break
            number = start + first + place
            if fields is None or taken == 1:
                _judge(records, rows, texts[place], number, layout, closed=fields is not None)
            else:
                rows.append(layout.row(number, fields))
                records.continued += taken - 1
            place += 1 if fields is None else taken
    records.rows = pl.DataFrame(rows, schema=_schema(layout))
    return records, end


def _one_record(lines: list[str], layout: Layout) -> tuple[list[str] | None, int]:
    """The fields of the record that the first of these lines begins, and how many lines it takes.

    None for a quote that goes astray: it is closed nowhere (then all the lines are counted) or not as a field's end, or
    the line without its quotes is a record, so that what follows belongs to others.
    """
    line, separator = lines[0], layout.separator
    reader = csv.reader([line, ""], delimiter=separator)
    if (fields := next(reader)) is not None and reader.line_num == 1:
        return fields, 1
    if not layout.fault(split_line(line.replace('"', ""), separator)):
        return None, 1
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return None, reader.line_num
    return (None, 1) if layout.fault(fields) else (fields, reader.line_num)


def _judge(
    records: Records, rows: list[dict[str, object]], line: str, number: int, layout: Layout, closed: bool
) -> None:
    """Count a line, taken alone, as a record, as blank, or as malformed."""
    if not line.strip():
        records.blank += 1
    elif fault := layout.fault(fields := split_line(line, layout.separator)):
        reason = fault if closed else f"{fault}: a quote opens and does not close"
        records.malformed.append(Malformed(number, reason, line[:200]))
    else:
        rows.append(layout.row(number, fields))

"""Tables of ranked or labelled pictures as CSV, JSON lines or Parquet: written row by row, and read whichever it is.

The same columns and rows in each; an empty cell is null in JSON lines and Parquet. A file name that is not UTF-8 stands
in CSV as its bytes, in JSON lines with surrogates, as Python reads it, and in Parquet, which holds neither, with
`\\xff` for such a byte.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from utils import UserError, read_csv, require_columns, rows_written, written_whole

FORMATS = ("csv", "jsonl", "parquet")
TEXTS = {"path", "label", "file"}  # columns; the others are numbers
_CHUNK = 65_536  # rows of Parquet that wait as Python's objects


def named(output: str | Path | None, format: str | None, default: str) -> tuple[Path, str]:
    """The file to write, and its format: what `format` says, else the suffix of `output`, else CSV.

    Raises UserError if the two contradict each other, or Parquet cannot be written here.
    """
    by_suffix = Path(output).suffix.lower().removeprefix(".") if output else ""
    if format and by_suffix in FORMATS and by_suffix != format:
        raise UserError(f"--output {output} ends in .{by_suffix}, and --format is {format}: leave one of them out")
    format = format or (by_suffix if by_suffix in FORMATS else "csv")
    if format == "parquet":
        _polars()  # now, and not after an hour of scoring
    return Path(output or f"{default}.{format}"), format


def _polars() -> ModuleType:
    try:
        import polars
    except ImportError as error:
        raise UserError("--format parquet needs polars: pip install -r requirements.txt") from error
    return polars


# --- writing --------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def rows_to(path: str | Path, columns: Sequence[str], format: str) -> Iterator[Callable[[Sequence], Any]]:
    """Give a function that appends a row to the table `path`, which is there once the block has ended, and whole.

    An empty cell is None.
    """
    if format == "csv":
        with rows_written(path, columns) as write:
            yield write
    elif format == "jsonl":
        with written_whole(path) as beside, open(beside, "w", encoding="ascii") as file:
            yield lambda row: file.write(json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) + "\n")
    else:
        with _parquet(path, columns) as write:
            yield write


@contextlib.contextmanager
def _parquet(path: str | Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence], Any]]:
    pl = _polars()
    kinds = {name: pl.String if name in TEXTS else pl.Float64 for name in columns}
    parts, waiting = [pl.DataFrame(schema=kinds)], []

    def write(row: Sequence) -> None:
        waiting.append([_utf8(cell) if isinstance(cell, str) else cell for cell in row])
        if len(waiting) == _CHUNK:
            flush()

    def flush() -> None:
        parts.append(pl.DataFrame(waiting, schema=kinds, orient="row"))
        waiting.clear()

    with written_whole(path) as beside:
        yield write
        flush()
        pl.concat(parts).write_parquet(beside)


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --- reading --------------------------------------------------------------------------------------------------------
def read_rows(path: str | Path, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """The table in a file of any of FORMATS, which its first bytes tell, with at least `columns` and a row.

    `options` are those of utils.read_csv. Raises UserError.
    """
    format = format_of(path)
    if format == "csv":
        return read_csv(path, list(columns), **{"encoding_errors": "surrogateescape"} | options)
    table = pd.DataFrame.from_records(list(_json_rows(path))) if format == "jsonl" else _read_parquet(path)
    require_columns(path, table.columns, columns)
    if table.empty:
        raise UserError(f"{path} has no rows")
    return table


def format_of(path: str | Path) -> str:
    """'parquet' or 'jsonl' by the first bytes of a file, else 'csv'."""
    try:
        with open(path, "rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:  # who reads it as CSV says what is wrong
        return "csv"
    return "parquet" if start.startswith(b"PAR1") else "jsonl" if start.startswith(b'{"') else "csv"


def paths_in(path: str | Path) -> Iterator[str]:
    """The column `path` of a table in JSON lines or Parquet."""
    rows = _json_rows(path) if format_of(path) == "jsonl" else _read_parquet(path).to_dict("records")
    first = next(rows := iter(rows), None)
    if first is not None:
        require_columns(path, first, ["path"])
    return (str(row["path"]) for row in itertools.chain([first] if first else [], rows) if row.get("path"))


def _json_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path} line {number} is not an object with column names")
            yield row


def _read_parquet(path: str | Path) -> pd.DataFrame:
    pl = _polars()
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return pd.DataFrame({name: table[name].to_numpy() for name in table.columns})

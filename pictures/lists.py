"""The paths and addresses in a list: a text file with one per line, or a table with a column `path`.

A table is CSV, JSON lines or Parquet. Paths are relative to the working directory, or to the list.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterator

from table_files import format_of, paths_in
from utils import UserError


def is_address(name: str) -> bool:
    return name[:8].lower().startswith(("http://", "https://"))


def names_in(path: str, name: str = "") -> Iterator[str]:
    """What the list in a file names; `name`: what the list is called, where that is not its path. Raises UserError."""
    if format_of(path) != "csv":
        return paths_in(path)
    return _table(path) if (name or path).lower().endswith(".csv") else _lines(path)


def _lines(path: str) -> Iterator[str]:
    """The lines of a text list, whatever bytes the names are made of; empty ones are left out.

    A byte order mark is obeyed: Windows' editor writes one, and its shell writes UTF-16.
    """
    with open(path, "rb") as file:
        start = file.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            yield from _utf16_lines(path)
            return
        if b"\0" in start:
            raise UserError(f"{path} is neither a folder, a tar, a picture nor a text list of them")
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        for line in file:
            if (name := os.fsdecode(line.rstrip(b"\r\n"))).strip():
                yield name


def _utf16_lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-16") as file:
            yield from (name for line in file if (name := line.rstrip("\r\n")).strip())
    except UnicodeError as error:
        raise UserError(f"{path} begins like a list in UTF-16 but is not one: {error}") from error


def _table(path: str) -> Iterator[str]:
    """The column `path` of a CSV file, as our own tables have it; of one without, the lines, as of any list."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            rows = csv.DictReader(file)
            if "path" in (rows.fieldnames or []):
                yield from (row["path"] for row in rows if row["path"])
                return
        except csv.Error as error:
            raise UserError(f"{path} cannot be read as CSV: {error}") from error
    yield from _lines(path)


def found_at(name: str, listed_in: str) -> str:
    """Where a list's name leads: to an address; as it stands, without blanks or quotes around it; from where the list
    lies."""
    bare = name.strip()
    if is_address(bare):
        return bare
    for each in (name, bare, bare.strip("\"'")):
        for place in (each, os.path.join(os.path.dirname(listed_in), each)):
            if os.path.lexists(place) or archive_in(place):
                return place
    return bare


def archive_in(path: str) -> str:
    """The file a.tar in a path that leads on from there, as our tables call a picture in an archive; else ''."""
    if os.path.lexists(path):
        return ""
    place = os.path.dirname(path)
    while place not in ("", os.path.dirname(place)) and not os.path.lexists(place):
        place = os.path.dirname(place)
    return place if os.path.isfile(place) else ""

"""images/ledger.csv: the outcome of each download, one line per picture, intact whenever the process is killed."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

from fetching.failures import Stopped
from utils import UserError, sha256, written_whole

# Best first: of the failures along a chain of addresses, the first of these is the one recorded.
STATUSES = "ok changed rate_limited transient too_large undecodable placeholder gone".split()
KEPT, AGAIN = STATUSES[:2], STATUSES[2:4]
FORBIDDEN = {"401", "403"}  # HTTP statuses
COLUMNS = "img_id status source url http_status sha256 bytes width height error time".split()
MOST_LETTERS = 2000  # in a cell: what hosts send is bounded here


class Ledger:
    """images/ledger.csv: a line is appended, in one write, when the outcome of a picture is known; when a run starts
    and ends, it is sorted, with one line per picture. The line is written before the .part file is renamed to
    <img_id>.jpg, never after: whenever the process is killed, a picture is either not in the ledger, or complete under
    one of the two names.
    """

    def __init__(self, images: Path):
        self.images, self.path = images, images / "ledger.csv"
        self.rows: dict[str, dict[str, str]] = {}
        self.lock, self.file = threading.Lock(), -1
        if not self.path.exists():
            return
        # What follows the last newline was torn by a kill and is not a line.
        text = self.path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        for number, values in enumerate(self._lines(text), start=1):
            if number == 1 and values != COLUMNS:
                raise UserError(f"{self.path} does not start with {','.join(COLUMNS)}")
            if number > 1 and (len(values) != len(COLUMNS) or values[1] not in STATUSES):
                raise UserError(f"{self.path}, line {number} is not a valid line of a ledger: {','.join(values)[:80]}")
            if number > 1:
                self.rows[values[0]] = dict(zip(COLUMNS, values, strict=True))

    def _lines(self, text: str) -> list[list[str]]:
        try:
            return list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise UserError(f"{self.path} is not a ledger: {error}") from error

    def kept(self, img_id: str) -> bool:
        """Whether the picture is in the ledger as downloaded, and on disk."""
        return img_id in self.rows and self.rows[img_id]["status"] in KEPT and self.picture(img_id).exists()

    def picture(self, img_id: str) -> Path:
        return self.images / f"{img_id}.jpg"

    def recover(self) -> None:
        """Finish the renames that a kill prevented, and remove other partial files."""
        for part in self.images.glob("*.part"):
            row = self.rows.get(part.stem, {"status": "", "sha256": ""})
            picture = self.picture(part.stem)
            if row["status"] in KEPT and not picture.exists() and sha256(part) == row["sha256"]:
                os.replace(part, picture)
            else:
                part.unlink()

    def write(self) -> None:
        with written_whole(self.path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows[img_id] for img_id in sorted(self.rows, key=natural))

    def __enter__(self) -> Ledger:
        """Open it for new rows."""
        self.recover()
        self.write()
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, row: dict[str, str], part: Path | None = None) -> None:
        """Append a row; then, for a picture that was had, give its .part file its name."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row[column] for column in COLUMNS])
        line = text.getvalue().encode()
        with self.lock:
            if self.file < 0:  # the run is being interrupted
                raise Stopped
            if os.write(self.file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if part is not None:
                os.replace(part, self.picture(row["img_id"]))
            self.rows[row["img_id"]] = row

    def close(self) -> None:
        """Accept no more rows; leave the ledger sorted, and no partial file."""
        with self.lock:
            if self.file < 0:
                return
            os.close(self.file)
            self.file = -1
        self.recover()
        self.write()


def new_row(img_id: str, status: str, source: str, url: str, **values: object) -> dict[str, str]:
    """A row of the ledger. `url` is the address that answered, after redirects."""
    row = dict.fromkeys(COLUMNS, "") | {key: str(value) for key, value in values.items()}
    row |= {"img_id": img_id, "status": status, "source": source}
    row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    return row | {"url": cell(url), "error": cell(row["error"])}


def cell(text: str) -> str:
    """External text as a cell: one line, encodable, of limited length, and not executed by spreadsheets."""
    if not (text.isascii() and text.isprintable()):
        text = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]", lambda match: ascii(match[0])[1:-1], text)
    text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def natural(img_id: str) -> tuple[bool, int, str]:
    """Sort key: numbers in their order, then names."""
    return not img_id.isdecimal(), len(img_id) if img_id.isdecimal() else 0, img_id

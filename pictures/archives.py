"""Pictures in tars, compressed tars (.tar.gz) and zips: listed, and read in place, without unpacking any.

Random access to a compressed tar uses an index of its streams, made while it is listed: 1 % of its size in memory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import indexed_gzip

from pictures import tars
from pictures.tars import Member

ZIP, GZIP = b"PK\3\4", b"\x1f\x8b"
EMPTY_ZIP = b"PK\5\6"
INDEX_EVERY = 2**22  # bytes of a compressed tar: so much is inflated at most before a picture, 10 ms
ENCRYPTED = 1  # a zip's flag
# What zipfile and indexed_gzip raise for a file that is damaged, or of a kind that they do not know.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
)


def kind(path: str, head: bytes) -> str:
    """'tar', 'tar.gz' or 'zip' of an archive, whose first bytes are `head` (262 of them); '' for anything else."""
    if head.startswith((ZIP, EMPTY_ZIP)):
        return "zip"
    if head.startswith(GZIP):
        return "tar.gz" if _inflated_head(path)[257:262] == b"ustar" else ""
    return "tar" if head[257:262] == b"ustar" else ""


def _inflated_head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(2**16), 512)
    except (OSError, zlib.error):
        return b""


# --- reading --------------------------------------------------------------------------------------------------------
class Archive:
    """An open archive, from which threads may read at a time."""

    def __init__(self, path: str, kind: str) -> None:
        self.kind, self.lock = kind, threading.Lock()
        if kind == "zip":
            self.zip = zipfile.ZipFile(path)
            self.at = {info.header_offset: info for info in self.zip.infolist()}
        elif kind == "tar.gz":
            self.file: BinaryIO = indexed_gzip.IndexedGzipFile(path, spacing=INDEX_EVERY, drop_handles=False)
        else:
            self.file = open(path, "rb")  # noqa: SIM115 (closed with the last who reads from it)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes of the member at `offset`; fewer where the archive ends in it. Raises one of BROKEN."""
        if self.kind == "zip":
            with self.zip.open(self.at[offset]) as file:
                return file.read(size)
        with self.lock:
            self.file.seek(offset)
            return self.file.read(size)

    def members(self, replaced: Callable[[str], None]) -> Iterator[Member]:
        """Its files; of several of one name the last, and `replaced` is told the name of each other one.

        Raises one of BROKEN behind the last whole member of a damaged tar.
        """
        if self.kind == "zip":
            yield from self._of_zip(replaced)
            return
        found, damage = [], None
        with self.lock:
            try:
                found.extend(tars.members(self.file, replaced))
            except BROKEN as error:
                damage = error
        yield from found
        if damage:
            raise damage

    @functools.cached_property
    def by_name(self) -> dict[str, Member]:
        """Its files, as far as it is whole, by the names that `members` gives them."""
        found: dict[str, Member] = {}
        with contextlib.suppress(*BROKEN):
            for member in self.members(lambda name: None):
                found[member.name] = member
        return found

    def _of_zip(self, replaced: Callable[[str], None]) -> Iterator[Member]:
        last = {info.filename: info for info in self.zip.infolist()}
        for info in self.zip.infolist():
            if info.is_dir():
                continue
            if last[info.filename] is not info:
                replaced(info.filename)
                continue
            fault = "encrypted" if info.flag_bits & ENCRYPTED else ""
            if stat.S_ISLNK(info.external_attr >> 16):
                fault = "a link in a zip, which is not followed"
            yield Member(info.filename, info.header_offset, info.file_size, fault)


def opened(path: str, kind: str) -> Archive:
    """The archive at `path`; the same again while the file is the same. Raises one of BROKEN."""
    status = os.stat(path)
    return _opened(path, kind, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=16)
def _opened(path: str, kind: str, *stamp: int) -> Archive:
    return Archive(path, kind)

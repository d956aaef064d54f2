"""The pictures of a folder, a tar, a list or a data set, and decoding them ahead of whoever uses them.

A tar is read where it lies, as img2dataset writes them (00000.tar with KEY.jpg, KEY.txt, KEY.json); a picture in one is
called 00000.tar/KEY.jpg. A list is a text file of a path a line, or a table (CSV, JSON lines, Parquet) with a column
`path`; its paths are from where the command runs, or from where the list lies. What is no picture, or hidden, is left
out, and told.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import stat
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from decoding.containers import kind_of, name_of
from decoding.decoder import MAX_BYTES, MAX_PIXELS, UnusablePicture, decode, note
from pictures import tars
from table_files import format_of, paths_in
from transforms import to_square
from utils import UserError

# Files of these names are taken for pictures, whatever they hold; others where their first bytes say so.
PICTURE_SUFFIXES = {
    *".jpg .jpeg .jpe .jfif .pjpeg .mpo .png .apng .gif .webp .bmp .dib .tif .tiff".split(),
    *".avif .jp2 .j2k .jpx .jpf .heic .heif .hif".split(),
}
_TEXTS = {*".txt .json .jsonl .csv .tsv .xml .md .html .log .npy .npz .parquet .pt .py".split()}  # never opened
_UNFINISHED = {*".part .tmp .crdownload .download".split()}
_RAW = {*".dng .nef .cr2 .cr3 .arw .orf .rw2 .raf .pef .srw".split()}  # TIFFs, of which the first page is a thumbnail
_ARCHIVES = {
    **{b"\x1f\x8b": "gzip", b"PK\3\4": "zip", b"BZh": "bzip2"},
    **{b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar"},
}
_THUMBNAILS = {"__MACOSX", "@eaDir"}  # macOS's and Synology's
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs
AHEAD = 128  # pictures that are decoded before they are asked for
CHUNK = 8  # pictures that a thread decodes before it looks for more

Tell = Callable[[str, str], None]  # told the path of what is left out, and why


class Source(NamedTuple):
    """A picture: what it is called, the file that holds it, and where in it (size −1: the whole file is the picture).

    `stamp` is another one where the file has been written or replaced. What cannot even be listed has a `fault`.
    """

    path: str
    file: str
    offset: int = 0
    size: int = -1
    stamp: str = ""
    fault: str = ""


def picture_path(data_path: str | Path, img_id: int) -> Path:
    """Where a data set keeps a picture."""
    return Path(data_path) / "images" / f"{img_id}.jpg"


def of_data_set(data_path: str | Path, img_ids: Iterable[int]) -> Iterator[Source]:
    """The pictures of a data set, whether they are there or not, called by their img_id."""
    return (Source(str(img_id), str(picture_path(data_path, img_id))) for img_id in img_ids)


# --- where the pictures are -----------------------------------------------------------------------------------------
def list_sources(source: str | Path, left_out: Tell = lambda path, reason: None) -> Iterator[Source]:
    """The pictures of a folder, a tar, a list of any of these, or one picture; none is held longer than needed.

    Raises UserError where there is none.
    """
    sources = _sources(os.fspath(source), left_out)
    if (first := next(sources, None)) is None:
        kinds = "JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000, HEIC"
        raise UserError(f"{source} holds no pictures ({kinds}, or .tar of them)")
    return itertools.chain([first], sources)


def of_upload(path: str, name: str, left_out: Tell = lambda path, reason: None) -> Iterator[Source]:
    """A stranger's picture, or those of a tar, called by `name`. No list is followed: it could name any file here."""
    sources = _in_tar(path, left_out) if _is_tar(path) else [_file(path)]
    return (each._replace(path=name + each.path[len(path) :]) for each in sources)


def count_sources(source: str | Path) -> int | None:
    """How many pictures there are, for a bar; None where it takes reading tars to know."""
    count = 0
    for each in _sources(os.fspath(source), lambda path, reason: None, tars_too=False):
        if each.fault == _TAR:
            return None
        count += 1
    return count


_TAR = "a tar"  # the fault of one that is not read, for it need not be


def _sources(source: str, left_out: Tell, tars_too: bool = True) -> Iterator[Source]:
    if not os.path.exists(source):
        raise UserError(f"{source} does not exist")
    if os.path.isdir(source) or _is_picture(source) or _is_tar(source):
        return _in_path(source, left_out, tars_too)
    if _no_file(source):
        raise UserError(f"{source} is neither a folder nor a file")
    if kind := _archive(_head(source)):
        raise UserError(f"{source} is an archive ({kind}): unpack it, or make a .tar without compression")
    names = _table(source) if _suffix(source) == ".csv" else _names(source)
    places = (_found(name, source) for name in names)
    return itertools.chain.from_iterable(_in_path(place, left_out, tars_too) for place in places)


def _in_path(path: str, left_out: Tell, tars_too: bool) -> Iterator[Source]:
    if path.startswith(_FORMULA):
        path = os.path.join(".", path)  # the same file, and no formula in a table of paths
    if os.path.isdir(path):
        yield from _in_folder(path, left_out, tars_too)
    elif _is_tar(path):
        yield from _in_tar(path, left_out) if tars_too else [Source(path, path, fault=_TAR)]
    else:
        yield _file(path)


def _file(path: str) -> Source:
    return Source(path, path, stamp=_stamp(path), fault=_no_file(path))


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _no_file(path: str) -> str:
    """Why there is no file to open; '' where there is one. A pipe would wait for ever."""
    try:
        return "" if stat.S_ISREG(os.stat(path).st_mode) else "not a file"
    except (OSError, ValueError):
        return "no such file"


# --- lists ----------------------------------------------------------------------------------------------------------
def _names(path: str) -> Iterator[str]:
    return _lines(path) if format_of(path) == "csv" else paths_in(path)


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
        raise UserError(f"{path} begins as a list in UTF-16 and is none: {error}") from error


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


def _found(name: str, listed_in: str) -> str:
    """Where a list's name leads: as it stands, without blanks or quotes around it, or from where the list lies."""
    bare = name.strip()
    for each in (name, bare, bare.strip("\"'")):
        for place in (each, os.path.join(os.path.dirname(listed_in), each)):
            if os.path.lexists(place):
                return place
    return bare


# --- folders --------------------------------------------------------------------------------------------------------
def _in_folder(folder: str, left_out: Tell, tars_too: bool) -> Iterator[Source]:
    """By name, files before folders; links are followed, but into no folder twice."""
    waiting, known = [folder], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (identity := (status.st_dev, status.st_ino)) in known:
                left_out(folder, "a link to a folder that is listed")
                continue
            known.add(identity)
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield Source(folder, folder, fault=f"the folder cannot be opened: {error.strerror}")
            continue
        folders = []
        for entry in found:
            path, suffix = entry.path, _suffix(entry.name)
            if reason := _hidden(entry.name, entry.is_dir()):
                left_out(path, reason)
            elif entry.is_dir():
                folders.append((entry.is_symlink(), path))
            elif reason := _no_file(path):
                left_out(path, "a link to what is not there" if entry.is_symlink() else reason)
            elif suffix == ".tar":
                yield from _in_path(path, left_out, tars_too)
            elif suffix in PICTURE_SUFFIXES or not (reason := _no_picture(path, lambda path=path: _head(path))):
                yield _file(path)
            else:
                left_out(path, reason)
        waiting += [path for _, path in sorted(folders, reverse=True)]


def _hidden(name: str, is_folder: bool = False) -> str:
    if name in _THUMBNAILS:
        return "a folder of thumbnails"
    if name.startswith("."):
        return "a hidden folder" if is_folder else "a hidden file"
    return ""


def _no_picture(name: str, head: Callable[[], bytes]) -> str:
    """Why a file that is not named as a picture is none; '' where its first bytes say otherwise, which `head` gives."""
    suffix = _suffix(name)
    if suffix in _UNFINISHED:
        return f"unfinished ({suffix})"
    if suffix in _RAW:
        return f"a camera's raw picture ({suffix})"
    if suffix in _TEXTS:
        return f"no picture ({suffix})"
    start = head()
    if kind_of(start):
        return ""
    if kind := _archive(start):
        return f"an archive ({kind}), to be unpacked first"
    return name_of(start) or f"no picture ({suffix or 'without a suffix'})"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_picture(path: str) -> bool:
    return _suffix(path) in PICTURE_SUFFIXES or bool(kind_of(_head(path)))


def _is_tar(path: str) -> bool:
    suffix = _suffix(path)
    return suffix == ".tar" or (suffix not in PICTURE_SUFFIXES and _head(path, 262)[257:] == b"ustar")


def _archive(start: bytes) -> str:
    return next((kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)), "")


def _head(path: str, n: int = 1024) -> bytes:
    """The first bytes of a file; none of what is no file, or cannot be opened."""
    if _no_file(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(n)
    except OSError:
        return b""


# --- tars -----------------------------------------------------------------------------------------------------------
def _in_tar(path: str, left_out: Tell) -> Iterator[Source]:
    kind = _archive(_head(path))
    if reason := _no_file(path) or kind and f"a compressed tar ({kind}), to be unpacked first":
        yield Source(path, path, fault=reason)
        return
    stamp = _stamp(path)
    try:
        with open(path, "rb") as file:
            later = lambda name: left_out(f"{path}/{name}", "replaced by a later member of its name")  # noqa: E731
            for member in tars.members(path, later):
                name = f"{path}/{member.name}"
                parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
                if reason := next(filter(None, map(_hidden, parts)), member.fault):
                    left_out(name, reason)
                elif _suffix(name) in PICTURE_SUFFIXES or not (reason := _no_picture(name, _head_of(file, member))):
                    yield Source(name, path, member.offset, member.size, stamp)
                else:
                    left_out(name, reason)
    except (OSError, tarfile.TarError) as error:  # what lies before the damage is used
        yield Source(path, path, fault=f"broken tar: {error}")


def _head_of(file: io.BufferedReader, member: tars.Member) -> Callable[[], bytes]:
    def head() -> bytes:
        file.seek(member.offset)
        return file.read(min(member.size, 1024))

    return head


# --- decoding, ahead of the network ---------------------------------------------------------------------------------
def read(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture. Raises UnusablePicture with the reason."""
    if source.size < 0 and not source.fault:
        return decode(source.file, max_pixels)
    return decode(io.BytesIO(content(source)), max_pixels)


def content(source: Source, as_scored: bool = False) -> bytes:
    """A picture's file, byte for byte. Raises UnusablePicture with the reason.

    `as_scored`: also where the file has been written or replaced since the source was listed.
    """
    if source.fault:
        raise UnusablePicture(source.fault)
    if as_scored and source.stamp and _stamp(source.file) != source.stamp:
        raise UnusablePicture("written or replaced since it was scored")
    if source.size > MAX_BYTES:
        raise UnusablePicture(f"{source.size:,} bytes are more than {MAX_BYTES:,}", too_large=True)
    try:
        with open(source.file, "rb") as file:
            file.seek(source.offset)
            found = file.read(source.size)
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {error.strerror}") from error
    if len(found) < source.size:
        raise UnusablePicture("broken: the tar ends in it")
    return found


class Decoded(NamedTuple):
    source: Source
    pixels: np.ndarray | None  # (3, side, side) uint8; None for one that cannot be read
    size: tuple[int, int]  # width and height of the picture itself
    fault: str
    note: str = ""  # of one that can be used though something is amiss


def decode_one(source: Source, side: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    try:
        picture = read(source, max_pixels)
        return Decoded(source, to_square(picture, side), picture.size, "", note(picture))
    except UnusablePicture as fault:
        return Decoded(source, None, (0, 0), str(fault))


def decoded(
    sources: Iterable[Source], side: int, num_workers: int, max_pixels: int = MAX_PIXELS, ahead: int = AHEAD
) -> Iterator[Decoded]:
    """The pictures in the order of the sources, decoded by threads that are `ahead` pictures ahead at most."""
    sources, waiting = iter(sources), deque()
    with ThreadPoolExecutor(max(1, num_workers)) as pool:

        def submit() -> None:
            if chunk := list(itertools.islice(sources, CHUNK)):
                waiting.append(pool.submit(lambda: [decode_one(source, side, max_pixels) for source in chunk]))

        for _ in range(-(-ahead // CHUNK)):
            submit()
        while waiting:
            done = waiting.popleft().result()
            submit()
            yield from done

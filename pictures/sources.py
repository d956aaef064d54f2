"""The pictures of folders, archives, lists, addresses or a data set, decoded in advance by threads.

An archive (.tar, .tar.gz, .zip) is read where it lies; a picture in one, as img2dataset writes them, is called
00000.tar/KEY.jpg. The content of an address (http, https) is fetched once, and kept as long as the process runs. Lists
are described in lists.py. Files that are hidden or not pictures are left out and reported.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import numpy as np
from PIL import Image

from decoding.containers import kind_of, name_of
from decoding.decoder import MAX_BYTES, MAX_PIXELS, UnusablePicture, decode, note
from pictures import archives, tars
from pictures.lists import archive_in, found_at, is_address, names_in
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
_COMPRESSED = {
    **{b"\x1f\x8b": "gzip", b"PK\3\4": "zip", b"BZh": "bzip2"},
    **{b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"(\xb5/\xfd": "zstd"},
}
_ARCHIVES = (".tar", ".zip", ".tgz", ".tar.gz")  # in folders: other zips are documents or programs
_LISTS = (".txt", ".csv", ".jsonl", ".parquet")  # at an address
_THUMBNAILS = {"__MACOSX", "@eaDir"}  # macOS's and Synology's
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs
AHEAD = 128  # pictures that are decoded before they are asked for
CHUNK = 8  # pictures that a thread decodes before it looks for more

Tell = Callable[[str, str], None]  # told the path of what is left out, and why
Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]  # a source, or several


class Source(NamedTuple):
    """A picture: its name, the file that contains it, and where in the file (size −1: the whole file is the picture).

    `stamp` is another one where the file has been written or replaced. What cannot even be listed has a `fault`.
    """

    path: str
    file: str
    offset: int = 0
    size: int = -1
    stamp: str = ""
    fault: str = ""


def picture_path(data_path: str | Path, img_id: int) -> Path:
    """The path of a data set's picture."""
    return Path(data_path) / "images" / f"{img_id}.jpg"


def of_data_set(data_path: str | Path, img_ids: Iterable[int]) -> Iterator[Source]:
    """The pictures of a data set, whether they exist or not, named by img_id."""
    return (Source(str(img_id), str(picture_path(data_path, img_id))) for img_id in img_ids)


# --- where the pictures are -----------------------------------------------------------------------------------------
def list_sources(source: Where, left_out: Tell = lambda path, reason: None) -> Iterator[Source]:
    """The pictures of a folder, an archive, a list of any of these, an address or one picture, or of several such; none
    is held longer than needed.

    Raises UserError if there is none.
    """
    each = [(where, _sources(where, left_out)) for where in wheres(source)]  # now: tells what is no source at all
    found = itertools.chain.from_iterable(
        _telling(sources, where, left_out) if len(each) > 1 else sources for where, sources in each
    )
    if (first := next(found, None)) is None:
        kinds = "JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000, HEIC"
        raise UserError(f"{called(source)} holds no pictures ({kinds}, or .tar, .tar.gz or .zip of them)")
    return itertools.chain([first], found)


def called(source: Where) -> str:
    """What a message calls one source, or several."""
    first, *others = wheres(source)
    return first if not others else f"{first} and {len(others)} more"


def of_upload(path: str, name: str, left_out: Tell = lambda path, reason: None) -> Iterator[Source]:
    """A stranger's picture, or those of a tar, called by `name`. No list is followed: it could name any file here. And
    nothing compressed is opened, for it may hold a thousand times as much as was sent."""
    sources = _in_archive(path, "tar", left_out) if _archive_kind(path) == "tar" else [_file(path)]
    return (each._replace(path=name + each.path[len(path) :]) for each in sources)


def count_sources(source: Where) -> int:
    """The number of pictures, for a progress bar."""
    return sum(1 for where in wheres(source) for _ in _sources(where, lambda path, reason: None))


def wheres(source: Where) -> list[str]:
    """Each source as text. Raises UserError if one does not exist."""
    places = [os.fspath(source)] if isinstance(source, (str, os.PathLike)) else list(map(os.fspath, source))
    for where in places:
        if not is_address(where) and not os.path.exists(where):
            raise UserError(f"{where} does not exist")
    return places


def _telling(sources: Iterator[Source], where: str, left_out: Tell) -> Iterator[Source]:
    """The same, and a word where there are none."""
    if (first := next(sources, None)) is None:
        left_out(where, "holds no pictures")
    else:
        yield first
        yield from sources


def _sources(source: str, left_out: Tell) -> Iterator[Source]:
    if is_address(source):
        return _at_address(source, left_out)
    if os.path.isdir(source) or _is_picture(source) or _archive_kind(source):
        return _in_path(source, left_out)
    if _no_file(source):
        raise UserError(f"{source} is neither a folder nor a file")
    if kind := _compressed(_head(source)):
        raise UserError(f"{source} is an archive ({kind}): unpack it, or make a .tar, .tar.gz or .zip of it")
    places = (found_at(name, source) for name in names_in(source))
    return itertools.chain.from_iterable(_in_path(place, left_out) for place in places)


def _in_path(path: str, left_out: Tell) -> Iterator[Source]:
    if is_address(path):
        yield from _at_address(path, left_out)
        return
    if path.startswith(_FORMULA):
        path = os.path.join(".", path)  # the same file, and no formula in a table of paths
    if os.path.isdir(path):
        yield from _in_folder(path, left_out)
    elif kind := _archive_kind(path):
        yield from _in_archive(path, kind, left_out)
    else:
        yield _member(path) or _file(path)


def _member(path: str) -> Source | None:
    """The picture in an archive that our tables call a.tar/b.jpg; None if there is none."""
    place = archive_in(path)
    if not place or not (kind := _archive_kind(place)):
        return None
    try:
        member = archives.opened(place, kind).by_name.get(path[len(place) + 1 :])
    except archives.BROKEN:
        return None
    return member and Source(path, place, member.offset, member.size, _stamp(place), member.fault)


def _file(path: str) -> Source:
    return Source(path, path, stamp=_stamp(path), fault=_no_file(path))


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _no_file(path: str) -> str:
    """Why there is no file to open; '' if there is one. A pipe would wait for ever."""
    try:
        return "" if stat.S_ISREG(os.stat(path).st_mode) else "not a file"
    except (OSError, ValueError):
        return "no such file"


# --- folders --------------------------------------------------------------------------------------------------------
def _in_folder(folder: str, left_out: Tell) -> Iterator[Source]:
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
            elif entry.name.lower().endswith(_ARCHIVES) and _archive_kind(path):
                yield from _in_path(path, left_out)
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
    """Why a file that is not named as a picture is none; '' if its first bytes say otherwise, which `head` gives."""
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
    if kind := _compressed(start):
        return f"an archive ({kind}), to be unpacked first"
    return name_of(start) or f"no picture ({suffix or 'without a suffix'})"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_picture(path: str) -> bool:
    return _suffix(path) in PICTURE_SUFFIXES or bool(kind_of(_head(path)))


def _archive_kind(path: str) -> str:
    """'tar', 'tar.gz' or 'zip' of an archive that is read, else ''; a file that is called .tar is taken for one."""
    suffix = _suffix(path)
    if suffix in PICTURE_SUFFIXES:
        return ""
    return archives.kind(path, _head(path, 262)) or ("tar" if suffix == ".tar" else "")


def _compressed(start: bytes) -> str:
    return next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), "")


def _head(path: str, n: int = 1024) -> bytes:
    """The first bytes of a file; none of what is no file, or cannot be opened."""
    if _no_file(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(n)
    except OSError:
        return b""


# --- archives -------------------------------------------------------------------------------------------------------
def _in_archive(path: str, kind: str, left_out: Tell, name: str = "") -> Iterator[Source]:
    """`name`: what the archive is called, where that is not its path."""
    title, packed = name or path, _compressed(_head(path)) if kind == "tar" else ""
    if reason := _no_file(path) or packed and f"a compressed tar ({packed}), to be unpacked first":
        yield Source(title, title, fault=reason)
        return
    stamp = "" if name else _stamp(path)
    try:
        archive = archives.opened(path, kind)
        later = lambda member: left_out(f"{title}/{member}", "replaced by a later member of its name")  # noqa: E731
        for member in archive.members(later):
            whole = f"{title}/{member.name}"
            parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
            if reason := next(filter(None, map(_hidden, parts)), member.fault):
                left_out(whole, reason)
            elif _suffix(whole) in PICTURE_SUFFIXES or not (reason := _no_picture(whole, _head_of(archive, member))):
                yield Source(whole, title, member.offset, member.size, stamp)
            else:
                left_out(whole, reason)
    except archives.BROKEN as error:  # what lies before the damage is used
        yield Source(title, title, fault=f"broken {kind}: {error}")


def _head_of(archive: archives.Archive, member: tars.Member) -> Callable[[], bytes]:
    return lambda: archive.read(member.offset, min(member.size, 1024))


# --- addresses ------------------------------------------------------------------------------------------------------
def _at_address(url: str, left_out: Tell) -> Iterator[Source]:
    """A picture, or those of an archive or a list, which the name in an address tells; a list on the web leads to
    addresses alone, for it could name any file here."""
    name = urlsplit(url).path.lower()
    if not name.endswith((*_ARCHIVES, *_LISTS)):
        yield Source(url, url)
        return
    try:
        path = _fetched(url, large=True)
    except UnusablePicture as fault:
        yield Source(url, url, fault=str(fault))
        return
    if kind := _archive_kind(path):
        yield from _in_archive(path, kind, left_out, url)
    elif name.endswith(_LISTS):
        for each in names_in(path, name):
            yield from _at_address(urljoin(url, each.strip()), left_out)
    else:
        yield Source(url, url, fault="no archive that is read")


def _fetched(url: str, large: bool = False) -> str:
    """The file in which what is at an address is kept as long as this process runs. Raises UnusablePicture."""
    from fetching.failures import Failure
    from fetching.single import fetched  # with `requests`, which no other source needs

    try:
        return str(fetched().get(url, large))
    except Failure as failure:
        raise UnusablePicture(f"cannot be fetched: {failure.error} ({failure.status})") from failure


def stop_fetching() -> None:
    """Where addresses have been asked for: wait for none of them any more."""
    if single := sys.modules.get("fetching.single"):
        single.fetched().stop()


def _picture_at(url: str) -> str:
    """The same for a picture: a page in its place is told as such."""
    from fetching.answers import no_picture

    path = _fetched(url)
    if not kind_of(_head(path)):
        with open(path, "rb") as file:
            failure = no_picture(file.read(), name_of(_head(path)) or "no picture")
        raise UnusablePicture(f"{failure.error} ({failure.status})")
    return path


# --- decoding, ahead of the network ---------------------------------------------------------------------------------
def read(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture. Raises UnusablePicture with the reason."""
    if source.size < 0 and not source.fault and not is_address(source.file):
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
    path = source.file
    if is_address(path):
        path = _picture_at(path) if source.size < 0 else _fetched(path, large=True)
    try:
        if source.size < 0:
            with open(path, "rb") as file:
                return file.read()
        found = archives.opened(path, _archive_kind(path)).read(source.offset, source.size)
    except archives.BROKEN as error:
        raise UnusablePicture(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
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
    """The pictures in the order of the sources, decoded by threads at most `ahead` pictures in advance."""
    sources, waiting = iter(sources), deque()
    with ThreadPoolExecutor(max(1, num_workers)) as pool:

        def submit() -> None:
            if chunk := list(itertools.islice(sources, CHUNK)):
                waiting.append(pool.submit(lambda: [decode_one(source, side, max_pixels) for source in chunk]))

        try:
            for _ in range(-(-ahead // CHUNK)):
                submit()
            while waiting:
                future = waiting.popleft()
                while not future.done():
                    wait([future], 0.5)  # without an end to it Ctrl-C would not be heard on every system
                submit()
                yield from future.result()
        except BaseException:  # Ctrl-C: nobody waits for what was to come
            pool.shutdown(wait=False, cancel_futures=True)
            stop_fetching()
            raise

"""The pictures of a folder, a tar, a text list or a data set, and decoding them ahead of whoever uses them.

A tar is read where it lies, as img2dataset writes them (00000.tar with KEY.jpg, KEY.txt, KEY.json): nothing is
unpacked. A picture in one is called 00000.tar/KEY.jpg.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pictures.decoder import UnusablePicture, decode
from transforms import to_square
from utils import UserError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
AHEAD = 128  # pictures that are decoded before they are asked for
CHUNK = 8  # pictures that a thread decodes before it looks for more
LARGEST = 500_000_000  # bytes of a picture in a tar: it is read into memory whole


# --- where the pictures are -----------------------------------------------------------------------------------------
class Source(NamedTuple):
    """A picture: what it is called, the file that holds it, and where in it (size −1: the whole file is the picture).

    What cannot even be listed has a `fault`.
    """

    path: str
    file: str
    offset: int = 0
    size: int = -1
    fault: str = ""


def picture_path(data_path: str | Path, img_id: int) -> Path:
    """Where a data set keeps a picture."""
    return Path(data_path) / "images" / f"{img_id}.jpg"


def of_data_set(data_path: str | Path, img_ids: Iterable[int]) -> Iterator[Source]:
    """The pictures of a data set, whether they are there or not, called by their img_id."""
    return (Source(str(img_id), str(picture_path(data_path, img_id))) for img_id in img_ids)


def list_sources(source: str | Path) -> Iterator[Source]:
    """The pictures of a folder, a tar, a text list of any of these, or one picture; none is held longer than needed.

    Raises UserError where there is none.
    """
    sources = _sources(os.fspath(source))
    if (first := next(sources, None)) is None:
        raise UserError(f"{source} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}, or .tar of them)")
    return itertools.chain([first], sources)


def _sources(source: str) -> Iterator[Source]:
    if not os.path.exists(source):
        raise UserError(f"{source} does not exist")
    if os.path.isdir(source):
        return _in_folder(source)
    if _suffix(source) == ".tar" or _suffix(source) in PICTURE_SUFFIXES:
        return _in_file(source)
    return itertools.chain.from_iterable(_in_file(line) for line in _lines(source))


def count_sources(source: str | Path) -> int | None:
    """How many pictures there are, for a bar; None where it takes reading tars to know."""
    source, count = os.fspath(source), 0
    for name in _files(source) if os.path.isdir(source) else _lines(source) if _is_list(source) else [source]:
        if _suffix(name) == ".tar":
            return None
        count += 1
    return count


def _is_list(source: str) -> bool:
    return _suffix(source) not in {".tar", *PICTURE_SUFFIXES}


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _lines(path: str) -> Iterator[str]:
    """The lines of a text list, whatever bytes the names are made of; empty ones are left out."""
    with open(path, "rb") as file:
        if b"\0" in file.read(4096):
            raise UserError(f"{path} is neither a folder, a tar, a picture nor a text list of them")
        file.seek(0)
        for line in file:
            if name := os.fsdecode(line.rstrip(b"\r\n")).strip():
                yield name


def _in_file(path: str) -> Iterator[Source]:
    if os.path.isdir(path):
        yield from _in_folder(path)
    elif _suffix(path) == ".tar":
        yield from _in_tar(path)
    else:
        yield Source(path, path)


def _in_folder(folder: str) -> Iterator[Source]:
    for path in _files(folder):
        if path.endswith(os.sep):
            yield Source(path, path, fault="the folder cannot be opened")
        else:
            yield from _in_file(path)


def _files(folder: str) -> Iterator[str]:
    """Pictures and tars under a folder by name, files before folders; one that cannot be opened ends in a slash."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif (_suffix(entry.name) == ".tar" or _suffix(entry.name) in PICTURE_SUFFIXES) and entry.is_file():
                    files.append(entry.name)
    except OSError:
        yield os.path.join(folder, "")
        return
    yield from (os.path.join(folder, name) for name in sorted(files))
    for name in sorted(folders):
        yield from _files(os.path.join(folder, name))


def _in_tar(path: str) -> Iterator[Source]:
    """The pictures of a tar, by where they lie in it: nothing is unpacked, so a member's name can do no harm."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # else it keeps every member that it has passed
                if member.isreg() and _suffix(member.name) in PICTURE_SUFFIXES:
                    yield Source(f"{path}/{member.name}", path, member.offset_data, member.size)
            tar.fileobj.seek(tar.offset)  # tarfile stops at a damaged header without a word
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no header and no end at byte {tar.offset:,}")
    except (OSError, tarfile.TarError) as error:  # what lies before the damage is ranked
        yield Source(path, path, fault=f"broken tar: {error}")


def read(source: Source) -> Image.Image:
    """Decode a picture. Raises UnusablePicture with the reason."""
    if source.fault:
        raise UnusablePicture(source.fault)
    if source.size < 0:
        if not _is_regular(source.file):  # a pipe would wait for ever
            raise UnusablePicture("not a file" if os.path.exists(source.file) else "no such file")
        return decode(source.file)
    if source.size > LARGEST:
        raise UnusablePicture(f"{source.size:,} bytes are more than {LARGEST:,}")
    try:
        with open(source.file, "rb") as file:
            file.seek(source.offset)
            content = file.read(source.size)
    except OSError as error:
        raise UnusablePicture(f"broken: {error}") from error
    if len(content) < source.size:
        raise UnusablePicture("broken: the tar ends in it")
    return decode(io.BytesIO(content))


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


# --- decoding, ahead of the network ---------------------------------------------------------------------------------
class Decoded(NamedTuple):
    source: Source
    pixels: np.ndarray | None  # (3, side, side) uint8; None for one that cannot be read
    size: tuple[int, int]  # width and height of the picture itself
    fault: str


def decode_one(source: Source, side: int) -> Decoded:
    try:
        picture = read(source)
        return Decoded(source, to_square(picture, side), picture.size, "")
    except UnusablePicture as fault:
        return Decoded(source, None, (0, 0), str(fault))


def decoded(sources: Iterable[Source], side: int, num_workers: int, ahead: int = AHEAD) -> Iterator[Decoded]:
    """The pictures in the order of the sources, decoded by threads that are `ahead` pictures ahead at most."""
    sources, waiting = iter(sources), deque()
    with ThreadPoolExecutor(max(1, num_workers)) as pool:

        def submit() -> None:
            if chunk := list(itertools.islice(sources, CHUNK)):
                waiting.append(pool.submit(lambda: [decode_one(source, side) for source in chunk]))

        for _ in range(-(-ahead // CHUNK)):
            submit()
        while waiting:
            done = waiting.popleft().result()
            submit()
            yield from done

"""Copies of the most viral pictures in a folder of their own, named by rank: 001_name.jpg."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from decoding.decoder import UnusablePicture
from pictures.lists import is_address
from pictures.sources import Source, content
from utils import UserError

MOST_BYTES = 255  # of a file's name


def check_folder(folder: str | Path, sources: Iterable[str], outputs: Iterable[str | Path | None]) -> None:
    """Raises UserError unless copies can go into `folder`: it must be new, or empty, and in no folder of `sources`."""
    folder = Path(folder)
    written = any(each and Path(each).absolute() == folder.absolute() for each in outputs)
    if written or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--copy_top {folder} is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--copy_top {folder} holds files already, which are not replaced: name a new folder")
    for source in sources:
        if os.path.isdir(source) and folder.resolve().is_relative_to(Path(source).resolve()):
            raise UserError(f"--copy_top {folder} is inside {source}, whose next ranking would rank the copies as well")


def copy_best(sources: Iterable[Source], n: int, folder: str | Path) -> list[tuple[str, str]]:
    """Copy the first n of `sources` into `folder`, which appears once all of them are copied.

    Returns (path, reason) of each picture that cannot be copied, because it is no longer as it was scored.
    """
    folder, faults = Path(folder), []
    beside = folder.absolute().with_name(f".{folder.absolute().name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a killed run
    beside.mkdir(parents=True)
    try:
        digits = max(3, len(str(n)))
        for number, source in zip(range(1, n + 1), sources, strict=False):
            try:
                picture = content(source, as_scored=True)
            except UnusablePicture as fault:
                faults.append((source.path, str(fault)))
                continue
            (beside / name_of(source.path, f"{number:0{digits}}_")).write_bytes(picture)
        if folder.is_dir():
            folder.rmdir()
        os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return faults


def name_of(path: str, before: str) -> str:
    """`before` and a picture's own name, with fewer letters in front of its suffix where the disk takes no more."""
    path = urlsplit(path).path if is_address(path) else path
    stem, suffix = os.path.splitext(path.rstrip("/").rpartition("/")[2])
    if len(suffix) > 20:  # no suffix at all
        stem, suffix = stem + suffix, ""
    while len(os.fsencode(before + stem + suffix)) > MOST_BYTES:
        stem = stem[:-1]
    return before + stem + suffix

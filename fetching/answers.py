"""Validation of responses before they count: a picture, the link of a post or an album, a metadata file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from decoding.decoder import UnusablePicture, check, decode
from fetching.addresses import Services, stands_in
from fetching.bodies import GZIP, save
from fetching.failures import Failure
from fetching.hosts import Task
from fetching.ledger import Ledger, new_row
from fetching.request import refuses_for_now

QUALITY = 95  # of the JPEG that is kept in place of another kind of picture
MOST_SIDE = 65_500  # pixels that libjpeg writes
JPEG_END = b"\xff\xd9"
UNVERIFIED = "unverified"  # the folder beside for a metadata file that is not the published one


# --- a picture ------------------------------------------------------------------------------------------------------
def keep_picture(
    task: Task, data: bytes, http_status: int, ledger: Ledger, max_pixels: int, services: Services
) -> None:
    """Store a picture if it is valid and complete: first in a .part file, then in the ledger, then under its name."""
    if name := stands_in(data, task.url, services):
        raise Failure("placeholder", f"{name}'s picture of a removed one")
    width, height, kept, note = usable(data, max_pixels)
    digest = hashlib.sha256(kept).hexdigest()
    agrees = task.expected in ("", digest) or (kept is not data and task.expected == hashlib.sha256(data).hexdigest())
    facts = {"http_status": http_status, "sha256": digest, "bytes": len(kept), "width": width, "height": height}
    row = new_row(task.name, "ok" if agrees else "changed", task.source, task.url, error=note, **facts)
    part = ledger.images / f"{task.name}.part"
    try:
        save(kept, part)
        ledger.record(row, part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def usable(data: bytes, max_pixels: int) -> tuple[int, int, bytes, str]:
    """A picture's width and height in pixels as stored, the bytes to store, and a note about it ('' for none).

    A JPEG in grey or RGB stays byte for byte, with its EXIF orientation, and gets an end marker where only that is
    lacking. All else becomes an RGB JPEG, upright.
    Raises Failure for what is no picture, not whole or too large.
    """
    if not data:
        raise Failure("undecodable", "empty")
    try:
        facts = check(io.BytesIO(data), max_pixels)
        if facts.kind == "JPEG" and facts.mode in ("L", "RGB"):
            ended = data + JPEG_END if facts.note else data
            if not facts.note or not check(io.BytesIO(ended), max_pixels).note:
                return *facts.size, ended, facts.note
        picture = decode(io.BytesIO(data), max_pixels)
    except UnusablePicture as error:
        if error.too_large:
            raise Failure("too_large", f"more than {max_pixels} pixels") from error
        raise no_picture(data, str(error)) from error
    if max(picture.size) > MOST_SIDE:
        raise Failure("too_large", f"a side of more than {MOST_SIDE} pixels, which no JPEG has")
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return *picture.size, jpeg.getvalue(), facts.note


def no_picture(data: bytes, reason: str) -> Failure:
    """Why a body that is no picture came: a page in place of a removed one, or of a host that is only busy."""
    head = data[:1024].lower()
    is_page = b"<html" in head or b"<!doctype" in head
    is_text = is_page or head.lstrip().startswith((b"{", b"<?xml"))
    if is_text and (passing := refuses_for_now(data)):
        return Failure(passing, "a page that refuses for now")
    return Failure("placeholder", "a page, not a picture") if is_page else Failure("undecodable", reason)


# --- where a picture is said to be ----------------------------------------------------------------------------------
def link_of_post(data: bytes) -> str:
    """The address that a Reddit post's JSON links to; of a gallery its first picture. Raises Failure for none."""
    post = _part(data, 0, "data", "children", 0, "data")
    if not isinstance(post, dict) or "url" not in post:
        raise Failure("transient", "not a post's JSON")
    items = _part(post, "gallery_data", "items")
    if isinstance(items, list) and items:
        url = _part(post, "media_metadata", _part(items[0], "media_id"), "s", "u")
    else:
        url = post["url"]
    if post.get("is_self") or not isinstance(url, str) or not re.match(r"https?://|//", url):
        raise Failure("gone", "the post links to no picture")
    return url


def picture_of_album(data: bytes, imgur_url: str) -> str:
    """The address of an Imgur album's first picture. Raises Failure if it has none."""
    if _part(data, "data") is None:
        raise Failure("transient", "not an album's JSON")
    name = _part(data, "data", "images", 0, "hash")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]{5,8}", name):
        raise Failure("gone", "the album holds no picture")
    return f"{imgur_url}/{name}.jpg"


def _part(value: Any, *keys: str | int) -> Any:
    """What stands under `keys` in JSON, as text or as read; None if nothing does."""
    try:
        value = json.loads(value) if isinstance(value, bytes) else value
        for key in keys:
            value = value[key]
    except (ValueError, LookupError, TypeError, RecursionError):  # not JSON, or another, or 200,000 of "["
        return None
    return value


# --- a metadata file ------------------------------------------------------------------------------------------------
def keep_file(task: Task, data: bytes, sent: bytes, path: Path) -> None:
    """Keep a metadata file, if it is what its name says: `data`, or `sent`, which is the same before its encoding was
    undone. One whose published SHA-256 is another is kept apart, and counts as lacking."""
    if path.suffix == ".gz" and not data.startswith(GZIP):
        data = sent  # the file itself was declared as an encoding
    head = data[:100]
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as file:
                head = file.read(100)
                while file.read(2**20):  # to the end: gzip checks its sum there
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise Failure("undecodable", "not a whole gzip file") from error
    start = {".gz": rb"#image_id", ".mat": rb"MATLAB"}.get(path.suffix, rb"[^<]")  # not a page
    if not re.match(start, head):
        raise Failure("undecodable", f"not what a {path.suffix} file starts with")
    digest = hashlib.sha256(data).hexdigest()
    agrees = digest.startswith(task.expected)
    place = path if agrees else path.parent / UNVERIFIED / path.name
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    try:
        save(data, part)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
    if not agrees:
        what = f"{path.name} is not the file known from its publication (SHA-256 {digest[:16]}…)"
        raise Failure("changed", f"{what}: kept apart, in {UNVERIFIED}/")

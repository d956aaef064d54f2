"""What an answer holds: a picture to keep, a Reddit post's link, a metadata file; each checked before it counts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from fetching.hosts import Task
from fetching.ledger import Ledger, new_row
from fetching.request import Failure, save

PLACEHOLDERS = {"d835884373f4d6c8f24742ceabe74946"}  # MD5 of Imgur's picture 'no longer available'
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")  # Pillow's other readers are not for strangers' files


def keep_picture(task: Task, pieces: Iterable[bytes], http_status: int, ledger: Ledger, max_pixels: int) -> None:
    """Keep a picture, if it is one and whole: first in a .part file, then in the ledger, then under its name."""
    part = ledger.images / f"{task.name}.part"
    try:
        data = save(pieces, part)
        try:
            width, height, jpeg = decode(data, max_pixels)
        except Failure as failure:
            failure.http_status = http_status
            raise
        kept = served = hashlib.sha256(data).hexdigest()
        if jpeg is not None:
            save([jpeg], part)
            data, kept = jpeg, hashlib.sha256(jpeg).hexdigest()
        status = "ok" if task.expected in ("", served, kept) else "changed"
        facts = {"http_status": http_status, "sha256": kept, "bytes": len(data), "width": width, "height": height}
        ledger.record(new_row(task.name, status, task.source, task.url, **facts), part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def decode(data: bytes, max_pixels: int) -> tuple[int, int, bytes | None]:
    """Decode a picture to its last row: `verify()` or a look at the header would pass a truncated one.

    Returns its width and height in pixels, and the RGB JPEG to keep in its place; None for one that is a JPEG already.
    Raises Failure."""
    if not data:
        raise Failure("undecodable", "empty")
    if len(data) < 2**12 and hashlib.md5(data, usedforsecurity=False).hexdigest() in PLACEHOLDERS:
        raise Failure("placeholder", "Imgur's picture of a removed one")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Failure("too_large", f"more than {max_pixels} pixels")
            if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                # Every byte is read and every coefficient decoded, which is where damage shows. Spared is what cannot
                # fail: to turn them into all the pixels and colours, two fifths of the time.
                width, height = image.size
                image.draft("L", (width // 8, height // 8))
                image.load()
                return width, height, None
            image.load()
            jpeg = io.BytesIO()
            to_rgb(image).save(jpeg, "JPEG", quality=95)
            return image.width, image.height, jpeg.getvalue()
    except Failure:
        raise
    except Image.DecompressionBombError as error:
        raise Failure("too_large", f"more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        head = data[:1024].lower()
        if b"<html" in head or b"<!doctype" in head:
            raise Failure("placeholder", "a page, not a picture") from error
        raise Failure("undecodable", "not a picture") from error
    except Exception as error:  # a decoder fed with garbage raises nearly any type
        raise Failure("undecodable", " ".join(str(error).split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB: what is transparent over white, 16-bit grey scaled down (Pillow would clip it to white)."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def link_of_post(pieces: Iterable[bytes], http_status: int) -> str:
    """The address that a Reddit post's JSON links to. Raises Failure where it links to no picture."""
    try:
        post = json.loads(b"".join(pieces))[0]["data"]["children"][0]["data"]
        url, is_self = str(post["url"]), bool(post.get("is_self"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Failure("transient", "not a post's JSON", http_status) from error
    if is_self or not url:
        raise Failure("gone", "the post links to no picture", http_status)
    return url


def keep_file(task: Task, pieces: Iterable[bytes], http_status: int, path: Path) -> None:
    """Keep a metadata file, if it is what its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        digest = hashlib.sha256(save(pieces, part)).hexdigest()
        try:
            with (gzip.open if path.suffix == ".gz" else open)(part, "rb") as file:
                head = file.read(100)
                while file.read(2**20):  # to the end: gzip checks its sum there
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise Failure("undecodable", "not a whole gzip file", http_status) from error
        start = {".gz": rb"#image_id", ".mat": rb"MATLAB"}.get(path.suffix, rb"[^<]")  # not a page
        if not re.match(start, head):
            raise Failure("undecodable", f"not what a {path.suffix} file starts with", http_status)
        if not digest.startswith(task.expected):
            tqdm.write(f"{path} is not the file known from its publication: SHA-256 {digest}", file=sys.stderr)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

"""The only decoder: any picture file → RGB pixels, upright, or the reason for failure.

It reads JPEG (also the first picture of MPO), PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000 and, if pillow-heif is
installed, HEIC. The format is detected from a file's first bytes, not its name; no other format is ever opened. Only
the pixels matter: metadata is removed first (containers.py), except for the orientation, which is applied. A picture
must be complete, or it is refused. One that lacks only what follows its pixels (the end marker of a JPEG) counts as
complete, and `note` says so.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from decoding.containers import Container, Damaged, kind_of, name_of, without_metadata

MAX_PIXELS = 100_000_000  # a picture beyond this is refused before it is decoded: 300 MB as RGB
MAX_BYTES = 500_000_000  # of a file: it is read into memory whole
MOST_SCANS = 20  # of a JPEG of MAX_PIXELS, of a smaller one more: each costs a pass over the picture
TRUNCATED = "truncated at its end; its pixels are whole"

ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = None  # our own limit speaks in one line; Pillow's would only warn below twice its own
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; the pixels decide here

# EXIF's orientations: what turns a picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusablePicture(Exception):
    """A file that is not a complete picture of an acceptable size. The message says why, without the file's name."""

    def __init__(self, reason: str, too_large: bool = False) -> None:
        super().__init__(reason)
        self.too_large = too_large  # in pixels or bytes


class Facts(NamedTuple):
    """What `check` has found: the kind ('JPEG', 'PNG' …), Pillow's mode, the size as stored (width, height), the
    orientation (EXIF's, 1 to 8) and the note."""

    kind: str
    mode: str
    size: tuple[int, int]
    orientation: int
    note: str


def decode(file: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture fully, as RGB, upright.

    Transparency is composited over white, 16- and 32-bit and floating-point values are scaled to 8 bits, palettes, CMYK
    and LAB are converted, and the first frame of an animation is used. Raises UnusablePicture with the reason: missing,
    not a picture, broken, truncated, too large.
    """
    picture, facts = _loaded(file, max_pixels)
    try:
        picture = _rgb(picture)
        if facts.orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[facts.orientation])
    except Exception as error:  # a mode that Pillow cannot convert, or no memory
        raise UnusablePicture(f"broken: {_words(error)}") from error
    picture.info = {"note": facts.note} if facts.note else {}
    return picture


def note(picture: Image.Image) -> str:
    """A note about a picture that `decode` returned, though it is usable; '' if there is none."""
    return picture.info.get("note", "")


def check(file: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Facts:
    """Check that a picture is complete, without converting its colours: for a JPEG two fifths less work than `decode`.

    Raises UnusablePicture like `decode`.
    """
    return _loaded(file, max_pixels, small=True)[1]


# --- from the file to its pixels ------------------------------------------------------------------------------------
def _loaded(file: str | Path | BinaryIO, max_pixels: int, small: bool = False) -> tuple[Image.Image, Facts]:
    """The decoded picture as stored; with `small`, a grey or RGB JPEG at an eighth of its size; all data is read."""
    data = _read(file)
    kind = _kind(data)
    try:
        container = without_metadata(kind, data)
        with Image.open(io.BytesIO(container.data), formats=[kind]) as picture:
            _check_size(kind, container, picture.size, max_pixels)
            # AVIF's is no metadata, but a property, which Pillow gives as EXIF; pillow-heif turns pictures by itself.
            orientation = picture.getexif().get(0x112, 1) if kind == "AVIF" else container.orientation or 1
            mode, size = picture.mode, picture.size
            if small and kind == "JPEG" and mode in ("L", "RGB"):
                picture.draft("L", (size[0] // 8, size[1] // 8))
            picture.load()
        if kind == "JPEG":
            _check_end(container, picture)
    except UnusablePicture:
        raise
    except Damaged as error:
        raise UnusablePicture(f"broken: {error}") from error
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error on a broken file
        reason = f"no {kind} that can be read" if isinstance(error, UnidentifiedImageError) else _words(error)
        raise UnusablePicture(f"broken: {reason}") from error
    return picture, Facts(kind, mode, size, orientation, "" if container.ended else TRUNCATED)


def _read(file: str | Path | BinaryIO) -> bytes:
    """A file's bytes. A pipe or a device, which might never end, is not opened."""
    try:
        if not isinstance(file, str | os.PathLike):
            data = file.read(MAX_BYTES + 1)
        else:
            if not stat.S_ISREG(os.stat(file).st_mode):
                raise UnusablePicture("not a file")
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnusablePicture("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnusablePicture(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise UnusablePicture(f"more than {MAX_BYTES:,} bytes", too_large=True)
    return data


def _kind(data: bytes) -> str:
    if kind := kind_of(data):
        if kind == "HEIF" and not _can_heif():
            raise UnusablePicture("HEIC, which is read where pillow-heif is installed (pip install pillow-heif)")
        return kind
    name = name_of(data)
    raise UnusablePicture(f"not a picture ({name})" if name else "not a picture")


@functools.cache
def _can_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _check_size(kind: str, container: Container, size: tuple[int, int], max_pixels: int) -> None:
    pixels, limit = size[0] * size[1], max_pixels
    if kind == "JPEG2000":  # whose decoder takes ten times the memory and the time of others
        limit = min(max_pixels, max(max_pixels, MAX_PIXELS) // 4)
    if pixels > limit:
        of = " of JPEG 2000" if limit < max_pixels else ""
        raise UnusablePicture(f"{size[0]}x{size[1]} pixels{of} are more than {limit:,}", too_large=True)
    if container.scans * pixels > MOST_SCANS * MAX_PIXELS:
        raise UnusablePicture(f"{container.scans} scans of {pixels:,} pixels are too many", too_large=True)


# --- whether a JPEG's pixels are whole ------------------------------------------------------------------------------
def _check_end(container: Container, picture: Image.Image) -> None:
    """Reject a JPEG whose data ends before its last pixel, which the decoder would silently fill in.

    That is asked where the end marker is missing, and where the last pixel is the grey that is filled in.
    """
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    grey = set(last if isinstance(last, tuple) else [last]) <= {127, 128}
    if (not container.ended and not container.refined) or ((grey or not container.ended) and not _is_whole(container)):
        raise UnusablePicture("broken: truncated within its pixel data")


def _is_whole(container: Container) -> bool:
    """Whether the pixels stay the same whatever bits follow the data: where one is missing, they are taken for it."""
    body, found = container.data[: container.body], set()
    for bits in (b"", b"\0" * 32, b"\x55" * 32, b"\xaa" * 32, bytes(range(128, 160))):
        # Where a restart marker is missing, no bits are read before it.
        more = b"".join(bits + bytes([0xFF, 0xD0 + number]) for number in range(8)) + bits if bits else b""
        with Image.open(io.BytesIO(body + more + b"\xff\xd9"), formats=["JPEG"]) as picture:
            found.add(hashlib.sha256(picture.tobytes()).digest())
        if len(found) > 1:
            return False
    return True


# --- to RGB ---------------------------------------------------------------------------------------------------------
def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _of_wide_grey(picture)
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _of_wide_grey(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or floating-point, scaled to 8.

    White is the least of 1, 8, 12 and 16 bits' highest value (of floating-point: 1) that no pixel exceeds: many files
    hold fewer bits than their samples have. Of other ranges it is the 99.9th percentile; what is negative makes the
    lowest value black.
    """
    values = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "I" and tags.get(258) == (32,) and tags.get(339, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow knows signed ones alone
    levels = (1.0,) if picture.mode == "F" else (1, 255, 4095, 65535)
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
    top = next((level for level in levels if low == 0 and high <= level), None)
    if top is None:
        top = float(np.percentile(finite[:: 1 + finite.size // 1_000_000], 99.9))
        top = top if top > low else high
    with np.errstate(over="ignore", invalid="ignore"):  # what lies beyond all numbers is white
        scaled = (values.astype(np.float32) - low) * (255 / max(top - low, 1e-30))
    grey = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

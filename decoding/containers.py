"""Containers of picture files: detect the format, remove the metadata, and read the orientation.

A decoder that never sees a file's texts, profiles and EXIF cannot fail on them. Everything that affects the pixels is
kept byte for byte; a file that does not conform to its format is left unchanged, for the decoder to judge.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

# The first bytes of the kinds that we mean. Of what follows an `ftyp` the brand decides.
_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF.{4}WEBP",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "AVIF": rb".{4}ftyp(?:avif|avis|(?:mif1|msf1).{4}(?:.{4}){0,8}?avi[fs])",
    "HEIF": rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
}
# What is often named as a picture, and is never opened.
_OTHERS = {
    "SVG, which is not read": rb"(?:\xef\xbb\xbf)?\s*(?:<[?!][^>]*>\s*)*<svg",
    "PostScript, which is never run": rb"(?:\x04)?%!PS|\xc5\xd0\xd3\xc6",
    "a PDF": rb"%PDF",
    "a Photoshop file, which is not read": rb"8BPS",
    "JPEG XL, which is not read": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a film": rb".{4}ftyp|RIFF.{4}AVI |\x1aE\xdf\xa3",
}
_KINDS = {name: re.compile(start, re.DOTALL) for name, start in _SIGNATURES.items()}
_NAMED = {name: re.compile(start, re.DOTALL | re.IGNORECASE) for name, start in _OTHERS.items()}


class Damaged(Exception):
    """The file is truncated or inconsistent where its pixels are described. The message says how."""


class Container(NamedTuple):
    """A file without its metadata.

    `orientation` is EXIF's, 1 to 8, or 0 where the file says nothing of it; `ended` tells whether the end that the
    format asks for is there. Of a JPEG: `scans` counts its scans, `refined` tells whether these give every bit of every
    coefficient, and `body` is the length of `data` without the end marker.
    """

    data: bytes
    orientation: int = 0
    ended: bool = True
    scans: int = 1
    refined: bool = True
    body: int = 0


def kind_of(data: bytes) -> str:
    """The format of a picture by its first bytes: a key of `_SIGNATURES`, or '' if unknown."""
    return next((kind for kind, start in _KINDS.items() if start.match(data)), "")


def name_of(data: bytes) -> str:
    """The name of an unsupported format, if the first bytes identify it; otherwise ''."""
    return next((name for name, start in _NAMED.items() if start.match(data[:1024])), "")


def without_metadata(kind: str, data: bytes) -> Container:
    """Raises Damaged. Formats whose metadata cannot disturb a decoder are left unchanged."""
    strip = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "WEBP": _webp, "TIFF": _tiff, "AVIF": _avif}.get(kind)
    try:
        return strip(data) if strip else Container(data)
    except (IndexError, struct.error):  # it breaks off within what had to be read
        return Container(data)


# --- orientation ----------------------------------------------------------------------------------------------------
class _Directory(NamedTuple):
    """The first directory of a TIFF (EXIF is one too): byte order, offset of the entries, and the entries."""

    order: str
    start: int
    wide: bool  # BigTIFF
    entries: dict[int, tuple[int, int, bytes]]  # by tag: type, count, the whole entry; of a tag twice the first


def _directory(data: bytes) -> _Directory:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise Damaged("no TIFF header")
    wide = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset = struct.unpack_from(order + ("Q" if wide else "I"), data, 8 if wide else 4)[0]
    count = struct.unpack_from(order + ("Q" if wide else "H"), data, offset)[0]
    start, size = offset + (8 if wide else 2), 20 if wide else 12
    entries = {}
    for place in range(start, min(start + count * size, len(data) - size + 1), size):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if wide else "HHI"), data, place)
        entries.setdefault(tag, (kind, values, data[place : place + size]))
    return _Directory(order, start, wide, entries)


def _value(directory: _Directory, tag: int, default: int) -> int:
    """The value of a tag with a single integer (SHORT or LONG), or the default."""
    kind, count, entry = directory.entries.get(tag, (0, 0, b""))
    if count != 1 or kind not in (3, 4):
        return default
    return struct.unpack_from(directory.order + ("H" if kind == 3 else "I"), entry, 12 if directory.wide else 8)[0]


def _of_exif(exif: bytes) -> int:
    """The orientation in an EXIF block; 0 if there is none that can be read."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    try:
        found = _value(_directory(exif), 0x112, 0)
    except (Damaged, IndexError, struct.error):
        return 0
    return found if 1 <= found <= 8 else 0


def _of_xmp(xmp: bytes) -> int:
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)
    return int(found[1]) if found else 0


# --- JPEG -----------------------------------------------------------------------------------------------------------
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed byte, nor a restart, nor a fill byte


def _jpeg(data: bytes) -> Container:
    """Keep the tables, the frame, the scans and the colour information; drop all else, and what follows the end."""
    kept, exif, xmp, place = [b"\xff\xd8"], b"", b"", 2
    while data[place] == 0xFF and (marker := data[place + 1]) not in (0xD9, 0xDA):
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill bytes, and markers without a segment
            place += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
        if length < 2:
            break
        segment, place = data[place : place + 2 + length], place + 2 + length
        content = segment[4:]
        if marker == 0xE0 and content.startswith(b"JFIF"):
            kept.append(_JFIF)
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif += content[6:]
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp += content
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (
            marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12
        ):
            kept.append(segment)
    scans, end, ended = _scans(data, place)
    orientation = _of_exif(exif) or _of_xmp(xmp)
    body = b"".join(kept) + data[place:end].rstrip(b"\xff")
    return Container(body + b"\xff\xd9", orientation, ended, len(scans), _refined(kept, scans), len(body))


def _scans(data: bytes, place: int) -> tuple[list[bytes], int, bool]:
    """The headers of the scans from `place` on, where the scans end, and whether an end marker follows."""
    headers = []
    while found := _MARKER.search(data, place):
        place, marker = found.start(), data[found.start() + 1]
        if marker == 0xD9:
            return headers, place, True
        if marker == 0xDA or marker in (0xC4, 0xDB, 0xDD, 0xDC, 0xFE) or 0xE0 <= marker <= 0xEF:
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            if marker == 0xDA:
                headers.append(data[place + 4 : place + 2 + length])
            place += 2 + max(length, 2)
        else:  # a marker that has no business here: damage, which the decoder passes over too
            place += 2
    return headers, len(data), False


def _refined(segments: list[bytes], scans: list[bytes]) -> bool:
    """Whether the scans hold all 64 coefficients of every component, to the last bit."""
    frame = next((each for each in segments if 0xC0 <= each[1] <= 0xCF and each[1] not in (0xC4, 0xC8, 0xCC)), b"")
    if len(frame) < 10 or len(frame) < 10 + 3 * frame[9]:
        return False
    progressive = frame[1] in (0xC2, 0xC6, 0xCA, 0xCE)
    missing = {name: set(range(64)) for name in frame[10 : 10 + 3 * frame[9] : 3]}
    for scan in scans:
        if len(scan) < 4 or len(scan) < 4 + 2 * scan[0]:
            continue
        first, last, bits = (scan[-3], scan[-2], scan[-1] & 15) if progressive else (0, 63, 0)
        for name in scan[1 : 1 + 2 * scan[0] : 2]:
            if bits == 0 and name in missing:
                missing[name] -= set(range(first, last + 1))
    return not any(missing.values())


# --- PNG ------------------------------------------------------------------------------------------------------------
def _png(data: bytes) -> Container:
    """Keep the chunks that define the pixels, after checking their checksums; of an animation, the still picture."""
    kept, orientation, place = [data[:8]], 0, 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if not name.isalpha() or (len(content) < length and name != b"IDAT"):
            # Damaged metadata has led astray: the pixels are sought behind it.
            place = data.find(b"IDAT", place + 5) - 4
            if place < 0:
                break
            continue
        whole = data[place + 8 + length : place + 12 + length] == struct.pack(">I", zlib.crc32(name + content))
        if name in (b"IHDR", b"PLTE", b"IDAT") and not whole and place + 12 + length <= len(data):
            raise Damaged(f"the checksum of its {name.decode()} is wrong")
        if name in (b"IHDR", b"PLTE", b"IDAT") or (name == b"tRNS" and whole):
            kept.append(data[place : place + 12 + length] if whole else _chunk(name, content))
        elif name == b"IEND":
            return Container(b"".join(kept) + _chunk(b"IEND", b""), orientation, ended=place + 12 <= len(data))
        elif whole:
            orientation = orientation or _of_chunk(name, content)
        place += 12 + length
    return Container(b"".join(kept) + _chunk(b"IEND", b""), orientation, ended=False)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _of_chunk(name: bytes, content: bytes) -> int:
    """The orientation in PNG's own chunk for EXIF, in ImageMagick's older one, or in XMP."""
    if name == b"eXIf":
        return _of_exif(content)
    if name in (b"zTXt", b"tEXt") and content.startswith(b"Raw profile type exif\0"):
        text = content.partition(b"\0")[2]
        if name == b"zTXt":
            try:
                text = zlib.decompressobj().decompress(text[1:], 1_000_000)
            except zlib.error:
                return 0
        digits = re.sub(rb"\s", b"", b"".join(text.strip().split(b"\n")[2:]))
        return _of_exif(bytes.fromhex(digits.decode())) if re.fullmatch(rb"([0-9a-fA-F]{2})+", digits) else 0
    if name == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0\0"):
        return _of_xmp(content[:1_000_000])
    return 0


# --- GIF ------------------------------------------------------------------------------------------------------------
def _gif(data: bytes) -> Container:
    """Keep the header, the palette and the first frame with its transparency."""
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept = [data[:place]]
    while data[place] == 0x21:  # an extension
        start, place = place, _behind_blocks(data, place + 2)[0]
        if data[start + 1] == 0xF9:
            kept[1:] = [data[start:place]]
    if data[place] != 0x2C:
        raise Damaged("no frame")
    start, flags = place, data[place + 9]
    place, closed = _behind_blocks(data, place + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
    if place > len(data):
        raise Damaged("truncated within its pixel data")
    # Blocks that lack but the last, which is empty, hold all pixels.
    return Container(b"".join(kept) + data[start:place] + b"\0;"[closed:], ended=closed and place < len(data))


def _behind_blocks(data: bytes, place: int) -> tuple[int, bool]:
    """Where the blocks end that begin at `place` (beyond the end of the file where one breaks off), and whether the
    empty one that closes them is there."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return (place + 1, True) if place < len(data) else (place, False)


# --- WebP -----------------------------------------------------------------------------------------------------------
def _webp(data: bytes) -> Container:
    """Keep the picture, or the first frame, with its alpha; a truncated chunk is left unchanged."""
    kept, names, orientation = [], [], 0
    for name, content, whole in _riff(data):
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"VP8X", b"ANIM", b"ANMF") and name not in names:
            if name == b"VP8X" and content:
                content = bytes([content[0] & 0x12]) + content[1:]  # alpha and animation; no profile, EXIF or XMP
            names.append(name)
            if not whole:
                raise Damaged("truncated within its pixel data")
            kept.append(name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2))
        elif name == b"EXIF":
            orientation = _of_exif(content)
        elif name == b"XMP ":
            orientation = orientation or _of_xmp(content)
    body = b"WEBP" + b"".join(kept)
    ended = len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]
    return Container(b"RIFF" + struct.pack("<I", len(body)) + body, orientation, ended)


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """The name of each chunk, its content, and whether it is complete."""
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        content = data[place + 8 : place + 8 + length]
        yield name, content, len(content) == length
        place += 8 + length + length % 2


# --- TIFF -----------------------------------------------------------------------------------------------------------
_OF_PIXELS = {
    *range(256, 260), 262, 263, 266, 273, *range(277, 280), 284, 292, 293, 317, 320,
    *range(322, 326), 332, 338, 339, 347, *range(512, 522), *range(529, 533),
}  # fmt: skip
_LETTERS = {3: "H", 4: "I", 5: "Q", 8: "h", 9: "i", 10: "Q", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_PARTS = 1_000_000  # strips or tiles: more are read by nobody's patience


def _tiff(data: bytes) -> Container:
    """Keep the tags of the first page that define its pixels."""
    directory = _directory(data)
    kept = {tag: entry for tag, entry in sorted(directory.entries.items()) if tag in _OF_PIXELS}
    _check_parts(data, directory)
    size = 8 if directory.wide else 2
    entries = b"".join(entry for _, _, entry in kept.values())
    page = len(kept).to_bytes(size, "little" if directory.order == "<" else "big") + entries
    page += bytes(8 if directory.wide else 4)  # no page follows
    start = directory.start - size
    orientation = _value(directory, 274, 0)
    return Container(data[:start] + page + data[start + len(page) :], orientation if 1 <= orientation <= 8 else 0)


def _check_parts(data: bytes, directory: _Directory) -> None:
    """Reject strips or tiles that lie beyond the end of the file, or are implausibly many or large."""
    there = _OF_PIXELS & directory.entries.keys()
    if not there & {273, 324, 513}:
        raise Damaged("no pixels")
    if any(directory.entries[tag][1] > _MOST_PARTS for tag in there):
        raise Damaged(f"more than {_MOST_PARTS:,} strips or tiles")
    width, height, wide, tall = (_value(directory, tag, 0) for tag in (256, 257, 322, 323))
    if wide * tall > max(2**24, 16 * width * height):
        raise Damaged(f"tiles of {wide}x{tall} pixels")
    compressed = _value(directory, 259, 1) != 1
    values = {tag: _values(data, directory, tag) for tag in there}
    for places, lengths in ((273, 279), (324, 325)):
        starts, sizes = values.get(places, ()), values.get(lengths, ())
        if not compressed or len(sizes) != len(starts):
            sizes = [1] * len(starts)
        if any(start + length > len(data) for start, length in zip(starts, sizes, strict=True)):
            raise Damaged("truncated within its pixel data")


def _values(data: bytes, directory: _Directory, tag: int) -> tuple:
    """The values of a tag, from its entry or from where the entry points."""
    kind, count, entry = directory.entries[tag]
    letter = _LETTERS.get(kind, "B")
    layout, inside = f"{directory.order}{count}{letter}", entry[12 if directory.wide else 8 :]
    if struct.calcsize(layout) <= len(inside):
        return struct.unpack_from(layout, inside)
    place = struct.unpack(directory.order + ("Q" if directory.wide else "I"), inside)[0]
    if place + struct.calcsize(layout) > len(data):
        raise Damaged("truncated within its pixel data")
    return struct.unpack_from(layout, data, place)


# --- AVIF -----------------------------------------------------------------------------------------------------------
_EXIF_ITEM = re.compile(rb"(infe[\2\3]...(?:.{4}|.{6}))Exif", re.DOTALL)


def _avif(data: bytes) -> Container:
    """Hide the EXIF block, which does not apply: AVIF has its own orientation properties."""
    start = data.find(b"meta", 0, 4096)
    if start < 4:
        return Container(data)
    end = min(len(data), start - 4 + struct.unpack_from(">I", data, start - 4)[0])
    meta = _EXIF_ITEM.sub(rb"\1none", data[start:end])
    return Container(data[:start] + meta + data[end:])

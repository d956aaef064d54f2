"""Pictures of every kind that is read, and what a bad disk, a torn line or a malicious stranger may make of them."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image


def originals() -> dict[str, bytes]:
    """A small picture in every kind, and in most of the ways that kinds have of storing one."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:60, :80]
    light = np.stack([x * 3, y * 4, (x + y) * 1.7], 2) + rng.integers(0, 20, (60, 80, 3))
    colour = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    grey, few = colour.convert("L"), colour.quantize(64)
    turned = Image.Exif()
    turned[0x0112], turned[0x010E] = 6, "what it shows"
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = colour.copy()
    clear.putalpha(grey)
    films = {"save_all": True, "append_images": [colour.rotate(180), grey.convert("RGB")]}
    made = {
        "jpeg": (colour, "JPEG", {"quality": 85, "exif": turned}),
        "fine.jpeg": (colour, "JPEG", {"quality": 98, "subsampling": 0}),
        "grey.jpeg": (grey, "JPEG", {}),
        "progressive.jpeg": (colour, "JPEG", {"progressive": True}),
        "restarts.jpeg": (colour, "JPEG", {"restart_marker_blocks": 3}),
        "cmyk.jpeg": (colour.convert("CMYK"), "JPEG", {}),
        "mpo": (colour, "MPO", films),
        "png": (colour, "PNG", {"exif": turned}),
        "palette.png": (few, "PNG", {}),
        "wide.png": (wide, "PNG", {}),
        "clear.png": (clear, "PNG", {}),
        "film.png": (colour, "PNG", films),
        "gif": (few, "GIF", {"comment": b"what it shows"}),
        "film.gif": (colour, "GIF", films),
        "webp": (colour, "WEBP", {"exif": turned}),
        "lossless.webp": (clear, "WEBP", {"lossless": True}),
        "film.webp": (colour, "WEBP", films),
        "bmp": (colour, "BMP", {}),
        "palette.bmp": (few, "BMP", {}),
        "tiff": (colour, "TIFF", {"tiffinfo": {270: "what it shows", 274: 6}}),
        "wide.tiff": (wide, "TIFF", {}),
        "float.tiff": (grey.convert("F"), "TIFF", {}),
        "fax.tiff": (grey.convert("1"), "TIFF", {"compression": "group4"}),
        "lzw.tiff": (colour, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tiff": (colour, "TIFF", {"compression": "tiff_deflate"}),
        "packbits.tiff": (colour, "TIFF", {"compression": "packbits"}),
        "jpeg.tiff": (colour, "TIFF", {"compression": "jpeg"}),
        "avif": (colour, "AVIF", {"exif": turned}),
        "jp2": (colour, "JPEG2000", {}),
        "layers.jp2": (colour, "JPEG2000", {"irreversible": True, "quality_layers": [20, 5], "no_jp2": True}),
    }
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        made["heic"] = (colour, "HEIF", {})
    except ImportError:  # it is read where that is installed
        pass
    found = {}
    for name, (picture, kind, options) in made.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()
    return found


def mutated(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done to it, and what came of it."""
    how = rng.choice(["flip", "flip", "head", "cut", "cut", "swap", "remove", "repeat", "insert", "blank", "marked"])
    data, n = bytearray(content), len(content)
    start, length = rng.randrange(n), rng.choice([1, 2, 4, 16, 64, 256, 1024])
    if how in ("flip", "head"):
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            place = rng.randrange(n if how == "flip" else min(n, 128))
            data[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[rng.choice([start, n - 1 - min(n - 1, rng.randrange(64))]) :]
    elif how == "marked":  # cut, and an end marker of JPEG's behind it
        data[start:] = b"\xff\xd9"
    elif how == "swap":
        other = rng.randrange(n)
        data[start : start + length], data[other : other + length] = (
            data[other : other + length],
            data[start : start + length],
        )
    elif how == "remove":
        del data[start : start + length]
    elif how == "repeat":
        data[start:start] = data[start : start + length]
    elif how == "insert":
        data[start:start] = rng.randbytes(length)
    else:
        data[start : start + length] = bytes(min(length, n - start))
    return how, bytes(data)

"""Every kind of picture file: what is opened, what metadata may say, and what is whole."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from decoding import decoder
from decoding.decoder import UnusablePicture, check, decode, note

GRADIENT = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 48, 3)))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown turned by a quarter
TIFF_TURNED = b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHH", 1, 0x112, 3, 1, 6, 0, 0)


def saved(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def busy(width: int = 96, height: int = 80) -> Image.Image:
    """A picture with something to lose in each of its corners."""
    levels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(*chunks: bytes) -> io.BytesIO:
    """A PNG of the gradient with chunks behind its header."""
    png = saved(GRADIENT, "PNG").getvalue()
    return io.BytesIO(png[:33] + b"".join(chunks) + png[33:])


def with_segment(marker: int, content: bytes) -> io.BytesIO:
    """A JPEG of the gradient with a segment behind its start."""
    jpeg = saved(GRADIENT, "JPEG").getvalue()
    return io.BytesIO(jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:])


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    """EXIF of tags, each with its type, count and value, little-endian."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


def is_gradient(picture: Image.Image) -> bool:
    return picture.mode == "RGB" and np.abs(np.asarray(picture, int) - np.asarray(GRADIENT, int)).mean() < 3


# --- colours --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    picture = decode(saved(GRADIENT.convert(mode), kind))
    assert picture.mode == "RGB" and picture.size == (48, 64)


def test_cmyk_jpegs_and_sixteen_bit_pngs_keep_their_light():
    for file in (
        saved(GRADIENT.convert("CMYK"), "JPEG", quality=95),
        saved(Image.fromarray(np.asarray(GRADIENT.convert("L")).astype(np.uint16) * 257), "PNG"),
    ):
        assert np.abs(np.asarray(decode(file), int) - np.asarray(GRADIENT, int)).mean() < 3


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(saved(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0])
    assert decode(saved(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(saved(Image.new("LA", (4, 4), (0, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    half = decode(saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")).getpixel((0, 0))
    assert half == pytest.approx((255, 127, 127), abs=1)


def test_the_first_frame_of_an_animation_is_taken():
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    assert decode(saved(red, "GIF", save_all=True, append_images=[blue])).getpixel((3, 3)) == (255, 0, 0)


def test_exif_orientation_is_obeyed():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    assert decode(saved(GRADIENT, "JPEG", exif=exif)).size == (64, 48)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(64) * 4 * 257, "PNG"),  # 16 bits
        (np.arange(64) * 65, "PNG"),  # 12 bits in samples of 16
        (np.arange(64) * 4 * 257, "TIFF"),
        (np.arange(64) * 4, "TIFF"),  # 8 bits in samples of 16
    ],
)
def test_grey_of_sixteen_bits_keeps_its_light(values, kind):
    grey = np.tile(values.astype(np.uint16)[:, None], (1, 48))
    assert is_gradient(decode(saved(Image.fromarray(grey), kind)))


@pytest.mark.parametrize("top", [1, 252, 65532, 2**31 - 1])
def test_grey_of_32_bits_is_scaled_by_what_it_holds(top):
    grey = np.tile(np.linspace(0, top, 64).astype(np.int32)[:, None], (1, 48))
    light = np.asarray(decode(saved(Image.fromarray(grey), "TIFF")))
    assert light.min() == 0 and light.max() >= 252 and (np.diff(light[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("top", [1.0, 255.0, 4000.0])
def test_floating_point_grey_is_scaled_by_what_it_holds(top):
    grey = np.tile(np.linspace(0, top, 64, dtype=np.float32)[:, None], (1, 48))
    assert is_gradient(decode(saved(Image.fromarray(grey), "TIFF")))


def test_what_is_no_number_in_floating_point_does_not_darken_the_rest():
    grey = np.full((64, 48), 0.5, np.float32)
    grey[0, 0], grey[0, 1], grey[0, 2] = np.inf, np.nan, -np.inf
    light = np.asarray(decode(saved(Image.fromarray(grey), "TIFF")))[:, :, 0]
    assert light[0, :4].tolist() == [255, 0, 0, 128] and light[5, 5] == 128
    nothing = saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")
    assert np.asarray(decode(nothing)).max() == 0


def test_unsigned_values_of_32_bits_are_not_taken_for_negative():
    grey = np.tile(np.linspace(0, 2**32 - 1, 64).astype(np.uint32)[:, None], (1, 48))
    signed = saved(Image.fromarray(grey.view(np.int32)), "TIFF").getvalue()
    entry = struct.pack("<HHIHH", 339, 3, 1, 2, 0)  # the format of a sample: 2 is signed, 1 unsigned
    assert signed.count(entry) == 1
    assert is_gradient(decode(io.BytesIO(signed.replace(entry, struct.pack("<HHIHH", 339, 3, 1, 1, 0)))))


def test_a_clear_level_of_sixteen_bits_is_laid_on_white():
    grey = np.tile((np.arange(64, dtype=np.uint16) * 1040)[:, None], (1, 48))
    png = saved(Image.fromarray(grey), "PNG").getvalue()
    light = np.asarray(decode(io.BytesIO(png[:33] + chunk(b"tRNS", struct.pack(">H", 0)) + png[33:])))
    assert light[0, 0, 0] == 255 and light[1, 0, 0] < 10


def test_lab_becomes_rgb():
    lab = ImageCms.profileToProfile(
        GRADIENT, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert is_gradient(decode(saved(lab, "TIFF")))


# --- which files are opened -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "HEIF"])
def test_a_kind_is_told_by_its_first_bytes(kind, tmp_path):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif").register_heif_opener()
    options = {"save_all": True, "append_images": [GRADIENT]} if kind == "MPO" else {}
    (tmp_path / "named.txt").write_bytes(saved(GRADIENT, kind, **options).getvalue())
    assert is_gradient(decode(tmp_path / "named.txt"))
    assert check(tmp_path / "named.txt").kind == ("JPEG" if kind == "MPO" else kind)


@pytest.mark.parametrize("name", ["picture.jpg", "picture.eps", "picture"])
@pytest.mark.parametrize(
    "start",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 99, 0, 0, 0, 0),
    ],
)
def test_postscript_runs_no_program(name, start, tmp_path, monkeypatch):
    """A stand-in for Ghostscript says whether it was called."""
    program, called = tmp_path / "bin" / "gs", tmp_path / "called"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho called >> {called}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    (tmp_path / name).write_bytes(start + b"%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UnusablePicture, match="PostScript"):
        decode(tmp_path / name)
    assert not called.exists()


@pytest.mark.parametrize(
    ("picture", "kind"), [("L", "PPM"), ("RGB", "PCX"), ("RGB", "TGA"), ("RGB", "SGI"), ("RGB", "ICO"), ("RGB", "PDF")]
)
def test_no_other_kind_is_opened(picture, kind):
    with pytest.raises(UnusablePicture, match="not a picture"):
        decode(saved(GRADIENT.convert(picture), kind))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html><body>not here</body></html>", "not a picture"),
        (b"\n<!DOCTYPE HTML>\n<p>not here", "not a picture"),
        (b'<?xml version="1.0"?><!-- drawn --><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"BM is how this text begins, which is no picture", "not a picture"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "not a picture"),
        (b"", "not a picture"),
        (saved(GRADIENT, "JPEG").getvalue()[:-200], "broken"),
        (saved(GRADIENT, "PNG").getvalue()[:-60], "broken"),
        (saved(GRADIENT, "PNG").getvalue()[:20], "broken"),
        (saved(Image.new("1", (30_000, 30_000)), "PNG").getvalue(), "30000x30000 pixels"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_the_reason(content, reason):
    with pytest.raises(UnusablePicture, match=reason):
        decode(io.BytesIO(content))


def test_heic_is_named_where_it_cannot_be_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoder._can_heif.cache_clear()
    for brand in (b"heic", b"heix", b"mif1"):
        with pytest.raises(UnusablePicture, match="pillow-heif"):
            decode(io.BytesIO(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + b"heicmif1" + bytes(400)))
    decoder._can_heif.cache_clear()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UnusablePicture, match="no such file"):
        decode(tmp_path / "nothing.jpg")


def test_a_folder_named_as_a_picture_is_refused(tmp_path):
    with pytest.raises(UnusablePicture):
        decode(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    found = []
    thread = threading.Thread(
        target=lambda: found.append(pytest.raises(UnusablePicture, decode, tmp_path / "pipe.jpg"))
    )
    thread.daemon = True
    thread.start()
    thread.join(10)
    assert len(found) == 1 and "not a file" in str(found[0].value)


# --- limits ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_a_picture_of_too_many_pixels_is_refused_by_a_limit_of_ones_own(kind):
    with pytest.raises(UnusablePicture, match="48x64 pixels are more than 3,000") as refused:
        decode(saved(GRADIENT, kind), max_pixels=3000)
    assert refused.value.too_large
    assert decode(saved(GRADIENT, kind), max_pixels=3072).size == (48, 64)


def test_of_jpeg_2000_fewer_pixels_are_decoded():
    jp2 = saved(GRADIENT, "JPEG2000", no_jp2=True).getvalue()
    large = jp2[:8] + struct.pack(">II", 6000, 6000) + jp2[16:]  # as its header then says
    with pytest.raises(UnusablePicture, match="6000x6000 pixels of JPEG 2000 are more than 25,000,000"):
        decode(io.BytesIO(large))


def test_numbers_beyond_all_bounds_are_white():
    grey = np.tile(np.linspace(-3e38, 3e38, 64).astype(np.float32)[:, None], (1, 48))
    light = np.asarray(decode(saved(Image.fromarray(grey), "TIFF")))[:, 0, 0]
    assert light[0] == 0 and light[-1] == 255 and (np.diff(light.astype(int)) >= 0).all()


def test_an_orientation_whose_checksum_is_wrong_is_not_obeyed():
    exif_chunk = chunk(b"eXIf", TIFF_TURNED)
    assert decode(with_chunks(exif_chunk)).size == (64, 48)
    assert decode(with_chunks(exif_chunk[:-1] + b"?")).size == (48, 64)


def test_a_jpeg_of_a_thousand_scans_over_a_large_picture_is_refused():
    jpeg = saved(Image.new("L", (4000, 4000)), "JPEG", progressive=True).getvalue()
    scan = jpeg.rindex(b"\xff\xda")
    with pytest.raises(UnusablePicture, match=r"scans of 16,000,000 pixels") as refused:
        decode(io.BytesIO(jpeg[:-2] + jpeg[scan:-2] * 1000 + jpeg[-2:]))
    assert refused.value.too_large


def test_a_file_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(decoder, "MAX_BYTES", 500)
    with pytest.raises(UnusablePicture, match="more than 500 bytes"):
        decode(saved(busy(), "PNG"))


# --- metadata -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 2_000_000))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"a" * 2_000_000))],
        [chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 1_000_000))] * 70,
        [chunk(b"tEXt", b"k\0" + b"a" * 3_000_000)],
        [chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_000_000)))],
        [chunk(b"eXIf", b"garbage!")],
        [chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")],
        [chunk(b"pHYs", b"")],
        [chunk(b"tEXt", b"key\0value")[:-1] + b"?"],  # a wrong checksum
        [chunk(b"acTL", b"")],
        [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  5\nzz"))],
        [struct.pack(">I", 2**31) + b"tEXt"],  # a length beyond the file
    ],
)
def test_what_a_png_says_beside_its_pixels_does_not_matter(chunks):
    assert is_gradient(decode(with_chunks(*chunks)))


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE1, b"Exif\0\0"),
        (0xE1, b"Exif\0\0garbage!"),
        (0xE1, exif((0x112, 3, 1, 6))[:20]),
        (0xE1, exif((0x112, 3, 1, 0))),
        (0xE1, exif((0x112, 3, 1, 77))),
        (0xE1, exif((0x112, 2, 4, 54))),
        (0xE0, b"JFIF\0"),
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        (0xED, b"Photoshop 3.0\08BIM\3\xed\0\0\0\0\0\1"),
        (0xEE, b"Adobe"),
        (0xFE, bytes(65_533)),
    ],
)
def test_what_a_jpeg_says_beside_its_pixels_does_not_matter(marker, content):
    assert is_gradient(decode(with_segment(marker, content)))


def test_a_gif_of_long_comments_is_read_at_once():
    gif = saved(GRADIENT.convert("L"), "GIF").getvalue()
    behind = 13 + 3 * 2 ** (1 + (gif[10] & 7))
    comment = b"\x21\xfe" + (b"\xff" + bytes(255)) * 200_000 + b"\0"
    assert is_gradient(decode(io.BytesIO(gif[:behind] + comment + gif[behind:])))


def test_a_damaged_description_does_not_hide_the_pixels_of_a_tiff():
    described = saved(GRADIENT, "TIFF", tiffinfo={270: "what it shows, and where", 305: "what wrote it"}).getvalue()
    place = described.index(struct.pack("<HH", 270, 2))
    assert is_gradient(decode(io.BytesIO(described[: place + 8] + b"\xff\xff\xff\x7f" + described[place + 12 :])))


@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_the_orientation_is_obeyed(kind, orientation):
    """Against what Pillow makes of the same file; of an AVIF, which has no EXIF then, against the upright picture."""
    turned = Image.Exif()
    turned[0x0112] = orientation
    picture = GRADIENT.convert("CMYK") if kind == "CMYK" else GRADIENT
    options = {"JPEG": {"quality": 95}, "CMYK": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    found = decode(saved(picture, "JPEG" if kind == "CMYK" else kind, exif=turned, **options))
    upright = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_270,
        8: Image.Transpose.ROTATE_90,
    }
    expected = GRADIENT.transpose(upright[orientation])
    assert found.size == expected.size
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 3


def test_the_orientation_of_heic_is_obeyed_once():
    """A phone writes it as a property, which decides, and as EXIF, which then has no say."""
    pytest.importorskip("pillow_heif", reason="needs pillow-heif").register_heif_opener()
    picture = GRADIENT.copy()
    picture.info["exif"] = TURNED.tobytes()
    assert decode(saved(picture, "HEIF")).size == (64, 48)


@pytest.mark.parametrize(
    "entries",
    [
        [(0x8769, 4, 1, 99_999)],  # a directory beyond the end
        [(0x8825, 4, 1, 12)],
        [(0x11A, 5, 1, 9)],
        [(0x10F, 7, 4, 0xFCFDFEFF), (0x128, 2, 1, 2)],
        [(0x128, 2, 2, 50)],
        [(0x14A, 13, 1, 8)],
        [(0x201, 9, 1, 0x80000000)],
        [(0x10F, 99, 5, 5)],
    ],
)
def test_odd_tags_beside_the_orientation_do_not_matter(entries):
    """Pillow reads these, and cannot write them again without the orientation."""
    assert decode(with_segment(0xE1, exif((0x112, 3, 1, 6), *entries))).size == (64, 48)


@pytest.mark.parametrize(
    "file",
    [
        with_segment(0xE1, b"Exif\0\0Exif\0\0" + TIFF_TURNED),
        with_segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'),
        with_chunks(chunk(b"eXIf", TIFF_TURNED)),
        with_chunks(
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n26\n" + TIFF_TURNED.hex().encode()))
        ),
        with_chunks(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>")),
    ],
)
def test_the_orientation_is_found_where_it_is_written(file):
    assert decode(file).size == (64, 48)


def test_the_exif_of_an_avif_has_no_say():
    avif = saved(GRADIENT, "AVIF", exif=exif((0x10F, 2, 4, 0x41414141)))
    damaged = avif.getvalue().replace(b"II*\0", b"??*\0")
    assert damaged != avif.getvalue() and is_gradient(decode(io.BytesIO(damaged)))


# --- whole or not ---------------------------------------------------------------------------------------------------
JPEGS = {
    "baseline": {"quality": 90},
    "fine": {"quality": 98, "subsampling": 0},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 85, "restart_marker_blocks": 4},
    "grey": {"quality": 85},
    "cmyk": {"quality": 85},
}


def jpeg_of(name: str) -> bytes:
    picture = busy().convert({"grey": "L", "cmyk": "CMYK"}.get(name, "RGB"))
    return saved(picture, "JPEG", **JPEGS[name]).getvalue()


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_is_a_picture_and_says_so(name):
    jpeg = jpeg_of(name)
    assert note(decode(io.BytesIO(jpeg))) == ""
    for cut in (1, 2):
        file = io.BytesIO(jpeg[:-cut])
        picture = decode(file)
        assert np.array_equal(picture, decode(io.BytesIO(jpeg))) and note(picture) == decoder.TRUNCATED
        file.seek(0)
        assert check(file).note == decoder.TRUNCATED


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("marked", [False, True])
def test_a_jpeg_whose_pixel_data_is_cut_is_none(name, marked):
    """Also where an end marker was put behind the cut, but for the last blocks, which nobody can tell then."""
    jpeg = jpeg_of(name)
    scan = jpeg.index(b"\xff\xda") + 60
    cuts = [scan, len(jpeg) // 2, len(jpeg) * 3 // 4] if marked else [*range(3, 40), len(jpeg) // 2]
    for cut in cuts:
        data = jpeg[:cut] + b"\xff\xd9" if marked else jpeg[:-cut]
        if marked and name == "progressive" and cut > scan:
            continue  # its first pass over the picture is whole: a picture, less fine
        for read in (decode, check):
            with pytest.raises(UnusablePicture, match="broken"):
                read(io.BytesIO(data))


def test_a_progressive_jpeg_that_ends_between_two_passes_is_none():
    jpeg = jpeg_of("progressive")
    passes = [place for place in range(len(jpeg)) if jpeg.startswith(b"\xff\xda", place)]
    for place in passes[1:]:
        cut = jpeg.rindex(b"\xff\xc4", 0, place) if b"\xff\xc4" in jpeg[place - 60 : place] else place
        with pytest.raises(UnusablePicture, match="truncated within"):
            decode(io.BytesIO(jpeg[:cut]))


def test_a_picture_with_a_grey_corner_is_whole():
    picture = busy()
    picture.paste((128, 128, 128), (60, 40, 96, 80))
    assert decode(saved(picture, "JPEG", quality=95)).getpixel((95, 79)) == (128, 128, 128)


def test_what_stands_behind_a_jpeg_does_not_matter():
    jpeg = jpeg_of("baseline")
    for more in (bytes(5000), b"PK\x03\x04", jpeg[:300], b"\xff\xd9" * 3):
        picture = decode(io.BytesIO(jpeg + more))
        assert np.array_equal(picture, decode(io.BytesIO(jpeg))) and note(picture) == ""


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_what_is_cut_behind_the_pixels_is_said(kind):
    """A PNG's last chunk, a GIF's last byte, the EXIF that a WebP ends with."""
    options = {"exif": TURNED, "lossless": True} if kind == "WEBP" else {}
    content = saved(busy().quantize(64) if kind == "GIF" else busy(), kind, **options).getvalue()
    picture = decode(io.BytesIO(content[:-1]))
    assert note(picture) == decoder.TRUNCATED
    assert sorted(picture.size) == [80, 96]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "LZW", "AVIF", "JPEG2000"])
def test_a_cut_picture_has_all_its_pixels_or_is_refused(kind):
    picture = busy().quantize(64) if kind == "GIF" else busy()
    content = saved(
        picture, "TIFF" if kind == "LZW" else kind, **({"compression": "tiff_lzw"} if kind == "LZW" else {})
    ).getvalue()
    whole = np.asarray(decode(io.BytesIO(content)))
    for cut in [*range(1, 24), *range(24, len(content), max(1, len(content) // 25))]:
        try:
            found = decode(io.BytesIO(content[:-cut]))
        except UnusablePicture:
            continue
        assert np.array_equal(found, whole), cut


def test_a_flipped_bit_in_the_pixels_of_a_png_is_noticed():
    png = saved(busy(), "PNG").getvalue()
    place = png.index(b"IDAT") + 500
    with pytest.raises(UnusablePicture, match="checksum of its IDAT is wrong"):
        decode(io.BytesIO(png[:place] + bytes([png[place] ^ 1]) + png[place + 1 :]))


def test_the_first_frame_of_an_animation_that_breaks_off_later_counts():
    for kind in ("GIF", "WEBP", "PNG"):
        other = busy().transpose(Image.Transpose.ROTATE_180)
        content = saved(busy(), kind, save_all=True, append_images=[other]).getvalue()
        assert decode(io.BytesIO(content[:-40])).size == (96, 80)


# --- check ----------------------------------------------------------------------------------------------------------
def test_check_tells_what_is_stored(tmp_path):
    path = Path(tmp_path / "a.jpg")
    path.write_bytes(saved(GRADIENT.convert("CMYK"), "JPEG", exif=TURNED).getvalue())
    assert check(path) == ("JPEG", "CMYK", (48, 64), 6, "")
    path.write_bytes(saved(GRADIENT, "JPEG").getvalue())
    assert check(path) == ("JPEG", "RGB", (48, 64), 1, "")
    with pytest.raises(UnusablePicture, match="48x64 pixels"):
        check(path, max_pixels=100)

"""What the downloader makes of answers: each way of failing ends in its status, and what is kept is whole."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import io
import json
import struct
import time
import zlib

import numpy as np
import pytest
from downloads import QUICK, download, files, in_process, ledger, make_folder
from loopback_server import PAGE, first_limited, picture, redirect, serving
from PIL import Image

import utils
from decoding.decoder import decode
from fetching import addresses


def reset_half_way(handler, times):
    handler.reply(picture()[:500], length=len(picture()))
    handler.cut()


def short_body(handler, times):
    handler.reply(picture()[:500], length=len(picture()))
    handler.close_connection = True


def endless(handler, times):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(50_000))


def trickle(handler, times):
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def animation() -> bytes:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    return file.getvalue()


def clear_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(file, "PNG")
    return file.getvalue()


def grey16() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 20), 128 * 256, dtype=np.uint16)).save(file, "PNG")
    return file.getvalue()


def tagged(name: str, mode: str = "RGB") -> bytes:
    """A picture 96×64, red on top, whose EXIF says that it is to be turned by a quarter: 64×96, red on the right."""
    image = Image.new("RGB", (96, 64), "blue")
    image.paste("red", (0, 0, 96, 32))
    exif = Image.Exif()
    exif[0x112] = 6
    file = io.BytesIO()
    image.convert(mode).save(file, name, exif=exif)
    return file.getvalue()


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks after its header."""
    png = picture(kind="PNG")
    packed = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return png[:33] + packed + png[33:]


def wide() -> bytes:
    file = io.BytesIO()
    Image.new("L", (66_000, 2)).save(file, "PNG")
    return file.getvalue()


def encoded(body: bytes, encoding: str, length: bool = True):
    """`body` as it is, declared to be in this encoding."""

    def answer(handler, times):
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nConnection: close\r\n"
        head += f"Content-Length: {len(body)}\r\n" if length else ""
        handler.raw(head.encode() + b"\r\n" + body)

    return answer


def raw(status: str, *headers: bytes | str, body: bytes = b""):
    lines = [f"HTTP/1.1 {status}".encode(), *(h if isinstance(h, bytes) else h.encode() for h in headers)]
    return lambda handler, times: handler.raw(b"\r\n".join([*lines, b"Connection: close", b"", body]))


BMP = picture(kind="BMP", size=(200, 150))
raw_deflate = zlib.compressobj(wbits=-15)
RAW_DEFLATED = raw_deflate.compress(BMP) + raw_deflate.flush()
BUSY = b"<html><title>Imgur</title><body><h1>Imgur is over capacity!</h1> Please try again later.</body></html>"
# The same forms for what hosts are known to send.
MORE_ANSWERS = {
    # lengths before and after decoding
    "gzip_bmp": (encoded(gzip.compress(BMP), "gzip"), "ok", 1),
    "gzip_bmp_no_length": (encoded(gzip.compress(BMP), "gzip", length=False), "ok", 1),
    "gzip_jpeg": (encoded(gzip.compress(picture(size=(200, 200))), "x-gzip"), "ok", 1),
    "gzip_in_parts": (encoded(gzip.compress(BMP[:9000]) + gzip.compress(BMP[9000:]), "gzip"), "ok", 1),
    "gzip_twice": (encoded(gzip.compress(gzip.compress(BMP)), "gzip, gzip"), "ok", 1),
    "deflate_bmp": (encoded(zlib.compress(BMP), "deflate"), "ok", 1),
    "deflate_without_header": (encoded(RAW_DEFLATED, "deflate"), "ok", 1),
    "gzip_claimed": (encoded(picture(), "gzip"), "ok", 1),
    "deflate_claimed": (encoded(picture(), "deflate"), "ok", 1),
    "encoding_unknown": (encoded(picture(), "utf-8"), "ok", 1),
    "brotli_not_asked_for": (encoded(b"\x0b\x02\x80" + bytes(99), "br"), "undecodable", 1),
    "gzip_cut": (encoded(gzip.compress(BMP)[:-500], "gzip"), "transient", 3),
    "gzip_damaged": (encoded(gzip.compress(BMP)[:-8] + bytes(8), "gzip"), "transient", 3),
    "gzip_of_too_much": (encoded(gzip.compress(bytes(10**8)), "gzip"), "too_large", 1),
    "lengths_that_differ": (raw("200 OK", f"Content-Length: {len(picture())}", "Content-Length: 5"), "transient", 3),
    "length_of_half": (raw("200 OK", f"Content-Length: {len(picture()) // 2}", body=picture()), "undecodable", 1),
    "chunk_broken": (raw("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n" + picture()), "transient", 3),
    "cut_without_length": (raw("200 OK", body=picture(size=(200, 200))[:-3000]), "transient", 3),
    "cut_png_without_length": (raw("200 OK", body=picture(kind="PNG", size=(200, 200))[:-300]), "transient", 3),
    "whole_without_length": (raw("200 OK", body=picture()), "ok", 1),
    "length_of_words": (raw("200 OK", "Content-Length: inf", body=picture()), "ok", 1),
    "chunk_of_negative_length": (
        raw("200 OK", "Transfer-Encoding: chunked", body=b"-5\r\n" + picture()),
        "transient",
        3,
    ),
    "chunk_of_endless_length": (
        raw("200 OK", "Transfer-Encoding: chunked", body=b"f" * 30 + b"\r\n" + picture()),
        "transient",
        3,
    ),
    "hundreds_of_encodings": (encoded(picture(), ", ".join(["gzip"] * 500)), "ok", 1),
    # redirects
    "redirect_utf8": (raw("302 Found", "Location: /ü.jpg"), "ok", 1),
    "redirect_latin1": (raw("302 Found", "Location: /ü.jpg".encode("latin-1")), "ok", 1),
    "redirect_twice_said": (raw("302 Found", "Location: /fine.jpg", "Location: /fine.jpg"), "ok", 1),
    "redirect_300": (raw("300 Multiple Choices", "Location: /fine.jpg"), "ok", 1),
    "redirect_nowhere": (raw("302 Found", "Location: "), "gone", 1),
    "redirect_to_removed_with_query": (redirect("/removed.png?1"), "placeholder", 1),
    # refusals that pass, and such that do not
    "busy": (raw("403 Forbidden", body=BUSY), "transient", 3),
    "busy_as_success": (raw("200 OK", body=BUSY), "transient", 3),
    "forbidden_for_now": (raw("403 Forbidden", "Retry-After: 0"), "transient", 3),
    "challenge": (raw("403 Forbidden", "cf-mitigated: challenge", body=b"<html>..</html>"), "transient", 3),
    "quota_spent": (raw("403 Forbidden", "X-Ratelimit-Remaining: 0", "X-Ratelimit-Reset: 0"), "rate_limited", 3),
    "too_many": (raw("400 Bad", body=b'{"error": "Too Many Requests"}'), "rate_limited", 3),
    "calm": (raw("420 Enhance Your Calm"), "rate_limited", 3),
    "accepted_only": (raw("202 Accepted"), "transient", 3),
    "a_part_only": (raw("206 Partial Content", body=picture()), "transient", 3),
    "no_content": (raw("204 No Content"), "gone", 1),
    "http401": (raw("401 Unauthorized"), "gone", 1),
    "http404_chatty": (raw("404 Not Found", body=b"<html>Not here. Try again later.</html>"), "gone", 1),
    "forbidden_long_page": (raw("403 Forbidden", body=b"<html>" + b"Buy now! " * 900 + b"Try again</html>"), "gone", 1),
    "not_modified": (raw("304 Not Modified"), "transient", 3),
    "range_not_asked_for": (raw("416 Range Not Satisfiable"), "transient", 3),
    "early_hints": (raw("103 Early Hints"), "transient", 3),
    "wait_below_zero": (raw("503 Busy", "Retry-After: -5"), "transient", 3),
    "wait_without_end": (raw("503 Busy", "Retry-After: 1e400"), "transient", 1),
    "wait_of_thousands_of_digits": (raw("429 Busy", "Retry-After: " + "9" * 5000), "rate_limited", 1),
    "wait_until_a_day_that_is_none": (raw("503 Busy", "Retry-After: Thu, 32 Foo 2020"), "transient", 3),
    # what is hardly HTTP
    "cookies": (raw("200 OK", *["Set-Cookie: " + "a" * 4000 + "=b"] * 8, body=picture()), "ok", 1),
    "old_version": (lambda handler, times: handler.raw(b"HTTP/1.0 200 OK\r\n\r\n" + picture()), "ok", 1),
    "newlines_alone": (lambda handler, times: handler.raw(b"HTTP/1.1 200 OK\n\n" + picture()), "ok", 1),
    "another_protocol": (lambda handler, times: handler.raw(b"SSH-2.0-OpenSSH_9\r\n"), "transient", 3),
    "many_headers": (raw("200 OK", *(f"X-{n}: 1" for n in range(300)), body=picture()), "transient", 3),
    "long_header": (raw("200 OK", "X: " + "a" * 100_000, body=picture()), "transient", 3),
    "no_status": (lambda handler, times: handler.raw(picture()), "transient", 3),
    "status_of_words": (raw("abc def"), "transient", 3),
    "nothing": (lambda handler, times: handler.raw(b""), "transient", 3),
    # metadata does not decide over pixels
    "png_text_2mb": (png_with((b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 2_000_000))), "ok", 1),
    "png_exif_garbage": (png_with((b"eXIf", b"garbage!")), "ok", 1),
    "jpeg_without_end": (picture()[:-2], "ok", 1),
    "turned_jpeg": (tagged("JPEG"), "ok", 1),
    "turned_webp": (tagged("WEBP"), "ok", 1),
    "turned_png": (tagged("PNG"), "ok", 1),
    "turned_cmyk": (tagged("JPEG", "CMYK"), "ok", 1),
    "avif": (picture(kind="AVIF"), "ok", 1),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "undecodable", 1),
    "too_wide_for_jpeg": (wide(), "too_large", 1),
}
# img_id: what its address answers, the status it is to end in, how often the address may be asked
ANSWERS = {
    "fine": (picture(), "ok", 1),
    "http404": (lambda handler, times: handler.reply(b"", 404), "gone", 1),
    "http410": (lambda handler, times: handler.reply(b"", 410), "gone", 1),
    "http403": (lambda handler, times: handler.reply(b"", 403), "gone", 1),
    "http500": (lambda handler, times: handler.reply(b"", 500), "transient", 3),
    "http500_once": (lambda handler, times: handler.reply(picture(), 500 if times == 0 else 200), "ok", 2),
    "reset_half_way": (reset_half_way, "transient", 3),
    "reset_once": (
        lambda handler, times: handler.reply(picture()) if times else reset_half_way(handler, times),
        "ok",
        2,
    ),
    "short_body": (short_body, "transient", 3),
    "endless": (endless, "too_large", 1),
    "trickle": (trickle, "transient", 3),
    "too_long": (lambda handler, times: handler.reply(picture(), length=10**9), "too_large", 1),
    "zero_bytes": (b"", "undecodable", 1),
    "page": (PAGE, "placeholder", 1),
    "noise": (bytes(range(256)) * 8, "undecodable", 1),
    "redirect_loop": (redirect("/redirect_loop.jpg"), "gone", 6),
    "redirect": (redirect("/fine.jpg", 301), "ok", 1),
    "redirect_to_ftp": (redirect("ftp://127.0.0.1/a.jpg"), "gone", 1),
    "redirect_to_file": (redirect("file:///etc/hostname"), "gone", 1),
    "redirect_to_removed": (redirect("/removed.png"), "placeholder", 1),
    "png_named_jpg": (picture(kind="PNG"), "ok", 1),
    "palette_png": (picture(kind="PNG", mode="P"), "ok", 1),
    "clear_png": (clear_png(), "ok", 1),
    "grey16_png": (grey16(), "ok", 1),
    "cmyk_jpeg": (picture(mode="CMYK"), "ok", 1),
    "grey_jpeg": (picture(mode="L"), "ok", 1),
    "animation": (animation(), "ok", 1),
    "truncated": (picture(size=(200, 200))[:-3000], "undecodable", 1),
    "truncated_png": (picture(kind="PNG")[:-200], "undecodable", 1),
    "bomb": (bomb(), "too_large", 1),
    "never_answers": (lambda handler, times: time.sleep(8), "transient", 3),
    "limited_seconds": (first_limited(1, lambda: "1"), "ok", 2),
    "limited_date": (first_limited(1, lambda: email.utils.formatdate(time.time() + 2, usegmt=True)), "ok", 2),
    "limited": (first_limited(99, lambda: "0"), "rate_limited", 3),
    "limited_silently": (first_limited(1, lambda: "soon"), "ok", 2),
    "limited_for_long": (first_limited(99, lambda: "9999"), "rate_limited", 1),
}
ANSWERS |= MORE_ANSWERS
LINKS = {
    "ftp_link": ("ftp://127.0.0.1/a.jpg", "gone"),
    "file_link": ("file:///etc/hostname", "gone"),
    "no_link": ("", "gone"),
    "no_address": ("http://[", "gone"),
    "refused": ("http://127.0.0.1:9/a.jpg", "transient"),
}
HASHES = {
    "hash_right": (hashlib.sha256(picture()).hexdigest(), "ok"),
    "hash_upper": (hashlib.sha256(picture()).hexdigest().upper(), "ok"),
    "hash_wrong": ("0" * 64, "changed"),
}


@pytest.fixture(scope="module")
def every_case(tmp_path_factory):
    """One run over all cases: its folder, result, and how often each address was asked."""
    with serving(len(ANSWERS)) as servers:  # each a host of its own: a pause or silence is the host's
        rows = []
        for server, (name, (answer, _, _)) in zip(servers, ANSWERS.items(), strict=True):
            rows.append((name, server.serves(f"/{name}.jpg", answer), "", ""))
            server.routes.setdefault("/fine.jpg", lambda handler, times: handler.reply(picture()))
            server.serves("/%C3%BC.jpg", picture())
        rows += [(name, link, "", "") for name, (link, _) in LINKS.items()]
        rows += [(name, f"{servers[0].url}/fine.jpg?{name}", "", expected) for name, (expected, _) in HASHES.items()]
        for name in HASHES:
            servers[0].serves(f"/fine.jpg?{name}", picture())
        folder = make_folder(tmp_path_factory.mktemp("cases"), rows)
        result = download(folder, *QUICK, "--max_bytes", 300_000, "--workers", 32, "--max_pixels", 4_000_000)
        asked = {name: s.counts[f"/{name}.jpg"] for s, name in zip(servers, ANSWERS, strict=True)}
    return folder, result, asked


def test_the_exit_status_says_that_a_rerun_would_help(every_case):
    folder, result, _ = every_case
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert set(ledger(folder)) == {*ANSWERS, *LINKS, *HASHES}


@pytest.mark.parametrize("name", [*ANSWERS, *LINKS, *HASHES])
def test_each_case_ends_in_its_status(every_case, name):
    folder, result, asked = every_case
    row = ledger(folder)[name]
    assert row["status"] == (ANSWERS | LINKS | HASHES)[name][1], row
    assert asked.get(name) == (ANSWERS[name][2] if name in ANSWERS else None)
    assert (row["status"] in ("ok", "changed")) == (folder / "images" / f"{name}.jpg").exists()
    if row["status"] not in ("ok", "changed"):
        assert row["error"] and not row["sha256"]


def test_nothing_that_is_not_whole_is_left(every_case):
    folder, _, _ = every_case
    for path in (folder / "images").iterdir():
        if path.name == "ledger.csv":
            continue
        row = ledger(folder)[path.stem]
        assert path.suffix == ".jpg" and utils.sha256(path) == row["sha256"]
        with Image.open(path) as image:
            image.load()
            assert (image.format, str(image.width), str(image.height)) == ("JPEG", row["width"], row["height"])
            assert image.mode in ("RGB", "L") and str(path.stat().st_size) == row["bytes"]


def test_jpegs_are_kept_byte_for_byte_and_others_become_jpeg(every_case):
    images = every_case[0] / "images"
    assert (images / "fine.jpg").read_bytes() == picture()
    assert (images / "grey_jpeg.jpg").read_bytes() == picture(mode="L")
    middle = {
        name: Image.open(images / f"{name}.jpg").getpixel((10, 10)) for name in ("animation", "clear_png", "grey16_png")
    }
    assert np.allclose(middle["animation"], (255, 0, 0), atol=4)  # the first frame
    assert np.allclose(middle["clear_png"], 255, atol=2)
    assert np.allclose(middle["grey16_png"], 128, atol=2)
    sent = np.asarray(Image.open(io.BytesIO(picture())), dtype=float)
    kept = np.asarray(Image.open(images / "png_named_jpg.jpg"), dtype=float)
    assert kept.shape == sent.shape and np.abs(kept - sent).mean() < 30


def test_pictures_are_kept_upright_and_a_lacking_end_is_said_and_mended(every_case):
    images, rows = every_case[0] / "images", ledger(every_case[0])
    for name in ("turned_jpeg", "turned_webp", "turned_png", "turned_cmyk"):
        upright = decode(images / f"{name}.jpg")
        left, right = upright.getpixel((5, 48)), upright.getpixel((58, 48))
        assert upright.size == (64, 96) and left[2] > 150 > left[0] and right[0] > 150 > right[2], name
    assert rows["jpeg_without_end"]["error"] == "truncated at its end; its pixels are whole"
    assert (images / "jpeg_without_end.jpg").read_bytes() == picture()
    assert (images / "gzip_jpeg.jpg").read_bytes() == picture(size=(200, 200))


def test_the_ledger_says_what_answered(every_case):
    rows = ledger(every_case[0])
    assert rows["redirect"]["url"].endswith("/fine.jpg") and rows["redirect"]["http_status"] == "200"
    assert rows["http410"]["http_status"] == "410" and rows["http410"]["source"] == "link"
    assert rows["short_body"]["error"] == "body shorter than its length"
    assert all(row["time"].endswith("+00:00") for row in rows.values())


def test_the_table_and_survivors_count_every_picture(every_case):
    folder, result, _ = every_case
    survivors = json.loads((folder / "survivors.json").read_text())
    rows = ledger(folder)
    here = sorted(name for name, row in rows.items() if row["status"] in ("ok", "changed"))
    assert survivors["expected"] == len(rows) and survivors["survivors"] == len(here)
    assert survivors["sha256"] == hashlib.sha256("".join(f"{name}\n" for name in here).encode()).hexdigest()
    assert sum(survivors["statuses"].values()) == len(rows) and survivors["statuses"]["changed"] == 1
    table = next(line for line in result.stdout.splitlines() if line.startswith("all "))
    assert table.split()[-1] == str(len(rows))


def test_imgurs_placeholder_is_known_by_its_md5(tmp_path, monkeypatch):
    grey = picture(kind="PNG", size=(16, 8))
    monkeypatch.setattr(addresses, "PLACEHOLDERS", {hashlib.md5(grey).hexdigest()})
    with serving() as [server]:
        folder = make_folder(tmp_path, [("1", server.serves("/a.jpg", grey), "", "")])
        assert in_process(monkeypatch, folder) == 0
    assert ledger(folder)["1"]["status"] == "placeholder" and not files(folder)

"""Five hundred mutated answers: none ends the run, hangs, is lost, or makes half a picture ok."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import re
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
from downloads import QUICK, download, ledger, make_folder
from loopback_server import picture, serving
from PIL import Image

import utils
from decoding.decoder import decode

SEEDS = range(*map(int, os.environ.get("FUZZ_SEEDS", "0 10").split()))
KINDS = "JPEG PNG GIF WEBP BMP TIFF AVIF JPEG2000".split()
HEADERS = {
    "Retry-After": ["1", "-1", "nan", "1e999", "Fri, 31 Dec 99999999999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00"],
    "X-Ratelimit-Reset": ["inf", "x", "0"],
    "X-Ratelimit-Remaining": ["0", "many"],
    "Location": ["/fine.jpg", "", "//", "http://[", "/\xfc", "/\xc3\xbc", "javascript:x", "?" + "a" * 70_000],
    "Content-Encoding": ["gzip", "deflate", "br", "identity, gzip, deflate", "x" * 500, ""],
    "Content-Length": ["0", "-1", "abc", "5", "999999999999", "1,1", "1, 2", "9" * 5000],
    "Transfer-Encoding": ["chunked", "gzip", "chunked, chunked"],
    "Content-Type": ["text/html", "\xff\xfe", ""],
    "X": ["a" * 70_000, "\r\n folded", "\0", ""],
}  # fmt: skip
STATUSES = [
    b"200",
    b"203",
    b"204",
    b"206",
    b"301",
    b"302",
    b"304",
    b"403",
    b"404",
    b"429",
    b"500",
    b"503",
    b"99",
    b"1000",
]


def http(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] * length), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    parts = [body[place : place + 700] for place in range(0, len(body), 700)]
    text = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return http(text, "Transfer-Encoding: chunked", length=False)


def whole_answers(url: str) -> list[tuple[str, bytes]]:
    """(what it answers to, an answer as a sound host would send it)."""
    pictures = [picture(seed, kind) for seed, kind in enumerate(KINDS)]
    answers = [("link", http(body)) for body in pictures]
    answers += [("link", http(gzip.compress(body), "Content-Encoding: gzip")) for body in pictures[:4]]
    answers += [("link", http(zlib.compress(pictures[4]), "Content-Encoding: deflate"))]
    answers += [("link", chunked(body)) for body in pictures[:3]]
    answers += [("link", http(b"", "Location: /fine.jpg", status="302 Found"))]
    answers += [("link", http(b"<html>over capacity, try again</html>", status="403 Forbidden"))]
    answers += [("link", http(b"", "Retry-After: 1", status="429 Too Many Requests"))]
    post = {"url": f"{url}/fine.jpg", "is_self": False, "gallery_data": {"items": [{"media_id": "a"}]}}
    post |= {"media_metadata": {"a": {"s": {"u": f"{url}/fine.jpg"}}}}
    answers += [("post", http(json.dumps([{"data": {"children": [{"data": post}]}}]).encode()))] * 3
    album = {"data": {"images": [{"hash": "abcde", "ext": ".jpg"}]}, "success": True}
    return [*answers, *[("album", http(json.dumps(album).encode()))] * 2]


def mutate(rng: random.Random, answer: bytes) -> tuple[list[bytes | float], bool]:
    """The answer in parts, between which are seconds to wait, and whether a body's end is cut off."""
    how = rng.choice("flip flip cut cut delete double insert swap header header status stall trickle none".split())
    head, _, body = answer.partition(b"\r\n\r\n")
    place, other = sorted(rng.randrange(len(answer) + 1) for _ in range(2))
    if how == "flip":
        changed = bytearray(answer)
        start = 0 if rng.random() < 0.3 else len(answer) - len(body)
        for _ in range(rng.choice([1, 1, 3, 30])):
            changed[rng.randrange(min(start, len(answer) - 1), len(answer))] ^= 1 << rng.randrange(8)
        return [bytes(changed)], False
    if how == "cut":
        return [answer[:place]], place < len(answer) and b" 200 " in answer[:20]
    if how == "delete":
        return [answer[:place] + answer[min(other, place + 50) :]], False
    if how == "double":
        return [answer[:other] + answer[place:]], False
    if how == "insert":
        return [answer[:place] + rng.randbytes(rng.choice([1, 10, 5000])) + answer[place:]], False
    if how == "swap":
        return [answer[:place] + answer[other:] + answer[place:other]], False
    if how == "header":
        name = rng.choice(list(HEADERS))
        return [head + f"\r\n{name}: {rng.choice(HEADERS[name])}\r\n\r\n".encode("latin-1", "replace") + body], False
    if how == "status":
        return [head.replace(head[9:12], rng.choice(STATUSES), 1) + b"\r\n\r\n" + body], False
    if how == "stall":
        return [answer[:place], 2.5, answer[place:]], False
    if how == "trickle":
        return [part for byte in answer[:40] for part in (bytes([byte]), 0.1)] + [answer[40:]], False
    return [answer], False


def sender(parts: list[bytes | float]):
    def answer(handler, times):
        for part in parts:
            if isinstance(part, float):
                handler.wfile.flush()
                time.sleep(part)
            else:
                handler.wfile.write(part)
        handler.close_connection = True

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fifty_mutated_answers(tmp_path, seed):
    rng = random.Random(seed)
    with serving(12) as servers:
        reddit, imgur, *others = servers
        for server in servers:
            server.serves("/fine.jpg", picture())
        imgur.serves("/abcde.jpg", picture())
        rows, cut = [], {}
        for number in range(50):
            server = others[number % len(others)]
            kind, answer = rng.choice(whole_answers(server.url))
            parts, cut[str(number)] = mutate(rng, answer)
            if kind == "link":
                rows.append((number, server.serves(f"/{number}", sender(parts)), "", ""))
            elif kind == "post":
                reddit.serves(f"/comments/p{number}.json?limit=1&raw_json=1", sender(parts))
                rows.append((number, "", f"p{number}", ""))
            else:
                imgur.serves(f"/ajaxalbums/getimages/album{number}/hit.json?all=true", sender(parts))
                rows.append((number, f"https://imgur.com/a/album{number}", "", ""))
        folder = make_folder(tmp_path, rows)
        flags = ["--workers", 50, "--per_host", 50, "--retries", 1, "--max_wait", 2, "--connect_timeout", 1,
                 "--max_seconds", 1]  # fmt: skip
        places = ["--reddit_url", reddit.url, "--imgur_url", imgur.url, "--album_url", imgur.url]
        start = time.monotonic()
        result = download(folder, *QUICK, *flags, *places)
        seconds = time.monotonic() - start
    check_account(folder, result, 50, cut)
    counts = Counter(row["status"] for row in ledger(folder).values())
    print(f"seed {seed}: {seconds:.1f} s, {dict(counts)}")
    assert seconds < 20  # every address may be tried twice


def check_account(folder: Path, result, number: int, cut: dict[str, bool]) -> None:
    """Every input has its row, in the counts too; what is ok is whole, and nothing else is there."""
    assert result.returncode in (0, 1) and "Traceback" not in result.stderr, result.stderr
    rows = ledger(folder)
    assert set(rows) == {str(n) for n in range(number)}
    survivors = utils.read_json(folder / "survivors.json")
    kept = {name for name, row in rows.items() if row["status"] in ("ok", "changed")}
    assert survivors["expected"] == number and survivors["survivors"] == len(kept)
    assert sum(survivors["statuses"].values()) == number and survivors["statuses"]["not_tried"] == 0
    assert re.search(rf"^all .* {number}$", result.stdout, re.MULTILINE)
    assert {path.name for path in (folder / "images").iterdir()} == {"ledger.csv", *(f"{name}.jpg" for name in kept)}
    again = [row for row in rows.values() if row["status"] in ("transient", "rate_limited")]
    assert result.returncode == bool(again)
    for name in kept:
        path = folder / "images" / f"{name}.jpg"
        assert utils.sha256(path) == rows[name]["sha256"] and not cut[name]
        with Image.open(path) as image:
            image.load()
            assert (str(image.width), str(image.height)) == (rows[name]["width"], rows[name]["height"])
        decode(path)
    with open(folder / "images" / "ledger.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == number + 1

"""The sample community as a Reddit dump: with the quirks of real dumps, copies of pictures, and the truth about both.

Written by `sample_data.py --as_dump` into the folder dump/:
  RS_1.zst, RS_2.ndjson, top.json   one post per line, compressed, or with Windows newlines and a torn last line; a
             listing. Together they are one stream for submissions.py.
  pictures/  the files to serve: i.redd.it/NAME.jpg, i.imgur.com/NAME.jpg, files/NAME.jpg (at --base_url).
  truth_addresses.csv   address,picture,copy,served: which picture of the sample an address shows, and how it was made:
             original, re-encoded, half size, mirrored, cropped (5 to 10 % of width and height), captioned (a bar with
             words above). A few originals are no longer served.
  truth_virality.csv    picture,submissions,max_a_score,v_score, computed here from the definition, copies counted as
             one image, over all communities, by the hour in UTC.
  truth.json            what submissions.py must count: lines, posts, rows, and how many were left out for which reason.

The quirks: numbers as strings and floats, `&amp;` in addresses and titles, null scores, previews with signatures,
Imgur pages, galleries, crossposts, the same post retrieved twice (with other votes, or removed in between), blank, torn
and foreign lines, a line of a megabyte, bytes that are not UTF-8; text posts, videos, removed posts, posts over 18,
advertisements, comments.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from reading.tables import zstd
from utils import write_csv, write_json, written_whole

COPIES = ("re-encoded", "half size", "mirrored", "cropped", "captioned")
COPIED = 1 / 4  # of the pictures have a copy under another address
GONE = 0.02  # of the others are not served any more
DAY = 86_400  # seconds
_LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")
_WORDS = "when you find it again nobody expected this and then there were two of them".split()


@dataclass
class Upload:
    """A picture where somebody put it."""

    host: str  # i.redd.it, i.imgur.com or files
    name: str
    picture: int
    copy: str
    base_url: str
    served: bool = True

    @property
    def address(self) -> str:
        base = self.base_url if self.host == "files" else f"https://{self.host}"
        return f"{base}/{self.name}.jpg"

    def link(self, rng: np.random.Generator) -> str:
        """One of the forms in which people and dumps write the address."""
        sign = "".join(rng.choice(_LETTERS, 20))
        forms = {
            "i.redd.it": [
                self.address,
                f"https://preview.redd.it/{self.name}.jpg?width=640&amp;crop=smart&amp;auto=webp&amp;s={sign}",
                f"https://preview.redd.it/words-of-the-title-v0-{self.name}.jpg?width=320&amp;s={sign}",
                f"https://www.reddit.com/media?url={quote(self.address, safe='')}",
            ],
            "i.imgur.com": [
                self.address,
                f"http://imgur.com/{self.name}",
                f"https://i.imgur.com/{self.name}.jpg?1",
                f"https://i.imgur.com/{self.name}h.jpg",
                f"https://m.imgur.com/r/pics/{self.name}",
                f"https://imgur.com/words-of-the-title-{self.name}",
            ],
            "files": [self.address, f"{self.address}#top"],
        }[self.host]
        return str(forms[0] if rng.random() < 0.5 else rng.choice(forms))


@dataclass
class Dump:
    """Posts in the order of their lines, and what must become of them."""

    lines: list[bytes] = field(default_factory=list)
    again: list[dict[str, Any]] = field(default_factory=list)  # later retrievals, for the listing
    rows: list[tuple[int, int, str, int]] = field(default_factory=list)  # picture, unixtime, subreddit, score
    fates: Counter[str] = field(default_factory=Counter)  # of posts: kept, or why left out
    times_again: int = 0
    malformed: int = 0
    blank: int = 0


def write_dump(
    folder: Path, pictures: dict[int, Path], submissions: list[list[str]], seed: int, base_url: str
) -> dict[str, Any]:
    """Write the dump of a community: the pictures' files by image_id, its submissions in SNAP's columns. Returns the
    truth of truth.json."""
    rng = np.random.default_rng(seed)
    uploads = upload_pictures(folder / "pictures", pictures, submissions, rng, base_url)
    dump = Dump()
    by_time = sorted(submissions, key=lambda line: int(line[1]))
    for number, line in enumerate(by_time):
        add_submission(dump, rng, number, line, uploads)
        if rng.random() < 0.25:
            add_left_out(dump, rng, f"n{number:x}", int(line[1]), line[7])
    files = write_files(folder, dump, rng)
    table = pd.DataFrame([(u.address, u.picture, u.copy, int(u.served)) for each in uploads.values() for u in each])
    write_csv(folder / "truth_addresses.csv", table.set_axis(["address", "picture", "copy", "served"], axis=1))
    write_csv(folder / "truth_virality.csv", true_virality(dump.rows))
    kept = dump.fates.pop("kept")
    truth = {
        "files": files,
        "lines": {"read": sum(files.values()), "blank": dump.blank, "malformed": dump.malformed},
        "posts": kept + dump.fates.total() + dump.times_again,
        "kept": kept,
        "rows": len(dump.rows),
        "left_out": {"the same post again": dump.times_again} | dict(dump.fates),
    }
    write_json(folder / "truth.json", truth)
    return truth


# --- pictures -------------------------------------------------------------------------------------------------------
def upload_pictures(
    folder: Path, pictures: dict[int, Path], submissions: list[list[str]], rng: np.random.Generator, base_url: str
) -> dict[int, list[Upload]]:
    """Put each picture somewhere, a quarter of those that were submitted again also as a copy. By image_id: the
    original first, then the copy."""
    times = Counter(int(line[0]) for line in submissions)
    again = [image for image in pictures if times[image] > 1]
    copied = rng.permutation(again)[: round(len(pictures) * COPIED)].tolist()
    kinds = {image: COPIES[place % len(COPIES)] for place, image in enumerate(copied)}
    alone = [image for image in pictures if image not in kinds]
    gone = set(rng.permutation(alone)[: max(1, round(len(alone) * GONE))].tolist())
    uploads = {}
    for image, path in pictures.items():
        uploads[image] = [_upload(rng, image, "original", base_url)]
        uploads[image][0].served = image not in gone
        if image in kinds:
            uploads[image].append(_upload(rng, image, kinds[image], base_url))
        for upload in uploads[image]:
            if upload.served:
                data = path.read_bytes() if upload.copy == "original" else copy_of(path, upload.copy, rng)
                with written_whole(folder / upload.host / f"{upload.name}.jpg") as beside:
                    beside.write_bytes(data)
    return uploads


def _upload(rng: np.random.Generator, image: int, copy: str, base_url: str) -> Upload:
    host = str(rng.choice(["i.redd.it", "i.imgur.com", "files"], p=[0.5, 0.4, 0.1]))
    letters = 7 if host == "i.imgur.com" else 13
    return Upload(host, "".join(rng.choice(_LETTERS, letters)), image, copy, base_url.rstrip("/"))


def copy_of(path: Path, kind: str, rng: np.random.Generator) -> bytes:
    """A copy of a picture as people make them: one of COPIES, as JPEG."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    quality = 85
    if kind == "re-encoded":
        quality = int(rng.integers(40, 75))
    elif kind == "half size":
        image = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    elif kind == "mirrored":
        image = ImageOps.mirror(image)
    elif kind == "cropped":
        left, right, top, bottom = rng.dirichlet((1, 1), 2).ravel() * rng.uniform(0.05, 0.10)
        image = image.crop((left * width, top * height, (1 - right) * width, (1 - bottom) * height))
    else:
        bar = round(height * rng.uniform(0.12, 0.20))
        captioned = Image.new("RGB", (width, height + bar), "white")
        captioned.paste(image, (0, bar))
        words = " ".join(rng.choice(_WORDS, 5))
        ImageDraw.Draw(captioned).text((width * 0.05, bar * 0.2), words, fill="black", font_size=max(8, bar * 0.5))
        image = captioned
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


# --- posts ----------------------------------------------------------------------------------------------------------
def a_post(
    rng: np.random.Generator, name: str, clock: int, subreddit: str, score: int, fields: dict[str, Any]
) -> dict[str, Any]:
    """A post with the fields of a real one that matter, and some that do not."""
    return {
        "id": name,
        "author": f"user{rng.integers(900)}" if rng.random() > 0.05 else "[deleted]",
        "author_fullname": "t2_" + "".join(rng.choice(_LETTERS, 6)),
        "created_utc": clock,
        "retrieved_on": clock + int(rng.integers(2, 60)) * DAY,
        "title": f"post {name}",
        "score": score,
        "num_comments": int(rng.poisson(1 + score / 20)),
        "subreddit": subreddit,
        "permalink": f"/r/{subreddit}/comments/{name}/words/",
        "is_self": False,
        "is_video": False,
        "over_18": False,
        "selftext": "",
        "removed_by_category": None,
        "stickied": False,
        "media": None,
        "all_awardings": [],
    } | fields


def add_submission(
    dump: Dump, rng: np.random.Generator, number: int, line: list[str], uploads: dict[int, list[Upload]]
) -> None:
    """The post of one of SNAP's lines: of the original at first, later of either."""
    image, clock, subreddit, score, name = int(line[0]), int(line[1]), line[7], int(line[10]), f"{10**9 + number:x}"
    before = sum(row[0] == image for row in dump.rows)
    # The second post shows the copy, if there is one: so every copy is posted.
    upload = uploads[image][min(before, 1) % len(uploads[image]) if before < 2 else rng.integers(len(uploads[image]))]
    post = a_post(rng, name, clock, subreddit, score, {"title": _title(rng, line[3]), "url": upload.link(rng)})
    images = [image]
    form = rng.random()
    reddits = [each[0] for each in uploads.values() if each[0].host == "i.redd.it" and each[0].picture != image]
    if form < 0.04 and upload.host == "i.redd.it" and reddits:
        other = reddits[int(rng.integers(len(reddits)))]
        post |= _gallery(name, [upload, other])
        images.append(other.picture)
    elif form < 0.10:  # the link is to the post that is passed on, whose own link shows the picture
        parent = a_post(rng, f"p{name}", clock - 3600, "pics", score * 2, {"url": upload.link(rng)})
        post |= {
            "crosspost_parent": f"t3_{parent['id']}",
            "crosspost_parent_list": [parent],
            "url": parent["permalink"],
        }
    removed = rng.random() < 0.01 and before > 1
    if rng.random() < 0.04 or removed:
        _had_again(dump, rng, post, removed)
    elif rng.random() < 0.02:
        dump.again.append(post | {"score": score, "retrieved_on": post["retrieved_on"] + 90 * DAY})
        dump.times_again += 1
        dump.lines.append(_line(rng, post | {"score": score // 2}))
    else:
        dump.lines.append(_line(rng, post))
    dump.fates["removed or deleted" if removed else "kept"] += 1
    dump.rows += [] if removed else [(each, clock, subreddit, score) for each in images]


def _had_again(dump: Dump, rng: np.random.Generator, post: dict[str, Any], removed: bool) -> None:
    """The post in two lines, of which the one that was had later counts, wherever it stands."""
    earlier = post | {"score": post["score"] // 3, "retrieved_on": post["created_utc"] + DAY}
    later = post | ({"removed_by_category": "deleted"} if removed else {})
    lines = [_line(rng, earlier), _line(rng, later)]
    dump.lines += lines if rng.random() < 0.5 else lines[::-1]
    dump.times_again += 1


def _gallery(name: str, uploads: list[Upload]) -> dict[str, Any]:
    media = {
        upload.name: {"status": "valid", "e": "Image", "m": "image/jpg", "s": {"x": 300, "y": 200}, "id": upload.name}
        for upload in uploads
    }
    media["unprocessed00"] = {"status": "unprocessed"}
    items = [{"media_id": media_id, "id": place} for place, media_id in enumerate(media)]
    url = f"https://www.reddit.com/gallery/{name}"
    return {"is_gallery": True, "url": url, "gallery_data": {"items": items}, "media_metadata": media}


def _title(rng: np.random.Generator, title: str) -> str:
    extra = ("", "", "", ' "again", they say', " &amp; more &lt;3", " ☃ 😀", "\nin two lines", "=1+1", ", NA")
    return title + str(rng.choice(extra))


def add_left_out(dump: Dump, rng: np.random.Generator, name: str, clock: int, subreddit: str) -> None:
    """A post that is left out, and why."""
    kinds = {
        "text posts": {"is_self": True, "selftext": "words", "url": f"https://www.reddit.com/r/x/comments/{name}/"},
        "videos": {"is_video": True, "url": f"https://v.redd.it/{name}"},
        "links to no picture": {"url": f"https://news.example.org/{name}.html"},
        "removed or deleted": {"title": "[deleted by user]", "url": f"https://i.redd.it/{name}.jpg"},
        "over 18": {"over_18": True, "url": f"https://i.redd.it/{name}.jpg"},
        "without a score": {"score": None, "url": f"https://i.redd.it/{name}.jpg"},
        "galleries without their pictures": {"is_gallery": True, "gallery_data": None, "media_metadata": None},
        "advertisements": {"promoted": True, "url": "https://i.redd.it/buythis.jpg"},
        "without a time or a community": {"subreddit": None, "url": f"https://i.redd.it/{name}.jpg"},
    }
    kind = str(rng.choice(list(kinds)))
    dump.lines.append(_line(rng, a_post(rng, name, clock, subreddit, int(rng.integers(500)), kinds[kind])))
    dump.fates[kind] += 1


def _line(rng: np.random.Generator, post: dict[str, Any]) -> bytes:
    """A post as a line, its numbers in one of the ways in which dumps have them."""
    form = rng.random()
    post = dict(post)
    for name in ("score", "created_utc", "num_comments"):
        if post[name] is not None and form < 0.10:
            post[name] = str(post[name]) if form < 0.05 else float(post[name])
    line = json.dumps(post, ensure_ascii=bool(rng.random() < 0.5)).encode()
    return line.replace(b'"title": "picture', b'"title": "\xffpicture', 1) if rng.random() < 0.02 else line  # no UTF-8


# --- files ----------------------------------------------------------------------------------------------------------
def write_files(folder: Path, dump: Dump, rng: np.random.Generator) -> dict[str, int]:
    """RS_1.zst, RS_2.ndjson and top.json; the number of lines of each."""
    foreign = [
        b"",
        b'{"id":"torn","title":"a line that was cut o',
        b"null",
        b'{"error":404,"message":"Not Found"}',
        b"   ",
    ]
    lines = list(dump.lines)
    for place, line in zip(sorted(rng.integers(1, len(lines), len(foreign)), reverse=True), foreign, strict=True):
        lines.insert(int(place), line)
    long = a_post(rng, "aline0fam", 1_330_000_000, "funny", 1, {"is_self": True, "selftext": "words " * 200_000})
    lines.insert(len(lines) // 3, json.dumps(long).encode())
    dump.fates["text posts"] += 1
    dump.malformed, dump.blank = 4, 2  # the torn last line is one
    half = len(lines) * 3 // 5
    with written_whole(folder / "RS_1.zst") as beside:
        beside.write_bytes(zstd.compress(b"\n".join(lines[:half]) + b"\n"))
    torn = json.dumps(a_post(rng, "thelast", 1_340_000_000, "funny", 1, {})).encode()[:-40]
    with written_whole(folder / "RS_2.ndjson") as beside:
        beside.write_bytes(b"\r\n".join([*lines[half:], torn]))
    children = [{"kind": "t3", "data": post} for post in dump.again]
    children += [{"kind": "t1", "data": {"id": "acomment", "body": "words"}}]
    dump.fates["comments and other things"] += 1
    text = json.dumps({"kind": "Listing", "data": {"after": None, "children": children}}, indent=1)
    with written_whole(folder / "top.json") as beside:
        beside.write_text(text + "\n")
    return {"RS_1.zst": half, "RS_2.ndjson": len(lines) - half + 1, "top.json": text.count("\n") + 1}


# --- truth ----------------------------------------------------------------------------------------------------------
def true_virality(rows: list[tuple[int, int, str, int]]) -> pd.DataFrame:
    """V of each picture (Deza & Parikh 2015, section 3.1), as it is defined, a submission at a time."""
    lowest = min(score for *_, score in rows)
    cells, images = defaultdict(list), defaultdict(list)
    for _, clock, subreddit, score in rows:
        cells[subreddit, clock // 3600 % 24].append(score - lowest)
    for picture, clock, subreddit, score in rows:
        cell = cells[subreddit, clock // 3600 % 24]
        mean = sum(cell) / len(cell)
        images[picture].append((score - lowest) / mean if mean else 1.0)
    mean = len(rows) / len(images)
    table = [(p, len(a), max(a), max(a) * math.log(len(a) / mean)) for p, a in sorted(images.items())]
    return pd.DataFrame(table, columns=["picture", "submissions", "max_a_score", "v_score"])

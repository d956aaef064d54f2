"""Lines of JSON from dumps, listings and archives → a data frame with one row per post.

A strict, fast parser reads a chunk at once: numbers as numbers if all of them are, otherwise all values as text. Lines
that it refuses are found by bisecting the chunk and are parsed one by one. Nested parts are read only for galleries and
crossposts, for their pictures.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson
import polars as pl

from reading.links import VIDEO
from reading.tables import Malformed, in_utf8

TEXT, EMPTY_GALLERY = "text posts", "galleries without their pictures"
_TIMES = ("created_utc", "retrieved_on", "retrieved_utc", "updated_on", "updated_utc")
_FLAGS = ("is_self", "is_video", "is_gallery", "over_18", "promoted")
_NESTED = ("crosspost_parent_list", "gallery_data", "data")  # only whether they are there
_TEXTS = (
    "id",
    "title",
    "subreddit",
    "author",
    "url",
    "url_overridden_by_dest",
    "removed_by_category",
    "selftext",
    "_meta",
)
# What is read of a post, as numbers and truths, or as text. `image_id` only tables have. `found` is what the inner
# parts say of the pictures, addresses with newlines between or a kind; `link` is where else they say to look.
_TYPED = {name: pl.Float64 for name in (*_TIMES, "score", "num_comments")} | {name: pl.Boolean for name in _FLAGS}
_TYPED |= {name: pl.String for name in (*_TEXTS, *_NESTED)}
SCHEMA = {name: pl.String for name in (*_TYPED, "image_id", "found", "link")}
TRUE = ["true", "True", "TRUE", "1", "1.0"]
_MOST_PICTURES = 1000  # of one post; Reddit allows 20
_FEW = 16  # lines that are no longer halved


def read_json_lines(first: int, count: int, chunk: bytes) -> tuple[pl.DataFrame, list[Malformed], int]:
    """Parse lines that each hold a post or a listing: the posts, the malformed lines, the number of blank lines.

    The frame has the columns of SCHEMA. `first` is the number of the first line, `count` how many there are.
    """
    chunk = in_utf8(chunk)
    posts = _fast_frame(chunk, count, _TYPED)
    if posts is None:
        posts = _fast_frame(chunk, count, SCHEMA)
    if posts is not None:
        nested = _has_inner_parts(posts)
        return (_with_inner_parts(posts, chunk, nested) if nested.any() else posts), [], 0
    lines = pl.read_lines(chunk)["line"]
    filled = lines.str.contains(r"\S")
    frames, malformed = _with_care(pl.DataFrame({"text": lines}).with_row_index("line", first).filter(filled))
    posts = pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA | {"line": pl.UInt32})
    malformed.sort(key=lambda each: each.line)
    return posts.sort("line", maintain_order=True).drop("line"), malformed, count - int(filled.sum())


def read_document(text: bytes) -> pl.DataFrame:
    """The posts of a JSON document of several lines. Raises ValueError or RecursionError if it is not one."""
    return pl.DataFrame([_flat(post) for post in _unfold(_loads(in_utf8(text).decode()))], schema=SCHEMA)


# --- fast -----------------------------------------------------------------------------------------------------------
def _fast_frame(lines: bytes, count: int, schema: dict[str, Any]) -> pl.DataFrame | None:
    """The posts of `count` lines; None if some are not posts, or do not fit the schema."""
    try:
        posts = pl.read_ndjson(lines, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    if len(posts) != count or posts["id"].null_count() or posts["data"].null_count() < count:
        return None
    missing = [name for name in SCHEMA if name not in schema]
    return posts.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)


def _has_inner_parts(posts: pl.DataFrame) -> pl.Series:
    inner = pl.col("crosspost_parent_list").is_not_null() | pl.col("gallery_data").is_not_null()
    return posts.select(inner | is_true(posts, "is_gallery")).to_series()


def is_true(posts: pl.DataFrame, name: str) -> pl.Expr:
    flag = pl.col(name) if posts.schema[name] == pl.Boolean else pl.col(name).is_in(TRUE)
    return flag.fill_null(False)


def _with_inner_parts(posts: pl.DataFrame, chunk: bytes, nested: pl.Series) -> pl.DataFrame:
    """The posts with `found` and `link` of those that are nested. `chunk` holds them, a line each."""
    rows = nested.arg_true()
    ends = np.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")), len(chunk))
    starts = np.append(0, ends + 1)
    inner = [_inner_parts(_loads(chunk[starts[row] : ends[row]].decode())) for row in rows.to_list()]
    found, links = (pl.Series([part[i] for part in inner], dtype=pl.String) for i in (0, 1))
    return posts.with_columns(
        found=posts["found"].clone().scatter(rows, found), link=posts["link"].clone().scatter(rows, links)
    )


# --- with care ------------------------------------------------------------------------------------------------------
def _with_care(lines: pl.DataFrame) -> tuple[list[pl.DataFrame], list[Malformed]]:
    """Frames of the posts of these lines (number, text), with their numbers in `line`; the malformed ones."""
    whole = lines["text"].str.contains(r"^\s*\{.*\}\s*$")  # few of the others are posts
    frames, malformed = _one_by_one(lines.filter(~whole))
    more, others = _halve(lines.filter(whole))
    return frames + more, malformed + others


def _halve(lines: pl.DataFrame) -> tuple[list[pl.DataFrame], list[Malformed]]:
    if len(lines) <= _FEW:
        return _one_by_one(lines)
    chunk = lines["text"].str.join("\n").item().encode()
    posts = _fast_frame(chunk, len(lines), SCHEMA)
    if posts is not None:
        nested = _has_inner_parts(posts)
        return [(_with_inner_parts(posts, chunk, nested) if nested.any() else posts).with_columns(lines["line"])], []
    before, after = _halve(lines.head(len(lines) // 2)), _halve(lines.tail(-(len(lines) // 2)))
    return before[0] + after[0], before[1] + after[1]


def _one_by_one(lines: pl.DataFrame) -> tuple[list[pl.DataFrame], list[Malformed]]:
    rows, malformed = [], []
    for number, line in lines.rows():
        try:
            rows += [_flat(post) | {"line": number} for post in _unfold(_loads(line))]
        except RecursionError:
            malformed.append(Malformed(number, "JSON that is nested too deeply", line[:200]))
        except ValueError as error:
            reason = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
            malformed.append(Malformed(number, reason, line[:200]))
    return [pl.DataFrame(rows, schema=SCHEMA | {"line": pl.UInt32})] if rows else [], malformed


def _loads(line: str) -> Any:
    """Parse JSON, strictly if possible. Raises ValueError or RecursionError if it is not JSON."""
    try:
        return orjson.loads(line)
    except ValueError:  # NaN, halves of surrogate pairs, control characters, a mark before the object, a comma after it
        return json.loads(line.strip("\ufeff\x1e\x00 \t\r").rstrip(","), strict=False)


def _unfold(value: Any) -> list[dict[str, Any]]:
    """The posts of a JSON value: a post, a listing of Reddit's, the answer of an archive, or a list of these.

    Raises ValueError if it holds no posts.
    """
    if type(value) is list:
        return [post for each in value for post in _unfold(each)]
    if type(value) is not dict:
        raise ValueError(f"{json.dumps(value)[:40]} where a post should be")
    if value.get("kind") == "more":  # "load more comments"
        return [{}]
    data = value.get("data")
    if type(data) in (list, dict):
        return _unfold(data["children"] if type(data) is dict and type(data.get("children")) is list else data)
    if not {"id", "name", "title"} & value.keys():
        raise ValueError(f"an object that is no post ({', '.join(list(value)[:5])})")
    return [value]


def _flat(post: dict[str, Any]) -> dict[str, str | None]:
    """A post as a row of SCHEMA."""
    flat = {name: _text(post.get(name)) for name in _TYPED if name not in _NESTED}
    flat["id"] = _text(post.get("id") or post.get("name"))
    inner = "crosspost_parent_list" in post or "gallery_data" in post or "is_gallery" in post
    found, link = _inner_parts(post) if inner else (None, None)
    return flat | {"found": found, "link": link}


def _inner_parts(post: dict[str, Any]) -> tuple[str | None, str | None]:
    """For a gallery or a crosspost: the addresses of its pictures, or a kind, or the link to judge it by."""
    subject, link = post, None
    for _ in range(3):  # the post that a crosspost passes on may be a crosspost itself
        link = subject.get("url_overridden_by_dest") or subject.get("url") or link
        parents = subject.get("crosspost_parent_list")
        if type(parents) is not list or not parents or type(parents[0]) is not dict:
            break
        subject = parents[0]
    if _text(subject.get("is_self")) in TRUE:
        return TEXT, None
    if subject.get("gallery_data") or _text(subject.get("is_gallery")) in TRUE:
        return "\n".join(_gallery(subject.get("gallery_data"), subject.get("media_metadata"))) or EMPTY_GALLERY, None
    return (VIDEO, None) if _text(subject.get("is_video")) in TRUE else (None, _text(link))


def _text(value: Any) -> str | None:
    """A value in the form that the fast reader returns."""
    if value is None or type(value) is str:
        return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()
    if type(value) is float and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _gallery(data: Any, media: Any) -> list[str]:
    """The pictures of a gallery in order, without those that Reddit could not process."""
    if type(media) is not dict:
        return []
    items = data.get("items") if type(data) is dict else None
    names = [item.get("media_id") for item in items if type(item) is dict] if type(items) is list else list(media)
    found = []
    for name in names[:_MOST_PICTURES]:
        about = media.get(name) if type(name) is str else None
        if type(about) is not dict or about.get("status", "valid") != "valid" or about.get("e") == "RedditVideo":
            continue
        ending = str(about.get("m") or "image/jpg").lower().rpartition("/")[2].replace("jpeg", "jpg")
        found += [f"https://i.redd.it/{name}.{ending}"] if re.fullmatch(r"[\w-]{1,40}", name, re.ASCII) else []
    return list(dict.fromkeys(found))

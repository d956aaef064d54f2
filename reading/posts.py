"""Reddit posts → rows of the table, one per picture; for every other post, the kind for which it is left out.

In dumps, listings and tables from any source, numbers may be strings or floats, addresses may contain `&amp;`, and
fields may be null or missing. A post counts as the first of KINDS that applies. A crosspost has the pictures of the
original post, with its own time, community and votes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import polars as pl
from isal import igzip

from reading.dumps import EMPTY_GALLERY, SCHEMA, TEXT, is_true
from reading.links import NO_PICTURE, VIDEO, picture_addresses
from reading.tables import in_seconds, whole_numbers

COLUMNS = "image_id,unixtime,title,score,comments,subreddit,author,reddit_id,url".split(",")
KEPT, EARLY = "kept", "kept, retrieved within a day of being posted"  # of the latter the votes were still to come
NO_POST, ADVERTISEMENT, NOWHERE = "comments and other things", "advertisements", "without a time or a community"
ELSEWHERE, OTHER_TIME, OVER_18, REMOVED = "other communities", "other times", "over 18", "removed or deleted"
NO_SCORE = "without a score"
KINDS = (KEPT, EARLY, NO_POST, ADVERTISEMENT, NOWHERE, ELSEWHERE, OTHER_TIME, OVER_18, REMOVED, TEXT, VIDEO,
         EMPTY_GALLERY, NO_PICTURE, NO_SCORE)  # fmt: skip

_DAY = 86_400  # seconds
_REMOVED_TEXTS = ["[removed]", "[deleted]"]
_REMOVED_TITLE = r"(?i)^\[(?:removed|deleted|deleted by user|removed by (?:reddit|moderator))\]$"
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
_CODES = {kind: code for code, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Asked:
    """The selection of posts. Times are seconds since 1970."""

    subreddits: frozenset[str] | None = None  # in lower case; None: all
    after: int = -(2**62)  # the first second that counts
    before: int = 2**62  # the first that no longer does
    over_18: bool = False
    salt: bytes | None = None  # of the authors' hashes; None: no authors


@dataclass
class Batch:
    """The outcome for some posts: each one's key, retrieval time, kind and number of rows; and the rows."""

    keys: np.ndarray  # uint64; 0 for a post without an id
    times: np.ndarray  # int64, seconds since 1970; 0 where nothing says so
    kinds: np.ndarray  # uint8, place in KINDS
    pictures: np.ndarray  # uint16
    rows: bytes  # CSV without a header, a gzip member of its own: such members may simply follow one another


def judge(posts: pl.DataFrame, asked: Asked) -> Batch:
    """The outcome for each post, and the rows of those that are kept. `posts` has the columns of dumps.SCHEMA."""
    posts = posts.with_columns(
        clock=seconds(posts["created_utc"]),
        had=_retrieved(posts),
        reddit_id=plain(posts["id"].fill_null("")).str.strip_prefix("t3_"),
    )
    kinds = posts.select(_first_kinds(posts, asked)).to_series()
    left = kinds.is_null()
    kept = _with_addresses(posts.select(_LATER).filter(left))
    kinds = kinds.scatter(left.arg_true(), kept["kind"]).to_numpy()
    is_kept = kinds <= _CODES[EARLY]
    kept = kept.filter(pl.col("kind") <= _CODES[EARLY])
    pictures = np.zeros(len(posts), np.uint16)
    pictures[is_kept] = (kept["address"].str.count_matches("\n", literal=True) + 1).to_numpy()
    return Batch(_keys(posts["reddit_id"]), posts["had"].to_numpy(), kinds, pictures, _packed(_rows(kept, asked.salt)))


def of_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a user's table, with some of the columns of dumps.SCHEMA (text), in the form that `judge` takes."""
    gaps = ["None", "nan", "NaN", "NA", "null"]  # as other tools write nothing; elsewhere these are words
    rows = rows.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)) for name in rows.columns if name != "title")
    if "removed_by_category" in rows.columns:
        rows = rows.with_columns(pl.when(~pl.col("removed_by_category").is_in(gaps)).then("removed_by_category"))
    missing = [pl.lit(None, pl.String).alias(name) for name in SCHEMA if name not in rows.columns]
    return rows.with_columns(missing).with_columns(pl.col("title").fill_null(""))


def _kind(kind: str) -> pl.Expr:
    return pl.lit(_CODES[kind], pl.UInt8)


def _first_kinds(posts: pl.DataFrame, asked: Asked) -> pl.Expr:
    """The kinds that can be determined without the post's pictures; null for the others."""
    subreddit, clock, text = pl.col("subreddit"), pl.col("clock"), pl.col("selftext")
    name = subreddit.str.to_lowercase().str.replace("^/?r/", "")
    elsewhere = ~name.is_in(list(asked.subreddits)) if asked.subreddits is not None else pl.lit(False)
    removed = (
        pl.col("removed_by_category").is_not_null()
        | pl.col("title").str.contains(_REMOVED_TITLE)
        | pl.col("_meta").str.contains(r'"removal_type": "|"was_deleted_later": true')
    )
    own = pl.col("found").is_null() & pl.col("link").is_null()  # not another's, passed on
    is_self = own & is_true(posts, "is_self") | (pl.col("found") == TEXT).fill_null(False)
    is_video = own & is_true(posts, "is_video") | (pl.col("found") == VIDEO).fill_null(False)
    return (
        pl.when(pl.col("title").is_null()).then(_kind(NO_POST))
        .when(is_true(posts, "promoted")).then(_kind(ADVERTISEMENT))
        .when(clock.is_null() | subreddit.is_null() | (subreddit == "")).then(_kind(NOWHERE))
        .when(elsewhere).then(_kind(ELSEWHERE))
        .when(~clock.is_between(asked.after, asked.before, closed="left")).then(_kind(OTHER_TIME))
        .when(is_true(posts, "over_18") & (not asked.over_18)).then(_kind(OVER_18))
        .when(removed).then(_kind(REMOVED))
        .when(is_self).then(_kind(TEXT))
        .when(text.is_in(_REMOVED_TEXTS)).then(_kind(REMOVED))
        .when(is_video).then(_kind(VIDEO))
        .when(pl.col("found") == EMPTY_GALLERY).then(_kind(EMPTY_GALLERY))
    )  # fmt: skip


_LATER = ["found", "link", "url_overridden_by_dest", "url", "image_id", "title", "score", "num_comments", "subreddit",
          "author", "selftext", "clock", "had", "reddit_id"]  # fmt: skip


def _with_addresses(posts: pl.DataFrame) -> pl.DataFrame:
    """These posts with the `address` of their pictures (newlines between), score and comments as numbers, `kind`."""
    link, address, why, found = pl.col("link"), pl.col("address"), pl.col("why"), pl.col("found")
    own = [pl.when(pl.col(name) != "").then(name) for name in ("link", "url_overridden_by_dest", "url")]
    posts = posts.with_columns(link=pl.when(found.is_null()).then(pl.coalesce(own)))
    posts = posts.with_columns(
        picture_addresses(posts["link"]),
        score=_whole(posts["score"]),
        comments=_whole(posts["num_comments"]),
    ).with_columns(pl.coalesce(found, address).alias("address"))
    numbered = (
        link.is_null() & pl.col("image_id").is_not_null()
    )  # a table has numbers of pictures in place of addresses
    kind = (
        pl.when(address.is_null() & ~numbered).then(
            pl.when(link.is_null() & (pl.col("selftext") != "")).then(_kind(TEXT))
            .when(why == VIDEO).then(_kind(VIDEO)).otherwise(_kind(NO_PICTURE))
        )
        .when(pl.col("score").is_null()).then(_kind(NO_SCORE))
        .when(pl.col("had").is_between(pl.col("clock"), pl.col("clock") + _DAY)).then(_kind(EARLY))
        .otherwise(_kind(KEPT))
    )  # fmt: skip
    return posts.with_columns(address.fill_null(""), kind=kind)


def _whole(column: pl.Series) -> pl.Series:
    return whole_numbers(column) if column.dtype == pl.String else column.cast(pl.Int64, strict=False)


def _rows(kept: pl.DataFrame, salt: bytes | None) -> pl.DataFrame:
    """The rows of the posts that are kept: COLUMNS, null where there is nothing."""
    authors = [pseudonym(author, salt) if salt and author else None for author in kept["author"].to_list()]
    rows = kept.select(
        plain(kept["image_id"]),
        pl.col("clock").alias("unixtime"),
        plain(kept["title"]),
        "score",
        "comments",
        plain(kept["subreddit"]).str.replace("^/?r/", ""),
        pl.Series("author", authors, dtype=pl.String),
        "reddit_id",
        pl.col("address").alias("url"),
    )
    several = rows["url"].str.contains("\n", literal=True).any()
    return rows.with_columns(pl.col("url").str.split("\n")).explode("url") if several else rows


def _packed(rows: pl.DataFrame) -> bytes:
    if rows.is_empty():
        return b""
    empty = [pl.when(pl.col(name) != "").then(name) for name in ("image_id", "title", "reddit_id", "url")]  # not ""
    text = rows.with_columns(empty).write_csv(include_header=False)
    return igzip.compress(text.encode(), compresslevel=1, mtime=0)  # four times as fast as zlib


def _keys(names: pl.Series) -> np.ndarray:
    """A post's id as 64 bits: its value in base 36 (Reddit's ids), or a hash; 0 if there is none."""
    number = names.str.to_integer(base=36, strict=False).cast(pl.UInt64)
    plain_ids = names.str.contains("^[0-9a-z]{1,12}$") & number.is_not_null()
    keys = number.zip_with(plain_ids, names.hash(0) | (1 << 63))
    return keys.zip_with(names != "", pl.repeat(0, len(names), dtype=pl.UInt64, eager=True)).to_numpy()


# --- values ---------------------------------------------------------------------------------------------------------
def seconds(column: pl.Series) -> pl.Series:
    """Seconds since 1970 (int64) of numbers, or of texts: numbers (what as seconds would lie beyond the year 5000 is in
    milli-, micro- or nanoseconds), whose fraction is cut off, or dates; null for what is neither."""
    numbers = column.cast(pl.Int64, strict=False)
    if column.dtype == pl.String and numbers.null_count() > column.null_count():
        numbers = column.str.extract(r"^\s*([0-9]{1,18})(?:\.[0-9]*)?\s*$").cast(pl.Int64, strict=False)
        dates = (numbers.is_null() & (column.str.strip_chars() != "")).arg_true()
        moments = pl.Series([_moment_or_none(each) for each in column.gather(dates)], dtype=pl.Int64)
        numbers = numbers.scatter(dates, moments) if len(dates) else numbers
    return pl.select(in_seconds(numbers)).to_series()


def _retrieved(posts: pl.DataFrame) -> pl.Series:
    """The retrieval time of each post, in seconds since 1970: the last one given; 0 if none is."""
    times = [posts[name] for name in ("updated_on", "updated_utc", "retrieved_on", "retrieved_utc")]
    if posts["_meta"].null_count() < len(posts):
        times.insert(0, posts["_meta"].str.extract(r'"retrieved_2nd_on": "?([0-9.]+)'))
    known = [seconds(each) for each in times if each.null_count() < len(each)]
    return pl.select(pl.coalesce(*known, pl.repeat(0, len(posts), dtype=pl.Int64))).to_series()


def moment(date: str) -> int:
    """Seconds since 1970 of 2020, 2020-05, 2020-05-31, 2020-05-31T12:00 (UTC where it does not say).

    Raises ValueError for anything that is not a date.
    """
    date = re.sub(r"\s*(Z|UTC)$", "+00:00", date.strip())
    if re.fullmatch(r"[0-9]{4}(-[0-9]{2})?", date):
        date += "-01" * (2 - date.count("-"))
    when = datetime.fromisoformat(date)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _moment_or_none(date: str) -> int | None:
    try:
        return moment(date)
    except (ValueError, OverflowError):
        return None


def plain(texts: pl.Series) -> pl.Series:
    """Text on one line, without Reddit's three escapes and control characters."""
    if texts.str.contains("&", literal=True).any():
        texts = texts.str.replace_many(["&lt;", "&gt;", "&amp;"], ["<", ">", "&"])
    if texts.str.contains(_CONTROL).any():
        texts = texts.str.replace_all(f"{_CONTROL}+", " ").str.strip_chars()
    return texts


@lru_cache(2**16)
def pseudonym(author: str, salt: bytes) -> str | None:
    """A salted hash of an author's name: equal for the same author, and names cannot be tried without the salt.

    None for a deleted author.
    """
    if author in _REMOVED_TEXTS:
        return None
    return hashlib.blake2b(author.encode("utf-8", "replace"), key=salt, digest_size=8).hexdigest()

"""Submissions → the virality score of each image (Deza & Parikh 2015, *Understanding Image Virality*, section 3.1).

    python virality.py data/reddit/redditSubmissions.csv.gz --output data/reddit/datasets/data_set_iv.csv

Of image h:  V_h = max_n A_h^n · log(m_h / m̄)

  A_h^n  score of its n-th submission, shifted so that the lowest score in the whole file is 0, over the mean shifted
         score of all submissions to that subreddit in that hour of the day (the clock of `localtime`)
  m_h    how often it was submitted;  m̄  the mean of m_h over the images kept;  natural logarithm

Only submissions to the twenty subreddits of the paper count, in A and in m (the shift sees the whole file). V is
negative for an image submitted less often than the mean, so among those a *lower* A is the higher V: that is the
published definition, kept as it is.

Cost: 132,307 submissions in about a second on one core; memory grows by some 200 bytes a submission.
"""

from __future__ import annotations

import argparse
import csv
import gc
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from utils import UserError, print_configuration, read_csv, run_main, write_csv

# SNAP's header, in SNAP's order.
SNAP_COLUMNS = (
    "#image_id,unixtime,rawtime,title,total_votes,reddit_id,number_of_upvotes,subreddit,number_of_downvotes,"
    "localtime,score,number_of_comments,username"
).split(",")
# The communities that Deza & Parikh 2015 keep.
TWENTY_SUBREDDITS = (
    "funny WTF aww atheism gaming pics gifs GifSound AdviceAnimals reactiongifs reddit.com gif trees "
    "fffffffuuuuuuuuuuuu woahdude photoshopbattles 4chan space pokemon HIFW"
).split()
TABLE_COLUMNS = (
    "img_id,img_link,SNAP_id,v_score,max_a_score,mean_a_score,submissions,max_raw_upvotes,max_number_of_comments"
).split(",")

# Where the columns that we use stand in a line.
_IMAGE, _REDDIT, _SUBREDDIT, _LOCALTIME, _SCORE, _COMMENTS = 0, 5, 7, 9, 10, 11
_INTEGERS = (_IMAGE, _LOCALTIME, _SCORE, _COMMENTS)
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")  # what fits 64 bits
_CHUNK = 50_000  # lines held as text at a time: about 50 MB


def read_submissions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read SNAP's file, plain or gzipped.

    Returns the submissions (image_id, subreddit as a category, hour 0..23, score, comments; in the file's order), with
    the first post of each image under `.attrs["first_post"]`, and the malformed lines (line from 1, reason, text).
    Raises UserError for a file that is missing, empty, not SNAP's, or without one well-formed line.
    """
    path = Path(path)
    parts, malformed, first_post = [], [], {}
    try:
        with _open(path) as file, _no_garbage_collection():
            reader = csv.reader(file)
            header = next(reader, None)
            if header is None:
                raise UserError(f"{path} is empty")
            if header != SNAP_COLUMNS:
                raise UserError(f"{path} line 1: the header is not SNAP's ({','.join(SNAP_COLUMNS)})")
            while rows := [(reader.line_num, row) for row in islice(reader, _CHUNK)]:
                part, bad = _parse(rows)
                parts.append(part)
                malformed += bad
                fresh = part[["image_id", "reddit_id"]].drop_duplicates("image_id")
                for image, post in zip(fresh["image_id"].tolist(), fresh["reddit_id"].tolist(), strict=True):
                    first_post.setdefault(image, post)
                del part["reddit_id"]  # the longest column, needed once an image
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a submissions file: {error}") from error
    if not parts or not sum(map(len, parts)):
        raise UserError(f"{path} holds no well-formed submission ({len(malformed)} malformed lines)")
    names = pd.api.types.union_categoricals([part["subreddit"] for part in parts]).categories
    for part in parts:
        part["subreddit"] = part["subreddit"].cat.set_categories(names)
    submissions = pd.concat(parts, ignore_index=True)
    submissions.attrs["first_post"] = first_post
    return submissions, pd.DataFrame(malformed, columns=["line", "reason", "text"])


def normalised_scores(submissions: pd.DataFrame) -> pd.Series:
    """A of each submission: its shifted score over the mean of its subreddit and hour. No unit; the mean of A is 1.

    A subreddit and hour whose scores all equal the file's lowest has mean 0: there A is 1, the value of a submission
    that did as well as its neighbours.
    """
    shifted = submissions["score"].to_numpy(np.float64) - submissions["score"].min()
    cell = submissions["subreddit"].cat.codes.to_numpy(np.int64) * 24 + submissions["hour"].to_numpy()
    count = np.bincount(cell)
    mean = np.bincount(cell, weights=shifted) / np.maximum(count, 1)
    mean = mean[cell]
    return pd.Series(np.divide(shifted, mean, out=np.ones_like(shifted), where=mean > 0), submissions.index)


def virality_scores(submissions: pd.DataFrame, keep: np.ndarray | None = None) -> pd.DataFrame:
    """V of each image, from submissions with image_id, subreddit, a_score, score and comments, in the file's order.

    Returns TABLE_COLUMNS less img_link, a row an image, lowest V first. img_id k is the k-th distinct image_id, from 1,
    in order of first appearance. `keep` names the img_ids to keep (default: all); m̄ is the mean over those.
    """
    codes, snap_ids = pd.factorize(submissions["image_id"])
    counts = submissions["subreddit"].isin(TWENTY_SUBREDDITS).to_numpy()
    if keep is not None:
        counts = counts & np.isin(codes + 1, keep)
    if not counts.any():
        raise UserError(f"no submission to the subreddits that count ({', '.join(TWENTY_SUBREDDITS)})")
    images = submissions[counts].groupby(codes[counts], sort=True)
    table = images.agg(
        max_a_score=("a_score", "max"),
        mean_a_score=("a_score", "mean"),
        submissions=("a_score", "size"),
        max_raw_upvotes=("score", "max"),  # the published column of this name holds the highest score (up − down)
        max_number_of_comments=("comments", "max"),
    )
    table.insert(0, "img_id", table.index + 1)
    table.insert(1, "SNAP_id", snap_ids[table.index])
    mean_submissions = table["submissions"].mean()
    table.insert(2, "v_score", table["max_a_score"] * np.log(table["submissions"] / mean_submissions))
    return table.sort_values(["v_score", "img_id"], ignore_index=True)


def build_table(path: str | Path, keep: np.ndarray | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From a submissions file to the table of TABLE_COLUMNS, and the malformed lines. img_link is the first post."""
    submissions, malformed = read_submissions(path)
    submissions["a_score"] = normalised_scores(submissions)
    table = virality_scores(submissions, keep)
    first_post = submissions.attrs["first_post"]
    table["img_link"] = [f"https://redd.it/{first_post[snap_id]}" for snap_id in table["SNAP_id"].tolist()]
    return table[TABLE_COLUMNS], malformed


def _open(path: Path) -> IO[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8", errors="replace", newline="")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Lines of text hold no reference cycles; to look for some among millions of them takes as long as to read them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _parse(rows: list[tuple[int, list[str]]]) -> tuple[pd.DataFrame, list[tuple[int, str, str]]]:
    """Lines → columns. The whole chunk at once; only where that fails, line by line to say which line and why."""
    whole = [each for each in rows if len(each[1]) == len(SNAP_COLUMNS)]
    suspects = [each for each in rows if len(each[1]) != len(SNAP_COLUMNS)] if len(whole) < len(rows) else []
    try:
        columns = _columns([row for _, row in whole])
    except (ValueError, OverflowError):
        columns, suspects = _columns([row for _, row in whole if not _fault(row)]), rows
    return columns, [(line, fault, ",".join(row)[:200]) for line, row in suspects if (fault := _fault(row))]


def _columns(rows: list[list[str]]) -> pd.DataFrame:
    fields = list(zip(*rows, strict=True)) if rows else [()] * len(SNAP_COLUMNS)
    integers = {index: np.array(fields[index], dtype="S20").astype(np.int64) for index in _INTEGERS}
    subreddit = pd.Categorical(fields[_SUBREDDIT])
    if "" in subreddit.categories:
        raise ValueError("a line without a subreddit")
    return pd.DataFrame(
        {
            "image_id": integers[_IMAGE],
            "subreddit": subreddit,
            "hour": (integers[_LOCALTIME] // 3600 % 24).astype(np.int8),
            "score": integers[_SCORE],
            "comments": integers[_COMMENTS],
            "reddit_id": np.array(fields[_REDDIT], dtype=object),
        }
    )


def _fault(row: list[str]) -> str:
    """Why a line cannot be used; empty for a good one."""
    if len(row) != len(SNAP_COLUMNS):
        return f"{len(row)} fields instead of {len(SNAP_COLUMNS)}"
    if not row[_SUBREDDIT]:
        return "no subreddit"
    for index in _INTEGERS:
        if not _WHOLE_NUMBER.fullmatch(row[index]):
            return f"{SNAP_COLUMNS[index].lstrip('#')} {row[index]!r} is not a whole number"
    return ""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", metavar="SUBMISSIONS.csv[.gz]", help="in SNAP's format")
    parser.add_argument("--output", required=True, metavar="FILE", help="the table, an image a row, lowest V first")
    parser.add_argument("--keep", metavar="FILE", help="img_ids to keep, one a line (Deza's final_names.csv)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "virality of images")
    keep = None
    if args.keep:
        keep = read_csv(args.keep, ["img_id"], names=["img_id"], header=None)["img_id"].to_numpy()
    table, malformed = build_table(args.submissions, keep)
    write_csv(args.output, table)
    print(f"{len(malformed)} malformed lines skipped" + (":" if len(malformed) else ""))
    for line, reason, text in malformed.head(20).itertuples(index=False):
        print(f"  line {line}: {reason}: {text[:80]}")
    if len(malformed):
        beside = Path(args.output).with_suffix(".malformed.csv")
        write_csv(beside, malformed)
        print(f"  all of them: {beside}")
    print(f"{len(table)} images of {table['submissions'].sum()} submissions, V from {table['v_score'].iloc[0]:.3f} "
          f"to {table['v_score'].iloc[-1]:.3f} → {args.output}")  # fmt: skip


if __name__ == "__main__":
    run_main(main)

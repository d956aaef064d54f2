"""Submissions → the virality score of each image (Deza & Parikh 2015, *Understanding Image Virality*, section 3.1).

    python virality.py data/reddit/redditSubmissions.csv.gz --output data/reddit/datasets/data_set_iv.csv
    python virality.py data/own/submissions.csv.gz --groups groups.csv --output data/own/datasets/data_set_iv.csv

Of image h:  V_h = max_n A_h^n · log(m_h / m̄)

  A_h^n  score of its n-th submission, shifted so that the lowest score in the whole file is 0, over the mean shifted
         score of all submissions to that subreddit in that hour of the day (the clock of `localtime`)
  m_h    how often it was submitted;  m̄  the mean of m_h over the images kept;  natural logarithm

Only some subreddits count, in A and in m (the shift uses the whole file): the twenty of the paper in SNAP's file, all
in a table of submissions.py, or those of --subreddits. V is negative for an image submitted less often than the mean,
so among those a *lower* A gives a higher V: this is the published definition, kept as it is.

A table of submissions.py is sorted by time. If it has no `localtime`, the hour is that of `unixtime` in UTC: one clock
for everybody, like SNAP's. Its images are identified by `image_id`; if that is empty, by the picture's address; without
an address, each post is an image of its own. --groups (img_id,group: written by duplicates.py) counts the copies of a
picture as one image, under the img_id of the copy submitted first; a second file next to the table, ending in
.copies.csv, lists for each other copy the img_id that it counts as (img_id,counts_as).

Cost: reading, scoring and writing take less than twice the time of pandas' own parser; about 100 bytes per submission.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from reading.links import picture_ids
from reading.tables import Layout, csv_records, in_seconds, split_line
from utils import UserError, check_outputs, next_to, print_configuration, read_csv, run_main, write_csv, written_whole

# SNAP's header, in SNAP's order.
SNAP_COLUMNS = (
    "#image_id,unixtime,rawtime,title,total_votes,reddit_id,number_of_upvotes,subreddit,number_of_downvotes,"
    "localtime,score,number_of_comments,username"
).split(",")
# The header of submissions.py.
OWN_COLUMNS = "image_id,unixtime,title,score,comments,subreddit,author,reddit_id,url".split(",")
# The communities that Deza & Parikh 2015 keep.
TWENTY_SUBREDDITS = (
    "funny WTF aww atheism gaming pics gifs GifSound AdviceAnimals reactiongifs reddit.com gif trees "
    "fffffffuuuuuuuuuuuu woahdude photoshopbattles 4chan space pokemon HIFW"
).split()
TABLE_COLUMNS = (
    "img_id,img_link,SNAP_id,v_score,max_a_score,mean_a_score,submissions,max_raw_upvotes,max_number_of_comments"
).split(",")


# --- reading --------------------------------------------------------------------------------------------------------
def read_submissions(path: str | Path, timed: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read SNAP's file or a table of submissions.py, compressed or not; columns may stand in any order.

    Returns the submissions (img_id, image_id, subreddit as a category, hour 0..23, score, comments; SNAP's in the
    file's order, others in that of time), and the malformed lines (line from 1, reason, text). In SNAP's file img_id k
    is the k-th distinct image, from 1, in order of first appearance; otherwise it is the image_id if that is a whole
    number, or else a number of the picture's address (links.picture_ids).
    With `timed`, also time (seconds since 1970) and title.
    `.attrs` of the first says whether the file is SNAP's (`snap`), of the second how many lines are `blank`, and how
    many `continued`: the further lines of submissions that take several. Raises UserError for a file that is missing,
    empty, of another kind, or without one well-formed line.
    """
    submissions, _, malformed = _read(path, timed)
    return submissions, malformed


def _read(path: str | Path, timed: bool = False) -> tuple[pd.DataFrame, pl.Series, pd.DataFrame]:
    """As `read_submissions`; between the two, each submission's address of the picture, or else its post's id."""
    parts, malformed, counts = [], [], Counter()
    for records in csv_records(path, lambda header: _layout(path, header, timed)):
        columns = _own_columns(records.rows) if "url" in records.rows.columns else _snap_columns(records.rows)
        also = records.rows.select(in_seconds(pl.col("unixtime")).alias("time"), "title") if timed else pl.DataFrame()
        parts.append(pl.concat([columns, also], how="horizontal"))
        malformed += records.malformed
        counts.update(blank=records.blank, continued=records.continued)
    table = pl.concat(parts) if parts else pl.DataFrame()
    if table.is_empty():
        first = f", the first: line {malformed[0].line}: {malformed[0].reason}" if malformed else ""
        raise UserError(f"{path} holds no well-formed submission ({len(malformed)} malformed lines{first})")
    del parts
    snap = "unixtime" not in table.columns
    table = table if snap else _in_order(table)
    links = table.drop_in_place("link")
    submissions = pd.DataFrame({name: _to_pandas(table[name]) for name in table.columns}, copy=False)
    if "img_id" not in submissions:
        submissions.insert(0, "img_id", pd.factorize(submissions["image_id"])[0] + 1)
    submissions.attrs["snap"] = snap
    malformed = pd.DataFrame(malformed, columns=["line", "reason", "text"])
    malformed.attrs.update(counts)
    return submissions, links, malformed


def _layout(path: str | Path, header: str, timed: bool = False) -> Layout:
    names = [name.strip() for name in split_line(header)]
    snap = {name.removeprefix("#"): name for name in SNAP_COLUMNS}
    is_snap = set(SNAP_COLUMNS) <= set(names)
    if not is_snap and not set(OWN_COLUMNS) <= set(names):
        raise UserError(
            f"{path} line 1: the header is not SNAP's ({','.join(SNAP_COLUMNS)}), nor that of submissions.py "
            f"({','.join(OWN_COLUMNS)}): {header[:100]!r}"
        )
    if is_snap:
        snap |= {"comments": "number_of_comments"}
        kept = ("image_id", "reddit_id", "subreddit", "localtime", "score", "comments")
        places = {name: names.index(snap[name]) for name in (*kept, *(("unixtime", "title") if timed else ()))}
        whole = ("image_id", "localtime", "score", "comments", *(("unixtime",) if timed else ()))
        return Layout(len(names), places, whole=whole, filled=("subreddit",))
    kept = ("image_id", "reddit_id", "subreddit", "unixtime", "localtime", "score", "comments", "url")
    kept += ("title",) if timed else ()
    places = {name: names.index(name) for name in kept if name in names}
    whole = ("unixtime", "score", "comments", *(["localtime"] if "localtime" in names else []))
    return Layout(len(names), places, whole=whole, optional=("comments", "localtime"), filled=("subreddit",))


def _snap_columns(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("image_id", _SUBREDDIT, _hour("localtime"), "score", "comments", link="reddit_id")


def _own_columns(rows: pl.DataFrame) -> pl.DataFrame:
    hour = pl.coalesce(_hour("localtime"), _hour("unixtime")) if "localtime" in rows.columns else _hour("unixtime")
    return rows.select(
        "image_id",
        _SUBREDDIT,
        hour.alias("hour"),
        "score",
        pl.col("comments").fill_null(0),
        in_seconds(pl.col("unixtime")).alias("unixtime"),
        "reddit_id",
        link="url",
    )


_SUBREDDIT = pl.col("subreddit").cast(pl.Categorical)


def _hour(name: str) -> pl.Expr:
    return (in_seconds(pl.col(name)) // 3600 % 24).cast(pl.Int8).alias("hour")


def _in_order(table: pl.DataFrame) -> pl.DataFrame:
    """A table of submissions.py in the order of time, with image_id and img_id as numbers."""
    table = table.sort("unixtime", maintain_order=True).drop("unixtime")
    pictures = picture_ids(table["image_id"], table["link"], table.drop_in_place("reddit_id"))
    return table.with_columns(image_id=pictures["img_id"], img_id=pictures["img_id"], link=pictures["link"])


def _to_pandas(column: pl.Series) -> np.ndarray | pd.Categorical:
    if column.dtype != pl.Categorical:
        return column.to_numpy()
    names = column.unique().cast(pl.String).sort()
    return pd.Categorical.from_codes(column.cast(pl.Enum(names)).to_physical().to_numpy(), names.to_list())


# --- scores ---------------------------------------------------------------------------------------------------------
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


def virality_scores(
    submissions: pd.DataFrame, keep: np.ndarray | None = None, subreddits: Sequence[str] | None = TWENTY_SUBREDDITS
) -> pd.DataFrame:
    """V of each image, from submissions with image_id, subreddit, a_score, score and comments, in the file's order.

    Returns TABLE_COLUMNS without img_link, one row per image, lowest V first. Without a column img_id, img_id k is the
    k-th distinct image_id, from 1, in order of first appearance. `keep` names the img_ids to keep (default: all); m̄ is
    the mean over those. `subreddits` are those that count; None: all.
    """
    given = "img_id" in submissions
    img_ids = submissions["img_id"].to_numpy() if given else pd.factorize(submissions["image_id"])[0] + 1
    counts = np.ones(len(submissions), bool)
    if subreddits is not None:
        counts = submissions["subreddit"].isin(subreddits).to_numpy()
    if keep is not None:
        counts = counts & np.isin(img_ids, keep)
    if not counts.any():
        raise UserError(f"no submission to the subreddits that count ({', '.join(subreddits or ['all'])})")
    images = submissions[counts].groupby(img_ids[counts], sort=True)
    table = images.agg(
        SNAP_id=("image_id", "first"),
        max_a_score=("a_score", "max"),
        mean_a_score=("a_score", "mean"),
        submissions=("a_score", "size"),
        max_raw_upvotes=("score", "max"),  # the published column of this name holds the highest score (up − down)
        max_number_of_comments=("comments", "max"),
    )
    table.insert(0, "img_id", table.index)
    mean_submissions = table["submissions"].mean()
    table.insert(2, "v_score", table["max_a_score"] * np.log(table["submissions"] / mean_submissions))
    return table.sort_values("v_score", kind="stable", ignore_index=True)  # equal V: lowest img_id first


def join_copies(submissions: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """The submissions with one img_id for all copies of a picture: that of the copy that stands first.

    `groups` has img_id and group; an image that it does not name is no copy. Raises UserError for an img_id that stands
    there twice, or that no submission has.
    """
    twice = groups["img_id"].duplicated()
    if twice.any():
        raise UserError(f"img_id {groups['img_id'][twice].iloc[0]} occurs twice among the groups")
    images = submissions[["img_id", "image_id"]].drop_duplicates("img_id", ignore_index=True)
    group = images["img_id"].map(groups.set_index("img_id")["group"])
    # The row of `images` that stands for each: the first of its group, or itself.
    first = pd.Series(images.index, images.index).groupby(group).transform("first").fillna(pd.Series(images.index))
    images = images.set_index("img_id").iloc[first.to_numpy(np.int64)].reset_index().set_axis(images["img_id"])
    row = images.index.get_indexer(submissions["img_id"])
    return submissions.assign(img_id=images["img_id"].to_numpy()[row], image_id=images["image_id"].to_numpy()[row])


def build_table(
    path: str | Path,
    keep: np.ndarray | None = None,
    groups: pd.DataFrame | None = None,
    subreddits: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From a submissions file to the table of TABLE_COLUMNS, and the malformed lines.

    img_link is the first post, or its picture where the file has addresses. `groups` as `join_copies` takes them: then
    a further column, group, holds the row's img_id, and `.attrs` of the table, `copies`, says which img_id each other
    copy counts as. `subreddits` that count: names in any case, or "all"; None: the
    twenty where the file is SNAP's, otherwise all.
    """
    submissions, links, malformed = _read(path)
    copies = {}
    if groups is not None:
        posted = submissions["img_id"]
        submissions = join_copies(submissions, groups)
        joined = posted != submissions["img_id"]
        copies = dict(zip(posted[joined], submissions["img_id"][joined], strict=True))
    submissions["a_score"] = normalised_scores(submissions)
    if subreddits is None:
        counting = TWENTY_SUBREDDITS if submissions.attrs["snap"] else None
    else:
        counting = None if "all" in subreddits else named_subreddits(submissions, subreddits)
    table = virality_scores(submissions, keep, counting)
    first = ~submissions["img_id"].duplicated().to_numpy()
    rows = pd.Index(submissions["img_id"].to_numpy()[first]).get_indexer(table["img_id"])
    links = links.filter(pl.Series(first)).gather(rows)
    is_post = ~links.str.contains("://", literal=True) & (links != "")
    table.insert(1, "img_link", ("https://redd.it/" + links).zip_with(is_post, links).to_numpy())
    table = table.assign(**({} if groups is None else {"group": table["img_id"]}))
    table.attrs["copies"] = copies
    return table, malformed


def counted_as(img_ids: pd.Series, data_path: str | Path) -> pd.Series:
    """The img_ids under which a data set's table counts these: of joined copies that of the one submitted first."""
    path = Path(data_path) / "datasets" / "data_set_iv.copies.csv"
    if not path.is_file():
        return img_ids
    table = read_csv(path, ["img_id", "counts_as"])
    copies = dict(zip(table["img_id"], table["counts_as"], strict=True))
    return img_ids.map(lambda img_id: copies.get(img_id, img_id))


def named_subreddits(submissions: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The subreddits of the submissions that `names` means, in any case. Raises UserError if there is none of them."""
    by_name = submissions["subreddit"].cat.categories.groupby(submissions["subreddit"].cat.categories.str.lower())
    unknown = [name for name in names if name.lower() not in by_name]
    if len(unknown) == len(names):
        largest = ", ".join(map(str, submissions["subreddit"].value_counts().index[:10]))
        raise UserError(f"--subreddits {' '.join(names)}: no submission went there (the largest: {largest})")
    if unknown:
        print(f"no submission went to {', '.join(unknown)}")
    return [each for name in names for each in by_name.get(name.lower(), [])]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("submissions", metavar="SUBMISSIONS.csv[.gz]", help="SNAP's file, or a table of submissions.py")
    flag("--output", required=True, metavar="FILE", help="output table, one row per image, lowest V first")
    flag("--keep", metavar="FILE", help="img_ids to keep, one per line (Deza's final_names.csv)")
    flag("--groups", metavar="FILE", help="img_id,group: copies to count as one image")
    flag("--subreddits", nargs="+", metavar="NAME", help="subreddits that count, or all (default: see above)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    copies = next_to(args.output, ".copies.csv")
    outputs = {"--output": args.output, "the table of copies": copies}
    check_outputs(outputs, [each for each in (args.submissions, args.keep, args.groups) if each])
    print_configuration(args, "virality of images")
    keep = groups = None
    if args.keep:
        keep = read_csv(args.keep, ["img_id"], names=["img_id"], header=None)["img_id"].to_numpy()
    if args.groups:
        groups = read_csv(args.groups, ["img_id", "group"])
    table, malformed = build_table(args.submissions, keep, groups, args.subreddits)
    with written_whole(args.output) as beside, open(beside, "wb") as file:  # some ten times as fast as pandas writes
        pl.DataFrame({name: table[name].to_numpy() for name in table}).write_csv(file)
    copies.unlink(missing_ok=True)
    if table.attrs["copies"]:
        rows = {"img_id": table.attrs["copies"].keys(), "counts_as": table.attrs["copies"].values()}
        write_csv(copies, pd.DataFrame(rows))
        print(f"{len(rows['img_id'])} copies count as another image: {copies}")
    blank = f", {malformed.attrs['blank']} blank ones" if malformed.attrs["blank"] else ""
    print(f"{len(malformed)} malformed lines skipped{blank}" + (":" if len(malformed) else ""))
    for line, reason, text in malformed.head(20).itertuples(index=False):
        print(f"  line {line}: {reason}: {text[:80]}")
    if len(malformed):
        beside = next_to(args.output, ".malformed.csv")
        write_csv(beside, malformed)
        print(f"  all of them: {beside}")
    print(f"{len(table)} images of {table['submissions'].sum()} submissions, V from {table['v_score'].iloc[0]:.3f} "
          f"to {table['v_score'].iloc[-1]:.3f} → {args.output}")  # fmt: skip


if __name__ == "__main__":
    run_main(main)

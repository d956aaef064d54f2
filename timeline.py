"""The posts of a data set: when each image was posted, to which community, with which title and how many votes.

They are read from Deza & Parikh's lists, from SNAP's file or from submissions.csv[.gz], whichever the data set has.
Deza & Parikh's lists have no times, but Reddit numbers its posts in order, so the id, in base 36, serves as a clock.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import deza2015
import virality
from utils import UserError, read_csv

SNAP_FILE = "redditSubmissions.csv.gz"
FILES = (SNAP_FILE, "submissions.csv.gz", "submissions.csv")
# What a table that submissions.py has not made may call its columns.
ALIASES = {
    "community": ("subreddit", "listing"),
    "time": ("unixtime", "created_utc"),
    "group": ("near_duplicate_group",),
}
_DAY = 86_400  # seconds
_MILLISECONDS = 1e11  # a time above it (the year 5138) is in milliseconds


def read_posts(data_path: str | Path, table: pd.DataFrame) -> pd.DataFrame | None:
    """The posts of the images of `table` (img_id and, if image ids are SNAP's, SNAP_id), in order of time.

    Columns: img_id; community (a category); time (seconds since 1970; of Deza & Parikh's lists the post's number); cell
    (the community and hour of the day as one number, −1 where unknown); score (up minus down votes); a_score (see
    virality.py); counts (whether it was posted to a community that counts for V); index (which of its image's counting
    posts it is, from 0); and, where known, hour (0 to 23), title, group (copies of one picture). `attrs` has `source`
    (the file) and `dropped` (posts without an image of the table, a time, a community or a score).

    None if the data set has none of the files.
    """
    data_path = Path(data_path)
    source = next((path for name in FILES if (path := data_path / name).is_file()), None)
    if source is None:
        source = next((path for path in (data_path, data_path / "deza2015") if deza2015.is_folder(path)), None)
        if source is None:
            return None
        posts = _of_deza(source)
    else:
        posts = _of_submissions(source, table) if _is_known(source) else _of_a_table(source)
    known = posts["img_id"].isin(table["img_id"]) & posts[["time", "community", "score"]].notna().all(axis=1)
    if not known.any():
        raise UserError(f"{source}: no post has an image of the table, a time, a community and a score")
    posts = posts[known].sort_values("time", kind="stable", ignore_index=True)
    posts = posts.astype({"img_id": np.int64, "time": np.int64, "cell": np.int64, "score": np.int64})
    posts["counts"] = posts["counts"].astype(bool)
    posts["index"] = posts[posts["counts"]].groupby("img_id").cumcount().reindex(posts.index, fill_value=-1)
    posts["community"] = posts["community"].astype("category")
    posts.attrs = {"source": str(source), "dropped": int((~known).sum())}
    return posts


def first_posts(posts: pd.DataFrame) -> pd.DataFrame:
    """The first post of each image to a community that counts, by img_id; `submissions` is the number of such posts."""
    counting = posts[posts["counts"]]
    first = counting.drop_duplicates("img_id").set_index("img_id")
    return first.assign(submissions=counting.groupby("img_id").size())


def _of_deza(folder: Path) -> pd.DataFrame:
    posts = deza2015.read_submissions(folder)
    return pd.DataFrame(
        {
            "img_id": pd.factorize(posts["image_id"])[0] + 1,
            "community": posts["subreddit"],
            "time": deza2015.post_numbers(posts),
            "cell": deza2015.hour_cells(posts),
            "score": posts["score"],
            "a_score": posts["a_score"],
            "counts": posts["subreddit"].isin(virality.TWENTY_SUBREDDITS),
        }
    )


def _is_known(path: Path) -> bool:
    """Whether virality.py reads this file: SNAP's, or a table of submissions.py."""
    if path.name == SNAP_FILE:
        return True
    return set(virality.OWN_COLUMNS) <= set(read_csv(path, [], nrows=1).columns)


def _of_submissions(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """SNAP's file, or a table of submissions.py."""
    posts, _ = virality.read_submissions(path, timed=True)
    snap, img_ids = posts.attrs["snap"], posts["img_id"]
    joined = virality.counted_as(img_ids, path.parent)
    if snap and "SNAP_id" in table:
        found = posts["image_id"].map(table.drop_duplicates("SNAP_id").set_index("SNAP_id")["img_id"])
        img_ids = found.where(joined == img_ids, joined)
    else:
        img_ids = joined
    return pd.DataFrame(
        {
            "img_id": img_ids,
            "community": posts["subreddit"],
            "time": posts["time"],
            "cell": posts["subreddit"].cat.codes.astype(np.int64) * 24 + posts["hour"],
            "hour": posts["hour"],
            "score": posts["score"],
            "a_score": virality.normalised_scores(posts),
            "counts": posts["subreddit"].isin(virality.TWENTY_SUBREDDITS) if snap else True,
            "title": posts["title"],
        }
    )


def _of_a_table(path: Path) -> pd.DataFrame:
    """A table of posts with a column img_id, whose communities all count."""
    found = read_csv(path, ["img_id"], keep_default_na=False, na_values=[""], low_memory=False)
    names = {other: ours for ours, others in ALIASES.items() for other in others if ours not in found.columns}
    posts = found.rename(columns=names)
    if missing := [name for name in ("community", "time", "score") if name not in posts.columns]:
        known = ", ".join("/".join((name, *ALIASES.get(name, ()))) for name in missing)
        raise UserError(f"{path} has no column {known} (its columns: {', '.join(map(str, found.columns))})")
    for name in ("img_id", "time", "score"):
        posts[name] = pd.to_numeric(posts[name], errors="coerce")
    posts["time"] = posts["time"].where(posts["time"] < _MILLISECONDS, posts["time"] / 1000)
    posts = posts[posts[["img_id", "community", "time", "score"]].notna().all(axis=1)]
    posts["community"] = posts["community"].astype(str).astype("category")
    posts["hour"] = (posts["time"] % _DAY // 3600).astype(np.int64)
    columns = pd.DataFrame(
        {
            "img_id": posts["img_id"],
            "community": posts["community"],
            "time": posts["time"],
            "cell": posts["community"].cat.codes.astype(np.int64) * 24 + posts["hour"],
            "hour": posts["hour"],
            "score": posts["score"],
            "a_score": virality.normalised_scores(posts.rename(columns={"community": "subreddit"})),
            "counts": True,
            **{
                name: posts[name].astype(object).where(posts[name].notna(), "")
                for name in ("title", "group")
                if name in posts
            },
        }
    )
    return columns.reindex(found.index)

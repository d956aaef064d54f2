"""Submissions → the community of each picture: the table on which the classifier is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import deza2015
import virality
from timeline import SNAP_FILE

CLASSES = ("WTF", "atheism", "aww", "funny", "gaming")  # the five-class task; a label is the place in this list


def classification_table(
    submissions: pd.DataFrame, img_ids: pd.Series, min_share: float, own: bool = False
) -> tuple[pd.DataFrame, dict]:
    """Make image4classification.csv from submissions: the images submitted mostly to one of the five CLASSES.

    An image belongs to the class that took at least `min_share` of its submissions to the subreddits that count; ties
    for the first place and smaller shares are left out. Returns img_id, SNAP_id, subreddit, label, and the counts.
    `img_ids` gives the img_id (values) of each SNAP id (index). With `own` all subreddits count, and all are classes,
    in the order of their names.
    """
    classes = sorted(submissions["subreddit"].unique()) if own else list(CLASSES)
    counting = submissions if own else submissions[submissions["subreddit"].isin(virality.TWENTY_SUBREDDITS)]
    counts = counting.groupby(["image_id", "subreddit"], observed=True).size().rename("n").reset_index()
    counts["subreddit"] = counts["subreddit"].astype(str)
    place = counts["subreddit"].map({name: label for label, name in enumerate(classes)})
    of_class = counts[place.notna()].assign(label=place).sort_values(["n", "label"], ascending=[False, True])
    first = of_class.drop_duplicates("image_id").set_index("image_id").reindex(img_ids.index)
    share = first["n"].fillna(0) / counts.groupby("image_id")["n"].sum().reindex(img_ids.index)
    # A tie is one with any subreddit that counts, not only among the classes.
    as_many = counts["n"] == counts["image_id"].map(first["n"])
    tied = as_many.groupby(counts["image_id"]).sum().reindex(img_ids.index) > 1
    kept = ((share >= min_share) & ~tied & first["n"].notna()).to_numpy()
    label = first["label"].to_numpy()[kept].astype(np.int64)
    table = pd.DataFrame({"img_id": img_ids.to_numpy()[kept], "SNAP_id": img_ids.index[kept]})
    table["subreddit"], table["label"] = np.array(classes, dtype=object)[label], label
    left_out = {"ties": int((tied & (share >= min_share)).sum()), "smaller shares": int((share < min_share).sum())}
    return table.sort_values("img_id", ignore_index=True), left_out


def of_communities(table: pd.DataFrame, here: np.ndarray, most: int, fewest: int) -> tuple[pd.DataFrame, pd.Series]:
    """Of a classification table the communities that a classifier can tell: the `most` largest with `fewest` pictures
    that are `here` (a mask over its rows). Returns their rows of such pictures, labelled anew by name, and each
    community's number of pictures that are here, the largest first."""
    table = table[here]
    counts = table["subreddit"].value_counts().rename("n").rename_axis("name").reset_index()
    counts = counts.sort_values(["n", "name"], ascending=[False, True]).set_index("name")["n"]
    labels = {name: label for label, name in enumerate(sorted(counts[counts >= fewest].index[:most]))}
    table = table.assign(label=table["subreddit"].map(labels)).dropna(subset="label")
    return table.astype({"label": np.int64}).reset_index(drop=True), counts


def load_submissions(data_path: Path) -> tuple[pd.DataFrame, int]:
    """The submissions of SNAP's file, or where it is not there those that Deza & Parikh published or anybody's table of
    submissions.py, each under the image that its copies count as; malformed lines."""
    snap, own, published = data_path / SNAP_FILE, data_path / "submissions.csv.gz", data_path / "deza2015"
    if not snap.exists() and published.is_dir():
        return deza2015.read_submissions(published), 0
    submissions, malformed = virality.read_submissions(own if own.exists() and not snap.exists() else snap)
    if not submissions.attrs["snap"]:
        submissions["image_id"] = virality.counted_as(submissions["img_id"], data_path)
    return submissions, len(malformed)

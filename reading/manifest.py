"""A table of submissions → the pictures that it links to, with their addresses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl

from fetching.addresses import Services, addresses_of
from reading.links import picture_ids
from utils import UserError, read_csv

COLUMNS = ["url", "subreddit"]
ALSO = ["image_id", "reddit_id"]  # where the table has them


def read_pictures(path: Path) -> pd.DataFrame:
    """Of each row of a table of submissions its picture, in the table's order: img_id (text, as virality.py counts it),
    img_link (its address, or else its post; '' if it has neither) and subreddit. Raises UserError."""
    names = [*COLUMNS, *ALSO]
    table = read_csv(path, COLUMNS, dtype=str, keep_default_na=False, usecols=lambda name: name in names)
    columns = [pl.Series(table[name].tolist() if name in table else [""] * len(table), dtype=pl.String)
               for name in ("image_id", "url", "reddit_id")]  # fmt: skip
    pictures = picture_ids(*columns)
    post = pl.col("reddit_id").str.extract("^(?:t3_)?([a-z0-9]{4,10})$")
    links = pl.select(url=columns[1], reddit_id=columns[2]).select(
        pl.when(pl.col("url").str.strip_chars() != "").then("url")
        .when(post.is_not_null()).then("https://redd.it/" + post)
        .otherwise(pl.lit(""))
    )  # fmt: skip
    return pd.DataFrame(
        {
            "img_id": pictures["img_id"].cast(pl.String).to_numpy(),
            "img_link": links.to_series().to_numpy(),
            "subreddit": table["subreddit"],
        }
    )


def manifest_of(path: Path) -> pd.DataFrame:
    """The pictures that a table of submissions links to, in its order: img_id, img_link (of its forms the one with the
    most addresses), submissions (how many link to it). Says how many rows have no address. Where no row has one, all
    its pictures, with '' as img_link; UserError if these have no image_id either."""
    rows = read_pictures(path)
    links = rows.groupby(["img_id", "img_link"], sort=False).size().rename("submissions").reset_index()
    if (links["img_link"] == "").all():
        given = read_csv(path, COLUMNS, dtype=str, keep_default_na=False)
        if "image_id" not in given or (given["image_id"] == "").all():
            raise UserError(f"{path}: no row has an address in its column url")
        return links[["img_id", "img_link", "submissions"]]
    links = links[links["img_link"] != ""]
    counts = links.groupby("img_id", sort=False)["submissions"].sum()
    several = links["img_link"].where(links["img_id"].duplicated(keep=False))
    addresses = several.map(lambda link: -len(addresses_of(link, Services())), na_action="ignore")
    best = links.loc[addresses.sort_values(kind="stable").index].drop_duplicates("img_id").set_index("img_id")
    manifest = best.loc[counts.index, ["img_link"]].assign(submissions=counts).reset_index()
    without = len(rows) - int(counts.sum())
    print(f"{len(rows)} rows in {path} link to {len(manifest)} pictures" + (f"; {without} to none" if without else ""))
    return manifest

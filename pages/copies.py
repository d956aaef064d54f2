"""The page of copies: shows each group of copies of one picture, lets you undo wrong ones and download the result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pages.measures import is_number
from pages.template import escape, fill_template, whole_text
from utils import UserError, read_csv, with_formulas

KINDS = {"same": "same picture", "mirrored": "mirrored", "cropped": "cropped", "captioned": "with a caption"}


def copies_page(groups: pd.DataFrame, thumbnails: Mapping[str, str], title: str = "Copies of one picture") -> str:
    """The HTML of a page that shows each group of two pictures or more, and gives the corrected groups as CSV.

    `groups`, one row per picture: img_id, group, and optionally kind (of copy: same, mirrored, cropped, captioned;
    empty for the picture that the others were compared with), votes (NaN if not known) and note (text shown below).
    `thumbnails`: img_id → a data: address, as `template.thumbnail` makes it; a picture without one is named alone.

    A picture that is unticked gets a group of its own in the CSV, which holds every row of `groups` (img_id,group) and
    which `read_groups` reads. Raises ValueError if a column is missing or an img_id stands twice.
    """
    missing = {"img_id", "group"} - set(groups.columns)
    if missing:
        raise ValueError(f"groups have no column {', '.join(sorted(missing))}")
    if groups["img_id"].astype(str).duplicated().any() or groups["group"].isna().any():
        raise ValueError("an img_id stands twice in groups, or has no group")
    rows = []
    for row in groups.to_dict("records"):
        img_id, votes = str(row["img_id"]), row.get("votes")
        texts = [whole_text(_text(row.get(name))) for name in ("kind", "note")]
        votes = int(votes) if is_number(votes) else None
        rows.append([whole_text(img_id), whole_text(row["group"]), *texts, votes, thumbnails.get(img_id)])
    # Without `<` the data cannot close its own <script>.
    data = json.dumps({"rows": rows, "kinds": KINDS}, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    said = votes_apart(groups)
    return fill_template("copies.html", title, data=data, votes=f"<p>{escape(said)}</p>" if said else "")


def votes_apart(groups: pd.DataFrame) -> str:
    """How far the votes of copies lie apart, in words; empty if no group has votes of two pictures."""
    if "votes" not in groups:
        return ""
    votes = pd.to_numeric(groups["votes"], errors="coerce").replace(math.inf, math.nan)
    votes = votes.groupby(groups["group"]).agg(["min", "max", "count"])
    votes = votes[(votes["count"] > 1) & (votes["min"] > 0)]
    if votes.empty:
        return ""
    times = votes["max"] / votes["min"]
    most, middle = (f"{each:.1f}" if each < 10 else f"{each:,.0f}" for each in (times.max(), times.median()))
    half = (
        f"in half of the {len(times):,} groups with votes, the"
        if len(times) > 1
        else "in the one group with votes, the"
    )
    return (
        f"The same picture, up to {most} times the votes: {half} most successful copy has at least {middle} times the "
        "votes of the least successful. The picture cannot explain that, because it is the same: luck and context do "
        "(community, time, title, author)."
    )


def read_groups(path: str | Path) -> pd.DataFrame:
    """The groups.csv that the page gave: img_id and group, as texts. Raises UserError for what is none."""
    table = with_formulas(read_csv(path, ["img_id", "group"], dtype=str, keep_default_na=False))[["img_id", "group"]]
    twice = table["img_id"][table["img_id"].duplicated()]
    if len(twice):
        raise UserError(f"{path} has img_id {twice.iloc[0]} twice: a picture is in one group")
    if (table == "").any(axis=None):
        raise UserError(f"{path}, row {(table == '').any(axis=1).idxmax() + 2}, has an empty img_id or group")
    return table


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

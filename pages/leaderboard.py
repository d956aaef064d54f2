"""The leaderboard of ranked pictures: a page that sorts, filters, and shows where the model looked."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from pages.template import escape, fill_template, whole_text


def leaderboard_page(
    table: pd.DataFrame,
    thumbnails: list[str],
    sizes: list[tuple[int, int]],
    title: str = "",
    against: str = "training pictures",
    temperature: float | None = None,
    accuracy: dict[str, float] | None = None,
) -> str:
    """The HTML of a leaderboard that sorts, filters, and draws the model's window on each picture.

    `table`: path, score, percentile (0 to 100), and x, y, w, h, the window in pixels of the picture (NaN, or no such
    columns, where the model has none). In the order of its rows: `thumbnails`, as `thumbnail` makes them, and `sizes`,
    the width and height of the picture itself in pixels. `against` says which pictures the percentile is among.
    `temperature`: a comparison of two pictures then says how sure the model is, σ(difference / temperature).
    `accuracy` (value, low, high, n): how often the model orders two unseen pictures right, said in the page's foot.
    """
    if not len(table) == len(thumbnails) == len(sizes):
        raise ValueError(f"{len(table)} rows, {len(thumbnails)} thumbnails and {len(sizes)} sizes do not fit together")
    pictures = []
    for row, image, (width, height) in zip(table.to_dict("records"), thumbnails, sizes, strict=True):
        window = [_number_or_none(row.get(side)) for side in "xywh"]
        numbers = (_number_or_none(row["score"]), _number_or_none(row.get("percentile")))
        box = None if None in window else window
        pictures.append((whole_text(row["path"]), *numbers, box, (int(width), int(height)), image))
    # Without `<` the data cannot close its own <script>.
    data = json.dumps(pictures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return fill_template(
        "leaderboard.html",
        title or "Ranked pictures",
        data=data,
        against=escape(against),
        temperature="" if temperature is None else str(float(temperature)),
        accuracy="" if accuracy is None else escape(_how_good(**accuracy)),
    )


def _how_good(value: float, low: float, high: float, n: int) -> str:
    return (
        f"The model ordered {value:.0%} (95 % interval {low:.0%} to {high:.0%}) of {n:,} pairs of unseen pictures as "
        "they had spread; guessing gives 50 %."
    )


def _number_or_none(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)

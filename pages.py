"""Pages to look at in a browser, each one file that needs no network: a leaderboard of pictures, a run's report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pandas as pd
from PIL import Image


def thumbnail(picture: Image.Image, side: int = 240) -> str:
    """A JPEG of at most `side` pixels a side, as a data: address to embed in a page."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    with io.BytesIO() as file:
        small.save(file, "JPEG", quality=80, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def leaderboard_page(table: pd.DataFrame, thumbnails: list[str], sizes: list[tuple[int, int]], title: str = "") -> str:
    raise NotImplementedError


def report_page(folder: str | Path) -> Path:
    raise NotImplementedError

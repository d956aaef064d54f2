"""Figures on a page: each with a sentence that says what to see in it, and with downloads as SVG and CSV."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from PIL import Image

from pages.template import data_address, escape
from utils import with_formulas, without_formulas
from visualisation import Figure, as_bytes

EMBEDDED = 500_000  # bytes; a larger file is linked to where it lies, beside the page

# What each figure of a run's folder is, and what to see in it; in the order of the page.
FIGURES = {
    "curves.png": (
        "Learning curves: training (dashed) and validation, epoch by epoch.",
        "From where validation gains no more while training still does, the network learns its own pictures by heart.",
    ),
    "confusion.png": (
        "Confusion matrix on the test pictures: rows are true classes, columns predicted ones.",
        "Right answers lie on the diagonal; a dark cell beside it names two classes that are taken for each other. "
        "If all rows look alike, the network only guesses what is frequent.",
    ),
    "score_against_virality.png": (
        "Score of each test picture against its virality.",
        "A score that says something rises from left to right, and with it the line of medians, which is drawn from 40 "
        "pictures on; the height of the cloud is what the score does not explain.",
    ),
    "ranked_strip.png": (
        "Test pictures, from the lowest to the highest score.",
        "What the last pictures share and the first lack is what the model goes by, whether or not it makes a picture "
        "spread.",
    ),
    "windows.png": (
        "Where the model looks: its window on test pictures.",
        "Windows on the same kind of thing in different pictures have found something; windows at one and the same "
        "place in all of them have not.",
    ),
    "windows_over_epochs.png": (
        "How the windows moved while the model learned.",
        "Windows that go different ways follow what is in the picture; windows that move together do not.",
    ),
    "pairs.png": (
        "Pairs of test pictures, with both scores and whether the model was right.",
        "A few pairs are examples, not evidence: the share over all pairs is in the table of results.",
    ),
    "mistakes.png": (
        "Mistakes: those that the model was most, and least, certain of.",
        "A mistake that it was certain of is often a picture that fits both classes, or a wrong label.",
    ),
    "comparison.png": (
        "The networks compared: accuracy against speed, the bubble's area the number of parameters.",
        "No network beats those on the joined line in both; where intervals overlap, these pictures do not tell two "
        "networks apart.",
    ),
    "context.png": (
        "How far rankings that look at no picture get, for each set of pairs.",
        "A ranker of pictures has found something of its own only where its interval lies to the right of these.",
    ),
    "virality.png": (
        "How the virality scores spread.",
        "Most images lie close together; the few far to the right have spread many times further.",
    ),
    "submissions.png": (
        "How often the images were submitted.",
        "Dots that fall in a straight line on these axes: most images are posted once or twice, a few dozens of times.",
    ),
}


def figure_block(name: str, picture: bytes, caption: str, see: str, downloads: dict[str, str]) -> str:
    """The HTML of a figure. `picture`: a PNG of 150 dots an inch; `see`: what to see in it; `downloads`: name of a file
    → its address."""
    with Image.open(io.BytesIO(picture)) as image:
        # A page has 96 dots an inch: shown so, a figure's letters are as large as on paper.
        across, down = (round(side * 0.64) for side in image.size)
    kind = ' class="broad"' if across > 500 else ""
    links = " ".join(
        f'<a download="{escape(file)}" href="{address}" aria-label="Download {escape(file)}">'
        f"{escape(Path(file).suffix[1:].upper())}</a>"
        for file, address in downloads.items()
    )
    return (
        f'<figure><div class="sheet" tabindex="0" role="group" aria-label="{escape(name)}">'
        f'<img{kind} alt="{escape(caption)}" width="{across}" height="{down}" '
        f'src="{data_address(picture, "image/png")}"></div>'
        f"<figcaption><strong>{escape(caption)}</strong> {escape(see)}"
        f"{f'<span class=downloads>Download: {links}</span>' if links else ''}</figcaption></figure>"
    )


def drawn(figure: Figure, name: str, caption: str, see: str) -> str:
    """The block of a figure that is drawn here; `name` is that of its files, without a suffix."""
    downloads = {f"{name}.svg": data_address(as_bytes(figure, "svg"), "image/svg+xml")}
    if figure.data is not None:
        downloads[f"{name}.csv"] = csv_address(figure.data)
    return figure_block(name, as_bytes(figure, "png"), caption, see, downloads)


def csv_address(table: pd.DataFrame) -> str:
    """A table as a data: address of CSV, which a spreadsheet opens without running what is in it."""
    text = without_formulas(table).to_csv(index=False, lineterminator="\n")
    return data_address(text.encode("utf-8", "replace"), "text/csv;charset=utf-8")


def figures_of(folder: Path) -> str:
    """Every PNG of a run's folder, the known ones first; to take along as the SVG and CSV of the same name there."""
    files = {path.name: path for path in sorted(folder.glob("*.png"))}
    known = [name for name in FIGURES if name in files]
    parts = ["<h2>Figures</h2>"] if files else []
    for name in [*known, *(name for name in files if name not in FIGURES)]:
        caption, see = FIGURES.get(name, (f"{Path(name).stem.replace('_', ' ')}.", ""))
        try:
            parts.append(figure_block(name, files[name].read_bytes(), caption, see, _beside(files[name])))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            parts.append(f"<p>{escape(name)} cannot be shown: {escape(error)}</p>")
    return "\n".join(parts)


def _beside(png: Path) -> dict[str, str]:
    """The SVG and the CSV of a figure, as addresses."""
    found = {}
    for path, kind in ((png.with_suffix(".svg"), "image/svg+xml"), (png.with_suffix(".csv"), "")):
        if not path.is_file():
            continue
        if path.stat().st_size > EMBEDDED:
            found[path.name] = escape(quote(path.name.encode("utf-8", "surrogateescape")))
        elif kind:
            found[path.name] = data_address(path.read_bytes(), kind)
        else:
            found[path.name] = csv_address(with_formulas(pd.read_csv(path, dtype=str, keep_default_na=False)))
    return found

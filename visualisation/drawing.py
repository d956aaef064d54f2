"""What every figure shares: colours, sizes of text, a Figure that is saved whole, and text that comes from files.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and no meaning hangs on a colour alone. Text that
comes from files is drawn as it is: a `$` in a name starts no formula, and a long name is shortened in its middle.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from utils import without_formulas, write_csv, written_whole

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#666666"

DPI = 150
TITLE, TEXT, LABEL, SMALL = 11, 9, 8, 7.5  # points


class Figure(matplotlib.figure.Figure):
    """A figure that notebooks display without pyplot, and that keeps the data it shows."""

    data: pd.DataFrame | None = None  # a row for each point, bar or picture

    def _repr_png_(self) -> bytes:
        return as_bytes(self, "png")


def as_bytes(figure: matplotlib.figure.Figure, kind: str) -> bytes:
    """The content of a file in this format (png, svg, pdf)."""
    with io.BytesIO() as file:
        write_figure(figure, file, kind)
        return file.getvalue()


def save(figure: matplotlib.figure.Figure, path: str | Path) -> Path:
    """Write `figure` atomically, in the format of the suffix (.png, .svg, .pdf), at 150 dots per inch."""
    path = Path(path)
    with written_whole(path) as beside:
        write_figure(figure, beside, path.suffix.lstrip(".").lower() or "png")
    return path


def save_with_data(figure: Figure, path: str | Path) -> Path:
    """Write `figure` like `save` and, next to it with the same name, an SVG and its data as CSV."""
    path = save(figure, path)
    save(figure, path.with_suffix(".svg"))
    if figure.data is not None:
        write_csv(path.with_suffix(".csv"), without_formulas(figure.data))
    return path


def write_figure(figure: matplotlib.figure.Figure, file: Path | io.BytesIO, kind: str) -> None:
    """Into `file`, in the format `kind` (png, svg, pdf). A figure drawn again has the same bytes."""
    undated = {"metadata": {"Date": None}} if kind == "svg" else {}
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "image virality"}):
        # A name in a script that the font lacks is drawn as boxes; one warning a letter helps nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=kind, dpi=DPI, facecolor="white", **undated)


# --- charts: what they share ----------------------------------------------------------------------------------------
def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of this size in inches, plus room for the title, laid out by matplotlib."""
    figure = Figure(figsize=(width, height + (0.3 if title else 0)), layout="constrained")
    if title:
        figure.suptitle("\n".join(wrap(title, int(width * 11), 2)), fontsize=TITLE, parse_math=False)
    return figure


def dress_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel("\n".join(map(plain, xlabel.split("\n"))), fontsize=TEXT, parse_math=False)
    axes.set_ylabel(plain(ylabel), fontsize=TEXT, parse_math=False)
    axes.tick_params(labelsize=LABEL)
    axes.spines[["top", "right"]].set_visible(False)


def annotate(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    shift: tuple[float, float] = (0, 0),
    upright: bool = False,
    **style: object,
) -> Text:
    """Text `shift` points from a point; with `upright` the point's height is a share of the axes'."""
    style = {
        "fontsize": LABEL,
        "parse_math": False,
        "xycoords": ("data", "axes fraction") if upright else "data",
        **style,
    }
    return axes.annotate(text, point, xytext=shift, textcoords="offset points", **style)


def log_axis(axes: Axes, which: str, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers; over few decades there are ticks between the powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = float(values.min()), float(values.max())
    axes.set(**{f"{which}scale": "log"})
    if high < 3 * low:  # one value, or nearly: room on both sides
        axes.set(**{f"{which}lim": (low / 3, high * 3)})
    axis.set_major_locator(LogLocator(10, subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def format_number(value: float, kind: str = ".2f") -> str:
    """A number with a true minus sign."""
    return format(value, kind).replace("-", "−")


def as_floats(column: pd.Series) -> np.ndarray:
    """A column as floats; anything that is not a finite number becomes NaN."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isfinite(values), values, np.nan)


# --- text from files ------------------------------------------------------------------------------------------------
def plain(text: str) -> str:
    """Text from a file name, made drawable: control characters and invalid encodings are replaced by a mark."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in str(text))


def _width(text: str) -> int:
    """Columns that a text takes: letters of East Asian scripts and most pictographs are two wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shorten(text: str, columns: int) -> str:
    """Shorten a text to at most so many columns by removing its middle, since names often differ at their ends."""
    text = plain(text)
    if _width(text) <= columns:
        return text
    head = text
    while head and _width(head) > (columns - 1) // 2:
        head = head[:-1]
    tail = text[len(head) :]
    while tail and _width(tail) > columns - 1 - _width(head):
        tail = tail[1:]
    return f"{head}…{tail}"


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Wrap a text into at most `lines` lines of at most so many columns, at a space if there is one nearby."""
    columns = max(4, columns)
    nearby = columns // 3
    text = shorten(text, columns * lines - (lines - 1) * nearby)
    wrapped = []
    while text and len(wrapped) < lines - 1 and _width(text) > columns:
        end = len(text)
        while _width(text[:end]) > columns:
            end -= 1
        space = text.rfind(" ", max(0, end - nearby), end + 1)
        cut = space if space > 0 else end
        wrapped.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*wrapped, shorten(text, columns)]

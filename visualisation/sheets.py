"""Sheets of pictures: ranked strips, windows on pictures, pairs with their verdict, grids with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from visualisation.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LABEL,
    PURPLE,
    SKY,
    SMALL,
    TEXT,
    TITLE,
    VERMILLION,
    Figure,
    format_number,
    shorten,
    wrap,
)

PICTURE_SIDE = 360  # pixels; a larger picture is shrunk before it is drawn: cells are 1 to 2 inches wide

Pictures = Sequence[Image.Image]


WINDOW = {"color": VERMILLION, "linewidth": 1.6}
TRUE_BOX = {"color": BLUE, "linewidth": 1.6, "linestyle": (0, (3, 1.5))}
# Of places that are marked beside windows: told apart by form, and on any ground by a white edge.
MARKS = [{"marker": marker, "color": colour, "markersize": 7, "markeredgecolor": "white", "linestyle": "none"}
         for marker, colour in (("o", BLACK), ("s", PURPLE), ("^", GREEN), ("D", SKY))]  # fmt: skip


def ranked_strip(
    pictures: Pictures,
    scores: Sequence[float],
    windows: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Pictures in rows from the least to the most viral by `scores`, with the score below each.

    `windows`: (n, 4), x, y, w, h in pixels of that picture; what lies outside the picture is not drawn.
    """
    order = np.argsort(np.asarray(scores, float), kind="stable")
    frames = _boxes(windows, len(pictures))
    subtitle = "from the least (first) to the most viral (last)"
    subtitle += "" if windows is None else "; frame: the model's window"
    below = 0.2 if captions is None else 0.44
    figure, cells = _sheet([pictures[index] for index in order], 10, 1.2, below, title, subtitle)
    for cell, index in zip(cells, order, strict=True):
        _draw_picture(cell.axes, pictures[index], frames[index])
        _write_below(figure, cell, [format_number(float(scores[index]))], fontsize=LABEL, fontweight="bold")
        if captions is not None:
            _write_below(figure, cell, wrap(captions[index], cell.letters, 2), drop=0.15)
    figure.data = _table({"caption": captions, "score": scores}, windows).iloc[order]
    return figure


def windows_on_pictures(
    pictures: Pictures,
    windows: np.ndarray,
    captions: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
    title: str = "",
    points: dict[str, np.ndarray] | None = None,
) -> Figure:
    """A grid of pictures with the model's windows (n, 4) and, dashed, the true boxes (n, 4): x, y, w, h in pixels.

    `points`: up to four named sets of points (n, 2: x, y in pixels) to mark.
    """
    frames, boxes = _boxes(windows, len(pictures)), _boxes(truth, len(pictures))
    legend = [Line2D([], [], label="the model's window", **WINDOW)]
    legend += [] if truth is None else [Line2D([], [], label="the truth", **TRUE_BOX)]
    marks = list(zip(points or {}, MARKS, strict=False))
    legend += [Line2D([], [], label=name, **mark) for name, mark in marks]
    figure, cells = _sheet(pictures, 6, 1.6, 0.0 if captions is None else 0.3, title, legend=legend)
    for index, cell in enumerate(cells):
        _draw_picture(cell.axes, pictures[index], frames[index], boxes[index])
        for name, mark in marks:
            cell.axes.plot(*points[name][index], **mark)
        if captions is not None:
            _write_below(figure, cell, wrap(captions[index], cell.letters, 2))
    figure.data = _table({"caption": captions}, windows)
    if truth is not None:
        figure.data[["true_x", "true_y", "true_w", "true_h"]] = boxes
    for name, _ in marks:
        figure.data[[f"{name} x", f"{name} y"]] = points[name]
    return figure


def windows_over_epochs(pictures: Pictures, epochs: Sequence[int], history: np.ndarray, title: str = "") -> Figure:
    """How the windows moved: one row per picture, one column per epoch (at most eight, including the first and last).

    `history`: (epochs, pictures, 4), x, y, w, h in pixels. The thin line is the path of the window's centre so far.
    """
    history = np.asarray(history, float).reshape(len(epochs), len(pictures), 4)
    centres = history[:, :, :2] + history[:, :, 2:] / 2
    chosen = sorted({round(place) for place in np.linspace(0, len(epochs) - 1, min(8, len(epochs)))})
    subtitle = "frame: the model's window; thin line: the way of its centre so far"
    repeated = [picture for picture in pictures for _ in chosen]
    figure, cells = _sheet(repeated, len(chosen), 1.25, 0.0, title, subtitle, above=0.22)
    for place, cell in enumerate(cells):
        row, column = divmod(place, len(chosen))
        moment = chosen[column]
        _draw_picture(cell.axes, pictures[row], history[moment, row])
        for colour, width in (("white", 2.4), (VERMILLION, 1.0)):
            cell.axes.plot(*centres[: moment + 1, row].T, color=colour, linewidth=width, solid_joinstyle="round")
        if row == 0:
            _text(figure, cell.middle, cell.top + 0.05, f"epoch {epochs[moment]}", va="bottom", fontsize=TEXT)
    moments = {"epoch": np.repeat(epochs, len(pictures)), "picture": np.tile(range(1, len(pictures) + 1), len(epochs))}
    figure.data = _table(moments, history)
    return figure


def pairs(
    pictures_1: Pictures,
    pictures_2: Pictures,
    scores_1: Sequence[float],
    scores_2: Sequence[float],
    targets: Sequence[float],
    title: str = "",
) -> Figure:
    """Pairs of pictures with both scores, and whether the model was right.

    `targets`: 1 if the first is more viral, 0 if the second is, 0.5 for a tie.
    """
    subtitle = "below: the model's scores, its choice in bold; framed: the picture that spread further"
    both = [picture for couple in zip(pictures_1, pictures_2, strict=True) for picture in couple]
    figure, cells = _sheet(both, 6, 1.25, 0.3, title, subtitle, above=0.26, couples=True)
    for index, target in enumerate(targets):
        first, second = float(scores_1[index]), float(scores_2[index])
        left, right = cells[2 * index], cells[2 * index + 1]
        verdict, colour = _verdict(first, second, target)
        middle = (left.middle + right.middle) / 2
        _text(figure, middle, left.top + 0.05, verdict, va="bottom", fontsize=TEXT, color=colour, fontweight="bold")
        for cell, picture, score, chosen, spread in (
            (left, both[2 * index], first, first > second, target > 0.5),
            (right, both[2 * index + 1], second, second > first, target < 0.5),
        ):
            _draw_picture(cell.axes, picture)
            if spread:
                frame = {"transform": cell.axes.transAxes, "clip_on": False, "edgecolor": BLACK, "linewidth": 2.5}
                cell.axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, **frame))
            text = format_number(score) + (", spread further" if spread else "")
            _write_below(figure, cell, [text], fontweight="bold" if chosen else "normal")
    figure.data = _table({"score_1": scores_1, "score_2": scores_2, "target": targets})
    return figure


def _verdict(first: float, second: float, target: float) -> tuple[str, str]:
    if target == 0.5:
        return "equally viral", GREY
    if first == second or math.isnan(first) or math.isnan(second):
        return "undecided", GREY
    return ("✓ right", GREEN) if (first > second) == (target > 0.5) else ("✗ wrong", VERMILLION)


def picture_grid(pictures: Pictures, captions: Sequence[str], title: str = "") -> Figure:
    """Pictures in rows with a caption of up to three lines below each (a `\\n` starts a line)."""
    figure, cells = _sheet(pictures, 6, 1.5, 0.42, title)
    for cell, picture, caption in zip(cells, pictures, captions, strict=True):
        _draw_picture(cell.axes, picture)
        given = str(caption).split("\n")[:3]
        wrapped = [shorten(line, cell.letters) for line in given[:-1]]
        _write_below(figure, cell, wrapped + wrap(given[-1], cell.letters, 3 - len(wrapped)))
    figure.data = _table({"caption": captions})
    return figure


# --- sheets of pictures, laid out in inches -------------------------------------------------------------------------
class _Cell(NamedTuple):
    """Axes for a picture, and the place they have on the sheet, in inches from its lower left corner."""

    axes: Axes
    left: float
    bottom: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2

    @property
    def top(self) -> float:
        return self.bottom + self.height

    @property
    def letters(self) -> int:
        """How many letters of a caption go beside each other."""
        return int(self.width * 72 / (SMALL * 0.58))


def _sheet(
    pictures: Pictures,
    most: int,
    side: float,
    below: float,
    title: str = "",
    subtitle: str = "",
    legend: Sequence[Line2D] = (),
    above: float = 0.0,
    couples: bool = False,
) -> tuple[Figure, list[_Cell]]:
    """A sheet with a cell for each picture, at most `most` in a row, and a title with one line or a legend under it.

    In inches: `side` of a cell, the room `below` each row, the room `above` each row of couples, else above the first.
    Laid out by hand: measuring every text, as matplotlib's own layouts do, takes seconds for a hundred pictures.
    """
    columns = max(1, min(most, len(pictures)))
    gap, between = 0.1, 0.25 if couples else 0.0
    header = 0.1 + (0.28 if title else 0) + (0.24 if subtitle or legend else 0)
    # A row is as high as its highest picture: a row of panoramas wastes no paper.
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(0.3, *(side * min(1, each.height / each.width) for each in row), 0) for row in rows]
    tops = [above if couples or place == 0 else 0.0 for place in range(len(rows))]
    across = columns * (side + gap) - gap + between * ((columns - 1) // 2)
    width, height = max(4.0, across + 2 * gap), header + sum(heights) + sum(tops) + len(rows) * (below + gap) + gap
    figure = Figure(figsize=(width, height))
    _titles(figure, title, subtitle, legend)
    cells = []
    y = height - header
    for row, row_height, top in zip(rows, heights, tops, strict=True):
        y -= top + row_height
        for column in range(len(row)):
            x = (width - across) / 2 + column * (side + gap) + between * (column // 2)
            axes = figure.add_axes((x / width, y / height, side / width, row_height / height))
            axes.set_anchor("S")  # pictures stand on their captions
            axes.axis("off")
            cells.append(_Cell(axes, x, y, side, row_height))
        y -= below + gap
    return figure, cells


def _titles(figure: Figure, title: str, subtitle: str, legend: Sequence[Line2D]) -> None:
    width, height = figure.get_size_inches()
    title = shorten(title, int(width * 130 / SMALL))
    if title:
        size = min(TITLE, width * 130 / len(title))
        _text(figure, width / 2, height - 0.08, title, va="top", fontsize=size)
    y = height - (0.36 if title else 0.08)
    if subtitle:
        _text(figure, width / 2, y, subtitle, va="top", color=GREY, fontsize=min(LABEL, width * 130 / len(subtitle)))
    if legend:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, (y + 0.04) / height), "borderaxespad": 0}
        figure.legend(handles=list(legend), ncols=len(legend), fontsize=LABEL, frameon=False, **place)


def _draw_picture(
    axes: Axes, picture: Image.Image, window: np.ndarray | None = None, truth: np.ndarray | None = None
) -> None:
    width, height = picture.size
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    axes.imshow(np.asarray(small), extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for box, style in ((truth, TRUE_BOX), (window, WINDOW)):
        if box is not None and np.isfinite(box).all():
            # The white line below keeps the coloured one visible on any ground.
            axes.add_patch(Rectangle(box[:2], box[2], box[3], fill=False, edgecolor="white", linewidth=3))
            axes.add_patch(Rectangle(box[:2], box[2], box[3], fill=False, **style))


def _write_below(figure: Figure, cell: _Cell, lines: Sequence[str], drop: float = 0.0, **style: object) -> None:
    style = {"fontsize": SMALL, "linespacing": 1.1, **style}
    _text(figure, cell.middle, cell.bottom - 0.05 - drop, "\n".join(lines), va="top", **style)


def _text(figure: Figure, x: float, y: float, text: str, **style: object) -> None:
    """Centred text at a place in inches."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, text, ha="center", parse_math=False, **style)


def _table(columns: dict[str, Sequence | None], windows: np.ndarray | None = None) -> pd.DataFrame:
    """The data of a sheet, one row per picture (or pair): its columns, and the windows' x, y, w, h."""
    table = pd.DataFrame({name: list(column) for name, column in columns.items() if column is not None})
    if windows is not None:
        table[["x", "y", "w", "h"]] = np.asarray(windows, float).reshape(-1, 4)
    return table


def _boxes(boxes: np.ndarray | None, n: int) -> np.ndarray:
    """(n, 4) floats; NaN, which is not drawn, where there are none."""
    return np.full((n, 4), np.nan) if boxes is None else np.asarray(boxes, float).reshape(n, 4)

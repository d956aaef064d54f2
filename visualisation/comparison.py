"""The chart that compares networks: accuracy against speed, with one named bubble per network."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from visualisation.drawing import (
    BLACK,
    GREY,
    SKY,
    SMALL,
    VERMILLION,
    Figure,
    annotate,
    as_floats,
    dress_axes,
    log_axis,
    new_figure,
    shorten,
)

SPEEDS = {
    "inference_images_per_second": "images a second, inference",
    "train_images_per_second": "images a second, training",
}


class _Bubble(NamedTuple):
    x: float
    y: float
    radius: float  # points
    low: float  # the interval's ends, in units of y
    high: float
    name: str


def comparison_chart(table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy against speed: bubbles with area proportional to the parameters; a line joins the Pareto front.

    `table`: model, accuracy, accuracy_low, accuracy_high (0 to 1), parameters, inference_images_per_second,
    train_images_per_second, pareto (bool); one panel for each of the two speeds that is known.
    """
    known = [key for key in SPEEDS if key in table and (as_floats(table[key]) > 0).any()]
    figure = new_figure(4.9 * max(1, len(known)), 3.9, title)
    figure.data = table
    if not known:
        dress_axes(figure.add_subplot(), "images a second", "nothing to compare yet")
        return figure
    panels = []
    for place, key in enumerate(known, start=1):
        axes = figure.add_subplot(1, len(known), place)
        shown = table[(as_floats(table[key]) > 0) & np.isfinite(as_floats(table["accuracy"]))]
        panels.append((axes, _comparison_panel(axes, shown, key)))
        dress_axes(axes, SPEEDS[key], "test accuracy (share) with 95 % interval" if place == 1 else "")
    figure.draw_without_rendering()  # the names are placed by measuring, so the layout has to be final
    figure.set_layout_engine("none")
    for axes, bubbles in panels:
        _place_names(axes, bubbles)
    return figure


def _comparison_panel(axes: Axes, table: pd.DataFrame, key: str) -> list[_Bubble]:
    x, y = as_floats(table[key]), as_floats(table["accuracy"])
    parameters = np.nan_to_num(as_floats(table["parameters"])) if "parameters" in table else np.zeros(len(x))
    area = 40 + 700 * parameters / max(parameters.max(initial=0), 1)  # square points
    front = table["pareto"].astype(bool).to_numpy() if "pareto" in table else np.zeros(len(x), bool)
    low = as_floats(table["accuracy_low"]) if "accuracy_low" in table else y
    high = as_floats(table["accuracy_high"]) if "accuracy_high" in table else y
    low, high = np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)
    axes.vlines(x, low, high, color=GREY, linewidth=1, zorder=2)
    order = np.argsort(x[front])
    axes.plot(x[front][order], y[front][order], color=VERMILLION, linewidth=1.4, zorder=1)
    colours = np.where(front, VERMILLION, SKY)
    axes.scatter(x, y, s=area, c=colours, alpha=0.65, edgecolors=BLACK, linewidths=0.7, zorder=3)
    axes.scatter(x, y, s=6, color=BLACK, zorder=4)
    axes.margins(x=0.3, y=0.14)
    log_axis(axes, "x", x)
    axes.plot([], [], color=VERMILLION, marker="o", linewidth=1.4, label="Pareto front")
    axes.plot([], [], color=SKY, marker="o", linewidth=0, label="area: parameters")
    axes.legend(loc="lower left", fontsize=SMALL, frameon=False, borderaxespad=0.1)
    names = [
        shorten(model, 22) + (f"\n{count / 1e6:,.1f} M" if count >= 1e5 else f"\n{count:,.0f}" if count else "")
        for model, count in zip(table["model"], parameters, strict=True)
    ]
    radii = np.sqrt(area / math.pi)
    return [_Bubble(*fields) for fields in zip(x, y, radii, low, high, names, strict=True)]


def _place_names(axes: Axes, bubbles: list[_Bubble]) -> None:
    """Write each name beside its bubble where the least lies under it; one that had to go far gets a thin line."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    point = axes.figure.dpi / 72  # pixels
    inside = axes.get_window_extent(renderer).extents
    taken = [axes.get_legend().get_window_extent(renderer).extents]
    for bubble in bubbles:
        (x, y), r = axes.transData.transform((bubble.x, bubble.y)), bubble.radius * point
        ends = axes.transData.transform([(bubble.x, bubble.low), (bubble.x, bubble.high)])
        taken += [(x - r, y - r, x + r, y + r), (x - 3, ends[0, 1], x + 3, ends[1, 1])]
    front = axes.transData.transform(axes.lines[0].get_xydata()) if len(axes.lines[0].get_xydata()) else []
    for (x0, y0), (x1, y1) in zip(front[:-1], front[1:], strict=True):
        way = zip(np.linspace(x0, x1, 60), np.linspace(y0, y1, 60), strict=True)
        taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in way]
    for bubble in sorted(bubbles, key=lambda each: -each.x):
        style = {"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 0}
        label = annotate(axes, bubble.name, (bubble.x, bubble.y), arrowprops=style, linespacing=1.1, zorder=5)
        tried = []
        for away in (4, 12, 26, 42, 60):
            for angle in np.radians((0, 180, 40, 140, -40, -140, 90, -90)):
                box = _move(label, (bubble.radius + away) * np.array([math.cos(angle), math.sin(angle)]), renderer)
                area = (box[2] - box[0]) * (box[3] - box[1])
                cost = _common_area(box, taken) + 3 * (area - _common_area(box, inside))
                middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                way = np.linspace(axes.transData.transform((bubble.x, bubble.y)), middle, 20)[2:]
                crossed = _common_area(np.hstack([way, way + 2]), taken)
                tried.append((4 * cost + 2 * crossed * (away > 12) + 2 * away, len(tried), away, angle))
        _, _, away, angle = min(tried)
        taken.append(_move(label, (bubble.radius + away) * np.array([math.cos(angle), math.sin(angle)]), renderer))
        label.arrow_patch.set_visible(away > 12)


def _move(label: Text, shift: np.ndarray, renderer: object) -> np.ndarray:
    """Put an annotation `shift` points from its point, and give the box that its text then takes, in pixels."""
    label.set_position(shift)
    label.set_horizontalalignment("left" if shift[0] > 1 else "right" if shift[0] < -1 else "center")
    label.set_verticalalignment("center" if abs(shift[1]) < 1 else "bottom" if shift[1] > 0 else "top")
    label.update_positions(renderer)
    return Text.get_window_extent(label, renderer).extents  # without the line to the point


def _common_area(boxes: np.ndarray, others: np.ndarray) -> float:
    """Area that boxes (x0, y0, x1, y1; or rows of them) share with others, summed over all couples."""
    boxes, others = np.reshape(boxes, (-1, 1, 4)), np.reshape(others, (1, -1, 4))
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    return float(np.prod(np.clip(high - low, 0, None), axis=-1).sum())

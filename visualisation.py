"""Figures: curves, confusion, virality, ranked strips, windows on pictures, pairs, the comparison of models.

Every function takes data and returns a matplotlib Figure; `save` writes one whole. Nothing here knows a model, and
pyplot's list of open figures is left alone, so that a run which draws hundreds of them keeps none in memory.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and no meaning hangs on a colour alone. Text that
comes from files is drawn as it is: a `$` in a name starts no formula, and a long name is shortened in its middle.

The pages made of such figures (a run's report, the leaderboard) are in pages.py.
"""

from __future__ import annotations

import io
import math
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from pages import leaderboard_page as leaderboard_page
from pages import report_page as report_page
from pages import thumbnail as thumbnail
from utils import written_whole

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#666666"

DPI = 150
TITLE, TEXT, LABEL, SMALL = 11, 9, 8, 7.5  # points
PICTURE_SIDE = 360  # pixels; a larger picture is shrunk before it is drawn: cells are 1 to 2 inches wide

Pictures = Sequence[Image.Image]


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as file:
            _write(self, file, "png")
            return file.getvalue()


def save(figure: matplotlib.figure.Figure, path: str | Path) -> Path:
    """Write `figure` whole, in the format of the suffix (.png, .svg, .pdf), at 150 dots an inch."""
    path = Path(path)
    with written_whole(path) as beside:
        _write(figure, beside, path.suffix.lstrip(".").lower() or "png")
    return path


def _write(figure: matplotlib.figure.Figure, file: Path | io.BytesIO, kind: str) -> None:
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; one warning a letter helps nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=kind, dpi=DPI, facecolor="white")


# --- curves and counts ----------------------------------------------------------------------------------------------
QUANTITIES = {
    "accuracy": "accuracy (share)",
    "balanced_accuracy": "balanced accuracy (share)",
    "pair_accuracy": "pair accuracy (share)",
    "pointing_accuracy": "pointing accuracy (share)",
    "macro_f1": "macro F1",
    "kendall_tau": "Kendall's τ",
    "spearman_rho": "Spearman's ρ",
    "lr": "learning rate",
    "scale": "window's side (share)",
    "mean_scale": "window's side (share)",
    "mean_iou": "overlap with the truth (IoU)",
    "seconds": "time (seconds an epoch)",
    "images_per_second": "speed (images a second)",
}
SPLIT_COLOURS = {"train": BLUE, "val": VERMILLION, "test": GREEN, "": BLUE}


def learning_curves(metrics: pd.DataFrame, title: str = "", best_epoch: int | None = None) -> Figure:
    """One panel for each quantity over the epochs; `train_x` and `val_x` share the panel of x.

    `metrics` has a column `epoch` and numeric columns; NaN is left out, and so is a column with no number at all.
    `best_epoch`, where given, is marked in every panel.
    """
    table = metrics.sort_values("epoch")
    panels: dict[str, list[tuple[str, np.ndarray]]] = {}
    for column in table.columns.drop("epoch"):
        values = _numbers(table[column])
        if np.isfinite(values).any():
            split, _, quantity = str(column).partition("_")
            if not quantity or split not in SPLIT_COLOURS:
                split, quantity = "", str(column)
            panels.setdefault(quantity, []).append((split, values))
    count = max(1, len(panels))
    rows = math.ceil(count / 3)
    columns = math.ceil(count / rows)
    figure = _figure(max(4.2, 3.3 * columns), 2.5 * rows, title)
    for place, (quantity, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _curve_panel(axes, table["epoch"].to_numpy(float), lines, best_epoch)
        _dress(axes, "epoch", QUANTITIES.get(quantity, quantity.replace("_", " ")))
    if not panels:
        _dress(figure.add_subplot(), "epoch", "no numbers yet")
    return figure


def _curve_panel(axes: Axes, epochs: np.ndarray, lines: list[tuple[str, np.ndarray]], best_epoch: int | None) -> None:
    for split, values in lines:
        known = np.isfinite(values)
        style = {"linestyle": "--" if split == "train" else "-", "marker": "o" if known.sum() <= 30 else ""}
        axes.plot(epochs[known], values[known], color=SPLIT_COLOURS[split], linewidth=1.6, markersize=3, **style)
    every = np.concatenate([values[np.isfinite(values)] for _, values in lines])
    if every.min() > 0 and every.max() / every.min() > 50:
        axes.set_yscale("log")
    axes.margins(y=0.12)
    span = max(np.ptp(epochs), 1.0)
    room = 0.28 if any(split for split, _ in lines) else 0.05  # for the names at the lines' ends
    axes.set_xlim(epochs.min() - 0.05 * span, epochs.max() + room * span)
    ticks = MaxNLocator(nbins=5, integer=True).tick_values(epochs.min(), max(epochs.max(), epochs.min() + 1))
    axes.set_xticks([tick for tick in ticks if epochs.min() <= tick <= epochs.max() and tick == round(tick)])
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        _label(axes, f"best: {best_epoch}", (best_epoch, 1), (0, 2), upright=True, ha="center", va="bottom", color=GREY)
    _label_ends(axes, epochs, lines)


def _label_ends(axes: Axes, epochs: np.ndarray, lines: list[tuple[str, np.ndarray]]) -> None:
    """The split's name where its line ends; where lines end close together the names are moved apart."""
    ends = []
    for split, values in lines:
        last = np.flatnonzero(np.isfinite(values))[-1]
        ends.append((axes.transData.transform((0, values[last]))[1], split, (epochs[last], values[last])))
    ends.sort()
    close = ends[-1][0] - ends[0][0] < 0.13 * axes.bbox.height
    for place, (_, split, point) in enumerate(ends):
        nudge = 11 * (place - (len(ends) - 1) / 2) if close else 0
        _label(axes, split, point, (6, nudge), va="center", color=SPLIT_COLOURS[split], fontweight="bold")


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts and the share of each row in per cent. `matrix` (n, n): a row a true class, a column a predicted one."""
    matrix = np.asarray(matrix)
    n = len(class_names)
    if matrix.shape != (n, n):
        raise ValueError(f"a matrix of {matrix.shape} does not fit {n} class names")
    totals = matrix.sum(axis=1)
    share = np.divide(matrix, totals[:, None], out=np.zeros((n, n)), where=totals[:, None] > 0)
    side, size = (0.78, TEXT) if n <= 4 else (0.62, SMALL) if n <= 10 else (0.47, 6)
    figure = _figure(side * n + 2.4, side * n + 1.5, title)
    axes = figure.add_subplot()
    colours = axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(n, n):
        red, green, blue, _ = colours.to_rgba(share[row, column])
        ink = "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18 else BLACK
        percent = "<1%" if 0 < share[row, column] < 0.005 else f"{share[row, column]:.0%}"
        text = f"{matrix[row, column]:,}\n{percent}" if matrix[row, column] else "0"
        ink = ink if matrix[row, column] else GREY
        axes.text(column, row, text, ha="center", va="center", fontsize=size, linespacing=1.1, color=ink)
    names = [_shorten(name, 18) for name in class_names]
    with_totals = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(n), with_totals, parse_math=False)
    _dress(axes, "predicted", "true (pictures in the row)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def virality_distribution(v_scores: Sequence[float]) -> Figure:
    """How the virality scores of a set of images spread, with their median and mean."""
    values = np.asarray(v_scores, float).ravel()
    values = values[np.isfinite(values)]
    figure = _figure(5.6, 3.2)
    axes = figure.add_subplot()
    if len(values):
        # The long tail would squeeze everything else into two bars: the last bar holds all that lies beyond it.
        low, high = values.min(), _tail_end(values)
        low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
        edges = np.linspace(low, high, min(60, max(5, int(2 * len(values) ** 0.5))) + 1)
        beyond = int((values > high).sum())
        axes.hist(np.clip(values, None, high), bins=edges, color=SKY, edgecolor="white", linewidth=0.4)
        if beyond:
            text = f"the last bar holds the {beyond:,}\nabove {_number(high)}; highest {_number(values.max())}"
            _label(axes, text, (high, 0.5), upright=True, ha="right", va="center", color=GREY)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.12)
        marks = sorted([(float(np.median(values)), "median", "-"), (float(values.mean()), "mean", "--")])
        for (value, name, style), across, shift in zip(marks, ("right", "left"), (-4, 4), strict=True):
            axes.axvline(value, color=BLACK, linewidth=1.2, linestyle=style)
            _label(axes, f"{name} {_number(value)}", (value, 0.98), (shift, 0), upright=True, ha=across, va="top")
    _dress(axes, "virality score V", f"images (of {len(values):,})")
    return figure


def submissions_per_image(counts: Sequence[int]) -> Figure:
    """How many images were submitted how often, both axes logarithmic. `counts`: submissions of each image, from 1."""
    counts = np.asarray(counts, int)
    counts = counts[counts > 0]
    figure = _figure(5.0, 3.4)
    axes = figure.add_subplot()
    if len(counts):
        times, images = np.unique(counts, return_counts=True)
        axes.scatter(times, images, s=18, color=BLUE, alpha=0.75, linewidths=0)
        axes.axvline(counts.mean(), color=GREY, linewidth=1, linestyle="--")
        _label(axes, f"mean {counts.mean():.1f}", (counts.mean(), 0.98), (4, 0), upright=True, va="top", color=GREY)
        text = f"of {len(counts):,} images\n{(counts == 1).mean():.0%} submitted once\nat most {counts.max():,} times"
        axes.text(0.98, 0.86, text, transform=axes.transAxes, ha="right", va="top", fontsize=LABEL)
        _logarithmic(axes, "x", times)
        _logarithmic(axes, "y", images)
    _dress(axes, "submissions of an image", "images submitted so often")
    return figure


def score_against_virality(
    scores: Sequence[float], v_scores: Sequence[float], title: str = "", note: str = ""
) -> Figure:
    """Each picture's score (vertical) against its virality score; the line joins the medians of tenths of the pictures.

    `note`, such as "Kendall's τ 0.41", is written into the corner.
    """
    scores, values = np.asarray(scores, float), np.asarray(v_scores, float)
    known = np.isfinite(scores) & np.isfinite(values)
    scores, values = scores[known], values[known]
    figure = _figure(4.8, 3.8, title)
    axes = figure.add_subplot()
    size, alpha = (16, 0.6) if len(scores) <= 1000 else (5, 0.25)
    axes.scatter(values, scores, s=size, color=BLUE, alpha=alpha, linewidths=0)
    paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
    if len(scores) >= 40:
        tenths = np.array_split(np.argsort(values, kind="stable"), 10)
        x, y = [np.median(values[tenth]) for tenth in tenths], [np.median(scores[tenth]) for tenth in tenths]
        axes.plot(x, y, color=VERMILLION, linewidth=1.8, marker="o", markersize=4)
        style = {"color": VERMILLION, "fontweight": "bold", "bbox": paper}
        _label(axes, "median of each tenth", (x[-1], y[-1]), (-4, 9), ha="right", **style)
    label = "virality score V"
    if len(values) and values.max() > 2 * _tail_end(values) > 0:
        # A few images spread many times further than the rest, which would otherwise be one column of dots.
        axes.set_xscale("symlog", linthresh=max(1.0, float(np.quantile(np.abs(values), 0.9))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, "g")))
        label += " (logarithmic in the tail)"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top", fontsize=TEXT, parse_math=False, bbox=paper)
    _dress(axes, label, "score given by the model")
    return figure


def bar_chart(
    labels: Sequence[str], values: Sequence[float], errors: np.ndarray | None = None, xlabel: str = "", title: str = ""
) -> Figure:
    """Horizontal bars, the first on top, with the value at the end of each.

    `errors`: (n,) half-widths, or (2, n) distances below and above.
    """
    values = np.asarray(values, float)
    n = len(values)
    lengths = np.nan_to_num(values)
    reach = np.nan_to_num(np.broadcast_to(0 if errors is None else np.atleast_2d(errors), (2, n)))
    figure = _figure(5.6, 0.3 * n + 0.9, title)
    axes = figure.add_subplot()
    whiskers = {"elinewidth": 1.2, "capsize": 2.5 if errors is not None else 0}
    axes.barh(range(n), lengths, color=SKY, height=0.7, xerr=reach, error_kw=whiskers)
    for place, length in enumerate(lengths):
        text = "not known" if np.isnan(values[place]) else _number(length, ",.3g" if abs(length) < 1000 else ",.0f")
        right = length >= 0
        point = (length + (reach[1, place] if right else -reach[0, place]), place)
        _label(axes, text, point, (4 if right else -4, 0), va="center", ha="left" if right else "right")
    axes.set_yticks(range(n), [_shorten(label, 36) for label in labels], parse_math=False)
    axes.set_ylim(n - 0.4, -0.6)
    axes.margins(x=0.16)
    _dress(axes, xlabel, "")
    axes.tick_params(axis="y", length=0)
    if n and lengths.min() < 0:
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.spines["left"].set_visible(False)
    else:
        axes.set_xlim(left=0)
    return figure


# --- the comparison of models ---------------------------------------------------------------------------------------
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
    """Accuracy against speed, a bubble a model, its area the number of parameters; the Pareto front is joined.

    `table`: model, accuracy, accuracy_low, accuracy_high (0 to 1), parameters, inference_images_per_second,
    train_images_per_second, pareto (bool); a panel for each of the two speeds that is known.
    """
    known = [key for key in SPEEDS if key in table and (_numbers(table[key]) > 0).any()]
    figure = _figure(4.9 * max(1, len(known)), 3.9, title)
    if not known:
        _dress(figure.add_subplot(), "images a second", "nothing to compare yet")
        return figure
    panels = []
    for place, key in enumerate(known, start=1):
        axes = figure.add_subplot(1, len(known), place)
        shown = table[(_numbers(table[key]) > 0) & np.isfinite(_numbers(table["accuracy"]))]
        panels.append((axes, _comparison_panel(axes, shown, key)))
        _dress(axes, SPEEDS[key], "test accuracy (share) with 95 % interval" if place == 1 else "")
    figure.draw_without_rendering()  # the names are placed by measuring, so the layout has to be final
    figure.set_layout_engine("none")
    for axes, bubbles in panels:
        _place_names(axes, bubbles)
    return figure


def _comparison_panel(axes: Axes, table: pd.DataFrame, key: str) -> list[_Bubble]:
    x, y = _numbers(table[key]), _numbers(table["accuracy"])
    parameters = np.nan_to_num(_numbers(table["parameters"])) if "parameters" in table else np.zeros(len(x))
    area = 40 + 700 * parameters / max(parameters.max(initial=0), 1)  # square points
    front = table["pareto"].astype(bool).to_numpy() if "pareto" in table else np.zeros(len(x), bool)
    low = _numbers(table["accuracy_low"]) if "accuracy_low" in table else y
    high = _numbers(table["accuracy_high"]) if "accuracy_high" in table else y
    low, high = np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)
    axes.vlines(x, low, high, color=GREY, linewidth=1, zorder=2)
    order = np.argsort(x[front])
    axes.plot(x[front][order], y[front][order], color=VERMILLION, linewidth=1.4, zorder=1)
    colours = np.where(front, VERMILLION, SKY)
    axes.scatter(x, y, s=area, c=colours, alpha=0.65, edgecolors=BLACK, linewidths=0.7, zorder=3)
    axes.scatter(x, y, s=6, color=BLACK, zorder=4)
    axes.margins(x=0.3, y=0.14)
    _logarithmic(axes, "x", x)
    axes.plot([], [], color=VERMILLION, marker="o", linewidth=1.4, label="Pareto front")
    axes.plot([], [], color=SKY, marker="o", linewidth=0, label="area: parameters")
    axes.legend(loc="lower left", fontsize=SMALL, frameon=False, borderaxespad=0.1)
    names = [
        _shorten(model, 22) + (f"\n{count / 1e6:,.1f} M" if count >= 1e5 else f"\n{count:,.0f}" if count else "")
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
        label = _label(axes, bubble.name, (bubble.x, bubble.y), arrowprops=style, linespacing=1.1, zorder=5)
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


# --- pictures -------------------------------------------------------------------------------------------------------
WINDOW = {"color": VERMILLION, "linewidth": 1.6}
TRUE_BOX = {"color": BLUE, "linewidth": 1.6, "linestyle": (0, (3, 1.5))}


def ranked_strip(
    pictures: Pictures,
    scores: Sequence[float],
    windows: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Pictures in rows from the least to the most viral by `scores`, the score below each.

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
        _write_below(figure, cell, [_number(float(scores[index]))], fontsize=LABEL, fontweight="bold")
        if captions is not None:
            _write_below(figure, cell, _wrap(captions[index], cell.letters, 2), drop=0.15)
    return figure


def windows_on_pictures(
    pictures: Pictures,
    windows: np.ndarray,
    captions: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """A grid of pictures with the model's windows (n, 4) and, dashed, the true boxes (n, 4): x, y, w, h in pixels."""
    frames, boxes = _boxes(windows, len(pictures)), _boxes(truth, len(pictures))
    legend = [Line2D([], [], label="the model's window", **WINDOW)]
    legend += [] if truth is None else [Line2D([], [], label="the truth", **TRUE_BOX)]
    figure, cells = _sheet(pictures, 6, 1.6, 0.0 if captions is None else 0.3, title, legend=legend)
    for index, cell in enumerate(cells):
        _draw_picture(cell.axes, pictures[index], frames[index], boxes[index])
        if captions is not None:
            _write_below(figure, cell, _wrap(captions[index], cell.letters, 2))
    return figure


def windows_over_epochs(pictures: Pictures, epochs: Sequence[int], history: np.ndarray, title: str = "") -> Figure:
    """How the windows moved: a row a picture, a column an epoch, at most eight, the first and the last among them.

    `history`: (epochs, pictures, 4), x, y, w, h in pixels. The thin line is the way of the window's centre so far.
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

    `targets`: 1 where the first is more viral, 0 where the second is, 0.5 for a tie.
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
            text = _number(score) + (", spread further" if spread else "")
            _write_below(figure, cell, [text], fontweight="bold" if chosen else "normal")
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
        wrapped = [_shorten(line, cell.letters) for line in given[:-1]]
        _write_below(figure, cell, wrapped + _wrap(given[-1], cell.letters, 3 - len(wrapped)))
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
    title = _shorten(title, int(width * 130 / SMALL))
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


def _boxes(boxes: np.ndarray | None, n: int) -> np.ndarray:
    """(n, 4) floats; NaN, which is not drawn, where there are none."""
    return np.full((n, 4), np.nan) if boxes is None else np.asarray(boxes, float).reshape(n, 4)


# --- charts: what they share ----------------------------------------------------------------------------------------
def _figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of so many inches, plus the title's, laid out by matplotlib."""
    figure = Figure(figsize=(width, height + (0.3 if title else 0)), layout="constrained")
    if title:
        figure.suptitle("\n".join(_wrap(title, int(width * 11), 2)), fontsize=TITLE, parse_math=False)
    return figure


def _dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(_plain(xlabel), fontsize=TEXT, parse_math=False)
    axes.set_ylabel(_plain(ylabel), fontsize=TEXT, parse_math=False)
    axes.tick_params(labelsize=LABEL)
    axes.spines[["top", "right"]].set_visible(False)


def _label(
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


def _logarithmic(axes: Axes, which: str, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers; over few decades there are ticks between the powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = float(values.min()), float(values.max())
    axes.set(**{f"{which}scale": "log"})
    if high < 3 * low:  # one value, or nearly: room on both sides
        axes.set(**{f"{which}lim": (low / 3, high * 3)})
    axis.set_major_locator(LogLocator(10, subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _number(value: float, kind: str = ".2f") -> str:
    """A number with a true minus sign."""
    return format(value, kind).replace("-", "−")


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as floats; what is not a finite number is NaN."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isfinite(values), values, np.nan)


def _tail_end(values: np.ndarray) -> float:
    """Where a long upper tail may be cut; the highest value where there is none."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.99])
    spread = max(high - middle, 2 * (middle - low))
    return float(min(values.max(), middle + 2 * spread)) if spread > 0 else float(values.max())


# --- text from files ------------------------------------------------------------------------------------------------
def _plain(text: str) -> str:
    """Text from a file name, fit to be drawn: control characters and broken encodings become a mark."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in str(text))


def _width(text: str) -> int:
    """Columns that a text takes: letters of East Asian scripts and most pictographs are two wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _shorten(text: str, columns: int) -> str:
    """At most so many columns: the middle of a longer text gives way, as names often differ at their ends."""
    text = _plain(text)
    if _width(text) <= columns:
        return text
    head, tail = text, ""
    while head and _width(head) > (columns - 1) // 2:
        head = head[:-1]
    rest = text[len(head) :]
    while rest and _width(rest) > columns - 1 - _width(head):
        rest = rest[1:]
    tail = rest
    return f"{head}…{tail}"


def _wrap(text: str, columns: int, lines: int) -> list[str]:
    """Lines of at most so many columns, broken at a space where there is one near; at most `lines` of them."""
    columns = max(4, columns)
    text = _shorten(text, columns * lines - (lines - 1) * min(6, columns // 3))
    wrapped = []
    while text and len(wrapped) < lines - 1 and _width(text) > columns:
        end = len(text)
        while _width(text[:end]) > columns:
            end -= 1
        space = text.rfind(" ", max(0, end - 6), end + 1)
        cut = space if space > 0 else end
        wrapped.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*wrapped, _shorten(text, columns)]

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

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from pages import leaderboard_page as leaderboard_page
from pages import report_page as report_page
from pages import thumbnail as thumbnail
from utils import written_whole

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#666666"

DPI = 150
TITLE, TEXT, SMALL = 11, 9, 7.5  # points
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
    "loss": "loss",
    "accuracy": "accuracy (share of pictures)",
    "balanced_accuracy": "balanced accuracy (share)",
    "pair_accuracy": "pair accuracy (share of pairs)",
    "macro_f1": "macro F1",
    "kendall_tau": "Kendall's τ",
    "spearman_rho": "Spearman's ρ",
    "learning_rate": "learning rate",
    "lr": "learning rate",
    "scale": "window's side (share of the picture's)",
    "mean_scale": "window's side (share of the picture's)",
    "pointing_accuracy": "pointing accuracy (share of pictures)",
    "mean_iou": "overlap with the truth (mean IoU)",
    "seconds": "time (seconds an epoch)",
    "images_per_second": "speed (images a second)",
}
SPLIT_COLOURS = {"train": BLUE, "val": VERMILLION, "test": GREEN, "": BLUE}


def learning_curves(metrics: pd.DataFrame, title: str = "", best_epoch: int | None = None) -> Figure:
    """One panel for each quantity over the epochs; `train_x` and `val_x` share the panel of x.

    `metrics` has a column `epoch` and numeric columns; NaN is a gap, and a column with no number at all is left out.
    `best_epoch`, where given, is marked in every panel.
    """
    table = metrics.sort_values("epoch")
    panels: dict[str, list[tuple[str, pd.Series]]] = {}
    for column in table.columns.drop("epoch"):
        values = pd.to_numeric(table[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
        if values.notna().any():
            split, _, rest = str(column).partition("_")
            split, quantity = (split, rest) if rest and split in SPLIT_COLOURS else ("", str(column))
            panels.setdefault(quantity, []).append((split, values))
    count = max(1, len(panels))
    columns = count if count <= 3 else math.ceil(count / math.ceil(count / 3))
    rows = math.ceil(count / columns)
    figure = _figure(max(4.2, 3.3 * columns), 2.5 * rows + (0.35 if title else 0), title)
    epochs = table["epoch"].to_numpy(float)
    for place, (quantity, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _curve_panel(axes, epochs, lines, best_epoch)
        _dress(axes, "epoch", QUANTITIES.get(quantity, quantity.replace("_", " ")))
    if not panels:
        _dress(figure.add_subplot(), "epoch", "no figures yet")
    return figure


def _curve_panel(axes: Axes, epochs: np.ndarray, lines: list[tuple[str, pd.Series]], best_epoch: int | None) -> None:
    low, high = epochs.min(), epochs.max()
    span = max(high - low, 1.0)
    axes.set_xlim(low - 0.05 * span, high + (0.28 if any(split for split, _ in lines) else 0.05) * span)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    every = np.concatenate([values.to_numpy(float) for _, values in lines])
    every = every[np.isfinite(every)]
    if every.min() > 0 and every.max() / every.min() > 50:
        axes.set_yscale("log")
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            f"best: {best_epoch}",
            (best_epoch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=GREY,
        )
    ends = []
    for split, values in lines:
        shown = values.notna().to_numpy()
        colour = SPLIT_COLOURS[split]
        marker = "o" if shown.sum() <= 30 else ""
        axes.plot(
            epochs[shown],
            values.to_numpy(float)[shown],
            color=colour,
            linewidth=1.6,
            marker=marker,
            markersize=3,
            linestyle="--" if split == "train" else "-",
        )
        ends.append((epochs[shown][-1], values.to_numpy(float)[shown][-1], split, colour))
    # Lines that end close together would write over each other: their labels are moved apart, in points.
    heights = [axes.transData.transform((0, y))[1] / axes.bbox.height for _, y, _, _ in ends]
    order = np.argsort(heights)
    close = len(ends) > 1 and np.ptp(heights) < 0.12
    for place, index in enumerate(order):
        x, y, split, colour = ends[index]
        nudge = (place - (len(ends) - 1) / 2) * 11 if close else 0
        axes.annotate(
            split,
            (x, y),
            xytext=(6, nudge),
            textcoords="offset points",
            va="center",
            fontsize=SMALL + 0.5,
            color=colour,
            fontweight="bold",
        )


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts and the share of each row in per cent. `matrix` (n, n): a row a true class, a column a predicted one."""
    matrix = np.asarray(matrix)
    n = len(class_names)
    if matrix.shape != (n, n):
        raise ValueError(f"a matrix of {matrix.shape} does not fit {n} class names")
    totals = matrix.sum(axis=1)
    share = np.divide(matrix, totals[:, None], out=np.zeros((n, n)), where=totals[:, None] > 0)
    cell = 0.78 if n <= 4 else 0.62 if n <= 10 else 0.47
    figure = _figure(cell * n + 2.4, cell * n + 1.5 + (0.3 if title else 0), title)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
    size = TEXT if n <= 4 else SMALL if n <= 10 else 6
    for row, column in np.ndindex(n, n):
        text = f"{matrix[row, column]:,}\n{share[row, column]:.0%}" if matrix[row, column] else "0"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=size,
            linespacing=1.1,
            color="white" if share[row, column] > 0.6 else BLACK if matrix[row, column] else GREY,
        )
    names = [_shorten(name, 18) for name in class_names]
    with_totals = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(n), with_totals, parse_math=False)
    axes.set_xlabel("predicted", fontsize=TEXT)
    axes.set_ylabel("true (pictures in the row)", fontsize=TEXT)
    axes.tick_params(labelsize=SMALL + 0.5, length=0)
    axes.spines[:].set_visible(False)
    return figure


def virality_distribution(v_scores: Sequence[float]) -> Figure:
    """How the virality scores of a set of images spread, with their median and mean."""
    values = _finite(v_scores)
    figure = _figure(5.6, 3.2)
    axes = figure.add_subplot()
    if len(values):
        # The long tail would squeeze everything else into two bars: the last bar holds all that lies beyond it.
        low, high = values.min(), _tail_end(values)
        edges = np.linspace(low, high if high > low else low + 1, min(60, max(8, int(2 * len(values) ** 0.5))) + 1)
        beyond = int((values > edges[-1]).sum())
        axes.hist(np.clip(values, None, edges[-1]), bins=edges, color=SKY, edgecolor="white", linewidth=0.4)
        if beyond:
            axes.text(
                0.99,
                0.6,
                f"the last bar holds the {beyond:,}\nabove {edges[-1]:.3g}; highest {values.max():.3g}",
                transform=axes.transAxes,
                ha="right",
                va="center",
                fontsize=SMALL,
                color=GREY,
            )
        axes.set_ylim(top=axes.get_ylim()[1] * 1.12)
        median, mean = float(np.median(values)), float(values.mean())
        for value, name, style in ((median, "median", "-"), (mean, "mean", "--")):
            axes.axvline(value, color=BLACK, linewidth=1.2, linestyle=style)
            left = value == min(median, mean)
            axes.annotate(
                f"{name} {value:.2f}",
                (value, 0.98),
                xycoords=("data", "axes fraction"),
                va="top",
                xytext=(-4 if left else 4, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=SMALL + 0.5,
            )
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
        axes.annotate(
            f"mean {counts.mean():.1f}",
            (counts.mean(), 0.98),
            xycoords=("data", "axes fraction"),
            va="top",
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=SMALL + 0.5,
            color=GREY,
        )
        once = int((counts == 1).sum())
        text = f"{len(counts):,} images\n{once / len(counts):.0%} submitted once\nmost often: {counts.max():,} times"
        axes.text(0.98, 0.86, text, transform=axes.transAxes, ha="right", va="top", fontsize=SMALL + 0.5)
    _logarithmic(axes, "x", counts)
    _logarithmic(axes, "y", images if len(counts) else counts)
    _dress(axes, "submissions of an image", "images submitted so often")
    return figure


def score_against_virality(
    scores: Sequence[float], v_scores: Sequence[float], title: str = "", note: str = ""
) -> Figure:
    """Each picture's score (vertical) against its virality score; the line joins the medians of tenths of the pictures.

    `note`, such as 'Kendall’s τ 0.41', is written into the corner.
    """
    scores, values = np.asarray(scores, float), np.asarray(v_scores, float)
    known = np.isfinite(scores) & np.isfinite(values)
    scores, values = scores[known], values[known]
    figure = _figure(4.8, 3.8 + (0.3 if title else 0), title)
    axes = figure.add_subplot()
    size, alpha = (16, 0.6) if len(scores) <= 1000 else (5, 0.25)
    axes.scatter(values, scores, s=size, color=BLUE, alpha=alpha, linewidths=0)
    if len(scores) >= 40:
        tenths = np.array_split(np.argsort(values, kind="stable"), 10)
        x, y = [np.median(values[t]) for t in tenths], [np.median(scores[t]) for t in tenths]
        axes.plot(x, y, color=VERMILLION, linewidth=1.8, marker="o", markersize=4)
        axes.annotate(
            "median of each tenth",
            (x[-1], y[-1]),
            xytext=(-4, 9),
            textcoords="offset points",
            ha="right",
            fontsize=SMALL + 0.5,
            color=VERMILLION,
            fontweight="bold",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
        )
    label = "virality score V"
    if len(values) and values.max() > 2 * _tail_end(values) > 0:
        # A few images spread many times further than the rest, which would otherwise be one column of dots.
        axes.set_xscale("symlog", linthresh=max(1.0, float(np.quantile(np.abs(values), 0.9))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        label += " (logarithmic in the tail)"
    if note:
        axes.text(
            0.03,
            0.97,
            note,
            transform=axes.transAxes,
            va="top",
            fontsize=TEXT,
            parse_math=False,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 2},
        )
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
    figure = _figure(5.6, 0.3 * n + 0.9 + (0.3 if title else 0), title)
    axes = figure.add_subplot()
    axes.barh(
        range(n),
        np.nan_to_num(values),
        color=SKY,
        height=0.7,
        xerr=errors,
        error_kw={"elinewidth": 1.2, "capsize": 2.5},
    )
    reach = np.nan_to_num(np.broadcast_to(0 if errors is None else np.atleast_2d(errors), (2, n)))
    for place, value in enumerate(values):
        above = value >= 0 or np.isnan(value)
        end = np.nan_to_num(value) + (reach[1, place] if above else -reach[0, place])
        axes.annotate(
            "not known" if np.isnan(value) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}",
            (end, place),
            xytext=(4 if above else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if above else "right",
            fontsize=SMALL,
        )
    axes.set_yticks(range(n), [_shorten(label, 32) for label in labels], parse_math=False)
    axes.set_ylim(n - 0.4, -0.6)
    axes.margins(x=0.14)
    if n and np.nanmin(np.append(values, 0)) >= 0:
        axes.set_xlim(left=0)
    elif n:
        axes.axvline(0, color=BLACK, linewidth=0.8)
    _dress(axes, xlabel, "")
    axes.tick_params(axis="y", length=0)
    return figure


# --- the comparison of models ---------------------------------------------------------------------------------------
def comparison_chart(table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy against speed, a bubble a model, its area the number of parameters; the Pareto front is joined.

    `table`: model, accuracy, accuracy_low, accuracy_high (0 to 1), parameters, inference_images_per_second,
    train_images_per_second, pareto (bool); a panel for each of the two speeds that is known.
    """
    speeds = {
        "inference_images_per_second": "images a second, inference",
        "train_images_per_second": "images a second, training",
    }
    speeds = {key: name for key, name in speeds.items() if key in table and (_numbers(table[key]) > 0).any()}
    figure = _figure(4.9 * max(1, len(speeds)), 3.9 + (0.3 if title else 0), title)
    for place, (key, name) in enumerate(speeds.items(), start=1):
        axes = figure.add_subplot(1, len(speeds), place)
        shown = table[(_numbers(table[key]) > 0) & np.isfinite(_numbers(table["accuracy"]))]
        _comparison_panel(axes, shown, key)
        _dress(axes, name, "test accuracy (95 % interval)" if place == 1 else "")
    if not speeds:
        _dress(figure.add_subplot(), "images a second", "nothing to compare yet")
        return figure
    figure.draw_without_rendering()  # the names are placed by measuring, so the layout has to be final
    figure.set_layout_engine("none")
    for axes in figure.axes:
        _place_names(axes)
    return figure


def _comparison_panel(axes: Axes, table: pd.DataFrame, key: str) -> None:
    x, y = _numbers(table[key]), _numbers(table["accuracy"])
    parameters = np.nan_to_num(_numbers(table["parameters"]) if "parameters" in table else np.zeros(len(x)))
    area = 40 + 700 * parameters / max(parameters.max(initial=0), 1)
    front = table["pareto"].astype(bool).to_numpy() if "pareto" in table else np.zeros(len(x), bool)
    if {"accuracy_low", "accuracy_high"} <= set(table.columns):
        low, high = _numbers(table["accuracy_low"]), _numbers(table["accuracy_high"])
        reach = np.nan_to_num(np.clip([y - low, high - y], 0, None))
        axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=GREY, elinewidth=1, capsize=2.5, zorder=2)
    order = np.argsort(x[front])
    axes.plot(x[front][order], y[front][order], color=VERMILLION, linewidth=1.4, zorder=1)
    axes.scatter(
        x, y, s=area, c=np.where(front, VERMILLION, SKY), alpha=0.65, edgecolors=BLACK, linewidths=0.7, zorder=3
    )
    axes.scatter(x, y, s=6, color=BLACK, zorder=4)
    axes.margins(x=0.2, y=0.14)
    _logarithmic(axes, "x", x)
    axes.names = [  # kept until the layout is final
        (
            x[i],
            y[i],
            math.sqrt(area[i] / math.pi),
            _shorten(str(model), 22) + (f"\n{_millions(count)}" if count else ""),
        )
        for i, (model, count) in enumerate(zip(table["model"], parameters, strict=True))
    ]
    if front.any():
        axes.plot([], [], color=VERMILLION, marker="o", linewidth=1.4, label="Pareto front")
        axes.legend(loc="lower left", fontsize=SMALL, frameon=False, borderaxespad=0.1)


def _place_names(axes: Axes) -> None:
    """Write each name beside its bubble at the first place, of sixteen around it, that nothing else holds."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    points = axes.figure.dpi / 72
    inside = axes.get_window_extent(renderer)
    centres = [axes.transData.transform((x, y)) for x, y, _, _ in axes.names]
    taken = [
        (cx - r * points, cy - r * points, cx + r * points, cy + r * points)
        for (cx, cy), (_, _, r, _) in zip(centres, axes.names, strict=True)
    ]
    if axes.get_legend():
        taken.append(axes.get_legend().get_window_extent(renderer).extents)
    for (x, y, radius, name), _ in sorted(zip(axes.names, centres, strict=True), key=lambda item: -item[0][2]):
        best = None
        for away in (4, 14):
            for angle in np.radians((0, 180, 45, 135, -45, -135, 90, -90)):
                dx, dy = (radius + away) * math.cos(angle), (radius + away) * math.sin(angle)
                across = "left" if dx > 1 else "right" if dx < -1 else "center"
                upright = "bottom" if dy > 1 else "top" if dy < -1 else "center"
                label = axes.annotate(
                    name,
                    (x, y),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha=across,
                    va=upright,
                    fontsize=SMALL,
                    linespacing=1.1,
                    zorder=5,
                    parse_math=False,
                )
                box = label.get_window_extent(renderer).extents
                cost = sum(_common_area(box, other) for other in taken)
                cost += 3 * ((box[2] - box[0]) * (box[3] - box[1]) - _common_area(box, inside.extents))
                if best is None or cost < best[0] - 1:
                    if best is not None:
                        best[1].remove()
                    best = (cost, label, box)
                else:
                    label.remove()
        taken.append(best[2])


def _common_area(box: Sequence[float], other: Sequence[float]) -> float:
    """Area that two boxes (x0, y0, x1, y1) share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f} M parameters" if count >= 1e5 else f"{count:,.0f} parameters"


# --- pictures -------------------------------------------------------------------------------------------------------
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
    figure, cells = _sheet(len(pictures), 10, 1.2, 0.2 if captions is None else 0.44, title, subtitle)
    for place, index in enumerate(order):
        _draw_picture(cells[place], pictures[index], frames[index])
        lines = [f"{float(scores[index]):.2f}"]
        lines += [] if captions is None else [captions[index]]
        _caption(figure, cells[place], lines, bold_first=True)
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
    figure, cells = _sheet(len(pictures), 6, 1.6, 0.0 if captions is None else 0.3, title, " ")
    for index, cell in enumerate(cells):
        _draw_picture(cell, pictures[index], frames[index], boxes[index])
        if captions is not None:
            _caption(figure, cell, [captions[index]])
    handles = [Line2D([], [], color=VERMILLION, linewidth=1.8, label="the model's window")]
    if truth is not None:
        handles.append(Line2D([], [], color=BLUE, linewidth=1.8, linestyle=(0, (3, 1.5)), label="the truth"))
    _legend(figure, handles, title)
    return figure


def windows_over_epochs(pictures: Pictures, epochs: Sequence[int], history: np.ndarray, title: str = "") -> Figure:
    """How the windows moved: a row a picture, a column an epoch, at most eight, the first and the last among them.

    `history`: (epochs, pictures, 4), x, y, w, h in pixels. The thin line is the way of the window's centre so far.
    """
    history = np.asarray(history, float).reshape(len(epochs), len(pictures), 4)
    chosen = sorted({int(round(place)) for place in np.linspace(0, len(epochs) - 1, min(8, len(epochs)))})
    subtitle = "frame: the model's window; thin line: the way of its centre so far"
    figure, cells = _sheet(len(pictures) * len(chosen), len(chosen), 1.25, 0.0, title, subtitle, top=0.24)
    for place, cell in enumerate(cells):
        row, column = divmod(place, len(chosen))
        moment = chosen[column]
        _draw_picture(cell, pictures[row], history[moment, row])
        centres = history[: moment + 1, row, :2] + history[: moment + 1, row, 2:] / 2
        for colour, width in (("white", 2.4), (VERMILLION, 1.0)):
            cell.plot(*centres.T, color=colour, linewidth=width, solid_joinstyle="round")
        if row == 0:
            box = cell.cell_box
            figure.text(
                (box[0] + box[2]) / 2,
                box[3] + 0.06 / figure.get_figheight(),
                f"epoch {epochs[moment]}",
                ha="center",
                va="bottom",
                fontsize=TEXT,
            )
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
    n = len(pictures_1)
    subtitle = "below: the model's scores, its choice in bold; framed: the picture that spread further"
    columns = min(3, max(1, n))
    cell, gap = 1.25, 0.3
    rows = math.ceil(n / columns)
    header = _header(title, subtitle)
    width, height = max(4.8, columns * (2 * cell + 0.06 + gap) + 0.1), rows * (cell + 0.62) + header + 0.05
    figure = Figure(figsize=(width, height))
    left = (width - columns * (2 * cell + 0.06 + gap) + gap) / 2
    for index in range(n):
        row, column = divmod(index, columns)
        x = left + column * (2 * cell + 0.06 + gap)
        y = height - header - 0.24 - row * (cell + 0.62) - cell
        first, second, target = float(scores_1[index]), float(scores_2[index]), float(targets[index])
        verdict, colour = _verdict(first, second, target)
        figure.text(
            (x + cell + 0.03) / width,
            (y + cell + 0.05) / height,
            verdict,
            ha="center",
            va="bottom",
            color=colour,
            fontsize=TEXT,
            fontweight="bold",
        )
        sides = (
            (pictures_1[index], first, first > second, target > 0.5),
            (pictures_2[index], second, second > first, target < 0.5),
        )
        for side, (picture, score, chosen, spread) in enumerate(sides):
            axes = _cell(figure, x + side * (cell + 0.06), y, cell, cell)
            _draw_picture(axes, picture)
            if spread:
                axes.add_patch(
                    Rectangle(
                        (0, 0),
                        1,
                        1,
                        transform=axes.transAxes,
                        fill=False,
                        edgecolor=BLACK,
                        linewidth=2.5,
                        clip_on=False,
                    )
                )
            box = axes.cell_box
            text = f"{score:.2f}" + (", spread further" if spread else "")
            figure.text(
                (box[0] + box[2]) / 2,
                box[1] - 0.06 / height,
                text,
                ha="center",
                va="top",
                fontsize=SMALL,
                fontweight="bold" if chosen else "normal",
            )
    _titles(figure, title, subtitle)
    return figure


def _verdict(first: float, second: float, target: float) -> tuple[str, str]:
    if target == 0.5:
        return "equally viral", GREY
    if first == second or math.isnan(first) or math.isnan(second):
        return "undecided", GREY
    return ("✓ right", GREEN) if (first > second) == (target > 0.5) else ("✗ wrong", VERMILLION)


def picture_grid(pictures: Pictures, captions: Sequence[str], title: str = "") -> Figure:
    """Pictures in rows with a caption of up to three lines below each (a `\\n` starts a line)."""
    figure, cells = _sheet(len(pictures), 6, 1.5, 0.45, title, "")
    for cell, picture, caption in zip(cells, pictures, captions, strict=True):
        _draw_picture(cell, picture)
        _caption(figure, cell, str(caption).split("\n"), most=3)
    return figure


# --- shared by the figures above ------------------------------------------------------------------------------------
def _figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of so many inches, laid out by itself."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle("\n".join(_wrap(title, int(width * 11), 2)), fontsize=TITLE, parse_math=False)
    return figure


def _dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=TEXT, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=TEXT, parse_math=False)
    axes.tick_params(labelsize=SMALL + 0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Axes, which: str, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers; over few decades there are ticks between the powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    values = np.asarray(values, float)
    decades = math.log10(values.max() / values.min()) if len(values) and values.min() > 0 else 0
    axis.set_major_locator(LogLocator(10, subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _finite(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]


def _numbers(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(float)


def _tail_end(values: np.ndarray) -> float:
    """Where a long upper tail starts: the highest value where there is none."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.99])
    spread = max(high - middle, 2 * (middle - low))
    return float(min(values.max(), middle + 2 * spread)) if spread > 0 else float(values.max())


def _sheet(
    n: int, most: int, side: float, below: float, title: str, subtitle: str, top: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """n square cells in rows of at most `most`. In inches: a cell's side, the room below a row, above the first.

    Laid out by hand: measuring each text, as matplotlib's own layouts do, takes seconds for a hundred pictures.
    """
    columns = max(1, min(most, n))
    rows = max(1, math.ceil(n / columns))
    gap, header = 0.1, _header(title, subtitle) + top
    width = max(4.0, columns * (side + gap) + gap)
    height = rows * (side + below + gap) + header + gap
    figure = Figure(figsize=(width, height))
    left = (width - columns * (side + gap) + gap) / 2
    cells = []
    for place in range(n):
        row, column = divmod(place, columns)
        cells.append(
            _cell(figure, left + column * (side + gap), height - header - row * (side + below + gap) - side, side, side)
        )
    _titles(figure, title, subtitle)
    return figure, cells


def _cell(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes for a picture at a place in inches. `cell_box` keeps the place, in shares of the figure, for captions."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((x / across, y / up, width / across, height / up))
    axes.cell_box = (x / across, y / up, (x + width) / across, (y + height) / up)
    axes.set_anchor("S")  # pictures stand on their captions
    axes.axis("off")
    return axes


def _header(title: str, subtitle: str) -> float:
    """Inches that the title and the line below it need."""
    return 0.1 + (0.28 if title else 0) + (0.24 if subtitle else 0)


def _titles(figure: Figure, title: str, subtitle: str) -> None:
    width, height = figure.get_size_inches()
    if title:
        size = min(TITLE, max(SMALL, width * 130 / max(1, len(title))))
        figure.text(
            0.5,
            1 - 0.08 / height,
            _shorten(title, int(width * 130 / size)),
            ha="center",
            va="top",
            fontsize=size,
            parse_math=False,
        )
    if subtitle.strip():
        figure.text(
            0.5,
            1 - (0.36 if title else 0.08) / height,
            subtitle,
            ha="center",
            va="top",
            color=GREY,
            fontsize=min(SMALL + 0.5, width * 130 / len(subtitle)),
        )


def _legend(figure: Figure, handles: list[Line2D], title: str) -> None:
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=handles,
        loc="upper center",
        ncols=len(handles),
        fontsize=SMALL + 0.5,
        frameon=False,
        bbox_to_anchor=(0.5, 1 - (0.32 if title else 0.02) / height),
        borderaxespad=0,
    )


def _draw_picture(
    axes: Axes, picture: Image.Image, window: np.ndarray | None = None, truth: np.ndarray | None = None
) -> None:
    width, height = picture.size
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    axes.imshow(np.asarray(small), extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for box, colour, style in ((truth, BLUE, (0, (3, 1.5))), (window, VERMILLION, "-")):
        if box is not None and np.isfinite(box).all():
            # The white line below keeps the coloured one visible on any ground.
            axes.add_patch(Rectangle(box[:2], box[2], box[3], fill=False, edgecolor="white", linewidth=3))
            axes.add_patch(
                Rectangle(box[:2], box[2], box[3], fill=False, edgecolor=colour, linewidth=1.6, linestyle=style)
            )


def _boxes(boxes: np.ndarray | None, n: int) -> np.ndarray:
    """(n, 4) floats; NaN, which is not drawn, where there are none."""
    return np.full((n, 4), np.nan) if boxes is None else np.asarray(boxes, float).reshape(n, 4)


def _caption(figure: Figure, axes: Axes, lines: Sequence[str], bold_first: bool = False, most: int = 2) -> None:
    left, bottom, right, _ = axes.cell_box
    width, height = figure.get_size_inches()
    characters = int((right - left) * width * 72 / (SMALL * 0.58))
    y = bottom - 0.04 / height
    kept = []
    for place, line in enumerate(lines):
        room = most - len(kept) if place == len(lines) - 1 else 1
        kept += [] if room < 1 else _wrap(line, characters, room)
        if bold_first and place == 0:
            figure.text(
                (left + right) / 2,
                y,
                kept.pop(),
                ha="center",
                va="top",
                fontsize=SMALL + 1,
                fontweight="bold",
                parse_math=False,
            )
            y -= 0.14 / height
    figure.text(
        (left + right) / 2, y, "\n".join(kept), ha="center", va="top", fontsize=SMALL, linespacing=1.1, parse_math=False
    )


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

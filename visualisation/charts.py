"""Charts of numbers: learning curves, confusion, distributions, scores against virality, bars, context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from visualisation.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LABEL,
    SKY,
    SMALL,
    TEXT,
    VERMILLION,
    Figure,
    annotate,
    as_floats,
    dress_axes,
    format_number,
    log_axis,
    new_figure,
    shorten,
)

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

    `metrics` has a column `epoch` and numeric columns; NaN values and columns without any number are left out.
    `best_epoch`, if given, is marked in every panel.
    """
    table = metrics.sort_values("epoch")
    panels: dict[str, list[tuple[str, np.ndarray]]] = {}
    for column in table.columns.drop("epoch"):
        values = as_floats(table[column])
        if np.isfinite(values).any():
            split, _, quantity = str(column).partition("_")
            if not quantity or split not in SPLIT_COLOURS:
                split, quantity = "", str(column)
            panels.setdefault(quantity, []).append((split, values))
    count = max(1, len(panels))
    rows = math.ceil(count / 3)
    columns = math.ceil(count / rows)
    figure = new_figure(max(4.2, 3.3 * columns), 2.5 * rows, title)
    figure.data = table
    for place, (quantity, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _curve_panel(axes, table["epoch"].to_numpy(float), lines, best_epoch)
        dress_axes(axes, "epoch", QUANTITIES.get(quantity, quantity.replace("_", " ")))
    if not panels:
        dress_axes(figure.add_subplot(), "epoch", "no numbers yet")
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
        annotate(
            axes, f"best: {best_epoch}", (best_epoch, 1), (0, 2), upright=True, ha="center", va="bottom", color=GREY
        )
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
        annotate(axes, split, point, (6, nudge), va="center", color=SPLIT_COLOURS[split], fontweight="bold")


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts and row percentages. `matrix` (n, n): rows are true classes, columns predicted ones."""
    matrix = np.asarray(matrix)
    n = len(class_names)
    if matrix.shape != (n, n):
        raise ValueError(f"a matrix of {matrix.shape} does not fit {n} class names")
    totals = matrix.sum(axis=1)
    share = np.divide(matrix, totals[:, None], out=np.zeros((n, n)), where=totals[:, None] > 0)
    side, size = (0.78, TEXT) if n <= 4 else (0.62, SMALL) if n <= 10 else (0.47, 6)
    figure = new_figure(side * n + 2.4, side * n + 1.5, title)
    axes = figure.add_subplot()
    colours = axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(n, n):
        red, green, blue, _ = colours.to_rgba(share[row, column])
        ink = "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18 else BLACK
        percent = "<1%" if 0 < share[row, column] < 0.005 else f"{share[row, column]:.0%}"
        text = f"{matrix[row, column]:,}\n{percent}" if matrix[row, column] else "0"
        ink = ink if matrix[row, column] else GREY
        axes.text(column, row, text, ha="center", va="center", fontsize=size, linespacing=1.1, color=ink)
    names = [shorten(name, 18) for name in class_names]
    with_totals = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(n), with_totals, parse_math=False)
    dress_axes(axes, "predicted", "true (pictures in the row)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.data = pd.DataFrame(matrix, columns=list(class_names))
    figure.data.insert(0, "true", list(class_names), allow_duplicates=True)
    return figure


def virality_distribution(v_scores: Sequence[float]) -> Figure:
    """Histogram of the virality scores of a set of images, with their median and mean."""
    values = np.asarray(v_scores, float).ravel()
    values = values[np.isfinite(values)]
    figure = new_figure(5.6, 3.2)
    figure.data = pd.DataFrame({"v_score": values})
    axes = figure.add_subplot()
    if len(values):
        # The long tail would squeeze everything else into two bars: the last bar holds all that lies beyond it.
        low, high = values.min(), _tail_end(values)
        low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
        edges = np.linspace(low, high, min(60, max(5, int(2 * len(values) ** 0.5))) + 1)
        beyond = int((values > high).sum())
        axes.hist(np.clip(values, None, high), bins=edges, color=SKY, edgecolor="white", linewidth=0.4)
        if beyond:
            text = (
                f"the last bar holds the {beyond:,}\nabove {format_number(high)}; highest {format_number(values.max())}"
            )
            annotate(axes, text, (high, 0.5), upright=True, ha="right", va="center", color=GREY)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.12)
        marks = sorted([(float(np.median(values)), "median", "-"), (float(values.mean()), "mean", "--")])
        for (value, name, style), across, shift in zip(marks, ("right", "left"), (-4, 4), strict=True):
            axes.axvline(value, color=BLACK, linewidth=1.2, linestyle=style)
            annotate(
                axes, f"{name} {format_number(value)}", (value, 0.98), (shift, 0), upright=True, ha=across, va="top"
            )
    dress_axes(axes, "virality score V", f"images (of {len(values):,})")
    return figure


def submissions_per_image(counts: Sequence[int]) -> Figure:
    """Histogram of submissions per image, both axes logarithmic. `counts`: submissions of each image, from 1."""
    counts = np.asarray(counts, int)
    counts = counts[counts > 0]
    figure = new_figure(5.0, 3.4)
    axes = figure.add_subplot()
    if len(counts):
        times, images = np.unique(counts, return_counts=True)
        figure.data = pd.DataFrame({"submissions": times, "images": images})
        axes.scatter(times, images, s=18, color=BLUE, alpha=0.75, linewidths=0)
        axes.axvline(counts.mean(), color=GREY, linewidth=1, linestyle="--")
        annotate(axes, f"mean {counts.mean():.1f}", (counts.mean(), 0.98), (4, 0), upright=True, va="top", color=GREY)
        text = f"of {len(counts):,} images\n{(counts == 1).mean():.0%} submitted once\nat most {counts.max():,} times"
        axes.text(0.98, 0.86, text, transform=axes.transAxes, ha="right", va="top", fontsize=LABEL)
        log_axis(axes, "x", times)
        log_axis(axes, "y", images)
    dress_axes(axes, "submissions of an image", "images submitted so often")
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
    figure = new_figure(4.8, 3.8, title)
    figure.data = pd.DataFrame({"v_score": values, "score": scores})
    axes = figure.add_subplot()
    size, alpha = (16, 0.6) if len(scores) <= 1000 else (5, 0.25)
    axes.scatter(values, scores, s=size, color=BLUE, alpha=alpha, linewidths=0)
    paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
    if len(scores) >= 40:
        tenths = np.array_split(np.argsort(values, kind="stable"), 10)
        x, y = [np.median(values[tenth]) for tenth in tenths], [np.median(scores[tenth]) for tenth in tenths]
        axes.plot(x, y, color=VERMILLION, linewidth=1.8, marker="o", markersize=4)
        style = {"color": VERMILLION, "fontweight": "bold", "bbox": paper}
        annotate(axes, "median of each tenth", (x[-1], y[-1]), (-4, 9), ha="right", **style)
    label = "virality score V"
    if len(values) and values.max() > 2 * _tail_end(values) > 0:
        # A few images spread many times further than the rest, which would otherwise be one column of dots.
        axes.set_xscale("symlog", linthresh=max(1.0, float(np.quantile(np.abs(values), 0.9))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value, "g")))
        label += " (logarithmic in the tail)"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top", fontsize=TEXT, parse_math=False, bbox=paper)
    dress_axes(axes, label, "score given by the model")
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
    figure = new_figure(5.6, 0.3 * n + 0.9, title)
    ends = {} if errors is None else {"low": values - reach[0], "high": values + reach[1]}
    figure.data = pd.DataFrame({"name": list(labels), "value": values, **ends})
    axes = figure.add_subplot()
    whiskers = {"elinewidth": 1.2, "capsize": 2.5 if errors is not None else 0}
    axes.barh(range(n), lengths, color=SKY, height=0.7, xerr=reach, error_kw=whiskers)
    for place, length in enumerate(lengths):
        text = (
            "not known" if np.isnan(values[place]) else format_number(length, ",.3g" if abs(length) < 1000 else ",.0f")
        )
        right = length >= 0
        point = (length + (reach[1, place] if right else -reach[0, place]), place)
        annotate(axes, text, point, (4 if right else -4, 0), va="center", ha="left" if right else "right")
    axes.set_yticks(range(n), [shorten(label, 36) for label in labels], parse_math=False)
    axes.set_ylim(n - 0.4, -0.6)
    axes.margins(x=0.16)
    dress_axes(axes, xlabel, "")
    axes.tick_params(axis="y", length=0)
    if n and lengths.min() < 0:
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.spines["left"].set_visible(False)
    else:
        axes.set_xlim(left=0)
    return figure


CONTEXT_STYLES = {"found": (BLUE, "o", BLUE), "published": (VERMILLION, "D", "white"), "label": (GREY, "o", "white")}


def context_chart(table: pd.DataFrame, ceiling: float | None = None) -> Figure:
    """Shares of pairs ranked correctly, one panel per set of pairs: dots with intervals, published figures hollow.

    `table` has method, title (of the set), value, low, high (shares, 0 to 1; NaN: no interval) and kind (found,
    published, or label for what is part of the label). `ceiling`, the most that a perfect ranker reaches on all pairs,
    is marked in the panel of that title.
    """
    titles, methods = list(table["title"].unique()), list(table["method"].unique())
    figure = new_figure(2.6 + 1.9 * len(titles), 0.9 + 0.34 * len(methods))
    figure.data = table
    low, high = table[["value", "low"]].min().min(), table[["value", "high"]].max().max()
    for place, title in enumerate(titles, start=1):
        axes = figure.add_subplot(1, len(titles), place)
        axes.axvline(50, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        for row in table[table["title"] == title].itertuples():
            y, (colour, marker, face) = methods.index(row.method), CONTEXT_STYLES[row.kind]
            if np.isfinite(row.low):
                axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6, zorder=2)
            axes.plot(100 * row.value, y, marker, color=colour, markersize=5, markerfacecolor=face, zorder=3)
        if ceiling is not None and title == "all pairs":
            axes.axvline(100 * ceiling, color=GREEN, linewidth=1.4, zorder=1)
            annotate(axes, "ceiling", (100 * ceiling, 0), (-3, 0), ha="right", va="center", color=GREEN)
        axes.set_xlim(100 * min(low, 0.45) - 2, 100 * max(high, 0.75) + 2)
        axes.set_title(title, fontsize=TEXT)
        dress_axes(axes, "% of pairs right", "")
        axes.set_yticks(range(len(methods)), [shorten(name, 44) if place == 1 else "" for name in methods])
        axes.tick_params(axis="y", left=False)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    return figure


def _tail_end(values: np.ndarray) -> float:
    """Where a long upper tail may be cut; the highest value where there is none."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.99])
    spread = max(high - middle, 2 * (middle - low))
    return float(min(values.max(), middle + 2 * spread)) if spread > 0 else float(values.max())

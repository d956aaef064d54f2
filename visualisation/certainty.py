"""Charts of how far a figure can be trusted: values with their intervals, reliability, accuracy over the surest."""

from __future__ import annotations

import numpy as np
import pandas as pd

from visualisation.drawing import (
    BLACK,
    BLUE,
    GREY,
    LABEL,
    SKY,
    VERMILLION,
    Figure,
    annotate,
    as_floats,
    dress_axes,
    format_number,
    new_figure,
    wrap,
)


def interval_chart(
    table: pd.DataFrame, baseline: float | None = None, xlabel: str = "", title: str = "", baseline_name: str = "chance"
) -> Figure:
    """A dot for each row, the first on top, with a line for its interval, its value and n.

    `table`: name, value, low and high (NaN if there is no interval), and optionally n, and published (bool: figures of
    others are hollow). `baseline` is drawn as a dashed line across all rows.
    """
    values, low, high = (as_floats(table[column]) for column in ("value", "low", "high"))
    n = len(table)
    figure = new_figure(6.2, 0.45 * n + 0.9, title)
    figure.data = table
    axes = figure.add_subplot()
    published = table["published"].astype(bool) if "published" in table else pd.Series([False] * n)
    for place, hollow in enumerate(published):
        colour = VERMILLION if hollow else BLUE
        axes.plot([low[place], high[place]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        inside = "white" if hollow else colour
        axes.plot(values[place], place, "o", color=colour, markersize=6.5, markerfacecolor=inside)
    counts = as_floats(table["n"]) if "n" in table else np.full(n, np.nan)
    for place, (value, count) in enumerate(zip(values, counts, strict=True)):
        text = format_number(value, ".3f") + (f"   n {count:,.0f}" if np.isfinite(count) else "")
        right = np.nanmax([value, high[place]])
        annotate(axes, text, (right, place), (7, 0), va="center")
    axes.set_ylim(n - 0.5, -0.6)
    axes.set_yticks(range(n), ["\n".join(wrap(name, 26, 2)) for name in table["name"]], parse_math=False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.3)
    dress_axes(axes, xlabel, "")
    axes.tick_params(axis="y", length=0)
    if baseline is not None:
        axes.axvline(baseline, color=GREY, linewidth=1, linestyle="--", zorder=0)
        text = f"{baseline_name} ({format_number(baseline, 'g')})"
        annotate(axes, text, (baseline, 1), (0, 2), upright=True, ha="center", va="bottom", color=GREY)
    return figure


def reliability_diagram(bins: pd.DataFrame, title: str = "", note: str = "") -> Figure:
    """Reliability diagram: accuracy against confidence; a calibrated model lies on the diagonal.

    `bins`: confidence (mean, 0.5 to 1), accuracy (0 to 1), n (pairs); the panel below shows the pairs per bin. `note`
    is written into the corner.
    """
    confidence, accuracy, n = (as_floats(bins[column]) for column in ("confidence", "accuracy", "n"))
    figure = new_figure(4.8, 4.4, title)
    figure.data = bins
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    start = float(np.nanmin([0.5, *confidence]))
    upper.plot([start, 1], [start, 1], color=GREY, linewidth=1, linestyle="--")
    upper.plot(confidence, accuracy, color=BLUE, linewidth=1.4, marker="o", markersize=5)
    meaning = {"transform": upper.transAxes, "fontsize": LABEL, "color": GREY, "ha": "right", "va": "bottom"}
    upper.text(0.98, 0.03, "dashed: right as often as it says", **meaning)
    upper.margins(y=0.08)
    upper.text(0.03, 0.97, note, transform=upper.transAxes, va="top", fontsize=LABEL, parse_math=False)
    width = 0.7 * (np.diff(np.sort(confidence)).min() if len(confidence) > 1 else 0.1)
    lower.bar(confidence, n, width=max(width, 0.01), color=SKY)
    lower.set_ylim(0, max(1.0, np.nanmax([1, *n])) * 1.3)
    for each, count in zip(confidence, n, strict=True):
        annotate(lower, f"{count:,.0f}", (each, count), (0, 1), ha="center", va="bottom", fontsize=6.5)
    dress_axes(upper, "", "share of pairs that it has right")
    dress_axes(lower, "how sure it says that it is", "pairs")
    return figure


def coverage_curve(coverage: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy on the most confident pairs, from few of them to all.

    `coverage`: share of the pairs kept, the most confident first (0 to 1), and the accuracy on them (0 to 1).
    """
    table = coverage.sort_values("share")
    share, accuracy = as_floats(table["share"]), as_floats(table["accuracy"])
    figure = new_figure(4.8, 3.2, title)
    figure.data = table
    axes = figure.add_subplot()
    axes.plot(share, accuracy, color=BLUE, linewidth=1.6, marker="o" if len(share) <= 30 else "", markersize=4)
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle="--")
    annotate(axes, "chance 0.5", (0.01, 0.5), (0, 3), color=GREY, va="bottom")
    for place, across in ((0, "left"), (len(share) - 1, "right")):
        if len(share):
            text = format_number(accuracy[place], ".3f")
            annotate(axes, text, (share[place], accuracy[place]), (0, 6), ha=across, va="bottom", color=BLACK)
    axes.set_xlim(0, 1.02)
    axes.margins(y=0.15)
    dress_axes(axes, "share of the pairs, the surest first", "share of them that it has right")
    return figure

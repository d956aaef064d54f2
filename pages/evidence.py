"""Context for a run's accuracy: clock and community, calibration, the deletion test, copies found.

Each section appears where the run's results hold its data:

context      {"clock": {"value", "low", "high", "n"}, "community": …, …}: pair accuracy of each on the same test pairs
calibration  {"temperature", "log_loss", "brier", "ece", "ece_low", "ece_high",
              "bins": [{"confidence", "accuracy", "n"}, …], "coverage": [{"share", "accuracy"}, …]}
deletion     {"window": {"value", "low", "high", "n"}, "random": …, "centre": …}: how far the score changes when that
              part of the picture is covered, in the unit that "unit" names; studies.windows writes it to deletion.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import visualisation
from context_measures.tables import as_table
from pages.figures import csv_address, drawn
from pages.measures import html_table, interval_text, is_number, measures_table, name_of, value_text
from pages.template import escape
from utils import UserError, read_csv, read_json

CONTEXT = {
    "ranker": "This ranker, from the picture",
    "clock": "The clock: the older picture",
    "community": "The community of its first post",
    "context": "Clock and community together",
    "hour": "The hour of its first post",
    "title": "The words of its title",
    "submissions": "How often it was posted (a part of the label)",
}
DELETION = {
    "window": "The model's window",
    "random": "A random window of that size",
    "centre": "The centre, as large",
}


def sections(results: dict[str, Any]) -> str:
    """The sections whose data the results hold."""
    parts = [context_section(results), calibration_section(results), deletion_section(results)]
    return "\n".join(part for part in parts if part)


# --- clock and community --------------------------------------------------------------------------------------------
def context_section(results: dict[str, Any]) -> str:
    """The ranker's pair accuracy beside what needs no picture, on the same test pairs."""
    if "context" not in results:
        return ""
    heading = "<h2>What clock and community reach on the same test pairs</h2>"
    context, test = results["context"], results.get("test")
    test = test if isinstance(test, dict) else {}
    ranker = {"value": test.get("pair_accuracy"), "n": test.get("pairs")}
    ranker |= {end: test.get(f"pair_accuracy_{end}") for end in ("low", "high")}
    table, left_out = entries({"ranker": ranker} | (context if isinstance(context, dict) else {}), CONTEXT)
    if not len(table[table["key"] != "ranker"]):
        return f"{heading}\n<p>results.json holds no figure of clock or community.</p>"
    chart = visualisation.interval_chart(
        table.drop(columns="key"), 0.5, "share of the test pairs in the right order (95 % interval)"
    )
    see = f"{_against_context(table)} None of the others looks at a picture."
    block = drawn(chart, "context", "The ranker beside rankings that look at no picture.", see)
    return "\n".join([heading, block, _as_table(table, "ranked by", "pair accuracy"), left_out])


def _against_context(table: pd.DataFrame) -> str:
    """How the ranker's interval lies to that of the best without a picture."""
    ranker, others = table[table["key"] == "ranker"], table[table["key"] != "ranker"]
    best = others.loc[others["value"].idxmax()]
    if ranker.empty:
        return f"The best of them is right on {best['value']:.1%} of the pairs."
    ranker = ranker.iloc[0]
    if ranker[["low", "high"]].isna().any() or best[["low", "high"]].isna().any():
        return "Without an interval it cannot be said whether the picture adds anything."
    if ranker["low"] > best["high"]:
        return f"The ranker is right more often than the best of them, “{best['name']}”: the intervals do not touch."
    if ranker["high"] < best["low"]:
        return f"The ranker is right less often than “{best['name']}”: here the picture says less than its context."
    return f"The intervals of the ranker and of “{best['name']}” overlap: these pairs do not tell the two apart."


def surroundings_section(file: Path | None) -> str:
    """How far rankings without a picture get on the whole data set, from context.py's context.json; None: none."""
    if file is None:
        return ""
    heading = "<h2>What surrounds the posts, on the whole data set</h2>"
    try:
        found = read_json(file)
        table, ceiling = as_table(found), (found.get("ceiling") or {}).get("value")
        if table.empty:
            raise ValueError("it holds no figures")
        chart = visualisation.context_chart(table, ceiling)
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{heading}\n<p>{escape(file.name)} cannot be drawn: {escape(error)}</p>"
    caption = "Share of pairs that each puts in the right order, for each set of pairs, with its 95 % interval."
    see = (
        "Guessing is right on half of the pairs (dashed): an interval that holds the dashed line has found nothing. On "
        "controlled pairs, of one community and near in time, age and community should find nothing. The number of "
        "posts is a part of the label and explains nothing."
    )
    rows = _as_table(
        table.assign(name=table["title"] + ": " + table["method"]), "pairs, and ranked by", "share in order"
    )
    numbers = f"<details><summary>The numbers of this figure</summary>{rows}</details>"
    return f"{heading}\n{drawn(chart, 'surroundings', caption, see)}\n{numbers}"


# --- calibration ----------------------------------------------------------------------------------------------------
def calibration_section(results: dict[str, Any]) -> str:
    """How sure the ranker says that it is, against how often it is right."""
    if "calibration" not in results:
        return ""
    heading = "<h2>How sure the ranker is, and how often it is right</h2>"
    found = results["calibration"]
    if not isinstance(found, dict):
        return f"{heading}\n<p>results.json holds no calibration that can be drawn.</p>"
    parts = [heading, measures_table(found)]
    bins = _points(found.get("bins"), ["confidence", "accuracy", "n"])
    coverage = _points(found.get("coverage"), ["share", "accuracy"])
    if len(bins):
        interval = interval_text(found.get("ece_low"), found.get("ece_high"))
        note = f"calibration error {value_text(found.get('ece'))}" + (f"\n({interval})" if interval else "")
        caption = "Reliability: how often it is right, against how sure it says that it is."
        see = "Dots below the dashed line: it is too sure of itself; above: not sure enough. Dots of few pairs scatter."
        parts.append(drawn(visualisation.reliability_diagram(bins, note=note), "reliability", caption, see))
    if len(coverage):
        caption = "Accuracy on the pairs that it is surest of."
        see = "If its confidence means something, the line falls from left to right, to the accuracy on all pairs."
        if len(bins):
            see += f" Those are {int(bins['n'].sum()):,}; the points on the left are of few, and have no intervals."
        parts.append(drawn(visualisation.coverage_curve(coverage), "coverage", caption, see))
    for name, points in (("bins", bins), ("coverage", coverage)):
        if name in found and not len(points):
            parts.append(f"<p>calibration.{name} in results.json holds no numbers that can be drawn.</p>")
    return "\n".join(parts)


# --- the deletion test ----------------------------------------------------------------------------------------------
def deletion_section(results: dict[str, Any]) -> str:
    """How far the score changes when the window, or another part as large, is covered."""
    if "deletion" not in results:
        return ""
    heading = "<h2>Deletion test: does the score hang on the window?</h2>"
    deletion = results["deletion"] if isinstance(results["deletion"], dict) else {}
    unit = deletion.get("unit")
    table, left_out = entries({key: value for key, value in deletion.items() if key != "unit"}, DELETION)
    if table.empty:
        return f"{heading}\n<p>results.json holds no figure of a deletion test.</p>"
    label = "how far the score changes (95 % interval)" + (f"\n{unit}" if isinstance(unit, str) else "")
    chart = visualisation.interval_chart(table.drop(columns="key"), 0, label, baseline_name="no change")
    caption = "How far the score changes when a part of the picture is covered."
    see = "A window that matters changes more than any other part of the same size. "
    block = drawn(chart, "deletion", caption, see + _against_random(table))
    return "\n".join([heading, block, _as_table(table, "covered", "change of the score"), left_out])


def _against_random(table: pd.DataFrame) -> str:
    value = table.set_index("key")["value"]
    if not {"window", "random"} <= set(value.index):
        return ""
    if value["random"] <= 0:
        return f"Here: {value_text(value['window'])}, against {value_text(value['random'])} of a random one."
    return f"Here it changes {value['window'] / value['random']:.1f} times as much as a random one."


# --- copies ---------------------------------------------------------------------------------------------------------
def copies_section(file: Path | None, page: str | None) -> str:
    """How many copies duplicates.py has found. `file`: groups.csv (img_id, group); `page`: the address of the page that
    shows them; either may be None."""
    if file is None:
        return ""
    heading = "<h2>Copies found</h2>"
    try:
        groups = read_csv(file, ["img_id", "group"], dtype=str, keep_default_na=False)
    except UserError as error:
        return f"{heading}\n<p>{escape(error)}</p>"
    sizes = groups[groups["group"] != ""].groupby("group").size()
    sizes = sizes[sizes > 1]
    if sizes.empty:
        return f"{heading}\n<p>No two of the {len(groups):,} pictures are copies of one another.</p>"
    said = (
        f"{sizes.sum():,} pictures are in {len(sizes):,} groups of copies; the largest holds {sizes.max():,}. "
        "Copies in two splits would be recognised, not judged: a column group in the tables keeps them in one."
    )
    counts = sizes.value_counts().sort_index()
    rows = [(f"{size:,}", f"{count:,}") for size, count in counts.items()]
    table = html_table({"pictures in a group": "", "groups": "number"}, rows)
    links = f'<a download="groups.csv" href="{csv_address(groups)}">Download the groups as CSV</a>'
    links += f' · <a href="{escape(page)}">Look at them, and undo what is wrong</a>' if page else ""
    return f"{heading}\n<p>{escape(said)}</p>\n{table}\n<p>{links}</p>"


# --- shared ---------------------------------------------------------------------------------------------------------
def entries(found: dict[str, Any], names: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """The entries with a number, as key, name, value, low, high, n; and a line that names those without one."""
    order = [*(key for key in names if key in found), *(key for key in found if key not in names)]
    number = lambda value: float(value) if is_number(value) else float("nan")  # noqa: E731
    rows, hollow = [], []
    for key in order:
        entry = found[key] if isinstance(found[key], dict) else {}
        if is_number(entry.get("value")):
            numbers = [number(entry.get(part)) for part in ("value", "low", "high", "n")]
            rows.append([key, names.get(key) or name_of(key), *numbers])
        elif key != "ranker":
            hollow.append(key)
    table = pd.DataFrame(rows, columns=["key", "name", "value", "low", "high", "n"])
    return table, f"<p>results.json holds no number for {escape(', '.join(hollow))}.</p>" if hollow else ""


def _as_table(table: pd.DataFrame, what: str, measure: str) -> str:
    columns = {what: "", measure: "number", "95 % interval": "number", "n": "number"}
    rows = [
        (row.name, value_text(row.value), interval_text(row.low, row.high), "" if row.n != row.n else value_text(row.n))
        for row in table.itertuples(index=False)
    ]
    return html_table(columns, rows)


def _points(found: Any, columns: list[str]) -> pd.DataFrame:
    """The points of a curve that have all their numbers; none if there is no such list."""
    points = [point for point in found if isinstance(point, dict)] if isinstance(found, list) else []
    rows = [[point.get(column) for column in columns] for point in points]
    return pd.DataFrame([row for row in rows if all(map(is_number, row))], columns=columns)

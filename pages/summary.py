"""One table of all runs of a pipeline, and where everything is.

python -m pages.summary outputs/sample     reads */results.json, writes summary.csv and each run's report.html

For a run with --seeds or --folds it reads seeds.json: the mean over the runs ± their standard deviation, and the 95 %
interval of that mean. A run without a test figure is reported and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from pages.measures import is_number
from pages.report import report_page
from pages.template import whole_text
from utils import UserError, duration, read_json, run_main, without_formulas, write_csv

MEASURES = {"pair_accuracy": "test pair accuracy", "accuracy": "test accuracy"}


def read_results(folder: Path) -> dict[str, Any]:
    """results.json; of a run with several seeds or folds, the means of seeds.json in its shape, with `several`."""
    path = folder / "seeds.json"
    if not path.is_file():
        return _dict(read_json(folder / "results.json"))
    found = _dict(read_json(path))
    measures = {
        name: value for name, value in found.items() if isinstance(value, dict) and is_number(value.get("mean"))
    }
    test = {name: value["mean"] for name, value in measures.items()}
    test |= {f"{name}_{end}": value.get(end) for name, value in measures.items() for end in ("low", "high")}
    about = {"configuration": found.get("configuration"), "n": found.get("n"), "train_seconds": test.get("seconds")}
    several = next((measures[name] for name in MEASURES if name in measures), {})
    about |= {"context": {"clock": {"value": mean_clock(folder)}}}
    return about | {"test": test, "several": {"std": several.get("std"), "runs": several.get("n")}}


def mean_clock(folder: Path) -> float | None:
    """The mean of what the clock reaches on the test pairs of each seed or fold; None if a run does not say."""
    try:
        runs = [_dict(read_json(path)) for path in sorted(folder.glob("*/results.json"))]
    except UserError:
        return None
    found = [_dict(_dict(run.get("context")).get("clock")).get("value") for run in runs]
    return sum(found) / len(found) if found and all(map(is_number, found)) else None


def row_of(folder: Path) -> dict[str, Any]:
    """A run's results in one row: the test figure with its interval, and its baselines: chance, and the accuracy of the
    clock alone on the same pairs (the older picture first).

    For several seeds or folds: the mean, its interval, the standard deviation. Raises UserError if there is no test
    figure; other missing numbers are None.
    """
    results = read_results(folder)
    test, several = _dict(results.get("test")), _dict(results.get("several"))
    measure = next((name for name in MEASURES if is_number(test.get(name))), None)
    if measure is None:
        name = "seeds.json" if several else "results.json"
        raise UserError(f"{folder / name} holds neither test.pair_accuracy nor test.accuracy")
    number = lambda part, key: part[key] if is_number(part.get(key)) else None  # noqa: E731
    classes = results.get("classes")
    guessing = 1 / len(classes) if isinstance(classes, list) and classes else None
    return {
        "run": folder.name,
        "model": _dict(results.get("configuration")).get("model_name"),
        "measure": MEASURES[measure],
        "value": test[measure],
        **{key: number(several, key) for key in several},
        "low": number(test, f"{measure}_low"),
        "high": number(test, f"{measure}_high"),
        "n": number(_dict(results.get("n")), "test"),
        "chance": 0.5 if measure == "pair_accuracy" else guessing,
        "clock": number(_dict(_dict(results.get("context")).get("clock")), "value"),
        "noise ceiling": number(test, "noise_ceiling"),
        "pointing": number(test, "pointing_accuracy"),
        "scale": number(test, "mean_scale"),
        "seconds": number(results, "train_seconds"),
    }


def _dict(value: Any) -> dict[str, Any]:
    """Itself, or none for what should have been a dict and is something else."""
    return value if isinstance(value, dict) else {}


def as_text(table: pd.DataFrame) -> str:
    """The table for a terminal: percentages with their 95 % interval, blank if a run has no such figure."""
    percent = lambda value: "" if pd.isna(value) else f"{value:.1%}"  # noqa: E731
    whole = lambda value: "" if pd.isna(value) else f"{value:.0f}"  # noqa: E731
    shown = table[["run", "model", "measure"]].fillna("")
    shown["test"] = table["value"].map(percent)
    if "std" in table:
        several = table["std"].notna()
        shown.loc[several, "test"] += " ± " + table["std"][several].map("{:.1%}".format)
        shown["runs"] = table["runs"].fillna(1).astype(int)
    known = table["low"].notna() & table["high"].notna()
    intervals = table["low"].map(percent) + " to " + table["high"].map(percent)
    shown["95 % interval"] = intervals.where(known, "")
    for column in ("chance", "clock", "noise ceiling", "pointing", "scale"):
        shown[column] = table[column].map(percent)
    shown["test pictures"] = table["n"].map(whole)
    shown["trained in"] = ["" if pd.isna(value) else duration(value) for value in table["seconds"]]
    return shown.to_string(index=False)


def read_rows(runs: list[Path]) -> pd.DataFrame:
    """One row per run; a run whose results cannot be used is reported on standard error."""
    rows = []
    for run in runs:
        try:
            rows.append(row_of(run))
        except UserError as error:
            print(whole_text(f"left out: {' '.join(str(error).split())}"), file=sys.stderr)
    if not rows:
        raise UserError(f"none of the {len(runs)} runs has results that can be used")
    table = pd.DataFrame(rows)
    return table.astype({column: float for column in table if column not in ("run", "model", "measure", "n", "runs")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the folder of a pipeline's runs")
    folder = Path(parser.parse_args().folder)
    runs = sorted({path.parent for name in ("results", "seeds") for path in folder.glob(f"*/{name}.json")})
    if not runs:
        raise UserError(f"{folder} holds no finished run (no */results.json, no */seeds.json)")
    table = read_rows(runs)
    write_csv(folder / "summary.csv", without_formulas(table))
    print(whole_text(as_text(table)))
    runs_of = table["runs"].fillna(1) if "runs" in table else 1
    if (seconds := (table["seconds"] * runs_of).sum()) > 0:
        each = "; of several seeds or folds the table says the mean" if "runs" in table else ""
        print(f"training took {duration(seconds)} in all{each}")
    folders = sorted({path.parent for each in ("*", "*/*") for path in folder.glob(f"{each}/results.json")})
    reports = [report_page(each) for each in folders if each in runs or each.parent in runs]
    made = [folder / "summary.csv", *reports, *sorted(folder.glob("ranks.csv")), *sorted(folder.glob("*.html"))]
    print(whole_text("\nwhere everything is:\n" + "\n".join(f"  {path}" for path in made)))


if __name__ == "__main__":
    run_main(main)

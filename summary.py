"""One table of all runs of a pipeline, and where everything is.

python summary.py outputs/sample            reads */results.json, writes summary.csv and each run's report.html

Of a run with --seeds or --folds it reads seeds.json: the mean over the runs ± their standard deviation, and the 95 %
interval of that mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import pages
from utils import UserError, read_json, run_main, write_csv


def row_of(folder: Path) -> dict[str, Any]:
    """What a run's results.json says, in one row: the test figure with its interval, and what it stands beside."""
    if (folder / "seeds.json").is_file():
        return row_of_seeds(folder)
    results = read_json(folder / "results.json")
    test, config = results["test"], results["configuration"]
    siamese = "pair_accuracy" in test
    measure = "pair_accuracy" if siamese else "accuracy"
    beside = {"chance": 0.5 if siamese else 1 / max(1, len(results.get("classes", []))), "noise ceiling": None}
    if "noise_ceiling" in test:
        beside["noise ceiling"] = test["noise_ceiling"]
    return {
        "run": folder.name,
        "model": config["model_name"],
        "measure": "test pair accuracy" if siamese else "test accuracy",
        "value": test[measure],
        "low": test[f"{measure}_low"],
        "high": test[f"{measure}_high"],
        "n": results["n"]["test"],
        **beside,
        "pointing": test.get("pointing_accuracy"),
        "scale": test.get("mean_scale"),
        "seconds": results["train_seconds"],
    }


def row_of_seeds(folder: Path) -> dict[str, Any]:
    """The same of a run over several seeds or folds: the mean, its interval, the standard deviation."""
    summary = read_json(folder / "seeds.json")
    siamese = "pair_accuracy" in summary
    measure = summary["pair_accuracy" if siamese else "accuracy"]
    mean_of = {name: value["mean"] for name, value in summary.items() if isinstance(value, dict) and "mean" in value}
    return {
        "run": folder.name,
        "model": summary["configuration"]["model_name"],
        "measure": "test pair accuracy" if siamese else "test accuracy",
        "value": measure["mean"],
        "std": measure["std"],
        "runs": measure["n"],
        "low": measure.get("low"),
        "high": measure.get("high"),
        "n": summary["n"]["test"],
        "chance": 0.5 if siamese else None,
        "noise ceiling": mean_of.get("noise_ceiling"),
        "pointing": mean_of.get("pointing_accuracy"),
        "scale": mean_of.get("mean_scale"),
        "seconds": mean_of["seconds"],
    }


def as_text(table: pd.DataFrame) -> str:
    """The table for a terminal: percentages with their 95 % interval, blanks where a run has no such figure."""
    percent = lambda value: "" if pd.isna(value) else f"{value:.1%}"  # noqa: E731
    shown = table[["run", "model", "measure"]].copy()
    shown["test"] = table["value"].map(percent)
    if "std" in table:
        several = table["std"].notna()
        shown.loc[several, "test"] += " ± " + table["std"][several].map("{:.1%}".format)
        shown["runs"] = table["runs"].fillna(1).astype(int)
    shown["95 % interval"] = [
        f"{percent(low)} to {percent(high)}" for low, high in zip(table.low, table.high, strict=True)
    ]
    for column in ("chance", "noise ceiling", "pointing", "scale"):
        shown[column] = table[column].map(percent)
    shown["test pictures"], shown["trained in"] = table["n"], table["seconds"].map("{:.0f} s".format)
    return shown.to_string(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the folder of a pipeline's runs")
    folder = Path(parser.parse_args().folder)
    runs = sorted({path.parent for name in ("results", "seeds") for path in folder.glob(f"*/{name}.json")})
    if not runs:
        raise UserError(f"{folder} holds no finished run (no */results.json, no */seeds.json)")
    table = pd.DataFrame([row_of(run) for run in runs])
    write_csv(folder / "summary.csv", table)
    print(as_text(table))
    reports = [pages.report_page(run) for run in runs if (run / "results.json").is_file()]
    made = [folder / "summary.csv", *reports, *sorted(folder.glob("ranks.csv")), *sorted(folder.glob("*.html"))]
    print("\nwhere everything is:\n" + "\n".join(f"  {path}" for path in made))


if __name__ == "__main__":
    run_main(main)

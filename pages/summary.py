"""One table of all runs of a pipeline, and where everything is.

python -m pages.summary outputs/sample     reads */results.json, writes summary.csv and each run's report.html

Of a run with --seeds or --folds it reads seeds.json: the mean over the runs ± their standard deviation, and the 95 %
interval of that mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from pages.report import report_page
from utils import UserError, read_json, run_main, write_csv


def read_results(folder: Path) -> dict[str, Any]:
    """results.json; of a run with several seeds or folds, the means of seeds.json in its shape, with `several`."""
    if not (folder / "seeds.json").is_file():
        return read_json(folder / "results.json")
    found = read_json(folder / "seeds.json")
    measures = {name: value for name, value in found.items() if isinstance(value, dict) and "mean" in value}
    several = measures["pair_accuracy" if "pair_accuracy" in measures else "accuracy"]
    test = {name: value["mean"] for name, value in measures.items()}
    test |= {f"{name}_{end}": value.get(end) for name, value in measures.items() for end in ("low", "high")}
    about = {"configuration": found["configuration"], "n": found["n"], "train_seconds": test["seconds"]}
    return about | {"test": test, "several": {"std": several["std"], "runs": several["n"]}}


def row_of(folder: Path) -> dict[str, Any]:
    """What a run's results say, in one row: the test figure with its interval, and what it stands beside.

    Over several seeds or folds: the mean, its interval, the standard deviation.
    """
    results = read_results(folder)
    test, config = results["test"], results["configuration"]
    siamese = "pair_accuracy" in test
    measure = "pair_accuracy" if siamese else "accuracy"
    classes = len(results.get("classes", []))
    return {
        "run": folder.name,
        "model": config["model_name"],
        "measure": "test pair accuracy" if siamese else "test accuracy",
        "value": test[measure],
        **results.get("several", {}),
        "low": test[f"{measure}_low"],
        "high": test[f"{measure}_high"],
        "n": results["n"]["test"],
        "chance": 0.5 if siamese else 1 / classes if classes else None,
        "noise ceiling": test.get("noise_ceiling"),
        "pointing": test.get("pointing_accuracy"),
        "scale": test.get("mean_scale"),
        "seconds": results["train_seconds"],
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
    reports = [report_page(run) for run in runs if (run / "results.json").is_file()]
    made = [folder / "summary.csv", *reports, *sorted(folder.glob("ranks.csv")), *sorted(folder.glob("*.html"))]
    print("\nwhere everything is:\n" + "\n".join(f"  {path}" for path in made))


if __name__ == "__main__":
    run_main(main)

"""Compare networks: cost, accuracy, which of them are Pareto optimal, and which one to continue with.

    python -m studies.comparison --data_path data/sample --weights none --image_size 64 --epochs 8

Trains each of --networks with the flags of train_classifier.py, in --save_dir/<network>; a killed run resumes with the
same command. Writes a folder per run, comparison.csv, comparison.png and choice.json into --save_dir.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import distributed
import train_classifier
import training
import visualisation
from backbones import NETWORKS
from utils import print_configuration, run_main, write_csv, write_json

RANKERS = ("alexnet", "densenet")  # of the four, those whose rankers have been tried at length


def row_of(model_name: str, results: dict[str, Any]) -> dict[str, Any]:
    """A network's row, from the results.json of its run."""
    test = results["test"]
    figures = {key: test[key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
    kept = ("parameters", "multiply_adds", "train_images_per_second", "peak_memory_mib", "file_mib", "train_seconds")
    return {
        "model": model_name,
        **figures,
        **{key: results[key] for key in kept},
        "inference_images_per_second": results["images_per_second"],
    }


def pareto_front(table: pd.DataFrame, best_high: tuple[str, ...] = ("accuracy", "inference_images_per_second")) -> list:
    """Whether each row is Pareto optimal: no other is at least as good in all of these columns and better in one."""
    values = table[list(best_high)].to_numpy(float)
    return [bool(not np.any((values >= row).all(axis=1) & (values > row).any(axis=1))) for row in values]


def choose(table: pd.DataFrame) -> tuple[str, str]:
    """The network to continue with, and why: the fastest to train among those within the best one's interval."""
    best = table.loc[table["accuracy"].idxmax()]
    as_good = table[table["accuracy"] >= best["accuracy_low"]]
    chosen = as_good.loc[as_good["train_images_per_second"].idxmax()]
    reason = (
        f"its accuracy {chosen['accuracy']:.4f} lies within the interval of the best, {best['model']} "
        f"({best['accuracy_low']:.4f} to {best['accuracy_high']:.4f}), and of "
        f"{', '.join(as_good['model'])} it trains fastest ({chosen['train_images_per_second']:.1f} images/s)"
    )
    return str(chosen["model"]), reason


def choice_of(table: pd.DataFrame) -> dict[str, Any]:
    """The content of choice.json: the network chosen, the best one usable in the ranker, why, and the Pareto front."""
    model_name, reason = choose(table)
    carried = table[table["model"].isin(RANKERS)]
    return {
        "model_name": model_name,
        "ranker_model_name": choose(carried)[0] if len(carried) else RANKERS[0],
        "reason": reason,
        "pareto_front": list(table["model"][table["pareto"]]),
        "compared": list(table["model"]),
    }


def as_text(table: pd.DataFrame) -> str:
    """The table for a terminal."""
    shown = pd.DataFrame({"model": table["model"]})
    shown["test accuracy (95 %)"] = [
        f"{row.accuracy:.4f} ({row.accuracy_low:.4f} to {row.accuracy_high:.4f})" for row in table.itertuples()
    ]
    shown["parameters (M)"] = (table["parameters"] / 1e6).map("{:.1f}".format)
    shown["multiply-adds (G)"] = (table["multiply_adds"] / 1e9).map("{:.2f}".format)
    shown["training images/s"] = table["train_images_per_second"].map("{:.1f}".format)
    shown["inference images/s"] = table["inference_images_per_second"].map("{:.1f}".format)
    shown["peak memory (MiB)"] = table["peak_memory_mib"].map("{:.0f}".format)
    shown["file (MiB)"] = table["file_mib"].map("{:.1f}".format)
    shown["trained in (s)"] = table["train_seconds"].map("{:.0f}".format)
    shown["Pareto front"] = np.where(table["pareto"], "yes", "")
    return shown.to_string(index=False)


def compare(networks: list[str], save_dir: str | Path, **settings: Any) -> pd.DataFrame:
    """Compare the networks: one run each in save_dir/<network>, or the results of such a run; writes a table
    (comparison.csv), a chart (comparison.png) and the choice (choice.json). `settings` are train_classifier.train's."""
    folder = Path(save_dir)
    rows = []
    for name in networks:
        print(f"-- {name}", flush=True)
        own = settings | {"model_name": name, "save_dir": folder / name, "check_point": "last"}
        rows.append(row_of(name, train_classifier.train(**own)))
    table = pd.DataFrame(rows)
    table["pareto"] = pareto_front(table)
    write_csv(folder / "comparison.csv", table)
    title = f"{len(table)} networks on the same test pictures"
    visualisation.save(visualisation.comparison_chart(table, title), folder / "comparison.png")
    print(as_text(table))
    print(f"Pareto front (accuracy, inference speed): {', '.join(table['model'][table['pareto']])}")
    choice = choice_of(table)
    write_json(folder / "choice.json", choice)
    print(f"choice: {choice['model_name']}, as {choice['reason']}")
    print(f"for the ranker: {choice['ranker_model_name']}")
    print(f"written: {folder / 'comparison.csv'}, {folder / 'comparison.png'}, {folder / 'choice.json'}")
    return table


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_classifier.add_flags(parser)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NETWORK", help="default: %(default)s")
    parser.set_defaults(**training.defaults_of(train_classifier.train) | {"save_dir": "outputs/comparison"})
    args = parser.parse_args(words)
    train_classifier.check_flags(parser, args)
    return args


def main() -> None:
    args = parse_arguments()
    distributed.join(args.device)
    print_configuration(args, "comparison of networks")
    compare(**vars(args))


if __name__ == "__main__":
    run_main(main)

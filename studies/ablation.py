"""Ablation of the modern ranker: trainings that leave out one idea at a time, compared with the full recipe.

    python -m studies.ablation --data_path data/sample --image_size 128 --output outputs/ablation

Trains from random weights, with windows (type 1), --seeds 0 1 2; a killed run resumes with the same command. On the
sample it takes an hour on two cores without bf16, 20 minutes with. Writes a folder per run and ablation.csv into
--output.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import metrics
import train_siamese
from siamese_net import RECIPES
from utils import at_least, print_configuration, run_main, write_csv

MODERN = RECIPES["modern"]

# By the idea that is left out: what train_siamese.train is given in its place.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all pairs of a batch": {"pair_mode": "4", "batch_size": 16},  # as many pictures a batch, each in one pair
    "shared convolutions": {"recipe": replace(MODERN, name="modern without shared convolutions", shared=False)},
    "the glimpse's loss": {"recipe": replace(MODERN, name="modern without the glimpse's loss", glimpse=False)},
    "the shrinking window": {"recipe": replace(MODERN, name="modern without the shrinking window", wide=MODERN.narrow)},
    "noise on the window": {"recipe": replace(MODERN, name="modern without noise on the window", noise=0.0)},
    "warm-up and cosine": {"recipe": replace(MODERN, name="modern without warm-up and cosine", warm_up=0.0)},
}


def train_without(idea: str, output: str | Path, **settings: Any) -> dict[str, Any]:
    """Train without one idea, or read the results of such a run; returns its figures on the test pictures.

    `settings` are train_siamese.train's.
    """
    folder = Path(output) / f"without {idea}".replace(" ", "_") / f"seed_{settings['seed']}"
    settings |= {"weights": "none", "save_dir": folder, "check_point": "last"} | LEFT_OUT[idea]
    test = train_siamese.train(**settings)["test"]
    scores = pd.read_csv(folder / "test_scores.csv")
    # Over all pairs, whichever the training drew.
    found = {"pair accuracy": metrics.pair_accuracy(scores["score"].to_numpy(), scores["v_score"].to_numpy())}
    found |= {"pointing": test.get("pointing_accuracy"), "scale": test["mean_scale"]}
    return {"left out": idea, "seed": settings["seed"], **found}


def as_text(table: pd.DataFrame) -> str:
    """Mean ± standard deviation over the seeds, one row per idea."""
    seeds = table.groupby("left out", sort=False)
    columns = table.dropna(axis=1, how="all").columns.drop(["left out", "seed"])
    shown = pd.DataFrame({"n": seeds.size()})
    for column in columns:
        mean, std = (each.map("{:.3f}".format) for each in (seeds[column].mean(), seeds[column].std(ddof=1)))
        shown[column] = mean + (" ± " + std if (shown["n"] > 1).all() else "")
    return shown.reset_index().to_string(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", required=True)
    flag("--output", default="outputs/ablation", metavar="DIR")
    flag("--image_size", type=at_least(64), default=224)
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--epochs", type=at_least(1), default=30, help="default %(default)s")
    flag("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    flag("--leave_out", nargs="+", choices=LEFT_OUT, default=list(LEFT_OUT), metavar="IDEA", help=", ".join(LEFT_OUT))
    args = parser.parse_args()
    print_configuration(args, "ablation")
    rows = []
    for idea in args.leave_out:
        for seed in args.seeds:
            print(f"-- without {idea}, seed {seed}", flush=True)
            rows.append(
                train_without(
                    idea,
                    args.output,
                    data_path=args.data_path,
                    seed=seed,
                    image_size=args.image_size,
                    device=args.device,
                    epochs=args.epochs,
                )  # fmt: skip
            )
            write_csv(Path(args.output) / "ablation.csv", pd.DataFrame(rows))
    print(as_text(pd.DataFrame(rows)))


if __name__ == "__main__":
    run_main(main)

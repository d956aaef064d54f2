"""What each idea of the modern ranker brings: trainings that leave out one at a time, beside the one with all.

    python ablation.py --data_path data/sample --image_size 128 --output outputs/ablation

From nothing, windows (type 1), --seeds 0 1 2; killed, the same command goes on. On the sample an hour on two cores
without bf16, 20 minutes with. Written into --output: a run folder each, and ablation.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch

import metrics
import siamese_net
import train_siamese
from siamese_net import AttentionLocNet
from utils import at_least, print_configuration, read_json, run_main, write_csv


class WithoutGlimpse(AttentionLocNet):
    """The attention learns through the window alone."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, None]:
        return super().forward(pictures)[0], None


class Apart(AttentionLocNet):
    """With convolutions of its own."""

    def __init__(self, features: torch.nn.Module, *words: Any, **options: Any) -> None:
        super().__init__(copy.deepcopy(features), *words, **options)


def constant(optimiser: torch.optim.Optimizer, *_: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


# By the idea that is left out: flags, and what stands in the place of (module, name).
LEFT_OUT: dict[str, tuple[list[str], list[tuple[Any, str, Any]]]] = {
    "nothing": ([], []),
    # As many pictures a batch, each in one pair.
    "all pairs of a batch": (["--pair_mode", "4", "--batch_size", "16"], []),
    "shared convolutions": ([], [(siamese_net, "AttentionLocNet", Apart)]),
    "the glimpse's loss": ([], [(siamese_net, "AttentionLocNet", WithoutGlimpse)]),
    "the shrinking window": ([], [(siamese_net, "WIDE", siamese_net.NARROW)]),
    "noise on the window": ([], [(siamese_net, "NOISE", 0.0)]),
    "warm-up and cosine": ([], [(train_siamese, "build_scheduler", constant)]),
}


def train_without(idea: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """A training that leaves out one idea, or what such a run has left; its figures on the test pictures."""
    flags, replaced = LEFT_OUT[idea]
    folder = Path(args.output) / f"without {idea}".replace(" ", "_") / f"seed_{seed}"
    words = ["--data_path", args.data_path, "--weights", "none", "--seed", seed, "--save_dir", folder]
    words += ["--image_size", args.image_size, "--device", args.device, "--check_point", "last", *flags]
    words += ["--epochs", args.epochs] if args.epochs else []
    with contextlib.ExitStack() as stack:
        for module, name, other in replaced:
            stack.enter_context(mock.patch.object(module, name, other))
        train_siamese.train(train_siamese.parse_arguments([str(word) for word in words]))
    test = read_json(folder / "results.json")["test"]
    scores = pd.read_csv(folder / "test_scores.csv")
    # Over all pairs, whichever the training drew.
    found = {"pair accuracy": metrics.pair_accuracy(scores["score"].to_numpy(), scores["v_score"].to_numpy())}
    found |= {"pointing": test.get("pointing_accuracy"), "scale": test["mean_scale"]}
    return {"left out": idea, "seed": seed, **found}


def as_text(table: pd.DataFrame) -> str:
    """Mean ± standard deviation over the seeds, an idea a row."""
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
    flag("--epochs", type=at_least(1), help="default: the recipe's")
    flag("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    flag("--leave_out", nargs="+", choices=LEFT_OUT, default=list(LEFT_OUT), metavar="IDEA", help=", ".join(LEFT_OUT))
    args = parser.parse_args()
    print_configuration(args, "ablation")
    rows = []
    for idea in args.leave_out:
        for seed in args.seeds:
            print(f"-- without {idea}, seed {seed}", flush=True)
            rows.append(train_without(idea, seed, args))
            write_csv(Path(args.output) / "ablation.csv", pd.DataFrame(rows))
    print(as_text(pd.DataFrame(rows)))


if __name__ == "__main__":
    run_main(main)

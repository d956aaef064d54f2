"""How good is the measured choice of precision and memory layout? Against the best and the worst of the four.

    python -m studies.precision_choices [--device cuda] [--networks alexnet densenet] [--image_size 128 224]

For each network, size, and training or inference: the choice that a run would make (see precision.py), then the rates
of all four candidates, measured longer and in turns. A choice is good if it reaches 0.95 of the best. Writes
precision_choices.json into --output. Twenty minutes for the four networks on two cores; `--networks alexnet` takes one.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from backbones import NETWORKS
from classifier_net import cnn_classifier
from device import autocast, seed_everything, select_device
from precision import CANDIDATES, Precision, fastest, lay_out, measure, seconds_of
from studies.workloads import RATE, classifier_step
from train_classifier import build_optimiser
from training import environment, start_run
from utils import at_least, print_configuration, run_main, write_json

CLASSES = 20
ENOUGH = 0.95  # of the best candidate's rate


def trial(
    model_name: str, image_size: int, batch_size: int, training: bool, device: torch.device
) -> Callable[[Precision], Callable[[], None]]:
    """trial(precision) sets up a network of its own; what it returns does a step of training, or scores a batch."""
    network = cnn_classifier(model_name, CLASSES, "none")[0].to(device)
    pictures = torch.randn(batch_size, 3, image_size, image_size, device=device)
    target = torch.arange(batch_size, device=device) % CLASSES

    def of(precision: Precision) -> Callable[[], None]:
        own = lay_out(copy.deepcopy(network), precision).train(training)
        optimiser = build_optimiser(own, RATE) if training else None

        def train() -> None:
            classifier_step(own, optimiser, pictures, target, precision.amp)

        def score() -> None:
            with autocast(device, precision.amp), torch.inference_mode():
                own(pictures)

        return train if training else score

    return of


def compare(of: Callable[[Precision], Callable[[], None]], device: torch.device, rounds: int) -> dict[str, Any]:
    """The choice, and batches a second of each candidate: the median over rounds in which they take turns."""
    start = time.perf_counter()
    chosen = fastest(measure(of, CANDIDATES, device, time.perf_counter))
    seconds = time.perf_counter() - start
    steps = {each: of(each) for each in CANDIDATES}
    took: dict[Precision, list[float]] = {each: [] for each in CANDIDATES}
    for _ in range(rounds + 1):
        for each, work in steps.items():
            took[each].append(seconds_of(work, device, time.perf_counter))
    rates = {each: 1 / float(np.median(found[1:])) for each, found in took.items()}  # the first pays for the set-up
    return {
        "chosen": str(chosen),
        "seconds_to_choose": seconds,
        "of_best": rates[chosen] / max(rates.values()),
        "over_worst": rates[chosen] / min(rates.values()),
        "batches_per_second": {str(each): rate for each, rate in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--networks", nargs="+", default=list(NETWORKS), help="(default: the four of the study)")
    flag("--image_size", nargs="+", type=at_least(64), default=[128, 224], help="sides in pixels (default 128 224)")
    flag("--batch_size", type=at_least(2), default=32)
    flag("--rounds", type=at_least(1), default=3, help="of all candidates, after a first one (default %(default)s)")
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--output", default="outputs/precision_choices", metavar="DIR")
    args = parser.parse_args()
    print_configuration(args, "precision choices")
    device = select_device(args.device)
    output = start_run(args.output, vars(args), device)
    rows = []
    for name in args.networks:
        for size in args.image_size:
            for training in (True, False):
                seed_everything(0)
                found = compare(trial(name, size, args.batch_size, training, device), device, args.rounds)
                work = "training" if training else "inference"
                rows.append({"network": name, "image_size": size, "work": work, **found})
                print(f"{name}, {size} pixels, {work}: {found['chosen']}, {found['of_best']:.2f} of the best, "
                      f"{found['over_worst']:.2f} times the worst", flush=True)  # fmt: skip
    table = pd.DataFrame(rows)
    good = int((table["of_best"] >= ENOUGH).sum())
    print(f"\n{table.drop(columns='batches_per_second').to_string(index=False, float_format='{:.2f}'.format)}")
    print(f"\n{good} of {len(table)} choices reach {ENOUGH} of the best")
    about = {"configuration": vars(args), "environment": environment(device)}
    write_json(output / "precision_choices.json", about | {"choices": rows})
    print(f"written: {output / 'precision_choices.json'}")


if __name__ == "__main__":
    run_main(main)

"""Benchmark in images per second: the limit of this machine, a plain loop, and ours, measured in one run.

    python -m studies.benchmark [--device cuda] [--image_size 224] [--output outputs/benchmark]

Siamese training, classifier training, evaluation, and ranking from JPEG, on pictures of 500×400 generated in a
temporary folder. For each: the network alone on random pictures that are already on the device, decoding alone, the
plain loop (pictures decoded in every epoch, one side of a pair after the other, fp32) and the project's own functions.
The measurements alternate, round by round, and the median is reported with the lowest and highest round, so that other
load on the machine shows as spread. A ratio is the median over the rounds of ratios within a round. Takes a few minutes
on two cores. Writes benchmark.json and benchmark.png into --output.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import visualisation
from device import seed_everything, select_device, synchronise
from studies import workloads
from studies.workloads import DECODING, LIMIT, OURS, PLAIN, Measure
from training import environment, start_run
from utils import UserError, at_least, print_configuration, run_main, write_json


# --- measuring ------------------------------------------------------------------------------------------------------
def matrix_products(device: torch.device) -> Iterator[Measure]:
    """Square matrices, large enough for the device to show its rate."""
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        n = 256
        while n < 8192 and seconds_of(workloads.product(n, dtype, device), device) < 0.02:
            n *= 2
        yield Measure("matrix product", name, workloads.product(n, dtype, device))


def seconds_of(work: Callable[[], float], device: torch.device) -> float:
    """Of the faster of two: the first pays for what is set up once."""
    return work() / max(one_rate(work, 0, device) for _ in range(2))


def measure(
    measures: list[Measure], device: torch.device, seconds: float, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Rates in units of work a second, {group: {name: a rate for each round}}. The first, unmeasured, turn warms up.

    Each measurement takes `seconds` over all rounds.
    """
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds + 1):
        for each in measures:
            rate = one_rate(each.work, seconds / rounds if turn else 0, device)
            if turn:
                rates.setdefault(each.group, {}).setdefault(each.name, []).append(rate)
        print(f"  round {turn} of {rounds} done" if turn else "  warmed up", flush=True)
    return rates


def one_rate(work: Callable[[], float], seconds: float, device: torch.device) -> float:
    """Work a second, over `seconds` at least and one piece of work at least."""
    synchronise(device)
    start, done = time.perf_counter(), 0.0
    while True:
        done += work()
        if time.perf_counter() - start >= seconds:
            synchronise(device)
            return done / (time.perf_counter() - start)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def ratios(rates: dict[str, list[float]], batch_size: int) -> dict[str, dict[str, float]]:
    """Ours over each of the others, and over the slower of the limits where there are two."""
    found = {}
    for name in rates:
        if name.startswith(OURS):
            for other in (LIMIT + name.removeprefix(OURS), DECODING, PLAIN):
                if other in rates:
                    found[f"{name} / {other}"] = spread([a / b for a, b in zip(rates[name], rates[other], strict=True)])
    if (name := f"{OURS}, all pairs") in rates:
        more = batch_size - 1  # pairs of a batch that an image is in, against one
        pairs = [a / b * more for a, b in zip(rates[name], rates[PLAIN], strict=True)]
        found[f"{name} / {PLAIN}, in pairs a second"] = spread(pairs)
    if DECODING in rates:
        slower = np.minimum(rates[LIMIT], rates[DECODING])
        found[f"{OURS} / slower limit"] = spread([float(a / b) for a, b in zip(rates[OURS], slower, strict=True)])
        # Where the network runs on the cores that decode: a picture takes the time of both.
        both = 1 / (1 / np.array(rates[LIMIT]) + 1 / np.array(rates[DECODING]))
        found[f"{OURS} / both limits on the same cores"] = spread((np.array(rates[OURS]) / both).tolist())
    return found


# --- the table ------------------------------------------------------------------------------------------------------
def summarise(rates: dict[str, dict[str, list[float]]], batch_size: int) -> dict[str, Any]:
    """{group: {name: median, low, high; ratios: …}}, as benchmark.json holds it."""
    return {
        group: {name: spread(values) for name, values in named.items()} | {"ratios": ratios(named, batch_size)}
        for group, named in rates.items()
    }


def print_table(summary: dict[str, Any], flop: dict[str, float]) -> None:
    print(f"\n{'':<54}{'median':>10}  {'lowest':>9} to highest")
    for group, named in summary.items():
        unit, scale = ("GFLOP/s", 1e-9) if group == "matrix product" else ("images/s", 1)
        print(f"{group}, {unit}")
        for name, rate in named.items():
            if name != "ratios":
                print_row(name, {key: value * scale for key, value in rate.items()}, ",.1f")
        if group in flop:
            best = max(rate["median"] for name, rate in summary["matrix product"].items() if name != "ratios")
            print(f"  {'at the best matrix rate':<52}{best / flop[group]:>10,.1f}")
        for name, ratio in named["ratios"].items():
            print_row(name, ratio, ".2f")


def print_row(name: str, rate: dict[str, float], kind: str) -> None:
    print(f"  {name:<52}{rate['median']:>10{kind}}  {rate['low']:>9{kind}} to {rate['high']:{kind}}")


def draw(summary: dict[str, Any], device: str) -> Any:
    """The rates in images a second as bars."""
    rows = [
        (f"{group.split()[0]}: {name}", rate)
        for group, named in summary.items()
        if group != "matrix product"
        for name, rate in named.items()
        if name != "ratios"
    ]
    median = np.array([rate["median"] for _, rate in rows])
    ends = np.array([[rate["low"], rate["high"]] for _, rate in rows]).T
    return visualisation.bar_chart(
        [label for label, _ in rows], median, np.abs(ends - median), "images a second", f"throughput on {device}"
    )


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--image_size", type=at_least(64), default=224, help="side of the network's input in pixels")
    flag("--amp", action=argparse.BooleanOptionalAction, help="ours in bf16 (default: if the hardware supports it)")
    flag("--batch_size", type=at_least(2), default=32, help="number of pairs, or of images where there are no pairs")
    flag("--num_images", type=at_least(16), default=128, help="number of pictures to generate")
    flag("--num_workers", type=at_least(1), default=2, help="decoding threads")
    flag("--seconds", type=float, default=15, help="seconds per measurement, over all rounds (default %(default)s)")
    flag("--rounds", type=at_least(1), default=5)
    flag("--output", default="outputs/benchmark", metavar="DIR")
    args = parser.parse_args(words)
    if not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds} is not above 0")
    return args


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "benchmark")
    device = select_device(args.device)
    seed_everything(0)
    output = start_run(args.output, vars(args), device)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        bench = workloads.prepare(
            Path(folder), args.num_images, device=device, image_size=args.image_size, batch_size=args.batch_size,
            num_workers=args.num_workers, amp=args.amp,
        )  # fmt: skip
        parts = (workloads.siamese_training, workloads.classifier_training, workloads.evaluation, workloads.ranking)
        measures = [*matrix_products(device), *(each for part in parts for each in part(bench))]
        rates = measure(measures, device, args.seconds, args.rounds)
        summary = summarise(rates, args.batch_size)
        flop = workloads.operations(bench)
    about = environment(device)
    print_table(summary, flop)
    write_json(output / "benchmark.json", {"configuration": vars(args), "environment": about, "flop": flop, **summary})
    visualisation.save(draw(summary, about["device"]), output / "benchmark.png")
    print(f"written: {output / 'benchmark.json'}, {output / 'benchmark.png'}")


if __name__ == "__main__":
    run_main(main)

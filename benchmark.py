"""How many images a second: the limit of this machine, the plain loop, and ours, measured in one run.

    python benchmark.py [--device cuda] [--image_size 224] [--output outputs/benchmark]

Siamese training, classifier training, evaluation, and ranking from JPEG, on pictures of 500×400 that it draws into a
temporary folder. Of each: the network alone on random pictures that already lie on the device, decoding alone, the
plain loop (pictures decoded in every epoch, one side of a pair after the other, fp32) and the project's own functions.
The measurements take turns, round after round, and the median is told with the lowest and highest round: what else runs
on the machine shows as a spread. A ratio is the median over the rounds of ratios within a round. Some minutes on two
cores. Written into --output: benchmark.json and benchmark.png.

    python benchmark.py --to_accuracy D [--model_type 0] [--image_size 128] [--seeds 0 1 2]

On the data set D: how long the plain loop takes for ten epochs of pair mode 4, and how long train_siamese.py takes with
its defaults, decoding included, to be as right on the validation pictures. Written into --output: to_accuracy.json.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import data_set
import losses
import rank_images
import train_classifier
import train_siamese
import transforms
import visualisation
from data_set import Pictures, Reddit_Images_for_Classification, Reddit_Img_Pair
from siamese_net import SiameseNet
from utils import (
    UserError,
    at_least,
    autocast,
    environment,
    print_configuration,
    run_main,
    seed_everything,
    select_device,
    start_run,
    write_csv,
    write_json,
)

PICTURE = (500, 400)  # width and height in pixels
PLAIN_EPOCHS = 10  # of pair mode 4, that --to_accuracy gives the plain loop
LIMIT, DECODING, PLAIN, OURS = "network alone", "decoding alone", "plain loop", "ours"


class Measure(NamedTuple):
    group: str
    name: str
    work: Callable[[], float]  # does a piece of work and returns its size: images, or floating point operations


class Bench(NamedTuple):
    """What the measurements share."""

    args: argparse.Namespace
    device: torch.device
    folder: Path
    sources: list[rank_images.Source]
    pictures: Pictures  # of these, in their order
    v_score: np.ndarray


# --- pictures -------------------------------------------------------------------------------------------------------
def draw_picture(rng: np.random.Generator) -> Image.Image:
    """Noise of all sizes, the coarser the stronger, under some shapes: as JPEG about as large as a photograph."""
    width, height = PICTURE
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 10):
        across = 2**octave
        coarse = Image.fromarray(rng.integers(0, 256, (across * height // width, across, 3), dtype=np.uint8))
        fine = coarse.resize(PICTURE, Image.Resampling.BICUBIC)
        total += (np.asarray(fine, np.float32) - 127.5) * 0.75**octave
    picture = Image.fromarray((127.5 + total * (50 / total.std())).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = rng.integers(0, width), rng.integers(0, height)
        across, down = rng.integers(20, 120, size=2)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + across, y + down), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return picture


def make_pictures(folder: Path, n: int) -> np.ndarray:
    """A data set of n pictures in a folder. Returns their virality scores, which are random."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for img_id in range(n):
        draw_picture(rng).save(data_set.picture_path(folder, img_id), quality=85)
    table = pd.DataFrame({"img_id": np.arange(n), "v_score": rng.normal(size=n)})
    table["label"] = np.arange(n) % len(data_set.CLASSES)
    table["subreddit"] = np.array(data_set.CLASSES)[table["label"]]
    write_csv(folder / "datasets" / "data_set_iv.csv", table[["img_id", "v_score"]])
    write_csv(folder / "datasets" / "image4classification.csv", table[["img_id", "subreddit", "label"]])
    return table["v_score"].to_numpy()


# --- the limits -----------------------------------------------------------------------------------------------------
def matrix_products(bench: Bench) -> Iterator[Measure]:
    """Square matrices, large enough for the device to show its rate."""
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        n = 256
        while n < 8192 and seconds_of(product(n, dtype, bench.device), bench.device) < 0.02:
            n *= 2
        yield Measure("matrix product", name, product(n, dtype, bench.device))


def seconds_of(work: Callable[[], float], device: torch.device) -> float:
    """Of the faster of two: the first pays for what is set up once."""
    return work() / max(one_rate(work, 0, device) for _ in range(2))


def product(n: int, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        a @ b
        return 2 * n**3

    return work


def decoding(bench: Bench, group: str, side: int) -> Measure:
    def work() -> float:
        return sum(1 for _ in rank_images.decoded(bench.sources, side, bench.args.num_workers))

    return Measure(group, DECODING, work)


# --- siamese training -----------------------------------------------------------------------------------------------
def siamese_arguments(args: argparse.Namespace, pair_mode: str) -> argparse.Namespace:
    """The flags that train_siamese.py would have."""
    words = ["--data_path", "none", "--pair_mode", pair_mode, "--batch_size", args.batch_size]
    return trainer_arguments(train_siamese, args, *words)


def trainer_arguments(trainer: Any, args: argparse.Namespace, *more: object) -> argparse.Namespace:
    """What a training script makes of this machine's flags, nothing pretrained, and `more` of its own."""
    words = ["--weights", "none", "--device", args.device, "--image_size", args.image_size]
    words += ["--num_workers", args.num_workers, *more]
    words += {None: [], True: ["--amp"], False: ["--no-amp"]}[args.amp]
    return trainer.parse_arguments([str(word) for word in words])


def new_siamese(bench: Bench, args: argparse.Namespace) -> tuple[SiameseNet, torch.optim.Optimizer, Any]:
    model = copy.deepcopy(untrained_siamese(args.image_size)).to(bench.device)
    optimiser = train_siamese.build_optimiser(model, args)
    return model, optimiser, train_siamese.build_scheduler(optimiser, args, 10**9)


@functools.cache
def untrained_siamese(image_size: int) -> SiameseNet:
    """Made once: initialising AlexNet takes longer than to copy it."""
    return SiameseNet(weights="none", image_size=image_size)


def siamese_training(bench: Bench) -> Iterator[Measure]:
    """Pairs of mode 4, so that the plain loop and ours learn from the same ones; then all pairs of a batch."""
    group = "siamese training"
    for pair_mode, name in (("4", ""), ("all", ", all pairs")):
        args = siamese_arguments(bench.args, pair_mode)
        yield Measure(group, LIMIT + name, siamese_network_alone(bench, args))
        if pair_mode == "4":
            yield Measure(group, PLAIN, plain_siamese(bench, args))
        yield Measure(group, OURS + name, our_siamese(bench, args))


def siamese_network_alone(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    """Forward, loss, backward and step on random pictures that lie on the device, ready for the network."""
    model, optimiser, _ = new_siamese(bench, args)
    n = args.batch_size * (1 if args.pair_mode == "all" else 2)
    batch = torch.randn(n, 3, args.image_size, args.image_size, device=bench.device)
    value = torch.randn(n, device=bench.device)
    targets = None if args.pair_mode == "all" else torch.ones(n // 2, device=bench.device)

    def work() -> float:
        model.train()
        with autocast(bench.device, args.amp):
            scores, _, glimpse = model.score(batch)
        loss = train_siamese.ranking_loss(scores, value, targets) + train_siamese.ranking_loss(glimpse, value, targets)
        step(optimiser, loss)
        return n

    return work


def our_siamese(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    """An epoch of train_siamese.py over the kept pictures."""
    model, optimiser, scheduler = new_siamese(bench, args)
    rows = np.arange(len(bench.pictures))

    def work() -> float:
        train_siamese.train_one_epoch(model, bench.pictures, rows, bench.v_score, optimiser, scheduler, args, epoch=0)
        return len(rows)

    return work


def plain_siamese(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    """What one writes first: a data set of pairs that decodes, a loader, and both sides one after the other in fp32."""
    model = new_siamese(bench, args)[0].to(memory_format=torch.contiguous_format)
    optimiser = plain_optimiser(model, args)
    pairs = Reddit_Img_Pair(bench.folder, "train", "4", transform=plain_transform(args.image_size))
    batches = endless(plain_loader(pairs, args))

    def work() -> float:
        (first, second), target = next(batches)
        plain_step(model, optimiser, first, second, target)
        return 2 * len(first)

    return work


def plain_optimiser(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.05)


def plain_step(
    model: SiameseNet, optimiser: torch.optim.Optimizer, first: Tensor, second: Tensor, target: Tensor
) -> None:
    model.train()
    device = next(model.parameters()).device
    (first, _, glimpse_1), (second, _, glimpse_2) = (model.score(side.to(device)) for side in (first, second))
    target = target.to(device)
    loss = losses.ranknet_loss(first, second, target)
    if glimpse_1 is not None:
        loss = loss + losses.ranknet_loss(glimpse_1, glimpse_2, target)
    step(optimiser, loss)
    loss.item()  # for the log, in every step


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def plain_transform(image_size: int) -> Callable[[Image.Image], Tensor]:
    """A picture, by itself: squeezed, cropped and flipped at random, normalised."""

    def transform(picture: Image.Image) -> Tensor:
        kept = transforms.to_square(picture, transforms.stored_side(image_size))
        return transforms.augment(torch.from_numpy(kept)[None], image_size)[0]

    return transform


def plain_loader(items: Any, args: argparse.Namespace) -> DataLoader:
    return DataLoader(items, args.batch_size, shuffle=True, drop_last=len(items) > args.batch_size)


def endless(loader: DataLoader) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


# --- classifier training --------------------------------------------------------------------------------------------
def classifier_training(bench: Bench) -> Iterator[Measure]:
    group, args = "classifier training", classifier_arguments(bench.args)
    yield Measure(group, LIMIT, classifier_network_alone(bench, args))
    yield Measure(group, PLAIN, plain_classifier(bench, args))
    yield Measure(group, OURS, our_classifier(bench, args))


def classifier_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """The flags that train_classifier.py would have."""
    return trainer_arguments(train_classifier, args, "--data_path", "none", "--batch_size", args.batch_size)


def new_classifier(bench: Bench, args: argparse.Namespace) -> nn.Module:
    model = copy.deepcopy(untrained_classifier()).to(bench.device)
    train_classifier.lay_out(model, args)
    return model


@functools.cache
def untrained_classifier() -> nn.Module:
    return train_classifier.cnn_classifier("alexnet", len(data_set.CLASSES), "none")[0]


def classifier_network_alone(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    model = new_classifier(bench, args)
    optimiser = train_classifier.build_optimiser(model, args)
    batch = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=bench.device)
    target = torch.arange(args.batch_size, device=bench.device) % len(data_set.CLASSES)

    def work() -> float:
        model.train()
        with autocast(bench.device, args.amp):
            scores = model(batch).float()
        step(optimiser, F.cross_entropy(scores, target))
        return len(batch)

    return work


def our_classifier(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    """An epoch of train_classifier.py over the kept pictures."""
    model, rows = new_classifier(bench, args), np.arange(len(bench.pictures))
    optimiser = train_classifier.build_optimiser(model, args)
    scheduler = train_classifier.build_scheduler(optimiser, args, 10**9)
    labels = rows % len(data_set.CLASSES)

    def work() -> float:
        train_classifier.train_one_epoch(model, bench.pictures, rows, labels, optimiser, scheduler, args, epoch=0)
        return len(rows)

    return work


def plain_classifier(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    model = new_classifier(bench, args).to(memory_format=torch.contiguous_format)
    optimiser = plain_optimiser(model, args)
    items = Reddit_Images_for_Classification(bench.folder, "train", transform=plain_transform(args.image_size))
    batches = endless(plain_loader(items, args))

    def work() -> float:
        batch, target = next(batches)
        model.train()
        loss = F.cross_entropy(model(batch.to(bench.device)), target.to(bench.device))
        step(optimiser, loss)
        loss.item()
        return len(batch)

    return work


# --- evaluation and ranking -----------------------------------------------------------------------------------------
def scoring_network_alone(bench: Bench, args: argparse.Namespace, batch_size: int) -> Callable[[], float]:
    model = new_siamese(bench, args)[0]
    side = transforms.stored_side(args.image_size)
    batch = torch.randint(256, (batch_size, 3, side, side), dtype=torch.uint8, device=bench.device)

    def work() -> float:
        with autocast(bench.device, args.amp):
            model.rank(batch)
        return batch_size

    return work


def plain_scoring(bench: Bench, args: argparse.Namespace) -> Callable[[], float]:
    """Decode a batch, score it in fp32, and so on."""
    model = new_siamese(bench, args)[0].to(memory_format=torch.contiguous_format).eval()
    side = transforms.stored_side(args.image_size)
    n, size = len(bench.sources), args.batch_size
    batches = endless([bench.sources[i : i + size] for i in range(0, n, size)])

    def work() -> float:
        batch = next(batches)
        pixels = [transforms.to_square(transforms.decode(source.path), side) for source in batch]
        with torch.inference_mode():
            model.score(transforms.whole(torch.from_numpy(np.stack(pixels)).to(bench.device)))[0].cpu()
        return len(batch)

    return work


def evaluation(bench: Bench) -> Iterator[Measure]:
    group, args = "evaluation", siamese_arguments(bench.args, "4")
    model, rows = new_siamese(bench, args)[0], np.arange(len(bench.pictures))

    def ours() -> float:
        train_siamese.evaluate(model, bench.pictures, rows, bench.v_score, args)
        return len(rows)

    yield Measure(group, LIMIT, scoring_network_alone(bench, args, 64))
    yield Measure(group, PLAIN, plain_scoring(bench, args))
    yield Measure(group, OURS, ours)


def ranking(bench: Bench) -> Iterator[Measure]:
    """From JPEG: nothing is kept, so decoding is a limit as well."""
    group, args = "ranking from JPEG", siamese_arguments(bench.args, "4")
    stream = bench.sources * 4  # some batches long: a million pictures have one beginning and one end
    model, side = new_siamese(bench, args)[0], transforms.stored_side(args.image_size)

    def ours() -> float:
        return sum(map(len, rank_images.score_all(model, stream, side, bench.args.num_workers, args.amp)))

    yield Measure(group, LIMIT, scoring_network_alone(bench, args, rank_images.BATCH))
    yield decoding(bench, group, side)
    yield Measure(group, PLAIN, plain_scoring(bench, args))
    yield Measure(group, OURS, ours)


# --- the time to an accuracy ----------------------------------------------------------------------------------------
def to_accuracy(args: argparse.Namespace, device: torch.device, output: Path) -> None:
    """Print and write, for each seed, the seconds of the plain loop and of ours to the accuracy that it reaches."""
    rows = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            data_path = Path(folder)  # the pictures are still to be decoded there
            for name in ("datasets", "images"):
                (data_path / name).symlink_to((Path(args.to_accuracy) / name).resolve())
            wanted = accuracy_arguments(args, data_path, seed)
            plain, accuracy = plain_to_accuracy(wanted, device)
            print(f"seed {seed}: the plain loop is right on {accuracy:.4f} of the pairs in {plain:.1f} s", flush=True)
            ours, epochs, reached = ours_to_accuracy(wanted, device, accuracy)
        ratio = plain / ours if reached >= accuracy else None
        if ratio:
            print(f"seed {seed}: ours on {reached:.4f} in {ours:.1f} s, {epochs} epochs: {ratio:.2f} times")
        else:
            print(f"seed {seed}: ours is right on {reached:.4f} at the most, in {ours:.1f} s: not reached")
        rows.append({"seed": seed, "plain_seconds": plain, "plain_accuracy": accuracy, "ours_seconds": ours,
                     "ours_accuracy": reached, "ours_epochs": epochs, "ratio": ratio})  # fmt: skip
    if all(row["ratio"] for row in rows):
        found = spread([row["ratio"] for row in rows])
        print(f"the plain loop takes {found['median']:.2f} times as long ({found['low']:.2f} to {found['high']:.2f})")
    write_json(output / "to_accuracy.json", {"environment": environment(device), "seeds": rows})


def accuracy_arguments(args: argparse.Namespace, data_path: Path, seed: int) -> argparse.Namespace:
    """The defaults of train_siamese.py but for what the network is to see."""
    words = ["--data_path", data_path, "--model_type", args.model_type, "--seed", seed]
    return trainer_arguments(train_siamese, args, *words)


def plain_to_accuracy(args: argparse.Namespace, device: torch.device) -> tuple[float, float]:
    """Seconds that ten epochs take, and the accuracy on the validation pairs then, whose time does not count."""
    seed_everything(args.seed)
    # AlexNet as torchvision has it: the normalisation is one of the things that make ours quick.
    options = {"model_type": args.model_type, "image_size": args.image_size, "batch_norm": False}
    model = SiameseNet(weights="none", **options).to(device).to(memory_format=torch.contiguous_format)
    start = time.perf_counter()
    pairs = Reddit_Img_Pair(args.data_path, "train", "4", transform=plain_transform(args.image_size), seed=args.seed)
    loader, optimiser = plain_loader(pairs, args), plain_optimiser(model, args)
    scheduler = train_siamese.build_scheduler(optimiser, args, PLAIN_EPOCHS * len(loader))
    for epoch in range(PLAIN_EPOCHS):
        model.set_progress(min(1.0, epoch / (0.6 * PLAIN_EPOCHS)))
        pairs.redraw(args.seed + epoch)
        for (first, second), target in loader:
            plain_step(model, optimiser, first, second, target)
            scheduler.step()
    synchronise(device)
    seconds = time.perf_counter() - start
    # Not kept, for ours is to decode them itself.
    data = train_siamese.Data(argparse.Namespace(**vars(args) | {"cache": "off"}))
    return seconds, train_siamese.validate(model, data, args)[0]["val_pair_accuracy"]


def ours_to_accuracy(args: argparse.Namespace, device: torch.device, accuracy: float) -> tuple[float, int, float]:
    """Seconds, from decoding on and with the validation after each epoch, the epochs, and the accuracy reached."""
    seed_everything(args.seed)
    model = SiameseNet(weights="none", model_type=args.model_type, image_size=args.image_size).to(device)
    start = time.perf_counter()
    data = train_siamese.Data(args)
    rows, best = data.rows["train"], 0.0
    steps = len(train_siamese.draw_batches(data.v_score[rows], args, 0))
    optimiser = train_siamese.build_optimiser(model, args)
    scheduler = train_siamese.build_scheduler(optimiser, args, args.epochs * steps)
    for epoch in range(args.epochs):
        train_siamese.train_one_epoch(model, data.pictures, rows, data.v_score[rows], optimiser, scheduler, args, epoch)
        best = max(best, train_siamese.validate(model, data, args)[0]["val_pair_accuracy"])
        if best >= accuracy:
            break
    return time.perf_counter() - start, epoch + 1, best


# --- measuring ------------------------------------------------------------------------------------------------------
def measure(measures: list[Measure], bench: Bench) -> dict[str, dict[str, list[float]]]:
    """Rates in units of work a second, {group: {name: a rate for each round}}. The first, unmeasured, turn warms up."""
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(bench.args.rounds + 1):
        for each in measures:
            rate = one_rate(each.work, bench.args.seconds / bench.args.rounds if turn else 0, bench.device)
            if turn:
                rates.setdefault(each.group, {}).setdefault(each.name, []).append(rate)
        print(f"  round {turn} of {bench.args.rounds} done" if turn else "  warmed up", flush=True)
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


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


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


def operations(bench: Bench) -> dict[str, float]:
    """Floating point operations an image, counted."""
    args, found = siamese_arguments(bench.args, "all"), {}
    for group, work in (
        ("siamese training", siamese_network_alone(bench, args)),
        ("classifier training", classifier_network_alone(bench, classifier_arguments(bench.args))),
        ("evaluation", scoring_network_alone(bench, args, 2)),
    ):
        with FlopCounterMode(display=False) as counter:
            images = work()
        found[group] = counter.get_total_flops() / images
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


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--image_size", type=at_least(64), default=224, help="side in pixels of what the network sees")
    flag("--amp", action=argparse.BooleanOptionalAction, help="ours in bf16 (default: where it is fast)")
    flag("--batch_size", type=at_least(2), default=32, help="pairs, or images where there are none")
    flag("--num_images", type=at_least(16), default=128, help="pictures to draw")
    flag("--num_workers", type=at_least(1), default=2, help="threads that decode pictures")
    flag("--seconds", type=float, default=15, help="for each measurement, over all rounds (default %(default)s)")
    flag("--rounds", type=at_least(1), default=5)
    flag("--output", default="outputs/benchmark", metavar="DIR")
    flag("--to_accuracy", metavar="D", help="a data set on which the time to an accuracy is measured, nothing else")
    flag("--model_type", type=int, default=1, choices=(0, 1, 2), help="with --to_accuracy, as of train_siamese.py")
    flag("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="with --to_accuracy: a measurement each")
    args = parser.parse_args(words)
    if not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds} is not above 0")
    return args


def prepare(args: argparse.Namespace, device: torch.device, folder: Path) -> Bench:
    """Pictures made in `folder`, and decoded once as the training scripts keep them."""
    v_score = make_pictures(folder, args.num_images)
    img_ids = np.arange(args.num_images)
    pictures = data_set.load_pictures(folder, img_ids, transforms.stored_side(args.image_size), args.num_workers)
    paths = [str(data_set.picture_path(folder, img_id)) for img_id in img_ids]
    sources = [rank_images.Source(path, path) for path in paths]
    size = np.mean([Path(path).stat().st_size for path in paths]) / 1000
    print(f"{args.num_images} pictures of {PICTURE[0]}×{PICTURE[1]}, {size:.0f} kB each")
    return Bench(args, device, folder, sources, pictures, v_score)


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "benchmark")
    device = select_device(args.device)
    seed_everything(0)
    output = start_run(args.output, vars(args), device)
    if args.to_accuracy:
        return to_accuracy(args, device, output)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        bench = prepare(args, device, Path(folder))
        parts = (matrix_products, siamese_training, classifier_training, evaluation, ranking)
        rates = measure([each for part in parts for each in part(bench)], bench)
        summary = summarise(rates, args.batch_size)
        flop = operations(bench)
    about = environment(device)
    print_table(summary, flop)
    write_json(output / "benchmark.json", {"configuration": vars(args), "environment": about, "flop": flop, **summary})
    visualisation.save(draw(summary, about["device"]), output / "benchmark.png")
    print(f"written: {output / 'benchmark.json'}, {output / 'benchmark.png'}")


if __name__ == "__main__":
    run_main(main)

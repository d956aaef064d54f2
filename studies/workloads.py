"""The workloads that the benchmark times: ours, the plain loop, and the limits of this machine."""

from __future__ import annotations

import copy
import functools
import itertools
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
import metrics
import rank_images
import train_classifier
import train_siamese
import training
import transforms
from data_set import Pictures, Reddit_Images_for_Classification, Reddit_Img_Pair
from device import autocast
from pictures.sources import Source, decoded
from precision import lay_out
from siamese_net import RECIPES, SiameseNet
from training_data import mode_pairs
from utils import write_csv

PICTURE = (500, 400)  # width and height in pixels
LIMIT, DECODING, PLAIN, OURS = "network alone", "decoding alone", "plain loop", "ours"
RECIPE = RECIPES["modern"]
RATE = 3e-4  # of the classifier


class Measure(NamedTuple):
    group: str
    name: str
    work: Callable[[], float]  # does a piece of work and returns its size: images, or floating point operations


class Bench(NamedTuple):
    """What the pieces of work share. `amp`: ours in bf16; None if it is fast."""

    device: torch.device
    image_size: int
    batch_size: int
    num_workers: int
    amp: bool | None
    folder: Path
    sources: list[Source]
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


def prepare(
    folder: Path, num_images: int, *, device: torch.device, image_size: int, batch_size: int, num_workers: int,
    amp: bool | None,
) -> Bench:  # fmt: skip
    """Pictures made in `folder`, and decoded once as the training scripts keep them."""
    v_score = make_pictures(folder, num_images)
    img_ids = np.arange(num_images)
    pictures = data_set.load_pictures(folder, img_ids, transforms.stored_side(image_size), num_workers)
    paths = [str(data_set.picture_path(folder, img_id)) for img_id in img_ids]
    sources = [Source(path, path) for path in paths]
    size = np.mean([Path(path).stat().st_size for path in paths]) / 1000
    print(f"{num_images} pictures of {PICTURE[0]}×{PICTURE[1]}, {size:.0f} kB each")
    return Bench(device, image_size, batch_size, num_workers, amp, folder, sources, pictures, v_score)


# --- the limits -----------------------------------------------------------------------------------------------------
def product(n: int, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    """A product of square matrices of n rows."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        a @ b
        return 2 * n**3

    return work


def decoding(bench: Bench, group: str, side: int) -> Measure:
    def work() -> float:
        return sum(1 for _ in decoded(bench.sources, side, bench.num_workers))

    return Measure(group, DECODING, work)


# --- siamese training -----------------------------------------------------------------------------------------------
def new_siamese(bench: Bench) -> SiameseNet:
    return copy.deepcopy(untrained_siamese(bench.image_size)).to(bench.device)


@functools.cache
def untrained_siamese(image_size: int) -> SiameseNet:
    """Made once: initialising AlexNet takes longer than to copy it."""
    return SiameseNet(weights="none", image_size=image_size)


def siamese_training(bench: Bench) -> Iterator[Measure]:
    """Pairs of mode 4, so that the plain loop and ours learn from the same ones; then all pairs of a batch."""
    group = "siamese training"
    for pair_mode, name in (("4", ""), ("all", ", all pairs")):
        yield Measure(group, LIMIT + name, siamese_network_alone(bench, pair_mode))
        if pair_mode == "4":
            yield Measure(group, PLAIN, plain_siamese(bench))
        yield Measure(group, OURS + name, our_siamese(bench, pair_mode))


def siamese_network_alone(bench: Bench, pair_mode: str) -> Callable[[], float]:
    """Forward, loss, backward and step on random pictures that lie on the device, ready for the network."""
    model = new_siamese(bench)
    optimiser = train_siamese.build_optimiser(model, RECIPE, RECIPE.learning_rate)
    n = bench.batch_size * (1 if pair_mode == "all" else 2)
    batch = torch.randn(n, 3, bench.image_size, bench.image_size, device=bench.device)
    value = torch.randn(n, device=bench.device)
    targets = None if pair_mode == "all" else torch.ones(n // 2, device=bench.device)

    def work() -> float:
        model.train()
        with autocast(bench.device, bench.amp):
            scores, _, glimpse = model.score(batch)
        loss = train_siamese.ranking_loss(scores, value, targets) + train_siamese.ranking_loss(glimpse, value, targets)
        step(optimiser, loss)
        return n

    return work


def our_siamese(bench: Bench, pair_mode: str) -> Callable[[], float]:
    """An epoch of train_siamese.py over the kept pictures."""
    model = new_siamese(bench)
    optimiser = train_siamese.build_optimiser(model, RECIPE, RECIPE.learning_rate)
    scheduler = training.one_cycle(optimiser, 10**9, RECIPE.warm_up)
    rows = np.arange(len(bench.pictures))

    def work() -> float:
        batches = train_siamese.draw_batches(bench.v_score, pair_mode, bench.batch_size, seed=0)
        train_siamese.train_one_epoch(
            model, bench.pictures, rows, bench.v_score, batches, optimiser, scheduler, image_size=bench.image_size,
            amp=bench.amp, clip_norm=RECIPE.clip_norm,
        )  # fmt: skip
        return len(rows)

    return work


def plain_siamese(bench: Bench) -> Callable[[], float]:
    """What one writes first: a data set of pairs that decodes, a loader, and both sides one after the other in fp32."""
    model = new_siamese(bench).to(memory_format=torch.contiguous_format)
    optimiser = plain_optimiser(model, RECIPE.learning_rate)
    pairs = Reddit_Img_Pair(bench.folder, "train", "4", transform=plain_transform(bench.image_size))
    batches = endless(plain_loader(pairs, bench.batch_size))

    def work() -> float:
        (first, second), target = next(batches)
        plain_step(model, optimiser, first, second, target)
        return 2 * len(first)

    return work


def plain_optimiser(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)


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


def plain_loader(items: Any, batch_size: int) -> DataLoader:
    return DataLoader(items, batch_size, shuffle=True, drop_last=len(items) > batch_size)


def endless(loader: DataLoader) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


# --- classifier training --------------------------------------------------------------------------------------------
def classifier_training(bench: Bench) -> Iterator[Measure]:
    group = "classifier training"
    yield Measure(group, LIMIT, classifier_network_alone(bench))
    yield Measure(group, PLAIN, plain_classifier(bench))
    yield Measure(group, OURS, our_classifier(bench))


def new_classifier(bench: Bench) -> nn.Module:
    model = copy.deepcopy(untrained_classifier()).to(bench.device)
    return lay_out(model, train_classifier.layout("alexnet", bench.device))


@functools.cache
def untrained_classifier() -> nn.Module:
    return train_classifier.cnn_classifier("alexnet", len(data_set.CLASSES), "none")[0]


def classifier_network_alone(bench: Bench) -> Callable[[], float]:
    model = new_classifier(bench)
    optimiser = train_classifier.build_optimiser(model, RATE)
    batch = torch.randn(bench.batch_size, 3, bench.image_size, bench.image_size, device=bench.device)
    target = torch.arange(bench.batch_size, device=bench.device) % len(data_set.CLASSES)

    def work() -> float:
        classifier_step(model, optimiser, batch, target, bench.amp)
        return len(batch)

    return work


def classifier_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, batch: Tensor, target: Tensor, amp: bool | None
) -> None:
    model.train()
    with autocast(batch.device, amp):
        scores = model(batch).float()
    step(optimiser, F.cross_entropy(scores, target))


def our_classifier(bench: Bench) -> Callable[[], float]:
    """An epoch of train_classifier.py over the kept pictures."""
    model, rows = new_classifier(bench), np.arange(len(bench.pictures))
    optimiser = train_classifier.build_optimiser(model, RATE)
    scheduler = training.one_cycle(optimiser, 10**9)
    labels = rows % len(data_set.CLASSES)

    def work() -> float:
        batches = train_classifier.draw_batches(labels, bench.batch_size)
        train_classifier.train_one_epoch(
            model, bench.pictures, rows, labels, batches, optimiser, scheduler, image_size=bench.image_size,
            amp=bench.amp,
        )  # fmt: skip
        return len(rows)

    return work


def plain_classifier(bench: Bench) -> Callable[[], float]:
    model = new_classifier(bench).to(memory_format=torch.contiguous_format)
    optimiser = plain_optimiser(model, RATE)
    items = Reddit_Images_for_Classification(bench.folder, "train", transform=plain_transform(bench.image_size))
    batches = endless(plain_loader(items, bench.batch_size))

    def work() -> float:
        batch, target = next(batches)
        model.train()
        loss = F.cross_entropy(model(batch.to(bench.device)), target.to(bench.device))
        step(optimiser, loss)
        loss.item()
        return len(batch)

    return work


# --- evaluation and ranking -----------------------------------------------------------------------------------------
def scoring_network_alone(bench: Bench, batch_size: int) -> Callable[[], float]:
    model, side = new_siamese(bench), transforms.stored_side(bench.image_size)
    batch = torch.randint(256, (batch_size, 3, side, side), dtype=torch.uint8, device=bench.device)

    def work() -> float:
        with autocast(bench.device, bench.amp):
            model.rank(batch)
        return batch_size

    return work


def plain_scoring(bench: Bench) -> Callable[[], float]:
    """Decode a batch, score it in fp32, and so on."""
    model = new_siamese(bench).to(memory_format=torch.contiguous_format).eval()
    side = transforms.stored_side(bench.image_size)
    n, size = len(bench.sources), bench.batch_size
    batches = endless([bench.sources[i : i + size] for i in range(0, n, size)])

    def work() -> float:
        batch = next(batches)
        pixels = [transforms.load_square(source.path, side) for source in batch]
        with torch.inference_mode():
            model.score(transforms.whole(torch.from_numpy(np.stack(pixels)).to(bench.device)))[0].cpu()
        return len(batch)

    return work


def evaluation(bench: Bench) -> Iterator[Measure]:
    """Scores and their metrics, as after each epoch."""
    group, model, rows = "evaluation", new_siamese(bench), np.arange(len(bench.pictures))

    def ours() -> float:
        scores, _ = train_siamese.predict(model, bench.pictures, rows, bench.amp)
        metrics.pair_accuracy(scores, bench.v_score, mode_pairs(bench.v_score, "4"))
        metrics.kendall_tau(scores, bench.v_score)
        return len(rows)

    yield Measure(group, LIMIT, scoring_network_alone(bench, 64))
    yield Measure(group, PLAIN, plain_scoring(bench))
    yield Measure(group, OURS, ours)


def ranking(bench: Bench) -> Iterator[Measure]:
    """From JPEG: nothing is kept, so decoding is a limit as well."""
    group = "ranking from JPEG"
    stream = bench.sources * 4  # some batches long: a million pictures have one beginning and one end
    model, side = new_siamese(bench), transforms.stored_side(bench.image_size)

    def ours() -> float:
        return sum(map(len, rank_images.score_all(model, stream, side, bench.num_workers, bench.amp)))

    yield Measure(group, LIMIT, scoring_network_alone(bench, rank_images.BATCH))
    yield decoding(bench, group, side)
    yield Measure(group, PLAIN, plain_scoring(bench))
    yield Measure(group, OURS, ours)


def operations(bench: Bench) -> dict[str, float]:
    """Floating point operations an image, counted."""
    found = {}
    for group, work in (
        ("siamese training", siamese_network_alone(bench, "all")),
        ("classifier training", classifier_network_alone(bench)),
        ("evaluation", scoring_network_alone(bench, 2)),
    ):
        with FlopCounterMode(display=False) as counter:
            images = work()
        found[group] = counter.get_total_flops() / images
    return found

"""Time to accuracy: how long until a ranker is as accurate as the plain loop makes it.

    python -m studies.time_to_accuracy --data_path D [--model_type 0] [--image_size 128] [--seeds 0 1 2]

On the data set D: how long the plain loop takes for ten epochs of pair mode 4, and how long train_siamese.py with its
defaults takes, decoding included, to reach the same accuracy on the validation pictures. Writes to_accuracy.json into
--output.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import train_siamese
import training
from data_set import Reddit_Img_Pair
from device import seed_everything, select_device, synchronise
from siamese_net import RECIPES, SiameseNet
from studies import workloads
from studies.benchmark import spread
from training_data import load_ranking
from utils import at_least, print_configuration, run_main, write_json

PLAIN_EPOCHS = 10  # of pair mode 4, that the plain loop is given
RECIPE = replace(RECIPES["modern"], epochs=30)


def to_accuracy(
    data_path: str | Path, seed: int, device: torch.device, *, model_type: int, image_size: int, num_workers: int,
    amp: bool | None,
) -> dict[str, float | None]:  # fmt: skip
    """Print and return the seconds of the plain loop and of ours to the accuracy that it reaches; their ratio, or None
    where ours does not reach it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        copied = Path(folder)  # the pictures are still to be decoded there
        for name in ("datasets", "images"):
            (copied / name).symlink_to((Path(data_path) / name).resolve())
        shared = {"model_type": model_type, "image_size": image_size, "num_workers": num_workers, "amp": amp}
        plain, accuracy = plain_to_accuracy(copied, seed, device, **shared)
        print(f"seed {seed}: the plain loop is right on {accuracy:.4f} of the pairs in {plain:.1f} s", flush=True)
        ours, epochs, reached = ours_to_accuracy(copied, seed, device, accuracy, **shared)
    ratio = plain / ours if reached >= accuracy else None
    if ratio:
        print(f"seed {seed}: ours on {reached:.4f} in {ours:.1f} s, {epochs} epochs: {ratio:.2f} times")
    else:
        print(f"seed {seed}: ours is right on {reached:.4f} at the most, in {ours:.1f} s: not reached")
    return {"seed": seed, "plain_seconds": plain, "plain_accuracy": accuracy, "ours_seconds": ours,
            "ours_accuracy": reached, "ours_epochs": epochs, "ratio": ratio}  # fmt: skip


def plain_to_accuracy(
    data_path: Path, seed: int, device: torch.device, *, model_type: int, image_size: int, num_workers: int,
    amp: bool | None,
) -> tuple[float, float]:  # fmt: skip
    """Seconds that ten epochs take, and the accuracy on the validation pairs then, whose time does not count."""
    seed_everything(seed)
    # AlexNet as torchvision has it: the normalisation is one of the things that make ours quick.
    options = {"model_type": model_type, "image_size": image_size, "batch_norm": False}
    model = SiameseNet(weights="none", **options).to(device).to(memory_format=torch.contiguous_format)
    start = time.perf_counter()
    pairs = Reddit_Img_Pair(data_path, "train", "4", transform=workloads.plain_transform(image_size), seed=seed)
    loader = workloads.plain_loader(pairs, RECIPE.batch_size)
    optimiser = workloads.plain_optimiser(model, RECIPE.learning_rate)
    scheduler = training.one_cycle(optimiser, PLAIN_EPOCHS * len(loader))
    for epoch in range(PLAIN_EPOCHS):
        model.set_progress(min(1.0, epoch / (RECIPE.settled * PLAIN_EPOCHS)))
        pairs.redraw(seed + epoch)
        for (first, second), target in loader:
            workloads.plain_step(model, optimiser, first, second, target)
            scheduler.step()
    synchronise(device)
    seconds = time.perf_counter() - start
    # Not kept, for ours is to decode them itself.
    data = load_ranking(data_path, image_size=image_size, seed=seed, num_workers=num_workers, cache="off")
    return seconds, train_siamese.validate(model, data, "all", amp)["pair_accuracy"]


def ours_to_accuracy(
    data_path: Path, seed: int, device: torch.device, accuracy: float, *, model_type: int, image_size: int,
    num_workers: int, amp: bool | None,
) -> tuple[float, int, float]:  # fmt: skip
    """Seconds, from decoding on and with the validation after each epoch, the epochs, and the accuracy reached."""
    seed_everything(seed)
    model = SiameseNet(weights="none", model_type=model_type, image_size=image_size).to(device)
    start = time.perf_counter()
    data = load_ranking(data_path, image_size=image_size, seed=seed, num_workers=num_workers)
    rows, best = data.rows["train"], 0.0
    v_score = data.v_score[rows]
    steps = len(train_siamese.draw_batches(v_score, "all", RECIPE.batch_size, seed))
    optimiser = train_siamese.build_optimiser(model, RECIPE, RECIPE.learning_rate)
    scheduler = training.one_cycle(optimiser, RECIPE.epochs * steps, RECIPE.warm_up)
    for epoch in range(RECIPE.epochs):
        model.set_progress(min(1.0, epoch / (RECIPE.settled * RECIPE.epochs)))
        batches = train_siamese.draw_batches(v_score, "all", RECIPE.batch_size, seed)
        train_siamese.train_one_epoch(
            model, data.pictures, rows, v_score, batches, optimiser, scheduler, image_size=image_size, amp=amp,
            clip_norm=RECIPE.clip_norm,
        )  # fmt: skip
        best = max(best, train_siamese.validate(model, data, "all", amp)["pair_accuracy"])
        if best >= accuracy:
            break
    return time.perf_counter() - start, epoch + 1, best


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", required=True, metavar="D", help="a data set with virality scores")
    flag("--model_type", type=int, default=1, choices=(0, 1, 2), help="as in train_siamese.py (default %(default)s)")
    flag("--image_size", type=at_least(64), default=224, help="side of the network's input in pixels")
    flag("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="one measurement per seed")
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--num_workers", type=at_least(1), default=2, help="decoding processes")
    flag("--amp", action=argparse.BooleanOptionalAction, help="ours in bf16 (default: if the hardware supports it)")
    flag("--output", default="outputs/benchmark", metavar="DIR")
    return parser.parse_args(words)


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "time to an accuracy")
    device = select_device(args.device)
    output = training.start_run(args.output, vars(args), device)
    shared = {"model_type": args.model_type, "image_size": args.image_size}
    shared |= {"num_workers": args.num_workers, "amp": args.amp}
    rows = [to_accuracy(args.data_path, seed, device, **shared) for seed in args.seeds]
    if all(row["ratio"] for row in rows):
        found = spread([row["ratio"] for row in rows])
        print(f"the plain loop takes {found['median']:.2f} times as long ({found['low']:.2f} to {found['high']:.2f})")
    write_json(output / "to_accuracy.json", {"environment": training.environment(device), "seeds": rows})


if __name__ == "__main__":
    run_main(main)

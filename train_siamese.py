"""Train the siamese ranker: which of two pictures is more viral, and where in it?

    python train_siamese.py --data_path data/sample --weights none --image_size 128 --save_dir outputs/siamese

On 600 pictures of 128 pixels a run takes about five minutes on two cores. Writes into --save_dir config.json,
environment.json, metrics.csv (one row per epoch), last.pt and best.pt (selected on validation), results.json (the test
split, evaluated once, with best.pt), test_scores.csv and figures. `--check_point last` resumes a killed run.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import calibration
import data_set
import distributed
import feature_training
import losses
import metrics
import run_comparison
import run_results
import training
import transforms
from backbones import NETWORKS
from data_set import PAIR_MODES, Pictures
from decoding.decoder import MAX_PIXELS
from device import autocast, seed_everything, select_device
from siamese_net import RECIPES, Recipe, SiameseNet, boxes, epochs_of, named_recipe
from training_data import RankingData, load_ranking, mode_pairs
from utils import (
    UserError,
    load_checkpoint,
    print_configuration,
    rank,
    run_main,
    save_checkpoint,
    write_json,
)

Batch = tuple[np.ndarray, Tensor | None, Tensor | None]  # positions of pictures; targets and weights of their pairs


# --- the model and its step -----------------------------------------------------------------------------------------
def build_optimiser(model: SiameseNet, recipe: Recipe, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with the convolutions at the recipe's pace, or SGD with LocNet at a tenth of the rate (Singh & Lee 2016,
    section 4)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimiser == "adamw":
        parts, pace = [model.ranknet.extractor, *([model.locnet.features] if model.locnet else [])], recipe.pace
    else:
        parts, pace = [model.locnet] if model.locnet else [], 0.1
    slow = [p for part in parts for p in part.parameters()]
    groups = training.rate_groups(trained, slow, learning_rate * pace)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.05, fused=True)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, weight_decay=5e-4, fused=True)


def optimiser_and_rate(model: SiameseNet, recipe: Recipe, learning_rate: float, steps: int) -> dict[str, Any]:
    """The optimiser and, as scheduler, its learning rate over so many steps."""
    optimiser = build_optimiser(model, recipe, learning_rate)
    return {
        "optimiser": optimiser,
        "scheduler": training.one_cycle(optimiser, steps, recipe.warm_up),
    }


def freeze(
    model: SiameseNet, freeze_ranknet: bool, freeze_locnet: bool, locnet: dict[str, Tensor] | None = None
) -> None:
    """Freeze the convolutions of either network: no gradient is computed for them. LocNet's may be given."""
    if locnet and model.locnet:
        model.locnet.load_state_dict(locnet)
    if freeze_ranknet:
        model.ranknet.extractor[0].requires_grad_(False)
    if freeze_locnet:
        if model.locnet is None:
            raise UserError("--freeze_locnet: model type 0 has no LocNet")
        model.locnet.features.requires_grad_(False)


def draw_batches(
    v_score: np.ndarray, pair_mode: str, batch_size: int, seed: int, listed: metrics.PairList | None = None
) -> list[Batch]:
    """One epoch's batches: positions of pictures, and for pair modes the targets of first half against second half and
    their weights, of mean 1 over all.

    `listed` are the pairs of modes deza, controlled and file; the other modes draw their own, by `seed`.
    """
    if pair_mode == "all":
        order = torch.randperm(len(v_score)).numpy()
        return [(rows, None, None) for rows in training.split_batches(order, batch_size)]
    if listed is None:
        drawn = data_set.draw_pairs(v_score, pair_mode, seed)
        listed = metrics.PairList(drawn, data_set.targets_of(v_score, drawn))
    order = torch.randperm(len(listed.places))
    pairs, targets = listed.places[order.numpy()], torch.from_numpy(listed.targets).float()[order]
    weights = None if listed.weights is None else torch.from_numpy(listed.weights / listed.weights.mean())[order]
    parts = np.array_split(np.arange(len(pairs)), max(1, round(len(pairs) / batch_size)))
    of_part = lambda values, part: None if values is None else values[part]  # noqa: E731
    return [(np.concatenate([pairs[part, 0], pairs[part, 1]]), targets[part], of_part(weights, part)) for part in parts]


def ranking_loss(scores: Tensor, v_score: Tensor, targets: Tensor | None, weights: Tensor | None = None) -> Tensor:
    """Over every pair of a batch, or with targets over first half against second half."""
    if targets is None:
        return losses.all_pairs_loss(scores, v_score)
    return losses.ranknet_loss(*scores.chunk(2), targets, weights)


def train_one_epoch(
    model: SiameseNet,
    pictures: Pictures,
    rows: np.ndarray,
    v_score: np.ndarray,
    batches: list[Batch],
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    *,
    image_size: int,
    augment: str = "crop",
    amp: bool | None = None,
    compile: bool = False,
    clip_norm: float = 0,
    label: str = "",
) -> dict[str, float]:
    """One pass over `batches` (see `draw_batches`) of the training pictures `rows`, whose virality is `v_score`.

    Returns train_loss, images_per_second and the learning_rate of the last step.
    """
    model.train()
    device = next(model.parameters()).device
    start, seen, total = time.perf_counter(), 0, torch.zeros((), device=device)
    score = distributed.spread(model.score, compile)
    for places, *pairs in tqdm(batches, label, leave=False, disable=None):
        batch = transforms.to_device(pictures.batch(rows[distributed.begin(places)]), device)
        batch = transforms.AUGMENTATIONS[augment](batch, image_size)
        value = transforms.to_device(torch.from_numpy(v_score[places]), device)
        pairs = [None if part is None else transforms.to_device(part, device) for part in pairs]
        with autocast(device, amp):
            scores, _, glimpse = score(batch)
        loss = ranking_loss(distributed.gather(scores), value, *pairs)
        both = loss if glimpse is None else loss + ranking_loss(distributed.gather(glimpse), value, *pairs)
        optimiser.zero_grad(set_to_none=True)
        both.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimiser.step()
        learning_rate = optimiser.param_groups[0]["lr"]
        scheduler.step()
        total += loss.detach()
        seen += len(places)
    seconds = time.perf_counter() - start
    train_loss = total.item() / len(batches)
    return {"train_loss": train_loss, "images_per_second": seen / seconds, "learning_rate": learning_rate}


def predict(
    model: SiameseNet, pictures: Pictures, rows: np.ndarray, amp: bool | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (n,) of pictures, each once, and their windows as boxes (n, 4: x, y, w, h in pixels; None for type 0)."""
    device = next(model.parameters()).device
    scores, windows, own = [], [], distributed.part(rows)
    for part in np.array_split(own, max(1, -(-len(own) // 64))):
        with autocast(device, amp):
            score, window = model.rank(transforms.to_device(pictures.batch(part), device))
        scores.append(score.cpu())
        if window is not None:
            windows.append(boxes(window, torch.from_numpy(pictures.sizes[part])))
    scores = distributed.gather(torch.cat(scores).double(), len(rows)).numpy()
    if not np.isfinite(scores).all():
        raise UserError("the network's scores are NaN: try a smaller --learning_rate")
    return scores, distributed.gather(torch.cat(windows), len(rows)).numpy() if windows else None


def validate(model: SiameseNet, data: RankingData, pair_mode: str, amp: bool | None = None) -> dict[str, float]:
    """What metrics.csv holds of the validation split: pair accuracy over the pairs of a pair mode, and Kendall's τ-b.

    Without intervals, which would take longer than the scores of some hundred pictures.
    """
    v_score = data.v_score[data.rows["validation"]]
    scores, _ = predict(model, data.pictures, data.rows["validation"], amp)
    pairs = mode_pairs(v_score, pair_mode, data.pairs["validation"])
    return {
        "pair_accuracy": metrics.pair_accuracy(scores, v_score, pairs),
        "kendall_tau": metrics.kendall_tau(scores, v_score),
    }


# --- a run ----------------------------------------------------------------------------------------------------------
def train(
    data_path: str | Path,
    save_dir: str | Path = "outputs/siamese",
    *,
    model_name: str = "alexnet",
    model_type: int = 1,
    pair_mode: str = "all",
    recipe: str | Recipe = "modern",
    weights: str = "imagenet",
    image_size: int | None = None,
    augment: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    freeze_locnet: bool = False,
    freeze_ranknet: bool = False,
    split: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    check_point: str | None = None,
    device: str = "auto",
    num_workers: int = 2,
    cache: str = "on",
    max_pixels: int = MAX_PIXELS,
    left_out: str | None = None,
    compile: bool = False,
    amp: bool | None = None,
    deterministic: bool = False,
) -> dict[str, Any]:
    """A whole run: train, choose an epoch on validation, read the test split once. Returns what results.json holds.
    The parameters are the script's flags; those that are None default to the recipe's."""
    recipe = named_recipe(recipe, weights != "none", model_type)
    image_size, augment = image_size or recipe.image_size, augment or recipe.augment
    batch_size, learning_rate = batch_size or recipe.batch_size, learning_rate or recipe.learning_rate
    config = locals() | {"data_path": str(data_path), "save_dir": str(save_dir), "recipe": recipe.name}
    folder = Path(save_dir)
    if check_point == "last" and (results := training.finished_results(folder, training.given(config, "epochs"))):
        run_results.print_ranker(results, folder)
        return results
    device = select_device(device)
    data = load_ranking(
        data_path, image_size=image_size, pair_mode=pair_mode, split=split, seed=seed, fold=fold, folds=folds,
        num_workers=num_workers, cache=cache, max_pixels=max_pixels, left_out=left_out,
    )  # fmt: skip
    config["epochs"] = epochs = epochs or epochs_of(recipe, len(data.rows["train"]), batch_size)
    fit_type = functools.partial(
        fit, data, device, recipe=recipe, model_name=model_name, pair_mode=pair_mode, weights=weights,
        image_size=image_size, augment=augment, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        freeze_locnet=freeze_locnet, freeze_ranknet=freeze_ranknet, seed=seed, compile=compile, amp=amp,
        deterministic=deterministic,
    )  # fmt: skip
    with training.run_alone(folder):
        locnet = None
        if recipe.two_stages and model_type == 2 and check_point in (None, "last"):
            locnet = first_stage(fit_type, folder / "type_1", config)
        model, state = fit_type(folder, config, model_type=model_type, locnet=locnet)
        return finish(model, data, state, config, folder, data_path=data_path, pair_mode=pair_mode)


def first_stage(fit_type: Callable, folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """Train type 1 in a folder of its own. Returns its LocNet, from which type 2 starts (Singh & Lee 2016)."""
    print("first stage: type 1")
    with training.run_alone(folder):
        fit_type(folder, config | {"model_type": 1, "save_dir": str(folder)}, model_type=1)
    print("second stage: type 2, from that LocNet")
    return locnet_weights(folder / "best.pt")


def fit(
    data: RankingData,
    device: torch.device,
    folder: Path,
    config: dict[str, Any],
    *,
    recipe: Recipe,
    model_name: str,
    model_type: int,
    pair_mode: str,
    weights: str,
    image_size: int,
    augment: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    freeze_locnet: bool,
    freeze_ranknet: bool,
    seed: int,
    compile: bool,
    amp: bool | None,
    deterministic: bool,
    locnet: dict[str, Tensor] | None = None,
) -> tuple[SiameseNet, dict[str, Any]]:
    """Train a ranker of one type, or go on training it; `config` is kept beside it. See training.fit for the state."""
    resumed = training.resume_point(folder, config, "siamese")
    seed_everything(seed)
    batch_norm, weights = weights == "none", "none" if resumed else weights
    model = SiameseNet(model_name, model_type, weights, recipe, image_size, batch_norm).to(device)
    freeze(model, freeze_ranknet, freeze_locnet, locnet)
    rows, v_score, listed = data.rows["train"], data.v_score[data.rows["train"]], data.pairs["train"]
    draw = functools.partial(draw_batches, v_score, pair_mode, batch_size, listed=listed)
    train_some = functools.partial(
        train_one_epoch, pictures=data.pictures, rows=rows, v_score=v_score, image_size=image_size, augment=augment,
        clip_norm=recipe.clip_norm,
    )  # fmt: skip
    steps = epochs * len(draw(seed=0))
    schedule = functools.partial(optimiser_and_rate, recipe=recipe, learning_rate=learning_rate, steps=steps)
    precision = training.choose_precision(
        f"{model_name}, type {model_type}, {recipe.name}, {batch_size} of {image_size} pixels", model, device, schedule,
        functools.partial(train_some, batches=draw(seed=0)[:1]), amp=amp, steps=steps, resumed=resumed,
        deterministic=deterministic,
    )  # fmt: skip
    training.start_run(folder, config, device, precision)
    stepping = schedule(model)

    def one_epoch(epoch: int) -> dict[str, float]:
        model.set_progress(min(1.0, epoch / max(1, recipe.settled * epochs)))
        return train_some(
            model, batches=draw(seed=seed * 100_003 + epoch), **stepping, amp=precision.amp, compile=compile,
            label=f"epoch {epoch + 1}/{epochs}",
        )  # fmt: skip

    about = {"kind": "siamese", "config": config, "recipe": asdict(recipe), "precision": precision._asdict()}
    return model, training.fit(
        model, **stepping, train_one_epoch=one_epoch, validate=lambda: validate(model, data, pair_mode, precision.amp),
        folder=folder, about=about | {"transform": transforms.describe(image_size)}, epochs=epochs, seed=seed,
        chosen_by="pair_accuracy", first=math.ceil(recipe.settled * epochs), resumed=resumed,
        watch=lambda: watched_windows(model, data, precision.amp) if model.locnet else None,
    )  # fmt: skip


def temperature_of(model: SiameseNet, data: RankingData, pair_mode: str, amp: bool | None) -> float:
    """What turns differences of scores into probabilities, fitted on the validation pairs."""
    rows = data.rows["validation"]
    pairs = mode_pairs(data.v_score[rows], pair_mode, data.pairs["validation"])
    return calibration.fit_temperature(predict(model, data.pictures, rows, amp)[0], data.v_score[rows], pairs)


def locnet_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of the LocNet in a checkpoint."""
    weights = load_checkpoint(path, "siamese")["model"]
    return {key.removeprefix("locnet."): value for key, value in weights.items() if key.startswith("locnet.")}


def watched_windows(model: SiameseNet, data: RankingData, amp: bool | None) -> list[list[float]]:
    """The windows (x, y, w, h in pixels) of the watched validation pictures."""
    return predict(model, data.pictures, run_results.watched(data), amp)[1].round(2).tolist()


def finish(
    model: SiameseNet,
    data: RankingData,
    state: dict[str, Any],
    config: dict[str, Any],
    folder: Path,
    *,
    data_path: str | Path,
    pair_mode: str,
) -> dict[str, Any]:
    """Score the test split with the checkpoint that validation chose; write results.json and the pictures."""
    best = load_checkpoint(folder / "best.pt", "siamese")
    model.load_state_dict(best["model"])
    amp = best.get("precision", {}).get("amp")  # as the epochs were compared
    rows = data.rows["test"]
    start = time.perf_counter()
    scores, windows = predict(model, data.pictures, rows, amp)
    seconds = time.perf_counter() - start
    temperature = temperature_of(model, data, pair_mode, amp)
    results = {
        "configuration": config,
        "best_epoch": best["epoch"],
        "validation_pair_accuracy": state["history"][best["epoch"] - 1]["val_pair_accuracy"],
        **run_results.figures_of_ranker(scores, windows, data, data_path, pair_mode, temperature),
        "train_seconds": sum(row["seconds"] for row in state["history"]),
        "train_images_per_second": float(np.mean([row["images_per_second"] for row in state["history"]])),
        "seconds": seconds,
        "images_per_second": len(rows) / seconds,
    }
    # A percentile needs something to stand against: the scores of the pictures that the ranker was trained on.
    train_scores, _ = predict(model, data.pictures, data.rows["train"], amp)
    found = {"train_scores": torch.from_numpy(np.sort(train_scores)), "temperature": temperature}
    save_checkpoint(folder / "best.pt", best | found)
    training.share_last(folder, state)
    table = run_results.write_test_scores(folder, data, data_path, scores, windows)
    if rank() == 0:
        run_results.draw_ranker(folder, data, state, table, windows, data_path, pair_mode)
    write_json(folder / "results.json", results)  # at last: it says that the run is through
    run_results.print_ranker(results, folder)
    return results


# --- the command ----------------------------------------------------------------------------------------------------
def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a training, which `train` takes."""
    training.add_common_flags(parser)
    flag = parser.add_argument
    flag("--model_name", help=", ".join(NETWORKS) + ", any other torchvision network, or timm:NAME")
    flag("--model_type", type=int, choices=(0, 1, 2), help="0 whole picture, 1 window, 2 both (default %(default)s)")
    flag("--pair_mode", choices=PAIR_MODES, help="which images are compared (default %(default)s)")
    flag("--recipe", choices=RECIPES, help="default %(default)s")
    flag(
        "--augment", choices=transforms.AUGMENTATIONS, help="augmentation of training pictures (default: the recipe's)"
    )
    flag("--freeze_locnet", action=argparse.BooleanOptionalAction, help="do not train LocNet's convolutions")
    flag("--freeze_ranknet", action=argparse.BooleanOptionalAction, help="do not train the ranker's convolutions")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    training.add_several_runs(parser)
    parser.add_argument("--features", metavar="FILE.npz", help="train a head on these features (see feature_files.py)")
    parser.add_argument(
        "--compare", nargs="+", metavar="RUN", help="test whether one run is better than another, without training"
    )
    parser.set_defaults(**training.defaults_of(train))
    args = parser.parse_args(words)
    if not args.data_path and not args.compare:
        parser.error("--data_path is required")
    return args


def main() -> None:
    args = parse_arguments()
    if args.compare:
        run_comparison.compare_runs(args.compare)
        return
    distributed.join(args.device)
    if args.features:
        feature_training.run(feature_training.train_ranker, args.seeds, vars(args))
        return
    print_configuration(args, "siamese ranker")
    settings = {name: value for name, value in vars(args).items() if name not in ("seeds", "compare", "features")}
    if args.seeds or args.folds > 1:
        training.train_many(train, args.seeds, **settings)
    else:
        train(**settings)


if __name__ == "__main__":
    run_main(main)

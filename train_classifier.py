"""Train a classifier: which subreddit is this picture from?

    python train_classifier.py --data_path data/sample --weights none --image_size 128 --save_dir outputs/classifier
    python train_classifier.py --check_point outputs/classifier/best.pt --predict SOURCE… --output labels.csv

On 600 pictures of 128 pixels a run takes a few minutes on two cores. Writes into --save_dir config.json,
environment.json, metrics.csv (one row per epoch), last.pt and best.pt (selected on validation), results.json (the test
split, evaluated once, with best.pt), test_predictions.csv and figures. `--check_point last` resumes a killed run. With
--freeze_features only the head is trained, on features computed once.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import backbones
import data_set
import distributed
import feature_extractor
import feature_training
import label_images
import metrics
import run_results
import training
import transforms
from classifier_net import cnn_classifier, multiply_adds, parameters, train_mode
from data_set import Pictures
from decoding.decoder import MAX_PIXELS
from device import autocast, peak_memory, reset_peak_memory, seed_everything, select_device
from feature_extractor import Features
from precision import Precision, lay_out, usual
from table_files import named
from training_data import ClassificationData, load_classification, weights_of_classes
from utils import (
    at_least,
    load_checkpoint,
    print_configuration,
    rank,
    run_main,
)

PACE = 0.3  # the rate of pretrained convolutions, as a share of the head's


def recipe_of(model_name: str, weights: str, freeze_features: str | None) -> dict[str, Any]:
    """What is taken where it is not given: from pretrained convolutions, from nothing, or with frozen ones."""
    if freeze_features:
        # AlexNet's and VGG's published heads are two layers of millions of weights: they learn in few, slower steps.
        large = freeze_features == "published" and model_name.startswith(("alexnet", "vgg"))
        rate, epochs = (2e-4, 15) if large else (2e-3, 60)
        steps = {"epochs": epochs, "batch_size": 64, "learning_rate": rate}
        return steps | {"augment": "none", "image_size": 224, "label_smoothing": 0.0}
    if weights == "none":
        steps = {"epochs": 60, "batch_size": 64, "learning_rate": 3e-4}
        return steps | {"augment": "strong", "image_size": 96, "label_smoothing": 0.1}
    steps = {"epochs": 12, "batch_size": 32, "learning_rate": 3e-4}
    return steps | {"augment": "mild", "image_size": 224, "label_smoothing": 0.0}


# --- the model and its step -----------------------------------------------------------------------------------------
def build(
    model_name: str, classes: int, weights: str, freeze_features: str | None, image_size: int, device: torch.device
) -> nn.Module:
    """The network on its device. Raises UserError if it cannot take pictures of this size."""
    model = lay_out(
        cnn_classifier(model_name, classes, weights, freeze_features)[0].to(device), layout(model_name, device)
    )
    backbones.check_size(model, image_size, transforms.stored_side(image_size))
    return model


def build_optimiser(model: nn.Module, learning_rate: float, pretrained: bool = False) -> torch.optim.Optimizer:
    """AdamW on what is trained; pretrained convolutions at PACE times the rate of the head."""
    trained = [p for p in model.parameters() if p.requires_grad]
    head = model.get_submodule(backbones.trained_part(model, "published")) if pretrained else model
    fast = {id(p) for p in head.parameters()}
    groups = training.rate_groups(trained, [p for p in trained if id(p) not in fast], learning_rate * PACE)
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.05, fused=True)


def optimiser_and_rate(model: nn.Module, learning_rate: float, steps: int, pretrained: bool = False) -> dict[str, Any]:
    """The optimiser and, as scheduler, its learning rate over so many steps."""
    optimiser = build_optimiser(model, learning_rate, pretrained)
    return {"optimiser": optimiser, "scheduler": training.one_cycle(optimiser, steps)}


def layout(model_name: str, device: torch.device) -> Precision:
    """Where nothing is measured: channels last for AlexNet and DenseNet, which gain on every processor, and on CUDA."""
    return Precision(usual(device).amp, model_name in ("alexnet", "densenet") or device.type == "cuda")


def draw_batches(labels: np.ndarray, batch_size: int, balance_data: int | str | None = None) -> list[np.ndarray]:
    """One epoch's batches: positions in `labels`, each once, or with 'weighted' every class as often."""
    if balance_data == "weighted":
        weight = torch.from_numpy(1 / np.bincount(labels)[labels])
        order = torch.multinomial(weight, len(labels), replacement=True).numpy()
    else:
        order = torch.randperm(len(labels)).numpy()
    return training.split_batches(order, batch_size)


def train_one_epoch(
    model: nn.Module,
    pictures: Pictures | Features,
    rows: np.ndarray,
    labels: np.ndarray,
    batches: list[np.ndarray],
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    *,
    image_size: int,
    augment: str = "crop",
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    amp: bool | None = None,
    compile: bool = False,
    label: str = "",
) -> dict[str, float]:
    """One pass over `batches` (positions) of the training pictures `rows`, whose labels are `labels`; `weight` is of
    the classes. Features (float) are taken as they are.

    Returns train_loss, train_accuracy, images_per_second and the learning_rate of the last step.
    """
    train_mode(model)
    device = next(model.parameters()).device
    start, seen = time.perf_counter(), 0
    total, right = torch.zeros((), device=device), torch.zeros((), device=device)
    forward = distributed.spread(model.forward, compile)
    for places in tqdm(batches, label, leave=False, disable=None):
        batch = transforms.to_device(pictures.batch(rows[distributed.begin(places)]), device)
        if not batch.is_floating_point():
            batch = transforms.AUGMENTATIONS[augment](batch, image_size)
        target = transforms.to_device(torch.from_numpy(labels[places]), device)
        with autocast(device, amp):
            scores = forward(batch)
        scores = distributed.gather(scores.float())
        loss = F.cross_entropy(scores, target, weight, label_smoothing=label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        learning_rate = optimiser.param_groups[0]["lr"]
        scheduler.step()
        total += loss.detach()
        right += (scores.detach().argmax(1) == target).sum()
        seen += len(places)
    found = {"train_loss": total.item() / len(batches), "train_accuracy": right.item() / seen}
    seconds = time.perf_counter() - start
    return found | {"images_per_second": seen / seconds, "learning_rate": learning_rate}


@torch.inference_mode()
def predict(model: nn.Module, pictures: Pictures | Features, rows: np.ndarray, amp: bool | None = None) -> np.ndarray:
    """Probabilities (n, classes) of pictures, each seen once and whole."""
    model.eval()
    device = next(model.parameters()).device
    found, own = [], distributed.part(rows)
    for part in np.array_split(own, max(1, -(-len(own) // 64))):
        batch = transforms.to_device(pictures.batch(part), device)
        with autocast(device, amp):
            scores = model(batch if batch.is_floating_point() else transforms.whole(batch))
        found.append(scores.float().softmax(1).cpu())
    return distributed.gather(torch.cat(found).double(), len(rows)).numpy()


def evaluate(
    model: nn.Module,
    pictures: Pictures | Features,
    rows: np.ndarray,
    labels: np.ndarray,
    amp: bool | None = None,
) -> dict[str, float]:
    """Cross entropy, accuracy, balanced accuracy and macro F1 on the pictures `rows`, without intervals."""
    probabilities = predict(model, pictures, rows, amp)
    loss = float(-np.log(np.maximum(probabilities[np.arange(len(rows)), labels], 1e-12)).mean())
    matrix = metrics.confusion(labels, probabilities.argmax(1), probabilities.shape[1])
    accuracy = float(np.trace(matrix) / len(rows))
    return {
        "loss": loss,
        "accuracy": accuracy,
        "balanced_accuracy": float(metrics.balanced_accuracy(matrix)),
        "macro_f1": float(metrics.macro_f1(matrix)),
    }


# --- a run ----------------------------------------------------------------------------------------------------------
def train(
    data_path: str | Path,
    save_dir: str | Path = "outputs/classifier",
    *,
    model_name: str = "alexnet",
    weights: str = "imagenet",
    image_size: int | None = None,
    augment: str | None = None,
    balance_data: int | str | None = None,
    class_weights: bool = False,
    label_smoothing: float | None = None,
    freeze_features: str | None = None,
    feature_file: bool = True,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
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

    The parameters are the script's flags; those that are None default to what suits the network (see `recipe_of`).
    """
    config = locals() | {"data_path": str(data_path), "save_dir": str(save_dir)}
    defaults = recipe_of(model_name, weights, freeze_features)
    config |= {name: value for name, value in defaults.items() if config[name] is None}
    image_size = config["image_size"]
    folder = Path(save_dir)
    if check_point == "last" and (results := training.finished_results(folder, config)):
        print(f"{folder} is finished")
        return results
    device = select_device(device)
    data = load_classification(
        data_path, image_size=image_size, split=split, seed=seed, fold=fold, folds=folds, num_workers=num_workers,
        cache=cache, max_pixels=max_pixels, left_out=left_out, balance_data=balance_data,
    )  # fmt: skip
    with training.run_alone(folder):
        model, state = fit(
            data, device, folder, config, model_name=model_name, weights=weights, image_size=image_size,
            augment=config["augment"], balance_data=balance_data, class_weights=class_weights,
            label_smoothing=config["label_smoothing"], freeze_features=freeze_features, feature_file=feature_file,
            epochs=config["epochs"], batch_size=config["batch_size"], learning_rate=config["learning_rate"], seed=seed,
            compile=compile, amp=amp, deterministic=deterministic, processed=data_set.processed_folder(Path(data_path)),
        )  # fmt: skip
        return finish(model, data, state, config, folder, data_path, image_size)


def fit(
    data: ClassificationData, device: torch.device, folder: Path, config: dict[str, Any], *,
    model_name: str, weights: str, image_size: int, augment: str, balance_data: int | str | None, class_weights: bool,
    label_smoothing: float, freeze_features: str | None, feature_file: bool, epochs: int, batch_size: int,
    learning_rate: float, seed: int, compile: bool, amp: bool | None, deterministic: bool, processed: Path,
) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
    """Train, or go on training; see training.fit for the state. What is frozen and not augmented goes through the
    network once, into a file under `processed`, where the network can be cut."""
    resumed = training.resume_point(folder, config, "classifier")
    seed_everything(seed)
    on_features = bool(freeze_features) and augment == "none" and feature_file
    weights = "none" if resumed and not on_features else weights
    model = build(model_name, len(data.classes), weights, freeze_features, image_size, device)
    network, inputs, on_features = model, data.pictures, on_features and backbones.can_be_cut(model)
    if on_features:
        network = backbones.head_of(model, freeze_features)
        about = {"model_name": model_name, "weights": weights, "cut": freeze_features, "image_size": image_size}
        inputs = feature_extractor.load_features(model, inputs, processed, **about, amp=amp, device=device)
    rows, labels, validation = data.rows["train"], data.labels[data.rows["train"]], data.rows["validation"]
    draw = functools.partial(draw_batches, labels, batch_size, balance_data)
    train_some = functools.partial(
        train_one_epoch, pictures=inputs, rows=rows, labels=labels, image_size=image_size, augment=augment,
        weight=weights_of_classes(labels).to(device) if class_weights else None, label_smoothing=label_smoothing,
    )  # fmt: skip
    steps, tuned = epochs * len(draw()), config["weights"] != "none" and not freeze_features
    schedule = functools.partial(optimiser_and_rate, learning_rate=learning_rate, steps=steps, pretrained=tuned)
    precision = training.choose_precision(
        f"{model_name}, {freeze_features or 'all'}, {batch_size} of {image_size} pixels", network, device, schedule,
        functools.partial(train_some, batches=draw()[:1]), amp=amp, resumed=resumed, deterministic=deterministic,
        steps=0 if on_features else steps, otherwise=layout(model_name, device),
    )  # fmt: skip
    training.start_run(folder, config, device, precision)
    reset_peak_memory(device)
    stepping = schedule(network)

    def one_epoch(epoch: int) -> dict[str, float]:
        batches, label = draw(), f"epoch {epoch + 1}/{epochs}"
        return train_some(network, batches=batches, **stepping, amp=precision.amp, compile=compile, label=label)

    about = {"config": config, "transform": transforms.describe(image_size), "classes": data.classes}
    about |= {"kind": "classifier", "precision": precision._asdict()}
    # The loss tells epochs apart that the accuracy, on few validation pictures, puts in order by chance.
    state = training.fit(
        network, **stepping, train_one_epoch=one_epoch,
        validate=lambda: evaluate(network, inputs, validation, data.labels[validation], precision.amp),
        folder=folder, about=about, epochs=epochs, seed=seed, chosen_by="loss", lowest=True,
        printed="accuracy", resumed=resumed, whole=model,
    )  # fmt: skip
    seconds = inputs.about["seconds"] if on_features else None
    return model, state | {"peak_memory_mib": peak_memory(device), "feature_seconds": seconds}


def finish(
    model: nn.Module,
    data: ClassificationData,
    state: dict[str, Any],
    config: dict[str, Any],
    folder: Path,
    data_path: str | Path,
    image_size: int,
) -> dict[str, Any]:
    """Read the test split with the checkpoint that validation chose; write results.json and the pictures."""
    best = load_checkpoint(folder / "best.pt", "classifier")
    training.share_last(folder, state)
    model.load_state_dict(best["model"])
    start = time.perf_counter()
    probabilities = predict(model, data.pictures, data.rows["test"], best.get("precision", {}).get("amp"))
    seconds = time.perf_counter() - start
    history = state["history"]
    side = transforms.stored_side(image_size)
    extra = {
        "best_epoch": best["best_epoch"],
        "validation_accuracy": history[best["best_epoch"] - 1]["val_accuracy"],
        "train_seconds": sum(row["seconds"] for row in history),
        "train_images_per_second": float(np.median([row["images_per_second"] for row in history])),
        "seconds": seconds,
        "images_per_second": len(probabilities) / seconds,
        "parameters": parameters(model),
        "multiply_adds": multiply_adds(model, side),
        "peak_memory_mib": state["peak_memory_mib"],
        "file_mib": (folder / "best.pt").stat().st_size / 2**20,
        **feature_figures(state, data),
    }
    return run_results.report_classifier(probabilities, data, config, folder, data_path, extra, history)


def feature_figures(state: dict[str, Any], data: ClassificationData) -> dict[str, float]:
    """How much faster an epoch on features is than the same pictures' way through the network, forward alone."""
    if not state["feature_seconds"]:
        return {}
    seen = len(data.rows["train"]) + len(data.rows["validation"])
    through = state["feature_seconds"] * seen / len(data.pictures)
    epoch = float(np.median([row["seconds"] for row in state["history"][1:] or state["history"]]))
    print(f"an epoch on features {epoch:.4f} s; through the network {through:.2f} s: {through / epoch:.0f} times")
    return {"feature_seconds": state["feature_seconds"], "epoch_seconds": epoch, "epoch_speed_up": through / epoch}


# --- the command ----------------------------------------------------------------------------------------------------
def number_or_weighted(word: str) -> int | str:
    return word if word == "weighted" else at_least(1)(word)


number_or_weighted.__name__ = "number, or 'weighted'"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a training, which `train` takes."""
    training.add_common_flags(parser)
    flag = parser.add_argument
    flag("--model_name", help=", ".join(backbones.NETWORKS) + ", any other torchvision network, or timm:NAME")
    flag("--balance_data", nargs="?", const=100, type=number_or_weighted, metavar="N|weighted",
         help="train on N pictures of each class (default 100), or sample all classes equally often")  # fmt: skip
    flag("--class_weights", action=argparse.BooleanOptionalAction, help="weight rare classes more in the loss")
    flag("--label_smoothing", type=float, help="share of the target spread over all classes")
    flag("--augment", choices=transforms.AUGMENTATIONS,
         help="of training pictures (default mild; strong with --weights none, none if frozen)")  # fmt: skip
    flag("--freeze_features", nargs="?", const="published", choices=backbones.CUTS,
         help="train only the head ('published'), or only the last layer ('last')")  # fmt: skip
    flag("--feature_file", action=argparse.BooleanOptionalAction,
         help="compute frozen, unaugmented features once and store them in a file")  # fmt: skip


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with an error if the flags of a training are inconsistent."""
    if not args.data_path:
        parser.error("--data_path is required")
    if args.label_smoothing is not None and not 0 <= args.label_smoothing < 1:
        parser.error(f"--label_smoothing {args.label_smoothing} is not in [0, 1)")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    training.add_several_runs(parser)
    flag = parser.add_argument
    flag("--features", metavar="FILE.npz", help="train a head on these features (see feature_files.py), or label them")
    flag("--predict", nargs="*", metavar="SOURCE",
         help="label pictures (folders, archives, lists, addresses), or --features, with --check_point")  # fmt: skip
    flag("--output", default="labels.csv", metavar="FILE", help="table of --predict: .csv, .jsonl or .parquet")
    parser.set_defaults(**training.defaults_of(train))
    args = parser.parse_args(words)
    if args.predict is None:
        check_flags(parser, args)
    elif args.check_point in (None, "last"):
        parser.error("--predict needs --check_point FILE, a run's best.pt")
    elif bool(args.predict) == bool(args.features):
        parser.error("--predict labels the pictures of a SOURCE, or --features")
    return args


def main() -> None:
    args = parse_arguments()
    distributed.join(args.device)
    if args.features and args.predict is None:
        feature_training.run(feature_training.train_classifier, args.seeds, vars(args))
        return
    if args.predict is not None:
        output, format = named(args.output, None, "labels")
    print_configuration(args, "subreddit classifier")
    if args.predict is not None:
        if rank() == 0 and args.features:
            feature_training.label_features(args.features, args.check_point, output, format)
        elif rank() == 0:
            machine = {"device": args.device, "num_workers": args.num_workers, "amp": args.amp}
            machine |= {"deterministic": args.deterministic}
            limits = {"max_pixels": args.max_pixels, "left_out": args.left_out, "format": format}
            label_images.label_pictures(args.predict, args.check_point, output, **machine, **limits)
        return
    own = ("seeds", "predict", "output", "features")
    settings = {name: value for name, value in vars(args).items() if name not in own}
    if args.seeds or args.folds > 1:
        training.train_many(train, args.seeds, **settings)
    else:
        train(**settings)


if __name__ == "__main__":
    run_main(main)

"""Train a classifier: which subreddit is this picture from?

    python train_classifier.py --data_path data/sample --weights none --image_size 128 --save_dir outputs/classifier
    python train_classifier.py --check_point outputs/classifier/best.pt --predict FOLDER --output labels.csv

On 600 pictures of 128 pixels a run takes some two minutes on two cores. Written into --save_dir: config.json,
environment.json, metrics.csv (a row an epoch), last.pt and best.pt (best on validation), results.json (the test split,
read once, by best.pt), test_predictions.csv and pictures. `--check_point last` goes on where a killed run stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import data_set
import feature_extractor
import metrics
import transforms
import visualisation
from classifier_net import cnn_classifier, train_mode
from data_set import Pictures
from feature_extractor import NETWORKS, Features
from utils import (
    UserError,
    add_common_flags,
    at_least,
    autocast,
    finish_log,
    load_checkpoint,
    print_configuration,
    read_json,
    read_survivors,
    resume_point,
    rng_state,
    run_main,
    same_flags,
    save_checkpoint,
    seed_everything,
    select_device,
    set_rng_state,
    start_run,
    write_csv,
    write_json,
    write_text,
)

SHOWN = 12  # mistakes drawn, of the most and of the least certain


def recipe_defaults(args: argparse.Namespace) -> dict[str, Any]:
    """Epochs, batch and rate where no flag sets them."""
    if args.freeze_features:
        # AlexNet's and VGG's published heads are two layers of millions of weights: they learn in few, slower steps.
        large = args.freeze_features == "published" and args.model_name.startswith(("alexnet", "vgg"))
        return {"epochs": 15 if large else 60, "batch_size": 64, "learning_rate": 2e-4 if large else 2e-3}
    epochs = {"alexnet": 8, "vgg": 6, "resnet": 8, "densenet": 10}.get(args.model_name, 10)
    return {"epochs": epochs, "batch_size": 64, "learning_rate": 3e-4 if args.weights == "none" else 5e-5}


# --- the model and its step -----------------------------------------------------------------------------------------
def build_optimiser(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW on what is trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.05, fused=True)


def build_scheduler(optimiser: torch.optim.Optimizer, args: argparse.Namespace, steps: int) -> Any:
    """A warm-up over the first 15 % of the steps and a cosine to nothing."""
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, args.learning_rate, total_steps=steps, pct_start=0.15)


def draw_batches(labels: np.ndarray, args: argparse.Namespace) -> list[np.ndarray]:
    """One epoch's batches: positions in `labels`, each once, or with weighted sampling every class as often."""
    if args.balance_data == "weighted":
        weight = torch.from_numpy(1 / np.bincount(labels)[labels])
        order = torch.multinomial(weight, len(labels), replacement=True).numpy()
    else:
        order = torch.randperm(len(labels)).numpy()
    return np.array_split(order, max(1, round(len(order) / args.batch_size)))


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """The inverse of each class's share in `labels`, scaled so that a picture's weight is 1 on average; (classes,)."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / ((counts > 0).sum() * np.maximum(counts, 1))).float()


def prepare(batch: Tensor, args: argparse.Namespace) -> Tensor:
    """What the network sees in training: pictures augmented or whole; features (float) as they are."""
    if batch.is_floating_point():
        return batch
    return transforms.augment(batch, args.image_size) if args.augment else transforms.whole(batch)


def train_one_epoch(
    model: nn.Module,
    pictures: Pictures | Features,
    rows: np.ndarray,
    labels: np.ndarray,
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    args: argparse.Namespace,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training pictures `rows`; `labels` are theirs. Returns train_loss, train_accuracy and
    images_per_second."""
    train_mode(model)
    device = next(model.parameters()).device
    weight = class_weights(labels, int(labels.max()) + 1).to(device) if args.class_weights else None
    start, seen = time.perf_counter(), 0
    total, right = torch.zeros((), device=device), torch.zeros((), device=device)
    batches = draw_batches(labels, args)
    for places in tqdm(batches, f"epoch {epoch + 1}/{args.epochs}", leave=False, disable=None):
        batch = prepare(pictures.batch(rows[places]).to(device, non_blocking=True), args)
        target = torch.from_numpy(labels[places]).to(device)
        with autocast(device, args.amp):
            scores = model(batch).float()
        loss = F.cross_entropy(scores, target, weight, label_smoothing=args.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        scheduler.step()
        total += loss.detach()
        right += (scores.detach().argmax(1) == target).sum()
        seen += len(places)
    train_loss = total.item() / len(batches)
    if not np.isfinite(train_loss):
        raise UserError(f"the loss is {train_loss} in epoch {epoch + 1}: try a smaller --learning_rate")
    seconds = time.perf_counter() - start
    return {"train_loss": train_loss, "train_accuracy": right.item() / seen, "images_per_second": seen / seconds}


@torch.inference_mode()
def predict(model: nn.Module, pictures: Pictures | Features, rows: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """Probabilities (n, classes) of pictures, each seen once and whole."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    for part in np.array_split(rows, max(1, -(-len(rows) // 64))):
        batch = pictures.batch(part).to(device)
        with autocast(device, args.amp):
            scores = model(batch if batch.is_floating_point() else transforms.whole(batch))
        found.append(scores.float().softmax(1).cpu())
    return torch.cat(found).double().numpy()


def evaluate(
    model: nn.Module,
    pictures: Pictures | Features,
    rows: np.ndarray,
    labels: np.ndarray,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Cross entropy, accuracy, balanced accuracy and macro F1 on the pictures `rows`, without intervals."""
    probabilities = predict(model, pictures, rows, args)
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
class Data:
    """Pictures, their labels, the names of the classes, and the rows of each split."""

    def __init__(self, args: argparse.Namespace) -> None:
        table = data_set.read_table(args.data_path, "image4classification", ["subreddit", "label"])
        self.classes = data_set.class_names(table)
        side = transforms.stored_side(args.image_size)
        self.pictures = data_set.load_pictures(args.data_path, table["img_id"], side, args.num_workers)
        data_set.report_faults(self.pictures, args.data_path)
        self.labels = table.set_index("img_id").loc[self.pictures.img_ids, "label"].to_numpy(np.int64)
        split = data_set.split_of(self.pictures.img_ids, args.seed, args.fold, args.folds)
        self.rows = {name: np.flatnonzero(split == name) for name in data_set.SPLITS}
        for name, rows in self.rows.items():
            if len(np.unique(self.labels[rows])) < (2 if name == "train" else 1):
                raise UserError(
                    f"{args.data_path}: its {name} split has {len(rows)} usable pictures and too few classes"
                )
        if isinstance(args.balance_data, int):
            self.rows["train"] = balanced(self.rows["train"], self.labels, args.balance_data, args.seed)
            print(f"balanced: {len(self.rows['train'])} training pictures, of each class as many")


def balanced(rows: np.ndarray, labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Of each class the same number of rows: n, or as many as the smallest class has."""
    rng = np.random.default_rng(seed)
    classes = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    n = min(n, *map(len, classes))
    return np.sort(np.concatenate([rng.choice(each, n, replace=False) for each in classes]))


def train(args: argparse.Namespace) -> dict[str, Any]:
    """A whole run: train, keep the best on validation, read the test split once. Returns what results.json holds."""
    folder = Path(args.save_dir)
    if args.check_point == "last" and (results := finished_results(folder, args)):
        print_results(results, folder)
        return results
    data, model, state = fit(args)
    return finish(model, data, state, args, folder)


def finished_results(folder: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a run of the same flags that is through has left: the test split is not read twice."""
    if not (folder / "results.json").is_file() or not (folder / "best.pt").is_file():
        return None
    results = read_json(folder / "results.json")
    return results if same_flags(results.get("configuration", {}), args) is None else None


def fit(args: argparse.Namespace) -> tuple[Data, nn.Module, dict[str, Any]]:
    """Train, or go on training; last.pt, best.pt and metrics.csv are written as it goes."""
    device = select_device(args.device)
    seed_everything(args.seed)
    data = Data(args)
    resumed = resume_point(args, "classifier")
    weights = "none" if resumed else args.weights
    model, _ = cnn_classifier(args.model_name, len(data.classes), weights, args.freeze_features)
    model.to(device)
    folder = start_run(args.save_dir, vars(args), device)
    rows, labels = data.rows["train"], data.labels[data.rows["train"]]
    optimiser = build_optimiser(model, args)
    scheduler = build_scheduler(optimiser, args, args.epochs * len(draw_batches(labels, args)))
    state = {"epoch": 0, "best": (-1.0, 0.0), "history": []}
    seed_everything(args.seed)  # the batches do not depend on how many numbers the weights took
    if resumed:
        model.load_state_dict(resumed["model"])
        optimiser.load_state_dict(resumed["optimiser"])
        scheduler.load_state_dict(resumed["scheduler"])
        set_rng_state(resumed["rng"])
        state = {key: resumed[key] for key in state}
        print(f"going on after epoch {state['epoch']} of {args.epochs}")
    validation = data.rows["validation"]
    for epoch in range(state["epoch"], args.epochs):
        start = time.perf_counter()
        trained = train_one_epoch(model, data.pictures, rows, labels, optimiser, scheduler, args, epoch)
        found = evaluate(model, data.pictures, validation, data.labels[validation], args)
        row = {"epoch": epoch + 1, **trained, **{f"val_{name}": value for name, value in found.items()}}
        row["learning_rate"] = scheduler.get_last_lr()[0]
        merit = (found["accuracy"], -found["loss"])  # few validation pictures leave ties, which the loss decides
        is_best = merit > tuple(state["best"])
        state = {
            "epoch": epoch + 1,
            "best": max(merit, tuple(state["best"])),
            "history": [*state["history"], row | {"seconds": time.perf_counter() - start}],
        }
        checkpoint = {"kind": "classifier", "config": vars(args), "transform": transforms.describe(args.image_size)}
        checkpoint |= {"classes": data.classes, "model": model.state_dict(), **state}
        running = {"optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "rng": rng_state()}
        if is_best:
            save_checkpoint(folder / "best.pt", checkpoint)
        save_checkpoint(folder / "last.pt", checkpoint | running)
        write_csv(folder / "metrics.csv", pd.DataFrame(state["history"]))
        print(
            f"epoch {epoch + 1:3}/{args.epochs}  loss {row['train_loss']:.4f}  validation accuracy "
            f"{found['accuracy']:.4f}  {row['images_per_second']:.0f} images/s",
            flush=True,
        )
    return data, model, state


def finish(model: nn.Module, data: Data, state: dict, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Read the test split with the checkpoint that validation chose; write results.json and the pictures."""
    best = load_checkpoint(folder / "best.pt", "classifier")
    model.load_state_dict(best["model"])
    rows = data.rows["test"]
    labels = data.labels[rows]
    start = time.perf_counter()
    probabilities = predict(model, data.pictures, rows, args)
    seconds = time.perf_counter() - start
    results = {
        "configuration": vars(args),
        "classes": data.classes,
        "n": {name: len(part) for name, part in data.rows.items()},
        "best_epoch": best["epoch"],
        "validation_accuracy": best["best"][0],
        "test": metrics.classification_metrics(labels, probabilities.argmax(1), len(data.classes)),
        "pictures_left_out": len(data.pictures.faults),
        "survivors": read_survivors(args.data_path),
        "train_seconds": sum(row["seconds"] for row in state["history"]),
        "train_images_per_second": float(np.median([row["images_per_second"] for row in state["history"]])),
        "seconds": seconds,
        "images_per_second": len(rows) / seconds,
    }
    table = prediction_table(data.pictures.img_ids[rows], labels, probabilities, data.classes)
    write_csv(folder / "test_predictions.csv", table)
    paths = [str(data_set.picture_path(args.data_path, img_id)) for img_id in table["img_id"]]
    write_text(folder / "test_pictures.txt", "\n".join(paths) + "\n")
    write_json(folder / "results.json", results)
    draw(folder, state["history"], table, probabilities, data.classes, best["epoch"], args)
    print_results(results, folder)
    return results


def prediction_table(
    img_ids: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    """A row a picture: img_id, its true label, the predicted one, its probability, and p_<class> of every class."""
    predicted = probabilities.argmax(1)
    table = pd.DataFrame({"img_id": img_ids, "label": labels, "predicted": predicted})
    table["probability"] = probabilities.max(1).round(6)
    return table.assign(**{f"p_{name}": column.round(6) for name, column in zip(classes, probabilities.T, strict=True)})


def print_results(results: dict[str, Any], folder: Path) -> None:
    test = results["test"]
    figures = [
        f"{name.replace('_', ' ').replace('f1', 'F1')} {test[name]:.4f} "
        f"(95 % {test[f'{name}_low']:.4f} to {test[f'{name}_high']:.4f})"
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    print(f"test {', '.join(figures)} on {results['n']['test']} pictures; chance {1 / len(results['classes']):.4f}")
    finish_log(folder)


# --- pictures of the run --------------------------------------------------------------------------------------------
def draw(
    folder: Path,
    history: list[dict],
    table: pd.DataFrame,
    probabilities: np.ndarray,
    classes: list[str],
    best_epoch: int,
    args: argparse.Namespace,
) -> None:
    """curves.png, confusion.png and .csv, mistakes.png."""
    if history:
        curves = pd.DataFrame(history).drop(columns=["seconds", "images_per_second"])
        figure = visualisation.learning_curves(curves, "subreddit classifier", best_epoch=best_epoch)
        visualisation.save(figure, folder / "curves.png")
    matrix = metrics.confusion(table["label"].to_numpy(), table["predicted"].to_numpy(), len(classes))
    write_csv(folder / "confusion.csv", pd.DataFrame(matrix, columns=classes).rename_axis("true").assign(true=classes))
    visualisation.save(visualisation.confusion_matrix(matrix, classes, "test pictures"), folder / "confusion.png")
    wrong = table[table["label"] != table["predicted"]].sort_values("probability", ascending=False, kind="stable")
    (folder / "mistakes.png").unlink(missing_ok=True)
    if wrong.empty:
        return
    most = wrong.head(min(SHOWN, -(-len(wrong) // 2)))
    least = wrong.iloc[len(most) :].tail(SHOWN)
    shown = pd.concat([most, least])
    pictures = [transforms.decode(data_set.picture_path(args.data_path, i)) for i in shown["img_id"]]
    captions = [
        f"{classes[row.label]}\nseen as {classes[row.predicted]}\n{row.probability:.0%} certain"
        for row in shown.itertuples()
    ]
    title = f"{len(wrong)} of {len(table)} test pictures wrong: the {len(most)} most, then {len(least)} least certain"
    visualisation.save(visualisation.picture_grid(pictures, captions, title), folder / "mistakes.png")


# --- labels for anyone's pictures -----------------------------------------------------------------------------------
def from_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a best.pt or last.pt, and the checkpoint, whose `transform` and `classes` go with it."""
    state = load_checkpoint(path, "classifier")
    model, _ = cnn_classifier(state["config"]["model_name"], len(state["classes"]), "none")
    model.load_state_dict(state["model"])
    return model.eval(), state


def label_folder(args: argparse.Namespace) -> None:
    """path,label,probability of every picture of a folder; those that cannot be read are listed beside the table."""
    device = select_device(args.device)
    model, state = from_checkpoint(args.check_point)
    model.to(device)
    paths = feature_extractor.list_pictures(args.predict)
    rows, unreadable = [], []
    pictures = feature_extractor.decoded(paths, state["transform"]["side"], args.num_workers)
    waiting: list[tuple[Path, np.ndarray]] = []
    for path, pixels, _, reason in tqdm(pictures, "labelling", len(paths), disable=None):
        if pixels is None:
            unreadable.append((str(path), reason))
        else:
            waiting.append((path, pixels))
        if len(waiting) == 64:
            rows += label_batch(model, waiting, state["classes"], args)
            waiting = []
    rows += label_batch(model, waiting, state["classes"], args) if waiting else []
    if not rows:
        raise UserError(f"none of the {len(paths)} pictures of {args.predict} can be read: {unreadable[0][1]}")
    table = pd.DataFrame(rows, columns=["path", "label", "probability"])
    write_csv(args.output, table)
    if unreadable:
        beside = Path(args.output).with_name(f"{Path(args.output).stem}.unreadable.csv")
        write_csv(beside, pd.DataFrame(unreadable, columns=["path", "reason"]))
        print(f"{len(unreadable)} pictures cannot be read; the reasons are in {beside}")
    print("\n".join(f"  {count:6} {name}" for name, count in table["label"].value_counts().items()))
    print(f"{len(table)} pictures labelled → {args.output}")


@torch.inference_mode()
def label_batch(
    model: nn.Module, batch: list[tuple[Path, np.ndarray]], classes: list[str], args: argparse.Namespace
) -> list[tuple[str, str, float]]:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(device)
    with autocast(device, args.amp):
        scores = model(transforms.whole(pixels))
    probability, label = scores.float().softmax(1).max(1)
    found = zip(batch, label.tolist(), probability.tolist(), strict=True)
    return [(str(path), classes[place], round(share, 6)) for (path, _), place, share in found]


# --- several runs ---------------------------------------------------------------------------------------------------
def train_many(args: argparse.Namespace) -> None:
    """A run for each of --seeds and --folds, in folders of their own; mean ± standard deviation over them."""
    parts = [(seed, fold) for seed in args.seeds or [args.seed] for fold in range(args.folds)]
    found = []
    for seed, fold in parts:
        name = "_".join([f"seed_{seed}"] * (len(args.seeds or []) > 0) + [f"fold_{fold}"] * (args.folds > 1))
        print(f"-- {name}")
        save_dir = str(Path(args.save_dir) / name)
        found.append(train(argparse.Namespace(**vars(args) | {"seed": seed, "fold": fold, "save_dir": save_dir})))
    table = pd.DataFrame([results["test"] for results in found])
    table.insert(0, "seconds", [results["train_seconds"] for results in found])
    summary = pd.DataFrame({"mean": table.mean(), "std": table.std(ddof=1), "n": len(table)})
    write_json(Path(args.save_dir) / "seeds.json", {"runs": parts, **summary.to_dict("index")})
    print(f"over {len(table)} runs, mean ± standard deviation:")
    for name, row in summary.iterrows():
        if not name.endswith(("_low", "_high")):
            print(f"  {name:<32} {row['mean']:.4f} ± {row['std']:.4f}")


# --- the command ----------------------------------------------------------------------------------------------------
def number_or_weighted(word: str) -> int | str:
    return word if word == "weighted" else at_least(1)(word)


number_or_weighted.__name__ = "number, or 'weighted'"


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_flags(parser, save_dir="outputs/classifier")
    flag = parser.add_argument
    flag("--model_name", default="alexnet", help=", ".join(NETWORKS) + ", or torchvision's own name")
    flag(
        "--balance_data",
        nargs="?",
        const=100,
        type=number_or_weighted,
        metavar="N|weighted",
        help="train on N pictures of each class (default 100), or draw every class as often",
    )
    flag("--class_weights", action=argparse.BooleanOptionalAction, default=False, help="rare classes count more")
    flag("--label_smoothing", type=float, default=0.0, help="share of the target given to all classes alike")
    flag("--augment", action=argparse.BooleanOptionalAction, help="crop and flip at random (default: unless frozen)")
    flag(
        "--freeze_features",
        nargs="?",
        const="published",
        choices=feature_extractor.CUTS,
        help="train the head alone ('published'), or the last layer alone ('last')",
    )
    flag("--seeds", type=int, nargs="+", metavar="SEED", help="a run each; prints mean ± standard deviation")
    flag("--folds", type=at_least(1), default=1, help="cross-validation: a run for each fold as the test split")
    flag("--predict", metavar="FOLDER", help="label these pictures with --check_point; nothing is trained")
    flag("--output", default="labels.csv", metavar="FILE.csv", help="what --predict writes (default %(default)s)")
    args = parser.parse_args(words)
    if args.augment is None:
        args.augment = not args.freeze_features
    for name, value in recipe_defaults(args).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.fold = 0
    if args.predict and args.check_point in (None, "last"):
        parser.error("--predict needs --check_point FILE, a run's best.pt")
    if not args.data_path and not args.predict:
        parser.error("--data_path is required")
    if not 0 <= args.label_smoothing < 1:
        parser.error(f"--label_smoothing {args.label_smoothing} is not in [0, 1)")
    if args.image_size < 64 and args.model_name == "alexnet":
        raise UserError(f"--image_size {args.image_size}: AlexNet needs at least 64 pixels")
    return args


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "subreddit classifier")
    if args.predict:
        return label_folder(args)
    train_many(args) if args.seeds or args.folds > 1 else train(args)


if __name__ == "__main__":
    run_main(main)

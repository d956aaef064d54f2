"""Train a classifier: which subreddit is this picture from?

    python train_classifier.py --data_path data/sample --weights none --image_size 128 --save_dir outputs/classifier
    python train_classifier.py --check_point outputs/classifier/best.pt --predict FOLDER --output labels.csv

On 600 pictures of 128 pixels a run takes some two minutes on two cores. Written into --save_dir: config.json,
environment.json, metrics.csv (a row an epoch), last.pt and best.pt (best on validation), results.json (the test split,
read once, by best.pt), test_predictions.csv and pictures. `--check_point last` goes on where a killed run stopped.

    python train_classifier.py … --freeze_features      the head alone, on features computed once
    python train_classifier.py … --head svm             a plain baseline on the same features; with --pair_mode on pairs
    python train_classifier.py … --compare              the four networks: a run each, a table, a chart and a choice
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

import baselines
import comparison
import data_set
import distributed
import feature_extractor
import metrics
import transforms
import visualisation
from classifier_net import cnn_classifier, train_mode
from data_set import PAIR_MODES, Pictures
from feature_extractor import NETWORKS, Features
from utils import (
    UserError,
    add_common_flags,
    at_least,
    autocast,
    finish_log,
    load_checkpoint,
    print_configuration,
    rank,
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
    train_many,
    write_csv,
    write_json,
    write_text,
)

SHOWN = 12  # mistakes drawn, of the most and of the least certain
MOST_PAIRS = 4000  # that a baseline on pairs is fitted to


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


def lay_out(model: nn.Module, args: argparse.Namespace) -> None:
    """Channels last where that is faster: measured on a CPU 1.4 times for AlexNet, 1.15 for DenseNet, less than 1 for
    VGG and ResNet; on CUDA for all."""
    if args.model_name in ("alexnet", "densenet") or next(model.parameters()).device.type == "cuda":
        model.to(memory_format=torch.channels_last)


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
    return transforms.AUGMENTATIONS[args.augment](batch, args.image_size)


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
    forward = distributed.spread(model.forward, args.compile)
    for places in tqdm(batches, f"epoch {epoch + 1}/{args.epochs}", leave=False, disable=None):
        batch = prepare(transforms.to_device(pictures.batch(rows[distributed.begin(places)]), device), args)
        target = transforms.to_device(torch.from_numpy(labels[places]), device)
        with autocast(device, args.amp):
            scores = forward(batch)
        scores = distributed.gather(scores.float())
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
    found, own = [], distributed.part(rows)
    for part in np.array_split(own, max(1, -(-len(own) // 64))):
        batch = transforms.to_device(pictures.batch(part), device)
        with autocast(device, args.amp):
            scores = model(batch if batch.is_floating_point() else transforms.whole(batch))
        found.append(scores.float().softmax(1).cpu())
    return distributed.gather(torch.cat(found).double(), len(rows)).numpy()


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
        self.pictures = data_set.load_pictures(
            args.data_path, table["img_id"], side, args.num_workers, args.cache == "on"
        )
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
        print(f"{folder} is finished")
        return results
    if args.head:
        return train_pair_svm(args) if args.pair_mode else train_head(args)
    data, model, state = fit(args)
    return finish(model, data, state, args, folder)


def finished_results(folder: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a run of the same flags that is through has left: the test split is not read twice."""
    if not (folder / "results.json").is_file():
        return None
    results = read_json(folder / "results.json")
    return results if same_flags(results.get("configuration", {}), args) is None else None


def fit(args: argparse.Namespace) -> tuple[Data, nn.Module, dict[str, Any]]:
    """Train, or go on training; last.pt, best.pt and metrics.csv are written as it goes.

    With --freeze_features and no augmentation the head is trained on a file of features, and best.pt, which holds the
    whole network, is written at the end.
    """
    device = select_device(args.device)
    seed_everything(args.seed)
    data = Data(args)
    resumed = resume_point(args, "classifier")
    weights = "none" if resumed and not uses_features(args) else args.weights
    model, _ = cnn_classifier(args.model_name, len(data.classes), weights, args.freeze_features)
    lay_out(model.to(device), args)
    feature_extractor.check_size(model, args.image_size, transforms.stored_side(args.image_size))
    on_features = uses_features(args) and feature_extractor.can_be_cut(model)
    folder = start_run(args.save_dir, vars(args), device)
    network, inputs, seconds = model, data.pictures, None
    if on_features:
        network = feature_extractor.head_of(model, args.freeze_features)
        inputs = load_features(model, data.pictures, args, args.freeze_features, device)
        seconds = inputs.about["seconds"]
    comparison.reset_peak_memory(device)
    rows, labels = data.rows["train"], data.labels[data.rows["train"]]
    optimiser = build_optimiser(network, args)
    scheduler = build_scheduler(optimiser, args, args.epochs * len(draw_batches(labels, args)))
    state = {"epoch": 0, "best": (0.0, np.inf), "best_epoch": 0, "history": [], "best_head": None}
    seed_everything(args.seed)  # the batches do not depend on how many numbers the weights took
    if resumed:
        network.load_state_dict(resumed["model"])
        optimiser.load_state_dict(resumed["optimiser"])
        scheduler.load_state_dict(resumed["scheduler"])
        set_rng_state(resumed["rng"])
        state = {key: resumed[key] for key in state}
        print(f"going on after epoch {state['epoch']} of {args.epochs}")
    about = {"kind": "classifier", "config": vars(args), "transform": transforms.describe(args.image_size)}
    about |= {"classes": data.classes}
    validation = data.rows["validation"]
    saved, cost = -np.inf, 0.0
    for epoch in range(state["epoch"], args.epochs):
        start = time.perf_counter()
        trained = train_one_epoch(network, inputs, rows, labels, optimiser, scheduler, args, epoch)
        found = evaluate(network, inputs, validation, data.labels[validation], args)
        row = {"epoch": epoch + 1, **trained, **{f"val_{name}": value for name, value in found.items()}}
        row |= {"learning_rate": scheduler.get_last_lr()[0], "seconds": time.perf_counter() - start}
        state["epoch"] = epoch + 1
        state["history"] = [*state["history"], row]
        # The loss tells epochs apart that the accuracy, on few validation pictures, puts in order by chance.
        if found["loss"] < state["best"][1]:
            state |= {"best": (found["accuracy"], found["loss"]), "best_epoch": epoch + 1}
            if on_features:
                state["best_head"] = {key: value.clone() for key, value in network.state_dict().items()}
            else:
                save_checkpoint(folder / "best.pt", about | {"model": network.state_dict(), **state})
        # AlexNet's last.pt is of 700 MB: it is written so often that it takes a tenth of the time at most.
        if (begin := time.perf_counter()) - saved > 10 * cost or epoch + 1 == args.epochs:
            running = {"optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "rng": rng_state()}
            save_checkpoint(folder / "last.pt", about | {"model": network.state_dict(), **state} | running)
            write_csv(folder / "metrics.csv", pd.DataFrame(state["history"]))
            saved = time.perf_counter()
            cost = saved - begin
        print(
            f"epoch {epoch + 1:3}/{args.epochs}  loss {row['train_loss']:.4f}  validation accuracy "
            f"{found['accuracy']:.4f}  {row['images_per_second']:.0f} images/s",
            flush=True,
        )
    state |= {"peak_memory_mib": comparison.peak_memory(device), "feature_seconds": seconds}
    if on_features:
        network.load_state_dict(state["best_head"])
        save_checkpoint(folder / "best.pt", about | {"model": model.state_dict(), **state, "best_head": None})
    distributed.barrier()
    return data, model, state


def finish(model: nn.Module, data: Data, state: dict, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Read the test split with the checkpoint that validation chose; write results.json and the pictures."""
    best = load_checkpoint(folder / "best.pt", "classifier")
    model.load_state_dict(best["model"])
    start = time.perf_counter()
    probabilities = predict(model, data.pictures, data.rows["test"], args)
    seconds = time.perf_counter() - start
    history = state["history"]
    side = transforms.stored_side(args.image_size)
    extra = {
        "best_epoch": best["best_epoch"],
        "validation_accuracy": best["best"][0],
        "train_seconds": sum(row["seconds"] for row in history),
        "train_images_per_second": float(np.median([row["images_per_second"] for row in history])),
        "seconds": seconds,
        "images_per_second": len(probabilities) / seconds,
        "parameters": comparison.parameters(model),
        "multiply_adds": comparison.multiply_adds(model, side),
        "peak_memory_mib": state["peak_memory_mib"],
        "file_mib": (folder / "best.pt").stat().st_size / 2**20,
        **feature_figures(state, data),
    }
    return report(probabilities, data, extra, history, args, folder)


def feature_figures(state: dict, data: Data) -> dict[str, float]:
    """How much faster an epoch on features is than the same pictures' way through the network, forward alone."""
    if not state["feature_seconds"]:
        return {}
    seen = len(data.rows["train"]) + len(data.rows["validation"])
    through = state["feature_seconds"] * seen / len(data.pictures)
    epoch = float(np.median([row["seconds"] for row in state["history"][1:] or state["history"]]))
    print(f"an epoch on features {epoch:.4f} s; through the network {through:.2f} s: {through / epoch:.0f} times")
    return {"feature_seconds": state["feature_seconds"], "epoch_seconds": epoch, "epoch_speed_up": through / epoch}


def report(
    probabilities: np.ndarray,
    data: Data,
    extra: dict[str, Any],
    history: list[dict],
    args: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    """Write what the test pictures' `probabilities` (n, classes) say: results.json, tables and pictures."""
    rows = data.rows["test"]
    labels = data.labels[rows]
    results = {
        "configuration": vars(args),
        "classes": data.classes,
        "n": {name: len(part) for name, part in data.rows.items()},
        "test": metrics.classification_metrics(labels, probabilities.argmax(1), len(data.classes)),
        "pictures_left_out": len(data.pictures.faults),
        "survivors": read_survivors(args.data_path),
        **extra,
    }
    table = prediction_table(data.pictures.img_ids[rows], labels, probabilities, data.classes)
    write_csv(folder / "test_predictions.csv", table)
    paths = [str(data_set.picture_path(args.data_path, img_id)) for img_id in table["img_id"]]
    write_text(folder / "test_pictures.txt", "\n".join(paths) + "\n")
    if rank() == 0:
        draw(folder, history, table, data.classes, extra.get("best_epoch"), args)
    write_json(folder / "results.json", results)
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


# --- features, computed once ----------------------------------------------------------------------------------------
def uses_features(args: argparse.Namespace) -> bool:
    """Whether a file of features stands for the pictures: the frozen part sees the same in every epoch."""
    return bool(args.freeze_features) and args.augment == "none" and args.feature_file


def load_features(
    model: nn.Module, pictures: Pictures, args: argparse.Namespace, cut: str, device: torch.device
) -> Features:
    """Features of `pictures`, row by row, from a file under processed/, which is computed where need be.

    `about["seconds"]` is what computing them took. The network is left as it was.
    """
    name = feature_extractor.trained_part(model, cut)
    part = model.get_submodule(name)
    body = feature_extractor.cut_off(model, cut)
    about = feature_extractor.describe(body, args, cut)
    path = data_set.processed_folder(Path(args.data_path)) / (
        f"features_{args.model_name}_{cut}_{about['transform']['side']}_{about['weights_sha256'][:12]}.npz"
    )
    found = None
    if path.is_file():
        found = feature_extractor.read_features(path)
        fits = {key: found.about.get(key) for key in about} == about
        found = found if fits and list(found.names) == list(pictures.img_ids) else None
    if found is None:
        every = np.arange(len(pictures))

        def read(start: int, stop: int) -> list[tuple[np.ndarray, str]]:
            return [(pixels, "") for pixels in pictures.batch(every[start:stop]).numpy()]

        found = feature_extractor.write_features(path, pictures.img_ids, read, body, about, device)
    print(f"features: {path} ({len(found.names)} pictures, computed in {found.about['seconds']:.2f} s)", flush=True)
    model.set_submodule(name, part)
    return found


# --- baselines ------------------------------------------------------------------------------------------------------
def train_head(args: argparse.Namespace) -> dict[str, Any]:
    """A scikit-learn classifier on features; validation chooses its setting, the test split is read once."""
    device = select_device(args.device)
    seed_everything(args.seed)
    data = Data(args)
    folder = start_run(args.save_dir, vars(args), device)
    features = baseline_features(data.pictures, args, device)
    x = {name: features[rows] for name, rows in data.rows.items()}
    y = {name: data.labels[rows] for name, rows in data.rows.items()}
    start = time.perf_counter()
    head, setting, accuracy = baselines.fit_head(
        args.head, (x["train"], y["train"]), (x["validation"], y["validation"]), args.seed
    )
    trained = time.perf_counter() - start
    print(f"{args.head} fitted in {trained:.1f} s; setting {setting:g}, validation accuracy {accuracy:.4f}")
    start = time.perf_counter()
    probabilities = baselines.probabilities_of(head, x["test"], len(data.classes))
    seconds = time.perf_counter() - start
    extra = {"setting": setting, "validation_accuracy": accuracy, "train_seconds": trained, "seconds": seconds}
    return report(probabilities, data, extra, [], args, folder)


def baseline_features(pictures: Pictures, args: argparse.Namespace, device: torch.device) -> np.ndarray:
    """Features (n, d) of the pictures by the backbone of --model_name."""
    model = feature_extractor.load_network(args.model_name, args.weights).to(device)
    feature_extractor.check_size(model, transforms.stored_side(args.image_size))
    found = load_features(model, pictures, args, args.freeze_features or "published", device)
    return found.features.reshape(len(found.features), -1)


def train_pair_svm(args: argparse.Namespace) -> dict[str, Any]:
    """Deza & Parikh's task: an SVM on the difference of two pictures' features says which is more viral."""
    import train_siamese  # its splits and pairs, so that the two can be compared

    device = select_device(args.device)
    seed_everything(args.seed)
    data = train_siamese.Data(args)
    folder = start_run(args.save_dir, vars(args), device)
    features = baseline_features(data.pictures, args, device)
    v_score = {name: data.v_score[rows] for name, rows in data.rows.items()}
    parts = {}
    for name in ("train", "validation"):
        pairs = data.published[name]
        if pairs is None:
            pairs = data_set.draw_pairs(v_score[name], args.pair_mode, args.seed)
        pairs = np.random.default_rng(args.seed).permutation(pairs)[:MOST_PAIRS]
        parts[name] = (features[data.rows[name]], pairs, data_set.targets_of(v_score[name], pairs))
    start = time.perf_counter()
    svm, setting, accuracy = baselines.fit_pair_svm(parts["train"], parts["validation"], args.seed)
    seconds = time.perf_counter() - start
    scores = baselines.scores_of(svm, features[data.rows["test"]])
    pairs = train_siamese.mode_pairs(v_score["test"], args.pair_mode, data.published["test"])
    results = {
        "configuration": vars(args),
        "n": {name: len(rows) for name, rows in data.rows.items()},
        "setting": setting,
        "validation_pair_accuracy": accuracy,
        "test": metrics.ranking_metrics(scores, v_score["test"], pairs),
        "train_seconds": seconds,
    }
    columns = {"img_id": data.pictures.img_ids[data.rows["test"]], "v_score": v_score["test"], "score": scores}
    write_csv(folder / "test_scores.csv", pd.DataFrame(columns))
    write_json(folder / "results.json", results)
    train_siamese.print_results(results, folder)
    return results


# --- pictures of the run --------------------------------------------------------------------------------------------
def draw(
    folder: Path,
    history: list[dict],
    table: pd.DataFrame,
    classes: list[str],
    best_epoch: int | None,
    args: argparse.Namespace,
) -> None:
    """curves, confusion, mistakes: .png, .svg, and .csv of what they show."""
    if history:
        curves = pd.DataFrame(history).drop(columns=["seconds", "images_per_second"])
        figure = visualisation.learning_curves(curves, "subreddit classifier", best_epoch=best_epoch)
        visualisation.save_with_data(figure, folder / "curves.png")
    matrix = metrics.confusion(table["label"].to_numpy(), table["predicted"].to_numpy(), len(classes))
    visualisation.save_with_data(
        visualisation.confusion_matrix(matrix, classes, "test pictures"), folder / "confusion.png"
    )
    wrong = table[table["label"] != table["predicted"]].sort_values("probability", ascending=False, kind="stable")
    for suffix in (".png", ".svg", ".csv"):  # of an earlier run
        (folder / "mistakes").with_suffix(suffix).unlink(missing_ok=True)
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
    title = f"{len(wrong)} of {len(table)} test pictures wrong"
    if len(least):
        title += f": the {len(most)} most, then {len(least)} least certain"
    visualisation.save_with_data(visualisation.picture_grid(pictures, captions, title), folder / "mistakes.png")


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
def compare(args: argparse.Namespace) -> pd.DataFrame:
    """The networks beside each other: a run each in --save_dir/<network>, or what such a run has left; a table
    (comparison.csv), a chart (comparison.png) and the choice (choice.json)."""
    folder = Path(args.save_dir)
    rows = []
    for name in args.compare or NETWORKS:
        print(f"-- {name}", flush=True)
        own = vars(args) | {"model_name": name, "save_dir": str(folder / name), "check_point": "last", "compare": None}
        rows.append(comparison.row_of(name, train(with_recipe(argparse.Namespace(**own)))))
    table = pd.DataFrame(rows)
    table["pareto"] = comparison.pareto_front(table)
    write_csv(folder / "comparison.csv", table)
    title = f"{len(table)} networks on the same test pictures"
    visualisation.save_with_data(visualisation.comparison_chart(table, title), folder / "comparison.png")
    print(comparison.as_text(table))
    print(f"Pareto front (accuracy, inference speed): {', '.join(table['model'][table['pareto']])}")
    choice = comparison.choice_of(table)
    write_json(folder / "choice.json", choice)
    print(f"choice: {choice['model_name']}, as {choice['reason']}")
    print(f"for the ranker: {choice['ranker_model_name']}")
    print(f"written: {folder / 'comparison.csv'}, {folder / 'comparison.png'}, {folder / 'choice.json'}")
    return table


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
    flag(
        "--augment",
        choices=transforms.AUGMENTATIONS,
        help="of training pictures (default crop, with frozen features none)",
    )
    flag(
        "--freeze_features",
        nargs="?",
        const="published",
        choices=feature_extractor.CUTS,
        help="train the head alone ('published'), or the last layer alone ('last')",
    )
    flag(
        "--feature_file",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="what is frozen and not augmented goes through the network once, into a file",
    )
    flag(
        "--head", choices=baselines.HEADS, help="a scikit-learn classifier on the features instead of a network's head"
    )
    flag("--pair_mode", choices=PAIR_MODES, help="with --head svm: which of two pictures is more viral?")
    flag("--compare", nargs="*", metavar="NETWORK", help="a run of each network (default: the four), side by side")
    flag("--seeds", type=int, nargs="+", metavar="SEED", help="a run each; prints mean ± standard deviation")
    flag("--folds", type=at_least(1), default=1, help="cross-validation: a run for each fold as the test split")
    flag("--predict", metavar="FOLDER", help="label these pictures with --check_point; nothing is trained")
    flag("--output", default="labels.csv", metavar="FILE.csv", help="what --predict writes (default %(default)s)")
    args = parser.parse_args(words)
    args.fold = 0
    if args.augment is None:
        args.augment = "none" if args.freeze_features or args.head else "crop"
    if args.predict and args.check_point in (None, "last"):
        parser.error("--predict needs --check_point FILE, a run's best.pt")
    if not args.data_path and not args.predict:
        parser.error("--data_path is required")
    if not 0 <= args.label_smoothing < 1:
        parser.error(f"--label_smoothing {args.label_smoothing} is not in [0, 1)")
    if args.pair_mode and args.head != "svm":
        parser.error("--pair_mode needs --head svm")
    return args if args.compare is not None else with_recipe(args)


def with_recipe(args: argparse.Namespace) -> argparse.Namespace:
    """The same flags, with the recipe's values where none were given."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    return argparse.Namespace(**vars(args) | recipe_defaults(args) | given)


def main() -> None:
    args = parse_arguments()
    distributed.join(args.device)
    print_configuration(args, "subreddit classifier")
    if args.predict:
        return label_folder(args) if rank() == 0 else None
    if args.compare is not None:
        compare(args)
        return
    train_many(args, train) if args.seeds or args.folds > 1 else train(args)


if __name__ == "__main__":
    run_main(main)

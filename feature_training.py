"""Rankers and classifiers on precomputed features: the implementation of --features, in place of pictures.

Called by `train_siamese.py`, `train_classifier.py` and `rank_images.py`. feature_files.py defines the file format and
feature_heads.py the heads; splits, pairs, metrics and output files are the same as when training on pictures.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import calibration
import feature_files
import feature_heads
import losses
import metrics
import run_results
import training
import visualisation
from feature_files import FeaturesOfImages
from feature_heads import Draw, choose_head, outputs_of
from pictures.left_out import LeftOut
from table_files import rows_to
from training_data import (
    mode_pairs,
    read_classification,
    read_ranking,
    split_classification,
    split_ranking,
    weights_of_classes,
)
from utils import check_outputs, print_configuration, rank, save_checkpoint, write_json

RANKER, CLASSIFIER = "feature ranker", "feature classifier"  # the kinds of their checkpoints
COLUMNS = ["path", "score", "percentile", "x", "y", "w", "h", "p_above_median"]  # as rank_images.py writes them


def run(train: Callable[..., dict[str, Any]], seeds: list[int] | None, settings: dict[str, Any]) -> None:
    """Call `train_ranker` or `train_classifier` with the settings that it takes; one run per seed and fold."""
    own = {name: settings[name] for name in inspect.signature(train).parameters}
    print_configuration(argparse.Namespace(**own, seeds=seeds), "heads on features")
    with training.run_alone(own["save_dir"]):
        if seeds or own["folds"] > 1:
            training.train_many(train, seeds, **own)
        else:
            train(**own)


# --- training -------------------------------------------------------------------------------------------------------
def train_ranker(
    data_path: str | Path,
    features: str | Path,
    save_dir: str | Path = "outputs/siamese",
    *,
    pair_mode: str = "all",
    split: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    check_point: str | None = None,
    left_out: str | None = None,
) -> dict[str, Any]:
    """Train a ranker on features. Returns the content of results.json; see train_siamese."""
    config = locals() | {"data_path": str(data_path), "features": str(features), "save_dir": str(save_dir)}
    folder = Path(save_dir)
    if check_point == "last" and (results := training.finished_results(folder, config)):
        run_results.print_ranker(results, folder)
        return results
    file = feature_files.read_feature_file(features)
    table, made = read_ranking(data_path, pair_mode)
    inputs = feature_files.of_images(file, table["img_id"])
    list_left_out(inputs, left_out)
    data = split_ranking(data_path, table, made, inputs, pair_mode, split, seed, fold, folds)
    training.start_run(folder, config, torch.device("cpu"))
    start = time.perf_counter()
    x = {name: inputs.features[rows] for name, rows in data.rows.items()}
    v_score = {name: data.v_score[rows] for name, rows in data.rows.items()}
    pairs = {name: mode_pairs(v_score[name], pair_mode, data.pairs[name]) for name in data.rows}
    scores = lambda head, name: outputs_of(head, x[name])[:, 0]  # noqa: E731
    validation = v_score["validation"], pairs["validation"]
    right = lambda head: metrics.pair_accuracy(scores(head, "validation"), *validation)  # noqa: E731
    head, tried = choose_head(x["train"], 1, draw_pairs(v_score["train"], pairs["train"], seed), right, seed)
    chosen, seconds = best_of(tried), time.perf_counter() - start
    print_heads(tried, "pair accuracy", seconds)
    temperature = calibration.fit_temperature(scores(head, "validation"), *validation)
    start = time.perf_counter()
    test_scores = scores(head, "test")
    results = {
        "configuration": config,
        "head": chosen,
        "heads": tried,
        "validation_pair_accuracy": chosen["validation"],
        **run_results.figures_of_ranker(test_scores, None, data, data_path, pair_mode, temperature),
        "train_seconds": seconds,
        "seconds": time.perf_counter() - start,
    }
    train_scores = torch.from_numpy(np.sort(scores(head, "train")))
    state = {"kind": RANKER, "config": config, "train_scores": train_scores, "temperature": temperature}
    save_checkpoint(folder / "best.pt", state | feature_heads.state_of(head, chosen, file.about))
    scored = run_results.write_test_scores(folder, data, data_path, test_scores, None)
    if rank() == 0:
        figure = visualisation.score_against_virality(test_scores, scored["v_score"].to_numpy(), "test pictures")
        visualisation.save_with_data(figure, folder / "score_against_virality.png")
    write_json(folder / "results.json", results)  # at last: it says that the run is through
    run_results.print_ranker(results, folder)
    return results


def train_classifier(
    data_path: str | Path,
    features: str | Path,
    save_dir: str | Path = "outputs/classifier",
    *,
    balance_data: int | str | None = None,
    class_weights: bool = False,
    label_smoothing: float | None = None,
    split: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    check_point: str | None = None,
    left_out: str | None = None,
) -> dict[str, Any]:
    """Train a classifier on features. Returns the content of results.json; see train_classifier."""
    label_smoothing = label_smoothing or 0.0
    config = locals() | {"data_path": str(data_path), "features": str(features), "save_dir": str(save_dir)}
    folder = Path(save_dir)
    if check_point == "last" and (results := training.finished_results(folder, config)):
        print(f"{folder} is finished")
        return results
    file = feature_files.read_feature_file(features)
    table = read_classification(data_path)
    inputs = feature_files.of_images(file, table["img_id"])
    list_left_out(inputs, left_out)
    data = split_classification(data_path, table, inputs, split, seed, fold, folds, balance_data)
    training.start_run(folder, config, torch.device("cpu"))
    start = time.perf_counter()
    x = {name: inputs.features[rows] for name, rows in data.rows.items()}
    probabilities = lambda head, name: softmax(outputs_of(head, x[name]))  # noqa: E731
    labels = {name: data.labels[rows] for name, rows in data.rows.items()}
    weighted = class_weights or balance_data == "weighted"
    own = np.arange(len(labels["validation"])), labels["validation"]
    likelihood = lambda head: float(np.log(probabilities(head, "validation")[own]).mean())  # noqa: E731
    draw = draw_labels(labels["train"], len(data.classes), weighted, label_smoothing)
    head, tried = choose_head(x["train"], len(data.classes), draw, likelihood, seed)
    chosen, seconds = best_of(tried), time.perf_counter() - start
    print_heads(tried, "log likelihood", seconds)
    state = {"kind": CLASSIFIER, "config": config, "classes": data.classes}
    save_checkpoint(folder / "best.pt", state | feature_heads.state_of(head, chosen, file.about))
    validation = probabilities(head, "validation").argmax(1) == labels["validation"]
    start = time.perf_counter()
    found = probabilities(head, "test")
    extra = {"head": chosen, "heads": tried, "validation_accuracy": float(validation.mean())}
    extra |= {"train_seconds": seconds, "seconds": time.perf_counter() - start}
    return run_results.report_classifier(found, data, config, folder, data_path, extra, [])


def draw_pairs(v_score: np.ndarray, pairs: metrics.Pairs, seed: int) -> Draw:
    """Pairs with their targets and weights, and RankNet's loss of the two scores of each."""
    listed = pairs if isinstance(pairs, metrics.PairList) else metrics.write_out(v_score, pairs, 1_000_000, seed)
    places, targets = np.asarray(listed.places), torch.from_numpy(np.asarray(listed.targets, np.float32))
    weights = np.ones(len(places)) if listed.weights is None else np.asarray(listed.weights, np.float64)
    weights = torch.from_numpy((weights / weights.mean()).astype(np.float32))

    def draw(most: int, rng: np.random.Generator) -> tuple[np.ndarray, Callable[[Tensor], Tensor]]:
        part = np.arange(len(places)) if len(places) <= most else rng.integers(len(places), size=most)
        rows, sides = np.unique(places[part], return_inverse=True)
        first, second = torch.from_numpy(sides.reshape(-1, 2)).unbind(1)
        of_part = targets[part], weights[part]
        return rows, lambda scores: losses.ranknet_loss(scores[first, 0], scores[second, 0], *of_part)

    return draw


def draw_labels(labels: np.ndarray, classes: int, weighted: bool, label_smoothing: float) -> Draw:
    """Pictures with their labels, and the cross entropy; `weighted`: each class counts as much."""
    truth, weight = torch.from_numpy(labels), weights_of_classes(labels, classes) if weighted else None

    def draw(most: int, rng: np.random.Generator) -> tuple[np.ndarray, Callable[[Tensor], Tensor]]:
        rows = np.arange(len(labels)) if len(labels) <= most else rng.integers(len(labels), size=most)
        target = truth[rows]
        return rows, lambda scores: F.cross_entropy(scores, target, weight, label_smoothing=label_smoothing)

    return draw


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes), none of them 0."""
    return np.maximum(torch.from_numpy(outputs).softmax(1).numpy(), 1e-12)


def best_of(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The first setting with the highest validation figure, which `choose_head` keeps."""
    return max((row for row in tried if np.isfinite(row["validation"])), key=lambda row: row["validation"])


def print_heads(tried: list[dict[str, Any]], figure: str, seconds: float) -> None:
    """Print the best setting of each kind of head, and which one is kept."""
    kinds = dict.fromkeys(row["head"] for row in tried)
    best = {kind: best_of([row for row in tried if row["head"] == kind]) for kind in kinds}
    said = [f"{kind} {row['validation']:.4f} (setting {row['setting']:g})" for kind, row in best.items()]
    print(f"validation {figure}: {', '.join(said)}; the {best_of(tried)['head']} is kept; {seconds:.1f} s", flush=True)


def list_left_out(inputs: FeaturesOfImages, left_out: str | None) -> None:
    with LeftOut(left_out) as listed:
        for img_id, fault in inputs.faults.itertuples(index=False):
            listed(str(img_id), fault)


# --- use ------------------------------------------------------------------------------------------------------------
def rank_features(features: str | Path, check_point: str | Path, output: str | Path, format: str = "csv") -> None:
    """Write the table of rank_images.py for features of pictures that the ranker may never have seen."""
    check_outputs({"--output": output}, [features, check_point])
    file = feature_files.read_feature_file(features)
    head, state = feature_heads.head_from_checkpoint(check_point, RANKER, file)
    scores, against = outputs_of(head, file.features)[:, 0], state["train_scores"].numpy()
    order = np.lexsort((file.names, -scores))
    percentiles = np.searchsorted(against, scores) / len(against) * 100
    chances = calibration.p_above(scores, against, state["temperature"])
    with rows_to(output, COLUMNS, format) as write:
        for place in order:
            percentile, chance = round(float(percentiles[place]), 1), round(float(chances[place]), 4)
            write([str(file.names[place]), float(scores[place]), percentile, *[None] * 4, chance])
    for name, part in (("most viral", order[:3]), ("least viral", order[-3:])):
        print(f"{name} (more viral than … of 100 training pictures):")
        for place in part:
            print(f"  {percentiles[place]:5.1f}  {str(file.names[place])!r}"[:160])
    print(f"{len(order)} pictures ranked by their features → {output}")


def label_features(features: str | Path, check_point: str | Path, output: str | Path, format: str = "csv") -> None:
    """Write path,label,probability for features, as label_images.py does for pictures."""
    check_outputs({"--output": output}, [features, check_point])
    file = feature_files.read_feature_file(features)
    head, state = feature_heads.head_from_checkpoint(check_point, CLASSIFIER, file)
    probabilities = softmax(outputs_of(head, file.features))
    labels = [state["classes"][place] for place in probabilities.argmax(1)]
    with rows_to(output, ["path", "label", "probability"], format) as write:
        for name, label, probability in zip(file.names, labels, probabilities.max(1), strict=True):
            write([str(name), label, round(float(probability), 6)])
    print("\n".join(f"  {count:6} {name}" for name, count in Counter(labels).most_common()))
    print(f"{len(labels)} pictures labelled by their features → {output}")

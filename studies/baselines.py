"""Baselines from scikit-learn on a network's features: which subreddit, and which of two is more viral?

    python -m studies.baselines --data_path data/sample --head logistic|svm|forest|boosting --weights none
    python -m studies.baselines --data_path data/sample --head svm --pair_mode all --weights none

Deza & Parikh 2015 (arXiv 1503.02318, section 6) train an SVM on the difference of two images' features; `--pair_mode`
does the same. The splits are those of the training scripts. Writes into --save_dir results.json, and
test_predictions.csv with figures or test_scores.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import data_set
import feature_extractor
import metrics
import run_results
import training
import transforms
from backbones import CUTS, NETWORKS, check_size, load_network
from data_set import PAIR_MODES, Pictures
from device import seed_everything, select_device
from training_data import ClassificationData, RankingData, load_classification, load_ranking, mode_pairs
from utils import UserError, at_least, print_configuration, run_main, write_csv, write_json

MOST_PAIRS = 4000  # that a baseline on pairs is fitted to
COMPONENTS = 64  # principal components that trees see: of thousands of features one by one they make little

# The settings among which the validation split chooses: C of the linear ones, leaves of the trees.
SETTINGS = {
    "logistic": (1e-3, 1e-2, 1e-1, 1.0),
    "svm": (0.1, 1.0, 10.0, 100.0),
    "forest": (1, 3),
    "boosting": (7, 31),
}
HEADS = tuple(SETTINGS)


def make_head(head: str, setting: float, features: int, pictures: int, seed: int = 0) -> Any:
    """An unfitted scikit-learn pipeline: standardisation, principal components (for trees), classifier."""
    if head == "logistic":
        steps = [LogisticRegression(C=setting, max_iter=2000, random_state=seed)]
    elif head == "svm":
        steps = [SVC(C=setting, random_state=seed)]
    else:
        components = min(COMPONENTS, features, pictures)
        steps = [PCA(components, svd_solver="randomized", random_state=seed), make_trees(head, int(setting), seed)]
    return make_pipeline(StandardScaler(), *steps)


def make_trees(head: str, setting: int, seed: int) -> ClassifierMixin:
    if head == "forest":
        return RandomForestClassifier(500, min_samples_leaf=setting, random_state=seed, n_jobs=-1)
    return HistGradientBoostingClassifier(max_leaf_nodes=setting, max_iter=100, random_state=seed)


def fit_head(
    head: str, train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], seed: int = 0
) -> tuple[Any, float, float]:
    """The head with the setting that is best on validation (the first of equals), that setting, and its accuracy.

    Either part is features (n, d) and labels (n,).
    """
    tried = []
    for setting in SETTINGS[head]:
        model = make_head(head, setting, train[0].shape[1], len(train[0]), seed).fit(*train)
        tried.append((model, setting, float(model.score(*validation))))
    return max(tried, key=lambda each: each[2])


def probabilities_of(head: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (n, classes); of an SVM, which has none, the softmax of its decision values."""
    if hasattr(head, "predict_proba"):
        found = head.predict_proba(features)
    else:
        values = head.decision_function(features)
        found = softmax(values if values.ndim == 2 else np.stack([-values, values], axis=1), axis=1)
    every = np.zeros((len(features), classes))
    every[:, head.classes_] = found  # a class without a training picture is never predicted
    return every


def fit_pair_svm(
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    seed: int = 0,
) -> tuple[Any, float, float]:
    """A linear SVM on differences of features, the C that is best on validation, and its accuracy there.

    Either part is features (n, d), pairs (m, 2: positions in them) and targets (m,; 1 where the first is more viral).
    The SVM has no intercept and learns from both orders of each pair: turning a pair round turns the answer round, and
    a picture's share in every difference is a score of its own, coef · features.
    """
    scaler = StandardScaler().fit(train[0])
    differences, target = differences_of(scaler.transform(train[0]), *train[1:])
    held_out = differences_of(scaler.transform(validation[0]), *validation[1:])
    tried = []
    for c in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        model = LinearSVC(C=c, fit_intercept=False, dual="auto", max_iter=5000, random_state=seed)
        both = np.concatenate([differences, -differences]), np.concatenate([target, 1 - target])
        model.fit(*both)
        tried.append((make_pipeline(scaler, model), c, model.score(*held_out)))
    return max(tried, key=lambda each: each[2])


def differences_of(features: np.ndarray, pairs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of the first less those of the second, and whether the first is the more viral; ties are left out."""
    decided = targets != 0.5
    pairs = pairs[decided]
    return features[pairs[:, 0]] - features[pairs[:, 1]], (targets[decided] > 0.5).astype(int)


def scores_of(model: Any, features: np.ndarray) -> np.ndarray:
    """A score per picture from `fit_pair_svm`'s model: the SVM predicts that the higher one is more viral."""
    scaler, svm = model[0], model[-1]
    return scaler.transform(features) @ svm.coef_.ravel()


# --- a run ----------------------------------------------------------------------------------------------------------
def train(
    data_path: str | Path,
    save_dir: str | Path = "outputs/baseline",
    *,
    head: str = "logistic",
    pair_mode: str | None = None,
    model_name: str = "alexnet",
    weights: str = "imagenet",
    cut: str = "published",
    image_size: int = 224,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    device: str = "auto",
    num_workers: int = 2,
    cache: str = "on",
    amp: bool | None = None,
) -> dict[str, Any]:
    """Fit a head; validation chooses its setting, the test split is read once. Returns what results.json holds.

    With a `pair_mode` the head, an SVM, says which of two pictures is more viral.
    """
    config = locals() | {"data_path": str(data_path), "save_dir": str(save_dir)}
    if pair_mode and head != "svm":
        raise UserError(f"--pair_mode {pair_mode} needs --head svm, not {head}")
    device = select_device(device)
    seed_everything(seed)
    with training.run_alone(save_dir):
        folder = training.start_run(save_dir, config, device)
        split = {"image_size": image_size, "seed": seed, "fold": fold, "folds": folds}
        split |= {"num_workers": num_workers, "cache": cache}
        if pair_mode:
            data = load_ranking(data_path, pair_mode=pair_mode, **split)
        else:
            data = load_classification(data_path, **split)
        features = features_of(data.pictures, data_path, model_name, weights, cut, image_size, amp, device)
        if pair_mode:
            return train_pair_svm(data, features, config, folder, pair_mode, seed)
        return train_head(data, features, config, folder, data_path, head, seed)


def features_of(
    pictures: Pictures,
    data_path: str | Path,
    model_name: str,
    weights: str,
    cut: str,
    image_size: int,
    amp: bool | None,
    device: torch.device,
) -> np.ndarray:
    """Features (n, d) of the pictures, cached under processed/."""
    model = load_network(model_name, weights, cut).to(device)
    check_size(model, transforms.stored_side(image_size))
    found = feature_extractor.load_features(
        model, pictures, data_set.processed_folder(Path(data_path)), model_name=model_name, weights=weights, cut=cut,
        image_size=image_size, amp=amp, device=device,
    )  # fmt: skip
    return found.features.reshape(len(found.features), -1)


def train_head(
    data: ClassificationData,
    features: np.ndarray,
    config: dict[str, Any],
    folder: Path,
    data_path: str | Path,
    head: str,
    seed: int,
) -> dict[str, Any]:
    """A scikit-learn classifier on features (n, d)."""
    x = {name: features[rows] for name, rows in data.rows.items()}
    y = {name: data.labels[rows] for name, rows in data.rows.items()}
    start = time.perf_counter()
    model, setting, accuracy = fit_head(head, (x["train"], y["train"]), (x["validation"], y["validation"]), seed)
    trained = time.perf_counter() - start
    print(f"{head} fitted in {trained:.1f} s; setting {setting:g}, validation accuracy {accuracy:.4f}")
    start = time.perf_counter()
    probabilities = probabilities_of(model, x["test"], len(data.classes))
    seconds = time.perf_counter() - start
    extra = {"setting": setting, "validation_accuracy": accuracy, "train_seconds": trained, "seconds": seconds}
    return run_results.report_classifier(probabilities, data, config, folder, data_path, extra, [])


def train_pair_svm(
    data: RankingData, features: np.ndarray, config: dict[str, Any], folder: Path, pair_mode: str, seed: int
) -> dict[str, Any]:
    """Deza & Parikh's task: an SVM on the difference of two pictures' features (n, d) says which is more viral."""
    v_score = {name: data.v_score[rows] for name, rows in data.rows.items()}
    parts = {}
    for name in ("train", "validation"):
        pairs = data.pairs[name]
        if pairs is None:
            drawn = data_set.draw_pairs(v_score[name], pair_mode, seed)
            pairs = metrics.PairList(drawn, data_set.targets_of(v_score[name], drawn))
        some = np.random.default_rng(seed).permutation(len(pairs.places))[:MOST_PAIRS]
        parts[name] = (features[data.rows[name]], pairs.places[some], pairs.targets[some])
    start = time.perf_counter()
    svm, setting, accuracy = fit_pair_svm(parts["train"], parts["validation"], seed)
    seconds = time.perf_counter() - start
    scores = scores_of(svm, features[data.rows["test"]])
    pairs = mode_pairs(v_score["test"], pair_mode, data.pairs["test"])
    results = {
        "configuration": config,
        "n": {name: len(rows) for name, rows in data.rows.items()},
        "setting": setting,
        "validation_pair_accuracy": accuracy,
        "test": metrics.ranking_metrics(scores, v_score["test"], pairs),
        "train_seconds": seconds,
    }
    columns = {"img_id": data.pictures.img_ids[data.rows["test"]], "v_score": v_score["test"], "score": scores}
    write_csv(folder / "test_scores.csv", pd.DataFrame(columns))
    write_json(folder / "results.json", results)
    run_results.print_ranker(results, folder)
    return results


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", required=True, help="a data set: datasets/*.csv and images/<img_id>.jpg")
    flag("--save_dir", help="output folder of the run (default %(default)s)")
    flag("--head", choices=HEADS, help="the scikit-learn classifier on the features (default %(default)s)")
    flag("--pair_mode", choices=PAIR_MODES, help="with --head svm: which of two pictures is more viral?")
    flag("--model_name", help=", ".join(NETWORKS) + ", or any other torchvision network")
    flag("--weights", help="imagenet (the default), none (random weights), or a state dict file")
    flag("--cut", choices=CUTS, help="features before the head, or before its last layer (default %(default)s)")
    flag("--image_size", type=at_least(32), help="side of the network's input in pixels (default %(default)s)")
    flag("--device", help="auto, cpu, cuda:0 or mps")
    flag("--num_workers", type=at_least(0), help="processes that decode pictures (default %(default)s)")
    flag("--cache", choices=("on", "off"), help="off: decode the pictures of every batch anew")
    flag("--seed", type=at_least(0), help="random seed of splits, weights and pairs (default %(default)s)")
    flag("--amp", action=argparse.BooleanOptionalAction, help="bf16 autocast (default: if the hardware supports it)")
    training.add_several_runs(parser)
    parser.set_defaults(**training.defaults_of(train))
    return parser.parse_args(words)


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "plain baseline")
    settings = {name: value for name, value in vars(args).items() if name != "seeds"}
    if args.seeds or args.folds > 1:
        training.train_many(train, args.seeds, **settings)
    else:
        train(**settings)


if __name__ == "__main__":
    run_main(main)

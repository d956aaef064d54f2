"""Plain baselines on a network's features (scikit-learn), and Deza & Parikh's task: which of two is more viral?

`train_classifier.py --head logistic|svm|forest|boosting` calls it. Deza & Parikh 2015 (arXiv 1503.02318, section 6)
train an SVM on the difference of two images' features; `--pair_mode` asks for that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

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
    """An unfitted scikit-learn pipeline: standardise, of trees take the principal components, classify."""
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
    """A score a picture, from `fit_pair_svm`'s model: of two, the SVM calls the higher one more viral."""
    scaler, svm = model[0], model[-1]
    return scaler.transform(features) @ svm.coef_.ravel()

"""Calibrated probabilities from scores: temperature scaling, its error, and the chance to beat a random picture.

A difference of scores becomes the probability σ(difference / T) that the first picture is more viral, as in the
Bradley-Terry model (1952). T is fitted on validation pairs after training (Guo et al. 2017).

If there are more than a million pairs, a random million is used (`metrics.write_out`); everything else is exact.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from metrics import PairList, Pairs, write_out

BINS = 10  # of the reliability diagram
SHARES = np.arange(1, 11) / 10  # the surest tenth of the pairs, the surest two tenths, …
DRAWS = 2000  # of the gaps between confidence and accuracy, for the interval of their mean


def fit_temperature(scores: np.ndarray, v_score: np.ndarray, pairs: Pairs | None = None) -> float:
    """The temperature, above 0, that maximises the likelihood of σ(difference / T) on these (validation) pairs.

    On a few dozen pictures, all pairs may be in order, and T would be 0. T therefore has a weak prior: the
    logarithm of a typical difference over T is normal with mean log 2 and standard deviation 4, against a likelihood
    of as many pairs as could be independent. Returns 1 if no pair counts or all scores are equal.
    """
    pairs = write_out(v_score, pairs)
    difference, target, weight = _differences(scores, pairs)
    size = np.sqrt(weight @ difference**2)
    if not size > 0:
        return 1.0
    touched = np.bincount(pairs.places.T.ravel(), np.tile(weight, 2))
    trials = 2 / (touched @ touched)

    def loss(log_ratio: float) -> float:
        x = difference * (np.exp(log_ratio) / size)
        return weight @ _log_loss(x, target) + ((log_ratio - np.log(2)) / 4) ** 2 / 2 / trials

    from scipy.optimize import minimize_scalar  # takes half a second, and whoever only scores needs none

    found = minimize_scalar(loss, bounds=np.log([1e-3, 1e3]), method="bounded", options={"xatol": 1e-6})
    return float(size / np.exp(found.x))


def calibration_metrics(
    scores: np.ndarray, v_score: np.ndarray, pairs: Pairs | None, temperature: float
) -> dict[str, float | list[dict[str, float]]]:
    """Calibration metrics of the probabilities σ(difference / T), over the pairs that count.

    `log_loss` (nats) and `brier` (0 to 1), weighted; 0.693 and 0.25 for a constant ½.
    `bins`: at most ten bins with equal numbers of pairs: mean `confidence` (½ to 1), `accuracy`, number of pairs `n`.
    Bins of equal mass are less biased than bins of equal width (Roelofs et al. 2022).
    `ece`: expected calibration error, the weighted mean over the bins of |accuracy − confidence| (Guo et al. 2017).
    Sampling noise alone raises it above 0, the more so the fewer the pictures: by about 0.01 to 0.03 at 60 pictures.
    `ece_low`, `ece_high`: 95 % interval for other pictures of the same kind. A plain bootstrap never contains 0,
    because it adds the noise a second time. Here 0 is in the interval unless calibrated probabilities would show such
    an error in at most 2.5 % of the cases (Bröcker and Smith 2007); otherwise the lower bound is bias-corrected.
    `coverage`: the accuracy on the most confident `share` of the pairs.
    """
    pairs = write_out(v_score, pairs)
    if not len(pairs.places):
        nothing = dict.fromkeys(("log_loss", "brier", "ece", "ece_low", "ece_high"), float("nan"))
        return {"temperature": float(temperature)} | nothing | {"bins": [], "coverage": []}
    difference, target, weight = _differences(scores, pairs)
    x = difference / temperature
    sure = expit(np.abs(x))
    right = np.where(x > 0, target, np.where(x < 0, 1 - target, 0.5))
    label = _bins_of_equal_mass(sure, weight)
    mass, mean_sure, mean_right = (np.bincount(label, weight * each) for each in (np.ones(len(x)), sure, right))
    ece, low, high = _calibration_error(pairs.places, weight, right - sure, label)
    bins = zip(mean_sure / mass, mean_right / mass, np.bincount(label), strict=True)
    return {
        "temperature": float(temperature),
        "log_loss": float(weight @ _log_loss(x, target)),
        "brier": float(weight @ (expit(x) - target) ** 2),
        "ece": ece,
        "ece_low": low,
        "ece_high": high,
        "bins": [{"confidence": float(c), "accuracy": float(a), "n": int(n)} for c, a, n in bins],
        "coverage": _coverage(sure, right, weight),
    }


def p_above(scores: np.ndarray, train_scores: np.ndarray, temperature: float) -> np.ndarray:
    """For each picture, (n,), the chance to be more viral than a random training picture: mean of σ(difference / T).

    Exact: n exponentials per training picture, about 0.1 s for ten million.
    """
    scores, train_scores = np.asarray(scores, np.float64), np.asarray(train_scores, np.float64)
    found = np.empty(len(scores))
    step = max(1, 1_000_000 // max(1, len(train_scores)))
    for start in range(0, len(scores), step):
        part = scores[start : start + step, None]
        found[start : start + step] = expit((part - train_scores) / temperature).mean(axis=1)
    return found


def _differences(scores: np.ndarray, pairs: PairList) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score of the first less that of the second image of each pair, the target, and the weight, which sums to 1."""
    scores = np.asarray(scores, np.float64)
    weight = np.ones(len(pairs.places)) if pairs.weights is None else np.asarray(pairs.weights, np.float64)
    difference = scores[pairs.places[:, 0]] - scores[pairs.places[:, 1]]
    return difference, np.asarray(pairs.targets, np.float64), weight / max(weight.sum(), np.finfo(float).tiny)


def _log_loss(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """−target·log σ(x) − (1 − target)·log σ(−x), which no x makes overflow."""
    return np.logaddexp(0, x) - target * x


def _bins_of_equal_mass(sure: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The bin of each pair, from 0, none empty; fewer than BINS where they would hold fewer than ten pairs each."""
    bins = min(BINS, max(1, len(sure) // 10))
    order = np.argsort(sure, kind="stable")
    middle = np.cumsum(weight[order]) - weight[order] / 2
    label = np.empty(len(sure), dtype=np.int64)
    label[order] = np.unique(np.minimum(middle * bins, bins - 1).astype(int), return_inverse=True)[1]
    return label


def _calibration_error(
    places: np.ndarray, weight: np.ndarray, gap: np.ndarray, label: np.ndarray
) -> tuple[float, float, float]:
    """The calibration error with its 95 % interval; `gap` (m,) is right − sure of each pair.

    The bins' gaps are normal, with the covariance that pictures in common give them (as in metrics.py).
    """
    bins, n = label.max() + 1, places.max() + 1
    total = np.bincount(label, weight * gap)
    touched = np.bincount(places.T.ravel(), np.tile(weight, 2), n)
    apart = 1 - (touched @ touched - weight @ weight)
    error = float(np.abs(total).sum())
    if apart < 1e-9:
        return error, 0.0, 1.0

    def noise(residual: np.ndarray) -> np.ndarray:
        cell = (label * n + places.T).ravel()
        of_picture = np.bincount(cell, np.tile(residual, 2), bins * n).reshape(bins, n)
        covariance = of_picture @ of_picture.T - np.diag(np.bincount(label, residual**2))
        size, axes = np.linalg.eigh(covariance / apart)
        drawn = np.random.default_rng(0).normal(size=(DRAWS // 2, bins)) * np.sqrt(np.maximum(size, 0)) @ axes.T
        return np.concatenate([drawn, -drawn])  # in pairs, so that noise makes no error look smaller on average

    mean = total / np.bincount(label, weight)
    drawn = np.abs(total + noise(weight * (gap - mean[label]))).sum(axis=1)
    by_chance = np.abs(noise(weight * gap)).sum(axis=1)
    high = float(np.quantile(drawn, 0.975))
    low = max(0.0, 2 * error - high) if error > np.quantile(by_chance, 0.975) else 0.0
    return error, low, high


def _coverage(sure: np.ndarray, right: np.ndarray, weight: np.ndarray) -> list[dict[str, float]]:
    """Accuracy over the surest shares of the pairs; of equally sure ones a part counts like the whole."""
    _, place = np.unique(-sure, return_inverse=True)
    mass, hits = (np.concatenate([[0], np.cumsum(np.bincount(place, each))]) for each in (weight, weight * right))
    found = np.interp(SHARES * mass[-1], mass, hits) / (SHARES * mass[-1])
    return [{"share": float(share), "accuracy": float(each)} for share, each in zip(SHARES, found, strict=True)]

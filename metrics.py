"""Figures of merit: pair accuracy and rank correlations of scores, accuracy of classes, intervals, tests."""

from __future__ import annotations

import numpy as np
from scipy import stats


def comparable(v_score: np.ndarray, first: np.ndarray | None = None, second: np.ndarray | None = None) -> np.ndarray:
    """The pairs that count, n×n: entry (i, j) is true where image i is more viral than image j.

    `first` and `second` (masks of length n) keep the pairs of one image of the first with one of the second set. Equal
    images make no pair.
    """
    pairs = v_score[:, None] > v_score[None, :]
    if first is not None and second is not None:
        across = first[:, None] & second[None, :]
        pairs &= across | across.T
    return pairs


def pair_accuracy(scores: np.ndarray, v_score: np.ndarray, pairs: np.ndarray | None = None) -> float:
    """Share, 0 to 1, of the pairs with unequal virality that the scores put in the right order; equal scores are half.

    NaN where no pair is comparable.
    """
    pairs = comparable(v_score) if pairs is None else pairs
    return float(_right(scores)[pairs].mean()) if pairs.any() else float("nan")


def pair_accuracy_interval(
    scores: np.ndarray, v_score: np.ndarray, pairs: np.ndarray | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `pair_accuracy`. Images are drawn, not pairs: pairs that share an image
    are not independent, and an interval over pairs would be far too narrow."""
    pairs = comparable(v_score) if pairs is None else pairs
    weight = np.random.default_rng(seed).multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=draws)
    weight = weight.astype(np.float32)
    right = np.einsum("di,di->d", weight @ (_right(scores) * pairs).astype(np.float32), weight)
    total = np.einsum("di,di->d", weight @ pairs.astype(np.float32), weight)
    drawn = right[total > 0] / total[total > 0]
    return tuple(float(bound) for bound in np.quantile(drawn, [0.025, 0.975])) if len(drawn) else (np.nan, np.nan)


def ranking_metrics(scores: np.ndarray, v_score: np.ndarray, pairs: np.ndarray | None = None) -> dict[str, float]:
    """Pair accuracy with its interval and the numbers of pairs, and Kendall's τ-b and Spearman's ρ over all images."""
    scores, v_score = np.asarray(scores, np.float64), np.asarray(v_score, np.float64)
    pairs = comparable(v_score) if pairs is None else pairs
    low, high = pair_accuracy_interval(scores, v_score, pairs)
    n = len(scores)
    return {
        "images": n,
        "pairs": int(pairs.sum()),
        "ties_left_out": int(n * (n - 1) // 2 - comparable(v_score).sum()),
        "pair_accuracy": pair_accuracy(scores, v_score, pairs),
        "pair_accuracy_low": low,
        "pair_accuracy_high": high,
        "kendall_tau": float(stats.kendalltau(scores, v_score).statistic),
        "spearman_rho": float(stats.spearmanr(scores, v_score).statistic),
    }


def mcnemar(scores_a: np.ndarray, scores_b: np.ndarray, v_score: np.ndarray) -> dict[str, float]:
    """McNemar's exact test (1947) of two rankers on the same pairs: of those that one alone has right, is it half?

    Returns the number of pairs, both accuracies (`a`, `b`), how many each has right alone, and the two-sided p.
    """
    pairs = comparable(v_score)
    right_a, right_b = _right(scores_a)[pairs] == 1, _right(scores_b)[pairs] == 1
    a_alone, b_alone = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = stats.binomtest(a_alone, a_alone + b_alone).pvalue if a_alone + b_alone else 1.0
    shares = {"a": float(right_a.mean()), "b": float(right_b.mean())} if pairs.any() else {"a": np.nan, "b": np.nan}
    return {"pairs": int(pairs.sum()), **shares, "a_alone": a_alone, "b_alone": b_alone, "p": float(p)}


def classification_metrics(
    labels: np.ndarray, predicted: np.ndarray, classes: int, draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1, 0 to 1, with 95 % intervals.

    Wilson's interval for the accuracy; for the other two a percentile bootstrap over pictures.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    low, high = wilson_interval(int((labels == predicted).sum()), len(labels))
    found = {"accuracy": float((labels == predicted).mean()), "accuracy_low": low, "accuracy_high": high}
    matrix = confusion(labels, predicted, classes)
    counts = np.random.default_rng(seed).multinomial(len(labels), matrix.ravel() / len(labels), size=draws)
    drawn = counts.reshape(draws, classes, classes)
    for name, figure in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        low, high = np.quantile(figure(drawn), [0.025, 0.975])
        found |= {name: float(figure(matrix)), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): a row a true class, a column a predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """The mean recall over the classes that occur, of confusion matrices (…, n, n)."""
    right, total = np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1)
    return (right / np.maximum(total, 1)).sum(axis=-1) / (total > 0).sum(axis=-1)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """The mean F1 over the classes that occur or are predicted, of confusion matrices (…, n, n)."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    both = matrix.sum(axis=-1) + matrix.sum(axis=-2)
    return (2 * right / np.maximum(both, 1)).sum(axis=-1) / (both > 0).sum(axis=-1)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share of `right` in `n` independent trials."""
    if n == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(right, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, 0 to 1, of boxes (n, 4) as x, y, w, h with others (n, 4), row by row."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return shared / (np.prod(boxes[:, 2:], axis=1) + np.prod(others[:, 2:], axis=1) - shared)


def pointing_accuracy(boxes: np.ndarray, truth: np.ndarray) -> float:
    """Share of the boxes (n, 4: x, y, w, h) whose centre lies in the true box of its row."""
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    inside = (centre >= truth[:, :2]) & (centre <= truth[:, :2] + truth[:, 2:])
    return float(inside.all(axis=1).mean())


def _right(scores: np.ndarray) -> np.ndarray:
    """n×n: 1 where score i is above score j, ½ where they are equal, else 0."""
    return (np.sign(scores[:, None] - scores[None, :]) + 1) / 2

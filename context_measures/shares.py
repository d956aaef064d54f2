"""The share of pairs ranked correctly, with an interval over images, for any number of pairs.

Pairs that share an image are not independent. The variance is that of a mean over pairs that depend on each other where
they share an image (Fafchamps & Gubert 2007, *The formation of risk sharing networks*; over all pairs it is Sen's 1960
variance of a U statistic): with e a pair's result less the mean, (Σ_images (Σ_its pairs e)² − Σ_pairs e²) / pairs².
Where no two pairs share an image that is the plain variance over pairs; where all pairs count it is what a bootstrap
over images gives. (In the first case that bootstrap would be √3 times too wide: it breaks up couples.) The interval is
Wilson's, of as many independent pairs as have this variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

import metrics

Share = dict[str, float]  # value, low, high (0 to 1, 95 %) and n, the number of pairs


class Counts(NamedTuple):
    """What pairs of n images amount to: of each image how many pairs it is in and of how many of them the ranking is
    right (a tie of scores being half), and how many pairs are such ties. Counts of separate pairs add up."""

    right: np.ndarray
    pairs: np.ndarray
    ties: float

    def less(self, other: Counts) -> Counts:
        return Counts(self.right - other.right, self.pairs - other.pairs, self.ties - other.ties)


def pair_share(scores: np.ndarray, v_score: np.ndarray, pairs: np.ndarray, ordered: bool = False) -> Share:
    """The share of `pairs` (m, 2: positions of images) that the scores order as V does; ties in V are no pairs.
    `ordered` pairs have the more viral image first, whatever V is."""
    return interval(counts_of(scores, v_score, pairs, ordered))


def counts_of(scores: np.ndarray, v_score: np.ndarray, pairs: np.ndarray, ordered: bool = False) -> Counts:
    """The counts of `pairs` (m, 2: positions of images); those of equal V are left out, unless they are `ordered`."""
    first, second = np.asarray(pairs, np.int64).reshape(-1, 2).T
    truth = np.ones(len(first)) if ordered else np.sign(v_score[first] - v_score[second])
    first, second, truth = first[truth != 0], second[truth != 0], truth[truth != 0]
    right = (np.sign(scores[first] - scores[second]) * truth + 1) / 2
    n = len(scores)
    of_images = np.bincount(first, right, n) + np.bincount(second, right, n)
    pairs_of_images = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)
    return Counts(of_images, pairs_of_images, float((right == 0.5).sum()))


def counts_within(scores: np.ndarray, v_score: np.ndarray, blocks: np.ndarray) -> Counts:
    """The counts of all pairs of images of the same block, in O(n log n). `blocks` (n,) numbers them; −1 is none."""
    blocks = np.where(blocks < 0, blocks.max() + 1 + np.arange(len(blocks)), blocks)  # each of its own
    pairs = _equal(blocks) - _equal(blocks, v_score)
    ties = _equal(blocks, scores) - _equal(blocks, scores, v_score)
    right = (pairs + metrics.concordance(scores, v_score, blocks)) / 2
    return Counts(right, pairs, ties.sum() / 2)


def _equal(*columns: np.ndarray) -> np.ndarray:
    """Of each row how many agree with it in all columns, itself included."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, places = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + places, return_inverse=True)[1]
    return np.bincount(code)[code]


def interval(counts: Counts, widened: float = 1.0) -> Share:
    """The share and its 95 % interval; NaN if there is no pair. `widened` multiplies the variance."""
    n, variance = counts.pairs.sum() / 2, _variance(counts)
    if n == 0:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    share = counts.right.sum() / 2 / n
    spread = share * (1 - share)
    # As many independent pairs have this variance: never more than there are and, where all are right, than couples.
    effective = min(n, spread / variance) if spread and variance > 0 else min(n, (counts.pairs > 0).sum() / 2)
    effective /= widened
    z = norm.ppf(0.975)
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(spread / effective + z**2 / (4 * effective**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"value": float(share), "low": float(low), "high": float(high), "n": int(round(n))}


def _variance(counts: Counts) -> float:
    n = counts.pairs.sum() / 2
    if n == 0:
        return float("nan")
    right = counts.right.sum() / 2
    share = right / n
    of_images = np.sum((counts.right - share * counts.pairs) ** 2)
    of_pairs = (right - counts.ties / 4) - 2 * share * right + share**2 * n
    images = max(3, np.count_nonzero(counts.pairs))
    few = images * (images - 1) / (images - 2) ** 2  # the jackknife's factor (Arvesen 1969)
    return float((few * of_images - of_pairs) / n**2)

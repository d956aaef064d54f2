"""Rankings of images without looking at any picture: by age, community, hour, title, and number of posts.

Learned rankings (all but age and number) are cross-validated over five folds of images. Two images are compared only by
predictions from the same fold: predictions from different folds are not comparable, because a fold whose images happen
to be viral is missing from its own training data (Parker et al. 2007, *Stratification bias in low signal microarray
studies*). The results of the folds are not independent, because each is tested on what the others are trained on: the
variance is multiplied by 1 + 5/4, where 5 is the number of folds and 1/4 the size of one divided by that of the others
(Nadeau & Bengio 2003, *Inference for the generalization error*).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from context_measures.shares import Share, counts_of, counts_within, interval

FOLDS = 5
MOST_COMMUNITIES = 200  # beyond them the rarer ones are one
LEARNED = ("community", "context", "hour", "title")
# What the rows of the table are called.
METHODS = {
    "clock": "age of the first post: older first",
    "community": "community of the first post",
    "context": "age and community",
    "hour": "hour of the first post",
    "title": "title's words and length",
    "submissions": "number of posts (part of the label)",
    "picture": "the picture: scores given",
}


class PairSet(NamedTuple):
    """Pairs of images to rank: `pairs` (m, 2: positions), or all pairs `within` the same community, `across` two, or
    `all`. `v_score` (n,) is what decides which image of a pair is the more viral."""

    key: str
    title: str
    v_score: np.ndarray
    pairs: np.ndarray | None = None
    rule: str = "all"


def rank_and_count(images: pd.DataFrame, method: str, pair_set: PairSet, seed: int = 0) -> Share | None:
    """The share of the set's pairs that a method of METHODS ranks correctly, with its interval.

    `images` has one row per image: time, community, submissions, cell, unit (what stays in one fold) and, where known,
    hour, title and picture (a ranker's score, NaN for an image that has none). None if the method tells the images
    of no pair apart.
    """
    v_score, fold = pair_set.v_score, np.zeros(len(images), np.int64)
    if method in LEARNED:
        fold = folds_of(units_of(images["unit"].to_numpy(), pair_set.pairs), seed)
        scores = cross_validated(images, method, v_score, fold)
    else:
        scores = (-images["time"] if method == "clock" else images[method]).to_numpy(np.float64)
    fold = np.where(np.isfinite(scores), fold, -1)
    scores = np.where(fold < 0, 0.0, scores)
    if pair_set.pairs is not None:
        first, second = pair_set.pairs.T
        comparable = (fold[first] == fold[second]) & (fold[first] >= 0)
        counts = counts_of(scores, v_score, pair_set.pairs[comparable])
    else:
        community = images["community"].cat.codes.to_numpy(np.int64)
        together = np.where(fold < 0, -1, fold * (community.max() + 1) + community)
        counts = counts_within(scores, v_score, together if pair_set.rule == "within" else fold)
        if pair_set.rule == "across":
            counts = counts.less(counts_within(scores, v_score, together))
    widened = 1 + FOLDS / (FOLDS - 1) if method in LEARNED else 1.0
    return interval(counts, widened) if 2 * counts.ties < counts.pairs.sum() else None


def units_of(unit: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
    """What stays in one fold, numbered from 0: images of one unit and, where no image is in many pairs, of one pair."""
    unit = np.unique(unit, return_inverse=True)[1]
    if pairs is None or not len(pairs) or np.bincount(pairs.ravel()).max() > 2:
        return unit
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs)), unit[pairs.T]), shape=(unit.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][unit]


def folds_of(unit: np.ndarray, seed: int = 0, folds: int = FOLDS) -> np.ndarray:
    """The fold, from 0, of each image; units (numbered from 0) are dealt out at random in equal numbers."""
    return (np.random.default_rng(seed).permutation(unit.max() + 1) % folds)[unit]


def cross_validated(images: pd.DataFrame, method: str, v_score: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """What a method, learned from the other folds, expects of each image (V's normal quantile among those)."""
    x, found = _features(images, method), np.zeros(len(images))
    for part in np.unique(fold):
        if not (test := fold == part).all():
            found[test] = _expected(x, method, v_score, ~test, test)
    return found


def learned_from_others(images: pd.DataFrame, method: str, v_score: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What a method, learned from the images outside of `test` (a mask, n,), expects of those of `test`."""
    return _expected(_features(images, method), method, v_score, ~test, test)


def _expected(x, method: str, v_score: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    target = norm.ppf((rankdata(v_score[train]) - 0.5) / train.sum())
    return (_boosting if method == "context" else ridge)(x[train], target, x[test])


def _features(images: pd.DataFrame, method: str):
    if method == "title":
        return title_features(images["title"])
    if method == "hour":
        return one_hot(images["hour"] if "hour" in images else images["cell"])
    if method == "community":
        return one_hot(images["community"])
    common = images["community"].value_counts().index[:MOST_COMMUNITIES]
    community = pd.Categorical(images["community"], common).codes
    return np.column_stack([rankdata(images["time"]) / len(images), np.where(community < 0, len(common), community)])


def one_hot(column: pd.Series):
    """A sparse column of zeros and ones for each value."""
    from scipy.sparse import csr_array

    codes = pd.factorize(column)[0]
    return csr_array((np.ones(len(codes)), (np.arange(len(codes)), codes)))


def title_features(titles: pd.Series):
    """TF-IDF of a title's words and pairs of words that occur in five titles at least, and its length in words and in
    letters (their logarithms, standardised), sparse."""
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    titles = titles.astype(str)
    lengths = np.log1p(np.column_stack([titles.str.split().str.len(), titles.str.len()]).astype(np.float64))
    lengths = csr_array((lengths - lengths.mean(axis=0)) / np.maximum(lengths.std(axis=0), 1e-9))
    try:
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=5, max_features=20_000, sublinear_tf=True)
        return hstack([words.fit_transform(titles), lengths]).tocsr()
    except ValueError:  # no word occurs in five titles
        return lengths


def ridge(x, y: np.ndarray, x_new, alpha: float = 10.0) -> np.ndarray:
    """Ridge regression with an intercept, whose penalty is `alpha`."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=alpha, solver="sparse_cg", tol=1e-5).fit(x, y).predict(x_new)


def _boosting(x, y: np.ndarray, x_new) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=20, categorical_features=[1],
        early_stopping=False, random_state=0,
    )  # fmt: skip
    return trees.fit(x, y).predict(x_new)

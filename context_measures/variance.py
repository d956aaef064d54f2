"""How much of the variance of the submissions' log score community, hour, resubmission, title and picture explain.

After Lakkaraju et al. 2013 (*What's in a name?*, section 4) and Hessel et al. 2017 (*Cats and captions vs. creators and
the clock*): cross-validated R² of ridge regressions, all submissions of one image in one fold, one cause at a time and
added one after the other. The score is log(score − lowest + 1), the lowest being the file's, or 0 where none is below.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from context_measures.rankings import folds_of, one_hot, ridge, title_features
from context_measures.shares import Share

LAST_INDEX = 10  # later resubmissions count as this one
DRAWS = 1000
# What the rows of the table are called; after `…` comes what is added to the row before.
CAUSES = {
    "community": "community",
    "index": "the image's nth post",
    "title": "title's words and length",
    "picture": "the picture (scores given)",
    "community_hour": "community × hour",
    "community_index": "community × nth post",
    "community_index_hour": "community × hour + community × nth post",
    "everything": "… + title",
    "everything_without_picture": "all of these, on the posts whose picture has a score",
    "everything_and_picture": "… + the picture",
    "gain_of_picture": "what the picture adds",
}


def explained_variance(posts: pd.DataFrame, unit: np.ndarray, lowest: int, seed: int = 0) -> dict[str, Share]:
    """R² of each of CAUSES that the data allows, with a 95 % interval of a bootstrap over units (images, or groups of
    copies of one) of the predictions as they are, and n, the number of submissions.

    `posts` are submissions to communities that count: community, cell, index, score and, where known, title and picture
    (a ranker's score, NaN if there is none). `unit` (n,) numbers what stays in one fold, from 0. `lowest` is the
    lowest score of the file. R² is below 0 for what predicts worse than the mean. A product of two (×) holds both and
    what they do together.
    """
    from scipy.sparse import hstack

    y = np.log(posts["score"].to_numpy(np.float64) - min(lowest, 0) + 1)
    community, index = posts["community"].cat.codes.astype(np.int64), posts["index"].clip(upper=LAST_INDEX)
    parts = {"community": one_hot(community)}
    together = [parts["community"]]
    if posts["cell"].nunique() > community.nunique() and (posts["cell"] >= 0).any():
        together.append(one_hot(posts["cell"]))
        parts["community_hour"] = hstack(together).tocsr()
    if index.nunique() > 1:
        nth = [one_hot(index), one_hot(community * (LAST_INDEX + 1) + index)]
        parts |= {"index": nth[0], "community_index": hstack([parts["community"], *nth]).tocsr()}
        together += nth
        if "community_hour" in parts:
            parts["community_index_hour"] = hstack(together).tocsr()
    if "title" in posts:
        parts["title"] = title_features(posts["title"])
        together.append(parts["title"])
        parts["everything"] = hstack(together).tocsr()
    fold = folds_of(unit, seed)
    found = {name: _r2(y, [_predicted(x, y, fold)], unit, seed)[0] for name, x in parts.items()}
    if "picture" in posts:
        found |= _picture(posts["picture"].to_numpy(np.float64), y, hstack(together).tocsr(), unit, seed)
    return {name: found[name] for name in CAUSES if name in found}


def _picture(picture: np.ndarray, y: np.ndarray, others, unit: np.ndarray, seed: int) -> dict[str, Share]:
    """What the picture explains alone and beyond the others, on the posts whose picture has a score."""
    from scipy.sparse import csr_array, hstack

    known = np.isfinite(picture)
    y, others, unit = y[known], others[known], np.unique(unit[known], return_inverse=True)[1]
    x = csr_array(((picture[known] - picture[known].mean()) / (picture[known].std() or 1.0))[:, None])
    fold = folds_of(unit, seed)
    alone, without, together = (_predicted(z, y, fold) for z in (x, others, hstack([others, x]).tocsr()))
    names = ("picture", "everything_without_picture", "everything_and_picture")
    found, drawn = _r2(y, [alone, without, together], unit, seed), _draws(y, [without, together], unit, seed)
    gain = found[2]["value"] - found[1]["value"]
    low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    gained = {"value": gain, "low": float(low), "high": float(high), "n": len(y)}
    return dict(zip(names, found, strict=True)) | {"gain_of_picture": gained}


def _predicted(x, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    found = np.zeros(len(y))
    for part in np.unique(fold):
        if not (test := fold == part).all():
            found[test] = ridge(x[~test], y[~test], x[test])
    return found


def _r2(y: np.ndarray, predictions: list[np.ndarray], unit: np.ndarray, seed: int) -> list[Share]:
    spread = ((y - y.mean()) ** 2).sum()
    values = [1 - ((y - prediction) ** 2).sum() / spread if spread else float("nan") for prediction in predictions]
    bounds = np.quantile(_draws(y, predictions, unit, seed), [0.025, 0.975], axis=1).T
    return [
        {"value": float(value), "low": float(low), "high": float(high), "n": len(y)}
        for value, (low, high) in zip(values, bounds, strict=True)
    ]


def _draws(y: np.ndarray, predictions: list[np.ndarray], unit: np.ndarray, seed: int) -> np.ndarray:
    """R² of each prediction over the same DRAWS bootstrap samples of units, shape (predictions, DRAWS)."""
    rng, units = np.random.default_rng(seed), unit.max() + 1
    sums = [np.bincount(unit, value) for value in (np.ones(len(y)), y, y**2, *((y - p) ** 2 for p in predictions))]
    sums, drawn = np.column_stack(sums), []
    for _ in range(DRAWS):
        drawn.append(np.bincount(rng.integers(0, units, units), minlength=units) @ sums)
    count, total, squares, *errors = np.array(drawn).T
    spread = np.maximum(squares - total**2 / count, 1e-12)
    return np.array([1 - error / spread for error in errors])

"""How much of the label is luck: split-half agreement of each image's submissions, and the ceiling of a perfect ranker.

Each image's submissions are divided into two halves, V is computed from each, and the pairs of images that both halves
order alike are counted. What this implies for a ranker that knows everything lasting about a picture takes assumptions:

1. The votes of one image's submissions are independent, given the picture; so are the halves.
2. What the halves share and what sets them apart is normal, on some scale of V: an agreement g is a correlation
   ρ = sin(π (g − ½)) (Kruskal 1958), and a ranker whose correlation with the label is c is right on ½ + arcsin(c) / π.
3. The whole label is as much more reliable than a half as a mean of two is than one: R = 2ρ / (1 + ρ) (Spearman 1910,
   Brown 1910), and the best ranker's correlation with it is √R. For a maximum, as V is, that is a little generous.
4. How often a picture is posted is either the picture's own doing, up to rounding (`ceiling`: halves of equal size), or
   a count of independent events at the picture's own rate, as in a Poisson process (`ceiling_of_chance_counts`: a coin
   decides for each submission). One count for each picture cannot tell which; where people post what they see others
   post, chance is greater still. The first is the higher: an upper bound.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from context_measures.shares import Share, counts_within, interval

SPLITS = 10  # random halves to average over
FEWEST = 50  # images with two halves
ASSUMPTIONS = {
    "ceiling": "the votes of a picture's submissions are independent, given the picture; the noise is normal, on some "
    "scale; the whole is as reliable as the mean of two halves; how often a picture is submitted is the picture's own "
    "doing, up to rounding: an upper bound",
    "ceiling_of_chance_counts": "the same, but submissions come as independent events at the picture's own rate, as in "
    "a Poisson process",
}


def label_noise(posts: pd.DataFrame, seed: int = 0) -> dict[str, Share]:
    """split_half_agreement and the two ceilings of ASSUMPTIONS (shares of pairs, 0 to 1; n images), or nothing if
    fewer than FEWEST images have two submissions. `posts` are submissions that count: img_id and a_score."""
    image = np.unique(posts["img_id"], return_inverse=True)[1]
    a_score = posts["a_score"].to_numpy(np.float64)
    if (np.bincount(image) > 1).sum() < FEWEST:
        return {}
    rng = np.random.default_rng(seed)
    by_coin, equal = [], []
    for _ in range(SPLITS):
        by_coin.append(agreement(image, a_score, rng.random(len(image)) < 0.5))
        equal.append(agreement(image, a_score, _equal_halves(image, rng)))
    agreed, agreed_equal = _mean(by_coin), _mean(equal)
    return {
        "split_half_agreement": agreed,
        "ceiling": _through(ceiling_of, agreed_equal),
        "ceiling_of_chance_counts": _through(ceiling_of, agreed),
    }


def agreement(image: np.ndarray, a_score: np.ndarray, first: np.ndarray) -> Share:
    """The share of pairs of images that V of their submissions in the `first` half (a mask) and V of the others order
    alike, over the images with submissions in both; n is their number. `image` (n,) numbers the images from 0."""
    values = []
    for half in (first, ~first):
        count = np.bincount(image[half], minlength=image.max() + 1)
        highest = np.full(image.max() + 1, -np.inf)
        np.maximum.at(highest, image[half], a_score[half])
        values.append((count, highest))
    both = (values[0][0] > 0) & (values[1][0] > 0)
    v_scores = [highest[both] * np.log(count[both] / count[both].mean()) for count, highest in values]
    return interval(counts_within(*v_scores, np.zeros(both.sum(), np.int64))) | {"n": int(both.sum())}


def ceiling_of(agreed: float) -> float:
    """The share of pairs that the best ranker ranks correctly, from the halves' agreement (assumptions 2 and 3)."""
    rho = max(0.0, np.sin(np.pi * (agreed - 0.5)))
    return 0.5 + np.arcsin(np.sqrt(2 * rho / (1 + rho))) / np.pi


def _equal_halves(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask of half of each image's submissions, drawn at random; of an odd number either half gets one more."""
    order = np.lexsort((rng.random(len(image)), image))
    count = np.bincount(image)
    place = np.arange(len(image)) - np.repeat(np.cumsum(count) - count, count)
    first = np.empty(len(image), bool)
    first[order] = (place + rng.integers(0, 2, len(count))[image[order]]) % 2 == 0
    return first


def _mean(found: list[Share]) -> Share:
    table = pd.DataFrame(found).mean()
    return {**{name: float(table[name]) for name in ("value", "low", "high")}, "n": int(round(table["n"]))}


def _through(function, share: Share) -> Share:
    return {name: function(share[name]) for name in ("value", "low", "high")} | {"n": share["n"]}

"""User-supplied pairs, datasets/pairs.csv: read, validated row by row, and split.

A row has img_id_1, img_id_2 and the target, 0 to 1: how far, or how often, the first was preferred (½: equal). Optional
columns are split (train, validation, test), which takes precedence, and weight (above 0; 1 by default).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import data_set
from metrics import PairList
from utils import UserError, read_csv

COLUMNS = ["img_id_1", "img_id_2", "target"]


def read_pair_file(data_path: str | Path, known: pd.Series | None = None) -> pd.DataFrame:
    """Read datasets/pairs.csv of a data set: img_id_1, img_id_2, target, weight and, if it has one, split.

    Raises UserError, with the file and the line, for an img_id that is not a whole number or not among those `known`,
    a picture paired with itself or in two splits, and an invalid target, weight or split.
    """
    path = Path(data_path) / "datasets" / "pairs.csv"
    table = read_csv(path, COLUMNS)
    table = table[[*COLUMNS, *({"split", "weight"} & set(table))]]
    numbers = table.drop(columns="split", errors="ignore").apply(pd.to_numeric, errors="coerce")
    for side in COLUMNS[:2]:
        bad = (numbers[side] % 1 != 0) | (numbers[side].abs() >= 2**53)
        _refuse(path, table[side], bad, "not a whole number")
        numbers[side] = numbers[side].astype(np.int64)
        if known is not None:
            _refuse(path, table[side], ~numbers[side].isin(known), "not in data_set_iv.csv")
    _refuse(path, table["img_id_2"], numbers["img_id_1"] == numbers["img_id_2"], "paired with itself")
    _refuse(path, table["target"], ~numbers["target"].between(0, 1), "not a number from 0 to 1")
    if "weight" not in table:
        numbers["weight"] = 1.0
    else:
        bad = ~numbers["weight"].between(0, 1e100, inclusive="neither")  # squares of weights are summed
        _refuse(path, table["weight"], bad, "not a number above 0 and below 1e100")
    if "split" in table:
        _refuse(path, table["split"], ~table["split"].isin(data_set.SPLITS), f"none of {', '.join(data_set.SPLITS)}")
        numbers["split"] = table["split"]
        _refuse_torn(path, numbers)
    return numbers


def _refuse(path: Path, column: pd.Series, bad: pd.Series, why: str) -> None:
    """A UserError that names the first row that is bad."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(f"{path} line {row + 2}: {column.name} {column.iloc[row]!s} is {why}")


def _refuse_torn(path: Path, pairs: pd.DataFrame) -> None:
    """A UserError for an image that is in pairs of two splits."""
    ids = pairs[COLUMNS[:2]].stack()
    split = pairs["split"].repeat(2).to_numpy()
    first = pd.Series(split, ids.to_numpy()).groupby(level=0, sort=False).first()
    torn = np.flatnonzero(first.loc[ids.to_numpy()].to_numpy() != split)
    if len(torn):
        line, img_id = ids.index.get_level_values(0)[torn[0]] + 2, ids.iloc[torn[0]]
        here, above = split[torn[0]], first[img_id]
        raise UserError(f"{path} line {line}: img_id {img_id} is in split {here}, and in {above} above")


# --- splits ---------------------------------------------------------------------------------------------------------
def split_pairs(
    pairs: pd.DataFrame, images: pd.Series | None = None, seed: int = 0, fold: int = 0, folds: int = 1
) -> pd.DataFrame:
    """The pairs with a column `split` and no image in two splits; pairs across two splits are left out and counted.

    The file's own column takes precedence; if it has no validation pair, an eighth of the training pairs is used.
    Without the column, `images` gives each image's split (by img_id), and without that the hash of `data_set.split_of`.
    """
    if "split" in pairs:
        if folds > 1:
            raise UserError("--folds: the column split of pairs.csv determines the test set")
        if (pairs["split"] == "validation").any():
            return pairs
        train = pairs[pairs["split"] == "train"]
        held_back = data_set.split_of(_units(train).to_numpy(), seed, 0, 8) == "test"
        images = pd.Series(np.where(held_back, "validation", "train"), _units(train).index)
        return pd.concat([_inside(train, images), pairs[pairs["split"] == "test"]])
    if images is None:
        units = _units(pairs)
        images = pd.Series(data_set.split_of(units.to_numpy(), seed, fold, folds), units.index)
    return _inside(pairs, images)


def _units(pairs: pd.DataFrame) -> pd.Series:
    """What stays in one split with each image, by img_id: the images that pairs link to it, named by the smallest
    img_id. Where half of all hang together that would split nothing, and each image is for itself."""
    ids, places = np.unique(pairs[COLUMNS[:2]].to_numpy(), return_inverse=True)
    first, second = places.reshape(-1, 2).T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(ids),) * 2)
    part = connected_components(links, directed=False)[1]
    smallest = pd.Series(ids).groupby(part).transform("min")
    together = np.bincount(part).max(initial=0) > len(ids) / 2
    return pd.Series(ids if together else smallest.to_numpy(), ids)


def _inside(pairs: pd.DataFrame, images: pd.Series) -> pd.DataFrame:
    """The pairs within a split of `images` (by img_id)."""
    first, second = (images.loc[pairs[side]].to_numpy() for side in COLUMNS[:2])
    if across := int((first != second).sum()):
        print(f"{across} of {len(pairs)} pairs are in two splits and are left out", flush=True)
    return pairs.assign(split=first)[first == second]


# --- what a training takes of them ----------------------------------------------------------------------------------
def pairs_of_rows(pairs: pd.DataFrame, img_ids: np.ndarray) -> tuple[np.ndarray, PairList]:
    """The rows of the images in these pairs, in the order of `img_ids` (n,), and the pairs as indices into these rows.

    Pairs of images that are not among `img_ids` are left out.
    """
    places = np.stack([pd.Index(img_ids).get_indexer(pairs[side]) for side in COLUMNS[:2]], axis=1)
    there = (places >= 0).all(axis=1)
    rows, places = np.unique(places[there], return_inverse=True)
    target, weight = (pairs.loc[there, name].to_numpy(copy=True) for name in ("target", "weight"))
    return rows, PairList(places.reshape(-1, 2), target, weight)


def preference(pairs: pd.DataFrame) -> pd.Series:
    """How far each image was preferred in its pairs, 0 to 1, by img_id: the weighted mean target, for data without a
    virality score."""
    first, second = pairs[["img_id_1", "target", "weight"]], pairs[["img_id_2", "target", "weight"]]
    second = second.assign(target=1 - second["target"])
    both = pd.concat([part.set_axis(["img_id", "target", "weight"], axis=1) for part in (first, second)])
    both["target"] *= both["weight"]
    total = both.groupby("img_id")[["target", "weight"]].sum()
    return total["target"] / total["weight"]

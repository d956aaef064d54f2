"""The inputs of training: the usable pictures of a data set, their targets, and the splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import data_set
import deza2015
import pair_file
import timeline
import transforms
from data_set import Pictures
from decoding.decoder import MAX_PIXELS
from metrics import PairList, Pairs, PairSets
from utils import UserError, read_csv, read_json


# --- ranking --------------------------------------------------------------------------------------------------------
@dataclass
class RankingData:
    """Pictures, their virality (n,) and the rows of each split.

    `pairs` has, in pair modes deza, controlled and file, each split's pairs as indices into its rows; otherwise None.
    `truth` has the cue's true box (x, y, w, h) and the latent virality of each picture if there is a truth.csv.
    """

    pictures: Pictures
    v_score: np.ndarray
    rows: dict[str, np.ndarray]
    pairs: dict[str, PairList | None]
    truth: pd.DataFrame | None


def load_ranking(
    data_path: str | Path,
    *,
    image_size: int,
    pair_mode: str = "all",
    split: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    num_workers: int = 2,
    cache: str = "on",
    max_pixels: int = MAX_PIXELS,
    left_out: str | Path | None = None,
) -> RankingData:
    """The pictures of a data set that can be used, split; the others are listed in the file `left_out`.

    Raises UserError if a split holds no pair. In pair mode file a data set may have no virality scores: how far each
    picture was preferred in its pairs stands for them.
    """
    if image_size < 64:
        raise UserError(f"--image_size {image_size}: AlexNet needs at least 64 pixels")
    table, made = read_ranking(data_path, pair_mode)
    side = transforms.stored_side(image_size)
    pictures = data_set.load_pictures(data_path, table["img_id"], side, num_workers, cache == "on", max_pixels)
    data_set.report_faults(pictures, data_path, left_out)
    return split_ranking(data_path, table, made, pictures, pair_mode, split, seed, fold, folds)


def read_ranking(data_path: str | Path, pair_mode: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The table of the images to rank, with v_score; and in pair mode file the pairs of pairs.csv."""
    if pair_mode != "file":
        return data_set.read_table(data_path, "data_set_iv", ["v_score"]), None
    if not (Path(data_path) / "datasets" / "data_set_iv.csv").is_file():
        made = pair_file.read_pair_file(data_path)
        return pair_file.preference(made).rename("v_score").reset_index(), made
    table = data_set.read_table(data_path, "data_set_iv", ["v_score"])
    made = pair_file.read_pair_file(data_path, known=table["img_id"])
    return table[table["img_id"].isin(made[["img_id_1", "img_id_2"]].stack())].reset_index(drop=True), made


def split_ranking(
    data_path: str | Path,
    table: pd.DataFrame,
    made: pd.DataFrame | None,
    pictures: Pictures,
    pair_mode: str,
    split: str | None,
    seed: int,
    fold: int,
    folds: int,
) -> RankingData:
    """The `pictures` (or what stands for them: `img_ids` is read) of `table`, split; see `load_ranking`."""
    if pair_mode == "deza" and folds > 1:
        raise UserError("--folds: pair mode deza has its published test pairs")
    img_ids = pictures.img_ids
    v_score = table.set_index("img_id").loc[img_ids, "v_score"].to_numpy(np.float64)
    pairs: dict[str, PairList | None] = dict.fromkeys(data_set.SPLITS)
    if pair_mode == "file":
        rows, pairs = split_file(data_path, table, made, img_ids, split, seed, fold, folds)
    elif pair_mode == "deza":
        rows, listed = split_published(data_path, pictures, seed)
        pairs = with_targets(listed, rows, v_score)
    else:
        rows = rows_of_splits(data_path, table, img_ids, split, seed, fold, folds)
    if pair_mode == "controlled":
        listed = controlled_in_splits(data_path, table, img_ids, v_score, rows, seed)
        pairs = with_targets(listed, rows, v_score)
    for name, part in rows.items():
        values = v_score[part] if pairs[name] is None else np.append(pairs[name].targets, 0.5)
        if len(np.unique(values)) < 2:
            raise UserError(f"{data_path}: its {name} split has {len(part)} usable pictures and no pair of them")
    path, truth = Path(data_path) / "datasets" / "truth.csv", None
    if path.is_file():
        truth = read_csv(path, ["img_id", "latent", "x", "y", "w", "h"]).set_index("img_id").reindex(img_ids)
    return RankingData(pictures, v_score, rows, pairs, truth)


def with_targets(
    listed: dict[str, np.ndarray], rows: dict[str, np.ndarray], v_score: np.ndarray
) -> dict[str, PairList]:
    """Each split's pairs (m, 2), indices into its rows, with their targets by virality."""
    return {name: PairList(part, data_set.targets_of(v_score[rows[name]], part)) for name, part in listed.items()}


def split_file(
    data_path: str | Path,
    table: pd.DataFrame,
    made: pd.DataFrame,
    img_ids: np.ndarray,
    rule: str | None,
    seed: int,
    fold: int,
    folds: int,
) -> tuple[dict[str, np.ndarray], dict[str, PairList]]:
    """Each split's rows and pairs of pairs.csv, by its column split or, by `rule`, as any images are split."""
    images = None
    if rule in ("hash", "time"):
        made = made.drop(columns="split", errors="ignore")
    if "split" not in made and (rule in ("table", "time") or "group" in table or (rule is None and "split" in table)):
        ids = table["img_id"].to_numpy()
        images = pd.Series(split_of_images(data_path, table, ids, rule, seed, fold, folds), ids)
    made = pair_file.split_pairs(made, images, seed, fold, folds)
    there = made[["img_id_1", "img_id_2"]].isin(img_ids).all(axis=1)
    if not there.all():
        print(f"{there.sum()} of {len(made)} pairs have both pictures", flush=True)
    of_split = {name: made[there & (made["split"] == name)] for name in data_set.SPLITS}
    found = {name: pair_file.pairs_of_rows(part, img_ids) for name, part in of_split.items()}
    return {name: rows for name, (rows, _) in found.items()}, {name: pairs for name, (_, pairs) in found.items()}


def split_published(
    data_path: str | Path, pictures: Pictures, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each split's rows, and its pairs (m, 2) as positions in these. Test: the 489 pairs of the paper; an eighth of the
    others for validation. No image is in two pairs."""
    pairs = deza2015.read_pairs(Path(data_path) / "deza2015")
    ids = pairs[["img_id_viral", "img_id_other"]].to_numpy()
    there = np.isin(ids, pictures.img_ids).all(axis=1)
    print(f"{there.sum()} of {len(pairs)} published pairs have both pictures ({(there & pairs['top']).sum()} of 489)")
    split = np.where(data_set.split_of(ids[:, 0], seed, 0, 8) == "test", "validation", "train")
    split = np.where(pairs["top"], "test", split)
    rows, published = {}, {}
    for name in data_set.SPLITS:
        chosen = pictures.rows_of(ids[there & (split == name)])
        rows[name] = np.sort(chosen.ravel())
        published[name] = np.searchsorted(rows[name], chosen)
    return rows, published


def controlled_in_splits(
    data_path: str | Path,
    table: pd.DataFrame,
    img_ids: np.ndarray,
    v_score: np.ndarray,
    rows: dict[str, np.ndarray],
    seed: int,
) -> dict[str, np.ndarray]:
    """Each split's controlled pairs (m, 2) as positions in its rows. Raises UserError if there are no posts with
    times, or a split has no such pair."""
    posts = timeline.read_posts(data_path, table)
    if posts is None:
        raise UserError(f"{data_path}: pair mode controlled needs submissions with times ({', '.join(timeline.FILES)})")
    first = timeline.first_posts(posts).reindex(img_ids)
    community, time = first["community"].cat.codes.to_numpy(), first["time"].to_numpy()
    pairs = {name: data_set.controlled_pairs(v_score[part], community[part], time[part], seed)
             for name, part in rows.items()}  # fmt: skip
    if empty := [name for name, found in pairs.items() if not len(found)]:
        raise UserError(f"{data_path}: its {empty[0]} split has no controlled pair: too few pictures per community")
    return pairs


def mode_pairs(v_score: np.ndarray, pair_mode: str, listed: PairList | None = None) -> Pairs:
    """The pairs that a mode can draw from these images; those `listed` in modes deza, controlled and file."""
    return PairSets(*data_set.pair_sets(v_score, pair_mode)) if listed is None else listed


# --- classification -------------------------------------------------------------------------------------------------
@dataclass
class ClassificationData:
    """Pictures, their labels (n,), the names of the classes, and the rows of each split."""

    pictures: Pictures
    labels: np.ndarray
    classes: list[str]
    rows: dict[str, np.ndarray]


def load_classification(
    data_path: str | Path,
    *,
    image_size: int,
    split: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    num_workers: int = 2,
    cache: str = "on",
    max_pixels: int = MAX_PIXELS,
    left_out: str | Path | None = None,
    balance_data: int | str | None = None,
) -> ClassificationData:
    """The pictures of a data set that can be used, split; the others are listed in the file `left_out`.

    Raises UserError if a split has too few classes.
    With a number as `balance_data` the training split keeps that many pictures of each class.
    """
    table = read_classification(data_path)
    side = transforms.stored_side(image_size)
    pictures = data_set.load_pictures(data_path, table["img_id"], side, num_workers, cache == "on", max_pixels)
    data_set.report_faults(pictures, data_path, left_out)
    return split_classification(data_path, table, pictures, split, seed, fold, folds, balance_data)


def read_classification(data_path: str | Path) -> pd.DataFrame:
    """The table of the images to classify, with subreddit and label."""
    return data_set.read_table(data_path, "image4classification", ["subreddit", "label"])


def split_classification(
    data_path: str | Path,
    table: pd.DataFrame,
    pictures: Pictures,
    split: str | None,
    seed: int,
    fold: int,
    folds: int,
    balance_data: int | str | None = None,
) -> ClassificationData:
    """The `pictures` (or what stands for them: `img_ids` is read) of `table`, split; see `load_classification`."""
    labels = table.set_index("img_id").loc[pictures.img_ids, "label"].to_numpy(np.int64)
    rows = rows_of_splits(data_path, table, pictures.img_ids, split, seed, fold, folds)
    for name, part in rows.items():
        if len(np.unique(labels[part])) < (2 if name == "train" else 1):
            raise UserError(f"{data_path}: its {name} split has {len(part)} usable pictures and too few classes")
    if isinstance(balance_data, int):
        rows["train"] = balanced(rows["train"], labels, balance_data, seed)
        print(f"balanced: {len(rows['train'])} training pictures, the same number of each class")
    return ClassificationData(pictures, labels, data_set.class_names(table), rows)


def weights_of_classes(labels: np.ndarray, classes: int | None = None) -> Tensor:
    """The inverse frequency of each class in `labels`, scaled so that a picture's weight is 1 on average; (classes,).

    By default the number of classes is the largest label plus 1.
    """
    counts = np.bincount(labels, minlength=classes or 0)
    return torch.from_numpy(len(labels) / ((counts > 0).sum() * np.maximum(counts, 1))).float()


def balanced(rows: np.ndarray, labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The same number of rows of each class: n, or the size of the smallest class."""
    rng = np.random.default_rng(seed)
    classes = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    n = min(n, *map(len, classes))
    return np.sort(np.concatenate([rng.choice(each, n, replace=False) for each in classes]))


# --- splits ---------------------------------------------------------------------------------------------------------
def rows_of_splits(
    data_path: str | Path,
    table: pd.DataFrame,
    img_ids: np.ndarray,
    rule: str | None,
    seed: int,
    fold: int,
    folds: int,
) -> dict[str, np.ndarray]:
    """The places in `img_ids` of each split, by the rule of `data_set.splits_of`."""
    split = split_of_images(data_path, table, img_ids, rule, seed, fold, folds)
    return {name: np.flatnonzero(split == name) for name in data_set.SPLITS}


def split_of_images(
    data_path: str | Path,
    table: pd.DataFrame,
    img_ids: np.ndarray,
    rule: str | None,
    seed: int,
    fold: int,
    folds: int,
) -> np.ndarray:
    """The split of each of the `img_ids`, by the rule of `data_set.splits_of`."""
    first_times = None
    if rule == "time" and (posts := timeline.read_posts(data_path, table)) is not None:
        first_times = timeline.first_posts(posts).reindex(img_ids)["time"].to_numpy()
    kept = table.set_index("img_id").loc[img_ids].reset_index()
    return data_set.splits_of(kept, rule, seed, fold, folds, first_times)


# --- where the pictures come from -----------------------------------------------------------------------------------
def read_survivors(data_path: str | Path) -> dict[str, Any] | None:
    """The summary of the downloaded pictures in survivors.json; None for data that was not downloaded."""
    path = Path(data_path) / "survivors.json"
    return read_json(path) if path.is_file() else None

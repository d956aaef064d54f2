"""Data sets of pictures: tables, image-disjoint splits, pairs, and the pictures decoded once.

    python data_set.py --data_path data/sample           tables, splits and pairs, in seconds
    python data_set.py --data_path data/own [--most 5 --fewest 20]     from a table of submissions.py: its communities
    python data_set.py --from FOLDER_OR_CSV --data_path data/own       from your own pictures: see own_pictures.py

Writes datasets/data_set_iv.csv (the table of virality.py), datasets/image4classification.csv, processed/splits.csv and
processed/pairs_<mode>_<split>.csv. The Dataset classes follow torchvision.datasets.MNIST: root, split, transform,
target_transform, and an informative repr.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import Dataset

import own_pictures
from communities import CLASSES, classification_table, load_submissions, of_communities  # noqa: F401  with the tables
from decoding.decoder import UnusablePicture, decode
from pictures.cache import Pictures, load_pictures, processed_folder, report_faults  # noqa: F401  with the tables
from pictures.left_out import LeftOut
from pictures.sources import picture_path
from utils import UserError, at_least, check_outputs, print_configuration, read_csv, run_main, write_csv

SPLITS = ("train", "validation", "test")
SHARES = (0.7, 0.1, 0.2)
PAIR_MODES = ("1", "2", "3", "4", "deza", "all", "controlled", "file")
DRAWN = ("1", "2", "3", "4", "all")  # the modes whose pairs are drawn from the images' virality
MOST = 250  # Deza & Parikh 2015 take the 250 most and least viral images


# --- splits ---------------------------------------------------------------------------------------------------------
def split_of(img_ids: Iterable[int], seed: int = 0, fold: int = 0, folds: int = 1) -> np.ndarray:
    """The split of each image, 'train', 'validation' or 'test' (70/10/20), by a hash of only its img_id and the seed.

    The split of an image therefore does not depend on which other pictures are present. With `folds` above 1, fold
    `fold` (from 0) is the test split, and an eighth of the other images is used for validation.
    """
    place, again = (np.array([_uniform(part, seed, i) for i in img_ids]) for part in ("split", "validation"))
    if folds == 1:
        bounds = np.cumsum(SHARES)
        return np.array(SPLITS)[np.searchsorted(bounds[:2], place, side="right")]
    rest = np.where(again < SHARES[1] / (SHARES[0] + SHARES[1]), "validation", "train")
    return np.where((place * folds).astype(int) == fold, "test", rest)


def split_by_time(
    first_times: np.ndarray, shares: Sequence[float] = SHARES, groups: np.ndarray | None = None
) -> np.ndarray:
    """The split of each image, 'train', 'validation' or 'test', by the time of its first post: test images appeared
    after all others, validation images after the training images.

    `first_times` (n,), in any unit; `shares` of the images in each split, as close as possible. Images of the same time
    stay in one split, and so do those of the same group (`groups`, n: numbers, −1 for an image without copies), whose
    time is that of its first copy.
    """
    times = pd.Series(np.asarray(first_times))
    if groups is not None:
        alone = -1 - np.arange(len(times))
        times = times.groupby(np.where(np.asarray(groups) < 0, alone, groups)).transform("min")
    before = times.rank(method="min").to_numpy() - 1  # how many images are older
    return np.array(SPLITS)[np.searchsorted(np.cumsum(shares)[:2] * len(times), before, side="right")]


def splits_of(
    table: pd.DataFrame,
    rule: str | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 1,
    first_times: np.ndarray | None = None,
) -> np.ndarray:
    """The split of each row of a table with img_id, by a rule: 'table', its own column `split`; 'hash', `split_of`;
    'time', `split_by_time` by the `first_times` (n,) of its images. The default is 'table' if it has the column.

    If the table has a column `group`, the copies of one picture stay in one split: that of the smallest img_id.
    """
    rule = rule or ("table" if "split" in table else "hash")
    group = table["group"] if "group" in table else pd.Series(np.nan, table.index)
    group = group.where(group.notna() & ~group.astype(str).isin(["", "-1"]))
    if rule == "table":
        return _own_splits(table, group, seed, folds)
    if rule == "time":
        if first_times is None:
            raise UserError("--split time: the data set has no submissions with times")
        times = pd.Series(first_times, dtype=float)
        return split_by_time(times.fillna(times.min()).to_numpy(), groups=pd.factorize(group)[0])
    leader = table.groupby(group)["img_id"].transform("min") if group.notna().any() else table["img_id"]
    return split_of(leader.where(group.notna(), table["img_id"]).astype(np.int64), seed, fold, folds)


def _own_splits(table: pd.DataFrame, group: pd.Series, seed: int, folds: int) -> np.ndarray:
    """The column `split`, checked; where it has no image for validation, an eighth of those for training are."""
    if "split" not in table or not table["split"].isin(SPLITS).all():
        raise UserError(f"--split table: the table needs a column split that contains only {', '.join(SPLITS)}")
    if folds > 1:
        raise UserError("--folds: the table's column split determines the test set; pass --split hash to use folds")
    split = table["split"].astype(str)
    if (torn := split.groupby(group).nunique().gt(1)).any():
        raise UserError(f"--split table: copies of one picture (group {torn.idxmax()}) are in more than one split")
    if (split != "validation").all():
        chosen = splits_of(table.drop(columns="split"), "hash", seed, 0, 8) == "test"
        split = split.mask((split == "train") & chosen, "validation")
    return split.to_numpy(str)


def _uniform(part: str, seed: int, img_id: int) -> float:
    digest = hashlib.sha256(f"{part}:{seed}:{img_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# --- tables ---------------------------------------------------------------------------------------------------------
def read_table(data_path: str | Path, name: str, columns: list[str]) -> pd.DataFrame:
    """Read and validate datasets/<name>.csv of a data set: the columns exist, img_id is a whole number and unique."""
    data_path = Path(data_path)
    if not data_path.is_dir():
        raise UserError(f"--data_path {data_path} is not a folder")
    path = data_path / "datasets" / f"{name}.csv"
    table = read_csv(path, ["img_id", *columns])
    for column in {"img_id", "v_score", "label"} & {"img_id", *columns}:
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = ~np.isfinite(numbers) if column == "v_score" else (numbers % 1 != 0) | (numbers.abs() >= 2**53)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(f"{path} line {row + 2}: {column} is {str(table[column].iloc[row])!r}, not a valid number")
        table[column] = numbers if column == "v_score" else numbers.astype(np.int64)
    if table["img_id"].duplicated().any():
        row = int(np.flatnonzero(table["img_id"].duplicated())[0])
        raise UserError(f"{path} line {row + 2}: img_id {table['img_id'].iloc[row]} occurs twice")
    return table


# --- pairs ----------------------------------------------------------------------------------------------------------
def pair_sets(v_score: np.ndarray, pair_mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The two sets of images that a pair mode compares, as masks over one split's images.

    1: the 250 most against the 250 least viral; 2: the 250 most against the lower half; 3: the upper half against the
    250 least; 4: the upper against the lower half; all: every image against every other. In a split of fewer than
    2,500 images, a tenth of them replaces 250.
    """
    n = len(v_score)
    order = np.argsort(v_score, kind="stable")
    most = min(MOST, max(1, n // 10))
    high, low = {
        "1": (order[n - most :], order[:most]),
        "2": (order[n - most :], order[: n // 2]),
        "3": (order[n // 2 :], order[:most]),
        "4": (order[n // 2 :], order[: n // 2]),
        "all": (order, order),
    }[pair_mode]
    return np.isin(np.arange(n), high), np.isin(np.arange(n), low)


def draw_pairs(v_score: np.ndarray, pair_mode: str, seed: int) -> np.ndarray:
    """Pairs (m, 2) of positions in `v_score`; the more viral one is on a random side.

    Each image of the larger set is drawn once, against a random one of the other; in mode all, every ordered pair.
    """
    rng = np.random.default_rng(seed)
    if pair_mode == "all":
        first, second = np.nonzero(~np.eye(len(v_score), dtype=bool))
        return np.stack([first, second], axis=1)
    high, low = (np.flatnonzero(mask) for mask in pair_sets(v_score, pair_mode))
    m = max(len(high), len(low)) if len(v_score) > 1 else 0  # one image is no pair
    pairs = np.stack([_each_in_turn(rng, high, m), _each_in_turn(rng, low, m)], axis=1)
    return np.where(rng.random(m)[:, None] < 0.5, pairs, pairs[:, ::-1])


def _each_in_turn(rng: np.random.Generator, items: np.ndarray, m: int) -> np.ndarray:
    """m of the items: whole shuffled rounds, so that all are drawn about equally often."""
    return np.concatenate([rng.permutation(items) for _ in range(-(-m // len(items)))])[:m] if m else items[:0]


def controlled_pairs(
    v_score: np.ndarray, community: np.ndarray, first_time: np.ndarray, seed: int, block: int = 10
) -> np.ndarray:
    """Pairs (m, 2) of positions of images first posted to the same community at about the same time.

    The images (n,) of each community (numbered; −1 for none) are divided by `first_time` into blocks of ten. In each
    block, images with V above 0 (posted more often than the mean) are paired with the others at random, each in at most
    one pair, on random sides. If V is above 0 for all or none, its median replaces 0.
    Why blocks: pairing neighbours in time wherever one is viral and one is not finds the less viral one first more
    often, because there are more of them; the clock is then right on only 0.33 of Deza & Parikh's pairs.
    """
    rng, pairs = np.random.default_rng(seed), []
    viral = v_score > 0
    if viral.all() or not viral.any():
        viral = v_score > np.median(v_score)
    order = np.lexsort((first_time, community))
    order = order[community[order] >= 0]
    for images in np.split(order, np.flatnonzero(np.diff(community[order])) + 1):
        for start in range(0, len(images), block):
            part = images[start : start + block]
            more, less = rng.permutation(part[viral[part]]), rng.permutation(part[~viral[part]])
            pairs += zip(more, less, strict=False)
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    pairs = pairs[v_score[pairs[:, 0]] != v_score[pairs[:, 1]]]
    return np.where(rng.random(len(pairs))[:, None] < 0.5, pairs, pairs[:, ::-1])


def targets_of(v_score: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """1 if the first image of a pair is more viral, 0 if the second is, ½ for a tie; float32, shape (m,)."""
    return ((np.sign(v_score[pairs[:, 0]] - v_score[pairs[:, 1]]) + 1) / 2).astype(np.float32)


# --- data sets ------------------------------------------------------------------------------------------------------
class _RedditPictures(Dataset):
    """What the two data sets share: a table of one split's images whose pictures are there."""

    def __init__(self, root, split, transform, target_transform, seed, name, columns):
        if split not in SPLITS:
            raise UserError(f"split {split!r} is not one of {', '.join(SPLITS)}")
        self.root, self.split, self.seed = Path(root), split, seed
        self.transform, self.target_transform = transform, target_transform
        table = read_table(root, name, columns)
        table = table[splits_of(table, seed=seed) == split]
        there = np.array([picture_path(root, i).is_file() for i in table["img_id"]], dtype=bool)
        self.missing = int((~there).sum())
        self.table = table[there].reset_index(drop=True)

    def picture(self, row: int) -> Any:
        path = picture_path(self.root, self.table["img_id"].iloc[row])
        try:
            picture = decode(path)
        except UnusablePicture as fault:
            raise UserError(f"{path}: {fault}") from fault
        return picture if self.transform is None else self.transform(picture)

    def _target(self, target: Any) -> Any:
        return target if self.target_transform is None else self.target_transform(target)

    def _describe(self, facts: dict[str, Any]) -> str:
        facts = {"root": self.root, "split": f"{self.split} (seed {self.seed})", **facts}
        facts |= {"pictures missing": self.missing, "transform": self.transform}
        width = max(map(len, facts))
        return "\n".join([type(self).__name__, *(f"    {key:<{width}}  {value}" for key, value in facts.items())])


class Reddit_Images_for_Classification(_RedditPictures):
    """Pictures and the subreddit that each was mostly submitted to: `(image, label)`.

    `classes` names the labels. A picture that is missing is left out and counted in `missing`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(root, split, transform, target_transform, seed, "image4classification", ["subreddit", "label"])
        self.classes = class_names(read_table(root, "image4classification", ["subreddit", "label"]))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.picture(index), self._target(int(self.table["label"].iloc[index]))

    def __repr__(self) -> str:
        counts = self.table["label"].value_counts()
        classes = ", ".join(f"{name} {counts.get(label, 0)}" for label, name in enumerate(self.classes))
        return self._describe({"pictures": len(self), "classes": classes})


class Reddit_Img_Pair(_RedditPictures):
    """Pairs of pictures of one split: `(image_1, image_2), target`; 1 when the first is the more viral, ½ for a tie."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        pair_mode: str | int = "all",
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(root, split, transform, target_transform, seed, "data_set_iv", ["v_score"])
        self.pair_mode = check_pair_mode(pair_mode)
        self.redraw(seed)

    def redraw(self, seed: int) -> None:
        """Draw the pairs anew (pair modes 1 to 4 set images against each other at random)."""
        v_score = self.table["v_score"].to_numpy()
        self.pairs = draw_pairs(v_score, self.pair_mode, seed)
        self.targets = targets_of(v_score, self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[tuple[Any, Any], Any]:
        first, second = self.pairs[index]
        return (self.picture(first), self.picture(second)), self._target(float(self.targets[index]))

    def __repr__(self) -> str:
        ties = int((self.targets == 0.5).sum())
        facts = {"pictures": len(self.table), "pair mode": self.pair_mode, "pairs": f"{len(self)} ({ties} ties)"}
        return self._describe(facts)


def check_pair_mode(pair_mode: str | int) -> str:
    if str(pair_mode) not in PAIR_MODES:
        raise UserError(f"pair mode {pair_mode!r} is not one of {', '.join(PAIR_MODES)}")
    if str(pair_mode) not in DRAWN:
        raise UserError(
            f"pair mode {pair_mode!r}: its pairs are made by the training; only {', '.join(DRAWN)} are drawn"
        )
    return str(pair_mode)


def class_names(table: pd.DataFrame) -> list[str]:
    """The name of each label, from 0; every label must have one name and none may be skipped."""
    names = table.groupby("label")["subreddit"].unique()
    if list(names.index) != list(range(len(names))):
        raise UserError(f"image4classification.csv: the labels are {sorted(names.index)}, not 0 to {len(names) - 1}")
    if (clash := names[names.map(len) > 1]).size:
        raise UserError(f"image4classification.csv: label {clash.index[0]} stands for {' and '.join(clash.iloc[0])}")
    return [str(name[0]) for name in names]


# --- building the tables --------------------------------------------------------------------------------------------
def write_splits_and_pairs(data_path: Path, table: pd.DataFrame, seed: int) -> None:
    """processed/splits.csv and processed/pairs_<mode>_<split>.csv (pair modes 1 to 4)."""
    table = table.assign(split=splits_of(table, seed=seed))
    write_csv(data_path / "processed" / "splits.csv", table[["img_id", "split"]].sort_values("img_id"))
    for split, images in table.groupby("split"):
        ids, v_score = images["img_id"].to_numpy(), images["v_score"].to_numpy()
        for mode in ("1", "2", "3", "4"):
            pairs = draw_pairs(v_score, mode, seed)
            rows = {"img_id_1": ids[pairs[:, 0]], "img_id_2": ids[pairs[:, 1]], "target": targets_of(v_score, pairs)}
            write_csv(data_path / "processed" / f"pairs_{mode}_{split}.csv", pd.DataFrame(rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", required=True, help="a folder with redditSubmissions.csv.gz, deza2015/ or submissions.csv.gz; "
         "with --from, the folder to create")  # fmt: skip
    flag("--from", dest="source", metavar="FOLDER_OR_CSV", help="a folder per community, or a CSV of file,score")
    flag("--left_out", metavar="FILE", help="with --from: write the path of each unused file and the reason")
    flag("--min_share", type=float, default=0.5, help="least share of an image's submissions in its class")
    flag(
        "--most",
        type=at_least(2),
        default=5,
        help="with your own submissions: number of communities to classify, largest first (default %(default)s)",
    )
    flag("--fewest", type=at_least(1), default=20, help="fewest pictures of such a community (default %(default)s)")
    flag("--seed", type=int, default=0, help="random seed of splits and pairs (default %(default)s)")
    return parser.parse_args()


def from_pictures(source: str, data_path: Path, left_out_to: str | None, seed: int) -> None:
    """Make a data set from your own pictures."""
    check_outputs({"--left_out": left_out_to}, [source])
    with LeftOut(left_out_to) as left_out:
        name, table = own_pictures.make_data_set(source, data_path, left_out)
    if name == "data_set_iv":
        write_splits_and_pairs(data_path, read_table(data_path, name, ["v_score"]), seed)
        print(f"{len(table)} pictures with a score → {data_path / 'datasets' / name}.csv")
    else:
        counts = ", ".join(f"{community} {count}" for community, count in table["subreddit"].value_counts().items())
        print(f"{len(table)} pictures of {table['subreddit'].nunique()} communities ({counts}) → {data_path}")
    print_splits(splits_of(table, seed=seed))
    print(left_out)


def from_submissions(data_path: Path, min_share: float, most: int, fewest: int, seed: int) -> None:
    """Make the tables of a data set from its submissions."""
    submissions, malformed = load_submissions(data_path)
    own = not submissions.attrs.get("snap", True)
    table = read_table(data_path, "data_set_iv", ["SNAP_id", "v_score"])
    classes, left_out = classification_table(submissions, table.set_index("SNAP_id")["img_id"], min_share, own)
    print(f"{len(submissions)} submissions ({malformed} malformed lines), {len(table)} images with a virality score")
    if own:
        here = np.array([picture_path(data_path, i).is_file() for i in classes["img_id"]], dtype=bool)
        classes, counts = of_communities(classes, here, most, fewest)
        of_others = counts.drop(classes["subreddit"].unique())
        left_out |= {"without a picture": int((~here).sum()), "of other communities": int(of_others.sum())}
    counts = classes["subreddit"].value_counts()
    path = data_path / "datasets" / "image4classification.csv"
    if len(counts) > 1:
        write_csv(path, classes)
        print(f"{len(counts)} classes: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    else:
        path.unlink(missing_ok=True)
        print(f"no classes: {len(counts)} communities have {fewest} downloaded pictures (--fewest)")
    print("  left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items()))
    write_splits_and_pairs(data_path, table, seed)
    print_splits(splits_of(table, seed=seed))


def print_splits(split: np.ndarray) -> None:
    print("splits: " + ", ".join(f"{name} {count}" for name, count in pd.Series(split).value_counts().items()))


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "data sets")
    if args.source:
        from_pictures(args.source, Path(args.data_path), args.left_out, args.seed)
    else:
        from_submissions(Path(args.data_path), args.min_share, args.most, args.fewest, args.seed)


if __name__ == "__main__":
    run_main(main)

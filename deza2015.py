"""The data published by Deza & Parikh 2015: a table of 10,078 images, submissions, pairs, and attribute predictions.

    python deza2015.py data/reddit/deza2015 --output data/reddit/datasets/data_set_iv.csv [--compare SNAP_TABLE.csv]

Checks the published files against each other and writes the table, one row per image, lowest V first; `--compare`
reports how far a table that virality.py computed from SNAP's file agrees with it. Takes seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io

import virality
from utils import UserError, check_outputs, print_configuration, read_csv, run_main, write_csv

TEST_PAIRS = 489
# Shares of these pairs that are ordered rightly (Deza & Parikh 2015, table 4).
CHANCE, HUMANS, ATTRIBUTES = 0.50, 0.6012, 0.6810
# The paper's vote: the viral image is the one with more of an attribute (+1) or with less of it (−1).
VOTES = {"animal": 1, "synthgen": 1, "beautiful": -1, "explicit": 1, "sexual": -1}


def read_submissions(folder: str | Path) -> pd.DataFrame:
    """The 132,307 submissions, in SNAP's order: image_id, reddit_id, subreddit, score, comments, a_score."""
    names = {
        "image_id": "img_id",
        "reddit_id": "img_hash",
        "subreddit": "subreddit",
        "score": "img_score",
        "comments": "img_comments",
        "a_score": "authenticated_shift_score",
    }
    lists = {name: _lines(Path(folder) / f"{file}.csv") for name, file in names.items()}
    if len({len(lines) for lines in lists.values()}) > 1:
        lengths = ", ".join(f"{names[name]}.csv {len(lines)}" for name, lines in lists.items())
        raise UserError(f"{folder}: the lists of submissions differ in length ({lengths})")
    table = pd.DataFrame(lists)
    for column, kind in {"image_id": np.int64, "score": np.int64, "comments": np.int64, "a_score": np.float64}.items():
        try:
            table[column] = table[column].astype(kind)
        except ValueError as error:
            raise UserError(f"{Path(folder) / names[column]}.csv: {error}") from error
    table["subreddit"] = table["subreddit"].astype("category")
    return table


def is_folder(folder: str | Path) -> bool:
    """Whether a folder holds the published lists of submissions."""
    return (Path(folder) / "img_hash.csv").is_file()


def post_numbers(submissions: pd.DataFrame) -> np.ndarray:
    """The number of each submission's post, int64. Reddit numbers its posts in order, and a post's id is this number in
    base 36: the older post has the smaller number."""
    posts = submissions["reddit_id"]
    if (bad := ~posts.str.fullmatch("[0-9A-Za-z]{1,12}")).any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(f"img_hash.csv line {row + 1}: {posts.iloc[row][:40]!r} is not a post id")
    return np.array([int(post, 36) for post in posts], dtype=np.int64)


def hour_cells(submissions: pd.DataFrame) -> np.ndarray:
    """Which submissions went to the same community in the same hour of the day, as one number each; −1 where unknown.

    The lists name no hours, but A is the shifted score over the mean of the community and hour, so that shifted score
    over A is that mean: at most 24 values a community, to the five digits that the lists give. Which of them is which
    hour they do not tell.
    """
    shifted = submissions["score"] - submissions["score"].min()
    mean = (shifted / submissions["a_score"].where(submissions["a_score"] > 0)).to_numpy()
    community = submissions["subreddit"].cat.codes.to_numpy()
    order = np.lexsort((mean, community))
    with np.errstate(invalid="ignore"):
        apart = ~(np.diff(mean[order]) <= 1e-4 * mean[order][:-1])
    cells = np.empty(len(order), np.int64)
    cells[order] = np.cumsum(np.r_[0, apart | (np.diff(community[order]) != 0)])
    return np.where(np.isfinite(mean), cells, -1)


def kept_images(folder: str | Path) -> np.ndarray:
    """The img_ids (10,084) whose picture was available in 2015."""
    return np.array(_lines(Path(folder) / "final_names.csv"), dtype=np.int64)


def read_table(folder: str | Path) -> pd.DataFrame:
    """The published table with the columns virality.TABLE_COLUMNS: 10,078 images, lowest V first."""
    return pd.DataFrame(_matrix(folder, "viral_datasetV2", "viral_dataset"))[virality.TABLE_COLUMNS]


def computed_table(folder: str | Path) -> pd.DataFrame:
    """The same table without img_link, recomputed from the published submissions."""
    return virality.virality_scores(read_submissions(folder), kept_images(folder))


def read_pairs(folder: str | Path) -> pd.DataFrame:
    """The 5,039 pairs: img_id_viral, img_id_other, viral_shown_left (0 or 1), each image in one pair, and whether a
    pair is among the 489 of the paper's test set (`top`)."""
    pairs = pd.DataFrame(_matrix(folder, "pair_matrix", "pair_matrix_spot"), columns=["img_id_viral", "img_id_other"])
    pairs["viral_shown_left"] = _matrix(folder, "virality_label", "virality_label_spot")
    top = _matrix(folder, "Top_489_pair", "top_pair_matrix_489")
    pairs["top"] = pairs["img_id_viral"].isin(top[:, 0]) & pairs["img_id_other"].isin(top[:, 1])
    return pairs.astype({"img_id_viral": np.int64, "img_id_other": np.int64})


def disagreeing_pairs(pairs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose viral image does not have the higher V in `table`."""
    v_score = table.set_index("img_id")["v_score"]
    return pairs[~(v_score.loc[pairs["img_id_viral"]].to_numpy() > v_score.loc[pairs["img_id_other"]].to_numpy())]


def attribute_vote(folder: str | Path) -> tuple[float, int]:
    """Share of the 489 pairs ranked correctly by the vote over the released attribute predictions; ties count half.

    The paper's relative attributes, predicted by its SVMs for 'left against right' of each pair: animal +
    synthetically generated − beautiful + explicit − sexual (section 5.2). Returns the share and the number of pairs.
    """
    votes = pd.Series(0.0, index=pd.Index(_matrix(folder, "Top_489_pair", "top_pair_matrix_489")[:, 0]))
    for number, (name, sign) in enumerate(VOTES.items(), start=1):
        predicted = np.ravel(_matrix(folder, f"attributes/SVM_Result_{name}", "class_hat"))
        folds = _matrix(folder, f"attributes/split_A{number}_Top", "split")
        images = np.concatenate([np.ravel(fold["TestingID"]) for fold in folds])
        more = pd.Series((predicted == 1).astype(float) - (predicted == 2), index=images)
        votes += sign * more.loc[votes.index]
    return float(((np.sign(votes) + 1) / 2).mean()), len(votes)


def agreement(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Agreement of two tables, one row per column: images in both, equal values, and the largest difference."""
    both = published.merge(table, on="img_id", suffixes=("", "_other"))
    rows = []
    for column in virality.TABLE_COLUMNS[2:]:
        gap = (both[column] - both[f"{column}_other"]).abs()
        rows.append((column, len(both), int((gap <= 1e-9).sum()), float(gap.max())))
    return pd.DataFrame(rows, columns=["column", "images_in_both", "equal_to_1e-9", "largest_difference"])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _matrix(folder: str | Path, file: str, name: str) -> Any:
    path = Path(folder) / f"{file}.mat"
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        return scipy.io.loadmat(path, simplify_cells=True, variable_names=[name])[name]
    except Exception as error:  # scipy raises many types for a file that is not MATLAB's
        raise UserError(f"{path} cannot be read as a MATLAB file: {error}") from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the folder deza2015 that download_images.py has filled")
    parser.add_argument("--output", metavar="FILE", help="write the published table as CSV")
    parser.add_argument("--compare", metavar="FILE", help="a table from virality.py to compare with the published one")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    published_files = [path for path in Path(args.folder).glob("*") if path.is_file()]
    check_outputs({"--output": args.output}, [*published_files, *([args.compare] if args.compare else [])])
    print_configuration(args, "Deza & Parikh 2015")
    published = read_table(args.folder)
    print(f"{len(published)} images; recomputed from the published submissions:")
    print(agreement(computed_table(args.folder), published).to_string(index=False))
    pairs = read_pairs(args.folder)
    odd = disagreeing_pairs(pairs, published)
    print(f"{len(pairs)} pairs, {pairs['top'].sum()} of them the test set; V disagrees with the label of {len(odd)}")
    for pair in odd.itertuples():
        print(f"  {pair.img_id_viral} against {pair.img_id_other}")
    share, n = attribute_vote(args.folder)
    print(f"attributes' vote correct on {share:.2%} of {n} pairs (published: {ATTRIBUTES:.2%}; people {HUMANS:.2%})")
    if args.compare:
        print(f"{args.compare} against the published table:")
        print(agreement(read_csv(args.compare, virality.TABLE_COLUMNS), published).to_string(index=False))
    if args.output:
        write_csv(args.output, published)
        print(f"the published table → {args.output}")


if __name__ == "__main__":
    run_main(main)

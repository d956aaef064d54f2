"""Find copies among the pictures of a data set: identical, resized, mirrored, cropped or captioned ones.

    python duplicates.py data/NAME [--output groups.csv] [--page groups.html] [--undo corrected.csv] [--write]

Writes one row per picture: img_id, group (the lowest img_id among the picture and its copies); for a picture with
copies also kind (same, mirrored, cropped, captioned: how it differs from picture `of`) and distance (0: no difference
anywhere; doubtful matches reach up to 0.5). A second table next to it, ending in .pairs.csv, lists every pair of
copies, and of variants: pictures that are the same except for one part, such as one template with two captions.
Variants are not copies and are not joined unless `--variants join` is given. `--write` adds the column `group` to the
data set's tables. To correct the groups, untick pictures on the page, or edit the table, and pass the groups with
`--undo`: they take precedence over what is found.

Candidate pairs come from hashes of many windows of each picture (copies/hashing.py); the two pictures are then aligned
and compared (copies/verification.py). Both results are cached under processed/, so that a second run is fast. All
pictures of a group are copies of *one* of them: a chain of crops, each a copy of the next, is cut (copies/groups.py).
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import virality
from copies import KINDS
from copies.groups import describe, group_pictures
from copies.search import find_pairs, kept_folder
from copies.store import grey, load_small
from decoding.decoder import MAX_PIXELS, UnusablePicture
from feature_files import places_of, read_feature_file
from locks import alone
from pages.copies import copies_page, read_groups
from pages.template import thumbnail
from pictures.cache import processed_folder, report_faults
from pictures.sources import Source, of_data_set, picture_path, read
from utils import (
    UserError,
    at_least,
    check_outputs,
    next_to,
    print_configuration,
    read_csv,
    run_main,
    write_csv,
    write_text,
)

PAIR_COLUMNS = ["img_id_1", "img_id_2", "kind", "distance", "joined"]
ON_PAGE = 2000  # pictures, in whole groups: the doubtful ones
POSTS_NAMED = 5  # of a picture, on the page
TABLES = ("data_set_iv", "image4classification")  # that get the column `group`


# --- files ------------------------------------------------------------------------------------------------------------
def list_pictures(data_path: Path) -> np.ndarray:
    """The img_ids, in order, of the pictures in images/ of a data set."""
    if not data_path.is_dir():
        raise UserError(f"{data_path} is not a folder")
    folder = picture_path(data_path, 0).parent
    try:
        names = [entry.name.removesuffix(".jpg") for entry in os.scandir(folder) if entry.name.endswith(".jpg")]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error
    img_ids = sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))
    if len(img_ids) < len(names):
        print(f"{len(names) - len(img_ids)} pictures of {folder} are not named <img_id>.jpg and are left out")
    if not img_ids:
        raise UserError(f"{folder} holds no pictures named <img_id>.jpg")
    return np.array(img_ids)


def read_by_hand(path: str, img_ids: np.ndarray) -> np.ndarray:
    """The groups of these pictures in a file (img_id, group), numbered; −1 for pictures that it does not contain."""
    table = read_groups(path)
    numbers = pd.to_numeric(table["img_id"], errors="coerce")
    if (wrong := numbers.isna() | (numbers % 1 != 0)).any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{path} line {row + 2}: img_id {table['img_id'].iloc[row]!r} is not a whole number")
    codes = pd.factorize(table["group"])[0]
    return pd.Series(codes, numbers.astype(np.int64)).reindex(img_ids, fill_value=-1).to_numpy()


def read_features(path: str, img_ids: np.ndarray) -> np.ndarray:
    """Features (n, d) of these pictures from a feature file, which must contain all of them."""
    file = read_feature_file(path)
    places = places_of(file, img_ids)
    if (places < 0).any():
        missing = img_ids[places < 0]
        raise UserError(f"--features {path} has no features of img_id {missing[0]} ({len(missing)} are missing)")
    return file.features[places]


def write_tables(data_path: Path, table: pd.DataFrame) -> list[Path]:
    """Add the column `group` to the data set's tables; everything else in them stays as it is.

    A picture that was not compared is a group of its own. Raises UserError, and writes nothing, if there is no table,
    or if the column `split` of one separates a group: copies of a picture must not be in two splits.
    """
    group = table.set_index("img_id")["group"]
    tables = {}
    for path in (data_path / "datasets" / f"{name}.csv" for name in TABLES):
        if not path.exists():
            continue
        rows = read_csv(path, ["img_id"], dtype=str, na_filter=False)
        img_ids = pd.to_numeric(rows["img_id"], errors="coerce")
        if (bad := img_ids.isna() | (img_ids % 1 != 0)).any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(f"{path} line {row + 2}: img_id {rows['img_id'].iloc[row]!r} is not a whole number")
        img_ids = img_ids.astype(np.int64)
        rows["group"] = img_ids.map(group).fillna(img_ids).astype(np.int64)
        if "split" in rows and (parted := rows.groupby("group")["split"].nunique() > 1).any():
            one = rows[rows["group"] == parted.idxmax()]
            where = ", ".join(f"{img_id} {split}" for img_id, split in zip(one["img_id"], one["split"], strict=True))
            raise UserError(f"{path}: the column split separates {parted.sum()} groups of copies, among them {where}")
        tables[path] = rows
    if not tables:
        raise UserError(
            f"--write: {data_path / 'datasets'} holds neither {' nor '.join(f'{name}.csv' for name in TABLES)}"
        )
    for path, rows in tables.items():
        write_csv(path, rows)
    return list(tables)


def read_votes(data_path: Path, img_ids: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The votes of the most successful post of each of these pictures, where submissions.csv.gz or else data_set_iv.csv
    has them; and, from the first, all its posts in words: where, when, and with how many votes."""
    if (path := data_path / "submissions.csv.gz").is_file():
        posts, _ = virality.read_submissions(path, timed=True)
        posts = posts[posts["img_id"].isin(img_ids)].copy()
        day = pd.to_datetime(posts["time"], unit="s", errors="coerce").dt.strftime("%Y-%m-%d").fillna("once")
        posts["words"] = posts["subreddit"].astype(str) + " " + day + ": " + posts["score"].map("{:,}".format)
        posts = posts[["img_id", "score", "words"]].groupby("img_id")
        more = (posts.size() - POSTS_NAMED).map(lambda n: f"; {n} more" if n > 0 else "")
        return posts["score"].max(), posts["words"].agg(lambda words: "; ".join(words.head(POSTS_NAMED))) + more
    none = pd.Series(dtype=object)
    try:
        rows = pd.read_csv(data_path / "datasets" / "data_set_iv.csv", index_col="img_id")
    except (OSError, ValueError):  # there is none, or none that can be read: the page does without
        return pd.Series(dtype=float), none
    names = [name for name in ("score", "max_raw_upvotes") if name in rows]
    known = names and rows.index.is_unique
    return (pd.to_numeric(rows[names[0]], errors="coerce") if known else pd.Series(dtype=float)), none


def write_page(path: str, table: pd.DataFrame, data_path: Path, num_workers: int, max_pixels: int) -> None:
    """Write the page of the groups, doubtful ones first, with at most ON_PAGE pictures."""
    shown = table[table["group"].duplicated(keep=False)]
    doubt = shown.groupby("group")["distance"].transform("max")
    shown = shown.assign(doubt=doubt).sort_values(["doubt", "group", "img_id"], ascending=[False, True, True])
    shown = shown[shown["group"].isin(shown["group"].head(ON_PAGE))]

    def one(source: Source) -> str | None:
        try:
            return thumbnail(read(source, max_pixels))
        except UnusablePicture:  # gone meanwhile
            return None

    with ThreadPoolExecutor(num_workers) as pool:
        pictures = dict(
            zip(shown["img_id"].astype(str), pool.map(one, of_data_set(data_path, shown["img_id"])), strict=True)
        )
    votes, posts = read_votes(data_path, shown["img_id"])
    differs = "; differs from " + shown["of"].astype(str) + " by " + shown["distance"].astype(str)
    note = shown["img_id"].map(posts).fillna("").astype(str) + differs.where(shown["of"].notna(), "")
    shown = shown.assign(votes=shown["img_id"].map(votes), note=note.str.removeprefix("; "))
    shown = shown.assign(kind=shown["kind"].fillna("").where(shown["kind"] != "variant", ""))
    write_text(path, copies_page(shown, {img_id: each for img_id, each in pictures.items() if each}))


# --- the command ------------------------------------------------------------------------------------------------------
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("data_path", metavar="DATA", help="a data set: images/<img_id>.jpg, and for --write datasets/*.csv")
    flag("--output", default="groups.csv", metavar="FILE.csv", help="output table of the groups (default %(default)s)")
    flag("--page", metavar="FILE.html", help="also write a page that shows the groups and lets you correct them")
    flag("--write", action="store_true", help="also add the column group to the data set's tables")
    flag("--undo", metavar="FILE.csv", help="img_id,group corrected by hand: takes precedence over what is found")
    flag("--variants", choices=("apart", "join"), default="apart", help="pictures that differ in one part")
    flag("--features", metavar="FILE.npz", help="names and features: their nearest neighbours are compared too")
    flag("--cache", metavar="FOLDER", help="folder of the cached hashes (default: processed/copies of the data set)")
    flag("--num_workers", type=at_least(1), default=os.cpu_count() or 1, help="threads (default: number of cores)")
    flag("--left_out", metavar="FILE", help="write the path of each unusable picture and the reason")
    flag(
        "--max_pixels", type=at_least(1), default=MAX_PIXELS, help="pixels of the largest picture (default %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    beside = next_to(args.output, ".pairs.csv")
    outputs = {"--output": args.output, "the table of pairs": beside, "--page": args.page, "--left_out": args.left_out}
    check_outputs(outputs, [each for each in (args.undo, args.features) if each])
    print_configuration(args, "copies of pictures")
    torch.set_num_threads(1)  # each of the workers has a core
    with alone(args.output, beside, args.page, args.left_out):
        find_and_write(args, beside)


def find_and_write(args: argparse.Namespace, beside: Path) -> None:
    data_path, began = Path(args.data_path), time.perf_counter()
    img_ids = list_pictures(data_path)
    by_hand = read_by_hand(args.undo, img_ids) if args.undo else None
    cache = Path(args.cache) if args.cache else processed_folder(data_path) / "copies"
    small = load_small(data_path, img_ids, cache, args.num_workers, args.max_pixels)
    report_faults(small, data_path, args.left_out)
    if not len(small):
        raise UserError(f"none of the {len(img_ids)} pictures of {data_path} can be used")
    if by_hand is not None:
        by_hand = by_hand[np.isin(img_ids, small.img_ids)]
    features = read_features(args.features, small.img_ids) if args.features else None
    hashed = time.perf_counter()
    sources = list(of_data_set(data_path, small.img_ids))
    picture = functools.lru_cache(maxsize=256)(lambda place: grey(sources[place], args.max_pixels))
    keep = kept_folder(cache, small.keys, features)
    pairs = find_pairs(small.hashes, small.pixels, picture, args.num_workers, features, keep)
    joined = pairs if args.variants == "join" else pairs[pairs["kind"] != "variant"]
    group = group_pictures(len(small), joined, small.sizes, by_hand)
    table = describe(small.img_ids, group, joined, small.sizes)
    write_csv(args.output, table)
    write_csv(beside, pair_table(small.img_ids, group, pairs))
    if args.page:
        write_page(args.page, table, data_path, args.num_workers, args.max_pixels)
    written = [
        args.output,
        beside,
        *([args.page] if args.page else []),
        *(write_tables(data_path, table) if args.write else []),
    ]
    print_summary(table, pairs, hashed - began, time.perf_counter() - hashed)
    print("written: " + ", ".join(map(str, written)))


def pair_table(img_ids: np.ndarray, group: np.ndarray, pairs: pd.DataFrame) -> pd.DataFrame:
    """PAIR_COLUMNS of the pairs, the doubtful ones last. `joined`: 1 where both are in one group."""
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    columns = [
        img_ids[first],
        img_ids[second],
        pairs["kind"],
        pairs["distance"],
        (group[first] == group[second]).astype(int),
    ]
    return pd.DataFrame(dict(zip(PAIR_COLUMNS, columns, strict=True))).sort_values(["distance", "img_id_1", "img_id_2"])


def print_summary(table: pd.DataFrame, pairs: pd.DataFrame, hashing_seconds: float, seconds: float) -> None:
    sizes = table.groupby("group").size()
    sizes = sizes[sizes > 1]
    kinds = table["kind"].value_counts()
    said = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kind in kinds)
    print(
        f"{len(table)} pictures, {sizes.sum()} of them in {len(sizes)} groups of copies" + (f": {said}" if said else "")
    )
    if variants := int((pairs["kind"] == "variant").sum()):
        print(f"  {variants} pairs of variants, which differ in one part (--variants)")
    print(f"  {hashing_seconds:.1f} s to decode and hash, {seconds:.1f} s to search and compare")


if __name__ == "__main__":
    run_main(main)

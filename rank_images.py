"""Rank anyone's pictures with a trained ranker: a table, and a page to look at.

    python rank_images.py --check_point outputs/siamese/best.pt FOLDER --output ranks.csv [--page ranks.html]

FOLDER is a folder of pictures, or a text file that names one picture a line. The table holds path, score, percentile
(0 to 100: the share of the ranker's training pictures that score lower) and the window x, y, w, h in pixels (empty for
a ranker without one), the most viral first. Pictures that cannot be read are listed beside it with the reason. What has
been scored is kept: killed and started again, the command goes on.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import pages
from feature_extractor import list_pictures
from siamese_net import SiameseNet, boxes, from_checkpoint
from transforms import UnusablePicture, decode, to_square
from utils import UserError, at_least, autocast, print_configuration, run_main, select_device, sha256, write_csv

COLUMNS = ["path", "score", "percentile", "x", "y", "w", "h"]
BATCH = 64
ON_PAGE = 2000  # pictures that a page shows at most: the most and least viral


def list_sources(source: str | Path) -> list[str]:
    """The paths of a folder's pictures, or the lines of a text file."""
    if Path(source).is_file():
        try:
            lines = [line.strip() for line in Path(source).read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is neither a folder nor a text list of pictures") from error
        if not (paths := [line for line in lines if line]):
            raise UserError(f"{source} names no picture")
        return list(dict.fromkeys(paths))  # a picture named twice is ranked once
    return [str(path) for path in list_pictures(source)]


def decoded(paths: Iterable[str], side: int, num_workers: int) -> Iterator[tuple[str, Any, Any, str]]:
    """(path, pixels (3, side, side) or None, (width, height), why not) in the order of the paths.

    A few batches are decoded ahead by threads; no more than that is ever held.
    """

    def one(path: str) -> tuple[str, Any, Any, str]:
        try:
            picture = decode(path)
            return path, to_square(picture, side), picture.size, ""
        except UnusablePicture as fault:
            return path, None, None, str(fault)

    paths, waiting = iter(paths), deque()
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for path in itertools.islice(paths, 2 * BATCH):
            waiting.append(pool.submit(one, path))
        while waiting:
            yield waiting.popleft().result()
            for path in itertools.islice(paths, 1):
                waiting.append(pool.submit(one, path))


def score_batch(model: SiameseNet, batch: list, amp: bool | None) -> list[list]:
    """Rows of path, score and window (in pixels; NaN without one) for a batch of decoded pictures."""
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([pixels for _, pixels, _, _ in batch])).to(device)
    with autocast(device, amp):
        score, window = model.rank(pixels)
    windows = np.full((len(batch), 4), np.nan)
    if window is not None:
        windows = boxes(window, torch.tensor([size for _, _, size, _ in batch])).numpy()
    return [
        [path, repr(value), *(f"{side:.1f}" for side in box)]
        for (path, *_), value, box in zip(batch, score.double().tolist(), windows, strict=True)
    ]


def score_all(model: SiameseNet, paths: list[str], side: int, args: argparse.Namespace, journal: Path) -> None:
    """Append a row for each picture that `journal` does not hold yet; an unreadable one has a reason for a score."""
    done = {row[0] for row in _journal_rows(journal)}
    rest = [path for path in paths if path not in done]
    if done:
        print(f"going on: {len(done)} of {len(paths)} pictures are scored")
    with open(journal, "a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        pictures = iter(tqdm(decoded(rest, side, args.num_workers), "ranking", len(rest), disable=None))
        while batch := list(itertools.islice(pictures, BATCH)):
            writer.writerows([path, "", reason] for path, pixels, _, reason in batch if pixels is None)
            if usable := [each for each in batch if each[1] is not None]:
                writer.writerows(score_batch(model, usable, args.amp))
            file.flush()


def _journal_rows(journal: Path) -> list[list[str]]:
    """The whole rows of the journal; a last line torn by a kill is cut off the file."""
    if not journal.is_file():
        return []
    with open(journal, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    with open(journal, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [row for row in csv.reader(file) if len(row) in (3, 6)]


def ranked(rows: list[list[str]], train_scores: np.ndarray | None) -> pd.DataFrame:
    """The table of COLUMNS, the most viral first, from journal rows of readable pictures."""
    table = pd.DataFrame(rows, columns=["path", "score", "x", "y", "w", "h"])
    numbers = ["score", "x", "y", "w", "h"]
    table[numbers] = table[numbers].astype(float)
    against = np.sort(table["score"] if train_scores is None else train_scores)
    table["percentile"] = (np.searchsorted(against, table["score"]) / len(against) * 100).round(1)
    return table.sort_values(["score", "path"], ascending=[False, True], ignore_index=True)[COLUMNS]


def write_page(table: pd.DataFrame, path: str, title: str) -> None:
    half = ON_PAGE // 2
    shown = table if len(table) <= ON_PAGE else pd.concat([table.head(half), table.tail(half)])
    pictures = [decode(picture) for picture in shown["path"]]
    thumbnails, sizes = [pages.thumbnail(p) for p in pictures], [p.size for p in pictures]
    pages.write_text(path, pages.leaderboard_page(shown.reset_index(drop=True), thumbnails, sizes, title))


def print_ends(table: pd.DataFrame, against: str) -> None:
    """The top and bottom few, with what their percentile means."""
    few = min(3, len(table))
    for name, part in (("most viral", table.head(few)), ("least viral", table.tail(few))):
        print(f"{name} (more viral than … of 100 {against}):")
        for row in part.itertuples():
            print(f"  {row.percentile:5.1f}  {row.path!r}"[:160])


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER", help="a folder of pictures, or a text file with a path a line")
    parser.add_argument("--check_point", required=True, help="best.pt of a run of train_siamese.py")
    parser.add_argument("--output", default="ranks.csv", help="the table (default %(default)s)")
    parser.add_argument("--page", metavar="FILE.html", help="write a page to look at as well")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num_workers", type=at_least(1), default=2, help="threads that decode pictures")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="bf16 (default: on devices that have it)")
    return parser.parse_args(words)


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "rank pictures")
    device = select_device(args.device)
    model, state = from_checkpoint(args.check_point)
    paths = list_sources(args.source)
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # The journal belongs to this checkpoint and no other.
    journal = output.with_name(f".{output.name}.{sha256(args.check_point)[:12]}.part")
    score_all(model.to(device), paths, state["transform"]["side"], args, journal)
    wanted = set(paths)
    rows = [row for row in _journal_rows(journal) if row[0] in wanted]
    unreadable = pd.DataFrame(
        [(path, reason) for path, score, reason, *_ in rows if not score], columns=["path", "reason"]
    )
    readable = [row for row in rows if row[1]]
    if not readable:
        journal.unlink()
        raise UserError(
            f"none of the {len(paths)} pictures of {args.source} can be read: {unreadable['reason'].iloc[0]}"
        )
    train_scores = state.get("train_scores")
    table = ranked(readable, None if train_scores is None else train_scores.numpy())
    write_csv(output, table)
    if len(unreadable):
        beside = output.with_name(f"{output.stem}.unreadable.csv")
        write_csv(beside, unreadable)
        print(f"{len(unreadable)} pictures cannot be read; the reasons are in {beside}:")
        for row in unreadable.head(5).itertuples():
            print(f"  {row.path!r}: {row.reason}")
    print_ends(table, "pictures ranked here" if train_scores is None else "training pictures")
    if args.page:
        write_page(table, args.page, f"{len(table)} pictures, ranked")
    journal.unlink()
    print(f"{len(table)} pictures ranked → {output}" + (f", {args.page}" if args.page else ""))


if __name__ == "__main__":
    run_main(main)

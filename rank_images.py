"""Rank pictures with a trained ranker: a table, and a leaderboard page.

    python rank_images.py SOURCE… --check_point outputs/siamese/best.pt --output ranks.csv [--page ranks.html]
                          [--format csv|jsonl|parquet] [--copy_top 20 best]

SOURCE is a folder of pictures, an archive of them (.tar, .tar.gz, .zip), a text file that names one per line (or
a table with a column `path`), an address (http, https) of a picture, an archive or a list, or a picture; there may be
several. The table holds path, score, percentile (0 to 100: the share of the ranker's training pictures that score
lower), the window x, y, w, h in pixels (empty for a ranker without one) and p_above_median (the chance, 0 to 1, to be
more viral than a random training picture), the most viral first; it is CSV, JSON lines or Parquet. Unreadable pictures
are listed next to it with the reason; --left_out lists all files that are not ranked. --copy_top copies the most viral
pictures into a new folder, named by rank: 001_name.jpg. Scores are recorded in a journal next to the table: a killed
command resumes when started again, and pictures that have been replaced are scored again. `torchrun --nproc_per_node N
rank_images.py …` divides the pictures among N processes. Memory use is about 300 bytes per picture.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import distributed
from calibration import p_above
from decoding.decoder import MAX_PIXELS, UnusablePicture
from device import autocast, select_device
from locks import alone
from pages.leaderboard import leaderboard_page
from pages.template import thumbnail
from pictures.left_out import UNREADABLE, LeftOut
from pictures.sources import Decoded, Source, called, count_sources, decoded, list_sources, read
from precision import for_scoring
from ranking.best import check_folder, copy_best
from ranking.journal import fill_journal, join_journals, journal_rows, open_lines
from siamese_net import SiameseNet, boxes, from_checkpoint
from table_files import FORMATS, named, rows_to
from transforms import to_device
from utils import (
    UserError,
    at_least,
    check_outputs,
    fingerprint,
    next_to,
    print_configuration,
    read_json,
    rows_written,
    run_folder,
    run_main,
    write_text,
)

COLUMNS = ["path", "score", "percentile", "x", "y", "w", "h"]
BATCH = 64  # pictures that the network sees at once
EVEN = 16  # pictures that a kernel computes alike wherever they stand: no more than its tile holds, and whole tiles
ON_PAGE = 2000  # pictures that a page shows at most: the most and least viral


# --- scoring --------------------------------------------------------------------------------------------------------
def score_all(
    model: SiameseNet,
    sources: Iterable[Source],
    side: int,
    num_workers: int,
    amp: bool | None,
    max_pixels: int = MAX_PIXELS,
    total: int | None = None,
) -> Iterator[list[list]]:
    """Journal rows, batch by batch: [path, score, box or None, file, offset, size, note, stamp], or
    [path, None, fault, stamp].

    A box is x, y, w, h in pixels. The rows of a batch are made while the device computes the next. Where there are no
    more than `total` pictures, less is computed in vain.
    """
    pictures, before = decoded(sources, side, num_workers, max_pixels), None
    multiple = EVEN if total is None else max(1, min(EVEN, total))
    while batch := list(itertools.islice(pictures, BATCH)):
        if faults := [[each.source.path, None, each.fault, each.source.stamp] for each in batch if each.pixels is None]:
            yield faults
        if usable := [each for each in batch if each.pixels is not None]:
            now = usable, *launch(model, usable, amp, multiple)
            if before:
                yield rows_of(*before)
            before = now
    if before:
        yield rows_of(*before)


def launch(model: SiameseNet, batch: list[Decoded], amp: bool | None, multiple: int) -> tuple[Tensor, Tensor | None]:
    """Scores and windows of a batch, on the device, where they may still be computing.

    The batch is filled up to a multiple: then a picture's score does not depend, in its last bits, on how many others
    were scored with it, and a run that went on after a kill writes what an undisturbed one writes.
    """
    device = next(model.parameters()).device
    pixels = np.zeros((-(-len(batch) // multiple) * multiple, *batch[0].pixels.shape), np.uint8)
    np.stack([each.pixels for each in batch], out=pixels[: len(batch)])
    with autocast(device, amp):
        score, window = model.rank(to_device(torch.from_numpy(pixels), device))
    return score[: len(batch)], None if window is None else window[: len(batch)]


def rows_of(batch: list[Decoded], score: Tensor, window: Tensor | None) -> list[list]:
    found = [None] * len(batch)
    if window is not None:
        found = boxes(window, torch.tensor([each.size for each in batch])).numpy().round(1).tolist()
    return [
        [each.source.path, value, box, *each.source[1:4], each.note, each.source.stamp]
        for each, value, box in zip(batch, score.double().tolist(), found, strict=True)
    ]


# --- the table ------------------------------------------------------------------------------------------------------
class Ranks(NamedTuple):
    """The rows of a journal, sorted by score and read on demand."""

    journal: Path
    offsets: np.ndarray  # (n,) of the rows, the most viral first
    scores: np.ndarray  # (n,) in the same order
    against: np.ndarray  # scores, the lowest first, that the percentiles are among

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[list]:
        """Rows of COLUMNS from `start` to `stop`, each followed by its Source."""
        with open_lines(self.journal) as line:
            for offset, score in zip(self.offsets[start:stop], self.scores[start:stop], strict=True):
                path, _, box, *place, _, stamp = line(offset)
                percentile = np.searchsorted(self.against, score) / len(self.against) * 100
                yield [
                    path,
                    float(score),
                    round(float(percentile), 1),
                    *(box or [None] * 4),
                    Source(path, *place, stamp),
                ]


def in_order(journal: Path, offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The indices of the rows, the most viral first, ties in the order of their paths."""
    order = np.argsort(-scores, kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(scores[order])) + 1).tolist(), len(order)]
    with open_lines(journal) as line:
        for start, stop in itertools.pairwise(bounds):
            if stop - start > 1:
                order[start:stop] = sorted(order[start:stop], key=lambda place: line(offsets[place])[0])
    return order


def rank(
    journal: Path, listed: set[int], train_scores: np.ndarray | None, unreadable: Path, left_out: LeftOut
) -> tuple[Ranks, int]:
    """Order what the journal holds of the pictures `listed`, each once; write the unreadable ones to a file of theirs.

    Returns the ranks and how many pictures are truncated though whole. That file is removed where there is none.
    """
    offsets, scores, left, truncated = array("q"), array("d"), set(listed), 0
    with rows_written(unreadable, ["path", "reason"]) as write:
        for offset, name, (path, score, *rest) in journal_rows(journal):
            if name not in left:
                continue  # no longer among the sources, or there twice
            left.discard(name)
            if score is None:
                write([path, rest[0]])
                left_out(path, rest[0], UNREADABLE)
            else:
                offsets.append(offset)
                scores.append(score)
                truncated += bool(rest[-2])
    if not left_out.counts[UNREADABLE]:
        unreadable.unlink()
    offsets, scores = np.frombuffer(offsets, np.int64), np.frombuffer(scores, np.float64)
    order = in_order(journal, offsets, scores) if len(scores) else np.zeros(0, int)
    against = np.sort(scores if train_scores is None else train_scores)
    return Ranks(journal, offsets[order], scores[order], against), truncated


def write_table(ranks: Ranks, output: Path, format: str, temperature: float | None) -> None:
    """COLUMNS, and p_above_median: the chance to beat a random training picture, empty without a temperature."""
    chances = itertools.repeat(None) if temperature is None else chances_of(ranks, temperature)
    with rows_to(output, [*COLUMNS, "p_above_median"], format) as write:
        for row, chance in zip(ranks.rows(), chances, strict=False):
            write([*row[:-1], chance])


def ends(ranks: Ranks, n: int) -> list[list]:
    """The n most and least viral rows; all of them where there are no more than twice as many."""
    if len(ranks.scores) <= 2 * n:
        return list(ranks.rows())
    return [*itertools.islice(ranks.rows(), n), *deque(ranks.rows(len(ranks.scores) - n), n)]


def chances_of(ranks: Ranks, temperature: float, most: int = 10_000) -> Iterator[float]:
    """Of each row the chance to be more viral than a random training picture; of many interpolated between `most`."""
    scores = ranks.scores if len(ranks.scores) <= most else np.linspace(ranks.scores[-1], ranks.scores[0], most)
    found = p_above(scores, ranks.against, temperature)
    found = found if len(ranks.scores) <= most else np.interp(ranks.scores, scores, found)
    return (round(float(chance), 4) for chance in found)


def write_page(
    ranks: Ranks,
    path: str,
    against: str,
    num_workers: int,
    max_pixels: int = MAX_PIXELS,
    temperature: float | None = None,
    check_point: str | None = None,
) -> None:
    """The leaderboard of the ON_PAGE pictures at both ends; of two that are compared it says how sure the model is, and
    of the model how good it is on its test pairs."""

    def one(row: list) -> tuple[list, str, tuple[int, int]] | None:
        try:
            picture = read(row[-1], max_pixels)
        except UnusablePicture:  # gone since it was scored
            return None
        return row[:-1], thumbnail(picture), picture.size

    with ThreadPoolExecutor(num_workers) as pool:
        shown = [each for each in pool.map(one, ends(ranks, ON_PAGE // 2)) if each]
    rows, thumbnails, sizes = (list(part) for part in zip(*shown, strict=True)) if shown else ([], [], [])
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[1:], float))
    title = f"{len(ranks.scores)} pictures, ranked"
    how_good = run_accuracy(check_point) if check_point else None
    write_text(path, leaderboard_page(table, thumbnails, sizes, title, against, temperature, how_good))


def run_accuracy(check_point: str) -> dict[str, float] | None:
    """Test pair accuracy (value, low, high, n) of the run that a checkpoint is of; None without its results.json."""
    try:
        test = read_json(run_folder(check_point) / "results.json")["test"]
        ends = {end: test[f"pair_accuracy_{end}"] for end in ("low", "high")}
        return {"value": test["pair_accuracy"], "n": test["pairs"], **ends}
    except (UserError, KeyError, TypeError):
        return None


def print_ends(ranks: Ranks, against: str) -> None:
    """Print the top and bottom few, with the meaning of their percentile."""
    rows, few = ends(ranks, 3), min(3, len(ranks.scores))
    for name, part in (("most viral", rows[:few]), ("least viral", rows[-few:])):
        print(f"{name} (more viral than … of 100 {against}):")
        for path, _, percentile, *_ in part:
            print(f"  {percentile:5.1f}  {path!r}"[:160])


def copy_top(ranks: Ranks, n: int, folder: str) -> None:
    """Copies of the n most viral pictures in `folder`, and a line for each that cannot be copied."""
    faults = copy_best((row[-1] for row in ranks.rows(0, n)), n, folder)
    for path, reason in faults[:5]:
        print(f"not copied: {path!r}: {reason}")
    count = min(n, len(ranks.scores)) - len(faults)
    print(f"{count} of the most viral pictures copied → {folder}" + f" ({len(faults)} could not be)" * bool(faults))


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*", metavar="SOURCE", help="folder, archive, list, address or picture")
    parser.add_argument(
        "--features", metavar="FILE.npz", help="features in place of pictures, for a ranker trained on features"
    )
    parser.add_argument("--check_point", required=True, help="best.pt of a run, or an exported folder")
    parser.add_argument("--output", metavar="FILE", help="output table (default ranks.csv, or by --format)")
    parser.add_argument(
        "--format", choices=FORMATS, help="table format (default: from the suffix of --output, else csv)"
    )
    parser.add_argument("--page", metavar="FILE.html", help="also write a leaderboard page")
    parser.add_argument("--copy_top", nargs=2, metavar=("N", "FOLDER"), help="copy the N most viral into a new folder")
    parser.add_argument(
        "--left_out", metavar="FILE", help="write the path of each file that is not ranked and the reason"
    )
    parser.add_argument(
        "--max_pixels", type=at_least(1), default=MAX_PIXELS, help="largest picture (default %(default)s)"
    )
    parser.add_argument("--device", default="auto")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--num_workers", type=at_least(1), default=cores, help="decoding threads (default: number of cores)"
    )
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="bf16 (default: where it is faster)")
    parser.add_argument("--deterministic", action="store_true", help="do not time precisions to choose the fastest")
    args = parser.parse_intermixed_args(words)  # flags may stand between two sources
    if bool(args.source) == bool(args.features):
        parser.error("nothing to rank: pass SOURCE, or --features FILE.npz")
    if args.features and args.page:
        parser.error("--page needs pictures, and --features has none")
    if args.copy_top:
        if args.features:
            parser.error("--copy_top needs pictures, and --features has none")
        try:
            args.copy_top[0] = at_least(1)(args.copy_top[0])
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"--copy_top {args.copy_top[0]}: N is a whole number from 1")
    return args


def main() -> None:
    args = parse_arguments()
    output, format = named(args.output, args.format, "ranks")
    args.output, args.format = str(output), format
    if args.features:
        print_configuration(args, "rank features")
        import feature_training  # needs scipy.stats and matplotlib: a second that pictures do not need

        feature_training.rank_features(args.features, args.check_point, output, format)
        return
    unreadable = next_to(output, ".unreadable.csv")
    outputs = {"--output": output, "the table of unreadable pictures": unreadable}
    outputs |= {"--page": args.page, "--left_out": args.left_out}
    check_outputs(outputs, [*args.source, args.check_point])
    if args.copy_top and distributed.rank() == 0:
        check_folder(args.copy_top[1], args.source, outputs.values())
    distributed.join(args.device)
    print_configuration(args, "rank pictures")
    device = select_device(args.device)
    model, state = from_checkpoint(args.check_point)
    model, side, total = model.to(device), state["transform"]["side"], count_sources(args.source)
    of = f"{state['config']['model_name']}, type {model.model_type}, {model.recipe.name}"
    amp = for_scoring(of, model, SiameseNet.rank, side, total, device, amp=args.amp, deterministic=args.deterministic)
    mine = alone(output, unreadable, args.page, args.left_out) if distributed.rank() == 0 else contextlib.nullcontext()
    with mine, LeftOut(args.left_out) as left_out:
        # The journal belongs to this checkpoint and no other.
        journal = output.with_name(f".{output.name}.{fingerprint(args.check_point)[:12]}.part")
        limits = args.max_pixels, total
        listed = fill_journal(
            journal,
            list_sources(args.source, left_out),
            lambda left: score_all(model, left, side, args.num_workers, amp, *limits),
            total,
            left_out,
        )
        distributed.barrier()
        if distributed.rank():
            return
        join_journals(journal, with_faults=True)
        train_scores = None if (found := state.get("train_scores")) is None else found.numpy()
        ranks, truncated = rank(journal, listed, train_scores, unreadable, left_out)
        print_faults(unreadable, left_out.counts[UNREADABLE])
        if not len(ranks.scores):
            journal.unlink()
            raise UserError(
                f"none of the {len(listed)} pictures of {called(args.source)} can be read (see {unreadable})"
            )
        temperature = state.get("temperature")
        write_table(ranks, output, format, None if train_scores is None else temperature)
        against = "pictures ranked here" if train_scores is None else "training pictures"
        print_ends(ranks, against)
        if args.page:
            write_page(ranks, args.page, against, args.num_workers, args.max_pixels, temperature, args.check_point)
        if args.copy_top:
            copy_top(ranks, *args.copy_top)
        journal.unlink()
    if truncated:
        print(f"{truncated} of the pictures ranked are truncated at their end; their pixels are whole")
    print(f"{len(ranks.scores)} pictures ranked → {output}" + (f", {args.page}" if args.page else ""))
    print(left_out)


def print_faults(unreadable: Path, count: int) -> None:
    """Print how many there are, and the first few."""
    if not count:
        return
    what = "1 picture" if count == 1 else f"{count} pictures"
    print(f"{what} cannot be read; the reasons are in {unreadable}:")
    with open(unreadable, newline="", encoding="utf-8", errors="surrogateescape") as file:
        for path, reason in itertools.islice(csv.reader(file), 1, 6):
            print(f"  {path!r}: {reason}")


if __name__ == "__main__":
    run_main(main)

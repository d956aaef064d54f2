"""The pictures of a data set, decoded once into a memory-mapped file from which training takes its batches."""

from __future__ import annotations

import csv
import functools
import hashlib
import inspect
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from decoding import containers, decoder
from decoding.decoder import MAX_PIXELS, UnusablePicture
from locks import in_turn
from pictures.left_out import LeftOut
from pictures.sources import Source, decoded, of_data_set, picture_path, read
from transforms import to_square
from utils import ROOT, UserError

KEY = ["img_id", "bytes", "mtime_ns", "decoder"]  # the same for a picture that has not changed, nor has who reads it
FACTS = ["width", "height", "fault", "note"]  # what decoding it has found
Cache = tuple[pd.DataFrame, np.ndarray]  # the index, KEY and FACTS a row, and the pixels (n, 3, side, side)


class Pictures:
    """Pictures of a data set, decoded and resized to side×side once, in a memory-mapped file.

    `img_ids` (n,) the ids of the usable ones; `sizes` (n, 2) width and height of the source in pixels; `faults` a table
    (img_id, fault) of those that could not be used; `notes` one (img_id, note) of those that could though something is
    amiss; `stamp` is another one where a usable picture, or who reads it, has changed. `batch(rows)` gives uint8
    (len(rows), 3, side, side).
    """

    def __init__(self, pixels: np.ndarray | None, index: pd.DataFrame, img_ids: np.ndarray) -> None:
        index = index.assign(row=np.arange(len(index))).set_index("img_id").loc[img_ids]
        usable = index["fault"].isna().to_numpy()
        self.img_ids = np.asarray(img_ids)[usable]
        self.faults = index.loc[~usable, ["fault"]].reset_index()
        self.notes = index.loc[usable, ["note"]].dropna().reset_index()
        self.sizes = index.loc[usable, ["width", "height"]].to_numpy(np.int64)
        files = index.loc[usable, KEY[1:]].to_csv()
        self.stamp = hashlib.sha256(files.encode()).hexdigest()[:16]
        self._pixels, self._rows = pixels, index["row"].to_numpy()[usable]

    def __len__(self) -> int:
        return len(self.img_ids)

    def batch(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._pixels[self._rows[np.asarray(rows)]])

    def rows_of(self, img_ids: np.ndarray) -> np.ndarray:
        """Where these (usable) img_ids stand."""
        return pd.Index(self.img_ids).get_indexer(img_ids)


class PicturesAsTheyAre(Pictures):
    """The same without a file: every batch is decoded again."""

    def __init__(
        self,
        index: pd.DataFrame,
        img_ids: np.ndarray,
        data_path: str | Path,
        side: int,
        num_workers: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(None, index, img_ids)
        self._data_path, self._side, self._max_pixels = data_path, side, max_pixels
        self._pool = ThreadPoolExecutor(max(1, num_workers))

    def batch(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        sources = of_data_set(self._data_path, self.img_ids[np.asarray(rows)])
        pixels = list(self._pool.map(self._decode, sources))
        return torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, 3, self._side, self._side), np.uint8))

    def _decode(self, source: Source) -> np.ndarray:
        try:
            return to_square(read(source, self._max_pixels), self._side)
        except UnusablePicture as fault:  # it was whole when the run began
            raise UserError(f"{source.file}: {fault}") from fault


def load_pictures(
    data_path: str | Path,
    img_ids: Iterable[int],
    side: int,
    num_workers: int = 2,
    cache: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> Pictures:
    """The pictures of a data set, side×side, from the cache under processed/, which is built if necessary.

    Without `cache` nothing is stored: each picture is decoded once, to find the usable ones, and then batch by batch.
    """
    data_path, img_ids = Path(data_path), np.asarray(list(img_ids))
    wanted = source_files(data_path, img_ids).assign(decoder=decoder_stamp(max_pixels))
    if not cache:
        facts = list(_facts(data_path, wanted.assign(old=-1), side, num_workers, max_pixels))
        index = pd.concat([wanted, pd.DataFrame(facts, columns=FACTS)], axis=1)
        return PicturesAsTheyAre(index, img_ids, data_path, side, num_workers, max_pixels)
    folder = processed_folder(data_path)
    index_path, pixels_path = folder / f"pictures_{side}.csv", folder / f"pictures_{side}.npy"
    found = _read_cache(index_path, pixels_path)
    if found is None or not _serves(found[0], wanted):
        with in_turn(folder / f"pictures_{side}.lock"):  # another run, or another rank of this one, may be at it
            found = _read_cache(index_path, pixels_path)
            if found is None or not _serves(found[0], wanted):
                _decode_all(data_path, wanted, found, side, num_workers, max_pixels, index_path, pixels_path)
                found = _read_cache(index_path, pixels_path)
    return Pictures(found[1], found[0], img_ids)


def report_faults(pictures: Pictures, data_path: str | Path, left_out: str | Path | None = None) -> None:
    """Print the pictures left out and why, one per line (the first ten), and their number; list all in `left_out`."""
    for img_id, fault in pictures.faults.head(10).itertuples(index=False):
        print(f"  left out: {picture_path(data_path, img_id)}: {fault}")
    if len(pictures.faults):
        print(f"  {len(pictures.faults)} of {len(pictures.faults) + len(pictures)} pictures left out", flush=True)
    for note, count in pictures.notes["note"].value_counts().items():
        print(f"  used: {count} pictures {note}", flush=True)
    with LeftOut(left_out) as listed:
        for img_id, fault in pictures.faults.itertuples(index=False):
            listed(str(picture_path(data_path, img_id)), fault)


def processed_folder(data_path: Path) -> Path:
    """processed/ of the data set or, if that is read-only, a folder of its own under outputs/."""
    folder = data_path / "processed"
    place = folder if folder.exists() else data_path
    if place.stat().st_mode & 0o222 and os.access(place, os.W_OK):
        return folder
    return (
        ROOT
        / "outputs"
        / "cache"
        / f"{data_path.resolve().name}-{hashlib.sha256(bytes(data_path.resolve())).hexdigest()[:8]}"
    )


def source_files(data_path: Path, img_ids: np.ndarray) -> pd.DataFrame:
    """img_id, bytes and mtime_ns (−1 where there is no such file) of each picture, to tell whether it has changed."""
    rows = []
    for img_id in img_ids:
        try:
            status = picture_path(data_path, img_id).stat()
            rows.append((img_id, status.st_size, status.st_mtime_ns))
        except OSError:
            rows.append((img_id, -1, -1))
    return pd.DataFrame(rows, columns=KEY[:3])


def _read_cache(index_path: Path, pixels_path: Path) -> Cache | None:
    """The index and the pixels that it is about, or None."""
    try:
        before = index_path.stat()
        index, pixels = pd.read_csv(index_path), np.load(pixels_path, mmap_mode="r")
        after = index_path.stat()
    except (OSError, ValueError, EOFError):  # not made yet, or cut short
        return None
    if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):  # another run has just replaced them
        return None
    return (index, pixels) if {*KEY, *FACTS} <= {*index} and len(index) == len(pixels) else None


def _serves(index: pd.DataFrame, wanted: pd.DataFrame) -> bool:
    return len(wanted.merge(index[KEY], on=KEY)) == len(wanted)


@functools.cache
def decoder_stamp(max_pixels: int) -> str:
    """What pixels and faults depend on besides the picture, as a hash: the decoder's code, its libraries, its limit."""
    digest = hashlib.sha256(f"{_version('pillow')} {_version('pillow-heif')} {max_pixels}".encode())
    for code in (containers, decoder, to_square):
        digest.update(inspect.getsource(code).encode())
    return "d" + digest.hexdigest()[:12]  # a letter first, lest it is read as a number


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _decode_all(
    data_path: Path,
    wanted: pd.DataFrame,
    old: Cache | None,
    side: int,
    num_workers: int,
    max_pixels: int,
    index_path: Path,
    pixels_path: Path,
) -> None:
    """Write the two files; what an `old` cache holds and has not changed is copied, and kept for other runs.

    Both grow as hidden .part files, one row per picture: a killed build resumes after the last complete row.
    """
    rows = wanted.assign(old=-1)
    if old:
        place = old[0][KEY].assign(old=np.arange(len(old[0])))
        others = place[~place["img_id"].isin(wanted["img_id"])]
        rows = pd.concat([wanted.merge(place, "left", on=KEY).fillna({"old": -1}), others], ignore_index=True)
    rows = rows.astype(dict.fromkeys(["img_id", "bytes", "mtime_ns", "old"], np.int64))
    part, journal = (path.with_name(f".{path.name}.part") for path in (pixels_path, index_path))
    shape = (len(rows), 3, side, side)
    start = _rows_done(journal, part, rows, shape)
    if start:
        print(f"resuming: {start} of {len(rows)} pictures are decoded", flush=True)
    elif (need := int(np.prod(shape))) > (free := shutil.disk_usage(part.parent).free):
        raise UserError(f"{part.parent}: {need:,} bytes for decoded pictures, {free:,} are free; see --cache off")
    else:
        journal.write_text(",".join(KEY + FACTS) + "\n")
    pixels = np.lib.format.open_memmap(part, "r+" if start else "w+", np.uint8, shape)
    with open(journal, "a", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        facts = _facts(data_path, rows[start:], side, num_workers, max_pixels, pixels[start:], old)
        for key, fact in zip(rows[KEY].iloc[start:].itertuples(index=False), facts, strict=True):
            write([*key, *fact])
            file.flush()
    pixels.flush()
    index_path.unlink(missing_ok=True)  # no index, no cache: nobody reads it beside the wrong pixels
    os.replace(part, pixels_path)  # a run that reads the old file goes on reading it
    os.replace(journal, index_path)


def _facts(
    data_path: Path,
    rows: pd.DataFrame,
    side: int,
    num_workers: int,
    max_pixels: int,
    pixels: np.ndarray | None = None,
    old: Cache | None = None,
) -> Iterator[tuple]:
    """FACTS of each row; its `pixels` are written, from the picture or from where it lies in the `old` cache."""
    if old:
        old_facts = old[0][FACTS].astype(object).fillna("").to_numpy()
    pictures = decoded(of_data_set(data_path, rows["img_id"][rows["old"] < 0]), side, num_workers, max_pixels)
    for row, place in enumerate(tqdm(rows["old"], "decoding pictures", disable=None)):
        if place >= 0:
            pixels[row] = old[1][place]
            yield tuple(old_facts[place])
            continue
        picture = next(pictures)
        if pixels is not None and picture.pixels is not None:
            pixels[row] = picture.pixels
        yield *picture.size, " ".join(picture.fault.split()) or None, picture.note or None


def _rows_done(journal: Path, part: Path, rows: pd.DataFrame, shape: tuple[int, ...]) -> int:
    """How many rows of a killed build are whole and of these pictures; a torn last line is cut off."""
    try:
        lines = journal.read_bytes()
        lines = lines[: lines.rfind(b"\n") + 1]
        done = pd.read_csv(io.BytesIO(lines))
        fits = np.load(part, mmap_mode="r").shape == shape
        fits &= bool((done[KEY].to_numpy() == rows[KEY].iloc[: len(done)].to_numpy()).all())
        os.truncate(journal, len(lines))
    except (OSError, ValueError, KeyError):  # there is none
        return 0
    return len(done) if fits else 0

"""The small grey version and the hashes of each picture of a data set, cached on disk.

They are stored in blocks, each written atomically: a killed run resumes after the last block. A picture is identified
by its img_id, size in bytes and modification time; one that has changed is read again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from copies.hashing import ACROSS, DOWN, N_HASHES, SIDE, WINDOWS, hash_windows
from decoding.decoder import MAX_PIXELS, UnusablePicture, note
from locks import in_turn
from pictures.cache import decoder_stamp, source_files
from pictures.sources import Source, of_data_set, read
from utils import written_whole

BLOCK = 1024  # pictures that are written at a time
CHUNK = 32  # of which a thread decodes and hashes so many
LARGEST_SIDE = 768  # pixels: a larger picture is compared at this size

KEY = ["img_id", "bytes", "mtime_ns"]  # the same for a picture that has not changed
RECORD = np.dtype(
    [*((name, "<i8") for name in KEY), ("width", "<i4"), ("height", "<i4"), ("fault", "S160"), ("note", "S80")]
    + [("hashes", "<u8", (N_HASHES,)), ("pixels", "u1", (SIDE, SIDE))]
)
_HASHING = hashlib.sha256(WINDOWS.tobytes() + DOWN.tobytes() + ACROSS.tobytes() + str(RECORD).encode()).hexdigest()


class Small:
    """The stored data of the n usable pictures, sorted by img_id.

    `img_ids` (n,); `sizes` (n, 2) width and height in pixels; `hashes` uint64 (n, N_HASHES); `pixels(rows)` the small
    pictures uint8 (len(rows), SIDE, SIDE); `keys` (n, 3) KEY. Tables: `faults` (img_id, fault) of those that cannot be
    used, `notes` (img_id, note) of those that can though something is amiss.
    """

    def __init__(self, blocks: list[np.ndarray], wanted: pd.DataFrame) -> None:
        facts = _known(blocks, wanted)
        usable = facts["fault"] == ""
        self.faults = facts.loc[~usable, ["img_id", "fault"]].reset_index(drop=True)
        facts = facts[usable]
        self.notes = facts.loc[facts["note"] != "", ["img_id", "note"]].reset_index(drop=True)
        self.img_ids, self.sizes = facts["img_id"].to_numpy(), facts[["width", "height"]].to_numpy()
        self.keys = facts[KEY].to_numpy()
        self._blocks, self._block, self._row = blocks, facts["block"].to_numpy(), facts["row"].to_numpy()
        self.hashes = self._gather("hashes", np.arange(len(facts)), np.empty((len(facts), N_HASHES), np.uint64))

    def __len__(self) -> int:
        return len(self.img_ids)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        return self._gather("pixels", rows, np.empty((len(rows), SIDE, SIDE), np.uint8))

    def _gather(self, field: str, rows: np.ndarray, into: np.ndarray) -> np.ndarray:
        for block in np.unique(self._block[rows]):
            there = self._block[rows] == block
            into[there] = self._blocks[block][field][self._row[rows][there]]
        return into


def load_small(
    data_path: Path, img_ids: np.ndarray, cache: Path, num_workers: int = 1, max_pixels: int = MAX_PIXELS
) -> Small:
    """The stored data of a data set's pictures, from the folder `cache`, which is filled if necessary."""
    wanted = source_files(data_path, img_ids)
    version = hashlib.sha256(f"{_HASHING} {decoder_stamp(max_pixels)}".encode()).hexdigest()[:8]
    with in_turn(cache / "hashes.lock"):  # another run may be at it
        blocks, paths = _read_blocks(cache, version)
        known = _known(blocks, wanted)
        for unused in set(range(len(paths))) - set(known["block"]):  # its pictures have changed or gone
            paths[unused].unlink(missing_ok=True)
        left = wanted[~wanted["img_id"].isin(known["img_id"])]
        if done := len(wanted) - len(left):
            print(f"{done} of {len(wanted)} pictures are hashed", flush=True)
        hashed = functools.partial(_hashed, data_path, max_pixels)
        with ThreadPoolExecutor(num_workers) as pool, tqdm(None, "hashing pictures", len(left), disable=None) as bar:
            for start in range(0, len(left), BLOCK):
                part = left.iloc[start : start + BLOCK]
                block = []
                for records in pool.map(hashed, [part.iloc[at : at + CHUNK] for at in range(0, len(part), CHUNK)]):
                    block.append(records)
                    bar.update(len(records))
                path = cache / f"hashes_{version}_{time.time_ns()}_{os.getpid()}.npy"
                blocks.append(_write_block(path, np.concatenate(block)))
    return Small(blocks, wanted)


def grey(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture for comparison: grey, at most LARGEST_SIDE pixels a side. Raises UnusablePicture."""
    picture = read(source, max_pixels).convert("L")
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return picture


def _hashed(data_path: Path, max_pixels: int, part: pd.DataFrame) -> np.ndarray:
    """RECORDs of the pictures with these keys."""
    records = np.zeros(len(part), RECORD)
    for name in KEY:
        records[name] = part[name]
    for record, source in zip(records, of_data_set(data_path, part["img_id"]), strict=True):
        try:
            picture = read(source, max_pixels)
        except UnusablePicture as fault:
            record["fault"] = " ".join(str(fault).split()).encode()
            continue
        record["width"], record["height"] = picture.size
        record["note"] = note(picture).encode()
        record["pixels"] = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    records["hashes"] = hash_windows(records["pixels"])
    return records


def _known(blocks: list[np.ndarray], wanted: pd.DataFrame) -> pd.DataFrame:
    """Of each wanted picture that a block holds: KEY, width, height, fault, note, and where it is, block and row."""
    names = {**dict.fromkeys([*KEY, "width", "height"], int), "fault": str, "note": str, "block": int, "row": int}
    parts = [pd.DataFrame(columns=list(names)).astype(names)]
    for number, block in enumerate(blocks):
        facts = pd.DataFrame({name: block[name] for name in (*KEY, "width", "height")})
        for name in ("fault", "note"):
            facts[name] = [each.decode(errors="ignore") for each in block[name]]
        parts.append(facts.assign(block=number, row=np.arange(len(block))))
    everything = pd.concat(parts[bool(blocks) :], ignore_index=True)
    return wanted.merge(everything.drop_duplicates(KEY, keep="last"), on=KEY).sort_values("img_id")


def _read_blocks(cache: Path, version: str) -> tuple[list[np.ndarray], list[Path]]:
    """The blocks written with the current hashes, and their files; other blocks are deleted."""
    blocks, paths = [], []
    for path in sorted(cache.glob("hashes_*.npy")):
        try:
            block = np.load(path, mmap_mode="r") if path.name.startswith(f"hashes_{version}_") else None
        except (OSError, ValueError, EOFError):  # not whole: a disk's fault, for it was written whole
            block = None
        if block is not None and block.dtype == RECORD:
            blocks.append(block)
            paths.append(path)
        else:
            path.unlink(missing_ok=True)
    return blocks, paths


def _write_block(path: Path, block: np.ndarray) -> np.ndarray:
    with written_whole(path) as beside, open(beside, "wb") as file:
        np.save(file, block)
    return np.load(path, mmap_mode="r")

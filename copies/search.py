"""Find the verified pairs of copies among many pictures: candidates by hashes or features, each of them compared.

Results are cached block by block: a killed run resumes after the last block, and a run on the same pictures compares
nothing again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from copies import alignment, comparison, hashing, verification
from decoding.decoder import UnusablePicture
from utils import sha256, write_csv

BATCH = 64  # pairs that are aligned at a time
BLOCK = 256 * BATCH  # pairs after which is written what was found
NEIGHBOURS = 5  # of a picture by its features, that are compared with it
TYPES = {"first": int, "second": int, "kind": str, "distance": float}

Picture = Callable[[int], Image.Image]
Pixels = Callable[[np.ndarray], np.ndarray]


def find_pairs(
    hashes: np.ndarray,
    pixels: Pixels,
    picture: Picture,
    num_workers: int = 1,
    features: np.ndarray | None = None,
    keep: Path | None = None,
) -> pd.DataFrame:
    """The verified pairs among n pictures: first, second (places, first < second), kind, distance; variants too.

    `hashes` (n, N_HASHES) and `pixels(places)` as copies/store.py keeps them; `picture(place)` opens a picture to
    compare it, grey. With `features` (n, d) neighbours by these are compared as well, which some hashes miss. `keep`:
    a folder for what has been looked at, of these very pictures (`kept_folder`).
    """
    # Of what is there a thousand times (a host's `removed` picture) one stands for all, or pairs would be millions.
    again = _equal_hashes(hashes)
    equal = verify(again, hashes, pixels, picture, num_workers, keep and keep / "equal")
    left = np.ones(len(hashes), bool)
    left[equal.loc[(equal["kind"] == "same") & (equal["distance"] < 0.2), "second"]] = False
    left = np.flatnonzero(left)
    pairs = hashing.candidates(hashes[left])
    if features is not None:
        pairs = hashing.nearest([pairs, _neighbours(features[left])])
    pairs = pairs._replace(first=left[pairs.first], second=left[pairs.second])
    near = verify(pairs, hashes, pixels, picture, num_workers, keep and keep / "near")
    table = pd.concat([equal, near], ignore_index=True)
    # A pair may be found both as it is and mirrored: a copy counts before a variant, then the smaller distance.
    table = table.assign(variant=table["kind"] == "variant").sort_values(["first", "second", "variant", "distance"])
    return table.drop_duplicates(["first", "second"], ignore_index=True)[list(TYPES)]


def kept_folder(cache: Path, keys: np.ndarray, features: np.ndarray | None) -> Path:
    """The folder with the results for pictures identified by `keys`; results for other pictures are deleted."""
    digest = hashlib.sha256(np.ascontiguousarray(keys))
    digest.update(b"" if features is None else np.ascontiguousarray(features))
    digest.update("".join(sha256(part.__file__) for part in (alignment, comparison, hashing, verification)).encode())
    folder = cache / f"pairs_{digest.hexdigest()[:16]}"
    for other in cache.glob("pairs_*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def verify(
    pairs: hashing.Pairs,
    hashes: np.ndarray,
    pixels: Pixels,
    picture: Picture,
    num_workers: int = 1,
    keep: Path | None = None,
) -> pd.DataFrame:
    """Compare candidates: first, second, kind and distance of the pairs that are related."""

    def look(part: hashing.Pairs) -> list[tuple[int, int, str, float]]:
        small = [torch.from_numpy(pixels(places)).float() for places in (part.first, part.second)]
        guesses = torch.from_numpy(hashing.place(hashes, part))
        left, *regions = verification.settle(*small, guesses, torch.from_numpy(part.mirrored))
        rows = []
        for k, region_one, region_other in zip(left.tolist(), *regions, strict=True):
            one, other = int(part.first[k]), int(part.second[k])
            try:
                verdict = verification.inspect(picture(one), picture(other), region_one, region_other)
            except UnusablePicture:  # gone since it was hashed
                continue
            if verdict.kind:
                rows.append((one, other, *verdict))
        return rows

    n, tables = len(pairs.first), [pd.DataFrame(columns=list(TYPES)).astype(TYPES)]
    with ThreadPoolExecutor(num_workers) as pool, tqdm(None, "comparing pairs", n, disable=None) as bar:
        for start in range(0, n, BLOCK):
            path, stop = keep and keep / f"{start:012}.csv", min(start + BLOCK, n)
            if path and path.exists():
                tables.append(pd.read_csv(path, dtype=TYPES))
                bar.update(stop - start)
                continue
            rows: list[tuple[int, int, str, float]] = []
            batches = [pairs.part(slice(at, min(at + BATCH, stop))) for at in range(start, stop, BATCH)]
            for batch, found in zip(batches, pool.map(look, batches), strict=True):
                rows += found
                bar.update(len(batch.first))
            tables.append(pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES))
            if path:
                write_csv(path, tables[-1])
    return pd.concat(tables, ignore_index=True)


def _equal_hashes(hashes: np.ndarray) -> hashing.Pairs:
    """Pairs with equal hashes of the whole picture: the first picture with that hash, and each other one."""
    _, first, which = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
    second = np.flatnonzero(first[which] != np.arange(len(hashes)))
    return hashing.Pairs(first[which][second], second, np.zeros(len(second), bool), np.zeros(len(second), np.uint8))


def _neighbours(features: np.ndarray) -> hashing.Pairs:
    """Pairs of rows (n, d) of which one is among the NEIGHBOURS nearest to the other, by the angle about the mean; each
    as it is and mirrored."""
    rows = torch.nn.functional.normalize(torch.from_numpy(features - features.mean(axis=0)).float())
    k, at_once = min(NEIGHBOURS + 1, len(rows)), max(1, 2**27 // len(rows))
    near = torch.cat(
        [(rows[at : at + at_once] @ rows.T).topk(k).indices for at in range(0, len(rows), at_once)]
    ).numpy()
    one, other = np.repeat(np.arange(len(near)), k), near.ravel()
    keys = np.unique((np.minimum(one, other) * len(near) + np.maximum(one, other))[one != other])
    first, second, mirrored = (
        np.tile(keys // len(near), 2),
        np.tile(keys % len(near), 2),
        np.repeat([False, True], len(keys)),
    )
    return hashing.Pairs(first, second, mirrored, np.full(len(first), 64, np.uint8))

"""Pairs of pictures that may be copies: perceptual hashes of many windows of each, and a search that is not quadratic.

The hash is pHash (Zauner 2010, *Implementation and Benchmarking of Perceptual Image Hash Functions*; ImageHash's
`phash`): the signs of 64 low frequencies of the picture's cosine transform. It bears another encoding and another size,
but not a crop or a caption of a tenth. So each picture is hashed through 107 windows, one of which undoes the crop or
leaves the caption out, and through 16 that lie between their steps: some window of the one is some window of the other
to within 1.25 % of the side. All windows of a picture are two matrix products: the 123 hashes take about as long as one
by the library (0.3 ms). To mirror a picture negates its odd horizontal frequencies: the mirror's hash is an XOR.

The search is that of Manku, Jain, Das Sarma 2007, *Detecting near-duplicates for web crawling*: of the 64 bits in five
blocks, two hashes that differ in at most three bits share at least two blocks, so ten tables, one for each two blocks,
find them all, and most of those that differ in up to six. A million pictures, 123 million hashes, are searched in 200
seconds on one core, in 3.8 GB.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch

SIDE = 64  # pixels: pictures are squeezed to SIDE×SIDE, grey
FREQUENCIES = 9  # along each side, from 0
MOST_BITS = 6  # of 64 that a candidate's hashes may differ in
LARGEST_BUCKET = 4000  # entries; what is found more often in a table (blank pages) is left to the other tables
CHUNK = 16_384  # pictures whose windows are looked up at a time
MOST_AT_ONCE = 10_000_000  # entries that are compared at a time

Window = tuple[float, float, float, float]  # x0, x1, y0, y1 as shares of width and height


def _windows() -> tuple[list[Window], list[Window]]:
    """The windows that search for copies, and the windows between their steps, which are searched for."""
    crops = itertools.product((0, 0.05, 0.1), repeat=4)
    looking = [(left, 1 - right, top, 1 - bottom) for left, right, top, bottom in crops]
    for share in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4):  # a caption above or below
        looking += [(0, 1, share, 1), (0, 1, 0, 1 - share)]
    for share in (0.15, 0.2, 0.25, 0.3):
        looking += [(share, 1, 0, 1), (0, 1 - share, 0, 1)]
    for share in (0.15, 0.2, 0.25):  # a wide picture between bars, or cut square
        looking += [(0, 1, share, 1 - share), (share, 1 - share, 0, 1)]
    between = itertools.product((0, 0.025), repeat=4)
    return looking, [(left, 1 - right, top, 1 - bottom) for left, right, top, bottom in between]


LOOKING, BETWEEN = _windows()
WINDOWS = np.array(LOOKING + BETWEEN, np.float32)  # (123, 4), as the hashes are ordered
N_HASHES = len(WINDOWS)

# The 64 lowest of 9×9 frequencies without the mean, squares first. A fixed shuffle spreads them over the blocks.
_ORDER = sorted(itertools.product(range(FREQUENCIES), repeat=2), key=lambda each: (max(each), sum(each), each))[1:65]
_ORDER = [_ORDER[place] for place in np.random.default_rng(1).permutation(64)]
DOWN, ACROSS = np.array(_ORDER).T
MIRROR = np.packbits(ACROSS % 2 == 1, bitorder="little").view(np.uint64)[0]
_BLOCKS = [(0, 13), (13, 13), (26, 13), (39, 13), (52, 12)]  # first bit, bits


def _cosines(low: float, high: float) -> np.ndarray:
    """(FREQUENCIES, SIDE): cosines over low..high of the side, integrated over each pixel; 0 outside."""
    edges = (np.clip(np.arange(SIDE + 1) / SIDE, low, high) - low) / (high - low)
    k = np.arange(1, FREQUENCIES)[:, None]
    return np.vstack([np.diff(edges), np.diff(np.sin(np.pi * k * edges)) / (np.pi * k)])


def _side_by_side(spans: list[tuple[float, float]]) -> tuple[torch.Tensor, np.ndarray]:
    """The cosines of different spans of a side, stacked, and the row in which each span begins."""
    different = sorted(set(spans))
    rows = np.array([different.index(span) for span in spans]) * FREQUENCIES
    return torch.from_numpy(np.concatenate([_cosines(*span) for span in different])).float(), rows


_COS_ACROSS, _AT_ACROSS = _side_by_side([window[:2] for window in LOOKING + BETWEEN])
_COS_DOWN, _AT_DOWN = _side_by_side([window[2:] for window in LOOKING + BETWEEN])


def hash_windows(pixels: np.ndarray) -> np.ndarray:
    """Hashes uint64 (n, N_HASHES) of squeezed grey pictures uint8 (n, SIDE, SIDE), a hash for each of WINDOWS."""
    hashes = np.empty((len(pixels), N_HASHES), np.uint64)
    rows, columns = _AT_DOWN[:, None] + DOWN, _AT_ACROSS[:, None] + ACROSS
    for start in range(0, len(pixels), 256):
        part = torch.from_numpy(pixels[start : start + 256].astype(np.float32))
        spectrum = (_COS_DOWN @ part @ _COS_ACROSS.T).numpy()
        signs = spectrum[:, rows, columns] > 0
        hashes[start : start + 256] = np.packbits(signs, axis=-1, bitorder="little").view(np.uint64)[..., 0]
    return hashes


class Pairs(NamedTuple):
    """Pairs of pictures: lower and higher place in the list of hashes, whether the second is `mirrored`, and the
    smallest number of the 64 `bits` in which two of their windows differ."""

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray
    bits: np.ndarray

    def part(self, chosen: np.ndarray | slice) -> Pairs:
        return Pairs(*(each[chosen] for each in self))


def nearest(parts: list[Pairs]) -> Pairs:
    """Each pair once, mirrored or not, with its smallest number of differing bits."""
    empty = Pairs(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.uint8)))
    joined = Pairs(*(np.concatenate(each) for each in zip(empty, *parts, strict=True)))
    joined = joined.part(np.lexsort((joined.bits, joined.mirrored, joined.second, joined.first)))
    new = np.ones(len(joined.first), bool)
    new[1:] = np.any([each[1:] != each[:-1] for each in joined[:3]], axis=0)
    return joined.part(new)


def _ordered(one: np.ndarray, other: np.ndarray, mirrored: np.ndarray, bits: np.ndarray) -> Pairs:
    return Pairs(np.minimum(one, other), np.maximum(one, other), mirrored, bits.astype(np.uint8))


def candidates(hashes: np.ndarray) -> Pairs:
    """Pairs among n pictures, from their hashes uint64 (n, N_HASHES), of which two windows differ in few bits.

    Time grows about as n, and with the number of copies; memory by 600 bytes a picture beyond the hashes themselves.
    """
    found: list[Pairs] = []
    looked_for = hashes[:, len(LOOKING) :]
    entries = np.concatenate([looked_for, looked_for ^ MIRROR], axis=1).ravel()
    for blocks in itertools.combinations(_BLOCKS, 2):
        table = _Table(entries, blocks)
        found = [nearest(found + [_look_up(hashes, at, entries, table) for at in range(0, len(hashes), CHUNK)])]
    return found[0]


class _Table:
    """Group the entries (hashes) by key: `order[start[k]:start[k + 1]]` are those of key k."""

    def __init__(self, entries: np.ndarray, blocks: tuple[tuple[int, int], ...]) -> None:
        self.blocks = blocks
        # Where there are few entries, several keys share a place; to compare the whole hashes tells them apart.
        self.places = min(26, max(8, len(entries).bit_length() + 1))
        keys = self.key(entries)
        self.order = np.argsort(keys).astype(np.uint32)
        self.start = np.zeros(2**self.places + 1, np.uint32)
        np.cumsum(np.bincount(keys, minlength=2**self.places), out=self.start[1:])

    def key(self, hashes: np.ndarray) -> np.ndarray:
        (first, n_first), (second, n_second) = self.blocks
        low = (hashes >> np.uint64(first)) & np.uint64(2**n_first - 1)
        high = (hashes >> np.uint64(second)) & np.uint64(2**n_second - 1)
        key = (low | high << np.uint64(n_first)).astype(np.uint32)
        # Multiplying spreads the bits upwards (Knuth's multiplicative hashing); the top ones are the place.
        return key * np.uint32(2_654_435_761) >> np.uint32(32 - self.places)


def _look_up(hashes: np.ndarray, start: int, entries: np.ndarray, table: _Table) -> Pairs:
    """One table of candidates for CHUNK pictures, from `start` on."""
    looking = hashes[start : start + CHUNK, : len(LOOKING)].ravel()
    key, per_picture = table.key(looking), 2 * len(BETWEEN)
    begin = table.start[key].astype(np.int64)
    count = table.start[key + np.uint32(1)] - begin
    count[count > LARGEST_BUCKET] = 0
    bounds = np.searchsorted(np.cumsum(count), np.arange(0, count.sum(), MOST_AT_ONCE))
    parts = []
    for low, high in itertools.pairwise([*bounds.tolist(), len(count)]):
        some = count[low:high]
        asked = np.repeat(np.arange(low, high), some)
        within = np.arange(len(asked)) - np.repeat(np.cumsum(some) - some, some)
        entry = table.order[np.repeat(begin[low:high], some) + within].astype(np.int64)
        one, other = start + asked // len(LOOKING), entry // per_picture
        bits = np.bitwise_count(looking[asked] ^ entries[entry])
        good = (bits <= MOST_BITS) & (one != other)
        parts.append(_ordered(one[good], other[good], (entry % per_picture >= len(BETWEEN))[good], bits[good]))
    return nearest(parts)


# --- where in the one the other is ------------------------------------------------------------------------------------
def _seen(looker_first: bool, mirrored: bool) -> np.ndarray:
    """(n, 4): for two windows each, the part x0, x1, y0, y1 of the first picture that the second shows if alike."""
    a, b = (np.array(each, np.float32) for each in zip(*itertools.product(LOOKING, BETWEEN), strict=True))
    if not looker_first:
        a, b = b, a
    if mirrored:
        b = np.stack([1 - b[:, 1], 1 - b[:, 0], b[:, 2], b[:, 3]], axis=1)
    low_a, low_b = a[:, [0, 0, 2, 2]], b[:, [0, 0, 2, 2]]
    scale = (a[:, [1, 1, 3, 3]] - low_a) / (b[:, [1, 1, 3, 3]] - low_b)
    return low_a + (np.array([0, 1, 0, 1], np.float32) - low_b) * scale


_SEEN = {mirrored: np.concatenate([_seen(True, mirrored), _seen(False, mirrored)]) for mirrored in (False, True)}


def place(hashes: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Float32 (2, n, 4): which part x0, x1, y0, y1 of the first picture the second shows, by two guesses.

    By the two windows that differ least (of equals, those nearest to the whole), and the mean over those that differ in
    no more than a bit more. Beyond 0..1 the second picture shows more. Of a mirrored pair it is the mirror image of the
    second that shows this part.
    """
    regions = np.empty((2, len(pairs.first), 4), np.float32)
    for start in range(0, len(pairs.first), 256):
        part = pairs.part(slice(start, start + 256))
        both = [hashes[part.first], hashes[part.second]]
        flip = np.where(part.mirrored, MIRROR, np.uint64(0))[:, None, None]
        bits = [
            np.bitwise_count(one[:, : len(LOOKING), None] ^ (other[:, None, len(LOOKING) :] ^ flip))
            for one, other in (both, both[::-1])
        ]
        bits = np.concatenate([each.reshape(len(flip), -1) for each in bits], axis=1)
        near = (bits <= bits.min(axis=1, keepdims=True) + 1).astype(np.float32)
        near /= near.sum(axis=1, keepdims=True)
        best = bits.argmin(axis=1)
        for mirrored in (False, True):
            there = np.flatnonzero(part.mirrored == mirrored)
            regions[0, start + there] = _SEEN[mirrored][best[there]]
            regions[1, start + there] = near[there] @ _SEEN[mirrored]
    return regions

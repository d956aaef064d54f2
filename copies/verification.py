"""Is one picture a copy of another? Align the two, and compare what they share, place by place.

Similar hashes mean that two pictures look alike at low resolution. So do one template with two captions, or two
beaches. `settle` aligns the small pictures that the hashes were made from, and drops pairs that differ; `inspect` opens
the files and compares them at a size at which captions are legible. There the structural part of SSIM (Wang et al.
2004, *Image Quality Assessment: From Error Visibility to Structural Similarity*) must be high *everywhere* in the part
they share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from copies.alignment import align, area, inset, sample, shared, step
from copies.comparison import NOISE, box, fine_correlation, match_levels, match_sharpness, structure

ALIKE = 0.5  # least structural similarity of a place that both pictures show
SPECK = 0.002  # of the shared area may differ: a scratch, less than a word
LEAST_SHARED = 0.5  # of each picture's area
STEPS = 4  # of the alignment, at most, at each size
BORDER = 0.985  # of a side: what reaches this far reaches the border
WHOLE = torch.tensor([0.0, 1.0, 0.0, 1.0])


class Verdict(NamedTuple):
    """How two pictures are related: one of KINDS, or '' if they are not.

    `distance`: 1 less the least structural similarity of a place that both show; 0.5 where one is drawn over the other.
    """

    kind: str
    distance: float


NOTHING = Verdict("", 1.0)


def settle(first: Tensor, second: Tensor, guesses: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Align n pairs of small pictures (n, side, side). Which of them (k,) to open the files for, and regions (k, 4).

    `guesses` (g, n, 4): what part of the first picture the second may show, `mirrored` (n,) or not.
    """
    a, b, alike = _best_guess(first, second, guesses, mirrored)
    identical = _identical(first, torch.where(mirrored[:, None, None], second.flip(2), second))
    left = (alike | identical).nonzero().flatten()
    if not len(left):
        return left, a[left], b[left]
    first, second, a, b, identical = (each[left] for each in (first, second, a, b, identical))
    a, b = align(first, second, a, b)
    a, b = torch.where(identical[:, None], WHOLE, a), torch.where(identical[:, None], _whole(mirrored[left]), b)
    x, y = sample(first, inset(a), 48), sample(second, inset(b), 48)
    y = match_levels(x, y)
    near = (fine_correlation(x, y) > 0.4) & (structure(x, y, 7).mean(dim=(1, 2)) > 0.5)
    near = (near | identical) & (torch.minimum(area(a), area(b)) > LEAST_SHARED)
    return left[near], a[near], b[near]


def _best_guess(first: Tensor, second: Tensor, guesses: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The regions (n, 4) of both by the guess by which they are most alike, and whether they are alike at all (n,)."""
    first, second = (F.avg_pool2d(each[:, None], 2)[:, 0] for each in (first, second))
    starts = [shared(guess, _whole(mirrored)) for guess in guesses]
    views = [(sample(first, a, 24), sample(second, b, 24)) for a, b in starts]
    alike = torch.stack([structure(a, b, 5).mean(dim=(1, 2)) for a, b in views])
    fine = torch.stack([fine_correlation(a, b) for a, b in views])
    best, rows = alike.argmax(dim=0), torch.arange(len(first))
    regions = (torch.stack(each)[best, rows] for each in zip(*starts, strict=True))
    return *regions, (alike > 0.45).any(dim=0) & (fine > 0.45).any(dim=0)


def _whole(mirrored: Tensor) -> Tensor:
    """The regions (n, 4) of whole pictures, `mirrored` (n,) or not."""
    return torch.where(mirrored[:, None], WHOLE[[1, 0, 2, 3]], WHOLE)


def _identical(first: Tensor, second: Tensor) -> Tensor:
    """(n,) whether they agree to within one grey level: then no detail is needed to recognise them."""
    return (first - second).abs().amax(dim=(1, 2)) < 2


def inspect(first: Image.Image, second: Image.Image, region_first: Tensor, region_second: Tensor) -> Verdict:
    """Compare two grey pictures, from aligned regions (4,), at up to 192 pixels a side.

    At two thirds of the smaller one's size: there the encoder's noise is gone and captions can still be read.
    """
    size = _size(first, second, region_first, region_second)
    a, b = region_first[None], region_second[None]
    identical = bool(_identical(_view(first, a[0], size), _view(second, b[0], size)))
    if not identical:
        a, b = _refine(first, second, a, b, size)
    if min(area(a), area(b)) < LEAST_SHARED:
        return NOTHING
    mirrored = bool(b[0, 0] > b[0, 1])
    x, y = _view(first, inset(a)[0], size), _view(second, inset(b)[0], size)
    y = match_levels(x, y)
    alike = structure(x, y, 9)
    if _least(alike) < ALIKE:
        x, y = match_sharpness(x, y)
        alike = structure(x, y, 9)
    everywhere, least = torch.ones_like(x, dtype=torch.bool), _least(alike)
    if least >= ALIKE and (identical or _agree(x, y, everywhere, 0.85, 0.08)):
        kind = "mirrored" if mirrored else _kind(first, second, a[0], b[0])
    elif _drawn_over(x, y):
        kind, least = "mirrored" if mirrored else "captioned", ALIKE
    elif least < ALIKE and float(alike.mean()) > 0.7 and _agree(x, y, everywhere, 0.6, 0.08):
        kind = "variant"
    else:
        return NOTHING
    return Verdict(kind, round(min(1 - least, 1), 3))


def _refine(
    first: Image.Image, second: Image.Image, a: Tensor, b: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Align regions (1, 4) at half of `size`, then at `size`."""
    for shrink in (2, 1):
        small, weight = (size[0] // shrink, size[1] // shrink), None
        for _ in range(STEPS):
            a, before = shared(a, b)
            if min(area(a), area(before)) < LEAST_SHARED:
                return a, before
            b, weight = step(_view(first, a[0], small), _view(second, before[0], small), before, weight)
            if float((b - before).abs().max()) * max(size) < 0.1:  # pixels
                break
    return shared(a, b)


def _least(alike: Tensor) -> float:
    """The lowest similarity, averaged over a SPECK rather than at a single place."""
    return float(alike.flatten().kthvalue(1 + int(SPECK * alike.numel())).values)


def _size(first: Image.Image, second: Image.Image, a: Tensor, b: Tensor) -> tuple[int, int]:
    """Width and height in pixels at which to compare."""
    width, height = ((float((r[k + 1] - r[k]).abs()) for r in (a, b)) for k in (0, 2))
    sizes = [(w * p.width, h * p.height) for w, h, p in zip(width, height, (first, second), strict=True)]
    side = min(max(min((w * h) ** 0.5 for w, h in sizes) * 0.7, 48), 192)
    ratio = min(max((sizes[0][0] / sizes[0][1]) ** 0.5, 0.4), 2.5)
    return round(side * ratio), round(side / ratio)


def _view(picture: Image.Image, region: Tensor, size: tuple[int, int]) -> Tensor:
    """A region of a picture as float (1, height, width), antialiased."""
    x0, x1, y0, y1 = region.tolist()
    box_ = (min(x0, x1) * picture.width, y0 * picture.height, max(x0, x1) * picture.width, y1 * picture.height)
    left, top, right, bottom = (max(0.0, each) for each in box_)
    pixels = picture.resize(
        size, Image.Resampling.BILINEAR, (left, top, min(right, picture.width), min(bottom, picture.height))
    )
    view = torch.from_numpy(np.array(pixels, np.float32))[None]
    return view.flip(2) if x0 > x1 else view


def _agree(first: Tensor, second: Tensor, where: Tensor, fine: float, detail: float) -> bool:
    """Whether two pictures (1, h, w) share enough detail to be the same: plain skies and empty pages all look alike.

    Their fine detail must correlate by `fine` over `where`, and a share `detail` of all places must have some in both.
    """
    energy = torch.minimum(*(box(each * each, 9) - box(each, 9) ** 2 for each in (first, second)))
    enough = float(((energy > NOISE) & where).float().mean()) > detail
    return enough and float(fine_correlation(first, second, where)) > fine


def _drawn_over(first: Tensor, second: Tensor) -> bool:
    """Whether one picture (1, h, w) is the other with something drawn over it, such as outlined white letters.

    Then all edges where the two differ are in the one; where both have letters of their own, each has some of them.
    """
    differ = (first - second).abs() > 25
    drawn, elsewhere = float(differ.float().mean()), ~_widen(differ, 15)
    if drawn == 0 or float(elsewhere.float().mean()) < 0.5 or not _agree(first, second, elsewhere, 0.93, 0.14):
        return False
    if structure(first, second, 9)[elsewhere].min() < 0.3:
        return False
    there = _widen(differ, 5).float()
    less, more = sorted((_edges(each) * there for each in (first, second)), key=lambda each: float(each.sum()))
    both = _edges(first - second) * there
    share = float(less.sum() / more.sum())
    if share > 0.7 or more.sum() < 0.94 * both.sum() or (drawn < 0.012 and share > 0.1):
        return False
    more, both = box(more, 13), box(both, 13)
    explained = (more / (both + 1))[both > 0.1 * both.max()]
    return float(explained.quantile(0.1)) > 0.78


def _widen(mask: Tensor, side: int) -> Tensor:
    return F.max_pool2d(mask[:, None].float(), side, 1, side // 2)[:, 0] > 0


def _edges(x: Tensor) -> Tensor:
    """Squared gradient of (1, h, w)."""
    x = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) ** 2 + (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) ** 2


def _kind(first: Image.Image, second: Image.Image, a: Tensor, b: Tensor) -> str:
    """same, cropped or captioned, by what lies outside the regions (4,) that the two share."""
    kind = "same"
    for picture, (x0, x1, y0, y1) in ((first, a.tolist()), (second, b.tolist())):
        width, height = picture.size
        top, bottom, rim = round(y0 * height), round(y1 * height), max(2, height // 50)
        above = (0, top), (top + 1, top + 1 + rim)  # the strip, and the rows beside it that belong to the picture
        below = (bottom, height), (bottom - 1 - rim, bottom - 1)
        for strip, beside in (above, below):
            rows = [picture.crop((0, low, width, high)) for low, high in (strip, beside)]
            if strip[1] - strip[0] > 0.04 * height and _is_caption(*rows):
                return "captioned"
        if min(abs(x1 - x0), y1 - y0) < BORDER:
            kind = "cropped"
    return kind


def _is_caption(strip: Image.Image, beside: Image.Image) -> bool:
    """Whether a full-width strip is a plain bar with text on it, unlike the rows `beside` it."""
    pixels = np.asarray(strip, np.int16)
    ground = int(np.bincount(pixels.ravel(), minlength=256).argmax())
    off = np.abs(pixels - ground)
    plain = np.sort((off <= 8).mean(axis=1))  # of the rows: there are some between and beside the lines of a text
    written = (off <= 8).mean() > 0.5 and 0.01 < (off > 40).mean() < 0.4 and plain[-max(1, len(plain) // 6)] > 0.85
    edge = (np.abs(np.asarray(beside, np.int16) - ground) > 12).mean() > 0.5
    return bool(written and (edge or min(ground, 255 - ground) < 6))

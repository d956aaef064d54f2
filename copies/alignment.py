"""Alignment of two pictures: regions of each that show the same, found to a tenth of a pixel.

Regions are (n, 4) x0, x1, y0, y1 as shares of width and height; in a mirrored picture x0 > x1. They are refined by
Gauss–Newton steps (Lucas & Kanade 1981, *An Iterative Image Registration Technique*), over shift and scale of each
side, gain and bias, with weights that fall where the two pictures differ: a caption does not pull.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

INSET = 0.026  # of a region's sides, left out of comparisons: borders smear


def shared(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The largest regions inside both pictures that match as `first` and `second` do."""
    first, second = first.clone(), second.clone()
    for side in (slice(0, 2), slice(2, 4)):
        a, b = first[:, side].clone(), second[:, side].clone()
        scale = (a[:, 1] - a[:, 0]) / (b[:, 1] - b[:, 0])
        ends = a[:, :1] + (torch.tensor([0.0, 1.0]) - b[:, :1]) * scale[:, None]  # the second picture's borders
        low = ends.amin(dim=1).clamp(min=0)
        high = ends.amax(dim=1).clamp(max=1)
        first[:, side] = torch.stack([low, high], dim=1)
        second[:, side] = b[:, :1] + (first[:, side] - a[:, :1]) / scale[:, None]
    return first, second


def area(regions: Tensor) -> Tensor:
    """(n,) share of the picture."""
    return ((regions[:, 1] - regions[:, 0]) * (regions[:, 3] - regions[:, 2])).abs()


def inset(regions: Tensor) -> Tensor:
    """A little smaller, by INSET of each side."""
    span = (regions[:, [1, 1, 3, 3]] - regions[:, [0, 0, 2, 2]]) * INSET
    return regions + span * torch.tensor([1.0, -1.0, 1.0, -1.0])


def sample(pictures: Tensor, regions: Tensor, side: int) -> Tensor:
    """Regions of pictures (n, s, s) as (n, side, side), bilinear; what lies outside is the border again."""
    low, high = regions[:, [0, 2]], regions[:, [1, 3]]
    theta = torch.cat([torch.diag_embed(high - low), (low + high - 1)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [len(pictures), 1, side, side], align_corners=False)
    return F.grid_sample(pictures[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def step(first: Tensor, second: Tensor, region: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """One Gauss–Newton step: which region would make `second` (n, h, w) look as `first` does, up to gain and bias.

    Weights (Cauchy's) fall where the two differ by more than the mean difference. Returns the region and the weights.
    """
    n, height, width = first.shape
    x = ((torch.arange(width) * 2 + 1) / width - 1).expand(height, width).flatten()
    y = ((torch.arange(height) * 2 + 1) / height - 1)[:, None].expand(height, width).flatten()
    along_y, along_x = torch.gradient(second, spacing=(2 / height, 2 / width), dim=(1, 2))
    along_x, along_y = along_x.flatten(1), along_y.flatten(1)
    target, values = first.flatten(1), second.flatten(1)
    jacobian = torch.stack([along_x, x * along_x, along_y, y * along_y, values, torch.ones_like(values)], dim=1)
    weighted = jacobian if weight is None else jacobian * weight[:, None]
    normal = weighted @ jacobian.transpose(1, 2)
    normal = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * 1e-4 + 1e-3)
    found = torch.linalg.solve(normal, weighted @ target[:, :, None])
    left = target - (found.transpose(1, 2) @ jacobian)[:, 0]
    weight = 1 / (1 + (left / (left.abs().mean(dim=1, keepdim=True) + 1)) ** 2)
    moved = (found[:, :4, 0] / found[:, 4].abs().clamp(min=0.2)).clamp(-0.1, 0.1)
    centre = torch.stack([region[:, 0] + region[:, 1], region[:, 2] + region[:, 3]], dim=1) / 2
    half = torch.stack([region[:, 1] - region[:, 0], region[:, 3] - region[:, 2]], dim=1) / 2
    centre, half = centre + moved[:, [0, 2]] * half, half * (1 + moved[:, [1, 3]])
    return torch.stack([centre - half, centre + half], dim=2).flatten(1), weight


def align(first: Tensor, second: Tensor, region_first: Tensor, region_second: Tensor) -> tuple[Tensor, Tensor]:
    """Regions (n, 4) of both that show the same, from regions that do so roughly. Pictures float (n, side, side)."""
    for shrink, side, steps in ((2, 32, 4), (1, 48, 2)):
        small = [F.avg_pool2d(each[:, None], shrink)[:, 0] if shrink > 1 else each for each in (first, second)]
        target, weight = sample(small[0], region_first, side), None
        for _ in range(steps):
            region_second, weight = step(target, sample(small[1], region_second, side), region_second, weight)
        region_first, region_second = shared(region_first, region_second)
    return region_first, region_second

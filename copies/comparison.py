"""Local similarity of two aligned pictures. Pictures are float (n, height, width), in grey levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NOISE = 60.0  # grey levels squared: structure below it is the encoder's


def box(x: Tensor, side: int) -> Tensor:
    """Means over side×side of (n, h, w), side odd. By running sums: torch's pooling takes five times as long."""
    before, after = side // 2 + 1, side // 2
    x = F.pad(x[:, None], (before, after, before, after), mode="replicate")[:, 0].cumsum(dim=1)
    x = (x[:, side:] - x[:, :-side]).cumsum(dim=2)
    return (x[:, :, side:] - x[:, :, :-side]) / side**2


def match_levels(first: Tensor, second: Tensor) -> Tensor:
    """`second` with the gain and bias that bring it nearest to `first`, whatever was drawn over either."""
    weight = torch.ones_like(first)
    for _ in range(4):
        total = weight.sum(dim=(1, 2), keepdim=True)
        means = [(weight * each).sum(dim=(1, 2), keepdim=True) / total for each in (first, second)]
        a, b = first - means[0], second - means[1]
        gain = (weight * a * b).sum(dim=(1, 2), keepdim=True) / ((weight * b * b).sum(dim=(1, 2), keepdim=True) + 1e-3)
        matched = means[0] + gain.clamp(0.3, 3) * b
        left = first - matched
        weight = 1 / (1 + (left / (left.abs().mean(dim=(1, 2), keepdim=True) + 1)) ** 2)
    return matched


def structure(first: Tensor, second: Tensor, side: int) -> Tensor:
    """Structural similarity of (n, h, w) place by place, in windows of side×side: 1 the same, 0 unrelated."""
    mean_a, mean_b = box(first, side), box(second, side)
    var_a, var_b = box(first * first, side) - mean_a**2, box(second * second, side) - mean_b**2
    return (2 * (box(first * second, side) - mean_a * mean_b) + NOISE) / (var_a + var_b + NOISE)


def fine_correlation(first: Tensor, second: Tensor, where: Tensor | None = None) -> Tensor:
    """(n,) correlation of what is left of (n, h, w) without the broad light and shade, which many pictures share."""
    a, b = (each - box(each, 9) for each in (first, second))
    if where is not None:
        a, b = a * where, b * where
    return (a * b).sum(dim=(1, 2)) / ((a * a).sum(dim=(1, 2)) * (b * b).sum(dim=(1, 2)) + 1e-3).sqrt()


def match_sharpness(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Blur that one of two (1, h, w) that is sharper, if the other was once smaller: as much as brings them nearest."""
    nearest, matched = _difference(first, second), (first, second)
    for place in (0, 1):
        for sigma in (0.6, 0.9, 1.3, 1.8):
            tried = [first, second]
            tried[place] = _blur(tried[place], sigma)
            if (difference := _difference(*tried)) > 0.95 * nearest:
                break
            nearest, matched = difference, (tried[0], tried[1])
    return matched


def _difference(first: Tensor, second: Tensor) -> float:
    """Mean difference; what was drawn over one of them counts little."""
    return float((first - second).abs().clamp(max=10).mean())


def _blur(x: Tensor, sigma: float) -> Tensor:
    reach = torch.arange(-5.0, 6.0)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    x = F.pad(x[:, None], (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3))[:, 0]

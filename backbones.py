"""A network's last feature map: the part that makes it, whatever the network, and where in a picture its cells look."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils import UserError

HEADS = ("avgpool", "classifier", "fc", "head", "heads")  # what torchvision calls the parts behind the last map


class Geometry(NamedTuple):
    """Of a feature map (n, channels, h, w): how far apart its cells look, and where the first does, in pixels of the
    picture from its border."""

    channels: int
    stride: float
    first: float


class Cut(nn.Module):
    """What of a network must run before its first layer, as a layer: GoogLeNet's and Inception's own normalisation."""

    def __init__(self, transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, pictures: Tensor) -> Tensor:
        return self.transform(pictures)


def feature_map(model: nn.Module, name: str) -> nn.Module:
    """The part of a classification network that makes its last feature map (n, c, h, w), sharing its weights.

    It is what stands before the pooling and the head. Raises UserError, with the network's `name`, where there is none
    (ViT, whose tokens are no map).
    """
    parts = []
    for child_name, child in model.named_children():
        if child_name in HEADS:
            break
        parts.append(nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child)
    if getattr(model, "transform_input", False):
        parts.insert(0, Cut(model._transform_input))
    features = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    try:
        made = _on_meta(features)(torch.zeros(1, 3, 224, 224, device="meta"))
        fits = isinstance(made, Tensor) and made.dim() == 4
    except (RuntimeError, ValueError, TypeError, AssertionError):
        fits = False
    if not fits:
        raise UserError(f"{name} has no last feature map on which a ranker could look: choose another --model_name")
    return features


def geometry(features: nn.Module, side: int = 224) -> Geometry:
    """Measured by forward passes on torch's meta device, which computes nothing: a picture is made larger until the map
    has a cell more. Where it never has (networks of one size), the cells are taken to divide the picture evenly."""
    features = _on_meta(features)

    def cells(pixels: int) -> int:
        try:
            return features(torch.zeros(1, 3, pixels, pixels, device="meta")).shape[-1]
        except (RuntimeError, ValueError, AssertionError):
            return 0

    made = features(torch.zeros(1, 3, side, side, device="meta"))
    channels, n = made.shape[1], made.shape[-1]
    here, there = _smallest(cells, n, side // 2, side), _smallest(cells, n + 1, side, 2 * side)
    if cells(here) != n or cells(there) != n + 1:
        return Geometry(channels, side / n, side / n / 2)
    stride = there - here
    if any("PatchMerging" in type(module).__name__ for module in features.modules()):  # Swin fills up the last patch
        return Geometry(channels, float(stride), stride / 2)
    return Geometry(channels, float(stride), (here - stride * (n - 1)) / 2)


def _smallest(cells, n: int, low: int, high: int) -> int:
    """The smallest number of pixels in low … high with n cells at least (their number grows with the pixels)."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cells(middle) >= n else (middle + 1, high)
    return low


def _on_meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta").eval()

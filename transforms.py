"""Picture → tensor: decode and resize a picture; augment and normalise a whole batch on the device."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import distributed
from decoding.decoder import MAX_PIXELS, decode

# Statistics of ImageNet's training pictures, RGB in 0..1: what torchvision's weights were trained with. Networks
# trained from nothing use them too, so that a checkpoint's transform never depends on where its weights began.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MARGIN = 256 / 227  # pictures are kept a little larger than the crops taken from them (Krizhevsky et al. 2012)


def stored_side(image_size: int) -> int:
    """Side in pixels at which pictures are stored for crops of `image_size`: 256 for 227, as in Singh & Lee 2016.

    A multiple of 8, for whole pictures of that side are scored: of others, AlexNet's poolings lose a border. A logistic
    regression on its pretrained features classified 0.908 of the eight scenes at 253 pixels, and 0.925 at 224 and 256.
    """
    return 8 * round(image_size * MARGIN / 8)


def to_square(picture: Image.Image, side: int) -> np.ndarray:
    """Resize a whole picture to side×side, without keeping its aspect ratio; uint8, shape (3, side, side)."""
    if max(picture.size) >= 6 * side:  # Pillow is quicker with large ones, for it reduces them by whole numbers first
        picture = picture.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    # The same to a grey level, in half the time: torch has vector instructions for it.
    square = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return square[0].contiguous().numpy()


def load_square(file: str | Path | BinaryIO, side: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture file like `to_square`. Raises UnusablePicture like `decode`."""
    return to_square(decode(file, max_pixels), side)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the device; from pinned memory, copying and computing overlap."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def normalise(batch: Tensor) -> Tensor:
    """uint8 (n, 3, h, w), 0..255 → float32, normalised by ImageNet's statistics."""
    mean, std = _statistics(batch.device)
    batch = batch.float() if batch.dtype != torch.float32 else batch.clone()
    return batch.sub_(mean).div_(std)  # in place: to take new memory for every step costs several times the arithmetic


@functools.cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device once: to copy them anew for each batch would wait for it."""
    with torch.inference_mode(False):
        return tuple(torch.tensor(each, device=device).view(3, 1, 1) * 255 for each in (IMAGENET_MEAN, IMAGENET_STD))


def crop(batch: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """From each picture of (n, 3, s, s) the size×size crop at its own `top` and `left` (n,), in pixels."""
    places = zip(batch, top.tolist(), left.tolist(), strict=True)
    return torch.stack([picture[:, y : y + size, x : x + size] for picture, y, x in places])


def augment(batch: Tensor, size: int) -> Tensor:
    """A random crop of each picture, flipped at random, normalised: uint8 (n, 3, s, s) → float (n, 3, size, size)."""
    n, spare = distributed.whole(len(batch)), batch.shape[-1] - size + 1
    drawn = torch.randint(spare, (n,)), torch.randint(spare, (n,)), torch.rand(n) < 0.5
    top, left, flip = (distributed.own(each) for each in drawn)
    cropped, flip = crop(batch, top, left, size), to_device(flip, batch.device)
    return normalise(torch.where(flip[:, None, None, None], cropped.flip(3), cropped))


def augment_strongly(batch: Tensor, size: int) -> Tensor:
    """Random resized crops of a third to all of each picture, with strong distortion: for training from random weights.

    uint8 (n, 3, s, s) → float (n, 3, size, size), normalised.
    """
    return stretch_and_shade(batch, size, smallest=1 / 3, stretch=4 / 3, shade=0.4)


def augment_mildly(batch: Tensor, size: int) -> Tensor:
    """Random resized crops of three fifths to all of each picture, with mild distortion: for pretrained networks, which
    forget what they have learned when pictures are distorted more."""
    return stretch_and_shade(batch, size, smallest=0.6, stretch=1.16, shade=0.2)


def stretch_and_shade(batch: Tensor, size: int, smallest: float, stretch: float, shade: float) -> Tensor:
    """Random resized crops of each picture, flipped at random, with random brightness and contrast.

    They cover `smallest` to 1 of its area, at an aspect ratio of 1/`stretch` to `stretch`; brightness and the logarithm
    of contrast change by up to `shade`.
    """
    n, most = distributed.whole(len(batch)), math.log(stretch)
    area, ratio = torch.empty(n).uniform_(smallest, 1), torch.empty(n).uniform_(-most, most).exp()
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    centre = (2 * torch.rand(n, 2) - 1) * (1 - half)
    half[:, 0] *= (torch.rand(n) < 0.5) * 2 - 1  # a negative width mirrors
    window = to_device(distributed.own(torch.cat([torch.diag_embed(half), centre[:, :, None]], dim=2)), batch.device)
    grid = F.affine_grid(window, [len(batch), 3, size, size], align_corners=False)
    cropped = F.grid_sample(normalise(batch), grid, padding_mode="reflection", align_corners=False)
    drawn = (torch.empty(n, 1, 1, 1).uniform_(-shade, shade) for _ in range(2))
    contrast, light = (to_device(distributed.own(each), batch.device) for each in drawn)
    mean = cropped.mean(dim=(2, 3), keepdim=True)
    return cropped.sub_(mean).mul_(contrast.exp()).add_(mean + light)


def centre_crop(batch: Tensor, size: int) -> Tensor:
    """The size×size centre of each picture, normalised."""
    start = (batch.shape[-1] - size) // 2
    return normalise(batch[..., start : start + size, start : start + size])


def ten_crops(batch: Tensor, size: int) -> Tensor:
    """Corners and centre and their mirror images, normalised: uint8 (n, 3, s, s) → float (10, n, 3, size, size)."""
    spare = batch.shape[-1] - size
    places = [(0, 0), (0, spare), (spare, 0), (spare, spare), (spare // 2, spare // 2)]
    crops = [batch[..., top : top + size, left : left + size] for top, left in places]
    return torch.stack([normalise(view) for view in (*crops, *(each.flip(3) for each in crops))])


def whole(batch: Tensor) -> Tensor:
    """The whole of each stored picture, normalised."""
    return normalise(batch)


def describe(image_size: int) -> dict:
    """The transform stored in a checkpoint: resize to `side`, crop to `image_size`, normalisation."""
    side = stored_side(image_size)
    return {"image_size": image_size, "side": side, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}


# By the name of the training scripts' flag --augment: (kept pictures, size) → what the network sees in training.
AUGMENTATIONS = {
    "none": lambda batch, size: whole(batch),
    "crop": augment,
    "mild": augment_mildly,
    "strong": augment_strongly,
}

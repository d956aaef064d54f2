"""The crops and statistics that a network sees."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import transforms
from decoding.decoder import decode

GRADIENT = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 48, 3)))


def saved(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def test_a_single_pixel_is_a_picture():
    assert transforms.load_square(saved(Image.new("RGB", (1, 1), "red"), "PNG"), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (7, 5)])
def test_thin_and_tiny_pictures_are_squeezed_to_a_square(size):
    square = transforms.to_square(decode(saved(Image.new("RGB", size, (9, 90, 200)), "PNG")), 24)
    assert square.dtype == np.uint8 and (square == np.array([9, 90, 200])[:, None, None]).all()


def test_a_square_shows_the_whole_picture():
    square = transforms.to_square(GRADIENT, 32)
    assert square.shape == (3, 32, 32) and square[0, 0, 0] < 5 and square[0, -1, -1] > 245
    assert np.abs(square[0, :, 7] - np.linspace(2, 250, 32)).max() < 6


def test_normalisation_is_imagenets():
    grey = torch.full((1, 3, 2, 2), 128, dtype=torch.uint8)
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert transforms.normalise(grey)[0, :, 0, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_crops_are_crops_each_at_its_own_place():
    batch = torch.arange(2 * 3 * 9 * 9, dtype=torch.float32).view(2, 3, 9, 9)
    found = transforms.crop(batch, torch.tensor([0, 4]), torch.tensor([3, 1]), 5)
    assert torch.equal(found[0], batch[0, :, 0:5, 3:8]) and torch.equal(found[1], batch[1, :, 4:9, 1:6])


def test_augmentation_gives_crops_or_their_mirror_images():
    torch.manual_seed(0)
    batch = torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8)
    views = [transforms.normalise(batch[:, :, y : y + 5, x : x + 5]) for y in range(2) for x in range(2)]
    views = torch.stack([*views, *(view.flip(3) for view in views)])
    found = transforms.augment(batch, 5)
    same = (views - found).abs().flatten(2).amax(2) < 1e-6
    assert same.any(0).all()  # each is one of the eight
    assert same.any(1).sum() > 4  # and not always the same


def test_ten_crops_are_the_corners_and_the_centre_and_their_mirror_images():
    batch = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    crops = transforms.ten_crops(batch, 6)
    assert crops.shape == (10, 2, 3, 6, 6)
    for found, (top, left) in zip(crops[:5], [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)], strict=True):
        assert torch.equal(found, transforms.normalise(batch[:, :, top : top + 6, left : left + 6]))
    assert torch.equal(crops[5:], crops[:5].flip(4))
    assert torch.equal(transforms.centre_crop(batch, 6), crops[4])


def test_pictures_are_kept_a_little_larger_than_their_crops_and_the_checkpoint_says_so():
    assert transforms.stored_side(227) == transforms.stored_side(224) == 256
    said = transforms.describe(227)
    assert said["side"] == 256 and said["image_size"] == 227
    assert said["mean"] == pytest.approx([0.485, 0.456, 0.406]) and said["std"] == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize("size", [(500, 400), (40, 90), (1500, 200), (1201, 1803)])
def test_a_picture_is_squeezed_as_pillow_does(size):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    picture = coarse.resize(size, Image.Resampling.BICUBIC)
    found = transforms.to_square(picture, 64)
    assert found.shape == (3, 64, 64) and found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0)).transpose(2, 0, 1)
    assert np.abs(found.astype(int) - expected).max() <= 1

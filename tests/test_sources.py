"""Where pictures come from, and decoding them ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures.sources import CHUNK, Source, decoded


@pytest.fixture
def folder(tmp_path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "in/c.webp"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    (folder / "d.jpg").write_text("<html>gone</html>")
    return folder


# --- decoding ahead -------------------------------------------------------------------------------------------------
def test_pictures_come_in_order_with_a_reason_for_the_bad_ones(folder):
    paths = [str(folder / name) for name in ("d.jpg", "a.jpg", "nothing.jpg", "b.png")]
    found = list(decoded([Source(path, path) for path in paths], 32, num_workers=2, ahead=2))
    assert [each.source.path for each in found] == paths
    assert [each.fault for each in found] == ["not a picture", "", "no such file", ""]
    assert found[1].pixels.shape == (3, 32, 32) and found[1].size == (70, 50)


def test_decoding_stays_no_further_ahead_than_it_is_told(folder):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Source(str(folder / "a.jpg"), str(folder / "a.jpg"))

    pictures = decoded(endless(), 32, num_workers=2, ahead=24)
    for _ in range(100):
        next(pictures)
    assert taken <= 100 + 24 + 2 * CHUNK
    pictures.close()

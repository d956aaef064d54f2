"""Two thousand damaged pictures of every kind: minutes, run by hand with -m slow."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from mutations import mutated, originals
from PIL import Image

import utils
from decoding.decoder import UnusablePicture, check, decode
from pictures.sources import decoded, list_sources

SEED = 20_240
PICTURES = 2000
EACH = 100  # pictures that a process of its own decodes: it may die or hang
TURNS = [lambda picture: picture, *(lambda picture, turn=turn: picture.transpose(turn) for turn in Image.Transpose)]
LONGEST = 10  # seconds for a picture


def damaged(number: int, made: dict[str, bytes]) -> tuple[str, str, bytes]:
    """The kind, what was done, and the content of a damaged picture."""
    rng = random.Random(SEED + number)
    name = sorted(made)[number % len(made)]
    return name, *mutated(made[name], rng)


def judged(start: int, stop: int) -> None:
    """A line of JSON for each picture: its number, kind, what was done, what came of it, whether that is right."""
    made = originals()
    whole = {name: np.asarray(decode(io.BytesIO(content))) for name, content in made.items()}
    for number in range(start, stop):
        name, how, content = damaged(number, made)
        begin = time.perf_counter()
        try:
            picture, said = decode(io.BytesIO(content)), "ok"
        except UnusablePicture as reason:
            picture, said = None, f"refused: {reason}"
        try:
            check(io.BytesIO(content))
            agreed = picture is not None
        except UnusablePicture:
            agreed = picture is None
        # Of a cut picture, and of a PNG, which has checksums, all pixels are there or it is refused; its orientation,
        # which is metadata, may have gone.
        same = picture is None or any(np.array_equal(turned(picture), whole[name]) for turned in TURNS)
        right = agreed and (same or not (how == "cut" or (name.endswith("png") and how != "marked")))
        seconds = time.perf_counter() - begin
        print(json.dumps([number, name, how, said, right, seconds]), flush=True)


@pytest.mark.slow
def test_no_damaged_picture_ends_a_run_hangs_or_is_both_usable_and_not_whole():
    print(f"seed {SEED}")
    results = []
    for start in range(0, PICTURES, EACH):
        code = f"import sys; sys.path[:0] = ['tests', '.']; import {__name__} as f; f.judged({start}, {start + EACH})"
        command, timeout = [sys.executable, "-c", code], EACH * LONGEST
        done = subprocess.run(command, cwd=utils.ROOT, capture_output=True, text=True, timeout=timeout)
        results += map(json.loads, done.stdout.splitlines())
        assert done.returncode == 0, (results[-1:], done.returncode, done.stderr[-2000:])
    assert [each[0] for each in results] == list(range(PICTURES))
    print(Counter("ok" if each[3] == "ok" else "refused" for each in results), Counter(each[2] for each in results))
    assert [each for each in results if not each[4]] == []
    assert max(each[5] for each in results) < LONGEST
    assert 0.1 < sum(each[3] == "ok" for each in results) / PICTURES < 0.9


@pytest.mark.slow
def test_every_damaged_picture_is_accounted_for(tmp_path):
    made = originals()
    for number in range(PICTURES):
        name, _, content = damaged(number, made)
        suffix = random.Random(number).choice([".jpg", ".png", ".webp", "", ".tif", ".dat"])
        (tmp_path / f"{number:04}{suffix}").write_bytes(content)
    left_out = {}
    found = list(decoded(list_sources(tmp_path, left_out.__setitem__), 32, 2))
    assert len(found) + len(left_out) == PICTURES
    usable = sum(each.pixels is not None for each in found)
    print(f"{usable} usable, {len(found) - usable} refused, {len(left_out)} left out: {Counter(left_out.values())}")
    assert all(each.fault for each in found if each.pixels is None)

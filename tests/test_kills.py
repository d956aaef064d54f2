"""Kills (-9) at random moments while pictures are decoded or ranked: minutes, run by hand with -m slow."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import rank_images
import transforms
from pictures.cache import load_pictures
from siamese_net import SiameseNet
from utils import save_checkpoint

SEED = 7
KILLS = 30
# Its processes are forked from one that has imported everything and done nothing: they begin at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["rank_images"])


def build(data_path: Path) -> None:
    load_pictures(data_path, range(1, 241), 96, 2)


def rank(folder: Path, check_point: Path, output: Path) -> None:
    torch.set_num_threads(1)
    words = [folder, "--check_point", check_point, "--output", output, "--device", "cpu", "--no-amp"]
    sys.argv = ["rank_images.py", *map(str, words)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        rank_images.main()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def undisturbed_and_killed(work, arguments: tuple, folder: Path) -> None:
    """Run `work` whole, then with kills at random moments, again and again: what it leaves in `folder` is the same."""

    def started() -> multiprocessing.Process:
        process = PROCESSES.Process(target=work, args=arguments)
        process.start()
        return process

    for _ in range(2):  # the first waits for the imports
        shutil.rmtree(folder, ignore_errors=True)
        begin, process = time.perf_counter(), started()
        process.join()
        assert process.exitcode == 0
    seconds, expected = time.perf_counter() - begin, content(folder)
    print(f"seed {SEED}; undisturbed {seconds:.1f} s: {', '.join(expected)}")
    rng, kills, ends = random.Random(SEED), 0, 0
    shutil.rmtree(folder)
    while kills < KILLS or process.exitcode:
        process = started()
        if kills < KILLS:
            process.join(rng.uniform(0, seconds))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            assert content(folder) == expected, f"after {kills} kills"
            ends += 1
            shutil.rmtree(folder)
    print(f"{kills} kills, {ends} ends with the same bytes")
    assert ends


@pytest.mark.slow
def test_a_cache_that_is_killed_again_and_again_is_the_undisturbed_one(sample, tmp_path):
    shutil.copytree(sample, tmp_path / "data", ignore=shutil.ignore_patterns("processed"))
    images = tmp_path / "data" / "images"
    for number in range(61, 241):
        os.link(images / f"{(number - 1) % 60 + 1}.jpg", images / f"{number}.jpg")
    (images / "17.jpg").unlink()
    (images / "18.jpg").write_text("no picture")
    undisturbed_and_killed(build, (tmp_path / "data",), tmp_path / "data" / "processed")


@pytest.mark.slow
def test_a_ranking_that_is_killed_again_and_again_is_the_undisturbed_one(sample, tmp_path):
    torch.manual_seed(0)
    config = {"model_name": "alexnet", "model_type": 0, "weights": "none", "recipe": "modern", "image_size": 64}
    state = {"kind": "siamese", "config": config, "transform": transforms.describe(64)}
    save_checkpoint(tmp_path / "best.pt", state | {"model": SiameseNet(**config).state_dict()})
    (tmp_path / "many").mkdir()
    for number in range(700):
        os.link(sample / "images" / f"{number % 60 + 1}.jpg", tmp_path / "many" / f"{number:04}.jpg")
    (tmp_path / "many" / "bad.jpg").write_text("no picture")
    out = tmp_path / "out"
    undisturbed_and_killed(rank, (tmp_path / "many", tmp_path / "best.pt", out / "ranks.csv"), out)

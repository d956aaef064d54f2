"""Kills (-9) at random moments while pictures are fetched, decoded, ranked or trained on: minutes, run by hand with
-m slow."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from downloads import make_folder
from picture_server import serving_pictures

import download_images
import rank_images
import train_classifier
import train_siamese
import transforms
from pictures.cache import load_pictures
from siamese_net import SiameseNet
from utils import save_checkpoint

SEED = 7
KILLS = 30
# Its processes are forked from one that has imported everything and done nothing: they begin at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["rank_images", "download_images", "train_classifier", "train_siamese"])


# --- what is killed -------------------------------------------------------------------------------------------------
def build(data_path: Path) -> None:
    load_pictures(data_path, range(1, 241), 96, 2)


def command(main: Callable[[], Any], *words: object) -> None:
    """A script in this process, its words aside."""
    sys.argv = [main.__module__, *map(str, words)]
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        assert not main()


def rank(folder: Path, check_point: Path, output: Path) -> None:
    torch.set_num_threads(1)
    machine = ["--device", "cpu", "--no-amp"]
    command(rank_images.main, folder, "--check_point", check_point, "--output", output, *machine)


def everything(folder: Path, tables: Path) -> None:
    """From the manifest to the ranks: each command goes on where a killed one stopped."""
    torch.set_num_threads(1)
    os.environ["no_proxy"] = "*"
    data, runs = folder / "data", folder / "runs"
    if not (data / "datasets").exists():
        shutil.copytree(tables, folder / "begun", dirs_exist_ok=True)
        os.rename(folder / "begun", data)
    download = ["--data_path", data, "--backoff", 0.05, "--workers", 4]
    command(download_images.main, *download)
    flags = ["--data_path", data, "--weights", "none", "--check_point", "last", "--device", "cpu", "--no-amp"]
    small = ["--model_name", "squeezenet1_1", "--image_size", 64, "--batch_size", 16, "--epochs", 3]
    command(train_classifier.main, *flags, *small, "--save_dir", runs / "classifier")
    command(train_siamese.main, *flags, *small, "--model_type", 1, "--save_dir", runs / "siamese")
    rank(data / "images", runs / "siamese" / "best.pt", folder / "ranks.csv")


# --- what is left ---------------------------------------------------------------------------------------------------
def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_times(folder: Path) -> dict[str, Any]:
    """Every file's content, but for what a clock has written into it."""
    found = {name: data for name, data in content(folder).items() if not name.endswith("lock")}  # empty ones
    return {name: _timeless(name, data) for name, data in found.items()}


def _timeless(name: str, data: bytes) -> Any:
    if name.endswith((".png", ".svg")) and b"matplotlib" in data[:2000].lower():
        return len(data) > 1000  # drawn from the tables beside it
    if name.endswith(".pt"):
        return _plain(torch.load(io.BytesIO(data), weights_only=True))
    if name.endswith(".json"):
        return _plain(json.loads(data))
    if name.endswith(("metrics.csv", "ledger.csv")):
        return [_plain(row) for row in csv.DictReader(io.StringIO(data.decode()))]
    if "/pictures_" in name and name.endswith(".csv"):  # the time at which a picture was written
        return [row | {"mtime_ns": ""} for row in csv.DictReader(io.StringIO(data.decode()))]
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        clock = ("seconds", "images_per_second", "time", "command", "peak_memory", "speed")
        return {key: _plain(each) for key, each in value.items() if not any(word in str(key) for word in clock)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


# --- kills ----------------------------------------------------------------------------------------------------------
def undisturbed_and_killed(
    work: Callable,
    arguments: tuple,
    folder: Path,
    kills: int = KILLS,
    seed: int = SEED,
    share: float = 1.0,
    read: Callable[[Path], dict[str, Any]] = content,
) -> None:
    """Run `work` whole, then with kills at random moments, again and again: what it leaves in `folder` is the same.

    A kill falls into the first `share` of the time that the whole takes.
    """

    def started() -> multiprocessing.Process:
        process = PROCESSES.Process(target=work, args=arguments)
        process.start()
        return process

    for _ in range(2):  # the first waits for the imports
        shutil.rmtree(folder, ignore_errors=True)
        begin, process = time.perf_counter(), started()
        process.join()
        assert process.exitcode == 0
    seconds, expected = time.perf_counter() - begin, read(folder)
    print(f"seed {seed}; undisturbed {seconds:.1f} s: {len(expected)} files, {', '.join(expected)[:2000]}")
    rng, done, ends = random.Random(seed), 0, 0
    shutil.rmtree(folder)
    while done < kills or process.exitcode:
        process = started()
        if done < kills:
            process.join(rng.uniform(0, seconds * share))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                done += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            found = read(folder)
            assert list(found) == list(expected), f"after {done} kills"
            assert not (differ := [name for name in found if found[name] != expected[name]]), f"{done} kills: {differ}"
            ends += 1
            shutil.rmtree(folder)
    print(f"{done} kills, {ends} ends with the same bytes")
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_download_cache_trainings_and_ranking_killed_together_end_with_the_same_bytes(sample, tmp_path, seed):
    """25 kills for each of four seeds: a hundred."""
    with serving_pictures(sample / "images") as url:
        links = [(n, f"{url}/{n}.jpg", "", "") for n in range(1, 61)]
        tables = make_folder(tmp_path / "tables", [*links, (61, f"{url}/gone.jpg", "", "")])
        for name in ("data_set_iv.csv", "image4classification.csv"):
            shutil.copy(sample / "datasets" / name, tables / "datasets" / name)
        whole = (everything, (tmp_path / "out", tables), tmp_path / "out")
        undisturbed_and_killed(*whole, kills=25, seed=seed, share=0.6, read=without_times)

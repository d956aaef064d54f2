"""The ranker's training as a user runs it: what it writes, that it resumes, that it compares."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run, run_here

import data_set
import metrics
import train_siamese
import training
import utils
from device import autocast
from locks import alone_in
from siamese_net import RECIPES, from_checkpoint
from training_data import load_ranking

FLAGS = ["--weights", "none", "--image_size", "64", "--device", "cpu", "--num_workers", "1", "--batch_size", "16"]


def words(sample, save_dir, *more) -> list[str]:
    return [str(word) for word in ["train_siamese.py", "--data_path", sample, "--save_dir", save_dir, *FLAGS, *more]]


def one_epoch(model, data, recipe) -> dict[str, float]:
    """The first epoch of a training in batches of 16."""
    recipe, rows = RECIPES[recipe], data.rows["train"]
    v_score = data.v_score[rows]
    optimiser = train_siamese.build_optimiser(model, recipe, recipe.learning_rate)
    scheduler = training.one_cycle(optimiser, 10, recipe.warm_up)
    batches = train_siamese.draw_batches(v_score, "all", 16, seed=0)
    return train_siamese.train_one_epoch(
        model, data.pictures, rows, v_score, batches, optimiser, scheduler, image_size=64, clip_norm=recipe.clip_norm
    )


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = run(*words(sample, folder, "--epochs", 3))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_leaves_its_records_and_pictures(finished):
    folder, output = finished
    for name in ("config.json", "environment.json", "metrics.csv", "last.pt", "best.pt", "test_scores.csv"):
        assert (folder / name).is_file()
    for name in ("curves", "ranked_strip", "pairs", "windows", "windows_over_epochs", "score_against_virality"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(folder / "metrics.csv")) == 3
    assert "test pair accuracy" in output and "noise ceiling" in output


def test_the_results_say_what_was_measured_on_what(finished, sample):
    results = json.loads((finished[0] / "results.json").read_text())
    test = results["test"]
    assert test["pair_accuracy_low"] <= test["pair_accuracy"] <= test["pair_accuracy_high"]
    assert {"kendall_tau", "spearman_rho", "noise_ceiling", "pointing_accuracy", "mean_scale"} <= set(test)
    ids = pd.read_csv(sample / "datasets" / "data_set_iv.csv")["img_id"]
    split = data_set.split_of(ids, 0)
    assert results["n"] == {name: int((split == name).sum()) for name in data_set.SPLITS}
    tested = pd.read_csv(finished[0] / "test_scores.csv")["img_id"]
    assert set(tested) == set(ids[split == "test"])
    assert results["configuration"]["image_size"] == 64 and results["pictures_left_out"] == 0
    assert {"seconds", "images_per_second", "best_epoch", "train_seconds", "validation_pair_accuracy"} <= set(results)


def test_the_test_split_is_scored_by_the_epoch_that_validation_chose(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    accuracy = pd.read_csv(folder / "metrics.csv")["val_pair_accuracy"]
    assert accuracy[results["best_epoch"] - 1] == results["validation_pair_accuracy"]
    assert results["best_epoch"] == training.best_epoch(accuracy, first=2)  # the window has shrunk after 0.6 of three
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best["epoch"] == results["best_epoch"]
    model, _ = from_checkpoint(folder / "best.pt")
    table = pd.read_csv(folder / "test_scores.csv")
    data = load_ranking(results["configuration"]["data_path"], image_size=64, num_workers=1)
    with autocast(torch.device("cpu"), None):
        scores = model.rank(data.pictures.batch(data.pictures.rows_of(table["img_id"].to_numpy())))[0]
    assert table["score"].to_numpy() == pytest.approx(scores.double().numpy(), abs=1e-5)
    assert metrics.pair_accuracy(table["score"].to_numpy(), table["v_score"].to_numpy()) == pytest.approx(
        results["test"]["pair_accuracy"]
    )


def test_no_picture_is_in_two_splits(finished):
    configuration = json.loads((finished[0] / "config.json").read_text())
    rows = load_ranking(configuration["data_path"], image_size=64, num_workers=1).rows
    every = np.concatenate([rows[name] for name in data_set.SPLITS])
    assert len(every) == len(set(every)) == 60 and all(len(part) for part in rows.values())


def test_killed_and_resumed_it_ends_where_the_undisturbed_run_ends(finished, sample, tmp_path):
    started = subprocess.Popen(
        [sys.executable, *words(sample, tmp_path, "--epochs", 3, "--check_point", "last")],
        cwd=utils.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (tmp_path / "results.json").exists()
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = run(*words(sample, tmp_path, "--epochs", 3, "--check_point", "last"))
    assert done.returncode == 0 and "resuming after epoch" in done.stdout
    for name in ("last.pt", "best.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (finished[0], tmp_path))
        assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
        assert one["epoch"] == other["epoch"] and one["best"] == other["best"]
    assert (tmp_path / "test_scores.csv").read_bytes() == (finished[0] / "test_scores.csv").read_bytes()
    one, other = (
        pd.read_csv(folder / "metrics.csv").drop(columns=["seconds", "images_per_second"])
        for folder in (finished[0], tmp_path)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    one, other = (json.loads((folder / "results.json").read_text())["test"] for folder in (finished[0], tmp_path))
    assert one == other


def test_without_the_cache_the_run_is_the_same(finished, sample, tmp_path):
    done = run_here(*words(sample, tmp_path, "--epochs", 3, "--cache", "off"))
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((folder / "results.json").read_text())["test"] for folder in (finished[0], tmp_path))
    assert other == pytest.approx(one, abs=1e-6)


def test_a_finished_run_is_not_tested_again(finished, sample):
    folder, _ = finished
    before = (folder / "results.json").stat().st_mtime_ns
    done = run_here(*words(sample, folder, "--epochs", 3, "--check_point", "last"))
    assert done.returncode == 0 and "test pair accuracy" in done.stdout
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_going_on_with_other_flags_is_refused(finished, sample):
    done = run_here(*words(sample, finished[0], "--epochs", 4, "--check_point", "last"))
    assert done.returncode == 2 and "--epochs is 4, but" in done.stderr
    assert "pass another --save_dir" in done.stderr


@pytest.mark.parametrize("more", [["--model_type", 0], ["--model_name", "resnet18", "--model_type", 1]])
def test_an_odd_number_of_pictures_trains_in_batches_of_two(sample, tmp_path, more):
    """39 of them, under batch normalisation."""
    done = run_here(*words(sample, tmp_path, "--epochs", 1, "--seed", 3, "--batch_size", 2, *more))
    assert done.returncode == 0, done.stderr


def test_two_trainings_into_one_folder_are_refused(sample, tmp_path):
    with alone_in(tmp_path):
        done = run_here(*words(sample, tmp_path, "--epochs", 1, "--model_type", 0))
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}: another run is writing it\n"
    assert list(tmp_path.iterdir()) == []


def test_best_pt_is_a_network_and_no_run_to_go_on_with(finished, sample, tmp_path):
    done = run_here(*words(sample, tmp_path, "--epochs", 3, "--check_point", finished[0] / "best.pt"))
    assert done.returncode == 2 and "use last.pt" in done.stderr


def test_the_model_is_in_training_mode_again_after_validation(sample):
    data = load_ranking(sample, image_size=64, num_workers=1)
    model = train_siamese.SiameseNet("alexnet", 1, "none", "modern", 64)
    train_siamese.predict(model, data.pictures, data.rows["train"][:4])
    assert not model.training
    one_epoch(model, data, "modern")
    assert model.training


@pytest.mark.parametrize("mode", ["1", "2", "3", "4"])
def test_the_other_pair_modes_train(sample, tmp_path, mode):
    done = run_here(*words(sample, tmp_path, "--epochs", 1, "--model_type", 0, "--pair_mode", mode))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results.json").read_text())["configuration"]["pair_mode"] == mode


def test_the_published_recipe_trains_type_2_from_type_1s_window(sample, tmp_path):
    done = run_here(*words(sample, tmp_path, "--epochs", 1, "--model_type", 2, "--recipe", "singh2016"))
    assert done.returncode == 0, done.stderr
    assert "second stage" in done.stdout and (tmp_path / "type_1" / "best.pt").is_file()


def test_frozen_convolutions_stay_as_they_are_and_cost_no_gradient(sample):
    data = load_ranking(sample, image_size=64, num_workers=1)
    model = train_siamese.SiameseNet("alexnet", 1, "none", "singh2016", 64)
    train_siamese.freeze(model, freeze_ranknet=True, freeze_locnet=True)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"ranknet", "locnet"}
    head = model.ranknet.head.weight.clone()
    one_epoch(model, data, "singh2016")
    assert all(
        torch.equal(p, frozen[name]) and p.grad is None for name, p in model.named_parameters() if name in frozen
    )
    assert not torch.equal(head, model.ranknet.head.weight)


def test_seeds_give_a_mean_and_two_runs_can_be_compared(sample, tmp_path):
    top, tmp_path = tmp_path, tmp_path / "type_0"
    done = run_here(*words(sample, tmp_path, "--epochs", 1, "--model_type", 0, "--seeds", 0, 1))
    assert done.returncode == 0, done.stderr
    runs = [json.loads((tmp_path / f"seed_{seed}" / "results.json").read_text()) for seed in (0, 1)]
    seeds = json.loads((tmp_path / "seeds.json").read_text())
    accuracy = [each["test"]["pair_accuracy"] for each in runs]
    assert seeds["pair_accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
    assert seeds["pair_accuracy"]["std"] == pytest.approx(np.std(accuracy, ddof=1))
    # With two runs the interval is Student's with one degree of freedom: 12.706 standard errors to either side.
    half = 12.7062 * np.std(accuracy, ddof=1) / np.sqrt(2)
    assert seeds["pair_accuracy"]["high"] - np.mean(accuracy) == pytest.approx(half, rel=1e-4)
    table = run_here("-m", "pages.summary", top).stdout
    assert f"{np.mean(accuracy):.1%} ± {np.std(accuracy, ddof=1):.1%}" in table and "type_0" in table
    same = run_here("train_siamese.py", "--compare", tmp_path / "seed_0", tmp_path / "seed_0")
    assert same.returncode == 0 and "p 1" in same.stdout and "no difference can be told" in same.stdout
    other = run_here("train_siamese.py", "--compare", tmp_path / "seed_0", tmp_path / "seed_1")
    assert other.returncode == 2 and "different pictures" in other.stderr


def test_each_picture_is_tested_in_one_fold(sample, tmp_path):
    done = run_here(*words(sample, tmp_path, "--epochs", 1, "--model_type", 0, "--folds", 2))
    assert done.returncode == 0, done.stderr
    tested = [pd.read_csv(tmp_path / f"fold_{fold}" / "test_scores.csv")["img_id"] for fold in (0, 1)]
    assert sorted(pd.concat(tested)) == list(range(1, 61))


def test_a_batch_of_all_pairs_trains_as_its_pairs_do():
    """Mode all from one pass a picture gives the gradient of the pairwise loss on the same pairs."""
    torch.manual_seed(0)
    model = train_siamese.SiameseNet("alexnet", 0, "none", "modern", 64).eval()
    pictures, v_score = torch.randn(4, 3, 64, 64), torch.tensor([2.0, 0.0, 1.0, 1.0])
    first, second = (~torch.eye(4, dtype=torch.bool)).nonzero().unbind(1)
    gradients = []
    for targets in (
        None,
        torch.from_numpy(data_set.targets_of(v_score.numpy(), torch.stack([first, second], 1).numpy())),
    ):
        model.zero_grad()
        scores = model.score(pictures)[0] if targets is None else torch.cat(model(pictures[first], pictures[second]))
        train_siamese.ranking_loss(scores, v_score, targets).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.ranknet.head.parameters()]))
    assert gradients[0].abs().max() > 1e-4
    assert torch.allclose(*gradients, atol=1e-6)

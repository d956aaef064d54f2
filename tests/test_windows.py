"""Whether a ranker looks where it matters, on rankers of which it is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_here

from pages.report import report_page
from siamese_net import SiameseNet
from studies import windows
from studies.windows import Ranker

SETTINGS = ["--weights", "none", "--image_size", 64, "--epochs", 1, "--device", "cpu", "--deterministic"]
SIDE = 40


class Redness(torch.nn.Module):
    """A ranker of whole pictures that scores how much red there is in the part x0 … x1, y0 … y1 (in shares)."""

    def __init__(self, x0: float = 0, x1: float = 1, y0: float = 0, y1: float = 1) -> None:
        super().__init__()
        self.part = slice(round(y0 * SIDE), round(y1 * SIDE)), slice(round(x0 * SIDE), round(x1 * SIDE))
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def rank(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        return batch[:, 0, *self.part].float().mean((1, 2)) / 255, None


def patches(corners: np.ndarray, side: int = 8) -> torch.Tensor:
    """Grey pictures with a red patch each, its left and top in pixels."""
    pictures = torch.full((len(corners), 3, SIDE, SIDE), 100, dtype=torch.uint8)
    for picture, (left, top) in zip(pictures, corners, strict=True):
        picture[0, top : top + side, left : left + side] = 250
    return pictures


@pytest.fixture(scope="module")
def corners() -> np.ndarray:
    return np.random.default_rng(0).integers(0, SIDE - 8, size=(40, 2))


def test_what_is_covered_has_the_pictures_mean_colour_and_nothing_else_changes():
    pictures = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    covered = windows.cover(pictures, np.array([[0.25, 0.5, 0.25, 0.5], [0, 0, 1, 1]]))
    mean = pictures.float().mean((2, 3)).round().to(torch.uint8)
    assert torch.equal(covered[0, :, 20:, 10:20], mean[0, :, None, None].expand(3, 20, 10))
    untouched = torch.ones(SIDE, SIDE, dtype=torch.bool)
    untouched[20:, 10:20] = False
    assert torch.equal(covered[0][:, untouched], pictures[0][:, untouched])
    assert torch.equal(covered[1], mean[1, :, None, None].expand(3, SIDE, SIDE))


def test_covering_what_decides_changes_the_score_more_than_covering_anything_else(corners):
    judge = Ranker(Redness(), patches(corners))
    judge.pictures[::2, 0, :2] = 200  # scores that differ
    on_it = np.hstack([(corners - 4) / SIDE, np.full((40, 2), 16 / SIDE)])
    found = windows.deletion(judge, on_it)
    assert found["window"] > 2 * found["random"] and found["over_random"]["low"] > 1.5
    assert found["over_random"]["low"] < found["over_random"]["value"] < found["over_random"]["high"]
    assert found["less_random"]["value"] == pytest.approx(found["window"] - found["random"])
    assert found["less_centre"]["low"] > 0 and found["lowered"]["less_random"]["low"] > 0
    opposite = np.hstack([np.where(corners < SIDE / 2, 0.6, 0), np.full((40, 2), 16 / SIDE)])
    assert windows.deletion(judge, opposite)["over_random"]["high"] < 1


def test_where_the_score_does_not_depend_on_the_place_no_window_is_better(corners):
    flat = torch.full((40, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    flat[:, 0] += torch.arange(40, dtype=torch.uint8)[:, None, None]
    flat[..., ::2] += 20  # stripes: the same wherever one looks
    at = np.hstack([corners / SIDE * 0.6, np.full((40, 2), 0.4)])
    found = windows.deletion(Ranker(Redness(), flat), at)
    assert abs(found["less_random"]["value"]) < 0.05


def test_occlusion_finds_the_patch_that_decides(corners):
    points = windows.occlusion_points(Ranker(Redness(), patches(corners)))
    assert np.abs(points - (corners + 4) / SIDE).max() < 0.11


@pytest.mark.parametrize("by_place", [False, True])
def test_class_activation_points_at_the_only_thing_that_there_is(by_place):
    torch.manual_seed(0)
    model = SiameseNet("alexnet", 0, "none", image_size=192, batch_norm=False)
    pictures = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None].expand(4, 3, 224, 224).clone()
    corners = np.array([[16, 16], [176, 24], [24, 176], [120, 136]])  # on the mean colour, which is 0, lies a patch
    for picture, (left, top) in zip(pictures, corners, strict=True):
        picture[:, top : top + 32, left : left + 32] = 255
    points = windows.activation_points(Ranker(model, pictures), by_place)
    assert np.abs(points - (corners + 16) / 224).max() < 0.2  # a cell is 0.07 wide and sees 0.9 of the picture


def test_pointing_counts_the_pictures_with_a_box():
    truth = np.array([[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [np.nan] * 4, [0, 0, 0.5, 0.5]])
    points = {"the window": np.array([[0.2, 0.2], [0.6, 0.6], [0.1, 0.1], [0.5, 0.5]]), "other": np.full((4, 2), 0.6)}
    found = windows.pointing(points, truth)
    assert found["share"]["the window"]["value"] == 1 and found["share"]["the window"]["n"] == 3
    assert found["share"]["the window"]["low"] == pytest.approx(0.438, abs=1e-3)  # Wilson's, of 3 in 3
    assert found["share"]["other"]["value"] == pytest.approx(1 / 3)
    assert found["window_less"]["other"]["value"] == pytest.approx(2 / 3) and "the window" not in found["window_less"]


def test_the_share_of_the_runs_that_succeed_has_a_binomial_interval():
    runs = [{"pointing": {"share": {"the window": {"value": value}}}} for value in (0.95, 0.9, 0.5, 0.99)]
    found = windows.over_runs(runs)
    assert (found["succeed"], found["n"], found["value"]) == (3, 4, 0.75) and 0.3 < found["low"] < found["high"] < 1
    assert windows.over_runs([{}]) == {}


# --- the command ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs(sample, tmp_path_factory) -> dict[str, Path]:
    """Runs of an epoch: windows of two seeds, whole pictures."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in (("one", []), ("two", ["--seed", 1]), ("whole", ["--model_type", 0])):
        done = run_here("train_siamese.py", "--data_path", sample, "--save_dir", folder / name, *SETTINGS, *words)
        assert done.returncode == 0, done.stderr
    return {name: folder / name / "best.pt" for name in ("one", "two", "whole")}


def test_the_study_prints_writes_and_draws(sample, runs, tmp_path):
    words = ["--data_path", sample, "--output", tmp_path, "--device", "cpu", "--type_0", runs["whole"]]
    done = run_here("-m", "studies.windows", "--check_point", runs["one"], runs["two"], *words)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "windows.json").read_text())
    one, two = written["runs"]
    assert written["over_runs"]["n"] == 2 and "of 2 runs have the window's centre on the box" in done.stdout
    assert {"its window, by itself", "its window, by type 0", "untrained window, by type 0"} <= set(one["deletion"])
    assert "its window, by type 0" not in two["deletion"]  # of another split: it was trained on these pictures
    tested = pd.read_csv(runs["one"].parent / "test_scores.csv")
    assert one["pictures"] == len(tested) == one["pointing"]["share"]["occlusion of type 0"]["n"]
    results = json.loads((runs["one"].parent / "results.json").read_text())["test"]
    assert one["pointing"]["share"]["the window"]["value"] == pytest.approx(results["pointing_accuracy"])
    report = json.loads((runs["one"].parent / "deletion.json").read_text())
    assert report["window"]["value"] == pytest.approx(one["deletion"]["its window, by type 0"]["window"])
    assert report["window"]["low"] < report["window"]["value"] < report["window"]["high"]
    assert "times as much as a random one" in report_page(runs["one"].parent).read_text()
    for name in ("pointing", "deletion", "windows"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_without_boxes_the_deletion_test_is_left(sample, runs, tmp_path):
    shutil.copytree(sample, tmp_path / "data")
    (tmp_path / "data" / "datasets" / "truth.csv").unlink()
    words = ["--data_path", tmp_path / "data", "--output", tmp_path / "out", "--device", "cpu"]
    done = run_here("-m", "studies.windows", "--check_point", runs["one"], *words)
    assert done.returncode == 0 and "no boxes" in done.stdout, done.stderr
    written = json.loads((tmp_path / "out" / "windows.json").read_text())
    assert written["over_runs"] == {} and "pointing" not in written["runs"][0]
    assert (tmp_path / "out" / "deletion.png").is_file() and not (tmp_path / "out" / "pointing.png").exists()


@pytest.mark.parametrize(
    ("check_point", "type_0", "says"),
    [("whole", None, "is of type 0"), ("one", "two", "is of type 1"), ("two", "whole", "another split")],
)
def test_rankers_that_do_not_fit_are_refused_in_one_line(sample, runs, tmp_path, check_point, type_0, says):
    words = ["--data_path", sample, "--output", tmp_path / "out", "--device", "cpu"]
    words += ["--type_0", runs[type_0]] if type_0 else []
    done = run_here("-m", "studies.windows", "--check_point", runs[check_point], *words)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()

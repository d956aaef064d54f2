"""What a user can get wrong: each is one line that names it, and exit code 2, without a traceback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, run, run_here
from PIL import Image

TABLE = "datasets/data_set_iv.csv"
SIAMESE = ["train_siamese.py", "--weights", "none", "--image_size", 64, "--epochs", 1, "--model_type", 0]
CLASSIFIER = ["train_classifier.py", "--weights", "none", "--image_size", 64, "--epochs", 1]


def refused(done, *says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    for part in says:
        assert part in lines[0]


@pytest.fixture
def spoiled(sample, tmp_path) -> Path:
    return shutil.copytree(sample, tmp_path / "data", ignore=shutil.ignore_patterns("*.npy"))


@pytest.mark.parametrize("command", [SIAMESE, CLASSIFIER])
def test_a_missing_folder(command, tmp_path):
    for runner in (run, run_here):
        refused(runner(*command, "--data_path", tmp_path / "nowhere", "--save_dir", tmp_path / "run"), "nowhere")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("img_id,v_score\n", "no rows"),
        ("img_id,other\n1,2\n", "no column v_score"),
        ("img_id,v_score\n1,high\n", "line 2: v_score is 'high'"),
        ("img_id,v_score\n1,inf\n", "line 2: v_score"),
        ("img_id,v_score\n1,2\n1,3\n", "line 3: img_id 1 occurs twice"),
        ("img_id,v_score\nx,2\n", "line 2: img_id is 'x'"),
    ],
)
def test_an_unusable_table(spoiled, tmp_path, content, says):
    (spoiled / TABLE).write_text(content)
    refused(run_here(*SIAMESE, "--data_path", spoiled, "--save_dir", tmp_path / "run"), TABLE, says)


def test_too_few_pictures_for_three_splits(spoiled, tmp_path):
    (spoiled / TABLE).write_text("img_id,v_score\n1,2\n2,3\n")
    refused(run_here(*SIAMESE, "--data_path", spoiled, "--save_dir", tmp_path / "run"), str(spoiled), "split has")


def test_a_missing_table_and_one_that_is_a_folder(spoiled, tmp_path):
    for name, command in ((TABLE, SIAMESE), ("datasets/image4classification.csv", CLASSIFIER)):
        (spoiled / name).unlink()
        refused(run_here(*command, "--data_path", spoiled, "--save_dir", tmp_path / "run"), name, "does not exist")
        (spoiled / name).mkdir()
        refused(run_here(*command, "--data_path", spoiled, "--save_dir", tmp_path / "run"), name, "cannot be read")


def test_a_wrong_flag_and_an_unknown_model_list_what_is_known(sample):
    refused(run(*SIAMESE, "--data_path", sample, "--model_name", "lenet"), "alexnet", "densenet")
    siamese, classifier = [*SIAMESE, "--data_path", sample], [*CLASSIFIER, "--data_path", sample]
    refused(run_here(*siamese, "--colour", "red"), "--colour")
    refused(run_here(*classifier, "--model_name", "lenet"), "alexnet", "vgg", "resnet", "densenet")
    refused(run_here(*siamese, "--pair_mode", 5), "deza", "all")
    refused(run_here(*siamese, "--model_type", 3), "0, 1, 2")
    refused(run_here(*siamese, "--epochs", 0), "--epochs")
    refused(run_here(*siamese, "--epochs", "many"), "--epochs")
    refused(run_here(*siamese, "--device", "cuda:7"), "--device cuda:7")
    refused(run_here(*siamese, "--image_size", 40), "--image_size 40")
    refused(run_here(*siamese, "--freeze_locnet"), "--freeze_locnet")
    refused(run_here(*SIAMESE), "--data_path")


@pytest.mark.parametrize("rate", ["-1", "nan", "0"])
def test_a_learning_rate_that_is_none(sample, tmp_path, rate):
    for recipe in ("modern", "singh2016"):
        command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--recipe", recipe]
        refused(run_here(*command, "--learning_rate", rate), "--learning_rate")


def test_a_loss_that_grows_beyond_all_bounds(sample, tmp_path):
    command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--learning_rate", "1e30"]
    refused(run_here(*command), "--learning_rate")


def test_pictures_of_every_kind_train_and_the_unusable_ones_are_named(spoiled, tmp_path):
    table = pd.read_csv(spoiled / TABLE)
    images = spoiled / "images"
    paths = [images / f"{i}.jpg" for i in table["img_id"][:13]]
    paths[0].write_bytes(paths[0].read_bytes()[:-400])
    paths[1].write_text("<html>gone</html>")
    paths[2].unlink()
    Image.new("1", (30_000, 30_000)).save(paths[3], "PNG")
    Image.new("CMYK", (50, 40), (10, 200, 30, 0)).save(paths[4], "JPEG")
    Image.new("P", (50, 40), 3).save(paths[5], "PNG")
    Image.fromarray(np.full((40, 50), 40_000, np.uint16)).save(paths[6], "PNG")
    Image.new("RGBA", (50, 40), (1, 2, 3, 4)).save(paths[7], "PNG")
    Image.new("RGB", (1, 1)).save(paths[8], "PNG")
    Image.new("LA", (50, 40), (90, 120)).save(paths[9], "PNG")
    Image.new("P", (50, 40), 3).save(paths[10], "PNG", transparency=3)
    frames = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    frames[0].save(paths[11], "GIF", save_all=True, append_images=frames[1:])
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (50, 40), "green").save(paths[12], "JPEG", exif=turned)
    done = run_here(*SIAMESE, "--data_path", spoiled, "--save_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for path, why in zip(paths, ["broken", "not a picture", "no such file", "30000x30000"], strict=False):
        assert f"left out: {path}: {why}" in done.stdout
    assert "4 of 60 pictures left out" in done.stdout


def test_weights_that_cannot_be_fetched(sample, tmp_path):
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    offline = os.environ | nowhere | {"TORCH_HOME": str(tmp_path), "no_proxy": "", "NO_PROXY": ""}
    command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--weights", "imagenet"]
    refused(run(*command, env=offline), "--weights none", "--weights FILE")


@pytest.mark.parametrize("command", [SIAMESE, CLASSIFIER])
def test_weights_of_a_file_that_does_not_fit(sample, tmp_path, command):
    command = [*command, "--data_path", sample, "--save_dir", tmp_path / "run", "--weights"]
    refused(run_here(*command, tmp_path / "nothing.pt"), "nothing.pt", "no such file")
    (tmp_path / "text.pt").write_text("not weights")
    refused(run_here(*command, tmp_path / "text.pt"), "text.pt", "not a torch file")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    refused(run_here(*command, tmp_path / "other.pt"), "other.pt", "features.0.weight")


def test_checkpoints_that_are_none(sample, tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"kind": "classifier"}, tmp_path / "classifier.pt")
    torch.save({"kind": "siamese"}, tmp_path / "siamese.pt")
    for name, says in (
        ("text.pt", "not a checkpoint"),
        ("classifier.pt", "not a siamese"),
        ("no.pt", "does not exist"),
    ):
        refused(run_here("rank_images.py", sample / "images", "--check_point", tmp_path / name), name, says)
        command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--check_point", tmp_path / name]
        refused(run_here(*command), name, says)
    command = [*CLASSIFIER, "--data_path", sample, "--save_dir", tmp_path / "run", "--check_point"]
    refused(run_here(*command, tmp_path / "siamese.pt"), "siamese.pt", "not a classifier")


def test_runs_that_were_never_made_cannot_be_compared(tmp_path):
    refused(run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "b"), "test_scores.csv")


def test_scores_without_their_img_id_cannot_be_compared(tmp_path):
    (tmp_path / "test_scores.csv").write_text("v_score,score\n1,2\n")
    refused(run_here("train_siamese.py", "--compare", tmp_path, tmp_path), "test_scores.csv", "img_id")


def test_a_save_dir_that_is_a_file_or_lies_in_one(sample, tmp_path):
    (tmp_path / "run").write_text("")
    refused(run_here(*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run"), "is a file")
    refused(run_here(*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run" / "deep"), str(tmp_path / "run"))


SCRIPTS = [path.name for path in sorted(ROOT.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_tells_how_to_use_it_and_names_a_wrong_flag(script):
    done = run_here(script, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout
    refused(run_here(script, "--no_such_flag"))

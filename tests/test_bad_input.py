"""What a user can get wrong: each is one line that names it, and exit code 2, without a traceback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run
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
    refused(run(*command, "--data_path", tmp_path / "nowhere", "--save_dir", tmp_path / "run"), "nowhere")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("img_id,v_score\n", "no rows"),
        ("img_id,other\n1,2\n", "no column v_score"),
        ("img_id,v_score\n1,high\n", "line 2: v_score is 'high'"),
        ("img_id,v_score\n1,inf\n", "line 2: v_score"),
        ("img_id,v_score\n1,2\n1,3\n", "line 3: img_id 1 stands there twice"),
        ("img_id,v_score\nx,2\n", "line 2: img_id is 'x'"),
        ("img_id,v_score\n1,2\n2,3\n", "split"),
    ],
)
def test_an_unusable_table(spoiled, tmp_path, content, says):
    (spoiled / TABLE).write_text(content)
    refused(run(*SIAMESE, "--data_path", spoiled, "--save_dir", tmp_path / "run"), says)


def test_a_wrong_flag_and_an_unknown_model_list_what_is_known(sample, tmp_path):
    refused(run(*SIAMESE, "--data_path", sample, "--colour", "red"), "--colour")
    refused(run(*SIAMESE, "--data_path", sample, "--model_name", "lenet"), "alexnet", "densenet")
    refused(run(*CLASSIFIER, "--data_path", sample, "--model_name", "lenet"), "alexnet", "vgg", "resnet", "densenet")
    refused(run(*SIAMESE, "--data_path", sample, "--epochs", 0), "--epochs")
    refused(run(*SIAMESE, "--data_path", sample, "--device", "cuda:7"), "--device cuda:7")


def test_pictures_of_every_kind_train_and_the_unusable_ones_are_named(spoiled, tmp_path):
    table = pd.read_csv(spoiled / TABLE)
    images = spoiled / "images"
    paths = [images / f"{i}.jpg" for i in table["img_id"][:9]]
    paths[0].write_bytes(paths[0].read_bytes()[:-400])
    paths[1].write_text("<html>gone</html>")
    paths[2].unlink()
    Image.new("1", (30_000, 30_000)).save(paths[3], "PNG")
    Image.new("CMYK", (50, 40), (10, 200, 30, 0)).save(paths[4], "JPEG")
    Image.new("P", (50, 40), 3).save(paths[5], "PNG")
    Image.fromarray(np.full((40, 50), 40_000, np.uint16)).save(paths[6], "PNG")
    Image.new("RGBA", (50, 40), (1, 2, 3, 4)).save(paths[7], "PNG")
    Image.new("RGB", (1, 1)).save(paths[8], "PNG")
    done = run(*SIAMESE, "--data_path", spoiled, "--save_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for path, why in zip(paths, ["broken", "not a picture", "no such file", "30000x30000"], strict=False):
        assert f"left out: {path}: {why}" in done.stdout
    assert "4 of 60 pictures left out" in done.stdout


def test_weights_that_cannot_be_had(sample, tmp_path):
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    offline = os.environ | nowhere | {"TORCH_HOME": str(tmp_path), "no_proxy": "", "NO_PROXY": ""}
    command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--weights"]
    refused(run(*command, "imagenet", env=offline), "--weights none", "--weights FILE")
    refused(run(*command, tmp_path / "nothing.pt"), "nothing.pt", "no such file")
    (tmp_path / "text.pt").write_text("not weights")
    refused(run(*command, tmp_path / "text.pt"), "text.pt", "not a torch file")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    refused(run(*command, tmp_path / "other.pt"), "other.pt", "features.0.weight")


def test_checkpoints_that_are_none(sample, tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"kind": "classifier"}, tmp_path / "classifier.pt")
    for name, says in (
        ("text.pt", "not a checkpoint"),
        ("classifier.pt", "not a siamese"),
        ("no.pt", "does not exist"),
    ):
        refused(run("rank_images.py", sample / "images", "--check_point", tmp_path / name), name, says)
        command = [*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run", "--check_point", tmp_path / name]
        refused(run(*command), name, says)


def test_a_save_dir_that_is_a_file(sample, tmp_path):
    (tmp_path / "run").write_text("")
    refused(run(*SIAMESE, "--data_path", sample, "--save_dir", tmp_path / "run"), "is a file")


def test_every_script_has_help_and_prints_no_traceback():
    for script in sorted(Path(__file__).parent.parent.glob("*.py")):
        if "parse_arguments" in script.read_text() or "ArgumentParser" in script.read_text():
            if script.name in ("utils.py",):
                continue
            done = run(script.name, "--help")
            assert done.returncode == 0 and "usage:" in done.stdout, script.name

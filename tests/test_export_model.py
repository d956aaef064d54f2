"""A ranker that travels: its folder ranks as the checkpoint does, tells its figures, and says what is spoilt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_here
from PIL import Image
from safetensors.torch import load_file

import demo
import export_model
import transforms
import utils
from siamese_net import SiameseNet, boxes, from_checkpoint
from utils import UserError

SETTINGS = ["--weights", "none", "--image_size", 64, "--epochs", 1, "--device", "cpu", "--deterministic"]


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    done = run_here("train_siamese.py", "--data_path", sample, "--save_dir", folder, *SETTINGS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "ranker"
    done = run_here("export_model.py", "--check_point", finished / "best.pt", "--output", folder)
    assert done.returncode == 0 and "model.safetensors" in done.stdout, done.stderr
    return folder


def table_of(check_point: Path, pictures: Path, output: Path) -> bytes:
    words = ["--check_point", check_point, "--output", output, "--device", "cpu", "--deterministic"]
    done = run_here("rank_images.py", pictures, *words)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


def test_the_folder_ranks_to_the_last_digit_as_the_checkpoint(finished, exported, sample, tmp_path):
    by_folder = table_of(exported, sample / "images", tmp_path / "folder.csv")
    assert by_folder == table_of(finished / "best.pt", sample / "images", tmp_path / "file.csv")
    assert by_folder.count(b"\n") == 61


def test_the_folder_holds_every_weight_once_and_all_that_goes_with_them(finished, exported):
    model, state = from_checkpoint(finished / "best.pt")
    again, read = from_checkpoint(exported)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(read["train_scores"], state["train_scores"]) and read["temperature"] == state["temperature"]
    assert read["recipe"] == state["recipe"] and read["transform"] == state["transform"]
    written = load_file(exported / "model.safetensors")
    assert 0 < len(written) < len(model.state_dict())  # the convolutions that both networks share have two names
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=exported, capture_output=True, text=True, check=False)
    assert sums.returncode == 0 and sums.stdout.count(": OK") == 3


def test_the_settings_say_nothing_of_where_it_was_trained(exported, finished, sample):
    config = json.loads((exported / "config.json").read_text())["config"]
    assert config["data_path"] == "sample" and config["image_size"] == 64 and "save_dir" not in config
    for name in ("config.json", "README.md"):
        text = (exported / name).read_text()
        assert str(sample.parent) not in text and str(finished) not in text


def test_the_card_holds_the_runs_figures_with_their_intervals(finished, exported):
    card, results = (exported / "README.md").read_text(), json.loads((finished / "results.json").read_text())
    test, n = results["test"], results["n"]
    shown = [("pair accuracy", test["pair_accuracy"], test["pair_accuracy_low"], test["pair_accuracy_high"])]
    for name, key in (("the older picture first", "clock"), ("community of the first post", "community")):
        shown.append((name, *(results["context"][key][part] for part in ("value", "low", "high"))))
    for name, value, low, high in shown:
        assert f"{name} | {value:.3f} | {low:.3f} to {high:.3f} |" in card
    assert f"{n['train']} to train on, {n['validation']} to choose an epoch by, {n['test']} to test on" in card
    assert f"error is {results['calibration']['ece']:.3f}" in card and "noise ceiling" in card
    assert "Do not judge people by it" in card and f"{n['test']} test pictures are few" in card
    ahead = results["context"]["clock"]["high"] >= test["pair_accuracy_low"]
    assert ("The intervals overlap" in card) == ahead


def test_the_card_says_where_no_context_is_known(finished):
    results = json.loads((finished / "results.json").read_text()) | {"context": {}, "calibration": None}
    card = export_model.model_card(utils.load_checkpoint(finished / "best.pt", "siamese"), results)
    assert "No times or communities" in card and "## Calibration" not in card


def test_the_demo_takes_the_folder(finished, exported, sample):
    game = demo.held_out(str(exported), str(sample))
    pd.testing.assert_frame_equal(game, demo.held_out(str(finished / "best.pt"), str(sample)))


@pytest.mark.parametrize("name", ["model.safetensors", "tensors.safetensors", "config.json"])
@pytest.mark.parametrize("spoil", ["cut", "changed", "missing"])
def test_a_spoilt_folder_says_so_in_one_line(exported, tmp_path, name, spoil):
    folder = shutil.copytree(exported, tmp_path / "ranker")
    content = (folder / name).read_bytes()
    if spoil == "missing":
        (folder / name).unlink()
    else:
        spoilt = content[: len(content) // 2] if spoil == "cut" else content[:-9] + b"9" + content[-8:]
        (folder / name).write_bytes(spoilt)
    with pytest.raises(UserError) as error:
        from_checkpoint(folder)
    assert str(folder / name) in str(error.value) and "\n" not in str(error.value)


def test_other_folders_are_told_from_exported_ones(finished, exported, tmp_path):
    with pytest.raises(UserError, match=r"no SHA256SUMS.*give .*best\.pt"):
        from_checkpoint(finished)
    with pytest.raises(UserError, match="not a classifier checkpoint .it holds siamese"):
        utils.load_checkpoint(exported, "classifier")
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\x00 nothing\n")
    with pytest.raises(UserError, match="model.safetensors is missing"):
        from_checkpoint(tmp_path)


def test_a_folder_of_a_later_version_says_so(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "ranker")
    settings = json.loads((folder / "config.json").read_text()) | {"folder_format": 99}
    (folder / "config.json").write_text(json.dumps(settings))
    names = ("model.safetensors", "tensors.safetensors", "config.json")
    (folder / "SHA256SUMS").write_text("".join(f"{utils.sha256(folder / name)}  {name}\n" for name in names))
    with pytest.raises(UserError, match="later version"):
        from_checkpoint(folder)


def test_a_run_that_has_not_finished_is_not_exported(finished, tmp_path):
    shutil.copy(finished / "best.pt", tmp_path / "best.pt")
    done = run_here("export_model.py", "--check_point", tmp_path / "best.pt", "--output", tmp_path / "out")
    assert done.returncode == 2 and "has not finished" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_onnx_one_line_says_what_to_install(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    done = run_here("export_model.py", "--check_point", finished / "best.pt", "--output", tmp_path / "out", "--onnx")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "requirements-onnx.txt" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("model_type", [0, 1])
def test_onnx_gives_the_scores_and_windows_of_torch(sample, tmp_path, model_type):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    model, side = SiameseNet("alexnet", model_type, "none", image_size=64).eval(), transforms.stored_side(64)
    export_model.write_onnx(model, side, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for path in sorted((sample / "images").glob("*.jpg"))[:4]:
        picture = transforms.load_square(path, side)[None]
        found = session.run(None, {"pictures": picture})
        score, window = model.rank(torch.from_numpy(picture))
        assert found[0] == pytest.approx(score.numpy(), rel=1e-3, abs=1e-4)
        if window is not None:
            with Image.open(path) as shown:
                size = np.array(shown.size)
            expected = boxes(window, torch.from_numpy(size)[None]).numpy()
            assert found[1] * np.tile(size, 2) == pytest.approx(expected, abs=0.2)

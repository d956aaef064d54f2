"""Two processes, started by torchrun, against one: the same losses, the same scores, no picture lost or twice.

The trainings run in double precision. In single precision they are chaotic at their usual rates: weights that differ by
one part in ten million give, within five steps of one process, losses that differ in the third decimal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run
from PIL import Image

import transforms
import utils
from siamese_net import SiameseNet

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(utils.ROOT)}
DOUBLE = """
import runpy, sys, torch
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FLAGS = ["--weights", "none", "--image_size", "64", "--device", "cpu", "--num_workers", "1"]


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """A script that runs another in double precision."""
    path = tmp_path_factory.mktemp("scripts") / "double.py"
    path.write_text(DOUBLE)
    return path


# --- steps, by themselves -------------------------------------------------------------------------------------------
STEPS = """
import json, sys
import numpy as np, torch
import device, distributed, losses, train_classifier, train_siamese, training, utils
from siamese_net import RECIPES

class Pictures:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 73, 73), dtype=np.uint8))
    def batch(self, rows):
        return self.pixels[np.asarray(rows)]

def siamese(steps, model_type, pair_mode="all"):
    recipe = RECIPES["modern"]
    device.seed_everything(0)
    model = train_siamese.SiameseNet("alexnet", model_type, "none", recipe, 64)
    value = np.arange(9.0) % 7
    optimiser = train_siamese.build_optimiser(model, recipe, recipe.learning_rate)
    scheduler = training.one_cycle(optimiser, 100)
    step = lambda: train_siamese.train_one_epoch(
        model, Pictures(), np.arange(9), value, train_siamese.draw_batches(value, pair_mode, 9, 0), optimiser,
        scheduler, image_size=64, clip_norm=recipe.clip_norm)
    return [step()["train_loss"] for _ in range(steps)]

def classifier(model_name):
    device.seed_everything(0)
    model = train_classifier.cnn_classifier(model_name, 3, "none")[0]
    labels = np.arange(9) % 4 % 3
    optimiser = train_classifier.build_optimiser(model, 3e-4)
    scheduler = training.one_cycle(optimiser, 100)
    step = lambda: train_classifier.train_one_epoch(
        model, Pictures(), np.arange(9), labels, train_classifier.draw_batches(labels, 9), optimiser, scheduler,
        image_size=64, augment="strong", weight=train_classifier.weights_of_classes(labels, 3))
    return [step()["train_loss"] for _ in range(5)] + [sum(b.double().sum().item() for b in model.buffers())]

def penalty():
    device.seed_everything(0)
    model, x, target = torch.nn.Linear(4, 3), torch.randn(9, 4), torch.randn(9, 3)
    model.bias.data += torch.tensor([1.0, 1.0, 0.0])  # some windows leave the picture, some stay
    window = losses.BoundaryPenalty.apply(distributed.spread(model.forward)(distributed.begin(x)))
    (distributed.gather(window) - target).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]).tolist()

def main():
    distributed.join("cpu")
    found = {
        "all pairs": siamese(20, 1),
        "pair mode": siamese(5, 0, "4"),
        "dropout": classifier("squeezenet1_1"),
        "batch normalisation": classifier("shufflenet_v2_x0_5"),
        "penalty": penalty(),
    }
    if utils.rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(found, file)

utils.run_main(main)
"""


@pytest.fixture(scope="module")
def steps(double, tmp_path_factory):
    """What one process and two find, by name: the losses of the first steps; a gradient."""
    folder, found = tmp_path_factory.mktemp("steps"), []
    (folder / "steps.py").write_text(STEPS)
    for words in ([], TORCHRUN):
        done = run(*words, double, folder / "steps.py", folder / "found.json", env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((folder / "found.json").read_text()))
    return found


@pytest.mark.parametrize("name", ["all pairs", "pair mode", "dropout", "batch normalisation", "penalty"])
def test_two_processes_learn_what_one_does_augmented_and_with_dropout(steps, name):
    """Nine pictures: the parts of a batch are of unequal size."""
    one, two = (np.array(found[name]) for found in steps)
    assert np.ptp(one) > 1e-3
    assert two == pytest.approx(one, rel=1e-8, abs=1e-8)


# --- the training scripts -------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_ranker_begun_by_one_process_and_ended_by_two_is_the_one_of_one_process(double, sample, tmp_path):
    def words(name, *more):
        flags = ["--data_path", sample, "--save_dir", tmp_path / name, "--batch_size", 42, "--epochs", 3, *FLAGS]
        return [str(word) for word in [double, "train_siamese.py", *flags, "--check_point", "last", *more]]

    started = subprocess.Popen(
        [sys.executable, *words("two")], cwd=utils.ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "two" / "last.pt").exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    for name, launcher in (("one", []), ("two", TORCHRUN)):
        done = run(*launcher, *words(name), env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test pair accuracy") == 1 and done.stdout.count("epoch   3/3") == 1
    assert "resuming after epoch" in done.stdout
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert len(two) == 3
    assert two["train_loss"].to_numpy() == pytest.approx(one["train_loss"].to_numpy(), abs=1e-5)
    assert two["val_pair_accuracy"].to_numpy() == pytest.approx(one["val_pair_accuracy"].to_numpy(), abs=1e-4)
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["test"] for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-4)
    one, two = (pd.read_csv(tmp_path / name / "test_scores.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, atol=1e-4)


@pytest.mark.parametrize("freeze", [[], ["--freeze_features"]])
def test_a_classifier_of_two_processes_is_the_one_of_one(double, sample, tmp_path, freeze):
    flags = ["--model_name", "shufflenet_v2_x0_5", "--epochs", 3, "--batch_size", 15, *FLAGS, *freeze]
    tests = []
    for name, launcher in (("one", []), ("two", TORCHRUN)):
        words = ["train_classifier.py", "--data_path", sample, "--save_dir", tmp_path / name, *flags]
        done = run(*launcher, double, *words, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        tests.append(json.loads((tmp_path / name / "results.json").read_text())["test"])
        for file in sample.joinpath("processed").glob("features_*"):
            file.unlink()
    assert tests[1] == pytest.approx(tests[0], abs=1e-4)
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv")["train_loss"] for name in ("one", "two"))
    assert two.to_numpy() == pytest.approx(one.to_numpy(), abs=1e-5)


def test_what_is_wrong_is_said_once_and_ends_in_two(tmp_path):
    words = ["train_siamese.py", "--data_path", tmp_path / "missing", "--save_dir", tmp_path / "run", *FLAGS]
    done = run(*TORCHRUN, *words, env=ENVIRONMENT)
    assert done.stderr.count("error: ") == 1 and f"{tmp_path / 'missing'} is not a folder" in done.stderr
    assert "exitcode  : 2" in done.stderr


# --- pictures, shared out -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for i in range(21):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((60 + i, 80)).save(folder / f"{i:02}.jpg")
    (folder / "bad.jpg").write_text("no picture")
    return folder


def test_two_processes_rank_each_picture_once_and_go_on_with_what_others_have_left(pictures, tmp_path):
    config = {"model_name": "alexnet", "model_type": 0, "weights": "none", "recipe": "modern", "image_size": 64}
    state = {"kind": "siamese", "config": config, "transform": transforms.describe(64)}
    utils.save_checkpoint(tmp_path / "best.pt", state | {"model": SiameseNet(**config).state_dict()})
    lines = [str(path) for path in sorted(pictures.iterdir())]
    (tmp_path / "list.txt").write_text("\n".join([*lines, *lines[:5]]))  # some are named twice
    tables = []
    for name, launcher in (("one", []), ("two", TORCHRUN)):
        output = tmp_path / name / "ranks.csv"
        words = [tmp_path / "list.txt", "--check_point", tmp_path / "best.pt", "--output", output, "--device", "cpu"]
        words += ["--no-amp"]  # the parts of a batch differ
        if launcher:  # a killed run of four processes has left the journals of two of its ranks, one of them torn
            output.parent.mkdir()
            journal = f".ranks.csv.{utils.sha256(tmp_path / 'best.pt')[:12]}"
            rows = [[path, float(score), None, path, 0, -1] for path, score in tables[0].iloc[:3, :2].to_numpy()]
            torn = json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n" + json.dumps(rows[2])[:-9]
            (output.parent / f"{journal}.3.part").write_text(torn)
            (output.parent / f"{journal}.1.part").write_text(json.dumps(rows[1]) + '\n["to')
        done = run(*launcher, "rank_images.py", *words, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("21 pictures ranked") == 1
        assert sorted(path.name for path in output.parent.iterdir()) == ["ranks.csv", "ranks.unreadable.csv"]
        tables.append(pd.read_csv(output))
    assert "resuming: 2 pictures" in done.stdout
    pd.testing.assert_frame_equal(*tables, atol=1e-4)


def test_features_by_two_processes_are_those_of_one_in_the_same_order(pictures, tmp_path):
    flags = ["--model_name", "shufflenet_v2_x0_5", "--weights", "none", "--image_size", 64, "--device", "cpu"]
    found = []
    for name, launcher in (("one", []), ("two", TORCHRUN)):
        words = [pictures, "--output", tmp_path / name / "f.npz", "--batch_size", 4, *flags]
        done = run(*launcher, "feature_extractor.py", *words, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (tmp_path / name).iterdir()] == ["f.npz"]
        found.append(np.load(tmp_path / name / "f.npz"))
    one, two = found
    assert (one["names"] == two["names"]).all() and len(one["names"]) == 21 and (one["left_out"] == ["bad.jpg"]).all()
    assert torch.allclose(*(torch.from_numpy(each["features"]) for each in found), atol=1e-5)

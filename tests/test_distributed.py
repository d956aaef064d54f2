"""Two processes learn what one does: the same losses step by step, and the same test figures."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import run

import utils

# The sample's 42 training pictures are one batch: an epoch is a step, and metrics.csv holds the loss of each. The rate
# is small because AdamW divides a gradient by its size: where it is all but 0, rounding decides on a whole step.
FLAGS = ["--weights", "none", "--image_size", 64, "--batch_size", 64, "--epochs", 20, "--augment", "none", "--seed", 1]


def torchrun(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, *words]
    return subprocess.run(map(str, command), cwd=utils.ROOT, capture_output=True, text=True, timeout=400)


@pytest.mark.parametrize(
    ("script", "flags", "figure"),
    [
        ("train_siamese.py", ["--model_type", 1, "--learning_rate", 1e-6], "pair_accuracy"),
        ("train_classifier.py", ["--model_name", "resnet18", "--learning_rate", 1e-6], "accuracy"),
    ],
)
def test_two_processes_learn_what_one_does(sample, tmp_path, script, flags, figure):
    one, two = tmp_path / "one", tmp_path / "two"
    words = [script, "--data_path", sample, *FLAGS, *flags, "--save_dir"]
    for done in (run(*words, one), torchrun(*words, two)):
        assert done.returncode == 0, done.stderr[-2000:]
    losses = [pd.read_csv(folder / "metrics.csv")["train_loss"].to_numpy() for folder in (one, two)]
    assert len(losses[0]) == 20 and np.ptp(losses[0]) > 1e-3
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
    tests = [json.loads((folder / "results.json").read_text())["test"] for folder in (one, two)]
    assert tests[0].keys() == tests[1].keys()
    for name, value in tests[0].items():
        assert tests[1][name] == pytest.approx(value, abs=1e-4), name
    assert figure in tests[0]


def test_a_wrong_flag_ends_all_processes_with_one_line(sample, tmp_path):
    done = torchrun("train_siamese.py", "--data_path", tmp_path / "nowhere", "--save_dir", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("nowhere") >= 1 and "Traceback" not in done.stderr.split("torch.distributed")[0]

"""The pipeline's chains from one end to the other, as a user starts them, with the hosts on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from downloads import ENVIRONMENT
from picture_server import flags, serving_pictures

import sample_data
from utils import read_json

TINY = "--weights none --image_size 64 --epochs 1"
QUICK = "--backoff 0.01 --retries 0 --workers 4"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project in a folder of its own, so that its data and outputs are the test's; python, which has all that pip
    would install, in an environment of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("data", "outputs"):
            (folder / path.name).symlink_to(path)
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1 $2" != "-m pip" ] || exit 0\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def script(checkout: Path, *words: object, cwd: Path | None = None, **variables: object) -> subprocess.CompletedProcess:
    environment = ENVIRONMENT | {
        "VIRTUAL_ENV": str(checkout / "venv"),
        "PATH": f"{checkout / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {name: str(value) for name, value in variables.items()}
    words = ["bash", str(checkout / "script.sh"), *map(str, words)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def steps(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Of each step of a chain what was said of it."""
    lines = [line[3:].split(": ", 1) for line in done.stdout.splitlines() if line.startswith("== ")]
    return dict(lines)


# --- own ------------------------------------------------------------------------------------------------------------
def accounted_for(data: Path, truth: dict) -> None:
    """Every line, post and row, and every picture."""
    about = read_json(data / "submissions.json")
    for name in ("lines", "posts", "kept", "rows"):
        assert about[name] == truth[name]
    assert {kind: n for kind, n in about["left_out"].items() if n} == truth["left_out"]
    assert about["kept"] + sum(about["left_out"].values()) == about["posts"]
    survivors, addresses = read_json(data / "survivors.json"), pd.read_csv(data / "dump" / "truth_addresses.csv")
    assert survivors["expected"] == len(addresses) and survivors["survivors"] == addresses["served"].sum()
    assert survivors["statuses"]["gone"] == (addresses["served"] == 0).sum()


def copies_found(data: Path) -> pd.DataFrame:
    """Of each copy of truth_addresses.csv how it was made, and whether it was joined with its original; nothing else
    may be joined."""
    manifest = pd.read_csv(data / "datasets" / "manifest.csv")
    addresses = pd.read_csv(data / "dump" / "truth_addresses.csv")
    addresses["file"] = addresses["address"].str.extract(r"/(\w+)\.\w+$")
    names = manifest["img_link"].map(lambda link: next(file for file in addresses["file"] if file in link))
    addresses["img_id"] = addresses["file"].map(dict(zip(names, manifest["img_id"], strict=True)))
    groups = pd.read_csv(data / "datasets" / "groups.csv").set_index("img_id")["group"]
    addresses["group"] = addresses["img_id"].map(groups)
    there = addresses[addresses["group"].notna()]
    assert (there.groupby("group")["picture"].nunique() == 1).all()
    joined = there.groupby("picture")["group"].nunique() == 1
    copies = there[there["copy"] != "original"]
    return copies.assign(found=copies["picture"].map(joined))


def virality_is_true(data: Path, copies: pd.DataFrame) -> None:
    """V of each picture equals that of the truth where all copies were found; else all but the mean number."""
    truth = pd.read_csv(data / "dump" / "truth_virality.csv")
    table = pd.read_csv(data / "datasets" / "data_set_iv.csv")
    lost = copies["picture"][~copies["found"]]
    assert len(table) == len(truth) + len(lost)
    expected = truth[~truth["picture"].isin(lost)]
    # What V is made of tells the pictures apart: the number and the best of its submissions.
    columns = ["submissions", "max_a_score"]
    found = table.sort_values(columns)[[*columns, "v_score"]].to_numpy()
    if lost.empty:
        assert np.allclose(found, truth.sort_values(columns)[[*columns, "v_score"]], atol=1e-9)
    for row in expected.itertuples():
        assert (np.abs(found[:, :2] - [row.submissions, row.max_a_score]) < 1e-9).all(axis=1).any()


@pytest.mark.parametrize("num_images", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_own_goes_from_a_dump_to_a_report(checkout, num_images):
    name = f"own{num_images}"
    data, out = checkout / "data" / name, checkout / "outputs" / name
    with serving_pictures(data / "dump" / "pictures") as url:
        truth = sample_data.make_dump(data, num_images, 3, f"{url}/files")
        variables = {"DATA_SET": name, "DOWNLOAD_FLAGS": f"{QUICK} {' '.join(flags(url))}", "CLASSIFIER_FLAGS": TINY,
                     "SIAMESE_FLAGS": TINY, "DATA_FLAGS": "--fewest 4"}  # fmt: skip
        files = [Path("data") / name / "dump" / each for each in ("RS_1.zst", "RS_2.ndjson", "top.json")]
        began = time.perf_counter()
        done = script(checkout, "own", *files, cwd=checkout, **variables)
        print(done.stdout, f"{time.perf_counter() - began:.0f} s")
        assert done.returncode == 0, done.stderr
        for made in ("summary.csv", "siamese_1/report.html", "classifier/report.html", "copies.html", "context.json",
                     "ranks.csv", "leaderboard.html"):  # fmt: skip
            assert (out / made).is_file(), made
        accounted_for(data, truth)
        copies = copies_found(data)
        print(copies.groupby("copy")["found"].agg(["sum", "size"]))
        assert copies["found"].mean() >= 0.9
        virality_is_true(data, copies)
        again = script(checkout, "own", **variables)
        assert again.returncode == 0, again.stderr
    said = steps(again)
    assert said.pop("submissions").startswith("those of") and len(said) >= 8
    assert all(text.startswith("done before") for text in said.values()), said

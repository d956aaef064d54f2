"""Trained rankers are compared by what they left in their folders, in words that the numbers carry."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import run_here

import deza2015
import metrics


def leave_scores(folder, img_ids, v_score, scores, **config):
    """What a training leaves of its test pictures."""
    folder.mkdir(parents=True)
    pd.DataFrame({"img_id": img_ids, "v_score": v_score, "score": scores}).to_csv(
        folder / "test_scores.csv", index=False
    )
    (folder / "config.json").write_text(json.dumps({"pair_mode": "all", "data_path": "data", **config}))


def test_two_rankers_and_more_are_compared_with_interval_and_p(tmp_path):
    rng = np.random.default_rng(0)
    v_score = rng.normal(size=60)
    scores = {"good": v_score + rng.normal(0, 0.3, 60), "bad": rng.normal(size=60)}
    scores["other"] = scores["good"] + rng.normal(0, 0.01, 60)
    for name, each in scores.items():
        order = rng.permutation(60)  # the order of the rows is of no importance
        leave_scores(tmp_path / name, order, v_score[order], each[order])
    done = run_here("train_siamese.py", "--compare", tmp_path / "good", tmp_path / "bad")
    assert done.returncode == 0, done.stderr
    row = metrics.compare_rankers([scores["good"], scores["bad"]], v_score)[0]
    assert (
        f"right on {row['a_accuracy']:.4f} of the pairs, {tmp_path / 'bad'} on {row['b_accuracy']:.4f}" in done.stdout
    )
    assert f"difference {row['difference']:+.4f} (95 % {row['low']:+.4f} to {row['high']:+.4f}), p " in done.stdout
    assert f"{tmp_path / 'good'} is better" in done.stdout and "Holm" not in done.stdout
    assert "over 1,770 pairs of 60 test pictures; true of other pictures, but of these trainings alone" in done.stdout
    done = run_here("train_siamese.py", "--compare", *(tmp_path / name for name in scores))
    assert done.stdout.count("difference ") == 3 + done.stdout.count("no difference can be told")
    assert done.stdout.count("for 3 comparisons") == 3 and "no difference can be told" in done.stdout


def test_several_seeds_are_compared_seed_by_seed(tmp_path):
    rng = np.random.default_rng(1)
    v_score = rng.normal(size=100)
    runs = {}
    for name, noise in (("a", 0.5), ("b", 1.0)):
        runs[name] = np.full((3, 100), np.nan)
        for seed in range(3):
            rows = np.arange(20 * seed, 20 * seed + 60)
            runs[name][seed, rows] = v_score[rows] + rng.normal(0, noise, 60)
            leave_scores(tmp_path / name / f"seed_{seed}", rows, v_score[rows], runs[name][seed, rows])
        (tmp_path / name / "seeds.json").write_text("{}")
    row = metrics.compare_rankers(list(runs.values()), v_score)[0]
    done = run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert f"(95 % {row['low']:+.4f} to {row['high']:+.4f})" in done.stdout and row["seeds"] == 3
    assert "3 trainings each; true of other pictures and of new trainings" in done.stdout
    fault = run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "b" / "seed_0")
    assert fault.returncode == 2 and "cannot be compared seed by seed" in fault.stderr


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"img_ids": np.arange(1, 13)}, "different pictures"),
        ({"v_score": np.arange(12.0)[::-1]}, "different virality scores"),
        (None, "pass two runs or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, other, said):
    about = {"img_ids": np.arange(12), "v_score": np.arange(12.0), "scores": np.ones(12)}
    leave_scores(tmp_path / "a", **about)
    if other:
        leave_scores(tmp_path / "b", **about | other)
    done = run_here("train_siamese.py", "--compare", *sorted(tmp_path.iterdir()))
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_without_an_unequal_pair_or_a_table_so_too(tmp_path):
    leave_scores(tmp_path / "a", np.arange(5), np.ones(5), np.arange(5.0))
    done = run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "a")
    assert done.returncode == 2 and "no pair was scored by all rankers" in done.stderr
    done = run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "nothing")
    assert done.returncode == 2 and "test_scores.csv" in done.stderr


def test_on_the_published_pairs_the_489_alone_count(real_data, tmp_path):
    pairs = deza2015.read_pairs(real_data / "deza2015")
    ids = np.sort(pairs.loc[pairs["top"], ["img_id_viral", "img_id_other"]].to_numpy().ravel())
    table = deza2015.read_table(real_data / "deza2015").set_index("img_id")["v_score"]
    v_score = table.reindex(ids).fillna(0).to_numpy()
    rng = np.random.default_rng(2)
    config = {"pair_mode": "deza", "data_path": str(real_data)}
    leave_scores(tmp_path / "a", ids, v_score, v_score + rng.normal(size=len(ids)), **config)
    leave_scores(tmp_path / "b", ids, v_score, rng.normal(size=len(ids)), **config)
    done = run_here("train_siamese.py", "--compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "McNemar's exact p" in done.stdout
    unequal = int(done.stdout.split("over ")[1].split(" pairs")[0])
    assert 480 <= unequal <= 489

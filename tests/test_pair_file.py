"""Pairs that somebody else has made: read, checked, split without a picture in two, trained on as they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_here

import data_set
import losses
import metrics
import pair_file
import train_siamese
from training_data import load_ranking
from utils import UserError

FLAGS = ["--pair_mode", "file", "--weights", "none", "--image_size", "64", "--epochs", "1", "--model_type", "0"]


def write_pairs(data: Path, rows: list[str], header: str = "img_id_1,img_id_2,target") -> None:
    (data / "datasets" / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")


def made_pairs(data: Path, seed: int = 0) -> pd.DataFrame:
    """Pairs inside the splits of a sample, both ways round, every fifth a tie, with weights."""
    table = pd.read_csv(data / "datasets" / "data_set_iv.csv")
    rng, parts = np.random.default_rng(seed), []
    split = data_set.split_of(table["img_id"], 0)
    for name in data_set.SPLITS:
        images = table[split == name].reset_index(drop=True)
        pairs = rng.permutation(data_set.draw_pairs(images["v_score"].to_numpy(), "all", 0))[:60]
        targets = data_set.targets_of(images["v_score"].to_numpy(), pairs)
        targets[::5] = 0.5
        ids = images["img_id"].to_numpy()[pairs]
        parts.append(pd.DataFrame({"img_id_1": ids[:, 0], "img_id_2": ids[:, 1], "target": targets, "split": name}))
    made = pd.concat(parts, ignore_index=True)
    return made.assign(weight=rng.integers(1, 4, len(made)))


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("img_id_1,img_id_2,target", "1,99999,1", "img_id_2 99999 is not in data_set_iv.csv"),
        ("img_id_1,img_id_2,target", "1,x,1", "img_id_2 x is not a whole number"),
        ("img_id_1,img_id_2,target", "1,2,1.5", "target 1.5 is not a number from 0 to 1"),
        ("img_id_1,img_id_2,target", "1,2,", "target nan is not a number from 0 to 1"),
        ("img_id_1,img_id_2,target", "2,2,1", "img_id_2 2 is paired with itself"),
        ("img_id_1,img_id_2,target,weight", "1,2,1,nan", "weight nan is not a number above 0"),
        ("img_id_1,img_id_2,target,weight", "1,2,1,0", "weight 0 is not a number above 0"),
        ("img_id_1,img_id_2,target,weight", "1,2,1,-2", "weight -2 is not a number above 0"),
        ("img_id_1,img_id_2,target,weight", "1,2,1,1e300", "weight 1e+300 is not a number above 0 and below 1e100"),
        ("img_id_1,img_id_2,target,split", "1,2,1,dev", "split dev is none of train, validation, test"),
        ("img_id_1,img_id_2,target,split", "5,6,1,test", "img_id 5 is in split test, and in train above"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(copied, tmp_path, header, row, says):
    good = {"weight": ",1", "split": ",train"}
    tail = "".join(good.get(name, "") for name in header.split(","))
    write_pairs(copied, [f"3,4,1{tail}", f"5,7,0.5{tail}", row], header)
    done = run_here("train_siamese.py", "--data_path", copied, "--save_dir", tmp_path / "run", *FLAGS)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "pairs.csv line 4: " in done.stderr and says in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_file_or_column_is_named(copied, tmp_path):
    command = ["train_siamese.py", "--data_path", copied, "--save_dir", tmp_path / "run", *FLAGS]
    assert "pairs.csv does not exist" in run_here(*command).stderr
    write_pairs(copied, ["1,2"], "img_id_1,img_id_2")
    assert "no column target" in run_here(*command).stderr


def test_it_trains_on_the_files_pairs_and_is_tested_on_its_test_pairs(copied, tmp_path):
    made = made_pairs(copied)
    made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    done = run_here("train_siamese.py", "--data_path", copied, "--save_dir", tmp_path, *FLAGS)
    assert done.returncode == 0, done.stderr
    test = json.loads((tmp_path / "results.json").read_text())["test"]
    scores = pd.read_csv(tmp_path / "test_scores.csv").set_index("img_id")["score"]
    asked = made[(made["split"] == "test") & (made["target"] != 0.5)]
    assert test["pairs"] == len(asked)
    first, second = (scores.loc[asked[side]].to_numpy() for side in ("img_id_1", "img_id_2"))
    right = (np.sign(first - second) == np.sign(asked["target"] - 0.5)).to_numpy()
    assert test["pair_accuracy"] == pytest.approx(np.average(right, weights=asked["weight"]))
    assert set(scores.index) == set(made.loc[made["split"] == "test", ["img_id_1", "img_id_2"]].stack())
    same = run_here("train_siamese.py", "--compare", tmp_path, tmp_path)
    assert same.returncode == 0, same.stderr
    assert f"is right on {test['pair_accuracy']:.4f} of the pairs" in same.stdout


def test_the_targets_need_not_be_the_order_of_virality(copied):
    made = made_pairs(copied)
    made["target"] = 1 - made["target"]
    made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    data = load_ranking(copied, image_size=64, pair_mode="file", num_workers=1)
    for name, pairs in data.pairs.items():
        v_score = data.v_score[data.rows[name]]
        decided = pairs.targets != 0.5
        assert (data_set.targets_of(v_score, pairs.places)[decided] == 1 - pairs.targets[decided]).all()
        assert metrics.pair_accuracy(-v_score, v_score, pairs) == 1.0


def test_a_batch_has_each_pairs_target_and_weight(copied):
    made = made_pairs(copied)
    made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    data = load_ranking(copied, image_size=64, pair_mode="file", num_workers=1)
    ids = data.pictures.img_ids[data.rows["train"]]
    train = made[made["split"] == "train"]
    drawn = []
    for places, targets, weights in train_siamese.draw_batches(
        data.v_score[data.rows["train"]], "file", 16, 0, data.pairs["train"]
    ):
        first, second = np.split(ids[places], 2)
        weights = (weights.numpy() * train["weight"].mean()).round(6)
        drawn += zip(first, second, targets.tolist(), weights, strict=True)
    assert sorted(drawn) == sorted(
        train[["img_id_1", "img_id_2", "target", "weight"]].itertuples(index=False, name=None)
    )


def test_a_pair_of_weight_two_counts_as_two_pairs():
    scores = torch.tensor([0.3, -1.0, 0.2, 0.5])
    target = torch.tensor([1.0, 0.5, 0.0])
    once = losses.ranknet_loss(scores[:3], scores[1:], target, torch.tensor([1.0, 2.0, 1.0]))
    rows = [0, 1, 1, 2]
    assert once * 3 / 4 == pytest.approx(losses.ranknet_loss(scores[:3][rows], scores[1:][rows], target[rows]).item())


def test_without_validation_pairs_a_part_of_training_serves_and_no_picture_is_in_two_splits():
    rng = np.random.default_rng(0)
    couples = pd.DataFrame({"img_id_1": np.arange(0, 400, 2), "img_id_2": np.arange(1, 400, 2), "target": 1.0})
    couples["split"] = np.where(np.arange(200) < 150, "train", "test")
    tangle = pd.DataFrame(rng.integers(0, 100, (400, 2)), columns=["img_id_1", "img_id_2"])
    tangle = tangle[tangle["img_id_1"] != tangle["img_id_2"]].assign(target=0.0, split="train")
    for made in (couples, tangle, couples.drop(columns="split"), tangle.drop(columns="split")):
        found = pair_file.split_pairs(made.assign(weight=1.0))
        splits = found.melt("split", ["img_id_1", "img_id_2"]).groupby("value")["split"].nunique()
        assert (splits == 1).all() and {"train", "validation"} <= set(found["split"])
        if "split" in made:
            assert (found["split"] == "test").sum() == (made["split"] == "test").sum()
        if made["img_id_1"].is_unique:  # couples: none is torn
            assert len(found) == len(made)


def test_an_ab_test_needs_no_virality_score(copied, tmp_path):
    made = made_pairs(copied).drop(columns=["split"])
    made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    (copied / "datasets" / "data_set_iv.csv").unlink()
    done = run_here("train_siamese.py", "--data_path", copied, "--save_dir", tmp_path, *FLAGS)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["context"] == {} and results["test"]["pairs"] > 0
    won = pair_file.preference(pair_file.read_pair_file(copied))
    table = pd.read_csv(tmp_path / "test_scores.csv").set_index("img_id")
    assert table["v_score"].to_numpy() == pytest.approx(won.loc[table.index].to_numpy())


def test_how_far_an_image_was_preferred_is_its_mean_target_by_weight():
    made = pd.DataFrame(
        [(1, 2, 1.0, 3.0), (2, 1, 1.0, 1.0), (3, 1, 0.5, 4.0)], columns=["img_id_1", "img_id_2", "target", "weight"]
    )
    assert pair_file.preference(made).to_dict() == {1: (3 + 0 + 2) / 8, 2: 1 / 4, 3: 0.5}


def test_a_split_whose_pairs_are_all_equal_is_refused(copied):
    made = made_pairs(copied)
    made.loc[made["split"] == "test", "target"] = 0.5
    made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    with pytest.raises(UserError, match="its test split has .* no pair"):
        load_ranking(copied, image_size=64, pair_mode="file", num_workers=1)
    with pytest.raises(UserError, match="--folds: the column split of pairs.csv"):
        load_ranking(copied, image_size=64, pair_mode="file", num_workers=1, folds=2)

"""Splits, pairs, and the two data sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import data_set
from data_set import Reddit_Images_for_Classification, Reddit_Img_Pair
from decoding.decoder import decode
from utils import UserError


def test_splits_are_70_10_20_and_depend_on_the_id_and_the_seed_alone():
    ids = np.arange(1, 20_001)
    split = data_set.split_of(ids, seed=3)
    shares = [np.mean(split == name) for name in data_set.SPLITS]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    some = np.random.default_rng(0).permutation(ids)[:500]
    assert (data_set.split_of(some, seed=3) == split[some - 1]).all()
    assert (data_set.split_of(ids, seed=4) != split).mean() > 0.3


def test_each_image_is_tested_in_exactly_one_fold():
    folds = np.stack([data_set.split_of(range(2000), 0, fold, 5) for fold in range(5)])
    assert ((folds == "test").sum(0) == 1).all()
    assert np.mean(folds == "validation") == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("mode", "n", "high", "low"),
    [
        ("1", 3000, 250, 250),
        ("2", 3000, 250, 1500),
        ("3", 3000, 1500, 250),
        ("4", 3000, 1500, 1500),
        ("1", 80, 8, 8),  # a tenth stands for 250
        ("all", 80, 80, 80),
    ],
)
def test_pair_modes_set_the_published_sets_against_each_other(mode, n, high, low):
    v_score = np.random.default_rng(0).permutation(n).astype(float)
    first, second = data_set.pair_sets(v_score, mode)
    assert first.sum() == high and second.sum() == low
    assert v_score[first].min() == n - high and v_score[second].max() == low - 1


@pytest.mark.parametrize("mode", ["1", "2", "3", "4", "all"])
def test_drawn_pairs_come_from_those_sets_and_repeat_with_the_seed(mode):
    v_score = np.random.default_rng(0).normal(size=60)
    pairs = data_set.draw_pairs(v_score, mode, seed=5)
    assert (pairs == data_set.draw_pairs(v_score, mode, seed=5)).all()
    high, low = data_set.pair_sets(v_score, mode)
    first, second = pairs.T
    assert ((high[first] & low[second]) | (low[first] & high[second])).all() and (first != second).all()
    targets = data_set.targets_of(v_score, pairs)
    assert (targets == (v_score[first] > v_score[second])).all()
    assert 0.2 < targets.mean() < 0.8  # the more viral one stands on either side


def test_equal_images_have_target_one_half():
    assert data_set.targets_of(np.array([1.0, 1.0, 0.0]), np.array([[0, 1], [0, 2], [2, 0]])).tolist() == [0.5, 1, 0]


def test_no_image_is_in_the_pairs_of_two_splits(sample):
    seen = {}
    for split in data_set.SPLITS:
        pairs = Reddit_Img_Pair(sample, split, "all")
        seen[split] = set(pairs.table["img_id"].iloc[np.unique(pairs.pairs)])
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert sum(map(len, seen.values())) == 60


def test_a_pair_is_two_pictures_and_a_target(sample):
    pairs = Reddit_Img_Pair(sample, "train", 4, transform=lambda picture: picture.size, target_transform=lambda t: -t)
    (size_1, size_2), target = pairs[0]
    assert size_1[0] >= 160 and size_2[0] >= 160 and target in (-1.0, 0.0, -0.5)
    assert "Reddit_Img_Pair" in repr(pairs) and "pair mode" in repr(pairs) and str(len(pairs)) in repr(pairs)


def test_a_pairs_target_is_the_order_of_its_pictures(sample):
    pairs = Reddit_Img_Pair(sample, "test", "all")
    v_score = pairs.table["v_score"].to_numpy()
    assert len(pairs) == len(v_score) * (len(v_score) - 1)
    for index in range(0, len(pairs), 7):
        (picture_1, picture_2), target = pairs[index]
        first, second = pairs.pairs[index]
        assert target == (v_score[first] > v_score[second])
        for picture, row in ((picture_1, first), (picture_2, second)):
            direct = decode(data_set.picture_path(sample, pairs.table["img_id"].iloc[row]))
            assert picture.tobytes() == direct.tobytes()


def test_fewer_pictures_leave_the_others_in_their_splits(copied):
    table = pd.read_csv(copied / "datasets" / "data_set_iv.csv")
    before = {split: set(Reddit_Img_Pair(copied, split).table["img_id"]) for split in data_set.SPLITS}
    table.iloc[::2].to_csv(copied / "datasets" / "data_set_iv.csv", index=False)
    for split in data_set.SPLITS:
        assert set(Reddit_Img_Pair(copied, split).table["img_id"]) == before[split] & set(table["img_id"].iloc[::2])


def test_the_commands_pairs_stay_inside_their_split(sample):
    split = pd.read_csv(sample / "processed" / "splits.csv").set_index("img_id")["split"]
    for name in data_set.SPLITS:
        for mode in "1234":
            pairs = pd.read_csv(sample / "processed" / f"pairs_{mode}_{name}.csv")
            assert len(pairs) and set(split.loc[pairs[["img_id_1", "img_id_2"]].to_numpy().ravel()]) == {name}


def test_the_classification_set_names_its_classes(sample):
    images = Reddit_Images_for_Classification(sample, "train")
    picture, label = images[0]
    assert picture.mode == "RGB" and images.classes[label] == images.table["subreddit"].iloc[0]
    assert "aww" in repr(images) and "train" in repr(images)


def test_wrong_splits_and_pair_modes_list_the_known_ones(sample):
    with pytest.raises(UserError, match="train, validation, test"):
        Reddit_Img_Pair(sample, "training")
    with pytest.raises(UserError, match="1, 2, 3, 4, deza, all"):
        Reddit_Img_Pair(sample, "train", 5)


def test_missing_pictures_are_left_out_and_counted(copied):
    full = Reddit_Img_Pair(copied, "train", "all")
    data_set.picture_path(copied, full.table["img_id"].iloc[0]).unlink()
    less = Reddit_Img_Pair(copied, "train", "all")
    assert less.missing == 1 and len(less.table) == len(full.table) - 1


def test_an_images_class_took_most_of_its_submissions_and_ties_are_left_out():
    rows = [(0, "funny"), (0, "funny"), (0, "pics"), (1, "aww"), (1, "gaming"), (2, "pics"), (2, "pics"), (2, "WTF")]
    submissions = pd.DataFrame(rows, columns=["image_id", "subreddit"]).astype({"subreddit": "category"})
    table, left_out = data_set.classification_table(submissions, pd.Series([10, 11, 12], index=[0, 1, 2]), 0.5)
    assert table[["img_id", "subreddit"]].to_numpy().tolist() == [[10, "funny"]]
    assert left_out == {"ties": 1, "smaller shares": 1}


# --- rules of splitting ---------------------------------------------------------------------------------------------
def test_the_tables_own_split_is_obeyed_where_it_stands():
    table = pd.DataFrame({"img_id": [1, 2, 3], "split": ["test", "train", "validation"]})
    assert data_set.splits_of(table).tolist() == ["test", "train", "validation"]
    assert data_set.splits_of(table, "hash").tolist() == data_set.split_of([1, 2, 3]).tolist()
    for unfit in (table.drop(columns="split"), table.assign(split=["test", "train", "held out"])):
        with pytest.raises(UserError, match="--split table"):
            data_set.splits_of(unfit, "table")


@pytest.mark.parametrize("rule", ["hash", "time"])
def test_copies_of_one_picture_stay_in_one_split_whatever_the_rule(rule):
    n = 400
    table = pd.DataFrame({"img_id": np.arange(n), "group": np.where(np.arange(n) % 4 < 2, np.arange(n) // 4, np.nan)})
    times = np.random.default_rng(0).permutation(n)
    split = data_set.splits_of(table, rule, seed=3, first_times=times)
    assert (pd.Series(split).groupby(table["group"]).nunique() == 1).all() and set(split) == set(data_set.SPLITS)
    alone = data_set.splits_of(table.drop(columns="group"), rule, seed=3, first_times=times)
    assert (alone != split).any()


def test_by_time_the_test_images_are_the_youngest_and_need_times():
    table, times = pd.DataFrame({"img_id": np.arange(100)}), np.arange(100.0)[::-1]
    split = data_set.splits_of(table, "time", first_times=times)
    assert times[split == "test"].min() > times[split != "test"].max() and (split == "test").sum() == 20
    with pytest.raises(UserError, match="--split time: the data set has no submissions"):
        data_set.splits_of(table, "time")


# --- tables ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("img_id,v_score\n1,0.5\n2,inf\n", "line 3: v_score is 'inf', not a valid number"),
        ("img_id,v_score\n1,-inf\n", "line 2: v_score is '-inf', not a valid number"),
        ("img_id,v_score\n1,1e999\n", "line 2: v_score is 'inf', not a valid number"),
        ("img_id,v_score\n1,\n", "line 2: v_score is 'nan', not a valid number"),
        ("img_id,v_score\n1,high\n", "line 2: v_score is 'high', not a valid number"),
        ("img_id,v_score\n1.5,1\n", "line 2: img_id is '1.5', not a valid number"),
        ("img_id,v_score\ninf,1\n", "line 2: img_id is 'inf', not a valid number"),
        ("img_id,v_score\n1e30,1\n", "line 2: img_id is '1e[+]30', not a valid number"),
        ("img_id,v_score\n1,1\n1,2\n", "line 3: img_id 1 occurs twice"),
    ],
)
def test_what_is_no_number_is_named_with_its_file_and_line(tmp_path, content, says):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "data_set_iv.csv").write_text(content)
    with pytest.raises(UserError, match=f"^{tmp_path}/datasets/data_set_iv.csv {says}"):
        data_set.read_table(tmp_path, "data_set_iv", ["v_score"])


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", ["1", "2", "3", "4"])
def test_too_few_images_give_no_pairs_and_no_traceback(mode, n):
    pairs = data_set.draw_pairs(np.arange(n, dtype=float), mode, 0)
    assert pairs.shape == (len(pairs), 2) and (pairs < max(n, 1)).all()
    assert len(pairs) == 0 or n > 1

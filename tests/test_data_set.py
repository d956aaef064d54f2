"""Splits, pairs, the two data sets, and the pictures decoded once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import data_set
from data_set import Reddit_Images_for_Classification, Reddit_Img_Pair
from transforms import decode, to_square
from utils import UserError


@pytest.fixture
def copied(sample, tmp_path):
    """A sample of one's own to spoil."""
    return shutil.copytree(sample, tmp_path / "copy", ignore=shutil.ignore_patterns("*.npy"))


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


def test_cached_pictures_are_those_decoded_directly_and_are_decoded_once(copied):
    ids = pd.read_csv(copied / "datasets" / "data_set_iv.csv")["img_id"]
    pictures = data_set.load_pictures(copied, ids, 48)
    for row in (0, 7, 59):
        direct = decode(data_set.picture_path(copied, pictures.img_ids[row]))
        assert (pictures.batch([row])[0].numpy() == to_square(direct, 48)).all()
        assert tuple(pictures.sizes[row]) == direct.size
    made = (copied / "processed" / "pictures_48.npy").stat().st_mtime_ns
    data_set.load_pictures(copied, ids[:20], 48)
    assert (copied / "processed" / "pictures_48.npy").stat().st_mtime_ns == made


def test_a_changed_picture_is_decoded_again_and_a_broken_one_is_named(copied):
    ids = pd.read_csv(copied / "datasets" / "data_set_iv.csv")["img_id"]
    data_set.load_pictures(copied, ids, 48)
    first, second = ids[0], ids[1]
    shutil.copy(data_set.picture_path(copied, ids[2]), data_set.picture_path(copied, first))
    data_set.picture_path(copied, second).write_text("<html>gone</html>")
    pictures = data_set.load_pictures(copied, ids, 48)
    rows = pictures.rows_of(np.array([first, ids[2]]))
    assert (pictures.batch(rows[:1]) == pictures.batch(rows[1:])).all()
    assert pictures.faults.to_numpy().tolist() == [[second, "not a picture"]] and second not in pictures.img_ids


def test_a_running_training_keeps_its_pictures_while_another_run_decodes_more(copied):
    reading = data_set.load_pictures(copied, range(1, 21), 40)
    before = reading.batch(range(20))
    more = data_set.load_pictures(copied, range(60, 0, -1), 40)
    assert (reading.batch(range(20)) == before).all()
    assert (more.batch(more.rows_of(reading.img_ids)) == before).all()


@pytest.mark.parametrize(("name", "kept"), [("npy", 0), ("npy", 1000), ("csv", 0), ("csv", 40)])
def test_pictures_whose_cache_was_cut_short_are_decoded_again(copied, name, kept):
    whole = data_set.load_pictures(copied, range(1, 13), 40).batch(range(12))
    path = copied / "processed" / f"pictures_40.{name}"
    path.write_bytes(path.read_bytes()[:kept])
    assert (data_set.load_pictures(copied, range(1, 13), 40).batch(range(12)) == whole).all()


def test_a_missing_picture_is_a_named_fault_and_is_used_once_it_is_there(copied):
    path = data_set.picture_path(copied, 3)
    content = path.read_bytes()
    path.unlink()
    pictures = data_set.load_pictures(copied, range(1, 6), 40)
    assert pictures.faults.to_numpy().tolist() == [[3, "no such file"]] and pictures.img_ids.tolist() == [1, 2, 4, 5]
    path.write_bytes(content)
    assert len(data_set.load_pictures(copied, range(1, 6), 40)) == 5


def test_a_write_protected_data_set_is_not_written_to(copied):
    shutil.rmtree(copied / "processed")
    copied.chmod(0o555)
    try:
        pictures = data_set.load_pictures(copied, [1, 2], 40)
        assert len(pictures) == 2 and not (copied / "processed").exists()
    finally:
        copied.chmod(0o755)
        shutil.rmtree(
            data_set.processed_folder(copied) if not (copied / "processed").exists() else copied, ignore_errors=True
        )


def test_an_images_class_took_most_of_its_submissions_and_ties_are_left_out():
    rows = [(0, "funny"), (0, "funny"), (0, "pics"), (1, "aww"), (1, "gaming"), (2, "pics"), (2, "pics"), (2, "WTF")]
    submissions = pd.DataFrame(rows, columns=["image_id", "subreddit"]).astype({"subreddit": "category"})
    table, left_out = data_set.classification_table(submissions, pd.Series([10, 11, 12], index=[0, 1, 2]), 0.5)
    assert table[["img_id", "subreddit"]].to_numpy().tolist() == [[10, "funny"]]
    assert left_out == {"ties": 1, "smaller shares": 1}


# --- building the cache ---------------------------------------------------------------------------------------------
BUILD = """
import sys, time
import data_set
decode = data_set.decode
data_set.decode = lambda path: time.sleep(float(sys.argv[2])) or decode(path)
pictures = data_set.load_pictures(sys.argv[1], eval(sys.argv[3]), 40, int(sys.argv[4]))
print(pictures.batch(range(len(pictures))).sum((1, 2, 3)).tolist())
"""


def build(*words) -> subprocess.Popen:
    words = [sys.executable, "-c", BUILD, *map(str, words)]
    return subprocess.Popen(words, cwd=data_set.ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_build_goes_on_where_it_was(copied, num_workers, monkeypatch, capsys):
    expected = data_set.load_pictures(copied, range(1, 61), 40, cache=False).batch(range(60))
    building, journal = build(copied, 0.05, "range(1, 61)", num_workers), copied / "processed" / ".pictures_40.csv.part"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        assert building.poll() is None
        time.sleep(0.01)
    building.send_signal(signal.SIGKILL)
    building.communicate()
    assert not (copied / "processed" / "pictures_40.csv").exists()
    with open(journal, "a") as file:
        file.write("17,12")  # as a kill in the middle of a line leaves it
    done, decoded = journal.read_bytes().count(b"\n") - 1, []
    monkeypatch.setattr(data_set, "decode", lambda path: decoded.append(path) or decode(path))
    pictures = data_set.load_pictures(copied, range(1, 61), 40, num_workers=0)
    assert (pictures.batch(range(60)) == expected).all()
    assert 16 <= done < 60 and len(decoded) == 60 - done and f"going on: {done} of 60" in capsys.readouterr().out
    assert not list((copied / "processed").glob(".*"))


def test_runs_that_build_at_once_share_the_cache_and_mix_nothing(copied):
    lists = ["range(1, 31)", "range(60, 20, -1)", "[5, 3, 60]"]
    runs = [build(copied, 0.01, ids, 1) for ids in lists]
    for run, ids in zip(runs, lists, strict=True):
        pixels = data_set.load_pictures(copied, eval(ids), 40, cache=False)
        expected = pixels.batch(range(len(pixels))).sum((1, 2, 3)).tolist()
        assert run.communicate()[0] == f"{expected}\n" and run.returncode == 0
    index = pd.read_csv(copied / "processed" / "pictures_40.csv")
    assert sorted(index["img_id"]) == list(range(1, 61))  # what one has decoded serves the others


def test_of_a_cache_only_what_has_changed_is_decoded_again(copied, monkeypatch):
    before = data_set.load_pictures(copied, range(1, 21), 40).batch(range(20))
    shutil.copy(data_set.picture_path(copied, 30), data_set.picture_path(copied, 7))
    decoded = []
    monkeypatch.setattr(data_set, "decode", lambda path: decoded.append(path.name) or decode(path))
    after = data_set.load_pictures(copied, range(1, 26), 40, num_workers=0)
    assert decoded == ["7.jpg", *(f"{i}.jpg" for i in range(21, 26))]
    same = [row for row in range(20) if row != 6]
    assert (after.batch(same) == before[same]).all() and (after.batch([6]) != before[6:7]).any()


def test_what_has_to_be_decoded_does_not_move_the_random_numbers(copied):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    data_set.load_pictures(copied, range(1, 21), 40)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_cache_pictures_are_the_same_and_nothing_is_kept(copied):
    data_set.picture_path(copied, 2).write_text("<html>gone</html>")
    kept = data_set.load_pictures(copied, range(1, 11), 40)
    shutil.rmtree(copied / "processed")
    read = data_set.load_pictures(copied, range(1, 11), 40, cache=False)
    assert not (copied / "processed").exists()
    assert (read.img_ids == kept.img_ids).all() and (read.sizes == kept.sizes).all()
    assert read.faults.to_numpy().tolist() == kept.faults.to_numpy().tolist() == [[2, "not a picture"]]
    assert (read.batch([8, 0, 3]) == kept.batch([8, 0, 3])).all() and len(read.batch(np.arange(0))) == 0


def test_a_disk_too_small_is_said_before_anything_is_decoded(copied, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(data_set.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"96,000 bytes for decoded pictures, 1,000 are free; see --cache off"):
        data_set.load_pictures(copied, range(1, 21), 40)

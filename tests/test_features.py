"""Features from anywhere: files that can be used and that cannot, heads trained on them, unseen features ranked."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run, run_here

import data_set
import feature_files
import feature_heads
import metrics
from utils import UserError

WIDTH = 20


@pytest.fixture(scope="module")
def told(sample, tmp_path_factory):
    """Features of the sample that hold its virality and its community, among noise; of unseen pictures too."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    labels = pd.read_csv(sample / "datasets" / "image4classification.csv").set_index("img_id")["label"]
    mix = rng.normal(size=(7, WIDTH))

    def features_of(v_score, label):
        told = np.column_stack([np.tanh(v_score), v_score > 0, np.eye(5)[label] * 2])
        return (told @ mix + rng.normal(0, 0.05, (len(v_score), WIDTH))) * np.logspace(-3, 3, WIDTH)

    label = labels.reindex(table["img_id"]).fillna(0).astype(int).to_numpy()
    names = table["img_id"].astype(str).to_numpy(str)
    np.savez(folder / "known.npz", names=names, features=features_of(table["v_score"].to_numpy(), label))
    v_score = rng.normal(0, 2, 50)
    unseen = np.array([f"elsewhere/{i}, ünseen.jpg" for i in range(50)])
    np.savez(folder / "unseen.npz", names=unseen, features=features_of(v_score, rng.integers(5, size=50)))
    pd.DataFrame({"path": unseen, "v_score": v_score}).to_csv(folder / "unseen.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def ranker(sample, told):
    words = ["train_siamese.py", "--data_path", sample, "--features", told / "known.npz"]
    done = run_here(*words, "--save_dir", told / "ranker")
    assert done.returncode == 0, done.stderr
    return told / "ranker"


def refused(done, *says: str) -> None:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert all(part in done.stderr for part in says), done.stderr


def test_a_ranker_of_features_leaves_what_a_ranker_of_pictures_leaves(ranker, sample):
    results = json.loads((ranker / "results.json").read_text())
    test = results["test"]
    assert test["pair_accuracy"] > 0.85
    assert test["pair_accuracy_low"] <= test["pair_accuracy"] <= test["pair_accuracy_high"]
    assert {"clock", "community"} <= set(results["context"]) and 0 <= results["calibration"]["ece"] <= 1
    assert {row["head"] for row in results["heads"]} == {"linear", "network"}
    assert results["head"]["validation"] == max(row["validation"] for row in results["heads"])
    table = pd.read_csv(ranker / "test_scores.csv")
    ids = pd.read_csv(sample / "datasets" / "data_set_iv.csv")["img_id"]
    assert set(table["img_id"]) == set(ids[data_set.split_of(ids, 0) == "test"])
    assert metrics.pair_accuracy(table["score"].to_numpy(), table["v_score"].to_numpy()) == test["pair_accuracy"]
    assert json.loads((ranker / "config.json").read_text())["features"].endswith("known.npz")
    assert (ranker / "environment.json").is_file() and (ranker / "score_against_virality.png").is_file()
    report = run_here("-m", "pages.summary", ranker.parent)
    assert report.returncode == 0 and (ranker / "report.html").is_file()


def test_unseen_features_are_ranked_by_the_checkpoint_alone(ranker, told, tmp_path):
    words = ["rank_images.py", "--features", told / "unseen.npz", "--check_point", ranker / "best.pt"]
    done = run_here(*words, "--output", tmp_path / "ranks.csv")
    assert done.returncode == 0, done.stderr
    ranks = pd.read_csv(tmp_path / "ranks.csv")
    assert list(ranks) == ["path", "score", "percentile", "x", "y", "w", "h", "p_above_median"]
    assert (ranks["score"].diff().dropna() <= 0).all() and ranks["percentile"].between(0, 100).all()
    truth = pd.read_csv(told / "unseen.csv").set_index("path")["v_score"]
    assert metrics.pair_accuracy(ranks["score"].to_numpy(), truth.loc[ranks["path"]].to_numpy()) > 0.85
    assert ranks["p_above_median"].between(0, 1).all() and ranks["x"].isna().all()


def test_what_is_scored_with_it_does_not_change_a_pictures_score(ranker, told, tmp_path):
    file = feature_files.read_feature_file(told / "unseen.npz")
    head, _ = feature_heads.head_from_checkpoint(ranker / "best.pt", "feature ranker", file)
    all_at_once = feature_heads.outputs_of(head, file.features)
    one_by_one = np.concatenate([feature_heads.outputs_of(head, row[None]) for row in file.features])
    assert one_by_one == pytest.approx(all_at_once, rel=1e-12)


def test_a_classifier_of_features_learns_and_labels(sample, told, tmp_path):
    words = ["train_classifier.py", "--data_path", sample, "--features", told / "known.npz"]
    done = run_here(*words, "--class_weights", "--save_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.7 and len(results["heads"]) > 3
    words = ["train_classifier.py", "--features", told / "known.npz", "--check_point", tmp_path / "best.pt"]
    done = run_here(*words, "--predict", "--output", tmp_path / "labels.csv")
    assert done.returncode == 0, done.stderr
    labels = pd.read_csv(tmp_path / "labels.csv").set_index("path")
    tested = pd.read_csv(tmp_path / "test_predictions.csv").set_index("img_id")
    named = [results["classes"][place] for place in tested["predicted"]]
    assert list(labels.loc[tested.index, "label"]) == named
    assert labels.loc[tested.index, "probability"].to_numpy() == pytest.approx(tested["probability"], abs=2e-6)


def test_features_need_no_pictures(copied, told, tmp_path):
    images = sorted((copied / "images").glob("*.jpg"))
    shutil.rmtree(copied / "images")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", names=np.array([path.stem for path in images]), features=rng.normal(size=(60, 4)))
    for script in ("train_classifier.py", "train_siamese.py"):
        words = ["--data_path", copied, "--features", tmp_path / "noise.npz", "--save_dir", tmp_path / script]
        done = run_here(script, *words)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / script / "results.json").is_file()
    assert not (tmp_path / "train_classifier.py" / "mistakes.png").exists()


def test_the_same_seed_gives_the_same_head_and_several_seeds_a_mean(ranker, sample, told, tmp_path):
    words = ["train_siamese.py", "--data_path", sample, "--features", told / "known.npz"]
    done = run_here(*words, "--seeds", 0, 1, "--save_dir", tmp_path)
    assert done.returncode == 0 and "mean ± standard deviation" in done.stdout, done.stderr
    again = pd.read_csv(tmp_path / "seed_0" / "test_scores.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(ranker / "test_scores.csv"), check_exact=True)
    done = run_here("train_siamese.py", "--compare", tmp_path / "seed_0", ranker)
    assert done.returncode == 0 and "no difference can be told" in done.stdout
    before = (ranker / "results.json").stat().st_mtime_ns
    assert run_here(*words, "--save_dir", ranker, "--check_point", "last").returncode == 0
    assert (ranker / "results.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("pair_mode", ["1", "4", "file"])
def test_heads_learn_from_the_other_modes_pairs(copied, told, tmp_path, pair_mode):
    if pair_mode == "file":
        v_score = pd.read_csv(copied / "datasets" / "data_set_iv.csv").set_index("img_id")["v_score"]
        pairs = np.random.default_rng(0).choice(v_score.index.to_numpy(), (4000, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        made = pd.DataFrame(pairs, columns=["img_id_1", "img_id_2"])
        made["target"] = (v_score.loc[pairs[:, 0]].to_numpy() > v_score.loc[pairs[:, 1]].to_numpy()).astype(float)
        made.to_csv(copied / "datasets" / "pairs.csv", index=False)
    words = ["train_siamese.py", "--data_path", copied, "--features", told / "known.npz", "--pair_mode", pair_mode]
    done = run_here(*words, "--save_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"]["pair_accuracy"] > 0.7


class Trap:
    """An object whose unpickling would be seen."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"names": np.array(["1", "2"])}, "no array features"),
        ({"names": np.array(["1", "2"]), "features": np.zeros((3, 4))}, "names is (2,), features (3, 4)"),
        ({"names": np.array(["1", "2"]), "features": np.zeros(2)}, "features (2,)"),
        ({"names": np.array(["1", "2"]), "features": np.zeros((2, 0))}, "nothing to learn from"),
        ({"names": np.array(["1", "2"]), "features": np.array([[1.0, 2.0], [1.0, np.nan]])}, "feature 1 of '2'"),
        ({"names": np.array(["1", "2"]), "features": np.array([[1.0, 2.0], [np.inf, 0]])}, "feature 0 of '2'"),
        ({"names": np.array(["1", "1"]), "features": np.zeros((2, 3))}, "'1' occurs twice"),
        ({"names": np.array(["1", "a/1.jpg"]), "features": np.zeros((2, 3))}, "refer to img_id 1"),
        ({"names": np.array(["a", "b"]), "features": np.zeros((2, 3))}, "none of its 2 names ('a', …) is in the table"),
        ({"names": np.array(["1", "2"]), "features": np.array([["x"], ["y"]])}, "which is not numeric"),
        ({"names": np.array([Trap(), "2"], dtype=object), "features": np.zeros((2, 3))}, "pickled objects"),
        ({"names": np.array(["1", "2"]), "features": np.array([[Trap()], [1]], dtype=object)}, "pickled objects"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_line(sample, tmp_path, arrays, says):
    np.savez(tmp_path / "f.npz", **arrays)
    for script in ("train_siamese.py", "train_classifier.py"):
        done = run_here(script, "--data_path", sample, "--features", tmp_path / "f.npz", "--save_dir", tmp_path / "run")
        refused(done, "--features", "f.npz", says)
    assert not (tmp_path / "run").exists()


def test_what_is_no_npz_is_refused(sample, tmp_path, ranker, told):
    words = ["train_siamese.py", "--data_path", sample, "--save_dir", tmp_path / "run", "--features"]
    refused(run_here(*words, tmp_path / "none.npz"), "none.npz does not exist")
    refused(run_here(*words, tmp_path), "not a feature file")
    (tmp_path / "page.npz").write_text("<html>gone</html>")
    refused(run_here(*words, tmp_path / "page.npz"), "page.npz cannot be read: not a feature file")
    np.save(tmp_path / "one.npy", np.zeros((2, 3)))
    refused(run_here(*words, tmp_path / "one.npy"), "one.npy cannot be read: not a feature file")
    whole = (told / "known.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    refused(run_here(*words, tmp_path / "half.npz"), "or only part of one")
    (tmp_path / "damaged.npz").write_bytes(whole[:200] + bytes(200) + whole[400:])
    refused(run_here(*words, tmp_path / "damaged.npz"), "damaged.npz cannot be read as an .npz of arrays")


def test_features_and_checkpoints_that_do_not_belong_together_are_refused(sample, tmp_path, ranker, told):
    np.savez(tmp_path / "wide.npz", names=np.array(["1"]), features=np.zeros((1, WIDTH + 1)))
    words = ["rank_images.py", "--check_point", ranker / "best.pt", "--output", tmp_path / "ranks.csv"]
    refused(run_here(*words, "--features", tmp_path / "wide.npz"), f"has {WIDTH + 1} numbers", f"trained on {WIDTH}")
    refused(run_here(*words, sample / "images"), "is not a siamese checkpoint (it holds feature ranker)")
    refused(run_here(*words), "SOURCE, or --features")
    refused(run_here(*words, "--features", told / "unseen.npz", "--page", tmp_path / "p.html"), "--page needs pictures")
    label = ["train_classifier.py", "--predict", "--check_point", ranker / "best.pt", "--features"]
    refused(run_here(*label, told / "unseen.npz"), "is not a feature classifier checkpoint")
    refused(run_here(*label[:-1]), "--predict labels the pictures of a SOURCE, or --features")


def test_names_of_any_bytes_and_another_programs_about_are_taken(tmp_path):
    features = np.arange(6).reshape(3, 2)
    about = np.array("CLIP, ViT-B/32")
    np.savez(tmp_path / "f.npz", names=np.array([b"\xff/7.jpg", b"-3", b"0012"]), features=features, about=about)
    file = feature_files.read_feature_file(tmp_path / "f.npz")
    assert file.about == {} and file.features.dtype == np.float32
    assert feature_files.places_of(file, np.array([12, 5, 7, -3])).tolist() == [2, -1, 0, 1]
    assert file.names[0] == "\udcff/7.jpg"


def test_images_without_features_and_names_without_images_are_said(sample, told, tmp_path):
    with np.load(told / "known.npz") as file:
        names, features = file["names"], file["features"]
    names = np.array(["pictures/999999.jpg", *(f"pictures/{name}.jpg" for name in names[1:])])
    np.savez(tmp_path / "f.npz", names=names, features=features)
    words = ["train_siamese.py", "--data_path", sample, "--features", tmp_path / "f.npz"]
    done = run_here(*words, "--save_dir", tmp_path / "run", "--left_out", tmp_path / "left.csv")
    assert done.returncode == 0, done.stderr
    assert "1 of 60 names are not in the table ('pictures/999999.jpg', …)" in done.stdout
    assert "1 of 60 images have no features and are left out" in done.stdout
    assert json.loads((tmp_path / "run" / "results.json").read_text())["left_out"] == {"no features": 1}
    assert "no features" in (tmp_path / "left.csv").read_text()


def test_features_that_never_vary_or_vary_wildly_do_no_harm():
    x = torch.tensor([[1.0, 5.0, 1e6], [1.0, 6.0, -1e6], [1.0, 7.0, 0.0]])
    scale = feature_heads.Standardise(3)
    scale.fit(x)
    found = scale(x)
    assert torch.isfinite(found).all() and (found[:, 0] == 0).all() and found.abs().max() < 2
    one = feature_heads.Standardise(1)
    one.fit(torch.ones(4, 1))
    assert (one(torch.ones(4, 1)) == 0).all()


def test_features_of_our_own_extractor_train_a_ranker(sample, tmp_path):
    words = ["feature_extractor.py", sample, "--weights", "none", "--image_size", 64, "--output", tmp_path / "f.npz"]
    assert run_here(*words).returncode == 0
    done = run_here(
        "train_siamese.py", "--data_path", sample, "--features", tmp_path / "f.npz", "--save_dir", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    file = feature_files.read_feature_file(tmp_path / "f.npz")
    feature_heads.head_from_checkpoint(tmp_path / "run" / "best.pt", "feature ranker", file)
    file.about["weights_sha256"] = "another"
    with pytest.raises(UserError, match="made with weights_sha256 another"):
        feature_heads.head_from_checkpoint(tmp_path / "run" / "best.pt", "feature ranker", file)


def test_published_scenes_are_ranked_from_somebodys_features(real_data, tmp_path):
    file = real_data / "weights" / "scenes_efficientnet_lite2.npz"
    start = time.process_time()
    done = run("train_siamese.py", "--data_path", real_data / "scenes", "--features", file, "--save_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test"]["pair_accuracy"] >= 0.97 and results["train_seconds"] < 60
    assert time.process_time() - start < 60

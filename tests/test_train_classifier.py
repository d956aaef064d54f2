"""The classifier's training as a user runs it: what it writes, that it resumes, freezes, compares and labels."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run, run_here
from sklearn import metrics as sklearn_metrics

import data_set
import label_images
import metrics
import train_classifier
import training_data
from locks import alone_in
from studies import baselines, comparison
from table_files import read_rows
from train_classifier import parse_arguments, train
from utils import UserError

SMALL = "shufflenet_v2_x0_5"  # 1.4 million parameters
TWO = ["--model_name", SMALL, "--batch_size", "16"]


def words(data_path, save_dir, *more) -> list[str]:
    common = ["--data_path", data_path, "--save_dir", save_dir, "--weights", "none", "--image_size", 64]
    return [str(word) for word in [*common, "--device", "cpu", "--num_workers", 1, *more]]


def settings(data_path, save_dir, **more) -> dict:
    """What `train` takes: a small network on the sample."""
    small = {"model_name": SMALL, "batch_size": 16, "weights": "none", "image_size": 64, "device": "cpu"}
    return small | {"data_path": data_path, "save_dir": save_dir, "num_workers": 1} | more


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = run("train_classifier.py", *words(sample, folder, *TWO, "--epochs", 3))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def timeless(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns=["seconds", "images_per_second"])


# --- a run ----------------------------------------------------------------------------------------------------------
def test_a_run_leaves_its_records_and_pictures(finished, sample):
    folder, output = finished
    for name in ("config.json", "environment.json", "last.pt", "best.pt", "confusion.csv", "test_pictures.txt"):
        assert (folder / name).is_file()
    for name in ("curves", "confusion"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(folder / "metrics.csv")) == 3
    assert "test accuracy" in output and "chance 0.2000" in output
    assert set(pd.read_csv(folder / "metrics.csv")) >= {"train_loss", "val_loss", "val_accuracy", "val_macro_f1"}


def test_the_results_agree_with_the_predictions(finished, sample):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    history = pd.read_csv(folder / "metrics.csv")
    smoothed = history["val_loss"].rolling(5, min_periods=1).mean()
    assert results["best_epoch"] == history["epoch"][smoothed.idxmin()]
    table = pd.read_csv(folder / "test_predictions.csv")
    truth = pd.read_csv(sample / "datasets" / "image4classification.csv").set_index("img_id")["label"]
    assert set(table["img_id"]) == set(truth.index[data_set.split_of(truth.index) == "test"])
    assert (table["label"] == truth.loc[table["img_id"]].to_numpy()).all()
    right = table["label"] == table["predicted"]
    test = results["test"]
    assert test["accuracy"] == pytest.approx(right.mean())
    assert (test["accuracy_low"], test["accuracy_high"]) == metrics.wilson_interval(right.sum(), len(right))
    assert results["n"]["test"] == len(table) and results["classes"] == list(data_set.CLASSES)
    probabilities = table[[f"p_{name}" for name in data_set.CLASSES]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), table["predicted"])
    confusion = pd.read_csv(folder / "confusion.csv")
    assert confusion[results["classes"]].to_numpy().sum() == len(table)
    assert (folder / "mistakes.png").is_file() == (not right.all())


def test_the_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    found = metrics.classification_metrics(labels, predicted, 5)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    recalls = sklearn_metrics.recall_score(labels, predicted, labels=range(4), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(recalls)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_broken_off_and_resumed_it_ends_where_the_undisturbed_run_ends(finished, sample, tmp_path, monkeypatch):
    epochs = []

    def until_the_second(*given, label, **options):
        epochs.append(label)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return one_epoch(*given, label=label, **options)

    one_epoch = train_classifier.train_one_epoch
    monkeypatch.setattr(train_classifier, "train_one_epoch", until_the_second)
    asked = settings(sample, tmp_path, epochs=3, check_point="last")
    with pytest.raises(KeyboardInterrupt):
        train(**asked)
    train(**asked)
    assert epochs == ["epoch 1/3", "epoch 2/3", "epoch 2/3", "epoch 3/3"]
    pd.testing.assert_frame_equal(timeless(tmp_path), timeless(finished[0]), atol=1e-4)
    ours, theirs = (pd.read_csv(folder / "test_predictions.csv") for folder in (tmp_path, finished[0]))
    np.testing.assert_array_equal(ours["predicted"], theirs["predicted"])


def test_a_finished_run_is_not_trained_again_and_another_is_not_gone_on_with(finished, sample, monkeypatch):
    folder, _ = finished
    monkeypatch.setattr(train_classifier, "fit", lambda *_, **__: pytest.fail("trained again"))
    results = train(**settings(sample, folder, epochs=3, check_point="last"))
    assert results == json.loads((folder / "results.json").read_text())
    monkeypatch.undo()
    with pytest.raises(UserError, match="--label_smoothing is 0.2, but .* was trained with 0.1"):
        train(**settings(sample, folder, epochs=3, check_point="last", label_smoothing=0.2))


def test_going_on_with_more_epochs_is_refused_and_leaves_the_run(finished, sample):
    folder, before = finished[0], (finished[0] / "last.pt").read_bytes()
    for epochs in (2, 4):
        with pytest.raises(
            UserError, match=f"--epochs is {epochs}, but .* trained with 3, and the schedule depends on it"
        ):
            train(**settings(sample, folder, epochs=epochs, check_point="last"))
    assert (folder / "last.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet"])
def test_an_odd_number_of_pictures_trains_in_batches_of_two(sample, tmp_path, name):
    """39 of them, under batch normalisation, at a size at which the last feature map is one pixel."""
    small = {"model_name": name, "image_size": 32, "batch_size": 2, "epochs": 1, "seed": 3, "augment": "none"}
    results = train(**settings(sample, tmp_path, **small))
    assert results["n"]["train"] % 2 == 1


def test_two_trainings_into_one_folder_are_refused(sample, tmp_path):
    (tmp_path / ".best.pt.4711.part").write_text("what a killed run has left")
    with alone_in(tmp_path), pytest.raises(UserError, match=f"{tmp_path}: another run is writing it"):
        train(**settings(sample, tmp_path, epochs=1))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_picture_is_named_and_left_out(sample, tmp_path, capsys):
    copied = tmp_path / "data"
    shutil.copytree(sample, copied, ignore=shutil.ignore_patterns("processed"))
    ids = pd.read_csv(copied / "datasets" / "image4classification.csv")["img_id"]
    picture = data_set.picture_path(copied, ids[0])
    picture.write_bytes(picture.read_bytes()[:500])
    results = train(**settings(copied, tmp_path / "run", epochs=1, left_out=str(tmp_path / "left.csv")))
    out = capsys.readouterr().out
    assert f"left out: {picture}" in out
    reason = "broken: Truncated File Read"
    assert out.splitlines()[-1] == f"left out: 1 file ({reason}: 1)"
    assert (tmp_path / "left.csv").read_text() == f"path,reason\n{picture},{reason}\n"
    assert results["pictures_left_out"] == 1 and results["left_out"] == {reason: 1}
    assert results["pictures_left_out"] == 1 and sum(results["n"].values()) == len(ids) - 1


# --- what is drawn, and what it weighs ------------------------------------------------------------------------------
def test_balanced_data_has_every_class_equally_often():
    labels = np.repeat([0, 1, 2], [50, 20, 5])
    rows = np.arange(75)[::-1]
    for n, of_each in ((100, 5), (3, 3)):
        chosen = training_data.balanced(rows, labels, n, seed=0)
        assert len(set(chosen)) == len(chosen)
        np.testing.assert_array_equal(np.bincount(labels[chosen]), [of_each] * 3)
    np.testing.assert_array_equal(
        training_data.balanced(rows, labels, 3, 1), training_data.balanced(rows, labels, 3, 1)
    )


def test_a_run_on_balanced_data_tests_on_all(sample, tmp_path, finished):
    results = train(**settings(sample, tmp_path, epochs=1, balance_data=4))
    all_of_them = json.loads((finished[0] / "results.json").read_text())["n"]
    assert results["n"] == all_of_them | {"train": 20}


def test_weighted_sampling_draws_every_class_as_often():
    torch.manual_seed(0)
    labels = np.repeat([0, 1], [900, 100])
    drawn = labels[np.concatenate(train_classifier.draw_batches(labels, 50, "weighted"))]
    assert len(drawn) == 1000 and 0.4 < drawn.mean() < 0.6
    drawn = np.concatenate(train_classifier.draw_batches(labels, 50))
    np.testing.assert_array_equal(np.sort(drawn), np.arange(1000))


def test_class_weights_make_the_classes_count_alike():
    weight = train_classifier.weights_of_classes(np.repeat([0, 2], [30, 10]), 3)
    torch.testing.assert_close(weight[[0, 2]] * torch.tensor([30, 10]), torch.tensor([20.0, 20.0]))
    assert torch.isfinite(weight).all()


# --- frozen features and baselines ----------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", ["published", "last"])
def test_the_feature_file_gives_what_the_frozen_network_gives(sample, tmp_path, cut):
    flags = {"freeze_features": cut, "model_name": "mobilenet_v3_small", "epochs": 3, "learning_rate": 1e-4}
    by_file = train(**settings(sample, tmp_path / "file", **flags))
    through = train(**settings(sample, tmp_path / "network", **flags, feature_file=False))
    tables = [pd.read_csv(tmp_path / name / "test_predictions.csv") for name in ("file", "network")]
    np.testing.assert_array_equal(tables[0]["predicted"], tables[1]["predicted"])
    np.testing.assert_allclose(tables[0]["probability"], tables[1]["probability"], atol=1e-3)
    assert "epoch_speed_up" in by_file and "epoch_speed_up" not in through
    states = [torch.load(tmp_path / name / "best.pt", weights_only=True)["model"] for name in ("file", "network")]
    assert states[0].keys() == states[1].keys()  # a whole network, ready to label pictures


def test_features_are_computed_once_and_a_frozen_run_resumes(sample, tmp_path, monkeypatch):
    flags = {"freeze_features": "published", "epochs": 4, "check_point": "last"}
    whole = train(**settings(sample, tmp_path / "whole", **flags))
    monkeypatch.setattr(train_classifier.feature_extractor, "extract", lambda *_: pytest.fail("computed again"))
    epochs = []

    def until_the_third(*given, label, **options):
        epochs.append(label)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return one_epoch(*given, label=label, **options)

    one_epoch = train_classifier.train_one_epoch
    monkeypatch.setattr(train_classifier, "train_one_epoch", until_the_third)
    asked = settings(sample, tmp_path / "broken", **flags)
    with pytest.raises(KeyboardInterrupt):
        train(**asked)
    resumed = train(**asked)
    assert epochs[-1] == "epoch 4/4" and len(epochs) < 8
    assert resumed["test"] == whole["test"]


def test_squeezenet_whose_head_cannot_be_cut_is_frozen_all_the_same(sample, tmp_path):
    flags = {"model_name": "squeezenet1_1", "freeze_features": "published", "epochs": 1}
    assert "feature_seconds" not in train(**settings(sample, tmp_path, **flags))


BASELINE = {"model_name": SMALL, "weights": "none", "image_size": 64, "device": "cpu", "num_workers": 1}


@pytest.mark.parametrize("head", ["logistic", "svm", "forest", "boosting"])
def test_the_plain_baselines_learn_the_sample(sample, tmp_path, head):
    results = baselines.train(sample, tmp_path, head=head, **BASELINE)
    # A dozen test pictures and the features of an untrained network: above chance, 0.2, is what can be asked of it.
    assert results["test"]["accuracy"] > 0.2
    assert len(pd.read_csv(tmp_path / "test_predictions.csv")) == results["n"]["test"]


@pytest.mark.parametrize("pair_mode", ["1", "all"])
def test_an_svm_on_differences_ranks_pictures(sample, tmp_path, pair_mode):
    results = baselines.train(sample, tmp_path, head="svm", pair_mode=pair_mode, **BASELINE)
    scores = pd.read_csv(tmp_path / "test_scores.csv")
    assert results["test"]["pairs"] > 0 and len(scores) == results["n"]["test"]
    if pair_mode == "all":
        found = metrics.pair_accuracy(scores["score"].to_numpy(), scores["v_score"].to_numpy())
        assert results["test"]["pair_accuracy"] == pytest.approx(found)


# --- several runs ---------------------------------------------------------------------------------------------------
def test_every_picture_is_tested_in_one_fold(sample, tmp_path):
    done = run("train_classifier.py", *words(sample, tmp_path, *TWO, "--epochs", 1, "--folds", 2))
    assert done.returncode == 0, done.stderr
    tested = [set(pd.read_csv(tmp_path / f"fold_{fold}" / "test_predictions.csv")["img_id"]) for fold in range(2)]
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == set(pd.read_csv(sample / "datasets" / "image4classification.csv")["img_id"])
    summary = json.loads((tmp_path / "seeds.json").read_text())
    assert summary["accuracy"]["n"] == 2 and "over 2 runs" in done.stdout


def test_networks_are_compared_and_finished_runs_collected(sample, tmp_path, monkeypatch, capsys):
    networks = ["squeezenet1_1", SMALL]
    asked = settings(sample, tmp_path, epochs=1, batch_size=None)
    table = comparison.compare(networks, **asked)
    output = capsys.readouterr().out
    assert "Pareto front" in output and "choice:" in output
    assert list(table["model"]) == networks and table["pareto"].any()
    assert (table[["parameters", "multiply_adds", "peak_memory_mib", "file_mib"]] > 0).all(axis=None)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert choice["model_name"] in networks and choice["ranker_model_name"] == "alexnet"
    monkeypatch.setattr(train_classifier, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = comparison.compare(networks, **asked)
    pd.testing.assert_frame_equal(again, table)


# --- labels for anyone's pictures -----------------------------------------------------------------------------------
def test_a_folder_is_labelled_as_the_test_split_was(finished, sample, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    table = pd.read_csv(finished[0] / "test_predictions.csv")
    for img_id in table["img_id"]:
        shutil.copy(data_set.picture_path(sample, img_id), folder)
    (folder / "broken.jpg").write_text("gone")
    (folder / ".hidden.jpg").write_text("gone")
    check_point = finished[0] / "best.pt"
    flags = ["--predict", folder, "--output", tmp_path / "labels.csv", "--device", "cpu"]
    done = run("train_classifier.py", "--check_point", check_point, *flags, "--left_out", tmp_path / "left.csv")
    assert done.returncode == 0, done.stderr
    said = f"left out: 2 files (a hidden file: 1, cannot be read: 1) → {tmp_path / 'left.csv'}"
    assert done.stdout.splitlines()[-1] == said
    labels = pd.read_csv(tmp_path / "labels.csv")
    assert list(labels) == ["path", "label", "probability"]
    labels.index = [int(path.rpartition("/")[2].removesuffix(".jpg")) for path in labels["path"]]
    labels = labels.loc[table["img_id"]]
    assert list(labels["label"]) == [data_set.CLASSES[place] for place in table["predicted"]]
    np.testing.assert_allclose(labels["probability"], table["probability"], atol=1e-3)
    assert pd.read_csv(tmp_path / "labels.unreadable.csv")["reason"].tolist() == ["not a picture"]


def test_a_tar_and_a_list_are_labelled_as_their_pictures_are(finished, sample, tmp_path):
    picture = data_set.picture_path(sample, 7)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(picture, "7.jpg")
    (tmp_path / "list.txt").write_text(f"{picture}\n{tmp_path / 't.tar'}\n")
    label_images.label_pictures(tmp_path / "list.txt", finished[0] / "best.pt", tmp_path / "labels.csv", device="cpu")
    labels = pd.read_csv(tmp_path / "labels.csv")
    assert labels["path"].tolist() == [str(picture), f"{tmp_path}/t.tar/7.jpg"]
    assert labels["label"].nunique() == labels["probability"].nunique() == 1
    words = ["--predict", picture, tmp_path / "t.tar", "--device", "cpu", "--output", tmp_path / "labels.parquet"]
    done = run_here("train_classifier.py", "--check_point", finished[0] / "best.pt", *words)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(read_rows(tmp_path / "labels.parquet", ["path", "label"]), labels, check_dtype=False)
    with pytest.raises(UserError, match="--output . is a folder"):
        label_images.label_pictures(tmp_path, finished[0] / "best.pt", ".", device="cpu")


# --- bad input ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--predict", "somewhere"], "--predict needs --check_point FILE"),
        (["--label_smoothing", "1"], "--label_smoothing 1.0 is not in"),
        (["--balance_data", "0"], "--balance_data"),
    ],
)
def test_wrong_flags_end_with_2(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--data_path", "data", *flags])
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        ({"model_name": "alexnett"}, "unknown model 'alexnett'"),
        ({"model_name": "alexnet", "image_size": 32}, "cannot take pictures of 32"),
        ({"networks": [SMALL, "nonet"]}, "unknown model 'nonet'"),
        ({"check_point": "nothing.pt"}, "nothing.pt does not exist"),
        ({"pair_mode": "1"}, "--pair_mode 1 needs --head svm"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(sample, tmp_path, more, message):
    command = comparison.compare if "networks" in more else train
    asked = settings(sample, tmp_path, epochs=1)
    if "pair_mode" in more:
        command, asked = baselines.train, BASELINE | {"data_path": sample, "save_dir": tmp_path}
    with pytest.raises(UserError, match=message):
        command(**asked | more)


def test_a_baseline_that_is_not_there_ends_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        baselines.parse_arguments(["--data_path", "data", "--head", "perceptron"])
    assert end.value.code == 2 and "invalid choice: 'perceptron'" in capsys.readouterr().err


def test_an_unfit_check_point_is_told_in_one_line(tmp_path, finished):
    (tmp_path / "best.pt").write_text("weights")
    done = run("train_classifier.py", "--check_point", tmp_path / "best.pt", "--predict", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_at_most_thirty_flags():
    done = run("train_classifier.py", "--help")
    flags = {word for word in done.stdout.split() if word.startswith("--")}
    assert done.returncode == 0 and len({flag.strip(",[]") for flag in flags if "no-" not in flag}) <= 32

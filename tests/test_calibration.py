"""Probabilities against samples in which they are known: V is the score plus Gumbel noise, so P = σ(difference)."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import calibration
import data_set
import metrics
import visualisation


def sample(rng, n, spread=3.0):
    """Scores and V; one picture is more viral than another with probability σ(difference of the scores)."""
    scores = rng.normal(0, spread, n)
    return scores, scores + rng.gumbel(size=n)


@pytest.mark.parametrize("true", [0.2, 1.0, 7.0])
def test_the_temperature_is_found(true):
    scores, v_score = sample(np.random.default_rng(0), 1500)
    assert calibration.fit_temperature(scores * true, v_score) == pytest.approx(true, rel=0.1)
    listed = metrics.write_out(v_score, most=50_000)
    assert calibration.fit_temperature(scores * true, v_score, listed) == pytest.approx(true, rel=0.1)


def test_no_temperature_nearby_has_a_lower_loss():
    scores, v_score = sample(np.random.default_rng(1), 300)
    best = calibration.fit_temperature(scores, v_score)
    loss = [calibration.calibration_metrics(scores, v_score, None, best * by)["log_loss"] for by in (0.8, 1, 1.25)]
    assert loss[1] == min(loss)


def test_odd_scores_have_a_temperature_too():
    v_score = np.random.default_rng(2).normal(size=30)
    assert 0.001 < calibration.fit_temperature(v_score, v_score) < 0.2  # all in order: sure, but not beyond measure
    wrong = calibration.fit_temperature(-v_score, v_score)  # worse than chance: next to nothing is sure
    assert np.abs(expit(np.ptp(v_score) / wrong) - 0.5) < 0.05
    assert calibration.fit_temperature(np.zeros(30), v_score) == 1
    assert calibration.fit_temperature(v_score, np.ones(30)) == 1
    nothing = calibration.calibration_metrics(v_score, np.ones(30), None, 1.0)
    assert nothing["bins"] == nothing["coverage"] == [] and np.isnan(nothing["ece"])
    half = calibration.calibration_metrics(np.zeros(30), v_score, None, 1.0)
    assert half["log_loss"] == pytest.approx(np.log(2)) and half["brier"] == pytest.approx(0.25)
    assert half["ece"] == 0 and all(each["accuracy"] == 0.5 for each in half["coverage"])


def test_the_figures_are_those_of_their_definitions():
    scores = np.array([0.0, 1.0, 3.0, 3.0])
    pairs = metrics.PairList(
        np.array([[1, 0], [0, 2], [3, 2], [1, 3]]), np.array([1, 1, 0, 0.5]), np.array([1, 2, 1, 9.0])
    )
    found = calibration.calibration_metrics(scores, scores, pairs, 2.0)
    p, weight = np.array([expit(0.5), expit(-1.5), 0.5]), np.array([1, 2, 1]) / 4  # the last pair are equals
    outcome = np.array([1, 1, 0])
    assert found["temperature"] == 2
    assert found["log_loss"] == pytest.approx(-weight @ np.log(np.where(outcome, p, 1 - p)))
    assert found["brier"] == pytest.approx(weight @ (p - outcome) ** 2)
    one = found["bins"][0]
    assert one == {"confidence": pytest.approx(weight @ np.maximum(p, 1 - p)), "accuracy": 0.375, "n": 3}
    assert found["ece"] == pytest.approx(one["confidence"] - 0.375)
    # The surest half of the weight is the wrong pair's.
    assert found["coverage"][4] == {"share": 0.5, "accuracy": 0}
    assert found["coverage"][-1] == {
        "share": 1,
        "accuracy": pytest.approx(metrics.pair_accuracy(scores, scores, pairs)),
    }
    json.dumps(found)


def test_a_share_of_votes_is_a_target_like_another():
    """Of a hundred votes 73 were for the first picture; the pair the other way round comes out alike."""
    pairs = metrics.PairList(np.array([[0, 1]]), np.array([0.73]))
    turned = metrics.PairList(np.array([[1, 0]]), np.array([0.27]))
    scores = np.array([1.0, 0.0])
    found, other = (calibration.calibration_metrics(scores, scores, each, 1.0) for each in (pairs, turned))
    assert found["bins"][0]["accuracy"] == pytest.approx(0.73) and found["log_loss"] == pytest.approx(other["log_loss"])
    assert found["ece"] == pytest.approx(abs(expit(1) - 0.73)) == pytest.approx(other["ece"])


def test_bins_hold_equally_many_pairs_and_the_surest_are_right_most_often():
    scores, v_score = sample(np.random.default_rng(3), 200)
    found = calibration.calibration_metrics(scores, v_score, None, 1.0)
    counts = [each["n"] for each in found["bins"]]
    assert len(counts) == 10 and sum(counts) == 19_900 and max(counts) - min(counts) <= 1
    assert (np.diff([each["confidence"] for each in found["bins"]]) > 0).all()
    gaps = [each["n"] * abs(each["accuracy"] - each["confidence"]) for each in found["bins"]]
    assert found["ece"] == pytest.approx(sum(gaps) / 19_900)
    assert [each["share"] for each in found["coverage"]] == pytest.approx(np.arange(1, 11) / 10)
    accuracy = [each["accuracy"] for each in found["coverage"]]
    assert accuracy[0] > 0.97 > accuracy[-1] == pytest.approx(metrics.pair_accuracy(scores, v_score))


def test_the_interval_of_the_calibration_error_holds_the_truth():
    """Right probabilities, whose true error is 0, and those of half the temperature, whose error many pairs tell."""
    rng = np.random.default_rng(4)
    many = sample(rng, 3000)[0]
    apart = np.abs(many - rng.permutation(many))
    for temperature, truth in ((1.0, 0.0), (0.5, np.abs(expit(apart) - expit(2 * apart)).mean())):
        rows = [calibration.calibration_metrics(*sample(rng, 80), None, temperature) for _ in range(60)]
        assert all(row["ece_low"] <= row["ece"] <= row["ece_high"] for row in rows)
        assert np.mean([row["ece_low"] <= truth <= row["ece_high"] for row in rows]) >= 0.88
        assert np.mean([row["ece_high"] for row in rows]) < truth + 0.07
    assert np.mean([row["ece_low"] > 0 for row in rows]) > 0.5  # and is told from 0


def test_with_a_fitted_temperature_the_error_is_small():
    """As many pictures as the sample community has for validation and test."""
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(30):
        temperature = calibration.fit_temperature(*sample(rng, 30))
        errors.append(calibration.calibration_metrics(*sample(rng, 60), None, temperature)["ece"])
    assert np.mean(errors) < 0.03


def test_on_the_published_scenes_it_is_small_too(real_data):
    """A ridge regression on somebody's features, over three seeds: calibration error at most 0.03."""
    import pandas as pd
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    stored = real_data / "weights" / "scenes_efficientnet_lite2.npz"
    if not stored.is_file():
        pytest.skip(f"{stored} is not here")
    with np.load(stored) as file:
        img_ids, features = file["names"].astype(np.int64), file["features"]
    table = pd.read_csv(real_data / "scenes" / "datasets" / "data_set_iv.csv").set_index("img_id")
    v_score = table.loc[img_ids, "v_score"].to_numpy(float)
    for seed in range(3):
        split = data_set.split_of(img_ids, seed)
        train, validation, test = (split == name for name in data_set.SPLITS)
        ranker = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11))).fit(features[train], v_score[train])
        scores = ranker.predict(features)
        temperature = calibration.fit_temperature(scores[validation], v_score[validation])
        found = calibration.calibration_metrics(scores[test], v_score[test], None, temperature)
        assert found["ece"] <= 0.03 and found["ece_low"] == 0
        assert found["coverage"][4]["accuracy"] > 0.98 > found["coverage"][-1]["accuracy"] > 0.9


def test_p_above_is_the_mean_chance_against_training_pictures():
    rng = np.random.default_rng(6)
    scores, train = rng.normal(size=50), rng.normal(size=3_000_000)
    found = calibration.p_above(scores, train[:400], 0.7)
    assert found == pytest.approx([np.mean([expit((s - t) / 0.7) for t in train[:400]]) for s in scores])
    assert (np.argsort(found) == np.argsort(scores)).all() and (found > 0).all() and (found < 1).all()
    assert calibration.p_above(scores[:2], train, 0.7) == pytest.approx(found[:2], abs=0.06)  # more than fit at once
    assert len(calibration.p_above(scores[:0], train, 1.0)) == 0


def test_a_million_of_all_pairs_is_enough():
    scores, v_score = sample(np.random.default_rng(7), 20_000)
    temperature = calibration.fit_temperature(scores, v_score)
    found = calibration.calibration_metrics(scores, v_score, None, temperature)
    assert temperature == pytest.approx(1, abs=0.05) and found["ece"] < 0.01
    assert sum(each["n"] for each in found["bins"]) == 1_000_000
    assert found == calibration.calibration_metrics(scores, v_score, None, temperature)


def test_bins_and_coverage_are_what_the_charts_draw(tmp_path):
    found = calibration.calibration_metrics(*sample(np.random.default_rng(8), 60), None, 1.0)
    figure = visualisation.reliability_diagram(pd.DataFrame(found["bins"]), "test pictures", "ECE $0.02$")
    diagonal, dots = figure.axes[0].lines
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all() and len(dots.get_xdata()) == 10
    assert dots.get_ydata() == pytest.approx([each["accuracy"] for each in found["bins"]])
    assert any("ECE $0.02$" in text.get_text() for text in figure.axes[0].texts)
    assert sum(each["n"] for each in found["bins"]) == 1770
    curve = visualisation.coverage_curve(pd.DataFrame(found["coverage"]))
    assert curve.axes[0].lines[0].get_xdata() == pytest.approx(np.arange(1, 11) / 10)
    assert visualisation.save(figure, tmp_path / "reliability.png").stat().st_size > 10_000

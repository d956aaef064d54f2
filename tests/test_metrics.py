"""Figures of merit against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import metrics

RNG = np.random.default_rng(0)
V_SCORE = RNG.integers(0, 6, 40).astype(float)
SCORES = V_SCORE + RNG.normal(0, 2, 40).round(1)


def counted(scores, v_score):
    """Pair accuracy by a loop over pairs."""
    right, total = 0.0, 0
    for i, j in itertools.combinations(range(len(scores)), 2):
        if v_score[i] != v_score[j]:
            total += 1
            same = (scores[i] - scores[j]) * (v_score[i] - v_score[j])
            right += 1 if same > 0 else 0.5 if same == 0 else 0
    return right / total, total


def test_pair_accuracy_is_the_share_of_pairs_in_order_and_ties_are_left_out():
    found = metrics.ranking_metrics(SCORES, V_SCORE)
    share, total = counted(SCORES, V_SCORE)
    assert found["pair_accuracy"] == pytest.approx(share) and found["pairs"] == total
    assert found["pairs"] + found["ties_left_out"] == 40 * 39 // 2


def test_a_perfect_a_reversed_and_a_constant_ranker():
    assert metrics.pair_accuracy(V_SCORE, V_SCORE) == 1
    assert metrics.pair_accuracy(-V_SCORE, V_SCORE) == 0
    assert metrics.pair_accuracy(np.zeros(40), V_SCORE) == 0.5


def test_the_interval_holds_the_figure_and_is_wider_than_one_over_pairs():
    low, high = metrics.pair_accuracy_interval(SCORES, V_SCORE)
    share, total = counted(SCORES, V_SCORE)
    assert low < share < high
    assert high - low > 2 * 1.96 * np.sqrt(share * (1 - share) / total)
    assert (low, high) == metrics.pair_accuracy_interval(SCORES, V_SCORE)


def test_the_interval_holds_the_truth_in_about_95_of_100_samples():
    """Scores that are V plus noise, whose share of ordered pairs is known from many images."""
    rng = np.random.default_rng(1)

    def sample(n):
        v_score = rng.normal(size=n)
        return v_score + rng.normal(0, 1.5, n), v_score

    truth = metrics.pair_accuracy(*sample(4000))
    held = 0
    for _ in range(200):
        low, high = metrics.pair_accuracy_interval(*sample(60), draws=300)
        held += low <= truth <= high
    assert 0.88 <= held / 200 <= 0.99


def test_rank_correlations_are_those_of_their_definitions():
    scores, v_score = np.array([3.0, 1.0, 4.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = metrics.ranking_metrics(scores, v_score)
    assert found["kendall_tau"] == pytest.approx((7 - 3) / 10)  # seven pairs in order, three against it
    ranks = np.array([3, 1, 4, 2, 5]) - v_score
    assert found["spearman_rho"] == pytest.approx(1 - 6 * (ranks**2).sum() / (5 * 24))
    for sign in (1, -1):
        found = metrics.ranking_metrics(sign * np.exp(V_SCORE), V_SCORE)
        assert found["kendall_tau"] == pytest.approx(sign) and found["spearman_rho"] == pytest.approx(sign)


def test_without_an_unequal_pair_there_is_no_pair_accuracy():
    assert np.isnan(metrics.pair_accuracy(np.arange(3.0), np.ones(3)))
    assert np.isnan(metrics.pair_accuracy_interval(np.arange(3.0), np.ones(3))).all()


def test_pairs_can_be_kept_to_two_sets():
    first, second = np.arange(40) < 5, np.arange(40) >= 30
    pairs = metrics.comparable(V_SCORE, first, second)
    expected = sum(V_SCORE[i] != V_SCORE[j] for i in range(5) for j in range(30, 40))
    assert pairs.sum() == expected and not (pairs & pairs.T).any()


def test_mcnemar_counts_the_pairs_that_one_alone_has_right():
    v_score = np.array([0.0, 1.0, 2.0])
    found = metrics.mcnemar(v_score, np.array([0.0, 2.0, 1.0]), v_score)
    assert found == {"pairs": 3, "a": 1.0, "b": pytest.approx(2 / 3), "a_alone": 1, "b_alone": 0, "p": 1.0}
    assert metrics.mcnemar(SCORES, -SCORES, SCORES)["p"] < 1e-6


def test_wilson_is_wilsons():
    assert metrics.wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    z, n, share = 1.959964, 40, 0.25
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    assert metrics.wilson_interval(10, 40) == pytest.approx(expected, abs=1e-6)
    assert metrics.wilson_interval(0, 10)[0] == 0 and metrics.wilson_interval(10, 10)[1] == 1
    assert np.isnan(metrics.wilson_interval(0, 0)).all()


def test_overlap_and_pointing():
    boxes, truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10.0]]), np.array([[5, 5, 10, 10], [20, 20, 5, 5.0]])
    assert metrics.overlap(boxes, truth) == pytest.approx([25 / 175, 0])
    assert metrics.pointing_accuracy(boxes, truth) == 0.5
    assert metrics.overlap(truth, truth) == pytest.approx([1, 1])
    inside = np.array([[6, 6, 2, 4.0]])
    assert metrics.overlap(inside, truth[:1]) == pytest.approx([8 / 100])
    assert metrics.pointing_accuracy(inside, truth[:1]) == 1 and metrics.pointing_accuracy(inside, truth[1:]) == 0

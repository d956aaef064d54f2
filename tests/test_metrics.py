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


def test_overlap_and_pointing():
    boxes, truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10.0]]), np.array([[5, 5, 10, 10], [20, 20, 5, 5.0]])
    assert metrics.overlap(boxes, truth) == pytest.approx([25 / 175, 0])
    assert metrics.pointing_accuracy(boxes, truth) == 0.5

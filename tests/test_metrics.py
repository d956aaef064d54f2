"""Figures of merit against counting by hand; intervals and tests against simulations whose truth is known."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

import data_set
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


def plain(scores, v_score, pairs):
    """Which ordered pairs (i, j) with i the more viral count, n×n, and the share of them in order."""
    more = v_score[:, None] > v_score[None, :]
    if isinstance(pairs, metrics.PairList):
        listed = np.zeros_like(more)
        listed[tuple(pairs.places.T)] = listed[tuple(pairs.places[:, ::-1].T)] = True
        more &= listed
    elif pairs is not None:
        across = pairs.first[:, None] & pairs.second[None, :]
        more &= across | across.T
    right = (np.sign(scores[:, None] - scores[None, :]) + 1) / 2
    return more, right[more].mean() if more.any() else np.nan


def test_pair_accuracy_is_the_share_of_pairs_in_order_and_ties_are_left_out():
    found = metrics.ranking_metrics(SCORES, V_SCORE)
    share, total = counted(SCORES, V_SCORE)
    assert found["pair_accuracy"] == pytest.approx(share) and found["pairs"] == total
    assert found["pairs"] + found["ties_left_out"] == 40 * 39 // 2


def test_a_perfect_a_reversed_and_a_constant_ranker():
    assert metrics.pair_accuracy(V_SCORE, V_SCORE) == 1
    assert metrics.pair_accuracy(-V_SCORE, V_SCORE) == 0
    assert metrics.pair_accuracy(np.zeros(40), V_SCORE) == 0.5
    with warnings.catch_warnings(action="error"):
        found = metrics.ranking_metrics(np.zeros(40), V_SCORE)
    assert found["pair_accuracy"] == 0.5 and np.isnan(found["spearman_rho"]) and np.isnan(found["kendall_tau"])


@pytest.mark.parametrize("kind", ["1", "2", "3", "4", "all", "any two sets", "list"])
def test_fast_counting_gives_what_looking_at_each_pair_gives(kind):
    rng = np.random.default_rng(3)
    for trial in range(25):
        n = int(rng.integers(1, 90))
        v_score = rng.integers(0, rng.integers(1, 30), n).astype(float) if trial % 2 else rng.normal(size=n)
        scores = (v_score + rng.normal(0, 2, n)).round(int(rng.integers(0, 4)))
        if kind == "list":
            places = np.unique(np.sort(rng.integers(0, n, (30, 2)), axis=1), axis=0)
            places = places[places[:, 0] != places[:, 1]]
            pairs = metrics.PairList(places, data_set.targets_of(v_score, places))
        elif kind == "any two sets":
            pairs = metrics.PairSets(*(rng.random((2, n)) < 0.5))
        else:
            pairs = metrics.PairSets(*data_set.pair_sets(v_score, kind))
        more, share = plain(scores, v_score, pairs)
        assert metrics.pair_accuracy(scores, v_score, pairs) == pytest.approx(share, abs=1e-12, nan_ok=True)
        written = metrics.write_out(v_score, pairs)
        assert len(written.places) == more.sum()
        assert set(map(tuple, np.sort(written.places))) == set(map(tuple, np.sort(np.argwhere(more))))
        if n > 3:
            found = metrics.ranking_metrics(scores, v_score, pairs)
            assert found["pairs"] == more.sum()
            tau = stats.kendalltau(scores, v_score).statistic
            assert found["kendall_tau"] == pytest.approx(tau, abs=1e-12, nan_ok=True)
        # The interval comes from sets in one way and from a list in another.
        listed = metrics.pair_accuracy_interval(scores, v_score, written)
        assert metrics.pair_accuracy_interval(scores, v_score, pairs) == pytest.approx(listed, abs=1e-9, nan_ok=True)


def test_concordance_is_summed_picture_by_picture_and_within_groups():
    rng = np.random.default_rng(4)
    x, y, group = rng.integers(0, 9, (3, 70)) // [[1], [1], [3]]
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    assert (metrics.concordance(x, y) == signs.sum(axis=1)).all()
    assert (metrics.concordance(x, y, group) == (signs * (group[:, None] == group)).sum(axis=1)).all()
    assert len(metrics.concordance(x[:0], y[:0])) == 0


def test_weights_count_like_repeated_pairs_and_equals_do_not_count():
    places, targets = np.array([[0, 1], [2, 3], [4, 5], [6, 7]]), np.array([1, 0.3, 0, 0.5])
    scores = np.array([1, 0, 1, 0, 0, 0, 1, 0.0])
    once = metrics.PairList(places, targets, np.array([2, 1, 1, 9.0]))
    twice = metrics.PairList(places[[0, 0, 1, 2]], targets[[0, 0, 1, 2]])
    assert metrics.pair_accuracy(scores, scores, once) == metrics.pair_accuracy(scores, scores, twice) == 2.5 / 4
    assert metrics.ranking_metrics(scores, scores, once)["pairs"] == 3


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

    many = sample(4000)
    truth, held = np.array([metrics.pair_accuracy(*many), stats.kendalltau(*many).statistic]), np.zeros(2)
    for _ in range(200):
        scored = sample(60)
        low, high = np.transpose([metrics.pair_accuracy_interval(*scored), metrics.kendall_interval(*scored)])
        held += (low <= truth) & (truth <= high)
    assert (held / 200 >= 0.88).all() and (held / 200 <= 0.99).all()


def test_the_interval_is_that_of_taus_share_where_nothing_is_tied():
    scores = SCORES + RNG.normal(size=40)
    v_score = V_SCORE + RNG.normal(size=40)
    low, high = metrics.kendall_interval(scores, v_score)
    assert metrics.pair_accuracy_interval(scores, v_score) == pytest.approx([(1 + low) / 2, (1 + high) / 2])


def test_the_interval_of_independent_pairs_is_wilsons_and_one_of_a_few_pictures_is_wide():
    places = np.arange(978).reshape(489, 2)
    scores = np.where(np.arange(978) % 2 == 0, 1.0, 0.0) * np.where(np.arange(978) < 666, 1, -1)
    pairs = metrics.PairList(places, np.ones(489))
    assert metrics.pair_accuracy_interval(scores, scores, pairs) == pytest.approx(
        metrics.wilson_interval(333, 489), abs=1e-3
    )
    low, high = metrics.pair_accuracy_interval(np.arange(12.0), np.arange(12.0))
    assert 0.3 < low < 0.6 and high == 1  # all in order, but of a dozen pictures
    assert metrics.pair_accuracy_interval(np.arange(3.0), np.arange(3.0)) == (pytest.approx(0, abs=0.2), 1)


def test_rank_correlations_are_those_of_their_definitions():
    scores, v_score = np.array([3.0, 1.0, 4.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = metrics.ranking_metrics(scores, v_score)
    assert found["kendall_tau"] == pytest.approx((7 - 3) / 10)  # seven pairs in order, three against it
    ranks = np.array([3, 1, 4, 2, 5]) - v_score
    assert found["spearman_rho"] == pytest.approx(1 - 6 * (ranks**2).sum() / (5 * 24))
    for sign in (1, -1):
        found = metrics.ranking_metrics(sign * np.exp(V_SCORE), V_SCORE)
        assert found["kendall_tau"] == pytest.approx(sign) and found["spearman_rho"] == pytest.approx(sign)
        assert found["kendall_tau_low"] <= found["kendall_tau"] + 1e-9
        assert found["kendall_tau"] - 1e-9 <= found["kendall_tau_high"]


def test_without_an_unequal_pair_there_is_no_pair_accuracy():
    assert np.isnan(metrics.pair_accuracy(np.arange(3.0), np.ones(3)))
    assert np.isnan(metrics.pair_accuracy_interval(np.arange(3.0), np.ones(3))).all()


def test_pairs_can_be_kept_to_two_sets():
    first, second = np.arange(40) < 5, np.arange(40) >= 30
    sets = metrics.PairSets(first, second)
    pairs = metrics.write_out(V_SCORE, sets)
    expected = sum(V_SCORE[i] != V_SCORE[j] for i in range(5) for j in range(30, 40))
    assert len(pairs.places) == expected == metrics.ranking_metrics(SCORES, V_SCORE, sets)["pairs"]
    assert len(np.unique(np.sort(pairs.places), axis=0)) == expected  # none stands there in both directions
    assert (V_SCORE[pairs.places[:, 0]] > V_SCORE[pairs.places[:, 1]]).all()


def test_of_too_many_pairs_a_random_part_is_written_out():
    v_score = np.arange(300.0)
    pairs = metrics.write_out(v_score, most=5000, seed=1)
    assert len(np.unique(pairs.places, axis=0)) == 5000 and (pairs.places[:, 0] > pairs.places[:, 1]).all()
    # Image i is in 299 of the 44,850 pairs, whichever it is.
    tenths = np.bincount(pairs.places.ravel() // 30, minlength=10)
    assert np.abs(tenths - 1000).max() < 4 * np.sqrt(1000)
    again, other = (metrics.write_out(v_score, most=5000, seed=seed) for seed in (1, 2))
    assert (again.places == pairs.places).all() and (other.places != pairs.places).any()
    listed = metrics.write_out(v_score, metrics.PairList(pairs.places, pairs.targets, np.ones(5000)), most=100)
    assert len(listed.places) == len(listed.targets) == len(listed.weights) == 100


def test_twenty_thousand_pictures_need_no_table_of_their_pairs():
    rng = np.random.default_rng(2)
    v_score = rng.normal(size=20_000).round(2)
    scores = v_score + rng.normal(size=20_000)
    tracemalloc.start()
    found = metrics.ranking_metrics(scores, v_score)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # a byte a pair would be 400 MB
    assert found["pairs"] + found["ties_left_out"] == 20_000 * 19_999 // 2
    assert found["pair_accuracy_high"] - found["pair_accuracy_low"] < 0.01


# --- one ranker against another -------------------------------------------------------------------------------------
def null(rng, n, noise, shared, seeds, spread):
    """Two equally good rankers: scores (seeds, n) of each, and V.

    `shared`: the part of a ranker's noise that all its trainings have in common; `spread`: of the noise's size over the
    trainings (standard deviation of its logarithm).
    """
    v_score = rng.normal(size=n)
    rankers = []
    for _ in range(2):
        error = np.sqrt(shared) * rng.normal(size=n) + np.sqrt(1 - shared) * rng.normal(size=(seeds, n))
        rankers.append(v_score + noise * np.exp(spread * rng.normal(size=(seeds, 1))) * error)
    return rankers, v_score


def share_found(times, n, noise, shared=0.0, seeds=1, spread=0.0):
    """How often the 95 % interval leaves out zero, though no ranker is the better one."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(times):
        row = metrics.compare_rankers(*null(rng, n, noise, shared, seeds, spread))[0]
        found += not row["low"] <= 0 <= row["high"]
        assert (row["p"] < 0.05) == (not row["low"] <= 0 <= row["high"])
    return found / times


def test_of_two_equal_rankers_500_comparisons_find_a_difference_in_5_of_100():
    assert 0.03 <= share_found(500, n=100, noise=1.0) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [30, 100, 300])
def test_so_they_do_whatever_the_size_and_the_accuracy(n, noise):
    assert 0.03 <= share_found(1000, n, noise) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.2])
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seeds", [3, 5])
def test_so_they_do_over_seeds(seeds, shared, spread):
    assert 0.025 <= share_found(500, 60, 1.0, shared, seeds, spread) <= 0.085


def test_over_seeds_the_interval_speaks_of_new_trainings_too():
    """Two recipes of equal merit, whose trainings differ in quality by chance."""
    rng = np.random.default_rng(6)
    alone = together = 0
    for _ in range(40):
        (a, b), v_score = null(rng, 40, 1.0, 0.5, 3, 0.5)
        together += metrics.compare_rankers([a, b], v_score)[0]["p"] < 0.05
        alone += metrics.compare_rankers([a[0], b[0]], v_score)[0]["p"] < 0.05
    assert together <= 6 < alone  # from one training each a recipe looks better far too often


def test_the_variance_is_that_of_pairs_of_pairs_without_a_common_picture():
    """Against a loop over all pairs of pairs, for all pairs, two sets and a list with weights."""
    rng = np.random.default_rng(7)
    tied = rng.integers(0, 9, 14).astype(float)
    a, b = tied + rng.normal(0, 1, 14), np.where(np.arange(14) % 7 < 2, -9, tied)
    every = metrics.write_out(tied)
    rows = rng.permutation(len(every.places))[:40]
    some = metrics.PairList(every.places[rows], every.targets[rows], rng.integers(1, 4, 40).astype(float))
    halves = metrics.PairSets(np.arange(14) < 7, np.arange(14) >= 7)
    for v_score, pairs in ((np.arange(14.0), None), (tied, None), (tied, halves), (tied, some)):
        listed = metrics.write_out(v_score, pairs)
        i, j = listed.places.T
        weight = np.ones(len(i)) if listed.weights is None else listed.weights
        gain = (np.sign(a[i] - a[j]) - np.sign(b[i] - b[j])) / 2
        mean = (weight * gain).sum() / weight.sum()
        apart = np.array([[len({*one, *two}) == 4 for two in listed.places] for one in listed.places])
        centred = weight * (gain - mean)
        variance = -np.outer(centred, centred)[apart].sum() / np.outer(weight, weight)[apart].sum()
        if pairs is None and len(i) == 91:  # every picture in as many pairs: E[mean²] − E[gain]², without bias
            assert variance == pytest.approx(mean**2 - np.outer(gain, gain)[apart].mean())
        touched = np.bincount(listed.places.ravel(), np.repeat(weight, 2), 14)
        freedom = (touched**2).sum() ** 2 / (touched**4).sum() - 1
        row = metrics.compare_rankers([a, b], v_score, pairs)[0]
        assert row["difference"] == pytest.approx(mean)
        assert row["pairs"] == len(i) and row["pictures"] == 14 and row["seeds"] == 1
        half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
        assert (row["high"] - row["low"]) / 2 == pytest.approx(half)
        assert row["p"] == pytest.approx(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))


def test_a_better_ranker_is_found_and_the_interval_holds_by_how_much():
    rng = np.random.default_rng(8)

    def sample(n):
        v_score = rng.normal(size=n)
        return [v_score + rng.normal(0, noise, n) for noise in (0.5, 1.0)], v_score

    many, v_score = sample(4000)
    truth = np.subtract(*(metrics.pair_accuracy(scores, v_score) for scores in many))
    rows = [metrics.compare_rankers(*sample(100))[0] for _ in range(100)]
    assert np.mean([row["p"] < 0.05 for row in rows]) > 0.9
    assert 0.9 <= np.mean([row["low"] <= truth <= row["high"] for row in rows]) <= 0.99


def test_a_ranker_is_not_better_than_itself_and_three_are_three_comparisons():
    v_score, good, bad = V_SCORE, V_SCORE + RNG.normal(size=40), RNG.normal(size=40)
    same = metrics.compare_rankers([good, good], v_score)[0]
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    rows = metrics.compare_rankers([good, good, bad], v_score)
    assert [(row["a"], row["b"]) for row in rows] == [(0, 1), (0, 2), (1, 2)]
    assert rows[1]["p"] < 1e-4 and rows[1]["p_holm"] == pytest.approx(3 * rows[1]["p"])
    assert rows[0]["p_holm"] == 1 and rows[1]["low"] > 0
    assert rows[1]["a_accuracy"] == metrics.pair_accuracy(good, v_score)
    assert rows[1]["b_accuracy"] == metrics.pair_accuracy(bad, v_score)


def test_a_picture_that_one_of_them_has_not_scored_is_left_out():
    a, b = SCORES.copy(), V_SCORE + RNG.normal(size=40)
    a[:5], b[3:8] = np.nan, np.nan
    row, alone = metrics.compare_rankers([a, b], V_SCORE)[0], metrics.compare_rankers([a[8:], b[8:]], V_SCORE[8:])[0]
    assert row == pytest.approx(alone)
    # Folds: each picture is tested in one of the runs, and the runs share none.
    folds = np.array([np.where(np.arange(40) % 4 == fold, b, np.nan) for fold in range(4)])
    folds[np.isnan(folds)] = np.nan
    folds[0, 8:12] = [1, np.nan, np.nan, np.nan]
    row = metrics.compare_rankers([folds, SCORES], V_SCORE)[0]
    each = [
        np.subtract(*(metrics.pair_accuracy(scores[there], V_SCORE[there]) for scores in (fold, SCORES)))
        for fold, there in zip(folds, ~np.isnan(folds), strict=True)
    ]
    assert row["seeds"] == 4 and row["difference"] == pytest.approx(np.mean(each))
    assert row["high"] - row["difference"] == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(each))
    with pytest.raises(ValueError, match="no pair"):
        metrics.compare_rankers([np.where(np.arange(40) < 20, SCORES, np.nan), np.where(np.arange(40) < 20, np.nan, b)],
                                V_SCORE)  # fmt: skip


def test_mcnemar_counts_the_pairs_that_one_alone_has_right():
    pairs = metrics.PairList(np.array([[1, 0], [3, 2], [4, 5], [6, 7]]), np.array([1, 1, 0, 0.5]))
    a = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    found = metrics.mcnemar(a, np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]), pairs)
    assert found == {"pairs": 3, "a": 1.0, "b": pytest.approx(2 / 3), "a_alone": 1, "b_alone": 0, "p": 1.0}
    many = metrics.PairList(np.arange(80).reshape(40, 2), np.ones(40))
    scores = -np.arange(80.0)
    assert metrics.mcnemar(scores, -scores, many)["p"] < 1e-6
    assert metrics.mcnemar(scores, -scores, many)["p"] == pytest.approx(2 * 0.5**40)
    with pytest.raises(ValueError, match="a picture is in two"):
        metrics.mcnemar(SCORES, -SCORES, metrics.write_out(V_SCORE))


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


@pytest.mark.slow
def test_two_hundred_thousand_pictures_cost_less_than_a_gigabyte_and_are_counted_exactly():
    """All figures of 200,000 pictures, in a process of its own, whose peak of memory is its own too."""
    program = """
import resource, time, numpy as np, metrics
rng = np.random.default_rng(0)
scores = rng.normal(size=200_000); v_score = scores + rng.normal(size=200_000)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
found = metrics.ranking_metrics(scores, v_score)
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(used / 1e6, time.perf_counter() - start, found["pair_accuracy"], found["kendall_tau"], before / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    gigabytes, _, accuracy, tau, _ = map(float, done.stdout.split())
    assert gigabytes < 1
    assert accuracy == pytest.approx((1 + tau) / 2, abs=1e-12)  # scipy counts its τ in another way; there are no ties


@pytest.mark.parametrize("values", [7, 100_000])
def test_counting_without_looking_at_each_pair_is_exact(values):
    rng = np.random.default_rng(0)
    scores, v_score = rng.integers(0, values, (2, 1500)) + 0.0
    truth = np.sign(v_score[:, None] - v_score)
    plain = 0.5 + 0.5 * (truth * np.sign(scores[:, None] - scores)).sum() / np.abs(truth).sum()
    assert metrics.pair_accuracy(scores, v_score) == pytest.approx(plain, abs=1e-12)

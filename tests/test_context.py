"""What needs no picture: posts and times, shares of pairs, causes of votes, luck, controlled pairs, splits by time."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from conftest import run, run_here

import context
import data_set
import deza2015
import metrics
import sample_data
import timeline
import training_data
import virality
import visualisation
from context_measures import luck, rankings, shares, variance
from utils import UserError, write_csv


# --- made-up data ---------------------------------------------------------------------------------------------------
def community_of(num_images: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The submissions of a sample community without its pictures, with a_score; and each image's latent virality."""
    rng = np.random.default_rng(seed)
    latent, lines = rng.uniform(size=num_images), []
    for image, z in enumerate(latent):
        lines += sample_data.draw_submissions(rng, image, str(rng.choice(sample_data.SUBREDDITS)), z)
    lines = pd.DataFrame(lines, columns=virality.SNAP_COLUMNS)
    submissions = pd.DataFrame(
        {
            "image_id": lines["#image_id"].astype(int),
            "subreddit": lines["subreddit"].astype("category"),
            "hour": lines["localtime"].astype(int) // 3600 % 24,
            "score": lines["score"].astype(int),
            "comments": lines["number_of_comments"].astype(int),
        }
    )
    return submissions.assign(a_score=virality.normalised_scores(submissions)), latent


def own_data(folder, rows: list[dict], v_score: dict[int, float], name: str = "submissions.csv", **columns):
    """A data set with a submissions table and the label."""
    pd.DataFrame(rows).to_csv(folder / name, index=False)  # compressed, if its name says so
    table = pd.DataFrame({"img_id": list(v_score), "v_score": list(v_score.values()), **columns})
    write_csv(folder / "datasets" / "data_set_iv.csv", table)
    return folder


def some_posts(n: int = 120, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"img_id": i, "created_utc": int(1_500_000_000 + rng.integers(10**7)), "subreddit": rng.choice(["a", "b"]),
         "title": f"a title of {rng.choice(['cats', 'dogs', 'birds'])}", "score": int(rng.integers(1, 900))}
        for i in range(1, n + 1)
    ]  # fmt: skip


# --- shares of pairs ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [2, 7, 60])
@pytest.mark.parametrize("values", [3, 1000])
def test_counts_are_those_of_looking_at_every_pair(n, values):
    rng = np.random.default_rng(n)
    scores, v_score, block = (rng.integers(0, high, n) for high in (values, values, 3))
    for blocks in (np.zeros(n, int), block - 1):
        together = (blocks[:, None] == blocks[None, :]) & (blocks >= 0)
        pairs = np.argwhere((v_score[:, None] > v_score[None, :]) & together)
        fast, slow = shares.counts_within(scores, v_score, blocks), shares.counts_of(scores, v_score, pairs)
        assert np.array_equal(fast.right, slow.right) and np.array_equal(fast.pairs, slow.pairs)
        assert fast.ties == slow.ties


def test_the_interval_over_all_pairs_is_a_bootstrap_over_images():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=300)
    v_score = scores + rng.normal(size=300)
    found = shares.interval(shares.counts_within(scores, v_score, np.zeros(300, int)))
    assert found["value"] == pytest.approx(metrics.pair_accuracy(scores, v_score), abs=1e-12)
    low, high = metrics.pair_accuracy_interval(scores, v_score)
    assert found["low"] == pytest.approx(low, abs=0.004) and found["high"] == pytest.approx(high, abs=0.004)


def test_the_interval_over_pairs_that_share_no_image_is_wilsons():
    rng = np.random.default_rng(0)
    found = shares.pair_share(rng.normal(size=400), rng.normal(size=400), np.arange(400).reshape(-1, 2))
    low, high = metrics.wilson_interval(round(found["value"] * 200), 200)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))


@pytest.mark.parametrize("design", ["all", "couples", "chains", "blocks"])
def test_the_interval_holds_the_truth_in_95_of_100_draws(design):
    rng, n, hits = np.random.default_rng(0), 50, 0
    for _ in range(400):
        scores = rng.normal(size=n)
        v_score = scores + rng.normal(size=n)  # a correlation of √½: right on ½ + arcsin(√½) / π = ¾
        if design in ("all", "blocks"):
            blocks = np.arange(n) % (5 if design == "blocks" else 1)
            found = shares.interval(shares.counts_within(scores, v_score, blocks))
        else:
            pairs = np.arange(n).reshape(-1, 2) if design == "couples" else rng.integers(0, n, (n, 2))
            found = shares.pair_share(scores, v_score, pairs)
        hits += found["low"] <= 0.75 <= found["high"]
    assert 0.92 <= hits / 400 <= 0.98


def test_what_is_learned_of_nothing_ranks_nothing():
    """Of pure noise: predictions of different folds lean against each other, and would give less than a half."""
    values, covered = [], 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        images = pd.DataFrame({"time": rng.integers(0, 10**8, 150), "unit": np.arange(150)})
        images["community"] = pd.Categorical(rng.integers(0, 5, 150))
        found = rankings.rank_and_count(images, "community", rankings.PairSet("all", "all pairs", rng.normal(size=150)))
        values.append(found["value"])
        covered += found["low"] <= 0.5 <= found["high"]
    assert abs(np.mean(values) - 0.5) < 2.5 * np.std(values) / 30**0.5
    assert covered >= 26


def test_the_two_images_of_a_pair_are_left_out_together():
    pairs = np.arange(100).reshape(-1, 2)
    fold = rankings.folds_of(rankings.units_of(np.arange(100), pairs))
    assert np.array_equal(fold[pairs[:, 0]], fold[pairs[:, 1]]) and np.bincount(fold).tolist() == [20] * 5
    unit = rankings.units_of(np.array([0, 1, 0, 2]), np.array([[0, 1]]))
    assert unit[0] == unit[1] == unit[2] != unit[3]


# --- posts ----------------------------------------------------------------------------------------------------------
def test_the_posts_of_snaps_file(sample):
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    found = timeline.read_posts(sample, table)
    assert found["time"].is_monotonic_increasing and found["title"].str.startswith("picture").all()
    assert found["counts"].equals(found["community"] != "offbeat")
    first = timeline.first_posts(found).loc[table["img_id"]]
    assert first["submissions"].tolist() == table["submissions"].tolist()
    # SNAP's file, read by hand
    import gzip

    with gzip.open(sample / "redditSubmissions.csv.gz", "rt") as file:
        lines = [line for line in csv.DictReader(file) if None not in line]
    for img_id, snap_id in table[["img_id", "SNAP_id"]].itertuples(index=False):
        mine = [line for line in lines if line["#image_id"] == str(snap_id) and line["subreddit"] != "offbeat"]
        earliest = min(mine, key=lambda line: int(line["unixtime"]))
        assert first.loc[img_id, "time"] == int(earliest["unixtime"])
        assert first.loc[img_id, "hour"] == int(earliest["localtime"]) // 3600 % 24


def test_copies_that_are_joined_keep_their_posts_in_snaps_file(sample, tmp_path):
    """The first post of a joined image is the earliest of its copies', and all their posts are its own."""
    alone = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    single = timeline.first_posts(timeline.read_posts(sample, alone))
    members = {1: [1, 2, 3], 10: [10, 11]}
    groups = pd.DataFrame([(i, g) for g, ids in members.items() for i in ids], columns=["img_id", "group"])
    write_csv(tmp_path / "groups.csv", groups)
    (tmp_path / "redditSubmissions.csv.gz").write_bytes((sample / "redditSubmissions.csv.gz").read_bytes())
    done = run_here("virality.py", tmp_path / "redditSubmissions.csv.gz", "--groups", tmp_path / "groups.csv",
                    "--output", tmp_path / "datasets" / "data_set_iv.csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "datasets" / "data_set_iv.csv")
    posts = timeline.read_posts(tmp_path, table)
    first = timeline.first_posts(posts)
    assert len(table) == len(alone) - 3 and posts.attrs["dropped"] == 0
    for ids in members.values():
        (leader,) = set(ids) & set(table["img_id"])
        assert first.loc[leader, "time"] == single.loc[ids, "time"].min()
        assert first.loc[leader, "submissions"] == single.loc[ids, "submissions"].sum()
    others = first.index.difference(groups["img_id"])
    assert first.loc[others, "time"].equals(single.loc[others, "time"])


def test_anybodys_table_names_its_columns_as_it_likes(tmp_path):
    rows = [{"img_id": 4, "created_utc": 1_500_003_600_000, "listing": "b", "score": 3, "near_duplicate_group": "x"},
            {"img_id": 4, "created_utc": 1_500_000_000, "listing": "a", "score": 5.0, "near_duplicate_group": "x"},
            {"img_id": 7, "created_utc": "", "listing": "a", "score": 5, "near_duplicate_group": ""},
            {"img_id": 9, "created_utc": 1_500_000_100, "listing": "NA", "score": 1, "near_duplicate_group": ""},
            {"img_id": 1000, "created_utc": 1_500_000_100, "listing": "a", "score": 1}]  # fmt: skip
    own_data(tmp_path, rows, {4: 0.5, 7: 1.0, 9: -1.0}, "submissions.csv.gz")
    found = timeline.read_posts(tmp_path, context.read_label(tmp_path))
    assert found["img_id"].tolist() == [4, 9, 4] and found["community"].tolist() == ["a", "NA", "b"]
    assert found["index"].tolist() == [0, 0, 1] and found["hour"].tolist() == [2, 2, 3]
    assert found["group"].tolist() == ["x", "", "x"] and found.attrs["dropped"] == 2


def test_a_table_of_ours_numbers_its_images_as_the_score_does(tmp_path):
    names = virality.OWN_COLUMNS
    rows = [("", 1_500_000_000 + 3600 * i, "a title", i % 7, 1, "cats" if i % 2 else "dogs", "x", f"p{i}",
             f"https://i.imgur.com/{'abcdefghij'[i % 10]}.jpg") for i in range(50, 0, -1)]  # fmt: skip
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "submissions.csv.gz", index=False)
    table, _ = virality.build_table(tmp_path / "submissions.csv.gz")
    found = timeline.read_posts(tmp_path, table)
    assert len(table) == 10 and len(found) == 50 and found["counts"].all() and found["title"].eq("a title").all()
    first = timeline.first_posts(found).loc[table["img_id"]]
    assert first["submissions"].tolist() == table["submissions"].tolist() == [5] * 10
    links = table.set_index("img_id")["img_link"].str[-5].map("abcdefghij".index)
    assert ((first["time"] - 1_500_000_000) // 3600 % 10).to_dict() == links.to_dict()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"img_id": 1, "subreddit": "a", "score": 1}], "has no column time/unixtime/created_utc"),
        ([{"img_id": 5, "subreddit": "a", "score": 1, "unixtime": 9}], "no post has an image of the table"),
        ([{"image_id": 1, "subreddit": "a", "score": 1}], "has no column img_id"),
        ([{"img_id": 1, "subreddit": "a", "score": "many", "unixtime": 9}], "no post has an image of the table"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path, rows, message):
    own_data(tmp_path, rows, {1: 0.0})
    with pytest.raises(UserError, match=message):
        timeline.read_posts(tmp_path, context.read_label(tmp_path))


def test_the_ids_of_posts_are_numbers_and_a_wrong_one_is_named():
    assert deza2015.post_numbers(pd.DataFrame({"reddit_id": ["a", "10", "rmqjs"]})).tolist() == [10, 36, 46410472]
    with pytest.raises(UserError, match="line 2: 'r_q' is not a post id"):
        deza2015.post_numbers(pd.DataFrame({"reddit_id": ["a", "r_q"]}))


def test_hours_are_found_again_from_the_normalised_scores():
    submissions, _ = community_of(200, seed=0)
    rounded = submissions.assign(a_score=[float(f"{a:.5g}") for a in submissions["a_score"]])
    cells = deza2015.hour_cells(rounded)
    truth = submissions["subreddit"].astype(str) + submissions["hour"].astype(str)
    known = cells >= 0
    assert known.mean() > 0.99
    # one cell, one community and hour; two of them may have the same mean to five digits, hardly ever
    assert pd.Series(truth[known]).groupby(cells[known]).nunique().eq(1).mean() > 0.97
    assert pd.Series(cells[known]).groupby(truth[known].to_numpy()).nunique().eq(1).all()


# --- pairs and splits -----------------------------------------------------------------------------------------------
def test_controlled_pairs_are_of_one_community_and_time():
    rng = np.random.default_rng(0)
    community, time, v_score = rng.integers(0, 4, 400), rng.permutation(400), rng.normal(size=400)
    community[:20] = -1
    pairs = data_set.controlled_pairs(v_score, community, time, seed=1)
    first, second = pairs.T
    assert np.array_equal(pairs, data_set.controlled_pairs(v_score, community, time, seed=1))
    assert not np.array_equal(pairs, data_set.controlled_pairs(v_score, community, time, seed=2))
    assert len(np.unique(pairs)) == 2 * len(pairs) > 280 and pairs.min() >= 20
    assert np.array_equal(community[first], community[second])
    assert ((v_score[first] > 0) != (v_score[second] > 0)).all()
    assert 0.35 < (v_score[first] > v_score[second]).mean() < 0.65
    for each in range(4):  # the place of an image among those of its community
        place = np.argsort(np.argsort(time[community == each]))
        at = dict(zip(np.flatnonzero(community == each), place, strict=True))
        assert all(at[a] // 10 == at[b] // 10 for a, b in pairs if community[a] == each)


def test_controlled_pairs_where_all_are_viral_or_equal():
    community, time = np.zeros(20, int), np.arange(20)
    pairs = data_set.controlled_pairs(1 + np.arange(20.0), community, time, seed=0)
    assert len(pairs) == 0  # the first block lies below the median, the second above
    pairs = data_set.controlled_pairs(1 + np.tile([0.0, 1.0], 10), community, time, seed=0)
    assert len(pairs) == 10
    assert data_set.controlled_pairs(np.ones(20), community, time, seed=0).shape == (0, 2)


def test_a_split_by_time_is_tested_on_what_came_later():
    times = np.random.default_rng(0).permutation(1000)
    split = data_set.split_by_time(times)
    assert pd.Series(split).value_counts().to_dict() == {"train": 700, "test": 200, "validation": 100}
    assert times[split == "train"].max() < times[split == "validation"].min()
    assert times[split == "validation"].max() < times[split == "test"].min()


def test_a_split_by_time_keeps_groups_and_equal_times_together():
    rng = np.random.default_rng(0)
    times, groups = rng.integers(0, 60, 500), np.where(rng.random(500) < 0.5, rng.integers(0, 80, 500), -1)
    split = data_set.split_by_time(times, groups=groups)
    table = pd.DataFrame({"split": split, "group": groups, "time": times})
    assert table[groups >= 0].groupby("group")["split"].nunique().max() == 1
    own = table["time"].where(groups < 0, table.groupby("group")["time"].transform("min"))
    assert own.groupby(split).max()["train"] < own.groupby(split).min()["test"]
    assert own[split == "validation"].min() > own[split == "train"].max()
    assert set(data_set.split_by_time(np.zeros(10))) == {"train"}


def test_a_training_on_controlled_pairs_takes_them_from_the_first_posts(sample, tmp_path):
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    img_ids, v_score = table["img_id"].to_numpy(), table["v_score"].to_numpy()
    rows = {"train": np.arange(10, 60), "test": np.arange(60)}
    pairs = training_data.controlled_in_splits(sample, table, img_ids, v_score, rows, seed=0)
    first = timeline.first_posts(timeline.read_posts(sample, table)).loc[img_ids]
    for name, part in rows.items():
        one, other = part[pairs[name]].T
        assert len(one) and (first["community"].iloc[one].to_numpy() == first["community"].iloc[other]).all()
    few = {"validation": np.array([0])}
    with pytest.raises(UserError, match="its validation split has no controlled pair"):
        training_data.controlled_in_splits(sample, table, img_ids, v_score, few, seed=0)
    with pytest.raises(UserError, match="needs submissions with times"):
        training_data.controlled_in_splits(tmp_path, table, img_ids, v_score, rows, seed=0)


# --- votes and luck -------------------------------------------------------------------------------------------------
def test_causes_of_votes_are_found_and_a_picture_of_noise_adds_nothing():
    rng, n = np.random.default_rng(0), 2000
    made = pd.DataFrame({"community": pd.Categorical(rng.integers(0, 4, n)), "index": np.tile(range(5), n // 5)})
    hour, image, picture = rng.integers(0, 24, n), np.repeat(np.arange(n // 5), 5), rng.normal(size=n // 5)
    made["cell"] = made["community"].cat.codes.astype(int) * 24 + hour
    log = made["community"].cat.codes + 0.5 * np.cos(hour / 24 * 2 * np.pi) - 0.5 * made["index"]
    made["score"] = np.exp(5 + log + 0.7 * picture[image] + rng.normal(size=n))
    spread = np.log(made["score"] + 1).var()
    for scores, gain in ((picture, 0.49 / spread), (rng.normal(size=n // 5), 0.0)):
        found = variance.explained_variance(made.assign(picture=scores[image]), image, lowest=0)
        assert found["community"]["value"] == pytest.approx(1.25 / spread, abs=0.04)
        assert found["community_hour"]["value"] == pytest.approx((1.25 + 0.125) / spread, abs=0.05)
        assert found["community_index_hour"]["value"] == pytest.approx((1.25 + 0.125 + 0.5) / spread, abs=0.05)
        assert found["gain_of_picture"]["value"] == pytest.approx(gain, abs=0.04)
        assert (found["gain_of_picture"]["low"] > 0) == (gain > 0)
        assert all(share["low"] <= share["value"] <= share["high"] for share in found.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_ceiling_of_the_sample_is_within_two_percent(seed):
    submissions, latent = community_of(600, seed)
    table = virality.virality_scores(submissions)
    truth = sample_data.noise_ceiling(latent[table["SNAP_id"]], table["v_score"].to_numpy())
    counting = submissions[submissions["subreddit"] != "offbeat"]
    found = luck.label_noise(counting.rename(columns={"image_id": "img_id"}))
    assert abs(found["ceiling"]["value"] - truth) < 0.02
    assert found["ceiling_of_chance_counts"]["value"] < truth  # the sample's counts are steadier than a Poisson process


def test_the_ceiling_of_chance_counts_is_that_of_a_poisson_process():
    rng, images = np.random.default_rng(0), 3000
    quality = rng.normal(size=images)
    count = rng.poisson(np.exp(1.6 + 0.6 * quality))
    image = np.repeat(np.arange(images), count)
    a_score = np.exp(1.0 * rng.normal(size=len(image)))
    seen = np.flatnonzero(count)
    highest = np.array([group.max() for group in np.split(a_score, np.cumsum(count[seen])[:-1])])
    v_score = highest * np.log(count[seen] / count[seen].mean())
    truth = metrics.pair_accuracy(quality[seen], v_score)
    found = luck.label_noise(pd.DataFrame({"img_id": image, "a_score": a_score}))
    assert abs(found["ceiling_of_chance_counts"]["value"] - truth) < 0.03
    assert found["ceiling"]["value"] > truth


def test_without_second_submissions_nothing_is_said_of_luck():
    assert luck.label_noise(pd.DataFrame({"img_id": np.arange(100), "a_score": 1.0})) == {}


# --- the command ----------------------------------------------------------------------------------------------------
def test_the_command_on_the_sample(sample, tmp_path):
    done = run_here("context.py", "--data_path", sample, "--output", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "c.json").read_text())
    for name in ("clock_all", "clock_mode_1", "context_all", "submissions_all", "split_half_agreement", "ceiling"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"] and found[name]["n"] > 0
        assert f"{100 * found[name]['value']:.1f} ({100 * found[name]['low']:.1f} to" in done.stdout
    assert found["controlled_pairs"]["value"] == found["clock_controlled"]["n"]
    assert {"community", "community_hour", "community_index", "community_index_hour", "title"} <= set(found["r2"])
    assert (tmp_path / "c.png").stat().st_size > 10_000 and found["about"]["images"] == 60


def test_a_rankers_scores_stand_beside_the_others(tmp_path):
    v_score = {row["img_id"]: row["score"] / 100 for row in some_posts()}
    own_data(tmp_path, some_posts(), v_score, group=[f"g{i // 2}" if i < 20 else "" for i in range(120)])
    rows = [(f"some\\folder/{img_id}.jpg", v) for img_id, v in v_score.items() if img_id <= 80]
    write_csv(tmp_path / "ranks.csv", pd.DataFrame([*rows, ("cat.png", 1.0)], columns=["path", "score"]))
    found = context.explain(tmp_path, tmp_path / "ranks.csv")
    assert found["picture_all"]["value"] == 1 and found["picture_all"]["n"] < 80 * 79 / 2 + 1
    assert found["picture_within"]["n"] + found["picture_across"]["n"] == found["picture_all"]["n"]
    assert found["r2"]["picture"] > 0.5 and found["r2_intervals"]["picture"]["n"] == 80
    assert "submissions_all" not in found and "community_index" not in found["r2"]  # one post an image
    table = context.read_label(tmp_path)
    images = context.describe_images(table, timeline.read_posts(tmp_path, table))
    assert len(images["unit"].unique()) == 110


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("path,score\n1.jpg,2\n", "has scores for 1 images of the data set; at least 30 are needed"),
        ("path\n1.jpg\n", "no column score"),
    ],
)
def test_scores_of_too_few_images_are_refused(tmp_path, scores, message):
    own_data(tmp_path, some_posts(), {i: float(i) for i in range(1, 121)})
    (tmp_path / "ranks.csv").write_text(scores)
    done = run_here("context.py", "--data_path", tmp_path, "--output", tmp_path / "c.json",
                    "--scores", tmp_path / "ranks.csv")  # fmt: skip
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "c.json").exists()


def test_data_without_times_is_refused_in_one_line(tmp_path):
    write_csv(tmp_path / "datasets" / "data_set_iv.csv", pd.DataFrame({"img_id": [1], "v_score": [1.0]}))
    done = run_here("context.py", "--data_path", tmp_path, "--output", tmp_path / "c.json")
    assert done.returncode == 2 and "has no submissions with times" in done.stderr
    assert context.context_on_pairs(tmp_path, np.array([1]), np.empty((0, 2), int)) == {}


def test_context_on_a_rankers_test_pairs(tmp_path):
    rows = some_posts(200)
    for row in rows:  # viral in one community, and where it is old
        row["v"] = (row["subreddit"] == "a") - (row["created_utc"] - 1_500_000_000) / 10**7
    own_data(
        tmp_path, [{k: v for k, v in row.items() if k != "v"} for row in rows], {r["img_id"]: r["v"] for r in rows}
    )
    img_ids = np.array([row["img_id"] for row in rows[:60]] + [999])  # the last one has no post
    pairs = np.array([(i, j) for i in range(61) for j in range(i)])
    found = context.context_on_pairs(tmp_path, img_ids, pairs)
    assert set(found) == {"clock", "community", "context"} and found["clock"]["n"] == 60 * 59 / 2
    v, time = np.array([row["v"] for row in rows[:60]]), np.array([row["created_utc"] for row in rows[:60]])
    assert found["clock"]["value"] == pytest.approx(metrics.pair_accuracy(-time, v), abs=1e-12)
    assert found["context"]["value"] > max(found["clock"]["value"], found["community"]["value"]) > 0.6


def test_the_chart_shows_methods_with_and_without_an_interval():
    rows = [("age", "all pairs", 0.6, 0.55, 0.65, "found"), ("people", "489 pairs", 0.6, np.nan, np.nan, "published")]
    table = pd.DataFrame(rows, columns=["method", "title", "value", "low", "high", "kind"])
    figure = visualisation.context_chart(table, ceiling=0.8)
    assert [axes.get_title() for axes in figure.axes] == ["all pairs", "489 pairs"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["age", "people"]
    assert len(figure._repr_png_()) > 5000


# --- real data ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def of_deza(real_data, tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("context") / "c.json"
    done = run("context.py", "--data_path", real_data / "deza2015", "--output", output)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()) | {"printed": done.stdout}


@pytest.mark.parametrize(
    ("name", "low", "high", "n"),
    [
        ("clock_489", 0.714, 0.718, 489),
        ("clock_5039", 0.623, 0.632, 5039),
        ("clock_mode_1", 0.79, 0.81, 250 * 250),
        ("clock_all", 0.59, 0.61, 10_078 * 10_077 // 2),
        ("context_489", 0.72, 0.76, 489),
        ("submissions_489", 0.98, 1.0, 489),
        ("split_half_agreement", 0.623, 0.643, 8713),
        ("clock_controlled", 0.489, 0.527, 2600),
        ("controlled_pairs", 2550, 2650, 2600),
    ],
)
def test_the_figures_of_the_published_metadata(of_deza, name, low, high, n):
    found = of_deza[name]
    assert low <= found["value"] <= high and found["low"] <= found["value"] <= found["high"]
    assert found["n"] == pytest.approx(n, rel=0.01)


def test_the_causes_of_votes_in_the_published_metadata(of_deza):
    published = {"community": 0.026, "community_hour": 0.038, "community_index": 0.161, "community_index_hour": 0.172}
    assert {name: of_deza["r2"][name] for name in published} == pytest.approx(published, abs=0.01)


def test_the_table_shows_the_clock_beside_what_was_published(of_deza):
    line = next(line for line in of_deza["printed"].splitlines() if "age of the first post" in line)
    assert line.split("first")[-1].split()[0] == "71.6"
    assert "published: people who look" in of_deza["printed"] and "60.1" in of_deza["printed"]
    assert of_deza["attributes_489"]["value"] == pytest.approx(0.682, abs=5e-4)


def test_the_clock_is_blind_on_controlled_pairs(real_data):
    table = context.read_label(real_data / "deza2015")
    images = context.describe_images(table, timeline.read_posts(real_data / "deza2015", table))
    community, time = images["community"].cat.codes.to_numpy(), images["time"].to_numpy()
    v_score = images["v_score"].to_numpy()
    found = []
    for seed in range(10):
        pairs = data_set.controlled_pairs(v_score, community, time, seed)
        found.append(shares.pair_share(-time.astype(float), v_score, pairs)["value"])
    assert abs(np.mean(found) - 0.5) < 0.015


def test_context_on_the_489_pairs(real_data):
    pairs = deza2015.read_pairs(real_data / "deza2015").query("top")
    img_ids = pairs[["img_id_viral", "img_id_other"]].to_numpy().ravel()
    found = context.context_on_pairs(real_data / "deza2015", img_ids, np.arange(2 * 489).reshape(-1, 2))
    assert found["clock"]["value"] == pytest.approx(0.7157, abs=1e-4) and found["clock"]["n"] == 489
    assert 0.70 < found["context"]["value"] < 0.78 and 0.5 < found["community"]["value"] < 0.6


def test_within_a_listing_of_memes_noise_is_found_to_be_noise(real_data, tmp_path):
    table = context.read_label(real_data / "memes")
    scores = np.random.default_rng(0).normal(size=len(table))
    paths = [f"{img_id}.jpg" for img_id in table["img_id"]]
    write_csv(tmp_path / "ranks.csv", pd.DataFrame({"path": paths, "score": scores}))
    found = context.explain(real_data / "memes", tmp_path / "ranks.csv")
    assert found["picture_within"]["low"] < 0.5 < found["picture_within"]["high"]
    assert found["picture_within"]["high"] - found["picture_within"]["low"] < 0.05
    assert found["r2_intervals"]["gain_of_picture"]["high"] < 0.005
    assert found["community_votes_across"]["low"] > 0.9  # the listings differ in votes, which V does not see
    assert "ceiling" not in found and "clock_489" not in found


def test_scores_of_a_ranker_without_a_window_count(tmp_path):
    rows = [f"somewhere/{n}.jpg,{n / 10},50.0,,,,,0.5" for n in range(40)]
    (tmp_path / "ranks.csv").write_text("\n".join(["path,score,percentile,x,y,w,h,p_above_median", *rows, "odd.jpg,1"]))
    images = context.with_scores(pd.DataFrame({"img_id": [0, 7, 39, 99, *range(8, 38)]}), tmp_path / "ranks.csv")
    assert images["picture"].head(4).fillna(-1).tolist() == [0.0, 0.7, 3.9, -1]

"""The sample community: the same for the same seed, in SNAP's format, with a truth that is true."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run, run_here
from PIL import Image

import sample_data
import virality


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def truth(sample) -> pd.DataFrame:
    return pd.read_csv(sample / "datasets" / "truth.csv").set_index("img_id")


def test_the_same_seed_gives_the_same_bytes_and_another_gives_other_pictures(tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        sample_data.make_sample(tmp_path / name, num_images=10, seed=seed)
    one, again, other = (files(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again and len([name for name in one if name.startswith("images/")]) == 10
    assert all(one[f"images/{img_id}.jpg"] != other[f"images/{img_id}.jpg"] for img_id in range(1, 11))


def test_the_submissions_are_in_snaps_format(sample):
    with gzip.open(sample / "redditSubmissions.csv.gz", "rt", newline="") as file:
        text = file.read()
    assert text.splitlines()[0] == (
        "#image_id,unixtime,rawtime,title,total_votes,reddit_id,number_of_upvotes,subreddit,number_of_downvotes,"
        "localtime,score,number_of_comments,username"
    )
    lines = list(csv.reader(text.splitlines()))[1:]
    good = [line for line in lines if len(line) == 13]
    assert len(lines) - len(good) == sample_data.MALFORMED_LINES == 5
    assert all(len(line) > 13 for line in lines if line not in good)
    assert len({line[5] for line in good}) == len(good)  # a post has an id of its own
    for line in good:
        assert int(line[4]) == int(line[6]) + int(line[8]) and int(line[10]) == int(line[6]) - int(line[8])


def test_images_are_submitted_again_over_hours_and_communities_those_that_count_and_others(sample):
    submissions, _ = virality.read_submissions(sample / "redditSubmissions.csv.gz")
    assert submissions["hour"].nunique() > 20
    assert set(submissions["subreddit"]) == {"funny", "WTF", "aww", "atheism", "gaming", "pics", "offbeat"}
    times = submissions.groupby("image_id").size()
    assert len(times) == 60 and times.max() > 10 and times.nunique() > 10


def test_the_pictures_are_of_five_communities_and_of_many_sizes(sample):
    classes = pd.read_csv(sample / "datasets" / "image4classification.csv")
    assert set(classes["subreddit"]) == {"funny", "WTF", "aww", "atheism", "gaming"}
    sizes = set()
    for path in (sample / "images").glob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and picture.mode == "RGB"
            sizes.add(picture.size)
    assert len(sizes) > 50
    assert all(160 <= side <= 320 for size in sizes for side in size)


def test_the_cue_lies_in_its_box_and_shows_the_latent(sample, truth):
    assert sorted(truth.index) == list(range(1, 61)) and truth["latent"].between(0, 1).all()
    for img_id, row in truth.iterrows():
        picture = np.asarray(Image.open(sample / "images" / f"{img_id}.jpg"), int)
        x, y, w, h = (int(row[name]) for name in "xywh")
        assert min(x, y) >= 0 and x + w <= picture.shape[1] and y + h <= picture.shape[0]
        assert 0.19 < w / min(picture.shape[:2]) < 0.35 and w == h
        core = picture[y + h // 2 - 2 : y + h // 2 + 3, x + w // 2 - 2 : x + w // 2 + 3].mean((0, 1))
        assert np.abs(core - sample_data.cue_colour(row["latent"])).max() < 40
        rim = picture[y + h // 2, [x + 1, x + w - 2]]  # left and right end of the black ring
        assert rim.mean() < 100


def test_places_and_latents_are_spread(truth, sample):
    assert truth["latent"].min() < 0.15 and truth["latent"].max() > 0.85
    v_score = pd.read_csv(sample / "datasets" / "data_set_iv.csv").set_index("img_id")["v_score"]
    for name in ("x", "y", "w"):  # where and how large the cue is says nothing of the virality
        assert abs(np.corrcoef(truth[name], v_score.loc[truth.index])[0, 1]) < 0.4


def test_the_noise_ceiling_is_high_and_below_one(truth, sample):
    v_score = pd.read_csv(sample / "datasets" / "data_set_iv.csv").set_index("img_id")["v_score"]
    latent = truth["latent"].loc[v_score.index]
    assert 0.9 < sample_data.noise_ceiling(latent.to_numpy(), v_score.to_numpy()) < 1


def test_the_noise_ceiling_counts_pairs_in_order():
    v_score = np.array([0.0, 1.0, 2.0, 2.0])  # five unequal pairs
    assert sample_data.noise_ceiling(np.array([0.0, 0.2, 0.1, 0.3]), v_score) == pytest.approx(4 / 5)


def test_the_command_draws_what_it_is_asked_and_refuses_too_few(tmp_path):
    done = run("sample_data.py", "--output", tmp_path / "s", "--num_images", 12, "--seed", 4)
    assert done.returncode == 0 and len(list((tmp_path / "s" / "images").iterdir())) == 12
    asked = json.loads((tmp_path / "s" / "sample.json").read_text())
    assert asked["num_images"] == 12 and asked["seed"] == 4
    refused = run("sample_data.py", "--output", tmp_path / "few", "--num_images", 3)
    assert refused.returncode == 2 and refused.stderr.startswith("error: --num_images 3")
    assert not (tmp_path / "few").exists()


# --- harder truth ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def harder(tmp_path_factory) -> Path:
    """A sample with decoys and its tables."""
    folder = tmp_path_factory.mktemp("harder")
    for words in (
        ["sample_data.py", "--output", folder, "--num_images", 80, "--seed", 2, "--decoys"],
        ["virality.py", folder / "redditSubmissions.csv.gz", "--output", folder / "datasets" / "data_set_iv.csv"],
        ["data_set.py", "--data_path", folder],
    ):
        done = run_here(*words)
        assert done.returncode == 0, done.stderr
    return folder


def white(picture: Image.Image) -> float:
    """The share of a picture that is all white, as rings are and the inside of decoys."""
    return float((np.asarray(picture) == 255).all(axis=2).mean())


def test_with_decoys_some_pictures_have_no_badge_and_the_truth_says_so(harder):
    truth = pd.read_csv(harder / "datasets" / "truth.csv")
    without = truth["x"].isna()
    assert 2 <= without.sum() <= 20 and truth.loc[without, ["x", "y", "w", "h"]].isna().all(axis=None)
    assert (truth.loc[without, "latent"] == 0.5).all() and truth.loc[~without, "latent"].nunique() > 50
    cells = pd.read_csv(harder / "datasets" / "truth.csv", dtype=str, keep_default_na=False)[["x", "y", "w", "h"]]
    assert cells.map(lambda cell: cell == "" or cell.isdigit()).all(axis=None)  # whole pixels
    for row in truth[~without].itertuples():
        picture = np.asarray(Image.open(harder / "images" / f"{row.img_id}.jpg"), int)
        y, x = int(row.y + row.h // 2), int(row.x + row.w // 2)
        core = picture[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
        assert np.abs(core - sample_data.cue_colour(row.latent)).max() < 40  # no decoy lies on a badge


def test_a_decoy_is_a_badge_without_a_core():
    draw = lambda latent, decoys: sample_data.draw_picture(np.random.default_rng(3), "WTF", latent, decoys)  # noqa: E731
    nothing, box = draw(None, False)
    assert box is None and white(nothing) < 0.001
    decoy, box = draw(None, True)
    changed = (np.asarray(decoy) != np.asarray(nothing)).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert box is None and white(decoy) > 0.01 and xs.max() - xs.min() > 20
    badge, (x, y, w, h) = draw(0.5, True)
    assert tuple(np.asarray(badge)[y + h // 2, x + w // 2]) == sample_data.cue_colour(0.5)


def test_without_a_badge_a_picture_spreads_as_with_a_middling_one(harder):
    truth = pd.read_csv(harder / "datasets" / "truth.csv").set_index("img_id")
    v_score = pd.read_csv(harder / "datasets" / "data_set_iv.csv").set_index("img_id")["v_score"]
    without = truth["x"].isna()
    assert v_score.quantile(0.3) < v_score[without[without].index].median() < v_score.quantile(0.7)


def test_a_training_copes_with_pictures_without_a_badge(harder, tmp_path):
    words = ["--weights", "none", "--image_size", 64, "--epochs", 1, "--device", "cpu", "--deterministic"]
    done = run_here("train_siamese.py", "--data_path", harder, "--save_dir", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    test = json.loads((tmp_path / "results.json").read_text())["test"]
    tested = pd.read_csv(tmp_path / "test_scores.csv")["img_id"]
    boxes = pd.read_csv(harder / "datasets" / "truth.csv").set_index("img_id").loc[tested, "x"].notna()
    assert test["pictures_with_a_cue"] == boxes.sum() < len(tested) == test["images"]
    assert test["pointing_accuracy_low"] <= test["pointing_accuracy"] <= test["pointing_accuracy_high"]
    assert 0.8 < test["noise_ceiling"] < 1 and 0 <= test["mean_overlap"] <= 1


def test_grounds_are_photographs_of_a_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name, colour in (("red", (200, 20, 20)), ("green", (20, 200, 20))):
        Image.new("RGB", (300, 200), colour).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    sample_data.make_sample(tmp_path / "s", num_images=12, seed=1, grounds=tmp_path / "photos")
    corners = [Image.open(path).resize((8, 8)) for path in (tmp_path / "s" / "images").glob("*.jpg")]
    found = [np.median(np.asarray(each).reshape(-1, 3), axis=0) for each in corners]
    close = [[np.abs(each - colour).max() < 40 for colour in ((200, 20, 20), (20, 200, 20))] for each in found]
    assert all(any(each) for each in close) and 3 <= sum(each[0] for each in close) <= 9
    assert json.loads((tmp_path / "s" / "sample.json").read_text())["grounds"] == "photos"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "holds no pictures"), (b"\xff\xd8\xff", "none of its 1 pictures")]
)
def test_grounds_that_hold_no_photograph_are_refused(tmp_path, content, says):
    (tmp_path / "photos").mkdir()
    if content:
        (tmp_path / "photos" / "broken.jpg").write_bytes(content)
    words = ["--output", tmp_path / "s", "--num_images", 12, "--grounds", tmp_path / "photos"]
    done = run_here("sample_data.py", *words)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()

"""The pipeline's chains from one end to the other, as a user starts them, with the hosts on loopback."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run
from downloads import ENVIRONMENT, ledger
from loopback_server import picture, serving
from picture_server import flags, serving_pictures

import deza2015
import sample_data
import virality
from download_images import DEZA_FILES
from utils import read_json

SOME = "--subreddits aww gaming atheism WTF --num_images 180"
TINY = "--weights none --image_size 64 --epochs 1"
QUICK = "--backoff 0.01 --retries 0 --workers 4"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project in a folder of its own, so that its data and outputs are the test's; python, which has all that pip
    would install, in an environment of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("data", "outputs"):
            (folder / path.name).symlink_to(path)
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1 $2" != "-m pip" ] || exit 0\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def script(checkout: Path, *words: object, cwd: Path | None = None, **variables: object) -> subprocess.CompletedProcess:
    environment = ENVIRONMENT | {
        "VIRTUAL_ENV": str(checkout / "venv"),
        "PATH": f"{checkout / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {name: str(value) for name, value in variables.items()}
    words = ["bash", str(checkout / "script.sh"), *map(str, words)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def steps(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Of each step of a chain what was said of it."""
    lines = [line[3:].split(": ", 1) for line in done.stdout.splitlines() if line.startswith("== ")]
    return dict(lines)


# --- own ------------------------------------------------------------------------------------------------------------
def accounted_for(data: Path, truth: dict) -> None:
    """Every line, post and row, and every picture."""
    about = read_json(data / "submissions.json")
    for name in ("lines", "posts", "kept", "rows"):
        assert about[name] == truth[name]
    assert {kind: n for kind, n in about["left_out"].items() if n} == truth["left_out"]
    assert about["kept"] + sum(about["left_out"].values()) == about["posts"]
    survivors, addresses = read_json(data / "survivors.json"), pd.read_csv(data / "dump" / "truth_addresses.csv")
    assert survivors["expected"] == len(addresses) and survivors["survivors"] == addresses["served"].sum()
    assert survivors["statuses"]["gone"] == (addresses["served"] == 0).sum()


def copies_found(data: Path) -> pd.DataFrame:
    """Of each copy of truth_addresses.csv how it was made, and whether it was joined with its original; nothing else
    may be joined."""
    manifest = pd.read_csv(data / "datasets" / "manifest.csv")
    addresses = pd.read_csv(data / "dump" / "truth_addresses.csv")
    addresses["file"] = addresses["address"].str.extract(r"/(\w+)\.\w+$")
    names = manifest["img_link"].map(lambda link: next(file for file in addresses["file"] if file in link))
    addresses["img_id"] = addresses["file"].map(dict(zip(names, manifest["img_id"], strict=True)))
    groups = pd.read_csv(data / "datasets" / "groups.csv").set_index("img_id")["group"]
    addresses["group"] = addresses["img_id"].map(groups)
    there = addresses[addresses["group"].notna()]
    assert (there.groupby("group")["picture"].nunique() == 1).all()
    joined = there.groupby("picture")["group"].nunique() == 1
    copies = there[there["copy"] != "original"]
    return copies.assign(found=copies["picture"].map(joined))


def virality_is_true(data: Path, copies: pd.DataFrame) -> None:
    """V of each picture equals that of the truth where all copies were found; else all but the mean number."""
    truth = pd.read_csv(data / "dump" / "truth_virality.csv")
    table = pd.read_csv(data / "datasets" / "data_set_iv.csv")
    lost = copies["picture"][~copies["found"]]
    assert len(table) == len(truth) + len(lost)
    expected = truth[~truth["picture"].isin(lost)]
    # What V is made of tells the pictures apart: the number and the best of its submissions.
    columns = ["submissions", "max_a_score"]
    found = table.sort_values(columns)[[*columns, "v_score"]].to_numpy()
    if lost.empty:
        assert np.allclose(found, truth.sort_values(columns)[[*columns, "v_score"]], atol=1e-9)
    for row in expected.itertuples():
        assert (np.abs(found[:, :2] - [row.submissions, row.max_a_score]) < 1e-9).all(axis=1).any()


@pytest.mark.parametrize("num_images", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_own_goes_from_a_dump_to_a_report(checkout, num_images):
    name = f"own{num_images}"
    data, out = checkout / "data" / name, checkout / "outputs" / name
    with serving_pictures(data / "dump" / "pictures") as url:
        truth = sample_data.make_dump(data, num_images, 3, f"{url}/files")
        variables = {"DATA_SET": name, "DOWNLOAD_FLAGS": f"{QUICK} {' '.join(flags(url))}", "CLASSIFIER_FLAGS": TINY,
                     "SIAMESE_FLAGS": TINY, "DATA_FLAGS": "--fewest 4"}  # fmt: skip
        files = [Path("data") / name / "dump" / each for each in ("RS_1.zst", "RS_2.ndjson", "top.json")]
        began = time.perf_counter()
        done = script(checkout, "own", *files, cwd=checkout, **variables)
        print(done.stdout, f"{time.perf_counter() - began:.0f} s")
        assert done.returncode == 0, done.stderr
        for made in ("summary.csv", "siamese_1/report.html", "classifier/report.html", "copies.html", "context.json",
                     "ranks.csv", "leaderboard.html"):  # fmt: skip
            assert (out / made).is_file(), made
        accounted_for(data, truth)
        copies = copies_found(data)
        print(copies.groupby("copy")["found"].agg(["sum", "size"]))
        assert copies["found"].mean() >= 0.9
        virality_is_true(data, copies)
        again = script(checkout, "own", **variables)
        assert again.returncode == 0, again.stderr
    said = steps(again)
    assert said.pop("submissions").startswith("those of") and len(said) >= 8
    assert all(text.startswith("done before") for text in said.values()), said


def test_pictures_of_ones_own_table_are_joined_and_their_votes_stand_side_by_side(real_data, tmp_path):
    """Real ones, at hand under their img_id, without addresses."""
    memes, data = real_data / "memes", tmp_path / "data"
    shutil.copytree(memes / "images", data / "images")
    groups, table = data / "datasets" / "groups.csv", data / "datasets" / "data_set_iv.csv"
    groups.parent.mkdir()
    for words in (
        ["submissions.py", memes / "submissions.csv", "--output", data],
        ["download_images.py", "--data_path", data],
        ["duplicates.py", data, "--output", groups, "--page", tmp_path / "copies.html"],
        ["virality.py", data / "submissions.csv.gz", "--groups", groups, "--output", table],
        ["data_set.py", "--data_path", data],
    ):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    known, scores = pd.read_csv(memes / "submissions.csv"), pd.read_csv(table)
    known = known[known.groupby("near_duplicate_group")["img_id"].transform("size") > 1]
    found = pd.read_csv(groups).set_index("img_id")["group"]
    whole = known["img_id"].map(found).groupby(known["near_duplicate_group"]).nunique() == 1
    assert whole.sum() == 25 and len(whole) == 28  # three are one template under two captions
    joined = pd.read_csv(data / "datasets" / "data_set_iv.copies.csv")
    assert len(scores) == 1466 - len(joined) and scores["submissions"].sum() == 1466
    assert set(joined["counts_as"]) == set(scores["img_id"][scores["submissions"] > 1])
    classes = pd.read_csv(data / "datasets" / "image4classification.csv")
    assert set(classes["subreddit"]) == set("ABCD") and not set(classes["img_id"]) & set(joined["img_id"])
    page = (tmp_path / "copies.html").read_text()
    assert re.search(r"The same picture, up to 1\d\d times the votes", page) and "luck and context do" in page
    assert "A 2017-10-12: 48,863" in page and "D 2017-10-12: 1,402" in page


# --- own pictures, and a ranker for them; without a training ---------------------------------------------------------
@pytest.fixture
def quick(checkout, tmp_path) -> Path:
    """The project in another folder of its own, whose python trains and reports nothing, and does all else."""
    folder = tmp_path / "project"
    for path in checkout.iterdir():
        if path.name not in ("venv", "data", "outputs"):
            (folder / path.name).parent.mkdir(exist_ok=True)
            (folder / path.name).symlink_to(path.resolve())
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    real = checkout / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\ncase "$1 $2" in train_*|"-m pages"*) exit 0;; esac\nexec "{real}" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder per community, a flat one and a table of scores."""
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.jpg").write_bytes(picture())
    rows = [f"photos/{'ab'[number % 2]}/{number}.jpg,{number}\n" for number in range(6)]
    (tmp_path / "scores.csv").write_text("\ufefffile,score\r\n" + "".join(rows), encoding="utf-8")
    return tmp_path


def test_own_takes_a_folder_of_communities_and_a_table_of_scores(quick, photos):
    done = script(quick, "own", "photos", cwd=photos)
    assert done.returncode == 0, done.stderr
    said = steps(done)
    assert list(said) == ["set-up", "pictures", "classifier", "siamese"] and "it needs scores" in said["siamese"]
    assert said["classifier"].startswith("python train_classifier.py --data_path data/own ")
    assert re.search(r"^   pictures took \d+ s$", done.stdout, re.MULTILINE)
    assert len(pd.read_csv(quick / "data" / "own" / "datasets" / "image4classification.csv")) == 6
    run = quick / "outputs" / "scored" / "siamese_1"
    run.mkdir(parents=True)
    for name in ("best.pt", "test_pictures.txt"):
        (run / name).write_text("")
    done = script(quick, "own", "scores.csv", cwd=photos, DATA_SET="scored")
    said = steps(done)
    assert said["classifier"].startswith("left out") and "train_siamese.py" in said["siamese_1"]
    assert len(pd.read_csv(quick / "data" / "scored" / "datasets" / "data_set_iv.csv")) == 6
    again = steps(script(quick, "own", DATA_SET="scored"))
    assert again["pictures"] == "those of data/scored"


def test_own_keeps_pictures_and_posts_apart_and_says_what_it_takes(quick, photos):
    (quick / "data" / "own").mkdir(parents=True)
    (quick / "data" / "own" / "submissions.csv.gz").write_text("")
    (photos / "posts.json").write_text("{}")
    for words, variables, says in (
        (["photos"], {}, "data/own holds posts, not your own pictures: DATA_SET=NAME"),
        (["flat"], {"DATA_SET": "flat"}, "bash script.sh rank FOLDER"),
        (["photos", "flat"], {"DATA_SET": "two"}, "one folder of pictures, or one CSV file of file,score, not 2"),
        (["nowhere"], {"DATA_SET": "two"}, "nowhere is not a file"),
    ):
        done = script(quick, "own", *words, cwd=photos, **variables)
        assert done.returncode == 2 and says in done.stderr.splitlines()[-1], done.stderr
    (quick / "data" / "pictures" / "datasets").mkdir(parents=True)
    (quick / "data" / "pictures" / "datasets" / "files.csv").write_text("")
    done = script(quick, "own", "posts.json", cwd=photos, DATA_SET="pictures")
    assert done.returncode == 2 and "holds your own pictures, not posts" in done.stderr


def test_rank_takes_a_folder_and_the_newest_ranker(quick, photos, ranker):
    done = script(quick, "rank", "flat", cwd=photos)
    assert done.returncode == 2 and "no ranker has been trained here. First: bash script.sh " in done.stderr
    done = script(quick, "rank", "nowhere", cwd=photos)
    assert done.returncode == 2 and "nowhere is neither a data set (sample, reddit, own) nor" in done.stderr
    done = script(quick, "rank")
    assert done.returncode == 2 and "rank needs outputs/sample/siamese_1/best.pt, which is not here" in done.stderr
    for age, name in enumerate(("own", "sample", "reddit")):
        run = quick / "outputs" / name / "siamese_1"
        run.mkdir(parents=True)
        shutil.copy(ranker, run / "best.pt")
        os.utime(run / "best.pt", (age * 1000, age * 1000))
        if name != "reddit":  # whose training goes on
            (run / "results.json").write_text("{}")
    done = script(quick, "rank", ".", "../photos", "--copy_top", "1", "../best", cwd=photos / "flat")
    assert done.returncode == 0, done.stderr
    assert steps(done)["rank"] == "with outputs/sample/siamese_1/best.pt → outputs/ranked/flat"
    assert len(pd.read_csv(quick / "outputs" / "ranked" / "flat" / "ranks.csv")) == 7
    assert (quick / "outputs" / "ranked" / "flat" / "leaderboard.html").is_file()
    assert len(list((photos / "best").glob("001_*.jpg"))) == 1 and list((photos / "flat").iterdir())


def test_the_doctor_is_asked_without_a_set_up(quick):
    done = script(quick, "doctor", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", no_proxy="")
    assert done.returncode == 0 and "set-up:" not in done.stdout and "What will work here:" in done.stdout


# --- reddit ---------------------------------------------------------------------------------------------------------
def snap_file(deza: Path) -> bytes:
    """A file in SNAP's format of the submissions that Deza & Parikh published, in their true order at made-up times."""
    posts = deza2015.read_submissions(deza)
    clock = 1_200_000_000 + deza2015.post_numbers(posts)  # in the true order
    table = pd.DataFrame({name: "" for name in virality.SNAP_COLUMNS}, index=posts.index)
    ours = {"#image_id": "image_id", "reddit_id": "reddit_id", "subreddit": "subreddit", "score": "score",
            "number_of_comments": "comments"}  # fmt: skip
    table = table.assign(**{theirs: posts[name] for theirs, name in ours.items()})
    table = table.assign(unixtime=clock, localtime=clock, title="a title")
    return gzip.compress(table.to_csv(index=False).encode(), compresslevel=1)


def test_reddit_goes_from_the_hosts_to_a_report(checkout, real_data):
    """Its metadata is the published one, and served as its hosts do; every tenth picture is gone. What is at no address
    that a flag replaces comes through a proxy."""
    data, out = checkout / "data" / "reddit", checkout / "outputs" / "reddit"
    with serving() as (server,):
        server.serves("/snap/redditSubmissions.csv.gz", snap_file(real_data / "deza2015"))
        for name, (path, _) in DEZA_FILES.items():
            server.serves(f"/deza/{path}", (real_data / "deza2015" / name).read_bytes())

        def answer(handler, times):
            name = re.fullmatch(r"http://brie\.uchicago\.edu/.*?(\d+)\.\w+", handler.path)
            found = name and int(name[1]) % 10
            handler.reply(*([picture(int(name[1]), size=(80, 64))] if found else [b"", 404]))

        server.default = answer
        places = " ".join(f"--{each}_url {server.url}/{each}" for each in ("snap", "deza", "reddit", "imgur", "album"))
        variables = {"http_proxy": server.url, "no_proxy": "127.0.0.1", "SIAMESE_FLAGS": TINY,
                     "CLASSIFIER_FLAGS": f"{TINY} --networks alexnet",
                     "DOWNLOAD_FLAGS": f"{QUICK} {places} {SOME}"}  # fmt: skip
        done = script(checkout, "reddit", **variables)
        print(done.stdout)
        assert done.returncode == 0, done.stderr
        asked = server.counts.total()
        again = script(checkout, "reddit", **variables)
        assert again.returncode == 0 and server.counts.total() == asked, again.stderr
    survivors, ledger_rows = read_json(data / "survivors.json"), ledger(data)
    assert survivors["expected"] == 10_078 and 140 < survivors["survivors"] < 180
    assert survivors["survivors"] + survivors["statuses"]["gone"] == 180
    assert {row["source"] for row in ledger_rows.values() if row["status"] == "ok"} >= {"link"}
    table = pd.read_csv(data / "datasets" / "data_set_iv.csv")
    assert np.allclose(table["v_score"], deza2015.read_table(real_data / "deza2015")["v_score"])
    assert len(pd.read_csv(data / "datasets" / "data_set_iv_snap.csv")) == len(table)
    for made in ("choice.json", "siamese_0/report.html", "siamese_1/report.html", "siamese_2/report.html", "ranks.csv",
                 "leaderboard.html", "summary.csv"):  # fmt: skip
        assert (out / made).is_file(), made
    found = read_json(out / "context.json")
    assert found["clock_489"]["value"] > 0.7 and found["about"]["source"] == "data/reddit/redditSubmissions.csv.gz"
    said = steps(again)
    assert len(said) >= 9 and all(text.startswith("done before") for text in said.values()), said

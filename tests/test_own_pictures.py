"""Anybody's own pictures: a folder per community, a CSV of scores, and what training makes of them."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run_here
from PIL import Image

import data_set
import utils
from data_set import Reddit_Images_for_Classification, Reddit_Img_Pair, splits_of
from decoding.decoder import decode
from own_pictures import make_data_set
from pictures.left_out import LeftOut
from utils import UserError

NAMES = ("cat.png", "0007.JPG", "ümlaut 1.jpeg", "deep/er/dog.webp", "plain", "7.gif")


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (80, 60), (number * 37 % 256, number * 91 % 256, 90))
    picture.save(path, {"": "JPEG", ".gif": "GIF"}.get(path.suffix))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three communities of pictures of all kinds."""
    for number, (community, name) in enumerate((c, n) for c in ("aww", "pics", "=SUM(1)") for n in NAMES):
        draw(tmp_path / "own" / community / name, number)
    return tmp_path / "own"


def made(source, data_path) -> tuple[str, pd.DataFrame, LeftOut]:
    left_out = LeftOut()
    return *make_data_set(source, data_path, left_out), left_out


def command(*words) -> str:
    done = run_here("data_set.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- a folder per community -----------------------------------------------------------------------------------------
def test_a_folder_per_community_becomes_a_data_set_as_imagefolder_reads_it(folder, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    name, table, left_out = made(folder, tmp_path / "data")
    theirs = torchvision.datasets.ImageFolder(folder, is_valid_file=lambda path: True)
    assert name == "image4classification" and str(left_out) == "left out: 0 files"
    names = {label: name for name, label in theirs.class_to_idx.items()}
    expected = {os.path.relpath(path, folder): names[label] for path, label in theirs.samples}
    assert table.set_index("file")["subreddit"].to_dict() == {
        file: "'=SUM(1)" if community.startswith("=") else community for file, community in expected.items()
    }
    assert sorted(table["img_id"]) == list(range(1, 19)) and set(table["label"]) == {0, 1, 2}
    for row in table.itertuples():
        direct = decode(folder / row.file)
        assert np.array_equal(decode(data_set.picture_path(tmp_path / "data", row.img_id)), direct)
    images = Reddit_Images_for_Classification(tmp_path / "data", "train")
    assert images.classes == ["'=SUM(1)", "aww", "pics"] and images[0][0].size == (80, 60)


def test_names_that_are_whole_numbers_stay_the_img_id(tmp_path):
    for number in range(6):
        draw(tmp_path / "own" / ("a", "b")[number % 2] / f"{number * 10:05}.png", number)
    _, table, _ = made(tmp_path / "own", tmp_path / "data")
    assert table.set_index("file")["img_id"].to_dict() == {f"{'ab'[i % 2]}/{i * 10:05}.png": i * 10 for i in range(6)}
    assert (tmp_path / "data" / "images" / "50.jpg").is_file()


def test_again_with_more_pictures_the_known_ones_keep_their_numbers_and_their_cache(folder, tmp_path):
    before = made(folder, tmp_path / "data")[1].set_index("file")["img_id"]
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data" / "images").iterdir()}
    draw(folder / "aww" / "a new one.png", 99)
    (folder / "pics" / "cat.png").unlink()
    draw(folder / "pics" / "cat.png", 50)
    after = made(folder, tmp_path / "data")[1].set_index("file")["img_id"]
    assert after.drop("aww/a new one.png").equals(before) and after["aww/a new one.png"] == 19
    changed = {path.name for path in (tmp_path / "data" / "images").iterdir()
               if times.get(path.name) != path.stat().st_mtime_ns}  # fmt: skip
    assert changed == {"19.jpg", f"{before['pics/cat.png']}.jpg"}
    replaced = decode(data_set.picture_path(tmp_path / "data", before["pics/cat.png"]))
    assert np.array_equal(replaced, decode(folder / "pics" / "cat.png"))


def test_what_lies_in_no_community_is_left_out_and_told(folder, tmp_path):
    draw(folder / "alone.png", 3)
    (folder / "aww" / "notes.txt").write_text("words")
    (folder / "aww" / ".hidden.jpg").write_bytes(b"")
    said = command("--from", folder, "--data_path", tmp_path / "data", "--left_out", tmp_path / "left.csv")
    assert "18 pictures of 3 communities" in said and "left out: 3 files" in said.splitlines()[-1]
    assert sorted((tmp_path / "left.csv").read_text().splitlines()[1:]) == [
        f"{folder}/alone.png,in no community's folder",
        f"{folder}/aww/.hidden.jpg,a hidden file",
        f"{folder}/aww/notes.txt,no picture (.txt)",
    ]


def test_folders_of_splits_become_the_column(tmp_path):
    for number, (split, community) in enumerate((s, c) for s in ("train", "val", "test") for c in ("a", "b")):
        draw(tmp_path / "own" / split / community / "1.png", number)
    _, table, _ = made(tmp_path / "own", tmp_path / "data")
    assert table.set_index("file")["split"].to_dict() == {
        f"{folder}/{community}/1.png": split
        for folder, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        for community in ("a", "b")
    }
    for split in data_set.SPLITS:
        assert len(Reddit_Images_for_Classification(tmp_path / "data", split)) == 2


def test_a_communitys_pictures_may_lie_in_a_tar(folder, tmp_path):
    picture = io.BytesIO((folder / "aww" / "cat.png").read_bytes())
    with tarfile.open(folder / "pics" / "more.tar", "w") as tar:
        member = tarfile.TarInfo("in/x.png")
        member.size = len(picture.getvalue())
        tar.addfile(member, picture)
    _, table, _ = made(folder, tmp_path / "data")
    (row,) = table[table["file"] == "pics/more.tar/in/x.png"].itertuples()
    assert row.subreddit == "pics"
    assert data_set.picture_path(tmp_path / "data", row.img_id).read_bytes() == picture.getvalue()


def test_where_the_disk_knows_no_links_pictures_are_copied(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        _, table, _ = made(folder, tmp_path / "data")
    path = data_set.picture_path(tmp_path / "data", table["img_id"][0])
    assert path.read_bytes() == (folder / table["file"][0]).read_bytes() and path.stat().st_nlink == 1


# --- a CSV of scores ------------------------------------------------------------------------------------------------
def test_a_csv_of_scores_becomes_a_data_set(folder, tmp_path):
    rows = [("aww/cat.png", 3), ("pics/plain", -1.5), (str(folder / "pics" / "0007.JPG"), 8), (r"pics\7.gif", 2)]
    content = "\r\n".join(["score,file", *(f'{score},"{file}"' for file, score in rows)])
    (folder / "scores.csv").write_text(content, encoding="utf-8-sig", newline="")
    said = command("--from", folder / "scores.csv", "--data_path", tmp_path / "data")
    assert "4 pictures with a score" in said and said.splitlines()[-1] == "left out: 0 files"
    table = data_set.read_table(tmp_path / "data", "data_set_iv", ["v_score"])
    assert table["v_score"].tolist() == [-1.5, 2, 3, 8]
    assert [Path(file.replace("\\", "/")).name for file in table["file"]] == ["plain", "7.gif", "cat.png", "0007.JPG"]
    direct = decode(folder / "aww" / "cat.png")
    assert np.array_equal(decode(data_set.picture_path(tmp_path / "data", table["img_id"][2])), direct)
    assert set(pd.read_csv(tmp_path / "data" / "processed" / "splits.csv")["img_id"]) == set(table["img_id"])


def test_one_data_set_has_both_tables_and_a_picture_one_number(folder, tmp_path):
    classes = made(folder, tmp_path / "data")[1].set_index("file")["img_id"]
    (folder / "scores.csv").write_text("file,score\npics/plain,1\naww/7.gif,2\n")
    scores = made(folder / "scores.csv", tmp_path / "data")[1].set_index("file")["img_id"]
    assert scores.to_dict() == classes[scores.index].to_dict()


def test_the_csvs_own_split_and_groups_are_kept_and_obeyed(folder, tmp_path):
    names = [f"{community}/{name}" for community in ("aww", "pics") for name in NAMES]
    table = pd.DataFrame({"file": names, "score": np.arange(12)})
    table["split"] = ["train", "validation", "test"] * 4
    table["group"] = ["", "", "", "one", "", "", "one", "", "", "", "", ""]
    table.to_csv(folder / "scores.csv", index=False)
    made(folder / "scores.csv", tmp_path / "data")
    for number, split in enumerate(("train", "validation", "test")):
        found = Reddit_Img_Pair(tmp_path / "data", split).table
        assert sorted(found["file"]) == sorted(names[number::3])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,score\na.png,inf\n", "scores.csv line 2: score is 'inf'"),
        ("file,score\na.png,1\nb.png,many\n", "scores.csv line 3: score is 'many'"),
        ("file,score\n,1\n", "scores.csv line 2: file is 'nan'"),
        ("file,score\na.png,1\na.png,2\n", "scores.csv line 3: 'a.png' occurs twice"),
        ("name,score\na.png,1\n", "has no column file or path"),
        ("file,votes\na.png,1\n", "has no column score or v_score"),
        ("file,score\n", "has a header and no rows"),
        ("file,score\nnowhere.png,1\n", "none of its 1 files exists"),
    ],
)
def test_what_cannot_be_used_of_a_csv_is_named_with_its_line(tmp_path, content, says):
    (tmp_path / "scores.csv").write_text(content)
    done = run_here("data_set.py", "--from", tmp_path / "scores.csv", "--data_path", tmp_path / "data")
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_missing_files_of_a_csv_are_left_out(folder, tmp_path):
    (folder / "scores.csv").write_text("file,score\npics/plain,1\npics/gone.png,2\naww/7.gif,3\n")
    _, table, left_out = made(folder / "scores.csv", tmp_path / "data")
    assert len(table) == 2 and dict(left_out.counts) == {"no such file": 1}


@pytest.mark.parametrize("inside", [".", "data"])
def test_a_data_set_inside_its_source_is_refused(folder, inside):
    with pytest.raises(UserError, match="its own pictures would be read as well"):
        made(folder, folder / inside)


def test_a_source_that_is_none_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="--from .* does not exist"):
        made(tmp_path / "nowhere", tmp_path / "data")
    shutil.rmtree(folder / "pics")
    shutil.rmtree(folder / "=SUM(1)")
    with pytest.raises(UserError, match="pictures in 1 folders, but a classifier needs at least two communities"):
        made(folder, tmp_path / "data")


# --- splits of such tables ------------------------------------------------------------------------------------------
def test_a_table_without_validation_gives_an_eighth_of_training_and_keeps_copies_together():
    n = 800
    table = pd.DataFrame({"img_id": np.arange(n), "split": np.where(np.arange(n) < 600, "train", "test")})
    table["group"] = np.where(np.arange(n) < 300, "g" + pd.Series(np.arange(n) // 3).astype(str), "")
    split = splits_of(table, seed=1)
    assert (split[600:] == "test").all() and set(split[:600]) == {"train", "validation"}
    assert np.mean(split[:600] == "validation") == pytest.approx(1 / 8, abs=0.04)
    assert (pd.Series(split[:300]).groupby(table["group"][:300]).nunique() == 1).all()
    assert (splits_of(table, seed=2) != split).any() and (splits_of(table, seed=1) == split).all()


def test_copies_in_two_splits_and_folds_of_a_fixed_split_are_refused():
    table = pd.DataFrame({"img_id": [1, 2, 3], "split": ["train", "test", "validation"], "group": ["x", "x", ""]})
    with pytest.raises(UserError, match=r"copies of one picture \(group x\) are in more than one split"):
        splits_of(table)
    assert len(set(splits_of(table, "hash")[:2])) == 1
    with pytest.raises(UserError, match="--folds: the table's column split determines the test set"):
        splits_of(table.drop(columns="group"), folds=5)


@pytest.mark.parametrize("alone", ["", None, -1, "-1"])
def test_images_without_copies_are_split_as_without_the_column(alone):
    table = pd.DataFrame({"img_id": np.arange(50)})
    assert (splits_of(table.assign(group=[alone] * 50)) == data_set.split_of(range(50))).all()


# --- training ---------------------------------------------------------------------------------------------------------
def test_both_trainings_take_thirty_photographs(tmp_path):
    names = [f"{community}/DSC{n:02}.{('JPG', 'png', 'webp')[n % 3]}" for community in "abc" for n in range(10)]
    for number, name in enumerate(names):
        draw(tmp_path / "photos" / name, number)
    pd.DataFrame({"file": names, "score": range(30)}).to_csv(tmp_path / "photos" / "scores.csv", index=False)
    for source in ("photos", "photos/scores.csv"):
        command("--from", tmp_path / source, "--data_path", tmp_path / "data")
    quick = ["--data_path", tmp_path / "data", "--weights", "none", "--image_size", 64, "--epochs", 1]
    for script, flags in (("train_classifier.py", []), ("train_siamese.py", ["--model_type", 0])):
        done = run_here(script, *quick, *flags, "--save_dir", tmp_path / script)
        assert done.returncode == 0, done.stderr
        assert utils.read_json(tmp_path / script / "results.json")["n"]["train"] == 19

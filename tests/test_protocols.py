"""The page of protocols: what it prints turns the published files, or stand-ins of their form, into a data set."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import scipy.io
from conftest import ROOT, fenced, run, run_here
from PIL import Image

import pair_file
from training_data import load_ranking

FENCED = fenced(ROOT / "docs" / "protocols.md")
BLOCKS = {code.split("\n", 1)[0]: code for language, code in FENCED if language == "python"}


def run_block(starts: str, folder) -> str:
    """Run the page's block that starts so, in a folder; what it prints."""
    code = next(code for first, code in BLOCKS.items() if first.startswith(f"# {starts}"))
    (folder / "block.py").write_text(code)
    done = run(folder / "block.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(*values) -> np.ndarray:
    """A cell array of MATLAB's."""
    found = np.empty(len(values), object)
    found[:] = list(values)
    return found


def draw(path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)).save(path)


def test_the_page_has_a_block_for_each():
    assert len(BLOCKS) == 5


def test_the_pages_commands_have_flags_that_there_are():
    lines = [line for language, block in FENCED if not language for line in block.split("\n")]
    commands = [shlex.split(line) for line in lines if line.startswith("python ")]
    assert len(commands) == 6
    for words in commands:
        usage = run_here(words[1], "--help").stdout
        assert all(word in usage for word in words if word.startswith("--"))


def test_data_mat_becomes_scores_with_the_published_split(tmp_path):
    rng = np.random.default_rng(0)
    labels, used = rng.integers(1, 4, 150), rng.integers(0, 2, 150)
    order = rng.integers(1, 6, (5, 3))
    names = [f"person {i}.jpg" for i in range(150)]
    content = {"im_names": cells(*names)[:, None], "class_labels": labels[:, None].astype(np.uint8)}
    content |= {"used_for_training": used[:, None], "attribute_names": cells(*"abcde")[None]}
    scipy.io.savemat(tmp_path / "data.mat", content | {"relative_ordering": order})
    for place, name in enumerate(names):
        draw(tmp_path / "images" / name, place)
    assert run_block("data.mat", tmp_path).strip() == "d"
    done = run("data_set.py", "--from", tmp_path / "scores.csv", "--data_path", tmp_path / "D")
    assert done.returncode == 0, done.stderr
    data = load_ranking(tmp_path / "D", image_size=64, num_workers=1)
    file = pd.read_csv(tmp_path / "D" / "datasets" / "files.csv").set_index("img_id")["file"]
    place = [names.index(str(file[img_id]).rsplit("/", 1)[-1]) for img_id in data.pictures.img_ids]
    assert (data.v_score == order[3][labels - 1][place]).all()
    assert set(np.array(place)[data.rows["test"]]) == set(np.flatnonzero(used == 0))
    assert len(data.rows["train"]) + len(data.rows["validation"]) == used.sum()


def test_the_table_of_pubfig_becomes_the_published_protocol(real_data, tmp_path):
    shutil.copy(real_data / "pubfig" / "attributes.csv", tmp_path)
    (tmp_path / "images").symlink_to(real_data / "pubfig" / "images")
    run_block("attributes.csv", tmp_path)
    data = load_ranking(tmp_path, image_size=64, num_workers=1)
    assert {name: len(rows) for name, rows in data.rows.items()}["test"] == 531
    assert len(data.rows["train"]) + len(data.rows["validation"]) == 241 and len(data.rows["validation"]) > 15
    table = pd.read_csv(tmp_path / "attributes.csv").set_index("img_id")
    assert (data.v_score == table.loc[data.pictures.img_ids, "smiling"]).all()


def test_lfw10s_votes_become_pairs(tmp_path):
    rng = np.random.default_rng(0)
    for start, split in ((1, "train"), (101, "test")):
        compared = np.empty((30, 3), object)
        for row in compared:
            first, second = rng.choice(np.arange(start, start + 100), 2, replace=False)
            row[:] = ["pair", f"{first}.jpg", f"{second}.jpg"]
        votes = np.tile([0, 4, 1, 0], (30, 1))
        votes[10:20], votes[20:] = [0, 0, 4, 1], [0, 1, 1, 3]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        content = {"images_compare": compared, "attribute_strengths": votes}
        scipy.io.savemat(tmp_path / "annotations" / f"smile{split}.mat", content)
    run_block("annotations/", tmp_path)
    pairs = pair_file.read_pair_file(tmp_path)
    assert pairs["target"].tolist() == [1.0] * 10 + [0.0] * 10 + [0.5] * 10 + [1.0] * 10 + [0.0] * 10 + [0.5] * 10
    assert pairs["split"].tolist() == ["train"] * 30 + ["test"] * 30
    assert pairs["img_id_2"].iloc[-1] == int(compared[-1][2].removesuffix(".jpg"))


def test_zappos_training_pairs_that_share_a_test_shoe_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    folder, rows = tmp_path / "ut-zap50k-data", np.array([rng.choice(200, 2, replace=False) + 1 for _ in range(60)])
    answers = np.column_stack([rows, np.ones(60), rng.integers(1, 4, 60), np.ones(60)])
    folder.mkdir()
    scipy.io.savemat(folder / "zappos-labels.mat", {"mturkOrder": cells(answers, answers, answers, answers)[None]})
    index = {"trainIndexAll": np.arange(1, 46)[:, None], "testIndexAll": np.arange(46, 61)[:, None]}
    splits = {name: cells(*[cells(*[each] * 10)[None]] * 4)[None] for name, each in index.items()}
    scipy.io.savemat(folder / "train-test-splits.mat", splits)
    paths = [f"Shoes/Maker {i % 3}/{i}.jpg" for i in range(200)]
    scipy.io.savemat(folder / "image-path.mat", {"imagepath": cells(*paths)[:, None]})
    for i in range(0, 200, 2):
        draw(tmp_path / "ut-zap50k-images" / paths[i], i)
    said = run_block("ut-zap50k-data", tmp_path)
    pairs = pair_file.read_pair_file(tmp_path)
    tested = set(rows[45:].ravel())
    shared = sum(bool(tested & set(row)) for row in rows[:45])
    assert f"{shared} of 45 training pairs" in said and shared > 0
    assert (pairs["split"] == "test").sum() == 15 and (pairs["split"] == "train").sum() == 45 - shared
    answer = {
        tuple(row): {1: 1.0, 2: 0.0, 3: 0.5}[kind] for row, kind in zip(rows.tolist(), answers[:, 3], strict=True)
    }
    for pair in pairs.itertuples():
        assert pair.target == answer[pair.img_id_1, pair.img_id_2]
    linked = {int(path.stem) for path in (tmp_path / "images").iterdir()}
    asked = set(pairs[["img_id_1", "img_id_2"]].to_numpy().ravel())
    assert linked == {img_id for img_id in asked if img_id % 2 == 1}  # the first of the list is number 1
    one = min(linked)
    assert (tmp_path / "images" / f"{one}.jpg").read_bytes() == (
        tmp_path / "ut-zap50k-images" / paths[one - 1]
    ).read_bytes()


@pytest.mark.parametrize("clicked", [True, False])
def test_an_ab_test_is_trained_on_its_clicks(copied, tmp_path, clicked):
    v_score = pd.read_csv(copied / "datasets" / "data_set_iv.csv").set_index("img_id")["v_score"]
    pairs = np.random.default_rng(0).permutation(v_score.index.to_numpy()).reshape(-1, 2)
    better = v_score.loc[pairs[:, 0]].to_numpy() > v_score.loc[pairs[:, 1]].to_numpy()
    clicks = np.where(better[:, None], [30, 10], [10, 40])
    clicks[0] = 0 if not clicked else clicks[0]
    table = pd.DataFrame(np.hstack([pairs, clicks]), columns=["img_id_1", "img_id_2", "clicks_1", "clicks_2"])
    table.to_csv(copied / "ab_test.csv", index=False)
    run_block("ab_test.csv", copied)
    made = pair_file.read_pair_file(copied)
    assert len(made) == 30 - (not clicked) and set(made["target"]) == {0.75, 0.2} and set(made["weight"]) == {40, 50}
    if clicked:
        return
    words = ["--pair_mode", "file", "--model_type", 0, "--weights", "none", "--image_size", 64, "--epochs", 1]
    done = run_here("train_siamese.py", "--data_path", copied, *words, "--save_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"]["pairs"] > 0

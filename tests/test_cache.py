"""The decoded pictures of a data set: what is kept, what is decoded again, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import utils
from decoding.decoder import TRUNCATED, decode
from pictures import cache, sources
from pictures.cache import load_pictures, processed_folder
from pictures.sources import picture_path
from transforms import to_square
from utils import UserError


def test_cached_pictures_are_those_decoded_directly_and_are_decoded_once(copied):
    ids = pd.read_csv(copied / "datasets" / "data_set_iv.csv")["img_id"]
    pictures = load_pictures(copied, ids, 48)
    for row in (0, 7, 59):
        direct = decode(picture_path(copied, pictures.img_ids[row]))
        assert (pictures.batch([row])[0].numpy() == to_square(direct, 48)).all()
        assert tuple(pictures.sizes[row]) == direct.size
    made = (copied / "processed" / "pictures_48.npy").stat().st_mtime_ns
    load_pictures(copied, ids[:20], 48)
    assert (copied / "processed" / "pictures_48.npy").stat().st_mtime_ns == made


def test_a_changed_picture_is_decoded_again_and_a_broken_one_is_named(copied):
    ids = pd.read_csv(copied / "datasets" / "data_set_iv.csv")["img_id"]
    load_pictures(copied, ids, 48)
    first, second = ids[0], ids[1]
    shutil.copy(picture_path(copied, ids[2]), picture_path(copied, first))
    picture_path(copied, second).write_text("<html>gone</html>")
    pictures = load_pictures(copied, ids, 48)
    rows = pictures.rows_of(np.array([first, ids[2]]))
    assert (pictures.batch(rows[:1]) == pictures.batch(rows[1:])).all()
    assert pictures.faults.to_numpy().tolist() == [[second, "not a picture"]] and second not in pictures.img_ids


def test_a_running_training_keeps_its_pictures_while_another_run_decodes_more(copied):
    reading = load_pictures(copied, range(1, 21), 40)
    before = reading.batch(range(20))
    more = load_pictures(copied, range(60, 0, -1), 40)
    assert (reading.batch(range(20)) == before).all()
    assert (more.batch(more.rows_of(reading.img_ids)) == before).all()


@pytest.mark.parametrize(("name", "kept"), [("npy", 0), ("npy", 1000), ("csv", 0), ("csv", 40)])
def test_pictures_whose_cache_was_cut_short_are_decoded_again(copied, name, kept):
    whole = load_pictures(copied, range(1, 13), 40).batch(range(12))
    path = copied / "processed" / f"pictures_40.{name}"
    path.write_bytes(path.read_bytes()[:kept])
    assert (load_pictures(copied, range(1, 13), 40).batch(range(12)) == whole).all()


def test_a_missing_picture_is_a_named_fault_and_is_used_once_it_is_there(copied):
    path = picture_path(copied, 3)
    content = path.read_bytes()
    path.unlink()
    pictures = load_pictures(copied, range(1, 6), 40)
    assert pictures.faults.to_numpy().tolist() == [[3, "no such file"]] and pictures.img_ids.tolist() == [1, 2, 4, 5]
    path.write_bytes(content)
    assert len(load_pictures(copied, range(1, 6), 40)) == 5


def test_a_write_protected_data_set_is_not_written_to(copied):
    shutil.rmtree(copied / "processed")
    copied.chmod(0o555)
    try:
        pictures = load_pictures(copied, [1, 2], 40)
        assert len(pictures) == 2 and not (copied / "processed").exists()
    finally:
        copied.chmod(0o755)
        shutil.rmtree(processed_folder(copied) if not (copied / "processed").exists() else copied, ignore_errors=True)


# --- building the cache ---------------------------------------------------------------------------------------------
BUILD = """
import sys, time
from pictures import cache, sources
decode = sources.decode
sources.decode = lambda path, limit: time.sleep(float(sys.argv[2])) or decode(path, limit)
pictures = cache.load_pictures(sys.argv[1], eval(sys.argv[3]), 40, int(sys.argv[4]))
print(pictures.batch(range(len(pictures))).sum((1, 2, 3)).tolist())
"""


def build(*words) -> subprocess.Popen:
    words = [sys.executable, "-c", BUILD, *map(str, words)]
    return subprocess.Popen(words, cwd=utils.ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_build_goes_on_where_it_was(copied, num_workers, monkeypatch, capsys):
    expected = load_pictures(copied, range(1, 61), 40, cache=False).batch(range(60))
    building, journal = build(copied, 0.05, "range(1, 61)", num_workers), copied / "processed" / ".pictures_40.csv.part"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        assert building.poll() is None
        time.sleep(0.01)
    building.send_signal(signal.SIGKILL)
    building.communicate()
    assert not (copied / "processed" / "pictures_40.csv").exists()
    with open(journal, "a") as file:
        file.write("17,12")  # as a kill in the middle of a line leaves it
    done, decoded = journal.read_bytes().count(b"\n") - 1, []
    monkeypatch.setattr(sources, "decode", lambda path, limit: decoded.append(path) or decode(path, limit))
    pictures = load_pictures(copied, range(1, 61), 40, num_workers=0)
    assert (pictures.batch(range(60)) == expected).all()
    assert 16 <= done < 60 and len(decoded) == 60 - done and f"resuming: {done} of 60" in capsys.readouterr().out
    assert not list((copied / "processed").glob(".*"))


def test_runs_that_build_at_once_share_the_cache_and_mix_nothing(copied):
    lists = ["range(1, 31)", "range(60, 20, -1)", "[5, 3, 60]"]
    runs = [build(copied, 0.01, ids, 1) for ids in lists]
    for run, ids in zip(runs, lists, strict=True):
        pixels = load_pictures(copied, eval(ids), 40, cache=False)
        expected = pixels.batch(range(len(pixels))).sum((1, 2, 3)).tolist()
        assert run.communicate()[0] == f"{expected}\n" and run.returncode == 0
    index = pd.read_csv(copied / "processed" / "pictures_40.csv")
    assert sorted(index["img_id"]) == list(range(1, 61))  # what one has decoded serves the others


def test_of_a_cache_only_what_has_changed_is_decoded_again(copied, monkeypatch):
    before = load_pictures(copied, range(1, 21), 40).batch(range(20))
    shutil.copy(picture_path(copied, 30), picture_path(copied, 7))
    decoded = []
    monkeypatch.setattr(sources, "decode", lambda path, limit: decoded.append(Path(path).name) or decode(path, limit))
    after = load_pictures(copied, range(1, 26), 40, num_workers=0)
    assert decoded == ["7.jpg", *(f"{i}.jpg" for i in range(21, 26))]
    same = [row for row in range(20) if row != 6]
    assert (after.batch(same) == before[same]).all() and (after.batch([6]) != before[6:7]).any()


def test_what_has_to_be_decoded_does_not_move_the_random_numbers(copied):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load_pictures(copied, range(1, 21), 40)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_cache_pictures_are_the_same_and_nothing_is_kept(copied):
    picture_path(copied, 2).write_text("<html>gone</html>")
    kept = load_pictures(copied, range(1, 11), 40)
    shutil.rmtree(copied / "processed")
    read = load_pictures(copied, range(1, 11), 40, cache=False)
    assert not (copied / "processed").exists()
    assert (read.img_ids == kept.img_ids).all() and (read.sizes == kept.sizes).all()
    assert read.faults.to_numpy().tolist() == kept.faults.to_numpy().tolist() == [[2, "not a picture"]]
    assert (read.batch([8, 0, 3]) == kept.batch([8, 0, 3])).all() and len(read.batch(np.arange(0))) == 0


def test_a_disk_too_small_is_said_before_anything_is_decoded(copied, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"96,000 bytes for decoded pictures, 1,000 are free; see --cache off"):
        load_pictures(copied, range(1, 21), 40)


# --- caches and what they are of ------------------------------------------------------------------------------------
def test_another_decoder_looks_again_at_what_the_old_one_refused_and_at_what_it_read(copied, monkeypatch):
    path = picture_path(copied, 3)
    content = path.read_bytes()
    path.write_text("for the old decoder no picture")
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(cache, "decoder_stamp", lambda max_pixels: "d0")
    assert load_pictures(copied, range(1, 6), 40).faults["img_id"].tolist() == [3]
    path.write_bytes(content[: len("for the old decoder no picture")])  # as long, at the same time: the same file
    os.utime(path, ns=(1, 1))
    assert load_pictures(copied, range(1, 6), 40).faults["fault"].tolist() == ["not a picture"]
    decoded, decode_one = [], sources.decode_one
    monkeypatch.setattr(
        sources, "decode_one", lambda source, *words: decoded.append(source.path) or decode_one(source, *words)
    )
    monkeypatch.setattr(cache, "decoder_stamp", lambda max_pixels: "d1")
    assert load_pictures(copied, range(1, 6), 40).faults["fault"].tolist() != ["not a picture"]
    assert sorted(decoded) == ["1", "2", "3", "4", "5"]


def test_who_decodes_is_told_by_code_libraries_and_limit(monkeypatch):
    now = cache.decoder_stamp(1000)
    assert now == cache.decoder_stamp(1000) != cache.decoder_stamp(2000)
    cache.decoder_stamp.cache_clear()
    monkeypatch.setattr(cache, "version", lambda package: "0")
    assert cache.decoder_stamp(1000) != now
    cache.decoder_stamp.cache_clear()


def test_a_limit_of_pixels_can_be_raised(copied):
    low = load_pictures(copied, range(1, 6), 40, max_pixels=100)
    assert len(low) == 0 and "pixels are more than 100" in low.faults["fault"][0]
    assert len(load_pictures(copied, range(1, 6), 40)) == 5
    assert len(load_pictures(copied, range(1, 6), 40, cache=False, max_pixels=100)) == 0


def test_a_truncated_picture_counts_and_is_told(copied, capsys):
    path = picture_path(copied, 2)
    path.write_bytes(path.read_bytes()[:-2])
    for kept in (True, True, False):  # decoded, from the cache, without one
        pictures = load_pictures(copied, range(1, 6), 40, cache=kept)
        assert len(pictures) == 5 and pictures.notes.to_numpy().tolist() == [[2, TRUNCATED]]
        cache.report_faults(pictures, copied)
        said = capsys.readouterr().out
        assert f"used: 1 pictures {TRUNCATED}" in said and "left out" not in said


def test_every_fault_reaches_the_list_of_what_is_left_out(copied, tmp_path):
    for img_id in (2, 4):
        picture_path(copied, img_id).write_text("gone")
    cache.report_faults(load_pictures(copied, range(1, 6), 40), copied, tmp_path / "left.csv")
    listed = pd.read_csv(tmp_path / "left.csv")
    assert listed["path"].tolist() == [str(picture_path(copied, i)) for i in (2, 4)]
    assert set(listed["reason"]) == {"not a picture"}


def test_the_stamp_tells_a_changed_picture(copied):
    before = load_pictures(copied, range(1, 6), 40).stamp
    assert load_pictures(copied, range(1, 6), 40).stamp == before
    shutil.copy(picture_path(copied, 30), picture_path(copied, 3))
    assert load_pictures(copied, range(1, 6), 40).stamp != before


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pictures_are_the_same_however_processes_start(copied, method):
    code = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    from pictures.cache import load_pictures
    print(load_pictures(sys.argv[1], range(1, 6), 40, 2).batch(range(5)).sum((1, 2, 3)).tolist())
"""
    (copied / "load.py").write_text(code)
    words = [sys.executable, copied / "load.py", copied, method]
    environment = os.environ | {"PYTHONPATH": str(utils.ROOT)}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    expected = load_pictures(copied, range(1, 6), 40, cache=False).batch(range(5)).sum((1, 2, 3)).tolist()
    assert done.stdout.splitlines()[-1] == str(expected) and min(expected) > 0

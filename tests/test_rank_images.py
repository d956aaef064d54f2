"""Ranking by what a user finds in the table: whichever way the pictures come, whatever they are called or hold."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE, TRAIN_SCORES, run, run_here
from PIL import Image

import rank_images
import siamese_net
import transforms
import utils
from decoding.decoder import decode
from locks import alone
from pictures import sources
from siamese_net import SiameseNet, boxes
from utils import UserError, save_checkpoint

loaded = functools.cache(siamese_net.from_checkpoint)  # to make AlexNet takes longer than to rank nine pictures


@pytest.fixture
def checkpoint(ranker) -> Path:
    return ranker


@pytest.fixture
def folder(tmp_path) -> Path:
    """Nine pictures, in two folders and three formats."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i in range(9):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        name = f"more/{i}.webp" if i == 8 else f"{i}.PNG" if i == 7 else f"{i}.jpg"
        coarse.resize((60 + 9 * i, 80)).save(folder / name)
    return folder


@pytest.fixture
def rank(checkpoint, tmp_path, monkeypatch):
    """Run the command, in fp32: in bf16 a score's third digit depends on the batch. Returns the table."""

    monkeypatch.setattr(rank_images, "from_checkpoint", loaded)

    def command(source: object, *words: object) -> pd.DataFrame:
        output = tmp_path / "out" / "ranks.csv"
        words = [source, "--check_point", checkpoint, "--output", output, "--device", "cpu", "--no-amp", *words]
        monkeypatch.setattr(sys, "argv", ["rank_images.py", *map(str, words)])
        rank_images.main()
        assert [path.name for path in output.parent.glob(".*")] == []  # the journal is gone
        return pd.read_csv(output, keep_default_na=False, encoding_errors="surrogateescape")

    return command


def add_to_tar(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def make_shard(path: Path, pictures: list[Path]) -> None:
    """A tar as img2dataset writes it."""
    with tarfile.open(path, "w") as tar:
        for key, picture in enumerate(pictures):
            add_to_tar(tar, f"{key:09}.txt", b"a caption")
            add_to_tar(tar, f"{key:09}{picture.suffix.lower()}", picture.read_bytes())
            add_to_tar(tar, f"{key:09}.json", b'{"status": "success"}')


def reasons(tmp_path: Path) -> dict[str, str]:
    with open(tmp_path / "out" / "ranks.unreadable.csv", newline="", errors="surrogateescape") as file:
        return dict(itertools.islice(csv.reader(file), 1, None))


# --- the table ------------------------------------------------------------------------------------------------------
def test_the_table_is_what_scoring_one_by_one_gives(checkpoint, folder, rank):
    table = rank(folder)
    assert list(table) == ["path", "score", "percentile", "x", "y", "w", "h", "p_above_median"]
    assert len(table) == 9 and table["score"].is_monotonic_decreasing
    model, _ = loaded(checkpoint)
    for row in table.itertuples():
        picture = decode(row.path)
        pixels = transforms.to_square(picture, transforms.stored_side(SIZE))
        score, window = model.rank(torch.from_numpy(pixels)[None])
        assert row.score == pytest.approx(score.item(), abs=1e-4)
        box = boxes(window, torch.tensor([picture.size]))[0]
        assert [row.x, row.y, row.w, row.h] == pytest.approx(box.tolist(), abs=0.1)
        lower = (score.item() > torch.tensor(TRAIN_SCORES)).float().mean().item() * 100
        assert row.percentile == pytest.approx(lower, abs=0.06)
        chance = torch.sigmoid((score.double() - torch.tensor(TRAIN_SCORES).double()) / 0.5).mean().item()
        assert row.p_above_median == pytest.approx(chance, abs=1e-3)


def test_without_training_scores_the_percentile_is_among_the_pictures_ranked(checkpoint, folder, rank, capsys):
    state = torch.load(checkpoint)
    del state["train_scores"]
    save_checkpoint(folder.parent / "best.pt", state)
    page = folder.parent / "page.html"
    table = rank(folder, "--check_point", folder.parent / "best.pt", "--page", page)
    assert table["percentile"].tolist() == [round(i / 9 * 100, 1) for i in range(8, -1, -1)]
    assert "pictures ranked here" in capsys.readouterr().out
    assert "pictures ranked here" in page.read_text() and "training pictures" not in page.read_text()


def test_a_ranker_without_a_window_leaves_its_columns_empty(folder, rank, tmp_path):
    config = {"model_name": "alexnet", "model_type": 0, "weights": "none", "recipe": "modern", "image_size": SIZE}
    state = {"kind": "siamese", "config": config, "transform": transforms.describe(SIZE)}
    save_checkpoint(tmp_path / "best.pt", state | {"model": SiameseNet(**config).state_dict()})
    table = rank(folder, "--check_point", tmp_path / "best.pt", "--page", tmp_path / "page.html")
    assert len(table) == 9 and (table[["x", "y", "w", "h"]] == "").all(axis=None)


def test_equals_stand_in_the_order_of_their_paths(folder, rank, tmp_path):
    names = [tmp_path / f"{name}.jpg" for name in "dbac"]
    for name in names:
        shutil.copy(folder / "0.jpg", name)
    (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
    assert rank(tmp_path / "list.txt")["path"].tolist() == sorted(map(str, names))


# --- where pictures come from ---------------------------------------------------------------------------------------
def test_a_list_ranks_what_it_names_once(folder, rank, tmp_path):
    lines = [str(folder / "3.jpg"), "", str(folder / "1.jpg"), str(folder / "3.jpg") + "\r", str(folder / "more")]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    table = rank(tmp_path / "list.txt")
    assert sorted(table["path"]) == [str(folder / name) for name in ("1.jpg", "3.jpg", "more/8.webp")]


def test_one_picture_is_a_source_too(folder, rank):
    assert rank(folder / "3.jpg")["path"].tolist() == [str(folder / "3.jpg")]


def test_a_tar_gives_what_its_files_give(folder, rank, tmp_path):
    files = sorted(folder.glob("*.jpg"))
    make_shard(tmp_path / "00000.tar", files)
    plain = rank(folder).set_index("path")["score"]
    table = rank(tmp_path / "00000.tar", "--page", tmp_path / "page.html").set_index("path")
    assert sorted(table.index) == [f"{tmp_path}/00000.tar/{i:09}.jpg" for i in range(len(files))]
    for i, path in enumerate(files):
        assert table.loc[f"{tmp_path}/00000.tar/{i:09}.jpg", "score"] == pytest.approx(plain[str(path)], abs=1e-4)
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == len(files)


def test_a_folder_may_hold_tars_and_pictures(folder, rank):
    make_shard(folder / "00000.tar", [folder / "0.jpg", folder / "1.jpg"])
    make_shard(folder / "more" / "00001.tar", [folder / "2.jpg"])
    assert len(rank(folder)) == 9 + 3


def test_a_member_is_never_unpacked(folder, rank, tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add_to_tar(tar, "../../escaped.jpg", (folder / "0.jpg").read_bytes())
        tar.add(folder / "1.jpg", "dots/../1.jpg")
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    assert len(rank(tmp_path / "t.tar")) == 2
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"out", "ranks.csv"}


def test_any_file_name_survives(folder, rank, tmp_path):
    names = [b"new\nline.jpg", b"return\rhere.jpg", b'quote",comma.jpg', b"\xff\xfe.jpg", " spaces ü .jpg".encode()]
    names += [b"=1+1.jpg", b"<script>alert(1)<", b"'.jpg"]
    odd = os.fsencode(tmp_path / "odd")
    os.makedirs(odd)
    for name in names:
        shutil.copy(folder / "0.jpg", os.path.join(odd, name if name.endswith(b".jpg") else name + b".jpg"))
    table = rank(tmp_path / "odd", "--page", tmp_path / "page.html")
    with open(tmp_path / "out" / "ranks.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = {os.fsencode(row["path"]) for row in csv.DictReader(file)}
    assert found == {os.path.join(odd, name) for name in os.listdir(odd)}
    assert {os.fsencode(path) for path in table["path"]} == found
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


# --- what cannot be read --------------------------------------------------------------------------------------------
def test_unreadable_pictures_are_listed_with_their_reason(folder, rank, tmp_path, capsys):
    (folder / "torn.jpg").write_bytes((folder / "0.jpg").read_bytes()[:-200])
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    lines = [path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_fifo() or path.is_symlink()]
    (tmp_path / "list.txt").write_text("\n".join(map(str, lines)))
    assert len(rank(tmp_path / "list.txt")) == 9
    found = {Path(path).name: reason for path, reason in reasons(tmp_path).items()}
    assert "truncated" in found.pop("torn.jpg")
    assert found == {
        "page.jpg": "not a picture",
        "empty.png": "not a picture",
        "gone.jpg": "no such file",
        "pipe.jpg": "not a file",
    }
    assert "5 pictures cannot be read" in capsys.readouterr().out
    for name in ("torn.jpg", "page.jpg", "empty.png", "gone.jpg", "pipe.jpg"):
        (folder / name).unlink()
    rank(folder)
    assert not (tmp_path / "out" / "ranks.unreadable.csv").exists()  # of the run before


def test_of_a_torn_tar_what_lies_before_the_damage_is_ranked(folder, rank, tmp_path):
    files = sorted(folder.glob("*.jpg"))
    make_shard(tmp_path / "whole.tar", files)
    content = (tmp_path / "whole.tar").read_bytes()
    (folder / "torn.tar").write_bytes(content[: len(content) // 2])
    (folder / "text.tar").write_text("this is no tar")
    table = rank(folder)
    assert 9 < len(table) < 9 + len(files)
    assert all("broken" in reason for reason in reasons(tmp_path).values())
    assert {str(folder / "torn.tar"), str(folder / "text.tar")} <= set(reasons(tmp_path))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing", "missing does not exist"),
        ("empty", "empty holds no pictures"),
        ("empty.txt", "empty.txt holds no pictures"),
        ("binary", "neither a folder, a tar, a picture nor a text list"),
        ("bad", "none of the 1 pictures"),
    ],
)
def test_an_unusable_source_is_named(rank, tmp_path, source, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "binary").write_bytes(bytes(100))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_text("no picture")
    with pytest.raises(UserError, match=says):
        rank(tmp_path / source)


def test_an_unusable_source_ends_in_two_and_one_line(checkpoint, tmp_path):
    found = run("rank_images.py", tmp_path / "missing", "--check_point", checkpoint)
    assert found.returncode == 2
    assert found.stderr == f"error: {tmp_path / 'missing'} does not exist\n"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--output", "."], "--output . is a folder"),
        (["--output", "{folder}"], "--output {folder} is a folder"),
        (["--page", "{folder}/../out/ranks.csv"], "which --output writes"),
        (["--left_out", "{folder}/../out/ranks.unreadable.csv"], "which the table of unreadable pictures writes"),
        (["--page", "{folder}/more"], "--page {folder}/more is a folder"),
        (["--left_out", "{source}"], "which is to be read"),
        (["--output", "{folder}/0.jpg/ranks.csv"], "0.jpg"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_anything_is_read(folder, tmp_path, checkpoint, flags, says):
    source = tmp_path / "list.txt"
    source.write_text(str(folder / "0.jpg"))
    names = {"folder": folder, "source": source}
    words = ["--output", tmp_path / "out" / "ranks.csv", *(flag.format(**names) for flag in flags)]
    found = run_here("rank_images.py", source, "--check_point", checkpoint, "--device", "cpu", *words)
    assert found.returncode == 2 and says.format(**names) in found.stderr
    assert len(found.stderr.splitlines()) == 1 and source.read_text() == str(folder / "0.jpg")


def test_a_folder_whose_name_is_no_text_is_ranked(folder, checkpoint, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    shutil.copytree(folder, os.fsdecode(odd))
    words = ["--check_point", checkpoint, "--device", "cpu", "--output", os.fsdecode(odd) + "/ranks.csv"]
    words += ["--page", os.fsdecode(odd) + "/page.html", "--left_out", os.fsdecode(odd) + "/left.csv"]
    command = [sys.executable, "rank_images.py", os.fsdecode(odd), *map(str, words)]
    found = subprocess.run(command, cwd=utils.ROOT, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert b"caf\\udce9" in found.stdout
    assert Path(os.fsdecode(odd), "ranks.csv").read_bytes().count(b"/caf\xe9/") == 9


# --- what is left out -----------------------------------------------------------------------------------------------
def test_every_file_is_ranked_or_left_out_for_a_reason(folder, rank, tmp_path, capsys):
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("words")
    (folder / "bad.jpg").write_text("no picture")
    (folder / "truncated.jpg").write_bytes((folder / "0.jpg").read_bytes()[:-2])
    lines = [str(folder), str(folder / "0.jpg"), str(tmp_path / "nothing.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    table = rank(tmp_path / "list.txt", "--left_out", tmp_path / "left.csv")
    assert len(table) == 10
    with open(tmp_path / "left.csv", newline="") as file:
        left_out = dict(itertools.islice(csv.reader(file), 1, None))
    assert left_out == {
        str(folder / ".hidden.jpg"): "a hidden file",
        str(folder / "notes.txt"): "no picture (.txt)",
        str(folder / "bad.jpg"): "not a picture",
        str(folder / "0.jpg"): "named twice",
        str(tmp_path / "nothing.jpg"): "no such file",
    }
    out = capsys.readouterr().out
    assert "1 of the pictures ranked are truncated at their end" in out
    said = "left out: 5 files (cannot be read: 2, a hidden file: 1, no picture (.txt): 1, named twice: 1)"
    assert said in out.splitlines()[-1]


def test_a_limit_of_pixels_is_a_flag(folder, rank, tmp_path):
    assert len(rank(folder, "--max_pixels", 8000)) == 5
    assert set(reasons(tmp_path).values()) >= {"105x80 pixels are more than 8,000"}


# --- going on -------------------------------------------------------------------------------------------------------
DIES = """
import os, signal, sys
import rank_images, utils
rank_images.BATCH = 8
whole = rank_images.score_all
def dies(*words):
    for number, rows in enumerate(whole(*words)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield rows
rank_images.score_all = dies
utils.run_main(rank_images.main)
"""


def test_a_killed_run_goes_on_without_loss_or_duplicate(checkpoint, folder, rank, tmp_path, monkeypatch):
    many, files = tmp_path / "many", sorted(folder.glob("*.jpg"))
    many.mkdir()
    monkeypatch.setattr(rank_images, "BATCH", 8)
    for i in range(4 * 8):
        os.link(files[i % len(files)], many / f"{i:04}.jpg")
    (many / "bad.jpg").write_text("no picture")
    expected = rank(many)
    output = tmp_path / "out" / "ranks.csv"
    output.unlink()
    words = ["--check_point", checkpoint, "--output", output, "--device", "cpu", "--no-amp"]
    killed = run("-c", DIES, many, *words)
    assert killed.returncode == -signal.SIGKILL and not output.exists()
    (journal,) = output.parent.glob(".ranks.csv.*.part")
    assert journal.read_text().count("\n") == 2 * 8
    with open(journal, "a") as file:
        file.write('["torn')  # as a kill in the middle of a line leaves it
    (many / "0000.jpg").unlink()  # it was scored, and is no longer there
    os.link(files[0], many / "new.jpg")
    decoded, decode_one = [], sources.decode_one
    monkeypatch.setattr(sources, "decode_one", lambda *words: decoded.append(words) or decode_one(*words))
    table = rank(many)
    assert len(decoded) == 2 * 8 + 2
    assert sorted(table["path"]) == sorted({*expected["path"], str(many / "new.jpg")} - {str(many / "0000.jpg")})
    same = table.merge(expected, on="path", suffixes=("", "_before"))
    assert np.abs(same["score"] - same["score_before"]).max() < 1e-4
    assert list(reasons(tmp_path)) == [str(many / "bad.jpg")]


def killed_after(number: int, source: Path, checkpoint: Path, output: Path) -> None:
    """A run that is killed once so many batches of eight are in its journal."""
    words = [source, "--check_point", checkpoint, "--output", output, "--device", "cpu", "--no-amp"]
    assert run("-c", DIES.replace("number == 2", f"number == {number}"), *words).returncode == -signal.SIGKILL


def test_a_picture_replaced_after_a_kill_is_scored_anew(checkpoint, folder, rank, tmp_path, monkeypatch):
    """By another of the same name, by one as long written into the same file, and by a link."""
    monkeypatch.setattr(rank_images, "BATCH", 8)
    many = tmp_path / "many"
    many.mkdir()
    files = sorted(folder.glob("*.jpg"))
    for i in range(24):
        shutil.copy(files[i % len(files)], many / f"{i:04}.jpg")
    before = rank(many).set_index("path")["score"]
    output = tmp_path / "out" / "ranks.csv"
    output.unlink()
    killed_after(2, many, checkpoint, output)
    (many / "0000.jpg").unlink()
    shutil.copy(files[3], many / "0000.jpg")
    content = (many / "0001.jpg").read_bytes()
    (many / "0001.jpg").write_bytes(Path(files[4]).read_bytes().ljust(len(content), b"\0"))
    (many / "0002.jpg").unlink()
    (many / "0002.jpg").symlink_to(files[5])
    after = rank(many).set_index("path")["score"]
    for name, source in (("0000", 3), ("0001", 4), ("0002", 5)):
        assert after[f"{many}/{name}.jpg"] == pytest.approx(before[f"{many}/{source:04}.jpg"], abs=1e-5)
        assert after[f"{many}/{name}.jpg"] != pytest.approx(before[f"{many}/{name}.jpg"], abs=1e-5)
    same = [path for path in before.index if Path(path).name > "0002.jpg"]
    assert after[same].equals(before[same])


def test_what_could_not_be_read_before_a_kill_is_tried_again(checkpoint, folder, rank, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_images, "BATCH", 8)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(24):
        shutil.copy(folder / "0.jpg", many / f"{i:04}.jpg")
    shutil.copy(folder / "0.jpg", many / "0003.jpg")
    before = (many / "0003.jpg").stat()
    content = (many / "0003.jpg").read_bytes()
    (many / "0003.jpg").write_bytes(bytes(len(content)))
    os.utime(many / "0003.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    output = tmp_path / "out" / "ranks.csv"
    killed_after(2, many, checkpoint, output)
    (many / "0003.jpg").write_bytes(content)  # the same name, length and time: as if who reads it had been mended
    os.utime(many / "0003.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(rank(many)) == 24 and not (tmp_path / "out" / "ranks.unreadable.csv").exists()


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(checkpoint, folder, tmp_path, batches):
    many, files = tmp_path / "many", sorted(folder.glob("*.jpg"))
    many.mkdir()
    for i in range(29):
        os.link(files[i % len(files)], many / f"{i:04}.jpg")
    (many / "bad.jpg").write_text("no picture")
    words = ["rank_images.py", many, "--check_point", checkpoint, "--device", "cpu", "--no-amp", "--output"]
    assert run(*words, tmp_path / "whole" / "ranks.csv").returncode == 0
    killed_after(batches, many, checkpoint, tmp_path / "out" / "ranks.csv")
    assert run(*words, tmp_path / "out" / "ranks.csv").returncode == 0
    whole, found = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "out"))
    assert found == whole and set(whole) == {"ranks.csv", "ranks.unreadable.csv"}


def test_two_runs_into_one_table_are_refused(checkpoint, folder, rank, tmp_path):
    with alone(tmp_path / "out" / "ranks.csv"):
        words = ["--check_point", checkpoint, "--output", tmp_path / "out" / "ranks.csv", "--device", "cpu"]
        found = run("rank_images.py", folder, *words)
    assert found.returncode == 2 and found.stderr == f"error: {tmp_path}/out/ranks.csv: another run is writing it\n"
    assert len(rank(folder)) == 9


MANY = 200_000


def ranked(words: list, kill_at: float = np.inf, journal: Path | None = None) -> tuple[int, int]:
    """Run the command, killed once the journal has `kill_at` lines; its exit status and peak memory in kB."""
    ranking = subprocess.Popen(
        [sys.executable, "rank_images.py", *map(str, words)], cwd=utils.ROOT, stdout=subprocess.DEVNULL
    )
    while kill_at < np.inf and (not journal.exists() or journal.read_bytes().count(b"\n") < kill_at):
        assert ranking.poll() is None
        time.sleep(0.5)
    if kill_at < np.inf:
        ranking.kill()
    _, status, usage = os.wait4(ranking.pid, 0)
    ranking.returncode = os.waitstatus_to_exitcode(status)
    return ranking.returncode, usage.ru_maxrss


@pytest.mark.slow
def test_a_hundred_times_as_many_pictures_take_little_more_memory_and_a_kill_loses_none(folder, tmp_path):
    config = {"model_name": "alexnet", "model_type": 0, "weights": "none", "recipe": "modern", "image_size": SIZE}
    state = {"kind": "siamese", "config": config, "transform": transforms.describe(SIZE)}
    save_checkpoint(tmp_path / "best.pt", state | {"model": SiameseNet(**config).state_dict()})
    files, peaks = sorted(folder.glob("*.jpg")), []
    (tmp_path / "many").mkdir()
    for n in (2_000, MANY):
        paths = [tmp_path / "many" / f"{i:06}.jpg" for i in range(n)]
        for i, path in enumerate(paths):
            if not path.exists():
                os.link(files[i % len(files)], path)
        (tmp_path / f"{n}.txt").write_text("\n".join(map(str, paths)))
        output = tmp_path / "out" / f"{n}.csv"
        words = [tmp_path / f"{n}.txt", "--check_point", tmp_path / "best.pt", "--output", output, "--device", "cpu"]
        peaks.append(0)
        if n == MANY:
            journal = output.with_name(f".{output.name}.{utils.sha256(tmp_path / 'best.pt')[:12]}.part")
            code, peaks[-1] = ranked(words, n / 2, journal)
            assert code == -signal.SIGKILL and not output.exists()
        code, peak = ranked(words)
        peaks[-1] = max(peaks[-1], peak)
        assert code == 0 and sorted(pd.read_csv(output)["path"]) == list(map(str, paths))
    print(f"peak memory: {peaks[0] / 1000:.0f} MB for 2,000, {peaks[1] / 1000:.0f} MB for {MANY:,}")
    assert peaks[1] - peaks[0] < 300_000


# --- the page -------------------------------------------------------------------------------------------------------
def test_the_page_shows_the_ends_of_a_long_table(folder, rank, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_images, "ON_PAGE", 4)
    table = rank(folder, "--page", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 4 and "9 pictures, ranked" in page
    shown = [Path(path).name for path in table["path"] if Path(path).name in page]
    assert shown == [Path(path).name for path in [*table["path"][:2], *table["path"][-2:]]]
    assert "training pictures" in page
    assert float(re.search('data-temperature="(.*?)"', page)[1]) > 0  # as the run has found it


def test_a_picture_that_has_gone_is_left_out_of_the_page(folder, rank, tmp_path, monkeypatch):
    write_page = rank_images.write_page

    def after_a_loss(*words):
        (folder / "3.jpg").unlink()
        write_page(*words)

    monkeypatch.setattr(rank_images, "write_page", after_a_loss)
    assert len(rank(folder, "--page", tmp_path / "page.html")) == 9
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 8


def test_the_page_says_how_good_the_run_is_that_its_checkpoint_is_of(ranker, tmp_path):
    assert rank_images.run_accuracy(ranker) is None  # no results beside it
    test = {"pair_accuracy": 0.62, "pair_accuracy_low": 0.58, "pair_accuracy_high": 0.66, "pairs": 1234}
    (tmp_path / "results.json").write_text(json.dumps({"test": test}))
    (tmp_path / "best.pt").symlink_to(ranker)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "in" / "a.png")
    words = [tmp_path / "in", "--check_point", tmp_path / "best.pt", "--output", tmp_path / "ranks.csv"]
    done = run_here("rank_images.py", *words, "--page", tmp_path / "page.html", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "62% (95 % interval 58% to 66%) of 1,234 pairs" in (tmp_path / "page.html").read_text()
    (tmp_path / "exported").mkdir()
    assert rank_images.run_accuracy(tmp_path / "exported") is None  # a folder has results of its own
    (tmp_path / "results.json").write_text("[]")
    assert rank_images.run_accuracy(tmp_path / "best.pt") is None

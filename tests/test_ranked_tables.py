"""What ranking and labelling write: the table in three formats, which go back in, and copies of the best pictures."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import run_here
from loopback_server import picture

import rank_images
from context import with_scores
from pictures.sources import list_sources
from ranking import best, journal
from table_files import format_of, named, read_rows, rows_to
from utils import UserError

COLUMNS = [*rank_images.COLUMNS, "p_above_median"]
ROWS = [
    ["a,\"b\"\n.jpg", 0.1 + 0.2, 99.5, 1.0, 2.5, 3.0, 4.0, 0.75],
    ["日本 'ü'.jpg", -1e-17, 0.0, None, None, None, None, None],
]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five pictures, one of them in a tar and one broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(picture(number))
    with tarfile.open(folder / "more.tar", "w") as tar:
        member = tarfile.TarInfo("deep/3.png")
        member.size = len(content := picture(3, "PNG"))
        tar.addfile(member, io.BytesIO(content))
    (folder / "broken.jpg").write_text("no picture")
    return folder


def rank(ranker: Path, *words: object) -> tuple[int, str]:
    done = run_here("rank_images.py", *words, "--check_point", ranker, "--device", "cpu", "--no-amp", "--deterministic")
    return done.returncode, done.stdout + done.stderr


# --- formats --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_values_come_back_as_they_were(format, tmp_path):
    path = tmp_path / f"table.{format}"
    with rows_to(path, COLUMNS, format) as write:
        for row in ROWS:
            write(row)
    assert format_of(path) == format and [each.name for each in tmp_path.iterdir()] == [path.name]
    table = read_rows(path, ["path", "score"])
    assert list(table) == COLUMNS and table["path"].tolist() == [row[0] for row in ROWS]
    assert np.array_equal(table[COLUMNS[1:]], np.array([row[1:] for row in ROWS], float), equal_nan=True)


def test_others_read_what_is_written(tmp_path):
    """pandas and polars by themselves, without a function of ours."""
    for format in ("jsonl", "parquet"):
        with rows_to(tmp_path / f"table.{format}", COLUMNS, format) as write:
            for row in ROWS:
                write(row)
    found = pd.read_json(tmp_path / "table.jsonl", lines=True), pl.read_ndjson(tmp_path / "table.jsonl")
    for table in (*found, pl.read_parquet(tmp_path / "table.parquet")):
        assert list(table["path"]) == [row[0] for row in ROWS] and list(table["score"]) == [row[1] for row in ROWS]
    assert found[1]["x"].to_list() == [1.0, None]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_table_that_breaks_off_leaves_the_old_one(format, tmp_path):
    path = tmp_path / "table"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), rows_to(path, COLUMNS, format) as write:
        write(ROWS[0])
        raise KeyboardInterrupt
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_name_that_is_no_text_is_in_every_format(tmp_path):
    name = os.fsdecode(b"\xff\xfe.jpg")
    for format, expected in (("csv", name), ("jsonl", name), ("parquet", "\\xff\\xfe.jpg")):
        with rows_to(tmp_path / format, COLUMNS, format) as write:
            write([name, *ROWS[0][1:]])
        table = read_rows(
            tmp_path / format, ["path"], **({"encoding_errors": "surrogateescape"} if format == "csv" else {})
        )
        assert table["path"].tolist() == [expected]


@pytest.mark.parametrize(
    ("output", "format", "path", "found"),
    [
        (None, None, "ranks.csv", "csv"),
        (None, "jsonl", "ranks.jsonl", "jsonl"),
        ("a.PARQUET", None, "a.PARQUET", "parquet"),
        ("a.jsonl", "jsonl", "a.jsonl", "jsonl"),
        ("a.txt", None, "a.txt", "csv"),
        ("a.txt", "parquet", "a.txt", "parquet"),
    ],
)
def test_the_suffix_says_the_format_unless_a_flag_does(output, format, path, found):
    assert named(output, format, "ranks") == (Path(path), found)


def test_a_suffix_and_a_flag_that_differ_are_an_error():
    with pytest.raises(UserError, match=r"a\.csv ends in \.csv, and --format is parquet: leave one of them out"):
        named("a.csv", "parquet", "ranks")


def test_without_polars_parquet_is_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(UserError, match=r"needs polars: pip install -r requirements\.txt"):
        named(None, "parquet", "ranks")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"path": "a"}\n{"path": \n', "line 2 is not JSON"),
        (b'{"name": "a"}\n', r"has no column path \(its columns: name\)"),
        (b"PAR1" + bytes(40), "cannot be read as Parquet"),
    ],
)
def test_what_is_no_table_is_told_in_one_line(content, says, tmp_path):
    (tmp_path / "table").write_bytes(content)
    for reader in (lambda path: read_rows(path, ["path"]), lambda path: list(list_sources(path))):
        with pytest.raises(UserError, match=says) as error:
            reader(tmp_path / "table")
        assert "\n" not in str(error.value)


def test_a_ranking_is_the_same_in_every_format_and_goes_back_in(ranker, folder, tmp_path):
    tables = []
    for name in ("ranks.csv", "ranks.jsonl", "ranks.parquet"):
        code, said = rank(ranker, folder, "--output", tmp_path / name)
        assert code == 0 and f"4 pictures ranked → {tmp_path / name}" in said, said
        tables.append(read_rows(tmp_path / name, COLUMNS))
        assert [each.path for each in list_sources(tmp_path / name)][:2] == tables[0]["path"][:2].tolist()
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_dtype=False)
    assert [json.loads(line)["path"] for line in (tmp_path / "ranks.jsonl").read_text().splitlines()] == tables[0][
        "path"
    ].tolist()


def test_the_context_takes_scores_in_every_format(tmp_path):
    images = pd.DataFrame({"img_id": range(40)})
    for format in ("csv", "jsonl", "parquet"):
        with rows_to(tmp_path / format, COLUMNS, format) as write:
            for number in range(40):
                write([f"data/images/{number}.jpg", number / 7, 0.0, *[None] * 5])
        assert np.allclose(with_scores(images, tmp_path / format)["picture"], images["img_id"] / 7)


def test_a_log_says_how_far_it_is_and_how_long_it_will_take(ranker, folder, tmp_path, monkeypatch):
    assert journal.progress(3_000, 1_000, 60.0, 10_000) == "3,000 of 10,000 pictures ranked, about 7 min left"
    assert journal.progress(3_000, 1_000, 60.0, None) == "3,000 pictures ranked so far"
    monkeypatch.setattr(journal, "EVERY", 0.0)
    code, said = rank(ranker, folder, "--output", tmp_path / "ranks.csv")
    assert code == 0 and "\n5 of 5 pictures ranked, about 0 s left\n" in said, said


# --- copies of the best ---------------------------------------------------------------------------------------------
def test_the_best_are_copied_byte_for_byte_named_by_rank(ranker, folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, said = rank(ranker, folder, "--output", tmp_path / "ranks.csv", "--copy_top", 3, tmp_path / "new" / "best")
    assert code == 0 and f"3 of the most viral pictures copied → {tmp_path / 'new' / 'best'}\n" in said, said
    table = pd.read_csv(tmp_path / "ranks.csv")
    expected = [f"{number:03}_{Path(path).name}" for number, path in enumerate(table["path"][:3], 1)]
    assert sorted(path.name for path in (tmp_path / "new" / "best").iterdir()) == expected
    originals = {f"{number}.jpg": picture(number) for number in range(3)} | {"3.png": picture(3, "PNG")}
    for name in expected:
        assert (tmp_path / "new" / "best" / name).read_bytes() == originals[name[4:]]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best"]


def test_all_are_copied_where_there_are_fewer(ranker, folder, tmp_path):
    (tmp_path / "best").mkdir()
    code, said = rank(ranker, folder, "--output", tmp_path / "ranks.csv", "--copy_top", 1000, tmp_path / "best")
    assert code == 0 and "4 of the most viral" in said
    assert sorted(path.name[:5] for path in (tmp_path / "best").iterdir()) == [f"{n:04}_" for n in range(1, 5)]


def test_where_copies_cannot_go_is_told_before_anything_is_ranked(ranker, folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "001_mine.jpg").write_text("mine")
    output = tmp_path / "ranks.csv"
    for words, says in (
        ([3, tmp_path / "full"], "holds files already, which are not replaced: name a new folder"),
        ([3, folder / "best"], f"is inside {folder}, whose next ranking would rank the copies as well"),
        ([3, folder / "0.jpg"], "is a file, not a folder"),
        ([3, output], "is a file, not a folder"),
        ([0, tmp_path / "best"], "N is a whole number from 1"),
        (["three", tmp_path / "best"], "--copy_top three: N is a whole number from 1"),
    ):
        code, said = rank(ranker, folder, "--output", output, "--copy_top", *words)
        assert code == 2 and said.splitlines()[-1].endswith(says), said
    assert not output.exists() and (tmp_path / "full" / "001_mine.jpg").read_text() == "mine"


def test_a_picture_that_was_replaced_or_has_gone_is_not_copied(folder, tmp_path):
    sources = [each for each in list_sources(folder) if "broken" not in each.path]
    (folder / "0.jpg").unlink()
    (folder / "1.jpg").write_bytes(picture(9))
    faults = best.copy_best(sources, 3, tmp_path / "best")
    assert faults == [(str(folder / f"{n}.jpg"), "written or replaced since it was scored") for n in (0, 1)]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["003_2.jpg"]


def test_nothing_half_copied_is_left(folder, tmp_path, monkeypatch):
    sources, written = list(list_sources(folder)), Path.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("002"):
            raise OSError(28, "No space left on device", str(path))
        written(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        best.copy_best(sources, 3, tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.tar/c/d.jpg", "001_d.jpg"),
        ("x" * 251 + ".jpg", "001_" + "x" * 247 + ".jpg"),
        ("a." + "y" * 253, "001_a." + "y" * 249),
        ("ü" * 125 + ".jpg", "001_" + "ü" * 123 + ".jpg"),
        ("no suffix", "001_no suffix"),
        ("https://example.org/a/b.jpg?size=large#top", "001_b.jpg"),
        ("what?.jpg", "001_what?.jpg"),
    ],
)
def test_a_long_name_is_cut_in_front_of_its_suffix(path, expected):
    assert best.name_of(path, "001_") == expected and len(expected.encode()) <= 255

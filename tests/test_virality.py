"""From submissions to V, against a slow plain reimplementation and against the published table."""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run

import deza2015
import virality

GOOD = "7,1,2012,a title,12,abc,11,funny,1,36000,10,3,someone"


def plain_virality(path: Path) -> list[tuple[int, float, float, float, int, int, int]]:
    """V as the paper's text says, a submission at a time: (img_id, V, max A, mean A, m, highest score, comments)."""
    with gzip.open(path, "rt") as file:
        lines = [line for line in csv.reader(file)][1:]
    lines = [line for line in lines if len(line) == 13]
    lowest = min(int(line[10]) for line in lines)
    cells = defaultdict(list)
    for line in lines:
        cells[line[7], int(line[9]) // 3600 % 24].append(int(line[10]) - lowest)
    order, images = {}, defaultdict(list)
    for line in lines:
        order.setdefault(line[0], len(order) + 1)
        if line[7] in virality.TWENTY_SUBREDDITS:
            cell = cells[line[7], int(line[9]) // 3600 % 24]
            images[order[line[0]]].append(
                ((int(line[10]) - lowest) / (sum(cell) / len(cell)), int(line[10]), int(line[11]))
            )
    mean = sum(map(len, images.values())) / len(images)
    rows = []
    for img_id, found in images.items():
        a_scores = [a for a, _, _ in found]
        v_score = max(a_scores) * math.log(len(found) / mean)
        most = max(score for _, score, _ in found), max(comments for _, _, comments in found)
        rows.append((img_id, v_score, max(a_scores), sum(a_scores) / len(found), len(found), *most))
    return rows


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([",".join(virality.SNAP_COLUMNS), *lines]) + "\n")
    return path


def test_the_table_agrees_with_a_plain_reimplementation_row_by_row(sample):
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv").set_index("img_id")
    plain = plain_virality(sample / "redditSubmissions.csv.gz")
    assert len(plain) == len(table) == 60
    for img_id, *values in plain:
        row = table.loc[img_id, ["v_score", *virality.TABLE_COLUMNS[4:]]]
        assert row.to_numpy(float) == pytest.approx(values, rel=1e-12)


def test_the_table_has_the_published_columns_and_order(sample):
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    assert list(table.columns) == virality.TABLE_COLUMNS
    assert table["v_score"].is_monotonic_increasing


def test_a_plain_file_gives_the_same_table_as_a_gzipped_one(sample, tmp_path):
    plain = tmp_path / "plain.csv"
    plain.write_bytes(gzip.decompress((sample / "redditSubmissions.csv.gz").read_bytes()))
    assert run("virality.py", plain, "--output", tmp_path / "out.csv").returncode == 0
    assert (tmp_path / "out.csv").read_bytes() == (sample / "datasets" / "data_set_iv.csv").read_bytes()


def test_computed_from_the_published_submissions_all_rows_agree(real_data):
    published = deza2015.read_table(real_data / "deza2015")
    computed = deza2015.computed_table(real_data / "deza2015").set_index("img_id").loc[published["img_id"]]
    assert len(published) == len(computed) == 10_078
    assert np.abs(computed["v_score"].to_numpy() - published["v_score"].to_numpy()).max() < 1e-9
    for column in virality.TABLE_COLUMNS[2:]:
        assert np.allclose(computed[column].to_numpy(float), published[column].to_numpy(float), atol=1e-9, rtol=0)


def test_the_published_pairs_load_and_agree_with_v(real_data):
    pairs = deza2015.read_pairs(real_data / "deza2015")
    assert len(pairs) == 5039 and pairs["top"].sum() == 489
    assert pd.unique(pairs[["img_id_viral", "img_id_other"]].to_numpy().ravel()).size == 2 * 5039
    assert deza2015.disagreeing_pairs(pairs, deza2015.read_table(real_data / "deza2015")).empty


def test_the_attributes_vote_gives_the_published_figure(real_data):
    share, n = deza2015.attribute_vote(real_data / "deza2015")
    assert n == 489 and share == pytest.approx(0.6820, abs=5e-5)


def test_the_published_submissions_give_the_five_classes(real_data, tmp_path):
    (tmp_path / "deza2015").symlink_to(real_data / "deza2015")
    assert run("deza2015.py", tmp_path / "deza2015", "--output", tmp_path / "datasets/data_set_iv.csv").returncode == 0
    done = run("data_set.py", "--data_path", tmp_path)
    assert "five classes: funny 4964, WTF 708, aww 457, gaming 278, atheism 232" in done.stdout


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD.replace("a title", "a,title"), "14 fields instead of 13"),
        ("7,1,2012", "3 fields instead of 13"),
        (GOOD.replace(",10,3,", ",ten,3,"), "score 'ten' is not a whole number"),
        (GOOD.replace("funny", ""), "no subreddit"),
        (GOOD.replace("36000", "9" * 30), "localtime '" + "9" * 30 + "' is not a whole number"),
    ],
)
def test_malformed_lines_are_counted_and_listed(tmp_path, line, reason):
    path = write(tmp_path / "s.csv", GOOD, line, GOOD.replace("7,", "8,", 1))
    submissions, malformed = virality.read_submissions(path)
    assert len(submissions) == 2
    assert malformed[["line", "reason"]].to_numpy().tolist() == [[3, reason]]
    done = run("virality.py", path, "--output", tmp_path / "out.csv")
    assert done.returncode == 0 and f"line 3: {reason}" in done.stdout
    assert pd.read_csv(tmp_path / "out.malformed.csv")["line"].tolist() == [3]


def test_a_title_with_commas_and_quotes_is_one_field(tmp_path):
    path = write(tmp_path / "s.csv", GOOD.replace("a title", '"one, ""two"", three"'))
    submissions, malformed = virality.read_submissions(path)
    assert len(submissions) == 1 and malformed.empty


def test_the_shift_sees_the_whole_file_and_only_the_twenty_count(tmp_path):
    lines = [GOOD, GOOD.replace(",10,3,", ",30,3,"), GOOD.replace("funny", "offbeat").replace(",10,3,", ",-10,3,")]
    table, _ = virality.build_table(write(tmp_path / "s.csv", *lines))
    assert table["submissions"].tolist() == [2]
    assert table["max_a_score"].tolist() == pytest.approx([40 / 30])  # (30+10) over the mean of 20 and 40


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "header is not SNAP's"),
        (",".join(virality.SNAP_COLUMNS).encode() + b"\n", "no well-formed submission"),
        (bytes(range(256)) * 9, "header is not SNAP's"),
        (None, "does not exist"),
    ],
)
def test_an_unusable_file_is_one_clear_line(tmp_path, content, says):
    path = tmp_path / "s.csv"
    if content is not None:
        path.write_bytes(content)
    done = run("virality.py", path, "--output", tmp_path / "out.csv")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}") and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def one_clear_line(done, path: Path, says: str) -> None:
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}") and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["truncated", "cut in its header", "plain text", "binary junk", "junk in the middle"])
def test_a_file_that_is_no_whole_gzip_is_one_clear_line(sample, tmp_path, what):
    whole = (sample / "redditSubmissions.csv.gz").read_bytes()
    middle = len(whole) // 2
    path = tmp_path / "s.csv.gz"
    path.write_bytes(
        {
            "truncated": whole[:-300],
            "cut in its header": whole[:5],
            "plain text": gzip.decompress(whole),
            "binary junk": bytes(range(256)) * 9,
            "junk in the middle": whole[:middle] + b"\xff" * 64 + whole[middle + 64 :],
        }[what]
    )
    one_clear_line(run("virality.py", path, "--output", tmp_path / "out.csv"), path, "cannot be read")
    assert not (tmp_path / "out.csv").exists()


def test_an_empty_gzip_a_folder_and_a_file_of_malformed_lines_are_one_clear_line(tmp_path):
    empty = tmp_path / "empty.csv.gz"
    empty.write_bytes(gzip.compress(b""))
    one_clear_line(run("virality.py", empty, "--output", tmp_path / "out.csv"), empty, "is empty")
    one_clear_line(run("virality.py", tmp_path, "--output", tmp_path / "out.csv"), tmp_path, "cannot be read")
    broken = write(tmp_path / "broken.csv", "7,1,2012", GOOD.replace(",10,3,", ",ten,3,"))
    one_clear_line(run("virality.py", broken, "--output", tmp_path / "out.csv"), broken, "2 malformed lines")


def test_malformed_lines_of_a_gzipped_file_are_listed_by_their_numbers(sample):
    path = sample / "redditSubmissions.csv.gz"
    _, malformed = virality.read_submissions(path)
    with gzip.open(path, "rt") as file:
        wrong = [number for number, line in enumerate(csv.reader(file), 1) if len(line) != 13]
    assert malformed["line"].tolist() == wrong and len(wrong) == 5
    assert malformed["reason"].str.fullmatch(r"\d+ fields instead of 13").all()
    listed = pd.read_csv(sample / "datasets" / "data_set_iv.malformed.csv")
    assert listed["line"].tolist() == wrong


def test_binary_junk_between_good_lines_is_a_malformed_line(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(",".join(virality.SNAP_COLUMNS).encode() + b"\n" + GOOD.encode() + b"\n\x00\xff\xfe\x80\n")
    submissions, malformed = virality.read_submissions(path)
    assert len(submissions) == 1 and malformed[["line", "reason"]].to_numpy().tolist() == [
        [3, "1 fields instead of 13"]
    ]
    assert run("virality.py", path, "--output", tmp_path / "out.csv").returncode == 0


def test_only_the_images_to_keep_count_in_the_mean(tmp_path):
    lines = [GOOD, GOOD, GOOD, GOOD.replace("7,", "8,", 1), GOOD.replace("7,", "9,", 1)]
    path = write(tmp_path / "s.csv", *[line.replace(",10,3,", f",{10 + i},3,") for i, line in enumerate(lines)])
    (tmp_path / "keep.csv").write_text("1\n3\n")
    done = run("virality.py", path, "--keep", tmp_path / "keep.csv", "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv").set_index("img_id")
    assert set(table.index) == {1, 3} and table["SNAP_id"].to_dict() == {1: 7, 3: 9}
    assert table.loc[1, "v_score"] == pytest.approx(table.loc[1, "max_a_score"] * math.log(3 / 2))


@pytest.mark.parametrize("output", ["", "a_file/out.csv"])
def test_an_output_that_cannot_be_written_is_one_clear_line(sample, tmp_path, output):
    (tmp_path / "a_file").write_text("")
    done = run("virality.py", sample / "redditSubmissions.csv.gz", "--output", tmp_path / output)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr

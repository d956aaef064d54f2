"""From submissions to V, against a slow plain reimplementation and against the published table."""

from __future__ import annotations

import csv
import gzip
import math
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run

import data_set
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
    assert "5 classes: funny 4964, WTF 708, aww 457, gaming 278, atheism 232" in done.stdout


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
    empty.write_bytes(gzip.compress(b"", mtime=0))
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


KINDS = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "gzip without .gz": lambda text: gzip.compress(text.encode(), mtime=0),
    "Windows' newlines": lambda text: text.replace("\n", "\r\n").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode(),
    "an index column": lambda text: "".join(
        f"{i}," * (i > 0) + "," * (i == 0) + line for i, line in enumerate(text.splitlines(True))
    ).encode(),
    "a title of 200,000 letters": lambda text: text.replace("picture 7,", "x" * 200_000 + ",").encode(),
    "floats": lambda text: (
        "".join(
            ",".join(cell + ".0" * (i in (0, 10, 11)) for i, cell in enumerate(line.split(",")))
            for line in text.splitlines(True)
        )
        .replace("#image_id.0", "#image_id")
        .replace(",score.0,number_of_comments.0,", ",score,number_of_comments,")
        .encode()
    ),
    "milliseconds": lambda text: "".join(
        ",".join(cell + "000" * (i in (1, 9) and cell.isdigit()) for i, cell in enumerate(line.split(",")))
        for line in text.splitlines(True)
    ).encode(),
}


@pytest.fixture(scope="module")
def clean(sample) -> str:
    """The sample's well-formed lines, none of which has a quote or a further comma."""
    with gzip.open(sample / "redditSubmissions.csv.gz", "rt", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 13]
    return "".join(",".join(cell.replace(",", ";") for cell in row) + "\n" for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_table_from_the_same_file_as_others_write_it(sample, clean, tmp_path, kind):
    path = tmp_path / "s.csv"
    path.write_bytes(KINDS[kind](clean))
    table, malformed = virality.build_table(path)
    assert malformed.empty
    expected = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    pd.testing.assert_frame_equal(table.astype({"img_link": expected["img_link"].dtype}), expected, check_exact=True)


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize("line", [2, 500, 870])
def test_a_stray_quote_loses_its_submission_alone(clean, tmp_path, line, repeats):
    header, *rows = clean.splitlines()
    rows = rows * repeats
    fields = rows[line - 2].split(",", 4)
    rows[line - 2] = ",".join([*fields[:3], '"' + fields[3], fields[4]])
    path = tmp_path / "s.csv"
    path.write_text("\n".join([header, *rows]))
    submissions, malformed = virality.read_submissions(path)
    assert malformed["line"].tolist() == [line] and len(submissions) == len(rows) - 1
    assert malformed["reason"].tolist() == ["4 fields instead of 13: a quote opens and does not close"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [("x,y", "2 fields instead of 13"), (GOOD.replace(",10,3,", ",,3,"), "score '' is not"), ("<html>", "1 fields")],
)
def test_a_file_without_a_good_line_says_why(tmp_path, line, reason):
    path = write(tmp_path / "s.csv", *[line] * 1003)
    done = run("virality.py", path, "--output", tmp_path / "out.csv")
    one_clear_line(done, path, "1003 malformed lines, the first: line 2: " + reason)


@pytest.mark.parametrize("name", ["NA", "null", "None"])
def test_a_community_may_be_called_na_or_null(tmp_path, name):
    path = write(tmp_path / "s.csv", GOOD.replace("funny", name), GOOD)
    submissions, malformed = virality.read_submissions(path)
    assert submissions["subreddit"].tolist() == [name, "funny"] and malformed.empty
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "image4classification.csv").write_text(f"img_id,subreddit,label\n1,{name},0\n2,funny,1\n")
    classes = data_set.read_table(tmp_path, "image4classification", ["subreddit", "label"])
    assert classes["subreddit"].tolist() == [name, "funny"]


# --- tables of submissions.py -----------------------------------------------------------------------------------------
def own(path: Path, *rows: str, header: str = ",".join(virality.OWN_COLUMNS)) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


IMGUR = "https://i.imgur.com/"


def test_an_own_table_is_ordered_by_time_and_its_images_told_by_their_addresses(tmp_path):
    path = own(
        tmp_path / "s.csv",
        f",7300,late,4,1,aww,,c3,{IMGUR}aaaaa.png",
        f",100,first,5,2,pics,,a1,{IMGUR}aaaaa.jpg",
        ",3700,no address,6,,pics,,b2,",
        ",3800000000000,in milliseconds,7,0,pics,,b3,",
    )
    submissions, malformed = virality.read_submissions(path)
    ids = submissions["img_id"].tolist()
    assert malformed.empty and ids[0] == ids[2] and len(set(ids)) == 3 and max(ids) < 2**53
    assert submissions["hour"].tolist() == [0, 1, 2, 3_800_000_000 // 3600 % 24]
    assert submissions["comments"].tolist() == [2, 0, 1, 0]
    table, _ = virality.build_table(path)
    links = {ids[0]: f"{IMGUR}aaaaa.jpg", ids[1]: "https://redd.it/b2", ids[3]: "https://redd.it/b3"}
    assert table.set_index("img_id")["img_link"].to_dict() == links
    assert table.set_index("img_id")["submissions"].to_dict() == {ids[0]: 2, ids[1]: 1, ids[3]: 1}
    path.write_text("\n".join([",".join(virality.OWN_COLUMNS), f",1,earlier,1,1,aww,,d4,{IMGUR}bbbbb.jpg"]))
    own_ids = virality.read_submissions(path)[0]["img_id"].tolist()
    assert not set(own_ids) & set(ids)  # a picture has its number in every table


def test_given_image_ids_are_kept_and_localtime_is_the_clock_where_there_is_one(tmp_path):
    header = "localtime," + ",".join(virality.OWN_COLUMNS)
    path = own(
        tmp_path / "s.csv",
        "7200,30.0,90,t,4,1,pics,,a,",
        ",7,100,t,5,1,pics,,b,",
        ",30,99,t,5,1,pics,,c,",
        header=header,
    )
    submissions, _ = virality.read_submissions(path)
    assert submissions["img_id"].tolist() == submissions["image_id"].tolist() == [30, 30, 7]
    assert submissions["hour"].tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",soon,t,4,1,pics,,a,", "unixtime 'soon' is not a whole number"),
        (",1,t,,1,pics,,a,", "score '' is not a whole number"),
        (",1,t,4,1,,,a,", "no subreddit"),
        (",1,t,4,1,pics,,a", "8 fields instead of 9"),
    ],
)
def test_malformed_lines_of_an_own_table_are_named(tmp_path, row, reason):
    _, malformed = virality.read_submissions(own(tmp_path / "s.csv", ",1,t,4,1,pics,,a,", row))
    assert malformed[["line", "reason"]].to_numpy().tolist() == [[3, reason]]


def test_copies_count_as_one_image_in_the_order_of_their_submissions(tmp_path):
    rows = [
        (100, 10, "pics", "b"),
        (200, 20, "pics", "a"),
        (300, 40, "aww", "c"),
        (400, 30, "pics", "a"),
        (500, 0, "pics", "d"),
    ]
    path = own(tmp_path / "s.csv", *[f",{t},t,{s},1,{sub},,p{t},{IMGUR}{u}{u}{u}{u}{u}.jpg" for t, s, sub, u in rows])
    b, a, c, _, d = virality.read_submissions(path)[0]["img_id"]
    (tmp_path / "groups.csv").write_text(f"img_id,group\n{a},9\n{b},9\n{d},5\n")
    done = run("virality.py", path, "--groups", tmp_path / "groups.csv", "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv").set_index("img_id")
    assert table["submissions"].to_dict() == {b: 3, c: 1, d: 1} and (table["group"] == table.index).all()
    assert table.loc[b, "img_link"] == f"{IMGUR}bbbbb.jpg" and table.loc[b, "max_raw_upvotes"] == 30
    assert table.loc[b, "v_score"] == pytest.approx(30 / 15 * math.log(3 / (5 / 3)))  # pics: 10, 20, 30 and 0


def test_without_groups_and_with_groups_of_one_the_table_is_the_same(sample, tmp_path):
    path = sample / "redditSubmissions.csv.gz"
    groups = pd.DataFrame({"img_id": range(1, 61), "group": range(60)})
    joined, _ = virality.build_table(path, groups=groups)
    alone, _ = virality.build_table(path)
    pd.testing.assert_frame_equal(joined.drop(columns="group"), alone)
    with pytest.raises(virality.UserError, match="img_id 3 occurs twice"):
        virality.build_table(path, groups=pd.DataFrame({"img_id": [3, 4, 3], "group": [1, 1, 2]}))


@pytest.mark.parametrize(
    ("words", "counted"),
    [([], 3), (["--subreddits", "all"], 3), (["--subreddits", "PICS", "na"], 2), (["--subreddits", "aww"], 1)],
)
def test_the_subreddits_that_count_are_those_asked_for(tmp_path, words, counted):
    path = own(tmp_path / "s.csv", ",1,t,4,1,pics,,a,", ",2,t,5,1,NA,,b,", ",3,t,6,1,aww,,c,")
    done = run("virality.py", path, "--output", tmp_path / "out.csv", *words)
    assert done.returncode == 0 and pd.read_csv(tmp_path / "out.csv")["submissions"].sum() == counted


def test_in_snaps_file_the_twenty_count_unless_others_are_named(sample, tmp_path):
    path = sample / "redditSubmissions.csv.gz"
    counts = {}
    for words in ((), ("all",), ("offbeat",)):
        table, _ = virality.build_table(path, subreddits=words or None)
        counts[words] = table["submissions"].sum()
    assert counts[("all",)] == counts[()] + counts[("offbeat",)] > counts[()]
    done = run("virality.py", path, "--output", tmp_path / "out.csv", "--subreddits", "offbeat", "nowhere")
    assert done.returncode == 0 and "no submission went to nowhere" in done.stdout
    done = run("virality.py", path, "--output", tmp_path / "out.csv", "--subreddits", "nowhere")
    assert done.returncode == 2 and "--subreddits nowhere: no submission went there (the largest: " in done.stderr


# --- slow -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_of_2000_mutated_lines_each_is_accounted_for(clean, tmp_path):
    seed = 14
    print(f"seed {seed}")
    rng = random.Random(seed)
    header, *rows = clean.splitlines()
    rows = (rows * 3)[:2000]
    strewn = [b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b'""', b".0", b"-", b"9" * 30, b"\xe2\x98", b" ", b""]
    lines = []
    for row in rows:
        line = bytearray(row.encode())
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(line) + 1)
            line[place : place + rng.choice((0, 1, 4))] = rng.choice(strewn)
        lines.append(bytes(line))
    path = tmp_path / "s.csv"
    path.write_bytes(header.encode() + b"\n" + b"\n".join(lines) + b"\n")
    submissions, malformed = virality.read_submissions(path)
    counts = malformed.attrs
    assert (
        len(submissions) + len(malformed) + counts["blank"] + counts["continued"] == path.read_bytes().count(b"\n") - 1
    )
    assert len(submissions) > 400 and len(malformed) > 400 and malformed["reason"].str.len().min() > 5
    done = run("virality.py", path, "--output", tmp_path / "out.csv")
    assert done.returncode == 0 and f"{len(malformed)} malformed lines skipped" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("images", [30_000, 10**9])
def test_the_whole_table_takes_no_more_than_three_times_pandas_parser(tmp_path, images):
    rng, rows = random.Random(0), 300_000
    path = tmp_path / "s.csv"
    with open(path, "w") as file:
        print(",".join(virality.SNAP_COLUMNS), file=file)
        for i in range(rows):
            title = f'"picture {i}, again"' if i % 5 else f"picture {i}"
            clock = 1_300_000_000 + rng.randrange(10**8)
            post = f"{rng.randrange(images)},{clock},2012-03-31T12:40:39.590113-07:00,{title},90,p{i:x},80"
            print(
                f"{post},{rng.choice(virality.TWENTY_SUBREDDITS)},10,{clock},{rng.randrange(3000)},5,u{i % 999}",
                file=file,
            )
    theirs, ours = [], []
    for _ in range(3):  # by turns, in seconds of the processor: others may be at work beside the test
        start = time.process_time()
        pd.read_csv(path)
        theirs.append(time.process_time() - start)
        start = time.process_time()
        virality.build_table(path)
        ours.append(time.process_time() - start)
    print(f"pandas {min(theirs):.2f} s, ours {min(ours):.2f} s")
    assert min(ours) <= 3 * min(theirs)

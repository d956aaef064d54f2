"""Dumps, listings and tables of any make → one table, with every line and post accounted for."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import random
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pandas as pd
import pytest
from conftest import ROOT, run

import submissions
import virality
from reading.posts import KINDS, Asked, moment
from reading.tables import zstd
from utils import UserError

SALT = b"s" * 32


def post(name: str, **fields: object) -> dict:
    """A post as a dump of today has it: a picture of Reddit's own, in r/pics."""
    return {
        "id": name,
        "created_utc": 1_588_888_888,
        "retrieved_on": 1_600_000_000,
        "title": f"title of {name}",
        "subreddit": "pics",
        "author": "somebody",
        "score": 5,
        "num_comments": 2,
        "url": f"https://i.redd.it/{name}.jpg",
        "is_self": False,
        "over_18": False,
    } | fields


GALLERY = {
    "is_gallery": True,
    "url": "https://www.reddit.com/gallery/x",
    "gallery_data": {"items": [{"media_id": "m2"}, {"media_id": "m1"}, {"media_id": "m3"}, {"media_id": "gone"}]},
    "media_metadata": {
        "m1": {"status": "valid", "e": "Image", "m": "image/jpg", "s": {"u": "https://preview.redd.it/m1.jpg?s=1"}},
        "m2": {"status": "valid", "e": "AnimatedImage", "m": "image/gif"},
        "m3": {"status": "failed"},
    },
}


def lines_of(posts: list, newline: bytes = b"\n") -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + newline for each in posts)


def gather(folder: Path, *contents: bytes | list, **asked: object) -> tuple[dict, list[dict[str, str]]]:
    """What became of the posts, and the table's rows."""
    folder.mkdir(exist_ok=True)
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"file_{number}")
        files[-1].write_bytes(content if isinstance(content, bytes) else lines_of(content))
    about = submissions.gather(files, Asked(**{"salt": SALT} | asked), folder)
    assert about["kept"] + sum(about["left_out"].values()) == about["posts"]
    with gzip.open(folder / "submissions.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == about["rows"] and (not rows or list(rows[0]) == virality.OWN_COLUMNS)
    return about, rows


def left_out(about: dict) -> dict[str, int]:
    return {kind: count for kind, count in about["left_out"].items() if count}


# --- formats --------------------------------------------------------------------------------------------------------
POSTS = [post("a"), post("b", title='snow ☃, "so"'), post("c", is_self=True)]
FORMATS = {
    "lines": lambda: lines_of(POSTS),
    "zstd": lambda: zstd.compress(lines_of(POSTS)),
    "zstd, a window of 2 GiB": lambda: zstd.compress(
        lines_of(POSTS), options={zstd.CompressionParameter.window_log: 31}
    ),
    "zstd, several frames": lambda: zstd.compress(lines_of(POSTS[:1])) + zstd.compress(lines_of(POSTS[1:])),
    "gzip": lambda: gzip.compress(lines_of(POSTS), mtime=0),
    "bzip2": lambda: bz2.compress(lines_of(POSTS)),
    "a mark of UTF-8": lambda: b"\xef\xbb\xbf" + lines_of(POSTS),
    "UTF-16": lambda: lines_of(POSTS).decode().encode("utf-16"),
    "Windows": lambda: lines_of(POSTS, b"\r\n"),
    "blank lines": lambda: b"\n\n" + lines_of(POSTS, b"\n\n"),
    "a listing": lambda: json.dumps(listing(POSTS)).encode(),
    "a listing over many lines": lambda: json.dumps(listing(POSTS), indent=2).encode(),
    "a post and its comments": lambda: json.dumps(
        [listing(POSTS), {"kind": "Listing", "data": {"children": []}}]
    ).encode(),
    "an archive's answer": lambda: json.dumps({"data": POSTS}).encode(),
    "an array": lambda: json.dumps(POSTS).encode(),
    "an array over many lines": lambda: b"[\n" + b",\n".join(map(orjson.dumps, POSTS)) + b"\n]\n",
    "wrapped posts": lambda: lines_of([{"kind": "t3", "data": each} for each in POSTS]),
}


def listing(posts: list[dict]) -> dict:
    return {"kind": "Listing", "data": {"after": None, "children": [{"kind": "t3", "data": each} for each in posts]}}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_posts_in_every_format_make_the_same_table(tmp_path, name):
    about, rows = gather(tmp_path, FORMATS[name]())
    assert about["posts"] == 3 and left_out(about) == {"text posts": 1} and not about["lines"]["malformed"]
    assert [(row["reddit_id"], row["title"], row["url"]) for row in rows] == [
        ("a", "title of a", "https://i.redd.it/a.jpg"),
        ("b", 'snow ☃, "so"', "https://i.redd.it/b.jpg"),
    ]
    assert rows[0] | {"author": ""} == {
        "image_id": "", "unixtime": "1588888888", "title": "title of a", "score": "5", "comments": "2",
        "subreddit": "pics", "author": "", "reddit_id": "a", "url": "https://i.redd.it/a.jpg",
    }  # fmt: skip


def test_several_files_of_different_formats_are_one_stream(tmp_path):
    table = b"url,score,created_utc,subreddit,id\nhttps://i.redd.it/d.jpg,3,2020-05-07T22:01:28,aww,d\n"
    about, rows = gather(tmp_path, zstd.compress(lines_of(POSTS)), json.dumps(listing([post("e")])).encode(), table)
    assert [row["reddit_id"] for row in rows] == ["a", "b", "e", "d"] and len(about["files"]) == 3
    assert rows[-1]["unixtime"] == "1588888888" and rows[-1]["comments"] == ""


def test_snaps_file_goes_in_and_its_images_stay(sample, tmp_path):
    done = run("submissions.py", sample / "redditSubmissions.csv.gz", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 malformed" in done.stdout and "not used: rawtime, total_votes" in done.stdout
    theirs, _ = virality.read_submissions(sample / "redditSubmissions.csv.gz")
    table, malformed = virality.build_table(tmp_path / "submissions.csv.gz", subreddits=virality.TWENTY_SUBREDDITS)
    assert malformed.empty and table["submissions"].sum() == theirs["subreddit"].isin(virality.TWENTY_SUBREDDITS).sum()
    published = pd.read_csv(sample / "datasets" / "data_set_iv.csv").set_index("SNAP_id")["v_score"]
    ours = table.set_index("SNAP_id")["v_score"]  # by UTC, which in the sample is eight hours off for everybody
    assert ours.to_dict() == pytest.approx(published.to_dict(), rel=1e-12)


def test_the_memes_go_in_as_csv(real_data, tmp_path):
    done = run("submissions.py", real_data / "memes" / "submissions.csv", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not used: near_duplicate_group, width, height" in done.stdout and "listing → subreddit" in done.stdout
    given = pd.read_csv(real_data / "memes" / "submissions.csv")
    table = pd.read_csv(tmp_path / "submissions.csv.gz")
    assert len(table) == len(given) == 1466
    for ours, theirs in {
        "image_id": "img_id",
        "score": "score",
        "unixtime": "created_utc",
        "subreddit": "listing",
    }.items():
        assert table[ours].tolist() == given[theirs].tolist()
    submitted, _ = virality.read_submissions(tmp_path / "submissions.csv.gz")
    assert sorted(submitted["img_id"]) == sorted(given["img_id"])  # the pictures keep their names


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id;title;Score;subreddit;timestamp;link", "x;a, b;5;pics;1588888888;https://i.redd.it/x.jpg"),
        (
            "link\tups\tcommunity\tdate\tname\ttitle",
            "https://i.redd.it/x.jpg\t5.0\tr/pics\t2020-05-07 22:01:28\tt3_x\ta, b",
        ),
        ("score,url,title,created_utc,subreddit,post_id", '5,https://i.redd.it/x.jpg,"a, b",1588888888.0,/r/pics,x'),
        ("#unixtime,title,votes,subreddit,reddit_id,img_url", '1588888888000,"a, b",5,pics,x,i.redd.it/x.jpg'),
    ],
)
def test_columns_of_any_name_order_and_separator(tmp_path, header, row):
    _, rows = gather(tmp_path, f"{header}\n{row}\n".encode())
    assert [
        (row["reddit_id"], row["title"], row["score"], row["subreddit"], row["unixtime"], row["url"]) for row in rows
    ] == [("x", "a, b", "5", "pics", "1588888888", "https://i.redd.it/x.jpg")]


def test_a_stray_quote_in_a_table_costs_its_line(tmp_path):
    rows = [f"{i},title {i},https://i.redd.it/x{i}.jpg,{i},1588888888,NA" for i in range(1000)]
    rows[500] = '500,"title 500,https://i.redd.it/x500.jpg,500,1588888888,NA'
    about, rows = gather(tmp_path, ("id,title,url,score,created_utc,subreddit\n" + "\n".join(rows)).encode())
    assert about["lines"] == {"read": 1000, "blank": 0, "malformed": 1} and len(rows) == 999
    assert {row["subreddit"] for row in rows} == {"NA"}


# --- what is kept, and what is left out -----------------------------------------------------------------------------
def test_a_gallery_is_a_row_a_picture_in_its_order_without_those_that_failed(tmp_path):
    about, rows = gather(tmp_path, [post("g", **GALLERY)])
    assert about["kept"] == 1 and [row["url"] for row in rows] == [
        "https://i.redd.it/m2.gif",
        "https://i.redd.it/m1.jpg",
    ]
    assert {row["score"] for row in rows} == {"5"}


def test_a_crosspost_has_the_pictures_of_its_parent_at_its_own_time_and_place(tmp_path):
    parent = post("p", subreddit="aww", score=900)
    there = "/r/aww/comments/p/title/"
    crossposts = [
        post("x1", url=there, crosspost_parent_list=[parent]),
        post("x2", url=there, crosspost_parent_list=[post("g", **GALLERY)]),
        post("x3", url=there, crosspost_parent_list=[post("x1", url=there, crosspost_parent_list=[parent])]),
        post("x4", crosspost_parent_list=[{"id": "p"}], url="https://i.redd.it/p.jpg"),
        post("x5", url=there, crosspost_parent_list=[post("t", is_self=True)]),
        post("x6", url=there, crosspost_parent_list=[post("v", is_video=True)]),
        post("x7", url=there, crosspost_parent_list=[]),
    ]
    about, rows = gather(tmp_path, crossposts)
    assert [(row["reddit_id"], row["url"].rpartition("/")[2]) for row in rows] == [
        ("x1", "p.jpg"), ("x2", "m2.gif"), ("x2", "m1.jpg"), ("x3", "p.jpg"), ("x4", "p.jpg")
    ]  # fmt: skip
    assert {(row["subreddit"], row["score"]) for row in rows} == {("pics", "5")}
    assert left_out(about) == {"text posts": 1, "videos": 1, "links to no picture": 1}


LEFT_OUT = {
    "text posts": [{"is_self": True}, {"is_self": "true"}, {"url": "", "selftext": "words"}],
    "videos": [{"is_video": True}, {"url": "https://v.redd.it/x"}, {"url": "https://youtu.be/x"}],
    "removed or deleted": [
        {"removed_by_category": "moderator"}, {"title": "[deleted by user]"}, {"selftext": "[removed]"},
        {"_meta": {"removal_type": "deleted"}}, {"_meta": {"was_deleted_later": True}},
    ],
    "over 18": [{"over_18": True}, {"over_18": "true"}, {"over_18": 1}],
    "other communities": [{"subreddit": "aww"}, {"subreddit": "pic"}, {"subreddit": "u_pics"}],
    "other times": [{"created_utc": 1_577_836_799}, {"created_utc": "1593561600"}, {"created_utc": 1_593_561_600_000}],
    "galleries without their pictures": [
        {"is_gallery": True}, GALLERY | {"media_metadata": None}, GALLERY | {"gallery_data": {"items": []}},
    ],
    "links to no picture": [{"url": "https://example.org/"}, {"url": None}, {"url": 5}],
    "without a score": [{"score": None}, {"score": "many"}, {"score": [1]}],
    "without a time or a community": [{"created_utc": None}, {"subreddit": None}, {"created_utc": "soon"}],
    "advertisements": [{"promoted": True}, {"promoted": True, "subreddit": None}, {"promoted": "true"}],
    "comments and other things": [{"title": None, "body": "words"}, {"title": None}, {"title": None, "url": None}],
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_is_left_out_is_counted_by_its_kind(tmp_path, kind):
    asked = {"subreddits": frozenset({"pics"}), "after": moment("2020"), "before": moment("2020-07")}
    # Alone, so that values are read as numbers; together with others, as text; and by the careful reader.
    for place, others in enumerate(([], [post("o", score="5")], [b"not JSON"])):
        posts = [post(f"p{i}", **fields) for i, fields in enumerate(LEFT_OUT[kind])]
        about, rows = gather(tmp_path / str(place), [post("kept"), *others, *posts], **asked)
        assert left_out(about) == {kind: len(posts)} and {row["reddit_id"] for row in rows} <= {"kept", "o"}
    assert set(LEFT_OUT) | {"kept", "kept, retrieved within a day of being posted"} == set(KINDS)


def test_over_18_and_everything_else_can_be_asked_for(tmp_path):
    posts = [post("a", over_18=True), post("b", subreddit="Aww"), post("c", created_utc=1)]
    assert [row["reddit_id"] for row in gather(tmp_path, posts, over_18=True)[1]] == ["a", "b", "c"]
    assert [row["reddit_id"] for row in gather(tmp_path, posts, subreddits=frozenset({"aww"}))[1]] == ["b"]
    assert [row["reddit_id"] for row in gather(tmp_path, posts, before=moment("1970-01-01T00:00:02"))[1]] == ["c"]


QUIRKS = [
    ({"score": "7", "num_comments": "3.0", "created_utc": "1588888888"}, ("7", "3", "1588888888")),
    ({"score": 7.0, "num_comments": None, "created_utc": 1588888888.0}, ("7", "", "1588888888")),
    ({"score": " 7 ", "num_comments": 3, "created_utc": 1588888888999}, ("7", "3", "1588888888")),
    ({"score": -7, "num_comments": 0, "created_utc": "2020-05-07T22:01:28Z"}, ("-7", "0", "1588888888")),
]


@pytest.mark.parametrize(("fields", "expected"), QUIRKS)
def test_numbers_may_be_strings_or_floats_and_times_in_milliseconds(tmp_path, fields, expected):
    for place, others in enumerate(([], [b"not JSON"])):
        _, rows = gather(tmp_path / str(place), [*others, post("a", **fields)])
        assert (rows[0]["score"], rows[0]["comments"], rows[0]["unixtime"]) == expected


def test_titles_are_one_line_without_escapes(tmp_path):
    titles = ["a &amp; b &lt;3", "two\nlines\tand\x00more", '"quoted", so', "half a pair \ud83d of letters", "😀"]
    _, rows = gather(tmp_path, [post(f"p{i}", title=title) for i, title in enumerate(titles)])
    assert [row["title"] for row in rows[:3]] == ["a & b <3", "two lines and more", '"quoted", so']
    assert rows[3]["title"].startswith("half a pair") and rows[4]["title"] == "😀"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_the_same_post_again_the_later_retrieval_counts_whatever_the_order(tmp_path, order):
    versions = [post("a", score=score, retrieved_on=1_600_000_000 + score) for score in (10, 20, 30)]
    about, rows = gather(tmp_path, [post("b")], *[[versions[i]] for i in order], [post("c"), post("c", score=6)])
    assert {row["reddit_id"]: row["score"] for row in rows} == {"a": "30", "b": "5", "c": "6"}
    assert left_out(about) == {"the same post again": 3}


def test_a_post_that_was_removed_by_its_later_retrieval_is_left_out(tmp_path):
    later = post("a", removed_by_category="deleted", retrieved_on=1_700_000_000)
    again = post("b", _meta={"retrieved_2nd_on": 1_800_000_000}, score=8)
    about, rows = gather(tmp_path, [later, again, post("a"), post("b", **GALLERY)])
    assert [(row["reddit_id"], row["score"]) for row in rows] == [("b", "8")]
    assert left_out(about) == {"the same post again": 2, "removed or deleted": 1}


def test_posts_without_an_id_are_never_the_same(tmp_path):
    about, rows = gather(
        tmp_path, b"url,score,created_utc,subreddit\n" + b"https://i.redd.it/a.jpg,1,1588888888,pics\n" * 3
    )
    assert len(rows) == 3 and not left_out(about)


def test_many_posts_again_over_many_flushes(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "_FLUSH", 100)
    monkeypatch.setattr(submissions, "CHUNK", 20_000)
    rng = random.Random(5)
    names = [f"{rng.randrange(400):x}" + "with-a-long-name" * rng.randrange(2) for _ in range(2000)]
    posts = [post(name, score=i, retrieved_on=1_600_000_000 + rng.randrange(50)) for i, name in enumerate(names)]
    expected = {}
    for each in posts:
        if each["id"] not in expected or each["retrieved_on"] >= expected[each["id"]]["retrieved_on"]:
            expected[each["id"]] = each
    about, rows = gather(tmp_path, posts[:900], posts[900:])
    assert {row["reddit_id"]: int(row["score"]) for row in rows} == {name: p["score"] for name, p in expected.items()}
    assert left_out(about) == {"the same post again": 2000 - len(expected)} and len(rows) == len(expected)


# --- damage ---------------------------------------------------------------------------------------------------------
MALFORMED = {
    "torn": (b'{"id":"x","title":"to', "not JSON"),
    "no JSON": (b"hello", "not JSON"),
    "a list of numbers": (b"[1,2]", "1 where a post should be"),
    "nothing": (b"null", "null where a post should be"),
    "an error": (b'{"message":"Forbidden","error":403}', "no post (message, error)"),
    "too deep": (b'{"id":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "two in one": (b'{"id":"x"} {"id":"y"}', "not JSON: Extra data"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_line_that_is_no_post_is_named_and_the_others_are_read(tmp_path, name):
    line, reason = MALFORMED[name]
    posts = [post(f"p{i}") for i in range(100)]
    about, rows = gather(tmp_path, [*posts[:60], line, *posts[60:], line])
    assert len(rows) == 100 and about["lines"] == {"read": 102, "blank": 0, "malformed": 2}
    listed = pd.read_csv(tmp_path / "submissions.malformed.csv")
    assert listed["line"].tolist() == [61, 102] and listed["reason"].str.contains(reason, regex=False).all()


def test_lines_that_are_not_quite_json_are_read(tmp_path):
    lines = [
        json.dumps(post("nan", num_comments=float("nan"))).encode(),
        json.dumps(post("bytes")).encode().replace(b"title of", b"t\xfftle of"),
        b"\x1e" + json.dumps(post("mark")).encode(),
        json.dumps(post("control")).replace("title of", "title\tof").encode(),
        json.dumps(post("long", title="x" * 3_000_000, selftext="y" * 5_000_000)).encode(),
    ]
    about, rows = gather(tmp_path, lines_of([post("a"), *lines, post("z")]))
    assert [row["reddit_id"] for row in rows] == ["a", "nan", "bytes", "mark", "control", "long", "z"]
    assert not about["lines"]["malformed"] and len(rows[5]["title"]) == 3_000_000


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_of_a_dump_that_is_cut_off_what_stands_before_is_read_and_said(tmp_path, pack):
    rng = random.Random(0)
    packed = pack(lines_of([post(f"p{i:x}", title=str(rng.random())) for i in range(20_000)]))
    path = tmp_path / "dump"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    done = run("submissions.py", path, "--output", tmp_path / "data")
    assert done.returncode == 0 and f"warning: {path} cannot be read beyond line" in done.stderr
    about = json.loads((tmp_path / "data" / "submissions.json").read_text())
    assert 1000 < about["kept"] < 20_000 and len(about["damaged"]) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty", b"", "is empty"),
        ("page.html", b"<html>\n<body>", "no column for created_utc (unixtime"),
        ("x.csv", b"url,score,subreddit\nhttps://i.redd.it/a.jpg,1,pics\n", "no column for created_utc (unixtime"),
        ("x.csv", b"created_utc,score,subreddit\n1,1,pics\n", "no column for url (url, url_overridden_by_dest"),
        ("x.zip", b"PK\x03\x04", "zip archive"),
        ("x.zst", b"not zstd", "it is not such an archive"),
        ("x.zst", b"\x28\xb5\x2f\xfdjunk", "cannot be read"),
        ("comments", lines_of([{"id": "c", "body": "x"}]), "none of the selected posts links to a picture"),
        ("picture", bytes(range(256)) * 30, "no column for"),
        (None, None, "does not exist"),
    ],
)
def test_what_is_of_no_use_is_one_clear_line_and_no_table(tmp_path, name, content, says):
    path = tmp_path / (name or "nothing")
    if name:
        path.write_bytes(content)
    done = run("submissions.py", path, "--output", tmp_path / "data")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1 and not list((tmp_path / "data").glob("submissions*"))


def test_a_table_that_is_there_stays_if_the_next_cannot_be_made(tmp_path):
    gather(tmp_path, [post("a")])
    before = (tmp_path / "submissions.csv.gz").read_bytes()
    with pytest.raises(UserError):
        gather(tmp_path, [post("a", is_self=True)])
    assert (tmp_path / "submissions.csv.gz").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


# --- authors --------------------------------------------------------------------------------------------------------
def test_authors_are_salted_hashes_and_the_salt_is_its_owners_alone(tmp_path):
    dump = tmp_path / "dump"
    dump.write_bytes(lines_of([post("a"), post("b"), post("c", author="other"), post("d", author="[deleted]")]))
    authors = {}
    for folder in ("one", "again", "other"):
        if folder == "again":
            (tmp_path / "again").mkdir()
            (tmp_path / "again" / ".author_salt").write_bytes((tmp_path / "one" / ".author_salt").read_bytes())
        assert run("submissions.py", dump, "--output", tmp_path / folder).returncode == 0
        authors[folder] = pd.read_csv(tmp_path / folder / "submissions.csv.gz")["author"].fillna("").tolist()
    a, b, c, d = authors["one"]
    assert a == b != c and d == "" and len(a) == 16 and "somebody" not in "".join(authors["one"])
    assert authors["again"] == authors["one"] and authors["other"][0] != a
    assert stat.S_IMODE((tmp_path / "one" / ".author_salt").stat().st_mode) == 0o600
    done = run("submissions.py", dump, "--output", tmp_path / "none", "--no-authors")
    assert done.returncode == 0 and not (tmp_path / "none" / ".author_salt").exists()
    assert pd.read_csv(tmp_path / "none" / "submissions.csv.gz")["author"].isna().all()


def test_a_salt_that_is_none_is_refused(tmp_path):
    (tmp_path / ".author_salt").write_text("pepper\n")
    with pytest.raises(UserError, match="does not hold 64 hexadecimal digits"):
        submissions.read_salt(tmp_path)


# --- the command ----------------------------------------------------------------------------------------------------
def test_the_command_says_what_became_of_every_post(tmp_path):
    dump = tmp_path / "dump.zst"
    posts = [post("a"), post("b", subreddit="Aww"), post("c", subreddit="news"), post("d", created_utc=1), b"torn"]
    posts += [post("e", over_18=True), post("f", retrieved_on=1_588_888_999)]
    dump.write_bytes(zstd.compress(lines_of(posts)))
    words = ["--subreddits", "PICS", "r/aww", "--after", "2020-05", "--before", "2020-06-01", "--over_18"]
    done = run("submissions.py", dump, "--output", tmp_path / "data", *words)
    assert done.returncode == 0, done.stderr
    for text in ("7 lines: 1 malformed, 0 blank; 6 posts:", "4 kept, with 4 pictures", "1 left out: other communities",
                 "1 left out: other times", "1 of those kept were retrieved within a day"):  # fmt: skip
        assert text in done.stdout
    assert run("submissions.py", dump, "--output", tmp_path, "--after", "May").returncode == 2


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("1970", 0),
        ("1970-02", 2_678_400),
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00:05", 3605),
        ("1970-01-01T00:00Z", 0),
    ],
)
def test_dates_are_of_any_precision(date, seconds):
    assert moment(date) == seconds


# --- slow -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_of_2000_mutated_posts_each_is_accounted_for(tmp_path):
    seed = 17
    print(f"seed {seed}")
    rng = random.Random(seed)
    strewn = [
        b'"',
        b",",
        b"\r",
        b"\x00",
        b"\xff",
        b"{",
        b"}",
        b"null",
        b"1e999",
        b"\\ud83d",
        b"\\",
        b"[",
        b"",
        b":",
        b"9" * 30,
    ]
    kinds = [
        {},
        GALLERY,
        {"is_self": True},
        {"crosspost_parent_list": [post("p")], "url": "/r/x"},
        {"url": "imgur.com/a/AbCdE"},
    ]
    lines = []
    for i in range(2000):
        line = bytearray(json.dumps(post(f"p{i}", **rng.choice(kinds))).encode())
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(line) + 1)
            line[place : place + rng.choice((0, 1, 4))] = rng.choice(strewn)
        lines.append(bytes(line))
    outcomes = []
    for place, size in enumerate((3_000, 100_000, 16 << 20)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(submissions, "CHUNK", size)
            about, rows = gather(tmp_path / str(place), lines)
        counts = about["lines"]
        assert counts["read"] == 2000 == counts["malformed"] + counts["blank"] + about["posts"]
        assert counts["malformed"] > 200 and about["kept"] > 200
        outcomes.append((counts, about["left_out"], rows))
    assert outcomes[0] == outcomes[1] == outcomes[2]  # however the lines were cut into chunks


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_the_dump_and_the_rate_is_near_that_of_a_parser_alone(tmp_path):
    """A million posts: at most 1 GB. The rates are printed, and bounded loosely: others may be at work beside."""
    rng = random.Random(0)
    path = tmp_path / "dump.zst"
    with zstd.ZstdFile(path, "w") as file:
        for i in range(1_000_000):
            url = rng.choice(("https://i.redd.it/{:x}.jpg", "https://imgur.com/{:x}", "https://example.org/{:x}"))
            each = post(
                f"{i + 10**8:x}", url=url.format(rng.randrange(16**6, 16**7)), author=f"user{rng.randrange(10**5)}"
            )
            file.write(orjson.dumps(each) + b"\n")
    start = time.perf_counter()
    code = "import orjson, sys\nfrom tables import zstd\nfor line in zstd.open(sys.argv[1]): orjson.loads(line)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)
    theirs, start = time.perf_counter() - start, time.perf_counter()
    code = "import runpy, sys\nsys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "finally: print(open('/proc/self/status').read())"  # the memory that it had at most, and no other process
    done = run("-c", code, "submissions.py", path, "--output", tmp_path / "data")
    ours = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) / 1e6
    print(f"orjson alone {1e6 / theirs:,.0f} lines a second, submissions.py {1e6 / ours:,.0f}; at most {peak:.2f} GB")
    assert peak <= 1 and theirs / ours > 0.2

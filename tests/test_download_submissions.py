"""Pictures of anybody's table of submissions: each asked for once, with what today's hosts answer."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from downloads import files, in_process, ledger
from loopback_server import picture, serving

import utils
import virality
from reading.links import img_ids, picture_ids

COLUMNS = "image_id,unixtime,title,score,comments,subreddit,author,reddit_id,url".split(",")


def img_id_of(link: str) -> str:
    return str(img_ids(pl.Series([link])).item())


def write_table(folder: Path, links: list[tuple[str, str, str]]) -> Path:
    """submissions.csv.gz of (reddit_id, subreddit, url), as submissions.py writes it."""
    folder.mkdir(exist_ok=True)
    path = folder / "submissions.csv.gz"
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number, (post, subreddit, url) in enumerate(links):
            table.writerow(["", 1_600_000_000 + number, 'A title, with "quotes"', 5, 2, subreddit, "0f", post, url])
    return path


@pytest.fixture
def hosts():
    """i.redd.it, its previews, and Imgur, on loopback; and the flags that say so."""
    with serving(3) as (redd, preview, imgur):
        flags = [
            "--redd_url",
            redd.url,
            "--preview_url",
            preview.url,
            "--imgur_url",
            imgur.url,
            "--album_url",
            imgur.url,
        ]
        yield redd, preview, imgur, flags


def of(folder: Path, link: str) -> tuple[str, str]:
    row = ledger(folder)[img_id_of(link)]
    return row["status"], row["source"]


def test_each_picture_is_asked_for_once_whatever_number_of_posts_link_to_it(tmp_path, monkeypatch, capsys, hosts):
    redd, preview, imgur, flags = hosts
    redd.serves("/aaa111.jpg", picture(1))
    redd.serves("/bbb222.jpg", picture(2))
    imgur.serves("/AbCdEf7.jpg", picture(3))
    imgur.serves("/AbCdEf8.jpg", picture(4))
    links = [
        ("p1", "pics", "https://i.redd.it/aaa111.jpg"),
        ("p2", "funny", "https://i.redd.it/aaa111.jpg"),
        ("p3", "aww", "http://i.redd.it/aaa111.jpg"),
        ("p4", "pics", "https://preview.redd.it/aaa111.jpg?width=640&amp;s=expired"),
        ("p5", "pics", "https://imgur.com/AbCdEf7"),
        ("p6", "pics", "http://i.imgur.com/AbCdEf7.png?1"),
        ("p7", "pics", "https://m.imgur.com/r/pics/AbCdEf7"),
        ("p8", "aww", "https://i.imgur.com/AbCdEf8.jpg"),
        ("p9", "aww", "https://i.redd.it/aaa111.jpg"),  # a gallery: a row a picture
        ("p9", "aww", "https://i.redd.it/bbb222.jpg"),
        ("p0", "aww", ""),
    ]
    write_table(tmp_path, links)
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    out = capsys.readouterr().out
    assert f"11 rows in {tmp_path / 'submissions.csv.gz'} link to 4 pictures; 1 to none" in out
    assert "4 of 4 pictures are here" in out
    assert redd.counts == {"/aaa111.jpg": 1, "/bbb222.jpg": 1} and not preview.counts
    assert imgur.counts.total() == 2
    with open(tmp_path / "datasets" / "manifest.csv", newline="") as file:
        manifest = [(row["img_id"], row["submissions"]) for row in csv.DictReader(file)]
    assert manifest == [
        (img_id_of("https://i.redd.it/aaa111.jpg"), "5"),
        (img_id_of("http://imgur.com/AbCdEf7"), "3"),
        (img_id_of("https://i.imgur.com/AbCdEf8.png"), "1"),
        (img_id_of("https://i.redd.it/bbb222.jpg"), "1"),
    ]
    assert (tmp_path / "images" / f"{img_id_of('https://i.redd.it/bbb222.jpg')}.jpg").read_bytes() == picture(2)
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    assert redd.counts.total() == imgur.counts.total() == 2  # nothing twice


def test_a_table_that_grows_keeps_the_pictures_that_are_here(tmp_path, monkeypatch, hosts):
    redd, _, _, flags = hosts
    redd.default = lambda handler, times: handler.reply(picture(int(handler.path.strip("/ab.jpg"))))
    links = [(f"p{n}", "pics", f"https://i.redd.it/a{n}.jpg") for n in range(5)]
    write_table(tmp_path, links)
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    before = files(tmp_path)
    # Earlier posts come to stand before the others; one of these is gone from the table.
    write_table(tmp_path, [(f"q{n}", "pics", f"https://i.redd.it/b{n}.jpg") for n in range(3)] + links[1:])
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    assert redd.counts.total() == 8 and max(redd.counts.values()) == 1
    assert before.items() <= files(tmp_path).items() and len(files(tmp_path)) == 8
    assert utils.read_json(tmp_path / "survivors.json")["expected"] == 7


def test_previews_fall_back_and_removed_pictures_of_both_hosts_are_placeholders(tmp_path, monkeypatch, hosts):
    redd, preview, imgur, flags = hosts
    reddits, imgurs = picture(kind="PNG", size=(130, 60)), picture(kind="PNG", size=(161, 81))
    redd.serves("/expired.jpg", picture(1))
    preview.serves("/expired.jpg?s=1", lambda handler, times: handler.reply(b"", 403))
    preview.serves("/only-v0-preview.jpg?s=1", picture(2))
    redd.serves("/removed.png", reddits)
    redd.serves("/removed404.jpg", lambda handler, times: handler.reply(reddits, 404, Content_Type="image/png"))
    redd.serves("/gone.jpg", lambda handler, times: handler.reply(b"", 404))
    imgur.serves("/abcde.jpg", imgurs)
    imgur.serves("/fghij.jpg", lambda handler, times: handler.reply(b"", 302, Location="/removed.png"))
    album = {"data": {"images": [{"hash": "inside7", "ext": ".jpg"}]}}
    imgur.serves("/ajaxalbums/getimages/AbCdE/hit.json?all=true", json.dumps(album).encode())
    imgur.serves("/inside7.jpg", picture(3))
    links = {
        "https://preview.redd.it/expired.jpg?s=1": ("ok", "original"),
        "https://preview.redd.it/only-v0-preview.jpg?s=1": ("ok", "link"),
        "https://i.redd.it/removed.png": ("placeholder", "link"),
        "https://i.redd.it/removed404.jpg": ("placeholder", "link"),
        "https://i.redd.it/gone.jpg": ("gone", "link"),
        "http://imgur.com/abcde": ("placeholder", "imgur"),
        "https://i.imgur.com/fghij.jpg": ("placeholder", "link"),
        "https://imgur.com/a/AbCdE": ("ok", "imgur"),
    }
    write_table(tmp_path, [(f"p{n}", "pics", link) for n, link in enumerate(links)])
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    assert {link: of(tmp_path, link) for link in links} == links
    assert len(files(tmp_path)) == 3


def test_subreddits_and_numbers_choose_among_a_tables_pictures(tmp_path, monkeypatch, capsys, hosts):
    redd, _, _, flags = hosts
    redd.default = lambda handler, times: handler.reply(picture())
    links = [
        ("p1", "aww", "a1"),
        ("p2", "Aww", "a1"),
        ("p3", "funny", "a1"),
        ("p4", "funny", "a2"),
        ("p5", "aww", "a2"),
    ]
    links += [(f"p1{n}", "AWW", f"b{n}") for n in range(9)]
    write_table(tmp_path, [(post, name, f"https://i.redd.it/{link}.jpg") for post, name, link in links])
    assert in_process(monkeypatch, tmp_path, *flags, "--subreddits", "aww", "--dry_run") == 0
    assert "would fetch 10 of the 10 pictures" in capsys.readouterr().out
    assert not (tmp_path / "datasets").exists()
    assert in_process(monkeypatch, tmp_path, *flags, "--subreddits", "aww", "--num_images", 4) == 0
    assert len(files(tmp_path)) == 4
    assert in_process(monkeypatch, tmp_path, *flags, "--subreddits", "aww") == 0
    assert len(files(tmp_path)) == 10 and "/a2.jpg" not in redd.counts and max(redd.counts.values()) == 1
    with pytest.raises(utils.UserError, match="--subreddits cats: no picture was submitted there"):
        in_process(monkeypatch, tmp_path, *flags, "--subreddits", "cats")


def test_a_manifest_of_ones_own_is_followed_and_not_written_over(tmp_path, monkeypatch, capsys, hosts):
    redd, _, _, flags = hosts
    redd.default = lambda handler, times: handler.reply(picture())
    write_table(tmp_path, [("p1", "aww", "https://i.redd.it/a1.jpg")])
    (tmp_path / "datasets").mkdir()
    own = "img_id,img_link\nmine,https://i.redd.it/mine.jpg\n"
    (tmp_path / "datasets" / "manifest.csv").write_text(own)
    assert in_process(monkeypatch, tmp_path, *flags) == 0
    assert "the manifest is used, and the table is not" in capsys.readouterr().out
    assert (tmp_path / "datasets" / "manifest.csv").read_text() == own and set(files(tmp_path)) == {"mine.jpg"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-20], "cannot be read as CSV: Compressed file ended"),
        (lambda data: b"url\nx\n", "cannot be read as CSV"),
        (lambda data: gzip.compress(b"reddit_id,link\np1,x\n"), "has no column url, subreddit"),
        (lambda data: gzip.compress(b"url,subreddit\n,aww\n"), "no row has an address in its column url"),
        (lambda data: gzip.compress(b"image_id,url,subreddit\n7,,aww\n"), "images holds none of its pictures"),
        (lambda data: gzip.compress(b"url,subreddit\n"), "has a header and no rows"),
    ],
    ids=["cut", "not gzip", "columns", "no address", "no picture", "no rows"],
)
def test_an_unusable_table_is_named(tmp_path, monkeypatch, spoil, message):
    path = write_table(tmp_path, [(f"p{n}", "aww", f"https://i.redd.it/a{n}.jpg") for n in range(99)])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(utils.UserError, match=message) as error:
        in_process(monkeypatch, tmp_path)
    assert str(path) in str(error.value)


FORMS = [
    """http://imgur.com/AbCdEf7 https://i.imgur.com/AbCdEf7.png https://www.imgur.com/gallery/a-cat-AbCdEf7
    http://imgur.com/topic/Aww/AbCdEf7/new""",
    """http://i.redd.it/aaa.jpg https://preview.redd.it/aaa.jpg?s=1 https://preview.redd.it/a-cat-v0-aaa.jpg?s=2
    https://www.reddit.com/media?url=https%3A%2F%2Fi.redd.it%2Faaa.jpg""",
    """http://pictures.example/a.jpg?b=1&c=2 https://Pictures.example:443/a.jpg?b=1&amp;c=2#d
    pictures.example/a.jpg?b=1&c=2 HTTP://me:secret@PICTURES.example:80/a.jpg?b=1&c=2""",
]


@pytest.mark.parametrize("links", FORMS)
def test_an_img_id_is_that_of_the_picture_not_of_the_form_of_its_address(links):
    numbers = {img_id_of(link) for link in links.split()}
    assert len(numbers) == 1 and 0 < int(numbers.pop()) < 2**53


def test_img_ids_of_different_pictures_differ():
    links = """http://imgur.com/AbCdEf7 http://imgur.com/abcdef7 https://i.redd.it/AbCdEf7.jpg
    https://i.redd.it/AbCdEf7.png http://pictures.example/a?b=1 http://pictures.example/a?b=2
    http://imgur.com/a/AbCdEf7 http://[""".split()
    links += [f"https://i.redd.it/{n}.jpg" for n in range(10_000)]
    assert len({img_id_of(link) for link in links}) == len(links)


def test_a_picture_is_known_by_its_image_id_then_by_its_address_then_by_its_post():
    link = "https://i.redd.it/a.jpg"
    rows = [("7", link, "p1"), ("7", "", "p2"), ("a name", "", "p1"), ("", "", "p1"), ("", "", "p1"), ("", link, "p1")]
    rows += [("", "", ""), ("", "", ""), ("-7", "", ""), (str(2**60), "", "")]
    found = picture_ids(*(pl.Series(column) for column in zip(*rows, strict=True)))
    numbers = found["img_id"].to_list()
    assert numbers[:2] == [7, 7] and numbers[3] == numbers[4] and str(numbers[5]) == img_id_of(link)
    assert len(set(numbers)) == 8 and all(0 <= each < 2**53 for each in numbers)
    assert found["link"].to_list() == [link, "p2", "p1", "p1", "p1", link, "", "", "", ""]


def test_the_number_of_a_picture_is_that_of_the_virality_table(tmp_path, monkeypatch, hosts):
    """With an image_id of one's own, a post alone, a name: what is fetched is what is scored."""
    redd, _, _, flags = hosts
    redd.default = lambda handler, times: handler.reply(picture(times))
    path = write_table(tmp_path, [("p1", "aww", "https://I.redd.it/a1.jpg"), ("p2", "aww", "https://i.redd.it/a2.jpg")])
    with gzip.open(path, "at", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["12", 1_600_000_100, "t", 5, 2, "aww", "", "p3", "https://i.redd.it/a3.jpg"],
                                    ["a name", 1_600_000_200, "t", 5, 2, "aww", "", "p4", "https://i.redd.it/a4.jpg"],
                                    ["", 1_600_000_300, "t", 5, 2, "aww", "", "t3_p5five", ""]])  # fmt: skip
    post = {"data": {"children": [{"kind": "t3", "data": {"url": f"{redd.url}/a5.jpg"}}]}}
    redd.serves("/comments/p5five.json?limit=1&raw_json=1", json.dumps([post, post]).encode())
    assert in_process(monkeypatch, tmp_path, *flags, "--reddit_url", redd.url) == 0
    assert len(files(tmp_path)) == 5 and "12.jpg" in files(tmp_path)
    submissions, _ = virality.read_submissions(path)
    assert {f"{img_id}.jpg" for img_id in submissions["img_id"]} == set(files(tmp_path))


def test_pictures_without_addresses_are_those_that_are_here(tmp_path, monkeypatch, capsys, hosts):
    with gzip.open(tmp_path / "submissions.csv.gz", "wt") as file:
        file.write("image_id,url,subreddit\n" + "".join(f"{n % 5},,aww\n" for n in range(9)))
    (tmp_path / "images").mkdir()
    for n in (1, 3):
        (tmp_path / "images" / f"{n}.jpg").write_bytes(picture(n))
    assert in_process(monkeypatch, tmp_path, *hosts[3]) == 0
    assert "nothing is downloaded" in capsys.readouterr().out
    survivors = utils.read_json(tmp_path / "survivors.json")
    assert (survivors["expected"], survivors["survivors"]) == (5, 2)
    assert survivors["statuses"] == {"at_hand": 2, "missing": 3}
    assert in_process(monkeypatch, tmp_path, *hosts[3], "--dry_run") == 0

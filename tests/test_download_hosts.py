"""Hosts are asked within limits, and addresses in their order."""

from __future__ import annotations

import json
import time

import pytest
from downloads import files, in_process, ledger, make_folder
from loopback_server import first_limited, picture, serving

from fetching import hosts, workers
from fetching.addresses import IMGUR_SIZE, REDDIT_SIZE, Services, addresses_of, direct_address


# --- hosts ----------------------------------------------------------------------------------------------------------
def test_429_pauses_its_host_alone(tmp_path, monkeypatch):
    with serving(2) as [strict, other]:
        strict.default = lambda handler, times: handler.reply(picture())
        strict.serves("/0.jpg", first_limited(1, lambda: "2"))
        other.default = lambda handler, times: handler.reply(picture())
        rows = [(f"s{n}", f"{strict.url}/{n}.jpg", "", "") for n in range(3)]
        rows += [(f"o{n}", f"{other.url}/{n}.jpg", "", "") for n in range(40)]
        folder = make_folder(tmp_path, rows)
        # Fewer workers than pictures of the host that pauses: none of them may wait there.
        assert in_process(monkeypatch, folder, "--workers", 2, "--per_host", 1) == 0
        first = strict.log[0][0]
        assert [path for moment, path, _ in strict.log if first < moment < first + 1.9] == []
        assert max(moment for moment, _, _ in other.log) < first + 1.9
    assert {row["status"] for row in ledger(folder).values()} == {"ok"}


def test_a_host_is_asked_no_more_at_a_time_than_the_limit(tmp_path, monkeypatch):
    def slow(handler, times):
        time.sleep(0.03)
        handler.reply(picture())

    with serving() as [server]:
        server.default = slow
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(30)])
        assert in_process(monkeypatch, folder, "--workers", 12, "--per_host", 3, "--contact", "me@example.org") == 0
        assert server.most_active == 3
        assert {agent for _, _, agent in server.log} == {"image-virality/1.0 (research; contact: me@example.org)"}


def test_a_host_that_never_answers_is_left_alone_after_a_while(tmp_path, monkeypatch, capsys):
    with serving(2) as [dead, alive]:
        dead.default = lambda handler, times: handler.cut()
        alive.default = lambda handler, times: handler.reply(picture())
        rows = [(n, f"{dead.url}/{n}.jpg", "", "") for n in range(200)] + [("a", f"{alive.url}/a.jpg", "", "")]
        folder = make_folder(tmp_path, rows)
        assert in_process(monkeypatch, folder) == 1
        assert sum(dead.counts.values()) <= workers.DOWN_AFTER + 4  # those under way
    counts = json.loads((folder / "survivors.json").read_text())["statuses"]
    assert (counts["ok"], counts["transient"]) == (1, 200)
    assert capsys.readouterr().err.count("does not answer") == 1


def refused(body: bytes, status: int = 403):
    return lambda handler, times: handler.reply(body, status)


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b"over capacity", 403, "transient"),
        (b"<html><h1>Imgur is over capacity!</h1><p>Please try again in a moment.</p></html>", 200, "transient"),
        (b'{"message": "Too Many Requests"}', 403, "rate_limited"),
        (b"<html><title>Just a moment...</title></html>", 403, "transient"),
        (b"", 403, "transient"),  # says nothing, but that of all thirty
    ],
    ids=["words", "page", "rate", "challenge", "all"],
)
def test_a_host_that_refuses_everything_for_now_makes_nothing_gone(tmp_path, monkeypatch, body, status, found):
    with serving() as [server]:
        server.default = refused(body, status)
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(30)])
        assert in_process(monkeypatch, folder, "--backoff", "0.01", "--retries", 1) == 1
        assert {row["status"] for row in ledger(folder).values()} == {found} and len(ledger(folder)) == 30
        assert sum(server.counts.values()) <= 60  # and it is not asked for ever
        server.default = lambda handler, times: handler.reply(picture())
        assert in_process(monkeypatch, folder) == 0
        assert {row["status"] for row in ledger(folder).values()} == {"ok"}


def test_a_host_that_forbids_some_pictures_alone_says_that_they_are_gone(tmp_path, monkeypatch):
    with serving(2) as [mixed, small]:
        mixed.default = small.default = refused(b"<Error><Code>AccessDenied</Code></Error>")
        kept = {n for n in range(40) if n % 5 == 2}
        for n in kept:
            mixed.serves(f"/{n}.jpg", picture())
        rows = [(n, f"{mixed.url}/{n}.jpg", "", "") for n in range(40)]
        rows += [(100 + n, f"{small.url}/{n}.jpg", "", "") for n in range(5)]
        folder = make_folder(tmp_path, rows)
        assert in_process(monkeypatch, folder) == 0
        assert {int(name) for name, row in ledger(folder).items() if row["status"] == "ok"} == kept
        assert {row["status"] for row in ledger(folder).values()} == {"ok", "gone"}
        assert mixed.counts.total() == 40


def test_a_host_that_shuts_us_out_in_between_makes_nothing_gone(tmp_path, monkeypatch, capsys):
    with serving() as [server]:
        number = lambda handler: int(handler.path.strip("/.jpg"))  # noqa: E731
        picture_until = lambda handler, times: handler.reply(picture(), 200 if number(handler) < 20 else 403)  # noqa: E731
        server.default = picture_until
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(90)])
        assert in_process(monkeypatch, folder) == 1
        assert [row["status"] for row in ledger(folder).values()] == 20 * ["ok"] + 70 * ["transient"]
        assert server.counts.total() <= 20 + workers.TROUBLED_AFTER + 4
        assert "host forbids all that it is asked for; not asked again" in capsys.readouterr().err
        assert ledger(folder)["21"]["error"] == "HTTP 403, as all that this host was asked for"
        asked = set(server.counts)
        server.counts.clear()
        server.default = lambda handler, times: handler.reply(picture(), 403 if handler.path in asked else 200)
        assert in_process(monkeypatch, folder) == 1  # those that were forbidden come last, and hold up no others
        statuses = [row["status"] for row in ledger(folder).values()]
        assert statuses.count("ok") == 90 - len(asked) + 20 and statuses.count("gone") == 0


def test_a_host_that_is_broken_is_left_alone_after_a_while(tmp_path, monkeypatch, capsys):
    with serving() as [server]:
        server.default = refused(b"", 502)
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(300)])
        assert in_process(monkeypatch, folder, "--backoff", "0.01") == 1
        assert sum(server.counts.values()) <= workers.TROUBLED_AFTER + 4
    assert {row["status"] for row in ledger(folder).values()} == {"transient"}
    assert capsys.readouterr().err.count("is busy or broken (HTTP 502)") == 1


def test_headers_in_a_trickle_hold_up_nobody(tmp_path, monkeypatch):
    def trickle(handler, times):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(60):
            handler.wfile.write(b"a")
            time.sleep(0.2)

    with serving(2) as [slow, fast]:
        slow.default = trickle
        fast.default = lambda handler, times: handler.reply(picture())
        rows = [(f"s{n}", f"{slow.url}/{n}.jpg", "", "") for n in range(3)]
        folder = make_folder(tmp_path, rows + [(f"f{n}", f"{fast.url}/{n}.jpg", "", "") for n in range(9)])
        start = time.monotonic()
        flags = ["--connect_timeout", 0.3, "--read_timeout", 0.5, "--max_seconds", 0.5, "--retries", 1, "--workers", 2]
        assert in_process(monkeypatch, folder, *flags) == 1
        assert time.monotonic() - start < 10
    rows = ledger(folder)
    assert [rows[f"s{n}"]["error"] for n in range(3)] == 3 * ["no whole answer in time"]
    assert [rows[f"f{n}"]["status"] for n in range(9)] == 9 * ["ok"] and len(rows) == 12
    assert set(files(folder)) == {f"f{n}.jpg" for n in range(9)}


@pytest.mark.parametrize(
    ("post", "link", "retry_after"),
    [
        (b"[" * 200_000, "", None),
        (b'[{"data":{"children":[{"data":{"url":"http://127.0.0.1:9/\\ud800.jpg"}}]}}]', "", None),
        (b'[{"data":{"children":[{"data":{"url":' + b"9" * 5000 + b"}}]}}]", "", None),
        (b'[{"data":{"children":[{"data":{"url":["x"]}}]}}]', "", None),
        (b'[{"data":{"children":[{"data":{"url":"https://' + b"a" * 200_000 + b'/"}}]}}]', "", None),
        (b"null", "http://\x01\x02/=1+1,", None),
        (b"null", "=1+1", None),
        (b"null", "http://127.0.0.1:9/" + "a" * 200_000, None),
        (b"null", "", "Fri, 31 Dec 99999999999 23:59:59 GMT"),
        (b"null", "", "9" * 5000),
    ],
)
def test_whatever_goes_wrong_with_one_picture_is_a_row_and_the_others_come(
    tmp_path, monkeypatch, post, link, retry_after
):
    with serving(2) as [server, odd]:
        server.default = lambda handler, times: handler.reply(picture())
        if retry_after:
            odd.default = lambda handler, times: handler.reply(b"", 429, Retry_After=retry_after)
            link = f"{odd.url}/a.jpg"
        else:
            odd.default = lambda handler, times: handler.reply(post)
        folder = make_folder(tmp_path, [("odd", f'"{link}"', "p1", "")])
        text = "".join(f"{n},{server.url}/{n}.jpg,,\n" for n in range(29))
        with open(folder / "datasets" / "manifest.csv", "a") as file:
            file.write(text)
        flags = ["--reddit_url", odd.url, "--retries", 0]
        code = in_process(monkeypatch, folder, *flags)
        rows = ledger(folder)
        assert [rows[str(n)]["status"] for n in range(29)] == 29 * ["ok"]
        assert len(rows) == 30 and rows["odd"]["status"] in ("gone", "transient", "rate_limited")
        assert code == (rows["odd"]["status"] != "gone")
        assert all(len(value) < 2100 and not value.startswith("=") for value in rows["odd"].values())
        assert in_process(monkeypatch, folder, *flags) == code  # the ledger can be read again
        assert max(server.counts.values()) == 1


# --- the chain of addresses -----------------------------------------------------------------------------------------
def post(url: str, **more: object) -> bytes:
    return json.dumps([{"data": {"children": [{"data": {"url": url, **more}}]}}, {}]).encode()


def test_addresses_are_tried_in_order_and_the_archive_only_when_asked(tmp_path, monkeypatch):
    with serving(5) as [link, reddit, imgur, archive, elsewhere]:
        flags = ["--reddit_url", reddit.url, "--imgur_url", imgur.url, "--archive_url", archive.url]
        comments = "/comments/{}.json?limit=1&raw_json=1"
        reddit.serves(comments.format("p1"), post("https://www.reddit.com/r/pics/x", is_self=True))
        reddit.serves(comments.format("p2"), post("http://imgur.com/abcde"))
        reddit.serves(comments.format("p3"), post(f"{elsewhere.url}/3.png"))
        reddit.serves(comments.format("p4"), post("http://imgur.com/a/album"))
        reddit.serves(comments.format("p5"), b"<html>log in</html>")
        imgur.serves("/abcde.jpg", picture(1))
        imgur.serves("/fghij.jpg", picture(2))
        elsewhere.serves("/3.png", picture(3, "PNG"))
        archive.serves(f"/web/2015id_/{link.url}/gone.jpg", picture(4))
        archive.serves(f"/web/2015id_/{elsewhere.url}/lost.jpg", picture(5))
        reddit.serves(comments.format("p6"), post(f"{elsewhere.url}/lost.jpg"))
        rows = [
            ("second_post", f"{link.url}/1.jpg", "p1 p2", ""),
            ("page", "http://imgur.com/gallery/fghij", "p2", ""),
            ("other_host", "", "p3", ""),
            ("no_post", f"{link.url}/gone.jpg", "p0", ""),
            ("lost_post", f"{link.url}/1.jpg", "p6", ""),
            ("no_json", f"{link.url}/1.jpg", "p5", ""),
        ]
        folder = make_folder(tmp_path, rows)
        assert in_process(monkeypatch, folder, *flags) == 1
        assert not archive.counts
        rows = {name: (row["status"], row["source"]) for name, row in ledger(folder).items()}
        assert rows == {
            "second_post": ("ok", "reddit"),
            "page": ("ok", "imgur"),
            "other_host": ("ok", "reddit"),
            "no_post": ("gone", "link"),
            "lost_post": ("gone", "link"),
            "no_json": ("transient", "post"),  # the most hopeful of its failures
        }
        assert in_process(monkeypatch, folder, *flags, "--archive", "--retry", "gone") == 1
        rows = {name: (row["status"], row["source"]) for name, row in ledger(folder).items()}
        assert rows["no_post"] == rows["lost_post"] == ("ok", "archive")
        assert imgur.counts == {"/abcde.jpg": 1, "/fghij.jpg": 1}


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://imgur.com/abcde", "I/abcde.jpg"),
        ("https://www.imgur.com/gallery/AbCdEf7", "I/AbCdEf7.jpg"),
        ("http://m.imgur.com/r/pics/abcde", "I/abcde.jpg"),
        ("http://i.imgur.com/abcde.gifv", "I/abcde.jpg"),
        ("http://i.imgur.com/abcde.png", None),
        ("http://imgur.com/a/abcde", None),
        ("http://notimgur.com/abcde", None),
        ("http://imgur.com/", None),
        ("http://imgur.com/topic/Aww/AbCdEf7", "I/AbCdEf7.jpg"),
        ("http://imgur.com/t/funny/AbCdEf7", "I/AbCdEf7.jpg"),
        ("https://imgur.com/gallery/my-cat-at-home-AbCdEf7", "I/AbCdEf7.jpg"),
        ("https://imgur.com/t/cats/my-cat-2-AbCdEf7", "I/AbCdEf7.jpg"),
        ("https://imgur.com/my-cat-AbCdEf7", "I/AbCdEf7.jpg"),
        ("http://imgur.com/abcde/new", "I/abcde.jpg"),
        ("http://imgur.com/gallery/abcde/new", "I/abcde.jpg"),
        ("http://imgur.com/gallery/AbCdEf7/comment/123456789", "I/AbCdEf7.jpg"),
        ("http://imgur.com/abcde.jpg", "I/abcde.jpg"),
        ("http://imgur.com/abcde.png?1", "I/abcde.jpg"),
        ("http://imgur.com/abcde,fghij", "I/abcde.jpg"),
        ("http://imgur.com/abcde#fghij", "I/abcde.jpg"),
        ("http://imgur.com/abcde.", "I/abcde.jpg"),
        ("http://imgur.com/download/abcde", "I/abcde.jpg"),
        ("http://imgur.com/user/somebody/favorites/AbCdEf7", "I/AbCdEf7.jpg"),
        ("http://i.imgur.com/abcde", "I/abcde.jpg"),
        ("http://i.imgur.com/r/pics/abcde", "I/abcde.jpg"),
        ("https://i.imgur.com/abcde.mp4", "I/abcde.jpg"),
        ("https://imgur.io/abcde", "I/abcde.jpg"),
        ("http://imgur.com/gallery", None),
        ("http://imgur.com/signin", None),
        ("http://imgur.com/r/pics", None),
        ("http://imgur.com/user/somebody", None),
        ("http://i.imgur.com/abcde.JPEG", None),
        ("http://[imgur.com/abcde", None),
    ],
)
def test_the_picture_behind_a_page_of_imgurs(url, direct):
    assert direct_address(url, "I") == direct


SERVICES = Services(*"S Z R D P I A W".split())  # SNAP, Deza, Reddit, i.redd.it, previews, Imgur, its albums, archive
JSON, ALBUMS = ".json?limit=1&raw_json=1", "A/ajaxalbums/getimages"


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("", []),
        ("http://pictures.example/a.jpg", ["link http://pictures.example/a.jpg"]),
        ("  <http://pictures.example/a.jpg>", ["link http://pictures.example/a.jpg"]),
        ("http://pictures.example/a?b=1&amp;c=2", ["link http://pictures.example/a?b=1&c=2"]),
        ("//pictures.example/a.jpg", ["link http://pictures.example/a.jpg"]),
        ("pictures.example/a.jpg", ["link http://pictures.example/a.jpg"]),
        ("http:\\\\pictures.example\\a.jpg?b=\\", ["link http://pictures.example/a.jpg?b=\\"]),
        ("http://i.imgur.com/abcde.png?1", ["link I/abcde.png?1"]),
        ("imgur.com/abcde", ["imgur I/abcde.jpg"]),
        ("https://imgur.com/a/AbCdE", [f"album {ALBUMS}/AbCdE/hit.json?all=true"]),
        ("https://imgur.com/a/our-trip-AbCdEf7#3", [f"album {ALBUMS}/AbCdEf7/hit.json?all=true"]),
        ("http://imgur.com/gallery/abcde", ["imgur I/abcde.jpg", f"album {ALBUMS}/abcde/hit.json?all=true"]),
        ("https://i.redd.it/abc123.png", ["link D/abc123.png"]),
        ("https://preview.redd.it/abc123.jpg?w=9&amp;s=0", ["original D/abc123.jpg", "link P/abc123.jpg?w=9&s=0"]),
        ("https://preview.redd.it/a-cat-v0-abc123.jpeg?s", ["original D/abc123.jpeg", "link P/a-cat-v0-abc123.jpeg?s"]),
        ("https://www.reddit.com/media?url=https%3A%2F%2Fi.redd.it%2Fabc123.jpg", ["link D/abc123.jpg"]),
        ("https://www.reddit.com/gallery/AbC123", [f"post R/comments/abc123{JSON}"]),
        ("https://old.reddit.com/r/pics/comments/abc123/a_title/", [f"post R/comments/abc123{JSON}"]),
        ("https://redd.it/abc123", [f"post R/comments/abc123{JSON}"]),
        ("https://www.reddit.com/user/somebody", ["link https://www.reddit.com/user/somebody"]),
        ("https://www.reddit.com/media?url=https%3A%2F%2Fwww.reddit.com%2Fmedia%3Furl%3Dx", ["link https://www.reddit.com/media?url=https%3A%2F%2Fwww.reddit.com%2Fmedia%3Furl%3Dx"]),
    ],
)  # fmt: skip
def test_where_the_picture_of_a_link_may_be_had(link, found):
    assert [" ".join(address) for address in addresses_of(link, SERVICES)] == found


def test_albums_galleries_and_previews_lead_to_their_pictures(tmp_path, monkeypatch):
    with serving(4) as [imgur, album, redd, reddit]:
        flags = ["--imgur_url", imgur.url, "--album_url", album.url, "--redd_url", redd.url, "--preview_url", redd.url]
        album.serves("/ajaxalbums/getimages/AbCdE/hit.json?all=true", ALBUM)
        album.serves("/ajaxalbums/getimages/empty/hit.json?all=true", b'{"data": [], "success": true}')
        album.serves("/ajaxalbums/getimages/pages/hit.json?all=true", b"<html>log in</html>")
        imgur.serves("/first7x.jpg", picture(1))
        redd.serves("/abc123.jpg", picture(2))
        redd.serves("/only.jpg?s=1", picture(3))
        gallery = {"gallery_data": {"items": [{"media_id": "m2"}, {"media_id": "m1"}]}}
        gallery |= {"media_metadata": {"m2": {"s": {"u": f"{redd.url}/m2.jpg?s=1&amp;t=2"}}}}
        reddit.serves(f"/comments/g1{JSON}", post("https://www.reddit.com/gallery/g1", **gallery))
        redd.serves("/m2.jpg?s=1&t=2", picture(4))
        # Each post leads to another, without an end.
        reddit.default = lambda handler, times: handler.reply(post(f"https://redd.it/g{len(reddit.log):04}"))
        rows = [
            ("album", "https://imgur.com/a/AbCdE", "", ""),
            ("gallery_album", "http://imgur.com/gallery/AbCdE", "", ""),
            ("empty_album", "https://imgur.com/a/empty", "", ""),
            ("no_album", "https://imgur.com/a/pages", "", ""),
            ("preview", "https://preview.redd.it/abc123.jpg?width=640&s=expired", "", ""),
            ("preview_alone", "https://preview.redd.it/only.jpg?s=1", "", ""),
            ("reddit_gallery", "", "g1", ""),
            ("without_an_end", "", "x1", ""),
        ]
        folder = make_folder(tmp_path, rows)
        in_process(monkeypatch, folder, *flags, "--reddit_url", reddit.url, "--retries", 0)
        found = {name: (row["status"], row["source"]) for name, row in ledger(folder).items()}
    assert found == {
        "album": ("ok", "imgur"),
        "gallery_album": ("ok", "imgur"),
        "empty_album": ("gone", "album"),
        "no_album": ("transient", "album"),
        "preview": ("ok", "original"),
        "preview_alone": ("ok", "link"),
        "reddit_gallery": ("ok", "reddit"),
        "without_an_end": ("gone", "post"),
    }
    assert reddit.counts.total() < 2 + hosts.MOST_ADDRESSES


ALBUM = b'{"data": {"count": 2, "images": [{"hash": "first7x", "ext": ".png"}, {"hash": "second7"}]}, "success": true}'


@pytest.mark.parametrize("status", [200, 404])
def test_pictures_of_removed_ones_are_told_by_their_host_and_size(tmp_path, monkeypatch, status):
    reddits, imgurs = (picture(kind="PNG", size=size) for size in (REDDIT_SIZE, IMGUR_SIZE))
    with serving(4) as [redd, preview, imgur, other]:
        for server in (redd, preview, imgur, other):
            server.serves("/abcde.png", lambda handler, times: handler.reply(reddits, status))
            server.serves("/fghij.png", lambda handler, times: handler.reply(imgurs, status))
        rows = [
            ("reddit", "https://i.redd.it/abcde.png", "", ""),
            ("preview", "https://preview.redd.it/abcde.png?s=1", "", ""),
            ("imgur", "http://i.imgur.com/fghij.png", "", ""),
            ("another_of_this_size", f"{other.url}/abcde.png", "", ""),
            ("of_the_other_size", "https://i.redd.it/fghij.png", "", ""),
        ]
        folder = make_folder(tmp_path, rows)
        in_process(monkeypatch, folder, "--imgur_url", imgur.url, "--redd_url", redd.url, "--preview_url", preview.url)
    found = {name: row["status"] for name, row in ledger(folder).items()}
    assert {found.pop(name) for name in ("reddit", "preview", "imgur")} == {"placeholder"}
    assert set(found.values()) == {"ok" if status == 200 else "placeholder"}

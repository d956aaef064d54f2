"""Pictures out of zips and compressed tars, from addresses, and out of several places at once."""

from __future__ import annotations

import _thread
import io
import os
import random
import stat
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import run_here
from loopback_server import PAGE, first_limited, picture, redirect, serving

from decoding.decoder import UnusablePicture
from fetching.hosts import Limits
from fetching.single import Fetched
from pictures.sources import content, count_sources, decoded, list_sources, read
from table_files import read_rows
from utils import UserError

PICTURES = {f"in/{number}.jpg": picture(number) for number in range(4)}


def make_zip(path: Path, members: dict[str, bytes] = PICTURES, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes] = PICTURES, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def listed(*where: object) -> tuple[list, dict[str, str]]:
    left_out: dict[str, str] = {}
    return list(list_sources([str(each) for each in where], left_out.__setitem__)), left_out


# --- archives -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: make_tar(folder / "a.tar.gz"),
        lambda folder: make_tar(folder / "a.tgz"),
        lambda folder: make_tar(folder / "a.tar"),
        lambda folder: make_tar(folder / "a.tar", mode="w"),
        lambda folder: make_tar(folder / "download"),
        lambda folder: make_zip(folder / "a.zip"),
        lambda folder: make_zip(folder / "a.ZIP", kind=zipfile.ZIP_STORED),
        lambda folder: make_zip(folder / "download"),
    ],
)
def test_an_archive_gives_its_files_in_any_order_to_many_threads(make, tmp_path):
    archive = make(tmp_path)
    found, left_out = listed(archive)
    assert [each.path for each in found] == [f"{archive}/{name}" for name in PICTURES] and not left_out
    assert count_sources(archive) == 4
    asked = random.Random(0).choices(found, k=200)
    with ThreadPoolExecutor(4) as pool:
        for source, data in zip(asked, pool.map(content, asked), strict=True):
            assert data == PICTURES[source.path.removeprefix(f"{archive}/")]
    assert read(found[0]).size == (48, 36) and [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_folder_may_hold_archives(tmp_path):
    make_zip(tmp_path / "b.zip"), make_tar(tmp_path / "c.tar.gz"), (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "d.zip").write_bytes(b"PK\3\4" + bytes(40))
    found, _ = listed(tmp_path)
    assert len(found) == 10 and found[-1].fault == "broken zip: File is not a zip file"


def test_the_replaced_the_encrypted_and_the_linked_in_a_zip_are_told(tmp_path):
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("folder.jpg")
        archive.writestr("0.jpg", picture(0))
        archive.writestr("0.jpg", picture(1))
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../up.jpg", picture(2))
        archive.writestr("text.txt", b"no picture")
        archive.writestr("secret.jpg", picture(3))
        archive.infolist()[-1].flag_bits |= 1
    found, left_out = listed(tmp_path / "a.zip")
    assert [content(each) for each in found] == [picture(1), picture(2)]
    assert {name.rpartition("/")[2]: reason for name, reason in left_out.items()} == {
        "0.jpg": "replaced by a later member of its name",
        "link.jpg": "a link in a zip, which is not followed",
        "text.txt": "no picture (.txt)",
        "secret.jpg": "encrypted",
    }


def test_damage_in_an_archive_is_a_pictures_fault_or_the_archives(tmp_path):
    make_zip(tmp_path / "a.zip", kind=zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(PICTURES["in/1.jpg"]) + 300] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    found, _ = listed(tmp_path / "a.zip")
    with pytest.raises(UnusablePicture, match="Bad CRC-32"):
        content(found[1])
    assert content(found[2]) == PICTURES["in/2.jpg"]
    whole = make_tar(tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    found, _ = listed(tmp_path / "a.tar.gz")
    usable = [each for each in found if not each.fault]
    assert usable and content(usable[0]) == PICTURES["in/0.jpg"]
    with pytest.raises(UnusablePicture):
        content(found[-1])


def test_an_archive_replaced_meanwhile_is_read_anew(tmp_path):
    (first, *_), _ = listed(make_tar(tmp_path / "a.tar.gz", {"0.jpg": picture(0)}))
    assert content(first) == picture(0)
    os.replace(make_tar(tmp_path / "b.tar.gz", {"0.jpg": picture(7)}), tmp_path / "a.tar.gz")
    (first, *_), _ = listed(tmp_path / "a.tar.gz")
    assert content(first) == picture(7)


# --- several places -------------------------------------------------------------------------------------------------
def test_several_places_are_one_source(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(picture(9))
    (tmp_path / "list.txt").write_text("a/x.jpg\nb.zip\n")
    where = [tmp_path / "a", make_zip(tmp_path / "b.zip"), make_tar(tmp_path / "c.tar.gz"), tmp_path / "list.txt"]
    found, left_out = listed(*where, tmp_path / "empty")
    assert len(found) == 1 + 4 + 4 + 5 == count_sources(where)
    assert left_out == {str(tmp_path / "empty"): "holds no pictures"}
    with pytest.raises(UserError, match="nowhere does not exist"):
        list_sources([tmp_path / "a", tmp_path / "nowhere"])
    with pytest.raises(UserError, match="empty and 1 more holds no pictures"):
        list_sources([tmp_path / "empty", tmp_path / "empty"])


def test_a_table_of_pictures_in_archives_goes_back_in(tmp_path):
    where = [make_zip(tmp_path / "b.zip"), make_tar(tmp_path / "c.tar.gz"), make_tar(tmp_path / "d.tar", mode="w")]
    found, _ = listed(*where)
    names = [os.path.relpath(each.path, tmp_path) for each in found]
    (tmp_path / "list.csv").write_text("path\n" + "\n".join([*names, "b.zip/in/none.jpg", "none.zip/0.jpg"]))
    *again, no_member, no_archive = list_sources(tmp_path / "list.csv")
    assert again == found and [content(each) for each in again] == [*PICTURES.values()] * 3
    assert no_member.fault and no_archive.fault == "no such file"


# --- addresses ------------------------------------------------------------------------------------------------------
@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    store = Fetched(Limits(max_wait=5.0, retries=2, backoff=0.01, max_bytes=100_000, read_timeout=2.0))
    monkeypatch.setattr("fetching.single.fetched", lambda: store)
    with serving() as (server,):
        yield server


def test_pictures_archives_and_lists_come_from_addresses_once_each(server, tmp_path):
    server.serves("/a.jpg?size=large", picture(1))
    server.serves("/b", redirect("/a.jpg?size=large"))
    server.serves("/x/c.zip", make_zip(tmp_path / "c.zip").read_bytes())
    server.serves("/x/d.tar.gz", make_tar(tmp_path / "d.tar.gz").read_bytes())
    server.serves("/x/list.txt", f"../b\nc.zip\n{server.url}/a.jpg?size=large\n/etc/passwd\n".encode())
    (tmp_path / "mine.csv").write_text(f"path,score\n{server.url}/b,1\n")
    where = [f"{server.url}/{name}" for name in ("a.jpg?size=large", "x/d.tar.gz", "x/list.txt")]
    where.append(str(tmp_path / "mine.csv"))
    assert count_sources(where) == 1 + 4 + 7 + 1
    found, _ = listed(*where)
    assert [each.path for each in found[:2]] == [where[0], f"{where[1]}/in/0.jpg"]
    assert content(found[0]) == content(found[5]) == content(found[-1]) == picture(1)
    assert [content(each) for each in found[1:5]] == [content(each) for each in found[6:10]] == list(PICTURES.values())
    assert found[11].path == f"{server.url}/etc/passwd"  # an address, and no file of this machine
    assert max(server.counts.values()) == 2 and server.counts["/x/d.tar.gz"] == 1  # by itself, and as /b leads to it


def test_what_cannot_be_had_is_told_in_a_line(server):
    server.serves("/page.jpg", PAGE)
    server.serves("/large.jpg", lambda handler, times: handler.reply(b"x" * 100_001))
    server.serves("/busy.jpg", first_limited(2, lambda: "0"))
    server.serves("/silent.jpg", lambda handler, times: handler.cut())
    server.serves("/round.jpg", redirect("/round.jpg"))
    server.serves("/text.jpg", b"hello")
    server.serves("/fake.zip", b"hello")
    for name, says in {
        "gone.jpg": "cannot be fetched: HTTP 404 (gone)",
        "page.jpg": "a page, not a picture (placeholder)",
        "large.jpg": "cannot be fetched: more than 100000 bytes (too_large)",
        "silent.jpg": "cannot be fetched: connection broken (transient)",
        "round.jpg": "cannot be fetched: more than 5 redirects (gone)",
        "text.jpg": "no picture (undecodable)",
        "fake.zip": "no archive that is read",
        "gone.tar": "cannot be fetched: HTTP 404 (gone)",
        "gone.txt": "cannot be fetched: HTTP 404 (gone)",
    }.items():
        (source,) = list_sources(f"{server.url}/{name}")
        with pytest.raises(UnusablePicture) as fault:
            read(source)
        assert str(fault.value) == says
    (source,) = list_sources(f"{server.url}/busy.jpg")
    assert content(source) == picture() and server.counts["/busy.jpg"] == 3 and server.counts["/silent.jpg"] == 3
    assert server.counts["/gone.jpg"] == 1


def test_a_host_is_asked_for_a_few_at_a_time(server):
    pictures = [picture(number) for number in range(24)]

    def slow(handler, times: int) -> None:
        time.sleep(0.02)
        handler.reply(pictures[int(Path(handler.path).stem)])

    server.default = slow
    found = [each for number in range(24) for each in list_sources(f"{server.url}/{number}.jpg")]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(content, found)) == pictures
    assert 1 < server.most_active <= 4


def test_who_breaks_off_waits_for_no_silent_host_and_may_ask_again(server):
    asked, answers = threading.Event(), threading.Event()

    def silent(handler, times: int) -> None:
        asked.set()
        answers.wait(5)
        handler.reply(picture())

    server.serves("/a.jpg", silent)
    pictures = decoded(list_sources(f"{server.url}/a.jpg"), 64, num_workers=2)
    threading.Timer(0.1, lambda: asked.wait(5) and _thread.interrupt_main()).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(pictures)
    assert asked.is_set() and time.monotonic() - began < 2
    answers.set()
    (found,) = decoded(list_sources(f"{server.url}/a.jpg"), 64, num_workers=2)
    assert found.pixels is not None


# --- commands -------------------------------------------------------------------------------------------------------
def test_ranking_takes_them_all_and_says_what_it_could_not_have(server, ranker, tmp_path):
    server.serves("/good.jpg", picture(5))
    words = [make_zip(tmp_path / "a.zip"), f"{server.url}/good.jpg", f"{server.url}/gone.jpg"]
    output = ["--output", tmp_path / "ranks.csv", "--copy_top", 9, tmp_path / "best", "--page", tmp_path / "page.html"]
    fixed = ["--check_point", ranker, "--device", "cpu", "--no-amp", "--deterministic"]
    done = run_here("rank_images.py", *words, *output, *fixed)
    assert done.returncode == 0, done.stderr
    assert f"'{server.url}/gone.jpg': cannot be fetched: HTTP 404 (gone)\n" in done.stdout
    table = read_rows(tmp_path / "ranks.csv", ["path", "score"])
    assert len(table) == 5 and f"{server.url}/good.jpg" in set(table["path"])
    copies = {path.name[4:]: path.read_bytes() for path in (tmp_path / "best").iterdir()}
    assert copies == {"good.jpg": picture(5)} | {name[3:]: data for name, data in PICTURES.items()}
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 5
    done = run_here("rank_images.py", f"{server.url}/gone.jpg", "--output", tmp_path / "none.csv", *fixed)
    assert done.returncode == 2 and "none of the 1 pictures of" in done.stderr

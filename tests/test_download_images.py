"""The downloader against a server on loopback that misbehaves as the real ones do."""

from __future__ import annotations

import csv
import email.utils
import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from loopback_server import picture, serving
from PIL import Image

import download_images
import utils
import virality
from fetching import answers, workers
from fetching.addresses import direct_address
from fetching.ledger import locked

QUICK = ["--backoff", "0.05", "--retries", "2", "--read_timeout", "1", "--max_seconds", "2"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def make_folder(folder: Path, rows: list[tuple], header: str = "img_id,img_link,reddit_id,sha256") -> Path:
    """A data set with a manifest and nothing else."""
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / "datasets" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(folder: Path, *flags: object) -> list[str]:
    return [sys.executable, "download_images.py", "--data_path", str(folder), *map(str, flags)]


def download(folder: Path, *flags: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, *flags), cwd=utils.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def ledger(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "images" / "ledger.csv", newline="") as file:
        return {row["img_id"]: row for row in csv.DictReader(file)}


def without_time(folder: Path) -> list[dict[str, str]]:
    return [row | {"time": ""} for row in ledger(folder).values()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir() if path.name != "ledger.csv"}


# --- each way of failing ends in its status -------------------------------------------------------------------------
def reset_half_way(handler, times):
    handler.reply(picture()[:500], length=len(picture()))
    handler.cut()


def short_body(handler, times):
    handler.reply(picture()[:500], length=len(picture()))
    handler.close_connection = True


def endless(handler, times):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(50_000))


def trickle(handler, times):
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def animation() -> bytes:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    return file.getvalue()


def clear_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(file, "PNG")
    return file.getvalue()


def grey16() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 20), 128 * 256, dtype=np.uint16)).save(file, "PNG")
    return file.getvalue()


def first_limited(times_limited: int, retry_after):
    def answer(handler, times):
        if times < times_limited:
            return handler.reply(b"slow down", 429, Retry_After=retry_after())
        handler.reply(picture())

    return answer


def redirect(target: str, status: int = 302):
    return lambda handler, times: handler.reply(b"", status, Location=target)


PAGE = b"<!DOCTYPE html><html><body>We could not find that picture.</body></html>" + b" " * 3000
# img_id: what its address answers, the status it is to end in, how often the address may be asked
ANSWERS = {
    "fine": (picture(), "ok", 1),
    "http404": (lambda handler, times: handler.reply(b"", 404), "gone", 1),
    "http410": (lambda handler, times: handler.reply(b"", 410), "gone", 1),
    "http403": (lambda handler, times: handler.reply(b"", 403), "gone", 1),
    "http500": (lambda handler, times: handler.reply(b"", 500), "transient", 3),
    "http500_once": (lambda handler, times: handler.reply(picture(), 500 if times == 0 else 200), "ok", 2),
    "reset_half_way": (reset_half_way, "transient", 3),
    "reset_once": (
        lambda handler, times: handler.reply(picture()) if times else reset_half_way(handler, times),
        "ok",
        2,
    ),
    "short_body": (short_body, "transient", 3),
    "endless": (endless, "too_large", 1),
    "trickle": (trickle, "transient", 3),
    "too_long": (lambda handler, times: handler.reply(picture(), length=10**9), "too_large", 1),
    "zero_bytes": (b"", "undecodable", 1),
    "page": (PAGE, "placeholder", 1),
    "noise": (bytes(range(256)) * 8, "undecodable", 1),
    "redirect_loop": (redirect("/redirect_loop.jpg"), "gone", 6),
    "redirect": (redirect("/fine.jpg", 301), "ok", 1),
    "redirect_to_ftp": (redirect("ftp://127.0.0.1/a.jpg"), "gone", 1),
    "redirect_to_file": (redirect("file:///etc/hostname"), "gone", 1),
    "redirect_to_removed": (redirect("/removed.png"), "placeholder", 1),
    "png_named_jpg": (picture(kind="PNG"), "ok", 1),
    "palette_png": (picture(kind="PNG", mode="P"), "ok", 1),
    "clear_png": (clear_png(), "ok", 1),
    "grey16_png": (grey16(), "ok", 1),
    "cmyk_jpeg": (picture(mode="CMYK"), "ok", 1),
    "grey_jpeg": (picture(mode="L"), "ok", 1),
    "animation": (animation(), "ok", 1),
    "truncated": (picture(size=(200, 200))[:-3000], "undecodable", 1),
    "truncated_png": (picture(kind="PNG")[:-200], "undecodable", 1),
    "bomb": (bomb(), "too_large", 1),
    "never_answers": (lambda handler, times: time.sleep(8), "transient", 3),
    "limited_seconds": (first_limited(1, lambda: "1"), "ok", 2),
    "limited_date": (first_limited(1, lambda: email.utils.formatdate(time.time() + 2, usegmt=True)), "ok", 2),
    "limited": (first_limited(99, lambda: "0"), "rate_limited", 3),
    "limited_silently": (first_limited(1, lambda: "soon"), "ok", 2),
    "limited_for_long": (first_limited(99, lambda: "9999"), "rate_limited", 1),
}
LINKS = {
    "ftp_link": ("ftp://127.0.0.1/a.jpg", "gone"),
    "file_link": ("file:///etc/hostname", "gone"),
    "no_link": ("", "gone"),
    "no_address": ("http://[", "gone"),
    "refused": ("http://127.0.0.1:9/a.jpg", "transient"),
}
HASHES = {
    "hash_right": (hashlib.sha256(picture()).hexdigest(), "ok"),
    "hash_upper": (hashlib.sha256(picture()).hexdigest().upper(), "ok"),
    "hash_wrong": ("0" * 64, "changed"),
}


@pytest.fixture(scope="module")
def every_case(tmp_path_factory):
    """One run over all cases: its folder, result, and how often each address was asked."""
    with serving(len(ANSWERS)) as servers:  # each a host of its own: a pause or silence is the host's
        rows = []
        for server, (name, (answer, _, _)) in zip(servers, ANSWERS.items(), strict=True):
            rows.append((name, server.serves(f"/{name}.jpg", answer), "", ""))
            server.routes.setdefault("/fine.jpg", lambda handler, times: handler.reply(picture()))
        rows += [(name, link, "", "") for name, (link, _) in LINKS.items()]
        rows += [(name, f"{servers[0].url}/fine.jpg?{name}", "", expected) for name, (expected, _) in HASHES.items()]
        for name in HASHES:
            servers[0].serves(f"/fine.jpg?{name}", picture())
        folder = make_folder(tmp_path_factory.mktemp("cases"), rows)
        result = download(folder, *QUICK, "--max_bytes", 300_000, "--workers", 32, "--max_pixels", 4_000_000)
        asked = {name: s.counts[f"/{name}.jpg"] for s, name in zip(servers, ANSWERS, strict=True)}
    return folder, result, asked


def test_the_exit_status_says_that_a_rerun_would_help(every_case):
    folder, result, _ = every_case
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert set(ledger(folder)) == {*ANSWERS, *LINKS, *HASHES}


@pytest.mark.parametrize("name", [*ANSWERS, *LINKS, *HASHES])
def test_each_case_ends_in_its_status(every_case, name):
    folder, result, asked = every_case
    row = ledger(folder)[name]
    assert row["status"] == (ANSWERS | LINKS | HASHES)[name][1], row
    assert asked.get(name) == (ANSWERS[name][2] if name in ANSWERS else None)
    assert (row["status"] in ("ok", "changed")) == (folder / "images" / f"{name}.jpg").exists()
    if row["status"] not in ("ok", "changed"):
        assert row["error"] and not row["sha256"]


def test_nothing_that_is_not_whole_is_left(every_case):
    folder, _, _ = every_case
    for path in (folder / "images").iterdir():
        if path.name == "ledger.csv":
            continue
        row = ledger(folder)[path.stem]
        assert path.suffix == ".jpg" and utils.sha256(path) == row["sha256"]
        with Image.open(path) as image:
            image.load()
            assert (image.format, str(image.width), str(image.height)) == ("JPEG", row["width"], row["height"])
            assert image.mode in ("RGB", "L") and str(path.stat().st_size) == row["bytes"]


def test_jpegs_are_kept_byte_for_byte_and_others_become_jpeg(every_case):
    images = every_case[0] / "images"
    assert (images / "fine.jpg").read_bytes() == picture()
    assert (images / "grey_jpeg.jpg").read_bytes() == picture(mode="L")
    middle = {
        name: Image.open(images / f"{name}.jpg").getpixel((10, 10)) for name in ("animation", "clear_png", "grey16_png")
    }
    assert np.allclose(middle["animation"], (255, 0, 0), atol=4)  # the first frame
    assert np.allclose(middle["clear_png"], 255, atol=2)
    assert np.allclose(middle["grey16_png"], 128, atol=2)
    sent = np.asarray(Image.open(io.BytesIO(picture())), dtype=float)
    kept = np.asarray(Image.open(images / "png_named_jpg.jpg"), dtype=float)
    assert kept.shape == sent.shape and np.abs(kept - sent).mean() < 30


def test_the_ledger_says_what_answered(every_case):
    rows = ledger(every_case[0])
    assert rows["redirect"]["url"].endswith("/fine.jpg") and rows["redirect"]["http_status"] == "200"
    assert rows["http410"]["http_status"] == "410" and rows["http410"]["source"] == "link"
    assert rows["short_body"]["error"] == "body shorter than its length"
    assert all(row["time"].endswith("+00:00") for row in rows.values())


def test_the_table_and_survivors_count_every_picture(every_case):
    folder, result, _ = every_case
    survivors = json.loads((folder / "survivors.json").read_text())
    rows = ledger(folder)
    here = sorted(name for name, row in rows.items() if row["status"] in ("ok", "changed"))
    assert survivors["expected"] == len(rows) and survivors["survivors"] == len(here)
    assert survivors["sha256"] == hashlib.sha256("".join(f"{name}\n" for name in here).encode()).hexdigest()
    assert sum(survivors["statuses"].values()) == len(rows) and survivors["statuses"]["changed"] == 1
    table = next(line for line in result.stdout.splitlines() if line.startswith("all "))
    assert table.split()[-1] == str(len(rows))


def test_imgurs_placeholder_is_known_by_its_md5(tmp_path, monkeypatch):
    grey = picture(kind="PNG", size=(16, 8))
    monkeypatch.setattr(answers, "PLACEHOLDERS", {hashlib.md5(grey).hexdigest()})
    with serving() as [server]:
        folder = make_folder(tmp_path, [("1", server.serves("/a.jpg", grey), "", "")])
        assert in_process(monkeypatch, folder) == 0
    assert ledger(folder)["1"]["status"] == "placeholder" and not files(folder)


def in_process(monkeypatch, folder: Path, *flags: object) -> int:
    monkeypatch.setattr(sys, "argv", command(folder, *QUICK, *flags)[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return download_images.main()


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
    ],
)
def test_the_picture_behind_a_page_of_imgurs(url, direct):
    assert direct_address(url, "I") == direct


# --- runs that end early, and runs again ----------------------------------------------------------------------------
def test_a_rerun_asks_only_for_what_it_may_help(tmp_path, monkeypatch):
    with serving() as [server]:
        statuses = {"ok": 200, "gone": 404, "transient": 503}
        for name, status in statuses.items():
            server.serves(f"/{name}.jpg", lambda handler, times, status=status: handler.reply(picture(), status))
        folder = make_folder(tmp_path, [(name, f"{server.url}/{name}.jpg", "", "") for name in statuses])
        assert in_process(monkeypatch, folder, "--retries", 0) == 1
        assert in_process(monkeypatch, folder, "--retries", 0) == 1
        assert dict(server.counts) == {"/ok.jpg": 1, "/gone.jpg": 1, "/transient.jpg": 2}
        server.serves("/transient.jpg", picture())
        assert in_process(monkeypatch, folder, "--retry", "gone") == 0
        assert dict(server.counts) == {"/ok.jpg": 1, "/gone.jpg": 2, "/transient.jpg": 3}
        (folder / "images" / "ok.jpg").unlink()  # lost since: to be had again
        assert in_process(monkeypatch, folder) == 0
        assert server.counts["/ok.jpg"] == 2 and server.counts["/transient.jpg"] == 3


def kill_again_and_again(tmp_path: Path, number: int, kills: int) -> tuple[int, list[str]]:
    """Download `number` pictures with `kills` kills -9 at random moments. How many kills fell into the run itself, and
    the pictures that were asked for although they had been in the ledger, or on disk."""
    rng = random.Random(0)
    with serving() as [server]:

        def answer(handler, times):
            name = int(handler.path.strip("/").split(".")[0])
            time.sleep(0.01)
            if name % 10 == 7:
                return handler.reply(b"", 404)
            if name % 10 == 8 and times % 2 == 0:
                return handler.reply(b"", 500)
            handler.reply(picture(name, kind="PNG" if name % 10 == 5 else "JPEG"))

        server.default = answer
        rows = [(n, f"{server.url}/{n}.jpg", "", "") for n in range(number)]
        undisturbed, killed = make_folder(tmp_path / "a", rows), make_folder(tmp_path / "b", rows)
        assert download(undisturbed, *QUICK).returncode == 0
        whole = server.log[-1][0] - server.log[0][0]
        server.counts.clear()
        hit, again = 0, []
        for kill in range(kills + 1):
            had = set()
            if (killed / "images" / "ledger.csv").exists():
                text = (killed / "images" / "ledger.csv").read_text().rpartition("\n")[0]
                had = {row["img_id"] for row in csv.DictReader(io.StringIO(text)) if row["status"] in ("ok", "gone")}
                had |= {path.stem for path in (killed / "images").glob("*.jpg")}
            before = server.counts.copy()
            run = subprocess.Popen(
                command(killed, *QUICK),
                cwd=utils.ROOT,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            if kill == kills:
                assert run.wait(300) == 0, run.stderr.read().decode()
            else:
                while server.counts == before and run.poll() is None:
                    time.sleep(0.01)  # start-up is not a moment of the run
                time.sleep(rng.uniform(0, 1.5 * whole / (kills + 1)))
                hit += run.poll() is None
                run.send_signal(signal.SIGKILL)
                run.wait()
                assert all(whole_jpeg(path) for path in (killed / "images").glob("*.jpg"))
            run.stderr.close()
            asked = {path.strip("/").split(".")[0] for path in (server.counts - before)}
            again += sorted(asked & had)
        assert without_time(killed) == without_time(undisturbed)
        assert files(killed) == files(undisturbed)
        assert json.loads((killed / "survivors.json").read_text()) == json.loads(
            (undisturbed / "survivors.json").read_text()
        )
    return hit, again


def whole_jpeg(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
    return True


def test_kill_9_loses_nothing(tmp_path):
    hit, again = kill_again_and_again(tmp_path, 300, 5)
    assert hit >= 2 and again == []


@pytest.mark.slow
def test_kill_9_at_twenty_moments_of_two_thousand_pictures(tmp_path):
    hit, again = kill_again_and_again(tmp_path, 2000, 20)
    print(f"{hit} of 20 kills fell into a run; pictures asked for again: {again}")
    assert hit >= 10 and again == []


def test_ctrl_c_leaves_whole_files_and_says_130(tmp_path):
    def slow(handler, times):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(picture())))
        handler.end_headers()
        handler.wfile.write(picture()[:200])
        time.sleep(0.1)
        handler.wfile.write(picture()[200:])

    with serving() as [server]:
        server.default = slow
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(400)])
        run = subprocess.Popen(
            command(folder),
            cwd=utils.ROOT,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        while sum(server.counts.values()) < 30:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 130 and "Traceback" not in errors, errors
        rows = ledger(folder)
        assert 0 < len(rows) < 400 and set(files(folder)) == {f"{name}.jpg" for name in rows}
        assert json.loads((folder / "survivors.json").read_text())["survivors"] == len(rows)
        before = server.counts.copy()
        server.default = lambda handler, times: handler.reply(picture())
        assert download(folder).returncode == 0
        assert not {f"/{name}.jpg" for name in rows} & set(server.counts - before)
        assert len(files(folder)) == 400


def test_a_rename_that_a_kill_prevented_is_made_up_for(tmp_path, monkeypatch):
    with serving() as [server]:
        server.default = lambda handler, times: handler.reply(picture())
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in (1, 2, 3)])
        assert in_process(monkeypatch, folder) == 0
        images, rows = folder / "images", without_time(folder)
        (images / "1.jpg").rename(images / "1.part")  # killed after the ledger's line
        text = (images / "ledger.csv").read_text()
        (images / "2.jpg").rename(images / "2.part")  # killed in the middle of the ledger's line
        lines = [line for line in text.splitlines() if not line.startswith("2,")]
        (images / "ledger.csv").write_text("\n".join([*lines, "2,ok,link,http://127"]))
        (images / "4.part").write_bytes(b"half")
        assert in_process(monkeypatch, folder) == 0
        assert dict(server.counts) == {"/1.jpg": 1, "/2.jpg": 2, "/3.jpg": 1}
        assert without_time(folder) == rows and set(files(folder)) == {"1.jpg", "2.jpg", "3.jpg"}


# --- the command ----------------------------------------------------------------------------------------------------
@pytest.fixture
def ten(tmp_path, monkeypatch):
    """Ten pictures, downloaded."""
    with serving() as [server]:
        server.default = lambda handler, times: handler.reply(picture())
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(1, 11)])
        assert in_process(monkeypatch, folder) == 0
        yield folder, server


def test_verify_only_names_what_is_missing_or_changed(ten, monkeypatch, capsys):
    folder, server = ten
    before = server.counts.copy()
    assert in_process(monkeypatch, folder, "--verify_only") == 0
    (folder / "images" / "3.jpg").write_bytes(picture(9))
    (folder / "images" / "10.jpg").unlink()
    capsys.readouterr()
    assert in_process(monkeypatch, folder, "--verify_only") == 1
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines == [
        f"changed {folder / 'images' / '3.jpg'}",
        f"missing {folder / 'images' / '10.jpg'}",
        "10 files in the ledger, 2 missing or changed",
    ]
    assert server.counts == before


def test_dry_run_asks_nobody_and_writes_nothing(tmp_path, monkeypatch, capsys):
    with serving() as [server]:
        folder = make_folder(tmp_path / "a", [(n, f"{server.url}/{n}.jpg", "", "") for n in range(7)])
        assert in_process(monkeypatch, folder, "--dry_run", "--num_images", 5) == 0
        assert "would fetch 5 of the 5 pictures" in capsys.readouterr().out
        assert not server.counts and not (folder / "images").exists()
        assert in_process(monkeypatch, tmp_path / "b", "--dry_run") == 0
        assert "redditSubmissions.csv.gz" in capsys.readouterr().out and not (tmp_path / "b").exists()


def test_a_larger_sample_contains_a_smaller_one(tmp_path, monkeypatch):
    with serving() as [server]:
        server.default = lambda handler, times: handler.reply(picture())
        folder = make_folder(tmp_path, [(n, f"{server.url}/{n}.jpg", "", "") for n in range(60)])
        assert in_process(monkeypatch, folder, "--num_images", 10) == 0
        ten = set(files(folder))
        assert len(ten) == 10 and ten != {f"{n}.jpg" for n in range(10)}  # not the least viral
        assert in_process(monkeypatch, folder, "--num_images", 20) == 0
        assert len(files(folder)) == 20 and ten < set(files(folder))
        assert max(server.counts.values()) == 1
        survivors = json.loads((folder / "survivors.json").read_text())
        assert (survivors["expected"], survivors["survivors"], survivors["statuses"]["not_tried"]) == (60, 20, 40)


def test_subreddits_choose_the_pictures_mostly_submitted_there(tmp_path, monkeypatch, capsys):
    submitted = {0: "aww aww funny", 1: "funny WTF", 2: "WTF", 3: "aww funny", 4: "Aww"}
    with serving() as [server]:
        server.default = lambda handler, times: handler.reply(picture())
        folder = make_folder(tmp_path, [(10 + n, f"{server.url}/{10 + n}.jpg", "", "") for n in submitted])
        make_submissions(folder / "deza2015", submitted)
        for name in download_images.DEZA_FILES:  # that are not looked into: else they would be fetched
            (folder / "deza2015" / name).parent.mkdir(exist_ok=True)
            (folder / "deza2015" / name).touch()
        (folder / download_images.SNAP_FILE).touch()
        assert in_process(monkeypatch, folder, "--subreddits", "AWW", "--dry_run") == 0
        assert "would fetch 2 of the 2 pictures" in capsys.readouterr().out
        assert in_process(monkeypatch, folder, "--subreddits", "aww") == 0
        assert set(files(folder)) == {"10.jpg", "14.jpg"}  # half of 3's submissions are not most of them
        assert in_process(monkeypatch, folder, "--subreddits", "aww", "funny", "--num_images", 2) == 0
        assert len(set(files(folder)) - {"10.jpg", "14.jpg"}) <= 2 and "11.jpg" not in files(folder)
        assert in_process(monkeypatch, folder, "--subreddits", "aww", "funny") == 0
        assert set(files(folder)) == {"10.jpg", "13.jpg", "14.jpg"}
    with pytest.raises(utils.UserError, match="--subreddits awww: no picture was submitted there"):
        in_process(monkeypatch, folder, "--subreddits", "aww", "awww")
    with pytest.raises(utils.UserError, match="--subreddits funny: no picture went mostly there"):
        in_process(monkeypatch, folder, "--subreddits", "funny")


def make_submissions(folder: Path, submitted: dict[int, str]) -> None:
    """Deza & Parikh's lists and table for images of these SNAP_ids, submitted so; each img_id is its SNAP_id + 10."""
    folder.mkdir()
    rows = [(image, community) for image, names in submitted.items() for community in names.split()]
    lists = {"img_id": [image for image, _ in rows], "subreddit": [community for _, community in rows]}
    for name in ("img_hash", "img_score", "img_comments", "authenticated_shift_score"):
        lists[name] = range(len(rows))
    for name, values in lists.items():
        (folder / f"{name}.csv").write_text("".join(f"{value}\n" for value in values))
    table = {column: np.zeros(len(submitted)) for column in virality.TABLE_COLUMNS}
    table |= {"SNAP_id": np.array(list(submitted)), "img_id": 10 + np.array(list(submitted))}
    scipy.io.savemat(folder / "viral_datasetV2.mat", {"viral_dataset": table})


def test_subreddits_of_a_data_set_of_ones_own_are_not_known(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, [(1, "http://127.0.0.1:9/1.jpg", "", "")])
    with pytest.raises(utils.UserError, match="--subreddits: .*deza2015, which says where .* is not here"):
        in_process(monkeypatch, folder, "--subreddits", "aww")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--subreddits"], "--subreddits"),
        (["--retry", "ok"], "--retry"),
        (["--workers", "0"], "--workers"),
        (["--max_seconds", "nan"], "--max_seconds"),
        (["--contact", "a\nb"], "--contact"),
        (["--num_images", "many"], "--num_images"),
    ],
)
def test_wrong_flags_are_named(tmp_path, monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        in_process(monkeypatch, tmp_path, *flags)
    assert end.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("img_id,link\n1,http://a/\n", "manifest.csv has no column img_link"),
        ("img_id,img_link\n1,http://a/\n1,http://b/\n", "manifest.csv, line 3: the img_id '1' is there twice"),
        ("img_id,img_link\n../x,http://a/\n", "line 2: the img_id '../x' cannot be a file's name"),
        ("", "manifest.csv is empty"),
    ],
)
def test_an_unusable_manifest_is_one_line_and_2(tmp_path, manifest, message):
    folder = make_folder(tmp_path, [])
    (folder / "datasets" / "manifest.csv").write_text(manifest)
    result = download(folder)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and message in result.stderr


def test_other_unusable_input_is_named(ten, tmp_path, monkeypatch):
    folder, _ = ten
    with pytest.raises(utils.UserError, match="nothing has been downloaded"):
        in_process(monkeypatch, folder / "datasets", "--verify_only")
    (tmp_path / "file").write_text("")
    with pytest.raises(utils.UserError, match="--data_path"):
        in_process(monkeypatch, tmp_path / "file")
    with (
        locked(folder / "images"),
        pytest.raises(utils.UserError, match="another run is downloading into"),
    ):
        in_process(monkeypatch, folder)
    path = folder / "images" / "ledger.csv"
    path.write_text(path.read_text() + "11,perhaps\n")
    with pytest.raises(utils.UserError, match="ledger.csv, line 12 is not a line of a ledger: 11,perhaps"):
        in_process(monkeypatch, folder)


def test_a_full_disk_is_one_line(ten, monkeypatch):
    folder, _ = ten
    (folder / "images" / "1.jpg").unlink()

    def full(pieces, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(answers, "save", full)
    with pytest.raises(utils.UserError, match=r"1\.part: No space left on device"):
        in_process(monkeypatch, folder)


# --- metadata -------------------------------------------------------------------------------------------------------
SNAP_HEADER = b"#image_id,unixtime,rawtime,title,total_votes,reddit_id\n"


def publish(server, folder: Path, submissions: bytes) -> list[str]:
    """Serve the published files as SNAP and Deza & Parikh do. The flags that say where."""
    server.serves("/snap/redditSubmissions.csv.gz", submissions)
    for name, (path, _) in download_images.DEZA_FILES.items():
        server.serves(f"/deza/{path}", (folder / "deza2015" / name).read_bytes())
    return ["--snap_url", f"{server.url}/snap", "--deza_url", f"{server.url}/deza", "--metadata_only"]


def test_the_metadata_and_the_manifest(tmp_path, monkeypatch, capsys, real_data):
    with serving() as [server]:
        flags = publish(server, real_data, gzip.compress(SNAP_HEADER))
        assert in_process(monkeypatch, tmp_path, *flags) == 0
        published = {path.relative_to(real_data) for path in (real_data / "deza2015").rglob("*") if path.is_file()}
        for path in published:
            assert (tmp_path / path).read_bytes() == (real_data / path).read_bytes()
        here = {path.relative_to(tmp_path) for path in (tmp_path / "deza2015").rglob("*") if path.is_file()}
        assert here == published
        assert "not the file known" not in capsys.readouterr().err
        manifest = download_images.read_manifest(tmp_path / "datasets" / "manifest.csv").set_index("img_id")
        assert len(manifest) == 10_078
        assert manifest["img_link"]["8773"].endswith("/8773.jpg") and len(manifest["reddit_id"]["8773"].split()) >= 20
        assert not (manifest["reddit_id"] == "").any()
        # What is there is not asked for again; what is lacking is.
        (tmp_path / "deza2015" / "img_id.csv").unlink()
        server.counts.clear()
        assert in_process(monkeypatch, tmp_path, *flags) == 0
        assert dict(server.counts) == {"/deza/Create_Dataset_Code/img_id.csv": 1}


@pytest.mark.parametrize(
    ("submissions", "status"),
    [
        (PAGE, "undecodable"),
        (gzip.compress(SNAP_HEADER * 999, mtime=0)[:-5], "undecodable"),
        (gzip.compress(b"something else", mtime=0), "undecodable"),
    ],
    ids=["a page", "gzip cut off", "gzip of something else"],  # bytes as names differ from process to process
)
def test_metadata_that_is_not_what_it_should_be(tmp_path, monkeypatch, capsys, submissions, status):
    with serving() as [server]:
        server.serves("/snap/redditSubmissions.csv.gz", submissions)
        server.serves("/deza/Create_Dataset_Code/img_id.csv", b"0\n0\n")
        flags = ["--snap_url", f"{server.url}/snap", "--deza_url", f"{server.url}/deza", "--metadata_only"]
        assert in_process(monkeypatch, tmp_path, *flags) == 1
    errors = capsys.readouterr().err
    assert f"error: redditSubmissions.csv.gz: {status}" in errors
    assert "error: deza2015/viral_datasetV2.mat: gone, HTTP 404" in errors and "cannot be written" in errors
    assert "img_id.csv is not the file known from its publication" in errors
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()].count("img_id.csv") == 1
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "redditSubmissions.csv.gz").exists()

"""Runs that end early, and runs again: whatever the moment of a kill, nothing is lost, torn or asked for twice."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from downloads import ENVIRONMENT, QUICK, command, download, files, in_process, ledger, make_folder, without_time
from loopback_server import picture, serving
from PIL import Image

import utils


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
            if name % 10 in (3, 7):
                return handler.reply(b"", 403 if name % 10 == 3 else 404)
            if name % 10 == 8 and times % 2 == 0:
                return handler.reply(b"", 500)
            body = picture(name, kind="PNG" if name % 10 == 5 else "JPEG")
            if name % 10 == 6:
                return handler.reply(gzip.compress(body), Content_Encoding="gzip")
            handler.reply(body)

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
def test_kill_9_at_thirty_moments_of_two_thousand_pictures(tmp_path):
    hit, again = kill_again_and_again(tmp_path, 2000, 30)
    print(f"{hit} of 30 kills fell into a run; pictures asked for again: {again}")
    assert hit >= 15 and again == []


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

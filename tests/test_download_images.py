"""The downloader's command: flags, manifest, metadata, and what is said of unusable input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from downloads import ENVIRONMENT, command, download, files, in_process, make_folder
from loopback_server import PAGE, picture, serving

import download_images
import utils
import virality
from fetching import answers
from locks import alone


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
    with pytest.raises(utils.UserError, match="--subreddits funny: no picture has most of its submissions there"):
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
    with pytest.raises(utils.UserError, match="--subreddits needs .*deza2015, which says where .* does not exist"):
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
        alone(folder / "images" / "ledger.csv"),
        pytest.raises(utils.UserError, match="images/ledger.csv: another run is writing it"),
    ):
        in_process(monkeypatch, folder)
    path = folder / "images" / "ledger.csv"
    path.write_text(path.read_text() + "11,perhaps\n")
    with pytest.raises(utils.UserError, match="ledger.csv, line 12 is not a valid line of a ledger: 11,perhaps"):
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


def encoded(body: bytes, encoding: str):
    def answer(handler, times):
        handler.reply(body, Content_Encoding=encoding)

    return answer


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_metadata_that_comes_in_an_encoding_is_kept_whole(tmp_path, monkeypatch, capsys, real_data, encoding):
    compress = zlib.compress if encoding == "deflate" else gzip.compress
    with serving() as [server]:
        flags = publish(server, real_data, b"")
        for name, (path, _) in download_images.DEZA_FILES.items():
            server.serves(f"/deza/{path}", encoded(compress((real_data / "deza2015" / name).read_bytes()), encoding))
        submissions = gzip.compress(SNAP_HEADER * 50_000, mtime=0)
        server.serves("/snap/redditSubmissions.csv.gz", encoded(compress(submissions), encoding))
        assert in_process(monkeypatch, tmp_path, *flags) == 0
        for name in download_images.DEZA_FILES:
            assert (tmp_path / "deza2015" / name).read_bytes() == (real_data / "deza2015" / name).read_bytes()
        assert (tmp_path / download_images.SNAP_FILE).read_bytes() == submissions
        # A server may declare the .gz itself as an encoding, of which nothing is to be undone.
        (tmp_path / download_images.SNAP_FILE).unlink()
        server.serves("/snap/redditSubmissions.csv.gz", encoded(submissions, encoding))
        assert in_process(monkeypatch, tmp_path, *flags) == 0
        assert (tmp_path / download_images.SNAP_FILE).read_bytes() == submissions


def test_metadata_that_is_not_the_published_is_kept_apart_and_counts_as_lacking(
    tmp_path, monkeypatch, capsys, real_data
):
    names = ("img_id.csv", "pair_matrix.mat", "attributes/unique_250.mat")
    with serving() as [server]:
        flags = publish(server, real_data, gzip.compress(SNAP_HEADER))
        others = {name: (real_data / "deza2015" / name).read_bytes() + b"\0" for name in names}
        for name, data in others.items():
            server.serves(f"/deza/{download_images.DEZA_FILES[name][0]}", data)
        assert in_process(monkeypatch, tmp_path, *flags) == 1
        errors = capsys.readouterr().err
        for name, data in others.items():
            path = tmp_path / "deza2015" / name
            assert f"error: deza2015/{name}: changed, {path.name} is not the file known from its" in errors
            assert not path.exists() and (path.parent / "unverified" / path.name).read_bytes() == data
        assert not (tmp_path / "datasets" / "manifest.csv").exists()
        publish(server, real_data, gzip.compress(SNAP_HEADER))  # mended there
        assert in_process(monkeypatch, tmp_path, *flags) == 0
        assert (tmp_path / "datasets" / "manifest.csv").exists()


# --- a second run ---------------------------------------------------------------------------------------------------
def test_a_second_run_is_kept_out_without_fcntl_too(ten):
    folder, _ = ten
    without = "import sys; sys.modules['fcntl'] = None; "  # as on Windows
    hold = f"{without}import locks\nwith locks.alone(sys.argv[1]): print('held', flush=True); input()"
    run = f"{without}import download_images as d; d.run_main(d.main)"
    download = [sys.executable, "-c", run, *command(folder)[2:]]
    options = {"cwd": utils.ROOT, "env": ENVIRONMENT, "text": True}
    words = [sys.executable, "-c", hold, str(folder / "images" / "ledger.csv")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, **options) as holder:
        assert holder.stdout.readline() == "held\n"
        second = subprocess.run(download, capture_output=True, timeout=60, **options)
        assert second.returncode == 2 and "ledger.csv: another run is writing it" in second.stderr.splitlines()[-1]
        holder.kill()
    after = subprocess.run(download, capture_output=True, timeout=60, **options)
    assert after.returncode == 0 and "10 of 10 pictures are here" in after.stdout, after.stderr

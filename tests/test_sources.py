"""Where pictures come from, and decoding them ahead."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoding.decoder import TRUNCATED, UnusablePicture
from pictures.left_out import LeftOut
from pictures.sources import CHUNK, PICTURE_SUFFIXES, Source, count_sources, decoded, list_sources, of_upload, read
from utils import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "in/c.webp"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    (folder / "d.jpg").write_text("<html>gone</html>")
    return folder


def listed(source: object) -> tuple[list[str], dict[str, str]]:
    """The paths of the pictures, and of what is left out, with the reason; all from the source's folder."""
    left_out, base = {}, os.path.dirname(source) if os.path.isfile(source) else source
    found = [os.path.relpath(each.path, base) for each in list_sources(source, left_out.__setitem__)]
    return found, {os.path.relpath(path, base): reason for path, reason in left_out.items()}


def jpeg(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "JPEG")
    return file.getvalue()


def colour_of(source: Source) -> str:
    return ("red", "green", "blue")[int(np.argmax(np.asarray(read(source))[5, 5]))]


def make_tar(path: Path, *members: tuple, mode: str = "w") -> Path:
    """Members are (name, content), or (name, type of link, where it leads)."""
    with tarfile.open(path, mode) as tar:
        for name, *what in members:
            member = tarfile.TarInfo(name)
            if len(what) == 2:
                member.type, member.linkname = what
                tar.addfile(member)
            else:
                member.size = len(what[0])
                tar.addfile(member, io.BytesIO(what[0]))
    return path


# --- folders --------------------------------------------------------------------------------------------------------
def test_a_folder_is_listed_by_name_files_before_folders(folder):
    assert listed(folder) == (["a.jpg", "b.png", "d.jpg", "in/c.webp"], {})
    assert count_sources(folder) == 4


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES) + [".JPE", ".Jfif", ".HEIC"])
def test_every_suffix_of_a_picture_is_one(tmp_path, suffix):
    (tmp_path / f"picture{suffix}").write_bytes(jpeg())
    assert listed(tmp_path) == ([f"picture{suffix}"], {})


@pytest.mark.parametrize("name", ["no_suffix", "photo.jpg_large", "picture.1", "odd.😀"])
def test_a_file_of_another_name_is_a_picture_where_its_bytes_say_so(tmp_path, name):
    (tmp_path / name).write_bytes(jpeg())
    (tmp_path / "not_this").write_bytes(b"some words")
    assert listed(tmp_path) == ([name], {"not_this": "no picture (without a suffix)"})


def test_hidden_files_and_folders_and_thumbnails_are_left_out_and_told(folder):
    for name in (".hidden.jpg", "._a.jpg", ".thumbnails/a.jpg", "@eaDir/a.jpg", "__MACOSX/._a.jpg", "in/.git/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a.jpg", folder / name)
    found, left_out = listed(folder)
    assert found == ["a.jpg", "b.png", "d.jpg", "in/c.webp"]
    assert left_out == {
        **{name: "a hidden file" for name in (".hidden.jpg", "._a.jpg")},
        **{name: "a hidden folder" for name in (".thumbnails", "in/.git")},
        **{name: "a folder of thumbnails" for name in ("@eaDir", "__MACOSX")},
    }


def test_a_hidden_folder_that_one_names_is_listed(folder):
    shutil.copytree(folder, folder / ".mine")
    assert listed(folder / ".mine")[0] == ["a.jpg", "b.png", "d.jpg", "in/c.webp"]


def test_what_is_no_picture_is_told_with_its_kind(folder):
    (folder / "table.csv").write_text("a,b")
    (folder / "page.xhtml").write_text("<html>")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "poster.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    (folder / "photo.nef").write_bytes(b"II*\0")
    (folder / "photo.jpg.part").write_bytes(jpeg())
    (folder / "more.tar.gz").write_bytes(gzip.compress(b"a tar"))
    with zipfile.ZipFile(folder / "text.docx", "w") as archive:
        archive.writestr("word/media/a.jpg", jpeg())
    found, left_out = listed(folder)
    assert found == ["a.jpg", "b.png", "d.jpg", "in/c.webp"]
    assert left_out == {
        "table.csv": "no picture (.csv)",
        "page.xhtml": "no picture (.xhtml)",
        "drawing.svg": "SVG, which is not read",
        "poster.eps": "PostScript, which is never run",
        "photo.nef": "a camera's raw picture (.nef)",
        "photo.jpg.part": "unfinished (.part)",
        "more.tar.gz": "an archive (gzip), to be unpacked first",
        "text.docx": "an archive (zip), to be unpacked first",
    }


def test_links_are_followed_and_into_no_folder_twice(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "a.jpg", other / "x.jpg")
    (folder / "elsewhere").symlink_to(other)
    (folder / "in" / "round").symlink_to(folder)
    (folder / "again").symlink_to(folder / "in")
    (folder / "file.jpg").symlink_to(other / "x.jpg")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found, left_out = listed(folder)
    assert found == ["a.jpg", "b.png", "d.jpg", "file.jpg", "in/c.webp", "elsewhere/x.jpg"]
    assert left_out == {
        "gone.jpg": "a link to what is not there",
        "in/round": "a link to a folder that is listed",
        "again": "a link to a folder that is listed",
    }
    (tmp_path / "link").symlink_to(folder)
    assert listed(tmp_path / "link")[0] == found


def test_twelve_hundred_nested_folders_are_listed(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").write_bytes(jpeg())
    finally:
        os.chdir(here)
    try:
        (source,) = list_sources(tmp_path)
        assert source.path.endswith("d/deep.jpg") and colour_of(source) == "red"
    finally:
        for _ in range(1200):  # shutil.rmtree recurses
            os.rename(tmp_path / "d", tmp_path / "taken")
            os.rename(tmp_path / "taken" / "d", tmp_path / "d") if (tmp_path / "taken" / "d").exists() else None
            shutil.rmtree(tmp_path / "taken")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(folder, tmp_path):
    for name in ("pipe.jpg", "pipe.tar", "pipe"):
        os.mkfifo(folder / name)
        with pytest.raises(UserError, match="cannot|neither") if name == "pipe" else pytest.raises(UnusablePicture):
            read(next(list_sources(folder / name)))
    assert listed(folder)[1] == dict.fromkeys(("pipe.jpg", "pipe.tar", "pipe"), "not a file")


def test_a_folder_that_cannot_be_opened_is_a_fault(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("in"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [each.fault for each in list_sources(folder)][-1] == "the folder cannot be opened: Permission denied"


# --- lists ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-8-sig"),  # the editor of Windows
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),  # its shell
        lambda text: "\ufeff".encode("utf-16-be") + text.encode("utf-16-be"),
        lambda text: "\n".join(f'"{line}"' for line in text.split("\n") if line).encode(),
        lambda text: "\n".join(f"  {line} " for line in text.split("\n")).encode(),
        lambda text: ("label,path\n" + "".join(f"x,{line}\n" for line in text.split("\n"))).encode("utf-8-sig"),
    ],
)
def test_a_list_names_its_pictures_in_any_common_form(folder, tmp_path, encode):
    names = [str(folder / "a.jpg"), str(folder / "in" / "c.webp"), str(folder / "ü 日本.jpg")]
    shutil.copy(folder / "a.jpg", names[2])
    name = "list.csv" if b"label," in encode("") else "list.txt"
    (tmp_path / name).write_bytes(encode("\n".join(names) + "\n"))
    assert [each.path for each in list_sources(tmp_path / name)] == names
    assert count_sources(tmp_path / name) == 3


def test_a_lists_names_are_from_here_or_from_where_it_lies(folder):
    (folder / "list.txt").write_text("a.jpg\nin\nnothing.jpg\n")
    found = list(list_sources(folder / "list.txt"))
    assert [each.path for each in found] == [str(folder / "a.jpg"), str(folder / "in/c.webp"), "nothing.jpg"]
    assert found[2].fault == "no such file"


@pytest.mark.parametrize("name", [" leads.jpg", "trails .jpg ", "it's.jpg", '"quoted".jpg', "#1.jpg"])
def test_odd_names_in_a_list_are_taken_as_they_stand(folder, name):
    shutil.copy(folder / "a.jpg", folder / name)
    (folder / "list.txt").write_text(f"{name}\n")
    assert [each.path for each in list_sources(folder / "list.txt")] == [str(folder / name)]


@pytest.mark.parametrize("name", ["=1+1.jpg", "@SUM(1).jpg", "-1+1.jpg", "+1.jpg", "\t=1.jpg"])
def test_no_path_is_a_formula(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copy("a.jpg", name)
    Path("list.txt").write_text(f"{name}\n")
    for source in ("list.txt", name):
        (found,) = list_sources(source)
        assert found.path == f"./{name}" and read(found).size == (70, 50)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("binary", bytes(100), "neither a folder, a tar, a picture nor a text list"),
        ("utf16.txt", b"\xff\xfea", "UTF-16"),
        ("more.tar.gz", gzip.compress(b"a tar", mtime=0), r"an archive \(gzip\): unpack it"),
        (
            "more.7z",
            b"7z\xbc\xaf\x27\x1c" + bytes(40),
            r"an archive \(7z\): unpack it, or make a \.tar",
        ),
        ("empty.txt", b"\n\n", "holds no pictures"),
    ],
)
def test_what_is_no_source_is_told_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        list(list_sources(tmp_path / name))


# --- tars -----------------------------------------------------------------------------------------------------------
def test_of_members_of_one_name_the_last_counts(tmp_path):
    tar = make_tar(tmp_path / "t.tar", ("1.jpg", jpeg("red")), ("2.jpg", jpeg("lime")))
    make_tar(tar, ("1.jpg", jpeg("blue")), mode="a")
    found, left_out = listed(tar)
    assert sorted(found) == ["t.tar/1.jpg", "t.tar/2.jpg"]
    assert left_out == {"t.tar/1.jpg": "replaced by a later member of its name"}
    assert {Path(each.path).name: colour_of(each) for each in list_sources(tar)} == {"1.jpg": "blue", "2.jpg": "green"}


def test_links_in_a_tar_lead_to_its_members(tmp_path):
    tar = make_tar(
        tmp_path / "t.tar",
        ("a/1.jpg", jpeg("red")),
        ("b/2.jpg", jpeg("blue")),
        ("hard.jpg", tarfile.LNKTYPE, "a/1.jpg"),
        ("a/beside.jpg", tarfile.SYMTYPE, "1.jpg"),
        ("a/across.jpg", tarfile.SYMTYPE, "../b/2.jpg"),
        ("twice.jpg", tarfile.SYMTYPE, "a/across.jpg"),
        ("out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("round.jpg", tarfile.SYMTYPE, "round.jpg"),
    )
    left_out = {}
    found = {each.path: colour_of(each) for each in list_sources(tar, left_out.__setitem__)}
    expected = {"a/1.jpg": "red", "b/2.jpg": "blue", "hard.jpg": "red", "a/beside.jpg": "red"}
    expected |= {"a/across.jpg": "blue", "twice.jpg": "blue"}
    assert found == {f"{tar}/{name}": colour for name, colour in expected.items()}
    assert left_out == dict.fromkeys((f"{tar}/out.jpg", f"{tar}/round.jpg"), "a link to what is not in the tar")


@pytest.mark.parametrize("between", [b"", bytes(512), bytes(700 * 512)])
def test_joined_tars_are_read_to_the_end(tmp_path, between):
    parts = [make_tar(tmp_path / f"{i}.tar", (f"{i}.jpg", jpeg(c))) for i, c in enumerate(("red", "lime", "blue"))]
    (tmp_path / "joined.tar").write_bytes(between.join(part.read_bytes() for part in parts))
    found = {Path(each.path).name: colour_of(each) for each in list_sources(tmp_path / "joined.tar")}
    assert found == {"0.jpg": "red", "1.jpg": "green", "2.jpg": "blue"}


def test_a_tars_other_members_are_told(tmp_path):
    tar = make_tar(
        tmp_path / "t.tar",
        ("0.jpg", jpeg()),
        ("0.txt", b"a caption"),
        ("0.json", b"{}"),
        ("plain", jpeg()),
        ("._0.jpg", b"\0\5\26\7"),
        (".hidden/1.jpg", jpeg()),
        ("./2.jpg", jpeg()),
    )
    found, left_out = listed(tar)
    assert found == ["t.tar/0.jpg", "t.tar/plain", "t.tar/2.jpg"]
    assert left_out == {
        "t.tar/0.txt": "no picture (.txt)",
        "t.tar/0.json": "no picture (.json)",
        "t.tar/._0.jpg": "a hidden file",
        "t.tar/.hidden/1.jpg": "a hidden file",
    }


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_or_pipe_in_a_tar_is_told(tmp_path, kind):
    tar = make_tar(tmp_path / "t.tar", ("0.jpg", jpeg()))
    with tarfile.open(tar, "a") as opened:
        member = tarfile.TarInfo("1.jpg")
        member.type = kind
        opened.addfile(member)
    found, left_out = listed(tar)
    assert found == ["t.tar/0.jpg"] and left_out == {"t.tar/1.jpg": "a device or a pipe, which is never opened"}


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_chains_of_links_and_names_that_climb_stay_in_the_tar(tmp_path, layout):
    tar = make_tar(tmp_path / "t.tar", ("../../up.jpg", jpeg()), ("/etc/a.jpg", jpeg()))
    with tarfile.open(tar, "a", format=layout) as opened:
        for number in range(1500):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.type, member.linkname = tarfile.SYMTYPE, f"{number + 1}.jpg"
            opened.addfile(member)
        for name, target in (("1500.jpg", "../up.jpg"), ("loop.jpg", "loop.jpg"), ("out.jpg", "/etc/passwd")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            opened.addfile(member)
    found, left_out = listed(tar)
    assert sorted(found) == ["../up.jpg", "t.tar/etc/a.jpg"] and len(left_out) == 1503
    assert set(left_out.values()) == {"a link to what is not in the tar"}


def test_a_tar_is_one_whatever_it_is_called_and_one_compressed_otherwise_is_named(tmp_path):
    tar = make_tar(tmp_path / "t.tar", ("0.jpg", jpeg()))
    shutil.copy(tar, tmp_path / "download")
    assert [each.path for each in list_sources(tmp_path / "download")] == [f"{tmp_path}/download/0.jpg"]
    (tmp_path / "z.tar").write_bytes(bz2.compress(tar.read_bytes()))
    assert next(list_sources(tmp_path / "z.tar")).fault == "a compressed tar (bzip2), to be unpacked first"


def test_of_a_damaged_tar_the_members_before_the_damage_are_had(tmp_path):
    tar = make_tar(tmp_path / "t.tar", *[(f"{i}.jpg", jpeg()) for i in range(6)])
    content = bytearray(tar.read_bytes())
    place = content.index(b"3.jpg")
    content[place + 100 : place + 200] = b"?" * 100
    tar.write_bytes(content)
    *whole, broken = list_sources(tar)
    assert [Path(each.path).name for each in whole] == ["0.jpg", "1.jpg", "2.jpg"] and "broken tar" in broken.fault


# --- a stranger's upload --------------------------------------------------------------------------------------------
def test_an_upload_is_a_picture_or_a_tar_and_never_a_list(folder, tmp_path):
    tar = make_tar(tmp_path / "x.tar", ("0.jpg", jpeg()))
    (tmp_path / "list.txt").write_text(f"{folder / 'a.jpg'}\n")
    found = [*of_upload(str(folder / "a.jpg"), "mine.jpg"), *of_upload(str(tar), "<b>.tar")]
    assert [each.path for each in found] == ["mine.jpg", "<b>.tar/0.jpg"] and all(read(each) for each in found)
    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar.read_bytes()))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("0.jpg", jpeg())
    for name in ("list.txt", "x.tgz", "x.zip"):
        (source,) = of_upload(str(tmp_path / name), name)
        with pytest.raises(UnusablePicture, match="not a picture"):
            read(source)


# --- what is left out -----------------------------------------------------------------------------------------------
def test_what_is_left_out_is_counted_by_reason_and_written(tmp_path):
    with LeftOut(tmp_path / "left.csv") as left_out:
        for number in range(3):
            left_out(f"{number}.txt", "no picture (.txt)")
        left_out("torn\n\udcff.jpg", "broken: truncated", "cannot be read")
    summary = f"left out: 4 files (no picture (.txt): 3, cannot be read: 1) → {tmp_path}/left.csv"
    assert str(left_out) == summary
    rows = (tmp_path / "left.csv").read_bytes()
    assert rows.startswith(b"path,reason\n0.txt,no picture (.txt)\n") and b'"torn\n\xff.jpg",broken: truncated' in rows
    assert str(LeftOut()) == "left out: 0 files"


def test_the_list_is_written_where_nothing_could_be_used_and_not_where_one_breaks_off(tmp_path, capsys):
    with pytest.raises(UserError), LeftOut(tmp_path / "left.csv") as left_out:
        left_out("a.txt", "no picture (.txt)")
        raise UserError("no pictures")
    assert "left out: 1 file (no picture (.txt): 1)" in capsys.readouterr().out
    assert (tmp_path / "left.csv").read_text() == "path,reason\na.txt,no picture (.txt)\n"
    with pytest.raises(KeyboardInterrupt), LeftOut(tmp_path / "other.csv") as left_out:
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["left.csv"]


# --- decoding ahead -------------------------------------------------------------------------------------------------
def test_pictures_come_in_order_with_a_reason_for_the_bad_ones(folder):
    paths = [str(folder / name) for name in ("d.jpg", "a.jpg", "nothing.jpg", "b.png")]
    found = list(decoded([Source(path, path) for path in paths], 32, num_workers=2, ahead=2))
    assert [each.source.path for each in found] == paths
    assert [each.fault for each in found] == ["not a picture", "", "no such file", ""]
    assert found[1].pixels.shape == (3, 32, 32) and found[1].size == (70, 50)


def test_decoding_stays_no_further_ahead_than_it_is_told(folder):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Source(str(folder / "a.jpg"), str(folder / "a.jpg"))

    pictures = decoded(endless(), 32, num_workers=2, ahead=24)
    for _ in range(100):
        next(pictures)
    assert taken <= 100 + 24 + 2 * CHUNK
    pictures.close()


def test_a_picture_cut_behind_its_pixels_is_decoded_with_a_note(folder):
    (folder / "a.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-2])
    (found,) = decoded([Source("a", str(folder / "a.jpg"))], 32, num_workers=1)
    assert found.pixels is not None and found.note == TRUNCATED


def test_a_limit_of_pixels_is_obeyed(folder):
    found = list(decoded(list_sources(folder), 32, 2, max_pixels=3000))
    assert [each.fault for each in found] == [
        *["70x50 pixels are more than 3,000"] * 2,
        "not a picture",
        "70x50 pixels are more than 3,000",
    ]

"""The made-up dump: its truth is what the reader, the copies' makers and the virality make of it."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run
from picture_server import flags, serving_pictures
from PIL import Image, ImageOps

import virality
from reading.tables import zstd
from sample_data import make_dump
from sample_dump import COPIES


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    """A community of 80 pictures as a dump, its table made. The folder of the data set."""
    folder = tmp_path_factory.mktemp("own")
    done = run("sample_data.py", "--output", folder, "--num_images", 80, "--seed", 3, "--as_dump")
    assert done.returncode == 0, done.stderr
    files = [folder / "dump" / name for name in ("RS_1.zst", "RS_2.ndjson", "top.json")]
    done = run("submissions.py", *files, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def addresses(dump) -> pd.DataFrame:
    return pd.read_csv(dump / "dump" / "truth_addresses.csv").set_index("address")


def test_every_line_and_post_is_accounted_for(dump):
    truth, about = (json.loads((dump / name).read_text()) for name in ("dump/truth.json", "submissions.json"))
    assert {name: about[name] for name in ("lines", "posts", "kept", "rows")} == {
        name: truth[name] for name in ("lines", "posts", "kept", "rows")
    }
    left_out = {kind: count for kind, count in about["left_out"].items() if count}
    assert left_out == truth["left_out"] and len(left_out) >= 10


def test_the_quirks_are_there(dump):
    text = (dump / "dump" / "RS_2.ndjson").read_bytes()
    assert not text.endswith(b"\n") and b"\r\n" in text
    text += zstd.decompress((dump / "dump" / "RS_1.zst").read_bytes())
    for quirk in (b"&amp;s=", b'"score": "', b'"created_utc": 13', b".0,", b"\xff", b"crosspost_parent_list",
                  b"gallery_data", b'"score": null', b"preview.redd.it", b"imgur.com/"):  # fmt: skip
        assert quirk in text, quirk


def groups_of(table: pd.DataFrame, addresses: pd.DataFrame) -> pd.DataFrame:
    """The groups that one would find who sees all copies."""
    images = table.drop_duplicates("img_id")
    return pd.DataFrame(
        {"img_id": images["img_id"], "group": addresses["picture"].reindex(images["img_link"]).to_numpy()}
    )


def test_with_the_copies_joined_the_virality_is_the_truth(dump, addresses, tmp_path):
    alone, malformed = virality.build_table(dump / "submissions.csv.gz")
    assert malformed.empty and alone["img_link"].is_unique and set(alone["img_link"]) <= set(addresses.index)
    groups_of(alone, addresses).to_csv(tmp_path / "groups.csv", index=False)
    done = run(
        "virality.py",
        dump / "submissions.csv.gz",
        "--groups",
        tmp_path / "groups.csv",
        "--output",
        tmp_path / "out.csv",
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    truth = pd.read_csv(dump / "dump" / "truth_virality.csv").set_index("picture")
    table.index = addresses["picture"].loc[table["img_link"]].to_numpy()
    assert len(table) == len(truth) == 80 < len(alone)
    for name in ("submissions", "max_a_score", "v_score"):
        assert table[name].to_dict() == pytest.approx(truth[name].to_dict(), rel=1e-12)
    first = addresses.loc[table["img_link"], "copy"]
    assert (first == "original").mean() > 0.9  # the copy that stands for a picture is the one submitted first


def test_a_quarter_of_the_pictures_have_a_copy_of_each_kind_in_turn(addresses):
    kinds = addresses["copy"].value_counts()
    assert kinds["original"] == 80 and kinds.drop("original").to_dict() == dict.fromkeys(COPIES, 4)
    assert addresses.groupby("picture")["copy"].apply(lambda each: "original" in set(each)).all()


def test_copies_are_what_their_names_say(dump, addresses):
    pictures = dump / "dump" / "pictures"
    for address, row in addresses[addresses["copy"] != "original"].iterrows():
        original = addresses.index[(addresses["picture"] == row["picture"]) & (addresses["copy"] == "original")][0]
        copy, first = (
            Image.open(pictures / each.split("//")[1].replace("pictures.example.org", "files"))
            for each in (address, original)
        )
        small = {
            "re-encoded": first.size,
            "half size": (first.width // 2, first.height // 2),
            "mirrored": first.size,
        }
        if row["copy"] in small:
            assert copy.size == small[row["copy"]]
            expected = ImageOps.mirror(first) if row["copy"] == "mirrored" else first
            difference = np.abs(np.asarray(expected.resize(copy.size), float) - np.asarray(copy, float)).mean()
            assert difference < 12
        elif row["copy"] == "cropped":
            assert 0.88 < copy.width / first.width < 0.97 and 0.88 < copy.height / first.height < 0.97
        else:
            assert copy.width == first.width and 1.1 < copy.height / first.height < 1.22


def test_the_server_has_what_is_served_and_nothing_else(tmp_path):
    with serving_pictures(tmp_path / "dump" / "pictures") as url:
        make_dump(tmp_path, 60, 1, f"{url}/files")
        table = pd.read_csv(tmp_path / "dump" / "truth_addresses.csv")
        assert table["address"].str.startswith(url).any() and 0 < (table["served"] == 0).sum() < 10
        for address, served in table[["address", "served"]].itertuples(index=False):
            try:
                with urllib.request.urlopen(address.replace("https://", f"{url}/")) as answer:
                    assert served and Image.open(io.BytesIO(answer.read())).format == "JPEG"
            except urllib.error.HTTPError as error:
                assert error.code == 404 and not served
        assert flags(url)[:2] == ["--redd_url", f"{url}/i.redd.it"]


def test_the_same_seed_makes_the_same_dump(tmp_path):
    for name in ("one", "two"):
        make_dump(tmp_path / name, 12, 5, "https://pictures.example.org")
    one, two = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two and len(one) > 15

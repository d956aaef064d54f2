"""Features: their shapes, the file that holds them, and going on after a kill."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest
import torch
from conftest import run
from PIL import Image

import feature_extractor
from backbones import CUTS, backbone, cut_off, head_of, load_network
from decoding.decoder import decode
from feature_extractor import read_features, write_features
from transforms import to_square, whole
from utils import UserError

SMALL = "shufflenet_v2_x0_5"
FLAGS = ("--model_name", SMALL, "--weights", "none", "--image_size", 64)


@pytest.mark.parametrize(
    "model_name, cut, shape",
    [
        ("alexnet", "published", (256, 6, 6)),
        ("alexnet", "last", (4096,)),
        ("vgg", "published", (512, 7, 7)),
        ("resnet", "published", (2048,)),
        ("densenet", "last", (1024,)),
        ("mobilenet_v3_small", "published", (576,)),
    ],
)
def test_the_shapes_that_the_docstring_states(model_name, cut, shape):
    with torch.inference_mode():
        assert backbone(model_name, "none", cut)(torch.zeros(1, 3, 64, 64)).shape == (1, *shape)


@pytest.mark.parametrize("model_name", ["alexnet", SMALL, "convnext_tiny"])
@pytest.mark.parametrize("cut", CUTS)
def test_the_head_on_the_features_is_the_network(model_name, cut):
    model = load_network(model_name, "none").eval()
    batch = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        scores = model(batch)
        head = head_of(model, cut)
        on_features = head(cut_off(model, cut)(batch))
    torch.testing.assert_close(on_features, scores)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "in/c.webp"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    (folder / "d.jpg").write_text("<html>gone</html>")
    return folder


def test_a_folder_becomes_a_file(folder, tmp_path):
    done = run("feature_extractor.py", folder, "--output", tmp_path / "f.npz", *FLAGS, "--batch_size", 2)
    assert done.returncode == 0, done.stderr
    assert "left out: d.jpg: not a picture" in done.stdout and "3 pictures, 1024 features each" in done.stdout
    found = read_features(tmp_path / "f.npz")
    assert list(found.names) == ["a.jpg", "b.png", "in/c.webp"] and list(found.left_out) == ["d.jpg"]
    assert found.features.dtype == np.float32 and len(found.about["weights_sha256"]) == 64
    assert found.about["transform"]["side"] == 72 and found.about["model_name"] == SMALL
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
    torch.manual_seed(0)
    feature_extractor.seed_everything(0)
    model = backbone(SMALL, "none")
    with torch.inference_mode():
        one = model(whole(torch.from_numpy(to_square(decode(folder / "b.png"), 72))[None]))
    np.testing.assert_allclose(found.features[1], one[0].numpy(), rtol=1e-3, atol=1e-3)


def test_a_data_set_goes_by_img_id(sample, tmp_path):
    done = run("feature_extractor.py", sample, "--output", tmp_path / "f.npz", *FLAGS)
    assert done.returncode == 0, done.stderr
    ids = {path.stem for path in (sample / "images").glob("*.jpg")}
    assert set(read_features(tmp_path / "f.npz").names) == ids


def test_what_a_killed_run_computed_is_not_computed_again(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 3, 64, 64), dtype=np.uint8)
    about = {"amp": False}
    model = backbone(SMALL, "none")
    asked = []

    def read(start, stop, until=10):
        if stop > until:
            raise KeyboardInterrupt
        asked.append(start)
        return [(picture, "") for picture in pixels[start:stop]]

    def write(name, reader):
        return write_features(tmp_path / name, range(10), reader, model, about, torch.device("cpu"), batch_size=4)

    with pytest.raises(KeyboardInterrupt):
        write("a.npz", lambda start, stop: read(start, stop, until=8))
    assert asked == [0, 4] and not (tmp_path / "a.npz").exists()
    went_on = write("a.npz", read)
    assert asked == [0, 4, 8]
    np.testing.assert_array_equal(went_on.features, write("b.npz", read).features)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_the_parts_of_other_weights_are_not_taken(tmp_path):
    pixels = np.zeros((3, 64, 64), np.uint8)
    for about in ({"amp": False, "weights_sha256": "a"}, {"amp": False, "weights_sha256": "b"}):
        asked = []

        def read(start, stop, asked=asked):
            asked.append(start)
            if start:
                raise KeyboardInterrupt
            return [(pixels, "")]

        with pytest.raises(KeyboardInterrupt):
            write_features(
                tmp_path / "f.npz", [1, 2], read, backbone(SMALL, "none"), about, torch.device("cpu"), batch_size=1
            )
        assert asked == [0, 1]


def test_bad_input_is_told_in_one_line(folder, tmp_path):
    (tmp_path / "text.npz").write_text("features")
    with pytest.raises(UserError, match="not a feature file"):
        read_features(tmp_path / "text.npz")
    with pytest.raises(UserError, match="does not exist"):
        read_features(tmp_path / "nothing.npz")
    bad = tmp_path / "bad"
    bad.mkdir()
    shutil.copy(folder / "d.jpg", bad)
    for source, message in ((bad, "none of the 1 pictures can be used"), (tmp_path / "nowhere", "does not exist")):
        done = run("feature_extractor.py", source, "--output", tmp_path / "f.npz", *FLAGS)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_of_a_killed_run_a_replaced_picture_is_computed_again(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 64, 64), dtype=np.uint8)
    model, asked, stamps = backbone(SMALL, "none"), [], [*"abcdef"]

    def write(until):
        def read(start, stop):
            if stop > until:
                raise KeyboardInterrupt
            asked.append(start)
            return [(picture, "") for picture in pixels[start:stop]]

        about = {"amp": False}
        return write_features(tmp_path / "f.npz", range(6), read, model, about, torch.device("cpu"), 2, stamps)

    with pytest.raises(KeyboardInterrupt):
        write(until=4)
    stamps[3] = "another file"
    pixels[3] = 0
    found = write(until=6)
    assert asked == [0, 2, 2, 4]
    assert (found.features[3] != found.features[2]).any() and [*tmp_path.iterdir()] == [tmp_path / "f.npz"]


def test_tars_and_lists_are_sources_and_what_is_left_out_is_told(folder, tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("b.png", "d.jpg"):
            tar.add(folder / name, name)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 't.tar'}\n{folder / 'a.jpg'}\n")
    words = ["--output", tmp_path / "f.npz", "--left_out", tmp_path / "left.csv", *FLAGS]
    done = run("feature_extractor.py", tmp_path / "list.txt", *words)
    assert done.returncode == 0, done.stderr
    assert list(read_features(tmp_path / "f.npz").names) == [f"{tmp_path}/t.tar/b.png", str(folder / "a.jpg")]
    assert (tmp_path / "left.csv").read_text() == f"path,reason\n{tmp_path}/t.tar/d.jpg,not a picture\n"
    assert done.stdout.splitlines()[-1] == f"left out: 1 file (cannot be read: 1) → {tmp_path}/left.csv"
    done = run("feature_extractor.py", folder, "--output", ".", *FLAGS)
    assert done.returncode == 2 and done.stderr == "error: --output . is a folder, not a file to write\n"

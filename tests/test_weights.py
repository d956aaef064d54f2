"""Weights as the web has them are loaded, and what is not weights is refused in one line."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from backbones import backbone, load_network
from classifier_net import cnn_classifier
from siamese_net import SiameseNet
from utils import UserError
from weights import load_weights, read_state

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def state():
    return torchvision.models.get_model(SMALL, weights=None).state_dict()


def same(model: nn.Module, state: dict) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"epoch": 1, "model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["module.", "_orig_mod.", "both", "state_dict", "model", "no counters"],
)
def test_wrapped_prefixed_and_old_files_are_loaded(state, tmp_path, wrap, capsys):
    torch.save(wrap(state), tmp_path / "weights.pt")
    model = load_network(SMALL, str(tmp_path / "weights.pt"))
    assert same(model, {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})
    assert re.search(r"weights: \d+ of \d+ tensors loaded from .*weights.pt", capsys.readouterr().out)


def test_safetensors_are_loaded(state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    assert same(load_network(SMALL, str(tmp_path / "weights.safetensors")), state)


def test_densenets_published_names_are_loaded(tmp_path):
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in state.items()}
    assert any("norm.1." in key for key in old) and set(old) != set(state)
    torch.save(old, tmp_path / "densenet.pth")
    assert same(load_network("densenet", str(tmp_path / "densenet.pth")), state)


def test_convolutions_alone_are_enough_where_the_head_is_new(tmp_path, capsys):
    state = torchvision.models.alexnet(weights=None).state_dict()
    features = {key: value for key, value in state.items() if key.startswith("features.")}
    path = str(tmp_path / "features.pth")
    torch.save(features, path)
    assert same(cnn_classifier("alexnet", 3, path)[0], features)
    assert "starts fresh: classifier.1, classifier.4, classifier.6" in capsys.readouterr().out
    assert same(SiameseNet("alexnet", 0, path, image_size=64).ranknet.extractor[0], strip(features))
    assert same(SiameseNet("alexnet", 1, path, "singh2016", 64).locnet.features, strip(features))
    assert backbone("alexnet", path)(torch.zeros(1, 3, 64, 64)).shape == (1, 256, 6, 6)
    for needs_the_rest in (
        lambda: load_network("alexnet", path),
        lambda: backbone("alexnet", path, "last"),
        lambda: cnn_classifier("alexnet", 3, path, "last"),
    ):
        with pytest.raises(UserError, match="lacks the key classifier.1.weight"):
            needs_the_rest()


def strip(features: dict) -> dict:
    return {key.removeprefix("features."): value for key, value in features.items()}


def test_a_head_for_other_classes_starts_fresh(state, tmp_path, capsys):
    other = state | {"fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}
    torch.save(other, tmp_path / "weights.pt")
    model, _ = cnn_classifier(SMALL, 3, str(tmp_path / "weights.pt"))
    assert same(model, {key: value for key, value in state.items() if not key.startswith("fc.")})
    assert "starts fresh: fc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"PK\x03\x04 not a zip", "not a torch file"),
        (b"\x40\0\0\0\0\0\0\0{broken", "a broken safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path, content, says):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        read_state(tmp_path / "weights.pt")
    assert "weights.pt" in str(error.value) and "weights_only" not in str(error.value)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is not a file"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda weight: weight.to_sparse(), "sparse"),
        (lambda weight: weight.to(torch.complex64), "complex"),
        (lambda weight: torch.empty_like(weight, device="meta"), "without values"),
        (lambda weight: (weight * 100).to(torch.int8), "torch.int8, but the network's is torch.float32"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused_by_name(state, tmp_path, made, says):
    torch.save(state | {"conv1.0.weight": made(state["conv1.0.weight"])}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=says):
        load_network(SMALL, str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_loaded(state, tmp_path, kind):
    narrow = {key: value.to(kind) if value.is_floating_point() else value for key, value in state.items()}
    torch.save({"ema": narrow}, tmp_path / "weights.pt")
    found = load_network(SMALL, str(tmp_path / "weights.pt")).state_dict()
    assert all(torch.allclose(found[key].float(), value.float(), atol=1e-2, rtol=1e-2) for key, value in state.items())


@pytest.mark.parametrize("content", ["script", "module", "lfs", "half"])
def test_other_files_that_torch_knows_are_refused_in_one_line(tmp_path, content, recwarn):
    path, network = tmp_path / "weights.pt", torch.nn.Linear(2, 2)
    torch.save(network, path)
    if content == "script":
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 2)), path)
    elif content == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n")
    elif content == "half":
        path.write_bytes(path.read_bytes()[:200])
    recwarn.clear()
    with pytest.raises(UserError, match="is not a torch file that contains only tensors") as error:
        read_state(path)
    assert "\n" not in str(error.value) and not recwarn.list


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_by_name(state, tmp_path, value):
    bad = state["conv1.0.weight"].clone()
    bad[0, 0, 0, 0] = value
    torch.save(state | {"conv1.0.weight": bad}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="conv1.0.weight contains NaN or infinite values"):
        load_network(SMALL, str(tmp_path / "weights.pt"))


def test_another_networks_weights_are_refused(tmp_path):
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), tmp_path / "alexnet.pt")
    with pytest.raises(UserError, match="alexnet.pt lacks the key conv1.0.weight"):
        load_network(SMALL, str(tmp_path / "alexnet.pt"))
    with pytest.raises(UserError, match="has no weights of this network"):
        torch.save({"0.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
        load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "other.pt", fresh="0")


def test_pretrained_convolutions_at_hand_are_loaded(real_data):
    for name in ("alexnet", "mobilenet_v2"):
        path = real_data / "weights" / f"{name}_features.pth"
        model, _ = cnn_classifier(name, 8, str(path))
        assert same(model, torch.load(path, weights_only=True))

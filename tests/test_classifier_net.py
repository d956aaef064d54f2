"""Networks with new heads: what they give, what freezing keeps, and which weights they take."""

from __future__ import annotations

import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from backbones import load_network, weights_hash
from classifier_net import cnn_classifier, train_mode
from device import seed_everything
from utils import UserError

SMALL = "shufflenet_v2_x0_5"  # 1.4 million parameters


@pytest.mark.parametrize(
    "model_name, trained",
    [
        ("alexnet", {"classifier.1", "classifier.4", "classifier.6"}),
        ("vgg", {"classifier.0", "classifier.3", "classifier.6"}),
        ("resnet", {"fc"}),
        ("densenet", {"classifier"}),
    ],
)
def test_the_four_networks_freeze_as_published(model_name, trained):
    model, transform = cnn_classifier(model_name, num_classes=7, weights="none", freeze=True)
    free = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert free == trained
    with torch.inference_mode():
        scores = model.eval()(transform(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)))
    assert scores.shape == (1, 7)


@pytest.mark.parametrize("model_name", ["squeezenet1_1", "mobilenet_v3_small", "googlenet", "convnext_tiny"])
def test_any_torchvision_classifier_goes_by_its_own_name(model_name):
    model, _ = cnn_classifier(model_name, num_classes=3, weights="none", freeze="last")
    train_mode(model)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)  # a tensor in training too, without side heads
    free = [module for module in model.modules() if any(p.requires_grad for p in module.parameters(recurse=False))]
    assert len(free) == 1


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown model 'alexnett'.*densenet.*resnet18"):
        cnn_classifier("alexnett", 5, "none")


def test_a_frozen_network_does_not_move_in_training():
    model, transform = cnn_classifier(SMALL, 3, "none", freeze="published")
    batch = transform(torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8))
    before = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("fc")}
    train_mode(model)
    model(batch).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert model.fc.weight.grad is not None


def test_dropout_is_on_in_what_is_trained_alone():
    model, _ = cnn_classifier("alexnet", 3, "none", freeze="published")
    train_mode(model)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts and all(dropout.training for dropout in dropouts)
    model.frozen_to = "last"
    train_mode(model)
    assert not any(dropout.training for dropout in dropouts)


@pytest.fixture(scope="module")
def state():
    return torchvision.models.get_model(SMALL, weights=None).state_dict()


def test_weights_from_a_file_are_those_of_the_file(state, tmp_path):
    torch.save(state, tmp_path / "weights.pt")
    loaded = load_network(SMALL, str(tmp_path / "weights.pt")).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    model, _ = cnn_classifier(SMALL, 3, str(tmp_path / "weights.pt"))
    assert torch.equal(model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("stage2.0.branch1.0.weight"), "lacks the key stage2.0.branch1.0.weight"),
        (lambda s: s.update({"head.weight": torch.zeros(1)}), "the network does not have: head.weight"),
        (lambda s: s.update({"fc.weight": torch.zeros(5, 1024)}), r"fc.weight is \(5, 1024\), .* \(1000, 1024\)"),
        (lambda s: s.update({"fc.bias": "none"}), "fc.bias is not a tensor"),
    ],
)
def test_a_file_that_does_not_fit_names_the_first_key(state, tmp_path, change, message):
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=message):
        load_network(SMALL, str(tmp_path / "weights.pt"))


def test_a_file_that_is_none_or_no_state_dict_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_network(SMALL, str(tmp_path / "nothing.pt"))
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(UserError, match="not a torch file"):
        load_network(SMALL, str(tmp_path / "text.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="does not contain a state dict"):
        load_network(SMALL, str(tmp_path / "list.pt"))


def test_imagenet_takes_the_weights_that_torchvision_keeps(state, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    kept = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    torch.save(state, kept)
    loaded = load_network(SMALL, "imagenet").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_weights_that_cannot_be_fetched_say_what_to_do(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match="cannot be fetched.*no route.*--weights none.*--weights FILE"):
        load_network(SMALL, "imagenet")


def test_the_hash_of_weights_is_that_of_their_values():
    hashes = []
    for seed in (0, 0, 1):
        seed_everything(seed)
        hashes.append(weights_hash(load_network(SMALL, "none")))
    assert hashes[0] == hashes[1] != hashes[2]

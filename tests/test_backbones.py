"""Any network carries the ranker: its last feature map, where in a picture its cells look, its own normalisation."""

from __future__ import annotations

import pytest
import torch
import torchvision

from backbones import Geometry, channels_of, feature_map, geometry, load_network, size_of
from siamese_net import SiameseNet
from transforms import IMAGENET_MEAN, IMAGENET_STD
from utils import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", (256, 32, 31.5)),
        ("densenet121", (1024, 32, 14.5)),
        ("resnet18", (512, 32, 0.5)),
        ("mobilenet_v2", (1280, 32, 0.5)),
        ("convnext_tiny", (768, 32, 16.0)),
        ("swin_t", (768, 32, 16.0)),
    ],
)
def test_where_a_map_looks_is_measured(name, expected):
    features = feature_map(torchvision.models.get_model(name, weights=None), name)
    assert geometry(features) == Geometry(*expected) and channels_of(features) == expected[0]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_measured_places_are_where_the_gradient_comes_from(name):
    """The gradient of a cell of the map is centred where the cell is said to look."""
    torch.manual_seed(0)
    features = feature_map(load_network(name, "none"), name).eval()
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made, measured = features(picture), geometry(features)
    cell = made.shape[-1] // 2
    made[0, :, cell, cell].sum().backward()
    weight = picture.grad.abs().sum((0, 1, 2))
    middle = (weight * (torch.arange(256) + 0.5)).sum() / weight.sum()
    assert measured.first + measured.stride * cell == pytest.approx(middle.item(), abs=10)


@pytest.mark.parametrize("recipe", ["modern", "singh2016"])
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"])
def test_a_ranker_stands_on_any_network_with_a_map(name, recipe):
    model = SiameseNet(name, 2, "none", recipe, image_size=64)
    batch = torch.randint(0, 256, (3, 3, 72, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    scores, windows = model.rank(batch)
    assert scores.shape == (3,) and windows.shape == (3, 3) and torch.isfinite(scores).all()


def test_a_network_without_a_map_is_refused_by_its_name():
    with pytest.raises(UserError, match="vit_b_16 has no final feature map"):
        feature_map(torchvision.models.vit_b_16(weights=None), "vit_b_16")


def test_the_size_is_that_of_the_published_weights():
    assert (size_of("alexnet"), size_of("inception_v3"), size_of("efficientnet_b3")) == (224, 299, 300)


def test_timms_networks_bring_their_own_normalisation():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    name = "vit_tiny_patch16_224"
    model = load_network(f"timm:{name}", "none").eval()
    raw = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    bare = timm.create_model(name, pretrained=False).eval()
    bare.load_state_dict(model.state_dict())
    own = [torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")]
    with torch.no_grad():
        assert torch.allclose(model((raw - mean) / std), bare((raw - own[0]) / own[1]), atol=1e-4)
    ranker = SiameseNet(f"timm:{name}", 1, "none", image_size=96)
    scores, windows = ranker.rank(torch.randint(0, 256, (2, 3, 110, 110), dtype=torch.uint8))
    assert scores.shape == (2,) and windows.shape == (2, 3)


def test_an_unknown_name_of_timm_is_refused():
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UserError, match="timm has no model 'resnet_of_nobody'; similar names are"):
        load_network("timm:resnet_of_nobody", "none")

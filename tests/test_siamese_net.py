"""The ranker's shapes, what its window shows, and that the spatial transformer learns."""

from __future__ import annotations

import pytest
import torch
import torchvision

import transforms
from siamese_net import RECIPES, START_SCALE, SiameseNet, boxes, from_checkpoint, look
from utils import UserError, save_checkpoint


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def build(model_name="alexnet", **options) -> SiameseNet:
    torch.manual_seed(0)
    return SiameseNet(model_name, weights="none", image_size=64, **options)


@pytest.mark.parametrize("recipe", ["modern", "singh2016"])
@pytest.mark.parametrize("model_type", [0, 1, 2])
def test_a_picture_has_one_score_and_but_for_type_0_one_window(pictures, recipe, model_type):
    model = build(model_type=model_type, recipe=recipe).eval()
    scores, windows, _ = model.score(pictures)
    assert scores.shape == (3,)
    assert windows is None if model_type == 0 else windows.shape == (3, 3)
    first, second = model(pictures[:1], pictures[1:2])
    assert torch.allclose(torch.cat([first, second]), scores[:2], atol=1e-4)


def test_densenet_ranks_too(pictures):
    model = build("densenet", model_type=2, recipe="singh2016")
    scores, windows, _ = model.score(pictures[:2])
    assert scores.shape == (2,) and windows.shape == (2, 3)
    assert model.ranknet.head.in_features == 2 * 2 * 1024 * 2


def test_the_networks_of_singh_and_lee_have_the_published_widths():
    for model_type, width in ((1, 4096), (2, 8192)):
        model = build(model_type=model_type, recipe="singh2016")
        assert model.ranknet.head.in_features == width and (model.ranknet.head.bias == 0).all()
        sizes = [tuple(p.shape) for name, p in model.locnet.named_parameters() if "features" not in name]
        assert sizes == [(128, 256, 1, 1), (128,), (128, 4608), (128,), (3, 128), (3,)]


def test_both_views_of_type_2_count(pictures):
    """The window's and the whole picture's features both reach the score."""
    for recipe in ("modern", "singh2016"):
        model = build(model_type=2, recipe=recipe).eval()
        first = model.ranknet.head if recipe == "singh2016" else model.ranknet.head[1]
        model.score(pictures)[0].sum().backward()
        half = first.in_features // 2
        assert first.weight.grad[:, :half].any() and first.weight.grad[:, half:].any()


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(UserError, match="alexnet, vgg, resnet, densenet"):
        SiameseNet("lenet")


@pytest.mark.parametrize("recipe", ["modern", "singh2016"])
def test_the_ranking_gradient_reaches_locnet_through_the_window_alone(pictures, recipe):
    """The score knows LocNet by its window only: with the window cut out of the graph no gradient arrives."""
    model = build(model_type=1, recipe=recipe).eval()  # in evaluation: without dropout and without noise
    own = model.locnet.regress if recipe == "singh2016" else model.locnet.attend
    window, _ = model.locnet(pictures)
    for seen_by, arrives in ((window, True), (window.detach(), False)):
        model.zero_grad()
        scores = model.ranknet(look(pictures, seen_by, model.window_size))
        scores.square().sum().backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters()) == arrives
    model.zero_grad()
    model.score(pictures)[0].square().sum().backward()
    if recipe == "singh2016":  # its scale starts from zero weights, which have a gradient of their own
        assert own[-1].weight.grad.abs().sum(1).gt(0).tolist() == [True, True, True]
        assert model.locnet.features[0].weight.grad.abs().sum() > 0
    else:  # channel 0 is the attention, channel 1 the glimpse, which the score does not see
        assert own[-1].weight.grad.abs().sum((1, 2, 3)).gt(0).tolist() == [True, False]


def test_the_gradient_through_the_window_is_that_of_moving_it():
    """Against finite differences on a smooth picture; the step is small, for bilinear sampling bends at each pixel."""
    x = torch.linspace(-3, 3, 48)
    picture = (torch.sin(x)[:, None] * torch.cos(0.7 * x)[None, :]).expand(1, 3, 48, 48)
    weight = torch.linspace(0, 1, 48 * 48).view(48, 48)
    window = torch.tensor([[0.5, 0.3, -0.4]], requires_grad=True)
    (look(picture, window) * weight).double().mean().backward()
    for index in range(3):
        step = torch.zeros(1, 3)
        step[0, index] = 0.001
        with torch.no_grad():
            ahead, behind = ((look(picture, window + sign * step) * weight).double().mean() for sign in (1, -1))
        assert window.grad[0, index].item() == pytest.approx(((ahead - behind) / 0.002).item(), rel=0.01)


def test_a_window_outside_is_brought_back_in_place_of_the_ranking_gradient(pictures):
    model = build(model_type=1, recipe="singh2016").eval()
    last = model.locnet.regress[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias[1:] = torch.tensor([4.0, 0.0])  # centre at 0.33 · 4
    for times in (1.0, 1000.0):  # however strong the ranking gradient is
        model.zero_grad()
        (model.score(pictures)[0].sum() * times).backward()
        s, t_x, pace = START_SCALE, 4.0, 0.05
        assert last.bias.grad.tolist() == pytest.approx([s * t_x**2 * pace, s**2 * t_x, 0.0], rel=1e-4)


def test_the_window_moves_towards_what_matters():
    """With a fixed ranker that likes brightness, training the window alone finds the bright corner."""
    pictures = torch.zeros(1, 3, 64, 64)
    pictures[:, :, 40:60, 40:60] = torch.linspace(0, 1, 20)[None, None, :, None]
    pictures = torch.nn.functional.avg_pool2d(pictures, 9, 1, 4)
    window = torch.tensor([[0.4, 0.5, 0.5]], requires_grad=True)
    optimiser = torch.optim.SGD([window], lr=1.0)
    before = look(pictures, window).mean().item()
    for _ in range(50):
        optimiser.zero_grad()
        (-look(pictures, window).mean()).backward()
        window.grad[:, 0] = 0
        optimiser.step()
    assert look(pictures, window).mean().item() > before + 0.05
    assert (window[0, 1:] > 0.8).all()


def test_locnet_of_singh_and_lee_starts_as_published(pictures):
    model = build(model_type=1, recipe="singh2016")
    last = model.locnet.regress[-1]
    assert last.weight[0].abs().sum() == 0
    assert model.locnet(pictures)[0][:, 0].tolist() == pytest.approx([START_SCALE] * 3)
    last.bias.data[0] += 1
    assert model.locnet(pictures)[0][:, 0].tolist() == pytest.approx([START_SCALE + 0.05] * 3)


def test_modern_windows_lie_inside_the_picture_and_shrink(pictures):
    model = build(model_type=1).train()
    torch.nn.init.normal_(model.locnet.attend[-1].weight, std=10)
    for progress in (0.0, 0.5, 1.0):
        model.set_progress(progress)
        window = model.score(pictures)[1]
        box = boxes(window, torch.full((3, 2), 100.0))
        assert (box[:, :2] >= -1e-4).all() and (box[:, :2] + box[:, 2:] <= 100 + 1e-4).all()
    assert window[:, 0].tolist() == pytest.approx([RECIPES["modern"].narrow] * 3)


def test_the_identity_window_shows_the_picture(pictures):
    window = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3)
    assert torch.allclose(look(pictures, window), pictures, atol=1e-5)


def test_a_box_is_where_the_window_looks():
    """The translation is in units of the window: centre (s·t_x, s·t_y)."""
    picture = torch.zeros(1, 1, 100, 200).expand(1, 3, 100, 200).clone()
    window = torch.tensor([[0.25, 2.0, -1.0]])
    (x, y, w, h) = boxes(window, torch.tensor([[200.0, 100.0]]))[0].tolist()
    assert (x, y, w, h) == pytest.approx((125, 25, 50, 25))
    picture[:, :, 25:50, 125:175] = 1
    assert look(picture, window)[..., 3:-3, 3:-3].min() == 1


@pytest.mark.parametrize(("recipe", "model_type"), [("modern", 0), ("modern", 1), ("singh2016", 1)])
def test_ranking_scores_each_picture_by_itself(recipe, model_type):
    batch = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    model = build(model_type=model_type, recipe=recipe)
    together, alone = model.rank(batch)[0], torch.cat([model.rank(each[None])[0] for each in batch])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(("recipe", "model_type"), [("modern", 0), ("modern", 1), ("singh2016", 1)])
def test_in_bf16_scores_and_windows_are_finer_than_bf16(pictures, recipe, model_type):
    """Rounded to bf16's eight bits, scores of many pictures would tie and windows would jump."""
    model = build(model_type=model_type, recipe=recipe).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores, windows, _ = model.score(pictures)
    for found in (scores, windows):
        if found is not None:
            assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
    if windows is not None:
        seen = look(pictures, windows)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(look(pictures, windows), seen)


def test_a_score_of_singh_and_lee_is_the_mean_over_ten_crops():
    batch = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    model = build(model_type=0, recipe="singh2016")
    scores = model.rank(batch)[0]
    assert not model.training
    with torch.no_grad():
        views = torch.stack([model.score(view)[0] for view in transforms.ten_crops(batch, 64)])
    assert views.std(0).min() > 0 and torch.allclose(scores, views.mean(0), atol=1e-5)


@pytest.mark.parametrize(("model_type", "pretrained"), [(0, False), (0, True), (1, False), (1, True)])
def test_a_saved_ranker_ranks_as_before(tmp_path, model_type, pretrained):
    batch = torch.randint(0, 256, (3, 3, 72, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    weights = "none"
    if pretrained:
        weights = str(tmp_path / "alexnet.pt")
        torch.save(torchvision.models.alexnet(weights=None).state_dict(), weights)
    model = SiameseNet("alexnet", model_type, weights, image_size=64)
    normalised = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    assert normalised == (model_type == 0 and not pretrained)
    model.set_progress(0.7)  # the window's scale is kept in the checkpoint
    config = {"model_name": "alexnet", "model_type": model_type, "weights": weights, "recipe": "modern"}
    config |= {"image_size": 64}
    save_checkpoint(tmp_path / "best.pt", {"kind": "siamese", "config": config, "model": model.state_dict()})
    again, state = from_checkpoint(tmp_path / "best.pt")
    assert not again.training and state["config"] == config
    for one, other in zip(model.rank(batch), again.rank(batch), strict=True):
        assert one is other is None or torch.equal(one, other)


def test_windows_and_whole_pictures_share_convolutions():
    model = build(model_type=1)
    assert all(one is other for one, other in zip(model.ranknet.extractor[0], model.locnet.features, strict=False))


@pytest.mark.parametrize("model_name", ["alexnet", "densenet"])
def test_the_attention_knows_where_its_cells_look(model_name):
    """The gradient of one cell of the map, summed over channels, is centred where the cell is said to look."""
    model = build(model_name, model_type=1).eval()
    picture = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0)).requires_grad_()
    maps = model.locnet.features(picture)
    cell = maps.shape[-1] // 2
    maps[0, :, cell, cell].sum().backward()
    weight = picture.grad.abs().sum((0, 1, 2))
    middle = (weight * (torch.arange(192) + 0.5)).sum() / weight.sum()
    said = (model.locnet._places(maps.shape[-1], 192, weight)[cell].item() + 1) / 2 * 192
    assert said == pytest.approx(middle.item(), abs=6)

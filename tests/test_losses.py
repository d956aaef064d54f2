"""Each loss against its plain formula, its gradient, and at the extremes."""

from __future__ import annotations

import math

import pytest
import torch

import losses


def plain_ranknet(score_1, score_2, target):
    """Mean of −t·log P − (1−t)·log(1−P) with P = σ(r1 − r2), in python's own floats."""
    total = 0.0
    for r1, r2, t in zip(score_1, score_2, target, strict=True):
        p = 1 / (1 + math.exp(r2 - r1))
        total += -t * math.log(p) - (1 - t) * math.log(1 - p)
    return total / len(target)


def test_ranknet_is_its_formula_with_ties_at_one_half():
    score_1, score_2, target = [0.3, -1.0, 2.0, 0.1], [1.3, -2.0, 2.0, 0.7], [1.0, 0.0, 0.5, 0.5]
    loss = losses.ranknet_loss(*(torch.tensor(values) for values in (score_1, score_2, target)))
    assert loss.item() == pytest.approx(plain_ranknet(score_1, score_2, target), rel=1e-6)


def test_ranknet_gradient_is_the_probability_less_the_target():
    scores = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    other, target = torch.tensor([1.3, -2.0, 2.0]), torch.tensor([1.0, 0.0, 0.5])
    losses.ranknet_loss(scores, other, target).backward()
    expected = (torch.sigmoid(scores.detach() - other) - target) / 3
    assert torch.allclose(scores.grad, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("difference", [1e4, -1e4])
def test_losses_are_finite_for_score_differences_of_ten_thousand(dtype, difference):
    scores = torch.tensor([difference, 0.0], dtype=dtype, requires_grad=True)
    pairwise = losses.ranknet_loss(scores[:1], scores[1:], torch.tensor([0.0]))
    margin = losses.margin_ranking_loss(scores[:1], scores[1:], torch.tensor([0.0]))
    every = losses.all_pairs_loss(scores, torch.tensor([0.0, 1.0]))
    (pairwise + margin + every).backward()
    assert pairwise.item() == pytest.approx(max(difference, 0), rel=5e-3)
    assert torch.isfinite(torch.stack([pairwise, margin, every])).all() and torch.isfinite(scores.grad).all()


def test_all_pairs_equal_the_pairwise_loss_on_the_same_pairs():
    torch.manual_seed(0)
    v_score = torch.tensor([3.0, 1.0, 1.0, 2.0, 5.0, 0.0])
    first, second = (~torch.eye(6, dtype=torch.bool)).nonzero().unbind(1)
    target = (torch.sign(v_score[first] - v_score[second]) + 1) / 2
    found = []
    for loss in (
        lambda s: losses.all_pairs_loss(s, v_score),
        lambda s: losses.ranknet_loss(s[first], s[second], target),
    ):
        scores = torch.linspace(-2, 3, 6).requires_grad_()
        value = loss(scores)
        value.backward()
        found.append((value.detach(), scores.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_a_lone_picture_makes_no_pair_and_no_gradient():
    scores = torch.ones(1, requires_grad=True)
    losses.all_pairs_loss(scores, torch.zeros(1)).backward()
    assert scores.grad.item() == 0


def test_margin_contrastive_and_triplet_are_their_formulas():
    margin = losses.margin_ranking_loss(torch.tensor([2.0, 0.2, 1.0]), torch.zeros(3), torch.tensor([1.0, 1.0, 0.5]))
    assert margin.item() == pytest.approx((0 + 0.8 + 1.0) / 3)
    near, far = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    contrastive = losses.contrastive_loss(near, far, torch.tensor([1.0, 0.0]))
    assert contrastive.item() == pytest.approx((0.5 * 25 + 0.5 * 0.25) / 2, rel=1e-5)
    triplet = losses.triplet_loss(near, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), far)
    assert triplet.item() == pytest.approx((0 + (1 - 0.25 + 1)) / 2, rel=1e-5)


def row_distance(a, b):
    return ((a - b) ** 2).sum(1) ** 0.5


# Each loss beside its formula, a term at a time: x, y (n, d) are features, or scores in column 0; t is the target.
PLAIN = {
    "ranknet": (
        lambda x, y, t: losses.ranknet_loss(x[:, 0], y[:, 0], t),
        lambda x, y, t: (
            -(t * torch.log(1 / (1 + torch.exp(y - x)[:, 0])) + (1 - t) * torch.log(1 / (1 + torch.exp(x - y)[:, 0])))
        ).mean(),
    ),
    "margin": (
        lambda x, y, t: losses.margin_ranking_loss(x[:, 0], y[:, 0], t),
        lambda x, y, t: torch.stack(
            [
                abs(a - b) if c == 0.5 else (1 - (a - b if c == 1 else b - a)).clamp(min=0)
                for a, b, c in zip(x[:, 0], y[:, 0], t, strict=True)
            ]
        ).mean(),
    ),
    "contrastive": (
        lambda x, y, t: losses.contrastive_loss(x, y, (t == 1).float()),
        lambda x, y, t: torch.stack(
            [d**2 / 2 if c == 1 else (1 - d).clamp(min=0) ** 2 / 2 for d, c in zip(row_distance(x, y), t, strict=True)]
        ).mean(),
    ),
    "triplet": (
        lambda x, y, t: losses.triplet_loss(x, y, x.flip(0)),
        lambda x, y, t: (((x - y) ** 2).sum(1) - ((x - x.flip(0)) ** 2).sum(1) + 1).clamp(min=0).mean(),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_value_and_gradient_are_those_of_the_plain_formula(name):
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.rand(9, 4, generator=generator, dtype=torch.float64) * 1.5 for _ in range(2))
    target = torch.tensor([0, 1, 0.5] * 3, dtype=torch.float64)
    found = []
    for loss, dtype in zip(PLAIN[name], (torch.float32, torch.float64), strict=True):
        x, y = (side.to(dtype).requires_grad_() for side in (first, second))
        value = loss(x, y, target)
        value.backward()
        found.append((value.item(), x.grad.double(), y.grad.double()))
    (value, *gradients), (plain, *plain_gradients) = found
    assert value == pytest.approx(plain, rel=1e-6)
    for gradient, expected in zip(gradients, plain_gradients, strict=True):
        assert expected.abs().sum() > 0
        assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_every_loss_and_its_gradient_stay_finite_at_the_extremes(name, dtype, size):
    x = torch.full((3, 4), size, dtype=dtype, requires_grad=True)
    y = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    value = PLAIN[name][0](x, y, torch.tensor([0, 1, 0.5]))
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()


def test_a_wrong_order_is_pulled_with_full_strength_however_far_apart():
    scores = torch.tensor([1e4, 0.0], requires_grad=True)
    losses.all_pairs_loss(scores, torch.tensor([0.0, 1.0])).backward()
    assert scores.grad.tolist() == pytest.approx([1.0, -1.0])


def test_contrastive_gradient_is_finite_for_equal_features():
    features = torch.zeros(2, 3, requires_grad=True)
    losses.contrastive_loss(features, torch.zeros(2, 3), torch.zeros(2)).backward()
    assert torch.isfinite(features.grad).all()


def test_the_boundary_penalty_replaces_the_gradient_outside_and_only_there():
    window = torch.tensor([[0.5, 1.0, -1.0], [0.5, 3.0, 1.0], [2.0, 0.1, -0.9]], requires_grad=True)
    ranking = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    losses.BoundaryPenalty.apply(window).backward(ranking)
    pulled = window.detach().clone().requires_grad_()
    penalty = ((pulled[:, 0] * pulled[:, 1]) ** 2 + (pulled[:, 0] * pulled[:, 2]) ** 2).div(2).mean()
    penalty.backward()
    assert torch.equal(window.grad[0], ranking[0])  # inside: |0.5·1| ≤ 1 both ways
    assert torch.allclose(window.grad[1:], pulled.grad[1:])

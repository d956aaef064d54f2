"""Ranking losses on scores, and the penalty that moves a window back into its picture.

Scores have no unit; only differences matter. A target is 1 if the first image is more viral, 0 if the second is, and ½
if they are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import distributed


def ranknet_loss(score_1: Tensor, score_2: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """RankNet's cross entropy (Burges et al. 2005): mean over pairs of −t·log P − (1−t)·log(1−P), P = σ(r1 − r2).

    Shapes (n,); each pair's term is multiplied by its `weight`, if given. Computed from the difference itself, never
    from its exponential: exact for differences of any size, and in fp32 whatever the dtype of the scores.
    """
    difference = score_1.float() - score_2.float()
    weight = None if weight is None else weight.to(difference)
    return F.binary_cross_entropy_with_logits(difference, target.to(difference), weight)


def all_pairs_loss(scores: Tensor, v_score: Tensor) -> Tensor:
    """`ranknet_loss` over every ordered pair i ≠ j of a batch: n·(n−1) pairs for n forward passes. Shapes (n,).

    The targets come from the order of `v_score`; ties have target ½.
    """
    n = len(scores)
    if n < 2:
        return scores.float().sum() * 0  # a lone image makes no pair; keep the graph
    difference = scores.float()[:, None] - scores.float()[None, :]
    target = (torch.sign(v_score[:, None] - v_score[None, :]) + 1) / 2
    loss = F.binary_cross_entropy_with_logits(difference, target.to(difference), reduction="none")
    return loss.fill_diagonal_(0).sum() / (n * (n - 1))


def margin_ranking_loss(score_1: Tensor, score_2: Tensor, target: Tensor, margin: float = 1.0) -> Tensor:
    """Mean over pairs of max(0, margin − y·(r1 − r2)) with y = ±1 (Herbrich et al. 2000); ties cost |r1 − r2|."""
    difference = score_1.float() - score_2.float()
    sign = 2 * target.to(difference) - 1
    return torch.where(sign == 0, difference.abs(), F.relu(margin - sign * difference)).mean()


def contrastive_loss(feature_1: Tensor, feature_2: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """Hadsell et al. 2006, over features (n, d): ½·D² where `same` is 1, ½·max(0, margin − D)² where it is 0."""
    distance = _distance(feature_1, feature_2)
    same = same.to(distance)
    return (same * distance.square() + (1 - same) * F.relu(margin - distance).square()).mean() / 2


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    """Schroff et al. 2015, over features (n, d): mean of max(0, D(a,p)² − D(a,n)² + margin)."""
    anchor, positive, negative = anchor.float(), positive.float(), negative.float()
    near = (anchor - positive).square().sum(1)
    far = (anchor - negative).square().sum(1)
    return F.relu(near - far + margin).mean()


def _distance(feature_1: Tensor, feature_2: Tensor) -> Tensor:
    """Euclidean distance row by row, with a finite gradient where the features are equal."""
    return (feature_1.float() - feature_2.float()).square().sum(1).clamp_min(1e-12).sqrt()


class BoundaryPenalty(torch.autograd.Function):
    """Singh & Lee 2016, section 3.2: the identity on window parameters (n, 3: s, t_x, t_y), with another gradient.

    A window whose centre leaves the picture (|s·t_x| > 1 or |s·t_y| > 1) receives, in place of the ranking gradient,
    that of ½(s·t_x)² + ½(s·t_y)² divided by the batch size, which moves it back.
    """

    @staticmethod
    def forward(ctx, window: Tensor) -> Tensor:
        ctx.save_for_backward(window)
        return window.view_as(window)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (window,) = ctx.saved_tensors
        s, t_x, t_y = window.unbind(1)
        outside = ((s * t_x).abs() > 1) | ((s * t_y).abs() > 1)
        back = torch.stack([s * (t_x**2 + t_y**2), s**2 * t_x, s**2 * t_y], dim=1) / distributed.mean_part(len(window))
        return torch.where(outside[:, None], back.to(gradient), gradient)

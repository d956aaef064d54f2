"""Heads on precomputed features (feature_files.py): a linear layer and a small network, selected on validation data.

Both standardise their input and are trained with the loss of the task.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feature_files import FeatureFile
from utils import UserError, load_checkpoint

STRENGTHS = tuple(10.0 ** -np.arange(0, 3.5, 0.5))  # of the linear head's L2 penalty, the strongest first
DROPOUTS = (0.8, 0.5)  # of the network's hidden units
HIDDEN, STEPS, RATE = 128, 120, 3e-3  # of the network; steps of at most BATCH examples
BATCH, MOST = 4096, 30_000  # examples (pairs, or pictures) that a step of the network, or of the linear head, sees

# What a task gives a head to learn from: given how many examples at most and a generator, the rows of features that
# they need and the loss of these rows' outputs (rows, outputs).
Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, Callable[[Tensor], Tensor]]]


# --- heads ----------------------------------------------------------------------------------------------------------
class Standardise(nn.Module):
    """Subtract the training mean of each feature and divide by its spread.

    The spread is √(own² + median²) of the training pictures' standard deviations: features that hardly vary are not
    blown up, and one that varies a thousandfold does not drown the others.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, x: Tensor) -> None:
        """From training features (n, d)."""
        deviation = x.double().std(0, correction=0)
        varying = deviation[deviation > 0]
        typical = varying.median() if len(varying) else torch.tensor(1.0)
        self.mean.copy_(x.double().mean(0))
        self.spread.copy_((deviation**2 + typical**2).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.spread


def build_head(kind: str, width: int, outputs: int, setting: float) -> nn.Sequential:
    """Features (n, width) → (n, outputs): `linear`, or a `network` of one hidden layer whose dropout is `setting`."""
    if kind == "linear":
        layers = [nn.Linear(width, outputs)]
        nn.init.zeros_(layers[0].weight)
        nn.init.zeros_(layers[0].bias)
    else:
        layers = [nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(setting), nn.Linear(HIDDEN, outputs)]
    return nn.Sequential(Standardise(width), *layers)


def fit_linear(last: nn.Linear, x: Tensor, draw: Draw, strength: float, seed: int) -> None:
    """Minimise the loss and strength/2 · |w|² by L-BFGS, from the weights that the layer has; `x` is standardised."""
    rows, loss = draw(MOST, np.random.default_rng(seed))
    x = x[rows]
    optimiser = torch.optim.LBFGS(last.parameters(), max_iter=30, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(last(x)) + strength / 2 * last.weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)


def fit_network(layers: nn.Sequential, x: Tensor, draw: Draw, seed: int) -> None:
    """STEPS steps of AdamW with a warm-up and a cosine to nothing; `x` is standardised."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(layers.parameters(), lr=RATE, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    layers.train()
    for _ in range(STEPS):
        rows, loss = draw(BATCH, rng)
        value = loss(layers(x[rows]))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()


@contextlib.contextmanager
def threads_for(size: int) -> Iterator[None]:
    """One thread for steps of a few milliseconds: on a busy machine several wait for each other longer than that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if size < 4_000_000 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_head(
    x: np.ndarray, outputs: int, draw: Draw, figure: Callable[[nn.Module], float], seed: int
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The head with the highest validation `figure` among both kinds and all settings, and a row for each tried.

    `x` (n, d) are the training features, in whose rows `draw` speaks. A row: head, setting (the strength of the
    penalty, or the dropout), validation.
    """
    width, tried, best = x.shape[1], [], None
    linear = build_head("linear", width, outputs, 0)
    linear[0].fit(torch.from_numpy(x))
    scaled = linear[0](torch.from_numpy(x))
    for kind, settings in (("linear", STRENGTHS), ("network", DROPOUTS)):
        for setting in settings:
            with threads_for(x.size):
                if kind == "linear":
                    fit_linear(linear[1], scaled, draw, setting, seed)
                    head = copy.deepcopy(linear)
                else:
                    torch.manual_seed(seed)
                    head = build_head(kind, width, outputs, setting)
                    head[0].load_state_dict(linear[0].state_dict())
                    fit_network(head[1:], scaled, draw, seed)
            value = figure(head.eval())
            tried.append({"head": kind, "setting": float(f"{setting:.3g}"), "validation": value})
            if np.isfinite(value) and (best is None or value > best[0]):
                best = value, head
    if best is None:
        raise UserError("--features: training fails on these features: every head's output is NaN")
    return best[1], tried


@torch.inference_mode()
def outputs_of(head: nn.Module, features: np.ndarray) -> np.ndarray:
    """The head's output for features (n, d): (n, outputs), float64, in double precision, a row at a time alike."""
    head = copy.deepcopy(head).double().eval()
    parts = np.array_split(features, max(1, -(-len(features) // BATCH)))
    return np.concatenate([head(torch.from_numpy(part).double()).numpy() for part in parts])


# --- checkpoints ----------------------------------------------------------------------------------------------------
def state_of(head: nn.Sequential, chosen: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """The entries of a head in a checkpoint: its architecture, its weights, and the network that made the features."""
    shape = {"kind": chosen["head"], "setting": chosen["setting"], "width": head[0].mean.shape[0]}
    return {"head": shape | {"outputs": head[-1].out_features}, "model": head.state_dict(), "features": about}


def head_from_checkpoint(path: str | Path, kind: str, file: FeatureFile) -> tuple[nn.Module, dict[str, Any]]:
    """The head from a checkpoint of this `kind`, ready for inference, and the whole checkpoint.

    Raises UserError if the features of `file` are not of the width, or of the network, that it was trained on.
    """
    state = load_checkpoint(path, kind)
    shape = state["head"]
    if file.features.shape[1] != shape["width"]:
        had, has = shape["width"], file.features.shape[1]
        raise UserError(
            f"--features {file.path} has {has} numbers per picture, but the head of {path} was trained on {had}"
        )
    for key in ("model_name", "weights_sha256", "cut"):
        had, has = (about.get(key) for about in (state["features"], file.about))
        if had and has and had != has:
            raise UserError(
                f"--features {file.path} was made with {key} {has}, but the head of {path} was trained on {had}"
            )
    head = build_head(shape["kind"], shape["width"], shape["outputs"], shape["setting"])
    head.load_state_dict(state["model"])
    return head.eval(), state

"""A backbone with a new head: AlexNet, VGG-16, ResNet-101, DenseNet-121, or any torchvision classification network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backbones import freeze_to, last_layer, load_network, trained_part
from transforms import whole
from utils import load_checkpoint


def cnn_classifier(
    model_name: str, num_classes: int, weights: str = "imagenet", freeze: str | bool | None = None
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A network with `num_classes` outputs, and the transform that goes with its weights.

    `weights` is 'imagenet', 'none' or the path of a state dict, which may lack the head. `freeze` 'published' (or True)
    keeps what is published as kept: all but the head for ResNet and DenseNet, all but `classifier` (fc6 to fc8) for
    AlexNet and VGG; 'last' keeps all but the last layer of any network. The transform takes uint8 (n, 3, h, w). Raises
    UserError for an unknown name, listing the known ones.
    """
    model = load_network(model_name, weights, "last" if freeze == "last" else "published")
    replace_last_layer(model, num_classes)
    if freeze:
        freeze_to(model, "published" if freeze is True else freeze)
    return model, whole


def replace_last_layer(model: nn.Module, num_classes: int) -> None:
    """A new last layer, linear or (SqueezeNet) a 1×1 convolution; small weights: the first scores are all but equal."""
    name = last_layer(model)
    old = model.get_submodule(name)
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
    else:
        new = nn.Linear(old.in_features, num_classes)
    nn.init.normal_(new.weight, std=0.01)
    nn.init.zeros_(new.bias)
    model.set_submodule(name, new)


def train_mode(model: nn.Module) -> None:
    """Training mode for what is trained. What is frozen stays in evaluation mode: its dropout is off and the statistics
    of its normalisation do not move, so that it computes what a file of its features holds."""
    model.train()
    if (part := frozen_to(model)) is not None:
        model.eval()
        model.get_submodule(trained_part(model, part)).train()


def frozen_to(model: nn.Module) -> str | None:
    """'published' or 'last' for a model frozen so, else None."""
    return getattr(model, "frozen_to", None)


def from_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a best.pt or last.pt, and the checkpoint, whose `transform` and `classes` go with it."""
    state = load_checkpoint(path, "classifier")
    model, _ = cnn_classifier(state["config"]["model_name"], len(state["classes"]), "none")
    model.load_state_dict(state["model"])
    return model.eval(), state


# --- what it costs --------------------------------------------------------------------------------------------------
def multiply_adds(model: nn.Module, side: int) -> int:
    """Multiplications with an addition for one picture of side×side, of convolutions and matrix products."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side, device=device))
    return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

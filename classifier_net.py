"""A backbone with a new head: AlexNet, VGG-16, ResNet-101, DenseNet-121, or any torchvision classification network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from feature_extractor import load_network
from transforms import whole
from utils import UserError


def cnn_classifier(
    model_name: str, num_classes: int, weights: str = "imagenet", freeze: bool = False
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A network with `num_classes` outputs, and the transform that goes with its weights.

    `weights` is 'imagenet', 'none' or a torchvision state dict. `freeze` keeps what is published as kept: all but the
    head for ResNet and DenseNet, all but `classifier` (fc6 to fc8) for AlexNet and VGG. The transform takes uint8
    (n, 3, h, w). Raises UserError for an unknown name, listing the known ones.
    """
    model = load_network(model_name, weights)
    if freeze:
        model.requires_grad_(False)
        getattr(model, "classifier", model).requires_grad_(hasattr(model, "classifier"))
    _replace_last_linear(model, model_name, num_classes)
    return model, whole


def _replace_last_linear(model: nn.Module, model_name: str, num_classes: int) -> None:
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{model_name} ends in no linear layer that a new head could replace")
    parent, _, child = linear[-1].rpartition(".")
    head = nn.Linear(model.get_submodule(linear[-1]).in_features, num_classes)
    nn.init.normal_(head.weight, std=0.01)  # small: the first scores are all but equal
    nn.init.zeros_(head.bias)
    setattr(model.get_submodule(parent), child, head)

"""Pretrained networks by name, truncated at their features: the vector before the head, or the last feature map."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VGG, AlexNet

from transforms import IMAGENET_MEAN, IMAGENET_STD
from utils import UserError
from weights import load_weights

# The study's four networks, by the names of its flags; any other torchvision classification model goes by its own name.
NETWORKS = {"alexnet": "alexnet", "vgg": "vgg16", "resnet": "resnet101", "densenet": "densenet121"}
CUTS = ("published", "last")
HEADS = ("avgpool", "classifier", "fc", "head", "heads")  # what torchvision calls the parts behind the last map


# --- networks and their weights -------------------------------------------------------------------------------------
def load_network(model_name: str, weights: str, cut: str | None = None) -> nn.Module:
    """A classification network with its 1000 outputs, from torchvision or, with the name timm:NAME, from timm.

    `weights` is 'imagenet' (torchvision's default weights), 'none' (He et al. 2015 initialisation) or the path of a
    state dict (see weights.py). Beyond `cut` (see `trained_part`) the network is replaced, retrained or removed, so a
    file need not contain that part. Raises UserError if the name is unknown or the weights are not available.
    """
    if model_name.startswith("timm:"):
        return _from_timm(model_name.removeprefix("timm:"), weights, cut)
    name = NETWORKS.get(model_name, model_name)
    if name not in torchvision.models.list_models(module=torchvision.models):
        others = ", ".join(torchvision.models.list_models(module=torchvision.models))
        known = f"{', '.join(NETWORKS)}, torchvision's {others}, and timm:NAME"
        raise UserError(f"unknown model {model_name!r}; known are {known}")
    if weights == "imagenet":
        return without_side_heads(_from_the_network(name))
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    if weights == "none":
        return without_side_heads(he_initialised(model))
    load_weights(he_initialised(model), weights, trained_part(model, cut) if cut else None)
    return without_side_heads(model)


def _from_the_network(name: str) -> nn.Module:
    try:
        return torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network, or a download whose hash is wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the ImageNet weights of {name} cannot be fetched ({reason}): "
            "use --weights none to train from scratch, or --weights FILE with a torchvision state dict"
        ) from error


def _from_timm(name: str, weights: str, cut: str | None) -> nn.Module:
    """One of timm's networks, which takes pictures normalised as torchvision's do and of any size, where it can."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"--model_name timm:{name} needs timm: pip install -r requirements-timm.txt") from error
    if not timm.is_model(name.partition(".")[0]):
        alike = ", ".join(timm.list_models(f"*{name.partition('_')[0]}*")[:8]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; similar names are {alike}")
    options = {"pretrained": weights == "imagenet", "num_classes": 1000}
    try:
        try:
            model = timm.create_model(name, dynamic_img_size=True, dynamic_img_pad=True, **options)  # ViT
        except TypeError:
            model = timm.create_model(name, **options)
    except (OSError, RuntimeError) as error:  # no network, no such weights
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the weights of timm:{name} cannot be fetched ({reason}): use --weights none, or --weights FILE"
        ) from error
    model.normalise = Renormalise(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    model.register_forward_pre_hook(lambda model, inputs: (model.normalise(inputs[0]), *inputs[1:]))
    if weights not in ("imagenet", "none"):
        load_weights(model, weights, trained_part(model, cut) if cut else None)
    return model


class Renormalise(nn.Module):
    """Pictures normalised by ImageNet's statistics → by a network's own."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
        ours, spread = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", spread / std, persistent=False)
        self.register_buffer("shift", (ours - mean) / std, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures * self.scale + self.shift


def size_of(model_name: str) -> int:
    """The side in pixels of the pictures that a network's published weights were trained on, 224 where unknown."""
    if model_name.startswith("timm:"):
        import timm

        return timm.get_pretrained_cfg(model_name.removeprefix("timm:")).input_size[-1]
    name = NETWORKS.get(model_name, model_name)
    weights = torchvision.models.get_model_weights(name).DEFAULT if name in torchvision.models.list_models() else None
    return weights.transforms().crop_size[0] if weights else 224


def without_side_heads(model: nn.Module) -> nn.Module:
    """GoogLeNet and Inception score ImageNet's classes at their sides too while they train; we score at the end."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, name):
                setattr(model, name, None)
    return model


def he_initialised(model: nn.Module) -> nn.Module:
    """He et al. 2015's initialisation of every convolution and linear layer, biases 0.

    Torchvision's own default for AlexNet keeps so little of the signal over eight layers that it hardly learns.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names and values of a network's state, in hexadecimal."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


# --- where a network is cut -----------------------------------------------------------------------------------------
def last_layer(model: nn.Module) -> str:
    """The dotted name of the layer that scores the classes: the last linear one, or SqueezeNet's last convolution."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return layers[-1][0]


def check_size(model: nn.Module, *sides: int) -> None:
    """Raise UserError if the network does not accept pictures with sides of this many pixels."""
    device = next(model.parameters()).device
    for side in sides:
        try:
            with torch.inference_mode():
                model.eval()(torch.zeros(1, 3, side, side, device=device))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"the network cannot take pictures of {side}×{side} pixels: {reason}") from error


def trained_part(model: nn.Module, cut: str) -> str:
    """The dotted name of the part that a cut leaves trainable: the head ('published'), or its last layer ('last')."""
    name = last_layer(model)
    return name.partition(".")[0] if cut == "published" else name


def freeze_to(model: nn.Module, cut: str) -> None:
    """Freeze everything before the cut; `model.frozen_to` records it."""
    model.requires_grad_(False)
    model.get_submodule(trained_part(model, cut)).requires_grad_(True)
    model.frozen_to = cut


def backbone(model_name: str, weights: str, cut: str = "published") -> nn.Module:
    """The network truncated at its features: pictures (n, 3, h, w), normalised → features (n, …), shaped as above."""
    return cut_off(load_network(model_name, weights, cut), cut)


def cut_off(model: nn.Module, cut: str = "published") -> nn.Module:
    """The part of a network before its trained part, in evaluation mode. The network itself must not be used after."""
    if cut == "published" and isinstance(model, AlexNet | VGG):  # their own forward would flatten the map
        return nn.Sequential(model.features, model.avgpool).eval()
    model.set_submodule(trained_part(model, cut), nn.Identity())
    return model.eval()


def can_be_cut(model: nn.Module) -> bool:
    """Whether the head's scores are the network's; SqueezeNet averages its last layer's map afterwards."""
    return isinstance(model.get_submodule(last_layer(model)), nn.Linear)


def head_of(model: nn.Module, cut: str) -> nn.Module:
    """The trained part of a network, as a module on the output of `cut_off`; it shares the network's weights."""
    part = model.get_submodule(trained_part(model, cut))
    return nn.Sequential(nn.Flatten(), part) if cut == "published" and isinstance(model, AlexNet | VGG) else part


# --- the last feature map -------------------------------------------------------------------------------------------
class Geometry(NamedTuple):
    """Of a feature map (n, channels, h, w): how far apart its cells look, and where the first does, in pixels of the
    picture from its border."""

    channels: int
    stride: float
    first: float


class TimmMap(nn.Module):
    """The last feature map of one of timm's networks: tokens are put in their rows, channels in their place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        model.reset_classifier(0)

    def forward(self, pictures: Tensor) -> Tensor:
        model = self.model
        made = model.forward_features(model.normalise(pictures))
        if made.dim() == 4:
            return made.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else made
        tokens = made[:, getattr(model, "num_prefix_tokens", 0) :]
        rows = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).unflatten(2, (rows, -1))


class Normalised(nn.Module):
    """GoogLeNet's and Inception's own normalisation, which their `forward` applies, as a layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise = model._transform_input

    def forward(self, pictures: Tensor) -> Tensor:
        return self.normalise(pictures)


def feature_map(model: nn.Module, name: str) -> nn.Module:
    """The part of a classification network that computes its last feature map (n, c, h, w), sharing its weights.

    This is everything before the pooling and the head. Raises UserError, with the network's `name`, if there is no such
    map (ViT, whose tokens do not form one).
    """
    if hasattr(model, "forward_features"):
        return TimmMap(model)
    parts = []
    for child_name, child in model.named_children():
        if child_name in HEADS:
            break
        parts.append(nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child)
    if getattr(model, "transform_input", False):
        parts.insert(0, Normalised(model))
    features = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    try:
        made = _on_meta(features)(torch.zeros(1, 3, 224, 224, device="meta"))
        fits = isinstance(made, Tensor) and made.dim() == 4
    except (RuntimeError, ValueError, TypeError, AssertionError):
        fits = False
    if not fits:
        raise UserError(f"{name} has no final feature map to place a window on: choose another --model_name")
    return features


def before_pooling(features: nn.Module) -> nn.Module:
    """The same without a pooling at its end (AlexNet, VGG), which would halve the map that something points on."""
    pooled = isinstance(features, nn.Sequential) and isinstance(features[-1], nn.MaxPool2d)
    return features[:-1] if pooled else features


def channels_of(features: nn.Module) -> int:
    """The number of channels of a network's last feature map."""
    return _on_meta(features)(torch.zeros(1, 3, 224, 224, device="meta")).shape[1]


def geometry(features: nn.Module, side: int = 224) -> Geometry:
    """Measured by forward passes on torch's meta device, which computes nothing: a picture is enlarged until the map
    has one more cell. If it never does (networks of fixed size), the cells are assumed to divide the picture evenly."""
    features = _on_meta(features)

    def cells(pixels: int) -> int:
        try:
            return features(torch.zeros(1, 3, pixels, pixels, device="meta")).shape[-1]
        except (RuntimeError, ValueError, AssertionError):
            return 0

    made = features(torch.zeros(1, 3, side, side, device="meta"))
    channels, n = made.shape[1], made.shape[-1]
    near = 2 * -(-side // n)  # two cells
    here, there = _smallest(cells, n, side - near, side), _smallest(cells, n + 1, side, side + near)
    if cells(here) != n or cells(there) != n + 1:
        return Geometry(channels, side / n, side / n / 2)
    stride = there - here
    if any("PatchMerging" in type(module).__name__ for module in features.modules()):  # Swin fills up the last patch
        return Geometry(channels, float(stride), stride / 2)
    return Geometry(channels, float(stride), (here - stride * (n - 1)) / 2)


def _smallest(cells: Callable[[int], int], n: int, low: int, high: int) -> int:
    """The smallest number of pixels in low … high with n cells at least (their number grows with the pixels)."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cells(middle) >= n else (middle + 1, high)
    return low


def _on_meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta").eval()

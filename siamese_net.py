"""The ranker: a localisation network that places a window (spatial transformer) and a network that scores what it sees.

The two sides of a pair share all weights, so a picture has one score whatever it is compared with.

model_type 0: the whole picture alone; 1: the window; 2: the window and the whole picture.

Recipes: `singh2016` is the network of Singh & Lee 2016, *End-to-End Localization and Ranking for Relative Attributes*
(arXiv 1608.02676): LocNet regresses the window from its whole feature map. In `modern`, AttentionLocNet locates it with
a softmax over the map, which works the same at every place and so needs few pictures to learn; the window stays inside
the picture by construction and shrinks on a schedule, and a small head on shared convolutions scores its content.
When trained from random weights, the AlexNet of type 0 uses batch normalisation after each convolution (Ioffe & Szegedy
2015) and ranks better with it. Windows do not: with it, they would lie on what decides less often.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG, AlexNet, DenseNet

import distributed
import transforms
from backbones import Geometry, before_pooling, channels_of, feature_map, geometry, he_initialised, load_network
from device import without_autocast
from losses import BoundaryPenalty
from utils import UserError, load_checkpoint

START_SCALE = 0.33  # Singh & Lee 2016, section 3.1
SCALE_PACE = 0.05  # the scale's output is multiplied by it: it moves slower than the translation


@dataclass(frozen=True)
class Recipe:
    """The design choices of a ranker and its training, as values. `dataclasses.replace` changes one of them.

    Half sides and the standard deviation of the noise are in units of the picture's half side.
    """

    name: str
    locnet: Literal["attention", "regression"] = "attention"  # softmax over the map, or three regressed numbers
    head: Literal["small", "fc7"] = "small"  # on pooled convolutions, or one linear layer on fc7
    shared: bool = True  # attention: LocNet points on the ranker's own convolutions, not on a copy of them
    glimpse: bool = True  # attention: what LocNet's attention lies on is ranked as well
    wide: float = 0.6  # attention: the window's half side at the first epoch …
    narrow: float = 0.4  # … and once it has shrunk
    noise: float = 0.1  # attention: standard deviation of the window's centre while it explores
    settled: float = 0.6  # share of the epochs after which the window is narrow and without noise
    pool: int = 3  # head small: cells of the pooled map, across and down
    resolution: float = 0.75  # side of what RankNet sees, as a share of --image_size
    ten_crops: bool = False  # the score of a picture is the mean over ten crops
    two_stages: bool = False  # type 1 first; its LocNet starts type 2
    optimiser: Literal["adamw", "sgd"] = "adamw"
    warm_up: float = 0.15  # share of the steps with a growing rate, before a cosine to nothing; 0: a constant rate
    clip_norm: float = 1.0  # the largest norm of a step's gradient; 0: any
    augment: str = "crop"  # see transforms.AUGMENTATIONS
    image_size: int = 128  # side in pixels of what the network sees
    epochs: int = 60
    steps: int = 0  # with few pictures, as many more epochs as make so many steps
    batch_size: int = 32
    learning_rate: float = 5e-4
    pace: float = 1.0  # adamw: the rate of the convolutions, as a share of the head's


RECIPES = {
    "modern": Recipe("modern"),
    # Singh & Lee 2016, sections 3 and 4.
    "singh2016": Recipe(
        "singh2016", locnet="regression", head="fc7", shared=False, glimpse=False, resolution=1.0, ten_crops=True,
        two_stages=True, optimiser="sgd", warm_up=0, clip_norm=0, image_size=227, epochs=400, batch_size=25,
        learning_rate=1e-3,
    ),
}  # fmt: skip


# What works best from pretrained convolutions differs from what works best from nothing. Found on the scenes' order of
# perspective and on chubby faces and big lips of PubFig, at seed 10: the convolutions keep what they know at a tenth of
# the head's rate, a map of 6×6 cells tells parts of a face apart that one of 3×3 does not, and 211 pictures need as
# many steps as 560 do.
PRETRAINED = {
    "modern": {
        "pool": 6, "augment": "mild", "image_size": 224, "epochs": 20, "steps": 400, "learning_rate": 1e-3, "pace": 0.1,
    }
}  # fmt: skip


# From nothing, whole pictures take much augmentation; windows do not find what they look for under it.
WHOLE_FROM_NOTHING = {"modern": {"augment": "strong", "image_size": 192}}


def named_recipe(recipe: str | Recipe, pretrained: bool = False, model_type: int = 1) -> Recipe:
    """A recipe by name, adapted to `pretrained` or random weights and to the model type; a Recipe is returned as is.

    Raises UserError for an unknown name, listing the known ones.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise UserError(f"--recipe {recipe!r} is unknown; known are {', '.join(RECIPES)}")
    changed = PRETRAINED if pretrained else {} if model_type else WHOLE_FROM_NOTHING
    return replace(RECIPES[recipe], **changed.get(recipe, {}))


def epochs_of(recipe: Recipe, pictures: int, batch_size: int) -> int:
    """The epochs of a training on so many pictures: the recipe's, or what makes its steps."""
    return max(recipe.epochs, math.ceil(recipe.steps / math.ceil(pictures / batch_size)))


def recipe_of(state: dict[str, Any]) -> Recipe:
    """The recipe of a checkpoint; older checkpoints store only its name."""
    values = state.get("recipe")
    if values is None:
        return named_recipe(state["config"]["recipe"])
    if unknown := set(values) - {field.name for field in fields(Recipe)}:
        raise UserError(f"the checkpoint's recipe has values that this version does not know: {', '.join(unknown)}")
    return Recipe(**values)


class LocNet(nn.Module):
    """Where to look, by regression: pictures (n, 3, h, w) → windows (n, 3) as s, t_x, t_y, and no glimpse.

    The window's centre lies at (s·t_x, s·t_y) and its half side is s, in the picture's coordinates from −1 to 1: the
    translation is in units of the window.
    """

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features = features
        self.reduce = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Conv2d(channels, 128, 1))
        self.regress = nn.Sequential(
            nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4608, 128), nn.ReLU(inplace=True), nn.Linear(128, 3)
        )
        last = self.regress[-1]
        with torch.no_grad():
            last.weight[0].zero_()
            last.bias.copy_(torch.tensor([START_SCALE / SCALE_PACE, 0.0, 0.0]))
        self.register_buffer("pace", torch.tensor([SCALE_PACE, 1.0, 1.0]), persistent=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, None]:
        window = _exactly(self.regress, self.reduce(self.features(pictures))) * self.pace
        return BoundaryPenalty.apply(window), None


class AttentionLocNet(nn.Module):
    """Where to look, by attention: pictures (n, 3, h, w) → windows (n, 3) as s, t_x, t_y, and glimpse scores (n,).

    The centre is the mean place under a softmax over the map; it is kept so that the window stays inside the picture.
    The glimpse score is the mean, under the same softmax, of a score at every place: ranking it as well teaches the
    attention directly where the gradient through the window is still faint.
    """

    def __init__(self, features: nn.Module, geometry: Geometry, recipe: Recipe) -> None:
        super().__init__()
        self.features, self.stride, self.first, self.recipe = features, geometry.stride, geometry.first, recipe
        self.attend = _calm(
            nn.Sequential(nn.Conv2d(geometry.channels, 128, 1), nn.ReLU(inplace=True), nn.Conv2d(128, 2, 1))
        )
        self.register_buffer("scale", torch.tensor(recipe.wide))
        self.register_buffer("noise", torch.tensor(recipe.noise))

    def set_progress(self, progress: float) -> None:
        """Shrink the window and reduce its noise; `progress` runs from 0 to 1 during training."""
        left = max(0.0, 1 - progress)
        self.scale.fill_(self.recipe.narrow + (self.recipe.wide - self.recipe.narrow) * left)
        self.noise.fill_(self.recipe.noise * left)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        window, glimpse = _exactly(self._window, self.features(pictures), pictures.shape)
        return window, glimpse if self.recipe.glimpse else None

    def _window(self, features: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Features of pictures of this shape → windows and glimpse scores."""
        attention, value = self.attend(features).unbind(1)  # (n, h, w) each
        n, height, width = attention.shape
        share = attention.flatten(1).softmax(1).view(n, height, width)
        glimpse = (share * value).sum((1, 2))
        x, y = (self._places(*each, share) for each in ((width, shape[3]), (height, shape[2])))
        centre = torch.stack([share.sum(1) @ x, share.sum(2) @ y], dim=1)
        if self.training:
            noise = torch.randn(distributed.whole(n), 2, device=centre.device, dtype=centre.dtype)
            centre = centre + self.noise * distributed.own(noise)
        centre = centre.clamp(self.scale - 1, 1 - self.scale)
        return torch.cat([self.scale.expand(n, 1), centre / self.scale], dim=1), glimpse

    def _places(self, cells: int, pixels: int, like: Tensor) -> Tensor:
        """Where in a picture of so many pixels, from −1 to 1, the middle of each cell's receptive field lies."""
        places = self.first + self.stride * torch.arange(cells, device=like.device, dtype=like.dtype)
        return places / pixels * 2 - 1


class RankNet(nn.Module):
    """Scoring: `views` pictures of each image (n, 3, h, w) → score (n,)."""

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.extractor, self.head = extractor, head

    def forward(self, *views: Tensor) -> Tensor:
        features = self.extractor(torch.cat(views)).chunk(len(views))  # one pass: the views share the weights
        return _exactly(self.head, torch.cat(features, dim=1)).squeeze(1)


class SiameseNet(nn.Module):
    """Scores pictures, or both sides of pairs in one pass."""

    def __init__(
        self,
        model_name: str = "alexnet",
        model_type: int = 1,
        weights: str = "imagenet",
        recipe: str | Recipe = "modern",
        image_size: int = 224,
        batch_norm: bool | None = None,
    ) -> None:
        """`batch_norm`: normalise after each of AlexNet's convolutions (small head, type 0); by default where the
        weights are none, for pretrained ones were learned without."""
        super().__init__()
        self.model_type, self.recipe, self.image_size = model_type, named_recipe(recipe), image_size
        # A window of 0.4 of a picture holds no more than this many pixels of it; singh2016 magnifies it to the whole.
        # AlexNet's poolings need 63.
        self.window_size = max(64, round(image_size * self.recipe.resolution))
        batch_norm = weights == "none" if batch_norm is None else batch_norm
        self.ranknet = _ranknet(model_name, model_type, weights, self.recipe, batch_norm)
        self.locnet = _locnet(self.ranknet, model_name, weights, self.recipe) if model_type else None
        self.to(memory_format=torch.channels_last)  # on a CPU AlexNet trains 4 to 30 % faster

    def score(self, pictures: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Pictures (n, 3, h, w), normalised → scores (n,), windows (n, 3: s, t_x, t_y) and glimpse scores (n,).

        No window for type 0; no glimpse for type 0 and where the recipe has none.
        """
        if self.locnet is None:
            return self.ranknet(pictures), None, None
        window, glimpse = self.locnet(pictures)
        seen = look(pictures, window, self.window_size)
        views = (seen,) if self.model_type == 1 else (seen, _resized(pictures, seen))
        return self.ranknet(*views), window, glimpse

    def forward(self, picture_1: Tensor, picture_2: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides of pairs → their scores (n,), (n,)."""
        return self.score(torch.cat([picture_1, picture_2]))[0].chunk(2)

    @torch.inference_mode()
    def rank(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kept pictures (n, 3, s, s), uint8 → scores (n,) and windows on the whole pictures (n, 3; None for type 0).

        Of the whole picture, or where the recipe says so the mean score over ten crops.
        """
        self.eval()
        if not self.recipe.ten_crops:
            return self.score(transforms.whole(batch))[:2]
        crops = transforms.ten_crops(batch, self.image_size)
        window = self.locnet(transforms.whole(batch))[0] if self.locnet else None
        return torch.stack([self.score(view)[0] for view in crops]).mean(0), window

    def set_progress(self, progress: float) -> None:
        if isinstance(self.locnet, AttentionLocNet):
            self.locnet.set_progress(progress)


def from_checkpoint(path: str) -> tuple[SiameseNet, dict[str, Any]]:
    """The ranker of a checkpoint, ready to `rank`, and all that the checkpoint holds. Raises UserError."""
    state = load_checkpoint(path, "siamese")
    model = untrained(state)
    model.load_state_dict(state["model"])
    return model.eval(), state


def untrained(state: dict[str, Any]) -> SiameseNet:
    """The network of a checkpoint with newly initialised weights."""
    config = {name: state["config"][name] for name in ("model_name", "model_type", "image_size")}
    batch_norm = state["config"]["weights"] == "none"
    return SiameseNet(weights="none", batch_norm=batch_norm, recipe=recipe_of(state), **config)


def _ranknet(model_name: str, model_type: int, weights: str, recipe: Recipe, batch_norm: bool) -> RankNet:
    """Head small: the feature map pooled to the recipe's cells under a head of one hidden layer. Head fc7: AlexNet up
    to fc7 (4096), any other network's map pooled to 2×2 (of DenseNet-121 1024·4), and one linear layer."""
    model, views = load_network(model_name, weights, "published"), 2 if model_type == 2 else 1
    features = feature_map(model, model_name)
    # DenseNet applies its last ReLU outside of its features. After AlexNet's and VGG's pooling it changes nothing.
    relu = nn.ReLU() if isinstance(model, AlexNet | VGG | DenseNet) else nn.Identity()
    if recipe.head == "small":
        if batch_norm and (model_name, model_type) == ("alexnet", 0):
            features = _normalised(features)
        extractor = nn.Sequential(features, relu, nn.AdaptiveAvgPool2d(recipe.pool), nn.Flatten())
        hidden = nn.Linear(channels_of(features) * recipe.pool**2 * views, 256)
        layers = nn.Dropout(), hidden, nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(256, 1)
        return RankNet(extractor, _calm(nn.Sequential(*layers)))
    if isinstance(model, AlexNet):  # dropout, fc6, ReLU, dropout, fc7, ReLU
        extractor, width = nn.Sequential(features, model.avgpool, nn.Flatten(), *model.classifier[:6]), 4096
    else:
        extractor = nn.Sequential(features, relu, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        width = channels_of(features) * 4
    score = nn.Linear(width * views, 1)
    nn.init.xavier_uniform_(score.weight)
    nn.init.zeros_(score.bias)
    return RankNet(extractor, score)


def _locnet(ranknet: RankNet, model_name: str, weights: str, recipe: Recipe) -> LocNet | AttentionLocNet:
    """Regression on a map of its own; attention on the ranker's convolutions, or on a copy of them."""
    if recipe.locnet == "regression":
        features = feature_map(load_network(model_name, weights, "published"), model_name)
        return LocNet(features, channels_of(features))
    features = before_pooling(ranknet.extractor[0] if recipe.shared else copy.deepcopy(ranknet.extractor[0]))
    return AttentionLocNet(features, geometry(features), recipe)


def _normalised(features: nn.Sequential) -> nn.Sequential:
    """The same convolutions, each followed by a batch normalisation of its own."""
    layers = []
    for layer in features:
        layers += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*layers)


def _calm(layers: nn.Sequential) -> nn.Sequential:
    """He's initialisation with a last layer a tenth as large: the first scores are all but equal, the first window
    lies in the middle, and no time is lost in taking back what chance had put there."""
    he_initialised(layers)
    with torch.no_grad():
        layers[-1].weight.mul_(0.1)
    return layers


def _exactly(layers: Callable, features: Tensor, *words: Any) -> Any:
    """Outside autocast: to three digits, as bf16 has them, scores would tie and windows would jump."""
    with without_autocast(features.device):
        return layers(features.float(), *words)


def look(pictures: Tensor, window: Tensor, size: int | None = None) -> Tensor:
    """The content of the windows (n, 3) on pictures (n, 3, h, w), size×size (default h×w), differentiable in both.

    Beyond the picture's border, its edge is repeated.
    """
    s, t_x, t_y = window.float().unbind(1)
    zero = torch.zeros_like(s)
    theta = torch.stack([s, zero, s * t_x, zero, s, s * t_y], dim=1).view(-1, 2, 3)
    height, width = (size, size) if size else pictures.shape[-2:]
    with without_autocast(pictures.device):  # which would round where to sample
        grid = F.affine_grid(theta, [len(pictures), 3, height, width], align_corners=False)
        return F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)


def boxes(window: Tensor, sizes: Tensor) -> Tensor:
    """Windows (n, 3) on pictures of sizes (n, 2: width, height) → boxes (n, 4: x, y, w, h) in pixels, float64.

    A window may extend beyond its picture, and so does its box.
    """
    s, t_x, t_y = window.double().cpu().unbind(1)
    centre = torch.stack([s * t_x + 1, s * t_y + 1], dim=1) / 2 * sizes
    side = s[:, None].abs() * sizes
    return torch.cat([centre - side / 2, side], dim=1)


def _resized(pictures: Tensor, like: Tensor) -> Tensor:
    same = pictures.shape[-2:] == like.shape[-2:]
    return pictures if same else F.interpolate(pictures, like.shape[-2:], mode="bilinear", antialias=True)

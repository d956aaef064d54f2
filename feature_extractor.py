"""The backbones, cut at their features; the features of a folder of pictures to one file.

    python feature_extractor.py FOLDER --output features.npz [--model_name alexnet] [--weights imagenet|none|FILE]

Features of a picture of 224 pixels: AlexNet 256×6×6, VGG-16 512×7×7, ResNet-101 2048, DenseNet-121 1024. The file holds
`names`, `features` (n, d; float32), and which network, weights and transform made them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from tqdm import tqdm

from transforms import UnusablePicture, decode, to_square, whole
from utils import UserError, print_configuration, run_main, seed_everything, select_device, sha256, written_whole

# The study's four networks, by the names of its flags; any other torchvision classification model goes by its own name.
NETWORKS = {"alexnet": "alexnet", "vgg": "vgg16", "resnet": "resnet101", "densenet": "densenet121"}
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


def load_network(model_name: str, weights: str) -> nn.Module:
    """A torchvision classification network with its 1000 outputs.

    `weights` is 'imagenet' (torchvision's default weights), 'none' (He et al. 2015 initialisation) or the path of a
    torchvision state dict, loaded strictly. Raises UserError where the name is unknown or the weights cannot be had.
    """
    name = NETWORKS.get(model_name, model_name)
    if name not in torchvision.models.list_models(module=torchvision.models):
        others = ", ".join(torchvision.models.list_models(module=torchvision.models))
        raise UserError(f"unknown model {model_name!r}; known are {', '.join(NETWORKS)}, and torchvision's {others}")
    if weights == "imagenet":
        return _from_the_network(name)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    if weights == "none":
        return he_initialised(model)
    load_state(model, weights)
    return model


def _from_the_network(name: str) -> nn.Module:
    try:
        return torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network, or a download whose hash is wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the ImageNet weights of {name} cannot be fetched ({reason}): "
            "use --weights none to train from nothing, or --weights FILE with a torchvision state dict"
        ) from error


def load_state(model: nn.Module, path: str | Path) -> None:
    """Load a state dict strictly; a UserError names the first key that does not fit."""
    if not Path(path).is_file():
        raise UserError(f"--weights {path}: no such file (known besides files: imagenet, none)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file that is not one of its own
        raise UserError(f"--weights {path} is not a torch file: {str(error).splitlines()[0]}") from error
    own = model.state_dict()
    if not isinstance(state, dict):
        raise UserError(f"--weights {path} holds no state dict")
    for key in [*own, *state]:
        if key not in state:
            raise UserError(f"--weights {path} lacks the key {key}")
        if key not in own:
            raise UserError(f"--weights {path} has a key that the network lacks: {key}")
        if state[key].shape != own[key].shape:
            raise UserError(
                f"--weights {path}: {key} is {tuple(state[key].shape)}, the network's {tuple(own[key].shape)}"
            )
    model.load_state_dict(state)


def he_initialised(model: nn.Module) -> nn.Module:
    """He et al. 2015's initialisation of every convolution and linear layer, biases 0.

    Torchvision's own default for AlexNet keeps so little of the signal over eight layers that it hardly starts to learn.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def backbone(model_name: str, weights: str) -> nn.Module:
    """The network cut at its features: pictures (n, 3, h, w), normalised → features (n, …) of the shapes above."""
    model = load_network(model_name, weights)
    if hasattr(model, "features") and hasattr(model, "avgpool"):  # AlexNet, VGG: a map of fixed size
        return nn.Sequential(model.features, model.avgpool)
    if hasattr(model, "features"):  # DenseNet: its map's mean, as its own head takes it
        return nn.Sequential(model.features, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if not hasattr(model, "fc"):
        raise UserError(f"{model_name} cannot be cut at its features: it has neither `features` nor `fc`")
    model.fc = nn.Identity()
    return model


@torch.inference_mode()
def extract(model: nn.Module, batch: Tensor, device: torch.device) -> np.ndarray:
    """Features (n, d) of a batch of uint8 pictures (n, 3, s, s)."""
    return model.eval()(whole(batch.to(device))).flatten(1).float().cpu().numpy()


def list_pictures(folder: str | Path) -> list[Path]:
    """The picture files under a folder, in order of their names."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return paths


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--output", required=True, metavar="FILE.npz")
    parser.add_argument("--model_name", default="alexnet", help=", ".join(NETWORKS) + ", or torchvision's own name")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none or a torchvision state dict")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, with --weights none")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "features")
    seed_everything(args.seed)
    device = select_device(args.device)
    paths = list_pictures(args.folder)
    model = backbone(args.model_name, args.weights).to(device)
    names, features, batch = [], [], []
    for path in tqdm(paths, disable=None):
        try:
            batch.append(to_square(decode(path), args.image_size))
            names.append(str(path.relative_to(args.folder)))
        except UnusablePicture as fault:
            print(f"  left out: {path}: {fault}")
        if len(batch) == args.batch_size or path is paths[-1] and batch:
            features.append(extract(model, torch.from_numpy(np.stack(batch)), device))
            batch = []
    if not names:
        raise UserError(f"none of the {len(paths)} pictures of {args.folder} can be used")
    source = sha256(args.weights) if Path(args.weights).is_file() else args.weights
    with written_whole(args.output) as beside, open(beside, "wb") as file:
        about = {"model_name": args.model_name, "weights": source, "image_size": args.image_size, "seed": args.seed}
        np.savez(file, names=np.array(names), features=np.concatenate(features), **about)
    print(f"{len(names)} pictures, {features[0].shape[1]} features each → {args.output}")


if __name__ == "__main__":
    run_main(main)

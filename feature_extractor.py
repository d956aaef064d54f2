"""Extract features of pictures with a backbone truncated at its features, into one file.

    python feature_extractor.py SOURCE --output features.npz [--model_name alexnet] [--weights imagenet|none|FILE]

SOURCE is a folder of pictures, a tar of them, a text file that names one of these per line, a picture, or a data set.
Features of a picture of 224 pixels: AlexNet 256×6×6, VGG-16 512×7×7, ResNet-101 2048, DenseNet-121 1024; with
`--cut last`, the input of the last layer: AlexNet and VGG 4096, the others as before. The file contains `names` (paths
relative to the folder, or the img_ids of a data set), `features` (n, d; float32), `left_out` and `reasons` of unusable
pictures, and `about`: a JSON object with the network, its weights and their hash, and the transform. A killed run
resumes where it stopped. `torchrun --nproc_per_node N feature_extractor.py …` divides the batches among N processes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import data_set
import distributed
import transforms
from backbones import CUTS, NETWORKS, backbone, check_size, cut_off, trained_part, weights_hash
from decoding.decoder import MAX_PIXELS
from device import autocast, seed_everything, select_device
from locks import alone
from pictures.left_out import UNREADABLE, LeftOut
from pictures.sources import Source, Tell, decoded, list_sources
from precision import for_scoring
from transforms import whole
from utils import (
    UserError,
    at_least,
    check_outputs,
    print_configuration,
    run_main,
    written_whole,
)


@torch.inference_mode()
def extract(model: nn.Module, batch: Tensor, device: torch.device, amp: bool | None = False) -> np.ndarray:
    """Features (n, …) of a batch of uint8 pictures (n, 3, s, s)."""
    with autocast(device, amp):
        features = model.eval()(whole(batch.to(device)))
    return features.float().cpu().numpy()


# --- feature files --------------------------------------------------------------------------------------------------
class Features(NamedTuple):
    """The content of a feature file: names (n,), features (n, …; float32), pictures left out, and provenance."""

    names: np.ndarray
    features: np.ndarray
    left_out: np.ndarray
    reasons: np.ndarray
    about: dict[str, Any]

    def batch(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[np.asarray(rows)])


def describe(
    model: nn.Module, model_name: str, weights: str, cut: str, image_size: int, amp: bool | None
) -> dict[str, Any]:
    """Everything that determines a picture's features: network, weights, cut, transform and precision."""
    return {
        "model_name": model_name,
        "weights": str(weights),
        "weights_sha256": weights_hash(model),
        "cut": cut,
        "transform": transforms.describe(image_size),
        "amp": bool(amp),
    }


def write_features(
    output: str | Path,
    names: Sequence[Any],
    read: Callable[[int, int], list[tuple[np.ndarray | None, str]]],
    model: nn.Module,
    about: dict[str, Any],
    device: torch.device,
    batch_size: int = 64,
    stamps: Sequence[str] = (),
) -> Features:
    """Compute features in batches and write them to one file; batches that a killed run has finished are kept.

    `read(start, stop)` gives (pixels or None, why not) of these of the names. `stamps`, one a name, tell whether a
    picture has been replaced since then.
    """
    output = Path(output)
    parts = output.with_name(f".{output.name}.{_digest(about)}.parts")  # they belong to this network alone
    parts.mkdir(parents=True, exist_ok=True)
    bounds = [(start, min(start + batch_size, len(names))) for start in range(0, len(names), batch_size)]
    of_batches = [slice(*bound) for bound in bounds]  # and each to its pictures
    paths = [parts / f"{_digest([[str(name) for name in names[i]], list(stamps[i])])}.npz" for i in of_batches]
    if done := sum(path.exists() for path in paths):
        print(f"resuming: {done} of {len(paths)} batches are computed", flush=True)
    mine = slice(distributed.rank(), None, distributed.world())
    for (start, stop), part in tqdm(list(zip(bounds, paths, strict=True))[mine], "features", disable=None):
        if part.exists():
            continue
        begin = time.perf_counter()
        found = read(start, stop)
        usable = [pixels for pixels, _ in found if pixels is not None]
        features = extract(model, torch.from_numpy(np.stack(usable)), device, about["amp"]) if usable else np.empty(0)
        with written_whole(part) as beside, open(beside, "wb") as file:
            reasons = np.array([reason for _, reason in found])
            np.savez(file, features=features, reasons=reasons, seconds=time.perf_counter() - begin)
    distributed.barrier()
    found = _join(output, paths, np.asarray(names), about) if distributed.rank() == 0 else None
    distributed.barrier()
    return found or read_features(output)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _join(output: Path, paths: list[Path], names: np.ndarray, about: dict[str, Any]) -> Features:
    loaded = [dict(np.load(path)) for path in paths]
    reasons = np.concatenate([part["reasons"] for part in loaded])
    usable = reasons == ""
    if not usable.any():
        shutil.rmtree(paths[0].parent)
        raise UserError(f"none of the {len(names)} pictures can be used; {names[0]}: {reasons[0]}")
    features = np.concatenate([part["features"] for part in loaded if len(part["features"])])
    about = about | {"seconds": float(sum(part["seconds"] for part in loaded))}
    found = Features(names[usable], features, names[~usable], reasons[~usable], about)
    with written_whole(output) as beside, open(beside, "wb") as file:
        np.savez(file, **found._asdict() | {"about": np.array(json.dumps(about))})
    shutil.rmtree(paths[0].parent)
    return found


def read_features(path: str | Path) -> Features:
    """Read a file written by `write_features`; raises UserError for anything else."""
    if Path(path).exists() and not zipfile.is_zipfile(path):  # numpy would advise to unpickle it
        raise UserError(f"{path} is not a feature file of this project: not an .npz file, or only part of one")
    try:
        with np.load(path) as file:
            return Features(*(file[name] for name in Features._fields[:-1]), json.loads(str(file["about"])))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # numpy and zipfile raise many types for a file that is not one of ours
        raise UserError(f"{path} is not a feature file of this project: {str(error).splitlines()[0]}") from error


# --- of a data set, computed once -----------------------------------------------------------------------------------
def load_features(
    model: nn.Module,
    pictures: data_set.Pictures,
    processed: Path,
    *,
    model_name: str,
    weights: str,
    cut: str,
    image_size: int,
    amp: bool | None,
    device: torch.device,
) -> Features:
    """Features of `pictures`, row by row, from a file under `processed`, which is computed if necessary.

    `about["seconds"]` is what computing them took. The network is left as it was.
    """
    name = trained_part(model, cut)
    part = model.get_submodule(name)
    body = cut_off(model, cut)
    about = describe(body, model_name, weights, cut, image_size, amp) | {"pictures": pictures.stamp}
    side, digits = about["transform"]["side"], about["weights_sha256"][:12]
    path = processed / f"features_{model_name}_{cut}_{side}_{digits}.npz"
    found = None
    if path.is_file():
        found = read_features(path)
        fits = {key: found.about.get(key) for key in about} == about
        found = found if fits and list(found.names) == list(pictures.img_ids) else None
    if found is None:
        body = copy.deepcopy(body)  # the network is left in its own layout
        lay_out_fastest(body, f"{model_name}, cut {cut}", side, len(pictures), device, amp)
        every = np.arange(len(pictures))

        def read(start: int, stop: int) -> list[tuple[np.ndarray, str]]:
            return [(pixels, "") for pixels in pictures.batch(every[start:stop]).numpy()]

        found = write_features(path, pictures.img_ids, read, body, about, device)
    print(f"features: {path} ({len(found.names)} pictures, computed in {found.about['seconds']:.2f} s)", flush=True)
    model.set_submodule(name, part)
    return found


def lay_out_fastest(
    body: nn.Module,
    what: str,
    side: int,
    total: int,
    device: torch.device,
    amp: bool | None,
    deterministic: bool = False,
) -> None:
    """Put the network in its fastest layout. The precision is not up to the machine: features are kept, and compared
    with those of other machines."""
    options = {"amp": bool(amp), "deterministic": deterministic}
    for_scoring(f"features {what}", body, lambda network, batch: network(whole(batch)), side, total, device, **options)


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("source", metavar="SOURCE", help="folder, archive, list, address, picture, or a data set with images/")
    flag("--output", required=True, metavar="FILE.npz")
    flag("--left_out", metavar="FILE", help="write the path of each unused file and the reason")
    flag(
        "--max_pixels", type=at_least(1), default=MAX_PIXELS, help="pixels of the largest picture (default %(default)s)"
    )
    flag("--model_name", default="alexnet", help=", ".join(NETWORKS) + ", or torchvision's name of a network")
    flag("--weights", default="imagenet", help="imagenet, none or a torchvision state dict")
    flag("--cut", default="published", choices=CUTS, help="truncate before the head, or before its last layer")
    flag("--image_size", type=at_least(32), default=224)
    flag("--batch_size", type=at_least(1), default=64)
    flag("--num_workers", type=at_least(0), default=2, help="threads that decode pictures")
    flag("--device", default="auto")
    flag("--amp", action=argparse.BooleanOptionalAction, default=False, help="bf16 autocast")
    flag("--deterministic", action="store_true", help="do not time memory layouts to choose the fastest")
    flag("--seed", type=at_least(0), default=0, help="random seed of the weights, with --weights none")
    return parser.parse_args(words)


def named_sources(source: str, left_out: Tell) -> tuple[list[Source], list[str]]:
    """The pictures, and what the file calls them: img_id in a data set, the path in a folder, else the whole path."""
    folder = Path(source)
    if (folder / "datasets").is_dir() and (folder / "images").is_dir():
        sources = list(list_sources(folder / "images", left_out))
        return sources, [Path(each.path).stem for each in sources]
    sources = list(list_sources(source, left_out))
    return sources, [os.path.relpath(each.path, folder) if folder.is_dir() else each.path for each in sources]


def main() -> None:
    args = parse_arguments()
    check_outputs({"--output": args.output, "--left_out": args.left_out}, [args.source, args.weights])
    distributed.join(args.device)
    print_configuration(args, "features")
    seed_everything(args.seed)
    device = select_device(args.device)
    mine = alone(args.output, args.left_out) if distributed.rank() == 0 else contextlib.nullcontext()
    with mine, LeftOut(args.left_out) as left_out:
        sources, names = named_sources(args.source, left_out)
        model = backbone(args.model_name, args.weights, args.cut).to(device)
        side = transforms.stored_side(args.image_size)
        check_size(model, side)
        truncated = 0

        def read(start: int, stop: int) -> list[tuple[np.ndarray | None, str]]:
            nonlocal truncated
            found = list(decoded(sources[start:stop], side, args.num_workers, args.max_pixels))
            truncated += sum(each.note != "" for each in found)
            return [(each.pixels, each.fault) for each in found]

        name = f"{args.model_name}, cut {args.cut}"
        lay_out_fastest(model, name, side, len(sources), device, args.amp, args.deterministic)
        about = describe(model, args.model_name, args.weights, args.cut, args.image_size, args.amp)
        stamps = [f"{each.stamp} {args.max_pixels}" for each in sources]
        found = write_features(args.output, names, read, model, about, device, args.batch_size, stamps)
        for name, reason in zip(found.left_out, found.reasons, strict=True):
            print(f"  left out: {name}: {reason}")
            left_out(str(name), str(reason), UNREADABLE)
    if truncated:
        print(f"{truncated} pictures are truncated after their last pixel; they are used")
    shape = "×".join(map(str, found.features.shape[1:]))
    print(f"{len(found.names)} pictures, {shape} features each → {args.output}")
    print(left_out)


if __name__ == "__main__":
    run_main(main)

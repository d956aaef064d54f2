"""Load pretrained weights from any source: unwrap the state dict and rename its keys to torchvision's current names."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils import UserError

WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema", "net")  # of checkpoints
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # of DataParallel, torch.compile, Lightning and others
# DenseNet's layers were called norm.1, conv.2 until torch 0.4 forbade the dot; the published files still have it.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a torch or safetensors file, without running any code in it.

    Raises UserError for anything else, in one line that names the file: an HTML page, an empty file, a tensor with NaN
    or infinite values.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"--weights {path} is not a file")
    if not path.is_file():
        raise UserError(f"--weights {path}: no such file (other valid values: imagenet, none)")
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise UserError(f"--weights {path} is empty")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"--weights {path} is not a torch file but an HTML page, as a failed download leaves it")
    state = _unwrapped(_safetensors(path) if start[8:9] == b"{" else _torch(path))
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"--weights {path} does not contain a state dict")
    state = {str(key): value for key, value in state.items()}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"--weights {path}: {key} is not a tensor")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise UserError(f"--weights {path}: {key} is sparse, quantised, complex or without values")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise UserError(f"--weights {path}: {key} contains NaN or infinite values")
    return state


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of other kinds of file, which end in an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types, and advises to switch its safety off
        raise UserError(
            f"--weights {path} is not a torch file that contains only tensors ({type(error).__name__})"
        ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"--weights {path} is a safetensors file: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:
        raise UserError(f"--weights {path} is a broken safetensors file: {str(error).splitlines()[0]}") from error


def _unwrapped(state: Any) -> Any:
    """What lies in a checkpoint's `state_dict`, or the like."""
    while isinstance(state, dict) and not any(isinstance(value, Tensor) for value in state.values()):
        name = next((name for name in WRAPPERS if isinstance(state.get(name), dict)), None)
        if name is None:
            break
        state = state[name]
    return state


def renamed(state: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """The same tensors under a network's own keys `own`: common prefixes are removed, and old names replaced by new
    ones."""
    while state and not own & set(state):
        prefix = next((each for each in PREFIXES if all(key.startswith(each) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


def load_weights(model: nn.Module, path: str | Path, fresh: str | None = None) -> None:
    """Load the weights of a file into a network, and print in one line what was loaded and what starts from scratch.

    All keys must match, except that counters of batch normalisation may be missing (old files), and that layers of the
    part `fresh` (its dotted name; None for none), which is replaced or retrained, may be missing or of another size.
    Raises UserError with the first key that does not match.
    """
    own = model.state_dict()
    state = renamed(read_state(path), set(own))
    may_lack = (lambda key: key.startswith(f"{fresh}.")) if fresh else (lambda key: False)
    left = []
    for key, value in own.items():
        if key not in state:
            if not key.endswith("num_batches_tracked") and not may_lack(key):
                raise UserError(f"--weights {path} lacks the key {key}")
            left.append(key)
        elif state[key].shape != value.shape:
            if not may_lack(key):
                shapes = f"{tuple(state[key].shape)}, the network's {tuple(value.shape)}"
                raise UserError(f"--weights {path}: {key} is {shapes}")
            left.append(key)
        elif state[key].is_floating_point() != value.is_floating_point():
            raise UserError(f"--weights {path}: {key} is {state[key].dtype}, but the network's is {value.dtype}")
    for key in state:
        if key not in own and not may_lack(key):
            raise UserError(f"--weights {path} has a key that the network does not have: {key}")
    taken = {key: value for key, value in state.items() if key in own and key not in left}
    if not taken:
        raise UserError(f"--weights {path} has no weights of this network")
    model.load_state_dict(taken, strict=False)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in left if not key.endswith("num_batches_tracked")))
    rest = f"; starts fresh: {', '.join(layers)}" if layers else ""
    print(f"weights: {len(taken)} of {len(own)} tensors loaded from {path}{rest}", flush=True)

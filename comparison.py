"""Compare networks: what they cost, what they reach, which of them no other beats, and which one to carry on with.

`train_classifier.py --compare` and the notebooks call it. Nothing here trains.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from siamese_net import RANKERS


def multiply_adds(model: nn.Module, side: int) -> int:
    """Multiplications with an addition for one picture of side×side, of convolutions and matrix products."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side, device=device))
    return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, where the device or (for the process itself) Linux lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """MiB at the peak since `reset_peak_memory`: of the CUDA device's tensors, else of this whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):
        unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def row_of(model_name: str, results: dict[str, Any]) -> dict[str, Any]:
    """A network's row, from the results.json of its run."""
    test = results["test"]
    figures = {key: test[key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
    kept = ("parameters", "multiply_adds", "train_images_per_second", "peak_memory_mib", "file_mib", "train_seconds")
    return {
        "model": model_name,
        **figures,
        **{key: results[key] for key in kept},
        "inference_images_per_second": results["images_per_second"],
    }


def pareto_front(table: pd.DataFrame, best_high: tuple[str, ...] = ("accuracy", "inference_images_per_second")) -> list:
    """For each row whether no other is at least as good in all of these columns and better in one."""
    values = table[list(best_high)].to_numpy(float)
    return [bool(not np.any((values >= row).all(axis=1) & (values > row).any(axis=1))) for row in values]


def choose(table: pd.DataFrame) -> tuple[str, str]:
    """The network to carry on with, and why: of those within the best one's interval the fastest to train."""
    best = table.loc[table["accuracy"].idxmax()]
    as_good = table[table["accuracy"] >= best["accuracy_low"]]
    chosen = as_good.loc[as_good["train_images_per_second"].idxmax()]
    reason = (
        f"its accuracy {chosen['accuracy']:.4f} lies within the interval of the best, {best['model']} "
        f"({best['accuracy_low']:.4f} to {best['accuracy_high']:.4f}), and of "
        f"{', '.join(as_good['model'])} it trains fastest ({chosen['train_images_per_second']:.1f} images/s)"
    )
    return str(chosen["model"]), reason


def choice_of(table: pd.DataFrame) -> dict[str, Any]:
    """What choice.json holds: the network chosen, the one among those that the ranker can carry, why, and the front."""
    model_name, reason = choose(table)
    carried = table[table["model"].isin(RANKERS)]
    return {
        "model_name": model_name,
        "ranker_model_name": choose(carried)[0] if len(carried) else RANKERS[0],
        "reason": reason,
        "pareto_front": list(table["model"][table["pareto"]]),
        "compared": list(table["model"]),
    }


def as_text(table: pd.DataFrame) -> str:
    """The table for a terminal."""
    shown = pd.DataFrame({"model": table["model"]})
    shown["test accuracy (95 %)"] = [
        f"{row.accuracy:.4f} ({row.accuracy_low:.4f} to {row.accuracy_high:.4f})" for row in table.itertuples()
    ]
    shown["parameters (M)"] = (table["parameters"] / 1e6).map("{:.1f}".format)
    shown["multiply-adds (G)"] = (table["multiply_adds"] / 1e9).map("{:.2f}".format)
    shown["training images/s"] = table["train_images_per_second"].map("{:.1f}".format)
    shown["inference images/s"] = table["inference_images_per_second"].map("{:.1f}".format)
    shown["peak memory (MiB)"] = table["peak_memory_mib"].map("{:.0f}".format)
    shown["file (MiB)"] = table["file_mib"].map("{:.1f}".format)
    shown["trained in (s)"] = table["train_seconds"].map("{:.0f}".format)
    shown["Pareto front"] = np.where(table["pareto"], "yes", "")
    return shown.to_string(index=False)

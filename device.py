"""The device to compute on, its precision and memory, and the seeds of every random number generator."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import UserError


# --- seeds ----------------------------------------------------------------------------------------------------------
def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's generators (on every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, as tensors and numbers that a checkpoint can hold."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["device"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the states returned by `rng_state`."""
    version_, numbers, gauss = state["python"]
    random.setstate((version_, tuple(numbers), gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "device" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["device"])


# --- the device -----------------------------------------------------------------------------------------------------
def select_device(name: str) -> torch.device:
    """`auto` selects a CUDA device (the first; under torchrun one per process), else Apple's MPS, else the CPU.

    Raises UserError for a device that is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(1, torch.cuda.device_count())}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # whose random numbers `rng_state` means
            torch.set_float32_matmul_precision("high")  # TF32 where the device has it
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


# --- precision ------------------------------------------------------------------------------------------------------
def autocast(device: torch.device, amp: bool | None) -> contextlib.AbstractContextManager:
    """bf16 autocast if requested or, by default, if the device has hardware support for it (`fast_in_bf16`)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_in_bf16(device) if amp is None else amp)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Compute in the tensors' own precision, even inside `autocast`. The meta device has no autocast."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else contextlib.nullcontext()


def fast_in_bf16(device: torch.device) -> bool:
    """Whether this is a CUDA device with bf16, or a CPU with AMX, which is 2 to 3 times as fast in it.

    Other CPUs are slower in bf16 than in fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all pending work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


# --- memory ---------------------------------------------------------------------------------------------------------
def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak, where the device or (for the process itself) Linux allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB since `reset_peak_memory`: of the CUDA device's tensors, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):
        return _peak_elsewhere()


def _peak_elsewhere() -> float:
    """MiB at the peak of this process; NaN if the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

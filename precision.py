"""The fastest precision and memory layout for a network on this machine: timed on a few steps, and cached."""

from __future__ import annotations

import contextlib
import copy
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import distributed
from device import autocast, fast_in_bf16, synchronise
from utils import UserError, read_json, write_json

WORTH = 200  # steps: a shorter run would be over before measuring pays
MANY = 2000  # pictures: the same of scoring
TRIALS = 3  # of each candidate, after a first one that pays for what is set up once
SLOW = 2.0  # a candidate whose first step takes so many times the quickest one's is not tried again
SECONDS = 4.0  # after which no further trial is begun


class Precision(NamedTuple):
    """What a network computes in: bf16 autocast or fp32, channels last or contiguous."""

    amp: bool
    channels_last: bool

    def __str__(self) -> str:
        return f"{'bf16' if self.amp else 'fp32'}, {'channels last' if self.channels_last else 'contiguous'}"


CANDIDATES = [Precision(amp, channels_last) for amp in (False, True) for channels_last in (False, True)]


def usual(device: torch.device) -> Precision:
    """The default if nothing is measured: bf16 if the device has hardware support for it, channels last."""
    return Precision(fast_in_bf16(device), True)


def lay_out(network: nn.Module, precision: Precision) -> nn.Module:
    """The network with its weights in this memory layout."""
    return network.to(memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)


def choose(
    what: str,
    trial: Callable[[Precision], Callable[[], Any]],
    device: torch.device,
    *,
    amp: bool | None = None,
    steps: int = WORTH,
    kept: Precision | None = None,
    otherwise: Precision | None = None,
    deterministic: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Precision:
    """The fastest of fp32 and bf16, contiguous and channels last, for a workload; reported in one line.

    `what` names the network, the work and the batch. `trial(precision)` sets up the work on a copy of the network and
    returns a function that does one step of it. `amp` fixes the precision unless it is None. `kept` is the setting of a
    resumed run, which is used whatever is faster here. Nothing is measured for fewer than WORTH steps, with
    `deterministic`, and on several processes, which have to agree: `otherwise` or the default is used. Earlier
    measurements on this machine are reused.
    """
    otherwise = otherwise or usual(device)
    otherwise = otherwise if amp is None else otherwise._replace(amp=amp)
    if kept is not None:
        kept = kept if amp is None else kept._replace(amp=amp)
        print(f"precision: {kept}, as the checkpoint has it")
        return kept
    if deterministic or distributed.world() > 1:
        return otherwise
    name = f"{machine(device)} | {what} | {'any' if amp is None else 'bf16' if amp else 'fp32'}"
    rates, how = remembered(name), "measured before"
    if not rates and steps < WORTH:
        return otherwise
    if not rates:
        rates = measure(trial, [each for each in CANDIDATES if amp in (None, each.amp)], device, clock)
        remember(name, rates)
        how = "measured"
    best = fastest(rates)
    others = ", ".join(f"{p} {rates[best] / rate:.2f}" for p, rate in rates.items() if p != best)
    print(f"precision: {best}, {how}; times as fast as {others}")
    return best


def for_scoring(
    what: str,
    network: nn.Module,
    score: Callable[[nn.Module, Tensor], Any],
    side: int,
    total: int | None,
    device: torch.device,
    *,
    batch_size: int = 64,
    amp: bool | None = None,
    deterministic: bool = False,
    otherwise: Precision | None = None,
) -> bool:
    """Whether to score `total` pictures of this side in bf16; the network is put in the layout that goes with it.

    `score(network, batch)` scores uint8 pictures (n, 3, side, side) within autocast.
    """
    network.eval()

    def trial(precision: Precision) -> Callable[[], Any]:
        own = lay_out(copy.deepcopy(network), precision)
        batch = torch.zeros(batch_size, 3, side, side, dtype=torch.uint8)

        def step() -> None:
            with autocast(device, precision.amp), torch.inference_mode():
                score(own, batch.to(device))

        return step

    what = f"scoring {what}, {batch_size} of {side} pixels"
    steps = WORTH if total and total >= MANY else 0
    chosen = choose(what, trial, device, amp=amp, steps=steps, deterministic=deterministic, otherwise=otherwise)
    lay_out(network, chosen)
    return chosen.amp


def fastest(rates: dict[Precision, float]) -> Precision:
    """The candidate with the highest rate; fp32 if bf16 gains less than 3 %, because it is more precise."""
    best = max(rates, key=rates.__getitem__)
    exact = [p for p in rates if not p.amp and rates[p] > 0.97 * rates[best]]
    return max(exact, key=rates.__getitem__, default=best)


def measure(
    trial: Callable[[Precision], Callable[[], Any]],
    precisions: list[Precision],
    device: torch.device,
    clock: Callable[[], float],
) -> dict[Precision, float]:
    """Steps per second of each candidate, by its best trial; the trials alternate."""
    begin, seconds, steps = clock(), {}, {}
    for each in precisions:
        steps[each] = trial(each)
        seconds[each] = seconds_of(steps[each], device, clock)
    left = [each for each in precisions if seconds[each] <= SLOW * min(seconds.values())]
    for turn in range(TRIALS):
        if turn and clock() - begin > SECONDS:
            break
        for each in left:
            took = seconds_of(steps[each], device, clock)
            seconds[each] = took if not turn else min(seconds[each], took)
    return {each: 1 / max(took, 1e-9) for each, took in seconds.items()}


def seconds_of(step: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    synchronise(device)
    start = clock()
    step()
    synchronise(device)
    return clock() - start


# --- what is remembered ---------------------------------------------------------------------------------------------
def machine(device: torch.device) -> str:
    """The CPU or device, its precisions, the number of threads, and the version of torch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    able = torch.cpu.get_capabilities()
    units = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if able.get(name)]
    return ", ".join([processor(), *units, f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"])


def processor() -> str:
    """The processor's name as Linux reports it, or else as Python does."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory() -> Path:
    """The file of measurements on this machine, next to torch's own cache."""
    return Path(torch.hub.get_dir()).parent / "image-virality" / "precision.json"


def remembered(name: str) -> dict[Precision, float]:
    """The rates measured before under this name; none if the file does not exist or is not ours."""
    try:
        rates = read_json(memory())[name]
        return {Precision(*(word == "1" for word in key)): float(rate) for key, rate in rates.items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def remember(name: str, rates: dict[Precision, float]) -> None:
    """Add the rates to the file; if it cannot be written, they are measured again next time."""
    try:
        others = read_json(memory())
    except UserError:
        others = {}
    others = others if isinstance(others, dict) else {}
    with contextlib.suppress(OSError, UserError):
        memory().parent.mkdir(parents=True, exist_ok=True)
        write_json(memory(), others | {name: {f"{p.amp:d}{p.channels_last:d}": rate for p, rate in rates.items()}})

"""Shared by both training scripts: common flags, the run folder, the epoch loop, several seeds and folds."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import inspect
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

import distributed
from device import fast_in_bf16, rng_state, seed_everything, set_rng_state
from locks import alone_in
from precision import Precision, choose, lay_out, processor, usual
from utils import (
    ROOT,
    UserError,
    above_zero,
    at_least,
    duration,
    load_checkpoint,
    read_json,
    save_checkpoint,
    write_csv,
    write_json,
)

# Settings that may differ between a run and its continuation.
FREE = {
    "device", "num_workers", "check_point", "save_dir", "data_path", "compile", "cache", "left_out", "deterministic",
}  # fmt: skip


# --- flags ----------------------------------------------------------------------------------------------------------
def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that both training scripts share. Their defaults are those of the script's `train`."""
    flag = parser.add_argument
    flag("--data_path", help="a data set: datasets/*.csv and images/<img_id>.jpg")
    flag("--save_dir", help="output folder of the run (default %(default)s)")
    flag("--device", help="auto, cpu, cuda:0 or mps")
    flag("--epochs", type=at_least(1), help="default: the recipe's")
    flag("--batch_size", type=at_least(2), help="default: the recipe's")
    flag("--learning_rate", type=above_zero, help="default: the recipe's")
    flag("--image_size", type=at_least(32), help="side of the network's input in pixels (default: the recipe's)")
    flag("--weights", help="imagenet (the default), none (random weights), or a state dict file")
    flag("--num_workers", type=at_least(0), help="threads that decode pictures (default %(default)s)")
    flag("--cache", choices=("on", "off"), help="off: decode the pictures of every batch anew")
    flag("--max_pixels", type=at_least(1), help="pixels of the largest picture (default %(default)s)")
    flag("--left_out", metavar="FILE", help="write the path of each unusable picture and the reason")
    flag(
        "--split",
        choices=("hash", "time", "table"),
        help="default: the table's column split, otherwise a hash of img_id",
    )
    flag("--seed", type=at_least(0), help="random seed of splits, weights and batches (default %(default)s)")
    flag("--check_point", metavar="last|FILE", help="resume from last.pt in --save_dir, or from a file")
    flag("--compile", action=argparse.BooleanOptionalAction, help="torch.compile the training step")
    flag("--amp", action=argparse.BooleanOptionalAction, help="bf16 autocast (default: where it is faster)")
    flag("--deterministic", action=argparse.BooleanOptionalAction, help="do not time precisions to choose the fastest")


def add_several_runs(parser: argparse.ArgumentParser) -> None:
    """The flags of `train_many`."""
    flag = parser.add_argument
    flag("--seeds", type=int, nargs="+", metavar="SEED", help="one run per seed; prints mean ± standard deviation")
    flag("--folds", type=at_least(1), help="cross-validation: one run per fold, with that fold as the test split")


def defaults_of(train: Callable) -> dict[str, Any]:
    """The defaults of a function's parameters, so that flags and calls have the same defaults."""
    parameters = inspect.signature(train).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


# --- the run folder -------------------------------------------------------------------------------------------------
def folder_of(save_dir: str | Path) -> Path:
    """The run's folder, which need not exist yet. Raises UserError for a file."""
    folder = Path(save_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save_dir {folder} is a file")
    return folder


def run_alone(save_dir: str | Path) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of a run's folder meanwhile (on rank 0). Raises UserError if another run is using it."""
    return alone_in(folder_of(save_dir)) if distributed.rank() == 0 else contextlib.nullcontext()


def start_run(
    save_dir: str | Path, config: dict[str, Any], device: torch.device, precision: Precision | None = None
) -> Path:
    """Create the run folder and write config.json (the settings) and environment.json (what it runs on)."""
    folder = folder_of(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "environment.json", environment(device, precision))
    return folder


def environment(device: torch.device, precision: Precision | None = None) -> dict[str, Any]:
    """Versions, device, precision, commit and command of this run."""
    packages = ("torch", "torchvision", "numpy", "pandas", "pillow", "scipy", "scikit-learn")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "platform": platform.platform(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "bf16_by_default": fast_in_bf16(device),
        "precision": (precision or usual(device))._asdict(),
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of this checkout, with `+` where files differ from it; None outside a checkout."""
    try:
        run = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def print_folder(folder: Path) -> None:
    """Print the path of every file written."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    print("written: " + ", ".join(map(str, paths)))


# --- going on -------------------------------------------------------------------------------------------------------
def finished_results(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The results of a finished run with the same settings: the test split is not evaluated twice."""
    if not (folder / "results.json").is_file():
        return None
    results = read_json(folder / "results.json")
    return results if first_difference(results.get("configuration", {}), config) is None else None


def given(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The settings without this one where it was not given: it depends on data that have not been read yet."""
    return {name: value for name, value in config.items() if name != key or value is not None}


def resume_point(folder: Path, config: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The checkpoint to resume from, given by `config["check_point"]`; None to start from the beginning.

    `last` in a folder without last.pt starts from the beginning, so that one command both starts and resumes a run.
    Raises UserError for a checkpoint with other settings, or of a network without its optimiser.
    """
    check_point = config["check_point"]
    if check_point is None:
        return None
    path = folder / "last.pt" if check_point == "last" else Path(check_point)
    if check_point == "last" and not path.exists():
        print(f"no {path}: starting from the beginning")
        return None
    state = load_checkpoint(path, kind)
    finished = path.name == "last.pt" and state.get("epoch", 0) == state["config"].get("epochs")
    if "optimiser" not in state and not finished:
        raise UserError(f"--check_point {path} holds a network for inference, not a run to resume: use last.pt")
    if (key := first_difference(state["config"], config)) is not None:
        made_for = ", and the schedule depends on it: pass another --save_dir" if key == "epochs" else ""
        raise UserError(f"--{key} is {config[key]}, but {path} was trained with {state['config'].get(key)}{made_for}")
    return state


def first_difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first setting that must be equal but differs between two configurations; None if there is none."""
    return next((key for key, value in new.items() if key not in FREE and old.get(key) != value), None)


def choose_precision(
    name: str,
    network: nn.Module,
    device: torch.device,
    schedule: Callable[[nn.Module], dict[str, Any]],
    train_one_batch: Callable[..., Any],
    *,
    amp: bool | None,
    steps: int,
    resumed: dict[str, Any] | None,
    deterministic: bool,
    otherwise: Precision | None = None,
) -> Precision:
    """The precision for a training of this many steps (see precision.choose); `network` is put in that memory layout.

    `schedule(copy)` gives the optimiser and scheduler of a copy of the network, by these names, and
    `train_one_batch(copy, amp=…, optimiser=…, scheduler=…)` trains it a little.
    """

    def trial(precision: Precision) -> Callable[[], Any]:
        own = lay_out(copy.deepcopy(network), precision)
        return functools.partial(train_one_batch, own, amp=precision.amp, **schedule(own))

    kept = (resumed or {}).get("precision")
    precision = choose(
        f"training {name}", trial, device, amp=amp, steps=steps, kept=kept and Precision(**kept),
        deterministic=deterministic, otherwise=otherwise,
    )  # fmt: skip
    lay_out(network, precision)
    return precision


# --- the loop over epochs -------------------------------------------------------------------------------------------
def rate_groups(trained: list[nn.Parameter], slow: Iterable[nn.Parameter], slow_rate: float) -> list[dict[str, Any]]:
    """The parameter groups of an optimiser: trained parameters, and among them the `slow` ones, at their rates."""
    ids = {id(p) for p in slow}
    groups = [
        {"params": [p for p in trained if id(p) not in ids]},
        {"params": [p for p in trained if id(p) in ids], "lr": slow_rate},
    ]
    return [group for group in groups if group["params"]]


def one_cycle(optimiser: torch.optim.Optimizer, steps: int, warm_up: float = 0.15) -> LRScheduler:
    """A warm-up over this share of the steps to the rate of each group, then a cosine decay to zero; with a share of 0,
    a constant rate."""
    if not warm_up:
        return LambdaLR(optimiser, lambda step: 1.0)
    return OneCycleLR(
        optimiser, [group["lr"] for group in optimiser.param_groups], total_steps=steps, pct_start=warm_up
    )


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of about `batch_size`, of equal size except for one; none of a single picture, whose variance, by which
    batch normalisation divides, may be zero."""
    return np.array_split(order, max(1, min(round(len(order) / batch_size), len(order) // 2)))


def best_epoch(figures: Sequence[float], first: int = 1, lowest: bool = False, over: int = 5) -> int:
    """The epoch (from 1) to keep, given the validation figures so far: the one with the best mean over itself and the
    `over` − 1 epochs before it, the later one of equals; none before `first`, once that epoch is reached.

    A figure on about sixty pictures fluctuates from epoch to epoch; the best single one is a lucky one.
    """
    known = pd.Series(figures, dtype=float).rolling(over, min_periods=1).mean() * (-1 if lowest else 1)
    open_to_choice = known[min(first, len(known)) - 1 :]
    return int(open_to_choice[open_to_choice == open_to_choice.max()].index[-1]) + 1


def fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: LRScheduler,
    train_one_epoch: Callable[[int], dict[str, float]],
    validate: Callable[[], dict[str, float]],
    *,
    folder: Path,
    about: dict[str, Any],
    epochs: int,
    seed: int,
    chosen_by: str,
    lowest: bool = False,
    first: int = 1,
    printed: str | None = None,
    resumed: dict[str, Any] | None = None,
    watch: Callable[[], Any] | None = None,
    whole: nn.Module | None = None,
) -> dict[str, Any]:
    """Train, or resume from the checkpoint `resumed`; metrics.csv, last.pt and best.pt are written every epoch.

    `train_one_epoch(epoch)` returns train_loss, images_per_second, learning_rate and further columns of metrics.csv;
    `validate()` returns the columns val_… after these, among them `printed` and `chosen_by`, by which best.pt is
    selected from epoch `first` on (see `best_epoch`). `about` is stored in the checkpoints, as is the result of
    `watch()` at each epoch. `whole` is the network to store in best.pt if the trained one is only a part of it.

    Returns epoch, best_epoch, best (its figure), history (one dict per epoch, as in metrics.csv), watched.
    """
    seed_everything(seed)  # the batches do not depend on how many numbers the weights took
    state = {"epoch": 0, "best": None, "best_epoch": 0, "history": [], "watched": []}
    if resumed:
        restore(resumed, network, optimiser, scheduler)
        state = {key: resumed[key] for key in state}
        print(f"resuming after epoch {state['epoch']} of {epochs}")
    best, saved, cost, began = None, -np.inf, 0.0, time.perf_counter()  # best: weights not yet in best.pt
    for epoch in range(before := state["epoch"], epochs):
        start = time.perf_counter()
        row = {"epoch": epoch + 1, **train_one_epoch(epoch)}
        rate = row.pop("learning_rate")
        if not np.isfinite(row["train_loss"]):
            raise UserError(f"the loss is {row['train_loss']} in epoch {epoch + 1}: try a smaller --learning_rate")
        found = {f"val_{name}": value for name, value in validate().items()}
        row |= {**found, "learning_rate": rate, "seconds": time.perf_counter() - start}
        history, watched = [*state["history"], row], [*state["watched"], *([watch()] if watch else [])]
        figures = [each[f"val_{chosen_by}"] for each in history]
        chosen, state = best_epoch(figures, first, lowest), {"history": history, "watched": watched}
        state |= {"epoch": epoch + 1, "best": figures[chosen - 1], "best_epoch": chosen}
        if chosen == epoch + 1:
            best, best_state = copied(network), state
        # AlexNet's last.pt is of 700 MB: it is written so often that it takes a tenth of the time at most.
        if (begin := time.perf_counter()) - saved > 10 * cost or epoch + 1 == epochs:
            if best:
                save_best(folder / "best.pt", about | best_state, network, best, whole or network)
                best = None
            save_last(folder / "last.pt", about | state, network, optimiser, scheduler, epoch + 1 == epochs)
            write_csv(folder / "metrics.csv", pd.DataFrame(state["history"]))
            saved, cost = time.perf_counter(), time.perf_counter() - begin
        print_epoch(row, epochs, printed or chosen_by, (time.perf_counter() - began) / (epoch + 1 - before))
    distributed.barrier()
    return state


def print_epoch(row: dict[str, float], epochs: int, name: str, seconds: float) -> None:
    """Print one line per epoch, with the time left at `seconds` per epoch (the mean of this process so far)."""
    left = seconds * (epochs - row["epoch"])
    found = f"validation {name.replace('_', ' ')} {row[f'val_{name}']:.4f}"
    loss, rate = row["train_loss"], row["images_per_second"]
    print(
        f"epoch {row['epoch']:3}/{epochs}  loss {loss:.4f}  {found}  {rate:.0f} images/s{time_left(left)}", flush=True
    )


def time_left(seconds: float) -> str:
    return f"  about {duration(seconds, about=True)} left" if seconds >= 1 else ""


def restore(
    state: dict[str, Any], network: nn.Module, optimiser: torch.optim.Optimizer, scheduler: LRScheduler
) -> None:
    """Restore a run to the state of its checkpoint; a finished run has only its weights left."""
    network.load_state_dict(state["model"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        scheduler.load_state_dict(state["scheduler"])
        set_rng_state(state["rng"])


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def save_best(
    path: Path, about: dict[str, Any], network: nn.Module, weights: dict[str, Tensor], whole: nn.Module
) -> None:
    """Save the network `whole` with these weights in its trained part `network`, which itself is not changed."""
    now = copied(network)
    network.load_state_dict(weights)
    save_checkpoint(path, about | {"model": whole.state_dict()})
    network.load_state_dict(now)


def save_last(
    path: Path,
    about: dict[str, Any],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: LRScheduler,
    finished: bool,
) -> None:
    """Save what a run needs to resume; for a finished run, only the network."""
    running = {"optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "rng": rng_state()}
    save_checkpoint(path, about | {"model": network.state_dict()} | ({} if finished else running))


def share_last(folder: Path, state: dict[str, Any]) -> None:
    """If the epoch kept is the last one, make last.pt another name of best.pt, so that the network is stored once."""
    if distributed.rank() == 0 and state["best_epoch"] == state["epoch"]:
        beside = folder / ".last.pt.part"
        with contextlib.suppress(OSError):  # a disk without hard links keeps both
            beside.unlink(missing_ok=True)
            os.link(folder / "best.pt", beside)
            os.replace(beside, folder / "last.pt")


# --- several runs ---------------------------------------------------------------------------------------------------
def train_many(
    train: Callable[..., dict[str, Any]], seeds: list[int] | None, folds: int, save_dir: str, **settings: Any
) -> dict[str, Any]:
    """Run `train` for each seed and fold, each in its own folder; mean ± standard deviation, and the 95 % interval of
    the mean (Student's t over the runs), are printed, written to seeds.json and returned."""
    parts = [(seed, fold) for seed in seeds or [settings["seed"]] for fold in range(folds)]
    found, took = [], []  # seconds of each run that was not finished before
    for number, (seed, fold) in enumerate(parts):
        name = "_".join([f"seed_{seed}"] * (len(seeds or []) > 0) + [f"fold_{fold}"] * (folds > 1))
        left = float(np.mean(took)) * (len(parts) - number) if took else 0.0
        print(f"-- {name}: {number + 1} of {len(parts)}{time_left(left)}", flush=True)
        began = time.perf_counter()
        own = settings | {"seed": seed, "fold": fold, "folds": folds, "save_dir": str(Path(save_dir) / name)}
        found.append(train(**own))
        if (seconds := time.perf_counter() - began) > 1:
            took.append(seconds)
    summary = over_runs(found)
    configuration = settings | {"seeds": seeds, "folds": folds, "save_dir": save_dir}
    about = {"configuration": configuration, "n": found[0]["n"], "runs": parts}
    write_json(Path(save_dir) / "seeds.json", {**about, **summary.to_dict("index")})
    many = len(found) > 1
    print(f"over {len(found)} runs, mean ± standard deviation (95 % interval of the mean):" if many else "one run:")
    for name, row in summary.iterrows():
        interval = f" ± {row['std']:.4f} ({row['low']:.4f} to {row['high']:.4f})" if many else ""
        print(f"  {name:<32} {row['mean']:.4f}{interval}")
    return about | summary.to_dict("index")


def over_runs(found: list[dict[str, Any]]) -> pd.DataFrame:
    """mean, std, n and, for more than one run, low and high of each test figure over the runs; one row per figure."""
    table = pd.DataFrame([results["test"] for results in found])
    table.insert(0, "seconds", [results["train_seconds"] for results in found])
    table = table.drop(columns=[name for name in table if name.endswith(("_low", "_high"))])
    summary = pd.DataFrame({"mean": table.mean(), "std": table.std(ddof=1), "n": len(table)})
    if len(table) > 1:
        half = stats.t.ppf(0.975, len(table) - 1) * summary["std"] / len(table) ** 0.5
        summary = summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)
    return summary

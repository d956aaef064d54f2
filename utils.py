"""What every script needs and no science: errors, seeds, the device, whole files, checkpoints, the run folder.

Torch is imported where it is used: scripts that do without it start in a tenth of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent


# --- errors ---------------------------------------------------------------------------------------------------------
class UserError(Exception):
    """Wrong arguments or unusable input. The message is one line that says what is wrong and where."""


def rank() -> int:
    """The number of this process among those that torchrun has started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 0 on success, 2 with one line on what a user can mend, 130 on Ctrl-C.

    Of several processes rank 0 alone speaks, unless another has failed for a reason of its own.
    """
    if rank() == 0:
        sys.exit(_code_of(main))
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = _code_of(main)
    if code not in (0, 130):
        time.sleep(10)  # torchrun ends this process here where rank 0 has stopped, as it does for the same reason
        print(said.getvalue(), end="", file=sys.stderr)
    sys.exit(code)


def _code_of(main: Callable[[], int | None]) -> int:
    try:
        code = main()
        if "distributed" in sys.modules:
            sys.modules["distributed"].leave()
    except SystemExit as error:  # argparse has said what is wrong
        code = error.code
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted: what was written is whole; run the same command again to go on", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader (`| head`) has left: nobody is there to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a folder where a file should go, no permission
        where = error.filename2 or error.filename
        print(f"error: {where}: {error.strerror}" if where else f"error: {error}", file=sys.stderr)
        code = 2
    return code or 0


def print_configuration(args: argparse.Namespace, title: str) -> None:
    """Print the flags that a script runs with, one a line, so that a log says by itself what was run."""
    print(f"{title}\n" + "\n".join(f"  {key:<16} {value}" for key, value in sorted(vars(args).items())), flush=True)


# --- seeds and devices ----------------------------------------------------------------------------------------------
def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's generators (on every device)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, as tensors and numbers that a checkpoint can hold."""
    import torch

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
    """Put back what `rng_state` gave."""
    import torch

    version_, numbers, gauss = state["python"]
    random.setstate((version_, tuple(numbers), gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "device" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["device"])


def select_device(name: str) -> torch.device:
    """`auto` is a CUDA device (the first; under torchrun each process its own), then Apple's, then the processor.

    Raises UserError for one that is not there.
    """
    import torch

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


# --- files, written whole or not at all -----------------------------------------------------------------------------
@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; once the block ends without an error it is renamed to `path`.

    A reader never sees half a file, and a run killed at any moment leaves the old one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Of several processes rank 0 writes; the same holds for the functions that follow."""
    if rank():
        return
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    if rank():
        return
    with written_whole(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n", errors="surrogateescape")


def read_csv(path: str | Path, columns: list[str], **options: Any) -> pd.DataFrame:
    """Read a CSV file that must hold `columns` and a row at least; anything else is a UserError naming the file.

    `options` are those of pandas. Unless they say otherwise only an empty cell is a gap: a community may be called `NA`
    or `null`. gzip and UTF-16 are told by the file's first bytes. A quote that swallows further rows is an error.
    """
    path = Path(path)
    if "keep_default_na" not in options:
        options = {"keep_default_na": False, "na_values": [""]} | options
    try:
        with open(path, "rb") as file:
            head = file.read(4)
        if head.startswith(b"\x1f\x8b"):
            options = {"compression": "gzip"} | options
        elif re.match(rb"\xff\xfe[^\x00]\x00|\xfe\xff\x00[^\x00]", head):  # UTF-16's mark and a letter of ASCII
            options = {"encoding": "utf-16"} | options
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(path, index_col=False, **options)  # a surplus of fields would shift the names by one
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} is empty") from error
    except pd.errors.ParserWarning as error:
        raise UserError(f"{path} has more fields in its rows than names in its header") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # unreadable, a folder, or not a CSV at all
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)} (its columns: {', '.join(map(str, table.columns))})"
        )
    if table.empty:
        raise UserError(f"{path} has a header and no rows")
    for name, column in table.select_dtypes(["object", "str"]).items():
        cells = column[column.astype("str").str.contains("\n", regex=False, na=False)]
        whole = cells.map(lambda cell: max(line.count(",") for line in cell.split("\n")) >= len(table.columns) - 1 > 0)
        if whole.any():
            row = int(whole.idxmax()) + 1
            raise UserError(f"{path} row {row}: a quote opens in {name}, does not close there, and swallows other rows")
    return table


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- checkpoints ----------------------------------------------------------------------------------------------------
def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings and containers of them, whole or not at all."""
    import torch

    if rank():
        return
    with written_whole(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint on the CPU, running none of its code (`weights_only`). `kind` is 'classifier' or 'siamese'."""
    import torch

    if not Path(path).is_file():
        raise UserError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file that is not one of its own
        raise UserError(f"{path} is not a checkpoint of this project: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or state.get("kind") != kind:
        found = state.get("kind", "something else") if isinstance(state, dict) else "something else"
        raise UserError(f"{path} is not a {kind} checkpoint (it holds {found})")
    return state


# --- the run folder -------------------------------------------------------------------------------------------------
def start_run(save_dir: str | Path, config: dict[str, Any], device: torch.device) -> Path:
    """Make the run folder and write config.json and environment.json: what was asked, on what it runs."""
    folder = Path(save_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save_dir {folder} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "environment.json", environment(device))
    return folder


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device, commit and command of this run."""
    import torch

    packages = ("torch", "torchvision", "numpy", "pandas", "pillow", "scipy", "scikit-learn")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "platform": platform.platform(),
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "bf16_by_default": fast_in_bf16(device),
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


def add_common_flags(parser: argparse.ArgumentParser, save_dir: str) -> None:
    """The flags that both training scripts share. Epochs, batch and rate default to what the script's recipe says."""
    flag = parser.add_argument
    flag("--data_path", help="a data set: datasets/*.csv and images/<img_id>.jpg")
    flag("--save_dir", default=save_dir, help="the run's folder (default %(default)s)")
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--epochs", type=at_least(1), help="default: the recipe's")
    flag("--batch_size", type=at_least(2), help="default: the recipe's")
    flag("--learning_rate", type=above_zero, help="default: the recipe's")
    flag("--image_size", type=at_least(32), default=224, help="side in pixels of what the network sees")
    flag("--weights", default="imagenet", help="imagenet, none, or a file with a torchvision state dict")
    flag("--num_workers", type=at_least(0), default=2, help="processes that decode pictures")
    flag("--cache", choices=("on", "off"), default="on", help="off: decode pictures for every batch, keep none")
    flag("--seed", type=at_least(0), default=0, help="of splits, weights and batches")
    flag("--check_point", metavar="last|FILE", help="go on from last.pt in --save_dir, or from a file")
    flag("--compile", action=argparse.BooleanOptionalAction, default=False, help="torch.compile the training step")
    flag("--amp", action=argparse.BooleanOptionalAction, help="bf16 autocast (default: where it is fast)")


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `low` on."""

    def whole_number(word: str) -> int:
        if (value := int(word)) < low:
            raise argparse.ArgumentTypeError(f"{value} is below {low}")
        return value

    whole_number.__name__ = f"whole number from {low}"
    return whole_number


def above_zero(word: str) -> float:
    """An argparse type: a finite number above 0."""
    value = float(word)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a finite number above 0")
    return value


def autocast(device: torch.device, amp: bool | None) -> contextlib.AbstractContextManager:
    """bf16 autocast where it is asked for or, by default, where the device is made for it (`fast_in_bf16`)."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=fast_in_bf16(device) if amp is None else amp)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Compute in the tensors' own precision, within `autocast` too. The meta device knows no autocast."""
    import torch

    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else contextlib.nullcontext()


def fast_in_bf16(device: torch.device) -> bool:
    """A CUDA device that computes in bf16, or a processor with AMX, which is 2 to 3 times as fast in it.

    Other processors are slower in bf16 than in fp32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)


# Flags that may differ between a run and its continuation.
_FREE = {"device", "num_workers", "check_point", "save_dir", "data_path", "seeds", "compare", "compile", "cache"}


def resume_point(args: argparse.Namespace, kind: str) -> dict[str, Any] | None:
    """The checkpoint that --check_point names, whose flags must be this run's; None to start from the beginning.

    `last` in a folder without last.pt starts from the beginning, so that one command starts a run and goes on with it.
    """
    if args.check_point is None:
        return None
    path = Path(args.save_dir) / "last.pt" if args.check_point == "last" else Path(args.check_point)
    if args.check_point == "last" and not path.exists():
        print(f"no {path}: starting from the beginning")
        return None
    state = load_checkpoint(path, kind)
    if "optimiser" not in state:
        raise UserError(f"--check_point {path} holds a network to use, not a run to go on with: last.pt does")
    if (key := same_flags(state["config"], args)) is not None:
        raise UserError(f"--{key} is {getattr(args, key)}, but {path} was trained with {state['config'].get(key)}")
    return state


def same_flags(config: dict[str, Any], args: argparse.Namespace) -> str | None:
    """The first flag in which a run's configuration and `args` differ, of those that may not; None if there is none."""
    return next((key for key, value in vars(args).items() if key not in _FREE and config.get(key) != value), None)


def read_survivors(data_path: str | Path) -> dict[str, Any] | None:
    """What survivors.json says of the pictures that the download could get; None for data that was not downloaded."""
    path = Path(data_path) / "survivors.json"
    return read_json(path) if path.is_file() else None


def train_many(args: argparse.Namespace, train: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
    """A run of `train` for each of --seeds and --folds, in folders of their own; mean ± standard deviation, and the
    95 % interval of the mean (Student's t over the runs), printed and written to seeds.json."""
    parts = [(seed, fold) for seed in args.seeds or [args.seed] for fold in range(args.folds)]
    found = []
    for seed, fold in parts:
        name = "_".join([f"seed_{seed}"] * (len(args.seeds or []) > 0) + [f"fold_{fold}"] * (args.folds > 1))
        print(f"-- {name}")
        save_dir = str(Path(args.save_dir) / name)
        found.append(train(argparse.Namespace(**vars(args) | {"seed": seed, "fold": fold, "save_dir": save_dir})))
    table = pd.DataFrame([results["test"] for results in found])
    table.insert(0, "seconds", [results["train_seconds"] for results in found])
    table = table.drop(columns=[name for name in table if name.endswith(("_low", "_high"))])
    summary = pd.DataFrame({"mean": table.mean(), "std": table.std(ddof=1), "n": len(table)})
    if many := len(table) > 1:
        from scipy import stats

        half = stats.t.ppf(0.975, len(table) - 1) * summary["std"] / len(table) ** 0.5
        summary = summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)
    about = {"configuration": vars(args), "n": found[0]["n"], "runs": parts}
    write_json(Path(args.save_dir) / "seeds.json", {**about, **summary.to_dict("index")})
    print(f"over {len(table)} runs, mean ± standard deviation (95 % interval of the mean):" if many else "one run:")
    for name, row in summary.iterrows():
        interval = f" ± {row['std']:.4f} ({row['low']:.4f} to {row['high']:.4f})" if many else ""
        print(f"  {name:<32} {row['mean']:.4f}{interval}")


def finish_log(folder: Path) -> None:
    """Say where everything is."""
    print("written: " + ", ".join(str(folder / path.name) for path in sorted(folder.iterdir()) if path.is_file()))

"""Helpers of every script: one-line errors, argument types, atomic file writes.

Torch is imported where it is used: scripts that do not need it start in a tenth of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parent


# --- errors ---------------------------------------------------------------------------------------------------------
class UserError(Exception):
    """Wrong arguments or unusable input. The message is one line that says what is wrong and where."""


def rank() -> int:
    """The rank of this process among those started by torchrun; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 0 on success, 2 with a one-line error that a user can fix, 130 on Ctrl-C.

    With several processes only rank 0 prints, unless another has failed for a reason of its own.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of bytes that are no text can still be said
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
        print("interrupted: the files written are complete; run the same command again to resume", file=sys.stderr)
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
    """Print the flags that a script runs with, one per line, so that a log is self-explanatory."""
    print(f"{title}\n" + "\n".join(f"  {key:<16} {value}" for key, value in sorted(vars(args).items())), flush=True)


def duration(seconds: float, about: bool = False) -> str:
    """Seconds in words, `58 s`, `4 min 26 s`, `2 h 05 min`; `about`: in whole minutes from two on."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 60 or about and whole < 120:
        return f"{whole} s"
    if whole >= 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02} min"
    return f"{round(seconds / 60)} min" if about else f"{minutes} min {rest:02} s"


# --- files, written whole or not at all -----------------------------------------------------------------------------
@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to; when the block ends without an error, it is renamed to `path`.

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
    """Write text in UTF-8, file names as their raw bytes. With several processes only rank 0 writes; the same holds for
    the functions that follow."""
    if rank():
        return
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    if rank():
        return
    with written_whole(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n", errors="surrogateescape")


@contextlib.contextmanager
def rows_written(path: str | Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence], Any]]:
    """Yield a function that appends a row to the CSV file `path`: for rows that come one by one, or are very many.

    File names are written as their raw bytes.
    """
    with (
        written_whole(path) as beside,
        open(beside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        # csv itself would leave a carriage return in a name unquoted.
        plain, quoted = (csv.writer(file, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        plain.writerow(columns)
        yield lambda row: (quoted if "\r" in str(row[0]) else plain).writerow(row)


def next_to(path: str | Path, ending: str) -> Path:
    """The file next to `path` with another ending; `path` itself if it has no name, like `.`."""
    path = Path(path)
    return path.with_name(path.stem + ending) if path.name else path


def check_outputs(outputs: dict[str, str | Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Raise UserError if an output file is a folder, the output of another flag, or one of the inputs."""
    taken = {os.path.realpath(path): "which is to be read" for path in inputs if os.path.isfile(path)}
    for flag, path in outputs.items():
        if path is None:
            continue
        if Path(path).is_dir() or not Path(path).name:
            raise UserError(f"{flag} {path} is a folder, not a file to write")
        if (other := taken.get(os.path.realpath(path))) is not None:
            raise UserError(f"{flag} is {path}, {other}")
        taken[os.path.realpath(path)] = f"which {flag} writes"


def require_columns(path: str | Path, there: Iterable[str], columns: Iterable[str]) -> None:
    """Raises UserError if a table's columns lack one of `columns`."""
    there = list(there)
    if missing := [column for column in columns if column not in there]:
        raise UserError(f"{path} has no column {', '.join(missing)} (its columns: {', '.join(map(str, there))})")


def read_csv(path: str | Path, columns: list[str], **options: Any) -> pd.DataFrame:
    """Read a CSV file that must have `columns` and at least one row; anything else is a UserError that names the file.

    `options` are those of pandas. By default only an empty cell is a missing value: a community may be called `NA` or
    `null`. gzip and UTF-16 are detected by the first bytes. A quote that swallows further rows is an error.
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
    require_columns(path, table.columns, columns)
    if table.empty:
        raise UserError(f"{path} has a header and no rows")
    for name, column in table.select_dtypes(["object", "str"]).items():
        cells = column[column.astype("str").str.contains("\n", regex=False, na=False)]
        whole = cells.map(lambda cell: max(line.count(",") for line in cell.split("\n")) >= len(table.columns) - 1 > 0)
        if whole.any():
            row = int(whole.idxmax()) + 1
            raise UserError(f"{path} row {row}: a quote that opens in {name} is not closed and swallows other rows")
    return table


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A copy of `table` for spreadsheets, which execute text that starts with =, +, -, @ or a control character.

    Such text, including column names, is prefixed with an apostrophe, which marks it as text in a spreadsheet (OWASP,
    "CSV injection"). Numbers stay as they are, also when stored as text. `with_formulas` is the inverse.
    """
    harmless = lambda cell: f"'{cell}" if _runs(cell) else cell  # noqa: E731
    return table.rename(columns=harmless).map(harmless)


def with_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The inverse of `without_formulas`."""
    as_given = lambda cell: cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _runs(cell[1:]) else cell  # noqa: E731
    return table.rename(columns=as_given).map(as_given)


def _runs(cell: Any) -> bool:
    """A text that a spreadsheet would run; one in apostrophes counts, so that taking one away gives back what was."""
    if not isinstance(cell, str) or not cell.lstrip("'").startswith(tuple("=+-@＝＋－＠\t\r\n")):
        return False
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", cell, re.IGNORECASE | re.ASCII) is None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- checkpoints ----------------------------------------------------------------------------------------------------
def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Save a checkpoint of tensors, numbers, strings and containers of them, atomically."""
    import torch

    if rank():
        return
    with written_whole(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint on the CPU, running none of its code (`weights_only`). `kind` is 'classifier' or 'siamese'.

    `path` is a file written by a training, or a folder written by `write_model_folder`.
    """
    import torch

    if not os.path.exists(path):
        raise UserError(f"the checkpoint {path} does not exist")
    if os.path.isdir(path):
        state = read_model_folder(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen types for a file that is not one of its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path} is not a checkpoint of this project: {reason}") from error
    if not isinstance(state, dict) or state.get("kind") != kind:
        found = state.get("kind", "something else") if isinstance(state, dict) else "something else"
        raise UserError(f"{path} is not a {kind} checkpoint (it holds {found})")
    return state


def run_folder(check_point: str | Path) -> Path:
    """The folder that a checkpoint's results lie in: of a file the one around it; an exported folder itself."""
    return Path(check_point) if os.path.isdir(check_point) else Path(check_point).parent


# What a network that travels consists of: its weights, what else of a checkpoint is tensors, and all the rest.
WEIGHTS, TENSORS, SETTINGS, SUMS = "model.safetensors", "tensors.safetensors", "config.json", "SHA256SUMS"
FOLDER_FORMAT = 1


def write_model_folder(folder: str | Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of a finished run as a folder: safetensors, config.json and SHA256SUMS (`sha256sum -c`).

    The weights keep their names and exact values. A tensor with two names (shared convolutions) is written once; the
    file's metadata lists its other names.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMS).unlink(missing_ok=True)  # written last: with it the folder is whole
    first: dict[tuple, str] = {}
    for name, value in state["model"].items():
        first.setdefault((value.data_ptr(), value.shape, value.stride(), value.dtype), name)
    names = {name: first[value.data_ptr(), value.shape, value.stride(), value.dtype]
             for name, value in state["model"].items()}  # fmt: skip
    own = {name: state["model"][name].contiguous() for name, original in names.items() if name == original}
    also = {name: original for name, original in names.items() if name != original}
    tensors = {name: value for name, value in state.items() if hasattr(value, "data_ptr")}
    settings = {name: value for name, value in state.items() if name not in {"model", *tensors}}
    for name, values, metadata in ((WEIGHTS, own, also), (TENSORS, tensors, {})):
        with written_whole(folder / name) as beside:
            beside.write_bytes(save(values, {"format": "pt"} | metadata))
    write_json(folder / SETTINGS, {"folder_format": FOLDER_FORMAT} | settings)
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in (WEIGHTS, TENSORS, SETTINGS)))


def read_model_folder(folder: str | Path) -> dict[str, Any]:
    """Read a folder written by `write_model_folder`. Raises UserError if it has been changed since."""
    from safetensors import safe_open

    folder = Path(folder)
    if not (folder / SUMS).is_file():
        inside = f"; give {folder / 'best.pt'}" if (folder / "best.pt").is_file() else ""
        raise UserError(f"{folder} has no {SUMS}: it is not a complete export of export_model.py{inside}")
    sums = dict(reversed(line.split("  ", 1)) for line in (folder / SUMS).read_text("utf-8", "replace").splitlines()
                if "  " in line)  # fmt: skip
    for name in (WEIGHTS, TENSORS, SETTINGS):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: export the network again")
        if sums.get(name) != sha256(folder / name):
            raise UserError(
                f"{folder / name} has changed since the export (according to {SUMS}): export the network again"
            )
    settings = read_json(folder / SETTINGS)
    if settings.pop("folder_format") > FOLDER_FORMAT:
        raise UserError(f"{folder} was written by a later version of this project")
    with safe_open(folder / WEIGHTS, "pt") as weights, safe_open(folder / TENSORS, "pt") as tensors:
        model = {name: weights.get_tensor(name) for name in weights.offset_keys()}
        others = {name: original for name, original in weights.metadata().items() if name != "format"}
        model |= {name: model[original] for name, original in others.items()}
        return settings | {name: tensors.get_tensor(name) for name in tensors.offset_keys()} | {"model": model}


def fingerprint(check_point: str | Path) -> str:
    """64 hexadecimal digits that identify a checkpoint, a file or a folder."""
    return sha256(Path(check_point) / SUMS if os.path.isdir(check_point) else check_point)


# --- arguments -----------------------------------------------------------------------------------------------------
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

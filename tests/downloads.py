"""A download as the tests run it: a folder with a manifest, the command, and what it left."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import download_images
import utils

QUICK = ["--backoff", "0.05", "--retries", "2", "--read_timeout", "1", "--max_seconds", "2"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def make_folder(folder: Path, rows: list[tuple], header: str = "img_id,img_link,reddit_id,sha256") -> Path:
    """A data set with a manifest and nothing else."""
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / "datasets" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(folder: Path, *flags: object) -> list[str]:
    return [sys.executable, "download_images.py", "--data_path", str(folder), *map(str, flags)]


def download(folder: Path, *flags: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, *flags), cwd=utils.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def ledger(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "images" / "ledger.csv", newline="") as file:
        return {row["img_id"]: row for row in csv.DictReader(file)}


def without_time(folder: Path) -> list[dict[str, str]]:
    return [row | {"time": ""} for row in ledger(folder).values()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir() if path.name != "ledger.csv"}


def in_process(monkeypatch, folder: Path, *flags: object) -> int:
    """The command in this process: its exit status."""
    monkeypatch.setattr(sys, "argv", command(folder, *QUICK, *flags)[1:])
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return download_images.main()

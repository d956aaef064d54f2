"""What a run costs besides the network's time: seconds to the first step, peak memory, disk; and how that grows.

    python -m studies.costs [--device cuda] [--num_images 128] [--image_size 128]

Draws pictures of 500×400, and ten times as many; on each runs the commands that a user does, in processes of their own:
the tables, an epoch of training, the same again with the pictures decoded, and a ranking of the folder. Some minutes on
two cores. Writes costs.json into --output.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from device import select_device
from studies.workloads import make_pictures
from training import environment, start_run
from utils import ROOT, UserError, at_least, print_configuration, run_main, write_json

TIMES = 10
MIB = 2**20
# What a process has used at most counts from what started it, which torch makes large: a small one starts it.
LAUNCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
COLUMNS = ["seconds", "seconds_to_first_step", "peak_memory_mib", "disk_mib"]


def cost_of(words: list[str], folder: Path, begun: Path | None = None) -> dict[str, float]:
    """Run one of the scripts. `disk_mib` is what `folder` has grown by; a run's first step comes right after it has
    written the file `begun`. Raises UserError where the script fails."""
    before, start, started = size_of(folder), time.perf_counter(), time.time()
    command = [sys.executable, "-c", LAUNCH, sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{words[0]} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return {
        "seconds": time.perf_counter() - start,
        "seconds_to_first_step": begun.stat().st_mtime - started if begun else float("nan"),
        "peak_memory_mib": int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / MIB,
        "disk_mib": (size_of(folder) - before) / MIB,
    }


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def costs(folder: Path, num_images: int, image_size: int, device: str) -> dict[str, dict[str, float]]:
    """Of each command on so many pictures, which are drawn into `folder`."""
    make_pictures(folder / "data", num_images)
    run = folder / "run"
    train = f"train_siamese.py --weights none --epochs 1 --image_size {image_size} --device {device}".split()
    train += ["--data_path", str(folder / "data"), "--save_dir"]
    found = {"training, an epoch": cost_of([*train, str(run)], folder, run / "environment.json")}
    again = folder / "again"
    found["the same, pictures decoded"] = cost_of([*train, str(again)], folder, again / "environment.json")
    rank = ["rank_images.py", str(folder / "data" / "images"), "--check_point", str(run / "best.pt")]
    found["ranking the folder"] = cost_of([*rank, "--device", device, "--output", str(folder / "ranks.csv")], folder)
    return found


def as_table(found: dict[int, dict[str, dict[str, float]]]) -> pd.DataFrame:
    """A row a command and number of pictures."""
    rows = [{"command": name, "pictures": n, **cost} for n, of in found.items() for name, cost in of.items()]
    return pd.DataFrame(rows, columns=["command", "pictures", *COLUMNS]).sort_values(["command", "pictures"])


def growth(found: dict[int, dict[str, dict[str, float]]]) -> pd.DataFrame:
    """How many times as much each command costs with TIMES as many pictures."""
    few, many = (pd.DataFrame(of).T[COLUMNS] for of in found.values())
    return many / few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--num_images", type=at_least(40), default=128, help="pictures to draw (default %(default)s), and ten times")
    flag("--image_size", type=at_least(64), default=128, help="side in pixels of what the network sees")
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--output", default="outputs/costs", metavar="DIR")
    args = parser.parse_args()
    print_configuration(args, "costs")
    device = select_device(args.device)
    output = start_run(args.output, vars(args), device)
    found: dict[int, dict[str, Any]] = {}
    for n in (args.num_images, TIMES * args.num_images):
        with tempfile.TemporaryDirectory(prefix="costs-") as folder:
            found[n] = costs(Path(folder), n, args.image_size, str(device))
    print(as_table(found).to_string(index=False, float_format="{:.1f}".format))
    print(f"\n{TIMES} times as many pictures cost so many times as much:")
    print(growth(found).to_string(float_format="{:.1f}".format))
    about = {"configuration": vars(args), "environment": environment(device)}
    rows = as_table(found).astype(object)
    write_json(output / "costs.json", about | {"costs": rows.where(rows.notna(), None).to_dict("records")})
    print(f"written: {output / 'costs.json'}")


if __name__ == "__main__":
    run_main(main)

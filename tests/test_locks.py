"""One process at a time."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import utils
from locks import alone, in_turn
from utils import UserError

HOLD = """
import sys, time
from pathlib import Path
from locks import alone, in_turn
with {"alone": alone, "in_turn": in_turn}[sys.argv[1]](sys.argv[2]):
    Path(sys.argv[3]).touch()
    time.sleep(float(sys.argv[4]))
"""


def hold(kind, path, seconds, tmp_path):
    """Another process that holds the lock."""
    ready = tmp_path / f"ready_{time.monotonic_ns()}"
    words = ["-c", HOLD, kind, path, ready, seconds]
    process = subprocess.Popen([sys.executable, *map(str, words)], cwd=utils.ROOT)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_second_run_is_refused_and_the_lock_of_a_killed_one_is_free(tmp_path):
    output = tmp_path / "out" / "ranks.csv"
    other = hold("alone", output, 60, tmp_path)
    with pytest.raises(UserError, match=f"{output}: another run is writing it"), alone(output):
        pass
    other.kill()
    other.wait()
    with alone(output):
        assert (output.parent / ".ranks.csv.lock").exists()
    assert list(output.parent.iterdir()) == []


def test_waiting_takes_as_long_as_the_other_holds_it(tmp_path):
    other = hold("in_turn", tmp_path / "x.lock", 0.5, tmp_path)
    with in_turn(tmp_path / "x.lock"):
        assert other.wait(5) == 0 or other.poll() is None  # it has left the block, and is about to end
    other.wait()


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(tmp_path):
    for name in (".ranks.csv.123.part", ".page.html.77.part", ".ranks.csv.0123456789ab.part", ".other.csv.5.part", "a"):
        (tmp_path / name).touch()
    with alone(tmp_path / "ranks.csv", tmp_path / "page.html", None):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.csv.5.part",
        ".ranks.csv.0123456789ab.part",
        "a",
    ]


def test_without_fcntl_a_lock_is_had_all_the_same(tmp_path):
    """As on Windows, which has another means."""
    code = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
from locks import alone, in_turn
with in_turn(sys.argv[1] + "/x.lock"), alone(sys.argv[1] + "/out.csv"):
    print("held")
import pictures.cache
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=utils.ROOT, capture_output=True, text=True)
    assert done.stdout == "held\n", done.stderr

"""Whole files, checkpoints that run no code, seeds that can be put back, errors in one line."""

from __future__ import annotations

import argparse
import gzip
import pickle
import random
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import device as devices
import training
import utils
from utils import UserError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    utils.write_text(path, "old")
    with pytest.raises(ValueError), utils.written_whole(path) as beside:
        beside.write_text("half")
        raise ValueError
    assert path.read_text() == "old" and [each.name for each in path.parent.iterdir()] == ["file.txt"]


def test_killed_while_writing_the_old_file_stands(tmp_path):
    path = tmp_path / "state.pt"
    utils.save_checkpoint(path, {"kind": "siamese", "n": 1})
    code = (
        "import sys, time, utils\n"
        "with utils.written_whole(sys.argv[1]) as beside:\n"
        "    beside.write_text('half'); print('now', flush=True); time.sleep(60)\n"
    )
    writing = subprocess.Popen([sys.executable, "-c", code, path], cwd=utils.ROOT, stdout=subprocess.PIPE)
    assert writing.stdout.readline() == b"now\n"
    writing.send_signal(signal.SIGKILL)
    writing.wait()
    writing.stdout.close()
    assert utils.load_checkpoint(path, "siamese") == {"kind": "siamese", "n": 1}


class Trap:
    """An object whose unpickling would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"kind": "siamese", "model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(UserError, match=f"{name} is not a checkpoint"):
            utils.load_checkpoint(tmp_path / name, "siamese")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_kind_or_none_names_itself(tmp_path):
    utils.save_checkpoint(tmp_path / "other.pt", {"kind": "classifier"})
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    whole = (tmp_path / "other.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    for name, says in (
        ("other.pt", "not a siamese checkpoint .it holds classifier"),
        ("tensor.pt", "it holds something else"),
        ("cut.pt", "not a checkpoint of this project"),
        ("none.pt", "does not exist"),
    ):
        with pytest.raises(UserError, match=says) as error:
            utils.load_checkpoint(tmp_path / name, "siamese")
        assert name in str(error.value) and "\n" not in str(error.value)


def draws() -> list[float]:
    return [random.random(), *np.random.normal(size=3), *torch.randn(3).tolist()]


def test_one_seed_sets_all_generators_and_their_states_survive_a_checkpoint(tmp_path):
    devices.seed_everything(5)
    first = draws()
    utils.save_checkpoint(tmp_path / "rng.pt", {"kind": "siamese", "rng": devices.rng_state()})
    second = draws()
    assert first != second
    devices.seed_everything(5)
    assert draws() == first
    devices.seed_everything(6)
    assert draws() != first
    devices.set_rng_state(utils.load_checkpoint(tmp_path / "rng.pt", "siamese")["rng"])
    assert draws() == second


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "has no column c"),
        ("a,c\n", "no rows"),
        ('a,c\n"1,2\n', "cannot be read as CSV"),
        ("a,c\n1,2\n1,2,3\n", "cannot be read as CSV"),
        (b"\xff\xfe\x00\x80junk", "cannot be read as CSV"),
        ("a,c\n1,2,3\n4,5,6\n", "more fields in its rows than names in its header"),
        ('a,c\n1,"x\n2,y\n3,"z\n4,w\n', "row 1: a quote that opens in c is not closed"),
        (gzip.compress(b"a,c\n1,2\n", mtime=0)[:-9], "cannot be read as CSV"),
    ],
)
def test_an_unusable_table_names_the_file(tmp_path, content, says):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says) as error:
        utils.read_csv(path, ["c"])
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"a,c\n1,NA\n2,null\n3,\n",
        b"\xef\xbb\xbfa,c\r\n1,NA\r\n2,null\r\n3,\r\n",
        "a,c\n1,NA\n2,null\n3,\n".encode("utf-16"),
        gzip.compress(b"a,c\n\n1,NA\n2,null\n3,\n", mtime=0),
        b"a,c\n1,NA,\n2,null,\n3,,\n",
    ],
)
def test_only_an_empty_cell_is_a_gap_however_the_table_was_written(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    table = utils.read_csv(tmp_path / "t.csv", ["a", "c"])
    assert table["a"].tolist() == [1, 2, 3]
    assert table["c"].tolist()[:2] == ["NA", "null"] and pd.isna(table["c"].iloc[2])


def test_a_missing_table_a_folder_and_a_broken_json_name_themselves(tmp_path):
    (tmp_path / "broken.json").write_text('{"a":')
    with pytest.raises(UserError, match="nothing.csv does not exist"):
        utils.read_csv(tmp_path / "nothing.csv", [])
    with pytest.raises(UserError, match="cannot be read as CSV"):
        utils.read_csv(tmp_path, [])
    with pytest.raises(UserError, match="broken.json cannot be read as JSON"):
        utils.read_json(tmp_path / "broken.json")
    with pytest.raises(UserError, match="nothing.json does not exist"):
        utils.read_json(tmp_path / "nothing.json")


def test_a_table_comes_back_as_it_was_written(tmp_path):
    table = pd.DataFrame({"a": [0.1 + 0.2, 1e-300], "b": ['with, "quotes"', "é"]})
    utils.write_csv(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(utils.read_csv(tmp_path / "t.csv", ["a"]), table)


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (None, 0, ""),
        (UserError("two\nlines of it"), 2, "error: two lines of it\n"),
        (OSError(28, "No space left on device", "file.csv"), 2, "error: file.csv: No space left on device\n"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_script_ends_with_its_code_and_one_line(capsys, raised, code, says):
    def main():
        if raised:
            raise raised

    with pytest.raises(SystemExit) as left:
        utils.run_main(main)
    assert left.value.code == code
    error = capsys.readouterr().err
    assert error.startswith(says) and error.count("\n") == bool(says)


def test_a_fault_of_our_own_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        utils.run_main(lambda: 1 // 0)


def test_output_cut_short_by_its_reader_is_no_error():
    code = "import utils\ndef main():\n    [print('x' * 99) for _ in range(9999)]\nutils.run_main(main)"
    words = [sys.executable, "-c", code]
    writing = subprocess.Popen(words, cwd=utils.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writing.stdout.readline()
    writing.stdout.close()
    assert writing.stderr.read() == b"" and writing.wait() == 0
    writing.stderr.close()


def test_whole_numbers_from_a_bound_on():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--n", type=utils.at_least(2))
    assert parser.parse_args(["--n", "2"]).n == 2
    for word in ("1", "-3", "two", "2.5"):
        with pytest.raises(argparse.ArgumentError):
            parser.parse_args([f"--n={word}"])


def test_finite_numbers_above_zero():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--rate", type=utils.above_zero)
    assert parser.parse_args(["--rate", "1e-3"]).rate == 1e-3
    for word in ("0", "-1", "nan", "inf", "fast"):
        with pytest.raises(argparse.ArgumentError):
            parser.parse_args([f"--rate={word}"])


def test_a_device_that_is_not_here_is_refused_by_its_name():
    assert devices.select_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(UserError, match=f"--device {name}"):
            devices.select_device(name)


def test_a_run_folder_says_what_was_asked_and_on_what_it_runs(tmp_path):
    folder = training.start_run(tmp_path / "a" / "run", {"seed": 3}, torch.device("cpu"))
    assert utils.read_json(folder / "config.json") == {"seed": 3}
    environment = utils.read_json(folder / "environment.json")
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert environment["device"].startswith("cpu") and {"command", "python", "commit"} <= set(environment)


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "ROOT", tmp_path)
    assert training.git_commit() is None


def test_going_on_needs_the_same_flags_but_not_the_same_machine(tmp_path):
    def asked(**other):
        config = {"save_dir": str(tmp_path), "check_point": "last", "device": "cpu", "seed": 0} | other
        return training.resume_point(tmp_path, config, "siamese")

    assert asked(check_point=None) is None
    assert asked() is None  # no last.pt yet
    config = {"save_dir": str(tmp_path), "check_point": "last", "device": "cpu", "seed": 0}
    state = {"kind": "siamese", "optimiser": {}, "config": config}
    utils.save_checkpoint(tmp_path / "last.pt", state)
    assert asked(device="cuda:0")["config"]["seed"] == 0
    with pytest.raises(UserError, match="--seed is 1, but .*last.pt was trained with 0"):
        asked(seed=1)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert utils.sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


# --- bf16 -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("made_for_it", [True, False])
def test_bf16_is_the_default_where_the_processor_is_made_for_it_and_a_flag_decides(monkeypatch, made_for_it):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": made_for_it})
    device = torch.device("cpu")
    for amp, expected in ((None, made_for_it), (True, True), (False, False)):
        with devices.autocast(device, amp):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if expected else torch.float32)
    assert training.environment(device)["bf16_by_default"] == made_for_it


@pytest.mark.parametrize(
    ("seconds", "exact", "about"),
    [
        (0.4, "0 s", "0 s"),
        (59.6, "1 min 00 s", "60 s"),
        (119, "1 min 59 s", "119 s"),
        (266, "4 min 26 s", "4 min"),
        (3599.7, "1 h 00 min", "1 h 00 min"),
        (7_500, "2 h 05 min", "2 h 05 min"),
    ],
)
def test_seconds_are_said_in_words(seconds, exact, about):
    assert (utils.duration(seconds), utils.duration(seconds, about=True)) == (exact, about)

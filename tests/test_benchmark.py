"""The benchmark runs through and adds up; what it measures on a machine is no matter of a test."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from precision import CANDIDATES
from studies import benchmark, costs, precision_choices, time_to_accuracy, workloads


def test_the_quick_mode_writes_rates_ratios_and_a_chart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    words = "--device cpu --image_size 64 --batch_size 4 --num_images 16 --seconds 0.01 --rounds 1 --output"
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words.split(), str(tmp_path / "out")])
    benchmark.main()
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert set(found["matrix product"]) == {"fp32", "bf16", "ratios"}
    for group in ("siamese training", "classifier training", "evaluation", "ranking from JPEG"):
        assert {"network alone", "plain loop", "ours", "ratios"} <= set(found[group])
        for each in [*found[group]["ratios"].values(), found[group]["ours"]]:
            assert 0 < each["low"] <= each["median"] <= each["high"]
        assert "ours / plain loop" in found[group]["ratios"]
    assert "ours / slower limit" in found["ranking from JPEG"]["ratios"]
    assert all(found["flop"][group] > 1e6 for group in ("siamese training", "classifier training", "evaluation"))
    assert found["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    with Image.open(tmp_path / "out" / "benchmark.png") as chart:
        chart.load()
    assert not list((tmp_path / "temporary").glob("benchmark-*"))  # its pictures are gone
    assert "ranking from JPEG, images/s" in capsys.readouterr().out


def test_a_ratio_is_taken_round_by_round():
    rates = {"network alone": [10.0, 20.0, 40.0], "decoding alone": [20.0, 10.0, 80.0], "ours": [9.0, 9.0, 30.0]}
    found = benchmark.ratios(rates, batch_size=32)
    assert found["ours / network alone"] == {"median": 0.75, "low": 0.45, "high": 0.9}
    assert found["ours / slower limit"] == {"median": 0.9, "low": 0.75, "high": 0.9}
    both = found["ours / both limits on the same cores"]  # 1 / (1/10 + 1/20) and so on
    assert both == pytest.approx({"median": 1.35, "low": 30 / (80 / 3), "high": 1.35})


def test_pairs_a_second_count_the_pairs_of_a_batch():
    found = benchmark.ratios({"plain loop": [10.0], "ours, all pairs": [20.0]}, batch_size=5)
    # The plain loop has an image in one pair; of a batch of five each is in four.
    assert found["ours, all pairs / plain loop, in pairs a second"]["median"] == pytest.approx(2 * 4)


def test_a_rate_is_work_over_time_and_takes_one_piece_at_least(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 3.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    assert benchmark.one_rate(lambda: 6.0, 2.0, torch.device("cpu")) == pytest.approx(12 / 3)


def test_pictures_are_as_large_as_photographs(tmp_path):
    workloads.make_pictures(tmp_path, 2)
    paths = list((tmp_path / "images").glob("*.jpg"))
    assert len(paths) == 2
    for path in paths:
        assert Image.open(path).size == workloads.PICTURE and 30_000 < path.stat().st_size < 100_000


def test_no_time_to_measure_is_refused():
    with pytest.raises(benchmark.UserError, match="--seconds"):
        benchmark.parse_arguments(["--seconds", "0"])


def test_the_temporary_pictures_go_when_it_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--num_images", "16", "--output", str(tmp_path / "out")])
    monkeypatch.setattr(workloads.data_set, "load_pictures", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benchmark.main()
    assert [path.name for path in Path(tmp_path).iterdir()] == ["out"]


def test_the_time_to_an_accuracy(sample, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy, "PLAIN_EPOCHS", 1)
    words = f"--data_path {sample} --device cpu --image_size 64 --seeds 0 1 --output {tmp_path / 'out'}"
    monkeypatch.setattr(sys, "argv", ["time_to_accuracy.py", *words.split()])
    time_to_accuracy.main()
    found = json.loads((tmp_path / "out" / "to_accuracy.json").read_text())["seeds"]
    assert [row["seed"] for row in found] == [0, 1]
    for row in found:
        reached = row["ours_accuracy"] >= row["plain_accuracy"]
        assert row["ratio"] == (pytest.approx(row["plain_seconds"] / row["ours_seconds"]) if reached else None)
        assert 0 <= row["plain_accuracy"] <= 1 and row["ours_epochs"] >= 1
    assert "the plain loop is right on" in capsys.readouterr().out


def test_a_choice_is_told_against_the_best_and_the_worst(monkeypatch):
    rates = dict.fromkeys(CANDIDATES, 1.0) | {CANDIDATES[2]: 2.0}
    monkeypatch.setattr(precision_choices, "measure", lambda *words: rates)
    seconds = {CANDIDATES[0]: 4.0, CANDIDATES[1]: 2.0, CANDIDATES[2]: 1.0, CANDIDATES[3]: 0.8}
    monkeypatch.setattr(precision_choices, "seconds_of", lambda step, *words: seconds[step])
    found = precision_choices.compare(lambda precision: precision, torch.device("cpu"), rounds=3)
    assert found["chosen"] == str(CANDIDATES[2]) and found["of_best"] == pytest.approx(0.8)
    assert found["over_worst"] == pytest.approx(4) and len(found["batches_per_second"]) == 4


def test_what_a_script_costs_is_its_own_memory_and_the_disk_that_it_fills(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "pictures.csv").write_text("x" * 2**20)
    begun = tmp_path / "begun"
    words = f"import pathlib; x = bytearray(300 * 2**20); pathlib.Path({str(begun)!r}).write_bytes(x[:2**20])"
    found = costs.cost_of(["-c", words], tmp_path, begun)
    assert found["disk_mib"] == pytest.approx(1) and 300 < found["peak_memory_mib"] < 600
    assert 0 < found["seconds_to_first_step"] <= found["seconds"] + 0.1
    with pytest.raises(costs.UserError, match="ZeroDivisionError"):
        costs.cost_of(["-c", "1 / 0"], tmp_path)


def test_growth_is_a_ratio_for_each_command():
    row = {"seconds": 2.0, "seconds_to_first_step": 1.0, "peak_memory_mib": 100.0, "disk_mib": 1.0}
    many = {"seconds": 10.0, "seconds_to_first_step": 1.0, "peak_memory_mib": 150.0, "disk_mib": 10.0}
    found = costs.growth({10: {"ranking": row}, 100: {"ranking": many}})
    assert found.loc["ranking"].tolist() == [5, 1, 1.5, 10]

"""The summary of a pipeline: one row a run, and a run whose results are hollow is named and left out."""

import json

import pandas as pd
import pytest
from conftest import run_here


def a_run(folder, results, name="results.json"):
    folder.mkdir(parents=True)
    (folder / name).write_text(results if isinstance(results, str) else json.dumps(results))


WHOLE = {
    "configuration": {"model_name": "alexnet"},
    "n": {"test": 22},
    "test": {"pair_accuracy": 0.75, "pair_accuracy_low": 0.7, "pair_accuracy_high": 0.8, "noise_ceiling": 0.9},
    "context": {"clock": {"value": 0.715}},
    "train_seconds": 3.2,
}


def test_a_row_for_each_run_and_a_report(tmp_path):
    a_run(tmp_path / "ranker", WHOLE)
    a_run(tmp_path / "classifier", {"test": {"accuracy": 0.5}, "classes": ["a", "b", "c", "d"]})
    done = run_here("-m", "pages.summary", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    table = pd.read_csv(tmp_path / "summary.csv").set_index("run")
    assert table.loc["ranker", ["value", "low", "high", "n", "chance", "clock"]].tolist() == [
        0.75,
        0.7,
        0.8,
        22,
        0.5,
        0.715,
    ]
    assert table.loc["classifier", "chance"] == 0.25 and table.loc["classifier"].isna().sum() == 9
    assert (
        "75.0%" in done.stdout and "71.5%" in done.stdout and "70.0% to 80.0%" in done.stdout and "3 s" in done.stdout
    )
    assert "\ntraining took 3 s in all\n" in done.stdout
    assert (tmp_path / "ranker" / "report.html").is_file() and (tmp_path / "classifier" / "report.html").is_file()


def test_several_seeds_have_a_clock_and_a_report_each(tmp_path):
    for seed, clock in ((0, 0.7), (1, 0.6)):
        a_run(tmp_path / "many" / f"seed_{seed}", WHOLE | {"context": {"clock": {"value": clock}}})
    seeds = {
        "n": {"test": 22},
        "seconds": {"mean": 90.0, "std": 1.0, "n": 2},
        "pair_accuracy": {"mean": 0.75, "std": 0.01, "low": 0.7, "high": 0.8, "n": 2},
    }
    (tmp_path / "many" / "seeds.json").write_text(json.dumps(seeds))
    done = run_here("-m", "pages.summary", tmp_path)
    assert done.returncode == 0 and "65.0%" in done.stdout and "1 min 30 s" in done.stdout, done.stderr
    assert "training took 3 min 00 s in all; of several seeds or folds the table says the mean\n" in done.stdout
    assert pd.read_csv(tmp_path / "summary.csv")["clock"].tolist() == pytest.approx([0.65])
    assert all((tmp_path / "many" / f"seed_{seed}" / "report.html").is_file() for seed in (0, 1))
    (tmp_path / "many" / "seed_1" / "results.json").write_text("{}")  # a mean over half of them would mislead
    run_here("-m", "pages.summary", tmp_path)
    assert pd.read_csv(tmp_path / "summary.csv")["clock"].isna().all()


@pytest.mark.parametrize(
    "hollow",
    ["", "{", "{}", "[]", "null", "7", '{"test": null}', '{"test": {"accuracy": "0.5"}}', '{"test": {"accuracy": NaN}}',
     '{"test": {"pair_accuracy": true}, "configuration": 3}', "[" * 200_000, "\ufeff{}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["results.json", "seeds.json"])
def test_a_hollow_run_is_named_in_one_line_and_the_others_come(tmp_path, hollow, name):
    a_run(tmp_path / "a_hollow_one", hollow, name)
    a_run(tmp_path / "ranker", WHOLE)
    done = run_here("-m", "pages.summary", tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("left out: ") and f"a_hollow_one/{name}" in line
    assert pd.read_csv(tmp_path / "summary.csv")["run"].tolist() == ["ranker"]


def test_odd_numbers_beside_a_test_figure_are_left_blank(tmp_path):
    odd = {"pair_accuracy": 0.75, "pair_accuracy_low": "x", "noise_ceiling": None, "mean_scale": float("inf")}
    a_run(tmp_path / "ranker", {"test": odd, "n": 5, "classes": 3, "configuration": [], "train_seconds": {}})
    done = run_here("-m", "pages.summary", tmp_path)
    assert done.returncode == 0 and "75.0%" in done.stdout, done.stderr
    assert pd.read_csv(tmp_path / "summary.csv").iloc[0].dropna().to_dict() == {
        "run": "ranker", "measure": "test pair accuracy", "value": 0.75, "chance": 0.5,
    }  # fmt: skip


def test_without_any_usable_run_it_ends_with_one_line(tmp_path):
    assert run_here("-m", "pages.summary", tmp_path).returncode == 2
    a_run(tmp_path / "a", "{}")
    done = run_here("-m", "pages.summary", tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.splitlines()[-1] == "error: none of the 1 runs has results that can be used"
    )


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "-2+3"])
def test_a_spreadsheet_runs_no_name(tmp_path, name):
    a_run(tmp_path / name, WHOLE | {"configuration": {"model_name": name}})
    assert run_here("-m", "pages.summary", tmp_path).returncode == 0
    row = pd.read_csv(tmp_path / "summary.csv").iloc[0]
    assert row["run"] == row["model"] == f"'{name}" and row["value"] == 0.75

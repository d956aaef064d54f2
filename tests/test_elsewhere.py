"""Where the project runs: folders whose names are no text, machines that lack a tool, outputs that cannot be."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run, run_here

TINY = ["--weights", "none", "--image_size", 64, "--epochs", 1, "--model_name", "squeezenet1_1", "--device", "cpu"]


@pytest.fixture
def odd(sample, tmp_path) -> Path:
    """The sample in a folder whose name is not UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 x"))
    shutil.copytree(sample, folder / "data", ignore=shutil.ignore_patterns("processed"))
    return folder


def test_a_ranker_is_trained_and_ranks_in_a_folder_whose_name_is_no_text(odd):
    done = run("train_siamese.py", "--data_path", odd / "data", "--save_dir", odd / "run", "--model_type", 0, *TINY)
    assert done.returncode == 0, done.stderr
    check_point, listed = ["--check_point", odd / "run" / "best.pt"], odd / "run" / "test_pictures.txt"
    assert b"/caf\xe9 x/data/images/" in listed.read_bytes()
    done = run("rank_images.py", listed, *check_point, "--output", odd / "ranks.csv", "--device", "cpu")
    assert done.returncode == 0 and "left out: 0 files" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_classifier_is_trained_and_labels_in_a_folder_whose_name_is_no_text(odd):
    done = run("train_classifier.py", "--data_path", odd / "data", "--save_dir", odd / "run", *TINY)
    assert done.returncode == 0, done.stderr
    words = ["--check_point", odd / "run" / "best.pt", "--predict", odd / "run" / "test_pictures.txt"]
    done = run("train_classifier.py", *words, "--output", odd / "labels.csv", "--device", "cpu")
    assert done.returncode == 0 and (odd / "labels.csv").read_bytes().count(b"/caf\xe9 x/data/") > 5, done.stderr


def test_tables_are_made_in_a_folder_whose_name_is_no_text(odd):
    done = run("virality.py", odd / "data" / "redditSubmissions.csv.gz", "--output", odd / "v.csv")
    assert done.returncode == 0 and (odd / "v.csv").read_bytes().count(b"\n") == 61, done.stderr
    assert run("data_set.py", "--data_path", odd / "data").returncode == 0


def test_without_fcntl_as_on_windows_a_run_trains(sample, tmp_path):
    code = "import sys; sys.modules['fcntl'] = None; import runpy; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    words = ["--data_path", sample, "--save_dir", tmp_path, *TINY]
    done = run("-c", code, "train_classifier.py", *words)
    assert done.returncode == 0 and (tmp_path / "results.json").is_file(), done.stderr


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nowhere"])
def test_the_backend_of_a_notebooks_kernel_ends_no_training(sample, tmp_path, backend):
    words = ["--data_path", sample, "--save_dir", tmp_path, *TINY]
    done = run("train_classifier.py", *words, env=os.environ | {"MPLBACKEND": backend})
    assert done.returncode == 0 and (tmp_path / "curves.png").is_file(), done.stderr


@pytest.mark.parametrize("tools", [["sha256sum"], ["shasum", "perl"], ["sha256sum", "shasum", "perl"]])
def test_the_pipeline_hashes_with_what_the_machine_has(tmp_path, tools):
    """macOS has no sha256sum."""
    found = {tool: shutil.which(tool) for tool in [*tools, "bash", "cat"]}
    if None in found.values():
        pytest.skip(f"needs {', '.join(found)}")
    (tmp_path / "bin").mkdir()
    for tool, path in found.items():
        (tmp_path / "bin" / tool).symlink_to(path)
    (tmp_path / "table.csv").write_text("img_id\n1\n")
    text = (ROOT / "script.sh").read_text()
    function = text[text.index("sha() {") : text.index("\n}\n", text.index("sha() {")) + 3]
    words = [found["bash"], "-c", f"{function}sha {tmp_path}/table.csv; cat {tmp_path}/table.csv | sha"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}, check=True)
    digest = hashlib.sha256(b"img_id\n1\n").hexdigest()
    assert [line.split()[0] for line in done.stdout.splitlines()] == [digest, digest]


# --- outputs that cannot be -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["virality.py", "{table}", "--output", "."], "--output . is a folder"),
        (["virality.py", "{table}", "--output", "{table}"], "which is to be read"),
        (["context.py", "--data_path", "{data}", "--output", "."], "--output . is a folder"),
        (["context.py", "--data_path", "{data}", "--output", "{data}/x.png"], "the chart is"),
        (["duplicates.py", "{data}", "--output", "."], "--output . is a folder"),
        (["deza2015.py", "{data}", "--output", "."], "--output . is a folder"),
        (["deza2015.py", "{data}", "--output", "{table}"], "which is to be read"),
    ],
)
def test_an_output_that_is_a_folder_or_an_input_is_refused_before_anything_is_written(copied, words, says):
    table = copied / "redditSubmissions.csv.gz"
    before = table.read_bytes(), sorted(copied.rglob("*"))
    done = run_here(*(word.format(data=copied, table=table) for word in words))
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert (table.read_bytes(), sorted(copied.rglob("*"))) == before

"""The five notebooks run top to bottom, without a network or a GPU, and are committed without output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from studies import windows

ROOT = Path(__file__).resolve().parent.parent
NAMES = [
    "Load_OriginalDataSet",
    "EDA & Build_dataset",
    "Net_Construction",
    "Preliminary Training",
    "Classification_task",
]


@pytest.fixture(scope="session")
def copied(tmp_path_factory) -> Path:
    """A copy of the project, so that what the notebooks write does not lie in the checkout."""
    kept = shutil.ignore_patterns("data", "outputs", "tests", ".*", "__pycache__")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("project") / "copy", ignore=kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_output_and_runs(copied, name, monkeypatch):
    for variable in ("DATA", "WEIGHTS", "WINDOWS"):  # without what is not in the project
        monkeypatch.delenv(f"IMAGE_VIRALITY_{variable}", raising=False)
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(copied / "notebooks")}}).execute()
    assert any(output.output_type != "error" for cell in code for output in cell.outputs)


def run_cells(name: str, project: Path, word: str, then: str, **variables: object) -> subprocess.CompletedProcess:
    """Run a notebook's first code cell, those that hold a word, and a line of the test's."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    imports = "import context\nimport pandas as pd\nimport visualisation"
    words = [code[0], imports, *(cell for cell in code[1:] if word in cell), then]
    environment = os.environ | {f"IMAGE_VIRALITY_{key}": str(value) for key, value in variables.items()}
    words = [sys.executable, "-c", "\n".join(words)]
    return subprocess.run(words, cwd=project, capture_output=True, text=True, env=environment)


def test_the_real_posts_tell_what_needs_no_picture(copied, real_data):
    done = run_cells("EDA & Build_dataset", copied, "real", 'print(shown, real["clock_489"]["value"])', DATA=real_data)
    assert done.returncode == 0, done.stderr
    assert "two random halves agree on" in done.stdout and 0.71 < float(done.stdout.split()[-1]) < 0.72


def test_the_windows_of_several_seeds_are_shown_from_their_results_file(copied, tmp_path):
    shares = {f"seed_{seed}": {"value": 1 - seed / 10, "low": 0.5, "high": 1.0, "n": 117} for seed in range(4)}
    runs = [
        {"check_point": f"table/{name}/best.pt", "pointing": {"share": {"the window": share, "the centre": share}}}
        for name, share in shares.items()
    ]
    path = tmp_path / "windows.json"
    path.write_text(json.dumps({"runs": runs, "over_runs": windows.over_runs(runs)}))
    then = "print(said, shown.data['name'].tolist())"
    done = run_cells("Preliminary Training", copied, "WINDOWS", then, WINDOWS=path)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 runs succeed" in done.stdout and str(list(shares)) in done.stdout


def test_pretrained_weights_are_used_where_they_are_given(copied):
    done = run_cells("Preliminary Training", copied, "QUICK = {", "print(QUICK)", WEIGHTS="weights.pth")
    assert "'weights': 'weights.pth'" in done.stdout, done.stderr


def first_cell(name: str, project: str = "") -> str:
    """What finds the project, with PROJECT set as a reader would, and where it then is."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return code.replace('PROJECT = ""', f"PROJECT = {project!r}") + "\nimport utils\nprint(os.getcwd(), utils.__file__)"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["the project", "notebooks", "a folder of the project", "elsewhere"])
def test_a_notebook_finds_the_project_wherever_its_kernel_runs(copied, tmp_path, name, place):
    folder = {"the project": copied, "notebooks": copied / "notebooks", "elsewhere": tmp_path}.get(place)
    folder = folder or copied / "pages"
    words = [sys.executable, "-c", first_cell(name, str(copied) if place == "elsewhere" else "")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.stdout.split() == [str(copied), str(copied / "utils.py")], done.stderr


@pytest.mark.parametrize("project", ["", "nowhere", "~"])
def test_a_notebook_outside_the_project_says_what_to_set(tmp_path, project):
    words = [sys.executable, "-c", first_cell(NAMES[0], project)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env={"HOME": str(tmp_path)})
    assert "is not in the project: set PROJECT" in done.stderr.splitlines()[-1]

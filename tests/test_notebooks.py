"""The five notebooks run top to bottom, without a network or a GPU, and are committed without output."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

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
def test_a_notebook_is_committed_without_output_and_runs(copied, name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(copied / "notebooks")}}).execute()
    assert any(output.output_type != "error" for cell in code for output in cell.outputs)


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

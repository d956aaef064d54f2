"""The five notebooks run top to bottom, without a network or a GPU, and are committed without output."""

from __future__ import annotations

import shutil
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

"""Fixtures that several test files share: a small sample community, a real data folder where there is one."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest

# Two tests run at a time: each of them, and each script that it starts, has one of two cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import doctor
import sample_data
import utils

# What is measured on this machine belongs neither into its owner's cache nor from one test run into the next.
os.environ["TORCH_HOME"] = tempfile.mkdtemp(prefix="torch-home-")
atexit.register(shutil.rmtree, os.environ["TORCH_HOME"], ignore_errors=True)

pytest.register_assert_rewrite("browsing")  # so that a wait that fails says what was there instead

ROOT = Path(__file__).resolve().parent.parent
# Names of pictures that a page or a figure has to show as they are.
HOSTILE = [
    "<img onerror=alert(1)>.jpg",
    'it\'s "quoted" & <b>bold</b>.jpg',
    "日本語 ünïcode 🐈.jpg",
    "</script><script>alert(2)</script>.jpg",
    "  many   spaces .jpg",
    "x" * 196 + ".jpg",
    "$x^2$ \\frac{ @@data@@ ${1}.jpg",
    "broken\udcff.jpg",
]


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A sample community of 60 pictures with its tables built. Read only: tests that write copy it."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    sample_data.make_sample(folder, num_images=60, seed=0)
    for words in (
        ["virality.py", folder / "redditSubmissions.csv.gz", "--output", folder / "datasets" / "data_set_iv.csv"],
        ["data_set.py", "--data_path", folder],
    ):
        assert run(*words).returncode == 0
    return folder


SIZE = 64  # pixels of what the untrained ranker sees
TRAIN_SCORES = [place / 10 - 1 for place in range(21)]  # of the pictures that it never saw


@pytest.fixture(scope="session")
def ranker(tmp_path_factory) -> Path:
    """A checkpoint as train_siamese.py leaves it, of a ranker that is not trained. Read only."""
    import torch

    import transforms
    from siamese_net import SiameseNet

    torch.manual_seed(0)
    config = {"model_name": "alexnet", "model_type": 1, "weights": "none", "recipe": "modern", "image_size": SIZE}
    state = {"kind": "siamese", "config": config, "transform": transforms.describe(SIZE)}
    state |= {"model": SiameseNet(**config).state_dict(), "train_scores": torch.tensor(TRAIN_SCORES)}
    path = tmp_path_factory.mktemp("ranker") / "best.pt"
    utils.save_checkpoint(path, state | {"temperature": 0.5})
    return path


@pytest.fixture
def copied(sample, tmp_path):
    """A sample of one's own to spoil."""
    return shutil.copytree(sample, tmp_path / "copy", ignore=shutil.ignore_patterns("*.npy"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("IMAGE_VIRALITY_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data ({folder}) is not here")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A real Chromium without a window; tests that need it skip where it is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = doctor.chromium()
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", "disable-dev-shm-usage",
                 f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which checks a page for people who see or use it differently; tests that need it skip
    where it is missing (`npm install axe-core`, or AXE_CORE=path/to/axe.min.js)."""
    path = Path(os.environ.get("AXE_CORE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
    if not path.is_file():
        pytest.skip(f"axe-core ({path}) is not here")
    return path.read_text(encoding="utf-8")


def fenced(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a Markdown page: (language or "", content)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(*words: object, **options) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as a user would, without a network."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=options.pop("cwd", utils.ROOT),
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", 300),
        **options,
    )


def run_here(*words: object) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as `run` does, in this process: without the seconds that its imports take.

    `-m`, where it comes first, runs a module of a folder, as python's flag does.
    """
    words = [str(word) for word in words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", words[words[0] == "-m" :]),
        contextlib.chdir(utils.ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__")
            else:
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

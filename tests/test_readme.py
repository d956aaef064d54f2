"""Every command of the README and of docs/ runs: the same flags, on a small sample, for one epoch."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, fenced, run, run_here

import doctor

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
# Each command once, wherever it stands; those of protocols.md are tested in test_protocols.py.
COMMANDS = list(
    dict.fromkeys(
        line.split("  #")[0].strip()
        for page in [README, *DOCS]
        if page.name != "protocols.md"
        for language, block in fenced(page)
        for line in block.splitlines()
        if not language and line.startswith(("python ", "torchrun ", "bash "))
    )
)
# What makes a script quick: a later flag overrides the page's.
QUICK = {
    "train_siamese.py": "--epochs 1 --image_size 64",
    "train_classifier.py": "--epochs 1 --image_size 64",
    "studies.comparison": "--epochs 1 --image_size 64 --networks alexnet",
    "studies.ablation": "--epochs 1 --image_size 64 --seeds 0 --leave_out nothing",
    "studies.benchmark": "--image_size 64 --num_images 16 --batch_size 4 --seconds 0.1 --rounds 1",
    "studies.precision_choices": "--networks alexnet --image_size 64 --batch_size 2 --rounds 1",
    "studies.costs": "--num_images 40 --image_size 64",
    "studies.time_to_accuracy": "--image_size 64",
    "download_images.py": "--dry_run",  # without it in test_download_images.py, against a server of its own
    "demo.py": "--help",  # without it in test_demo.py, with a browser
}
WRITES = {"train_siamese.py": "--save_dir", "train_classifier.py": "--save_dir"}
WRITES |= {"studies.comparison": "--save_dir", "studies.baselines": "--save_dir"}
WRITES |= dict.fromkeys(("studies.ablation", "studies.benchmark", "studies.time_to_accuracy"), "--output")
WRITES |= dict.fromkeys(("studies.windows", "studies.precision_choices", "studies.costs"), "--output")
LONG = ("studies.costs", "studies.precision_choices")  # six processes; a network of every precision


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory) -> Path:
    """A data set that may be written to, beside a trained ranker."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(sample, folder / "data")
    words = f"train_siamese.py --data_path {folder / 'data'} --weights none {QUICK['train_siamese.py']}"
    done = run_here(*words.split(), "--save_dir", folder / "run")
    assert done.returncode == 0, done.stderr
    paths = sorted((folder / "data" / "images").glob("*.jpg"))
    for number, path in enumerate(paths[:12]):  # a folder per community
        community = folder / "photos" / ("indoors", "outdoors")[number % 2]
        community.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, community / f"DSC_{number}.JPG")
    post = {"id": "abcde", "created_utc": 1.6e9, "score": 1, "subreddit": "aww", "title": "a cat"}
    (folder / "posts.ndjson").write_text(json.dumps(post | {"url": "https://i.redd.it/abc.jpg"}))
    pd.DataFrame({"path": paths, "score": range(len(paths))}).to_csv(folder / "ranks.csv", index=False)
    features = np.random.default_rng(0).normal(size=(len(paths), 8))
    for name in ("features.npz", "unseen.npz"):
        np.savez(folder / name, names=[path.stem for path in paths], features=features)
    for script, run_of in (("train_siamese.py", "run/features"), ("train_classifier.py", "classifier")):
        words = f"{script} --data_path {folder / 'data'} --features {folder / 'features.npz'}"
        assert run_here(*words.split(), "--save_dir", folder / run_of).returncode == 0
    return folder


def test_the_readme_has_commands():
    assert len(COMMANDS) > 30 and COMMANDS[:2] == ["bash script.sh", "bash script.sh test"]
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def linked(page: Path) -> dict[str, tuple[Path, str]]:
    """The links of a page to files of the project: as they are written → (file, anchor or "")."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    parts = {target: target.partition("#") for target in targets if "://" not in target}
    return {target: (page.parent / path if path else page, anchor) for target, (path, _, anchor) in parts.items()}


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target, (file, anchor) in linked(page).items():
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target


def test_the_readme_links_every_page():
    assert {file.resolve() for file, _ in linked(README).values()} >= {page.resolve() for page in DOCS}


def test_project_citation_and_readme_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    about, text = project["project"], " ".join(README.read_text(encoding="utf-8").split())
    oldest = ".".join(map(str, doctor.OLDEST))
    assert about["requires-python"] == f">={oldest}" and f"Python {oldest} or newer" in text
    assert project["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert all((ROOT / name).is_file() for name in [about["readme"], *about["license-files"]])
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    titles = re.findall(r'^    title: "?(.*?)"?$', citation, re.MULTILINE)
    assert len(titles) == 3 and all(f"*{title}*" in text for title in titles)
    assert f"license: {about['license']}" in citation and "MIT" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_list_of_files_is_complete():
    listed = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    folders = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}
    names = {path.name for path in ROOT.glob("*.py")} | folders
    assert [name for name in sorted(names) if f"`{name}`" not in listed] == []


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    table = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.*?)`", table, re.MULTILINE)
    paths = [path for path in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")] if path.parent.name != "tests"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    for message in messages:
        phrases = re.split(r"…|\(.*|\bnan\b|--seed |--epochs |cuda:|siamese|\d[\d.]*", message)
        assert max(phrases, key=len).strip(" :,") in code, message
    assert len(messages) > 10


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] if any(name in command for name in LONG) else [])
        for command in COMMANDS
        if command.startswith("python ")
    ],
)
def test_a_command_of_the_readme_runs(command, trained, tmp_path):
    done = run_here(*small(command, trained, tmp_path)[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("torchrun ")])
def test_a_command_of_several_processes_runs(command, trained, tmp_path):
    words = small(command, trained, tmp_path)[1:]
    words[words.index("--nproc_per_node") + 1] = "2"
    if "train_siamese.py" in words:
        words += ["--weights", "none"]  # nothing is fetched here
    done = run("-m", "torch.distributed.run", "--standalone", *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("bash ")])
def test_a_verb_of_the_readme_is_one_of_the_script(command):
    verbs = subprocess.run(["bash", "script.sh", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    script, *words = command.split()[1:]
    known = [bool(re.search(rf"\b{re.escape(word)}\b", verbs)) or (ROOT / word).is_file() for word in words]
    assert script == "script.sh" and all(known)


def small(command: str, trained: Path, tmp_path: Path) -> list[str]:
    """The command's words, its data set and run replaced by small ones, and what it writes put aside."""
    places = {"FOLDER": "data/images", "D": "data", "scenes": "data", "data/sample": "data", "RUN": "run"}
    places |= {"PHOTOS": "photos", "OWN": "own", "FILE": "posts.ndjson"}
    places |= {"outputs/sample/siamese_1": "run", "data/reddit/deza2015": "data", "data/reddit": "data"}
    places |= {"features.npz": "features.npz", "unseen.npz": "unseen.npz", "outputs/classifier": "classifier"}
    words = shlex.split(command)
    for name, place in places.items():
        words = [re.sub(rf"^{re.escape(name)}(?=/|$)", str(trained / place), word) for word in words]
    script = words[2] if words[1] == "-m" else next((word for word in words if word.endswith(".py")), "")
    if "--scores" in words:
        words[words.index("--scores") + 1] = str(trained / "ranks.csv")
    for flag in ("--output", "--page"):
        if flag in words:
            words[words.index(flag) + 1] = str(tmp_path / Path(words[words.index(flag) + 1]).name)
    if script in WRITES:
        words += [WRITES[script], str(tmp_path / "out")]
    return words + QUICK.get(script, "").split()

"""Check what will work on this machine, and what will not: Python, disk, packages, device, network, data, weights.

    bash script.sh doctor

It needs only Python's standard library, so that it works before anything is installed, and changes nothing.
Exit status 0, or 2 if the pipeline cannot run at all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)  # Python
GB = 1e9
# On disk: the packages with CUDA's libraries (without these a fifth), then data and runs of the sample.
INSTALLED, SAMPLE = 6.5 * GB, 1 * GB
WITHOUT_CUDA = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash script.sh"
HOSTS = {
    "weights": ("https://download.pytorch.org", "pretrained weights (--weights imagenet)"),
    "metadata": ("http://snap.stanford.edu", "the metadata of the Reddit data"),
    "pictures": ("https://i.imgur.com", "the pictures of the Reddit data"),
    "posts": ("https://www.reddit.com", "posts whose picture has moved"),
}
SECONDS = 8  # to wait for a host
NETWORKS = ("alexnet", "vgg16", "resnet101", "densenet121")
# package → what it is for, and the file that pins it
OPTIONAL = {
    "gradio": ("the demo and game in a browser", "requirements-demo.txt"),
    "timm": ("--model_name timm:NAME", "requirements-timm.txt"),
    "onnx": ("export_model.py --onnx", "requirements-onnx.txt"),
    "pytest": ("the tests", "requirements-dev.txt"),
    "selenium": ("the tests of pages in a browser", "requirements-dev.txt"),
    "pillow_heif": ("photographs in HEIC, as iPhones take them", "requirements-dev.txt"),
}


class Found(NamedTuple):
    """A line of the report. `good`: as it should be; else it need not be a fault, but is worth a word."""

    what: str
    good: bool
    says: str


# --- what there is --------------------------------------------------------------------------------------------------
def python_found(version: tuple = tuple(sys.version_info[:3])) -> Found:
    name = ".".join(map(str, version))
    if version[:2] < OLDEST:
        return Found("Python", False, f"{name} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return Found("Python", True, f"{name} ({sys.executable})")


def environment_found() -> Found:
    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if active:
        return Found("environment", True, f"{active} is active: packages go there")
    if (ROOT / ".venv").is_dir():
        return Found("environment", True, f"{ROOT / '.venv'}")
    if importlib.util.find_spec("ensurepip") is None:
        return Found("environment", False, "none, and Python's venv is not whole (on Debian: apt install python3-venv)")
    return Found("environment", True, "none yet: the first command makes .venv")


def disk_found(free: float, lacking: list[str]) -> Found:
    needed = SAMPLE + (INSTALLED if lacking else 0)
    says = f"{free / GB:.1f} GB free; the sample needs about {SAMPLE / GB:.0f} GB"
    if lacking:
        says += f", its packages up to {INSTALLED / GB:.1f} GB; without a GPU a fifth: {WITHOUT_CUDA}"
    return Found("disk", free >= needed, says)


def machine_found() -> Found:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return Found("machine", True, f"{cores} cores")
    good = memory > 3.5 * GB
    return Found("machine", good, f"{cores} cores, {memory / GB:.0f} GB of memory" + "; 4 GB are needed" * (not good))


def lacking_packages(path: Path) -> list[str]:
    """What a requirements file pins and is not installed in this version."""
    lacking = []
    for line in path.read_text().splitlines():
        pinned = re.match(r"([\w.-]+)==([\w.+-]+)", line)
        if not pinned or ";" in line:  # a condition, as on Python's version
            continue
        try:
            there = metadata.version(pinned[1]).partition("+")[0]
        except metadata.PackageNotFoundError:
            lacking.append(pinned[1])
        else:
            if there != pinned[2]:
                lacking.append(f"{pinned[1]} {pinned[2]} (here: {there})")
    return lacking


def packages_found(lacking: list[str]) -> Found:
    if not lacking:
        return Found("packages", True, "all that requirements.txt pins")
    some = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
    return Found("packages", False, f"lacking: {some}; `bash script.sh set-up` installs them")


def index_found() -> Found:
    """Whether pip reaches an index of packages, its own or the one that it is set to."""
    if importlib.util.find_spec("pip") is None:
        return Found("pip", True, "comes with .venv; whether it reaches an index of packages will be seen then")
    words = [sys.executable, "-m", "pip", "index", "versions", "tqdm", "--disable-pip-version-check"]
    try:
        done = subprocess.run([*words, "--retries", "0", "--timeout", str(SECONDS)], capture_output=True, timeout=60)
        good = done.returncode == 0
    except subprocess.TimeoutExpired:
        good = False
    return Found("pip", good, "packages can be fetched" if good else "pip reaches no index of packages")


LOOK = """
import json, torch
about = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
if torch.cuda.is_available():
    for number in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(number)
        about["gpus"].append([one.name, one.total_memory])
about["mps"] = torch.backends.mps.is_available()
print(json.dumps(about))
"""


def torch_found() -> Found:
    """In a process of its own: a torch that is broken may end the one that imports it."""
    if importlib.util.find_spec("torch") is None:
        return Found("torch", False, "not installed yet")
    try:
        done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return Found("torch", False, "cannot be imported: nothing after five minutes")
    try:
        return device_found(json.loads(done.stdout.splitlines()[-1]), shutil.which("nvidia-smi") is not None)
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Found("torch", False, f"cannot be imported: {last[:200]}")


def device_found(about: dict, nvidia: bool) -> Found:
    """What torch computes on, of what it has said of itself, and whether NVIDIA's driver is here."""
    name = f"{about['version']} on "
    if about["gpus"]:
        gpus = [f"{gpu} ({memory / GB:.0f} GB)" for gpu, memory in about["gpus"]]
        return Found("torch", True, name + " and ".join(gpus))
    if about["mps"]:
        return Found("torch", True, name + "Apple's GPU (mps)")
    if nvidia and not about["cuda"]:
        return Found("torch", False, name + "the CPU: it is built without CUDA, though NVIDIA's driver is here")
    if nvidia:
        return Found("torch", False, name + f"the CPU: NVIDIA's driver does not fit its CUDA {about['cuda']}")
    says = name + "the CPU: enough for the sample; days for all the Reddit data"
    if about["cuda"]:
        says += f". Its CUDA libraries, some GB, do nothing here; a new .venv without them: {WITHOUT_CUDA}"
    return Found("torch", True, says)


def host_found(url: str) -> str:
    """'' if a host answers, whatever; else why it does not. Proxies are the environment's."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "image-virality/1.0 (research)"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code not in (407, 502, 503, 504) else f"HTTP {error.code}"
    except Exception as error:  # noqa: BLE001 (a proxy, a name server, a certificate: a dozen types)
        return str(getattr(error, "reason", None) or error) or type(error).__name__


def network_found() -> dict[str, Found]:
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        faults = list(pool.map(host_found, [url for url, _ in HOSTS.values()]))
    return {
        key: Found("network", not fault, f"{url} {'answers' if not fault else f'does not answer ({fault})'}: {use}")
        for (key, (url, use)), fault in zip(HOSTS.items(), faults, strict=True)
    }


def data_found() -> list[Found]:
    """A line for each data set in data/."""
    found = []
    for folder in sorted((ROOT / "data").glob("*/")):
        if not (folder / "images").is_dir():
            continue
        count = sum(1 for _ in os.scandir(folder / "images"))
        tables = [path.name for path in sorted((folder / "datasets").glob("*.csv"))]
        missing = "" if tables else "; no tables yet"
        found.append(Found("data", bool(tables), f"data/{folder.name}: {count} files in images/{missing}"))
    return found or [Found("data", True, "none yet: the sample is drawn by code")]


def weights_found() -> Found:
    """ImageNet's weights in torch's cache, for networks of NETWORKS."""
    cache = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    folder = Path(cache).expanduser() / "hub" / "checkpoints"
    there = [name for name in NETWORKS if any(folder.glob(f"{name}-*.pth"))]
    says = f"pretrained {', '.join(there)} in {folder}" if there else f"none pretrained in {folder}"
    return Found("weights", bool(there), says)


def rankers_found() -> list[Path]:
    """Trained rankers of the pipeline, the newest first."""
    found = [path for path in ROOT.glob("outputs/*/siamese_*/best.pt") if (path.parent / "results.json").is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def chromium() -> str | None:
    """The program of a Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def optional_found() -> dict[str, Found]:
    found = {}
    for name, (use, file) in OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        says = f"{name}, for {use}" + (f": pip install -r {file}" if not there else "")
        found[name] = Found("optional", there, says)
    there = bool(chromium() and shutil.which("chromedriver"))
    says = "Chromium and chromedriver, for the tests of pages in a browser"
    found["chromium"] = Found("optional", there, says + ": the system's package manager has them" * (not there))
    return found


# --- what follows from it -------------------------------------------------------------------------------------------
def verdicts(found: dict[str, Found], rankers: list[Path]) -> list[tuple[str, str]]:
    """(what one may want to do, '' if it will work, else why not and what to do)."""
    good = lambda name: name not in found or found[name].good  # noqa: E731
    pipeline = [found[name].says for name in ("python", "environment", "disk") if not good(name)]
    if not good("packages") and not good("pip"):
        pipeline.append("packages are lacking, and pip reaches no index (docs/offline.md: from a folder of wheels)")
    if good("packages") and "cannot be imported" in found["torch"].says:
        pipeline.append(f"torch {found['torch'].says}")
    sample = "; ".join(pipeline)
    here = good("weights") or good("host weights")
    pretrained = "" if here else "no pretrained weights here, nor a way to fetch any"
    reddit = [each for each in (sample, pretrained and f"{pretrained}: --weights FILE or none") if each]
    hosts = [HOSTS[key][0] for key in ("metadata", "pictures", "posts") if not good(f"host {key}")]
    if hosts:
        reddit.append(f"{', '.join(hosts)} cannot be asked: only what is in data/reddit already")
    with_a_ranker = "" if rankers else "no ranker is trained yet: first bash script.sh"
    fetched = lambda name: "" if good(name) or good("pip") else found[name].says  # noqa: E731
    none = f'{pretrained}: CLASSIFIER_FLAGS="--weights none", and SIAMESE_FLAGS likewise' if pretrained else ""
    return [
        ("the pipeline on the built-in sample: bash script.sh", sample),
        ("rank pictures: bash script.sh rank FOLDER", sample or with_a_ranker),
        ("the Reddit data: bash script.sh reddit", "; ".join(reddit)),
        ("train on your own pictures: bash script.sh own FOLDER", sample or none),
        ("the demo: bash script.sh demo", sample or with_a_ranker or fetched("gradio")),
        ("the tests: bash script.sh test", sample or fetched("pytest")),
        ("photographs in HEIC", sample or ("" if good("pillow_heif") else found["pillow_heif"].says)),
    ]


def examined() -> tuple[dict[str, Found], list[Found], list[Path]]:
    """What there is, by name; further lines of the report; and the rankers."""
    lacking = lacking_packages(ROOT / "requirements.txt")
    found = {"python": python_found(), "environment": environment_found(), "machine": machine_found()}
    found |= {"disk": disk_found(shutil.disk_usage(ROOT).free, lacking), "packages": packages_found(lacking)}
    found["torch"] = torch_found()
    optional = optional_found()
    if lacking or not all(each.good for each in optional.values()):
        found["pip"] = index_found()
    found |= {f"host {key}": one for key, one in network_found().items()} | {"weights": weights_found()}
    found |= optional
    rankers = rankers_found()
    newest = f"{len(rankers)} trained, the newest is {rankers[0].relative_to(ROOT)}" if rankers else "none trained yet"
    return found, [*data_found(), Found("rankers", bool(rankers), newest)], rankers


def main() -> int:
    if sys.version_info[:2] < OLDEST:  # before anything that an old Python would not know
        print(f"error: {python_found().says}", file=sys.stderr)
        return 2
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found, more, rankers = examined()
    for each in [*found.values(), *more]:
        print(f"{'ok  ' if each.good else '--  '}{each.what:<12} {each.says}")
    told = verdicts(found, rankers)
    print("\nWhat will work here:")
    for what, why in told:
        print(f"  {'yes' if not why else 'no '}  {what}" + (f"\n       {why}" if why else ""))
    return 2 if told[0][1] else 0


if __name__ == "__main__":
    sys.exit(main())

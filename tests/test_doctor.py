"""The doctor: what it sees, what it says of it, and that it speaks before anything is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from loopback_server import serving

import doctor
from doctor import GB, Found

NOWHERE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}


def examine(*flags: str) -> subprocess.CompletedProcess:
    """Without a network, whatever this machine has."""
    environment = os.environ | NOWHERE | {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "0"}
    return subprocess.run(
        [sys.executable, *flags, ROOT / "doctor.py"], capture_output=True, text=True, env=environment, timeout=120
    )


def test_it_says_in_words_what_will_work_here():
    done = examine()
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert re.search(r"^ok  Python +3\.\d+\.\d+ \(", done.stdout, re.MULTILINE)
    assert re.search(r"^(ok|--)  torch +\d.* on ", done.stdout, re.MULTILINE)
    assert done.stdout.count("does not answer (") == 4
    assert "\n  yes  the pipeline on the built-in sample: bash script.sh\n" in done.stdout
    assert "snap.stanford.edu, https://i.imgur.com, https://www.reddit.com cannot be asked" in done.stdout


def test_it_speaks_before_anything_is_installed():
    done = examine("-S")  # Python as it comes
    assert done.stderr == "" and done.returncode == 0, done.stderr
    assert "lacking: torch, torchvision, numpy, pandas and " in done.stdout and "not installed yet" in done.stdout


def test_an_old_python_is_told_to_stop():
    assert doctor.python_found((3, 9, 2)) == ("Python", False, "3.9.2 is too old: 3.11 or newer is needed")


def test_packages_are_compared_with_what_is_pinned(tmp_path):
    (tmp_path / "r.txt").write_text(
        'numpy==0.1\nno-such-package==1.0\n-r other.txt\nno-such-one==1; python_version < "3"\n'
    )
    wrong, missing = doctor.lacking_packages(tmp_path / "r.txt")
    assert wrong.startswith("numpy 0.1 (here: ") and missing == "no-such-package"
    assert doctor.packages_found(["a"] * 6).says.startswith("lacking: a, a, a, a and 2 more; ")
    assert doctor.lacking_packages(ROOT / "requirements.txt") == []


@pytest.mark.parametrize(
    ("about", "nvidia", "good", "says"),
    [
        ({"gpus": [["H100", 80e9]], "cuda": "13.0", "mps": False}, True, True, "2.0 on H100 (80 GB)"),
        ({"gpus": [], "cuda": None, "mps": True}, False, True, "2.0 on Apple's GPU (mps)"),
        ({"gpus": [], "cuda": None, "mps": False}, False, True, "enough for the sample; days for all the Reddit data"),
        ({"gpus": [], "cuda": "13.0", "mps": False}, False, True, "whl/cpu bash script.sh"),
        ({"gpus": [], "cuda": None, "mps": False}, True, False, "built without CUDA, though NVIDIA's driver is here"),
        ({"gpus": [], "cuda": "13.0", "mps": False}, True, False, "NVIDIA's driver does not fit its CUDA 13.0"),
    ],
)
def test_the_device_is_told(about, nvidia, good, says):
    found = doctor.device_found({"version": "2.0"} | about, nvidia)
    assert found.good == good and found.says.endswith(says)


def test_a_host_answers_whatever_it_says_unless_it_is_not_the_host(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as (server,):
        assert doctor.host_found(server.url) == ""
        monkeypatch.setattr("loopback_server.Handler.do_HEAD", lambda self: self.reply(status=502), raising=False)
        assert doctor.host_found(server.url) == "HTTP 502"
        url = server.url
    assert "refused" in doctor.host_found(url)


def a_machine(**changes: Found) -> dict[str, Found]:
    """One on which all is as it should be, but for `changes`."""
    names = ["python", "environment", "machine", "disk", "packages", "torch", "weights"]
    names += [f"host {key}" for key in doctor.HOSTS] + [*doctor.OPTIONAL, "chromium"]
    return {name: Found(name, True, "well") for name in names} | changes


def test_what_follows(tmp_path):
    told = lambda rankers=(tmp_path,), **changes: dict(doctor.verdicts(a_machine(**changes), list(rankers)))  # noqa: E731
    sample, rank, reddit, own, demo, tests, heic = told()
    assert not any(told().values())
    assert not told(rankers=[])[sample] and told(rankers=[])[rank].endswith("first bash script.sh")
    old = told(python=Found("Python", False, "too old"))
    assert all("too old" in why for why in old.values())
    broken = told(torch=Found("torch", False, "cannot be imported: no such symbol"))
    assert "no such symbol" in broken[sample] and "no such symbol" in broken[rank]
    offline = {"packages": Found("packages", False, "lacking"), "pip": Found("pip", False, "reaches none")}
    assert "pip reaches no index" in told(**offline)[sample]
    assert not told(packages=offline["packages"], pip=Found("pip", True, "reached"))[sample]
    assert told(**{"host pictures": Found("network", False, "")})[reddit].startswith("https://i.imgur.com cannot be")
    bare = told(weights=Found("weights", False, ""), **{"host weights": Found("network", False, "")})
    assert "--weights none" in bare[own] and "--weights FILE or none" in bare[reddit] and not bare[sample]
    assert told(gradio=Found("optional", False, "gradio"), pip=offline["pip"])[demo] == "gradio"
    assert told(pillow_heif=Found("optional", False, "pillow_heif"))[heic] == "pillow_heif"
    assert not told(selenium=Found("optional", False, ""))[tests]


@pytest.mark.parametrize(
    ("free", "lacking", "good"), [(2, [], True), (0.5, [], False), (7, ["torch"], False), (9, ["torch"], True)]
)
def test_a_disk_must_hold_what_is_still_to_come(free, lacking, good):
    assert doctor.disk_found(free * GB, lacking).good == good

"""The report shows what lies in a run's folder, names what it cannot read, and works in a real browser."""

import json
import re

import pandas as pd
import pytest
from browsing import find, fits, show, wait
from PIL import Image

from pages.report import report_page
from utils import UserError


def a_run(folder, results=None):
    """A run's folder with everything in it that a report may show."""
    folder.mkdir()
    results = results or {
        "config": {"seed": 0},
        "n": 120,
        "pair_accuracy": 0.92,
        "pair_accuracy_low": 0.9,
        "pair_accuracy_high": 0.94,
        "noise_ceiling": 0.95,
        "kendall_tau": -0.5,
        "windows": {"pointing_accuracy": 0.8},
        "note": "<b>note</b>",
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.json").write_text(json.dumps({"data_path": "<data>", "learning_rate": 0.001, "seed": 2012}))
    (folder / "environment.json").write_text(json.dumps({"packages": {"torch": "2.1"}, "commit": None}))
    metrics = {"epoch": [1, 2, 3], "train_loss": [1, 0.5, 0.3], "val_kendall_tau": [0, 0.5, 0.6]}
    pd.DataFrame(metrics).to_csv(folder / "metrics.csv", index=False)
    for name in ("zebra.png", "windows.png", "curves.png", "<img onerror=alert(3)>.png"):
        Image.new("RGB", (1500, 300), "teal").save(folder / name)
    return folder


def test_report_shows_what_is_there(tmp_path):
    path = report_page(a_run(tmp_path / "run <1>"))
    page = path.read_text(encoding="utf-8")
    assert path.name == "report.html" and "leaderboard.html" not in page
    for text in (
        "Pair accuracy",
        "0.920",
        "0.900 to 0.940",
        "Of the noise ceiling",
        "0.968",
        "−0.500",
        "torch 2.1",
        "2012",
    ):
        assert text in page, text
    assert "&lt;b&gt;note" in page and "&lt;data&gt;" in page and "Run run &lt;1&gt;" in page
    assert "<b>note" not in page and "<img onerror" not in page
    captions = re.findall(r'<img[^>]* alt="([^"]*)"[^>]* src="data:image/png', page)
    assert [caption.split()[0] for caption in captions] == ["Learning", "Where", "&lt;img", "zebra."]
    (tmp_path / "run <1>" / "leaderboard.html").write_text("")
    assert 'href="leaderboard.html"' in report_page(path.parent).read_text(encoding="utf-8")


def test_report_puts_the_test_pictures_first(tmp_path):
    results = {"n": {"train": 70, "test": 20}, "seconds": 9, "other": {"b": 1}, "test": {"pair_accuracy": 0.75}}
    page = report_page(a_run(tmp_path / "run", results)).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Results on the test pictures", "Results", "Pictures in each split", "Other", "Figures"]


def test_report_names_what_it_cannot_read(tmp_path):
    page = report_page(tmp_path).read_text()
    assert "No results yet" in page
    for name in ("results.json", "config.json", "metrics.csv", "curves.png"):
        (tmp_path / name).write_text("{" if name != "metrics.csv" else "")
    page = report_page(tmp_path).read_text()
    for name in ("results.json", "config.json", "metrics.csv", "curves.png"):
        assert re.search(rf"{name} cannot be", page), name
    with pytest.raises(UserError, match="nowhere"):
        report_page(tmp_path / "nowhere")


def test_a_report_written_twice_is_the_same(tmp_path):
    first = report_page(a_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert report_page(tmp_path / "run").read_text(encoding="utf-8") == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_fits_the_screen_without_an_error(browser, tmp_path, width, scheme):
    def ground():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    show(browser, report_page(a_run(tmp_path / "run")), width, scheme)
    wait(browser, lambda: fits(browser))
    before = ground()
    assert (before == "rgb(255, 255, 255)") == (scheme == "light")
    find(browser, "#theme")[0].click()
    wait(browser, lambda: ground() != before)
    script = "return [...document.images].every(image => image.naturalWidth > 0)"
    wait(browser, lambda: browser.execute_script(script))
    assert browser.get_log("browser") == []

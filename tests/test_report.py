"""The report shows what lies in a run's folder, names what it cannot read, and works in a real browser."""

import base64
import io
import json
import re

import pandas as pd
import pytest
from browsing import axe_faults, faint_texts, find, fits, show, wait
from PIL import Image

import visualisation
from pages.report import report_page
from utils import UserError

# What the ranker's figure stands beside, as its results hold it.
EVIDENCE = {
    "test": {"pair_accuracy": 0.62, "pair_accuracy_low": 0.58, "pair_accuracy_high": 0.66, "pairs": 489},
    "context": {
        "clock": {"value": 0.715, "low": 0.67, "high": 0.75, "n": 489},
        "community": {"value": 0.6, "low": 0.55, "high": 0.64, "n": 489},
    },
    "calibration": {
        "temperature": 1.7,
        "log_loss": 0.6,
        "brier": 0.2,
        "ece": 0.021,
        "ece_low": 0.015,
        "ece_high": 0.034,
        "bins": [{"confidence": 0.6, "accuracy": 0.55, "n": 300}, {"confidence": 0.9, "accuracy": 0.8, "n": 189}],
        "coverage": [{"share": 0.1, "accuracy": 0.9}, {"share": 1, "accuracy": 0.62}],
    },
    "deletion": {
        "window": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 120},
        "random": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 120},
        "unit": "standard deviations",
    },
}


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


def downloads(page):
    """What the page offers to take along: name → bytes, or the address of a file beside it."""
    found = {}
    for name, address in re.findall(r'<a download="([^"]*)" href="([^"]*)"', page):
        content = address.partition("base64,")[2]
        found[name] = base64.b64decode(content) if content else address
    return found


def test_the_ranker_stands_beside_clock_community_and_its_calibration(tmp_path):
    page = report_page(a_run(tmp_path / "run", EVIDENCE)).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[:4] == [
        "Results on the test pictures",
        "What clock and community reach on the same test pairs",
        "How sure the ranker is, and how often it is right",
        "Deletion test: does the score hang on the window?",
    ]
    for text in ("less often than “The clock: the older picture”", "0.670 to 0.750", "489", "0.015 to 0.034", "0.693"):
        assert text in page, text
    assert "changes 4.0 times as much as a random one" in page
    taken = downloads(page)
    assert {
        f"{name}.{kind}" for name in ("context", "reliability", "coverage", "deletion") for kind in ("svg", "csv")
    } <= set(taken)
    context = pd.read_csv(io.BytesIO(taken["context.csv"]))
    assert context["value"].tolist() == [0.62, 0.715, 0.6] and context["n"].tolist() == [489, 489, 489]
    assert taken["context.svg"].lstrip().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.76, 0.8, "more often than the best of them"),
        (0.5, 0.6, "the picture says less than its context"),
        (0.6, 0.7, "do not tell the two apart"),
        (None, None, "cannot be said"),
    ],
)
def test_the_report_says_no_more_than_the_intervals_do(tmp_path, low, high, said):
    test = EVIDENCE["test"] | {"pair_accuracy_low": low, "pair_accuracy_high": high}
    page = report_page(a_run(tmp_path / "run", EVIDENCE | {"test": test})).read_text(encoding="utf-8")
    assert said in page


@pytest.mark.parametrize("hollow", [None, 3, [], {}, {"clock": None, "window": "x", "bins": 5, "coverage": [1, {}]}])
def test_sections_without_numbers_say_so(tmp_path, hollow):
    results = {"context": hollow, "calibration": hollow, "deletion": hollow, "n": 10**400, "x": {"val_": float("inf")}}
    page = report_page(a_run(tmp_path / "run", results)).read_text(encoding="utf-8")
    assert "no figure of clock or community" in page and "no figure of a deletion test" in page
    assert ("no calibration that can be drawn" in page) == (not isinstance(hollow, dict))
    assert page.count("holds no numbers that can be drawn") == (
        2 if isinstance(hollow, dict) and "bins" in hollow else 0
    )


def test_every_known_figure_says_what_to_see_and_can_be_taken_along(tmp_path):
    folder = a_run(tmp_path / "run")
    visualisation.save_with_data(visualisation.bar_chart(["=1+1.jpg", "b"], [1, -2]), folder / "curves.png")
    (folder / "windows.svg").write_text("<?xml?>" + " " * 3_000_000)  # too large to be put into the page
    (folder / "windows.csv").write_text("img_id,@x\n=1+1,-1.5\n")
    page = report_page(folder).read_text(encoding="utf-8")
    taken = downloads(page)
    assert taken["curves.svg"] == (folder / "curves.svg").read_bytes()
    assert pd.read_csv(io.BytesIO(taken["curves.csv"]))["name"].tolist() == ["'=1+1.jpg", "b"]
    assert taken["windows.svg"] == "windows.svg"
    assert taken["windows.csv"].decode() == "img_id,'@x\n'=1+1,-1.5\n"
    captions = re.findall("<figcaption><strong>(.*?)</strong> (.*?)<", page)
    assert [see != "" for _, see in captions] == [True, True, False, False]  # zebra and the other are not known
    for address in re.findall(r'(?:src|href)="([a-z]+:[^"]*)"', page):
        assert address.startswith("data:")


def test_what_surrounds_the_posts_is_drawn_from_context_json(tmp_path):
    folder, share = a_run(tmp_path / "run"), {"value": 0.7, "low": 0.6, "high": 0.8, "n": 500}
    found = {
        "sets": {"all": "all pairs"},
        "methods": {"clock": "age <b>"},
        "clock_all": share,
        "ceiling": {"value": 0.9},
    }
    (tmp_path / "context.json").write_text(json.dumps(found))  # beside the runs of a pipeline
    page = report_page(folder).read_text(encoding="utf-8")
    assert "What surrounds the posts" in page and "all pairs: age &lt;b&gt;" in page and "0.600 to 0.800" in page
    table = pd.read_csv(io.BytesIO(downloads(page)["surroundings.csv"]))
    assert table[["value", "n"]].to_numpy().tolist() == [[0.7, 500]]
    for hollow in (
        "{",
        "[]",
        "{}",
        '{"sets": {}, "methods": {}}',
        '{"sets": {"a": "b"}, "methods": {"c": 3}, "c_a": 1}',
    ):
        (tmp_path / "context.json").write_text(hollow)
        page = report_page(folder).read_text(encoding="utf-8")
        assert "context.json cannot be" in page, hollow


def test_copies_found_are_counted(tmp_path):
    folder = a_run(tmp_path / "run")
    groups = pd.DataFrame({"img_id": ["=1", "2", "3", "4"], "group": [1, 1, 2, 3]})
    groups.to_csv(tmp_path / "groups.csv", index=False)  # beside the runs of a pipeline
    (tmp_path / "copies.html").write_text("")
    page = report_page(folder).read_text(encoding="utf-8")
    assert "2 pictures are in 1 groups of copies; the largest holds 2" in page and 'href="../copies.html"' in page
    assert downloads(page)["groups.csv"].decode().splitlines()[1] == "'=1,1"
    groups.iloc[1:].to_csv(folder / "groups.csv", index=False)
    assert "No two of the 3 pictures are copies" in report_page(folder).read_text(encoding="utf-8")
    (folder / "groups.csv").write_text("img_id\n1\n")
    assert "groups.csv has no column group" in report_page(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_fits_the_screen_without_an_error(browser, tmp_path, width, scheme):
    def ground():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    show(browser, report_page(a_run(tmp_path / "run", EVIDENCE)), width, scheme)
    wait(browser, lambda: fits(browser))
    before = ground()
    assert (before == "rgb(255, 255, 255)") == (scheme == "light")
    assert faint_texts(browser) == []
    find(browser, "#theme")[0].click()
    wait(browser, lambda: ground() != before)
    assert faint_texts(browser) == []
    script = "return [...document.images].every(image => image.naturalWidth > 0)"
    wait(browser, lambda: browser.execute_script(script))
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(browser, axe, tmp_path, width, scheme):
    folder = a_run(tmp_path / "run", EVIDENCE)
    pd.DataFrame({"img_id": [1, 2, 3], "group": [1, 1, 2]}).to_csv(folder / "groups.csv", index=False)
    show(browser, report_page(folder), width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert axe_faults(browser, axe) == []

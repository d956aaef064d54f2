"""Figures say what they should and survive odd data; pages work in a real browser, whatever the pictures are called."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visualisation
from utils import UserError

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
SHOWN = [*HOSTILE[:-1], "broken\ufffd.jpg"]  # bytes that are no text can only be marked
ODD_SHAPES = [(2000, 40), (30, 1500), (1, 1), (64, 48)]


def picture(size=(64, 48), colour="teal", mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode)


def texts(figure):
    """Every text that the figure draws."""
    figure.canvas.draw()
    found = [figure._suptitle] if figure._suptitle else []
    found += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        found += [*axes.get_xticklabels(), *axes.get_yticklabels()] if axes.axison else []
    return [text.get_text() for text in found if text.get_text()]


def metrics(epochs):
    e = np.arange(1, epochs + 1)
    columns = {
        "epoch": e,
        "train_loss": 1 / e,
        "val_loss": 1.1 / e,
        "val_kendall_tau": 1 - 1 / e,
        "learning_rate": 0.1 / e,
    }
    return pd.DataFrame(columns)


def networks():
    return pd.DataFrame(
        {
            "model": ["alexnet", "vgg", "resnet", "densenet"],
            "accuracy": [0.72, 0.78, 0.81, 0.805],
            "accuracy_low": [0.66, 0.72, 0.76, 0.75],
            "accuracy_high": [0.77, 0.83, 0.86, 0.85],
            "parameters": [57e6, 134e6, 42.5e6, 7e6],
            "inference_images_per_second": [640, 31, 50, 66.0],
            "train_images_per_second": [210, 9, 14, np.nan],
            "pareto": [True, False, True, True],
        }
    )


# --- figures --------------------------------------------------------------------------------------------------------
def test_saving_is_whole_in_the_format_of_the_suffix_and_leaves_no_state(tmp_path):
    figure = visualisation.bar_chart(["a", "b"], [1, np.nan], errors=np.array([0.1, 0]), xlabel="share")
    with Image.open(visualisation.save(figure, tmp_path / "new" / "bars.png")) as saved:
        assert saved.format == "PNG" and round(saved.info["dpi"][0]) == 150
    assert visualisation.save(figure, tmp_path / "bars.svg").read_text().lstrip().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["bars.png", "bars.svg"]
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    assert "not known" in texts(figure)


def test_figures_need_neither_torch_nor_pyplot():
    code = "import sys, visualisation; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_learning_curves_have_a_panel_a_quantity(epochs):
    table = metrics(epochs).assign(note="text", nothing=np.nan)
    table.loc[0, "val_kendall_tau"] = np.nan
    figure = visualisation.learning_curves(table, "A run", best_epoch=1)
    panels = [axes.get_ylabel() for axes in figure.axes]
    assert panels == ["loss", *(["Kendall's τ"] if epochs > 1 else []), "learning rate"]
    assert [text.get_text() for text in figure.axes[0].texts if "best" not in text.get_text()] == ["train", "val"]
    assert "best: 1" in texts(figure) and "A run" in texts(figure)
    visualisation.learning_curves(table[["epoch"]])


def test_confusion_matrix_writes_counts_and_shares_of_the_row():
    shown = texts(visualisation.confusion_matrix(np.array([[30, 10], [0, 0]]), ["cats", "a$b$"], "Test"))
    assert {"30\n75%", "10\n25%", "0", "cats (40)", "a$b$ (0)", "predicted"} <= set(shown)
    twenty = visualisation.confusion_matrix(np.eye(20, dtype=int), [f"class {i}" for i in range(20)])
    assert sum(text == "1\n100%" for text in texts(twenty)) == 20
    with pytest.raises(ValueError, match="does not fit"):
        visualisation.confusion_matrix(np.eye(3), ["a", "b"])


@pytest.mark.parametrize("n", [0, 1, 2000])
def test_distributions_of_any_size(n):
    rng = np.random.default_rng(0)
    v_scores = rng.normal(size=n)
    figure = visualisation.virality_distribution([*v_scores, np.nan])
    assert sum(bar.get_height() for axes in figure.axes for bar in axes.patches) == n
    assert f"images (of {n:,})" in texts(figure)
    figure = visualisation.submissions_per_image(rng.zipf(2, n))
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == (("log", "log") if n else ("linear", "linear"))
    figure = visualisation.score_against_virality(v_scores * 2, v_scores, "Title", "τ 1.00 $")
    assert "τ 1.00 $" in texts(figure) and ("median of each tenth" in texts(figure)) == (n >= 40)


def test_a_long_tail_is_gathered_in_the_last_bar():
    figure = visualisation.virality_distribution([*np.linspace(-1, 1, 500), 4000.0])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 501
    assert figure.axes[0].get_xlim()[1] < 100 and any("highest 4000" in text for text in texts(figure))


def test_ranked_strip_goes_from_least_to_most():
    pictures = [picture(size) for size in ODD_SHAPES]
    windows = np.array([[-10, -10, 5000, 90], [0, 0, 10, 10], [np.nan] * 4, [50, 40, 90, 90]])
    figure = visualisation.ranked_strip(pictures, [3, -1, 2, 0.5], windows, HOSTILE[:4], "Strip")
    scores = [text.get_text() for text in figure.texts if re.fullmatch(r"−?\d\.\d\d", text.get_text())]
    assert scores == ["−1.00", "0.50", "2.00", "3.00"]
    assert figure.axes[0].get_xlim() == (0, 30) and figure.axes[0].get_ylim() == (1500, 0)
    assert [len(axes.patches) for axes in figure.axes] == [2, 2, 0, 2]  # a window is a line on a white line
    assert all(patch.get_clip_on() for axes in figure.axes for patch in axes.patches)
    assert len(visualisation.ranked_strip([picture()] * 60, range(60)).axes) == 60
    assert visualisation.ranked_strip([], []).axes == []


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_drawn_as_they_are(name, tmp_path):
    pictures = [picture(mode=mode) for mode in ("RGB", "L", "RGBA", "P")]
    figure = visualisation.picture_grid(pictures, [name] * 4, title=name)
    visualisation.save(figure, tmp_path / "grid.png")
    drawn = figure.texts[-1].get_text()
    assert len(drawn) <= len(name) + 2 and drawn.replace("\n", "")[:4].strip() == name[:4].strip()
    visualisation.save(visualisation.bar_chart([name], [1.0], title=name, xlabel=name), tmp_path / "bars.png")


def test_windows_and_the_truth_are_told_apart():
    boxes = np.array([[5, 5, 20, 20.0]] * 3)
    figure = visualisation.windows_on_pictures([picture()] * 3, boxes, ["a", "b", "c"], boxes + 5, "Windows")
    assert {"the model's window", "the truth", "a", "b", "c"} <= set(texts(figure))
    lines = {patch.get_linestyle() for patch in figure.axes[0].patches}
    assert len(lines) == 2 and len(figure.axes[0].patches) == 4
    assert "the truth" not in texts(visualisation.windows_on_pictures([picture()], boxes[:1]))


@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_windows_over_epochs_shows_the_first_and_the_last(epochs):
    history = np.ones((epochs, 2, 4)) * np.arange(1, epochs + 1)[:, None, None]
    figure = visualisation.windows_over_epochs([picture(), picture((20, 90))], range(1, epochs + 1), history)
    headings = [text for text in texts(figure) if text.startswith("epoch ")]
    assert headings[0] == "epoch 1" and headings[-1] == f"epoch {epochs}" and len(headings) == min(8, epochs)
    assert len(figure.axes) == 2 * len(headings)


def test_pairs_say_who_was_right():
    n = 5
    figure = visualisation.pairs([picture()] * n, [picture()] * n, [2, 2, 1, 3, 1], [1, 1, 1, 0, 2], [1, 0, 1, 0.5, 0])
    verdicts = ["✓ right", "✗ wrong", "undecided", "equally viral"]
    shown = [text for text in texts(figure) if text in verdicts]
    assert shown == ["✓ right", "✗ wrong", "undecided", "equally viral", "✓ right"]
    bold = [text.get_text() for text in figure.texts if text.get_fontweight() == "bold" and "2.00" in text.get_text()]
    assert bold == ["2.00, spread further", "2.00", "2.00, spread further"]


def test_names_in_the_comparison_do_not_overlap():
    figure = visualisation.comparison_chart(networks(), "Four networks")
    assert len(figure.axes) == 2
    renderer = figure.canvas.get_renderer()
    for axes, models in zip(figure.axes, (4, 3), strict=True):
        boxes = [visualisation.Text.get_window_extent(text, renderer).extents for text in axes.texts]
        assert len(boxes) == models
        assert not any(visualisation._common_area(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert len(visualisation.comparison_chart(networks().assign(train_images_per_second=np.nan)).axes) == 1
    visualisation.comparison_chart(networks().drop(columns=["parameters", "accuracy_low", "pareto"]).iloc[:1])
    visualisation.comparison_chart(pd.DataFrame({"model": [], "accuracy": []}))


# --- pages ----------------------------------------------------------------------------------------------------------
def ranked(names):
    """A table as rank_images.py makes it, thumbnails and sizes; the scores fall from the first to the last name."""
    n = len(names)
    table = pd.DataFrame({"path": names, "score": np.linspace(2, -2, n), "percentile": np.linspace(99.9, 0, n)})
    table[["x", "y", "w", "h"]] = [10.0, 5.0, 30.0, 20.0]
    table.loc[n - 1, ["x", "y", "w", "h"]] = np.nan
    return table, [visualisation.thumbnail(picture(), 32)] * n, [(64, 48)] * n


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
    metrics(3).to_csv(folder / "metrics.csv", index=False)
    for name in ("zebra.png", "windows.png", "curves.png", "<img onerror=alert(3)>.png"):
        picture((1500, 300)).save(folder / name)
    return folder


def test_thumbnail_is_a_small_jpeg():
    for image in (picture((4000, 100)), picture((10, 20), mode="RGBA"), picture(mode="L")):
        kind, _, content = visualisation.thumbnail(image, side=100).partition(",")
        with Image.open(io.BytesIO(base64.b64decode(content))) as small:
            assert kind == "data:image/jpeg;base64" and small.format == "JPEG" and max(small.size) <= 100


def test_leaderboard_holds_everything_and_lets_no_name_out():
    page = visualisation.leaderboard_page(*ranked(HOSTILE), title="</title><script>alert(4)</script>")
    page.encode("utf-8")
    assert "<img onerror" not in page and "alert(2)</script>" not in page and "<script>alert(4)" not in page
    assert not re.search(r"""(src|href)=["']?(?!data:)[a-z]+:""", page) and "@@" not in page.replace(
        "@@data@@ ${1}", ""
    )
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert [row[0] for row in data] == SHOWN
    assert data[0][3] == [10, 5, 30, 20] and data[-1][3] is None
    with pytest.raises(ValueError, match="do not fit"):
        visualisation.leaderboard_page(ranked(["a"])[0], [], [])


def test_report_shows_what_is_there(tmp_path):
    path = visualisation.report_page(a_run(tmp_path / "run <1>"))
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
    assert 'href="leaderboard.html"' in visualisation.report_page(path.parent).read_text(encoding="utf-8")


def test_report_puts_the_test_pictures_first(tmp_path):
    results = {"n": {"train": 70, "test": 20}, "seconds": 9, "other": {"b": 1}, "test": {"pair_accuracy": 0.75}}
    page = visualisation.report_page(a_run(tmp_path / "run", results)).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Results on the test pictures", "Results", "Pictures in each split", "Other", "Figures"]


def test_report_names_what_it_cannot_read(tmp_path):
    page = visualisation.report_page(tmp_path).read_text()
    assert "No results yet" in page
    for name in ("results.json", "config.json", "metrics.csv", "curves.png"):
        (tmp_path / name).write_text("{" if name != "metrics.csv" else "")
    page = visualisation.report_page(tmp_path).read_text()
    for name in ("results.json", "config.json", "metrics.csv", "curves.png"):
        assert re.search(rf"{name} cannot be", page), name
    with pytest.raises(UserError, match="nowhere"):
        visualisation.report_page(tmp_path / "nowhere")


def test_a_report_written_twice_is_the_same(tmp_path):
    first = visualisation.report_page(a_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert visualisation.report_page(tmp_path / "run").read_text(encoding="utf-8") == first


# --- pages in a browser ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    names = [*HOSTILE, *(f"cat{i}.jpg" for i in range(1, 193))]
    path.write_text(visualisation.leaderboard_page(*ranked(names), title="<b>Pictures</b>"), encoding="utf-8")
    return path


def show(browser, path, width=1280, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(path.as_uri())


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def names(browser):
    return browser.execute_script("return [...document.querySelectorAll('.card .name')].map(name => name.textContent)")


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen_without_an_error(browser, leaderboard, tmp_path, width, scheme):
    for path in (leaderboard, visualisation.report_page(a_run(tmp_path / "run"))):
        show(browser, path, width, scheme)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        find(browser, "#theme")[0].click()
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != ground
        assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
        assert browser.get_log("browser") == []


def test_names_are_text_in_the_browser(browser, leaderboard):
    show(browser, leaderboard)
    assert names(browser)[: len(HOSTILE)] == SHOWN
    assert find(browser, ".name *, h1 *") == []  # no name has become an element
    assert find(browser, ".card")[5].get_attribute("title") == HOSTILE[5]
    assert find(browser, "h1")[0].text == "<b>Pictures</b>" and browser.get_log("browser") == []


def test_leaderboard_sorts(browser, leaderboard):
    show(browser, leaderboard)
    assert len(names(browser)) < 200  # made as they are needed
    button = find(browser, "[data-sort=score]")[0]
    assert button.get_attribute("aria-pressed") == "true" and "highest first" in button.get_attribute("aria-label")
    button.click()
    assert names(browser)[:2] == ["cat192.jpg", "cat191.jpg"] and "lowest" in button.get_attribute("aria-label")
    find(browser, "[data-sort=percentile]")[0].click()
    assert names(browser)[0] == HOSTILE[0]
    find(browser, "[data-sort=name]")[0].click()
    cats = [name for name in names(browser) if name.startswith("cat")]
    assert cats[:3] == ["cat1.jpg", "cat2.jpg", "cat3.jpg"]  # as people count, not 1, 10, 100


def test_leaderboard_filters(browser, leaderboard):
    show(browser, leaderboard)
    count, search = find(browser, "#count")[0], find(browser, "#name")[0]
    assert count.text == "200 of 200 pictures" and count.get_attribute("aria-live") == "polite"
    search.send_keys("<IMG")
    assert names(browser) == HOSTILE[:1] and count.text == "1 of 200 pictures"
    assert sum(float(bar.get_attribute("height")) > 0 for bar in find(browser, "#histogram .shown")) == 1
    search.send_keys("nothing")
    assert names(browser) == [] and find(browser, "#none")[0].is_displayed()
    find(browser, "button[type=reset]")[0].click()
    assert count.text == "200 of 200 pictures"
    low = find(browser, "#from")[0]
    low.clear()
    low.send_keys("90")
    assert count.text == "20 of 200 pictures"


def test_leaderboard_obeys_the_keyboard(browser, leaderboard):
    from selenium.webdriver.common.keys import Keys

    show(browser, leaderboard)
    focused = "return document.activeElement.title"
    press(browser, "/", "cat1")
    assert find(browser, "#name")[0].get_attribute("value") == "cat1"
    press(browser, Keys.ARROW_DOWN)
    assert browser.execute_script(focused) == "cat1.jpg"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert browser.execute_script(focused) == "cat10.jpg"
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    dialog = find(browser, "#large")[0]
    assert dialog.is_displayed() and find(browser, "#large-name")[0].text == "cat10.jpg"
    press(browser, Keys.ARROW_RIGHT)
    assert find(browser, "#large-name")[0].text == "cat11.jpg"
    press(browser, Keys.ESCAPE)
    assert not dialog.is_displayed() and browser.execute_script(focused) == "cat11.jpg"
    press(browser, "/", Keys.ESCAPE)
    assert find(browser, "#count")[0].text == "200 of 200 pictures"
    assert browser.get_log("browser") == []


def test_window_lies_on_its_picture(browser, leaderboard):
    show(browser, leaderboard)
    card = find(browser, ".card")[0]
    image = card.find_element("css selector", "img").rect
    window = card.find_element("css selector", "rect.over").rect
    share = [(window["x"] - image["x"]) / image["width"], (window["y"] - image["y"]) / image["height"]]
    share += [window["width"] / image["width"], window["height"] / image["height"]]
    assert np.allclose(share, [10 / 64, 5 / 48, 30 / 64, 20 / 48], atol=0.03)
    toggle = find(browser, "#windows")[0]
    find(browser, "body")[0].send_keys("w")
    assert not find(browser, ".frame svg")[0].is_displayed() and toggle.get_attribute("aria-pressed") == "false"
    toggle.click()
    assert find(browser, ".frame svg")[0].is_displayed()


def test_scrolling_brings_the_rest(browser, leaderboard):
    from selenium.webdriver.support.wait import WebDriverWait

    def at_the_end(driver):
        driver.execute_script("scrollTo(0, document.body.scrollHeight)")
        return len(names(driver)) == 200

    show(browser, leaderboard)
    WebDriverWait(browser, 10).until(at_the_end)
    assert find(browser, ".card")[-1].find_elements("css selector", "svg") == []  # the last one has no window

"""The leaderboard holds what it is given, and works in a real browser, whatever the pictures are called."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from browsing import axe_faults, becomes, click, faint_texts, find, fits, press, show, wait
from conftest import HOSTILE
from PIL import Image

from pages.leaderboard import leaderboard_page
from pages.template import thumbnail

SHOWN = [*HOSTILE[:-1], "broken\ufffd.jpg"]  # bytes that are no text can only be marked


def ranked(names):
    """A table as rank_images.py makes it, thumbnails and sizes; the scores fall from the first to the last name."""
    n = len(names)
    table = pd.DataFrame({"path": names, "score": np.linspace(2, -2, n), "percentile": np.linspace(99.9, 0, n)})
    table[["x", "y", "w", "h"]] = [10.0, 5.0, 30.0, 20.0]
    table.loc[n - 1, ["x", "y", "w", "h"]] = np.nan
    return table, [thumbnail(Image.new("RGB", (64, 48), "teal"), 32)] * n, [(64, 48)] * n


def test_thumbnail_is_a_small_jpeg():
    for size, mode in (((4000, 100), "RGB"), ((10, 20), "RGBA"), ((64, 48), "L")):
        kind, _, content = thumbnail(Image.new("RGB", size, "teal").convert(mode), side=100).partition(",")
        with Image.open(io.BytesIO(base64.b64decode(content))) as small:
            assert kind == "data:image/jpeg;base64" and small.format == "JPEG" and max(small.size) <= 100


def test_leaderboard_holds_everything_and_lets_no_name_out():
    page = leaderboard_page(*ranked(HOSTILE), title="</title><script>alert(4)</script>")
    page.encode("utf-8")
    assert "<img onerror" not in page and "alert(2)</script>" not in page and "<script>alert(4)" not in page
    assert not re.search(r"""(src|href)=["']?(?!data:)[a-z]+:""", page)
    assert "@@" not in page.replace("@@data@@ ${1}", "")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert [row[0] for row in data] == SHOWN
    assert data[0][3] == [10, 5, 30, 20] and data[-1][3] is None
    assert "guessing gives" not in page
    how_good = {"value": 0.62, "low": 0.58, "high": 0.66, "n": 1234}
    page = leaderboard_page(*ranked(HOSTILE), temperature=1.5, accuracy=how_good)
    assert "62% (95 % interval 58% to 66%) of 1,234 pairs" in page and "guessing gives 50 %" in page
    with pytest.raises(ValueError, match="do not fit"):
        leaderboard_page(ranked(["a"])[0], [], [])


# --- in a browser ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    names = [*HOSTILE, *(f"cat{i}.jpg" for i in range(1, 193))]
    path.write_text(leaderboard_page(*ranked(names), title="<b>Pictures</b>"), encoding="utf-8")
    return path


def names(browser):
    return browser.execute_script("return [...document.querySelectorAll('.card .name')].map(name => name.textContent)")


def text(browser, selector):
    return find(browser, selector)[0].text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_leaderboard_fits_the_screen_without_an_error(browser, leaderboard, width, scheme):
    def ground():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    show(browser, leaderboard, width, scheme)
    wait(browser, lambda: fits(browser))
    before = ground()
    assert (before == "rgb(255, 255, 255)") == (scheme == "light")
    becomes(browser, lambda: faint_texts(browser), [])
    find(browser, "#theme")[0].click()
    wait(browser, lambda: ground() != before)
    becomes(browser, lambda: faint_texts(browser), [])
    script = "return [...document.images].every(image => image.naturalWidth > 0)"
    wait(browser, lambda: browser.execute_script(script))
    assert browser.get_log("browser") == []


def test_names_are_text_in_the_browser(browser, leaderboard):
    show(browser, leaderboard)
    becomes(browser, lambda: names(browser)[: len(HOSTILE)], SHOWN)
    assert find(browser, ".name *, h1 *") == []  # no name has become an element
    becomes(browser, lambda: find(browser, ".card")[5].get_attribute("title"), HOSTILE[5])
    becomes(browser, lambda: text(browser, "h1"), "<b>Pictures</b>")
    assert browser.get_log("browser") == []


def test_leaderboard_sorts(browser, leaderboard):
    show(browser, leaderboard)
    wait(browser, lambda: names(browser))
    assert len(names(browser)) < 200  # made as they are needed
    button = find(browser, "[data-sort=score]")[0]
    becomes(browser, lambda: button.get_attribute("aria-pressed"), "true")
    wait(browser, lambda: "highest first" in button.get_attribute("aria-label"))
    button.click()
    becomes(browser, lambda: names(browser)[:2], ["cat192.jpg", "cat191.jpg"])
    wait(browser, lambda: "lowest" in button.get_attribute("aria-label"))
    find(browser, "[data-sort=percentile]")[0].click()
    becomes(browser, lambda: names(browser)[0], HOSTILE[0])
    find(browser, "[data-sort=name]")[0].click()
    as_people_count = ["cat1.jpg", "cat2.jpg", "cat3.jpg"]  # not 1, 10, 100
    becomes(browser, lambda: [name for name in names(browser) if name.startswith("cat")][:3], as_people_count)


def test_leaderboard_filters(browser, leaderboard):
    def count():
        return text(browser, "#count")

    show(browser, leaderboard)
    becomes(browser, count, "200 of 200 pictures")
    assert find(browser, "#count")[0].get_attribute("aria-live") == "polite"
    search = find(browser, "#name")[0]
    search.send_keys("<IMG")
    becomes(browser, lambda: names(browser), HOSTILE[:1])
    becomes(browser, count, "1 of 200 pictures")
    heights = "return [...document.querySelectorAll('#histogram .shown')].map(bar => bar.height.baseVal.value)"
    becomes(browser, lambda: sum(height > 0 for height in browser.execute_script(heights)), 1)
    search.send_keys("nothing")
    becomes(browser, lambda: names(browser), [])
    wait(browser, lambda: find(browser, "#none")[0].is_displayed())
    find(browser, "button[type=reset]")[0].click()
    becomes(browser, count, "200 of 200 pictures")
    low = find(browser, "#from")[0]
    low.clear()
    low.send_keys("90")
    becomes(browser, count, "20 of 200 pictures")


def test_leaderboard_obeys_the_keyboard(browser, leaderboard):
    from selenium.webdriver.common.keys import Keys

    def focused():
        return browser.execute_script("return document.activeElement.title")

    show(browser, leaderboard)
    wait(browser, lambda: names(browser))
    press(browser, "/", "cat1")
    becomes(browser, lambda: find(browser, "#name")[0].get_property("value"), "cat1")
    wait(browser, lambda: names(browser)[0] == "cat1.jpg")
    press(browser, Keys.ARROW_DOWN)
    becomes(browser, focused, "cat1.jpg")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    becomes(browser, focused, "cat10.jpg")
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    becomes(browser, lambda: text(browser, "#large-name"), "cat10.jpg")
    assert find(browser, "#large")[0].is_displayed()
    press(browser, Keys.ARROW_RIGHT)
    becomes(browser, lambda: text(browser, "#large-name"), "cat11.jpg")
    press(browser, Keys.ESCAPE)
    becomes(browser, focused, "cat11.jpg")
    assert not find(browser, "#large")[0].is_displayed()
    press(browser, "/", Keys.ESCAPE)
    becomes(browser, lambda: text(browser, "#count"), "200 of 200 pictures")
    assert browser.get_log("browser") == []


def test_window_lies_on_its_picture(browser, leaderboard):
    def share():
        """The window's x, y, width and height, as shares of the picture's."""
        card = find(browser, ".card")[0]
        image = card.find_element("css selector", "img").rect
        window = card.find_element("css selector", "rect.over").rect
        corner = [(window["x"] - image["x"]) / image["width"], (window["y"] - image["y"]) / image["height"]]
        return [*corner, window["width"] / image["width"], window["height"] / image["height"]]

    def window_shows():
        return find(browser, ".frame svg")[0].is_displayed()

    show(browser, leaderboard)
    wait(browser, lambda: np.allclose(share(), [10 / 64, 5 / 48, 30 / 64, 20 / 48], atol=0.03))
    toggle = find(browser, "#windows")[0]
    find(browser, "body")[0].send_keys("w")
    becomes(browser, window_shows, False)
    becomes(browser, lambda: toggle.get_attribute("aria-pressed"), "false")
    toggle.click()
    becomes(browser, window_shows, True)


def shade(browser, place):
    """How dark it is around the window of a picture."""
    script = "return [...document.querySelectorAll('.card')][arguments[0]].querySelector('.shade').computedStyleMap()"
    return browser.execute_script(script + ".get('opacity').value", place)


def test_mouse_and_focus_bring_out_the_window(browser, leaderboard):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, leaderboard)
    wait(browser, lambda: names(browser))
    find(browser, "#windows")[0].click()
    becomes(browser, lambda: find(browser, ".frame svg")[1].is_displayed(), False)
    ActionChains(browser).move_to_element(find(browser, ".card")[1]).perform()
    becomes(browser, lambda: find(browser, ".frame svg")[1].is_displayed(), True)
    assert not find(browser, ".frame svg")[0].is_displayed()
    becomes(browser, lambda: shade(browser, 1) > 0.3, True)
    find(browser, "#windows")[0].click()
    becomes(browser, lambda: [shade(browser, place) for place in (0, 1, 2)], [0, 0, 0])
    press(browser, "/", Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # the focus is on the third
    becomes(browser, lambda: [shade(browser, place) > 0.3 for place in (0, 1, 2)], [False, False, True])


@pytest.mark.parametrize("width", [1280, 390])
def test_two_pictures_are_compared(browser, tmp_path, width):
    path = tmp_path / "leaderboard.html"
    table, images, sizes = ranked([*HOSTILE, "a.jpg", "b.jpg"])
    table.loc[9, "score"] = table.loc[8, "score"]
    path.write_text(leaderboard_page(table, images, sizes, temperature=2.0), encoding="utf-8")
    show(browser, path, width)
    wait(browser, lambda: names(browser))
    click(browser, find(browser, ".pick")[5])
    becomes(browser, lambda: text(browser, "#tray bdi"), HOSTILE[5])
    becomes(browser, lambda: find(browser, ".pick")[5].get_attribute("aria-pressed"), "true")
    click(browser, find(browser, ".pick")[0])
    becomes(browser, lambda: [each.text for each in find(browser, "#versus bdi")], [HOSTILE[5], HOSTILE[0]])
    assert find(browser, "#versus bdi *") == []
    becomes(browser, lambda: [each.text for each in find(browser, "#versus strong")], ["", "Ranked higher"])
    assert "more viral than 99 of 100 training pictures" in text(browser, "#versus-pictures")
    # The scores are 2 and −2 + 4 · 4/9: σ(2.222 / 2) = 0.752.
    becomes(browser, lambda: "differ by 2.222. The model is 75 % sure" in text(browser, "#verdict"), True)
    wait(browser, lambda: fits(browser))
    becomes(browser, lambda: faint_texts(browser), [])
    find(browser, "#versus-close")[0].click()
    becomes(browser, lambda: find(browser, "#versus")[0].is_displayed(), False)
    becomes(browser, lambda: find(browser, "#tray")[0].is_displayed(), False)
    assert find(browser, ".pick[aria-pressed=true]") == []
    for place in (8, 9):
        click(browser, find(browser, ".pick")[place])
    becomes(browser, lambda: "cannot tell them apart" in text(browser, "#verdict"), True)
    assert browser.get_log("browser") == []


def test_two_pictures_are_compared_by_the_keyboard(browser, leaderboard):
    from selenium.webdriver.common.keys import Keys

    def focused():
        return browser.execute_script("return document.activeElement.title")

    show(browser, leaderboard)
    wait(browser, lambda: names(browser))
    press(browser, "/", "cat", Keys.ARROW_DOWN, "c")
    becomes(browser, lambda: text(browser, "#tray bdi"), "cat1.jpg")
    press(browser, "c")  # taken back
    becomes(browser, lambda: find(browser, "#tray")[0].is_displayed(), False)
    press(browser, "c", Keys.ARROW_RIGHT, Keys.ENTER)
    becomes(browser, lambda: text(browser, "#large-name"), "cat2.jpg")
    press(browser, "c")
    becomes(browser, lambda: [each.text for each in find(browser, "#versus bdi")], ["cat1.jpg", "cat2.jpg"])
    becomes(browser, lambda: text(browser, "#verdict"), "The scores differ by 0.020.")  # no temperature, no sureness
    press(browser, Keys.ESCAPE)
    becomes(browser, focused, "cat2.jpg")
    press(browser, "c")
    becomes(browser, lambda: text(browser, "#tray bdi"), "cat2.jpg")
    find(browser, "#forget")[0].click()
    becomes(browser, lambda: find(browser, "#tray")[0].is_displayed(), False)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(
    ("percentile", "said"),
    [(83.9, "more viral than 83 of 100"), (0.4, "more viral than none of 100"), (100, "more viral than 100 of 100"),
     (np.nan, "percentile not known")],
)  # fmt: skip
def test_the_chance_to_beat_a_random_picture_is_said_in_words(browser, tmp_path, percentile, said):
    from selenium.webdriver.common.keys import Keys

    table, images, sizes = ranked(["a.jpg"])
    page = leaderboard_page(table.assign(percentile=percentile), images, sizes, against="pictures ranked here")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    show(browser, tmp_path / "page.html")
    becomes(browser, lambda: text(browser, ".card > .quiet"), said)
    find(browser, ".card")[0].send_keys(Keys.ENTER)
    among = said if said.endswith("known") else f"{said} pictures ranked here"
    becomes(browser, lambda: among in text(browser, "#large-facts"), True)


@pytest.mark.parametrize("width", [1280, 390])
def test_of_a_long_path_the_end_is_shown(browser, tmp_path, width):
    def cut():
        return ["cut" in each.get_attribute("class") for each in find(browser, ".card .name")]

    long = "/home/somebody/pictures/holidays/2019/a very long name/another folder below/IMG_20190714_183012.jpg"
    (tmp_path / "page.html").write_text(leaderboard_page(*ranked([long, "short.jpg"])), encoding="utf-8")
    show(browser, tmp_path / "page.html", width)
    becomes(browser, cut, [True, False])
    becomes(browser, lambda: names(browser), [long, "short.jpg"])
    below = """
        const name = document.querySelector(".name"), range = document.createRange();
        range.selectNodeContents(name);
        return range.getBoundingClientRect().bottom - name.getBoundingClientRect().bottom"""
    assert -4 < browser.execute_script(below) < 1  # the last line is in sight, and nothing below it


def test_scrolling_brings_the_rest(browser, leaderboard):
    def at_the_end():
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        return len(names(browser)) == 200

    show(browser, leaderboard)
    wait(browser, at_the_end)
    # The last one has no window.
    becomes(browser, lambda: len(find(browser, ".card")[-1].find_elements("css selector", "svg")), 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(browser, axe, tmp_path, width, scheme):
    path = tmp_path / "leaderboard.html"
    how_good = {"value": 0.62, "low": 0.58, "high": 0.66, "n": 1234}
    path.write_text(leaderboard_page(*ranked(HOSTILE), temperature=1.5, accuracy=how_good), encoding="utf-8")
    show(browser, path, width, scheme)
    wait(browser, lambda: names(browser))
    assert axe_faults(browser, axe) == []
    click(browser, find(browser, ".pick")[0])
    becomes(browser, lambda: find(browser, "#tray")[0].is_displayed(), True)
    assert axe_faults(browser, axe) == []
    click(browser, find(browser, ".pick")[1])
    becomes(browser, lambda: find(browser, "#versus")[0].is_displayed(), True)
    assert axe_faults(browser, axe) == []

"""The leaderboard holds what it is given, and works in a real browser, whatever the pictures are called."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from browsing import becomes, find, fits, press, show, wait
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
    find(browser, "#theme")[0].click()
    wait(browser, lambda: ground() != before)
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


def test_scrolling_brings_the_rest(browser, leaderboard):
    def at_the_end():
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        return len(names(browser)) == 200

    show(browser, leaderboard)
    wait(browser, at_the_end)
    # The last one has no window.
    becomes(browser, lambda: len(find(browser, ".card")[-1].find_elements("css selector", "svg")), 0)

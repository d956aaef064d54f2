"""The page of copies shows each group, lets a person undo it, and gives groups that are read as they were meant."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from browsing import axe_faults, becomes, faint_texts, find, fits, press, show, wait
from conftest import HOSTILE
from PIL import Image

from pages.copies import copies_page, read_groups, votes_apart
from pages.template import thumbnail
from utils import UserError, with_formulas, without_formulas


def found():
    """Two groups of copies, two pictures that are alone, with the names that a page has to show as they are."""
    return pd.DataFrame(
        {
            "img_id": ["=1+1", "2", HOSTILE[0], "4", "05", HOSTILE[3], "7"],
            "group": [1, 1, 1, 2, 3, 3, 4],
            "kind": ["", "mirrored", "captioned", "", np.nan, "same", ""],
            "votes": [12, 1200, np.nan, 3, 50, 50, 1],
            "note": [np.nan, "<b>a title</b>", "", "", "x" * 200, "", ""],
        }
    )


def test_the_page_holds_everything_and_lets_no_name_out():
    image = thumbnail(Image.new("RGB", (9, 9)))
    page = copies_page(found(), {"2": image}, title="</title><script>alert(4)</script>")
    assert "<img onerror" not in page and "alert(2)</script>" not in page and "<b>a title" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["rows"][1] == ["2", "1", "mirrored", "<b>a title</b>", 1200, image]
    assert data["rows"][2][4:] == [None, None]
    assert "@@" not in page


@pytest.mark.parametrize(
    ("change", "said"), [({"img_id": ["a"] * 7}, "twice"), ({"group": [None] * 7}, "no group"), ({}, "no column group")]
)
def test_a_table_that_is_none_is_refused(change, said):
    table = found().assign(**change) if change else found()[["img_id"]]
    with pytest.raises(ValueError, match=said):
        copies_page(table, {})


def test_how_far_the_votes_of_one_picture_lie_apart():
    assert "up to 100 times the votes: in half of the 2 groups with votes" in votes_apart(found())
    assert "in the one group with votes" in votes_apart(found().query("group == group.iloc[0]"))
    assert "at least 50 times" in votes_apart(found())  # the median of 100 and 1, rounded
    assert votes_apart(found().drop(columns="votes")) == votes_apart(found().assign(votes=0)) == ""
    assert votes_apart(found().assign(votes=["a", float("inf"), *[None] * 5])) == ""


# --- texts that a spreadsheet would run -----------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["=1+1.jpg", "@SUM(A1)", "-2+3", "+49 30", "\t=1", "'=1", "''-x", "＝1", "-"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_loses_it_again(text):
    table = pd.DataFrame({text: [text, "plain"], "n": [-1.5, 2]})
    safe = without_formulas(table)
    assert safe.columns[0] == safe.iloc[0, 0] == f"'{text}" and safe["n"].tolist() == [-1.5, 2]
    assert with_formulas(safe).equals(table)


@pytest.mark.parametrize("text", ["plain", "", "1", "-1", "+1.5e-3", "'quoted'", "a=b", "1-2"])
def test_other_texts_stay_as_they_are(text):
    table = pd.DataFrame({"a": [text, None]})
    assert without_formulas(table).equals(table) and with_formulas(table).equals(table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("img_id\n1\n", "has no column group"),
        ("img_id,group\n1,1\n1,2\n", "img_id 1 twice"),
        ("img_id,group\n1,\n", "row 2"),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(tmp_path, text, said):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_groups(tmp_path / "groups.csv")


# --- in a browser ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("copies") / "copies.html"
    image = thumbnail(Image.new("RGB", (64, 48), "teal"))
    path.write_text(copies_page(found(), dict.fromkeys(found()["img_id"], image)), encoding="utf-8")
    return path


def titles(browser):
    return [each.text for each in find(browser, ".group h2")]


def count(browser):
    return find(browser, "#count")[0].text


def taken(browser):
    """The CSV that a click on the download gives."""
    browser.execute_script("""
        window.given = null;
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blob.text().then((text) => { window.given = text; }); return make(blob); };
    """)
    find(browser, "#download")[0].click()
    text = wait(browser, lambda: browser.execute_script("return window.given"))
    return pd.read_csv(io.StringIO(text), dtype=str)


def start(browser, page, width=1280, scheme="light", counted="2 of 2 groups, 5 pictures; 0 unticked"):
    """Open the page in a browser that remembers nothing of it."""
    show(browser, page, width, scheme)
    browser.execute_script("localStorage.clear()")
    show(browser, page, width, scheme)
    becomes(browser, lambda: count(browser), counted)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_copies_fit_the_screen_without_an_error(browser, page, width, scheme):
    start(browser, page, width, scheme)
    becomes(browser, lambda: titles(browser), ["Group 1: 3 pictures", "Group 3: 2 pictures"])
    wait(browser, lambda: fits(browser))
    becomes(browser, lambda: faint_texts(browser), [])
    assert [each.text for each in find(browser, ".members bdi")] == ["=1+1", "2", HOSTILE[0], "05", HOSTILE[3]]
    assert find(browser, ".members bdi *, .note *") == []  # no name has become an element
    said = [each.text for each in find(browser, ".group p")]
    assert said == ["The same picture, 100 times the votes: 12 to 1,200.", "50 votes each."]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(browser, axe, page, width, scheme):
    start(browser, page, width, scheme)
    becomes(browser, lambda: len(titles(browser)), 2)
    assert axe_faults(browser, axe) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_unticked_gets_a_group_of_its_own(browser, page, width, tmp_path):
    start(browser, page, width)
    assert taken(browser)["group"].tolist() == ["1", "1", "1", "2", "3", "3", "4"]
    find(browser, ".members label")[1].click()
    find(browser, ".group")[1].find_element("css selector", "button").click()
    becomes(browser, lambda: count(browser), "2 of 2 groups, 5 pictures; 3 unticked")
    table = taken(browser)
    assert table["img_id"].tolist() == ["'=1+1", "2", HOSTILE[0], "4", "05", HOSTILE[3], "7"]
    assert table["group"].tolist() == ["1", "5", "1", "2", "6", "7", "4"]
    table.to_csv(tmp_path / "groups.csv", index=False)
    assert read_groups(tmp_path / "groups.csv")["img_id"].tolist() == found()["img_id"].tolist()
    # What is kept for the next visit. Whether a browser keeps it for a file on disk is its own affair: Chromium
    # without a window forgets it now and then.
    kept = "return Object.values({...localStorage}).map(JSON.parse).find((each) => each.length).length"
    becomes(browser, lambda: browser.execute_script(kept), 3)
    find(browser, "#again")[0].click()
    becomes(browser, lambda: count(browser), "2 of 2 groups, 5 pictures; 0 unticked")
    assert taken(browser)["group"].tolist() == ["1", "1", "1", "2", "3", "3", "4"]


def test_copies_obey_the_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    start(browser, page)
    browser.execute_script("document.querySelector('#download').focus()")
    press(browser, Keys.TAB, Keys.TAB, Keys.SPACE)  # past "None are copies" of the first group, to its first picture
    becomes(browser, lambda: count(browser), "2 of 2 groups, 5 pictures; 1 unticked")
    becomes(browser, lambda: [box.is_selected() for box in find(browser, ".members input")][:2], [False, True])
    press(browser, Keys.SPACE)
    becomes(browser, lambda: count(browser), "2 of 2 groups, 5 pictures; 0 unticked")


def test_groups_are_sorted_and_chosen_by_kind(browser, page):
    start(browser, page)
    kinds = [each.text for each in find(browser, "#kind option")]
    assert kinds == ["all", "mirrored", "with a caption", "same picture"]
    find(browser, "#kind option[value=same]")[0].click()
    becomes(browser, lambda: titles(browser), ["Group 3: 2 pictures"])
    find(browser, "#kind option")[0].click()
    find(browser, "#order option[value=votes]")[0].click()
    becomes(browser, lambda: titles(browser), ["Group 1: 3 pictures", "Group 3: 2 pictures"])


def test_thousands_of_groups_come_a_screenful_at_a_time(browser, tmp_path):
    many = pd.DataFrame({"img_id": range(4000), "group": [f"g{i // 2}" for i in range(4000)]})
    (tmp_path / "copies.html").write_text(copies_page(many, {}), encoding="utf-8")
    start(browser, tmp_path / "copies.html", counted="2,000 of 2,000 groups, 4,000 pictures; 0 unticked")
    assert 0 < len(titles(browser)) < 200 and not find(browser, "#order option[value=votes]")
    find(browser, ".members label")[0].click()
    becomes(browser, lambda: count(browser), "2,000 of 2,000 groups, 4,000 pictures; 1 unticked")
    assert taken(browser)["group"].tolist()[:3] == ["alone-1", "g0", "g1"]


def test_scrolling_brings_every_group(browser, tmp_path):
    def at_the_end():
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        return len(find(browser, ".group")) == 300

    many = pd.DataFrame({"img_id": range(600), "group": [i // 2 for i in range(600)]})
    (tmp_path / "copies.html").write_text(copies_page(many, {}), encoding="utf-8")
    show(browser, tmp_path / "copies.html")
    wait(browser, at_the_end)

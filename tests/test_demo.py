"""The demo: the game counts right, and the page works in a real browser without a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request

import numpy as np
import pandas as pd
import pytest
import requests
from browsing import axe_faults, becomes, click, find, fits, press, show, tab_stops, wait
from conftest import run_here
from PIL import Image

import demo
import pair_game
import utils


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--data_path", sample, "--save_dir", folder, "--weights", "none", "--image_size", 64, "--epochs", 1]
    done = run_here("train_siamese.py", *words)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_pair_is_of_two_viralities_and_either_side_may_win():
    table = pd.DataFrame({"v_score": [0.0, 0.0, 1.0, 2.0]})
    rng = np.random.default_rng(0)
    drawn = [pair_game.draw_pairs(table, "all", rng) for _ in range(200)]
    assert all(drawn) and all(len(set(sum(pairs, ()))) == 2 * len(pairs) for pairs in drawn)  # no picture in two
    virality = table["v_score"].to_numpy()[np.concatenate(drawn)]
    assert (virality[:, 0] != virality[:, 1]).all()
    assert 0.4 < (virality[:, 0] > virality[:, 1]).mean() < 0.6
    assert pair_game.draw_pairs(table.assign(v_score=1.0), "all", rng) == []
    assert pair_game.draw_pairs(table, "controlled", rng) == []


def posted(n=40):
    """Pictures of two communities, one a day; the odd ones are viral."""
    place = np.arange(n)
    return pd.DataFrame(
        {"v_score": place % 2 - 0.5 + place / 100, "score": -1.0 * place, "time": 86_400.0 * place,
         "community": np.where(place < n / 2, "aww", "<b>"), "day": 1.0 * place}
    )  # fmt: skip


def test_controlled_pairs_are_of_one_community_and_the_default_where_there_are_any():
    table = posted()
    pairs = pair_game.draw_pairs(table, "controlled", np.random.default_rng(0))
    assert len(pairs) == 20 and all((a < 20) == (b < 20) and abs(a - b) < 10 for a, b in pairs)
    assert pair_game.chosen_mode(table, None) == pair_game.chosen_mode(table, "controlled") == "controlled"
    assert pair_game.chosen_mode(table, "all") == pair_game.chosen_mode(table[["v_score"]], None) == "all"
    with pytest.raises(utils.UserError, match="--pair_mode controlled: no two test pictures"):
        pair_game.chosen_mode(table.assign(community=None), "controlled")


@pytest.mark.parametrize(
    ("pair", "days", "said"),
    [
        ((1, 4), [0.0, 2.5], "Both were first posted to aww, 3 days apart."),
        ((1, 4), [0.0, 0.9], "Both were first posted to aww, within a day of each other."),
        ((1, 4), [np.nan, np.nan], "Both were first posted to aww, at about the same time."),
        ((1, 30), [np.nan, np.nan], "A was first posted to aww, B to <b>."),
        ((1, 30), [400.0, 0.0], "A was first posted to aww, B to <b>, 400 days apart."),
    ],
)
def test_where_and_when_both_were_posted_is_said(pair, days, said):
    table = posted()
    table.loc[list(pair), "day"] = days
    assert pair_game.origin(table, pair) == said
    assert pair_game.origin(table.assign(community=None), pair) == pair_game.origin(table[["v_score"]], pair) == ""


def test_all_scores_are_kept_and_a_pair_counts_once():
    table = pd.DataFrame({"v_score": [0.0, 1.0, 2.0], "score": [0.5, 0.1, 0.1], "time": [5.0, 6.0, np.nan]})
    game = pair_game.Game((0, 1), answered=False)
    said = pair_game.answer(game, 1, table, temperature=0.8)
    assert said.startswith("### Correct: B spread further.")
    assert "The model chose A and was 62 % sure: that was wrong. The clock chose A, the older one: that was" in said
    assert (game.rounds, game.you, game.model, game.clock) == (1, 1, 0, 0)
    pair_game.answer(game, 0, table)  # a second click
    assert (game.rounds, game.you, game.model, game.clock) == (1, 1, 0, 0)
    game.pair, game.answered = (1, 2), False
    said = pair_game.answer(game, 0, table)
    assert said.startswith("### Wrong: B spread further.") and "could not tell" in said and "clock" not in said
    assert (game.rounds, game.you, game.model, game.clock) == (2, 1, 0.5, 0.5)
    board = pair_game.score_board(game)
    assert "| You | 1 of 2: 50% (9% to 91%) |" in board and "60.12%" in board and "| Guessing | 50% |" in board
    assert "clock" in board and "clock" not in pair_game.score_board(game, timed=False)


@pytest.mark.parametrize(
    ("difference", "temperature", "said"),
    [(0.4, 0.8, "and was 62 % sure"), (-0.4, 0.8, "and was 62 % sure"), (9, 1, "and was more than 99 % sure"),
     (1, None, "The model chose A: that")],
)  # fmt: skip
def test_the_model_says_how_sure_it_is(difference, temperature, said):
    table = pd.DataFrame({"v_score": [0.0, 1.0], "score": [difference, 0.0]})
    assert said in pair_game.answer(pair_game.Game((0, 1), answered=False), 0, table, temperature)


@pytest.mark.parametrize(("you", "said"), [(8, "nobody here can be told from guessing"), (9, "Beyond that: you (9).")])
def test_after_ten_rounds_it_is_said_what_everybody_has_and_what_guessing_gives(you, said):
    game = pair_game.Game(rounds=10, you=you, model=6.5, clock=5)
    board = pair_game.score_board(game)
    share = {8: "49% to 94%", 9: "60% to 98%"}[you]
    # Half a point: from the low end of 6 of 10 to the high end of 7 of 10.
    have = (
        f"**After 10 rounds:** you {you} ({share}), the model 6.5 (31% to 89%), the clock 5 (24% to 76%); guessing 5 "
    )
    assert f"{have}on average, and between 2 and 8 in" in board and said in board
    assert "60.12% of 489 (56% to 64%)" in board
    assert "After" not in pair_game.score_board(pair_game.Game(rounds=9, you=9))


def test_what_is_copied_holds_the_result_and_no_address():
    assert pair_game.to_copy(pair_game.Game(), True) == ""
    text = pair_game.to_copy(pair_game.Game(rounds=10, you=8, model=6, clock=5), False)
    assert text.startswith("Which of two pictures spread further? Correct on 10 pairs (95 % intervals): you 8 (49% to")
    assert "guessing 5 on average" in text and "clock" not in text and not re.search(r"://|www|\n", text)
    assert "on 1 pair (" in pair_game.to_copy(pair_game.Game(rounds=1, you=1), True)


def test_no_sentence_leaves_open_whether_right_is_a_side_or_a_verdict(finished):
    rng, game, table = np.random.default_rng(0), pair_game.Game(), posted()
    texts = [pair_game.INTRODUCTION, *pair_game.PAIRS.values(), pair_game.how_good(str(finished / "best.pt"))]
    texts += [pair_game.score_board(game), demo.ABOUT_COPY, demo.ABOUT_RANKS]
    assert "guessing: 50%; the older picture: " in texts[3]
    for pair in pair_game.draw_pairs(table, "controlled", rng):
        game.pair, game.answered = pair, False
        texts += [pair_game.origin(table, pair), pair_game.answer(game, int(rng.integers(2)), table, 1.0)]
        texts += [pair_game.score_board(game), pair_game.to_copy(game, True)]
    assert "After 20 rounds" in texts[-2]
    assert [text for text in texts if re.search(r"\b(right|left)\b", text)] == []


def test_what_is_said_of_the_ranker_is_left_out_where_its_results_do_not_say_it(tmp_path):
    for results in (None, "{}", "[]", '{"test": {"pairs": "x"}, "calibration": {}}'):
        if results:
            (tmp_path / "results.json").write_text(results)
        assert pair_game.how_good(str(tmp_path / "best.pt")) == pair_game.how_good(str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"--check_point": "nowhere.pt"}, "nowhere.pt"),
        ({"--data_path": "nowhere"}, "--data_path nowhere is not a folder"),
        ({"--device": "tpu"}, "--device tpu"),
        ({"--pair_mode": "deza"}, "--pair_mode"),
        ({"--port": "http"}, "--port"),
        ({"--port": "70000"}, "--port 70000"),
    ],
)
def test_bad_flags_are_named_in_one_line(sample, finished, change, named):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    flags = {"--check_point": finished / "best.pt", "--data_path": sample} | change
    done = run_here("demo.py", *(word for pair in flags.items() for word in pair))
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1 or done.stderr.startswith("usage: demo.py")


def test_another_data_set_than_the_run_s_is_refused(sample, finished, tmp_path):
    (tmp_path / "datasets").mkdir()
    table = pd.read_csv(sample / "datasets" / "data_set_iv.csv")
    table.assign(v_score=table["v_score"] + 1).to_csv(tmp_path / "datasets" / "data_set_iv.csv", index=False)
    with pytest.raises(utils.UserError, match=f"--data_path {tmp_path} is not the data set of"):
        pair_game.held_out(str(finished / "best.pt"), str(tmp_path))
    with pytest.raises(utils.UserError, match=r"holds 0 of the run's \d+ test pictures: no pair"):
        shutil.copy(sample / "datasets" / "data_set_iv.csv", tmp_path / "datasets")
        pair_game.held_out(str(finished / "best.pt"), str(tmp_path))


def test_without_gradio_it_says_what_to_install(sample, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = run_here("demo.py", "--check_point", finished / "best.pt", "--data_path", sample)
    assert done.returncode == 2 and "requirements-demo.txt" in done.stderr


# --- in a browser ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def address(sample, finished, tmp_path_factory):
    """The demo's, while it runs; what was dropped into it lies in a folder that is gone once it is told to end."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    words = ["demo.py", "--check_point", finished / "best.pt", "--data_path", sample, "--port", port, "--max_upload", 1]
    uploads = tmp_path_factory.mktemp("uploads")
    # As if a notebook had started it, whose backend is not installed here.
    environment = os.environ | {"TMPDIR": str(uploads), "MPLBACKEND": "nowhere"}
    options = {"cwd": utils.ROOT, "stdout": subprocess.DEVNULL, "env": environment}
    process = subprocess.Popen([sys.executable, *map(str, words)], **options)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, "the demo has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            break
        time.sleep(0.5)
    assert list(uploads.glob("image-virality-*"))
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    assert process.wait(20) == 143
    assert not list(uploads.glob("image-virality-*"))


def open_page(browser, address, width):
    show(browser, address, width)
    wait(
        browser,
        lambda: [each.get_attribute("alt") for each in find(browser, "figure img")] == ["Picture A", "Picture B"],
    )


def button(browser, name):
    return [each for each in find(browser, "button") if each.text == name][0]


def press_button(browser, name, width):
    """By mouse on the wide screen, by the keyboard on the narrow one. Each button is pressed once a round: once the
    page has taken it in, it cannot be pressed again."""
    from selenium.webdriver.common.keys import Keys

    ready = wait(browser, lambda: (found := button(browser, name)).is_enabled() and found)
    ready.click() if width > 500 else ready.send_keys(Keys.ENTER)
    wait(browser, lambda: not button(browser, name).is_enabled())


def check_quiet(browser, address):
    """No error in the console, no request to anybody else, nothing wider than the screen."""
    wait(browser, lambda: fits(browser))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert asked and [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_five_rounds_of_the_game(browser, address, width):
    def text(name):
        return browser.find_element("id", name).text

    open_page(browser, address, width)
    wait(browser, lambda: text("where").startswith("Both were first posted to"))
    for rounds in range(1, 6):
        side = pair_game.NAMES[rounds % 2]
        press_button(browser, f"{side} spread further", width)
        wait(browser, lambda rounds=rounds: f"of {rounds}:" in text("board"))
        wait(browser, lambda: "% sure" in text("said") and "The clock chose" in text("said"))
        if rounds < 5:
            press_button(browser, "Next pair", width)
    wait(browser, lambda: "The model" in text("board") and "60.12%" in text("board"))
    check_quiet(browser, address)


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(browser, axe, address, width):
    open_page(browser, address, width)
    assert axe_faults(browser, axe) == []
    press_button(browser, "A spread further", width)
    wait(browser, lambda: "of 1:" in find(browser, "#board")[0].text)
    assert axe_faults(browser, axe) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_dropped_in_are_ranked_and_what_is_none_is_named(browser, address, tmp_path, width):
    names = ["<img src=x onerror=alert(1)>.jpg", 'it\'s "quoted" & ünïcode 🐈.jpg', "x" * 196 + ".jpg"]
    for number, name in enumerate(names):
        Image.effect_noise((90, 60), 40 + 30 * number).convert("RGB").save(tmp_path / name)
    (tmp_path / "<b>none.jpg").write_text("<b>text</b>")
    open_page(browser, address, width)
    tab = "Rank your pictures"
    wait(browser, lambda: [each for each in find(browser, "button[role=tab]") if each.text == tab])[0].click()
    files = wait(browser, lambda: find(browser, "#files input[type=file]"))[0]
    files.send_keys("\n".join(str(tmp_path / name) for name in [*names, "<b>none.jpg"]))
    faults = "<b>none.jpg cannot be read: not a picture"
    becomes(browser, lambda: find(browser, "#faults textarea")[0].get_property("value"), faults, seconds=60)
    browser.switch_to.frame(wait(browser, lambda: find(browser, "#ranked iframe"))[0])
    try:
        shown = "return [...document.querySelectorAll('.card .name')].map(name => name.textContent)"
        becomes(browser, lambda: sorted(browser.execute_script(shown)), sorted(names))
        becomes(browser, lambda: len(find(browser, ".card rect.over")), len(names))  # the windows
        wait(browser, lambda: fits(browser))
    finally:
        browser.switch_to.default_content()
    check_quiet(browser, address)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_round_by_the_keyboard_alone(browser, address, width):
    """Each stop of the Tab key is framed and in sight, in the order of the page; the focus goes on by itself."""
    from selenium.webdriver.common.keys import Keys

    def focused():
        return browser.execute_script("return document.activeElement.innerText || document.activeElement.tagName")

    open_page(browser, address, width)
    wait(browser, lambda: button(browser, "A spread further").is_enabled())
    stops = tab_stops(browser, until="B spread further")
    assert [stop["text"] for stop in stops][-2:] == ["A spread further", "B spread further"]
    assert "The game" in [stop["text"] for stop in stops]
    assert [stop for stop in stops if not (stop["framed"] and stop["in sight"])] == []
    press(browser, Keys.ENTER)
    becomes(browser, focused, "Next pair")
    becomes(browser, lambda: "of 1:" in find(browser, "#board")[0].text, True)
    press(browser, Keys.SPACE)
    becomes(browser, focused, "A spread further")
    press(browser, Keys.ENTER)
    becomes(browser, focused, "Next pair")
    stops = tab_stops(browser, until="Copy my result")
    assert [stop for stop in stops if not (stop["framed"] and stop["in sight"])] == []
    check_quiet(browser, address)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_result_is_copied_and_goes_nowhere(browser, address, width):
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    open_page(browser, address, width)
    wait(browser, lambda: button(browser, "A spread further").is_enabled())
    assert not button(browser, "Copy my result").is_enabled()
    press_button(browser, "A spread further", width)
    copy = wait(browser, lambda: (found := button(browser, "Copy my result")).is_enabled() and found)
    click(browser, copy)
    becomes(browser, lambda: find(browser, "#copied")[0].text, "Copied.")
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")
    assert copied == find(browser, "#result textarea")[0].get_property("value")
    assert copied.startswith("Which of two pictures spread further? Correct on 1 pair (95 % intervals): you ")
    check_quiet(browser, address)


def test_a_picture_larger_than_the_limit_is_named_in_one_line(browser, address, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(1_100_000))
    open_page(browser, address, 390)
    [each for each in find(browser, "button[role=tab]") if each.text == "Rank your pictures"][0].click()
    wait(browser, lambda: "up to 1 MB each" in find(browser, "#files")[0].text)
    find(browser, "#files input[type=file]")[0].send_keys(str(tmp_path / "large.jpg"))
    said = 'File(s) exceed the maximum allowed size of 1.0 Mb: "large.jpg"'
    becomes(browser, lambda: said in find(browser, ".toast-wrap")[0].text, True)


def upload(address, *files):
    """Drop files in as the page does; the status of the answer, and the paths that it gives."""
    with contextlib.ExitStack() as stack:
        parts = [("files", (file.name, stack.enter_context(open(file, "rb")))) for file in files]
        answer = requests.post(f"{address}gradio_api/upload", files=parts, timeout=60)
    return answer.status_code, answer.json() if answer.ok else []


def test_a_file_larger_than_the_limit_is_not_taken(address, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(1_100_000))
    (tmp_path / "small.jpg").write_bytes(bytes(900_000))
    assert upload(address, tmp_path / "large.jpg")[0] == 413
    status, (path,) = upload(address, tmp_path / "small.jpg")
    assert status == 200 and path.endswith("small.jpg")


class File:
    """As Gradio hands over what was dropped in."""

    def __init__(self, path, name):
        self.path, self.orig_name = str(path), name


def test_a_tar_is_taken_a_list_is_not_and_not_more_than_a_thousand_at_once(finished, sample, tmp_path, monkeypatch):
    picture = demo.data_set.picture_path(sample, 7)
    with tarfile.open(tmp_path / "upload", "w") as tar:
        tar.add(picture, "in/7.jpg")
    (tmp_path / "list.txt").write_text(f"{picture}\n")
    sources = demo.uploaded([File(tmp_path / "upload", "mine.tar"), File(tmp_path / "list.txt", "list.txt")])
    monkeypatch.setattr(demo, "MOST_AT_ONCE", 2)
    model, state = demo.from_checkpoint(finished / "best.pt")
    words = model, state["transform"]["side"], state["train_scores"].numpy()
    dropped = [*sources, *demo.uploaded([File(picture, "late.jpg")])]
    page, faults = demo.rank_files(dropped, *words, temperature=1.5)
    assert 'data-temperature="1.5"' in page
    assert "mine.tar/in/7.jpg" in page and "late.jpg" not in page and str(picture) not in page
    assert faults.splitlines() == [
        "list.txt cannot be read: not a picture",
        "late.jpg cannot be read: more than 2 at once",
    ]
    page, faults = demo.rank_files(sources[:1], *words, max_pixels=100)
    assert page == "" and "pixels are more than 100" in faults


@pytest.mark.parametrize(("kind", "upright"), [("jpg", [64, 96]), ("heic", [96, 64])])
def test_a_phone_s_pictures_stand_upright_and_heic_is_read(finished, tmp_path, kind, upright):
    if kind == "heic":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").register_heif_opener()
    exif = Image.Exif()
    exif[0x112] = 6 if kind == "jpg" else 1  # turned by a quarter; in HEIC a box of the file turns, not EXIF
    Image.effect_noise((96, 64), 40).convert("RGB").save(tmp_path / f"phone.{kind}", exif=exif)
    model, state = demo.from_checkpoint(finished / "best.pt")
    words = model, state["transform"]["side"], state["train_scores"].numpy()
    page, faults = demo.rank_files(demo.uploaded([File(tmp_path / f"phone.{kind}", f"phone.{kind}")]), *words)
    assert faults == ""
    ((name, *_, size, _),) = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert (name, size) == (f"phone.{kind}", upright)

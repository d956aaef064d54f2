"""Rank pictures in a browser, and play against the ranker: which of two pictures spread further?

    python demo.py --check_point outputs/sample/siamese_1/best.pt --data_path data/sample

The game is the task that Deza & Parikh 2015 gave to people, on the run's test pictures, which the ranker never saw.
By default both pictures of a pair were first posted to the same community at about the same time, so that neither age
nor community tells which spread further; with `--pair_mode all`, any two. Needs requirements-demo.txt. The page is
served to this machine only unless --host says otherwise; it loads nothing from other hosts and sends nothing to them.
"""

from __future__ import annotations

import argparse
import html
import os
import signal
import sys
import tempfile
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

import data_set
from decoding.decoder import MAX_PIXELS, decode
from device import select_device
from pages.leaderboard import leaderboard_page
from pages.template import thumbnail
from pair_game import (
    INTRODUCTION,
    NAMES,
    PAIR_MODES,
    PAIRS,
    Game,
    answer,
    chosen_mode,
    draw_pairs,
    held_out,
    how_good,
    origin,
    score_board,
    to_copy,
)
from pictures.sources import Source, of_upload, read
from rank_images import COLUMNS, score_all
from siamese_net import SiameseNet, from_checkpoint
from utils import UserError, at_least, print_configuration, run_main

MOST_AT_ONCE = 1000  # pictures that are ranked of what was dropped in
MAX_UPLOAD = 50  # MB of a file that is dropped in
SHOWN = 480  # pixels of the longer side of a picture on the page
ACCENT = "#d55e00"  # the window's colour: told from any other by the colour-blind (Okabe & Ito)
ABOUT_RANKS = """Drop pictures here: they stay on the machine that serves this page. The most viral comes first, with
the window in which the ranker looks at it, and how many of 100 training pictures score lower."""
ABOUT_COPY = """<p>The button copies this text to your clipboard. It makes no link and uploads nothing; the game is
forgotten within an hour of closing this page. <strong id="copied" role="status"></strong></p>"""
# A browser may refuse its clipboard, and offers none to a page from another machine without https: then the text in the
# box is marked and copied as Ctrl-C would.
COPY = """async (text) => {
  let copied = true;
  try { await navigator.clipboard.writeText(text); }
  catch { document.querySelector("#result textarea").select(); copied = document.execCommand("copy"); }
  document.querySelector("#copied").textContent = copied ? "Copied." : "Not copied: this browser does not allow it.";
}"""
# What was pressed is disabled now: the focus goes on to the button that follows, once that is enabled.
FOCUS = """() => {
  document.querySelector("#copied").textContent = "";
  const button = document.querySelector("#NAME");
  const focus = (tries) => (button.disabled && tries ? setTimeout(focus, 50, tries - 1) : button.focus());
  focus(40);
}"""
STYLE = """
gradio-app :focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 2px !important }
#ranked iframe { width: 100%; height: 90vh; border: 0 }
button[role=tab][aria-selected=true] { color: var(--body-text-color) } /* Gradio's blue is too faint to read */
#picture-A figcaption, #picture-B figcaption { font-weight: bold; text-align: center }
#picture-A img, #picture-B img { width: 100%; height: min(300px, 40vh); object-fit: contain }
@media (max-width: 500px) { #picture-A img, #picture-B img { height: 200px } }
"""


# --- pictures -------------------------------------------------------------------------------------------------------
def with_window(picture: Image.Image, box: list[float] | None) -> Image.Image:
    """The picture as large as the page shows it, and on it the window x, y, w, h (pixels of the picture)."""
    scale = min(4.0, SHOWN / max(picture.size))  # a small one is magnified, so that its window can be seen
    shown = picture.resize([max(1, round(side * scale)) for side in picture.size])
    if box is not None:
        x, y, w, h = (side * scale for side in box)
        for line, colour, width in ((2, "white", 8), (0, ACCENT, 4)):  # told from any ground
            corners = [x - line, y - line, x + w + line, y + h + line]
            ImageDraw.Draw(shown).rectangle(corners, outline=colour, width=width)
    return shown


def rank_files(
    sources: list[Source],
    model: SiameseNet,
    side: int,
    against: np.ndarray,
    max_pixels: int = MAX_PIXELS,
    temperature: float | None = None,
) -> tuple[str, str]:
    """The leaderboard of the pictures as HTML, empty if there is none; the unreadable files and the reasons.

    `side` is that of the pictures which the model takes, `against` the scores for the percentile, lowest first. With
    the model's `temperature`, a comparison of two pictures says how sure it is.
    """
    few, many = sources[:MOST_AT_ONCE], sources[MOST_AT_ONCE:]
    rows = [row for batch in score_all(model, few, side, 2, None, max_pixels, len(few)) for row in batch]
    rows += [[each.path, None, f"more than {MOST_AT_ONCE} at once"] for each in many]
    ranked = sorted((row for row in rows if row[1] is not None), key=lambda row: -row[1])
    percentiles = np.searchsorted(against, [row[1] for row in ranked]) / len(against) * 100
    table = pd.DataFrame([[*row[:2], None, *(row[2] or [None] * 4)] for row in ranked], columns=COLUMNS)
    table = table.assign(percentile=percentiles.round(1)).astype(dict.fromkeys(COLUMNS[1:], float))
    pictures = [read(Source(row[0], *row[3:6]), max_pixels) for row in ranked]
    thumbnails, sizes = [thumbnail(picture) for picture in pictures], [picture.size for picture in pictures]
    title = "Your pictures, ranked"
    page = leaderboard_page(table, thumbnails, sizes, title, temperature=temperature) if ranked else ""
    return page, "\n".join(f"{row[0]} cannot be read: {row[2]}" for row in rows if row[1] is None)


# --- the page -------------------------------------------------------------------------------------------------------
def uploaded(payload: Any) -> list[Source]:
    """What was dropped in, pictures and tars of them, under the names that they had there: in its paths Gradio leaves
    out `<`, quotes and others."""
    found = (of_upload(file.path, file.orig_name or os.path.basename(file.path)) for file in payload or [])
    return [source for sources in found for source in sources]


def game_tab(
    gr: Any, page: Any, table: pd.DataFrame, data_path: str, pair_mode: str, temperature: float | None, about: str
) -> None:
    """`gr` is Gradio, `page` the Blocks that the tab is in, `table` the pictures to play with (see `held_out`), `about`
    what there is to say of the ranker."""
    boxes = table[["x", "y", "w", "h"]].to_numpy().tolist() if "x" in table else [None] * len(table)
    timed = "time" in table

    def pictures(game: Game, windows: bool) -> list[str]:
        paths = [data_set.picture_path(data_path, table["img_id"].iloc[row]) for row in game.pair]
        found = [boxes[row] if windows else None for row in game.pair]
        shown = [thumbnail(with_window(decode(path), box), SHOWN) for path, box in zip(paths, found, strict=True)]
        return [
            f'<figure><figcaption>{name}</figcaption><img alt="Picture {name}" src="{address}"></figure>'
            for name, address in zip(NAMES, shown, strict=True)
        ]

    def scores(game: Game) -> list:
        played = gr.update(interactive=game.rounds > 0)
        return [score_board(game, timed), to_copy(game, timed), played]

    def new_round(game: Game) -> list:
        game.coming = game.coming or draw_pairs(table, pair_mode, np.random.default_rng())
        game.pair, game.answered = game.coming.pop(), False
        may = [gr.update(interactive=True)] * 2
        where, said = html.escape(origin(table, game.pair)), ""
        may_not = [gr.update(interactive=False)]
        return [game, where, *pictures(game, False), said, *scores(game), *may, *may_not]

    def choose(choice: int, game: Game) -> list:
        said, where = answer(game, choice, table, temperature), html.escape(origin(table, game.pair))
        may_not = [gr.update(interactive=False)] * 2
        return [game, where, *pictures(game, True), said, *scores(game), *may_not, gr.update(interactive=True)]

    gr.Markdown("### Which of the two spread further?")
    game = gr.State(Game())
    where = gr.HTML(elem_id="where", padding=False)
    sides, buttons = [], []
    with gr.Row():
        for name in NAMES:
            with gr.Column(min_width=130):  # side by side on a phone too
                sides.append(gr.HTML(elem_id=f"picture-{name}", padding=False))
                buttons.append(gr.Button(f"{name} spread further", variant="primary", elem_id=f"choose-{name}"))
    said = gr.Markdown(elem_id="said")
    following = gr.Button("Next pair", interactive=False, elem_id="next")
    board = gr.Markdown(score_board(Game(), timed), elem_id="board")
    result = gr.Textbox(label="Your result", lines=2, interactive=False, elem_id="result")
    copy = gr.Button("Copy my result", interactive=False)
    gr.HTML(ABOUT_COPY, padding=False)
    copy.click(None, result, js=COPY)
    gr.Markdown(f"{INTRODUCTION} {PAIRS[pair_mode]} {about}")
    shown = [game, where, *sides, said, board, result, copy, *buttons, following]
    for choice, button in enumerate(buttons):
        chosen = button.click(lambda game, choice=choice: choose(choice, game), game, shown, show_progress="hidden")
        chosen.then(None, js=FOCUS.replace("NAME", "next"))
    another = following.click(new_round, game, shown, show_progress="hidden")
    another.then(None, js=FOCUS.replace("NAME", "choose-A"))
    page.load(new_round, game, shown, show_progress="hidden")


def rank_tab(
    gr: Any,
    model: SiameseNet,
    side: int,
    against: np.ndarray,
    max_pixels: int,
    temperature: float | None,
    max_upload: int,
    about: str,
) -> None:
    """`gr` is Gradio, `about` what there is to say of the ranker; the rest is rank_files's and serve's."""

    def show(sources: list[Source]) -> list:
        page, unreadable = rank_files(sources, model, side, against, max_pixels, temperature)
        frame = f'<iframe title="Ranked" sandbox="allow-scripts" srcdoc="{html.escape(page)}"></iframe>' if page else ""
        return [frame, gr.update(value=unreadable, visible=bool(unreadable))]

    gr.Markdown(f"{ABOUT_RANKS} {about}")
    files = gr.File(label=f"Pictures, of up to {max_upload} MB each", file_count="multiple", elem_id="files")
    files.preprocess = uploaded
    faults = gr.Textbox(label="Not ranked", visible=False, interactive=False, elem_id="faults")
    files.change(show, files, [gr.HTML(elem_id="ranked"), faults])


def build_page(
    gr: Any,
    check_point: str,
    data_path: str,
    device: str,
    max_pixels: int = MAX_PIXELS,
    pair_mode: str | None = None,
    max_upload: int = MAX_UPLOAD,
) -> Any:
    """Both tabs. `gr` is Gradio; `pair_mode` is `chosen_mode`'s, `max_upload` in MB."""
    model, state = from_checkpoint(check_point)
    model, side = model.to(select_device(device)), state["transform"]["side"]
    if "train_scores" not in state:
        raise UserError(f"--check_point {check_point} is of a run that has not finished: no percentile")
    table, temperature = held_out(check_point, data_path), state.get("temperature")
    pair_mode, about = chosen_mode(table, pair_mode), how_good(check_point)
    # What was dropped in is deleted within the hour.
    with gr.Blocks(title="Image virality", analytics_enabled=False, delete_cache=(600, 3000)) as page:
        gr.Markdown("# Image virality\nWhich pictures spread, and where in them that shows.")
        with gr.Tab("The game"):
            game_tab(gr, page, table, data_path, pair_mode, temperature, about)
        with gr.Tab("Rank your pictures"):
            against = state["train_scores"].numpy()
            rank_tab(gr, model, side, against, max_pixels, temperature, max_upload, about)
    return page


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--check_point", required=True, help="best.pt of a finished run, or an exported folder")
    flag("--data_path", required=True, help="the data set that it was trained on")
    flag("--pair_mode", choices=PAIR_MODES, help="pairs of the game: controlled (default, where possible) or all")
    flag("--host", default="127.0.0.1", help="address to serve on (default %(default)s: this machine only)")
    flag("--port", type=at_least(1), default=7860)
    flag(
        "--max_upload", type=at_least(1), default=MAX_UPLOAD, metavar="MB", help="largest upload (default %(default)s)"
    )
    flag("--max_pixels", type=at_least(1), default=MAX_PIXELS, help="largest picture (default %(default)s)")
    flag("--device", default="auto")
    return parser.parse_args()


def serve(page: Any, gr: Any, host: str, port: int, max_upload: int) -> None:
    """Until Ctrl-C. `max_upload` is the size in MB of the largest file that is taken."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # the system's: none is fetched
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(button_primary_background_fill="*primary_600")
    # Without _frontend it does not give up where its own page takes more than three seconds, as on a busy machine.
    quietly = {"quiet": True, "share": False, "prevent_thread_lock": True, "footer_links": [], "_frontend": False}
    try:
        limit = f"{max_upload}mb"
        page.launch(server_name=host, server_port=port, theme=theme, css=STYLE, max_file_size=limit, **quietly)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} on --host {host} cannot be used: {error}") from error
    print(f"http://{host}:{port} – Ctrl-C ends it", flush=True)
    page.block_thread()


def main() -> None:
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes then too
    with tempfile.TemporaryDirectory(prefix="image-virality-") as uploads:  # nobody else's to read; gone at the end
        # Before Gradio is imported. It asks itself whether it is up: no proxy could answer that. It sets matplotlib's
        # backend at every click, which a notebook's, inherited by this script, would keep it from.
        quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": "*", "MPLBACKEND": "agg"}
        os.environ |= quiet | {"GRADIO_TEMP_DIR": uploads}
        try:
            import gradio as gr
        except ImportError as error:
            raise UserError("the demo needs Gradio: pip install -r requirements-demo.txt") from error
        print_configuration(args, "demo")
        limits = args.max_pixels, args.pair_mode, args.max_upload
        page = build_page(gr, args.check_point, args.data_path, args.device, *limits)
        serve(page, gr, args.host, args.port, args.max_upload)


if __name__ == "__main__":
    run_main(main)

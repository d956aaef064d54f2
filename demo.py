"""Rank pictures in a browser, and play against the ranker: which of two pictures spread further?

    python demo.py --check_point outputs/sample/siamese_1/best.pt --data_path data/sample

The game is the task that Deza & Parikh 2015 set people, on the run's test pictures, which the ranker has never seen.
Needs requirements-demo.txt. The page is served to this machine alone unless --host says otherwise, loads nothing from
elsewhere, and sends nothing there.
"""

from __future__ import annotations

import argparse
import html
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

import data_set
import deza2015
import metrics
from decoding.decoder import MAX_PIXELS, decode
from device import select_device
from pages.leaderboard import leaderboard_page
from pages.template import thumbnail
from pictures.sources import Source, of_upload, read
from rank_images import COLUMNS, score_all
from siamese_net import SiameseNet, from_checkpoint
from utils import UserError, at_least, print_configuration, read_csv, run_main

MOST_AT_ONCE = 1000  # pictures that are ranked of what was dropped in
SHOWN = 480  # pixels of the longer side of a picture on the page
ACCENT = "#d55e00"  # the window's colour: told from any other by the colour-blind (Okabe & Ito)
INTRODUCTION = """The two pictures are from the test set: the ranker was not trained on them. How far a picture spread
is its virality score, from how often it was submitted and how it was voted on against what was usual there and then."""

ABOUT_RANKS = """Drop pictures here: they stay on the machine that serves this page. The most viral comes first, with
the window in which the ranker looks at it, and how many of 100 training pictures score lower."""
LOOKS = "The orange windows show where it looked."
STYLE = "#ranked iframe { width: 100%; height: 90vh; border: 0 }"


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
    """The leaderboard of the pictures as HTML, empty where there is none; what could not be read, and why.

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


# --- the game -------------------------------------------------------------------------------------------------------
@dataclass
class Game:
    """One visitor's: the pair on the table (rows of the test table), whether it is answered, and who was right."""

    pair: tuple[int, int] = (0, 0)
    answered: bool = True
    rounds: int = 0
    you: int = 0
    model: float = 0


def held_out(check_point: str, data_path: str) -> pd.DataFrame:
    """The run's test_scores.csv, less the pictures that are not there. Raises UserError where there is no pair, or the
    data set is another: its training pictures may be this one's test pictures."""
    folder = Path(check_point) if os.path.isdir(check_point) else Path(check_point).parent
    scores = folder / "test_scores.csv"
    table = read_csv(scores, ["img_id", "v_score", "score"])
    known = data_set.read_table(data_path, "data_set_iv", ["v_score"]).set_index("img_id")["v_score"]
    if not np.allclose(known.reindex(table["img_id"]), table["v_score"]):
        raise UserError(f"--data_path {data_path} is not the data set of {scores}: their virality scores differ")
    there = [data_set.picture_path(data_path, img_id).is_file() for img_id in table["img_id"]]
    if table.loc[there, "v_score"].nunique() < 2:
        raise UserError(f"--data_path {data_path} holds {sum(there)} of the run's {len(table)} test pictures: no pair")
    return table[there].reset_index(drop=True)


def draw_pair(table: pd.DataFrame, rng: np.random.Generator) -> tuple[int, int]:
    """Two rows of different virality."""
    first = int(rng.integers(len(table)))
    others = np.flatnonzero(table["v_score"] != table["v_score"].iloc[first])
    return first, int(rng.choice(others))


def answer(game: Game, choice: int, table: pd.DataFrame) -> str:
    """Take the visitor's choice (0 left, 1 right) into the score, once a pair. Returns what there is to say of it."""
    names = ("left", "right")
    virality, score = table["v_score"].iloc[list(game.pair)], table["score"].iloc[list(game.pair)]
    truth, believed = int(virality.argmax()), int(score.argmax())
    tie = score.nunique() == 1
    if not game.answered:
        game.answered, game.rounds = True, game.rounds + 1
        game.you += choice == truth
        game.model += 0.5 if tie else believed == truth
    verdict = "Correct" if choice == truth else "Wrong"
    model = (
        "could not tell"
        if tie
        else f"chose the {names[believed]} one, {'correctly' if believed == truth else 'wrongly'}"
    )
    return (
        f"### {verdict}: the {names[truth]} picture spread further.\n"
        f"Its virality score is {virality.max():.2f}, the other's {virality.min():.2f}. The model {model} "
        f"(its scores: left {score.iloc[0]:.2f}, right {score.iloc[1]:.2f}). " + LOOKS * ("x" in table)
    )


def score_board(game: Game) -> str:
    """Both scores so far with their 95 % interval, as a table."""

    def row(name: str, right: float) -> str:
        if not game.rounds:
            return f"| {name} | – |"
        low, high = metrics.wilson_interval(int(right), game.rounds)
        return f"| {name} | {right:g} of {game.rounds}: {right / game.rounds:.0%} ({low:.0%} to {high:.0%}) |"

    others = [f"| Chance | {deza2015.CHANCE:.0%} |", f"| People, on Deza & Parikh's pairs | {deza2015.HUMANS:.2%} |"]
    head = ["| | right so far (95 % interval) |", "|---|---|"]
    return "\n".join([*head, row("You", game.you), row("The model", game.model), *others])


# --- the page -------------------------------------------------------------------------------------------------------
def uploaded(payload: Any) -> list[Source]:
    """What was dropped in, pictures and tars of them, under the names that they had there: in its paths Gradio leaves
    out `<`, quotes and others."""
    found = (of_upload(file.path, file.orig_name or os.path.basename(file.path)) for file in payload or [])
    return [source for sources in found for source in sources]


def game_tab(gr: Any, page: Any, table: pd.DataFrame, data_path: str) -> None:
    """`gr` is Gradio, `page` the Blocks that the tab is in, `table` the pictures to play with."""
    boxes = table[["x", "y", "w", "h"]].to_numpy().tolist() if "x" in table else [None] * len(table)

    def pictures(game: Game, windows: bool) -> list[Image.Image]:
        paths = [data_set.picture_path(data_path, table["img_id"].iloc[row]) for row in game.pair]
        found = [boxes[row] if windows else None for row in game.pair]
        return [with_window(decode(path), box) for path, box in zip(paths, found, strict=True)]

    def new_round(game: Game) -> list:
        game.pair, game.answered = draw_pair(table, np.random.default_rng()), False
        may = [gr.update(interactive=True)] * 2
        return [game, *pictures(game, False), "", score_board(game), *may, gr.update(interactive=False)]

    def choose(choice: int, game: Game) -> list:
        said = answer(game, choice, table)
        may_not = [gr.update(interactive=False)] * 2
        return [game, *pictures(game, True), said, score_board(game), *may_not, gr.update(interactive=True)]

    gr.Markdown("### Which of the two spread further?\n" + INTRODUCTION)
    game = gr.State(Game())
    sides, buttons = [], []
    with gr.Row():
        for name in ("Left", "Right"):
            with gr.Column(min_width=280):
                sides.append(gr.Image(label=name, interactive=False, height=300, buttons=[], elem_id=name.lower()))
                buttons.append(gr.Button(f"{name} spread further", variant="primary"))
    said = gr.Markdown(elem_id="said")
    following = gr.Button("Next pair", interactive=False)
    board = gr.Markdown(score_board(Game()), elem_id="board")
    shown = [game, *sides, said, board, *buttons, following]
    for choice, button in enumerate(buttons):
        button.click(lambda game, choice=choice: choose(choice, game), game, shown, show_progress="hidden")
    following.click(new_round, game, shown, show_progress="hidden")
    page.load(new_round, game, shown, show_progress="hidden")


def rank_tab(
    gr: Any, model: SiameseNet, side: int, against: np.ndarray, max_pixels: int, temperature: float | None
) -> None:
    """`gr` is Gradio; the rest is rank_files's."""

    def show(sources: list[Source]) -> list:
        page, unreadable = rank_files(sources, model, side, against, max_pixels, temperature)
        frame = f'<iframe title="Ranked" sandbox="allow-scripts" srcdoc="{html.escape(page)}"></iframe>' if page else ""
        return [frame, gr.update(value=unreadable, visible=bool(unreadable))]

    gr.Markdown(ABOUT_RANKS)
    files = gr.File(label="Pictures", file_count="multiple", elem_id="files")
    files.preprocess = uploaded
    faults = gr.Textbox(label="Not ranked", visible=False, interactive=False, elem_id="faults")
    files.change(show, files, [gr.HTML(elem_id="ranked"), faults])


def build_page(gr: Any, check_point: str, data_path: str, device: str, max_pixels: int = MAX_PIXELS) -> Any:
    """Both tabs. `gr` is Gradio."""
    model, state = from_checkpoint(check_point)
    model, side = model.to(select_device(device)), state["transform"]["side"]
    if "train_scores" not in state:
        raise UserError(f"--check_point {check_point} is of a run that has not finished: no percentile")
    table = held_out(check_point, data_path)
    # What was dropped in is deleted within the hour.
    with gr.Blocks(title="Image virality", analytics_enabled=False, delete_cache=(600, 3000)) as page:
        gr.Markdown("# Image virality\nWhich pictures spread, and where in them that shows.")
        with gr.Tab("The game"):
            game_tab(gr, page, table, data_path)
        with gr.Tab("Rank your pictures"):
            rank_tab(gr, model, side, state["train_scores"].numpy(), max_pixels, state.get("temperature"))
    return page


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--check_point", required=True, help="best.pt of a finished run, or an exported folder")
    flag("--data_path", required=True, help="the data set that it was trained on")
    flag("--host", default="127.0.0.1", help="whom to serve: this machine alone (default %(default)s), or 0.0.0.0")
    flag("--port", type=at_least(1), default=7860)
    flag("--max_upload", type=at_least(1), default=50, metavar="MB", help="of a file dropped in (default %(default)s)")
    flag("--max_pixels", type=at_least(1), default=MAX_PIXELS, help="of a picture (default %(default)s)")
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
        raise UserError(f"--port {port} on --host {host} cannot be had: {error}") from error
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
        page = build_page(gr, args.check_point, args.data_path, args.device, args.max_pixels)
        serve(page, gr, args.host, args.port, args.max_upload)


if __name__ == "__main__":
    run_main(main)

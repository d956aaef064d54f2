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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from scipy import stats
from scipy.special import expit

import data_set
import deza2015
import metrics
import timeline
from decoding.decoder import MAX_PIXELS, decode
from device import select_device
from pages.leaderboard import leaderboard_page
from pages.template import thumbnail
from pictures.sources import Source, of_upload, read
from rank_images import COLUMNS, score_all
from siamese_net import SiameseNet, from_checkpoint
from utils import UserError, at_least, print_configuration, read_csv, read_json, run_main

MOST_AT_ONCE = 1000  # pictures that are ranked of what was dropped in
SHOWN = 480  # pixels of the longer side of a picture on the page
ACCENT = "#d55e00"  # the window's colour: told from any other by the colour-blind (Okabe & Ito)
INTRODUCTION = """How far a picture spread is its virality score, computed from how often it was submitted and how its
votes compare with what was usual there and then. The pictures are from the test set: the model was not trained on them.
"""
NAMES = ("A", "B")  # of the two pictures: "left" and "right" would be wrong where one stands below the other
ENOUGH = 10  # rounds, before anything is said of how they went
PAIR_MODES = ("controlled", "all")
PAIRS = {
    "controlled": "Both pictures of a pair were first posted to the same community, as near in time as the test "
    "pictures allow, so that age and community give little away.",
    "all": "The two pictures of a pair may differ in age and community, which by themselves tell something of how far "
    "a picture spread.",
}

ABOUT_RANKS = """Drop pictures here: they stay on the machine that serves this page. The most viral comes first, with
the window in which the ranker looks at it, and how many of 100 training pictures score lower."""
LOOKS = "The orange windows show where it looked."
STYLE = """
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


# --- the game -------------------------------------------------------------------------------------------------------
@dataclass
class Game:
    """One visitor's: the pair on the table and those to come (rows of the test table), whether it is answered, and how
    often each was correct."""

    pair: tuple[int, int] = (0, 0)
    coming: list[tuple[int, int]] = field(default_factory=list)
    answered: bool = True
    rounds: int = 0
    you: int = 0
    model: float = 0
    clock: float = 0


def folder_of(check_point: str) -> Path:
    """The folder of a run, or the exported one."""
    return Path(check_point) if os.path.isdir(check_point) else Path(check_point).parent


def held_out(check_point: str, data_path: str) -> pd.DataFrame:
    """The run's test_scores.csv, less the pictures that are not there, with community, time and day of each picture's
    first post where the data set has posts with times. `time` is in any unit; `day` is in days, NaN if that unit is
    not known. Raises UserError if there is no pair, or the data set is another: its training pictures may be this
    one's test pictures."""
    scores = folder_of(check_point) / "test_scores.csv"
    table = read_csv(scores, ["img_id", "v_score", "score"])
    known = data_set.read_table(data_path, "data_set_iv", ["v_score"])
    v_score = known.set_index("img_id")["v_score"]
    if not np.allclose(v_score.reindex(table["img_id"]), table["v_score"]):
        raise UserError(f"--data_path {data_path} is not the data set of {scores}: their virality scores differ")
    there = [data_set.picture_path(data_path, img_id).is_file() for img_id in table["img_id"]]
    if table.loc[there, "v_score"].nunique() < 2:
        raise UserError(f"--data_path {data_path} holds {sum(there)} of the run's {len(table)} test pictures: no pair")
    table = table[there].reset_index(drop=True)
    if (posts := timeline.read_posts(data_path, known)) is not None:
        first = timeline.first_posts(posts).reindex(table["img_id"])
        table["community"], table["time"] = first["community"].to_numpy(object), first["time"].to_numpy(float)
        table["day"] = table["time"] / 86_400 if "hour" in posts else np.nan
    return table


def draw_pairs(table: pd.DataFrame, pair_mode: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of rows of different virality in random order, on random sides, no row in two of them. Empty if there is
    no pair: in mode controlled (as data_set.controlled_pairs draws them) or where all virality is equal."""
    v_score = table["v_score"].to_numpy(np.float64)
    if pair_mode == "controlled":
        if "community" not in table:
            return []
        community = pd.factorize(table["community"])[0]
        pairs = data_set.controlled_pairs(v_score, community, table["time"].to_numpy(), int(rng.integers(2**31)))
        return [tuple(pair) for pair in rng.permutation(pairs).tolist()]
    pairs = []
    while not pairs and len(np.unique(v_score)) > 1:  # few pictures may all have met an equal one
        order = rng.permutation(len(table))[: len(table) // 2 * 2].reshape(-1, 2)
        pairs = [(a, b) for a, b in order.tolist() if v_score[a] != v_score[b]]
    return pairs


def chosen_mode(table: pd.DataFrame, pair_mode: str | None) -> str:
    """The pair mode that is asked for; by default controlled where the pictures allow it. Raises UserError."""
    possible = bool(draw_pairs(table, "controlled", np.random.default_rng(0)))
    if pair_mode == "controlled" and not possible:
        raise UserError("--pair_mode controlled: no two test pictures of different virality were first posted to one "
                        "community at about the same time, as far as the data set's submissions tell")  # fmt: skip
    return pair_mode or ("controlled" if possible else "all")


def origin(table: pd.DataFrame, pair: tuple[int, int]) -> str:
    """Where and when the two pictures were first posted, as text; empty if it is not known."""
    if "community" not in table or table["community"].iloc[list(pair)].isna().any():
        return ""
    (a, b), days = table["community"].iloc[list(pair)], table["day"].iloc[list(pair)].diff().abs().iloc[1]
    where = f"Both were first posted to {a}" if a == b else f"A was first posted to {a}, B to {b}"
    if np.isnan(days):
        return f"{where}, at about the same time." if a == b else f"{where}."
    return f"{where}, {'within a day of each other' if days <= 1 else f'{np.ceil(days):.0f} days apart'}."


def answer(game: Game, choice: int, table: pd.DataFrame, temperature: float | None = None) -> str:
    """Take the visitor's choice (0: A, 1: B) into the score, once a pair. Returns what there is to say of it."""
    rows = table.iloc[list(game.pair)]
    virality, score = rows["v_score"].to_numpy(), rows["score"].to_numpy()
    truth = int(virality.argmax())
    timed = "time" in rows and rows["time"].notna().all()
    age = -rows["time"].to_numpy() if timed else np.zeros(2)
    points = [0.5 if each[0] == each[1] else float(each.argmax() == truth) for each in (score, age)]
    if not game.answered:
        game.answered, game.rounds = True, game.rounds + 1
        game.you += choice == truth
        game.model, game.clock = game.model + points[0], game.clock + points[1]
    said = [f"### {'Correct' if choice == truth else 'Wrong'}: {NAMES[truth]} spread further."]
    scores = [f"{each:.2f}".replace("-", "−") for each in virality]
    said += [f"The virality score of A is {scores[0]}, that of B {scores[1]}."]
    if score[0] == score[1]:
        said += ["The model could not tell them apart."]
    else:
        verdict = "that was correct" if points[0] else "that was wrong"
        said += [f"The model chose {NAMES[score.argmax()]}{_sure(score, temperature)}: {verdict}."]
    if age[0] != age[1]:
        verdict = "that was correct" if points[1] else "that was wrong"
        said += [f"The clock chose {NAMES[age.argmax()]}, the older one: {verdict}."]
    return said[0] + "\n" + " ".join([*said[1:], LOOKS * ("x" in table)])


def _sure(score: np.ndarray, temperature: float | None) -> str:
    """How sure the model is of its choice between two pictures, as in Bradley & Terry's model."""
    if temperature is None:
        return ""
    share = 100 * expit(abs(score[0] - score[1]) / temperature)
    return " and was more than 99 % sure" if share > 99 else f" and was {share:.0f} % sure"


def score_board(game: Game, timed: bool = True) -> str:
    """Everybody's score so far with its 95 % interval, as a table; after ten rounds also what may be made of it."""

    def row(name: str, right: float) -> str:
        if not game.rounds:
            return f"| {name} | – |"
        low, high = metrics.wilson_interval(int(right), game.rounds)
        return f"| {name} | {right:g} of {game.rounds}: {right / game.rounds:.0%} ({low:.0%} to {high:.0%}) |"

    players = {"You": game.you, "The model": game.model} | (
        {"The clock: always the older": game.clock} if timed else {}
    )
    others = [f"| Guessing | {deza2015.CHANCE:.0%} |", f"| People, on Deza & Parikh's pairs | {deza2015.HUMANS:.2%} |"]
    head = ["| | correct so far (95 % interval) |", "|---|---|"]
    table = "\n".join([*head, *(row(*player) for player in players.items()), *others])
    return table + (f"\n\n{summing_up(game.rounds, players)}" if game.rounds >= ENOUGH else "")


def summing_up(rounds: int, players: dict[str, float]) -> str:
    """What each has after so many rounds, and what guessing alone gives."""
    low, high = (int(end) for end in stats.binom.interval(0.95, rounds, 0.5))
    names = {name.partition(":")[0].replace("The", "the").replace("You", "you"): n for name, n in players.items()}
    have = ", ".join(f"{name} {correct:g}" for name, correct in names.items())
    beyond = [f"{name} ({correct:g})" for name, correct in names.items() if not low <= correct <= high]
    apart = f"Beyond that: {', '.join(beyond)}." if beyond else "So nobody here can be told from guessing yet."
    return (
        f"**After {rounds} rounds:** {have}; guessing {rounds / 2:g} on average, and between {low} and {high} in 95 of "
        f"100 games. {apart}"
    )


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

    def new_round(game: Game) -> list:
        game.coming = game.coming or draw_pairs(table, pair_mode, np.random.default_rng())
        game.pair, game.answered = game.coming.pop(), False
        may = [gr.update(interactive=True)] * 2
        where = html.escape(origin(table, game.pair))
        return [game, where, *pictures(game, False), "", score_board(game, timed), *may, gr.update(interactive=False)]

    def choose(choice: int, game: Game) -> list:
        said, where = answer(game, choice, table, temperature), html.escape(origin(table, game.pair))
        may_not = [gr.update(interactive=False)] * 2
        board = score_board(game, timed)
        return [game, where, *pictures(game, True), said, board, *may_not, gr.update(interactive=True)]

    gr.Markdown("### Which of the two spread further?")
    game = gr.State(Game())
    where = gr.HTML(elem_id="where", padding=False)
    sides, buttons = [], []
    with gr.Row():
        for name in NAMES:
            with gr.Column(min_width=130):  # side by side on a phone too
                sides.append(gr.HTML(elem_id=f"picture-{name}", padding=False))
                buttons.append(gr.Button(f"{name} spread further", variant="primary"))
    said = gr.Markdown(elem_id="said")
    following = gr.Button("Next pair", interactive=False)
    board = gr.Markdown(score_board(Game(), timed), elem_id="board")
    gr.Markdown(f"{INTRODUCTION} {PAIRS[pair_mode]} {about}")
    shown = [game, where, *sides, said, board, *buttons, following]
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


def how_good(check_point: str) -> str:
    """How often the run's ranker is correct on its test pairs and how far its sureness can be believed, where its
    results.json says so."""
    path = folder_of(check_point) / "results.json"
    results = read_json(path) if path.is_file() else {}
    try:
        test, known = results["test"], results["calibration"]
        low, high = (f"{test[f'pair_accuracy_{end}']:.0%}" for end in ("low", "high"))
        errors = f"{known['ece']:.1%} on average ({known['ece_low']:.1%} to {known['ece_high']:.1%})"
        return (
            f"On {test['pairs']:,} pairs of test pictures the model is correct in {test['pair_accuracy']:.0%} (95 % "
            f"interval {low} to {high}; guessing: 50%). Its “% sure” is off by {errors}."
        )
    except (KeyError, TypeError, ValueError):  # of another version, or exported without
        return ""


def build_page(
    gr: Any,
    check_point: str,
    data_path: str,
    device: str,
    max_pixels: int = MAX_PIXELS,
    pair_mode: str | None = None,
) -> Any:
    """Both tabs. `gr` is Gradio; `pair_mode` is `chosen_mode`'s."""
    model, state = from_checkpoint(check_point)
    model, side = model.to(select_device(device)), state["transform"]["side"]
    if "train_scores" not in state:
        raise UserError(f"--check_point {check_point} is of a run that has not finished: no percentile")
    table, temperature = held_out(check_point, data_path), state.get("temperature")
    pair_mode = chosen_mode(table, pair_mode)
    # What was dropped in is deleted within the hour.
    with gr.Blocks(title="Image virality", analytics_enabled=False, delete_cache=(600, 3000)) as page:
        gr.Markdown("# Image virality\nWhich pictures spread, and where in them that shows.")
        with gr.Tab("The game"):
            game_tab(gr, page, table, data_path, pair_mode, temperature, how_good(check_point))
        with gr.Tab("Rank your pictures"):
            rank_tab(gr, model, side, state["train_scores"].numpy(), max_pixels, temperature)
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
    flag("--max_upload", type=at_least(1), default=50, metavar="MB", help="largest upload (default %(default)s)")
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
        page = build_page(gr, args.check_point, args.data_path, args.device, args.max_pixels, args.pair_mode)
        serve(page, gr, args.host, args.port, args.max_upload)


if __name__ == "__main__":
    run_main(main)

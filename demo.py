"""Rank pictures in a browser, and play against the ranker: which of two pictures spread further?

    python demo.py --check_point outputs/sample/siamese_1/best.pt --data_path data/sample

The game is the task that Deza & Parikh 2015 set people, on the run's test pictures, which the ranker has never seen.
Needs requirements-demo.txt. The page is served to this machine alone unless --host says otherwise, loads nothing from
elsewhere, and sends nothing there.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

import data_set
import deza2015
import metrics
from rank_images import Source, read, score_all
from siamese_net import SiameseNet, from_checkpoint
from transforms import decode
from utils import UserError, at_least, print_configuration, read_csv, run_main, select_device

SHOWN = 480  # pixels of the longer side of a picture on the page
ACCENT = "#d55e00"  # the window's colour: told from any other by the colour-blind (Okabe & Ito)
INTRODUCTION = """The two pictures are from the test set: the ranker was not trained on them. How far a picture spread
is its virality score, from how often it was submitted and how it was voted on against what was usual there and then."""

LOOKS = "The orange windows show where it looked."


# --- pictures -------------------------------------------------------------------------------------------------------
def with_window(picture: Image.Image, box: list[float] | None) -> Image.Image:
    """The picture as large as the page shows it, and on it the window x, y, w, h (pixels of the picture)."""
    scale = min(4.0, SHOWN / max(picture.size))  # a small one is magnified, so that its window can be seen
    shown = picture.resize([max(1, round(side * scale)) for side in picture.size])
    if box is not None:
        x, y, w, h = (side * scale for side in box)
        ImageDraw.Draw(shown).rectangle([x, y, x + w, y + h], outline=ACCENT, width=4)
    return shown


def rank_files(
    paths: list[str] | None, model: SiameseNet, side: int, against: np.ndarray
) -> tuple[list[tuple[Image.Image, str]], pd.DataFrame, str]:
    """The pictures with their windows, the most viral first; their table; what could not be read, and why."""
    sources = [Source(os.path.basename(path), path) for path in paths or []]
    rows = [row for batch in score_all(model, sources, side, 2, None) for row in batch]
    ranked = sorted((row for row in rows if row[1] is not None), key=lambda row: -row[1])
    table = pd.DataFrame([(path, score) for path, score, *_ in ranked], columns=["picture", "score"]).round(3)
    table["more viral than … of 100 training pictures"] = [
        round(float(np.searchsorted(against, score) / len(against) * 100), 1) for _, score, *_ in ranked
    ]
    shown = [
        (with_window(read(Source(path, file)), box), f"{place}. {path}")
        for place, (path, _, box, file, *_) in enumerate(ranked, start=1)
    ]
    return shown, table, "\n".join(f"{row[0]} cannot be read: {row[2]}" for row in rows if row[1] is None)


# --- the game -------------------------------------------------------------------------------------------------------
@dataclass
class Game:
    """One visitor's: the pair on the table (rows of the test table), whether it is answered, and who was right."""

    pair: tuple[int, int] = (0, 0)
    answered: bool = True
    rounds: int = 0
    you: int = 0
    model: float = 0


def test_pictures(check_point: str, data_path: str) -> pd.DataFrame:
    """The run's test_scores.csv, less the pictures that are not there. Raises UserError where there is no pair."""
    table = read_csv(Path(check_point).parent / "test_scores.csv", ["img_id", "v_score", "score"])
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
    verdict = "You are right" if choice == truth else "You are wrong"
    model = "could not tell" if tie else f"said {names[believed]}: {'right' if believed == truth else 'wrong'}"
    return (
        f"### {verdict}: the {names[truth]} picture spread further.\n"
        f"Its virality score is {virality.max():.2f}, the other's {virality.min():.2f}. The model {model} "
        f"(left {score.iloc[0]:.2f}, right {score.iloc[1]:.2f}). " + LOOKS * ("x" in table)
    )


def score_board(game: Game) -> str:
    """Both scores so far with their 95 % interval, as a table."""

    def row(name: str, right: float) -> str:
        if not game.rounds:
            return f"| {name} | – | – |"
        low, high = metrics.wilson_interval(int(right), game.rounds)
        return f"| {name} | {right:g} of {game.rounds} ({right / game.rounds:.0%}) | {low:.0%} to {high:.0%} |"

    return "\n".join([
        "| | right | 95 % interval |", "|---|---|---|", row("You", game.you), row("The model", game.model),
        f"| People, on Deza & Parikh's pairs | {deza2015.HUMANS:.2%} | |", f"| Chance | {deza2015.CHANCE:.0%} | |",
    ])  # fmt: skip


# --- the page -------------------------------------------------------------------------------------------------------
def build_page(gr: Any, args: argparse.Namespace) -> Any:
    """Both tabs. `gr` is Gradio."""
    model, state = from_checkpoint(args.check_point)
    model, side = model.to(select_device(args.device)), state["transform"]["side"]
    if "train_scores" not in state:
        raise UserError(f"--check_point {args.check_point} is of a run that has not finished: no percentile")
    table, against = test_pictures(args.check_point, args.data_path), state["train_scores"].numpy()
    boxes = table[["x", "y", "w", "h"]].to_numpy().tolist() if "x" in table else [None] * len(table)

    def pictures(game: Game, windows: bool) -> list[Image.Image]:
        paths = [data_set.picture_path(args.data_path, table["img_id"].iloc[row]) for row in game.pair]
        return [
            with_window(decode(path), boxes[row] if windows else None)
            for path, row in zip(paths, game.pair, strict=True)
        ]

    def new_round(game: Game) -> list:
        game.pair, game.answered = draw_pair(table, np.random.default_rng()), False
        may = [gr.update(interactive=True)] * 2
        return [game, *pictures(game, False), "", score_board(game), *may, gr.update(interactive=False)]

    def choose(choice: int, game: Game) -> list:
        said = answer(game, choice, table)
        may_not = [gr.update(interactive=False)] * 2
        return [game, *pictures(game, True), said, score_board(game), *may_not, gr.update(interactive=True)]

    with gr.Blocks(title="Image virality", analytics_enabled=False) as page:
        gr.Markdown("# Image virality\nWhich pictures spread, and where in them that shows.")
        with gr.Tab("The game"):
            gr.Markdown("### Which of the two spread further?\n" + INTRODUCTION)
            game = gr.State(Game())
            with gr.Row():
                sides = [
                    gr.Image(label=name, interactive=False, height=320, buttons=[], elem_id=name.lower())
                    for name in ("Left", "Right")
                ]
            with gr.Row():
                buttons = [gr.Button(f"{name} spread further", variant="primary") for name in ("Left", "Right")]
            said = gr.Markdown(elem_id="said")
            following = gr.Button("Next pair", interactive=False)
            board = gr.Markdown(score_board(Game()), elem_id="board")
            shown = [game, *sides, said, board, *buttons, following]
            for choice, button in enumerate(buttons):
                button.click(lambda game, choice=choice: choose(choice, game), game, shown, show_progress="hidden")
            following.click(new_round, game, shown, show_progress="hidden")
            page.load(new_round, game, shown, show_progress="hidden")
        with gr.Tab("Rank your pictures"):
            gr.Markdown("Drop pictures here. They stay on the machine that serves this page.")
            files = gr.File(label="Pictures", file_count="multiple", elem_id="files")
            faults = gr.Textbox(label="Not ranked", visible=False, interactive=False, elem_id="faults")
            gallery = gr.Gallery(
                label="Most viral first, with what the ranker looks at",
                columns=3,
                object_fit="contain",
                elem_id="ranked",
            )
            ranks = gr.Dataframe(label="Scores", interactive=False, elem_id="scores", wrap=True)

            def show(paths: list[str] | None) -> list:
                shown, table, unreadable = rank_files(paths, model, side, against)
                return [shown, table, gr.update(value=unreadable, visible=bool(unreadable))]

            files.change(show, files, [gallery, ranks, faults])
    return page


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--check_point", required=True, help="best.pt in the folder of a finished run of train_siamese.py")
    flag("--data_path", required=True, help="the data set that it was trained on")
    flag("--host", default="127.0.0.1", help="whom to serve: this machine alone (default %(default)s), or 0.0.0.0")
    flag("--port", type=at_least(1), default=7860)
    flag("--device", default="auto")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the demo needs Gradio: pip install -r requirements-demo.txt") from error
    print_configuration(args, "demo")
    page = build_page(gr, args)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none is fetched
    try:
        page.launch(
            server_name=args.host, server_port=args.port, share=False, theme=theme, quiet=True, prevent_thread_lock=True
        )
    except OSError as error:
        raise UserError(f"--port {args.port} on --host {args.host} cannot be had: {error}") from error
    print(f"http://{args.host}:{args.port} – Ctrl-C ends it", flush=True)
    page.block_thread()


if __name__ == "__main__":
    run_main(main)

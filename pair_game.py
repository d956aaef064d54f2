"""The game: which of two pictures spread further? The pairs, everybody's points, and what there is to say of them.

The task is the one that Deza & Parikh 2015 gave to people. Here you play it against a ranker, on pictures that it was
not trained on, and against the clock, which always chooses the older picture. demo.py serves it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

import data_set
import deza2015
import metrics
import timeline
from utils import UserError, read_csv, read_json, run_folder

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
LOOKS = "The orange windows show where it looked."


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


def how_good(check_point: str) -> str:
    """How often the run's ranker is correct on its test pairs and how far its sureness can be believed, where its
    results.json says so."""
    path = run_folder(check_point) / "results.json"
    results = read_json(path) if path.is_file() else {}
    try:
        test, known = results["test"], results["calibration"]
        low, high = (f"{test[f'pair_accuracy_{end}']:.0%}" for end in ("low", "high"))
        errors = f"{known['ece']:.1%} on average ({known['ece_low']:.1%} to {known['ece_high']:.1%})"
        clock = (results.get("context") or {}).get("clock")
        older = f"; the older picture: {clock['value']:.0%}, {clock['low']:.0%} to {clock['high']:.0%}" if clock else ""
        return (
            f"On {test['pairs']:,} pairs of test pictures the model is correct in {test['pair_accuracy']:.0%} (95 % "
            f"interval {low} to {high}; guessing: 50%{older}). Its “% sure” is off by {errors}."
        )
    except (KeyError, TypeError, ValueError):  # of another version, or exported without
        return ""


def held_out(check_point: str, data_path: str) -> pd.DataFrame:
    """The run's test_scores.csv, less the pictures that are not there, with community, time and day of each picture's
    first post where the data set has posts with times. `time` is in any unit; `day` is in days, NaN if that unit is
    not known. Raises UserError if there is no pair, or the data set is another: its training pictures may be this
    one's test pictures."""
    scores = run_folder(check_point) / "test_scores.csv"
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


def players(game: Game, timed: bool) -> dict[str, float]:
    """The points of all players: a point for each pair, half a point if the two pictures tie."""
    return {"You": game.you, "The model": game.model} | ({"The clock": game.clock} if timed else {})


def interval(points: float, rounds: int) -> str:
    """95 % interval of the share of points; half a point counts as none at the low end and as one at the high end."""
    low = metrics.wilson_interval(math.floor(points), rounds)[0]
    return f"{low:.0%} to {metrics.wilson_interval(math.ceil(points), rounds)[1]:.0%}"


def score_board(game: Game, timed: bool = True) -> str:
    """Everybody's score so far with its 95 % interval, as a table; after ten rounds also what may be made of it."""

    def row(name: str, points: float) -> str:
        share = f"{points / game.rounds:.0%} ({interval(points, game.rounds)})" if game.rounds else ""
        name += ": always the older" if name == "The clock" else ""
        return f"| {name} | {points:g} of {game.rounds}: {share} |" if game.rounds else f"| {name} | – |"

    n = deza2015.TEST_PAIRS
    people = f"{deza2015.HUMANS:.2%} of {n} ({interval(round(deza2015.HUMANS * n), n)})"
    rows = [row(*player) for player in players(game, timed).items()]
    rows += [f"| Guessing | {deza2015.CHANCE:.0%} |", f"| People, on Deza & Parikh's pairs | {people} |"]
    table = "\n".join(["| | correct so far (95 % interval) |", "|---|---|", *rows])
    return table + (f"\n\n{summing_up(game, timed)}" if game.rounds >= ENOUGH else "")


def by_guessing(rounds: int) -> tuple[int, int]:
    """The points between which guessing ends in at least 95 of 100 games of so many rounds."""
    low, high = stats.binom.interval(0.95, rounds, deza2015.CHANCE)
    return int(low), int(high)


def standings(game: Game, timed: bool) -> str:
    """Everybody's points with their 95 % intervals, and what guessing gives."""
    low, high = by_guessing(game.rounds)
    have = ", ".join(f"{name.lower()} {points:g} ({interval(points, game.rounds)})"
                     for name, points in players(game, timed).items())  # fmt: skip
    return f"{have}; guessing {game.rounds / 2:g} on average, and between {low} and {high} in 95 of 100 games."


def summing_up(game: Game, timed: bool) -> str:
    """What each has after so many rounds, and whether it can be told from guessing."""
    low, high = by_guessing(game.rounds)
    beyond = [f"{name.lower()} ({n:g})" for name, n in players(game, timed).items() if not low <= n <= high]
    apart = f"Beyond that: {', '.join(beyond)}." if beyond else "So nobody here can be told from guessing yet."
    return f"**After {game.rounds} rounds:** {standings(game, timed)} {apart}"


def to_copy(game: Game, timed: bool) -> str:
    """The result as text to paste somewhere: no address, no name; empty before the first round."""
    if not game.rounds:
        return ""
    pairs = "1 pair" if game.rounds == 1 else f"{game.rounds} pairs"
    return f"Which of two pictures spread further? Correct on {pairs} (95 % intervals): {standings(game, timed)}"

"""Compare finished rankers: is one more accurate than another, beyond what sampling of the pictures explains?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import deza2015
import metrics
import pair_file
from data_set import targets_of
from utils import UserError, read_csv, read_json


def compare_runs(runs: list[str]) -> list[dict[str, float]]:
    """Print and return the differences in pair accuracy between rankers on their common test pictures.

    A run is the folder of a training, or of its --seeds or --folds; these are compared seed by seed.
    """
    if len(runs) < 2:
        raise UserError(f"--compare {' '.join(runs)}: pass two runs or more")
    tables = [_test_scores(Path(run)) for run in runs]
    for run, table in zip(runs, tables, strict=True):
        if table.keys() != tables[0].keys():
            names = " and ".join(", ".join(sorted(each)) or "no seeds" for each in (tables[0], table))
            raise UserError(f"{runs[0]} and {run} cannot be compared seed by seed: they have {names}")
        if any(set(table[name].index) != set(tables[0][name].index) for name in table):
            raise UserError(f"{runs[0]} and {run} were tested on different pictures: train both with the same seeds")
    virality = pd.concat([each["v_score"] for table in tables for each in table.values()]).groupby(level=0)
    if (virality.nunique() > 1).any():
        raise UserError(f"{' and '.join(runs)} were tested on different virality scores of the same pictures")
    v_score = virality.first()
    scores = [np.stack([each["score"].reindex(v_score.index) for each in table.values()]) for table in tables]
    mode, pairs = _listed_test_pairs(Path(runs[0]) / next(iter(tables[0])), v_score)
    try:
        found = metrics.compare_rankers(scores, v_score.to_numpy(), pairs)
    except ValueError as error:
        raise UserError(f"--compare {' '.join(runs)}: {error}") from error
    for row in found:
        print("\n".join(comparison_lines(row, runs[row["a"]], runs[row["b"]], len(found))))
        if mode == "deza" and row["seeds"] == 1:  # no picture is in two of these
            print(f"  McNemar's exact p {metrics.mcnemar(scores[row['a']][0], scores[row['b']][0], pairs)['p']:.2g}")
    scope = "; true of other pictures, but of these trainings alone (for new ones compare runs of --seeds)"
    if (seeds := found[0]["seeds"]) > 1:
        scope = f", {seeds} trainings each; true of other pictures and of new trainings"
    print(f"over {found[0]['pairs']:,} pairs of {found[0]['pictures']:,} test pictures{scope}")
    return found


def comparison_lines(row: dict[str, float], a: str, b: str, comparisons: int) -> list[str]:
    """One row of `metrics.compare_rankers` in words."""
    better = f"{a if row['difference'] > 0 else b} is better"
    verdict = better if row["low"] > 0 or row["high"] < 0 else "no difference can be told"
    corrected = f" (for {comparisons} comparisons {row['p_holm']:.2g}, Holm)" if comparisons > 1 else ""
    return [
        f"{a} is right on {row['a_accuracy']:.4f} of the pairs, {b} on {row['b_accuracy']:.4f}",
        f"  difference {row['difference']:+.4f} (95 % {row['low']:+.4f} to {row['high']:+.4f}), "
        f"p {row['p']:.2g}{corrected}: {verdict}",
    ]


def _test_scores(run: Path) -> dict[str, pd.DataFrame]:
    """The test pictures of a run with v_score and score, by img_id; of several seeds or folds a table each, by name."""
    files = [run / "test_scores.csv"]
    if not files[0].is_file() and (run / "seeds.json").is_file():
        files = sorted(run.glob("*/test_scores.csv"))
    tables = {str(path.parent.relative_to(run)): read_csv(path, ["img_id", "v_score", "score"]) for path in files}
    return {name: table.set_index("img_id") for name, table in tables.items()}


def _listed_test_pairs(run: Path, v_score: pd.Series) -> tuple[str | None, metrics.PairList | None]:
    """A run's pair mode and, in modes deza and file, the test pairs as places in `v_score` (by img_id)."""
    config = read_json(run / "config.json") if (run / "config.json").is_file() else {}
    mode = config.get("pair_mode")
    if mode == "file":  # no picture of a test pair is in a pair of another split
        made = pair_file.read_pair_file(config["data_path"])
        made = made[made[["img_id_1", "img_id_2"]].isin(v_score.index).all(axis=1)]
        places = np.stack([v_score.index.get_indexer(made[side]) for side in ("img_id_1", "img_id_2")], axis=1)
        return mode, metrics.PairList(places, made["target"].to_numpy(), made["weight"].to_numpy())
    if mode != "deza":
        return mode, None
    pairs = deza2015.read_pairs(Path(config["data_path"]) / "deza2015")
    ids = pairs.loc[pairs["top"], ["img_id_viral", "img_id_other"]].to_numpy()
    places = v_score.index.get_indexer(ids.ravel()).reshape(-1, 2)
    places = places[(places >= 0).all(axis=1)]
    return mode, metrics.PairList(places, targets_of(v_score.to_numpy(), places))

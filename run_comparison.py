"""Compare finished rankers: is one right more often than another, by more than the choice of pictures explains?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import deza2015
import metrics
from data_set import targets_of
from utils import UserError, read_csv, read_json


def compare_runs(runs: list[str]) -> list[dict[str, float]]:
    """Print and return each difference in test pair accuracy between runs, with its 95 % interval and p.

    A run is the folder of one training, or one of several seeds (seed_0, seed_1, …). Raises UserError where two were
    tested on different pictures.
    """
    tables = [read_scores(run) for run in runs]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        if not (table.index.equals(tables[0].index) and table.isna().equals(tables[0].isna())):
            raise UserError(f"{runs[0]} and {run} were tested on different pictures: train both with the same seeds")
    v_score = tables[0].index.get_level_values("v_score").to_numpy(np.float64)
    published = published_pairs(runs, tables[0])
    found = metrics.compare_rankers([table.to_numpy().T for table in tables], v_score, published)
    for row in found:
        a, b = runs[row["a"]], runs[row["b"]]
        seeds = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
        print(f"{a} is right on {row['a_accuracy']:.4f}, {b} on {row['b_accuracy']:.4f} of {row['pairs']} pairs")
        corrected = f", {row['p_holm']:.3g} corrected for {len(found)} comparisons" if len(found) > 1 else ""
        interval = f"(95 % {row['low']:+.4f} to {row['high']:+.4f}), p {row['p']:.3g}{corrected}"
        print(f"  difference {row['difference']:+.4f} {interval}; {row['pictures']} pictures{seeds}")
        if published is not None and row["seeds"] == 1:
            alone = metrics.mcnemar(*(tables[row[side]].to_numpy()[:, 0] for side in ("a", "b")), published)
            print(f"  right alone: {alone['a_alone']} and {alone['b_alone']}; McNemar's p {alone['p']:.3g}")
    return found


def read_scores(run: str) -> pd.DataFrame:
    """Scores of a run's test pictures, a row a picture (index img_id, v_score), a column a training."""
    files = sorted(Path(run).glob("seed_*/test_scores.csv")) or [Path(run) / "test_scores.csv"]
    parts = {}
    for file in files:
        table = read_csv(file, ["img_id", "v_score", "score"])
        parts[file.parent.name if len(files) > 1 else "run"] = table.set_index(["img_id", "v_score"])["score"]
    return pd.DataFrame(parts).sort_index()


def published_pairs(runs: list[str], table: pd.DataFrame) -> metrics.PairList | None:
    """The 489 published pairs where all runs were tested on these, as positions in `table`; else None: all pairs."""
    for run in runs:
        results = next(iter(sorted(Path(run).glob("seed_*/results.json"))), Path(run) / "results.json")
        configuration = read_json(results).get("configuration", {}) if results.is_file() else {}
        if configuration.get("pair_mode") != "deza":
            return None
    pairs = deza2015.read_pairs(Path(configuration["data_path"]) / "deza2015")
    ids = pairs.loc[pairs["top"], ["img_id_viral", "img_id_other"]].to_numpy()
    places = table.index.get_level_values("img_id").get_indexer(ids.ravel()).reshape(-1, 2)
    places = places[(places >= 0).all(axis=1)]
    return metrics.PairList(places, targets_of(table.index.get_level_values("v_score").to_numpy(), places))

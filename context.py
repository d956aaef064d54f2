"""How much of virality community, clock, title and luck explain, and what the picture adds.

    python context.py --data_path data/reddit/deza2015 --output context.json
    python context.py --data_path data/reddit --output outputs/reddit/context.json --scores outputs/reddit/ranks.csv

Ranks images without looking at them (by the age of the first post, its community, hour and title) on the published
pairs and others, and compares the result with the published figures; reports how much of the variance of the votes
each of these explains; and estimates how much of the label is luck. `--scores` (path,score, as written by
rank_images.py) adds a ranker of pictures to the comparison; it must not have been trained on these pictures. Takes
about ten seconds. Writes the figures as JSON and, next to it, a chart as .png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import deza2015
from context_measures.luck import ASSUMPTIONS, label_noise
from context_measures.rankings import METHODS, PairSet, learned_from_others, rank_and_count
from context_measures.shares import Share, pair_share
from context_measures.tables import PUBLISHED, as_table
from context_measures.variance import CAUSES, explained_variance
from data_set import controlled_pairs, pair_sets, read_table
from metrics import wilson_interval
from table_files import read_rows
from timeline import first_posts, read_posts
from utils import UserError, check_outputs, next_to, print_configuration, run_main, write_json

FEWEST = 30  # images that something is learned from, or that have a picture's score
MOST_PAIRS = 2_000_000  # drawn from a test set's, beside a trained ranker


# --- what is known of each image ------------------------------------------------------------------------------------
def read_label(data_path: str | Path) -> pd.DataFrame:
    """img_id, v_score and, where it has them, SNAP_id and group, of a data set or of Deza & Parikh's folder."""
    return deza2015.read_table(data_path) if deza2015.is_folder(data_path) else _table(data_path)


def _table(data_path: str | Path) -> pd.DataFrame:
    return read_table(data_path, "data_set_iv", ["v_score"])


def describe_images(table: pd.DataFrame, posts: pd.DataFrame) -> pd.DataFrame:
    """One row per image of `table` posted to a community that counts: img_id, v_score, unit (what stays in one
    fold: the image, or its group of copies), votes (its highest score), and timeline.first_posts' columns."""
    first = first_posts(posts)
    images = table[["img_id", "v_score", *({"group"} & set(table))]].merge(
        first.drop(columns=list({"group"} & set(table) & set(first))), left_on="img_id", right_index=True
    )
    images = images.reset_index(drop=True)
    images["votes"] = images["img_id"].map(posts[posts["counts"]].groupby("img_id")["score"].max())
    images["unit"] = units(images)
    return images


def units(table: pd.DataFrame) -> np.ndarray:
    """A number, from 0, for each image or group of copies (column `group`, empty for an image without copies)."""
    own = "image " + table["img_id"].astype(str)
    if "group" in table:
        group = table["group"].astype(str)
        own = own.where(table["group"].isna() | (group == ""), "group " + group)
    return pd.factorize(own)[0]


def with_scores(images: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """`images` with a column `picture`: the score of <img_id>.jpg in a table of path and score, or NaN."""
    scores = read_rows(path, ["path", "score"])
    names = pd.to_numeric(scores["path"].astype(str).str.replace(r".*[/\\]|\.[^.]*$", "", regex=True), errors="coerce")
    scores = scores[["path", "score"]].assign(img_id=names)  # the window of a ranker without one is empty
    by_image = scores.dropna().drop_duplicates("img_id").set_index("img_id")["score"]
    images = images.assign(picture=images["img_id"].map(by_image))
    if (known := int(images["picture"].notna().sum())) < FEWEST:
        raise UserError(f"--scores {path} has scores for {known} images of the data set; at least {FEWEST} are needed")
    return images


# --- pairs ----------------------------------------------------------------------------------------------------------
def sets_of_pairs(images: pd.DataFrame, published: pd.DataFrame | None, seed: int) -> list[PairSet]:
    """The sets of pairs to evaluate on: the published ones or, without them, pairs within and across communities."""
    v_score, rows = images["v_score"].to_numpy(np.float64), pd.Index(images["img_id"])
    found = []
    if published is not None:
        pairs = np.column_stack([rows.get_indexer(published[f"img_id_{side}"]) for side in ("viral", "other")])
        known, top = (pairs >= 0).all(axis=1), published["top"].to_numpy()
        found += [PairSet("489", "489 test pairs", v_score, pairs[known & top]),
                  PairSet("5039", "5,039 pairs", v_score, pairs[known])]  # fmt: skip
    high, low = (np.flatnonzero(mask) for mask in pair_sets(v_score, "1"))
    ends = np.stack(np.meshgrid(high, low), axis=-1).reshape(-1, 2)
    found += [PairSet("mode_1", f"{len(high)} most × {len(low)} least", v_score, ends),
              PairSet("all", "all pairs", v_score)]  # fmt: skip
    if published is None:
        votes = images["votes"].to_numpy(np.float64)
        found += [PairSet("within", "in a community", v_score, rule="within"),
                  PairSet("across", "across communities", v_score, rule="across"),
                  PairSet("votes_across", "across, by votes", votes, rule="across")]  # fmt: skip
    community = images["community"].cat.codes.to_numpy()
    controlled = controlled_pairs(v_score, community, images["time"].to_numpy(), seed)
    return [*found, PairSet("controlled", "controlled pairs", v_score, controlled)]


def rankings(images: pd.DataFrame, pair_sets_: list[PairSet], seed: int) -> dict[str, Share]:
    """`<method>_<set>` → the share of pairs that it ranks correctly."""
    methods = [name for name in METHODS if name in images or name not in ("title", "picture")]
    found = {f"{method}_{each.key}": rank_and_count(images, method, each, seed)
             for each in pair_sets_ for method in methods}  # fmt: skip
    return {name: share for name, share in found.items() if share}


def published_figures(folder: Path) -> dict[str, Share]:
    """The figures of Deza & Parikh 2015 for the 489 pairs, and the attributes' vote recomputed."""
    figures = {"published_people_489": deza2015.HUMANS, "published_attributes_489": deza2015.ATTRIBUTES}
    found = {name: {"value": value, "low": None, "high": None, "n": 489} for name, value in figures.items()}
    if (folder / "attributes").is_dir():
        share, n = deza2015.attribute_vote(folder)
        low, high = wilson_interval(round(share * n), n)
        found["attributes_489"] = {"value": share, "low": low, "high": high, "n": n}
    return found


def context_on_pairs(
    data_path: str | Path, img_ids: np.ndarray, pairs: np.ndarray, targets: np.ndarray | None = None
) -> dict[str, Share]:
    """The accuracy of clock, community and both on a ranker's test pairs, without its pictures.

    `img_ids` (n,) are the test images and `pairs` (m, 2) positions in them (a sample of MOST_PAIRS if there are more).
    Returns clock, community and context (both), each {"value", "low", "high", "n"}: the share, 0 to 1, of pairs ordered
    as in `targets` (m,), by default as by V. Learned predictors are trained on images not in `img_ids`, and are
    missing if these are too few. Empty if the data set has no virality scores or no posts with times.
    """
    if not (deza2015.is_folder(data_path) or (Path(data_path) / "datasets" / "data_set_iv.csv").is_file()):
        return {}
    table = read_label(data_path)
    posts = read_posts(data_path, table)
    if posts is None:
        return {}
    images = describe_images(table, posts)
    rows = pd.Index(images["img_id"]).get_indexer(np.asarray(img_ids))
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    if ordered := targets is not None:  # the more viral image first
        pairs = np.where(np.asarray(targets)[:, None] < 0.5, pairs[:, ::-1], pairs)[np.asarray(targets) != 0.5]
    if len(pairs) > MOST_PAIRS:
        pairs = np.random.default_rng(0).choice(pairs, MOST_PAIRS, replace=False)
    pairs = rows[pairs]
    pairs = pairs[(pairs >= 0).all(axis=1)]
    v_score = images["v_score"].to_numpy(np.float64)
    test = images["unit"].isin(images["unit"].iloc[rows[rows >= 0]]).to_numpy()
    found = {"clock": pair_share(-images["time"].to_numpy(np.float64), v_score, pairs, ordered)}
    if (~test).sum() >= FEWEST:
        for method in ("community", "context"):
            scores = np.zeros(len(images))
            scores[test] = learned_from_others(images, method, v_score, test)
            found[method] = pair_share(scores, v_score, pairs, ordered)
    return found


# --- everything -----------------------------------------------------------------------------------------------------
def explain(data_path: str | Path, scores: str | Path | None = None, seed: int = 0) -> dict[str, Any]:
    """The content of context.json for a data set or Deza & Parikh's folder. Raises UserError if no times are known."""
    data_path = Path(data_path)
    table = read_label(data_path)
    posts = read_posts(data_path, table)
    if posts is None:
        raise UserError(f"--data_path {data_path} has no submissions with times: "
                        "redditSubmissions.csv.gz, submissions.csv[.gz] or Deza & Parikh's lists")  # fmt: skip
    images = describe_images(table, posts)
    if len(images) < FEWEST:
        raise UserError(
            f"--data_path {data_path}: {len(images)} images have a post that counts; at least {FEWEST} are needed"
        )
    if scores:
        images = with_scores(images, scores)
    folder = next((path for path in (data_path, data_path / "deza2015") if deza2015.is_folder(path)), None)
    pair_sets_ = sets_of_pairs(images, deza2015.read_pairs(folder) if folder else None, seed)
    found = rankings(images, pair_sets_, seed) | (published_figures(folder) if folder else {})
    n = len(pair_sets_[-1].pairs)
    found["controlled_pairs"] = {"value": n, "low": n, "high": n, "n": n}
    counting = posts[posts["counts"] & posts["img_id"].isin(images["img_id"])]
    found |= label_noise(counting, seed)
    by_image = images.set_index("img_id")
    if scores:
        counting = counting.assign(picture=counting["img_id"].map(by_image["picture"]))
    unit = pd.factorize(counting["img_id"].map(by_image["unit"]))[0]
    r2 = explained_variance(counting, unit, int(posts["score"].min()), seed)
    found["r2"] = {name: share["value"] for name, share in r2.items()}
    found["r2_intervals"] = r2
    found["assumptions"] = {name: text for name, text in ASSUMPTIONS.items() if name in found}
    found["sets"] = {each.key: each.title for each in pair_sets_}
    found["methods"] = METHODS | PUBLISHED
    if "hour" not in images:
        found["methods"] |= {"hour": "community and hour of the first post"}
    about = {"posts": len(posts), "posts_that_count": len(counting), "images": len(images), "seed": seed}
    return found | {"about": {"data_path": str(data_path), **posts.attrs, **about, "scores": scores and str(scores)}}


# --- what is printed and drawn --------------------------------------------------------------------------------------
def print_tables(found: dict[str, Any]) -> None:
    about = found["about"]
    print(f"{about['images']} images, {about['posts_that_count']} posts that count ({about['source']}; "
          f"{about['dropped']} are of other images or lack a field)")  # fmt: skip
    print("\nPairs ranked correctly by each, % (95 % interval over images):")
    table = as_table(found)
    table["text"] = [_percent(row) for row in table.to_dict("records")]
    wide = table.pivot(index="method", columns="title", values="text").fillna("")
    wide = wide.loc[table["method"].unique(), table["title"].unique()]
    _print_aligned([["", *wide.columns], *([name, *row] for name, *row in wide.itertuples(name=None))])
    print("\nExplained variance of the submissions' log score, cross-validated R² (95 % interval over images):")
    line = "{value:z.3f}|({low:z.3f} to {high:z.3f})|n = {n}"
    _print_aligned([[CAUSES[name], *line.format(**share).split("|")] for name, share in found["r2_intervals"].items()])
    if "ceiling" in found:
        print("\nLuck, % of all pairs (95 % interval over images):")
        _print_aligned([
            ["two random halves of each image's submissions agree on", _percent(found["split_half_agreement"])],
            ["a perfect ranker, at most", _percent(found["ceiling"])],
            ["a perfect ranker, if submissions come by chance (Poisson)", _percent(found["ceiling_of_chance_counts"])],
        ])  # fmt: skip
        print(f"  of {found['split_half_agreement']['n']} images. Assumed: {ASSUMPTIONS['ceiling']}.")


def _percent(share: dict[str, Any]) -> str:
    value = f"{100 * share['value']:.1f}"
    return value if pd.isna(share["low"]) else f"{value} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def _print_aligned(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", required=True, metavar="FOLDER", help="a data set with submissions, or the folder deza2015")
    flag("--output", required=True, metavar="FILE.json", help="output file; the chart is written next to it, as .png")
    flag("--scores", metavar="FILE",
         help="path,score from a ranker not trained on these pictures (CSV, JSON lines, Parquet)")  # fmt: skip
    flag("--seed", type=int, default=0, help="random seed of folds, halves and controlled pairs (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    chart = next_to(args.output, ".png")
    check_outputs({"--output": args.output, "the chart": chart}, [args.scores] if args.scores else [])
    print_configuration(args, "context")
    found = explain(args.data_path, args.scores, args.seed)
    print_tables(found)
    import visualisation  # matplotlib takes a second to start

    figure = visualisation.context_chart(as_table(found), found.get("ceiling", {}).get("value"))
    visualisation.save(figure, chart)
    write_json(args.output, found)
    print(f"\nwritten: {args.output}, {chart}")


if __name__ == "__main__":
    run_main(main)

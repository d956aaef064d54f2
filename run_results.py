"""The outputs of a finished training: metrics, tables of the test pictures, charts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import calibration
import data_set
import deza2015
import metrics
import training
import visualisation
from context import context_on_pairs
from decoding.decoder import UnusablePicture, decode
from pictures.left_out import summary
from training_data import ClassificationData, RankingData, mode_pairs, read_survivors
from utils import rank, write_csv, write_json, write_text

WATCHED = 6  # validation pictures whose windows are kept at every epoch
SHOWN = 12  # mistakes drawn, of the most and of the least certain


# --- the ranker -----------------------------------------------------------------------------------------------------
def look_metrics(
    windows: np.ndarray | None, data: RankingData, rows: np.ndarray, pairs: metrics.Pairs
) -> dict[str, float]:
    """If there is a truth.csv: the noise ceiling, and how well the windows find the cue, compared with the centre."""
    found = {} if windows is None else {"mean_scale": float(np.mean(windows[:, 2:] / data.pictures.sizes[rows]))}
    if data.truth is None or data.truth.iloc[rows]["latent"].isna().any():
        return found
    truth = data.truth.iloc[rows]
    found["noise_ceiling"] = metrics.pair_accuracy(truth["latent"].to_numpy(), data.v_score[rows], pairs)
    cues = truth[["x", "y", "w", "h"]].to_numpy(np.float64)
    there = np.isfinite(cues).all(axis=1)  # a picture without a cue has an empty box
    if windows is not None and there.any():
        windows, cues = windows[there], cues[there]
        centre = np.hstack([np.zeros((len(cues), 2)), data.pictures.sizes[rows[there]]])
        for name, boxes in (("pointing_accuracy", windows), ("pointing_accuracy_of_the_centre", centre)):
            found[name] = metrics.pointing_accuracy(boxes, cues)
            low, high = metrics.wilson_interval(round(found[name] * len(cues)), len(cues))
            found |= {f"{name}_low": low, f"{name}_high": high}
        found["pictures_with_a_cue"] = len(cues)
        found["mean_overlap"] = float(metrics.overlap(windows, cues).mean())
    return found


def figures_of_ranker(
    scores: np.ndarray,
    windows: np.ndarray | None,
    data: RankingData,
    data_path: str | Path,
    pair_mode: str,
    temperature: float,
) -> dict[str, Any]:
    """The content of results.json for the test pictures' scores (n,) and windows."""
    rows = data.rows["test"]
    v_score, faults = data.v_score[rows], data.pictures.faults
    pairs = mode_pairs(v_score, pair_mode, data.pairs["test"])
    return {
        "n": {name: len(part) for name, part in data.rows.items()},
        "test": metrics.ranking_metrics(scores, v_score, pairs) | look_metrics(windows, data, rows, pairs),
        "calibration": calibration.calibration_metrics(scores, v_score, pairs, temperature),
        "context": context_on_pairs(data_path, data.pictures.img_ids[rows], *metrics.write_out(v_score, pairs)[:2]),
        "pictures_left_out": len(faults),
        "left_out": faults["fault"].value_counts().to_dict(),
        "survivors": read_survivors(data_path),
    }


def write_test_scores(
    folder: Path, data: RankingData, data_path: str | Path, scores: np.ndarray, windows: np.ndarray | None
) -> pd.DataFrame:
    """Write test_scores.csv, which is returned, and test_pictures.txt: the paths of the test pictures."""
    rows = data.rows["test"]
    table = pd.DataFrame({"img_id": data.pictures.img_ids[rows], "v_score": data.v_score[rows], "score": scores})
    if windows is not None:
        table[["x", "y", "w", "h"]] = windows.round(2)
    write_csv(folder / "test_scores.csv", table)
    paths = [str(data_set.picture_path(data_path, img_id)) for img_id in table["img_id"]]
    write_text(folder / "test_pictures.txt", "\n".join(paths) + "\n")
    return table


def print_ranker(results: dict[str, Any], folder: Path) -> None:
    test = results["test"]
    print(
        f"test pair accuracy {test['pair_accuracy']:.4f} (95 % {test['pair_accuracy_low']:.4f} to "
        f"{test['pair_accuracy_high']:.4f}) on {test['pairs']} pairs of {test['images']} pictures, "
        f"Kendall's τ {test['kendall_tau']:.3f}, Spearman's ρ {test['spearman_rho']:.3f}"
    )
    if context := results.get("context"):
        names = {"clock": "clock (older first)", "community": "community", "context": "both"}
        found = [f"{names[name]} {each['value']:.4f} ({each['low']:.4f} to {each['high']:.4f})"
                 for name, each in context.items()]  # fmt: skip
        print(f"without looking at any picture, on the same pairs: {', '.join(found)}")
    if known := results.get("calibration"):
        error = f"{known['ece']:.3f} ({known['ece_low']:.3f} to {known['ece_high']:.3f})"
        print(f"its probabilities (temperature {known['temperature']:.3g}): calibration error {error}")
    if "noise_ceiling" in test:
        print(f"noise ceiling {test['noise_ceiling']:.4f}")
    if results["configuration"]["pair_mode"] == "deza":
        share, n = deza2015.attribute_vote(Path(results["configuration"]["data_path"]) / "deza2015")
        print(f"published: chance {deza2015.CHANCE:.2%}, people {deza2015.HUMANS:.2%}, attributes {share:.2%} of {n}")
    if "pointing_accuracy" in test:
        print(
            f"the window's centre lies on the cue in {test['pointing_accuracy']:.0%} of the pictures "
            f"(the picture's centre: {test['pointing_accuracy_of_the_centre']:.0%})"
        )
    training.print_folder(folder)
    print(summary(results.get("left_out", {})))


def draw_ranker(
    folder: Path,
    data: RankingData,
    state: dict[str, Any],
    table: pd.DataFrame,
    windows: np.ndarray | None,
    data_path: str | Path,
    pair_mode: str,
) -> None:
    """Draw learning curves, scores against virality, the ranked strip, pairs and, if there are any, windows."""

    def pictures(img_ids) -> list:
        return [decode(data_set.picture_path(data_path, i)) for i in img_ids]

    def save(figure, name: str) -> None:
        visualisation.save_with_data(figure, folder / name)

    history = pd.DataFrame(state["history"]).drop(columns=["seconds", "images_per_second"])
    save(visualisation.learning_curves(history, "siamese ranker", best_epoch=state["best_epoch"]), "curves.png")
    figure = visualisation.score_against_virality(
        table["score"].to_numpy(), table["v_score"].to_numpy(), "test pictures"
    )
    save(figure, "score_against_virality.png")
    strip = table.loc[evenly(table["score"].sort_values().index.to_numpy(), 16)]
    strip_windows = None if windows is None else windows[strip.index]
    figure = visualisation.ranked_strip(
        pictures(strip["img_id"]), strip["score"].to_numpy(), strip_windows, title="test pictures by their score"
    )
    save(figure, "ranked_strip.png")
    shown = data.pairs["test"]
    if shown is None:
        drawn = data_set.draw_pairs(table["v_score"].to_numpy(), pair_mode, 0)
        shown = metrics.PairList(drawn, data_set.targets_of(table["v_score"].to_numpy(), drawn))
    some = np.random.default_rng(0).permutation(len(shown.places))[:8]
    first, second = (table.iloc[side] for side in shown.places[some].T)
    targets = shown.targets[some]
    figure = visualisation.pairs(
        *(pictures(side["img_id"]) for side in (first, second)),
        *(side["score"].to_numpy() for side in (first, second)),
        targets,
        title="test pairs",
    )
    save(figure, "pairs.png")
    if windows is None:
        return
    some = evenly(table.index.to_numpy(), 12)
    truth = None if data.truth is None else data.truth.loc[table["img_id"].iloc[some], ["x", "y", "w", "h"]].to_numpy()
    figure = visualisation.windows_on_pictures(
        pictures(table["img_id"].iloc[some]), windows[some], truth=truth, title="where the ranker looks (test pictures)"
    )
    save(figure, "windows.png")
    epochs = [row["epoch"] for row in state["history"]]
    figure = visualisation.windows_over_epochs(
        pictures(data.pictures.img_ids[watched(data)]),
        epochs,
        np.array(state["watched"]),
        title="how the windows moved (validation pictures)",
    )
    save(figure, "windows_over_epochs.png")


def evenly(rows: np.ndarray, n: int) -> np.ndarray:
    """About n of the rows, evenly from the first (least viral) to the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))]


def watched(data: RankingData) -> np.ndarray:
    """The rows of the validation pictures whose windows are recorded at every epoch."""
    return evenly(data.rows["validation"], WATCHED)


# --- the classifier -------------------------------------------------------------------------------------------------
def report_classifier(
    probabilities: np.ndarray,
    data: ClassificationData,
    config: dict[str, Any],
    folder: Path,
    data_path: str | Path,
    extra: dict[str, Any],
    history: list[dict],
) -> dict[str, Any]:
    """Write the results of the test pictures' `probabilities` (n, classes): results.json with `extra`, tables, figures.

    `history` is the content of metrics.csv, empty for models that are not trained in epochs.
    """
    rows = data.rows["test"]
    labels = data.labels[rows]
    results = {
        "configuration": config,
        "classes": data.classes,
        "n": {name: len(part) for name, part in data.rows.items()},
        "test": metrics.classification_metrics(labels, probabilities.argmax(1), len(data.classes)),
        "pictures_left_out": len(data.pictures.faults),
        "left_out": data.pictures.faults["fault"].value_counts().to_dict(),
        "survivors": read_survivors(data_path),
        **extra,
    }
    table = prediction_table(data.pictures.img_ids[rows], labels, probabilities, data.classes)
    write_csv(folder / "test_predictions.csv", table)
    paths = [str(data_set.picture_path(data_path, img_id)) for img_id in table["img_id"]]
    write_text(folder / "test_pictures.txt", "\n".join(paths) + "\n")
    if rank() == 0:
        draw_classifier(folder, history, table, data.classes, extra.get("best_epoch"), data_path)
    write_json(folder / "results.json", results)  # at last: it says that the run is through
    print_classifier(results, folder)
    return results


def prediction_table(
    img_ids: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    """One row per picture: img_id, true label, predicted label, its probability, and p_<class> of every class."""
    predicted = probabilities.argmax(1)
    table = pd.DataFrame({"img_id": img_ids, "label": labels, "predicted": predicted})
    table["probability"] = probabilities.max(1).round(6)
    return table.assign(**{f"p_{name}": column.round(6) for name, column in zip(classes, probabilities.T, strict=True)})


def print_classifier(results: dict[str, Any], folder: Path) -> None:
    test = results["test"]
    figures = [
        f"{name.replace('_', ' ').replace('f1', 'F1')} {test[name]:.4f} "
        f"(95 % {test[f'{name}_low']:.4f} to {test[f'{name}_high']:.4f})"
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    print(f"test {', '.join(figures)} on {results['n']['test']} pictures; chance {1 / len(results['classes']):.4f}")
    training.print_folder(folder)
    print(summary(results.get("left_out", {})))


def draw_classifier(
    folder: Path,
    history: list[dict],
    table: pd.DataFrame,
    classes: list[str],
    best_epoch: int | None,
    data_path: str | Path,
) -> None:
    """curves.png, confusion.png and .csv, mistakes.png."""
    if history:
        curves = pd.DataFrame(history).drop(columns=["seconds", "images_per_second"])
        figure = visualisation.learning_curves(curves, "subreddit classifier", best_epoch=best_epoch)
        visualisation.save_with_data(figure, folder / "curves.png")
    matrix = metrics.confusion(table["label"].to_numpy(), table["predicted"].to_numpy(), len(classes))
    visualisation.save_with_data(
        visualisation.confusion_matrix(matrix, classes, "test pictures"), folder / "confusion.png"
    )
    wrong = table[table["label"] != table["predicted"]].sort_values("probability", ascending=False, kind="stable")
    for suffix in (".png", ".svg", ".csv"):  # of an earlier run
        (folder / "mistakes").with_suffix(suffix).unlink(missing_ok=True)
    if wrong.empty:
        return
    most = wrong.head(min(SHOWN, -(-len(wrong) // 2)))
    least = wrong.iloc[len(most) :].tail(SHOWN)
    shown = pd.concat([most, least])
    pictures = [picture_or_none(data_path, img_id) for img_id in shown["img_id"]]
    there = [picture is not None for picture in pictures]  # a training on features has read no picture
    if not any(there):
        return
    shown, pictures = shown[there], list(itertools.compress(pictures, there))
    captions = [
        f"{classes[row.label]}\nseen as {classes[row.predicted]}\n{row.probability:.0%} certain"
        for row in shown.itertuples()
    ]
    title = f"{len(wrong)} of {len(table)} test pictures wrong"
    if len(least):
        title += f": the {sum(there[: len(most)])} most, then {sum(there[len(most) :])} least certain"
    visualisation.save_with_data(visualisation.picture_grid(pictures, captions, title), folder / "mistakes.png")


def picture_or_none(data_path: str | Path, img_id: int) -> Image.Image | None:
    """A data set's picture; None if it does not exist or cannot be read."""
    try:
        return decode(data_set.picture_path(data_path, img_id))
    except UnusablePicture:
        return None

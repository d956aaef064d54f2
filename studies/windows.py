"""Does a ranker look where it matters? Deletion and pointing tests of its windows, against maps, boxes and chance.

    python -m studies.windows --check_point RUN/best.pt --data_path data/sample --type_0 RUN0/best.pt

Uses a run's test pictures; a minute or two for a hundred of them on one core. Deletion: the window is covered with the
picture's mean colour, and so is a window of the same size elsewhere, at random or in the centre; how much does the
score change? This needs no boxes. A ranker that scores only its window changes most there by construction, so a ranker
of whole pictures (--type_0, of the same split) is also used as a judge, and untrained weights are tested for
comparison. Pointing, if datasets/truth.csv has boxes: in how many pictures does the window's centre lie on the box, and
in how many the maximum of class activation and occlusion maps of --type_0? With several --check_point: how many of them
succeed? Writes windows.json and charts into --output, and deletion.json beside each checkpoint: its report shows it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

import data_set
import metrics
import siamese_net
import visualisation
from backbones import before_pooling, geometry
from decoding.decoder import decode
from device import seed_everything, select_device
from siamese_net import SiameseNet, boxes, from_checkpoint
from training_data import load_ranking
from transforms import to_device, whole
from utils import UserError, at_least, print_configuration, run_folder, run_main, write_json

SUCCEEDS = 0.90  # share of the pictures in which the centre lies on the box
RANDOM = 8  # places a picture at which a window of the same size is covered
PATCH, STEPS = 0.2, 9  # occlusion: side of the patch, in the picture's, and places along it (Zeiler & Fergus 2014)
RESAMPLES = 2000  # of the pictures, for intervals
SHOWN = 12  # pictures drawn

Figures = dict[str, float]  # value, low, high (95 %), n


class Ranker(NamedTuple):
    """A ranker and test pictures as it takes them: kept pictures (n, 3, s, s), uint8."""

    model: SiameseNet
    pictures: Tensor

    def scores(self, pictures: Tensor) -> np.ndarray:
        """Scores (n,), float64, of kept pictures; in fp32."""
        return np.concatenate([self._rank(part)[0].double().cpu().numpy() for part in pictures.split(64)])

    def windows(self) -> np.ndarray:
        """Windows (n, 4): x, y, w, h in shares of the picture's width and height."""
        found = [self._rank(part)[1] for part in self.pictures.split(64)]
        return torch.cat([boxes(each, torch.ones(len(each), 2)) for each in found]).numpy()

    def _rank(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.model.rank(to_device(pictures, next(self.model.parameters()).device))


# --- deletion -------------------------------------------------------------------------------------------------------
def cover(pictures: Tensor, where: np.ndarray) -> Tensor:
    """Kept pictures (n, 3, s, s), uint8, each with its box (n, 4: x, y, w, h, in shares) in its mean colour."""
    side = pictures.shape[-1]
    places = (torch.arange(side) + 0.5) / side
    x, y, w, h = torch.from_numpy(where).float()[:, :, None].unbind(1)
    across, down = (places >= x) & (places < x + w), (places >= y) & (places < y + h)
    mean = pictures.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    return torch.where((down[:, :, None] & across[:, None])[:, None], mean, pictures)


def deletion(judge: Ranker, windows: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """How much the judge's scores change when windows (n, 4, in shares) are covered, or others of the same size.

    In standard deviations of the scores, averaged over the pictures: `window`, `random` and `centre` are the absolute
    changes, and `means` has their intervals; `over_random` and `over_centre` their ratios, `less_random` and
    `less_centre` the paired differences. `lowered` has the same for the decrease of the score, over the half of the
    pictures that score highest.
    """
    rng, before = np.random.default_rng(seed), judge.scores(judge.pictures)
    size, n = windows[:, 2:], len(windows)
    at_random = [np.hstack([rng.uniform(size=(n, 2)) * (1 - size).clip(0), size]) for _ in range(RANDOM)]
    in_the_middle = np.hstack([(1 - size) / 2, size])
    fall = lambda where: (before - judge.scores(cover(judge.pictures, where))) / before.std()  # noqa: E731
    falls = {
        "window": fall(windows)[None],
        "random": np.stack([*map(fall, at_random)]),
        "centre": fall(in_the_middle)[None],
    }
    high = before >= np.median(before)
    changed = compared({name: np.abs(each).mean(0) for name, each in falls.items()}, seed)
    return changed | {"lowered": compared({name: each.mean(0)[high] for name, each in falls.items()}, seed)}


def compared(changes: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Of changes (n,) by name: the means, and the window's against the others'."""
    found: dict[str, Any] = {name: float(each.mean()) for name, each in changes.items()}
    mean = lambda each, axis=-1: each.mean(axis)  # noqa: E731
    found["means"] = {name: resampled(mean, each, seed=seed) for name, each in changes.items()}
    for other in ("random", "centre"):
        both = changes["window"], changes[other]
        found[f"over_{other}"] = resampled(lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), *both, seed=seed)
        found[f"less_{other}"] = resampled(lambda a, b, axis=-1: (a - b).mean(axis), *both, seed=seed)
    return found


def resampled(statistic: Callable, *samples: np.ndarray, seed: int = 0) -> Figures:
    """A statistic of paired samples (n,), with its 95 % percentile interval over resampled pictures (Efron)."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):  # 0 over 0: NaN
        found = stats.bootstrap(
            samples, statistic, n_resamples=RESAMPLES, paired=True, vectorized=True, method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        value = float(statistic(*samples))
    return {"value": value, "low": float(found.low), "high": float(found.high), "n": len(samples[0])}


# --- maps of a ranker of whole pictures -----------------------------------------------------------------------------
def activation_map(ranker: Ranker, by_place: bool) -> np.ndarray:
    """Evidence (n, h, w), either way, at each place of the last feature map (before a pooling at its end).

    Activation times gradient, summed over the channels: with the gradient's mean over the places as in Grad-CAM
    (Selvaraju et al. 2017), or `by_place` as in HiResCAM (Draelos & Carin 2020). Without Grad-CAM's ReLU: a ranker has
    no class, and what makes a picture less viral counts too.
    """
    layer, device, found = last_map(ranker.model), next(ranker.model.parameters()).device, []
    for part in ranker.pictures.split(64):
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, made, kept=kept: kept.append(made))
        with torch.enable_grad():
            score = ranker.model.eval().score(whole(to_device(part, device)))[0]
            (gradient,) = torch.autograd.grad(score.sum(), kept[0])
        handle.remove()
        gradient = gradient if by_place else gradient.mean((2, 3), keepdim=True)
        found.append((kept[0] * gradient).sum(1).abs().detach().cpu())
    return torch.cat(found).numpy()


def last_map(model: SiameseNet) -> nn.Module:
    """The layer that makes the last feature map; a pooling at its end (AlexNet, VGG) is left out, as LocNet does."""
    features = model.ranknet.extractor[0]
    cut = before_pooling(features)
    return features if cut is features else cut[-1]


def activation_points(ranker: Ranker, by_place: bool) -> np.ndarray:
    """The maximum (n, 2: x, y in shares of the picture) of the activation maps."""
    values = activation_map(ranker, by_place)
    cells = geometry(before_pooling(ranker.model.ranknet.extractor[0]))
    rows, columns = np.unravel_index(values.reshape(len(values), -1).argmax(1), values.shape[1:])
    return (cells.first + cells.stride * np.stack([columns, rows], axis=1)) / ranker.pictures.shape[-1]


def occlusion_points(ranker: Ranker) -> np.ndarray:
    """Where (n, 2: x, y in shares) a patch of the picture's mean colour changes the score most."""
    places = np.linspace(0, 1 - PATCH, STEPS)
    corners = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    before, n = ranker.scores(ranker.pictures), len(ranker.pictures)
    patches = (np.tile([*corner, PATCH, PATCH], (n, 1)) for corner in corners)
    changes = [np.abs(ranker.scores(cover(ranker.pictures, each)) - before) for each in patches]
    return corners[np.stack(changes).argmax(0)] + PATCH / 2


MAPS: dict[str, Callable[[Ranker], np.ndarray]] = {
    "Grad-CAM": lambda ranker: activation_points(ranker, by_place=False),
    "HiResCAM": lambda ranker: activation_points(ranker, by_place=True),
    "occlusion": occlusion_points,
}


# --- pointing -------------------------------------------------------------------------------------------------------
def on_box(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether points (n, 2) lie on boxes (n, 4), as 0 or 1."""
    return ((points >= truth[:, :2]) & (points <= truth[:, :2] + truth[:, 2:])).all(axis=1).astype(float)


def pointing(points: dict[str, np.ndarray], truth: np.ndarray, seed: int = 0) -> dict[str, dict[str, Figures]]:
    """The share of named points (n, 2), the windows' centres first, on the boxes (n, 4; NaN without a box).

    `share` of each, and `window_less`: the window's share minus each other one, over the same pictures.
    """
    there = np.isfinite(truth).all(axis=1)
    hits = {name: on_box(each[there], truth[there]) for name, each in points.items()}
    window, n = next(iter(hits.values())), int(there.sum())
    intervals = {name: metrics.wilson_interval(int(each.sum()), n) for name, each in hits.items()}
    share = {name: {"value": float(each.mean()), "low": intervals[name][0], "high": intervals[name][1], "n": n}
             for name, each in hits.items()}  # fmt: skip
    less = {name: resampled(lambda a, b, axis=-1: (a - b).mean(axis), window, each, seed=seed)
            for name, each in list(hits.items())[1:]}  # fmt: skip
    return {"share": share, "window_less": less}


# --- a run ----------------------------------------------------------------------------------------------------------
class Run(NamedTuple):
    """A run's ranker, and of its test pictures the numbers, sizes (n, 2, in pixels) and boxes (n, 4, in shares)."""

    ranker: Ranker
    state: dict[str, Any]
    img_ids: np.ndarray
    sizes: np.ndarray
    truth: np.ndarray


def split_of_run(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state["config"].get(name, other) for name, other in
            (("pair_mode", "all"), ("split", None), ("seed", 0), ("fold", 0), ("folds", 1))}  # fmt: skip


def load_run(check_point: str, data_path: str, num_images: int, device: torch.device, num_workers: int) -> Run:
    """A checkpoint with its test pictures, or a random sample of `num_images` of them."""
    model, state = from_checkpoint(check_point)
    options = {"image_size": state["config"]["image_size"], "num_workers": num_workers}
    data = load_ranking(data_path, **split_of_run(state), **options)
    rows = data.rows["test"]
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:num_images])
    sizes = data.pictures.sizes[rows].astype(np.float64)
    truth = np.full((len(rows), 4), np.nan)
    if data.truth is not None:
        truth = data.truth.iloc[rows][["x", "y", "w", "h"]].to_numpy(np.float64) / np.tile(sizes, 2)
    return Run(Ranker(model.to(device), data.pictures.batch(rows)), state, data.pictures.img_ids[rows], sizes, truth)


def untrained(run: Run) -> Ranker:
    """The same network with newly initialised weights, and a window of the same size."""
    seed_everything(0)
    model = siamese_net.untrained(run.state)
    model.set_progress(1.0)
    return Ranker(model.to(next(run.ranker.model.parameters()).device).eval(), run.ranker.pictures)


def study_run(run: Run, judge: Run | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All figures of a run, and the points (n, 2, in shares) that they are of."""
    windows, fresh = run.ranker.windows(), untrained(run)
    anyhow = fresh.windows()
    found = {"pictures": len(windows), "side": float(windows[:, 2:].mean()), "deletion": {
        "its window, by itself": deletion(run.ranker, windows),
        "untrained, by itself": deletion(fresh, anyhow),
    }}  # fmt: skip
    points = {"the window": windows[:, :2] + windows[:, 2:] / 2}
    points |= {"an untrained window": anyhow[:, :2] + anyhow[:, 2:] / 2, "the centre": np.full((len(windows), 2), 0.5)}
    if judge is not None:
        found["deletion"]["its window, by type 0"] = deletion(judge.ranker, windows)
        found["deletion"]["untrained window, by type 0"] = deletion(judge.ranker, anyhow)
        points |= {f"{name} of type 0": made(judge.ranker) for name, made in MAPS.items()}
        points["Grad-CAM, untrained"] = MAPS["Grad-CAM"](untrained(judge))
    if np.isfinite(run.truth).all(axis=1).sum() > 1:
        found["pointing"] = pointing(points, run.truth)
    return found, points


def for_report(deletion: dict[str, Any]) -> dict[str, Any]:
    """What the run's report draws of it (pages/evidence.py): as a ranker of whole pictures judges, if any."""
    judge = "its window, by type 0" if "its window, by type 0" in deletion else "its window, by itself"
    by = "a ranker of whole pictures" if judge.endswith("type 0") else "the ranker itself"
    return deletion[judge]["means"] | {"unit": f"in standard deviations of the scores of {by}"}


def over_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """How many runs' windows succeed, with a binomial 95 % interval (Wilson); empty without boxes."""
    shares = [run["pointing"]["share"]["the window"]["value"] for run in runs if "pointing" in run]
    if not shares:
        return {}
    succeed = sum(share >= SUCCEEDS for share in shares)
    low, high = metrics.wilson_interval(succeed, len(shares))
    return {"at_least": SUCCEEDS, "succeed": succeed, "value": succeed / len(shares), "low": low, "high": high,
            "n": len(shares), "pointing": shares}  # fmt: skip


# --- what is printed and drawn --------------------------------------------------------------------------------------
def figures_table(runs: list[dict[str, Any]], kind: str) -> pd.DataFrame:
    """run, name, value, low, high, n: of kind pointing the shares, of kind deletion the ratios to random windows."""
    rows = []
    for run in runs:
        own = run.get("pointing", {}).get("share", {})
        if kind == "deletion":
            own = {name: each["over_random"] for name, each in run["deletion"].items()}
        rows += [{"run": run["check_point"], "name": name, **each} for name, each in own.items()]
    return pd.DataFrame(rows, columns=["run", "name", "value", "low", "high", "n"])


def _text(figure: Figures) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def print_run(run: dict[str, Any]) -> None:
    print(f"\n{run['check_point']}: {run['pictures']} test pictures, side of the window {run['side']:.2f}")
    print("Deletion: change of the score when covered, in its standard deviations (95 % interval over pictures)")
    rows = [
        {"": name, "window": f"{each['window']:.3f}", "random": f"{each['random']:.3f}",
         "centre": f"{each['centre']:.3f}", "window / random": _text(each["over_random"]),
         "window − random": _text(each["less_random"]), "window / centre": _text(each["over_centre"])}
        for name, one in run["deletion"].items()
        for name, each in ((name, one), ("  how far the upper half falls", one["lowered"]))
    ]  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))
    if "pointing" not in run:
        print("Pointing: the data set has no boxes (datasets/truth.csv)")
        return
    share, less = run["pointing"]["share"], run["pointing"]["window_less"]
    n = next(iter(share.values()))["n"]
    print(f"Pointing: share of the {n} pictures with a box whose point lies on it (95 % interval)")
    rows = [{"": name, "on the box": _text(each), "the window's less it": _text(less[name]) if name in less else ""}
            for name, each in share.items()]  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))


def draw(output: Path, runs: list[dict[str, Any]], first: Run, points: dict[str, np.ndarray], data_path: str) -> None:
    """The charts of both kinds, and some of the first run's pictures with its window and the maps' points."""
    for kind, title, xlabel, baseline, name in (
        ("pointing", "where they point", "share of the pictures whose point lies on the box", SUCCEEDS, "succeeds"),
        (
            "deletion",
            "what covering the window changes",
            "change of the score, over that of a random window",
            1.0,
            "the same",
        ),
    ):
        table = figures_table(runs, kind)
        if len(runs) > 1:
            table = table.assign(name=table["name"] + ": " + table["run"].map(lambda path: Path(path).parent.name))
        if len(table):
            chart = visualisation.interval_chart(table, baseline, xlabel, title, name)
            visualisation.save_with_data(chart, output / f"{kind}.png")
    some = np.unique(np.linspace(0, len(first.img_ids) - 1, SHOWN).round().astype(int))
    scale, windows = np.tile(first.sizes[some], 2), first.ranker.windows()[some]
    marked = {name: each[some] * first.sizes[some] for name, each in points.items() if name.endswith("of type 0")}
    truth = None if np.isnan(first.truth).all() else first.truth[some] * scale
    sheet = visualisation.windows_on_pictures(
        [decode(data_set.picture_path(data_path, img_id)) for img_id in first.img_ids[some]], windows * scale,
        truth=truth, title="where the ranker looks (test pictures)", points=marked,
    )  # fmt: skip
    visualisation.save_with_data(sheet, output / "windows.png")


# --- the command ----------------------------------------------------------------------------------------------------
def load_judge(type_0: str, runs: list[Run], *options: Any) -> Run:
    """The ranker of whole pictures. Raises UserError if it is not one, or no run has the same split."""
    judge = load_run(type_0, *options)
    if judge.ranker.model.model_type != 0:
        raise UserError(
            f"--type_0 {type_0} is of type {judge.ranker.model.model_type}: it does not score whole pictures"
        )
    if not any(split_of_run(run.state) == split_of_run(judge.state) for run in runs):
        raise UserError(
            f"--type_0 {type_0} has another split (or seed) than --check_point: it was trained on test pictures"
        )
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--check_point", nargs="+", required=True, metavar="FILE", help="best.pt of runs with windows (type 1 or 2)")
    flag("--data_path", required=True, help="the data set that they were trained on")
    flag("--type_0", metavar="FILE", help="best.pt of a run on whole pictures, of the same split")
    flag("--output", default="outputs/windows", metavar="DIR")
    flag("--num_images", type=at_least(2), default=300, help="maximum number of test pictures (default %(default)s)")
    flag("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    flag("--num_workers", type=at_least(0), default=2, help="threads that decode pictures (default %(default)s)")
    args = parser.parse_args()
    print_configuration(args, "windows")
    options = args.data_path, args.num_images, select_device(args.device), args.num_workers
    runs = [load_run(path, *options) for path in args.check_point]
    for path, run in zip(args.check_point, runs, strict=True):
        if run.ranker.model.locnet is None:
            raise UserError(f"--check_point {path} is of type 0: it has no windows (pass it as --type_0)")
    judge = load_judge(args.type_0, runs, *options) if args.type_0 else None
    found, points = [], []
    for path, run in zip(args.check_point, runs, strict=True):
        same = judge is not None and split_of_run(judge.state) == split_of_run(run.state)
        figures, own = study_run(run, judge if same else None)
        found.append({"check_point": path, **figures})
        points.append(own)
        print_run(found[-1])
    if summary := over_runs(found):
        print(f"\n{summary['succeed']} of {summary['n']} runs have the window's centre on the box in at least "
              f"{SUCCEEDS:.0%} of the pictures: {_text(summary)}")  # fmt: skip
    for path, run in zip(args.check_point, found, strict=True):
        write_json(run_folder(path) / "deletion.json", for_report(run["deletion"]))
    output = Path(args.output)
    write_json(output / "windows.json", {"configuration": vars(args), "runs": found, "over_runs": summary})
    draw(output, found, runs[0], points[0], args.data_path)
    print(f"written: {output / 'windows.json'}, charts beside it")


if __name__ == "__main__":
    run_main(main)

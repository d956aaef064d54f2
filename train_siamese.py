"""Train the siamese ranker: which of two pictures is more viral, and where in it?

    python train_siamese.py --data_path data/sample --weights none --image_size 128 --save_dir outputs/siamese

On 600 pictures of 128 pixels a run takes some five minutes on two cores. Written into --save_dir: config.json,
environment.json, metrics.csv (a row an epoch), last.pt and best.pt (best on validation), results.json (the test split,
read once, by best.pt), test_scores.csv and pictures. `--check_point last` goes on where a killed run stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import data_set
import deza2015
import distributed
import losses
import metrics
import transforms
import visualisation
from data_set import PAIR_MODES, Pictures
from siamese_net import RANKERS, RECIPES, SiameseNet, boxes
from utils import (
    UserError,
    add_common_flags,
    at_least,
    autocast,
    finish_log,
    load_checkpoint,
    print_configuration,
    rank,
    read_csv,
    read_json,
    read_survivors,
    resume_point,
    rng_state,
    run_main,
    same_flags,
    save_checkpoint,
    seed_everything,
    select_device,
    set_rng_state,
    start_run,
    train_many,
    write_csv,
    write_json,
    write_text,
)

# What a recipe sets where no flag does. singh2016: section 4 of the paper.
RECIPE_DEFAULTS = {
    "modern": {"epochs": 30, "batch_size": 32, "learning_rate": 5e-4},
    "singh2016": {"epochs": 400, "batch_size": 25, "learning_rate": 1e-3},
}
WATCHED = 6  # validation pictures whose windows are kept at every epoch


# --- the model and its step -----------------------------------------------------------------------------------------
def build_optimiser(model: SiameseNet, args: argparse.Namespace) -> torch.optim.Optimizer:
    """SGD with LocNet at a tenth of the rate (Singh & Lee 2016, section 4), or AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if args.recipe == "modern":
        return torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.05, fused=True)
    slow = {id(p) for p in model.locnet.parameters()} if model.locnet else set()
    groups = [
        {"params": [p for p in trained if id(p) not in slow]},
        {"params": [p for p in trained if id(p) in slow], "lr": args.learning_rate / 10},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=args.learning_rate, momentum=0.9, weight_decay=5e-4, fused=True)


def build_scheduler(optimiser: torch.optim.Optimizer, args: argparse.Namespace, steps: int) -> Any:
    """Modern: a warm-up over the first 15 % of the steps and a cosine to nothing. singh2016: a constant rate."""
    if args.recipe == "modern":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, args.learning_rate, total_steps=steps, pct_start=0.15)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


def freeze(model: SiameseNet, args: argparse.Namespace) -> None:
    """Keep the convolutions of either network as they are: no gradient is computed for them."""
    if args.freeze_ranknet:
        model.ranknet.extractor[0].requires_grad_(False)
    if args.freeze_locnet:
        if model.locnet is None:
            raise UserError("--freeze_locnet: model type 0 has no LocNet")
        model.locnet.features.requires_grad_(False)


def draw_batches(
    v_score: np.ndarray, args: argparse.Namespace, epoch: int, published: np.ndarray | None = None
) -> list[tuple[np.ndarray, Tensor | None]]:
    """One epoch's batches: positions of pictures, and for pair modes the targets of first half against second half.

    `published` (m, 2) are the pairs of mode deza; the other modes draw their own.
    """
    if args.pair_mode == "all":
        order = torch.randperm(len(v_score)).numpy()
        return [(rows, None) for rows in np.array_split(order, max(1, round(len(order) / args.batch_size)))]
    pairs = published
    if pairs is None:
        pairs = data_set.draw_pairs(v_score, args.pair_mode, args.seed * 100_003 + epoch)
    pairs = pairs[torch.randperm(len(pairs)).numpy()]
    targets = torch.from_numpy(data_set.targets_of(v_score, pairs))
    parts = np.array_split(np.arange(len(pairs)), max(1, round(len(pairs) / args.batch_size)))
    return [(np.concatenate([pairs[part, 0], pairs[part, 1]]), targets[part]) for part in parts]


def ranking_loss(scores: Tensor, v_score: Tensor, targets: Tensor | None) -> Tensor:
    if targets is None:
        return losses.all_pairs_loss(scores, v_score)
    return losses.ranknet_loss(*scores.chunk(2), targets)


def train_one_epoch(
    model: SiameseNet,
    pictures: Pictures,
    rows: np.ndarray,
    v_score: np.ndarray,
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    args: argparse.Namespace,
    epoch: int,
    published: np.ndarray | None = None,
) -> dict[str, float]:
    """One pass over the training pictures `rows`; `v_score` is theirs. Returns train_loss and images_per_second."""
    model.train()
    model.set_progress(min(1.0, epoch / max(1, 0.6 * args.epochs)))
    device = next(model.parameters()).device
    start, seen, total = time.perf_counter(), 0, torch.zeros((), device=device)
    batches = draw_batches(v_score, args, epoch, published)
    score = distributed.spread(model.score, args.compile)
    for places, targets in tqdm(batches, f"epoch {epoch + 1}/{args.epochs}", leave=False, disable=None):
        batch = transforms.to_device(pictures.batch(rows[distributed.begin(places)]), device)
        batch = transforms.AUGMENTATIONS[args.augment](batch, args.image_size)
        value = transforms.to_device(torch.from_numpy(v_score[places]), device)
        targets = None if targets is None else transforms.to_device(targets, device)
        with autocast(device, args.amp):
            scores, _, glimpse = score(batch)
        loss = ranking_loss(distributed.gather(scores), value, targets)
        both = loss if glimpse is None else loss + ranking_loss(distributed.gather(glimpse), value, targets)
        optimiser.zero_grad(set_to_none=True)
        both.backward()
        if args.recipe == "modern":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        scheduler.step()
        total += loss.detach()
        seen += len(places)
    train_loss = total.item() / len(batches)
    if not np.isfinite(train_loss):
        raise UserError(f"the loss is {train_loss} in epoch {epoch + 1}: try a smaller --learning_rate")
    return {"train_loss": train_loss, "images_per_second": seen / (time.perf_counter() - start)}


def predict(
    model: SiameseNet, pictures: Pictures, rows: np.ndarray, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (n,) of pictures, each once, and their windows as boxes (n, 4: x, y, w, h in pixels; None for type 0)."""
    device = next(model.parameters()).device
    scores, windows, own = [], [], distributed.part(rows)
    for part in np.array_split(own, max(1, -(-len(own) // 64))):
        with autocast(device, args.amp):
            score, window = model.rank(transforms.to_device(pictures.batch(part), device))
        scores.append(score.cpu())
        if window is not None:
            windows.append(boxes(window, torch.from_numpy(pictures.sizes[part])))
    scores = distributed.gather(torch.cat(scores).double(), len(rows)).numpy()
    if not np.isfinite(scores).all():
        raise UserError("the network's scores are no numbers any more: try a smaller --learning_rate")
    return scores, distributed.gather(torch.cat(windows), len(rows)).numpy() if windows else None


def evaluate(
    model: SiameseNet,
    pictures: Pictures,
    rows: np.ndarray,
    v_score: np.ndarray,
    args: argparse.Namespace,
    published: np.ndarray | None = None,
) -> dict[str, float]:
    """Ranking metrics on the pictures `rows`, over the pairs of --pair_mode."""
    scores, _ = predict(model, pictures, rows, args)
    return metrics.ranking_metrics(scores, v_score, mode_pairs(v_score, args.pair_mode, published))


def mode_pairs(v_score: np.ndarray, pair_mode: str, published: np.ndarray | None = None) -> np.ndarray:
    """The pairs that a mode could draw from these images, n×n (see metrics.comparable); `published` in mode deza."""
    if published is None:
        return metrics.comparable(v_score, *data_set.pair_sets(v_score, pair_mode))
    pairs = np.zeros((len(v_score), len(v_score)), dtype=bool)
    pairs[published[:, 0], published[:, 1]] = pairs[published[:, 1], published[:, 0]] = True
    return pairs & metrics.comparable(v_score)


# --- a run ----------------------------------------------------------------------------------------------------------
class Data:
    """Pictures, their virality, the rows of each split; the cue's true boxes and latent where there is a truth.csv.

    `published` holds, in pair mode deza, each split's pairs as positions in its rows; else None for each.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        table = data_set.read_table(args.data_path, "data_set_iv", ["v_score"])
        side = transforms.stored_side(args.image_size)
        self.pictures = data_set.load_pictures(
            args.data_path, table["img_id"], side, args.num_workers, args.cache == "on"
        )
        data_set.report_faults(self.pictures, args.data_path)
        table = table.set_index("img_id").loc[self.pictures.img_ids]
        self.v_score = table["v_score"].to_numpy(np.float64)
        self.published: dict[str, np.ndarray | None] = dict.fromkeys(data_set.SPLITS)
        if args.pair_mode == "deza":
            self._split_published(args)
        else:
            split = data_set.split_of(self.pictures.img_ids, args.seed, args.fold, args.folds)
            self.rows = {name: np.flatnonzero(split == name) for name in data_set.SPLITS}
        for name, rows in self.rows.items():
            if len(np.unique(self.v_score[rows])) < 2:
                raise UserError(
                    f"{args.data_path}: its {name} split has {len(rows)} usable pictures and no pair of them"
                )
        truth = Path(args.data_path) / "datasets" / "truth.csv"
        self.truth = None
        if truth.is_file():
            columns = ["img_id", "latent", "x", "y", "w", "h"]
            self.truth = read_csv(truth, columns).set_index("img_id").reindex(self.pictures.img_ids)

    def _split_published(self, args: argparse.Namespace) -> None:
        """Test: the 489 pairs of the paper; an eighth of the others for validation. No image is in two pairs."""
        pairs = deza2015.read_pairs(Path(args.data_path) / "deza2015")
        ids = pairs[["img_id_viral", "img_id_other"]].to_numpy()
        there = np.isin(ids, self.pictures.img_ids).all(axis=1)
        print(
            f"{there.sum()} of {len(pairs)} published pairs have both pictures ({(there & pairs['top']).sum()} of 489)"
        )
        split = np.where(data_set.split_of(ids[:, 0], args.seed, 0, 8) == "test", "validation", "train")
        split = np.where(pairs["top"], "test", split)
        self.rows = {}
        for name in data_set.SPLITS:
            chosen = self.pictures.rows_of(ids[there & (split == name)])
            self.rows[name] = np.sort(chosen.ravel())
            self.published[name] = np.searchsorted(self.rows[name], chosen)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """A whole run: train, keep the best on validation, read the test split once. Returns what results.json holds."""
    folder = Path(args.save_dir)
    if args.check_point == "last" and (results := finished_results(folder, args)):
        print_results(results, folder)
        return results
    locnet = first_stage(args) if args.recipe == "singh2016" and args.model_type == 2 else None
    data, model, state = fit(args, locnet)
    return finish(model, data, state, args, folder)


def finished_results(folder: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a run of the same flags that is through has left: the test split is not read twice."""
    if not (folder / "results.json").is_file() or not (folder / "best.pt").is_file():
        return None
    results = read_json(folder / "results.json")
    return results if same_flags(results.get("configuration", {}), args) is None else None


def first_stage(args: argparse.Namespace) -> dict[str, Tensor]:
    """Type 1 first; its LocNet starts type 2 (Singh & Lee 2016, section 4). Returns LocNet's weights."""
    stage = argparse.Namespace(**vars(args) | {"model_type": 1, "save_dir": str(Path(args.save_dir) / "type_1")})
    print("first stage: type 1")
    fit(stage, None)
    weights = load_checkpoint(Path(stage.save_dir) / "best.pt", "siamese")["model"]
    print("second stage: type 2, from that LocNet")
    return {key.removeprefix("locnet."): value for key, value in weights.items() if key.startswith("locnet.")}


def fit(args: argparse.Namespace, locnet: dict[str, Tensor] | None) -> tuple[Data, SiameseNet, dict[str, Any]]:
    """Train, or go on training; last.pt, best.pt and metrics.csv are written after every epoch."""
    device = select_device(args.device)
    seed_everything(args.seed)
    data = Data(args)
    resumed = resume_point(args, "siamese")
    weights = "none" if resumed else args.weights
    options = {"recipe": args.recipe, "image_size": args.image_size, "batch_norm": args.weights == "none"}
    model = SiameseNet(args.model_name, args.model_type, weights, **options).to(device)
    if locnet and model.locnet:
        model.locnet.load_state_dict(locnet)
    freeze(model, args)
    folder = start_run(args.save_dir, vars(args), device)
    rows, v_score, published = data.rows["train"], data.v_score[data.rows["train"]], data.published["train"]
    optimiser = build_optimiser(model, args)
    scheduler = build_scheduler(optimiser, args, args.epochs * len(draw_batches(v_score, args, 0, published)))
    state = {"epoch": 0, "best": -1.0, "history": [], "windows": []}
    seed_everything(args.seed)  # the batches do not depend on how many numbers the weights took
    if resumed:
        model.load_state_dict(resumed["model"])
        optimiser.load_state_dict(resumed["optimiser"])
        scheduler.load_state_dict(resumed["scheduler"])
        set_rng_state(resumed["rng"])
        state = {key: resumed[key] for key in state}
        print(f"going on after epoch {state['epoch']} of {args.epochs}")
    for epoch in range(state["epoch"], args.epochs):
        start = time.perf_counter()
        trained = train_one_epoch(model, data.pictures, rows, v_score, optimiser, scheduler, args, epoch, published)
        found, windows = validate(model, data, args)
        row = {"epoch": epoch + 1, **trained, **found, "learning_rate": scheduler.get_last_lr()[0]}
        is_best = found["val_pair_accuracy"] >= state["best"]  # of equals the later, whose schedule is further on
        state = {
            "epoch": epoch + 1,
            "best": max(state["best"], found["val_pair_accuracy"]),
            "history": [*state["history"], row | {"seconds": time.perf_counter() - start}],
            "windows": [*state["windows"], windows],
        }
        checkpoint = {"kind": "siamese", "config": vars(args), "transform": transforms.describe(args.image_size)}
        checkpoint |= {"model": model.state_dict(), **state}
        running = {"optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "rng": rng_state()}
        if is_best:
            save_checkpoint(folder / "best.pt", checkpoint)
        save_checkpoint(folder / "last.pt", checkpoint | running)
        write_csv(folder / "metrics.csv", pd.DataFrame(state["history"]))
        print(
            f"epoch {epoch + 1:3}/{args.epochs}  loss {row['train_loss']:.4f}  validation pair accuracy "
            f"{found['val_pair_accuracy']:.4f}  {row['images_per_second']:.0f} images/s",
            flush=True,
        )
    distributed.barrier()
    return data, model, state


def validate(model: SiameseNet, data: Data, args: argparse.Namespace) -> tuple[dict[str, float], list]:
    """The validation columns of metrics.csv, and the windows of the WATCHED pictures (empty for type 0)."""
    rows = data.rows["validation"]
    found = evaluate(model, data.pictures, rows, data.v_score[rows], args, data.published["validation"])
    found = {f"val_{name}": found[name] for name in ("pair_accuracy", "kendall_tau")}
    if model.locnet is None:
        return found, []
    return found, predict(model, data.pictures, evenly(rows, WATCHED), args)[1].round(2).tolist()


def finish(model: SiameseNet, data: Data, state: dict, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score the test split with the checkpoint that validation chose; write results.json and the pictures."""
    best = load_checkpoint(folder / "best.pt", "siamese")
    model.load_state_dict(best["model"])
    rows = data.rows["test"]
    v_score = data.v_score[rows]
    start = time.perf_counter()
    scores, windows = predict(model, data.pictures, rows, args)
    seconds = time.perf_counter() - start
    pairs = mode_pairs(v_score, args.pair_mode, data.published["test"])
    test = metrics.ranking_metrics(scores, v_score, pairs)
    results = {
        "configuration": vars(args),
        "n": {name: len(part) for name, part in data.rows.items()},
        "best_epoch": best["epoch"],
        "validation_pair_accuracy": best["best"],
        "test": test | look_metrics(windows, data, rows, pairs),
        "pictures_left_out": len(data.pictures.faults),
        "survivors": read_survivors(args.data_path),
        "train_seconds": sum(row["seconds"] for row in state["history"]),
        "train_images_per_second": float(np.mean([row["images_per_second"] for row in state["history"]])),
        "seconds": seconds,
        "images_per_second": len(rows) / seconds,
    }
    # A percentile needs something to stand against: the scores of the pictures that the ranker was trained on.
    train_scores, _ = predict(model, data.pictures, data.rows["train"], args)
    save_checkpoint(folder / "best.pt", best | {"train_scores": torch.from_numpy(np.sort(train_scores))})
    table = pd.DataFrame({"img_id": data.pictures.img_ids[rows], "v_score": v_score, "score": scores})
    if windows is not None:
        table[["x", "y", "w", "h"]] = windows.round(2)
    write_csv(folder / "test_scores.csv", table)
    paths = [str(data_set.picture_path(args.data_path, img_id)) for img_id in table["img_id"]]
    write_text(folder / "test_pictures.txt", "\n".join(paths) + "\n")
    write_json(folder / "results.json", results)
    if rank() == 0:
        draw(folder, data, state, table, windows, best["epoch"], args)
    print_results(results, folder)
    return results


def look_metrics(windows: np.ndarray | None, data: Data, rows: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Where there is a truth.csv: the noise ceiling, and how well the windows find the cue, beside the centre's."""
    found = {} if windows is None else {"mean_scale": float(np.mean(windows[:, 2:] / data.pictures.sizes[rows]))}
    if data.truth is None or data.truth.iloc[rows].isna().any().any():
        return found
    truth = data.truth.iloc[rows]
    found["noise_ceiling"] = metrics.pair_accuracy(truth["latent"].to_numpy(), data.v_score[rows], pairs)
    if windows is not None:
        cues = truth[["x", "y", "w", "h"]].to_numpy(np.float64)
        centre = np.hstack([np.zeros((len(rows), 2)), data.pictures.sizes[rows]])
        found["pointing_accuracy"] = metrics.pointing_accuracy(windows, cues)
        found["pointing_accuracy_of_the_centre"] = metrics.pointing_accuracy(centre, cues)
        found["mean_overlap"] = float(metrics.overlap(windows, cues).mean())
    return found


def print_results(results: dict[str, Any], folder: Path) -> None:
    test = results["test"]
    print(
        f"test pair accuracy {test['pair_accuracy']:.4f} (95 % {test['pair_accuracy_low']:.4f} to "
        f"{test['pair_accuracy_high']:.4f}) on {test['pairs']} pairs of {test['images']} pictures, "
        f"Kendall's τ {test['kendall_tau']:.3f}, Spearman's ρ {test['spearman_rho']:.3f}"
    )
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
    finish_log(folder)


# --- pictures of the run --------------------------------------------------------------------------------------------
def draw(
    folder: Path,
    data: Data,
    state: dict,
    table: pd.DataFrame,
    windows: np.ndarray | None,
    best_epoch: int,
    args: argparse.Namespace,
) -> None:
    def pictures(img_ids) -> list:
        return [transforms.decode(data_set.picture_path(args.data_path, i)) for i in img_ids]

    def save(figure, name: str) -> None:
        visualisation.save_with_data(figure, folder / name)

    history = pd.DataFrame(state["history"]).drop(columns=["seconds", "images_per_second"])
    save(visualisation.learning_curves(history, "siamese ranker", best_epoch=best_epoch), "curves.png")
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
    shown = data.published["test"]
    if shown is None:
        shown = data_set.draw_pairs(table["v_score"].to_numpy(), args.pair_mode, 0)
    shown = shown[np.random.default_rng(0).permutation(len(shown))[:8]]
    first, second = table.iloc[shown[:, 0]], table.iloc[shown[:, 1]]
    targets = data_set.targets_of(table["v_score"].to_numpy(), shown)
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
    watched = data.pictures.img_ids[evenly(data.rows["validation"], WATCHED)]
    epochs = [row["epoch"] for row in state["history"]]
    figure = visualisation.windows_over_epochs(
        pictures(watched), epochs, np.array(state["windows"]), title="how the windows moved (validation pictures)"
    )
    save(figure, "windows_over_epochs.png")


def evenly(rows: np.ndarray, n: int) -> np.ndarray:
    """About n of the rows, evenly from the first (least viral) to the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))]


# --- several runs ---------------------------------------------------------------------------------------------------
def compare(run_a: str, run_b: str) -> None:
    """McNemar's exact test between two runs, over the pairs of their common test pictures."""
    a, b = (
        read_csv(Path(run) / "test_scores.csv", ["img_id", "v_score", "score"]).set_index("img_id")
        for run in (run_a, run_b)
    )
    if set(a.index) != set(b.index):
        raise UserError(f"{run_a} and {run_b} were tested on different pictures: train both with one --seed")
    b = b.loc[a.index]
    found = metrics.mcnemar(a["score"].to_numpy(), b["score"].to_numpy(), a["v_score"].to_numpy())
    print(
        f"{found['pairs']} pairs of {len(a)} pictures: {run_a} right on {found['a']:.4f}, {run_b} on {found['b']:.4f}"
    )
    print(
        f"right by {run_a} alone {found['a_alone']}, by {run_b} alone {found['b_alone']}; McNemar's p {found['p']:.3g}"
    )
    print("(pairs that share a picture are not independent: read p as a lower bound)")


# --- the command ----------------------------------------------------------------------------------------------------
def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_flags(parser, save_dir="outputs/siamese")
    flag = parser.add_argument
    flag("--model_name", default="alexnet", choices=RANKERS)
    flag("--model_type", type=int, default=1, choices=(0, 1, 2), help="0 whole picture, 1 window, 2 both")
    flag("--pair_mode", default="all", choices=PAIR_MODES, help="which images are set against each other")
    flag("--recipe", default="modern", choices=RECIPES)
    flag("--augment", default="crop", choices=transforms.AUGMENTATIONS, help="of training pictures (default crop)")
    flag("--seeds", type=int, nargs="+", metavar="SEED", help="a run each; prints mean ± standard deviation")
    flag("--folds", type=at_least(1), default=1, help="cross-validation: a run for each fold as the test split")
    flag("--compare", nargs=2, metavar="RUN", help="McNemar's test between two runs; nothing is trained")
    flag("--freeze_locnet", action=argparse.BooleanOptionalAction, default=False, help="keep LocNet's convolutions")
    flag(
        "--freeze_ranknet", action=argparse.BooleanOptionalAction, default=False, help="keep the ranker's convolutions"
    )
    args = parser.parse_args(words)
    for name, value in RECIPE_DEFAULTS[args.recipe].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.fold = 0
    if not args.data_path and not args.compare:
        parser.error("--data_path is required")
    if args.pair_mode == "deza" and args.folds > 1:
        raise UserError("--folds: pair mode deza has its published test pairs")
    if args.image_size < 64:
        raise UserError(f"--image_size {args.image_size}: AlexNet needs at least 64 pixels")
    return args


def main() -> None:
    args = parse_arguments()
    if args.compare:
        return compare(*args.compare)
    distributed.join(args.device)
    print_configuration(args, "siamese ranker")
    train_many(args, train) if args.seeds or args.folds > 1 else train(args)


if __name__ == "__main__":
    run_main(main)

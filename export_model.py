"""Export a trained ranker as a portable folder: safetensors, configuration, and a model card.

    python export_model.py --check_point RUN/best.pt --output FOLDER [--onnx]

Takes a second or two. FOLDER contains model.safetensors, tensors.safetensors (the training pictures' scores, for
percentiles), config.json, test_scores.csv, README.md (the model card: data, splits, figures with intervals, what clock
and community reach beside it, calibration, limits) and SHA256SUMS. Every script that takes a checkpoint also takes the
folder, and ranks with it exactly as with the checkpoint: `rank_images.py --check_point FOLDER`. --onnx adds model.onnx
(a uint8 picture → its score and window), and needs requirements-onnx.txt.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamese_net import SiameseNet, from_checkpoint
from utils import UserError, print_configuration, read_json, run_main, write_model_folder, write_text, written_whole

# Settings of a training that say where it ran, and nothing of the network.
OF_THE_PLACE = ("save_dir", "check_point", "device", "num_workers", "cache", "left_out", "max_pixels", "compile")
SEES = {0: "the whole picture", 1: "a window that it places itself", 2: "the whole picture and a window that it places"}
OPSET = 20  # the first with grid_sample and affine_grid as torch has them


# --- the folder -----------------------------------------------------------------------------------------------------
def export(check_point: str | Path, output: str | Path, onnx: bool = False) -> Path:
    """Export best.pt of a finished run to the folder `output`. Raises UserError if the run has not finished."""
    folder, run = Path(output), Path(check_point).parent
    model, state = from_checkpoint(check_point)
    for name in ("results.json", "test_scores.csv"):
        if "train_scores" not in state or not (run / name).is_file():
            raise UserError(f"--check_point {check_point}: its run has not finished ({run / name} is missing)")
    results = read_json(run / "results.json")
    if onnx:
        check_onnx()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file")
    config = {name: value for name, value in state["config"].items() if name not in OF_THE_PLACE}
    for name in ("data_path", "weights"):  # where they lay is nobody's business
        config[name] = Path(config[name]).name if config.get(name) else config.get(name)
    kept = {name: value for name, value in state.items() if name not in ("history", "watched")}  # of the training
    write_model_folder(folder, kept | {"config": config})
    with written_whole(folder / "test_scores.csv") as beside:
        shutil.copyfile(run / "test_scores.csv", beside)
    if onnx:
        write_onnx(model, state["transform"]["side"], folder / "model.onnx")
    else:
        (folder / "model.onnx").unlink(missing_ok=True)  # of another network
    write_text(folder / "README.md", model_card(state | {"config": config}, results, onnx))
    return folder


# --- ONNX -----------------------------------------------------------------------------------------------------------
class ScoreAndWindow(nn.Module):
    """Pictures (n, 3, s, s), uint8 → scores (n,) and, where the ranker has them, windows (n, 4: x, y, w, h in shares of
    the picture's width and height)."""

    def __init__(self, model: SiameseNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        score, window = SiameseNet.rank.__wrapped__(self.model, pictures)  # torch does not export inference mode
        if window is None:
            return score
        s, t_x, t_y = window.unbind(1)
        return score, torch.stack([(s * t_x + 1 - s.abs()) / 2, (s * t_y + 1 - s.abs()) / 2, s.abs(), s.abs()], dim=1)


def check_onnx() -> None:
    """Raise UserError if a package that torch's exporter needs is not installed."""
    for name in ("onnx", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--onnx needs {name}: pip install -r requirements-onnx.txt") from error


def write_onnx(model: SiameseNet, side: int, path: Path) -> None:
    """Write the ranker as ONNX: a picture (1, 3, side, side), uint8, RGB, squeezed to the side → score and window."""
    network = ScoreAndWindow(model.cpu().eval())
    names = ["scores"] if model.locnet is None else ["scores", "windows"]
    batch = torch.zeros(1, 3, side, side, dtype=torch.uint8)  # torch cannot export `chunk` of a batch of any size
    with written_whole(path) as beside, warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            network, (batch,), beside, input_names=["pictures"], output_names=names, opset_version=OPSET,
            external_data=False, verbose=False, dynamo=True,
        )  # fmt: skip


# --- the model card -------------------------------------------------------------------------------------------------
def model_card(state: dict[str, Any], results: dict[str, Any], onnx: bool = False) -> str:
    """The model card, in Markdown, from a checkpoint and its run's results.json. Figures have 95 % intervals."""
    config, side = state["config"], state["transform"]["side"]
    parts = [
        f"# A ranker of pictures, trained on {config['data_path']}\n\nOf two pictures, which is the more viral? One "
        f"score for each picture; the higher, the more viral. The network is {config['model_name']} "
        f"(type {config['model_type']}: it sees {SEES[config['model_type']]}), recipe {config['recipe']}, on pictures "
        f"of {side}×{side} pixels.",
        "```\npython rank_images.py PICTURES --check_point THIS_FOLDER --output ranks.csv\n```",
        *_data(config, results),
        *_figures(results),
        *_calibration(state, results),
        *_limits(config, results),
        *_files(side, config, onnx),
    ]
    return "\n\n".join(parts) + "\n"


def _data(config: dict[str, Any], results: dict[str, Any]) -> list[str]:
    n, left = results["n"], results.get("pictures_left_out", 0)
    how = {"time": "by the time of the first post", "table": "as the data set's table says"}
    split = how.get(config.get("split"), f"by a hash of the picture's number and seed {config['seed']}")
    pairs = {"all": "every pair of a batch"}.get(config["pair_mode"], f"pair mode {config['pair_mode']}")
    lines = [
        f"- Pictures: {n['train']} to train on, {n['validation']} to choose an epoch by, {n['test']} to test on, split "
        f"{split}. The test pictures were scored once, after the training.",
        f"- Left out, for they cannot be read: {left}.",
        f"- Trained on {pairs}, {config['epochs']} epochs, the network of epoch {results['best_epoch']} kept; starting "
        f"weights: {config['weights']}.",
    ]
    if survivors := results.get("survivors"):
        found = ", ".join(f"{name} {value}" for name, value in survivors.items() if not isinstance(value, dict | list))
        lines.append(f"- Of a download, in which pictures were missing: {found}.")
    return ["## Data and splits", "\n".join(lines)]


def _figures(results: dict[str, Any]) -> list[str]:
    test = results["test"]
    rows = [
        _row("pair accuracy", test, "pair_accuracy"),
        _row("Kendall's τ", test, "kendall_tau"),
        _row("noise ceiling: the true cause's pair accuracy", test, "noise_ceiling"),
        _row("the window's centre lies on the cue", test, "pointing_accuracy"),
        _row("the picture's centre does", test, "pointing_accuracy_of_the_centre"),
    ]
    named = {"clock": "the older picture first", "community": "community of the first post", "context": "both"}
    context = results.get("context") or {}
    rows += [
        f"| without the picture: {named[name]} | {each['value']:.3f} | {_interval(each['low'], each['high'])} |"
        for name, each in context.items()
    ]
    table = "\n".join(["| on the test pictures | | 95 % interval |", "|---|---|---|", *filter(None, rows)])
    intro = f"Over {test['pairs']} pairs of {test['images']} test pictures; chance is 0.5."
    said = [] if context else ["No times or communities of posts are known: what these explain was not measured."]
    ahead = [named[name] for name, each in context.items() if each["high"] >= test["pair_accuracy_low"]]
    if ahead:
        said.append(f"**The intervals overlap, or the picture does worse: {', '.join(ahead)}.** What the ranker has "
                    "learned may be no more than what time and community show without a picture.")  # fmt: skip
    return ["## Figures", intro, table, *said]


def _row(name: str, test: dict[str, Any], key: str) -> str:
    """A row of the table of figures; empty if the run has no such figure."""
    if key not in test:
        return ""
    low, high = test.get(f"{key}_low"), test.get(f"{key}_high")
    return f"| {name} | {test[key]:.3f} | {'' if low is None else _interval(low, high)} |"


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"


def _calibration(state: dict[str, Any], results: dict[str, Any]) -> list[str]:
    known = results.get("calibration")
    if not known:
        return []
    return [
        "## Calibration",
        f"σ(difference of two scores / {state['temperature']:.4g}) is the probability that the first picture is the "
        f"more viral, fitted on the validation pairs. On the test pairs its expected calibration error is "
        f"{known['ece']:.3f} ({_interval(known['ece_low'], known['ece_high'])}), its Brier score {known['brier']:.3f} "
        "(0.25 for who always says ½). A percentile is among the scores of the training pictures.",
    ]


def _limits(config: dict[str, Any], results: dict[str, Any]) -> list[str]:
    lines = [
        f"- The figures hold for pictures like those of {config['data_path']}. On others, of another place, time or "
        "kind, nothing is known; test it there before you believe it.",
        "- The score is a tendency over many pairs; of a single pair it is often wrong: see the pair accuracy. How far "
        "a picture spreads depends on its title, its hour, its community, on who posts it and on luck.",
        "- It is no measure of quality, truth or worth. Do not judge people by it, and do not use it to choose what "
        "misleads furthest.",
    ]
    if config["model_type"]:
        lines.append("- A window shows what the ranker used, not why people voted.")
    if results["n"]["test"] < 200:
        lines.append(f"- {results['n']['test']} test pictures are few: read the intervals, not the figures.")
    return ["## Limits", "\n".join(lines)]


def _files(side: int, config: dict[str, Any], onnx: bool) -> list[str]:
    lines = [
        "- `model.safetensors`, the weights; `config.json`, all settings; `tensors.safetensors`, the scores of the "
        "training pictures; `test_scores.csv`, those of the test pictures; `SHA256SUMS`, for `sha256sum -c`.",
    ]
    if onnx:
        windows = ", and `windows` (1, 4): x, y, w, h in shares of its width and height" if config["model_type"] else ""
        lines.append(
            f"- `model.onnx`: `pictures` (1, 3, {side}, {side}), uint8 in RGB, squeezed to a square by bilinear "
            f"resampling with antialiasing → `scores` (1){windows}."
        )
    return ["## Files", "\n".join(lines)]


# --- the command ----------------------------------------------------------------------------------------------------
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check_point", required=True, help="best.pt of a finished run")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx")
    args = parser.parse_args()
    print_configuration(args, "export a ranker")
    folder = export(args.check_point, args.output, args.onnx)
    print(f"written: {', '.join(sorted(path.name for path in folder.iterdir()))} → {folder}")


if __name__ == "__main__":
    run_main(main)

"""Label pictures with a trained classifier: which subreddit is each of them from?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import transforms
from classifier_net import from_checkpoint
from decoding.decoder import MAX_PIXELS
from device import autocast, select_device
from locks import alone
from pictures.left_out import UNREADABLE, LeftOut
from pictures.sources import Where, called, count_sources, decoded, list_sources, wheres
from precision import for_scoring
from table_files import rows_to
from utils import UserError, check_outputs, next_to, write_csv


def label_pictures(
    source: Where,
    check_point: str | Path,
    output: str | Path,
    *,
    device: str = "auto",
    num_workers: int = 2,
    amp: bool | None = None,
    deterministic: bool = False,
    left_out: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    format: str = "csv",
) -> None:
    """Write path,label,probability of every picture of a source; unreadable ones are listed next to the table.

    The file `left_out` gets the path of every file that has no label, and why.
    """
    unreadable_path = next_to(output, ".unreadable.csv")
    outputs = {"--output": output, "the table of unreadable pictures": unreadable_path, "--left_out": left_out}
    check_outputs(outputs, [*wheres(source), check_point])
    device = select_device(device)
    model, state = from_checkpoint(check_point)
    model.to(device)
    side, total, name = state["transform"]["side"], count_sources(source), state["config"]["model_name"]
    amp = for_scoring(name, model, of_whole, side, total, device, amp=amp, deterministic=deterministic)
    rows, unreadable, truncated = [], [], 0
    with alone(output, unreadable_path, left_out), LeftOut(left_out) as said:
        pictures = decoded(list_sources(source, said), side, num_workers, max_pixels)
        waiting: list[tuple[str, np.ndarray]] = []
        for picture in tqdm(pictures, "labelling", total, disable=None):
            if picture.pixels is None:
                unreadable.append((picture.source.path, picture.fault))
                said(*unreadable[-1], UNREADABLE)
            else:
                waiting.append((picture.source.path, picture.pixels))
                truncated += picture.note != ""
            if len(waiting) == 64:
                rows += label_batch(model, waiting, state["classes"], amp)
                waiting = []
        rows += label_batch(model, waiting, state["classes"], amp) if waiting else []
        if not rows:
            raise UserError(
                f"none of the {len(unreadable)} pictures of {called(source)} can be read: {unreadable[0][1]}"
            )
        with rows_to(output, ["path", "label", "probability"], format) as write:
            for row in rows:
                write(row)
        unreadable_path.unlink(missing_ok=True)  # of the run before
        if unreadable:
            write_csv(unreadable_path, pd.DataFrame(unreadable, columns=["path", "reason"]))
            print(f"{len(unreadable)} pictures cannot be read; the reasons are in {unreadable_path}")
    if truncated:
        print(f"{truncated} pictures are truncated after their last pixel; they are used")
    counts = Counter(label for _, label, _ in rows)
    print("\n".join(f"  {count:6} {name}" for name, count in counts.most_common()))
    print(f"{len(rows)} pictures labelled → {output}")
    print(said)


def of_whole(model: nn.Module, batch: Tensor) -> Tensor:
    """Scores (n, classes) of whole pictures, uint8 (n, 3, s, s)."""
    return model(transforms.whole(batch))


@torch.inference_mode()
def label_batch(
    model: nn.Module, batch: list[tuple[str, np.ndarray]], classes: list[str], amp: bool | None
) -> list[tuple[str, str, float]]:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(device)
    with autocast(device, amp):
        scores = of_whole(model, pixels)
    probability, label = scores.float().softmax(1).max(1)
    found = zip(batch, label.tolist(), probability.tolist(), strict=True)
    return [(path, classes[place], round(share, 6)) for (path, _), place, share in found]

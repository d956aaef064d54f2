"""Label anyone's pictures with a trained classifier: which subreddit is each of them from?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

import transforms
from classifier_net import from_checkpoint
from device import autocast, select_device
from pictures.sources import count_sources, decoded, list_sources
from utils import UserError, write_csv


def label_pictures(
    source: str | Path,
    check_point: str | Path,
    output: str | Path,
    *,
    device: str = "auto",
    num_workers: int = 2,
    amp: bool | None = None,
) -> None:
    """path,label,probability of every picture of a source; those that cannot be read are listed beside the table."""
    device = select_device(device)
    model, state = from_checkpoint(check_point)
    model.to(device)
    rows, unreadable = [], []
    pictures = decoded(list_sources(source), state["transform"]["side"], num_workers)
    waiting: list[tuple[str, np.ndarray]] = []
    for picture in tqdm(pictures, "labelling", count_sources(source), disable=None):
        if picture.pixels is None:
            unreadable.append((picture.source.path, picture.fault))
        else:
            waiting.append((picture.source.path, picture.pixels))
        if len(waiting) == 64:
            rows += label_batch(model, waiting, state["classes"], amp)
            waiting = []
    rows += label_batch(model, waiting, state["classes"], amp) if waiting else []
    if not rows:
        raise UserError(f"none of the {len(unreadable)} pictures of {source} can be read: {unreadable[0][1]}")
    table = pd.DataFrame(rows, columns=["path", "label", "probability"])
    write_csv(output, table)
    if unreadable:
        beside = Path(output).with_name(f"{Path(output).stem}.unreadable.csv")
        write_csv(beside, pd.DataFrame(unreadable, columns=["path", "reason"]))
        print(f"{len(unreadable)} pictures cannot be read; the reasons are in {beside}")
    print("\n".join(f"  {count:6} {name}" for name, count in table["label"].value_counts().items()))
    print(f"{len(table)} pictures labelled → {output}")


@torch.inference_mode()
def label_batch(
    model: nn.Module, batch: list[tuple[str, np.ndarray]], classes: list[str], amp: bool | None
) -> list[tuple[str, str, float]]:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(device)
    with autocast(device, amp):
        scores = model(transforms.whole(pixels))
    probability, label = scores.float().softmax(1).max(1)
    found = zip(batch, label.tolist(), probability.tolist(), strict=True)
    return [(path, classes[place], round(share, 6)) for (path, _), place, share in found]

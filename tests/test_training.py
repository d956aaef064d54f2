"""The loop that both trainings share: which epoch is kept, what is written, what a run goes on from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import training
import utils


def test_one_lucky_epoch_is_not_the_best():
    figures = [0.5, 0.6, 0.95, 0.7, 0.75, 0.8, 0.85, 0.84, 0.86, 0.85]
    assert training.best_epoch(figures) == 10
    assert training.best_epoch(figures, over=1) == 3
    assert training.best_epoch([-figure for figure in figures], lowest=True) == 10


def test_of_equals_the_later_epoch_is_kept_and_none_before_the_first_that_may_be():
    assert training.best_epoch([0.9] * 4) == 4
    falling = np.linspace(0.9, 0.5, 10)
    assert training.best_epoch(falling) == 1 and training.best_epoch(falling, first=6) == 6
    assert training.best_epoch(falling[:3], first=6) == 3  # until that epoch is there, the last one


@pytest.mark.parametrize("batch_size", [2, 3, 16, 64])
def test_no_batch_is_of_one_picture(batch_size):
    """Batch normalisation divides by a variance that one picture may not have."""
    for n in range(2, 200):
        batches = training.split_batches(np.arange(n), batch_size)
        assert np.array_equal(np.concatenate(batches), np.arange(n))
        assert min(map(len, batches)) >= 2 and max(map(len, batches)) <= max(3, 1.5 * batch_size)


def run(folder, epochs, values, until=None, resumed=None):
    """A training of one weight, which after epoch n is the sum of what was drawn in n epochs."""
    torch.manual_seed(1)
    network = nn.Linear(1, 1, bias=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    scheduler = training.one_cycle(optimiser, epochs)

    def train_one_epoch(epoch):
        if epoch == until:
            raise KeyboardInterrupt
        rate = optimiser.param_groups[0]["lr"]
        with torch.no_grad():
            network.weight += torch.rand(1) * rate
        optimiser.step()
        scheduler.step()
        return {"train_loss": float(values[epoch]), "images_per_second": 1.0, "learning_rate": rate}

    epoch = iter(range(resumed["epoch"] if resumed else 0, epochs))
    state = training.fit(
        network, optimiser, scheduler, train_one_epoch, lambda: {"loss": values[next(epoch)]}, folder=folder,
        about={"kind": "siamese", "config": {}}, epochs=epochs, seed=0, chosen_by="loss", lowest=True, resumed=resumed,
    )  # fmt: skip
    return state


def test_a_run_broken_off_goes_on_to_the_same_end(tmp_path):
    values = [0.9, 0.8, 0.7, 0.75, 0.8, 0.9, 0.95, 1.0]
    whole = run(tmp_path / "whole", 8, values)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 8, values, until=5)
    halfway = utils.load_checkpoint(tmp_path / "cut" / "last.pt", "siamese")
    assert "optimiser" in halfway and 0 < halfway["epoch"] <= 5
    run(tmp_path / "cut", 8, values, resumed=halfway)
    for name in ("best.pt", "last.pt"):
        one, other = (utils.load_checkpoint(tmp_path / part / name, "siamese") for part in ("whole", "cut"))
        assert torch.equal(one["model"]["weight"], other["model"]["weight"]) and one["epoch"] == other["epoch"]
    rows = [pd.read_csv(tmp_path / part / "metrics.csv").drop(columns="seconds") for part in ("whole", "cut")]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    assert whole["best_epoch"] == utils.load_checkpoint(tmp_path / "cut" / "best.pt", "siamese")["epoch"]


def test_a_finished_run_keeps_no_optimiser_and_the_rates_are_those_used(tmp_path):
    state = run(tmp_path, 4, [0.4, 0.3, 0.2, 0.1])
    last = utils.load_checkpoint(tmp_path / "last.pt", "siamese")
    assert last["epoch"] == 4 and not {"optimiser", "scheduler", "rng"} & set(last)
    rates = pd.read_csv(tmp_path / "metrics.csv")["learning_rate"]
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([torch.zeros(1)], lr=1.0), 1.0, total_steps=4, pct_start=0.15
    )
    assert rates[0] == pytest.approx(cycle.get_last_lr()[0]) and state["best_epoch"] == 4


def test_where_the_last_epoch_is_kept_its_network_lies_on_the_disk_once(tmp_path):
    training.share_last(tmp_path, run(tmp_path, 4, [0.4, 0.3, 0.2, 0.1]))
    assert (tmp_path / "best.pt").samefile(tmp_path / "last.pt")
    state = run(tmp_path / "falling", 8, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    training.share_last(tmp_path / "falling", state)
    epochs = [utils.load_checkpoint(tmp_path / "falling" / name, "siamese")["epoch"] for name in ("best.pt", "last.pt")]
    assert epochs == [state["best_epoch"], 8] and state["best_epoch"] < 8


class Clock(list):
    """Figures of epochs, each of which takes 100 seconds."""

    now = 0.0

    def __getitem__(self, place):
        Clock.now += 50  # read twice an epoch
        return super().__getitem__(place)


def test_an_epochs_line_says_how_long_the_others_take_by_those_of_this_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.time, "perf_counter", lambda: Clock.now)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 100, Clock([0.5] * 100), until=2)
    left = [line.split("images/s")[1] for line in capsys.readouterr().out.splitlines()]
    assert left == ["  about 2 h 45 min left", "  about 2 h 43 min left"]
    monkeypatch.setattr(Clock, "__getitem__", list.__getitem__)  # none takes any time
    run(tmp_path, 100, Clock([0.5] * 100), resumed=utils.load_checkpoint(tmp_path / "last.pt", "siamese"))
    assert "left" not in capsys.readouterr().out


def test_several_runs_say_which_it_is_and_how_long_the_others_take(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.time, "perf_counter", lambda: Clock.now)

    def train(seed: int, **settings) -> dict:
        Clock.now += 0 if seed == 0 else 600  # the first was finished before
        return {"n": 1, "test": {"accuracy": 0.5}, "train_seconds": 600}

    training.train_many(train, [0, 1, 2], 1, str(tmp_path))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("-- ")]
    assert lines == ["-- seed_0: 1 of 3", "-- seed_1: 2 of 3", "-- seed_2: 3 of 3  about 10 min left"]


def test_an_infinite_loss_ends_the_run_and_names_the_epoch(tmp_path):
    with pytest.raises(utils.UserError, match="the loss is inf in epoch 2"):
        run(tmp_path, 3, [0.5, float("inf"), 0.1])

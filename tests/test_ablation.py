"""Every idea that can be left out really is, and the table adds up."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

import train_siamese
from siamese_net import RECIPES, from_checkpoint
from studies import ablation


def test_each_idea_is_left_out_by_itself(sample, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_siamese.run_results, "draw_ranker", lambda *words: None)
    words = f"ablation.py --data_path {sample} --image_size 64 --epochs 2 --seeds 0 --output {tmp_path}"
    monkeypatch.setattr(sys, "argv", words.split())
    ablation.main()
    fitted, rates = {}, {}
    for idea in ablation.LEFT_OUT:
        folder = tmp_path / f"without {idea}".replace(" ", "_") / "seed_0"
        fitted[idea] = from_checkpoint(folder / "last.pt")[0]
        rates[idea] = pd.read_csv(folder / "metrics.csv")["learning_rate"].nunique()
    assert RECIPES["modern"] == ablation.MODERN
    table = pd.read_csv(tmp_path / "ablation.csv").set_index("left out")
    assert list(table.index) == list(ablation.LEFT_OUT) and table["pair accuracy"].between(0, 1).all()
    whole = fitted.pop("nothing")
    convolution = whole.ranknet.extractor[0][0].weight
    assert whole.locnet.features[0].weight is convolution
    apart = fitted["shared convolutions"]
    assert not apart.locnet.features[0].weight.equal(apart.ranknet.extractor[0][0].weight)
    value = whole.locnet.attend[-1].weight[1]  # of the glimpse
    still = fitted["the glimpse's loss"].locnet.attend[-1].weight[1]
    assert not value.equal(still) and fitted["noise on the window"].locnet.noise == 0
    assert fitted["the shrinking window"].locnet.scale.item() == pytest.approx(RECIPES["modern"].narrow)
    assert whole.locnet.scale > RECIPES["modern"].narrow
    assert (rates["noise on the window"], rates["warm-up and cosine"]) == (2, 1)
    best = from_checkpoint(tmp_path / "without_nothing" / "seed_0" / "best.pt")[0]
    assert table.loc["nothing", "scale"] == pytest.approx(best.locnet.scale.item(), abs=0.01)
    assert "pair accuracy" in capsys.readouterr().out


def test_the_table_is_mean_and_deviation():
    values = {"b": (0.5, 0.7), "a": (0.8, 0.8)}
    rows = [
        {"left out": idea, "seed": seed, "pair accuracy": value, "pointing": None}
        for idea, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    heading, *lines = ablation.as_text(pd.DataFrame(rows)).splitlines()
    assert heading.split() == ["left", "out", "n", "pair", "accuracy"]
    assert [" ".join(line.split()) for line in lines] == ["b 2 0.600 ± 0.141", "a 2 0.800 ± 0.000"]

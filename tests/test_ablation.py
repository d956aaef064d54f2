"""Every idea that can be left out really is, and the table adds up."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

import ablation
import siamese_net
import train_siamese


def test_each_idea_is_left_out_by_itself_and_put_back(sample, tmp_path, monkeypatch, capsys):
    fitted, finish = {}, train_siamese.finish

    def watched(model, data, state, args, folder):
        fitted[folder.parent.name.removeprefix("without_").replace("_", " ")] = model
        return finish(model, data, state, args, folder)

    before = {name: getattr(siamese_net, name) for name in ("NOISE", "WIDE", "AttentionLocNet")}
    monkeypatch.setattr(train_siamese, "finish", watched)
    monkeypatch.setattr(train_siamese, "draw", lambda *words: None)
    words = f"ablation.py --data_path {sample} --image_size 64 --epochs 2 --seeds 0 --output {tmp_path}"
    monkeypatch.setattr(sys, "argv", words.split())
    ablation.main()
    assert set(fitted) == set(ablation.LEFT_OUT)
    assert before == {name: getattr(siamese_net, name) for name in before}
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
    assert fitted["the shrinking window"].locnet.scale.item() == pytest.approx(siamese_net.NARROW)
    assert whole.locnet.scale > siamese_net.NARROW
    rates = {}
    for name in ("noise on the window", "warm-up and cosine"):
        path = tmp_path / f"without {name}".replace(" ", "_") / "seed_0" / "metrics.csv"
        rates[name] = pd.read_csv(path)["learning_rate"].nunique()
    assert rates == {"noise on the window": 2, "warm-up and cosine": 1}
    assert table.loc["nothing", "scale"] == pytest.approx(whole.locnet.scale.item(), abs=0.01)
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

"""Precision and layout: the fastest by the clock is taken, said, remembered and kept by a run that goes on."""

import json

import pytest
import torch

import precision
from precision import Precision

CPU = torch.device("cpu")
BF16_LAST = Precision(amp=True, channels_last=True)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A memory of its own for each test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


class Clock:
    """Time that passes only while a step is done: so many seconds each."""

    def __init__(self, **seconds):
        self.now, self.seconds, self.steps = 0.0, seconds, []

    def __call__(self):
        return self.now

    def trial(self, each):
        name = f"{'bf16' if each.amp else 'fp32'}_{'last' if each.channels_last else 'contiguous'}"

        def step():
            self.steps.append(name)
            self.now += self.seconds[name]

        return step


def choose(clock, **options):
    return precision.choose("a network", clock.trial, CPU, clock=clock, **options)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ((0.4, 0.3, 0.2, 0.1), (True, True)),
        ((0.4, 0.3, 0.1, 0.2), (True, False)),
        ((0.2, 0.1, 0.3, 0.3), (False, True)),
        ((0.1, 0.2, 0.3, 0.3), (False, False)),
        ((0.3, 0.102, 0.1, 0.3), (False, True)),  # bf16 gains 2 %: not worth its digits
    ],
)
def test_the_fastest_of_four_is_taken_and_said(seconds, best, capsys):
    names = ("fp32_contiguous", "fp32_last", "bf16_contiguous", "bf16_last")
    assert choose(Clock(**dict(zip(names, seconds, strict=True)))) == Precision(*best)
    said = capsys.readouterr().out
    assert said.startswith(f"precision: {Precision(*best)}, measured; times as fast as ") and said.count("\n") == 1


def test_what_was_measured_is_not_measured_again_by_the_same_name_alone(capsys):
    clock = Clock(fp32_contiguous=0.4, fp32_last=0.3, bf16_contiguous=0.2, bf16_last=0.1)
    choose(clock)
    steps = len(clock.steps)
    assert choose(clock) == BF16_LAST and len(clock.steps) == steps
    assert "measured before; times as fast as fp32, contiguous 4.00" in capsys.readouterr().out
    assert choose(clock, steps=1) == BF16_LAST and len(clock.steps) == steps  # a short run takes what is known
    precision.choose("another network", clock.trial, CPU, clock=clock)
    assert len(clock.steps) > steps


def test_a_slow_candidate_is_not_tried_twice_and_slow_networks_are_measured_briefly():
    clock = Clock(fp32_contiguous=9.0, fp32_last=3.0, bf16_contiguous=2.0, bf16_last=2.0)
    assert choose(clock).amp
    assert clock.steps.count("fp32_contiguous") == 1 and clock.steps.count("bf16_last") == 2


def test_a_flag_decides_over_the_precision_and_the_layout_is_measured():
    clock = Clock(fp32_contiguous=0.1, fp32_last=0.3, bf16_contiguous=0.9, bf16_last=0.8)
    assert choose(clock, amp=True) == BF16_LAST
    assert choose(clock, amp=False) == Precision(False, False)
    assert {name for name in clock.steps[:4]} == {"bf16_contiguous", "bf16_last"}


@pytest.mark.parametrize("options", [{"steps": precision.WORTH - 1}, {"deterministic": True}])
def test_short_and_deterministic_runs_measure_nothing(options, home):
    clock = Clock()
    assert choose(clock, **options) == precision.usual(CPU) and not clock.steps
    otherwise = Precision(False, False)
    assert choose(clock, otherwise=otherwise, amp=True, **options) == Precision(True, False)
    assert not (home / "torch").exists()


def test_a_run_that_goes_on_keeps_what_it_has_and_says_so(capsys):
    assert choose(Clock(), kept=BF16_LAST) == BF16_LAST
    assert capsys.readouterr().out == "precision: bf16, channels last, as the checkpoint has it\n"
    assert choose(Clock(), kept=BF16_LAST, amp=False) == Precision(False, True)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '"x"', "null"])
def test_a_spoilt_memory_is_measured_anew(text):
    clock = Clock(fp32_contiguous=0.4, fp32_last=0.3, bf16_contiguous=0.2, bf16_last=0.1)
    precision.memory().parent.mkdir(parents=True)
    precision.memory().write_text(text)
    assert choose(clock) == BF16_LAST and clock.steps
    (rates,) = [rates for name, rates in json.loads(precision.memory().read_text()).items() if "a network" in name]
    precision.memory().write_text(precision.memory().read_text().replace(str(rates["11"]), '"fast"'))
    steps = len(clock.steps)
    assert choose(clock) == BF16_LAST and len(clock.steps) > steps


def test_a_home_that_cannot_be_written_ends_nothing(home):
    (home / "torch").write_text("a file where the folder should be")
    clock = Clock(fp32_contiguous=0.4, fp32_last=0.3, bf16_contiguous=0.2, bf16_last=0.1)
    assert choose(clock) == BF16_LAST


def test_a_network_is_scored_in_the_layout_that_was_chosen(monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1))
    seen = []

    def score(own, batch):
        assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.uint8
        seen.append(own[0].weight.is_contiguous(memory_format=torch.channels_last))
        return own(batch.float())

    amp = precision.for_scoring("a network", network, score, 16, precision.MANY, CPU, batch_size=4)
    assert isinstance(amp, bool) and set(seen) == {True, False}  # one channel-last weight, one not
    assert not precision.for_scoring("a network", network, score, 16, None, CPU, amp=False)

"""Figures say what they should, and survive odd data."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HOSTILE
from PIL import Image

import visualisation
from visualisation import comparison

ODD_SHAPES = [(2000, 40), (30, 1500), (1, 1), (64, 48)]


def picture(size=(64, 48), colour="teal", mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode)


def texts(figure):
    """Every text that the figure draws."""
    figure.canvas.draw()
    found = [figure._suptitle] if figure._suptitle else []
    found += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        found += [*axes.get_xticklabels(), *axes.get_yticklabels()] if axes.axison else []
    return [text.get_text() for text in found if text.get_text()]


def metrics(epochs):
    e = np.arange(1, epochs + 1)
    columns = {
        "epoch": e,
        "train_loss": 1 / e,
        "val_loss": 1.1 / e,
        "val_kendall_tau": 1 - 1 / e,
        "learning_rate": 0.1 / e,
    }
    return pd.DataFrame(columns)


def networks():
    return pd.DataFrame(
        {
            "model": ["alexnet", "vgg", "resnet", "densenet"],
            "accuracy": [0.72, 0.78, 0.81, 0.805],
            "accuracy_low": [0.66, 0.72, 0.76, 0.75],
            "accuracy_high": [0.77, 0.83, 0.86, 0.85],
            "parameters": [57e6, 134e6, 42.5e6, 7e6],
            "inference_images_per_second": [640, 31, 50, 66.0],
            "train_images_per_second": [210, 9, 14, np.nan],
            "pareto": [True, False, True, True],
        }
    )


def test_saving_is_whole_in_the_format_of_the_suffix_and_leaves_no_state(tmp_path):
    figure = visualisation.bar_chart(["a", "b"], [1, np.nan], errors=np.array([0.1, 0]), xlabel="share")
    with Image.open(visualisation.save(figure, tmp_path / "new" / "bars.png")) as saved:
        assert saved.format == "PNG" and round(saved.info["dpi"][0]) == 150
    assert visualisation.save(figure, tmp_path / "bars.svg").read_text().lstrip().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["bars.png", "bars.svg"]
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    assert "not known" in texts(figure)


def test_figures_need_neither_torch_nor_pyplot():
    code = "import sys, visualisation; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_learning_curves_have_a_panel_a_quantity(epochs):
    table = metrics(epochs).assign(note="text", nothing=np.nan)
    table.loc[0, "val_kendall_tau"] = np.nan
    figure = visualisation.learning_curves(table, "A run", best_epoch=1)
    panels = [axes.get_ylabel() for axes in figure.axes]
    assert panels == ["loss", *(["Kendall's τ"] if epochs > 1 else []), "learning rate"]
    assert [text.get_text() for text in figure.axes[0].texts if "best" not in text.get_text()] == ["train", "val"]
    assert "best: 1" in texts(figure) and "A run" in texts(figure)
    visualisation.learning_curves(table[["epoch"]])


def test_confusion_matrix_writes_counts_and_shares_of_the_row():
    shown = texts(visualisation.confusion_matrix(np.array([[30, 10], [0, 0]]), ["cats", "a$b$"], "Test"))
    assert {"30\n75%", "10\n25%", "0", "cats (40)", "a$b$ (0)", "predicted"} <= set(shown)
    twenty = visualisation.confusion_matrix(np.eye(20, dtype=int), [f"class {i}" for i in range(20)])
    assert sum(text == "1\n100%" for text in texts(twenty)) == 20
    with pytest.raises(ValueError, match="does not fit"):
        visualisation.confusion_matrix(np.eye(3), ["a", "b"])


@pytest.mark.parametrize("n", [0, 1, 2000])
def test_distributions_of_any_size(n):
    rng = np.random.default_rng(0)
    v_scores = rng.normal(size=n)
    figure = visualisation.virality_distribution([*v_scores, np.nan])
    assert sum(bar.get_height() for axes in figure.axes for bar in axes.patches) == n
    assert f"images (of {n:,})" in texts(figure)
    figure = visualisation.submissions_per_image(rng.zipf(2, n))
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == (("log", "log") if n else ("linear", "linear"))
    figure = visualisation.score_against_virality(v_scores * 2, v_scores, "Title", "τ 1.00 $")
    assert "τ 1.00 $" in texts(figure) and ("median of each tenth" in texts(figure)) == (n >= 40)


def test_a_long_tail_is_gathered_in_the_last_bar():
    figure = visualisation.virality_distribution([*np.linspace(-1, 1, 500), 4000.0])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 501
    assert figure.axes[0].get_xlim()[1] < 100 and any("highest 4000" in text for text in texts(figure))


def test_ranked_strip_goes_from_least_to_most():
    pictures = [picture(size) for size in ODD_SHAPES]
    windows = np.array([[-10, -10, 5000, 90], [0, 0, 10, 10], [np.nan] * 4, [50, 40, 90, 90]])
    figure = visualisation.ranked_strip(pictures, [3, -1, 2, 0.5], windows, HOSTILE[:4], "Strip")
    scores = [text.get_text() for text in figure.texts if re.fullmatch(r"−?\d\.\d\d", text.get_text())]
    assert scores == ["−1.00", "0.50", "2.00", "3.00"]
    assert figure.axes[0].get_xlim() == (0, 30) and figure.axes[0].get_ylim() == (1500, 0)
    assert [len(axes.patches) for axes in figure.axes] == [2, 2, 0, 2]  # a window is a line on a white line
    assert all(patch.get_clip_on() for axes in figure.axes for patch in axes.patches)
    assert len(visualisation.ranked_strip([picture()] * 60, range(60)).axes) == 60
    assert visualisation.ranked_strip([], []).axes == []


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_drawn_as_they_are(name, tmp_path):
    pictures = [picture(mode=mode) for mode in ("RGB", "L", "RGBA", "P")]
    figure = visualisation.picture_grid(pictures, [name] * 4, title=name)
    visualisation.save(figure, tmp_path / "grid.png")
    drawn = figure.texts[-1].get_text()
    assert len(drawn) <= len(name) + 2 and drawn.replace("\n", "")[:4].strip() == name[:4].strip()
    visualisation.save(visualisation.bar_chart([name], [1.0], title=name, xlabel=name), tmp_path / "bars.png")


def test_windows_and_the_truth_are_told_apart():
    boxes = np.array([[5, 5, 20, 20.0]] * 3)
    figure = visualisation.windows_on_pictures([picture()] * 3, boxes, ["a", "b", "c"], boxes + 5, "Windows")
    assert {"the model's window", "the truth", "a", "b", "c"} <= set(texts(figure))
    lines = {patch.get_linestyle() for patch in figure.axes[0].patches}
    assert len(lines) == 2 and len(figure.axes[0].patches) == 4
    assert "the truth" not in texts(visualisation.windows_on_pictures([picture()], boxes[:1]))


def test_places_beside_windows_are_marked_each_in_a_form_of_its_own():
    points = {name: np.array([[10, 20.0], [30, 5]]) + place for place, name in enumerate(("a map", "another"))}
    figure = visualisation.windows_on_pictures([picture()] * 2, np.array([[5, 5, 20, 20.0]] * 2), points=points)
    assert {"a map", "another"} <= set(texts(figure))
    drawn = [(line.get_marker(), *line.get_xydata()[0]) for line in figure.axes[1].lines]
    assert drawn == [("o", 30, 5), ("s", 31, 6)] and list(figure.data["another y"]) == [21, 6]


@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_windows_over_epochs_shows_the_first_and_the_last(epochs):
    history = np.ones((epochs, 2, 4)) * np.arange(1, epochs + 1)[:, None, None]
    figure = visualisation.windows_over_epochs([picture(), picture((20, 90))], range(1, epochs + 1), history)
    headings = [text for text in texts(figure) if text.startswith("epoch ")]
    assert headings[0] == "epoch 1" and headings[-1] == f"epoch {epochs}" and len(headings) == min(8, epochs)
    assert len(figure.axes) == 2 * len(headings)


def test_pairs_say_who_was_right():
    n = 5
    figure = visualisation.pairs([picture()] * n, [picture()] * n, [2, 2, 1, 3, 1], [1, 1, 1, 0, 2], [1, 0, 1, 0.5, 0])
    verdicts = ["✓ right", "✗ wrong", "undecided", "equally viral"]
    shown = [text for text in texts(figure) if text in verdicts]
    assert shown == ["✓ right", "✗ wrong", "undecided", "equally viral", "✓ right"]
    bold = [text.get_text() for text in figure.texts if text.get_fontweight() == "bold" and "2.00" in text.get_text()]
    assert bold == ["2.00, spread further", "2.00", "2.00, spread further"]


def test_names_in_the_comparison_do_not_overlap():
    figure = visualisation.comparison_chart(networks(), "Four networks")
    assert len(figure.axes) == 2
    renderer = figure.canvas.get_renderer()
    for axes, models in zip(figure.axes, (4, 3), strict=True):
        boxes = [comparison.Text.get_window_extent(text, renderer).extents for text in axes.texts]
        assert len(boxes) == models
        assert not any(comparison._common_area(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert len(visualisation.comparison_chart(networks().assign(train_images_per_second=np.nan)).axes) == 1
    visualisation.comparison_chart(networks().drop(columns=["parameters", "accuracy_low", "pareto"]).iloc[:1])
    visualisation.comparison_chart(pd.DataFrame({"model": [], "accuracy": []}))


# --- what a figure leaves besides its picture -----------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["nowhere", "ipympl", "QtNowhere", "module://matplotlib_inline.backend_inline"])
def test_a_notebook_s_backend_does_not_end_a_script(backend, tmp_path):
    code = "import sys, visualisation as v; v.save(v.bar_chart(['a'], [1]), sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "bars.png"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"MPLBACKEND": backend},
    )
    assert run.returncode == 0 and (tmp_path / "bars.png").is_file(), run.stderr


def every_figure():
    """One of each kind, and how many rows its numbers take."""
    two, boxes, history = [picture(), picture()], np.ones((2, 4)), np.ones((3, 2, 4))
    points = pd.DataFrame({"share": [0.5, 1], "accuracy": [0.9, 0.7], "confidence": [0.6, 0.9], "n": [9, 8]})
    ends = pd.DataFrame({"name": ["=a", "b"], "value": [1, 2.0], "low": [0, np.nan], "high": [2, np.nan]})
    return {
        "learning_curves": (visualisation.learning_curves(metrics(3)), 3),
        "confusion_matrix": (visualisation.confusion_matrix(np.eye(2, dtype=int), ["=a", "b"]), 2),
        "virality_distribution": (visualisation.virality_distribution([1, 2, np.nan]), 2),
        "submissions_per_image": (visualisation.submissions_per_image([1, 1, 5]), 2),
        "score_against_virality": (visualisation.score_against_virality([1, 2], [3, 4]), 2),
        "bar_chart": (visualisation.bar_chart(["=a", "b"], [1, 2]), 2),
        "context_chart": (visualisation.context_chart(ends.assign(method=["=a", "b"], title="all", kind="found")), 2),
        "comparison_chart": (visualisation.comparison_chart(networks()), 4),
        "ranked_strip": (visualisation.ranked_strip(two, [2, 1], boxes, ["=a", "b"]), 2),
        "windows_on_pictures": (visualisation.windows_on_pictures(two, boxes, truth=boxes), 2),
        "windows_over_epochs": (visualisation.windows_over_epochs(two, [1, 2, 3], history), 6),
        "pairs": (visualisation.pairs(two, two, [1, 2], [2, 1], [1, 0]), 2),
        "picture_grid": (visualisation.picture_grid(two, ["=a", "b"]), 2),
        "interval_chart": (visualisation.interval_chart(ends, 0.5), 2),
        "reliability_diagram": (visualisation.reliability_diagram(points), 2),
        "coverage_curve": (visualisation.coverage_curve(points), 2),
    }


def test_every_figure_is_written_with_its_numbers(tmp_path):
    for name, (figure, rows) in every_figure().items():
        visualisation.save_with_data(figure, tmp_path / f"{name}.png")
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert len(table) == rows, name
        assert not re.search("(^|,)=", (tmp_path / f"{name}.csv").read_text()), name  # a spreadsheet runs nothing
        assert (tmp_path / f"{name}.svg").read_text().lstrip().startswith("<?xml"), name
    strip = pd.read_csv(tmp_path / "ranked_strip.csv")
    assert strip["score"].tolist() == [1, 2] and strip["caption"].tolist() == ["b", "'=a"]  # as they are drawn


def test_a_figure_drawn_again_has_the_same_bytes():
    bars = [visualisation.as_bytes(visualisation.bar_chart(["a", "b"], [1, 2]), "svg") for _ in range(2)]
    assert bars[0] == bars[1] and b"<dc:date>" not in bars[0]


def test_intervals_stand_beside_their_baseline():
    table = pd.DataFrame(
        {"name": ["ours $", "theirs"], "value": [0.7, 0.68], "low": [0.6, np.nan], "high": [0.8, np.nan]}
    )
    figure = visualisation.interval_chart(table.assign(n=[489, np.nan], published=[False, True]), 0.5, "share")
    assert {"ours $", "theirs", "0.700   n 489", "0.680", "chance (0.5)", "share"} <= set(texts(figure))
    assert visualisation.interval_chart(table.iloc[:0]).data.empty


def test_no_row_name_lies_over_the_baseline():
    table = pd.DataFrame(
        {"name": ["a rather long name of a ranking that looks at no picture at all", "b"], "value": 0.7}
    )
    figure = visualisation.interval_chart(table.assign(low=0.6, high=0.8), 0.5, "share")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert all(label.get_window_extent().x1 < axes.get_window_extent().x0 for label in axes.get_yticklabels())


def test_reliability_says_how_many_pairs_each_dot_is_of():
    bins = pd.DataFrame({"confidence": [0.55, 0.95], "accuracy": [0.5, 1.0], "n": [1234, 5]})
    assert {"1,234", "5", "a note"} <= set(texts(visualisation.reliability_diagram(bins, note="a note")))
    visualisation.reliability_diagram(bins.iloc[:1])
    curve = visualisation.coverage_curve(pd.DataFrame({"share": [1.0, 0.1], "accuracy": [0.6, 0.9]}))
    assert {"0.900", "0.600", "chance 0.5"} <= set(texts(curve))

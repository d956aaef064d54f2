"""The report of a run: results, figures, metrics and configuration on one page, from what lies in the run's folder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from PIL import Image

from pages.template import data_address, escape, fill_template
from utils import UserError, read_json, write_text

# What each measure is called, and what it says; in the order of the table.
MEASURES = {
    "pair_accuracy": ("Pair accuracy", "share of pairs put in the right order; guessing gives 0.5"),
    "noise_ceiling": ("Noise ceiling", "pair accuracy of a ranker that reads the true cause without error"),
    "of_noise_ceiling": ("Of the noise ceiling", "pair accuracy over the noise ceiling"),
    "accuracy": ("Accuracy", "share of pictures put into the right class"),
    "balanced_accuracy": ("Balanced accuracy", "mean over the classes of the share found"),
    "macro_f1": ("Macro F1", "mean over the classes of F1"),
    "kendall_tau": ("Kendall's τ", "agreement of the two orders, −1 to 1"),
    "spearman_rho": ("Spearman's ρ", "correlation of the ranks, −1 to 1"),
    "pointing_accuracy": ("Pointing accuracy", "share of windows whose centre lies on the true cause"),
    "pointing_accuracy_of_the_centre": (
        "The same of the centre",
        "share of pictures whose centre lies on the true cause",
    ),
    "mean_overlap": ("Mean overlap", "intersection over union of the window and the true cause, 0 to 1"),
    "mean_iou": ("Mean IoU", "intersection over union of the window and the true cause, 0 to 1"),
    "mean_scale": ("Mean scale", "side of the window over the picture's"),
    "n": ("n", "pictures scored"),
    "images": ("Pictures", "scored, each once"),
    "pairs": ("Pairs", "compared"),
    "ties_left_out": ("Ties left out", "pairs of equal virality"),
    "best_epoch": ("Best epoch", "chosen on the validation pictures"),
    "epochs": ("Epochs", ""),
    "seconds": ("Seconds", ""),
    "images_per_second": ("Images a second", ""),
}
SPLITS = (("train_", "Training"), ("val_", "Validation"), ("validation_", "Validation"), ("test_", "Test"))
FIGURES = {
    "curves.png": "Learning curves: training (dashed) and validation, epoch by epoch.",
    "confusion.png": "Confusion matrix on the test pictures: a row is a true class, a column a predicted one.",
    "score_against_virality.png": "Score of each test picture against its virality.",
    "ranked_strip.png": "Test pictures, from the lowest to the highest score.",
    "windows.png": "Where the model looks: its window on test pictures.",
    "windows_over_epochs.png": "How the windows moved while the model learned.",
    "pairs.png": "Pairs of test pictures, with both scores and whether the model was right.",
    "mistakes.png": "Mistakes: those that the model was most, and least, certain of.",
    "comparison.png": "The networks compared: accuracy against speed, the bubble's area the number of parameters.",
    "virality.png": "How the virality scores spread.",
    "submissions.png": "How often the images were submitted.",
}
SETTINGS = ("config", "configuration", "args", "environment")
GROUPS = {"test": "Results on the test pictures", "": "Results", "n": "Pictures in each split"}  # these come first


def report_page(folder: str | Path) -> Path:
    """Write report.html into a run's folder, from what lies there: results, figures, metrics, configuration.

    Whatever is missing is left out; a file that cannot be read is named in the page.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not the folder of a run")
    parts = [_links(folder), _results(folder), _figures(folder), _metrics(folder)]
    for name, heading in (("config.json", "Configuration"), ("environment.json", "Environment")):
        if (folder / name).is_file():
            parts.append(_details(heading, _settings(folder / name)))
    parts.append(_files(folder))
    body = "\n".join(part for part in parts if part)
    write_text(folder / "report.html", fill_template("report.html", f"Run {folder.resolve().name}", body=body))
    return folder / "report.html"


def _links(folder: Path) -> str:
    if not (folder / "leaderboard.html").is_file():
        return ""
    return '<p><a href="leaderboard.html">Leaderboard: the ranked pictures, to sort and filter</a></p>'


def _results(folder: Path) -> str:
    if not (folder / "results.json").is_file():
        return "<p>No results yet: results.json is not in this folder.</p>"
    try:
        results = read_json(folder / "results.json")
    except UserError as error:
        return f"<p>{escape(error)}</p>"
    results = results if isinstance(results, dict) else {"result": results}
    groups: dict[str, dict[str, Any]] = {"": {}}
    for key, value in results.items():
        if key not in SETTINGS:
            if isinstance(value, dict):
                groups[key] = value
            else:
                groups[""][key] = value
    tables = []
    for name in sorted(groups, key=lambda name: [*GROUPS, name].index(name)):
        table = _measures(groups[name])
        if table:
            heading = GROUPS.get(name) or _named(name)
            tables.append(f"<h2>{escape(heading)}</h2>\n{table}")
    everything = f"<pre>{escape(json.dumps(results, indent=2, ensure_ascii=False))}</pre>"
    return "\n".join([*tables, _details("All results, as they are in results.json", everything)])


def _measures(group: dict[str, Any]) -> str:
    """A table of the numbers and short texts of `group`; `x_low` and `x_high` (or `x_std`) go beside x."""
    group = dict(group)
    accuracy, ceiling = group.get("pair_accuracy"), group.get("noise_ceiling")
    if _is_number(accuracy) and _is_number(ceiling) and ceiling > 0:
        group.setdefault("of_noise_ceiling", accuracy / ceiling)
    beside = {f"{key}{end}" for key in group for end in ("_low", "_high", "_std")}
    plain = [key for key, value in group.items() if key not in beside and not isinstance(value, (dict, list))]
    known = [key for key in MEASURES if key in plain]
    rows = []
    for key in [*known, *(key for key in plain if key not in MEASURES)]:
        low, high, spread = (group.get(f"{key}{end}") for end in ("_low", "_high", "_std"))
        interval = f"{_value(low)} to {_value(high)}" if _is_number(low) and _is_number(high) else ""
        value = _value(group[key]) + (f" ± {_value(spread)}" if _is_number(spread) else "")
        rows.append((_named(key), value, interval, MEASURES.get(key, ("", ""))[1]))
    columns = [("value", "number"), ("95 % interval", "number"), ("what it says", "about")]
    used = [place for place in range(3) if place == 0 or any(row[place + 1] for row in rows)]
    head = '<th scope="col">measure</th>'
    head += "".join(f'<th scope="col" class="{columns[place][1]}">{columns[place][0]}</th>' for place in used)
    body = ""
    for name, *cells in rows:
        shown = "".join(f'<td class="{columns[place][1]}">{escape(cells[place])}</td>' for place in used)
        body += f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>' if rows else ""


def _figures(folder: Path) -> str:
    """Every PNG of the folder: the known ones in their order with a caption, then the others by name."""
    files = {path.name: path for path in sorted(folder.glob("*.png"))}
    known = [name for name in FIGURES if name in files]
    parts = ["<h2>Figures</h2>"] if files else []
    for name in [*known, *(name for name in files if name not in FIGURES)]:
        caption = FIGURES.get(name, f"{Path(name).stem.replace('_', ' ')}.")
        try:
            with Image.open(files[name]) as picture:
                width, height = picture.size
            address = data_address(files[name].read_bytes(), "image/png")
        except OSError as error:
            parts.append(f"<p>{escape(name)} cannot be shown: {escape(error)}</p>")
            continue
        # Figures have 150 dots an inch, a page 96: shown so, their letters are as large as on paper.
        across, down = round(width * 0.64), round(height * 0.64)
        kind = ' class="broad"' if across > 640 else ""
        parts.append(
            f'<figure><div class="sheet" tabindex="0" role="group" aria-label="{escape(name)}">'
            f'<img{kind} alt="{escape(caption)}" width="{across}" height="{down}" src="{address}"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "\n".join(parts)


def _metrics(folder: Path) -> str:
    """metrics.csv as a table."""
    if not (folder / "metrics.csv").is_file():
        return ""
    try:
        table = pd.read_csv(folder / "metrics.csv")
    except (OSError, ValueError) as error:  # half a line, or no table at all
        return f"<p>metrics.csv cannot be read: {escape(error)}</p>"
    head = "".join(f'<th scope="col">{escape(_named(column))}</th>' for column in table.columns)
    rows = [
        "<tr>" + "".join(f'<td class="number">{escape(_value(value))}</td>' for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    ]
    body = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Every epoch"><table><thead><tr>{head}</tr></thead>'
    )
    return _details(f"Every epoch ({len(table):,})", f"{body}<tbody>{''.join(rows)}</tbody></table></div>")


def _settings(path: Path) -> str:
    try:
        settings = read_json(path)
    except UserError as error:
        return f"<p>{escape(error)}</p>"
    settings = settings if isinstance(settings, dict) else {"": settings}
    rows = []
    for key, value in settings.items():
        text = ", ".join(f"{k} {_setting(v)}" for k, v in value.items()) if isinstance(value, dict) else _setting(value)
        rows.append(f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>')
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _files(folder: Path) -> str:
    """Links to what else lies in the folder; they work while the page stays there."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    links = [
        f'<li><a href="{escape(quote(os.fsencode(name)))}">{escape(name)}</a></li>'
        for name in names
        if name != "report.html" and not name.startswith(".")
    ]
    return _details("Files of this run", f"<ul>{''.join(links)}</ul>") if links else ""


def _details(heading: str, inside: str) -> str:
    return f"<details><summary>{escape(heading)}</summary>\n{inside}\n</details>"


def _named(key: str) -> str:
    """`val_kendall_tau` → 'Validation Kendall's τ'."""
    key = str(key)
    if key in MEASURES:
        return MEASURES[key][0]
    for prefix, name in SPLITS:
        if key.startswith(prefix):
            rest = MEASURES.get(key.removeprefix(prefix), (key.removeprefix(prefix).replace("_", " "),))[0]
            return f"{name} {rest[0].lower() + rest[1:] if not rest.startswith(('Kendall', 'Spearman')) else rest}"
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(value: Any) -> str:
    """A number as people read it: whole ones with commas, others to three places or so."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not _is_number(value):
        return str(value)
    if math.isfinite(value) and float(value).is_integer() and abs(value) >= 1:
        return f"{int(value):,}".replace("-", "−")
    size = abs(value)
    kind = ".3g" if size < 0.001 else ".3f" if size < 10 else ".4g" if size < 1000 else ",.0f"
    return format(value, kind).replace("-", "−")


def _setting(value: Any) -> str:
    """A setting as it was given: no commas, no rounding."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Results in words: the name and meaning of each measure, readable numbers, and tables of them."""

from __future__ import annotations

import json
import math
from typing import Any

from pages.template import escape

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
    "pictures_with_a_cue": ("Pictures with a cue", "whose windows these figures are of"),
    "mean_overlap": ("Mean overlap", "intersection over union of the window and the true cause, 0 to 1"),
    "mean_iou": ("Mean IoU", "intersection over union of the window and the true cause, 0 to 1"),
    "mean_scale": ("Mean scale", "side of the window over the picture's"),
    "temperature": ("Temperature", "what differences of scores are divided by; fitted on validation pairs"),
    "log_loss": ("Log loss", "a pair's mean −log of the probability given to what happened; a coin has 0.693"),
    "brier": ("Brier score", "mean squared error of the probability; a coin has 0.25"),
    "ece": ("Expected calibration error", "mean distance of how sure it is from how often it is right; ideal 0"),
    "n": ("n", "pictures scored"),
    "images": ("Pictures", "scored, each once"),
    "pairs": ("Pairs", "compared"),
    "ties_left_out": ("Ties left out", "pairs of equal virality"),
    "best_epoch": ("Best epoch", "chosen on the validation pictures"),
    "epochs": ("Epochs", ""),
    "seconds": ("Seconds", "to score the test pictures"),
    "images_per_second": ("Images a second", "while scoring them"),
}
SPLITS = (("train_", "Training"), ("val_", "Validation"), ("validation_", "Validation"), ("test_", "Test"))


def measures_table(group: dict[str, Any]) -> str:
    """A table of the numbers and short texts of `group`; `x_low` and `x_high` (or `x_std`) go beside x."""
    group = dict(group)
    accuracy, ceiling = group.get("pair_accuracy"), group.get("noise_ceiling")
    if is_number(accuracy) and is_number(ceiling) and ceiling > 0:
        group.setdefault("of_noise_ceiling", accuracy / ceiling)
    beside = {f"{key}{end}" for key in group for end in ("_low", "_high", "_std")}
    hollow = (dict, list, type(None))
    plain = [key for key, value in group.items() if key not in beside and not isinstance(value, hollow)]
    known = [key for key in MEASURES if key in plain]
    rows = []
    for key in [*known, *(key for key in plain if key not in MEASURES)]:
        low, high, spread = (group.get(f"{key}{end}") for end in ("_low", "_high", "_std"))
        value = value_text(group[key]) + (f" ± {value_text(spread)}" if is_number(spread) else "")
        rows.append((name_of(key), value, interval_text(low, high), MEASURES.get(key, ("", ""))[1]))
    columns = {"measure": "", "value": "number", "95 % interval": "number", "what it says": "about"}
    return html_table(columns, rows) if rows else ""


def html_table(columns: dict[str, str], rows: list[tuple[str, ...]]) -> str:
    """`columns`: heading → class of its cells ('' for none). A column that is empty in every row is left out; the first
    one names the row. What is `about` stands under that name where the screen is narrow."""
    used = [place for place in range(len(columns)) if place == 0 or any(row[place] for row in rows)]
    headings, kinds = list(columns), [f' class="{kind}"' if kind else "" for kind in columns.values()]
    head = "".join(f'<th scope="col"{kinds[place]}>{escape(headings[place])}</th>' for place in used)
    body = ""
    for row in rows:
        cells = "".join(f"<td{kinds[place]}>{escape(row[place])}</td>" for place in used[1:])
        about = "".join(
            f'<span class="narrow">{escape(row[place])}</span>' for place in used if "about" in kinds[place]
        )
        body += f'<tr><th scope="row">{escape(row[0])}{about}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def name_of(key: str) -> str:
    """`val_kendall_tau` → 'Validation Kendall's τ'."""
    key = str(key)
    if key in MEASURES:
        return MEASURES[key][0]
    for prefix, name in SPLITS:
        if key.startswith(prefix):
            rest = MEASURES.get(key.removeprefix(prefix), (key.removeprefix(prefix).replace("_", " "),))[0]
            return f"{name} {rest if rest.startswith(('Kendall', 'Spearman')) else rest[:1].lower() + rest[1:]}"
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def is_number(value: Any) -> bool:
    """Whether this is a finite number; JSON's NaN and Infinity are not, nor are numbers beyond a float's range."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def value_text(value: Any) -> str:
    """A number in readable form: integers with thousands separators, others to about three digits."""
    if value is None or value != value:  # NaN
        return "–"
    if not is_number(value):
        return str(value)
    if float(value).is_integer() and abs(value) >= 1:
        return f"{int(value):,}".replace("-", "−")
    size = abs(value)
    kind = ".3g" if size < 0.001 else ".3f" if size < 10 else ".4g" if size < 1000 else ",.0f"
    return format(value, kind).replace("-", "−")


def interval_text(low: Any, high: Any) -> str:
    return f"{value_text(low)} to {value_text(high)}" if is_number(low) and is_number(high) else ""


def setting_text(value: Any) -> str:
    """A setting as it was given: no commas, no rounding."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

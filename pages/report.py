"""The report of a run: results, figures, metrics and configuration on one page, from the files in the run's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pages.evidence import copies_section, sections, surroundings_section
from pages.figures import figures_of
from pages.measures import measures_table, name_of, setting_text, value_text
from pages.template import escape, fill_template
from utils import UserError, read_json, write_text

SETTINGS = ("config", "configuration", "args", "environment")
SECTIONS = ("context", "calibration", "deletion")  # of results.json: drawn in sections of their own
GROUPS = {"test": "Results on the test pictures", "": "Results", "n": "Pictures in each split"}  # these come first


def report_page(folder: str | Path) -> Path:
    """Write report.html into a run's folder, from the files there: results, figures, metrics, configuration.

    leaderboard.html, context.json, and groups.csv with the page of the groups (copies.html or groups.html), may also be
    one folder up, where the runs of a pipeline share them.
    Missing files are left out; a file that cannot be read is named on the page.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not the folder of a run")
    page = _address(folder, "copies.html") or _address(folder, "groups.html")
    copies = copies_section(_path(folder, "groups.csv"), page)
    tables, everything = _results(folder)
    surroundings = surroundings_section(_path(folder, "context.json"))
    parts = [_links(folder), tables, surroundings, copies, figures_of(folder), everything, _metrics(folder)]
    for name, heading in (("config.json", "Configuration"), ("environment.json", "Environment")):
        if (folder / name).is_file():
            parts.append(_details(heading, _settings(folder / name)))
    parts.append(_files(folder))
    body = "\n".join(part for part in parts if part)
    write_text(folder / "report.html", fill_template("report.html", f"Run {folder.resolve().name}", body=body))
    return folder / "report.html"


def _path(folder: Path, name: str) -> Path | None:
    """A file of the run, or of the pipeline that it belongs to."""
    return next((path for path in (folder / name, folder.parent / name) if path.is_file()), None)


def _address(folder: Path, name: str) -> str | None:
    """The same as an address to link to."""
    path = _path(folder, name)
    return path and (name if path.parent == folder else f"../{name}")


def _links(folder: Path) -> str:
    address = _address(folder, "leaderboard.html")
    return f'<p><a href="{address}">Leaderboard: the ranked pictures, to sort and filter</a></p>' if address else ""


def _results(folder: Path) -> tuple[str, str]:
    """Tables and sections of results.json, and the whole of it."""
    if not (folder / "results.json").is_file():
        return "<p>No results yet: results.json is not in this folder.</p>", ""
    try:
        results = read_json(folder / "results.json")
    except UserError as error:
        return f"<p>{escape(error)}</p>", ""
    results = results if isinstance(results, dict) else {"result": results}
    if (folder / "deletion.json").is_file():
        try:
            results["deletion"] = read_json(folder / "deletion.json")
        except UserError as error:
            return f"<p>{escape(error)}</p>", ""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for key, value in results.items():
        if key not in SETTINGS + SECTIONS:
            if isinstance(value, dict):
                groups[key] = value
            else:
                groups[""][key] = value
    parts = []
    for name in sorted(groups, key=lambda name: [*GROUPS, name].index(name)):
        table = measures_table(groups[name])
        if table:
            heading = GROUPS.get(name) or name_of(name)
            parts.append(f"<h2>{escape(heading)}</h2>\n{table}")
    parts.insert("test" in groups, sections(results))  # beside the figures that they belong to
    text = escape(json.dumps(results, indent=2, ensure_ascii=False))
    everything = f"<pre tabindex=0 role=group aria-label=results.json>{text}</pre>"
    whole = _details("All results, as they are in results.json", everything)
    return "\n".join(part for part in parts if part), whole


def _metrics(folder: Path) -> str:
    """metrics.csv as a table."""
    if not (folder / "metrics.csv").is_file():
        return ""
    try:
        table = pd.read_csv(folder / "metrics.csv")
    except (OSError, ValueError) as error:  # half a line, or no table at all
        return f"<p>metrics.csv cannot be read: {escape(error)}</p>"
    head = "".join(f'<th scope="col">{escape(name_of(column))}</th>' for column in table.columns)
    rows = [
        "<tr>" + "".join(f'<td class="number">{escape(value_text(value))}</td>' for value in row) + "</tr>"
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
        text = (
            ", ".join(f"{k} {setting_text(v)}" for k, v in value.items())
            if isinstance(value, dict)
            else setting_text(value)
        )
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

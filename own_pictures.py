"""Your own pictures → a data set: a folder per community for the classifier, a CSV file of scores for the ranker.

A folder is read like torchvision's ImageFolder: everything in one of its subfolders, at any depth and also in tars,
belongs to the community of that name. If the subfolders are called train, validation (or val, valid) and test, the
folders in them are the communities, and these names go into the column `split`. A CSV file has the columns `file`
(relative to the CSV file, or absolute) and `score`, and may have `split` and `group` (copies of one picture).

Pictures of any format and name become images/<img_id>.jpg, as hard links where the file system allows, otherwise as
copies. Files named by a whole number keep it as img_id; others are numbered. datasets/files.csv (img_id,file) records
the mapping, and pictures that are already in it keep their number, so that one data set can have both tables.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from decoding.decoder import UnusablePicture
from locks import alone
from pictures.left_out import LeftOut
from pictures.sources import Source, content, list_sources, picture_path
from utils import UserError, read_csv, write_csv, written_whole

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
FILE_COLUMNS, SCORE_COLUMNS = ("file", "path"), ("score", "v_score")
KNOWN = "files.csv"


def make_data_set(source: str | Path, data_path: str | Path, left_out: LeftOut) -> tuple[str, pd.DataFrame]:
    """Write the tables of a data set, and its pictures, from a folder or a CSV file.

    Returns the name of the table written ('image4classification' or 'data_set_iv') and the table. Raises UserError.
    """
    source, data_path = Path(source), Path(data_path)
    if data_path.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--data_path {data_path} is inside --from {source}: its own pictures would be read as well")
    if source.is_dir():
        name, (table, sources) = "image4classification", of_folder(source, left_out)
    elif source.is_file():
        name, (table, sources) = "data_set_iv", of_scores(source, left_out)
    else:
        raise UserError(f"--from {source} does not exist")
    with alone(data_path / "datasets" / KNOWN):
        table.insert(0, "img_id", numbered(sources, data_path))
        for img_id, picture in zip(table["img_id"], sources, strict=True):
            try:
                place(picture, picture_path(data_path, img_id))
            except UnusablePicture as fault:  # broken in its archive: a training names it as missing
                left_out(picture.path, str(fault))
        write_csv(data_path / "datasets" / f"{name}.csv", table)
    return name, table


# --- what there is --------------------------------------------------------------------------------------------------
def of_folder(folder: Path, left_out: LeftOut) -> tuple[pd.DataFrame, list[Source]]:
    """file, subreddit, label and, if the folders give it, split of each picture; and the path of each picture."""
    sources = list(list_sources(folder, left_out))
    parts = [Path(os.path.relpath(each.path, folder)).parts for each in sources]
    tops = {part[0] for part in parts if len(part) > 1}
    split = "train" in map(str.lower, tops) and all(top.lower() in SPLITS for top in tops)
    depth, rows, kept = (2 if split else 1), [], []
    for each, part in zip(sources, parts, strict=True):
        if each.fault:
            left_out(each.path, each.fault)
        elif len(part) <= depth:
            left_out(each.path, "in no community's folder")
        else:
            rows.append([os.path.join(*part), plain(part[depth - 1]), *([SPLITS[part[0].lower()]] if split else [])])
            kept.append(each)
    table = pd.DataFrame(rows, columns=["file", "subreddit", *(["split"] if split else [])])
    names = sorted(table["subreddit"].unique())
    if len(names) < 2:
        raise UserError(
            f"--from {folder}: pictures in {len(names)} folders, but a classifier needs at least two communities"
        )
    table.insert(2, "label", table["subreddit"].map({name: label for label, name in enumerate(names)}))
    return table, kept


def of_scores(path: Path, left_out: LeftOut) -> tuple[pd.DataFrame, list[Source]]:
    """file, v_score and, if the CSV has them, split and group of each picture; and the path of each picture."""
    given = read_csv(path, [], dtype=str, encoding="utf-8-sig", encoding_errors="surrogateescape")
    file, score = column_of(given, FILE_COLUMNS, path), column_of(given, SCORE_COLUMNS, path)
    numbers = pd.to_numeric(given[score], errors="coerce")
    for bad, what in ((given[file].isna(), file), (~np.isfinite(numbers), score)):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(f"{path} line {row + 2}: {what} is {str(given[what].iloc[row])!r}, which is not valid")
    if given[file].duplicated().any():
        row = int(np.flatnonzero(given[file].duplicated())[0])
        raise UserError(f"{path} line {row + 2}: {given[file].iloc[row]!r} occurs twice")
    more = given[[name for name in ("split", "group") if name in given]]
    table = pd.concat([given[file].rename("file"), numbers.rename("v_score"), more], axis=1)
    places = [picture_of(name, path.parent) for name in table["file"]]
    for name, place in zip(table["file"], places, strict=True):
        if place is None:
            left_out(os.path.join(path.parent, name), "no such file")
    there = np.array([place is not None for place in places])
    if not there.any():
        raise UserError(f"--from {path}: none of its {len(table)} files exists; the first is {table['file'][0]!r}")
    order = np.flatnonzero(there)[np.argsort(table["v_score"][there].to_numpy(), kind="stable")]  # lowest first
    return table.iloc[order].reset_index(drop=True), [Source(str(places[row]), str(places[row])) for row in order]


def picture_of(name: str, folder: Path) -> Path | None:
    """The file that a CSV in `folder` refers to, relative to that folder or to the working directory."""
    names = (name, name.replace("\\", "/"))  # as Windows writes paths
    return next((path for base in (folder, Path()) for each in names if (path := base / each).is_file()), None)


def column_of(table: pd.DataFrame, names: Iterable[str], path: Path) -> str:
    for name in names:
        if name in table:
            return name
    raise UserError(f"{path} has no column {' or '.join(names)} (its columns: {', '.join(map(str, table.columns))})")


def plain(name: str) -> str:
    """A community's name that no spreadsheet interprets as a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


# --- where it goes --------------------------------------------------------------------------------------------------
def numbered(sources: list[Source], data_path: Path) -> np.ndarray:
    """The img_id of each picture, which files.csv then holds too: its number there; else its name, where all new ones
    have whole numbers as names that are free; else the next numbers."""
    path = data_path / "datasets" / KNOWN
    known = read_csv(path, ["img_id", "file"], encoding_errors="surrogateescape") if path.is_file() else None
    ids = {} if known is None else dict(zip(known["file"], known["img_id"].astype(int), strict=True))
    files = [os.path.realpath(each.file) + each.path[len(each.file) :] for each in sources]
    new = [file for file in dict.fromkeys(files) if file not in ids]
    stems = [Path(file).stem for file in new]
    wanted = [int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) <= 15]
    if len(set(wanted)) < len(new) or set(wanted) & set(ids.values()):
        first = max(ids.values(), default=0) + 1
        wanted = range(first, first + len(new))
    ids |= dict(zip(new, wanted, strict=True))
    write_csv(path, pd.DataFrame({"img_id": ids.values(), "file": ids.keys()}))
    return np.array([ids[file] for file in files], dtype=np.int64)


def place(source: Source, path: Path) -> None:
    """Put a picture at `path`; an existing one keeps its modification time, so that its decoded copy stays valid."""
    if source.size >= 0:
        found = content(source)
        if not path.is_file() or path.read_bytes() != found:
            with written_whole(path) as beside:
                beside.write_bytes(found)
        return
    status = os.stat(source.file)
    if path.is_file() and (os.path.samefile(source.file, path) or same(status, os.stat(path))):
        return
    with written_whole(path) as beside:
        try:
            os.link(os.path.realpath(source.file), beside)
        except OSError:  # another disk, or one that knows no links
            shutil.copy2(source.file, beside)


def same(first: os.stat_result, second: os.stat_result) -> bool:
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)

"""Feature files (.npz of `names` and `features`) from any source: read, validated, and matched with a table's images.

`names` (n,) are img_ids, or paths to files so named; `features` (n, d or n, …) are numbers. Nothing is unpickled.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils import UserError


@dataclass
class FeatureFile:
    """`names` (n,) of pictures, `features` (n, d; float32), and what made them (`about`), where the file says it."""

    path: Path
    names: np.ndarray
    features: np.ndarray
    about: dict[str, Any]


@dataclass
class FeaturesOfImages:
    """Features in place of a data set's pictures: `img_ids` (n,), `features` (n, d), `faults` (img_id, fault)."""

    img_ids: np.ndarray
    features: np.ndarray
    faults: pd.DataFrame

    def rows_of(self, img_ids: np.ndarray) -> np.ndarray:
        """The rows of these img_ids, −1 for those without features."""
        return pd.Index(self.img_ids).get_indexer(img_ids)


def read_feature_file(path: str | Path) -> FeatureFile:
    """Read an .npz file with `names` and `features`. Raises UserError with the file's name and its fault."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"--features {path} does not exist")
    if not zipfile.is_zipfile(path):  # numpy would advise to unpickle it
        raise UserError(f"--features {path} cannot be read: not a feature file (.npz), or only part of one")
    try:
        with np.load(path) as file:  # numpy's own default: no pickles
            if missing := {"names", "features"} - set(file.files):
                found = ", ".join(file.files)
                raise UserError(f"--features {path} has no array {' and '.join(sorted(missing))} (it has {found})")
            names, features = file["names"], file["features"]
            about = _about(file)
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise many types for a file that is damaged
        pickled = "Object arrays" in str(error)
        why = "it holds pickled objects: save names with dtype=str" if pickled else (str(error) or "?").splitlines()[0]
        raise UserError(f"--features {path} cannot be read as an .npz of arrays: {why}") from error
    names = np.char.decode(names, "utf-8", "surrogateescape") if names.dtype.kind == "S" else names.astype(str)
    return FeatureFile(path, names, _checked(path, names, features), about)


def _about(file: np.lib.npyio.NpzFile) -> dict[str, Any]:
    """What feature_extractor.py wrote of the network; another's array of that name may be anything."""
    try:
        about = json.loads(str(file["about"])) if "about" in file.files else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _checked(path: Path, names: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The features as (n, d) float32."""
    if names.ndim != 1 or features.ndim < 2 or len(names) != len(features):
        raise UserError(f"--features {path}: names is {names.shape}, features {features.shape}: not (n,) and (n, d)")
    if not features.size:
        raise UserError(f"--features {path}: features is {features.shape}: nothing to learn from")
    if features.dtype.kind not in "fiub":
        raise UserError(f"--features {path}: features has dtype {features.dtype}, which is not numeric")
    if len(np.unique(names)) < len(names):
        twice = pd.Series(names)[pd.Series(names).duplicated()].iloc[0]
        raise UserError(f"--features {path}: the name {str(twice)!r} occurs twice")
    with np.errstate(over="ignore"):
        flat = features.reshape(len(features), -1).astype(np.float32)
    bad = ~np.isfinite(flat)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UserError(f"--features {path}: feature {column} of {str(names[row])!r} is NaN or infinite")
    return flat


def places_of(file: FeatureFile, img_ids: np.ndarray) -> np.ndarray:
    """The rows of these images' features in the file, (n,) int64; −1 for an image without features.

    Raises UserError if two names refer to one image.
    """
    number = pd.Series(file.names).str.extract(r"(?:^|[/\\])(-?\d+)(?:\.\w+)?$")[0].astype(float)
    known = number.isin(img_ids).to_numpy()
    place = pd.Series(np.flatnonzero(known), number[known].astype(np.int64))
    if place.index.has_duplicates:
        twice = place.index[place.index.duplicated()][0]
        raise UserError(f"--features {file.path}: two of its names refer to img_id {twice}")
    return place.reindex(img_ids, fill_value=-1).to_numpy()


def of_images(file: FeatureFile, img_ids: pd.Series) -> FeaturesOfImages:
    """The features of a table's images; images without features are `faults`, names without an image are counted.

    Raises UserError if no name matches, or two names refer to one image.
    """
    places = places_of(file, img_ids.to_numpy())
    there = places >= 0
    if not there.any():
        n, first = len(file.names), str(file.names[0])
        raise UserError(f"--features {file.path}: none of its {n} names ({first!r}, …) is in the table")
    if strangers := len(file.names) - there.sum():
        strange = str(np.delete(file.names, places[there])[0])
        print(f"features: {strangers} of {len(file.names)} names are not in the table ({strange!r}, …)", flush=True)
    lacking = pd.DataFrame({"img_id": img_ids[~there], "fault": "no features"})
    if len(lacking):
        print(f"features: {len(lacking)} of {len(img_ids)} images have no features and are left out", flush=True)
    return FeaturesOfImages(img_ids[there].to_numpy(), file.features[places[there]], lacking)

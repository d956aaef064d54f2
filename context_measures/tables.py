"""The figures of context.json as a table for printing and plotting."""

from __future__ import annotations

from typing import Any

import pandas as pd

COLUMNS = ["method", "set", "value", "low", "high", "n", "kind", "title"]
PUBLISHED = {
    "attributes": "attributes of the picture, computed again",
    "published_attributes": "published: attributes of the picture",
    "published_people": "published: people who look",
}


def as_table(found: dict[str, Any]) -> pd.DataFrame:
    """method, set (and its title), value, low, high, n of every figure on pairs, and its kind: found, published, or
    label (what is part of the label)."""
    kinds = {"submissions": "label", "published_people": "published", "published_attributes": "published"}
    rows = [
        {"method": name, "set": key, **share, "kind": kinds.get(method, "found")}
        for key, name_of_set in found["sets"].items()
        for method, name in found["methods"].items()
        if (share := found.get(f"{method}_{key}"))
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return table.assign(title=table["set"].map(found["sets"]))

"""From verified pairs to groups of copies of one picture, with corrections made by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd

COLUMNS = ["img_id", "group", "kind", "of", "distance"]
Near = dict[int, dict[int, tuple[float, str]]]  # of a picture, its copies: distance and kind


def group_pictures(n: int, pairs: pd.DataFrame, sizes: np.ndarray, by_hand: np.ndarray | None = None) -> np.ndarray:
    """The group of each of n pictures, as the place of its first member, from verified pairs.

    `pairs`: first, second, kind, distance; `sizes` (n, 2) in pixels. In what the pairs connect, a group is a picture
    (that with the most copies; of equals the largest), its copies, and what is the same as one of these or a copy of
    two; what is left over forms groups of its own. So a chain of crops, each a copy of the next, is cut.

    `by_hand` (n,): the group that a person has given, −1 for none. These are kept; a picture that nobody has placed
    joins the group of its nearest copy.
    """
    near: Near = defaultdict(dict)
    for one, other, kind, distance in pairs[["first", "second", "kind", "distance"]].itertuples(index=False):
        near[one][other] = near[other][one] = distance, kind
    group = np.arange(n)
    if by_hand is not None:
        _place_by_hand(group, near, by_hand)
    for star in _stars(near, sizes):
        group[star] = star[0]
    _, lowest, which = np.unique(group, return_index=True, return_inverse=True)
    return lowest[which]


def _place_by_hand(group: np.ndarray, near: Near, by_hand: np.ndarray) -> None:
    """Put the groups that a person has given into `group`, beside each the pictures whose nearest copy is in it, and
    take all of these out of `near`."""
    placed = np.flatnonzero(by_hand >= 0)
    _, first, which = np.unique(by_hand[placed], return_index=True, return_inverse=True)
    group[placed] = placed[first[which]]
    gone = set(placed.tolist())
    for one in set(near) - gone:
        if copies := [(distance, other) for other, (distance, _) in near[one].items() if by_hand[other] >= 0]:
            group[one] = group[min(copies)[1]]
            gone.add(one)
    for one in gone:
        for other in near.pop(one, {}):
            if other in near:
                near[other].pop(one, None)


def _stars(near: Near, sizes: np.ndarray) -> Iterator[list[int]]:
    """The groups among pictures whose copies `near` names, each in order."""
    areas = sizes.prod(axis=1)
    for together in _connected(near):
        while together:
            hub = max(together, key=lambda one: (len(near[one].keys() & together), areas[one], -one))
            copies = near[hub].keys() & together
            star = {hub, *copies}
            for one in together - star:
                links = near[one].keys() & copies
                if len(links) > 1 or any(near[one][link][1] == "same" for link in links):
                    star.add(one)
            yield sorted(star)
            together -= star


def _connected(near: Near) -> Iterator[set[int]]:
    seen: set[int] = set()
    for start in near:
        if start in seen:
            continue
        part, ahead = {start}, [start]
        while ahead:
            for other in near[ahead.pop()].keys() - part:
                part.add(other)
                ahead.append(other)
        seen |= part
        yield part


def describe(img_ids: np.ndarray, group: np.ndarray, pairs: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """The table of COLUMNS. A picture that has copies is told apart from the one of them with the most, or, where these
    two are no verified pair, from its nearest."""
    inside = pairs[group[pairs["first"]] == group[pairs["second"]]]
    both = pd.concat([inside, inside.rename(columns={"first": "second", "second": "first"})])
    degree = np.bincount(both["first"], minlength=len(group))
    order = np.lexsort((np.arange(len(group)), -sizes.prod(axis=1), -degree, group))
    hub = np.empty(len(group), int)
    start = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(group) else np.zeros(0, int)
    hub[order] = np.repeat(order[start], np.diff(np.r_[start, len(group)]))
    both = both[both["first"] != hub[both["first"]]]
    both = both.assign(other=both["second"] != hub[both["first"]]).sort_values(["first", "other", "distance"])
    best = both.drop_duplicates("first").set_index("first")
    table = pd.DataFrame({"img_id": img_ids, "group": img_ids[group]})
    table = table.join(best[["kind", "second", "distance"]])
    table["of"] = pd.Series(img_ids[best["second"]], best.index).reindex(table.index).astype("Int64")
    return table[COLUMNS]

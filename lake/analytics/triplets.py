"""Triplets out of neighbour lists: an anchor, a far row of its own label, and a near row of another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.analytics.joined import Ids, Lists
from lake.analytics.results import whole_number
from lake.errors import InvalidInput

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Which neighbours are taken; see `lake.analytics.mine`."""

    positives: int
    negatives: int
    margin: float | None
    relative: float
    skip: int


@dataclass(frozen=True)
class Triplets:
    """Triplets, those of an anchor together: its hardest positive first, and of each the hardest negative first.

    Parameters
    ----------
    anchors, positives, negatives : int64, shape (n,)
        Row ids.
    positive_distances, negative_distances : float32, shape (n,)
        From the anchor.
    mined, no_positive, no_negative : int
        Anchors that have triplets, that have no neighbour of their label, and all others.
    refused : int
        Neighbours of another label that were too near.
    """

    anchors: Ids = field(hash=False)
    positives: Ids = field(hash=False)
    negatives: Ids = field(hash=False)
    positive_distances: NDArray[np.float32] = field(hash=False)
    negative_distances: NDArray[np.float32] = field(hash=False)
    mined: int
    no_positive: int
    no_negative: int
    refused: int


def triplets(lists: Lists, left: pa.ChunkedArray, right: pa.ChunkedArray, rule: Rule) -> Triplets:
    """Choose positives and negatives of each list, and combine them.

    Parameters
    ----------
    left, right : ChunkedArray
        The labels of each neighbour's anchor, and its own; none is null.
    """
    of, distances = lists.lists, lists.distances
    same = pc.equal(left, right).combine_chunks().to_numpy(zero_copy_only=False)
    nearest = np.minimum.reduceat(np.where(same, distances, np.float32(np.inf)), lists.starts)
    legal = ~same & np.isfinite(nearest)[of]
    if rule.margin is not None:
        legal &= distances >= (nearest * (1 + rule.relative) + rule.margin)[of]
    far = np.bincount(of[same], minlength=len(lists.starts))[of] - _nth(same, lists)  # 0 is the farthest
    hard = same & (far < rule.positives)
    nth = _nth(legal, lists)
    near = legal & (nth > rule.skip) & (nth <= rule.skip + rule.negatives)
    positives, negatives = np.flatnonzero(hard)[::-1], np.flatnonzero(near)
    positives = positives[np.argsort(of[positives], kind="stable")]
    a, b = (np.bincount(of[at], minlength=len(lists.starts)) for at in (positives, negatives))
    owner = np.repeat(np.arange(len(a)), a * b)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(a * b) - a * b, a * b)
    p = positives[(np.cumsum(a) - a)[owner] + number // b[owner]]
    n = negatives[(np.cumsum(b) - b)[owner] + number % b[owner]]
    refused = ~same & ~legal & np.isfinite(nearest)[of]
    mined, alone = int(((a > 0) & (b > 0)).sum()), int((~np.isfinite(nearest)).sum())
    return Triplets(
        lists.left[owner],
        lists.right[p],
        lists.right[n],
        distances[p],
        distances[n],
        mined,
        alone,
        len(a) - mined - alone,
        int(refused.sum()),
    )


def _nth(chosen: Mask, lists: Lists) -> Ids:
    """Count those chosen of each list up to each neighbour, itself among them."""
    total = np.cumsum(chosen)
    before: Ids = total[lists.starts] - chosen[lists.starts]
    counted: Ids = total - before[lists.lists]
    return counted


def check_rule(positives: int, negatives: int, margin: float | None, relative: float, skip: int) -> Rule:
    """Check a rule.

    Raises
    ------
    InvalidInput
        A number of it makes no sense.
    """
    for name, number in (("margin", margin), ("relative", relative)):
        if number is None and name == "margin":
            continue
        if isinstance(number, bool | str) or not isinstance(number, float | int | np.number) or not number >= 0:
            raise InvalidInput(f"{name}={number!r}: give a distance, 0 or more")
    return Rule(
        whole_number("positives", positives),
        whole_number("negatives", negatives),
        None if margin is None else float(margin),
        float(relative),
        whole_number("skip", skip, 0),
    )

"""How far rows lie from their neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lake.analytics.joined import ByRow, Ids, Lists, Told
from lake.analytics.neighbours import Analysis
from lake.table.sql import both, quote

Scores = NDArray[np.float32]

SCORES = ("kth", "mean")
_FIRST = 2


@dataclass(frozen=True)
class Scored:
    """Rows and their scores.

    Parameters
    ----------
    ids : int64, shape (n,)
        Row ids, ascending.
    scores : float32, shape (n,)
        Not too small; infinite where partitions held too few neighbours to tell.
    score : str
        What they are.
    """

    ids: Ids = field(hash=False)
    scores: Scores = field(hash=False)
    score: str


def scored(work: Analysis, side: ByRow, told: Told, score: str) -> Scored:
    """Score rows by the lists that a join of them has left."""
    ids, scores, sizes = _read(work, "near", score)
    others = told.rows - told.without_vector - 1
    scores[sizes < min(work.how.k, others)] = np.inf
    if others > 0 and len(ids) <= others:  # some met no other at all
        there = replace(side, where=both(side.where, f"{quote(side.column)} IS NOT NULL"))
        known = [batch.column("_rowid").to_numpy().astype(np.int64) for batch in there.read(None, [])]
        lacking = np.setdiff1d(np.concatenate(known), ids)
        ids = np.concatenate([ids, lacking])
        scores = np.concatenate([scores, np.full(len(lacking), np.inf, np.float32)])
    order = np.argsort(ids)
    return Scored(ids[order], scores[order], score)


def search_again(work: Analysis, side: ByRow, found: Scored, flagged: int) -> int:
    """Compare rows with every other until those with the largest scores are known; return how many rows that were.

    The scores of rows that were compared are exact, and the others' not too small. So none but those whose scores
    reach what the exact ones reach can be among the `flagged` largest.
    """
    exact = np.zeros(len(found.ids), np.bool_)
    first = min(_FIRST * flagged, len(found.ids))  # the more are exact at first, the fewer are left to doubt
    bar = np.partition(found.scores, -first)[-first] if first else np.inf
    for name in ("again", "once-more"):
        chosen = ~exact & (found.scores >= bar)
        if not chosen.any():
            break
        listed = ",".join(map(str, found.ids[chosen].tolist()))
        some = replace(side, where=both(side.where, f"_rowid IN ({listed})"))
        work.join(name, work.plan(some, side, recall=1.0), apart=True)
        ids, scores, _ = _read(work, name, found.score)
        found.scores[np.searchsorted(found.ids, ids)] = scores
        exact |= chosen
        if flagged:
            bar = np.partition(found.scores[exact], -flagged)[-flagged]
    return int(exact.sum())


def _read(work: Analysis, name: str, score: str) -> tuple[Ids, Scores, Ids]:
    """Return row ids, their scores, and how many neighbours each has."""
    found = [(lists.left, _score(lists, score), lists.sizes) for lists in work.lists(name)]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    ids, scores, sizes = (np.concatenate(part) for part in zip(*found, strict=True))
    return ids, scores, sizes


def _score(lists: Lists, score: str) -> Scores:
    if score == "kth":
        farthest: Scores = lists.distances[lists.starts + lists.sizes - 1]
        return farthest
    sums = np.add.reduceat(lists.distances.astype(np.float64), lists.starts)
    return (sums / lists.sizes).astype(np.float32)

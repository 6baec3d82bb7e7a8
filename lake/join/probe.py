"""Partition by partition: each is read once, and those who look into it meet its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lake.join.conditions import Checks
from lake.join.partitions import Group, Partitions
from lake.join.route import probers_of
from lake.nearest.kernel import Nearest, Rows
from lake.run.threads import Hands


def probe(
    found: Nearest,
    checks: Checks,
    pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
    partitions: Partitions,
    those: NDArray[np.int64],
    *,
    others: int,
    hands: Hands,
) -> int:
    """Let queries meet the rows of the partitions that they look into.

    Parameters
    ----------
    found : Nearest
    checks : Checks
        Begun with the same queries.
    pairs : (int32, int32), shapes (m,)
        Queries, ascending, and partitions that they look into.
    partitions : Partitions
    those : int64
        The partitions to be read, ascending; those that nobody looks into are not.
    others : int
        So many of the last queries look into all of them: what they find is the truth.
    hands : Hands

    Returns
    -------
    int
        How many pairs met, those of queries that look everywhere left out.
    """
    probers, ends = probers_of(*pairs, len(partitions.rows), hands.count)
    count = len(found.queries)
    everywhere = np.array_split(np.arange(count - others, count, dtype=np.int32), hands.count)

    def prepared(group: Group) -> tuple[Group, Rows]:
        probed = (ends[group.homes, -1] - ends[group.homes, 0]).mean() if len(group.ids) else 0
        return group, found.prepare(group.vectors, group.ids, probed + others)

    def meet(item: tuple[Group, Rows], hand: int) -> int:
        group, rows = item
        homes, row_ends = group.partitions()
        firsts, lasts = ends[homes, hand], ends[homes, hand + 1]
        counts = lasts - firsts
        if not counts.any() and not len(everywhere[hand]):
            return 0
        may = checks.against(group.ids)
        which = np.concatenate([probers[:0], *(probers[a:b] for a, b in zip(firsts, lasts, strict=True))])
        found.meet_shares(which, np.append(0, np.cumsum(counts)), rows, row_ends, may)
        if len(everywhere[hand]):
            found.meet(everywhere[hand], rows, may)
        return int(counts @ np.diff(row_ends))

    probed = (ends[those, -1] > ends[those, 0]) | (others > 0)
    groups = partitions.read(those[probed & (partitions.rows[those] > 0)], hands.count)
    return sum(hands.over(map(prepared, groups), meet))

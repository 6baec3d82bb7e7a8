"""Partition by partition: each is read once, and those who look into it meet its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lake.join.conditions import Checks
from lake.join.route import probers_of
from lake.join.runs import Group, Partitions
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
        (group, rows), compared = item, 0
        for partition, part in group.partitions():
            which = probers[ends[partition, hand] : ends[partition, hand + 1]]
            found.meet(which, rows[part], checks.against(group.ids[part]))
            compared += len(which) * (part.stop - part.start)
        if len(everywhere[hand]):
            found.meet(everywhere[hand], rows, checks.against(group.ids))
        return compared

    probed = (ends[those, -1] > ends[those, 0]) | (others > 0)
    groups = partitions.read(those[probed & (partitions.rows[those] > 0)])
    return sum(hands.over(map(prepared, groups), meet))

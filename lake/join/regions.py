"""Regions: neighbouring partitions that are read together, however many workers there are.

Rows of the left side are sent to the regions that they look into, most of which lies in one; lists of what they find
there come back, and are merged. One task reads a region, or a few where the rows sent there do not fit into memory. The
number of regions is the plan's; their borders follow a sample, so that all have about as much to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lake.index.locality import order
from lake.join.passing import Slice
from lake.nearest.kernel import Floats, Ids

_FINE = 16  # parts of a region whose place is found out: the more, the less their work differs


@dataclass(frozen=True)
class Piece:
    """What one task of a region joins: some of the rows that were sent there.

    Parameters
    ----------
    region, number : int
        The number is among the region's pieces.
    slices : tuple of Slice
    """

    region: int
    number: int
    slices: tuple[Slice, ...]


def group(centroids: Floats, rows: Ids, routes: NDArray[np.int32], regions: int) -> NDArray[np.int32]:
    """Group partitions into regions of about equal work.

    Parameters
    ----------
    centroids : float32, shape (partitions, d)
    rows : int64, shape (partitions,)
        Of the right side, in each.
    routes : int32, shape (n, probes)
        Where a sample of the left side looks.
    regions : int

    Returns
    -------
    int32, shape (partitions,)
        The region of each; some may have none.
    """
    work = rows * (1.0 + np.bincount(routes.ravel(), minlength=len(rows)))
    along = order(centroids, max(1, len(rows) // (_FINE * regions)))
    done = np.cumsum(work[along]) - work[along] / 2  # up to the middle of each
    found = np.empty(len(rows), np.int32)
    found[along] = np.minimum(regions * done / max(1.0, work.sum()), regions - 1)
    return found


def pieces(files: Sequence[str], sent: NDArray[np.int64], most: int) -> list[Piece]:
    """Cut what was sent to each region into tasks.

    Parameters
    ----------
    files : sequence of str
        One of each block of the left side; in it stand the rows for the first region first.
    sent : int64, shape (blocks, regions)
        How many rows of each block.
    most : int
        Rows that a task holds.
    """
    starts = np.cumsum(sent, axis=1) - sent
    found = []
    for region, held in enumerate(sent.T):
        before, total = np.cumsum(held) - held, int(held.sum())
        count = max(1, -(-total // most))
        for number, (first, last) in enumerate(pairwise(total * at // count for at in range(count + 1))):
            low, high = (np.clip(edge - before, 0, held) for edge in (first, last))
            slices = (
                Slice(block, file, int(starts[block, region] + low[block]), int(high[block] - low[block]))
                for block, file in enumerate(files)
                if high[block] > low[block]
            )
            found.append(Piece(region, number, tuple(slices)))
    return found


def lists_of(blocks: int, made: Sequence[Piece], files: Sequence[str]) -> list[tuple[Slice, ...]]:
    """Find the lists of each block's rows in the files that the pieces have left.

    Parameters
    ----------
    made : sequence of Piece
    files : sequence of str
        One of each piece: the lists of its rows, in their order.
    """
    found: list[list[Slice]] = [[] for _ in range(blocks)]
    for piece, file in zip(made, files, strict=True):
        first = 0
        for some in piece.slices:
            found[some.block].append(Slice(some.block, file, first, some.count))
            first += some.count
    return [tuple(some) for some in found]

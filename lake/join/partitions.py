"""The partitions of the right side, read out of runs, a group of neighbours at a time.

A thread reads one group ahead. Where a single one does all the work, and files lie on this machine, the system reads
ahead well enough: two threads that take turns on one core cost more than to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import unit
from lake.join.living import among
from lake.join.runs import Ordered, load
from lake.nearest.kernel import Floats, Ids
from lake.storage import Location

_GROUP_BYTES = 16 << 20  # of which up to three are held at a time, two of them with their bytes
_NEAR_BYTES = 4 << 20  # for each hand, where there is no store to wait for: a group stays in the cache

Wanted = tuple[NDArray[np.int64], int, int]
"""Neighbouring partitions, and which of how many pieces of their rows."""


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of neighbouring partitions, or of a piece of one.

    Parameters
    ----------
    homes : int64, shape (n,)
        The partition of each row, ascending.
    ids : int64, shape (n,)
    vectors : float32, shape (n, d)
    """

    homes: NDArray[np.int64]
    ids: Ids
    vectors: Floats

    def partitions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tell which partitions have rows here, and where each begins and the next one does."""
        starts = np.flatnonzero(np.diff(self.homes, prepend=-1))
        return self.homes[starts], np.append(starts, len(self.homes))


class Partitions:
    """Reads partitions out of runs.

    Parameters
    ----------
    runs : sequence of Ordered
    folder : Location
        The job's, where it is noted which rows are live.
    normalise : bool
        Give vectors the length one.

    Attributes
    ----------
    read_bytes : int
        Of vectors, so far.
    """

    def __init__(self, runs: Sequence[Ordered], folder: Location, *, normalise: bool) -> None:
        self._normalise = normalise
        self._runs = [run.open() for run in runs]
        live = {name: load(folder, name) for name in {run.live for run in runs} if name is not None}
        self._live = [None if run.live is None else live[run.live] for run in runs]
        self._starts = [np.cumsum(run.lengths) - run.lengths for run in self._runs]
        self._dimension = self._runs[0].dimension
        self.read_bytes = 0

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each partition, before any is left out."""
        held: NDArray[np.int64] = np.sum([run.lengths for run in self._runs], axis=0)
        return held

    def read(self, wanted: NDArray[np.int64], hands: int) -> Iterator[Group]:
        """Yield the rows of partitions, given in ascending order; a large partition comes in pieces.

        Parameters
        ----------
        wanted : int64
        hands : int
            Threads that go through each group.
        """
        near = all(run.in_place for run in self._runs)
        held = min(_GROUP_BYTES, hands * _NEAR_BYTES) if near else _GROUP_BYTES
        groups = self._groups(wanted, max(1, held // (4 * self._dimension)))
        alone = near and hands == 1
        yield from (self._load(*group) for group in groups) if alone else self._ahead(groups)

    def _ahead(self, groups: Iterator[Wanted]) -> Iterator[Group]:
        with ThreadPoolExecutor(1) as ahead:
            following: Future[Group] | None = None
            for group in groups:
                loading, following = following, ahead.submit(self._load, *group)
                if loading is not None:
                    yield loading.result()
            if following is not None:
                yield following.result()

    def _groups(self, wanted: NDArray[np.int64], most: int) -> Iterator[Wanted]:
        """Group neighbours, which one read of each run gets."""
        rows, start, held = self.rows, 0, 0
        for at, partition in enumerate(wanted):
            apart = at > start and (partition != wanted[at - 1] + 1 or held + rows[partition] > most)
            if apart:
                yield from _cut(wanted[start:at], held, most)
                start, held = at, 0
            held += int(rows[partition])
        if len(wanted):
            yield from _cut(wanted[start:], held, most)

    def _load(self, group: NDArray[np.int64], piece: int, pieces: int) -> Group:
        parts = [self._part(at, group, piece, pieces) for at in range(len(self._runs))]
        parts = [part for part in parts if len(part.ids)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        homes = np.concatenate([part.homes for part in parts])
        order = np.argsort(homes, kind="stable")
        places = np.argsort(order)
        vectors, start = np.empty((len(order), self._dimension), np.float32), 0
        for part in parts:  # each row is copied once
            vectors[places[start : start + len(part.ids)]] = part.vectors
            start += len(part.ids)
        return Group(homes[order], np.concatenate([part.ids for part in parts])[order], vectors)

    def _part(self, at: int, group: NDArray[np.int64], piece: int, pieces: int) -> Group:
        """Read the rows of a group out of one run."""
        run = self._runs[at]
        lengths = run.lengths[group]
        first, last = (int(lengths.sum()) * edge // pieces for edge in (piece, piece + 1))
        homes = np.repeat(group, lengths)[first:last]
        if not len(homes):
            return Group(homes, np.empty(0, np.int64), np.empty((0, self._dimension), np.float32))
        ids, vectors = run.read(int(self._starts[at][group[0]]) + first, len(homes))
        self.read_bytes += vectors.nbytes
        live = self._live[at]
        kept = ids >= 0 if live is None else among(live, ids)
        if not kept.all():
            homes, ids, vectors = homes[kept], ids[kept], vectors[kept]
        vectors = run.checked(vectors)
        return Group(homes, ids, unit(vectors) if self._normalise else vectors)


def _cut(group: NDArray[np.int64], rows: int, most: int) -> Iterator[Wanted]:
    pieces = -(-rows // most) if len(group) == 1 else 1
    yield from ((group, piece, pieces) for piece in range(max(1, pieces)))

"""The partitions of the right side, read out of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import unit
from lake.join.living import among
from lake.join.runs import Run, RunReader, load
from lake.nearest.kernel import Floats, Ids
from lake.storage import Location

_GROUP_BYTES = 16 << 20  # of which up to three are held at a time, two of them with their bytes


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
    """Reads partitions out of runs, a group of neighbours at a time and one group ahead.

    Parameters
    ----------
    runs : sequence of Run
    folder : Location
        The job's, where it is noted which rows are live.
    normalise : bool
        Give vectors the length one.

    Attributes
    ----------
    read_bytes : int
        Of vectors, so far.
    """

    def __init__(self, runs: Sequence[Run], folder: Location, *, normalise: bool) -> None:
        self._normalise = normalise
        self._runs = [RunReader(run) for run in runs]
        self._live = [None if run.live is None else load(folder, run.live) for run in runs]
        self._dimension = self._runs[0].dimension
        self.read_bytes = 0
        self._most_rows = max(1, _GROUP_BYTES // (4 * self._dimension))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each partition, before any is left out."""
        held: NDArray[np.int64] = np.sum([run.lengths for run in self._runs], axis=0)
        return held

    def read(self, wanted: NDArray[np.int64]) -> Iterator[Group]:
        """Yield the rows of partitions, given in ascending order; a large partition comes in pieces."""
        with ThreadPoolExecutor(1) as ahead:
            following: Future[Group] | None = None
            for group in self._groups(wanted):
                loading, following = following, ahead.submit(self._load, *group)
                if loading is not None:
                    yield loading.result()
            if following is not None:
                yield following.result()

    def _groups(self, wanted: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """Group neighbours, which one read of each run gets; yield ``(partitions, piece, pieces)``."""
        rows, start, held = self.rows, 0, 0
        for at, partition in enumerate(wanted):
            apart = at > start and (partition != wanted[at - 1] + 1 or held + rows[partition] > self._most_rows)
            if apart:
                yield from self._cut(wanted[start:at], held)
                start, held = at, 0
            held += int(rows[partition])
        if len(wanted):
            yield from self._cut(wanted[start:], held)

    def _cut(self, group: NDArray[np.int64], rows: int) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        pieces = -(-rows // self._most_rows) if len(group) == 1 else 1
        yield from ((group, piece, pieces) for piece in range(max(1, pieces)))

    def _load(self, group: NDArray[np.int64], piece: int, pieces: int) -> Group:
        parts = [self._part(at, group, piece, pieces) for at in range(len(self._runs))]
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
        ids, vectors = run.read(run.start(group[0]) + first, len(homes))
        self.read_bytes += vectors.nbytes
        if (live := self._live[at]) is not None and not (kept := among(live, ids)).all():
            homes, ids, vectors = homes[kept], ids[kept], vectors[kept]
        return Group(homes, ids, unit(vectors) if self._normalise else vectors)

"""A fragment in the order of its clusters, read as a run; and the centroids of such partitions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import Floats, unit
from lake.index.train import common_length
from lake.join.runs import Reader, load, save
from lake.join.side import Side
from lake.join.vectors import place
from lake.nearest.kernel import Ids
from lake.nearest.rooms import Rooms
from lake.storage import Location

_IDS = 1 << 16  # at a time
_POINTS = 256  # of a partition, in each fragment, whose mean is its centroid


@dataclass(frozen=True)
class Arranged:
    """The rows of a fragment that have a cluster.

    Parameters
    ----------
    side : Side
        Without a filter: `live` tells which rows pass it.
    fragment : int
    metric : str
    folder : Location
        The job's.
    lengths : str
        A file there: the rows of each partition.
    live, ranges
        See `lake.join.runs.Ordered`.
    """

    side: Side
    fragment: int
    metric: str
    folder: Location
    lengths: str
    live: str | None = None
    ranges: int = 0

    def open(self) -> Reader:
        """Open the fragment."""
        return ArrangedReader(self)


class ArrangedReader:
    """Reads a fragment, as `lake.join.runs.Reader` says."""

    def __init__(self, run: Arranged) -> None:
        self._run = run
        self.lengths = load(run.folder, run.lengths)
        self.dimension = run.side.dimension
        self._place = place(run.side, run.fragment)
        self._rooms = Rooms()
        self._rows = int(self.lengths.sum())
        self._ids, self._first = np.empty(0, np.int64), 0  # those read last, and where they begin

    @property
    def in_place(self) -> bool:
        """Whether vectors are read where they lie."""
        return self._place is not None

    def read(self, first: int, count: int) -> tuple[Ids, Floats]:
        """Read so many rows."""
        side, metric = self._run.side, self._run.metric
        if self._place is not None:
            found = self._rooms.empty((count, self.dimension), np.float32)
            self._place.read(first, found)
            return self._ids_of(first, count), side.checked(found, metric)
        ids, found, start = np.full(count, -1, np.int64), np.zeros((count, self.dimension), np.float32), 0
        for batch in side.read((self._run.fragment, first, count), [side.column]):
            vectors, at = side.matrix(batch.column(side.column), metric)
            found[start + at], ids[start + at] = vectors, batch.column("_rowid").to_numpy()[at]
            start += batch.num_rows
        return ids, found

    def _ids_of(self, first: int, count: int) -> Ids:
        """Read ids alone, those of the next rows with them: each scan takes as long as many rows."""
        at = first - self._first
        if at < 0 or at + count > len(self._ids):
            held = min(max(count, _IDS), self._rows - first)
            batches = self._run.side.read((self._run.fragment, first, held), [], held)
            self._ids = np.concatenate([batch.column("_rowid").to_numpy().astype(np.int64) for batch in batches])
            self._first, at = first, 0
        return self._ids[at : at + count]


@dataclass(frozen=True)
class SumPoints:
    """Add up some vectors of each partition in a fragment.

    Parameters
    ----------
    rows : Arranged
    """

    rows: Arranged

    @property
    def key(self) -> str:
        """The fragment."""
        return f"{self.rows.fragment:08d}"

    def run(self) -> str:
        """Return the name of the file of the sums, each attempt's own; see `centroids_of`."""
        rows, found = self.rows.open(), []
        ends = np.cumsum(rows.lengths)
        for partition in np.flatnonzero(rows.lengths):
            held = int(rows.lengths[partition])
            count = min(held, _POINTS)
            ids, points = rows.read(int(ends[partition]) - held + (held - count) // 2, count)
            points = points[ids >= 0].astype(np.float64)
            if len(points):
                lengths = np.sqrt(np.einsum("nd,nd->n", points, points))
                found.append([partition, len(points), lengths.min(), lengths.max(), *points.sum(axis=0)])
        name = f"sums/{self.key}-{uuid.uuid4().hex}.npy"
        save(self.rows.folder, name, np.array(found).reshape(-1, 4 + rows.dimension))
        return name


def centroids_of(sums: Sequence[NDArray[np.float64]], partitions: int, metric: str) -> Floats:
    """Find centroids.

    Parameters
    ----------
    sums : sequence of float64, shape (n, 4 + d)
        Partitions, how many points were added up, the least and the greatest of their lengths, and their sum.
    partitions : int
    metric : {"l2", "cosine", "dot"}

    Returns
    -------
    float32, shape (partitions, d)
    """
    parts = np.concatenate(sums)
    at, found = parts[:, 0].astype(np.int64), np.zeros((partitions, parts.shape[1] - 4))
    np.add.at(found, at, parts[:, 4:])
    counts = np.bincount(at, parts[:, 1], partitions)
    means = (found / np.maximum(counts, 1)[:, None]).astype(np.float32)
    length = common_length(metric, parts[:, 2:4])
    return means if length is None else unit(means) * np.float32(length)

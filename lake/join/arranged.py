"""A fragment in the order of its clusters, read as a run; and the centroids of such partitions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import Floats, unit
from lake.index.train import common_length
from lake.join.runs import Reader, Window, load, save
from lake.join.side import Side
from lake.join.vectors import place
from lake.nearest.kernel import Ids
from lake.nearest.rooms import Rooms
from lake.storage import Location

_POINTS = 256  # of a large partition, in each fragment, whose mean is its centroid
_WHOLE = 1024  # rows of one that is not large: it is read whole, with its neighbours, and some of it are added up
_READ = 8192  # at once


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
        self._rooms, self._ids = Rooms(), Window(self._read_ids, int(self.lengths.sum()))

    @property
    def in_place(self) -> bool:
        """Whether vectors are read where they lie."""
        return self._place is not None

    def read(self, first: int, count: int) -> tuple[Ids, Floats]:
        """Read so many rows."""
        if self._place is not None:
            found = self._rooms.empty((count, self.dimension), np.float32)
            self._place.read(first, found)
            return self._ids.read(first, count), found
        side = self._run.side
        ids, found, start = np.full(count, -1, np.int64), np.zeros((count, self.dimension), np.float32), 0
        for batch in side.read((self._run.fragment, first, count), [side.column]):
            vectors, at = side.unchecked(batch.column(side.column))
            found[start + at], ids[start + at] = vectors, batch.column("_rowid").to_numpy()[at]
            start += batch.num_rows
        return ids, found

    def checked(self, vectors: Floats) -> Floats:
        """Return vectors that pass the filter, if they make sense."""
        return self._run.side.checked(vectors, self._run.metric)

    def _read_ids(self, first: int, count: int) -> Ids:
        batches = self._run.side.read((self._run.fragment, first, count), [], count)
        return np.concatenate([batch.column("_rowid").to_numpy().astype(np.int64) for batch in batches])


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
        for partitions, first, counts in _pieces(rows.lengths):
            ids, points = rows.read(first, int(counts.sum()))
            ends = np.cumsum(counts)
            for partition, start, end in zip(partitions, ends - counts, ends, strict=True):
                some = points[start:end][ids[start:end] >= 0]
                some = some[:: -(-len(some) // _POINTS) or 1].astype(np.float64)
                lengths = np.sqrt(np.einsum("nd,nd->n", some, some))
                sound = np.isfinite(lengths) & (lengths > 0)  # others are refused when they take part
                some, lengths = some[sound], lengths[sound]
                if self.rows.metric == "cosine":
                    some, lengths = some / lengths[:, None], np.ones(len(some))
                if len(some):
                    found.append([partition, len(some), lengths.min(), lengths.max(), *some.sum(axis=0)])
        name = f"sums/{self.key}-{uuid.uuid4().hex}.npy"
        save(self.rows.folder, name, np.array(found).reshape(-1, 4 + rows.dimension))
        return name


def _pieces(lengths: NDArray[np.int64]) -> Iterator[tuple[Ids, int, Ids]]:
    """Choose rows: all of a small partition, those in the middle of a large one; neighbours are read at once.

    Yields
    ------
    partitions : int64, shape (n,)
    first : int
        Row.
    counts : int64, shape (n,)
        Rows of each partition, one after the other.
    """
    there = np.flatnonzero(lengths)
    held = lengths[there]
    counts = np.where(held <= _WHOLE, held, _POINTS)
    firsts = np.cumsum(held) - held + (held - counts) // 2
    begin = 0
    for at in range(1, len(there) + 1):
        apart = at == len(there) or firsts[at] != firsts[at - 1] + counts[at - 1]
        if apart or counts[begin : at + 1].sum() > _READ:
            yield there[begin:at], int(firsts[begin]), counts[begin:at]
            begin = at


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
    if not len(parts):
        return found.astype(np.float32)
    np.add.at(found, at, parts[:, 4:])
    counts = np.bincount(at, parts[:, 1], partitions)
    found[counts == 0], counts[counts == 0] = found.sum(axis=0), counts.sum()  # nothing is known: the middle of all
    means = (found / counts[:, None]).astype(np.float32)
    length = common_length(metric, parts[:, 2:4])
    return means if length is None else unit(means) * np.float32(length)

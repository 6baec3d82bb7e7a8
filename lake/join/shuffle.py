"""The tasks of a join by regions: send rows of the left side to regions, join there, merge what comes back.

What they leave for each other are Lance files in the job's folder, each attempt's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from numpy.typing import NDArray

from lake.join.block import read_block, read_payload, row_ids, write
from lake.join.conditions import Conditions
from lake.join.probe import probe
from lake.join.recall import sampled
from lake.join.regions import Piece, Slice
from lake.join.route import route
from lake.join.runs import Partitions, Run, load
from lake.join.side import Side, Span
from lake.join.sort import Centroids
from lake.join.tasks import Clock, Done, agreement
from lake.nearest.device import kernel
from lake.nearest.kernel import Floats, Ids
from lake.nearest.topk import merge, sort
from lake.run.threads import Hands
from lake.storage import Location
from lake.table.parts import PartedWrite

_ROWS = 4096  # that are written or read at a time


@dataclass(frozen=True)
class SendBlock:
    """Send rows of a block of the left side to the regions that they look into.

    Parameters
    ----------
    left : Side
    spans : tuple of Span
        The rows.
    number : int
        Of the block.
    metric : str
    probes : int
        How many partitions each row looks into.
    centroids : Centroids
    regions : str
        The file in which each partition's region stands; see `lake.join.regions.group`.
    count : int
        Of regions.
    """

    left: Side
    spans: tuple[Span, ...]
    number: int
    metric: str
    probes: int
    centroids: Centroids
    regions: str
    count: int

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it sends."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> Done:
        """Read, route, send."""
        clock, folder = Clock(), self.centroids.folder
        block = read_block(self.left, self.spans, self.metric, [])
        clock.lap("read")
        routes = np.empty((0, self.probes), np.int32)
        if len(block.vectors):
            with Hands() as hands:
                routes = route(block.vectors, self.centroids.read(), self.metric, self.probes, hands)
        clock.lap("route")
        ids, towards = block.ids, load(folder, self.regions)[routes]
        sent = []

        def batches() -> Iterator[pa.RecordBatch]:
            for region in range(self.count):
                here = towards == region
                some = np.flatnonzero(here.any(axis=1))
                # Neighbours stand together, so that what is gathered for a partition lies close by in memory.
                nearest = routes[some, here[some].argmax(axis=1)]
                some = some[np.argsort(nearest, kind="stable")]
                sent.append(len(some))
                yield pa.record_batch(
                    {
                        "place": pa.array(block.places[some]),
                        "id": pa.array(ids[some]),
                        "vector": _lists(block.vectors[some]),
                        "route": _lists(np.where(here[some], routes[some], -1)),
                    }
                )

        name = leave(folder, "sent", self.key, batches())
        clock.lap("send")
        return Done(clock.seconds, file=name, rows=tuple(sent), without=block.without)


@dataclass(frozen=True)
class JoinPiece:
    """Find the nearest rows of a region for rows of the left side that were sent there.

    Parameters
    ----------
    left : Side
    piece : Piece
    k, metric, within
        See `lake.join.knn_join`.
    probes : int
        How many partitions each row looks into.
    centroids : Centroids
    regions : str
        As `SendBlock` has it.
    runs : tuple of Run
    conditions : Conditions
    sample : tuple of int
        Row ids: those look into the whole region besides, and what they find is the truth.
    """

    left: Side
    piece: Piece
    k: int
    metric: str
    within: float | None
    probes: int
    centroids: Centroids
    regions: str
    runs: tuple[Run, ...]
    conditions: Conditions
    sample: tuple[int, ...]

    @property
    def key(self) -> str:
        """Region and piece."""
        return f"{self.piece.region:06d}-{self.piece.number:06d}"

    @property
    def rows(self) -> int:
        """How many it joins."""
        return sum(some.count for some in self.piece.slices)

    def run(self) -> Done:
        """Fetch, compare, list."""
        clock, folder = Clock(), self.centroids.folder
        true, of_true = sampled(self.left, self.sample, self.metric)
        count = self.rows + len(of_true)
        vectors, routes = np.empty((count, true.shape[1]), np.float32), np.empty((self.rows, self.probes), np.int32)
        ids, places = np.empty(count, np.int64), np.empty(count, np.int64)
        first = 0
        for batch in fetch(folder, self.piece.slices):
            part = slice(first, first := first + batch.num_rows)
            places[part], ids[part] = batch["place"], batch["id"]
            vectors[part], routes[part] = _matrix(batch, "vector"), _matrix(batch, "route")
        vectors[first:], ids[first:], places[first:] = true, of_true, np.flatnonzero(np.isin(self.sample, of_true))
        clock.lap("fetch")
        with Hands() as hands:
            found = kernel(vectors, self.k, self.metric, self.within, hands)
            checks = self.conditions.load()
            checks.begin(ids)
            partitions = Partitions(self.runs, folder, normalise=self.metric == "cosine")
            here = np.flatnonzero(load(folder, self.regions) == self.piece.region)
            compared = probe(found, checks, routes, partitions, here, hands=hands)
        found.sort()
        clock.lap("compare")
        batch = pa.record_batch(
            {"place": pa.array(places), "id": _lists(found.ids), "distance": _lists(found.distances)}
        )
        name = leave(folder, "found", self.key, [batch])
        clock.lap("list")
        return Done(clock.seconds, file=name, rows=(self.rows, len(of_true)), compared=compared, device=found.device)


@dataclass(frozen=True)
class MergeBlock:
    """Merge what the rows of a block have found in the regions, and write the rows of the result.

    Parameters
    ----------
    left, right : Side
    spans : tuple of Span
        The rows of the block.
    number : int
        Of the block.
    k : int
    folder : Location
        The job's.
    lists : tuple of Slice
        Where they are, in the files that `JoinPiece` has left.
    sample : tuple of int
        Row ids.
    truths : tuple of Slice
        What they have found everywhere.
    target : PartedWrite
        Where the result goes.
    """

    left: Side
    right: Side
    spans: tuple[Span, ...]
    number: int
    k: int
    folder: Location
    lists: tuple[Slice, ...]
    sample: tuple[int, ...]
    truths: tuple[Slice, ...]
    target: PartedWrite

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it merges."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> Done:
        """Read, merge, write."""
        clock = Clock()
        rows = read_payload(self.left, self.spans)
        clock.lap("read")
        ids, distances = self._merged(len(rows), self.lists)
        true, _ = self._merged(len(self.sample), self.truths)
        _, mine, theirs = np.intersect1d(row_ids(rows), self.sample, return_indices=True)
        measured = agreement(ids[mine], true[theirs])
        clock.lap("merge")
        part = write(self.target, (self.left, self.right), rows, ids, distances)
        clock.lap("write")
        return Done(clock.seconds, part, measured=measured)

    def _merged(self, rows: int, lists: Sequence[Slice]) -> tuple[Ids, Floats]:
        ids, distances = np.full((rows, self.k), -1, np.int64), np.full((rows, self.k), np.inf, np.float32)
        for batch in fetch(self.folder, lists):
            merge(batch["place"].to_numpy(), _matrix(batch, "distance"), _matrix(batch, "id"), distances, ids)
        sort(distances, ids)
        return ids, distances


def leave(folder: Location, kind: str, key: str, batches: Iterable[pa.RecordBatch]) -> str:
    """Write a file for the tasks of the next stage; return its name."""
    name = f"{kind}/{key}-{uuid.uuid4().hex}.lance"
    file = folder.join(name)
    with LanceFileWriter(file.uri, storage_options=dict(file.options) or None) as writer:
        for batch in batches:
            for first in range(0, max(1, batch.num_rows), _ROWS):  # of small pieces fewer bytes are copied
                writer.write_batch(batch.slice(first, _ROWS))
    return name


def fetch(folder: Location, slices: Sequence[Slice]) -> Iterator[pa.RecordBatch]:
    """Read what tasks have left."""
    for some in slices:
        file = folder.join(some.file)
        reader = LanceFileReader(file.uri, storage_options=dict(file.options) or None)
        yield from reader.read_range(some.first, some.count, batch_size=_ROWS).to_batches()


def _lists(matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _matrix(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    lists = batch[name]
    found: NDArray[Any] = lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
    return found

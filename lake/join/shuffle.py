"""The tasks of a join by regions: send rows of the left side to regions, join there, merge what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lake.join.block import read_block, read_payload, row_ids, write
from lake.join.comparison import Clock, Comparison, Done, OfBlock, agreement
from lake.join.passing import Slice, fetch, leave, lists, matrix
from lake.join.probe import probe
from lake.join.regions import Piece
from lake.join.route import route
from lake.join.runs import load
from lake.join.sampling import sampled
from lake.nearest.device import kernel
from lake.nearest.kernel import Floats, Ids
from lake.nearest.topk import merge, sort
from lake.run.threads import Hands


@dataclass(frozen=True)
class SendBlock(OfBlock):
    """Send rows of a block of the left side to the regions that they look into.

    Parameters
    ----------
    regions : str
        The file in which each partition's region stands; see `lake.join.regions.group`.
    count : int
        Of regions.
    """

    regions: str
    count: int

    def run(self) -> Done:
        """Read, route, send."""
        what, clock = self.what, Clock()
        assert what.centroids is not None  # noqa: S101  regions are of partitions
        block = read_block(what.left, self.spans, what.metric, [])
        clock.lap("read")
        routes = np.empty((0, what.probes), np.int32)
        if len(block.vectors):
            with Hands() as hands:
                routes = route(block.vectors, what.centroids.read(), what.metric, what.probes, hands)
        clock.lap("route")
        ids, towards = block.ids, load(what.folder, self.regions)[routes]
        sent = []

        def batches() -> Iterator[pa.RecordBatch]:
            for region in range(self.count):
                here = towards == region
                some = np.flatnonzero(here.any(axis=1))
                # Neighbours stand together, so that what is gathered for a partition lies close by in memory.
                nearest = routes[some, here[some].argmax(axis=1)]
                some = some[np.argsort(nearest, kind="stable")]
                ends = np.append(0, np.cumsum(here[some].sum(axis=1))).astype(np.int32)
                sent.append(len(some))
                yield pa.record_batch(
                    {
                        "place": pa.array(block.places[some]),
                        "id": pa.array(ids[some]),
                        "vector": lists(block.vectors[some]),
                        "route": pa.ListArray.from_arrays(pa.array(ends), pa.array(routes[some][here[some]])),
                    }
                )

        name = leave(what.folder, "sent", self.key, batches())
        clock.lap("send")
        return Done(
            clock.seconds, file=name, counts=tuple(sent), without=block.without, read_bytes=block.vectors.nbytes
        )


@dataclass(frozen=True)
class JoinPiece:
    """Find the nearest rows of a region for rows of the left side that were sent there.

    Parameters
    ----------
    what : Comparison
    piece : Piece
    regions : str
        As `SendBlock` has it.
    """

    what: Comparison
    piece: Piece
    regions: str

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
        what, clock = self.what, Clock()
        sample = () if self.piece.number else what.sample
        true, of_true = sampled(what.left, sample, what.metric)
        count = self.rows + len(of_true)
        vectors = np.empty((count, true.shape[1]), np.float32)
        ids, places = np.empty(count, np.int64), np.empty(count, np.int64)
        queries, routes, first = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0
        for batch in fetch(what.folder, self.piece.slices):
            part = np.arange(first, first + batch.num_rows, dtype=np.int32)
            places[part], ids[part], vectors[part] = batch["place"], batch["id"], matrix(batch, "vector")
            queries.append(np.repeat(part, batch["route"].value_lengths()))
            routes.append(batch["route"].flatten().to_numpy())
            first += batch.num_rows
        vectors[first:], ids[first:], places[first:] = true, of_true, np.flatnonzero(np.isin(sample, of_true))
        clock.lap("fetch")
        with Hands() as hands:
            found = kernel(vectors, what.k, what.metric, what.within, hands)
            checks = what.conditions.load()
            checks.begin(ids)
            here = np.flatnonzero(load(what.folder, self.regions) == self.piece.region)
            pairs = np.concatenate(queries), np.concatenate(routes)
            partitions = what.partitions()
            compared = probe(found, checks, pairs, partitions, here, others=len(of_true), hands=hands)
        found.sort()
        clock.lap("compare")
        batch = pa.record_batch({"place": pa.array(places), "id": lists(found.ids), "distance": lists(found.distances)})
        name = leave(what.folder, "found", self.key, [batch])
        clock.lap("list")
        return Done(
            clock.seconds,
            file=name,
            counts=(self.rows, len(of_true)),
            compared=compared,
            read_bytes=vectors[: self.rows].nbytes + partitions.read_bytes,
            device=found.device,
        )


@dataclass(frozen=True)
class MergeBlock(OfBlock):
    """Merge what the rows of a block have found in the regions, and write the rows of the result.

    Parameters
    ----------
    lists : tuple of Slice
        Where they are, in the files that `JoinPiece` has left.
    truths : tuple of Slice
        Those of the sample.
    """

    lists: tuple[Slice, ...]
    truths: tuple[Slice, ...]

    def run(self) -> Done:
        """Read, merge, write."""
        what, clock = self.what, Clock()
        rows = read_payload(what.left, self.spans)
        clock.lap("read")
        ids, distances = self._merged(len(rows), self.lists)
        _, mine, theirs = np.intersect1d(row_ids(rows), what.sample, return_indices=True)
        # There is a file for each region, which few blocks need to read.
        true, _ = self._merged(len(what.sample), self.truths if len(mine) else ())
        measured = agreement(ids[mine], true[theirs])
        clock.lap("merge")
        part = write(what.target, (what.left, what.right), rows, ids, distances)
        clock.lap("write")
        return Done(clock.seconds, part, measured=measured)

    def _merged(self, rows: int, lists: Sequence[Slice]) -> tuple[Ids, Floats]:
        shape = (rows, self.what.k)
        ids, distances = np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32)
        for batch in fetch(self.what.folder, lists):
            merge(batch["place"].to_numpy(), matrix(batch, "distance"), matrix(batch, "id"), distances, ids)
        sort(distances, ids)
        return ids, distances

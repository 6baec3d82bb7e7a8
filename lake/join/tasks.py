"""The task of a join: find the nearest rows of a block of the left side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.join.conditions import Checks, Conditions
from lake.join.route import probers_of, route
from lake.join.runs import Group, Partitions, Run
from lake.join.side import ROW_ID, Side, Span, finder, named
from lake.join.sort import Centroids
from lake.nearest.device import kernel
from lake.nearest.kernel import Floats, Ids, Nearest, Rows
from lake.run.threads import Hands
from lake.table.parts import Part, PartedWrite

_OUT_ROWS = 1 << 16


@dataclass(frozen=True)
class Joined:
    """The receipt of a block.

    Parameters
    ----------
    part : Part
        The files of its rows.
    without : int
        Rows of the left side that have no vector.
    compared : int
        Pairs whose distance was computed.
    seconds : mapping of str to float
        By stage.
    device : str
        Where they were compared.
    measured : tuple of (int, int)
        For each row of the sample, how many of its true neighbours it has found, and how many there are.
    """

    part: Part
    without: int
    compared: int
    seconds: dict[str, float] = field(hash=False)
    device: str = "cpu"
    measured: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class JoinBlock:
    """Find the nearest rows of a block of the left side.

    Parameters
    ----------
    left, right : Side
    spans : tuple of Span
        The rows of the left side.
    number : int
        Of the block.
    k, metric, within
        See `lake.join.knn_join`.
    probes : int
        How many partitions each row looks into; 0 for all of the right side, without partitions.
    centroids : Centroids or None
    runs : tuple of Run
    conditions : Conditions
    target : PartedWrite
        Where the result goes.
    sample : tuple of int
        Row ids: those of the block meet all partitions besides, which tells the recall of the others.
    """

    left: Side
    right: Side
    spans: tuple[Span, ...]
    number: int
    k: int
    metric: str
    within: float | None
    probes: int
    centroids: Centroids | None
    runs: tuple[Run, ...]
    conditions: Conditions
    target: PartedWrite
    sample: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it joins."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> Joined:
        """Read, route, compare, write."""
        clock = Clock()
        rows, vectors, without = self._queries()
        clock.lap("read")
        order = np.arange(len(vectors))
        routes = None
        with Hands() as hands:
            if self.centroids is not None and len(vectors):
                routes = route(vectors, self.centroids.read(), self.metric, self.probes, hands)
                # Neighbours stand together, so that what is gathered for a partition lies close by in memory.
                order = np.argsort(routes[:, 0], kind="stable")
                vectors, routes = vectors[order], routes[order]
                clock.lap("route")
            ids = rows["_rowid"].to_numpy().astype(np.int64)[order]
            sampled = np.flatnonzero(np.isin(ids, self.sample))
            found, truth = (
                kernel(some, self.k, self.metric, self.within, hands=hands) for some in (vectors, vectors[sampled])
            )
            checks = self.conditions.load()
            checks.begin(ids)
            if routes is not None:
                compared = self._probe((found, checks), routes, (truth, checks.of(ids[sampled])), hands)
            else:
                compared = self._meet_all(found, checks, hands)
        found.sort()
        measured = tuple(
            (len(np.intersect1d(mine[mine >= 0], true)), int((true >= 0).sum()))
            for mine, true in zip(found.ids[sampled], truth.ids, strict=True)
        )
        clock.lap("compare")
        back = np.argsort(order)
        part = self.target.part(self._result(rows, found.ids[back], found.distances[back]), lambda _rows, _bytes: None)
        clock.lap("write")
        return Joined(part, without, compared, clock.seconds, found.device, measured)

    def _queries(self) -> tuple[pa.Table, Floats, int]:
        """Read the block; return the rows that have a vector, their vectors, and how many have none."""
        columns = list(dict.fromkeys([self.left.column, *self.left.payload]))
        kept, vectors, without = [], [], 0
        for span in self.spans:
            for batch in self.left.read(span, columns):
                some, at = self.left.matrix(batch.column(self.left.column), self.metric)
                without += batch.num_rows - len(at)
                payload = batch.select([*self.left.payload, "_rowid"])
                kept.append(payload if len(at) == batch.num_rows else payload.take(pa.array(at)))
                vectors.append(some)
        return pa.Table.from_batches(kept), np.concatenate(vectors), without

    def _probe(
        self,
        all_of_it: tuple[Nearest, Checks],
        routes: NDArray[np.int32],
        sample: tuple[Nearest, Checks],
        hands: Hands,
    ) -> int:
        """Read each partition that somebody probes once, and let its probers meet its rows; a sample meets all."""
        assert self.centroids is not None  # noqa: S101  there are routes
        partitions = Partitions(self.runs, self.centroids.folder, normalise=self.metric == "cosine")
        probers, ends = probers_of(routes, len(partitions.rows), hands.count)
        (found, checks), (truth, of_sample) = all_of_it, sample
        shares = np.array_split(np.arange(len(truth.queries), dtype=np.int32), hands.count)

        def prepared(group: Group) -> tuple[Group, Rows]:
            probed = (ends[group.homes, -1] - ends[group.homes, 0]).mean() if len(group.ids) else 0
            return group, found.prepare(group.vectors, group.ids, probed + len(truth.queries))

        def meet(item: tuple[Group, Rows], hand: int) -> int:
            (group, rows), compared = item, 0
            for partition, part in group.partitions():
                which = probers[ends[partition, hand] : ends[partition, hand + 1]]
                found.meet(which, rows[part], checks.against(group.ids[part]))
                compared += len(which) * (part.stop - part.start)
            if len(shares[hand]):
                truth.meet(shares[hand], rows, of_sample.against(group.ids))
            return compared

        wanted = np.full(len(ends), len(truth.queries) > 0) | (ends[:, -1] > ends[:, 0])
        groups = partitions.read(np.flatnonzero(wanted & (partitions.rows > 0)))
        compared = sum(hands.over(map(prepared, groups), meet))
        truth.sort()
        return compared

    def _meet_all(self, found: Nearest, checks: Checks, hands: Hands) -> int:
        """Let all rows of the right side pass by."""
        compared = 0
        for batch in self.right.read(None, [self.right.column]):
            vectors, at = self.right.matrix(batch.column(self.right.column), self.metric)
            ids = batch.column("_rowid").to_numpy()[at].astype(np.int64)
            rows = found.prepare(vectors, ids, len(found.queries), hands)
            found.meet_all(rows, checks.against(ids), hands)
            compared += len(found.queries) * len(ids)
        return compared

    def _result(self, rows: pa.Table, ids: Ids, distances: Floats) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the result: for each row of the left side its nearest, the nearest first."""
        schema = self.target.schema.to_arrow()
        step = max(1, _OUT_ROWS // self.k)
        find = finder(self.right, int((ids >= 0).sum())) if self.right.payload else None
        empty = True
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            there = some >= 0
            left, rank = np.nonzero(there)
            if not len(left):
                continue
            mine = rows.slice(start, step).take(pa.array(left))
            near = some[there]
            theirs = find(near) if find else mine[:0]
            columns: dict[str, Any] = {}
            for prefix, side, table, own in (
                ("left_", self.left, mine, mine["_rowid"].cast(pa.int64())),
                ("right_", self.right, theirs, pa.array(near)),
            ):
                for name in side.named:
                    columns[named(prefix, name)] = own if name == ROW_ID else table[name]
            columns["rank"] = pa.array(rank.astype(np.int32))
            columns["distance"] = pa.array(distances[start : start + step][there])
            empty = False
            yield from pa.table([columns[name] for name in schema.names], schema=schema).to_batches()
        if empty:
            yield pa.RecordBatch.from_pylist([], schema=schema)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap for a stage."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

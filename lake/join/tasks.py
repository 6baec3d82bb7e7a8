"""The task of a join that reads whatever a block of the left side needs; its receipt, which other tasks share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from lake.join.block import read_block, write
from lake.join.conditions import Checks, Conditions
from lake.join.probe import probe
from lake.join.route import route
from lake.join.runs import Partitions, Run
from lake.join.side import Side, Span
from lake.join.sort import Centroids
from lake.nearest.device import kernel
from lake.nearest.kernel import Ids, Nearest
from lake.run.threads import Hands
from lake.table.parts import Part, PartedWrite

Measured = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Done:
    """The receipt of a task.

    Parameters
    ----------
    seconds : mapping of str to float
        By stage.
    part : Part or None
        The files of the result's rows.
    file : str
        What the task left for the next stage, in the job's folder.
    rows : tuple of int
        How many rows it has there for each of the next stage's tasks.
    without : int
        Rows of the left side that have no vector.
    compared : int
        Pairs whose distance was computed, those of the sample left out.
    device : str
        Where they were compared.
    measured : tuple of (int, int)
        For each row of the sample, how many of its true neighbours it has found, and how many there are.
    """

    seconds: dict[str, float] = field(hash=False)
    part: Part | None = None
    file: str = ""
    rows: tuple[int, ...] = ()
    without: int = 0
    compared: int = 0
    device: str = ""
    measured: Measured = ()


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

    def run(self) -> Done:
        """Read, route, compare, write."""
        clock = Clock()
        block = read_block(self.left, self.spans, self.metric, self.left.payload)
        clock.lap("read")
        rows, vectors, ids, without = block.rows, block.vectors, block.ids, block.without
        del block  # one copy of the vectors is enough
        order = np.arange(len(vectors))
        measured: Measured = ()
        with Hands() as hands:
            checks = self.conditions.load()
            if self.centroids is not None and len(vectors):
                routes = route(vectors, self.centroids.read(), self.metric, self.probes, hands)
                # Neighbours stand together, so that what is gathered for a partition lies close by in memory.
                order = np.argsort(routes[:, 0], kind="stable")
                ids = ids[order]
                sampled = np.flatnonzero(np.isin(ids, self.sample))
                # The sample once more: these look into all partitions.
                vectors, ids = vectors[np.append(order, order[sampled])], np.append(ids, ids[sampled])
                clock.lap("route")
                found = kernel(vectors, self.k, self.metric, self.within, hands)
                checks.begin(ids)
                partitions = Partitions(self.runs, self.centroids.folder, normalise=self.metric == "cosine")
                all_of_them = np.arange(len(partitions.rows))
                compared = probe(found, checks, routes[order], partitions, all_of_them, hands=hands)
                found.sort()
                measured = agreement(found.ids[sampled], found.ids[len(order) :])
            else:
                found = kernel(vectors, self.k, self.metric, self.within, hands)
                checks.begin(ids)
                compared = self._meet_all(found, checks, hands)
                found.sort()
        clock.lap("compare")
        back = np.argsort(order)
        part = write(self.target, (self.left, self.right), rows, found.ids[back], found.distances[back])
        clock.lap("write")
        return Done(clock.seconds, part, "", (), without, compared, found.device, measured)

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


def agreement(found: Ids, true: Ids) -> Measured:
    """Tell for each row how many of its true neighbours it has found, and how many there are."""
    return tuple(
        (len(np.intersect1d(mine[mine >= 0], best)), int((best >= 0).sum()))
        for mine, best in zip(found, true, strict=True)
    )


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

"""The task of a join that reads whatever a block of the left side needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lake.join.block import read_block, write
from lake.join.comparison import Clock, Done, Measured, OfBlock, agreement
from lake.join.conditions import Checks
from lake.join.probe import probe
from lake.join.route import route
from lake.nearest.device import kernel
from lake.nearest.kernel import Nearest
from lake.run.threads import Hands


@dataclass(frozen=True)
class JoinBlock(OfBlock):
    """Find the nearest rows of a block of the left side."""

    def run(self) -> Done:
        """Read, route, compare, write."""
        what, clock = self.what, Clock()
        block = read_block(what.left, self.spans, what.metric, what.left.payload)
        clock.lap("read")
        rows, vectors, ids, without = block.rows, block.vectors, block.ids, block.without
        read_bytes = vectors.nbytes
        del block  # one copy of the vectors is enough
        order = np.arange(len(vectors))
        measured: Measured = ()
        with Hands() as hands:
            checks = what.conditions.load()
            if what.centroids is not None and len(vectors):
                routes = route(vectors, what.centroids.read(), what.metric, what.probes, hands)
                # Neighbours stand together, so that what is gathered for a partition lies close by in memory.
                order = np.argsort(routes[:, 0], kind="stable")
                ids = ids[order]
                sampled = np.flatnonzero(np.isin(ids, what.sample))
                # The sample once more: these look into all partitions.
                vectors, ids = vectors[np.append(order, order[sampled])], np.append(ids, ids[sampled])
                pairs = np.repeat(np.arange(len(order), dtype=np.int32), routes.shape[1]), routes[order].ravel()
                del routes
                clock.lap("route")
                found = kernel(vectors, what.k, what.metric, what.within, hands)
                checks.begin(ids)
                partitions = what.partitions()
                all_of_them = np.arange(len(partitions.rows))
                compared = probe(found, checks, pairs, partitions, all_of_them, others=len(sampled), hands=hands)
                read_bytes += partitions.read_bytes
                found.sort()
                measured = agreement(found.ids[sampled], found.ids[len(order) :])
            else:
                found = kernel(vectors, what.k, what.metric, what.within, hands)
                checks.begin(ids)
                rows_met = self._meet_all(found, checks, hands)
                compared = len(found.queries) * rows_met
                read_bytes += 4 * what.right.dimension * rows_met
                found.sort()
        clock.lap("compare")
        back = np.argsort(order)
        part = write(what.target, (what.left, what.right), rows, found.ids[back], found.distances[back])
        clock.lap("write")
        return Done(
            clock.seconds,
            part,
            without=without,
            compared=compared,
            read_bytes=read_bytes,
            device=found.device,
            measured=measured,
        )

    def _meet_all(self, found: Nearest, checks: Checks, hands: Hands) -> int:
        """Let all rows of the right side pass by; return how many those are that have a vector."""
        what, met = self.what, 0
        for batch in what.right.read(None, [what.right.column]):
            vectors, at = what.right.matrix(batch.column(what.right.column), what.metric)
            ids = batch.column("_rowid").to_numpy()[at].astype(np.int64)
            rows = found.prepare(vectors, ids, len(found.queries), hands)
            found.meet_all(rows, checks.against(ids), hands)
            met += len(ids)
        return met

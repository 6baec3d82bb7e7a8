"""A clustering, every choice made: it finds clusters, labels rows, and puts rows in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lake.analytics.arrange import Arranging, check_arrange
from lake.analytics.assigned import Found
from lake.analytics.centers import SCORES_BYTES
from lake.analytics.rounds import Rounds
from lake.analytics.sizes import ClusterReport
from lake.analytics.stages import batch_rows, draw
from lake.errors import InvalidInput
from lake.index.kmeans import Floats, sample_points
from lake.join import knn
from lake.join.clusters import CLUSTERED
from lake.join.folder import JobFolder
from lake.join.plan import BASE_BYTES, too_little
from lake.join.side import Side
from lake.nearest.kernel import METRICS
from lake.run import Callback, Executor
from lake.schema import Column, Derivation
from lake.table.fill import check_fill, fill
from lake.table.snapshot import Snapshot

_BALANCED = 1.25
_SAMPLE_FLOP = 150e9
_FRAGMENT_ROWS = 1 << 18


@dataclass(frozen=True)
class Asked:
    """What decides the result; see `lake.cluster`."""

    clusters: int
    column: str | None
    where: str | None
    metric: str | None
    balanced: bool | float
    into_column: str
    arrange: bool | int
    rounds: int
    seed: int

    def sizes(self) -> tuple[float | None, int]:
        """Check numbers; return the bound of a cluster, and the rows of a fragment, 0 if none is to be made."""
        for name, number in (("clusters", self.clusters), ("rounds", self.rounds)):
            if type(number) is not int or number < 1:
                raise InvalidInput(f"{name}={number!r}: give a whole number, 1 or more")
        if type(self.seed) is not int or self.seed < 0:
            raise InvalidInput(f"seed={self.seed!r}: give a whole number, 0 or more")
        wrong = not isinstance(self.balanced, bool | int | float)
        ratio = _BALANCED if self.balanced is True else float(self.balanced) if self.balanced and not wrong else None
        if wrong or (ratio is not None and not 1 <= ratio < float("inf")):
            raise InvalidInput(f"balanced={self.balanced!r}: give a multiple of the mean size, 1 or more")
        if isinstance(self.arrange, bool):
            fragment = _FRAGMENT_ROWS if self.arrange else 0
        elif type(self.arrange) is int and self.arrange > 0:
            fragment = self.arrange
        else:
            raise InvalidInput(f"arrange={self.arrange!r}: give True, or how many rows a fragment is to hold")
        return ratio, fragment

    def check(self, snapshot: Snapshot, memory: int | str, kept: JobFolder) -> Plan:
        """Refuse what makes no sense before anything is done."""
        ratio, fragment = self.sizes()
        side = knn.side(snapshot, self.column, self.where, (), "")
        side.check()
        metric = self.metric or (side.vectors.embedding.metric if side.vectors.embedding else "l2")
        if metric not in METRICS:
            raise InvalidInput(f"metric={metric!r}: give one of {', '.join(METRICS)}")
        label = Column(self.into_column, pa.int32(), derivation=Derivation((side.column,), CLUSTERED, "1"))
        check_fill(snapshot.schema, snapshot.dataset, label)
        if fragment:
            check_arrange(snapshot)
        fragments = side.fragments()
        if sum(fragments.values()) < self.clusters:
            raise InvalidInput(f"clusters={self.clusters}: there are {sum(fragments.values()):,} rows to cluster")
        work = kept.location
        allowed, needed = knn.parse_bytes(memory), task_bytes(self.clusters, side.dimension)
        if needed > allowed:
            raise too_little(f"{self.clusters:,} clusters need", needed, allowed)
        found = Rounds(side, fragments, metric, self.clusters, self.rounds, ratio, self.seed, kept.job, work, needed)
        return Plan(found, label, fragment, allowed)


def task_bytes(clusters: int, dimension: int) -> int:
    """Say what a task that assigns rows holds at most: batches, scores, sums, centroids; labels besides."""
    batch = 24 * 4 * dimension * batch_rows(dimension)  # Lance reads some ahead
    return BASE_BYTES + batch + 3 * SCORES_BYTES + clusters * dimension * (3 * 8 + 2 * 4) + 3 * 12 * (1 << 18)


@dataclass(frozen=True)
class Plan:
    """A clustering, every choice made."""

    rounds: Rounds
    label: Column
    fragment: int
    memory: int

    @property
    def side(self) -> Side:
        """The rows that take part."""
        return self.rounds.side

    @property
    def flop(self) -> float:
        """Floating-point operations of all rounds, if there are as many as may be."""
        rows = sum(self.rounds.fragments.values())
        return 2.0 * rows * self.rounds.clusters * self.side.dimension * self.rounds.most

    def sample(self) -> Floats:
        """Draw what the first centroids are made of; there must be a vector for each."""
        k, dimension = self.rounds.clusters, self.side.dimension
        most = max(k, self.memory // 4 // (4 * dimension))
        count = min(k * sample_points(k, dimension, _SAMPLE_FLOP), most)
        found, _ = draw(self.side, self.rounds.fragments, self.rounds.metric, count, self.rounds.seed)
        if len(found) < k:
            raise InvalidInput(f"clusters={k}: only {len(found):,} rows have a vector in {self.side.column!r}")
        return found

    def run(self, engine: Executor, on_event: Callback) -> ClusterReport:
        """Find clusters, label rows, rewrite the table."""
        work, snapshot = self.rounds, self.side.snapshot
        told, moved = work.run(engine, on_event)
        names = [block.labels for block in (moved or told[-1].blocks)]
        found = Found.read(work.folder, names)
        done = fill(snapshot, self.side.column, self.label, found.of, commit_id=f"{work.job}.label")
        arranged = None
        if self.fragment:
            at = (snapshot.location, snapshot.branch, self.label.name, self.fragment)
            arranged = Arranging(*at, work.job, work.folder, work.memory).run(engine, on_event)
        sizes = np.bincount(found.labels, minlength=work.clusters)
        rows = sum(work.fragments.values())
        return ClusterReport(
            job=work.job,
            table=snapshot.location.uri,
            version=snapshot.version,
            column=self.label.name,
            metric=work.metric,
            rows=rows,
            without_vector=rows - len(found.ids),
            labelled=done.rows,
            sizes=tuple(map(int, sizes)),
            capacity=work.capacity(len(found.ids)),
            moved=None if moved is None else sum(block.rows for block in moved),
            inertia=told[-1].spread if moved is None else sum(block.spread for block in moved),
            rounds=len(told),
            changed=told[-1].changed,
            settled=told[-1].settled,
            labelled_version=done.version,
            arranged_version=arranged,
        )

"""A comparison of two sets of vectors, every choice made: it draws samples, and counts all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.analytics.clustering import task_bytes
from lake.analytics.drifted import DriftReport
from lake.analytics.growth import CountBlock, Sample, growths, names
from lake.analytics.stages import Ids, draw
from lake.analytics.start import first
from lake.analytics.twosample import compare, plane
from lake.errors import InvalidInput
from lake.join import knn
from lake.join.folder import JobFolder
from lake.join.living import among, ranges_of
from lake.join.plan import too_little
from lake.join.side import Side, spans
from lake.nearest.kernel import METRICS
from lake.run import Callback, Executor, Ledger, Stage, run_stage
from lake.storage import Files
from lake.table.snapshot import Snapshot
from lake.table.sql import both, whole

_BLOCK_ROWS = 1 << 18
_SHOWN = 300
_CENTERS = "centers.npz"
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits are as if drawn by chance
_FAMILIES = 4  # three statistics, and the clusters, which are corrected among themselves


def all_of(snapshot: Snapshot, *filters: str | None) -> str | None:
    """Check filters, and join them."""
    return both(*(whole(where, snapshot.schema.names) for where in filters if where is not None))


@dataclass(frozen=True)
class Asked:
    """What decides the result; see `lake.drift`."""

    column: str | None
    filters: tuple[str | None, str | None]
    metric: str | None
    label: str | None
    clusters: int
    k: int
    sample: int
    permutations: int
    alpha: float
    seed: int

    def check(self, snapshots: Sequence[Snapshot], memory: int | str, kept: JobFolder) -> Plan:
        """Refuse what makes no sense before anything is done."""
        least = {"clusters": 1, "k": 1, "sample": 2, "permutations": 19, "seed": 0}
        for name, low in least.items():
            number = getattr(self, name)
            if type(number) is not int or number < low:
                raise InvalidInput(f"{name}={number!r}: give a whole number, {low} or more")
        if not isinstance(self.alpha, float) or not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha={self.alpha!r}: give a probability between 0 and 1")
        if self.alpha * (self.permutations + 1) <= _FAMILIES:
            least_number = int(_FAMILIES / self.alpha)
            raise InvalidInput(
                f"permutations={self.permutations}: nothing could be told at alpha={self.alpha}; give {least_number:,}"
            )
        sides = []
        for snapshot, where in zip(snapshots, self.filters, strict=True):
            side = knn.side(snapshot, self.column, where, (), "")
            side.check()
            if self.label is not None:
                snapshot.schema.column(self.label)
            sides.append(side)
        if sides[0].dimension != sides[1].dimension:
            raise InvalidInput(f"before has {sides[0].dimension} dimensions, after {sides[1].dimension}")
        embedding = sides[1].vectors.embedding
        metric = self.metric or (embedding.metric if embedding else "l2")
        if metric not in METRICS:
            raise InvalidInput(f"metric={metric!r}: give one of {', '.join(METRICS)}")
        allowed, needed = knn.parse_bytes(memory), task_bytes(self.clusters, sides[0].dimension)
        if needed > allowed:
            raise too_little(f"{self.clusters:,} clusters need", needed, allowed)
        return Plan(self, (sides[0], sides[1]), (sides[0].fragments(), sides[1].fragments()), metric, kept, needed)


@dataclass(frozen=True)
class Plan:
    """A comparison, every choice made."""

    asked: Asked
    sides: tuple[Side, Side]
    fragments: tuple[dict[int, int], dict[int, int]]
    metric: str
    kept: JobFolder
    memory: int

    @property
    def flop(self) -> float:
        """Floating-point operations of the tasks."""
        return 2.0 * sum(self.rows) * self.asked.clusters * self.sides[0].dimension

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of each side that pass its filter."""
        return sum(self.fragments[0].values()), sum(self.fragments[1].values())

    def draw(self) -> list[Sample]:
        """Draw a sample of each side."""
        found = []
        apart = self._apart()
        for at, (name, side) in enumerate(zip(("before", "after"), self.sides, strict=True)):
            seed = 2 * self.asked.seed + at
            points, ids = draw(side, self.fragments[at], self.metric, self.asked.sample, seed, among=apart[at])
            if len(points) < 2:  # noqa: PLR2004  a distance within a side takes two
                raise InvalidInput(
                    f"{name}: {len(points)} rows have a vector and are not in the other side's sample; give a side of "
                    "two or more"
                )
            found.append(Sample(side, points, ids))
        if sum(len(sample.points) for sample in found) < self.asked.clusters:
            raise InvalidInput(f"clusters={self.asked.clusters}: more than the rows of both samples")
        return found

    def _apart(self) -> Sequence[Callable[[Ids], NDArray[np.bool_]] | None]:
        """Deal rows that both sides hold out to one of them each: tell which may be drawn of each side.

        In both samples they would be each other's nearest neighbours, however far the others have drifted.
        """
        before, after = (side.snapshot for side in self.sides)
        if before.location != after.location or not after.dataset.has_stable_row_ids:
            return None, None
        held = [
            ranges_of(
                batch.column("_rowid").to_numpy().astype(np.int64)
                for fragment, rows in fragments.items()
                for batch in side.read((fragment, 0, rows), [], 1 << 16)
            )
            for side, fragments in zip(self.sides, self.fragments, strict=True)
        ]

        def may(ids: Ids, at: int) -> NDArray[np.bool_]:
            dealt = (ids.astype(np.uint64) + np.uint64(self.asked.seed)) * _SPREAD >> np.uint64(63)
            found: NDArray[np.bool_] = ~among(held[1 - at], ids) | (dealt == at)
            return found

        return partial(may, at=0), partial(may, at=1)

    def run(self, drawn: list[Sample], engine: Executor, on_event: Callback) -> DriftReport:
        """Compare samples, count all rows."""
        asked = self.asked
        before, after = (sample.points for sample in drawn)
        pooled = np.concatenate([before, after])
        shuffled = pooled[np.random.default_rng(asked.seed).permutation(len(pooled))]
        centers = first(shuffled, asked.clusters, self.metric, asked.seed)
        centers.write(self.kept.location, _CENTERS)
        counts = [self._count(at, engine, on_event) for at in range(2)]
        called = names(drawn, centers, asked.label)
        threshold = asked.alpha / _FAMILIES
        grown = growths(counts[0], counts[1], called, threshold)
        statistics = compare(before, after, asked.k, asked.permutations, asked.seed)
        snapshots = [side.snapshot for side in self.sides]
        totals = self.rows
        return DriftReport(
            job=self.kept.job,
            before=_named(snapshots[0], asked.filters[0]),
            after=_named(snapshots[1], asked.filters[1]),
            metric=self.metric,
            rows_before=totals[0],
            rows_after=totals[1],
            without_vector_before=totals[0] - int(counts[0].sum()),
            without_vector_after=totals[1] - int(counts[1].sum()),
            statistics=tuple(statistics),
            clusters=tuple(grown),
            threshold=threshold,
            plane=plane(before, after, _SHOWN),
        )

    def _count(self, which: int, engine: Executor, on_event: Callback) -> Ids:
        tasks = [
            CountBlock(self.sides[which], block, at, self.metric, self.kept.location, _CENTERS)
            for at, block in enumerate(spans(self.fragments[which], _BLOCK_ROWS))
        ]
        ledger: Ledger[Any] = Ledger(Files(self.kept.location.join("ledger")), self.kept.job, list, tuple)
        done = run_stage(engine, Stage(f"count-{('before', 'after')[which]}", tasks, self.memory), ledger, on_event)
        counts = np.zeros(self.asked.clusters, np.int64)
        for result in done:
            counts += result.value
        return counts


def _named(snapshot: Snapshot, where: str | None) -> str:
    return f"{snapshot.location.uri} version {snapshot.version}" + (f" where {where}" if where else "")

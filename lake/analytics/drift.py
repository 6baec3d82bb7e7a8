"""`drift`: whether, and where, two sets of vectors differ."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lake.analytics.cluster import task_bytes
from lake.analytics.drifted import DriftReport
from lake.analytics.folder import ASKED, REPORT, JobFolder
from lake.analytics.growth import CountBlock, Sample, growths, names
from lake.analytics.stages import Ids, draw, workers
from lake.analytics.start import first
from lake.analytics.twosample import compare, plane
from lake.errors import InvalidInput, LakeError, MemoryExceeded
from lake.index.jobs import job_folder
from lake.join import knn
from lake.join.api import HasSnapshot
from lake.join.kernel import METRICS
from lake.join.side import Side, spans
from lake.run import Callback, Executor, Ledger, Stage, listening, run_stage
from lake.run.task import check_name
from lake.storage import Files
from lake.table import pins
from lake.table.snapshot import Snapshot
from lake.table.sql import both, whole

_BLOCK_ROWS = 1 << 18
_SHOWN = 300
_CENTERS = "centers.npz"
_FAMILIES = 4  # three statistics, and the clusters, which are corrected among themselves


def drift(
    before: HasSnapshot | Snapshot,
    after: HasSnapshot | Snapshot,
    *,
    column: str | None = None,
    where: str | None = None,
    before_where: str | None = None,
    after_where: str | None = None,
    metric: str | None = None,
    label: str | None = None,
    clusters: int = 20,
    k: int = 10,
    sample: int = 2000,
    permutations: int = 999,
    alpha: float = 0.01,
    seed: int = 0,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> DriftReport:
    """Tell whether two sets of vectors differ, and which topics grew or shrank.

    Three statistics are computed on a sample of each side, and compared with what they are when rows are dealt out to
    the sides by chance: the shift of the centroid, MMD, and the share of neighbours of the same side. Then all rows
    are counted by the centroids of both samples.

    Rows are taken for independent of each other: near duplicates make chance look smaller than it is.

    Parameters
    ----------
    before, after : Table or Snapshot
        Two tables, two versions of one (`lake.Table.at`), or one table twice with different filters.
    column : str, optional
        The vectors, of the same name on both sides.
    where, before_where, after_where : str, optional
        SQL: which rows are compared; of both sides, and of one.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default. Under cosine, vectors are scaled to length one.
    label : str, optional
        A column that names clusters by its commonest value; by default the keys of the rows nearest the centroid do.
    clusters : int
        Centroids by which rows are counted.
    k : int
        Neighbours of each row of the samples.
    sample : int
        Rows of each side that the three statistics are computed on.
    permutations : int
        How often rows are dealt out by chance: no p is smaller than 1 / (permutations + 1).
    alpha : float
        What is found is called drift if chance alone makes as much, anywhere in the report, less often than this.
    seed : int
    executor : str or Executor
        Where all rows are counted: ``"local"``, ``"ray"``, ``"spark"``.
    memory : int or str
        What each worker may hold; the driver holds both samples, and 16 bytes for each of their rows and permutations.
    job_id : str, optional
        The same id resumes a job that was interrupted, and tells again what it told after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        Sides of different dimensions; fewer vectors than the statistics need; NaN; a zero vector under cosine; a job
        of that id did something else.
    """
    started = time.monotonic()
    for side in (before, after):
        if not isinstance(side, HasSnapshot | Snapshot):
            raise InvalidInput(f"drift: give tables or snapshots, not {type(side).__name__}")
    given = [side if isinstance(side, Snapshot) else side.snapshot() for side in (before, after)]
    job = f"drift-{uuid.uuid4().hex[:12]}" if job_id is None else check_name("job", job_id)
    filters = (_all_of(given[0], where, before_where), _all_of(given[1], where, after_where))
    asked = _Asked(column, filters, metric, label, clusters, k, sample, permutations, alpha, seed)
    kept = JobFolder(job, "drift", job_folder(given[1].location, job))
    snapshots = kept.begun(asdict(asked), given)
    known = kept.report()
    if known is not None:
        return replace(DriftReport.of(known), seconds=time.monotonic() - started, repeated=True)
    plan = asked.check(snapshots, memory, kept)
    try:
        with ExitStack() as stack:
            listen = stack.enter_context(listening(on_event))
            engine = stack.enter_context(workers(executor, plan.flop))
            for which, one in zip(("before", "after"), snapshots, strict=True):
                stack.enter_context(pins.pin(one, job=f"{job}-{which}"))
            drawn = plan.draw()
            kept.note(asdict(asked), snapshots)
            report = plan.run(drawn, engine, listen)
    except LakeError:
        if job_id is None:  # nobody can go on with it
            kept.clear()
        raise
    report = replace(report, seconds=time.monotonic() - started)
    kept.finish(report.to_dict())
    kept.clear(*(() if job_id is None else (ASKED, REPORT)))
    return report


def _all_of(snapshot: Snapshot, *filters: str | None) -> str | None:
    return both(*(whole(where, snapshot.schema.names) for where in filters if where is not None))


@dataclass(frozen=True)
class _Asked:
    """What decides the result; see `drift`."""

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

    def check(self, snapshots: Sequence[Snapshot], memory: int | str, kept: JobFolder) -> _Plan:
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
            raise MemoryExceeded(f"{self.clusters:,} clusters need memory={needed:,} bytes at least, not {allowed:,}")
        return _Plan(self, (sides[0], sides[1]), metric, kept, needed)


@dataclass(frozen=True)
class _Plan:
    """A comparison, every choice made."""

    asked: _Asked
    sides: tuple[Side, Side]
    metric: str
    kept: JobFolder
    memory: int

    @property
    def flop(self) -> float:
        rows = sum(sum(side.fragments().values()) for side in self.sides)
        return 2.0 * rows * self.asked.clusters * self.sides[0].dimension

    def draw(self) -> list[Sample]:
        """Draw a sample of each side, another of each, or rows of two versions would be the same ones."""
        found = []
        for at, (name, side) in enumerate(zip(("before", "after"), self.sides, strict=True)):
            seed = 2 * self.asked.seed + at
            points, ids = draw(side, side.fragments(), self.metric, self.asked.sample, seed)
            if len(points) < 2:  # noqa: PLR2004  a distance within a side takes two
                raise InvalidInput(f"{name}: {len(points)} rows have a vector; give a side of two or more")
            found.append(Sample(side, points, ids))
        if sum(len(sample.points) for sample in found) < self.asked.clusters:
            raise InvalidInput(f"clusters={self.asked.clusters}: more than the rows of both samples")
        return found

    def run(self, drawn: list[Sample], engine: Executor, on_event: Callback) -> DriftReport:
        """Compare samples, count all rows."""
        asked = self.asked
        before, after = (sample.points for sample in drawn)
        pooled = np.concatenate([before, after])
        shuffled = pooled[np.random.default_rng(asked.seed).permutation(len(pooled))]
        centers = first(shuffled, asked.clusters, self.metric, asked.seed)
        centers.write(self.kept.location, _CENTERS)
        counts = [self._count(name, side, engine, on_event) for name, side in zip("ba", self.sides, strict=True)]
        called = names(drawn, centers, asked.label)
        threshold = asked.alpha / _FAMILIES
        grown = growths(counts[0], counts[1], called, threshold)
        statistics = compare(before, after, asked.k, asked.permutations, asked.seed)
        snapshots = [side.snapshot for side in self.sides]
        totals = [sum(side.fragments().values()) for side in self.sides]
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

    def _count(self, name: str, side: Side, engine: Executor, on_event: Callback) -> Ids:
        tasks = [
            CountBlock(side, block, at, self.metric, self.kept.location, _CENTERS)
            for at, block in enumerate(spans(side.fragments(), _BLOCK_ROWS))
        ]
        ledger: Ledger[Any] = Ledger(Files(self.kept.location.join("ledger")), self.kept.job, list, tuple)
        done = run_stage(engine, Stage(f"count-{name}", tasks, self.memory), ledger, on_event)
        counts = np.zeros(self.asked.clusters, np.int64)
        for result in done:
            counts += result.value
        return counts


def _named(snapshot: Snapshot, where: str | None) -> str:
    return f"{snapshot.location.uri} version {snapshot.version}" + (f" where {where}" if where else "")

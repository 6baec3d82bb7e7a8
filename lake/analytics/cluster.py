"""`cluster`: k-means at scale, and each row's cluster as a column."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from lake.analytics.arrange import Arranging, check_arrange
from lake.analytics.assigned import Found
from lake.analytics.centers import SCORES_BYTES
from lake.analytics.folder import ASKED, REPORT, JobFolder
from lake.analytics.rounds import Rounds
from lake.analytics.sizes import ClusterReport
from lake.analytics.stages import BASE_BYTES, batch_rows, draw, workers
from lake.errors import InvalidInput, LakeError, MemoryExceeded
from lake.index.jobs import job_folder
from lake.index.kmeans import sample_points
from lake.join import knn
from lake.join.api import HasSnapshot
from lake.join.kernel import METRICS
from lake.join.side import Side
from lake.run import Callback, Executor, JobCommitted, listening
from lake.run.task import check_name
from lake.schema import Column, Derivation
from lake.table import pins
from lake.table.fill import check_fill, fill
from lake.table.snapshot import Snapshot

_BALANCED = 1.25
_SAMPLE_FLOP = 150e9
_FRAGMENT_ROWS = 1 << 18


def cluster(
    table: HasSnapshot | Snapshot,
    clusters: int,
    *,
    column: str | None = None,
    where: str | None = None,
    metric: str | None = None,
    balanced: bool | float = False,
    into_column: str = "cluster",
    arrange: bool | int = False,
    rounds: int = 20,
    seed: int = 0,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> ClusterReport:
    """Cluster a table's vectors by k-means, and write each row's cluster into a column.

    Lloyd's rounds over all rows begin with the centroids of a sample, and end when less than 0.1% of the rows change
    their cluster. The same seed gives the same clusters, wherever tasks run.

    Parameters
    ----------
    table : Table or Snapshot
        The version that is read is the one that is labelled: rows that are appended or changed meanwhile have null, as
        have rows without a vector, and those that the filter leaves out.
    clusters : int
    column : str, optional
        The vectors, where a table has several.
    where : str, optional
        SQL: only rows that pass are clustered.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default. Under cosine and dot, clusters are by angle.
    balanced : bool or float
        Bound the largest cluster: no more rows than this multiple of the mean, at least 1; ``True`` means 1.25.
        Clusters that are too large grow dearer by the round, and the rows that are over the bound in the end are
        moved to the nearest cluster that has room. The bound holds exactly, for the version that is read.
    into_column : str
        Whole numbers from 0. The column is made, in one commit, or filled anew if an earlier clustering made it.
    arrange : bool or int
        Then rewrite the table, in one more commit, in the order of the clusters: a cluster shares its fragment only
        with whole neighbours, unless it has more rows than a fragment is to hold, 262,144 or the number given. The
        rows are new ones to `lake.Table.changes`; indexes stay declared, and are to be built again.
    rounds : int
        At most.
    seed : int
    executor : str or Executor
        Where tasks run: ``"local"``, ``"ray"``, ``"spark"``.
    memory : int or str
        What each worker may hold, whatever the table's size. The driver holds 24 bytes for each row, and the sample.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        More clusters than vectors; a bound below 1; NaN or infinity in a vector; a zero vector under cosine; a job of
        that id did something else.
    AlreadyExists
        The table has a column of that name that no clustering made.
    NotSupported
        Row ids do not stay with their rows, or rows with blobs are to be rewritten.
    MemoryExceeded
        `memory` is too little for so many clusters of such vectors.
    """
    started = time.monotonic()
    if not isinstance(table, HasSnapshot | Snapshot):
        raise InvalidInput(f"cluster: give a table or a snapshot, not {type(table).__name__}")
    snapshot = table if isinstance(table, Snapshot) else table.snapshot()
    job = f"cluster-{uuid.uuid4().hex[:12]}" if job_id is None else check_name("job", job_id)
    asked = _Asked(clusters, column, where, metric, balanced, into_column, arrange, rounds, seed)
    kept = JobFolder(job, "cluster", job_folder(snapshot.location, job))
    [snapshot] = kept.begun(asdict(asked), [snapshot])
    known = kept.report()
    if known is not None:
        done = ClusterReport(**known | {"sizes": tuple(known["sizes"]), "repeated": True})
        return replace(done, seconds=time.monotonic() - started)
    plan = asked.check(snapshot, memory, kept)
    try:
        with listening(on_event) as listen, workers(executor, plan.flop) as engine, pins.pin(snapshot, job=job):
            sample = None if plan.rounds.started else plan.sample()
            kept.note(asdict(asked), [snapshot])
            if sample is not None:
                plan.rounds.start(sample)
            report = plan.run(engine, listen)
            listen(JobCommitted(job, report.arranged_version or report.labelled_version))
    except LakeError:
        if job_id is None:  # nobody can go on with it
            kept.clear()
        raise
    report = replace(report, seconds=time.monotonic() - started)
    kept.finish(report.to_dict())
    kept.clear(*(() if job_id is None else (ASKED, REPORT)))
    return report


@dataclass(frozen=True)
class _Asked:
    """What decides the result; see `cluster`."""

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
        ratio = _BALANCED if self.balanced is True else float(self.balanced) if self.balanced else None
        if ratio is not None and not 1 <= ratio < float("inf"):
            raise InvalidInput(f"balanced={self.balanced!r}: give a multiple of the mean size, 1 or more")
        if isinstance(self.arrange, bool):
            fragment = _FRAGMENT_ROWS if self.arrange else 0
        elif type(self.arrange) is int and self.arrange > 0:
            fragment = self.arrange
        else:
            raise InvalidInput(f"arrange={self.arrange!r}: give True, or how many rows a fragment is to hold")
        return ratio, fragment

    def check(self, snapshot: Snapshot, memory: int | str, kept: JobFolder) -> _Plan:
        """Refuse what makes no sense before anything is done."""
        ratio, fragment = self.sizes()
        side = knn.side(snapshot, self.column, self.where, (), "")
        side.check()
        metric = self.metric or (side.vectors.embedding.metric if side.vectors.embedding else "l2")
        if metric not in METRICS:
            raise InvalidInput(f"metric={metric!r}: give one of {', '.join(METRICS)}")
        label = Column(self.into_column, pa.int32(), derivation=Derivation((side.column,), "lake.cluster", "1"))
        check_fill(snapshot.schema, snapshot.dataset, label)
        if fragment:
            check_arrange(snapshot)
        fragments = side.fragments()
        if sum(fragments.values()) < self.clusters:
            raise InvalidInput(f"clusters={self.clusters}: there are {sum(fragments.values()):,} rows to cluster")
        work = kept.location
        allowed, needed = knn.parse_bytes(memory), task_bytes(self.clusters, side.dimension)
        if needed > allowed:
            raise MemoryExceeded(f"{self.clusters:,} clusters need memory={needed:,} bytes at least, not {allowed:,}")
        found = Rounds(side, fragments, metric, self.clusters, self.rounds, ratio, self.seed, kept.job, work, needed)
        return _Plan(found, label, fragment, allowed)


def task_bytes(clusters: int, dimension: int) -> int:
    """Say what a task that assigns rows holds at most: batches, scores, sums, centroids; labels besides."""
    batch = 6 * 4 * dimension * batch_rows(dimension)
    return BASE_BYTES + batch + 3 * SCORES_BYTES + clusters * dimension * (3 * 8 + 2 * 4) + 3 * 12 * (1 << 18)


@dataclass(frozen=True)
class _Plan:
    """A clustering, every choice made."""

    rounds: Rounds
    label: Column
    fragment: int
    memory: int

    @property
    def side(self) -> Side:
        return self.rounds.side

    @property
    def flop(self) -> float:
        rows = sum(self.rounds.fragments.values())
        return 2.0 * rows * self.rounds.clusters * self.side.dimension * self.rounds.most

    def sample(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
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
            labelled_version=done.version,
            arranged_version=arranged,
        )

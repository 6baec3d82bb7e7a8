"""The stages of a build: models, then segments, on whatever executor there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lance.dataset import Index

from lake.errors import MemoryExceeded, TaskFailed
from lake.index import segments as receipts
from lake.index.jobs import table_of
from lake.index.model import ModelFile
from lake.index.plan import IndexPlan, live_rows, memory_of
from lake.index.tasks import BuildSegment, PrepareModel
from lake.run import Callback, Executor, Ledger, LocalExecutor, Stage, Starts, Task, TaskResult, engage, run_stage
from lake.storage import Files, Location
from lake.table.snapshot import Snapshot

# Below this many rows a whole build is over before a worker process has started.
_IN_PROCESS_ROWS = 100_000
_JOINED_BYTES = 256 << 20

R = TypeVar("R")


@dataclass
class Work:
    """One index of a build, as it comes along.

    Parameters
    ----------
    plan : IndexPlan
    indexes : list of lance.dataset.Index
        The receipts of its segments.
    rows : int
        Rows that they cover.
    partitions : int or None
        Of vector indexes.
    resumed : int
        Segments that an earlier run of the job had built.
    seconds : mapping of str to float
        Task time by stage.
    error : Exception or None
        Why it failed.
    """

    plan: IndexPlan
    indexes: list[Index] = field(default_factory=list)
    rows: int = 0
    partitions: int | None = None
    resumed: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    error: Exception | None = None


@dataclass(frozen=True)
class Workshop:
    """Where a build works.

    Parameters
    ----------
    snapshot : Snapshot
    folder : Location
        The job's folder: ledger and models.
    job : str
    executor : str or Executor
    on_event : Callback
    """

    snapshot: Snapshot
    folder: Location
    job: str
    executor: str | Executor
    on_event: Callback

    def ledger(self, encode: Any = None, decode: Any = None) -> Ledger[Any]:
        """Open the job's ledger."""
        return Ledger(Files(self.folder), self.job, encode, decode, table_of(self.snapshot))

    def run(self, work: Mapping[str, Work]) -> None:
        """Prepare the models and build the segments; an index that fails is marked, the others go on."""
        rows = live_rows(self.snapshot.dataset)
        models: list[PrepareModel] = []
        tasks: list[BuildSegment] = []
        for plan in (w.plan for w in work.values() if not w.error):
            spec, file = plan.spec, None
            if spec.traits.vector and plan.groups:
                file = ModelFile(self.folder, f"models/{self.snapshot.version}-{spec.fingerprint}.npz")
                models.append(PrepareModel(self.snapshot, spec, file, plan.reuse))
            sized = ((group, sum(rows[f] for f in group)) for group in plan.groups)
            tasks += [BuildSegment(self.snapshot, spec, group, count, file) for group, count in sized]
        with self._executors(tasks) as (driver, workers):
            self._make_models(driver, models, work)
            self._make_segments(workers, tasks, work)
        for w in work.values():
            self._join(w)

    def _make_models(self, executor: Executor, tasks: Sequence[PrepareModel], work: Mapping[str, Work]) -> None:
        for task, result in self._stage(executor, "model", tasks, work, self.ledger(int, int)):
            w = work[task.spec.name]
            w.partitions = result.value
            w.seconds["model"] += result.seconds

    def _make_segments(self, executor: Executor, tasks: Sequence[BuildSegment], work: Mapping[str, Work]) -> None:
        ledger = self.ledger(receipts.encode, receipts.decode)
        for task, result in self._stage(executor, "segments", tasks, work, ledger):
            w = work[task.spec.name]
            w.indexes.append(result.value)
            w.rows += task.rows
            w.resumed += result.attempts == 0
            w.seconds["segments"] += result.seconds

    def _join(self, w: Work) -> None:
        """Join fresh PQ segments into one: a matter of milliseconds that halves the time of a search.

        Never other kinds: joined SQ segments lose recall, and whole vectors cost more to copy than they save.
        Nor segments that were published before, since Lance cannot join a joined segment again.
        """
        size = sum(file.size_bytes for index in w.indexes for file in index.files or [])
        if w.error is None and w.plan.spec.kind == "IVF_PQ" and len(w.indexes) > 1 and size <= _JOINED_BYTES:
            try:
                w.indexes = [self.snapshot.dataset.merge_existing_index_segments(w.indexes)]
            except (OSError, ValueError, RuntimeError) as error:  # what Lance raises
                w.error = error

    @contextmanager
    def _executors(self, tasks: Sequence[BuildSegment]) -> Iterator[tuple[Executor, Executor]]:
        """Choose where models and where segments are made.

        A model is one task that can use every core, so on one machine it is made in the driver's process.
        """
        small = len(tasks) <= 1 or sum(task.rows for task in tasks) < _IN_PROCESS_ROWS
        with engage(self.executor, little=small) as executor:
            if isinstance(executor, Starts) and len(tasks) > 1:
                executor.start(BuildSegment.__module__)  # while the models are made
            yield LocalExecutor(1) if isinstance(executor, LocalExecutor) else executor, executor

    def _stage(
        self, executor: Executor, name: str, tasks: Sequence[Any], work: Mapping[str, Work], ledger: Ledger[R]
    ) -> Iterator[tuple[Any, TaskResult[R]]]:
        """Run the tasks of all indexes; when one fails, or does not fit into memory, go on without its index."""
        by_key = {task.key: task for task in tasks}
        left: dict[str, Task[R]] = {key: task for key, task in by_key.items() if not work[task.spec.name].error}
        while left:
            needs = {key: memory_of(by_key[key].spec, self.snapshot.schema) for key in left}
            stage = Stage(name, list(left.values()), max(needs.values()))
            try:
                for result in run_stage(executor, stage, ledger, self.on_event):
                    del left[result.key]
                    yield by_key[result.key], result
            except TaskFailed as error:
                left = self._without({by_key[error.key].spec.name}, error, left, by_key, work)
            except MemoryExceeded as error:
                # The stage asked for what the largest needs; those that the ledger held are out of `left`.
                large = {by_key[key].spec.name for key in left if needs[key] == stage.memory_bytes}
                left = self._without(large, error, left, by_key, work)

    @staticmethod
    def _without(
        failed: Collection[str],
        error: Exception,
        left: Mapping[str, Task[R]],
        by_key: Mapping[str, Any],
        work: Mapping[str, Work],
    ) -> dict[str, Task[R]]:
        """Mark some indexes as failed, and return the tasks of the others."""
        for name in failed:
            work[name].error = error
        return {key: task for key, task in left.items() if by_key[key].spec.name not in failed}

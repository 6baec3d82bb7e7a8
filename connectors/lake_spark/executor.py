"""The executor of a Spark cluster, through a classic session or Spark Connect: each attempt is a Spark job.

A job is a data frame of one partition whose function runs the task and gives back its outcome, which both kinds of
session can do. Spark's own retries are declined, so that the account of attempts is true.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.types import BinaryType, StructField, StructType

from lake.errors import InvalidInput, JobError, MemoryExceeded
from lake.run.attempt import Attempts, Outcome, attempt_remote, dump_task, load_outcome
from lake.run.events import Callback as OnEvent
from lake.run.events import ignore
from lake.run.memory import available_bytes
from lake.run.task import R, Stage, Task, TaskResult
from lake.run.threads import limited
from lake_spark.session import Session, find_session

_DIED = "a worker died: killed, or out of memory"
_SPAN = 0.1  # seconds; a job that has run for longer begins no further task
_SURVEYED_ROWS = 1 << 12
_REPLY = StructType([StructField("reply", BinaryType())])


class SparkExecutor:
    """Runs tasks on a Spark cluster, one core each.

    Workers import `lake`, `lake_spark` and the tasks' modules: install them on the cluster, or send the archive of
    ``make dist`` with ``--py-files`` or ``addArtifacts(…, pyfile=True)``. Tasks that take a few milliseconds travel
    several to a job.

    Parameters
    ----------
    session : SparkSession or str, optional
        A session, classic or of Spark Connect; an address as `lake_spark.session.find_session` takes it; by default
        the active session, or a new one. It stays when the executor goes.
    workers : int, optional
        How many jobs are handed to Spark at a time; by default as many as the cluster has cores at the moment. Give
        the number that is to come where executors are added on demand, or a session has just begun.
    memory_bytes : int, optional
        How much memory the tasks of one machine may use together; by default what a worker finds available.

    Raises
    ------
    InvalidInput
        If a number is not positive, or no session can be had.
    """

    def __init__(
        self, session: Session | str | None = None, workers: int | None = None, memory_bytes: int | None = None
    ) -> None:
        for name, value in (("workers", workers), ("memory_bytes", memory_bytes)):
            if value is not None and value < 1:
                raise InvalidInput(f"{name}={value}: it must be 1 or more")
        self.session: Session = find_session(session) if session is None or isinstance(session, str) else session
        self.memory_bytes = memory_bytes
        self._workers = workers
        # A classic session's own tags are known to the thread that adds them alone.
        if isinstance(self.session, SparkSession):
            context = self.session.sparkContext
            self._add_tag: Callable[[str], object] = context.addJobTag
            self._interrupt: Callable[[str], object] = context.cancelJobsWithTag
        else:
            self._add_tag, self._interrupt = self.session.addTag, self.session.interruptTag

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        return self._workers or len(self._survey())

    def run(self, stage: Stage[R], on_event: OnEvent = ignore) -> Generator[TaskResult[R], None, None]:
        """Run a stage; see `lake.run.Executor.run`. Memory is checked at the call, tasks start with the first `next`.

        Closing the generator cancels the jobs; Spark ends a task that has begun within two seconds
        (``spark.python.task.killTimeout``).
        """
        found = self._survey()
        workers = self._fit(stage, found)
        # A stage with fewer tasks than workers gives each task several threads, as long as its machine has the cores.
        threads = max(1, min(len(found) // len({host for host, _ in found}), workers // max(1, len(stage.tasks))))
        # A copy that Spark starts for speed is like one that it starts after a death: then both must run.
        declines = str(self.session.conf.get("spark.speculation", "false")).lower() != "true"
        return self._run(stage, on_event, workers, partial(_attempt_in_turn, threads=threads, declines=declines))

    def _run(
        self, stage: Stage[R], on_event: OnEvent, workers: int, act: Callable[..., Iterator[pa.RecordBatch]]
    ) -> Generator[TaskResult[R], None, None]:
        attempts = Attempts(stage, on_event, workers=workers)
        running: dict[Future[list[bytes]], list[Task[R]]] = {}
        unfinished: deque[Task[R]] = deque()  # started, and handed back by jobs that had several
        results: list[TaskResult[R]] = []
        size = 1
        tag = f"lake-{stage.name}-{uuid.uuid4().hex}"
        with ThreadPoolExecutor(workers, initializer=self._add_tag, initargs=(tag,)) as pool:
            try:
                while True:
                    while (unfinished or attempts.waiting) and len(running) < workers and not attempts.failure:
                        if unfinished:
                            tasks = [unfinished.popleft()]
                        else:
                            count = min(size, len(attempts.waiting))
                            tasks = [attempts.start() for _ in range(count)]
                        payloads = [dump_task(task) for task in tasks]
                        running[pool.submit(self._job, partial(act, payloads=payloads))] = tasks
                    # The workers have their next tasks before the caller, who may be slow, gets these.
                    yield from results
                    if attempts.failure:
                        raise attempts.failure
                    if not running:
                        break
                    results.clear()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        tasks = running.pop(future)
                        outcomes = _outcomes(future, alone=len(tasks) == 1)
                        for task, outcome in zip(tasks, outcomes, strict=False):
                            results += attempts.finish(task, outcome)
                        unfinished += tasks[len(outcomes) :]
                        brief = len(outcomes) == len(tasks) and sum(o.seconds for o in outcomes) < _SPAN / 4
                        size = max(size, 2 * len(tasks)) if brief else 1
            finally:
                self._cancel(tag, running)
        attempts.complete()

    def _job(self, act: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> list[bytes]:
        """Run tasks in a Spark job; return the replies of those that were run, none if a worker died."""
        return [bytes(row.reply) for row in self.session.range(0, 1, 1, 1).mapInArrow(act, _REPLY).collect()]

    def _cancel(self, tag: str, running: dict[Future[list[bytes]], list[Task[R]]]) -> None:
        left = {future for future in running if not future.cancel()}
        while left:
            self._interrupt(tag)  # again and again: a job may be about to begin
            left = wait(left, timeout=0.1).not_done

    def _fit(self, stage: Stage[R], found: list[tuple[str, int]]) -> int:
        """How many tasks of the stage run at a time."""
        workers = self._workers or len(found)
        if not stage.memory_bytes:
            return workers
        hosts = len({host for host, _ in found})
        available = min(available for _, available in found) if self.memory_bytes is None else self.memory_bytes
        fit = available // stage.memory_bytes
        if fit == 0:
            raise MemoryExceeded(
                f"a task of stage {stage.name!r} is projected to need {stage.memory_bytes:,} bytes, and "
                f"{available:,} are available to a Spark worker: use smaller tasks or larger machines"
            )
        # Spark may put any of them on the same machine, up to the number of its cores.
        return workers if fit * hosts >= workers else fit

    def _survey(self) -> list[tuple[str, int]]:
        """Ask each core of the cluster for its machine, and how much memory that has available."""
        try:
            rows = self.session.range(_SURVEYED_ROWS).mapInArrow(_survey, "host string, available long").collect()
        except Exception as error:
            raise _error(error) from error
        return [(row.host, row.available) for row in rows]


def _attempt_in_turn(
    batches: Iterator[pa.RecordBatch], *, payloads: list[bytes], threads: int, declines: bool
) -> Iterator[pa.RecordBatch]:
    """Run pickled tasks in a worker, and give back their outcomes: at least one, unless Spark repeats a lost job."""
    for _ in batches:
        pass
    context = TaskContext.get()
    if context is not None and context.attemptNumber() > 0 and declines:
        return
    started = time.perf_counter()
    with limited(threads):
        for payload in payloads:
            yield pa.RecordBatch.from_arrays([pa.array([attempt_remote(payload)], pa.binary())], ["reply"])
            if time.perf_counter() - started > _SPAN:
                return


def _survey(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        pass
    yield pa.RecordBatch.from_arrays(
        [pa.array([platform.node()]), pa.array([available_bytes()])], ["host", "available"]
    )


def _outcomes(future: Future[list[bytes]], *, alone: bool) -> list[Outcome[Any]]:
    """Return how the tasks of a job ended that were run.

    A task that was not alone does not pay for a death: it runs again, by itself.
    """
    error = future.exception()
    if error is None and (replies := future.result()):
        return [load_outcome(reply) for reply in replies]
    return [Outcome([], 0.0, _error(error))] if alone else []


def _error(error: BaseException | None) -> JobError:
    text = str(error)
    if error is None or "Python worker exited unexpectedly" in text or "ExecutorLostFailure" in text:
        failure = JobError(_DIED)
    else:
        failure = JobError(
            f"Spark could not run the task: {text}\nIf a module is missing, install it on the cluster, or send the "
            "archive of `make dist` with --py-files"
        )
    failure.__cause__ = error
    return failure

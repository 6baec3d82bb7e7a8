"""The executor of one machine: processes that are started anew, never forked."""

import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from types import TracebackType
from typing import Any, Self

from lake.errors import InvalidInput, JobError, MemoryExceeded
from lake.run.attempt import Attempts, Outcome, attempt, attempt_remote, dump_task, load_outcome
from lake.run.events import Callback, ignore
from lake.run.memory import available_bytes
from lake.run.task import R, Stage, Task, TaskResult

_DIED = "a worker process died: killed, or out of memory"
# Workers share the CPUs evenly instead of each starting a thread for every CPU.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LANCE_CPU_THREADS",
)


class LocalExecutor:
    """Runs tasks in processes of this machine, each started when it is first needed and used by all later stages.

    With one worker the tasks run in this process: no pickling, and a debugger works. With more, a task's class
    must be importable, so it cannot be defined in a notebook or in the script that is run. Each worker is a pool
    of one process, so that a worker that is killed costs its own task an attempt, and no other task anything.
    Workers ignore Ctrl-C, which the driver acts upon, and leave when the driver dies.

    Parameters
    ----------
    workers : int, optional
        How many tasks run at a time; by default as many as this process may use CPUs.
    memory_bytes : int, optional
        How much memory all workers together may use; by default what the machine, or the container, has
        available when a stage starts. A stage that projects more runs on fewer workers.

    Raises
    ------
    InvalidInput
        If a number is not positive.
    """

    def __init__(self, workers: int | None = None, memory_bytes: int | None = None) -> None:
        self.workers = cpus() if workers is None else workers
        self.memory_bytes = memory_bytes
        if self.workers < 1 or (memory_bytes is not None and memory_bytes < 1):
            raise InvalidInput(f"workers={workers}, memory_bytes={memory_bytes}: both must be 1 or more")
        self._idle: list[_Worker] = []
        self._busy: dict[Future[bytes], _Worker] = {}

    def run(self, stage: Stage[R], on_event: Callback = ignore) -> Generator[TaskResult[R], None, None]:
        """Run a stage; see `Executor.run`. Memory is checked at the call, tasks start with the first `next`."""
        workers = self._fit(stage)
        return self._in_process(stage, on_event) if self.workers == 1 else self._pooled(stage, on_event, workers)

    def start(self, module: str) -> None:
        """Start the worker processes now, to import a module of tasks while the caller does something else."""
        if self.workers > 1:
            fresh = [self._new_worker() for _ in range(self.workers - len(self._idle) - len(self._busy))]
            for worker in fresh:
                worker.load(module)
            self._idle += fresh

    def close(self) -> None:
        """End all worker processes, busy ones too. A later `run` starts new ones."""
        workers = [*self._idle, *self._busy.values()]
        self._idle.clear()
        for worker in workers:
            worker.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fit(self, stage: Stage[R]) -> int:
        """How many tasks of the stage run at a time."""
        if not stage.memory_bytes:
            return self.workers
        available = available_bytes() if self.memory_bytes is None else self.memory_bytes
        fit = available // stage.memory_bytes
        if fit == 0:
            raise MemoryExceeded(
                f"a task of stage {stage.name!r} is projected to need {stage.memory_bytes:,} bytes, and "
                f"{available:,} are available: use smaller tasks or a larger machine"
            )
        return min(fit, self.workers)

    def _in_process(self, stage: Stage[R], on_event: Callback) -> Generator[TaskResult[R], None, None]:
        attempts = Attempts(stage, on_event, workers=1)
        while attempts.waiting:
            task = attempts.start()
            yield from attempts.finish(task, attempt(task))
            if attempts.failure:
                raise attempts.failure
        attempts.complete()

    def _pooled(self, stage: Stage[R], on_event: Callback, workers: int) -> Generator[TaskResult[R], None, None]:
        attempts = Attempts(stage, on_event, workers=workers)
        running: dict[Future[bytes], Task[R]] = {}
        results: list[TaskResult[R]] = []
        try:
            while True:
                while attempts.waiting and len(running) < workers and not attempts.failure:
                    task = attempts.start()
                    running[self._submit(task)] = task
                # The workers have their next tasks before the caller, who may be slow, gets these.
                yield from results
                if attempts.failure:
                    raise attempts.failure
                if not running:
                    break
                results.clear()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    results += attempts.finish(running.pop(future), self._outcome(future))
        finally:
            for future in running:
                self._busy.pop(future).kill()
        attempts.complete()

    def _submit(self, task: Task[R]) -> Future[bytes]:
        payload = dump_task(task)
        worker = self._worker()
        future = worker.submit(payload)
        self._busy[future] = worker
        return future

    def _worker(self) -> "_Worker":
        while self._idle:
            worker = self._idle.pop()
            if not worker.dead:
                return worker
            worker.kill()
        return self._new_worker()

    def _new_worker(self) -> "_Worker":
        return _Worker(max(1, cpus() // self.workers))

    def _outcome(self, future: Future[bytes]) -> Outcome[Any]:
        worker = self._busy.pop(future)
        error = future.exception()
        if error is None:
            self._idle.append(worker)
            return load_outcome(future.result())
        worker.kill()
        if isinstance(error, BrokenExecutor):
            error = JobError(_DIED)
        return Outcome([], 0.0, error)


class _Worker:
    """A pool of one process."""

    def __init__(self, threads: int) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=SpawnContext(), initializer=_prepare)
        with _threads(threads), _without_main():  # a process starts with what holds at the moment
            self._pool.submit(os.getpid)

        # The pool has no public way to end a process that is busy (Python 3.14 adds one).
        self._processes: list[SpawnProcess] = list(getattr(self._pool, "_processes").values())  # noqa: B009

    def submit(self, payload: bytes) -> Future[bytes]:
        try:
            return self._pool.submit(attempt_remote, payload)
        except BrokenExecutor as error:  # it died since it was last used, or as it began
            future: Future[bytes] = Future()
            future.set_exception(error)
            return future

    def load(self, module: str) -> None:
        """Import a module, before the first task; an error comes again, and is told, when a task needs it."""
        self._pool.submit(import_module, module)

    @property
    def dead(self) -> bool:
        # Unlike is_alive(), a sentinel knows even if another part of the program has reaped the process.
        return bool(connection.wait([process.sentinel for process in self._processes], timeout=0))

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
        self._pool.shutdown(cancel_futures=True)  # waits for the pool's threads, which wait for the process


def _prepare() -> None:
    """Begin a worker: the driver acts upon Ctrl-C, and a worker must not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set how many threads the numeric libraries of a process that is started now will use."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update({name: str(count) for name, value in before.items() if value is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep a process that is started now from running the caller's script again.

    Python's spawn imports the main module, for classes that are defined in it. Tasks are importable by rule, and
    a script or notebook that builds an index at its top level must not need a guard for that.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update({"__spec__": None, **hidden})


def cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

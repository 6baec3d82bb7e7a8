"""The executor of a Ray cluster: each attempt is a Ray task that Ray itself never repeats."""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError

from lake.errors import InvalidInput, JobError, MemoryExceeded
from lake.run.attempt import Attempts, Outcome, attempt_remote, dump_task, load_outcome
from lake.run.events import Callback, ignore
from lake.run.task import R, Stage, TaskResult
from lake.run.threads import limited

_SOON = 0.5  # seconds, for tasks that nobody waits for to end of themselves
_PATIENCE = 10.0  # seconds, for tasks that were cancelled to end


class RayExecutor:
    """Runs tasks on a Ray cluster, one CPU each.

    The cluster is found when it is first needed: the one that this process is connected to, else the one at
    `address`, else the one of ``RAY_ADDRESS`` or of this machine, else a local one is started. Workers import
    `lake` and the tasks' modules: install them on the cluster, or connect with
    ``ray.init(runtime_env={"py_modules": [wheel]})``.

    A worker that dies costs its own task an attempt. A stage with fewer tasks than workers gives each task
    several CPUs, as long as one machine has them. Memory that a stage projects is asked of Ray as the ``memory``
    resource, so that no machine takes more tasks than it holds.

    Parameters
    ----------
    address : str, optional
        ``"ray://host:10001"``, ``"host:6379"``, ``"auto"`` or ``"local"``, as `ray.init` takes it.
    workers : int, optional
        How many tasks are handed to Ray at a time; by default as many as the cluster has CPUs. Give more than it
        has to make an autoscaler add machines.

    Raises
    ------
    InvalidInput
        If `workers` is not positive.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InvalidInput(f"workers={workers}: it must be 1 or more")
        self.address = address
        self._workers = workers
        self._connected = False

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        if self._workers is not None:
            return self._workers
        return max(1, int(sum(node.get("CPU", 0) for node in self._nodes())))

    def start(self, module: str) -> None:
        """Import a module of tasks in the workers now, while the caller does something else."""
        # Each has a CPU, as tasks have: without, Ray starts more processes than those that tasks will run in.
        remote = ray.remote(_load).options(name="lake start", num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
        for _ in range(self.workers):
            remote.remote(module)

    def run(self, stage: Stage[R], on_event: Callback = ignore) -> Generator[TaskResult[R], None, None]:
        """Run a stage; see `Executor.run`. Memory is checked at the call, tasks start with the first `next`."""
        most = max((node.get("memory", 0) for node in self._nodes()), default=0)
        if stage.memory_bytes > most:
            raise MemoryExceeded(
                f"a task of stage {stage.name!r} is projected to need {stage.memory_bytes:,} bytes, and the largest "
                f"machine of the Ray cluster offers {int(most):,}: use smaller tasks or a larger machine"
            )
        return self._run(stage, on_event, self.workers)

    def _run(self, stage: Stage[R], on_event: Callback, workers: int) -> Generator[TaskResult[R], None, None]:
        attempts = Attempts(stage, on_event, workers=workers)
        cpus = self._cpus(stage, workers)
        options = {"name": f"lake {stage.name}", "num_cpus": cpus, "memory": stage.memory_bytes or None}
        remote = ray.remote(_attempt).options(max_retries=0, **options)  # the stage says how often
        running: dict[ray.ObjectRef, Any] = {}
        results: list[TaskResult[R]] = []
        try:
            while True:
                while attempts.waiting and len(running) < workers and not attempts.failure:
                    task = attempts.start()
                    running[remote.remote(dump_task(task), cpus)] = task
                # The workers have their next tasks before the caller, who may be slow, gets these.
                yield from results
                if attempts.failure:
                    raise attempts.failure
                if not running:
                    break
                results.clear()
                ray.wait(list(running))
                for reference in ray.wait(list(running), num_returns=len(running), timeout=0)[0]:
                    results += attempts.finish(running.pop(reference), _outcome(reference))
        finally:
            _cancel(list(running))
        attempts.complete()

    def _cpus(self, stage: Stage[R], workers: int) -> int:
        """How many CPUs a task of the stage takes."""
        widest = max((node.get("CPU", 0) for node in self._nodes()), default=1)
        return max(1, int(min(widest, workers // max(1, len(stage.tasks)))))

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of each machine that is alive."""
        self._connect()
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        try:
            ray.init(self.address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InvalidInput(f"cannot connect to Ray at {self.address!r}: {error}") from error
        self._connected = True

    def close(self) -> None:
        """Leave the cluster, and stop it if it was started here; one that others connected to stays as it is."""
        if self._connected:
            self._connected = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _attempt(payload: bytes, cpus: int) -> bytes:
    """Run a pickled task in a worker, one that other stages use too: to start a process costs more than most tasks."""
    with limited(cpus):
        return attempt_remote(payload)


def _load(module: str) -> None:
    """Import a module; an error comes again, and is told, when a task needs it."""
    import_module(module)


def _outcome(reference: ray.ObjectRef) -> Outcome[Any]:
    try:
        return load_outcome(ray.get(reference))
    except (WorkerCrashedError, OutOfMemoryError) as error:
        failure = JobError("a worker process died: killed, or out of memory")
        failure.__cause__ = error
        return Outcome([], 0.0, failure)
    except RayError as error:  # such as a machine that was lost, or workers that cannot import the task
        failure = JobError(
            f"Ray could not run the task: {type(error).__name__}: {error}. If a module is missing, install it on the "
            "cluster or connect with ray.init(runtime_env={'py_modules': [wheel]})"
        )
        failure.__cause__ = error
        return Outcome([], 0.0, failure)


def _cancel(running: list[ray.ObjectRef]) -> None:
    """End tasks, busy ones too, and wait until they have ended.

    To cancel a task that is just ending is dangerous: Ray may end this process (a failed check of its own, "Tried to
    complete task that was not pending"), or kill the worker when that has begun a task of somebody else. So those that
    end soon are let end, and only the others are cancelled, of which hardly one ends at that very moment.
    """
    if running:
        _, busy = ray.wait(running, num_returns=len(running), timeout=_SOON, fetch_local=False)
        for reference in busy:
            ray.cancel(reference, force=True)
        if busy:
            ray.wait(busy, num_returns=len(busy), timeout=_PATIENCE)

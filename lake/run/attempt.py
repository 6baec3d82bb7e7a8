"""What all executors share: one attempt at a task, and the account of a stage's attempts."""

import pickle
import time
from collections import Counter, deque
from traceback import format_exception
from typing import Generic, NamedTuple

from lake.errors import InvalidInput, JobError, TaskFailed
from lake.run.events import Callback, StageDone, StageFailed, StageStarted, TaskDone, TaskRetried, TaskStarted
from lake.run.task import Counts, R, Stage, Task, TaskResult


class Outcome(NamedTuple, Generic[R]):
    """How one attempt ended: with a list of the one receipt, or with an error.

    Parameters
    ----------
    receipt : list[R]
        Empty if the attempt failed.
    seconds : float
        How long it ran.
    error : BaseException | None
        Why it failed.
    """

    receipt: list[R]
    seconds: float
    error: BaseException | None = None


def attempt(task: Task[R]) -> Outcome[R]:
    """Run a task in this process. Only KeyboardInterrupt gets out; other errors are part of the outcome."""
    started = time.perf_counter()
    try:
        return Outcome([task.run()], time.perf_counter() - started)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the driver raises it, after the last attempt
        return Outcome([], time.perf_counter() - started, error)


def dump_task(task: Task[object]) -> bytes:
    """Pickle a task, for `attempt_remote`.

    Raises
    ------
    InvalidInput
        If it cannot be pickled, or its class is one of the script or notebook that is run.
    """
    kind = type(task)
    remedy = f"make {kind.__qualname__} a frozen dataclass of plain values, in a module that workers can import"
    if kind.__module__ == "__main__":
        raise InvalidInput(f"task {task.key!r} is defined in the script or notebook that is run: {remedy}")
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise InvalidInput(f"task {task.key!r} cannot be pickled: {remedy}") from error


def attempt_remote(payload: bytes) -> bytes:
    """Run a pickled task in a worker, and return its pickled outcome, for `load_outcome`.

    Everything crosses as bytes, so that a task, receipt or error that does not survive pickling becomes an
    ordinary failed attempt instead of a fault in the engine's own messages.
    """
    try:
        outcome = attempt(pickle.loads(payload))  # noqa: S301 - comes from our driver, not from storage
        if outcome.error is None:
            return pickle.dumps((outcome, ""))
        error, seconds = outcome.error, outcome.seconds
    except Exception as failure:  # noqa: BLE001 - the driver raises it, after the last attempt
        error, seconds = failure, 0.0
    return pickle.dumps((Outcome([], seconds, _portable(error)), "".join(format_exception(error))))


def load_outcome(reply: bytes) -> Outcome[R]:
    """Unpickle what `attempt_remote` returned; an error carries the worker's traceback as a note."""
    outcome: Outcome[R]
    outcome, trace = pickle.loads(reply)  # noqa: S301 - comes from our worker, not from storage
    if outcome.error is not None:
        outcome.error.add_note(f"\nTraceback in the worker:\n{trace}")
    return outcome


def _portable(error: BaseException) -> BaseException:
    """Return the error if it survives pickling, otherwise one that names its type and message."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever a foreign __reduce__ or __init__ raises
        copy = None
    if type(copy) is type(error):
        return error
    kind = type(error)
    return JobError(f"{kind.__module__}.{kind.__qualname__}: {error}")


class Attempts(Generic[R]):
    """The account of a running stage: what waits, who was tried how often, whether the stage has failed.

    Parameters
    ----------
    stage : Stage
        The stage.
    on_event : Callback
        Hears of each start, success, retry and failure.
    workers : int
        How many tasks run at a time.

    Attributes
    ----------
    waiting : deque[Task]
        Tasks to start, retries at its end.
    failure : TaskFailed | None
        Raise it, once the results at hand were yielded.
    """

    def __init__(self, stage: Stage[R], on_event: Callback, *, workers: int) -> None:
        self.waiting = deque(stage.tasks)
        self.failure: TaskFailed | None = None
        self._stage = stage
        self._on_event = on_event
        self._counts: Counter[str] = Counter()
        self._started = time.perf_counter()
        on_event(StageStarted(stage.name, len(stage.tasks), workers))

    def start(self) -> Task[R]:
        """Take the next waiting task, and count an attempt."""
        task = self.waiting.popleft()
        self._counts[task.key] += 1
        self._on_event(TaskStarted(self._stage.name, task.key, self._counts[task.key]))
        return task

    def finish(self, task: Task[R], outcome: Outcome[R]) -> list[TaskResult[R]]:
        """Take note of how an attempt ended; return the result if there is one."""
        stage, key, attempts = self._stage, task.key, self._counts[task.key]
        if outcome.error is None:
            rows = next((each.rows for each in (*outcome.receipt, task) if isinstance(each, Counts)), 0)
            self._on_event(TaskDone(stage.name, key, attempts, outcome.seconds, rows))
            return [TaskResult(key, value, attempts, outcome.seconds) for value in outcome.receipt]
        kind = type(outcome.error).__qualname__
        # Wrong data are as wrong at the next attempt.
        if attempts <= stage.retries and not isinstance(outcome.error, InvalidInput):
            self._on_event(TaskRetried(stage.name, key, attempts, kind))
            self.waiting.append(task)
        elif self.failure is None:
            self._on_event(StageFailed(stage.name, key, attempts, kind))
            often = f" {attempts} times, at last" if attempts > 1 else ""
            self.failure = TaskFailed(
                f"task {key!r} of stage {stage.name!r} failed{often} with {kind}: {outcome.error}",
                key=key,
                attempts=attempts,
            )
            self.failure.__cause__ = outcome.error
        return []

    def complete(self) -> None:
        """Say that the stage is done."""
        tasks = len(self._stage.tasks)
        retries = self._counts.total() - tasks
        self._on_event(StageDone(self._stage.name, tasks, retries, time.perf_counter() - self._started))

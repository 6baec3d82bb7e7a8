"""What is run, and what comes back: the seam between those who plan work and those who execute it."""

import re
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from lake.errors import InvalidInput
from lake.run.events import Callback

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Task(Protocol[R_co]):
    """One unit of work: a frozen dataclass at the top level of an importable module.

    A task may run several times, on any machine, at the same time as a copy of itself. It writes its data to
    storage, at a place that depends on its key alone, and returns a receipt.
    """

    @property
    def key(self) -> str:
        """What identifies the task in its stage: the same job gives the same key. Holds no secret."""
        ...

    def run(self) -> R_co:
        """Do the work and return a receipt: small and picklable, never data."""
        ...


@dataclass(frozen=True)
class Stage(Generic[R]):
    """Tasks that do not depend on each other.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``: it names a folder of the job's ledger.
    tasks : Sequence[Task]
        What to run, in any order; no two have the same key.
    memory_bytes : int
        Projected peak memory of one task, in bytes; 0 where it is not projected.
    retries : int
        How often a task that failed is tried again; one whose data are wrong (`InvalidInput`) is not.

    Raises
    ------
    InvalidInput
        If the name is not legal, a number is negative, or two tasks have the same key.
    """

    name: str
    tasks: Sequence[Task[R]]
    memory_bytes: int = 0
    retries: int = 2

    def __post_init__(self) -> None:
        check_name("stage", self.name)
        for field, value in (("memory_bytes", self.memory_bytes), ("retries", self.retries)):
            if value < 0:
                raise InvalidInput(f"stage {self.name!r}: {field} is {value}; it must be 0 or more")
        seen: set[str] = set()
        for task in self.tasks:
            if task.key in seen:
                raise InvalidInput(f"stage {self.name!r}: two tasks have the key {task.key!r}")
            seen.add(task.key)


@dataclass(frozen=True)
class TaskResult(Generic[R]):
    """A task that is done.

    Parameters
    ----------
    key : str
        The task's key.
    value : R
        Its receipt.
    attempts : int
        How often it was tried, the successful attempt included; 0 if the ledger held it.
    seconds : float
        How long the successful attempt ran.
    """

    key: str
    value: R
    attempts: int
    seconds: float


@runtime_checkable
class Counts(Protocol):
    """What a task, or its receipt, may offer besides: the rows that it went through, for people who look on."""

    @property
    def rows(self) -> int:
        """How many."""
        ...


class Executor(Protocol):
    """Runs a stage's tasks somewhere: in local processes, on Ray, on Spark."""

    def run(self, stage: Stage[R], on_event: Callback) -> Generator[TaskResult[R], None, None]:
        """Run the tasks and yield each result as it completes, in no particular order.

        Closing the generator cancels what is queued and what runs.

        Parameters
        ----------
        stage : Stage
            What to run.
        on_event : Callback
            Called in the driver, in the thread that consumes the generator.

        Raises
        ------
        MemoryExceeded
            If one task's projected memory exceeds a worker's; nothing has run then.
        TaskFailed
            If a task failed more often than the stage allows, or its data are wrong; ``__cause__`` is the task's
            own error, and a note on it holds the worker's traceback.
        InvalidInput
            If a task cannot be pickled.
        """
        ...


@runtime_checkable
class Starts(Protocol):
    """What an executor may offer besides: to have its workers ready before the stage that needs them."""

    def start(self, module: str) -> None:
        """Begin to start the workers, and to import a module of tasks in them, and return at once."""
        ...


def job_name(kind: str, given: str | None) -> str:
    """Return the id of a job: the one given, or a new one.

    Raises
    ------
    InvalidInput
        If the one given is not legal.
    """
    return f"{kind}-{uuid.uuid4().hex[:12]}" if given is None else check_name("job", given)


def check_name(what: str, name: str) -> str:
    """Return a name, or refuse one that could not be, or should not be, one segment of a path.

    Raises
    ------
    InvalidInput
        If `name` is not 1 to 128 letters, digits, ``.``, ``_`` or ``-``, the first a letter or a digit.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{what} name {name!r}: use 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return name

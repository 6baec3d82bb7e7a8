"""Where the tasks of a join, or of an analysis, run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lake.errors import InvalidInput, TaskFailed
from lake.run import Executor, LocalExecutor, Starts, engage
from lake.run.local import cpus
from lake.run.threads import MOST_HANDS

_IN_PROCESS_FLOP = 30e9  # less is done before worker processes have started


def joiners() -> LocalExecutor:
    """Return who runs a join's tasks on this machine: few, for each has hands that share what it has read."""
    return LocalExecutor(max(1, cpus() // MOST_HANDS))


def abreast(executor: str | Executor) -> int:
    """Tell how many tasks of a join run at a time."""
    return joiners().workers if executor == "local" else getattr(executor, "workers", None) or cpus()


def cores(executor: str | Executor, tasks: int) -> int:
    """Tell how many cores a join of so many tasks keeps busy: few tasks have several each."""
    workers = abreast(executor)
    here = executor == "local" or isinstance(executor, LocalExecutor)
    whole = cpus() if here else workers
    each = whole // (workers if here else min(workers, tasks))
    return min(whole, min(workers, tasks) * min(MOST_HANDS, max(1, each)))


@contextmanager
def workers(executor: str | Executor, flop: float, module: str, *, hands: bool = False) -> Iterator[Executor]:
    """Choose where tasks run, and have the workers start; a little work is done in this process.

    Parameters
    ----------
    executor : str or Executor
    flop : float
        Of all tasks.
    module : str
        Of the tasks, which workers import while the driver prepares.
    hands : bool
        The tasks have `Hands`.

    Raises
    ------
    InvalidInput
        A task came upon the caller's data that are wrong.
    """
    local = joiners if hands else LocalExecutor
    with engage(executor, little=flop < _IN_PROCESS_FLOP, local=local) as chosen:
        if isinstance(chosen, Starts):
            chosen.start(module)
        try:
            yield chosen
        except TaskFailed as error:
            if isinstance(error.__cause__, InvalidInput):
                raise error.__cause__ from error
            raise

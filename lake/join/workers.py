"""Where the tasks of a join, or of an analysis, run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lake.errors import InvalidInput, TaskFailed
from lake.run import Executor, LocalExecutor, Starts, resolve

_IN_PROCESS_FLOP = 30e9  # less is done before worker processes have started


@contextmanager
def workers(executor: str | Executor, flop: float, module: str) -> Iterator[Executor]:
    """Choose where tasks run, and have the workers start; a little work is done in this process.

    Parameters
    ----------
    flop : float
        Of all tasks.
    module : str
        Of the tasks, which workers import while the driver prepares.

    Raises
    ------
    InvalidInput
        A task came upon the caller's data that are wrong.
    """
    small = executor == "local" and flop < _IN_PROCESS_FLOP
    chosen = LocalExecutor(1) if small else resolve(executor)
    if isinstance(chosen, Starts):
        chosen.start(module)
    try:
        yield chosen
    except TaskFailed as error:
        if isinstance(error.__cause__, InvalidInput):
            raise error.__cause__ from error
        raise
    finally:
        if isinstance(chosen, LocalExecutor) and chosen is not executor:
            chosen.close()

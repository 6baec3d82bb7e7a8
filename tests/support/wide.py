"""An executor that says it has many workers, so that plans are made for them, and does all work in this process."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from lake.run import Callback, LocalExecutor, Stage, TaskResult

R = TypeVar("R")


class Wide:
    """Runs tasks one after another.

    Parameters
    ----------
    workers : int
        As many as plans shall reckon with.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, stage: Stage[R], on_event: Callback) -> Generator[TaskResult[R], None, None]:
        """Run a stage; see `lake.run.Executor`."""
        return LocalExecutor(1).run(stage, on_event)

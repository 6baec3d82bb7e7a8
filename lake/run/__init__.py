"""Plans and those who execute them: tasks, stages, executors, events, the ledger. Knows nothing of tables."""

from lake.run.engines import engage, keeper, resolve
from lake.run.events import (
    Callback,
    EntryRefused,
    Event,
    JobCommitted,
    StageDone,
    StageFailed,
    StageStarted,
    TaskDone,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
    ignore,
    json_lines,
    tee,
)
from lake.run.ledger import Ledger, Store, run_stage
from lake.run.local import LocalExecutor
from lake.run.progress import Progress, listening
from lake.run.task import Executor, Stage, Starts, Task, TaskResult

__all__ = [
    "Task",
    "Stage",
    "TaskResult",
    "Executor",
    "Starts",
    "LocalExecutor",
    "resolve",
    "engage",
    "keeper",
    "Ledger",
    "Store",
    "run_stage",
    "Callback",
    "Event",
    "StageStarted",
    "TaskStarted",
    "TaskRetried",
    "TaskSkipped",
    "TaskDone",
    "StageDone",
    "StageFailed",
    "EntryRefused",
    "JobCommitted",
    "Progress",
    "listening",
    "ignore",
    "json_lines",
    "tee",
]

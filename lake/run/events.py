"""What happened, as small data: for progress views, logs and tests.

Events hold keys, counts and names of error types. They never hold tasks, receipts or error messages, any of which
may carry a credential.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TextIO


@dataclass(frozen=True)
class Event:
    """Base of all events.

    Parameters
    ----------
    time : float
        When it happened, in seconds since the epoch.
    """

    time: float = field(default_factory=time.time, kw_only=True)

    def to_json(self) -> str:
        """Return the event as one line of JSON, without the newline; its time in ISO 8601, UTC."""
        fields = asdict(self)
        when = datetime.fromtimestamp(fields.pop("time"), UTC).isoformat(timespec="milliseconds")
        return json.dumps({"event": type(self).__name__, "time": when, **fields})


@dataclass(frozen=True)
class StageStarted(Event):
    """`tasks` tasks are about to run, at most `workers` at a time."""

    stage: str
    tasks: int
    workers: int


@dataclass(frozen=True)
class TaskSkipped(Event):
    """The ledger holds the task's receipt, so it does not run."""

    stage: str
    key: str


@dataclass(frozen=True)
class TaskStarted(Event):
    """An attempt, counted from 1, was handed to a worker."""

    stage: str
    key: str
    attempt: int


@dataclass(frozen=True)
class TaskRetried(Event):
    """An attempt failed, with an error of type `error`, and the task will be tried again."""

    stage: str
    key: str
    attempt: int
    error: str


@dataclass(frozen=True)
class TaskDone(Event):
    """The task succeeded at its attempt number `attempts`, in `seconds`, with `rows` rows; 0 if none are counted."""

    stage: str
    key: str
    attempts: int
    seconds: float
    rows: int = 0


@dataclass(frozen=True)
class StageFailed(Event):
    """The task `key` failed for good, with an error of type `error`, and the stage with it."""

    stage: str
    key: str
    attempts: int
    error: str


@dataclass(frozen=True)
class StageDone(Event):
    """All `tasks` tasks of the stage are done, after `retries` retries in all."""

    stage: str
    tasks: int
    retries: int
    seconds: float


@dataclass(frozen=True)
class EntryRefused(Event):
    """The ledger's file `name` is torn or changed; what it recorded counts as not done."""

    job: str
    name: str
    reason: str


@dataclass(frozen=True)
class JobCommitted(Event):
    """The job's receipts were committed as version `version` of a table."""

    job: str
    version: int


Callback = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing: the callback of those who do not listen."""


def tee(*callbacks: Callback) -> Callback:
    """Return a callback that passes each event to all of `callbacks`, in order."""

    def call(event: Event) -> None:
        for callback in callbacks:
            callback(event)

    return call


def json_lines(stream: TextIO) -> Callback:
    """Return a callback that writes each event to `stream` as a line of JSON, at once."""

    def write(event: Event) -> None:
        stream.write(event.to_json() + "\n")
        stream.flush()

    return write

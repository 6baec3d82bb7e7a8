"""A live view of a job's events: tasks done, rows or tasks a second, time left, retries, memory."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lake.run.events import Callback, Event, StageDone, StageFailed, StageStarted, TaskDone, TaskRetried, TaskSkipped
from lake.run.memory import resident_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_PATIENCE = 0.5  # seconds: shorter work shows nothing


class Progress:
    """Shows events as they come: a callback, and a context manager around the work.

    On a terminal there is one bar a stage, in a notebook too if ipywidgets is installed; otherwise a notebook gets
    a line for each finished stage. Elsewhere there is nothing, since logs want `lake.run.json_lines`.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw; stderr by default.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        # Rich costs a tenth of a second, which jobs that show nothing save.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console or Console(stderr=True)
        self._lines = self._console.is_jupyter and find_spec("ipywidgets") is None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=self._lines or not (self._console.is_terminal or self._console.is_jupyter),
        )
        self._bar: dict[str, TaskID] = {}
        self._skipped: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if self._lines and isinstance(event, StageDone):
            self._console.print(
                f"{event.stage}: {event.tasks:,} tasks in {event.seconds:,.1f} s, {event.retries:,} retries"
            )
        if self._bars.disable:
            return
        if isinstance(event, TaskSkipped):
            self._skipped[event.stage] += 1
        elif isinstance(event, StageStarted):
            skipped = self._skipped.pop(event.stage, 0)
            total = skipped + event.tasks
            self._since[event.stage] = event.time
            self._bar[event.stage] = self._bars.add_task(event.stage, total=total, completed=skipped, note="")
        elif isinstance(event, TaskDone | TaskRetried):
            self._retried[event.stage] += isinstance(event, TaskRetried)
            bar = self._bar[event.stage]
            self._bars.update(bar, advance=isinstance(event, TaskDone))
            self._rows[event.stage] += event.rows if isinstance(event, TaskDone) else 0
            self._bars.update(bar, note=self._note(event))
        elif isinstance(event, StageDone | StageFailed):
            self._bars.refresh()
        if not self._bars.live.is_started and time.monotonic() - self._started > _PATIENCE:
            self._bars.start()

    def _note(self, event: TaskDone | TaskRetried) -> str:
        stage, passed = event.stage, event.time - self._since[event.stage]
        speed = self._bars.tasks[self._bar[stage]].speed
        parts = [f"{speed:,.1f}/s"] if speed else []
        if self._rows[stage] and passed > 0:
            parts = [f"{self._rows[stage] / passed:,.0f} rows/s"]
        if self._retried[stage]:
            parts.append(f"{self._retried[stage]:,} retries")
        return ", ".join([*parts, f"{resident_bytes() / 2**20:,.0f} MiB"])


@contextmanager
def listening(on_event: Callback | None) -> Iterator[Callback]:
    """Give the caller's own callback, or a live view where a person looks on."""
    if on_event is not None:
        yield on_event
    else:
        with Progress() as progress:
            yield progress

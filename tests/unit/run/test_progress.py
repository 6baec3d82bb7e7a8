"""The live view: on a terminal, in a notebook, and silent elsewhere."""

import io

import pytest
from rich.console import Console

from lake.run import Event, LocalExecutor, Progress, Stage, StageDone, StageStarted, TaskDone, TaskRetried, TaskSkipped
from lake.run import progress as module
from tests.unit.run.scripted import Nothing

EVENTS: list[Event] = [
    *(TaskSkipped("train", f"done{i}") for i in range(4)),
    StageStarted("train", 3, 2),
    TaskDone("train", "a", 1, 0.1),
    TaskRetried("train", "b", 1, "OSError"),
    TaskDone("train", "b", 2, 0.1),
    TaskDone("train", "c", 1, 0.1),
    StageDone("train", 3, 1, 0.5),
]


def _show(console: Console) -> str:
    with Progress(console) as progress:
        for event in EVENTS:
            progress(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", -1.0)
    shown = _show(Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None))
    assert "train" in shown
    assert "7/7" in shown, "those that the ledger held count"
    assert "1 retries" in shown
    assert "MiB" in shown
    assert "/s" in shown


def test_rows_are_told_where_tasks_count_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", -1.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with Progress(console) as progress:
        progress(StageStarted("load", 2, 2, time=100.0))
        progress(TaskDone("load", "a", 1, 0.1, 3000, time=101.0))
        progress(TaskDone("load", "b", 1, 0.1, 5000, time=102.0))
    assert isinstance(console.file, io.StringIO)
    assert "4,000 rows/s" in console.file.getvalue()


def test_short_work_shows_nothing() -> None:
    assert _show(Console(file=io.StringIO(), force_terminal=True, width=120)) == ""


def test_elsewhere_there_is_nothing() -> None:
    assert _show(Console(file=io.StringIO(), force_terminal=False)) == ""


def test_a_notebook_without_widgets_gets_a_line_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", -1.0)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    console = Console(file=io.StringIO(), force_jupyter=True)
    lines: list[str] = []
    monkeypatch.setattr(console, "print", lines.append)
    assert _show(console) == ""
    assert lines == ["train: 3 tasks in 0.5 s, 1 retries"]


def test_it_listens_to_an_executor() -> None:
    with Progress(Console(file=io.StringIO())) as progress, LocalExecutor(1) as executor:
        assert len(list(executor.run(Stage("s", [Nothing("a"), Nothing("b")]), progress))) == 2

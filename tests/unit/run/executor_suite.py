"""What every executor must do. A subclass gives the `executor` fixture and states its capabilities."""

import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from lake.errors import InvalidInput, JobError, MemoryExceeded, TaskFailed
from lake.run import (
    Event,
    Executor,
    Ledger,
    Stage,
    StageDone,
    StageFailed,
    StageStarted,
    Task,
    TaskDone,
    TaskResult,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
    ignore,
    run_stage,
)
from tests.unit.run.scripted import Counted, Holds, Planned, Raises, ReturnsLock, Scripted, Waits, runs


class DirectoryStore:
    """`lake.run.Store` in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str | None = None) -> Iterator[str]:
        for path in sorted((self.root / (folder or "")).rglob("*")):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


class ExecutorSuite:
    parallel: ClassVar[bool]
    """Runs at least two tasks at a time."""
    isolated: ClassVar[bool]
    """Tasks run outside the driver: they pickle, and may die without it."""

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[Executor]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def awake(self, executor: Executor, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Have two workers: to start one may take seconds, in which the other goes through many short tasks."""
        if self.parallel:
            folder = str(tmp_path_factory.mktemp("awake"))
            list(executor.run(Stage("s", [Waits("a", folder, 2), Waits("b", folder, 2)]), ignore))

    def test_each_task_gives_one_result(self, executor: Executor, tmp_path: Path) -> None:
        tasks = [Scripted(f"{'k' * (i % 7)}{i}", str(tmp_path)) for i in range(60)]
        results = list(executor.run(Stage("s", tasks), ignore))
        assert sorted((r.key, r.value, r.attempts) for r in results) == sorted((t.key, len(t.key), 1) for t in tasks)
        assert all(r.seconds >= 0 for r in results)
        assert runs(tmp_path) == 60

    def test_rows_are_told_where_tasks_count_them(self, executor: Executor) -> None:
        events: list[Event] = []
        assert len(list(executor.run(Stage("s", [Counted("a", 30), Counted("b", 7)]), events.append))) == 2
        assert {e.key: e.rows for e in events if isinstance(e, TaskDone)} == {"a": 30, "b": 7}

    def test_a_stage_may_be_empty(self, executor: Executor) -> None:
        events: list[Event] = []
        assert list(executor.run(Stage[int]("s", []), events.append)) == []
        assert [type(event) for event in events] == [StageStarted, StageDone]

    def test_tasks_run_at_the_same_time(self, executor: Executor, tmp_path: Path) -> None:
        if not self.parallel:
            pytest.skip("one at a time")
        stage = Stage("s", [Waits("a", str(tmp_path), 2), Waits("b", str(tmp_path), 2)])
        assert {r.value for r in executor.run(stage, ignore)} == {2}

    def test_a_straggler_holds_nobody_up(self, executor: Executor, tmp_path: Path) -> None:
        if not self.parallel:
            pytest.skip("one at a time")
        slow = Waits("slow", str(tmp_path), 14)  # itself, the others, and the file that is made here
        tasks: list[Task[int]] = [slow, *_quick(tmp_path, 12)]
        results = executor.run(Stage("s", tasks), ignore)
        assert "slow" not in [next(results).key for _ in range(12)]
        (tmp_path / "here.1.run").touch()
        assert [r.key for r in results] == ["slow"]

    def test_a_task_that_fails_twice_works_at_last(self, executor: Executor, tmp_path: Path) -> None:
        tasks = [Scripted("flaky", str(tmp_path), fails=2), *_quick(tmp_path, 3)]
        results = {r.key: r.attempts for r in executor.run(Stage("s", tasks, retries=2), ignore)}
        assert results == {"flaky": 3, "quick0": 1, "quick1": 1, "quick2": 1}
        assert runs(tmp_path, "flaky") == 3

    @pytest.mark.parametrize("retries", [0, 2])
    def test_the_last_error_arrives_whole(self, executor: Executor, tmp_path: Path, retries: int) -> None:
        stage = Stage("s", [Scripted("bad", str(tmp_path), fails=99)], retries=retries)
        with pytest.raises(TaskFailed, match=r"'bad' of stage 's'.*Planned: as planned") as caught:
            list(executor.run(stage, ignore))
        assert (caught.value.key, caught.value.attempts) == ("bad", retries + 1)
        assert type(caught.value.__cause__) is Planned
        assert caught.value.__cause__.args == ("as planned",)
        shown = "".join(traceback.format_exception(caught.value))
        assert "scripted.py" in shown
        assert "in fail" in shown, "the frames of the task"
        assert runs(tmp_path) == retries + 1

    def test_what_was_done_before_a_failure_is_yielded(self, executor: Executor, tmp_path: Path) -> None:
        tasks = [*_quick(tmp_path, 3), Scripted("bad", str(tmp_path), fails=99, seconds=0.3, after=4)]
        seen: list[str] = []
        with pytest.raises(TaskFailed):
            _note_keys(executor.run(Stage("s", tasks, retries=3), ignore), seen)
        assert set(seen) == {"quick0", "quick1", "quick2"}

    def test_a_success_beside_the_failure_is_yielded(self, executor: Executor, tmp_path: Path) -> None:
        folder = str(tmp_path)
        good, bad = Scripted("good", folder, seconds=0.2), Scripted("bad", folder, seconds=0.2, fails=99)
        seen: list[str] = []
        with pytest.raises(TaskFailed):  # both end while the first result is looked at
            _note_keys(executor.run(Stage("s", [Scripted("first", folder), good, bad], retries=0), ignore), seen, 1.0)
        assert seen == ["first", "good"]

    def test_the_executor_works_after_a_failure(self, executor: Executor, tmp_path: Path) -> None:
        with pytest.raises(TaskFailed):
            list(executor.run(Stage("s", [Scripted("bad", str(tmp_path), fails=99)]), ignore))
        assert len(list(executor.run(Stage("s", _quick(tmp_path, 4)), ignore))) == 4

    def test_exiting_is_an_error_of_the_task(self, executor: Executor) -> None:
        with pytest.raises(TaskFailed) as caught:
            list(executor.run(Stage("s", [Raises("a", "exit")], retries=0), ignore))
        assert isinstance(caught.value.__cause__, SystemExit)

    def test_wrong_data_are_not_tried_again(self, executor: Executor) -> None:
        events: list[Event] = []
        with pytest.raises(TaskFailed, match=r"'a' of stage 's' failed with InvalidInput: row 7") as caught:
            list(executor.run(Stage("s", [Raises("a", "data")], retries=3), events.append))
        assert caught.value.attempts == 1
        assert isinstance(caught.value.__cause__, InvalidInput)
        assert not any(isinstance(event, TaskRetried) for event in events)

    def test_an_error_that_does_not_unpickle_keeps_its_name_and_message(self, executor: Executor) -> None:
        with pytest.raises(TaskFailed, match=r"NeedsKeyword") as caught:
            list(executor.run(Stage("s", [Raises("a", "keyword")], retries=1), ignore))
        assert caught.value.attempts == 2
        shown = "".join(traceback.format_exception(caught.value))
        assert "NeedsKeyword: no such code" in shown
        if self.isolated:
            assert isinstance(caught.value.__cause__, JobError)

    def test_a_receipt_that_does_not_pickle_fails_its_task(self, executor: Executor) -> None:
        if not self.isolated:
            pytest.skip("nothing is pickled")
        with pytest.raises(TaskFailed, match="pickle"):
            list(executor.run(Stage("s", [ReturnsLock("a")], retries=0), ignore))

    def test_a_task_that_does_not_pickle_is_refused(self, executor: Executor) -> None:
        if not self.isolated:
            pytest.skip("nothing is pickled")
        with pytest.raises(InvalidInput, match=r"'a' cannot be pickled.*Holds"):
            list(executor.run(Stage("s", [Holds("a")]), ignore))

    def test_a_task_of_the_script_that_is_run_is_refused(
        self, executor: Executor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        if not self.isolated:
            pytest.skip("nothing is pickled")
        monkeypatch.setattr(Scripted, "__module__", "__main__")
        with pytest.raises(InvalidInput, match=r"script or notebook that is run: make Scripted"):
            list(executor.run(Stage("s", _quick(tmp_path, 2)), ignore))
        assert runs(tmp_path) == 0

    def test_a_killed_worker_costs_an_attempt(self, executor: Executor, tmp_path: Path) -> None:
        if not self.isolated:
            pytest.skip("it would kill the tests")
        tasks = [Scripted("dies", str(tmp_path), kills=1), *_quick(tmp_path, 6)]
        results = {r.key: r.attempts for r in executor.run(Stage("s", tasks, retries=2), ignore)}
        assert len(results) == 7
        assert results["dies"] == 2

    def test_a_task_that_always_kills_its_worker_fails(self, executor: Executor, tmp_path: Path) -> None:
        if not self.isolated:
            pytest.skip("it would kill the tests")
        stage = Stage("s", [Scripted("dies", str(tmp_path), kills=99)], retries=1)
        with pytest.raises(TaskFailed) as caught:
            list(executor.run(stage, ignore))
        assert (caught.value.key, caught.value.attempts) == ("dies", 2)
        assert caught.value.__cause__ is not None

    def test_too_much_memory_is_refused_before_anything_runs(self, executor: Executor, tmp_path: Path) -> None:
        events: list[Event] = []
        stage = Stage("big", _quick(tmp_path, 3), memory_bytes=1 << 60)
        with pytest.raises(MemoryExceeded, match=r"'big'.*1,152,921,504,606,846,976"):
            list(executor.run(stage, events.append))
        assert events == []
        assert runs(tmp_path) == 0

    def test_closing_cancels_the_rest(self, executor: Executor, tmp_path: Path) -> None:
        results = executor.run(Stage("s", [Scripted(f"t{i}", str(tmp_path), seconds=0.1) for i in range(40)]), ignore)
        next(results)
        results.close()
        begun = runs(tmp_path)
        time.sleep(0.5)
        assert runs(tmp_path) == begun < 40

    def test_events_add_up(self, executor: Executor, tmp_path: Path) -> None:
        events: list[Event] = []
        tasks = [*_quick(tmp_path, 5), Scripted("flaky", str(tmp_path), fails=2)]
        list(executor.run(Stage("s", tasks, retries=2), events.append))
        counts = Counter(type(event) for event in events)
        assert counts == {StageStarted: 1, TaskStarted: 8, TaskRetried: 2, TaskDone: 6, StageDone: 1}
        assert isinstance(events[0], StageStarted)
        assert isinstance(events[-1], StageDone)
        assert (events[0].tasks, events[-1].tasks, events[-1].retries) == (6, 6, 2)
        assert {event.error for event in events if isinstance(event, TaskRetried)} == {"Planned"}
        assert [e.attempt for e in events if isinstance(e, TaskStarted) and e.key == "flaky"] == [1, 2, 3]

    def test_secrets_stay_out_of_events_and_logs(
        self,
        executor: Executor,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        events: list[Event] = []
        tasks = [
            Scripted("a", str(tmp_path), fails=9, message="canary"),
            Scripted("b", str(tmp_path), message="canary"),
        ]
        with pytest.raises(TaskFailed):
            list(executor.run(Stage("s", tasks, retries=1), events.append))
        assert any(isinstance(event, StageFailed) for event in events)
        written = (
            "".join(event.to_json() for event in events) + repr(events) + caplog.text + "".join(capfd.readouterr())
        )
        assert "canary" not in written

    def test_a_resumed_job_runs_only_what_is_missing(self, executor: Executor, tmp_path: Path) -> None:
        work, jobs = tmp_path / "work", tmp_path / "job"
        work.mkdir()
        stage = Stage("s", [*_quick(work, 6), Scripted("bad", str(work), fails=1)], retries=0)
        before: list[str] = []
        with pytest.raises(TaskFailed):
            _note_keys(run_stage(executor, stage, directory_ledger(jobs)), before)
        assert "bad" not in before
        events: list[Event] = []
        after = {r.key: r.value for r in run_stage(executor, stage, directory_ledger(jobs), events.append)}
        assert after == {task.key: len(task.key) for task in stage.tasks}
        skipped = {event.key for event in events if isinstance(event, TaskSkipped)}
        assert skipped >= set(before)
        assert {e.key for e in events if isinstance(e, TaskStarted)} == set(after) - skipped
        assert len(list(run_stage(executor, stage, directory_ledger(jobs)))) == 7
        for entry in (jobs / "s").iterdir():
            json.loads(entry.read_text().splitlines()[1])


def directory_ledger(folder: Path, fingerprint: str = "") -> Ledger[int]:
    return Ledger(
        DirectoryStore(folder), "job", lambda count: {"count": count}, lambda entry: int(entry["count"]), fingerprint
    )


def _quick(folder: Path, count: int) -> list[Scripted]:
    return [Scripted(f"quick{i}", str(folder)) for i in range(count)]


def _note_keys(results: Iterable[TaskResult[int]], keys: list[str], seconds: float = 0.0) -> None:
    for result in results:
        keys.append(result.key)
        time.sleep(seconds)

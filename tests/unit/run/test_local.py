"""The executor of one machine: the suite, and what is its own: processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lake.errors import InvalidInput, MemoryExceeded, TaskFailed
from lake.run import Event, LocalExecutor, Stage, StageStarted, ignore
from tests.unit.run import scripted
from tests.unit.run.executor_suite import ExecutorSuite
from tests.unit.run.scripted import Environment, Nothing, Pid, Scripted, runs

ROOT = Path(__file__).parents[3]


class TestProcesses(ExecutorSuite):
    parallel = True
    isolated = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[LocalExecutor]:
        with LocalExecutor(2) as executor:
            yield executor
        assert living() == []


class TestInProcess(ExecutorSuite):
    parallel = False
    isolated = False

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[LocalExecutor]:
        yield LocalExecutor(1)
        assert living() == []


def living() -> list[int]:
    """Children of this process that run, except those that multiprocessing keeps for its own accounts."""
    children = [p for p in psutil.Process().children() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return [p.pid for p in children if "spawn_main" in " ".join(p.cmdline())]


def _pids(executor: LocalExecutor, count: int = 8) -> set[int]:
    return {r.value for r in executor.run(Stage("s", [Pid(str(i)) for i in range(count)]))}


def test_processes_are_reused_and_ended() -> None:
    with LocalExecutor(2) as executor:
        assert living() == [], "processes start when they are needed"
        first = _pids(executor)
        assert first == _pids(executor)
        assert os.getpid() not in first
    assert living() == []
    assert not any(psutil.pid_exists(pid) for pid in first)
    assert _pids(executor).isdisjoint(first), "a closed executor starts anew"
    executor.close()
    executor.close()


def test_an_executor_that_is_dropped_leaves_nothing() -> None:
    executor = LocalExecutor(2)
    _pids(executor)
    del executor
    _until_gone()


def test_processes_are_not_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted, "os", None)  # a fork would find this
    with LocalExecutor(2) as executor:
        assert len(_pids(executor)) >= 1


def test_one_worker_is_this_process() -> None:
    assert _pids(LocalExecutor(1)) == {os.getpid()}


@pytest.mark.parametrize("reaped", [False, True])
def test_a_worker_killed_while_idle_costs_nothing(reaped: bool) -> None:
    with LocalExecutor(2) as executor:
        for pid in _pids(executor):
            process = psutil.Process(pid)
            process.kill()
            if reaped:
                process.wait(10)
            while psutil.pid_exists(pid):  # a zombie's other threads may still hold its pipes
                time.sleep(0.01)
        results = list(executor.run(Stage("s", [Nothing(str(i)) for i in range(6)], retries=0)))
        assert {r.attempts for r in results} == {1}


def test_a_death_costs_the_neighbours_nothing(tmp_path: Path) -> None:
    dies = Scripted("dies", str(tmp_path), kills=1)
    neighbour = Scripted("neighbour", str(tmp_path), seconds=0.7)
    with LocalExecutor(2) as executor:
        attempts = {r.key: r.attempts for r in executor.run(Stage("s", [neighbour, dies]))}
    assert attempts == {"neighbour": 1, "dies": 2}


def test_closing_kills_what_runs(tmp_path: Path) -> None:
    with LocalExecutor(2) as executor:
        results = executor.run(_first_of_slow(tmp_path))
        next(results)
        begun = time.monotonic()
        results.close()
        assert time.monotonic() - begun < 5
        assert len(living()) <= 1, "at most the one that is idle"
        assert len(_pids(executor, 4)) >= 1
    results = executor.run(_first_of_slow(tmp_path))
    next(results)
    executor.close()
    assert living() == [], "closing the executor ends a stage in progress"


def test_a_failing_callback_ends_the_stage(tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if not isinstance(event, StageStarted):
            raise OSError("no room in the log")

    with LocalExecutor(2) as executor:
        with pytest.raises(OSError, match="no room"):
            list(executor.run(Stage("s", _slow(tmp_path, 4)), fail))
        assert living() == []


@pytest.mark.parametrize(("workers", "memory_bytes"), [(0, None), (-1, None), (2, 0), (2, -5)])
def test_nonsense_is_refused(workers: int, memory_bytes: int | None) -> None:
    with pytest.raises(InvalidInput, match="1 or more"):
        LocalExecutor(workers, memory_bytes)


def test_fewer_workers_where_memory_is_short(tmp_path: Path) -> None:
    events: list[Event] = []
    executor = LocalExecutor(4, memory_bytes=1000)
    stages = [Stage[None]("s", [], memory_bytes=each) for each in (0, 250, 333, 400, 1000)]
    for stage in stages:
        list(executor.run(stage, events.append))
    assert [event.workers for event in events if isinstance(event, StageStarted)] == [4, 4, 3, 2, 1]
    with pytest.raises(MemoryExceeded, match=r"1,001 bytes, and 1,000 are available"):
        executor.run(Stage[None]("s", [], memory_bytes=1001), ignore)


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "77")
    stage = Stage("s", [Environment("OMP_NUM_THREADS"), Environment("MKL_NUM_THREADS")])
    with LocalExecutor(2) as executor:
        values = {r.key: r.value for r in executor.run(stage)}
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert values == {"OMP_NUM_THREADS": str(share), "MKL_NUM_THREADS": "77"}, "what the user set stays"
    assert "OMP_NUM_THREADS" not in os.environ


def test_small_tasks_cost_little() -> None:
    with LocalExecutor(2) as executor:
        _pids(executor)
        begun = time.perf_counter()
        assert len(list(executor.run(Stage("s", [Nothing(str(i)) for i in range(1000)])))) == 1000
        assert time.perf_counter() - begun < 5, "5 ms a task"


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from lake.run import LocalExecutor, Stage
from tests.unit.run.scripted import Scripted
if __name__ == "__main__":
    executor = LocalExecutor(3)  # one of which will be idle
    tasks = [Scripted(f"t{i}", sys.argv[2], seconds=60 if i else 0) for i in range(3)]
    for result in executor.run(Stage("s", tasks)):
        print(result.key, flush=True)
"""
UNGUARDED = """
import sys
sys.path.insert(0, sys.argv[1])
from lake.run import LocalExecutor, Stage
from tests.unit.run.scripted import Nothing
list(LocalExecutor(2).run(Stage("s", [Nothing("a")], retries=0)))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_workers_leave_with_their_driver(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(ROOT), str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"t0\n"
        deadline = time.monotonic() + 30
        while runs(tmp_path) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = psutil.Process(driver.pid).children(recursive=True)
        assert len(workers) >= 3
        os.killpg(driver.pid, sign) if sign == signal.SIGINT else driver.kill()  # Ctrl-C reaches the whole group
        _, stderr = driver.communicate(timeout=20)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert runs(tmp_path) == 3
    if sign == signal.SIGINT:
        assert stderr.decode().rstrip().endswith("KeyboardInterrupt")
        assert stderr.decode().count("Traceback") == 1, "workers say nothing"


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, str(tmp_path / "script.py"), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_the_cause_of_a_death_is_kept(tmp_path: Path) -> None:
    stage = Stage("s", [Scripted("dies", str(tmp_path), kills=9)], retries=0)
    with LocalExecutor(2) as executor, pytest.raises(TaskFailed, match="worker process died"):
        list(executor.run(stage))


def _slow(folder: Path, count: int) -> list[Scripted]:
    return [Scripted(f"slow{i}", str(folder), seconds=60) for i in range(count)]


def _first_of_slow(folder: Path) -> Stage[int]:
    return Stage("s", [Scripted("quick", str(folder)), *_slow(folder, 4)])


def _until_gone() -> None:
    deadline = time.monotonic() + 10
    while living() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert living() == []

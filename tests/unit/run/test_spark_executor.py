"""The executor of Spark: the suite on a classic session and on Spark Connect, and what is its own."""

from __future__ import annotations

import base64
import logging
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from lake.errors import InvalidInput, MemoryExceeded
from lake.run import Event, Stage, StageStarted, resolve
from lake.run.local import THREAD_VARIABLES
from lake_spark.executor import SparkExecutor
from tests.support.spark import remote
from tests.unit.run.executor_suite import ExecutorSuite
from tests.unit.run.scripted import Environment, Nothing, Scripted, Threads, runs


class TestClassic(ExecutorSuite):
    parallel = True
    isolated = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, spark: SparkSession) -> SparkExecutor:
        return SparkExecutor(spark)


class TestConnect(ExecutorSuite):
    parallel = True
    isolated = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, spark_connect: str) -> Iterator[SparkExecutor]:
        with remote(spark_connect) as session:
            yield SparkExecutor(session)


def test_a_name_an_address_and_a_session_are_executors(spark: SparkSession, spark_connect: str) -> None:
    for given in ("spark", spark):
        executor = resolve(given)
        assert isinstance(executor, SparkExecutor)
        assert executor.session is spark
        assert executor.workers == 2
    executor = resolve(spark_connect)
    assert isinstance(executor, SparkExecutor)
    assert executor.workers == 2
    again = resolve(executor.session)
    assert isinstance(again, SparkExecutor)
    assert again.session is executor.session
    executor.session.stop()


def test_small_tasks_travel_together(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = SparkExecutor(spark)
    run = executor._job
    jobs: list[object] = []

    def counted(act: Any) -> list[bytes]:
        jobs.append(act)
        return run(act)

    monkeypatch.setattr(executor, "_job", counted)
    results = [r.key for r in executor.run(Stage("s", [Nothing(str(i)) for i in range(1000)]))]
    assert sorted(results) == sorted(map(str, range(1000)))
    assert len(jobs) < 100


@pytest.mark.parametrize("at", [3, 25])
def test_a_death_costs_the_neighbours_nothing(spark: SparkSession, tmp_path: Path, at: int) -> None:
    tasks = [Scripted(f"t{i}", str(tmp_path)) for i in range(40)]
    tasks[at] = Scripted("dies", str(tmp_path), kills=3)
    results = {r.key: r.attempts for r in SparkExecutor(spark).run(Stage("s", tasks, retries=3))}
    assert len(results) == 40
    assert results.pop("dies") in (2, 3, 4), "one less for each death in company"
    assert set(results.values()) == {1}


def test_a_task_that_takes_long_sends_its_company_back(spark: SparkSession, tmp_path: Path) -> None:
    folder = str(tmp_path)
    tasks = [Scripted(f"t{i}", folder, seconds=0.0 if i < 20 else 0.3) for i in range(30)]
    results = {r.key: r.attempts for r in SparkExecutor(spark).run(Stage("s", tasks, retries=0))}
    assert set(results.values()) == {1}
    assert len(results) == runs(tmp_path) == 30


@pytest.mark.parametrize("kind", ["classic", "connect"])
def test_closing_ends_what_runs(spark: SparkSession, spark_connect: str, tmp_path: Path, kind: str) -> None:
    tasks = [Scripted("quick", str(tmp_path)), *(Scripted(f"slow{i}", str(tmp_path), seconds=60) for i in range(4))]
    with nullcontext(spark) if kind == "classic" else remote(spark_connect) as session:
        results = SparkExecutor(session).run(Stage("s", tasks))
        assert next(results).key == "quick"
        while runs(tmp_path) < 2:
            time.sleep(0.02)
        results.close()
    deadline = time.monotonic() + 30
    while _busy(tmp_path):  # a task may begin while its job is cancelled, and is ended later
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert runs(tmp_path) <= 3, "no task followed those that were ended"


def _busy(folder: Path) -> list[str]:
    """Tell which processes that a slow task began in are still there."""
    begun = [path.read_text() for path in folder.glob("slow*.run")]
    return [pid for pid in begun if not pid or psutil.pid_exists(int(pid))]


def test_a_failing_callback_ends_the_stage(spark: SparkSession, tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        if not isinstance(event, StageStarted):
            raise OSError("no room in the log")

    with pytest.raises(OSError, match="no room"):
        list(SparkExecutor(spark).run(Stage("s", [Scripted("a", str(tmp_path))]), fail))
    assert runs(tmp_path) == 0


def test_a_lone_task_has_the_machines_cores_and_many_have_one_each(spark: SparkSession) -> None:
    executor = SparkExecutor(spark)
    assert [r.value for r in executor.run(Stage("s", [Threads("a")]))] == [2]
    assert {r.value for r in executor.run(Stage("s", [Threads(str(i)) for i in range(6)]))} == {1}
    found = {r.value for r in executor.run(Stage("s", [Environment(name) for name in THREAD_VARIABLES]))}
    assert found == {"1"}


def test_fewer_at_a_time_where_memory_is_short(spark: SparkSession) -> None:
    events: list[Event] = []
    executor = SparkExecutor(spark, memory_bytes=1000)
    for need in (0, 500, 501, 1000):
        list(executor.run(Stage("s", [Nothing("a")], memory_bytes=need), events.append))
    assert [event.workers for event in events if isinstance(event, StageStarted)] == [2, 2, 1, 1]
    with pytest.raises(MemoryExceeded, match=r"1,001 bytes, and 1,000 are available"):
        executor.run(Stage("s", [Nothing("a")], memory_bytes=1001))
    assert SparkExecutor(spark, workers=7).workers == 7


@pytest.mark.parametrize("name", ["workers", "memory_bytes"])
@pytest.mark.parametrize("value", [0, -1])
def test_nonsense_is_refused(name: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=f"{name}={value}: it must be 1 or more"):
        SparkExecutor(**{name: value})  # type: ignore[arg-type]


def test_another_master_is_refused_while_one_is_in_use(spark: SparkSession) -> None:
    with pytest.raises(InvalidInput, match=r"runs Spark at local\[2\] already, not at spark://elsewhere:7077"):
        SparkExecutor("spark://elsewhere:7077")


def test_without_java_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(InvalidInput, match="needs Java 17 .*apt-get install openjdk-17-jre-headless"):
        SparkExecutor("local[1]")


def test_the_bridge_to_the_jvm_logs_no_task(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, py4j logs what it sends, in base64."""
    caplog.set_level(logging.DEBUG)
    task = Scripted("a", str(tmp_path), message="canary" * 9)
    list(SparkExecutor(spark).run(Stage("s", [task])))
    assert "canary" not in caplog.text
    for shift in range(3):  # in base64, what surrounds a text decides how it looks
        assert base64.b64encode(b" " * shift + b"canary" * 9)[4:-4].decode() not in caplog.text
    assert b"canary" in pickle.dumps(task)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from lake.run import Stage, resolve
from tests.unit.run.scripted import Nothing
executor = resolve(sys.argv[2])
print(executor.session.sparkContext.master, len(list(executor.run(Stage("s", [Nothing("a")])))))
"""


def test_a_script_needs_no_session(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-W", "error", str(tmp_path / "script.py"), root, "spark"]
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": root}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=clean, cwd=tmp_path)
    assert ran.stdout == "local[*] 1\n", ran.stderr
    assert "fork" not in ran.stderr

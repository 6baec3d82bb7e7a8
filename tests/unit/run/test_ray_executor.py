"""The executor of a Ray cluster: the suite, and what is its own: connecting, machines, threads."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from lake.errors import InvalidInput, TaskFailed
from lake.run import Event, Stage, StageStarted, ignore, resolve
from lake_ray import RayExecutor
from tests.support.raycluster import CPUS, RUNTIME_ENV, RayCluster, connect, disconnect, environment
from tests.support.s3 import ROOT
from tests.unit.run.executor_suite import ExecutorSuite
from tests.unit.run.scripted import Environment, Loaded, Nothing, Pid, Scripted, Threads

pytestmark = pytest.mark.slow


class TestRay(ExecutorSuite):
    parallel = True
    isolated = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, on_ray: RayCluster) -> Iterator[RayExecutor]:
        with RayExecutor() as executor:
            yield executor
        assert ray.is_initialized(), "it closes only what it opened"


def test_as_many_run_as_the_cluster_has_cpus(on_ray: RayCluster) -> None:
    assert RayExecutor().workers == CPUS
    assert RayExecutor(workers=5).workers == 5
    with pytest.raises(InvalidInput, match="workers=0"):
        RayExecutor(workers=0)
    events: list[Event] = []
    list(RayExecutor(workers=1).run(Stage("s", [Nothing("a")]), events.append))
    assert isinstance(events[0], StageStarted)
    assert events[0].workers == 1


def test_a_lone_task_has_the_machines_cores_and_many_have_one_each(on_ray: RayCluster) -> None:
    executor = RayExecutor()
    assert [r.value for r in executor.run(Stage("s", [Threads("a")]))] == [CPUS]
    assert {r.value for r in executor.run(Stage("s", [Threads(str(i)) for i in range(6)]))} == {1}
    assert {r.value for r in executor.run(Stage("s", [Environment("NUMBA_NUM_THREADS")]))} == {"1"}


def test_workers_load_a_module_ahead_of_its_stage(on_ray: RayCluster) -> None:
    executor = RayExecutor()
    stage = Stage("s", [Loaded(str(i), "sched") for i in range(4)])
    assert not any(r.value for r in executor.run(stage))
    executor.start("sched")
    deadline = time.monotonic() + 60
    while not any(r.value for r in executor.run(stage)):
        assert time.monotonic() < deadline


def test_workers_serve_many_tasks(on_ray: RayCluster) -> None:
    stage = Stage("s", [Pid(str(i)) for i in range(20)])
    assert len({r.value for r in RayExecutor().run(stage)}) <= CPUS + 1


def test_memory_is_asked_of_the_machine(on_ray: RayCluster, tmp_path: Path) -> None:
    whole = int(max(node["Resources"]["memory"] for node in ray.nodes()) * 0.6)  # two at a time would not fit
    tasks = [Scripted(f"t{i}", str(tmp_path), seconds=0.3) for i in range(3)]
    assert len(list(RayExecutor().run(Stage("s", tasks, memory_bytes=whole)))) == 3
    began = sorted(path.stat().st_mtime for path in tmp_path.glob("*.run"))
    assert min(np.diff(began)) >= 0.3, "each began after another had ended"


@pytest.mark.parametrize("seconds", [0.1, 600.0])
def test_closing_cancels_only_tasks_that_go_on(
    on_ray: RayCluster, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends the driver, or a task of somebody else, at times when a task is cancelled that is just ending."""
    cancelled: list[ray.ObjectRef] = []
    cancel = ray.cancel

    def note(reference: ray.ObjectRef, *, force: bool) -> None:
        cancelled.append(reference)
        cancel(reference, force=force)

    monkeypatch.setattr(ray, "cancel", note)
    tasks = [Scripted("first", str(tmp_path), after=2), Scripted("busy", str(tmp_path), seconds=seconds)]
    results = RayExecutor().run(Stage("s", tasks))
    assert next(results).key == "first"
    results.close()
    assert len(cancelled) == (seconds > 60)
    [busy] = tmp_path.glob("busy.*.run")
    deadline = time.monotonic() + 60
    while cancelled and psutil.pid_exists(int(busy.read_text())):
        assert time.monotonic() < deadline


def test_workers_that_cannot_import_the_task_say_so(on_ray: RayCluster, tmp_path: Path) -> None:
    """A driver that brings nothing along: the cluster's own Python has no lake."""
    program = (
        "import ray, sys\n"
        "from lake.run import Stage\n"
        "from lake.errors import TaskFailed\n"
        "from lake_ray import RayExecutor\n"
        "from tests.unit.run.scripted import Nothing\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "try:\n    list(RayExecutor().run(Stage('s', [Nothing('a')], retries=0)))\n"
        "except TaskFailed as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, on_ray.address]
    here = environment() | {"PYTHONPATH": str(ROOT)}  # the driver's, which Ray does not hand on
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, check=True)
    assert "No module named 'lake_ray'" in done.stdout, done.stdout + done.stderr
    assert "py_modules" in done.stdout


class TestAddresses:
    """Each of these connects itself; nothing may be connected before."""

    @pytest.fixture(autouse=True)
    @staticmethod
    def alone(on_ray: RayCluster) -> Iterator[None]:
        disconnect()
        yield
        disconnect()  # what a test that failed has left
        connect(on_ray)

    def test_an_address(self, on_ray: RayCluster) -> None:
        with RayExecutor(on_ray.address) as executor:
            assert executor.workers == CPUS
            assert ray.is_initialized()
        assert not ray.is_initialized()

    def test_the_environment(self, on_ray: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", on_ray.address)
        for executor in (RayExecutor(), resolve("ray")):
            assert isinstance(executor, RayExecutor)
            with executor:
                assert executor.workers == CPUS
                context = ray.get_runtime_context()
                assert context.gcs_address.split(":")[1] == on_ray.address.split(":")[1]

    def test_a_client_far_away(self, on_ray: RayCluster, tmp_path: Path) -> None:
        ray.init(on_ray.client, runtime_env=RUNTIME_ENV, log_to_driver=False)
        executor = resolve(on_ray.client)
        assert isinstance(executor, RayExecutor)
        results = [r.value for r in executor.run(Stage("s", [Scripted("abc", str(tmp_path), fails=1)]), ignore)]
        assert results == [3]
        with pytest.raises(TaskFailed, match="worker process died"):
            list(executor.run(Stage("s", [Scripted("dies", str(tmp_path), kills=9)], retries=0), ignore))
        running = executor.run(Stage("s", [Scripted(f"t{i}", str(tmp_path), seconds=0.2) for i in range(9)]), ignore)
        next(running)
        running.close()
        ray.shutdown()

    def test_no_address(self) -> None:
        with pytest.raises(InvalidInput, match="cannot connect to Ray at 'nonsense'"):
            list(RayExecutor("nonsense").run(Stage("s", [Nothing("a")])))

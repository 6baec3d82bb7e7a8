"""Spark for the tests: a session of this process, a standalone cluster, and a Spark Connect server.

A process has one classic session: `spark`, on two cores of this process' own JVM. Drivers on the cluster are therefore
processes of their own (`submit`), or go through a Connect server of the cluster.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.s3 import ROOT, free_port, wait_for

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Of whatever runs tasks of ours: found by name, and small.
CONF = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "512m",
    "spark.executorEnv.PYTHONPATH": str(ROOT),
    "spark.log.level": "ERROR",
    "spark.python.authenticate.socketTimeout": "120s",  # a Python worker takes its time where all cores are taken
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def environment(**more: str) -> dict[str, str]:
    """Return the environment of Spark's processes: they use this Python, and leave no port open to others."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    ours = {"SPARK_HOME": str(_home()), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    return kept | ours | more


@cache
def _home() -> Path:
    """Lay out Spark's home with its Python as plain files: from its archives, each worker would compile it anew."""
    home, package = Path(tempfile.mkdtemp(prefix="spark-home-")), _package("pyspark")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for entry in package.iterdir():
        if entry.name != "python":
            (home / entry.name).symlink_to(entry)
    for archive in (package / "python" / "lib").glob("*.zip"):
        name = re.split(r"\W", archive.name)[0]
        folder = home / "python" / "lib" / archive.name
        folder.mkdir(parents=True)
        (folder / name).symlink_to(_package(name))
    return home


def _package(name: str) -> Path:
    found = find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _conf_options(conf: Mapping[str, str]) -> list[str]:
    return [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]


@contextmanager
def classic(warehouse: Path, master: str = "local[2]", conf: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """Start this process' own Spark: on two cores of this machine, or as a driver of a cluster."""
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    builder = SparkSession.builder.master(master).appName("tests")
    for key, value in {**CONF, **(conf or {}), "spark.sql.warehouse.dir": str(warehouse)}.items():
        builder = builder.config(key, value)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.filterwarnings("ignore", "lance is not fork-safe")  # a fork that becomes the JVM at once
        patch.setenv("SPARK_HOME", str(_home()))
        session = builder.getOrCreate()
    yield session
    session.stop()


@dataclass
class Cluster:
    """A standalone master and its workers, one core each; each a JVM of its own.

    Parameters
    ----------
    url : str
        ``spark://127.0.0.1:port``.
    workers : list[subprocess.Popen]
        Their processes; executors are children of theirs.
    """

    url: str
    workers: list[subprocess.Popen[bytes]]

    def executors(self) -> list[psutil.Process]:
        """Return the executors' JVMs."""
        found = []
        for child in [child for worker in self.workers for child in psutil.Process(worker.pid).children()]:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if any("CoarseGrainedExecutorBackend" in part for part in child.cmdline()):
                    found.append(child)
        return found


@contextmanager
def standalone(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """Run a cluster as long as the block."""
    port, logs = free_port(), folder / "cluster.log"
    launch = [str(_home() / "bin" / "spark-class")]
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port)]
    url = f"spark://127.0.0.1:{port}"
    with logs.open("wb") as log:

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            ports = ["--webui-port", str(free_port())]
            small = environment(SPARK_DAEMON_MEMORY="256m", SPARK_NO_DAEMONIZE="1")
            return subprocess.Popen(
                [*launch, *command, *ports], stdout=log, stderr=log, env=small, cwd=folder, start_new_session=True
            )

        processes = [start(master)]
        try:
            wait_for(processes[0], port, 120.0)
            for number in range(workers):
                work = folder / f"worker-{number}"
                # Each an address of its own: Spark begins no copy of a task on the host where it runs.
                options = [
                    "--host",
                    f"127.0.0.{number + 1}",
                    "--cores",
                    "1",
                    "--memory",
                    "1g",
                    "--work-dir",
                    str(work),
                    url,
                ]
                processes.append(start(["org.apache.spark.deploy.worker.Worker", *options]))
            _until(lambda: logs.read_bytes().count(b"Successfully registered with master") == workers, logs)
            yield Cluster(url, processes[1:])
        finally:
            end(*processes)


@contextmanager
def connect_server(folder: Path, master: str = "local[2]", conf: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a Spark Connect server as long as the block; yield its ``sc://`` URL."""
    port, log = free_port(), folder / "connect.log"
    settings = {**CONF, "spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": str(port)}
    settings |= {"spark.sql.warehouse.dir": str(folder / "warehouse"), **(conf or {})}
    server = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    command = [str(_home() / "bin" / "spark-submit"), "--master", master, *_conf_options(settings), *server]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment(PYTHONPATH=str(ROOT)), cwd=folder, start_new_session=True
        )
        try:
            wait_for(process, port, 120.0)
            yield f"sc://127.0.0.1:{port}"
        finally:
            end(process)


def submit(
    master: str, program: Path, *arguments: str, conf: Mapping[str, str] | None = None, py_files: Sequence[Path] = ()
) -> subprocess.Popen[str]:
    """Begin ``spark-submit`` of a program from its own folder."""
    command = [str(_home() / "bin" / "spark-submit"), "--master", master, *_conf_options({**CONF, **(conf or {})})]
    if py_files:
        command += ["--py-files", ",".join(map(str, py_files))]
    return subprocess.Popen(
        [*command, program.name, *arguments],
        cwd=program.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(*processes: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill processes and all their descendants, also those in sessions of their own."""
    victims: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            victims += [*parent.children(recursive=True), parent]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, timeout=20)
    for process in processes:
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _until(ready: object, logs: Path, seconds: float = 120.0) -> None:
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            told = re.sub(r"\n\tat .*", "", logs.read_text())
            raise RuntimeError(f"Spark did not come up:\n{told[-4000:]}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The classic session of this test process, on two cores of a JVM of its own."""
    with classic(tmp_path_factory.mktemp("spark")) as session:
        yield session


@pytest.fixture(scope="session")
def spark_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A standalone master with two workers of one core, for drivers that `submit` starts, one at a time."""
    with standalone(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark_connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The ``sc://`` URL of a Connect server on two cores of its own; `remote` opens a session."""
    with connect_server(tmp_path_factory.mktemp("connect")) as url:
        yield url


@contextmanager
def remote(url: str) -> Iterator[SparkSession]:
    """Open a session of a Connect server; this process may have a classic one besides."""
    from pyspark.sql.connect.session import SparkSession as RemoteSession

    session: SparkSession = RemoteSession.builder.remote(url).create()  # type: ignore[assignment]
    try:
        yield session
    finally:
        session.stop()

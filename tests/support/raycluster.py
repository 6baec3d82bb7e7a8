"""A Ray cluster of separate processes, as `ray start` makes one: head, dashboard, client server, workers.

Its Python has what the lake needs and not the lake itself, as a cluster that others keep: drivers bring it along.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.s3 import ROOT, free_port, wait_for

CPUS = 2
RUNTIME_ENV: dict[str, Any] = {"env_vars": {"PYTHONPATH": f"{ROOT}:{ROOT / 'connectors'}"}}
"""How workers of the tests' own drivers find this checkout."""

# Where all cores are taken, a process takes its time to start.
_PATIENT = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "200"}
# Wheels that drivers bring need nothing that is not there.
_OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@dataclass(frozen=True)
class RayCluster:
    """Where to reach it.

    Parameters
    ----------
    address : str
        For drivers on this machine.
    client : str
        For drivers elsewhere, ``ray://…``.
    jobs : str
        URL for ``ray job submit``.
    """

    address: str
    client: str
    jobs: str


def environment() -> dict[str, str]:
    """Return this process's variables without what would lead its children to another cluster, or to this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@contextmanager
def running() -> Iterator[RayCluster]:
    """Run a cluster of two CPUs."""
    gcs, client, dashboard = free_port(), free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets lie there, whose paths must be short
    python = _python(folder / "python")
    command = [
        *(str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={client}"),
        *("--include-dashboard=true", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0"),
        *(f"--num-cpus={CPUS}", f"--object-store-memory={512 << 20}", f"--temp-dir={folder / 't'}"),
    ]
    kept = environment() | _PATIENT | _OFFLINE | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=kept, stdout=log, stderr=log)
    try:
        for port in (gcs, client, dashboard):
            wait_for(process, port, 120.0)
        yield RayCluster(f"127.0.0.1:{gcs}", f"ray://127.0.0.1:{client}", f"http://127.0.0.1:{dashboard}")
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()  # `ray start --block` ends what it started; what is left then has nothing to lose
        psutil.wait_procs(started, timeout=5)
        for each in started:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _python(folder: Path) -> Path:
    """Make an environment with what is installed here, except what is installed as a link, such as this checkout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python, pip = folder / "bin" / "python", folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {python} -m pip "$@"\n')  # Ray runs it to unpack the wheels of drivers
    pip.chmod(0o755)
    return python


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster for the whole session; it starts when a test first asks for it."""
    with running() as cluster:
        yield cluster


def connect(cluster: RayCluster) -> None:
    """Make this process a driver of a cluster."""
    import ray

    ray.init(cluster.address, runtime_env=RUNTIME_ENV, log_to_driver=False, configure_logging=False)


def disconnect() -> None:
    """Leave the cluster; what still reads from it ends first, as it would complain of it later."""
    import ray

    gc.collect()
    ray.shutdown()


@pytest.fixture(scope="session")
def on_ray(ray_cluster: RayCluster) -> Iterator[RayCluster]:
    """This process is a driver of the cluster: one for the session, as a driver's workers take seconds to start."""
    connect(ray_cluster)
    yield ray_cluster
    disconnect()

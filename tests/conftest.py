"""Fixtures for all tests: a place for tables, on this machine's disk and on an object store."""

from __future__ import annotations

import gc
import os
import re
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Helpers are imported as `tests.support`; last, so that nothing installed is shadowed.
sys.path.append(str(Path(__file__).parents[1]))

import lake
from lake.storage import Location
from tests.support import s3
from tests.support.proxy import Proxy, proxying
from tests.support.raycluster import on_ray, ray_cluster
from tests.support.spark import spark, spark_cluster, spark_connect

__all__ = ["on_ray", "ray_cluster", "spark", "spark_cluster", "spark_connect"]

pytest.register_assert_rewrite("tests.unit.run.executor_suite")

# Spark's processes live for seconds here: code that is compiled at once, and badly, suits them.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# Ray counts its use in a thread that outlives the connection, and ends the process if it calls at the wrong moment.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# What gRPC does around a fork kills the child at times, when threads call into it: Ray's client servers, and JVMs.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A change is judged by the same examples each time; `make fuzz` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Have compiled loops compiled anew after a change to any file of theirs: numba looks at one file only."""
    if hasattr(config, "workerinput"):  # whoever started it has looked
        return
    folder = Path(lake.__file__).parent / "nearest"
    changed = max(file.stat().st_mtime for file in folder.glob("*.py"))
    for compiled in folder.glob("__pycache__/*.nb?"):
        if compiled.stat().st_mtime < changed:
            compiled.unlink(missing_ok=True)


def _engine(nodeid: str) -> str:
    """Tell which engine a test starts, by its name or its file's."""
    words = set(re.split(r"[^a-z]+", nodeid.lower()))
    return next((engine for engine in ("ray", "spark") if engine in words), "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start Ray or Spark; they come first, so that each cluster is started once."""
    engines = {item: _engine(item.nodeid) for item in items}
    items.sort(key=lambda item: ("ray", "spark", "").index(engines[item]))
    for item, engine in engines.items():
        starts = {"on_ray", "ray_cluster", "spark", "spark_cluster", "spark_connect"} & {*item.fixturenames}  # type: ignore[attr-defined]
        assert engine or not starts, f"{item.nodeid} starts {starts}, and its name does not say so"
        if engine:
            item.add_marker(engine)


class _EnginesApart(LoadScopeScheduling):  # type: ignore[misc]
    """Tests that start Ray or Spark go to one process, others file by file to any: clusters share the cores badly."""

    def _split_scope(self, nodeid: str) -> str:
        return "engines" if _engine(nodeid) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _EnginesApart:
    return _EnginesApart(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Collect no garbage while a failure is shown.

    Pytest parses source then. A finalizer that logs an error (Ray Data's do) parses source too, and until 3.11.8
    CPython takes one parse within another for an error of its own, which would end the whole run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """URL of an S3 with a bucket."""
    with s3.moto() as url:
        s3.make_bucket(url, s3.BUCKET)
        yield url


@pytest.fixture(scope="session")
def faulty(store: str) -> Iterator[Proxy]:
    """A proxy in front of the store, for the whole session; tests use `proxy`."""
    with proxying(store) as proxy:
        yield proxy


@pytest.fixture
def proxy(faulty: Proxy) -> Iterator[Proxy]:
    """A proxy in front of the store, without rules."""
    faulty.arm()
    yield faulty
    faulty.release(forward=False)
    faulty.arm()


@pytest.fixture
def bucket(store: str) -> Location:
    """A lake's root on S3 of this test's own."""
    return Location.of(f"s3://{s3.BUCKET}/{uuid.uuid4().hex}", s3.options(store))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A lake's root of this test's own: on disk, and on S3."""
    if request.param == "local":
        return Location.of(tmp_path / "lake")
    there: Location = request.getfixturevalue("bucket")
    return there

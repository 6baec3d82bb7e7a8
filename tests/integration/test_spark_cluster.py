"""Builds on real Spark clusters: as shipped by ``make dist``, with executors and drivers killed in their midst."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import lake
from lake.run import Event, Stage, TaskStarted
from lake.storage import Location
from lake.table.commit import COMMIT_ID, transactions
from lake_spark.executor import SparkExecutor
from tests.support.s3 import ROOT
from tests.support.spark import Cluster, connect_server, end, remote, submit
from tests.unit.run.executor_suite import ExecutorSuite
from tests.unit.run.scripted import KillsAncestor, Scripted

DIMENSION, ROWS, FRAGMENTS = 16, 24_000, 6
WORDS = ("amber", "basalt", "cedar", "delta", "ember")


def make_table(folder: Path) -> lake.Table:
    """A table of several fragments, with an index of each kind declared and none built."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((ROWS, DIMENSION), dtype=np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    texts = [f"{WORDS[i % 5]} {'rare' if i % 997 == 0 else 'common'} number{i}" for i in range(ROWS)]
    rows = pa.table({"id": np.arange(ROWS), "number": np.arange(ROWS) % 1013, "text": texts, "vector": flat})
    step = ROWS // FRAGMENTS
    table = lake.connect(folder).create_table("t", rows.slice(0, step), key="id")
    for start in range(step, ROWS, step):
        table.append(rows.slice(start, step))
    table.create_index("vector", "ivf_flat", metric="l2", partitions=16)
    table.create_index("text", "bm25")
    table.create_index("number", "btree")
    return table


def check_answers(table: lake.Table) -> None:
    """Everything is indexed, each row once, and searches through the indexes answer as brute force does."""
    assert table.coverage().complete
    rows = table.to_arrow(["id", "vector", "number", "text"]).sort_by("id")
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSION)
    for query in np.random.default_rng(2).standard_normal((5, DIMENSION), dtype=np.float32):
        exact = np.argsort(((vectors - query) ** 2).sum(axis=1), kind="stable")[:10]
        found = table.search(query, k=10, nprobe=16).to_arrow()["id"].to_pylist()
        assert found == exact.tolist()
    rare = {i for i, text in enumerate(rows["text"].to_pylist()) if "rare" in text}
    assert set(table.search(text="rare", k=100).to_arrow()["id"].to_pylist()) == rare
    assert table.count_rows("number = 7") == sum(i % 1013 == 7 for i in range(ROWS))
    for name in ("vector_idx", "text_idx", "number_idx"):
        segments = [index for index in table.dataset.describe_indices() if index.name == name]
        covered = [f for index in segments for segment in index.segments for f in segment.fragment_ids]
        assert sorted(covered) == list(range(FRAGMENTS)), name


def commits_of(table: lake.Table, job: str) -> int:
    return sum(properties.get(COMMIT_ID) == job for _, properties in transactions(table.dataset))


BUILD = """
import json, sys
import jobs
import lake
from lake.run import json_lines
from pyspark.sql import SparkSession

assert jobs.MINE
spark = SparkSession.builder.getOrCreate()

def where(batches):
    import lake, lake_spark, pyarrow as pa
    for _ in batches:
        pass
    yield pa.RecordBatch.from_pydict({"file": [lake.__file__, lake_spark.__file__]})

found = spark.range(1).mapInArrow(where, "file string").collect()
print(json.dumps({"driver": lake.__file__, "workers": [row.file for row in found]}), flush=True)
table = lake.connect(sys.argv[1]).open_table("t")
report = table.build(executor="spark", job_id=sys.argv[2], on_event=json_lines(sys.stdout))
print(json.dumps({"version": report.version, "repeated": report.repeated}), flush=True)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes for ``--py-files``."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["make", "-o", ".venv/.dev", "dist", f"DIST={folder}"], cwd=ROOT, check=True, capture_output=True)
    [found] = folder.glob("*.zip")
    return found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A user's own program, beside a package of theirs that is called `jobs`."""
    home = tmp_path / "user"
    (home / "jobs").mkdir(parents=True)
    (home / "jobs" / "__init__.py").write_text("MINE = True\n")
    (home / "build.py").write_text(BUILD)
    return home / "build.py"


def lines(driver: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What a driver prints, as it prints it."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("{"):
            yield json.loads(line)


def finish(driver: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = driver.communicate(timeout=250)
    assert driver.returncode == 0, err[-4000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_the_archive_runs_on_a_cluster_from_another_folder(
    spark_cluster: Cluster, archive: Path, program: Path, tmp_path: Path
) -> None:
    table = make_table(tmp_path / "lake")
    told = finish(submit(spark_cluster.url, program, str(tmp_path / "lake"), "nightly", py_files=[archive]))
    homes = [told[0]["driver"], *told[0]["workers"]]
    assert all(archive.name in home for home in homes), "not this machine's editable install"
    assert told[-1] == {"version": table.version, "repeated": False}
    assert commits_of(table, "nightly") == 1
    check_answers(table)


def test_executors_killed_in_mid_build_cost_nothing(spark_cluster: Cluster, program: Path, tmp_path: Path) -> None:
    table = make_table(tmp_path / "lake")
    before = table.version
    driver = submit(spark_cluster.url, program, str(tmp_path / "lake"), "nightly")
    events = []
    killed: set[int] = set()
    try:
        for event in lines(driver):
            events.append(event)
            if event.get("event") == "TaskStarted" and event["stage"] == "segments" and len(killed) < 3:
                for executor in spark_cluster.executors():
                    killed.add(executor.pid)
                    executor.kill()
        assert driver.wait(120) == 0
    finally:
        end(driver)
    assert killed
    retried = [event for event in events if event.get("event") == "TaskRetried"]
    assert {event["error"] for event in retried} == {"JobError"}
    assert table.version == before + 1
    check_answers(table)


def test_a_driver_killed_before_and_after_its_commit_applies_it_once(
    spark_cluster: Cluster, spark: SparkSession, program: Path, tmp_path: Path
) -> None:
    table = make_table(tmp_path / "lake")
    before = table.version

    def kill_at(event: str, stage: str | None = None) -> list[dict[str, Any]]:
        driver = submit(spark_cluster.url, program, str(tmp_path / "lake"), "nightly")
        seen = []
        for told in lines(driver):
            seen.append(told)
            if told.get("event") == event and told.get("stage") == stage:
                break
        end(driver)
        return seen

    first = kill_at("TaskDone", "segments")
    assert table.version == before
    assert not any(index.built for index in table.coverage())
    second = kill_at("JobCommitted")
    skipped = {event["key"] for event in second if event.get("event") == "TaskSkipped"}
    done = {event["key"] for event in first if event.get("event") == "TaskDone"}
    assert skipped & done, "what was recorded is not repeated"
    assert table.version == before + 1
    third: list[Event] = []
    report = table.build(executor=SparkExecutor(spark), job_id="nightly", on_event=third.append)
    assert report.repeated
    assert report.version == table.version == before + 1
    assert not [event for event in third if isinstance(event, TaskStarted)]
    assert commits_of(table, "nightly") == 1
    check_answers(table)


def test_a_build_through_connect(spark_connect: str, tmp_path: Path) -> None:
    table = make_table(tmp_path / "lake")
    report = table.build(executor=spark_connect, job_id="nightly", on_event=lambda event: None)
    assert {index.done for index in report.indexes} == {"built"}
    check_answers(table)
    assert table.build(executor=spark_connect, job_id="nightly").repeated


def test_a_build_in_a_session(spark: SparkSession, bucket: Location) -> None:
    """On an object store, with credentials in the tasks."""
    lk = lake.connect(bucket.uri, bucket.options)
    table = lk.create_table("t", {"id": range(2000), "number": range(2000)}, key="id")
    table.append({"id": range(2000, 4000), "number": range(2000, 4000)})
    table.create_index("number", "btree")
    report = table.build(executor=SparkExecutor(spark), on_event=lambda event: None)
    assert [index.done for index in report.indexes] == ["built"]
    assert table.search(where="number >= 1990 and number < 2010", k=None).to_arrow().num_rows == 20


class TestCluster(ExecutorSuite):
    """The suite where Spark repeats what fails, on executors of one core each, through a Connect server."""

    parallel = True
    isolated = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, spark_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkExecutor]:
        folder = tmp_path_factory.mktemp("connect")
        logs = folder / "events"
        logs.mkdir()
        logging = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": logs.as_uri()}
        logging["spark.eventLog.compress"] = "false"
        with connect_server(folder, spark_cluster.url, logging) as url:
            with remote(url) as session:
                yield SparkExecutor(session)
            written = b"".join(path.read_bytes() for path in logs.rglob("*") if path.is_file())
        assert b"lake-s-" in written, "Spark recorded the jobs"
        assert b"canary" not in written
        for shift in range(3):  # no pickled task either, in base64: what surrounds a text decides how it looks
            assert base64.b64encode(b" " * shift + Scripted.__module__.encode())[4:-4] not in written

    def test_an_executor_that_dies_costs_an_attempt(self, executor: SparkExecutor, tmp_path: Path) -> None:
        kills = KillsAncestor("kills", str(tmp_path), 2)  # the daemon that forked the worker, and its JVM
        tasks: list[Any] = [kills, *(Scripted(f"t{i}", str(tmp_path)) for i in range(4))]
        results = {r.key: (r.value, r.attempts) for r in executor.run(Stage("s", tasks, retries=2))}
        assert results["kills"] == (2, 2)
        assert len(results) == 5


SPECULATE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lake.run import Stage
from lake_spark import SparkExecutor
from tests.unit.run.scripted import WaitsForCopy
results = list(SparkExecutor().run(Stage("s", [WaitsForCopy("slow", sys.argv[2])])))
print(json.dumps({"results": [(r.key, r.value, r.attempts) for r in results]}))
"""


def test_a_copy_for_speed_is_no_attempt(spark_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "speculate.py").write_text(SPECULATE)
    eager = {"spark.speculation": "true", "spark.speculation.interval": "50ms"}
    eager |= {"spark.speculation.minTaskRuntime": "100ms", "spark.speculation.task.duration.threshold": "500ms"}
    [told] = finish(submit(spark_cluster.url, tmp_path / "speculate.py", str(ROOT), str(tmp_path), conf=eager))
    assert told["results"] == [["slow", 4, 1]]


def test_no_process_is_left_on_the_cluster(spark_cluster: Cluster) -> None:
    psutil.wait_procs(spark_cluster.executors(), timeout=20)
    assert spark_cluster.executors() == []

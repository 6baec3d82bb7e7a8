"""Streams follow tables and tables follow streams: each row once, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import StreamingQueryException

import lake_spark
from lake.errors import InvalidInput, NotFound
from lake.storage import Location
from lake.table import compact, history, merge, rows, write
from lake.table.snapshot import drop, open_head
from tests.support.s3 import ROOT
from tests.support.spark import environment
from tests.support.tables import SCHEMA, content, data_files, make, pairs

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(spark: SparkSession) -> SparkSession:
    lake_spark.register(spark)
    return spark


def follow(session: SparkSession, table: Location, **options: str) -> DataFrame:
    stored = {f"storage.{name}": value for name, value in table.options.items()}
    return session.readStream.format("lake").options(**stored, **options).load(table.uri)


def pour(frame: DataFrame, table: Location, checkpoint: Path, mode: str = "append", **options: str) -> StreamingQuery:
    """Run all that there is into a table."""
    stored = {f"storage.{name}": value for name, value in table.options.items()}
    writer = frame.writeStream.format("lake").outputMode(mode).options(**stored, **options)
    query = writer.option("checkpointLocation", str(checkpoint)).trigger(availableNow=True).start(table.uri)
    try:
        query.awaitTermination()
    finally:
        query.stop()
    return query


def empty(root: Location, name: str) -> Location:
    table = root.join(f"{name}.lance")
    write.create_table(table, SCHEMA)
    return table


def version(table: Location) -> int:
    try:
        found: int = open_head(table).version
    except NotFound:
        return 0
    return found


@pytest.mark.s3
def test_a_table_follows_a_table(session: SparkSession, bucket: Location, tmp_path: Path) -> None:
    source, target, checkpoint = make(bucket, "source"), empty(bucket, "target"), tmp_path / "checkpoint"
    query = pour(follow(session, source), target, checkpoint)
    assert content(target) == content(source)
    assert [v.commit_id for v in history.versions(target, None)][:-1] == [f"spark-{query.id}-0"]
    write.append(source, None, pairs(range(20, 25), 1))
    write.append(source, None, pairs(range(25, 30), 2))
    compact.compact(source, target_rows=1000)  # moves rows, changes none
    pour(follow(session, source), target, checkpoint)
    assert content(target) == content(source)
    assert len(history.versions(target, None)) == 3


def test_changes_say_what_happened(session: SparkSession, tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    source = make(root, "source")
    since = open_head(source).version
    merge.merge(source, None, pairs([5, 15, 50], 7))
    rows.delete(source, None, "id IN (3, 18)")
    rows.update(source, None, {"n": 8}, "id = 15")
    expected = [
        ("delete", 3, 0),
        ("delete", 18, 0),
        ("insert", 50, 7),
        ("update", 5, 7),
        ("update", 15, 8),
    ]
    found: list[tuple[Any, ...]] = []

    def keep(batch: DataFrame, _: int) -> None:
        found.extend(tuple(row) for row in batch.select("_change", "id", "n").collect())

    frame = follow(session, source, changes="true", since=str(since))
    query = frame.writeStream.foreachBatch(keep).option("checkpointLocation", str(tmp_path / "c"))
    query.trigger(availableNow=True).start().awaitTermination()
    assert sorted(found) == expected
    once = session.read.format("lake").options(changes="true", since=str(since)).load(source.uri)
    assert sorted(tuple(row) for row in once.collect()) == expected
    assert session.read.format("lake").options(changes="true", columns="n").load(source.uri).columns == ["_change", "n"]
    nothing = session.read.format("lake").options(changes="true", since=str(open_head(source).version))
    assert nothing.load(source.uri).count() == 0
    with pytest.raises(InvalidInput, match="rows with delete and update.*'changes', 'true'"), lake_spark.errors():
        session.read.format("lake").option("since", str(since)).load(source.uri).count()
    with pytest.raises(StreamingQueryException, match=r"InvalidInput.*rows with delete and update"):
        pour(follow(session, source, since=str(since)), empty(root, "target"), tmp_path / "d")
    with pytest.raises(InvalidInput, match="cannot be filtered"), lake_spark.errors():
        session.read.format("lake").options(changes="true", filter="id = 1").load(source.uri).count()


def test_a_table_that_was_made_anew_is_not_followed(session: SparkSession, tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    source, target = make(root, "source"), empty(root, "target")
    pour(follow(session, source), target, tmp_path / "checkpoint")
    drop(source)
    make(root, "source")
    write.append(source, None, pairs([77]))
    with pytest.raises(StreamingQueryException, match="made anew"):
        pour(follow(session, source), target, tmp_path / "checkpoint")
    assert len(content(target)) == 20


@pytest.mark.parametrize("how", ["append", "upsert", "create"])
def test_a_batch_that_runs_again_is_written_once(session: SparkSession, tmp_path: Path, how: str) -> None:
    """Spark runs a batch again when it did not note the commit, as after a crash in between."""
    root = Location.of(tmp_path)
    source, checkpoint = make(root, "source"), tmp_path / "checkpoint"
    target = root.join("target.lance") if how == "create" else empty(root, "target")
    options = {"merge": "upsert"} if how == "upsert" else {}
    pour(follow(session, source), target, checkpoint, **options)
    write.append(source, None, pairs(range(20, 23)))
    for _ in range(2):
        number = max(int(path.name) for path in (checkpoint / "commits").iterdir() if path.name.isdigit())
        (checkpoint / "commits" / str(number)).unlink()
        (checkpoint / "commits" / f".{number}.crc").unlink(missing_ok=True)
        pour(follow(session, source), target, checkpoint, **options)
        assert content(target) == content(source)
    named = {f"data/{file.path}" for f in open_head(target).get_fragments() for file in f.metadata.files}
    assert data_files(target) == named
    assert not list(tmp_path.rglob("*.arrow"))


def test_two_queries_into_one_table_do_not_take_each_others_batches(session: SparkSession, tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    first, second, target = make(root, "first"), make(root, "second"), empty(root, "target")
    pour(follow(session, first), target, tmp_path / "a")
    pour(follow(session, second), target, tmp_path / "b")
    assert content(target) == sorted(content(first) + content(second))


def test_complete_mode_replaces(session: SparkSession, tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    source, target = make(root, "source"), empty(root, "target")

    def totals() -> DataFrame:
        return follow(session, source).groupBy("n").count().selectExpr("n AS id", "count AS n")

    pour(totals(), target, tmp_path / "checkpoint", "complete")
    assert content(target) == [(0, 20)]
    write.append(source, None, pairs([20, 21], 5))
    pour(totals(), target, tmp_path / "checkpoint", "complete")
    assert content(target) == [(0, 20), (5, 2)]


def test_an_expired_start_is_told(session: SparkSession, tmp_path: Path) -> None:
    source = make(Location.of(tmp_path))
    with pytest.raises(StreamingQueryException, match="version 55 does not exist"):
        pour(follow(session, source, since="55"), empty(Location.of(tmp_path), "target"), tmp_path / "c")
    with pytest.raises(NotFound, match="no table"), lake_spark.errors():
        follow(session, Location.of(tmp_path / "none.lance"))


PROGRAM = """
import sys
from pathlib import Path
from tests.support.spark import classic
import lake_spark

source, target, folder = sys.argv[1:]
with classic(Path(folder) / "warehouse") as spark:
    lake_spark.register(spark)
    stream = spark.readStream.format("lake").load(source).writeStream.format("lake")
    stream = stream.option("checkpointLocation", folder + "/checkpoint").trigger(processingTime="0 seconds")
    stream.start(target).awaitTermination()
"""


def test_a_driver_that_is_killed_loses_and_doubles_no_row(session: SparkSession, tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    source, target = make(root, "source"), root.join("target.lance")  # the first batch makes it
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    with log.open("wb") as out:
        command = [sys.executable, str(program), source.uri, target.uri, str(tmp_path)]
        running = subprocess.Popen(
            command, env=environment(PYTHONPATH=str(ROOT)), stdout=out, stderr=out, start_new_session=True
        )
    try:
        written = 20
        deadline = time.monotonic() + 250
        while version(target) < 3:  # batches follow each other while rows arrive
            assert running.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            write.append(source, None, pairs(range(written, written + 3)))
            written += 3
            time.sleep(0.5)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    pour(follow(session, source), target, tmp_path / "checkpoint")
    assert content(target) == content(source)

"""Spark writes tables: modes, creation, refusals, and each row once whatever happens to tasks and drivers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql.types import ArrayType, DoubleType, FloatType, LongType, StringType, StructField, StructType

import lake_spark
from lake.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from lake.schema import Column, Embedding, Role, Schema
from lake.storage import Files, Location
from lake.table import columns, history, write
from lake.table.parts import begin
from lake.table.snapshot import open_head
from lake_spark.write import LakeWriter, Written, finish
from tests.support.s3 import SECRET
from tests.support.spark import Cluster, submit
from tests.support.sparklake import load, rows, save
from tests.support.tables import SCHEMA, WIDE, content, data_files, make, pairs, wide

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.slow

VECTORS = StructType(
    [
        StructField("id", LongType(), nullable=False),
        StructField("Text", StringType()),
        StructField("V", ArrayType(DoubleType())),
    ]
)


@pytest.fixture(scope="module")
def session(spark: SparkSession) -> SparkSession:
    lake_spark.register(spark)
    return spark


def numbers(session: SparkSession, start: int, end: int, n: int = 0, parts: int = 2) -> DataFrame:
    return session.range(start, end, 1, parts).selectExpr("id", f"{n}L AS n")


def test_append_to_tables_on_disk_and_on_s3(session: SparkSession, root: Location) -> None:
    table = make(root)
    with lake_spark.errors():
        save(numbers(session, 20, 50), table, commit_id="more")
    assert content(table) == [(i, 0) for i in range(50)]
    told = lake_spark.receipt(table.uri, "more", table.options)
    assert (told.version, told.commit_id, told.inserted, told.updated, told.deleted) == (3, "more", 30, 0, 0)
    assert history.versions(table, None)[0].properties == {"lake.inserted": "30"}
    save(numbers(session, 20, 50), table, commit_id="more")  # a job that is submitted again
    assert len(content(table)) == 50
    assert len(data_files(table)) == len(open_head(table).get_fragments())
    with pytest.raises(NotFound, match="'less'"):
        lake_spark.receipt(table.uri, "less", table.options)


def test_vectors_get_the_tables_own_type(session: SparkSession, tmp_path: Path) -> None:
    table = Location.of(tmp_path / "w.lance")
    write.create_table(table, WIDE, wide([]))
    given = [(i, f"n{i}", [1.0, 2.0, 3.0, float(i)]) for i in range(10)] + [(10, None, None)]
    save(session.createDataFrame(given, "id long, name string, v array<double>"), table)
    assert Schema.decode(open_head(table).schema) == WIDE
    assert rows(load(session, table), "id", "name", "v") == given


def test_a_table_is_made_with_its_first_rows(session: SparkSession, root: Location) -> None:
    table = root.join("made.lance")
    frame = session.createDataFrame([(1, "a", [1.0, 0.0]), (2, "b", None)], VECTORS)
    meaning = {"embedding.V": '{"dimension": 2, "of": "Text", "metric": "cosine"}', "role.text": "description"}
    save(frame, table, key="id", **meaning)
    made = Schema.decode(open_head(table).schema)
    embedding = Embedding(2, of="Text", metric="cosine")
    assert made == Schema([Column("id", int), Column("Text", str, "description"), Column("V", embedding)], key="id")
    assert open_head(table).version == 1
    assert rows(load(session, table), "id", "Text", "V") == [(1, "a", [1.0, 0.0]), (2, "b", None)]
    save(frame.where("id > 5"), table, key="id", **meaning)  # the same job, the next day
    contradictions = {"key": "Text", "embedding.v": '{"dimension": 2, "metric": "l2"}', "role.text": "text"}
    for name, value in contradictions.items():
        with pytest.raises(InvalidInput, match=f"(?i)option '{name}'.*the table.*leave it out"), lake_spark.errors():
            save(frame, table, **{name: value})


def test_a_dimension_may_come_with_the_field(session: SparkSession, tmp_path: Path) -> None:
    kind = StructType([StructField("v", ArrayType(FloatType()), metadata={"dimension": 2})])
    table = Location.of(tmp_path / "t.lance")
    save(session.createDataFrame([([1.0, 2.0],)], kind), table)
    assert Schema.decode(open_head(table).schema)["v"].embedding == Embedding(2)


def test_a_copy_of_a_table_means_what_the_table_means(session: SparkSession, tmp_path: Path) -> None:
    table, copy, part = (Location.of(tmp_path / f"{name}.lance") for name in ("t", "copy", "part"))
    more = [Column("j", dict), Column("h", pa.list_(pa.float16(), 3)), Column("b", bytes, "blob")]
    schema = Schema([*WIDE.columns, *more], key="id")
    data = wide(range(5)) | {"j": ['{"a":1}'] * 5, "h": np.ones((5, 3), np.float16), "b": [b"x"] * 5}
    write.create_table(table, schema, data)
    save(load(session, table), copy)
    assert Schema.decode(open_head(copy).schema) == schema
    save(load(session, table).select("id", "v"), part)  # the column that was embedded is left out
    assert Schema.decode(open_head(part).schema)["v"].embedding == Embedding(4, metric="cosine")
    names = ["id", "name", "v", "j", "h", "b"]
    assert load(session, copy).orderBy("id").select(names).collect() == load(session, table).orderBy("id").collect()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, InvalidInput, r"'V' holds arrays of floats.*embedding\.V"),
        ({"embedding.V": "x"}, InvalidInput, "give a dimension, or JSON"),
        ({"embedding.W": "2"}, NotFound, "no column 'w'"),
        ({"embedding.Text": "2"}, InvalidInput, "'Text'.*holds no vectors"),
        ({"embedding.V": "2", "key": "Id"}, NotFound, "'Id'"),
        ({"embedding.V": "2", "merge": "upsert"}, NotFound, "no table"),
        ({"embedding.V": "2", "overwrite_schema": "yes"}, None, ""),
        ({"embeding.V": "2"}, InvalidInput, "no option 'embeding.v'"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_made_is_told(
    session: SparkSession, tmp_path: Path, options: dict[str, str], error: type[Exception] | None, told: str
) -> None:
    table = Location.of(tmp_path / "t.lance")
    frame = session.createDataFrame([(1, "a", [1.0, 0.0])], VECTORS)
    if error is None:
        save(frame, table, **options)
        return
    with pytest.raises(error, match=told), lake_spark.errors():
        save(frame, table, **options)
    assert not Path(table.uri).exists()


def test_arrays_that_are_no_vectors(session: SparkSession, tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    save(session.createDataFrame([(1, "a", [1.0]), (2, "b", [])], VECTORS), table, **{"role.V": "other"})
    assert Schema.decode(open_head(table).schema)["V"].role is Role.OTHER
    assert rows(load(session, table), "id", "V") == [(1, [1.0]), (2, [])]


def test_overwrite_replaces_rows_and_only_on_demand_the_columns(session: SparkSession, tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    save(load(session, table).selectExpr("id", "n + 1 AS n"), table, "overwrite")
    assert content(table) == [(i, 1) for i in range(20)]
    assert content(table, version=2) == [(i, 0) for i in range(20)]
    told = lake_spark.receipt(table.uri)
    assert (told.version, told.inserted, told.deleted) == (3, 20, 20)
    other = session.range(3).selectExpr("id", "'x' AS letter")
    with pytest.raises(InvalidInput, match="no columns.*letter"), lake_spark.errors():
        save(other, table, "overwrite")
    save(other, table, "overwrite", overwrite_schema="true", key="id")
    assert Schema.decode(open_head(table).schema) == Schema([Column("id", int), Column("letter", str)], key="id")
    assert rows(load(session, table), "id", "letter") == [(i, "x") for i in range(3)]
    with pytest.raises(InvalidInput, match="needs .mode"), lake_spark.errors():
        save(other, table, overwrite_schema="true")


def test_merge_by_key(session: SparkSession, root: Location) -> None:
    table = make(root)
    for mode, n, start in (("upsert", 1, 15), ("insert", 2, 15), ("update", 3, 24)):
        save(numbers(session, start, start + 10, n), table, merge=mode, commit_id=mode)
    told = [lake_spark.receipt(table.uri, mode, table.options) for mode in ("upsert", "update")]
    assert [(r.inserted, r.updated, r.deleted) for r in told] == [(5, 5, 0), (0, 1, 0)]
    expected = dict.fromkeys(range(15), 0) | dict.fromkeys(range(15, 25), 1) | {24: 3}
    assert content(table) == sorted(expected.items())
    save(numbers(session, 0, 20, 9), table, merge="upsert", commit_id="upsert")  # submitted again
    assert content(table) == sorted(expected.items())
    assert not [name for name in Files(root).names() if name.startswith("_jobs/")]
    partial = session.range(3).selectExpr("id")
    save(partial, table, merge="upsert")
    assert content(table) == sorted(expected.items())


def test_a_merge_that_is_refused_leaves_nothing(session: SparkSession, tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    before = set(Files(Location.of(tmp_path)).names())
    cases = {
        "appear more than once": numbers(session, 0, 5).union(numbers(session, 0, 5)),
        "'id', row 0: null": session.createDataFrame([(None, 1)], "id long, n long"),
        "lacks": session.createDataFrame([(1,)], "n long"),
    }
    for told, frame in cases.items():
        with pytest.raises(InvalidInput, match=told), lake_spark.errors():
            save(frame, table, merge="upsert")
    with pytest.raises(InvalidInput, match="give one of upsert, insert, update"), lake_spark.errors():
        save(numbers(session, 0, 5), table, merge="upset")
    with pytest.raises(InvalidInput, match="not with 'overwrite'"), lake_spark.errors():
        save(numbers(session, 0, 5), table, "overwrite", merge="upsert")
    assert set(Files(Location.of(tmp_path)).names()) == before


def test_a_bad_row_is_named_and_nothing_is_written(session: SparkSession, tmp_path: Path) -> None:
    table = Location.of(tmp_path / "w.lance")
    write.create_table(table, WIDE, wide(range(3)))
    files = data_files(table)
    good = [(i, "x", [1.0, 2.0, 3.0, 4.0]) for i in range(50)]
    cases: dict[str, Any] = {
        "column 'v', row 50: NaN": [1.0, float("nan"), 0.0, 0.0],
        "column 'v', row 50: the vector has 3 dimensions, not 4": [1.0, 2.0, 3.0],
        "column 'v', row 50: a zero vector": [0.0] * 4,
    }
    for told, vector in cases.items():
        frame = session.createDataFrame([*good, (50, "x", vector), *good], "id long, name string, v array<float>")
        with pytest.raises(InvalidInput, match=told), lake_spark.errors():
            save(frame.coalesce(1), table)
    with pytest.raises(InvalidInput, match=r"no columns \['x'\]"), lake_spark.errors():
        save(session.range(3).selectExpr("id", "1 AS x"), table)
    assert open_head(table).version == 1
    assert data_files(table) == files


def test_columns_that_change_meanwhile_are_a_conflict(tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    files = data_files(table)
    begun = begin(table, None, "append")
    parts = [begun.part(pairs([90 + i])) for i in range(3)]
    columns.add_columns(table, None, {"more": int})
    with pytest.raises(Conflict, match="columns were changed"):
        finish(begun, parts)
    assert data_files(table) == files
    assert len(content(table)) == 20


def test_two_creators_at_once(tmp_path: Path) -> None:
    table = Location.of(tmp_path / "t.lance")
    first, second = begin(table, None, "create", SCHEMA), begin(table, None, "create", SCHEMA)
    parts = [[one.part(pairs([at]))] for at, one in enumerate((first, second))]
    finish(second, parts[1])
    with pytest.raises(AlreadyExists):
        finish(first, parts[0])
    assert content(table) == [(1, 0)]
    assert len(data_files(table)) == 1
    with pytest.raises(AlreadyExists):
        begin(table, None, "create", SCHEMA)


def test_abort_removes_files_only_before_the_commit(tmp_path: Path) -> None:
    """Spark calls abort after a commit that failed, too, even if it took effect: then all messages are there."""
    table = make(Location.of(tmp_path))
    begun = begin(table, None, "append")
    parts = [begun.part(pairs([50])), begun.part(pairs([51]))]
    messages = [Written(part) for part in parts]
    writer = LakeWriter(begun)
    writer.commit([*messages])
    writer.abort([*messages])
    assert len(content(table)) == 22
    lost = begun.part(pairs([52]))
    before = data_files(table)
    writer.abort([Written(lost), None])
    assert before - data_files(table) == {f"data/{f.path}" for fragment in lost.fragments for f in fragment.files}


PROGRAM = """
import json, sys, time
from pyspark import TaskContext
from pyspark.sql import SparkSession
import lake_spark
from lake_spark.sealed import Sealed
from lake_spark.source import LakeSource
from lake_spark.write import LakeWriter

class Flaky(LakeWriter):
    def write(self, iterator):
        task = TaskContext.get()
        done = super().write(iterator)
        if task.partitionId() == 0 and task.attemptNumber() == 0:
            raise RuntimeError("the network broke after the upload")
        if task.partitionId() == 5 and task.attemptNumber() == 0:
            time.sleep(240)  # a straggler, which ends when its second attempt has won
        return done

class Source(LakeSource):
    @classmethod
    def name(cls):
        return "flaky"
    def writer(self, schema, overwrite):
        return Flaky(super().writer(schema, overwrite)._write)

uri, options = sys.argv[1], json.loads(sys.argv[2])
spark = SparkSession.builder.getOrCreate()
lake_spark.register(spark, options)
Source.storage = Sealed(options)
spark.dataSource.register(Source)
rows = spark.range(0, 600, 1, 6).selectExpr("id", "1L AS n")
rows.write.format("flaky").mode("append").option("commit_id", "job").save(uri)
print("counted", spark.read.format("lake").load(uri).count())
spark.stop()
"""

SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.minTaskRuntime": "100ms",
    "spark.task.maxFailures": "4",
}


@pytest.mark.s3
def test_tasks_that_fail_and_tasks_that_run_twice_on_a_cluster(
    spark_cluster: Cluster, bucket: Location, tmp_path: Path
) -> None:
    table = make(bucket)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    job = submit(spark_cluster.url, program, table.uri, json.dumps(dict(table.options)), conf=SPECULATION)
    out, log = job.communicate(timeout=250)
    assert job.returncode == 0, log[-5000:]
    assert "counted 620" in out
    assert SECRET not in log
    assert content(table) == sorted([(i, 0) for i in range(20)] + [(i, 1) for i in range(600)])
    assert [v.commit_id for v in history.versions(table, None)].count("job") == 1
    named = {f"data/{file.path}" for f in open_head(table).get_fragments() for file in f.metadata.files}
    assert len(data_files(table) - named) >= 2  # what the two lost attempts left, that no version names

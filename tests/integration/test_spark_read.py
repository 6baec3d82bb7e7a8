"""Spark reads tables: every type, chosen columns and rows, one version, in parallel."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql.datasource import DataSource, DataSourceReader, EqualTo, Filter, InputPartition
from pyspark.sql.types import ArrayType, FloatType, StructType

import lake_spark
from lake.errors import InvalidInput, NotFound
from lake.schema import Column, Embedding, Schema, points
from lake.storage import Location
from lake.table import history, rows, write
from lake.table.snapshot import Snapshot
from lake_spark import read
from lake_spark.source import LakeReader
from lake_spark.types import arrow_schema, spark_schema
from tests.support.s3 import SECRET
from tests.support.sparklake import load
from tests.support.sparklake import rows as collected
from tests.support.tables import WIDE, content, make, pairs, wide

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(spark: SparkSession) -> SparkSession:
    lake_spark.register(spark)
    return spark


def test_all_rows_of_a_table_on_disk_and_on_s3(session: SparkSession, root: Location) -> None:
    table = root.join("w.lance")
    given = wide(range(30))
    write.create_table(table, WIDE, given)
    frame = load(session, table)
    assert frame.schema["v"].dataType == ArrayType(FloatType())
    assert frame.schema["v"].metadata["dimension"] == 4
    assert not frame.schema["id"].nullable
    expected = zip(given["id"], given["name"], given["v"].tolist(), strict=True)
    assert collected(frame, "id", "name", "v") == sorted(expected)


UTC = dt.UTC
MOMENT = dt.datetime.fromisoformat("2026-01-02T03:00:00")
TYPES: list[tuple[str, Column, list[Any], list[Any]]] = [
    ("int8", Column("c", pa.int8()), [-1, None], [-1, None]),
    ("uint8", Column("c", pa.uint8()), [255, None], [255, None]),
    ("uint16", Column("c", pa.uint16()), [65535], [65535]),
    ("uint32", Column("c", pa.uint32()), [2**32 - 1], [2**32 - 1]),
    ("uint64", Column("c", pa.uint64()), [2**64 - 1], [decimal.Decimal(2**64 - 1)]),
    ("half", Column("c", pa.float16()), [np.float16(0.5)], [0.5]),
    ("double", Column("c", pa.float64()), [0.1, None], [0.1, None]),
    ("bool", Column("c", bool), [True, None], [True, None]),
    ("text", Column("c", str), ["ä", "", None], ["ä", "", None]),
    ("large text", Column("c", pa.large_string()), ["ä"], ["ä"]),
    ("binary", Column("c", pa.binary()), [b"\x00\xff", None], [b"\x00\xff", None]),
    ("fixed binary", Column("c", pa.binary(2)), [b"ab"], [b"ab"]),
    ("blob", Column("c", bytes, "blob"), [b"blob"], [b"blob"]),
    ("date", Column("c", dt.date), [dt.date(2026, 2, 3)], [dt.date(2026, 2, 3)]),
    ("time of day", Column("c", dt.time), [dt.time(3, 4, 5, 6)], [dt.time(3, 4, 5, 6)]),
    ("duration", Column("c", dt.timedelta), [dt.timedelta(days=1, microseconds=3)], [dt.timedelta(1, 0, 3)]),
    ("local time", Column("c", pa.timestamp("ms")), [MOMENT], [MOMENT]),
    ("decimal", Column("c", pa.decimal128(10, 2)), [decimal.Decimal("1.25")], [decimal.Decimal("1.25")]),
    ("category", Column("c", pa.dictionary(pa.int8(), pa.string())), ["a", "b", "a"], ["a", "b", "a"]),
    ("tags", Column("c", pa.list_(pa.string())), [["x", "y"], [], None], [["x", "y"], [], None]),
    ("json", Column("c", dict), ['{"a": 1}', None], ['{"a":1}', None]),
    ("struct", Column("c", pa.struct([("a", pa.int32())])), [{"a": 1}, None], [{"a": 1}, None]),
    ("half vector", Column("c", pa.list_(pa.float16(), 2)), [np.array([1, 2], np.float16), None], [[1.0, 2.0], None]),
    ("binary vector", Column("c", pa.list_(pa.uint8(), 2)), [[1, 255]], [[1, 255]]),
    ("multi-vector", Column("c", pa.list_(pa.list_(pa.float32(), 2))), [[[1, 2], [3, 4]], []], [[[1, 2], [3, 4]], []]),
    ("null vectors", Column("c", Embedding(2)), [None, [1, 2], None, [3, 4]], [None, [1, 2], None, [3, 4]]),
]


@pytest.mark.parametrize(("column", "given", "expected"), [c[1:] for c in TYPES], ids=[c[0] for c in TYPES])
def test_each_type_in_the_worker(tmp_path: Any, column: Column, given: list[Any], expected: list[Any]) -> None:
    _, batches = read_here(Location.of(tmp_path / "t.lance"), column, given)
    assert [plain(v) for batch in batches for v in batch.column("c").to_pylist()] == expected


def test_every_type_at_once_through_spark(session: SparkSession, tmp_path: Any) -> None:
    """Spark takes the very batches, null or not, and gives Python the values back."""
    columns = [Column("id", int)]
    data: dict[str, Any] = {"id": [0]}
    for at, (_, column, given, _) in enumerate(TYPES):
        columns.append(Column(f"c{at}", column.type, column.role, embedding=column.embedding))
        data[f"c{at}"] = pa.array(given[:1], storage(column))
    table = Location.of(tmp_path / "t.lance")
    write.create_table(table, Schema(columns, key="id"), data)
    (found,) = load(session, table).collect()
    for at, (name, _, _, expected) in enumerate(TYPES):
        value = found[f"c{at}"]
        assert plain(value.asDict() if hasattr(value, "asDict") else value) == expected[0], name


def test_points_and_moments(session: SparkSession, tmp_path: Any) -> None:
    table = Location.of(tmp_path / "t.lance")
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    schema = Schema([Column("id", int), Column("at", dt.datetime), Column("p", points([1], [2]).type, "geo")], key="id")
    write.create_table(table, schema, pa.table({"id": [0], "at": [moment], "p": points([8.5], [47.4])}))
    frame = load(session, table).selectExpr("unix_micros(at) AS at", "p.x", "p.y")
    assert collected(frame, "at", "x", "y") == [(int(moment.timestamp()) * 10**6 + 6, 8.5, 47.4)]


def test_what_spark_cannot_hold_is_refused_by_name(session: SparkSession, tmp_path: Any) -> None:
    table = Location.of(tmp_path / "t.lance")
    columns = [Column("id", int), Column("wide", pa.decimal256(60, 2)), Column("fine", pa.timestamp("ns"))]
    data = {"id": [0], "wide": pa.array([1], pa.decimal256(60, 2)), "fine": pa.array([1], pa.timestamp("ns"))}
    write.create_table(table, Schema(columns, key="id"), data)
    with lake_spark.errors(), pytest.raises(InvalidInput, match=r"'wide'.*38 digits.*leave the column out"):
        raise_as_lake(lambda: load(session, table))
    with pytest.raises(InvalidInput, match="'fine'.*without loss"):
        raise_as_lake(lambda: load(session, table, columns="fine").collect())
    assert load(session, table, columns="id").collect() == [(0,)]


def test_chosen_columns_and_rows(session: SparkSession, tmp_path: Any) -> None:
    table = Location.of(tmp_path / "w.lance")
    write.create_table(table, WIDE, wide(range(100)))
    frame = load(session, table, columns="name, id", filter="id % 10 = 3 AND name != 'n13'")
    assert frame.columns == ["name", "id"]
    assert collected(frame, "id", "name") == [(i, f"n{i}") for i in range(3, 100, 10) if i != 13]
    assert load(session, table, columns='["name"]', filter="id < 3").columns == ["name"]
    typed = session.read.format("lake").schema("name string, id int").load(table.uri)
    assert typed.schema.simpleString() == "struct<name:string,id:int>"
    assert collected(typed.where("id > 97"), "id", "name") == [(98, "n98"), (99, "n99")]


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"colums": "id"}, InvalidInput, "no option 'colums' here; did you mean 'columns'"),
        ({"columns": "nmae"}, NotFound, "'nmae'.*'name'"),
        ({"columns": " ,"}, InvalidInput, "at least one"),
        ({"filter": "id = 1; drop table x"}, InvalidInput, "it ends at ';'"),
        ({"filter": "nmae = 'x'"}, InvalidInput, "nmae"),
        ({"version": "99"}, NotFound, "version 99 does not exist"),
        ({"version": "x"}, InvalidInput, "whole number"),
        ({"version": "1", "tag": "a"}, InvalidInput, "give one"),
        ({"tag": "nope"}, NotFound, "no tag 'nope'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_told_before_anything_is_read(
    session: SparkSession, tmp_path: Any, options: dict[str, str], error: type[Exception], told: str
) -> None:
    table = Location.of(tmp_path / "w.lance")
    write.create_table(table, WIDE, wide(range(3)))
    with pytest.raises(error, match=told):
        raise_as_lake(lambda: load(session, table, **options).collect())


def test_a_plan_imports_little() -> None:
    """Spark plans each query in a fresh process."""
    heavy = ("lance", "pandas", "pyarrow", "numpy")
    program = f"import sys, lake_spark.source; assert not [m for m in {heavy} if m in sys.modules]"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_frame_stays_on_its_version(session: SparkSession, tmp_path: Any) -> None:
    table = make(Location.of(tmp_path))
    history.tag(Snapshot(table, 1), "first")
    history.create_branch(Snapshot(table, 2), "side")
    frame = load(session, table)
    assert frame.count() == 20
    write.append(table, None, pairs([20]))
    write.append(table, "side", pairs([90, 91]))
    rows.delete(table, None, "id < 5")
    assert frame.count() == 20
    assert frame.join(frame, "id").count() == 20
    assert load(session, table).count() == 16
    assert [load(session, table, version=str(v)).count() for v in (1, 2, 3)] == [10, 20, 21]
    assert load(session, table, tag="first").count() == 10
    assert load(session, table, branch="side").count() == 22
    times = [v.time for v in history.versions(table, None)]
    assert load(session, table, time=times[1].isoformat()).count() == 21
    table_of_numbers = collected(load(session, table), "id", "n")
    assert table_of_numbers == content(table)


def test_a_scan_is_cut_into_even_pieces(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Location.of(tmp_path / "t.lance")
    schema = Schema([Column("id", int)], key="id")
    write.create_table(table, schema, {"id": range(1000)})
    for start in range(1000, 1100, 10):
        write.append(table, None, {"id": range(start, start + 10)})
    rows.delete(table, None, "id % 7 = 0")
    alive = [i for i in range(1100) if i % 7]
    monkeypatch.setattr(read, "PIECE_BYTES", 8 * 100)
    for where in (None, "id > 500"):
        scan = read.Scan.of(Snapshot(table, 12), ["id"], where)
        described = spark_schema(schema)
        per_piece = [[i for b in scan.read(p, described) for i in b.column("id").to_pylist()] for p in scan.pieces()]
        assert sorted(i for ids in per_piece for i in ids) == [i for i in alive if where is None or i > 500]
        if where is None:
            assert max(map(len, per_piece)) <= 100
            assert len(per_piece) == 10  # nine of the large fragment, and the ten small ones together


class _Numbers(DataSource):
    """Ids 0-9; a filter on them is pushed down as Spark documents it."""

    @classmethod
    def name(cls) -> str:
        return "numbers"

    def schema(self) -> str:
        return "id bigint"

    def reader(self, schema: StructType) -> DataSourceReader:
        class Reader(DataSourceReader):
            def __init__(self) -> None:
                self.only: list[Any] = []

            def pushFilters(self, filters: list[Filter]) -> Iterator[Filter]:  # noqa: N802
                for one in filters:
                    if isinstance(one, EqualTo):
                        self.only.append(one.value)
                    else:
                        yield one

            def read(self, partition: InputPartition) -> Iterator[tuple[int]]:
                yield from ((i,) for i in range(10) if all(i == value for value in self.only))

        return Reader()


def test_spark_leaks_pushed_filters_between_plans(session: SparkSession) -> None:
    """Why we push none down. When this fails, Spark has been mended."""
    switch = "spark.sql.python.filterPushdown.enabled"
    session.conf.set(switch, "true")
    try:
        session.dataSource.register(_Numbers)
        frame = session.read.format("numbers").load()
        assert frame.count() == 10
        assert frame.where("id = 3").count() == 1
        assert frame.count() == 1, "10 would be right"
    finally:
        session.conf.unset(switch)
    assert "pushFilters" not in vars(LakeReader)


@pytest.mark.s3
def test_no_secret_is_in_plans_and_errors(session: SparkSession, bucket: Location) -> None:
    table = make(bucket)
    frame = load(session, table)
    frame.createOrReplaceTempView("secretive")
    explained = session.sql("EXPLAIN EXTENDED SELECT id FROM secretive WHERE n = 0").collect()[0][0]
    lake_spark.register(session, table.options)
    try:
        plain_read = session.read.format("lake").load(table.uri)
        assert plain_read.count() == 20
        with pytest.raises(Exception, match="version 77") as failed:
            load(session, table, version="77").count()
        told = [explained, str(failed.value), repr(failed.value), repr(frame), repr(plain_read)]
        told += [session.sql("EXPLAIN COST SELECT * FROM secretive").collect()[0][0]]
        java = session._jsparkSession
        listed = java.sharedState().statusStore().executionsList()
        for at in range(listed.size()):
            told += [listed.apply(at).physicalPlanDescription(), listed.apply(at).details()]
            told.append(listed.apply(at).modifiedConfigs().toString())
    finally:
        lake_spark.register(session)
    assert listed.size() > 2
    assert SECRET not in "".join(told)


def read_here(table: Location, column: Column, values: list[Any]) -> tuple[StructType, list[pa.RecordBatch]]:
    schema = Schema([Column("id", int), column], key="id")
    write.create_table(table, schema, {"id": range(len(values)), "c": pa.array(values, storage(column))})
    described = spark_schema(schema)
    scan = read.Scan.of(Snapshot(table, 1), described.names)
    batches = [batch for piece in scan.pieces() for batch in scan.read(piece, described)]
    assert {batch.schema for batch in batches} == {arrow_schema(described)}
    return described, batches


def storage(column: Column) -> pa.DataType:
    return column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type


def plain(value: Any) -> Any:
    if isinstance(value, bytearray):
        return bytes(value)
    return value


def raise_as_lake(act: Any) -> None:
    with lake_spark.errors():
        act()

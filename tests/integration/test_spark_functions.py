"""Searches and distances in Spark's SQL, against numpy; and all of it through Spark Connect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import lake
import lake_spark
from lake.errors import InvalidInput, NotFound
from lake.schema import Column, Embedding, Schema
from lake.storage import Location
from lake.table import write
from lake_spark.distance import FUNCTIONS
from tests.support.s3 import SECRET
from tests.support.spark import remote
from tests.support.sparklake import load, rows, save
from tests.support.tables import WIDE, content, make, wide

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow

WORDS = ["red apple", "green apple pie", "red car", "blue sky"]
SCHEMA = Schema([Column("id", int), Column("words", str), Column("v", Embedding(4, metric="cosine"))], key="id")
VECTORS = np.random.default_rng(7).standard_normal((40, 4)).astype(np.float32)
ROWS = {"id": range(40), "words": [WORDS[i % 4] for i in range(40)], "v": VECTORS}


@pytest.fixture(scope="module")
def session(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    lake_spark.register(spark)
    yield spark
    spark.catalog.dropTempView("queries")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = lake.connect(tmp_path_factory.mktemp("lake")).create_table("t", SCHEMA, data=ROWS)
    made.create_index("words", "text")
    made.build()
    return made.uri


def nearest(query: Any, k: int, metric: str = "cosine") -> list[tuple[int, float]]:
    """Return ids and distances, from numpy."""
    q = np.asarray(query, np.float64)
    x = VECTORS.astype(np.float64)
    distances = {
        "cosine": 1 - x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q),
        "l2": ((x - q) ** 2).sum(axis=1),
        "dot": 1 - x @ q,
    }[metric]
    return [(int(i), float(distances[i])) for i in np.argsort(distances)[:k]]


def array(values: Any) -> str:
    return "array(" + ", ".join(repr(float(v)) for v in values) + ")"


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_vector_search(session: SparkSession, table: str, metric: str) -> None:
    query = [0.5, -1.25, 0.75, 2.0]
    sql = f"SELECT id, _distance FROM vector_search('{table}', {array(query)}, 5, metric => '{metric}')"
    found = session.sql(sql).collect()
    expected = nearest(query, 5, metric)
    assert [row.id for row in found] == [i for i, _ in expected]
    assert [row._distance for row in found] == pytest.approx([d for _, d in expected], abs=1e-5)


def test_columns_filter_and_names_of_arguments(session: SparkSession, table: str) -> None:
    frame = session.sql(f"SELECT * FROM vector_search('{table}', {array([1, 0, 0, 0])})")
    assert frame.columns == ["id", "words", "_distance"]
    assert frame.count() == 10
    sql = f"""SELECT * FROM vector_search(table => '{table}', query => {array([1, 0, 0, 0])}, k => 3,
        columns => array('v'), where => "words = 'red car'")"""
    found = session.sql(sql)
    assert found.columns == ["id", "v", "_distance"]
    assert found.schema["v"].metadata["dimension"] == 4
    expected = [i for i, _ in nearest([1, 0, 0, 0], 40) if i % 4 == 2][:3]
    assert [row.id for row in found.collect()] == expected
    assert [row.v for row in found.collect()] == [VECTORS[i].tolist() for i in expected]


def test_text_and_hybrid_search(session: SparkSession, table: str) -> None:
    text = session.sql(f"SELECT * FROM text_search('{table}', 'apple', 30, text_columns => array('words'))")
    assert text.columns == ["id", "words", "_score"]
    found = text.collect()
    assert {row.id for row in found} == {i for i in range(40) if i % 4 < 2}
    assert all(row._score > 0 for row in found)
    hybrid = f"hybrid_search('{table}', {array(VECTORS[5])}, 'apple pie', 4, text_columns => array('words'))"
    best = session.sql(f"SELECT * FROM {hybrid}").collect()
    assert best[0].id == 5  # first of both rankings
    assert best[0]._distance == pytest.approx(0, abs=1e-6)
    assert [row._relevance_score for row in best] == sorted((row._relevance_score for row in best), reverse=True)


def test_lateral_joins_search_for_each_row(session: SparkSession, table: str) -> None:
    queries = [(i, VECTORS[i].tolist(), i % 3 + 1) for i in range(0, 40, 5)] + [(99, None, 2)]
    frame = session.createDataFrame(queries, "qid long, q array<float>, k int").repartition(3)
    frame.createOrReplaceTempView("queries")
    lateral = f"queries, LATERAL vector_search('{table}', q, k, columns => array())"
    found = [tuple(row) for row in session.sql(f"SELECT qid, id FROM {lateral} ORDER BY qid, _distance").collect()]
    assert found == [(i, near) for i, q, k in queries if q is not None for near, _ in nearest(q, k)]
    words = session.createDataFrame([("sky",), ("nothing",), (None,)], "w string")
    words.createOrReplaceTempView("queries")
    lateral = f"queries, LATERAL text_search('{table}', w, 50, text_columns => array('words'))"
    assert rows(session.sql(f"SELECT w, count(*) AS n FROM {lateral} GROUP BY w"), "w", "n") == [("sky", 10)]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ("vector_search('{}/none.lance', array(1.0), 1)", NotFound, "no table"),
        ("vector_search('{}', array(1.0, 2.0), 1)", InvalidInput, "4"),
        ("vector_search('{}', array(1.0, 2.0, NULL, 4.0), 1)", InvalidInput, "no vector"),
        ("vector_search('{}', array(1.0, 2.0, 3.0, 4.0), 0)", InvalidInput, "k=0"),
        ("vector_search('{}', array(1.0, 2.0, 3.0, 4.0), 1, wher => 'id = 1')", InvalidInput, "did you mean 'where'"),
        ("vector_search('{}', array(1.0, 2.0, 3.0, 4.0), 1, columns => array('x'))", NotFound, "'x'"),
        ("vector_search('{}')", InvalidInput, "needs query"),
        ("vector_search('{}', array(1.0, 2.0, 3.0, 4.0), 1, 'id = 1')", InvalidInput, "name what comes after"),
        ("vector_search('{}', array(1.0, 2.0, 3.0, 4.0), 1, where => 'id = 1; x')", InvalidInput, "ends at ';'"),
        ("text_search('{}', 'apple', 1, version => 77)", NotFound, "version 77"),
    ],
)
def test_wrong_calls_are_told(session: SparkSession, table: str, call: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told), lake_spark.errors():
        session.sql(f"SELECT * FROM {call.format(table)}").collect()


def test_distances_of_columns(session: SparkSession, table: str) -> None:
    query = [0.5, -1.25, 0.75, 2.0]
    frame = session.read.format("lake").load(table)
    for metric in FUNCTIONS:
        found = dict(rows(frame.selectExpr("id", f"{metric}(v, {array(query)}) AS d"), "id", "d"))
        assert found == pytest.approx(dict(nearest(query, 40, metric)), abs=1e-6)
    with pytest.raises(InvalidInput, match="vectors of 4 and 2 elements"), lake_spark.errors():
        frame.selectExpr("l2(v, array(1.0, 2.0))").collect()


def test_nulls_have_no_distance() -> None:
    left = pa.array([None, [1.0, 0.0], [0.0, 0.0], [1.0, None], [3.0], []], pa.list_(pa.float32()))
    right = pa.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0], []], pa.list_(pa.float64()))
    assert FUNCTIONS["l2"](left, right).to_pylist() == [None, 5.0, 1.0, None, 4.0, 0.0]
    assert FUNCTIONS["dot"](left, right).to_pylist() == [None, 1.0, 1.0, None, -2.0, 1.0]
    assert FUNCTIONS["cosine"](left, right).to_pylist() == [None, 1.0, None, None, 0.0, None]
    assert FUNCTIONS["l2"](left.slice(1, 1), right.slice(1, 1)).to_pylist() == [5.0]
    nothing = pa.nulls(2, left.type)
    assert FUNCTIONS["cosine"](nothing, nothing).to_pylist() == [None, None]


@pytest.mark.s3
def test_all_of_it_through_spark_connect(spark_connect: str, bucket: Location, tmp_path: Path) -> None:
    numbers, words = make(bucket), bucket.join("w.lance")
    write.create_table(words, WIDE, wide(range(20)))
    with remote(spark_connect) as session:
        lake_spark.register(session, numbers.options)
        plain = Location.of(numbers.uri)
        save(session.range(20, 30).selectExpr("id", "1L AS n"), plain, commit_id="more")
        save(session.range(0, 5).selectExpr("id", "2L AS n"), plain, merge="upsert")
        assert rows(load(session, plain), "id", "n") == content(numbers)
        assert content(numbers)[:1] + content(numbers)[-1:] == [(0, 2), (29, 1)]
        query = array(wide(range(20))["v"][3])
        found = session.sql(f"SELECT * FROM vector_search('{words.uri}', {query}, 1)").collect()
        assert [row.id for row in found] == [3]
        near = load(session, Location.of(words.uri)).selectExpr("id", f"cosine(v, {query}) AS d").orderBy("d")
        assert near.first().id == 3  # type: ignore[union-attr]
        with pytest.raises(InvalidInput, match="no option 'colums'") as refused, lake_spark.errors():
            load(session, plain, colums="id").count()
        assert SECRET not in str(refused.value) + str(refused.value.__cause__)
    assert lake_spark.receipt(numbers.uri, "more", numbers.options).inserted == 10

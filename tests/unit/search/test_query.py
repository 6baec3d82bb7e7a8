"""What is refused, and filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lake.errors import InvalidInput, LakeError, NotFound
from lake.schema import Column, Embedding, Schema
from lake.search import Query, batches, explain, search
from lake.table.snapshot import Snapshot
from lake.table.sql import literal, whole
from tests.unit.search.conftest import DIMENSION, ROWS, snapshot, vectors, write

Q = np.ones(DIMENSION)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "nothing to look for"),
        ({"vector": Q, "k": 0}, "k=0"),
        ({"vector": Q, "k": 2.5}, "k=2.5"),
        ({"vector": Q, "k": True}, "k=True"),
        ({"vector": Q, "offset": -1}, "offset=-1"),
        ({"vector": Q, "nprobe": 0}, "nprobe=0"),
        ({"vector": Q, "like": 1}, "leave one out"),
        ({"text": "x", "within": 1.0}, "needs vector="),
        ({"vector": Q, "recall": 0}, "recall=0: give a share"),
        ({"vector": Q, "recall": 1.1}, "recall=1.1: give a share"),
        ({"vector": Q, "recall": "0.9"}, "recall='0.9': give a share"),
        ({"vector": Q, "recall": float("nan")}, "recall=nan: give a share"),
        ({"text": "x", "recall": 0.9}, "needs vector="),
        ({"vector": Q, "recall": 0.9, "nprobe": 4}, "leave out nprobe="),
        ({"vector": Q, "recall": 0.9, "refine": 4}, "leave out nprobe="),
        ({"vector": Q, "recall": 0.9, "ef": 40}, "leave out nprobe="),
        ({"vector": Q, "within": float("nan")}, "within"),
        ({"vector": Q, "within": (2.0, 1.0)}, "low < high"),
        ({"where": "id > 1", "group_by": "group"}, "ranking"),
        ({"vector": Q, "text": "x", "group_by": "group"}, "one ranking"),
        ({"vector": Q, "per_group": 2}, "needs group_by"),
        ({"vector": Q, "text": "x", "k": None}, "needs k="),
        ({"where": "id > 1", "indexed_only": True}, "indexed_only"),
        ({"vector": Q, "indexed_only": True, "use_index": False}, "use_index"),
        ({"vector": Q, "columns": "id"}, "give a list"),
    ],
)
def test_arguments(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        Query(**arguments)


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (np.ones(5), "5 elements"),
        (np.ones((2, 5)), "5 elements"),
        (np.ones((2, 2, DIMENSION)), "shape"),
        (np.ones((0, DIMENSION)), "no query"),
        (3.0, "shape"),
        ([1.0, [2.0]], "no array"),
        (["a"] * DIMENSION, "give numbers"),
        ([None] * DIMENSION, "give numbers"),
        (np.full(DIMENSION, np.nan), "NaN"),
        (np.full(DIMENSION, np.inf), "NaN"),
        (np.full(DIMENSION, 1e200), "NaN"),
    ],
)
def test_vectors(plain: Snapshot, vector: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        search(plain, Query(vector=vector))


def test_vector_columns(tmp_path: Path, plain: Snapshot) -> None:
    with pytest.raises(InvalidInput, match="zero vector"):
        search(plain, Query(vector=np.zeros(DIMENSION), metric="cosine"))
    with pytest.raises(InvalidInput, match="hamming"):
        search(plain, Query(vector=Q, metric="hamming"))
    with pytest.raises(InvalidInput, match="there are l2"):
        search(plain, Query(vector=Q, metric="euclid"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="role 'text'"):
        search(plain, Query(vector=Q, vector_column="text"))
    with pytest.raises(NotFound, match="did you mean 'emb'"):
        search(plain, Query(vector=Q, vector_column="Emb"))
    with pytest.raises(NotFound, match="did you mean 'rank'"):
        search(plain, Query(vector=Q, columns=["ranks"]))
    with pytest.raises(InvalidInput, match="twice"):
        search(plain, Query(vector=Q, columns=["id", "id"]))
    with pytest.raises(InvalidInput, match="no index answers"):
        search(plain, Query(vector=Q, indexed_only=True))

    data = pa.table(
        {
            "a": vectors(np.ones((3, 4), np.float16)),
            "b": vectors(np.ones((3, 4), np.uint8)),
            "c": vectors(np.ones((3, 4), np.int8)),
        }
    )
    several = snapshot(write(tmp_path / "t.lance", data))
    with pytest.raises(InvalidInput, match="a, b, c"):
        search(several, Query(vector=[1, 2, 3, 4]))
    with pytest.raises(InvalidInput, match="more than 65504"):
        search(several, Query(vector=[1, 2, 3, 70000], vector_column="a"))
    for column, bad in (("b", 256), ("b", -1), ("b", 1.5), ("c", 128)):
        with pytest.raises(InvalidInput, match=f"column '{column}'"):
            search(several, Query(vector=[1, 2, 3, bad], vector_column=column))
    none = snapshot(write(tmp_path / "n.lance", pa.table({"id": [1]})))
    with pytest.raises(InvalidInput, match="no vector column"):
        search(none, Query(vector=[1.0]))
    with pytest.raises(NotFound, match="no text index"):
        search(none, Query(text="x"))


@pytest.mark.parametrize(
    "where",
    [
        "",
        "  ",
        "id = 1; drop table t",
        "id = 1 limit 1",
        "id = 1 order by id",
        "id in (select id from t)",
        "exists (select 1)",
        "id = 1 union select 1",
        "id = 1) or (1 = 1",
        "(id = 1",
        "\"group\" = 'g1'",
        "nope = 1",
        "id",
        "id = 'abc'",
        "id / 0 = 1",
        "sleep(10) = 1",
        "read_parquet('/etc/passwd') is null",
        "\0",
        "id = 1 /*",
        3,
    ],
)
def test_hostile_filters_are_only_errors(plain: Snapshot, where: Any) -> None:
    for query in (Query(where=where), Query(vector=Q, where=where), Query(text="kernel", where=where)):
        with pytest.raises(InvalidInput) as caught:
            search(plain, query)
        assert "/home/" not in str(caught.value)
        assert repr(where) in str(caught.value) or "not a legal expression" in str(caught.value)
    assert plain.dataset.count_rows() == ROWS


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("text = 'it''s; (fine'", 0),
        ('text = "double \' quoted"', 0),
        ("`group` = 'g1' AND (rank < 10 OR rank > 5)", None),
        ("id IN (1, 2, 3)", 3),
        ("ID < 5", 5),
    ],
)
def test_legal_filters(plain: Snapshot, where: str, count: int | None) -> None:
    result = search(plain, Query(where=where, k=None))
    assert len(result) == (plain.dataset.count_rows(where) if count is None else count)


def test_literals() -> None:
    assert literal("it's") == "'it''s'"
    assert literal(np.float32(1.5)) == "1.5"
    assert literal(np.True_) == "true"
    with pytest.raises(InvalidInput, match="cannot be written"):
        literal(b"x")
    with pytest.raises(InvalidInput, match="cannot be written"):
        literal(float("nan"))
    assert whole("id = 1", ("id",)) == "(id = 1)"


def test_filter_only(plain: Snapshot, partial: Snapshot) -> None:
    result = search(plain, Query(where="id >= 10", k=3, offset=2, columns=["id", "rank"]))
    assert result.to_arrow()["id"].to_pylist() == [12, 13, 14]
    assert result.coverage.exact
    assert len(search(partial, Query(where="true", k=None))) == partial.dataset.count_rows()
    reader = batches(plain, Query(where="id < 2500", k=None, columns=["id"]))
    assert sum(batch.num_rows for batch in reader) == 2500
    assert batches(plain, Query(vector=Q, k=4)).read_all().num_rows == 4


def test_names_that_need_quoting(tmp_path: Path) -> None:
    names = ["My Key", "select", "ÜBER größe", "it's", 'say "hi"', "a-b", "Name", "My Text", "My Vec"]
    schema = Schema(
        [
            *(Column(n, int) for n in names[:-3]),
            Column("Name", str),
            Column("My Text", str),
            Column("My Vec", Embedding(4)),
        ]
    )
    data: dict[str, Any] = {n: np.arange(50) for n in names[:-3]}
    data |= {"Name": [f"n{i}" for i in range(50)], "My Text": ["a fox"] * 50}
    matrix = np.random.default_rng(2).standard_normal((50, 4)).astype(np.float32)
    dataset = write(tmp_path / "t.lance", pa.table(data | {"My Vec": vectors(matrix)}).cast(schema.to_arrow()))
    for build in (False, True):
        dataset.create_scalar_index("My Text", "INVERTED", train=build, replace=True)
        if build:
            dataset.create_index("My Vec", "IVF_FLAT", metric="l2", num_partitions=2)
        snap = snapshot(dataset)
        where = "`My Key` < 20 AND `select` >= 0 AND `it's` > -1 AND `Name` != 'x'"
        for query in (
            Query(vector=matrix[3], columns=names, where=where),
            Query(text="fox", columns=names, where=where),
            Query(vector=matrix[3], text="fox", columns=names, where=where),
            Query(vector=matrix[3], group_by="Name", columns=names, where=where),
            Query(vector=matrix[3], group_by="select", columns=names, where=where),
            Query(like={"Name": "n3", "My Key": 3}, columns=names),
            Query(where=where, columns=names),
        ):
            table = search(snap, query).to_arrow()
            assert table.column_names[: len(names)] == names
            assert table.num_rows == 10


def test_columns(plain: Snapshot) -> None:
    assert search(plain, Query(vector=Q)).to_arrow().column_names == [
        "id",
        "text",
        "group",
        "rank",
        "_distance",
    ]
    chosen = search(plain, Query(vector=Q, columns=["emb", "_distance", "_rowid"], k=2)).to_arrow()
    assert chosen.column_names == ["emb", "_rowid", "_distance"]
    assert search(plain, Query(vector=Q, columns=[], k=2)).to_arrow().column_names == ["_distance"]


def test_nothing_is_logged(partial: Snapshot, plain: Snapshot, capfd: pytest.CaptureFixture[str]) -> None:
    for snap in (partial, plain):
        for query in (
            Query(vector=Q),
            Query(vector=[Q, Q]),
            Query(vector=Q, metric="cosine"),
            Query(text="kernel"),
            Query(vector=Q, text="kernel"),
            Query(vector=Q, group_by="group"),
            Query(where="id = 1"),
        ):
            search(snap, query)
            explain(snap, query)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_errors_are_the_lakes(plain: Snapshot) -> None:
    with pytest.raises(LakeError):
        search(plain, Query(where="id = "))


@pytest.fixture
def scalars(tmp_path: Path) -> Snapshot:
    """Two thousand rows under scalar indexes, nulls among them, then 300 that no index covers."""
    n = 2300
    data = pa.table(
        {
            "id": np.arange(n),
            "g": [None if i % 3 == 0 else f"g{i % 7}" for i in range(n)],
            "x": pa.array([None if i % 5 == 0 else i % 50 for i in range(n)]),
            "free": np.arange(n) % 2,
        }
    )
    dataset = write(tmp_path / "t.lance", data.slice(0, 2000))
    dataset.create_scalar_index("g", "BTREE")
    dataset.create_scalar_index("x", "BITMAP")
    return snapshot(lance.write_dataset(data.slice(2000), dataset.uri, mode="append"))


@pytest.mark.parametrize(
    ("where", "indexes"),
    [
        ("x = 6", ["x_idx"]),
        ("g = 'g1' AND x > 3", ["g_idx", "x_idx"]),
        ("x = 6 AND free = 0", ["x_idx"]),
        ("x = 6 OR free = 0", []),
        ("free = 0", []),
        ("free = 0 OR g = ']@x_idx(Bitmap)'", []),
    ],
)
def test_a_filter_names_its_indexes(scalars: Snapshot, where: str, indexes: list[str]) -> None:
    query = Query(where=where, k=None)
    covered = search(scalars, query).coverage
    assert covered.parts[0].index == (", ".join(indexes) or None)
    assert (covered.rows_indexed, covered.rows_scanned) == ((2000, 300) if indexes else (0, 2300))
    assert (f"2,000 by index {', '.join(indexes)}" if indexes else "2,300 scanned") in str(covered)
    assert ("the rest of the filter" in str(covered)) == (bool(indexes) and "free" in where)
    explained = explain(scalars, query)
    assert any(all(name in step for name in indexes) and where in step for step in explained.steps)
    assert ("ScalarIndexQuery" in explained.lance[0]) == bool(indexes)


def test_a_filter_says_where_it_stopped(scalars: Snapshot) -> None:
    for query, stopped in (
        (Query(where="free = 0"), True),
        (Query(where="free = 0", k=10, offset=5), True),
        (Query(where="id < 9"), False),
        (Query(where="free = 0", k=None), False),
    ):
        result = search(scalars, query)
        assert ("stopped at k=10; more may match" in str(result.coverage)) == stopped
        assert (len(result) == 10) == stopped

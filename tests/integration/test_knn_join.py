"""kNN joins against brute force in numpy: every side, filter, condition and state of the index."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.join import Forecast, block
from lake.run import LocalExecutor
from lake.storage import Location
from lake.table.parts import PartedWrite

Matrix = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[lake.Table, dict[int, dict[str, Any]]], None]
DIMENSION = 12


def unit(x: Matrix) -> Matrix:
    scaled: Matrix = x / np.linalg.norm(x, axis=1, keepdims=True)
    return scaled


def distances(a: Matrix, b: Matrix, metric: str) -> Matrix:
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "cosine":
        a, b = unit(a), unit(b)
    products: Matrix = a @ b.T
    return 1 - products if metric != "l2" else (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * products


def make(
    lk: lake.Lake, name: str, rows: int, seed: int, metric: str = "l2"
) -> tuple[lake.Table, dict[int, dict[str, Any]]]:
    """Make a table in three fragments, and the same as a dict."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, DIMENSION)).astype(np.float32)
    data = {
        i: {"id": i, "group": f"g{i % 3}", "time": int(rng.integers(0, 100)), "vector": vectors[i]} for i in range(rows)
    }
    schema = lake.Schema(
        [
            lake.Column("id", int),
            lake.Column("group", str),
            lake.Column("time", int),
            lake.Column("vector", lake.Embedding(DIMENSION, metric=metric)),  # type: ignore[arg-type]
        ],
        key="id",
    )
    table = lk.create_table(name, schema)
    for part in np.array_split(np.arange(rows), 3):
        table.append(columns([data[int(i)] for i in part]))
    return table, data


def columns(rows: list[dict[str, Any]]) -> pa.Table:
    flat = pa.array(np.concatenate([row["vector"] for row in rows]))
    return pa.table(
        {name: [row[name] for row in rows] for name in ("id", "group", "time")}
        | {"vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION)}
    )


def check(
    found: pa.Table, left: list[dict[str, Any]], right: list[dict[str, Any]], k: int, metric: str, legal: Any = None
) -> float:
    """Check every row of a result, and return its recall."""
    truth = distances(np.stack([r["vector"] for r in left]), np.stack([r["vector"] for r in right]), metric)
    if legal is not None:
        truth = np.where([[legal(a, b) for b in right] for a in left], truth, np.inf)
    place = {row["id"]: at for at, row in enumerate(left)}, {row["id"]: at for at, row in enumerate(right)}
    by_left: dict[int, list[dict[str, Any]]] = {}
    for row in found.to_pylist():
        by_left.setdefault(row["left_id"], []).append(row)
    hits = wanted = 0
    for at, row in enumerate(left):
        mine = by_left.pop(row["id"], [])
        assert [r["rank"] for r in mine] == list(range(len(mine)))
        ids = [r["right_id"] for r in mine]
        assert len(set(ids)) == len(ids), "a row twice"
        real = [truth[at, place[1][i]] for i in ids]
        assert np.isfinite(real).all()
        np.testing.assert_allclose([r["distance"] for r in mine], real, atol=2e-5)
        assert real == sorted(real) or np.allclose(real, sorted(real), atol=1e-5)
        best = np.sort(truth[at][np.isfinite(truth[at])])[:k]
        wanted += len(best)
        hits += sum(d <= best[-1] + 1e-5 for d in real)
        assert len(mine) <= len(best)
    assert not by_left, "rows of the left side that are not there"
    return hits / wanted if wanted else 1.0


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("how", ["index", "sort", "all"])
def test_a_join_finds_the_nearest(root: Location, metric: str, how: str) -> None:
    lk = lake.connect(root.uri, root.options)
    left, a = make(lk, "left", 700, 1, metric)
    right, b = make(lk, "right", 1500, 2, metric)
    if how == "index":
        right.create_index("vector", "ivf_flat", partitions=20)
        right.build(executor=LocalExecutor(1))
    given: dict[str, Any] = {"recall": 1.0} if how == "all" else {"nprobe": 20}
    found = left.knn_join(right, 7, into="near", left_columns=["group"], right_columns=["time"], **given)
    rows = lk.open_table("near").to_arrow()
    assert check(rows, list(a.values()), list(b.values()), 7, metric) == 1.0
    assert found.report.read_bytes == 4 * DIMENSION * (700 + 1500 * found.report.tasks)
    assert rows.schema.names == ["left_id", "right_id", "rank", "distance", "left_group", "right_time"]
    assert all(r["left_group"] == a[r["left_id"]]["group"] for r in rows.to_pylist())
    assert all(r["right_time"] == b[r["right_id"]]["time"] for r in rows.to_pylist())
    assert found.report.pairs == len(rows) == 700 * 7
    assert found.report.compared == 700 * 1500
    few = left.knn_join(right, 7, nprobe=2)
    assert 0.2 < check(few.to_arrow(), list(a.values()), list(b.values()), 7, metric) < 1
    assert few.report.recall is not None
    assert few.report.recall.low <= few.report.recall.measured <= few.report.recall.high


def test_recall_is_what_was_asked_for(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 2000, 1)
    right, b = make(lk, "right", 6000, 2)
    for target in (0.6, 0.9, 0.99):
        found = left.knn_join(right, 10, recall=target)
        reached = check(found.to_arrow(), list(a.values()), list(b.values()), 10, "l2")
        recall = found.report.recall
        assert recall is not None
        assert recall.measured >= target
        assert recall.low - 0.02 <= reached <= recall.high + 0.02
        assert recall.probes < found.report.partitions or target == 0.99


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_number_of_probes_is_worth_is_measured(tmp_path: Any, workers: int) -> None:
    lk = lake.connect(tmp_path)
    (left, queries), (right, rows) = make(lk, "left", 200, 1), make(lk, "right", 900, 2)  # fewer than a sample
    right.create_index("vector", "IVF_FLAT", metric="l2", partitions=12)
    right.build(on_event=lambda _: None)
    condition = ["left.group == right.group"]
    with LocalExecutor(workers) as executor:
        found = left.knn_join(right, 5, nprobe=2, on=condition, executor=executor)
    recall = found.report.recall
    assert recall is not None
    assert (recall.probes, recall.sample, found.report.partitions) == (2, 200, 12)
    mine = found.to_arrow().to_pylist()
    a, b = (np.stack([row["vector"] for row in side.values()]) for side in (queries, rows))
    apart = distances(a, b, "l2")
    apart[np.array([[q["group"] != r["group"] for r in rows.values()] for q in queries.values()])] = np.inf
    true = {(i, int(j)) for i, line in enumerate(apart) for j in np.argsort(line)[:5]}
    hits = len(true & {(row["left_id"], row["right_id"]) for row in mine})
    assert recall.measured == pytest.approx(hits / 1000)
    assert 0.3 < recall.measured < 1


def deleted(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    table.delete("id % 4 = 1")
    for i in [i for i in rows if i % 4 == 1]:
        del rows[i]


def updated(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    """Move rows far from where the index has them."""
    for i in range(0, 300, 2):
        rows[i] = rows[i] | {"vector": -3 * rows[i]["vector"]}
    table.merge(columns([rows[i] for i in range(0, 300, 2)]))


def grown(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    new = {
        i: rows[i - 1000] | {"id": i, "vector": rows[i - 1000]["vector"] * np.float32(0.9)} for i in range(1000, 1200)
    }
    rows |= new
    table.append(columns(list(new.values())))


def compacted(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    deleted(table, rows)
    updated_rows = list(rows)[:50]
    for i in updated_rows:
        rows[i] = rows[i] | {"vector": rows[i]["vector"][::-1].copy()}
    table.merge(columns([rows[i] for i in updated_rows]))
    table.compact(deleted=0.0)


def moved(table: lake.Table, rows: dict[int, dict[str, Any]], *, partly: bool = False) -> None:
    """Give half of a fragment other vectors, and let compaction bring them back among the indexed rows."""
    for i in range(150):
        rows[i] = rows[i] | {"vector": -3 * rows[i]["vector"]}
    new = columns([rows[i] for i in range(150)])
    table.merge(new.select(["id", "vector"]) if partly else new)
    table.compact(deleted=0.0)


def moved_partly(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    moved(table, rows, partly=True)


def moved_and_built(table: lake.Table, rows: dict[int, dict[str, Any]]) -> None:
    moved(table, rows)
    table.build(executor=LocalExecutor(1))


@pytest.mark.parametrize("change", [deleted, updated, grown, compacted, moved, moved_partly, moved_and_built])
def test_rows_that_changed_since_they_were_indexed_are_as_they_are_now(root: Location, change: Change) -> None:
    lk = lake.connect(root.uri, root.options)
    left, a = make(lk, "left", 60, 1)
    right, b = make(lk, "right", 900, 2)
    right.create_index("vector", "ivf_flat", partitions=8)
    right.build(executor=LocalExecutor(1))
    change(right, b)
    found = left.knn_join(right, 5, nprobe=8)
    assert found.report.source.startswith("index")
    assert check(found.to_arrow(), list(a.values()), list(b.values()), 5, "l2") == 1.0
    assert len(found.to_arrow()) == 300


@pytest.mark.parametrize("given", [{"recall": 1.0}, {"nprobe": 8}])
def test_filters_and_conditions_come_before_the_nearest(tmp_path: Any, given: dict[str, Any]) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 200, 1)
    right, b = make(lk, "right", 600, 2)
    right.create_index("vector", "ivf_flat", partitions=8)
    right.build(executor=LocalExecutor(1))
    some_a = [r for r in a.values() if r["time"] > 20]
    some_b = [r for r in b.values() if r["group"] != "g1"]
    filters: dict[str, Any] = {"left_where": "time > 20", "right_where": "`group` != 'g1'"}
    found = left.knn_join(right, 6, **filters, **given)
    assert check(found.to_arrow(), some_a, some_b, 6, "l2") == 1.0
    on = ["left.group = right.group", "left.time > right.time"]
    found = left.knn_join(right, 6, on=on, **filters, **given)
    legal = lambda x, y: x["group"] == y["group"] and x["time"] > y["time"]  # noqa: E731
    assert check(found.to_arrow(), some_a, some_b, 6, "l2", legal) == 1.0
    near = left.knn_join(right, 6, within=9.0, **given)
    assert 0 < len(near) < 1200
    assert max(near.to_arrow()["distance"].to_pylist()) < 9.0


def test_a_row_is_not_its_own_neighbour(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", 600, 1)
    for given in ({"recall": 1.0}, {"nprobe": 99}):
        found = table.knn_join(table, 3, **given).to_arrow()
        assert check(found, list(rows.values()), list(rows.values()), 3, "l2", lambda x, y: x["id"] != y["id"]) == 1.0
    selves = table.knn_join(table, 1, recall=1.0, apart=False).to_arrow()
    assert selves["left_id"].equals(selves["right_id"])


def test_ties_duplicates_and_more_neighbours_than_rows(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", 30, 1)
    same = np.ones(DIMENSION, np.float32)
    table.append(columns([rows[0] | {"id": i, "vector": same} for i in range(100, 120)]))
    found = lake.knn_join(same[None], table, 25, recall=1.0).to_arrow()
    assert found["right_id"].to_pylist()[:20] == list(range(100, 120)), "ties go to the row that came first"
    assert found["distance"].to_pylist()[:20] == [0.0] * 20
    everything = lake.knn_join(same[None], table, 1000, recall=1.0).to_arrow()
    assert sorted(everything["right_id"].to_pylist()) == sorted([*rows, *range(100, 120)])


def test_rows_without_a_vector_take_no_part(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", 40, 1)
    table.append(
        pa.table(
            {
                "id": [900, 901],
                "group": ["x", "y"],
                "time": [1, 2],
                "vector": pa.nulls(2, pa.list_(pa.float32(), DIMENSION)),
            }
        )
    )
    found = table.knn_join(table, 100, recall=1.0)
    assert found.report.without_vector == 2
    assert len(found.to_arrow()) == 40 * 39


def test_arrays_are_sides_too() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, 5)).astype(np.float32) for n in (800, 900))
    found = lake.knn_join(a, b, 4, recall=1.0)
    truth = np.argsort(distances(a, b, "l2"), axis=1)[:, :4]
    assert (found.to_arrow()["right_row"].to_numpy().reshape(-1, 4) == truth).mean() > 0.999
    assert found.to_arrow().schema.names == ["left_row", "right_row", "rank", "distance"]


def test_keys_of_any_name_and_tables_without_one(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 2)
    schema = lake.Schema([lake.Column("row_id", str), lake.Column("vector", lake.Embedding(2))], key="row_id")
    keyed = lk.create_table("keyed", schema, data=pa.table({"row_id": list("fedcba"), "vector": vectors}))
    found = keyed.knn_join(keyed, 1, recall=1.0).to_arrow().to_pylist()
    assert {(r["left_row_id"], r["right_row_id"]) for r in found} >= {("f", "e"), ("a", "b")}
    bare = lk.create_table("bare", pa.table({"vector": vectors}))
    found = bare.knn_join(keyed, 1, recall=1.0).to_arrow().to_pylist()
    assert [(r["left_row_id"], r["right_row_id"]) for r in found] == list(enumerate("fedcba"))


def test_sides_without_rows_have_no_neighbours(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", 700, 1)
    empty = lk.create_table("empty", table.schema)
    for left, right, given in (
        (table, empty, {"nprobe": 2}),
        (empty, table, {}),
        (table, table, {"right_where": "id < 0", "nprobe": 2}),
        (table, table, {"left_where": "id < 0"}),
    ):
        assert len(left.knn_join(right, 3, **given).to_arrow()) == 0


def test_a_column_of_a_data_frame_is_a_side(tmp_path: Any) -> None:
    right, b = make(lake.connect(tmp_path), "right", 60, 2)
    frame = right.to_arrow(["vector"]).to_pandas()
    found = lake.knn_join(frame["vector"], right, 1).to_arrow().sort_by("left_row")
    assert found["right_id"].to_pylist() == list(b)
    assert found["distance"].to_numpy().max() < 1e-5


@pytest.mark.parametrize("side", ["left_columns", "right_columns"])
def test_wide_columns_are_carried_in_small_batches(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    lk = lake.connect(tmp_path)
    ids, rng = np.arange(300), np.random.default_rng(0)
    held = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(300 * 8).astype(np.float32)), 8)
    table = lk.create_table("t", pa.table({"id": ids, "text": [f"{i}" * 1000 for i in ids], "v": held}), key="id")
    written: list[int] = []
    part = PartedWrite.part

    def seen(self: PartedWrite, data: Any, *more: Any) -> Any:
        batches = list(data)
        written.extend(batch.nbytes for batch in batches)
        return part(self, iter(batches), *more)

    monkeypatch.setattr(PartedWrite, "part", seen)
    monkeypatch.setattr(block, "_OUT_BYTES", 100_000)
    carried: dict[str, Any] = {side: ["text"]}
    found = table.knn_join(table, 5, executor=LocalExecutor(1), **carried).to_arrow()
    assert len(written) > 20
    assert max(written) < 200_000
    name, key = ("left_text", "left_id") if side == "left_columns" else ("right_text", "right_id")
    assert found[name].to_pylist() == [f"{i}" * 1000 for i in found[key].to_pylist()]
    assert found.num_rows == 1500


def test_an_index_of_which_only_rows_without_a_vector_are_left(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, _ = make(lk, "right", 700, 2)
    right.create_index("vector", "ivf_flat", partitions=3)
    right.build(executor=LocalExecutor(1))
    right.append(pa.table({"id": range(1000, 1700)}))
    right.delete("vector is not null")
    for nprobe in (None, 2):
        found = left.knn_join(right, 3, executor=LocalExecutor(1), nprobe=nprobe)
        assert len(found.to_arrow()) == 0
        assert found.report.left_rows == 700


def test_a_large_partition_is_read_in_pieces(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lake.join import partitions

    monkeypatch.setattr(partitions, "_GROUP_BYTES", 100 * DIMENSION * 4)
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 600, 1)
    right, b = make(lk, "right", 900, 2)
    right.create_index("vector", "ivf_flat", partitions=3)
    right.build(executor=LocalExecutor(1))
    right.delete("id % 7 = 1")
    some = [row for i, row in b.items() if i % 7 != 1]
    found = left.knn_join(right, 5, nprobe=3, executor=LocalExecutor(1))
    assert check(found.to_arrow(), list(a.values()), some, 5, "l2") == 1.0


def test_values_compare_as_they_are_whatever_their_types(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8, np.float32)), 2)
    values = {
        "a": pa.array([1, 2, 3, 4], pa.int32()),
        "b": pa.array([1.0, 2.5, float("nan"), None], pa.float64()),
        "c": pa.array(["x", "y", "x", "y"]).dictionary_encode(),
        "d": pa.array(["x", "y", "z", None]),
    }
    table = lk.create_table("t", pa.table({"id": [0, 1, 2, 3], "vector": vectors, **values}), key="id")
    plain = {name: array.to_pylist() for name, array in values.items()}
    for on, left, right, holds in (
        ("left.a > right.b", "a", "b", operator.gt),
        ("left.b < right.a", "b", "a", operator.lt),
        ("left.c == right.d", "c", "d", operator.eq),
        ("left.c = right.c", "c", "c", operator.eq),
        ("left.b = right.b", "b", "b", operator.eq),
    ):
        found = table.knn_join(table, 4, on=[on], recall=1.0, apart=False).to_arrow().to_pylist()
        wanted = {
            (i, j)
            for i, x in enumerate(plain[left])
            for j, y in enumerate(plain[right])
            if x is not None and y is not None and holds(x, y)
        }
        assert {(r["left_id"], r["right_id"]) for r in found} == wanted, on
    for on in ("left.a = right.d", "left.d < right.vector"):
        with pytest.raises(lake.InvalidInput, match="do not compare"):
            table.knn_join(table, on=[on])


def test_a_result_is_a_side_of_the_next_join(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", 60, 1)
    first = table.knn_join(table, 1, recall=1.0, left_columns=["vector"])
    lake.knn_join(first, table, 1, recall=1.0, left_where="rank = 0", into="next")
    found = lk.open_table("next").to_arrow()
    assert set(found["left_left_id"].to_pylist()) == set(rows)
    assert found["left_left_id"].equals(found["right_id"])


def test_nothing_is_left_behind(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", 600, 1)
    matrix = np.zeros((2, DIMENSION), np.float32)
    lake.knn_join(matrix, table, 2).close()
    lake.knn_join(matrix, table, 2, dry_run=True)
    with pytest.raises(lake.InvalidInput):
        lake.knn_join(matrix, table, 2, on=["left.row = right.group"])
    with pytest.raises(lake.InvalidInput, match="different tables"):
        lake.knn_join(matrix, table, 2, apart=True)
    assert not [path for path in (tmp_path / "_jobs").rglob("*") if path.is_file()]


def test_what_makes_no_sense_is_refused(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 20, 1)
    right, _ = make(lk, "right", 20, 2)
    narrow = lk.create_table(
        "narrow", lake.Schema([lake.Column("id", int), lake.Column("vector", lake.Embedding(3))], key="id")
    )
    calls: list[tuple[str, Callable[[], object]]] = [
        ("dimensions", lambda: left.knn_join(narrow)),
        ("metric", lambda: left.knn_join(right, metric="hamming")),
        ("k=2.5", lambda: left.knn_join(right, 2.5)),  # type: ignore[arg-type]
        ("within=nan", lambda: left.knn_join(right, within=float("nan"))),
        ("give a list", lambda: left.knn_join(right, left_columns="id")),
        ("too long", lambda: lake.knn_join(np.full((2, DIMENSION), 1e20), right, recall=1.0)),
        ("k=0", lambda: left.knn_join(right, 0)),
        ("recall", lambda: left.knn_join(right, recall=1.5)),
        ("nprobe", lambda: left.knn_join(right, nprobe=0)),
        ("on=", lambda: left.knn_join(right, on=["category"])),
        ("compare", lambda: left.knn_join(right, on=["left.group < right.vector"])),
        ("memory", lambda: left.knn_join(right, memory="much")),
        ("not a legal expression", lambda: left.knn_join(right, left_where="time > 1; drop")),
        ("shape", lambda: lake.knn_join(np.zeros(3), right)),
        ("left: the rows of the array are not of one length", lambda: lake.knn_join([[1.0], [1.0, 2.0]], right)),
        ("recall='0.9'", lambda: left.knn_join(right, recall="0.9")),  # type: ignore[arg-type]
        ("recall=True", lambda: left.knn_join(right, recall=True)),
        (r"within=\[1\]: give a distance", lambda: left.knn_join(right, within=[1])),  # type: ignore[arg-type]
        (r"on=\[5\]: give a list of texts", lambda: left.knn_join(right, on=[5])),  # type: ignore[list-item]
    ]
    for message, call in calls:
        with pytest.raises(lake.InvalidInput, match=message):
            call()
    with pytest.raises(lake.JobError, match="memory="):
        left.knn_join(right, memory="10MiB")
    with pytest.raises(lake.NotFound):
        left.knn_join(right, right_columns=["nope"])
    with pytest.raises(lake.InvalidInput, match="NaN"):
        lake.knn_join(np.full((2, DIMENSION), np.nan), right)
    for wrong in (0, -1.0):
        with pytest.raises(lake.InvalidInput, match="no l2 distance is less"):
            left.knn_join(right, within=wrong)
    with pytest.raises(lake.InvalidInput, match=r"recall=None.*nprobe="):
        left.knn_join(right, recall=None)  # type: ignore[arg-type]
    with pytest.raises(lake.InvalidInput, match=r"executor=2.*LocalExecutor"):
        left.knn_join(right, executor=2)  # type: ignore[arg-type]
    left.knn_join(right, into="near")
    with pytest.raises(lake.AlreadyExists, match="choose another name"):
        left.knn_join(right, into="near")


def test_the_metric_is_the_one_that_a_column_declares(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", 60, 1, "cosine")
    asked = np.stack([row["vector"] for row in rows.values()])[:7] * 3
    for one, other in ((asked, table), (table, asked)):
        found = lake.knn_join(one, other, 3)
        assert found.report.metric == "cosine"
        assert "cosine, k=3" in str(found.report)
        assert found.to_arrow()["distance"].to_numpy().min() < 1e-5
    assert lake.knn_join(asked, asked, 1).report.metric == "l2"
    dot, _ = make(lk, "dot", 60, 2, "dot")
    with pytest.raises(lake.InvalidInput, match=r"t\.lance: 'vector' cosine, .*dot\.lance: 'vector' dot\): .*metric="):
        table.knn_join(dot)
    assert table.knn_join(dot, 2, metric="l2").report.metric == "l2"


def test_rows_that_no_condition_can_hold_for_are_counted(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", 90, 1)
    table.update({"group": None}, where="id < 20")
    report = table.knn_join(table, 2, on=["left.group != right.group"], left_where="id >= 10").report
    assert (report.left_rows, report.without_value) == (70, 10)
    assert "10 left out for null in a condition" in str(report)


def test_a_join_says_what_it_would_do(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 2000, 1)
    told = left.knn_join(left, 5, dry_run=True)
    assert isinstance(told, Forecast)
    assert "the rows are sorted" in str(told)
    assert told.to_dict()["left_rows"] == 2000
    assert told.seconds * told.cores == pytest.approx(told.core_seconds)
    few = left.knn_join(left, 5, dry_run=True, left_where="id < 1000")
    assert few.plan.flop + few.plan.read_bytes < told.plan.flop + told.plan.read_bytes
    assert few.plan.training > 0
    assert lk.list_tables() == ["left"]


def test_the_rows_of_a_join_go_with_its_result(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 50, 1)
    with left.knn_join(left, 2) as found:
        assert len(list(found.to_batches())) >= 1
        assert found.to_pandas().equals(found.to_arrow().to_pandas())
        place = found.snapshot().location.uri
    assert not list((tmp_path / "_jobs").rglob("*.lance")), place


def test_all_ways_to_run_give_the_same_rows(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 3000, 1)
    right, _ = make(lk, "right", 3000, 2)
    with LocalExecutor(2) as two:
        a = left.knn_join(right, 5, nprobe=4, executor=LocalExecutor(1), job_id="one").to_arrow()
        b = left.knn_join(right, 5, nprobe=4, executor=two, job_id="two").to_arrow()
    assert a.sort_by([("left_id", "ascending"), ("rank", "ascending")]).equals(
        b.sort_by([("left_id", "ascending"), ("rank", "ascending")])
    )

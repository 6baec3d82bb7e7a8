"""Vector search against brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from lake.errors import InvalidInput
from lake.schema import Column, Embedding, Schema
from lake.search import Query, search
from lake.search.facts import facts
from lake.table.snapshot import Snapshot
from tests.unit.search.conftest import DIMENSION, MEASURES, ROWS, Floats, content, snapshot, vectors, write

ALL = 10_000
"""More partitions than any index here has."""


def nearest(x: Floats, q: Floats, metric: str, k: int, keep: npt.NDArray[np.bool_] | None = None) -> Floats:
    distances = MEASURES[metric](x, q)
    if keep is not None:
        distances = distances[keep]
    return np.sort(distances)[:k]


def distances(result: Any) -> Floats:
    return np.asarray(result.to_arrow()["_distance"].to_numpy(), dtype=np.float64)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64(), pa.int8()])
def test_metrics_and_types(tmp_path: Path, matrix: npt.NDArray[np.float32], kind: pa.DataType, metric: Any) -> None:
    x = (matrix[:500] * 8).astype(kind.to_pandas_dtype())
    column = Column("v", pa.list_(kind, DIMENSION), embedding=Embedding(DIMENSION, metric=metric))
    data = pa.table({"id": np.arange(500), "v": vectors(x, kind)}).cast(Schema([Column("id", int), column]).to_arrow())
    snap = snapshot(write(tmp_path / "t.lance", data))
    exact = x.astype(np.float64)

    one = search(snap, Query(vector=x[3], k=7))
    assert one.to_arrow().schema.names == ["id", "_distance"]
    np.testing.assert_allclose(distances(one), nearest(exact, exact[3], metric, 7), rtol=2e-3, atol=2e-3)

    many = search(snap, Query(vector=x[:5], k=7)).to_arrow()
    assert many["_query"].to_pylist() == np.repeat(np.arange(5), 7).tolist()
    expected = np.concatenate([nearest(exact, q, metric, 7) for q in exact[:5]])
    np.testing.assert_allclose(many["_distance"].to_numpy(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("with_index", [False, True])
def test_hamming(tmp_path: Path, with_index: bool) -> None:
    bits = np.random.default_rng(1).integers(0, 256, (600, 8)).astype(np.uint8)
    dataset = write(tmp_path / "t.lance", pa.table({"id": np.arange(600), "v": vectors(bits)}))
    if with_index:
        dataset.create_index("v", "IVF_FLAT", metric="hamming", num_partitions=4)
    snap = snapshot(dataset)
    x = bits.astype(np.float64)
    for many in (False, True):
        result = search(snap, Query(vector=bits[:3] if many else bits[0], k=9, nprobe=ALL))
        expected = [nearest(x, q, "hamming", 9) for q in x[: 3 if many else 1]]
        np.testing.assert_array_equal(distances(result), np.concatenate(expected))
        assert result.coverage.exact
        assert result.coverage.rows_indexed == (600 if with_index else 0)


@pytest.mark.parametrize("where", [None, "rank < 500", "id % 600 = 7", "id = 5 OR id = 2500", "false"])
@pytest.mark.parametrize("table", ["plain", "indexed", "partial"])
def test_complete_under_filters(table: str, where: str | None, request: pytest.FixtureRequest) -> None:
    snap: Snapshot = request.getfixturevalue(table)
    ids, x = content(snap)
    live = set(snap.dataset.to_table(columns=["id"], filter=where)["id"].to_pylist()) if where else set(ids.tolist())
    keep = np.isin(ids, list(live))
    queries = x[[3, 60, 700]] + 0.05
    for q in queries:
        result = search(snap, Query(vector=q, where=where, k=10, nprobe=ALL))
        np.testing.assert_allclose(distances(result), nearest(x, q, "l2", 10, keep), rtol=1e-4, atol=1e-4)
        found = result.to_arrow()["id"].to_pylist()
        assert set(found) <= live
        assert len(set(found)) == len(found)
        # Few partitions may miss the nearest, but never return fewer rows than there are.
        assert len(search(snap, Query(vector=q, where=where, k=10, nprobe=1))) == min(10, len(live))
    many = search(snap, Query(vector=queries, where=where, k=10, nprobe=ALL))
    expected = np.concatenate([nearest(x, q, "l2", 10, keep) for q in queries])
    np.testing.assert_allclose(distances(many), expected, rtol=1e-4, atol=1e-4)
    fewest = search(snap, Query(vector=queries, where=where, k=10, nprobe=1))
    assert len(fewest) == 3 * min(10, len(live))


@pytest.mark.parametrize("table", ["plain", "indexed", "partial"])
@pytest.mark.parametrize("many", [False, True])
def test_offset(table: str, many: bool, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    q = content(snap)[1][[5, 6]] if many else content(snap)[1][5]
    whole = search(snap, Query(vector=q, k=10, nprobe=ALL)).to_pylist()
    page = search(snap, Query(vector=q, k=4, offset=3, nprobe=ALL)).to_pylist()
    if many:
        assert page == whole[3:7] + whole[13:17]
    else:
        assert page == whole[3:7]
    last = search(snap, Query(vector=q, k=5, offset=facts(snap).rows - 2))
    assert len(last) == (4 if many else 2)


@pytest.mark.parametrize("table", ["plain", "indexed", "partial"])
def test_range(table: str, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    _, x = content(snap)
    d = MEASURES["l2"](x, x[42])
    for k in (None, 5, 400):
        for within in (12.0, (6.0, 14.0), (10.0, None), 1e-9):
            low, high = within if isinstance(within, tuple) else (None, within)
            hit = np.sort(d[(d >= (low or 0)) & (d < (high or np.inf))])[:k]
            result = search(snap, Query(vector=x[42], within=within, k=k, nprobe=1 if k and k > len(hit) else ALL))
            np.testing.assert_allclose(distances(result), hit, rtol=1e-4, atol=1e-4)
    many = search(snap, Query(vector=x[40:43], within=12.0, k=None)).to_arrow()
    assert many.filter(pa.compute.equal(many["_query"], 2)).num_rows == (d < 12.0).sum()


@pytest.mark.parametrize("kind", ["IVF_PQ", "IVF_SQ", "IVF_RQ", "IVF_HNSW_FLAT", "IVF_HNSW_SQ", "IVF_HNSW_PQ"])
def test_quantised_distances_are_true(tmp_path: Path, rows: pa.Table, kind: str) -> None:
    dataset = write(tmp_path / "t.lance", rows)
    parameters = {"num_sub_vectors": 4} if kind.endswith("PQ") else {}
    dataset.create_index("emb", kind, name="emb_idx", metric="l2", num_partitions=4, **parameters)
    snap = snapshot(dataset)
    _, x = content(snap)
    for q in (x[9] + 0.1, x[[9, 11]] + 0.1):
        result = search(snap, Query(vector=q, k=10, nprobe=ALL))
        table = result.to_arrow()
        assert len(result) == 10 * (2 if q.ndim == 2 else 1)
        queries = np.atleast_2d(q)[table["_query"].to_numpy()] if q.ndim == 2 else np.tile(q, (10, 1))
        true = ((x[table["id"].to_numpy()] - queries) ** 2).sum(axis=1)
        np.testing.assert_allclose(distances(result), true, rtol=1e-3)
        part = result.coverage.parts[0]
        assert (part.kind, part.exact) == (kind, False)
        assert (part.refine > 0) == ("FLAT" not in kind)
    near = MEASURES["l2"](x, x[9] + 0.1)
    bound = float(np.sort(near)[6])
    within = distances(search(snap, Query(vector=x[9] + 0.1, k=20, within=bound, nprobe=ALL, refine=40)))
    np.testing.assert_allclose(within, np.sort(near)[:6], rtol=1e-3)
    exact = search(snap, Query(vector=x[9] + 0.1, k=20, within=(bound, None), nprobe=ALL))
    assert exact.coverage.exact
    assert "lower bound" in str(exact.coverage)
    assert len(search(snap, Query(vector=x[9], k=30, refine=0, ef=5))) == 30


def test_many_queries_of_small_k_read_each_partition_once(indexed: Snapshot) -> None:
    _, x = content(indexed)
    result = search(indexed, Query(vector=x[:50], k=3, nprobe=6))
    single = [search(indexed, Query(vector=q, k=3, nprobe=6)).to_arrow()["id"].to_pylist() for q in x[:50]]
    assert result.to_arrow()["id"].to_pylist() == [i for ids in single for i in ids]
    assert result.coverage.parts[0].partitions_probed == 6


def test_coverage_adds_up(plain: Snapshot, indexed: Snapshot, partial: Snapshot) -> None:
    q = np.zeros(DIMENSION)
    for snap, rows_indexed in ((plain, 0), (indexed, ROWS), (partial, 1900)):
        for only in (False, True):
            if only and not rows_indexed:
                continue
            covered = search(snap, Query(vector=q, indexed_only=only)).coverage
            part = covered.parts[0]
            assert part.rows_indexed + part.rows_scanned + part.rows_skipped == covered.rows == facts(snap).rows
            assert part.rows_indexed == rows_indexed
            assert covered.complete == (part.rows_skipped == 0)
            assert covered.version == snap.version
    assert not search(partial, Query(vector=q, indexed_only=True)).coverage.complete
    part = search(indexed, Query(vector=q)).coverage.parts[0]
    assert (part.partitions_probed, part.partitions) == (16, 40)
    assert "16 of 40 partitions)" in str(part)
    several = replace(part, partitions_probed=32, partitions=80, segments=2)
    assert "32 of 80 partitions in 2 segments)" in str(several)
    assert search(indexed, Query(vector=q, nprobe=40)).coverage.exact
    assert not search(indexed, Query(vector=q)).coverage.exact


def test_indexed_only_leaves_out_the_tail(partial: Snapshot) -> None:
    ids, x = content(partial)
    tail = int(np.flatnonzero(ids == 2500)[0])
    assert search(partial, Query(vector=x[tail], k=1)).to_pylist()[0]["id"] == 2500
    assert search(partial, Query(vector=x[tail], k=1, indexed_only=True)).to_pylist()[0]["id"] != 2500


def test_other_metrics_are_scanned_and_several_indexes_used(tmp_path: Path, rows: pa.Table) -> None:
    dataset = write(tmp_path / "t.lance", rows.slice(0, 1000))
    dataset.create_index("emb", "IVF_FLAT", name="by_l2", metric="l2", num_partitions=4)
    _, x = content(snapshot(dataset))
    scanned = search(snapshot(dataset), Query(vector=x[1], metric="cosine"))
    assert scanned.coverage.exact
    assert "by_l2 is for l2" in str(scanned.coverage)
    dataset.create_index("emb", "IVF_FLAT", name="by_cosine", metric="cosine", num_partitions=4)
    result = search(snapshot(dataset), Query(vector=x[1], metric="cosine", nprobe=4))
    assert result.coverage.index == "by_cosine"
    np.testing.assert_allclose(distances(result), nearest(x, x[1], "cosine", 10), atol=1e-5)
    dataset = lance.write_dataset(rows.slice(1000, 100), dataset.uri, mode="append")
    _, x = content(snapshot(dataset))
    complete = search(snapshot(dataset), Query(vector=x[1050], metric="cosine"))
    np.testing.assert_allclose(distances(complete), nearest(x, x[1050], "cosine", 10), atol=1e-5)
    assert complete.coverage.rows_scanned == 1100


def test_null_vectors_are_never_found(tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((400, 4)).astype(np.float32)
    mask = np.arange(400) % 4 == 0
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 4, mask=pa.array(mask))
    dataset = write(tmp_path / "t.lance", pa.table({"id": np.arange(400), "v": column}))
    for build in (False, True):
        if build:
            dataset.create_index("v", "IVF_FLAT", metric="l2", num_partitions=2)
        for k in (300, 400, None):
            result = search(snapshot(dataset), Query(vector=x[0], k=k, nprobe=ALL))
            assert sorted(result.to_arrow()["id"].to_pylist()) == np.flatnonzero(~mask).tolist()
        assert len(search(snapshot(dataset), Query(vector=x[:2], k=400))) == 600


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_PQ"])
@pytest.mark.parametrize("tail", [0, 30])
def test_deleted_rows_push_out_no_live_ones_after_compaction(
    tmp_path: Path, rows: pa.Table, kind: str, tail: int
) -> None:
    """Lance's own search of this table returns no rows at all."""
    dataset = write(tmp_path / "t.lance", rows.slice(0, 2000))
    dataset.create_index("emb", kind, name="emb_idx", metric="l2", num_partitions=1, num_sub_vectors=8)
    dataset.create_scalar_index("text", "INVERTED", name="text_idx")
    dataset.create_scalar_index("rank", "BITMAP")
    ids, x = content(snapshot(dataset))
    nearest_ids = ids[np.argsort(MEASURES["l2"](x, x[0]))[:200]]
    kernels = search(snapshot(dataset), Query(text="kernel", k=200)).to_arrow()["id"].to_pylist()
    dataset.delete(f"id IN ({', '.join(map(str, [*nearest_ids, *kernels]))})")
    deleted = snapshot(dataset)
    dataset.optimize.compact_files()
    compacted = snapshot(dataset)
    if tail:
        dataset = lance.write_dataset(rows.slice(2500, tail), dataset.uri, mode="append")
    q = x[0]
    for snap, slow in ((deleted, False), (compacted, True), (snapshot(dataset), True)):
        _, left = content(snap)
        query = Query(vector=q, k=10, refine=200 if kind == "IVF_PQ" else None)
        result = search(snap, query)
        np.testing.assert_allclose(distances(result), nearest(left, q, "l2", 10), rtol=1e-3)
        assert ("holds deleted rows" in str(result.coverage)) == slow
        filtered = search(snap, Query(vector=q, where="rank < 990", k=10, refine=query.refine))
        keep = snap.dataset.to_table(columns=["rank"])["rank"].to_numpy() < 990
        np.testing.assert_allclose(distances(filtered), nearest(left, q, "l2", 10, keep), rtol=1e-3)
        many = search(snap, Query(vector=x[:2], k=10, refine=query.refine))
        np.testing.assert_allclose(distances(many)[:10], nearest(left, q, "l2", 10), rtol=1e-3)
        texts = search(snap, Query(text="kernel", k=None)).to_arrow()["id"].to_pylist()
        assert set(texts).isdisjoint(kernels)
        assert search(snap, Query(text="kernel", k=10)).to_arrow()["id"].to_pylist() == texts[:10]
    dataset.create_index("emb", "IVF_FLAT", name="emb_idx", metric="l2", num_partitions=1, replace=True)
    assert "holds deleted rows" not in str(search(snapshot(dataset), Query(vector=q)).coverage)


@pytest.mark.parametrize("with_index", [False, True])
def test_multi_vectors(tmp_path: Path, with_index: bool) -> None:
    rng = np.random.default_rng(5)
    sets = [rng.standard_normal((1 + i % 3, 8)).astype(np.float32) for i in range(400)]
    kind = pa.list_(pa.list_(pa.float32(), 8))
    dataset = write(
        tmp_path / "t.lance",
        pa.table({"id": np.arange(400), "v": pa.array([s.tolist() for s in sets], kind)}),
    )
    if with_index:
        dataset.create_index("v", "IVF_FLAT", metric="cosine", num_partitions=2)
    snap = snapshot(dataset)

    def maxsim(q: Floats) -> Floats:
        unit = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in sets]
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        return np.array([(1 - u @ q.T).min(axis=0).sum() for u in unit])

    for q in (sets[7], sets[8][0]):
        result = search(snap, Query(vector=q, k=5, nprobe=2, refine=80 if with_index else None))
        np.testing.assert_allclose(distances(result), np.sort(maxsim(np.atleast_2d(q)))[:5], atol=1e-5)
        assert result.coverage.exact != with_index
    many = search(snap, Query(vector=[sets[7], sets[9]], k=3)).to_arrow()
    assert many["_query"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert [many["id"][0].as_py(), many["id"][3].as_py()] == [7, 9]


def test_like(partial: Snapshot) -> None:
    ids, x = content(partial)
    at = int(np.flatnonzero(ids == 500)[0])
    order = np.argsort(MEASURES["l2"](x, x[at]), kind="stable")
    expected = [int(ids[i]) for i in order if ids[i] != 500][:5]
    for like in (500, {"id": 500}, np.int64(500)):
        assert search(partial, Query(like=like, k=5, nprobe=ALL)).to_arrow()["id"].to_pylist() == expected
    with pytest.raises(LookupError, match="no such row"):
        search(partial, Query(like=5))
    with pytest.raises(InvalidInput, match="several rows"):
        search(partial, Query(like={"group": "g1"}))


def test_empty_table(tmp_path: Path, rows: pa.Table) -> None:
    dataset = write(tmp_path / "t.lance", rows.slice(0, 0))
    dataset.create_scalar_index("text", "INVERTED", train=False)
    snap = snapshot(dataset)
    for query in (
        Query(vector=np.ones(DIMENSION)),
        Query(vector=np.ones((2, DIMENSION))),
        Query(text="editor"),
        Query(where="id > 1"),
        Query(vector=np.ones(DIMENSION), text="editor"),
        Query(vector=np.ones(DIMENSION), group_by="group"),
    ):
        result = search(snap, query)
        assert len(result) == 0
        assert result.coverage.complete


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("where", [None, "x > 3"])
def test_like_keeps_rows_without_a_value(tmp_path: Path, with_index: bool, where: str | None) -> None:
    n = 600
    x = np.random.default_rng(4).standard_normal((n, 4)).astype(np.float32)
    group = [None if i % 3 == 0 else f"g{i}" for i in range(n)]
    number = [None if i % 5 == 0 else i % 9 for i in range(n)]
    data = pa.table({"id": np.arange(n), "g": group, "x": pa.array(number), "emb": vectors(x)})
    dataset = write(tmp_path / "t.lance", data.slice(0, 500))
    if with_index:
        dataset.create_scalar_index("g", "BTREE")
        dataset.create_scalar_index("x", "BITMAP")
    snap = snapshot(lance.write_dataset(data.slice(500), dataset.uri, mode="append"))
    likes: list[tuple[dict[str, Any], int]] = [({"g": "g7"}, 7), ({"x": 7, "g": "g16"}, 16), ({"id": 30}, 30)]
    for like, at in likes:
        others = [i for i in range(n) if i != at and (where is None or (number[i] or 0) > 3)]
        expected = sorted(others, key=lambda i: float(MEASURES["l2"](x[[i]].astype(np.float64), x[at])[0]))
        found = search(snap, Query(like=like, where=where, k=n, columns=["id"], metric="l2")).to_arrow()
        assert found["id"].to_pylist() == expected


@pytest.mark.parametrize("kind", [None, "IVF_FLAT", "IVF_PQ"])
def test_distances_are_finite(tmp_path: Path, kind: str | None) -> None:
    """Whatever way a search takes, rows without a vector neither show nor take the place of others."""
    n = 400
    x = np.random.default_rng(5).standard_normal((n, 16)).astype(np.float32)
    some = pa.array([None if i % 4 else list(row) for i, row in enumerate(x)], pa.list_(pa.float32(), 16))
    data = pa.table({"id": np.arange(n), "g": np.arange(n) % 8, "text": ["fox"] * n, "emb": some})
    dataset = write(tmp_path / "t.lance", data)
    dataset.create_scalar_index("text", "INVERTED")
    if kind:
        extra: dict[str, Any] = {"num_sub_vectors": 4} if kind == "IVF_PQ" else {}
        dataset.create_index("emb", kind, metric="l2", num_partitions=4, **extra)
    snap, q = snapshot(dataset), x[:3]
    for query, count in (
        (Query(vector=q[0], k=n), 100),
        (Query(vector=q, k=n, nprobe=4), 300),
        (Query(vector=q, k=n, refine=0), 300),
        (Query(vector=q, k=100, refine=0, nprobe=4), 300),
        (Query(vector=q[0], k=10, group_by="g", per_group=n), 100),
        (Query(vector=q, k=10, group_by="g", per_group=n), 300),
        (Query(vector=q[0], text="fox", k=n, candidates=n), n),
        (Query(vector=q[0], text="fox", k=n, candidates=n, fusion=(1e300, 1e300)), n),
    ):
        rows = search(snap, query).to_pylist()
        assert len(rows) == count
        numbers = [v for row in rows for name, v in row.items() if name.startswith("_") and v is not None]
        assert np.isfinite(numbers).all()
        assert all(row["id"] % 4 == 0 for row in rows if row["_distance"] is not None)


def test_few_rows_of_the_index_only_in_unread_partitions(partial: Snapshot) -> None:
    """Lance gives such rows an infinite distance; they have their own, and the tail stays out."""
    ids, x = content(partial)
    covered = next(i for i in facts(partial).indexes if i.name == "emb_idx").fragments
    alive = [f for f in partial.dataset.get_fragments() if f.fragment_id in covered]
    inside = {i for f in alive for i in f.to_table(columns=["id"])["id"].to_pylist()}
    distance = dict(zip(ids.tolist(), MEASURES["l2"](x, x[700]).tolist(), strict=True))
    for step in (300, 700):
        expected = sorted((i for i in inside if i % step == 7), key=distance.__getitem__)
        for q, times in ((x[700], 1), (x[[700, 700]], 2)):
            query = Query(vector=q, where=f"id % {step} = 7", k=50, nprobe=1, indexed_only=True)
            found = search(partial, query)
            assert found.to_arrow()["id"].to_pylist() == expected * times
            np.testing.assert_allclose(distances(found), [distance[i] for i in expected] * times, rtol=1e-4)

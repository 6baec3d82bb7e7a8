"""Joins with a table that a clustering has arranged: its rows are read as they lie, and found as they are now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.join import runs
from lake.join.arranged import _pieces
from lake.join.clusters import find_clusters
from lake.join.inplace import InPlace
from lake.join.side import Side
from lake.run import Event, LocalExecutor, TaskDone, TaskSkipped, ignore
from lake.storage import Location
from tests.integration.test_knn_join import DIMENSION, check, columns, distances, make
from tests.support.wide import Wide

Rows = dict[int, dict[str, Any]]
CLUSTERS = 24


def arranged(
    lk: lake.Lake, name: str, rows: int, seed: int, metric: str = "l2", clusters: int = CLUSTERS
) -> tuple[lake.Table, Rows]:
    """A clustered table in fragments of about a fifth of its rows, and the same as a dict."""
    table, data = make(lk, name, rows, seed, metric)
    table.cluster(clusters, arrange=rows // 5, executor=LocalExecutor(1), on_event=ignore)
    assert 5 <= len(table.snapshot().dataset.get_fragments()) <= 7
    return table, data


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_the_clusters_are_the_partitions(root: Location, metric: str) -> None:
    lk = lake.connect(root.uri, root.options)
    left, a = make(lk, "left", 700, 1, metric)
    right, b = arranged(lk, "right", 1500, 2, metric)
    found = left.knn_join(right, 7, nprobe=CLUSTERS, right_columns=["time"])
    assert found.report.source == "the rows lie in the order of 'cluster'"
    assert check(found.to_arrow(), list(a.values()), list(b.values()), 7, metric) == 1.0
    assert all(r["right_time"] == b[r["right_id"]]["time"] for r in found.to_arrow().to_pylist())
    assert found.report.partitions == CLUSTERS
    assert found.report.compared == 700 * 1500
    assert found.report.read_bytes == 4 * DIMENSION * (700 + 1500 * found.report.tasks)
    few = left.knn_join(right, 7, nprobe=3)
    assert few.report.compared < 700 * 1500 / 3
    share = check(few.to_arrow(), list(a.values()), list(b.values()), 7, metric)
    built = 1 / 3 if metric == "dot" else 0.4  # an index of random vectors is no better
    assert built < share < 1
    assert few.report.recall is not None
    assert few.report.recall.low - 0.05 <= share <= few.report.recall.high + 0.05


def deleted(table: lake.Table, rows: Rows) -> None:
    table.delete("id % 4 = 1")
    for i in [i for i in rows if i % 4 == 1]:
        del rows[i]


def updated(table: lake.Table, rows: Rows) -> None:
    """Move rows far from their clusters."""
    for i in range(0, 300, 2):
        rows[i] = rows[i] | {"vector": -3 * rows[i]["vector"]}
    table.merge(columns([rows[i] for i in range(0, 300, 2)]).select(["id", "vector"]))


def replaced(table: lake.Table, rows: Rows) -> None:
    """Without a cluster, as whole rows are given."""
    updated(table, rows)
    for i in range(1, 300, 2):
        rows[i] = rows[i] | {"vector": -2 * rows[i]["vector"]}
    table.merge(columns([rows[i] for i in range(1, 300, 2)]))


def grown(table: lake.Table, rows: Rows) -> None:
    new = {i: rows[i - 1000] | {"id": i, "vector": 0.9 * rows[i - 1000]["vector"]} for i in range(1000, 1200)}
    rows |= new
    table.append(columns(list(new.values())))


def compacted(table: lake.Table, rows: Rows) -> None:
    """Rows of several fragments, and of several orders, in one."""
    grown(table, rows)
    deleted(table, rows)
    table.compact(deleted=0.0, target_rows=400)


def lacking(table: lake.Table, rows: Rows) -> None:
    """Some rows keep their cluster and lose their vector, and some were appended without one."""
    for i in range(0, 200, 5):
        del rows[i]
    ids = pa.array([*range(0, 200, 5), *range(5000, 5010)])
    none = pa.nulls(len(ids), pa.list_(pa.float32(), DIMENSION))
    table.merge(pa.table({"id": ids, "vector": none}))


@pytest.mark.parametrize("change", [deleted, updated, replaced, grown, compacted, lacking])
@pytest.mark.parametrize("where", [None, "time < 60"])
def test_rows_are_found_as_they_are_now(root: Location, change: Callable[..., None], where: str | None) -> None:
    lk = lake.connect(root.uri, root.options)
    left, a = make(lk, "left", 300, 1)
    right, b = arranged(lk, "right", 900, 2)
    change(right, b)
    found = left.knn_join(right, 5, nprobe=CLUSTERS, right_where=where)
    assert found.report.source.startswith("the rows lie in the order of 'cluster'")
    passing = [row for row in b.values() if where is None or row["time"] < 60]
    assert check(found.to_arrow(), list(a.values()), passing, 5, "l2") == 1.0
    assert len(found.to_arrow()) == 1500


def test_a_recall_is_reached_and_told(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 1500, 1)
    right, b = arranged(lk, "right", 5000, 2, clusters=64)
    found = left.knn_join(right, 10, recall=0.8)
    assert found.report.recall is not None
    assert found.report.probes < 64
    share = check(found.to_arrow(), list(a.values()), list(b.values()), 10, "l2")
    assert share >= 0.8
    assert found.report.recall.low - 0.02 <= share <= found.report.recall.high + 0.02


def test_centroids_of_the_clusters_are_their_means(tmp_path: Path) -> None:
    """Rows look first where they lie themselves, nearly all of them, as k-means has it."""
    lk = lake.connect(tmp_path)
    table, _ = arranged(lk, "t", 3000, 1, clusters=32)
    found = table.knn_join(table, 1, nprobe=1, apart=False).to_arrow()
    assert np.mean(np.array(found["left_id"]) == np.array(found["right_id"])) > 0.97


def test_rows_that_are_not_in_order_are_sorted(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, _ = make(lk, "right", 900, 2)
    right.cluster(CLUSTERS, executor=LocalExecutor(1), on_event=ignore)
    assert "are sorted" in left.knn_join(right, 2, nprobe=2).report.source
    whole, _ = arranged(lk, "whole", 1500, 3)
    new = make(lk, "new", 1400, 4)[0].to_arrow().combine_chunks()
    new = new.set_column(0, "id", pa.array(np.arange(10_000, 11_400)))
    whole.append(new)
    assert find_clusters(Side(whole.snapshot(), "vector")) is not None
    report = left.knn_join(whole, 2, nprobe=2).report
    assert report.source == "the rows lie in the order of 'cluster'; 1,400 that do not are sorted"


def test_clusters_that_are_too_few_or_too_many_do_not_pay(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 2000, 1)
    for number in (1, 2900):
        right, _ = arranged(lk, f"right{number}", 3000, 2, clusters=number)
        assert "are sorted" in left.knn_join(right, 2, recall=0.5).report.source


def test_an_index_comes_first(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, _ = arranged(lk, "right", 1500, 2)
    right.create_index("vector", "ivf_flat", partitions=8)
    right.build(executor=LocalExecutor(1))
    assert left.knn_join(right, 2, nprobe=2).report.source.startswith("index")
    right.cluster(CLUSTERS, arrange=300, executor=LocalExecutor(1), on_event=ignore)
    source = left.knn_join(right, 2, nprobe=2).report.source
    assert source.startswith("the rows lie"), "the index covers none of them any more"


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_vectors_that_are_read_where_they_lie(tmp_path: Path, metric: str, kind: pa.DataType) -> None:
    """And half ones, which are not; each of a row's neighbours is another row."""
    rng, rows, dimension = np.random.default_rng(3), 3000, 64
    vectors = rng.standard_normal((rows, dimension)).astype(kind.to_pandas_dtype())
    held = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), kind), dimension)
    table = lake.connect(tmp_path).create_table("t", pa.table({"id": np.arange(rows), "vector": held}), key="id")
    table.cluster(30, metric=metric, arrange=1000, executor=LocalExecutor(1), on_event=ignore)
    with (
        patch.object(runs, "_IDS", 100),
        patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as read,
    ):
        found = table.knn_join(table, 4, metric=metric, nprobe=30, on_event=ignore)
    assert found.report.source.startswith("the rows lie")
    assert bool(read.call_count) == (kind == pa.float32())
    true = distances(vectors, vectors, metric)
    np.fill_diagonal(true, np.inf)
    near = found.to_arrow().sort_by([("left_id", "ascending"), ("rank", "ascending")])
    told = np.array(near["distance"]).reshape(rows, 4)
    np.testing.assert_allclose(told, np.sort(true, axis=1)[:, :4], atol=1e-4)
    ids = np.array(near["right_id"]).reshape(rows, 4)
    np.testing.assert_allclose(told, np.take_along_axis(true, ids, axis=1), atol=1e-4)


def test_vectors_that_make_no_sense_matter_only_where_they_take_part(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 700, 1)
    right, b = make(lk, "right", 1500, 2)
    b[5] = b[5] | {"vector": np.zeros(DIMENSION, np.float32)}
    right.merge(columns([b[5]]))
    right.cluster(CLUSTERS, arrange=300, executor=LocalExecutor(1), on_event=ignore)
    asked: dict[str, Any] = {"metric": "cosine", "nprobe": CLUSTERS, "on_event": ignore}
    found = left.knn_join(right, 3, right_where="id <> 5", **asked)
    assert found.report.source.startswith("the rows lie")
    del b[5]
    assert check(found.to_arrow(), list(a.values()), list(b.values()), 3, "cosine") == 1.0
    with pytest.raises(lake.LakeError, match="zero vector"):
        left.knn_join(right, 3, **asked)


def test_filters_that_leave_little_read_little(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, _ = arranged(lk, "right", 3000, 2)
    assert "are sorted" in left.knn_join(right, 2, nprobe=2, right_where="time < 30").report.source
    found = left.knn_join(right, 2, nprobe=CLUSTERS, right_where=f"cluster < {CLUSTERS * 3 // 4}", on_event=ignore)
    assert found.report.source.startswith("the rows lie")
    assert found.report.read_bytes < 4 * DIMENSION * (700 + 3000 * found.report.tasks), "of the last fragments nothing"


def test_clusters_of_vectors_that_were_dropped_are_none(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, b = arranged(lk, "right", 1500, 2)
    right.drop_columns(["vector"])
    right.add_columns({"vector": lake.Column("vector", lake.Embedding(DIMENSION))})
    inside = right.to_arrow(["id"])["id"].to_pylist()  # in the order of the clusters
    right.merge(columns([b[i] for i in inside]).select(["id", "vector"]))
    assert "are sorted" in left.knn_join(right, 2, nprobe=2).report.source


def test_a_table_whose_clustered_rows_lost_all_vectors(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 600, 1)
    right, b = arranged(lk, "right", 1200, 2)
    none = pa.nulls(1200, pa.list_(pa.float32(), DIMENSION))
    right.merge(pa.table({"id": list(b), "vector": none}))
    new = {i: b[i - 5000] | {"id": i} for i in range(5000, 5600)}
    right.append(columns(list(new.values())))
    found = left.knn_join(right, 3, nprobe=999, on_event=ignore)
    assert check(found.to_arrow(), list(a.values()), list(new.values()), 3, "l2") == 1.0


@pytest.mark.parametrize("held", [[3, 0, 5], [2000], [10, 3000, 10, 10], [900] * 20, [0, 0, 1]])
def test_rows_whose_mean_is_a_centroid(held: list[int]) -> None:
    lengths, seen = np.array(held), {}
    for partitions, first, counts in _pieces(lengths):
        assert counts.sum() <= 8192
        for partition, start, count in zip(partitions, first + np.cumsum(counts) - counts, counts, strict=True):
            seen[int(partition)] = (int(start), int(count))
    begins = np.cumsum(lengths) - lengths
    for partition, rows in enumerate(held):
        if not rows:
            assert partition not in seen
            continue
        start, count = seen[partition]
        assert count == (rows if rows <= 1024 else 256)
        assert begins[partition] <= start <= start + count <= begins[partition] + rows


@pytest.mark.parametrize("workers", [2, 16])
def test_workers_and_a_job_that_goes_on_give_the_same_rows(tmp_path: Path, workers: int) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 1000, 1)
    right, _ = arranged(lk, "right", 5000, 2, clusters=64)
    asked: dict[str, Any] = {"recall": 0.8, "right_where": "time < 60"}
    order = [("left_id", "ascending"), ("rank", "ascending")]
    wanted = left.knn_join(right, 4, executor=LocalExecutor(1), on_event=ignore, **asked).to_arrow().sort_by(order)
    with LocalExecutor(2) as processes:
        executor: Any = processes if workers == 2 else Wide(workers)

        def stop(event: Event) -> None:
            if isinstance(event, TaskDone) and event.stage == "centroids" and len(done) < 3:
                done.append(event.key)
                if len(done) == 3:
                    raise KeyboardInterrupt

        done: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            left.knn_join(right, 4, executor=executor, job_id="j", on_event=stop, **asked)
        skipped: list[str] = []

        def note(event: Event) -> None:
            if isinstance(event, TaskSkipped) and event.stage == "centroids":
                skipped.append(event.key)

        found = left.knn_join(right, 4, executor=executor, job_id="j", on_event=note, **asked)
        assert set(skipped) >= set(done[:1]), "the last two may have ended at once, and were not recorded then"
        assert found.to_arrow().sort_by(order).equals(wanted)

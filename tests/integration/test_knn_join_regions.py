"""Joins by regions of partitions: the same rows as without, and as brute force in numpy finds."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import lake
from lake.join.plan import Plan
from lake.run import Event, LocalExecutor, Progress, TaskDone, ignore
from tests.integration.test_knn_join import DIMENSION, check, make
from tests.support.wide import Wide

ORDER = [("left_id", "ascending"), ("rank", "ascending")]


def both(left: lake.Table, right: lake.Table, k: int, regions: int = 8, **asked: Any) -> tuple[pa.Table, Any]:
    """Join by regions and without; return the rows, which are the same, and the report."""
    alone = left.knn_join(right, k, executor=LocalExecutor(1), on_event=ignore, **asked)
    many = left.knn_join(right, k, executor=Wide(8), on_event=ignore, **asked)
    assert (alone.report.regions, alone.report.met) == (1, 1.0)
    assert many.report.regions == regions
    assert 1 < many.report.met <= regions
    rows = many.to_arrow().sort_by(ORDER)
    assert rows.equals(alone.to_arrow().sort_by(ORDER))
    for figure in ("left_rows", "right_rows", "without_vector", "pairs", "compared", "flop", "recall"):
        assert getattr(many.report, figure) == getattr(alone.report, figure), figure
    return rows, many.report


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("how", ["index", "sort"])
def test_regions_find_the_nearest(tmp_path: Any, metric: str, how: str) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 700, 1, metric)
    right, b = make(lk, "right", 6000, 2, metric)
    if how == "index":
        right.create_index("vector", "ivf_flat", partitions=40)
        right.build(executor=LocalExecutor(1), on_event=ignore)
        for table, rows in ((left, a), (right, b)):
            table.delete("id % 10 = 3")
            for gone in [i for i in rows if i % 10 == 3]:
                del rows[gone]
    rows, report = both(left, right, 7, nprobe=5, left_columns=["group"], right_columns=["time"])
    assert 0.3 < check(rows, list(a.values()), list(b.values()), 7, metric) < 1
    assert report.tasks == 8
    assert report.read_bytes == 4 * DIMENSION * round(len(a) * (1 + report.met) + 6000), "the right side once"
    assert report.source.startswith("index" if how == "index" else "no index")
    rows, report = both(left, right, 7, recall=0.9)
    reached = check(rows, list(a.values()), list(b.values()), 7, metric)
    assert report.recall.measured >= 0.9
    assert report.recall.low - 0.02 <= reached <= report.recall.high + 0.02


def test_filters_conditions_and_a_bound_hold_in_regions(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "rows", 6000, 1)
    asked: dict[str, Any] = {"left_where": "id < 600", "right_where": "time < 90", "on": ["left.group == right.group"]}
    found, report = both(table, table, 5, nprobe=32, within=9.0, **asked)
    assert report.recall.measured == 1, "all partitions"
    left = [row for row in rows.values() if row["id"] < 600]
    right = [row for row in rows.values() if row["time"] < 90]
    truth = {
        (a["id"], b["id"]): float(np.square(a["vector"] - b["vector"]).sum())
        for a in left
        for b in right
        if a["group"] == b["group"] and a["id"] != b["id"]
    }
    wanted: dict[int, list[float]] = {}
    for (a, _), distance in sorted(truth.items(), key=lambda pair: pair[1]):
        if distance < 9.0 and len(wanted.setdefault(a, [])) < 5:
            wanted[a].append(distance)
    told: dict[int, list[float]] = {}
    for row in found.to_pylist():
        assert truth[row["left_id"], row["right_id"]] == pytest.approx(row["distance"], abs=1e-4)
        told.setdefault(row["left_id"], []).append(row["distance"])
    assert told.keys() == wanted.keys()
    assert all(told[a] == pytest.approx(wanted[a], abs=1e-4) for a in wanted)


def test_rows_without_a_vector_are_sent_nowhere(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    rng = np.random.default_rng(3)
    schema = lake.Schema([lake.Column("id", int), lake.Column("vector", lake.Embedding(8))], key="id")
    tables: list[lake.Table] = []
    for name, rows in (("left", 600), ("right", 6000)):
        # Of the left side a whole block has none.
        vectors = [
            None if i % 3 == 0 or (name == "left" and i < 300) else rng.standard_normal(8).tolist() for i in range(rows)
        ]
        data = {"id": pa.array(range(rows)), "vector": pa.array(vectors, pa.list_(pa.float32(), 8))}
        tables.append(lk.create_table(name, schema))
        tables[-1].append(pa.table(data))
    found, report = both(tables[0], tables[1], 4, nprobe=6)
    assert report.without_vector == 400
    ids = np.array([found["left_id"].to_numpy(), found["right_id"].to_numpy()])
    assert (ids % 3 != 0).all()
    assert len(np.unique(ids[0])) == 200


def test_a_region_is_joined_in_pieces_where_its_rows_do_not_fit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lk = lake.connect(tmp_path)
    left, a = make(lk, "left", 700, 1)
    right, b = make(lk, "right", 6000, 2)
    alone = left.knn_join(right, 7, nprobe=6, executor=LocalExecutor(1), on_event=ignore)
    monkeypatch.setattr(Plan, "most_rows", property(lambda _: 300))
    found = left.knn_join(right, 7, nprobe=6, executor=Wide(8), on_event=ignore)
    assert found.report.regions < found.report.tasks
    assert found.to_arrow().sort_by(ORDER).equals(alone.to_arrow().sort_by(ORDER))
    assert found.report.recall == alone.report.recall
    assert check(found.to_arrow(), list(a.values()), list(b.values()), 7, "l2") > 0.3


def test_so_few_rows_that_hardly_anybody_looks_into_a_region(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 600, 1)
    right, _ = make(lk, "right", 6000, 2)
    right.create_index("vector", "ivf_flat", partitions=40)
    right.build(executor=LocalExecutor(1), on_event=ignore)
    right.delete("time < 60")
    found, _ = both(left, right, 5, nprobe=3, left_where="id < 9")
    assert set(found["left_id"].to_pylist()) == set(range(9))


def test_what_regions_will_be_is_told_before(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 600, 1)
    right, _ = make(lk, "right", 6000, 2)
    told = left.knn_join(right, 5, executor=Wide(8), dry_run=True)
    assert told.to_dict()["regions"] == 8
    assert told.to_dict()["tasks"] == 8
    assert "sent to" in str(told)
    alone = left.knn_join(right, 5, executor=LocalExecutor(1), dry_run=True)
    assert "one task reads all" in str(alone)
    read = told.to_dict()["read_bytes"]
    monkeypatch.setattr(Plan, "regions", 1)
    blocks = left.knn_join(right, 5, executor=Wide(8), dry_run=True)
    assert read < 0.65 * blocks.to_dict()["read_bytes"]


def test_regions_pay_sooner_where_reading_takes_longer(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 1000, 1)
    right, _ = make(lk, "right", 9000, 2)
    regions = {}
    for where in (True, False):
        monkeypatch.setattr(Plan, "here", where)
        told = left.knn_join(right, 5, nprobe=8, executor=Wide(4), dry_run=True)
        regions[where] = told.to_dict()["regions"]
    assert regions == {True: 1, False: 4}


def test_memory_counts_the_ranges_of_ids_that_live(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", 2000, 1)
    table.create_index("vector", "ivf_flat", partitions=4)
    table.build(executor=LocalExecutor(1), on_event=ignore)
    plan = table.knn_join(table, 5, nprobe=2, dry_run=True).plan
    room = [plan.cut(2, ranges).most_rows for ranges in (1, 1_000_000)]
    assert 16_000_000 // 700 < room[0] - room[1] < 16_000_000 // 300, "16 bytes each; a row has some hundreds"


def test_fewer_vectors_than_partitions_are_probed(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    rng = np.random.default_rng(3)
    schema = lake.Schema([lake.Column("id", int), lake.Column("vector", lake.Embedding(8))], key="id")
    tables: list[lake.Table] = []
    for name, rows, there in (("left", 700, 700), ("right", 6000, 10)):
        vectors = [rng.standard_normal(8).tolist() if i < there else None for i in range(rows)]
        tables.append(lk.create_table(name, schema))
        tables[-1].append(
            pa.table({"id": pa.array(range(rows)), "vector": pa.array(vectors, pa.list_(pa.float32(), 8))})
        )
    found, report = both(tables[0], tables[1], 12, nprobe=16)
    assert (report.probes, report.recall.measured) == (10, 1.0)
    assert len(found) == 700 * 10


def test_the_live_view_counts_the_rows_of_every_stage(tmp_path: Any) -> None:
    lk = lake.connect(tmp_path)
    left, _ = make(lk, "left", 700, 1)
    right, _ = make(lk, "right", 6000, 2)
    for executor, stages in ((LocalExecutor(1), {"join"}), (Wide(8), {"send", "join", "merge"})):
        counted: dict[str, int] = {}
        view = Progress(Console(file=StringIO(), force_terminal=True))

        def listen(event: Event, view: Progress = view, counted: dict[str, int] = counted) -> None:
            view(event)
            if isinstance(event, TaskDone):
                assert type(event.rows) is int
                counted[event.stage] = counted.get(event.stage, 0) + event.rows

        with view:
            report = left.knn_join(right, 5, nprobe=4, executor=executor, on_event=listen).report
        assert {"sort", *stages} <= counted.keys()
        assert counted["join"] == round(700 * report.met)
        assert all(counted[name] == 700 for name in stages - {"join"})

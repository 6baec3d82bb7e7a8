"""Deduplication against all pairs in numpy: groups, what is kept, what is told, what is deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import AlreadyExists, InvalidInput, NotFound, NotSupported
from lake.run import Event, LocalExecutor
from lake.storage import Files, Location
from lake.table import commit as committing
from tests.support import duplicates as plain
from tests.support.duplicates import Rows, make, planted, same, told

WITHIN = 0.05
Change = Callable[[lake.Table], Any]


def ids(table: lake.Table, where: str | None = None) -> set[int]:
    return set(table.to_arrow(["id"], where)["id"].to_pylist())


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("how", ["all", "sort", "index"])
def test_groups_are_those_of_all_pairs(tmp_path: Path, metric: str, how: str) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", planted(900, 16), metric, missing=50)
    if how == "index":
        table.create_index("vector", "ivf_flat", partitions=8)
        table.build(executor=LocalExecutor(1))
    within = WITHIN if metric == "l2" else WITHIN / 2
    report = table.dedup(within=within, recall=1.0 if how == "all" else 0.99, into="groups")
    found = lk["groups"].to_arrow()
    wanted = plain.groups(list(rows.values()), within, metric)
    assert len(wanted) > 100
    assert max(map(len, wanted)) > 3
    assert same(told(found), wanted)
    assert (report.rows, report.without_vector) == (900, 18)
    assert report.duplicates == sum(map(len, wanted)) - len(wanted)
    assert report.rows == report.kept + report.duplicates + report.without_vector
    assert (report.groups, report.largest) == (len(wanted), max(map(len, wanted)))
    assert (report.recall is None) == (how == "all")
    assert ids(table) == set(rows), "nothing is deleted unless told to"
    apart = plain.distances(np.stack([rows[i]["vector"] if i % 50 else np.ones(16) for i in rows]), metric)
    sizes = {i: len(group) for group in wanted for i in group}
    for row in found.to_pylist():
        assert row["size"] == sizes[row["id"]]
        assert row["kept"] == (row["id"] == row["group_id"])
        if row["kept"]:
            assert row["distance"] is None
        else:
            assert row["distance"] == pytest.approx(apart[row["id"], row["group_id"]], abs=1e-5)
    assert report.farthest == pytest.approx(max(row["distance"] or 0 for row in found.to_pylist()))
    assert report.farthest > within, "there are chains"


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (1, 1), (2, 2), (3, 3), (10, 4)])
def test_groups_do_not_depend_on_k(tmp_path: Path, k: int, seed: int) -> None:
    """Points of a plane, clumped: many have more near ones than k."""
    rng = np.random.default_rng(seed)
    centres = rng.random((40, 2)) * 10
    points = (centres[rng.integers(0, 40, 500)] + 0.3 * rng.standard_normal((500, 2))).astype(np.float32)
    points[::9] = points[0]
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", points)
    report = table.dedup(within=0.03, k=k, recall=1.0, into="groups")
    assert same(told(lk["groups"].to_arrow()), plain.groups(list(rows.values()), 0.03, "l2"))
    assert report.crowded > 0
    assert (report.rounds > 1) == (k < 10)


def test_crowds_that_one_pair_links_are_one_group(tmp_path: Path) -> None:
    """The k nearest of every row are its own copies: no join of k sees the link."""
    points = np.repeat(np.array([[0, 0], [1, 0], [2, 0], [9, 9]], np.float32), 30, axis=0)
    table, _ = make(lake.connect(tmp_path), "t", points)
    report = table.dedup(within=1.5, k=3, recall=1.0)
    assert (report.groups, report.largest, report.kept) == (2, 90, 2)
    assert report.crowded == 120
    assert "120 rows have 3 near ones or more" in str(report)


@pytest.mark.parametrize("keep", ["first", "last", "time", "time DESC", "`group`, time desc", "id desc"])
def test_the_rule_tells_which_is_kept(tmp_path: Path, keep: str) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", planted(300, 8))
    table.dedup(within=WITHIN, keep=keep, into="groups", recall=1.0)

    def rank(i: int) -> tuple[Any, ...]:
        time = rows[i]["time"]
        late = time is None
        return {
            "first": (i,),
            "last": (-i,),
            "time": (late, time or 0, i),
            "time DESC": (late, -(time or 0), i),
            "`group`, time desc": (rows[i]["group"], late, -(time or 0), i),
            "id desc": (-i,),
        }[keep]

    groups = plain.groups(list(rows.values()), WITHIN, "l2")
    assert any(len({rows[i]["time"] for i in group}) < len(group) for group in groups), "there are ties"
    kept = {row["id"] for row in lk["groups"].to_arrow().to_pylist() if row["kept"]}
    assert kept == {min(group, key=rank) for group in groups}


def test_only_rows_that_pass_the_filter_take_part(root: Location) -> None:
    lk = lake.connect(root.uri, root.options)
    table, rows = make(lk, "t", planted(400, 8), missing=10)
    where = "group <> 'g1' AND (time > 3 OR time IS NULL)"
    chosen = [r for r in rows.values() if r["group"] != "g1" and (r["time"] is None or r["time"] > 3)]
    groups = plain.groups(chosen, WITHIN, "l2")
    report = table.dedup(within=WITHIN, where=where, into="groups", delete=True, dry_run=False)
    assert same(told(lk["groups"].to_arrow()), groups)
    assert report.rows == len(chosen)
    assert report.without_vector == sum(r["vector"] is None for r in chosen)
    gone = {i for group in groups for i in group if i != min(group)}
    assert len(gone) == report.duplicates == report.deleted
    assert len(gone) > 10
    assert ids(table) == set(rows) - gone
    assert not [n for n in Files(root).names() if n.startswith("_jobs/")], "a job without an id leaves nothing"


def test_rows_that_bear_one_key_are_told_apart(tmp_path: Path) -> None:
    """A table whose key stands twice, as appending makes it; and one that has no key."""
    lk = lake.connect(tmp_path)
    one = pa.array([[1.0, 0.0], [1.0, 0.0], [5.0, 5.0], [1.0, 0.0]], pa.list_(pa.float32(), 2))
    for key in ("id", None):
        table = lk.create_table(f"by {key}".replace(" ", "_"), {"id": [7, 7, 8, 9], "v": one}, key=key)
        report = table.dedup(within=0.1, into=f"groups_{key}", delete=True, dry_run=False, metric="l2")
        assert (report.kept, report.deleted) == (2, 2)
        assert sorted(table.to_arrow(["id"])["id"].to_pylist()) == [7, 8]
    assert lk["groups_None"].to_arrow().to_pylist()[0] == {
        "row_id": 0,
        "group_row_id": 0,
        "size": 3,
        "distance": None,
        "kept": True,
    }


def test_tables_with_nothing_to_compare(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", planted(30, 4), missing=1)
    report = table.dedup(within=1.0, into="groups", delete=True, dry_run=False)
    assert (report.rows, report.kept, report.duplicates, report.without_vector, report.deleted) == (30, 0, 0, 30, 0)
    assert len(lk["groups"]) == 0
    table.delete("true")
    report = table.dedup(within=1.0, delete=True)
    assert (report.rows, report.groups, report.deleted) == (0, 0, None)


def twins(tmp_path: Path) -> tuple[lake.Lake, lake.Table, Rows]:
    """Rows 0 to 29, and their copies, 100 places on, in another fragment; the rest is alone."""
    vectors = np.random.default_rng(1).standard_normal((150, 8)).astype(np.float32)
    vectors[100:130] = vectors[:30]
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", vectors)
    return lk, table, rows


def test_a_dry_run_tells_and_the_same_job_then_does(tmp_path: Path) -> None:
    lk, table, rows = twins(tmp_path)
    asked: dict[str, Any] = {"within": 0.01, "into": "groups", "delete": True, "job_id": "tidy"}
    first = table.dedup(**asked)
    assert (first.duplicates, first.deleted) == (30, None)
    assert table.version == first.version
    assert ids(table) == set(rows)
    assert table.dedup(**asked).repeated
    second = table.dedup(**asked, dry_run=False)
    assert (second.deleted, second.spared, second.repeated) == (30, 0, False)
    assert ids(table) == set(rows) - set(range(100, 130))
    assert second.deleted_version == table.version
    assert lk["groups"].version == 1
    table.append(plain.columns([rows[100]], 8))
    third = table.dedup(**asked, dry_run=False)
    assert third.repeated
    assert third.deleted == 30
    assert 100 in ids(table), "the job is done; it does not begin again"
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        table.dedup(**asked | {"within": 0.02})
    names = {name.rpartition("/")[2] for name in Files(Location.of(tmp_path / "_jobs")).names()}
    assert names == {"asked.json", "report.json"}


CHANGES: dict[str, tuple[Change, set[int], set[int]]] = {
    # what others do meanwhile; which duplicates stay; which rows they add or take
    "a duplicate is updated": (lambda t: t.update({"time": 99}, "id IN (100, 101)"), {100, 101}, set()),
    "a kept row is updated": (lambda t: t.update({"time": 99}, "id = 3"), {103}, set()),
    "a kept row is deleted": (lambda t: t.delete("id IN (4, 5)"), {104, 105}, {4, 5}),
    "a duplicate is deleted": (lambda t: t.delete("id = 110"), set(), {110}),
    "a duplicate is merged": (lambda t: t.merge({"id": [120], "time": [5]}), {120}, set()),
    "rows are appended": (lambda t: t.append({"id": [500], "group": ["new"]}), set(), {500}),
    "the table is compacted": (lambda t: t.compact(target_rows=1000), set(), set()),
    "rows are moved by both": (
        lambda t: (t.update({"time": 99}, "id IN (0, 117)"), t.compact(target_rows=1000)),
        {100, 117},
        set(),
    ),
    "an older version is restored": (lambda t: t.restore(1), set(range(100, 130)), set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_changed_since_they_were_read_stay(tmp_path: Path, change: str) -> None:
    _, table, rows = twins(tmp_path)
    act, stay, other = CHANGES[change]
    asked: dict[str, Any] = {"within": 0.01, "delete": True, "job_id": "tidy"}
    assert table.dedup(**asked).duplicates == 30
    act(table)
    report = table.dedup(**asked, dry_run=False)
    wanted = set() if "restored" in change else (set(rows) - (set(range(100, 130)) - stay)) ^ other
    assert ids(table) == (wanted - {110} if "a duplicate is deleted" in change else wanted)
    gone = 0 if "restored" in change else 30 - len(stay) - len(other & {110})
    assert (report.deleted, report.spared) == (gone, 30 - gone)


def test_a_row_that_was_updated_and_restored_since_is_another(tmp_path: Path) -> None:
    """What is there again is not what was read: the row was read as it was between."""
    _, table, _ = twins(tmp_path)
    before = table.version
    table.update({"vector": np.full(8, 3.0, np.float32)}, "id IN (140, 141)")
    asked: dict[str, Any] = {"within": 0.01, "delete": True, "job_id": "tidy"}
    assert table.dedup(**asked).duplicates == 31
    table.restore(before)
    assert table.dedup(**asked, dry_run=False).deleted == 30
    assert {140, 141} <= ids(table)


@pytest.mark.parametrize("victim", [7, 107])
def test_a_writer_that_comes_between_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int) -> None:
    """It commits after the deletion was planned: to the fragment of the duplicate, or of the row kept for it."""
    _, table, rows = twins(tmp_path)
    put, raced = committing._Writer.put, list[bool]()

    def late(self: Any, head: Any, operation: Any) -> Any:
        if not raced:
            raced.append(True)
            table.delete(f"id = {victim}")
        return put(self, head, operation)

    monkeypatch.setattr(committing._Writer, "put", late)
    report = table.dedup(within=0.01, delete=True, dry_run=False)
    assert raced
    assert (report.deleted, report.spared) == (29, 1)
    left = ids(table)
    assert 7 in left or 107 in left, "a group lost its last row"
    assert len(left) == len(rows) - 30


def test_two_jobs_that_keep_different_rows_leave_one_of_each(tmp_path: Path) -> None:
    _, table, rows = twins(tmp_path)
    for keep in ("first", "last"):
        table.dedup(within=0.01, delete=True, job_id=keep, keep=keep)
    done = [table.dedup(within=0.01, delete=True, job_id=k, keep=k, dry_run=False) for k in ("first", "last")]
    assert [report.deleted for report in done] == [30, 0]
    assert [report.spared for report in done] == [0, 30]
    assert ids(table) == set(rows) - set(range(100, 130))


def test_a_table_that_was_made_anew_is_not_deleted_from(tmp_path: Path) -> None:
    lk, table, _ = twins(tmp_path)
    asked: dict[str, Any] = {"within": 0.01, "delete": True, "job_id": "tidy"}
    table.dedup(**asked)
    lk.drop_table("t")
    make(lk, "t", planted(150, 8))
    with pytest.raises(NotFound, match="'tidy' read version 4 of .*, which is gone"):
        lk["t"].dedup(**asked, dry_run=False)
    assert len(lk["t"]) == 150


def test_a_table_without_stable_row_ids_is_read_and_not_deleted_from(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 0.0]] * 3, pa.list_(pa.float32(), 2))
    lance.write_dataset(pa.table({"id": [1, 2, 3], "v": vectors}), str(tmp_path / "t.lance"))
    table = lake.connect(tmp_path).open_table("t")
    assert table.dedup(within=0.1).duplicates == 2
    with pytest.raises(NotSupported, match="stable row ids"):
        table.dedup(within=0.1, delete=True, dry_run=False)
    assert len(table) == 3


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "within": ({"within": float("nan")}, "within=nan: give a distance"),
    "within text": ({"within": "near"}, "within='near': give a distance"),
    "within nothing": ({"within": 0}, "no l2 distance is less"),
    "k": ({"k": 0}, "k=0: give 1 to 1,000"),
    "recall": ({"recall": 0}, "recall=0: give a share"),
    "metric": ({"metric": "hamming"}, "metric='hamming': a join knows"),
    "column": ({"column": "vektor"}, "vektor"),
    "not vectors": ({"column": "time"}, "a join compares float vectors"),
    "where": ({"where": "time >"}, "time >"),
    "keep": ({"keep": "the best"}, "keep='the best': give 'first', 'last', or an order"),
    "keep empty": ({"keep": ""}, "keep=''"),
    "keep column": ({"keep": "tyme desc"}, "tyme"),
    "keep vectors": ({"keep": "vector"}, "rows have no order by vector"),
    "into": ({"into": "a/b"}, "a/b"),
    "memory": ({"memory": "much"}, "memory='much'"),
    "job": ({"job_id": "a/b"}, "a/b"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> lake.Table:
    return make(lake.connect(tmp_path_factory.mktemp("small")), "t", planted(20, 4))[0]


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(small: lake.Table, what: str) -> None:
    given, message = WRONG[what]
    with pytest.raises((InvalidInput, NotFound), match=message.replace("(", r"\(")):
        small.dedup(**{"within": 0.1, "into": "groups", **given})
    root = Location.of(small.uri.rpartition("/")[0])
    assert not [name for name in Files(root).names() if not name.startswith("t.lance/")]


def test_bad_vectors_and_taken_names_are_refused(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors = planted(20, 4)
    table, _ = make(lk, "t", vectors)
    with pytest.raises(AlreadyExists):
        table.dedup(within=0.1, into="t")
    keyed = lk.create_table("keyed", {"size": [1], "v": vectors[:1]}, key="size")
    with pytest.raises(InvalidInput, match="'size' has the name of a column"):
        keyed.dedup(within=0.1, into="g")
    with pytest.raises(InvalidInput, match="give a table or a snapshot, not list"):
        lake.dedup([], within=0.1)  # type: ignore[arg-type]


def test_what_a_job_reads_is_pinned_meanwhile(tmp_path: Path) -> None:
    _, table, _ = twins(tmp_path)
    pinned: list[int] = []

    def listen(_: Event) -> None:
        pinned.extend(tag["version"] for name, tag in table.dataset.tags.list().items() if name.endswith(".tidy"))

    table.dedup(within=0.01, job_id="tidy", on_event=listen)
    assert set(pinned) == {table.version}
    assert not table.dataset.tags.list()


def test_nothing_is_left_of_a_job_without_an_id_that_failed(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors = planted(20, 4)
    vectors[3] = 0
    table, _ = make(lk, "t", vectors)
    with pytest.raises(InvalidInput, match="zero vector"):
        table.dedup(within=0.1, metric="cosine")
    assert lk.list_tables() == ["t"]
    assert not list(Files(Location.of(tmp_path / "_jobs")).names())

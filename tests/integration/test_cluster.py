"""Clustering against plain k-means in numpy: clusters, bounds, columns, what others do meanwhile, order of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from threadpoolctl import threadpool_limits

import lake
from lake.analytics import arrange as arranging
from lake.analytics import rounds as going
from lake.analytics.centers import Centers
from lake.analytics.quotas import quotas
from lake.errors import AlreadyExists, Conflict, InvalidInput, MemoryExceeded, NotFound, NotSupported
from lake.storage import Files, Location
from lake.table import commit as committing
from tests.support import clusters as plain
from tests.support.clusters import blobs, labels, make, rows

Change = Callable[[lake.Table], Any]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of hundreds of rows is cut into as many tasks as one of millions."""
    monkeypatch.setattr(going, "_FEWEST", 400)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_every_row_is_in_the_cluster_whose_mean_is_nearest(root: Location, metric: str) -> None:
    vectors = blobs(700)
    table = make(lake.connect(root.uri, root.options), "t", vectors, metric, missing=10)
    report = table.cluster(6, rounds=40)
    assert (report.changed, report.settled) == (0, True)
    assert "not settled" not in str(report)
    found = labels(table)
    there = np.array([i for i in range(700) if i % 10])
    assert {i for i, c in found.items() if c is None} == {i for i in range(700) if i % 10 == 0}
    of = np.array([found[int(i)] for i in there])
    space = vectors[there].astype(np.float64)
    space = plain.unit(space) if metric == "cosine" else space
    means = plain.centroids(space, of, metric)
    assert sorted(means) == list(range(6))
    apart = plain.distances(space, np.stack([means[c] for c in range(6)]), metric)
    own = apart[np.arange(len(of)), of]
    assert (own <= apart.min(axis=1) + 1e-5).all()
    assert report.inertia == pytest.approx(own.sum(), rel=1e-4)
    assert report.sizes == tuple(np.bincount(of, minlength=6))
    assert (report.rows, report.without_vector, report.clustered) == (700, 70, 630)
    assert (report.version, report.labelled_version) == (4, 5)
    assert table.version == 5
    assert not [n for n in Files(root).names() if n.startswith("_jobs/")], "a job without an id leaves nothing"


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_as_tight_as_those_of_plain_k_means(tmp_path: Path, seed: int) -> None:
    vectors = blobs(600, seed, spread=0.8)
    report = make(lake.connect(tmp_path), "t", vectors).cluster(10, seed=seed)
    others = [plain.lloyd(vectors.astype(np.float64), 10, start) for start in range(5)]
    assert report.inertia < 1.05 * min(others)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_what_single_precision_cannot_tell_double_precision_decides(metric: str) -> None:
    rng = np.random.default_rng(0)
    points = (rng.standard_normal((2000, 16)) + 50).astype(np.float32)
    near = np.repeat(points[:10] if metric == "l2" else plain.unit(points[:10]), 3, axis=0)
    centroids = (near * (1 + 1e-7 * rng.standard_normal(near.shape))).astype(np.float32)
    prices = rng.random(len(centroids)) * 1e-5
    a, c = points.astype(np.float64), centroids.astype(np.float64)
    exact = ((a[:, None] - c[None]) ** 2).sum(-1) + prices if metric == "l2" else 1 - a @ c.T + prices
    found = Centers(centroids, prices, metric).assign(points)
    margin = np.sort(exact, axis=1)
    told = margin[:, 1] - margin[:, 0] > 1e-9 * np.abs(exact).max()
    assert told.mean() > 0.9
    assert (found == exact.argmin(axis=1))[told].all()


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    """Every row lies exactly between two others: single precision alone would decide by chance."""
    rng = np.random.default_rng(1)
    vectors = rng.integers(-2, 3, (1000, 8)).astype(np.float32) / 3
    made = []
    for threads in (1, 2):
        table = make(lake.connect(tmp_path), f"t{threads}", vectors, parts=threads)
        with threadpool_limits(threads):
            report = table.cluster(25, rounds=5)
        assert report.changed > 1
        assert not report.settled
        assert "changed in the last, not settled" in str(report)
        made.append((labels(table), report.sizes, report.changed))
    assert made[0][0] == made[1][0]
    assert made[0] == made[1]


def test_only_rows_that_pass_the_filter_are_clustered(tmp_path: Path) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(300))
    report = table.cluster(3, where="kind <> 'k1'", into_column="topic")
    found = labels(table, "topic")
    assert {i for i, c in found.items() if c is None} == {i for i in range(300) if i % 3 == 1}
    assert (report.rows, report.column, report.labelled) == (200, "topic", 200)


def test_vectors_that_coincide_leave_clusters_empty(tmp_path: Path) -> None:
    table = make(lake.connect(tmp_path), "t", np.repeat(np.eye(8, dtype=np.float32)[:3], 20, axis=0))
    report = table.cluster(5)
    assert sorted(report.sizes) == [0, 0, 20, 20, 20]
    assert report.inertia == 0
    assert "2 are empty" in str(report)


@pytest.mark.parametrize("ratio", [True, 1.0, 1.5])
@pytest.mark.parametrize("what", ["blobs", "copies"])
def test_no_cluster_is_larger_than_its_bound(tmp_path: Path, ratio: float, what: str) -> None:
    vectors = blobs(1003, spread=0.8)
    if what == "copies":
        vectors[::2] = vectors[0]  # half of the rows are one point
    table = make(lake.connect(tmp_path), "t", vectors, missing=17)
    free = table.cluster(9, into_column="free", rounds=3)
    report = table.cluster(9, balanced=ratio, rounds=12)
    bound = int(np.ceil((1.25 if ratio is True else ratio) * report.clustered / 9))
    assert report.capacity == bound
    assert max(free.sizes) > bound, "the bound binds"
    assert max(report.sizes) <= bound
    found = labels(table)
    counts = np.bincount([c for c in found.values() if c is not None], minlength=9)
    assert tuple(counts) == report.sizes
    assert sum(report.sizes) == report.rows - report.without_vector
    there = [i for i, c in found.items() if c is not None]
    of = np.array([found[i] for i in there])
    space = vectors[there].astype(np.float64)
    means = plain.centroids(space, of, "l2")
    spread = sum(((space[of == c] - mean) ** 2).sum() for c, mean in means.items())
    chance = ((space - space.mean(0)) ** 2).sum()
    assert spread < 0.75 * chance, "rows are moved where they lose least"
    if what == "blobs":
        assert report.moved is not None
        assert report.moved < 0.2 * report.rows, "prices have done most of it"


@given(
    counts=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 60)),
    ratio=st.floats(1.0, 3.0),
)
def test_quotas_hold_and_suffice(counts: Any, ratio: float) -> None:
    capacity = max(1, int(np.ceil(ratio * counts.sum() / counts.shape[1])))
    kept, taken = quotas(counts, capacity)
    assert (kept >= 0).all()
    assert (taken >= 0).all()
    assert (kept <= counts).all()
    assert ((kept + taken).sum(axis=0) <= capacity).all(), "no cluster gets more than it may hold"
    assert (taken.sum(axis=1) >= (counts - kept).sum(axis=1)).all(), "each block finds room for all"
    fits = counts.sum(axis=0) <= capacity
    assert (kept[:, fits] == counts[:, fits]).all(), "nobody leaves a cluster that has room"


CHANGES: dict[str, tuple[Change, set[int], set[int]]] = {
    # what others do before the column is committed; who has no cluster then; who is gone
    "rows are appended": (lambda t: t.append(rows([900, 901], blobs(2))), {900, 901}, set()),
    "vectors are updated": (lambda t: t.update({"v": np.ones(8, np.float32)}, "id IN (3, 150)"), {3, 150}, set()),
    "rows are deleted": (lambda t: t.delete("id IN (7, 250)"), set(), {7, 250}),
    "the table is compacted": (lambda t: t.compact(target_rows=1000), set(), set()),
    "a column is added": (lambda t: t.add_columns({"n": pa.int64()}), set(), set()),
    "rows move": (
        lambda t: (t.update({"kind": "x"}, "id = 9"), t.delete("id = 8"), t.compact(target_rows=1000)),
        {9},
        {8},
    ),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, int | None]:
    """The clusters that nobody interferes with."""
    table = make(lake.connect(tmp_path_factory.mktemp("same")), "t", blobs(300))
    table.cluster(4, rounds=4)
    return labels(table)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_came_or_changed_meanwhile_have_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[int, int | None], change: str, again: bool
) -> None:
    act, absent, gone = CHANGES[change]
    table = make(lake.connect(tmp_path), "t", blobs(300))
    table.create_index("v", "ivf_flat", partitions=2)
    table.build()
    if again:
        table.cluster(3, rounds=1)
    put, raced = committing._Writer.put, list[bool]()

    def late(self: Any, head: Any, operation: Any) -> Any:
        if not raced:
            raced.append(True)
            act(table)
        return put(self, head, operation)

    read = table.version
    monkeypatch.setattr(committing._Writer, "put", late)
    report = table.cluster(4, rounds=4)
    assert raced
    expected = {i: c for i, c in undisturbed.items() if i not in gone} | dict.fromkeys(absent)
    assert labels(table) == expected
    assert report.version == read
    assert report.labelled == sum(c is not None for c in expected.values())
    assert ("have changed or gone" in str(report)) == bool((absent | gone) & set(range(300)))
    [covered] = table.coverage()
    assert covered.rows_covered >= 300 - len(absent | gone), "the index goes on covering the rows"


def test_a_column_that_no_clustering_made_is_left_alone(tmp_path: Path) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(100))
    for name in ("kind", "Kind", "v", "id"):
        with pytest.raises(AlreadyExists, match="choose another name"):
            table.cluster(3, into_column=name)
    with pytest.raises(InvalidInput):
        table.cluster(3, into_column="no`name")
    assert table.version == 4
    first = table.cluster(3, rounds=2)
    meaning = table.schema.column("cluster").derivation
    assert meaning is not None
    assert (meaning.function, meaning.inputs) == ("lake.cluster", ("v",))
    second = table.cluster(2, rounds=2)
    assert set(labels(table).values()) == {0, 1}
    assert second.labelled_version == first.labelled_version + 1
    assert table.changes(since=first.labelled_version).counts() == {"insert": 0, "update": 100, "delete": 0}


def test_a_job_of_an_id_is_done_once(tmp_path: Path) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(100))
    first = table.cluster(3, job_id="topics")
    assert table.cluster(3, job_id="topics").to_dict() | {"repeated": False, "seconds": 0} == first.to_dict() | {
        "seconds": 0
    }
    assert table.version == first.labelled_version
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        table.cluster(4, job_id="topics")
    names = {name.rpartition("/")[2] for name in Files(Location.of(tmp_path / "_jobs")).names()}
    assert names == {"asked.json", "report.json"}
    assert not table.dataset.tags.list()


def by_fragment(table: lake.Table) -> list[set[int | None]]:
    return [set(f.to_table(columns=["cluster"])["cluster"].to_pylist()) for f in table.dataset.get_fragments()]


def test_rows_are_put_in_the_order_of_their_clusters(tmp_path: Path) -> None:
    vectors = blobs(900)
    table = make(lake.connect(tmp_path), "t", vectors, missing=30)
    table.create_index("v", "ivf_flat", partitions=4)
    table.create_index("id", "btree")
    table.build()
    table.delete("id = 5")
    before = {row["id"]: row for row in table.to_arrow().to_pylist()}
    report = table.cluster(12, arrange=150, rounds=4)
    assert (report.labelled_version, report.arranged_version) == (table.version - 1, table.version)
    after = {row.pop("id"): row for row in table.to_arrow().to_pylist()}
    assert {i: row | {"cluster": after[i]["cluster"], "id": i} for i, row in before.items()} == {
        i: row | {"id": i} for i, row in after.items()
    }
    assert table.schema.key == ("id",)
    held = by_fragment(table)
    assert len(held) >= 6
    order = [c for f in table.dataset.get_fragments() for c in f.to_table(columns=["cluster"])["cluster"].to_pylist()]
    assert order == sorted(order, key=lambda c: (c is None, c))
    for cluster, size in enumerate(report.sizes):
        assert sum(cluster in some for some in held) == -(-size // 150), "few fragments hold a cluster"
    assert max(f.count_rows() for f in table.dataset.get_fragments()) <= 150
    assert [spec.name for spec in table.indexes()] == ["id_idx", "v_idx"]

    def nearest() -> list[int]:
        return [row["id"] for row in table.search(vector=vectors[70], k=5, columns=["id"], nprobe=4).to_pylist()]

    apart = ((vectors - vectors[70]) ** 2).sum(1).astype(np.float64)
    apart[[i for i in range(900) if i % 30 == 0 or i == 5]] = np.inf
    assert nearest() == np.argsort(apart)[:5].tolist(), "found though the index knows none of the new rows"
    assert table.count_rows("id = 70") == 1
    table.build()
    assert table.coverage().complete
    assert nearest() == np.argsort(apart)[:5].tolist()


@pytest.mark.parametrize("what", ["append", "delete", "always"])
def test_others_may_write_while_rows_are_put_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(200))
    commit, times = committing.commit, list[int]()

    def late(*given: Any, **named: Any) -> Any:
        times.append(1)
        if what == "append" and len(times) == 1:
            table.append(rows([900], blobs(1)))
        if what == "always" or (what == "delete" and len(times) == 1):
            table.delete(f"id = {len(times)}")
        return commit(*given, **named)

    monkeypatch.setattr(arranging, "commit", late)
    if what == "always":
        with pytest.raises(Conflict, match="rows were changed while they were rewritten"):
            table.cluster(4, arrange=True, rounds=2)
        assert len(table) == 197
        return
    table.cluster(4, arrange=20, rounds=2)
    assert len(times) == (1 if what == "append" else 2)
    assert set(labels(table)) == (set(range(200)) | {900} if what == "append" else set(range(200)) - {1})
    assert len(table) == (201 if what == "append" else 199)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "clusters": ({"clusters": 0}, "clusters=0: give a whole number"),
    "clusters text": ({"clusters": "many"}, "clusters='many'"),
    "clusters many": ({"clusters": 21}, "clusters=21: there are 20 rows"),
    "vectors few": ({"clusters": 19}, "only 18 rows have a vector"),
    "rounds": ({"rounds": 0}, "rounds=0"),
    "seed": ({"seed": -1}, "seed=-1"),
    "balanced": ({"balanced": 0.5}, "balanced=0.5: give a multiple"),
    "balanced nan": ({"balanced": float("nan")}, "balanced=nan"),
    "arrange": ({"arrange": -3}, "arrange=-3"),
    "metric": ({"metric": "hamming"}, "metric='hamming'"),
    "column": ({"column": "w"}, "w"),
    "not vectors": ({"column": "id"}, "compares float vectors"),
    "where": ({"where": "kind >"}, "kind >"),
    "memory": ({"memory": "much"}, "memory='much'"),
    "memory small": ({"memory": "1MiB"}, "3 clusters need memory="),
    "job": ({"job_id": "a/b"}, "a/b"),
}


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> lake.Table:
    return make(lake.connect(tmp_path_factory.mktemp("small")), "t", blobs(20), missing=10)


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(twenty: lake.Table, what: str) -> None:
    asked, message = WRONG[what]
    with pytest.raises((InvalidInput, NotFound, MemoryExceeded), match=message):
        twenty.cluster(**{"clusters": 3, "job_id": "j", **asked})
    root = Location.of(twenty.uri.rpartition("/")[0])
    assert not [name for name in Files(root).names() if not name.startswith("t.lance/")]
    assert twenty.version == 4


def test_tables_and_vectors_that_cannot_be_clustered(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    with pytest.raises(InvalidInput, match="give a table or a snapshot, not list"):
        lake.cluster([], 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="pinned at version 4"):
        make(lk, "old", blobs(20)).at(4).cluster(2)
    bad = blobs(300)
    bad[299] = 0
    table = make(lk, "bad", bad)
    with pytest.raises(InvalidInput, match="zero vector"):
        table.cluster(3, metric="cosine")
    assert table.version == 4
    vectors = pa.array([[1.0, 0.0]] * 3, pa.list_(pa.float32(), 2))
    lance.write_dataset(pa.table({"id": [1, 2, 3], "v": vectors}), str(tmp_path / "plain.lance"))
    with pytest.raises(NotSupported, match="stable row ids"):
        lk["plain"].cluster(2)
    schema = lake.Schema([lake.Column("v", lake.Embedding(8)), lake.Column("b", bytes, "blob")])
    blob = lk.create_table("blobs", schema)
    blob.append({"v": blobs(5), "b": [b"x"] * 5})
    with pytest.raises(NotSupported, match="holds blobs"):
        blob.cluster(2, arrange=True)
    assert blob.cluster(2).labelled == 5
    assert not list(Files(Location.of(tmp_path / "_jobs")).names())


def test_the_report_shows_the_sizes(tmp_path: Path) -> None:
    table = make(lake.connect(tmp_path), "t", blobs(200))
    report = table.cluster(5, balanced=1.5, rounds=3)
    page = report.save(tmp_path / "sizes.html").read_text()
    assert page.count("<rect") == 5
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert f"largest {max(report.sizes)}" in page
    with pytest.raises(InvalidInput, match="cannot write"):
        report.save(tmp_path / "nowhere" / "sizes.html")

"""Outliers, labels and triplets, against all pairs in numpy; counts that add up; what makes no sense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.analytics import joined, scores
from lake.analytics.votes import interval
from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.run import LocalExecutor
from lake.storage import Files, Location
from tests.support import neighbours as plain
from tests.support.neighbours import Rows, clumps, make


def built(table: lake.Table) -> None:
    table.create_index("vector", "ivf_flat", partitions=16)
    table.build(executor=LocalExecutor(1))


def by_id(table: lake.Table) -> dict[int, dict[str, Any]]:
    rows = table.to_arrow().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def having(rows: Rows, label: bool = True) -> Rows:
    return {i: row for i, row in rows.items() if (row["kind"] is not None) == label}


@pytest.mark.parametrize(
    ("metric", "how", "score"),
    [("l2", "all", "kth"), ("l2", "index", "mean"), ("cosine", "sort", "kth"), ("dot", "all", "mean")],
)
def test_scores_are_those_of_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, how: str, score: str
) -> None:
    if how == "index":
        monkeypatch.setattr(scores, "_FIRST", 1)  # so that some are left to doubt
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", *clumps(900, 8), metric=metric, missing=50)
    table.delete("id % 100 = 7")
    rows = {i: row for i, row in rows.items() if i % 100 != 7}
    if how == "index":
        built(table)
    recall = 1.0 if how == "all" else 0.8
    report = table.outliers(into="odd", k=6, score=score, share=0.03, recall=recall)
    true = plain.scores(plain.nearest(rows, rows, 6, metric, apart=True), score)
    found = by_id(lk["odd"])
    assert set(found) == set(true)
    slack = 1e-5 * max(map(abs, true.values()))
    for i, row in found.items():
        assert row["score"] > true[i] - slack
        assert how != "all" or row["score"] < true[i] + slack
    ranked = sorted(found.values(), key=lambda row: (-row["score"], row["id"]))
    assert [row["rank"] for row in ranked] == list(range(len(true)))
    count = -(-len(true) * 3 // 100)
    farthest = sorted(true, key=lambda i: -true[i])
    assert true[farthest[count - 1]] - true[farthest[count]] > slack, "the example is too close to call"
    assert {i for i, row in found.items() if row["flagged"]} == set(farthest[:count]), "whatever the recall"
    assert (report.rows, report.scored, report.without_vector) == (len(rows), len(true), len(rows) - len(true))
    assert report.flagged == count
    assert report.threshold == pytest.approx(true[farthest[count - 1]], rel=1e-4)
    assert report.largest == pytest.approx(true[farthest[0]], rel=1e-4)
    assert (report.recall is None) == (how == "all")
    assert (report.searched_again >= count) == (how != "all")


def test_rows_whose_partitions_hold_too_few_are_compared_with_all(tmp_path: Path) -> None:
    """Three rows far from all are each other's only neighbours in their partition."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((1000, 4)).astype(np.float32)
    vectors[500:503] = 60 + rng.standard_normal((3, 4))
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", vectors, ["a"] * 1000)
    built(table)
    report = table.outliers(into="odd", k=5, share=0.0, recall=0.5)
    true = plain.scores(plain.nearest(rows, rows, 5, "l2", apart=True), "kth")
    found = by_id(lk["odd"])
    assert min(true[i] for i in (500, 501, 502)) > 1000
    assert [found[i]["score"] for i in (500, 501, 502)] == pytest.approx([true[i] for i in (500, 501, 502)], rel=1e-4)
    assert {found[i]["rank"] for i in (500, 501, 502)} == {0, 1, 2}
    assert 3 <= report.searched_again < 200
    assert (report.flagged, report.threshold) == (0, None)
    assert "flagged" not in str(report)


LABELS: dict[str, Any] = {"text": str, "number": lambda s: int(s[-1]), "truth": lambda s: s[-1] in "02"}


@pytest.mark.parametrize(
    ("kind", "metric", "recall"), [("text", "l2", 1.0), ("number", "cosine", 0.99), ("truth", "cosine", 1.0)]
)
def test_labels_are_those_that_neighbours_vote_for(tmp_path: Path, kind: str, metric: str, recall: float) -> None:
    lk = lake.connect(tmp_path)
    vectors, said = clumps(1200, 6)
    vectors[10], vectors[20] = vectors[11], vectors[31]  # copies decide alone
    labels = [LABELS[kind](s) for s in said]
    table, rows = make(lk, "t", vectors, labels, metric=metric, missing=30, blank=10 if recall == 1 else 2)
    report = table.classify(label="kind", into="labels", k=7, least=0.6, recall=recall, sample=10_000)
    examples, blank = having(rows), having(rows, label=False)
    true = plain.votes(plain.nearest(blank, examples, 7, metric, apart=False), rows)
    found = by_id(lk["labels"])
    assert set(found) == set(true)
    assert sum(found[i]["confidence"] == pytest.approx(true[i][0][0], abs=1e-4) for i in true) >= recall**7 * len(true)
    if recall == 1:
        for i, ((share, label), *others) in true.items():
            row = found[i]
            assert row["confidence"] == pytest.approx(share, abs=1e-4)
            assert abs(share - 0.6) > 1e-4
            assert row["kind"] == (label if share >= 0.6 else None)
            assert (row["runner_up"] is None) == (not others)
            assert not others or row["runner_up"] in {name for s, name in others if s > others[0][0] - 1e-4}
        assert (found[10]["kind"], found[10]["confidence"]) == (rows[11]["kind"], 1.0)
    labelled = sum(row["kind"] is not None for row in found.values())
    assert (report.rows, report.labelled, report.undecided) == (len(blank), labelled, len(true) - labelled)
    assert report.rows == report.labelled + report.undecided + report.without_vector
    assert 0 < report.labelled < len(true)
    assert report.examples == len(examples)
    assert (report.recall is None) == (recall == 1)

    out = plain.votes(plain.nearest(examples, examples, 7, metric, apart=True), rows)
    decided = {i: told[0][1] for i, told in out.items() if told[0][0] >= 0.6}
    right = sum(rows[i]["kind"] == label for i, label in decided.items())
    assert report.accuracy is not None
    assert (report.accuracy["sample"], report.accuracy["decided"]) == (len(out), len(decided))
    assert report.accuracy["measured"] == pytest.approx(right / len(decided), abs=1e-9)
    commonest = max(np.unique([rows[i]["kind"] for i in out], return_counts=True)[1])
    assert report.accuracy["baseline"] == pytest.approx(commonest / len(out))
    assert report.accuracy["low"] < report.accuracy["measured"] < report.accuracy["high"]


def test_labels_come_from_another_table(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors, labels = clumps(600, 6)
    table, rows = make(lk, "t", vectors[:100], labels[:100])
    known, examples = make(lk, "known", vectors[100:], labels[100:], blank=3)
    report = lake.classify(
        table,
        label="kind",
        labelled=known,
        labelled_where="id < 400",
        where="id >= 10",
        into="labels",
        least=0,
        sample=0,
    )
    some = {i: row for i, row in having(examples).items() if i < 400}
    true = plain.votes(plain.nearest({i: rows[i] for i in range(10, 100)}, some, 10, "l2", apart=False), examples)
    found = by_id(lk["labels"])
    assert {i: row["kind"] for i, row in found.items()} == {i: told[0][1] for i, told in true.items()}
    assert (report.rows, report.labelled, report.undecided, report.examples) == (90, 90, 0, len(some))
    assert report.accuracy is None
    table.merge(lk["labels"].to_arrow(["id", "kind"]))  # what the names of its columns are for
    assert by_id(table)[50]["kind"] == found[50]["kind"]


def test_the_interval_holds_the_share_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for share in (0.5, 0.9, 0.99):
        held = [low <= share <= high for low, high in (interval(int(n), 200) for n in rng.binomial(200, share, 2000))]
        assert 0.92 < np.mean(held) < 0.99
    assert interval(0, 5)[0] == 0.0
    assert interval(5, 5)[1] == 1.0


PLAIN: dict[str, Any] = {"positives": 1, "negatives": 3, "margin": 0.0, "relative": 0.0, "skip": 0}
RULES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "many": {"positives": 3, "negatives": 4},
    "no margin": {"margin": None, "negatives": 100},
    "margins": {"margin": 0.3, "relative": 0.2, "positives": 2},
    "skip": {"skip": 4, "negatives": 2},
}


@pytest.mark.parametrize("rule", RULES)
def test_triplets_are_those_of_all_pairs(tmp_path: Path, rule: str) -> None:
    lk = lake.connect(tmp_path)
    table, rows = make(lk, "t", *clumps(500, 6), missing=40, blank=11)
    asked = PLAIN | RULES[rule]
    report = table.mine(label="kind", into="train", k=20, columns=["text"], recall=1.0, **RULES[rule])
    some = having(rows)
    near = plain.nearest(some, some, 20, "l2", apart=True)
    wanted = plain.triplets(near, rows, rows, asked)
    train = lk["train"].to_arrow()
    found = [(r["anchor_id"], r["positive_id"], r["negative_id"]) for r in train.to_pylist()]
    assert found == wanted, "in order: anchors as they stand, the hardest first"
    assert len(wanted) > 300
    distance = {(i, j): d for i, listed in near.items() for d, j in listed}
    for row in train.to_pylist()[::37]:
        for role in ("positive", "negative"):
            there = distance[row["anchor_id"], row[f"{role}_id"]]
            assert row[f"{role}_distance"] == pytest.approx(there, rel=1e-4)
            assert row[f"{role}_text"] == f"text {row[f'{role}_id']}"
        assert row["anchor_text"] == f"text {row['anchor_id']}"
    assert (report.triplets, report.mined) == (len(wanted), len({i for i, _, _ in wanted}))
    assert report.rows == len(some) == report.mined + report.no_positive + report.no_negative + report.without_vector
    assert report.without_vector == sum(row["vector"] is None for row in some.values())
    labels = {i: {rows[j]["kind"] for _, j in listed} for i, listed in near.items()}
    assert report.no_positive == sum(rows[i]["kind"] not in told for i, told in labels.items())
    assert (report.refused == 0) == (asked["margin"] is None)


def test_triplets_are_taken_from_another_table(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors, labels = clumps(400, 6)
    queries, rows = make(lk, "queries", vectors[:100], labels[:100])
    pool, others = make(lk, "pool", vectors[100:], labels[100:])
    queries.mine(label="kind", pool=pool, pool_where="id < 200", where="id > 20", into="train", k=30, metric="cosine")
    some = {i: row for i, row in others.items() if i < 200}
    near = plain.nearest({i: row for i, row in rows.items() if i > 20}, some, 30, "cosine", apart=False)
    found = lk["train"].to_arrow().to_pylist()
    wanted = plain.triplets(near, rows, others, PLAIN)
    assert [(r["anchor_id"], r["positive_id"], r["negative_id"]) for r in found] == wanted
    # The same rows, of another version of their table: none meets itself.
    report = queries.mine(label="kind", pool=queries.at(2), into="own", margin=None, positives=50)
    assert report.mined > 0
    assert len(lk["own"]) == lk["own"].count_rows("anchor_id <> positive_id AND anchor_id <> negative_id")


def test_rows_that_bear_one_key_are_told_apart(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    one = pa.array([[1.0, 0.0], [1.0, 0.1], [5.0, 5.0], [1.0, 0.2]], pa.list_(pa.float32(), 2))
    for key in ("id", None):
        given = {"id": [7, 7, 8, 9], "kind": ["a", "b", "b", None], "v": one}
        table = lk.create_table(f"by_{key}", given, key=key)
        name = key or "row_id"
        table.outliers(into=f"odd_{key}", k=1)
        assert sorted(lk[f"odd_{key}"].to_arrow()[name].to_pylist()) == ([7, 7, 8, 9] if key else [0, 1, 2, 3])
        table.classify(label="kind", into=f"labels_{key}", k=1)
        [row] = lk[f"labels_{key}"].to_arrow().to_pylist()
        assert row == {name: 9 if key else 3, "kind": "b", "confidence": 1.0, "runner_up": None}
        table.mine(label="kind", into=f"train_{key}", margin=None)
        train = lk[f"train_{key}"].to_arrow().to_pylist()
        roles = [tuple(row[f"{role}_{name}"] for role in ("anchor", "positive", "negative")) for row in train]
        assert roles == ([(7, 8, 7), (8, 7, 7)] if key else [(1, 2, 0), (2, 1, 0)])


def test_tables_with_nothing_to_compare(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", *clumps(30, 4), missing=1, blank=2)
    table.append(pa.table({"id": [100], "vector": pa.array([[1.0] * 4], pa.list_(pa.float32(), 4))}))
    for where, rows, lacking in (("id < 50", 30, 30), ("id = 100", 1, 0), ("id > 100", 0, 0)):
        report = table.outliers(into=f"odd{rows}", where=where)
        assert (report.rows, report.without_vector, report.scored, report.flagged) == (rows, lacking, 0, 0)
        assert len(lk[f"odd{rows}"]) == 0
    report2 = table.classify(label="kind", into="labels")
    assert (report2.rows, report2.labelled, report2.undecided, report2.without_vector) == (16, 0, 1, 15)
    assert report2.accuracy is None
    report3 = table.mine(label="kind", into="train")
    assert (report3.rows, report3.mined, report3.without_vector, report3.triplets) == (15, 0, 15, 0)
    with pytest.raises(InvalidInput, match="no row of .* has a label; nothing to learn from"):
        table.classify(label="kind", into="more", labelled_where="id = 100")


def test_lists_are_whole_wherever_they_were_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and fragments end within lists."""
    sizes = [5, 1, 1, 9, 30, 2, 6, 1]
    left = np.repeat([3, 0, 9, 2, 50, 51, 8, 7], sizes)
    pairs = pa.table(
        {joined.LEFT: left, joined.RIGHT: np.arange(len(left)), "distance": np.arange(len(left), dtype=np.float32)}
    )
    lance.write_dataset(pairs, str(tmp_path / joined.PAIRS), max_rows_per_file=20)
    for batch in (1, 2, 3, 4, 7, 19, 20, 1000):
        monkeypatch.setattr(joined, "_BATCH", batch)
        blocks = list(joined.read(Location.of(tmp_path)))
        assert np.concatenate([b.left for b in blocks]).tolist() == [3, 0, 9, 2, 50, 51, 8, 7]
        assert np.concatenate([b.sizes for b in blocks]).tolist() == sizes
        assert np.concatenate([b.right for b in blocks]).tolist() == list(range(len(left)))
        assert len(blocks) > 1


GOOD: dict[str, dict[str, Any]] = {"outliers": {}, "classify": {"label": "kind"}, "mine": {"label": "kind"}}


@pytest.mark.parametrize("kind", GOOD)
def test_the_same_job_is_done_once(root: Location, kind: str) -> None:
    lk = lake.connect(root.uri, root.options)
    table, _ = make(lk, "t", *clumps(200, 4), blank=4)
    asked = GOOD[kind] | {"into": "told", "job_id": "nightly", "k": 5}
    first = getattr(table, kind)(**asked)
    before = lk["told"].to_arrow()
    table.delete("id < 100")
    again = getattr(lake, kind)(table, **asked)
    assert again.repeated
    assert f"nightly is done already: {table.uri} version {first.version}" in str(again)
    assert again.to_dict() | {"repeated": False, "seconds": first.seconds} == first.to_dict()
    assert lk["told"].to_arrow() == before
    assert lk["told"].version == 1
    lk.drop_table("told")
    anew = getattr(lake, kind)(table, **asked)
    assert not anew.repeated
    assert anew.version == first.version, "of the rows that it read before"
    assert lk["told"].to_arrow().sort_by([(name, "ascending") for name in before.column_names[:2]]) == before.sort_by(
        [(name, "ascending") for name in before.column_names[:2]]
    )
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        getattr(table, kind)(**asked | {"k": 6})
    with pytest.raises(InvalidInput, match="begun with other parameters"):
        table.dedup(within=1.0, job_id="nightly")
    with pytest.raises(AlreadyExists):
        getattr(table, kind)(**asked | {"job_id": "other"})
    names = [n for n in Files(root).names() if n.startswith("_jobs/")]
    assert sorted(names) == ["_jobs/nightly/t/asked.json", "_jobs/nightly/t/report.json"]
    getattr(table, kind)(**asked | {"job_id": None, "into": "more"})
    assert [n for n in Files(root).names() if n.startswith("_jobs/")] == names, "a job without an id leaves nothing"


def test_rows_of_a_join_are_a_table_like_others(tmp_path: Path) -> None:
    """What comes of them goes into the lake, and not where they themselves lie."""
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", *clumps(300, 8))
    near = table.knn_join(table, 1, left_columns=["vector"])
    report = lake.outliers(near, into="odd", k=3)
    assert report.scored == len(lk["odd"]) == 300
    lake.dedup(near, within=0.1, into="groups")
    assert sorted(lk.list_tables()) == ["groups", "odd", "t"]


def test_of_several_vector_columns_one_is_to_be_named(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    table, _ = make(lk, "t", *clumps(60, 8))
    table.add_columns({"other": pa.list_(pa.float32(), 8)})
    with pytest.raises(InvalidInput, match=r"vector columns \['vector', 'other'\]: choose with column="):
        table.outliers(into="odd")
    with pytest.raises(InvalidInput, match="choose with left_column="):
        table.knn_join(table)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "k": ("all", {"k": 0}, "k=0: give 1 to 1,000"),
    "recall": ("all", {"recall": 0}, "recall=0: give a share"),
    "metric": ("all", {"metric": "hamming"}, "metric='hamming': a join knows"),
    "column": ("all", {"column": "vektor"}, "vektor"),
    "not vectors": ("all", {"column": "text"}, "a join compares float vectors"),
    "where": ("all", {"where": "id >"}, "id >"),
    "into": ("all", {"into": "a/b"}, "a/b"),
    "memory": ("all", {"memory": "much"}, "memory='much'"),
    "job": ("all", {"job_id": "a/b"}, "a/b"),
    "score": ("outliers", {"score": "lof"}, "score='lof': give 'kth' or 'mean'"),
    "share": ("outliers", {"share": 1.5}, "share=1.5: give a share, from 0 to 1"),
    "share text": ("outliers", {"share": "1%"}, "share='1%'"),
    "label": ("classify", {"label": "kynd"}, "kynd"),
    "label kind": ("classify", {"label": "vector"}, "labels are text, whole numbers, booleans or dates"),
    "label in the key": ("classify", {"label": "id"}, "a column 'id' of its own"),
    "least": ("classify", {"least": float("nan")}, "least=nan: give a share"),
    "sample": ("classify", {"sample": -1}, "sample=-1: give a whole number, 0 or more"),
    "dot": ("classify", {"metric": "dot"}, "no distance to weigh votes by"),
    "labelled": ("classify", {"labelled": "known"}, "classify: give a table or a snapshot, not str"),
    "positives": ("mine", {"positives": 0}, "positives=0: give a whole number, 1 or more"),
    "negatives": ("mine", {"negatives": 2.5}, "negatives=2.5: give a whole number"),
    "margin": ("mine", {"margin": -0.1}, "margin=-0.1: give a distance, 0 or more"),
    "relative": ("mine", {"relative": None}, "relative=None: give a distance"),
    "relative dot": ("mine", {"relative": 0.1, "metric": "dot"}, "1 - dot is none; give margin="),
    "skip": ("mine", {"skip": -1}, "skip=-1"),
    "columns": ("mine", {"columns": "text"}, "columns='text': give a list"),
    "columns unknown": ("mine", {"columns": ["txt"]}, "txt"),
}
CALLS = [(kind, name) for name, (which, _, _) in WRONG.items() for kind in (GOOD if which == "all" else [which])]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> lake.Table:
    return make(lake.connect(tmp_path_factory.mktemp("small")), "t", *clumps(20, 4), blank=4)[0]


@pytest.mark.parametrize(("kind", "what"), CALLS)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(small: lake.Table, kind: str, what: str) -> None:
    _, given, message = WRONG[what]
    with pytest.raises((InvalidInput, NotFound), match=message.replace("(", r"\(")):
        getattr(small, kind)(**GOOD[kind] | {"into": "told"} | given)
    root = Location.of(small.uri.rpartition("/")[0])
    assert not [name for name in Files(root).names() if not name.startswith("t.lance/")]


def test_bad_vectors_and_taken_names_are_refused(tmp_path: Path) -> None:
    lk = lake.connect(tmp_path)
    vectors, labels = clumps(20, 4)
    table, _ = make(lk, "t", vectors, labels, blank=5)
    bad = pa.array([[1, np.nan, 1, 1]], pa.list_(pa.float32(), 4))
    lance.write_dataset(pa.table({"id": [20], "kind": ["a"], "text": [""], "vector": bad}), table.uri, mode="append")
    for kind, given in GOOD.items():
        with pytest.raises(AlreadyExists):
            getattr(table, kind)(**given, into="t")
        with pytest.raises(InvalidInput, match="NaN or infinity"):
            getattr(table, kind)(**given, into="told")
        assert "told" not in lk
    assert not [n for n in Files(Location.of(tmp_path)).names() if n.startswith("_jobs/")]
    keyed = lk.create_table("keyed", {"rank": [1, 2], "v": vectors[:2]}, key="rank")
    with pytest.raises(InvalidInput, match="'rank' of its own"):
        keyed.outliers(into="odd")
    number, _ = make(lk, "number", vectors[:6], [1, 2] * 3)
    with pytest.raises(InvalidInput, match="string and int64 do not compare"):
        table.mine(label="kind", pool=number, into="train")

"""Hybrid and group-by searches against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lake.errors import InvalidInput
from lake.search import Query, search
from lake.table.snapshot import Snapshot
from tests.unit.search.conftest import MEASURES, content

ALL = 10_000


def ranked(snap: Snapshot, q: Any, where: str | None) -> tuple[dict[int, float], dict[int, float]]:
    near = search(snap, Query(vector=q, where=where, k=100, use_index=False)).to_pylist()
    text = search(snap, Query(text="kernel zeppelin", where=where, k=100)).to_pylist()
    return {r["id"]: r["_distance"] for r in near}, {r["id"]: r["_score"] for r in text}


@pytest.mark.parametrize("table", ["plain", "indexed", "partial"])
@pytest.mark.parametrize("where", [None, "rank < 300", "id % 100 = 3"])
def test_fusion(table: str, where: str | None, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    q = content(snap)[1][200] + 0.1
    near, text = ranked(snap, q, where)
    weights = (0.7, 0.3)
    low, high, best = min(near.values()), max(near.values()), max(text.values())
    expected: dict[Any, dict[int, float]] = {
        "rrf": {
            i: sum(1 / (61 + list(ranking).index(i)) for ranking in (near, text) if i in ranking)
            for i in near.keys() | text.keys()
        },
        weights: {
            i: 0.7 * ((high - near[i]) / (high - low) if i in near else 0) + 0.3 * text.get(i, 0) / best
            for i in near.keys() | text.keys()
        },
    }
    for fusion, scores in expected.items():
        query = Query(
            vector=q,
            text="kernel zeppelin",
            where=where,
            k=15,
            offset=1,
            nprobe=ALL,
            fusion=fusion,
            columns=["id"],
        )
        rows = search(snap, query).to_pylist()
        assert list(rows[0]) == ["id", "_distance", "_score", "_relevance_score"]
        order = sorted(scores.values(), reverse=True)[1:16]
        np.testing.assert_allclose([r["_relevance_score"] for r in rows], order, rtol=1e-5)
        for row in rows:
            assert row["_relevance_score"] == pytest.approx(scores[row["id"]], rel=1e-5)
            for name, ranking in (("_distance", near), ("_score", text)):
                if row["id"] in ranking:
                    assert row[name] == pytest.approx(ranking[row["id"]], rel=1e-4, abs=1e-4)
                else:
                    assert row[name] is None


def test_hybrid_coverage_and_refusals(partial: Snapshot) -> None:
    q = content(partial)[1][0]
    result = search(partial, Query(vector=q, text="kernel", k=3))
    assert [part.what for part in result.coverage.parts] == ["vector", "text"]
    assert "vector: " in str(result.coverage)
    with pytest.raises(InvalidInput, match="takes one"):
        search(partial, Query(vector=[q, q], text="kernel"))
    for fusion in ("sum", (1,), (0, 0), (-1, 2), (np.inf, 1), (1e308, 1e308)):
        with pytest.raises(InvalidInput, match="fusion"):
            Query(vector=q, text="kernel", fusion=fusion)  # type: ignore[arg-type]


def best_groups(ranked: list[int], groups: dict[int, Any], query: Query) -> list[tuple[Any, int]]:
    members: dict[Any, list[int]] = {}
    for i in ranked:
        members.setdefault(groups[i], []).append(i)
    assert query.k is not None
    chosen = list(members)[query.offset : query.offset + query.k]
    return [(group, i) for group in chosen for i in members[group][: query.per_group]]


@pytest.mark.parametrize("table", ["plain", "indexed", "partial"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 5},
        {"k": 8, "per_group": 40, "offset": 2},
        {"k": 500, "per_group": 2},
        {"k": 3, "where": "rank < 40"},
    ],
)
def test_groups(table: str, arguments: dict[str, Any], request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    ids, x = content(snap)
    kept = snap.dataset.to_table(columns=["id", "group"], filter=arguments.get("where"))
    groups = dict(zip(kept["id"].to_pylist(), kept["group"].to_pylist(), strict=True))
    q = x[17] + 0.2
    query = Query(vector=q, group_by="group", nprobe=ALL, columns=["group", "id"], **arguments)
    ranked = [int(i) for i in ids[np.argsort(MEASURES["l2"](x, q), kind="stable")] if int(i) in groups]
    rows = search(snap, query).to_pylist()
    assert [(r["group"], r["id"]) for r in rows] == best_groups(ranked, groups, query)


def test_groups_of_one_dominating_value(plain: Snapshot) -> None:
    """The neighbourhood of a query holds one group only; the others are still found."""
    _, x = content(plain)
    query = Query(vector=x[17], group_by="rank", k=990, columns=["rank"])
    rows = search(plain, query).to_pylist()
    assert len({r["rank"] for r in rows}) == len(rows) >= 940
    assert [r["_distance"] for r in rows] == sorted(r["_distance"] for r in rows)


def test_groups_by_text_and_of_many_queries(partial: Snapshot) -> None:
    rows = search(partial, Query(text="kernel", group_by="group", k=4, per_group=2)).to_pylist()
    assert len({r["group"] for r in rows}) == 4
    assert [r["_score"] for r in rows][::2] == sorted([r["_score"] for r in rows][::2], reverse=True)
    _, x = content(partial)
    many = search(partial, Query(vector=x[:3], group_by="group", k=4, nprobe=ALL)).to_pylist()
    assert [r["_query"] for r in many] == [0] * 4 + [1] * 4 + [2] * 4
    assert many[4:8] == [
        r | {"_query": 1} for r in search(partial, Query(vector=x[1], group_by="group", k=4, nprobe=ALL))
    ]
    for column in ("emb", "nope"):
        with pytest.raises((InvalidInput, LookupError), match=column):
            search(partial, Query(text="kernel", group_by=column))


def test_the_group_is_always_told(plain: Snapshot) -> None:
    _, x = content(plain)
    for arguments in ({"vector": x[17]}, {"vector": x[:2]}, {"text": "kernel"}):
        told = search(plain, Query(group_by="group", k=4, columns=["group", "id"], **arguments)).to_arrow()
        for columns in (["id"], [], ["id", "group"]):
            asked = search(plain, Query(group_by="group", k=4, columns=columns, **arguments)).to_arrow()
            assert asked["group"].to_pylist() == told["group"].to_pylist()
            names = [name for name in asked.column_names if not name.startswith("_")]
            assert names == ([*columns] if "group" in columns else [*columns, "group"])

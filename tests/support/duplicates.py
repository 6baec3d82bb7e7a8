"""Duplicates found the plain way: all pairs, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import lake

Matrix = np.ndarray[Any, np.dtype[Any]]
Rows = dict[int, dict[str, Any]]


def planted(rows: int, dimension: int, seed: int = 0) -> Matrix:
    """Random vectors; a third has near duplicates, some in chains, and some are the same to the last bit."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for at in range(rows - rows // 3, rows):
        source = int(rng.integers(0, at if at % 3 else rows // 2))
        noise = rng.standard_normal(dimension) * (0.0 if at % 5 == 0 else 0.045)
        vectors[at] = vectors[source] + noise.astype(np.float32)
        vectors[at] /= np.linalg.norm(vectors[at]) if at % 5 else 1
    order = rng.permutation(rows)
    found: Matrix = vectors[order]
    return found


def make(lk: lake.Lake, name: str, vectors: Matrix, metric: str = "l2", missing: int = 0) -> tuple[lake.Table, Rows]:
    """Make a table in three fragments, and the same as a dict; each `missing`-th row has no vector."""
    rows: Rows = {
        i: {
            "id": i,
            "group": f"g{i % 3}",
            "time": None if i % 11 == 0 else i * 7 % 13,
            "vector": None if missing and i % missing == 0 else vectors[i],
        }
        for i in range(len(vectors))
    }
    schema = lake.Schema(
        [
            lake.Column("id", int),
            lake.Column("group", str),
            lake.Column("time", pa.int64()),
            lake.Column("vector", lake.Embedding(vectors.shape[1], metric=metric)),  # type: ignore[arg-type]
        ],
        key="id",
    )
    table = lk.create_table(name, schema)
    for part in np.array_split(np.arange(len(vectors)), 3):
        table.append(columns([rows[int(i)] for i in part], vectors.shape[1]))
    return table, rows


def columns(rows: list[dict[str, Any]], dimension: int) -> pa.Table:
    """Turn rows into what `append` takes."""
    vectors = [None if row["vector"] is None else row["vector"].tolist() for row in rows]
    return pa.table(
        {
            "id": pa.array([row["id"] for row in rows]),
            "group": [row["group"] for row in rows],
            "time": pa.array([row["time"] for row in rows], pa.int64()),
            "vector": pa.array(vectors, pa.list_(pa.float32(), dimension)),
        }
    )


def distances(a: Matrix, metric: str) -> Matrix:
    """Compute all distances, in double precision."""
    a = a.astype(np.float64)
    if metric == "cosine":
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
    if metric == "l2":
        found: Matrix = ((a[:, None] - a[None]) ** 2).sum(-1)
        return found
    products: Matrix = 1 - a @ a.T
    return products


def groups(rows: list[dict[str, Any]], within: float, metric: str) -> list[set[int]]:
    """Link all rows that are near each other; return groups of two or more."""
    there = [row for row in rows if row["vector"] is not None]
    apart = distances(np.stack([row["vector"] for row in there]), metric)
    near = apart < within
    assert not (np.abs(apart - within) < 1e-6).any(), "the example is too close to call"
    left = set(range(len(there)))
    found = []
    while left:
        group, todo = set(), {left.pop()}
        while todo:
            at = todo.pop()
            group.add(at)
            more = {int(i) for i in np.flatnonzero(near[at])} & left
            left -= more
            todo |= more
        if len(group) > 1:
            found.append({there[at]["id"] for at in group})
    return found


def told(table: pa.Table) -> list[set[int]]:
    """Return the groups that a table of groups tells of."""
    by: dict[int, set[int]] = {}
    for row in table.to_pylist():
        by.setdefault(row["group_id"], set()).add(row["id"])
    return list(by.values())


def same(a: list[set[int]], b: list[set[int]]) -> bool:
    """Compare, in whatever order."""
    return sorted(map(sorted, a)) == sorted(map(sorted, b))

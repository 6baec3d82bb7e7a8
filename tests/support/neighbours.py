"""Outliers, labels and triplets found the plain way: all pairs, one row after the other."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

import lake
from tests.support.duplicates import Matrix
from tests.support.duplicates import distances as within_one

Rows = dict[int, dict[str, Any]]
Near = dict[int, list[tuple[float, int]]]


def clumps(rows: int, dimension: int, kinds: int = 5, seed: int = 0) -> tuple[Matrix, list[str]]:
    """Vectors around some centres, a few far from all; and the names of the centres, one in seven of them wrong."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((kinds, dimension))
    of = rng.integers(0, kinds, rows)
    spread = np.where(np.arange(rows) % 97 == 5, 3.0, 0.6)
    vectors = (centres[of] + spread[:, None] * rng.standard_normal((rows, dimension))).astype(np.float32)
    said = np.where(np.arange(rows) % 7 == 0, rng.integers(0, kinds, rows), of)
    return vectors, [f"kind {i}" for i in said]


def make(
    lk: lake.Lake,
    name: str,
    vectors: Matrix,
    labels: list[Any],
    *,
    metric: str = "l2",
    missing: int = 0,
    blank: int = 0,
) -> tuple[lake.Table, Rows]:
    """Make a table in three fragments, and the same as a dict; each `missing`-th row has no vector, each `blank`-th no
    label."""
    rows: Rows = {
        i: {
            "id": i,
            "kind": None if blank and i % blank == 0 else label,
            "text": f"text {i}",
            "vector": None if missing and i % missing == 1 % missing else vector,
        }
        for i, (vector, label) in enumerate(zip(vectors, labels, strict=True))
    }
    kind = pa.array(labels).type
    embedding = lake.Embedding(vectors.shape[1], metric=metric)  # type: ignore[arg-type]
    columns = [lake.Column("id", int), lake.Column("kind", kind), lake.Column("text", str)]
    table = lk.create_table(name, lake.Schema([*columns, lake.Column("vector", embedding)], key="id"))
    for part in np.array_split(np.arange(len(vectors)), 3):
        some = [rows[int(i)] for i in part]
        held = [None if row["vector"] is None else row["vector"].tolist() for row in some]
        given = {name: pa.array([row[name] for row in some], kind if name == "kind" else None) for name in some[0]}
        table.append(pa.table(given | {"vector": pa.array(held, pa.list_(pa.float32(), vectors.shape[1]))}))
    return table, rows


def nearest(left: Rows, right: Rows, k: int, metric: str, *, apart: bool) -> Near:
    """Return the k nearest of each row that has a vector, as distances and ids."""
    a, b = ({i: row["vector"] for i, row in rows.items() if row["vector"] is not None} for rows in (left, right))
    found = within_one(np.stack([*a.values(), *b.values()]), metric)[: len(a), len(a) :]
    return {
        i: sorted((float(d), j) for d, j in zip(line, b, strict=True) if not (apart and i == j))[:k]
        for i, line in zip(a, found, strict=True)
    }


def scores(near: Near, score: str) -> dict[int, float]:
    """Return the distance to the last neighbour, or the mean."""
    return {i: found[-1][0] if score == "kth" else sum(d for d, _ in found) / len(found) for i, found in near.items()}


def votes(near: Near, rows: Rows) -> dict[int, list[tuple[float, str]]]:
    """Return shares of the vote and labels, the best first."""
    told = {}
    for i, found in near.items():
        copies = [j for d, j in found if d < 1e-12]
        weights: dict[str, float] = defaultdict(float)
        for d, j in found:
            weights[rows[j]["kind"]] += (j in copies) if copies else d**-0.5
        total = sum(weights.values())
        told[i] = sorted(((w / total, label) for label, w in weights.items() if w), reverse=True)
    return told


def triplets(near: Near, anchors: Rows, pool: Rows, rule: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Combine the farthest of the same label with the nearest of others that are far enough."""
    found = []
    for i, listed in near.items():
        same = [(d, j) for d, j in listed if pool[j]["kind"] == anchors[i]["kind"]]
        if not same:
            continue
        bar = -np.inf if rule["margin"] is None else same[0][0] * (1 + rule["relative"]) + rule["margin"]
        assert not [d for d, j in listed if 0 < abs(d - bar) < 1e-6 and (d, j) not in same], "too close to call"
        others = [j for d, j in listed if pool[j]["kind"] != anchors[i]["kind"] and d >= bar]
        hard = [j for _, j in same[::-1][: rule["positives"]]]
        found += [(i, p, n) for p in hard for n in others[rule["skip"] :][: rule["negatives"]]]
    return found

"""Clusters looked at the plain way, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import lake

Matrix = np.ndarray[Any, np.dtype[Any]]
DIMENSION = 8


def blobs(rows: int, seed: int = 0, spread: float = 0.3, count: int = 7) -> Matrix:
    """Random vectors around some centres; the first centres have the more of them."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).standard_normal((count, DIMENSION))
    which = (count * rng.random(rows) ** 2).astype(int)
    found: Matrix = (centres[which] + spread * rng.standard_normal((rows, DIMENSION))).astype(np.float32)
    return found


def make(lk: lake.Lake, name: str, vectors: Matrix, metric: str = "l2", missing: int = 0, parts: int = 3) -> lake.Table:
    """Make a table in some fragments; each `missing`-th row has no vector."""
    schema = lake.Schema(
        [
            lake.Column("id", int),
            lake.Column("kind", str),
            lake.Column("v", lake.Embedding(vectors.shape[1], metric=metric)),  # type: ignore[arg-type]
        ],
        key="id",
    )
    table = lk.create_table(name, schema)
    for part in np.array_split(np.arange(len(vectors)), parts):
        table.append(rows(part, vectors[part], missing))
    return table


def rows(ids: Any, vectors: Matrix, missing: int = 0) -> pa.Table:
    """Rows for `make`'s table."""
    held = [None if missing and i % missing == 0 else v.tolist() for i, v in zip(ids, vectors, strict=True)]
    kinds = [f"k{int(i) % 3}" for i in ids]
    return pa.table(
        {"id": [*map(int, ids)], "kind": kinds, "v": pa.array(held, pa.list_(pa.float32(), vectors.shape[1]))}
    )


def labels(table: lake.Table, column: str = "cluster") -> dict[int, int | None]:
    """Each row's cluster."""
    found = table.to_arrow(["id", column])
    return dict(zip(found["id"].to_pylist(), found[column].to_pylist(), strict=True))


def unit(vectors: Matrix) -> Matrix:
    """Scale to length one."""
    found: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def centroids(vectors: Matrix, of: Matrix, metric: str) -> dict[int, Matrix]:
    """The mean of each cluster's vectors, of length one where clusters are by angle."""
    found = {int(c): vectors[of == c].mean(axis=0) for c in np.unique(of)}
    return found if metric == "l2" else {c: mean / np.linalg.norm(mean) for c, mean in found.items()}


def distances(vectors: Matrix, means: Matrix, metric: str) -> Matrix:
    """From each vector to each mean."""
    found: Matrix = ((vectors[:, None] - means[None]) ** 2).sum(-1) if metric == "l2" else 1 - vectors @ means.T
    return found


def lloyd(vectors: Matrix, k: int, seed: int) -> float:
    """The inertia of a plain k-means from random points."""
    means = vectors[np.random.default_rng(seed).choice(len(vectors), k, replace=False)].astype(np.float64)
    for _ in range(50):
        nearest = distances(vectors, means, "l2").argmin(1)
        means = np.stack([vectors[nearest == c].mean(0) if (nearest == c).any() else means[c] for c in range(k)])
    return float(distances(vectors, means, "l2").min(1).sum())

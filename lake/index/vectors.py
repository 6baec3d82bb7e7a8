"""Vectors out of a Lance dataset, as matrices."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from lake.index.kmeans import Floats, unit

_TAKE = 8192
_PROBE = 1024


def matrix(array: pa.Array, metric: str | None) -> tuple[Floats, NDArray[np.int64]]:
    """Turn a vector column into a matrix that L2 compares as the metric does.

    Parameters
    ----------
    array : pa.Array
        Vectors, or lists of vectors; nulls and vectors that are not finite are left out.
    metric : str
        ``cosine`` makes every vector one of length one, as Lance's index does.

    Returns
    -------
    vectors : float32, shape (n, d)
    rows : int64, shape (n,)
        The position in `array` that each comes from.
    """
    rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    if pt.is_list(array.type):
        array = array.drop_null()
        rows = np.repeat(rows, array.value_lengths().to_numpy())
        array = array.flatten()
    values = array.flatten().to_numpy(zero_copy_only=False)
    vectors = values.astype(np.float32, copy=False).reshape(-1, array.type.list_size)
    finite = np.isfinite(np.einsum("nd->n", vectors))
    if not finite.all():
        vectors, rows = vectors[finite], rows[finite]
    return unit(vectors) if metric == "cosine" else vectors, rows


def sample(
    dataset: lance.LanceDataset, column: str, metric: str | None, count: int, rng: np.random.Generator
) -> Floats:
    """Draw vectors from all fragments, in random order.

    Returns
    -------
    float32, shape (at most count, d)
        Fewer where rows are null, and for small tables.
    """
    rows = dataset.count_rows()
    chosen = np.sort(rng.choice(rows, min(rows, count), replace=False))
    parts: list[Floats] = []
    drawn = 0
    for start in rng.permutation(range(0, len(chosen), _TAKE)):
        if drawn >= count:  # rows of many vectors each
            break
        taken = dataset.take(chosen[start : start + _TAKE], columns=[column])
        for chunk in taken[column].chunks:
            parts.append(matrix(chunk, metric)[0])
            drawn += len(parts[-1])
    if not drawn:
        return np.empty((0, 1), np.float32)
    vectors = np.concatenate(parts)
    return vectors[rng.permutation(len(vectors))[:count]]


def estimate(dataset: lance.LanceDataset, column: str) -> int:
    """Estimate how many rows have a vector; zero is exact."""
    rows: int = dataset.count_rows()
    if not rows:
        return 0
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(rows, _PROBE), replace=False))
    valid: int = len(chosen) - dataset.take(chosen, columns=[column])[column].null_count
    if not valid:
        exact: int = dataset.count_rows(f"`{column}` IS NOT NULL")
        return exact
    return max(1, rows * valid // len(chosen))

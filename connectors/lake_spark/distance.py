"""Distances of two array columns, by the lake's convention (`lake.search`): smaller is more similar.

A null vector, a null inside a vector, or under cosine a vector of zeros has no distance: the result is null. Vectors of
different lengths are an error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import InvalidInput

Matrix = npt.NDArray[np.float64]


def cosine(left: pa.Array, right: pa.Array) -> pa.Array:
    """``1 - a·b / (|a| |b|)``."""
    return _rowwise("cosine", left, right, _cosine)


def l2(left: pa.Array, right: pa.Array) -> pa.Array:
    """Sum of ``(a - b)²``: squared, no root."""
    return _rowwise("l2", left, right, lambda a, b: np.einsum("ij,ij->i", a - b, a - b))


def dot(left: pa.Array, right: pa.Array) -> pa.Array:
    """``1 - a·b``."""
    return _rowwise("dot", left, right, lambda a, b: 1.0 - np.einsum("ij,ij->i", a, b))


FUNCTIONS = {"cosine": cosine, "l2": l2, "dot": dot}


def _cosine(a: Matrix, b: Matrix) -> Matrix:
    lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(lengths > 0, 1.0 - np.einsum("ij,ij->i", a, b) / lengths, np.nan)


def _rowwise(name: str, left: pa.Array, right: pa.Array, kernel: Callable[[Matrix, Matrix], Matrix]) -> pa.Array:
    valid = np.flatnonzero(np.asarray(pc.and_(pc.is_valid(left), pc.is_valid(right))))
    a, b = left.take(pa.array(valid)), right.take(pa.array(valid))
    lengths = np.asarray(pc.list_value_length(a))
    wrong = np.flatnonzero(lengths != np.asarray(pc.list_value_length(b)))
    if len(wrong):
        sizes = len(a[int(wrong[0])]), len(b[int(wrong[0])])
        raise InvalidInput(f"{name}: vectors of {sizes[0]} and {sizes[1]} elements cannot be compared")
    out = np.full(len(left), np.nan)
    for length in np.unique(lengths):  # one, in a column of vectors
        rows = np.flatnonzero(lengths == length)
        out[valid[rows]] = kernel(_matrix(a, rows, int(length)), _matrix(b, rows, int(length)))
    return pa.array(out, mask=np.isnan(out))


def _matrix(lists: pa.Array, rows: npt.NDArray[np.int64], length: int) -> Matrix:
    chosen = lists if len(rows) == len(lists) else lists.take(pa.array(rows))
    values: Matrix = chosen.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)  # a null is NaN
    return values.reshape(len(rows), length)

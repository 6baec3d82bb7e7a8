"""Refusal of bad rows at the edge, vectorised: one pass at memory speed over each vector column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import InvalidInput
from lake.schema import Column, Schema

_HALF_EXPONENT = 0x7C00  # all ones: NaN or infinity


Rows = npt.NDArray[np.int64]


class Problem(NamedTuple):
    """Rows of a batch that one rule refuses.

    Parameters
    ----------
    column : str
        Where.
    rows : numpy.ndarray, shape (n,)
        Numbers of rows in the batch, ascending, at least one.
    why : str
        The rule, and the remedy.
    """

    column: str
    rows: Rows
    why: str


@dataclass
class Validator:
    """Checks batches of one write, and knows at which row of the input it stands.

    Parameters
    ----------
    schema : Schema
        The table's.

    Raises
    ------
    InvalidInput
        From `check`: a null in a key or in a column that cannot be null, a vector with NaN, infinity or
        a null inside, a zero vector under cosine. The message names column, row and remedy.
    """

    schema: Schema
    row: int = 0

    def check(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch, or refuse it."""
        for name in batch.schema.names:
            found = list(self._column(name, batch.column(name)))
            if found:
                first = min(found, key=lambda problem: int(problem.rows[0]))
                raise InvalidInput(f"column {name!r}, row {self.row + int(first.rows[0])}: {first.why}")
        self.row += batch.num_rows
        return batch

    def problems(self, batch: pa.RecordBatch) -> Iterator[Problem]:
        """Yield what `check` would refuse of a batch, for those who keep the other rows."""
        for name in batch.schema.names:
            yield from self._column(name, batch.column(name))

    def _column(self, name: str, array: pa.Array) -> Iterator[Problem]:
        column, is_key = self.schema.column(name), name in self.schema.key
        if array.null_count and (is_key or not column.nullable):
            why = "is part of the entity key" if is_key else "is not nullable"
            yield Problem(name, _where(array.is_null()), f"null, but the column {why}")
        if is_key and pa.types.is_floating(array.type) and pc.any(nan := pc.is_nan(array)).as_py():
            yield Problem(name, _where(nan), "NaN cannot be an entity key")
        if column.embedding is not None:
            yield from _vectors(column, array)


def _vectors(column: Column, array: pa.Array) -> Iterator[Problem]:
    rows = None  # the row that each vector is in, where that is not its own number
    if isinstance(array, pa.ListArray | pa.LargeListArray):
        rows = np.asarray(pc.list_parent_indices(array))
        array = array.flatten()
    if array.null_count:
        valid = array.is_valid()
        rows = _where(valid) if rows is None else rows[np.asarray(valid)]
        array = array.drop_null()
    values = array.flatten()
    if values.null_count:
        torn = np.asarray(values.is_null()).reshape(len(array), -1).any(axis=1)
        why = "a null inside the vector; give a number, or make the whole vector null"
        yield Problem(column.name, _rows(np.flatnonzero(torn), rows), why)
        rows = _rows(np.flatnonzero(~torn), rows)
        values = array.filter(pa.array(~torn)).flatten()
    if not len(values):
        return
    matrix = values.to_numpy(zero_copy_only=True).reshape(-1, array.type.list_size)
    at = _suspects(matrix)
    if not len(at):
        return
    # In doubles: float16 has no isfinite that is fast, and what cancels or overflows in a sum is finite here.
    odd = ~np.isfinite(matrix[at].astype(np.float64)).all(axis=1)
    if odd.any():
        why = "NaN or infinity in the vector; drop the row or embed it again"
        yield Problem(column.name, _rows(at[odd], rows), why)
    zero = ~odd & ~matrix[at].any(axis=1)
    if zero.any() and column.embedding is not None and column.embedding.metric == "cosine":
        why = "a zero vector has no direction, so no cosine distance; make it null, or use metric l2"
        yield Problem(column.name, _rows(at[zero], rows), why)


def _where(mask: pa.Array) -> Rows:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))


def _rows(at: Rows, rows: Rows | None) -> Rows:
    """Turn numbers of vectors into numbers of rows; a row of several vectors counts once."""
    return at if rows is None else np.unique(rows[at])


def _suspects(matrix: npt.NDArray[np.generic]) -> Rows:
    """Return the rows that could hold NaN, infinity or only zeros: those whose sum is not a plain number.

    One pass at the speed of memory, in this thread: BLAS would wait for cores that the writer is using. NaN
    and infinity survive a sum, and a zero row sums to zero; the few others that overflow or cancel are looked at
    again.
    """
    if matrix.dtype in {np.dtype(np.float32), np.dtype(np.float64)}:
        with np.errstate(all="ignore"):
            sums: npt.NDArray[np.floating[Any]] = np.einsum("ij->i", matrix)  # type: ignore[arg-type]
        odd = ~np.isfinite(sums) | (sums == 0)
    elif matrix.dtype == np.float16:
        exponents = matrix.view(np.uint16) & _HALF_EXPONENT
        odd = (exponents == _HALF_EXPONENT).any(axis=1) | ~matrix.any(axis=1)
    else:
        odd = ~matrix.any(axis=1)
    return np.flatnonzero(odd)

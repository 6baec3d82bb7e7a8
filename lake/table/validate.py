"""Refusal of bad rows at the edge, vectorised: one pass at memory speed over each vector column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import InvalidInput
from lake.schema import Column, Schema

_HALF_EXPONENT = 0x7C00  # all ones: NaN or infinity


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
            self._column(self.schema.column(name), batch.column(name))
        self.row += batch.num_rows
        return batch

    def _column(self, column: Column, array: pa.Array) -> None:
        is_key = column.name in self.schema.key
        if array.null_count and (is_key or not column.nullable):
            row = self.row + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            why = "is part of the entity key" if is_key else "is not nullable"
            raise InvalidInput(f"column {column.name!r}, row {row}: null, but the column {why}")
        if is_key and pa.types.is_floating(array.type) and pc.any(pc.is_nan(array)).as_py():
            raise InvalidInput(f"column {column.name!r}: NaN cannot be an entity key")
        if column.embedding is not None:
            self._vectors(column, array)

    def _vectors(self, column: Column, array: pa.Array) -> None:
        rows = None  # of multi-vector columns, the row that each vector is in
        if isinstance(array, pa.ListArray | pa.LargeListArray):
            rows = np.asarray(pc.list_parent_indices(array))
            array = array.flatten()
        if array.null_count:
            valid = array.is_valid()
            rows = np.flatnonzero(valid) if rows is None else rows[np.asarray(valid)]
            array = array.drop_null()
        if not len(array):
            return
        values = array.flatten()
        if values.null_count:
            at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // array.type.list_size
            self._refuse(column, at, rows, "a null inside the vector; give a number, or make the whole vector null")
        matrix = values.to_numpy(zero_copy_only=True).reshape(len(array), -1)
        cosine = column.embedding is not None and column.embedding.metric == "cosine"
        for at in _suspects(matrix):
            if not np.isfinite(matrix[at].astype(np.float64)).all():
                self._refuse(column, at, rows, "NaN or infinity in the vector; drop the row or embed it again")
            if cosine and not matrix[at].any():
                self._refuse(
                    column,
                    at,
                    rows,
                    "a zero vector has no direction, so no cosine distance; make it null, or use metric l2",
                )

    def _refuse(self, column: Column, at: int, rows: npt.NDArray[np.int64] | None, why: str) -> None:
        row = self.row + (at if rows is None else int(rows[at]))
        raise InvalidInput(f"column {column.name!r}, row {row}: {why}")


def _suspects(matrix: npt.NDArray[np.generic]) -> Iterator[int]:
    """Yield the rows that could hold NaN, infinity or only zeros: those whose sum is not a plain number.

    One pass at the speed of memory, in this thread: BLAS would wait for cores that the writer is using. NaN
    and infinity survive a sum, and a zero row sums to zero; the few others that overflow or cancel are looked at
    one by one.
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
    yield from map(int, np.flatnonzero(odd))

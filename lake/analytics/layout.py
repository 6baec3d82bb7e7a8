"""Which rows lie in which fragment when a table is put in the order of a column."""

from __future__ import annotations

from collections.abc import Iterator

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.analytics.stages import Ids


def layout(dataset: lance.LanceDataset, column: str, rows: int) -> Iterator[Ids]:
    """Yield the row ids of each fragment to be: whole values together where they fit, null last."""
    parts = [b for b in dataset.scanner(columns=[column], with_row_id=True).to_batches() if b.num_rows]
    if not parts:
        return
    table = pa.Table.from_batches(parts)
    ids = table["_rowid"].to_numpy().astype(np.int64)
    held = table[column]
    values: NDArray[np.int64] = held.fill_null(0).to_numpy().astype(np.int64)
    absent = held.is_null().to_numpy().astype(bool)
    order = np.lexsort((values, absent))
    ids, values, absent = ids[order], values[order], absent[order]
    edges = np.flatnonzero((np.diff(values) != 0) | (np.diff(absent) != 0)) + 1
    start = end = 0
    for edge in [*edges, len(ids)]:
        if edge - start > rows and end > start:  # the value does not fit beside those before it
            yield ids[start:end]
            start = end
        while edge - start > rows:
            yield ids[start : start + rows]
            start += rows
        end = edge
    if start < len(ids):
        yield ids[start:]

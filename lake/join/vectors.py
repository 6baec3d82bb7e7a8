"""The vectors of one side: read where they lie if they are all there, or else by Lance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader

from lake.join.inplace import InPlace
from lake.join.side import Side, Span
from lake.nearest.kernel import Floats, Ids
from lake.nearest.rooms import Rooms
from lake.table.snapshot import store_errors

_ROWS = 8192
_FORMAT = (2, 1)  # of files; the oldest whose pages are described in the words that `InPlace` knows


def vectors(
    side: Side, span: Span, metric: str, columns: Sequence[str] = (), batch_rows: int = _ROWS
) -> Iterator[tuple[pa.RecordBatch, Floats, Ids]]:
    """Yield the rows of a span in their order.

    Parameters
    ----------
    side : Side
    span : Span
    metric : str
    columns : sequence of str
        What is wanted of each row besides its vector.
    batch_rows : int
        At a time.

    Yields
    ------
    rows : RecordBatch
        The columns, and ``_rowid``, of all rows.
    found : float32, shape (n, d)
        The vectors of those that have one; see `Side.matrix`.
    at : int64, shape (n,)
        Which these are.

    Raises
    ------
    InvalidInput
        A vector is not legal; see `Side.matrix`.
    """
    found_at = place(side, span[0])
    if found_at is None:
        for batch in side.read(span, list(dict.fromkeys([side.column, *columns])), batch_rows):
            yield batch.select([*columns, "_rowid"]), *side.matrix(batch.column(side.column), metric)
        return
    first, rooms = span[1], Rooms()
    for batch in side.read(span, columns, batch_rows):
        found = rooms.empty((batch.num_rows, found_at.dimension), np.float32)
        found_at.read(first, found)
        first += batch.num_rows
        yield batch, side.checked(found, metric), np.arange(batch.num_rows)
        del found  # so that its memory serves the next batch


def place(side: Side, fragment: int) -> InPlace | None:
    """Find where the vectors of a fragment lie, if all its rows count, and lie on this machine."""
    snapshot = side.snapshot
    described = snapshot.dataset.get_fragment(fragment).metadata
    changed = described.deletion_file is not None or described.overlays
    if snapshot.location.scheme != "file" or side.where is not None or changed:
        return None
    # By the number of the column: its name may have changed since the file was written.
    [field] = [field.id() for field in snapshot.dataset.lance_schema.fields() if field.name() == side.column]
    held = next((file for file in described.files if field in file.fields), None)
    # The column may have been added later, and nothing be in it yet; or its file be another table's.
    if held is None or held.base_id is not None or (held.file_major_version, held.file_minor_version) < _FORMAT:
        return None
    file = snapshot.folder.join("data", held.path)
    with store_errors(snapshot.location, snapshot.branch):
        metadata = LanceFileReader(file.uri).metadata()
    column = held.column_indices[held.fields.index(field)]
    if metadata.num_rows != described.physical_rows:
        return None
    return InPlace.at(file, metadata, column, side.vectors.type)

"""What analyses in stages of tasks share: arrays that tasks leave for each other, samples."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import Floats
from lake.join.side import Side, row_ids, take
from lake.storage import Files, Location

Ids = NDArray[np.int64]

_BATCH_BYTES = 8 << 20
_TAKE = 8192


def save(folder: Location, name: str, **arrays: NDArray[Any]) -> None:
    """Keep arrays in a job's folder."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    Files(folder).write(name, buffer.getvalue())


def load(folder: Location, name: str) -> dict[str, NDArray[Any]]:
    """Read arrays out of a job's folder."""
    with np.load(io.BytesIO(Files(folder).read(name)), allow_pickle=False) as found:
        return dict(found)


def batch_rows(dimension: int) -> int:
    """Say how many vectors are read at once."""
    return int(min(8192, max(64, _BATCH_BYTES // (4 * dimension))))


def draw(
    side: Side,
    rows: Mapping[int, int],
    metric: str,
    count: int,
    seed: int,
    *,
    among: Callable[[Ids], NDArray[np.bool_]] | None = None,
) -> tuple[Floats, Ids]:
    """Draw rows that have a vector, the same each time: vectors and row ids, in random order.

    Parameters
    ----------
    rows : mapping
        Of each fragment, as `Side.fragments` counts them.
    count : int
        There are fewer only if the side has fewer.
    among : callable, optional
        Tells of row ids which may be drawn.
    """
    total = sum(rows.values())
    order = np.random.default_rng(seed).permutation(total)
    vectors, ids, start, wanted, held = [], [], 0, count, 0
    while start < total and held < count:
        chosen = row_ids(side, rows, order[start : start + wanted])
        chosen = chosen if among is None else chosen[among(chosen)]
        for at in range(0, len(chosen), _TAKE):
            column = take(side.snapshot.dataset, chosen[at : at + _TAKE], [side.column])[side.column]
            found, places = side.matrix(column.combine_chunks(), metric)
            vectors.append(found)
            ids.append(chosen[at : at + _TAKE][places])
            held += len(found)
        start, wanted = start + wanted, 4 * wanted  # few rows have one: look at more of them
    if not held:
        return np.empty((0, side.dimension), np.float32), np.empty(0, np.int64)
    return np.concatenate(vectors)[:count], np.concatenate(ids)[:count]

"""Tables of results: the columns that stand for rows, their values; and numbers that callers give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lake.analytics.joined import Ids
from lake.errors import InvalidInput
from lake.join import knn
from lake.join.side import ROW_ID, named, take
from lake.schema import Column, Role
from lake.table.snapshot import Snapshot

_ROWS = 4096


def slices(count: int) -> Iterator[slice]:
    """Cut rows into as many as are read out of a table at once."""
    yield from (slice(start, start + _ROWS) for start in range(0, count, _ROWS))


def columns_of(table: Snapshot, prefix: str = "", more: Sequence[str] = ()) -> list[Column]:
    """Return the columns that stand for a row in a table of results: its key, or its row id, and some more."""
    names = dict.fromkeys((*(table.schema.key or (ROW_ID,)), *more))
    for name in more:
        if table.schema.column(name).role == Role.BLOB:
            raise InvalidInput(f"{table.location.uri}: {name!r} holds blobs, which a result does not carry")
    return [
        Column(named(prefix, name), pa.int64(), nullable=False)
        if name == ROW_ID
        else knn.carried(table.schema.column(name), prefix)
        for name in names
    ]


def values_of(table: Snapshot, ids: Ids, prefix: str = "", more: Sequence[str] = ()) -> dict[str, Any]:
    """Read the values of `columns_of` for some rows."""
    names = list(dict.fromkeys((*table.schema.key, *more)))
    found = take(table.dataset, ids, names) if names and len(ids) else None
    values: dict[str, Any] = {} if found is None else {prefix + name: found[name] for name in names}
    return values if table.schema.key else values | {named(prefix, ROW_ID): pa.array(ids)}


def fraction(name: str, number: Any) -> float:
    """Check a share.

    Raises
    ------
    InvalidInput
        It is not between 0 and 1.
    """
    if isinstance(number, bool | str) or not isinstance(number, float | int | np.number) or not 0 <= number <= 1:
        raise InvalidInput(f"{name}={number!r}: give a share, from 0 to 1")
    return float(number)


def whole_number(name: str, number: Any, least: int = 1) -> int:
    """Check a whole number.

    Raises
    ------
    InvalidInput
        It is not, or is too small.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise InvalidInput(f"{name}={number!r}: give a whole number, {least} or more")
    return int(number)

"""Which row of a group is kept."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.errors import InvalidInput
from lake.join.side import take
from lake.schema import Schema
from lake.table.snapshot import Snapshot

Ids = NDArray[np.int64]

_PART = re.compile(r"\s*(\w+|`[^`]+`)(?:\s+(asc|desc))?\s*", re.IGNORECASE)


def order(keep: str, schema: Schema) -> list[tuple[str, str]] | None:
    """Read a rule: columns and their directions, the key last; ``None`` for the order of insertion.

    Raises
    ------
    InvalidInput
        It is no rule, or a column of it has no order.
    """
    if keep in ("first", "last"):
        return None
    columns = []
    for part in keep.split(",") if isinstance(keep, str) else [""]:
        found = _PART.fullmatch(part)
        if found is None:
            raise InvalidInput(f"keep={keep!r}: give 'first', 'last', or an order of columns such as 'time desc, name'")
        name = found[1].strip("`")
        columns.append((schema.column(name).name, "descending" if (found[2] or "").lower() == "desc" else "ascending"))
    columns += [(name, "ascending") for name in schema.key if name not in dict(columns)]
    arrow = schema.to_arrow()
    try:
        _sorted(pa.table([pa.nulls(2, arrow.field(name).type) for name, _ in columns], _names(columns)), columns, [])
    except (pa.ArrowException, TypeError) as error:
        raise InvalidInput(f"keep={keep!r}: rows have no order by {', '.join(dict(columns))}: {error}") from error
    return columns


def arrange(snapshot: Snapshot, ids: Ids, groups: Ids, keep: str) -> Ids:
    """Order rows by group, and within each the one that is kept first; return positions.

    Parameters
    ----------
    ids, groups : int64, shape (n,)
        Row ids, and what tells their groups apart.
    keep : str
        See `lake.analytics.dedup`. Ties go by key, then by order of insertion; nulls come last.
    """
    columns = order(keep, snapshot.schema)
    if columns is None:
        return np.lexsort((-ids if keep == "last" else ids, groups))
    values = take(snapshot.dataset, ids, [name for name, _ in columns]).rename_columns(_names(columns))
    table = values.append_column("group", pa.array(groups)).append_column("id", pa.array(ids))
    return _sorted(table, columns, ["group"])


def _names(columns: list[tuple[str, str]]) -> list[str]:
    return [f"column {i}" for i in range(len(columns))]


def _sorted(table: pa.Table, columns: list[tuple[str, str]], first: list[str]) -> Ids:
    keys = [(name, "ascending") for name in first]
    keys += [(name, way) for name, (_, way) in zip(_names(columns), columns, strict=True)]
    keys += [("id", "ascending")] if first else []
    found: Ids = pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)
    return found

"""Add, drop and rename columns; the rows' other columns are not rewritten.

These changes need no commit id: each can see from the schema whether it took effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeAlias

import lance
import pyarrow as pa

from lake.errors import AlreadyExists, Conflict, InvalidInput, StorageError
from lake.schema import Column, Schema, check_names
from lake.schema.codec import encode_field
from lake.schema.names import find
from lake.storage import Location, require_put_if_absent
from lake.table.snapshot import open_head, store_errors
from lake.table.sql import Sql, sql_errors, whole

_ATTEMPTS = 20

NewColumn: TypeAlias = Column | pa.DataType | Sql


def add_columns(location: Location, branch: str | None, columns: Mapping[str, NewColumn]) -> int:
    """Add columns: null in all rows, or computed by SQL from other columns.

    Parameters
    ----------
    columns : mapping
        Name to an Arrow type or a `Column` (all null; only metadata is written), or to an `Sql`.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    AlreadyExists
        A column of that name is there.
    """
    require_put_if_absent(location)
    head = open_head(location, branch)
    schema = Schema.decode(head.schema)
    _check_new(columns, schema, location)
    computed = {name: whole(c) for name, c in columns.items() if isinstance(c, Sql)}
    known = [*schema.names, *columns]
    empty = [_field(name, c, known) for name, c in columns.items() if not isinstance(c, Sql)]

    def there(newest: lance.LanceDataset) -> bool:
        return set(columns) <= set(newest.schema.names) and not strict(newest)

    def strict(newest: lance.LanceDataset) -> list[str]:
        return [name for name in computed if name in newest.schema.names and not newest.schema.field(name).nullable]

    def act(newest: lance.LanceDataset) -> None:
        # Computed ones first: an expression may turn out to be wrong, and then nothing was added.
        if not set(computed) <= set(newest.schema.names):
            with sql_errors(*computed.values()):
                newest.add_columns(computed)
        # Lance infers "not null" from the rows that are there; later rows need not have a value.
        if narrow := strict(newest):
            newest.alter_columns(*({"path": name, "nullable": True} for name in narrow))
        if empty and empty[0].name not in newest.schema.names:
            newest.add_columns(pa.schema(empty))

    return _until(there, act, head, location)


def drop_columns(location: Location, branch: str | None, names: list[str]) -> int:
    """Drop columns; their data goes with the next compaction. Returns the new version."""
    head = open_head(location, branch)
    schema = Schema.decode(head.schema)
    for name in names:
        schema.column(name)
    in_key = sorted(set(names) & set(schema.key))
    if in_key:
        raise InvalidInput(f"{in_key} belong to the entity key {schema.key} and cannot be dropped")
    if len(names) == len(schema.columns):
        raise InvalidInput("a table keeps at least one column; drop_table drops the table")

    def gone(newest: lance.LanceDataset) -> bool:
        return not set(names) & set(newest.schema.names)

    def act(newest: lance.LanceDataset) -> None:
        newest.drop_columns(names)

    return _until(gone, act, head, location)


def rename_columns(location: Location, branch: str | None, names: Mapping[str, str]) -> int:
    """Rename columns, old name to new; indexes follow. Returns the new version."""
    head = open_head(location, branch)
    schema = Schema.decode(head.schema)
    for name in names:
        schema.column(name)
    _check_new(names.values(), schema, location)
    wanted = tuple(_renamed(c, names) for c in schema.columns)
    places = {name: i for i, name in enumerate(schema.key, 1)}
    fields = {
        after.name: encode_field(after, places.get(before.name, 0))
        for before, after in zip(schema.columns, wanted, strict=True)
    }

    changed = {after.name: after for before, after in zip(schema.columns, wanted, strict=True) if before != after}

    def renamed(newest: lance.LanceDataset) -> bool:
        there = {column.name: column for column in Schema.decode(newest.schema)}
        return all(there.get(name) == column for name, column in changed.items())

    def act(newest: lance.LanceDataset) -> None:
        left = {old: new for old, new in names.items() if old in newest.schema.names}
        if left:
            newest.alter_columns(*({"path": old, "name": new} for old, new in left.items()))
        # What other columns are made of is kept by name.
        stale = [f for f in newest.schema if f.name in changed and f.metadata != fields[f.name].metadata]
        if stale:
            newest.update_field_metadata(
                {f.name: {k.decode(): v.decode() for k, v in fields[f.name].metadata.items()} for f in stale}
            )

    return _until(renamed, act, head, location)


def _check_new(names: Collection[str], schema: Schema, location: Location) -> None:
    check_names(names)
    taken = sorted({n.casefold() for n in names} & {n.casefold() for n in schema.names})
    if taken:
        raise AlreadyExists(f"{location.uri} has columns {taken} already (names that differ only in case are one)")


def _field(name: str, column: Column | pa.DataType, known: Collection[str]) -> pa.Field:
    column = replace(column, name=name) if isinstance(column, Column) else Column(name, column)
    if not column.nullable:
        raise InvalidInput(f"column {name!r}: a new column is null in the rows that are there; make it nullable")
    source = column.embedding.of if column.embedding else None
    for one in (*(column.derivation.inputs if column.derivation else ()), *([source] if source else [])):
        find(one, known, f"source of {name!r}, column")
    return encode_field(column, 0)


def _renamed(column: Column, names: Mapping[str, str]) -> Column:
    embedding, derivation = column.embedding, column.derivation
    if embedding is not None and embedding.of is not None and embedding.of in names:
        embedding = replace(embedding, of=names[embedding.of])
    if derivation is not None:
        derivation = replace(derivation, inputs=tuple(names.get(i, i) for i in derivation.inputs))
    return replace(column, name=names.get(column.name, column.name), embedding=embedding, derivation=derivation)


def _until(
    done: Callable[[lance.LanceDataset], bool],
    act: Callable[[lance.LanceDataset], None],
    head: lance.LanceDataset,
    location: Location,
) -> int:
    """Act until the schema shows it; a conflict or a lost response is settled by looking."""
    last: Exception | None = None
    for attempt in range(_ATTEMPTS):
        with store_errors(location):
            head.checkout_latest()
            if done(head):
                version: int = head.version
                return version
        try:
            act(head)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            if "invalid user input" in str(error).lower():
                raise InvalidInput(f"{location.uri}: {error}") from error
            last = error
            time.sleep(min(1.0, 0.01 * 2**attempt))
    if last is not None and "conflict" in str(last).lower():
        raise Conflict(f"change of columns of {location.uri} was preempted {_ATTEMPTS} times: {last}") from last
    raise StorageError(f"cannot change the columns of {location.uri}: {last}") from last

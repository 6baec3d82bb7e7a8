"""Give a column values that were computed from a snapshot, in one commit, where rows are as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import AlreadyExists, NotSupported
from lake.schema import Column, Schema, check_names
from lake.schema.codec import encode_field
from lake.storage import Location, require_put_if_absent
from lake.table.changes import _match, _rows
from lake.table.commit import Operation, commit, transactions
from lake.table.snapshot import Snapshot, open_head
from lake.table.stream import field_ids

Ids = npt.NDArray[np.int64]

_FILLED = "lake.filled"
_ID = "_rowid"


@dataclass(frozen=True)
class Filled:
    """What `fill` did.

    Parameters
    ----------
    version : int
        The version that it made, or the newest if there was no row.
    rows : int
        Rows that got a value.
    """

    version: int
    rows: int


def check_fill(schema: Schema, dataset: lance.LanceDataset, column: Column) -> None:
    """Refuse a column that cannot be filled.

    Raises
    ------
    AlreadyExists
        A column of that name is there, and was not made by the same function.
    NotSupported
        Row ids of this table do not stay with their rows.
    """
    assert column.derivation is not None  # noqa: S101  columns that are filled tell what by
    check_names([column.name])
    if not dataset.has_stable_row_ids:
        raise NotSupported(
            f"{dataset.uri} was made without stable row ids, so nothing tells whether a row is the one that was "
            "read; copy it into a table of the lake"
        )
    for there in schema.columns:
        if there.name.casefold() == column.name.casefold():
            same = there.derivation is not None and there.derivation.function == column.derivation.function
            if not same or (there.name, there.type) != (column.name, column.type):
                raise AlreadyExists(
                    f"{dataset.uri} has a column {there.name!r} that {column.derivation.function} has not made: "
                    "choose another name, or drop it"
                )


def fill(since: Snapshot, of: str, column: Column, values: Callable[[Ids], pa.Array], *, commit_id: str) -> Filled:
    """Fill a column, which is added if it is not there; rows that came or changed since the snapshot get null.

    Other columns stay as they are, and their indexes.

    Parameters
    ----------
    since : Snapshot
        From which the values were computed.
    of : str
        The column that they were computed from: rows whose value of it may have changed get null.
    column : Column
        Nullable, with a derivation.
    values : callable
        Gives the values of rows by their ids; null where it knows none.
    commit_id : str
        Repeating the call with it does nothing.

    Raises
    ------
    AlreadyExists, NotSupported
        As `check_fill`.
    """
    location, branch = since.location, since.branch
    require_put_if_absent(location)
    properties: dict[str, str] = {_FILLED: "0"}

    def plan(newest: lance.LanceDataset) -> Operation | None:
        check_fill(Schema.decode(newest.schema), newest, column)
        operation, filled = _plan(since.dataset, newest, of, column, values)
        properties[_FILLED] = str(filled)
        return operation

    done = commit(location, branch, plan, verb="fill column", commit_id=commit_id, properties=properties)
    if done.repeated:
        properties = _told(location, branch, done.version)
    return Filled(done.version, int(properties[_FILLED]))


def _plan(
    before: lance.LanceDataset, newest: lance.LanceDataset, of: str, column: Column, values: Callable[[Ids], pa.Array]
) -> tuple[Operation | None, int]:
    changed = _changed(before, newest, of)
    there = column.name in newest.schema.names
    shape = pa.schema([pa.field(_ID, pa.uint64()), encode_field(column, 0)])
    made, offsets, modified, schema, filled = [], {}, list[int](), None, 0
    for fragment in newest.get_fragments():
        ids = fragment.scanner(columns=[], with_row_id=True).to_table()[_ID].to_numpy().astype(np.int64)
        found = pc.if_else(pa.array(np.isin(ids, changed)), pa.scalar(None, column.type), values(ids))
        filled += len(found) - found.null_count
        table = pa.table([pa.array(ids.astype(np.uint64)), found], shape)
        if there:
            metadata, modified, offsets[fragment.fragment_id] = fragment.update_columns(table, with_offsets=True)
        else:
            metadata, schema = fragment.merge(table, _ID)
        made.append(metadata)
    if not made:
        return None, 0
    if not there:
        return lance.LanceOperation.Merge(made, schema), filled
    update = lance.LanceOperation.Update(
        updated_fragments=made,
        fields_modified=modified,
        update_mode="rewrite_columns",
        updated_fragment_offsets=offsets,
    )
    return update, filled


def _changed(before: lance.LanceDataset, newest: lance.LanceDataset, column: str) -> Ids:
    """Find the rows that have come since, or may have another value: those of other files that were written since."""
    old, new = _files(before, column), _files(newest, column)
    rows = _rows(newest, [fragment for fragment, files in new.items() if old.get(fragment) != files])
    known = _match(_rows(before, list(old)), rows) if len(rows) else None
    late: Ids = rows[~known.present | known.newer, 0] if known is not None else np.empty(0, np.int64)
    return late


def _files(dataset: lance.LanceDataset, column: str) -> dict[int, frozenset[str]]:
    """Return the data files that hold a column, by fragment: the same file holds the same values."""
    ids = set(field_ids(dataset, [column]))
    return {
        f.fragment_id: frozenset(file.path for file in f.metadata.files if ids & set(file.fields))
        for f in dataset.get_fragments()
    }


def _told(location: Location, branch: str | None, version: int) -> dict[str, str]:
    head = open_head(location, branch)
    return next(told for number, told in transactions(head, version - 1) if number == version)

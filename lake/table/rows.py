"""Delete and update by predicate.

Each is planned against the newest version and committed only if no other writer touched the same
fragments since; otherwise it is planned again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance.fragment import FragmentMetadata, RowIdSequence

from lake.errors import InvalidInput
from lake.schema import Schema
from lake.storage import Location, require_put_if_absent
from lake.table.commit import Operation, commit
from lake.table.receipt import Receipt
from lake.table.sql import Sql, quote, sql_errors, whole
from lake.table.stream import Stream, field_ids, file_bytes, write_files


def delete(location: Location, branch: str | None, where: str, *, commit_id: str | None = None) -> Receipt:
    """Delete the rows that a SQL predicate selects; an index finds them if one fits."""
    started = time.monotonic()
    require_put_if_absent(location)
    counts: dict[str, int] = {}

    def plan(newest: lance.LanceDataset) -> Operation | None:
        with sql_errors(where):
            found = newest.to_table(columns=[], filter=whole(where, newest.schema.names), with_row_address=True)
        addresses = found["_rowaddr"].to_numpy()
        counts.update(deleted=len(addresses))
        if not len(addresses):
            return None
        updated, removed = _mask(newest, addresses)
        return lance.LanceOperation.Delete(updated, removed, where)

    done = commit(location, branch, plan, verb="delete", commit_id=commit_id)
    return Receipt.of(done, time.monotonic() - started, counts)


def update(
    location: Location,
    branch: str | None,
    values: Mapping[str, Any],
    where: str | None = None,
    *,
    commit_id: str | None = None,
) -> Receipt:
    """Set columns of the rows that a SQL predicate selects (of all, if there is none).

    Parameters
    ----------
    values : mapping
        Column to value. A value is taken as it is; an `Sql` is computed from the row's old values.
    """
    started = time.monotonic()
    require_put_if_absent(location)
    counts: dict[str, int] = {}

    def plan(newest: lance.LanceDataset) -> Operation | None:
        return _plan_update(newest, values, where, location, counts)

    done = commit(location, branch, plan, verb="update", commit_id=commit_id)
    return Receipt.of(done, time.monotonic() - started, counts)


def _plan_update(
    newest: lance.LanceDataset,
    values: Mapping[str, Any],
    where: str | None,
    location: Location,
    counts: dict[str, int],
) -> Operation | None:
    schema = Schema.decode(newest.schema)
    _check_update(schema, values)
    places: list[pa.RecordBatch] = []
    rows = _changed(newest, values, where, places)
    first = next(rows, None)
    if first is None:
        counts.update(updated=0)
        return None
    stream = Stream(chain([first], rows), schema)
    new = write_files(stream, newest, location)
    found = pa.Table.from_batches(places)
    _keep_row_ids(new, found["_rowid"].to_numpy())
    updated, removed = _mask(newest, found["_rowaddr"].to_numpy())
    counts.update(updated=stream.rows, bytes=file_bytes(new))
    return lance.LanceOperation.Update(
        removed_fragment_ids=removed,
        updated_fragments=updated,
        new_fragments=new,
        # Indexes of other columns go on covering these rows: their ids and values are the same.
        fields_for_preserving_frag_bitmap=field_ids(newest, values),
        update_mode="rewrite_rows",
    )


def _check_update(schema: Schema, values: Mapping[str, Any]) -> None:
    if not values:
        raise InvalidInput("update: give at least one column and its new value")
    for name in values:
        schema.column(name)
        if name in schema.key:
            raise InvalidInput(
                f"update: {name!r} is part of the entity key, which stays what it is; delete the rows and append "
                "them under their new key"
            )


def _changed(
    newest: lance.LanceDataset, values: Mapping[str, Any], where: str | None, places: list[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the selected rows with their new values; note in ``places`` where they were."""
    stored = Schema.decode(newest.schema).to_arrow()  # blobs as bytes, not as Lance shows them
    computed = {n: whole(v) if isinstance(v := values.get(n), Sql) else quote(n) for n in newest.schema.names}
    with sql_errors(where, *(v for v in values.values() if isinstance(v, Sql))):
        scanner = newest.scanner(
            columns=computed,
            filter=None if where is None else whole(where, newest.schema.names),
            with_row_id=True,
            with_row_address=True,
            blob_handling="all_binary",
        )
        for batch in scanner.to_batches():
            places.append(batch.select(["_rowid", "_rowaddr"]))
            yield _with_constants(batch.drop_columns(["_rowid", "_rowaddr"]), values, stored)


def _with_constants(batch: pa.RecordBatch, values: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    for name, value in values.items():
        if isinstance(value, Sql):
            continue
        field = schema.field(name)
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        try:
            one = pa.array([plain], getattr(field.type, "storage_type", field.type))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise InvalidInput(f"update: {value!r} is no value for column {name!r} ({field.type}): {error}") from error
        repeated = one.take(pa.array(np.zeros(batch.num_rows, np.int64)))
        if isinstance(field.type, pa.BaseExtensionType):
            repeated = pa.ExtensionArray.from_storage(field.type, repeated)
        batch = batch.set_column(batch.schema.get_field_index(name), field, repeated)
    return batch


def _keep_row_ids(fragments: list[FragmentMetadata], row_ids: npt.NDArray[np.uint64]) -> None:
    """Give rewritten rows the ids that they had."""
    start = 0
    for fragment in fragments:
        ids = row_ids[start : start + fragment.physical_rows]
        fragment.row_id_meta = RowIdSequence(ids.tolist()).to_inline_metadata()
        start += fragment.physical_rows


def _mask(newest: lance.LanceDataset, addresses: npt.NDArray[np.uint64]) -> tuple[list[FragmentMetadata], list[int]]:
    """Write deletion files: the fragments that keep rows, and the ids of those that keep none."""
    updated: list[FragmentMetadata] = []
    removed: list[int] = []
    fragment_ids = addresses >> np.uint64(32)
    for fragment_id in np.unique(fragment_ids):
        offsets = addresses[fragment_ids == fragment_id] & np.uint64(0xFFFFFFFF)
        left = newest.get_fragment(int(fragment_id)).delete_rows(offsets.tolist())
        if left is None:
            removed.append(int(fragment_id))
        else:
            updated.append(left)
    return updated, removed

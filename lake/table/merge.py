"""Merge by entity key: upsert, insert only, update only; whole rows or some of their columns.

A merge is planned against the newest version and committed only if no other writer touched the same
fragments, or merged, since; otherwise it is planned again.
"""

from __future__ import annotations

import time
from typing import Literal

import lance
import pyarrow.compute as pc

from lake.errors import InvalidInput
from lake.schema import Schema
from lake.storage import Location, require_put_if_absent
from lake.table.commit import Operation, claim, commit, earlier
from lake.table.inputs import Data
from lake.table.progress import Progress
from lake.table.receipt import Receipt
from lake.table.snapshot import open_head
from lake.table.spool import Spool
from lake.table.stream import Stream, file_bytes, write_files

Mode = Literal["upsert", "insert", "update"]


def merge(
    location: Location,
    branch: str | None,
    data: Data,
    *,
    mode: Mode = "upsert",
    commit_id: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Bring rows in by entity key.

    Parameters
    ----------
    data
        Rows with all columns of the key and any of the others. Columns that are left out keep their
        values in rows that are there, and are null in rows that are new.
    mode : {"upsert", "insert", "update"}
        Update and insert; only insert keys that are new; only update keys that are there.

    Raises
    ------
    InvalidInput
        The table has no key, or a key appears twice in ``data``.
    """
    started = time.monotonic()
    if mode not in ("upsert", "insert", "update"):
        raise InvalidInput(f"mode {mode!r}: give 'upsert', 'insert' or 'update'")
    require_put_if_absent(location)
    head = open_head(location, branch)
    if (before := earlier(head, location, branch, commit_id)) is not None:  # look before the input is read
        return Receipt.of(before, time.monotonic() - started, {})
    since = head.version
    schema = Schema.decode(head.schema)
    if not schema.key:
        raise InvalidInput(f"{location.uri} has no entity key, so there is nothing to merge by; use append")
    counts: dict[str, int] = {}
    with Spool(Stream(data, schema, partial=True, progress=progress)) as spool:
        _check_keys(spool, schema)
        _check_partial(spool, schema, mode)

        def plan(newest: lance.LanceDataset) -> Operation | None:
            if not spool.rows:
                return None
            if not newest.get_fragments():
                return _first_rows(newest, spool, location, mode, counts)
            return _plan_merge(newest, spool, schema.key, mode, counts)

        done = commit(location, branch, plan, verb="merge", commit_id=commit_id, since=since)
    return Receipt.of(done, time.monotonic() - started, counts)


def _check_keys(spool: Spool, schema: Schema) -> None:
    missing = [k for k in schema.key if k not in spool.schema.names]
    if missing:
        raise InvalidInput(f"merge needs all columns of the entity key {schema.key}; the input lacks {missing}")
    keys = spool.table(list(schema.key))
    groups = keys.group_by(list(schema.key)).aggregate([([], "count_all")])
    twice = groups.filter(pc.greater(groups["count_all"], 1))
    if twice.num_rows:
        example = {k: twice[k][0].as_py() for k in schema.key}
        raise InvalidInput(
            f"{twice.num_rows} keys appear more than once in the input, for example {example}, so which row is to "
            "win is not defined; deduplicate first"
        )


def _check_partial(spool: Spool, schema: Schema, mode: Mode) -> None:
    absent = [c.name for c in schema.columns if c.name not in spool.schema.names and not c.nullable]
    if absent and mode != "update":
        raise InvalidInput(
            f"columns {absent} are not nullable and missing in the input, so new keys could not be inserted; "
            "give them, or use mode='update'"
        )


def _plan_merge(
    newest: lance.LanceDataset, spool: Spool, key: tuple[str, ...], mode: Mode, counts: dict[str, int]
) -> Operation | None:
    builder = newest.merge_insert(list(key))
    if mode != "insert":
        builder = builder.when_matched_update_all()
    if mode != "update":
        builder = builder.when_not_matched_insert_all()
    transaction, stats = builder.execute_uncommitted(spool.reader())
    operation = transaction.operation
    counts.update(
        inserted=stats["num_inserted_rows"],
        updated=stats["num_updated_rows"],
        bytes=file_bytes(operation.new_fragments),
    )
    if not counts["inserted"] and not counts["updated"]:
        return None
    return claim(newest, operation)  # two merges of one new key must not both insert it


def _first_rows(
    newest: lance.LanceDataset, spool: Spool, location: Location, mode: Mode, counts: dict[str, int]
) -> Operation | None:
    """Merge into a table without rows: an overwrite, which conflicts with whatever else comes first."""
    counts.update(inserted=0, updated=0)
    if mode == "update":
        return None
    stream = Stream(spool.reader(), Schema.decode(newest.schema))
    fragments = write_files(stream, newest, location)
    counts.update(inserted=stream.rows, bytes=file_bytes(fragments))
    return lance.LanceOperation.Overwrite(newest.lance_schema, fragments)

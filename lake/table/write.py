"""Create, append, overwrite."""

from __future__ import annotations

import time

import lance
import pyarrow as pa

from lake.errors import Conflict
from lake.schema import Schema
from lake.storage import Location, require_put_if_absent
from lake.table.commit import Operation, claim, commit, create, earlier
from lake.table.inputs import Data
from lake.table.progress import Progress
from lake.table.receipt import Receipt
from lake.table.snapshot import open_head
from lake.table.stream import BYTES_PER_FILE, ROWS_PER_FILE, Stream, failed, field_ids, file_bytes, write_files


def create_table(
    location: Location,
    schema: Schema,
    data: Data | None = None,
    *,
    commit_id: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Make a table, with its first rows in the same commit.

    Raises
    ------
    AlreadyExists
        There is a table already.
    UnsafeStore
        The store would lose rows of concurrent commits.
    """
    started = time.monotonic()
    require_put_if_absent(location)
    empty = pa.Table.from_batches([], schema.to_arrow())
    stream = Stream(empty if data is None else data, schema, progress=progress)

    def write(properties: dict[str, str]) -> lance.LanceDataset:
        return lance.write_dataset(
            stream.reader(),
            location.uri,
            mode="create",
            max_rows_per_file=ROWS_PER_FILE,
            max_bytes_per_file=BYTES_PER_FILE,
            storage_options=dict(location.options) or None,
            # Row ids survive updates and compaction: indexes stay valid and changes can be followed.
            enable_stable_row_ids=True,
            transaction_properties=properties,
        )

    try:
        done = create(location, write, commit_id=commit_id)
    except Exception as error:
        if stream.error is not None:
            raise failed(stream, location, error) from stream.error
        raise
    counts = {"inserted": stream.rows, "bytes": stream.bytes}
    return Receipt.of(done, time.monotonic() - started, counts)


def append(
    location: Location,
    branch: str | None,
    data: Data,
    *,
    commit_id: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Append rows; memory is bounded whatever the input's size, and other writers are not disturbed.

    The entity key is not looked up: a row whose key is there already is a second row of that key. `merge`
    is the write that looks.
    """
    started = time.monotonic()
    require_put_if_absent(location)
    head = open_head(location, branch)
    if (before := earlier(head, location, branch, commit_id)) is not None:  # look before the input is read
        return Receipt.of(before, time.monotonic() - started, {})
    since = head.version
    written_for = head.lance_schema
    stream = Stream(data, Schema.decode(head.schema), progress=progress)
    counts: dict[str, int] = {}
    fragments = write_files(stream, head, location)

    def plan(newest: lance.LanceDataset) -> Operation | None:
        if newest.lance_schema != written_for:
            raise Conflict(
                f"append to {location.uri}: the table's columns were changed while the data was written; append again",
                ours="append",
                theirs="a change of columns",
            )
        counts.update(inserted=stream.rows, bytes=file_bytes(fragments))
        if not fragments:
            return None
        if commit_id is None:  # nobody else can be making this very commit
            return lance.LanceOperation.Append(fragments)
        if not newest.get_fragments():
            return lance.LanceOperation.Overwrite(newest.lance_schema, fragments)
        everything = field_ids(newest, newest.schema.names)  # no index covers these rows yet
        operation = lance.LanceOperation.Update(
            new_fragments=fragments, fields_for_preserving_frag_bitmap=everything, update_mode="rewrite_rows"
        )
        return claim(newest, operation)

    properties = {"lake.inserted": str(stream.rows)}
    done = commit(location, branch, plan, verb="append", commit_id=commit_id, since=since, properties=properties)
    return Receipt.of(done, time.monotonic() - started, counts)


def overwrite(
    location: Location,
    branch: str | None,
    data: Data,
    schema: Schema | None = None,
    *,
    commit_id: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Replace all rows, and the schema if one is given; earlier versions stay readable.

    Declared indexes stay declared; their next build covers the new rows.
    """
    started = time.monotonic()
    require_put_if_absent(location)
    head = open_head(location, branch)
    if (before := earlier(head, location, branch, commit_id)) is not None:
        return Receipt.of(before, time.monotonic() - started, {})
    since = head.version
    stream = Stream(data, schema or Schema.decode(head.schema), progress=progress)
    fragments = write_files(stream, head, location, afresh=True)
    counts: dict[str, int] = {}

    def plan(newest: lance.LanceDataset) -> Operation:
        counts.update(inserted=stream.rows, deleted=newest.count_rows(), bytes=file_bytes(fragments))
        return lance.LanceOperation.Overwrite(stream.arrow_schema, fragments)

    properties = {"lake.inserted": str(stream.rows)}
    done = commit(location, branch, plan, verb="overwrite", commit_id=commit_id, since=since, properties=properties)
    return Receipt.of(done, time.monotonic() - started, counts)

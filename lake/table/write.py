"""Create, append, overwrite."""

from __future__ import annotations

import time

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from lake.errors import Conflict
from lake.schema import Schema
from lake.storage import Location, require_put_if_absent
from lake.table.commit import Commit, Operation, claim, commit, create, earlier
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
    since, written_for = head.version, head.lance_schema
    stream = Stream(data, Schema.decode(head.schema), progress=progress)
    fragments = write_files(stream, head, location)
    done, counts = commit_append(
        location, branch, fragments, stream.rows, written_for=written_for, commit_id=commit_id, since=since
    )
    return Receipt.of(done, time.monotonic() - started, counts)


def commit_append(
    location: Location,
    branch: str | None,
    fragments: list[FragmentMetadata],
    rows: int,
    *,
    written_for: LanceSchema,
    commit_id: str | None = None,
    since: int = 0,
) -> tuple[Commit, dict[str, int]]:
    """Append data files that are written already, by this process or by others.

    Parameters
    ----------
    fragments : list of FragmentMetadata
        From `write_files`.
    rows : int
        In all of them.
    written_for : LanceSchema
        Of the version that the files were written for: the columns must be the same still.
    since : int
        The caller has looked for the id up to this version.

    Returns
    -------
    tuple of Commit and dict
        The commit, and what it counted, for a `Receipt`.
    """
    counts: dict[str, int] = {}

    def plan(newest: lance.LanceDataset) -> Operation | None:
        if newest.lance_schema != written_for:
            raise Conflict(
                f"append to {location.uri}: the table's columns were changed while the data was written; append again",
                ours="append",
                theirs="a change of columns",
            )
        counts.update(inserted=rows, bytes=file_bytes(fragments))
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

    properties = {"lake.inserted": str(rows)}
    done = commit(location, branch, plan, verb="append", commit_id=commit_id, since=since, properties=properties)
    return done, counts


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
    done, counts = commit_overwrite(
        location, branch, fragments, stream.rows, stream.arrow_schema, commit_id=commit_id, since=since
    )
    return Receipt.of(done, time.monotonic() - started, counts)


def commit_overwrite(
    location: Location,
    branch: str | None,
    fragments: list[FragmentMetadata],
    rows: int,
    schema: pa.Schema,
    *,
    commit_id: str | None = None,
    since: int = 0,
) -> tuple[Commit, dict[str, int]]:
    """Replace all rows by data files that were written afresh; otherwise as `commit_append`.

    Parameters
    ----------
    schema : pyarrow.Schema
        With the lake's metadata.
    """
    counts: dict[str, int] = {}

    def plan(newest: lance.LanceDataset) -> Operation:
        counts.update(inserted=rows, deleted=newest.count_rows(), bytes=file_bytes(fragments))
        return lance.LanceOperation.Overwrite(schema, fragments)

    properties = {"lake.inserted": str(rows)}
    done = commit(location, branch, plan, verb="overwrite", commit_id=commit_id, since=since, properties=properties)
    return done, counts

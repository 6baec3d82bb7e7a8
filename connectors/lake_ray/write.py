"""A Ray dataset into a table: tasks write data files, and the driver commits those of the tasks that count."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import pyarrow as pa
from lance.fragment import FragmentMetadata
from ray.data import Dataset
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult
from ray.exceptions import RayError

from lake.errors import CommitUnknown, InvalidInput, LakeError, NotFound
from lake.index.jobs import job_folder
from lake.schema import Schema
from lake.storage import Files, Location
from lake.table.merge import merge
from lake.table.parts import Part, PartedWrite, begin
from lake.table.receipt import Receipt
from lake.table.snapshot import open_head
from lake.table.write import create_table

_ADVICE = "\nFailed to apply UDF transform"  # Ray adds to the message how to have it tried again
_TENSORS = ("ray.data.arrow_tensor", "arrow.fixed_shape_tensor")

Mode = Literal["append", "overwrite", "merge"]


def write_lake(
    ds: Dataset,
    uri: str,
    mode: Mode = "append",
    commit_id: str | None = None,
    *,
    schema: Schema | None = None,
    branch: str | None = None,
    storage_options: Mapping[str, object] | None = None,
    fragment_bytes: int = 256 << 20,
    concurrency: int | None = None,
) -> Receipt:
    """Execute a Ray dataset and write its rows into a table, in one commit.

    Rows are checked in the tasks; one that is not legal stops the write, and nothing of it is visible. A task that
    Ray repeats writes files of its own, of which the commit names one set. Files that no commit names are deleted,
    except those of a process that was killed, which `lake.Table.expire` removes.

    Parameters
    ----------
    ds : ray.data.Dataset
        Its columns are the table's, or those of them that are not nullable and any others.
    uri : str
        Where the table lies: ``table.uri``.
    mode : {"append", "overwrite", "merge"}
        Add rows; replace all rows; or update and insert by entity key, through the driver's disk, with any
        columns besides the key.
    commit_id : str, optional
        Repeating the call with the same id does nothing: the dataset is not even executed.
    schema : Schema, optional
        Makes the table if there is none; with ``"overwrite"`` it replaces the columns.
    branch : str, optional
        The branch to write to.
    storage_options : mapping, optional
        Of the object store; never printed.
    fragment_bytes : int
        Blocks are gathered until they hold so many bytes, and become one data file.
    concurrency : int, optional
        How many write tasks run at a time.

    Returns
    -------
    Receipt
        Version, rows, bytes, commit id.

    Raises
    ------
    InvalidInput
        A row is not legal; the message names column and row (counted in its write task, for a merge in the
        dataset) and remedy.
    NotFound
        There is no table, and no schema to make one from.
    """
    location = Location.of(uri, storage_options)
    if mode not in ("append", "overwrite", "merge"):
        raise InvalidInput(f"mode {mode!r}: give 'append', 'overwrite' or 'merge'")
    if fragment_bytes < 1:
        raise InvalidInput(f"fragment_bytes={fragment_bytes}: it must be 1 or more")
    absent = _absent(location, branch, schema)
    if mode == "merge":
        if absent and schema is not None:
            create_table(location, schema)
        return _merge(ds, location, branch, commit_id)
    write = begin(location, branch, "create" if absent else mode, schema, commit_id=commit_id)
    return write.commit([]) if write.done else _write(ds, write, fragment_bytes, concurrency)


def _absent(location: Location, branch: str | None, schema: Schema | None) -> bool:
    try:
        open_head(location, branch)
    except NotFound as error:
        if schema is None or branch is not None:
            raise NotFound(
                f"{error}: make it first, with lake.connect(root).create_table(name, schema, key=...), or give schema="
            ) from error
        return True
    return False


def _write(ds: Dataset, write: PartedWrite, fragment_bytes: int, concurrency: int | None) -> Receipt:
    journal = _Journal(write)
    sink = _LakeDatasink(journal, fragment_bytes)
    try:
        with _lake_errors():
            ds.write_datasink(sink, concurrency=concurrency)
    except BaseException:
        journal.close(kept=())
        raise
    try:
        receipt = write.commit(sink.parts)
    except CommitUnknown:  # it may have taken effect: the files must stay
        raise
    except LakeError:
        journal.close(kept=())
        raise
    journal.close(kept=() if receipt.repeated else sink.parts)
    return receipt


def _merge(ds: Dataset, location: Location, branch: str | None, commit_id: str | None) -> Receipt:
    """Stream the rows to the driver, which keeps them on its disk while it merges."""
    schema = Schema.decode(open_head(location, branch).schema)
    key = schema.to_arrow().empty_table().select(list(schema.key))  # an input without rows needs columns all the same
    batches = ds.iter_batches(batch_size=None, batch_format="pyarrow")
    with _lake_errors():
        return merge(location, branch, _Lazy(batches, key), commit_id=commit_id)


class _Lazy(Iterable[pa.Table]):
    """Tables that are computed when they are asked for; without rows, one that is empty."""

    def __init__(self, tables: Iterable[pa.Table], empty: pa.Table) -> None:
        self._tables, self._empty = tables, empty

    def __iter__(self) -> Iterator[pa.Table]:
        tables = _with_rows(self._tables)
        return chain([next(tables, self._empty)], tables)


class _Journal:
    """Names the files of finished tasks while nothing else does, so that those that no commit takes can be deleted."""

    def __init__(self, write: PartedWrite) -> None:
        self.write = write
        self._files = Files(job_folder(write.location, "ray-writes"))
        self._run = uuid.uuid4().hex

    def note(self, part: Part) -> None:
        """Record a part, in the task that made it."""
        entry = {"rows": part.rows, "fragments": [fragment.to_json() for fragment in part.fragments]}
        self._files.write(f"{self._run}-{uuid.uuid4().hex}.json", json.dumps(entry).encode())

    def close(self, kept: Iterable[Part]) -> None:
        """Delete the files of all parts but some, and the journal."""
        names = [name for name in self._files.names() if name.startswith(self._run)]
        taken = {file.path for part in kept for fragment in part.fragments for file in fragment.files}
        for part in map(self._read, names):
            if not any(file.path in taken for fragment in part.fragments for file in fragment.files):
                self.write.discard([part])
        for name in names:
            self._files.delete(name)

    def _read(self, name: str) -> Part:
        entry = json.loads(self._files.read(name))
        fragments = (FragmentMetadata.from_json(json.dumps(fragment)) for fragment in entry["fragments"])
        return Part(tuple(fragments), entry["rows"])


class _LakeDatasink(Datasink):  # type: ignore[misc]
    def __init__(self, journal: _Journal, fragment_bytes: int) -> None:
        self._journal = journal
        self._fragment_bytes = fragment_bytes
        self.parts: list[Part] = []

    def get_name(self) -> str:
        return "Lake"

    @property
    def min_bytes_per_write(self) -> int:
        return self._fragment_bytes

    def write(self, blocks: Iterable[Block], _: object) -> Part:
        tables = _with_rows(BlockAccessor.for_block(block).to_arrow() for block in blocks)
        first = next(tables, None)
        if first is None:
            return Part((), 0)
        part = self._journal.write.part(chain([first], tables))
        self._journal.note(part)
        return part

    def on_write_complete(self, write_result: WriteResult) -> None:
        """Keep what the tasks that count returned."""
        self.parts = [part for part in write_result.write_returns if part.rows]


def _with_rows(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the tables that are not empty, with Arrow's own types where Ray has types of its own for tensors."""
    for table in tables:
        if table.num_rows:
            yield pa.table(
                {name: _plain(column) for name, column in zip(table.column_names, table.columns, strict=True)}
            )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if not isinstance(kind, pa.BaseExtensionType) or not kind.extension_name.startswith(_TENSORS):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)


@contextmanager
def _lake_errors() -> Iterator[None]:
    """Raise the lake's own error of a task, which Ray wraps."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and (not isinstance(cause, LakeError) or isinstance(cause, RayError)):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None or cause is error:
            raise
        cause.args = (str(cause).split(_ADVICE, 1)[0], *cause.args[1:])
        raise cause from None

"""A write in parts: tasks make data files, wherever they run, and one commit takes those of the tasks that count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import lance
from lance.fragment import FragmentMetadata

from lake.errors import AlreadyExists, InvalidInput, NotFound, StorageError
from lake.schema import Schema
from lake.storage import Files, Location, require_put_if_absent
from lake.table.commit import Commit, create, earlier
from lake.table.inputs import Data
from lake.table.progress import Progress
from lake.table.receipt import Receipt
from lake.table.snapshot import Snapshot, open_head
from lake.table.stream import Stream, file_bytes, write_files
from lake.table.write import commit_append, commit_overwrite

Mode = Literal["append", "overwrite", "create"]


@dataclass(frozen=True)
class Part:
    """Data files that no version names yet.

    Parameters
    ----------
    fragments : tuple of FragmentMetadata
        What a commit needs to know of them.
    rows : int
        Rows in them.
    """

    fragments: tuple[FragmentMetadata, ...]
    rows: int

    @property
    def bytes(self) -> int:
        """Bytes of the files."""
        return file_bytes(list(self.fragments))


@dataclass(frozen=True)
class PartedWrite:
    """A write that has begun; picklable, so that tasks elsewhere can make parts of it. Use `begin`.

    Parameters
    ----------
    location : Location
    branch : str or None
    mode : {"append", "overwrite", "create"}
    schema : Schema
        Of the rows.
    head : Snapshot or None
        The version that the write began on; ``None`` when it is to create the table.
    commit_id : str or None
    done : Commit or None
        The commit took effect before: there is nothing to write.
    """

    location: Location
    branch: str | None
    mode: Mode
    schema: Schema
    head: Snapshot | None
    commit_id: str | None = None
    done: Commit | None = None
    started: float = field(default_factory=time.time, repr=False)

    def part(self, data: Data, progress: Progress | None = None) -> Part:
        """Check rows and write them into files of their own. Files of a part that fails are removed.

        Raises
        ------
        InvalidInput
            A row is not legal; the message names column, row (of this part) and remedy.
        """
        stream = Stream(data, self.schema, progress=progress)
        target = self.location.uri if self.head is None else self.head.dataset
        fragments = write_files(stream, target, self.location, afresh=self.mode != "append")
        return Part(tuple(fragments), stream.rows)

    def commit(self, parts: Sequence[Part]) -> Receipt:
        """Make all rows of some parts visible at once, as one version.

        Raises
        ------
        Conflict
            The table's columns were changed meanwhile.
        CommitUnknown
            The store did not tell; the parts must stay. All other errors leave them for `discard`.
        """
        if self.done is not None:
            return self._receipt(self.done, {})
        fragments = [fragment for part in parts for fragment in part.fragments]
        rows = sum(part.rows for part in parts)
        if self.head is None:
            return self._receipt(self._create(fragments), {"inserted": rows, "bytes": file_bytes(fragments)})
        since = self.head.version
        at = (self.location, self.branch, fragments, rows)
        if self.mode == "append":
            written_for = self.head.dataset.lance_schema
            return self._receipt(*commit_append(*at, written_for=written_for, commit_id=self.commit_id, since=since))
        return self._receipt(*commit_overwrite(*at, self.schema.to_arrow(), commit_id=self.commit_id, since=since))

    def discard(self, parts: Sequence[Part]) -> None:
        """Delete the files of parts that no commit took; what cannot be deleted is left for `expire`."""
        branch = f"tree/{self.branch}/" if self.branch else ""
        files = Files(self.location)
        for part in parts:
            for fragment in part.fragments:
                for file in fragment.files:
                    with suppress(StorageError):
                        files.delete(f"{branch}data/{file.path}")

    def _create(self, fragments: list[FragmentMetadata]) -> Commit:
        operation = lance.LanceOperation.Overwrite(self.schema.to_arrow(), fragments)

        def write(properties: dict[str, str]) -> lance.LanceDataset:
            return lance.LanceDataset.commit(
                self.location.uri,
                lance.Transaction(read_version=0, operation=operation, transaction_properties=properties),
                max_retries=0,
                storage_options=dict(self.location.options) or None,
                enable_stable_row_ids=True,
            )

        return create(self.location, write, commit_id=self.commit_id)

    def _receipt(self, done: Commit, counts: dict[str, int]) -> Receipt:
        return Receipt.of(done, time.time() - self.started, counts)


def begin(
    location: Location,
    branch: str | None,
    mode: Mode,
    schema: Schema | None = None,
    *,
    commit_id: str | None = None,
) -> PartedWrite:
    """Begin a write in parts.

    Parameters
    ----------
    schema : Schema, optional
        For an overwrite that changes the columns; a table that is to be created needs it.

    Raises
    ------
    NotFound
        There is no table to append to or to overwrite.
    AlreadyExists
        There is a table to be created.
    """
    require_put_if_absent(location)
    if mode == "create":
        if schema is None:
            raise InvalidInput("a table is created from a schema")
        with suppress(NotFound):
            done = earlier(open_head(location), location, None, commit_id)
            if done is None or done.version != 1:
                raise AlreadyExists(
                    f"{location.uri} exists already: open_table opens it; choose another name for a new one"
                )
            return PartedWrite(location, None, mode, schema, None, commit_id, done)
        return PartedWrite(location, None, mode, schema, None, commit_id)
    head = open_head(location, branch)
    done = earlier(head, location, branch, commit_id)  # look before the input is read
    stored = Schema.decode(head.schema)
    chosen = (schema or stored) if mode == "overwrite" else stored
    return PartedWrite(location, branch, mode, chosen, Snapshot.of(head, location, branch), commit_id, done)

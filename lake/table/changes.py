"""What changed between two versions: rows inserted, updated and deleted.

Both versions are compared by row id and by the versions in which Lance says that each row was created
and last updated, so the answer holds across compaction, restore and overwrite. Fragments that are the
same in both are not read; of the others only those three numbers a row, and then the rows that changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lake.errors import InvalidInput
from lake.table.snapshot import Snapshot, store_errors

CHANGE = "_change"
_TAKE = 8192
_CREATED = "_row_created_at_version"
_UPDATED = "_row_last_updated_at_version"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Changed rows of one kind in one fragment.

    Parameters
    ----------
    kind : str
        ``"insert"``, ``"update"`` or ``"delete"``.
    fragment : int
        Of the newer version, or for deleted rows of the older one.
    positions : numpy.ndarray or None
        Among the fragment's live rows; ``None`` for all of them.
    """

    kind: str
    fragment: int
    positions: Rows | None


@dataclass(frozen=True)
class Changes:
    """The rows that differ between two snapshots of a table.

    Parameters
    ----------
    before, after : Snapshot
        Of one table.
    columns : tuple of str or None
        Which columns to give; all by default. Deleted rows have the values that they had, and null in columns
        that their version did not have by this name and type.
    """

    before: Snapshot
    after: Snapshot
    columns: tuple[str, ...] | None = None

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield changed rows with a column ``_change``: ``"insert"``, ``"update"`` or ``"delete"``."""
        for part in self.parts():
            yield from self.read(part)

    def parts(self) -> list[Part]:
        """Find the changed rows without reading them: parts that can be read anywhere, in any order."""
        with store_errors(self.after.location, self.after.branch):
            old, new = _differing(self.before.dataset, self.after.dataset)
            rows_before, rows_after = _rows(self.before.dataset, old), _rows(self.after.dataset, new)
        known = _match(rows_before, rows_after)
        gone = ~_match(rows_after, rows_before).present
        return [
            *_parts(rows_after, ~known.present, "insert"),
            *_parts(rows_after, known.present & known.newer, "update"),
            *_parts(rows_before, gone, "delete"),
        ]

    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one of `parts`."""
        names = self._schema().names[1:]
        with store_errors(self.after.location, self.after.branch):
            if part.kind != "delete":
                yield from _take(self.after.dataset, part, names)
                return
            # At least one is read.
            kept = [name for name in names if self._kept(name)] or self.before.dataset.schema.names[:1]
            for batch in _take(self.before.dataset, part, kept):
                yield self._padded(batch)

    def to_arrow(self) -> pa.Table:
        """Return all changed rows."""
        batches = [pa.Table.from_batches([b]) for b in self.to_batches()]
        return pa.concat_tables(batches, promote_options="permissive") if batches else self._schema().empty_table()

    def _schema(self) -> pa.Schema:
        schema = self.after.dataset.schema
        return pa.schema([pa.field(CHANGE, pa.string()), *(schema.field(n) for n in self.columns or schema.names)])

    def _kept(self, name: str) -> bool:
        """Whether the older version has the column too."""
        before, after = self.before.dataset.schema, self.after.dataset.schema
        return name in before.names and before.field(name).type == after.field(name).type

    def _padded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give deleted rows the columns that are newer than they are."""
        columns, fields = [], []
        for field in self._schema():
            there = field.name in batch.schema.names
            fields.append(batch.schema.field(field.name) if there else field.with_nullable(nullable=True))
            columns.append(batch.column(field.name) if there else pa.nulls(batch.num_rows, field.type))
        return pa.record_batch(columns, schema=pa.schema(fields))

    def counts(self) -> dict[str, int]:
        """Count the changes without reading the rows' columns."""
        with store_errors(self.after.location, self.after.branch):
            old, new = _differing(self.before.dataset, self.after.dataset)
            rows_before, rows_after = _rows(self.before.dataset, old), _rows(self.after.dataset, new)
        known = _match(rows_before, rows_after)
        return {
            "insert": int((~known.present).sum()),
            "update": int((known.present & known.newer).sum()),
            "delete": int((~_match(rows_after, rows_before).present).sum()),
        }


@dataclass(frozen=True)
class _Found:
    present: npt.NDArray[np.bool_]
    newer: npt.NDArray[np.bool_]


def compare(before: Snapshot, after: Snapshot, columns: list[str] | None = None) -> Changes:
    """Compare two snapshots of one table, the older one first."""
    if (before.location.uri, before.branch) != (after.location.uri, after.branch):
        raise InvalidInput("changes are between two versions of one table and branch")
    if before.version > after.version:
        raise InvalidInput(f"changes(since={before.version}): the table is at version {after.version}, before it")
    for name in columns or ():
        after.schema.column(name)
    return Changes(before, after, tuple(columns) if columns else None)


def _differing(before: lance.LanceDataset, after: lance.LanceDataset) -> tuple[list[int], list[int]]:
    """Ids of the fragments that are not the same in both."""
    old = {f.fragment_id: f.metadata.to_json() for f in before.get_fragments()}
    new = {f.fragment_id: f.metadata.to_json() for f in after.get_fragments()}
    same = {i for i, fragment in old.items() if new.get(i) == fragment}
    return sorted(old.keys() - same), sorted(new.keys() - same)


def _rows(dataset: lance.LanceDataset, fragment_ids: list[int]) -> Rows:
    """One line a live row: row id, created, updated, fragment, position among the fragment's live rows."""
    parts = []
    for fragment_id in fragment_ids:
        fragment = dataset.get_fragment(fragment_id)
        found = fragment.scanner(columns=[_CREATED, _UPDATED], with_row_id=True).to_table()
        line = np.empty((found.num_rows, 5), np.int64)
        for at, name in enumerate(("_rowid", _CREATED, _UPDATED)):
            line[:, at] = found[name].to_numpy()
        line[:, 3] = fragment_id
        line[:, 4] = np.arange(found.num_rows)
        parts.append(line)
    return np.concatenate(parts) if parts else np.empty((0, 5), np.int64)


def _match(known: Rows, rows: Rows) -> _Found:
    """Look rows up by their id and creation (after a restore, an id may be given again to another row)."""
    if not len(known) or not len(rows):
        no = np.zeros(len(rows), np.bool_)
        return _Found(no, no)
    order = np.lexsort((known[:, 1], known[:, 0]))
    pairs = _pairs(known[order])
    wanted = _pairs(rows)
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return _Found(pairs[at] == wanted, known[order][at, 2] != rows[:, 2])


def _pairs(rows: Rows) -> npt.NDArray[np.void]:
    """Row id and creation as one value that sorts as the two."""
    both = np.empty(len(rows), np.dtype([("id", np.int64), ("created", np.int64)]))
    both["id"], both["created"] = rows[:, 0], rows[:, 1]
    return both


def _parts(rows: Rows, mask: npt.NDArray[np.bool_], kind: str) -> Iterator[Part]:
    for fragment_id in np.unique(rows[mask, 3]):
        of_fragment = rows[:, 3] == fragment_id
        chosen = mask & of_fragment
        every = np.array_equal(chosen, of_fragment)
        yield Part(kind, int(fragment_id), None if every else rows[chosen, 4])


def _take(dataset: lance.LanceDataset, part: Part, names: list[str]) -> Iterator[pa.RecordBatch]:
    fragment = dataset.get_fragment(part.fragment)
    if part.positions is None:
        found: Iterable[pa.RecordBatch] = fragment.scanner(columns=names, batch_size=_TAKE).to_batches()
    else:
        pieces = range(0, len(part.positions), _TAKE)
        taken = (fragment.take(part.positions[i : i + _TAKE].tolist(), columns=names) for i in pieces)
        found = (batch for table in taken for batch in table.to_batches())
    for batch in found:
        label = pa.array([part.kind] * batch.num_rows, pa.string())
        yield batch.add_column(0, pa.field(CHANGE, pa.string()), label)

"""One side of a join: the rows of a snapshot that pass a filter and have a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lance
import numpy as np
import pyarrow as pa

from lake.errors import InvalidInput
from lake.index.kmeans import unit
from lake.nearest.kernel import Floats, Ids
from lake.schema import Column, Role
from lake.schema.arrow import vector_layout
from lake.table.snapshot import Snapshot, store_errors
from lake.table.sql import sql_errors

ROW_ID = "_rowid"  # no column can have this name

_SAMPLED = 1024
_HELD_BYTES = 32 << 20
_SCANNED = 4  # rows that are read while one is looked up
_SHORT, _LONG = 1e-20, 1e20  # squared lengths that float32 still squares and divides well
_TOO_LONG = 1e30

Span = tuple[int, int, int]
"""Fragment, offset and number of rows, counted among those that pass the filter."""


@dataclass(frozen=True)
class Side:
    """One side of a join.

    Parameters
    ----------
    snapshot : Snapshot
    column : str
        The vectors.
    where : str or None
        SQL, checked to be one whole expression.
    carry : tuple of str
        Columns that the result gets besides the key.
    """

    snapshot: Snapshot
    column: str
    where: str | None = None
    carry: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The entity key; for a table without one, Lance's row id."""
        return self.snapshot.schema.key or (ROW_ID,)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        layout = vector_layout(self.vectors.type)
        assert layout is not None  # noqa: S101  `check` has looked
        return layout[1]

    @property
    def vectors(self) -> Column:
        """The vector column."""
        return self.snapshot.schema.column(self.column)

    @property
    def payload(self) -> list[str]:
        """The columns that a result row takes from this side."""
        return [name for name in self.named if name != ROW_ID]

    @property
    def named(self) -> list[str]:
        """What a result row takes from this side, row id among it."""
        return list(dict.fromkeys((*self.key, *self.carry)))

    def payload_bytes(self) -> int:
        """Estimate the bytes of what a result row takes from this side."""
        if not self.payload:
            return 0
        some = self.snapshot.dataset.head(_SAMPLED, columns=self.payload)
        return int(some.nbytes // some.num_rows) if some.num_rows else 0

    def check(self) -> None:
        """Refuse what cannot be joined.

        Raises
        ------
        InvalidInput
            The column holds no vectors, binary ones, or lists of vectors.
        """
        kind = self.vectors.type
        layout = vector_layout(kind)
        if layout is None or pa.types.is_list(kind) or not pa.types.is_floating(layout[0]):
            raise InvalidInput(
                f"{self.snapshot.location.uri}: column {self.column!r} is {kind}; "
                "a join compares float vectors, one a row"
            )
        for name in self.carry:
            if self.snapshot.schema.column(name).role == Role.BLOB:
                raise InvalidInput(f"{self.snapshot.location.uri}: {name!r} holds blobs, which a join does not carry")

    def fragments(self) -> dict[int, int]:
        """Count the rows that pass the filter, by fragment."""
        found = {}
        with store_errors(self.snapshot.location, self.snapshot.branch), sql_errors(self.where):
            for fragment in self.snapshot.dataset.get_fragments():
                rows = fragment.count_rows(self.where) if self.where else fragment.metadata.num_rows
                if rows:
                    found[fragment.fragment_id] = rows
        return found

    def read(self, span: Span | None, columns: Sequence[str], batch_rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a span in their order, with ``_rowid``; all rows if it is ``None``."""
        dataset = self.snapshot.dataset
        fragment, offset, limit = span or (None, 0, None)
        with store_errors(self.snapshot.location, self.snapshot.branch), sql_errors(self.where):
            scanner = dataset.scanner(
                columns=list(columns),
                filter=self.where,
                fragments=None if fragment is None else [dataset.get_fragment(fragment)],
                offset=offset or None,
                limit=limit,
                with_row_id=True,
                batch_size=batch_rows,
            )
            yield from scanner.to_batches()

    def matrix(self, array: pa.Array, metric: str) -> tuple[Floats, Ids]:
        """Turn vectors into a matrix, and say which rows have one.

        Returns
        -------
        vectors : float32, shape (n, d)
            Of length one under cosine.
        positions : int64, shape (n,)
            In `array`.

        Raises
        ------
        InvalidInput
            NaN or infinity; a zero vector under cosine.
        """
        vectors, positions = self.unchecked(array)
        return self.checked(vectors, metric), positions

    def unchecked(self, array: pa.Array) -> tuple[Floats, Ids]:
        """Turn vectors into a matrix as they are; see `matrix`."""
        positions = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        values = array.drop_null().flatten() if array.null_count else array.flatten()
        vectors: Floats = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        return vectors.reshape(-1, self.dimension), positions

    def checked(self, vectors: Floats, metric: str) -> Floats:
        """Return vectors as they are compared: new ones of length one under cosine, and those given otherwise.

        Parameters
        ----------
        vectors : float32, shape (n, d)

        Raises
        ------
        InvalidInput
            As `matrix` does.
        """
        odd = ~np.isfinite(np.einsum("nd->n", vectors))
        if odd.any() and not np.isfinite(vectors[odd]).all():
            raise InvalidInput(
                f"{self.snapshot.location.uri}: column {self.column!r} holds NaN or infinity, near to nothing; "
                "delete those rows or embed them again"
            )
        if metric == "cosine":
            if not vectors.any(axis=1).all():
                raise InvalidInput(
                    f"{self.snapshot.location.uri}: column {self.column!r} holds a zero vector, without direction; "
                    "make it null, or join by l2"
                )
            return _unit(vectors)
        if (np.einsum("nd,nd->n", vectors, vectors) > _TOO_LONG).any():
            raise InvalidInput(
                f"{self.snapshot.location.uri}: column {self.column!r} holds vectors too long for float32 "
                "to square their distances; scale them down"
            )
        return vectors


def _unit(vectors: Floats) -> Floats:
    """Scale to length one, whatever the lengths."""
    squared = np.einsum("nd,nd->n", vectors, vectors)
    odd = ~((squared > _SHORT) & (squared < _LONG))
    if odd.any():
        vectors = vectors.copy()
        vectors[odd] /= np.abs(vectors[odd]).max(axis=1, keepdims=True)
    return unit(vectors)


def spans(fragments: dict[int, int], rows: int) -> list[tuple[Span, ...]]:
    """Cut the rows of some fragments into blocks of about equal size, of at most `rows` each."""
    total = sum(fragments.values())
    count = max(1, -(-total // rows))
    size = -(-total // count)
    blocks: list[tuple[Span, ...]] = []
    block: list[Span] = []
    room = size
    for fragment, held in fragments.items():
        offset = 0
        while offset < held:
            taken = min(room, held - offset)
            block.append((fragment, offset, taken))
            offset, room = offset + taken, room - taken
            if not room:
                blocks.append(tuple(block))
                block, room = [], size
    return [*blocks, tuple(block)] if block else blocks


def row_ids(side: Side, rows: Mapping[int, int], places: Ids) -> Ids:
    """Find the ids of rows by their places among those that pass the filter."""
    found, before = np.empty(len(places), np.int64), 0
    for fragment, held in rows.items():
        here = (places >= before) & (places < before + held)
        if here.any():
            batches = side.read((fragment, 0, held), [], 1 << 16)
            ids = np.concatenate([b.column("_rowid").to_numpy() for b in batches])
            found[here] = ids[places[here] - before].astype(np.int64)
        before += held
    return found


def named(prefix: str, column: str) -> str:
    """Return the name that a column of a side has in the result."""
    return prefix + ("row_id" if column == ROW_ID else column)


def finder(side: Side, wanted: int) -> Callable[[Ids], pa.Table]:
    """Return what finds the payload of rows by their ids.

    Parameters
    ----------
    side : Side
    wanted : int
        How many rows will be asked for: of many, and little of each, all of the side's are read at once.
    """
    rows = side.snapshot.dataset.count_rows()
    if not wanted or rows > _SCANNED * wanted or rows * (side.payload_bytes() + 16) > _HELD_BYTES:
        return partial(take, side.snapshot.dataset, columns=side.payload)
    table = pa.Table.from_batches(list(side.read(None, side.payload))).combine_chunks()
    ids = table["_rowid"].to_numpy().astype(np.int64)
    order = np.argsort(ids)
    ids = ids[order]
    if ids[-1] - ids[0] == len(ids) - 1:
        return lambda near: table.take(pa.array(order[near - ids[0]]))
    return lambda near: table.take(pa.array(order[np.searchsorted(ids, near)]))


def take(dataset: lance.LanceDataset, ids: Ids, columns: Sequence[str]) -> pa.Table:
    """Read columns of the rows with some row ids, in the order of `ids`, which may repeat."""
    distinct, at = np.unique(ids, return_inverse=True)
    found = dataset._take_rows(pa.array(distinct.astype(np.uint64)), columns=list(columns))  # noqa: SLF001  no public name
    return found.take(pa.array(at))

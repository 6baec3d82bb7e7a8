"""Rows in the order of their partitions: files of them, the segments of an IVF_FLAT index or what a job has sorted.

`lake.join.arranged` reads others.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from numpy.typing import NDArray

from lake.join.inplace import InPlace
from lake.join.lengths import lengths_of, metadata_of
from lake.nearest.kernel import Floats, Ids
from lake.nearest.rooms import Rooms
from lake.storage import Files, Location

_WRITTEN = 4096  # rows at a time
_IDS = 1 << 16  # likewise


class Reader(Protocol):
    """Reads rows in the order of their partitions: for one thread.

    Attributes
    ----------
    lengths : int64, shape (partitions,)
        Rows of each partition.
    dimension : int
        Of the vectors.
    """

    lengths: NDArray[np.int64]
    dimension: int

    @property
    def in_place(self) -> bool:
        """Whether vectors are read where they lie."""

    def read(self, first: int, count: int) -> tuple[Ids, Floats]:
        """Read so many rows; the id is -1 of one that has no vector."""

    def checked(self, vectors: Floats) -> Floats:
        """Return vectors that take part, if they make sense; see `lake.join.side.Side.checked`."""


class Ordered(Protocol):
    """Rows in the order of their partitions, wherever they lie: plain values, which tasks open."""

    @property
    def live(self) -> str | None:
        """A file in the job's folder that tells the ids of the rows that count, all if none; `lake.join.living`."""

    @property
    def ranges(self) -> int:
        """As so many."""

    def open(self) -> Reader:
        """Open them."""


@dataclass(frozen=True)
class Run:
    """One file of rows in the order of their partitions.

    Parameters
    ----------
    file : Location
    column : str
        The vectors; beside them stands ``_rowid``.
    live, ranges
        See `Ordered`.
    """

    file: Location
    column: str
    live: str | None = None
    ranges: int = 0

    def open(self) -> Reader:
        """Open the file."""
        return RunReader(self)


def save(folder: Location, name: str, array: NDArray[Any]) -> None:
    """Keep an array in a job's folder."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    Files(folder).write(name, buffer.getvalue())


def load(folder: Location, name: str) -> NDArray[Any]:
    """Read an array out of a job's folder."""
    array: NDArray[Any] = np.load(io.BytesIO(Files(folder).read(name)), allow_pickle=False)
    return array


def write_run(file: Location, ids: Ids, vectors: Floats, lengths: NDArray[np.int64]) -> None:
    """Write sorted rows, with the number of rows of each partition in the file's own schema."""
    held = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    batch = pa.record_batch({"_rowid": pa.array(ids.astype(np.uint64)), "vector": held})
    schema = batch.schema.with_metadata(metadata_of(lengths))
    with LanceFileWriter(file.uri, schema, storage_options=dict(file.options) or None) as writer:
        for first in range(0, max(1, batch.num_rows), _WRITTEN):  # of small pieces fewer bytes are copied
            writer.write_batch(batch.slice(first, _WRITTEN).cast(schema))


def partitions_of(file: Location) -> int:
    """Count the partitions of a run."""
    reader = _reader(file, None)
    return len(lengths_of(reader, reader.metadata(), file))


class Window:
    """Reads ids, those of the next rows with them: each call of a reader takes as long as many rows.

    Parameters
    ----------
    read : callable
        Reads so many from a first one on.
    rows : int
        That there are.
    """

    def __init__(self, read: Callable[[int, int], Ids], rows: int) -> None:
        self._read, self._rows = read, rows
        self._ids, self._first = np.empty(0, np.int64), 0  # those read last, and where they begin

    def read(self, first: int, count: int) -> Ids:
        """Read so many."""
        at = first - self._first
        if at < 0 or at + count > len(self._ids):
            held = min(max(count, _IDS), self._rows - first)
            self._ids, self._first, at = self._read(first, held), first, 0
        return self._ids[at : at + count]


class RunReader:
    """Reads a run: for one thread, since it keeps ids and memory from one call to the next.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    lengths : int64, shape (partitions,)
        Rows of each partition.
    dimension : int
        Of the vectors.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reader = _reader(run.file, ["_rowid", run.column])
        described = self._reader.metadata()
        self.lengths = lengths_of(self._reader, described, run.file)
        self.dimension = int(described.schema.field(run.column).type.list_size)
        self._place = InPlace.find(run.file, described, run.column)
        if self._place:
            self._reader = _reader(run.file, ["_rowid"])
        self._rooms, self._ids = Rooms(), Window(self._read_ids, described.num_rows)

    @property
    def in_place(self) -> bool:
        """Whether vectors are read where they lie."""
        return self._place is not None

    def read(self, first: int, count: int) -> tuple[Ids, Floats]:
        """Read so many rows."""
        if self._place:
            found = self._rooms.empty((count, self.dimension), np.float32)
            self._place.read(first, found)
            return self._ids.read(first, count), found
        table = self._reader.read_range(first, count, batch_size=count).to_table()
        ids: Ids = table["_rowid"].to_numpy().astype(np.int64, copy=False)
        held = table[self._run.column].combine_chunks()
        vectors: Floats = held.flatten().to_numpy().astype(np.float32, copy=False)
        return ids, vectors.reshape(count, self.dimension)

    def checked(self, vectors: Floats) -> Floats:
        """Return vectors: they were looked at when they were indexed, or sorted."""
        return vectors

    def _read_ids(self, first: int, count: int) -> Ids:
        table = self._reader.read_range(first, count, batch_size=count).to_table()
        ids: Ids = table["_rowid"].to_numpy().astype(np.int64, copy=False)
        return ids


def _reader(file: Location, columns: list[str] | None) -> LanceFileReader:
    return LanceFileReader(file.uri, storage_options=dict(file.options) or None, columns=columns)

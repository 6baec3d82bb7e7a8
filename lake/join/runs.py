"""Rows in the order of their partitions: the segments of an IVF_FLAT index, or files that a job has sorted."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from numpy.typing import NDArray

from lake.errors import CorruptTable
from lake.index.kmeans import unit
from lake.nearest.kernel import Floats, Ids
from lake.storage import Files, Location

_LENGTHS = b"lake:lengths"
_GROUP_BYTES = 16 << 20  # of which up to three are held at a time, two of them with their bytes
_LENGTHS_FIELD = 3  # of Lance's protobuf message IVF
_MORE = 0x80


@dataclass(frozen=True)
class Run:
    """One file of rows in the order of their partitions.

    Parameters
    ----------
    file : Location
    column : str
        The vectors; beside them stands ``_rowid``.
    live : str or None
        A file in the job's folder with the sorted ids of the rows that count; all do if ``None``.
    """

    file: Location
    column: str
    live: str | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of neighbouring partitions, or of a piece of one.

    Parameters
    ----------
    homes : int64, shape (n,)
        The partition of each row, ascending.
    ids : int64, shape (n,)
    vectors : float32, shape (n, d)
    """

    homes: NDArray[np.int64]
    ids: Ids
    vectors: Floats

    def partitions(self) -> Iterator[tuple[int, slice]]:
        """Yield each partition that has rows here, and where they are."""
        starts = np.flatnonzero(np.diff(self.homes, prepend=-1))
        ends = pairwise([*starts.tolist(), len(self.homes)])
        for partition, (start, end) in zip(self.homes[starts].tolist(), ends, strict=True):
            yield partition, slice(start, end)


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
    encoded = base64.b64encode(lengths.astype("<i8").tobytes())
    schema = batch.schema.with_metadata({_LENGTHS: encoded})
    with LanceFileWriter(file.uri, schema, storage_options=dict(file.options) or None) as writer:
        writer.write_batch(batch.cast(schema))


def partitions_of(file: Location) -> int:
    """Count the partitions of a run."""
    return len(_lengths(_reader(file, None), file.uri))


class Partitions:
    """Reads partitions out of runs, a group of neighbours at a time and one group ahead.

    Parameters
    ----------
    runs : sequence of Run
    folder : Location
        The job's, where it is noted which rows are live.
    normalise : bool
        Give vectors the length one.
    """

    def __init__(self, runs: Sequence[Run], folder: Location, *, normalise: bool) -> None:
        self._runs = runs
        self._normalise = normalise
        self._readers = [_reader(run.file, ["_rowid", run.column]) for run in runs]
        self.lengths = np.stack(
            [_lengths(reader, run.file.uri) for run, reader in zip(runs, self._readers, strict=True)]
        )
        self._starts = np.cumsum(self.lengths, axis=1) - self.lengths
        self._live = [None if run.live is None else load(folder, run.live) for run in runs]
        kind = self._readers[0].metadata().schema.field(runs[0].column).type
        self._dimension = int(kind.list_size)
        self._most_rows = max(1, _GROUP_BYTES // (4 * self._dimension))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each partition, before any is left out."""
        held: NDArray[np.int64] = self.lengths.sum(axis=0)
        return held

    def read(self, wanted: NDArray[np.int64]) -> Iterator[Group]:
        """Yield the rows of partitions, given in ascending order; a large partition comes in pieces."""
        with ThreadPoolExecutor(1) as ahead:
            following: Future[Group] | None = None
            for group in self._groups(wanted):
                loading, following = following, ahead.submit(self._load, *group)
                if loading is not None:
                    yield loading.result()
            if following is not None:
                yield following.result()

    def _groups(self, wanted: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """Group neighbours, which one read of each run gets; yield ``(partitions, piece, pieces)``."""
        rows, start, held = self.rows, 0, 0
        for at, partition in enumerate(wanted):
            apart = at > start and (partition != wanted[at - 1] + 1 or held + rows[partition] > self._most_rows)
            if apart:
                yield from self._cut(wanted[start:at], held)
                start, held = at, 0
            held += int(rows[partition])
        if len(wanted):
            yield from self._cut(wanted[start:], held)

    def _cut(self, group: NDArray[np.int64], rows: int) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        pieces = -(-rows // self._most_rows) if len(group) == 1 else 1
        yield from ((group, piece, pieces) for piece in range(max(1, pieces)))

    def _load(self, group: NDArray[np.int64], piece: int, pieces: int) -> Group:
        parts = [self._part(run, group, piece, pieces) for run in range(len(self._runs))]
        if len(parts) == 1:
            return parts[0]
        homes = np.concatenate([part.homes for part in parts])
        order = np.argsort(homes, kind="stable")
        places = np.argsort(order)
        vectors, start = np.empty((len(order), self._dimension), np.float32), 0
        for part in parts:  # each row is copied once
            vectors[places[start : start + len(part.ids)]] = part.vectors
            start += len(part.ids)
        return Group(homes[order], np.concatenate([part.ids for part in parts])[order], vectors)

    def _part(self, run: int, group: NDArray[np.int64], piece: int, pieces: int) -> Group:
        """Read the rows of a group out of one run."""
        lengths = self.lengths[run, group]
        first, last = (int(lengths.sum()) * edge // pieces for edge in (piece, piece + 1))
        homes = np.repeat(group, lengths)[first:last]
        if not len(homes):
            return Group(homes, np.empty(0, np.int64), np.empty((0, self._dimension), np.float32))
        start = int(self._starts[run, group[0]]) + first
        table = self._readers[run].read_range(start, len(homes), batch_size=len(homes)).to_table()
        ids: Ids = table["_rowid"].to_numpy().astype(np.int64, copy=False)
        held = table[self._runs[run].column].combine_chunks()
        vectors: Floats = held.flatten().to_numpy().astype(np.float32, copy=False).reshape(len(homes), -1)
        if self._normalise:
            vectors = unit(vectors)
        if (live := self._live[run]) is not None and not (kept := among(live, ids)).all():
            homes, ids, vectors = homes[kept], ids[kept], vectors[kept]
        return Group(homes, ids, vectors)


def _reader(file: Location, columns: list[str] | None) -> LanceFileReader:
    return LanceFileReader(file.uri, storage_options=dict(file.options) or None, columns=columns)


def among(known: Ids, ids: Ids) -> NDArray[np.bool_]:
    """Tell which ids are among sorted ones."""
    if not len(known):
        return np.zeros(len(ids), np.bool_)
    if known[-1] - known[0] == len(known) - 1:  # none is missing, as in a table from which no row was deleted
        within: NDArray[np.bool_] = (ids >= known[0]) & (ids <= known[-1])
        return within
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == ids
    return found


def _lengths(reader: LanceFileReader, uri: str) -> NDArray[np.int64]:
    """Read the number of rows of each partition out of a run's own metadata, or out of Lance's of a segment."""
    described = reader.metadata()
    metadata = described.schema.metadata or {}
    if _LENGTHS in metadata:
        lengths = np.frombuffer(base64.b64decode(metadata[_LENGTHS]), "<i8").astype(np.int64)
    else:
        lengths = _packed(bytes(reader.read_global_buffer(int(metadata[b"lance:ivf"]))))
    if lengths.sum() != described.num_rows:
        raise CorruptTable(f"{uri}: the partitions have {lengths.sum()} rows, the file {described.num_rows}")
    return lengths


def _packed(message: bytes) -> NDArray[np.int64]:
    """Decode the packed field of lengths of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        size, at = _varint(message, at)  # every field before the lengths has its size
        if tag >> 3 == _LENGTHS_FIELD:
            end, values = at + size, []
            while at < end:
                value, at = _varint(message, at)
                values.append(value)
            return np.array(values, np.int64)
        at += size
    return np.empty(0, np.int64)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return value, at
        shift += 7

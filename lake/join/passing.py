"""What tasks leave for those of the next stage: Lance files in the job's folder, each attempt's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from numpy.typing import NDArray

from lake.storage import Location

_ROWS = 4096  # that are written or read at a time
_READERS = 8


@dataclass(frozen=True)
class Slice:
    """Some rows of a file that a task has left.

    Parameters
    ----------
    block : int
        Of the left side, whose rows they are.
    file : str
        In the job's folder.
    first, count : int
    """

    block: int
    file: str
    first: int
    count: int


def leave(folder: Location, kind: str, key: str, batches: Iterable[pa.RecordBatch]) -> str:
    """Write a file for the tasks of the next stage; return its name."""
    name = f"{kind}/{key}-{uuid.uuid4().hex}.lance"
    file = folder.join(name)
    with LanceFileWriter(file.uri, storage_options=dict(file.options) or None) as writer:
        for batch in batches:
            for first in range(0, max(1, batch.num_rows), _ROWS):  # of small pieces fewer bytes are copied
                writer.write_batch(batch.slice(first, _ROWS))
    return name


def fetch(folder: Location, slices: Sequence[Slice]) -> Iterator[pa.RecordBatch]:
    """Read what tasks have left."""

    def begin(some: Slice) -> LanceFileReader:
        file = folder.join(some.file)
        return LanceFileReader(file.uri, storage_options=dict(file.options) or None)

    with ThreadPoolExecutor(_READERS) as ahead:  # a store takes its time for each file
        for some, reader in zip(slices, ahead.map(begin, slices), strict=True):
            yield from reader.read_range(some.first, some.count, batch_size=_ROWS).to_batches()


def lists(matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    """Turn the rows of a matrix into lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def matrix(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    """Turn lists back into a matrix."""
    held = batch[name]
    found: NDArray[Any] = held.flatten().to_numpy().reshape(len(held), held.type.list_size)
    return found

"""How many rows each partition of a run has: out of the run's own metadata, or out of Lance's of a segment."""

from __future__ import annotations

import base64
from typing import Final

import numpy as np
from lance.file import LanceFileMetadata, LanceFileReader
from numpy.typing import NDArray

from lake.errors import CorruptTable
from lake.storage import Location

_LENGTHS: Final = b"lake:lengths"
_LENGTHS_FIELD: Final = 3  # of Lance's protobuf message IVF
_MORE: Final = 0x80


def metadata_of(lengths: NDArray[np.int64]) -> dict[bytes, bytes]:
    """Return what a run's own metadata say."""
    return {_LENGTHS: base64.b64encode(lengths.astype("<i8").tobytes())}


def lengths_of(reader: LanceFileReader, described: LanceFileMetadata, file: Location) -> NDArray[np.int64]:
    """Read the number of rows of each partition.

    Raises
    ------
    CorruptTable
        The file has another number of rows than its partitions.
    """
    metadata = described.schema.metadata or {}
    if _LENGTHS in metadata:
        lengths = np.frombuffer(base64.b64decode(metadata[_LENGTHS]), "<i8").astype(np.int64)
    else:
        lengths = _packed(bytes(reader.read_global_buffer(int(metadata[b"lance:ivf"]))))
    if lengths.sum() != described.num_rows:
        raise CorruptTable(f"{file.uri}: the partitions have {lengths.sum()} rows, the file {described.num_rows}")
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

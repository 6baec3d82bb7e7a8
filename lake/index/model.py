"""The model that all segments of a vector index share: centroids, codebook, rotation."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader
from numpy.typing import NDArray

from lake.index.segments import segment_folder
from lake.storage import Files, Location
from lake.table.snapshot import Snapshot


@dataclass(frozen=True)
class Model:
    """What training made.

    Parameters
    ----------
    centroids : shape (partitions, d)
        In the element type of the column.
    codebook : shape (2 ** num_bits, d), optional
        The product quantizer's, as Lance lays it out.
    rotation : str, optional
        The RaBitQ model, JSON of Lance's.
    """

    centroids: NDArray[Any]
    codebook: NDArray[Any] | None = None
    rotation: str | None = None

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self.centroids)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `create_index_uncommitted` that pass the model on."""
        given: dict[str, Any] = {"num_partitions": self.partitions, "ivf_centroids": _fixed(self.centroids)}
        if self.codebook is not None:
            given["pq_codebook"] = _fixed(self.codebook)
        if self.rotation is not None:
            given["rabitq_model"] = self.rotation
        return given

    def to_bytes(self) -> bytes:
        """Encode the model as an ``.npz`` file."""
        parts: dict[str, NDArray[Any]] = {"centroids": self.centroids}
        if self.codebook is not None:
            parts["codebook"] = self.codebook
        if self.rotation is not None:
            parts["rotation"] = np.frombuffer(self.rotation.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **parts)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Model:
        """Decode what `to_bytes` made."""
        with np.load(io.BytesIO(data)) as parts:
            rotation = parts["rotation"].tobytes().decode() if "rotation" in parts else None
            return cls(parts["centroids"], parts.get("codebook"), rotation)


@dataclass(frozen=True)
class ModelFile:
    """Where a job keeps a model.

    Parameters
    ----------
    folder : Location
        The job's folder.
    name : str
        The file's name in it.
    """

    folder: Location
    name: str

    def read(self) -> Model:
        """Load the model."""
        return Model.from_bytes(Files(self.folder).read(self.name))

    def write(self, model: Model) -> None:
        """Save the model."""
        Files(self.folder).write(self.name, model.to_bytes())


def read_model(snapshot: Snapshot, name: str) -> Model:
    """Read the model back out of a built index, so that new segments share it weeks later.

    All segments of an index have the same model, so its first is read.
    """
    dataset = snapshot.dataset
    centroids = matrix_of(dataset.get_ivf_model(name).centroids)
    described = next(d for d in dataset.describe_indices() if d.name == name)
    segment = described.segments[0]
    storage = LanceFileReader(
        f"{segment_folder(snapshot, segment.uuid, segment.base_id).uri}/auxiliary.idx",
        storage_options=dict(snapshot.location.options) or None,
    )
    compression = (described.details or {}).get("compression", {}).get("type")
    if compression not in {"pq", "rq"}:
        return Model(centroids)
    stored = json.loads(json.loads(storage.metadata().schema.metadata[b"storage_metadata"])[0])
    if compression == "rq":
        # How a segment lays out its codes is no part of the model.
        return Model(centroids, rotation=json.dumps(stored | {"packed": False}))
    shape = 2 ** stored["nbits"], stored["dimension"]
    # A protobuf tensor: type, shape, then the elements, which are the rest of the message.
    tensor = bytes(storage.read_global_buffer(stored["codebook_position"]))
    size = shape[0] * shape[1] * centroids.dtype.itemsize
    return Model(centroids, np.frombuffer(tensor[-size:], centroids.dtype).reshape(shape))


def matrix_of(vectors: pa.FixedSizeListArray) -> NDArray[Any]:
    """Turn a fixed-size list array without nulls into a matrix of the same element type."""
    found: NDArray[Any] = vectors.flatten().to_numpy(zero_copy_only=False)
    return found.reshape(len(vectors), -1)


def _fixed(values: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])

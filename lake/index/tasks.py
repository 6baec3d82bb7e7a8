"""The tasks of an index build: prepare a model, build a segment."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from lance.dataset import Index
from lance.indices import IndexConfig

from lake.index.kmeans import Floats, nearest
from lake.index.model import ModelFile, read_model
from lake.index.segments import segment_folder
from lake.index.spec import IndexSpec
from lake.index.train import train
from lake.index.vectors import matrix
from lake.run.threads import Hands
from lake.storage import Files
from lake.table.snapshot import Snapshot

_BATCH_ROWS = 4096
_TEXT_MEMORY_MIB = 1024


@dataclass(frozen=True)
class PrepareModel:
    """Train a vector index's model, or read it out of the segments that are there, into the job's folder.

    Parameters
    ----------
    snapshot : Snapshot
    spec : IndexSpec
        Definite.
    file : ModelFile
        Where the model goes.
    reuse : bool
        Whether the index has segments whose model the new ones are to share.
    """

    snapshot: Snapshot
    spec: IndexSpec
    file: ModelFile
    reuse: bool

    @property
    def key(self) -> str:
        """One for each index."""
        return f"{self.spec.name} {self.spec.fingerprint} {self.snapshot.version}"

    def run(self) -> int:
        """Return the number of partitions."""
        model = read_model(self.snapshot, self.spec.name) if self.reuse else train(self.snapshot.dataset, self.spec)
        self.file.write(model)
        return model.partitions


@dataclass(frozen=True)
class BuildSegment:
    """Build one segment over some fragments.

    Lance gives each segment a fresh id, so an attempt that died leaves a folder that nothing names and that
    expiry removes; only the receipt counts.

    Parameters
    ----------
    snapshot : Snapshot
    spec : IndexSpec
        Definite.
    fragments : tuple of int
    rows : int
        Live rows of the fragments.
    model : ModelFile or None
        Of vector indexes.
    """

    snapshot: Snapshot
    spec: IndexSpec
    fragments: tuple[int, ...]
    rows: int
    model: ModelFile | None = None

    @property
    def key(self) -> str:
        """Deterministic in the version, the index and the fragments."""
        covered = hashlib.sha256(",".join(map(str, self.fragments)).encode()).hexdigest()[:16]
        return f"{self.spec.name} {self.spec.fingerprint} {self.snapshot.version} {covered}"

    def run(self) -> Index:
        """Return Lance's description of the segment."""
        if self.spec.traits.vector:
            return self._build_vector()
        if self.spec.kind == "INVERTED":
            return self._build_text()
        return self._create(_scalar(self.spec))

    def _create(self, kind: str | IndexConfig, **arguments: Any) -> Index:
        return self.snapshot.dataset.create_index_uncommitted(
            self.spec.column,
            kind,
            name=self.spec.name,
            replace=True,
            fragment_ids=list(self.fragments),
            **arguments,
        )

    def _build_vector(self) -> Index:
        assert self.model is not None  # noqa: S101  the plan gave one
        model = self.model.read()
        arguments = model.arguments() | _vector(self.spec) | {"metric": self.spec.metric}
        assignable = model.partitions > 1 and self.spec.metric != "hamming" and not self._many
        if not assignable:
            return self._create(self.spec.kind, **arguments)
        with tempfile.TemporaryDirectory(prefix="lake-index-") as folder:
            path = f"{folder}/partitions.lance"
            if self._write_partitions(model.centroids.astype(np.float32, copy=False), path):
                arguments["precomputed_partition_dataset"] = path
            return self._create(self.spec.kind, **arguments)

    @property
    def _many(self) -> bool:
        return bool(pt.is_list(self.snapshot.dataset.schema.field(self.spec.column).type))

    def _write_partitions(self, centroids: Floats, path: str) -> int:
        """Assign rows to partitions, several times as fast as Lance's own way.

        Rows that the file does not name stay out of the index: those without a vector. Return the others'
        number.
        """
        dataset, column = self.snapshot.dataset, self.spec.column
        rows, partitions = [], []
        batches = dataset.scanner(
            columns=[column],
            with_row_id=True,
            batch_size=_BATCH_ROWS,
            fragments=[dataset.get_fragment(fragment) for fragment in self.fragments],
        ).to_batches()
        with Hands() as hands:
            for batch in batches:
                vectors, positions = matrix(batch.column(column), self.spec.metric)
                rows.append(batch.column("_rowid").to_numpy()[positions])
                partitions.append(nearest(vectors, centroids, hands).astype(np.uint32))
        table = pa.table(
            {
                "row_id": pa.array(np.concatenate([np.empty(0, np.uint64), *rows])),
                "partition": pa.array(np.concatenate([np.empty(0, np.uint32), *partitions])),
            }
        )
        # Lance wants one fragment of one file.
        lance.write_dataset(table, path, max_rows_per_file=1 << 40, max_bytes_per_file=1 << 50)
        return int(table.num_rows)

    def _build_text(self) -> Index:
        staged = self._create("INVERTED", memory_limit=_TEXT_MEMORY_MIB, **self.spec.params)
        # Lance leaves a text segment in parts that no search can read until it is "merged", even with itself.
        finished = self.snapshot.dataset.merge_existing_index_segments([staged])
        parts = Files(segment_folder(self.snapshot, staged.uuid))
        for file in staged.files or []:
            parts.delete(file.path)
        return finished


def _vector(spec: IndexSpec) -> dict[str, Any]:
    """Translate the parameters of a vector index that the model does not carry."""
    names = {"sub_vectors": "num_sub_vectors"}
    return {names.get(name, name): value for name, value in spec.params.items() if name != "partitions"}


def _scalar(spec: IndexSpec) -> str | IndexConfig:
    return IndexConfig(spec.kind.lower(), dict(spec.params)) if spec.params else spec.kind

"""Rows of the right side that do not lie in the order of partitions, brought into it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.index.kmeans import nearest
from lake.join.runs import load, write_run
from lake.join.side import Side, Span
from lake.join.vectors import vectors
from lake.nearest.kernel import Floats, Ids
from lake.run.threads import Hands
from lake.storage import Location


@dataclass(frozen=True)
class Centroids:
    """Where a job keeps the centroids of its partitions, and how many they are."""

    folder: Location
    name: str
    count: int

    def read(self) -> Floats:
        """Load them: float32, shape (partitions, d)."""
        return load(self.folder, self.name)


@dataclass(frozen=True)
class SortRows:
    """Bring some rows of the right side into the order of their partitions.

    Parameters
    ----------
    side : Side
    spans : tuple of Span
        So many rows as fit into memory.
    metric : str
    centroids : Centroids
    number : int
        Of the task.
    """

    side: Side
    spans: tuple[Span, ...]
    metric: str
    centroids: Centroids
    number: int

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it sorts."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> str:
        """Return the name of the file, each attempt's own."""
        centroids = self.centroids.read()

        def assign(read: tuple[pa.RecordBatch, Floats, Ids]) -> tuple[Ids, Floats, NDArray[np.int32]]:
            rows, some, at = read
            return rows.column("_rowid").to_numpy()[at].astype(np.int64), some, nearest(some, centroids)

        with Hands() as hands:
            parts = list(
                hands.map(assign, (one for span in self.spans for one in vectors(self.side, span, self.metric)))
            )
            assigned = np.concatenate([np.empty(0, np.int32), *(homes for _, _, homes in parts)])
            order = np.argsort(assigned, kind="stable")
            places = np.argsort(order)
            ids, moved = np.empty(len(order), np.int64), np.empty((len(order), self.side.dimension), np.float32)

            def put(part: tuple[Ids, Floats, Ids]) -> None:
                some_ids, some, there = part
                ids[there], moved[there] = some_ids, some

            ends = np.cumsum([len(some_ids) for some_ids, _, _ in parts])
            shares = np.split(places, ends[:-1])
            list(hands.map(put, ((*part[:2], there) for part, there in zip(parts, shares, strict=True))))
        name = f"runs/{self.key}-{uuid.uuid4().hex}.lance"
        write_run(self.centroids.folder.join(name), ids, moved, np.bincount(assigned, minlength=len(centroids)))
        return name

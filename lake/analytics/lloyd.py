"""One round of k-means as tasks: each assigns the rows of a block, and sums them up by cluster."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lake.analytics.centers import Centers, Totals
from lake.analytics.stages import Ids, batch_rows, load, save
from lake.index.kmeans import Floats
from lake.join.side import Side, Span
from lake.join.vectors import vectors
from lake.storage import Location


@dataclass(frozen=True)
class Assigned:
    """The receipt of a block.

    Parameters
    ----------
    name : str
        Of its files, each attempt's own.
    rows : int
        Rows that have a vector.
    changed : int
        Those that were in another cluster before.
    """

    name: str
    rows: int
    changed: int

    @property
    def totals(self) -> str:
        """The file of the sums."""
        return f"{self.name}-totals.npz"

    @property
    def labels(self) -> str:
        """The file of the rows' ids and clusters."""
        return f"{self.name}-labels.npz"


@dataclass(frozen=True)
class AssignBlock:
    """Assign the rows of a block.

    Parameters
    ----------
    side : Side
    spans : tuple of Span
    number : int
        Of the block.
    metric : str
    folder : Location
        The job's.
    centers : str
        The file of the centroids.
    before : str or None
        The file of the labels of the round before.
    """

    side: Side
    spans: tuple[Span, ...]
    number: int
    metric: str
    folder: Location
    centers: str
    before: str | None

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it looks at."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> Assigned:
        """Read, assign, sum up."""
        centers = Centers.read(self.folder, self.centers, self.metric)
        totals = Totals.none(centers)
        ids, labels = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for some, points in read(self.side, self.spans, self.metric):
            found = centers.assign(points)
            totals.add(points, found, centers)
            ids.append(some)
            labels.append(found)
        every = np.concatenate(labels)
        changed = len(every)
        if self.before is not None:
            changed = int((load(self.folder, self.before)["labels"] != every).sum())
        done = Assigned(f"rounds/{self.key}-{uuid.uuid4().hex}", len(every), changed)
        save(self.folder, done.totals, **vars(totals))
        save(self.folder, done.labels, ids=np.concatenate(ids), labels=every)
        return done


def read(side: Side, spans: tuple[Span, ...], metric: str) -> Iterator[tuple[Ids, Floats]]:
    """Yield row ids and vectors of the rows that have one."""
    for span in spans:
        for rows, points, at in vectors(side, span, metric, batch_rows=batch_rows(side.dimension)):
            yield rows.column("_rowid").to_numpy()[at].astype(np.int64), points

"""Which clusters grew and which shrank: rows counted by centroids that both sides share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lake.analytics.centers import Centers
from lake.analytics.lloyd import read
from lake.analytics.stages import Ids
from lake.index.kmeans import Floats
from lake.join.side import ROW_ID, Side, Span, take
from lake.storage import Location

_Z95 = 1.959964
_NAMED_BY = 3


@dataclass(frozen=True)
class Growth:
    """A cluster of both sides.

    Parameters
    ----------
    name : str
        What its rows have in common, or the rows nearest its centroid.
    before, after : int
        Rows.
    share_before, share_after : float
        Of all rows of the side that have a vector.
    low, high : float
        95% interval of the change of the share.
    p : float
        How likely chance alone makes such a difference in one cluster or more: corrected for their number.
    changed : str
        ``"grew"``, ``"shrank"``, or empty.
    """

    name: str
    before: int
    after: int
    share_before: float
    share_after: float
    low: float
    high: float
    p: float
    changed: str


@dataclass(frozen=True)
class CountBlock:
    """Count the rows of a block by their nearest centroid.

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
    """

    side: Side
    spans: tuple[Span, ...]
    number: int
    metric: str
    folder: Location
    centers: str

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    @property
    def rows(self) -> int:
        """How many it looks at."""
        return sum(held for _, _, held in self.spans)

    def run(self) -> tuple[int, ...]:
        """Read, assign, count."""
        centers = Centers.read(self.folder, self.centers, self.metric)
        counts = np.zeros(len(centers.centroids), np.int64)
        for _, points in read(self.side, self.spans, self.metric):
            counts += np.bincount(centers.assign(points), minlength=len(counts))
        return tuple(map(int, counts))


def growths(before: Ids, after: Ids, names: Sequence[str], alpha: float) -> list[Growth]:
    """Compare the shares of each cluster by a z test of two proportions; those that changed most come first."""
    n, m = int(before.sum()), int(after.sum())
    found = []
    for b, a, name in zip(map(int, before), map(int, after), names, strict=True):
        share, now, both = b / n, a / m, (b + a) / (n + m)
        error = math.sqrt(both * (1 - both) * (1 / n + 1 / m))
        z = (now - share) / error if error else 0.0
        p = min(1.0, math.erfc(abs(z) / math.sqrt(2)) * len(names))
        width = _Z95 * math.sqrt(share * (1 - share) / n + now * (1 - now) / m)
        changed = "" if p >= alpha else "grew" if now > share else "shrank"
        found.append(Growth(name, b, a, share, now, now - share - width, now - share + width, p, changed))
    return sorted(found, key=lambda growth: (growth.p, -abs(growth.share_after - growth.share_before)))


@dataclass(frozen=True)
class Sample:
    """Some rows of a side.

    Parameters
    ----------
    side : Side
    points : float32, shape (n, d)
    ids : int64, shape (n,)
        Row ids.
    """

    side: Side
    points: Floats = field(hash=False)
    ids: Ids = field(hash=False)


def names(samples: Sequence[Sample], centers: Centers, label: str | None) -> list[str]:
    """Name each cluster by its rows: their commonest label, or the keys of those nearest the centroid."""
    of = [centers.assign(sample.points) for sample in samples]
    found = []
    for cluster, centroid in enumerate(centers.centroids):
        said: list[tuple[float, str]] = []
        for sample, labels in zip(samples, of, strict=True):
            said += _said(sample, np.flatnonzero(labels == cluster), centroid, label)
        found.append(_name(said, label) or f"cluster {cluster}")
    return found


def _said(sample: Sample, rows: Ids, centroid: Floats, label: str | None) -> list[tuple[float, str]]:
    """Read what names rows of a cluster, each with how far it is from the centroid."""
    apart = ((sample.points[rows] - centroid) ** 2).sum(axis=1)
    if label is None:
        nearest = np.argsort(apart, kind="stable")[:_NAMED_BY]
        rows, apart = rows[nearest], apart[nearest]
    columns = [label] if label is not None else [name for name in sample.side.key if name != ROW_ID]
    if not len(rows) or not columns:
        return [(float(d), f"row {i}") for d, i in zip(apart, sample.ids[rows], strict=True)]
    table = take(sample.side.snapshot.dataset, sample.ids[rows], columns)
    values = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return [(float(d), " ".join(map(str, value))) for d, value in zip(apart, values, strict=True)]


def _name(said: list[tuple[float, str]], label: str | None) -> str:
    if label is None or not said:
        return ", ".join(dict.fromkeys(text for _, text in sorted(said)[:_NAMED_BY]))
    text, count = Counter(text for _, text in said).most_common(1)[0]
    return f"{text} ({count / len(said):.0%})"

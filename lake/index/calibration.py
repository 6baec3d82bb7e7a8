"""Calibrations: how recall depends on nprobe, as it was measured, kept in the manifest of the table.

One is of the index that was built: of its partitions, codes and metric. Rows that come later are put into the same
partitions, so it stays; after a new training it says nothing any more, and is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import lance
import numpy as np

from lake.errors import Conflict, CorruptTable, NotFound, NotSupported
from lake.index.segments import built_indexes
from lake.index.spec import CALIBRATION, VERSION, configure
from lake.table.commit import commit, latest_verb
from lake.table.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.text import Text

_CACHED = 64
_VERB = "calibrate"


@dataclass(frozen=True)
class Point:
    """The recall of one number of probes.

    Parameters
    ----------
    nprobe : int
        Partitions that are read, of each segment.
    recall : float
        Share of the true k nearest that were found, mean over the sample.
    low, high : float
        Its 95% confidence interval.
    """

    nprobe: int
    recall: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.recall:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Calibration:
    """How the recall of a built index depends on nprobe.

    Parameters
    ----------
    index, kind, metric : str
    k : int
        Recall is of the k nearest.
    sample : int
        Rows of the table that were the queries, each left out of its own neighbours. Queries of another kind than
        the rows (a sentence against documents, say) may be served less well.
    refine : int
        As the searches had it.
    version, rows, indexed : int
        Where it was measured: the version, its rows, and those that the index covered; the others are scanned.
    partitions : int
        Of each segment.
    model : str
        Tells the index that was built from others.
    points : tuple of Point
        By nprobe: 1, 2, 4 … until recall no longer grew.
    """

    index: str
    kind: str
    metric: str
    k: int
    sample: int
    refine: int
    version: int
    rows: int
    indexed: int
    partitions: int
    model: str
    points: tuple[Point, ...]

    def reach(self, recall: float) -> Point | None:
        """Find the fewest probes that reached a recall."""
        return next((point for point in self.points if point.recall >= recall), None)

    @property
    def best(self) -> Point:
        """The highest recall that was measured."""
        return max(self.points, key=lambda point: point.recall)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        refined = f", refine {self.refine}" if self.refine else ""
        measured = f"measured with {self.sample} of {self.rows:,} rows as queries at version {self.version}"
        scanned = f"; {self.rows - self.indexed:,} rows were scanned" if self.rows > self.indexed else ""
        what = f"{self.index} ({self.kind} {self.metric}{refined}): recall of the {self.k} nearest"
        points = (f"  nprobe {point.nprobe:>6,}  {point}" for point in self.points)
        return "\n".join([f"{what}, {measured}{scanned}", *points])

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(str(self))


def record(snapshot: Snapshot, found: Calibration) -> Calibration:
    """Keep a calibration in the newest version, unless the same was measured at an earlier one; return what is kept.

    Raises
    ------
    Conflict
        The index was dropped or trained anew meanwhile.
    """
    location, branch = snapshot.location, snapshot.branch
    kept = found

    def operation(head: lance.LanceDataset) -> lance.LanceOperation.UpdateConfig | None:
        newest = Snapshot.of(head, location, branch)
        if model_of(newest, found.index) != found.model:
            raise Conflict(
                f"index {found.index!r} was dropped or built anew while it was measured; calibrate again",
                ours=_VERB,
                theirs=latest_verb(location, branch),
            )
        nonlocal kept
        there = _decode(found.index, head.config())
        if there is not None and replace(there, version=found.version) == found:
            kept = there
            return None
        kept = found
        return configure({CALIBRATION + found.index: json.dumps({"v": VERSION, **found.to_dict()}, sort_keys=True)})

    commit(location, branch, operation, verb=_VERB)
    return kept


@functools.lru_cache(maxsize=_CACHED)
def calibration(snapshot: Snapshot, index: str) -> Calibration:
    """Read the calibration of a built index.

    Raises
    ------
    NotFound
        There is none, or it is of an index that was built before.
    """
    found = _decode(index, snapshot.dataset.config())
    if found is None:
        raise NotFound(
            f"recall=: version {snapshot.version} has no calibration of index {index!r}; call "
            f"table.calibrate({index!r}), or give nprobe="
        )
    if found.model != model_of(snapshot, index):
        raise NotFound(
            f"recall=: index {index!r} was trained anew since it was calibrated at version {found.version}; call "
            f"table.calibrate({index!r}) again, or give nprobe="
        )
    return found


@functools.lru_cache(maxsize=_CACHED)
def model_of(snapshot: Snapshot, index: str) -> str | None:
    """Return what tells a built vector index from others: equal while its rows go into the same partitions and codes.

    ``None`` if there is no index of the name.
    """
    built = built_indexes(snapshot.dataset).get(index)
    if built is None or built.metric is None:
        return None
    settings = [built.field_ids, built.kind, built.details.get("compression"), built.details.get("hnsw"), built.metric]
    centroids = snapshot.dataset.get_ivf_model(index).centroids
    held = np.ascontiguousarray(centroids.flatten().to_numpy(zero_copy_only=False))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + held.tobytes()).hexdigest()[:16]


def _decode(index: str, config: Mapping[str, str]) -> Calibration | None:
    text = config.get(CALIBRATION + index)
    if text is None:
        return None
    try:
        data = json.loads(text)
        if (version := int(data.pop("v"))) > VERSION:
            raise NotSupported(f"index {index!r} was calibrated by a newer lake (format {version}); upgrade semlake")
        return Calibration(**data | {"points": tuple(Point(**point) for point in data["points"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptTable(f"the calibration of index {index!r} in the manifest cannot be read: {error!r}") from error

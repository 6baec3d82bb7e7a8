"""Recall as a parameter: how many partitions it takes, as the index was calibrated."""

from __future__ import annotations

from dataclasses import dataclass

from lake.errors import InvalidInput
from lake.index import Calibration, calibration
from lake.search.facts import Facts, Index
from lake.search.query import Query
from lake.table.snapshot import Snapshot


@dataclass(frozen=True)
class Probes:
    """What a recall takes.

    Parameters
    ----------
    nprobe, refine : int
    recall : float
        What to expect.
    note : str
        Where that comes from.
    """

    nprobe: int
    refine: int
    recall: float
    note: str


def probes(snapshot: Snapshot, known: Facts, index: Index, query: Query, share: int) -> Probes:
    """Choose the fewest probes that reached the recall of a query.

    Where whole vectors are kept, all partitions reach what the curve does not: they are every indexed row.

    Parameters
    ----------
    share : int
        Partitions of a segment.

    Raises
    ------
    NotFound
        The index is not calibrated, or was trained anew since.
    InvalidInput
        Not even all partitions reached the recall.
    """
    target = query.recall
    assert target is not None  # noqa: S101  # the caller looked
    found = calibration(snapshot, index.name)
    point = found.reach(target)
    if point is not None:
        return Probes(point.nprobe, found.refine, point.recall, _note(found, f"recall {point}", known, query))
    if index.kind == "IVF_FLAT":
        return Probes(share, found.refine, 1.0, _note(found, "recall 1.0: every partition is read", known, query))
    raise InvalidInput(
        f"recall={target}: {index.name} is {index.kind}, which is approximate even where all partitions are read, and "
        f"reached {found.best} with refine {found.refine}; ask for less, "
        f"calibrate({index.name!r}, refine={max(1, 4 * found.refine)}), or give recall=1.0, which compares every row"
    )


def _note(found: Calibration, what: str, known: Facts, query: Query) -> str:
    parts = [
        f"{what} is expected of the best {found.k}",
        f"as measured with {found.sample} of {found.rows:,} rows as queries at version {found.version}",
    ]
    if query.where is not None:
        parts.append("without a filter")
    if known.rows != found.rows:
        parts.append(f"of {known.rows:,} rows now")
    if query.k is not None and query.k + query.offset > found.k:
        parts.append(f"calibrate(k={query.k + query.offset}) would tell of more")
    return ", ".join(parts)

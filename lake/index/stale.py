"""Segments that hold rows which are gone, and that Lance does not mask.

Lance leaves deleted rows out of an index's answer by the deletion files of the fragments that it covers. When
a compaction has rewritten those fragments the deletion files are gone, and with stable row ids the index still
holds the deleted rows: Lance 14 counts them among the best k and drops them afterwards, so that a search
returns too few rows, or others than the nearest (lance-format/lance#8348). Under a filter that reads the rows
it does not: then only rows that live and pass are counted. A filter that a scalar index answers is not enough,
since that index may hold the same rows.

So where a segment may hold such rows, searches get a condition that all live rows pass and that no index
answers, some 20 ms for a million rows; and the next build makes the segment anew.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from lake.errors import NotFound
from lake.table.snapshot import Snapshot

LIVE = "_rowid IS NOT NULL"
_CACHED = 256


@functools.lru_cache(maxsize=_CACHED)
def holds_removed_rows(snapshot: Snapshot, fragments: frozenset[int], version: int) -> bool:
    """Tell whether a segment may hold rows that are gone and that Lance does not leave out by itself.

    Parameters
    ----------
    snapshot : Snapshot
        Where the segment is searched.
    fragments : frozenset of int
        What the segment covers.
    version : int
        The version that the segment was built from.
    """
    now = _fragments(snapshot)
    if any(now.get(f) for f in fragments):
        return False  # one deletion file is enough for Lance to mask by all live rows
    if not fragments & now.keys() or not snapshot.dataset.has_stable_row_ids:
        return False
    try:
        before = _at(snapshot, version)
        if fragments <= _fragments(before).keys():
            return False  # never rewritten
        then = _row_ids(before)
    except NotFound:
        return True  # expired: nobody knows
    return not bool(np.isin(then, _row_ids(snapshot), assume_unique=True).all())


def _at(snapshot: Snapshot, version: int) -> Snapshot:
    """Go back to a version; one from before a branch began lies where it began."""
    branch = snapshot.branch
    while branch is not None:
        begun = snapshot.dataset.branches.list()[branch]
        if version > begun["parent_version"]:
            break
        branch = begun["parent_branch"]
    return Snapshot(snapshot.location, version, branch)


def _fragments(snapshot: Snapshot) -> dict[int, int]:
    """Count deleted rows by fragment."""
    return {f.fragment_id: f.metadata.num_deletions for f in snapshot.dataset.get_fragments()}


def _row_ids(snapshot: Snapshot) -> npt.NDArray[np.uint64]:
    table = snapshot.dataset.scanner(columns=[], with_row_id=True).to_table()
    ids: npt.NDArray[np.uint64] = table["_rowid"].to_numpy()
    return ids

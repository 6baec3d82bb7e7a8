"""Where the partitions of the right side come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lake.index.segments import BuiltIndex, built_indexes, segment_folder
from lake.index.vectors import estimate
from lake.join.clusters import Clusters, find_clusters
from lake.join.runs import partitions_of
from lake.join.side import Side
from lake.storage import Location

_FEW = 512  # fewer rows than this cost less than finding out how many partitions they need
_FLAT = "IVF_FLAT"
_HELD_BYTES = 64 << 20  # by each task
# Of the rows visited for a recall of 0.95, measured on text embeddings: 5.7% of 512 partitions, 1.3% of 4,096.
_VISITED: float = 5.4
_FALLOFF: float = -0.73


@dataclass(frozen=True)
class Source:
    """Where the partitions of the right side come from.

    Parameters
    ----------
    how : {"all", "index", "clusters", "sort"}
        Every row meets every row; the segments of a built index, or fragments in the order of their clusters, and the
        rows that these do not cover are sorted; all rows are sorted by the job.
    partitions : int
    index : BuiltIndex or None
        Whose segments, or at least centroids, are used.
    clusters : Clusters or None
        The fragments.
    loose : mapping of int to int
        Rows to be sorted, by fragment.
    why : str
        For people.
    """

    how: str
    partitions: int = 0
    index: BuiltIndex | None = None
    clusters: Clusters | None = field(default=None, hash=False)
    loose: Mapping[int, int] = field(default_factory=dict, hash=False)
    why: str = ""


def choose(
    left_rows: int, right: Side, right_rows: Mapping[int, int], metric: str, recall: float | None, *, given: int | None
) -> Source:
    """Choose where the partitions of the right side come from.

    Parameters
    ----------
    recall : float or None
        1 asks for the exact join.
    given : int or None
        The number of probes, if the caller gave one.
    """
    rows = sum(right_rows.values())
    if recall == 1:
        return Source("all", why="recall=1.0: every row meets every row")
    if not rows or not left_rows:
        return Source("all", why="one side has no rows")
    indexes = [
        i for i in built_indexes(right.snapshot.dataset).values() if i.column == right.column and i.metric == metric
    ]
    # To estimate takes as long as to read many an index's centroids; an index whose rows are gone is merely read.
    if not indexes and not estimate(right.snapshot.dataset, right.column):
        return Source("all", why="one side has no vectors")
    if given is None and (left_rows <= _FEW or rows <= _FEW):
        return Source("all", why="so few rows that partitions would not pay")
    found = _indexed(right, right_rows, indexes)
    if found is None:
        why = f"no index of {right.column!r} under {metric}: the rows are sorted"
        found = Source("sort", best_partitions(left_rows, rows), loose=right_rows, why=why)
    # To look for clusters takes a scan of their column.
    in_order = 2 * sum(found.loose.values()) < rows
    return found if in_order else _clustered(left_rows, right, right_rows, found) or found


def _indexed(right: Side, rows: Mapping[int, int], indexes: Sequence[BuiltIndex]) -> Source | None:
    """Take an index that holds the vectors, or at least the centroids of one that does not."""
    for index in indexes:
        if index.kind == _FLAT and _of_one_model(right, index):
            loose = uncovered(index, rows)
            why = f"index {index.name} holds the vectors in the order of its partitions"
            if loose:
                why += f"; {sum(loose.values()):,} rows that it does not cover are sorted"
            return Source("index", _partitions(right, index), index, loose=loose, why=why)
    for index in indexes:
        why = f"index {index.name} ({index.kind}) holds no vectors: its centroids are used, the rows are sorted"
        return Source("sort", _partitions(right, index), index, loose=rows, why=why)
    return None


def _clustered(left_rows: int, right: Side, right_rows: Mapping[int, int], other: Source) -> Source | None:
    """Take a clustered table as it lies, if that is less to compare than to sort what is not in order otherwise."""
    clusters = find_clusters(right)
    if clusters is None or clusters.held_bytes > _HELD_BYTES:
        return None
    rows, partitions = sum(right_rows.values()), len(clusters.labels)
    loose = {fragment: held for fragment, held in right_rows.items() if fragment not in clusters.fragments}
    if 2 * (rows - sum(loose.values())) < clusters.rows:  # few pass the filter, and all would be read
        return None
    training = _training(other.partitions) if other.index is None else 0
    others = comparisons(left_rows, sum(other.loose.values()), rows, other.partitions) + training
    if comparisons(left_rows, sum(loose.values()), rows, partitions, clusters.even) > others:
        return None
    why = f"the rows lie in the order of {clusters.column!r}"
    if loose:
        why += f"; {sum(loose.values()):,} that do not are sorted"
    return Source("clusters", partitions, clusters=clusters, loose=loose, why=why)


def _partitions(right: Side, index: BuiltIndex) -> int:
    return len(right.snapshot.dataset.get_ivf_model(index.name).centroids)


def uncovered(index: BuiltIndex, rows: Mapping[int, int]) -> dict[int, int]:
    """Find the fragments that no segment of an index covers."""
    covered = {fragment for segment in index.segments for fragment in segment.fragments}
    return {fragment: held for fragment, held in rows.items() if fragment not in covered}


def _of_one_model(right: Side, index: BuiltIndex) -> bool:
    """Tell whether all segments have as many partitions: others than the lake may train each segment by itself."""
    files = [segment_file(right, segment.id) for segment in index.segments]
    return len({partitions_of(file) for file in files}) == 1


def segment_file(right: Side, uuid: str) -> Location:
    """Find the file of a segment that holds row ids and vectors."""
    described = right.snapshot.dataset.describe_indices()
    base = next((s.base_id for d in described for s in d.segments if str(s.uuid) == uuid), None)
    return segment_folder(right.snapshot, uuid, base).join("auxiliary.idx")


def best_partitions(left: int, right: int) -> int:
    """Choose how many partitions cost least, if all rows of the right side are to be sorted."""
    counts = [1 << power for power in range(4, 17) if 1 << power <= max(16, right / 64)]
    return min(counts, key=lambda count: comparisons(left, right, right, count) + _training(count))


def _training(partitions: int) -> float:
    """Count what is compared to find so many centroids: four rounds of 64 points for each."""
    return 64.0 * 4 * partitions * partitions


def comparisons(left: int, loose: int, right: int, partitions: int, even: float | None = None) -> float:
    """Count what is compared: rows of both sides that look for their partition with all centroids, and pairs.

    Parameters
    ----------
    even : float, optional
        As so many partitions of one size, if they are not of one.
    """
    return (left + loose) * partitions + left * right * visited(even or partitions)


def visited(partitions: float) -> float:
    """Tell the share of the right side that a row is expected to meet."""
    return min(1.0, _VISITED * float(partitions**_FALLOFF))

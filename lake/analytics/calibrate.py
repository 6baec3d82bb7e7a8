"""`calibrate`: how the recall of searches through an index depends on nprobe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.errors import InvalidInput, NotFound
from lake.index import Calibration, Point, calibration, model_of, record
from lake.index.vectors import estimate
from lake.join import knn_join
from lake.join.plan import MOST_NEIGHBOURS
from lake.join.recall import Curve
from lake.nearest.kernel import METRICS
from lake.run import Callback, Executor
from lake.schema.arrow import vector_layout
from lake.search import Query, search
from lake.search.facts import Index, facts, partitions
from lake.search.plan import REFINE
from lake.table.snapshot import Snapshot

_LEAST = 20  # queries: fewer prove nothing
_SAME = 1e-5  # what rounding may do to a distance

Distances = NDArray[np.float32]


def calibrate(
    snapshot: Snapshot,
    index: str | None = None,
    *,
    k: int = 10,
    sample: int = 256,
    refine: int | None = None,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    on_event: Callback | None = None,
) -> Calibration:
    """Measure recall at 1, 2, 4 … probes, and keep it in the table; see `lake.Table.calibrate`."""
    built = _index(snapshot, index)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < _LEAST:
        raise InvalidInput(f"sample={sample!r}: give a whole number of {_LEAST} or more; fewer rows prove nothing")
    if refine is None:
        refine = 0 if built.flat else REFINE
    vectors, rows = _sample(snapshot, built.column, sample)
    most = max(partitions(snapshot, built.name))
    asked: dict[str, Any] = {"vector": vectors, "vector_column": built.column, "metric": built.metric}
    asked |= {"columns": ["_rowid"], "refine": refine}
    k = Query(**asked, k=k).k or 0
    if not k < MOST_NEIGHBOURS:
        raise InvalidInput(f"k={k}: give 1 to {MOST_NEIGHBOURS - 1:,}")
    truth = _truth(snapshot, built, vectors, k, executor=executor, memory=memory, on_event=on_event)
    points: list[Point] = []
    for nprobe in [*(2**i for i in range((most - 1).bit_length())), most]:
        # The row itself is among its own nearest: one more is asked for, and it is left out.
        found = search(snapshot, Query(**asked, k=k + 1, nprobe=nprobe)).to_arrow()
        points.append(_point(nprobe, most, truth, _others(found, rows, k)))
        if points[-1].recall == 1 or (len(points) > 2 and points[-1].recall <= points[-3].recall):  # noqa: PLR2004
            break
    known = facts(snapshot)
    measured = Calibration(
        index=built.name,
        kind=built.kind,
        metric=str(built.metric),
        k=k,
        sample=len(rows),
        refine=refine,
        version=snapshot.version,
        rows=known.rows,
        indexed=known.rows_in(built.fragments),
        partitions=most,
        model=str(model_of(snapshot, built.name)),
        points=tuple(points),
    )
    return record(snapshot, measured)


def calibrate_new(snapshot: Snapshot, changed: Collection[str], **options: Any) -> tuple[Calibration, ...]:
    """Calibrate those vector indexes that a build has changed, or whose calibration is lacking or of another model."""
    return tuple(
        calibrate(snapshot, index.name, **options)
        for index in facts(snapshot).indexes
        if index.metric in METRICS and _plain(snapshot, index) and (index.name in changed or _lacks(snapshot, index))
    )


def _lacks(snapshot: Snapshot, index: Index) -> bool:
    try:
        calibration(snapshot, index.name)
    except NotFound:
        return True
    return False


def _plain(snapshot: Snapshot, index: Index) -> bool:
    """Whether it is of float vectors, one a row."""
    kind = snapshot.schema.column(index.column).type
    layout = vector_layout(kind)
    return layout is not None and not pa.types.is_list(kind) and pa.types.is_floating(layout[0])


def _index(snapshot: Snapshot, name: str | None) -> Index:
    there = {index.name: index for index in facts(snapshot).indexes if index.metric}
    if name is None and len(there) == 1:
        [name] = there
    if name is None and there:
        raise InvalidInput(f"several vector indexes are built: {', '.join(there)}; say which to calibrate")
    if name not in there:
        what = "vector index" if name is None else f"vector index {name!r}"
        raise NotFound(f"no {what} is built; there are {', '.join(there) or 'none'}: create_index() and build()")
    index = there[name]
    if index.metric not in METRICS or not _plain(snapshot, index):
        raise InvalidInput(
            f"{name} is of {snapshot.schema.column(index.column).type} under {index.metric}; recall is measured for "
            f"float vectors, one a row, under {', '.join(METRICS)}: search it with nprobe="
        )
    return index


def _sample(snapshot: Snapshot, column: str, count: int) -> tuple[Distances, NDArray[np.int64]]:
    """Draw rows that have a vector, the same each time; return the vectors and the row ids."""
    dataset, rng = snapshot.dataset, np.random.default_rng(0)
    rows, there = dataset.count_rows(), estimate(dataset, column)
    drawn = min(rows, count + count * rows // max(1, there))  # some rows may have none
    table = dataset.take(np.sort(rng.choice(rows, drawn, replace=False)), columns=["_rowid", column])
    table = table.filter(table[column].is_valid()).combine_chunks()
    if not table.num_rows:
        raise InvalidInput(f"column {column!r} holds no vector: there is nothing to measure")
    table = table.take(np.sort(rng.permutation(table.num_rows)[:count]))
    held = table[column].combine_chunks()
    vectors = held.flatten().to_numpy(zero_copy_only=False).reshape(len(held), -1).astype(np.float32)
    return vectors, table["_rowid"].to_numpy().astype(np.int64)


def _truth(snapshot: Snapshot, index: Index, vectors: Distances, k: int, **options: Any) -> Distances:
    """Return the distances of each query's k nearest other rows; infinite where there are fewer."""
    found = np.full((len(vectors), k + 1), np.inf, np.float32)
    asked = {"right_column": index.column, "metric": index.metric, "recall": 1.0, **options}
    with knn_join(vectors, snapshot, k + 1, **asked) as joined:
        near = joined.to_arrow()
    found[near["left_row"].to_numpy(), near["rank"].to_numpy()] = near["distance"].to_numpy()
    # The row itself is where its own distance is; under dot it may be beyond the last, which is then the closest.
    own = np.zeros(len(vectors))
    if index.metric == "dot":
        own = 1 - np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    itself = np.abs(found - own[:, None]).argmin(axis=1)
    keep = np.ones(found.shape, bool)
    keep[np.arange(len(found)), itself] = False
    return found[keep].reshape(len(found), k)


def _others(found: pa.Table, rows: NDArray[np.int64], k: int) -> Distances:
    """Return the distances of the k best of each query but for the row itself."""
    query, ids = found["_query"].to_numpy(), found["_rowid"].to_numpy().astype(np.int64)
    others = ids != rows[query]
    query, distances = query[others], found["_distance"].to_numpy()[others]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    best = np.full((len(rows), k), np.inf, np.float32)
    best[query[rank < k], rank[rank < k]] = distances[rank < k]
    return best


def _point(nprobe: int, most: int, truth: Distances, found: Distances) -> Point:
    """Count how many of the nearest were found; of rows that are as far as the last, any will do."""
    there = np.isfinite(truth)
    last = np.where(there, truth, -np.inf).max(axis=1, keepdims=True)
    hits = (found <= last + _SAME * np.maximum(1, np.abs(last))) & np.isfinite(found)
    hits = np.sort(hits, axis=1)[:, ::-1]  # which of them does not matter
    told = Curve(np.where(there, np.where(hits, 1, 2), 0).astype(np.int32), most).at(1)
    return Point(nprobe, told.measured, told.low, told.high)

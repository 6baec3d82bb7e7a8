"""The partitions of the right side: centroids, and rows in their order, as they lie or sorted by the job."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lake.index.model import read_model
from lake.index.spec import IndexSpec
from lake.index.train import train
from lake.join.arranged import Arranged, SumPoints, centroids_of
from lake.join.clusters import Clusters
from lake.join.living import ranges_of
from lake.join.plan import TRAINING_FLOP
from lake.join.runs import Ordered, Run, load, save
from lake.join.side import spans
from lake.join.sort import Centroids, SortRows
from lake.join.source import segment_file
from lake.join.work import Work
from lake.run import Executor
from lake.storage import Files


def find_centroids(work: Work, workers: Executor) -> Centroids:
    """Take those of the index or of the clusters, or train some; a job that goes on keeps those that it has."""
    name = "centroids.npy"
    if Files(work.folder).exists(name):
        return Centroids(work.folder, name, len(load(work.folder, name)))
    plan, index = work.plan, work.plan.source.index
    if index is not None:
        found = read_model(plan.right.snapshot, index.name).centroids
    elif plan.source.clusters is not None:
        tasks = [SumPoints(rows) for rows in _arranged(work, plan.source.clusters, None, 0)]
        sums = [load(work.folder, done.value) for done in work.stage(workers, "centroids", tasks, work.ledger())]
        found = centroids_of(sums, plan.source.partitions, plan.metric)
    else:
        spec = IndexSpec(
            "join", plan.right.column, "IVF_FLAT", plan.metric, {"partitions": plan.source.partitions}, "", 0
        )
        found = train(plan.right.snapshot.dataset, spec, flop=TRAINING_FLOP).centroids
    save(work.folder, name, found.astype(np.float32))
    return Centroids(work.folder, name, len(found))


def find_runs(work: Work, centroids: Centroids, workers: Executor) -> tuple[Ordered, ...]:
    """Find the segments of the index, or the fragments in order, and sort what these do not cover."""
    plan, right, clusters = work.plan, work.plan.right, work.plan.source.clusters
    runs: list[Ordered] = []
    if plan.source.how == "index" and plan.source.index is not None:
        # Whatever became of its rows since: what is alive where it indexed them, and passes the filter.
        runs += [
            Run(segment_file(right, segment.id), "flat", *_live(work, segment.fragments, segment.id))
            for segment in plan.source.index.segments
        ]
    if clusters is not None:
        live = _live(work, frozenset(clusters.fragments), "clusters") if right.where else (None, 0)
        runs += _arranged(work, clusters, *live)
    blocks = []
    if plan.source.loose:
        blocks = spans(dict(plan.source.loose), work.keep("sorted.json", rows=plan.sort_rows)["rows"])
    tasks = [SortRows(right, block, plan.metric, centroids, at) for at, block in enumerate(blocks)]
    found = work.stage(workers, "sort", tasks, work.ledger())
    return (*runs, *(Run(work.folder.join(r.value), "vector") for r in found))


def _arranged(work: Work, clusters: Clusters, live: str | None, ranges: int) -> list[Arranged]:
    """Note how many rows of each partition lie in each fragment."""
    found, side = [], replace(work.plan.right, where=None)
    for fragment in sorted(clusters.fragments.keys() & work.plan.right_rows.keys()):
        name = f"lengths-{fragment}.npy"
        save(work.folder, name, clusters.lengths(fragment))
        found.append(Arranged(side, fragment, work.plan.metric, work.folder, name, live, ranges))
    return found


def _live(work: Work, fragments: frozenset[int], of: str) -> tuple[str, int]:
    """Note which rows of some fragments are to be found: alive, and passing the filter.

    Returns
    -------
    (str, int)
        The name of the file, and how many ranges of ids it has.
    """
    right = work.plan.right
    batches = (
        batch.column("_rowid").to_numpy().astype(np.int64)
        for fragment, rows in work.plan.right_rows.items()
        if fragment in fragments
        for batch in right.read((fragment, 0, rows), [], 1 << 16)
    )
    name = f"live-{of}.npy"
    ranges = ranges_of(batches)
    save(work.folder, name, ranges)
    return name, len(ranges)

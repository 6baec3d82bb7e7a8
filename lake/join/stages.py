"""The stages that compare: by blocks of the left side, or by regions of partitions."""

from __future__ import annotations

import numpy as np

from lake.join.comparison import Comparison, Done, decode, encode
from lake.join.passing import Slice
from lake.join.plan import Cut
from lake.join.regions import group, lists_of, pieces
from lake.join.route import route
from lake.join.runs import save
from lake.join.sampling import sample, sampled
from lake.join.shuffle import JoinPiece, MergeBlock, SendBlock
from lake.join.side import spans
from lake.join.tasks import JoinBlock
from lake.join.work import Work
from lake.run import Executor, TaskResult
from lake.storage import Files

_ROUTED = 2048  # rows of the left side by which regions get about as much to do

Results = list[TaskResult[Done]]


def by_blocks(work: Work, what: Comparison, cut: Cut, workers: Executor) -> Results:
    """Let each task read what its block of the left side needs."""
    blocks = spans(dict(work.plan.left_rows), cut.block_rows)
    tasks = [JoinBlock(what, block, at) for at, block in enumerate(blocks)]
    return work.stage(workers, "join", tasks, work.ledger(encode, decode))


def by_regions(work: Work, what: Comparison, cut: Cut, workers: Executor) -> tuple[Results, Results]:
    """Send rows to regions, join there, merge.

    Returns
    -------
    (list of TaskResult, list of TaskResult)
        Of the tasks that compared, and of the others.
    """
    plan, ledger = work.plan, work.ledger(encode, decode)
    regions = _grouped(work, what, cut.regions)
    blocks = spans(dict(plan.left_rows), cut.block_rows)
    sends = [SendBlock(what, block, at, regions, cut.regions) for at, block in enumerate(blocks)]
    sent = work.stage(workers, "send", sends, ledger)
    counts = np.array([result.value.counts for result in sent], np.int64)
    made = [
        piece
        for piece in pieces([result.value.file for result in sent], counts, cut.most_rows)
        if piece.slices or (what.sample and not piece.number)
    ]
    joined = work.stage(workers, "join", [JoinPiece(what, piece, regions) for piece in made], ledger)
    lists = lists_of(len(blocks), made, [result.value.file for result in joined])
    # The lists of the sample stand behind the others.
    truths = tuple(Slice(-1, result.value.file, *result.value.counts) for result in joined if result.value.counts[1])
    merges = [MergeBlock(what, block, at, lists[at], truths) for at, block in enumerate(blocks)]
    return joined, [*sent, *work.stage(workers, "merge", merges, ledger)]


def _grouped(work: Work, what: Comparison, regions: int) -> str:
    """Group partitions into regions; a job that goes on keeps those that it has."""
    name, plan = "regions.npy", work.plan
    if what.centroids is not None and not Files(work.folder).exists(name):
        asked, _ = sampled(plan.left, sample(plan.left, plan.left_rows, _ROUTED), plan.metric)
        centroids = what.centroids.read()
        routes = route(asked, centroids, plan.metric, what.probes)
        save(work.folder, name, group(centroids, what.partitions().rows, routes, regions))
    return name

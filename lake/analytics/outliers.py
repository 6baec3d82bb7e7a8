"""`outliers`: the rows that lie farthest from their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.analytics.analyse import Tables, analyse
from lake.analytics.joined import Ids
from lake.analytics.neighbours import Analysis, How
from lake.analytics.reports import OutlierReport
from lake.analytics.results import columns_of, fraction, slices, values_of
from lake.analytics.scores import SCORES, scored, search_again
from lake.errors import InvalidInput
from lake.run import Callback, Executor
from lake.schema import Column


def outliers(
    table: Tables,
    *,
    into: str,
    k: int = 10,
    score: str = "kth",
    share: float = 0.01,
    refine: bool = True,
    column: str | None = None,
    where: str | None = None,
    metric: str | None = None,
    recall: float = 0.95,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> OutlierReport:
    """Score each row by its distance to its k nearest others, and flag those with the largest scores.

    Partitions serve rows the worse the farther out they lie: where neighbours are missed (`recall`), a score comes out
    too large. So rows that are to be flagged, and all that might be instead, are compared with every other row, and
    just those are flagged that an exact search would flag. A group of more than `k` copies lies near itself, however
    far from all else: `lake.dedup` first.

    Parameters
    ----------
    table : Table or Snapshot
    into : str
        The table of results, which is made: the key (or ``row_id``), score, rank (from 0, the most outlying first;
        ties go by row id), and whether the row is flagged. Rows without a vector are not in it.
    k : int
    score : {"kth", "mean"}
        The distance to the k-th nearest, as is usual, or the mean of all k.
    share : float
        Of the rows that have a vector: so many are flagged.
    refine : bool
        Whether to compare rows again as said; it takes twice `share` of what the exact join would, or more.
    column : str, optional
        The vectors, where a table has several.
    where : str, optional
        SQL: only rows that pass are looked at, and are neighbours.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default. Scores are in its distances: squared l2, 1 - cosine, 1 - dot.
    recall, executor, memory
        As `lake.knn_join` takes them. The driver holds about 50 bytes for each row.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        A parameter that makes no sense; NaN or infinity in a vector; a zero vector under cosine.
    AlreadyExists
        There is a table of the name `into`.
    """

    def find(work: Analysis) -> OutlierReport:
        if score not in SCORES:
            raise InvalidInput(f"score={score!r}: give {' or '.join(map(repr, SCORES))}")
        part = fraction("share", share)
        [snapshot] = work.tables
        side = work.side(snapshot, where)
        plan = work.plan(side, side)
        own = [Column("score", pa.float32()), Column("rank", pa.int64()), Column("flagged", pa.bool_())]
        key = columns_of(snapshot)
        target = work.target([*key, *own], len(key))
        with work.begun():
            told = work.join("near", plan, apart=True)
            found = scored(work, side, told, score)
            flagged = math.ceil(round(part * len(found.ids), 6))
            again = search_again(work, side, found, flagged if refine else 0) if plan.source.how != "all" else 0
            ids, scores = found.ids, found.scores
            order = np.lexsort((ids, -scores))
            ranks = np.empty(len(ids), np.int64)
            ranks[order] = np.arange(len(ids))
            work.write(target, _results(work, ids, scores, ranks, flagged))
        return OutlierReport(
            job=work.kept.job,
            table=snapshot.location.uri,
            version=snapshot.version,
            rows=told.rows,
            without_vector=told.without_vector,
            k=k,
            recall=told.recall,
            source=told.source,
            into=target.location.uri,
            scored=len(ids),
            flagged=flagged,
            threshold=float(scores[order[flagged - 1]]) if flagged else None,
            median=float(np.median(scores)) if len(ids) else None,
            largest=float(scores[order[0]]) if len(ids) else None,
            searched_again=again,
        )

    asked = {"where": where, "score": score, "share": share, "refine": refine}
    how = How(k, column, metric, recall, executor, memory, on_event)
    return analyse("outliers", [table], asked, OutlierReport, find, how=how, into=into, job_id=job_id)


def _results(
    work: Analysis, ids: Ids, scores: NDArray[np.float32], ranks: Ids, flagged: int
) -> Iterator[dict[str, Any]]:
    for some in slices(len(ids)):
        own = {
            "score": pa.array(scores[some]),
            "rank": pa.array(ranks[some]),
            "flagged": pa.array(ranks[some] < flagged),
        }
        yield values_of(work.tables[0], ids[some]) | own

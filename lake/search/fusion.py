"""Hybrid search: two rankings of one snapshot, under one filter, joined into one.

Each ranking gives its best `candidates` rows. The fused score is ``_relevance_score``, larger is better:

- ``"rrf"``, reciprocal rank fusion: the sum of ``1 / (60 + rank)`` over the rankings that hold the row,
  ranks counted from 1 (Cormack, Clarke and Büttcher, SIGIR 2009);
- weights ``(v, t)``: ``v * (d_max - d) / (d_max - d_min) + t * s / s_max``, with the smallest and largest
  distance ``d`` and the largest BM25 score ``s`` among the candidates. A row that only one of the rankings
  holds gets nothing from the other; if all distances are equal, each counts in full.

``_distance`` and ``_score`` are kept; null where a ranking does not hold the row. Equal scores are in the
order of row ids.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lake.search.plan import Plan
from lake.search.rank import Ranking
from lake.search.scan import take

RRF_CONSTANT = 60
Floats = npt.NDArray[np.float64]


def fused(plan: Plan, near: Ranking, text: Ranking) -> pa.Table:
    """Search both ways and join: the plan's columns, then those of the search."""
    found = [ranking.top(plan.candidates, ["_rowid"], plan.where) for ranking in (near, text)]
    joined = join(found[0], found[1], plan.query.fusion)
    best = joined.slice(plan.query.offset, plan.query.k)
    rows = take(plan.snapshot.dataset, best["_rowid"], plan.columns, blobs=plan.blobs)
    for name in ("_distance", "_score", "_relevance_score"):
        rows = rows.append_column(name, best[name])
    return rows


def join(near: pa.Table, text: pa.Table, fusion: Literal["rrf"] | tuple[float, float]) -> pa.Table:
    """Join two rankings.

    Parameters
    ----------
    near : pa.Table
        ``_rowid``, ``_distance``; best first.
    text : pa.Table
        ``_rowid``, ``_score``; best first.

    Returns
    -------
    pa.Table
        ``_rowid``, ``_distance``, ``_score``, ``_relevance_score``; best first.
    """
    distances, scores = near["_distance"].to_numpy(), text["_score"].to_numpy()
    parts = (_reciprocal(len(distances)), _reciprocal(len(scores)))
    if fusion != "rrf":
        parts = (fusion[0] * _closeness(distances), fusion[1] * _share(scores))
    ids = np.union1d(near["_rowid"].to_numpy(), text["_rowid"].to_numpy())
    total = np.zeros(len(ids))
    kept: dict[str, Floats] = {}
    for table, name, part in ((near, "_distance", parts[0]), (text, "_score", parts[1])):
        at = np.searchsorted(ids, table["_rowid"].to_numpy())
        total[at] += part
        kept[name] = np.full(len(ids), np.nan)
        kept[name][at] = table[name].to_numpy()
    order = np.argsort(-total, kind="stable")
    columns = {name: pa.array(v[order], pa.float32(), from_pandas=True) for name, v in kept.items()}
    return pa.table({"_rowid": ids[order], **columns, "_relevance_score": total[order]})


def _reciprocal(n: int) -> Floats:
    return 1.0 / (RRF_CONSTANT + np.arange(1, n + 1))


def _closeness(distances: npt.NDArray[np.float32]) -> Floats:
    values = distances.astype(np.float64)
    span = np.ptp(values) if len(values) else 0.0
    return (values.max() - values) / span if span else np.ones(len(values))


def _share(scores: npt.NDArray[np.float32]) -> Floats:
    values = scores.astype(np.float64)
    return values / values.max() if len(values) and values.max() > 0 else np.zeros(len(values))

"""The kernel of the join: matrix products, and the k nearest of each query kept in a heap while blocks pass.

A product gives approximate distances of a block of queries to a block of rows. Most are far worse than the k-th best
that a query has by then, so 64 are reduced to their best first, and looked at one by one only if it could matter.
The few that remain get their distance anew, from the vectors themselves: what comes out does not depend on how a
product was blocked, threaded or rounded, and ties go to the smaller row id. So every engine gives the same rows.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lake.join.topk import COSINE, DOT, L2, bar_of, keep, sort
from lake.run.threads import Hands

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

METRICS: Final = {"l2": L2, "cosine": COSINE, "dot": DOT}

QUERY_BLOCK: Final = 512
ROW_BLOCK: Final = 1024
_EPSILON: Final = np.float32(1.2e-7)


class Nearest:
    """The k nearest rows of each query so far.

    Parameters
    ----------
    queries : float32, shape (n, d)
        Of unit length under cosine.
    k : int
    metric : {"l2", "cosine", "dot"}
    within : float, optional
        Only distances below it count.
    exact : bool
        Compute the distances of those that are kept anew. Otherwise they are as the products round them.

    Attributes
    ----------
    distances : float32, shape (n, k)
        Squared l2, 1 - cosine or 1 - dot: smaller is nearer. Heaps, until `sort`.
    ids : int64, shape (n, k)
        The row ids; -1 where there is none.
    device : str
        Where products are computed.
    """

    device = "cpu"

    def __init__(
        self, queries: Floats, k: int, metric: str, within: float | None = None, *, exact: bool = True
    ) -> None:
        self.queries = queries
        self.metric = METRICS[metric]
        self._exact = exact
        self.distances = np.full((len(queries), k), np.inf if within is None else within, np.float32)
        self.ids = np.full((len(queries), k), -1, np.int64)
        self._norms = np.einsum("nd,nd->n", queries, queries)
        self._scratch = _Scratch(queries.shape[1])

    def meet(self, which: NDArray[np.int32], rows: Floats, ids: Ids, pairs: Pairs | None = None) -> None:
        """Let some queries meet some rows. Several threads may at a time, each with queries of its own.

        Parameters
        ----------
        which : int32, shape (m,)
            Positions of the queries.
        rows : float32, shape (r, d)
        ids : int64, shape (r,)
            Distinct within all rows that a query ever meets.
        pairs : Pairs, optional
            Which pairs may be.
        """
        chosen = pairs or ALL_PAIRS
        half, longest = self._halves(rows)
        for start in range(0, len(which), QUERY_BLOCK):
            block = which[start : start + QUERY_BLOCK]
            queries = np.take(self.queries, block, axis=0, out=self._scratch.queries[: len(block)], mode="clip")
            norms, slack = self._norms[block], self._slack(block, longest)
            for row in range(0, len(rows), ROW_BLOCK):
                part = slice(row, row + ROW_BLOCK)
                some = rows[part]
                scores = self._scratch.scores[: len(block) * len(some)].reshape(len(block), len(some))
                np.matmul(queries, some.T, out=scores)
                keep(
                    scores,
                    half[part],
                    slack,
                    norms,
                    queries,
                    some,
                    ids[part],
                    block,
                    self.distances,
                    self.ids,
                    self.metric,
                    self._exact,
                    chosen.own,
                    chosen.operators,
                    chosen.left,
                    chosen.right[part] if pairs else chosen.right,
                )

    def meet_all(self, rows: Floats, ids: Ids, pairs: Pairs | None = None, hands: Hands | None = None) -> None:
        """Let every query meet some rows; see `meet`."""
        shares = np.array_split(np.arange(len(self.queries), dtype=np.int32), hands.count if hands else 1)
        if hands is None:
            self.meet(shares[0], rows, ids, pairs)
        else:
            hands(lambda at: self.meet(shares[at], rows, ids, pairs))

    def _halves(self, rows: Floats) -> tuple[Floats, np.float32]:
        """Return what is taken from the products with each row, and the length of the longest."""
        bias = np.einsum("nd,nd->n", rows, rows)
        return bias / 2 if self.metric == L2 else np.zeros_like(bias), np.sqrt(bias.max(initial=0))

    def _slack(self, which: NDArray[np.int32], longest: np.float32) -> Floats:
        """Tell how far from the truth a distance may be that a product gives."""
        bound = _EPSILON * np.float32(2 * np.sqrt(self.queries.shape[1]) + 4)
        slack: Floats = bound * (np.sqrt(self._norms[which]) + longest) ** 2
        return slack

    def _bars(self, which: NDArray[np.int32], slack: Floats) -> Floats:
        bar: Floats = bar_of.py_func(self.distances[which, 0], self._norms[which], slack, self.metric)  # type: ignore[no-untyped-call]
        return bar

    def sort(self) -> None:
        """Put the nearest first."""
        sort(self.distances, self.ids)


class _Scratch(threading.local):
    """Each thread's room for a block: new pages for each product would cost more than what they hold."""

    def __init__(self, dimension: int) -> None:
        self.queries = np.empty((QUERY_BLOCK, dimension), np.float32)
        self.scores = np.empty(QUERY_BLOCK * ROW_BLOCK, np.float32)


class Pairs:
    """Which pairs of a query and a row may be.

    Parameters
    ----------
    own : int64, shape (n,)
        For each query, the row id that is the query itself; empty when the sides are different tables.
    operators : int64, shape (c,)
        Each a position in `OPERATORS`.
    left : int64, shape (n, c)
    right : int64, shape (r, c)
        Values to compare, in an order-preserving encoding.
    """

    def __init__(self, own: Ids, operators: Ids, left: Ids, right: Ids) -> None:
        self.own, self.operators, self.left, self.right = own, operators, left, right


OPERATORS: Final = ("==", "!=", "<", "<=", ">", ">=")
_NONE = np.empty(0, np.int64)
ALL_PAIRS: Final = Pairs(_NONE, _NONE, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))

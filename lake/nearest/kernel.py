"""The k nearest rows of each query: matrix products, and what is near kept in a heap while blocks of rows pass.

A product gives approximate distances of a block of queries to a block of rows. Most are far worse than the k-th best
that a query has by then, so 64 are reduced to their best first, and looked at one by one only if it could matter.
The few that remain get their distance anew, from the vectors themselves: what comes out does not depend on how a
product was blocked, threaded or rounded, and ties go to the smaller row id. So every engine gives the same rows.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lake.nearest.topk import COSINE, DOT, L2, bar_of, keep, sort
from lake.run.threads import Hands

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

Number = TypeVar("Number", np.float32, np.int64)

METRICS: Final = {"l2": L2, "cosine": COSINE, "dot": DOT}

QUERY_BLOCK: Final = 512
ROW_BLOCK: Final = 1024
_EPSILON: Final = np.float32(1.2e-7)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that queries meet, with what is computed of them once for all queries.

    Parameters
    ----------
    vectors : float32, shape (n, d)
    ids : int64, shape (n,)
        Distinct within all rows that a query ever meets.
    half : float32, shape (n,)
        What is taken from a product with each.
    longest : float32
        A length that none exceeds.
    """

    vectors: Floats
    ids: Ids
    half: Floats
    longest: np.float32

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Self:
        return replace(self, vectors=self.vectors[part], ids=self.ids[part], half=self.half[part])


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
    hands : Hands, optional
        Share the work of beginning.

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
        self,
        queries: Floats,
        k: int,
        metric: str,
        within: float | None = None,
        hands: Hands | None = None,  # noqa: ARG002  what is prepared may take long
    ) -> None:
        self.queries = read_only(queries)
        self.metric = METRICS[metric]
        self.distances = np.full((len(queries), k), np.inf if within is None else within, np.float32)
        self.ids = np.full((len(queries), k), -1, np.int64)
        self._norms = np.einsum("nd,nd->n", queries, queries)
        self._scratch = _Scratch(queries.shape[1])

    def prepare(
        self,
        vectors: Floats,
        ids: Ids,
        meetings: float,  # noqa: ARG002  what is worth preparing may depend on it
        hands: Hands | None = None,  # noqa: ARG002
    ) -> Rows:
        """Make rows for queries to meet.

        Parameters
        ----------
        vectors : float32, shape (n, d)
        ids : int64, shape (n,)
        meetings : float
            How many queries each will meet, about.
        hands : Hands, optional
            Share the work.
        """
        norms = np.einsum("nd,nd->n", vectors, vectors)
        half = norms / 2 if self.metric == L2 else np.zeros_like(norms)
        return Rows(read_only(vectors), read_only(ids), half, np.sqrt(norms.max(initial=0)))

    def meet(self, which: NDArray[np.int32], rows: Rows, pairs: Pairs | None = None) -> None:
        """Let some queries meet some rows. Several threads may at a time, each with queries of its own.

        Parameters
        ----------
        which : int32, shape (m,)
            Positions of the queries.
        rows : Rows
            From `prepare`, of this search or another one with this metric.
        pairs : Pairs, optional
            Which pairs may be.
        """
        chosen = pairs or ALL_PAIRS
        for start in range(0, len(which), QUERY_BLOCK):
            block = which[start : start + QUERY_BLOCK]
            queries = np.take(self.queries, block, axis=0, out=self._scratch.queries[: len(block)], mode="clip")
            norms, slack = self._norms[block], self._slack(block, rows.longest)
            for row in range(0, len(rows), ROW_BLOCK):
                part = slice(row, row + ROW_BLOCK)
                some = rows.vectors[part]
                scores = self._scratch.scores[: len(block) * len(some)].reshape(len(block), len(some))
                np.matmul(queries, some.T, out=scores)
                keep(
                    scores,
                    rows.half[part],
                    slack,
                    norms,
                    queries,
                    some,
                    rows.ids[part],
                    block,
                    self.distances,
                    self.ids,
                    self.metric,
                    chosen.own,
                    chosen.operators,
                    chosen.left,
                    chosen.right[part] if pairs else chosen.right,
                )

    def meet_shares(
        self, which: NDArray[np.int32], ends: Ids, rows: Rows, row_ends: Ids, pairs: Pairs | None = None
    ) -> None:
        """Let each share of some queries meet its share of some rows; see `meet`.

        Parameters
        ----------
        which : int32, shape (m,)
            Positions of the queries, share by share.
        ends, row_ends : int64, shape (shares + 1,)
            Where in `which`, and among the rows, each share begins and the next one does.
        rows : Rows
        pairs : Pairs, optional
            Of all rows.
        """
        for (first, last), (row, end) in zip(pairwise(ends.tolist()), pairwise(row_ends.tolist()), strict=True):
            part = slice(row, end)
            if first < last:
                self.meet(which[first:last], rows[part], pairs and pairs[part])

    def meet_all(self, rows: Rows, pairs: Pairs | None = None, hands: Hands | None = None) -> None:
        """Let every query meet some rows; see `meet`."""
        shares = np.array_split(np.arange(len(self.queries), dtype=np.int32), hands.count if hands else 1)
        if hands is None:
            self.meet(shares[0], rows, pairs)
        else:
            hands(lambda at: self.meet(shares[at], rows, pairs))

    def _slack(self, which: NDArray[np.int32], longest: np.float32) -> Floats:
        """Tell how far from the truth a distance may be that a product gives."""
        bound = _EPSILON * np.float32(2 * np.sqrt(self.queries.shape[1]) + 4)
        slack: Floats = bound * (np.sqrt(self._norms[which]) + longest) ** 2
        # 1 - dot is rounded as 1 is, however short the vectors are.
        return slack + _EPSILON if self.metric == DOT else slack

    def _bars(self, which: NDArray[np.int32], slack: Floats) -> Floats:
        bar: Floats = bar_of.py_func(self.distances[which, 0], self._norms[which], slack, self.metric)  # type: ignore[no-untyped-call]
        return bar

    def sort(self) -> None:
        """Put the nearest first."""
        sort(self.distances, self.ids)


def read_only(array: NDArray[Number]) -> NDArray[Number]:
    """Make a view that cannot be written: for numba that is another type, and each type is compiled for itself."""
    view = array.view()
    view.flags.writeable = False
    return view


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

    def __getitem__(self, part: slice) -> Pairs:
        return Pairs(self.own, self.operators, self.left, self.right[part])


OPERATORS: Final = ("==", "!=", "<", "<=", ">", ">=")
_NONE = np.empty(0, np.int64)
ALL_PAIRS: Final = Pairs(_NONE, _NONE, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))

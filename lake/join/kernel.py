"""The kernel of the join: matrix products, and the k nearest of each query kept in a heap while blocks pass.

A product gives approximate distances of a block of queries to a block of rows. Most are far worse than the k-th best
that a query has by then, so 64 are reduced to their best first, and looked at one by one only if it could matter.
The few that remain get their distance anew, from the vectors themselves: what comes out does not depend on how a
product was blocked, threaded or rounded, and ties go to the smaller row id. So every engine gives the same rows.
"""

from __future__ import annotations

import threading
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from lake.run.threads import Hands

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

L2: Final = 0
COSINE: Final = 1
DOT: Final = 2
METRICS: Final = {"l2": L2, "cosine": COSINE, "dot": DOT}

QUERY_BLOCK: Final = 512
ROW_BLOCK: Final = 1024
_CHUNK: Final = 64
_EPSILON: Final = np.float32(1.2e-7)
# Infinities are legal here; sums may be reordered.
_FAST: Final = {"nnan", "nsz", "arcp", "contract", "reassoc"}


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
                _keep(
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
        bar: Floats = _bar.py_func(self.distances[which, 0], self._norms[which], slack, self.metric)  # type: ignore[no-untyped-call]
        return bar

    def sort(self) -> None:
        """Put the nearest first."""
        _sort(self.distances, self.ids)


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
_EQUAL, _UNEQUAL, _LESS, _AT_MOST, _MORE = range(5)
_NONE = np.empty(0, np.int64)
ALL_PAIRS: Final = Pairs(_NONE, _NONE, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _keep(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    scores,
    half,
    slack,
    norms,
    queries,
    rows,
    ids,
    which,
    distances,
    found,
    metric,
    exact,
    own,
    operators,
    left,
    right,
):
    count = scores.shape[1]
    peaks = np.empty(_CHUNK, np.float32)
    for i in range(scores.shape[0]):
        at = which[i]
        line = scores[i]
        bar = _bar(distances[at, 0], norms[i], slack[i], metric)
        if found[at, 0] < 0 and not operators.shape[0]:
            # Whoever comes first would pass while fewer than k are known, each a distance computed for nothing.
            bar = max(bar, _kth(line, half, peaks, found.shape[1] + min(1, own.shape[0])) - 2 * slack[i])
        if not _reaches(line, half, bar):
            continue
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            if not _reaches(line[start:stop], half[start:stop], bar):
                continue
            for j in range(start, stop):
                value = line[j] - half[j]
                if value < bar or (own.shape[0] and own[at] == ids[j]):
                    continue
                if operators.shape[0] and not _allowed(operators, left[at], right[j]):
                    continue
                distance = _distance(queries[i], rows[j], metric) if exact else _rough(value, norms[i], metric)
                if _before(distance, ids[j], distances[at, 0], found[at, 0]):
                    _sink(distances[at], found[at], distance, ids[j], distances.shape[1])
                    bar = max(bar, _bar(distances[at, 0], norms[i], slack[i], metric))


@numba.njit(cache=True, nogil=True)
def keep_pairs(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    values, at, to, norms, queries, rows, ids, distances, found, metric, exact
):
    """Keep those that matter of some pairs, given what a product left of each, the query and the row."""
    for p in range(values.shape[0]):
        i, j = at[p], to[p]
        distance = _distance(queries[i], rows[j], metric) if exact else _rough(values[p], norms[i], metric)
        if _before(distance, ids[j], distances[i, 0], found[i, 0]):
            _sink(distances[i], found[i], distance, ids[j], distances.shape[1])


@numba.njit(cache=True, nogil=True)
def _reaches(line, half, bar):  # type: ignore[no-untyped-def]
    # A count that cannot end early becomes a few vector instructions; inlined, it does not.
    reached = np.int32(0)
    for j in range(line.shape[0]):
        reached |= np.int32(line[j] - half[j] >= bar)
    return reached != 0


@numba.njit(cache=True, nogil=True)
def _kth(line, half, peaks, k):  # type: ignore[no-untyped-def]
    """Return what at least k of a line reach: the k-th of the best of each 64th of it."""
    if k > peaks.shape[0]:
        return np.float32(-np.inf)
    peaks[:] = -np.inf
    for start in range(0, line.shape[0], peaks.shape[0]):
        stop = min(start + peaks.shape[0], line.shape[0])
        _lift(peaks[: stop - start], line[start:stop], half[start:stop])
    best = np.full(k, -np.inf, np.float32)  # the least first
    for peak in peaks:
        if peak > best[0]:
            at = 0
            while at + 1 < k and best[at + 1] < peak:
                best[at] = best[at + 1]
                at += 1
            best[at] = peak
    return best[0]


@numba.njit(cache=True, nogil=True)
def _lift(peaks, line, half):  # type: ignore[no-untyped-def]
    for j in range(line.shape[0]):
        peaks[j] = max(peaks[j], line[j] - half[j])


@numba.njit(cache=True, nogil=True, inline="always")
def _bar(worst, norm, slack, metric):  # type: ignore[no-untyped-def]
    """Return what a product, less half of the row's norm, must reach to be looked at."""
    if metric == L2:
        return (norm - worst - slack) / np.float32(2)
    return np.float32(1) - worst - slack


@numba.njit(cache=True, nogil=True, inline="always")
def _rough(value, norm, metric):  # type: ignore[no-untyped-def]
    if metric == L2:
        return norm - np.float32(2) * value
    return np.float32(1) - value


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _distance(query, row, metric):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    if metric == DOT:
        for d in range(query.shape[0]):
            total += query[d] * row[d]
        return np.float32(1) - total
    for d in range(query.shape[0]):
        gap = query[d] - row[d]
        total += gap * gap
    # Of unit vectors, 1 - cosine is half of the squared distance, and exact near 0.
    return total if metric == L2 else total / np.float32(2)


@numba.njit(cache=True, nogil=True)
def _allowed(operators, left, right):  # type: ignore[no-untyped-def]
    for c in range(operators.shape[0]):
        a, b, operator = left[c], right[c], operators[c]
        if operator == _EQUAL:
            holds = a == b
        elif operator == _UNEQUAL:
            holds = a != b
        elif operator == _LESS:
            holds = a < b
        elif operator == _AT_MOST:
            holds = a <= b
        elif operator == _MORE:
            holds = a > b
        else:
            holds = a >= b
        if not holds:
            return False
    return True


@numba.njit(cache=True, nogil=True, inline="always")
def _before(distance, row, other, other_row):  # type: ignore[no-untyped-def]
    return distance < other or (distance == other and row < other_row)


@numba.njit(cache=True, nogil=True)
def _sink(distances, found, distance, row, size):  # type: ignore[no-untyped-def]
    """Put a row in the place of the worst one, which a heap has on top."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(distances[child], found[child], distances[child + 1], found[child + 1]):
            child += 1
        if not _before(distance, row, distances[child], found[child]):
            break
        distances[at], found[at] = distances[child], found[child]
        at = child
    distances[at], found[at] = distance, row


@numba.njit(cache=True, nogil=True)
def _sort(distances, found):  # type: ignore[no-untyped-def]
    for i in range(distances.shape[0]):
        line, ids = distances[i], found[i]
        for end in range(line.shape[0] - 1, 0, -1):
            distance, row = line[end], ids[end]
            line[end], ids[end] = line[0], ids[0]
            _sink(line, ids, distance, row, end)

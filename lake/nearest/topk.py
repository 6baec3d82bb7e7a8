"""The k nearest in a heap: which pairs of a product are looked at, and what becomes of them. Compiled."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

L2: Final = 0
COSINE: Final = 1
DOT: Final = 2
_EQUAL, _UNEQUAL, _LESS, _AT_MOST, _MORE = range(5)
_CHUNK: Final = 64
# Parts of a compiled loop that count no references to the arrays they are given, though they are shared: threads would
# wait for each other at each call. They may not make arrays.
UNCOUNTED: Final[dict[str, Any]] = {"forceinline": True, "_nrt": False}
# Infinities are legal here; sums may be reordered.
_FAST: Final = {"nnan", "nsz", "arcp", "contract", "reassoc"}


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def keep(  # type: ignore[no-untyped-def]  # noqa: PLR0917
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
    own,
    operators,
    left,
    right,
):
    """Look through the products of a block, and keep in the heaps what is nearer than what they hold."""
    count = scores.shape[1]
    peaks = np.empty(_CHUNK, np.float32)
    for i in range(scores.shape[0]):
        at = which[i]
        line = scores[i]
        bar = bar_of(distances[at, 0], norms[i], slack[i], metric)
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
                if operators.shape[0] and not allowed(operators, left, at, right, j):
                    continue
                distance = distance_of(queries, i, rows, j, metric)
                if before(distance, ids[j], distances[at, 0], found[at, 0]):
                    sink(distances, found, at, distance, ids[j], distances.shape[1])
                    bar = max(bar, bar_of(distances[at, 0], norms[i], slack[i], metric))


@numba.njit(cache=True, nogil=True)
def keep_pairs(at, to, queries, rows, ids, distances, found, metric):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Keep those that matter of some pairs of a query and a row."""
    for p in range(at.shape[0]):
        i, j = at[p], to[p]
        distance = distance_of(queries, i, rows, j, metric)
        if before(distance, ids[j], distances[i, 0], found[i, 0]):
            sink(distances, found, i, distance, ids[j], distances.shape[1])


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
def bar_of(worst, norm, slack, metric):  # type: ignore[no-untyped-def]
    """Return what a product, less half of the row's norm, must reach to be looked at."""
    if metric == L2:
        return (norm - worst - slack) / np.float32(2)
    return np.float32(1) - worst - slack


@numba.njit(cache=True, nogil=True, fastmath=_FAST, **UNCOUNTED)
def distance_of(queries, i, rows, j, metric):  # type: ignore[no-untyped-def]
    """Compute the distance of a query and a row."""
    # Positions without a sign need no look at what a negative one means. A slice would count the references to its
    # array, which threads that share it wait for each other to do.
    i, j, total = np.uintp(i), np.uintp(j), np.float32(0)
    if metric == DOT:
        for d in range(np.uintp(queries.shape[1])):
            total += queries[i, d] * rows[j, d]
        return np.float32(1) - total
    for d in range(np.uintp(queries.shape[1])):
        gap = queries[i, d] - rows[j, d]
        total += gap * gap
    # Of unit vectors, 1 - cosine is half of the squared distance, and exact near 0.
    return total if metric == L2 else total / np.float32(2)


@numba.njit(cache=True, nogil=True, **UNCOUNTED)
def allowed(operators, left, i, right, j):  # type: ignore[no-untyped-def]
    """Tell whether a pair fulfils all conditions."""
    for c in range(operators.shape[0]):
        a, b, operator = left[i, c], right[j, c], operators[c]
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
def before(distance, row, other, other_row):  # type: ignore[no-untyped-def]
    """Tell whether a row ranks before another one: nearer, or as near and of the smaller id."""
    return distance < other or (distance == other and row < other_row)


@numba.njit(cache=True, nogil=True, **UNCOUNTED)
def sink(distances, found, i, distance, row, size):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Put a row in the place of the worst one, which heap `i` has on top."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and before(
            distances[i, child], found[i, child], distances[i, child + 1], found[i, child + 1]
        ):
            child += 1
        if not before(distance, row, distances[i, child], found[i, child]):
            break
        distances[i, at], found[i, at] = distances[i, child], found[i, child]
        at = child
    distances[i, at], found[i, at] = distance, row


@numba.njit(cache=True, nogil=True)
def sort(distances, found):  # type: ignore[no-untyped-def]
    """Turn heaps into lines, the nearest first."""
    for i in range(distances.shape[0]):
        for end in range(distances.shape[1] - 1, 0, -1):
            distance, row = distances[i, end], found[i, end]
            distances[i, end], found[i, end] = distances[i, 0], found[i, 0]
            sink(distances, found, i, distance, row, end)


@numba.njit(cache=True, nogil=True)
def merge(places, distances, found, into, into_found):  # type: ignore[no-untyped-def]
    """Put lines, the nearest first, into the heaps whose places are given."""
    for n in range(places.shape[0]):
        i = places[n]
        for r in range(found.shape[1]):
            if found[n, r] < 0 or not before(distances[n, r], found[n, r], into[i, 0], into_found[i, 0]):
                break  # what follows is no nearer
            sink(into, into_found, i, distances[n, r], found[n, r], into.shape[1])

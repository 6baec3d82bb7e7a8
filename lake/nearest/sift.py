"""Which pairs of queries and rows may matter, by their bytes, and what becomes of them. Compiled.

A pair whose bound does not reach what its query has found already is no neighbour. Few remain, and get their distance
from the vectors themselves: nothing is lost, and the rows are the same as without bytes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lake.nearest.tile import LANES, QUERIES, STRIP, STRIPS, fetch, lift, lowest, reach, tile
from lake.nearest.topk import UNCOUNTED, allowed, bar_of, before, distance_of, sink

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

_BOUNDS: Final = 1008  # tiles' width of them, of all queries at a time: they stay in the second cache
_MOST_TILES: Final = 32  # of rows at a time: the more, the fewer are looked at that others of them outdo
_FEW: Final = 100  # neighbours: to find out what more rows than these reach costs more than it saves
_FEWER_TILES: Final = 4
_AHEAD: Final = 3  # queries whose vectors are on their way while others are looked at
_PEAKS: Final = 3  # for each that is wanted, of which then few share one
_LINE: Final = 64  # bytes that come into a cache together
_inlined: Any = partial(numba.njit, cache=True, nogil=True, error_model="numpy", **UNCOUNTED)


class Asked(NamedTuple):
    """Queries, in bytes too, and what they have found: see `lake.nearest.codes` and `lake.nearest.kernel`."""

    vectors: Floats
    norms: Floats
    codes: NDArray[np.int8]
    about: Floats
    distances: Floats
    found: Ids
    metric: int


class Met(NamedTuple):
    """Rows, in bytes too, and where in their strips the first stands: see `lake.nearest.codes`."""

    vectors: Floats
    ids: Ids
    strips: NDArray[np.uint32]
    terms: Floats
    first: int


class May(NamedTuple):
    """Which pairs may be: see `lake.nearest.kernel.Pairs`."""

    own: Ids
    operators: Ids
    left: Ids
    right: Ids


class _Desk(NamedTuple):
    """Room for what is known of a block of queries and a block of rows."""

    addresses: Ids  # of each query's bytes
    asked: Floats  # see `lake.nearest.tile.tile`
    upper: Floats
    masks: Ids
    pending: Ids  # queries that have rows to be looked at
    best: Floats
    peaks: Floats


@numba.njit(cache=True, nogil=True, error_model="numpy")
def sift(asked: Asked, met: Met, may: May, which: Any, slack: Any, ends: Any, row_ends: Any) -> int:  # noqa: PLR0917
    """Let queries meet rows, each share of them its own, and keep what is nearer than what they have found.

    Parameters
    ----------
    asked : Asked
    met : Met
    may : May
    which : int32, shape (m,)
        Positions of the queries.
    slack : float32, shape (m,)
        How far from the truth a distance may be, but for what bytes leave out.
    ends, row_ends : int64, shape (shares + 1,)
        Where in `which`, and among the rows, each share begins and the next one does.

    Returns
    -------
    int
        How many distances were computed in vain.
    """
    wasted = 0
    for share in range(len(ends) - 1):
        if ends[share] == ends[share + 1]:
            continue
        some, part = slice(ends[share], ends[share + 1]), slice(row_ends[share], row_ends[share + 1])
        wasted += _share(
            asked,
            Met(met.vectors[part], met.ids[part], met.strips, met.terms, met.first + row_ends[share]),
            May(may.own, may.operators, may.left, may.right[part]),
            which[some],
            slack[some],
        )
    return wasted


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _share(asked: Asked, met: Met, may: May, which: Any, slack: Any) -> int:
    best = asked.found.shape[1] + min(1, may.own.shape[0])
    rows = met.first % STRIP + met.ids.shape[0]
    tiles = min(_MOST_TILES if best <= _FEW else _FEWER_TILES, max(1, -(-rows // LANES)))
    queries = max(1, _BOUNDS // tiles // QUERIES) * QUERIES
    peaks = LANES * min(tiles, -(-_PEAKS * best // LANES))
    desk = _Desk(
        np.empty(queries, np.int64),
        np.empty((queries, 5), np.float32),
        np.empty((queries, tiles * LANES), np.float32),
        np.empty((queries, tiles), np.int64),
        np.empty(queries + _AHEAD, np.int64),
        np.empty(best, np.float32),
        np.empty(peaks, np.float32),
    )
    wasted: int = _sift(desk, asked, met, may, which, slack)
    return wasted


@_inlined
def _sift(desk, asked, met, may, which, slack):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    wasted, last = 0, -(-(met.first + met.ids.shape[0]) // STRIP)
    queries, tiles = desk.masks.shape
    for block in range(met.first // STRIP, last, tiles * STRIPS):
        strips = min(last - block, tiles * STRIPS)
        begin = block * STRIP - met.first
        longest, widest = _extremes(met.terms, block, strips)
        for some in range(0, which.shape[0], queries):
            count = min(queries, which.shape[0] - some)
            _compare(desk, asked, met, which[some : some + count], slack[some : some + count], block, strips)
            for p in range(-_AHEAD, _pending(desk, count, begin, met.ids.shape[0])):
                ahead, i = desk.pending[p + _AHEAD], desk.pending[p]
                if ahead >= 0:
                    near = slack[some + ahead]
                    gap = np.float32(2) * (near + desk.asked[ahead, 1] * longest + desk.asked[ahead, 2] * widest)
                    if not may.operators.shape[0]:
                        _narrow(desk, ahead, gap)
                    _fetch_row(asked.vectors, which[some + ahead])
                    for t in range(tiles):
                        if desk.masks[ahead, t]:
                            _fetch_row(met.vectors, begin + t * LANES + lowest(desk.masks[ahead, t]))
                if p >= 0:
                    wasted += _settle(desk, asked, met, may, i, which[some + i], begin, slack[some + i])
    return wasted


@_inlined
def _extremes(terms, first, count):  # type: ignore[no-untyped-def]
    """Return the greatest length of some strips' rows, and of what their bytes leave out."""
    longest, widest = np.float32(0), np.float32(0)
    for strip in range(first, first + count):
        for lane in range(STRIP):
            longest, widest = max(longest, terms[strip, 1, lane]), max(widest, terms[strip, 2, lane])
    return longest, widest


@_inlined
def _compare(desk, asked, met, which, slack, block, strips):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Compute the bounds of some queries and strips, and tell which reach their query's bar."""
    count, tiles = which.shape[0], desk.masks.shape[1]
    whole = -(-count // QUERIES) * QUERIES  # the last query stands for those that a tile lacks
    width = asked.codes.shape[1]
    for i in range(whole):
        at = which[min(i, count - 1)]
        desk.addresses[i] = asked.codes.ctypes.data + at * width
        _fetch(desk.addresses[i], width)
        for term in range(4):
            desk.asked[i, term] = asked.about[at, term]
        desk.asked[i, 4] = bar_of(asked.distances[at, 0], asked.norms[at], slack[min(i, count - 1)], asked.metric)
    for t in range(-(-strips // STRIPS)):
        strip = block + t * STRIPS
        for group in range(0, whole, QUERIES):
            tile(
                min(STRIPS, strips - t * STRIPS),
                desk.addresses.ctypes.data + group * 8,
                met.strips.ctypes.data + strip * STRIP * width,
                met.terms.ctypes.data + strip * STRIP * 16,
                width // 4,
                desk.asked.ctypes.data + group * 20,
                desk.upper.ctypes.data + (group * tiles + t) * LANES * 4,
                desk.masks.ctypes.data + (group * tiles + t) * 8,
                tiles,
            )
    desk.masks[:count, -(-strips // STRIPS) :] = 0


@_inlined
def _pending(desk, count, begin, rows):  # type: ignore[no-untyped-def]
    """List the queries for which a bound reaches the bar, with -1 after the last; return how many they are."""
    found = 0
    for i in range(count):
        some = np.int64(0)
        for t in range(desk.masks.shape[1]):
            # The first strip and the last may have rows of others.
            low, high = max(0, -(begin + t * LANES)), min(LANES, rows - (begin + t * LANES))
            if low > 0 or high < LANES:
                desk.masks[i, t] &= _bits(low, high) if high > low else np.int64(0)
                desk.upper[i, t * LANES : t * LANES + low] = -np.inf
                desk.upper[i, t * LANES + max(high, 0) : (t + 1) * LANES] = -np.inf
            some |= desk.masks[i, t]
        if some:
            desk.pending[found] = i
            found += 1
    desk.pending[found : found + _AHEAD] = -1
    return found


@_inlined
def _narrow(desk, i, gap):  # type: ignore[no-untyped-def]
    """Leave those rows out that are no match for enough others of the same block."""
    size, count, upper = desk.best.shape[0], 0, desk.upper.ctypes.data + i * desk.upper.shape[1] * 4
    if size > desk.peaks.shape[0]:
        return
    for t in range(desk.masks.shape[1]):
        mask = desk.masks[i, t]
        while mask and count <= size:
            mask &= mask - np.int64(1)
            count += 1
    if count <= size:
        return
    desk.peaks[:] = -np.inf
    for t in range(desk.masks.shape[1]):
        if desk.masks[i, t]:
            lift(upper + t * LANES * 4, desk.peaks.ctypes.data + t * LANES % desk.peaks.shape[0] * 4)
    bar = _kth(desk.best, desk.peaks) - gap
    for t in range(desk.masks.shape[1]):
        if desk.masks[i, t]:
            desk.masks[i, t] &= reach(upper + t * LANES * 4, bar)


@_inlined
def _settle(desk, asked, met, may, i, at, begin, slack):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Compute the distances of a query to those rows that matter; return how many did not in the end."""
    wasted, size = 0, asked.found.shape[1]
    bar = bar_of(asked.distances[at, 0], asked.norms[at], slack, asked.metric)
    for t in range(desk.masks.shape[1]):
        mask = desk.masks[i, t]
        while mask:
            lane = t * LANES + lowest(mask)
            mask &= mask - np.int64(1)
            j = begin + lane
            if desk.upper[i, lane] < bar or (may.own.shape[0] and may.own[at] == met.ids[j]):
                continue
            if may.operators.shape[0] and not allowed(may.operators, may.left, at, may.right, j):
                continue
            distance = distance_of(asked.vectors, at, met.vectors, j, asked.metric)
            if before(distance, met.ids[j], asked.distances[at, 0], asked.found[at, 0]):
                sink(asked.distances, asked.found, at, distance, met.ids[j], size)
                bar = max(bar, bar_of(asked.distances[at, 0], asked.norms[at], slack, asked.metric))
            else:
                wasted += 1
    return wasted


@_inlined
def _kth(best, ranks):  # type: ignore[no-untyped-def]
    """Return the k-th greatest of some ranks."""
    best[:] = -np.inf  # the least first
    for rank in ranks:
        if rank > best[0]:
            at = 0
            while at + 1 < best.shape[0] and best[at + 1] < rank:
                best[at] = best[at + 1]
                at += 1
            best[at] = rank
    return best[0]


@_inlined
def _bits(low, high):  # type: ignore[no-untyped-def]
    """Return an int64 whose bits from `low` up to `high` are set."""
    below = np.int64(-1) if high == LANES else (np.int64(1) << high) - np.int64(1)
    return below & (np.int64(-1) << low)


@_inlined
def _fetch_row(matrix, at):  # type: ignore[no-untyped-def]
    _fetch(matrix.ctypes.data + at * matrix.shape[1] * 4, matrix.shape[1] * 4)


@_inlined
def _fetch(address, size):  # type: ignore[no-untyped-def]
    for at in range(0, size, _LINE):
        fetch(address + at)

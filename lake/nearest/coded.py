"""The kernel where a processor multiplies bytes: bounds of products tell who is no neighbour.

What the bounds let pass gets its distance from the vectors themselves, by the same code as without bytes: rows and
distances are the same, bit by bit. Where they let too much pass, as with vectors that lie far from the origin and close
to each other, products of floats do the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lake.nearest.codes import encode_queries, encode_rows
from lake.nearest.kernel import ALL_PAIRS, Floats, Ids, Nearest, Pairs, Rows, read_only
from lake.nearest.rooms import Rooms
from lake.nearest.sift import Asked, May, Met, sift
from lake.nearest.tile import STRIP
from lake.run.threads import Hands

MOST_DIMENSIONS: Final = 1 << 16  # sums of more products of bytes may not fit into 32 bits
_FEW: Final = 16  # meetings of a row, which cost less than to encode it
_WASTE: Final = 32  # one distance in vain costs as much as so many pairs gain
_PATIENCE: Final = 1 << 20  # pairs


@dataclass(frozen=True, eq=False)
class CodedRows(Rows):
    """Rows with their bytes; see `lake.nearest.codes`.

    Parameters
    ----------
    strips : uint32, shape (strips, steps, 16)
    terms : float32, shape (strips, 4, 16)
    first : int
        Where the first row stands in the strips.

    Others as `Rows` has them.
    """

    strips: NDArray[np.uint32]
    terms: Floats
    first: int = 0

    def __getitem__(self, part: slice) -> Self:
        return replace(super().__getitem__(part), first=self.first + part.indices(len(self))[0])


class NearestCoded(Nearest):
    """The k nearest rows of each query so far.

    Parameters are those of `Nearest`.
    """

    def __init__(
        self,
        queries: Floats,
        k: int,
        metric: str,
        within: float | None = None,
        hands: Hands | None = None,
    ) -> None:
        super().__init__(queries, k, metric, within, hands)
        codes, about = np.zeros((len(queries), 4 * _steps(queries)), np.int8), np.empty((len(queries), 4), np.float32)
        _shared(hands, len(queries), lambda *part: encode_queries(self.queries, codes, about, *part))
        self._asked = Asked(self.queries, self._norms, codes, about, self.distances, self.ids, self.metric)
        self._rooms = Rooms()
        # Of all threads; that one now and then loses what it adds does no harm.
        self._pairs, self._wasted = _PATIENCE, 0

    def prepare(self, vectors: Floats, ids: Ids, meetings: float, hands: Hands | None = None) -> Rows:
        """Make rows of vectors and their ids; see `Nearest`."""
        if meetings < _FEW or self._loose:
            return super().prepare(vectors, ids, meetings, hands)
        rows, ids = read_only(vectors), read_only(ids)
        strips, half = -(-len(ids) // STRIP), np.empty(len(ids), np.float32)
        codes = self._rooms.empty((strips, _steps(vectors), STRIP), np.uint32)
        terms = np.empty((strips, 4, STRIP), np.float32)
        _shared(hands, strips, lambda *part: encode_rows(rows, self.metric, half, codes, terms, *part))
        return CodedRows(rows, ids, half, terms[:, 1].max(initial=0), codes, terms)

    def meet(self, which: NDArray[np.int32], rows: Rows, pairs: Pairs | None = None) -> None:
        """Let some queries meet some rows; see `Nearest`."""
        if isinstance(rows, CodedRows) and not self._loose:
            self.meet_shares(which, np.array([0, len(which)]), rows, np.array([0, len(rows)]), pairs)
        else:
            super().meet(which, rows, pairs)

    def meet_shares(
        self, which: NDArray[np.int32], ends: Ids, rows: Rows, row_ends: Ids, pairs: Pairs | None = None
    ) -> None:
        """Let each share of the queries meet its share of the rows; see `Nearest`."""
        if not isinstance(rows, CodedRows) or self._loose:
            super().meet_shares(which, ends, rows, row_ends, pairs)
            return
        chosen = pairs or ALL_PAIRS
        wasted: int = sift(
            self._asked,
            Met(rows.vectors, rows.ids, rows.strips, rows.terms, rows.first),
            May(chosen.own, chosen.operators, chosen.left, chosen.right),
            which,
            self._slack(which, rows.longest),
            ends,
            row_ends,
        )
        self._pairs += int(np.diff(ends) @ np.diff(row_ends))
        self._wasted += wasted

    @property
    def _loose(self) -> bool:
        """The bounds let more pass than they save."""
        return self._wasted * _WASTE > self._pairs


def _shared(hands: Hands | None, count: int, work: Callable[[int, int], object]) -> None:
    """Call `work` with the first and the last of each share of so many things."""
    if hands is None:
        work(0, count)
    else:
        shares = hands.count
        hands(lambda at: work(count * at // shares, count * (at + 1) // shares))


def _steps(vectors: Floats) -> int:
    steps: int = -(-vectors.shape[1] // 4)
    return steps

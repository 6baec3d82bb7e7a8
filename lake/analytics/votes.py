"""Labels by the votes of neighbours, nearer ones counting for more."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from lake.analytics.joined import Lists
from lake.errors import InvalidInput
from lake.schema import Column
from lake.table.snapshot import Snapshot

_Z95 = 1.96


@dataclass(frozen=True)
class Votes:
    """What the neighbours of some rows say.

    Parameters
    ----------
    labels, runners_up : Array
        The label with the most weight, and the next; null where all neighbours agree.
    confidence : float32, shape (n,)
        The share of the weight that is the label's.
    """

    labels: pa.Array
    runners_up: pa.Array
    confidence: NDArray[np.float32] = field(hash=False)


def vote(lists: Lists, labels: pa.ChunkedArray) -> Votes:
    """Count the votes of each list.

    A neighbour's weight is one over its distance, under cosine that of the unit vectors; copies of a row decide alone.
    Between labels of equal weight the nearest neighbour decides.

    Parameters
    ----------
    labels : ChunkedArray
        Of each neighbour; none is null.
    """
    coded = labels.combine_chunks().dictionary_encode()
    codes, count = coded.indices.to_numpy().astype(np.int64), len(coded.dictionary)
    ballots, first, which = np.unique(lists.lists * count + codes, return_index=True, return_inverse=True)
    sums = np.bincount(which, weights=_weights(lists))
    of = ballots // count
    order = np.lexsort((first, -sums, of))
    best = np.flatnonzero(np.diff(of[order], prepend=-1))
    total = np.add.reduceat(sums, best)  # ballots of a list stand together, in either order
    after = np.minimum(best + 1, len(order) - 1)
    agreed = (after == best) | (of[order[after]] != of[order[best]]) | (sums[order[after]] == 0)
    label, runner = (codes[first[order[at]]] for at in (best, after))
    return Votes(
        coded.dictionary.take(pa.array(label)),
        coded.dictionary.take(pa.array(runner, mask=agreed)),
        (sums[order[best]] / total).astype(np.float32),
    )


def _weights(lists: Lists) -> NDArray[np.float64]:
    # The kernel gives squared distances of l2, and half of those of unit vectors under cosine.
    lengths = np.sqrt(np.maximum(lists.distances.astype(np.float64), 0))
    copies = lengths == 0
    decided = np.logical_or.reduceat(copies, lists.starts)[lists.lists]
    weights: NDArray[np.float64] = np.where(decided, copies, 1 / np.where(copies, 1, lengths))
    return weights


def check_label(table: Snapshot, name: str) -> Column:
    """Refuse a column that holds no labels.

    Raises
    ------
    InvalidInput
        Its values are neither text nor whole numbers, booleans or dates.
    """
    column = table.schema.column(name)
    kind = column.type
    legal = (pt.is_string, pt.is_large_string, pt.is_integer, pt.is_boolean, pt.is_date)
    if not any(test(kind) for test in legal):
        raise InvalidInput(
            f"label={name!r}: the column of {table.location.uri} is {kind}; labels are text, whole numbers, booleans "
            "or dates"
        )
    if name == "row_id":
        raise InvalidInput("label='row_id': a join gives rows this name; rename the column")
    return column


def interval(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share."""
    share, spread = right / of, _Z95**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * np.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))

"""An order of centroids in which neighbours stand together.

A job that wants neighbouring partitions together then finds them together in a file: they are one read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lake.nearest.kernel import Floats

_ROUNDS = 8


def order(centroids: Floats, fewest: int = 4) -> NDArray[np.int64]:
    """Put neighbours together: halve along the direction of the largest spread, and each half again.

    Parameters
    ----------
    centroids : float32, shape (k, d)
    fewest : int
        So few are not halved.

    Returns
    -------
    int64, shape (k,)
        Positions of centroids.
    """
    done: list[NDArray[np.int64]] = []
    left = [(np.arange(len(centroids)), np.zeros(centroids.shape[1], np.float32))]
    while left:
        some, before = left.pop()
        direction = _direction(centroids[some], before)
        some = some[np.argsort(centroids[some] @ direction, kind="stable")]
        if len(some) <= max(1, fewest):
            done.append(some)
        else:
            left += [(half, direction) for half in (some[len(some) // 2 :], some[: len(some) // 2])]
    return np.concatenate(done)


def _direction(points: Floats, before: Floats) -> Floats:
    """Find the direction of the largest spread, nearly, by the power method; not against the direction before."""
    apart = points - points.mean(axis=0)
    apart /= max(np.abs(apart).max(), np.finfo(np.float32).tiny)  # the lengths of long ones could not be squared
    direction = apart[np.einsum("nd,nd->n", apart, apart).argmax()]
    for _ in range(_ROUNDS):
        direction = (apart @ direction) @ apart
        direction = direction / max(np.linalg.norm(direction), np.finfo(np.float32).tiny)
    turned: Floats = direction if direction @ before >= 0 else -direction
    return turned

"""Are two samples drawn from one distribution? Three statistics, each against what chance gives.

Chance is what the statistic is when rows are dealt out to the two sides anew, many times: no assumption about how
vectors are spread is made. All three share the deals, so that each costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.analytics.stages import Ids
from lake.index.kmeans import Floats

Doubles = NDArray[np.float64]

_ROWS = 512
_MEDIAN_OF = 1000
_BINS = 40


@dataclass(frozen=True)
class Statistic:
    """A number that tells how far two samples are apart, and what chance gives.

    Parameters
    ----------
    name : str
    value : float
    chance : float
        What it is on average when the sides are dealt out by chance.
    p : float
        The share of deals that give as much or more, the one that was seen among them: the smaller, the less is it
        due to chance.
    rows_before, rows_after : int
        Rows that it was computed on.
    bins : tuple of int
        How many deals gave how much, in steps from `low` to `high`.
    low, high : float
    """

    name: str
    value: float
    chance: float
    p: float
    rows_before: int
    rows_after: int
    bins: tuple[int, ...]
    low: float
    high: float

    @classmethod
    def of(cls, name: str, found: Doubles, rows: tuple[int, int]) -> Statistic:
        """Compare the first number, which was seen, with the others."""
        seen, dealt = float(found[0]), found[1:]
        held, edges = np.histogram(dealt, _BINS, (min(seen, dealt.min()), max(seen, dealt.max(), seen + 1e-12)))
        p = (1 + int((dealt >= seen).sum())) / len(found)
        bins = tuple(map(int, held))
        return cls(name, seen, float(dealt.mean()), p, *rows, bins, float(edges[0]), float(edges[-1]))


def compare(before: Floats, after: Floats, k: int, deals: int, seed: int) -> list[Statistic]:
    """Compute the shift of the centroid, the kernel's discrepancy (MMD), and the share of neighbours of one side.

    Parameters
    ----------
    before, after : float32, shape (n, d) and (m, d)
    k : int
        Neighbours of each row.
    deals : int
        How often rows are dealt out.
    seed : int

    Returns
    -------
    list of Statistic
        *centroid shift*: between the means, as a multiple of the root mean squared distance from the common mean.
        *MMD*: squared, unbiased, with a Gaussian kernel whose width is the median distance.
        *neighbours of the same side*: the share among the k nearest of each row.
    """
    points = np.concatenate([before, after]).astype(np.float64)
    points -= points.mean(axis=0)
    n, m = len(before), len(after)
    sides = np.zeros((n + m, deals + 1), np.float64)  # 1 where a row is after
    rng = np.random.default_rng(seed)
    sides[n:, 0] = 1
    for deal in range(1, deals + 1):
        sides[rng.permutation(n + m)[:m], deal] = 1
    width = np.sqrt(np.einsum("nd,nd->", points, points) / (n + m)) or 1.0
    apart = points.T @ (sides / m - (1 - sides) / n)
    shift = np.sqrt(np.einsum("dp,dp->p", apart, apart)) / width
    discrepancy, neighbours = _kernel(points, sides, n, m, min(k, n + m - 1))
    same = np.zeros(deals + 1)
    for at in range(neighbours.shape[1]):
        same += (sides == sides[neighbours[:, at]]).mean(axis=0)
    rows = (n, m)
    return [
        Statistic.of("centroid shift", shift, rows),
        Statistic.of("MMD", discrepancy, rows),
        Statistic.of("neighbours of the same side", same / neighbours.shape[1], rows),
    ]


def _kernel(points: Doubles, sides: Doubles, n: int, m: int, k: int) -> tuple[Doubles, Ids]:
    """Compute the squared MMD of each deal, and the k nearest of each row, some rows at a time."""
    some = np.random.default_rng(0).permutation(n + m)[:_MEDIAN_OF]
    squared = next(_squared(points[some], points[some], len(some)))[1]
    median = float(np.median(squared[~np.eye(len(some), dtype=bool)])) or 1.0
    within = np.zeros(sides.shape[1])  # the kernel's sum over pairs that are both after, and over those from after on
    across, total = np.zeros(sides.shape[1]), 0.0
    nearest = np.empty((n + m, k), np.int64)
    for start, rows in _squared(points, points, _ROWS):
        own = np.arange(len(rows))
        rows[own, start + own] = np.inf  # no row meets itself
        nearest[start : start + len(rows)] = np.argpartition(rows, k - 1, axis=1)[:, :k]
        kernel = np.exp(-rows / (2 * median))
        here = sides[start : start + len(rows)]
        within += np.einsum("np,np->p", here, kernel @ sides)
        sums = kernel.sum(axis=1)
        across += sums @ here
        total += float(sums.sum())
    after, before = within / (m * (m - 1)), (total - 2 * across + within) / (n * (n - 1))
    return after + before - 2 * (across - within) / (n * m), nearest


def _squared(a: Doubles, b: Doubles, step: int) -> Iterator[tuple[int, Doubles]]:
    lengths = np.einsum("nd,nd->n", b, b)
    for start in range(0, len(a), step):
        some = a[start : start + step]
        yield start, np.maximum(np.einsum("nd,nd->n", some, some)[:, None] + lengths - 2 * some @ b.T, 0)


def plane(before: Floats, after: Floats, most: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Project some rows of each side onto the two directions in which both together vary most."""
    both = np.concatenate([before, after]).astype(np.float64)
    mean = both.mean(axis=0)
    _, directions = np.linalg.eigh((both - mean).T @ (both - mean))
    shown = []
    for side in (before, after):
        flat = (side[:most] - mean) @ directions[:, :-3:-1]
        shown.append([(round(float(x), 4), round(float(y), 4)) for x, y in np.pad(flat, ((0, 0), (0, 2)))[:, :2]])
    return shown[0], shown[1]

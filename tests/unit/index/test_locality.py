"""The order of centroids: each once, and neighbours nearer to each other than by chance."""

from __future__ import annotations

import numpy as np
import pytest

from lake.index.locality import order
from tests.bench.vectors import vectors


@pytest.mark.parametrize("count", [1, 2, 5, 300])
@pytest.mark.parametrize("fewest", [1, 4])
def test_each_stands_once(count: int, fewest: int) -> None:
    assert sorted(order(vectors(count, seed=1), fewest).tolist()) == list(range(count))


def test_the_same_points_have_an_order_too() -> None:
    assert sorted(order(np.ones((50, 8), np.float32)).tolist()) == list(range(50))


@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
def test_points_on_a_line_stand_as_they_lie(scale: float) -> None:
    rng = np.random.default_rng(1)
    line = rng.permutation(100)
    found = line[order(np.outer(line, [3.0 * scale, 4.0 * scale]).astype(np.float32), 1)]
    assert (np.abs(np.diff(found)) == 1).all()


def test_neighbours_are_near_each_other() -> None:
    points = vectors(500, seed=2)
    ordered = points[order(points)]
    apart = [np.linalg.norm(np.diff(some, axis=0), axis=1).mean() for some in (ordered, points)]
    assert apart[0] < 0.92 * apart[1]

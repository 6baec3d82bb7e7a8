"""The kernel against numpy's float64, over shapes that blocks and chunks do not divide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.join.kernel import OPERATORS, Nearest, Pairs
from lake.run.threads import Hands

Matrix = np.ndarray[Any, np.dtype[Any]]
COMPARE = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def exact(queries: Matrix, rows: Matrix, metric: str) -> Matrix:
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "dot":
        products: Matrix = 1 - q @ x.T
        return products
    squared: Matrix = ((q[:, None] - x[None]) ** 2).sum(-1)
    return squared if metric == "l2" else squared / 2


def unit(x: Matrix) -> Matrix:
    scaled: Matrix = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return scaled


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
    n=st.integers(1, 70),
    r=st.integers(1, 200),
    d=st.integers(1, 40),
    k=st.integers(1, 30),
    whole=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_the_nearest_are_those_of_brute_force(
    seed: int, metric: str, n: int, r: int, d: int, k: int, whole: bool, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    if whole:  # many ties, and distances without rounding
        queries, rows = (rng.integers(1, 4, (m, d)).astype(np.float32) for m in (n, r))
    else:
        queries, rows = ((rng.standard_normal((m, d)) * scale).astype(np.float32) for m in (n, r))
    if metric == "cosine":
        queries, rows = unit(queries), unit(rows)
    ids = rng.permutation(10 * r)[:r]
    found = Nearest(queries, k, metric)
    cuts = sorted(rng.integers(0, r + 1, 3))
    for part in np.split(np.arange(r), cuts):
        order = rng.permutation(n).astype(np.int32)
        for some in np.array_split(order, 2):
            found.meet(some, rows[part], ids[part])
    found.sort()
    truth = exact(queries, rows, metric)
    kept = min(k, r)
    assert (found.ids[:, kept:] == -1).all()
    place = {int(i): at for at, i in enumerate(ids)}
    for i in range(n):
        mine = [place[int(j)] for j in found.ids[i, :kept]]
        assert len(set(mine)) == kept
        best = np.sort(truth[i])[:kept]
        np.testing.assert_allclose(truth[i][mine], best, rtol=1e-4, atol=1e-4 * scale**2)
        np.testing.assert_allclose(found.distances[i, :kept], truth[i][mine], rtol=1e-4, atol=1e-4 * scale**2)
        if whole and metric == "l2":  # exact numbers: ties go to the smaller id
            assert found.ids[i, :kept].tolist() == [int(ids[j]) for j in np.lexsort((ids, truth[i]))[:kept]]


@pytest.mark.parametrize("operator", OPERATORS)
def test_only_pairs_that_may_be_count(operator: str) -> None:
    rng = np.random.default_rng(3)
    queries, rows = (rng.standard_normal((m, 8)).astype(np.float32) for m in (40, 300))
    left, right = rng.integers(0, 4, (40, 1)), rng.integers(0, 4, (300, 1))
    own, ids = np.arange(40), np.arange(300)
    found = Nearest(queries, 5, "l2")
    pairs = Pairs(own, np.array([OPERATORS.index(operator)]), left, right)
    found.meet(np.arange(40, dtype=np.int32), rows, ids, pairs)
    found.sort()
    legal = COMPARE[operator](left, right.T) & (own[:, None] != ids[None])
    truth = np.where(legal, exact(queries, rows, "l2"), np.inf)
    for i in range(40):
        wanted = [int(j) for j in np.argsort(truth[i])[:5] if np.isfinite(truth[i][j])]
        assert [int(j) for j in found.ids[i] if j >= 0] == wanted


def test_within_is_a_bound_that_is_not_reached() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    found = Nearest(np.zeros((1, 1), np.float32), 4, "l2", within=4.0)
    found.meet(np.zeros(1, np.int32), rows, np.arange(6))
    found.sort()
    assert found.ids[0].tolist() == [0, 1, -1, -1]


def test_near_duplicates_keep_their_small_distances() -> None:
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((50, 384)))
    twins = unit(base + 1e-4 * rng.standard_normal(base.shape))
    found = Nearest(base, 1, "cosine")
    found.meet(np.arange(50, dtype=np.int32), twins, np.arange(50))
    assert found.ids[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(found.distances[:, 0], np.diag(exact(base, twins, "cosine")), rtol=1e-3)


def test_the_answer_does_not_depend_on_blocks_or_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rng = np.random.default_rng(1)
    queries, rows = (rng.standard_normal((m, 64)).astype(np.float32) for m in (700, 3000))
    answers = []
    with Hands() as three:
        for step, hands in ((37, None), (512, None), (3000, None), (512, three)):
            found = Nearest(queries, 10, "l2")
            for start in range(0, 3000, step):
                some = rows[start : start + step]
                found.meet_all(some, start + np.arange(len(some)), hands=hands)
            found.sort()
            answers.append((found.ids.tobytes(), found.distances.tobytes()))
    assert len(set(answers)) == 1

"""The kernel against numpy's float64, over shapes that blocks and chunks do not divide."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.nearest import coded, sift
from lake.nearest.coded import NearestCoded
from lake.nearest.kernel import OPERATORS, Nearest, Pairs
from lake.nearest.tile import LANES, QUERIES, STRIP, available
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


KERNELS = [
    Nearest,
    pytest.param(NearestCoded, marks=pytest.mark.skipif(not available(), reason="the processor has no AVX-512 VNNI")),
]
MANY = 100  # meetings: rows are worth their bytes


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


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=120)
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
    kernel: type[Nearest], seed: int, metric: str, n: int, r: int, d: int, k: int, whole: bool, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    if whole:  # many ties, and distances without rounding
        queries, rows = (rng.integers(1, 4, (m, d)).astype(np.float32) for m in (n, r))
    else:
        queries, rows = ((rng.standard_normal((m, d)) * scale).astype(np.float32) for m in (n, r))
    if metric == "cosine":
        queries, rows = unit(queries), unit(rows)
    ids = rng.permutation(10 * r)[:r]
    found = kernel(queries, k, metric)
    cuts = sorted(rng.integers(0, r + 1, 3))
    for part in np.split(np.arange(r), cuts):
        order = rng.permutation(n).astype(np.int32)
        for some in np.array_split(order, 2):
            found.meet(some, found.prepare(rows[part], ids[part], MANY))
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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("compared", [False, True])
@pytest.mark.parametrize("loose", [False, True])
def test_shares_meet_as_if_each_came_by_itself(kernel: type[Nearest], compared: bool, loose: bool) -> None:
    rng = np.random.default_rng(4)
    queries, rows = (rng.standard_normal((m, 24)).astype(np.float32) for m in (90, 700))
    ids = rng.permutation(700)
    ends, row_ends = np.array([0, 40, 40, 75, 130]), np.array([0, 33, 200, 200, 655])  # empty ones among them
    which = np.concatenate([rng.permutation(90)[:count] for count in np.diff(ends)]).astype(np.int32)
    pairs = None
    if compared:
        pairs = Pairs(np.arange(90), np.array([0]), rng.integers(0, 3, (90, 1)), rng.integers(0, 3, (655, 1)))
    together, apart = kernel(queries, 6, "l2"), kernel(queries, 6, "l2")
    some = together.prepare(rows, ids, MANY)
    if loose and isinstance(together, NearestCoded):
        together._wasted = 1 << 40  # bounds have let too much pass
    together.meet_shares(which[:0], np.zeros(1, np.int64), some[:0], np.zeros(1, np.int64))
    together.meet_shares(which, ends, some[45:], row_ends, pairs)  # not where a strip begins
    for at in range(4):
        part = slice(45 + row_ends[at], 45 + row_ends[at + 1])
        right = pairs and Pairs(pairs.own, pairs.operators, pairs.left, pairs.right[row_ends[at] : row_ends[at + 1]])
        apart.meet(which[ends[at] : ends[at + 1]], apart.prepare(rows[part], ids[part], MANY), right)
    together.sort()
    apart.sort()
    np.testing.assert_array_equal(together.ids, apart.ids)
    np.testing.assert_array_equal(together.distances, apart.distances)
    assert (together.ids >= 0).any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_only_pairs_that_may_be_count(operator: str, kernel: type[Nearest]) -> None:
    rng = np.random.default_rng(3)
    queries, rows = (rng.standard_normal((m, 8)).astype(np.float32) for m in (40, 300))
    left, right = rng.integers(0, 4, (40, 1)), rng.integers(0, 4, (300, 1))
    own, ids = np.arange(40), np.arange(300)
    found = kernel(queries, 5, "l2")
    pairs = Pairs(own, np.array([OPERATORS.index(operator)]), left, right)
    found.meet(np.arange(40, dtype=np.int32), found.prepare(rows, ids, MANY), pairs)
    found.sort()
    legal = COMPARE[operator](left, right.T) & (own[:, None] != ids[None])
    truth = np.where(legal, exact(queries, rows, "l2"), np.inf)
    for i in range(40):
        wanted = [int(j) for j in np.argsort(truth[i])[:5] if np.isfinite(truth[i][j])]
        assert [int(j) for j in found.ids[i] if j >= 0] == wanted


@pytest.mark.parametrize("kernel", KERNELS)
def test_within_is_a_bound_that_is_not_reached(kernel: type[Nearest]) -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    found = kernel(np.zeros((1, 1), np.float32), 4, "l2", within=4.0)
    found.meet(np.zeros(1, np.int32), found.prepare(rows, np.arange(6), MANY))
    found.sort()
    assert found.ids[0].tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_near_duplicates_keep_their_small_distances(kernel: type[Nearest]) -> None:
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((50, 384)))
    twins = unit(base + 1e-4 * rng.standard_normal(base.shape))
    found = kernel(base, 1, "cosine")
    found.meet(np.arange(50, dtype=np.int32), found.prepare(twins, np.arange(50), MANY))
    assert found.ids[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(found.distances[:, 0], np.diag(exact(base, twins, "cosine")), rtol=1e-3)


def test_the_answer_does_not_depend_on_kernels_blocks_or_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rng = np.random.default_rng(1)
    queries, rows = (rng.standard_normal((m, 64)).astype(np.float32) for m in (700, 3000))
    kernels = [Nearest, NearestCoded] if available() else [Nearest]
    answers = []
    with Hands() as three:
        for kernel, (step, hands) in product(kernels, ((37, None), (512, None), (3000, None), (512, three))):
            found = kernel(queries, 10, "l2", hands=hands)
            for start in range(0, 3000, step):
                some = rows[start : start + step]
                prepared = found.prepare(some, start + np.arange(len(some)), MANY, hands)
                found.meet_all(prepared[:17], hands=hands)
                found.meet_all(prepared[17:], hands=hands)
            found.sort()
            answers.append((found.ids.tobytes(), found.distances.tobytes()))
    assert len(set(answers)) == 1


def shaped(shape: str, n: int, rng: np.random.Generator) -> Matrix:
    """Make vectors that are hard to say in bytes."""
    made = rng.standard_normal((n, 48)).astype(np.float32)
    if shape == "one dimension far longer":
        made[:, 7] *= 1e4
    elif shape == "far from the origin":
        made += 300
    elif shape == "lengths from 1e-18 to 1e12":
        made *= np.float32(10) ** rng.integers(-18, 13, (n, 1)).astype(np.float32)
    elif shape == "mostly zeros":
        made *= rng.random(made.shape) < 0.05
    elif shape == "equal":
        made[:] = made[0]
    return made


NEEDS_VNNI = pytest.mark.skipif(not available(), reason="the processor has no AVX-512 VNNI")


@NEEDS_VNNI
@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize(
    "shape",
    ["one dimension far longer", "far from the origin", "lengths from 1e-18 to 1e12", "mostly zeros", "equal", "plain"],
)
def test_bytes_lose_nothing_of_what_is_hard_to_say_in_them(
    shape: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    queries, rows = shaped(shape, 300, rng), shaped(shape, 2000, rng)
    for patience in (coded._PATIENCE, 1 << 40):  # with products of floats where bytes say too little, and without
        monkeypatch.setattr(coded, "_PATIENCE", patience)
        assert_same(queries, rows, 10, metric)


def assert_same(queries: Matrix, rows: Matrix, k: int, metric: str, pairs: Pairs | None = None) -> None:
    """Hold both kernels' answers against each other, while rows come in pieces that divide no strip."""
    one, other = Nearest(queries, k, metric), NearestCoded(queries, k, metric)
    for found in (one, other):
        prepared = found.prepare(rows, np.arange(len(rows)), MANY)
        for start in range(0, len(rows), 499):
            part = slice(start, start + 499)
            mine = pairs and Pairs(pairs.own, pairs.operators, pairs.left, pairs.right[part])
            found.meet_all(prepared[part], mine)
        found.sort()
    np.testing.assert_array_equal(other.ids, one.ids)
    assert other.distances.tobytes() == one.distances.tobytes()


@NEEDS_VNNI
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("dimension", [1, 3, 17, 100, 384, 1536])
def test_bytes_give_the_same_bits(dimension: int, metric: str) -> None:
    rng = np.random.default_rng(5)
    queries, rows = (rng.standard_normal((m, dimension)).astype(np.float32) for m in (100, 1100))
    if metric == "cosine":
        queries, rows = unit(queries), unit(rows)
    rows.flags.writeable = False  # as what Arrow reads
    assert_same(queries, rows, 10, metric)


@NEEDS_VNNI
@pytest.mark.parametrize("k", [1, 300])
@pytest.mark.parametrize("operators", [[], [2]])
def test_bytes_heed_which_pairs_may_be(operators: list[int], k: int) -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((1100, 20)).astype(np.float32)
    queries = rows[:200]
    left, right = (rng.integers(0, 9, (m, len(operators))) for m in (200, 1100))
    assert_same(queries, rows, k, "l2", Pairs(np.arange(200), np.array(operators, np.int64), left, right))


@NEEDS_VNNI
@pytest.mark.parametrize("scale", [1e-5, 1e-1])
def test_distances_that_rounding_makes_equal_go_to_the_smaller_id(scale: float) -> None:
    rng = np.random.default_rng(7)
    queries, rows = ((scale * rng.standard_normal((m, 30))).astype(np.float32) for m in (50, 1100))
    assert_same(queries, rows, 10, "dot")
    if scale < 1e-4:  # each is 1 - 1e-9 or so, in float32 1
        found = NearestCoded(queries, 10, "dot")
        found.meet_all(found.prepare(rows, np.arange(1100), MANY))
        found.sort()
        assert (found.ids == np.arange(10)).all()


@NEEDS_VNNI
def test_sums_of_the_most_dimensions_fit() -> None:
    rng = np.random.default_rng(8)
    queries, rows = (rng.choice(np.array([-1, 1], np.float32), (m, coded.MOST_DIMENSIONS)) for m in (7, 33))
    rows[3], rows[4], queries[0], queries[1] = 1, -1, 1, -1  # whose sums are the greatest there are
    assert_same(queries, rows, 5, "dot")


@NEEDS_VNNI
def test_bytes_are_given_up_where_they_say_too_little() -> None:
    rng = np.random.default_rng(2)
    for shape, given_up in (("plain", False), ("far from the origin", True)):
        queries, rows = shaped(shape, 300, rng), shaped(shape, 20_000, rng)
        found = NearestCoded(queries, 10, "l2")
        for start in range(0, len(rows), 1000):
            found.meet_all(found.prepare(rows[start : start + 1000], start + np.arange(1000), MANY))
        after = found.prepare(rows[:1000], np.arange(1000), MANY)
        assert isinstance(after, coded.CodedRows) != given_up


def bounds(found: NearestCoded, rows: coded.CodedRows) -> Matrix:
    """Ask for the bounds of the first six queries, and a bar that none can miss."""
    desk = sift._Desk(
        np.empty(6, np.int64),
        np.empty((6, 5), np.float32),
        np.empty((6, 4 * LANES), np.float32),
        np.empty((6, 4), np.int64),
        *(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32)),
    )
    met = sift.Met(rows.vectors, rows.ids, rows.strips, rows.terms, rows.first)
    slack = np.full(QUERIES, np.inf, np.float32)
    sift._compare(desk, found._asked, met, np.arange(QUERIES, dtype=np.int32), slack, 0, len(rows.strips))
    bits = (desk.masks[:, :, None] >> np.arange(LANES)) & 1
    assert (bits.reshape(QUERIES, -1)[:, : len(rows)] == 1).all()
    assert not bits.reshape(QUERIES, -1)[:, STRIP * len(rows.strips) :].any()
    return desk.upper[:, : len(rows)]


@NEEDS_VNNI
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 70),
    scale=st.sampled_from([1e-10, 1.0, 1e14]),
    n=st.integers(1, 90),
)
def test_a_bound_is_never_less_than_the_product(seed: int, d: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = ((rng.standard_t(2, (m, d)) * scale).astype(np.float32) for m in (QUERIES, n))
    found = NearestCoded(queries, 1, "dot")
    prepared = found.prepare(rows, np.arange(n), MANY)
    assert isinstance(prepared, coded.CodedRows)
    upper = bounds(found, prepared)
    true = queries.astype(np.float64) @ rows.T.astype(np.float64)
    a, b = (np.linalg.norm(x.astype(np.float64), axis=1) for x in (queries, rows))
    lengths = a[:, None] * b
    assert (upper >= true - 1e-6 * lengths).all()
    assert (upper <= true + 0.1 * np.sqrt(d) * lengths).all(), "a bound that says something"

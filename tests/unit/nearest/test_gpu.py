"""The kernel with its products on a device of torch, against the kernel without: the same bits.

Where torch is not installed, as in the development environment, these are skipped. The device is the processor: what
torch computes there is the same operations, but nothing here has met a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import JobError
from lake.nearest.kernel import OPERATORS, Nearest, Pairs
from lake.run.threads import Hands

torch = pytest.importorskip("torch")
gpu = pytest.importorskip("lake.nearest.gpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both(queries: np.ndarray, k: int, metric: str, within: float | None = None) -> tuple[Nearest, Nearest]:
    return Nearest(queries, k, metric, within), gpu.NearestOnDevice(queries, k, metric, within, device="cpu")


def assert_same(one: Nearest, other: Nearest) -> None:
    for found in (one, other):
        found.sort()
    np.testing.assert_array_equal(other.ids, one.ids)
    assert other.distances.tobytes() == one.distances.tobytes()


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
    n=st.integers(1, 70),
    r=st.integers(1, 300),
    d=st.integers(1, 40),
    k=st.integers(1, 30),
    whole=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    within=st.sampled_from([None, 0.0, 0.3, 2.0]),
    own=st.booleans(),
    operators=st.lists(st.sampled_from(range(len(OPERATORS))), max_size=3),
    cells=st.sampled_from([300, 3000, 1 << 24]),
)
def test_the_rows_are_those_of_the_kernel_without(
    seed: int,
    metric: str,
    n: int,
    r: int,
    d: int,
    k: int,
    whole: bool,
    scale: float,
    within: float | None,
    own: bool,
    operators: list[int],
    cells: int,
) -> None:
    rng = np.random.default_rng(seed)
    if whole:  # many ties
        queries, rows = (rng.integers(1, 4, (m, d)).astype(np.float32) for m in (n, r))
    else:
        queries, rows = ((rng.standard_normal((m, d)) * scale).astype(np.float32) for m in (n, r))
    if metric == "cosine":
        queries, rows = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (queries, rows))
    ids = rng.permutation(10 * r)[:r]
    mine = rng.choice(ids, n) if own else np.empty(0, np.int64)
    left, right = (rng.integers(0, 4, (m, len(operators))) for m in (n, r))
    cuts, halves = sorted(rng.integers(0, r + 1, 3)), [rng.permutation(n).astype(np.int32) for _ in range(4)]
    one, other = both(queries, k, metric, within)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_CELLS", cells)
        for found in (one, other):
            for part, order in zip(np.split(np.arange(r), cuts), halves, strict=True):
                pairs = Pairs(mine, np.array(operators, np.int64), left, right[part])
                for some in np.array_split(order, 2):
                    found.meet(some, found.prepare(rows[part], ids[part], 1), pairs if own or operators else None)
    assert_same(one, other)


def test_many_rows_and_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rng = np.random.default_rng(1)
    queries, rows = (rng.standard_normal((m, 64)).astype(np.float32) for m in (500, 3000))
    rows.flags.writeable = False  # as what Arrow reads
    one, other = both(queries, 10, "l2")
    with Hands() as three:
        for start in range(0, 3000, 1000):
            for found in (one, other):
                some = found.prepare(rows[start : start + 1000], start + np.arange(1000), 1)
                found.meet_all(some, hands=three)
    assert_same(one, other)


def test_near_duplicates_keep_their_small_distances() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((50, 384)).astype(np.float32)
    twins = np.repeat(base + np.float32(1e-5) * rng.standard_normal(base.shape).astype(np.float32), 3, axis=0)
    one, other = both(base, 4, "l2")
    for found in (one, other):
        found.meet_all(found.prepare(twins, np.arange(150), 1))
    assert_same(one, other)
    assert (other.ids[:, :3] == 3 * np.arange(50)[:, None] + np.arange(3)).all()


def test_rows_count_that_only_rounding_makes_farther() -> None:
    rng = np.random.default_rng(5)
    queries, rows = ((1000 + rng.standard_normal((m, 16))).astype(np.float32) for m in (50, 500))
    one, other = both(queries, 5, "l2")
    for found in (one, other):
        found.meet_all(found.prepare(rows, np.arange(500), 1))
    assert_same(one, other)


def test_only_few_pairs_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    queries, rows = (rng.standard_normal((m, 32)).astype(np.float32) for m in (100, 5000))
    looked_at: list[int] = []
    keep = gpu.keep_pairs

    def watched(values: np.ndarray, *rest: object) -> None:
        looked_at.append(len(values))
        keep(values, *rest)

    monkeypatch.setattr(gpu, "keep_pairs", watched)
    found = gpu.NearestOnDevice(queries, 10, "l2", device="cpu")
    pairs = Pairs(np.arange(100), np.array([0]), rng.integers(0, 2, (100, 1)), rng.integers(0, 2, (5000, 1)))
    found.meet_all(found.prepare(rows, np.arange(5000), 1), pairs)
    assert 1000 <= sum(looked_at) < 1010


def precision(backend: Any) -> str:
    return str(backend.fp32_precision)


@pytest.mark.parametrize("set_by", ["nobody", "high", "medium", "matmul", "all"])
def test_products_are_in_full_precision_and_the_process_stays_as_it_was(set_by: str) -> None:
    backends, matmul = torch.backends, torch.backends.cuda.matmul
    matmul.fp32_precision = "none"
    try:
        if set_by in {"high", "medium"}:
            torch.set_float32_matmul_precision(set_by)
        elif set_by != "nobody":
            (matmul if set_by == "matmul" else backends).fp32_precision = "tf32"
        before = precision(matmul), precision(backends)
        assert ("tf32" in before) == (set_by != "nobody")
        with gpu._full_precision():
            assert precision(matmul) != "tf32"
            assert not matmul.allow_tf32  # which raises where both ways are mixed
        assert (precision(matmul), precision(backends)) == before
        if set_by in {"high", "medium"}:
            assert torch.get_float32_matmul_precision() == set_by
    finally:
        backends.fp32_precision = "none"
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")


def test_autocast_does_not_reach_products() -> None:
    rng = np.random.default_rng(4)
    queries, rows = (rng.standard_normal((m, 32)).astype(np.float32) for m in (50, 500))
    one, other = both(queries, 10, "l2")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found in (one, other):
            found.meet_all(found.prepare(rows, np.arange(500), 1))
    assert_same(one, other)


def test_a_full_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu.NearestOnDevice(np.ones((1, 2), np.float32), 1, "l2", device="cpu")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "mm", full)
    with pytest.raises(JobError, match="LAKE_GPU=0"):
        found.meet_all(found.prepare(np.ones((1, 2), np.float32), np.zeros(1, np.int64), 1))


def test_how_precision_is_set_depends_on_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gpu.NearestOnDevice(np.ones((1, 2), np.float32), 1, "l2", device="cpu")
        found.meet_all(found.prepare(np.ones((1, 2), np.float32), np.zeros(1, np.int64), 1))
    assert found.device == "cpu"

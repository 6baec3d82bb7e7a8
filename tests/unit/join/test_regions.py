"""Regions against counting by hand: about the same work in each, every row sent once to a task, every list found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.join.regions import group, lists_of, pieces
from tests.bench.vectors import vectors


@pytest.mark.parametrize("regions", [2, 7, 16])
def test_regions_have_about_the_same_work(regions: int) -> None:
    centroids = vectors(512, seed=1)
    rng = np.random.default_rng(2)
    rows = rng.integers(1, 200, 512)
    routes = rng.integers(0, 512, (4000, 8)).astype(np.int32)
    found = group(centroids, rows, routes, regions)
    probers = np.array([(routes == partition).sum() for partition in range(512)])
    work = np.bincount(found, weights=rows * (probers + 1), minlength=regions)
    assert len(found) == 512
    assert set(found.tolist()) == set(range(regions))
    assert work.max() < 1.25 * work.mean()


def test_neighbours_share_a_region() -> None:
    centroids = vectors(256, seed=1)
    near = np.argsort(np.linalg.norm(centroids[:, None] - centroids[None], axis=2), axis=1)[:, 1:6]
    routes = near[:, :2].astype(np.int32)
    found = group(centroids, np.ones(256, np.int64), routes, 4)
    assert (found[near] == found[:, None]).mean() > 0.45, "a fourth by chance"


def test_partitions_without_rows_have_a_region_too() -> None:
    found = group(np.eye(4, dtype=np.float32), np.zeros(4, np.int64), np.zeros((3, 1), np.int32), 2)
    assert set(found.tolist()) <= {0, 1}


@given(
    sent=st.integers(1, 4).flatmap(
        lambda regions: st.lists(
            st.lists(st.integers(0, 9), min_size=regions, max_size=regions), min_size=1, max_size=5
        )
    ),
    most=st.integers(1, 12),
)
def test_every_row_is_in_one_piece_and_its_list_is_found(sent: list[list[int]], most: int) -> None:
    counts = np.array(sent, np.int64)
    files = [f"block {at}" for at in range(len(sent))]
    made = pieces(files, counts, most)
    assert [(piece.region, piece.number) for piece in made] == sorted((p.region, p.number) for p in made)
    told = []  # (region, block, place in the block's file)
    for piece in made:
        assert sum(some.count for some in piece.slices) <= most
        for some in piece.slices:
            assert some.file == files[some.block]
            told += [(piece.region, some.block, some.first + at) for at in range(some.count)]
    wanted = []
    for block, line in enumerate(sent):
        first = 0
        for region, count in enumerate(line):
            wanted += [(region, block, first + at) for at in range(count)]
            first += count
    assert sorted(told) == sorted(wanted)
    # Of each block as many lists as rows were sent, each piece's file cut without gaps.
    lists = lists_of(len(sent), made, [f"piece {at}" for at in range(len(made))])
    assert [sum(some.count for some in mine) for mine in lists] == [sum(line) for line in sent]
    for at, piece in enumerate(made):
        cut = sorted((s.first, s.count) for mine in lists for s in mine if s.file == f"piece {at}")
        assert [first for first, _ in cut] == np.cumsum([0, *(count for _, count in cut)])[:-1].tolist()
        assert sum(count for _, count in cut) == sum(some.count for some in piece.slices)

"""Routing against comparing with every centroid; what a sample says of recall, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lake.join.recall import Curve, Truth, learn
from lake.join.route import places, probers_of, route
from tests.bench.vectors import vectors


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("centroids", [30, 1200])
def test_the_nearest_partitions_come_first(metric: str, centroids: int) -> None:
    made = vectors(centroids + 100, seed=1)
    known, points = made[:centroids], made[centroids:]
    if metric == "dot":
        points *= 3
    routes = route(points, known, metric, 20)
    true = np.argsort(-(points.astype(np.float64) @ known.T), axis=1)[:, :20]  # of unit vectors, all rank alike
    assert (routes == true).mean() > 0.99
    told = np.take_along_axis(places(points, known, metric), routes, axis=1)
    assert (told == np.arange(1, 21)).mean() > 0.99


def test_recall_is_the_share_that_so_many_probes_find() -> None:
    curve = Curve(np.array([[1, 2, 5], [1, 1, 0], [0, 0, 0]], np.int32), 8)
    assert curve.at(1).measured == pytest.approx((1 / 3 + 1) / 2)
    assert curve.at(2).measured == pytest.approx((2 / 3 + 1) / 2)
    assert curve.at(5).measured == 1.0
    assert curve.at(5).low < 1.0, "a sample proves nothing for all rows"
    assert curve.reach(0.8).probes == 8, "so few rows prove nothing: all partitions"
    many = Curve(np.repeat(curve.probes, 30, axis=0), 8)
    assert (many.reach(0.8).probes, many.reach(0.9).probes) == (2, 5)


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_what_a_sample_chooses_is_enough_for_all_rows(target: float) -> None:
    rng = np.random.default_rng(7)
    hard = rng.lognormal(1.0, 1.0, (20_000, 1))
    probes = (1 + rng.exponential(hard, (20_000, 10))).astype(np.int32)  # some rows are harder than others
    fewest = next(count for count in range(1, 1000) if (probes <= count).mean() >= target)
    chosen = [Curve(probes[rng.choice(20_000, 256, replace=False)], 1000).reach(target).probes for _ in range(300)]
    assert np.mean([(probes <= count).mean() >= target for count in chosen]) > 0.75
    assert np.mean(chosen) < 1.3 * fewest


def test_the_truth_is_the_best_of_what_tasks_found() -> None:
    centroids = np.array([[0.0], [10.0], [20.0]], np.float32)
    queries = np.array([[1.0], [19.0]], np.float32)
    first = Truth((1.0, 4.0, 361.0, float("inf")), (0, 1, 0, 0))
    second = Truth((2.0, 3.0, 0.5, 1.0), (2, 2, 2, 1))
    curve = learn(queries, centroids, [first, second], 2, "l2")
    assert curve.probes.tolist() == [[1, 3], [1, 2]]


@pytest.mark.parametrize("partitions", [9, 40_000])
def test_routes_are_turned_around(partitions: int) -> None:
    rng = np.random.default_rng(4)
    routes = np.stack([rng.choice(partitions, 5, replace=False) for _ in range(300)]).astype(np.int32)
    queries = np.repeat(np.arange(300, dtype=np.int32), 5)
    probers, ends = probers_of(queries, routes.ravel(), partitions, 3)
    for partition in np.unique(routes):
        shares = [set(probers[ends[partition, hand] : ends[partition, hand + 1]].tolist()) for hand in range(3)]
        assert set().union(*shares) == set(np.flatnonzero((routes == partition).any(axis=1)).tolist())
        assert all(query % 3 == hand for hand, share in enumerate(shares) for query in share)
    assert ends[-1, -1] == routes.size

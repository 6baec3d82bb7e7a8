"""Threads that share a task's work: how many, in which order, and what becomes of the libraries' own threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lake.run.local import THREAD_VARIABLES
from lake.run.threads import MOST_HANDS, Hands, granted, limited


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("2,4", 2)])
def test_the_environment_tells_how_many(monkeypatch: pytest.MonkeyPatch, told: str, threads: int) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], told)
    assert granted() == threads


def test_otherwise_all_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREAD_VARIABLES[0], raising=False)
    assert granted() == len(os.sched_getaffinity(0))


def test_an_engine_grants_its_task_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "5")
    with limited(2):
        assert granted() == 2
    assert granted() == 5


def test_each_hand_is_a_thread_and_answers_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "4")
    together = threading.Barrier(4, timeout=60)
    with Hands() as hands:
        assert hands(lambda at: (together.wait(), at)[1]) == [0, 1, 2, 3]  # alone, one would wait for the others


def test_there_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "500")
    assert Hands().count == MOST_HANDS


def test_what_fails_in_a_hand_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "2")
    with pytest.raises(ZeroDivisionError), Hands() as hands:
        hands(lambda at: 1 // at)


def test_products_have_one_thread_while_hands_work() -> None:
    before = blas_threads()
    with Hands():
        assert blas_threads() == {1}
        with ThreadPoolExecutor(1) as another, Hands():  # of the same process, at the same time
            another.submit(Hands().__enter__).result().__exit__()
            assert blas_threads() == {1}
    assert blas_threads() == before
    with ThreadPoolExecutor(1) as another:
        second = another.submit(Hands().__enter__).result()
        assert blas_threads() == {1}
        another.submit(second.__exit__).result()
    assert blas_threads() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_each_hand_goes_through_all_items_in_their_order(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], str(threads))
    with Hands() as hands:
        done = hands.over(iter("abcdef"), lambda item, hand: (hand, item))
    assert [[item for hand, item in done if hand == mine] for mine in range(threads)] == [list("abcdef")] * threads


def test_no_hand_runs_far_ahead_of_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "2")
    seen, ahead, go = [0, 0], [], threading.Event()

    def work(item: int, hand: int) -> None:
        if hand == 0 and item == 0:
            assert go.wait(60)
        if hand == 1 and item == 1:
            go.set()  # the other one still has the first
        seen[hand] = item + 1
        ahead.append(abs(seen[0] - seen[1]))

    with Hands() as hands:
        hands.over(range(200), work)
    assert seen == [200, 200]
    assert max(ahead) <= 3


@pytest.mark.parametrize("where", ["hand", "items"])
def test_what_fails_on_the_way_through_stops_the_others(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv(THREAD_VARIABLES[0], "3")
    done = []

    def items() -> Iterator[int]:
        yield from range(5)
        if where == "items":
            raise ValueError("no more")
        yield from range(5, 10_000)

    def work(item: int, hand: int) -> None:
        if where == "hand" and (item, hand) == (5, 1):
            raise ValueError("no more")
        done.append((item, hand))

    with Hands() as hands, pytest.raises(ValueError, match="no more"):
        hands.over(items(), work)
    assert max(item for item, _ in done) <= 7

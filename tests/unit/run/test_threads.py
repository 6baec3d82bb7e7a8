"""Threads that share a task's work: how many, in which order, and what becomes of the libraries' own threads."""

from __future__ import annotations

import os
import threading
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

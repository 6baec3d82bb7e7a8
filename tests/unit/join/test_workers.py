"""Where a join's tasks run on this machine: in this process, or in one for every eight cores."""

from __future__ import annotations

import os

import pytest

from lake.join import workers as workers_of
from lake.join.workers import abreast, cores, workers
from lake.run import LocalExecutor
from tests.support.wide import Wide

MUCH, LITTLE = 1e15, 1e6


@pytest.mark.parametrize(
    ("cores", "flop", "hands", "processes"),
    [
        (2, MUCH, True, 1),
        (15, MUCH, True, 1),
        (20, MUCH, True, 2),
        (20, MUCH, False, 20),
        (20, LITTLE, True, 1),  # done before workers would have started
        (20, LITTLE, False, 1),
    ],
)
def test_as_many_processes_as_pay(
    monkeypatch: pytest.MonkeyPatch, cores: int, flop: float, hands: bool, processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(LocalExecutor, "start", lambda *_: None)
    with workers("local", flop, __name__, hands=hands) as chosen:
        assert isinstance(chosen, LocalExecutor)
        assert chosen.workers == processes
    assert abreast("local") == max(1, cores // 8)


@pytest.mark.parametrize(
    ("machine", "executor", "tasks", "busy"),
    [
        (2, "local", 1, 2),
        (64, "local", 8, 64),
        (64, LocalExecutor(1), 1, 8),  # as many threads as share one task
        (64, LocalExecutor(4), 9, 32),
        (4, LocalExecutor(4), 2, 2),
        (2, Wide(32), 100, 32),
        (2, Wide(32), 1, 8),
    ],
)
def test_so_many_cores_are_busy(
    monkeypatch: pytest.MonkeyPatch, machine: int, executor: str | LocalExecutor | Wide, tasks: int, busy: int
) -> None:
    monkeypatch.setattr(workers_of, "cpus", lambda: machine)
    assert cores(executor, tasks) == busy


def test_an_executor_that_is_given_is_taken() -> None:
    mine = LocalExecutor(3)
    with workers(mine, LITTLE, "json", hands=True) as chosen:
        assert chosen is mine
    assert abreast(mine) == 3
    mine.close()

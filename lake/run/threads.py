"""How many threads a task may use: its share of the machine, in numeric libraries and in its own work."""

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from threading import Condition, Lock
from typing import Any, Generic, Self, TypeVar

from lake.run.local import THREAD_VARIABLES, cpus

X = TypeVar("X")
Y = TypeVar("Y")

MOST_HANDS = 8  # more wait for the interpreter, and for the slowest of them
_held = Lock()
_granted: ContextVar[int | None] = ContextVar("granted", default=None)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let a task use so many threads within the block, in a worker that an engine keeps for tasks of all kinds.

    Matrix products heed it whenever they were loaded. A library that reads its number once, when it is loaded, gets
    one thread, since the process also serves stages in which each core has a task.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    before = _granted.set(threads)
    try:
        with _pools(len(sys.modules)).limit(limits=threads):
            yield
    finally:
        _granted.reset(before)


def granted() -> int:
    """Return how many threads the task at hand may use, as whoever started this process, or the task, has set it."""
    told = os.environ.get(THREAD_VARIABLES[0], "").partition(",")[0]
    return _granted.get() or (int(told) if told.isdigit() else 0) or cpus()


class Hands:
    """Threads that share the work of one task, while each multiplies matrices by itself.

    Small products gain little from a library's own threads, and what stands between products gains nothing.
    """

    def __init__(self) -> None:
        self.count = min(granted(), MOST_HANDS)
        self._pool = ThreadPoolExecutor(self.count)
        self._stack = ExitStack()

    def __call__(self, work: Callable[[int], X]) -> list[X]:
        """Call `work` with 0, 1, …, each in a thread; return what each returns."""
        return [work(0)] if self.count == 1 else list(self._pool.map(work, range(self.count)))

    def map(self, work: Callable[[Y], X], items: Iterable[Y]) -> Iterator[X]:
        """Call `work` with each item, in any of the threads; items are all taken as soon as they come."""
        return self._pool.map(work, items)

    def over(self, items: Iterable[X], work: Callable[[X, int], Y]) -> list[Y]:
        """Call `work` with each item and each of 0, 1, …: every thread goes through all items, in their order.

        Threads do not meet at each item; none begins one before all have begun the one before it. If one fails,
        the others end with the item that they have.
        """
        shared = _Shared(items, self.count)

        def through(thread: int) -> list[Y]:
            done = []
            try:
                for item in shared.seen_by(thread):
                    done.append(work(item, thread))
                    del item  # before waiting for the next one: items are large
            except BaseException:
                shared.stop()
                raise
            return done

        try:
            return [done for some in self(through) for done in some]
        except BaseException:  # of the caller's own thread too, as when a key is pressed
            shared.stop()
            raise

    def __enter__(self) -> Self:
        self._stack.enter_context(_one_each())
        self._stack.enter_context(self._pool)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Shared(Generic[X]):
    """Items that several threads see, each of them all."""

    def __init__(self, items: Iterable[X], threads: int) -> None:
        self._items = iter(items)
        self._held: deque[X] = deque()  # what not all have seen
        self._seen: list[float] = [0] * threads
        self._dropped = 0
        self._stopped = False
        self._change = Condition()

    def seen_by(self, thread: int) -> Iterator[X]:
        for at in count():
            with self._change:
                self._change.wait_for(lambda at=at: self._stopped or at - min(self._seen) <= 1)  # type: ignore[misc]
                if self._stopped:
                    return
                if at == self._dropped + len(self._held):
                    try:
                        self._held.append(next(self._items))
                    except StopIteration:
                        self._seen[thread] = math.inf
                        self._change.notify_all()
                        return
                item = self._held[at - self._dropped]
            yield item
            del item
            with self._change:
                self._seen[thread] = at + 1
                while self._held and self._dropped < min(self._seen):
                    self._held.popleft()
                    self._dropped += 1
                self._change.notify_all()

    def stop(self) -> None:
        """Give nobody another item."""
        with self._change:
            self._stopped = True
            self._change.notify_all()


@contextmanager
def _one_each() -> Iterator[None]:
    """Hold products to one thread. Only who comes first in a process can: the libraries know one number for all."""
    if not _held.acquire(blocking=False):
        yield
        return
    try:
        with _pools(len(sys.modules)).limit(limits=1, user_api="blas"):
            yield
    finally:
        _held.release()


@lru_cache(1)
def _pools(modules: int) -> Any:  # noqa: ARG001  only the key: to look for libraries takes as long as many a task
    from threadpoolctl import ThreadpoolController  # with the first task that needs it

    return ThreadpoolController()

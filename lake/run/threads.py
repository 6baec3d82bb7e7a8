"""How many threads numeric libraries use, in workers that an engine starts and keeps for tasks of all kinds."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from lake.run.local import THREAD_VARIABLES


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let the libraries use so many threads within the block.

    Matrix products heed it whenever they were loaded. A library that reads its number once, when it is loaded, gets
    one thread, since the process also serves stages in which each core has a task.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    with _pools(len(sys.modules)).limit(limits=threads):
        yield


@lru_cache(1)
def _pools(modules: int) -> Any:  # noqa: ARG001  only the key: to look for libraries takes as long as many a task
    from threadpoolctl import ThreadpoolController  # the engines' extras bring it

    return ThreadpoolController()

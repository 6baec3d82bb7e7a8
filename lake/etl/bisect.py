"""Finding the few rows that make an operation on many fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from lake.errors import InvalidInput

T = TypeVar("T")


def bad_rows(count: int, act: Callable[[int, int], T]) -> tuple[list[T], list[tuple[int, str]]]:
    """Act on all rows at once, or on halves, until only single rows fail.

    Most batches have no bad row and cost one call; each bad row costs about twice the logarithm of the batch's length.

    Parameters
    ----------
    count : int
        How many rows there are.
    act : callable
        Acts on the rows from its first argument up to, not including, its second.

    Returns
    -------
    tuple of list and list
        What `act` returned for the others, in order; the number of each bad row and why it is bad.
    """
    done: list[T] = []
    bad: list[tuple[int, str]] = []
    todo = [(0, count)] if count else []
    while todo:
        begin, end = todo.pop()
        try:
            done.append(act(begin, end))
        except (pa.ArrowException, InvalidInput) as error:
            if end - begin == 1:
                bad.append((begin, str(error)))
            else:
                middle = (begin + end) // 2
                todo += [(middle, end), (begin, middle)]
    return done, bad

"""Memory that is used again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.nearest.kernel import read_only
from lake.nearest.rooms import Rooms


@given(steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=60))
def test_what_is_held_is_not_written_over(steps: list[tuple[int, int]]) -> None:
    """Views of views are kept, arrays dropped, and each must hold the value that it alone was filled with."""
    rooms, held = Rooms(), []
    for value, (size, drop) in enumerate(steps):
        array = rooms.empty((size, 3), np.float32)
        assert (array.shape, array.dtype.name) == ((size, 3), "float32")
        assert array.flags.c_contiguous
        assert array.flags.aligned
        array[:] = value
        held.append((value, read_only(array)[: size // 2 + 1]))
        if drop < len(held):
            del held[drop]
        del array
        for known, view in held:
            assert (view == known).all()


@pytest.mark.parametrize("less", [0, 100])
def test_memory_that_nobody_holds_serves_again(less: int) -> None:
    rooms = Rooms()
    first = rooms.empty((1000, 16), np.uint32)
    place = first.ctypes.data
    view = read_only(first[10:])
    del first
    other = rooms.empty((1000, 16), np.uint32)
    assert other.ctypes.data != place, "a view holds it"
    dropping = threading.Thread(target=lambda kept: None, args=(view,))
    dropping.start()
    dropping.join()
    del view, dropping
    assert rooms.empty((1000 - less, 16), np.uint32).ctypes.data == place


def test_what_is_too_small_is_not_kept_for_ever() -> None:
    rooms = Rooms()
    for size in range(100, 2000, 100):
        rooms.empty((size,), np.float32)
    assert len(rooms._free) == 1

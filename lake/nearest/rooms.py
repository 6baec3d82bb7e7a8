"""Memory that is used again.

What the system gives anew it fills with zeros first, which takes as long as to read a file into it.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

_SPARE = 8  # a part, so that the next array, of about the same size, fits too


class Rooms:
    """Makes arrays whose memory serves others once nobody holds them, nor any view of them.

    One thread at a time may ask for arrays; they may be dropped in any.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> NDArray[Any]:
        """Make an array of a shape and a type that holds anything."""
        size = prod(shape) * np.dtype(dtype).itemsize
        lent = np.asarray(_Lent(self._room(size), self._free))
        return lent[:size].view(dtype).reshape(shape)

    def _room(self, size: int) -> NDArray[np.uint8]:
        for at in reversed(range(len(self._free))):  # the last is likely to be in the cache still
            if self._free[at].nbytes >= size:
                return self._free.pop(at)
        del self._free[:1]  # what is too small now is hardly used again
        return np.empty(size + size // _SPARE, np.uint8)


class _Lent:
    """What all views of an array hold, through any number of views: a view of an array holds only the first one."""

    def __init__(self, room: NDArray[np.uint8], free: list[NDArray[np.uint8]]) -> None:
        self.__array_interface__ = room.__array_interface__
        self._room, self._free = room, free

    def __del__(self) -> None:
        self._free.append(self._room)

"""Objects that planners pass on unopened: Spark plans each query in a fresh process, and imports cost a second."""

from __future__ import annotations

import pickle
from typing import Generic, TypeVar

T = TypeVar("T")


class Sealed(Generic[T]):
    """A picklable object that is unpickled, with all that it imports, only where it is opened. It prints nothing."""

    def __init__(self, content: T) -> None:
        self._bytes = pickle.dumps(content)

    def open(self) -> T:
        """Return the object."""
        content: T = pickle.loads(self._bytes)  # noqa: S301  from a driver of ours to its own tasks
        return content

    def __repr__(self) -> str:
        return "Sealed()"

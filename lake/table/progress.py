"""How far a write is: rows and bytes taken from its input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called with the rows and bytes taken from the input so far."""

_PATIENCE = 1.0  # seconds: a shorter write shows nothing


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress | None]:
    """Give the caller's own callback, or, where a person looks on, one that draws a line on stderr."""
    if progress is not None or not _watched():
        yield progress
        return
    from rich.console import Console  # only who is watched pays for it
    from rich.status import Status

    status = Status("writing", console=Console(stderr=True))
    started = time.monotonic()
    drawn = False

    def draw(rows: int, size: int) -> None:
        nonlocal drawn
        seconds = time.monotonic() - started
        if seconds > _PATIENCE:
            status.update(f"writing: {rows:,} rows, {size / 2**20:,.0f} MiB, {rows / seconds:,.0f} rows/s")
            if not drawn:
                drawn = True
                status.start()

    try:
        yield draw
    finally:
        status.stop()


def _watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules

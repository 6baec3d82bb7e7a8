"""What Ray workers of the tests run: tasks and writers that die after they have done their work, once."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lance.dataset import Index

from lake.index.tasks import BuildSegment
from lake.storage import Location
from lake.table.parts import Part
from lake_ray.write import _LakeDatasink


def mark_of(table: Location) -> Path:
    """The file that says that a process died for a table: all processes of this machine see it."""
    return Path(tempfile.gettempdir(), hashlib.sha256(table.uri.encode()).hexdigest() + ".died")


def die_once(table: Location) -> None:
    """Kill this process, unless another did so before."""
    try:
        mark_of(table).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class DyingSegment(BuildSegment):
    """Builds its segment, and dies before it can say so."""

    def run(self) -> Index:
        made = super().run()
        die_once(self.snapshot.location)
        return made


class DyingSink(_LakeDatasink):
    """Writes its files and notes them, and dies before it can say so."""

    def write(self, blocks: Iterable[object], _: object) -> Part:
        part = super().write(blocks, _)
        die_once(self._journal.write.location)
        return part

"""What a join gives back: its rows, as a lake table, and its report."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from lake.errors import LakeError
from lake.join.report import JoinReport
from lake.storage import Location
from lake.table.snapshot import Snapshot, drop

if TYPE_CHECKING:
    import pandas as pd


class JoinResult:
    """The rows of a join: for each row of the left side its nearest, the nearest first.

    Parameters
    ----------
    snapshot : Snapshot
        The table that holds them.
    report : JoinReport
    scratch : Location or None
        The table, if it goes with this object.
    keeper : ExitStack or None
        What else does.

    Attributes
    ----------
    report : JoinReport
        What was done: recall measured, partitions, pairs compared, seconds by stage.
    """

    def __init__(
        self, snapshot: Snapshot, report: JoinReport, scratch: Location | None, keeper: ExitStack | None = None
    ) -> None:
        self._snapshot = snapshot
        self.report = report
        self._end = weakref.finalize(self, _end, scratch, keeper)

    def snapshot(self) -> Snapshot:
        """Return the rows as a snapshot: it can be a side of another join, while this object is there."""
        return self._snapshot

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        yield from self._snapshot.dataset.to_batches()

    def to_arrow(self) -> pa.Table:
        """Return all rows."""
        return self._snapshot.dataset.to_table()

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas frame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def close(self) -> None:
        """Remove the rows of a join that was not written into a table."""
        self._end()

    def __len__(self) -> int:
        return self.report.pairs or int(self._snapshot.dataset.count_rows())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<JoinResult {self.report}>"


def _end(scratch: Location | None, keeper: ExitStack | None) -> None:
    with suppress(LakeError):  # at the end of a program nothing can be done about it
        if scratch is not None:
            drop(scratch)
        if keeper is not None:
            keeper.close()

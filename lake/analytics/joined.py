"""A join whose rows stay in a job's folder, and the neighbour lists that are read out of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.join import knn
from lake.join.conditions import Condition
from lake.join.plan import Plan
from lake.join.side import ROW_ID, Side, named
from lake.run import Callback, Executor
from lake.storage import Files, Location
from lake.table.snapshot import open_head

Ids = NDArray[np.int64]

LEFT, RIGHT = named("left_", ROW_ID), named("right_", ROW_ID)
PAIRS = "pairs.lance"
_TOLD = "told.json"
_BATCH = 1 << 16


@dataclass(frozen=True)
class ByRow(Side):
    """A side whose rows go by Lance's row id: a key may stand in a table twice."""

    @property
    def key(self) -> tuple[str, ...]:
        """Lance's row id."""
        return (ROW_ID,)


@dataclass(frozen=True)
class Told:
    """What a join told.

    Parameters
    ----------
    rows, without_vector : int
        Rows of the left side, and those among them that have none.
    recall : mapping or None
        ``None`` if it was exact.
    source : str
        Where its partitions came from.
    """

    rows: int
    without_vector: int
    recall: dict[str, Any] | None = field(hash=False)
    source: str


def join(
    plan: Plan,
    conditions: tuple[Condition, ...],
    folder: Location,
    *,
    apart: bool,
    job: str,
    executor: str | Executor,
    on_event: Callback | None,
) -> Told:
    """Join into a table of the folder, unless that was done; return what the join told."""
    files = Files(folder)
    if files.exists(_TOLD):
        return Told(**json.loads(files.read(_TOLD)))
    names = sorted(files.names())
    if any(name.startswith(f"{PAIRS}/_versions/") for name in names):  # done, and what it told was lost
        for name in names:  # in this order: receipts go before the files that they name
            if name.startswith(("join/", f"{PAIRS}/")):
                files.delete(name)
    report = knn.join(
        plan,
        conditions,
        knn.target(plan, folder.join(PAIRS), job),
        apart=apart,
        job=job,
        folder=folder.join("join"),
        executor=executor,
        on_event=on_event,
    )
    recall = None if report.recall is None else asdict(report.recall)
    told = Told(report.left_rows, report.without_vector, recall, report.source)
    files.write(_TOLD, json.dumps(asdict(told)).encode())
    return told


@dataclass(frozen=True)
class Lists:
    """Neighbour lists, each whole and the nearest first.

    Parameters
    ----------
    pairs : Table
        One row for each neighbour.
    starts, sizes : int64, shape (n,)
        Where each list begins, and how many it holds, at least one.
    """

    pairs: pa.Table
    starts: Ids = field(hash=False)
    sizes: Ids = field(hash=False)

    @classmethod
    def of(cls, pairs: pa.Table) -> Lists:
        """Find where lists begin: neighbours of one row stand together."""
        starts = np.flatnonzero(np.diff(pairs[LEFT].to_numpy(), prepend=-1))
        return cls(pairs, starts, np.diff(np.append(starts, pairs.num_rows)))

    @property
    def left(self) -> Ids:
        """The row id that each list is of."""
        ids: Ids = self.pairs[LEFT].to_numpy()[self.starts]
        return ids

    @property
    def right(self) -> Ids:
        """The row id of each neighbour."""
        ids: Ids = self.pairs[RIGHT].to_numpy()
        return ids

    @property
    def distances(self) -> NDArray[np.float32]:
        """The distance of each neighbour."""
        found: NDArray[np.float32] = self.pairs["distance"].to_numpy()
        return found

    @property
    def lists(self) -> Ids:
        """The number of the list that each neighbour stands in."""
        return np.repeat(np.arange(len(self.starts)), self.sizes)


def read(folder: Location, columns: Sequence[str] = ()) -> Iterator[Lists]:
    """Yield the lists that a join has left in a folder, some at a time.

    Parameters
    ----------
    columns : sequence of str
        What the pairs have besides both row ids and the distance.
    """
    wanted = [LEFT, RIGHT, "distance", *columns]
    rest: list[pa.Table] = []
    for batch in open_head(folder.join(PAIRS)).to_batches(columns=wanted, batch_size=_BATCH):
        pairs = pa.concat_tables([*rest, pa.Table.from_batches([batch])]).combine_chunks()
        left = pairs[LEFT].to_numpy()
        last = int(np.flatnonzero(np.diff(left, prepend=-1)).max(initial=0))  # its end may be in the next batch
        if last:
            yield Lists.of(pairs.slice(0, last))
        rest = [pairs.slice(last)]
    if rest and rest[0].num_rows:
        yield Lists.of(rest[0])

"""k-means by rounds: what each has found is kept, so that a job that was interrupted goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lake.analytics.assigned import Told
from lake.analytics.balance import BalanceBlock, Moved
from lake.analytics.centers import Centers, Totals
from lake.analytics.lloyd import AssignBlock, Assigned
from lake.analytics.quotas import priced, quotas
from lake.analytics.stages import load
from lake.analytics.start import first
from lake.index.kmeans import Floats
from lake.join.side import Side, spans
from lake.run import Callback, Executor, Ledger, Stage, run_stage
from lake.storage import Files, Location

_FEWEST, _MOST, _TASKS = 8192, 1 << 18, 16
_SETTLED = 0.001
_FITTING = 0.01  # of the rows may be over the bound when the rounds end; they are moved


@dataclass(frozen=True)
class Rounds:
    """A k-means at work.

    Parameters
    ----------
    side : Side
    fragments : mapping
        Rows that pass the filter, by fragment.
    metric : str
    clusters, most : int
        How many clusters, and how many rounds at most.
    ratio : float or None
        How large a cluster may be, as a multiple of the mean.
    seed : int
    job : str
    folder : Location
    memory : int
        Bytes that a task needs.
    """

    side: Side
    fragments: Mapping[int, int] = field(hash=False)
    metric: str
    clusters: int
    most: int
    ratio: float | None
    seed: int
    job: str
    folder: Location
    memory: int

    def start(self, sample: Floats) -> None:
        """Keep centroids of a sample, in random order."""
        first(sample, self.clusters, self.metric, self.seed).write(self.folder, _centers(0))

    @property
    def started(self) -> bool:
        """Whether there are centroids."""
        return Files(self.folder).exists(_centers(0))

    def run(self, executor: Executor, on_event: Callback) -> tuple[list[Told], list[Moved] | None]:
        """Do what is left to do; return all rounds, and what was moved where sizes are bounded."""
        told: list[Told] = []
        while not told or not told[-1].last:
            told.append(self._round(len(told), told, executor, on_event))
        if self.ratio is None:
            return told, None
        return told, self._balance(told[-1], len(told) - 1, executor, on_event)

    def capacity(self, rows: int) -> int | None:
        """Return how many rows a cluster may hold."""
        return None if self.ratio is None else max(1, int(np.ceil(self.ratio * rows / self.clusters)))

    def _round(self, number: int, before: Sequence[Told], executor: Executor, on_event: Callback) -> Told:
        files, name = Files(self.folder), f"told-{number:03d}.json"
        if files.exists(name):
            known = json.loads(files.read(name))
            return Told(**known | {"blocks": tuple(Assigned(**b) for b in known["blocks"])})
        names = [b.labels for b in before[-1].blocks] if before else None
        tasks = self._tasks(number, names)
        blocks = self._stage(f"round-{number:03d}", tasks, Assigned, executor, on_event)
        centers = Centers.read(self.folder, _centers(number), self.metric)
        totals = Totals.none(centers)
        for block in blocks:  # in the order of the rows
            totals.include(Totals(**load(self.folder, block.totals)))
        rows, changed = int(totals.counts.sum()), sum(block.changed for block in blocks)
        capacity = self.capacity(rows)
        over = 0 if capacity is None else int(np.maximum(totals.counts - capacity, 0).sum())
        settled = bool(before) and changed <= _SETTLED * rows and over <= _FITTING * rows
        told = Told(
            tuple(blocks),
            rows,
            changed,
            int(totals.counts.max()),
            over,
            float(totals.spread.sum()),
            settled or number + 1 == self.most,
            settled,
        )
        if not told.last:
            moved = totals.moved(centers, self.seed + number)
            moved = moved if capacity is None else priced(moved, totals, capacity)
            moved.write(self.folder, _centers(number + 1))
        files.write(name, json.dumps(asdict(told)).encode())
        for old in before[-1].blocks if before else ():
            files.delete(old.totals)
            files.delete(old.labels)
        return told

    def _tasks(self, number: int, before: list[str] | None) -> list[AssignBlock]:
        rows = sum(self.fragments.values())
        size = min(_MOST, max(_FEWEST, -(-rows // _TASKS)))  # whoever runs them: sums depend on it
        blocks = spans(dict(self.fragments), size)
        return [
            AssignBlock(
                self.side, block, at, self.metric, self.folder, _centers(number), None if before is None else before[at]
            )
            for at, block in enumerate(blocks)
        ]

    def _balance(self, last: Told, number: int, executor: Executor, on_event: Callback) -> list[Moved]:
        capacity = self.capacity(last.rows)
        assert capacity is not None  # noqa: S101  there is a ratio
        counts = np.stack([load(self.folder, block.totals)["counts"] for block in last.blocks])
        kept, taken = quotas(counts, capacity)
        tasks = [
            BalanceBlock(task, block, tuple(map(int, kept[at])), tuple(map(int, taken[at])))
            for at, (task, block) in enumerate(zip(self._tasks(number, None), last.blocks, strict=True))
        ]
        return self._stage("balance", tasks, Moved, executor, on_event)

    def _stage(
        self, name: str, tasks: Sequence[Any], kind: Callable[..., Any], executor: Executor, on_event: Callback
    ) -> list[Any]:
        ledger = Ledger(Files(self.folder.join("ledger")), self.job, vars, lambda kept: kind(**kept))
        done = run_stage(executor, Stage(name, tasks, self.memory), ledger, on_event)
        return [result.value for result in sorted(done, key=lambda result: result.key)]


def _centers(number: int) -> str:
    return f"centers-{number:03d}.npz"

"""A join at work: what it was asked, where it leaves what, its ledger, and how its tasks are run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lake.join.conditions import Condition
from lake.join.plan import Plan
from lake.run import Callback, Executor, Ledger, Stage, TaskResult, run_stage
from lake.storage import Files, Location
from lake.table.parts import PartedWrite


@dataclass(frozen=True)
class Work:
    """A join at work.

    Parameters
    ----------
    plan : Plan
    conditions : tuple of Condition
    apart : bool
        No row meets itself.
    job : str
    folder : Location
        What tasks leave for each other, and the ledger.
    target : PartedWrite
        The result.
    executor : str or Executor
    on_event : Callback
    """

    plan: Plan
    conditions: tuple[Condition, ...]
    apart: bool
    job: str
    folder: Location
    target: PartedWrite
    executor: str | Executor
    on_event: Callback

    def ledger(self, encode: Callable[[Any], Any] = str, decode: Callable[[Any], Any] = str) -> Ledger[Any]:
        """Open the ledger; it is bound to all that decides the result."""
        plan = self.plan
        sides = [
            (
                s.snapshot.location.uri,
                s.snapshot.branch,
                s.snapshot.version,
                str(s.snapshot.time),
                s.column,
                s.where,
                s.carry,
            )
            for s in (plan.left, plan.right)
        ]
        asked = (
            plan.k,
            plan.metric,
            plan.within,
            plan.recall,
            plan.probes,
            plan.source.why,
        )
        into = self.target.location.uri, self.target.schema.names  # files of a part hold the columns in this order
        text = json.dumps([sides, asked, [vars(c) for c in self.conditions], self.apart, into])
        return Ledger(Files(self.folder), self.job, encode, decode, hashlib.sha256(text.encode()).hexdigest())

    def keep(self, name: str, **numbers: int) -> dict[str, int]:
        """Keep how the job is cut into tasks; one that goes on does so as it began, whatever it is given now."""
        files = Files(self.folder)
        if not files.exists(name):
            files.write(name, json.dumps(numbers).encode())
        kept: dict[str, int] = json.loads(files.read(name))
        return kept

    def stage(self, executor: Executor, name: str, tasks: Sequence[Any], ledger: Ledger[Any]) -> list[TaskResult[Any]]:
        """Run tasks that are not done yet; return all results, sorted by key, whoever was done first."""
        if not tasks:
            return []
        done = run_stage(executor, Stage(name, tasks, self.plan.memory), ledger, self.on_event)
        return sorted(done, key=lambda result: result.key)

"""Running a join: centroids, sorted rows, a sample for the recall, blocks or regions, one commit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from lance.fragment import FragmentMetadata

from lake.index.model import read_model
from lake.index.spec import IndexSpec
from lake.index.train import train
from lake.join.conditions import Condition, Conditions, number
from lake.join.plan import Plan, segment_file
from lake.join.recall import SAMPLE, Compare, Recall, Truth, learn, sampled
from lake.join.regions import Slice, group, lists_of, pieces
from lake.join.report import JoinReport
from lake.join.route import route
from lake.join.runs import Partitions, Run, save
from lake.join.shuffle import JoinPiece, MergeBlock, SendBlock
from lake.join.side import Side, row_ids, spans
from lake.join.sort import Centroids, SortRows
from lake.join.tasks import Done, JoinBlock
from lake.join.workers import workers as workers_of
from lake.nearest.kernel import Ids
from lake.run import Callback, Executor, JobCommitted, Ledger, Stage, TaskResult, run_stage
from lake.storage import Files, Location
from lake.table import pins
from lake.table.parts import Part, PartedWrite

_TRAINING_FLOP = 150e9  # a fraction of what an index is given: it is used once
_SEED = 20
_ROUTED = 2048  # rows of the left side by which regions get about as much to do


@dataclass
class Job:
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

    def run(self) -> JoinReport:
        """Do what is left to do, and commit."""
        started = time.perf_counter()
        plan = self.plan
        seconds: dict[str, float] = {}
        with ExitStack() as stack:
            self.ledger()  # refuses a job of the same id that does something else
            for which, side in {
                plan.left.snapshot: ("left", plan.left),
                plan.right.snapshot: ("right", plan.right),
            }.values():
                stack.enter_context(pins.pin(side.snapshot, job=f"{self.job}-{which}"))
            workers = stack.enter_context(workers_of(self.executor, plan.flop, JoinBlock.__module__, hands=True))
            conditions = number(plan.left, plan.right, self.conditions, self.folder, apart=self.apart)
            centroids: Centroids | None = None
            runs: tuple[Run, ...] = ()
            recall, probes = None, 0
            if plan.source.how != "all":
                with lap(seconds, "partitions"):
                    centroids = self._centroids()
                    runs = self._runs(centroids, workers)
                if plan.probes is None:
                    with lap(seconds, "sample"):
                        recall = self._recall(centroids, runs, conditions, workers)
                        probes = recall.probes
                else:
                    probes = min(plan.probes, plan.source.partitions)
            with lap(seconds, "join"):
                others: list[TaskResult[Done]] = []
                if plan.regions == 1 or centroids is None:
                    joined = self._blocks(centroids, runs, conditions, probes, workers)
                else:
                    joined, others = self._regions(centroids, runs, conditions, probes, workers)
            receipts = [result.value for result in (*joined, *others)]
            if recall is None and centroids is not None:
                measured = np.array(sorted(pair for r in receipts for pair in r.measured), np.int64).reshape(-1, 2)
                recall = Recall.of(None, probes, measured[:, 0], measured[:, 1])
            receipt = self.target.commit([r.part for r in receipts if r.part is not None])
            self.on_event(JobCommitted(self.job, receipt.version))
        self.ledger().clear()
        for r in receipts:
            for name, spent in r.seconds.items():
                seconds[f"tasks: {name}"] = seconds.get(f"tasks: {name}", 0.0) + spent
        seconds["total"] = time.perf_counter() - started
        left, right = plan.rows
        return JoinReport(
            self.job,
            self.target.location.uri,
            receipt.version,
            left,
            right,
            sum(r.without for r in receipts),
            sum(r.part.rows for r in receipts if r.part is not None),
            sum(r.compared for r in receipts),
            recall,
            plan.source.partitions,
            probes,
            plan.source.why,
            len(joined),
            sum(result.attempts == 0 for result in joined),
            2.0 * plan.left.dimension * sum(r.compared for r in receipts),
            seconds,
            device=", ".join(sorted({r.device for r in receipts} - {""})) or "cpu",
            regions=plan.regions,
            met=sum(r.rows[0] for r in receipts if r.device and r.rows) / max(1, left) if plan.regions > 1 else 1.0,
        )

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
            plan.block_rows,
            plan.sort_rows,
            plan.regions,
            plan.most_rows,
            plan.source.why,
        )
        text = json.dumps([sides, asked, [vars(c) for c in self.conditions], self.apart, self.target.location.uri])
        return Ledger(Files(self.folder), self.job, encode, decode, hashlib.sha256(text.encode()).hexdigest())

    def _centroids(self) -> Centroids:
        """Take the centroids of the index, or train some; a job that goes on keeps those that it has."""
        kept = Centroids(self.folder, "centroids.npy")
        if Files(self.folder).exists(kept.name):
            return kept
        plan, index = self.plan, self.plan.source.index
        if index is not None:
            found = read_model(plan.right.snapshot, index.name).centroids
        else:
            spec = IndexSpec(
                "join", plan.right.column, "IVF_FLAT", plan.metric, {"partitions": plan.source.partitions}, "", 0
            )
            found = train(plan.right.snapshot.dataset, spec, flop=_TRAINING_FLOP).centroids
        save(self.folder, kept.name, found.astype(np.float32))
        return kept

    def _runs(self, centroids: Centroids, workers: Executor) -> tuple[Run, ...]:
        """Find the segments of the index, and sort what it does not cover."""
        plan, right = self.plan, self.plan.right
        runs: list[Run] = []
        if plan.source.how == "index" and plan.source.index is not None:
            # Whatever became of its rows since: what is alive where it indexed them, and passes the filter.
            runs += [
                Run(segment_file(right, segment.id), "flat", self._live(segment.fragments, segment.id))
                for segment in plan.source.index.segments
            ]
        blocks = spans(dict(plan.source.loose), plan.sort_rows) if plan.source.loose else []
        tasks = [SortRows(right, block, plan.metric, centroids, at) for at, block in enumerate(blocks)]
        found = self._stage(workers, "sort", tasks, self.ledger())
        return (*runs, *(Run(self.folder.join(r.value), "vector") for r in found))

    def _live(self, fragments: frozenset[int], segment: str) -> str:
        """Note which rows of a segment are to be found: alive, where it indexed them, and passing the filter."""
        right = self.plan.right
        ids: list[Ids] = [np.empty(0, np.int64)]
        for fragment, rows in self.plan.right_rows.items():
            if fragment in fragments:
                ids += [
                    b.column("_rowid").to_numpy().astype(np.int64) for b in right.read((fragment, 0, rows), [], 1 << 16)
                ]
        name = f"live-{segment}.npy"
        save(self.folder, name, np.sort(np.concatenate(ids)))
        return name

    def _recall(self, centroids: Centroids, runs: tuple[Run, ...], conditions: Conditions, workers: Executor) -> Recall:
        """Learn from a sample how many partitions to probe."""
        plan = self.plan
        ids = tuple(map(int, sample(plan.left, dict(plan.left_rows))))
        cuts = np.linspace(0, plan.source.partitions, plan.workers + 1).astype(int).tolist()
        tasks = [
            Compare(plan.left, ids, first, last, plan.k, plan.metric, plan.within, centroids, runs, conditions)
            for first, last in pairwise(cuts)
            if last > first
        ]
        ledger = self.ledger(vars, lambda kept: Truth(tuple(kept["distances"]), tuple(kept["partitions"])))
        found = self._stage(workers, "sample", tasks, ledger)
        queries, _ = sampled(plan.left, ids, plan.metric)
        assert plan.recall is not None  # noqa: S101  no number of probes was given
        truths = [result.value for result in found]
        return learn(queries, centroids.read(), truths, plan.k, plan.metric).reach(plan.recall)

    def _blocks(
        self, centroids: Centroids | None, runs: tuple[Run, ...], conditions: Conditions, probes: int, workers: Executor
    ) -> list[TaskResult[Done]]:
        """Let each task read what its block of the left side needs."""
        plan = self.plan
        sample = self._sample() if centroids is not None else ()
        tasks = [
            JoinBlock(
                plan.left,
                plan.right,
                block,
                at,
                plan.k,
                plan.metric,
                plan.within,
                probes,
                centroids,
                runs,
                conditions,
                self.target,
                sample,
            )
            for at, block in enumerate(spans(dict(plan.left_rows), plan.block_rows))
        ]
        return self._stage(workers, "join", tasks, self.ledger(encode, decode))

    def _regions(
        self, centroids: Centroids, runs: tuple[Run, ...], conditions: Conditions, probes: int, workers: Executor
    ) -> tuple[list[TaskResult[Done]], list[TaskResult[Done]]]:
        """Send rows to regions, join there, merge; return what the tasks that compared have done, and the others."""
        plan, ledger = self.plan, self.ledger(encode, decode)
        regions = self._grouped(centroids, runs, probes)
        blocks = spans(dict(plan.left_rows), plan.block_rows)
        asked = (plan.metric, probes, centroids, regions, plan.regions)
        sent = self._stage(
            workers, "send", [SendBlock(plan.left, block, at, *asked) for at, block in enumerate(blocks)], ledger
        )
        counts = np.array([result.value.rows for result in sent], np.int64)
        sample = self._sample()
        made = [
            piece
            for piece in pieces([result.value.file for result in sent], counts, plan.most_rows)
            if piece.slices or (sample and not piece.number)
        ]
        tasks = [
            JoinPiece(
                plan.left,
                piece,
                plan.k,
                plan.metric,
                plan.within,
                probes,
                centroids,
                regions,
                runs,
                conditions,
                sample if piece.number == 0 else (),
            )
            for piece in made
        ]
        joined = self._stage(workers, "join", tasks, ledger)
        lists = lists_of(len(blocks), made, [result.value.file for result in joined])
        truths = tuple(Slice(-1, result.value.file, *result.value.rows) for result in joined if result.value.rows[1])
        merges = [
            MergeBlock(plan.left, plan.right, block, at, plan.k, self.folder, lists[at], sample, truths, self.target)
            for at, block in enumerate(blocks)
        ]
        return joined, [*sent, *self._stage(workers, "merge", merges, ledger)]

    def _grouped(self, centroids: Centroids, runs: tuple[Run, ...], probes: int) -> str:
        """Group partitions into regions; a job that goes on keeps those that it has."""
        name, plan = "regions.npy", self.plan
        if not Files(self.folder).exists(name):
            asked, _ = sampled(plan.left, sample(plan.left, dict(plan.left_rows), _ROUTED).tolist(), plan.metric)
            known = centroids.read()
            rows = Partitions(runs, self.folder, normalise=False).rows
            save(self.folder, name, group(known, rows, route(asked, known, plan.metric, probes), plan.regions))
        return name

    def _sample(self) -> tuple[int, ...]:
        """With a number of probes given, what it is worth is measured by a sample, while the partitions pass by."""
        plan = self.plan
        return tuple(map(int, sample(plan.left, dict(plan.left_rows)))) if plan.probes is not None else ()

    def _stage(self, executor: Executor, name: str, tasks: Sequence[Any], ledger: Ledger[Any]) -> list[TaskResult[Any]]:
        if not tasks:
            return []
        done = run_stage(executor, Stage(name, tasks, self.plan.memory), ledger, self.on_event)
        return sorted(done, key=lambda result: result.key)  # the same order, whoever was done first


def sample(side: Side, rows: dict[int, int], size: int = SAMPLE) -> Ids:
    """Draw row ids of a side, the same each time."""
    total = sum(rows.values())
    chosen = np.random.default_rng(_SEED).choice(total, min(total, size), replace=False)
    return row_ids(side, rows, np.sort(chosen))


def encode(done: Done) -> dict[str, Any]:
    """Turn a receipt into what JSON holds."""
    part = done.part and {"fragments": [f.to_json() for f in done.part.fragments], "rows": done.part.rows}
    return vars(done) | {"part": part}


def decode(data: dict[str, Any]) -> Done:
    """Turn what `encode` made back into a receipt."""
    part = data["part"]
    if part is not None:
        part = Part(tuple(FragmentMetadata.from_json(json.dumps(f)) for f in part["fragments"]), part["rows"])
    return Done(**(data | {"part": part, "rows": tuple(data["rows"])}))


@contextmanager
def lap(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Time a stage."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started

"""Every pair of writes, the second committed between the first's plan and its commit, must be serialisable.

The outcome has to be that of the two one after the other, in either order; or the first says `Conflict`
and changed nothing. This forces what chance would need thousands of runs to meet.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lance
import pytest

from lake.errors import Conflict
from lake.storage import Location
from lake.table import columns, commit, compact, history, merge, rows, write
from lake.table.spool import Spool
from lake.table.sql import Sql
from tests.support.tables import SCHEMA, content, make, pairs
from tests.support.writer import VERBS, Op, Verb

Act = Callable[[Location, int], object]
Rows = list[tuple[int, int]]

ACTS: dict[str, Act] = {
    "append": lambda t, n: write.append(t, None, pairs([100 + n], n)),
    "append by a job": lambda t, n: write.append(t, None, pairs([100 + n], n), commit_id=f"job-{n}"),
    "merge old keys": lambda t, n: merge.merge(t, None, pairs([1, 2], n)),
    "merge a new key": lambda t, n: merge.merge(t, None, pairs([50], n)),
    "merge both": lambda t, n: merge.merge(t, None, pairs([15, 50], n)),
    "merge, insert only": lambda t, n: merge.merge(t, None, pairs([50, 1], n), mode="insert"),
    "merge, update only": lambda t, n: merge.merge(t, None, pairs([1, 51], n), mode="update"),
    "update": lambda t, n: rows.update(t, None, {"n": n}, "id in (1, 15)"),
    "update all": lambda t, n: rows.update(t, None, {"n": Sql("n + 1000")}),
    "delete": lambda t, n: rows.delete(t, None, "id in (2, 15)"),
    "delete a fragment": lambda t, n: rows.delete(t, None, "id >= 10 and id < 20"),
    "delete all": lambda t, n: rows.delete(t, None, "id >= 0"),
    "overwrite": lambda t, n: write.overwrite(t, None, pairs([7, 50], n)),
    "restore": lambda t, n: history.restore(t, None, history.resolve(t, None, 1)),
    "compact": lambda t, n: compact.compact(t),
    "rename": lambda t, n: columns.rename_columns(t, None, {"n": "m"}) and columns.rename_columns(t, None, {"m": "n"}),
}
FIRST = [name for name in ACTS if name not in ("compact", "rename")]  # those that commit by `commit`


STARTS: dict[str, Callable[[Location], object]] = {
    "rows": make,
    "no rows": lambda root: write.create_table(root.join("t.lance"), SCHEMA),
}


@dataclass
class Arena:
    """Copies of one table to try things on."""

    folder: Path
    start: str
    copies: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        STARTS[self.start](Location.of(self.folder))

    def table(self) -> Location:
        copy = self.folder / f"{next(self.copies)}.lance"
        shutil.copytree(self.folder / "t.lance", copy)
        return Location.of(copy)

    def one_after_the_other(self, *acts: tuple[str, int]) -> Rows:
        table = self.table()
        for name, n in acts:
            ACTS[name](table, n)
        return content(table)

    def preempted(self, first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Rows, bool]:
        """Commit the second between the first's plan and its commit; tell whether the first took effect."""
        table, put, pending = self.table(), commit._Writer.put, [second]

        def late(
            self: commit._Writer, head: lance.LanceDataset, operation: lance.LanceOperation.BaseOperation
        ) -> commit.Commit:
            if pending:
                ACTS[pending.pop()](table, 2)
            return put(self, head, operation)

        done = True
        with monkeypatch.context() as patch:
            patch.setattr(commit._Writer, "put", late)
            try:
                ACTS[first](table, 1)
            except Conflict:
                done = False
        if pending:  # the first found nothing to do and never came to its commit
            ACTS[second](table, 2)
        return content(table), done

    def serialisable(self, first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> bool:
        outcome, done = self.preempted(first, second, monkeypatch)
        if not done:
            return outcome == self.one_after_the_other((second, 2))
        return outcome == self.one_after_the_other((second, 2), (first, 1)) or (
            outcome == self.one_after_the_other((first, 1), (second, 2))
        )


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("first", FIRST)
def test_two_writes_are_serialisable(first: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Arena(tmp_path, start)
    wrong = [second for second in ACTS if not arena.serialisable(first, second, monkeypatch)]
    assert not wrong, f"{first}, preempted by {wrong}"


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("verb", VERBS)
def test_twins_that_make_the_same_commit_at_once_make_it_once(
    verb: Verb, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that was taken for dead, and the one that took its place: both look, find nothing, and commit."""
    arena = Arena(tmp_path, start)
    op = Op("job", verb, (1, 50), 7)
    monkeypatch.setitem(ACTS, "the job", lambda table, _: op.run(table))
    outcome, done = arena.preempted("the job", "the job", monkeypatch)
    assert done
    assert outcome == arena.one_after_the_other(("the job", 1))


def test_without_the_claim_two_merges_of_one_key_would_both_insert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: leave out what `merge` does about it, and a key is there twice."""
    plan = merge._plan_merge

    def unclaimed(
        newest: lance.LanceDataset, spool: Spool, key: tuple[str, ...], mode: merge.Mode, counts: dict[str, int]
    ) -> lance.LanceOperation.BaseOperation | None:
        operation = plan(newest, spool, key, mode, counts)
        if operation is not None:
            operation.updated_fragments = []
        return operation

    monkeypatch.setattr(merge, "_plan_merge", unclaimed)
    assert not Arena(tmp_path, "rows").serialisable("merge a new key", "merge a new key", monkeypatch)

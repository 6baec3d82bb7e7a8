"""Four real processes write at once: nothing acknowledged is lost or doubled, on disk and on S3."""

from __future__ import annotations

import random
from collections import Counter

from lake.storage import Location
from tests.support.tables import content, make
from tests.support.writer import Op, finish, replay, start

PROCESSES = 4
CONTENDED = (0, 1, 1000, 1001)  # two keys that are there, and two that are not


def work(process: int, each: int) -> list[Op]:
    """Appends, merges of keys of its own, merges of everybody's keys, and some updates and deletes."""
    ops = []
    for i in range(each):
        key = 10_000 * (process + 1) + 10 * i
        name = f"{process}-{i}"
        ops += [
            Op(f"{name}-append", "append", (key, key + 1), i),
            Op(f"{name}-merge", "merge", (key + 2, key + 3), i),
            Op(f"{name}-contended", "merge", CONTENDED, process * 100 + i),
        ]
    random.Random(process).shuffle(ops)
    own = 10_000 * (process + 1)  # the update and the delete need rows that were written before
    return [
        *ops,
        Op(f"{process}-update", "update", (own, own + 2), 77),
        Op(f"{process}-delete", "delete", (own + 1,), 0),
    ]


def test_four_processes_write_at_once(root: Location) -> None:
    table = make(root)
    each = 6 if root.scheme == "file" else 2  # moto is slow
    plans = [work(p, each) for p in range(PROCESSES)]
    receipts = [r for process in [start(table, plan) for plan in plans] for r in finish(process)]
    tried = [op for plan in plans for op in plan]

    assert {r.commit_id for r in receipts} == {op.id for op in tried}, "each was acknowledged, whatever the contention"
    last = replay(table, 2, tried, {r.commit_id for r in receipts})

    assert sorted(last.items()) == content(table)
    assert max(Counter(key for key, _ in content(table)).values()) == 1
    inserted, deleted = sum(r.inserted for r in receipts), sum(r.deleted for r in receipts)
    assert 20 + inserted - deleted == len(content(table))
    assert sum(r.updated for r in receipts) == PROCESSES * (each * len(CONTENDED) + 2) - 2  # two of them were new
    acknowledged = {op.n for op in tried if op.keys == CONTENDED}
    assert {last[key] for key in CONTENDED} <= acknowledged
    assert len({last[key] for key in CONTENDED}) == 1, "a merge is all or nothing"
    assert len({r.version for r in receipts}) == len(receipts), "each made a version of its own"

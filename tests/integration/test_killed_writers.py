"""Writers killed in the midst of a commit: all or nothing, and the repeat applies it once."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from lake.storage import Location
from tests.support.proxy import Proxy, Rule
from tests.support.s3 import options
from tests.support.tables import content, make
from tests.support.writer import Op, Verb, finish, replay, start


@pytest.mark.s3
@pytest.mark.parametrize("landed", [False, True], ids=["the put is lost", "the put lands afterwards"])
@pytest.mark.parametrize("verb", ["append", "merge"])
def test_killed_at_each_put_of_a_commit(verb: Verb, landed: bool, bucket: Location, proxy: Proxy) -> None:
    """The proxy holds the nth put; the writer is killed; then the put is dropped, or delivered."""
    for nth in itertools.count(1):
        table = make(bucket, f"t{nth}")
        op = Op("job", verb, (15, 50) if verb == "merge" else (50, 51), 7)
        before = dict(content(table))
        proxy.arm(Rule("hold", f"t{nth}.lance/(data|_deletions|_transactions|_versions)", nth=nth))
        process = start(Location.of(table.uri, options(proxy.url)), [op])
        held = proxy.wait(process)
        if held:
            process.kill()
            assert finish(process) == []
            proxy.release(forward=landed)
        else:
            assert len(finish(process)) == 1
        assert dict(content(table)) in (before, op.apply(before)), "all or nothing"
        op.run(table)
        assert content(table) == sorted(op.apply(before).items())
        assert op.run(table).repeated
        replay(table, 2, [op], [op.id])
        if not held:
            break
    assert nth > 3, "data, transaction, manifest"


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_on_disk(seed: int, tmp_path: Path) -> None:
    table = make(Location.of(tmp_path))
    chance = random.Random(seed)
    verbs: list[Verb] = ["append", "merge", "update", "delete"]
    ops = [Op(f"{i}", verbs[i % 4], (100 + i, 101 + i - i % 2), i) for i in range(0, 4000, 2)]
    process = start(table, ops)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(chance.randrange(1, 40))]  # it is at work
    process.kill()
    acked = {r.commit_id for r in finish(process)} | {line.split('"commit_id": "')[1].split('"')[0] for line in told}
    replay(table, 2, ops, acked)
    done = sorted(acked, key=int)
    assert done == [op.id for op in ops[: len(done)]]
    following = ops[: len(done) + 3]
    for op in following:
        op.run(table)
    replay(table, 2, following, {op.id for op in following})

"""Compaction as a job: in several processes, among other writers, killed, against the rows as a dict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import Conflict
from lake.run import Event, JobCommitted, LocalExecutor, TaskDone, ignore
from lake.table import compact, pins
from tests.support.wide import Wide

FRAGMENTS, ROWS, DIMENSION = 12, 50, 8
Rows = dict[int, int]


def some(ids: range, n: int = 0) -> pa.Table:
    vectors = np.random.default_rng(ids.start).standard_normal((len(ids), DIMENSION), np.float32)
    held = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)
    return pa.table({"id": pa.array(ids), "n": pa.array([n] * len(ids)), "vector": held})


def content(table: lake.Table) -> Rows:
    found = table.to_arrow(["id", "n"]).to_pydict()
    assert len(set(found["id"])) == len(found["id"])
    return dict(zip(found["id"], found["n"], strict=True))


def fragments(table: lake.Table) -> dict[int, int]:
    return {f.fragment_id: f.count_rows() for f in table.dataset.get_fragments()}


@pytest.fixture
def table(tmp_path: Path) -> lake.Table:
    """Twelve fragments of 50 rows, two indexes, and a fragment that they do not cover."""
    made = lake.connect(tmp_path).create_table("t", some(range(ROWS)), key="id")
    for n in range(1, FRAGMENTS):
        made.append(some(range(n * ROWS, n * ROWS + ROWS)))
    made.create_index("vector", "ivf_flat", partitions=4)
    made.create_index("id", "btree")
    made.build(executor=LocalExecutor(1))
    made.append(some(range(FRAGMENTS * ROWS, FRAGMENTS * ROWS + ROWS)))
    return made


@pytest.mark.parametrize("executor", [Wide(4), LocalExecutor(2)], ids=["here", "processes"])
@pytest.mark.parametrize("often", [False, True])
def test_rows_ids_and_indexes_stay(
    table: lake.Table, monkeypatch: pytest.MonkeyPatch, executor: LocalExecutor, often: bool
) -> None:
    if often:
        monkeypatch.setattr(compact, "_COMMIT_SECONDS", 0.0)
    table.delete("id % 50 = 7")
    before = table.dataset.to_table(with_row_id=True).sort_by("id")
    heard: list[Event] = []
    done = table.compact(target_rows=150, deleted=0.0, executor=executor, on_event=heard.append)
    rewrites = sum(isinstance(event, TaskDone) for event in heard)
    assert rewrites > 2
    assert (done.commits, done.conflicts, done.fenced) == (rewrites if often else 1, 0, 0)
    assert done.fragments_removed == FRAGMENTS + 1
    assert done.fragments_added == len(fragments(table)) < FRAGMENTS
    assert heard[-1] == JobCommitted(heard[-1].job, table.version, time=heard[-1].time)  # type: ignore[attr-defined]
    assert table.dataset.to_table(with_row_id=True).sort_by("id").equals(before)
    assert [(i.rows_covered, i.rows_missing) for i in table.coverage()] == [(FRAGMENTS * 49, 49)] * 2
    query = some(range(ROWS, 2 * ROWS))["vector"][3].as_py()
    [nearest] = table.search(vector=query, k=1, columns=["id"], nprobe=4).to_pylist()
    assert nearest["id"] == ROWS + 3
    assert table.search(where="id = 607", columns=["id"]).to_pylist() == []
    assert pins.pins(table.dataset) == []
    again = table.compact(target_rows=150, deleted=0.0, executor=executor, on_event=ignore)
    assert (again.version, again.commits, again.fragments_removed) == (done.version, 0, 0)


def test_blobs_and_columns_without_files_stay(tmp_path: Path) -> None:
    """Lance once lost blobs that followed an empty one, and columns that older files do not have."""
    schema = lake.Schema([lake.Column("id", int), lake.Column("file", bytes, "blob")], key="id")
    files = [b"one", None, b"", b"two" * 100, b"x" * 100_000, b"", None, b"end"]
    table = lake.connect(tmp_path).create_table("t", schema, data={"id": range(8), "file": files})
    table.add_columns({"text": pa.string(), "vector": pa.list_(pa.float32(), 64), "tags": pa.list_(pa.string())})
    more = {"id": range(8, 16), "file": files, "text": ["", None] * 4, "tags": [[], None, [""], ["a", "b"]] * 2}
    table.append(more)
    table.append({"id": range(16, 18), "vector": [[0.5] * 64, None]})
    before = table.to_arrow()
    assert table.compact().fragments_removed == 3
    assert table.to_arrow().equals(before)
    table.delete("id IN (2, 12)")
    assert table.compact().fragments_removed == 1
    kept = [row for row in before.to_pylist() if row["id"] not in (2, 12)]
    assert table.to_arrow().to_pylist() == kept


def when_one_is_done(act: Callable[[], object]) -> Callable[[Event], None]:
    """Do something when the first fragments have been rewritten, and none is committed."""
    waiting = [act]

    def hear(event: Event) -> None:
        if isinstance(event, TaskDone) and waiting:
            waiting.pop()()

    return hear


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda t: t.delete("id IN (3, 320)"),
            lambda r: {i: n for i, n in r.items() if i not in (3, 320)},
            id="delete",
        ),
        pytest.param(lambda t: t.update({"n": 1}, "id IN (3, 320)"), lambda r: r | {3: 1, 320: 1}, id="update"),
        pytest.param(
            lambda t: t.merge(some(range(40, 60), 2)), lambda r: r | dict.fromkeys(range(40, 60), 2), id="merge"
        ),
        pytest.param(
            lambda t: t.merge(pa.table({"id": [3, 320], "n": [5, 5]}), mode="update"),
            lambda r: r | {3: 5, 320: 5},
            id="some columns",
        ),
        pytest.param(lambda t: t.compact(target_rows=1000), lambda r: r, id="another compaction"),
    ],
)
def test_what_others_change_meanwhile_is_rewritten_again(
    table: lake.Table, change: Callable[[lake.Table], object], expected: Callable[[Rows], Rows]
) -> None:
    before = content(table)
    other = lake.connect(Path(table.uri).parent).open_table("t")
    done = table.compact(
        target_rows=150, deleted=0.0, executor=Wide(4), on_event=when_one_is_done(lambda: change(other))
    )
    assert content(table) == expected(before)
    assert done.conflicts > 0
    assert done.version == table.version
    assert table.compact(target_rows=150, deleted=0.0, executor=Wide(4), on_event=ignore).commits == 0


def test_what_others_leave_alone_is_committed_at_once(table: lake.Table) -> None:
    before = content(table)
    other = lake.connect(Path(table.uri).parent).open_table("t")
    changes = [lambda: other.delete("id = 3")]
    done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(changes[0]))
    assert (done.conflicts, done.commits) == (1, 2)
    assert content(table) == {i: n for i, n in before.items() if i != 3}


def test_appends_hold_nothing_up(table: lake.Table) -> None:
    before = content(table)
    other = lake.connect(Path(table.uri).parent).open_table("t")
    done = table.compact(
        target_rows=150, executor=Wide(4), on_event=when_one_is_done(lambda: other.append(some(range(900, 950), 9)))
    )
    assert (done.conflicts, done.commits) == (0, 1)
    assert content(table) == before | dict.fromkeys(range(900, 950), 9)


def test_fragments_that_a_job_has_taken_meanwhile_are_left_to_it(table: lake.Table) -> None:
    before, [first, *_] = content(table), sorted(fragments(table))
    with pytest.MonkeyPatch.context() as patch:
        held = pins.pin(table.snapshot(), job="index", fragments=[first])
        done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(held.__enter__))
        patch.undo()
    assert first in fragments(table)
    assert (done.conflicts, done.fenced) == (1, 1)
    assert content(table) == before
    held.__exit__(None, None, None)


def test_writers_that_never_stop_are_named(table: lake.Table) -> None:
    other, number = lake.connect(Path(table.uri).parent).open_table("t"), iter(range(1000))

    def hear(event: Event) -> None:
        if isinstance(event, TaskDone):
            other.delete(f"id = {next(number)}")

    with pytest.raises(Conflict, match=r"5 times, last by delete at version \d+; 0 others are compacted"):
        table.compact(target_rows=1000, deleted=0.0, executor=Wide(4), on_event=hear)
    assert sorted(content(table)) == list(range(5, (FRAGMENTS + 1) * ROWS))


_KILLED = """
import os, signal, sys
import lake
from lake.run import LocalExecutor, TaskDone
from lake.table import compact

if __name__ == "__main__":
    compact._COMMIT_SECONDS = 0.0
    done = []

    def hear(event):
        if isinstance(event, TaskDone):
            done.append(event)
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    lake.connect(sys.argv[1]).open_table("t").compact(target_rows=150, executor=LocalExecutor(2), on_event=hear)
"""


def test_a_compaction_that_is_killed_goes_on(table: lake.Table, tmp_path: Path) -> None:
    before = table.dataset.to_table(with_row_id=True).sort_by("id")
    program = tmp_path / "killed.py"
    program.write_text(_KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, str(program), str(tmp_path)], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert table.dataset.to_table(with_row_id=True).sort_by("id").equals(before)
    committed = FRAGMENTS + 1 - len(fragments(table))
    assert committed > 0, "what was done is there"
    done = table.compact(target_rows=150, executor=Wide(4), on_event=ignore)
    assert 0 < done.fragments_removed < FRAGMENTS + 1
    assert table.dataset.to_table(with_row_id=True).sort_by("id").equals(before)
    assert len(fragments(table)) == -(-(FRAGMENTS + 1) // 3)

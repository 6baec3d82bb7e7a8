"""Compaction as a job: in several processes, among other writers, killed, against the rows as a dict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import Conflict, CorruptTable
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


@pytest.fixture
def other(table: lake.Table) -> lake.Table:
    return lake.connect(Path(table.uri).parent).open_table("t")


def searched(table: lake.Table) -> None:
    """Find some rows, by either index."""
    for row in (0, 103, 299, 300, 599, 620):
        if row in content(table):
            vector = some(range(row // ROWS * ROWS, row // ROWS * ROWS + ROWS))["vector"][row % ROWS].as_py()
            [nearest] = table.search(vector=vector, k=1, columns=["id"], nprobe=4).to_pylist()
            assert nearest["id"] == row
            assert table.search(where=f"id = {row}", columns=["id"]).to_pylist() == [{"id": row}]


@pytest.fixture(params=["here", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Wide | LocalExecutor]:
    if request.param == "here":
        yield Wide(4)
    else:
        with LocalExecutor(2) as processes:
            yield processes


@pytest.mark.parametrize("often", [False, True])
def test_rows_ids_and_indexes_stay(
    table: lake.Table, monkeypatch: pytest.MonkeyPatch, executor: Wide | LocalExecutor, often: bool
) -> None:
    if often:
        monkeypatch.setattr(compact, "_COMMIT_SECONDS", 0.0)
        monkeypatch.setattr(compact, "_WORK", 0)
    table.delete("id % 50 = 7")
    before = table.dataset.to_table(with_row_id=True).sort_by("id")
    heard: list[Event] = []
    done = table.compact(target_rows=150, deleted=0.0, executor=executor, on_event=heard.append)
    rewrites = sum(isinstance(event, TaskDone) for event in heard)
    assert rewrites > 2
    assert (done.commits, done.conflicts, done.fenced) == (rewrites if often else 1, 0, 0)
    assert done.fragments_removed == FRAGMENTS + 1
    assert done.fragments_added == len(fragments(table)) < FRAGMENTS
    committed = [event.version for event in heard if isinstance(event, JobCommitted)]
    assert len(committed) == done.commits
    assert committed[-1] == done.version == table.version
    assert table.dataset.to_table(with_row_id=True).sort_by("id").equals(before)
    assert [(i.rows_covered, i.rows_missing) for i in table.coverage()] == [(FRAGMENTS * 49, 49)] * 2
    searched(table)
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
    table: lake.Table, other: lake.Table, change: Callable[[lake.Table], object], expected: Callable[[Rows], Rows]
) -> None:
    before = content(table)
    done = table.compact(
        target_rows=150, deleted=0.0, executor=Wide(4), on_event=when_one_is_done(lambda: change(other))
    )
    assert content(table) == expected(before)
    assert done.conflicts > 0
    assert done.version == table.version
    assert table.compact(target_rows=150, deleted=0.0, executor=Wide(4), on_event=ignore).commits == 0
    searched(table)


def test_what_others_leave_alone_is_committed_at_once(table: lake.Table, other: lake.Table) -> None:
    before = content(table)
    done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(lambda: other.delete("id = 3")))
    assert (done.conflicts, done.commits) == (1, 2)
    assert content(table) == {i: n for i, n in before.items() if i != 3}


@pytest.mark.parametrize(
    ("change", "more"),
    [
        pytest.param(lambda t: t.append(some(range(900, 950), 9)), range(900, 950), id="append"),
        pytest.param(lambda t: t.append(some(range(900, 950), 9), commit_id="load"), range(900, 950), id="append once"),
        pytest.param(lambda t: t.merge(some(range(900, 903), 9)), range(900, 903), id="new keys"),
        pytest.param(lambda t: t.add_columns({"x": pa.int32()}), range(0), id="new column"),
        pytest.param(lambda t: t.rename_columns({"vector": "v"}), range(0), id="renamed column"),
        pytest.param(lambda t: t.restore(t.version), range(0), id="restore"),
    ],
)
def test_what_changes_no_row_that_is_there_holds_nothing_up(
    table: lake.Table, other: lake.Table, change: Callable[[lake.Table], object], more: range
) -> None:
    before = content(table)
    done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(lambda: change(other)))
    assert (done.conflicts, done.commits, done.fragments_removed) == (0, 1, FRAGMENTS)
    assert content(table) == before | dict.fromkeys(more, 9)
    searched(table)


def test_an_index_that_is_dropped_meanwhile(table: lake.Table, other: lake.Table) -> None:
    """Lance has noted addresses for it, and then has nothing to note them in."""
    before = content(table)
    done = table.compact(
        target_rows=150, executor=Wide(4), on_event=when_one_is_done(lambda: other.drop_index("id_idx"))
    )
    assert done.conflicts > 0
    assert done.fragments_removed == FRAGMENTS
    assert content(table) == before


def test_a_column_whose_number_is_given_to_another_meanwhile(
    table: lake.Table, other: lake.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the table has the first column, but those have it that are about to be put."""
    monkeypatch.setattr("lake.table.commit.GRACE", timedelta(0))
    table.add_columns({"x": pa.list_(pa.string())})

    def change() -> None:
        other.drop_columns(["x"])
        other.add_columns({"y": pa.struct([("a", pa.int32()), ("b", pa.string())])})
        other.append(some(range(900, 950), 9))
        assert other.expire(timedelta(0), dry_run=False).versions

    done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(change))
    assert done.conflicts > 0
    assert table.to_arrow(["y"])["y"].to_pylist() == [None] * len(table)


def test_a_damaged_file_holds_up_its_own_rows_only(table: lake.Table) -> None:
    first = table.dataset.get_fragments()[0].metadata
    (Path(table.uri) / "data" / first.files[0].path).write_bytes(b"torn")
    with pytest.raises(CorruptTable, match=r"t\.lance"):
        table.compact(target_rows=150, executor=Wide(4), on_event=ignore)
    assert sorted(fragments(table).values()) == [ROWS] * 4 + [3 * ROWS] * 3
    assert pins.pins(table.dataset) == []


def test_fragments_that_a_job_has_taken_meanwhile_are_left_to_it(table: lake.Table) -> None:
    before, [first, *_] = content(table), sorted(fragments(table))
    held = pins.pin(table.snapshot(), job="index", fragments=[first])
    done = table.compact(target_rows=150, executor=Wide(4), on_event=when_one_is_done(held.__enter__))
    assert first in fragments(table)
    assert (done.conflicts, done.fenced) == (1, 1)
    assert content(table) == before
    held.__exit__(None, None, None)


def test_writers_that_never_stop_are_named(table: lake.Table, other: lake.Table) -> None:
    number = iter(range(1000))

    def hear(event: Event) -> None:
        if isinstance(event, TaskDone):
            other.delete(f"id = {next(number)}")

    with pytest.raises(Conflict, match=r"5 times, last by delete at version \d+; 0 fragments are compacted"):
        table.compact(target_rows=1000, deleted=0.0, executor=Wide(4), on_event=hear)
    assert sorted(content(table)) == list(range(5, (FRAGMENTS + 1) * ROWS))


_KILLED = """
import os, signal, sys
import lake
from lake.run import LocalExecutor, TaskDone
from lake.table import compact

if __name__ == "__main__":
    compact._COMMIT_SECONDS, compact._WORK = 0.0, 0
    done = []

    def hear(event):
        if isinstance(event, TaskDone):
            done.append(event)
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    table = lake.connect(sys.argv[1]).open_table("t")
    table.compact(target_rows=150, executor=LocalExecutor(2), job_id="nightly", on_event=hear)
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
    assert [pin.job for pin in pins.pins(table.dataset)] == ["nightly"]
    done = table.compact(target_rows=150, executor=Wide(4), job_id="nightly", on_event=ignore)
    assert 0 < done.fragments_removed < FRAGMENTS + 1
    assert pins.pins(table.dataset) == []
    assert table.dataset.to_table(with_row_id=True).sort_by("id").equals(before)
    assert len(fragments(table)) == -(-(FRAGMENTS + 1) // 3)

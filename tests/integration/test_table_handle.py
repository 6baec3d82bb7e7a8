"""A table in its users' hands: threads, branches, pins, blobs, columns that change under other writers."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import InvalidInput, NotFound, NotSupported
from lake.table import commit


def rows(ids: range, n: int = 0) -> dict[str, Any]:
    return {"id": list(ids), "n": [n] * len(ids), "vector": np.random.default_rng(0).random((len(ids), 4))}


@pytest.fixture
def lk(tmp_path: Path) -> lake.Lake:
    return lake.connect(tmp_path)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "GRACE", timedelta(0))


def test_many_threads_share_a_table(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(200)), key="id")

    def work(number: int) -> int:
        if number % 4 == 0:
            table.append(rows(range(1000 + number, 1001 + number)))
        assert table.to_arrow(["id"]).num_rows >= 200
        return len(table.search(vector=np.ones(4), k=3))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(64))) == [3] * 64
    assert len(table) == 216


def test_a_restore_stays_on_its_branch(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(10)), key="id")
    trial = table.branch("trial")
    trial.append(rows(range(10, 15)))
    trial.tag("tried")
    trial.append(rows(range(15, 20)))
    with pytest.raises(InvalidInput, match="is on branch 'trial'"):
        table.restore("tried")
    assert (len(table), len(trial)) == (10, 20)
    trial.restore("tried")
    assert (len(table), len(trial)) == (10, 15)


def test_a_restore_keeps_the_declared_indexes(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(10)), key="id")
    table.create_index("n", "btree")
    table.add_columns({"later": pa.int64()})
    table.create_index("later", "btree")
    table.restore(1)
    assert [spec.name for spec in table.indexes()] == ["n_idx"]


@pytest.mark.usefixtures("no_grace")
def test_expiry_on_a_branch_is_refused(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(10)), key="id")
    trial = table.branch("trial")
    table.append(rows(range(10, 20)))
    with pytest.raises(NotSupported, match="trial"):
        trial.expire(timedelta(0), dry_run=False)
    assert [v.version for v in table.versions()] == [2, 1]


def test_a_table_with_branches_is_not_renamed(lk: lake.Lake) -> None:
    lk.create_table("t", rows(range(10)), key="id").branch("trial")
    with pytest.raises(NotSupported, match="trial"):
        lk.rename_table("t", "u")
    assert list(lk) == ["t"]


@pytest.mark.usefixtures("no_grace")
def test_a_pin_keeps_a_version(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(10)), key="id")
    with table.pin() as frozen:
        table.overwrite(rows(range(3)))
        table.overwrite(rows(range(4)))
        assert table.expire(timedelta(0), dry_run=False).versions == (2,)
        assert len(frozen) == 10
        assert table.tags() == {}
    assert table.expire(timedelta(0), dry_run=False).versions == (1,)
    with pytest.raises(NotFound):
        table.at(1)


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("verb", ["merge", "update", "compact"])
def test_a_change_planned_before_others_expired_is_planned_again(
    lk: lake.Lake, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """While one writer plans, another deletes row 3, more versions follow, and all that lay between expires."""
    table = lk.create_table("t", rows(range(10)), key="id")
    table.append(rows(range(10, 12)))
    once = threading.Event()
    genuine = commit.require_history

    def slow(head: Any) -> None:
        if not once.is_set():
            once.set()
            other = lk.open_table("t")
            other.delete("id = 3")
            other.append(rows(range(20, 22)))
            other.append(rows(range(22, 24)))
            assert other.expire(timedelta(0), dry_run=False).versions
        genuine(head)

    monkeypatch.setattr(f"lake.table.{'rewrite' if verb == 'compact' else 'commit'}.require_history", slow)
    if verb == "merge":
        table.merge(rows(range(4, 6), n=1))
    elif verb == "update":
        table.update({"n": 1}, "id >= 4 AND id < 6")
    else:
        table.compact(target_rows=100, deleted=0.0)
    assert once.is_set()
    found = table.to_arrow(["id", "n"]).to_pydict()
    assert sorted(found["id"]) == [0, 1, 2, *range(4, 12), *range(20, 24)]
    if verb != "compact":
        assert sorted(i for i, n in zip(found["id"], found["n"], strict=True) if n) == [4, 5]


def test_blobs_are_read_as_bytes(lk: lake.Lake) -> None:
    schema = lake.Schema([lake.Column("id", int), lake.Column("file", bytes, "blob")], key="id")
    table = lk.create_table("t", schema, data={"id": [1, 2], "file": [b"one", b"two" * 100]})
    assert table.to_arrow()["file"].to_pylist() == [b"one", b"two" * 100]
    table.update({"file": b"other"}, "id = 1")
    assert table.to_arrow(["file"], "id = 1")["file"].to_pylist() == [b"other"]


def test_columns_change_while_others_append(lk: lake.Lake) -> None:
    table = lk.create_table("t", rows(range(10)), key="id")
    stop = threading.Event()
    acknowledged = [10]

    def appending() -> None:
        at = 100
        while not stop.is_set():
            # An append under which the columns were changed writes nothing.
            with contextlib.suppress(lake.Conflict, InvalidInput):
                acknowledged[0] += table.append(rows(range(at, at + 1))).inserted
            at += 1
            stop.wait(0.03)  # a writer that never rests would keep a computed column out for ever

    writer = threading.Thread(target=appending)
    writer.start()
    try:
        for number in range(5):
            table.add_columns({f"twice{number}": lake.sql("id * 2")})
            table.rename_columns({f"twice{number}": f"double{number}"})
    finally:
        stop.set()
        writer.join()
    assert len(table) == acknowledged[0]
    assert {f"double{number}" for number in range(5)} <= set(table.schema.names)
